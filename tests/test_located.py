"""The result's files: read back as written, valid for others, atomic, beside nothing of somebody else's; errors in metres."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ucvgl import located as m
from ucvgl.confidence import Calibration, Evidence, EvidenceSettings, Precision
from ucvgl.errors import InputError
from ucvgl.positions import Metres, Positions, Wgs84, from_metres

ORIGIN = (60.17, 24.94)


def candidate(east=0.0, north=0.0, tile="t.png", score=0.5, distance_m=0.0):
    lat, lon = from_metres(np.array([[east, north]]), ORIGIN)[0]
    return m.Candidate(tile, float(lat), float(lon), score, distance_m)


def place(name="a.jpg", p=0.8, east=0.0, north=0.0, more=(), **changes):
    best = candidate(east, north)
    return m.Located(name, best.latitude, best.longitude, p, 10.0, None, (best, *more), **changes)


CALIBRATION = Calibration(
    ("contrast",), (0.0,), (1.0,), (2.0,), 0.0, (0.5, 0.0, 0.0, 0.0), EvidenceSettings(), "a test", 9, 5
)

# ---------------------------------------------------------------------------------------------------------- the result


def test_each_picture_stands_at_its_best_candidate():
    tiles = [f"t{i}" for i in range(5)]
    where = Positions(from_metres(np.column_stack([20.0 * np.arange(5), np.zeros(5)]), ORIGIN), Wgs84())
    best = np.array([[2, 3, 0, 1, 4], [0, 1, 2, 3, 4]])
    values = np.array([[0, 1.0, 0, 0], [0, -1.0, 0, 0]])
    evidence = Evidence(values, best, 0.1 * best, 20.0 * np.abs(best - best[:, :1]), EvidenceSettings())
    first, second = m.place_all(
        ["a", "b"], tiles, where, evidence, CALIBRATION, headings_deg=[-90, None], notes=[["dark"], []]
    )
    assert (first.picture, first.candidates[0].tile, first.notes) == ("a", "t2", ("dark",))
    assert (first.latitude, first.longitude) == pytest.approx(tuple(where.values[2]), abs=1e-7)
    assert [c.tile for c in first.candidates] == ["t2", "t3", "t0", "t1", "t4"]
    assert [c.distance_m for c in first.candidates] == [0, 20, 40, 20, 40]
    assert first.probability == round(1 / (1 + np.exp(-2)), 4)
    assert second.probability == round(1 / (1 + np.exp(2)), 4)
    assert (first.radius_m, first.radius_90_m) == (10, 30)  # 0.88 and half of the rest at 20 m: 0.94
    assert (second.radius_m, second.radius_90_m) == (30, None)  # 0.12 and half of the rest: 0.56
    assert (first.heading_deg, second.heading_deg) == (270, None)


@pytest.mark.parametrize(
    ("change", "match"),
    [({"pictures": ["a"]}, "for each picture"), ({"headings_deg": [1.0]}, "for each picture"),
     ({"tiles": ["t0"]}, "WGS84"), ({"candidates": Positions(np.zeros((5, 2)), Metres("x"))}, "WGS84")],
)  # fmt: skip
def test_numbers_that_do_not_fit_are_told(change, match):
    values = Evidence(np.zeros((2, 4)), np.zeros((2, 5), int), np.zeros((2, 5)), np.zeros((2, 5)), EvidenceSettings())
    given_ = {"pictures": ["a", "b"], "tiles": list("abcde"), "candidates": Positions(np.zeros((5, 2)), Wgs84()),
              "evidence": values, "calibration": CALIBRATION, **change}  # fmt: skip
    with pytest.raises(InputError, match=match):
        m.place_all(**given_)


@pytest.mark.parametrize(
    "change",
    [{"latitude": 91.0}, {"longitude": float("nan")}, {"probability": 1.01}, {"probability": float("nan")}, {"radius_m": -1.0},
     {"radius_90_m": float("inf")}, {"candidates": ()}, {"candidates": (candidate(),) * 6}, {"heading_deg": 361.0},
     {"notes": ("one; two",)}, {"notes": ("",)}, {"picture": "\udce9.jpg"}, {"candidates": (candidate(score=float("nan")),)}],
)  # fmt: skip
def test_a_place_that_cannot_be_is_told(change):
    with pytest.raises(InputError, match="located picture") as error:
        replace(place(), **change)
    str(error.value).encode()  # can be printed


# ----------------------------------------------------------------------------------------------------------- the files

names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
degrees = st.floats(-80, 80).map(lambda x: round(x, 7))
metres = st.one_of(st.none(), st.floats(0, 1e5))


@st.composite
def places(draw):
    best = draw(
        st.lists(
            st.builds(m.Candidate, names, degrees, degrees, st.floats(-1, 1), st.floats(0, 1e4)), min_size=1, max_size=5
        )
    )
    note = names.filter(lambda text: "; " not in text and not text.endswith(";") and not text.startswith(" "))
    return m.Located(
        draw(names), draw(degrees), draw(degrees), draw(st.floats(0, 1)), draw(metres), draw(metres), tuple(best),
        draw(st.one_of(st.none(), st.floats(0, 360))), tuple(draw(st.lists(note, max_size=2))),
    )  # fmt: skip


@given(st.lists(places(), max_size=4, unique_by=lambda one: one.picture))
def test_what_is_written_is_read_back_whatever_the_names(tmp_path_factory, located):
    folder = tmp_path_factory.mktemp("out")
    table, geojson = m.write_positions(folder, located)
    assert m.read_positions(table) == located
    collection = json.loads(geojson.read_text(encoding="utf-8"))
    assert [f["properties"]["picture"] for f in collection["features"]] == [one.picture for one in located]
    assert sorted(p.name for p in folder.iterdir()) == ["positions.csv", "positions.geojson"]


def test_geojson_is_what_rfc_7946_says():
    import jsonschema

    number = {"type": "number"}
    point = {
        "type": "object", "required": ["type", "coordinates"],
        "properties": {"type": {"const": "Point"}, "coordinates": {"type": "array", "items": number, "minItems": 2, "maxItems": 3}},
    }  # fmt: skip
    feature = {
        "type": "object", "required": ["type", "geometry", "properties"], "not": {"required": ["coordinates"]},
        "properties": {"type": {"const": "Feature"}, "geometry": point, "properties": {"type": "object"}},
    }  # fmt: skip
    schema = {
        "type": "object", "required": ["type", "features"], "not": {"required": ["crs"]},
        "properties": {"type": {"const": "FeatureCollection"}, "features": {"type": "array", "items": feature}},
    }  # fmt: skip
    one = place(more=(candidate(20, 0, "u", 0.25, 20.0),), heading_deg=45.0, notes=("dark", "tilted"))
    collection = {"type": "FeatureCollection", "features": [m._feature(one)]}
    jsonschema.validate(json.loads(json.dumps(collection, allow_nan=False)), schema)
    found = collection["features"][0]
    assert found["geometry"]["coordinates"] == [one.longitude, one.latitude]  # longitude first
    assert found["geometry"]["coordinates"] == pytest.approx([24.94, 60.17], abs=1e-4)
    assert found["properties"]["notes"] == "dark; tilted"
    assert found["properties"]["radius_90_m"] is None
    assert found["properties"]["candidates"][1] == {
        "tile": "u", "latitude": one.candidates[1].latitude, "longitude": one.candidates[1].longitude, "score": 0.25,
        "distance_m": 20.0,
    }  # fmt: skip


def test_the_table_is_plain_for_others(tmp_path):
    import pandas as pd

    one = place("=1+1.jpg", more=(candidate(20, 0, "u", 0.25, 20.0),))
    path, _ = m.write_positions(tmp_path, [one])
    frame = pd.read_csv(path)
    assert list(frame.columns[:8]) == list(m.COLUMNS)
    assert len(frame.columns) == 8 + 5 * 5
    row = frame.iloc[0]
    assert (row["picture"], row["probability"], row["candidate_2_tile"]) == ("=1+1.jpg", 0.8, "u")
    assert np.isnan([row["radius_90_m"], row["candidate_3_score"]]).all()


def test_a_picture_twice_is_told_and_nothing_is_written(tmp_path):
    with pytest.raises(InputError, match="each picture once"):
        m.write_positions(tmp_path, [place(), place()])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "damage",
    [lambda rows: rows[0].remove("candidate_5_score"), lambda rows: rows[1].__setitem__(1, "north"),
     lambda rows: rows[1].__setitem__(3, "1.5"), lambda rows: rows[1].__setitem__(3, ""),
     lambda rows: rows[1].__delitem__(slice(20, None)), lambda rows: rows[1].append("more")],
)  # fmt: skip
def test_a_damaged_table_is_told(tmp_path, damage):
    path, _ = m.write_positions(tmp_path, [place(more=(candidate(),) * 4)])
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    damage(rows)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(InputError, match=r"positions\.csv, row 1"):
        m.read_positions(path)


def test_an_absent_table_is_told(tmp_path):
    with pytest.raises(InputError, match="table of positions"):
        m.read_positions(tmp_path / "positions.csv")


# ---------------------------------------------------------------------------------------------------------- the folder


def test_absent_empty_and_own_folders_are_taken_and_keep_what_is_in_them(tmp_path):
    absent = tmp_path / "a" / "b"
    assert m.claim_folder(absent) == absent
    (absent / "positions.csv").write_text("kept")
    assert m.claim_folder(absent) == absent
    assert (absent / "positions.csv").read_text() == "kept"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert sorted(p.name for p in m.claim_folder(empty).iterdir()) == [m.MARK]


def test_a_folder_whose_mark_was_being_written_is_still_empty(tmp_path):
    (tmp_path / f".{m.MARK}.123.partial").write_text("{")
    assert (m.claim_folder(tmp_path) / m.MARK).exists()


@pytest.mark.parametrize("name", ["holiday.jpg", ".hidden", "positions.csv"])
def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="Choose another folder"):
        m.claim_folder(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="can be written"):
        m.claim_folder(tmp_path / "out")


def test_nothing_is_half_written_when_the_disk_is_full(tmp_path, monkeypatch):
    m.write_positions(tmp_path, [place("old.jpg")])

    def full(path, *_, **__):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        m.write_positions(tmp_path, [place("new.jpg")])
    assert [one.picture for one in m.read_positions(tmp_path / "positions.csv")] == ["old.jpg"]


# ----------------------------------------------------------------------------------------------------- against the truth


def truth_of(**where):
    return {name: tuple(from_metres(np.array([at]), ORIGIN)[0]) for name, at in where.items()}


def test_errors_are_metres_and_unknown_ones_are_left_out():
    located = [
        place("a.jpg", 0.9),  # 5 m off
        place("b.jpg", 0.8, more=(candidate(100, 0, distance_m=100.0),)),  # 103 m off, its second candidate 3 m
        place("c.jpg", 0.3),  # 30 m off
        place("d.jpg", 0.1),  # not known
    ]
    truth = truth_of(a=(3.0, 4.0), b=(103.0, 0.0), c=(0.0, 30.0))
    assert m.errors_m(located, truth)[:, 0] == pytest.approx([5, 103, 30, np.nan], rel=6e-3, nan_ok=True)
    found = m.compare(located, truth)
    assert (found.known, found.radius_m) == (3, 10)
    assert (found.recall, found.recall_5) == pytest.approx((1 / 3, 2 / 3))
    assert found.median_error_m == pytest.approx(30, rel=6e-3)  # a sphere for an ellipsoid
    assert found.p90_error_m == pytest.approx(30 + 0.8 * 73, rel=6e-3)
    assert found.calibration_error == pytest.approx((0.1 + 0.8 + 0.3) / 3)
    assert found.half == Precision(0.8, 2, 2 / 3, pytest.approx(0.85), 0.5)


@pytest.mark.parametrize("key", ["city/a.jpg", "city/a", "a.jpg", "a"])
def test_truth_is_found_with_or_without_folder_and_ending(key):
    found = m.true_positions(["city/a.jpg", "b.jpg"], {key: ORIGIN})
    assert found.known.tolist() == [True, False]


def test_one_name_for_two_pictures_is_told():
    with pytest.raises(InputError, match="one picture of that name"):
        m.true_positions(["x/a.jpg", "y/a.jpg"], {"a": ORIGIN})


@pytest.mark.parametrize(("pictures", "truth"), [(["a"], {"b": ORIGIN}), (["a"], {}), ([], {"a": ORIGIN})])
def test_truth_of_no_picture_is_told(pictures, truth):
    with pytest.raises(InputError, match="truth"):
        m.true_positions(pictures, truth)


def test_truth_comes_from_a_table_in_degrees(tmp_path):
    path = tmp_path / "truth.csv"
    path.write_text("file,latitude,longitude\na.jpg,60.17,24.94\n")
    assert m.read_truth(path) == {"a.jpg": ORIGIN}
    path.write_text("file,east,north\na.jpg,100,200\n")
    with pytest.raises(InputError, match="latitude and longitude"):
        m.read_truth(path)


# ----------------------------------------------------------------------------------------------------------- the report


def report(**changes):
    south, west = from_metres(np.array([[-500.0, -500.0]]), ORIGIN)[0]
    north, east = from_metres(np.array([[500.0, 500.0]]), ORIGIN)[0]
    given_ = {
        "command": "ucvgl locate", "found": 3, "unusable": (), "tiles": 9, "candidates": 81, "span_m": 50.0,
        "stride_m": 10.0, "area": (south, west, north, east), "calibrated_on": "the embedded world",
    }  # fmt: skip
    return m.Report(**{**given_, **changes})


def rounds(*rates, hubness=0.5):
    return tuple(m.Round(f"round {i}", 10 * i or None, rate, 0.03, 0.8, hubness, 61.0) for i, rate in enumerate(rates))


def test_a_report_says_what_happened():
    located = [place("a", 0.96), place("b", 0.6), place("c", 0.2)]
    full = report(
        rounds=rounds(0.3, 0.5), seconds=(("search", 3.0), ("training", 600.0)), assumptions=("north is up",),
        unusable=(("bad|name`<b>.jpg", "cut\noff"),), truth=m.compare(located, truth_of(a=(3.0, 4.0))),
    )  # fmt: skip
    text = m.report_text(full, located)
    for line in (
        "| pictures found | 3 |", "| files left out | 1 |", "| candidates of 50 m, 10 m apart | 81 |",
        "| 95% or more | 1 | 96% |", "| 50% or more | 2 | 78% |", "| 0% or more | 3 | 59% |",
        "| round 0 | - | 30.0% | 0.0300 | 80.0% | 0.50 | 1 min 1 s |",
        "| round 1 | 10 | 50.0% | 0.0300 | 80.0% | 0.50 | 1 min 1 s |",
        "| placed within 10 m | 100.0% |", "| bad\\|name'&lt;b&gt;.jpg | cut off |", "- north is up", "| all | 10 min 3 s |",
        "fitted on the embedded world",
    ):  # fmt: skip
        assert line in text, line
    assert "Mutual matches were still growing" in text
    columns = {}
    for line in text.splitlines():
        if line.startswith("|"):
            columns.setdefault(line.replace("\\|", "").count("|"), []).append(line)
    assert set(columns) == {3, 4, 8}  # no name has broken a table


def test_a_report_without_rounds_truth_or_places_is_short(tmp_path):
    text = m.write_report(tmp_path, report(), []).read_text()
    assert "## Quality" not in text
    assert "## Against" not in text
    assert "- Nothing stands out." in text
    assert "| 95% or more | 0 | - |" in text


@pytest.mark.parametrize(
    ("changes", "where", "word"),
    [
        ({"rounds": rounds(0.05)}, 0.0, "do not fit yet"),
        ({"rounds": rounds(0.5, hubness=4.0)}, 0.0, "hubness 4.0"),
        ({"rounds": rounds(0.2, 0.4)}, 0.0, "still growing"),
        ({"stride_m": 25.0}, 0.0, "stride of 10 m"),
        ({"unusable": (("a", "b"),)}, 0.0, "could not be used"),
        ({}, 490.0, "lie at the edge"),
        ({}, -490.0, "lie at the edge"),
    ],
)
def test_advice_names_what_was_seen_and_nothing_else(changes, where, word):
    truth = m.compare([place()], truth_of(a=(0.0, 0.0)))
    found = m.advice(report(truth=truth, **changes), [place(east=where)] * 3)
    assert len(found) == 1
    assert word in found[0]


def test_advice_asks_for_known_positions_where_there_are_none():
    assert [line for line in m.advice(report(), [place()]) if "--truth" in line]
    assert m.advice(report(), []) == []
