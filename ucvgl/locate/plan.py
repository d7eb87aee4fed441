"""What a run of `ucvgl locate` would read, train and write, and about how long it would take."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ucvgl.encoders import embed, open_model
from ucvgl.lab.results import device
from ucvgl.locate.inputs import Inputs
from ucvgl.locate.located import WRITTEN
from ucvgl.methods.common import EMBED_BATCH
from ucvgl.methods.common import device as torch_device

TRAINING_COST = 8.0  # a training step against embedding its images once; for the estimate alone


def plan(inputs: Inputs) -> dict[str, Any]:
    """What a run would read, train and write, and about how long its encoders would take, by timing a few tiles here."""
    pictures = {kind: len(inputs.ground.of_kind(kind)) for kind in inputs.kinds}
    searched = {kind: int(np.isnan(inputs.ground.headings(kind)).sum()) for kind in inputs.kinds}
    count, tiles, config = sum(pictures.values()), len(inputs.candidates), inputs.config
    # before each mining, and in four quarter turns; then headings, then steps of pairs
    images = (count + tiles * len(pictures)) * (config.adapt.epochs + 4) + sum(searched.values()) * config.turns
    images += TRAINING_COST * 2 * count * config.adapt.epochs
    return {
        "device": device(),
        "pictures": pictures,
        "without_heading": searched,
        "unusable": len(inputs.ground.unusable) + len(inputs.mosaic.unreadable),
        "tiles": len(inputs.mosaic.files),
        "candidates": tiles,
        "epochs": config.adapt.epochs,
        "seconds": round(images * _seconds_a_tile(inputs), 1),
        "writes": [str(inputs.request.out / name) for name in (*WRITTEN, "map.html", "map.png", "report.md")],
    }


def plan_text(found: Mapping[str, Any]) -> str:
    """The plan for people."""
    pictures = ", ".join(f"{n:,} {kind}s" for kind, n in found["pictures"].items())
    without, seconds = sum(found["without_heading"].values()), found["seconds"]
    rows = [
        f"Would place {pictures} among {found['candidates']:,} candidates, on {found['device']}.",
        f"Would search the heading of {without:,} of them." if without else "All headings are known or stated.",
        f"Would train for {found['epochs']} epochs.",
        f"Its encoders would take about {f'{seconds:.0f} s' if seconds < 90 else f'{seconds / 60:.0f} minutes'}.",
        "Would write " + ", ".join(found["writes"]) + ".",
    ]
    return "\n".join(rows)


def _seconds_a_tile(inputs: Inputs) -> float:
    """Of embedding; the second time, since the first warms up."""
    encoder = open_model(inputs.config.adapt.start).to(torch_device(), memory_format=torch.channels_last).satellite
    tiles = torch.stack([inputs.candidates.read(i) for i in range(min(64, len(inputs.candidates)))])
    for _ in range(2):
        begun = time.perf_counter()
        embed(encoder, tiles.split(EMBED_BATCH))
        seconds = time.perf_counter() - begun
    return seconds / len(tiles)
