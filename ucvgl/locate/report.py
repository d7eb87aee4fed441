"""report.md: what happened in a run, in numbers, and what would help. Its text is report.md.j2 beside this file."""

import html
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ucvgl.lab.results import device
from ucvgl.locate.confidence import RADIUS_M
from ucvgl.locate.inputs import Inputs
from ucvgl.locate.pictures import Kind
from ucvgl.locate.search import Search, calibration_of
from ucvgl.paths import write_text

LEAST = (0.95, 0.9, 0.75, 0.5, 0.0)  # probabilities that the report counts from
LEAST_RECALIBRATED = 20  # known positions from which on the probabilities are corrected by them


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run found."""

    folder: Path  # where everything lies
    command: str  # that was run
    inputs: Inputs  # what it was asked for, and what the folders hold
    searches: Mapping[Kind, Search]  # by kind of picture
    places: pd.DataFrame  # of `located.places`, the pictures that were placed
    truth: dict[str, Any] | None  # of `located.compare`, if some positions were known
    labels: int  # positions that were trained on
    seconds: Mapping[str, float]  # step -> seconds, in order

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """Of adaptation, in order; `adapt.MEASURES` by name."""
        named = ((f"{kind}s, " * (len(self.searches) > 1), found.rounds) for kind, found in self.searches.items())
        return [one | {"name": kind + one["name"]} for kind, rounds in named for one in rounds]

    @property
    def unusable(self) -> list[tuple[str, str]]:
        """File and reason of each that was left out, pictures and tiles."""
        pictures = [(picture.file, picture.reason_unusable or "") for picture in self.inputs.ground.unusable]
        return [*pictures, *self.inputs.mosaic.unreadable]

    def text(self) -> str:
        """A few lines for people."""
        p = self.places["probability"]
        rows = [
            f"{len(p):,} of {len(self.inputs.ground.pictures):,} pictures placed: {(p >= 0.9).sum()} with 90 % or more, "
            f"{p.sum():.0f} expected within {RADIUS_M:g} m"
        ]
        if self.truth is not None:
            rows.append(
                f"of {self.truth['known']:,} with a known position {self.truth['recall']:.1%} within {RADIUS_M:g} m, median "
                f"error {self.truth['median_error_m']:.1f} m; calibration error "
                f"{100 * self.truth['calibration_error']:.1f} points"
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
            "placed": len(self.places),
            "unusable": [{"file": file, "reason": reason} for file, reason in self.unusable],
            "tiles": len(self.inputs.mosaic),
            "candidates": len(self.inputs.candidates),
            "expected_right": round(self.places["probability"].sum(), 1),
            "radius_m": RADIUS_M,
            "rounds": self.rounds,
            "seconds": dict(self.seconds),
            "truth": self.truth,
        }


def write_report(outcome: Outcome) -> None:
    """Writes report.md, atomically: counts, how sure, quality by round, against the truth, what would help, time spent."""
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    page.filters |= {"cell": _cell, "time": _time, "thousands": "{:,}".format}
    p, usable = outcome.places["probability"], outcome.inputs.ground.usable
    text = page.get_template("report.md.j2").render(
        outcome=outcome, inputs=outcome.inputs, cut=outcome.inputs.candidates, request=outcome.inputs.request,
        radius_m=RADIUS_M, rounds=outcome.rounds, sure=[(least, p[p >= least]) for least in LEAST],
        calibrated_on=dict.fromkeys(calibration_of(found).measured_on for found in outcome.searches.values()),
        noted=Counter(note for picture in usable for note in picture.notes),
        crops=sum(one.kind == "panorama" and one.crop is None and one.width > 2.2 * one.height for one in usable),
        corrected=len(outcome.inputs.truth) >= LEAST_RECALIBRATED and outcome.inputs.request.drive is None,
    )  # fmt: skip
    write_text(outcome.folder / "report.md", text)


def _cell(value: object) -> str:
    """A text that stays one cell and no markup, whatever a file's name is."""
    text = "".join(c if c.isprintable() else " " for c in str(value))
    return html.escape(text, quote=False).replace("\\", "\\\\").replace("|", "\\|").replace("`", "'")


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60)} s"
