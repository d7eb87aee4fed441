"""Street pictures of a city, places unknown: which of them can be used, which cannot and why, what is known of their view.

A panorama is known by a statement, by its tags (GPano's XMP, which also says what part of the sphere a cropped one shows), or
by its two edges, which meet; a photo by its tags, and needs a horizontal field of view. Shape alone decides only where
nothing else is known, with a note. Where a picture was taken is never read, since that is to be found.
"""

import math
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from tqdm.contrib.concurrent import thread_map

from ucvgl.data.decoding import FORMATS, MAX_PIXELS
from ucvgl.data.files import folder, read_columns, table_rows, walk
from ucvgl.errors import InputError, check_number
from ucvgl.locate.tiles import not_used

WHOLE = (1.96, 2.04)  # width over height of a whole panorama
STRIP = (3.5, 9.0)  # of a strip of one; CVUSA's 5.5
PHOTO = (0.4, 2.4)  # of a photo, upright or across; 16:9 is 1.78, cinema's 2.39
LONGEST = 12.0  # of what is stated or tagged: no panorama or photo is longer
DIAGONAL_MM = math.hypot(36, 24)  # of the film that '35 mm equivalent' refers to
LEAST_PX = 32  # of the shorter side; the embedded world's strips have 47 rows
SEAM_PX = (64, 256)  # size at which the edges are compared
MEETS = 0.4  # of the way from what neighbouring columns differ by to what distant ones do
MAGNETIC = "magnetic heading, off by the declination"
UNREFERENCED = "heading of unknown reference, true or magnetic"
BY_SHAPE = "taken as a panorama by its shape alone: its edges do not meet"
CROP = (
    "CroppedAreaLeftPixels", "CroppedAreaTopPixels", "CroppedAreaImageWidthPixels", "CroppedAreaImageHeightPixels",
    "FullPanoWidthPixels", "FullPanoHeightPixels",
)  # fmt: skip

Kind = Literal["panorama", "photo"]


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
    fov_source: str = ""  # table, exif (an estimate), xmp, stated or format; '' if unknown
    heading_source: str = ""  # table, exif, 'exif, magnetic', 'exif, unreferenced', xmp or stated
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

    def headings(self, kind: Kind) -> np.ndarray:
        """(K,) float64 degrees, in the order of `of_kind(kind)`; NaN where unknown."""
        return np.array([p.heading_deg for p in self.of_kind(kind)], np.float64)

    def counts(self) -> dict[str, int]:
        """How many pictures there are: panoramas and photos (usable), without heading (of those), unusable."""
        panoramas, photos = (len(self.of_kind(kind)) for kind in ("panorama", "photo"))
        blind = sum(p.heading_deg is None for p in self.usable)
        return {"panoramas": panoramas, "photos": photos, "without heading": blind, "unusable": len(self.unusable)}

    def text(self) -> str:
        """The report for people: counts, where what is known came from, unusable pictures with their reasons."""
        said = {
            "fields of view of photos": [f"from {p.fov_source}" for p in self.of_kind("photo")],
            "headings": [f"from {p.heading_source}" if p.heading_source else "unknown" for p in self.usable],
            "notes": [note for p in self.usable for note in p.notes],
        }
        kinds = ", ".join(f"{count:,} {name}" for name, count in self.counts().items())
        rows = [f"{len(self.pictures):,} pictures in {self.root}: {kinds}"]
        for what, texts in said.items():
            words = ", ".join(f"{count:,} {text}" for text, count in sorted(Counter(texts).items()))
            rows += [f"{what}: {words}"] * bool(texts)
        return "\n".join(rows + not_used(self.passed_over, [(p.file, str(p.reason_unusable)) for p in self.unusable]))


def check_ground(
    root: Path | str, table: Path | str | None = None, kind: Kind | None = None, fov_deg: float | None = None,
    heading_deg: float | None = None, progress: bool = False,
) -> Ground:  # fmt: skip
    """Looks at every picture below a folder once: decodes it, tells its kind, and gathers what is known of its view.

    The arguments are fields of `inputs.Request`. Of a table cells may be empty, and pictures may be missing.

    Raises:
        InputError: the folder is absent or holds no picture, the table is damaged, names none of the pictures or two by
            one row, or a setting is out of range. A picture that cannot be used is no error: it says why.
    """
    root = folder(root, "a folder of street pictures")
    if fov_deg is not None:
        check_number("fov_deg", fov_deg, unit="deg", low=0, high=180)
    if heading_deg is not None:
        check_number("heading_deg", heading_deg, unit="deg")
    names, others = walk(root)
    if not names:
        found = ", ".join(["no image", *others[:3]])
        raise InputError(
            root, expected="street pictures (JPEG, PNG, TIFF, WebP or BMP)", found=found, todo="Copy them there."
        )
    listed = np.full((2, len(names)), np.nan)  # fields of view and headings
    if table is not None:
        ids, columns = read_columns(table, ("fov_deg", "heading_deg"))
        row = table_rows(names, ids, table)
        cells = [columns.get(name, np.full(len(ids), np.nan))[row] for name in ("fov_deg", "heading_deg")]
        listed = np.where(row >= 0, cells, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damaged tags and many pixels: neither spoils a picture
        pictures = thread_map(
            lambda name, known: _picture(root, name, *map(_number, known), kind, fov_deg, heading_deg),
            names, listed.T, desc="checking pictures", unit="image", disable=not progress,
        )  # fmt: skip
    return Ground(str(root), tuple(pictures), tuple(others))


def fov_from_35mm(focal_mm: float, width: int, height: int) -> float:
    """Horizontal field of view in degrees from the focal length in 35 mm equivalent, which compares diagonals (CIPA)."""
    return math.degrees(2 * math.atan(DIAGONAL_MM * width / math.hypot(width, height) / 2 / focal_mm))


# ------------------------------------------------------------------------------------------------------------ one picture

Tags = Mapping[Any, Any]


def _picture(
    root: Path, name: str, listed_fov: float | None, listed_heading: float | None,
    stated: Kind | None, fov_deg: float | None, heading_deg: float | None,
) -> Picture:  # fmt: skip
    """What a file, its row of the table and the caller's statements come to."""
    try:
        (width, height), camera, gps, pano, meets = _read(root / name)
    except Exception as error:  # decoders raise whatever a damaged byte leads them to
        empty = (root / name).stat().st_size == 0
        return Picture(
            name, None, 0, 0, reason_unusable="an empty file" if empty else f"no whole image ({error})"[:200]
        )
    focal, pose = _number(camera.get(Base.FocalLengthIn35mmFilm)), _number(pano.get("PoseHeadingDegrees"))
    by_lens = fov_from_35mm(focal, width, height) if focal else None
    has_lens = bool(focal or _number(camera.get(Base.FocalLength)))
    crop, misfit = (None, None) if listed_fov or stated == "photo" else _crop(pano, width / height)
    kind, doubt, note = _kind(width, height, pano, crop, listed_fov, stated, meets=meets, has_lens=has_lens)
    fovs = [(listed_fov, "table"), (by_lens, "exif"), (fov_deg, "stated")]
    if kind == "panorama":
        fovs = [(360.0, "format") if crop is None else (360 * crop.width, "xmp")]
        doubt = doubt or (None if stated else misfit)  # the caller knows better than tags of before an edit
    if crop is not None and pose is not None:  # the part's own centre may lie beside that of the sphere
        pose += 360 * (crop.left + crop.width / 2 - 0.5)
    reference = str(gps.get(GPS.GPSImgDirectionRef, "")).strip("b'\0 ").upper()[:1]
    by_compass = {"T": "exif", "M": "exif, magnetic"}.get(reference, "exif, unreferenced")
    compass = _number(gps.get(GPS.GPSImgDirection))
    headings = [(listed_heading, "table"), (pose, "xmp"), (compass, by_compass), (heading_deg, "stated")]
    fov, fov_source = next(((value, source) for value, source in fovs if value), (None, ""))
    heading, source = next(((value % 360, source) for value, source in headings if value is not None), (None, ""))
    notes = [note, {"exif, magnetic": MAGNETIC, "exif, unreferenced": UNREFERENCED}.get(source, "")]
    if min(width, height) < LEAST_PX:
        doubt = f"{width} x {height} pixels, less than {LEAST_PX} across"
    if kind == "photo" and fov is None:
        doubt = doubt or "a photo without a field of view: give fov_deg in a table (--ground-table), or --fov for all"
    return Picture(
        name,
        kind,
        width,
        height,
        fov,
        heading,
        fov_source,
        source,
        crop,
        _seconds(camera),
        tuple(filter(None, notes)),
        doubt,
    )


def _read(path: Path) -> tuple[tuple[int, int], Tags, Tags, Tags, bool]:
    """Width and height of a picture, upright; EXIF, its directory of GPS, XMP's fields of GPano; and whether its edges meet.

    Its pixels are decoded to see that they are whole.
    """
    with open(path, "rb") as file, Image.open(file, formats=FORMATS) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"{width} x {height}: more than {MAX_PIXELS:,} pixels; scale it down")
        camera, gps = {}, {}
        with suppress(Exception):  # damaged tags do not spoil a picture
            exif = image.getexif()
            camera, gps = {**exif, **exif.get_ifd(IFD.Exif)}, exif.get_ifd(IFD.GPSInfo)
        # JPEG: reads all of the file but transforms a part of it
        image.draft("RGB", (max(width // 8, 2 * SEAM_PX[1]), max(height // 8, 2 * SEAM_PX[0])))
        image.load()
        is_turned = camera.get(Base.Orientation) in (5, 6, 7, 8)
        meets = not is_turned and _edges_meet(image)
    xmp = image.info.get("xmp", b"")
    xmp = xmp if isinstance(xmp, str) else xmp.decode("utf-8", "replace")
    fields = re.findall(r"GPano:(\w+)\s*(?:=\s*[\"']|>)\s*([^\"'<\s]+)", xmp)  # attributes or elements
    return ((height, width) if is_turned else (width, height)), camera, gps, dict(reversed(fields)), meets


def _edges_meet(image: Image.Image) -> bool:
    """Whether the first column looks like the neighbour of the last one, and not like a distant one."""
    rows, columns = (min(edge, most) for edge, most in zip((image.height, image.width), SEAM_PX, strict=True))
    pixels = np.asarray(image.convert("RGB").resize((columns, rows), Image.Resampling.BOX), np.float32)
    near, far = (float(np.abs(pixels - np.roll(pixels, by, 1))[:, by:].mean()) for by in (1, columns // 2))
    seam = float(np.abs(pixels[:, 0] - pixels[:, -1]).mean())
    return seam < near + MEETS * (far - near)


def _number(value: Any) -> float | None:
    """A finite number of a tag or a table, None without."""
    with suppress(TypeError, ValueError, ZeroDivisionError):
        return float(value) if math.isfinite(float(value)) else None
    return None


def _seconds(camera: Tags) -> float | None:
    """Of EXIF's DateTimeOriginal and its fraction, in whatever time zone; None where there is none, or zeros."""
    with suppress(ValueError):
        stamp = str(camera.get(Base.DateTimeOriginal, "")).strip("\0 ")
        time = datetime.strptime(stamp, "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
        fraction = re.match(r"\d*", str(camera.get(Base.SubsecTimeOriginal, "")))
        return time.timestamp() + float(f"0.{fraction[0]}")
    return None


def _crop(pano: Tags, aspect: float) -> tuple[Crop | None, str | None]:
    """The part of the sphere that is there (Photo Sphere XMP), None where that is all or not said; why it cannot be that part."""
    numbers = [_number(pano.get(name)) for name in CROP]
    if None in numbers or min(numbers[2:]) <= 0 or pano.get("ProjectionType", "").lower() != "equirectangular":
        return None, None
    left, top, width, height, full_width, full_height = numbers
    sphere = full_width / 2  # rows from zenith to nadir, as many degrees each as a column
    crop = Crop(left / full_width, (top + (sphere - full_height) / 2) / sphere, width / full_width, height / sphere)
    if min(crop.width, crop.height) > 0.998:
        return None, None
    if min(crop) < -0.01 or crop.left + crop.width > 1.01 or crop.top + crop.height > 1.01:
        return (
            None,
            f"its XMP says a part beyond the sphere: {', '.join(f'{v:.3g}' for v in crop)} of its width and height",
        )
    if abs(math.log(aspect * height / width)) > 0.05:
        said = f"an aspect of {aspect:.2f}, where its XMP says {width / height:.2f}: it was cut after that was written"
        return None, said
    return crop, None


def _kind(
    width: int, height: int, pano: Tags, crop: Crop | None, listed_fov: float | None, stated: Kind | None, *,
    meets: bool, has_lens: bool,
) -> tuple[Kind | None, str | None, str]:  # fmt: skip
    """Panorama or photo, why neither, and a note: a statement counts more than the table, that more than tags, edges, shape."""
    aspect, projection = width / height, pano.get("ProjectionType", "").lower()
    shape = f"{width} x {height}, an aspect of {aspect:.2f}"
    if stated is None and listed_fov is not None:
        stated = "panorama" if listed_fov == 360 else "photo"
    if stated == "panorama" or (stated is None and projection == "equirectangular"):
        fits = WHOLE[0] <= aspect <= LONGEST or crop is not None
        return "panorama", None if fits else f"{shape}: a panorama 360 degrees wide has 2 to {LONGEST:g}", ""
    if stated == "photo":
        if listed_fov is not None and not 0 < listed_fov < 180:
            return "photo", f"a field of view of {listed_fov:g} degrees: a photo has 0 to 180, a panorama 360", ""
        return "photo", None if 1 / LONGEST <= aspect <= LONGEST else f"{shape}: too long for a photo", ""
    if projection:
        return None, f"its XMP says a {projection} projection: convert it to an equirectangular one", ""
    is_whole = WHOLE[0] <= aspect <= WHOLE[1] or STRIP[0] <= aspect <= STRIP[1]
    if is_whole and (meets or not has_lens):
        return "panorama", None, "" if meets else BY_SHAPE
    if PHOTO[0] <= aspect <= PHOTO[1] and (aspect < WHOLE[0] or has_lens):
        return "photo", None, ""
    return (
        None,
        f"{shape}: neither panorama (2, or 3.5 to 9, edges that meet) nor photo (0.4 to 1.96); state with --kind",
        "",
    )
