"""Positions on the Earth or in a local frame, distances between them, and neighbours without an N x N matrix.

A `Positions` says by its frame what its numbers are: `Wgs84` holds latitude and longitude in degrees, `Metres` holds
east and north in metres of a stated frame. Nothing converts silently. Distances on WGS84 are great-circle distances on
the sphere of mean radius, radians inside (the published geographic sampling handed degrees to a haversine that expects
radians).
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ucvgl.errors import InputError

EARTH_RADIUS_M = 6_371_008.8  # IUGG mean radius of the WGS84 ellipsoid
_A, _F = 6_378_137.0, 1 / 298.257223563  # WGS84 semi-major axis in metres, and flattening


@dataclass(frozen=True)
class Wgs84:
    """Latitude and longitude in degrees, north and east positive."""


@dataclass(frozen=True)
class Metres:
    """East and north in metres.

    Args:
        origin: the frame in words, for example "UTM 55S" or "transverse Mercator at 60.17, 24.94"; two sets are
            comparable only if their origins are equal.
    """

    origin: str


@dataclass(frozen=True, eq=False)
class Positions:
    """Positions of N images, immutable; a row of NaN is an image whose position is not known.

    Args:
        values: (N, 2) float64; latitude and longitude in degrees, or east and north in metres, as `frame` says.
        frame: `Wgs84()` or `Metres(origin)`.
        where: the file the values came from, for error messages.

    Raises:
        InputError: wrong shape, half-known rows, infinite values, or degrees outside the Earth (swapped columns are
            recognised).
    """

    values: np.ndarray
    frame: Wgs84 | Metres
    where: str = "positions"

    def __post_init__(self) -> None:
        try:
            values = np.array(self.values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(
                self.where, expected="numbers", found=str(error), todo="Correct the values that are not numbers."
            ) from error
        if values.ndim != 2 or values.shape[1] != 2:
            raise InputError(
                self.where, expected="an array of shape (N, 2)", found=f"shape {values.shape}", todo="Give two columns."
            )
        unknown = np.isnan(values)
        if np.any(unknown[:, 0] != unknown[:, 1]) or np.any(np.isinf(values)):
            bad = int(np.flatnonzero((unknown[:, 0] != unknown[:, 1]) | np.isinf(values).any(1))[0])
            raise InputError(
                f"{self.where}, row {bad + 1}",
                expected="two finite numbers, or NaN twice for an unknown position",
                found=values[bad].tolist(),
                todo="Complete the row or mark it as unknown.",
            )
        if isinstance(self.frame, Wgs84):
            _check_degrees(values, self.where)
        values.setflags(write=False)
        object.__setattr__(self, "values", values)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def known(self) -> np.ndarray:
        """(N,) bool: which positions are known."""
        return ~np.isnan(self.values[:, 0])

    def take(self, indices: np.ndarray) -> "Positions":
        """The positions at `indices`, in that order."""
        return Positions(self.values[np.asarray(indices, dtype=np.int64)], self.frame, self.where)

    def same_as(self, other: "Positions | None") -> bool:
        """Equal frame and equal values, NaN equal to NaN."""
        return (
            other is not None
            and self.frame == other.frame
            and np.array_equal(self.values, other.values, equal_nan=True)
        )


def _check_degrees(values: np.ndarray, where: str) -> None:
    with np.errstate(invalid="ignore"):
        outside = (np.abs(values[:, 0]) > 90) | (np.abs(values[:, 1]) > 180)
    if not outside.any():
        return
    row = int(np.flatnonzero(outside)[0])
    lat, lon = values[row]
    swapped = abs(lon) <= 90 and abs(lat) <= 180
    raise InputError(
        f"{where}, row {row + 1}",
        expected="latitude in -90..90 and longitude in -180..180 degrees",
        found=f"{lat:g}, {lon:g}" + (" (latitude and longitude look swapped)" if swapped else ""),
        todo="Put the latitude first."
        if swapped
        else "Correct the position, or give metres as `Metres` with their origin.",
    )


def looks_swapped(values: Positions, reference: Positions, far_m: float = 100_000.0) -> bool:
    """Whether latitude and longitude of `values` are swapped, judged by a set known to lie near.

    True if the median position is further than `far_m` metres from the reference's median and comes nearer than that
    when the columns are exchanged. False for positions in metres and where nothing is known.
    """
    if not (isinstance(values.frame, Wgs84) and isinstance(reference.frame, Wgs84)):
        return False
    if not (values.known.any() and reference.known.any()):
        return False
    here, there = (np.median(p.values[p.known], axis=0)[None] for p in (values, reference))
    turned = here[:, ::-1]
    if abs(turned[0, 0]) > 90:
        return False
    return bool(haversine(here, there)[0] > far_m and haversine(turned, there)[0] <= far_m)


def haversine(a_deg: np.ndarray, b_deg: np.ndarray) -> np.ndarray:
    """Great-circle distance in metres between latitudes and longitudes in degrees, (..., 2) and (..., 2) -> (...).

    On the sphere of radius 6,371,008.8 m; the ellipsoid differs by at most about 0.6 %.
    """
    a, b = np.radians(np.asarray(a_deg, np.float64)), np.radians(np.asarray(b_deg, np.float64))
    sines = np.sin((b - a) / 2) ** 2
    h = sines[..., 0] + np.cos(a[..., 0]) * np.cos(b[..., 0]) * sines[..., 1]
    return 2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.clip(h, 0.0, 1.0)))


def distances(a: Positions, b: Positions) -> np.ndarray:
    """Distance in metres between positions row by row, (N,); both in one frame."""
    _same_frame(a, b)
    if isinstance(a.frame, Wgs84):
        return haversine(a.values, b.values)
    return np.hypot(*(a.values - b.values).T)


def to_metres(positions: Positions, origin: tuple[float, float] | None = None) -> Positions:
    """WGS84 to local metres east and north of an origin, by a transverse Mercator projection of scale 1 at the origin's
    meridian.

    Krueger's series to n^4 (as in Karney, "Transverse Mercator with an accuracy of a few nanometers", 2011, equations
    7-12), so the projection itself is exact to well below a millimetre; what remains is the projection's own scale, 1 +
    x^2 / (2 R^2) at x metres east: 0.003 % at 50 km, 0.012 % at 100 km. Across a continent use the great-circle
    distances of `Neighbours` instead.

    Args:
        positions: in `Wgs84`; unknown ones stay unknown.
        origin: latitude and longitude in degrees; the middle of the known positions by default.
    """
    if not isinstance(positions.frame, Wgs84):
        raise InputError(
            positions.where, expected="WGS84 degrees", found=positions.frame, todo="These are metres already."
        )
    if origin is None:
        known = positions.values[positions.known]
        if len(known) == 0:
            raise InputError(positions.where, expected="one known position", found="none", todo="Give an origin.")
        origin = tuple((known.min(0) + known.max(0)) / 2)
    lat0, lon0 = float(origin[0]), float(origin[1])
    east, north = _transverse_mercator(positions.values[:, 0], positions.values[:, 1], lon0)
    _, north0 = _transverse_mercator(np.array([lat0]), np.array([lon0]), lon0)
    frame = Metres(f"transverse Mercator at {lat0:.6f}, {lon0:.6f}")
    return Positions(np.stack([east, north - north0], axis=1), frame, positions.where)


def from_metres(metres: np.ndarray, origin: tuple[float, float]) -> np.ndarray:
    """Metres east and north of an origin -> latitude and longitude in degrees, (N, 2); the inverse of `to_metres`."""
    metres = np.asarray(metres, np.float64)
    lat0, lon0 = float(origin[0]), float(origin[1])
    _, north0 = _transverse_mercator(np.array([lat0]), np.array([lon0]), lon0)
    lat, lon = _inverse_transverse_mercator(metres[:, 0], metres[:, 1] + north0[0], lon0)
    return np.stack([lat, lon], axis=1)


def to_utm(
    lat_deg: np.ndarray, lon_deg: np.ndarray, zone: int | None = None
) -> tuple[np.ndarray, np.ndarray, int, str]:
    """Latitude and longitude -> UTM easting and northing in metres, zone 1-60 and latitude band letter of the first
    position.

    All positions are put into one zone, the first one's by default, so that distances between them make sense. The
    exceptions of the grid in Norway and Svalbard are not applied.
    """
    lat, lon = np.atleast_1d(np.asarray(lat_deg, np.float64)), np.atleast_1d(np.asarray(lon_deg, np.float64))
    if zone is None:
        zone = int((lon[0] + 180) // 6) % 60 + 1
    east, north = _transverse_mercator(lat, lon, zone * 6 - 183)
    letter = "CDEFGHJKLMNPQRSTUVWXX"[int(np.clip((lat[0] + 80) // 8, 0, 20))]
    south = lat[0] < 0
    return 0.9996 * east + 500_000.0, 0.9996 * north + (10_000_000.0 if south else 0.0), zone, letter


def from_utm(east_m: np.ndarray, north_m: np.ndarray, zone: int, south: bool) -> tuple[np.ndarray, np.ndarray]:
    """UTM easting and northing in metres -> latitude and longitude in degrees."""
    if not 1 <= zone <= 60:
        raise InputError("UTM zone", expected="1 to 60", found=zone, todo="Give the zone's number.")
    east = (np.atleast_1d(np.asarray(east_m, np.float64)) - 500_000.0) / 0.9996
    north = (np.atleast_1d(np.asarray(north_m, np.float64)) - (10_000_000.0 if south else 0.0)) / 0.9996
    return _inverse_transverse_mercator(east, north, zone * 6 - 183)


def _krueger() -> tuple[float, np.ndarray, np.ndarray]:
    """Rectifying radius and the forward and inverse coefficients to n^4 (Karney 2011, equations 14, 35 and 36)."""
    n = _F / (2 - _F)
    radius = _A / (1 + n) * (1 + n**2 / 4 + n**4 / 64)
    forward = np.array(
        [
            n / 2 - 2 * n**2 / 3 + 5 * n**3 / 16 + 41 * n**4 / 180,
            13 * n**2 / 48 - 3 * n**3 / 5 + 557 * n**4 / 1440,
            61 * n**3 / 240 - 103 * n**4 / 140,
            49561 * n**4 / 161280,
        ]
    )
    inverse = np.array(
        [
            n / 2 - 2 * n**2 / 3 + 37 * n**3 / 96 - n**4 / 360,
            n**2 / 48 + n**3 / 15 - 437 * n**4 / 1440,
            17 * n**3 / 480 - 37 * n**4 / 840,
            4397 * n**4 / 161280,
        ]
    )
    return radius, forward, inverse


_RECTIFYING_RADIUS, _FORWARD, _INVERSE = _krueger()
_ECCENTRICITY = np.sqrt(_F * (2 - _F))


def _transverse_mercator(lat_deg: np.ndarray, lon_deg: np.ndarray, lon0_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """East and north in metres on the ellipsoid, scale 1 on the central meridian, north from the equator."""
    lat, lon = np.radians(lat_deg), np.radians((lon_deg - lon0_deg + 180) % 360 - 180)
    sin = np.sin(lat)
    tau = np.sinh(
        np.arctanh(sin) - _ECCENTRICITY * np.arctanh(_ECCENTRICITY * sin)
    )  # tangent of the conformal latitude
    xi, eta = np.arctan2(tau, np.cos(lon)), np.arcsinh(np.sin(lon) / np.hypot(tau, np.cos(lon)))
    order = 2 * np.arange(1, 5)[:, None]
    north = xi + (_FORWARD[:, None] * np.sin(order * xi) * np.cosh(order * eta)).sum(0)
    east = eta + (_FORWARD[:, None] * np.cos(order * xi) * np.sinh(order * eta)).sum(0)
    return _RECTIFYING_RADIUS * east, _RECTIFYING_RADIUS * north


def _inverse_transverse_mercator(east: np.ndarray, north: np.ndarray, lon0_deg: float) -> tuple[np.ndarray, np.ndarray]:
    xi, eta = north / _RECTIFYING_RADIUS, east / _RECTIFYING_RADIUS
    order = 2 * np.arange(1, 5)[:, None]
    xi_, eta_ = (
        xi - (_INVERSE[:, None] * np.sin(order * xi) * np.cosh(order * eta)).sum(0),
        eta - (_INVERSE[:, None] * np.cos(order * xi) * np.sinh(order * eta)).sum(0),
    )
    target = np.arcsinh(np.sin(xi_) / np.hypot(np.sinh(eta_), np.cos(xi_)))  # isometric latitude
    sin = np.tanh(target)
    for _ in range(6):  # a contraction by the eccentricity squared: six rounds leave nothing at double precision
        sin = np.tanh(target + _ECCENTRICITY * np.arctanh(_ECCENTRICITY * sin))
    lon = np.degrees(np.arctan2(np.sinh(eta_), np.cos(xi_))) + lon0_deg
    return np.degrees(np.arcsin(sin)), (lon + 180) % 360 - 180


def _same_frame(a: Positions, b: Positions) -> None:
    if a.frame != b.frame:
        raise InputError(
            b.where,
            expected=f"positions in the frame {a.frame}",
            found=b.frame,
            todo="Convert one of the two with to_metres.",
        )


class Neighbours:
    """Nearest positions by a tree, built once: O(N log N) time and O(N) memory.

    Metres go into a plane tree; WGS84 into a tree of points on the sphere in space, where the chord orders like the
    arc. Unknown positions are never found.
    """

    def __init__(self, positions: Positions) -> None:
        self.positions = positions
        self._rows = np.flatnonzero(positions.known)
        if len(self._rows) == 0:
            raise InputError(
                positions.where, expected="known positions", found="none", todo="This step needs positions."
            )
        self._tree = cKDTree(self._points(positions.take(self._rows)))

    def _points(self, positions: Positions) -> np.ndarray:
        _same_frame(self.positions, positions)
        if isinstance(positions.frame, Metres):
            return positions.values
        lat, lon = np.radians(positions.values).T
        return EARTH_RADIUS_M * np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)

    def _chord(self, metres: float) -> float:
        if isinstance(self.positions.frame, Metres):
            return metres
        return 2 * EARTH_RADIUS_M * np.sin(min(metres / (2 * EARTH_RADIUS_M), np.pi / 2))

    def _arc(self, chord: np.ndarray) -> np.ndarray:
        if isinstance(self.positions.frame, Metres):
            return chord
        return 2 * EARTH_RADIUS_M * np.arcsin(np.clip(chord / (2 * EARTH_RADIUS_M), 0, 1))

    def within(self, queries: Positions, radius_m: float) -> tuple[np.ndarray, np.ndarray]:
        """Every position within `radius_m` metres (inclusive) of each of Q queries, nearest first.

        Returns:
            offsets (Q + 1,) int64 and indices (M,) int64: query i has `indices[offsets[i] : offsets[i + 1]]`. A query
            without a known position has none.
        """
        if not radius_m >= 0:
            raise InputError("radius_m", expected="metres, 0 or more", found=radius_m, todo="Give a radius in metres.")
        known = queries.known
        points = self._points(queries.take(np.flatnonzero(known)))
        # a hair more than asked, then cut by the distance itself, so that a place exactly at the radius is in
        found = self._tree.query_ball_point(points, self._chord(radius_m) * (1 + 1e-12) + 1e-6, workers=-1)
        counts = np.zeros(len(queries), np.int64)
        lists: list[np.ndarray] = []
        for row, (query, hits) in enumerate(zip(np.flatnonzero(known), found, strict=True)):
            hits = np.asarray(hits, np.int64)
            away = self._arc(np.linalg.norm(self._tree.data[hits] - points[row], axis=1))
            inside = away <= radius_m + 1e-6  # a micrometre: the rounding of coordinates near 1e7 m
            hits, away = hits[inside], away[inside]
            hits = hits[np.lexsort((hits, away))]
            counts[query] = len(hits)
            lists.append(self._rows[hits])
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return offsets, np.concatenate(lists) if lists else np.zeros(0, np.int64)

    def nearest(self, queries: Positions, k: int, skip_self: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest positions to each of Q queries, nearest first.

        Args:
            queries: where to look from, in the tree's frame, all known.
            k: how many neighbours.
            skip_self: query i is position i and must not find itself; other images at the same spot are still found.

        Returns:
            indices (Q, k) int64 and distances (Q, k) in metres; fewer than k known positions leave -1 and infinity at
            the end.
        """
        if k < 1:
            raise InputError("k", expected="1 or more", found=k, todo="Ask for at least one neighbour.")
        if not queries.known.all():
            raise InputError(
                queries.where, expected="known positions", found="unknown ones", todo="Leave those queries out."
            )
        have = min(k + skip_self, len(self._rows))
        chord, rows = self._tree.query(self._points(queries), k=np.arange(1, have + 1), workers=-1)
        found, away = self._rows[rows], self._arc(chord)
        if skip_self:
            itself = found == np.arange(len(queries))[:, None]
            order = np.argsort(itself, axis=1, kind="stable")  # itself last, the rest in order
            found, away = (np.take_along_axis(x, order, 1) for x in (found, away))
            last = np.take_along_axis(itself, order, 1)
            found, away = np.where(last, -1, found), np.where(last, np.inf, away)
        pad = max(0, k - found.shape[1])
        found = np.pad(found, ((0, 0), (0, pad)), constant_values=-1)[:, :k]
        return found, np.pad(away, ((0, 0), (0, pad)), constant_values=np.inf)[:, :k]
