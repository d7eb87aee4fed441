"""Tile names of Web Mercator pyramids: z/x/y from the north (xyz), from the south (tms), or z/y/x of ArcGIS (zyx).

A name alone does not tell which of the three it is. What does: a manifest beside the tiles, ArcGIS's own names in
hexadecimal digits, or the images, whose edges meet in only one reading. If nothing does, xyz is taken, with a note.
"""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import numpy as np
from pyproj import Transformer

from ucvgl.errors import InputError

Scheme = Literal["xyz", "tms", "zyx"]
SCHEMES: tuple[Scheme, ...] = ("xyz", "tms", "zyx")
MERCATOR_EDGE_M = 2 * np.pi * 6_378_137.0
MEETS = 0.6  # by how much edges must differ less in one reading than in the others
MANIFESTS = ("tilemapresource.xml", "metadata.json", "tile.json", "tiles.json", "tilejson.json", "conf.xml")
ASSUMED = (
    "tile names are read as z/x/y with rows from the north (--scheme xyz): nothing beside the tiles says so, and other "
    "readings fit as well; tiles saved from an ArcGIS service are z/y/x (--scheme zyx), TMS counts from the south (--scheme tms)"
)
_THREE = re.compile(r"(?<!\d)(\d{1,9})[/_-](\d{1,9})[/_-](\d{1,9})(?:@\dx)?$")
_ESRI = re.compile(r"(?:^|/)L(\d{1,2})/R([0-9a-f]{8})/C([0-9a-f]{8})$", re.IGNORECASE)


def tile_numbers(names: Sequence[str]) -> tuple[np.ndarray, bool]:
    """(N, 3) int64 from the ends of file names, z/x/y, z_x_y or z-x-y, level first, -1 where there are none; and
    whether they are L18/R0001abcd/C0002abcd of ArcGIS's exploded caches."""
    stems = [name.rpartition(".")[0] for name in names]
    is_esri = any(map(_ESRI.search, stems))
    found, bases = map((_ESRI if is_esri else _THREE).search, stems), (10, 16, 16) if is_esri else (10, 10, 10)
    tile = np.array([[*map(int, match.groups(), bases)] if match else [-1] * 3 for match in found]).reshape(-1, 3)
    z, x, y = tile.T
    is_tile = (z >= 0) & (z <= 30) & (np.maximum(x, y) < 1 << z.clip(0, 30))
    return np.where(is_tile[:, None], tile, -1), is_esri


def as_xyz(tile: np.ndarray, scheme: Scheme) -> np.ndarray:
    """(N, 3) numbers of names -> zoom, column from the west and row from the north."""
    z, a, b = tile.T
    x, y = {"xyz": (a, b), "tms": (a, (1 << z) - 1 - b), "zyx": (b, a)}[scheme]
    return np.stack([z, x, y], 1)


def tell_scheme(
    root: Path, tile: np.ndarray, thumbs: Sequence[np.ndarray], stated: Scheme | None
) -> tuple[Scheme, str]:
    """How the numbers (N, 3) of names, of one level, are to be read, and what a reader must know of it, or ''; thumbs:
    each tile at a small size (bands, rows, columns). InputError: the statement contradicts the manifest."""
    said, bounds, where = _manifest(root)
    fits = [scheme for scheme in SCHEMES if bounds and _inside(bounds, as_xyz(tile, scheme))]
    if len(fits) == 1 and said != "geodetic":
        said = fits[0]  # a manifest may be left behind from another run
    if said == "geodetic" or (stated and said and stated != said):
        expected = f"Web Mercator tiles named as --scheme {stated or 'xyz, tms or zyx'}"
        raise InputError(where, expected, f"it says, or its extent fits, {said}", "Say the same, or move it away if it "
                         "is of other tiles; make them anew with gdal2tiles --profile=mercator.")  # fmt: skip
    if stated or said:
        return stated or said, "" if stated else f"tile names are {said}, as {where.name} says"
    met = _by_edges(tile, thumbs)
    if met in (None, "xyz"):
        return "xyz", "" if met else ASSUMED
    return met, f"tile names are {met}: only so the images' edges meet (else say --scheme)"


def _manifest(root: Path) -> tuple[str | None, list[float], Path]:
    """What metadata.json, TileJSON, tilemapresource.xml (gdal2tiles) or conf.xml (ArcGIS) in the folder, below it or
    beside it says: the reading, and the extent as two corners; and where it stands."""
    folders = (root, *sorted(path for path in root.iterdir() if path.is_dir()), root.parent)
    for path in (path for folder in folders for path in sorted(folder.iterdir()) if path.name.lower() in MANIFESTS):
        with suppress(OSError, ValueError, TypeError, AttributeError, KeyError, ElementTree.ParseError):  # no manifest
            if path.suffix.lower() == ".json":
                fields = json.loads(path.read_text(encoding="utf-8", errors="replace"))
                said, box = fields.get("scheme"), fields.get("bounds") or []
                box = box.split(",") if isinstance(box, str) else box
            elif (tree := ElementTree.fromstring(path.read_bytes())).tag == "CacheInfo":
                said, box = "zyx", []
            else:
                is_mercator = all(one.get("profile", "mercator").endswith("mercator") for one in tree.iter("TileSets"))
                said = "tms" if is_mercator else "geodetic"
                box = [tree.find("BoundingBox").attrib[key] for key in ("minx", "miny", "maxx", "maxy")]
            said, box = said if said in (*SCHEMES, "geodetic") else None, [*map(float, box)] if len(box) == 4 else []
            if said or box:
                return said, box, path
    return None, [], root


def _inside(bounds: Sequence[float], tile: np.ndarray) -> bool:
    """Whether nearly all tiles touch an extent in metres or degrees; old gdal2tiles wrote latitudes first."""
    edge = MERCATOR_EDGE_M / 2.0 ** tile[:, :1]
    middle = (tile[:, 1:] + 0.5) * edge * (1, -1) + np.multiply(MERCATOR_EDGE_M / 2, (-1, 1))
    boxes = [np.reshape(bounds, (2, 2))]  # the two corners
    if np.abs(bounds).max() <= 180:
        to_mercator = Transformer.from_crs("EPSG:4326", "EPSG:3857", always_xy=True)
        boxes = [np.stack(to_mercator.transform(*box.T), 1) for box in (boxes[0], boxes[0][:, ::-1])]
    return any((np.abs(middle - b.mean(0)) < (np.ptp(b, 0) + edge) / 2).all(1).mean() > 0.9 for b in boxes)


def _by_edges(tile: np.ndarray, thumbs: Sequence[np.ndarray]) -> Scheme | None:
    """The reading in which the edges of neighbouring images meet; None where no reading stands out."""
    apart: dict[Scheme, float] = {}
    for scheme in SCHEMES:
        places = map(tuple, as_xyz(tile, scheme)[:, 1:].tolist())
        at = dict(zip(places, map(np.nan_to_num, thumbs), strict=True))
        east = [(image[..., -1], at[x + 1, y][..., 0]) for (x, y), image in at.items() if (x + 1, y) in at]
        south = [(image[:, -1], at[x, y + 1][:, 0]) for (x, y), image in at.items() if (x, y + 1) in at]
        apart[scheme] = float(np.mean([np.abs(one - other).mean() for one, other in east + south] or [0.0]))
    best, next_best, _ = sorted(SCHEMES, key=apart.__getitem__)
    return best if apart[best] < MEETS * apart[next_best] else None
