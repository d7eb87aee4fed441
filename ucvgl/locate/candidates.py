"""Satellite tiles -> overlapping candidate tiles, square, north up: what a city is searched in.

A candidate is a square in local metres, a transverse Mercator about the mosaic's middle; its pixels are looked up through
the linear part of the projections at its centre, which is exact to well below a millimetre over 100 m.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ucvgl.errors import InputError, check_number
from ucvgl.locate import rasters
from ucvgl.locate.tiles import Mosaic, to_source_coordinates
from ucvgl.positions import Positions, Wgs84, from_metres

SPAN_M = 50.0  # edge of a candidate: what the embedded world's encoders learnt (WorldConfig, laptop profile)
SIZE_PX = 64  # of a candidate, as WorldConfig.tile_px; the laptop's encoders then read 48
LEAST_COVERED = 0.99  # of a candidate's area
CACHE_BYTES = 256 << 20  # of decoded source tiles
GRID_MAX = 5_000_000  # candidates, before those that nothing covers are left out
COVER_STEPS = 24  # the covered share is counted on 24 x 24 points of a candidate
SAMPLES_MAX = 16  # source pixels averaged along an edge of a candidate's pixel, at most


class _Layout(NamedTuple):
    """Which source tiles a candidate overlaps, and where its metres lie in their pixels."""

    offsets: np.ndarray  # (K + 1,) candidate k has the pairs offsets[k] to offsets[k + 1]
    tile: np.ndarray  # (P,)
    to_pixel: np.ndarray  # (P, 2, 3) from metres (east, north, 1) about the candidate's centre to (column, row)


@dataclass(frozen=True, eq=False)
class Candidates:
    """N square candidate tiles, north up, cut when they are read.

    Neighbours in this order share source tiles. Where source tiles overlap they are averaged.

    Args:
        mosaic: the source.
        span_m: edge on the ground, metres.
        stride_m: between centres, metres.
        size_px: edge in pixels.
        ids: row and column in the grid of centres, counted from the south-west.
        centre_m: (N, 2) float64 metres east and north in the mosaic's frame.
        covered: (N,) float64 fraction of the area that source tiles cover; the rest is black.
        left_out: squares of the grid that are covered less than was asked for.
    """

    mosaic: Mosaic
    span_m: float
    stride_m: float
    size_px: int
    ids: tuple[str, ...]
    centre_m: np.ndarray
    covered: np.ndarray
    left_out: int
    _rows: np.ndarray = field(repr=False)
    _layout: _Layout = field(repr=False)
    _cache: "_Cache" = field(repr=False)
    _samples: int = field(repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def positions(self) -> Positions:
        """The centres as latitude and longitude."""
        return Positions(from_metres(self.centre_m, self.mosaic.origin), Wgs84(), self.mosaic.root)

    @property
    def positions_m(self) -> Positions:
        """The centres in local metres."""
        return Positions(self.centre_m, self.mosaic.frame, self.mosaic.root)

    def read(self, index: int) -> Tensor:
        """Candidate `index` as uint8 (3, S, S).

        Each pixel is the mean of samples x samples bilinear samples, about one for each source pixel it covers.

        Raises:
            InputError: a source tile that cannot be read.
        """
        row = self._rows[index]
        count = self.size_px * self._samples
        steps = ((torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5) * self.span_m
        east, north = steps[None, :], -steps[:, None]
        total = torch.zeros(4, count, count)  # colours times weight, and the weight
        for pair in range(self._layout.offsets[row], self._layout.offsets[row + 1]):
            tile, matrix = int(self._layout.tile[pair]), self._layout.to_pixel[pair]
            image, factor = self._cache.read(tile), int(self._cache.reduce[tile])
            column, line = ((m[0] * east + m[1] * north + m[2] + 0.5) / factor - 0.5 for m in matrix)
            total += _sampled(image, column, line)
        value = torch.where(total[3] > 1e-4, total[:3] / total[3].clamp_min(1e-4), 0.0)
        return F.avg_pool2d(value[None], self._samples)[0].round_().clamp_(0, 255).to(torch.uint8)

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
        mosaic: from `mosaic.open_mosaic`.
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
    cell, tile = _overlaps(mosaic, first, stride_m, span_m, count)
    cells, start = np.unique(cell, return_index=True)
    grid = np.stack([cells % count[0], cells // count[0]], 1)  # (K, 2) column from the west, row from the south
    centre = first + grid * stride_m
    offsets = np.append(start, len(cell))
    pair = np.repeat(np.arange(len(centre)), np.diff(offsets))  # (P,) whose pair each is
    layout = _Layout(offsets, tile, _to_pixel(mosaic, centre, span_m, pair, tile))
    covered = _covered(mosaic, layout, span_m)
    keep = np.flatnonzero(covered >= least_covered - 1e-9)
    if len(keep) == 0:
        raise InputError(
            mosaic.root, expected=f"a square of {span_m:g} m covered by {least_covered:.0%}",
            found=f"{count.prod():,} squares, the best covered by {covered.max():.0%}",
            todo="Give a smaller span, or tiles without gaps.",
        )  # fmt: skip
    keep = keep[_order(mosaic, layout, centre, grid, keep)]
    ratio = span_m / size_px / mosaic.resolution_m
    reduce = _reductions(mosaic.size_px, ratio)
    samples = int(np.clip(np.ceil((ratio / reduce)[np.unique(tile)].max() - 0.01), 1, SAMPLES_MAX))
    return Candidates(
        mosaic, span_m, stride_m, size_px, tuple(f"{n:05d}_{e:05d}" for e, n in grid[keep].tolist()), centre[keep],
        covered[keep], int(count.prod() - len(keep)), keep, layout, _Cache(mosaic, reduce), samples,
    )  # fmt: skip


def _overlaps(
    mosaic: Mosaic, first: np.ndarray, stride_m: float, span_m: float, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(P,) cells of the grid, ascending, and (P,) tiles whose bounding boxes they overlap."""
    low, high = mosaic.corners_m.min(1), mosaic.corners_m.max(1)  # (N, 2)
    start = (np.floor((low - span_m / 2 - first) / stride_m) + 1).clip(0).astype(np.int64)
    stop = np.minimum(np.ceil((high + span_m / 2 - first) / stride_m).astype(np.int64), count)
    cells, tiles = [], []
    for tile, ((e0, n0), (e1, n1)) in enumerate(zip(start.tolist(), stop.tolist(), strict=True)):
        inside = (np.arange(n0, n1)[:, None] * count[0] + np.arange(e0, e1)).ravel()
        cells.append(inside)
        tiles.append(np.full(len(inside), tile, np.int64))
    cell, tile = np.concatenate(cells), np.concatenate(tiles)
    order = np.argsort(cell, kind="stable")
    return cell[order], tile[order]


def _to_pixel(mosaic: Mosaic, centre: np.ndarray, span_m: float, pair: np.ndarray, tile: np.ndarray) -> np.ndarray:
    """(P, 2, 3) from metres (east, north, 1) about a candidate's centre to a tile's pixels, by central differences."""
    half = span_m / 2
    steps = ((0, 0), (half, 0), (-half, 0), (0, half), (0, -half))
    places = [from_metres(centre + np.array(step), mosaic.origin) for step in steps]
    linear = np.empty((len(pair), 2, 3))
    for number, text in enumerate(mosaic.systems):
        rows = mosaic.system[tile] == number
        middle, *ends = (to_source_coordinates(some, text) for some in places)
        found = np.stack([(ends[0] - ends[1]) / span_m, (ends[2] - ends[3]) / span_m, middle], axis=2)
        linear[rows] = found[pair[rows]]
    linear[:, :, 2] -= mosaic.to_source[tile, :, 2]
    return np.linalg.inv(mosaic.to_source[:, :, :2])[tile] @ linear


def _covered(mosaic: Mosaic, layout: _Layout, span_m: float) -> np.ndarray:
    """(K,) shares of the candidates that lie in a tile, or within half a pixel of its edge, as bilinear sampling reaches."""
    steps = ((np.arange(COVER_STEPS) + 0.5) / COVER_STEPS - 0.5) * span_m
    east, north = (axis.ravel() for axis in np.meshgrid(steps, steps))
    points = np.stack([east, north, np.ones_like(east)])  # (3, C)
    shares = []
    for first in range(0, len(layout.offsets) - 1, 512):
        offsets = layout.offsets[first : first + 513]
        pairs = slice(offsets[0], offsets[-1])
        column, row = np.moveaxis(layout.to_pixel[pairs] @ points, 1, 0)  # (p, C) each
        height, width = mosaic.size_px[layout.tile[pairs]].T[:, :, None]
        inside = (column > -1) & (column < width) & (row > -1) & (row < height)
        for k in np.flatnonzero([mosaic.ground[i] is not None for i in layout.tile[pairs]]):
            inside[k] &= _on_ground(mosaic, layout.tile[pairs][k], column[k], row[k])
        shares.append(np.logical_or.reduceat(inside, offsets[:-1] - offsets[0], axis=0).mean(1))
    return np.concatenate(shares)


def _on_ground(mosaic: Mosaic, tile: int, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """(C,) bool: which points of a tile are ground, by its grid."""
    grid, size = mosaic.ground[tile], mosaic.size_px[tile]
    at = [
        np.clip(((v + 0.5) / n * edge).astype(int), 0, edge - 1)
        for v, n, edge in zip((row, column), size, grid.shape, strict=True)
    ]
    return grid[at[0], at[1]]


def _order(mosaic: Mosaic, layout: _Layout, centre: np.ndarray, grid: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """An order in which candidates of one source tile follow each other, tiles from north to south, west to east."""
    candidate = np.repeat(np.arange(len(centre)), np.diff(layout.offsets))
    tiles = mosaic.centre_m
    away = np.hypot(*(centre[candidate] - tiles[layout.tile]).T)
    nearest = layout.tile[np.lexsort((away, candidate))[layout.offsets[:-1]]]  # (K,)
    line = np.round(-tiles[:, 1] / np.median(np.ptp(mosaic.corners_m[:, :, 1], axis=1)))
    rank = np.argsort(np.lexsort((tiles[:, 0], line)))
    return np.lexsort((grid[keep, 0], -grid[keep, 1], rank[nearest[keep]]))


def _reductions(size_px: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """(N,) by how much tiles are shrunk once decoded: the largest power of two up to the ratio that divides their size."""
    factor = np.ones(len(size_px), np.int64)
    for power in 2 ** np.arange(1, 12):
        factor[(power <= ratio * 1.01) & (size_px % power == 0).all(1)] = power
    return factor


def _sampled(image: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """Bilinear samples (4, n, n) of uint8 (4, H, W), colours and weight, at pixels (n, n): colours times weight and the weight.

    Beyond the outermost pixel centres the weight falls to 0 over a pixel. So tiles that lie edge to edge add up, and
    colours are interpolated across their border.
    """
    height, width = image.shape[1:]
    left, top = (max(int(v.min().floor()), 0) for v in (column, row))
    right, bottom = min(int(column.max().floor()) + 2, width), min(int(row.max().floor()) + 2, height)
    if right <= left or bottom <= top:
        return torch.zeros(4, *column.shape)
    part = image[:, top:bottom, left:right].float()
    weight = part[3:] / 255
    part = torch.cat([part[:3] * weight, weight])
    x, y = (2 * (column - left) + 1) / (right - left) - 1, (2 * (row - top) + 1) / (bottom - top) - 1
    points = torch.stack([x, y], -1).float()
    return F.grid_sample(part[None], points[None], "bilinear", "zeros", align_corners=False)[0]


class _Cache:
    """Decoded, shrunk source tiles, the last used ones, up to CACHE_BYTES; never fewer than one."""

    def __init__(self, mosaic: Mosaic, reduce: np.ndarray) -> None:
        self.mosaic, self.reduce = mosaic, reduce
        self.held: OrderedDict[int, Tensor] = OrderedDict()
        self.bytes = 0
        self.source = rasters.Source(mosaic.root)

    def read(self, tile: int) -> Tensor:
        """Tile `tile`, shrunk by its factor: uint8 (4, h, w), colours and weight."""
        if tile in self.held:
            self.held.move_to_end(tile)
            return self.held[tile]
        mosaic, factor = self.mosaic, int(self.reduce[tile])
        number = int(mosaic.file[tile])
        image = self.source.read(mosaic.files[number], mosaic.windows[tile], mosaic.stretch.get(mosaic.kinds[number]))
        image = _shrunk(torch.from_numpy(image), factor)
        self.held[tile] = image
        self.bytes += image.numel()
        while self.bytes > CACHE_BYTES and len(self.held) > 1:
            self.bytes -= self.held.popitem(last=False)[1].numel()
        return image


def _shrunk(image: Tensor, factor: int) -> Tensor:
    """uint8 (4, H, W) -> (4, H / factor, W / factor): colours are means of what is ground."""
    if factor == 1:
        return image
    strips = []
    for part in image.split(256 * factor, dim=1):  # a few rows at a time: as floats it would take four times its bytes
        weight = F.avg_pool2d(part[3:].float(), factor)
        colour = F.avg_pool2d(part[:3].float() * (part[3:] > 0), factor) * 255 / weight.clamp_min(1e-6)
        strips.append(torch.cat([colour, weight]).round_().clamp_(0, 255).to(torch.uint8))
    return torch.cat(strips, dim=1)
