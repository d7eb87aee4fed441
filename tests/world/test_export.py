"""The world exported into each layout: complete, as the layout wants it, and nothing half-written."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from ucvgl import cli
from ucvgl.data import open_dataset, splits_of
from ucvgl.data.check import check
from ucvgl.errors import InputError
from ucvgl.positions import Positions, Wgs84, distances, to_metres
from ucvgl.world import export
from ucvgl.world.export import LAYOUTS, export_world
from ucvgl.world.pairs import WorldConfig

SMALL = WorldConfig(("garden", "canal"), 0, 24, 6.0, "medium", 24.0, 32, 32, 256.0, 1.0)


@pytest.fixture(scope="module")
def exports(runs, tmp_path_factory):
    """Every layout, exported once."""
    base = tmp_path_factory.mktemp("exports")
    for layout in LAYOUTS:
        world = replace(SMALL, difficulty="hard") if layout == "vpr" else SMALL  # on two days
        world = replace(world, city_size_m=384) if layout == "sues200" else world  # 300 m up, a drone stands far back
        assert export_world(layout, base / layout, world, photo_px=32, drone_views=2) == base / layout
    assert {path.name for path in base.iterdir()} == set(LAYOUTS)
    return base


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_complete_and_shows_images(layout, exports):
    report = check("auto", exports / layout)
    assert (report.name, report.exit_status) == (layout, 0), report.text()
    for options in splits_of(layout, exports / layout).values():
        data = open_dataset(layout, exports / layout, **options)
        for side in (data.query, data.gallery):
            assert np.mean([side.read(i).float().std() for i in range(len(side))]) > 15  # images, not blanks
        best = data.positives.best().numpy()
        assert (best >= 0).all()
        if layout == "vpr":  # stopped a little elsewhere
            assert distances(data.query.positions, data.gallery.positions.take(best)).max() <= 3.02


def test_pairs(exports):
    splits = [open_dataset("cvact", exports / "cvact", split) for split in ("train", "val", "test")]
    assert [len(data) for data in splits] == [16, 4, 4]
    strips = open_dataset("cvusa", exports / "cvusa", "train")
    assert (len(strips), strips.strip_offset) == (20, 0)  # cut around the horizon, and the marker says so
    assert strips.query.read(0).shape == (3, 12, 64)  # 224/616 of 32 rows
    shift = distances(strips.query.positions, strips.gallery.positions)
    assert 0 < shift.max() < 3 * 2.5 * np.sqrt(2) + 0.1  # the medium level's bell ends at three spreads


def test_vigor(exports):
    """In the middle quarter of one tile alone, inside three more; and the offsets point from camera to centre."""
    for split, cities in (("train", ("NewYork", "Seattle")), ("test", ("SanFrancisco", "Chicago"))):
        read = open_dataset("vigor", exports / "vigor", split, area="cross")
        for city in cities:
            rows = ([i for i, name in enumerate(side.ids) if city in name] for side in (read.query, read.gallery))
            part = read.take(*rows)
            lines = (exports / "vigor/splits" / city / "pano_label_balanced.txt").read_text().splitlines()
            offsets_px = np.array([line.split()[2:4] + line.split()[5:7] for line in lines], float)  # two of the four
            camera, centre = (
                to_metres(Positions(side.positions.values, Wgs84()), export.VIGOR_ORIGINS[city]).values
                for side in (part.query, part.gallery)
            )
            for i, here in enumerate(camera):
                near, middle = (set(np.flatnonzero(np.abs(centre - here).max(1) < edge - 0.2)) for edge in (12, 6))
                labelled = np.r_[part.positives[i], part.semi_positives[i]]
                assert near <= set(labelled)
                assert middle <= set(part.positives[i])
                away = (centre[labelled] - here)[:2, ::-1].ravel() * 640 / 24
                assert np.abs(away - offsets_px[i]).max() < 0.2 * 640 / 24  # names hold a microdegree, 0.1 m


@pytest.mark.parametrize("layout", ["university1652", "sues200"])
def test_drones(layout, exports):
    train, test = (open_dataset(layout, exports / layout, split) for split in ("train", "test"))
    assert len(set(test.positives.best().tolist())) < len(test.gallery)  # the rest are distractors
    low, high = (test.query.read(i).int() for i in (0, 1))
    if layout == "sues200":
        assert len(test.gallery) == 24  # every place, those of training too
        high = open_dataset(layout, exports / layout, "test", height_m=300).query.read(0).int()
    else:
        assert not {i.partition("/")[0] for i in train.query.ids} & {i.partition("/")[0] for i in test.query.ids}
    assert (low - high).abs().float().mean() > 5


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [
        ("kitti", {}, "cvusa, cvact, vigor"),
        ("vpr", {"places": 5}, "at least 3 places"),
        ("vpr", {"places": 100_000}, "at most"),
        ("sues200", {"city_size_m": 200}, "enlarge the city"),
    ],
)
def test_bad_input(layout, change, message, runs, tmp_path):
    with pytest.raises(InputError, match=message):
        export_world(layout, tmp_path / "set", replace(SMALL, **change))
    assert not list(tmp_path.iterdir())


def test_the_command(runs, tmp_path, monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["ucvgl", "data", "export", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code

    small = ["--layout", "cvusa", "--places", "6", "--tile-px", "16", "--panorama-px", "16", "--city-size-m", "256"]
    words = *small, tmp_path / "set"
    assert run("world", *words) == 0
    assert "ucvgl data check cvusa" in capsys.readouterr().out
    assert run("world", *words) == 2
    assert "something there" in capsys.readouterr().err
    assert run("moon", *words) == 2
