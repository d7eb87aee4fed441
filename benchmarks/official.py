"""What a comparison with the official code is made of: the user's clones, and the two sides of a row of the table.

Nothing of the official code is here. Its modules are called `utils`, `model`, `dataset` in both repositories, so a
process imports from one clone alone (see `side_by_side.py`).
"""

import importlib
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ucvgl.errors import InputError


class Repository(NamedTuple):
    """An official repository."""

    argument: str  # of the command line
    url: str
    marker: str  # a file by which a clone is known


REPOSITORIES = {
    "UCVGL": Repository("--ucvgl", "https://github.com/liguopeng0923/UCVGL", "CFP/GeometricProjection/utils.py"),
    "Sample4Geo": Repository("--sample4geo", "https://github.com/Skyy93/Sample4Geo", "sample4geo/trainer.py"),
}


class CannotRun(Exception):
    """An official function cannot run here; the message says why."""


def check_clone(name: str, folder: Path) -> None:
    """Raises InputError unless the folder is a clone of the repository of this name."""
    repository = REPOSITORIES[name]
    if not (folder / repository.marker).is_file():
        found = "a folder without it" if folder.is_dir() else "no folder"
        raise InputError(f"{repository.argument} {folder}", expected=f"a clone with {repository.marker}", found=found,
                         todo=f"Run `git clone {repository.url}` and give the folder it makes.")  # fmt: skip


def commit_of(folder: Path) -> str:
    """The clone's commit, '-dirty' behind it if files were changed; in words where git cannot tell."""
    if not (folder / ".git").exists():  # git would name the repository around it
        return "no git checkout"
    git = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    return subprocess.run(git, capture_output=True, text=True, timeout=60).stdout.strip() or "unknown commit"


@dataclass(frozen=True)
class Clone:
    """A clone, in a process of its own."""

    root: Path

    def get(self, module: str, name: str, folder: str = ".") -> Callable[..., Any]:
        """A function or class of one of its modules; `folder`: inside the clone, whose scripts import from there."""
        sys.path.insert(0, str((self.root / folder).resolve()))
        return getattr(importlib.import_module(module), name)


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
    model: str = "convnext_atto"  # of timm; Sample4Geo has convnext_base
    train_batch: int = 8  # pairs; Sample4Geo 128
    image_px: int = 128  # Sample4Geo 384
    steps: int = 3  # timed in one go
    repeats: int = 7


SMALL = Sizes(
    view_px=60, panorama_px=64, views=2, gallery=300, width=32, places=700, batch=16, draw=32, model="test_convnext",
    train_batch=4, image_px=64, steps=2, repeats=2,
)  # fmt: skip


class Differs(Exception):
    """The results of the two sides differ; the message says by how much."""


def close(difference: float, allowed: float, what: str) -> str:
    """How the results were compared; Differs where they are not that close."""
    how = f"{what}: largest difference {difference:.2g} (allowed {allowed:.2g})"
    if not difference <= allowed:
        raise Differs(how)
    return how


@dataclass(frozen=True)
class Pair:
    """Both sides of a row, with their inputs ready: what each calls, and how the two results are compared."""

    size: str  # the inputs, in words
    official: Callable[[], Any]
    ours: Callable[[], Any]
    agree: Callable[[Any, Any], str]  # how they were compared; raises Differs
    seconds: Callable[[Any], float] | None = None  # those that a result tells by itself; None: of the whole call
    device: str = "cpu"  # where both compute


class Row(NamedTuple):
    """A line of the table; `prepare` makes both sides in the row's own process."""

    task: str
    repository: str  # key of REPOSITORIES
    function: str  # the official one
    prepare: Callable[[Clone, Sizes], Pair]
    note: str  # what is timed, and what is not the same on the two sides


def features(count: int, width: int, noise: float) -> tuple[Tensor, Tensor]:
    """Unit descriptors of ground images and tiles, row i of both one place; noise: of a ground image, times sqrt(width)."""
    generator = torch.Generator().manual_seed(0)
    tile = torch.randn(count, width, generator=generator)
    ground = tile + noise * math.sqrt(width) * torch.randn(count, width, generator=generator)
    return F.normalize(ground), F.normalize(tile)
