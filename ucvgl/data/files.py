"""Folders, lists and tables, read so that every fault is named with its file and line. One guard for every reader: links are
followed (without loops), hidden and generated files skipped, endings matched in any case, names compared in one Unicode form
(NFC), empty cells of a table are unknown values. Nothing read here is ever executed.
"""

import csv
import json
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import filterfalse
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ucvgl.data.container import FileImages
from ucvgl.errors import InputError
from ucvgl.errors import one_of as one_of  # for the readers
from ucvgl.positions import Metres, Positions, Wgs84

MARKER = "ucvgl-export.json"  # what an export of ours says of itself
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp")
# what lies beside images and is no image: tables, notes, world files
_SIDE_ENDINGS = (
    ".csv", ".tsv", ".txt", ".json", ".geojson", ".xml", ".md", ".html", ".pdf", ".kml", ".gpx", ".db", ".ini", ".log", ".py",
    ".mat", ".npy", ".npz", ".zip", ".tfw", ".jgw", ".pgw", ".bpw", ".wld", ".tfwx", ".prj", ".ovr", ".aux", ".sha256", ".md5",
)  # fmt: skip
# what systems leave behind (and everything whose name begins with a dot: ._name, .ipynb_checkpoints, .DS_Store)
_GENERATED = {
    "__macosx", "@eadir", "#recycle", "#snapshot", "$recycle.bin", "system volume information", "lost+found", "thumbs",
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__pycache__",
}  # fmt: skip
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # how Python keeps bytes of a file name that are none
_ID = (
    "id", "file", "filename", "file_name", "name", "image", "picture", "path", "key", "grd_id", "sat_id", "panorama_file_name",
)  # fmt: skip
_DEGREES = ("lat", "latitude", "y_lat"), ("lon", "lng", "long", "longitude", "x_lon")
_METRES = ("east", "easting", "utm_east", "utm_easting", "x"), ("north", "northing", "utm_north", "utm_northing", "y")


def folder(path: Path | str, what: str) -> Path:
    """An existing folder; InputError says which folder above it exists, and what that holds."""
    path = Path(path)
    if not path.is_dir():
        raise InputError(path, expected=what, found=f"no such folder ({_nearby(path)})",
                         todo="Give the folder that holds it, or unpack the data set there.")  # fmt: skip
    return path


def _nearby(path: Path) -> str:
    """The nearest folder above that exists, and what it holds."""
    nearest = next((p for p in path.parents if p.is_dir()), Path())
    return f"{nearest} holds: " + (", ".join(sorted(ascii(p.name)[1:-1] for p in nearest.iterdir())[:8]) or "nothing")


def _is_generated(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _GENERATED


def nfc(name: str) -> str:
    """The name in the Unicode form that ids have: a Mac writes e and an accent where others write one letter."""
    return unicodedata.normalize("NFC", name)


def walk(root: Path) -> tuple[list[str], list[str]]:
    """Images below `root`, and files of kinds that are not read; sorted relative paths. InputError: a name is not UTF-8, a
    folder cannot be read."""
    images, others = [], []

    def refuse(error: OSError) -> None:
        raise InputError(error.filename, expected="a readable folder", found=error, todo="Remove it.") from error

    for base, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        for name in filter(_NOT_UTF8.search, folders + names):
            raise InputError(base, expected="file names in UTF-8", found=ascii(name),
                             todo="Rename the file; it was made under another encoding.")  # fmt: skip
        here, below = Path(base).resolve(), Path(base).relative_to(root).as_posix()
        # not the hidden ones, nor a link back to a folder above
        folders[:] = [f for f in folders if not (_is_generated(f) or here.is_relative_to(Path(base, f).resolve()))]
        for name in filterfalse(_is_generated, names):
            ending = PurePosixPath(name).suffix.lower()
            if ending not in _SIDE_ENDINGS:
                (images if ending in IMAGE_ENDINGS else others).append(f"{below}/{name}".removeprefix("./"))
    return sorted(images, key=nfc), sorted(others, key=nfc)


def image_folder(root: Path, below: str, what: str) -> FileImages:
    """The images below `root`/`below`; ids are their paths there. InputError: no such folder, or nothing in it."""
    path = folder(root / below, f"a folder of {what}")
    names, others = walk(path)
    if not names:
        raise InputError(path, expected=f"images ({what})", found=", ".join(["none", *others[:3]]),
                         todo="Copy JPEG, PNG, TIFF or WebP images there.")  # fmt: skip
    start = f"{below}/" * bool(below)
    paths, others = ([start + name for name in some] for some in (names, others))
    return FileImages(str(root), map(nfc, names), paths, None, str(path), tuple(others))


def folders_in(root: Path) -> list[str]:
    """The names of the folders in `root`, sorted."""
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not _is_generated(path.name))


def inside(name: str, where: object) -> str:
    """A relative path that stays in the data set's folder; a list must not be able to read other files."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or not path.parts or ".." in path.parts or ":" in path.parts[0][:3]:
        raise InputError(where, expected="a path inside the data set's folder", found=repr(name),
                         todo="Use paths relative to that folder.")  # fmt: skip
    return str(path)


def on_disk(images: FileImages) -> tuple[FileImages, np.ndarray]:
    """Listed images with their paths as they lie on disk, in another Unicode form or letter case if need be; which are absent."""
    listed: dict[str, dict[str, str]] = {}  # folder -> its files, by name and by folded name
    paths, absent = [], []
    for name in images.paths:
        parent, slash, leaf = name.rpartition("/")
        if parent not in listed:
            held: list[str] = []
            with suppress(OSError), os.scandir(f"{images.root}{os.sep}{parent}") as entries:
                held = [entry.name for entry in entries if entry.is_file()]
            folded = {file: nfc(file).casefold() for file in held}
            alike = Counter(folded.values())  # two files that differ in case alone stand for neither
            listed[parent] = {key: file for file, key in folded.items() if alike[key] == 1} | {f: f for f in held}
        other = listed[parent].get(leaf) or listed[parent].get(nfc(leaf).casefold())
        paths.append(parent + slash + other if other else name)
        absent.append(other is None)
    return replace(images, paths=paths), np.array(absent)


def read_marker(root: Path) -> dict[str, Any] | None:
    """What an export of ours says of itself: counts, sizes, strip_offset; None where `root` is no export."""
    path = root / MARKER
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError) as error:
        raise InputError(path, expected="what an export says of itself", found=error, todo="Export again.") from error


def lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text list that hold something, numbered from 1. InputError: it is absent, empty, or not UTF-8 text."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(path, expected="this list of the data set", found=f"{error.strerror} ({_nearby(path)})",
                         todo="Unpack the data set's lists there, or give another folder.") from error  # fmt: skip
    text = nfc(raw.decode("utf-8-sig", "surrogateescape"))
    damage = re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\udc80-\udcff]", text)
    if damage:
        at = damage.start()
        where, found = f"{path}:{text.count(chr(10), 0, at) + 1}", text[at : at + 20].encode("utf-8", "surrogateescape")
        raise InputError(where, expected="UTF-8 text" if damage.group() >= "\udc80" else "text", found=found,
                         todo="Save the list as UTF-8, or copy it again: the file is damaged.")  # fmt: skip
    rows = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not rows:
        raise InputError(path, expected="at least one line", found="an empty list", todo="Copy the list again.")
    return rows


def columns(path: Path, separator: str | None, counts: Iterable[int]) -> list[tuple[str, list[str]]]:
    """The lines of a list split into columns (None: at blanks), each with where it stands; `counts` columns are right."""
    counts, table = tuple(counts), []
    for number, text in lines(path):
        cells = [cell.strip() for cell in text.split(separator)]
        if len(cells) not in counts or not all(cells):
            raise InputError(f"{path}:{number}", expected=f"{' or '.join(map(str, counts))} columns, none empty",
                             found=f"{len(cells)}: {text[:80]!r}", todo="Compare it with the published list.")  # fmt: skip
        table.append((f"{path}:{number}", cells))
    return table


def numbers(where: object, cells: Iterable[str], *, may_be_empty: bool = False) -> list[float]:
    """Finite numbers from text cells; NaN for all of them where all are empty and may be."""
    cells = [cell.strip() for cell in cells]
    if may_be_empty and not any(cells):
        return [math.nan] * len(cells)
    for cell in cells:
        with suppress(ValueError):
            if abs(float(cell)) < 1e12:  # neither infinite nor NaN, nor so large that its square is
                continue
        raise InputError(where, expected="a finite number", found=repr(cell[:40]), todo="Correct the number.")
    return [float(cell) for cell in cells]


def lat_lon(where: object, cells: Iterable[str]) -> list[float]:
    """Latitude and longitude in degrees from two text cells, NaN twice where both are empty."""
    lat, lon = numbers(where, cells, may_be_empty=True)
    if abs(lat) > 90 or abs(lon) > 180:
        Positions([[lat, lon]], Wgs84(), str(where))  # raises, and says whether the two look swapped
    return [lat, lon]


def _rows_by_id(path: Path, wanted: str) -> tuple[list[str], dict[str, tuple[str, list[str]]]]:
    """The header of a CSV, in small letters, without units; its rows by id, each with where it stands; wanted: else."""
    rows = [(f"{path}:{number}", text) for number, text in lines(path)]
    separator, table = max(",;\t", key=rows[0][1].count), []
    for where, text in rows:
        try:
            (cells,) = csv.reader([text], delimiter=separator, strict=True)
        except csv.Error as error:
            raise InputError(where, expected="a CSV", found=error, todo="Check its quotes.") from error
        if table and len(cells) != len(table[0][1]):
            raise InputError(where, expected=f"{len(table[0][1])} columns", found=len(cells), todo="Complete the row.")
        table.append((where, cells))
    (_, names), *rows = table
    header = [re.sub(r"[\[(].*?[\])]", "", name).strip().lower() for name in names]
    which = next((header.index(name) for name in _ID if name in header), None)
    if which is None:
        raise _not_there(path, header, wanted)
    by_id: dict[str, tuple[str, list[str]]] = {}
    for where, cells in rows:
        name = cells[which].strip()
        if not name or name in by_id:
            raise InputError(where, expected="every file once", found=f"{name!r} again" if name else "none",
                             todo="Remove the repeated row, or name it.")  # fmt: skip
        by_id[name] = where, cells
    return header, by_id


def _not_there(path: Path, header: list[str], wanted: str) -> InputError:
    return InputError(f"{path}:1", expected=f"a header with a file column (or id) and {wanted}",
                      found=f"columns {', '.join(header)[:120]}", todo="Name the columns so.")  # fmt: skip


def read_position_table(path: Path | str) -> tuple[list[str], Positions]:
    """Ids and positions from a CSV with a header: an id or file column, and latitude and longitude, or east and north.
    InputError: no such columns, a wrong column count, a value that is no number, an id twice."""
    path, wanted = Path(path), "latitude and longitude (or east and north)"
    header, rows = _rows_by_id(path, wanted)
    lat, lon, *metres = [[header.index(name) for name in names if name in header] for names in (*_DEGREES, *_METRES)]
    is_degrees = bool(lat and lon)
    pair = (lat, lon) if is_degrees else metres
    if not all(pair):
        raise _not_there(path, header, wanted)
    cells = [(where, [row[some[0]] for some in pair]) for where, row in rows.values()]
    values = [lat_lon(*cell) if is_degrees else numbers(*cell, may_be_empty=True) for cell in cells]
    return list(rows), Positions(values, Wgs84() if is_degrees else Metres(f"the frame of {path.name}"), str(path))


def read_columns(path: Path | str, names: Sequence[str]) -> tuple[list[str], dict[str, np.ndarray]]:
    """Ids and columns of numbers from a CSV with a header: of `names` those that are there, (N,) float64, NaN for an empty cell.
    InputError: none of `names`, or as `read_position_table`."""
    path, wanted = Path(path), " or ".join(names)
    header, rows = _rows_by_id(path, wanted)
    at = {name: header.index(name) for name in names if name in header}
    if not at:
        raise _not_there(path, header, wanted)
    cells = [numbers(where, [row[i]], may_be_empty=True) for where, row in rows.values() for i in at.values()]
    return list(rows), dict(zip(at, np.reshape(cells, (len(rows), len(at))).T, strict=True))


def table_rows(names: Sequence[str], ids: Sequence[str], where: object) -> np.ndarray:
    """(N,) int64: the table's row of each file, -1 for none; a table may leave out folders and endings. InputError: no
    file has a row, or one row would stand for two files."""
    row = {identifier: i for i, identifier in enumerate(ids)}
    found, taken = np.full(len(names), -1, np.int64), {}
    for i, name in enumerate(map(nfc, names)):
        leaf = name.rpartition("/")[2]
        key = next((k for k in (name, name.rpartition(".")[0], leaf, leaf.rpartition(".")[0]) if k in row), None)
        if key in taken:
            raise InputError(where, expected="a row a file", found=f"{key!r}, which stands for {taken[key]} and {name}",
                             todo="Give the files with their folders and endings.")  # fmt: skip
        if key is not None:
            found[i], taken[key] = row[key], name
    if not taken:
        raise InputError(where, expected=f"ids such as {names[0]!r}", found=f"ids such as {ids[0]!r}" if ids else "no rows",
                         todo="The table's ids are file names, with or without folder and ending.")  # fmt: skip
    return found
