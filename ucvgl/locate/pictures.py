"""Street pictures of a city, places unknown: which of them can be used, what is known of their view, and north up.

A panorama is known by a statement, by its tags (GPano's XMP, which also says what part of the sphere a cropped one
shows), or by its two edges, which meet; a photo by its tags, and needs a horizontal field of view. Shape alone decides
only where nothing else is known, with a note. Where a picture was taken is never read, since that is to be found.
"""

import math
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from torch import Tensor
from tqdm.auto import tqdm
from tqdm.contrib.concurrent import thread_map

from ucvgl.data.decoding import FORMATS, decode_file, image_size, resize
from ucvgl.data.files import image_folder, read_columns, table_rows
from ucvgl.errors import InputError
from ucvgl.geometry import TopView, photo_top_view, top_view

WHOLE = (1.96, 2.04)  # width over height of a whole panorama
STRIP = (3.5, 9.0)  # of a strip of one; CVUSA's 5.5
PHOTO = (0.4, 2.4)  # of a photo, upright or across; 16:9 is 1.78, cinema's 2.39
DIAGONAL_MM = math.hypot(36, 24)  # of the film that '35 mm equivalent' refers to
SEAM_PX = (64, 256)  # size at which the edges are compared
MEETS = 0.4  # of the way from what neighbouring columns differ by to what distant ones do
READ_PX = 1024  # longer edge at which pictures are read: what an encoder of 64 px needs of 360 degrees, and more
BATCH = 32  # pictures whose views are made before they are handed on
MAGNETIC = "magnetic heading, off by the declination"
UNREFERENCED = "heading of unknown reference, true or magnetic"
BY_LENS = "field of view estimated from EXIF's focal length"
BY_SHAPE = "taken as a panorama by its shape alone: its edges do not meet"
STRIPPED = "cut at top and bottom, its horizon taken to be in the middle"
Kind = Literal["panorama", "photo"]
Crop = tuple[float, float, float, float]  # left, top, width and height of a part, as fractions of the full sphere's
SPHERE: Crop = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Picture:
    """One street picture that can be used, and what is known of it."""

    file: str  # its path below the folder
    kind: Kind  # a panorama is equirectangular
    width: int  # pixels, upright
    height: int  # pixels, upright
    fov_deg: float = 360.0  # horizontal field of view, 360 for a whole panorama
    heading_deg: float | None = None  # what the centre column shows, degrees clockwise from north; None if unknown
    crop: Crop = SPHERE  # the part of it that a panorama shows
    taken_s: float | None = None  # seconds of EXIF's time stamp, from any zero; None if unknown
    notes: tuple[str, ...] = ()  # what a reader of its place should know


@dataclass(frozen=True, eq=False)
class Ground:
    """The street pictures of a folder, in the order of their names."""

    root: str
    pictures: tuple[Picture, ...]  # those that can be used
    left_out: tuple[tuple[str, str], ...]  # file and reason of the others
    passed_over: tuple[str, ...]  # files of kinds that are not read

    def counts(self) -> dict[str, int]:
        """How many pictures there are: panoramas and photos (usable), without heading (of those), unusable."""
        kinds = Counter(f"{picture.kind}s" for picture in self.pictures)
        unknown = sum(picture.heading_deg is None for picture in self.pictures)
        return {"panoramas": 0, "photos": 0, **kinds, "without heading": unknown, "unusable": len(self.left_out)}

    def notes(self) -> Counter[str]:
        """How many pictures each note belongs to."""
        return Counter(note for picture in self.pictures for note in picture.notes)


def check_ground(
    root: Path | str, table: Path | str | None = None, kind: Kind | None = None, fov_deg: float | None = None,
    heading_deg: float | None = None,
) -> Ground:  # fmt: skip
    """Looks at every picture below a folder once: decodes it, tells its kind, and gathers what is known of its view.
    The arguments are fields of `inputs.Request`. Of a table cells may be empty, and pictures may be missing.
    InputError: no picture in the folder, a damaged table; a single one that cannot be used is `left_out`."""
    images = image_folder(Path(root), "", "street pictures")
    listed = np.full((len(images), 2), np.nan)
    if table is not None:
        ids, columns = read_columns(table, ("fov_deg", "heading_deg"))
        rows = pd.DataFrame(columns, columns=["fov_deg", "heading_deg"], dtype=float)
        listed = rows.reindex(table_rows(images.paths, ids, table)).to_numpy()

    look = partial(_look, images.root, stated=kind, fov_deg=fov_deg, heading_deg=heading_deg)
    with warnings.catch_warnings(action="ignore"):  # Pillow's of damaged tags and many pixels
        looks = thread_map(look, images.paths, listed, desc="checking pictures", disable=None)
    left_out = tuple((name, found) for name, found in zip(images.paths, looks, strict=True) if isinstance(found, str))
    return Ground(images.root, tuple(one for one in looks if isinstance(one, Picture)), left_out, images.others)


def _look(
    root: str, name: str, listed: np.ndarray, *, stated: Kind | None, fov_deg: float | None, heading_deg: float | None
) -> Picture | str:
    """What a file, its row (2,) of the table and the caller's statements come to, each before the next but for the
    kind: table, tags, statements; or why it cannot be used."""
    table_fov, table_heading = map(_number, listed)
    path = f"{root}/{name}"
    try:
        height, width = image_size(path)
        meets = _edges_meet(decode_file(path, (min(height, SEAM_PX[0]), min(width, SEAM_PX[1]))))
    except InputError as error:
        return f"no whole image (expected {error.expected}, found {error.found})"
    tags, aspect = _tags(path), width / height
    size = f"{width} x {height} pixels, an aspect of {aspect:.2f}"
    projection = tags.get("ProjectionType", "").lower()
    focal = _number(tags.get(Base.FocalLengthIn35mmFilm))
    has_lens = bool(focal or _number(tags.get(Base.FocalLength)))
    is_shaped = WHOLE[0] <= aspect <= WHOLE[1] or STRIP[0] <= aspect <= STRIP[1]
    if stated is not None or table_fov is not None:
        kind = stated or ("panorama" if table_fov == 360 else "photo")
    elif projection not in ("", "equirectangular"):
        return f"its XMP says a {projection} projection: convert it to an equirectangular one"
    elif projection or (is_shaped and (meets or not has_lens)):
        kind = "panorama"
    elif PHOTO[0] <= aspect <= PHOTO[1] and (aspect < WHOLE[0] or has_lens):
        kind = "photo"
    else:
        return f"{size}: neither panorama (2, or 3.5 to 9, edges that meet) nor photo (0.4 to 1.96); state with --kind"

    crop, notes = None, []
    if kind == "panorama" and table_fov is None and projection == "equirectangular":
        crop = _crop(tags, aspect)
    if isinstance(crop, str):
        if stated is None:
            return crop
        crop = None  # the caller knows better than tags of before an edit
    pose, compass = _number(tags.get("PoseHeadingDegrees")), _number(tags.get(GPS.GPSImgDirection))
    if crop and pose is not None:  # the part's own centre may lie beside that of the sphere
        pose += 360 * (crop[0] + crop[2] / 2 - 0.5)
    if table_heading is None and pose is None and compass is not None:
        reference = str(tags.get(GPS.GPSImgDirectionRef, "")).strip("b'\0 ").upper()[:1]
        notes += {"T": [], "M": [MAGNETIC]}.get(reference, [UNREFERENCED])
    heading = next((one for one in (table_heading, pose, compass, heading_deg) if one is not None), None)

    if kind == "panorama":
        notes += [BY_SHAPE] * (not (stated or table_fov or projection or meets))
        if crop is None and aspect < WHOLE[0]:
            return f"{size}: a panorama 360 degrees wide has 2 or more"
        if crop is None and aspect > WHOLE[1]:  # a few rows or columns off 2:1 are the stitching's, not a crop
            crop, notes = (0.0, 0.5 - 1 / aspect, 1.0, 2 / aspect), [*notes, STRIPPED]
        fov = 360 * (crop or SPHERE)[2]
    else:
        lens = None
        if table_fov is None and focal:  # which compares diagonals (CIPA)
            lens = math.degrees(2 * math.atan(DIAGONAL_MM * width / math.hypot(width, height) / 2 / focal))
            notes += [BY_LENS]
        fov = next((one for one in (table_fov, lens, fov_deg) if one is not None), None)
        if fov is None:
            return "a photo without a field of view: give fov_deg in a table (--ground-table), or --fov for all"
        if not 0 < fov < 180:
            return f"a field of view of {fov:g} degrees: a photo has 0 to 180, a panorama 360"
    stamp, fraction = (str(tags.get(key, "")).strip("\0 ") for key in (Base.DateTimeOriginal, Base.SubsecTimeOriginal))
    taken = pd.to_datetime(stamp, format="%Y:%m:%d %H:%M:%S", errors="coerce") - pd.Timestamp(0)
    seconds = _number(taken.total_seconds() + (_number(f"0.{fraction}") or 0))
    return Picture(name, kind, width, height, fov, heading and heading % 360, crop or SPHERE, seconds, tuple(notes))


def _edges_meet(pixels: Tensor) -> bool:
    """Whether the first column of (3, H, W) looks like the neighbour of the last one, and not like a distant one."""
    pixels = pixels.float()
    near, far = ((pixels - pixels.roll(by, 2))[..., by:].abs().mean() for by in (1, pixels.shape[2] // 2))
    return bool((pixels[..., 0] - pixels[..., -1]).abs().mean() < near + MEETS * (far - near))


def _tags(path: str) -> Mapping[Any, Any]:
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


def _crop(tags: Mapping[Any, Any], aspect: float) -> Crop | str | None:
    """The part of the sphere that is there (Photo Sphere XMP), None: all, or not said; or what is wrong."""
    names = "CroppedAreaLeft CroppedAreaTop CroppedAreaImageWidth CroppedAreaImageHeight FullPanoWidth FullPanoHeight"
    numbers = [_number(tags.get(f"{name}Pixels")) for name in names.split()]
    if None in numbers or min(numbers[2:]) <= 0:
        return None
    left, top, width, height, full_width, full_height = numbers
    sphere = full_width / 2  # rows from zenith to nadir, as many degrees each as a column
    crop = left / full_width, (top + (sphere - full_height) / 2) / sphere, width / full_width, height / sphere
    if min(crop[2:]) > 0.998:
        return None
    is_inside = min(crop) >= -0.01 and crop[0] + crop[2] <= 1.01 and crop[1] + crop[3] <= 1.01
    if is_inside and abs(math.log(aspect * height / width)) < 0.05:
        return crop
    said = f"its XMP says {width:g} x {height:g} pixels at {left:g}, {top:g} of {full_width:g} x {full_height:g}"
    return f"{said}: beyond the sphere, or it was cut after that was written"


def _number(value: Any) -> float | None:
    """A finite number of a tag or a table, None without."""
    with suppress(TypeError, ValueError, ZeroDivisionError):
        return float(value) if math.isfinite(float(value)) else None
    return None


def north_up(image: Tensor, picture: Picture, headings_deg: Tensor, view: TopView) -> Tensor:
    """A picture, uint8 (3, H, W), from above and north up, if its centre shows each of the headings (T,), clockwise from
    north: uint8 (T, 3, S, S), black where it shows nothing."""
    if picture.kind == "photo":
        return photo_top_view(image[None], picture.fov_deg, view, headings_deg)
    left, top, width, height = picture.crop
    across = min(READ_PX, round(image.shape[2] / width)) // 2 * 2  # columns of the whole sphere, twice its rows
    rows = slice(max(0, round(top * across / 2)), round((top + height) * across / 2))
    columns = slice(max(0, round(left * across)), round((left + width) * across))
    sphere = torch.zeros(1, 3, across // 2, across, dtype=torch.uint8)
    sphere[0, :, rows, columns] = resize(image, sphere[0, 0, rows, columns].shape)
    return top_view(sphere, view, heading_deg=headings_deg - 360 * (left + width / 2 - 0.5))  # of the sphere's centre


def street_views(ground: Ground, pictures: Sequence[Picture], headings_deg: Tensor, view: TopView) -> Iterator[Tensor]:
    """N pictures of a folder, each at T headings, (N, T), by `north_up`: some at a time, (rows, T, 3, S, S) uint8."""

    def views(picture: Picture, turns: Tensor) -> Tensor:
        return north_up(read_picture(ground, picture), picture, turns, view)

    for first in tqdm(range(0, len(pictures), BATCH), desc="projecting", disable=None):
        some = slice(first, first + BATCH)
        yield torch.stack(thread_map(views, pictures[some], headings_deg[some], disable=True))


def read_picture(ground: Ground, picture: Picture, longest_px: int = READ_PX) -> Tensor:
    """A picture (3, H, W) uint8, its longer edge no more than that: sampled at full size it would alias."""
    shrink = min(1.0, longest_px / max(picture.width, picture.height))
    size = tuple(max(1, round(edge * shrink)) for edge in (picture.height, picture.width))
    return decode_file(f"{ground.root}/{picture.file}", size)
