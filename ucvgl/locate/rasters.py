"""One file of satellite imagery, by rasterio: where its pixels lie, and its pixels as 8-bit colours in local metres.

The file itself says what its numbers mean: band order, palette, alpha, no-data, more than eight bits. Where a pixel is
transparent, no-data or not finite, there is no ground.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import rasterio
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from rasterio.io import DatasetReader
from rasterio.transform import Affine, from_origin
from rasterio.vrt import WarpedVRT
from rasterio.warp import Resampling

from ucvgl.errors import InputError

DRIVERS = ["GTiff", "PNG", "JPEG", "WEBP", "BMP", "JP2OpenJPEG"]  # by a file's content; none may point to other files
LOOK_PX = 2048  # edge up to which every pixel is looked at before anything is cut; of a larger file as many in all
THUMB_PX = 32  # rows and columns of a file that its values' range and its edges are told by
FILLED = 0.75  # of a range of values that the brightest pixels must reach, for it to be taken as the range
CEILINGS = (1.0, *(2.0**bits - 1 for bits in range(8, 17)), np.inf)
TOLERANCE_PX = 0.001  # to which projections are interpolated
WHITE_0 = ", 0 as white"  # of a kind of values


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
    thumb: np.ndarray  # (bands, THUMB_PX, THUMB_PX) float32, some of its values, its edges' too; NaN where no ground is
    stretch: tuple[float, float] | None = None  # values that become 0 and 255; None: bytes are colours already
    pixel_m: float = 1.0  # on the ground: the root of a pixel's area


@contextmanager
def quiet() -> Iterator[None]:
    """Without rasterio's warning of files that have no position; a truncated JPEG or PNG is an error, and not filled up."""
    with warnings.catch_warnings(), rasterio.Env(GDAL_ERROR_ON_LIBJPEG_WARNING=True, GDAL_PNG_WHOLE_IMAGE_OPTIM=False):
        warnings.simplefilter("ignore")
        yield


def look(root: Path, name: str, tags: bool, epsg: int | None) -> Raster | str:
    """What a file says about itself, its position if `tags`; or why it cannot be used, found by decoding it; to be called `quiet`.
    InputError: a position in no coordinate system that is known."""
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
    if not tags or transform.is_identity or transform.is_degenerate:
        return Raster(path, name, *file.shape, kind, None, "", thumb)
    return Raster(path, name, *file.shape, kind, transform, _system(path, transform, system, epsg), thumb)


def _opened(path: Path) -> DatasetReader:
    """A file by rasterio; in place of a palette's numbers their colours."""
    file = DatasetReader(str(path), driver=DRIVERS)
    is_palette = file.colorinterp[0].name == "palette"
    return DatasetReader(f"vrt://{path}?expand=rgba", driver="VRT") if is_palette else file


def _said(error: Exception) -> str:
    """What a decoder said, or the error behind it, where it only points to that."""
    return str(error.__cause__ or error).replace("\n", " ")[:160]


def _system(path: Path, transform: Affine, system: rasterio.CRS | None, epsg: int | None) -> str:
    """What a file or a .prj beside it says, as WKT, else the stated system, else degrees if the numbers can be nothing else."""
    right, _, x, _, down, y = transform[:6]
    is_degrees = max(abs(right), abs(down)) < 0.01 and abs(x) <= 180 and abs(y) <= 90
    said = [system.to_wkt()] if system else []
    if not (system and (system.is_projected or system.is_geographic)):  # to list a folder for each file takes long
        beside = [p for p in path.parent.iterdir() if p.name.lower() == f"{path.stem.lower()}.prj"]
        said += [p.read_text(encoding="utf-8", errors="replace") for p in beside]
    said.append(epsg or (4326 if is_degrees else "none"))
    for words in said:
        with suppress(CRSError):
            crs = CRS.from_user_input(words)
            if crs.is_projected or crs.is_geographic:
                return crs.to_wkt()
    raise InputError(path, expected="a projected or geographic coordinate system", found=", ".join(map(str, said))[:120],
                     todo="Say it with --epsg (such as 32632 for UTM), or reproject (gdalwarp -t_srs EPSG:3857).")  # fmt: skip


@lru_cache(maxsize=64)
def from_degrees(crs: str) -> Transformer:
    """From longitude and latitude to x and y of a coordinate system, as WKT or in words of PROJ."""
    return Transformer.from_crs("EPSG:4326", crs, always_xy=True)


def _values(file: DatasetReader | WarpedVRT, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Values (1 or 3, *shape) as the file has them, and where it is ground; some pixels if these are fewer.

    Of the bands red, green and blue where the file says so, else the first three that are no alpha, else the first.
    """
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


def stretch_of(kind: str, thumbs: Sequence[np.ndarray]) -> tuple[float, float]:
    """The values that become 0 and 255, one pair for all files of a kind, so that neighbours match.

    Of bytes all; else the range that the numbers can have (1 for reflectances, 8 to 16 bits), if the brightest fill it;
    else, of a scene that is scaled otherwise, the first and the 99th percentile.
    """
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


def pixels(
    raster: Raster, local: str, corner_m: tuple[float, float], pixel_m: float, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """What a file shows of a rectangle, north up: uint8 (1 or 3, *shape), and where it does, bool (*shape); to be read `quiet`.

    corner_m: north-western, in metres east and north of the coordinate system `local`. InputError: the file is gone or damaged.
    """
    scale = min(1.0, raster.pixel_m / pixel_m)  # finer pixels are averaged
    try:
        with _opened(raster.path) as file, WarpedVRT(
            file, src_crs=raster.crs, src_transform=raster.transform, nodata=None, crs=local,
            src_nodata=np.nan if raster.kind.startswith("float") and file.nodata is None else file.nodata,
            transform=from_origin(*corner_m, pixel_m, pixel_m), height=shape[0], width=shape[1],
            add_alpha="alpha" not in [colour.name for colour in file.colorinterp], resampling=Resampling.bilinear,
            tolerance=TOLERANCE_PX, XSCALE=scale, YSCALE=scale,
        ) as warped:  # fmt: skip
            values, ground = _values(warped, shape)
    except Exception as error:  # decoders raise whatever a damaged byte leads them to
        found = _said(error) if raster.path.exists() else "no such file"
        raise InputError(raster.path, expected="a whole tile", found=found, todo="Copy the file again.") from error
    if raster.stretch is not None:
        low, high = raster.stretch
        values = ((values.astype(np.float32) - low) * (255 / (high - low))).round().clip(0, 255).astype(np.uint8)
    return values, ground
