"""Street pictures of a city, places unknown: which of them can be used, which cannot and why, what is known of their view.

A panorama is known by a statement, by its tags (GPano's XMP, which also says what part of the sphere a cropped one shows), or
by its two edges, which meet; a photo by its tags, and needs a horizontal field of view. Shape alone decides only where
nothing else is known, with a note. Where a picture was taken is never read, since that is to be found.
"""

import math
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from torch import Tensor
from tqdm.contrib.concurrent import thread_map

from ucvgl.data.decoding import FORMATS, decode_file, image_size
from ucvgl.data.files import folder, read_columns, table_rows, walk
from ucvgl.errors import InputError

WHOLE = (1.96, 2.04)  # width over height of a whole panorama
STRIP = (3.5, 9.0)  # of a strip of one; CVUSA's 5.5
PHOTO = (0.4, 2.4)  # of a photo, upright or across; 16:9 is 1.78, cinema's 2.39
LONGEST = 12.0  # of what is stated or tagged: no panorama is longer
DIAGONAL_MM = math.hypot(36, 24)  # of the film that '35 mm equivalent' refers to
LEAST_PX = 32  # of the shorter side; the embedded world's strips have 47 rows
SEAM_PX = (64, 256)  # size at which the edges are compared
MEETS = 0.4  # of the way from what neighbouring columns differ by to what distant ones do
MAGNETIC = "magnetic heading, off by the declination"
UNREFERENCED = "heading of unknown reference, true or magnetic"
BY_LENS = "field of view estimated from EXIF's focal length"
BY_SHAPE = "taken as a panorama by its shape alone: its edges do not meet"
CROP = (
    "CroppedAreaLeft", "CroppedAreaTop", "CroppedAreaImageWidth", "CroppedAreaImageHeight", "FullPanoWidth", "FullPanoHeight",
)  # fmt: skip
Kind = Literal["panorama", "photo"]
Tags = Mapping[Any, Any]


class Crop(NamedTuple):
    """The part of the full sphere that a picture shows, as fractions of its width and height."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Picture:
    """One street picture and what is known of it."""

    file: str  # its path below the folder
    kind: Kind | None  # 'panorama' (equirectangular) or 'photo'; None where that cannot be told
    width: int  # pixels, upright; 0 if the file could not be read
    height: int  # pixels, upright
    fov_deg: float | None = None  # horizontal field of view, 360 for a whole panorama; None if unknown
    heading_deg: float | None = None  # what the centre column shows, degrees clockwise from north; None if unknown
    crop: Crop | None = None  # of a panorama whose tags say which part of the sphere it shows
    taken_s: float | None = None  # seconds of EXIF's time stamp, from any zero; None if unknown
    notes: tuple[str, ...] = ()  # what a reader of its place should know
    reason_unusable: str | None = None  # why it cannot be used; None if it can


@dataclass(frozen=True, eq=False)
class Ground:
    """The street pictures of a folder, in the order of their names, and files of kinds that are not read."""

    root: str
    pictures: tuple[Picture, ...]
    passed_over: tuple[str, ...] = ()

    @property
    def usable(self) -> list[Picture]:
        """The pictures that can be used."""
        return [p for p in self.pictures if p.reason_unusable is None]

    @property
    def unusable(self) -> list[Picture]:
        """The others; each says why."""
        return [p for p in self.pictures if p.reason_unusable is not None]

    def of_kind(self, kind: Kind) -> list[Picture]:
        """The usable pictures of one kind."""
        return [p for p in self.usable if p.kind == kind]

    def counts(self) -> dict[str, int]:
        """How many pictures there are: panoramas and photos (usable), without heading (of those), unusable."""
        panoramas, photos = (len(self.of_kind(kind)) for kind in ("panorama", "photo"))
        unknown = sum(p.heading_deg is None for p in self.usable)
        return {"panoramas": panoramas, "photos": photos, "without heading": unknown, "unusable": len(self.unusable)}


def check_ground(
    root: Path | str, table: Path | str | None = None, kind: Kind | None = None, fov_deg: float | None = None,
    heading_deg: float | None = None, progress: bool = False,
) -> Ground:  # fmt: skip
    """Looks at every picture below a folder once: decodes it, tells its kind, and gathers what is known of its view.

    The arguments are fields of `inputs.Request`. Of a table cells may be empty, and pictures may be missing. InputError: no
    picture in the folder, a damaged table. A picture that cannot be used is no error: it says why.
    """
    root = folder(root, "a folder of street pictures")
    names, others = walk(root)
    if not names:
        raise InputError(root, expected="street pictures (JPEG, PNG, TIFF, WebP or BMP)",
                         found=", ".join(["no image", *others[:3]]), todo="Copy them there.")  # fmt: skip
    listed = np.full((len(names), 2), np.nan)  # fields of view and headings
    if table is not None:
        ids, columns = read_columns(table, ("fov_deg", "heading_deg"))
        row = table_rows(names, ids, table)
        cells = pd.DataFrame(columns, columns=["fov_deg", "heading_deg"], dtype=float).to_numpy()
        listed = np.where(row[:, None] >= 0, cells[row], np.nan)

    def look(name: str, known: np.ndarray) -> Picture:
        return _picture(root, name, *map(_number, known), kind, fov_deg, heading_deg)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damaged tags and many pixels: neither spoils a picture
        pictures = thread_map(look, names, listed, desc="checking pictures", unit="image", disable=not progress)
    return Ground(str(root), tuple(pictures), tuple(others))


def _picture(
    root: Path, name: str, table_fov: float | None, table_heading: float | None,
    stated: Kind | None, fov_deg: float | None, heading_deg: float | None,
) -> Picture:  # fmt: skip
    """What a file, its row of the table and the caller's statements come to, each before the next: table, tags, statements."""
    path = str(root / name)
    try:
        height, width = image_size(path)
        meets = _edges_meet(decode_file(path, (min(height, SEAM_PX[0]), min(width, SEAM_PX[1]))))
    except InputError as error:
        why = f"no whole image (expected {error.expected}, found {error.found})"
        return Picture(name, None, 0, 0, reason_unusable=why)
    tags = _tags(path)
    aspect, projection = width / height, tags.get("ProjectionType", "").lower()
    focal, compass = _number(tags.get(Base.FocalLengthIn35mmFilm)), _number(tags.get(GPS.GPSImgDirection))
    has_lens = bool(focal or _number(tags.get(Base.FocalLength)))
    kind = _kind(aspect, projection, table_fov, stated, meets=meets, has_lens=has_lens)
    crop, pose, doubt = None, _number(tags.get("PoseHeadingDegrees")), None
    if kind == "panorama" and table_fov is None and projection == "equirectangular":
        crop, doubt = _crop(tags, aspect)
    if crop is not None and pose is not None:  # the part's own centre may lie beside that of the sphere
        pose += 360 * (crop.left + crop.width / 2 - 0.5)

    notes, heading, fov = [], table_heading if table_heading is not None else pose, table_fov
    if heading is None and compass is not None:
        reference = str(tags.get(GPS.GPSImgDirectionRef, "")).strip("b'\0 ").upper()[:1]
        notes += {"T": [], "M": [MAGNETIC]}.get(reference, [UNREFERENCED])
        heading = compass
    heading = heading_deg if heading is None else heading
    if kind == "panorama":
        fov = 360 * crop.width if crop else 360.0
        notes += [BY_SHAPE] * (not (stated or table_fov or projection or meets))
    elif fov is None and focal:  # which compares diagonals (CIPA)
        fov = math.degrees(2 * math.atan(DIAGONAL_MM * width / math.hypot(width, height) / 2 / focal))
        notes += [BY_LENS]
    fov = fov_deg if fov is None else fov

    size = f"{width} x {height} pixels, an aspect of {aspect:.2f}"
    if stated == "panorama":
        doubt = None  # the caller knows better than tags of before an edit
    if min(width, height) < LEAST_PX:
        doubt = f"{size}: less than {LEAST_PX} across"
    elif kind == "panorama" and crop is None and not WHOLE[0] <= aspect <= LONGEST:
        doubt = f"{size}: a panorama 360 degrees wide has 2 to {LONGEST:g}"
    elif kind is None and projection:
        doubt = f"its XMP says a {projection} projection: convert it to an equirectangular one"
    elif kind is None:
        doubt = f"{size}: neither panorama (2, or 3.5 to 9, edges that meet) nor photo (0.4 to 1.96); state with --kind"
    elif fov is None:
        doubt = "a photo without a field of view: give fov_deg in a table (--ground-table), or --fov for all"
    elif kind == "photo" and not 0 < fov < 180:
        doubt = f"a field of view of {fov:g} degrees: a photo has 0 to 180, a panorama 360"
    heading = None if heading is None else heading % 360
    return Picture(name, kind, width, height, fov, heading, crop, _seconds(tags), tuple(notes), doubt)


def _tags(path: str) -> Tags:
    """EXIF and its directory of GPS by their numbers, which differ, and XMP's fields of GPano by their names."""
    tags: dict[Any, Any] = {}
    with Image.open(path, formats=FORMATS) as image:
        with suppress(Exception):  # damaged tags do not spoil a picture
            exif = image.getexif()
            tags = {**exif.get_ifd(IFD.GPSInfo), **exif, **exif.get_ifd(IFD.Exif)}
        xmp = image.info.get("xmp", b"")
    xmp = xmp.decode("utf-8", "replace") if isinstance(xmp, bytes) else str(xmp)  # a damaged one is numbers
    fields = re.findall(r"GPano:(\w+)\s*(?:=\s*[\"']|>)\s*([^\"'<\s]+)", xmp)  # attributes or elements
    return tags | dict(reversed(fields))


def _edges_meet(pixels: Tensor) -> bool:
    """Whether the first column of (3, H, W) looks like the neighbour of the last one, and not like a distant one."""
    pixels = pixels.float()
    near, far = ((pixels - pixels.roll(by, 2))[..., by:].abs().mean() for by in (1, pixels.shape[2] // 2))
    return bool((pixels[..., 0] - pixels[..., -1]).abs().mean() < near + MEETS * (far - near))


def _number(value: Any) -> float | None:
    """A finite number of a tag or a table, None without."""
    with suppress(TypeError, ValueError, ZeroDivisionError):
        return float(value) if math.isfinite(float(value)) else None
    return None


def _seconds(tags: Tags) -> float | None:
    """Of EXIF's DateTimeOriginal and its fraction, in whatever time zone; None where there is none, or zeros."""
    keys = (Base.DateTimeOriginal, Base.SubsecTimeOriginal)
    stamp, fraction = (str(tags.get(key, "")).strip("\0 ") for key in keys)
    digits = re.sub(r"\D.*", "", fraction)[:6]  # a damaged fraction does not spoil the stamp
    with suppress(ValueError):
        time = datetime.strptime(f"{stamp}.{digits or 0}", "%Y:%m:%d %H:%M:%S.%f")
        return time.replace(tzinfo=UTC).timestamp()
    return None


def _crop(tags: Tags, aspect: float) -> tuple[Crop | None, str | None]:
    """The part of the sphere that is there (Photo Sphere XMP), None where that is all or not said; why it cannot be that part."""
    numbers = [_number(tags.get(f"{name}Pixels")) for name in CROP]
    if None in numbers or min(numbers[2:]) <= 0:
        return None, None
    left, top, width, height, full_width, full_height = numbers
    sphere = full_width / 2  # rows from zenith to nadir, as many degrees each as a column
    crop = Crop(left / full_width, (top + (sphere - full_height) / 2) / sphere, width / full_width, height / sphere)
    if min(crop.width, crop.height) > 0.998:
        return None, None
    said = f"its XMP says {width:g} x {height:g} pixels at {left:g}, {top:g} of {full_width:g} x {full_height:g}: "
    if min(crop) < -0.01 or crop.left + crop.width > 1.01 or crop.top + crop.height > 1.01:
        return None, said + "beyond the sphere"
    is_whole = abs(math.log(aspect * height / width)) < 0.05
    return (crop, None) if is_whole else (None, f"{said}an aspect it has not, it was cut after that was written")


def _kind(
    aspect: float, projection: str, table_fov: float | None, stated: Kind | None, *, meets: bool, has_lens: bool
) -> Kind | None:
    """Panorama or photo: a statement counts more than the table, that more than tags, edges and shape; None: neither."""
    if stated is not None:
        return stated
    if table_fov is not None:
        return "panorama" if table_fov == 360 else "photo"
    if projection:
        return "panorama" if projection == "equirectangular" else None
    is_whole = WHOLE[0] <= aspect <= WHOLE[1] or STRIP[0] <= aspect <= STRIP[1]
    if is_whole and (meets or not has_lens):
        return "panorama"
    is_photo = PHOTO[0] <= aspect <= PHOTO[1] and (aspect < WHOLE[0] or has_lens)
    return "photo" if is_photo else None
