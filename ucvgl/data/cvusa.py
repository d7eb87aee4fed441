"""CVUSA: panoramas of the United States and the satellite tile of each (Zhai et al., CVPR 2017; Workman et al., ICCV
2015).

    <root>/splits/train-19zl.csv, val-19zl.csv   tile,panorama[,annotation]: two or three columns, final newline
    optional
    <root>/bingmap/19/0000001.jpg                750 x 750, north up
    <root>/streetview/panos/0000001.jpg          1232 x 224, the middle of an equirectangular panorama, north in the
    middle
    <root>/split_locations/all.csv               optional: row n is pair n, latitude and longitude of tile, then of
    panorama

Published counts: 35,532 training and 8,884 validation pairs. The paths are taken from the lists, so that lists naming
other folders (the crossnet subset says `bingmap/input0003932.png`) read as well.
"""

from pathlib import Path
from typing import Literal

import numpy as np

from ucvgl.data.files import columns, folder, inside, lines, numbers, require
from ucvgl.data.views import FileImages, Positives, Views
from ucvgl.errors import InputError
from ucvgl.positions import Positions, Wgs84

PUBLISHED = {"train": 35_532, "val": 8_884}
SIZES = {"ground": (224, 1232), "satellite": (750, 750)}


def read_cvusa(root: Path | str, split: str = "val", missing: Literal["error", "drop"] = "error") -> Views:
    """One split of CVUSA: N panoramas, N tiles, panorama i belongs to tile i.

    Args:
        root: the data set's folder.
        split: "train" or "val".
        missing: "error" raises on the first listed file that is absent; "drop" leaves such pairs out and says how many.

    Raises:
        InputError: a list is absent, empty or malformed, a file is absent, a position is impossible.
    """
    if split not in PUBLISHED:
        raise InputError("split", expected=f"one of {', '.join(PUBLISHED)}", found=split, todo="CVUSA has these two.")
    root = folder(root, "the folder of CVUSA, holding splits/")
    path = root / "splits" / f"{split}-19zl.csv"
    rows = [
        (f"{path}:{number}", inside(cells[0], f"{path}:{number}"), inside(cells[1], f"{path}:{number}"))
        for number, cells in columns(path, ",", (2, 3))
    ]
    gone = require(root, [(where, name) for where, *names in rows for name in names], drop=missing == "drop")
    kept = [row for row in rows if row[1] not in gone and row[2] not in gone]
    if not kept:
        raise InputError(
            path, expected="images", found="none of the listed files", todo="Copy the images into the folder."
        )
    tiles, panoramas = [row[1] for row in kept], [row[2] for row in kept]
    places = _positions(root, tiles)
    note = "" if not gone else f"{len(rows) - len(kept)} of {len(rows)} pairs left out, files absent."
    return Views(
        "cvusa",
        split,
        FileImages(str(root), _stems(panoramas), panoramas, places and places[1], str(path)),
        FileImages(str(root), _stems(tiles), tiles, places and places[0], str(path)),
        Positives.one_each(np.arange(len(kept))),
        note=note,
        left_out=tuple(sorted(gone)),
    )


def _stems(names: list[str]) -> tuple[str, ...]:
    return tuple(name.rpartition("/")[2].rpartition(".")[0] or name for name in names)


def _positions(root: Path, tiles: list[str]) -> tuple[Positions, Positions] | None:
    """(tile positions, panorama positions), from row n for the tile named n; None without the file or without numbered tiles."""
    path = root / "split_locations" / "all.csv"
    stems = _stems(tiles)
    if not path.is_file() or not all(stem.isascii() and stem.isdigit() for stem in stems):
        return None
    table = lines(path)
    values = np.full((len(tiles), 4), np.nan)
    for i, stem in enumerate(stems):
        if not 1 <= int(stem) <= len(table):
            raise InputError(
                path,
                expected=f"a row for tile {stem}",
                found=f"{len(table)} rows",
                todo="Use the location list of the whole data set: its row n belongs to tile n.",
            )
        number, text = table[int(stem) - 1]
        cells = [cell.strip() for cell in text.split(",")]
        if len(cells) < 4:
            raise InputError(
                f"{path}:{number}",
                expected="tile latitude, longitude, panorama latitude, longitude",
                found=f"{len(cells)} columns",
                todo="Copy the list again.",
            )
        values[i] = numbers(f"{path}:{number}", cells[:4])
    return Positions(values[:, :2], Wgs84(), str(path)), Positions(values[:, 2:], Wgs84(), str(path))
