"""The world exported into each layout: complete, read back as it was rendered, and nothing half-written."""

import sys

import numpy as np
import pytest

from ucvgl import cli
from ucvgl.data import export, open_dataset, read_vigor
from ucvgl.data.check import check
from ucvgl.data.export import export_world
from ucvgl.data.place_recognition import fields
from ucvgl.errors import InputError
from ucvgl.positions import Positions, Wgs84, distances, to_metres

SMALL = {
    "places": 24, "spacing_m": 6, "span_m": 24, "tile_px": 32, "panorama_px": 32, "photo_px": 32, "drone_views": 2,
    "city_size_m": 256, "resolution_m": 0.5, "progress": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path / "runs"))


def exported(layout, root, monkeypatch, **options):
    """Export a small world that passes the check; what its writer was handed."""
    handed = []
    write = getattr(export, f"write_{layout}")
    monkeypatch.setattr(export, f"write_{layout}", lambda *given: (handed.extend(given[:-1]), write(*given))[1])
    size = {"city_size_m": 384} if layout == "sues200" else {}  # 300 m up, a drone stands far back
    assert export_world(layout, root, **{**SMALL, **size, **options}) == root
    report = check("auto", root, progress=False)
    assert (report.name, report.exit_status) == (layout, 0), report.text()
    assert sorted(p.name for p in root.parent.iterdir()) in ([root.name], sorted([root.name, "runs"]))
    return handed


def assert_same_pictures(read, written):
    assert len(read) == len(written)
    shades = []
    for i in range(len(written)):
        a, b = read.read(i).int(), written.read(i).int()
        assert a.shape == b.shape
        assert (a - b).abs().float().mean() < 6
        shades.append(b.float().std())
    assert np.mean(shades) > 15  # pictures, not blanks


@pytest.mark.parametrize(("layout", "counts"), [("cvusa", [20, 4]), ("cvact", [16, 4, 4])])
def test_pairs(layout, counts, tmp_path, monkeypatch):
    (splits,) = exported(layout, tmp_path / "set", monkeypatch)
    assert [len(v.ground) for v in splits.values()] == counts
    for split, written in splits.items():
        read = open_dataset(layout, tmp_path / "set", split)
        assert np.array_equal(read.positives.best(), written.positives.best())
        assert np.array_equal(read.ground.positions.values, written.ground.positions.values)
        assert_same_pictures(read.ground, written.ground)
        assert_same_pictures(read.satellite, written.satellite)
        if layout == "cvusa":
            assert read.satellite.positions.same_as(written.satellite.positions)
            assert read.ground.read(0).shape == (3, 12, 64)  # 224/616 of 32 rows
            shift = distances(read.ground.positions, read.satellite.positions)
            assert 0 < shift.max() < 3 * 2.5 * np.sqrt(2) + 0.1  # the medium level's bell ends at three spreads
        else:
            assert all(len(name) == 22 for name in read.ground.ids)


def test_vigor(tmp_path, monkeypatch):
    cities, train = exported("vigor", tmp_path / "set", monkeypatch)
    assert [len(v.ground) for v in cities.values()] == [6, 6, 6, 6]
    for city, written in cities.items():
        parts = {s: read_vigor(tmp_path / "set", s, "same", cities=(city,)) for s in ("train", "test")}
        assert [len(v.ground) for v in parts.values()] == [3, 3]
        read = read_vigor(tmp_path / "set", "train", "cross", cities=(city,))
        assert read.positives.same_as(written.positives)
        assert read.semi_positives.same_as(written.semi_positives)
        assert np.array_equal(read.offsets_px, written.offsets_px)
        assert np.array_equal(read.ground.positions.values, written.ground.positions.values)
        assert np.array_equal(read.satellite.positions.values, written.satellite.positions.values)
        assert parts["train"].ground.ids == tuple(read.ground.ids[i] for i in train[city])
        assert_same_pictures(read.ground, written.ground)
        assert all((read.satellite.read(i) == written.satellite.read(i)).all() for i in range(len(read.satellite)))


def test_vigor_offsets_are_the_geometry(tmp_path):
    """In the middle quarter of one tile alone, inside three more; and the offsets point from camera to centre."""
    export_world("vigor", tmp_path / "set", **SMALL)
    views = read_vigor(tmp_path / "set", "test", "same", cities=("Seattle",))
    origin = export.VIGOR_ORIGINS["Seattle"]
    camera, centre = (
        to_metres(Positions(x.positions.values, Wgs84()), origin).values for x in (views.ground, views.satellite)
    )
    for i, here in enumerate(camera):
        near = np.flatnonzero(np.abs(centre - here).max(1) < 12 - 0.2)
        labelled = np.r_[views.positives[i], views.semi_positives[i]]
        assert set(near) <= set(labelled)
        middle = np.flatnonzero(np.abs(centre - here).max(1) < 6 - 0.2)
        assert set(middle) <= set(views.positives[i])
        away = (centre[labelled] - here)[:, ::-1] * 640 / 24
        assert np.abs(away - views.offsets_px[i]).max() < 0.2 * 640 / 24  # names hold a microdegree, 0.1 m
        assert np.abs(views.offsets_px[i, 0]).max() <= 160
        assert np.abs(views.offsets_px[i]).max() <= 320


def of_queried(views, queried):
    return views.take_ground(np.flatnonzero(np.isin(views.positives.best(), list(queried))))


def assert_same_buildings(root, layout, parts, queried, **options):
    train, test = parts
    for split, written in (("train", train), ("test", of_queried(test, queried))):
        read = open_dataset(layout, root, split, **options)
        assert np.array_equal(read.positives.best(), written.positives.best())
        assert_same_pictures(read.ground, written.ground)
        assert_same_pictures(read.satellite, written.satellite)
    back = open_dataset(layout, root, "test", direction="satellite2drone", **options)
    assert (len(back.ground), len(back.satellite)) == (len(queried), len(test.ground))
    place = test.positives.best()
    assert [sorted(place[row]) for row in map(back.positives.__getitem__, range(len(queried)))] == [
        [q] * 2 for q in sorted(queried)
    ]


def test_university1652(tmp_path, monkeypatch):
    train, test, queried = exported("university1652", tmp_path / "set", monkeypatch)
    assert len(train.satellite) + len(test.satellite) == 24
    assert len(queried) < len(test.satellite)  # the rest are distractors
    assert not set(train.satellite.ids) & set(test.satellite.ids)
    assert_same_buildings(tmp_path / "set", "university1652", (train, test), queried)


def test_sues200(tmp_path, monkeypatch):
    heights, queried = exported("sues200", tmp_path / "set", monkeypatch, places=12)
    assert list(heights) == [150, 200, 250, 300]
    for height, parts in heights.items():
        assert len(parts[1].satellite) == 12
        assert_same_buildings(tmp_path / "set", "sues200", parts, queried, height_m=height)
    low, high = (heights[h][1].ground.read(0).int() for h in (150, 300))
    assert (low - high).abs().float().mean() > 5


@pytest.mark.parametrize("difficulty", ["easy", "hard"])
def test_vpr(difficulty, tmp_path, monkeypatch):
    (splits,) = exported("vpr", tmp_path / "set", monkeypatch, difficulty=difficulty)
    found = 0
    for split, written in splits.items():
        read = open_dataset("vpr", tmp_path / "set", split)
        orders = []
        for a, b in ((read.ground, written.ground), (read.satellite, written.satellite)):
            order = [b.ids.index(fields(name)[7]) for name in a.ids]
            assert np.array_equal(a.positions.values, b.positions.values[order])
            assert_same_pictures(a, b.subset(order))
            orders.append(order)
        for i, row in enumerate(map(read.positives.__getitem__, range(len(read.ground)))):
            assert {orders[1][j] for j in row} == set(written.positives[orders[0][i]].tolist())
            own = written.satellite.ids.index(f"d{written.ground.ids[orders[0][i]][1:]}")
            assert own in {orders[1][j] for j in row}  # both passes stopped there
        found += len(read.ground)
    assert found == 24


def test_the_seed_decides(tmp_path):
    roots = [export_world("vpr", tmp_path / name, **SMALL, seed=s) for name, s in (("a", 3), ("b", 3), ("c", 4))]
    a, b, c = ({p.name: p.read_bytes() for p in sorted(r.rglob("*.jpg"))} for r in roots)
    assert a == b
    assert not set(a) & set(c)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "kitti"}, "cvusa, cvact, vigor"),
        ({"places": 0}, "places"),
        ({"places": 5}, "at least 3 places"),
        ({"places": 100_000}, "at most"),
        ({"styles": ()}, "styles"),
        ({"styles": ("mars",)}, "garden"),
        ({"difficulty": "brutal"}, "easy"),
        ({"photo_px": 0}, "photo_px"),
        ({"city_size_m": 90}, "size_m"),
    ],
)
def test_bad_input(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        export_world(**{"layout": "vpr", "root": tmp_path / "set", **SMALL, **options})
    assert not list(tmp_path.iterdir())


def test_a_city_too_small_for_a_drone(tmp_path):
    with pytest.raises(InputError, match="enlarge the city"):
        export_world("sues200", tmp_path / "set", **{**SMALL, "city_size_m": 200})


def test_only_into_an_empty_folder(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for root in (tmp_path / "set", tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=root.name):
            export_world("vpr", root, **SMALL)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "notes.txt", "set"]
    (tmp_path / "set" / "notes.txt").unlink()
    export_world("vpr", tmp_path / "set", **SMALL)
    assert check("vpr", tmp_path / "set", progress=False).exit_status == 0


def test_an_interrupted_export_leaves_nothing(tmp_path, monkeypatch):
    write = export.write_vpr

    def interrupted(splits, root):
        write(splits, root)
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "write_vpr", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_world("vpr", tmp_path / "set", **SMALL)
    assert not list(tmp_path.iterdir())


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["ucvgl", "data", "export", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_the_command(tmp_path, monkeypatch, capsys):
    small = ["--span-m", 24, "--tile-px", 16, "--panorama-px", 16, "--city-size-m", 256, "--resolution-m", 0.5]
    words = ["--layout", "cvusa", "--places", 6, "--style", "canal", "--difficulty", "easy", *small, tmp_path / "set"]
    assert run(monkeypatch, "world", *words) == 0
    assert "ucvgl data check cvusa" in capsys.readouterr().out
    assert check("cvusa", tmp_path / "set", progress=False).exit_status == 0
    assert run(monkeypatch, "world", *words) == 2
    assert "something there" in capsys.readouterr().err
    assert run(monkeypatch, "moon", *words) == 2
    assert "expected world, found 'moon'" in capsys.readouterr().err
