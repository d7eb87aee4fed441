"""Old names of the container, until the last of its users is ported."""

from ucvgl.data.container import ArrayImages, Dataset, FileImages, ImageSet, Positives

Views = Dataset

__all__ = ["ArrayImages", "FileImages", "ImageSet", "Positives", "Views"]
