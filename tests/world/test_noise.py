"""Hashes and noise: golden values that another platform must give too, ranges, and the two ways to sample."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ucvgl.world.noise import Noise, hash32, unit

QUICK = settings(max_examples=40, deadline=None)
METRES = hnp.arrays(np.float32, st.integers(1, 9), elements=st.floats(-30, 130, width=32))


def test_hashes_and_noise_are_the_same_bits_on_every_platform():
    assert hash32(0).tolist() == [33350994]
    assert hash32(1, 2, 3).tolist() == [2801655874]
    assert hash32(-1, 2**31, 2**40 + 5).tolist() == [527226509]
    assert hash32(7, np.arange(4)).tolist() == [3434613449, 3342258810, 1640582951, 1476251302]
    x = np.linspace(0, 100, 5, dtype=np.float32)
    noise = Noise.make(100, 7.5, 3, 1).at(x, x[::-1].copy())
    assert noise.view(np.uint32).tolist() == [1047711513, 1059298364, 1052395780, 1033077006, 1057651098]


@QUICK
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4))
def test_unit_numbers_are_in_the_half_open_range_and_depend_on_each_key(keys):
    value = unit(*keys)[0]
    assert 0 <= value < 1
    assert value.dtype == np.float32
    for place in range(len(keys)):
        other = [key ^ (k == place) for k, key in enumerate(keys)]
        assert hash32(*other)[0] != hash32(*keys)[0]


@QUICK
@given(METRES, METRES)
def test_a_grid_of_noise_is_the_noise_at_its_points(x, y):
    noise = Noise.make(100, 7.5, 3, 1)
    grid = noise.grid(x, y)
    points = noise.at(*(np.ascontiguousarray(g) for g in np.broadcast_arrays(x[None, :], y[:, None])))
    np.testing.assert_array_equal(grid, points)
    assert 0 <= grid.min() <= grid.max() <= 1
