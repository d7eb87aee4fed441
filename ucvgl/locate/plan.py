"""What a run of `ucvgl locate` would read, train and write, and about how long it would take."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from ucvgl import paths
from ucvgl.encoders import TwoViewEncoder, embed, open_model
from ucvgl.lab.results import device
from ucvgl.locate.located import WRITTEN
from ucvgl.locate.looked import Looked
from ucvgl.locate.views import read_picture, view_of
from ucvgl.methods.common import EMBED_BATCH
from ucvgl.methods.common import device as torch_device

TRAINING_COST = 8.0  # a training step against embedding its images once; for the estimate alone


def plan(looked: Looked) -> dict[str, Any]:
    """What a run would read, train and write, and about how long it would take, by timing a little of each here."""
    pictures = {kind: len(looked.ground.of_kind(kind)) for kind in looked.kinds}
    searched = {kind: int(np.isnan(looked.ground.headings(kind)).sum()) for kind in looked.kinds}
    count, blind, tiles = sum(pictures.values()), sum(searched.values()), len(looked.candidates)
    project, cut_one, embed_one = _rates(looked)
    config = looked.config
    batches = {kind: max(1, n // config.adapt.batch_size) for kind, n in pictures.items()}
    seconds = {
        "project": project * (count + blind * (1 + config.turns)),
        "cut": cut_one * tiles,
        "find headings": embed_one * blind * config.turns,
        # in four quarter turns as they came; trained, before each mining and in four quarter turns
        "embed": embed_one * (count + tiles) * 4
        + embed_one * (count + tiles * len(pictures)) * (config.adapt.epochs + 4) * (config.adapt.epochs > 0),
        "train": TRAINING_COST * embed_one * 2 * count * config.adapt.epochs,
    }
    names = [*WRITTEN, "map.html", "map.png", "report.md", *["reliability.png"] * bool(looked.truth)]
    pixels = int(np.prod(config.street.size_px))
    return {
        "device": device(),
        "pictures": pictures,
        "without_heading": searched,
        "unusable": len(looked.ground.unusable) + len(looked.mosaic.unreadable),
        "tiles": len(looked.mosaic.files),
        "candidates": tiles,
        "steps_of_training": {kind: n * config.adapt.epochs for kind, n in batches.items()},
        "megabytes_in_runs": round((count * pixels + tiles * looked.candidates.size_px**2) * 3 / 2**20, 1),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "seconds_in_all": round(sum(seconds.values()), 1),
        "writes": [str(looked.request.out / name) for name in names],
    }


def plan_text(found: Mapping[str, Any]) -> str:
    """The plan for people."""
    pictures = ", ".join(f"{n:,} {kind}s" for kind, n in found["pictures"].items())
    blind = sum(found["without_heading"].values())
    steps = sum(found["steps_of_training"].values())
    rows = [
        f"Would place {pictures} among {found['candidates']:,} candidates, on {found['device']}.",
        f"Would search the heading of {blind:,} of them." if blind else "All headings are known or stated.",
        f"Would train for {steps:,} steps.",
        f"Would keep about {found['megabytes_in_runs']:,} MB in {paths.runs()}.",
        f"Would take about {_minutes(found['seconds_in_all'])}.",
        "Would write " + ", ".join(found["writes"]) + ".",
    ]
    return "\n".join(rows)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def _rates(looked: Looked) -> tuple[float, float, float]:
    """Seconds to project a picture, to cut a candidate, to embed one; of a few here."""
    kind = looked.kinds[0]
    some = looked.ground.of_kind(kind)[:4]
    north, street = torch.zeros(1, dtype=torch.float64), looked.config.street
    project = _timed(lambda: [view_of(read_picture(looked.ground, p), p, north, street) for p in some])
    few = range(min(64, len(looked.candidates)))
    cutting = _timed(lambda: [looked.candidates.read(i) for i in few])
    model: TwoViewEncoder = open_model(looked.config.adapt.start).to(torch_device())
    tiles = torch.stack([looked.candidates.read(i) for i in few])
    embedding = _timed(lambda: embed(model.satellite, tiles.split(EMBED_BATCH)))
    return project / len(some), cutting / len(few), embedding / len(few)


def _timed(work: Callable[[], object]) -> float:
    """Seconds of the second run: the first one warms up."""
    work()
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
