"""How many panoramas `ucvgl locate` places right in synthetic cities of a style that neither encoders nor calibrations know, and
how well it says which: benchmarks/results/locate_by_city.csv, a city searched in all its tiles or in those of a part a row.

    python scripts/locate_by_city.py          7 minutes on two cores where the run cache has the cities

`half`: the more probable half of the pictures; `above`: those with a probability above 0.5, `above_third` their precision
if exactly a third of all pictures lay outside of the tiles (the two kinds weighted). In percent.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from make_weights import Case, outside, search_city

from ucvgl.locate.located import place, placed_right
from ucvgl.metrics import claimed_and_true_precision, threshold_for
from ucvgl.paths import write_text

TARGET = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "locate_by_city.csv"
PARTS = {"a part": 2 / 3, "all": 1.0}  # of the tiles, from the west
FRESH = (2100, 2200, 2300)  # seeds of cities that were looked at only after everything was settled
CASES = [Case(seed=seed) for seed in (200, 300, 400, 500, 600, 700, 1800, 1900, 2000, *FRESH)]
CASES += [Case(searched=True, seed=seed) for seed in FRESH]


def lines() -> Iterator[dict[str, object]]:
    """Of the table."""
    for case, (part, western) in product(CASES, PARTS.items()):
        headings = "searched for" if case.searched else "known"
        found, inputs = search_city(replace(case, western=western))
        table, gone = place(found, inputs), outside(found, inputs)
        p, right = table["probability"].to_numpy(), placed_right(table, inputs.truth)[:, 0]
        half = claimed_and_true_precision(p, right, threshold_for(p, 0.5))
        above = p >= 0.5
        weight = np.where(gone, 1 / 3 / max(gone.mean(), 1e-9), 2 / 3 / (1 - gone.mean()))
        yield {
            "seed": case.seed, "headings": headings, "tiles": part, "pictures": len(p), "outside": 100 * gone.mean(),
            "within_10_m": 100 * right.mean(), "half_predicted": 100 * half["claimed"], "half_right": 100 * half["true"],
            "above": int(above.sum()), "above_predicted": 100 * p[above].mean(), "above_right": 100 * right[above].mean(),
            "above_third": 100 * np.average(right[above], weights=weight[above]),
        }  # fmt: skip


def main() -> None:
    """Searches the cities, and writes the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    write_text(TARGET, pd.DataFrame(lines()).round(2).to_csv(index=False, lineterminator="\n"))


if __name__ == "__main__":
    main()
