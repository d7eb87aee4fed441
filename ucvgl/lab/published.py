"""The published tables of the three papers, from published.json, and how ours agree with them: the reproduction score.

Nothing else may fill a 'published' column. Columns are named `<data set>_<measure>` (`cvusa_r_at_1`), in percent but for the counts
of the cold start; rows by a short key (`full`, `no_fakes`, `labels_10`) that notebooks use for their own rows too. A mark says
where a value comes from: A the authors' own material, B quoted by a third party, C inferred; a table's caption tells B and C.

The score is ours, from no paper. On the embedded world no number can equal a published one, but the conclusions can: which of two
settings is better (`verdict`); the same two rows against several published columns (CVUSA, CVACT) are one comparison."""

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ucvgl.lab.results import read_recipe, read_table, write_table

TRAINING_PAIRS = 35_532  # of CVUSA, and of CVACT: those that the cold start's counts of labels are of
CONTENT: dict[str, Any] = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
# VG-SSL's methods by key: names and families (section 2); test sets, the world's by what they stand for -> columns' prefix
SSL, FAMILIES, STANDS_FOR = (CONTENT["vg_ssl"][name] for name in ("names", "families", "columns_of_test_sets"))
RESOLVED = 2.0  # points that published values have to differ by; none of the tables states a spread of its own
VERDICTS = ("kept", "contradicted", "undecided")


def frame(name: str) -> pd.DataFrame:
    """A published table by its row keys, float columns; `frame(...).reindex(keys)` has the rows that `keys` name, NaN for None."""
    table = CONTENT["tables"][name]
    values = {key: row["values"] for key, row in table["rows"].items()}
    return pd.DataFrame.from_dict(values, "index", "float64", table["columns"])


def standard_error(recalls: Sequence[float], queries: int) -> float:
    """Of the mean of one row's recalls (in percent, one a seed), in points: spread over seeds and sampling of independent queries,
    sqrt(p (1 - p) / n), in quadrature; the latter is too large for rows tested on the same queries, and for average precision."""
    p = np.clip(np.mean(recalls) / 100, 0, 1)
    spread = np.std(recalls, ddof=1) / math.sqrt(len(recalls)) if len(recalls) > 1 else 0.0
    return float(np.hypot(spread, 100 * math.sqrt(p * (1 - p) / queries)))


def verdict(difference: float, error: float, published: Iterable[float]) -> str:
    """One of VERDICTS on two rows, by the difference of our means, its standard error (twice that has to be exceeded), and the same
    rows' differences in each published column (all in points); those that resolve the pair have to agree."""
    directions = {math.copysign(1, theirs) for theirs in published if abs(theirs) > RESOLVED}
    if len(directions) != 1 or abs(difference) <= 2 * error:
        return "undecided"
    return "kept" if math.copysign(1, difference) in directions else "contradicted"


def compare(
    table: Path, measures: Mapping[str, Sequence[str]], paper: str, gap: tuple[str, str] | None = None
) -> pd.DataFrame:
    """Scores a saved table (its CSV, all seeds in it): a row a measure, with the number of pairs of rows by verdict.
    measures: our column -> the published columns beside it, as `Run.save_table` was given them. gap: the rows, by the column
    `part`, whose ratio sums the table up; its error is propagated from theirs, and there is one ratio a published column."""
    saved, queries, scored = read_table(table), read_recipe(table)["queries"], []
    assert not saved.duplicated(["seed", "part"]).any(), f"{table}: a row stands twice, and would count as two seeds"
    for measure, columns in measures.items():
        count = queries[measure] if isinstance(queries, Mapping) else queries
        ours = saved.dropna(subset=measure).groupby("part", sort=False)[measure]
        mean, error = ours.mean(), ours.agg(standard_error, count)
        theirs = saved.drop_duplicates("part").set_index("part")[[f"published_{column}" for column in columns]]
        found = dict.fromkeys(VERDICTS, 0)
        for a, b in itertools.combinations(mean.index, 2):
            if len(published := (theirs.loc[a] - theirs.loc[b]).dropna()):
                found[verdict(mean[a] - mean[b], math.hypot(error[a], error[b]), published)] += 1
        scored.append({"table": table.stem, "paper": paper, "measure": measure, "published": ", ".join(columns),
                       "seeds": saved["seed"].nunique(), "queries": count, **found})  # fmt: skip
        if gap is not None and set(gap) <= set(mean.index) and mean[gap[1]] > 0:
            a, b = gap
            ratio, ratios = mean[a] / mean[b], (theirs.loc[a] / theirs.loc[b]).dropna()
            spread = math.hypot(error[a], ratio * error[b]) / mean[b]
            scored[-1] |= {"gap": f"{a} / {b}", "gap_ours": f"{ratio:.2f} ± {spread:.2f}",
                           "gap_published": ", ".join(f"{ratio:.2f}" for ratio in ratios)}  # fmt: skip
    return pd.DataFrame(scored)


def write_scorecard(figures_folder: Path) -> Path | None:
    """Compares again what the notebooks' tables `scorecard` in figures/<profile> compare, over all seeds of their tables, and
    collects it in one, whose Markdown's path it gives; None where there is none."""
    pieces = sorted(figures_folder.glob("[!.]*/scorecard.csv"))  # a folder with a dot is still being written
    if not pieces:
        return None
    scored, recipes = [], [read_recipe(piece) for piece in pieces]
    for piece in pieces:
        for row in read_table(piece).drop_duplicates(["table", "measure"]).to_dict("records"):
            gap = tuple(row["gap"].split(" / ")) if isinstance(row.get("gap"), str) else None
            beside = {row["measure"]: row["published"].split(", ")}
            found = compare(piece.with_name(f"{row['table']}.csv"), beside, row["paper"], gap)
            found.insert(0, "notebook", piece.parent.name)
            scored.append(found)
    every = pd.concat(scored)
    counts = ", ".join(f"{every[name].sum()} {name}" for name in VERDICTS)
    one_seed = "" if every["seeds"].min() > 1 else ": with one seed, the sampling error of the queries alone"
    caption = f"Reproduction score, over pairs of rows: {counts}. A pair is decided where the published values differ by more "
    caption += f"than {RESOLVED:g} points, several columns in one direction, and ours by more than twice the standard error of "
    caption += f"their difference{one_seed}."
    seeds = sorted({seed for recipe in recipes for seed in recipe["seeds"]})
    books = ", ".join(piece.parent.name for piece in pieces)
    collected = {"file": "scorecard.csv", "notebook": books, "caption": caption, "seeds": seeds, "settings": []}
    write_table(figures_folder / "scorecard.csv", every, recipes[0] | collected)
    return figures_folder / "scorecard.md"
