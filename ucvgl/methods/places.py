"""What VG-SSL's stages read: photos that are searched, photos that ask, and where each was taken.

VG-SSL (Xiao, Zhu, Loianno; WACV 2025), protocol: a hit is a database photo within 25 m of the query, in metres; Nordland
counts frames. A query that no database photo can answer is left out, and how many were is told: where they are to count
as failures, a recall is N / (N + left_out) of the one measured here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ucvgl.data import PLACE_RECOGNITION, ArrayImages, FileImages, Positives, Views
from ucvgl.data.folders import read_paired_folders
from ucvgl.data.place_recognition import read_place_recognition
from ucvgl.distributed import main_process_first
from ucvgl.errors import InputError
from ucvgl.methods.images import read_resized
from ucvgl.positions import Metres, Neighbours, Positions, Wgs84, to_metres
from ucvgl.results import WORLD
from ucvgl.world.drives import DriveConfig, render_drives

HIT_M = 25.0  # VG-SSL and every published protocol of these sets
CORRIDOR_FRAMES = 2  # what Corridor's own ground truth allows to either side


@dataclass(frozen=True, eq=False)
class Places:
    """M database photos, N queries, and which answer which.

    Args:
        database: uint8 (M, 3, H, W), in memory or mapped from disk.
        query: uint8 (N, 3, H, W).
        database_positions: M, in metres.
        query_positions: N, in the same frame.
        positives: a row a query, none empty: the database photos that are hits, nearest first.
        name: of the data set.
        data_id: names photos, positions and positives; the same for the same files and settings.
        left_out: queries without any positive; they are not among the N.
        note: what a reader of results must know: the protocol, and what was left out.

    Raises:
        InputError: numbers that disagree, a query without a positive, or positions that are not metres of one frame.
    """

    database: Tensor
    query: Tensor
    database_positions: Positions
    query_positions: Positions
    positives: Positives
    name: str
    data_id: str
    left_out: int = 0
    note: str = ""

    def __post_init__(self) -> None:
        found = (len(self.database), len(self.query), len(self.positives))
        due = (len(self.database_positions), len(self.query_positions), len(self.query))
        if found != due:
            raise InputError(
                self.name, expected=f"{due} database photos, queries and rows of positives", found=found,
                todo="Give a position and, for queries, a row to every photo.",
            )  # fmt: skip
        if tuple(self.database.shape[1:]) != tuple(self.query.shape[1:]):
            raise InputError(
                self.name, expected=f"queries of shape {tuple(self.database.shape[1:])}, as the database has",
                found=tuple(self.query.shape[1:]), todo="Resize both to one size.",
            )  # fmt: skip
        empty = np.flatnonzero(self.positives.best() < 0)
        if len(empty):
            raise InputError(
                f"{self.name}, query {int(empty[0])}", expected="a positive for every query",
                found=f"{len(empty)} queries without", todo="Leave them out and count them.",
            )  # fmt: skip
        for positions in (self.database_positions, self.query_positions):
            if not isinstance(positions, Positions) or positions.frame != self.database_positions.frame \
                    or not isinstance(positions.frame, Metres):  # fmt: skip
                raise InputError(
                    self.name, expected="Positions in metres, both of one frame",
                    found=getattr(positions, "frame", type(positions).__name__), todo="Convert with in_metres.",
                )  # fmt: skip

    def __len__(self) -> int:
        return len(self.query)


def in_metres(*sets: Positions) -> tuple[Positions, ...]:
    """Positions in metres of one frame: degrees are projected about the middle of the first set, metres stay.

    Raises:
        InputError: bare numbers, which do not say what they are, degrees mixed with metres, or metres of two frames.
    """
    for positions in sets:
        if not isinstance(positions, Positions):
            raise InputError(
                "positions", expected="Positions, which say whether they are degrees or metres",
                found=type(positions).__name__, todo="Wrap them: Positions(values, Wgs84()) or Positions(values, Metres(...)).",
            )  # fmt: skip
        if positions.frame != sets[0].frame:
            raise InputError(
                positions.where, expected=f"the frame of {sets[0].where}: {sets[0].frame}", found=positions.frame,
                todo="Convert one of the two with to_metres.",
            )  # fmt: skip
    if not isinstance(sets[0].frame, Wgs84):
        return sets
    known = sets[0].values[sets[0].known]
    if not len(known):
        raise InputError(sets[0].where, expected="known positions", found="none", todo="This step needs positions.")
    middle = (known.min(0) + known.max(0)) / 2
    return tuple(to_metres(positions, (middle[0], middle[1])) for positions in sets)


def within(query: Positions, database: Positions, radius_m: float = HIT_M) -> Positives:
    """For each of N queries the database photos at most `radius_m` metres away, nearest first; may be none.

    Args:
        query: N positions, in degrees or in metres.
        database: M positions, likewise.
        radius_m: 25 for hits; VG-SSL trains on pairs within 10.

    Raises:
        InputError: as `in_metres` does, or a negative radius.
    """
    there, here = in_metres(database, query)
    offsets, indices = Neighbours(there).within(here, radius_m)
    return Positives(offsets, indices, np.ones(len(query), bool))


def world_places(config: DriveConfig, *, device: torch.device | str = "cpu", progress: bool = True) -> Places:
    """Drives through the embedded world, rendered once and mapped after that.

    Args:
        config: the drives.
        device: renders.
        progress: show a bar.

    Raises:
        InputError: the streets have fewer stops than asked for.
    """
    with main_process_first():
        drives = render_drives(config, device=device, progress=progress)
    frame = Metres("embedded world")
    sides = []
    for side, array, metres in (("q", drives.query, drives.query_m), ("d", drives.database, drives.database_m)):
        positions = Positions(np.asarray(metres, np.float64), frame, f"{WORLD}, {config.kind}")
        sides.append(ArrayImages(tuple(f"{side}{i:06d}" for i in range(len(array))), array, positions))
    hits = within(sides[0].positions, sides[1].positions)
    views = Views(f"{WORLD}-{config.kind}", f"seed-{config.seed}", *sides, hits, note=f"A hit is within {HIT_M:g} m.")
    kept, left_out = _answerable(views)
    query = torch.from_numpy(drives.query)
    if left_out:
        query = query[torch.from_numpy(kept.ground.rows)]
    return _places(kept, torch.from_numpy(drives.database), query, kept.data_id(), left_out)


def joined(parts: Sequence[Places], name: str) -> Places:
    """Several sets of one frame as one: every query asks the databases of all, and what is near is right, whichever set
    it is from (MSLS holds drives of one street at many times).

    Raises:
        InputError: no set, photos of two sizes, or positions of two frames.
    """
    if not parts:
        raise InputError(name, expected="one set of places at least", found="none", todo="Name some.")
    sizes = {tuple(part.database.shape[1:]) for part in parts}
    frames = {part.database_positions.frame for part in parts}
    if len(sizes) > 1 or len(frames) > 1:
        raise InputError(
            name, expected="photos of one size, positions of one frame",
            found=f"{sorted(sizes)}, {', '.join(map(str, frames))}", todo="Prepare all sets alike.",
        )  # fmt: skip
    (frame,) = frames
    database, query = (
        Positions(np.concatenate([getattr(part, side).values for part in parts]), frame, name)
        for side in ("database_positions", "query_positions")
    )
    return Places(
        torch.cat([part.database for part in parts]), torch.cat([part.query for part in parts]), database, query,
        within(query, database), name, "+".join(part.data_id for part in parts), sum(part.left_out for part in parts),
    )  # fmt: skip


def open_places(
    root: Path | str, size_px: tuple[int, int] = (480, 640), *, split: str = "test", name: str = "vpr",
    frames: int | None = None, queries_list: Path | str | None = None, progress: bool = True,
) -> Places:  # fmt: skip
    """A data set in the layout of the deep visual geo-localisation benchmark; read and resized once.

    Args:
        root: the folder that holds images/.
        size_px: height and width the photos are resized to; VG-SSL (480, 640).
        split: train, val or test.
        name: which set; "nordland" counts frames, "msls" names its protocol in the note.
        frames: a hit is at most so many frames away instead of 25 m.
        queries_list: only the queries it names.
        progress: show a bar.

    Raises:
        InputError: a name that is no place-recognition set's, a folder without images, positions that look like
            degrees, or no query with a positive.
    """
    if name not in PLACE_RECOGNITION:
        raise InputError("name", expected=f"one of {', '.join(PLACE_RECOGNITION)}", found=repr(name), todo="Pick one.")
    views = read_place_recognition(root, split, name, HIT_M, frames, queries_list)
    if frames is None and name != "nordland":
        for side in (views.ground, views.satellite):
            if np.abs(side.positions.values).max() <= 180:
                raise InputError(
                    side.positions.where, expected="UTM easting and northing in metres in the file names",
                    found=f"{side.positions.values[0].tolist()}, which look like degrees",
                    todo="Rename the files with the data set's own formatting script.",
                )  # fmt: skip
    return prepare_places(views, size_px, progress=progress)


def corridor_places(
    root: Path | str, size_px: tuple[int, int] = (120, 160), *, frames: int = CORRIDOR_FRAMES, progress: bool = True
) -> Places:
    """The Corridor set (VPR-Bench): query/ and ref/, photos of one walk numbered alike; a hit is at most `frames` away.

    It has no positions: the frames stand a metre apart on a made-up line, and the frame says so. Its ground truth is a
    pickle, which is not opened; it allows two frames to either side.

    Args:
        root: the folder that holds query/ and ref/.
        size_px: height and width; the photos' own are (120, 160).
        frames: to either side.
        progress: show a bar.

    Raises:
        InputError: a folder is absent, or a file name is no number.
    """
    views = read_paired_folders(root, "query", "ref", name="corridor")
    sides = []
    for side in (views.ground, views.satellite):
        sides.append(FileImages(side.root, side.ids, side.paths, _line(side), side.where))
    hits = within(sides[0].positions, sides[1].positions, frames)
    note = f"A hit is at most {frames} frames away."
    return prepare_places(Views("corridor", "test", *sides, hits, note=note), size_px, progress=progress)


def _line(images: FileImages) -> Positions:
    """A metre a frame, by the number that is the file's name."""
    values = np.zeros((len(images), 2))
    for i, name in enumerate(images.ids):
        stem = name.rpartition(".")[0]
        if not (stem.isascii() and stem.isdigit()):
            raise InputError(images.file(i), expected="a number as file name", found=stem, todo="Number the frames.")
        values[i, 0] = int(stem)
    return Positions(values, Metres("frames on a line, one a metre"), images.where)


def prepare_places(views: Views, size_px: tuple[int, int], *, progress: bool = True) -> Places:
    """Any data set with positions and positives as places: photos read and resized once, mapped after that.

    Args:
        views: `ground` asks, `satellite` is searched; degrees become metres.
        size_px: height and width.
        progress: show a bar.

    Raises:
        InputError: a size that is not positive, no positions, no query with a positive, a photo that cannot be read.
    """
    if len(size_px) != 2 or not min(size_px) > 0:
        raise InputError("size_px", expected="height and width above 0", found=size_px, todo="VG-SSL: (480, 640).")
    kept, left_out = _answerable(views)
    query, database, _ = read_resized(kept, tuple(size_px), tuple(size_px), progress=progress)
    return _places(kept, database, query, f"{kept.data_id()}-{size_px[0]}x{size_px[1]}", left_out)


def _answerable(views: Views) -> tuple[Views, int]:
    """The views without the queries that have no positive, and how many those are."""
    rows = np.flatnonzero(views.positives.best() >= 0)
    left_out = len(views.positives) - len(rows)
    if not len(rows):
        raise InputError(
            f"{views.name} {views.split}", expected="a query with a database photo within reach", found="none",
            todo="Are queries and database of one city, and their positions in one frame?",
        )  # fmt: skip
    return (views.take_ground(rows) if left_out else views), left_out


def _places(views: Views, database: Tensor, query: Tensor, data_id: str, left_out: int) -> Places:
    where = (views.satellite.positions, views.ground.positions)
    if None in where:
        raise InputError(
            f"{views.name} {views.split}", expected="a position a photo", found="none",
            todo="Add positions; places are told apart by them.",
        )  # fmt: skip
    there, here = in_metres(*where)
    note = views.note
    if left_out:  # the reader counts them as failures; here they are gone
        note = re.sub(r" ?\d+ of \d+ queries have no right image; they count as failures\.", "", note)
        note = f"{note} {left_out} of {left_out + len(query)} queries have no positive and are left out.".strip()
    return Places(database, query, there, here, views.positives, views.name, data_id, left_out, note)
