"""`ucvgl locate`: two folders of imagery in, pictures on a map out.

`looked.look` reads the folders, `plan.plan` says what a run would do and for how long, `locate` does it: look, project,
adapt, retrieve (search.py), and write positions, map and report. Known positions, where some are given, enter in the
evaluation after everything is placed, or in training if that is asked for, never both.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from ucvgl import paths
from ucvgl.errors import InputError
from ucvgl.lab.results import device
from ucvgl.locate.confidence import recalibrated
from ucvgl.locate.located import (
    Comparison,
    Located,
    claim_folder,
    compare,
    placed_right,
    write_positions,
)
from ucvgl.locate.looked import Looked, Request, look
from ucvgl.locate.map_page import write_map_page
from ucvgl.locate.output import LEAST_RECALIBRATED, background, page_of, report_of, write_figures
from ucvgl.locate.report import Report, write_report
from ucvgl.locate.search import Search, calibration_of, place, search
from ucvgl.positions import Positions, Wgs84, to_metres


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run found and wrote.

    Args:
        folder: where everything lies.
        located: the pictures that were placed.
        report: in numbers.
        searches: by kind, for whoever wants to look closer.
    """

    folder: Path
    located: list[Located]
    report: Report
    searches: dict[str, Search]

    def text(self) -> str:
        """A few lines for people."""
        probability = np.array([one.probability for one in self.located])
        sure, truth, radius = int((probability >= 0.9).sum()), self.report.truth, self.report.radius_m
        rows = [
            f"{len(self.located):,} of {self.report.found:,} pictures placed: {sure:,} with 90 % or more, "
            f"{probability.sum():.0f} expected within {radius:g} m"
        ]
        if truth is not None:
            rows.append(
                f"of {truth.known:,} with a known position {truth.recall:.1%} within {radius:g} m, median error "
                f"{truth.median_error_m:.1f} m; calibration error {100 * truth.calibration_error:.1f} points"
            )
        rows += [f"{len(self.report.unusable):,} files left out, see report.md"] * bool(self.report.unusable)
        rows.append(f"open {self.folder / 'map.html'}")
        return "\n".join(rows)

    def summary(self) -> dict[str, Any]:
        """For machines: counts, confidence, quality, times, files."""
        probability = np.array([one.probability for one in self.located])
        truth = self.report.truth
        return {
            "out": str(self.folder),
            "files": sorted(p.name for p in self.folder.iterdir() if not p.name.startswith(".")),
            "device": device(),
            "pictures": self.report.found,
            "placed": len(self.located),
            "unusable": [{"file": file, "reason": reason} for file, reason in self.report.unusable],
            "tiles": self.report.tiles,
            "candidates": self.report.candidates,
            "expected_right": round(float(probability.sum()), 1),
            "radius_m": self.report.radius_m,
            "rounds": [asdict(one) for one in self.report.rounds],
            "seconds": dict(self.report.seconds),
            "truth": None if truth is None else asdict(truth),
        }


class _Clock:
    """Seconds of each step, in the order they were begun."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun


def locate(request: Request, *, command: str = "ucvgl locate", progress: bool = True) -> Outcome:
    """Places the pictures and writes positions, map and report to `request.out`.

    Args:
        request: what is asked for.
        command: as the report quotes it.
        progress: show bars.

    Raises:
        InputError: as `look`; an output folder that holds something else; a full disk.
    """
    folder = claim_folder(request.out)
    clock = _Clock()
    try:
        with clock.step("checking the imagery"):
            looked = look(request, progress=progress)
        given = _given(looked)
        searches = {}
        for kind in looked.kinds:
            with clock.step(f"projecting, training and searching {kind}s"):
                known = torch.tensor([given.get(p.file, -1) for p in looked.ground.of_kind(kind)]) if given else None
                searches[kind] = search(looked.ground, kind, looked.candidates, looked.config, known, progress=progress)
        untaught = {name: where for name, where in looked.truth.items() if name not in given}
        located, compared = _placed(looked, searches, untaught)
        with clock.step("drawing the map"):
            backgrounds = background(looked.mosaic)
            write_positions(folder, located)
            write_figures(folder, located, backgrounds, looked.truth, untaught)
            write_map_page(folder / "map.html", page_of(request, looked, located, searches, backgrounds))
        report = report_of(request, looked, searches, compared, len(given), command, clock.seconds)
        write_report(folder, report, located)
    except OSError as error:
        raise InputError(
            folder, expected="room and leave to write", found=error,
            todo=f"Free some of {paths.runs()} or of this disk, and run it again: what was computed is kept.",
        ) from error  # fmt: skip
    return Outcome(folder, located, report, dict(searches))


def _given(looked: Looked) -> dict[str, int]:
    """The candidate nearest to each picture whose place is to be trained on; without those far from any."""
    if not looked.labels:
        return {}
    metres = to_metres(Positions(list(looked.labels.values()), Wgs84()), looked.mosaic.origin).values
    away, index = cKDTree(looked.candidates.centre_m).query(metres)
    found = zip(looked.labels, away.tolist(), index.tolist(), strict=True)
    return {name: at for name, far, at in found if far <= looked.candidates.stride_m}


def _placed(
    looked: Looked, searches: Mapping[str, Search], truth: Mapping[str, tuple[float, float]]
) -> tuple[list[Located], Comparison | None]:
    """All pictures on the map; probabilities corrected by known positions, after these have judged the given ones."""
    plain = [place(looked.ground, looked.candidates, found, calibration_of(found)) for found in searches.values()]
    judged = [one for group in plain for one in group if one.picture in truth]
    if not judged:
        return [one for group in plain for one in group], None
    corrected = []
    for group, found in zip(plain, searches.values(), strict=True):
        right = placed_right(group, truth)
        if (~np.isnan(right)).sum() < LEAST_RECALIBRATED:
            corrected += group
            continue
        better = recalibrated(calibration_of(found), np.array([one.probability for one in group]), right)
        corrected += place(looked.ground, looked.candidates, found, better)
    return corrected, compare(judged, truth)
