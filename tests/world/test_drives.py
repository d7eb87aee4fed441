"""Drives: what each kind changes between the passes and what it leaves, truth beside the photos."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ucvgl.world.drives import MANNERS, DriveConfig, passes, world_drives
from ucvgl.world.kinds import Kind
from ucvgl.world.rendering import CITY_GAP_M, scene_of
from ucvgl.world.sensor import expose

TINY = DriveConfig(
    styles=("garden", "canal"), places=11, spacing_m=9.0, photo_px=(12, 16), city_size_m=256, resolution_m=0.5
)
ONE = replace(TINY, styles=("garden",), places=16, photo_px=(24, 32))


@pytest.fixture(scope="module")
def towns():
    """One city of each kind: its database and its query pass."""
    found = {kind: passes(replace(ONE, kind=kind), 0, 16) for kind in MANNERS}
    return {kind: (shots["gallery"], shots["query"]) for kind, shots in found.items()}


def apart(a, b):
    """The angle between headings, in degrees."""
    return np.abs((a - b + 180) % 360 - 180)


def along_and_aside(shots, other):
    """Metres from other to shots, ahead and to the right of other's headings."""
    turn, away = np.radians(other.heading_deg), (shots.metres - other.metres).T
    return away[0] * np.sin(turn) + away[1] * np.cos(turn), away[0] * np.cos(turn) - away[1] * np.sin(turn)


@pytest.mark.parametrize("kind", MANNERS)
def test_drives_are_a_data_set(kind, runs):
    config, each = replace(TINY, kind=kind), MANNERS[kind].headings
    drives = world_drives(config, progress=False)
    assert (len(drives), len(drives.gallery)) == (11, 11 * each)
    assert drives.query.size == drives.gallery.size == (12, 16)
    assert all(
        photo.float().std() > 3 for photo in (*drives.query[:], *drives.gallery[:])
    )  # none blank, at night either
    # positives are the photos within 25 m, the nearest first
    here, there = drives.query.positions.values, drives.gallery.positions.values
    for row, metres in enumerate(np.linalg.norm(here[:, None] - there[None], axis=-1)):
        assert sorted(drives.positives[row]) == np.flatnonzero(metres <= 25).tolist()
        assert (np.diff(metres[drives.positives[row]]) >= 0).all()
    # a database photo at hand looks the way of its query; of four at a stop one does
    asked, shown = drives.query.positions.heading_deg, drives.gallery.positions.heading_deg
    assert apart(asked[:, None], shown.reshape(-1, each)).min(1).max() < 45
    assert (drives.take([3]).query.positions.heading_deg == asked[3]).all()
    # every photo is the one that the scene shows from the position, heading and day noted for it
    done = {"gallery": 0, "query": 0}
    for number, count in enumerate((6, 5)):
        for side, shots in passes(config, number, count).items():
            images, rows = getattr(drives, side), slice(done[side], done[side] + len(shots.metres))
            metres = images.positions.values[rows] - np.float32([number * CITY_GAP_M, 0])
            assert ((metres > 30) & (metres < 226)).all()
            np.testing.assert_allclose(metres, shots.metres, atol=0.002)
            last = np.array([len(metres) - 1])
            alone = expose(shots.view(shots.days[shots.day[last[0]]], last).rgb, shots.sensor.take(last))[0]
            assert (alone.int() - images[rows][-1]).abs().max() <= 1
            done[side] = rows.stop


def test_a_drive_moves_by_the_spacing_along_its_lane(towns):
    database, _ = towns["season"]  # without heading errors
    step = np.diff(database.metres, axis=0).T
    assert np.median(np.hypot(*step)) == pytest.approx(ONE.spacing_m, rel=0.15)
    near = np.hypot(*step) < 1.3 * ONE.spacing_m  # of one street
    assert near.sum() > 5
    bearing = np.degrees(np.arctan2(*step)) % 360
    assert np.median(apart(bearing, database.heading_deg[:-1])[near]) < 10


def test_car_stays_on_the_lane_and_looks_along_it(towns):
    database, query = towns["car"]
    along, aside = along_and_aside(query, database)
    slack = 5 * np.sin(np.radians(4.5))  # the heading's own error, seen five metres ahead
    assert 1 < np.abs(along).max() <= 5.0 + 0.01
    assert np.abs(aside).max() <= 0.6 + slack
    assert apart(query.heading_deg, database.heading_deg).max() <= 2 * 3 * 1.5
    assert query.days[0].traffic != database.days[0].traffic


def test_hand_held_looks_all_around_from_the_pavement(towns):
    database, query = towns["hand_held"]
    heading = database.heading_deg.reshape(16, 4)
    assert (np.abs(apart(heading, np.roll(heading, -1, 1)) - 90) < 9).all()  # quarters, but for the errors
    assert len(np.unique(database.metres, axis=0)) == 16
    assert 8 < apart(query.heading_deg[:, None], heading).min(1).max() <= 25 + 9.01
    away = np.hypot(*(query.metres - database.metres[::4]).T)
    assert away.max() < 12
    moved = away > 0
    assert moved.mean() > 0.7
    city = scene_of(replace(ONE, kind="hand_held"), 0, "cpu").city
    at = (512 - query.metres[:, 1] / 0.5).astype(int), (query.metres[:, 0] / 0.5).astype(int)
    assert (city.surface[at][moved, 3] == Kind.PAVEMENT).all()
    assert (city.relief[at][moved, 3] == 0).all()  # nothing stands there


def test_season_sees_the_same_geometry(towns):
    """Depth of every ray that meets no tree in either season is equal; lawns and roofs are white, the trees bare."""
    database, query = towns["season"]
    np.testing.assert_array_equal(database.metres, query.metres)
    np.testing.assert_array_equal(database.heading_deg, query.heading_deg)
    summer, winter = (shots.view(shots.days[0], np.arange(16)) for shots in (database, query))
    solid = (summer.kind != Kind.TREE) & (winter.kind != Kind.TREE)
    assert solid.float().mean() > 0.6
    assert torch.equal(summer.depth_m[solid], winter.depth_m[solid])
    assert torch.equal(summer.kind[solid], winter.kind[solid])
    assert (winter.kind == Kind.TREE).sum() < (summer.kind == Kind.TREE).sum()
    lawn = solid & (summer.kind == Kind.GRASS)
    green, white = (view.rgb.permute(0, 2, 3, 1)[lawn] for view in (summer, winter))
    assert green[:, 1].mean() > green[:, 2].mean() + 0.1
    assert white.amin(1).mean() > 0.5
    assert (white.amax(1) - white.amin(1)).mean() < 0.1


def test_night_is_dark_with_lit_windows(runs):
    config = replace(TINY, kind="night")
    drives = world_drives(config, progress=False)
    day = np.concatenate([passes(config, number, count)["query"].day for number, count in enumerate((6, 5))])
    assert set(day) == {0, 1}  # dusk and night
    query = drives.query[:].numpy()
    light = [np.median(photos) for photos in (drives.gallery[:], query[day == 0], query[day == 1])]
    assert light[0] > 1.25 * light[1]
    assert light[1] > 1.5 * light[2]
    assert light[2] < 45
    assert query[day == 1].max() > 200  # windows and street lamps
