"""`ucvgl locate`: two folders of imagery in, pictures on a map out.

`inputs.read_inputs` reads the folders, `plan` says what a run would do and for how long, `locate` does it: read, project,
adapt, retrieve (search.py), and write positions, map and report. Known positions, where some are given, enter in the
evaluation after everything is placed, or in training if that is asked for, never both.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ucvgl import paths
from ucvgl.encoders import embed, open_model
from ucvgl.errors import InputError
from ucvgl.lab.results import device as device_words
from ucvgl.locate import located
from ucvgl.locate.chain import drive_order, place_together
from ucvgl.locate.confidence import place_alone, recalibrated
from ucvgl.locate.figures import result_map, save
from ucvgl.locate.inputs import Inputs, Request, read_inputs
from ucvgl.locate.map_page import Background, background_of, map_page
from ucvgl.locate.pictures import Kind
from ucvgl.locate.report import LEAST_RECALIBRATED, Outcome, write_report
from ucvgl.locate.search import Search, calibration_of, search
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
    encoder = open_model(inputs.adapt.start).to(device(), memory_format=torch.channels_last).satellite
    some = torch.stack([inputs.candidates.read(i) for i in range(min(64, tiles))])
    for _ in range(2):  # the first warms up
        begun = time.perf_counter()
        embed(encoder, some.split(EMBED_BATCH))
        seconds = time.perf_counter() - begun
    return {
        "device": device_words(),
        "pictures": pictures,
        "without_heading": searched,
        "unusable": len(inputs.ground.unusable) + len(inputs.mosaic.unreadable),
        "tiles": len(inputs.mosaic),
        "candidates": tiles,
        "epochs": epochs,
        "seconds": round(images * seconds / len(some), 1),
        "writes": [str(inputs.request.out / name) for name in (*located.WRITTEN, "map.html", "map.png", "report.md")],
    }


def locate(request: Request, *, command: str = "ucvgl locate", progress: bool = True) -> Outcome:
    """Places the pictures and writes positions, map and report to `request.out`.

    Args:
        request: what is asked for.
        command: as the report quotes it.
        progress: show bars.

    Raises:
        InputError: as `read_inputs`; an output folder that holds something else; a full disk.
    """
    folder = located.claim_folder(request.out)
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
        places, compared = _placed(inputs, searches, untaught)
        with timed("drawing the map"):
            background = background_of(inputs.mosaic)
            located.write_positions(folder, places)
            save(result_map(places, background, truth=inputs.truth), folder / "map.png")
            paths.write_text(folder / "map.html", _page(inputs, places, searches, background))
        outcome = Outcome(folder, command, inputs, searches, places, compared, len(labels), seconds)
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


def _placed(
    inputs: Inputs, searches: Mapping[Kind, Search], truth: located.Truth
) -> tuple[pd.DataFrame, dict[str, Any] | None]:
    """All pictures on the map; probabilities corrected by known positions, after these have judged the given ones."""
    placed, judged, request = [], [], inputs.request
    for found in searches.values():
        calibration, candidates = calibration_of(found), inputs.candidates
        known = found.pictures, found.headings_deg.numpy(), found.known.tolist(), candidates
        if request.drive is None:
            placement = place_alone(calibration, found.evidence)
        else:
            order, reach_m = drive_order(found.pictures, request.drive, request.speed_m_s, request.step_m)
            placement = place_together(found.cosines, calibration.scale, order, reach_m, candidates)
        group = located.places(*known, placement)
        right = located.placed_right(group, truth)[:, 0]
        judged.append(group[~np.isnan(right)])
        if request.drive is None and (~np.isnan(right)).sum() >= LEAST_RECALIBRATED:
            better = recalibrated(calibration, group["probability"].to_numpy(), right)
            group = located.places(*known, place_alone(better, found.evidence))
        placed.append(group)
    known_ones = pd.concat(judged, ignore_index=True)
    return pd.concat(placed, ignore_index=True), located.compare(known_ones, truth) if len(known_ones) else None


def _page(inputs: Inputs, places: pd.DataFrame, searches: Mapping[Kind, Search], background: Background) -> str:
    """The page, with pictures read again at a small size."""
    row = {tile: i for i, tile in enumerate(inputs.candidates.ids)}
    pictures = [picture for found in searches.values() for picture in found.pictures]  # in the order of `places`
    views = [view for found in searches.values() for view in found.images.top_view]

    def read(i: int) -> Tensor | None:
        with suppress(InputError):  # gone meanwhile; its place is known all the same
            return read_picture(inputs.ground, pictures[i], PICTURE_PX)
        return None

    return map_page(
        places, background, title=f"Where the pictures of {Path(inputs.request.ground).resolve().name} were taken",
        ground=read, top=views.__getitem__, tile=lambda name: inputs.candidates.read(row[name]),
    )  # fmt: skip
