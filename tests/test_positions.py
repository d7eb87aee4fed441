"""Positions against published distances and coordinates, and neighbours against the brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ucvgl.data.folders import looks_swapped
from ucvgl.errors import InputError
from ucvgl.positions import Metres, Neighbours, Positions, Wgs84, distances, from_metres, haversine, to_metres


def wgs84(*rows):
    return Positions(np.array(rows, float), Wgs84())


def test_haversine_of_known_city_pairs():
    # Williams, "Aviation Formulary": LAX (33 57 N, 118 24 W) to JFK (40 38 N, 73 47 W) is 0.623585 rad, 2144 nautical miles
    radians = haversine(np.array([33 + 57 / 60, -118.4]), np.array([40 + 38 / 60, -(73 + 47 / 60)])) / 6_371_008.8
    assert radians == pytest.approx(0.623585, abs=2e-6)
    assert haversine(np.array([0.0, 0.0]), np.array([0.0, 180.0])) == pytest.approx(np.pi * 6_371_008.8)  # antipodes


def test_transverse_mercator_keeps_the_geodesic_of_flinders_peak_and_buninyong():
    # Geocentric Datum of Australia Technical Manual (GRS80, equal to WGS84 here to 0.1 mm): 54,972.271 m
    flinders = -(37 + 57 / 60 + 3.72030 / 3600), 144 + 25 / 60 + 29.52440 / 3600
    buninyong = -(37 + 39 / 60 + 10.15610 / 3600), 143 + 55 / 60 + 35.38390 / 3600
    local = to_metres(wgs84(flinders, buninyong), flinders)
    straight = float(np.hypot(*(local.values[0] - local.values[1])))
    x = local.values[:, 0]  # the projection's scale along a line: 1 + (x1^2 + x1 x2 + x2^2) / 6 R^2, here 2e-6
    scale = 1 + (x[0] ** 2 + x[0] * x[1] + x[1] ** 2) / (6 * 6_371_000**2)
    assert straight / scale == pytest.approx(54_972.271, abs=1e-3)
    assert distances(wgs84(flinders), wgs84(buninyong))[0] == pytest.approx(54_972.271, rel=3e-3)  # the sphere


@settings(max_examples=60, deadline=None)
@given(st.floats(-84, 84), st.floats(-180, 180), st.floats(-30_000, 30_000), st.floats(-30_000, 30_000))
def test_local_metres_there_and_back(lat, lon, east, north):
    degrees = from_metres(np.array([[east, north]]), (lat, lon))
    if abs(degrees[0, 0]) > 89:
        return
    back = to_metres(Positions(degrees, Wgs84()), (lat, lon))
    assert back.values[0] == pytest.approx((east, north), abs=1e-5)
    away = haversine(degrees[0], np.array([lat, lon]))
    assert away == pytest.approx(np.hypot(east, north), rel=7e-3, abs=1e-3)


@pytest.mark.parametrize("frame", [Wgs84(), Metres("test")])
def test_neighbours_equal_the_brute_force(frame):
    rng = np.random.default_rng(0)
    scale = (1e-3, 1e-3) if isinstance(frame, Wgs84) else (100, 100)
    base = (60.17, 24.94) if isinstance(frame, Wgs84) else (5e5, 6.6e6)
    a = Positions(base + rng.normal(size=(300, 2)) * scale, frame)
    b = Positions(np.concatenate([base + rng.normal(size=(40, 2)) * scale, a.values[:10]]), frame)
    dense = np.stack([distances(Positions(np.repeat(row[None], len(a), 0), frame), a) for row in b.values])
    offsets, found = Neighbours(a).within(b, 60.0)
    for i in range(len(b)):
        mine = found[offsets[i] : offsets[i + 1]]
        assert set(mine) == set(np.flatnonzero(dense[i] <= 60.0))
        assert np.all(np.diff(dense[i][mine]) >= -1e-6)  # nearest first
    indices, metres = Neighbours(a).nearest(b, 5)
    assert metres == pytest.approx(np.sort(dense, axis=1)[:, :5], abs=1e-6)
    assert np.take_along_axis(dense, indices, 1) == pytest.approx(metres, abs=1e-6)


def test_neighbours_over_the_date_line_and_at_the_pole_but_never_where_unknown():
    p = wgs84((0, 179.9999), (0, -179.9999), (np.nan, np.nan), (89.9999, 0), (89.9999, 180))
    offsets, found = Neighbours(p).within(p, 30.0)
    assert [sorted(found[offsets[i] : offsets[i + 1]]) for i in range(5)] == [[0, 1], [0, 1], [], [3, 4], [3, 4]]
    with pytest.raises(InputError, match="known positions"):
        Neighbours(wgs84((np.nan, np.nan)))


def test_wrong_degrees_and_swapped_columns_are_recognised():
    for row, message in (
        ((-122.3, 47.6), "row 1.*look swapped"),
        ((60, 190), "60, 190"),
        ((60, np.nan), "found 60, nan"),
    ):
        with pytest.raises(InputError, match=message):
            wgs84(row)
    with pytest.raises(InputError, match="two finite numbers, found inf, 0"):
        Positions(np.array([[np.inf, 0]]), Metres("test"))
    helsinki = wgs84((60.17, 24.94), (60.18, 24.95))
    assert looks_swapped(wgs84((24.94, 60.17)), helsinki)
    assert not looks_swapped(wgs84((60.2, 24.9)), helsinki)
