"""The reproduction score: which orderings of a published table's rows are kept here, and which contradicted. Ours, from no paper.

On the embedded world no number can equal a published one, but the conclusions can: which of two settings is better. Two rows
are compared only where the paper tells them apart by more than RESOLVED points and we by more than twice the pooled standard
error; everything else is undecided. The same two rows against several published columns (CVUSA, CVACT) are one comparison.

A notebook saves the score of its tables as its table `scorecard`; `write_scorecard` compares again over all seeds.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ucvgl.lab.results import read_recipe, read_table, write_table

# points that published values have to differ by; none of the published tables states a spread of its own
RESOLVED = 2.0
VERDICTS = ("kept", "contradicted", "undecided")


def standard_error(recalls: Sequence[float], queries: int) -> float:
    """Of the mean of one row's recalls (in percent, one a seed), in points: spread over seeds and sampling of independent queries,
    sqrt(p (1 - p) / n), in quadrature; the latter is too large for rows tested on the same queries, and for average precision."""
    p = np.clip(np.mean(recalls) / 100, 0, 1)
    spread = np.std(recalls, ddof=1) / math.sqrt(len(recalls)) if len(recalls) > 1 else 0.0
    return float(np.hypot(spread, 100 * math.sqrt(p * (1 - p) / queries)))


def verdict(difference: float, error: float, published: Iterable[float]) -> str:
    """One of VERDICTS on two rows, by the difference of our means, its standard error, and the same rows' differences in each
    published column (all in points); those that resolve the pair have to agree."""
    directions = {math.copysign(1, theirs) for theirs in published if abs(theirs) > RESOLVED}
    if len(directions) != 1 or abs(difference) <= 2 * error:
        return "undecided"
    return "kept" if math.copysign(1, difference) in directions else "contradicted"


def compare(
    table: Path, measures: Mapping[str, Sequence[str]], paper: str, gap: tuple[str, str] | None = None
) -> pd.DataFrame:
    """Scores a saved table (its CSV, all seeds in it): a row a measure, with the number of pairs of rows by verdict.

    measures: our column -> the published columns beside it, as `Run.save_table` was given them. gap: the rows, by the column
    `part`, whose ratio sums the table up; its error is propagated from theirs, and there is one ratio a published column.
    """
    frame, queries, scored = read_table(table), read_recipe(table)["queries"], []
    assert not frame.duplicated(["seed", "part"]).any(), f"{table}: a row stands twice, and would count as two seeds"
    for measure, columns in measures.items():
        count = queries[measure] if isinstance(queries, Mapping) else queries
        ours = frame.dropna(subset=measure).groupby("part", sort=False)[measure]
        mean, error = ours.mean(), ours.agg(standard_error, count)
        theirs = frame.drop_duplicates("part").set_index("part")[[f"published_{column}" for column in columns]]
        found = dict.fromkeys(VERDICTS, 0)
        for a, b in itertools.combinations(mean.index, 2):
            published = (theirs.loc[a] - theirs.loc[b]).dropna()
            if len(published):
                found[verdict(mean[a] - mean[b], math.hypot(error[a], error[b]), published)] += 1
        row = {"table": table.stem, "paper": paper, "measure": measure, "published": ", ".join(columns),
               "seeds": frame["seed"].nunique(), "queries": count, **found}  # fmt: skip
        if gap is not None and set(gap) <= set(mean.index) and mean[gap[1]] > 0:
            a, b = gap
            ratio, ratios = mean[a] / mean[b], (theirs.loc[a] / theirs.loc[b]).dropna()
            spread = math.hypot(error[a], ratio * error[b]) / mean[b]
            row |= {"gap": f"{a} / {b}", "gap_ours": f"{ratio:.2f} ± {spread:.2f}",
                    "gap_published": ", ".join(f"{ratio:.2f}" for ratio in ratios)}  # fmt: skip
        scored.append(row)
    return pd.DataFrame(scored)


def write_scorecard(figures_folder: Path) -> Path | None:
    """Compares again what the scorecards in figures/<profile> compare, over all seeds of their tables, and collects it in one.

    Gives the path of the Markdown; None where no notebook has a scorecard.
    """
    pieces = sorted(figures_folder.glob("[!.]*/scorecard.csv"))  # a folder with a dot is still being written
    if not pieces:
        return None
    scored = []
    for piece in pieces:
        for row in read_table(piece).drop_duplicates(["table", "measure"]).to_dict("records"):
            gap = tuple(row["gap"].split(" / ")) if isinstance(row.get("gap"), str) else None
            beside = {row["measure"]: row["published"].split(", ")}
            found = compare(piece.with_name(f"{row['table']}.csv"), beside, row["paper"], gap)
            found.insert(0, "notebook", piece.parent.name)
            scored.append(found)
    frame, recipes = pd.concat(scored), [read_recipe(piece) for piece in pieces]
    counts = ", ".join(f"{frame[name].sum()} {name}" for name in VERDICTS)
    one_seed = "" if frame["seeds"].min() > 1 else ": with one seed, the sampling error of the queries alone"
    caption = (
        f"Reproduction score, over pairs of rows: {counts}. A pair is decided where the published values differ by more than "
        f"{RESOLVED:g} points, several columns in one direction, and ours by more than twice the standard error of their "
        f"difference{one_seed}."
    )
    collected = {
        "file": "scorecard.csv", "notebook": ", ".join(piece.parent.name for piece in pieces), "caption": caption,
        "seeds": sorted({seed for recipe in recipes for seed in recipe["seeds"]}), "settings": [],
    }  # fmt: skip
    write_table(figures_folder / "scorecard.csv", frame, recipes[0] | collected)
    return figures_folder / "scorecard.md"
