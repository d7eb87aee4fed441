"""Satellite tiles and where each lies: a mosaic, of which `candidates.cut` makes what a city is searched in.

Positions come from one of three places: GeoTIFF tags or a world file beside the picture, XYZ or TMS names, or a CSV. Each
source tile keeps the coordinates it came in (an affine map from its pixels to degrees, Web Mercator, UTM, or local
metres).
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image
from scipy.spatial import cKDTree
from torch import Tensor

from ucvgl.data.container import FileImages
from ucvgl.data.decoding import FORMATS, decode_file
from ucvgl.data.files import folder, numbers, read_position_table, walk
from ucvgl.errors import InputError
from ucvgl.imagery import in_threads, match_rows, read_columns
from ucvgl.positions import Metres, Positions, Wgs84, from_metres, from_utm, to_metres, to_utm

CITY_MAX_M = 200_000.0  # across; where the local metres are still true to 0.02 %
MERCATOR_RADIUS_M = 6_378_137.0
_WAYS = (
    "GeoTIFF tags (or a world file .pgw, .jgw, .tfw, .wld beside the picture); names z/x/y or z_x_y of an XYZ or TMS "
    "pyramid; or table=, a CSV with file, latitude, longitude and metres_per_pixel or span_m"
)


@dataclass(frozen=True, eq=False)
class Mosaic:
    """N source tiles and where they lie; pixels are read when asked for.

    Args:
        root: the folder.
        files: paths below it.
        size_px: (N, 2) int64, height and width.
        to_source: (N, 2, 3) float64, maps (column, row, 1), pixel centres at whole numbers, to source coordinates.
        epsg: the source coordinates: 4326 (longitude, latitude), 3857, 326xx, 327xx; None for local metres.
        origin: latitude and longitude of the local frame's zero, to six decimals.
        corners_m: (N, 4, 2) float64 metres east and north: north-west, north-east, south-east, south-west.
        unreadable: file and reason of the pictures that were left out.
        note: what else a reader must know, or ''.
    """

    root: str
    files: tuple[str, ...]
    size_px: np.ndarray
    to_source: np.ndarray
    epsg: int | None
    origin: tuple[float, float]
    corners_m: np.ndarray
    unreadable: tuple[tuple[str, str], ...] = ()
    note: str = ""

    def __len__(self) -> int:
        return len(self.files)

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

    def read(self, index: int) -> Tensor:
        """Source tile `index` as uint8 (3, H, W); InputError names a file that cannot be read or has another size."""
        path = f"{self.root}/{self.files[index]}"
        image = decode_file(path)
        if tuple(image.shape[1:]) != tuple(self.size_px[index]):
            raise InputError(
                path, expected=f"{self.size_px[index].tolist()} rows and columns, as its header said",
                found=list(image.shape[1:]), todo="Save it upright, without an EXIF orientation; or read the folder anew.",
            )  # fmt: skip
        return image

    def digest(self) -> str:
        """A digest that changes with names, positions and, as far as is cheap, pixels."""
        files = FileImages(self.root, self.files, self.files).digest()
        return hashlib.sha256(files.encode() + self.corners_m.tobytes() + self.size_px.tobytes()).hexdigest()[:16]

    def text(self) -> str:
        """One paragraph for people: how many, where, how fine, what was left out."""
        low, high = self.bounds_m
        finest, coarsest = self.resolution_m.min(), self.resolution_m.max()
        rows = [
            f"{len(self):,} tiles in {self.root}: {high[0] - low[0]:,.0f} m by {high[1] - low[1]:,.0f} m around "
            f"{self.origin[0]:.6f}, {self.origin[1]:.6f}; {finest:.3g} to {coarsest:.3g} m a pixel; "
            + ("positions from a table" if self.epsg is None else f"EPSG {self.epsg}")
        ]
        rows += [self.note] * bool(self.note)
        rows += [f"left out: {file}: {reason}" for file, reason in self.unreadable[:10]]
        if len(self.unreadable) > 10:
            rows.append(f"left out: and {len(self.unreadable) - 10:,} more")
        return "\n".join(rows)


# ------------------------------------------------------------------------------------------------------------- reading


def open_mosaic(
    root: Path | str, table: Path | str | None = None, *, scheme: Literal["xyz", "tms"] = "xyz", zoom: int | None = None,
    epsg: int | None = None, verify: bool = True, workers: int | None = None, progress: bool = False,
) -> Mosaic:  # fmt: skip
    """Finds the tiles below a folder and where each lies. Tags count more than names; a table is asked alone.

    Args:
        root: the folder, subfolders included.
        table: a CSV with a header: file, latitude and longitude of the tile's centre, metres_per_pixel or span_m (across).
        scheme: how tile names count rows: 'xyz' from the north, 'tms' from the south.
        zoom: the level to take from tile names of several.
        epsg: the coordinate system of world files and GeoTIFFs that do not say theirs; they are WGS84 if they look like
            degrees.
        verify: decode every tile once, so that a damaged one is left out here; else it raises when it is needed.
        workers: threads; the number of cores by default.
        progress: show a bar.

    Raises:
        InputError: no tile, tiles without positions, of several zoom levels, coordinate systems or twice at one place, a
            coordinate system other than EPSG 4326, 3857, 326xx and 327xx, or tiles more than 200 km apart. A damaged
            picture is no error: `unreadable` names it.
    """
    root = folder(root, "a folder of satellite tiles")
    if scheme not in ("xyz", "tms"):
        raise InputError("scheme", expected="'xyz' or 'tms'", found=repr(scheme), todo="Say how rows are counted.")
    if epsg is not None:
        _check_epsg("epsg", epsg)
    names = walk(root)[0]
    if not names:
        raise InputError(
            root, expected="satellite tiles", found="no image", todo="Copy PNG, JPEG, TIFF or WebP tiles there."
        )
    looks = in_threads(lambda n: _look(root / n, table is None, epsg), names, workers, progress, "looking at tiles")
    broken = [(name, look.fault) for name, look in zip(names, looks, strict=True) if look.fault]
    good = [i for i, look in enumerate(looks) if not look.fault]
    if verify and good:
        faults = in_threads(lambda i: _damage(root / names[i], looks[i]), good, workers, progress, "checking tiles")
        broken += [(names[i], fault) for i, fault in zip(good, faults, strict=True) if fault]
        good = [i for i, fault in zip(good, faults, strict=True) if not fault]
    if not good:
        raise InputError(
            root, expected="a readable tile", found=f"{len(broken)} damaged: {broken[0][0]}: {broken[0][1]}",
            todo="Copy the tiles again.",
        )  # fmt: skip
    names, looks = [names[i] for i in good], [looks[i] for i in good]
    broken.sort()
    if table is not None:
        return _from_table(root, names, looks, Path(table), broken)
    placed = [look.place for look in looks]
    if not all(placed):
        keep, places = _from_names(root, names, looks, scheme, zoom)
        names, looks, placed = [names[i] for i in keep], [looks[i] for i in keep], places
    systems = Counter(place.epsg for place in placed)
    if len(systems) > 1:
        raise _mixed(root, {f"EPSG {code}": count for code, count in systems.items()})
    code = placed[0].epsg
    size = np.array([(look.height, look.width) for look in looks], np.int64)
    to_source = np.stack([place.affine for place in placed])
    corners = from_source(_corners(to_source, size).reshape(-1, 2), code)
    where = Positions(corners, Wgs84(), str(root))
    origin = _origin(corners.reshape(-1, 4, 2).mean(1))
    corners_m = to_metres(where, origin).values.reshape(-1, 4, 2)
    return _checked(Mosaic(str(root), tuple(names), size, to_source, code, origin, corners_m, tuple(broken)))


class _Place(NamedTuple):
    """Where a tile's pixels lie: (2, 3) from (column, row, 1) to coordinates of a system."""

    affine: np.ndarray
    epsg: int


class _Look(NamedTuple):
    """What a file's header and tags say."""

    width: int
    height: int
    place: _Place | None
    fault: str


def _look(path: Path, tags: bool, epsg: int | None) -> _Look:
    try:
        with open(path, "rb") as file, Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            fields = dict(image.tag_v2) if tags and image.format == "TIFF" else {}
    except Exception as error:  # decoders raise whatever a damaged byte leads them to
        return _Look(0, 0, None, f"no image ({type(error).__name__}: {error})"[:160])
    place = None
    if tags:
        place = _geotiff(path, fields, epsg) or _world_file(path, epsg)
    return _Look(width, height, place, "")


def _damage(path: Path, look: _Look) -> str:
    """Why a tile cannot be decoded, or ''; JPEG is read whole, but only an eighth of it transformed."""
    try:
        decode_file(str(path), (max(look.height // 8, 1), max(look.width // 8, 1)))
    except InputError as error:
        return error.found
    return ""


def _geotiff(path: Path, tags: dict[int, tuple], epsg: int | None) -> _Place | None:
    """ModelTransformation, or ModelPixelScale with ModelTiepoint (OGC GeoTIFF 1.1, sections 7.1 and B.6)."""
    if 34264 in tags:
        m = [float(v) for v in tags[34264]]
        affine = np.array([[m[0], m[1], m[3]], [m[4], m[5], m[7]]])
    elif 33922 in tags and 33550 in tags:
        tie, scale = [float(v) for v in tags[33922]], [float(v) for v in tags[33550]]
        affine = np.array([[scale[0], 0, tie[3] - tie[0] * scale[0]], [0, -scale[1], tie[4] + tie[1] * scale[1]]])
    else:
        return None
    directory = [int(v) for v in tags.get(34735, ())]
    keys = {directory[i]: directory[i + 3] for i in range(4, len(directory) - 3, 4) if directory[i + 1] == 0}
    if keys.get(1025) != 2:  # raster space counts from a pixel's corner, unless it says 'PixelIsPoint'
        affine[:, 2] += affine[:, :2].sum(1) / 2
    code = keys.get(3072) or keys.get(2048) or _guess(path, affine, epsg)
    _check_epsg(path, code)
    return _Place(_regular(path, affine), code)


def _world_file(path: Path, epsg: int | None) -> _Place | None:
    """Six lines beside the picture: the affine map from pixel centres (ESRI's world file)."""
    ending = path.suffix[1:].lower()
    for suffix in (f"{ending[0]}{ending[-1]}w", f"{ending}w", "wld"):
        world = path.with_suffix(f".{suffix}")
        if world.is_file():
            break
    else:
        return None
    words = world.read_text(encoding="utf-8", errors="replace").split()
    if len(words) != 6:
        raise InputError(world, expected="six numbers", found=f"{len(words)} words", todo="Write the world file anew.")
    a, d, b, e, c, f = numbers(world, words)
    affine = np.array([[a, b, c], [d, e, f]])
    return _Place(_regular(world, affine), _guess(world, affine, epsg))


def _guess(path: Path, affine: np.ndarray, epsg: int | None) -> int:
    """The stated system, or degrees if the numbers can be nothing else."""
    if epsg is not None:
        return epsg
    if np.abs(affine[:, :2]).max() < 0.01 and abs(affine[0, 2]) <= 180 and abs(affine[1, 2]) <= 90:
        return 4326
    raise InputError(
        path, expected="the coordinate system's EPSG code, or degrees", found=f"metres at {affine[0, 2]:.1f}, {affine[1, 2]:.1f}",
        todo="Say it with epsg= (326xx and 327xx are UTM, 3857 Web Mercator).",
    )  # fmt: skip


def _regular(path: Path, affine: np.ndarray) -> np.ndarray:
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:, :2])) == 0:
        raise InputError(
            path, expected="pixels with an area", found=affine.tolist(), todo="Correct the pixel size and the position."
        )
    return affine


def _check_epsg(where: object, code: int) -> None:
    if code not in (4326, 3857) and not (32601 <= code <= 32660 or 32701 <= code <= 32760):
        raise InputError(
            where, expected="EPSG 4326, 3857, 326xx or 327xx", found=f"EPSG {code}",
            todo="Reproject the tiles (gdalwarp -t_srs EPSG:3857), or give their positions in a table.",
        )  # fmt: skip


_LAST_THREE = re.compile(r"(?<!\d)(\d{1,9})[/_-](\d{1,9})[/_-](\d{1,9})(?:@\dx)?$")


def tile_numbers(names: Sequence[str]) -> np.ndarray:
    """(N, 3) int64 zoom, x, y from the ends of file names; -1 where there are none.

    z/x/y, z_x_y and z-x-y; x_y_z only where that explains more of the names, so never when both readings do.
    """
    found = [_LAST_THREE.search(name.rpartition(".")[0]) for name in names]
    three = np.array([[int(g) for g in m.groups()] if m else [-1, -1, -1] for m in found], np.int64).reshape(-1, 3)

    def read(order: list[int]) -> np.ndarray:
        z, x, y = (three[:, order].T[k] for k in range(3))
        side = np.left_shift(1, z.clip(0, 30))
        fits = (z >= 0) & (z <= 30) & (x >= 0) & (y >= 0) & (x < side) & (y < side)
        return np.where(fits[:, None], three[:, order], -1)

    first, last = read([0, 1, 2]), read([2, 0, 1])
    return last if (last[:, 0] >= 0).sum() > (first[:, 0] >= 0).sum() else first


def _from_names(
    root: Path, names: list[str], looks: list[_Look], scheme: str, zoom: int | None
) -> tuple[list[int], list[_Place]]:
    """Which tiles to keep, and their places in Web Mercator by their names."""
    tile = tile_numbers(names)
    tagged = np.array([look.place is not None for look in looks])
    lost = np.flatnonzero((tile[:, 0] < 0) & ~tagged)
    if len(lost):
        some = ", ".join(names[i] for i in lost[:3])
        raise InputError(
            root, expected=f"a position for every tile: {_WAYS}",
            found=f"{len(lost):,} of {len(names):,} tiles without: {some}", todo="Give the positions in one of these ways.",
        )  # fmt: skip
    if tagged.any():
        codes = Counter(f"EPSG {look.place.epsg} in tags" for look in looks if look.place is not None)
        raise _mixed(root, {**codes, "tile names": int((~tagged).sum())})
    levels = Counter(tile[:, 0].tolist())
    if (zoom is None and len(levels) > 1) or (zoom is not None and zoom not in levels):
        held = ", ".join(f"zoom {z}: {count:,} tiles" for z, count in sorted(levels.items()))
        raise InputError(
            root, expected="one zoom level" if zoom is None else f"tiles of zoom {zoom}", found=held,
            todo="Choose one with zoom=.",
        )  # fmt: skip
    keep = [i for i in range(len(names)) if zoom is None or tile[i, 0] == zoom]
    places = []
    for i in keep:
        z, x, y = tile[i].tolist()
        row = (1 << z) - 1 - y if scheme == "tms" else y
        edge = 2 * math.pi * MERCATOR_RADIUS_M / (1 << z)
        right, down = edge / looks[i].width, edge / looks[i].height
        west, north = x * edge - math.pi * MERCATOR_RADIUS_M, math.pi * MERCATOR_RADIUS_M - row * edge
        places.append(_Place(np.array([[right, 0, west + right / 2], [0, -down, north - down / 2]]), 3857))
    return keep, places


def _from_table(root: Path, names: list[str], looks: list[_Look], table: Path, broken: list[tuple[str, str]]) -> Mosaic:
    """Tiles at centres in degrees, taken as north up and true to scale in local metres."""
    files, places = read_position_table(table)
    if not isinstance(places.frame, Wgs84):
        raise InputError(table, expected="latitude and longitude", found="east and north", todo="Give WGS84 degrees.")
    _, columns = read_columns(table, ("metres_per_pixel", "span_m"))
    row = match_rows(names, files, table)
    lost = np.flatnonzero(row < 0)
    if len(lost):
        raise InputError(
            table, expected="a row for every tile", found=f"{len(lost):,} tiles without: {', '.join(names[i] for i in lost[:3])}",
            todo="Add the rows, or move these tiles elsewhere.",
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
    origin = _origin(degrees.values)
    centre = to_metres(degrees, origin).values
    to_source = np.zeros((len(names), 2, 3))
    to_source[:, 0, 0], to_source[:, 1, 1] = scale, -scale
    to_source[:, 0, 2] = centre[:, 0] - scale * (size[:, 1] - 1) / 2
    to_source[:, 1, 2] = centre[:, 1] + scale * (size[:, 0] - 1) / 2
    extra = len(files) - len(np.unique(row))
    note = f"{extra:,} rows of {table.name} name no readable tile here" if extra else ""
    corners = _corners(to_source, size)
    return _checked(Mosaic(str(root), tuple(names), size, to_source, None, origin, corners, tuple(broken), note))


def _mixed(root: Path, counts: dict[str, int]) -> InputError:
    return InputError(
        root, expected="tiles in one coordinate system", found=", ".join(f"{what}: {n:,}" for what, n in counts.items()),
        todo="Keep one kind in the folder, or reproject the others.",
    )  # fmt: skip


def _corners(to_source: np.ndarray, size_px: np.ndarray) -> np.ndarray:
    """(N, 4, 2) source coordinates of the outer corners: north-west, north-east, south-east, south-west."""
    height, width = size_px.T
    low = np.full(len(size_px), -0.5)
    column = np.stack([low, width - 0.5, width - 0.5, low], 1)
    row = np.stack([low, low, height - 0.5, height - 0.5], 1)
    pixels = np.stack([column, row, np.ones_like(row)], -1)  # (N, 4, 3)
    return np.einsum("nij,nkj->nki", to_source, pixels)


def _origin(degrees: np.ndarray) -> tuple[float, float]:
    middle = np.round((degrees.min(0) + degrees.max(0)) / 2, 6)
    return float(middle[0]), float(middle[1])


def _checked(mosaic: Mosaic) -> Mosaic:
    """The mosaic, if its tiles lie in one city and no two at one place."""
    centre = mosaic.centre_m
    away = np.hypot(*(centre - np.median(centre, axis=0)).T)
    if not away.max() < CITY_MAX_M / 2:
        far = int(np.argmax(away))
        where = ", ".join(f"{v:.5f}" for v in mosaic.positions.values[far])
        raise InputError(
            mosaic.root, expected="tiles of one city, within 200 km", found=f"{mosaic.files[far]} at {where}",
            todo="Correct its position (latitude first), or put each city into a folder of its own.",
        )  # fmt: skip
    edge = mosaic.resolution_m * np.sqrt(mosaic.size_px.prod(1))  # (N,) metres
    pairs = cKDTree(centre).query_pairs(0.05 * edge.max(), output_type="ndarray")
    if len(pairs):
        a, b = pairs.T
        near = np.hypot(*(centre[a] - centre[b]).T) < 0.05 * np.minimum(edge[a], edge[b])
        pairs = pairs[near & (np.abs(np.log(edge[a] / edge[b])) < 0.1)]
    if len(pairs):
        a, b = sorted(mosaic.files[i] for i in pairs[0])
        raise InputError(
            mosaic.root, expected="every place once", found=f"{len(pairs):,} pairs of tiles at one place, such as {a} and {b}",
            todo="Remove one of each pair.",
        )  # fmt: skip
    return mosaic


def to_coordinates(degrees: np.ndarray, epsg: int) -> np.ndarray:
    """Latitude and longitude (N, 2) in degrees -> x, y (N, 2) of EPSG 4326 (degrees), 3857, 326xx or 327xx (metres)."""
    lat, lon = np.asarray(degrees, np.float64).T
    if epsg == 4326:
        return np.stack([lon, lat], axis=1)
    if epsg == 3857:
        return MERCATOR_RADIUS_M * np.stack([np.radians(lon), np.arctanh(np.sin(np.radians(lat)))], axis=1)
    east, north, _, _ = to_utm(lat, lon, epsg % 100)
    shift = 10_000_000.0 * (int(epsg >= 32700) - int(lat[0] < 0))  # to_utm goes by the first position's hemisphere
    return np.stack([east, north + shift], axis=1)


def from_source(xy: np.ndarray, epsg: int) -> np.ndarray:
    """The inverse of `to_coordinates`."""
    x, y = np.asarray(xy, np.float64).T
    if epsg == 4326:
        lat, lon = y, x
    elif epsg == 3857:
        lat, lon = np.degrees(np.arctan(np.sinh(y / MERCATOR_RADIUS_M))), np.degrees(x / MERCATOR_RADIUS_M)
    else:
        lat, lon = from_utm(x, y, epsg % 100, south=epsg >= 32700)
    return np.stack([lat, lon], axis=1)
