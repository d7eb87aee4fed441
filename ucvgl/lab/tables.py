"""Tables as their reader sees them: Markdown with mean ± standard deviation over seeds, and a note on how sure numbers are."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ucvgl.errors import InputError
from ucvgl.lab.settings import WORLD
from ucvgl.paths import write_json, write_text

# How the columns of measures are headed in Markdown; any other column keeps its name, with spaces.
HEADINGS = {f"r_at_{k}": f"R@{k} (%)" for k in (1, 5, 10, 20)} | {
    "r_at_1_percent": "R@1% (%)", "hit_rate": "hit rate (%)", "ap": "AP (%)", "correct": "correct (%)",
    "labels": "labels (%)",
}  # fmt: skip
MEASURE = re.compile(rf"(published_)?(?:(.+)_)?({'|'.join(sorted(HEADINGS, key=len, reverse=True))})")
Queries = int | Mapping[str, int] | None  # behind the recalls of a table, or of each column; None: it has no recalls


def read(path: Path) -> pd.DataFrame:
    """A saved table; only an empty cell is 'not known', so that a row may be called None."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def recipe(path: Path) -> dict[str, Any]:
    """What stands in JSON beside a table or figure, or in results.json; InputError where no finished run left it."""
    file = path.with_suffix(".json")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        expected, todo = "a finished run's file", "Run the notebook again."
        raise InputError(file, expected=expected, found=error, todo=todo) from error


def write(path: Path, frame: pd.DataFrame, recipe: dict[str, Any]) -> str:
    """Writes a table's CSV `path`, and beside it its Markdown and its recipe, both with the note; gives the Markdown."""
    write_text(path, frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    recipe["note"] = note(recipe["data"], recipe["profile"], recipe["seeds"], recipe["queries"])
    text = render(read(path), recipe["caption"], recipe["note"])
    write_text(path.with_suffix(".md"), text)
    write_json(path.with_suffix(".json"), recipe)
    return text


def heading(column: str) -> str:
    """A column's heading: 'CVUSA R@1 (%), published' for published_cvusa_r_at_1."""
    theirs, text = column.startswith("published_"), column.removeprefix("published_").replace("_", " ")
    if found := MEASURE.fullmatch(column):
        before = (found[2] or "").replace("_", " ")
        text = f"{before.upper() if theirs else before} {HEADINGS[found[3]]}".strip()  # data sets: CVUSA, CVACT VAL
    return text.replace("|", "\\|") + ", published" * theirs


def render(frame: pd.DataFrame, caption: str, note: str) -> str:
    """A table in Markdown, with its caption above and its note (of `note`) below.

    One seed, by the column `seed`, if there is one: its rows. Several that match row by row: mean ± standard deviation where
    they differ. Otherwise all rows, with their seeds.
    """
    seeds = [rows for _, rows in frame.groupby("seed", sort=False)] if "seed" in frame else [frame]
    shown = {name: [_cell(values, name) for values in zip(*(rows[name] for rows in seeds), strict=False)]
             for name in frame if name != "seed"}  # fmt: skip
    if len({len(rows) for rows in seeds}) > 1 or any(None in cells for cells in shown.values()):
        shown = {name: [_text(value, name) for value in frame[name]] for name in frame}
    elif len(seeds) > 1:
        note += "; where seeds differ: mean ± standard deviation"
    columns = ([heading(name), "---", *cells] for name, cells in shown.items())
    body = "\n".join(f"| {' | '.join(row)} |" for row in zip(*columns, strict=True))
    return f"{caption}\n\n{body}\n\n*{note}.*\n"


def _cell(values: Sequence[Any], column: str) -> str | None:
    """A value a seed: equal ones as they are, differing numbers as mean ± standard deviation; None for differing texts."""
    texts = {_text(value, column) for value in values}
    if len(texts) == 1:
        return texts.pop()
    if any(isinstance(value, (str, bool, np.bool_)) or pd.isna(value) for value in values):
        return None
    mean, spread = np.mean(values), np.std(values, ddof=1)
    return f"{mean:.1f} ± {spread:.1f}" if MEASURE.fullmatch(column) else f"{mean:.4g} ± {spread:.2g}"


def _text(value: Any, column: str) -> str:
    """'-' for what is not known, percentages to one decimal, other numbers to four digits."""
    if pd.isna(value):
        return "-"
    if isinstance(value, (str, bool, np.bool_)):
        return str(value).replace("|", "\\|").replace("\n", " ")
    if MEASURE.fullmatch(column):
        return f"{value:.1f}"
    return f"{value:.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:.4g}"


def note(data: str, profile: str, seeds: Sequence[int], queries: Queries = None) -> str:
    """The line under every table and in every recipe: what the numbers were measured on, and how sure recalls are.

    A recall p of n independent queries has a standard error of sqrt(p (1 - p) / n), which is greatest at 50 %.
    """
    world = "the embedded world, a synthetic city: not comparable with numbers on CVUSA or any other real data set"
    where = world if data == WORLD else f"the data set {data}"
    text = f"Measured on {where}; profile {profile}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    if queries is None:
        return text
    counts = list(queries.values()) if isinstance(queries, Mapping) else [queries]
    ends = sorted({min(counts), max(counts)})
    count, error = (
        " to ".join(some) for some in ([f"{n:,}" for n in ends], [f"{50 / math.sqrt(n):.1f}" for n in ends])
    )
    spread = "; one seed, so the spread over seeds is not known" if len(seeds) == 1 else ""
    return f"{text}{spread}; a recall of {count} queries has a standard error of up to {error} points of its own"
