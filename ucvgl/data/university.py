"""University-1652 (Zheng et al., ACM MM 2020) and SUES-200 (Zhu et al., TCSVT 2023): many drone images of one building,
one tile.

    University-1652                                            SUES-200 (a height: 150, 200, 250 or 300 metres)
    <root>/train/drone/<building>/image-01.jpeg ... (54)        <root>/Training/<height>/drone/<place>/0.jpg ... (50)
    <root>/train/satellite/<building>/<building>.jpg            <root>/Training/<height>/satellite/<place>/0.png
    <root>/test/query_drone/<building>/...                      <root>/Testing/<height>/query_drone/<place>/...
    <root>/test/gallery_satellite/<building>/...                <root>/Testing/<height>/gallery_satellite/<place>/...
    <root>/test/query_satellite, gallery_drone                  <root>/Testing/<height>/query_satellite, gallery_drone

The folder's name is the building. Galleries hold buildings that no query shows (distractors): they count. Published
counts: University-1652 has 701 training buildings; its test has 37,855 drone queries against 951 tiles, and 701 tile
queries against 51,355 drone images. SUES-200 has 120 training and 80 test places, 50 drone images at each height,
galleries of all 200 places.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from ucvgl.data.files import folder, folders_in, images_below
from ucvgl.data.views import FileImages, Positives, Views
from ucvgl.errors import InputError

Direction = Literal["drone2satellite", "satellite2drone"]
PUBLISHED = {
    ("university1652", "test", "drone2satellite"): (37_855, 951),
    ("university1652", "test", "satellite2drone"): (701, 51_355),
    ("sues200", "train", "drone2satellite"): (6_000, 120),
    ("sues200", "test", "drone2satellite"): (4_000, 200),
    ("sues200", "test", "satellite2drone"): (80, 10_000),
}
# from general knowledge, checked against no copy of the data set, as are the counts and sizes of SUES-200
SIZES = {"ground": (512, 512), "satellite": (512, 512)}
HEIGHTS = (150, 200, 250, 300)


def read_university1652(
    root: Path | str,
    split: str = "test",
    direction: Direction = "drone2satellite",
    same_building: Iterable[tuple[str, str]] = (),
) -> Views:
    """One split of University-1652; `ground` is the querying side of the direction, `satellite` its gallery.

    Args:
        root: the folder that holds train/ and test/.
        split: "train" or "test".
        direction: "drone2satellite" or "satellite2drone".
        same_building: pairs of folder names that show one building; an image of one is then right for the other too.

    Raises:
        InputError: a folder is absent or empty, or a query's building is not in the gallery.
    """
    root = folder(root, "the folder of University-1652, holding train/ and test/")
    return _read("university1652", root, {"train": "train", "test": "test"}, split, direction, same_building, "")


def read_sues200(
    root: Path | str, split: str = "test", direction: Direction = "drone2satellite", height_m: int = 150
) -> Views:
    """One split of SUES-200 at one drone height; as `read_university1652`.

    Args:
        root: the folder that holds Training/ and Testing/.
        split: "train" or "test".
        direction: "drone2satellite" or "satellite2drone".
        height_m: 150, 200, 250 or 300.

    Raises:
        InputError: as `read_university1652`; also where the archive was not yet split into Training and Testing.
    """
    if height_m not in HEIGHTS:
        raise InputError("height_m", expected=f"one of {HEIGHTS}", found=height_m, todo="SUES-200 was flown at these.")
    root = folder(root, "the folder of SUES-200, holding Training/ and Testing/")
    if (root / "satellite-view").is_dir() and not (root / "Testing").is_dir():
        raise InputError(
            root,
            expected="Training/ and Testing/",
            found="the archive before splitting (satellite-view/)",
            todo="Split it with the benchmark's own script: 120 places to Training, all 200 to the galleries.",
        )
    folders = {"train": f"Training/{height_m}", "test": f"Testing/{height_m}"}
    return _read("sues200", root, folders, split, direction, (), f"Drone at {height_m} m.")


def _read(
    name: str,
    root: Path,
    folders: dict[str, str],
    split: str,
    direction: str,
    same: Iterable[tuple[str, str]],
    note: str,
) -> Views:
    if split not in folders or direction not in ("drone2satellite", "satellite2drone"):
        raise InputError(
            "split, direction",
            expected="train or test, drone2satellite or satellite2drone",
            found=f"{split}, {direction}",
            todo="Choose one of these four.",
        )
    query, gallery = direction.split("2")
    prefixes = ("", "") if split == "train" else ("query_", "gallery_")
    base = root / folders[split]
    queries, query_buildings = _buildings(root, base / f"{prefixes[0]}{query}")
    found, gallery_buildings = _buildings(root, base / f"{prefixes[1]}{gallery}")
    alias: dict[str, str] = {}
    for a, b in same:
        alias[_first(alias, b)] = _first(alias, a)
    of_building: dict[str, list[int]] = {}
    for i, building in enumerate(gallery_buildings):
        of_building.setdefault(_first(alias, building), []).append(i)
    rows = []
    for path, building in zip(queries.paths, query_buildings, strict=True):
        right = of_building.get(_first(alias, building))
        if right is None:
            raise InputError(
                root / path,
                expected=f"building {building} in {base / (prefixes[1] + gallery)}",
                found="no such folder",
                todo="Copy the gallery again; every query's building is in it.",
            )
        # an image of the very same folder before one of a folder that shows the same building
        rows.append(sorted(right, key=lambda i: (gallery_buildings[i] != building, i)))
    distractors = len(set(gallery_buildings) - set(query_buildings))
    note = f"{note} {direction}; {distractors} buildings of the gallery are distractors.".strip()
    return Views(name, split, queries, found, Positives.of(rows), note=note)


def _first(alias: dict[str, str], building: str) -> str:
    while building in alias and alias[building] != building:
        building = alias[building]
    return building


def _buildings(root: Path, path: Path) -> tuple[FileImages, list[str]]:
    """The images of a folder of buildings, and the building of each."""
    path = folder(path, "a folder of buildings")
    paths, buildings = [], []
    for building in folders_in(path):
        images = sorted(images_below(path / building), key=_natural)
        if not images:
            raise InputError(
                path / building,
                expected="images of this building",
                found="none",
                todo="Copy the folder again, or remove it.",
            )
        paths += [f"{building}/{image}" for image in images]
        buildings += [building] * len(images)
    if not paths:
        raise InputError(path, expected="a folder a building", found="none", todo="Unpack the data set here.")
    relative = os.path.relpath(path, root).replace(os.sep, "/")
    # the whole name is the id where two files differ in their ending alone
    stems = [p.rpartition(".")[0] for p in paths]
    ids = tuple(stems if len(set(stems)) == len(stems) else paths)
    return FileImages(str(root), ids, tuple(f"{relative}/{p}" for p in paths), None, str(path)), buildings


def _natural(name: str) -> list[tuple[int, str]]:
    """Numbers in order of their value: 2.jpg before 10.jpg."""
    return [(int(part), "") if part.isdecimal() and part.isascii() else (-1, part) for part in re.split(r"(\d+)", name)]
