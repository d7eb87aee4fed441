"""University-1652 (Zheng et al., ACM MM 2020), SUES-200 (Zhu et al., TCSVT 2023): many drone images of a building, one tile.
A folder's name is the building. Galleries hold buildings that no query shows (distractors): they count.
"""

import re
from dataclasses import replace
from pathlib import Path

from ucvgl.data.container import Dataset, FileImages, Positives
from ucvgl.data.files import folder, folders_in, image_folder, nfc, one_of
from ucvgl.errors import InputError

DIRECTIONS = ("drone2satellite", "satellite2drone")
HEIGHTS = (150, 200, 250, 300)


def read_university1652(root: Path | str, split: str = "test", direction: str = DIRECTIONS[0]) -> Dataset:
    """One split ("train" or "test") of University-1652; the direction says what is looked up in what. InputError: a
    folder is absent or empty, or a query's building is not in the gallery."""
    root = folder(root, "the folder of University-1652, holding train/ and test/")
    return _read("university1652", root, {"train": "train", "test": "test"}, split, direction, "")


def read_sues200(root: Path | str, split: str = "test", direction: str = DIRECTIONS[0], height_m: int = 150) -> Dataset:
    """One split of SUES-200 at one drone height (150, 200, 250 or 300); as `read_university1652`."""
    one_of("height_m", height_m, HEIGHTS, "SUES-200 was flown at these.")
    root = folder(root, "the folder of SUES-200, holding Training/ and Testing/")
    own = "Training" if split == "train" else "Testing"
    folder(root / own, "a part of the archive as the benchmark's own script splits it (Training/, Testing/)")
    folders = {"train": f"Training/{height_m}", "test": f"Testing/{height_m}"}
    return _read("sues200", root, folders, split, direction, f"Drone at {height_m} m.")


def _read(name: str, root: Path, folders: dict[str, str], split: str, direction: str, note: str) -> Dataset:
    one_of("split", split, folders, "This layout has these two.")
    one_of("direction", direction, DIRECTIONS, "Choose one of these two.")
    prefixes = ("", "") if split == "train" else ("query_", "gallery_")
    bases = [f"{folders[split]}/{prefix}{side}" for prefix, side in zip(prefixes, direction.split("2"), strict=True)]
    (query, query_of), (gallery, gallery_of) = (_buildings(root, base) for base in bases)
    images_of = {building: [] for building in gallery_of}
    for i, building in enumerate(gallery_of):
        images_of[building].append(i)
    for i, building in enumerate(query_of):
        if building not in images_of:
            raise InputError(query.file(i), expected=f"building {building} in {root / bases[1]}", found="no such folder",
                             todo="Copy the gallery again; every query's building is in it.")  # fmt: skip
    note += f" {direction}; {len(set(gallery_of) - set(query_of))} buildings of the gallery are distractors."
    return Dataset(name, split, query, gallery, Positives.of([images_of[b] for b in query_of]), note=note.strip())


def _buildings(root: Path, below: str) -> tuple[FileImages, list[str]]:
    """The images in a folder of buildings, and the building of each."""
    images = image_folder(root, below, "buildings")
    rows = [i for i, name in enumerate(images.ids) if "/" in name]
    images = images.subset(sorted(rows, key=lambda i: [_natural(part) for part in images.ids[i].split("/", 1)]))
    building_of = [name.partition("/")[0] for name in images.ids]
    empty = sorted({nfc(name) for name in folders_in(root / below)} - set(building_of)) if rows else [""]
    if empty:
        raise InputError(root / below / empty[0], expected="images of this building", found="none",
                         todo="Copy the folder again, or remove it.")  # fmt: skip
    # the whole name is the id where two files differ in their ending alone
    stems = [name.rpartition(".")[0] for name in images.ids]
    return replace(images, ids=stems if len(set(stems)) == len(stems) else images.ids), building_of


def _natural(name: str) -> list[tuple[int, str]]:
    """Numbers in order of their value: 2.jpg before 10.jpg."""
    return [(int(part), "") if part.isdecimal() and part.isascii() else (-1, part) for part in re.split(r"(\d+)", name)]
