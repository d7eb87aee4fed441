"""Readers of the published data sets' layouts and of own folders: one entry point, `open_dataset`, and one container, `Dataset`."""

import os
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ucvgl.data.container import ArrayImages, Dataset, FileImages, ImageSet, Positives
from ucvgl.data.cvact import read_cvact
from ucvgl.data.cvusa import read_cvusa
from ucvgl.data.decoding import batches, decode_all, decode_file
from ucvgl.data.files import folder, on_disk, one_of, read_position_table
from ucvgl.data.folders import read_folders, read_pairs
from ucvgl.data.place_recognition import SPLITS, frame_folders, read_frames, read_place_recognition
from ucvgl.data.prepare import made_once
from ucvgl.data.university import DIRECTIONS, HEIGHTS, read_sues200, read_university1652
from ucvgl.data.vigor import CITIES, read_vigor
from ucvgl.errors import InputError

PLACE_RECOGNITION = ("pitts30k", "pitts250k", "msls", "tokyo247", "nordland", "stlucia", "svox", "eynsham", "vpr")
FRAMES = ("corridor", "gardens_point", "sped", "essex3in1", "frames")
READERS = {
    "cvusa": read_cvusa, "cvact": read_cvact, "vigor": read_vigor, "university1652": read_university1652,
    "sues200": read_sues200, **dict.fromkeys(PLACE_RECOGNITION, read_place_recognition),
    **dict.fromkeys(FRAMES, read_frames), "folders": read_folders, "pairs": read_pairs,
}  # fmt: skip
NAMES = tuple(READERS)
PARTS = {  # of layouts whose splits may be there or not: what is there if a split is
    "cvusa": {"train": "splits/train-19zl.csv", "val": "splits/val-19zl.csv"},
    "cvact": {"train": "ANU_data_small", "val": "ANU_data_small", "test": "ANU_data_test"},
    "university1652": {"train": "train", "test": "test"}, "sues200": {"train": "Training", "test": "Testing"},
    "vpr": dict(zip(SPLITS, SPLITS, strict=True)), "folders": {"train": ""}, "pairs": {"train": "", "val": "", "test": ""},
}  # fmt: skip

__all__ = [
    "FRAMES", "NAMES", "PLACE_RECOGNITION", "ArrayImages", "Dataset", "FileImages", "ImageSet", "Positives", "batches",
    "decode_file", "detect_layout", "open_dataset", "parts", "read_position_table", "splits_of",
]  # fmt: skip


def open_dataset(
    name: str, root: Path | str, split: str | None = None, *, missing: Literal["error", "drop"] | None = None,
    skip_unreadable: bool | None = None, **options: Any,
) -> Dataset:  # fmt: skip
    """A data set by its name, one of `NAMES` or "auto" (by the layout of `root`), its files looked for before anything runs.

    `split` and `options` are the reader's. `missing` files, listed but absent, raise ("error") or are left out ("drop"; default
    with `skip_unreadable` and for CVACT, whose published archives lack a few). `skip_unreadable` (default: UCVGL_SKIP_UNREADABLE)
    leaves out images that cannot be decoded, else an error when they are read. The note tells what was left out.
    """
    name = detect_layout(root) if name == "auto" else name
    one_of("data set", name, NAMES, "Choose one, or 'auto'.")
    reader = read_frames if name == "nordland" and not _benchmark(Path(root)) else READERS[name]
    if name in PLACE_RECOGNITION or name in FRAMES:
        options["name"] = name
    data = reader(root, **({} if split is None else {"split": split}), **options)
    note, unanswered = data.note, int((data.positives.known & (data.positives.best().numpy() < 0)).sum())
    if unanswered:
        note += f" {unanswered} of {len(data)} queries have no right image; recall leaves them out."
    others = [*data.query.others, *data.gallery.others]
    if others:
        note += f" {len(others)} files passed over, of kinds that are not read: {', '.join(others[:3])}."
    (query, gone), (gallery, gone_too) = on_disk(data.query), on_disk(data.gallery)
    absent = [*compress(query.paths, gone), *compress(gallery.paths, gone_too)]
    if skip_unreadable is None:
        skip_unreadable = os.environ.get("UCVGL_SKIP_UNREADABLE", "0").lower() not in ("", "0", "false", "no")
    missing = missing or ("drop" if skip_unreadable or name == "cvact" else "error")
    if absent and missing == "error":
        count = f"{len(absent)} of {len(query) + len(gallery)} listed files are absent"
        raise InputError(query.where, expected=f"the file {Path(root, absent[0])}", found=f"no such file ({count})",
                         todo="Copy the missing images, or leave them out with --skip-unreadable, which says so.")  # fmt: skip
    data = _left_out(replace(data, query=query, gallery=gallery, note=note), gone, gone_too, "absent")
    if skip_unreadable:
        return _left_out(data, _unreadable(data.query), _unreadable(data.gallery), "unreadable")
    return data


def _unreadable(images: FileImages) -> np.ndarray:
    def look(folder: Path) -> None:
        found = decode_all([images.file(i) for i in range(len(images))], "looking for unreadable images", (32, 32))
        np.save(folder / "bad.npy", [isinstance(size, InputError) for size in found])

    return np.load(made_once("unreadable", {"images": images.digest()}, look) / "bad.npy")


def _left_out(data: Dataset, query: np.ndarray, gallery: np.ndarray, why: str) -> Dataset:
    """Without the images of two masks, and queries that lose their last right image; of pairs, without both sides."""
    if not (query.any() or gallery.any()):
        return data
    pairs = data.name in ("cvusa", "cvact")
    paths = [*compress(data.query.paths, query), *compress(data.gallery.paths, gallery)]
    kept = data.positives.renumbered(np.where(gallery, -1, 0))
    query = query | (gallery if pairs else ((data.positives.best() >= 0) & (kept.best() < 0)).numpy())
    gallery = query if pairs else gallery
    if query.all() or gallery.all():
        raise InputError(f"{data.name} {data.split}", expected="images", found=f"none left, all {why}",
                         todo=f"Copy them again; the first is {paths[0]}.")  # fmt: skip
    counts = f"{query.sum()} of {len(query)} {'pairs' if pairs else 'queries'}"
    if not pairs and gallery.any():
        counts += f" and {gallery.sum()} of {len(gallery)} gallery images"
    left_out, note = tuple(sorted({*data.left_out, *paths})), f"{data.note} {counts} left out, files {why}.".strip()
    return replace(data.take(np.flatnonzero(~query), np.flatnonzero(~gallery)), left_out=left_out, note=note)


def splits_of(name: str, root: Path) -> dict[str, dict[str, Any]]:
    """Every split that `data check` looks at and an export counts: by its label, what `open_dataset` is given."""
    flights = [("train", DIRECTIONS[0]), *(("test", direction) for direction in DIRECTIONS)]
    if name == "vigor":
        return {f"{a}-{s}": {"split": s, "area": a} for s in ("train", "test") for a in ("same", "cross")}
    if name == "university1652":
        return {s if s == "train" else f"{s} {d}": {"split": s, "direction": d} for s, d in flights}
    if name == "sues200":
        heights = [h for h in HEIGHTS if [*root.glob(f"T*ing/{h}")]] or HEIGHTS
        return {f"{s} {h} m {d}": {"split": s, "height_m": h, "direction": d} for h in heights for s, d in flights}
    has_parts = name == "cvact" or (name in PLACE_RECOGNITION and not frame_folders(root))
    splits = ("train", "val") if name == "cvusa" else parts(name, root) if has_parts else ("all",)
    return {split: {"split": split} for split in splits}


def parts(name: str, root: Path | str) -> tuple[str, ...]:
    """The splits that `root` has, found without reading the lists; no "train": for measuring alone; all if none is recognised."""
    root = Path(root)
    if name in PLACE_RECOGNITION and _benchmark(root):
        name, root = "vpr", root / "images" if (root / "images").is_dir() else root
    paths = PARTS.get(name, {"train": "", "test": ""})
    return tuple(split for split, path in paths.items() if (root / path).exists()) or tuple(paths)


def _benchmark(root: Path) -> bool:
    return (root / "images").is_dir() or any((root / part / "database").is_dir() for part in SPLITS)


def detect_layout(root: Path | str) -> str:
    """The name of the layout in `root`, by the files that only it has; of place recognition's, which share one, by the folder's
    name (`msls`, `tokyo247`; else `vpr`). InputError if none is recognised."""
    root = folder(root, "the folder of a data set")
    signs = {
        "cvact": ("ACT_data.mat",), "cvusa": ("splits/train-19zl.csv", "splits/val-19zl.csv"),
        "vigor": tuple(f"splits/{city}" for city in CITIES), "sues200": ("Testing", "Training", "satellite-view"),
        "university1652": ("test/query_drone", "train/drone", "test/gallery_satellite"),
        "vpr": ("images/test", "images/val", "images/train", "test/database", "val/database", "train/database"),
        "folders": ("ground",), "pairs": ("drone", "gallery"),
    }  # fmt: skip
    for name, paths in signs.items():
        if any((root / path).exists() for path in paths):
            own = root.name.casefold()
            return own if name == "vpr" and own in PLACE_RECOGNITION else name
    pair = frame_folders(root)
    if pair is not None:
        return {"summer": "nordland", "day_right": "gardens_point"}.get(pair[1].casefold(), "frames")
    held = ", ".join(sorted(p.name for p in root.iterdir())[:8])
    raise InputError(root, expected="a layout of " + ", ".join(NAMES), found=f"a folder holding {held or 'nothing'}",
                     todo="Compare it with the trees of notebooks/DATA.md.")  # fmt: skip
