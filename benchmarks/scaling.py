"""Time and memory of search, mining and sampling against the number of places, and what follows for ten millions.

Search and mining look at every pair of images, so their work grows with N^2 D: embeddings of 64 numbers here, to reach large
N within minutes; the exponent is the same at 1,024, the time up to 16 times as long. Sampling is neighbours on a map and an
epoch's batches, without embeddings. Every point is measured in a process of its own, for its peak memory (VmHWM). A step
stops growing when the next point, judged by the last, would leave its share of the minutes. The exponent is the slope of a
straight line through the upper half of the points, on logarithms; the dashed lines to 10^7 are that line: on paper.

    python benchmarks/scaling.py [--minutes 8] [--largest 1000000]

Writes benchmarks/results/scaling.csv, scaling.png and scaling.md.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch.nn.functional import normalize

from ucvgl.lab.plots import PALETTE, WIDTH_IN, use_style
from ucvgl.paths import write_text
from ucvgl.positions import Positions, Wgs84
from ucvgl.pseudo_labels import MiningRule, select
from ucvgl.sampling import NeighbourDraw, geographic_neighbours, neighbour_batches
from ucvgl.search import both_ways, top_k

RESULTS = Path(__file__).resolve().parent / "results"
COUNTS = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
PAPER = 10_000_000
WIDTH = 64  # of the embeddings
K = 10
BATCH = 128  # pairs in a batch, as in the papers
DRAW = NeighbourDraw()
REPEATS = 3  # of a run below a second; the median counts
STEPS = {  # name in the table -> share of the minutes
    "search": 0.3,
    "mining": 0.3,
    "neighbours": 0.2,
    "batches": 0.2,
}
LABELS = {
    "search": f"search, {K} nearest",
    "mining": "mining, both ways",
    "neighbours": f"{DRAW.range} neighbours on the map",
    "batches": "an epoch's batches",
}


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
    if step in ("search", "mining"):
        satellite = normalize(torch.randn(places, WIDTH, generator=generator))
        ground = normalize(satellite + 0.1 * torch.randn(places, WIDTH, generator=generator))
        if step == "search":
            return lambda: top_k(ground, satellite, K)
        return lambda: select(both_ways(ground, satellite, 2, 1), MiningRule())
    if step == "neighbours":
        positions = scattered(places)
        return lambda: geographic_neighbours(positions, DRAW.range)
    # neighbours within a window of the index, which is all that the drawing of batches sees of a map
    window = torch.randint(1, 1 + 2 * DRAW.range, (places, 1), generator=generator, dtype=torch.int32)
    near = (
        torch.arange(places, dtype=torch.int32)[:, None] + window + torch.arange(DRAW.range, dtype=torch.int32)
    ) % places
    del window
    return lambda: neighbour_batches(near, BATCH, generator, DRAW)


def status_mb(field: str) -> float:
    """A memory field of this process, in MB (Linux)."""
    return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024


def child(step: str, places: int) -> dict[str, float]:
    """One point: seconds, the process's peak, and what the step added to what was held before, its input included."""
    job(step, COUNTS[0])()  # libraries loaded, threads started
    bare = status_mb("VmRSS")
    run = job(step, places)
    took: list[float] = []
    while not took or (len(took) < REPEATS and took[0] < 1):
        begun = time.perf_counter()
        run()
        took.append(time.perf_counter() - begun)
    peak = status_mb("VmHWM")
    return {"seconds": float(np.median(took)), "peak_mb": peak, "above_start_mb": max(0.0, peak - bare)}


def grown(step: str, budget_s: float, largest: int) -> list[dict[str, object]]:
    """Points of one step, N growing, until the next would leave the budget."""
    rows: list[dict[str, object]] = []
    begun = time.perf_counter()
    last_s = 0.0  # of the last point, with the start of its process
    for places in (n for n in COUNTS if n <= largest):
        if rows:
            ratio = places / rows[-1]["places"]
            power = 2 if step in ("search", "mining") else 1
            seconds = rows[-1]["seconds"]
            whole = last_s + seconds * (ratio**power - 1)
            if len(rows) >= 3 and time.perf_counter() - begun + whole > budget_s:
                break
        started = time.perf_counter()
        command = [sys.executable, __file__, "--step", step, "--places", str(places)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        last_s = time.perf_counter() - started
        rows.append({"step": step, "places": places, **json.loads(done.stdout.splitlines()[-1])})
        print(f"{step}, {places:,} places: {rows[-1]['seconds']:.3g} s, {rows[-1]['peak_mb']:.0f} MB", flush=True)
    return rows


def line(places: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Slope and offset of log10(values) over log10(places), least squares over the upper half of the points."""
    some = slice(len(places) // 2, None) if len(places) > 3 else slice(-2, None)
    slope, offset = np.polyfit(np.log10(places[some]), np.log10(values[some]), 1)
    return float(slope), float(offset)


def fits(frame: pd.DataFrame) -> pd.DataFrame:
    """Exponents of each step, and what the lines give for ten millions."""
    rows = []
    for step, points in frame.groupby("step", sort=False):
        places = points["places"].to_numpy()
        fitted = {m: line(places, points[m].clip(lower=1e-6).to_numpy()) for m in ("seconds", "above_start_mb")}
        at = {m: 10 ** (slope * np.log10(PAPER) + offset) for m, (slope, offset) in fitted.items()}
        rows.append(
            {
                "step": LABELS[step], "largest": f"{places[-1]:,}", "time_exponent": round(fitted["seconds"][0], 2),
                "memory_exponent": round(fitted["above_start_mb"][0], 2), "time_at_1e7": in_words(at["seconds"]),
                "gb_at_1e7": float(f"{at['above_start_mb'] / 1024:.2g}"),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def in_words(seconds: float) -> str:
    """A time in the unit that suits it, two digits."""
    units = (("days", 86_400), ("h", 3600), ("min", 60))
    unit, size = next(((unit, size) for unit, size in units if seconds >= size), ("s", 1))
    return f"{float(f'{seconds / size:.2g}'):,g} {unit}"


def apart(values: list[float], least: float) -> list[float]:
    """The values moved apart until neighbours differ by `least`, in their order: heights for labels."""
    order, out = np.argsort(values), list(values)
    for lower, upper in pairwise(order):
        out[upper] = max(out[upper], out[lower] + least)
    return out


def curves(axes: Axes, frame: pd.DataFrame, measure: str, label: str) -> None:
    """One panel: points, their lines, and the lines to ten millions, each named at its end."""
    ends, names, colours = [], [], []
    for colour, (step, points) in zip(PALETTE, frame.groupby("step", sort=False), strict=False):
        places, values = (
            points["places"].to_numpy(),
            points[measure].clip(lower=1e-4 if measure == "seconds" else 0.1).to_numpy(),
        )
        slope, offset = line(places, values)
        axes.plot(places, values, marker="o", markersize=4, color=colour)
        paper = np.array([places[-1], PAPER])
        axes.plot(paper, 10 ** (slope * np.log10(paper) + offset), color=colour, linestyle="--", linewidth=1)
        ends.append(slope * np.log10(PAPER) + offset)
        names.append(f"{LABELS[step]}: $N^{{{slope:.2f}}}$")
        colours.append(colour)
    axes.set(xscale="log", yscale="log", xlabel="places N", ylabel=label, xlim=(800, PAPER * 1.2))
    low, high = np.log10(axes.get_ylim())
    for height, name, colour in zip(apart(ends, 0.075 * (high - low)), names, colours, strict=True):
        axes.annotate(
            name, (PAPER * 1.35, 10**height), color=colour, va="center", fontsize=10.5, annotation_clip=False
        )  # fmt: skip
    for power, unit in ((0, "1 s"), (np.log10(60), "1 min"), (np.log10(3600), "1 h"), (np.log10(86_400), "1 day")):
        if measure == "seconds" and low < power < high:
            axes.axhline(10**power, color="#cccccc", linewidth=0.7, zorder=0)
            axes.text(900, 10**power * 1.15, unit, color="#888888", fontsize=9)


def drawn(frame: pd.DataFrame, path: Path) -> None:
    """The two panels."""
    mpl.use("Agg")
    use_style()
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH_IN * 1.25, 4.6))
    curves(left, frame, "seconds", "seconds")
    curves(right, frame, "above_start_mb", "MB above the interpreter")
    left.set_title("Time; dashed: on paper")
    right.set_title("Peak memory, with what is searched")
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    partial.replace(path)
    plt.close(figure)


def table(frame: pd.DataFrame) -> str:
    """As Markdown."""
    rows = [list(frame.columns), ["---"] * frame.shape[1], *frame.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows) + "\n"


def processor() -> str:
    """The processor's name, as Linux tells it."""
    for text in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if text.startswith("model name"):
            return text.split(":", 1)[1].strip()
    return platform.machine()


BEYOND = f"""## Past one machine

The dashed lines assume that everything still fits and nothing else becomes slow; they are no measurement.

- **Search and mining** are the product, N^2 D. Split the queries over devices, let the gallery pass by each in parts, and join
  the lists: P devices take 1/P of the time. Mining also needs the nearest ground images of each tile: each device has a list
  for every tile, and these are merged once, P N k numbers in all. At 10^7 and 1,024 numbers the features of one view are
  41 GB in float32, 20 GB stored as float16.
- From a few million on, exact search may be more than is needed: faiss's inverted lists look at a part of the gallery. For
  mining, geography helps more: a panorama with a rough position can only match tiles within reach, which makes the work N
  times the tiles in reach.
- **Neighbours on the map**: the lists themselves are N x {DRAW.range} int32, 5 GB at 10^7. Split the map into cells with a
  margin, one process a cell, and keep the lists on disk. **Batches** walk over the lists in one process: read them from a
  memory map, or draw each region's batches apart and shuffle their order.
"""


def main() -> None:
    """Measures, prints, draws and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8, help="for all steps together")
    parser.add_argument("--largest", type=int, default=COUNTS[-1], help="most places")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--step", choices=STEPS, help="used by the benchmark itself")
    parser.add_argument("--places", type=int, help="used by the benchmark itself")
    asked = parser.parse_args()
    if asked.step:
        print(json.dumps(child(asked.step, asked.places)))
        return
    load = os.getloadavg()[0]
    rows: list[dict[str, object]] = []
    for step, share in STEPS.items():
        rows += grown(step, 60 * asked.minutes * share, asked.largest)
    frame = pd.DataFrame(rows)
    asked.results.mkdir(parents=True, exist_ok=True)
    write_text(
        asked.results / "scaling.csv", frame.to_csv(index=False, float_format="%.4g", lineterminator="\n")
    )  # fmt: skip
    drawn(frame, asked.results / "scaling.png")
    fitted = fits(frame)
    print(fitted.to_string(), flush=True)
    text = (
        f"# Growth\n\n{processor()}, {os.cpu_count()} cores ({platform.machine()}), torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, load before {load:.1f}. Embeddings of {WIDTH} numbers for search (the {K} "
        f"nearest) and mining (mutual matches and margins): with 1,024 the product is 16 times the work. Each point in a "
        f"process of its own; below a second the median of {REPEATS} runs. Memory is the peak above the interpreter's, with "
        f"embeddings, positions or neighbour lists. Exponents: least squares on logarithms over the upper half of the points; "
        f"the values at 10^7 are these lines, not measurements; where memory is mostly blocks of fixed size, it rises later.\n\n"
        f"![Time and memory against the number of places](scaling.png)\n\n{table(fitted)}\n{BEYOND}"
    )
    write_text(asked.results / "scaling.md", text)


if __name__ == "__main__":
    main()
