"""The guard that every data set passes once its lists are read: are the files there, and, if asked, can they be read."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ucvgl.data.cache import made_once
from ucvgl.data.container import Dataset, FileImages
from ucvgl.data.decoding import decode_file
from ucvgl.data.files import on_disk
from ucvgl.errors import InputError

SKIP = "UCVGL_SKIP_UNREADABLE"


def skip_by_default() -> bool:
    """Whether the environment asks that unreadable images be left out (`ucvgl reproduce --skip-unreadable`)."""
    return os.environ.get(SKIP, "0").lower() not in ("", "0", "false", "no")


def without_absent(data: Dataset, *, drop: bool, pairs: bool) -> Dataset:
    """The data set with its files as they lie on disk.

    Args:
        data: as its lists say.
        drop: leave absent files out, and say so in the note.
        pairs: query i and gallery image i go together.

    Raises:
        InputError: a file is absent and `drop` is false; it names the first and counts the rest. Or all are absent.
    """
    found = [on_disk(side.root, side.paths) for side in (data.query, data.gallery)]
    gone = [np.array([path is None for path in paths]) for paths in found]
    for side, absent in zip((data.query, data.gallery), gone, strict=True):
        if absent.any() and not drop:
            listed = len(gone[0]) + len(gone[1])
            raise InputError(
                side.where, expected=f"the file {side.file(int(absent.argmax()))}",
                found=f"no such file ({gone[0].sum() + gone[1].sum()} of {listed} listed files are absent)",
                todo="Copy the missing images, or read with missing='drop', which says what it left out.",
            )  # fmt: skip
    query, gallery = (
        replace(side, paths=[path or listed for path, listed in zip(paths, side.paths, strict=True)])
        for side, paths in zip((data.query, data.gallery), found, strict=True)
    )
    return _left_out(replace(data, query=query, gallery=gallery), *gone, pairs=pairs, why="absent")


def without_unreadable(data: Dataset, *, pairs: bool) -> Dataset:
    """The data set without empty, truncated and otherwise unreadable images, counted in the note; all are decoded, once."""
    return _left_out(data, *(_unreadable(side) for side in (data.query, data.gallery)), pairs=pairs, why="unreadable")


def _unreadable(images: FileImages) -> np.ndarray:
    def fails(index: int) -> bool:
        try:
            decode_file(images.file(index), (32, 32))
        except InputError:
            return True
        return False

    def look(folder: Path) -> None:
        rows = tqdm(range(len(images)), desc="looking for unreadable images", unit="image")
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside the interpreter's lock
            (folder / "rows.json").write_text(json.dumps([i for i, bad in enumerate(pool.map(fails, rows)) if bad]))

    folder = made_once("unreadable", {"images": images.digest()}, look)
    bad = np.zeros(len(images), bool)
    bad[json.loads((folder / "rows.json").read_text())] = True
    return bad


def _left_out(data: Dataset, query: np.ndarray, gallery: np.ndarray, *, pairs: bool, why: str) -> Dataset:
    """The data set without the images of two masks, and without queries that had a right image and now have none."""
    if not (query.any() or gallery.any()):
        return data
    paths = [data.query.paths[i] for i in np.flatnonzero(query)] + [
        data.gallery.paths[i] for i in np.flatnonzero(gallery)
    ]
    if pairs:
        query = gallery = query | gallery
    else:
        kept = data.positives.renumbered(np.where(gallery, -1, 0))
        query = query | ((np.diff(data.positives.offsets) > 0) & (np.diff(kept.offsets) == 0))
    if query.all() or gallery.all():
        raise InputError(f"{data.name} {data.split}", expected="images", found=f"none left, all {why}",
                         todo=f"Copy them again; the first is {paths[0]}.")  # fmt: skip
    counts = f"{query.sum()} of {len(query)} {'pairs' if pairs else 'queries'}"
    if not pairs and gallery.any():
        counts += f" and {gallery.sum()} of {len(gallery)} gallery images"
    return replace(
        data.take(np.flatnonzero(~query), np.flatnonzero(~gallery)), left_out=tuple(sorted({*data.left_out, *paths})),
        note=f"{data.note} {counts} left out, files {why}.".strip(),
    )  # fmt: skip
