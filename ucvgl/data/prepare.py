"""From files to arrays: images of a data set read, projected and resized once, and mapped from disk after that.

So data sets larger than memory are read by the page. No label is looked at.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from ucvgl.data.cache import made_once, mapped, new_images
from ucvgl.data.container import ArrayImages, Dataset, FileImages, ImageSet
from ucvgl.data.decoding import batches, image_size
from ucvgl.geometry import TopView, complete_panorama, polar_view, top_view

BATCH = 64
VERSION = 1  # of what is written: raised when the pixels change


@dataclass(frozen=True)
class Preparation:
    """The images that encoders are given."""

    query_px: tuple[int, int] = (384, 384)  # height, width, squeezed into it; UCVGL (384, 384), on VIGOR (384, 768)
    gallery_px: tuple[int, int] = (384, 384)  # UCVGL (384, 384)
    top_view: TopView | None = None  # queries are panoramas, and their projections are wanted too
    polar: bool = False  # ours: gallery tiles unrolled around their centres, to the queries' size (SAFA, section 3.1)


def prepare(data: Dataset, config: Preparation, *, progress: bool = True) -> Dataset:
    """The data set with tensors behind it; its labels come along untouched.

    Args:
        data: N queries, M gallery images.
        config: the sizes and the projection.
        progress: show a bar.

    Returns:
        query uint8 (N, 3, H, W), gallery (M, 3, h, w), and top_view (N, 3, S, S) if there is a projection.

    Raises:
        InputError: an image that cannot be read, no room on the disk.
    """
    key = {
        "version": VERSION, "query": data.query.digest(), "gallery": data.gallery.digest(),
        "strip_offset": data.strip_offset, **asdict(config),
    }  # fmt: skip
    folder = made_once("images", key, lambda folder: _write(folder, data, config, progress))

    def ready(name: str, images: ImageSet) -> ArrayImages:
        return ArrayImages(images.ids, mapped(folder, name), images.positions, f"{folder.name}-{name}")

    top = ready("top_view", data.query) if config.top_view else None
    return replace(data, query=ready("query", data.query), gallery=ready("gallery", data.gallery), top_view=top)


def _write(folder: Path, data: Dataset, config: Preparation, progress: bool) -> None:
    query = new_images(folder, "query", (len(data.query), 3, *config.query_px))
    gallery = new_images(
        folder, "gallery", (len(data.gallery), 3, *(config.query_px if config.polar else config.gallery_px))
    )
    arrays = [query, gallery]
    if config.top_view:
        top = new_images(folder, "top_view", (len(data.query), 3, config.top_view.size_px, config.top_view.size_px))
        arrays.append(top)
    with tqdm(total=len(query) + len(gallery), desc="images", unit="image", disable=not progress) as bar:
        for rows, images in _native(data.query) if config.top_view else _batches(data.query, config.query_px):
            query[rows] = resized(images, config.query_px).numpy()
            if config.top_view:
                is_strip = images.shape[3] != 2 * images.shape[2]
                whole = complete_panorama(images, strip_offset=data.strip_offset) if is_strip else images
                top[rows] = top_view(whole, config.top_view).numpy()
            bar.update(len(rows))
        for rows, images in _batches(data.gallery, config.gallery_px):
            gallery[rows] = (polar_view(images, *config.query_px) if config.polar else images).numpy()
            bar.update(len(rows))
    for array in arrays:
        array.flush()


def _native(images: ImageSet) -> Iterator[tuple[np.ndarray, Tensor]]:
    """All images in batches of one size each: a projection wants a panorama's own pixels, and sizes differ in a folder."""
    if isinstance(images, FileImages):
        sizes = np.array([image_size(images.file(i)) for i in range(len(images))])
    else:
        sizes = np.array([images.read(0).shape[1:]] * len(images))
    for size in np.unique(sizes, axis=0):
        yield from _batches(images, tuple(size.tolist()), np.flatnonzero((sizes == size).all(1)))


def _batches(
    images: ImageSet, size: tuple[int, int], order: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Images in batches, all in order by default: from a tensor as they lie there, from files by worker processes."""
    workers = 0 if isinstance(images, ArrayImages) else 2
    for rows, pixels in batches(images, size, BATCH, order, workers=workers):
        yield rows.numpy(), pixels


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (B, 3, H, W) -> uint8 (B, 3, *size), averaging over the pixels that fall together."""
    if tuple(images.shape[2:]) == tuple(size):
        return images
    return F.interpolate(images.float(), size, mode="area").round().to(images.dtype)
