"""Street pictures of a city, places unknown: which of them can be used, which cannot and why, what is known of their view.

A panorama is told by its aspect ratio (2:1, or a strip of one such as CVUSA's 1232 x 224, 360 degrees wide), by its XMP
tag, or by a statement; anything else is a photo, which needs a horizontal field of view. What is known is kept with where
it came from: a table, EXIF (an estimate), or the caller. A position in EXIF is never read unless asked for.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ucvgl.data.container import FileImages
from ucvgl.data.decoding import FORMATS, MAX_PIXELS
from ucvgl.data.files import folder, numbers, read_table, walk
from ucvgl.data.folders import image_position
from ucvgl.errors import InputError, check_number
from ucvgl.positions import Positions, Wgs84

WHOLE = (1.96, 2.04)  # width over height of a whole panorama
STRIP = (3.5, 9.0)  # of a strip of one; CVUSA's 5.5
PHOTO = (0.4, 1.96)  # of a photo, upright or across; 16:9 is 1.78
STATED = 12.0  # up to which a stated panorama is believed
DIAGONAL_MM = math.hypot(36, 24)  # of the film that '35 mm equivalent' refers to
LEAST_PX = 32  # of the shorter side; the embedded world's strips have 47 rows
FILE_COLUMNS = ("file", "id", "filename", "file_name", "image", "picture", "name", "path")
SHOWN = 10  # unusable pictures listed in a report

Kind = Literal["panorama", "photo"]
Source = Literal["table", "exif", "exif, magnetic", "xmp", "stated", "format", ""]
T, R = TypeVar("T"), TypeVar("R")


@dataclass(frozen=True)
class Picture:
    """One street picture and what is known of it.

    Args:
        file: its path below the folder.
        kind: 'panorama' (360 degrees wide) or 'photo'; None where that cannot be told.
        width: pixels, upright; 0 if the file could not be read.
        height: pixels, upright.
        fov_deg: horizontal field of view, 360 for a panorama; None if unknown.
        heading_deg: what the centre column shows, degrees clockwise from north; None if unknown.
        fov_source: where the field of view came from: table, exif (an estimate), stated or format; '' if unknown.
        heading_source: where the heading came from: table, exif, 'exif, magnetic' (off by the declination), xmp or stated.
        reason_unusable: why it cannot be used; None if it can.
    """

    file: str
    kind: Kind | None
    width: int
    height: int
    fov_deg: float | None = None
    heading_deg: float | None = None
    fov_source: Source = ""
    heading_source: Source = ""
    reason_unusable: str | None = None


@dataclass(frozen=True, eq=False)
class Ground:
    """The street pictures of a folder, in the order of their names.

    Args:
        root: the folder.
        pictures: all of them, usable or not.
        positions: one a picture, from EXIF, only where that was asked for; else None.
    """

    root: str
    pictures: tuple[Picture, ...]
    positions: Positions | None = None

    @property
    def usable(self) -> tuple[Picture, ...]:
        """The pictures that can be used."""
        return tuple(p for p in self.pictures if p.reason_unusable is None)

    @property
    def unusable(self) -> tuple[Picture, ...]:
        """The others; each says why."""
        return tuple(p for p in self.pictures if p.reason_unusable is not None)

    def rows(self, kind: Kind) -> np.ndarray:
        """(K,) int64: which of `pictures` are usable and of that kind."""
        return np.array(
            [i for i, p in enumerate(self.pictures) if p.reason_unusable is None and p.kind == kind], np.int64
        )

    def images(self, kind: Kind) -> FileImages:
        """The usable pictures of one kind as an image set; ids are file names. They may differ in size.

        Raises:
            InputError: there is none.
        """
        rows = self.rows(kind)
        if len(rows) == 0:
            found = ", ".join(f"{count} {what}" for what, count in self.counts().items() if count)
            raise InputError(self.root, expected=f"a usable {kind}", found=found, todo="Read the reasons in text().")
        files = [self.pictures[i].file for i in rows]
        return FileImages(
            self.root, files, files, None if self.positions is None else self.positions.take(rows), self.root
        )

    def headings(self, kind: Kind) -> np.ndarray:
        """(K,) float64 degrees, in the order of `images(kind)`; NaN where unknown."""
        known = (self.pictures[i].heading_deg for i in self.rows(kind))
        return np.array([math.nan if h is None else h for h in known], np.float64)

    def counts(self) -> dict[str, int]:
        """How many pictures there are: panoramas and photos (usable), without heading (of those), unusable."""
        kinds = Counter(p.kind for p in self.usable)
        blind = sum(p.heading_deg is None for p in self.usable)
        return {
            "panoramas": kinds["panorama"], "photos": kinds["photo"], "without heading": blind,
            "unusable": len(self.unusable),
        }  # fmt: skip

    def text(self) -> str:
        """The report for people: counts, where what is known came from, unusable pictures with their reasons."""
        counts, good, bad = self.counts(), self.usable, self.unusable
        rows = [
            f"{len(self.pictures):,} pictures in {self.root}: {counts['panoramas']:,} panoramas and {counts['photos']:,} photos "
            f"can be used, {counts['unusable']:,} cannot"
        ]
        sources = Counter(p.fov_source for p in good if p.kind == "photo")
        if sources:
            rows.append("fields of view of photos: " + ", ".join(f"{n:,} from {s}" for s, n in sorted(sources.items())))
        sources = Counter(p.heading_source for p in good if p.heading_source)
        if sources:
            rows.append("headings: " + ", ".join(f"{n:,} from {s}" for s, n in sorted(sources.items())))
        if counts["without heading"]:
            rows.append(f"{counts['without heading']:,} without a heading")
        rows += [f"unusable: {p.file}: {p.reason_unusable}" for p in bad[:SHOWN]]
        if len(bad) > SHOWN:
            rows.append(f"unusable: and {len(bad) - SHOWN:,} more")
        return "\n".join(rows)


def check_ground(
    root: Path | str, table: Path | str | None = None, *, kind: Kind | None = None, fov_deg: float | None = None,
    heading_deg: float | None = None, positions: bool = False, least_px: int = LEAST_PX, workers: int | None = None,
    progress: bool = False,
) -> Ground:  # fmt: skip
    """Looks at every picture below a folder once: decodes it, tells its kind, and gathers what is known of its view.

    Args:
        root: the folder of street pictures, subfolders included.
        table: a CSV with a file column, and fov_deg, heading_deg or both; cells may be empty, pictures may be missing.
        kind: all pictures are of this kind; told one by one if not given.
        fov_deg: horizontal field of view of the photos for which neither table nor EXIF has one.
        heading_deg: heading of the pictures for which neither table nor EXIF nor XMP has one; 0 says north-aligned.
        positions: read positions from EXIF as well. They are what is to be found, so only for an evaluation.
        least_px: the least shorter side in pixels.
        workers: threads that decode; the number of cores by default.
        progress: show a bar.

    Raises:
        InputError: the folder is absent or holds no picture, the table is damaged or names none of the pictures, or a
            setting is out of range. A picture that cannot be used is no error: it says why.
    """
    root = folder(root, "a folder of street pictures")
    if kind not in (None, "panorama", "photo"):
        raise InputError("kind", expected="'panorama', 'photo' or None", found=repr(kind), todo="Choose one.")
    if fov_deg is not None:
        check_number("fov_deg", fov_deg, unit="deg", low=0, high=180)
    if heading_deg is not None:
        heading_deg = check_number("heading_deg", heading_deg, unit="deg") % 360
    names = walk(root)[0]
    if not names:
        raise InputError(
            root, expected="street pictures", found="no image", todo="Copy JPEG, PNG, TIFF, WebP or BMP images there."
        )
    known = np.full((len(names), 2), np.nan) if table is None else _known(Path(table), names)
    looks = in_threads(lambda name: _look(root / name), names, workers, progress, "checking pictures")
    pictures = tuple(
        _picture(name, look, row, kind, fov_deg, heading_deg, least_px)
        for name, look, row in zip(names, looks, known.tolist(), strict=True)
    )
    return Ground(str(root), pictures, _positions(root, pictures) if positions else None)


def align_north(panoramas: Tensor, heading_deg: Tensor) -> Tensor:
    """Rolls panoramas (B, C, H, W) whose centre columns show headings (B,) so that north comes to the centre.

    To the nearest column, as the quarters of `augment.roll_panoramas` are; NaN leaves a panorama as it is.
    """
    width = panoramas.shape[3]
    shift = (heading_deg.nan_to_num(0.0).to(panoramas.device, torch.float64) / 360 * width).round().long()  # (B,)
    column = (torch.arange(width, device=panoramas.device)[None] - shift[:, None]) % width  # (B, W)
    return panoramas.gather(3, column[:, None, None].expand_as(panoramas))


def fov_from_35mm(focal_mm: float, width: int, height: int) -> float:
    """Horizontal field of view in degrees from the focal length in 35 mm equivalent, which compares diagonals (CIPA)."""
    return math.degrees(2 * math.atan(DIAGONAL_MM * width / math.hypot(width, height) / 2 / focal_mm))


# tables of numbers beside pictures


def read_columns(path: Path | str, names: Sequence[str]) -> tuple[list[str], dict[str, np.ndarray]]:
    """File names and columns of numbers from a CSV with a header; comma, semicolon or tab.

    Args:
        path: the table.
        names: the columns to read.

    Returns:
        the file column, and for each name that is there its values (N,) float64, NaN for an empty cell.

    Raises:
        InputError: no file column or none of the names, a wrong column count, a value that is no number, a file twice.
    """
    path = Path(path)
    (_, header), *rows = read_table(path)
    which = next((header.index(c) for c in FILE_COLUMNS if c in header), None)
    present = [name for name in names if name in header]
    if which is None or not present:
        raise InputError(
            path, expected=f"a header with a file column and {' or '.join(names)}",
            found=f"columns {', '.join(header)[:120]}", todo="Name the columns so.",
        )  # fmt: skip
    files: list[str] = []
    values: dict[str, list[float]] = {name: [] for name in present}
    seen = set()
    for number, row in rows:
        where = f"{path}:{number}"
        if row[which] in seen:
            raise InputError(where, expected="every file once", found=repr(row[which]), todo="Remove the repeated row.")
        seen.add(row[which])
        files.append(row[which].strip())
        for name in present:
            cell = row[header.index(name)].strip()
            values[name].append(numbers(where, [cell])[0] if cell else math.nan)
    return files, {name: np.array(column, np.float64) for name, column in values.items()}


def match_rows(names: Sequence[str], files: Sequence[str], where: Path) -> np.ndarray:
    """(N,) int64: the table's row of each picture, -1 for none; a table may leave out folders and endings.

    Raises:
        InputError: no picture has a row.
    """
    row = {file: i for i, file in enumerate(files)}
    leaves = [name.rpartition("/")[2] for name in names]
    keys = (
        (name, leaf, name.rpartition(".")[0], leaf.rpartition(".")[0]) for name, leaf in zip(names, leaves, strict=True)
    )
    found = np.array([next((row[k] for k in some if k in row), -1) for some in keys], np.int64)
    if (found < 0).all():
        raise InputError(
            where, expected=f"files such as {names[0]!r}", found=f"files such as {files[0]!r}" if files else "no rows",
            todo="The file column holds file names, with or without folder and ending.",
        )  # fmt: skip
    return found


def in_threads(look: Callable[[T], R], items: Iterable[T], workers: int | None, progress: bool, what: str) -> list[R]:
    """`look` at each item, in order, in threads: Pillow decodes without the interpreter's lock."""
    items = list(items)
    pool = ThreadPoolExecutor(workers or os.cpu_count())
    try:
        found: Iterator[R] = pool.map(look, items)
        return list(tqdm(found, total=len(items), desc=what, unit="image", disable=not progress))
    finally:  # after an error or Ctrl-C nothing more is begun
        pool.shutdown(cancel_futures=True)


# one picture


class _Look(NamedTuple):
    """What a file says about itself."""

    width: int
    height: int
    equirectangular: bool
    focal_mm: float | None  # 35 mm equivalent
    heading_deg: float | None
    heading_source: Source
    fault: str | None


def _look(path: Path) -> _Look:
    """Header, tags and pixels of a file; the pixels only to see that they are whole."""
    try:
        with open(path, "rb") as file, Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                return _unread(f"{width} x {height}, more than {MAX_PIXELS:,} pixels")
            tags = _tags(image)
            image.draft(
                "RGB", (max(width // 8, 1), max(height // 8, 1))
            )  # JPEG: reads all of the file but transforms an eighth
            image.load()
    except Exception as error:  # decoders raise whatever a damaged byte leads them to
        return _unread(f"no whole image ({type(error).__name__}: {error})"[:200])
    turned, *rest = tags
    return _Look(*((height, width) if turned else (width, height)), *rest, None)


def _unread(fault: str) -> _Look:
    return _Look(0, 0, False, None, None, "", fault)


def _tags(image: Image.Image) -> tuple[bool, bool, float | None, float | None, Source]:
    """Turned by a quarter, equirectangular, focal length in mm, heading in degrees and where that came from."""
    try:
        exif = image.getexif()
        turned, gps, camera = exif.get(0x0112, 1) in (5, 6, 7, 8), exif.get_ifd(0x8825), exif.get_ifd(0x8769)
    except Exception:  # damaged tags do not spoil a picture
        turned, gps, camera = False, {}, {}
    xmp = image.info.get("xmp", b"")
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    sphere = re.search(rb"ProjectionType\s*(?:=\s*[\"']|>)\s*equirectangular", xmp) is not None
    pose = re.search(rb"PoseHeadingDegrees\s*(?:=\s*[\"']|>)\s*([-+.\d]+)", xmp)
    focal = _finite(camera.get(0xA405))
    heading, source = _finite(gps.get(17)), "exif, magnetic" if gps.get(16) == "M" else "exif"
    if pose is not None and _finite(pose[1]) is not None:
        heading, source = _finite(pose[1]), "xmp"
    return turned, sphere, focal if focal else None, None if heading is None else heading % 360, source


def _finite(value: object) -> float | None:
    try:
        value = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) else None


def _picture(
    name: str, look: _Look, row: list[float], kind: Kind | None, fov_deg: float | None, heading_deg: float | None,
    least_px: int,
) -> Picture:  # fmt: skip
    """What a file, its row of the table and the caller's statements come to."""
    if look.fault is not None:
        return Picture(name, None, 0, 0, reason_unusable=look.fault)
    size = look.width, look.height
    listed, turned = (None if math.isnan(value) else value for value in row)
    kind, doubt = _kind(look, listed, kind)
    fov, fov_source = None, ""
    if kind == "panorama":
        fov, fov_source = 360.0, "format"
    elif kind == "photo":
        exif = None if look.focal_mm is None else fov_from_35mm(look.focal_mm, *size)
        ways = ((listed, "table"), (exif, "exif"), (fov_deg, "stated"))
        fov, fov_source = next(((v, s) for v, s in ways if v is not None), (None, ""))
    ways = ((turned, "table"), (look.heading_deg, look.heading_source), (heading_deg, "stated"))
    heading, source = next(((v, s) for v, s in ways if v is not None), (None, ""))
    if min(size) < least_px:
        doubt = f"{size[0]} x {size[1]} pixels, less than {least_px} across"
    elif doubt is None and fov is None:
        doubt = "a photo without a field of view: give fov_deg in the table, or fov_deg= for all"
    return Picture(name, kind, *size, fov, heading, fov_source, source, doubt)


def _kind(look: _Look, listed_fov: float | None, stated: Kind | None) -> tuple[Kind | None, str | None]:
    """Panorama or photo, and why neither; a statement counts more than the table, that more than the picture."""
    aspect = look.width / look.height
    shape = f"{look.width} x {look.height}, an aspect of {aspect:.2f}"
    if stated == "panorama" or (stated is None and (listed_fov == 360 or look.equirectangular)):
        fits = WHOLE[0] <= aspect <= STATED
        return "panorama", None if fits else f"{shape}: a panorama 360 degrees wide has 2 or more"
    if stated == "photo" or listed_fov is not None:
        if listed_fov is not None and listed_fov >= 180:
            return "photo", f"a field of view of {listed_fov:g} degrees: a photo has less than 180, a panorama 360"
        return "photo", None if 1 / STATED <= aspect <= STATED else f"{shape}: too long for a photo"
    if WHOLE[0] <= aspect <= WHOLE[1] or STRIP[0] <= aspect <= STRIP[1]:
        return "panorama", None
    if PHOTO[0] <= aspect <= PHOTO[1]:
        return "photo", None
    return None, f"{shape}: neither panorama (2, or 3.5 to 9) nor photo (0.4 to 1.96); state which with kind="


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
    row = match_rows(names, files, table)
    return np.where((row >= 0)[:, None], values[row], np.nan)


def _positions(root: Path, pictures: Sequence[Picture]) -> Positions:
    unknown = (math.nan, math.nan)
    found = [unknown if p.width == 0 else image_position(root / p.file) or unknown for p in pictures]
    return Positions(np.array(found, np.float64).reshape(-1, 2), Wgs84(), str(root))
