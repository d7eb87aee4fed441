"""Tile names of Web Mercator pyramids: z/x/y from the north (xyz), from the south (tms), or z/y/x of ArcGIS (zyx).

The three cannot be told apart by a name. What tells them is what fits: a manifest beside the tiles, ArcGIS's own names in
hexadecimal digits, or the pictures themselves, whose edges meet in one reading alone. Where nothing does, xyz is taken and
said.
"""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ucvgl.errors import InputError

Scheme = Literal["xyz", "tms", "zyx"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
MERCATOR_EDGE_M = 2 * np.pi * 6_378_137.0
MEETS = 0.6  # by how much edges must differ less in one reading than in the others
PAIRS = 60  # of neighbours looked at, of each kind
ASSUMED = (
    "tile names are read as z/x/y with rows from the north (--scheme xyz): nothing beside the tiles says so, and other "
    "readings fit as well; tiles saved from an ArcGIS service are z/y/x (--scheme zyx), TMS counts from the south (--scheme tms)"
)
_THREE = re.compile(r"(?<!\d)(\d{1,9})[/_-](\d{1,9})[/_-](\d{1,9})(?:@\dx)?$")
_ESRI = re.compile(r"(?:^|/)L(\d{1,2})/R([0-9a-f]{8})/C([0-9a-f]{8})$", re.IGNORECASE)


def tile_numbers(names: Sequence[str]) -> tuple[np.ndarray, bool]:
    """(N, 3) int64 from the ends of file names, level first, -1 where there are none; and whether they are ArcGIS's own.

    z/x/y, z_x_y and z-x-y; x_y_z only where that explains more of the names, so never when both readings do; and
    L18/R0001abcd/C0002abcd of ArcGIS's exploded caches.
    """
    stems = [name.rpartition(".")[0] for name in names]
    esri = [_ESRI.search(stem) for stem in stems]
    if any(esri):
        rows = [[int(m[1]), int(m[2], 16), int(m[3], 16)] if m else [-1, -1, -1] for m in esri]
        return np.array(rows, np.int64), True
    found = [_THREE.search(stem) for stem in stems]
    three = np.array([[int(g) for g in m.groups()] if m else [-1, -1, -1] for m in found], np.int64).reshape(-1, 3)

    def read(order: list[int]) -> np.ndarray:
        z, x, y = (three[:, order].T[k] for k in range(3))
        side = np.left_shift(1, z.clip(0, 30))
        fits = (z >= 0) & (z <= 30) & (x >= 0) & (y >= 0) & (x < side) & (y < side)
        return np.where(fits[:, None], three[:, order], -1)

    first, last = read([0, 1, 2]), read([2, 0, 1])
    return (last if (last[:, 0] >= 0).sum() > (first[:, 0] >= 0).sum() else first), False


def as_xyz(tile: np.ndarray, scheme: Scheme) -> np.ndarray:
    """(N, 3) numbers of names -> zoom, column from the west and row from the north."""
    z, a, b = tile.T
    x, y = {"xyz": (a, b), "tms": (a, (1 << z) - 1 - b), "zyx": (b, a)}[scheme]
    return np.stack([z, x, y], 1)


def tell_scheme(
    root: Path, tile: np.ndarray, edges: Sequence[np.ndarray | None], stated: Scheme | None, esri: bool
) -> tuple[Scheme, str]:
    """How the names are to be read, and what a reader must know of it, or ''.

    Args:
        root: the folder of tiles; manifests lie in it, below it or beside it.
        tile: (N, 3) numbers of names, of one level.
        edges: of each tile (4, K, 3): its northern, southern, western and eastern edge; None where not known.
        stated: by the caller.
        esri: the names are ArcGIS's own.

    Raises:
        InputError: the statement and the manifest contradict each other, or the manifest is of another projection.
    """
    found = _manifest(root)
    said = "zyx" if esri else found and _by_manifest(found, tile)
    where = found.path if found and not esri else root
    if stated and said and stated != said:
        raise InputError(
            where, expected=f"tile names as --scheme {stated}", found=f"it says, or its extent fits, {said}",
            todo=f"Leave --scheme out, or say --scheme {said}; if the manifest is of other tiles, move it away.",
        )  # fmt: skip
    if stated or said:
        return stated or said, "" if stated or esri else f"tile names are {said}, as {where.name} says"
    met = _by_edges(tile, edges)
    if met:
        return (
            met,
            "" if met == "xyz" else f"tile names are {met}: only so the pictures' edges meet (else say --scheme)",
        )
    return "xyz", ASSUMED


# ---------------------------------------------------------------------------------------------------------- the manifest


@dataclass(frozen=True)
class _Manifest:
    path: Path
    scheme: Scheme | None
    bounds: tuple[float, ...] | None  # as they stand: four numbers, degrees or Web Mercator's metres


def _manifest(root: Path) -> _Manifest | None:
    """What tilemapresource.xml (gdal2tiles), metadata.json or tile.json (TileJSON) or conf.xml (ArcGIS) says."""
    folders = [root, *[p for p in sorted(root.iterdir()) if p.is_dir()], root.parent]
    for folder in folders:
        listed = {p.name.lower(): p for p in sorted(folder.iterdir()) if p.is_file()}
        for name in ("tilemapresource.xml", "metadata.json", "tile.json", "tiles.json", "tilejson.json", "conf.xml"):
            if name in listed and (found := _read_manifest(listed[name])):
                return found
    return None


def _read_manifest(path: Path) -> _Manifest | None:
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix.lower() == ".json":
        with suppress(ValueError, TypeError, AttributeError):
            fields = json.loads(text)
            scheme, bounds = fields.get("scheme"), fields.get("bounds")
            bounds = bounds.split(",") if isinstance(bounds, str) else bounds
            box = tuple(float(v) for v in bounds) if bounds and len(bounds) == 4 else None
            if scheme in SCHEMES or box:
                return _Manifest(path, scheme if scheme in SCHEMES else None, box)
        return None
    if "<CacheInfo" in text:
        return _Manifest(path, "zyx", None)
    profile = re.search(r"<TileSets[^>]*\bprofile\s*=\s*[\"']([^\"']+)", text)
    if profile and profile[1] not in ("mercator", "global-mercator"):
        raise InputError(
            path, expected="tiles in Web Mercator (profile mercator)", found=f"profile {profile[1]}",
            todo="Make them with gdal2tiles --profile=mercator, or give the picture they were cut from as GeoTIFF.",
        )  # fmt: skip
    box = re.search(r"<BoundingBox\b([^>]*)>", text)
    found = dict(re.findall(r"(minx|miny|maxx|maxy)\s*=\s*[\"']([-+.\deE]+)", box[1] if box else ""))
    bounds = tuple(float(found[k]) for k in ("minx", "miny", "maxx", "maxy")) if len(found) == 4 else None
    return _Manifest(path, "tms", bounds) if profile or bounds else None


def _by_manifest(found: _Manifest, tile: np.ndarray) -> Scheme | None:
    """The one reading that lies in the manifest's extent; where that does not tell, what the manifest says."""
    fits = [scheme for scheme in SCHEMES if found.bounds and _inside(found.bounds, as_xyz(tile, scheme))]
    return (
        fits[0]
        if len(fits) == 1 and found.scheme not in fits
        else found.scheme or (fits[0] if len(fits) == 1 else None)
    )


def _inside(bounds: tuple[float, ...], tile: np.ndarray) -> bool:
    """Whether nearly all tiles touch an extent; old gdal2tiles wrote degrees with the latitude first."""
    half = MERCATOR_EDGE_M / 2
    edge = MERCATOR_EDGE_M / 2.0 ** tile[:, 0]
    west, north = tile[:, 1] * edge - half, half - tile[:, 2] * edge
    boxes = [bounds]
    if max(map(abs, bounds)) <= 180:
        boxes = [_mercator(bounds), _mercator((bounds[1], bounds[0], bounds[3], bounds[2]))]
    for left, low, right, high in boxes:
        touches = (west + edge > left) & (west < right) & (north > low) & (north - edge < high)
        if touches.mean() > 0.9:
            return True
    return False


def _mercator(degrees: tuple[float, ...]) -> tuple[float, ...]:
    lon, lat = np.array(degrees[::2]), np.clip(degrees[1::2], -85.05, 85.05)
    x, y = lon / 360 * MERCATOR_EDGE_M, np.arctanh(np.sin(np.radians(lat))) * 6_378_137.0
    return float(x[0]), float(y[0]), float(x[1]), float(y[1])


# ------------------------------------------------------------------------------------------------------------- the edges

NORTH, SOUTH, WEST, EAST = range(4)


def _by_edges(tile: np.ndarray, edges: Sequence[np.ndarray | None]) -> Scheme | None:
    """The reading in which the edges of neighbouring pictures meet; None where no reading stands out."""
    at = {tuple(numbers): edge for numbers, edge in zip(tile.tolist(), edges, strict=True) if edge is not None}

    def apart(step: tuple[int, int], mine: int, theirs: int) -> float:
        """How much the edges of neighbours differ on the average; 0 without neighbours."""
        pairs = [
            (e, at[z, a + step[0], b + step[1]]) for (z, a, b), e in at.items() if (z, a + step[0], b + step[1]) in at
        ]
        pairs = pairs[:: max(1, len(pairs) // PAIRS)]
        return float(np.mean([np.abs(e[mine] - o[theirs]).mean() for e, o in pairs])) if pairs else 0.0

    first, second = (1, 0), (0, 1)
    sums: dict[Scheme, float] = {
        "xyz": apart(first, EAST, WEST) + apart(second, SOUTH, NORTH),
        "tms": apart(first, EAST, WEST) + apart(second, NORTH, SOUTH),
        "zyx": apart(first, SOUTH, NORTH) + apart(second, EAST, WEST),
    }
    (best, least), (_, next_best), _ = sorted(sums.items(), key=lambda item: item[1])
    return best if least < MEETS * next_best else None
