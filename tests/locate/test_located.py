"""The result's files: read back as written, valid for others, atomic, beside nothing of somebody else's; errors in metres."""

import csv
import json
import re
import sqlite3
import struct
from contextlib import closing
from types import SimpleNamespace

import geo_inputs as g
import numpy as np
import pytest
from geo_inputs import ORIGIN, place, truth_of
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS

from ucvgl.errors import InputError
from ucvgl.locate import located as m
from ucvgl.locate.pictures import Picture
from ucvgl.positions import Positions, Wgs84, from_metres


def test_each_picture_stands_at_its_best_candidate():
    centre_m = np.column_stack([20.0 * np.arange(5), np.zeros(5)])
    where = Positions(from_metres(centre_m, ORIGIN), Wgs84())
    images = SimpleNamespace(ids=[f"t{i}" for i in range(5)], positions=where)
    candidates = SimpleNamespace(images=images, centre_m=centre_m)
    best = np.array([[2, 3, 0, 1, 4], [0, 1, 2, 3, 4]])
    pictures = [Picture("a", "panorama", 64, 32, heading_deg=-90.0, notes=("dark", "tilted")),
                Picture("b", "panorama", 64, 32, heading_deg=359.97)]  # fmt: skip
    found = m.places(pictures, candidates, best, 0.1 * best, np.array([0.88, 0.12]))
    assert tuple(found.columns) == m.HEADER
    first, second = m.records(found)
    assert (first["picture"], first["probability"], first["notes"]) == ("a", 0.88, "dark; tilted")
    assert (first["latitude"], first["longitude"]) == pytest.approx(tuple(where.values[2]), abs=1e-7)
    assert [first[f"candidate_{n}_tile"] for n in range(1, 6)] == ["t2", "t3", "t0", "t1", "t4"]
    assert [first[f"candidate_{n}_distance_m"] for n in range(1, 6)] == [0, 20, 40, 20, 40]
    assert (first["heading_deg"], second["heading_deg"], second["notes"]) == (270, 0, "")


names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
metres = st.floats(-1e4, 1e4)
rows = st.builds(
    place, names, st.floats(0, 1), metres, metres, st.lists(st.tuples(names, metres, metres), max_size=4), tile=names,
    heading_deg=st.one_of(st.none(), st.floats(0, 360)), notes=names,
)  # fmt: skip


@given(st.lists(rows, max_size=4, unique_by=lambda row: row["picture"]))
def test_what_is_written_is_read_back_whatever_the_names(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("out")
    m.write_positions(folder, g.table(*rows))
    with (folder / "positions.csv").open(encoding="utf-8", newline="") as file:
        header, *written = csv.reader(file)
    assert tuple(header) == m.HEADER
    for cells, row in zip(written, rows, strict=True):
        given = [row.get(name) for name in m.HEADER]
        texts = [isinstance(value, str) for value in given]
        read = [cell if text else float(cell) if cell else None for cell, text in zip(cells, texts, strict=True)]
        assert read == given
    collection = json.loads((folder / "positions.geojson").read_text(encoding="utf-8"))
    assert [f["properties"]["picture"] for f in collection["features"]] == [row["picture"] for row in rows]
    assert len(list(folder.iterdir())) == 3


def test_geojson_is_what_rfc_7946_says(tmp_path):
    one = place(others=[("u", 20, 0)], notes="dark; tilted")
    m.write_positions(tmp_path, g.table(one))
    collection = json.loads((tmp_path / "positions.geojson").read_text(encoding="utf-8"))
    (found,) = collection.pop("features")
    properties, geometry = found.pop("properties"), found.pop("geometry")
    assert (collection, found) == ({"type": "FeatureCollection"}, {"type": "Feature"})  # no crs: WGS84
    assert geometry == {"type": "Point", "coordinates": [one["longitude"], one["latitude"]]}
    assert (properties["notes"], properties["heading_deg"]) == ("dark; tilted", None)
    assert (properties["candidate_2_tile"], properties["candidate_3_tile"]) == ("u", None)


def test_the_geopackage_is_what_ogc_asks_for(tmp_path):
    """Requirements of OGC 12-128r18 by their numbers; a point's bytes by clause 2.1.3."""
    one = place("a.jpg", others=[("u", 20, 0)], notes="dark; tilted")
    m.write_positions(tmp_path, g.table(one, place("b.jpg", east=100.0)))
    path = tmp_path / "positions.gpkg"
    assert path.read_bytes()[:16] == b"SQLite format 3\0"  # 1
    with closing(sqlite3.connect(path)) as base:

        def ask(text):
            return base.execute(text).fetchall()

        for pragma, value in (
            ("application_id", 0x47504B47),
            ("user_version", 10300),
            ("integrity_check", "ok"),
        ):  # 2, 6
            assert ask(f"PRAGMA {pragma}") == [(value,)]
        assert ask("PRAGMA foreign_key_check") == []  # 7
        known = dict(ask("SELECT srs_id, definition FROM gpkg_spatial_ref_sys"))  # 11
        assert (set(known), CRS.from_wkt(known[4326]).to_epsg()) == ({-1, 0, 4326}, 4326)
        ((*what, changed),) = ask("SELECT table_name, data_type, srs_id, min_x < max_x, last_change FROM gpkg_contents")
        assert what == ["positions", "features", 4326, 1]  # 13, 18
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", changed)  # 15
        assert ask("SELECT * FROM gpkg_geometry_columns") == [("positions", "geom", "POINT", 4326, 0, 0)]  # 21 to 28
        columns = {row[1]: (row[2], row[5]) for row in ask("PRAGMA table_info(positions)")}
        assert (columns.pop("fid"), columns.pop("geom")) == (("INTEGER", 1), ("POINT", 0))  # 29, 31
        assert (set(columns), {kind for kind, _ in columns.values()} - {"TEXT", "REAL"}) == (set(m.HEADER), set())  # 5
        blob, *row = ask("SELECT geom, probability, candidate_3_tile, notes, candidate_2_tile FROM positions")[0]
        assert row == [0.8, None, "dark; tilted", "u"]
    # 19: little-endian, a point
    expected = b"GP", 0, 1, 4326, 1, 1, one["longitude"], one["latitude"]
    assert struct.unpack("<2sBBiBIdd", blob) == expected


def test_absent_empty_and_own_folders_are_taken(tmp_path):
    folder = tmp_path / "a" / "b"
    assert m.check_folder(folder) == folder
    assert not folder.exists()
    folder.mkdir(parents=True)
    for name in (".report.md.123.partial", "positions.csv"):  # the first of a run that was killed at once
        (folder / name).write_text("kept")
    assert m.check_folder(folder) == folder
    assert (folder / "positions.csv").read_text() == "kept"
    (folder / "holiday.jpg").write_text("mine")
    for path, says in ((folder, r"found 'holiday\.jpg'"), (folder / "holiday.jpg", "Not a directory")):
        with pytest.raises(InputError, match=rf"{says}.* Choose another folder"):
            m.check_folder(path)


def test_errors_are_metres_and_unknown_ones_are_left_out():
    found = g.table(
        place("a.jpg", 0.9),  # 5 m off
        place("b.jpg", 0.8, others=[("u", 100, 0)]),  # 103 m off, its second candidate 3 m
        place("c.jpg", 0.3),  # 30 m off
        place("d.jpg", 0.1),  # not known
    )
    truth = truth_of(a=(3.0, 4.0), b=(103.0, 0.0), c=(0.0, 30.0))
    away = m.errors_m(found, truth)
    assert away[:, 0] == pytest.approx([5, 103, 30, np.nan], rel=6e-3, nan_ok=True)
    assert away[0, 1:].tolist() == [np.inf] * 4
    assert np.isnan(away[3]).all()
    assert m.compare(found, truth) == {
        "known": 3, "radius_m": 10, "recall": pytest.approx(1 / 3), "recall_5": pytest.approx(2 / 3),
        "median_error_m": pytest.approx(30, rel=6e-3),  # a sphere for an ellipsoid
        "p90_error_m": pytest.approx(30 + 0.8 * 73, rel=6e-3),
        "calibration_error": pytest.approx((0.1 + 0.8 + 0.3) / 3),
        "half": {"threshold": 0.8, "placed": 2, "share": 2 / 3, "claimed": pytest.approx(0.85), "true": 0.5},
    }  # fmt: skip


@pytest.mark.parametrize("key", ["city/a.jpg", "city/a", "a.jpg", "a"])
def test_truth_is_found_with_or_without_folder_and_ending_and_may_be_unknown(tmp_path, key):
    (tmp_path / "truth.csv").write_text(f"file,latitude,longitude\n{key},60.17,24.94\nb.jpg,,\n")
    assert m.read_truth(tmp_path / "truth.csv", ["city/a.jpg", "b.jpg", "c.jpg"]) == {"city/a.jpg": ORIGIN}


def test_truth_comes_from_a_table_in_degrees(tmp_path):
    (tmp_path / "truth.csv").write_text("file,east,north\na.jpg,100,200\n")
    with pytest.raises(InputError, match="latitude and longitude"):
        m.read_truth(tmp_path / "truth.csv", ["a.jpg"])
