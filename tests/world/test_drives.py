"""Drives: what each kind changes between the passes and what it leaves, truth beside the photos."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ucvgl.world.drives import MANNERS, DriveConfig, drives_of, shown, world_drives
from ucvgl.world.kinds import Kind
from ucvgl.world.rendering import CITY_GAP_M
from ucvgl.world.sensor import expose

TINY = DriveConfig(
    styles=("garden", "canal"), places=11, spacing_m=9.0, photo_px=(12, 16), city_size_m=256, resolution_m=0.5
)
ONE = replace(TINY, styles=("garden",), places=16)


@pytest.fixture(params=MANNERS)
def config(request, runs, monkeypatch):
    monkeypatch.setenv("UCVGL_RUNS", str(runs))
    return replace(TINY, kind=request.param)


@pytest.fixture(scope="module")
def cities():
    """One city of each kind, with its two passes."""
    return {kind: drives_of(replace(ONE, kind=kind), 0, 16) for kind in MANNERS}


def apart(a, b):
    """The angle between headings, in degrees."""
    return np.abs((a - b + 180) % 360 - 180)


def test_drives_are_a_data_set(config):
    drives = world_drives(config, progress=False)
    assert len(drives.gallery) == 11 * config.manner.headings
    assert len(drives) == 11
    assert drives.query.size == drives.gallery.size == (12, 16)
    assert all(
        photo.float().std() > 3 for photo in (*drives.query[:], *drives.gallery[:])
    )  # none blank, at night either
    city = np.repeat([0, 1], [6, 5])  # six stops in the first city, five in the second
    for images, at in ((drives.query, city), (drives.gallery, np.repeat(city, config.manner.headings))):
        metres = images.positions.values - np.stack([CITY_GAP_M * at, 0 * at], -1)
        assert ((metres > 30) & (metres < 226)).all()


def test_positives_are_the_photos_within_25_m(config):
    drives = world_drives(config, progress=False)
    here, there = drives.query.positions.values, drives.gallery.positions.values
    away = np.linalg.norm(here[:, None] - there[None], axis=-1)
    for row, metres in enumerate(away):
        found = drives.positives[row]
        assert sorted(found) == np.flatnonzero(metres <= 25).tolist()
        assert (np.diff(metres[found]) >= 0).all()


def test_headings_come_along(config):
    """A database photo at hand looks the way of its query; of four at a stop one does."""
    drives = world_drives(config, progress=False)
    asked, shown = drives.query.positions.heading_deg, drives.gallery.positions.heading_deg
    each = config.manner.headings
    assert len(shown) == each * len(asked)
    nearest = apart(asked[:, None], shown.reshape(-1, each)).min(1)
    assert nearest.max() < 45
    assert (drives.take([3]).query.positions.heading_deg == asked[3]).all()


def test_photos_stand_beside_their_truth(config):
    """Every photo is the one that the scene shows from the position, heading and day noted for it."""
    drives = world_drives(config, progress=False)
    done = {"gallery": 0, "query": 0}
    for number, count in enumerate((6, 5)):
        scene, *passes = drives_of(config, number, count)
        for side, shots in zip(done, passes, strict=True):
            images = getattr(drives, side)
            rows = slice(done[side], done[side] + len(shots.east_m))
            metres = images.positions.values[rows] - np.float32([number * CITY_GAP_M, 0])
            np.testing.assert_allclose(metres, np.stack([shots.east_m, shots.north_m], -1), atol=0.002)
            for i in (0, len(shots.east_m) - 1):
                alone = expose(
                    shown(scene, shots, np.array([i]), config.photo_px).rgb, shots.sensor.take(np.array([i]))
                )[0]
                assert (alone.int() - images[rows][i]).abs().max() <= 1
            done[side] += len(shots.east_m)


def test_a_drive_moves_by_the_spacing_along_its_lane(cities):
    _, database, _ = cities["season"]  # without heading errors
    step = np.stack([np.diff(database.east_m), np.diff(database.north_m)])
    assert np.median(np.hypot(*step)) == pytest.approx(ONE.spacing_m, rel=0.15)
    near = np.hypot(*step) < 1.3 * ONE.spacing_m  # of one street
    assert near.sum() > 5
    bearing = np.degrees(np.arctan2(*step)) % 360
    assert np.median(apart(bearing, database.heading_deg[:-1])[near]) < 10


def test_car_stays_on_the_lane_and_looks_along_it(cities):
    _, database, query = cities["car"]
    turn = np.radians(database.heading_deg)
    away = np.stack([query.east_m - database.east_m, query.north_m - database.north_m])
    along = away[0] * np.sin(turn) + away[1] * np.cos(turn)
    aside = away[0] * np.cos(turn) - away[1] * np.sin(turn)
    slack = 5 * np.sin(np.radians(4.5))  # the heading's own error, seen five metres ahead
    assert np.abs(along).max() <= 5.0 + 0.01
    assert np.abs(along).max() > 1
    assert np.abs(aside).max() <= 0.6 + slack
    assert apart(query.heading_deg, database.heading_deg).max() <= 2 * 3 * 1.5
    assert query.days[0].traffic != database.days[0].traffic
    assert (query.eye_m < database.eye_m).all()


def test_hand_held_looks_all_around_from_the_pavement(cities):
    scene, database, query = cities["hand_held"]
    heading = database.heading_deg.reshape(16, 4)
    assert (apart(heading, np.roll(heading, -1, 1)) > 90 - 9).all()  # quarters, but for the errors
    assert (apart(heading, np.roll(heading, -1, 1)) < 90 + 9).all()
    assert len({tuple(stop) for stop in np.stack([database.east_m, database.north_m], -1).tolist()}) == 16
    nearest = apart(query.heading_deg[:, None], heading).min(1)
    assert nearest.max() <= 25 + 9.01
    assert nearest.max() > 8
    assert query.fov_deg == ONE.fov_deg - 15
    away = np.hypot(query.east_m - database.east_m[::4], query.north_m - database.north_m[::4])
    assert away.max() < 12
    moved = away > 0
    assert moved.mean() > 0.7
    at = (scene.pixels - query.north_m / 0.5).astype(int), (query.east_m / 0.5).astype(int)
    assert (scene.city.surface[at][moved, 3] == Kind.PAVEMENT).all()
    assert (scene.city.relief[at][moved, 3] == 0).all()  # nothing stands there


def test_season_sees_the_same_geometry(cities):
    """Depth of every ray that meets no tree in either season is equal; lawns and roofs are white, the trees bare."""
    scene, database, query = cities["season"]
    every = np.arange(16)
    for name in ("east_m", "north_m", "heading_deg", "eye_m"):
        np.testing.assert_array_equal(getattr(database, name), getattr(query, name))
    summer, winter = (shown(scene, shots, every, (24, 32)) for shots in (database, query))
    solid = (summer.kind != Kind.TREE) & (winter.kind != Kind.TREE)
    assert solid.float().mean() > 0.6
    assert torch.equal(summer.depth_m[solid], winter.depth_m[solid])
    assert torch.equal(summer.kind[solid], winter.kind[solid])
    leaves = [(view.kind == Kind.TREE).float().mean() for view in (summer, winter)]
    assert leaves[1] < leaves[0]
    lawn = solid & (summer.kind == Kind.GRASS)
    green, white = (view.rgb.permute(0, 2, 3, 1)[lawn] for view in (summer, winter))
    assert green[:, 1].mean() > green[:, 2].mean() + 0.1
    assert white.amin(1).mean() > 0.5
    assert (white.amax(1) - white.amin(1)).mean() < 0.1


def test_night_is_dark_with_lit_windows(runs, monkeypatch):
    monkeypatch.setenv("UCVGL_RUNS", str(runs))
    config = replace(TINY, kind="night")
    drives = world_drives(config, progress=False)
    day = np.concatenate([drives_of(config, number, count)[2].day for number, count in enumerate((6, 5))])
    assert set(day) == {0, 1}  # dusk and night
    query = drives.query[:].numpy()
    light = [np.median(photos) for photos in (drives.gallery[:], query[day == 0], query[day == 1])]
    assert light[0] > 1.25 * light[1]
    assert light[1] > 1.5 * light[2]
    assert light[2] < 45
    assert query[day == 1].max() > 200  # windows and street lamps
