"""What batches of hard negatives gain on random ones in cities never seen, by the number of panoramas trained on.

    OMP_NUM_THREADS=1 python scripts/sampling_by_places.py [--places N ...] [--seeds K ...] [--samplers KIND ...]

Notebook 05's study (laptop profile) on the western parts of its two cities, and on larger ones: the same settings and
epochs, and always the same test. Every training is a stage of the run cache, so calls may run side by side and
share what they find. Writes benchmarks/results/sampling_by_places.csv: a training a row, its R@1, and for each sampler the
paired gain on random batches of the same seed with its error (notebook 05 has the equation), in points.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from ucvgl.data.container import Dataset
from ucvgl.lab import material, profiles, stages
from ucvgl.lab.settings import WORLD
from ucvgl.methods import common
from ucvgl.methods.sample4geo import SAMPLERS, Sample4Geo
from ucvgl.metrics import places_of
from ucvgl.paths import write_text
from ucvgl.world.rendering import CITY_GAP_M

TARGET = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "sampling_by_places.csv"
SETTINGS = profiles.sample4geo("laptop", 0)


def training_part(count: int) -> Dataset:
    """The westernmost panoramas of each city, `count` in all or the few less that it has; tiles that show none of them go."""
    world = SETTINGS.trained
    learnt = world.places * 3 // 4  # a quarter is held out
    scale = max(1.0, count / learnt)
    larger = replace(world, places=round(world.places * scale), city_size_m=round(world.city_size_m * scale**0.5, 1))
    (area,) = material.open_areas(replace(SETTINGS, trained=larger), WORLD, SETTINGS.method)
    data, cities = area.train, len(world.styles)
    east_m = data.query.positions.values[:, 0]
    eastwards = np.argsort(east_m, kind="stable")
    some = [eastwards[east_m[eastwards] // CITY_GAP_M == k][: count // cities] for k in range(cities)]
    data = data.take(np.sort(np.concatenate(some)))
    shown = np.union1d(data.positives.indices, data.semi_positives.indices)
    return data.take(range(len(data)), shown)


def hits(train: Dataset, test: Dataset, method: Sample4Geo) -> Tensor:
    """(Q,) 1 where a query finds its tile, else 0."""
    trained = common.trained(stages.supervise(train, method, {"cross": test}).folder)
    return (places_of(*common.describe(trained, test), test.positives.pairs()).first < 1).float()


def lines(places: list[int], seeds: list[int], samplers: list[str]) -> Iterator[dict[str, object]]:
    """Of the table."""
    test = material.open_areas(SETTINGS, WORLD, SETTINGS.method)[0].tests["cross"]
    for count in places:
        train = training_part(count)
        for seed in seeds:
            method = replace(SETTINGS.method, training=replace(SETTINGS.method.training, seed=seed))
            plain = None
            for kind in dict.fromkeys(["random", *samplers]):
                found = hits(train, test, replace(method, sampling=replace(method.sampling, kind=kind)))
                plain = found if plain is None else plain
                gain = 100 * (found - plain)
                row = {"panoramas": len(train), "seed": seed, "sampler": kind, "r_at_1": 100 * float(found.mean())}
                yield row | {"gain": float(gain.mean()), "error": float(gain.std() / len(gain) ** 0.5)}


def main() -> None:
    """Trains what the run cache lacks, and writes the rows asked for over those of earlier calls."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--places", type=int, nargs="+", default=[1000, 2000, 4000, 16000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=["similarity"])
    asked = parser.parse_args()
    found = pd.DataFrame(lines(asked.places, asked.seeds, asked.samplers)).round(3)
    keys = ["panoramas", "seed", "sampler"]
    if TARGET.is_file():
        found = pd.concat([pd.read_csv(TARGET), found]).drop_duplicates(keys, keep="last").sort_values(keys)
    write_text(TARGET, found.to_csv(index=False, lineterminator="\n"))


if __name__ == "__main__":
    main()
