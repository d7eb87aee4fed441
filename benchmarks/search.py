"""VIGOR's whole evaluation from features on disk, its time and its memory; and the same beside the dense matrix.

Features are synthetic and seeded: 52,605 queries and 90,618 tiles of 1,024 numbers, each query near its tile and less near
to three semi-positives. Every step runs in a process of its own, which starts, maps the files and searches; its peak memory
is the kernel's (VmHWM), all of the interpreter and the features' pages included. At a size where the dense matrix fits, the
streamed results are compared with those of the matrix and full sorts, those of faiss too.

    python benchmarks/search.py [--queries 52605] [--tiles 90618] [--width 1024] [--dense 8884]

Writes benchmarks/results/search.csv and search.md.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ucvgl.metrics import places_of, recall_at, retrieval_measures
from ucvgl.paths import write_text
from ucvgl.pseudo_labels import mutual
from ucvgl.search import both_ways, top_k

RESULTS = Path(__file__).resolve().parent / "results"
BATCH = 4096  # rows made and written together
SEMI = 3  # semi-positives of a query, as in VIGOR
NEAR, NEARLY = 0.21, 0.15  # weight of a query's tile and of each semi-positive beside noise of length 1
K = 10  # neighbours in a list
LIMIT_MB = 2000  # above the features, for the whole evaluation


def make(folder: Path, queries: int, tiles: int, width: int, seed: int) -> None:
    """Features of both views, and which tiles are right."""
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.stack([torch.randperm(tiles, generator=generator)[:queries] for _ in range(1 + SEMI)], 1)
    np.save(folder / "pairs.npy", pairs.numpy())
    weight = torch.tensor([NEAR, *[NEARLY] * SEMI])
    tile, query = (
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=(count, width))
        for name, count in (("tiles", tiles), ("queries", queries))
    )

    def noise(rows: int) -> Tensor:
        return normalize(torch.randn(rows, width, generator=generator))

    for first in range(0, tiles, BATCH):
        tile[first : first + BATCH] = noise(min(BATCH, tiles - first)).numpy()
    for first, some in zip(range(0, queries, BATCH), pairs.split(BATCH), strict=True):
        near = torch.einsum("k,bkd->bd", weight, torch.from_numpy(tile[some.numpy()]))
        query[first : first + BATCH] = normalize(noise(len(some)) + near).numpy()


def read(folder: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, tiles, and the pairs that are right and semi-positive."""
    # mapped copy on write, which is never done: a read-only map would be warned of
    query, tile = (torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c")) for name in ("queries", "tiles"))
    pairs = torch.from_numpy(np.load(folder / "pairs.npy", allow_pickle=False))
    row = torch.arange(len(query))
    semi = torch.stack([row.repeat_interleave(SEMI), pairs[:, 1:].flatten()], 1)
    return query, tile, torch.stack([row, pairs[:, 0]], 1), semi


def dense(query: Tensor, tile: Tensor, right: Tensor, semi: Tensor) -> dict[str, Tensor | float]:
    """Measures, lists and mutual matches from the whole matrix and a full sort of each row: the natural procedure."""
    matrix = query @ tile.T
    own = matrix.gather(1, right[:, 1:])
    rank = (matrix > own).sum(1) + ((matrix == own).sum(1) - 1) / 2
    order = matrix.argsort(dim=1, descending=True, stable=True)
    nearest, back = order[:, :K].clone(), matrix.argmax(0)
    both = back[nearest[:, 0]] == torch.arange(len(query))
    matrix[semi[:, 0], semi[:, 1]] = -torch.inf
    matrix[right[:, 0], right[:, 1]] = own[:, 0]
    hit = (matrix > own).sum(1) + ((matrix == own).sum(1) - 1) / 2 < 1
    measures = recall_at(rank, (1, 5, 10, max(1, len(tile) // 100)))
    return {"rank": rank, "lists": nearest, "mutual": both, "hit_rate": 100 * float(hit.float().mean()), **measures}


def work(step: str, folder: Path) -> Callable[[], dict[str, object]]:
    """What one process does; the features are mapped before the clock starts, but not read."""
    query, tile, right, semi = read(folder)

    def ways() -> dict[str, object]:
        both = both_ways(query, tile, 2, 2)
        margin = [s[:, 0] - s[:, 1] for s in (both.ground_score, both.satellite_score)]
        return {"mutual": mutual(both), "margins": margin[0], "margins_back": margin[1]}

    match step:
        case "measures":
            return lambda: dict(retrieval_measures(query, tile, right, semi_positives=semi))
        case "ranks":
            return lambda: {"rank": places_of(query, tile, right).first}
        case "lists":
            return lambda: {"lists": top_k(query, tile, K)[1]}
        case "faiss":
            return lambda: {"lists": top_k(query, tile, K, engine="faiss")[1]}
        case "both ways":
            return ways
        case "dense":
            return lambda: dense(query, tile, right, semi)
    raise SystemExit(f"no step {step}")


def status_mb(field: str) -> float:
    """A memory field of this process, in MB (Linux)."""
    return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024


def child(asked: argparse.Namespace) -> None:
    """One step: prints time, memory and single numbers; longer results go into a file."""
    torch.manual_seed(0)
    torch.randn(64, 64) @ torch.randn(64, 64)  # threads and library loaded
    job = work(asked.step, asked.folder)
    before = status_mb("VmRSS")
    begun = time.perf_counter()
    try:
        found = job()
    except ImportError as error:  # faiss is optional
        print(json.dumps({"refused": str(error)}))
        return
    took = time.perf_counter() - begun
    features = sum((asked.folder / f"{name}.npy").stat().st_size for name in ("queries", "tiles")) / 2**20
    peak = status_mb("VmHWM")
    np.savez(asked.out, **{name: value.numpy() for name, value in found.items() if isinstance(value, Tensor)})
    numbers = {name: value for name, value in found.items() if not isinstance(value, Tensor)}
    print(
        json.dumps(
            {
                "seconds": took, "peak_mb": peak, "features_mb": features, "above_features_mb": peak - features,
                "above_start_mb": peak - before, **numbers,
            }
        )
    )  # fmt: skip


def in_a_process(step: str, folder: Path) -> dict[str, object]:
    """`child` in a fresh process: its numbers, and its tensors as arrays."""
    out = folder / "out.npz"
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder), "--out", str(out)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    if "refused" not in found:
        with np.load(out, allow_pickle=False) as arrays:
            found |= dict(arrays)
        print(f"{step}: {found['seconds']:.1f} s", flush=True)
    return found


def row(size: str, step: str, found: dict[str, object], note: str) -> dict:
    """A line of the table."""
    return {
        "size": size, "step": step, "seconds": round(found["seconds"], 1),
        "peak_mb": round(found["peak_mb"]), "above_features_mb": round(found["above_features_mb"]),
        "above_start_mb": round(found["above_start_mb"]), "result": note,
    }  # fmt: skip


def measured(found: dict[str, object]) -> str:
    """Measures in words."""
    return ", ".join(f"{name} {value:.3f}" for name, value in found.items() if name.startswith(("r_at", "hit", "ap")))


def whole_evaluation(folder: Path, size: str) -> list[dict]:
    """VIGOR's size: the measures, lists, and mutual matches with margins."""
    found = in_a_process("measures", folder)
    rows = [row(size, "all measures", found, measured(found))]
    found = in_a_process("lists", folder)
    rows.append(row(size, f"{K} nearest tiles", found, f"{len(found['lists']):,} lists"))
    found = in_a_process("both ways", folder)
    text = f"{int(found['mutual'].sum()):,} mutual, {found['margins'].size + found['margins_back'].size:,} margins"
    rows.append(row(size, "mutual matches and margins, both ways", found, text))
    return rows


def beside_the_matrix(folder: Path, size: str) -> list[dict]:
    """Where the matrix fits: the same results? And of faiss."""
    matrix = in_a_process("dense", folder)
    rows = [row(size, "matrix and full sorts", matrix, measured(matrix))]
    found = in_a_process("measures", folder)
    same = all(abs(found[name] - matrix[name]) < 1e-9 for name in ("r_at_1", "r_at_5", "r_at_10", "hit_rate"))
    rows.append(row(size, "all measures", found, f"recalls and hit rate {'equal' if same else 'DIFFER'}"))
    moved = int((in_a_process("ranks", folder)["rank"] != matrix["rank"]).sum())
    rows[-1]["result"] += f"; {moved} of {len(matrix['rank']):,} ranks differ"
    found = in_a_process("lists", folder)
    lists = int((found["lists"] != matrix["lists"]).any(1).sum())
    rows.append(row(size, f"{K} nearest tiles", found, f"{lists} lists differ"))
    found = in_a_process("both ways", folder)
    rows.append(
        row(size, "mutual matches and margins", found, f"{int((found['mutual'] != matrix['mutual']).sum())} differ")
    )
    found = in_a_process("faiss", folder)
    if "refused" in found:
        print(found["refused"], flush=True)
    else:
        lists = int((found["lists"] != matrix["lists"]).any(1).sum())
        rows.append(row(size, f"{K} nearest tiles, faiss flat", found, f"{lists} lists differ"))
    return rows


def table(frame: pd.DataFrame) -> str:
    """As Markdown."""
    rows = [list(frame.columns), ["---"] * frame.shape[1], *frame.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows) + "\n"


def processor() -> str:
    """The processor's name, as Linux tells it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def main() -> None:
    """Measures, prints and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=52_605, help="VIGOR's test queries, same area")
    parser.add_argument("--tiles", type=int, default=90_618, help="VIGOR's tiles")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--dense", type=int, default=8884, help="CVUSA's and CVACT's test pairs")
    parser.add_argument("--scratch", type=Path, help="where the features lie meanwhile (1 GB); a temporary folder")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--step", help="used by the benchmark itself")
    for name in ("--folder", "--out"):
        parser.add_argument(name, type=Path, help="used by the benchmark itself")
    asked = parser.parse_args()
    if asked.step:
        child(asked)
        return
    load, begun = os.getloadavg()[0], time.perf_counter()
    rows = []
    for size, (queries, tiles), measure in (
        (f"{asked.dense:,} x {asked.dense:,}", (asked.dense, asked.dense), beside_the_matrix),
        (f"{asked.queries:,} x {asked.tiles:,}", (asked.queries, asked.tiles), whole_evaluation),
    ):
        with tempfile.TemporaryDirectory(dir=asked.scratch) as folder:
            make(Path(folder), queries, tiles, asked.width, seed=0)
            print(f"{size}: features made, {time.perf_counter() - begun:.0f} s so far", flush=True)
            rows += measure(Path(folder), size)
    frame = pd.DataFrame(rows)
    print(frame.to_string(), flush=True)
    whole = next(r for r in rows if r["size"] == size and r["step"] == "all measures")
    at_dense = [r for r in rows if r["size"] != size]
    matrix, ours = at_dense[0], at_dense[1:3]
    together = sum(r["seconds"] for r in ours)
    asked.results.mkdir(parents=True, exist_ok=True)
    write_text(asked.results / "search.csv", frame.to_csv(index=False, lineterminator="\n"))
    text = (
        f"# Search\n\n{processor()}, {os.cpu_count()} cores ({platform.machine()}), torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, load before {load:.1f}. Synthetic features of width {asked.width:,}, read "
        f"through memory maps; each step once, in a process of its own. peak_mb is all of the process, with the interpreter "
        f"and the features' pages; above_features_mb is that less the features, above_start_mb that less what the process "
        f"held when the search began.\n\n"
        f"**VIGOR's whole evaluation ({size}; R@1, R@5, R@10, R@1 %, hit rate, AP) takes {whole['seconds']} s and "
        f"{whole['above_features_mb']} MB above the features"
        f"{'' if whole['above_features_mb'] <= LIMIT_MB else f', MORE than the {LIMIT_MB} aimed at'};** its similarities "
        f"alone would be {asked.queries * asked.tiles * 4 / 1e9:.1f} GB. At {at_dense[0]['size']} the matrix with full sorts "
        f"takes {matrix['seconds']} s and {matrix['above_start_mb']} MB above the start; streamed measures and lists "
        f"together {together:.1f} s and at most {max(r['above_start_mb'] for r in ours)} MB (of which "
        f"{asked.dense * asked.width * 8 / 2**20:.0f} MB are the features' pages, in all of these).\n\n{table(frame)}\n"
        f"*differ*: from the matrix. Similarities whose float32 sums differ in the last place may change places.\n"
    )
    write_text(asked.results / "search.md", text)


if __name__ == "__main__":
    main()
