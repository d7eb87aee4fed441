"""Satellite tiles -> overlapping candidate tiles, square, north up: the gallery of a city.

GDAL warps the files into one picture in local metres, a transverse Mercator about the mosaic's middle; a candidate is a
square of it.
"""

import hashlib
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from scipy.ndimage import binary_closing
from torch import Tensor

from ucvgl.errors import InputError, check_number
from ucvgl.locate.rasters import pixels, quiet
from ucvgl.locate.tiles import Mosaic, local_crs
from ucvgl.positions import Positions, Wgs84, from_metres

SPAN_M = 50.0  # edge of a candidate: what the embedded world's encoders learnt (WorldConfig, laptop profile)
SIZE_PX = 64  # of a candidate, as WorldConfig.tile_px; the laptop's encoders then read 48
LEAST_COVERED = 0.99  # of a candidate's area
GRID_MAX = 5_000_000  # candidates, before those that nothing covers are left out
PICTURE_MAX = 1_000_000_000  # pixels of the whole mosaic, which take 8 GB while it is painted
PART_PX = 2048  # edge of the part of a file that is read at a time
CUT = "painted"  # how pixels are cut; to be changed with that, so that kept candidates are not taken for new ones


@dataclass(frozen=True, eq=False)
class Candidates:
    """N square candidate tiles, north up."""

    mosaic: Mosaic  # the source
    span_m: float  # edge on the ground, metres
    stride_m: float  # between centres, metres
    size_px: int  # edge in pixels
    ids: tuple[str, ...]  # row and column in the grid of centres, counted from the south-west
    centre_m: np.ndarray  # (N, 2) float64 metres east and north in the mosaic's frame
    corner_px: np.ndarray  # (N, 2) int64 row and column of their north-western pixels in `picture`
    picture: Tensor  # uint8 (3, H, W) all of the mosaic, black where nothing is
    left_out: int  # squares of the grid that are covered less than was asked for

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def positions(self) -> Positions:
        """The centres as latitude and longitude."""
        return Positions(from_metres(self.centre_m, self.mosaic.origin), Wgs84(), self.mosaic.root)

    def read(self, index: int) -> Tensor:
        """Candidate `index` as uint8 (3, S, S)."""
        row, column = self.corner_px[index].tolist()
        return self.picture[:, row : row + self.size_px, column : column + self.size_px].contiguous()

    def digest(self) -> str:
        """A digest of the source, the way of cutting, the settings and the centres."""
        text = f"{CUT} {self.mosaic.digest()} {self.span_m!r} {self.size_px}"
        return hashlib.sha256(text.encode() + self.centre_m.tobytes()).hexdigest()[:16]


def cut(
    mosaic: Mosaic, span_m: float = SPAN_M, stride_m: float | None = None, size_px: int = SIZE_PX, *,
    least_covered: float = LEAST_COVERED,
) -> Candidates:  # fmt: skip
    """Lays a grid of squares of span_m over the mosaic.

    stride_m, between centres, becomes whole pixels; a quarter of the span by default, so that no place is farther from the
    nearest centre than 0.18 spans, 8.8 m of 50: with half the span even a perfect search is off by 10 m at the median.
    Squares that tiles cover less than `least_covered` are left out and counted. InputError: a setting out of range, no
    square covered enough, a tile that cannot be read.
    """
    span_m = check_number("span_m", span_m, unit="m", low=0)
    stride_m = check_number("stride_m", span_m / 4 if stride_m is None else stride_m, unit="m", low=0)
    step = max(1, round(stride_m * size_px / span_m))  # pixels
    stride_m = step * span_m / size_px
    low, high = mosaic.bounds_m
    spare = high - low - span_m
    count = np.floor(spare / stride_m + 1e-3).clip(0).astype(np.int64) + 1  # (2,) east, north
    if count.prod() > GRID_MAX:
        raise InputError("stride_m", expected=f"at most {GRID_MAX:,} candidates", found=f"{count.prod():,}",
                         todo="Give a wider stride.")  # fmt: skip
    first = low + span_m / 2 + (spare - (count - 1) * stride_m) / 2
    middle, shape = first + (count - 1) * stride_m / 2, (count - 1)[::-1] * step + size_px
    if shape.prod() > PICTURE_MAX:
        raise InputError(mosaic.root, expected=f"at most {PICTURE_MAX:,} pixels of {span_m / size_px:.3g} m",
                         found=f"{shape[1]:,} x {shape[0]:,} around all tiles",
                         todo="Give a wider span, or tiles of a smaller area.")  # fmt: skip
    picture, there = paint(mosaic, middle, span_m / size_px, tuple(shape.tolist()))
    squares = np.lib.stride_tricks.sliding_window_view(there.numpy(), (size_px, size_px))[::step, ::step]
    covered = squares.mean((2, 3))  # (rows from the north, columns)
    row, column = np.nonzero(covered >= least_covered - 1e-9)
    if len(row) == 0:
        raise InputError(mosaic.root, expected=f"a square of {span_m:g} m covered by {least_covered:.0%}",
                         found=f"{count.prod():,} squares, the best covered by {covered.max():.0%}",
                         todo="Give a smaller span, or tiles without gaps.")  # fmt: skip
    north = count[1] - 1 - row
    ids = tuple(f"{n:05d}_{e:05d}" for n, e in zip(north.tolist(), column.tolist(), strict=True))
    centre_m, corner_px = first + np.stack([column, north], 1) * stride_m, np.stack([row, column], 1) * step
    left_out = int(count.prod() - len(ids))
    return Candidates(mosaic, span_m, stride_m, size_px, ids, centre_m, corner_px, picture, left_out)


def paint(mosaic: Mosaic, centre_m: np.ndarray, pixel_m: float, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """A rectangle about a place (2,) of the mosaic: uint8 (3, *shape), north up, black where nothing is, and bool (*shape), where
    something is; of files that overlap the first. InputError: a file that cannot be read."""
    size = np.array(shape[::-1])  # columns and rows
    west, north = centre_m + size * (-0.5, 0.5) * pixel_m
    picture, there = np.zeros((3, *shape), np.uint8), np.zeros(shape, bool)
    corners = (mosaic.corners_m - (west, north)) / (pixel_m, -pixel_m)  # (N, 4, 2) columns and rows
    begin, end = np.floor(corners.min(1)).clip(0, size), np.ceil(corners.max(1)).clip(0, size)
    with quiet():
        for i in np.flatnonzero((begin < end).all(1)):
            (left, top), (right, below) = begin[i].astype(int).tolist(), end[i].astype(int).tolist()
            for row, column in product(range(top, below, PART_PX), range(left, right, PART_PX)):
                corner = west + column * pixel_m, north - row * pixel_m
                part = np.s_[row : min(row + PART_PX, below), column : min(column + PART_PX, right)]
                shown = there[part]
                colours, ground = pixels(mosaic.rasters[i], local_crs(mosaic.origin), corner, pixel_m, shown.shape)
                np.copyto(picture[:, *part], colours, where=ground & ~shown)
                shown |= ground
    # between files that meet within a pixel: the mean of what is around
    closed = binary_closing(np.pad(there, 1, mode="edge"), np.ones((3, 3)))[1:-1, 1:-1]
    row, column = np.nonzero(closed & ~there)
    steps = product((-1, 0, 1), repeat=2)
    near = [np.ravel_multi_index((row + down, column + right), shape, mode="clip") for down, right in steps]
    mean = picture.reshape(3, -1)[:, near].sum(1) / there.ravel()[near].sum(0)
    picture[:, row, column], there[row, column] = mean.round(), True
    return torch.from_numpy(picture), torch.from_numpy(there)
