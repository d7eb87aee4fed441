"""VIGOR: panoramas of four cities, tiles that cover them densely, shared tiles, and semi-positives (Zhu et al., CVPR
2021).

    <root>/splits/<City>/satellite_list.txt                     a tile a line, satellite_<lat>_<lon>.png
    <root>/splits/<City>/same_area_balanced_train.txt, ..._test.txt, pano_label_balanced.txt      a panorama a line, 13
        columns: <panorama> <tile> <d_lat> <d_lon> and three times <semi-positive> <d_lat> <d_lon>
    <root>/<City>/panorama/<id>,<lat>,<lon>,.jpg                 2048 x 1024, equirectangular, north in the middle
    <root>/<City>/satellite/satellite_<lat>_<lon>.png            640 x 640, north up
    <root>/splits__corrected/<City>/..._balanced_train__corrected.txt      offsets corrected by SliceMatch (CVPR 2023)

Offsets are pixels from the panorama to the tile's centre, north and east positive: the camera stands at row 320 +
d_lat, column 320 - d_lon of the tile. Images may also lie in <root>/ground/<City> and <root>/satellite/<City>, as
Sample4Geo reads them. Same area: train and test lists of all four cities. Cross area: trained on New York and Seattle,
tested on San Francisco and Chicago, every panorama of each. Published counts: 90,618 tiles and 105,214 panoramas.
"""

from pathlib import Path
from typing import Literal

import numpy as np

from ucvgl.data.files import columns, folder, inside, lines, numbers, require
from ucvgl.data.views import FileImages, Positives, Views
from ucvgl.errors import InputError
from ucvgl.positions import Positions, Wgs84

CITIES = ("NewYork", "Seattle", "SanFrancisco", "Chicago")
CROSS = {"train": ("NewYork", "Seattle"), "test": ("SanFrancisco", "Chicago")}
# (same, test) is in the project's notes; the others are from general knowledge: both areas add up to 105,214 panoramas
PUBLISHED = {("same", "train"): 52_609, ("same", "test"): 52_605, ("cross", "train"): 51_520, ("cross", "test"): 53_694}
SIZES = {"ground": (1024, 2048), "satellite": (640, 640)}


def read_vigor(
    root: Path | str,
    split: str = "test",
    area: Literal["same", "cross"] = "same",
    cities: tuple[str, ...] | None = None,
    labels: Literal["auto", "original", "corrected"] = "auto",
    missing: Literal["error", "drop"] = "error",
) -> Views:
    """One split of VIGOR: N panoramas against every tile of its cities (M); one positive and three semi-positives each.

    Args:
        root: the data set's folder.
        split: "train" or "test".
        area: "same" or "cross".
        cities: which cities, in what order; those of the protocol by default.
        labels: the corrected files if they are there ("auto"), or one of the two.
        missing: "error" raises on the first listed image that is absent; "drop" leaves panoramas out that lack their
            image or positive, and tiles that lack theirs, and says how many.

    Raises:
        InputError: a list is absent, empty or malformed, a label names a tile that is not listed, a file is absent.
    """
    if split not in ("train", "test") or area not in ("same", "cross"):
        raise InputError(
            "split, area",
            expected="train or test, same or cross",
            found=f"{split}, {area}",
            todo="VIGOR has these four.",
        )
    root = folder(root, "the folder of VIGOR, holding splits/")
    cities = cities or (CITIES if area == "same" else CROSS[split])
    corrected = labels == "corrected" or (labels == "auto" and (root / "splits__corrected").is_dir())
    tiles: list[tuple[str, str, str]] = []  # where, id, path
    panoramas: list[tuple[str, str, str, list[str], list[float]]] = []  # where, id, path, labels, offsets
    for city in cities:
        city_tiles, city_panoramas = _read_city(root, city, split, area, corrected)
        tiles += city_tiles
        panoramas += city_panoramas
    gone = require(
        root, [(where, path) for where, _, path in tiles] + [(p[0], p[2]) for p in panoramas], drop=missing == "drop"
    )
    listed = len(panoramas)
    tiles = [tile for tile in tiles if tile[2] not in gone]
    number = {tile[1]: i for i, tile in enumerate(tiles)}
    panoramas = [p for p in panoramas if p[2] not in gone and p[3][0] in number]
    if not panoramas or not tiles:
        raise InputError(root, expected="images", found="none of those listed", todo="Copy the images into the folder.")
    note = f"{area}-area, {'corrected' if corrected else 'original'} labels."
    if gone:
        note += f" {listed - len(panoramas)} of {listed} panoramas left out, files absent."
    return Views(
        "vigor",
        f"{area}-{split}",
        FileImages(
            str(root), tuple(p[1] for p in panoramas), [p[2] for p in panoramas], _positions(panoramas, ","), "VIGOR"
        ),
        FileImages(str(root), tuple(t[1] for t in tiles), [t[2] for t in tiles], _positions(tiles, "_"), "VIGOR"),
        Positives.one_each([number[p[3][0]] for p in panoramas]),
        Positives.of([[number[s] for s in p[3][1:] if s in number] for p in panoramas]),
        np.array([p[4] for p in panoramas]).reshape(-1, 4, 2),
        note,
        tuple(sorted(gone)),
    )


def _read_city(root: Path, city: str, split: str, area: str, corrected: bool) -> tuple[list, list]:
    lists = root / ("splits__corrected" if corrected else "splits") / city
    tile_list = lists / "satellite_list.txt"
    if corrected and not tile_list.is_file():
        tile_list = root / "splits" / city / "satellite_list.txt"
    by_kind = (root / "ground" / city).is_dir()
    ground_folder, tile_folder = (
        (f"ground/{city}", f"satellite/{city}") if by_kind else (f"{city}/panorama", f"{city}/satellite")
    )
    tiles, ids = [], set()
    for line, name in lines(tile_list):
        where = f"{tile_list}:{line}"
        if name in ids:
            raise InputError(where, expected="every tile once", found=f"{name} again", todo="Remove the repeated line.")
        ids.add(name)
        tiles.append((where, f"{city}/{name}", inside(f"{tile_folder}/{name}", where)))
    stem = "pano_label_balanced" if area == "cross" else f"same_area_balanced_{split}"
    label_list = lists / f"{stem}{'__corrected' if corrected else ''}.txt"
    panoramas = []
    for line, cells in columns(label_list, None, (13,)):
        where = f"{label_list}:{line}"
        names = [cells[i] for i in (1, 4, 7, 10)]
        for name in names:
            if name not in ids:
                raise InputError(
                    where, expected=f"tiles of {tile_list}", found=name, todo="Use the lists of one release together."
                )
        offsets = numbers(where, [cells[i] for i in (2, 3, 5, 6, 8, 9, 11, 12)])
        path = inside(f"{ground_folder}/{cells[0]}", where)
        panoramas.append((where, f"{city}/{cells[0]}", path, [f"{city}/{name}" for name in names], offsets))
    return tiles, panoramas


def _positions(rows: list, separator: str) -> Positions:
    """Latitude and longitude from the names: <id>,<lat>,<lon>,.jpg and satellite_<lat>_<lon>.png."""
    values = []
    for where, name, *_ in rows:
        stem = name.rpartition("/")[2]
        cells = stem.split(",")[-3:-1] if separator == "," else stem.rpartition(".")[0].split("_")[-2:]
        if len(cells) != 2:
            raise InputError(
                where,
                expected="latitude and longitude in the file's name",
                found=stem,
                todo="Keep VIGOR's own file names: <id>,<lat>,<lon>,.jpg and satellite_<lat>_<lon>.png.",
            )
        values.append(numbers(where, cells))
        if not (abs(values[-1][0]) <= 90 and abs(values[-1][1]) <= 180):
            Positions(values[-1:], Wgs84(), str(where))  # raises, naming this line
    return Positions(np.array(values), Wgs84(), "VIGOR file names")
