"""The chain on a drive: against the sum over all paths, hand-sized cases, and time stamps that order pictures."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ucvgl.errors import InputError
from ucvgl.locate.chain import drive_order, forward_backward, place_together
from ucvgl.locate.confidence import RADIUS_M
from ucvgl.locate.pictures import Picture


def all_paths(likelihood, cells, reach, leak):
    """The posterior by adding up every path."""
    count = len(cells)
    away = np.hypot(*(cells[:, None] - cells[None]).transpose(2, 0, 1))
    steps = []
    for radius in reach:
        near = away <= radius
        steps.append((1 - leak) * near / near.sum(1, keepdims=True) + leak / count)
    out = np.zeros(likelihood.shape)
    for path in product(range(count), repeat=len(likelihood)):
        p = np.prod([likelihood[t, x] for t, x in enumerate(path)])
        p *= np.prod([step[a, b] for step, a, b in zip(steps, path, path[1:], strict=False)])
        for t, x in enumerate(path):
            out[t, x] += p
    return out / out.sum(1, keepdims=True)


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(2, 6), st.sampled_from([0.0, 0.02, 0.5]))
def test_forward_backward_is_the_sum_over_all_paths(seed, pictures, count, leak):
    rng = np.random.default_rng(seed)
    cells = np.array(sorted(rng.choice(12, count, replace=False)))[:, None] // [4, 1] % [3, 4]  # a grid with gaps
    reach = rng.choice([1.0, 1.5, 2.3, 9.0], pictures - 1)
    likelihood = rng.random((pictures, count)) + 0.01
    if leak == 0:
        reach[:] = 9.0  # with gaps and no leak some cells can't be left
    found = forward_backward(likelihood, cells, reach, leak)
    assert found == pytest.approx(all_paths(likelihood, cells, reach, leak), abs=1e-9)


def test_a_doubtful_picture_is_placed_by_its_neighbours():
    cells = np.stack([np.arange(10), np.zeros(10, int)], 1)
    likelihood = np.full((3, 10), 0.01)
    likelihood[0, 2] = likelihood[2, 4] = 1
    likelihood[1, [3, 9]] = 0.5, 0.6  # alone it is taken for cell 9
    found = forward_backward(likelihood, cells, np.array([1.0, 1.0]))
    assert found.argmax(1).tolist() == [2, 3, 4]
    assert forward_backward(likelihood, cells, np.array([99.0, 99.0]))[1].argmax() == 9  # nothing is known of the speed


def test_one_picture_alone_is_its_own_likelihood():
    p = np.array([[0.1, 0.7, 0.2]])
    assert forward_backward(p, np.array([[0, 0], [0, 1], [5, 5]]), np.zeros(0)) == pytest.approx(p)


def test_placement_counts_what_lies_within_the_radius():
    candidates = SimpleNamespace(centre_m=12.5 * np.array([[0, 0], [1, 0], [2, 0], [40, 0]]), stride_m=12.5)
    rng = np.random.default_rng(0)
    shift = 12.5 * (rng.random((200_000, 2)) - 0.5)
    beside = (np.hypot(*(shift + np.array([12.5, 0])).T) <= RADIUS_M).mean()  # of the next cell
    for likelihood, best, p in (([0.72, 0.2, 1e-9, 0.08], 0, 0.72 + 0.2 * beside), ([1e-9, 1e-9, 0.05, 0.95], 3, 0.95)):
        # a picture alone
        found, near = place_together(np.log([likelihood]) / 20, 20.0, np.array([0]), np.zeros(0), candidates)
        assert (found[0, 0], near[0, 0]) == (best, pytest.approx(p, abs=0.005))
        assert near[0].tolist() == sorted(near[0], reverse=True)


def test_time_stamps_and_names_order_a_drive():
    taken = {"c": 7.0, "a": 9.5, "b": 5.0}
    pictures = [Picture(name, "photo", 64, 48, taken_s=seconds) for name, seconds in taken.items()]
    order, reach = drive_order(pictures, "time", 10, 50)
    assert (order.tolist(), reach.tolist()) == ([2, 0, 1], [20, 25])
    order, reach = drive_order(pictures, "name", 15, 30)
    assert (order.tolist(), reach.tolist()) == ([1, 2, 0], [30, 30])
    with pytest.raises(InputError, match=r"1 without, such as b.*--drive name"):
        drive_order([*pictures[:2], Picture("b", "photo", 64, 48)], "time", 15, 50)
