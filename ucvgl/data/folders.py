"""Your own imagery: a folder of panoramas or photographs, a folder of tiles, and no pairs.

Positions are optional and come, in this order, from a CSV beside the images, from the images' own tags (EXIF GPS of
photographs, GeoTIFF tags of tiles), or from tile names (z/x/y, XYZ or TMS rows). An image without any has an unknown
position.
"""

import csv
import io
import re
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ucvgl.data.files import folder, images_below, lines, numbers
from ucvgl.data.views import FileImages, Positives, Views
from ucvgl.errors import InputError
from ucvgl.positions import Metres, Positions, Wgs84, from_utm, looks_swapped

_ID = (
    "id",
    "file",
    "filename",
    "file_name",
    "name",
    "image",
    "picture",
    "path",
    "key",
    "grd_id",
    "sat_id",
    "panorama_file_name",
)
_LAT, _LON = ("lat", "latitude", "y_lat"), ("lon", "lng", "long", "longitude", "x_lon")
_EAST, _NORTH = (
    ("east", "easting", "utm_east", "utm_easting", "x"),
    ("north", "northing", "utm_north", "utm_northing", "y"),
)


def read_folders(
    ground: Path | str,
    satellite: Path | str,
    ground_csv: Path | str | None = None,
    satellite_csv: Path | str | None = None,
    tile_names: Literal["xyz", "tms"] | None = None,
    name: str = "folders",
    split: str = "all",
) -> Views:
    """N photographs or panoramas and M tiles, pairs unknown.

    Args:
        ground: the folder of photographs or panoramas, subfolders included.
        satellite: the folder of tiles.
        ground_csv: positions of the ground images: a header, an id or file column, latitude and longitude, or east and
            north.
        satellite_csv: the same for tiles.
        tile_names: tiles are named z/x/y (or z_x_y, z-x-y): "xyz" counts rows from the north, "tms" from the south. The
            position is the tile's centre.
        name: what the data set is called in results.
        split: which part this is, in words.

    Raises:
        InputError: a folder is absent or empty, a position is impossible, or one side's latitude and longitude look
            swapped.
    """
    grounds = _images(Path(ground), "photographs or panoramas", ground_csv, None)
    tiles = _images(Path(satellite), "tiles", satellite_csv, tile_names)
    if (
        grounds.positions is not None
        and tiles.positions is not None
        and looks_swapped(grounds.positions, tiles.positions)
    ):
        raise InputError(
            ground_csv or ground,
            expected="positions near the tiles",
            found="positions far away that come near when latitude and longitude are exchanged",
            todo="Exchange the two columns of the side that is wrong.",
        )
    known = [0 if i.positions is None else int(i.positions.known.sum()) for i in (grounds, tiles)]
    note = f"Positions known for {known[0]} of {len(grounds)} ground images and {known[1]} of {len(tiles)} tiles."
    return Views(name, split, grounds, tiles, Positives.unknown(len(grounds)), note=note)


def read_paired_folders(
    root: Path | str,
    ground: str = "drone",
    satellite: str = "satellite",
    same: tuple[tuple[str, str], ...] = (),
    name: str = "pairs",
) -> Views:
    """Two folders in which equal file names (without ending) show one place; `same` lists further pairs of names that do."""
    root = folder(root, f"a folder holding {ground}/ and {satellite}/")
    sides = [
        _images(root / side, f"images named as those of the other side ({side})", None, None)
        for side in (ground, satellite)
    ]
    stems = [[i.rpartition(".")[0] for i in side.ids] for side in sides]
    index = {stem: i for i, stem in enumerate(stems[1])}
    twins: dict[str, set[str]] = {}
    for a, b in same:
        twins.setdefault(a, set()).add(b)
        twins.setdefault(b, set()).add(a)
    rows = []
    for stem in stems[0]:
        row = [index[stem]] if stem in index else []
        rows.append(row + sorted(index[t] for t in twins.get(stem, ()) if t in index))
    without = sum(not row for row in rows)
    note = f"Pairs by file name; {without} of {len(rows)} ground images have none."
    return Views(name, "all", sides[0], sides[1], Positives.of(rows), note=note)


def _images(root: Path, what: str, table: Path | str | None, tile_names: str | None) -> FileImages:
    root = folder(root, f"a folder of {what}")
    names = images_below(root)
    if not names:
        raise InputError(
            root, expected=f"images ({what})", found="none", todo="Copy JPEG, PNG, TIFF or WebP images there."
        )
    if table is not None:
        positions = _from_table(Path(table), names)
    elif tile_names is not None:
        positions = _from_tile_names(root, names, tile_names)
    else:
        positions = _from_tags(root, names)
    return FileImages(str(root), tuple(names), tuple(names), positions, str(root))


# positions from a table


def read_table(path: Path) -> list[tuple[int, list[str]]]:
    """The rows of a CSV with their line numbers; the first is its header, in small letters, without units in brackets.

    Comma, semicolon or tab. InputError: quotes that do not close, a field over several lines, a wrong column count.
    """
    rows = lines(path)
    separator = max(",;\t", key=rows[0][1].count)
    try:
        cells = list(csv.reader(io.StringIO("\n".join(text for _, text in rows)), delimiter=separator, strict=True))
    except csv.Error as error:
        raise InputError(path, expected="a CSV", found=str(error), todo="Check its quotes.") from error
    if len(cells) != len(rows):
        raise InputError(
            path, expected="one row a line", found="a quoted field over several lines", todo="Remove line breaks."
        )
    header = [re.sub(r"[\[(].*?[\])]", "", cell).strip().lower() for cell in cells[0]]
    numbered = [(number, row) for (number, _), row in zip(rows, [header, *cells[1:]], strict=True)]
    for number, row in numbered:
        if len(row) != len(header):
            raise InputError(
                f"{path}:{number}", expected=f"{len(header)} columns", found=len(row), todo="Complete the row."
            )
    return numbered


def read_position_table(path: Path | str) -> tuple[list[str], Positions]:
    """Ids and positions from a CSV with a header; comma, semicolon or tab; units in brackets in the header are ignored.

    Raises:
        InputError: no id column, no pair of position columns, a wrong column count, a value that is no number, an id
            twice.
    """
    path = Path(path)
    (first, header), *rows = read_table(path)

    def column(candidates: tuple[str, ...]) -> int | None:
        return next((header.index(c) for c in candidates if c in header), None)

    which, degrees, metres = column(_ID), (column(_LAT), column(_LON)), (column(_EAST), column(_NORTH))
    pair = degrees if None not in degrees else metres
    if which is None or None in pair:
        raise InputError(
            f"{path}:{first}",
            expected="a header with an id or file column, and latitude and longitude (or east and north)",
            found=f"columns {', '.join(header)[:120]}",
            todo="Name the columns id, latitude and longitude.",
        )
    ids, values, seen = [], [], set()
    for number, row in rows:
        where = f"{path}:{number}"
        if row[which] in seen:
            raise InputError(
                where, expected="every id once", found=f"{row[which]!r} again", todo="Remove the repeated row."
            )
        seen.add(row[which])
        ids.append(row[which].strip())
        values.append(numbers(where, [row[i] for i in pair]))
        if pair == degrees and not (abs(values[-1][0]) <= 90 and abs(values[-1][1]) <= 180):
            Positions(np.array(values[-1:]), Wgs84(), where)  # raises, naming this line
    frame = Wgs84() if pair == degrees else Metres(f"the frame of {path.name}")
    return ids, Positions(np.array(values, np.float64).reshape(-1, 2), frame, str(path))


def _from_table(path: Path, names: list[str]) -> Positions:
    ids, positions = read_position_table(path)
    row = {identifier: i for i, identifier in enumerate(ids)}
    values = np.full((len(names), 2), np.nan)
    for i, name in enumerate(names):
        leaf = name.rpartition("/")[2]
        key = next((k for k in (name, leaf, name.rpartition(".")[0], leaf.rpartition(".")[0]) if k in row), None)
        if key is not None:
            values[i] = positions.values[row[key]]
    if np.isnan(values).all():
        raise InputError(
            path, expected=f"ids such as {names[0]!r}", found=f"ids such as {ids[0]!r}" if ids else "no rows",
            todo="The table's ids are file names, with or without folder and ending.",
        )  # fmt: skip
    return Positions(values, positions.frame, str(path))


# positions from tile names


def tile_centre(zoom: int, x: int, y: int, scheme: str = "xyz") -> tuple[float, float]:
    """Latitude and longitude in degrees of a Web Mercator tile's centre; "tms" counts rows from the south."""
    side = 1 << zoom
    row = side - 1 - y if scheme == "tms" else y
    lat = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * (row + 0.5) / side))))
    return float(lat), (x + 0.5) / side * 360 - 180


def _from_tile_names(root: Path, names: list[str], scheme: str) -> Positions:
    if scheme not in ("xyz", "tms"):
        raise InputError("tile_names", expected="xyz, tms or None", found=scheme, todo="Say how the rows are counted.")
    values = []
    for name in names:
        match = re.search(r"(\d{1,2})[/_-](\d{1,9})[/_-](\d{1,9})$", name.rpartition(".")[0])
        zoom, x, y = (int(g) for g in match.groups()) if match else (0, 1, 1)
        if zoom > 30 or not (x < 1 << zoom and y < 1 << zoom):
            raise InputError(
                root / name,
                expected="z/x/y (or z_x_y), x and y below 2^z",
                found=name,
                todo="Rename the tile, or give positions in a CSV.",
            )
        values.append(tile_centre(zoom, x, y, scheme))
    return Positions(np.array(values), Wgs84(), str(root))


# positions from tags


def _from_tags(root: Path, names: list[str]) -> Positions | None:
    values = np.array([image_position(root / name) or (np.nan, np.nan) for name in names])
    return None if np.isnan(values).all() else Positions(values, Wgs84(), str(root))


def image_position(path: Path | str) -> tuple[float, float] | None:
    """Latitude and longitude in degrees from an image's GeoTIFF tags (its centre) or EXIF GPS; None if it has neither.

    Raises:
        InputError: the file is no image, or its GeoTIFF names a reference system other than WGS84, Web Mercator or UTM
            on WGS84.
    """
    try:
        with open(path, "rb") as file, Image.open(file, formats=("JPEG", "PNG", "TIFF", "WEBP", "BMP")) as image:
            if (image.format == "TIFF" and 33922 in image.tag_v2) or (image.format == "TIFF" and 34264 in image.tag_v2):
                return _geotiff(path, image)
            gps = image.getexif().get_ifd(0x8825)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(path, expected="an image", found="no such file", todo="Copy the image there.") from error
    except Exception as error:  # Pillow raises whatever a damaged byte leads it to
        raise InputError(
            path,
            expected="an image with readable tags",
            found=f"{type(error).__name__}: {error}"[:160],
            todo="Copy the file again, or remove it.",
        ) from error
    try:
        lat, lon = (sum(float(part) / 60**i for i, part in enumerate(gps[key])) for key in (2, 4))
        south, west = (str(gps.get(key, "")).strip("\0 ").upper()[:1] for key in (1, 3))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    lat, lon = (-lat if south == "S" else lat), (-lon if west == "W" else lon)
    if not (np.isfinite(lat) and np.isfinite(lon)):
        return None
    Positions(np.array([[lat, lon]]), Wgs84(), str(path))  # raises for a position outside the Earth, naming the file
    return lat, lon


def _geotiff(path: Path | str, image: Image.Image) -> tuple[float, float]:
    """The centre of a GeoTIFF (OGC GeoTIFF 1.1: ModelTransformation, or ModelTiepoint with ModelPixelScale)."""
    tags = image.tag_v2
    column, row = image.width / 2, image.height / 2
    if 34264 in tags:
        m = [float(v) for v in tags[34264]]
        x, y = m[0] * column + m[1] * row + m[3], m[4] * column + m[5] * row + m[7]
    else:
        tie, scale = [float(v) for v in tags[33922]], [float(v) for v in tags[33550]]
        x, y = tie[3] + (column - tie[0]) * scale[0], tie[4] - (row - tie[1]) * scale[1]
    directory = [int(v) for v in tags.get(34735, ())]
    keys = {directory[i]: directory[i + 3] for i in range(4, len(directory) - 3, 4)}
    projected, geographic = keys.get(3072), keys.get(2048)
    if projected is None and (geographic == 4326 or not keys):
        lat, lon = y, x
    elif projected == 3857:
        radius = 6_378_137.0
        lat, lon = float(np.degrees(np.arctan(np.sinh(y / radius)))), float(np.degrees(x / radius))
    elif projected is not None and (32601 <= projected <= 32660 or 32701 <= projected <= 32760):
        north, east = from_utm([x], [y], projected % 100, south=projected >= 32700)
        lat, lon = float(north[0]), float(east[0])
    else:
        raise InputError(
            path,
            expected="EPSG 4326, 3857, 326xx or 327xx",
            found=f"EPSG {projected or geographic}",
            todo="Reproject the tiles to WGS84, or give their positions in a CSV.",
        )
    Positions(np.array([[lat, lon]]), Wgs84(), str(path))  # raises for a position outside the Earth, naming the file
    return lat, lon
