"""VIGOR: panoramas of four cities, tiles that cover them densely, shared tiles, semi-positives (Zhu et al., CVPR 2021).
A line of a list has 13 columns: <panorama> <tile> <d_lat> <d_lon>, then <semi-positive> <d_lat> <d_lon> three times. The offsets
(pixels to the tile's centre) are not used. Same area: train and test lists of all four cities. Cross area: trained on New York
and Seattle, tested on San Francisco and Chicago, every panorama of each. Corrected labels are SliceMatch's (CVPR 2023).
"""

from pathlib import Path
from typing import Literal

import numpy as np

from ucvgl.data.container import Dataset, FileImages, Positives
from ucvgl.data.files import columns, folder, inside, lat_lon, lines, numbers, one_of
from ucvgl.errors import InputError
from ucvgl.positions import Positions, Wgs84

CITIES = ("NewYork", "Seattle", "SanFrancisco", "Chicago")
CROSS = {"train": ("NewYork", "Seattle"), "test": ("SanFrancisco", "Chicago")}


def read_vigor(root: Path | str, split: str = "test", area: Literal["same", "cross"] = "same") -> Dataset:
    """One split of VIGOR: N panoramas against every tile of its cities (M); one positive and three semi-positives each. The
    corrected labels are taken if they are there, and the note says so."""
    one_of("split", split, CROSS, "VIGOR has these two.")
    one_of("area", area, ("same", "cross"), "VIGOR has these two.")
    root = folder(root, "the folder of VIGOR, holding splits/")
    corrected = (root / "splits__corrected").is_dir()
    lists = root / ("splits__corrected" if corrected else "splits")
    labels = ("pano_label_balanced" if area == "cross" else f"same_area_balanced_{split}") + "__corrected" * corrected
    tiles: dict[str, tuple[str, list[float]]] = {}  # id -> path, position
    panoramas: list[tuple[str, str, list[float], list[str]]] = []  # id, path, position, tiles: the positive first
    for city in CITIES if area == "same" else CROSS[split]:
        by_kind = (root / "ground" / city).is_dir()
        ground = f"ground/{city}" if by_kind else f"{city}/panorama"
        satellite = f"satellite/{city}" if by_kind else f"{city}/satellite"
        tile_list = lists / city / "satellite_list.txt"
        if corrected and not tile_list.is_file():
            tile_list = root / "splits" / city / "satellite_list.txt"
        for line, name in lines(tile_list):
            where, tile = f"{tile_list}:{line}", f"{city}/{name}"
            if tile in tiles:
                raise InputError(where, expected="every tile once", found=f"{name} again", todo="Remove the line.")
            tiles[tile] = inside(f"{satellite}/{name}", where), _position(name, where)
        for where, cells in columns(lists / city / f"{labels}.txt", None, (13,)):
            for name in cells[1::3]:
                if f"{city}/{name}" not in tiles:
                    raise InputError(where, expected=f"tiles of {tile_list}", found=name,
                                     todo="Use the lists of one release together.")  # fmt: skip
            numbers(where, cells[2::3] + cells[3::3])  # offsets: looked at so that a shifted column is found
            names = [f"{city}/{name}" for name in cells]
            path = inside(f"{ground}/{cells[0]}", where)
            panoramas.append((names[0], path, _position(cells[0], where), names[1::3]))
    row = {name: i for i, name in enumerate(tiles)}
    ids, *found, names = zip(*panoramas, strict=True)
    query, gallery = (
        FileImages(str(root), ids, paths, Positions(at, Wgs84(), "VIGOR file names"), str(root / "splits"))
        for ids, (paths, at) in ((ids, found), (tuple(tiles), zip(*tiles.values(), strict=True)))
    )
    labelled = np.array([[row[name] for name in some] for some in names])  # (N, 4)
    return Dataset(
        "vigor", f"{area}-{split}", query, gallery, Positives.one_each(labelled[:, 0]), Positives.of(labelled[:, 1:]),
        note=f"{area}-area, {'corrected' if corrected else 'original'} labels.",
    )  # fmt: skip


def _position(name: str, where: str) -> list[float]:
    """Latitude and longitude from a name: <id>,<lat>,<lon>,.jpg or satellite_<lat>_<lon>.png."""
    cells = name.split(",")[-3:-1] if "," in name else name.rpartition(".")[0].split("_")[-2:]
    if len(cells) != 2:
        raise InputError(where, expected="a name such as <id>,<lat>,<lon>,.jpg or satellite_<lat>_<lon>.png", found=name,
                         todo="Keep VIGOR's own file names.")  # fmt: skip
    return lat_lon(where, cells)
