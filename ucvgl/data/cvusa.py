"""CVUSA: panoramas of the United States and the tile of each (Zhai et al., CVPR 2017; Workman et al., ICCV 2015).

Paths are taken from the lists, so lists that name other folders (the crossnet subset: `bingmap/input0003932.png`) work as well.
The published strips (35,532 training and 8,884 validation pairs) lie 20 px of 1232 above the panorama's middle (UCVGL's
completion), at any scale; an export of ours says in its marker file where its own lie; others are assumed to be centred.
"""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from ucvgl.data.container import Dataset, FileImages, Positives
from ucvgl.data.decoding import image_size
from ucvgl.data.files import columns, folder, inside, one_of, read_marker
from ucvgl.errors import InputError
from ucvgl.geometry import CVUSA_STRIP_OFFSET
from ucvgl.positions import Positions, Wgs84


def read_cvusa(root: Path | str, split: str = "val") -> Dataset:
    """One split ("train" or "val") of CVUSA: N panoramas, N tiles, panorama i belongs to tile i."""
    one_of("split", split, ("train", "val"), "CVUSA has these two.")
    root = folder(root, "the folder of CVUSA, holding splits/")
    path = root / "splits" / f"{split}-19zl.csv"
    rows = columns(path, ",", (2, 3))
    tiles, panoramas = ([inside(cells[k], where) for where, cells in rows] for k in (0, 1))
    stems = [[name.rpartition("/")[2].rpartition(".")[0] or name for name in side] for side in (panoramas, tiles)]
    tile_at, panorama_at = _positions(root, stems[1])
    marker = read_marker(root) or {"strip_offset": _strip_offset(root, panoramas)}
    return Dataset(
        "cvusa", split, FileImages(str(root), stems[0], panoramas, panorama_at, str(path)),
        FileImages(str(root), stems[1], tiles, tile_at, str(path)), Positives.one_each(np.arange(len(rows))),
        strip_offset=float(marker.get("strip_offset", 0)),
    )  # fmt: skip


def _strip_offset(root: Path, panoramas: list[str]) -> float:
    """The published one for strips of the published proportions at any scale, by the first strip; others lie in the middle."""
    for name in panoramas:
        with suppress(InputError):  # absent or damaged: said when it is read
            height, width = image_size(str(root / name))
            if width != 2 * height:
                return CVUSA_STRIP_OFFSET if 224 * width == 1232 * height else 0.0
    return 0.0


def _positions(root: Path, stems: list[str]) -> tuple[Positions | None, ...]:
    """Of tiles and of panoramas, from row n for the tile named n; None without the file or without numbered tiles."""
    places = (root / "split_locations" / "all.csv", root / "all.csv", root / "splits" / "all.csv")
    path = next((path for path in places if path.is_file()), None)
    if path is None or not all(stem.isascii() and stem.isdigit() for stem in stems):
        return None, None
    try:
        table = pd.read_csv(path, header=None, usecols=range(4), dtype=str, skip_blank_lines=False)
        values = table.astype(float).to_numpy()  # by Python's own conversion, which loses no digit
    except (OSError, ValueError) as error:
        raise InputError(path, expected="rows of tile latitude, longitude, panorama latitude, longitude", found=error,
                         todo="Copy the list again.") from error  # fmt: skip
    rows = np.array([int(stem) for stem in stems])
    if not 1 <= rows.min() <= rows.max() <= len(values):
        raise InputError(path, expected=f"a row each for tiles {rows.min()} to {rows.max()}", found=f"{len(values)} rows",
                         todo="Use the location list of the whole data set.")  # fmt: skip
    return tuple(Positions(values[:, k : k + 2], Wgs84(), str(path)).take(rows - 1) for k in (0, 2))
