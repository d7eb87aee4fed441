"""Own pairs: two folders in which equal file names (without ending) show one place; drone/ and satellite/ by default.

Nothing says what to train and what to test on, so the parts are drawn: 60, 20 and 20 % by a hash of the name, the same in every
run and on every machine. What is trained on is never asked for in the test.
"""

import hashlib
from pathlib import Path

from ucvgl.data.container import Dataset, Positives
from ucvgl.data.files import folder, image_folder, one_of
from ucvgl.errors import InputError

SPLITS = {"all": (0.0, 1.0), "train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}
LEAST = 20  # pairs that can be divided


def read_pairs(
    root: Path | str, split: str = "all", query: str = "drone", gallery: str = "satellite"
) -> Dataset:  # fmt: skip
    """N queries and M gallery images, pairs by file name.

    Args:
        root: the folder that holds both.
        split: "all", or a part that is drawn: "train", "val" or "test".
        query: the folder of the images that are looked up.
        gallery: the folder of those that are searched.

    Raises:
        InputError: a folder is absent or empty, a name occurs twice, no name is in both, too few pairs to be divided.
    """
    one_of("split", split, SPLITS, "Parts of own pairs.")
    root = folder(root, f"a folder holding {query}/ and {gallery}/")
    sides, rows_of = [], []  # images, and the row of each name without ending
    for side in (query, gallery):
        images, row_of = image_folder(root, side, "images named as those of the other side"), {}
        for i, name in enumerate(images.ids):
            other = row_of.setdefault(name.rpartition(".")[0], i)
            if other != i:
                raise InputError(images.file(i), expected="every name once", found=f"{images.ids[other]} too",
                                 todo="Equal names are pairs: keep one of the two.")  # fmt: skip
        sides.append(images)
        rows_of.append(row_of)
    common = rows_of[0].keys() & rows_of[1].keys()
    if not common:
        some = ", ".join(next(iter(row_of)) for row_of in rows_of)
        raise InputError(root, expected=f"equal names in {query}/ and {gallery}/", found=f"{some}, none equal",
                         todo="Rename them, or use the layout 'folders', which has no pairs.")  # fmt: skip
    if split != "all" and len(common) < LEAST:
        raise InputError(root, expected=f"at least {LEAST} pairs to hold some out", found=len(common),
                         todo="Add pairs, or train on another set and test on these with split 'all'.")  # fmt: skip
    # in the order of the names' hashes; paired and unpaired names apart, so that every part has its share of both
    low, high = SPLITS[split]
    part: set[str] = set()
    for group in (common, rows_of[0].keys() ^ rows_of[1].keys()):
        ordered = sorted(group, key=lambda stem: hashlib.sha256(stem.encode()).digest())
        part.update(ordered[round(low * len(ordered)) : round(high * len(ordered))])
    stems = [[stem for stem in row_of if stem in part] for row_of in rows_of]
    images = [
        side.subset([row_of[stem] for stem in some]) for side, row_of, some in zip(sides, rows_of, stems, strict=True)
    ]
    row = {stem: [i] for i, stem in enumerate(stems[1])}
    note = "Pairs by file name." + " The parts are drawn by the names' hashes." * (split != "all")
    return Dataset("pairs", split, *images, Positives.of([row.get(stem, []) for stem in stems[0]]), note=note)
