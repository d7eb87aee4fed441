"""The guard that every data set passes once its lists are read: are the files there, and, if asked, can they be read."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ucvgl.data.cache import made_once
from ucvgl.data.container import Dataset, FileImages
from ucvgl.data.files import on_disk
from ucvgl.errors import InputError

SKIP = "UCVGL_SKIP_UNREADABLE"


def guarded(data: Dataset, *, drop: bool, pairs: bool, skip: bool | None = None) -> Dataset:
    """The data set with its files as they lie on disk; the note tells what was passed over and left out.

    Args:
        data: as its lists say.
        drop: leave absent files out.
        pairs: query i and gallery image i go together.
        skip: leave out empty, truncated and otherwise unreadable images too; all are decoded, once. By default as the
            environment says (`ucvgl reproduce --skip-unreadable`).

    Raises:
        InputError: a file is absent and `drop` is false; it names the first and counts the rest. Or all are absent.
    """
    sides = data.query, data.gallery
    note = data.note
    unanswered = int((data.positives.known & (data.positives.best().numpy() < 0)).sum())
    if unanswered:
        note += f" {unanswered} of {len(data)} queries have no right image; recall leaves them out."
    others = [*data.query.others, *data.gallery.others]
    if others:
        some = ", ".join(others[:3]) + ", ..." * (len(others) > 3)
        note += f" {len(others)} files passed over, of kinds that are not read: {some}."
    found = [on_disk(side.root, side.paths) for side in sides]
    gone = [np.array([path is None for path in paths]) for paths in found]
    for side, absent in zip(sides, gone, strict=True):
        if absent.any() and not drop:
            listed = len(gone[0]) + len(gone[1])
            raise InputError(
                side.where, expected=f"the file {side.file(int(absent.argmax()))}",
                found=f"no such file ({gone[0].sum() + gone[1].sum()} of {listed} listed files are absent)",
                todo="Copy the missing images, or read with missing='drop', which says what it left out.",
            )  # fmt: skip
    query, gallery = (
        replace(side, paths=[path or listed for path, listed in zip(paths, side.paths, strict=True)])
        for side, paths in zip(sides, found, strict=True)
    )
    data = _left_out(replace(data, query=query, gallery=gallery, note=note), *gone, pairs=pairs, why="absent")
    if skip is None:
        skip = os.environ.get("UCVGL_SKIP_UNREADABLE", "0").lower() not in ("", "0", "false", "no")
    if skip:
        return _left_out(data, _unreadable(data.query), _unreadable(data.gallery), pairs=pairs, why="unreadable")
    return data


def _unreadable(images: FileImages) -> np.ndarray:
    def fails(index: int) -> bool:
        try:
            images.read(index, (32, 32))
        except InputError:
            return True
        return False

    def look(folder: Path) -> None:
        rows = tqdm(range(len(images)), desc="looking for unreadable images", unit="image")
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside the interpreter's lock
            np.save(folder / "bad.npy", np.fromiter(pool.map(fails, rows), bool))

    return np.load(made_once("unreadable", {"images": images.digest()}, look) / "bad.npy")


def _left_out(data: Dataset, query: np.ndarray, gallery: np.ndarray, *, pairs: bool, why: str) -> Dataset:
    """The data set without the images of two masks, and without queries that had a right image and now have none."""
    if not (query.any() or gallery.any()):
        return data
    sides = (data.query, query), (data.gallery, gallery)
    paths = [images.paths[i] for images, mask in sides for i in np.flatnonzero(mask)]
    if pairs:
        query = gallery = query | gallery
    else:
        kept = data.positives.renumbered(np.where(gallery, -1, 0))
        query = query | ((data.positives.best() >= 0) & (kept.best() < 0)).numpy()
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
