"""Satellite tiles and where each lies: a mosaic, of which `candidates.cut` makes what a city is searched in.

Positions come from one of three places: what a file says itself (GeoTIFF, or a world file beside it, in any coordinate
system), the names of a Web Mercator pyramid, or a CSV.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import morecantile
import numpy as np
from pyproj import CRS, Transformer
from scipy.spatial import cKDTree
from tqdm.contrib.concurrent import thread_map

from ucvgl.data.container import FileImages
from ucvgl.data.files import folder, read_columns, read_position_table, table_rows, walk
from ucvgl.errors import InputError
from ucvgl.locate import rasters
from ucvgl.locate.rasters import Raster, Stretch
from ucvgl.locate.tile_names import Scheme, as_xyz, tell_scheme, tile_numbers
from ucvgl.positions import Positions, Wgs84, from_metres, to_metres

CITY_MAX_M = 200_000.0  # across; where the local metres are still true to 0.02 %
SHOWN = 10  # files left out that a report lists
WAYS = (
    "GeoTIFF tags (or a world file .pgw, .jgw, .tfw, .wld beside the picture); names z/x/y or z_x_y of an XYZ or TMS pyramid, "
    "or z/y/x of ArcGIS (--scheme zyx); or --tiles-table, a CSV with file, latitude, longitude and metres_per_pixel or span_m"
)


@dataclass(frozen=True, eq=False)
class Mosaic:
    """N files and where they lie; pixels are read when asked for."""

    root: str  # the folder
    rasters: tuple[Raster, ...]  # N files below it, each with its map from pixels to its coordinate system
    origin: tuple[float, float]  # latitude and longitude of the local frame's zero, to six decimals
    corners_m: np.ndarray  # (N, 4, 2) float64 metres east and north: north-west, north-east, south-east, south-west
    stretch: Mapping[str, Stretch]  # of the kinds of numbers that are no bytes
    unreadable: tuple[tuple[str, str], ...] = ()  # file and reason of those that were left out
    passed_over: tuple[str, ...] = ()  # files of kinds that are not read
    notes: tuple[str, ...] = ()  # what else a reader must know

    def __len__(self) -> int:
        return len(self.rasters)

    @property
    def files(self) -> tuple[str, ...]:
        """Their paths below the folder."""
        return tuple(raster.name for raster in self.rasters)

    @property
    def positions(self) -> Positions:
        """Latitude and longitude of the files' centres."""
        return Positions(from_metres(self.corners_m.mean(1), self.origin), Wgs84(), self.root)

    @cached_property
    def resolution_m(self) -> np.ndarray:
        """(N,) metres a pixel on the ground: the root of a pixel's area."""
        (ax, ay), (bx, by) = (self.corners_m[:, [2, 3]] - self.corners_m[:, [0, 1]]).transpose(1, 2, 0)  # the diagonals
        pixels = np.array([raster.height * raster.width for raster in self.rasters])
        return np.sqrt(np.abs(ax * by - ay * bx) / 2 / pixels)

    @cached_property
    def boxes_m(self) -> tuple[np.ndarray, np.ndarray]:
        """(N, 2) south-western and north-eastern corners of the boxes around the files, in local metres."""
        return self.corners_m.min(1), self.corners_m.max(1)

    @property
    def bounds_m(self) -> tuple[np.ndarray, np.ndarray]:
        """South-western and north-eastern corner (2,) of all files, in local metres."""
        return self.corners_m.min((0, 1)), self.corners_m.max((0, 1))

    def digest(self) -> str:
        """A digest that changes with names, positions and, as far as is cheap, pixels."""
        said = f"{FileImages(self.root, self.files, self.files).digest()} {sorted(self.stretch.items())}"
        return hashlib.sha256(said.encode() + self.corners_m.tobytes()).hexdigest()[:16]

    def text(self) -> str:
        """One paragraph for people: how many, where, how fine, what was left out."""
        across, high = self.bounds_m[1] - self.bounds_m[0]
        systems = dict.fromkeys(raster.crs for raster in self.rasters)
        rows = [
            f"{len(self):,} tiles in {self.root}: {across:,.0f} m by {high:,.0f} m around {self.origin[0]:.6f}, "
            f"{self.origin[1]:.6f}; {self.resolution_m.min():.3g} to {self.resolution_m.max():.3g} m a pixel; "
            + ", ".join(dict.fromkeys(CRS.from_user_input(text).name for text in systems)),
            *self.notes,
        ]
        if self.passed_over:
            some = ", ".join(self.passed_over[:3])
            rows.append(f"passed over {len(self.passed_over):,} files of kinds that are not read, such as {some}")
        rows += [f"left out: {file}: {reason}" for file, reason in self.unreadable[:SHOWN]]
        rows += [f"left out: and {len(self.unreadable) - SHOWN:,} more"] * (len(self.unreadable) > SHOWN)
        return "\n".join(rows)


def open_mosaic(
    root: Path | str, table: Path | str | None = None, *, scheme: Scheme | None = None, zoom: int | None = None,
    epsg: int | None = None, progress: bool = False,
) -> Mosaic:  # fmt: skip
    """Finds the tiles below a folder and where each lies. What a file says counts more than its name; a table is asked alone.

    The arguments are fields of `inputs.Request`. Files that do not say their coordinate system are WGS84 if they look like degrees.

    Raises:
        InputError: no usable tile, tiles without positions, of several zoom levels or twice at one place, an unknown
            coordinate system, tiles more than 200 km apart, the extra `geo` missing. A tile that cannot be used is no
            error: `unreadable` names it.
    """
    root = folder(root, "a folder of satellite tiles")
    images, others = walk(root)
    passed = [name for name in others if not name.lower().endswith(".jp2")]
    names = sorted({*images, *others} - {*passed})
    if not names:
        raise InputError(
            root, expected="satellite tiles", found=", ".join(["no image", *passed[:3]]),
            todo="Copy PNG, JPEG, TIFF, JPEG 2000 or WebP tiles there.",
        )  # fmt: skip
    with rasters.quiet():
        looks = thread_map(
            lambda name: rasters.look(root, name, table is None), names, desc="looking at tiles", unit="tile",
            disable=not progress,
        )  # fmt: skip
    broken = [(look.name, look.fault) for look in looks if look.fault]
    good = [look for look in looks if not look.fault]
    if not good:
        raise InputError(
            root, expected="a tile that can be used", found=f"{len(broken)} that cannot: {broken[0][0]}: {broken[0][1]}",
            todo="Convert them, or copy them again if they are damaged.",
        )  # fmt: skip
    if table is not None:
        placed, note = _by_table(good, Path(table))
    elif all(look.affine is not None for look in good):
        systems = (rasters.system(look.crs, root / look.name, look.affine, epsg) for look in good)
        placed, note = [look._replace(crs=text) for look, text in zip(good, systems, strict=True)], ""
    else:
        placed, note = _by_names(root, good, scheme, zoom)
    kinds = sorted({look.kind for look in placed if look.sample is not None})
    stretch = {kind: rasters.stretch_of([look.sample for look in placed if look.kind == kind]) for kind in kinds}
    notes = [
        f"values of {kind} from {low:.4g} to {high:.4g} are shown as 0 to 255" for kind, (low, high) in stretch.items()
    ]
    origin, corners_m = _in_metres(root, placed)
    mosaic = Mosaic(
        str(root), tuple(look._replace(sample=None, edges=None) for look in placed), origin, corners_m, stretch,
        tuple(broken), tuple(passed), tuple(filter(None, [note, *notes])),
    )  # fmt: skip
    _check_places(mosaic)
    return mosaic


# --------------------------------------------------------------------------------------------------- where each file lies


def _by_names(root: Path, looks: list[Raster], scheme: Scheme | None, zoom: int | None) -> tuple[list[Raster], str]:
    """All files by their names, and those of a pyramid's level; and what a reader must know of that."""
    above = f"{root.resolve().name}/" if root.resolve().name.isdigit() else ""  # somebody points at a level's folder
    tile, esri = tile_numbers([above + look.name for look in looks])
    tagged = [look.affine is not None for look in looks]
    lost = [look.name for look, z, tag in zip(looks, tile[:, 0].tolist(), tagged, strict=True) if z < 0 and not tag]
    if lost:
        raise InputError(
            root, expected=f"a position for every tile: {WAYS}",
            found=f"{len(lost):,} of {len(looks):,} tiles without: {', '.join(lost[:3])}",
            todo="Give the positions in one of these ways.",
        )  # fmt: skip
    if any(tagged):
        raise InputError(
            root, expected="tiles that all say where they lie, or all by their names",
            found=f"{sum(tagged):,} that say it, {len(looks) - sum(tagged):,} by their names",
            todo="Keep one kind in the folder.",
        )  # fmt: skip
    levels = Counter(tile[:, 0].tolist())
    if (zoom is None and len(levels) > 1) or (zoom is not None and zoom not in levels):
        raise InputError(
            root, expected="one zoom level" if zoom is None else f"tiles of zoom {zoom}",
            found=", ".join(f"zoom {z}: {count:,} tiles" for z, count in sorted(levels.items())),
            todo="Choose one with --zoom.",
        )  # fmt: skip
    keep = np.flatnonzero(tile[:, 0] == zoom) if zoom is not None else np.arange(len(looks))
    looks, tile = [looks[i] for i in keep], tile[keep]
    scheme, note = tell_scheme(root.parent if above else root, tile, [look.edges for look in looks], scheme, esri)
    grid, placed = morecantile.tms.get("WebMercatorQuad"), []
    for (z, x, y), look in zip(as_xyz(tile, scheme).tolist(), looks, strict=True):
        west, south, east, north = grid.xy_bounds(morecantile.Tile(x, y, z))
        right, down = (east - west) / look.width, (north - south) / look.height
        affine = np.array([[right, 0, west + right / 2], [0, -down, north - down / 2]])
        placed.append(look._replace(affine=affine, crs="EPSG:3857"))
    return placed, note


def _by_table(looks: list[Raster], table: Path) -> tuple[list[Raster], str]:
    """Files at centres in degrees, taken as north up and true to scale in local metres; and what a reader must know of that."""
    files, places = read_position_table(table)
    if not isinstance(places.frame, Wgs84):
        raise InputError(table, expected="latitude and longitude", found="east and north", todo="Give WGS84 degrees.")
    _, columns = read_columns(table, ("metres_per_pixel", "span_m"))
    names, width = [look.name for look in looks], np.array([look.width for look in looks])
    row = table_rows(names, files, table)
    lost = [name for name, at in zip(names, row.tolist(), strict=True) if at < 0 or not places.known[at]]
    if lost:
        raise InputError(
            table, expected="a position for every tile", found=f"{len(lost):,} tiles without: {', '.join(lost[:3])}",
            todo="Complete the rows, or move these tiles elsewhere.",
        )  # fmt: skip
    unknown = np.full(len(files), np.nan)
    scale = columns.get("metres_per_pixel", unknown)[row]
    scale = np.where(np.isnan(scale), columns.get("span_m", unknown)[row] / width, scale)
    bad = np.flatnonzero(~(scale > 0))
    if len(bad):
        raise InputError(
            f"{table}: {names[bad[0]]}", expected="metres_per_pixel or span_m above 0", found=f"{scale[bad[0]]:g}",
            todo="Give the size of a pixel, or of the tile's width, on the ground.",
        )  # fmt: skip
    degrees = places.take(row)
    lat, lon = np.round((degrees.values.min(0) + degrees.values.max(0)) / 2, 6)
    local = f"+proj=tmerc +lat_0={lat:.6f} +lon_0={lon:.6f} +k=1 +x_0=0 +y_0=0 +datum=WGS84 +units=m +type=crs"
    placed = []
    for look, metre, (east, north) in zip(looks, scale, to_metres(degrees, (lat, lon)).values, strict=True):
        west, top = east - metre * (look.width - 1) / 2, north + metre * (look.height - 1) / 2
        placed.append(look._replace(affine=np.array([[metre, 0, west], [0, -metre, top]]), crs=local))
    extra = len(files) - len(np.unique(row))
    return placed, f"{extra:,} rows of {table.name} name no usable tile here" * bool(extra)


def _in_metres(root: Path, placed: list[Raster]) -> tuple[tuple[float, float], np.ndarray]:
    """Latitude and longitude of the files' middle, and their corners (N, 4, 2) in metres about it."""
    degrees = np.empty((len(placed), 4, 2))
    for at, look in enumerate(placed):
        left, right, top, below = -0.5, look.width - 0.5, -0.5, look.height - 0.5
        pixels = np.array([(left, top, 1), (right, top, 1), (right, below, 1), (left, below, 1)])
        lon, lat = from_degrees(look.crs).transform(*(look.affine @ pixels.T), direction="INVERSE")
        degrees[at] = np.stack([lat, lon], axis=1)
        if not np.isfinite(degrees[at]).all():
            raise InputError(
                root / look.name, expected="a position on the Earth", found="corners outside its coordinate system",
                todo="Say the right system with --epsg, or correct the position.",
            )  # fmt: skip
    middle = degrees.mean(1)
    origin = tuple(float(v) for v in np.round((middle.min(0) + middle.max(0)) / 2, 6))
    return origin, to_metres(Positions(degrees.reshape(-1, 2), Wgs84(), str(root)), origin).values.reshape(-1, 4, 2)


def _check_places(mosaic: Mosaic) -> None:
    """InputError unless the files lie in one city and no two at one place."""
    centre = mosaic.corners_m.mean(1)
    away = np.hypot(*(centre - np.median(centre, axis=0)).T)
    if not away.max() < CITY_MAX_M / 2:
        far = int(np.argmax(away))
        where = ", ".join(f"{v:.5f}" for v in mosaic.positions.values[far])
        raise InputError(
            mosaic.root, expected="tiles of one city, within 200 km", found=f"{mosaic.files[far]} at {where}",
            todo="Correct its position (latitude first), or put each city into a folder of its own.",
        )  # fmt: skip
    edge = mosaic.resolution_m * [np.sqrt(raster.height * raster.width) for raster in mosaic.rasters]  # (N,) metres
    pairs = cKDTree(centre).query_pairs(0.05 * edge.max(), output_type="ndarray")
    a, b = pairs.T
    near = np.hypot(*(centre[a] - centre[b]).T) < 0.05 * np.minimum(edge[a], edge[b])
    pairs = pairs[near & (np.abs(np.log(edge[a] / edge[b])) < 0.1)]
    if len(pairs):
        one, other = sorted(mosaic.files[i] for i in pairs[0])
        raise InputError(
            mosaic.root, expected="every place once",
            found=f"{len(pairs):,} pairs of tiles at one place, such as {one} and {other}", todo="Remove one of each pair.",
        )  # fmt: skip


@lru_cache(maxsize=64)
def from_degrees(crs: str) -> Transformer:
    """From longitude and latitude to x and y of a coordinate system, as WKT or in words of PROJ."""
    return Transformer.from_crs("EPSG:4326", crs, always_xy=True)
