"""Satellite tiles: where each file lies, all of them as one mosaic, and the square candidates cut from it.

Positions come from what a file says itself (GeoTIFF, or a world file beside it, in any coordinate system), from the
names of a Web Mercator pyramid, or from a CSV. Where a pixel is transparent, no-data or not finite, there is no ground.
"""

import hashlib
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import morecantile
import numpy as np
import rasterio
import torch
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from rasterio.fill import fillnodata
from rasterio.io import DatasetReader
from rasterio.transform import Affine, from_bounds, from_origin
from rasterio.vrt import WarpedVRT
from rasterio.warp import Resampling
from scipy.ndimage import binary_closing
from torch import Tensor
from tqdm.contrib.concurrent import thread_map

from ucvgl.data.container import ArrayImages, FileImages, Rows
from ucvgl.data.files import folder, read_columns, read_position_table, table_rows, walk
from ucvgl.errors import InputError
from ucvgl.locate.tile_names import Scheme, as_xyz, tell_scheme, tile_numbers
from ucvgl.positions import Positions, Wgs84, from_metres, haversine, to_metres

DRIVERS = ["GTiff", "PNG", "JPEG", "WEBP", "BMP", "JP2OpenJPEG"]  # by a file's content; none may point to other files
STRICT = {"GDAL_ERROR_ON_LIBJPEG_WARNING": True, "GDAL_PNG_WHOLE_IMAGE_OPTIM": False}  # no filling up of cut files
LOOK_PX = 2048  # edge up to which every pixel is looked at before anything is cut; of a larger file as many in all
THUMB_PX = 32  # rows and columns of a file that its values' range and its edges are told by
PART_PX = 2048  # edge of the part of a file that is read at a time
FILLED = 0.75  # of a range of values that the brightest pixels must reach, for it to be taken as the range
CEILINGS = (1.0, *(2.0**bits - 1 for bits in range(8, 17)), np.inf)  # of reflectances, and of 8 to 16 bits
WHITE_0 = ", 0 as white"  # of a kind of values
SPAN_M = 50.0  # edge of a candidate: what the embedded world's encoders learnt
LEAST_COVERED = 0.99  # of a candidate's area
GRID_MAX = 5_000_000  # candidates, before those that nothing covers are left out
PICTURE_MAX = 1_000_000_000  # pixels of the whole mosaic, which take 8 GB while it is painted
CITY_MAX_M = 200_000.0  # across; where the local metres are still true to 0.02 %
WAYS = (
    "GeoTIFF tags (or a world file .pgw, .jgw, .tfw, .wld beside the image); names z/x/y or z_x_y of an XYZ or TMS pyramid, "
    "or z/y/x of ArcGIS (--scheme zyx); or --tiles-table, a CSV with file, latitude, longitude and metres_per_pixel or span_m"
)


@dataclass(eq=False)
class Raster:
    """A file, what it says about itself, and what its name, a table and the mosaic say of it."""

    path: Path
    name: str  # its path below the folder
    height: int
    width: int
    kind: str  # of its values, as uint8
    thumb: np.ndarray  # (bands, THUMB_PX, THUMB_PX) float32, some of its values, its edges' too; NaN where no ground is
    transform: Affine | None = None  # from (column, row) to x and y, whole numbers at corners of pixels
    crs: str = ""  # as WKT or in words of PROJ
    stretch: tuple[float, float] | None = None  # values that become 0 and 255; None: bytes are colours already
    pixel_m: float = 1.0  # on the ground: the root of a pixel's area


@dataclass(frozen=True, eq=False)
class Mosaic:
    """N files and where they lie; pixels are read when asked for."""

    root: str  # the folder
    rasters: tuple[Raster, ...]  # N files below it, each with its map from pixels to its coordinate system
    origin: tuple[float, float]  # latitude and longitude of the local frame's zero, to six decimals
    corners_m: np.ndarray  # (N, 4, 2) float64 metres east and north: north-west, north-east, south-east, south-west
    left_out: tuple[tuple[str, str], ...] = ()  # file and reason of those that cannot be used
    passed_over: tuple[str, ...] = ()  # files of kinds that are not read
    notes: tuple[str, ...] = ()  # what else a reader must know

    @property
    def bounds_m(self) -> tuple[np.ndarray, np.ndarray]:
        """South-western and north-eastern corner (2,) of all files, in local metres."""
        return self.corners_m.min((0, 1)), self.corners_m.max((0, 1))

    def paint(self, centre_m: np.ndarray, pixel_m: float, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """A rectangle about a place (2,): uint8 (3, *shape), north up, black where nothing is, and bool (*shape), where
        something is; of files that overlap the first. InputError: a file that cannot be read."""
        size = np.array(shape[::-1])  # columns and rows
        west, north = centre_m + size * (-0.5, 0.5) * pixel_m
        picture, there = np.zeros((3, *shape), np.uint8), np.zeros(shape, bool)
        corners = (self.corners_m - (west, north)) / (pixel_m, -pixel_m)  # (N, 4, 2) columns and rows
        begin = np.floor(corners.min(1)).clip(0, size).astype(int)
        end = np.ceil(corners.max(1)).clip(0, size).astype(int)
        with warnings.catch_warnings(action="ignore"), rasterio.Env(**STRICT):
            for i in np.flatnonzero((begin < end).all(1)):
                (left, top), (right, below) = begin[i].tolist(), end[i].tolist()
                for row, column in product(range(top, below, PART_PX), range(left, right, PART_PX)):
                    part = np.s_[row : min(row + PART_PX, below), column : min(column + PART_PX, right)]
                    shown = there[part]
                    where = from_origin(west + column * pixel_m, north - row * pixel_m, pixel_m, pixel_m)
                    colours, ground = _pixels(self.rasters[i], _local_crs(self.origin), where, shown.shape)
                    np.copyto(picture[:, *part], colours, where=ground & ~shown)
                    shown |= ground
        gap = binary_closing(np.pad(there, 1, mode="edge"), np.ones((3, 3)))[1:-1, 1:-1] & ~there
        if gap.any():  # between files that meet within a pixel
            for band in picture:
                band[gap] = fillnodata(band, there.astype(np.uint8), max_search_distance=2)[gap]
        return torch.from_numpy(picture), torch.from_numpy(there | gap)


@dataclass(frozen=True, eq=False)
class Candidates:
    """N square candidate tiles, north up."""

    mosaic: Mosaic  # the source
    span_m: float  # edge on the ground, metres
    stride_m: float  # between centres, metres
    centre_m: np.ndarray  # (N, 2) float64 metres east and north in the mosaic's frame
    images: ArrayImages  # their pixels and positions; ids are row and column in the grid, counted from the south-west
    left_out: int  # squares of the grid that are covered less than was asked for

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Rows) -> "Candidates":
        """The candidates at `rows`, in that order."""
        return replace(self, centre_m=self.centre_m[rows], images=self.images.subset(rows))


def open_mosaic(
    root: Path | str, table: Path | str | None = None, scheme: Scheme | None = None, epsg: int | None = None
) -> Mosaic:
    """Finds the tiles below a folder and where each lies. What a file says counts more than its name; a table is asked
    alone. The arguments are fields of `inputs.Request`. InputError: no usable tile (`left_out` names single ones that
    are not), tiles without positions, an unknown coordinate system, tiles more than 200 km apart."""
    root = folder(root, "a folder of satellite tiles")
    images, others = walk(root)
    passed_over = tuple(name for name in others if not name.lower().endswith(".jp2"))
    names = sorted({*images, *others} - {*passed_over})
    with warnings.catch_warnings(action="ignore"), rasterio.Env(**STRICT):  # rasterio warns where no position is
        look = partial(_look, root, epsg=epsg, tags=table is None)
        looks = thread_map(look, names, desc="looking at tiles", disable=None)
    left_out = tuple((name, found) for name, found in zip(names, looks, strict=True) if isinstance(found, str))
    good = [found for found in looks if isinstance(found, Raster)]
    if not good:
        found = f"{len(left_out)} that cannot: {': '.join(left_out[0])}" if left_out else "no image"
        raise InputError(root, "satellite tiles that can be used (PNG, JPEG, TIFF, JPEG 2000 or WebP)",
                         ", ".join([found, *passed_over[:3]]), "Convert them, or copy damaged ones again.")  # fmt: skip
    notes = _place_by_names(root, good, scheme) if table is None else _place_by_table(good, Path(table))
    placed = [raster for raster in good if raster.transform is not None]

    systems = {crs: Transformer.from_crs(crs, "EPSG:4326", always_xy=True) for crs in {one.crs for one in placed}}
    degrees = np.empty((len(placed), 4, 2))  # latitude and longitude of corners, infinite outside a coordinate system
    for corners, raster in zip(degrees, placed, strict=True):
        x, y = raster.transform * (np.array([0, 1, 1, 0]) * raster.width, np.array([0, 0, 1, 1]) * raster.height)
        corners[:, 1], corners[:, 0] = systems[raster.crs].transform(x, y)
    centre = degrees.mean(1)
    away = np.nan_to_num(haversine(centre, np.median(centre, axis=0)), nan=np.inf)
    if away.max() > CITY_MAX_M / 2:
        far = int(away.argmax())
        found = f"{placed[far].name} at {centre[far, 0]:.5f}, {centre[far, 1]:.5f}"
        todo = "Correct its position (latitude first) or system (--epsg), or put each city into a folder of its own."
        raise InputError(root, "tiles of one city, within 200 km", found, todo)
    origin = tuple(((centre.min(0) + centre.max(0)) / 2).round(6).tolist())
    corners_m = to_metres(Positions(degrees.reshape(-1, 2), Wgs84(), str(root)), origin).values.reshape(-1, 4, 2)
    (ax, ay), (bx, by) = (corners_m[:, [2, 3]] - corners_m[:, [0, 1]]).transpose(1, 2, 0)  # the diagonals
    area = np.abs(ax * by - ay * bx) / 2  # (N,) square metres

    kinds = sorted({raster.kind for raster in placed} - {"uint8"})
    stretch = {kind: _stretch(kind, [raster.thumb for raster in placed if raster.kind == kind]) for kind in kinds}
    notes += [f"values of {kind} from {a:.4g} to {b:.4g} are shown as 0 to 255" for kind, (a, b) in stretch.items()]
    for raster, square in zip(placed, area.tolist(), strict=True):
        raster.stretch, raster.pixel_m = stretch.get(raster.kind), (square / raster.width / raster.height) ** 0.5
    return Mosaic(str(root), tuple(placed), origin, corners_m, left_out, passed_over, tuple(notes))


def cut(mosaic: Mosaic, span_m: float, stride_m: float | None, size_px: int) -> Candidates:
    """Lays a grid of squares of span_m over the mosaic; those that tiles cover less than LEAST_COVERED are left out.

    stride_m, between centres, becomes whole pixels; a quarter of the span by default, so that no place is farther from
    the nearest centre than 0.18 spans, 8.8 m of 50. InputError: no square covered, too many, a damaged tile.
    """
    step = max(1, round((stride_m or span_m / 4) * size_px / span_m))  # pixels
    stride_m = step * span_m / size_px
    low, high = mosaic.bounds_m
    spare = high - low - span_m
    count = np.floor(spare / stride_m + 1e-3).clip(0).astype(np.int64) + 1  # (2,) east, north
    first = low + span_m / 2 + (spare - (count - 1) * stride_m) / 2
    middle, (height, width) = first + (count - 1) * stride_m / 2, ((count - 1)[::-1] * step + size_px).tolist()
    if count.prod() > GRID_MAX or height * width > PICTURE_MAX:
        found = f"{count.prod():,} in {width:,} x {height:,} pixels of {span_m / size_px:.3g} m around all tiles"
        raise InputError(mosaic.root, f"at most {GRID_MAX:,} candidates and {PICTURE_MAX:,} pixels", found,
                         "Give a wider stride or span, or tiles of a smaller area.")  # fmt: skip
    picture, there = mosaic.paint(middle, span_m / size_px, (height, width))
    squares = np.lib.stride_tricks.sliding_window_view(there.numpy(), (size_px, size_px))[::step, ::step]
    covered = squares.mean((2, 3))  # (rows from the north, columns)
    row, column = np.nonzero(covered >= LEAST_COVERED - 1e-9)
    if len(row) == 0:
        found = f"{count.prod():,} squares, the best covered by {covered.max():.0%}"
        raise InputError(mosaic.root, f"a square of {span_m:g} m covered by {LEAST_COVERED:.0%}", found,
                         "Give a smaller span, or tiles without gaps.")  # fmt: skip
    north = count[1] - 1 - row
    centre_m = first + np.stack([column, north], 1) * stride_m
    # a square around each pixel of the picture, none of them copied; a candidate is the one that begins at its corner
    windows = (height - size_px) * width + width - size_px + 1, 3, size_px, size_px
    pixels = picture.as_strided(windows, (1, height * width, width, 1))
    names = [raster.name for raster in mosaic.rasters]
    files = FileImages(mosaic.root, names, names).digest().encode()  # of names, and of sizes and times of change
    digest = hashlib.sha256(files + mosaic.corners_m.tobytes()).hexdigest()[:16]
    images = ArrayImages(
        [f"{n:05d}_{e:05d}" for n, e in zip(north.tolist(), column.tolist(), strict=True)], pixels,
        Positions(from_metres(centre_m, mosaic.origin), Wgs84(), mosaic.root),
        source=f"{digest} {span_m!r} {size_px}", rows=torch.from_numpy((row * width + column) * step),
    )  # fmt: skip
    return Candidates(mosaic, span_m, stride_m, centre_m, images, int(count.prod()) - len(images))


def _look(root: Path, name: str, tags: bool, epsg: int | None) -> Raster | str:
    """What a file says about itself, its position if `tags`; or why it cannot be used, found by decoding it."""
    path = root / name
    try:
        with _opened(path) as file:
            shape = tuple(min(edge, LOOK_PX) for edge in file.shape)
            values, ground = _values(file, shape)
            transform, system = file.transform, file.crs
            kind = file.dtypes[0] + WHITE_0 * (file.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES")
    except Exception as error:  # decoders raise whatever a damaged byte leads them to
        return "an empty file" if path.exists() and not path.stat().st_size else f"no whole image ({_said(error)})"
    some = np.ix_(*(np.linspace(0, edge - 1, THUMB_PX).astype(int) for edge in shape))
    thumb = np.where(ground[some], values[:, *some], np.nan).astype(np.float32)
    raster = Raster(path, name, *file.shape, kind, thumb)
    if tags and not (transform.is_identity or transform.is_degenerate):
        raster.transform, raster.crs = transform, _system(path, system, epsg)
    return raster


def _opened(path: Path) -> DatasetReader:
    """A file by rasterio; in place of a palette's numbers their colours."""
    file = DatasetReader(str(path), driver=DRIVERS)
    is_palette = file.colorinterp[0].name == "palette"
    return DatasetReader(f"vrt://{path}?expand=rgba", driver="VRT") if is_palette else file


def _said(error: Exception) -> str:
    """What a decoder said, or the error behind it, where it only points to that."""
    return str(error.__cause__ or error).replace("\n", " ")[:160]


def _system(path: Path, system: rasterio.CRS | None, epsg: int | None) -> str:
    """What a file or a .prj beside it says, as WKT, else the stated system."""
    beside = []
    if not (system and (system.is_projected or system.is_geographic)):  # to list a folder for each file takes long
        beside = [p for p in path.parent.iterdir() if p.name.lower() == f"{path.stem.lower()}.prj"]
    for words in (system, *(p.read_text(encoding="utf-8", errors="replace") for p in beside), epsg):
        with suppress(CRSError):
            crs = CRS.from_user_input(words)
            if crs.is_projected or crs.is_geographic:
                return crs.to_wkt()
    raise InputError(path, "a projected or geographic coordinate system", f"{system or epsg or 'none'}"[:120],
                     "Say it with --epsg (32632: UTM; 4326: degrees), or reproject (gdalwarp -t_srs EPSG:3857).")  # fmt: skip


def _place_by_names(root: Path, rasters: list[Raster], scheme: Scheme | None) -> list[str]:
    """Gives those of the finest level that do not say where they lie the positions of their names; notes on that."""
    named = [raster for raster in rasters if raster.transform is None]
    if not named:
        return []
    above = f"{root.resolve().name}/" if root.resolve().name.isdigit() else ""  # somebody points at a level's folder
    tile, is_esri = tile_numbers([above + raster.name for raster in named])
    lost = [raster.name for raster, z in zip(named, tile[:, 0].tolist(), strict=True) if z < 0]
    if lost:
        found = f"{len(lost):,} of {len(rasters):,} tiles without: {', '.join(lost[:3])}"
        todo = "Give the positions in one of these ways; rectify ground control points (gdalwarp)."
        raise InputError(root, f"a position for every tile: {WAYS}", found, todo)
    is_finest = tile[:, 0] == tile[:, 0].max()
    level, tile = [raster for raster, finest in zip(named, is_finest, strict=True) if finest], tile[is_finest]
    notes = [f"of several zoom levels the finest, {tile[0, 0]}, is taken: {len(level):,} tiles"] * (not is_finest.all())
    thumbs, stated = [raster.thumb for raster in level], "zyx" if is_esri else scheme
    scheme, note = tell_scheme(root.parent if above else root, tile, thumbs, stated)
    mercator = morecantile.tms.get("WebMercatorQuad")
    for raster, (z, x, y) in zip(level, as_xyz(tile, scheme).tolist(), strict=True):
        bounds = mercator.xy_bounds(morecantile.Tile(x, y, z))
        raster.transform, raster.crs = from_bounds(*bounds, raster.width, raster.height), "EPSG:3857"
    return notes + [note] * bool(note)


def _place_by_table(rasters: list[Raster], table: Path) -> list[str]:
    """Puts the files at centres in degrees, north up and true to scale in metres about their mean; no notes."""
    files, places = read_position_table(table)
    _, columns = read_columns(table, ("metres_per_pixel", "span_m"))
    row = table_rows([raster.name for raster in rasters], files, table)
    scale, span = (columns.get(name, np.full(len(files), np.nan))[row] for name in ("metres_per_pixel", "span_m"))
    scale = np.where(np.isnan(scale), span / [raster.width for raster in rasters], scale)
    lost = np.flatnonzero(~((row >= 0) & places.known[row] & (scale > 0)))
    if len(lost):
        found = f"{len(lost):,} tiles without: {', '.join(rasters[i].name for i in lost[:3])}"
        raise InputError(table, "a position, and metres_per_pixel or span_m above 0, for every tile", found,
                         "Complete the rows, or move these tiles elsewhere.")  # fmt: skip
    degrees = places.take(row)
    origin = tuple(degrees.values.mean(0).round(6).tolist())
    for raster, metre, (east, north) in zip(rasters, scale, to_metres(degrees, origin).values, strict=True):
        west, top = east - metre * raster.width / 2, north + metre * raster.height / 2
        raster.transform, raster.crs = from_origin(west, top, metre, metre), _local_crs(origin)
    return []


def _local_crs(origin: tuple[float, float]) -> str:
    """Metres about a place, in words of PROJ: the frame of `positions.to_metres`."""
    return f"+proj=tmerc +lat_0={origin[0]:.6f} +lon_0={origin[1]:.6f} +k=1 +datum=WGS84 +units=m +type=crs"


def _values(file: DatasetReader | WarpedVRT, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Values (1 or 3, *shape) as the file has them, and where it is ground; some pixels if these are fewer. Of the
    bands red, green and blue where the file says so, else the first three that are no alpha, else the first."""
    names = [colour.name for colour in file.colorinterp]
    if "cyan" in names or file.dtypes[0].startswith("complex"):
        raise ValueError("colours for print, or complex numbers: convert it to RGB, gdal_translate -ot Byte -scale")
    colours = [names.index(name) + 1 for name in ("red", "green", "blue") if name in names]
    if len(colours) < 3:
        others = [number for number, name in enumerate(names, 1) if name != "alpha"]
        colours = others[:3] if len(others) >= 3 else others[:1]
    values = file.read(colours, out_shape=(len(colours), *shape))
    if "alpha" in names:  # GDAL takes that of bytes and of 16 bits alone as a mask
        ground = file.read(names.index("alpha") + 1, out_shape=shape) > 0
    else:
        ground = file.dataset_mask(out_shape=shape) > 0
    finite = np.isfinite(values).all(0)
    return np.where(finite, values, 0), ground & finite


def _stretch(kind: str, thumbs: Sequence[np.ndarray]) -> tuple[float, float]:
    """The values that become 0 and 255, for all files of a kind alike: of bytes all; else the range that the numbers
    can have (1 for reflectances, 8 to 16 bits), if the brightest fill it; else the first and the 99th percentile."""
    values = np.concatenate([thumb[np.isfinite(thumb)] for thumb in thumbs])
    low, high, top = np.percentile(values, [1, 99, 99.9]).tolist() if len(values) else (0.0, 255.0, 255.0)
    ceiling = next(ceiling for ceiling in CEILINGS if ceiling >= top)
    if kind.startswith("uint8"):
        low, high = 0.0, 255.0
    elif low >= 0 and top >= FILLED * ceiling:
        low, high = 0.0, ceiling
    elif low == high:
        high = low + 1
    return (high, low) if kind.endswith(WHITE_0) else (low, high)


def _pixels(raster: Raster, local: str, where: Affine, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """What a file shows of a rectangle of the coordinate system `local`: uint8 (1 or 3, *shape), and where it does,
    bool (*shape). InputError: the file is gone or damaged."""
    scale = min(1.0, raster.pixel_m / where.a)  # finer pixels are averaged
    try:
        with _opened(raster.path) as file, WarpedVRT(
            file, src_crs=raster.crs, src_transform=raster.transform, nodata=None, crs=local,
            src_nodata=np.nan if raster.kind.startswith("float") and file.nodata is None else file.nodata,
            transform=where, height=shape[0], width=shape[1], resampling=Resampling.bilinear,
            add_alpha="alpha" not in [colour.name for colour in file.colorinterp],
            tolerance=0.001, XSCALE=scale, YSCALE=scale,  # the projection is interpolated to a thousandth of a pixel
        ) as warped:  # fmt: skip
            values, ground = _values(warped, shape)
    except Exception as error:  # decoders raise whatever a damaged byte leads them to
        found = _said(error) if raster.path.exists() else "no such file"
        raise InputError(raster.path, "a whole tile", found, "Copy the file again.") from error
    if raster.stretch is not None:
        low, high = raster.stretch
        values = ((values.astype(np.float32) - low) * (255 / (high - low))).round().clip(0, 255).astype(np.uint8)
    return values, ground
