"""Satellite tiles and where each lies: a mosaic, which `candidates.cut` cuts into candidates.

Positions come from one of three places: what a file says itself (GeoTIFF, or a world file beside it, in any coordinate
system), the names of a Web Mercator pyramid, or a CSV.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import morecantile
import numpy as np
from pyproj import CRS, Transformer
from rasterio.transform import from_bounds, from_origin
from scipy.spatial import cKDTree
from tqdm.contrib.concurrent import thread_map

from ucvgl.data.container import FileImages
from ucvgl.data.files import folder, read_columns, read_position_table, table_rows, walk
from ucvgl.errors import InputError
from ucvgl.locate import rasters
from ucvgl.locate.rasters import CITY_MAX_M, Raster
from ucvgl.locate.tile_names import Scheme, as_xyz, tell_scheme, tile_numbers
from ucvgl.positions import Positions, Wgs84, from_metres, haversine, to_metres

SHOWN = 10  # files left out that a report lists
SAME_PLACE = 0.05  # of an edge: tiles of one size whose centres lie nearer show the same place
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

    @property
    def bounds_m(self) -> tuple[np.ndarray, np.ndarray]:
        """South-western and north-eastern corner (2,) of all files, in local metres."""
        return self.corners_m.min((0, 1)), self.corners_m.max((0, 1))

    def digest(self) -> str:
        """A digest that changes with names, positions and, as far as is cheap, pixels."""
        stretch = sorted({(raster.kind, raster.stretch) for raster in self.rasters if raster.stretch})
        said = f"{FileImages(self.root, self.files, self.files).digest()} {stretch}"
        return hashlib.sha256(said.encode() + self.corners_m.tobytes()).hexdigest()[:16]

    def text(self) -> str:
        """One paragraph for people: how many, where, how fine, what was left out."""
        across, high = self.bounds_m[1] - self.bounds_m[0]
        fine = [raster.pixel_m for raster in self.rasters]
        systems = sorted({CRS.from_user_input(text).name for text in {raster.crs for raster in self.rasters}})
        rows = [
            f"{len(self):,} tiles in {self.root}: {across:,.0f} m by {high:,.0f} m around {self.origin[0]:.6f}, "
            f"{self.origin[1]:.6f}; {min(fine):.3g} to {max(fine):.3g} m a pixel; {', '.join(systems)}"
        ]
        return "\n".join([*rows, *self.notes, *not_used(self.passed_over, self.unreadable)])


def not_used(passed_over: Sequence[str], unreadable: Sequence[tuple[str, str]]) -> list[str]:
    """Lines of a report: files of kinds that are not read, and the first of those that cannot be used, with their reasons."""
    rows = [f"left out: {file}: {reason}" for file, reason in unreadable[:SHOWN]]
    if passed_over:
        some = ", ".join(passed_over[:3])
        rows.insert(0, f"passed over {len(passed_over):,} files of kinds that are not read, such as {some}")
    return rows + [f"left out: and {len(unreadable) - SHOWN:,} more"] * (len(unreadable) > SHOWN)


def open_mosaic(
    root: Path | str, table: Path | str | None = None, scheme: Scheme | None = None, zoom: int | None = None,
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
    passed_over = tuple(name for name in others if not name.lower().endswith(".jp2"))
    names = sorted({*images, *others} - {*passed_over})
    with rasters.quiet():
        looks = thread_map(
            lambda name: rasters.look(root, name, table is None, epsg), names, desc="looking at tiles", unit="tile",
            disable=not progress,
        )  # fmt: skip
    unreadable = tuple((name, look) for name, look in zip(names, looks, strict=True) if isinstance(look, str))
    good = [look for look in looks if isinstance(look, Raster)]
    if not good:
        found = f"{len(unreadable)} that cannot: {': '.join(unreadable[0])}" if unreadable else "no image"
        raise InputError(
            root, expected="satellite tiles that can be used (PNG, JPEG, TIFF, JPEG 2000 or WebP)",
            found=", ".join([found, *passed_over[:3]]), todo="Convert them, or copy them again if they are damaged.",
        )  # fmt: skip
    placed, notes = _by_names(root, good, scheme, zoom) if table is None else _by_table(good, Path(table))
    degrees = np.stack([_corners(look) for look in placed])  # (N, 4, 2)
    middle = degrees.mean(1)
    away = np.nan_to_num(haversine(middle, np.median(middle, axis=0)), nan=np.inf)
    if away.max() > CITY_MAX_M / 2:
        far = int(away.argmax())
        raise InputError(
            root, expected="tiles of one city, within 200 km",
            found=f"{placed[far].name} at {middle[far, 0]:.5f}, {middle[far, 1]:.5f}",
            todo="Correct its position (latitude first) or system (--epsg), or put each city into a folder of its own.",
        )  # fmt: skip
    origin = _middle(middle)
    corners_m = to_metres(Positions(degrees.reshape(-1, 2), Wgs84(), str(root)), origin).values.reshape(-1, 4, 2)
    (ax, ay), (bx, by) = (corners_m[:, [2, 3]] - corners_m[:, [0, 1]]).transpose(1, 2, 0)  # the diagonals
    area = np.abs(ax * by - ay * bx) / 2
    edge, centre = np.sqrt(area), corners_m.mean(1)  # (N,), (N, 2) metres
    a, b = cKDTree(centre).query_pairs(SAME_PLACE * edge.max(), output_type="ndarray").T
    near = np.linalg.norm(centre[a] - centre[b], axis=1) < SAME_PLACE * np.minimum(edge[a], edge[b])
    same = np.flatnonzero(near & (np.abs(np.log(edge[a] / edge[b])) < 2 * SAME_PLACE))
    if len(same):
        pair = sorted(placed[at].name for at in (a[same[0]], b[same[0]]))
        raise InputError(
            root, expected="every place once", found=f"{len(same):,} pairs of tiles at one place, such as {' and '.join(pair)}",
            todo="Remove one of each pair.",
        )  # fmt: skip
    kinds = sorted({look.kind for look in placed} - {"uint8"})
    stretch = {kind: rasters.stretch_of([look.sample for look in placed if look.kind == kind]) for kind in kinds}
    notes += [f"values of {kind} from {a:.4g} to {b:.4g} are shown as 0 to 255" for kind, (a, b) in stretch.items()]
    files = tuple(
        replace(look, stretch=stretch.get(look.kind), pixel_m=math.sqrt(size / (look.width * look.height)))
        for look, size in zip(placed, area.tolist(), strict=True)
    )
    return Mosaic(str(root), files, origin, corners_m, unreadable, passed_over, tuple(notes))


# --------------------------------------------------------------------------------------------------- where each file lies


def _by_names(
    root: Path, looks: list[Raster], scheme: Scheme | None, zoom: int | None
) -> tuple[list[Raster], list[str]]:
    """The files that say where they lie, the others by their names, of one level; and what a reader must know of that."""
    tagged = [look for look in looks if look.transform is not None]
    looks = [look for look in looks if look.transform is None]
    if not looks:
        return tagged, []
    above = f"{root.resolve().name}/" if root.resolve().name.isdigit() else ""  # somebody points at a level's folder
    tile, esri = tile_numbers([above + look.name for look in looks])
    lost = [look.name for look, z in zip(looks, tile[:, 0].tolist(), strict=True) if z < 0]
    if lost:
        raise InputError(
            root, expected=f"a position for every tile: {WAYS}",
            found=f"{len(lost):,} of {len(looks) + len(tagged):,} tiles without: {', '.join(lost[:3])}",
            todo="Give the positions in one of these ways; rectify pictures with ground control points (gdalwarp).",
        )  # fmt: skip
    levels = Counter(tile[:, 0].tolist())
    zoom = next(iter(levels)) if zoom is None and len(levels) == 1 else zoom
    if zoom not in levels:
        raise InputError(
            root, expected="one zoom level" if zoom is None else f"tiles of zoom {zoom}",
            found=", ".join(f"zoom {z}: {count:,} tiles" for z, count in sorted(levels.items())),
            todo="Choose one with --zoom.",
        )  # fmt: skip
    keep = np.flatnonzero(tile[:, 0] == zoom)
    looks, tile = [looks[i] for i in keep], tile[keep]
    scheme, note = tell_scheme(root.parent if above else root, tile, [look.edges for look in looks], scheme, esri)
    mercator = morecantile.tms.get("WebMercatorQuad")
    for (z, x, y), look in zip(as_xyz(tile, scheme).tolist(), looks, strict=True):
        bounds = mercator.xy_bounds(morecantile.Tile(x, y, z))
        transform = from_bounds(*bounds, look.width, look.height)
        tagged.append(replace(look, transform=transform, crs="EPSG:3857"))
    return tagged, [note] * bool(note)


def _by_table(looks: list[Raster], table: Path) -> tuple[list[Raster], list[str]]:
    """Files at centres in degrees, taken as north up and true to scale in local metres; and what a reader must know of that."""
    files, places = read_position_table(table)
    _, columns = read_columns(table, ("metres_per_pixel", "span_m"))
    row = table_rows([look.name for look in looks], files, table)
    scale, span = (columns.get(name, np.full(len(files), np.nan))[row] for name in ("metres_per_pixel", "span_m"))
    scale = np.where(np.isnan(scale), span / [look.width for look in looks], scale)
    lost = np.flatnonzero(~((row >= 0) & places.known[row] & (scale > 0)))
    if len(lost):
        raise InputError(
            table, expected="a position, and metres_per_pixel or span_m above 0, for every tile",
            found=f"{len(lost):,} tiles without: {', '.join(looks[i].name for i in lost[:3])}",
            todo="Complete the rows, or move these tiles elsewhere.",
        )  # fmt: skip
    degrees = places.take(row)
    origin = _middle(degrees.values)
    placed = []
    for look, metre, (east, north) in zip(looks, scale, to_metres(degrees, origin).values, strict=True):
        transform = from_origin(east - metre * look.width / 2, north + metre * look.height / 2, metre, metre)
        placed.append(replace(look, transform=transform, crs=local_crs(origin)))
    extra = len(files) - len(np.unique(row))
    return placed, [f"{extra:,} rows of {table.name} name no usable tile here"] * bool(extra)


def _middle(degrees: np.ndarray) -> tuple[float, float]:
    """Latitude and longitude in the middle of places (N, 2), to six decimals."""
    return tuple(((degrees.min(0) + degrees.max(0)) / 2).round(6).tolist())


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


@lru_cache(maxsize=64)
def from_degrees(crs: str) -> Transformer:
    """From longitude and latitude to x and y of a coordinate system, as WKT or in words of PROJ."""
    return Transformer.from_crs("EPSG:4326", crs, always_xy=True)
