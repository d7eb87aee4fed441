"""What the flat-ground projection would make of a satellite tile: a top view whose true tile is known.

A top view is sharp up to the first wall, car or crown in each direction and smeared along the ray beyond it, and it is
never quite centred, turned or scaled as its tile. Both can be put into a satellite tile, without a label: the tile and
its synthetic top view are a pair that teaches the encoders to look past smears.

Ours, not in UCVGL, whose CycleGAN goes the other way only (top view -> satellite). Without it, small encoders trained
from scratch on a few thousand pairs learn to recognise the smears themselves, which no real tile has.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ucvgl.errors import InputError


@dataclass(frozen=True)
class Pose:
    """How far a top view and its tile may lie apart; each drawn evenly from minus to plus the value.

    The values are what an engineer would guess of a street-level camera's GPS and compass, not the world's truth.
    """

    turn_deg: float = 7.0  # error of the heading
    scale: float = 0.15  # error of the assumed camera height, as a part of it
    shift: float = 0.15  # error of the position, as a part of half the span: about 4 m of 25

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < (90 if name == "turn_deg" else 1):
                raise InputError(f"pose: {name}", expected="a spread >= 0, turns below 90, parts below 1", found=value,
                                 todo="Correct it.")  # fmt: skip


@dataclass(frozen=True)
class Occlusion:
    """What stands around a camera, in parts of half the tile's width."""

    nearest: float = 0.19  # of an occluder: a kerb-side car at 5 m of 25
    farthest: float = 1.1
    open_share: float = 0.3  # of the directions that are free to the tile's edge
    directions: int = 16  # most occluders around a camera; at least 4
    wall: float = 0.8  # how much of a smear may be the occluder's own colour; the rest is the ground at its foot
    shade: float = 0.4  # how much a smear may darken outwards


def jitter_pose(images: Tensor, pose: Pose, generator: Generator) -> Tensor:
    """Turn, scale and shift each image by itself; what enters at the edges is mirrored.

    Args:
        images: float (B, C, S, S).
        pose: the spreads.
        generator: of every random number, on the CPU.
    """
    count = len(images)
    draws = torch.rand(4, count, generator=generator) * 2 - 1
    turn, scale = draws[0] * math.radians(pose.turn_deg), 1 + draws[1] * pose.scale
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = turn.cos() * scale
    theta[:, 0, 1], theta[:, 1, 0] = -turn.sin() * scale, turn.sin() * scale
    theta[:, :, 2] = draws[2:].T * pose.shift
    grid = F.affine_grid(theta.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def horizon(count: int, size_px: int, settings: Occlusion, generator: Generator) -> Tensor:
    """How far each of `count` cameras sees along the ray through each pixel: (count, S, S), in half widths.

    Between 4 and `directions` sectors of equal angle, the first at a random azimuth; each is blocked at one distance.
    """
    x, y = _coordinates(size_px)
    blocks = torch.randint(4, settings.directions + 1, (count,), generator=generator)
    distance = torch.rand(count, settings.directions, generator=generator)
    distance = settings.nearest + distance * (settings.farthest - settings.nearest)
    free = torch.rand(count, settings.directions, generator=generator) < settings.open_share
    distance = torch.where(free, 2.0, distance)  # beyond the corners
    first = torch.rand(count, 1, 1, generator=generator)
    azimuth = (torch.atan2(x, -y) / (2 * math.pi) + first) % 1  # (count, S, S)
    sector = (azimuth * blocks.view(-1, 1, 1)).long().clamp(max=settings.directions - 1)
    return distance.gather(1, sector.flatten(1)).view(count, size_px, size_px)


def smear(images: Tensor, settings: Occlusion, generator: Generator) -> Tensor:
    """Draw out what stands at the horizon along the rays beyond it, in a colour between the ground's and a wall's.

    Args:
        images: float in 0..1, (B, 3, S, S), the camera in the middle.
        settings: of the occluders.
        generator: of every random number, on the CPU.

    Raises:
        InputError: images that are not square.
    """
    count, _, height, width = images.shape
    if height != width:
        raise InputError("images", expected="squares", found=tuple(images.shape), todo="Give top views or tiles.")
    x, y = _coordinates(width)
    radius = torch.hypot(x, y).clamp(min=1e-3)
    seen = horizon(count, width, settings, generator)
    reach = (seen / radius).clamp(max=1)  # where along the ray a pixel takes its colour, as a part of its own radius
    out = F.grid_sample(
        images, torch.stack((x * reach, y * reach), -1).to(images), padding_mode="border", align_corners=False
    )
    colour = torch.rand(count, 3, 1, 1, generator=generator) * 0.6 + 0.2
    painted = torch.rand(count, 1, 1, 1, generator=generator) * settings.wall
    darker = torch.rand(count, 1, 1, 1, generator=generator) * settings.shade
    beyond = (radius - seen).unsqueeze(1)  # (B, 1, S, S)
    weight = (beyond > 0) * painted
    shade = 1 - darker * beyond.clamp(0, 1)
    return (out * (1 - weight).to(out) + (colour * weight * shade).to(out)).clamp(0, 1)


def synthetic_top_view(tiles: Tensor, pose: Pose, occlusion: Occlusion, generator: Generator) -> Tensor:
    """Tiles, float (B, 3, S, S) -> as a top view of the same spot might look."""
    return smear(jitter_pose(tiles, pose, generator), occlusion, generator)


def _coordinates(size_px: int) -> tuple[Tensor, Tensor]:
    """Of each pixel's centre, right and down, in -1..1: (S, S) each."""
    steps = (torch.arange(size_px) + 0.5) * (2 / size_px) - 1
    return torch.meshgrid(steps, steps, indexing="xy")
