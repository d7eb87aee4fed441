"""A run's files: read back as written, valid for others, beside nothing of somebody else's; errors in metres; the map page, whole
in itself and safe from names, and its script's arithmetic in node, where there is one."""

import base64
import csv
import io
import json
import re
import shutil
import sqlite3
import struct
import subprocess
from contextlib import closing
from html.parser import HTMLParser
from types import SimpleNamespace

import geo_inputs as g
import numpy as np
import pytest
import torch
from geo_inputs import ORIGIN, at, place, truth_of
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
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
    (folder.parent / "mine").mkdir()
    (folder.parent / "mine" / "report.md").write_text("of something else")
    for path, says in (
        (folder, r"found 'holiday\.jpg'"), (folder / "holiday.jpg", "Not a directory"),
        (folder.parent / "mine", r"found 'report\.md'"),
    ):  # fmt: skip
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


# ------------------------------------------------------------------------------------------------------------- map.html

EVIL = "</script><img src=x onerror=alert(1)>&amp;{{DATA}}\u2028'\"`.jpg"
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs node, to run the page's script")
PLACES = (
    place("a.jpg", 0.2, others=[("t1", 20, 0), ("t2", 40, 0)], tile="t0", heading_deg=90.0, notes="dark; tilted"),
    place(EVIL, 0.9, 200, others=[("t1", 220, 0), ("t2", 240, 0)], tile="t0"),
    place("c.jpg", 0.6, 400, others=[(EVIL, 420, 0)], tile="t2"),
)


def grey(value=100, height=8, width=8):
    return torch.full((3, height, width), value, dtype=torch.uint8)


def page(*places, **changes):
    background = grey(9, 20, 60), [at(-100, -100), at(500, 100)]
    given = {"title": "A test", "ground": lambda i: grey(10 * i, 16, 32), "top": lambda i: grey(10 * i + 1),
             "tile": lambda name: grey(7)}  # fmt: skip
    return m.map_page(g.table(*places or PLACES), background, **{**given, **changes})


class Seen(HTMLParser):
    """What a browser would see: elements with attributes, and the text of scripts and styles."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.inside = [], {}, None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = dict(attrs).get("id", tag)

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside is not None:
            self.texts.setdefault(self.inside, []).append(data)

    def of(self, key):
        return "".join(self.texts[key])


def decoded(text):  # a picture in base64
    return np.array(Image.open(io.BytesIO(base64.b64decode(text))))


def test_places_pictures_and_mosaic_are_all_in_it():
    seen = Seen(page())
    data, pictures = json.loads(seen.of("data")), json.loads(seen.of("pictures"))
    assert [p["picture"] for p in data["places"]] == ["a.jpg", EVIL, "c.jpg"]
    first = data["places"][0]
    assert (first["latitude"], first["longitude"], first["probability"]) == (*at(0, 0), 0.2)
    assert (first["heading_deg"], first["notes"]) == (90, "dark; tilted")
    assert [data["places"][2][f"candidate_{n}_tile"] for n in (1, 2, 3)] == ["t2", EVIL, None]
    assert [len(pictures[kind]) for kind in ("ground", "top")] == [3, 3]
    assert list(pictures["tile"]) == ["t0", "t1", "t2", EVIL]
    for i in range(3):
        assert decoded(pictures["ground"][i]).shape == (16, 32, 3)
        assert abs(decoded(pictures["ground"][i]).astype(int) - 10 * i).max() <= 3
    assert decoded(data["background"].removeprefix("data:image/webp;base64,")).shape == (20, 60, 3)
    assert data["bounds"] == [list(at(-100, -100)), list(at(500, 100))]


def test_names_and_titles_are_data_never_markup():
    text = page(place(EVIL, tile=EVIL), title=EVIL)
    plain, evil = Seen(page(place("a"), title="x")), Seen(text)
    assert [tag for tag, _ in evil.elements] == [tag for tag, _ in plain.elements]
    assert evil.of("title") == evil.of("h1") == json.loads(evil.of("data"))["places"][0]["picture"] == EVIL
    data = text[text.index('id="data">') + 10 :].split("</script>", 1)[0]
    assert not set("<>&\u2028") & set(data)


def test_nothing_is_asked_of_any_network():
    text = page()
    asks = [a for _, a in Seen(text).elements if any(key in ("src", "href", "style") or key[:2] == "on" for key in a)]
    assert not asks
    # Leaflet's home, two reports of browsers' faults, and the name of SVG's elements
    home = ("leafletjs.com", "bugzilla.mozilla.org", "bugs.chromium.org", "www.w3.org")
    assert set(re.findall(r"https?://([\w.]+)", text)) == set(home)
    icons = text.replace("url(images/", "").replace("url(#default#VML)", "")  # which are never shown
    assert "url(" not in icons
    licence = m.Path(m.__file__).parent / "leaflet" / "LICENSE"
    assert "Redistribution and use in source and binary forms" in licence.read_text(encoding="utf-8")


def test_pictures_are_no_larger_than_asked_for_and_those_of_many_places_smaller(monkeypatch):
    monkeypatch.setattr(m, "FULL", 4)
    monkeypatch.setattr(m, "BACKGROUND_PX", 30)
    for count, shape in ((4, (128, 256, 3)), (9, (86, 171, 3))):
        seen = Seen(page(*(place(f"{i}.jpg") for i in range(count)), ground=lambda i: grey(5, 200, 400)))
        assert {decoded(text).shape for text in json.loads(seen.of("pictures"))["ground"]} == {shape}
        assert decoded(json.loads(seen.of("data"))["background"].partition(",")[2]).shape == (10, 30, 3)


def node(code):
    script = m.Path(m.__file__).with_name("map_page.js")
    command = ["node", "-e", f"const m = require({json.dumps(str(script))});\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_node
def test_the_scripts_arithmetic():
    found = node("""
        const rows = [["b", 0.5], ["A", 0.9], ["aa", 0.5], ["x", 1]];
        const places = rows.map(([picture, probability]) => ({ picture, probability }));
        console.log(JSON.stringify({
          few: m.chosenFew(places, 0.5, " A "), all: m.chosenFew(places, 0, ""), high: m.chosenFew(places, 0.95, ""),
          colours: [-1, 0, 0.05, 0.5, 1, 2].map((p) => m.colourAt(["#000000", "#ff8040", "#ffffff"], p)),
          circles: [m.circleSize(6e5, 20, 1), m.circleSize(6e5, 2000, 1), m.circleSize(6e5, 2000, 4), m.circleSize(9, 0, 99)],
          odds: [0, 0.004, 0.005, 0.5, 0.994, 0.9951, 1].map(m.probabilityText),
        }));""")
    assert (found["few"], found["all"], found["high"]) == ([1, 2], [3, 1, 0, 2], [3])
    assert found["colours"] == ["rgb(0, 0, 0)", "rgb(0, 0, 0)", "rgb(26, 13, 6)", "rgb(255, 128, 64)", "rgb(255, 255, 255)",
                                "rgb(255, 255, 255)"]  # fmt: skip
    few, crowd, near, speck = found["circles"]
    assert crowd == 3.5 < few < near <= 11
    assert speck == 11
    assert found["odds"] == ["0.00", "< 0.01", "0.01", "0.50", "0.99", "> 0.99", "1.00"]
