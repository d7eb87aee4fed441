"""The world exported into each layout: complete, read back as it was rendered, and nothing half-written."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from ucvgl import cli
from ucvgl.data import open_dataset
from ucvgl.data.check import check
from ucvgl.data.place_recognition import fields
from ucvgl.errors import InputError
from ucvgl.positions import Positions, Wgs84, distances, to_metres
from ucvgl.world import export
from ucvgl.world.export import export_world
from ucvgl.world.pairs import WorldConfig

pytestmark = pytest.mark.usefixtures("fresh_runs")
SMALL = WorldConfig(
    ("garden", "canal"),
    places=24,
    spacing_m=6,
    span_m=24,
    tile_px=32,
    panorama_px=32,
    city_size_m=256,
    resolution_m=1.0,
)


def exported(layout, root, monkeypatch, world=SMALL):
    """Export a small world that passes the check; what its writer was given."""
    given = []
    write = getattr(export, f"write_{layout}")
    monkeypatch.setattr(export, f"write_{layout}", lambda *args: (given.extend(args[:-1]), write(*args))[1])
    assert export_world(layout, root, world, photo_px=32, drone_views=2, progress=False) == root
    report = check("auto", root, progress=False)
    assert (report.name, report.exit_status) == (layout, 0), report.text()
    assert {p.name for p in root.parent.iterdir()} <= {root.name, "runs"}
    return given


def assert_same_images(read, written):
    assert len(read) == len(written)
    pairs = [(read.read(i).int(), written.read(i).int()) for i in range(len(written))]
    assert all(a.shape == b.shape and (a - b).abs().float().mean() < 6 for a, b in pairs)
    assert np.mean([b.float().std() for _, b in pairs]) > 15  # images, not blanks


@pytest.mark.parametrize(("layout", "counts"), [("cvusa", [20, 4]), ("cvact", [16, 4, 4])])
def test_pairs(layout, counts, tmp_path, monkeypatch):
    (splits,) = exported(layout, tmp_path / "set", monkeypatch)
    assert [len(data) for data in splits.values()] == counts
    read, written = open_dataset(layout, tmp_path / "set", "train"), splits["train"]
    assert_same_images(read.query, written.query)
    assert_same_images(read.gallery, written.gallery)
    if layout == "cvusa":
        assert read.strip_offset == 0  # cut around the horizon, and the marker says so
        assert read.query.read(0).shape == (3, 12, 64)  # 224/616 of 32 rows
        shift = distances(read.query.positions, read.gallery.positions)
        assert 0 < shift.max() < 3 * 2.5 * np.sqrt(2) + 0.1  # the medium level's bell ends at three spreads


def test_vigor(tmp_path, monkeypatch):
    """In the middle quarter of one tile alone, inside three more; and the offsets point from camera to centre."""
    cities, offsets_px, train = exported("vigor", tmp_path / "set", monkeypatch)
    same = open_dataset("vigor", tmp_path / "set", "train")
    cross = {s: open_dataset("vigor", tmp_path / "set", s, area="cross") for s in ("train", "test")}
    for city, written in cities.items():
        read = cross["train" if city in ("NewYork", "Seattle") else "test"]
        rows = ([i for i, name in enumerate(side.ids) if city in name] for side in (read.query, read.gallery))
        read = read.take(*rows)
        assert_same_images(read.query, written.query)
        assert [name for name in same.query.ids if city in name] == [read.query.ids[i] for i in train[city]]
        camera, centre = (
            to_metres(Positions(side.positions.values, Wgs84()), export.VIGOR_ORIGINS[city]).values
            for side in (read.query, read.gallery)
        )
        for i, here in enumerate(camera):
            near, middle = (set(np.flatnonzero(np.abs(centre - here).max(1) < edge - 0.2)) for edge in (12, 6))
            labelled = np.r_[read.positives[i], read.semi_positives[i]]
            assert near <= set(labelled)
            assert middle <= set(read.positives[i])
            away = (centre[labelled] - here)[:, ::-1] * 640 / 24
            assert np.abs(away - offsets_px[city][i]).max() < 0.2 * 640 / 24  # names hold a microdegree, 0.1 m
            assert np.abs(offsets_px[city][i, 0]).max() <= 160


@pytest.mark.parametrize("layout", ["university1652", "sues200"])
def test_drones(layout, tmp_path, monkeypatch):
    size = 384 if layout == "sues200" else 256  # 300 m up, a drone stands far back
    *sets, queried = exported(layout, tmp_path / "set", monkeypatch, replace(SMALL, places=8, city_size_m=size))
    train, test = sets[0][150] if layout == "sues200" else sets
    read = open_dataset(layout, tmp_path / "set", "test")
    assert_same_images(read.query, test.query.subset(np.flatnonzero(np.isin(test.positives.best(), list(queried)))))
    assert_same_images(read.gallery, test.gallery)
    assert len(queried) < len(test.gallery)  # the rest are distractors
    assert bool(set(train.gallery.ids) & set(test.gallery.ids)) == (layout == "sues200")
    if layout == "sues200":
        low, high = (sets[0][h][1].query.read(0).int() for h in (150, 300))
        assert (low - high).abs().float().mean() > 5


def test_vpr(tmp_path, monkeypatch):
    (splits,) = exported("vpr", tmp_path / "set", monkeypatch, replace(SMALL, difficulty="hard"))
    assert sum(map(len, splits.values())) == 24
    written, read = splits["train"], open_dataset("vpr", tmp_path / "set", "train")
    orders = []
    for a, b in ((read.query, written.query), (read.gallery, written.gallery)):
        orders.append([b.ids.index(fields(name)[7]) for name in a.ids])
        assert_same_images(a, b.subset(orders[-1]))
    for i, row in zip(orders[0], read.positives, strict=True):
        assert i in {orders[1][j] for j in row}  # both passes stopped there


def test_frames(tmp_path, monkeypatch):
    """Frames within reach of one another are stops along one street."""
    data, _ = exported("frames", tmp_path / "set", monkeypatch)
    read = open_dataset("auto", tmp_path / "set")
    assert_same_images(read.query, data.query)
    assert_same_images(read.gallery, data.gallery)
    pairs = read.positives.pairs().numpy()
    away = distances(data.query.positions.take(pairs[:, 0]), data.gallery.positions.take(pairs[:, 1]))
    assert away.max() < 2 * 1.5 * SMALL.spacing_m


def test_the_seed_decides(tmp_path):
    roots = [
        export_world("vpr", tmp_path / name, replace(SMALL, places=6, seed=seed), photo_px=16, progress=False)
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    a, b, c = ({p.name: p.read_bytes() for p in sorted(r.rglob("*.jpg"))} for r in roots)
    assert a == b
    assert not set(a) & set(c)


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [
        ("kitti", {}, "cvusa, cvact, vigor"),
        ("vpr", {"places": 5}, "at least 3 places"),
        ("vpr", {"places": 100_000}, "at most"),
        ("sues200", {"city_size_m": 200}, "enlarge the city"),
    ],
)
def test_bad_input(layout, change, message, tmp_path):
    with pytest.raises(InputError, match=message):
        export_world(layout, tmp_path / "set", replace(SMALL, **change), progress=False)
    assert not list(tmp_path.glob("[!r]*"))  # nothing half-made beside runs/


def test_an_interrupted_export_leaves_nothing(tmp_path, monkeypatch):
    write = export.write_vpr

    def interrupted(splits, root):
        write(splits, root)
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "write_vpr", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_world("vpr", tmp_path / "set", SMALL, photo_px=16, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_the_command(tmp_path, monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["ucvgl", "data", "export", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code

    small = ["--span-m", 24, "--tile-px", 16, "--panorama-px", 16, "--city-size-m", 256, "--resolution-m", 0.5]
    words = ["--layout", "cvusa", "--places", 6, "--style", "canal", "--difficulty", "easy", *small, tmp_path / "set"]
    assert run("world", *words) == 0
    assert "ucvgl data check cvusa" in capsys.readouterr().out
    assert check("cvusa", tmp_path / "set", progress=False).exit_status == 0
    assert run("world", *words) == 2
    assert "something there" in capsys.readouterr().err
    assert run("moon", *words) == 2
    assert "expected world, found 'moon'" in capsys.readouterr().err
