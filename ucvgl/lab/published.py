"""The published tables of the three papers, each value with what it rests on; nothing else may fill a 'published' column.

The values stand in published.json. None means not known. A mark says where a value comes from: A the authors' own
material, B quoted by a third party, C inferred; B and C are to be shown with their mark. Columns are named
`<data set>_<measure>` (`cvusa_r_at_1`), in percent but for the counts of the cold start; rows by a short key (`full`,
`no_fakes`, `labels_10`) that notebooks use for their own rows too.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from ucvgl.errors import InputError

FILE = Path(__file__).with_name("published.json")

# How many training pairs the cold start looked for labels in: the published counts of CVUSA and of CVACT.
TRAINING_PAIRS = MappingProxyType({"cvusa": 35_532, "cvact": 35_532})


@dataclass(frozen=True)
class Row:
    """One row of a published table.

    Attributes:
        key: its short name, the same in notebooks.
        label: its name as a reader sees it.
        values: by column; None where not known.
        marks: A, B or C, by column, for every column.
        flags: what is odd about a value, by column; mostly empty.
    """

    key: str
    label: str
    values: Mapping[str, float | None]
    marks: Mapping[str, str]
    flags: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """One published table.

    Attributes:
        name: as `ucvgl_cold`.
        paper: short name, venue and year.
        title: what it compares.
        note: what its reader has to know; may be empty.
        columns: 'percent' or 'count', by column.
        rows: by key, in the published order.
    """

    name: str
    paper: str
    title: str
    note: str
    columns: Mapping[str, str]
    rows: Mapping[str, Row]


@cache
def _tables() -> Mapping[str, Table]:
    content = json.loads(FILE.read_text(encoding="utf-8"))
    found = {}
    for name, table in content["tables"].items():
        columns = table["columns"]
        rows = {
            key: Row(
                key,
                row["label"],
                MappingProxyType(dict(zip(columns, row["values"], strict=True))),
                MappingProxyType(dict.fromkeys(columns, table["mark"]) | row.get("marks", {})),
                MappingProxyType(row.get("flags", {})),
            )
            for key, row in table["rows"].items()
        }
        found[name] = Table(
            name,
            content["papers"][table["paper"]],
            table["title"],
            table["note"],
            MappingProxyType(columns),
            MappingProxyType(rows),
        )
    return MappingProxyType(found)


def names() -> tuple[str, ...]:
    """The names of all published tables."""
    return tuple(_tables())


def _choose(kind: str, name: str, known: Mapping[str, object]) -> None:
    if name not in known:
        raise InputError(
            f"published {kind}",
            expected=f"one of {', '.join(known)}",
            found=repr(name),
            todo="Choose one of these; None stands for a row that was not published.",
        )


def table(name: str) -> Table:
    """One published table by name; InputError lists the names there are."""
    _choose("table", name, _tables())
    return _tables()[name]


def column(name: str, column: str, *, rows: Sequence[str | None] | None = None) -> list[float | None]:
    """The values of one column, one a row: what `Run.save_table(published=...)` takes.

    Args:
        name: of the table.
        column: as `cvusa_r_at_1`.
        rows: row keys in the wanted order, None for a row of ours that has no published counterpart; default: all.

    Returns:
        In percent or counts, as published; None where not known.

    Raises:
        InputError: an unknown table, column or row.
    """
    found = table(name)
    _choose(f"column of {name}", column, found.columns)
    keys = list(found.rows) if rows is None else list(rows)
    for key in keys:
        if key is not None:
            _choose(f"row of {name}", key, found.rows)
    return [None if key is None else found.rows[key].values[column] for key in keys]


def value(name: str, row: str, column_name: str) -> float | None:
    """One published value, None where it is not known; InputError for an unknown table, column or row."""
    return column(name, column_name, rows=[row])[0]


def frame(name: str, *, key: str = "row") -> pd.DataFrame:
    """A published table with float columns (NaN: not known) behind its row keys and labels.

    Args:
        name: of the table.
        key: how to call the column of row keys, so that it matches a table of ours.
    """
    found = table(name)
    keys = {key: list(found.rows), "label": [row.label for row in found.rows.values()]}
    return pd.DataFrame(keys | {c: pd.Series(column(name, c), dtype="float64") for c in found.columns})


def label_rates(data_set: str, *, rows: Sequence[str | None] | None = None) -> dict[str, list[float | None]]:
    """The cold start's label counts as the percentages that our tables have (UCVGL, cold-start ablation).

    Args:
        data_set: cvusa or cvact.
        rows: as in `column`.

    Returns:
        `labels`: pseudo-labels found, in percent of the training pairs; `correct`: right ones, in percent of those
        found. None where a row was not published or nothing was found.

    Raises:
        InputError: an unknown data set or row.
    """
    _choose("cold start on", data_set, TRAINING_PAIRS)
    found = column("ucvgl_cold", f"{data_set}_labels", rows=rows)
    right = column("ucvgl_cold", f"{data_set}_correct", rows=rows)
    return {
        "labels": [None if n is None else 100 * n / TRAINING_PAIRS[data_set] for n in found],
        "correct": [None if r is None or not n else 100 * r / n for r, n in zip(right, found, strict=True)],
    }


def remarks(name: str, *, columns: Sequence[str] | None = None, rows: Sequence[str | None] | None = None) -> str:
    """What has to stand under a table that shows these values: B and C marks, oddities, the table's note.

    Args:
        name: of the table.
        columns: those shown; default: all.
        rows: keys of those shown (None entries are skipped); default: all.

    Returns:
        Sentences; '' where there is nothing to say.

    Raises:
        InputError: an unknown table, column or row.
    """
    found = table(name)
    shown = list(found.columns) if columns is None else list(columns)
    keys = list(found.rows) if rows is None else [key for key in rows if key is not None]
    sentences = []
    for mark, meaning in (("B", "quoted by a third party"), ("C", "inferred")):
        for label, marked in _with_mark(found, mark, keys, shown).items():
            which = "" if len(marked) == len(shown) else f" {', '.join(marked)}"
            sentences.append(f"Published {label}{which} ({mark}: {meaning}).")
    for key in keys:
        row = found.rows[key]
        sentences += [f"Published {row.label} {c}: {row.flags[c]}." for c in shown if c in row.flags]
    return " ".join([*sentences, *([found.note] if found.note else [])])


def _with_mark(found: Table, mark: str, keys: Sequence[str], columns: Sequence[str]) -> dict[str, list[str]]:
    """The known values with this mark: columns by the label of their row; rows and columns are checked."""
    marked = {}
    for key in keys:
        values = {c: column(found.name, c, rows=[key])[0] for c in columns}
        row = found.rows[key]
        having = [c for c in columns if values[c] is not None and row.marks[c] == mark]
        if having:
            marked[row.label] = having
    return marked
