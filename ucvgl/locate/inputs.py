"""The request to `ucvgl locate` and the contents of its folders, checked before anything is trained or written."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ucvgl.encoders import open_model
from ucvgl.errors import InputError, check_number
from ucvgl.locate.adapt import EPOCHS, WORLD_WEIGHTS, AdaptConfig
from ucvgl.locate.candidates import SPAN_M, Candidates, cut
from ucvgl.locate.chain import drive_order
from ucvgl.locate.located import Truth, check_near, read_truth
from ucvgl.locate.map_page import rendered
from ucvgl.locate.pictures import Ground, Kind, check_ground
from ucvgl.locate.tile_names import Scheme
from ucvgl.locate.tiles import Mosaic, open_mosaic
from ucvgl.locate.views import StreetConfig


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
    turns: int = 24  # headings tried, a multiple of 4; 24 are 15 degrees apart, the encoders bear half
    truth: Path | None = None  # CSV of known positions, to evaluate by
    seed: int = 0  # of everything random
    drive: Literal["time", "name"] | None = None  # order of a drive, to be placed together; None: each alone
    speed_m_s: float = 15.0  # of a drive by time: at most, between two time stamps
    step_m: float = 50.0  # of a drive by name: at most, between two pictures

    def __post_init__(self) -> None:
        if not (isinstance(self.turns, int) and self.turns >= 4 and self.turns % 4 == 0):
            raise InputError("turns", expected="a multiple of 4", found=self.turns, todo="24 are 15 degrees apart.")
        if self.fov_deg is not None:
            check_number("fov_deg", self.fov_deg, unit="deg", low=0, high=180)
        if self.heading_deg is not None:
            check_number("heading_deg", self.heading_deg, unit="deg")
        check_number("speed_m_s", self.speed_m_s, unit="m/s", low=0)
        check_number("step_m", self.step_m, unit="m", low=0)


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the folders hold, and how it will be searched."""

    request: Request
    ground: Ground
    mosaic: Mosaic
    candidates: Candidates
    adapt: AdaptConfig  # where the encoders come from, and how they are trained on this imagery
    street: StreetConfig  # what is made of a picture
    truth: Truth

    @property
    def kinds(self) -> list[Kind]:
        """Of the usable pictures."""
        return sorted({picture.kind for picture in self.ground.usable})

    def text(self) -> str:
        """What was found, for people."""
        return rendered(
            "inputs.txt.j2", ground=self.ground, mosaic=self.mosaic, cut=self.candidates,
            noted=Counter(note for picture in self.ground.usable for note in picture.notes),
            unusable=[(picture.file, picture.reason_unusable) for picture in self.ground.unusable],
        ).rstrip()  # fmt: skip


def read_inputs(request: Request, *, progress: bool = True) -> Inputs:
    """Checks both folders, the tables and the checkpoint; nothing is trained or written.

    InputError: nothing usable in a folder, tiles without positions, a checkpoint that is none, a damaged table, known
    positions of other pictures.
    """
    # by the same name from wherever the command is called: trainings are kept under it
    path = WORLD_WEIGHTS if request.checkpoint == "world" else Path(request.checkpoint).expanduser().resolve()
    reads, (height, width) = (encoder.image_px for encoder in open_model(path).configs)
    if height != width:
        raise InputError(path, expected="an encoder of square tiles", found=f"{height} x {width}", todo="Give another.")
    street = StreetConfig(request.ground_input, reads, request.span_m, request.camera_height_m, request.crop_offset_px)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    adapt = AdaptConfig(str(path), digest, request.ground_input, request.epochs, seed=request.seed)
    ground = check_ground(
        request.ground, request.ground_table, request.kind, request.fov_deg, request.heading_deg, progress
    )
    if not ground.usable:
        first = ground.unusable[0]
        raise InputError(ground.root, expected="a usable picture", found=f"{len(ground.unusable)} that are not",
                         todo=f"The first, {first.file}: {first.reason_unusable}.")  # fmt: skip
    if request.drive is not None:
        drive_order(ground.usable, request.drive, request.speed_m_s, request.step_m)  # told now, not after the training
    truth = {}
    if request.truth is not None:
        truth = read_truth(request.truth, [picture.file for picture in ground.usable])
    mosaic = open_mosaic(request.tiles, request.tiles_table, request.scheme, request.epsg, progress)
    candidates = cut(mosaic, request.span_m, request.stride_m, height)
    check_near(truth, candidates.positions, request.truth or "")
    return Inputs(request, ground, mosaic, candidates, adapt, street, truth)
