"""Reading folders and text lists so that every fault is named with its file and line. Nothing read here is ever executed."""

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np

from ucvgl.errors import InputError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp")
_LIST_LIMIT_BYTES = 1 << 30


def folder(path: Path | str, what: str) -> Path:
    """An existing folder.

    Raises:
        InputError: it is absent or no folder.
    """
    path = Path(path)
    try:
        found = path.is_dir()
    except (OSError, ValueError) as error:
        raise InputError(path, expected=what, found=str(error), todo="Give the folder of the data set.") from error
    if not found:
        nearest = next((p for p in path.parents if p.is_dir()), None)
        inside = _first_names(nearest) if nearest else ""
        raise InputError(
            path,
            expected=what,
            found=f"no such folder ({nearest} holds: {inside or 'nothing'})",
            todo="Give the folder that holds it, or unpack the data set there.",
        )
    return path


def _first_names(path: Path) -> str:
    return ", ".join(sorted(ascii(p.name)[1:-1] for p in path.iterdir())[:8])


def lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text list that hold something, with their numbers from 1; the final newline is optional.

    Raises:
        InputError: the file is absent, empty, or not UTF-8 text.
    """
    try:
        raw = _bytes(path)
    except FileNotFoundError as error:
        nearest = path.parent if path.parent.is_dir() else None
        held = _first_names(nearest) if nearest else "not there either"
        raise InputError(
            path,
            expected="this list of the data set",
            found=f"no such file (its folder holds: {held or 'nothing'})",
            todo="Unpack the data set's lists there, or give another folder.",
        ) from error
    rows = []
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            text = line.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}:{number}", expected="UTF-8 text", found=repr(line[:40]), todo="Save the list as UTF-8."
            ) from error
        if any(unicodedata.category(c) == "Cc" and c != "\t" for c in text):
            raise InputError(
                f"{path}:{number}", expected="text", found=repr(text[:40]), todo="The file is damaged: copy it again."
            )
        if text:
            rows.append((number, text))
    if not rows:
        raise InputError(path, expected="at least one line", found="an empty list", todo="Copy the list again.")
    return rows


def _bytes(path: Path) -> bytes:
    try:
        if path.is_file() and path.stat().st_size > _LIST_LIMIT_BYTES:
            raise InputError(path, expected="a list of at most 1 GiB", found="a larger file", todo="Is this the list?")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(
            path, expected="a readable file", found=str(error), todo="Check the path and its permissions."
        ) from error


def columns(path: Path, separator: str | None, counts: Iterable[int]) -> list[tuple[int, list[str]]]:
    """The lines of a list split into columns, with their numbers.

    Args:
        path: the list.
        separator: None splits at blanks.
        counts: the column counts that are right.
    """
    counts = tuple(counts)
    table = []
    for number, text in lines(path):
        cells = [cell.strip() for cell in text.split(separator)]
        if len(cells) not in counts or not all(cells):
            raise InputError(
                f"{path}:{number}",
                expected=f"{' or '.join(map(str, counts))} columns, none empty",
                found=f"{len(cells)}: {text[:80]!r}",
                todo="Compare the line with the data set's own list.",
            )
        table.append((number, cells))
    return table


def numbers(where: object, cells: Iterable[str]) -> list[float]:
    """Finite numbers from text cells."""
    values = []
    for cell in cells:
        try:
            value = float(cell)
        except ValueError:
            value = float("nan")
        if not np.isfinite(value):
            raise InputError(where, expected="a finite number", found=repr(cell[:40]), todo="Correct the number.")
        values.append(value)
    return values


def inside(name: str, where: object) -> str:
    """A relative path that stays in the data set's folder.

    Raises:
        InputError: it is absolute or climbs out; a list must not be able to read other files.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0][:3]:
        raise InputError(
            where,
            expected="a path inside the data set's folder",
            found=repr(name),
            todo="Use paths relative to that folder.",
        )
    return str(path)


def absent(root: Path, names: Iterable[str]) -> set[str]:
    """Those of the relative paths `names` that are no files below `root`; each folder is listed once, not a look-up a file."""
    held: dict[str, set[str]] = {}
    gone = set()
    for name in names:
        parent, _, leaf = name.rpartition("/")
        if parent not in held:
            try:
                with os.scandir(root / parent) as entries:
                    held[parent] = {e.name for e in entries if e.is_file()}
            except (OSError, ValueError):
                held[parent] = set()
        if leaf not in held[parent]:
            gone.add(name)
    return gone


def require(root: Path, named: Iterable[tuple[object, str]], drop: bool) -> set[str]:
    """Check that the files a list names are there.

    Args:
        root: the folder the paths count from.
        named: (where, relative path) pairs.
        drop: return the absent ones instead of raising; the caller says in its note how many it left out.

    Raises:
        InputError: a file is absent and `drop` is false; it names the first and counts the rest.
    """
    named = list(named)
    gone = absent(root, (name for _, name in named))
    if gone and not drop:
        where, name = next((w, n) for w, n in named if n in gone)
        raise InputError(
            where,
            expected=f"the file {root / name}",
            found=f"no such file ({len(gone)} of {len(named)} listed files are absent)",
            todo="Copy the missing images, or read with missing='drop', which says what it left out.",
        )
    return gone


def images_below(root: Path, endings: tuple[str, ...] = IMAGE_ENDINGS) -> list[str]:
    """The image files below `root`, in subfolders too, as sorted relative paths.

    Raises:
        InputError: a name is not UTF-8.
    """
    found = []
    for parent, folders, names in os.walk(root):
        folders.sort()
        below = Path(parent).relative_to(root).as_posix()
        found += [utf8(f"{below}/{n}".removeprefix("./"), root) for n in names if n.lower().endswith(endings)]
    return sorted(found)


def folders_in(root: Path) -> list[str]:
    """The names of the folders in `root`, sorted."""
    with os.scandir(root) as entries:
        return sorted(utf8(e.name, root) for e in entries if e.is_dir())


def utf8(name: str, where: object) -> str:
    """A file name that is valid UTF-8 (elsewhere Python keeps undecodable bytes as lone surrogates)."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            where,
            expected="file names in UTF-8",
            found=ascii(name),
            todo="Rename the file; it was made under another encoding.",
        ) from error
    return name
