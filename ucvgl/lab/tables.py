"""Tables as their reader sees them: Markdown with mean ± standard deviation over seeds, and a note on how sure numbers are."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ucvgl.lab.settings import WORLD

FLOAT_FORMAT = "%.6g"  # of numbers in CSV files

# How the columns of measures are headed in Markdown; any other column keeps its name, with spaces.
HEADINGS = {f"r_at_{k}": f"R@{k} (%)" for k in (1, 5, 10, 20)} | {
    "r_at_1_percent": "R@1% (%)", "hit_rate": "hit rate (%)", "ap": "AP (%)", "correct": "correct (%)",
    "labels": "labels (%)",
}  # fmt: skip
MEASURE = re.compile(rf"(published_)?(?:(.+)_)?({'|'.join(sorted(HEADINGS, key=len, reverse=True))})")


def read(path: Path) -> pd.DataFrame:
    """A saved table; only an empty cell is 'not known', so that a row may be called None."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def heading(column: str) -> str:
    """A column's heading: 'CVUSA R@1 (%), published' for published_cvusa_r_at_1."""
    stem = column.removeprefix("published_")
    text = stem.replace("_", " ").replace("|", "\\|")
    if found := MEASURE.fullmatch(column):
        before = (found[2] or "").replace("_", " ")
        text = f"{before.upper() if found[1] else before} {HEADINGS[found[3]]}".strip()  # data sets: CVUSA, CVACT VAL
    return text if stem == column else f"{text}, published"


def _cell(value: Any, column: str) -> str:
    """One value: '-' where it is not known, percentages to one decimal, other numbers to four digits."""
    if pd.isna(value):
        return "-"
    if isinstance(value, (str, bool, np.bool_)):
        return str(value).replace("|", "\\|").replace("\n", " ")
    if MEASURE.fullmatch(column):
        return f"{value:.1f}"
    return f"{value:.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:.4g}"


def _over_seeds(seeds: Sequence[pd.DataFrame]) -> pd.DataFrame | None:
    """Several seeds' rows in one: equal cells as they are, differing numbers as mean ± standard deviation.

    None where they do not match row by row, or texts differ: then every row has to be shown.
    """
    if len({len(rows) for rows in seeds}) > 1:
        return None
    merged = seeds[0].astype(object)
    for column in merged:
        for row in merged.index:
            values = [rows.at[row, column] for rows in seeds]
            if len({_cell(value, column) for value in values}) == 1:
                continue
            if any(isinstance(value, (str, bool, np.bool_)) or pd.isna(value) for value in values):
                return None
            mean, spread = np.mean(values), np.std(values, ddof=1)
            percent = MEASURE.fullmatch(column) is not None
            merged.at[row, column] = f"{mean:.1f} ± {spread:.1f}" if percent else f"{mean:.4g} ± {spread:.2g}"
    return merged


def render(frame: pd.DataFrame, caption: str, note: str) -> str:
    """A table in Markdown, with its caption above and its note (of `note`) below.

    One seed, by the column `seed`: its rows. Several that match row by row: mean ± standard deviation where they differ.
    Otherwise all rows, with their seeds.
    """
    seeds = [rows.drop(columns="seed").reset_index(drop=True) for _, rows in frame.groupby("seed", sort=False)]
    merged = _over_seeds(seeds)
    if merged is not None and len(seeds) > 1:
        note += "; where seeds differ: mean ± standard deviation"
    shown = frame if merged is None else merged
    columns = [[heading(column), "---", *(_cell(value, column) for value in shown[column])] for column in shown]
    body = "\n".join(f"| {' | '.join(row)} |" for row in zip(*columns, strict=True))
    return f"{caption}\n\n{body}\n\n*{note}.*\n"


def note(data: str, profile: str, seeds: Sequence[int], queries: int | None = None) -> str:
    """The line under every table and in every recipe: what the numbers were measured on, and how sure recalls are.

    A recall p of n independent `queries` has a standard error of sqrt(p (1 - p) / n), which is greatest at 50 %; None
    stands for a table without recalls.
    """
    world = "the embedded world, a synthetic city: not comparable with numbers on CVUSA or any other real data set"
    where = world if data == WORLD else f"the data set {data}"
    text = f"Measured on {where}; profile {profile}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    if queries is None:
        return text
    spread = "; one seed, so the spread over seeds is not known" if len(seeds) == 1 else ""
    error = f"a standard error of up to {50 / math.sqrt(queries):.1f} points of its own"
    return f"{text}{spread}; a recall of {queries:,} queries has {error}"
