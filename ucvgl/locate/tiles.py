"""Satellite tiles and where each lies: a mosaic, of which `candidates.cut` makes what a city is searched in.

Positions come from one of three places: what a file says itself (GeoTIFF, or a world file beside it, in any coordinate
system), the names of a Web Mercator pyramid, or a CSV. A large file is read by windows, and each window is a tile of its own.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from pyproj import CRS, Transformer
from scipy.spatial import cKDTree

from ucvgl.data.container import FileImages
from ucvgl.data.files import folder, read_columns, read_position_table, table_rows, walk
from ucvgl.errors import InputError
from ucvgl.locate import rasters
from ucvgl.locate.pictures import in_threads
from ucvgl.locate.rasters import Look, Stretch, Window
from ucvgl.locate.tile_names import SCHEMES, Scheme, as_xyz, tell_scheme, tile_numbers
from ucvgl.positions import Metres, Positions, Wgs84, from_metres, to_metres

CITY_MAX_M = 200_000.0  # across; where the local metres are still true to 0.02 %
SHOWN = 10  # files left out that a report lists
WAYS = (
    "GeoTIFF tags (or a world file .pgw, .jgw, .tfw, .wld beside the picture); names z/x/y or z_x_y of an XYZ or TMS pyramid, "
    "or z/y/x of ArcGIS (--scheme zyx); or --tiles-table, a CSV with file, latitude, longitude and metres_per_pixel or span_m"
)


@dataclass(frozen=True, eq=False)
class Mosaic:
    """N tiles (files, or windows of large ones) and where they lie; pixels are read when asked for.

    Args:
        root: the folder.
        files: F paths below it.
        file: (N,) int64, whose window each tile is.
        windows: N, rows and columns in their files.
        to_source: (N, 2, 3) float64, maps (column, row, 1), pixel centres at whole numbers, to source coordinates.
        system: (N,) int64, which of `systems` these are.
        systems: coordinate systems, as WKT or in words of PROJ.
        origin: latitude and longitude of the local frame's zero, to six decimals.
        corners_m: (N, 4, 2) float64 metres east and north: north-west, north-east, south-east, south-west.
        ground: N grids that say which part of a tile is ground; None: all of it.
        kinds: F, of their numbers, as uint8.
        stretch: of the kinds that are no bytes.
        unreadable: file and reason of those that were left out.
        passed_over: files of kinds that are not read.
        notes: what else a reader must know.
    """

    root: str
    files: tuple[str, ...]
    file: np.ndarray
    windows: tuple[Window, ...]
    to_source: np.ndarray
    system: np.ndarray
    systems: tuple[str, ...]
    origin: tuple[float, float]
    corners_m: np.ndarray
    ground: tuple[np.ndarray | None, ...]
    kinds: tuple[str, ...]
    stretch: Mapping[str, Stretch]
    unreadable: tuple[tuple[str, str], ...] = ()
    passed_over: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def size_px(self) -> np.ndarray:
        """(N, 2) int64, height and width of the tiles."""
        return np.array([window[2:] for window in self.windows], np.int64)

    @property
    def frame(self) -> Metres:
        """The local metres, as `positions.to_metres` names them."""
        return Metres(f"transverse Mercator at {self.origin[0]:.6f}, {self.origin[1]:.6f}")

    @property
    def centre_m(self) -> np.ndarray:
        """(N, 2) metres east and north of the tiles' centres."""
        return self.corners_m.mean(1)

    @property
    def positions(self) -> Positions:
        """Latitude and longitude of the tiles' centres."""
        return Positions(from_metres(self.centre_m, self.origin), Wgs84(), self.root)

    @property
    def resolution_m(self) -> np.ndarray:
        """(N,) metres a pixel on the ground: the root of a pixel's area."""
        diagonals = self.corners_m[:, [2, 3]] - self.corners_m[:, [0, 1]]  # (N, 2, 2)
        area = np.abs(diagonals[:, 0, 0] * diagonals[:, 1, 1] - diagonals[:, 0, 1] * diagonals[:, 1, 0]) / 2
        return np.sqrt(area / self.size_px.prod(1))

    @property
    def bounds_m(self) -> tuple[np.ndarray, np.ndarray]:
        """South-western and north-eastern corner (2,) of all tiles, in local metres."""
        return self.corners_m.min((0, 1)), self.corners_m.max((0, 1))

    def digest(self) -> str:
        """A digest that changes with names, positions and, as far as is cheap, pixels."""
        files = FileImages(self.root, self.files, self.files).digest()
        said = f"{files} {self.windows} {sorted(self.stretch.items())}"
        return hashlib.sha256(said.encode() + self.corners_m.tobytes()).hexdigest()[:16]

    def text(self) -> str:
        """One paragraph for people: how many, where, how fine, what was left out."""
        low, high = self.bounds_m
        finest, coarsest = self.resolution_m.min(), self.resolution_m.max()
        rows = [
            f"{len(self.files):,} tiles in {self.root}: {high[0] - low[0]:,.0f} m by {high[1] - low[1]:,.0f} m around "
            f"{self.origin[0]:.6f}, {self.origin[1]:.6f}; {finest:.3g} to {coarsest:.3g} m a pixel; "
            + ", ".join(dict.fromkeys(CRS.from_user_input(text).name for text in self.systems)),
            *self.notes,
        ]
        if self.passed_over:
            some = ", ".join(self.passed_over[:3])
            rows.append(f"passed over {len(self.passed_over):,} files of kinds that are not read, such as {some}")
        rows += [f"left out: {file}: {reason}" for file, reason in self.unreadable[:SHOWN]]
        rows += [f"left out: and {len(self.unreadable) - SHOWN:,} more"] * (len(self.unreadable) > SHOWN)
        return "\n".join(rows)


@dataclass(frozen=True, eq=False)
class _Placed:
    """Files that have a place, in one of `systems` each."""

    names: list[str]
    looks: list[Look]
    affine: np.ndarray  # (F, 2, 3)
    system: list[int]
    systems: list[str]
    notes: list[str]


def open_mosaic(
    root: Path | str, table: Path | str | None = None, *, scheme: Scheme | None = None, zoom: int | None = None,
    epsg: int | None = None, progress: bool = False,
) -> Mosaic:  # fmt: skip
    """Finds the tiles below a folder and where each lies. What a file says counts more than its name; a table is asked alone.

    Args:
        root: the folder, subfolders included.
        table: a CSV with a header: file, latitude and longitude of the tile's centre, metres_per_pixel or span_m (across).
        scheme: how tile names are read: 'xyz', 'tms' (rows from the south) or 'zyx' (ArcGIS); None: what fits.
        zoom: the level to take from tile names of several.
        epsg: the coordinate system of files that do not say theirs; they are WGS84 if they look like degrees.
        progress: show a bar.

    Raises:
        InputError: no usable tile, tiles without positions, of several zoom levels or twice at one place, an unknown
            coordinate system, tiles more than 200 km apart, the extra `geo` missing. A tile that cannot be used is no
            error: `unreadable` names it.
    """
    rasters.geo_extra()
    root = folder(root, "a folder of satellite tiles")
    if scheme is not None and scheme not in SCHEMES:
        raise InputError("scheme", expected=" or ".join(map(repr, SCHEMES)), found=repr(scheme), todo="Choose one.")
    names, others = walk(root)
    names = sorted([*names, *(name for name in others if name.lower().endswith(".jp2"))])
    others = [name for name in others if not name.lower().endswith(".jp2")]
    if not names:
        raise InputError(
            root, expected="satellite tiles", found=", ".join(["no image", *others[:3]]),
            todo="Copy PNG, JPEG, TIFF, JPEG 2000 or WebP tiles there.",
        )  # fmt: skip
    with rasters.quiet():
        looks = in_threads(lambda name: rasters.look(root / name, table is None), names, progress, "looking at tiles")
    broken = [(name, look.fault) for name, look in zip(names, looks, strict=True) if look.fault]
    good = [i for i, look in enumerate(looks) if not look.fault]
    if not good:
        raise InputError(
            root, expected="a tile that can be used", found=f"{len(broken)} that cannot: {broken[0][0]}: {broken[0][1]}",
            todo="Convert them, or copy them again if they are damaged.",
        )  # fmt: skip
    names, looks = [names[i] for i in good], [looks[i] for i in good]
    placed = (
        _by_tags_or_names(root, names, looks, scheme, zoom, epsg)
        if table is None
        else _by_table(names, looks, Path(table))
    )
    return _mosaic(root, placed, broken, others)


def _mosaic(root: Path, placed: _Placed, broken: list[tuple[str, str]], others: list[str]) -> Mosaic:
    """The files cut into windows, in local metres about their middle."""
    file, parts, to_source, ground = [], [], [], []
    for number, look in enumerate(placed.looks):
        cut = rasters.windows(look.height, look.width)
        for part, valid in zip(cut, look.ground or (None,) * len(cut), strict=True):
            moved = placed.affine[number].copy()
            moved[:, 2] += moved[:, :2] @ np.array([part[1], part[0]], np.float64)
            file.append(number)
            parts.append(part)
            to_source.append(moved)
            ground.append(valid)
    of_file, affine = np.array(file, np.int64), np.stack(to_source)
    system = np.array(placed.system, np.int64)[of_file]
    degrees = _degrees(_corners(affine, np.array([part[2:] for part in parts], np.int64)), system, placed.systems)
    if not np.isfinite(degrees).all():
        where = placed.names[of_file[int(np.argmin(np.isfinite(degrees).all((1, 2))))]]
        raise InputError(
            root / where, expected="a position on the Earth", found="corners outside its coordinate system",
            todo="Say the right system with --epsg, or correct the position.",
        )  # fmt: skip
    size = np.array([(look.height, look.width) for look in placed.looks], np.int64)
    middle = _degrees(_corners(placed.affine, size), np.array(placed.system), placed.systems).mean(1)  # of the files
    origin = tuple(float(v) for v in np.round((middle.min(0) + middle.max(0)) / 2, 6))
    corners_m = to_metres(Positions(degrees.reshape(-1, 2), Wgs84(), str(root)), origin).values.reshape(-1, 4, 2)
    kinds = tuple(look.kind for look in placed.looks)
    samples: dict[str, list[np.ndarray]] = {}
    for look in placed.looks:
        if look.sample is not None:
            samples.setdefault(look.kind, []).append(look.sample)
    stretch = {kind: rasters.stretch_of(some) for kind, some in sorted(samples.items())}
    notes = [
        *placed.notes,
        *(
            f"values of {kind} from {low:.4g} to {high:.4g} are shown as 0 to 255"
            for kind, (low, high) in stretch.items()
        ),
    ]
    whole = Mosaic(
        str(root), tuple(placed.names), of_file, tuple(parts), affine, system, tuple(placed.systems), origin, corners_m,
        tuple(ground), kinds, stretch, tuple(sorted(broken)), tuple(others), tuple(notes),
    )  # fmt: skip
    _check_places(whole)
    return whole


def _by_tags_or_names(
    root: Path, names: list[str], looks: list[Look], scheme: Scheme | None, zoom: int | None, epsg: int | None
) -> _Placed:
    """Each file by what it says itself; all by their names where some say nothing, and those of a pyramid's level."""
    tagged = [look.affine is not None for look in looks]
    if all(tagged):
        texts = [
            rasters.system(look.crs, root / name, look.affine, epsg).to_wkt()
            for name, look in zip(names, looks, strict=True)
        ]
        systems = list(dict.fromkeys(texts))
        return _Placed(
            names, looks, np.stack([look.affine for look in looks]), [systems.index(t) for t in texts], systems, []
        )
    above = f"{root.resolve().name}/" if root.resolve().name.isdigit() else ""  # somebody points at a level's folder
    tile, esri = tile_numbers([above + name for name in names])
    lost = [name for name, z, tag in zip(names, tile[:, 0].tolist(), tagged, strict=True) if z < 0 and not tag]
    if lost:
        raise InputError(
            root, expected=f"a position for every tile: {WAYS}",
            found=f"{len(lost):,} of {len(names):,} tiles without: {', '.join(lost[:3])}",
            todo="Give the positions in one of these ways.",
        )  # fmt: skip
    if any(tagged):
        raise InputError(
            root, expected="tiles that all say where they lie, or all by their names",
            found=f"{sum(tagged):,} that say it, {len(names) - sum(tagged):,} by their names",
            todo="Keep one kind in the folder.",
        )  # fmt: skip
    levels = Counter(tile[:, 0].tolist())
    if (zoom is None and len(levels) > 1) or (zoom is not None and zoom not in levels):
        raise InputError(
            root, expected="one zoom level" if zoom is None else f"tiles of zoom {zoom}",
            found=", ".join(f"zoom {z}: {count:,} tiles" for z, count in sorted(levels.items())),
            todo="Choose one with --zoom.",
        )  # fmt: skip
    keep = np.flatnonzero(tile[:, 0] == zoom) if zoom is not None else np.arange(len(names))
    names, looks, tile = [names[i] for i in keep], [looks[i] for i in keep], tile[keep]
    scheme, note = tell_scheme(root.parent if above else root, tile, [look.edges for look in looks], scheme, esri)
    affine = _pyramid(as_xyz(tile, scheme), looks)
    return _Placed(names, looks, affine, [0] * len(names), ["EPSG:3857"], [note] * bool(note))


def _pyramid(tile: np.ndarray, looks: Sequence[Look]) -> np.ndarray:
    """(F, 2, 3) from pixels to Web Mercator's metres, of tiles (F, 3) zoom, column from the west, row from the north."""
    import morecantile

    grid, found = morecantile.tms.get("WebMercatorQuad"), []
    for (z, x, y), look in zip(tile.tolist(), looks, strict=True):
        west, south, east, north = grid.xy_bounds(morecantile.Tile(x, y, z))
        right, down = (east - west) / look.width, (north - south) / look.height
        found.append([[right, 0, west + right / 2], [0, -down, north - down / 2]])
    return np.array(found)


def _by_table(names: list[str], looks: list[Look], table: Path) -> _Placed:
    """Tiles at centres in degrees, taken as north up and true to scale in local metres."""
    files, places = read_position_table(table)
    if not isinstance(places.frame, Wgs84):
        raise InputError(table, expected="latitude and longitude", found="east and north", todo="Give WGS84 degrees.")
    _, columns = read_columns(table, ("metres_per_pixel", "span_m"))
    row = table_rows(names, files, table)
    lost = [name for name, at in zip(names, row.tolist(), strict=True) if at < 0 or not places.known[at]]
    if lost:
        raise InputError(
            table, expected="a position for every tile", found=f"{len(lost):,} tiles without: {', '.join(lost[:3])}",
            todo="Complete the rows, or move these tiles elsewhere.",
        )  # fmt: skip
    size = np.array([(look.height, look.width) for look in looks], np.int64)
    scale = columns["metres_per_pixel"][row] if "metres_per_pixel" in columns else np.full(len(row), np.nan)
    if "span_m" in columns:
        scale = np.where(np.isnan(scale), columns["span_m"][row] / size[:, 1], scale)
    bad = np.flatnonzero(~(scale > 0))
    if len(bad):
        raise InputError(
            f"{table}: {names[bad[0]]}", expected="metres_per_pixel or span_m above 0", found=f"{scale[bad[0]]:g}",
            todo="Give the size of a pixel, or of the tile's width, on the ground.",
        )  # fmt: skip
    degrees = places.take(row)
    lat, lon = np.round((degrees.values.min(0) + degrees.values.max(0)) / 2, 6)
    centre = to_metres(degrees, (lat, lon)).values
    affine = np.zeros((len(names), 2, 3))
    affine[:, 0, 0], affine[:, 1, 1] = scale, -scale
    affine[:, 0, 2] = centre[:, 0] - scale * (size[:, 1] - 1) / 2
    affine[:, 1, 2] = centre[:, 1] + scale * (size[:, 0] - 1) / 2
    extra = len(files) - len(np.unique(row))
    notes = [f"{extra:,} rows of {table.name} name no usable tile here"] * bool(extra)
    local = f"+proj=tmerc +lat_0={lat:.6f} +lon_0={lon:.6f} +k=1 +x_0=0 +y_0=0 +datum=WGS84 +units=m +type=crs"
    return _Placed(names, looks, affine, [0] * len(names), [local], notes)


def _corners(to_source: np.ndarray, size_px: np.ndarray) -> np.ndarray:
    """(N, 4, 2) source coordinates of the outer corners: north-west, north-east, south-east, south-west."""
    height, width = size_px.T
    low = np.full(len(size_px), -0.5)
    column = np.stack([low, width - 0.5, width - 0.5, low], 1)
    row = np.stack([low, low, height - 0.5, height - 0.5], 1)
    pixels = np.stack([column, row, np.ones_like(row)], -1)  # (N, 4, 3)
    return np.einsum("nij,nkj->nki", to_source, pixels)


def _degrees(corners: np.ndarray, system: np.ndarray, systems: Sequence[str]) -> np.ndarray:
    """(N, 4, 2) latitudes and longitudes of corners in their coordinate systems."""
    degrees = np.empty_like(corners)
    for number, text in enumerate(systems):
        rows = system == number
        degrees[rows] = from_source(corners[rows].reshape(-1, 2), text).reshape(-1, 4, 2)
    return degrees


def _check_places(mosaic: Mosaic) -> None:
    """InputError unless the tiles lie in one city and no two files at one place."""
    centre = mosaic.centre_m
    away = np.hypot(*(centre - np.median(centre, axis=0)).T)
    if not away.max() < CITY_MAX_M / 2:
        far = int(np.argmax(away))
        where = ", ".join(f"{v:.5f}" for v in mosaic.positions.values[far])
        raise InputError(
            mosaic.root, expected="tiles of one city, within 200 km", found=f"{mosaic.files[mosaic.file[far]]} at {where}",
            todo="Correct its position (latitude first), or put each city into a folder of its own.",
        )  # fmt: skip
    edge = mosaic.resolution_m * np.sqrt(mosaic.size_px.prod(1))  # (N,) metres
    pairs = cKDTree(centre).query_pairs(0.05 * edge.max(), output_type="ndarray")
    if len(pairs):
        a, b = pairs.T
        near = np.hypot(*(centre[a] - centre[b]).T) < 0.05 * np.minimum(edge[a], edge[b])
        pairs = pairs[near & (np.abs(np.log(edge[a] / edge[b])) < 0.1) & (mosaic.file[a] != mosaic.file[b])]
    if len(pairs):
        a, b = sorted(mosaic.files[mosaic.file[i]] for i in pairs[0])
        raise InputError(
            mosaic.root, expected="every place once", found=f"{len(pairs):,} pairs of tiles at one place, such as {a} and {b}",
            todo="Remove one of each pair.",
        )  # fmt: skip


@lru_cache(maxsize=64)
def _transformer(text: str) -> Transformer:
    return Transformer.from_crs("EPSG:4326", text, always_xy=True)


def to_source_coordinates(degrees: np.ndarray, text: str) -> np.ndarray:
    """Latitude and longitude (N, 2) in degrees -> x, y (N, 2) of a coordinate system, as WKT or in words of PROJ."""
    lat, lon = np.asarray(degrees, np.float64).T
    return np.stack(_transformer(text).transform(lon, lat), axis=1)


def from_source(xy: np.ndarray, text: str) -> np.ndarray:
    """The inverse of `to_source_coordinates`."""
    lon, lat = _transformer(text).transform(*np.asarray(xy, np.float64).T, direction="INVERSE")
    return np.stack([lat, lon], axis=1)
