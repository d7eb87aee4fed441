"""VIGOR: panoramas of four cities, tiles that cover them densely, shared tiles, and semi-positives (Zhu et al., CVPR 2021).

    <root>/splits/<City>/satellite_list.txt                     a tile a line, satellite_<lat>_<lon>.png
    <root>/splits/<City>/same_area_balanced_train.txt, ..._test.txt, pano_label_balanced.txt      a panorama a line, 13
        columns: <panorama> <tile> <d_lat> <d_lon> and three times <semi-positive> <d_lat> <d_lon>
    <root>/<City>/panorama/<id>,<lat>,<lon>,.jpg                 2048 x 1024, equirectangular, north in the middle
    <root>/<City>/satellite/satellite_<lat>_<lon>.png            640 x 640, north up
    <root>/splits__corrected/<City>/..._balanced_train__corrected.txt      corrected by SliceMatch (CVPR 2023)

Offsets (pixels from the panorama to the tile's centre) are not read: no method here uses them. Images may also lie in
<root>/ground/<City> and <root>/satellite/<City>, as Sample4Geo reads them. Same area: train and test lists of all four
cities. Cross area: trained on New York and Seattle, tested on San Francisco and Chicago, every panorama of each. Published
counts: 90,618 tiles and 105,214 panoramas.
"""

from pathlib import Path
from typing import Literal

from ucvgl.data.container import Dataset, FileImages, Positives
from ucvgl.data.files import columns, degrees, folder, inside, lines, numbers, one_of
from ucvgl.errors import InputError
from ucvgl.positions import Positions

CITIES = ("NewYork", "Seattle", "SanFrancisco", "Chicago")
CROSS = {"train": ("NewYork", "Seattle"), "test": ("SanFrancisco", "Chicago")}


def read_vigor(root: Path | str, split: str = "test", area: Literal["same", "cross"] = "same") -> Dataset:
    """One split of VIGOR: N panoramas against every tile of its cities (M); one positive and three semi-positives each.

    Args:
        root: the data set's folder; the corrected labels are taken if they are there, and the note says so.
        split: "train" or "test".
        area: "same" or "cross".
    """
    one_of("split", split, CROSS, "VIGOR has these two.")
    one_of("area", area, ("same", "cross"), "VIGOR has these two.")
    root = folder(root, "the folder of VIGOR, holding splits/")
    corrected = (root / "splits__corrected").is_dir()
    tiles: list[tuple[str, str, str]] = []  # where, id, path
    panoramas: list[tuple[str, str, str, list[str]]] = []  # where, id, path, ids of tiles: the positive first
    for city in CITIES if area == "same" else CROSS[split]:
        city_tiles, city_panoramas = _read_city(root, city, split, area, corrected)
        tiles += city_tiles
        panoramas += city_panoramas
    row = {name: i for i, (_, name, _) in enumerate(tiles)}
    query, gallery = (
        FileImages(
            str(root), [one[1] for one in side], [one[2] for one in side], _positions(side), str(root / "splits")
        )
        for side in (panoramas, tiles)
    )
    return Dataset(
        "vigor", f"{area}-{split}", query, gallery, Positives.one_each([row[one[3][0]] for one in panoramas]),
        Positives.of([[row[name] for name in one[3][1:]] for one in panoramas]),
        note=f"{area}-area, {'corrected' if corrected else 'original'} labels.",
    )  # fmt: skip


def _read_city(root: Path, city: str, split: str, area: str, corrected: bool) -> tuple[list, list]:
    lists = root / ("splits__corrected" if corrected else "splits") / city
    tile_list = lists / "satellite_list.txt"
    if corrected and not tile_list.is_file():
        tile_list = root / "splits" / city / "satellite_list.txt"
    by_kind = (root / "ground" / city).is_dir()
    panorama_folder = f"ground/{city}" if by_kind else f"{city}/panorama"
    tile_folder = f"satellite/{city}" if by_kind else f"{city}/satellite"
    tiles, listed = [], set()
    for line, name in lines(tile_list):
        where = f"{tile_list}:{line}"
        if name in listed:
            raise InputError(where, expected="every tile once", found=f"{name} again", todo="Remove the repeated line.")
        listed.add(name)
        tiles.append((where, f"{city}/{name}", inside(f"{tile_folder}/{name}", where)))
    stem = "pano_label_balanced" if area == "cross" else f"same_area_balanced_{split}"
    panoramas = []
    for where, cells in columns(lists / f"{stem}{'__corrected' if corrected else ''}.txt", None, (13,)):
        names = cells[1::3]
        for name in names:
            if name not in listed:
                raise InputError(where, expected=f"tiles of {tile_list}", found=name,
                                 todo="Use the lists of one release together.")  # fmt: skip
        numbers(where, cells[2::3] + cells[3::3])  # offsets: looked at so that a shifted column is found
        path = inside(f"{panorama_folder}/{cells[0]}", where)
        panoramas.append((where, f"{city}/{cells[0]}", path, [f"{city}/{name}" for name in names]))
    return tiles, panoramas


def _positions(rows: list) -> Positions:
    """Latitude and longitude from the names: <id>,<lat>,<lon>,.jpg and satellite_<lat>_<lon>.png."""
    values = []
    for where, name, *_ in rows:
        leaf = name.rpartition("/")[2]
        cells = leaf.split(",")[-3:-1] if "," in leaf else leaf.rpartition(".")[0].split("_")[-2:]
        if len(cells) != 2:
            raise InputError(
                where, expected="latitude and longitude in the file's name", found=leaf,
                todo="Keep VIGOR's own file names: <id>,<lat>,<lon>,.jpg and satellite_<lat>_<lon>.png.",
            )  # fmt: skip
        values.append(numbers(where, cells))
    return degrees([row[0] for row in rows], values, "VIGOR file names")
