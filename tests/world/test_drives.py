"""Drives: what each kind changes between the passes and what it leaves, truth beside the photos."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ucvgl.world.difficulty import expose
from ucvgl.world.drives import MANNERS, DriveConfig, passes, world_drives
from ucvgl.world.rendering import CITY_GAP_M
from ucvgl.world.styles import Kind

TINY = DriveConfig("car", ("garden", "canal"), 0, 11, 9.0, (12, 16), city_size_m=256, resolution_m=0.5)
ONE = replace(TINY, styles=("garden",), places=16, photo_px=(24, 32))


@pytest.fixture(scope="module")
def towns():
    """One city of each kind: its database and its query pass."""
    found = {kind: passes(replace(ONE, kind=kind), 0, 16) for kind in MANNERS}
    return {kind: (shots["gallery"], shots["query"]) for kind, shots in found.items()}


def apart(a, b):
    """The angle between headings, in degrees."""
    return np.abs((a - b + 180) % 360 - 180)


@pytest.mark.parametrize("kind", MANNERS)
def test_drives_are_a_data_set(kind, runs):
    config, each = replace(TINY, kind=kind), MANNERS[kind].headings
    drives = world_drives(config)
    assert (len(drives), len(drives.gallery)) == (11, 11 * each)
    # none is blank, at night either
    assert all(photo.float().std() > 3 for photo in (*drives.query[:], *drives.gallery[:]))
    here, there = drives.query.positions.values, drives.gallery.positions.values
    for row, metres in enumerate(np.linalg.norm(here[:, None] - there[None], axis=-1)):
        assert sorted(drives.positives[row]) == np.flatnonzero(metres <= 25).tolist()
    # a database photo at hand looks the way of its query; of four at a stop one does
    asked, shown = drives.query.positions.heading_deg, drives.gallery.positions.heading_deg
    assert apart(asked[:, None], shown.reshape(-1, each)).min(1).max() < 45
    # the last photo is the one that the scene shows from the position, heading and day noted for it
    for side, shots in passes(config, 1, 5).items():
        images, last = getattr(drives, side), np.array([len(shots.metres) - 1])
        metres = images.positions.values[-1] - np.float32([CITY_GAP_M, 0])
        np.testing.assert_allclose(metres, shots.metres[-1], atol=0.002)
        alone = expose(shots.view(last).rgb, shots.sensor.take(last))[0]
        assert (alone.int() - images[-1:][0]).abs().max() <= 1


def test_car_stays_on_the_lane_and_looks_along_it(towns):
    database, query = towns["car"]
    turn, away = np.radians(database.heading_deg), (query.metres - database.metres).T
    along = away[0] * np.sin(turn) + away[1] * np.cos(turn)
    aside = away[0] * np.cos(turn) - away[1] * np.sin(turn)
    slack = 5 * np.sin(np.radians(4.5))  # the heading's own error, seen five metres ahead
    assert 1 < np.abs(along).max() <= 5.0 + 0.01
    assert np.abs(aside).max() <= 0.6 + slack
    assert apart(query.heading_deg, database.heading_deg).max() <= 2 * 3 * 1.5
    assert query.days[0].traffic != database.days[0].traffic


def test_hand_held_looks_all_around_from_the_pavement(towns):
    database, query = towns["hand_held"]
    heading = database.heading_deg.reshape(16, 4)
    assert (np.abs(apart(heading, np.roll(heading, -1, 1)) - 90) < 9).all()  # quarters, but for the errors
    assert 8 < apart(query.heading_deg[:, None], heading).min(1).max() <= 25 + 9.01
    away = np.hypot(*(query.metres - database.metres[::4]).T)
    moved, city = away > 0, query.scene.city
    assert away.max() < 12
    assert moved.mean() > 0.7
    at = (512 - query.metres[:, 1] / 0.5).astype(int), (query.metres[:, 0] / 0.5).astype(int)
    assert (city.surface[at][moved, 3] == Kind.PAVEMENT).all()
    assert (city.relief[at][moved, 3] == 0).all()  # nothing stands there


def test_season_sees_the_same_geometry(towns):
    """Depth of every ray that meets no tree in either season is equal; lawns and roofs are white, the trees bare."""
    database, query = towns["season"]
    np.testing.assert_array_equal(database.metres, query.metres)
    np.testing.assert_array_equal(database.heading_deg, query.heading_deg)
    summer, winter = (shots.view(np.arange(16)) for shots in (database, query))
    solid = (summer.kind != Kind.TREE) & (winter.kind != Kind.TREE)
    assert solid.float().mean() > 0.6
    assert torch.equal(summer.depth_m[solid], winter.depth_m[solid])
    assert torch.equal(summer.kind[solid], winter.kind[solid])
    assert (winter.kind == Kind.TREE).sum() < (summer.kind == Kind.TREE).sum()
    lawn = solid & (summer.kind == Kind.GRASS)
    green, white = (view.rgb.permute(0, 2, 3, 1)[lawn] for view in (summer, winter))
    assert green[:, 1].mean() > green[:, 2].mean() + 0.1
    assert (white.amax(1) - white.amin(1)).mean() < 0.1


def test_night_is_dark_with_lit_windows(runs):
    config = replace(TINY, kind="night")
    drives = world_drives(config)
    day = np.concatenate([passes(config, number, count)["query"].day for number, count in enumerate((6, 5))])
    assert set(day) == {0, 1}  # dusk and night
    query = drives.query[:].numpy()
    light = [np.median(photos) for photos in (drives.gallery[:], query[day == 0], query[day == 1])]
    assert light[0] > 1.25 * light[1] > 1.25 * 1.5 * light[2]
    assert query[day == 1].max() > 200  # windows and street lamps
