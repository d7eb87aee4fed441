"""The request to `ucvgl locate` and the contents of its folders, checked before anything is trained or written."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ucvgl.encoders import open_model
from ucvgl.errors import InputError, check_number
from ucvgl.locate.confidence import drive_order
from ucvgl.locate.located import Truth, read_truth, rendered
from ucvgl.locate.pictures import Ground, Kind, StreetConfig, check_ground
from ucvgl.locate.tile_names import Scheme
from ucvgl.locate.tiles import SPAN_M, Candidates, Mosaic, cut, open_mosaic

WORLD_WEIGHTS = Path(__file__).parents[1] / "weights" / "world.safetensors"  # of scripts/make_weights.py
EPOCHS = 10  # of training on one's own imagery


@dataclass(frozen=True)
class AdaptConfig:
    """How encoders are trained on one's own imagery."""

    start: str  # a checkpoint's path
    start_digest: str  # of that file, so that another file under its name is another training
    given: Literal["top view", "panorama"] = "top view"  # what the ground encoder reads
    epochs: int = EPOCHS  # of step 5; 0 leaves the encoders as they come
    learning_rate: float = 2e-4  # gentler than from scratch (2e-3), since the encoders know something already
    batch_size: int = 64  # pairs
    # part of the mutual matches that is believed at first, the best margins; it grows to all. UCVGL's threshold is for
    # one kind of encoder. In a city of the world 83 % of a tenth are right, 68 % of a quarter, 44 % of all
    keep: float = 0.25
    seed: int = 0  # of everything random

    def __post_init__(self) -> None:
        if not (isinstance(self.epochs, int) and self.epochs >= 0):
            raise InputError("epochs", expected="0 or more", found=self.epochs, todo="0 leaves the encoders alone.")


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
    crop_offset_px: int = 0  # of cropped panoramas
    scheme: Scheme | None = None  # of tile names: 'xyz', 'tms' (rows from the south) or 'zyx' (ArcGIS); None: what fits
    epsg: int | None = None  # of tiles that do not say theirs
    span_m: float = SPAN_M  # edge of a candidate
    stride_m: float | None = None  # between candidates; None: a quarter of the span
    checkpoint: str = "world"  # 'world', the committed encoders; or a file
    ground_input: Literal["top view", "panorama"] = "top view"  # what the ground encoder of that file reads
    epochs: int = EPOCHS  # of training on this imagery; 0: none
    truth: Path | None = None  # CSV of known positions, to evaluate by
    seed: int = 0  # of everything random
    drive: Literal["time", "name"] | None = None  # order of a drive, to be placed together; None: each alone
    speed_m_s: float = 15.0  # of a drive by time: at most, between two time stamps
    step_m: float = 50.0  # of a drive by name: at most, between two pictures

    def __post_init__(self) -> None:
        if self.fov_deg is not None:
            check_number("fov_deg", self.fov_deg, unit="deg", low=0, high=180)
        if self.heading_deg is not None:
            check_number("heading_deg", self.heading_deg, unit="deg")
        check_number("camera_height_m", self.camera_height_m, unit="m", low=0)
        check_number("speed_m_s", self.speed_m_s, unit="m/s", low=0)
        check_number("step_m", self.step_m, unit="m", low=0)


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the folders hold, and how it will be searched."""

    request: Request
    ground: Ground
    candidates: Candidates
    adapt: AdaptConfig  # where the encoders come from, and how they are trained on this imagery
    street: StreetConfig  # what is made of a picture
    truth: Truth

    @property
    def mosaic(self) -> Mosaic:
        """The tiles."""
        return self.candidates.mosaic

    @property
    def left_out(self) -> list[tuple[str, str]]:
        """File and reason of each that cannot be used, pictures and tiles."""
        return [*self.ground.left_out, *self.mosaic.left_out]

    def text(self) -> str:
        """What was found, for people."""
        return rendered("inputs.txt.j2", inputs=self)


def read_inputs(request: Request) -> Inputs:
    """Checks both folders, the tables and the checkpoint; nothing is trained or written. InputError: nothing usable in
    a folder, tiles without positions, a checkpoint that is none, a damaged table, known positions of other pictures."""
    # by the same name from wherever the command is called: trainings are kept under it
    path = WORLD_WEIGHTS if request.checkpoint == "world" else Path(request.checkpoint).expanduser().resolve()
    reads, tile_px = (encoder.image_px for encoder in open_model(path).configs)
    if len({*tile_px}) > 1 or (request.ground_input == "top view" and len({*reads}) > 1):
        todo = "If its first was trained on panoramas, say --ground-input panorama; else give others."
        raise InputError(path, "encoders of square top views and square tiles", f"{reads} and {tile_px} pixels", todo)
    street = StreetConfig(request.ground_input, reads, request.span_m, request.camera_height_m, request.crop_offset_px)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    adapt = AdaptConfig(str(path), digest, request.ground_input, request.epochs, seed=request.seed)
    ground = check_ground(request.ground, request.ground_table, request.kind, request.fov_deg, request.heading_deg)
    if not ground.pictures:
        first = "The first, {}: {}.".format(*ground.left_out[0])
        raise InputError(ground.root, "a usable picture", f"{len(ground.left_out)} that are not", first)
    if request.drive is not None:
        # what is missing is told now, not after the training
        drive_order(ground.pictures, request.drive, request.speed_m_s, request.step_m)
    files = [picture.file for picture in ground.pictures]
    mosaic = open_mosaic(request.tiles, request.tiles_table, request.scheme, request.epsg)
    candidates = cut(mosaic, request.span_m, request.stride_m, tile_px[0])
    truth = read_truth(request.truth, files, candidates.images.positions) if request.truth else {}
    return Inputs(request, ground, candidates, adapt, street, truth)
