"""report.md: what happened in a run, in numbers, and what would help. Its text is report.md.j2 beside this file."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ucvgl.locate.located import Comparison, Located
from ucvgl.paths import write_text
from ucvgl.positions import haversine

LEAST = (0.95, 0.9, 0.75, 0.5, 0.0)  # probabilities that the report counts from
SHOWN = 50  # files left out that are listed


@dataclass(frozen=True)
class Round:
    """One round of adaptation, by measures that need no label (`pseudo_labels.quality`).

    Args:
        name: as "as they came" or "epoch 3".
        labels: pseudo-labels it trained on; None where it only measured.
        mutual_rate: 0 to 1.
        mean_margin: cosine.
        cycle: 0 to 1.
        hubness: skewness, about 0 where all candidates are found equally often.
        seconds: it took.
    """

    name: str
    labels: int | None
    mutual_rate: float
    mean_margin: float
    cycle: float
    hubness: float
    seconds: float


@dataclass(frozen=True)
class Report:
    """What happened, in numbers.

    Args:
        command: that was run.
        found: pictures found, usable or not.
        unusable: file and reason of each that was left out, pictures and tiles.
        tiles: files with a position.
        candidates: cut from them.
        span_m: edge of a candidate on the ground.
        stride_m: between candidates.
        area: south, west, north, east of the candidates' centres, degrees.
        calibrated_on: where the probability was fitted, in words.
        radius_m: within which a place counts as right.
        rounds: of adaptation, in order.
        seconds: step -> seconds, in order.
        assumptions: what was estimated or taken for granted.
        truth: against known positions, if some were given.
    """

    command: str
    found: int
    unusable: tuple[tuple[str, str], ...]
    tiles: int
    candidates: int
    span_m: float
    stride_m: float
    area: tuple[float, float, float, float]
    calibrated_on: str
    radius_m: float = 10.0
    rounds: tuple[Round, ...] = ()
    seconds: tuple[tuple[str, float], ...] = ()
    assumptions: tuple[str, ...] = ()
    truth: Comparison | None = None


def advice(report: Report, located: Sequence[Located]) -> list[str]:
    """What would help, by rules on the numbers; the limits are ours, and the sentences name what was seen."""
    found = []
    last = report.rounds[-1] if report.rounds else None
    if last and last.mutual_rate < 0.1:
        found.append(
            f"Only {last.mutual_rate:.0%} of the pictures and their candidates choose each other: the views do not fit yet. "
            "Check the heading (the panorama's centre column should be north), the crop offset, the span, and that the "
            "tiles are of this area; then more rounds."
        )
    if last and last.hubness > 3:
        found.append(
            f"A few candidates are found far too often (hubness {last.hubness:.1f}): re-rank, and look for blank tiles, "
            "water or forest among them."
        )
    if len(report.rounds) > 1 and last.labels is not None and last.mutual_rate > 1.1 * report.rounds[-2].mutual_rate:
        found.append("Mutual matches were still growing in the last round: more rounds.")
    if report.stride_m / math.sqrt(2) > report.radius_m:
        found.append(
            f"Candidates stand {report.stride_m:g} m apart, so the nearest may be {report.stride_m / math.sqrt(2):.0f} m off: "
            f"a stride of {report.radius_m:g} m or less."
        )
    edge, expected = _at_the_edge(report, located)
    if edge > 1.5 * expected + 0.05:
        found.append(
            f"{edge:.0%} of the places lie at the edge of the tiles, where {expected:.0%} of the area is: "
            "more tiles around it."
        )
    if report.unusable:
        found.append(f"{len(report.unusable)} files could not be used: mend or remove them.")
    if located and report.truth is None:
        found.append("A few known positions (--truth CSV, 20 or more) check the probabilities on this place itself.")
    return found


def _at_the_edge(report: Report, located: Sequence[Located]) -> tuple[float, float]:
    """Fraction of the places within half a span of the area's edge, and the fraction of the area that is."""
    if not located:
        return 0.0, 0.0
    south, west, north, east = report.area
    points = np.array([(one.latitude, one.longitude) for one in located])

    def across(values: np.ndarray, column: int, to: float) -> np.ndarray:
        """Metres from places to a line of latitude (column 0) or longitude (1)."""
        other = values.copy()
        other[:, column] = to
        return haversine(values, other)

    sides = [across(points, column, to) for column, to in ((0, south), (0, north), (1, west), (1, east))]
    rim = report.span_m / 2
    height = across(np.array([[south, west]]), 0, north)[0]
    width = across(np.array([[(south + north) / 2, west]]), 1, east)[0]
    inside = max(0.0, 1 - 2 * rim / max(width, 1e-9)) * max(0.0, 1 - 2 * rim / max(height, 1e-9))
    return float((np.min(sides, 0) <= rim).mean()), 1 - inside


def write_report(folder: Path, report: Report, located: Sequence[Located]) -> Path:
    """Writes report.md, atomically: counts, how sure, quality by round, against the truth, what would help, time spent."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    p = np.array([one.probability for one in located])
    sure = [
        (f"{t:.0%} or more", int((p >= t).sum()), f"{p[p >= t].mean():.0%}" if (p >= t).any() else "-") for t in LEAST
    ]
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    page.filters |= {"cell": _cell, "time": _time}
    text = page.get_template("report.md.j2").render(
        report=report, placed=len(located), sure=sure, advice=advice(report, located) or ["Nothing stands out."], shown=SHOWN,
        total=sum(seconds for _, seconds in report.seconds),
    )  # fmt: skip
    path = folder / "report.md"
    write_text(path, text)
    return path


def _cell(value: object) -> str:
    """A text that stays one cell and no markup, whatever a file's name is."""
    text = "".join(c if c.isprintable() else " " for c in str(value))
    return html.escape(text, quote=False).replace("\\", "\\\\").replace("|", "\\|").replace("`", "'")


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60)} s"
