"""Satellite tiles -> overlapping candidate tiles, square, north up: the gallery of a city.

A candidate is a square in local metres, a transverse Mercator about the mosaic's middle, into which GDAL warps the files.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import binary_closing, uniform_filter
from torch import Tensor

from ucvgl.errors import InputError, check_number
from ucvgl.locate.rasters import pixels, quiet
from ucvgl.locate.tiles import Mosaic, local_crs
from ucvgl.positions import Positions, Wgs84, from_metres

SPAN_M = 50.0  # edge of a candidate: what the embedded world's encoders learnt (WorldConfig, laptop profile)
SIZE_PX = 64  # of a candidate, as WorldConfig.tile_px; the laptop's encoders then read 48
LEAST_COVERED = 0.99  # of a candidate's area
GRID_MAX = 5_000_000  # candidates, before those that nothing covers are left out
CUT = "warped"  # how pixels are cut; to be changed with that, so that kept candidates are not taken for new ones
COVER_STEPS = 24  # the covered share is counted on 24 x 24 points of a candidate, about


@dataclass(frozen=True, eq=False)
class Candidates:
    """N square candidate tiles, north up, cut when they are read. Where source tiles overlap they are averaged."""

    mosaic: Mosaic  # the source
    span_m: float  # edge on the ground, metres
    stride_m: float  # between centres, metres
    size_px: int  # edge in pixels
    ids: tuple[str, ...]  # row and column in the grid of centres, counted from the south-west
    centre_m: np.ndarray  # (N, 2) float64 metres east and north in the mosaic's frame
    covered: np.ndarray  # (N,) float64 fraction of the area that source tiles cover; the rest is black
    left_out: int  # squares of the grid that are covered less than was asked for

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def positions(self) -> Positions:
        """The centres as latitude and longitude."""
        return Positions(from_metres(self.centre_m, self.mosaic.origin), Wgs84(), self.mosaic.root)

    def read(self, index: int) -> Tensor:
        """Candidate `index` as uint8 (3, S, S); InputError names a source tile that cannot be read."""
        return paint(self.mosaic, self.centre_m[index], self.span_m, self.size_px)[0]

    def digest(self) -> str:
        """A digest of the source, the way of cutting, the settings and the centres."""
        text = f"{CUT} {self.mosaic.digest()} {self.span_m!r} {self.size_px}"
        return hashlib.sha256(text.encode() + self.centre_m.tobytes()).hexdigest()[:16]


def cut(
    mosaic: Mosaic, span_m: float = SPAN_M, stride_m: float | None = None, size_px: int = SIZE_PX, *,
    least_covered: float = LEAST_COVERED,
) -> Candidates:  # fmt: skip
    """Lays a grid of squares of span_m over the mosaic; nothing is decoded before a candidate is read.

    stride_m, between centres, becomes whole pixels, so that a file is warped once for all; a quarter of the span by default,
    so that no place is farther from the nearest centre than 0.18 spans, 8.8 m of 50: with half the span even a perfect search
    is off by 10 m at the median. Squares that tiles cover less than `least_covered` are left out and counted.

    Raises:
        InputError: a setting out of range, or no square covered enough.
    """
    span_m = check_number("span_m", span_m, unit="m", low=0)
    stride_m = check_number("stride_m", span_m / 4 if stride_m is None else stride_m, unit="m", low=0)
    stride_m = max(1, round(stride_m * size_px / span_m)) * span_m / size_px
    low, high = mosaic.bounds_m
    spare = high - low - span_m
    count = np.floor(spare / stride_m + 1e-3).clip(0).astype(np.int64) + 1  # (2,) east, north
    if count.prod() > GRID_MAX:
        expected = f"at most {GRID_MAX:,} candidates"
        raise InputError("stride_m", expected=expected, found=f"{count.prod():,}", todo="Give a wider stride.")
    first = low + span_m / 2 + (spare - (count - 1) * stride_m) / 2
    covered = _covered(mosaic, first, stride_m, span_m, count)  # (rows from the north, columns)
    row, column = np.nonzero(covered >= least_covered - 1e-9)  # from the north, as files are decoded
    if len(row) == 0:
        raise InputError(
            mosaic.root, expected=f"a square of {span_m:g} m covered by {least_covered:.0%}",
            found=f"{count.prod():,} squares, the best covered by {covered.max():.0%}",
            todo="Give a smaller span, or tiles without gaps.",
        )  # fmt: skip
    north = count[1] - 1 - row
    ids = tuple(f"{n:05d}_{e:05d}" for n, e in zip(north.tolist(), column.tolist(), strict=True))
    centre_m = first + np.stack([column, north], 1) * stride_m
    left_out = int(count.prod() - len(ids))
    return Candidates(mosaic, span_m, stride_m, size_px, ids, centre_m, covered[row, column], left_out)


def _covered(mosaic: Mosaic, first: np.ndarray, stride_m: float, span_m: float, count: np.ndarray) -> np.ndarray:
    """(rows from the north, columns) shares of the squares that files cover, by cells of which a stride has a whole number."""
    step = int(np.ceil(COVER_STEPS * stride_m / span_m))
    cell_m, side = stride_m / step, max(1, round(span_m * step / stride_m))
    size = (count - 1) * step + side  # (2,) cells
    corner = first + (count - 1) * (0, stride_m) + np.multiply(side * cell_m / 2, (-1, 1))
    there = np.zeros(size[::-1], bool)
    with quiet():
        for raster, corners in zip(mosaic.rasters, mosaic.corners_m, strict=True):
            cells = (corners - corner) / (cell_m, -cell_m)  # (4, 2) columns and rows
            left, top = np.floor(cells.min(0)).astype(int).clip(0, size).tolist()
            right, below = np.ceil(cells.max(0)).astype(int).clip(0, size).tolist()
            here = corner[0] + left * cell_m, corner[1] - top * cell_m
            shape = below - top, right - left
            there[top:below, left:right] |= pixels(raster, local_crs(mosaic.origin), here, cell_m, shape)[1]
    there |= binary_closing(there, np.ones((3, 3)))  # files that meet within a cell
    return np.lib.stride_tricks.sliding_window_view(there, (side, side))[::step, ::step].mean((2, 3))


def paint(mosaic: Mosaic, centre_m: np.ndarray, span_m: float, size_px: int) -> tuple[Tensor, Tensor]:
    """A square about a place (2,) of the mosaic: uint8 (3, S, S), north up, black where nothing is, and bool (S, S), where
    something is. InputError: a file that cannot be read."""
    low, high = centre_m - span_m / 2, centre_m + span_m / 2
    near = (mosaic.corners_m.min(1) < high) & (mosaic.corners_m.max(1) > low)
    total = np.zeros((4, size_px, size_px), np.float32)  # colours, and how many files show them
    with quiet():
        for raster in (mosaic.rasters[at] for at in np.flatnonzero(near.all(1))):
            corner, size = (low[0], high[1]), (size_px, size_px)
            colours, ground = pixels(raster, local_crs(mosaic.origin), corner, span_m / size_px, size)
            total += np.concatenate([np.broadcast_to(colours, (3, *size)), ground[None]]) * ground
    gap = binary_closing(total[3] > 0, np.ones((3, 3)), border_value=1) & (total[3] == 0)
    total[:, gap] = uniform_filter(total, (0, 3, 3))[:, gap]  # between files that meet within a pixel
    mean = (total[:3] / np.where(total[3] > 0, total[3], 1)).round().astype(np.uint8)
    return torch.from_numpy(mean), torch.from_numpy(total[3] > 0)
