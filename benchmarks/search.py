"""VIGOR's whole evaluation: its time and its memory, at 52,605 queries and 90,618 tiles of 1,024 numbers.

    python benchmarks/search.py [--small] [--out FILE]

Features are synthetic and seeded, each query near its tile and less near to three semi-positives. Each step runs once, in a
process of its own. That the streamed results are those of a whole matrix and of faiss is tested (tests/test_search.py,
tests/test_metrics.py), and measured beside the official code (side_by_side.py).
"""

import argparse
from pathlib import Path

import torch
from harness import RESULTS, in_a_process, peak_mb, seconds, write
from torch import Tensor
from torch.nn.functional import normalize

from ucvgl.metrics import retrieval_measures
from ucvgl.pseudo_labels import mutual
from ucvgl.search import both_ways, top_k

VIGOR, SMALL = (52_605, 90_618, 1_024), (300, 500, 32)  # queries, tiles, numbers of a descriptor
SEMI = 3  # semi-positives of a query, as in VIGOR
WEIGHT = torch.tensor([0.21, *[0.15] * SEMI])  # of a query's tile and its semi-positives, beside noise of length 1
STEPS = ("all measures", "10 nearest tiles", "mutual matches and margins, both ways")


def features(queries: int, tiles: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Unit descriptors of queries and tiles, and the tiles of each query, the right one first: (Q, 1 + SEMI)."""
    generator = torch.Generator().manual_seed(0)
    pairs = torch.stack([torch.randperm(tiles, generator=generator)[:queries] for _ in range(1 + SEMI)], 1)
    tile = normalize(torch.randn(tiles, width, generator=generator))
    query = normalize(torch.randn(queries, width, generator=generator))
    for rows in torch.arange(queries).split(4096):
        query[rows] = normalize(query[rows] + torch.einsum("k,bkd->bd", WEIGHT, tile[pairs[rows]]))
    return query, tile, pairs


def result(step: str, query: Tensor, tile: Tensor, pairs: Tensor) -> str:
    """What a step finds, in words."""
    if step == "all measures":
        row = torch.arange(len(query))
        semi = torch.stack([row.repeat_interleave(SEMI), pairs[:, 1:].flatten()], 1)
        found = retrieval_measures(query, tile, torch.stack([row, pairs[:, 0]], 1), semi_positives=semi)
        return ", ".join(
            f"{name} {value:.3f}" for name, value in found.items() if name.startswith(("r_at", "hit", "ap"))
        )
    if step == "10 nearest tiles":
        return f"{len(top_k(query, tile, 10)[1]):,} lists"
    both = both_ways(query, tile, 2, 2)
    margins = [s[:, 0] - s[:, 1] for s in (both.ground_score, both.satellite_score)]
    return f"{int(mutual(both).sum()):,} mutual, {sum(map(len, margins)):,} margins"


def line(step: str, size: tuple[int, int, int]) -> dict[str, object]:
    """A line of the table, in a fresh process."""
    given, said, took = features(*size), [], []
    memory = peak_mb(lambda: took.append(seconds(lambda: said.append(result(step, *given)))))
    return {"step": step, "seconds": took[0], "MB above the features": memory, "result": said[0]}


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--out", type=Path, default=RESULTS / "search.md")
    asked = parser.parse_args()
    queries, tiles, width = size = SMALL if asked.small else VIGOR
    about = f"{queries:,} x {tiles:,} synthetic features of {width:,} numbers; each step once, in a process of its own. Their "
    about += f"similarities alone would be {queries * tiles * 4 / 1e9:.1f} GB."
    write(asked.out, "Search at VIGOR's size", about, [in_a_process(line, step, size) for step in STEPS])


if __name__ == "__main__":
    main()
