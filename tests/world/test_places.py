"""Places: on the street, spaced, facing along it, on the right-hand side, chosen without replacement."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from ucvgl.world.places import MARGIN_M, Places, choose, street_places
from ucvgl.world.styles import Kind


def test_stops_are_on_the_carriageway_or_the_quay(city):
    places = street_places(city, 5, margin_m=20)
    col = (places.east_m / 0.5).astype(int)
    row = (448 - places.north_m / 0.5).astype(int)
    assert len(places) > 60
    assert np.isin(city.surface[row, col, 3], [Kind.ROAD, Kind.MARKING, Kind.CROSSING]).all()
    assert (city.relief[row, col, 3] == 0).mean() > 0.95  # hardly ever inside a parked car


@pytest.mark.parametrize("spacing", [4.0, 25.0])
def test_stops_keep_their_distance_and_their_margin(city, spacing):
    places = street_places(city, spacing)
    points = places.metres
    nearest = cKDTree(points).query(points, 2)[0][:, 1]
    assert nearest.min() >= 0.6 * spacing - 1e-3
    assert MARGIN_M <= points.min() < points.max() <= 224 - MARGIN_M
    same = np.diff(places.drive) == 0
    along = np.hypot(*np.diff(points, axis=0).T)[same]
    assert 0.65 * spacing < np.median(along) < 1.5 * spacing  # the bent grid stretches streets a little


def test_stops_face_the_next_stop_of_their_drive(city):
    places = street_places(city, 3, margin_m=20)
    step = np.diff(np.stack([places.east_m, places.north_m]), axis=1)
    direction = np.degrees(np.arctan2(*step))
    middle = places.heading_deg[:-1] + ((np.diff(places.heading_deg) + 180) % 360 - 180) / 2
    off = np.abs((direction - middle + 180) % 360 - 180)
    following = (np.diff(places.drive) == 0) & (np.hypot(*step) < 6)
    assert following.sum() > 50
    assert np.median(off[following]) < 1
    assert np.quantile(off[following], 0.97) < 12  # where a lane shifts with the street's width


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.data(), st.integers(0, 2**31))
def test_choosing_is_without_replacement_and_in_order(total, data, seed):
    count, run = data.draw(st.integers(0, total)), np.arange(total)
    chosen, again = (choose(Places(run, 2 * run, run % 360, run // 10), count, seed) for _ in range(2))
    assert len(chosen) == count
    assert (np.diff(chosen.east_m) > 0).all()
    np.testing.assert_array_equal(chosen.north_m, 2 * again.east_m)
