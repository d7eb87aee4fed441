"""The request to `ucvgl locate` and the contents of its folders, checked before anything is trained or written."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ucvgl.data.files import read_position_table, table_rows
from ucvgl.data.folders import looks_swapped
from ucvgl.encoders import open_model
from ucvgl.errors import InputError, check_number
from ucvgl.geometry import TopView
from ucvgl.locate.confidence import drive_order
from ucvgl.locate.pictures import Ground, Kind, check_ground
from ucvgl.locate.tile_names import Scheme
from ucvgl.locate.tiles import SPAN_M, Candidates, cut, open_mosaic
from ucvgl.positions import Positions, Wgs84, haversine

WORLD_WEIGHTS = Path(__file__).parents[1] / "weights" / "world.safetensors"  # of scripts/make_weights.py
FAR_KM = 100  # from all tiles: no position of this city
Truth = Mapping[str, tuple[float, float]]  # latitude and longitude of some pictures, by their files' names


@dataclass(frozen=True)
class AdaptConfig:
    """How encoders are trained on one's own imagery."""

    start: str  # a checkpoint's path
    start_digest: str  # of that file, so that another file under its name is another training
    epochs: int  # of step 5; 0 leaves the encoders as they come
    seed: int = 0  # of everything random
    given: Literal["top view"] = "top view"  # what the ground encoder reads
    learning_rate: float = 2e-4  # gentler than from scratch (2e-3), since the encoders know something already
    batch_size: int = 64  # pairs
    # part of the mutual matches that is believed at first, the best margins; it grows to all. UCVGL's threshold is for
    # one kind of encoder. In a city of the world 83 % of a tenth are right, 68 % of a quarter, 44 % of all
    keep: float = 0.25


@dataclass(frozen=True)
class Request:
    """What is asked for; each field is an option of the command."""

    ground: Path  # folder of street pictures
    tiles: Path  # folder of satellite tiles
    out: Path  # folder to write
    ground_table: Path | None = None  # CSV with file and heading_deg, fov_deg or both
    tiles_table: Path | None = None  # CSV with file, latitude, longitude, and metres_per_pixel or span_m
    kind: Kind | None = None  # of all pictures, where their shape does not tell
    fov_deg: float | None = None  # of the photos that do not say theirs
    heading_deg: float | None = None  # of the pictures that do not say theirs; None searches for it
    camera_height_m: float = 2.5  # above the ground
    scheme: Scheme | None = None  # of tile names: 'xyz', 'tms' (rows from the south) or 'zyx' (ArcGIS); None: what fits
    epsg: int | None = None  # of tiles that do not say theirs
    span_m: float = SPAN_M  # edge of a candidate
    stride_m: float | None = None  # between candidates; None: a quarter of the span
    checkpoint: str = "world"  # 'world', the committed encoders; or a file
    epochs: int = 0  # of training on this imagery: worth it where few pictures and candidates choose each other
    truth: Path | None = None  # CSV of known positions, to evaluate by
    seed: int = 0  # of everything random
    drive: Literal["time", "name"] | None = None  # order of a drive, to be placed together; None: each alone
    speed_m_s: float = 15.0  # of a drive by time: at most, between two time stamps
    step_m: float = 50.0  # of a drive by name: at most, between two pictures

    def __post_init__(self) -> None:
        for name in ("fov_deg", "camera_height_m", "span_m", "stride_m", "speed_m_s", "step_m"):
            if (value := getattr(self, name)) is not None:
                check_number(name, value, low=0, high=180 if name == "fov_deg" else np.inf)
        if self.heading_deg is not None:
            check_number("heading_deg", self.heading_deg)


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the folders hold, and how it will be searched."""

    request: Request
    ground: Ground
    candidates: Candidates
    adapt: AdaptConfig  # where the encoders come from, and how they are trained on this imagery
    view: TopView  # that pictures are projected to
    truth: Truth


def read_inputs(request: Request) -> Inputs:
    """Checks both folders, the tables and the checkpoint; nothing is trained or written. InputError: nothing usable in
    a folder, tiles without positions, a checkpoint that is none, a damaged table, known positions of other pictures."""
    # by the same name from wherever the command is called: trainings are kept under it
    path = WORLD_WEIGHTS if request.checkpoint == "world" else Path(request.checkpoint).expanduser().resolve()
    reads, tile_px = (encoder.image_px for encoder in open_model(path).configs)
    if len({*tile_px}) > 1 or len({*reads}) > 1:
        raise InputError(
            path, "encoders of square top views and tiles", f"{reads} and {tile_px} pixels", "Give others."
        )
    view = TopView.from_span(reads[0], request.span_m, request.camera_height_m)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    adapt = AdaptConfig(str(path), digest, request.epochs, request.seed)
    ground = check_ground(request.ground, request.ground_table, request.kind, request.fov_deg, request.heading_deg)
    if not ground.pictures:
        first = "The first, {}: {}.".format(*ground.left_out[0])
        raise InputError(ground.root, "a usable picture", f"{len(ground.left_out)} that are not", first)
    if request.drive is not None:  # what is missing is told now, not after the training
        drive_order(ground.pictures, request.drive, request.speed_m_s, request.step_m)
    mosaic = open_mosaic(request.tiles, request.tiles_table, request.scheme, request.epsg)
    candidates = cut(mosaic, request.span_m, request.stride_m, tile_px[0])
    files = [picture.file for picture in ground.pictures]
    truth = read_truth(request.truth, files, candidates.images.positions) if request.truth else {}
    return Inputs(request, ground, candidates, adapt, view, truth)


def read_truth(path: Path | str, pictures: Sequence[str], tiles: Positions | None = None) -> Truth:
    """Known positions of some pictures, from a CSV that names them with or without folder and ending. InputError: as
    `data.files.read_position_table`; east and north in place of degrees; no picture's name; one for two; and, if tiles
    are given, all 100 km from these: exchanged columns, another city, or tiles misread."""
    names, positions = read_position_table(path)
    if not isinstance(positions.frame, Wgs84):
        raise InputError(path, "latitude and longitude", "east and north", "Give WGS84 degrees.")
    rows = table_rows(pictures, names, path)
    found = zip(pictures, rows, positions.values[rows].tolist(), positions.known[rows], strict=True)
    truth = {picture: (lat, lon) for picture, row, (lat, lon), known in found if row >= 0 and known}
    if tiles is not None and truth:
        known, middle = Positions(list(truth.values()), Wgs84()), np.median(tiles.values, axis=0)
        away_km, swapped = haversine(known.values, middle).min() / 1000, looks_swapped(known, tiles)
        if swapped or away_km > FAR_KM:
            said = f"the nearest {away_km:,.0f} km from their middle, {middle[0]:.4f}, {middle[1]:.4f}"
            said += "; they come near when latitude and longitude are exchanged" * swapped
            todo = "Exchange the columns." if swapped else "Check the table, and how tiles' names are read (--scheme)."
            raise InputError(path, "positions near the tiles", said, todo)
    return truth
