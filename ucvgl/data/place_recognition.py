"""Place recognition: photos against a database of photos. In the form of the deep visual geo-localisation benchmark (Berton et
al., CVPR 2022), names under images/{train,val,test}/{database,queries} are
@easting@northing@zone@letter@lat@lon@pano id@...@.jpg, and a hit is within 25 m. In two folders of one route, the last number
in a file's name is its frame, and a hit is a frame at most so many away.
"""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ucvgl.data.container import Dataset, FileImages, Positives
from ucvgl.data.files import folder, folders_in, image_folder, nfc, numbers, one_of
from ucvgl.errors import InputError
from ucvgl.positions import Metres, Positions

SPLITS = ("train", "val", "test")
HIT_M = 25.0
UTM = Metres("UTM of the file names")
ON_A_LINE = Metres("frames on a line, ten metres apart")
FRAME_M = 10.0  # so that VG-SSL's positives (10 m) are at most one frame away, and its negatives (25 m) more than two
_PANO_ID, _HEADING = 7, 9
RENAME = "Rename the files with the data set's own formatting script."
# (query, gallery): the first pair of which both are there
FOLDERS = (
    ("query", "ref"), ("query", "reference"), ("winter", "summer"), ("fall", "summer"), ("spring", "summer"),
    ("night_right", "day_right"), ("day_left", "day_right"), ("night", "day"),
)  # fmt: skip
HIT_FRAMES = {"sped": 0, "essex3in1": 0}  # every other: 2, as the ground truth of Corridor and Gardens Point allows
TRAINING = 0.7  # of the line, from its beginning


def read_place_recognition(
    root: Path | str, split: str = "test", name: str = "vpr", frames: int | None = None
) -> Dataset:
    """One split: N queries against M database images, every database image within reach a positive, the nearest first. With
    `frames` a hit is at most so many frames away instead of 25 m ("nordland": 10 by default; papers use 1, 2 or 10)."""
    one_of("split", split, SPLITS, "Choose one of these.")
    root = folder(root, "the folder that holds images/")
    base = "images/" if (root / "images").is_dir() else ""
    held = [part for part in SPLITS if (root / base / part).is_dir()]
    if held and split not in held:
        todo = "It is for measuring alone: train on another set, such as MSLS or the embedded world, and test here."
        todo = todo if held == ["test"] else "Unpack the rest, or choose another part."
        raise InputError(root / base / split, f"a {split} part", f"{' and '.join(held)} alone", todo)
    query, gallery = (_images(root, f"{base}{split}/{side}") for side in ("queries", "database"))
    frames = 10 if frames is None and name == "nordland" else frames
    if frames is None:
        for side in (query, gallery):
            at = side.positions.values
            if np.abs(at).max() <= 180 and at[:, 0].any():  # easting 0 everywhere: a made-up line, as Nordland's
                raise InputError(side.where, expected="UTM easting and northing in metres in the file names",
                                 found=f"{at[0].tolist()}, which look like degrees", todo=RENAME)  # fmt: skip
        positives = Positives.within(query.positions, gallery.positions, HIT_M)
        note = f"A hit is within {HIT_M:g} m (UTM)."
    else:
        positives = Positives.within(_on_a_line(query), _on_a_line(gallery), FRAME_M * frames)
        note = f"A hit is at most {frames} frames away."
    if name == "msls":
        known = "a published protocol" if len(query) in (740, 750) else "neither published protocol (740 or 750)"
        note += f" MSLS with {len(query)} queries, {known}."
    return Dataset(name, split, query, gallery, positives, note=note)


def fields(path: str) -> list[str]:
    """The fields of a name between `@`: 1 is the easting, 2 the northing, 7 the pano id, 9 the heading, where there is one."""
    return path.rpartition("/")[2].split("@")


def _images(root: Path, below: str) -> FileImages:
    images = image_folder(root, below, "images named @easting@northing@...")
    utm, heading_deg = [], []
    for i, name in enumerate(images.ids):
        cells = fields(name)
        if len(cells) < 4 or cells[0].strip():
            raise InputError(images.file(i), expected="a name of the form @easting@northing@...@.jpg", found=name,
                             todo=RENAME)  # fmt: skip
        utm.append(numbers(images.file(i), cells[1:3]))
        cell = "".join(cells[_HEADING : _HEADING + 1])
        heading_deg.append(float(cell) if re.fullmatch(r"-?\d+(\.\d*)?", cell) else np.nan)
    turned = None if np.isnan(heading_deg).all() else np.array(heading_deg)
    return replace(images, positions=Positions(utm, UTM, images.where, turned))


def _on_a_line(images: FileImages) -> Positions:
    """By the frame number in the pano id field."""
    cells = [fields(name)[_PANO_ID : _PANO_ID + 1] or [""] for name in images.ids]
    line = [(FRAME_M * numbers(images.file(i), cell)[0], 0.0) for i, cell in enumerate(cells)]
    return Positions(line, ON_A_LINE, images.where)


def frame_folders(root: Path) -> tuple[str, str] | None:
    """The names of the two folders as they are on disk, or None."""
    held = {name.casefold(): name for name in folders_in(root)}
    return next(((held[query], held[gallery]) for query, gallery in FOLDERS if {query, gallery} <= held.keys()), None)


def read_frames(
    root: Path | str, split: str = "all", name: str = "frames", frames: int | None = None, *,
    folders: tuple[str, str] | None = None, gap: int | None = None,
) -> Dataset:  # fmt: skip
    """N queries and M gallery frames of one line: "all", "train" (the first 70 %), or "test" (the rest, after a gap).

    A hit is at most `frames` away: by default 2, 0 for SPED and Essex3IN1, which are no routes; `gap`: frames between the parts, by
    default as many. `folders`: by default the first of FOLDERS that are there. InputError: a folder is absent or empty, a name
    holds no number, two files of a folder have one number, a part is empty.
    """
    one_of("split", split, ("all", "train", "test"), "Frames on a line have these parts.")
    root = folder(root, "a folder holding two folders of frames")
    pair = folders or frame_folders(root)
    if pair is None:
        raise InputError(root, expected=f"two folders, one of {', '.join('/'.join(pair) for pair in FOLDERS)}",
                         found=", ".join(folders_in(root)[:8]) or "no folder", todo="Name the two so.")  # fmt: skip
    reach = HIT_FRAMES.get(name, 2) if frames is None else frames
    sides = [_numbered(root, side) for side in pair]
    first = min(at.min() for _, at in sides)
    step = int(np.gcd.reduce(np.concatenate([at for _, at in sides]) - first)) or 1
    line = [(at - first) // step for _, at in sides]
    cut = math.ceil(TRAINING * (max(at.max() for at in line) + 1))
    images = []
    for (side, _), at in zip(sides, line, strict=True):
        keep = {"all": at >= 0, "train": at < cut, "test": at >= cut + (reach if gap is None else gap)}[split]
        rows = np.flatnonzero(keep)[np.argsort(at[keep])]
        if not len(rows):
            raise InputError(side.where, expected=f"frames of the {split} part", found=f"none of {len(at)}",
                             todo="The line is too short to be divided: use split 'all'.")  # fmt: skip
        positions = Positions(np.stack([FRAME_M * at[rows], np.zeros(len(rows))], 1), ON_A_LINE, side.where)
        images.append(replace(side.subset(rows), positions=positions))
    positives = Positives.within(images[0].positions, images[1].positions, FRAME_M * reach)
    steps = f" (numbers in steps of {step})" * (step > 1)
    note = f"{pair[0]} in {pair[1]}; a hit is at most {reach} frames away{steps}."
    return Dataset(name, split, *images, positives, note=note)


def _numbered(root: Path, side: str) -> tuple[FileImages, np.ndarray]:
    """The frames of a folder and their numbers."""
    images = image_folder(root, side, "frames with a number in their names")
    at = []
    for i, path in enumerate(images.paths):
        digits = re.findall(r"[0-9]+", path.rpartition("/")[2].rpartition(".")[0])
        if not digits:
            raise InputError(images.file(i), expected="frames with a number in their names", found=path,
                             todo="Number the frames of both folders alike.")  # fmt: skip
        at.append(int(digits[-1][-15:]))
    replace(images, ids=[f"frame {number}" for number in at])  # refuses two files of one number
    return replace(images, ids=map(nfc, images.paths)), np.array(at)


def without_dark(data: Dataset, least: float = 4.0) -> Dataset:
    """Without the frames at which either side is nearly of one colour, as in a tunnel; data: of two folders numbered alike,
    as `prepare` returns it; least: standard deviation of an image's pixels, in grey levels."""
    at, gone = [], []
    for images in (data.query, data.gallery):
        spread = torch.cat([part.float().std((1, 2, 3)) for part in images[:].split(512)]).numpy()
        at.append(images.positions.values[:, 0])
        gone.append(at[-1][spread < least])
    gone = np.unique(np.concatenate(gone))
    kept = data.take(*(np.flatnonzero(~np.isin(frames, gone)) for frames in at))
    return replace(kept, note=f"{data.note} {len(gone)} frames too dark to be recognised are left out.")
