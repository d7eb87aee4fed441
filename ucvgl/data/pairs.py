"""Own pairs: two folders in which equal file names (without ending) show one place; drone/ and satellite/ by default.

Nothing says what to train and what to test on, so the parts are drawn: 60, 20 and 20 % by a hash of the name, the same in every
run and on every machine. What is trained on is never asked for in the test.
"""

import hashlib
from pathlib import Path

from ucvgl.data.container import Dataset, FileImages, Positives
from ucvgl.data.files import folder, nfc, one_of, passed_over, walk
from ucvgl.data.place_recognition import without_hit
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
    sides, odd = [], []
    for side in (query, gallery):
        paths, others = walk(folder(root / side, "a folder of images named as those of the other side"))
        odd += [f"{side}/{other}" for other in others]
        by_stem: dict[str, str] = {}
        for path in paths:
            stem = nfc(path.rpartition(".")[0])
            if by_stem.setdefault(stem, path) != path:
                raise InputError(root / side / path, expected="every name once", found=f"{by_stem[stem]} too",
                                 todo="Equal names are pairs: keep one of the two.")  # fmt: skip
        sides.append(by_stem)
    common = sides[0].keys() & sides[1].keys()
    if not common:
        some = [next(iter(side), "nothing") for side in sides]
        raise InputError(root, expected=f"equal names in {query}/ and {gallery}/", found=f"{some[0]}, {some[1]}, none equal",
                         todo="Rename them, or use the layout 'folders', which has no pairs.")  # fmt: skip
    if split != "all" and len(common) < LEAST:
        raise InputError(root, expected=f"at least {LEAST} pairs to hold some out", found=len(common),
                         todo="Add pairs, or train on another set and test on these with split 'all'.")  # fmt: skip
    # in the order of the names' hashes; paired and unpaired names apart, so that every part has its share of both
    low, high = SPLITS[split]
    part: set[str] = set()
    for group in (common, sides[0].keys() ^ sides[1].keys()):
        ordered = sorted(group, key=lambda stem: hashlib.sha256(stem.encode()).digest())
        part.update(ordered[round(low * len(ordered)) : round(high * len(ordered))])
    stems = [[stem for stem in side if stem in part] for side in sides]
    row = {stem: i for i, stem in enumerate(stems[1])}
    positives = Positives.of([[row[stem]] if stem in row else [] for stem in stems[0]])
    images = [
        FileImages(str(root), [nfc(by_stem[stem]) for stem in some], [f"{side}/{by_stem[stem]}" for stem in some], None,
                   str(root / side))
        for side, by_stem, some in zip((query, gallery), sides, stems, strict=True)
    ]  # fmt: skip
    note = f"Pairs by file name.{without_hit(positives)}"
    note += " The parts are drawn by the names' hashes." if split != "all" else ""
    return Dataset("pairs", split, *images, positives, note=note + passed_over(odd))
