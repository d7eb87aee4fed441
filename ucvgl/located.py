"""Pictures on the map: what `ucvgl locate` found, as a table, as GeoJSON and as a report, and how far off it was.

All positions here are WGS84, latitude and longitude in degrees. Files are written whole or not at all, into a folder that is
marked as ours; a folder that holds something else is left alone. Truth enters in `compare` alone.
"""

import csv
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ucvgl.confidence import (
    BEST,
    Calibration,
    Evidence,
    Precision,
    calibration_error,
    claimed_and_true_precision,
    probabilities,
    radius,
    threshold_for,
)
from ucvgl.data.files import read_position_table
from ucvgl.errors import InputError
from ucvgl.paths import write_json, write_text
from ucvgl.positions import Positions, Wgs84, haversine

MARK = ".ucvgl-located.json"
ANOTHER = "Choose another folder, or empty this one."
MARKED = {"made_by": "ucvgl locate", "version": 1}
COLUMNS = ("picture", "latitude", "longitude", "probability", "radius_m", "radius_90_m", "heading_deg", "notes")
CANDIDATE_COLUMNS = ("tile", "latitude", "longitude", "score", "distance_m")
HEADER = (*COLUMNS, *(f"candidate_{n}_{c}" for n in range(1, BEST + 1) for c in CANDIDATE_COLUMNS))

# ---------------------------------------------------------------------------------------------------------- the result


@dataclass(frozen=True)
class Candidate:
    """One of a picture's best candidates.

    Args:
        tile: its name.
        latitude: of its centre, degrees.
        longitude: of its centre, degrees.
        score: its similarity.
        distance_m: metres from the picture's place, the best candidate.
    """

    tile: str
    latitude: float
    longitude: float
    score: float
    distance_m: float


@dataclass(frozen=True)
class Located:
    """Where a picture was taken, as far as the imagery tells.

    Args:
        picture: its file name.
        latitude: degrees.
        longitude: degrees.
        probability: that the true place lies within the calibration's radius_m (10 m by default) of this one, 0 to 1.
        radius_m: within which the true place lies with 50 % (`confidence.radius`); None: the evidence does not say.
        radius_90_m: the same with 90 %.
        candidates: one to five, the best first.
        heading_deg: of the picture's centre, clockwise from north, 0 to 360; None: not known.
        notes: what a reader should know of this picture; no "; " within one.

    Raises:
        InputError: a number out of its range or not finite, a name that is no UTF-8.
    """

    picture: str
    latitude: float
    longitude: float
    probability: float
    radius_m: float | None
    radius_90_m: float | None
    candidates: tuple[Candidate, ...]
    heading_deg: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for text in (self.picture, *self.notes, *(c.tile for c in self.candidates)):
            _check(_utf8(text), "located picture", "a name in UTF-8", ascii(text), "Rename the file.")
        points = [(self.latitude, self.longitude), *((c.latitude, c.longitude) for c in self.candidates)]
        lengths = [self.radius_m or 0, self.radius_90_m or 0, *(c.distance_m for c in self.candidates)]
        fits = (
            all(abs(lat) <= 90 and abs(lon) <= 180 for lat, lon in points)
            and 0 <= self.probability <= 1
            and all(0 <= x < math.inf for x in lengths)
            and all(math.isfinite(c.score) for c in self.candidates)
            and 0 <= (self.heading_deg or 0) <= 360
            and 1 <= len(self.candidates) <= BEST
            and all(note and "; " not in note for note in self.notes)
        )
        _check(fits, f"located picture {self.picture!r}", "degrees on the Earth, a probability, 1 to 5 candidates", self,
               "Check where it was made.")  # fmt: skip


def place_all(
    pictures: Sequence[str], tiles: Sequence[str], candidates: Positions, evidence: Evidence, calibration: Calibration, *,
    headings_deg: Sequence[float | None] | None = None, notes: Sequence[Sequence[str]] | None = None,
) -> list[Located]:  # fmt: skip
    """Each picture at its best candidate, with probability and radii.

    Args:
        pictures: N names.
        tiles: M names, of the candidates.
        candidates: (M,) in WGS84.
        evidence: of the N pictures over the M candidates.
        calibration: fitted elsewhere.
        headings_deg: N headings, any turn of them; None where not known.
        notes: for each picture.

    Raises:
        InputError: numbers that do not fit, positions in metres.
    """
    headings_deg, notes = headings_deg or [None] * len(pictures), notes or [()] * len(pictures)
    counts = [len(pictures), len(evidence), len(headings_deg), len(notes)]
    _check(
        len(set(counts)) == 1, "place_all", "evidence, heading and notes for each picture", counts, "Give N of each."
    )
    fits = isinstance(candidates.frame, Wgs84) and len(candidates) == len(tiles) and bool(candidates.known.all())
    _check(fits, "place_all: candidates", f"{len(tiles)} known positions in WGS84",
           f"{len(candidates)} in {candidates.frame}", "Convert with positions.from_metres.")  # fmt: skip
    probability = probabilities(calibration, evidence)
    radii = [radius(calibration, evidence, probability, level) for level in (0.5, 0.9)]
    degrees = candidates.values.round(7)  # a centimetre
    located = []
    for i, picture in enumerate(pictures):
        best = tuple(
            Candidate(str(tiles[j]), float(degrees[j, 0]), float(degrees[j, 1]), round(float(s), 6), round(float(d), 1))
            for j, s, d in zip(evidence.best[i], evidence.score[i], evidence.distance_m[i], strict=True)
        )
        within = [round(float(r[i]), 1) if math.isfinite(r[i]) else None for r in radii]
        turn = headings_deg[i]
        heading = None if turn is None else round(float(turn) % 360, 1) % 360
        located.append(
            Located(str(picture), best[0].latitude, best[0].longitude, round(float(probability[i]), 4), *within, best,
                    heading, tuple(notes[i]))
        )  # fmt: skip
    return located


# ----------------------------------------------------------------------------------------------------------- the files


def claim_folder(folder: Path | str) -> Path:
    """Makes `folder` ours to write in: absent, empty, or marked by an earlier run, whose files then stay until replaced.

    Raises:
        InputError: it holds something else, is a file, or cannot be written.
    """
    folder = Path(folder).expanduser().resolve()
    try:
        if not is_claimed(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / MARK, MARKED)
    except OSError as error:
        raise InputError(folder, expected="a folder that can be written", found=error, todo=ANOTHER) from error
    return folder


def is_claimed(folder: Path) -> bool:
    """Whether an earlier run wrote to this folder; InputError if it is not ours to write in. Changes nothing."""
    if not folder.exists():
        return False
    try:
        names = sorted(p.name for p in folder.iterdir() if not p.name.startswith(f".{MARK}."))  # of a killed run
    except OSError as error:
        raise InputError(folder, expected="a folder that can be written", found=error, todo=ANOTHER) from error
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    expected = f"an absent or empty folder, or one that {MARKED['made_by']} wrote"
    _check(not names or MARK in names, folder, expected, ascii(shown), ANOTHER)
    return MARK in names


def write_positions(folder: Path, located: Sequence[Located]) -> tuple[Path, Path]:
    """Writes positions.csv and positions.geojson, each atomically; gives their paths back.

    The table has a row a picture: COLUMNS, then candidate_1_tile, candidate_1_latitude and so on; what is not known is
    empty. The GeoJSON follows RFC 7946: WGS84, longitude first, points; candidates and notes are properties.

    Raises:
        InputError: a picture twice.
    """
    names = [one.picture for one in located]
    _check(len(set(names)) == len(names), "positions", "each picture once", f"{len(names) - len(set(names))} again",
           "Give pictures in folders their relative paths.")  # fmt: skip
    buffer = io.StringIO(newline="")
    table = csv.writer(buffer, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")  # quotes guard any name
    table.writerow(HEADER)
    for one in located:
        row = [
            one.picture,
            one.latitude,
            one.longitude,
            one.probability,
            one.radius_m,
            one.radius_90_m,
            one.heading_deg,
        ]
        row += ["; ".join(one.notes)]
        row += [value for c in one.candidates for value in (c.tile, c.latitude, c.longitude, c.score, c.distance_m)]
        table.writerow(row + [None] * (len(HEADER) - len(row)))
    paths = folder / "positions.csv", folder / "positions.geojson"
    write_text(paths[0], buffer.getvalue())
    write_json(paths[1], {"type": "FeatureCollection", "features": [_feature(one) for one in located]})
    return paths


def _feature(one: Located) -> dict[str, Any]:
    candidates = [{name: getattr(c, name) for name in CANDIDATE_COLUMNS} for c in one.candidates]
    properties = {name: getattr(one, name) for name in COLUMNS if name not in ("latitude", "longitude", "notes")}
    return {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": [one.longitude, one.latitude]},
        "properties": {**properties, "notes": "; ".join(one.notes), "candidates": candidates},
    }


def read_positions(path: Path) -> list[Located]:
    """Reads a positions.csv that `write_positions` wrote.

    Raises:
        InputError: no such file, other columns, a value that is no number or out of range; with the line.
    """
    path = Path(path)
    todo = "Give a positions.csv as ucvgl locate wrote it."
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(path, expected="a table of positions", found=error, todo=todo) from error
    located = []
    for number, row in enumerate(rows, 1):
        try:
            _check(None not in row, path, f"{len(HEADER)} columns", "more", todo)
            numbers = [_number(row[name]) for name in COLUMNS[1:-1]]
            lists = [[row[f"candidate_{n}_{c}"] for c in CANDIDATE_COLUMNS] for n in range(1, BEST + 1)]
            best = tuple(Candidate(c[0], *map(float, c[1:])) for c in lists if any(c))
            notes = tuple(row["notes"].split("; ")) if row["notes"] else ()
            located.append(Located(row["picture"], *numbers[:5], best, numbers[5], notes))
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # InputError is a ValueError
            raise InputError(f"{path}, row {number}", expected="a located picture", found=error, todo=todo) from error
    return located


def _number(text: str) -> float | None:
    return float(text) if text else None


# ----------------------------------------------------------------------------------------------------- against the truth


@dataclass(frozen=True)
class Comparison:
    """Located pictures against known positions.

    Args:
        known: how many of the pictures have one.
        radius_m: within which a place counts as right.
        recall: part of the known ones that is right, 0 to 1.
        recall_5: part of which one of the best five is right.
        median_error_m: metres.
        p90_error_m: the 90th percentile, metres.
        calibration_error: expected, 0 to 1.
        half: what is claimed and what is true of the more probable half.
    """

    known: int
    radius_m: float
    recall: float
    recall_5: float
    median_error_m: float
    p90_error_m: float
    calibration_error: float
    half: Precision


def read_truth(path: Path | str) -> dict[str, tuple[float, float]]:
    """Known positions from a CSV with a header: an id or file column, latitude and longitude; by that id.

    Raises:
        InputError: as `data.files.read_position_table`; east and north in place of degrees.
    """
    names, positions = read_position_table(path)
    _check(isinstance(positions.frame, Wgs84), path, "latitude and longitude", positions.frame, "Give WGS84 degrees.")
    return {name: (float(lat), float(lon)) for name, (lat, lon) in zip(names, positions.values, strict=True)}


def true_positions(pictures: Sequence[str], truth: Mapping[str, tuple[float, float]]) -> Positions:
    """(N,) WGS84, NaN where not known: by name, with or without folder and ending.

    Raises:
        InputError: no picture is in `truth`, or a name without its folder would stand for two pictures.
    """
    values, used = np.full((len(pictures), 2), np.nan), {}
    for i, name in enumerate(pictures):
        leaf = name.rpartition("/")[2]
        stems = [part.rpartition(".")[0] or part for part in (name, leaf)]
        key = next((k for k in (name, stems[0], leaf, stems[1]) if k in truth), None)
        if key is not None:
            _check(key not in used, f"truth: {key}", "one picture of that name", [used.get(key), name],
                   "Name pictures with their folders.")  # fmt: skip
            used[key], values[i] = name, truth[key]
    _check(bool(used), "truth", f"names such as {pictures[0]!r}" if pictures else "pictures",
           f"names such as {next(iter(truth))!r}" if truth else "none", "Use the pictures' file names.")  # fmt: skip
    return Positions(values, Wgs84(), "truth")


def errors_m(located: Sequence[Located], truth: Mapping[str, tuple[float, float]]) -> np.ndarray:
    """(N, 5) great-circle metres from the truth to each candidate, NaN where truth is unknown, inf beyond the last one."""
    positions = true_positions([one.picture for one in located], truth)
    out = np.full((len(located), BEST), np.inf)
    for i, one in enumerate(located):
        points = np.array([(c.latitude, c.longitude) for c in one.candidates])
        out[i, : len(points)] = haversine(points, positions.values[i])
    out[~positions.known] = np.nan
    return out


def compare(located: Sequence[Located], truth: Mapping[str, tuple[float, float]], radius_m: float = 10.0) -> Comparison:
    """How far off the places are, and whether their probabilities hold; pictures without a known position are left out.

    Raises:
        InputError: no picture has a known position.
    """
    error = errors_m(located, truth)
    known = ~np.isnan(error[:, 0])
    error, p = error[known], np.array([one.probability for one in located])[known]
    right = error[:, 0] <= radius_m
    median, high = np.quantile(error[:, 0], (0.5, 0.9))
    return Comparison(
        int(known.sum()), radius_m, float(right.mean()), float((error <= radius_m).any(1).mean()), float(median),
        float(high), calibration_error(p, right), claimed_and_true_precision(p, right, threshold_for(p, 0.5)),
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- the report


@dataclass(frozen=True)
class Round:
    """One round of adaptation, by measures that need no label (`pseudo_labels.quality`).

    Args:
        name: as "before adaptation" or "round 3".
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
    worst = report.stride_m / math.sqrt(2)
    if worst > report.radius_m:
        found.append(
            f"Candidates stand {report.stride_m:g} m apart, so the nearest may be {worst:.0f} m off: "
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
    """Part of the places within half a span of the area's edge, and the part of the area that is."""
    if not located:
        return 0.0, 0.0
    south, west, north, east = report.area
    points = np.array([(one.latitude, one.longitude) for one in located])

    def across(values: np.ndarray, column: int, to: float) -> np.ndarray:
        other = values.copy()
        other[:, column] = to
        return haversine(values, other)

    sides = [across(points, 0, south), across(points, 0, north), across(points, 1, west), across(points, 1, east)]
    rim = report.span_m / 2
    height = across(np.array([[south, west]]), 0, north)[0]
    width = across(np.array([[(south + north) / 2, west]]), 1, east)[0]
    inside = max(0.0, 1 - 2 * rim / max(width, 1e-9)) * max(0.0, 1 - 2 * rim / max(height, 1e-9))
    return float((np.min(sides, 0) <= rim).mean()), 1 - inside


def report_text(report: Report, located: Sequence[Located]) -> str:
    """The report as Markdown: counts, how sure, quality by round, against the truth, what would help, time spent."""
    p = np.array([one.probability for one in located])
    parts = ["# Where the pictures were taken", f"`{_cell(report.command)}`"]
    parts += ["## Counts", _table(("what", "count"), [
        ("pictures found", report.found), ("pictures placed", len(located)), ("files left out", len(report.unusable)),
        ("tiles with a position", report.tiles),
        (f"candidates of {report.span_m:g} m, {report.stride_m:g} m apart", report.candidates),
    ])]  # fmt: skip
    sure = [(f"{t:.0%} or more", int((p >= t).sum()), f"{p[p >= t].mean():.0%}" if (p >= t).any() else "-")
            for t in (0.95, 0.9, 0.75, 0.5, 0.0)]  # fmt: skip
    parts += [
        "## How sure",
        f"A picture's probability is that its true place lies within {report.radius_m:g} m of the one given. It was fitted on "
        f"{_cell(report.calibrated_on)}; another place may differ.",
        _table(("probability", "pictures", f"of these expected within {report.radius_m:g} m"), sure),
    ]
    if report.rounds:
        rows = [(r.name, "-" if r.labels is None else r.labels, f"{r.mutual_rate:.1%}", f"{r.mean_margin:.4f}",
                 f"{r.cycle:.1%}", f"{r.hubness:.2f}", _time(r.seconds)) for r in report.rounds]  # fmt: skip
        head = ("round", "pseudo-labels", "mutual matches", "mean margin", "within five back", "hubness", "time")
        parts += ["## Quality by round, measured without labels", _table(head, rows)]
    if report.truth:
        t = report.truth
        parts += ["## Against the known positions", _table(("measure", "value"), [
            ("pictures with a known position", t.known), (f"placed within {t.radius_m:g} m", f"{t.recall:.1%}"),
            (f"one of the best five within {t.radius_m:g} m", f"{t.recall_5:.1%}"),
            ("median error", f"{t.median_error_m:.1f} m"), ("90th percentile of the error", f"{t.p90_error_m:.1f} m"),
            ("calibration error", f"{100 * t.calibration_error:.1f} points"),
            (f"the surer half ({t.half.placed} with {t.half.threshold:.2f} or more): claimed right", f"{t.half.claimed:.1%}"),
            ("the surer half: truly right", f"{t.half.true:.1%}"),
        ])]  # fmt: skip
    helps = advice(report, located) or ["Nothing stands out."]
    parts += ["## What would help", "\n".join(f"- {line}" for line in helps)]
    if report.assumptions:
        parts += ["## Taken for granted", "\n".join(f"- {_cell(line)}" for line in report.assumptions)]
    if report.unusable:
        rows = [*report.unusable[:50]]
        more = len(report.unusable) - len(rows)
        parts += ["## Left out", _table(("file", "why"), rows), *([f"And {more} more."] if more else [])]
    if report.seconds:
        total = sum(seconds for _, seconds in report.seconds)
        rows = [*((step, _time(seconds)) for step, seconds in report.seconds), ("all", _time(total))]
        parts += ["## Time spent", _table(("step", "time"), rows)]
    return "\n\n".join(parts) + "\n"


def write_report(folder: Path, report: Report, located: Sequence[Located]) -> Path:
    """Writes report.md, atomically."""
    path = folder / "report.md"
    write_text(path, report_text(report, located))
    return path


# ------------------------------------------------------------------------------------------------------------- helpers


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    """A text that stays one cell and no markup, whatever a file's name is."""
    text = "".join(c if c.isprintable() else " " for c in str(value))
    return html.escape(text, quote=False).replace("\\", "\\\\").replace("|", "\\|").replace("`", "'")


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60)} s"


def _utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _check(fits: bool, where: object, expected: str, found: object, todo: str) -> None:
    if not fits:
        raise InputError(where, expected=expected, found=found, todo=todo)
