"""One file of satellite imagery, by rasterio: where its pixels lie, and its pixels as 8-bit colours in local metres.

The file itself says what its numbers mean: band order, palette, alpha, no-data, more than eight bits. Where a pixel is
transparent, no-data or not finite, there is no ground.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import rasterio
from pyproj import CRS
from pyproj.exceptions import CRSError
from rasterio.io import DatasetReader
from rasterio.transform import Affine, from_origin
from rasterio.vrt import WarpedVRT
from rasterio.warp import Resampling
from rasterio.windows import Window

from ucvgl.errors import InputError

DRIVERS = ["GTiff", "PNG", "JPEG", "WEBP", "BMP", "JP2OpenJPEG"]  # by a file's content; none may point to other files
OPEN_FILES = 200  # kept open, with what GDAL warped of them: more than lie across a city, less than systems allow
LOOK_PX = 2048  # edge up to which every pixel is looked at before anything is cut; of a larger file as many in all
SAMPLES = 4096  # values that a file contributes to the stretch, about
EDGE_PX = 32  # samples along a tile's edge
FILLED = 0.75  # of a range of values that the brightest pixels must reach, for it to be taken as the range
CEILINGS = (1.0, *(float(2**bits - 1) for bits in range(8, 17)))
CITY_MAX_M = 200_000.0  # across; where the local metres are still true to 0.02 %
TOLERANCE_PX = 0.001  # to which projections are interpolated
Stretch = tuple[float, float]  # the values that become 0 and 255


@dataclass(frozen=True, eq=False)
class Raster:
    """A file, what it says about itself, and what the mosaic says of it."""

    path: Path
    name: str  # its path below the folder
    height: int
    width: int
    kind: str  # of its values, as uint8
    transform: Affine | None  # from (column, row) to x and y, whole numbers at corners of pixels
    crs: str  # as WKT or in words of PROJ; '' where not said
    sample: np.ndarray  # (K,) some of its values
    edges: np.ndarray  # (4, bands, EDGE_PX) northern, southern, western, eastern
    stretch: Stretch | None = None  # None: bytes are colours already
    pixel_m: float = 1.0  # on the ground: the root of a pixel's area


@contextmanager
def quiet() -> Iterator[None]:
    """Without rasterio's warning of files that have no position: their names or a table may have it."""
    # libjpeg only warns of a truncated file, and fills it up with grey
    with warnings.catch_warnings(), rasterio.Env(GDAL_ERROR_ON_LIBJPEG_WARNING=True):
        warnings.simplefilter("ignore")
        yield


def _opened(path: Path) -> DatasetReader:
    """A file by rasterio; in place of a palette's numbers their colours, and bytes of which 0 is white the other way round."""
    end = path.read_bytes()[-64:] if path.suffix.lower() == ".png" else b"IEND"
    if b"IEND" not in end:
        raise ValueError("truncated" if end else "empty")  # GDAL reads such a PNG, and what is missing is black
    file = DatasetReader(str(path), driver=DRIVERS)
    if file.colorinterp[0].name == "palette":
        return DatasetReader(f"vrt://{path}?expand=rgba", driver="VRT")
    if file.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES" and file.dtypes[0] == "uint8":
        return DatasetReader(f"vrt://{path}?scale=0,255,255,0", driver="VRT")
    return file


def look(root: Path, name: str, tags: bool, epsg: int | None) -> Raster | str:
    """What a file says about itself, its position if `tags`; or why it cannot be used, found by decoding its pixels.

    Raises:
        InputError: a position in no coordinate system that is known.
    """
    path = root / name
    try:
        with _opened(path) as file:
            shape = tuple(min(edge, LOOK_PX) for edge in file.shape)
            values, ground = _values(file, Window(0, 0, file.width, file.height), shape)
            is_placed = tags and not file.transform.is_identity and not file.transform.is_degenerate
            crs = _system(path, file, epsg) if is_placed else ""
            transform = file.transform if is_placed else None
    except InputError:
        raise
    except Exception as error:  # decoders raise whatever a damaged byte leads them to
        return f"no whole image ({_said(error)})" if path.stat().st_size else "an empty file"
    sample = values[:, ground]
    sample = sample[:, :: max(sample.shape[1] // SAMPLES, 1)].ravel()
    at, along = (np.linspace(0, edge - 1, EDGE_PX).astype(int) for edge in shape)
    edges = np.stack([values[:, 0, along], values[:, -1, along], values[:, at, 0], values[:, at, -1]])
    return Raster(path, name, *file.shape, values.dtype.name, transform, crs, sample, edges.astype(np.float32))


def _said(error: Exception) -> str:
    """What a decoder said, or the error behind it, where it only points to that."""
    return str(error.__cause__ or error).replace("\n", " ")[:160]


def _system(path: Path, file: DatasetReader, epsg: int | None) -> str:
    """What a file or a .prj beside it says, as WKT, else the stated system, else degrees if the numbers can be nothing else."""
    if file.crs and (file.crs.is_projected or file.crs.is_geographic):
        return file.crs.to_wkt()
    right, _, x, _, down, y = file.transform[:6]
    is_degrees = max(abs(right), abs(down)) < 0.01 and abs(x) <= 180 and abs(y) <= 90
    beside = next((p for p in path.parent.iterdir() if p.name.lower() == f"{path.stem.lower()}.prj"), None)
    said = beside.read_text(encoding="utf-8", errors="replace") if beside else epsg or (4326 if is_degrees else "none")
    try:
        crs = CRS.from_user_input(said)
        if not (crs.is_projected or crs.is_geographic):
            raise CRSError(f"{crs.type_name} {crs.name!r}")
    except CRSError as error:
        raise InputError(
            path, expected="a projected or geographic coordinate system", found=f"{error}"[:120],
            todo="Say it with --epsg (326xx and 327xx are UTM, 3857 Web Mercator), or reproject (gdalwarp -t_srs EPSG:3857).",
        ) from error  # fmt: skip
    return crs.to_wkt()


# ------------------------------------------------------------------------------------------------------------ the pixels


def _values(file: DatasetReader | WarpedVRT, window: Window, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Values (1 or 3, *shape) of a window as the file has them, and where it is ground; some pixels if these are fewer.

    Of the bands red, green and blue where the file says so, else the first three that are no alpha, else the first.
    """
    names = [colour.name for colour in file.colorinterp]
    is_white_0 = file.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"
    if "cyan" in names or is_white_0 or file.dtypes[0].startswith("complex"):
        raise ValueError(
            "colours for print, complex numbers, or 0 as white: convert it to RGB, gdal_translate -ot Byte -scale"
        )
    colours = [names.index(name) + 1 for name in ("red", "green", "blue") if name in names]
    if len(colours) < 3:
        others = [number for number, name in enumerate(names, 1) if name != "alpha"]
        colours = others[:3] if len(others) >= 3 else others[:1]
    values = file.read(colours, window=window, out_shape=(len(colours), *shape))
    if "alpha" in names:  # GDAL takes that of bytes and of 16 bits alone as a mask
        ground = file.read(names.index("alpha") + 1, window=window, out_shape=shape) > 0
    else:
        ground = file.dataset_mask(window=window, out_shape=shape) > 0
    finite = np.isfinite(values).all(0)
    return np.where(finite, values, 0), ground & finite


def stretch_of(samples: Sequence[np.ndarray]) -> Stretch:
    """The values that become 0 and 255, one pair for all files of a kind, so that neighbours match.

    The range that the numbers can have (1 for reflectances, 8 to 16 bits), if the brightest fill it; else, of a scene that
    is scaled otherwise, the first and the 99th percentile.
    """
    values = np.concatenate(samples).astype(np.float64)
    if len(values) == 0:
        return 0.0, 255.0
    first, last, top = map(float, np.percentile(values, [1, 99, 99.9]))
    ceiling = next((ceiling for ceiling in CEILINGS if ceiling >= top), np.inf)
    if first >= 0 and top >= FILLED * ceiling:
        return 0.0, ceiling
    return (first, last) if last > first else (first - 0.5, first + 0.5)


@lru_cache(OPEN_FILES)
def _warped(raster: Raster, changed_ns: int, local: str, pixel_m: float, phase: tuple[float, float]) -> WarpedVRT:
    """A file in local metres, with pixels about all of a city; one that was exchanged has another time of change."""
    file = _opened(raster.path)
    if file.shape != (raster.height, raster.width):
        raise ValueError(f"{file.width} x {file.height} pixels, where there were {raster.width} x {raster.height}")
    nodata = np.nan if raster.kind.startswith("float") and file.nodata is None else file.nodata
    around = int(CITY_MAX_M / pixel_m)
    west, south = (np.subtract(phase, around) * pixel_m).tolist()
    scale = min(1.0, raster.pixel_m / pixel_m)  # finer pixels are averaged
    return WarpedVRT(
        file, src_crs=raster.crs, src_transform=raster.transform, src_nodata=nodata, nodata=None, crs=local,
        transform=from_origin(west, south + 2 * around * pixel_m, pixel_m, pixel_m), width=2 * around, height=2 * around,
        add_alpha="alpha" not in [colour.name for colour in file.colorinterp], resampling=Resampling.bilinear,
        tolerance=TOLERANCE_PX, XSCALE=scale, YSCALE=scale,
    )  # fmt: skip


def pixels(
    raster: Raster, local: str, corner_m: tuple[float, float], pixel_m: float, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """What a file shows of a rectangle, north up: uint8 (1 or 3, *shape), and where it does, bool (*shape); to be read `quiet`.

    corner_m: north-western, in metres east and north of the coordinate system `local`.

    Raises:
        InputError: the file is gone or damaged.
    """
    corner = np.divide(corner_m, pixel_m)
    phase = np.round(corner % 1, 6) % 1  # the same for all corners whole pixels apart: a file is warped once for them
    column, row = ((corner - phase).round().astype(int) * (1, -1) + int(CITY_MAX_M / pixel_m)).tolist()
    try:
        file = _warped(raster, raster.path.stat().st_mtime_ns, local, pixel_m, tuple(phase.tolist()))
        values, ground = _values(file, Window(column, row, *shape[::-1]), shape)
    except Exception as error:  # decoders raise whatever a damaged byte leads them to
        found = _said(error) if raster.path.exists() else "no such file"
        raise InputError(raster.path, expected="a whole tile", found=found, todo="Copy the file again.") from error
    if raster.stretch is not None:
        low, high = raster.stretch
        values = ((values.astype(np.float32) - low) * (255 / (high - low))).round().clip(0, 255).astype(np.uint8)
    return values, ground
