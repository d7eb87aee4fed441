"""Satellite tiles -> overlapping candidate tiles, square, north up: what a city is searched in.

A candidate is a square in local metres, a transverse Mercator about the mosaic's middle; its pixels are looked up through
the linear part of the projections at its centre, which is exact to well below a millimetre over 100 m.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from rasterio.windows import Window
from torch import Tensor

from ucvgl.errors import InputError, check_number
from ucvgl.locate.rasters import Raster, pixels, quiet
from ucvgl.locate.tiles import Mosaic, from_degrees
from ucvgl.positions import Positions, Wgs84, from_metres

SPAN_M = 50.0  # edge of a candidate: what the embedded world's encoders learnt (WorldConfig, laptop profile)
SIZE_PX = 64  # of a candidate, as WorldConfig.tile_px; the laptop's encoders then read 48
LEAST_COVERED = 0.99  # of a candidate's area
GRID_MAX = 5_000_000  # candidates, before those that nothing covers are left out
COVER_STEPS = 24  # the covered share is counted on 24 x 24 points of a candidate
SAMPLES_MAX = 16  # source pixels averaged along an edge of a candidate's pixel, at most
CHUNK = 512  # candidates whose cover is counted at once


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
        """A digest of the source, the settings and the centres."""
        text = f"{self.mosaic.digest()} {self.span_m!r} {self.size_px}"
        return hashlib.sha256(text.encode() + self.centre_m.tobytes()).hexdigest()[:16]


def cut(
    mosaic: Mosaic, span_m: float = SPAN_M, stride_m: float | None = None, size_px: int = SIZE_PX, *,
    least_covered: float = LEAST_COVERED,
) -> Candidates:  # fmt: skip
    """Lays a grid of squares over the mosaic; nothing is decoded before a candidate is read.

    Args:
        mosaic: from `tiles.open_mosaic`.
        span_m: edge of a candidate on the ground; what the encoders were trained on.
        stride_m: between centres; a quarter of the span by default, so that no place is farther from the nearest centre
            than 0.18 spans, 8.8 m of 50. With half the span even a perfect search is off by 10 m at the median.
        size_px: edge in pixels.
        least_covered: fraction of a candidate's area that tiles must cover; the others are left out and counted.

    Raises:
        InputError: a setting out of range, a span larger than the mosaic, or no square covered enough.
    """
    span_m = check_number("span_m", span_m, unit="m", low=0)
    stride_m = check_number("stride_m", span_m / 4 if stride_m is None else stride_m, unit="m", low=0)
    low, high = mosaic.bounds_m
    extent = high - low
    if span_m > extent.min() * (1 + 1e-4):
        raise InputError(
            "span_m", expected=f"at most the mosaic's {extent[0]:.1f} m by {extent[1]:.1f} m", found=f"{span_m:g} m",
            todo="Add tiles, or give a smaller span.",
        )  # fmt: skip
    count = np.floor((extent - span_m) / stride_m + 1e-3).clip(0).astype(np.int64) + 1  # (2,) east, north
    if count.prod() > GRID_MAX:
        raise InputError(
            "stride_m", expected=f"at most {GRID_MAX:,} candidates", found=f"{count.prod():,}",
            todo="Give a wider stride.",
        )  # fmt: skip
    first = low + span_m / 2 + (extent - span_m - (count - 1) * stride_m) / 2
    covered = _covered(mosaic, first, stride_m, span_m, count)  # (rows from the south, columns)
    row, column = np.nonzero(covered >= least_covered - 1e-9)
    if len(row) == 0:
        raise InputError(
            mosaic.root, expected=f"a square of {span_m:g} m covered by {least_covered:.0%}",
            found=f"{count.prod():,} squares, the best covered by {covered.max():.0%}",
            todo="Give a smaller span, or tiles without gaps.",
        )  # fmt: skip
    order = np.lexsort((column, -row))  # from the north, as files are decoded
    row, column = row[order], column[order]
    ids = tuple(f"{n:05d}_{e:05d}" for n, e in zip(row.tolist(), column.tolist(), strict=True))
    centre_m = first + np.stack([column, row], 1) * stride_m
    left_out = int(count.prod() - len(ids))
    return Candidates(mosaic, span_m, stride_m, size_px, ids, centre_m, covered[row, column], left_out)


def _covered(mosaic: Mosaic, first: np.ndarray, stride_m: float, span_m: float, count: np.ndarray) -> np.ndarray:
    """(rows, columns) shares of the grid's squares that lie in a file, or within half a pixel of its edge, as sampling reaches."""
    steps = ((np.arange(COVER_STEPS) + 0.5) / COVER_STEPS - 0.5) * span_m
    east, north = (axis.ravel() for axis in np.meshgrid(steps, steps))
    points = np.stack([east, north, np.ones_like(east)])  # (3, P)
    inside = np.zeros((count.prod(), len(east) // 8), np.uint8)  # a bit a point: several files may cover a square
    low, high = mosaic.boxes_m
    start = (np.floor((low - span_m / 2 - first) / stride_m) + 1).clip(0).astype(np.int64)
    stop = np.minimum(np.ceil((high + span_m / 2 - first) / stride_m).astype(np.int64), count)
    for raster, (e0, n0), (e1, n1) in zip(mosaic.rasters, start.tolist(), stop.tolist(), strict=True):
        cells = (np.arange(n0, n1)[:, None] * count[0] + np.arange(e0, e1)).ravel()
        for some in (cells[at : at + CHUNK] for at in range(0, len(cells), CHUNK)):
            centre = first + np.stack([some % count[0], some // count[0]], 1) * stride_m
            to_pixel = _to_pixel(raster, _cross(mosaic.origin, centre, span_m), span_m)
            column, row = np.moveaxis(to_pixel @ points, 1, 0)  # (C, P) each
            hit = (column > -1) & (column < raster.width) & (row > -1) & (row < raster.height)
            if raster.ground is not None:
                high_px, wide_px = raster.ground.shape
                rows = ((row + 0.5) / raster.height * high_px).astype(int).clip(0, high_px - 1)
                columns = ((column + 0.5) / raster.width * wide_px).astype(int).clip(0, wide_px - 1)
                hit &= raster.ground[rows, columns]
            inside[some] |= np.packbits(hit, axis=1)
    return (np.bitwise_count(inside).sum(1) / len(east)).reshape(count[1], count[0])


def _cross(origin: tuple[float, float], centre_m: np.ndarray, span_m: float) -> np.ndarray:
    """(P, 5, 2) latitude and longitude of centres (P, 2) and of the middles of their squares' edges: east, west, north, south."""
    half = span_m / 2
    steps = np.array([(0, 0), (half, 0), (-half, 0), (0, half), (0, -half)])
    return from_metres((centre_m[:, None] + steps).reshape(-1, 2), origin).reshape(-1, 5, 2)


def _to_pixel(raster: Raster, cross: np.ndarray, span_m: float) -> np.ndarray:
    """(P, 2, 3) from metres (east, north, 1) about centres to pixels of a file, by central differences on `_cross`."""
    lat, lon = np.moveaxis(cross, -1, 0)
    at = np.stack(from_degrees(raster.crs).transform(lon, lat), axis=-1)  # (P, 5, 2)
    linear = np.stack([(at[:, 1] - at[:, 2]) / span_m, (at[:, 3] - at[:, 4]) / span_m, at[:, 0]], axis=2)
    linear[:, :, 2] -= raster.affine[:, 2]
    return np.linalg.inv(raster.affine[:, :2]) @ linear


def paint(mosaic: Mosaic, centre_m: np.ndarray, span_m: float, size_px: int) -> tuple[Tensor, Tensor]:
    """A square of the mosaic: uint8 (3, S, S), north up, black where nothing is, and bool (S, S), where something is.

    Each pixel is the mean of bilinear samples, about one for each source pixel it covers.

    Args:
        mosaic: the source.
        centre_m: (2,) metres east and north in its frame.
        span_m: edge on the ground; up to some hundred metres, over which the projections are as good as linear.
        size_px: edge in pixels.

    Raises:
        InputError: a file that cannot be read.
    """
    low, high = mosaic.boxes_m
    files = np.flatnonzero(((low < centre_m + span_m / 2) & (high > centre_m - span_m / 2)).all(1))
    if len(files) == 0:
        return torch.zeros(3, size_px, size_px, dtype=torch.uint8), torch.zeros(size_px, size_px, dtype=torch.bool)
    ratio = span_m / size_px / mosaic.resolution_m[files]
    # files are first shrunk by the largest power of two up to the ratio, then sampled bilinearly
    factors = 2 ** np.log2((ratio * 1.01).clip(1, 2**11)).astype(np.int64)
    samples = int(np.clip(np.ceil((ratio / factors).max() - 0.01), 1, SAMPLES_MAX))
    count = size_px * samples
    steps = ((torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5) * span_m
    east, north = steps[None, :], -steps[:, None]
    total = torch.zeros(4, count, count)  # colours times weight, and the weight
    cross = _cross(mosaic.origin, centre_m[None], span_m)
    with quiet():
        for file, factor in zip(files.tolist(), factors.tolist(), strict=True):
            (to_pixel,) = _to_pixel(mosaic.rasters[file], cross, span_m)
            column, row = ((m[0] * east + m[1] * north + m[2] + 0.5) / factor - 0.5 for m in to_pixel)
            total += _sampled(mosaic, mosaic.rasters[file], factor, column, row)
    value = torch.where(total[3] > 1e-4, total[:3] / total[3].clamp_min(1e-4), 0.0)
    colours = F.avg_pool2d(value[None], samples)[0].round_().clamp_(0, 255).to(torch.uint8)
    return colours, F.max_pool2d(total[None, 3:], samples)[0, 0] > 1e-4


def _sampled(mosaic: Mosaic, raster: Raster, factor: int, column: Tensor, row: Tensor) -> Tensor:
    """Bilinear samples (4, n, n) of a file, shrunk by a factor, at pixels (n, n) of that: colours times weight and the weight.

    Beyond the outermost pixel centres the weight falls to 0 over a pixel. So tiles that lie edge to edge add up, and
    colours are interpolated across their border.
    """
    height, width = -(-raster.height // factor), -(-raster.width // factor)
    left, top = (max(int(v.min().floor()), 0) for v in (column, row))
    right, bottom = min(int(column.max().floor()) + 2, width), min(int(row.max().floor()) + 2, height)
    if right <= left or bottom <= top:
        return torch.zeros(4, *column.shape)
    corner = Window(left * factor, top * factor, (right - left) * factor, (bottom - top) * factor)
    window = corner.intersection(Window(0, 0, raster.width, raster.height))
    image = torch.from_numpy(pixels(mosaic.root, raster, window, mosaic.stretch.get(raster.kind))).float()
    weight = image[3:] / 255
    image = torch.cat([image[:3] * weight, weight])
    if factor > 1:
        image = F.avg_pool2d(F.pad(image, (0, -image.shape[2] % factor, 0, -image.shape[1] % factor)), factor)
        image[:3].round_()
    x, y = (2 * (column - left) + 1) / (right - left) - 1, (2 * (row - top) + 1) / (bottom - top) - 1
    points = torch.stack([x, y], -1).float()
    return F.grid_sample(image[None], points[None], "bilinear", "zeros", align_corners=False)[0]
