"""The reproduction score: how far our tables say what the published ones say, without comparing absolute numbers.

On the embedded world no number can equal a published one, but the conclusions can: which of two settings is better, and
by what factor. For each published table: the share of its pairwise orderings that ours has too, and the ratio of its
headline gap beside ours. Of no paper; ours.

A notebook saves `scorecard(...)` as its table `scorecard`, and the tables it scored under the same names with their
published columns. `write_scorecard` then collects the notebooks and scores again over all seeds.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ucvgl.errors import InputError
from ucvgl.lab.results import FLOAT_FORMAT, render_table
from ucvgl.paths import write_json, write_text

COLUMNS = (
    "table", "paper", "key", "measure", "published", "pairs", "pairs_published", "orderings_kept",
    "orderings_within_spread", "gap", "gap_ours", "gap_published",
)  # fmt: skip
SHOWN = {
    "notebook": "notebook",
    "paper": "paper",
    "table": "table",
    "measure": "measure",
    "published": "published column",
    "pairs": "pairs",
    "pairs_published": "of published",
    "orderings_kept": "orderings kept (%)",
    "orderings_within_spread": "pairs within spread",
    "gap": "gap",
    "gap_ours": "gap, ours",
    "gap_published": "gap, published",
}
OPEN, CLOSE = "<!-- scorecard -->", "<!-- /scorecard -->"


@dataclass(frozen=True)
class Orderings:
    """How many of the compared pairs of rows stand in the published order.

    Attributes:
        agree: 1 for each pair in the published order, 0.5 for each that is too close to tell, summed.
        pairs: pairs compared.
        within: of those, the ones too close to tell.
    """

    agree: float
    pairs: int
    within: int = 0

    @property
    def share(self) -> float | None:
        """`agree` in percent of `pairs`; None where there was nothing to compare."""
        return 100 * self.agree / self.pairs if self.pairs else None


@dataclass(frozen=True)
class Gap:
    """The ratio of two rows that sums a table up.

    Attributes:
        text: as '0 % over 100 % labels'.
        numerator: key of a row.
        denominator: key of another.
    """

    text: str
    numerator: str
    denominator: str


@dataclass(frozen=True)
class Comparison:
    """One of our tables beside the published one, as `score_table` takes them.

    Attributes:
        ours: a row a key (and seed, if there is a `seed` column).
        published: a row a key.
        measures: (our column, published column), one or more.
        key: the column that names the rows in both.
        paper: where the published table is from.
        gap: its headline gap; None for none.
    """

    ours: pd.DataFrame
    published: pd.DataFrame
    measures: Sequence[tuple[str, str]]
    key: str
    paper: str
    gap: Gap | None = None


# -------------------------------------------------------------------------------------------------------- the arithmetic


def pairwise_orderings(
    ours: Sequence[float | None] | ArrayLike,
    published: Sequence[float | None] | ArrayLike,
    spread: float | ArrayLike = 0.0,
) -> Orderings:
    """Counts the pairs of rows that stand in the published order in our table too.

    A pair counts 1 if ours differ in the published direction by more than the spread, 0 if in the other direction by
    more than it, 0.5 if |a - b| <= sqrt(spread_a^2 + spread_b^2): the standard deviation of the difference of two
    independent runs. With spread 0 (one seed) only exact ties count 0.5. Pairs whose published values are equal, and rows
    that lack either value (None or NaN), are skipped.

    Args:
        ours: (n,) measures.
        published: (n,) the same rows, published.
        spread: (n,) or one number: standard deviation of ours over seeds, in the unit of `ours`.

    Raises:
        InputError: different lengths, an infinite value, a negative or undefined spread.
    """
    a, p = (np.asarray(values, dtype=float) for values in (ours, published))  # (n,), None becomes NaN
    s = np.asarray(spread, dtype=float)
    if a.ndim != 1 or a.shape != p.shape or s.shape not in ((), a.shape):
        raise InputError(
            "orderings",
            expected="as many published values as ours, (n,), and one spread or (n,)",
            found=f"shapes {a.shape}, {p.shape} and {s.shape}",
            todo="Align the two tables by their row keys.",
        )
    if np.isinf(a).any() or np.isinf(p).any() or not np.isfinite(s).all() or (s < 0).any():
        raise InputError(
            "orderings",
            expected="finite values and a spread >= 0",
            found="an infinite value, or a negative or undefined spread",
            todo="Give None for what was not measured, and spread 0 for one seed.",
        )
    known = ~(np.isnan(a) | np.isnan(p))
    a, p, s = a[known], p[known], np.broadcast_to(s, known.shape)[known]
    first, second = np.triu_indices(len(a), k=1)  # each pair once
    theirs = np.sign(p[first] - p[second])
    difference = a[first] - a[second]
    compared = theirs != 0
    within = np.abs(difference) <= np.hypot(s[first], s[second])
    kept = ~within & (np.sign(difference) == theirs)
    tied = int((compared & within).sum())
    return Orderings(float((compared & kept).sum() + 0.5 * tied), int(compared.sum()), tied)


def headline_ratio(numerator: float | None, denominator: float | None) -> float | None:
    """numerator / denominator; None where either is not known (None, NaN) or the denominator is 0."""
    if numerator is None or denominator is None or math.isnan(numerator) or math.isnan(denominator) or denominator == 0:
        return None
    return float(numerator) / float(denominator)


# ------------------------------------------------------------------------------------------------------------ a table


def _check_keys(name: str, frame: pd.DataFrame, columns: Sequence[str], unique: Sequence[str]) -> None:
    missing = [column for column in columns if column not in frame]
    if missing:
        raise InputError(
            f"scorecard of {name}",
            expected=f"columns {', '.join(columns)}",
            found=f"no {', '.join(missing)} among {', '.join(map(str, frame.columns))}",
            todo="Correct the measures or the key.",
        )
    twice = frame[frame.duplicated(list(unique))]
    if len(twice):
        raise InputError(
            f"scorecard of {name}",
            expected=f"each {' and '.join(unique)} once",
            found=f"{twice[list(unique)].iloc[0].tolist()} again",
            todo="Score a table with one row a setting.",
        )


def score_table(
    name: str,
    ours: pd.DataFrame,
    published: pd.DataFrame,
    measures: Sequence[tuple[str, str]],
    key: str,
    *,
    paper: str = "",
    gap: Gap | None = None,
) -> list[dict[str, Any]]:
    """Scores one table, a row for each measure.

    Over several seeds a row counts with its mean, and its spread is the standard deviation (n - 1) over the seeds that
    measured it, 0 for one. The gap is the mean of the seeds' ratios.

    Args:
        name: the name that the notebook saves the table under.
        ours: a row a key; with a `seed` column, a row a key and seed. Rows that were not published take no part.
        published: a row a key. Rows that ours lacks count in `pairs_published` alone.
        measures: (our column, published column), one or more.
        key: the column that names the rows in both.
        paper: where the published table is from.
        gap: the headline gap; None for none.

    Returns:
        Dicts with COLUMNS: `orderings_kept` in percent (None: nothing to compare), `orderings_within_spread` in pairs,
        gaps as ratios.

    Raises:
        InputError: no measure, a missing column, a key that stands twice, or a gap between rows that neither table has.
    """
    if not measures:
        raise InputError(f"scorecard of {name}", expected="at least one measure", found="none", todo="Name one.")
    seeded = ours if "seed" in ours else ours.assign(seed=0)
    _check_keys(name, seeded, [key, *dict.fromkeys(m for m, _ in measures)], ["seed", key])
    _check_keys(name, published, [key, *dict.fromkeys(m for _, m in measures)], [key])
    if gap is not None and (unknown := {gap.numerator, gap.denominator} - set(published[key])):
        raise InputError(
            f"scorecard of {name}, gap '{gap.text}'",
            expected=f"rows among {', '.join(map(str, published[key]))}",
            found=", ".join(sorted(map(repr, unknown))),
            todo="Name published rows.",
        )
    rows = []
    for measure, column in measures:
        by_seed = seeded.assign(**{measure: seeded[measure].astype("float64")}).pivot(
            index=key, columns="seed", values=measure
        )
        theirs = published.set_index(key)[column].astype("float64")  # (rows,)
        mine = by_seed.reindex(theirs.index)  # (rows, seeds)
        orderings = pairwise_orderings(mine.mean(axis=1), theirs, mine.std(axis=1, ddof=1).fillna(0.0))
        ratios = [] if gap is None else [
            headline_ratio(mine.at[gap.numerator, seed], mine.at[gap.denominator, seed]) for seed in mine.columns
        ]  # fmt: skip
        rows.append(
            {
                "table": name,
                "paper": paper,
                "key": key,
                "measure": measure,
                "published": column,
                "pairs": orderings.pairs,
                "pairs_published": pairwise_orderings(theirs, theirs).pairs,
                "orderings_kept": orderings.share,
                "orderings_within_spread": orderings.within,
                "gap": None if gap is None else gap.text,
                "gap_ours": _mean(ratios),
                "gap_published": None
                if gap is None
                else headline_ratio(theirs[gap.numerator], theirs[gap.denominator]),
            }
        )
    return rows


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean; None if there is no value or one of them is not known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def scorecard(tables: Mapping[str, Comparison]) -> pd.DataFrame:
    """Scores several tables: a row a table and measure, with COLUMNS; save it as the table `scorecard`.

    Args:
        tables: by the names that the notebook saves them under.
    """
    rows = [
        row
        for name, c in tables.items()
        for row in score_table(name, c.ours, c.published, c.measures, c.key, paper=c.paper, gap=c.gap)
    ]
    return _frame(rows, COLUMNS)


def _frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows), columns=list(columns))
    numbers = ["orderings_kept", "gap_ours", "gap_published"]
    return frame.astype(dict.fromkeys(numbers, "float64"))  # a column of None alone would be of objects


# ------------------------------------------------------------------------------------------- over notebooks, and README


def write_scorecard(figures_folder: Path) -> Path | None:
    """Collects the scorecards of the published notebooks into `scorecard.csv`, `.md` and, with the recipes, `.json`.

    The orderings are scored again from the published tables, over all their seeds; gaps are averaged over the seeds.

    Args:
        figures_folder: `figures/<profile>`, with a folder a notebook.

    Returns:
        The path of the Markdown; None, and nothing is left there, where no notebook has a scorecard.

    Raises:
        InputError: a scored table is not beside its scorecard, or lacks its key, measure or published column.
    """
    target = figures_folder / "scorecard.csv"
    pieces = sorted(figures_folder.glob("[!.]*/scorecard.csv"))  # a folder with a dot is still being written
    if not pieces:
        for suffix in (".csv", ".md", ".json"):
            target.with_suffix(suffix).unlink(missing_ok=True)
        return None
    rows, recipes = [], {}
    for piece in pieces:
        rows += _collect(piece)
        recipes[piece.parent.name] = json.loads(piece.with_suffix(".json").read_text(encoding="utf-8"))
    notes = dict.fromkeys(recipe["note"] for recipe in recipes.values())
    frame = _frame(rows, ["notebook", *COLUMNS])
    write_text(target, frame.to_csv(index=False, float_format=FLOAT_FORMAT, lineterminator="\n"))
    write_text(target.with_suffix(".md"), markdown(frame, "; ".join(notes)))
    write_json(target.with_suffix(".json"), {"file": target.name, "collected_from": recipes})
    return target.with_suffix(".md")


def _read(path: Path) -> pd.DataFrame:
    """A saved table; only an empty cell is 'not known', so that a setting may be called None."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def _collect(piece: Path) -> list[dict[str, Any]]:
    """A published notebook's scorecard with one row a table and measure, over its seeds."""
    saved = _read(piece)
    rows = []
    for (name, measure, column), group in saved.groupby(["table", "measure", "published"], sort=False):
        path = piece.with_name(f"{name}.csv")
        beside = f"published_{column}"
        first = group.iloc[0]
        try:
            table = _read(path)
        except OSError as error:
            raise InputError(
                path,
                expected="the table that the scorecard beside it scores",
                found=error,
                todo="Save the table under the name it has in the scorecard.",
            ) from error
        _check_keys(str(path), table, [first["key"], measure, beside], ["seed", first["key"]])
        theirs = table[[first["key"], beside]].drop_duplicates(first["key"])
        (scored,) = score_table(name, table, theirs, [(measure, beside)], first["key"])
        gaps = group["gap_ours"].tolist()
        rows.append(
            {
                "notebook": piece.parent.name,
                **{c: first[c] for c in ("table", "paper", "key", "measure", "published", "pairs_published", "gap")},
                **{c: scored[c] for c in ("pairs", "orderings_kept", "orderings_within_spread")},
                "gap_ours": _mean([None if math.isnan(gap) else gap for gap in gaps]),
                "gap_published": first["gap_published"],
            }
        )
    return rows


def markdown(frame: pd.DataFrame, note: str) -> str:
    """A collected scorecard as its reader sees it.

    Args:
        frame: COLUMNS, and `notebook` where there are several.
        note: what it was measured on.
    """
    pairs = int(frame["pairs"].sum())
    agree = float((frame["orderings_kept"].fillna(0.0) * frame["pairs"]).sum())
    total = f"{agree / pairs:.1f} % of {pairs} compared orderings kept" if pairs else "no ordering could be compared"
    caption = (
        f"Reproduction score: {total}. An ordering is a pair of settings that the paper tells apart; "
        "pairs within the seed spread (with one seed: exact ties) count half."
    )
    shown = frame[[c for c in SHOWN if c in frame]].rename(columns=SHOWN)
    shown["orderings kept (%)"] = [None if math.isnan(v) else f"{v:.0f}" for v in frame["orderings_kept"]]
    return render_table([shown.assign(seed=0)], caption, note)  # render_table drops the only seed


def readme_block(text: str, table: str) -> str:
    """Puts `table` between the two marker comments of `text`, in the place of what stood there.

    Args:
        text: of README, with OPEN and then CLOSE, each once.
        table: Markdown.

    Raises:
        InputError: a marker is missing or stands twice, or they are in the wrong order.
    """
    if text.count(OPEN) != 1 or text.count(CLOSE) != 1 or text.index(OPEN) > text.index(CLOSE):
        raise InputError(
            "README",
            expected=f"{OPEN} and after it {CLOSE}, each once",
            found=f"{text.count(OPEN)} and {text.count(CLOSE)} of them",
            todo="Put the two comments where the scorecard is to stand.",
        )
    before, rest = text.split(OPEN)
    after = rest.split(CLOSE)[1]
    return f"{before}{OPEN}\n{table.strip()}\n{CLOSE}{after}"
