"""`ucvgl data check`: is a data set complete, and if not, what to do. A table of what was expected, found and missing.

Lists, files, counts, every image decoded (or a sample), sizes, duplicate ids, overlapping splits, positions, unused
tiles. An export of an embedded world is compared with the counts it was written with (`ucvgl-export.json`), everything
else with the published ones.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from ucvgl.data import (
    FRAMES,
    NAMES,
    PLACE_RECOGNITION,
    cvact,
    cvusa,
    detect_layout,
    open_dataset,
    place_recognition,
    university,
    vigor,
)
from ucvgl.data.container import Dataset, FileImages
from ucvgl.data.decoding import decode_file
from ucvgl.data.files import folder, images_below, read_marker
from ucvgl.data.frames import frame_folders
from ucvgl.errors import InputError
from ucvgl.positions import Wgs84, distances

Status = Literal["ok", "note", "finding", "unusable"]
QUICK_IMAGES = 200  # a side and split, with --quick
_SHOWN = 5  # examples named in a row
_CONUS = ((24.0, 50.0), (-125.0, -66.0))  # where CVUSA's and VIGOR's pictures were taken


@dataclass(frozen=True)
class Row:
    """One line of the report.

    Args:
        item: what was looked at.
        expected: what would be right.
        found: what there is.
        missing: how many are missing or wrong; 0 if none.
        status: "ok", "note" (worth knowing), "finding" (to be mended) or "unusable" (a part cannot be read).
        todo: the next step, empty if there is none.
    """

    item: str
    expected: str
    found: str
    missing: int = 0
    status: Status = "ok"
    todo: str = ""


@dataclass(frozen=True)
class Report:
    """What `check` found.

    Args:
        name: the data set.
        root: its folder.
        quick: whether only a sample of the images was decoded.
        rows: one for each thing looked at.
    """

    name: str
    root: str
    quick: bool
    rows: tuple[Row, ...]

    @property
    def exit_status(self) -> int:
        """0 complete, 1 findings, 2 not usable: no part of the data set can be read."""
        parts = [row for row in self.rows if row.item.startswith("split ")]
        if not parts or all(row.status == "unusable" for row in parts):
            return 2
        return int(any(row.status in ("finding", "unusable") for row in self.rows))

    def json(self) -> str:
        """The report for machines."""
        contents = {"name": self.name, "root": self.root, "quick": self.quick, "exit_status": self.exit_status}
        return json.dumps({**contents, "rows": [asdict(row) for row in self.rows]}, indent=1)

    def text(self) -> str:
        """The report for people: a table, then the next steps."""
        head = ("", "item", "expected", "found", "missing")
        signs = {"ok": "ok", "note": "note", "finding": "FIND", "unusable": "FAIL"}
        table = [head] + [
            (signs[r.status], r.item, _short(r.expected), _short(r.found), str(r.missing or "-")) for r in self.rows
        ]
        widths = [max(len(row[i]) for row in table) for i in range(5)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
        ]
        steps = [f"- {r.item}: {r.found} {r.todo}" for r in self.rows if r.todo and r.status != "ok"]
        verdict = ("complete", "findings", "not usable")[self.exit_status]
        title = f"{self.name} in {self.root}: {verdict}" + (" (quick: a sample of the images)" if self.quick else "")
        return "\n".join([title, *lines, *(["", "Next steps", *steps] if steps else [])])


def _short(text: str, width: int = 56) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def check(
    name: str, root: Path | str, quick: bool = False, workers: int | None = None, progress: bool = True
) -> Report:
    """Check a data set.

    Args:
        name: one of `datasets.NAMES`, or "auto".
        root: its folder.
        quick: decode 200 images a side and split instead of all.
        workers: threads that decode; the number of cores by default.
        progress: show a bar while decoding.

    Raises:
        InputError: the name is unknown (a folder that is absent or empty is a report with exit status 2).
    """
    if name != "auto" and name not in NAMES:
        raise InputError("data set", expected=f"auto or one of {', '.join(NAMES)}", found=name, todo="Choose one.")
    rows: list[Row] = []
    try:
        folder(root, "the folder of the data set")
        name = detect_layout(root) if name == "auto" else name
        marker = read_marker(Path(root))
    except InputError as error:
        return Report(name, str(root), quick, (_unusable("split all", error),))
    parts: dict[str, Dataset] = {}
    for label, read in _parts(name, Path(root)):
        views = _read_part(label, read, rows)
        if views is not None:
            parts[label] = views
            rows.append(_counts(name, label, views, marker))
    for label, views in parts.items():
        rows += _positions(name, label, views)
        rows += _unused(name, label, views)
    rows += _overlaps(name, parts)
    rows += _unlisted(name, Path(root), parts)
    rows += _images(name, parts, marker, quick, workers, progress)
    return Report(name, str(root), quick, tuple(rows))


def _unusable(item: str, error: InputError) -> Row:
    return Row(item, f"{error.where}: {error.expected}", str(error.found), 1, "unusable", error.todo)


def _parts(name: str, root: Path) -> list[tuple[str, Callable[[str], Dataset]]]:
    """Every split of a data set: its label, and how to read it with or without absent files."""

    def part(split: str | None, **options: object) -> Callable[[str], Dataset]:
        return lambda missing: open_dataset(name, root, split, missing=missing, skip_unreadable=False, **options)

    match name:
        case "cvusa":
            return [(split, part(split)) for split in ("train", "val")]
        case "cvact":
            splits = ["train", "val"] + (["test"] if _has_cvact_test(root) else [])
            return [(split, part(split)) for split in splits]
        case "vigor":
            return [(f"{a}-{s}", part(s, area=a)) for a in ("same", "cross") for s in ("train", "test")]
        case "university1652":
            both = ("drone2satellite", "satellite2drone")
            return [("train", part("train"))] + [(f"test {d}", part("test", direction=d)) for d in both]
        case "sues200":
            heights = [
                h for h in university.HEIGHTS if any((root / k / str(h)).is_dir() for k in ("Training", "Testing"))
            ]
            return [
                (f"{split} {h} m {d}", part(split, height_m=h, direction=d))
                for h in heights or university.HEIGHTS
                for split, d in (("train", "drone2satellite"), ("test", "drone2satellite"), ("test", "satellite2drone"))
            ]
        case _ if name in ("folders", "pairs", *FRAMES) or (name == "nordland" and frame_folders(root)):
            return [("all", part("all"))]
    base = root / "images" if (root / "images").is_dir() else root
    splits = [s for s in ("train", "val", "test") if (base / s).is_dir()]
    return [(split, part(split)) for split in splits or ("test",)]


def _has_cvact_test(root: Path) -> bool:
    return (root / "ANU_data_test").is_dir() or not (root / "ANU_data_small").is_dir()


def _read_part(label: str, read: Callable[[str], Dataset], rows: list[Row]) -> Dataset | None:
    item = f"split {label}"
    try:
        views = read("error")
    except InputError as error:
        first = error
    else:
        rows.append(Row(item, "readable lists and files", f"{len(views.query):,} against {len(views.gallery):,}"))
        return views
    try:
        views = read("drop")
    except InputError as error:
        rows.append(_unusable(item, error))
        return None
    if not views.left_out:
        rows.append(_unusable(item, first))
        return None
    named = ", ".join(views.left_out[:_SHOWN])
    rows.append(
        Row(
            item,
            "every listed file",
            f"{len(views.left_out):,} absent: {named}",
            len(views.left_out),
            "finding",
            "Copy these files again; until then missing='drop' reads the rest and says so.",
        )
    )
    return views


def _published(name: str, label: str) -> tuple[int | None, int | None]:
    words = label.split()
    match name:
        case "cvusa":
            count = cvusa.PUBLISHED.get(label)
            return count, count
        case "cvact":
            count = cvact.PUBLISHED.get(label)
            return count, count
        case "vigor":
            area, split = label.split("-")
            return vigor.PUBLISHED[area, split], 90_618 if area == "same" else None
        case "university1652" | "sues200":
            return university.PUBLISHED.get((name, words[0], words[-1]), (None, None))
    return place_recognition.PUBLISHED.get((name, label), (None, None))


def _counts(name: str, label: str, views: Dataset, marker: dict | None) -> Row:
    found = len(views.query), len(views.gallery)
    item = f"counts {label}"
    shown = f"{found[0]:,} queries, {found[1]:,} gallery"
    if marker is not None and label in marker["counts"]:
        expected = marker["counts"][label]
        wanted = f"{expected[0]:,} queries, {expected[1]:,} gallery (exported)"
        if found == expected:
            return Row(item, wanted, shown)
        missing = max(abs(n - f) for n, f in zip(expected, found, strict=True))
        todo = "Files or list rows were lost (or added) since the export; export again."
        return Row(item, wanted, shown, missing, "finding", todo)
    expected = _published(name, label)
    if expected == (None, None):
        return Row(item, "no published count is known here", shown, status="note")
    wanted = ", ".join(f"{n:,} {side}" for n, side in zip(expected, ("query", "gallery"), strict=True) if n is not None)
    short = [max(0, n - f) for n, f in zip(expected, found, strict=True) if n is not None]
    if all(n is None or n == f for n, f in zip(expected, found, strict=True)):
        return Row(item, wanted, shown)
    todo = "Results will not compare with the paper's; get the whole data set, or say that this is a part of it."
    return Row(item, f"{wanted} (published)", shown, max(short), "finding", todo)


def _positions(name: str, label: str, views: Dataset) -> list[Row]:
    rows = []
    for side in ("query", "gallery"):
        places = getattr(views, side).positions
        item = f"positions {label} {side}"
        if places is None:
            if side == "query" and name in ("cvusa", "folders"):
                todo = {
                    "cvusa": "Sampling by distance needs split_locations/all.csv; everything else works without.",
                    "folders": "Maps and sampling by distance need a CSV, EXIF GPS or GeoTIFF; training does not.",
                }[name]
                rows.append(Row(item, "optional", "none", status="note", todo=todo))
            continue
        unknown = int((~places.known).sum())
        low, high = np.nanmin(places.values, axis=0), np.nanmax(places.values, axis=0)
        digits = ".4f" if isinstance(places.frame, Wgs84) else ".1f"
        found = f"{low[0]:{digits}}..{high[0]:{digits}}, {low[1]:{digits}}..{high[1]:{digits}}"
        if isinstance(places.frame, Wgs84) and name in ("cvusa", "vigor") and _swapped_in_conus(places.values):
            todo = "Exchange latitude and longitude."
            rows.append(
                Row(item, "latitude, longitude in the United States", f"{found}: swapped", len(places), "finding", todo)
            )
        elif unknown:
            rows.append(
                Row(item, "a position an image", f"{unknown:,} unknown", unknown, "note", "Give the rest, or leave it.")
            )
        else:
            rows.append(Row(item, "inside the world", found))
    if views.query.positions is not None and views.gallery.positions is not None:
        rows += _far_pairs(label, views)
    return rows


def _swapped_in_conus(values: np.ndarray) -> bool:
    middle = np.nanmedian(values, axis=0)

    def inside(lat: float, lon: float) -> bool:
        return _CONUS[0][0] <= lat <= _CONUS[0][1] and _CONUS[1][0] <= lon <= _CONUS[1][1]

    return not inside(*middle) and inside(middle[1], middle[0])


def _far_pairs(label: str, views: Dataset, limit_m: float = 1_000.0) -> list[Row]:
    """Pairs whose positions lie a kilometre apart: one of the two is wrong."""
    pairs = views.positives.pairs().numpy()
    query, gallery = views.query.positions, views.gallery.positions
    if len(pairs) == 0 or query is None or gallery is None or query.frame != gallery.frame:
        return []
    away = distances(query.take(pairs[:, 0]), gallery.take(pairs[:, 1]))
    far = np.flatnonzero(away > limit_m)
    item = f"pairs {label}"
    if len(far) == 0:
        return [Row(item, "within 1 km of each other", f"at most {np.nanmax(away, initial=0):.0f} m")]
    some = ", ".join(views.query.ids[i] for i in pairs[far[:_SHOWN], 0])
    todo = "The position of one of the two is wrong (rows shifted, or another release's list)."
    return [Row(item, "within 1 km of each other", f"{len(far):,} further: {some}", len(far), "finding", todo)]


def _unused(name: str, label: str, views: Dataset) -> list[Row]:
    if not views.positives.known.any():
        return []
    used = np.zeros(len(views.gallery), bool)
    used[views.positives.indices] = True
    if views.semi_positives is not None:
        used[views.semi_positives.indices] = True
    unused = np.flatnonzero(~used)
    item = f"tiles {label}"
    if len(unused) == 0:
        return [Row(item, "each used by a ground image", "all used")]
    some = ", ".join(views.gallery.ids[i] for i in unused[:_SHOWN])
    if name in ("cvusa", "cvact"):
        todo = "This layout has a tile for each panorama; the list is damaged."
        return [
            Row(item, "each used by a ground image", f"{len(unused):,} unused: {some}", len(unused), "finding", todo)
        ]
    return [Row(item, "unused ones are distractors here", f"{len(unused):,} of {len(used):,} unused", status="note")]


def _overlaps(name: str, parts: dict[str, Dataset]) -> list[Row]:
    """Ground images in two splits that must not share any."""
    rows = []
    keys = list(parts)
    for i, a in enumerate(keys):
        for b in keys[i + 1 :]:
            if not _must_be_disjoint(name, a, b):
                continue
            common = _identity(name, parts[a]) & _identity(name, parts[b])
            item = f"overlap {a} / {b}"
            if common:
                some = ", ".join(sorted(common)[:_SHOWN])
                todo = "Testing on training images means nothing: remove them from one of the two lists."
                rows.append(Row(item, "none in both", f"{len(common):,} in both: {some}", len(common), "finding", todo))
            else:
                rows.append(Row(item, "none in both", "none"))
    return rows


def _must_be_disjoint(name: str, a: str, b: str) -> bool:
    if name == "vigor":
        return a.split("-")[0] == b.split("-")[0]
    if name == "sues200":
        return a.split()[0] != b.split()[0] and a.split()[1] == b.split()[1] and "satellite2drone" not in b
    if name == "university1652":
        return a == "train" and b == "test drone2satellite"
    # MSLS is published without a test set of its own: the formatting script links test to val
    return not (name in PLACE_RECOGNITION and {a, b} == {"val", "test"})


def _identity(name: str, views: Dataset) -> set[str]:
    """What must not occur twice: the ground image, or the building."""
    if name in ("university1652", "sues200"):
        return {i.partition("/")[0] for i in views.query.ids}
    return set(views.query.ids)


def _unlisted(name: str, root: Path, parts: dict[str, Dataset]) -> list[Row]:
    """Tiles in the folders that no list names."""
    if name not in ("cvusa", "vigor") or not parts:
        return []
    listed = {path for views in parts.values() for path in views.gallery.paths}
    left_out = {path for views in parts.values() for path in views.left_out}
    folders = sorted({path.rpartition("/")[0] for path in listed})
    try:
        held = {f"{f}/{image}" for f in folders for image in images_below(root / f)}
    except InputError as error:
        return [Row("file names", error.expected, error.found, 1, "finding", error.todo)]
    extra = sorted(held - listed - left_out)
    if not extra:
        return [Row("tile folders", "only listed tiles", f"{len(held):,} tiles, all listed")]
    found = f"{len(extra):,} that no list names: {', '.join(extra[:_SHOWN])}"
    todo = "Harmless; if they should be used, the lists are not those of this release."
    return [Row("tile folders", "only listed tiles", found, status="note", todo=todo)]


def _sizes(name: str) -> dict[str, tuple[int, int]]:
    match name:
        case "cvusa":
            return cvusa.SIZES
        case "cvact":
            return cvact.SIZES
        case "vigor":
            return vigor.SIZES
        case "university1652" | "sues200":
            return university.SIZES
    return {}


def _images(
    name: str, parts: dict[str, Dataset], marker: dict | None, quick: bool, workers: int | None, progress: bool
) -> list[Row]:
    """Every image decoded once, in parallel; unreadable ones and wrong sizes."""
    files: dict[str, dict[str, None]] = {"query": {}, "gallery": {}}
    for views in parts.values():
        for side in files:
            images: FileImages = getattr(views, side)
            some: Iterable[int] = range(len(images))
            if quick and len(images) > QUICK_IMAGES:
                some = np.linspace(0, len(images) - 1, QUICK_IMAGES).astype(int)
            files[side].update((images.file(int(i)), None) for i in some)
    rows = []
    total = sum(map(len, files.values()))
    with (
        ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool,  # Pillow decodes outside the interpreter's lock
        tqdm(total=total, unit="image", desc="decoding", disable=not progress) as bar,
    ):
        for side, paths in files.items():
            if not paths:
                continue
            broken: list[InputError] = []
            sizes: Counter[tuple[int, int]] = Counter()
            odd: dict[tuple[int, int], str] = {}
            for path, outcome in zip(paths, pool.map(_probe, paths), strict=True):
                bar.update()
                if isinstance(outcome, InputError):
                    broken.append(outcome)
                else:
                    sizes[outcome] += 1
                    odd.setdefault(outcome, path)
            rows += _image_rows(name, side, len(paths), broken, sizes, odd, marker)
    return rows


def _probe(path: str) -> tuple[int, int] | InputError:
    try:
        return tuple(decode_file(path).shape[1:])
    except InputError as error:
        return error


def _image_rows(
    name: str,
    side: str,
    count: int,
    broken: list[InputError],
    sizes: Counter,
    odd: dict[tuple[int, int], str],
    marker: dict | None,
) -> list[Row]:
    rows = []
    if broken:
        some = "; ".join(f"{Path(e.where).name} ({e.found})" for e in broken[:_SHOWN])
        todo = f"Copy these files again: {', '.join(e.where for e in broken[:_SHOWN])}" + (
            "..." if len(broken) > _SHOWN else "."
        )
        rows.append(
            Row(
                f"images {side}",
                f"{count:,} readable",
                f"{len(broken):,} unreadable: {some}",
                len(broken),
                "finding",
                todo,
            )
        )
    else:
        rows.append(Row(f"images {side}", f"{count:,} readable", "all decoded"))
    expected = set(marker["sizes"][side]) if marker else {_sizes(name)[side]} if side in _sizes(name) else set()
    shown = ", ".join(f"{w} x {h}: {n:,}" for (h, w), n in sizes.most_common(_SHOWN))
    wrong = {size: n for size, n in sizes.items() if expected and size not in expected}
    wanted = " or ".join(f"{w} x {h}" for h, w in sorted(expected)) or "no size is prescribed"
    if wrong:
        example = ", ".join(f"{odd[size]} is {size[1]} x {size[0]}" for size in list(wrong)[:_SHOWN])
        todo = f"Resized or cropped copies change results: {example}."
        rows.append(Row(f"sizes {side}", wanted, shown, sum(wrong.values()), "finding", todo))
    elif sizes:
        rows.append(Row(f"sizes {side}", wanted, shown))
    return rows
