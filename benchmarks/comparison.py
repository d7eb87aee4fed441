"""A row of the comparison with the official code: its two sides, whether they agree, and how large its inputs are."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from official import Clone
from torch import Tensor


@dataclass(frozen=True)
class Sizes:
    """How large the inputs are; the defaults are CVUSA's, or the papers' as far as two cores allow."""

    view_px: int = 750  # side of the top view; UCVGL
    panorama_px: int = 616  # height of CVUSA's completed panoramas
    views: int = 16  # panoramas in a batch
    gallery: int = 8_884  # ground images and tiles; CVUSA's test set
    width: int = 1_024  # of the descriptors; Sample4Geo
    places: int = 35_532  # CVUSA's training pairs
    batch: int = 128  # of the shuffled places; Sample4Geo
    draw: int = 128  # neighbours looked at, a half of them join; Sample4Geo
    ssl_batch: int = 64  # VG-SSL
    ssl_width: int = 2_048  # of the projections; VG-SSL 1024 to 4096
    ssl_queue: int = 65_536  # MoCo's keys; VG-SSL
    model: str = "convnext_atto"  # of timm; Sample4Geo has convnext_base
    train_batch: int = 8  # pairs; Sample4Geo 128
    image_px: int = 128  # Sample4Geo 384
    steps: int = 3  # timed in one go
    repeats: int = 7


SMALL = Sizes(
    view_px=60, panorama_px=64, views=2, gallery=300, width=32, places=700, batch=16, draw=32, ssl_batch=8, ssl_width=24,
    ssl_queue=64, model="test_convnext", train_batch=4, image_px=64, steps=2, repeats=2,
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """Whether the results agree, and how that was seen."""

    agrees: bool
    how: str


def verdict(difference: float, allowed: float, what: str) -> Verdict:
    """Agreement by a largest difference."""
    return Verdict(difference <= allowed, f"{what}: largest difference {difference:.2g} (allowed {allowed:.2g})")


@dataclass(frozen=True)
class Pair:
    """Both sides of a row, with their inputs ready: what each calls, and how the two results are compared."""

    size: str  # the inputs, in words
    official: Callable[[], Any]
    ours: Callable[[], Any]
    agree: Callable[[Any, Any], Verdict]
    seconds: Callable[[Any], float] | None = None  # those that a result tells by itself; None: of the whole call
    device: str = "cpu"  # where both compute


@dataclass(frozen=True)
class Row:
    """A line of the table; `prepare` makes both sides in the row's own process."""

    task: str
    repository: str  # key of official.REPOSITORIES
    function: str  # the official one
    prepare: Callable[[Clone, Sizes], Pair]
    note: str  # what is timed, and what is not the same on the two sides


def features(count: int, width: int, noise: float) -> tuple[Tensor, Tensor]:
    """Unit descriptors of ground images and tiles, row i of both one place; noise: of a ground image, times sqrt(width)."""
    generator = torch.Generator().manual_seed(0)
    tile = torch.randn(count, width, generator=generator)
    ground = tile + noise * math.sqrt(width) * torch.randn(count, width, generator=generator)
    return F.normalize(ground), F.normalize(tile)
