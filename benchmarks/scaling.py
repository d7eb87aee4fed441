"""Time and memory of search, mining and sampling against the number of places, and what follows for ten millions on paper.

    python benchmarks/scaling.py [--minutes 8] [--out FILE]

Search and mining look at every pair of images, so their work grows with N^2 D: embeddings of 64 numbers here, to reach large
N within minutes. Sampling is neighbours on a map and an epoch's batches. Every point is measured in a process of its own. A
step stops growing when the next point, judged by the last, would leave its quarter of the minutes.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from harness import RESULTS, in_a_process, now, peak_mb, seconds, table, write
from torch.nn.functional import normalize

from ucvgl.positions import Positions, Wgs84
from ucvgl.pseudo_labels import MiningRule, select
from ucvgl.sampling import NeighbourDraw, geographic_neighbours, neighbour_batches
from ucvgl.search import both_ways, top_k

COUNTS = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
PAPER = 10_000_000
WIDTH = 64  # of the embeddings
BATCH = 128  # pairs in a batch, as in the papers
DRAW = NeighbourDraw()
STEPS = {"search, 10 nearest": 2, "mining, both ways": 2, f"{DRAW.range} neighbours on the map": 1,
         "an epoch's batches": 1}  # fmt: skip # name -> power of N by which the time of the next point is judged


def scattered(places: int) -> Positions:
    """Positions in towns of different size, as street imagery is."""
    rng = np.random.default_rng(0)
    towns = rng.uniform((35, -100), (45, -80), (200, 2))
    spread = rng.uniform(0.02, 0.2, 200)
    town = rng.integers(0, 200, places)
    return Positions(towns[town] + spread[town, None] * rng.standard_normal((places, 2)), Wgs84())


def job(step: str, places: int) -> Callable[[], object]:
    """The step, its input made."""
    generator = torch.Generator().manual_seed(0)
    if "neighbours" in step:
        positions = scattered(places)
        return lambda: geographic_neighbours(positions, DRAW.range)
    if "batches" in step:
        # neighbours within a window of the index, which is all that the drawing of batches sees of a map
        near = torch.randint(1, 1 + 2 * DRAW.range, (places, 1), generator=generator, dtype=torch.int32)
        near = near + torch.arange(places, dtype=torch.int32)[:, None]
        near = (near + torch.arange(DRAW.range, dtype=torch.int32)) % places
        return lambda: neighbour_batches(near, BATCH, generator, DRAW)
    satellite = normalize(torch.randn(places, WIDTH, generator=generator))
    ground = normalize(satellite + 0.1 * torch.randn(places, WIDTH, generator=generator))
    if "search" in step:
        return lambda: top_k(ground, satellite, 10)
    return lambda: select(both_ways(ground, satellite, 2, 1), MiningRule())


def point(step: str, places: int) -> dict[str, object]:
    """Seconds, and the MB that the step adds to a process that has done a small one; its input is among them."""
    job(step, COUNTS[0])()
    took: list[float] = []

    def run() -> None:
        call = job(step, places)
        while not took or (len(took) < 3 and took[0] < 1):
            took.append(seconds(call))

    memory = peak_mb(run)
    return {"step": step, "places": places, "seconds": float(np.median(took)), "MB": memory}


def grown(step: str, power: int, budget_s: float) -> list[dict[str, object]]:
    """Points of one step, N growing, until the next would leave the budget; at least three."""
    rows, begun = [in_a_process(point, step, COUNTS[0])], now()
    for places in COUNTS[1:]:
        coming_s = rows[-1]["seconds"] * (places / rows[-1]["places"]) ** power
        if len(rows) >= 3 and now() - begun + coming_s > budget_s:
            break
        rows.append(in_a_process(point, step, places))
    return rows


def fitted(rows: list[dict[str, object]]) -> dict[str, object]:
    """A step's exponents, and what the lines give for ten millions: least squares on logarithms, the upper half of the points."""
    line: dict[str, object] = {"step": rows[0]["step"], "largest": f"{rows[-1]['places']:,}"}
    some = rows[min(len(rows) // 2, len(rows) - 2) :]
    for name in ("seconds", "MB"):
        values = np.log10([max(float(row[name]), 1e-6) for row in some])
        slope, offset = np.polyfit(np.log10([row["places"] for row in some]), values, 1)
        line |= {
            f"exponent of the {name}": f"{slope:.2f}",
            f"{name} at 10^7": float(10 ** (slope * np.log10(PAPER) + offset)),
        }
    return line


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8, help="for all steps together")
    parser.add_argument("--out", type=Path, default=RESULTS / "scaling.md")
    asked = parser.parse_args()
    steps = [grown(step, power, 60 * asked.minutes / len(STEPS)) for step, power in STEPS.items()]
    about = (
        f"Embeddings of {WIDTH} numbers for search and mining (mutual matches and margins): with 1,024 the product is 16 times "
        "the work. Each point in a process of its own; below a second the median of 3 runs. Memory is the peak above the "
        "interpreter's, with embeddings, positions or neighbour lists. The values at 10^7 are lines, not measurements; where "
        "memory is mostly blocks of fixed size, it rises later."
    )
    fits = table([fitted(rows) for rows in steps])
    write(asked.out, "Growth", about, [row for rows in steps for row in rows], fits)


if __name__ == "__main__":
    main()
