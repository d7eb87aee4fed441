"""The one container: what is searched for (`query`: panoramas, drone images, photos), what is searched (`gallery`: satellite
tiles, photos), and which images belong together. Nothing assumes 1:1, as the published code of UCVGL and Sample4Geo does.
Readers return it backed by files, `prepare` backed by tensors of one size.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from ucvgl.data.decoding import decode_file, resize
from ucvgl.errors import InputError
from ucvgl.positions import Neighbours, Positions

Rows = Sequence[int] | np.ndarray | Tensor


class ImageSet:
    """Ordered images, each with an id and, if known, a position; pixels are read when they are asked for."""

    ids: tuple[str, ...]
    positions: Positions | None

    def _check(self, count: int, where: str) -> None:
        object.__setattr__(self, "ids", tuple(self.ids))
        assert len(self.ids) == count
        assert self.positions is None or len(self.positions) == count
        repeated = [name for name, times in Counter(self.ids).items() if times > 1]
        if repeated:
            raise InputError(where, expected="every id once", found=f"{len(repeated)} repeated, first {repeated[0]!r}",
                             todo="Remove the repeated rows or files.")  # fmt: skip

    def __len__(self) -> int:
        return len(self.ids)

    def subset(self, rows: Rows) -> Self:
        """The images at `rows`, in that order."""
        at = np.asarray(rows, np.int64)
        ids, positions = [self.ids[i] for i in at], self.positions and self.positions.take(at)
        return replace(self, ids=ids, positions=positions, **self._pixels(at))

    def _digest(self, parts: Sequence[str]) -> str:
        digest = hashlib.sha256("\n".join(parts).encode())
        if self.positions is not None:
            digest.update(repr(self.positions.frame).encode() + np.ascontiguousarray(self.positions.values).tobytes())
            if self.positions.heading_deg is not None:
                digest.update(np.ascontiguousarray(self.positions.heading_deg).tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class FileImages(ImageSet):
    """Images in files below a folder."""

    root: str  # the data set's folder
    ids: tuple[str, ...]  # each once
    paths: tuple[str, ...]  # the file of each image, relative to `root`
    positions: Positions | None = None
    where: str = "image set"  # the list or folder the images came from, for error messages
    others: tuple[str, ...] = ()  # relative paths of files beside them, of kinds that are not read

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", tuple(self.paths))
        self._check(len(self.paths), self.where)

    def file(self, index: int) -> str:
        """The absolute path of image `index`."""
        return f"{self.root}{os.sep}{self.paths[index]}"

    def read(self, index: int, size: tuple[int, int] | None = None) -> Tensor:
        """Image `index` as uint8 (3, H, W), RGB, of `size` (height, width) if given; InputError names an unreadable file."""
        return decode_file(self.file(index), size)

    def _pixels(self, at: np.ndarray) -> dict[str, tuple[str, ...]]:
        return {"paths": tuple(self.paths[i] for i in at)}

    def digest(self) -> str:
        """Of ids, paths, positions, and every file's size and time of change: an exchanged file is another data set."""
        stats = []
        for index in range(len(self)):
            with suppress(OSError):  # absent: reported when it is read
                stat = os.stat(self.file(index))  # noqa: PTH116 - twice as fast as a Path, and there may be 1e5 files
                stats.append(f"{index} {stat.st_size} {stat.st_mtime_ns}")
        return self._digest([*self.ids, *self.paths, *stats])


@dataclass(frozen=True, eq=False)
class ArrayImages(ImageSet):
    """Images of one size in one tensor, in memory or mapped from disk; a subset shares the tensor and copies nothing."""

    ids: tuple[str, ...]  # each once
    pixels: Tensor  # uint8 (K, 3, H, W), RGB
    positions: Positions | None = None
    source: str | None = None  # names pixels of the run cache; others are hashed when a digest is asked for
    rows: Tensor | None = None  # int64 (N,), which of the K each image is; None: all in order

    def __post_init__(self) -> None:
        assert self.pixels.dtype == torch.uint8
        self._check(len(self.pixels if self.rows is None else self.rows), self.source or "images")

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """The images at `rows`, (B,) int64 or a slice -> uint8 (B, 3, H, W)."""
        return self.pixels[rows if self.rows is None else self.rows[rows]]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[2], self.pixels.shape[3]

    def read(self, index: int, size: tuple[int, int] | None = None) -> Tensor:
        """Image `index` as uint8 (3, H, W), RGB; resized to `size` (height, width) if given."""
        return resize(self[slice(index, index + 1)][0].clone(), size)

    def _pixels(self, at: np.ndarray) -> dict[str, Tensor]:
        return {"rows": torch.from_numpy(at) if self.rows is None else self.rows[at]}

    def digest(self) -> str:
        """Of ids, positions and pixels, or the name of the pixels' source."""
        source = self.source or hashlib.sha256(np.ascontiguousarray(self.pixels.numpy())).hexdigest()
        return self._digest([source, *self.ids])


@dataclass(frozen=True, eq=False)
class Positives:
    """Which gallery images are right for each of N queries, stored flat, as there may be 1e5. `positives[i]` is an
    int64 array of gallery indices, the best first (empty: known to have none), or None where unknown."""

    query: np.ndarray  # int64 (P,), ascending; gallery image `indices[p]` is right for query `query[p]`
    indices: np.ndarray  # int64 (P,), the best of each query first
    known: np.ndarray  # (N,) bool

    def __post_init__(self) -> None:
        for name, dtype in (("query", np.int64), ("indices", np.int64), ("known", bool)):
            value = np.array(getattr(self, name), dtype=dtype)
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        assert len(self.query) == len(self.indices)
        assert (np.diff(self.query) >= 0).all()

    @staticmethod
    def of(rows: Sequence[Sequence[int] | np.ndarray | None]) -> "Positives":
        """From a list for each query, or None where unknown."""
        flat = [np.asarray(() if row is None else row, np.int64) for row in rows]
        query = np.repeat(np.arange(len(flat)), [len(row) for row in flat])
        return Positives(query, np.concatenate([np.zeros(0, np.int64), *flat]), [row is not None for row in rows])

    @staticmethod
    def one_each(indices: Sequence[int] | np.ndarray) -> "Positives":
        """Exactly one gallery image for each query."""
        return Positives(np.arange(len(indices)), indices, np.ones(len(indices)))

    @staticmethod
    def within(query: Positions, gallery: Positions, radius_m: float) -> "Positives":
        """The gallery images at most `radius_m` metres from each query, nearest first; positions of one frame."""
        offsets, indices = Neighbours(gallery).within(query, radius_m)
        return Positives(np.repeat(np.arange(len(query)), np.diff(offsets)), indices, np.ones(len(query)))

    @staticmethod
    def unknown(count: int) -> "Positives":
        """Pairs of `count` queries that nobody knows."""
        return Positives((), (), np.zeros(count))

    def __len__(self) -> int:
        return len(self.known)

    def __getitem__(self, index: int) -> np.ndarray | None:
        return self.indices[slice(*np.searchsorted(self.query, [index, index + 1]))] if self.known[index] else None

    def take(self, rows: Rows) -> "Positives":
        """The rows at `rows`, in that order."""
        return Positives.of([self[int(row)] for row in rows])

    def renumbered(self, numbers: np.ndarray) -> "Positives":
        """With gallery index i as `numbers[i]`; an index whose number is -1 goes."""
        kept = numbers[self.indices] >= 0
        return Positives(self.query[kept], numbers[self.indices[kept]], self.known)

    def pairs(self) -> Tensor:
        """(P, 2) int64: every (query, gallery) pair, row by row."""
        return torch.from_numpy(np.stack([self.query, self.indices], axis=1))

    def best(self) -> Tensor:
        """(N,) int64: the best gallery index of each query, -1 where there is none or it is unknown."""
        rows, first = np.unique(self.query, return_index=True)
        best = torch.full((len(self),), -1)
        best[rows] = torch.from_numpy(self.indices[first])
        return best

    def padded(self) -> Tensor:
        """(N, most of a query) int64: the gallery indices of each query, the best first, -1 behind them."""
        counts = np.bincount(self.query, minlength=len(self))
        out = np.full((len(self), counts.max(initial=0)), -1)
        out[self.query, np.arange(len(self.query)) - np.repeat(counts.cumsum() - counts, counts)] = self.indices
        return torch.from_numpy(out)

    def digest(self) -> str:
        """Eight hex digits that change with any pair."""
        arrays = (self.query, self.indices, self.known)
        return hashlib.sha256(b"|".join(array.tobytes() for array in arrays)).hexdigest()[:8]


@dataclass(frozen=True, eq=False)
class Dataset:
    """N queries, M gallery images, and which belong together."""

    name: str  # "cvusa", "vigor", ...
    split: str  # "train", "val", "test", ...
    query: ImageSet  # what is looked up
    gallery: ImageSet  # what is searched
    positives: Positives
    semi_positives: Positives | None = None  # VIGOR's tiles that show the place but off centre
    top_view: ImageSet | None = None  # the queries projected to the ground plane, where `prepare` was asked for it
    note: str = ""  # what a reader of results must know (protocol, what was left out); printed beside results
    left_out: tuple[str, ...] = field(default=(), repr=False)  # paths of files absent or unreadable
    # of panoramas cropped to a strip: how far its middle lies above the whole one's, over its width (CVUSA 20 / 1232)
    strip_offset: float = 0.0
    swapped: bool = False  # satellite images are the queries (satellite -> drone)

    def __post_init__(self) -> None:
        assert min(len(self.query), len(self.gallery)) > 0, f"{self.name} {self.split}: a side without images"
        for rows in (self.positives, self.semi_positives):
            assert rows is None or len(rows) == len(self.query)
            assert rows is None or ((rows.indices >= 0) & (rows.indices < len(self.gallery))).all()

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
        positives, semi = (some and some.take(rows) for some in (self.positives, self.semi_positives))
        kept = self.gallery
        if gallery is not None:
            kept, numbers = self.gallery.subset(gallery), np.full(len(self.gallery), -1)
            numbers[np.asarray(gallery, np.int64)] = np.arange(len(gallery))
            positives, semi = (some and some.renumbered(numbers) for some in (positives, semi))
        return replace(self, query=self.query.subset(rows), gallery=kept, positives=positives, semi_positives=semi,
                       top_view=self.top_view and self.top_view.subset(rows))  # fmt: skip

    def evenly(self, wanted: int) -> "Dataset":
        """The data set with at most so many of the queries, evenly."""
        return self.take(np.linspace(0, len(self) - 1, min(wanted, len(self))).astype(np.int64))

    def require_labels(self, purpose: str) -> None:
        """InputError, before anything runs, where `purpose` ("supervised training") needs pairs and none is known."""
        if not self.labelled:
            raise InputError(f"{self.name} {self.split}", expected="pairs", found="none: this layout has no pairs",
                             todo=f"{purpose} needs them: name the two images of each alike, in query/ and gallery/.")  # fmt: skip

    def answerable(self) -> "Dataset":
        """Without the queries that no gallery image is right for; the note says how many. InputError if none is left."""
        rows = (self.positives.best() >= 0).nonzero()[:, 0]
        if not len(rows):
            raise InputError(f"{self.name} {self.split}", expected="a query with a right gallery image", found="none",
                             todo="Are queries and gallery of one place, and in one frame?")  # fmt: skip
        note = f"{self.note} {len(self) - len(rows)} of {len(self)} queries have no positive and are left out."
        return replace(self.take(rows), note=note.strip()) if len(rows) < len(self) else self

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
    """Several sets of one frame and size, with headings, as one: what is near is right, from whichever set, as in MSLS."""
    sides = []
    for sets in ([part.query for part in parts], [part.gallery for part in parts]):
        poses = [images.positions for images in sets]
        heading_deg = np.concatenate([pose.heading_deg for pose in poses])
        at = Positions(np.concatenate([pose.values for pose in poses]), poses[0].frame, name, heading_deg)
        ids = [f"{number}/{i}" for number, images in enumerate(sets) for i in images.ids]
        source = " ".join(images.digest() for images in sets)
        sides.append(ArrayImages(ids, torch.cat([images[:] for images in sets]), at, source))
    return Dataset(name, "all", *sides, Positives.within(sides[0].positions, sides[1].positions, radius_m))
