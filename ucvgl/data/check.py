"""`ucvgl data check`: is a data set complete, and if not, what to do. A table of what was expected, found and missing.

An export of the embedded world is compared with the counts and sizes it was written with (`ucvgl-export.json`), everything else
with the published ones below. Those of CVACT, SUES-200, VIGOR's training and cross-area lists, and all image sizes but
CVUSA's are from general knowledge, checked against no copy: a finding about one of these alone may be the table's fault.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from ucvgl.data import NAMES, PLACE_RECOGNITION, detect_layout, open_dataset, parts
from ucvgl.data.container import Dataset, FileImages
from ucvgl.data.decoding import decode_file
from ucvgl.data.files import folder, images_below, one_of, read_marker
from ucvgl.data.frames import frame_folders
from ucvgl.data.university import DIRECTIONS, HEIGHTS
from ucvgl.errors import InputError
from ucvgl.positions import distances

PUBLISHED = {  # queries, gallery images; None: unknown
    "cvusa": {"train": (35_532, 35_532), "val": (8_884, 8_884)},
    "cvact": {"train": (35_532, 35_532), "val": (8_884, 8_884), "test": (92_802, 92_802)},
    "vigor": {"same-train": (52_609, 90_618), "same-test": (52_605, 90_618),
              "cross-train": (51_520, None), "cross-test": (53_694, None)},
    "university1652": {"test drone2satellite": (37_855, 951), "test satellite2drone": (701, 51_355)},
    "sues200": {f"{part} {height} m {direction}": counts for height in HEIGHTS for part, direction, counts in (
        ("train", "drone2satellite", (6_000, 120)), ("test", "drone2satellite", (4_000, 200)),
        ("test", "satellite2drone", (80, 10_000)))},
    "pitts30k": {"test": (6_816, 10_000)},
    "tokyo247": {"test": (315, 75_984)},
}  # fmt: skip
SIZES = {  # height, width of queries and gallery images
    "cvusa": ((224, 1232), (750, 750)), "cvact": ((832, 1664), (1200, 1200)), "vigor": ((1024, 2048), (640, 640)),
    "university1652": ((512, 512), (512, 512)), "sues200": ((512, 512), (512, 512)),
}  # fmt: skip
WITHOUT_POSITIONS = {
    "cvusa": "Sampling by distance needs split_locations/all.csv; everything else works without.",
    "folders": "Maps and sampling by distance need a CSV, EXIF GPS or GeoTIFF; training does not.",
}
QUICK_IMAGES = 200  # a side and split, with --quick
FAR_M = 1_000.0  # no pair lies farther apart
SIDES = ("query", "gallery")


@dataclass(frozen=True)
class Row:
    """One line of the report: what was looked at, what would be right, what there is, how many are missing or wrong."""

    item: str
    expected: str
    found: str
    missing: int = 0
    status: Literal["ok", "note", "finding", "unusable"] = "ok"  # "unusable": a part cannot be read
    todo: str = ""  # the next step


@dataclass(frozen=True)
class Report:
    """What `check` found; `quick`: only a sample of the images was decoded."""

    name: str
    root: str
    quick: bool
    rows: tuple[Row, ...]

    @property
    def exit_status(self) -> int:
        """0 complete, 1 findings, 2 not usable: no part of the data set can be read."""
        splits = [row.status for row in self.rows if row.item.startswith("split ")]
        if all(status == "unusable" for status in splits):
            return 2
        return int(any(row.status in ("finding", "unusable") for row in self.rows))

    def json(self) -> str:
        """The report for machines."""
        head = {"name": self.name, "root": self.root, "quick": self.quick, "exit_status": self.exit_status}
        return json.dumps({**head, "rows": [asdict(row) for row in self.rows]}, indent=1)

    def text(self) -> str:
        """The report for people: a table, then the next steps."""
        signs = {"ok": "ok", "note": "note", "finding": "FIND", "unusable": "FAIL"}
        table = [("", "item", "expected", "found", "missing")]
        for r in self.rows:
            expected, found = (text if len(text) <= 56 else text[:53] + "..." for text in (r.expected, r.found))
            table.append((signs[r.status], r.item, expected, found, str(r.missing or "-")))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
        steps = [f"- {r.item}: {r.found} {r.todo}" for r in self.rows if r.todo and r.status != "ok"]
        verdict = ("complete", "findings", "not usable")[self.exit_status]
        title = f"{self.name} in {self.root}: {verdict}" + " (quick: a sample of the images)" * self.quick
        return "\n".join([title, *lines, *(["", "Next steps", *steps] if steps else [])])


def check(name: str, root: Path | str, quick: bool = False, progress: bool = True) -> Report:
    """Check a data set called `name` ("auto": recognised), with a bar while images are decoded.

    `quick` decodes 200 images a side and split instead of all. A root that is absent or empty gives exit status 2.
    """
    one_of("data set", name, ("auto", *NAMES), "Choose one.")
    rows: list[Row] = []
    try:
        folder(root, "the folder of the data set")
        name = detect_layout(root) if name == "auto" else name
        rows.extend(_rows(name, Path(root), quick, progress))
    except InputError as error:
        rows.append(_unusable("files", error))
    return Report(name, str(root), quick, tuple(rows))


def _rows(name: str, root: Path, quick: bool, progress: bool) -> Iterator[Row]:
    sets: dict[str, Dataset] = {}
    splits, marker = _splits(name, root), read_marker(root)
    for label, options in splits.items():
        try:
            data = open_dataset(name, root, missing="drop", skip_unreadable=False, **options)
        except InputError as error:
            yield _unusable(f"split {label}", error)
            continue
        sets[label] = data
        yield _row(
            f"split {label}", "readable lists, every listed file", data.left_out, "absent",
            "Copy these files again; until then missing='drop' reads the rest and says so.",
            fine=f"{len(data.query):,} against {len(data.gallery):,}",
        )  # fmt: skip
        yield _counts(name, label, data, marker)
        yield from _positions(name, label, data)
        yield from _pairs(name, label, data)
    for a, b in combinations(sets, 2):  # splits that differ in nothing but their name must not share a query
        # MSLS is published without a test set of its own: the formatting script links test to val
        linked = name in PLACE_RECOGNITION and {a, b} == {"val", "test"}
        if not linked and splits[a] | {"split": ""} == splits[b] | {"split": ""}:
            shown = [set(sets[label].query.ids) for label in (a, b)]
            if "direction" in splits[a]:  # by building
                shown = [{i.partition("/")[0] for i in ids} for ids in shown]
            todo = "Testing on training images means nothing: remove them from one of the two lists."
            yield _row(f"overlap {a} / {b}", "none in both", sorted(shown[0] & shown[1]), "in both", todo)
    if name in ("cvusa", "vigor") and sets:
        yield _unlisted(root, sets)
    for side, published in zip(SIDES, SIZES.get(name, (None, None)), strict=True):
        right = marker["sizes"][side] if marker else [published] * (published is not None)
        yield from _images(side, [getattr(data, side) for data in sets.values()], right, quick, progress)


def _row(
    item: str, expected: str, bad: Sequence[str], what: str, todo: str, *, fine: str = "none", note: bool = False
) -> Row:
    """What was found is `fine` where nothing is bad, else how many are, and the first."""
    if not bad:
        return Row(item, expected, fine)
    found = f"{len(bad):,} {what}: {', '.join(bad[:5])}" + ", ..." * (len(bad) > 5)
    return Row(item, expected, found, len(bad), "note" if note else "finding", todo)


def _unusable(item: str, error: InputError) -> Row:
    return Row(item, f"{error.where}: {error.expected}", error.found, 1, "unusable", error.todo)


def _splits(name: str, root: Path) -> dict[str, dict[str, Any]]:
    """By the label of each split, what `open_dataset` is given."""
    both = ("train", DIRECTIONS[0]), *(("test", direction) for direction in DIRECTIONS)
    match name:
        case "vigor":
            return {f"{a}-{s}": {"split": s, "area": a} for a in ("same", "cross") for s in ("train", "test")}
        case "university1652":
            return {s if s == "train" else f"{s} {d}": {"split": s, "direction": d} for s, d in both}
        case "sues200":
            there = [h for h in HEIGHTS if any((root / part / str(h)).is_dir() for part in ("Training", "Testing"))]
            return {
                f"{s} {h} m {d}": {"split": s, "height_m": h, "direction": d} for h in there or HEIGHTS for s, d in both
            }
        case "cvusa":
            splits = ("train", "val")  # a missing list is a finding
        case _ if name == "cvact" or (name in PLACE_RECOGNITION and not frame_folders(root)):
            splits = parts(name, root)
        case _:
            splits = ("all",)
    return {split: {"split": split} for split in splits}


def _counts(name: str, label: str, data: Dataset, marker: dict | None) -> Row:
    found = len(data.query), len(data.gallery)
    shown = f"{found[0]:,} queries, {found[1]:,} gallery"
    source, counts = ("published", PUBLISHED.get(name, {})) if marker is None else ("exported", marker["counts"])
    if label not in counts:
        return Row(f"counts {label}", "no published count is known here", shown, status="note")
    right = {what: n for what, n in zip(("queries", "gallery"), counts[label], strict=True) if n is not None}
    wanted = ", ".join(f"{n:,} {what}" for what, n in right.items()) + f" ({source})"
    missing = max(abs(n - f) for n, f in zip(counts[label], found, strict=True) if n is not None)
    todo = "Results will not compare with the paper's; get the whole data set, or say that this is a part of it."
    if marker is not None:
        todo = "Files or list rows were lost (or added) since the export; export again."
    return Row(f"counts {label}", wanted, shown, missing, "finding" if missing else "ok", todo if missing else "")


def _positions(name: str, label: str, data: Dataset) -> Iterator[Row]:
    for side in SIDES:
        item, at = f"positions {label} {side}", getattr(data, side).positions
        if at is not None:
            low, high = np.nanmin(at.values, axis=0), np.nanmax(at.values, axis=0)
            fine = f"{low[0]:.4f}..{high[0]:.4f}, {low[1]:.4f}..{high[1]:.4f}"
            unknown = [getattr(data, side).ids[i] for i in np.flatnonzero(~at.known)]
            todo = "Give the rest, or leave it."
            yield _row(item, "a position an image", unknown, "unknown", todo, fine=fine, note=True)
        elif side == "query" and name in WITHOUT_POSITIONS:
            yield Row(item, "optional", "none", status="note", todo=WITHOUT_POSITIONS[name])


def _pairs(name: str, label: str, data: Dataset) -> Iterator[Row]:
    pairs = data.positives.pairs().numpy()
    if not len(pairs):
        return
    query, gallery = data.query.positions, data.gallery.positions
    if query is not None and gallery is not None and query.frame == gallery.frame:
        away = distances(query.take(pairs[:, 0]), gallery.take(pairs[:, 1]))
        far = [data.query.ids[i] for i in pairs[away > FAR_M, 0]]
        todo = "The position of one of the two is wrong (rows shifted, or another release's list)."
        fine = f"at most {np.nanmax(away, initial=0):.0f} m"
        yield _row(f"pairs {label}", f"within {FAR_M / 1000:g} km of each other", far, "further", todo, fine=fine)
    used = np.isin(np.arange(len(data.gallery)), data.positives.gallery)
    if data.semi_positives is not None:
        used[data.semi_positives.gallery] = True
    unused = [data.gallery.ids[i] for i in np.flatnonzero(~used)]
    paired = name in ("cvusa", "cvact")
    expected = "each used by a query" if paired else "unused ones are distractors here"
    todo = "This layout has a tile for each panorama; the list is damaged." if paired else ""
    yield _row(f"tiles {label}", expected, unused, "unused", todo, fine="all used", note=not paired)


def _unlisted(root: Path, sets: dict[str, Dataset]) -> Row:
    """Tiles in the folders that no list names."""
    listed = {path for data in sets.values() for path in (*data.gallery.paths, *data.left_out)}
    bases = sorted({path.rpartition("/")[0] for data in sets.values() for path in data.gallery.paths})
    held = {f"{base}/{image}" for base in bases for image in images_below(root / base)}
    todo = "Harmless; if they should be used, the lists are not those of this release."
    return _row("tile folders", "only listed tiles", sorted(held - listed), "unlisted", todo, note=True)


def _images(
    side: str, sets: list[FileImages], right: Sequence[tuple[int, int]], quick: bool, progress: bool
) -> Iterator[Row]:
    """Every image of a side decoded once, in parallel; unreadable ones and wrong sizes."""
    files: dict[str, None] = {}
    for images in sets:
        count = min(QUICK_IMAGES, len(images)) if quick else len(images)
        files.update((images.file(int(i)), None) for i in np.linspace(0, len(images) - 1, count).astype(int))
    if not files:
        return
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside the interpreter's lock
        bar = tqdm(pool.map(_size, files), f"decoding {side}", len(files), unit="image", disable=not progress)
        found = dict(zip(files, bar, strict=True))
    broken = [f"{path} ({error.found})" for path, error in found.items() if isinstance(error, InputError)]
    expected, todo = f"{len(files):,} readable", "Copy these files again."
    yield _row(f"images {side}", expected, broken, "unreadable", todo, fine="all decoded")
    sizes = {path: f"{size[1]} x {size[0]}" for path, size in found.items() if not isinstance(size, InputError)}
    allowed = [f"{w} x {h}" for h, w in sorted(right)]
    wrong = [f"{path} is {size}" for path, size in sizes.items() if allowed and size not in allowed]
    fine = ", ".join(f"{size}: {count:,}" for size, count in Counter(sizes.values()).most_common(5))
    expected, todo = " or ".join(allowed) or "no size is prescribed", "Resized or cropped copies change results."
    yield _row(f"sizes {side}", expected, wrong, "of another size", todo, fine=fine)


def _size(path: str) -> tuple[int, int] | InputError:
    try:
        return tuple(decode_file(path).shape[1:])
    except InputError as error:
        return error
