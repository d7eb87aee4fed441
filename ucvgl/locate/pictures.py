"""Street pictures of a city, places unknown: which of them can be used, which cannot and why, what is known of their view.

A panorama is told by a statement, by its tags (GPano's XMP, which also says what part of the sphere a cropped one shows), or
by its two edges, which meet; a photo by its tags, and needs a horizontal field of view. Shape alone is believed only where
nothing else is known, and that is said. Where a picture was taken is never read: it is what is to be found.
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
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from tqdm.contrib.concurrent import thread_map

from ucvgl.data.decoding import FORMATS, MAX_PIXELS
from ucvgl.data.files import folder, read_columns, table_rows, walk
from ucvgl.errors import InputError, check_number

WHOLE = (1.96, 2.04)  # width over height of a whole panorama
STRIP = (3.5, 9.0)  # of a strip of one; CVUSA's 5.5
PHOTO = (0.4, 2.4)  # of a photo, upright or across; 16:9 is 1.78, cinema's 2.39
STATED = 12.0  # up to which a stated panorama is believed
DIAGONAL_MM = math.hypot(36, 24)  # of the film that '35 mm equivalent' refers to
LEAST_PX = 32  # of the shorter side; the embedded world's strips have 47 rows
SEAM_PX = (64, 256)  # size at which the edges are compared
MEETS = 0.4  # of the way from what neighbouring columns differ by to what distant ones do
SHOWN = 10  # unusable pictures listed in a report
MAGNETIC = "magnetic heading, off by the declination"
UNREFERENCED = "heading of unknown reference, true or magnetic"
BY_SHAPE = "taken as a panorama by its shape alone: its edges do not meet"

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
    # where the field of view came from: table, exif (an estimate), xmp, stated or format; '' if unknown
    fov_source: str = ""
    # where the heading came from: table, exif, 'exif, magnetic', 'exif, unreferenced', xmp or stated
    heading_source: str = ""
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
        return {
            "panoramas": len(self.of_kind("panorama")), "photos": len(self.of_kind("photo")),
            "without heading": sum(p.heading_deg is None for p in self.usable), "unusable": len(self.unusable),
        }  # fmt: skip

    def text(self) -> str:
        """The report for people: counts, where what is known came from, unusable pictures with their reasons."""
        counts, good, bad = self.counts(), self.usable, self.unusable
        rows = [
            f"{len(self.pictures):,} pictures in {self.root}: {counts['panoramas']:,} panoramas and {counts['photos']:,} photos "
            f"can be used, {counts['unusable']:,} cannot"
        ]
        said = {
            "fields of view of photos": [f"from {p.fov_source}" for p in good if p.kind == "photo"],
            "headings": [f"from {p.heading_source}" for p in good if p.heading_source],
            "notes": [note for p in good for note in p.notes],
        }
        for what, texts in said.items():
            if texts:
                rows.append(f"{what}: " + ", ".join(f"{n:,} {words}" for words, n in sorted(Counter(texts).items())))
        if counts["without heading"]:
            rows.append(f"{counts['without heading']:,} without a heading")
        if self.passed_over:
            some = ", ".join(self.passed_over[:3])
            rows.append(f"passed over {len(self.passed_over):,} files of kinds that are not read: {some}")
        rows += [f"unusable: {p.file}: {p.reason_unusable}" for p in bad[:SHOWN]]
        rows += [f"unusable: and {len(bad) - SHOWN:,} more"] * (len(bad) > SHOWN)
        return "\n".join(rows)


def check_ground(
    root: Path | str, table: Path | str | None = None, *, kind: Kind | None = None, fov_deg: float | None = None,
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
        heading_deg = check_number("heading_deg", heading_deg, unit="deg") % 360
    names, others = walk(root)
    if not names:
        raise InputError(
            root, expected="street pictures", found=", ".join(["no image", *others[:3]]),
            todo="Copy JPEG, PNG, TIFF, WebP or BMP images there.",
        )  # fmt: skip
    known = np.full((len(names), 2), np.nan) if table is None else _known(Path(table), names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damaged tags and many pixels: neither spoils a picture
        seen = thread_map(
            lambda name: _seen(root / name), names, desc="checking pictures", unit="image", disable=not progress
        )
    pictures = tuple(
        Picture(name, None, 0, 0, reason_unusable=one)
        if isinstance(one, str)
        else _picture(name, one, row, kind, fov_deg, heading_deg)
        for name, one, row in zip(names, seen, known.tolist(), strict=True)
    )
    return Ground(str(root), pictures, tuple(others))


def fov_from_35mm(focal_mm: float, width: int, height: int) -> float:
    """Horizontal field of view in degrees from the focal length in 35 mm equivalent, which compares diagonals (CIPA)."""
    return math.degrees(2 * math.atan(DIAGONAL_MM * width / math.hypot(width, height) / 2 / focal_mm))


# one picture


class _Seen(NamedTuple):
    """What a file says about itself."""

    width: int  # upright
    height: int
    projection: str  # as XMP names it, or ''
    crop: Crop | None
    pose_deg: float | None  # of the sphere's centre, by XMP
    camera: bool  # EXIF has a focal length: a lens took it
    focal_mm: float | None  # 35 mm equivalent
    heading_deg: float | None  # of the picture's centre, by EXIF
    heading_source: str
    taken_s: float | None
    meets: bool  # its left edge continues its right one


def _seen(path: Path) -> _Seen | str:
    """Header, tags and pixels of a file, or why it is unusable; the pixels only to see that they are whole, and edges that meet."""
    try:
        if path.stat().st_size == 0:
            return "an empty file"
        with open(path, "rb") as file, Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                return f"{width} x {height}: more than {MAX_PIXELS:,} pixels; scale it down"
            exif, gps, camera = _exif(image)
            turned = exif.get(Base.Orientation, 1) in (5, 6, 7, 8)
            # JPEG: reads all of the file but transforms a part of it
            image.draft("RGB", (max(width // 8, 2 * SEAM_PX[1]), max(height // 8, 2 * SEAM_PX[0])))
            image.load()
            meets = not turned and _edges_meet(image)
        xmp = image.info.get("xmp", b"")
        xmp = xmp if isinstance(xmp, str) else xmp.decode("utf-8", "replace")
        pano = dict(
            reversed(re.findall(r"GPano:(\w+)\s*(?:=\s*[\"']|>)\s*([^\"'<\s]+)", xmp))
        )  # attributes or elements
        focal, heading = _finite(camera.get(Base.FocalLengthIn35mmFilm)), _finite(gps.get(GPS.GPSImgDirection))
        reference = str(gps.get(GPS.GPSImgDirectionRef, "")).strip("b'\0 ").upper()[:1]
        source = {"T": "exif", "M": "exif, magnetic"}.get(reference, "exif, unreferenced")
        return _Seen(
            *((height, width) if turned else (width, height)), pano.get("ProjectionType", "").lower(), _crop(pano),
            _finite(pano.get("PoseHeadingDegrees")), bool(focal or _finite(camera.get(Base.FocalLength))), focal or None,
            None if heading is None else heading % 360, "" if heading is None else source, _seconds(camera), meets,
        )  # fmt: skip
    except Exception as error:  # decoders raise whatever a damaged byte leads them to
        return f"no whole image ({type(error).__name__}: {error})"[:200]


def _exif(image: Image.Image) -> tuple[Mapping, Mapping, Mapping]:
    """EXIF and its directories of GPS and camera; damaged tags do not spoil a picture."""
    try:
        exif = image.getexif()
        return exif, exif.get_ifd(IFD.GPSInfo), exif.get_ifd(IFD.Exif)
    except Exception:  # as Pillow raises
        return {}, {}, {}


def _seconds(camera: Mapping[int, object]) -> float | None:
    """Of EXIF's DateTimeOriginal and its fraction, in whatever time zone; None where there is none, or zeros."""
    with suppress(ValueError):
        stamp = str(camera.get(Base.DateTimeOriginal, "")).strip("\0 ")
        time = datetime.strptime(stamp, "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
        fraction = re.match(r"\d+", str(camera.get(Base.SubsecTimeOriginal, "")))
        return time.timestamp() + (float(f"0.{fraction[0]}") if fraction else 0.0)
    return None


def _crop(pano: Mapping[str, str]) -> Crop | None:
    """The part of the sphere that is there (Photo Sphere XMP); None where it is all of it, or not said."""
    names = ("CroppedAreaLeftPixels", "CroppedAreaTopPixels", "CroppedAreaImageWidthPixels", "CroppedAreaImageHeightPixels",
             "FullPanoWidthPixels", "FullPanoHeightPixels")  # fmt: skip
    numbers = [_finite(pano.get(name)) for name in names]
    if None in numbers or min(numbers[2:]) <= 0:
        return None
    left, top, width, height, full_width, full_height = numbers
    sphere = full_width / 2  # rows from zenith to nadir, as many degrees each as a column
    crop = Crop(left / full_width, (top + (sphere - full_height) / 2) / sphere, width / full_width, height / sphere)
    return None if min(crop.width, crop.height) > 0.998 else crop


def _finite(value: object) -> float | None:
    try:
        value = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) else None


def _edges_meet(image: Image.Image) -> bool:
    """Whether the first column looks like the neighbour of the last one, and not like a distant one."""
    rows, columns = (min(edge, most) for edge, most in zip((image.height, image.width), SEAM_PX, strict=True))
    pixels = np.asarray(image.convert("RGB").resize((columns, rows), Image.Resampling.BOX), np.float32)
    near, far = (float(np.abs(pixels - np.roll(pixels, by, 1))[:, by:].mean()) for by in (1, columns // 2))
    seam = float(np.abs(pixels[:, 0] - pixels[:, -1]).mean())
    return seam < near + MEETS * (far - near)


def _picture(
    name: str, seen: _Seen, row: list[float], stated: Kind | None, fov_deg: float | None, heading_deg: float | None
) -> Picture:
    """What a file, its row of the table and the caller's statements come to."""
    listed_fov, listed_heading = (None if math.isnan(value) else value for value in row)
    kind, doubt, notes = _kind(seen, listed_fov, stated)
    crop, pose, fovs = None, seen.pose_deg, ()
    if kind == "panorama":
        if seen.projection == "equirectangular" and listed_fov is None:
            crop = seen.crop
        misfit = _misfit(seen, crop)
        if misfit and stated:  # the caller knows better than tags of before an edit
            crop, misfit = None, None
        doubt = doubt or misfit
        fovs = ((360.0, "format") if crop is None else (360.0 * crop.width, "xmp"),)
        if crop is not None and pose is not None:  # the part's own centre may lie beside that of the sphere
            pose += 360 * (crop.left + crop.width / 2 - 0.5)
    elif kind == "photo":
        exif = None if seen.focal_mm is None else fov_from_35mm(seen.focal_mm, seen.width, seen.height)
        fovs = (listed_fov, "table"), (exif, "exif"), (fov_deg, "stated")
    headings = (
        (listed_heading, "table"), (None if pose is None else pose % 360, "xmp"), (seen.heading_deg, seen.heading_source),
        (heading_deg, "stated"),
    )  # fmt: skip
    (fov, fov_source), (heading, source) = (
        next(((value, source) for value, source in ways if value is not None), (None, "")) for ways in (fovs, headings)
    )
    notes += {"exif, magnetic": (MAGNETIC,), "exif, unreferenced": (UNREFERENCED,)}.get(source, ())
    if min(seen.width, seen.height) < LEAST_PX:
        doubt = f"{seen.width} x {seen.height} pixels, less than {LEAST_PX} across"
    elif doubt is None and fov is None:
        doubt = "a photo without a field of view: give fov_deg in a table (--ground-table), or --fov for all"
    return Picture(
        name, kind, seen.width, seen.height, fov, heading, fov_source, source, crop, seen.taken_s, notes, doubt
    )


def _misfit(seen: _Seen, crop: Crop | None) -> str | None:
    """Why a picture cannot be the part of the sphere that its tags say; None where it can."""
    if crop is None:
        return None
    if min(crop) < -0.01 or crop.left + crop.width > 1.01 or crop.top + crop.height > 1.01:
        return f"its XMP says a part beyond the sphere: {', '.join(f'{v:.3g}' for v in crop)} of its width and height"
    aspect, said = seen.width / seen.height, 2 * crop.width / crop.height
    if abs(math.log(aspect / said)) > 0.05:
        return f"an aspect of {aspect:.2f}, where its XMP says {said:.2f}: it was cut after that was written"
    return None


def _kind(
    seen: _Seen, listed_fov: float | None, stated: Kind | None
) -> tuple[Kind | None, str | None, tuple[str, ...]]:
    """Panorama or photo, why neither, and notes: a statement counts more than the table, that more than tags, edges, shape."""
    aspect = seen.width / seen.height
    shape = f"{seen.width} x {seen.height}, an aspect of {aspect:.2f}"
    equirectangular = seen.projection == "equirectangular"
    if stated == "panorama" or (stated is None and (listed_fov == 360 or (listed_fov is None and equirectangular))):
        fits = WHOLE[0] <= aspect <= STATED or (seen.crop is not None and equirectangular)
        return "panorama", None if fits else f"{shape}: a panorama 360 degrees wide has 2 or more", ()
    if stated == "photo" or listed_fov is not None:
        if listed_fov is not None and listed_fov >= 180:
            return "photo", f"a field of view of {listed_fov:g} degrees: a photo has less than 180, a panorama 360", ()
        return "photo", None if 1 / STATED <= aspect <= STATED else f"{shape}: too long for a photo", ()
    if seen.projection:
        return None, f"its XMP says a {seen.projection} projection: convert it to an equirectangular one", ()
    whole = WHOLE[0] <= aspect <= WHOLE[1] or STRIP[0] <= aspect <= STRIP[1]
    if whole and (seen.meets or not seen.camera):
        return "panorama", None, () if seen.meets else (BY_SHAPE,)
    if PHOTO[0] <= aspect <= PHOTO[1] and (aspect < WHOLE[0] or seen.camera):
        return "photo", None, ()
    if whole:
        return None, f"{shape}, whose edges do not meet: no panorama 360 degrees wide; state with --kind", ()
    return None, f"{shape}: neither panorama (2, or 3.5 to 9) nor photo (0.4 to 1.96); state which with --kind", ()


def _known(table: Path, names: list[str]) -> np.ndarray:
    """(N, 2) fields of view and headings of the pictures from a table, NaN where it has none."""
    files, columns = read_columns(table, ("fov_deg", "heading_deg"))
    missing = np.full(len(files), np.nan)
    values = np.stack([columns.get(name, missing) for name in ("fov_deg", "heading_deg")], axis=1)
    bad = np.flatnonzero((values[:, 0] <= 0) | (values[:, 0] > 360))
    if len(bad):
        raise InputError(
            f"{table}: {files[bad[0]]}", expected="a field of view above 0, up to 360 degrees",
            found=f"{values[bad[0], 0]:g}", todo="Give degrees across the picture.",
        )  # fmt: skip
    values[:, 1] %= 360
    row = table_rows(names, files, table)
    return np.where((row >= 0)[:, None], values[row], np.nan)
