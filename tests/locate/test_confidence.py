"""Confidence: the evidence against plain loops, the fit against its gradient, the chain against the sum over all paths."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ucvgl.errors import InputError
from ucvgl.locate import confidence as c
from ucvgl.locate.pictures import Picture
from ucvgl.locate.search import calibration_path
from ucvgl.reranking import csls_neighbours


@given(st.integers(0, 10_000), st.integers(5, 12), st.integers(5, 40))
def test_evidence_against_plain_loops(seed, n, m):
    generator = torch.Generator().manual_seed(seed)
    ground, satellite = (torch.randn(size, 4, generator=generator, dtype=torch.float64) for size in (n, m))
    where = 90 * torch.rand(m, 2, generator=generator).numpy()
    found = c.evidence(ground, satellite, where)
    k = min(c.NEIGHBOURS, m)
    both, rows = csls_neighbours(ground, satellite, k, min(c.PICTURES, n)), []
    for i in range(n):
        index, score = both.ground_index[i].tolist(), both.ground_score[i].tolist()
        assert (found.best[i].tolist(), found.score[i].tolist()) == (index[:5], score[:5])
        away = [float(np.linalg.norm(where[j] - where[index[0]])) for j in index]
        first = next((j for j in range(k) if away[j] > c.RADIUS_M), k - 1)  # elsewhere: no overlap with the best
        own = both.satellite_index[index[0]].tolist()
        likelihood = np.exp(c.SCALE * (satellite @ ground[i]).numpy())
        beside = [j for j in range(m) if np.linalg.norm(where[j] - where[index[0]]) <= c.BESIDE_M]
        agree = [d <= c.NEAR_M for d in away[1:5]]
        rows.append([score[0] - score[first], likelihood[beside].sum() / likelihood.sum(),
                     1 / (own.index(i) + 1) if i in own else 0, sum(agree) / len(agree)])  # fmt: skip
    mutual = sum(row[2] == 1 for row in rows) / n
    assert found.values == pytest.approx(np.array([[*row, mutual] for row in rows]), abs=1e-9)


@pytest.mark.parametrize("searched", [False, True])
@pytest.mark.parametrize("kind", ["panorama", "photo"])
def test_the_committed_calibrations_load_and_fit_the_evidence(kind, searched):
    found = c.load_calibration(calibration_path(kind, searched=searched))
    assert len(found.weight) == len(c.FEATURES)
    assert "8 synthetic cities" in found.measured_on
    assert ("searched for" in found.measured_on) == searched


def all_paths(likelihood, cells, reach, leak):
    """The posterior by adding up every path, of the candidates and the state outside."""
    count = len(cells)
    away = np.hypot(*(cells[:, None] - cells[None]).transpose(2, 0, 1))
    away = np.pad(away, (0, 1), constant_values=np.inf)
    away[count, count] = 0
    anywhere = np.array([*[0.8 / count] * count, 0.2])
    likelihood = np.column_stack([likelihood, likelihood.mean(1)])
    steps = []
    for radius in reach:
        near = away <= radius
        steps.append((1 - leak) * near / near.sum(1, keepdims=True) + leak * anywhere)
    out = np.zeros(likelihood.shape)
    for path in product(range(count + 1), repeat=len(likelihood)):
        p = anywhere[path[0]] * np.prod([likelihood[t, x] for t, x in enumerate(path)])
        p *= np.prod([step[a, b] for step, a, b in zip(steps, path, path[1:], strict=False)])
        for t, x in enumerate(path):
            out[t, x] += p
    return (out / out.sum(1, keepdims=True))[:, :-1]


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(2, 6), st.sampled_from([0.0, 0.02, 0.5]))
def test_forward_backward_is_the_sum_over_all_paths(seed, pictures, count, leak):
    rng = np.random.default_rng(seed)
    cells = np.array(sorted(rng.choice(12, count, replace=False)))[:, None] // [4, 1] % [3, 4]  # a grid with gaps
    reach = rng.choice([1.0, 1.5, 2.3, 9.0], pictures - 1)
    likelihood = rng.random((pictures, count)) + 0.01
    if leak == 0:
        reach[:] = 9.0  # with gaps and no leak some cells can't be left
    found = c.forward_backward(likelihood, cells, reach, leak)
    assert found == pytest.approx(all_paths(likelihood, cells, reach, leak), abs=1e-9)


def test_pictures_that_fit_no_path_are_outside():
    """Ten pictures along a street of 40 candidates, then ten that look like far ones at random."""
    cells, truth = np.stack([np.arange(40), np.zeros(40, int)], 1), np.arange(10)
    seen = np.concatenate([truth, 20 + np.array([0, 15, 5, 19, 2, 11, 17, 4, 13, 8])])
    likelihood = np.full((20, 40), 0.2 / 39)
    likelihood[np.arange(20), seen] = 0.8
    found = c.forward_backward(likelihood, cells, np.full(19, 2.0))
    assert found.argmax(1)[:10].tolist() == truth.tolist()
    assert found.sum(1)[:9].min() > 0.95 > 0.1 > found.sum(1)[12:].max()


def test_placement_counts_what_lies_within_the_radius():
    candidates = SimpleNamespace(centre_m=12.5 * np.array([[0, 0], [1, 0], [2, 0], [40, 0]]), stride_m=12.5)
    rng = np.random.default_rng(0)
    shift = 12.5 * (rng.random((200_000, 2)) - 0.5)
    beside = (np.hypot(*(shift + np.array([12.5, 0])).T) <= c.RADIUS_M).mean()  # of the next cell
    for likelihood, best, p in (([0.72, 0.2, 1e-9, 0.08], 0, 0.72 + 0.2 * beside), ([1e-9, 1e-9, 0.05, 0.95], 3, 0.95)):
        # a picture alone
        found, near = c.place_together(np.log([likelihood]) / 20, 20.0, np.array([0]), np.zeros(0), candidates)
        assert (found[0, 0], near[0, 0]) == (best, pytest.approx((1 - c.OUTSIDE) * p, abs=0.005))
        assert near[0].tolist() == sorted(near[0], reverse=True)


def test_time_stamps_and_names_order_a_drive():
    taken = {"c": 7.0, "a": 9.5, "b": 5.0}
    pictures = [Picture(name, "photo", 64, 48, taken_s=seconds) for name, seconds in taken.items()]
    order, reach = c.drive_order(pictures, "time", 10, 50)
    assert (order.tolist(), reach.tolist()) == ([2, 0, 1], [20, 25])
    order, reach = c.drive_order(pictures, "name", 15, 30)
    assert (order.tolist(), reach.tolist()) == ([1, 2, 0], [30, 30])
    with pytest.raises(InputError, match=r"1 without, such as b.*--drive name"):
        c.drive_order([*pictures[:2], Picture("b", "photo", 64, 48)], "time", 15, 50)
