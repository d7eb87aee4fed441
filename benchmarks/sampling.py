"""How fast an epoch's batches with hard negatives are made, beside plain loops over lists, and at a million places.

The plain loop is the published procedure (Sample4Geo, section 3) written the natural way from its description: a pool that
is shuffled, drawn from at the front and put back at the end, sets of what is used, neighbours in lists, the rest of a list
shuffled for each drawn pair. The tightened one leaves out what an epoch of unshared places does not need: it walks over the
shuffled pool and samples only as many as join. The published code also copies all neighbour lists at the start of an
epoch; that is timed apart. Repetitions are interleaved; the million runs in processes of its own, for their peak memory.

    python benchmarks/sampling.py [--places 35532] [--large 1000000] [--repeats 7]

Writes benchmarks/results/sampling.md.
"""

import argparse
import copy
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ucvgl.paths import write_text
from ucvgl.positions import Positions, Wgs84
from ucvgl.sampling import NeighbourDraw, geographic_neighbours, neighbour_batches, similarity_neighbours

RESULTS = Path(__file__).resolve().parent / "results"
BATCH = 128
DRAW = NeighbourDraw()
OURS, PLAIN, COPIED, TIGHT = "ucvgl", "plain loop", "plain loop and copy of the lists", "tightened loop"


def plain_batches(lists: list[list[int]], copied: bool) -> list[list[int]]:
    """One epoch with lists and sets, one pair and one neighbour at a time."""
    if copied:
        lists = copy.deepcopy(lists)
    pool = list(range(len(lists)))
    random.shuffle(pool)
    batches: list[list[int]] = []
    batch: list[int] = []
    in_batch: set[int] = set()
    used: set[int] = set()
    refused = 0  # in a row: once all that is left was refused, nothing fits any more
    while pool and refused <= len(pool):
        pair = pool.pop(0)
        if pair in used:
            continue
        if pair in in_batch:
            pool.append(pair)
            refused += 1
            continue
        refused = 0
        batch.append(pair)
        in_batch.add(pair)
        used.add(pair)
        near = lists[pair][: DRAW.range]
        rest = near[DRAW.nearest :]
        random.shuffle(rest)
        for place in near[: DRAW.nearest] + rest[: DRAW.drawn]:
            if len(batch) >= BATCH:
                break
            if place not in in_batch and place not in used:
                batch.append(place)
                in_batch.add(place)
                used.add(place)
        if len(batch) >= BATCH:
            batches.append(batch)
            batch, in_batch = [], set()
    return batches


def tight_batches(lists: list[list[int]]) -> list[list[int]]:
    """The same without a pool to pop from: where each pair has a place of its own, none is ever put back."""
    order = list(range(len(lists)))
    random.shuffle(order)
    batches: list[list[int]] = []
    batch: list[int] = []
    used: set[int] = set()
    for pair in order:
        if pair in used:
            continue
        batch.append(pair)
        used.add(pair)
        near = lists[pair]
        for place in near[: DRAW.nearest] + random.sample(near[DRAW.nearest : DRAW.range], DRAW.drawn):
            if len(batch) >= BATCH:
                break
            if place not in used:
                batch.append(place)
                used.add(place)
        if len(batch) >= BATCH:
            batches.append(batch)
            batch = []
    return batches


def scattered(places: int, seed: int) -> Positions:
    """Positions in towns of different size, as street imagery is."""
    rng = np.random.default_rng(seed)
    towns = rng.uniform((35, -100), (45, -80), (200, 2))
    spread = rng.uniform(0.02, 0.2, 200)
    town = rng.integers(0, 200, places)
    return Positions(towns[town] + spread[town, None] * rng.standard_normal((places, 2)), Wgs84())


def embedded(places: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of both views of the places, each near its pair's."""
    generator = torch.Generator().manual_seed(seed)
    reference = torch.randn(places, 32, generator=generator)
    query = reference + 0.5 * torch.randn(places, 32, generator=generator)
    return torch.nn.functional.normalize(query), torch.nn.functional.normalize(reference)


def seconds(function: Callable[[], object]) -> float:
    """How long one call takes."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def compared(kind: str, near: torch.Tensor, repeats: int) -> list[dict[str, object]]:
    """Interleaved repetitions of all ways on the same lists, medians."""
    lists = near.tolist()
    generator = torch.Generator().manual_seed(0)
    random.seed(0)
    ways: dict[str, Callable[[], Sequence[object]]] = {
        OURS: lambda: neighbour_batches(near, BATCH, generator, DRAW),
        PLAIN: lambda: plain_batches(lists, copied=False),
        TIGHT: lambda: tight_batches(lists),
        COPIED: lambda: plain_batches(lists, copied=True),
    }
    full = len(lists) // BATCH
    for name, way in ways.items():  # each makes all the batches; this is the warm-up too
        made = way()
        if len(made) != (full * BATCH if name == OURS else full):
            raise SystemExit(f"{name} made {len(made)} of {full} batches of {BATCH}")
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            times[name].append(seconds(way))
    return [
        {
            "neighbours": kind, "way": name, "ms_an_epoch": round(1000 * statistics.median(took), 1),
            "lowest": round(1000 * min(took), 1), "highest": round(1000 * max(took), 1),
            "times_ucvgl": round(statistics.median(a / b for a, b in zip(took, times[OURS], strict=True)), 1),
        }
        for name, took in times.items()
    ]  # fmt: skip


def peak_mb() -> float:
    """Peak resident memory of this process so far, in MB (Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def large_step(step: str, places: int, file: Path) -> dict[str, float]:
    """One step at a million places, in this process; the lists pass through a file."""
    if step == "neighbours":
        positions = scattered(places, 0)
        before = peak_mb()
        begun = time.perf_counter()
        near = geographic_neighbours(positions, DRAW.range)
        took = time.perf_counter() - begun
        beside = peak_mb() - before
        np.save(file, near.numpy(), allow_pickle=False)
        return {"seconds": took, "peak_mb": beside + before, "added_mb": beside, "lists_mb": near.nbytes / 2**20}
    near = torch.from_numpy(np.load(file, allow_pickle=False))
    before = peak_mb()
    generator = torch.Generator().manual_seed(0)
    took = [seconds(lambda: neighbour_batches(near, BATCH, generator, DRAW)) for _ in range(3)]
    return {"seconds": statistics.median(took), "peak_mb": peak_mb(), "added_mb": peak_mb() - before}


def in_a_process(step: str, places: int, file: Path) -> dict[str, float]:
    """`large_step` in a fresh process."""
    command = [sys.executable, __file__, "--step", step, "--large", str(places), "--file", str(file)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def processor() -> str:
    """The processor's name, as Linux tells it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def table(frame: pd.DataFrame) -> str:
    """As Markdown."""
    rows = [list(frame.columns), ["---"] * frame.shape[1], *frame.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows) + "\n"


def main() -> None:
    """Measures, prints and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--places", type=int, default=35_532, help="as many as CVUSA's training pairs")
    parser.add_argument("--large", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--step", choices=("neighbours", "batches"), help="used by the benchmark itself")
    parser.add_argument("--file", type=Path, help="used by the benchmark itself")
    asked = parser.parse_args()
    if asked.step:
        print(json.dumps(large_step(asked.step, asked.large, asked.file)))
        return
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "neighbours.npy"
        search = in_a_process("neighbours", asked.large, file)
        epoch = in_a_process("batches", asked.large, file)
    print(search, epoch, flush=True)
    rows = compared("geographic", geographic_neighbours(scattered(asked.places, 0), DRAW.range), asked.repeats)
    query, reference = embedded(asked.places, 0)
    rows += compared("most similar", similarity_neighbours(query, reference, DRAW.range), asked.repeats)
    frame = pd.DataFrame(rows)
    print(frame.to_string(), flush=True)
    large = pd.DataFrame(
        [
            {"step": f"geographic neighbours, {DRAW.range} of each, by a tree", "seconds": round(search["seconds"], 1),
             "peak_mb": round(search["peak_mb"]), "above_start_mb": round(search["added_mb"])},
            {"step": "one epoch's batches", "seconds": round(epoch["seconds"], 2),
             "peak_mb": round(epoch["peak_mb"]), "above_start_mb": round(epoch["added_mb"])},
        ]
    )  # fmt: skip
    ratio = {(r["neighbours"], r["way"]): r["times_ucvgl"] for r in rows}
    text = (
        f"# Batches with hard negatives\n\n{processor()}, {os.cpu_count()} cores ({platform.machine()}), torch "
        f"{torch.__version__}, numpy {np.__version__}, {torch.get_num_threads()} threads, Python "
        f"{platform.python_version()}, load before {load:.1f}. Batches of {BATCH}; of {DRAW.range} neighbours the nearest "
        f"{DRAW.nearest} and {DRAW.drawn} of the rest join.\n\n"
        f"**Without the copy of the lists, the plain loop takes {ratio['geographic', PLAIN]} (geographic) and "
        f"{ratio['most similar', PLAIN]} (most similar) times as long as ucvgl, and its tightened form "
        f"{ratio['geographic', TIGHT]} and {ratio['most similar', TIGHT]} times.** With the copy that the published code "
        f"makes in every epoch: {ratio['geographic', COPIED]} and {ratio['most similar', COPIED]} times.\n\n"
        f"## {asked.places:,} places, an epoch\n\nMedians of {asked.repeats} interleaved repetitions; times_ucvgl is the "
        f"median of the ratios within a repetition. The plain loop pops from the front of a list, shuffles the rest of each "
        f"drawn pair's list and puts back what does not fit; the tightened one walks over the pool and samples.\n\n"
        f"{table(frame)}\n"
        f"## {asked.large:,} places\n\nEach in a process of its own: peak resident memory, and how far it rose above what the "
        f"process took before (imports, and positions or neighbour lists; the lists are {search['lists_mb']:.0f} MB, for the "
        f"tree's step a part of the rise). Batches: median of 3 epochs.\n\n{table(large)}"
    )
    RESULTS.mkdir(exist_ok=True)
    write_text(RESULTS / "sampling.md", text)


if __name__ == "__main__":
    main()
