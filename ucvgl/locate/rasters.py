"""One file of satellite imagery, by rasterio: where its pixels lie, and its pixels as 8-bit colours with a weight.

What a number in a file means is asked of the file: band order, palette, alpha, no-data, more than eight bits. A weight is 0
where a pixel is no ground (transparent, no-data, not finite) and 255 where it is.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from pyproj import CRS
from pyproj.exceptions import CRSError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from ucvgl.errors import InputError

# by the first bytes of a file, whatever its name: none of these formats may point to other files
DRIVERS = {
    b"II*\0": "GTiff", b"MM\0*": "GTiff", b"II+\0": "GTiff", b"MM\0+": "GTiff", b"\x89PNG": "PNG", b"\xff\xd8": "JPEG",
    b"RIFF": "WEBP", b"BM": "BMP", b"\0\0\0\x0cjP": "JP2OpenJPEG", b"\xff\x4f\xff\x51": "JP2OpenJPEG",
}  # fmt: skip
OPEN_FILES = 64  # that are kept open, with what GDAL keeps of their pixels
LOOK_PX = 2048  # edge up to which every pixel is looked at before anything is cut; of a larger file as many in all
SAMPLES = 4096  # values that a file contributes to the stretch, about
EDGE_PX = 32  # samples along a tile's edge
FILLED = 0.75  # of a range of values that the brightest pixels must reach, for it to be taken as the range
CEILINGS = (1.0, *(float(2**bits - 1) for bits in range(8, 17)))
Stretch = tuple[float, float]  # the values that become 0 and 255


class Raster(NamedTuple):
    """A file, and what it says about itself; `fault` is why it cannot be used, or ''."""

    name: str
    height: int = 0
    width: int = 0
    kind: str = ""  # of its numbers, as uint8
    affine: np.ndarray | None = None  # (2, 3) from (column, row, 1), pixel centres at whole numbers
    crs: str = ""  # as WKT or in words of PROJ; '' where not said
    ground: np.ndarray | None = None  # a grid of bool over the file; None: all of it is ground
    sample: np.ndarray | None = None  # (K,) values, where they are no bytes
    edges: np.ndarray | None = None  # (4, EDGE_PX, 3) northern, southern, western, eastern, of a small file
    fault: str = ""


@contextmanager
def quiet() -> Iterator[None]:
    """Without rasterio's warning of files that have no position: their names or a table may have it."""
    # libjpeg only warns of a truncated file, and fills it up with grey
    with warnings.catch_warnings(), rasterio.Env(GDAL_ERROR_ON_LIBJPEG_WARNING=True):
        warnings.simplefilter("ignore")
        yield


def opened(path: Path) -> DatasetReader:
    """The file, by the driver of its first bytes; rasterio's errors, ValueError where it is of no kind that is read."""
    with path.open("rb") as file:
        first = file.read(8)
        file.seek(-min(64, path.stat().st_size), 2)
        last = file.read()
    driver = next((driver for start, driver in DRIVERS.items() if first.startswith(start)), None)
    if driver is None:
        raise ValueError("no JPEG, PNG, TIFF, WebP, BMP or JPEG 2000" if first else "an empty file")
    if driver == "PNG" and b"IEND" not in last:
        raise ValueError("truncated")  # rasterio reads it, and what is missing is black
    return rasterio.open(path, driver=driver)


def look(root: Path, name: str, tags: bool) -> Raster:
    """Opens a file, finds where it lies if `tags`, and looks at its pixels, so that a damaged one is known."""
    try:
        with opened(root / name) as file:
            kind = np.dtype(file.dtypes[0])
            if kind.kind == "c":
                raise ValueError(f"complex numbers, {kind.name}: convert it with gdal_translate -ot Byte -scale")
            if "cyan" in {colour.name for colour in file.colorinterp}:
                raise ValueError("colours as cyan, magenta, yellow and black: convert it to RGB")
            affine, crs = _place(root / name, file) if tags else (None, "")
            return _looked_through(file, Raster(name, file.height, file.width, kind.name, affine, crs))
    except InputError:
        raise
    except Exception as error:  # decoders raise whatever a damaged byte leads them to
        return Raster(name, fault=f"no whole image ({_said(error)})")


def _said(error: Exception) -> str:
    """What a decoder said, or the error behind it, where it only points to that."""
    return str(error.__cause__ or error).replace("\n", " ")[:160]


def _looked_through(file: DatasetReader, found: Raster) -> Raster:
    """Where the file is ground, a sample of values that are no bytes, and the edges of a small tile."""
    values, ground = raw(file, Window(0, 0, file.width, file.height), tuple(min(n, LOOK_PX) for n in file.shape))
    sample = edges = None
    if found.kind != "uint8":
        sample = values[:, ground]
        sample = sample[:, :: max(sample.shape[1] // SAMPLES, 1)].ravel().astype(np.float64)
    elif ground.shape == file.shape and min(file.shape) > 1:
        at, along = (np.linspace(0, n - 1, EDGE_PX).astype(int) for n in file.shape)
        edges = np.stack([values[:, 0, along], values[:, -1, along], values[:, at, 0], values[:, at, -1]])
        edges = edges.transpose(0, 2, 1).astype(np.float32)
    return found._replace(ground=None if ground.all() else ground, sample=sample, edges=edges)


# ---------------------------------------------------------------------------------------------------------- the position


def _place(path: Path, file: DatasetReader) -> tuple[np.ndarray | None, str]:
    """The affine map by tags or world file, which GDAL finds in any letter case; the coordinate system, perhaps of a .prj."""
    if file.transform.is_identity and file.gcps[0]:
        raise InputError(
            path, expected="a position by pixel size and corner", found=f"{len(file.gcps[0])} ground control points",
            todo="Rectify it first: gdalwarp -t_srs EPSG:3857 IN OUT.",
        )  # fmt: skip
    if file.transform.is_identity:
        return None, ""
    affine = np.array(file.transform[:6], np.float64).reshape(2, 3)
    if not np.isfinite(affine).all() or np.linalg.det(affine[:, :2]) == 0:
        raise InputError(
            path, expected="pixels with an area", found=affine.tolist(), todo="Correct the pixel size and the position."
        )
    affine[:, 2] += affine[:, :2].sum(1) / 2  # from a pixel's corner to its centre
    if file.crs and (file.crs.is_projected or file.crs.is_geographic):
        return affine, file.crs.to_wkt()
    beside = next((p for p in path.parent.iterdir() if p.name.lower() == f"{path.stem.lower()}.prj"), None)
    return affine, beside.read_text(encoding="utf-8", errors="replace") if beside else ""


def system(text: str, where: object, affine: np.ndarray, epsg: int | None) -> str:
    """The coordinate system, as WKT: what a file says, else the stated one, else degrees if the numbers can be nothing else.

    Raises:
        InputError: none of these, or a system without a place on the Earth.
    """
    todo = "Say it with --epsg (326xx and 327xx are UTM, 3857 Web Mercator)."
    if not text and epsg is None:
        if np.abs(affine[:, :2]).max() >= 0.01 or abs(affine[0, 2]) > 180 or abs(affine[1, 2]) > 90:
            found = f"metres at {affine[0, 2]:.1f}, {affine[1, 2]:.1f}"
            raise InputError(where, expected="the coordinate system's EPSG code, or degrees", found=found, todo=todo)
        epsg = 4326
    try:
        crs = CRS.from_user_input(text or epsg)
    except CRSError as error:
        raise InputError(where, expected="a coordinate system", found=str(error)[:120], todo=todo) from error
    if not (crs.is_projected or crs.is_geographic):
        raise InputError(
            where, expected="a projected or geographic coordinate system", found=f"{crs.type_name} {crs.name!r}",
            todo="Reproject the tiles (gdalwarp -t_srs EPSG:3857), or give their positions in a table.",
        )  # fmt: skip
    return crs.to_wkt()


# ------------------------------------------------------------------------------------------------------------ the pixels


def bands(file: DatasetReader) -> list[int]:
    """Red, green and blue where the file says so, else the first three that are no alpha, else the first."""
    names = [colour.name for colour in file.colorinterp]
    colours = [names.index(name) + 1 for name in ("red", "green", "blue") if name in names]
    others = [number for number, name in enumerate(names, 1) if name != "alpha"]
    return colours if len(colours) == 3 else others[:3] if len(others) >= 3 else others[:1]


def raw(file: DatasetReader, window: Window, shape: tuple[int, int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Values (1 or 3, h, w) of a window as the file has them, a palette's colours in its place, and where it is ground.

    shape: (h, w), fewer than the window's; some pixels are then left out.
    """
    height, width = shape or (window.height, window.width)
    ground = np.ones((height, width), bool)
    if any(flag.name != "all_valid" for flags in file.mask_flag_enums for flag in flags):
        ground = file.dataset_mask(window=window, out_shape=(height, width)) > 0
    if file.colorinterp[0].name == "palette":
        table = np.zeros((1 << 16, 4), np.uint8)  # red, green, blue, alpha by value
        for value, colour in file.colormap(1).items():
            table[value] = colour
        coloured = table[file.read(1, window=window, out_shape=(height, width))].transpose(2, 0, 1)
        return coloured[:3], ground & (coloured[3] > 0)
    colours = bands(file)
    values = file.read(colours, window=window, out_shape=(len(colours), height, width))
    if values.dtype.kind == "f":
        finite = np.isfinite(values).all(0)
        values, ground = np.where(finite, values, 0), ground & finite
    if file.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES":
        values = (np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1) - values
    return values, ground


def stretch_of(samples: Sequence[np.ndarray]) -> Stretch:
    """The values that become 0 and 255, one pair for all files of a kind, so that neighbours match.

    The range that the numbers can have (1 for reflectances, 8 to 16 bits), if the brightest fill it; else, of a scene that
    is scaled otherwise, the first and the 99th percentile.
    """
    values = np.concatenate(samples)
    if len(values) == 0:
        return 0.0, 255.0
    first, last, top = np.percentile(values, [1, 99, 99.9])
    ceiling = next((ceiling for ceiling in CEILINGS if ceiling >= top), np.inf)
    if first >= 0 and top >= FILLED * ceiling:
        return 0.0, ceiling
    return (float(first), float(last)) if last > first else (float(first) - 0.5, float(first) + 0.5)


@lru_cache(OPEN_FILES)
def _kept_open(path: Path, changed_ns: int) -> DatasetReader:
    """GDAL keeps what it decodes of an open file; one that was exchanged has another time of change."""
    return opened(path)


def pixels(root: str, raster: Raster, window: Window, stretch: Stretch | None) -> np.ndarray:
    """A window of a file as uint8 (4, h, w): red, green, blue, and the weight; to be read `quiet`.

    Raises:
        InputError: the file is gone, damaged, or not the one that was looked at.
    """
    path = Path(root, raster.name)
    try:
        file = _kept_open(path, path.stat().st_mtime_ns)
        if file.shape != (raster.height, raster.width):
            found = f"{file.width} x {file.height} pixels, where there were {raster.width} x {raster.height}"
            raise ValueError(found)
        values, ground = raw(file, window)
    except Exception as error:  # decoders raise whatever a damaged byte leads them to
        found = _said(error) if path.exists() else "no such file"
        raise InputError(path, expected="a whole tile", found=found, todo="Copy the file again.") from error
    if values.dtype != np.uint8:
        low, high = stretch or (0.0, 255.0)
        values = ((values.astype(np.float32) - low) * (255 / (high - low))).round().clip(0, 255).astype(np.uint8)
    return np.concatenate([np.broadcast_to(values, (3, *ground.shape)), ground[None] * np.uint8(255)])
