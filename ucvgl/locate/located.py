"""Pictures on the map: what `ucvgl locate` found, as a table, GeoJSON and GeoPackage, and how far off it was.

A table of places has a row a picture and the columns of positions.csv. All positions here are WGS84, latitude and longitude in
degrees. Files are written whole or not at all, into a folder that is marked as ours; a folder that holds something else is
left alone. Truth enters in `compare` alone.
"""

import csv
import sqlite3
import struct
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyproj import CRS

from ucvgl.data.files import read_position_table, table_rows
from ucvgl.data.folders import looks_swapped
from ucvgl.errors import InputError
from ucvgl.locate.candidates import Candidates
from ucvgl.locate.confidence import BEST, RADIUS_M, Placement
from ucvgl.locate.pictures import Picture
from ucvgl.metrics import calibration_error, claimed_and_true_precision, threshold_for
from ucvgl.paths import write_json, write_text
from ucvgl.positions import Positions, Wgs84, haversine

MARK = ".ucvgl-located.json"
ANOTHER = "Choose another folder, or empty this one."
MARKED = {"made_by": "ucvgl locate", "version": 1}
NO_HEADING = "heading searched for"
# of a picture: its file's name, the place, the probability that the truth is within RADIUS_M, metres within which it is with
# 50 and 90 % (empty: the evidence does not say), the heading of its centre, and what a reader should know, joined by "; "
COLUMNS = ("picture", "latitude", "longitude", "probability", "radius_m", "radius_90_m", "heading_deg", "notes")
# of its best candidates, the first being the place: the score is a similarity, or of a drive the probability that the picture
# was taken within RADIUS_M; the distance is that from the first
CANDIDATE = ("tile", "latitude", "longitude", "score", "distance_m")
HEADER = (*COLUMNS, *(f"candidate_{n}_{field}" for n in range(1, BEST + 1) for field in CANDIDATE))
WRITTEN = ("positions.csv", "positions.geojson", "positions.gpkg")
FAR_M = 1e5  # from all tiles: no position of this city
Truth = Mapping[str, tuple[float, float]]  # latitude and longitude of some pictures, by their files' names

# ---------------------------------------------------------------------------------------------------------- the result


def places(
    pictures: Sequence[Picture],
    headings_deg: np.ndarray,
    known: np.ndarray,
    candidates: Candidates,
    placement: Placement,
) -> pd.DataFrame:
    """Pictures (N,) with their headings (N,), known or found, and where they were placed: a row each, of HEADER."""
    degrees = candidates.positions.values.round(7)  # a centimetre
    best = placement.best
    radii_m = np.where(np.isfinite(placement.radii_m), placement.radii_m, np.nan).round(1)  # (N, 2)
    notes = ["; ".join(p.notes + (NO_HEADING,) * (not said)) for p, said in zip(pictures, known, strict=True)]
    table = pd.DataFrame({
        "picture": [picture.file for picture in pictures], "latitude": degrees[best[:, 0], 0],
        "longitude": degrees[best[:, 0], 1], "probability": placement.probability.round(4), "radius_m": radii_m[:, 0],
        "radius_90_m": radii_m[:, 1], "heading_deg": (headings_deg % 360).round(1) % 360, "notes": notes,
    })  # fmt: skip
    for n, (index, score, away) in enumerate(zip(best.T, placement.score.T, placement.distance_m.T, strict=True), 1):
        columns = np.array(candidates.ids)[index], *degrees[index].T, score.round(6), away.round(1)
        for field, column in zip(CANDIDATE, columns, strict=True):
            table[f"candidate_{n}_{field}"] = column
    return table.reindex(columns=list(HEADER))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table of places as JSON has them: None where something is not known, and a list of candidates."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    found = []
    for row in rows:
        best = [{field: row[f"candidate_{n}_{field}"] for field in CANDIDATE} for n in range(1, BEST + 1)]
        candidates = [one for one in best if one["tile"] is not None]
        found.append({name: row[name] for name in COLUMNS} | {"candidates": candidates})
    return found


# ----------------------------------------------------------------------------------------------------------- the files


def claim_folder(folder: Path | str, *, dry_run: bool = False) -> Path:
    """Makes `folder` ours to write in, or only looks whether it could be.

    It may be absent, empty, or marked by an earlier run, whose files then stay until replaced.

    Raises:
        InputError: it holds something else, is a file, or cannot be written.
    """
    folder = Path(folder).expanduser().resolve()
    try:
        held = folder.iterdir() if folder.exists() else ()
        names = sorted(p.name for p in held if not p.name.startswith(f".{MARK}."))  # of a killed run
        if not dry_run and not names:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / MARK, MARKED)
    except OSError as error:
        raise InputError(folder, expected="a folder that can be written", found=error, todo=ANOTHER) from error
    if names and MARK not in names:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        expected = f"an absent or empty folder, or one that {MARKED['made_by']} wrote"
        raise InputError(folder, expected=expected, found=ascii(shown), todo=ANOTHER)
    return folder


def write_positions(folder: Path, table: pd.DataFrame) -> None:
    """Writes a table of places as positions.csv, positions.geojson and positions.gpkg, each atomically.

    The GeoJSON follows RFC 7946: WGS84, longitude first, points; all else are properties. The GeoPackage follows OGC
    12-128r18 (1.3): a layer of points in WGS84 with the table's columns.
    """
    # quotes guard any name
    write_text(folder / WRITTEN[0], table.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n"))
    features = []
    for row in records(table):
        latitude, longitude = row.pop("latitude"), row.pop("longitude")
        point = {"type": "Point", "coordinates": [longitude, latitude]}
        features.append({"type": "Feature", "geometry": point, "properties": row})
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
    ahead = pd.DataFrame({"fid": range(1, len(table) + 1), "geom": points})
    box = [*where.min().tolist(), *where.max().tolist()] if len(table) else [None] * 4
    with closing(sqlite3.connect(path)) as base, base:
        base.executescript(_GEOPACKAGE)
        wgs84 = CRS.from_epsg(4326).to_wkt("WKT1_GDAL")
        base.execute("INSERT INTO gpkg_spatial_ref_sys VALUES ('WGS 84', 4326, 'EPSG', 4326, ?, NULL)", (wgs84,))
        pd.concat([ahead, table], axis=1).to_sql("positions", base, index=False, dtype=kinds)
        base.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, min_x, min_y, max_x, max_y, srs_id) "
            "VALUES ('positions', 'features', 'positions', ?, ?, ?, ?, 4326)", box,
        )  # fmt: skip
        base.execute("INSERT INTO gpkg_geometry_columns VALUES ('positions', 'geom', 'POINT', 4326, 0, 0)")


# ----------------------------------------------------------------------------------------------------- against the truth


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


def errors_m(table: pd.DataFrame, truth: Truth) -> np.ndarray:
    """(N, 5) great-circle metres from the truth, by pictures' names, to each candidate.

    NaN where truth is unknown, inf beyond the last candidate.
    """
    known = np.array([truth.get(name, (np.nan, np.nan)) for name in table["picture"]]).reshape(-1, 1, 2)
    of = [[f"candidate_{n}_{field}" for n in range(1, BEST + 1)] for field in ("latitude", "longitude")]
    away = haversine(np.stack([table[names].to_numpy(np.float64) for names in of], axis=-1), known)
    return np.where(np.isnan(away) & ~np.isnan(known[:, :, 0]), np.inf, away)


def placed_right(table: pd.DataFrame, truth: Truth) -> np.ndarray:
    """(N, 5) 1 where a candidate, of which the first is the place, lies within RADIUS_M of the truth, NaN where that is unknown."""
    away = errors_m(table, truth)
    return np.where(np.isnan(away), np.nan, away <= RADIUS_M)


def compare(table: pd.DataFrame, truth: Truth) -> dict[str, Any]:
    """How far off the places are, and whether their probabilities hold; pictures without a known position are left out.

    Returns:
        known, how many have one; radius_m, within which a place counts as right; recall and recall_5, the fractions that is
        right, or has one of the best five right; median_error_m and p90_error_m; the expected calibration_error, 0 to 1; and
        half, the fields of `metrics.Precision` for the more probable half.
    """
    error = errors_m(table, truth)
    known = ~np.isnan(error[:, 0])
    error, p = error[known], table["probability"].to_numpy()[known]
    right = error[:, 0] <= RADIUS_M
    median, high = np.quantile(error[:, 0], (0.5, 0.9)).tolist()
    return {
        "known": int(known.sum()), "radius_m": RADIUS_M, "recall": float(right.mean()),
        "recall_5": float((error <= RADIUS_M).any(1).mean()), "median_error_m": median, "p90_error_m": high,
        "calibration_error": calibration_error(p, right),
        "half": asdict(claimed_and_true_precision(p, right, threshold_for(p, 0.5))),
    }  # fmt: skip
