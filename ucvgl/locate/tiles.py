"""Satellite tiles and where each lies: a mosaic, which `candidates.cut` cuts into candidates.

Positions come from one of three places: what a file says itself (GeoTIFF, or a world file beside it, in any coordinate
system), the names of a Web Mercator pyramid, or a CSV.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import morecantile
import numpy as np
from rasterio.transform import from_bounds, from_origin
from scipy.spatial import cKDTree
from tqdm.contrib.concurrent import thread_map

from ucvgl.data.container import FileImages
from ucvgl.data.files import folder, read_columns, read_position_table, table_rows, walk
from ucvgl.errors import InputError
from ucvgl.locate.rasters import Raster, from_degrees, look, quiet, stretch_of
from ucvgl.locate.tile_names import Scheme, as_xyz, tell_scheme, tile_numbers
from ucvgl.positions import Positions, Wgs84, haversine, to_metres

CITY_MAX_M = 200_000.0  # across; where the local metres are still true to 0.02 %
SAME_PLACE = 0.05  # of an edge: tiles whose corners lie nearer show the same place
WAYS = (
    "GeoTIFF tags (or a world file .pgw, .jgw, .tfw, .wld beside the image); names z/x/y or z_x_y of an XYZ or TMS pyramid, "
    "or z/y/x of ArcGIS (--scheme zyx); or --tiles-table, a CSV with file, latitude, longitude and metres_per_pixel or span_m"
)


@dataclass(frozen=True, eq=False)
class Mosaic:
    """N files and where they lie; pixels are read when asked for."""

    root: str  # the folder
    rasters: tuple[Raster, ...]  # N files below it, each with its map from pixels to its coordinate system
    origin: tuple[float, float]  # latitude and longitude of the local frame's zero, to six decimals
    corners_m: np.ndarray  # (N, 4, 2) float64 metres east and north: north-west, north-east, south-east, south-west
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
    def bounds_m(self) -> tuple[np.ndarray, np.ndarray]:
        """South-western and north-eastern corner (2,) of all files, in local metres."""
        return self.corners_m.min((0, 1)), self.corners_m.max((0, 1))

    def digest(self) -> str:
        """A digest that changes with names, positions and, as far as is cheap, pixels."""
        stretch = sorted({(raster.kind, raster.stretch) for raster in self.rasters if raster.stretch})
        said = f"{FileImages(self.root, self.files, self.files).digest()} {stretch}"
        return hashlib.sha256(said.encode() + self.corners_m.tobytes()).hexdigest()[:16]


def open_mosaic(
    root: Path | str, table: Path | str | None = None, scheme: Scheme | None = None, epsg: int | None = None,
    progress: bool = False,
) -> Mosaic:  # fmt: skip
    """Finds the tiles below a folder and where each lies. What a file says counts more than its name; a table is asked alone.

    The arguments are fields of `inputs.Request`. InputError: no usable tile, tiles without positions or twice at one place, an
    unknown coordinate system, tiles more than 200 km apart. A tile that cannot be used is no error: `unreadable` names it.
    """
    root = folder(root, "a folder of satellite tiles")
    images, others = walk(root)
    passed_over = tuple(name for name in others if not name.lower().endswith(".jp2"))
    names = sorted({*images, *others} - {*passed_over})
    with quiet():
        looks = thread_map(lambda name: look(root, name, table is None, epsg), names, desc="looking at tiles", unit="tile",
                           disable=not progress)  # fmt: skip
    unreadable = tuple((name, found) for name, found in zip(names, looks, strict=True) if isinstance(found, str))
    good = [found for found in looks if isinstance(found, Raster)]
    if not good:
        found = f"{len(unreadable)} that cannot: {': '.join(unreadable[0])}" if unreadable else "no image"
        raise InputError(root, expected="satellite tiles that can be used (PNG, JPEG, TIFF, JPEG 2000 or WebP)",
                         found=", ".join([found, *passed_over[:3]]),
                         todo="Convert them, or copy them again if they are damaged.")  # fmt: skip
    placed, notes = _by_names(root, good, scheme) if table is None else (_by_table(good, Path(table)), [])

    degrees = np.stack([_corners(raster) for raster in placed])  # (N, 4, 2)
    centre = degrees.mean(1)
    away = np.nan_to_num(haversine(centre, np.median(centre, axis=0)), nan=np.inf)
    if away.max() > CITY_MAX_M / 2:
        far = int(away.argmax())
        raise InputError(root, expected="tiles of one city, within 200 km",
                         found=f"{placed[far].name} at {centre[far, 0]:.5f}, {centre[far, 1]:.5f}",
                         todo="Correct its position (latitude first) or system (--epsg), or put each city into a folder of "
                         "its own.")  # fmt: skip
    origin = tuple(((centre.min(0) + centre.max(0)) / 2).round(6).tolist())
    corners_m = to_metres(Positions(degrees.reshape(-1, 2), Wgs84(), str(root)), origin).values.reshape(-1, 4, 2)
    (ax, ay), (bx, by) = (corners_m[:, [2, 3]] - corners_m[:, [0, 1]]).transpose(1, 2, 0)  # the diagonals
    area = np.abs(ax * by - ay * bx) / 2  # (N,) square metres
    # of four corners in a space of eight dimensions
    same = cKDTree(corners_m.reshape(-1, 8)).query_pairs(2 * SAME_PLACE * np.sqrt(area.min()))
    if same:
        pair = " and ".join(sorted(placed[i].name for i in min(same)))
        raise InputError(root, expected="every place once", found=f"{len(same):,} pairs of tiles at one place, such as {pair}",
                         todo="Remove one of each pair.")  # fmt: skip

    kinds = sorted({raster.kind for raster in placed} - {"uint8"})
    stretch = {kind: stretch_of(kind, [raster.thumb for raster in placed if raster.kind == kind]) for kind in kinds}
    notes += [f"values of {kind} from {a:.4g} to {b:.4g} are shown as 0 to 255" for kind, (a, b) in stretch.items()]
    pixel_m = np.sqrt(area / [raster.width * raster.height for raster in placed]).tolist()
    rasters = [
        replace(raster, stretch=stretch.get(raster.kind), pixel_m=m) for raster, m in zip(placed, pixel_m, strict=True)
    ]
    return Mosaic(str(root), tuple(rasters), origin, corners_m, unreadable, passed_over, tuple(notes))


def _by_names(root: Path, rasters: list[Raster], scheme: Scheme | None) -> tuple[list[Raster], list[str]]:
    """The files that say where they lie, the others by their names, of the finest level; and what a reader must know of that."""
    tagged = [raster for raster in rasters if raster.transform is not None]
    named = [raster for raster in rasters if raster.transform is None]
    if not named:
        return tagged, []
    above = f"{root.resolve().name}/" if root.resolve().name.isdigit() else ""  # somebody points at a level's folder
    tile, is_esri = tile_numbers([above + raster.name for raster in named])
    lost = [raster.name for raster, z in zip(named, tile[:, 0].tolist(), strict=True) if z < 0]
    if lost:
        raise InputError(root, expected=f"a position for every tile: {WAYS}",
                         found=f"{len(lost):,} of {len(rasters):,} tiles without: {', '.join(lost[:3])}",
                         todo="Give the positions in one of these ways; rectify ground control points (gdalwarp).")  # fmt: skip
    finest = tile[:, 0].max()
    level = np.flatnonzero(tile[:, 0] == finest)
    notes = [f"of several zoom levels the finest, {finest}, is taken: {len(level):,} tiles"] * (len(level) < len(tile))
    thumbs = [named[i].thumb for i in level]
    scheme, note = tell_scheme(root.parent if above else root, tile[level], thumbs, "zyx" if is_esri else scheme)
    mercator = morecantile.tms.get("WebMercatorQuad")
    for i, (z, x, y) in zip(level, as_xyz(tile[level], scheme).tolist(), strict=True):
        bounds = mercator.xy_bounds(morecantile.Tile(x, y, z))
        transform = from_bounds(*bounds, named[i].width, named[i].height)
        tagged.append(replace(named[i], transform=transform, crs="EPSG:3857"))
    return tagged, notes + [note] * bool(note)


def _by_table(rasters: list[Raster], table: Path) -> list[Raster]:
    """Files at centres in degrees, taken as north up and true to scale in metres about their mean."""
    files, places = read_position_table(table)
    _, columns = read_columns(table, ("metres_per_pixel", "span_m"))
    row = table_rows([raster.name for raster in rasters], files, table)
    scale, span = (columns.get(name, np.full(len(files), np.nan))[row] for name in ("metres_per_pixel", "span_m"))
    scale = np.where(np.isnan(scale), span / [raster.width for raster in rasters], scale)
    lost = np.flatnonzero(~((row >= 0) & places.known[row] & (scale > 0)))
    if len(lost):
        raise InputError(table, expected="a position, and metres_per_pixel or span_m above 0, for every tile",
                         found=f"{len(lost):,} tiles without: {', '.join(rasters[i].name for i in lost[:3])}",
                         todo="Complete the rows, or move these tiles elsewhere.")  # fmt: skip
    degrees = places.take(row)
    origin = tuple(degrees.values.mean(0).round(6).tolist())
    placed = []
    for raster, metre, (east, north) in zip(rasters, scale, to_metres(degrees, origin).values, strict=True):
        transform = from_origin(east - metre * raster.width / 2, north + metre * raster.height / 2, metre, metre)
        placed.append(replace(raster, transform=transform, crs=local_crs(origin)))
    return placed


def _corners(raster: Raster) -> np.ndarray:
    """(4, 2) latitude and longitude of a file's corners; infinite where these lie outside its coordinate system."""
    x, y = raster.transform * (np.array([0, 1, 1, 0]) * raster.width, np.array([0, 0, 1, 1]) * raster.height)
    lon, lat = from_degrees(raster.crs).transform(x, y, direction="INVERSE")
    return np.stack([lat, lon], axis=1)


def local_crs(origin: tuple[float, float]) -> str:
    """Metres about a place, in words of PROJ: the frame of `positions.to_metres`."""
    return (
        f"+proj=tmerc +lat_0={origin[0]:.6f} +lon_0={origin[1]:.6f} +k=1 +x_0=0 +y_0=0 +datum=WGS84 +units=m +type=crs"
    )
