"""`ucvgl locate`: two folders of imagery in, pictures on a map out.

`inputs.read_inputs` reads the folders, `plan` says what a run would do and for how long, `locate` does it: read, project,
adapt, retrieve (search.py), and write positions, map and report. Known positions, where some are given, enter in the
evaluation after everything is placed, or in training if that is asked for, never both.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ucvgl import paths
from ucvgl.encoders import embed, open_model
from ucvgl.errors import InputError
from ucvgl.lab.results import device as device_words
from ucvgl.locate.chain import place_together
from ucvgl.locate.confidence import place_alone, recalibrated
from ucvgl.locate.inputs import Inputs, Request, read_inputs
from ucvgl.locate.located import (
    WRITTEN,
    Comparison,
    Located,
    Truth,
    claim_folder,
    compare,
    placed_right,
    write_positions,
)
from ucvgl.locate.map_figures import result_map, save
from ucvgl.locate.map_page import Background, background_of, map_page
from ucvgl.locate.pictures import Kind
from ucvgl.locate.report import LEAST_RECALIBRATED, Outcome, write_report
from ucvgl.locate.search import Search, calibration_of, place, search
from ucvgl.locate.views import read_picture
from ucvgl.methods.common import EMBED_BATCH, device
from ucvgl.positions import Positions, Wgs84, to_metres

PICTURE_PX = 512  # longer edge at which pictures are read for the page
TRAINING_COST = 8.0  # a training step against embedding its images once; for the estimate alone


def plan(inputs: Inputs) -> dict[str, Any]:
    """What a run would read, train and write, and about how long its encoders would take, by timing a few tiles here."""
    pictures = {kind: len(inputs.ground.of_kind(kind)) for kind in inputs.kinds}
    searched = {kind: int(np.isnan(inputs.ground.headings(kind)).sum()) for kind in inputs.kinds}
    count, tiles, epochs = sum(pictures.values()), len(inputs.candidates), inputs.request.epochs
    # before each mining, and in four quarter turns; then headings, then steps of pairs
    images = (count + tiles * len(pictures)) * (epochs + 4) + sum(searched.values()) * inputs.request.turns
    images += TRAINING_COST * 2 * count * epochs
    return {
        "device": device_words(),
        "pictures": pictures,
        "without_heading": searched,
        "unusable": len(inputs.ground.unusable) + len(inputs.mosaic.unreadable),
        "tiles": len(inputs.mosaic.files),
        "candidates": tiles,
        "epochs": epochs,
        "seconds": round(images * _seconds_a_tile(inputs), 1),
        "writes": [str(inputs.request.out / name) for name in (*WRITTEN, "map.html", "map.png", "report.md")],
    }


def plan_text(found: Mapping[str, Any]) -> str:
    """The plan for people."""
    pictures = ", ".join(f"{n:,} {kind}s" for kind, n in found["pictures"].items())
    without, seconds = sum(found["without_heading"].values()), found["seconds"]
    rows = [
        f"Would place {pictures} among {found['candidates']:,} candidates, on {found['device']}.",
        f"Would search the heading of {without:,} of them." if without else "All headings are known or stated.",
        f"Would train for {found['epochs']} epochs.",
        f"Its encoders would take about {f'{seconds:.0f} s' if seconds < 90 else f'{seconds / 60:.0f} minutes'}.",
        "Would write " + ", ".join(found["writes"]) + ".",
    ]
    return "\n".join(rows)


def _seconds_a_tile(inputs: Inputs) -> float:
    """Of embedding; the second time, since the first warms up."""
    encoder = open_model(inputs.adapt.start).to(device(), memory_format=torch.channels_last).satellite
    tiles = torch.stack([inputs.candidates.read(i) for i in range(min(64, len(inputs.candidates)))])
    for _ in range(2):
        begun = time.perf_counter()
        embed(encoder, tiles.split(EMBED_BATCH))
        seconds = time.perf_counter() - begun
    return seconds / len(tiles)


def locate(request: Request, *, command: str = "ucvgl locate", progress: bool = True) -> Outcome:
    """Places the pictures and writes positions, map and report to `request.out`.

    Args:
        request: what is asked for.
        command: as the report quotes it.
        progress: show bars.

    Raises:
        InputError: as `read_inputs`; an output folder that holds something else; a full disk.
    """
    folder = claim_folder(request.out)
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(step: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        seconds[step] = time.perf_counter() - begun

    try:
        with timed("checking the imagery"):
            inputs = read_inputs(request, progress=progress)
        labels = label_candidates(inputs)
        searches: dict[Kind, Search] = {}
        for kind in inputs.kinds:
            with timed(f"projecting, training and searching {kind}s"):
                known = torch.tensor([labels.get(p.file, -1) for p in inputs.ground.of_kind(kind)]) if labels else None
                searches[kind] = search(inputs, kind, known, progress=progress)
        untaught = {name: where for name, where in inputs.truth.items() if name not in labels}
        located, compared = _placed(inputs, searches, untaught)
        with timed("drawing the map"):
            background = background_of(inputs.mosaic)
            write_positions(folder, located)
            save(result_map(located, background, truth=inputs.truth or None), folder / "map.png")
            paths.write_text(folder / "map.html", _page(inputs, located, searches, background))
        outcome = Outcome(folder, command, inputs, searches, located, compared, len(labels), seconds)
        write_report(outcome)
    except OSError as error:
        raise InputError(
            folder, expected="room and leave to write", found=error,
            todo=f"Free some of {paths.runs()} or of this disk, and run it again: what was computed is kept.",
        ) from error  # fmt: skip
    return outcome


def label_candidates(inputs: Inputs) -> dict[str, int]:
    """The candidate nearest to each picture whose place is to be trained on; without those far from any."""
    if not inputs.labels:
        return {}
    metres = to_metres(Positions(list(inputs.labels.values()), Wgs84()), inputs.mosaic.origin).values
    away, index = cKDTree(inputs.candidates.centre_m).query(metres)
    found = zip(inputs.labels, away.tolist(), index.tolist(), strict=True)
    return {name: at for name, far, at in found if far <= inputs.candidates.stride_m}


def _placed(inputs: Inputs, searches: Mapping[Kind, Search], truth: Truth) -> tuple[list[Located], Comparison | None]:
    """All pictures on the map; probabilities corrected by known positions, after these have judged the given ones."""
    located, judged, drive = [], [], inputs.request.drive
    for found in searches.values():
        calibration = calibration_of(found)
        if drive is None:
            placement = place_alone(calibration, found.evidence)
        else:
            order, reach_m = drive.order(found.pictures)
            placement = place_together(found.cosines, calibration.scale, order, reach_m, inputs.candidates)
        group = place(inputs.candidates, found, placement)
        right = placed_right(group, truth)[:, 0]
        judged += [one for one in group if one.picture in truth]
        if drive is None and (~np.isnan(right)).sum() >= LEAST_RECALIBRATED:
            better = recalibrated(calibration, np.array([one.probability for one in group]), right)
            group = place(inputs.candidates, found, place_alone(better, found.evidence))
        located += group
    return located, compare(judged, truth) if judged else None


def _page(inputs: Inputs, located: list[Located], searches: Mapping[Kind, Search], background: Background) -> str:
    """The page, with pictures read again at a small size."""
    row = {tile: i for i, tile in enumerate(inputs.candidates.ids)}
    pictures = [picture for found in searches.values() for picture in found.pictures]  # in the order of `located`
    views = [view for found in searches.values() for view in found.images.top_view]

    def read(i: int) -> Tensor | None:
        try:
            return read_picture(inputs.ground, pictures[i], PICTURE_PX)
        except InputError:  # gone meanwhile; its place is known all the same
            return None

    return map_page(
        located, background, title=f"Where the pictures of {Path(inputs.request.ground).resolve().name} were taken",
        ground=read, top=views.__getitem__, tile=lambda name: inputs.candidates.read(row[name]),
    )  # fmt: skip
