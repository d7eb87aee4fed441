"""The one container: what is searched for, what is searched, and which images belong together.

`query` holds the images that are looked up (panoramas, drone images, photos), `gallery` those they are looked up in (satellite
tiles, photos). The two may differ in length, several queries may share a gallery image, and nothing assumes 1:1, as the
published code of UCVGL and Sample4Geo does. Readers return it with files behind it, `prepare` with tensors of one size.
"""

import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ucvgl.data.decoding import ImageSet, decode_file, resize
from ucvgl.errors import InputError
from ucvgl.positions import Neighbours, Positions

Rows = Sequence[int] | np.ndarray | Tensor


def _checked(ids: Sequence[str], count: int, positions: Positions | None, where: str) -> tuple[str, ...]:
    ids = tuple(ids)
    if len(ids) != count or (positions is not None and len(positions) != count):
        found = f"{len(ids)} ids" + (f", {len(positions)} positions" if positions is not None else "")
        raise InputError(where, expected=f"an id (and a position, or none) for each of {count} images", found=found,
                         todo="Complete the lists.")  # fmt: skip
    if len(set(ids)) != count:
        seen: set[str] = set()
        twice = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise InputError(where, expected="every id once", found=f"{count - len(set(ids))} repeated, first {twice!r}",
                         todo="Remove the repeated rows or files.")  # fmt: skip
    return ids


def _digest(parts: Sequence[str], positions: Positions | None) -> str:
    digest = hashlib.sha256("\n".join(parts).encode())
    if positions is not None:
        digest.update(repr(positions.frame).encode() + np.ascontiguousarray(positions.values).tobytes())
    return digest.hexdigest()[:16]


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
        object.__setattr__(self, "paths", tuple(self.paths))
        object.__setattr__(self, "ids", _checked(self.ids, len(self.paths), self.positions, self.where))

    def __len__(self) -> int:
        return len(self.ids)

    def file(self, index: int) -> str:
        """The absolute path of image `index`."""
        return f"{self.root}{os.sep}{self.paths[index]}"

    def read(self, index: int, size: tuple[int, int] | None = None) -> Tensor:
        """As `ImageSet.read`; InputError names a file that is absent, empty, truncated or no image."""
        return decode_file(self.file(index), size)

    def subset(self, rows: Rows) -> "FileImages":
        """The images at `rows`, in that order."""
        at = np.asarray(rows, np.int64)
        positions = None if self.positions is None else self.positions.take(at)
        ids, paths = (tuple(names[i] for i in at) for names in (self.ids, self.paths))
        return FileImages(self.root, ids, paths, positions, self.where)

    def digest(self) -> str:
        """Of ids, paths, positions, and every file's size and time of change: an exchanged file is another data set."""
        stats = []
        for index in range(len(self)):
            try:
                stat = os.stat(self.file(index))  # noqa: PTH116 - twice as fast as a Path, and there may be 1e5 files
                stats.append(f"{stat.st_size} {stat.st_mtime_ns}")
            except OSError:  # reported when the file is read
                stats.append("absent")
        return _digest([*self.ids, *self.paths, *stats], self.positions)


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Images of one size in one tensor, in memory or mapped from disk.

    Args:
        ids: an id an image, each once.
        pixels: uint8 (K, 3, H, W), RGB.
        positions: a position an image, or None.
        source: names the pixels where they come from the run cache; None: they are hashed when a digest is asked for.
        rows: int64 (N,), which of the K each image is; None: all in order. A subset shares the tensor and copies nothing.
    """

    ids: tuple[str, ...]
    pixels: Tensor
    positions: Positions | None = None
    source: str | None = None
    rows: Tensor | None = None

    def __post_init__(self) -> None:
        if isinstance(self.pixels, np.ndarray):
            with warnings.catch_warnings(action="ignore"):  # the array may be read-only: nothing writes to it
                object.__setattr__(self, "pixels", torch.from_numpy(self.pixels))
        assert self.pixels.dtype == torch.uint8
        object.__setattr__(self, "ids", _checked(self.ids, len(self), self.positions, self.source or "images"))

    def __len__(self) -> int:
        return len(self.pixels if self.rows is None else self.rows)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """The images at `rows`, (B,) int64 or a slice -> uint8 (B, 3, H, W)."""
        return self.pixels[rows if self.rows is None else self.rows[rows]]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[2], self.pixels.shape[3]

    def batches(self, batch_size: int) -> Iterator[Tensor]:
        """All images in order, uint8 (B, 3, H, W) each, the last one shorter."""
        return (self[first : first + batch_size] for first in range(0, len(self), batch_size))

    def read(self, index: int, size: tuple[int, int] | None = None) -> Tensor:
        """As `ImageSet.read`."""
        return resize(self[slice(index, index + 1)][0].clone(), size)

    def subset(self, rows: Rows) -> "ArrayImages":
        """The images at `rows`, in that order."""
        at = torch.as_tensor(np.asarray(rows, np.int64))
        positions = None if self.positions is None else self.positions.take(at.numpy())
        own = at if self.rows is None else self.rows[at]
        return ArrayImages(tuple(self.ids[i] for i in at.tolist()), self.pixels, positions, self.source, own)

    def digest(self) -> str:
        """Of ids, positions and pixels, or the name of the pixels' source."""
        source = self.source or hashlib.sha256(np.ascontiguousarray(self.pixels.numpy())).hexdigest()
        return _digest([source, *self.ids], self.positions)


@dataclass(frozen=True, eq=False)
class Positives:
    """Which of M gallery images are right for each of N queries, stored flat so that 1e5 rows are cheap.

    `positives[i]` is an int64 array of gallery indices, the best first (empty: known to have none), or None where unknown.

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
        assert len(self.offsets) == len(self.known) + 1
        assert self.offsets[-1] == len(self.indices)
        assert (lengths >= 0).all()

    @staticmethod
    def of(rows: Sequence[Sequence[int] | np.ndarray | None]) -> "Positives":
        """From a list for each query, or None where unknown."""
        flat = [np.asarray(() if row is None else row, np.int64) for row in rows]
        offsets = np.cumsum([0, *map(len, flat)])
        return Positives(offsets, np.concatenate([np.zeros(0, np.int64), *flat]), [row is not None for row in rows])

    @staticmethod
    def one_each(indices: Sequence[int] | np.ndarray) -> "Positives":
        """Exactly one gallery image for each query."""
        return Positives(np.arange(len(indices) + 1), indices, np.ones(len(indices), bool))

    @staticmethod
    def within(query: Positions, gallery: Positions, radius_m: float) -> "Positives":
        """The gallery images at most `radius_m` metres from each query, nearest first; positions of one frame."""
        offsets, indices = Neighbours(gallery).within(query, radius_m)
        return Positives(offsets, indices, np.ones(len(query), bool))

    @staticmethod
    def unknown(count: int) -> "Positives":
        """Pairs of `count` queries that nobody knows."""
        return Positives(np.zeros(count + 1), (), np.zeros(count, bool))

    def __len__(self) -> int:
        return len(self.known)

    def __getitem__(self, index: int) -> np.ndarray | None:
        return self.indices[self.offsets[index] : self.offsets[index + 1]] if self.known[index] else None

    def take(self, rows: Rows) -> "Positives":
        """The rows at `rows`, in that order."""
        return Positives.of([self[int(row)] for row in rows])

    def renumbered(self, numbers: np.ndarray) -> "Positives":
        """With gallery index i as `numbers[i]`; an index whose number is -1 goes."""
        kept = numbers[self.indices] >= 0
        row = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        counts = np.bincount(row[kept], minlength=len(self))
        return Positives(np.cumsum([0, *counts]), numbers[self.indices[kept]], self.known)

    def pairs(self) -> Tensor:
        """(P, 2) int64: every (query, gallery) pair, row by row."""
        query = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        return torch.from_numpy(np.stack([query, self.indices], axis=1))

    def best(self) -> Tensor:
        """(N,) int64: the best gallery index of each query, -1 where there is none or it is unknown."""
        first, some = np.full(len(self), -1, np.int64), np.diff(self.offsets) > 0
        first[some] = self.indices[self.offsets[:-1][some]]
        return torch.from_numpy(first)

    def digest(self) -> str:
        """Eight hex digits that change with any pair."""
        arrays = (self.offsets, self.indices, self.known)
        return hashlib.sha256(b"|".join(array.tobytes() for array in arrays)).hexdigest()[:8]


@dataclass(frozen=True, eq=False)
class Dataset:
    """N queries, M gallery images, and which belong together.

    Args:
        name: the data set ("cvusa", "vigor", ...).
        split: the part ("train", "val", "test", ...).
        query: the images that are looked up.
        gallery: the images that are searched.
        positives: gallery indices right for each query, the best first; None where unknown.
        semi_positives: VIGOR's tiles that show the place but off centre; None in every other data set.
        top_view: the queries projected to the ground plane, where `prepare` was asked for it.
        note: what a reader of results must know (protocol, what was left out); printed beside results.
        left_out: relative paths of files that are absent or unreadable, where the user let them be skipped.
        strip_offset: of panoramas cropped to a strip: how far above the middle of the whole panorama the strip's middle
            lies, as a fraction of its width; UCVGL's value for CVUSA is 20 / 1232.
        swapped: whether satellite images are the queries (satellite -> drone).

    Raises:
        InputError: rows that disagree with the images, an index outside the gallery, a side without images.
    """

    name: str
    split: str
    query: ImageSet
    gallery: ImageSet
    positives: Positives
    semi_positives: Positives | None = None
    top_view: ImageSet | None = None
    note: str = ""
    left_out: tuple[str, ...] = field(default=(), repr=False)
    strip_offset: float = 0.0
    swapped: bool = False

    def __post_init__(self) -> None:
        where = f"{self.name} {self.split}"
        for what, images in (("query", self.query), ("gallery", self.gallery)):
            if len(images) == 0:
                raise InputError(
                    f"{where}: {what}", expected="at least one image", found="none", todo="Check the folder."
                )
        for what, rows in (("positives", self.positives), ("semi_positives", self.semi_positives)):
            if rows is None:
                continue
            wrong = rows.indices[(rows.indices < 0) | (rows.indices >= len(self.gallery))]
            if len(rows) != len(self.query) or len(wrong):
                found = f"{len(rows)} rows" + (f", index {wrong[0]}" if len(wrong) else "")
                raise InputError(
                    f"{where}: {what}", expected=f"{len(self.query)} rows of indices below {len(self.gallery)}",
                    found=found, todo="Correct the pairs.",
                )  # fmt: skip

    def __len__(self) -> int:
        return len(self.query)

    @property
    def labelled(self) -> bool:
        """Whether the pairs of any query are known."""
        return bool(self.positives.known.any())

    def without_labels(self) -> "Dataset":
        """The same images with every pair unknown: what a method that claims 0 % labels is given."""
        note = f"{self.note} Labels hidden.".strip()
        return replace(self, positives=Positives.unknown(len(self)), semi_positives=None, note=note)

    def take(self, rows: Rows, gallery: Rows | None = None) -> "Dataset":
        """The data set with these queries alone; and, if given, with these gallery images alone."""
        kept = {
            "query": self.query.subset(rows), "positives": self.positives.take(rows),
            "semi_positives": self.semi_positives and self.semi_positives.take(rows),
            "top_view": self.top_view and self.top_view.subset(rows),
        }  # fmt: skip
        if gallery is not None:
            numbers = np.full(len(self.gallery), -1)
            numbers[np.asarray(gallery, np.int64)] = np.arange(len(gallery))
            kept["gallery"] = self.gallery.subset(gallery)
            for name in ("positives", "semi_positives"):
                kept[name] = kept[name] and kept[name].renumbered(numbers)
        return replace(self, **kept)

    def require(self, purpose: str, *, labels: bool = False, positions: bool = False) -> None:
        """InputError, before anything runs, where `purpose` needs what this data set does not have.

        Args:
            purpose: what needs it, as "supervised training".
            labels: pairs are known.
            positions: every query has a known position.
        """
        where = f"{self.name} {self.split}"
        if labels and not self.labelled:
            raise InputError(
                where, expected="pairs", found="none: this layout has no pairs", todo=f"{purpose} needs them."
            )
        at = self.query.positions
        if positions and (at is None or not at.known.all()):
            found = "none" if at is None else f"{int((~at.known).sum())} of {len(at)} unknown"
            raise InputError(where, expected="a position for every query", found=found, todo=f"{purpose} needs them.")

    def answerable(self) -> "Dataset":
        """Without the queries that no gallery image is right for; the note says how many. InputError if none is left."""
        rows = (self.positives.best() >= 0).nonzero()[:, 0]
        if len(rows) == len(self):
            return self
        if not len(rows):
            raise InputError(
                f"{self.name} {self.split}", expected="a query with a right gallery image", found="none",
                todo="Are queries and gallery of one place, and their positions in one frame?",
            )  # fmt: skip
        note = f"{self.note} {len(self) - len(rows)} of {len(self)} queries have no positive and are left out.".strip()
        return replace(self.take(rows), note=note)

    def digest(self) -> str:
        """Twelve hex digits of ids, files, positions and labels: what stands for the data in the run cache."""
        labels = [rows.digest() for rows in (self.positives, self.semi_positives) if rows is not None]
        parts = [self.name, self.split, self.query.digest(), self.gallery.digest(), *labels, repr(self.strip_offset)]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]


class Parts(NamedTuple):
    """A data set in parts: places of the tests are never trained on, and nothing is chosen by them."""

    train: Dataset
    tests: Mapping[str, Dataset]  # by name

    @property
    def test(self) -> Dataset:
        """The first of the tests."""
        return next(iter(self.tests.values()))

    @property
    def unlabelled(self) -> Dataset:
        """What a method that claims 0 % labels trains on."""
        return self.train.without_labels()


def joined(parts: Sequence[Dataset], name: str, radius_m: float) -> Dataset:
    """Several sets of one frame and size as one: every query is looked up in all galleries, and what is near is right,
    whichever set it is from (MSLS holds drives of one street at many times)."""
    sides = []
    for side in ("query", "gallery"):
        sets = [getattr(part, side) for part in parts]
        values = np.concatenate([images.positions.values for images in sets])
        sides.append(ArrayImages(
            tuple(f"{number}/{i}" for number, images in enumerate(sets) for i in images.ids),
            torch.cat([images[:] for images in sets]), Positions(values, sets[0].positions.frame, name),
            hashlib.sha256(" ".join(images.digest() for images in sets).encode()).hexdigest()[:16],
        ))  # fmt: skip
    hits = Positives.within(sides[0].positions, sides[1].positions, radius_m)
    return Dataset(name, "all", sides[0], sides[1], hits)
