"""Pictures on the map: what `ucvgl locate` found, as a table, GeoJSON and GeoPackage, and how far off it was.

All positions here are WGS84, latitude and longitude in degrees. Files are written whole or not at all, into a folder that is
marked as ours; a folder that holds something else is left alone. Truth enters in `compare` alone.
"""

import csv
import sqlite3
import struct
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from pyproj import CRS

from ucvgl.data.files import read_position_table, table_rows
from ucvgl.data.folders import looks_swapped
from ucvgl.errors import InputError
from ucvgl.locate.confidence import BEST, RADIUS_M
from ucvgl.metrics import Precision, calibration_error, claimed_and_true_precision, threshold_for
from ucvgl.paths import write_json, write_text
from ucvgl.positions import Positions, Wgs84, haversine

MARK = ".ucvgl-located.json"
ANOTHER = "Choose another folder, or empty this one."
MARKED = {"made_by": "ucvgl locate", "version": 1}
COLUMNS = ("picture", "latitude", "longitude", "probability", "radius_m", "radius_90_m", "heading_deg", "notes")
WRITTEN = ("positions.csv", "positions.geojson", "positions.gpkg")
FAR_M = 1e5  # from all tiles: no position of this city
Truth = Mapping[str, tuple[float, float]]  # latitude and longitude of some pictures, by their files' names

# ---------------------------------------------------------------------------------------------------------- the result


class Candidate(NamedTuple):
    """One of a picture's best candidates."""

    tile: str
    latitude: float  # degrees, of its centre
    longitude: float
    score: float  # a similarity; of a drive the probability that the picture was taken within RADIUS_M
    distance_m: float  # from the best one


@dataclass(frozen=True)
class Located:
    """Where a picture was taken, as far as the imagery tells."""

    picture: str  # its file name
    latitude: float  # degrees
    longitude: float
    probability: float  # that the true place lies within RADIUS_M of this one, 0 to 1
    radius_m: float | None  # within which it lies with 50 % (`confidence.radius`); None: the evidence does not say
    radius_90_m: float | None  # the same with 90 %
    candidates: tuple[Candidate, ...]  # one to five, the best first
    heading_deg: float | None = None  # of the picture's centre, clockwise from north, 0 to 360; None: not known
    notes: tuple[str, ...] = ()  # what a reader should know of this picture; no "; " within one


HEADER = (*COLUMNS, *(f"candidate_{n}_{field}" for n in range(1, BEST + 1) for field in Candidate._fields))


# ----------------------------------------------------------------------------------------------------------- the files


def claim_folder(folder: Path | str) -> Path:
    """Makes `folder` ours to write in: absent, empty, or marked by an earlier run, whose files then stay until replaced.

    Raises:
        InputError: it holds something else, is a file, or cannot be written.
    """
    folder = Path(folder).expanduser().resolve()
    try:
        if not is_claimed(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / MARK, MARKED)
    except OSError as error:
        raise InputError(folder, expected="a folder that can be written", found=error, todo=ANOTHER) from error
    return folder


def is_claimed(folder: Path) -> bool:
    """Whether an earlier run wrote to this folder; InputError if it is not ours to write in. Changes nothing."""
    if not folder.exists():
        return False
    try:
        names = sorted(p.name for p in folder.iterdir() if not p.name.startswith(f".{MARK}."))  # of a killed run
    except OSError as error:
        raise InputError(folder, expected="a folder that can be written", found=error, todo=ANOTHER) from error
    if names and MARK not in names:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        expected = f"an absent or empty folder, or one that {MARKED['made_by']} wrote"
        raise InputError(folder, expected=expected, found=ascii(shown), todo=ANOTHER)
    return MARK in names


def write_positions(folder: Path, located: Sequence[Located]) -> None:
    """Writes positions.csv, positions.geojson and positions.gpkg, each atomically.

    The table has a row a picture: COLUMNS, then candidate_1_tile, candidate_1_latitude and so on; what is not known is
    empty. The GeoJSON follows RFC 7946: WGS84, longitude first, points; candidates and notes are properties. The
    GeoPackage follows OGC 12-128r18 (1.3): a layer of points in WGS84 with the table's columns.
    """
    rows, features = [], []
    for one in located:
        row = [getattr(one, name) for name in COLUMNS[:-1]] + ["; ".join(one.notes)]
        rows.append(row + [cell for candidate in one.candidates for cell in candidate])
        properties = {
            name: cell for name, cell in zip(COLUMNS, row, strict=True) if name not in ("latitude", "longitude")
        }
        point = {"type": "Point", "coordinates": [one.longitude, one.latitude]}
        properties["candidates"] = [candidate._asdict() for candidate in one.candidates]
        features.append({"type": "Feature", "geometry": point, "properties": properties})
    table = pd.DataFrame([row + [None] * (len(HEADER) - len(row)) for row in rows], columns=list(HEADER))
    # quotes guard any name
    write_text(folder / WRITTEN[0], table.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n"))
    write_json(folder / WRITTEN[1], {"type": "FeatureCollection", "features": features})
    partial = folder / f".{WRITTEN[2]}.partial"
    try:
        partial.unlink(missing_ok=True)  # of a killed run
        _write_geopackage(partial, table)
        partial.replace(folder / WRITTEN[2])
    finally:
        partial.unlink(missing_ok=True)  # a full disk, Ctrl-C


_GEOPACKAGE = """
PRAGMA application_id = 1196444487;
PRAGMA user_version = 10300;
CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT NOT NULL, srs_id INTEGER PRIMARY KEY, organization TEXT NOT NULL,
    organization_coordsys_id INTEGER NOT NULL, definition TEXT NOT NULL, description TEXT);
CREATE TABLE gpkg_contents (table_name TEXT NOT NULL PRIMARY KEY, data_type TEXT NOT NULL, identifier TEXT UNIQUE,
    description TEXT DEFAULT '', last_change DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')),
    min_x DOUBLE, min_y DOUBLE, max_x DOUBLE, max_y DOUBLE, srs_id INTEGER,
    CONSTRAINT fk_gc_r_srs_id FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys(srs_id));
CREATE TABLE gpkg_geometry_columns (table_name TEXT NOT NULL, column_name TEXT NOT NULL, geometry_type_name TEXT NOT NULL,
    srs_id INTEGER NOT NULL, z TINYINT NOT NULL, m TINYINT NOT NULL,
    CONSTRAINT pk_geom_cols PRIMARY KEY (table_name, column_name), CONSTRAINT uk_gc_table_name UNIQUE (table_name),
    CONSTRAINT fk_gc_tn FOREIGN KEY (table_name) REFERENCES gpkg_contents(table_name),
    CONSTRAINT fk_gc_srs FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys (srs_id));
INSERT INTO gpkg_spatial_ref_sys VALUES ('Undefined cartesian', -1, 'NONE', -1, 'undefined', NULL);
INSERT INTO gpkg_spatial_ref_sys VALUES ('Undefined geographic', 0, 'NONE', 0, 'undefined', NULL);
"""


def _write_geopackage(path: Path, table: pd.DataFrame) -> None:
    """The table's rows as points: the tables that OGC's GeoPackage asks for, and one of its own."""
    texts = {"picture", "notes", *(name for name in HEADER if name.endswith("_tile"))}
    kinds = {name: "TEXT" if name in texts else "DOUBLE" for name in HEADER}
    kinds |= {"fid": "INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL", "geom": "POINT"}
    where = table[["longitude", "latitude"]]
    # a point's header (little-endian, no envelope, EPSG 4326), then well-known binary
    points = [struct.pack("<2sBBiBIdd", b"GP", 0, 1, 4326, 1, 1, *place) for place in where.to_numpy(np.float64)]
    rows = pd.concat([pd.DataFrame({"fid": range(1, len(table) + 1), "geom": points}), table], axis=1)
    box = [*where.min().tolist(), *where.max().tolist()] if len(table) else [None] * 4
    with closing(sqlite3.connect(path)) as base, base:
        base.executescript(_GEOPACKAGE)
        wgs84 = CRS.from_epsg(4326).to_wkt("WKT1_GDAL")
        base.execute("INSERT INTO gpkg_spatial_ref_sys VALUES ('WGS 84', 4326, 'EPSG', 4326, ?, NULL)", (wgs84,))
        rows.to_sql("positions", base, index=False, dtype=kinds)
        base.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, min_x, min_y, max_x, max_y, srs_id) "
            "VALUES ('positions', 'features', 'positions', ?, ?, ?, ?, 4326)", box,
        )  # fmt: skip
        base.execute("INSERT INTO gpkg_geometry_columns VALUES ('positions', 'geom', 'POINT', 4326, 0, 0)")


# ----------------------------------------------------------------------------------------------------- against the truth


@dataclass(frozen=True)
class Comparison:
    """Located pictures against known positions."""

    known: int  # how many of the pictures have one
    radius_m: float  # within which a place counts as right
    recall: float  # fraction of the known ones that is right, 0 to 1
    recall_5: float  # fraction of which one of the best five is right
    median_error_m: float
    p90_error_m: float  # the 90th percentile
    calibration_error: float  # expected, 0 to 1
    half: Precision  # predicted and empirical, of the more probable half


def read_truth(path: Path | str, pictures: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Known positions of some of the pictures: a CSV with an id or file column, latitude and longitude; empty cells are unknown.

    Names may stand without folder or ending.

    Raises:
        InputError: as `data.files.read_position_table`; east and north in place of degrees; no picture's name; one name for two.
    """
    names, positions = read_position_table(path)
    if not isinstance(positions.frame, Wgs84):
        raise InputError(path, expected="latitude and longitude", found="east and north", todo="Give WGS84 degrees.")
    rows = table_rows(pictures, names, path)
    found = zip(pictures, rows.tolist(), positions.values[rows].tolist(), positions.known[rows].tolist(), strict=True)
    return {picture: (lat, lon) for picture, row, (lat, lon), known in found if row >= 0 and known}


def check_near(truth: Truth, tiles: Positions, where: Path | str) -> None:
    """InputError where known positions lie 100 km from all tiles: exchanged columns, another city, or tiles misread."""
    if not truth:
        return
    known = Positions(list(truth.values()), Wgs84(), str(where))
    if looks_swapped(known, tiles):
        raise InputError(
            where, expected="positions near the tiles", found="some far away that come near when latitude and longitude are "
            "exchanged", todo="Exchange the two columns.",
        )  # fmt: skip
    middle = np.median(tiles.values, axis=0)
    away = haversine(known.values, middle)
    if away.min() > FAR_M:
        raise InputError(
            where, expected="positions near the tiles", found=f"the nearest {away.min() / 1000:,.0f} km from their middle, "
            f"{middle[0]:.4f}, {middle[1]:.4f}", todo="Check the table, and how the tiles' names are read (--scheme).",
        )  # fmt: skip


def errors_m(located: Sequence[Located], truth: Truth) -> np.ndarray:
    """(N, 5) great-circle metres from the truth, by pictures' names, to each candidate.

    NaN where truth is unknown, inf beyond the last candidate.
    """
    out = np.full((len(located), BEST), np.inf)
    for i, one in enumerate(located):
        points = np.array([(c.latitude, c.longitude) for c in one.candidates])
        out[i, : len(points)] = haversine(points, np.array(truth[one.picture])) if one.picture in truth else np.nan
    out[np.isnan(out[:, 0])] = np.nan
    return out


def placed_right(located: Sequence[Located], truth: Truth) -> np.ndarray:
    """(N, 5) 1 where a candidate, of which the first is the place, lies within RADIUS_M of the truth, NaN where that is unknown."""
    away = errors_m(located, truth)
    return np.where(np.isnan(away), np.nan, away <= RADIUS_M)


def compare(located: Sequence[Located], truth: Truth) -> Comparison:
    """How far off the places are, and whether their probabilities hold; pictures without a known position are left out."""
    error = errors_m(located, truth)
    known = ~np.isnan(error[:, 0])
    error, p = error[known], np.array([one.probability for one in located])[known]
    right = error[:, 0] <= RADIUS_M
    median, high = np.quantile(error[:, 0], (0.5, 0.9))
    return Comparison(
        int(known.sum()), RADIUS_M, float(right.mean()), float((error <= RADIUS_M).any(1).mean()), float(median),
        float(high), calibration_error(p, right), claimed_and_true_precision(p, right, threshold_for(p, 0.5)),
    )  # fmt: skip
