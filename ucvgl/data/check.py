"""`ucvgl data check`: is a data set complete, and if not, what to do. A table of what was expected, found and missing.
An export of the embedded world is compared with the counts and sizes it was written with (`ucvgl-export.json`), everything else
with the published ones (`published.json`). Those of CVACT, SUES-200, VIGOR's training and cross-area lists, and all image sizes but
CVUSA's are from general knowledge, checked against no copy: a finding about one of these alone may be the table's fault.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from ucvgl.data import NAMES, PLACE_RECOGNITION, detect_layout, open_dataset, splits_of
from ucvgl.data.container import Dataset
from ucvgl.data.decoding import decode_all
from ucvgl.data.files import folder, one_of, read_marker
from ucvgl.errors import InputError
from ucvgl.positions import distances

# of published sets, what the marker of an export says of itself: queries and gallery images; height and width
PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
CHECKS = {  # what is right, what else there may be, the next step
    "split": ("readable lists, every listed file", "absent", "Copy them again; --skip-unreadable goes on with the rest."),
    "counts": ("no published count is known", "not as expected", "Get the whole set; results of a part do not compare."),
    "pairs": ("within 1 km of each other", "further", "A position is wrong (rows shifted, or another release's list)."),
    "overlap": ("none in both", "in both", "Testing on training images means nothing: remove them from one of the two lists."),
    "images": ("readable", "unreadable", "Copy these files again."),
    "sizes": ("no size is prescribed", "of another size", "Resized or cropped copies change results."),
}  # fmt: skip
QUICK_IMAGES = 200  # at most, a side, with --quick
FAR_M = 1_000.0  # no pair lies farther apart


@dataclass(frozen=True)
class Row:
    """One line of the report: what was looked at, what would be right, what there is, how many are missing or wrong."""

    item: str
    expected: str
    found: str
    missing: int = 0
    status: str = "ok"  # or "finding", "unusable": a part cannot be read
    todo: str = ""  # the next step


@dataclass(frozen=True)
class Report:
    """What `check` found."""

    name: str
    root: str
    quick: bool  # only a sample of the images was decoded
    rows: tuple[Row, ...]
    exit_status: int  # 0 complete, 1 findings, 2 not usable: no part of the data set can be read

    def json(self) -> str:
        """The report for machines."""
        return json.dumps(asdict(self), indent=1)

    def text(self) -> str:
        """The report for people: a table, then the next steps."""
        verdict = ("complete", "findings", "not usable")[self.exit_status]
        lines = [f"{self.name} in {self.root}: {verdict}" + " (quick: a sample of the images)" * self.quick]
        for row in (Row("item", "expected", "found", status="status"), *self.rows):
            lines.append(f"{row.status:8}  {row.item:32}  {row.expected:.56}  |  {row.found:.56}")
        steps = [f"- {row.item}: {row.found} {row.todo}" for row in self.rows if row.todo]
        return "\n".join([*lines, *["", "Next steps"] * bool(steps), *steps])


def check(name: str, root: Path | str, quick: bool = False) -> Report:
    """Check a data set called `name` ("auto": recognised); if `quick`, at most 200 images a side are decoded."""
    one_of("data set", name, ("auto", *NAMES), "Choose one.")
    rows: list[Row] = []
    try:
        folder(root, "the folder of the data set")
        name = detect_layout(root) if name == "auto" else name
        rows.extend(_rows(name, Path(root), quick))
    except InputError as error:
        rows.append(Row("files", f"{error.where}: {error.expected}", error.found, 1, "unusable", error.todo))
    usable = any(row.item.startswith("split ") and row.status != "unusable" for row in rows)
    wrong = any(row.status != "ok" for row in rows)
    return Report(name, str(root), quick, tuple(rows), int(wrong) if usable else 2)


def _rows(name: str, root: Path, quick: bool) -> Iterator[Row]:
    sets: dict[str, Dataset] = {}
    splits, marker = splits_of(name, root), read_marker(root)
    source = "published" if marker is None else "exported"
    marker = PUBLISHED.get(name, {}) if marker is None else marker
    said = "{:,} queries, {:,} gallery".format
    for label, options in splits.items():
        try:
            data = sets[label] = open_dataset(name, root, missing="drop", skip_unreadable=False, **options)
        except InputError as error:
            yield Row(f"split {label}", f"{error.where}: {error.expected}", error.found, 1, "unusable", error.todo)
            continue
        have, wanted = [len(data.query), len(data.gallery)], marker.get("counts", {}).get(label)
        yield _row("split", label, data.left_out, f"{said(*have)}. {data.note}")
        wrong = [said(*have)] if wanted and [*wanted] != have else []
        yield _row("counts", label, wrong, said(*have), wanted and f"{said(*wanted)} ({source})")
        query, gallery, pairs = data.query.positions, data.gallery.positions, data.positives.pairs().numpy()
        if len(pairs) and query is not None and gallery is not None and query.frame == gallery.frame:
            away = distances(query.take(pairs[:, 0]), gallery.take(pairs[:, 1]))
            far = [data.query.ids[i] for i in pairs[away > FAR_M, 0]]
            yield _row("pairs", label, far, f"at most {np.nanmax(away, initial=0):.0f} m")
    for a, b in combinations(sets, 2):  # splits that differ in nothing but their name must not share a query
        # MSLS is published without a test set of its own: the formatting script links test to val
        linked = name in PLACE_RECOGNITION and {a, b} == {"val", "test"}
        if not linked and splits[a] | {"split": ""} == splits[b] | {"split": ""}:
            by_building = "direction" in splits[a]
            one, two = ({i.partition("/")[0] if by_building else i for i in sets[x].query.ids} for x in (a, b))
            yield _row("overlap", f"{a} / {b}", sorted(one & two))
    for side in ("query", "gallery") if sets else ():
        every = [getattr(data, side) for data in sets.values()]
        files = list(dict.fromkeys(images.file(i) for images in every for i in range(len(images))))
        files = files[:: -(-len(files) // QUICK_IMAGES) if quick else 1]
        found = dict(zip(files, decode_all(files, f"decoding {side}"), strict=True))
        broken = [f"{path} ({error.found})" for path, error in found.items() if isinstance(error, InputError)]
        yield _row("images", side, broken, "all decoded", f"{len(files):,} readable")
        sizes = {path: f"{size[1]} x {size[0]}" for path, size in found.items() if not isinstance(size, InputError)}
        allowed = [f"{w} x {h}" for h, w in sorted(marker.get("sizes", {}).get(side, ()))]
        wrong = [f"{path} is {size}" for path, size in sizes.items() if allowed and size not in allowed]
        fine = ", ".join(f"{size}: {count:,}" for size, count in Counter(sizes.values()).most_common(5))
        yield _row("sizes", side, wrong, fine, " or ".join(allowed))


def _row(check: str, label: str, bad: Sequence[str], fine: str = "none", expected: str | None = None) -> Row:
    """What was found is `fine` where nothing is bad, else how many are, and the first."""
    right, what, todo = CHECKS[check]
    found = f"{len(bad):,} {what}: {', '.join(bad[:5])}" + ", ..." * (len(bad) > 5) if bad else fine
    return Row(f"{check} {label}", expected or right, found, len(bad), *(("finding", todo) if bad else ()))
