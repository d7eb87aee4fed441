"""Matching without learning: how far plain pixels and plain colours get. What a learned method has to beat."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ucvgl.translation import centre_weight


def pixel_descriptor(images: Tensor, size_px: int = 32) -> Tensor:
    """Blurred, centre-weighted, standardised pixels: (B, 3, S, S) uint8 or float -> (B, 3 * size_px**2) float32, unit length.
    A dot product is a weighted normalised correlation; far ground is smeared in a top view, so the middle weighs more."""
    from torchvision.transforms.v2 import functional as V  # here, since it takes seconds to load

    small = F.interpolate(images.float(), (size_px, size_px), mode="area")
    small = V.gaussian_blur(small, [7, 7], [1.5, 1.5])
    weight = centre_weight(size_px).to(images.device)
    weight = weight / weight.sum()
    mean = (small * weight).sum((-2, -1), keepdim=True)
    return F.normalize(((small - mean) * weight.sqrt()).flatten(1), dim=1)


def colour_descriptor(images: Tensor, *, bins: int = 8) -> Tensor:
    """Joint colour histogram, (B, 3, H, W) uint8 -> (B, bins**3) float32 of unit length: what is there, not where.
    Roots of the counts, so that a dot product is the Bhattacharyya coefficient."""
    level = (images.int() * bins) // 256  # (B, 3, H, W)
    code = ((level[:, 0] * bins + level[:, 1]) * bins + level[:, 2]).flatten(1).long()
    counts = torch.zeros(len(images), bins**3, device=images.device)
    counts.scatter_add_(1, code, torch.ones_like(code, dtype=counts.dtype))
    return F.normalize(counts.sqrt(), dim=1)


def centred_by_domain(descriptors: Tensor) -> Tensor:
    """Subtract the domain's mean and renormalise: removes what all images of one view share, as its light or its sensor."""
    return F.normalize(descriptors - descriptors.mean(0), dim=1)
