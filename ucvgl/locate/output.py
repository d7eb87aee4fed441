"""What a run of `ucvgl locate` leaves behind beside the positions: the map as a page and as a figure, and the report."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from ucvgl.errors import InputError
from ucvgl.locate.candidates import cut
from ucvgl.locate.located import WRITTEN as POSITIONS
from ucvgl.locate.located import Comparison, Located, placed_right
from ucvgl.locate.looked import Looked, Request
from ucvgl.locate.map_figures import reliability_diagram, result_map
from ucvgl.locate.map_page import Background, PageSettings, map_page
from ucvgl.locate.pictures import BY_SHAPE, MAGNETIC, UNREFERENCED, Kind
from ucvgl.locate.report import Report, Round
from ucvgl.locate.search import Search, calibration_of
from ucvgl.locate.tiles import Mosaic
from ucvgl.locate.views import read_picture
from ucvgl.positions import from_metres

# squares along the longer edge of the map's background; whole ones fit, so up to half a one is lost at an edge
BACKGROUND_PARTS = 48
BACKGROUND_PX = 2048
GREY = 214  # of the ground without tiles
PICTURE_PX = 512  # longer edge at which pictures are read for the page
LEAST_RECALIBRATED = 20  # known positions from which on the probabilities are corrected by them
WRITTEN = (*POSITIONS, "map.html", "map.png", "report.md")
RELIABILITY = "reliability.png"  # only where enough positions are known


def background(tiles: Mosaic, longest_px: int = BACKGROUND_PX) -> list[Background]:
    """The tiles as one picture, north up, of squares side by side; grey where no tile is."""
    low, high = tiles.bounds_m
    edge = min(float(max(high - low)) / BACKGROUND_PARTS, float(min(high - low)))
    size = max(16, longest_px // BACKGROUND_PARTS)
    parts = cut(tiles, edge, edge, size, least_covered=0.02)
    corner = parts.centre_m.min(0) - edge / 2
    columns, rows = np.round((parts.centre_m.max(0) - corner) / edge + 0.5).astype(int)
    sheet = torch.full((3, rows * size, columns * size), GREY, dtype=torch.uint8)
    for k, (east, north) in enumerate(np.round((parts.centre_m - corner) / edge - 0.5).astype(int).tolist()):
        top, left = (rows - 1 - north) * size, east * size
        sheet[:, top : top + size, left : left + size] = parts.read(k)
    (south, west), (north, east) = from_metres(
        np.stack([corner, corner + edge * np.array([columns, rows])]), tiles.origin
    )
    return [Background(sheet, float(south), float(west), float(north), float(east))]


def page_of(
    request: Request, looked: Looked, located: list[Located], searches: Mapping[str, Search],
    backgrounds: list[Background],
) -> str:  # fmt: skip
    """The page, with pictures read again at a small size."""
    row = {tile: i for i, tile in enumerate(looked.candidates.ids)}
    picture = {one.file: one for one in looked.ground.pictures}
    views = {
        one.file: view
        for found in searches.values()
        for one, view in zip(looked.ground.of_kind(found.kind), found.images.top_view, strict=True)
    }

    def read(i: int) -> Tensor | None:
        try:
            return read_picture(looked.ground, picture[located[i].picture], PICTURE_PX)
        except InputError:  # gone meanwhile; its place is known all the same
            return None

    return map_page(
        located, backgrounds, title=f"Where the pictures of {Path(request.ground).resolve().name} were taken",
        ground=read, top=lambda i: views[located[i].picture], tile=lambda name: looked.candidates.read(row[name]),
        settings=PageSettings(),
    )  # fmt: skip


def write_figures(
    folder: Path, located: list[Located], backgrounds: list[Background], truth: Mapping[str, tuple[float, float]],
    untaught: Mapping[str, tuple[float, float]],
) -> None:  # fmt: skip
    """map.png, and where enough positions are known reliability.png; one of an earlier run goes, it shows other places."""
    _write_figure(folder / "map.png", result_map(located, backgrounds, truth=truth or None))
    right = placed_right(located, untaught)
    if (~np.isnan(right)).sum() < LEAST_RECALIBRATED:
        (folder / RELIABILITY).unlink(missing_ok=True)
        return
    probability = np.array([one.probability for one in located])
    _write_figure(folder / RELIABILITY, reliability_diagram({"this imagery": (probability, right)}, bins=5))


def _write_figure(path: Path, figure: plt.Figure) -> None:
    partial = path.with_name(f".{path.name}.partial.png")
    try:
        figure.savefig(partial, dpi=130)
        partial.replace(path)
    finally:
        plt.close(figure)
        partial.unlink(missing_ok=True)  # a full disk, Ctrl-C


def report_of(
    request: Request, looked: Looked, searches: Mapping[str, Search], truth: Comparison | None, taught: int, command: str,
    seconds: Mapping[str, float],
) -> Report:  # fmt: skip
    """All numbers of the report."""
    where = looked.candidates.positions.values
    (south, west), (north, east) = where.min(0), where.max(0)
    used = [calibration_of(found) for found in searches.values()]
    several = len(searches) > 1
    rounds = [
        replace(one, name=f"{kind}s, {one.name}" if several else one.name)
        for kind, found in searches.items()
        for one in found.rounds
    ]
    return Report(
        command=command,
        found=len(looked.ground.pictures),
        unusable=(*((p.file, p.reason_unusable or "") for p in looked.ground.unusable), *looked.mosaic.unreadable),
        tiles=len(looked.mosaic.files),
        candidates=len(looked.candidates),
        span_m=looked.candidates.span_m,
        stride_m=looked.candidates.stride_m,
        area=(float(south), float(west), float(north), float(east)),
        calibrated_on="; ".join(dict.fromkeys(one.measured_on for one in used)),
        radius_m=used[0].settings.radius_m,
        rounds=tuple(rounds),
        seconds=tuple(seconds.items()),
        assumptions=tuple(_assumptions(request, looked, searches, taught)),
        truth=truth,
    )


def _assumptions(request: Request, looked: Looked, searches: Mapping[str, Search], taught: int) -> list[str]:
    """What was estimated or taken for granted, a sentence each."""
    said = [f"the camera stood {request.camera_height_m:g} m above flat ground (--camera-height)", *looked.mosaic.notes]
    noted = Counter(note for picture in looked.ground.usable for note in picture.notes)
    if noted[MAGNETIC]:
        said.append(
            f"the headings of {noted[MAGNETIC]:,} pictures are magnetic (EXIF says so) and off by the declination of this place"
        )
    if noted[UNREFERENCED]:
        said.append(
            f"the headings of {noted[UNREFERENCED]:,} pictures come from EXIF that does not say whether they are true or magnetic"
        )
    if noted[BY_SHAPE]:
        said.append(
            f"{noted[BY_SHAPE]:,} pictures are panoramas by their shape alone: their tags do not say so, and their edges do not "
            "meet (--kind photo, and --fov, if they are photos)"
        )
    for kind, found in searches.items():
        blind = int((~found.known).sum())
        if blind:
            said.append(
                f"the headings of {blind:,} {kind}s were searched for among {request.turns} turns; a picture with a known "
                "heading is found more often (--heading, or a table)"
            )
        said.append(_kept(kind, found.rounds, request.epochs))
    if request.heading_deg is not None:
        said.append(f"pictures that do not say their heading show {request.heading_deg:g} degrees in their centre")
    crops = [p for p in looked.ground.usable if p.kind == "panorama" and p.crop is None and p.width > 2.2 * p.height]
    if crops:
        said.append(
            f"the {len(crops):,} panoramas cut at top and bottom have their horizon {request.crop_offset_px} px below "
            "their middle (--crop-offset)"
        )
    sources = {p.fov_source for p in looked.ground.usable if p.kind == "photo"}
    if "exif" in sources:
        said.append("fields of view come from the focal lengths in EXIF, an estimate")
    if request.checkpoint != "world":
        said.append(
            "probabilities were fitted with the committed encoders; with others they are a guess, to be checked with --truth"
        )
    if request.truth is not None and len(looked.truth) >= LEAST_RECALIBRATED:
        said.append(
            "probabilities in positions.csv were corrected by the known positions; the table above judges them as they "
            "were before that"
        )
    if request.labels is not None:
        said.append(
            f"{taught:,} positions of --labels were trained on and take no part in the evaluation; "
            f"{len(looked.labels) - taught:,} others lie where no candidate is"
        )
    return said


def _kept(kind: Kind, rounds: Sequence[Round], epochs: int) -> str:
    """Which encoders placed the pictures; as `adapt` chooses them."""
    if epochs == 0:
        return f"the encoders placed the {kind}s as they came (--epochs 0)"
    if len(rounds) == 1:
        return f"no pseudo-label was found among the {kind}s, so the encoders stayed as they came"
    best = max(range(len(rounds)), key=lambda number: (rounds[number].mutual_rate, number))
    return f"of the encoders for {kind}s those kept are: {rounds[best].name}, which has the most mutual matches"
