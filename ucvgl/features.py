"""Embeddings on disk, for sets larger than memory: one .npy file of float32 or float16 (N, D), written as it comes.

A file is written under another name and renamed when whole, so that a full disk, an error or Ctrl-C leaves no half-written
one behind. It is read through a memory map: search and its measures stream over it (see search). Nothing is pickled, and any
program that knows .npy reads it.
"""

import errno
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO, FileIO
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from ucvgl.errors import InputError
from ucvgl.search import check_rows

DTYPES = {torch.float32: np.dtype("<f4"), torch.float16: np.dtype("<f2")}
JOIN_BYTES = 64 << 20  # copied at a time when shards are joined
ANEW = "Embed the images again."


def write_features(
    path: Path, batches: Iterable[Tensor], *, rows: int | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Writes batches of embeddings, one after the other, and gives them back as `read_features` does.

    Args:
        path: the .npy file; what was there stays until the new one is whole.
        batches: (b, D) each, on any device, in any floating point dtype; an empty one is passed over.
        rows: how many there will be, if that is known: a disk too small is then told after the first batch.
        dtype: torch.float32, or torch.float16 for half the space; cosines then change by less than 1e-3.

    Returns:
        (N, D), read-only.

    Raises:
        InputError: no rows or another number of them, batches of different width, NaN, infinity or a row of zeros (also
            where only float16 makes them so), another dtype, a full disk. Nothing is left behind then.
    """
    if dtype not in DTYPES:
        raise InputError("dtype", expected="torch.float32 or torch.float16", found=dtype, todo="Choose one of the two.")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb", buffering=0) as file:  # a buffer would try again to write what did not fit
            count, width = 0, 0
            for batch in batches:
                _check_batch(path, batch, width)
                if not width:
                    width = batch.shape[1]
                    _check_space(path, (rows or 0) * width * dtype.itemsize)
                    _append(path, file, _header(rows or 0, width, dtype), 0)
                values = batch.detach().to("cpu", dtype)
                check_rows(path, values, first=count)
                left = max(len(values), (rows or 0) - count) * width * dtype.itemsize
                count += len(values)
                _append(path, file, values.numpy().astype(DTYPES[dtype], copy=False).tobytes(), left)
            if not count or (rows is not None and count != rows):
                expected = "embeddings" if rows is None else f"{rows} embeddings"
                raise InputError(path, expected=expected, found=count or "none", todo="Check what was embedded.")
            file.seek(0)
            # numpy leaves room in a header for any number of rows; some file systems tell only at last that they are full
            _append(path, file, _header(count, width, dtype), count * width * dtype.itemsize, through=True)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return read_features(path)


def read_features(path: Path, *, rows: int | None = None, width: int | None = None) -> Tensor:
    """The embeddings in a file, without reading them: a CPU tensor over a read-only memory map.

    Writing into it would end the process; `clone()` makes it an ordinary tensor.

    Args:
        path: an .npy file of float32 or float16 (N, D).
        rows: how many there must be, if known.
        width: the D that it must have, if known.

    Returns:
        (N, D) in the file's dtype.

    Raises:
        InputError: no file, a truncated or damaged one, another dtype or shape, no rows.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            npy.read_magic(file)
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        spare = path.stat().st_size - values.offset - values.nbytes
    except FileNotFoundError:
        raise InputError(path, expected="a file of embeddings", found="no file", todo=ANEW) from None
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise InputError(path, expected="a whole .npy file of embeddings", found=error, todo=ANEW) from None
    dtypes = " or ".join(map(str, DTYPES.values()))
    if values.ndim != 2 or values.dtype not in DTYPES.values() or not values.flags.c_contiguous or spare:
        found = f"{values.dtype} {values.shape}" + (f" and {spare} bytes more" if spare else "")
        raise InputError(path, expected=f"{dtypes} (N, D) row by row", found=found, todo=ANEW)
    for name, wanted, there in (("rows", rows, len(values)), ("width", width, values.shape[1])):
        if wanted is not None and wanted != there:
            raise InputError(f"{path}, {name}", expected=str(wanted), found=there, todo=f"Take the right file. {ANEW}")
    if not len(values):
        raise InputError(path, expected="embeddings", found="an empty set", todo=ANEW)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # as meant
        return torch.from_numpy(values)


def join_features(path: Path, shards: Sequence[Path]) -> Tensor:
    """Writes the shards of one set, in their order, as one file, and gives it back as `read_features` does.

    Args:
        path: the new file.
        shards: files of one width and dtype, as the processes of an evaluation write them.

    Returns:
        (N, D), N the sum over the shards.

    Raises:
        InputError: no shard, an empty one, different widths or dtypes, or as `read_features` and `write_features`.
    """
    parts = [read_features(shard) for shard in shards]
    if not parts:
        raise InputError(path, expected="at least one shard", found="none", todo="Name the shards' files.")
    for shard, part in zip(shards, parts, strict=True):
        if part.dtype != parts[0].dtype or part.shape[1] != parts[0].shape[1]:
            raise InputError(
                shard, expected=f"{parts[0].dtype} of width {parts[0].shape[1]}, as the first shard",
                found=f"{part.dtype} of width {part.shape[1]}", todo="Embed all shards with one model and dtype.",
            )  # fmt: skip
    step = max(1, JOIN_BYTES // (parts[0].element_size() * max(1, parts[0].shape[1])))
    slices: Iterator[Tensor] = (part[i : i + step] for part in parts for i in range(0, len(part), step))
    return write_features(path, slices, rows=sum(map(len, parts)), dtype=parts[0].dtype)


def _check_batch(path: Path, batch: Tensor, width: int | None) -> None:
    if (
        batch.ndim != 2
        or not batch.is_floating_point()
        or not batch.shape[1]
        or batch.shape[1] != (width or batch.shape[1])
    ):
        raise InputError(
            path, expected=f"batches of floating point numbers (b, {width or 'D'})",
            found=f"{batch.dtype} {tuple(batch.shape)}", todo="Embed all images with one model.",
        )  # fmt: skip


def _check_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise _full(path, needed, free)


def _full(path: Path, needed: int, free: int) -> InputError:
    return InputError(
        path, expected=f"{needed:,} bytes of free space", found=f"a full disk: {free:,} bytes free",
        todo="Make room, write elsewhere, or store float16, which takes half.",
    )  # fmt: skip


def _header(rows: int, width: int, dtype: torch.dtype) -> bytes:
    file = BytesIO()
    header = {"descr": npy.dtype_to_descr(DTYPES[dtype]), "fortran_order": False, "shape": (rows, width)}
    npy.write_array_header_1_0(file, header)
    return file.getvalue()


def _append(path: Path, file: FileIO, data: bytes, needed: int, *, through: bool = False) -> None:
    """Writes, if `through` to the disk itself; `needed`: bytes with what is to come."""
    left = memoryview(data)
    try:
        while left:
            left = left[file.write(left) :]
        if through:
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _full(path, needed or len(data), shutil.disk_usage(path.parent).free) from error
        raise
