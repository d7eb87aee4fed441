"""Positions on the Earth or in a local frame, distances between them, and neighbours without an N x N matrix.

A `Positions` says by its frame what its numbers are: degrees on `Wgs84`, or `Metres` of a stated frame. Distances on WGS84 are
great-circle distances on the sphere of mean radius (the published sampling handed degrees to a haversine of radians)."""

from dataclasses import dataclass, replace

import numpy as np
from pyproj import Proj

from ucvgl.errors import InputError

EARTH_RADIUS_M = 6_371_008.8  # IUGG mean radius of the WGS84 ellipsoid


@dataclass(frozen=True)
class Wgs84:
    """Latitude and longitude in degrees, north and east positive."""


@dataclass(frozen=True)
class Metres:
    """East and north in metres of a frame in words, as "UTM 55S"; sets are comparable only if their origins are equal."""

    origin: str


@dataclass(frozen=True, eq=False)
class Positions:
    """Positions of N images, and where they look, immutable; a row of NaN is an image whose position is not known.
    InputError for half-known rows, infinite values, or degrees outside the Earth."""

    values: np.ndarray  # (N, 2) float64; latitude and longitude, or east and north, as `frame` says
    frame: Wgs84 | Metres
    where: str = "positions"  # the file the values came from, for error messages
    heading_deg: np.ndarray | None = None  # (N,) clockwise from north, NaN where unknown; None: unknown for all

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64).reshape(len(self.values), 2)
        degrees = isinstance(self.frame, Wgs84)
        outside = (np.abs(values) > (90, 180)).any(1) if degrees else np.isinf(values).any(1)
        wrong = outside | (np.isnan(values).sum(1) == 1)
        if wrong.any():
            row = int(wrong.argmax())
            first, second = values[row].tolist()
            swapped = degrees and abs(second) <= 90 < abs(first) <= 180
            found = f"{first:g}, {second:g}" + " (latitude and longitude look swapped)" * swapped
            expected = "latitude in -90..90 and longitude in -180..180 degrees" if degrees else "two finite numbers"
            todo = "Put the latitude first." if swapped else "Correct the position, or leave both empty (NaN)."
            raise InputError(f"{self.where}, row {row + 1}", expected, found, todo)
        values.setflags(write=False)
        object.__setattr__(self, "values", values)
        assert self.heading_deg is None or len(self.heading_deg) == len(values)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def known(self) -> np.ndarray:
        """(N,) bool: which positions are known."""
        return ~np.isnan(self.values[:, 0])

    def take(self, indices: np.ndarray) -> "Positions":
        """The positions at `indices`, in that order."""
        rows = np.asarray(indices, dtype=np.int64)
        heading_deg = None if self.heading_deg is None else self.heading_deg[rows]
        return replace(self, values=self.values[rows], heading_deg=heading_deg)


def haversine(a_deg: np.ndarray, b_deg: np.ndarray) -> np.ndarray:
    """Great-circle distance in metres between degrees (..., 2) and (..., 2) -> (...); the ellipsoid's differs by 0.6 % at most."""
    a, b = np.radians(np.asarray(a_deg, np.float64)), np.radians(np.asarray(b_deg, np.float64))
    sines = np.sin((b - a) / 2) ** 2
    h = sines[..., 0] + np.cos(a[..., 0]) * np.cos(b[..., 0]) * sines[..., 1]
    return 2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.clip(h, 0.0, 1.0)))


def distances(a: Positions, b: Positions) -> np.ndarray:
    """Distance in metres between positions row by row, (N,); both in one frame."""
    _check_frame(b, a.frame)
    return haversine(a.values, b.values) if isinstance(a.frame, Wgs84) else np.hypot(*(a.values - b.values).T)


def _check_frame(positions: Positions, frame: Wgs84 | Metres) -> None:
    if positions.frame != frame:
        expected = f"positions in the frame {frame}"
        raise InputError(positions.where, expected, found=positions.frame, todo="Bring both into one frame.")


def to_metres(positions: Positions, origin: tuple[float, float]) -> Positions:
    """WGS84 to metres east and north of an origin in degrees, by a transverse Mercator projection of scale 1 at its
    meridian; its own scale remains, 1 + x^2 / (2 R^2) at x metres east: 0.003 % at 50 km."""
    _check_frame(positions, Wgs84())
    lat, lon = positions.values.T
    frame = Metres(f"transverse Mercator at {origin[0]:.6f}, {origin[1]:.6f}")
    return Positions(np.stack(_transverse_mercator(origin)(lon, lat), axis=1), frame, positions.where)


def from_metres(metres: np.ndarray, origin: tuple[float, float]) -> np.ndarray:
    """Metres east and north of an origin -> latitude and longitude in degrees, (N, 2); the inverse of `to_metres`."""
    lon, lat = _transverse_mercator(origin)(*np.asarray(metres, np.float64).T, inverse=True)
    return np.stack([lat, lon], axis=1)


def _transverse_mercator(origin: tuple[float, float]) -> Proj:
    return Proj(proj="tmerc", lat_0=float(origin[0]), lon_0=float(origin[1]), k=1, ellps="WGS84")


class Neighbours:
    """Nearest positions by a tree, built once; unknown ones are never found."""

    def __init__(self, positions: Positions) -> None:
        self.frame, self._rows = positions.frame, np.flatnonzero(positions.known)
        if len(self._rows) == 0:
            raise InputError(positions.where, expected="known positions", found="none", todo="This step needs them.")
        from scipy.spatial import cKDTree  # here: every process would wait for it

        self._tree = cKDTree(self._points(positions.take(self._rows)))

    def _points(self, positions: Positions) -> np.ndarray:
        """Metres as they are; degrees as points on the sphere in space, where the chord orders like the arc."""
        _check_frame(positions, self.frame)
        if isinstance(self.frame, Metres):
            return positions.values
        lat, lon = np.radians(positions.values).T
        return EARTH_RADIUS_M * np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)

    def _arc(self, chord: np.ndarray) -> np.ndarray:
        if isinstance(self.frame, Metres):
            return chord
        return 2 * EARTH_RADIUS_M * np.arcsin(np.clip(chord / (2 * EARTH_RADIUS_M), 0, 1))

    def within(self, queries: Positions, radius_m: float) -> tuple[np.ndarray, np.ndarray]:
        """What lies within `radius_m` metres (inclusive) of each of Q queries, nearest first, then by index: int64 offsets
        (Q + 1,) and indices (M,); query i has `indices[offsets[i] : offsets[i + 1]]`, none if it is unknown."""
        known = np.flatnonzero(queries.known)
        points = self._points(queries.take(known))
        # a hair more than asked, as a chord is no longer than its arc, then cut by the distance itself
        lists = self._tree.query_ball_point(points, radius_m * (1 + 1e-12) + 1e-6, workers=-1)
        owner, hits = np.repeat(np.arange(len(known)), [*map(len, lists)]), np.array([i for x in lists for i in x], int)
        away = self._arc(np.linalg.norm(self._tree.data[hits] - points[owner], axis=1))
        order = np.lexsort((hits, away, owner))
        order = order[away[order] <= radius_m + 1e-6]  # a micrometre: the rounding of coordinates near 1e7 m
        counts = np.bincount(known[owner[order]], minlength=len(queries))
        return np.concatenate([[0], np.cumsum(counts)]), self._rows[hits[order]]

    def nearest(self, queries: Positions, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest known positions to each of Q known queries, nearest first: indices and metres, (Q, k) each."""
        assert k <= len(self._rows), f"{k} of {len(self._rows)} known positions"
        chord, rows = self._tree.query(self._points(queries), k=np.arange(1, k + 1), workers=-1)
        return self._rows[rows], self._arc(chord)
