"""Two folders numbered alike: one route filmed twice, or one place photographed twice, under two conditions.

    <root>/query, ref                              Corridor, SPED, Essex3IN1 (as VPR-Bench holds them)
    <root>/summer, winter                          Nordland (footage NRK), here searched in summer
    <root>/day_left, day_right, night_right        Gardens Point (Glover), searched in day_right

The last number in a file's name is its frame; where all numbers are multiples of a step (every tenth frame of Nordland),
frames count in that step. A hit is a frame at most `frames` away, so the positions are frames on a line, one a metre. Folders
of unequal length and gaps in the numbering do no harm: recall leaves out a query without a frame in reach, and the note says how
many there are. Frames of several sizes are brought to one size when they are prepared.
"""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from ucvgl.data.container import Dataset, FileImages, Positives
from ucvgl.data.files import folder, folders_in, image_folder, nfc, one_of
from ucvgl.data.place_recognition import ON_A_LINE
from ucvgl.errors import InputError
from ucvgl.positions import Positions

# (query, gallery): the first pair of which both are there
FOLDERS = (
    ("query", "ref"), ("query", "reference"), ("winter", "summer"), ("fall", "summer"), ("spring", "summer"),
    ("night_right", "day_right"), ("day_left", "day_right"), ("night", "day"),
)  # fmt: skip
HIT_FRAMES = {"sped": 0, "essex3in1": 0}  # every other: 2, as the ground truth of Corridor and Gardens Point allows
SPLITS = ("all", "train", "test")
TRAINING = 0.7  # of the line, from its beginning


def frame_folders(root: Path, query: str | None = None, gallery: str | None = None) -> tuple[str, str] | None:
    """The names of the two folders as they are on disk, or None; the names known here, or those given."""
    held = {name.casefold(): name for name in folders_in(root)}
    pairs = [(query or a, gallery or b) for a, b in FOLDERS]
    return next(((held[a.casefold()], held[b.casefold()]) for a, b in pairs
                 if a.casefold() in held and b.casefold() in held and a != b), None)  # fmt: skip


def read_frames(
    root: Path | str, split: str = "all", name: str = "frames", frames: int | None = None, query: str | None = None,
    gallery: str | None = None,
) -> Dataset:  # fmt: skip
    """N queries and M gallery frames of one line.

    Args:
        root: the folder that holds the two.
        split: "all"; or "train", the first 70 % of the line, and "test", the rest without the frames within reach of it.
        name: the data set.
        frames: a hit is at most so many frames away; by default 2, 0 for SPED and Essex3IN1, which are no routes.
        query: the folder of the frames that are looked up; by default the first of `FOLDERS` that is there.
        gallery: the folder of the frames that are searched.

    Raises:
        InputError: a folder is absent or empty, a name holds no number, two files of a folder have one number, a part is empty.
    """
    one_of("split", split, SPLITS, "Frames on a line have these parts.")
    root = folder(root, "a folder holding two folders of frames")
    pair = frame_folders(root, query, gallery)
    if pair is None:
        raise InputError(
            root, expected=f"two folders such as {', '.join('/'.join(pair) for pair in FOLDERS[:3])}",
            found=", ".join(folders_in(root)[:8]) or "no folder", todo="Say which with query= and gallery=.",
        )  # fmt: skip
    reach = HIT_FRAMES.get(name, 2) if frames is None else frames
    sides = [_numbered(root, side) for side in pair]
    first = min(at.min() for _, at in sides)
    step = int(np.gcd.reduce(np.concatenate([at for _, at in sides]) - first)) or 1
    line = [(at - first) // step for _, at in sides]
    cut = math.ceil(TRAINING * (max(at.max() for at in line) + 1))
    images = []
    for (side, _), at in zip(sides, line, strict=True):
        keep = {"all": at >= 0, "train": at < cut, "test": at >= cut + reach}[split]
        rows = np.flatnonzero(keep)[np.argsort(at[keep])]
        if not len(rows):
            raise InputError(side.where, expected=f"frames of the {split} part", found=f"none of {len(at)}",
                             todo="The line is too short to be divided: use split 'all'.")  # fmt: skip
        positions = Positions(np.stack([at[rows], np.zeros(len(rows))], 1), ON_A_LINE, side.where)
        images.append(replace(side.subset(rows), positions=positions))
    positives = Positives.within(images[0].positions, images[1].positions, reach)
    note = f"{pair[0]} in {pair[1]}; a hit is at most {reach} frames away" + f" (numbers in steps of {step})" * (
        step > 1
    )
    return Dataset(name, split, *images, positives, note=f"{note}.")


def _numbered(root: Path, side: str) -> tuple[FileImages, np.ndarray]:
    """The frames of a folder and their numbers."""
    images = image_folder(root, side, "frames with a number in their names")
    path_of: dict[int, str] = {}
    for i, path in enumerate(images.paths):
        digits = re.findall(r"[0-9]+", path.rpartition("/")[2].rpartition(".")[0])
        if not digits:
            raise InputError(images.file(i), expected="frames with a number in their names", found=path,
                             todo="Number the frames of both folders alike.")  # fmt: skip
        number = int(digits[-1][-15:])
        if path_of.setdefault(number, path) != path:
            raise InputError(images.file(i), expected="every number once", found=f"{number} in {path_of[number]} too",
                             todo="Keep one file a frame.")  # fmt: skip
    return replace(images, ids=map(nfc, images.paths)), np.array(list(path_of))
