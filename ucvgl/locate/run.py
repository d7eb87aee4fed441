"""`ucvgl locate`: two folders of imagery in, pictures on a map out, and a report, whose text is report.md.j2.

Known positions, if given, are used only after everything is placed.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ucvgl import paths
from ucvgl.errors import InputError
from ucvgl.lab.results import device
from ucvgl.locate import located
from ucvgl.locate.confidence import RADIUS_M, drive_order, place_together, probabilities
from ucvgl.locate.inputs import Inputs, Request, read_inputs
from ucvgl.locate.pictures import Kind, read_picture
from ucvgl.locate.search import Search, search

PICTURE_PX = 512  # longer edge at which pictures are read for the page


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run found."""

    folder: Path  # where everything lies
    command: str  # that was run
    inputs: Inputs  # what it was asked for, and what the folders hold
    searches: Mapping[Kind, Search]  # by kind of picture
    places: pd.DataFrame  # of `located.places`, the pictures that were placed
    truth: dict[str, Any] | None  # of `located.compare`, if some positions were known
    seconds: float  # of the whole run

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """Of adaptation, in order, as of `search.adapt`."""
        searches = self.searches.items()
        return [one | {"name": f"{kind}s, {one['name']}"} for kind, found in searches for one in found.rounds]

    def summary(self) -> dict[str, Any]:
        """For machines: counts, confidence, quality, time, files."""
        ground = self.inputs.ground
        return {
            "out": str(self.folder), "files": located.FILES, "device": device(),
            "pictures": len(ground.pictures) + len(ground.left_out), "placed": len(self.places),
            "unusable": [{"file": file, "reason": reason} for file, reason in self.inputs.left_out],
            "tiles": len(self.inputs.mosaic), "candidates": len(self.inputs.candidates),
            "expected_right": round(self.places["probability"].sum(), 1), "radius_m": RADIUS_M, "rounds": self.rounds,
            "seconds": self.seconds, "truth": self.truth,
        }  # fmt: skip

    def text(self) -> str:
        """A few lines for people."""
        return located.rendered("outcome.txt.j2", outcome=self, radius_m=RADIUS_M)

    def report(self) -> str:
        """Counts, how sure, quality by round, against the truth, what would help: Markdown."""
        return located.rendered("report.md.j2", outcome=self, radius_m=RADIUS_M)


def locate(request: Request, *, command: str = "ucvgl locate") -> Outcome:
    """Places the pictures and writes positions, map and report, which quotes the command, to `request.out`. InputError:
    as `read_inputs`; an output folder that holds something else; a full disk."""
    begun, folder = time.perf_counter(), located.check_folder(request.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        inputs = read_inputs(request)
        kinds = sorted({picture.kind for picture in inputs.ground.pictures})
        searches = {kind: search(inputs, kind) for kind in kinds}
        places = pd.concat([place(found, inputs) for found in searches.values()], ignore_index=True)
        located.write_positions(folder, places)
        paths.write_text(folder / "map.html", page_of(inputs, places, searches))
        truth = located.compare(places, inputs.truth) if inputs.truth else None
        outcome = Outcome(folder, command, inputs, searches, places, truth, time.perf_counter() - begun)
        paths.write_text(folder / "report.md", outcome.report())
    except OSError as error:
        todo = f"Free some of {paths.runs()} or of this disk, and run it again: what was computed is kept."
        raise InputError(folder, "room and leave to write", error, todo) from error
    return outcome


def place(found: Search, inputs: Inputs) -> pd.DataFrame:
    """A search's pictures on the map, each alone or all together: a table of `located.places`."""
    request, candidates = inputs.request, inputs.candidates
    if request.drive is None:
        best, score = found.evidence.best, found.evidence.score
        return located.places(found.pictures, candidates, best, score, probabilities(found.calibration, found.evidence))
    order, reach_m = drive_order(found.pictures, request.drive, request.speed_m_s, request.step_m)
    best, score = place_together(found.cosines, found.calibration.scale, order, reach_m, candidates)
    return located.places(found.pictures, candidates, best, score, score[:, 0])


def page_of(inputs: Inputs, places: pd.DataFrame, searches: Mapping[Kind, Search]) -> str:
    """map.html of a run, with pictures read again at a small size."""
    pictures = [picture for found in searches.values() for picture in found.pictures]  # in the order of `places`
    views = [view for found in searches.values() for view in found.images.top_view]
    tiles = inputs.candidates.images
    row = {tile: i for i, tile in enumerate(tiles.ids)}
    background = located.background_of(inputs.mosaic)
    return located.map_page(
        places, background, ground=lambda i: read_picture(inputs.ground, pictures[i], PICTURE_PX),
        top=views.__getitem__, tile=lambda name: tiles.read(row[name]),
        title=f"Where the pictures of {Path(inputs.ground.root).resolve().name} were taken",
    )  # fmt: skip
