"""report.md: what happened in a run, in numbers, and what would help. Its text is report.md.j2 beside this file."""

import html
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ucvgl.lab.results import device
from ucvgl.locate.adapt import Round
from ucvgl.locate.confidence import RADIUS_M
from ucvgl.locate.inputs import Inputs
from ucvgl.locate.located import Comparison, Located
from ucvgl.locate.pictures import BY_SHAPE, MAGNETIC, UNREFERENCED, Kind
from ucvgl.locate.search import Search, calibration_of
from ucvgl.paths import write_text

LEAST = (0.95, 0.9, 0.75, 0.5, 0.0)  # probabilities that the report counts from
SHOWN = 50  # files left out that are listed
LEAST_RECALIBRATED = 20  # known positions from which on the probabilities are corrected by them


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run found."""

    folder: Path  # where everything lies
    command: str  # that was run
    inputs: Inputs  # what it was asked for, and what the folders hold
    searches: Mapping[Kind, Search]  # by kind of picture
    located: list[Located]  # the pictures that were placed
    truth: Comparison | None  # against known positions, if some were given
    labels: int  # positions that were trained on
    seconds: Mapping[str, float]  # step -> seconds, in order

    @property
    def rounds(self) -> list[Round]:
        """Of adaptation, in order."""
        named = ((f"{kind}s, " * (len(self.searches) > 1), found.rounds) for kind, found in self.searches.items())
        return [replace(one, name=kind + one.name) for kind, rounds in named for one in rounds]

    @property
    def unusable(self) -> list[tuple[str, str]]:
        """File and reason of each that was left out, pictures and tiles."""
        pictures = [(picture.file, picture.reason_unusable or "") for picture in self.inputs.ground.unusable]
        return [*pictures, *self.inputs.mosaic.unreadable]

    def text(self) -> str:
        """A few lines for people."""
        probability = np.array([one.probability for one in self.located])
        rows = [
            f"{len(self.located):,} of {len(self.inputs.ground.pictures):,} pictures placed: "
            f"{(probability >= 0.9).sum()} with 90 % or more, {probability.sum():.0f} expected within {RADIUS_M:g} m"
        ]
        if self.truth is not None:
            rows.append(
                f"of {self.truth.known:,} with a known position {self.truth.recall:.1%} within {RADIUS_M:g} m, median error "
                f"{self.truth.median_error_m:.1f} m; calibration error {100 * self.truth.calibration_error:.1f} points"
            )
        rows += [f"{len(self.unusable):,} files left out, see report.md"] * bool(self.unusable)
        rows.append(f"open {self.folder / 'map.html'}")
        return "\n".join(rows)

    def summary(self) -> dict[str, Any]:
        """For machines: counts, confidence, quality, times, files."""
        return {
            "out": str(self.folder),
            "files": sorted(p.name for p in self.folder.iterdir() if not p.name.startswith(".")),
            "device": device(),
            "pictures": len(self.inputs.ground.pictures),
            "placed": len(self.located),
            "unusable": [{"file": file, "reason": reason} for file, reason in self.unusable],
            "tiles": len(self.inputs.mosaic.files),
            "candidates": len(self.inputs.candidates),
            "expected_right": round(sum(one.probability for one in self.located), 1),
            "radius_m": RADIUS_M,
            "rounds": [asdict(one) for one in self.rounds],
            "seconds": dict(self.seconds),
            "truth": None if self.truth is None else asdict(self.truth),
        }


def write_report(outcome: Outcome) -> None:
    """Writes report.md, atomically: counts, how sure, quality by round, against the truth, what would help, time spent."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    p = np.array([one.probability for one in outcome.located])
    sure = [
        (f"{t:.0%} or more", int((p >= t).sum()), f"{p[p >= t].mean():.0%}" if (p >= t).any() else "-") for t in LEAST
    ]
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    page.filters |= {"cell": _cell, "time": _time, "thousands": "{:,}".format}
    measured = dict.fromkeys(calibration_of(found).measured_on for found in outcome.searches.values())
    usable = outcome.inputs.ground.usable
    noted = Counter(note for picture in usable for note in picture.notes)
    text = page.get_template("report.md.j2").render(
        outcome=outcome, inputs=outcome.inputs, cut=outcome.inputs.candidates, request=outcome.inputs.request,
        radius_m=RADIUS_M, calibrated_on="; ".join(measured), sure=sure, shown=SHOWN,
        rounds=outcome.rounds, apart_m=outcome.inputs.candidates.stride_m / math.sqrt(2), total=sum(outcome.seconds.values()),
        magnetic=noted[MAGNETIC], unreferenced=noted[UNREFERENCED], by_shape=noted[BY_SHAPE],
        crops=sum(p.kind == "panorama" and p.crop is None and p.width > 2.2 * p.height for p in usable),
        exif_fov=any(p.kind == "photo" and p.fov_source == "exif" for p in usable),
        corrected=len(outcome.inputs.truth) >= LEAST_RECALIBRATED and outcome.inputs.request.drive is None,
    )  # fmt: skip
    write_text(outcome.folder / "report.md", text)


def _cell(value: object) -> str:
    """A text that stays one cell and no markup, whatever a file's name is."""
    text = "".join(c if c.isprintable() else " " for c in str(value))
    return html.escape(text, quote=False).replace("\\", "\\\\").replace("|", "\\|").replace("`", "'")


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60)} s"
