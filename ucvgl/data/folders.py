"""Own imagery: two folders whose equal file names are pairs, 60, 20 and 20 % of them by a hash of the name for training,
validation and test, the same everywhere; or two folders without pairs, all for training. Positions of these come from a CSV,
or else from EXIF GPS tags; damaged or impossible ones are unknown, and the note counts them.
"""

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ucvgl.data.container import Dataset, FileImages, Positives
from ucvgl.data.decoding import FORMATS
from ucvgl.data.files import folder, image_folder, one_of, read_position_table, table_rows
from ucvgl.errors import InputError
from ucvgl.positions import Positions, Wgs84, haversine

SPLITS = {"all": (0.0, 1.0), "train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}
LEAST = 20  # pairs that can be divided


def read_pairs(root: Path | str, split: str = "all") -> Dataset:
    """N queries and M gallery images, pairs by file name: "all", or the part "train", "val" or "test", which is drawn. Folders:
    query and gallery, or drone and satellite. InputError: one is absent or empty, a name is twice in one, none is in both, too
    few pairs to be divided."""
    one_of("split", split, SPLITS, "Parts of own pairs.")
    query, gallery = ("query", "gallery") if (Path(root) / "gallery").is_dir() else ("drone", "satellite")
    root = folder(root, f"a folder holding {query}/ and {gallery}/")
    sides = [image_folder(root, side, "images named as those of the other side") for side in (query, gallery)]
    # by names without ending: replace refuses two of one name
    stems = [replace(side, ids=[name.rpartition(".")[0] for name in side.ids]).ids for side in sides]
    common = set(stems[0]) & set(stems[1])
    if not common:
        raise InputError(root, expected=f"equal names in {query}/ and {gallery}/", found=f"{stems[0][0]}, {stems[1][0]}",
                         todo="Rename them, or use the layout 'folders', which has no pairs.")  # fmt: skip
    if split != "all" and len(common) < LEAST:
        raise InputError(root, expected=f"at least {LEAST} pairs to hold some out", found=len(common),
                         todo="Add pairs, or train on another set and test on these with split 'all'.")  # fmt: skip
    # in the order of the names' hashes; paired and unpaired names apart, so that every part has its share of both
    low, high = SPLITS[split]
    part: set[str] = set()
    for group in (common, set(stems[0]) ^ set(stems[1])):
        ordered = sorted(group, key=lambda stem: hashlib.sha256(stem.encode()).digest())
        part.update(ordered[round(low * len(ordered)) : round(high * len(ordered))])
    queries, found = ([i for i, stem in enumerate(some) if stem in part] for some in stems)
    number = {stems[1][j]: [k] for k, j in enumerate(found)}
    positives = Positives.of([number.get(stems[0][i], []) for i in queries])
    note = "Pairs by file name." + " The parts are drawn by the names' hashes." * (split != "all")
    return Dataset("pairs", split, sides[0].subset(queries), sides[1].subset(found), positives, note=note)


def read_folders(
    root: Path | str, split: str = "all", query_csv: Path | str | None = None, gallery_csv: Path | str | None = None
) -> Dataset:
    """N photos or panoramas in ground/ and M tiles in satellite/, pairs unknown; the splits "all" and "train" are the same.
    Positions come from tables as `read_position_table` takes them, or from EXIF. InputError: a folder is absent or empty, a table
    is wrong, one side's latitude and longitude look swapped."""
    one_of("split", split, ("all", "train"), "Without pairs there is no part to test on: recall cannot be measured.")
    root = Path(root)
    queries, wrong = _images(root / "ground", "photos or panoramas", query_csv)
    tiles, wrong_too = _images(root / "satellite", "tiles", gallery_csv)
    if None not in (queries.positions, tiles.positions) and looks_swapped(queries.positions, tiles.positions):
        raise InputError(query_csv or root / "ground", expected="positions near the tiles",
                         found="some far away that come near when latitude and longitude are exchanged",
                         todo="Exchange the two columns of the side that is wrong.")  # fmt: skip
    known = [0 if side.positions is None else int(side.positions.known.sum()) for side in (queries, tiles)]
    note = f"No pairs. Positions known for {known[0]} of {len(queries)} queries and {known[1]} of {len(tiles)} tiles."
    wrong += wrong_too
    if wrong:
        note += f" {len(wrong)} files with damaged or impossible positions in their tags, such as {wrong[0]}."
    return Dataset("folders", split, queries, tiles, Positives.unknown(len(queries)), note=note)


def _images(root: Path, what: str, table: Path | str | None) -> tuple[FileImages, list[str]]:
    """Images with their positions, and files whose tags hold no position that is possible."""
    images, wrong = image_folder(root, "", what), []
    if table is not None:
        ids, places = read_position_table(table)
        at = table_rows(images.ids, ids, table)
        positions = Positions(np.where(at[:, None] >= 0, places.values[at], np.nan), places.frame, str(table))
    else:
        tags = [image_position(root / name) for name in images.paths]
        wrong = [name for name, at in zip(images.paths, tags, strict=True) if at and math.isnan(at[0])]
        found = Positions([at or (math.nan, math.nan) for at in tags], Wgs84(), str(root))
        positions = found if found.known.any() else None
    return replace(images, positions=positions), wrong


def image_position(path: Path | str) -> tuple[float, float] | None:
    """Latitude and longitude in degrees by EXIF GPS; None if the image has none, NaN twice if they are damaged or impossible."""
    nothing = math.nan, math.nan
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
    """Whether the medians of positions in degrees lie 100 km apart, but not with latitude and longitude exchanged."""
    if not all(isinstance(p.frame, Wgs84) and p.known.any() for p in (values, reference)):
        return False
    here, there = (np.median(p.values[p.known], axis=0) for p in (values, reference))
    return bool(abs(here[1]) <= 90 and haversine(here, there) > 1e5 >= haversine(here[::-1], there))
