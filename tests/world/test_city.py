"""Cities: the same bits everywhere, layers that agree with each other, plausible shares, bad input."""

import hashlib
import os

import numpy as np
import pytest

from ucvgl.errors import InputError
from ucvgl.world.city import PIXELS_MAX, STRIP_ROWS, make_city
from ucvgl.world.kinds import CARS, FACADES, GROUND, TRUNK, Kind
from ucvgl.world.styles import CANAL, GARDEN, STYLES, style_named

# What every platform must give for seed 3, 224 m at 0.5 m, the first 16 digits. Edited rules change them: look at the city,
# then paste what the failing test shows.
GOLDEN = {
    "garden": "1f6e677e8264aff4",
    "old_town": "c4d28c59bf91d9d5",
    "downtown": "3b3260c13f8a0719",
    "canal": "0717dc20d9ed1553",
}
STYLE_NAMES = sorted(STYLES)


@pytest.fixture(params=STYLE_NAMES)
def city(cities, request):
    return cities[request.param]


def digest(city):
    sha = hashlib.sha256()
    for layer in (city.relief, city.surface, city.facade, city.extra):
        sha.update(np.ascontiguousarray(layer).astype(layer.dtype.newbyteorder("<"), copy=False).tobytes())
    return sha.hexdigest()


def shares(city):
    return np.bincount(city.surface[..., 3].ravel(), minlength=len(Kind)) / city.surface[..., 3].size


def test_a_city_is_the_same_bits_everywhere(city):
    assert digest(city)[:16] == GOLDEN[city.style.name]


@pytest.mark.parametrize("threads", [1, 5])
def test_threads_do_not_matter(garden, monkeypatch, threads):
    monkeypatch.setattr(os, "cpu_count", lambda: threads)
    assert digest(make_city(GARDEN, 3, size_m=224, resolution_m=0.5)) == digest(garden)


def test_heights_are_gentle_ground_and_moderate_buildings(city):
    kind, height = city.surface[..., 3], city.relief[..., 0] / 100
    road = height[kind == Kind.ROAD]
    assert 3.5 < road.min() < road.max() < 12
    assert height.max() < 60
    ground = np.isin(kind, [int(k) for k in GROUND if k != Kind.WATER])
    flat = ground[:, 1:] & ground[:, :-1]
    assert np.abs(np.diff(height, axis=1))[flat].max() < 0.3  # kerbs of 12 cm and a slope; nothing to stumble over


def test_a_crown_is_above_the_ground_under_it(city):
    under, top, number = city.relief[..., 1], city.relief[..., 2], city.relief[..., 3]
    crown = top > 0
    assert crown.any()
    assert (under[crown] <= top[crown]).all()
    assert (under[crown & (number != -TRUNK)] >= 70).all()  # people walk beneath; trunks reach into their crowns
    assert (under[~crown & (number != -TRUNK)] == 0).all()
    assert top.max() <= 1100
    assert not (crown & (city.surface[..., 3] == Kind.ROOF)).any()


def test_numbers_tell_what_stands_there(city):
    number, kind = city.relief[..., 3].astype(int), city.surface[..., 3]
    assert number.max() < FACADES
    assert number.min() >= -TRUNK
    np.testing.assert_array_equal(number > 0, kind == Kind.ROOF)
    np.testing.assert_array_equal(number == -TRUNK, kind == Kind.TREE)
    car = (number < 0) & (number > -TRUNK)
    assert car.any()
    assert np.isin(
        kind[car], [Kind.ROAD, Kind.MARKING, Kind.CROSSING]
    ).all()  # so none stands on a pavement or in water
    cabin = car & (number >= -CARS)
    assert 0.3 < cabin.sum() / car.sum() < 0.7


def test_facades_have_unit_normals_that_point_out_of_the_building(city):
    built = city.surface[..., 3] == Kind.ROOF
    normal = (city.facade[..., :2].astype(float) - 128) / 127
    length = np.hypot(normal[..., 0], normal[..., 1])
    np.testing.assert_allclose(length[built], 1, atol=0.02)
    # a step of the normal from a building's outermost pixels leaves it, in most places (terraces have party walls)
    rows, cols = np.nonzero(built)
    edge = [(built[max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2] == 0).any() for r, c in zip(rows, cols, strict=True)]
    rows, cols = rows[edge], cols[edge]
    out_r = np.clip(np.rint(rows - 1.6 * normal[rows, cols, 1]).astype(int), 0, 447)
    out_c = np.clip(np.rint(cols + 1.6 * normal[rows, cols, 0]).astype(int), 0, 447)
    assert (~built[out_r, out_c]).mean() > 0.85
    tall = city.facade[..., 3][built] / 4
    assert tall.min() >= 2.9
    assert (city.facade[~built] == 0).all()


def test_shares_are_those_of_the_kind_of_place(cities):
    share = {name: shares(city) for name, city in cities.items()}
    for values in share.values():
        assert 0.1 < values[Kind.ROAD] < 0.4
        assert 0.03 < values[Kind.PAVEMENT] < 0.2
        assert 0.001 < values[Kind.CROSSING] < 0.03
        assert values[[Kind.WALL, Kind.CAR, Kind.SKY]].sum() == 0  # those depend on the view or on the day
    assert share["garden"][Kind.GRASS] > 0.3 > 0.2 > share["downtown"][Kind.GRASS]
    assert share["garden"][Kind.ROOF] < 0.2 < share["old_town"][Kind.ROOF]
    assert share["canal"][Kind.WATER] > 0.02 > share["downtown"][Kind.WATER]
    assert cities["downtown"].facade[..., 3].max() > 2 * cities["garden"].facade[..., 3].max()


def test_lamps_stand_along_streets_and_trees_differ_in_tint(city):
    lamps, tint = city.extra[..., 0], city.extra[..., 1]
    assert lamps.max() > 150
    assert lamps[city.surface[..., 3] == Kind.ROAD].mean() > 10 * lamps[city.surface[..., 3] == Kind.ROOF].mean()
    assert 0.02 < (lamps > 60).mean() < 0.35
    assert len(np.unique(tint[city.relief[..., 2] > 0])) > 20


@pytest.mark.parametrize("style", [GARDEN, CANAL])
def test_bending_and_unbending_are_inverse(style):
    plan = make_city(style, 1, size_m=200, resolution_m=1).plan
    points = np.random.default_rng(0).uniform(0, 200, (2, 500))
    back = plan.unbend(*plan.bend(*points))
    assert np.abs(np.stack(back) - points).max() < 0.01


def test_a_last_strip_of_one_row_is_built_too():
    rows = STRIP_ROWS * 4 + 1
    city = make_city(GARDEN, 3, size_m=rows * 0.4, resolution_m=0.4)
    assert len(city.surface) == rows
    built = city.surface[-1, :, 3] == Kind.ROOF
    assert (city.facade[-1][built][:, 3] > 0).all()
    assert (city.relief[-1, :, 0] > 0).all()


@pytest.mark.parametrize(
    ("seed", "setting", "named"),
    [
        (-1, {}, "world seed"),
        (2**32, {}, "world seed"),
        (0, {"size_m": 199}, "size_m"),
        (0, {"size_m": 8001}, "size_m"),
        (0, {"size_m": float("nan")}, "size_m"),
        (0, {"resolution_m": 0.05}, "resolution_m"),
        (0, {"resolution_m": 2}, "resolution_m"),
        (0, {"size_m": 4000, "resolution_m": 0.1}, "size_m"),
    ],
)
def test_bad_settings_are_named(seed, setting, named):
    assert PIXELS_MAX < 4000 / 0.1
    with pytest.raises(InputError, match=named):
        make_city(GARDEN, seed, **setting)


def test_an_unknown_style_is_told_the_known_ones():
    assert style_named("garden") is GARDEN
    with pytest.raises(InputError, match="garden, old_town, downtown, canal"):
        style_named("village")
