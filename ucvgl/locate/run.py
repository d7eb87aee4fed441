"""`ucvgl locate`: two folders of imagery in, pictures on a map out, and a report, whose text is report.md.j2.

Known positions, if given, are used only after everything is placed.
"""

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from ucvgl import paths
from ucvgl.errors import InputError
from ucvgl.lab.results import device
from ucvgl.locate import located
from ucvgl.locate.chain import drive_order, place_together
from ucvgl.locate.confidence import RADIUS_M, probabilities, recalibrated
from ucvgl.locate.inputs import Inputs, Request, read_inputs
from ucvgl.locate.map_page import background_of, map_page, rendered
from ucvgl.locate.pictures import Kind
from ucvgl.locate.search import Search, search
from ucvgl.locate.views import read_picture

PICTURE_PX = 512  # longer edge at which pictures are read for the page
LEAST_RECALIBRATED = 20  # known positions from which on the probabilities are corrected by them


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run found."""

    folder: Path  # where everything lies
    command: str  # that was run
    inputs: Inputs  # what it was asked for, and what the folders hold
    searches: Mapping[Kind, Search]  # by kind of picture
    places: pd.DataFrame  # of `located.places`, the pictures that were placed
    truth: dict[str, Any] | None  # of `located.compare`, before any correction, if some positions were known
    seconds: float  # of the whole run

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """Of adaptation, in order, as of `adapt.adapt`."""
        searches = self.searches.items()
        return [one | {"name": f"{kind}s, {one['name']}"} for kind, found in searches for one in found.rounds]

    @property
    def unusable(self) -> list[tuple[str, str]]:
        """File and reason of each that was left out, pictures and tiles."""
        pictures = [(picture.file, picture.reason_unusable or "") for picture in self.inputs.ground.unusable]
        return [*pictures, *self.inputs.mosaic.unreadable]

    def summary(self) -> dict[str, Any]:
        """For machines: counts, confidence, quality, time, files."""
        return {
            "out": str(self.folder), "files": sorted(p.name for p in self.folder.glob("[!.]*")), "device": device(),
            "pictures": len(self.inputs.ground.pictures), "placed": len(self.places),
            "unusable": [{"file": file, "reason": reason} for file, reason in self.unusable],
            "tiles": len(self.inputs.mosaic), "candidates": len(self.inputs.candidates),
            "expected_right": round(self.places["probability"].sum(), 1), "radius_m": RADIUS_M, "rounds": self.rounds,
            "seconds": self.seconds, "truth": self.truth,
        }  # fmt: skip

    def text(self) -> str:
        """A few lines for people."""
        return rendered("outcome.txt.j2", outcome=self, p=self.places["probability"], radius_m=RADIUS_M).rstrip()


def locate(request: Request, *, command: str = "ucvgl locate", progress: bool = True) -> Outcome:
    """Places the pictures and writes positions, map and report, which quotes the command, to `request.out`.

    InputError: as `read_inputs`; an output folder that holds something else; a full disk.
    """
    begun, folder = time.perf_counter(), located.claim_folder(request.out)
    try:
        inputs = read_inputs(request, progress=progress)
        searches = {kind: search(inputs, kind, progress=progress) for kind in inputs.kinds}
        places = pd.concat([place(found, inputs) for found in searches.values()], ignore_index=True)
        truth = located.compare(places, inputs.truth) if inputs.truth else None
        if request.drive is None and len(inputs.truth) >= LEAST_RECALIBRATED:
            right = located.placed_right(places, inputs.truth)[:, 0]
            places["probability"] = recalibrated(places["probability"].to_numpy(), right)
        places["probability"] = places["probability"].round(4)
        located.write_positions(folder, places)
        paths.write_text(folder / "map.html", page_of(inputs, places, searches))
        outcome = Outcome(folder, command, inputs, searches, places, truth, time.perf_counter() - begun)
        write_report(outcome)
    except OSError as error:
        raise InputError(
            folder, expected="room and leave to write", found=error,
            todo=f"Free some of {paths.runs()} or of this disk, and run it again: what was computed is kept.",
        ) from error  # fmt: skip
    return outcome


def place(found: Search, inputs: Inputs) -> pd.DataFrame:
    """A search's pictures on the map, each alone or all together: a table of `located.places`."""
    request, candidates = inputs.request, inputs.candidates
    if request.drive is None:
        _, best, score = found.evidence
        return located.places(found.pictures, candidates, best, score, probabilities(found.calibration, found.evidence))
    order, reach_m = drive_order(found.pictures, request.drive, request.speed_m_s, request.step_m)
    best, score = place_together(found.cosines, found.calibration.scale, order, reach_m, candidates)
    return located.places(found.pictures, candidates, best, score, score[:, 0])


def page_of(inputs: Inputs, places: pd.DataFrame, searches: Mapping[Kind, Search]) -> str:
    """map.html of a run, with pictures read again at a small size."""
    pictures = [picture for found in searches.values() for picture in found.pictures]  # in the order of `places`
    views = [view for found in searches.values() for view in found.images.top_view]
    row = {tile: i for i, tile in enumerate(inputs.candidates.ids)}

    def read(i: int) -> Tensor | None:
        with suppress(InputError):  # gone meanwhile; its place is known all the same
            return read_picture(inputs.ground, pictures[i], PICTURE_PX)
        return None

    return map_page(
        places, background_of(inputs.mosaic), ground=read, top=views.__getitem__,
        tile=lambda name: inputs.candidates.read(row[name]),
        title=f"Where the pictures of {Path(inputs.request.ground).resolve().name} were taken",
    )  # fmt: skip


def write_report(outcome: Outcome) -> None:
    """Writes report.md, atomically: counts, how sure, quality by round, against the truth, what would help."""
    usable = outcome.inputs.ground.usable
    text = rendered(
        "report.md.j2", outcome=outcome, inputs=outcome.inputs, cut=outcome.inputs.candidates, radius_m=RADIUS_M,
        request=outcome.inputs.request, rounds=outcome.rounds, p=outcome.places["probability"],
        noted=Counter(note for picture in usable for note in picture.notes),
        crops=sum(one.kind == "panorama" and one.crop is None and one.width > 2.2 * one.height for one in usable),
        corrected=len(outcome.inputs.truth) >= LEAST_RECALIBRATED and outcome.inputs.request.drive is None,
    )  # fmt: skip
    paths.write_text(outcome.folder / "report.md", text)
