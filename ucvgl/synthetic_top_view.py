"""What the flat-ground projection would make of a satellite tile: a top view whose true tile is known.

A top view is sharp up to the first wall, car or crown in each direction, smeared along the ray beyond it, and never
quite placed as its tile. Both can be put into a tile, without a label. Ours: UCVGL's CycleGAN goes from top views to
tiles only, and small encoders then learn to recognise the smears, which no real tile has.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ucvgl.augment import STREET_LEVEL, jitter_placement


@dataclass(frozen=True)
class Occlusion:
    """What stands around a camera, as fractions of half the tile's width."""

    nearest: float = 0.19  # of an occluder: a kerb-side car at 5 m of 25
    farthest: float = 1.1
    open_share: float = 0.3  # of the directions that are free to the tile's edge
    directions: int = 16  # most occluders around a camera; at least 4
    wall: float = 0.8  # how much of a smear may be the occluder's own colour; the rest is the ground at its foot
    shade: float = 0.4  # how much a smear may darken outwards


def horizon(count: int, size_px: int, settings: Occlusion, generator: Generator) -> Tensor:
    """How far each of `count` cameras sees along the ray through each pixel, blocked in 4 or more sectors: (count, S, S)."""
    x, y = _coordinates(size_px)
    blocks = torch.randint(4, settings.directions + 1, (count, 1, 1), generator=generator)
    part = torch.rand(count, settings.directions, generator=generator)
    distance = settings.nearest + part * (settings.farthest - settings.nearest)
    free = torch.rand(count, settings.directions, generator=generator) < settings.open_share
    distance = torch.where(free, 2.0, distance)  # beyond the corners
    first = torch.rand(count, 1, 1, generator=generator)
    azimuth = (torch.atan2(x, -y) / (2 * math.pi) + first) % 1  # (count, S, S)
    sector = (azimuth * blocks).long().clamp(max=settings.directions - 1)
    return distance.gather(1, sector.flatten(1)).view(count, size_px, size_px)


def smear(images: Tensor, settings: Occlusion, generator: Generator) -> Tensor:
    """Draw out what stands at the horizon along the rays beyond it, in a colour between the ground's and a wall's;
    float in 0..1, (B, 3, S, S), the camera in the middle. The generator is on the CPU."""
    count, _, _, width = images.shape
    x, y = _coordinates(width)
    radius = torch.hypot(x, y).clamp(min=1e-3)
    seen = horizon(count, width, settings, generator)
    reach = (seen / radius).clamp(max=1)  # where along the ray a pixel takes its colour, as a part of its own radius
    grid = torch.stack((x * reach, y * reach), -1).to(images)
    out = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    colour = torch.rand(count, 3, 1, 1, generator=generator) * 0.6 + 0.2
    painted = torch.rand(count, 1, 1, 1, generator=generator) * settings.wall
    darker = torch.rand(count, 1, 1, 1, generator=generator) * settings.shade
    beyond = (radius - seen).unsqueeze(1)  # (B, 1, S, S)
    weight, shade = (beyond > 0) * painted, 1 - darker * beyond.clamp(0, 1)
    return (out * (1 - weight).to(out) + (colour * weight * shade).to(out)).clamp(0, 1)


def synthetic_top_view(tiles: Tensor, occlusion: Occlusion, generator: Generator) -> Tensor:
    """Tiles, float (B, 3, S, S) -> as a top view of the same spot might look."""
    return smear(jitter_placement(tiles, STREET_LEVEL, generator), occlusion, generator)


def _coordinates(size_px: int) -> tuple[Tensor, Tensor]:
    """Of each pixel's centre, right and down, in -1..1: (S, S) each."""
    steps = (torch.arange(size_px) + 0.5) * (2 / size_px) - 1
    return torch.meshgrid(steps, steps, indexing="xy")
