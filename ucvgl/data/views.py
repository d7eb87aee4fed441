"""The contract of every data set: two ordered image sets and, where known, which satellite images are right for a
ground image.

`Views` is what the readers return and what the methods take. `ground` is the querying side (panoramas, drone images, photographs)
and `satellite` the side that is searched (tiles, or a database of photographs). The two may differ in length, several
ground images may share a tile, and nothing assumes 1:1 (the published code of UCVGL and Sample4Geo does, or nearly).
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ucvgl.data.decoding import decode_file, resize
from ucvgl.errors import InputError
from ucvgl.positions import Positions


class ImageSet(Protocol):
    """Ordered images, each with an id and, if known, a position; pixels are read when asked for."""

    ids: tuple[str, ...]
    positions: Positions | None

    def __len__(self) -> int: ...

    def read(self, index: int, size: tuple[int, int] | None = None) -> Tensor:
        """Image `index` as uint8 (3, H, W), RGB; resized to `size` (height, width) if given."""
        ...

    def subset(self, indices: Sequence[int]) -> "ImageSet":
        """The images at `indices`, in that order."""
        ...

    def fingerprint(self) -> str:
        """A digest that changes when ids, positions or (as far as is cheap) images change."""
        ...


def _check_ids(ids: tuple[str, ...], positions: Positions | None, where: str) -> None:
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise InputError(
            where,
            expected="every id once",
            found=f"{len(ids) - len(set(ids))} repeated, first {twice!r}",
            todo="Remove the repeated rows or files.",
        )
    if positions is not None and len(positions) != len(ids):
        raise InputError(
            where,
            expected=f"{len(ids)} positions, one an image",
            found=len(positions),
            todo="Give every image a position, or none.",
        )


@dataclass(frozen=True, eq=False)
class FileImages:
    """Images in files below a folder.

    Args:
        root: the data set's folder.
        ids: an id an image, each once.
        paths: the file of each image, relative to `root`.
        positions: a position an image, or None.
        where: the list or folder the images came from, for error messages.
    """

    root: str
    ids: tuple[str, ...]
    paths: tuple[str, ...]
    positions: Positions | None = None
    where: str = "image set"

    def __post_init__(self) -> None:
        for name in ("ids", "paths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.ids) != len(self.paths):
            raise InputError(
                self.where, expected=f"{len(self.ids)} paths", found=len(self.paths), todo="Give each id its file."
            )
        _check_ids(self.ids, self.positions, self.where)

    def __len__(self) -> int:
        return len(self.ids)

    def file(self, index: int) -> str:
        """The absolute path of image `index`."""
        return f"{self.root}{os.sep}{self.paths[index]}"

    def read(self, index: int, size: tuple[int, int] | None = None) -> Tensor:
        """Image `index` as uint8 (3, H, W), RGB; resized to `size` (height, width) if given.

        Raises:
            InputError: the file is absent, empty, truncated or not an image; it names the file.
        """
        return decode_file(self.file(index), size)

    def subset(self, indices: Sequence[int]) -> "FileImages":
        """The images at `indices`, in that order."""
        indices = np.asarray(indices, dtype=np.int64)
        return FileImages(
            self.root,
            tuple(self.ids[i] for i in indices),
            tuple(self.paths[i] for i in indices),
            None if self.positions is None else self.positions.take(indices),
            self.where,
        )

    def fingerprint(self) -> str:
        """A digest of ids, relative paths, positions and 16 of the files, evenly spaced: two folders may hold other
        pictures under the same names."""
        some = np.unique(np.linspace(0, len(self) - 1, 16).astype(int)) if len(self) else []
        files = tuple(_file_digest(Path(self.file(int(i)))) for i in some)
        return _digest(self.ids, (*self.paths, *files), self.positions)


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Images in one array in memory or on disk (a memmap): the embedded world and tests.

    Args:
        ids: an id an image, each once.
        array: uint8 (N, 3, H, W), RGB.
        positions: a position an image, or None.
        where: what the images are, for error messages.
        rows: which image of the array each id is; all in order by default. A subset shares the array and copies nothing.
    """

    ids: tuple[str, ...]
    array: np.ndarray
    positions: Positions | None = None
    where: str = "image array"
    rows: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", tuple(self.ids))
        array = self.array
        count = len(array) if self.rows is None else len(self.rows)
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1] != 3 or count != len(self.ids):
            raise InputError(
                self.where,
                expected=f"uint8 of shape ({len(self.ids)}, 3, H, W)",
                found=f"{array.dtype} of shape {array.shape}",
                todo="Give one RGB image for each id.",
            )
        _check_ids(self.ids, self.positions, self.where)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int, size: tuple[int, int] | None = None) -> Tensor:
        """Image `index` as uint8 (3, H, W), RGB; resized to `size` (height, width) if given."""
        return resize(
            torch.from_numpy(np.array(self.array[self._row(index)])), size
        )  # a copy: a memmap may be read-only

    def subset(self, indices: Sequence[int]) -> "ArrayImages":
        """The images at `indices`, in that order."""
        indices = np.asarray(indices, dtype=np.int64)
        positions = None if self.positions is None else self.positions.take(indices)
        rows = indices if self.rows is None else self.rows[indices]
        return ArrayImages(tuple(self.ids[i] for i in indices), self.array, positions, self.where, rows)

    def _row(self, index: int) -> int:
        return int(index if self.rows is None else self.rows[index])

    def fingerprint(self) -> str:
        """A digest of ids, positions, the array's shape and 16 of its images, evenly spaced."""
        some = np.unique(np.linspace(0, len(self) - 1, 16).astype(int)) if len(self) else []
        pixels = tuple(hashlib.sha256(np.ascontiguousarray(self.array[self._row(i)])).hexdigest() for i in some)
        return _digest(self.ids, (str(self.array.shape[1:]), *pixels), self.positions)


def _file_digest(path: Path) -> str:
    """Of a file's bytes; of one that cannot be read, which is found out when it is needed, a word."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "unreadable"


def _digest(ids: Sequence[str], more: Sequence[str], positions: Positions | None) -> str:
    digest = hashlib.sha256("\n".join([*ids, "", *more]).encode())
    if positions is not None:
        digest.update(repr(positions.frame).encode() + np.ascontiguousarray(positions.values).tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Positives:
    """Which of M satellite images are right for each of N ground images, stored flat so that 1e5 rows are cheap.

    `positives[i]` is an int64 array of satellite indices, the best first (empty: known to have none), or None where
    pairs are unknown.

    Args:
        offsets: (N + 1,) int64; row i is `indices[offsets[i] : offsets[i + 1]]`.
        indices: int64, all rows one after the other.
        known: (N,) bool.
    """

    offsets: np.ndarray
    indices: np.ndarray
    known: np.ndarray

    def __post_init__(self) -> None:
        for name, dtype in (("offsets", np.int64), ("indices", np.int64), ("known", bool)):
            value = np.array(getattr(self, name), dtype=dtype)
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        lengths = np.diff(self.offsets)
        ok = (
            len(self.offsets) == len(self.known) + 1
            and self.offsets[0] == 0
            and self.offsets[-1] == len(self.indices)
            and (lengths >= 0).all()
            and not lengths[~self.known].any()
        )
        if not ok:
            raise InputError(
                "positives",
                expected="ascending offsets from 0 to the number of indices, one more than rows; none for unknown rows",
                found=f"{len(self.offsets)} offsets, {len(self.indices)} indices, {len(self.known)} rows",
                todo="Build them with Positives.of or Positives.one_each.",
            )

    @staticmethod
    def of(rows: Sequence[Sequence[int] | np.ndarray | None]) -> "Positives":
        """From one list a ground image, or None where unknown."""
        lengths = [0 if row is None else len(row) for row in rows]
        flat = [np.asarray(row, np.int64) for row in rows if row is not None and len(row)]
        indices = np.concatenate(flat) if flat else np.zeros(0, np.int64)
        return Positives(
            np.concatenate([[0], np.cumsum(lengths)]), indices, np.array([r is not None for r in rows], bool)
        )

    @staticmethod
    def one_each(indices: Sequence[int] | np.ndarray) -> "Positives":
        """Exactly one satellite image for each ground image."""
        indices = np.asarray(indices, np.int64)
        return Positives(np.arange(len(indices) + 1), indices, np.ones(len(indices), bool))

    @staticmethod
    def unknown(count: int) -> "Positives":
        """Pairs of `count` ground images that nobody knows."""
        return Positives(np.zeros(count + 1, np.int64), np.zeros(0, np.int64), np.zeros(count, bool))

    def __len__(self) -> int:
        return len(self.known)

    def __getitem__(self, index: int) -> np.ndarray | None:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return self.indices[self.offsets[index] : self.offsets[index + 1]] if self.known[index] else None

    def take(self, rows: np.ndarray) -> "Positives":
        """The rows at `rows`, in that order."""
        return Positives.of([self[int(row)] for row in rows])

    def pairs(self) -> np.ndarray:
        """(P, 2) int64: every (ground, satellite) pair, row by row."""
        ground = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        return np.stack([ground, self.indices], axis=1)

    def best(self) -> np.ndarray:
        """(N,) int64: the best satellite index of each ground image, -1 where there is none or it is unknown."""
        first = np.full(len(self), -1, np.int64)
        some = np.diff(self.offsets) > 0
        first[some] = self.indices[self.offsets[:-1][some]]
        return first

    def digest(self) -> str:
        """Eight hex digits that change with any pair."""
        arrays = (self.offsets, self.indices, self.known)
        return hashlib.sha256(b"|".join(array.tobytes() for array in arrays)).hexdigest()[:8]

    def same_as(self, other: "Positives | None") -> bool:
        """Equal rows in equal order."""
        return other is not None and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in ("offsets", "indices", "known")
        )


@dataclass(frozen=True, eq=False)
class Views:
    """A data set: ground images, satellite images, and which belong together.

    Args:
        name: the data set ("cvusa", "vigor", ...).
        split: the part ("train", "val", "test", ...).
        ground: the querying images (N).
        satellite: the searched images (M).
        positives: satellite indices right for ground image i, the best first; None where unknown.
        semi_positives: VIGOR's tiles that show the place but off centre; None in every other data set.
        offsets_px: VIGOR's label offsets, (N, 1 + semi-positives, 2), rows and columns in pixels of the 640-pixel tile
            from the panorama to the tile's centre (north and east positive); None elsewhere.
        note: what a reader of results must know (protocol, what was left out); printed beside results.
        left_out: relative paths of listed files that are absent, when reading with missing="drop"; else empty.

    Raises:
        InputError: lengths that disagree, or an index that is not a satellite image.
    """

    name: str
    split: str
    ground: ImageSet
    satellite: ImageSet
    positives: Positives
    semi_positives: Positives | None = None
    offsets_px: np.ndarray | None = field(default=None, repr=False)
    note: str = ""
    left_out: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        where = f"{self.name} {self.split}"
        for what, rows in (("positives", self.positives), ("semi_positives", self.semi_positives)):
            if rows is None:
                continue
            if len(rows) != len(self.ground):
                raise InputError(
                    f"{where}: {what}",
                    expected=f"{len(self.ground)} rows, one a ground image",
                    found=len(rows),
                    todo="Give every ground image its row.",
                )
            if len(rows.indices) and not (rows.indices.min() >= 0 and rows.indices.max() < len(self.satellite)):
                raise InputError(
                    f"{where}: {what}",
                    expected=f"satellite indices from 0 to {len(self.satellite) - 1}",
                    found=f"{rows.indices.min()} to {rows.indices.max()}",
                    todo="Correct the pairs.",
                )
        for what, images in (("ground", self.ground), ("satellite", self.satellite)):
            if len(images) == 0:
                raise InputError(
                    f"{where}: {what}", expected="at least one image", found="none", todo="Check the folder."
                )
        if self.offsets_px is not None:
            offsets = np.array(self.offsets_px, np.float64)
            if offsets.ndim != 3 or len(offsets) != len(self.ground) or offsets.shape[2] != 2:
                raise InputError(
                    f"{where}: offsets_px",
                    expected=f"shape ({len(self.ground)}, K, 2)",
                    found=offsets.shape,
                    todo="Give an offset for each label.",
                )
            offsets.setflags(write=False)
            object.__setattr__(self, "offsets_px", offsets)

    def without_labels(self) -> "Views":
        """The same images with every pair unknown: what a method that claims 0 % labels is given."""
        unknown = Positives.unknown(len(self.ground))
        return replace(
            self, positives=unknown, semi_positives=None, offsets_px=None, note=f"{self.note} Labels hidden.".strip()
        )

    def take_ground(self, indices: Sequence[int]) -> "Views":
        """The data set with only these ground images; every satellite image stays."""
        rows = np.asarray(indices, np.int64)
        return replace(
            self,
            ground=self.ground.subset(rows),
            positives=self.positives.take(rows),
            semi_positives=None if self.semi_positives is None else self.semi_positives.take(rows),
            offsets_px=None if self.offsets_px is None else self.offsets_px[rows],
        )

    def data_id(self) -> str:
        """A short digest of ids, files, positions and labels: the part of a run's folder name that stands for its data."""
        digest = hashlib.sha256(
            f"{self.name} {self.split} {self.ground.fingerprint()} {self.satellite.fingerprint()}".encode()
        )
        for rows in (self.positives, self.semi_positives):
            if rows is not None:
                digest.update(rows.offsets.tobytes() + rows.indices.tobytes() + rows.known.tobytes())
        return digest.hexdigest()[:12]
