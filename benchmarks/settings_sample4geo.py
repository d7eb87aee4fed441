"""Settings of notebook 05 on cities of their own: one training, R@1 by epoch. Nothing that the notebook reports is looked at.

    python benchmarks/settings_sample4geo.py [--kind both] [--depth 3] [--px 48] [--epochs 9] [--refresh 3] [--rate 2e-3]
                                             [--draw 64 16 16] [--batch 64] [--pooling safa] [--places 3000] [--seed 0]
                                             [--panoramas 4000] [--span 20] [--difficulty easy] [--separate]

Trains on 3,000 panoramas of two cities of their own, and tests with 1,000 others of them. Options left out are the
laptop profile's. Prints one line of Markdown: the settings that were given, seconds of one core, R@1 after each epoch, hit rate.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from ucvgl.data.prepare import Preparation
from ucvgl.lab import material, profiles
from ucvgl.methods.sample4geo import SAMPLERS, supervise
from ucvgl.sampling import NeighbourDraw


def main() -> None:
    """Trains once and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=SAMPLERS, default="both")
    for name in ("panoramas", "depth", "px", "epochs", "refresh", "batch", "places", "seed"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--pooling")
    parser.add_argument("--difficulty")
    parser.add_argument("--span", type=float)
    parser.add_argument("--separate", action="store_true", default=None)
    parser.add_argument("--draw", type=int, nargs=3, metavar=("RANGE", "NEAREST", "DRAWN"))
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    settings = profiles.sample4geo("laptop", given.get("seed", 0))
    method, px = settings.method, given.get("px", settings.method.satellite.image_px[0])
    changed = {name: given[name] or None for name in ("depth", "pooling") if name in given}
    encoder = replace(method.satellite, image_px=(px, px), **changed)
    names = {"epochs": "epochs", "batch": "batch_size", "rate": "learning_rate"}
    training = replace(method.training, **{names[name]: given[name] for name in names if name in given})
    draw = NeighbourDraw(*given["draw"]) if "draw" in given else method.sampling.draw
    every = given.get("refresh", method.sampling.refresh_every)
    sampling = replace(method.sampling, kind=given["kind"], draw=draw, refresh_every=every)
    method = replace(method, ground=replace(encoder, image_px=(px, 2 * px)), satellite=encoder, training=training,
                     sampling=sampling, evaluate_every=1,
                     shared="separate" not in given)  # fmt: skip
    cities = {"panoramas": "places", "span": "span_m", "difficulty": "difficulty"}
    world = replace(settings.trained, seed=2 * settings.unseen.seed, places=settings.unseen.places)
    world = replace(world, **{cities[name]: given[name] for name in cities if name in given})
    settings = replace(settings, trained=world, unseen=world, images=Preparation((px, 2 * px), (px, px)))
    ((train, tests),) = material.open_areas(settings, "world", method)
    train = train.take(np.linspace(0, len(train) - 1, given.get("places", len(train))).astype(np.int64))
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        found = supervise(train, method, {"same": tests["same"]}, Path(folder))
    recalls = ", ".join(f"{row['same: r_at_1']:.1f}" for row in found["rows"])
    text = ", ".join(f"{name} {value}" for name, value in given.items())
    hits = found["recall"]["same"]["hit_rate"]
    print(f"| {text} | {len(train):,} | {time.process_time() - begun:.0f} | {recalls} | {hits:.1f} |", flush=True)


if __name__ == "__main__":
    main()
