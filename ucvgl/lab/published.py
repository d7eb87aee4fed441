"""The published tables of the three papers, from published.json; nothing else may fill a 'published' column.

Columns are named `<data set>_<measure>` (`cvusa_r_at_1`), in percent but for the counts of the cold start; rows by a short key
(`full`, `no_fakes`, `labels_10`) that notebooks use for their own rows too. Not known is None, in frames NaN. A mark says where
a value comes from: A the authors' own material, B quoted by a third party, C inferred; `remarks` tells B and C.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

TRAINING_PAIRS = 35_532  # of CVUSA, and of CVACT: where the cold start looked for labels


@cache
def content() -> dict[str, Any]:
    """What published.json holds: `tables` by name, with columns and rows, `papers` and `marks`; not to be changed."""
    return json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))


def frame(name: str, *, key: str = "row") -> pd.DataFrame:
    """A published table: its row keys in a column called `key`, a `label` for the reader, then float columns."""
    table = content()["tables"][name]
    values = pd.DataFrame([row["values"] for row in table["rows"].values()], columns=table["columns"], dtype="float64")
    values.insert(0, key, list(table["rows"]))
    values.insert(1, "label", [row["label"] for row in table["rows"].values()])
    return values


def column(name: str, column: str, *, rows: Sequence[str | None] | None = None) -> list[float | None]:
    """One column, a value a row: what `Run.save_table(published=...)` takes; None stands for a row that was not published."""
    values = frame(name).set_index("row")[column]
    keys = list(values.index) if rows is None else rows
    return [None if key is None or pd.isna(values[key]) else float(values[key]) for key in keys]


def value(name: str, row: str, column_name: str) -> float | None:
    """One published value."""
    return column(name, column_name, rows=[row])[0]


def label_rates(data_set: str, *, rows: Sequence[str | None] | None = None) -> dict[str, list[float | None]]:
    """The cold start's label counts on cvusa or cvact as percentages, as our tables have them.

    `labels`: pseudo-labels found, of the training pairs; `correct`: right ones, of those found. None where a row was not
    published or nothing was found.
    """
    found, right = (column("ucvgl_cold", f"{data_set}_{count}", rows=rows) for count in ("labels", "correct"))
    return {
        "labels": [None if n is None else 100 * n / TRAINING_PAIRS for n in found],
        "correct": [None if r is None or not n else 100 * r / n for r, n in zip(right, found, strict=True)],
    }


def remarks(name: str, *, columns: Sequence[str] | None = None, rows: Sequence[str | None] | None = None) -> str:
    """Sentences to stand under a table that shows these columns and rows: B and C marks, oddities, the table's note."""
    table, sentences = content()["tables"][name], []
    shown = table["columns"] if columns is None else columns
    for row in (table["rows"][key] for key in (table["rows"] if rows is None else rows) if key is not None):
        known = [c for c, v in zip(table["columns"], row["values"], strict=True) if c in shown and v is not None]
        for mark, meaning in content()["marks"].items():
            marked = [c for c in known if row.get("marks", {}).get(c, table["mark"]) == mark]
            if marked and mark != "A":
                which = "" if marked == known else f", {', '.join(marked)}"
                sentences.append(f"Published '{row['label']}'{which}: {meaning} ({mark}).")
        sentences += [
            f"Published '{row['label']}', {c}: {flag}." for c, flag in row.get("flags", {}).items() if c in shown
        ]
    return " ".join([*sentences, *([table["note"]] if table["note"] else [])])
