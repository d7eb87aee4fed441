"""MATLAB files of version 5 to 7 (MAT-File Format, The MathWorks), read in bounds.

Why not scipy.io.loadmat: a single changed byte can crash the whole process inside its compiled parser (seen in scipy
1.17 by the tests of damaged trees), and no exception can tell the user which file is at fault. This reader knows
numbers, characters, cells and structures, checks every length against the bytes that are there, runs nothing, and
agrees with scipy on whole files.
"""

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ucvgl.errors import InputError

_LARGEST_BYTES = 1 << 28  # of a compressed variable once unpacked; CVACT's whole file needs a few megabytes
_DEEPEST = 8
# data types of the format
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_ENCODINGS = {2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_COMPRESSED, _MATRIX = 15, 14
# array classes
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMERIC = range(6, 16)


class _Damaged(ValueError):
    """What is wrong, in a few words; becomes an InputError that names the file."""


def read_mat(path: Path | str, names: Iterable[str]) -> dict[str, object]:
    """Some variables of a MAT file.

    Args:
        path: the file.
        names: the variables wanted.

    Returns:
        name -> numbers as an array of the variable's shape; characters as a list of strings, one a row; a cell array as
        a list in column order; a 1 x 1 structure as a dictionary, larger ones as a list of dictionaries.

    Raises:
        InputError: the file is absent, damaged, of another kind or version, or lacks a variable.
    """
    names, path = list(names), Path(path)
    try:
        found, held = _variables(path.read_bytes(), set(names))
    except FileNotFoundError as error:
        raise InputError(path, expected="this MAT file", found="no such file", todo="Copy it there.") from error
    except (OSError, ValueError, struct.error, zlib.error, MemoryError) as error:
        todo = (
            "Save it with `-v7` in MATLAB."
            if "7.3" in str(error)
            else "Copy the file again; it is damaged or another kind."
        )
        raise InputError(path, expected="a MAT file of version 5 to 7", found=str(error)[:160], todo=todo) from error
    for name in names:
        if name not in found:
            raise InputError(
                path,
                expected=f"a variable {name}",
                found=f"variables {', '.join(held[:8]) or 'none'}",
                todo="Is this the data set's MAT file?",
            )
    return found


def _variables(raw: bytes, wanted: set[str]) -> tuple[dict[str, object], list[str]]:
    if len(raw) < 128:
        raise _Damaged(f"{len(raw)} bytes")
    order = {b"IM": "<", b"MI": ">"}.get(raw[126:128])
    if order is None:
        raise _Damaged("no MAT header")
    version = struct.unpack(order + "H", raw[124:126])[0]
    if version == 0x0200:
        raise _Damaged("version 7.3 (HDF5)")
    if version != 0x0100:
        raise _Damaged(f"version {version:#x}")
    found: dict[str, object] = {}
    held: list[str] = []
    place = 128
    while place < len(raw):
        kind, data, place = _element(raw, place, order)
        if kind == _COMPRESSED:
            stream = zlib.decompressobj()
            unpacked = stream.decompress(data, _LARGEST_BYTES)
            if not stream.eof:
                raise _Damaged(f"a compressed variable that is cut off or larger than {_LARGEST_BYTES >> 20} MiB")
            kind, data, _ = _element(unpacked, 0, order)
        if kind != _MATRIX:
            raise _Damaged(f"an element of type {kind} where a variable should stand")
        name, value = _matrix(data, order, wanted, 0)
        held.append(name)
        if name in wanted:
            found[name] = value
    return found, held


def _element(raw: bytes, place: int, order: str) -> tuple[int, bytes, int]:
    """The data element at `place`: its type, its bytes, and where the next one begins."""
    if place + 8 > len(raw):
        raise _Damaged("the end of the file inside an element")
    kind, length = struct.unpack(order + "II", raw[place : place + 8])
    if kind >> 16:  # a small element: length and type in one word, four bytes of data in the next
        length, kind = kind >> 16, kind & 0xFFFF
        if length > 4:
            raise _Damaged(f"a small element of {length} bytes")
        return kind, raw[place + 4 : place + 4 + length], place + 8
    end = place + 8 + length
    if end > len(raw):
        raise _Damaged(f"an element of {length} bytes, {len(raw) - place - 8} left")
    # everything but compressed variables is filled up to eight bytes
    return kind, raw[place + 8 : end], end if kind == _COMPRESSED else end + -length % 8


def _matrix(raw: bytes, order: str, wanted: set[str] | None, depth: int) -> tuple[str, object]:
    """Name and value of an array; the value is not read if the name is not wanted."""
    if depth > _DEEPEST:
        raise _Damaged("arrays nested too deeply")
    if not raw:
        return "", np.zeros((0, 0))
    _, flags, place = _element(raw, 0, order)
    if len(flags) != 8:
        raise _Damaged("array flags of a wrong length")
    kind = struct.unpack(order + "I", flags[:4])[0] & 0xFF
    shape_kind, shape_raw, place = _element(raw, place, order)
    shape = tuple(int(n) for n in _numbers(shape_kind, shape_raw, order))
    count = 1
    for n in shape:
        if n < 0:
            raise _Damaged("a negative length")
        count *= n
    _, name_raw, place = _element(raw, place, order)
    name = name_raw.decode("latin-1").rstrip("\0")
    if wanted is not None and name not in wanted:
        return name, None
    if kind in _NUMERIC:
        data_kind, data, _ = _element(raw, place, order)
        values = _numbers(data_kind, data, order)
        if values.size != count:
            raise _Damaged(f"{values.size} numbers for the shape {shape}")
        return name, values.reshape(shape, order="F")
    if kind == _CHAR:
        data_kind, data, _ = _element(raw, place, order)
        return name, _rows(data_kind, data, shape, order)
    if kind == _CELL:
        cells = []
        for _ in range(_at_most(count, raw, place)):
            cell_kind, data, place = _element(raw, place, order)
            if cell_kind != _MATRIX:
                raise _Damaged(f"an element of type {cell_kind} in a cell array")
            cells.append(_matrix(data, order, None, depth + 1)[1])
        return name, cells
    if kind == _STRUCT:
        return name, _structure(raw, place, order, count, depth)
    raise _Damaged(f"an array of class {kind}, which is not read here")


def _structure(raw: bytes, place: int, order: str, count: int, depth: int) -> object:
    _, length_raw, place = _element(raw, place, order)
    length = struct.unpack(order + "i", length_raw)[0]
    _, names_raw, place = _element(raw, place, order)
    if length < 1 or len(names_raw) % length:
        raise _Damaged("field names of a wrong length")
    fields = [
        names_raw[i : i + length].split(b"\0")[0].decode("latin-1") for i in range(0, len(names_raw), length)
    ]  # fmt: skip
    records = []
    for _ in range(_at_most(count * len(fields), raw, place) // max(len(fields), 1)):
        record = {}
        for field in fields:
            kind, data, place = _element(raw, place, order)
            if kind != _MATRIX:
                raise _Damaged(f"an element of type {kind} in a structure")
            record[field] = _matrix(data, order, None, depth + 1)[1]
        records.append(record)
    return records[0] if len(records) == 1 else records


def _at_most(count: int, raw: bytes, place: int) -> int:
    """A count of elements that the remaining bytes can hold, eight bytes each at least."""
    if count * 8 > len(raw) - place:
        raise _Damaged(f"{count} elements in {len(raw) - place} bytes")
    return count


def _numbers(kind: int, data: bytes, order: str) -> np.ndarray:
    if kind not in _NUMBERS:
        raise _Damaged(f"numbers of type {kind}")
    dtype = np.dtype(order + _NUMBERS[kind])
    if len(data) % dtype.itemsize:
        raise _Damaged("numbers that are cut off")
    return np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))


def _rows(kind: int, data: bytes, shape: tuple[int, ...], order: str) -> list[str]:
    """The strings of a character array: one a row, the array being stored column by column."""
    encoding = _ENCODINGS.get(kind)
    if encoding is None or len(shape) != 2:
        raise _Damaged(f"characters of type {kind} and shape {shape}")
    if encoding in ("utf-16", "utf-32"):
        encoding += "-le" if order == "<" else "-be"
    text = data.decode(encoding)
    if len(text) != shape[0] * shape[1]:
        raise _Damaged(f"{len(text)} characters for the shape {shape}")
    return [text[i :: shape[0]] for i in range(shape[0])] if shape[1] else [""] * min(shape[0], 1)
