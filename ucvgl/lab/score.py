"""The reproduction score: which orderings of a published table's rows ours keeps, and which it contradicts. Of no paper; ours.

On the embedded world no number can equal a published one, but the conclusions can: which of two settings is better. Two rows
are compared only where the paper tells them apart by more than RESOLVED points and we by more than twice the pooled standard
error; everything else is undecided. The same two rows against several published columns (CVUSA, CVACT) are one comparison.

A notebook saves `scorecard(...)` as its table `scorecard`, and the tables it scored under the same names, with their published
columns and their numbers of queries. `write_scorecard` then collects the notebooks and compares again over all seeds.
"""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ucvgl.lab import tables
from ucvgl.paths import write_json, write_text

# points that published values have to differ by; none of the published tables states a spread of its own
RESOLVED = 2.0
VERDICTS = ("kept", "contradicted", "undecided")
COLUMNS = (
    "table", "paper", "key", "measure", "published", "seeds", "queries", *VERDICTS, "pairs_published", "gap", "gap_ours",
    "gap_error", "gap_published",
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """One of our tables beside the published one."""

    ours: pd.DataFrame  # a row a key (and seed, if there is a `seed` column), measures in percent
    published: pd.DataFrame  # a row a key, in percent; NaN: not published
    measures: Sequence[tuple[str, str]]  # (our column, published column); one of ours may stand beside several
    key: str  # the column that names the rows in both
    paper: str  # where the published table is from
    gap: tuple[str, str] | None = None  # the rows whose ratio sums the table up; None for none


def standard_error(recalls: Sequence[float], queries: int) -> float:
    """Of the mean of one row's recalls over seeds, in points: the spread over seeds and the sampling of queries, in quadrature.

    With one seed the sampling error alone. It is that of independent queries, sqrt(p (1 - p) / n): too large for the
    difference of two rows tested on the same queries, and for average precision.

    Args:
        recalls: (k,) in percent, one a seed.
        queries: n, that each of them rests on.
    """
    p = np.clip(np.mean(recalls) / 100, 0, 1)
    spread = np.std(recalls, ddof=1) / math.sqrt(len(recalls)) if len(recalls) > 1 else 0.0
    return float(np.hypot(spread, 100 * math.sqrt(p * (1 - p) / queries)))


def verdict(difference: float, error: float, published: Sequence[float]) -> str:
    """One of VERDICTS on two rows.

    Args:
        difference: of our means, in points.
        error: its standard error, the rows' own in quadrature.
        published: differences of the same rows, one a published column; those that resolve the pair have to agree.
    """
    directions = {math.copysign(1, theirs) for theirs in published if abs(theirs) > RESOLVED}
    if len(directions) != 1 or abs(difference) <= 2 * error:
        return "undecided"
    return "kept" if math.copysign(1, difference) in directions else "contradicted"


def compare(name: str, table: Comparison, queries: int) -> list[dict[str, Any]]:
    """Scores one table, saved as `name`, whose recalls rest on `queries`: a dict with COLUMNS for each of our measures.

    Rows that ours lacks, or without a value, count in `pairs_published` alone. The gap is the ratio of the two rows' means,
    its error propagated from theirs, and `gap_published` has one ratio a published column.
    """
    ours = table.ours if "seed" in table.ours else table.ours.assign(seed=0)
    assert not ours.duplicated(["seed", table.key]).any(), f"{name}: a row stands twice, and would count as two seeds"
    published, scored = table.published.set_index(table.key), []
    for measure in dict.fromkeys(ours_ for ours_, _ in table.measures):
        columns = [column for ours_, column in table.measures if ours_ == measure]
        theirs = published[columns].astype("float64")
        seeds = {key: rows.astype("float64").dropna() for key, rows in ours.groupby(table.key)[measure]}
        seeds = {key: rows.to_numpy() for key, rows in seeds.items() if len(rows) and key in theirs.index}
        mean = {key: float(rows.mean()) for key, rows in seeds.items()}
        error = {key: standard_error(rows, queries) for key, rows in seeds.items()}
        counts = dict.fromkeys((*VERDICTS, "pairs_published"), 0)
        for a, b in itertools.combinations(theirs.index, 2):
            differences = (theirs.loc[a] - theirs.loc[b]).dropna().tolist()
            counts["pairs_published"] += bool(differences)
            if differences and a in mean and b in mean:
                counts[verdict(mean[a] - mean[b], math.hypot(error[a], error[b]), differences)] += 1
        row = {"table": name, "paper": table.paper, "key": table.key, "measure": measure}
        row |= {"published": ", ".join(columns), "seeds": ours["seed"].nunique(), "queries": queries, **counts}
        if table.gap is not None and set(table.gap) <= set(mean) and mean[table.gap[1]] > 0:
            a, b = table.gap
            ratio = mean[a] / mean[b]
            row |= {"gap": f"{a} / {b}", "gap_ours": ratio}
            row["gap_error"] = math.hypot(error[a], ratio * error[b]) / mean[b]
            row["gap_published"] = ", ".join(f"{value:.2f}" for value in (theirs.loc[a] / theirs.loc[b]).dropna())
        scored.append(row)
    return scored


def scorecard(comparisons: Mapping[str, Comparison], queries: Mapping[str, int]) -> pd.DataFrame:
    """Scores several tables, a row a table and measure, with COLUMNS; save it as the table `scorecard`.

    Both mappings are by the names that the notebook saved the tables under; `queries` is `run.queries`.
    """
    rows = [row for name, table in comparisons.items() for row in compare(name, table, queries[name])]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def write_scorecard(figures_folder: Path) -> Path | None:
    """Collects the published notebooks' scorecards into `scorecard.csv`, `.md` and, with the recipes, `.json`.

    The tables are compared again, over all their seeds. `figures_folder` is figures/<profile>, with a folder a notebook.
    Gives the path of the Markdown; None, and nothing is left there, where no notebook has a scorecard.
    """
    target = figures_folder / "scorecard.csv"
    pieces = sorted(figures_folder.glob("[!.]*/scorecard.csv"))  # a folder with a dot is still being written
    if not pieces:
        for suffix in (".csv", ".md", ".json"):
            target.with_suffix(suffix).unlink(missing_ok=True)
        return None
    frame = pd.DataFrame([row for piece in pieces for row in _again(piece)], columns=["notebook", *COLUMNS])
    recipes = {piece.parent.name: _recipe(piece) for piece in pieces}
    write_text(target, frame.to_csv(index=False, float_format=tables.FLOAT_FORMAT, lineterminator="\n"))
    first, seeds = next(iter(recipes.values())), {seed for recipe in recipes.values() for seed in recipe["seeds"]}
    note = tables.note(first["data"], first["profile"], sorted(seeds))
    write_text(target.with_suffix(".md"), markdown(frame, note))
    write_json(target.with_suffix(".json"), {"file": target.name, "collected_from": recipes})
    return target.with_suffix(".md")


def _recipe(table: Path) -> dict[str, Any]:
    return json.loads(table.with_suffix(".json").read_text(encoding="utf-8"))


def _again(piece: Path) -> list[dict[str, Any]]:
    """The rows of a published notebook's scorecard, from the tables beside it."""
    rows = []
    for saved in tables.read(piece).drop_duplicates(["table", "measure"]).to_dict("records"):
        path, key = piece.with_name(f"{saved['table']}.csv"), saved["key"]
        table = tables.read(path)
        measures = [(saved["measure"], column) for column in saved["published"].split(", ")]
        theirs = table.drop_duplicates(key)[[key, *(f"published_{column}" for _, column in measures)]]
        theirs = theirs.rename(columns=lambda name: name.removeprefix("published_"))
        gap = tuple(saved["gap"].split(" / ")) if isinstance(saved["gap"], str) else None
        comparison = Comparison(table, theirs, measures, key, saved["paper"], gap)
        (row,) = compare(saved["table"], comparison, _recipe(path)["queries"])
        rows.append(row | {"notebook": piece.parent.name, "pairs_published": saved["pairs_published"]})
    return rows


def markdown(frame: pd.DataFrame, note: str) -> str:
    """A collected scorecard as its reader sees it: the counts in the caption, a row a table, the note of what was measured."""
    counts = ", ".join(f"{frame[name].sum()} {name}" for name in VERDICTS)
    caption = (
        f"Reproduction score: {counts}, of {frame['pairs_published'].sum()} published pairs of rows. A pair is decided where the "
        f"published values differ by more than {RESOLVED:g} points, several columns in one direction, and ours by more "
        f"than twice the standard error of their difference"
        f"{'' if frame['seeds'].min() > 1 else ': with one seed, the sampling error of the queries alone'}."
    )
    gaps = zip(frame["gap_ours"], frame["gap_error"], strict=True)
    shown = frame.drop(columns=["key", "gap_error"])
    shown["gap_ours"] = [None if pd.isna(ratio) else f"{ratio:.2f} ± {error:.2f}" for ratio, error in gaps]
    return tables.render(shown.assign(seed=0), caption, note)  # one table: `seeds` says over how many
