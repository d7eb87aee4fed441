"""Own imagery: a folder of panoramas or photos, a folder of tiles, and no pairs.

Positions are optional and come, in this order, from a CSV beside the images, from tile names (z/x/y, XYZ or TMS rows), or from
EXIF GPS tags. An image without any has an unknown position, and so has one whose tags are damaged or impossible: the note counts
those. Without pairs nothing can be tested: there is a training part alone, for methods that need no labels.
"""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ucvgl.data.container import Dataset, FileImages, Positives
from ucvgl.data.decoding import FORMATS
from ucvgl.data.files import image_folder, one_of, read_position_table, table_rows
from ucvgl.errors import InputError
from ucvgl.positions import Positions, Wgs84, haversine


def read_folders(
    root: Path | str, split: str = "all", query: str = "ground", gallery: str = "satellite",
    query_csv: Path | str | None = None, gallery_csv: Path | str | None = None,
    tile_names: Literal["xyz", "tms"] | None = None,
) -> Dataset:  # fmt: skip
    """N photos or panoramas and M tiles, pairs unknown.

    Args:
        root: the folder that holds both.
        split: "all" or "train", which are the same.
        query: the folder of photos or panoramas, subfolders included.
        gallery: the folder of tiles.
        query_csv: positions of the queries: a header, an id or file column, latitude and longitude, or east and north.
        gallery_csv: the same for tiles.
        tile_names: tiles are named z/x/y (or z_x_y, z-x-y): "xyz" counts rows from the north, "tms" from the south. The
            position is the tile's centre.

    Raises:
        InputError: a folder is absent or empty, a table is wrong, one side's latitude and longitude look swapped, or a part to
            test on is asked for.
    """
    todo = "Own folders without pairs have no part to test on: recall cannot be measured on them."
    one_of("split", split, ("all", "train"), todo)
    root = Path(root)
    queries, wrong = _images(root / query, "photos or panoramas", query_csv, None)
    tiles, wrong_too = _images(root / gallery, "tiles", gallery_csv, tile_names)
    if None not in (queries.positions, tiles.positions) and looks_swapped(queries.positions, tiles.positions):
        raise InputError(
            query_csv or root / query, expected="positions near the tiles",
            found="positions far away that come near when latitude and longitude are exchanged",
            todo="Exchange the two columns of the side that is wrong.",
        )  # fmt: skip
    known = [0 if side.positions is None else int(side.positions.known.sum()) for side in (queries, tiles)]
    note = f"No pairs. Positions known for {known[0]} of {len(queries)} queries and {known[1]} of {len(tiles)} tiles."
    for files in filter(None, (wrong, wrong_too)):
        note += f" {len(files)} files with damaged or impossible positions in their tags, such as {files[0]}."
    return Dataset("folders", split, queries, tiles, Positives.unknown(len(queries)), note=note)


def _images(root: Path, what: str, table: Path | str | None, tile_names: str | None) -> tuple[FileImages, list[str]]:
    """Images with their positions, and files whose tags hold no position that is possible."""
    images, wrong = image_folder(root, "", what), []
    if table is not None:
        ids, places = read_position_table(table)
        at = table_rows(images.ids, ids, table)
        positions = Positions(np.where(at[:, None] >= 0, places.values[at], np.nan), places.frame, str(table))
    elif tile_names is not None:
        one_of("tile_names", tile_names, ("xyz", "tms"), "Say how the rows are counted.")
        values = [_named_centre(root, name, tile_names) for name in images.paths]
        positions = Positions(values, Wgs84(), str(root))
    else:
        unknown = math.nan, math.nan
        tags = [image_position(root / name) for name in images.paths]
        wrong = [name for name, at in zip(images.paths, tags, strict=True) if at and math.isnan(at[0])]
        found = Positions([at or unknown for at in tags], Wgs84(), str(root))
        positions = found if found.known.any() else None
    return replace(images, positions=positions), wrong


def tile_centre(zoom: int, x: float, y: float, scheme: str = "xyz") -> tuple[float, float]:
    """Latitude and longitude in degrees of a Web Mercator tile's centre; "tms" counts rows from the south."""
    side = 1 << zoom
    row = side - 1 - y if scheme == "tms" else y
    lat = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * (row + 0.5) / side))))
    return float(lat), (x + 0.5) / side * 360 - 180


def _named_centre(root: Path, name: str, scheme: str) -> tuple[float, float]:
    match = re.search(r"(?<!\d)(\d{1,2})[/_-](\d{1,9})[/_-](\d{1,9})$", name.rpartition(".")[0])
    zoom, x, y = map(int, match.groups()) if match else (0, 1, 1)
    if zoom > 30 or max(x, y) >= 1 << zoom:
        raise InputError(root / name, expected="z/x/y (or z_x_y), x and y below 2^z", found=name,
                         todo="Rename the tile, or give positions in a CSV.")  # fmt: skip
    return tile_centre(zoom, x, y, scheme)


def image_position(path: Path | str) -> tuple[float, float] | None:
    """Latitude and longitude in degrees by EXIF GPS; None if the image has none, NaN twice if they are damaged or impossible.

    Damaged tags do not spoil an image, and an image that cannot be read is found out when it is decoded.
    """
    nothing = float("nan"), float("nan")
    try:
        file = Image.open(path, formats=FORMATS)
    except Exception:  # as Pillow's decoders raise
        return None
    with file as image:
        try:
            exif = image.getexif()
            gps = exif.get_ifd(0x8825)
            if 0x8825 not in exif or (gps and 2 not in gps and 4 not in gps):  # none, or a time or a direction alone
                return None
            lat, lon = (sum(float(part) / 60**i for i, part in enumerate(gps[key])) for key in (2, 4))
            south, west = (str(gps.get(key, "")).strip("\0 ").upper()[:1] for key in (1, 3))
        except Exception:  # Pillow raises whatever a damaged byte leads it to
            return nothing
    lat, lon = (-lat if south == "S" else lat), (-lon if west == "W" else lon)
    possible = abs(lat) <= 90 and abs(lon) <= 180 and (lat, lon) != (0, 0)  # zeros: the camera had no fix
    return (lat, lon) if possible else nothing


def looks_swapped(values: Positions, reference: Positions) -> bool:
    """Whether latitude and longitude are swapped: the medians lie 100 km apart, but not with columns exchanged.

    False for positions in metres and where nothing is known.
    """
    if not all(isinstance(p.frame, Wgs84) and p.known.any() for p in (values, reference)):
        return False
    here, there = (np.median(p.values[p.known], axis=0) for p in (values, reference))
    turned = here[::-1]
    return bool(abs(turned[0]) <= 90 and haversine(here, there) > 1e5 >= haversine(turned, there))
