"""Confidence: the evidence against hand-sized lists and plain loops, the fit against its own gradient, honest numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from make_weights import fit_calibration
from scipy.special import expit
from scipy.stats import binomtest

from ucvgl import metrics
from ucvgl.locate import confidence as c
from ucvgl.locate.search import calibration_path
from ucvgl.reranking import csls_neighbours
from ucvgl.search import BothWays


def test_evidence_by_hand(monkeypatch):
    line = np.array([[0.0, 0], [5, 0], [100, 0], [200, 0], [300, 0], [400, 0]])
    lists = BothWays(
        torch.tensor([[0.9, 0.88, 0.7, 0.6, 0.5, 0.4], [0.5, 0.5, 0.4, 0.3, 0.2, 0.1]], dtype=torch.float64),
        torch.tensor([[0, 1, 2, 3, 4, 5], [3, 2, 0, 1, 4, 5]]), torch.zeros(6, 2),
        torch.tensor([[1, 0], [0, 1], [0, 1], [1, 0], [0, 1], [0, 1]]),
    )  # fmt: skip
    monkeypatch.setattr(c, "csls_neighbours", lambda *_: lists)
    all_alike = torch.ones(2, 1), torch.ones(6, 1)
    found = c.evidence(*all_alike, line)
    # picture 0: the second candidate overlaps the first, so the margin is to the third; its candidate prefers picture 1
    assert found.values[0] == pytest.approx([0.2, 2 / 6, 1 / 2, 1 / 4, 1 / 2])
    # picture 1: a tie with a candidate elsewhere; a mutual match; the other four lie far away
    assert found.values[1] == pytest.approx([0, 1 / 6, 1, 0, 1 / 2])
    assert found.best.tolist() == [[0, 1, 2, 3, 4], [3, 2, 0, 1, 4]]
    assert found.distance_m.tolist() == [[0, 5, 100, 200, 300], [0, 100, 200, 195, 100]]
    assert found.score[0].tolist() == [0.9, 0.88, 0.7, 0.6, 0.5]
    # a list that never leaves the place: the margin is what is sure
    assert c.evidence(*all_alike, line / 100).values[0] == pytest.approx([0.5, 1, 0.5, 1, 0.5])


def naive(ground, satellite, where):
    n, k = len(ground), min(c.NEIGHBOURS, len(where))
    both, rows = csls_neighbours(ground, satellite, k, min(c.PICTURES, n)), []
    for i in range(n):
        index, score = both.ground_index[i].tolist(), both.ground_score[i].tolist()
        away = [float(np.linalg.norm(where[j] - where[index[0]])) for j in index]
        first = next((j for j in range(k) if away[j] > c.RADIUS_M), k - 1)
        own = both.satellite_index[index[0]].tolist()
        likelihood = np.exp(c.SCALE * (satellite @ ground[i]).numpy())
        beside = [j for j in range(len(where)) if np.linalg.norm(where[j] - where[index[0]]) <= c.BESIDE_M]
        agree = [d <= c.NEAR_M for d in away[1:5]]
        rows.append([score[0] - score[first], likelihood[beside].sum() / likelihood.sum(),
                     1 / (own.index(i) + 1) if i in own else 0, sum(agree) / len(agree)])  # fmt: skip
    mutual = sum(row[2] == 1 for row in rows) / n
    return np.array([[*row, mutual] for row in rows])


@given(st.integers(0, 10_000), st.integers(5, 12), st.integers(5, 40))
def test_evidence_against_plain_loops(seed, n, m):
    generator = torch.Generator().manual_seed(seed)
    ground, satellite = (torch.randn(size, 4, generator=generator, dtype=torch.float64) for size in (n, m))
    where = 90 * torch.rand(m, 2, generator=generator).numpy()
    found = c.evidence(ground, satellite, where)
    assert found.values == pytest.approx(naive(ground, satellite, where), abs=1e-9)


@pytest.mark.parametrize("searched", [False, True])
@pytest.mark.parametrize("kind", ["panorama", "photo"])
def test_the_committed_calibrations_load_and_fit_the_evidence(kind, searched):
    found = c.load_calibration(calibration_path(kind, searched=searched))
    assert len(found.weight) == len(c.FEATURES)
    assert "old_town" in found.measured_on
    assert ("searched for" in found.measured_on) == searched


def fit(found, error_m, **settings):
    return fit_calibration(found.values, error_m, measured_on="a test", **settings)


def simulated(n, seed, weight=2.0, bias=-0.5):
    """Evidence whose first feature decides: candidates 1 km apart, the truth 5 m from the best one or far off."""
    rng = np.random.default_rng(seed)
    values = np.column_stack([rng.normal(size=n), rng.random(n), rng.random(n), *np.full((2, n), 0.25)])
    right = rng.random(n) < expit(weight * values[:, 0] + bias)
    away = np.tile(1000.0 * np.arange(5), (n, 1))
    found = c.Evidence(values, np.tile(np.arange(5), (n, 1)), np.zeros((n, 5)), away)
    return found, np.where(right[:, None], np.hypot(away - 3, 4), 5e5)


def test_the_fit_is_where_the_published_loss_is_flat():
    found, error_m = simulated(300, seed=1)
    fitted = fit(found, error_m, penalty=0.7)
    x = torch.tensor(found.values)
    z = (x - x.mean(0)) / torch.where(x.std(0, correction=0) > 1e-9, x.std(0, correction=0), 1.0)
    y = torch.tensor(error_m[:, 0] <= c.RADIUS_M, dtype=torch.float64)
    w = torch.tensor([*fitted.weight, fitted.bias], dtype=torch.float64, requires_grad=True)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(z @ w[:-1] + w[-1], y, reduction="sum")
    (loss + 0.35 * w[:-1].square().sum()).backward()
    assert w.grad.abs().max() < 1e-4
    assert (fitted.weight[3], fitted.sd[3]) == (0, 1)  # a feature that never varies says nothing
    assert c.probabilities(fitted, found).mean() == pytest.approx(float(y.mean()), abs=1e-6)


def test_later_counts_the_first_candidate_that_is_right_among_wrong_places_and_unknown_ones_are_left_out():
    at = np.array([0, 0, 1, 1, 2, 9, 4, np.nan])  # right, right, second, second, third, nowhere, fifth, unknown
    error_m = 100.0 * np.abs(np.arange(5) - at[:, None])
    values = np.random.default_rng(0).random((8, 5))
    found = c.Evidence(values, np.tile(np.arange(5), (8, 1)), np.zeros((8, 5)), error_m)
    # five wrong, and one more for caution
    assert fit(found, error_m).later == pytest.approx((2 / 6, 1 / 6, 0, 1 / 6))


def test_known_positions_correct_the_probabilities():
    rng = np.random.default_rng(10)
    p = expit(rng.normal(size=400))
    right = (rng.random(400) < expit(0.5 * np.log(p / (1 - p)) - 1)).astype(float)
    right[200:] = np.nan
    after = c.recalibrated(p, right)
    assert after[:200].mean() == pytest.approx(right[:200].mean(), abs=0.01)
    assert metrics.calibration_error(after, right) < metrics.calibration_error(p, right) / 2
    assert (np.argsort(after) == np.argsort(p)).all()
    for same in (0.0, 1.0):  # all are wrong, or right
        after = c.recalibrated(p, np.where(np.arange(400) < 20, same, np.nan))
        assert abs(after - same).max() < 0.2


def one_place(distances, later):
    found = c.Evidence(np.zeros((1, 5)), np.arange(5)[None], np.zeros((1, 5)), np.array([distances]))
    return replace(fit(*simulated(50, seed=8)), later=later), found


def test_radius_by_hand():
    fitted, found = one_place([0.0, 20.0, 5.0, 300.0, 1.0], (0.5, 0.0, 0.2, 0.0))
    for p, level, metres in [
        (0.6, 0.5, 10), (0.4, 0.5, 30), (0.4, 0.7, 30), (0.4, 0.8, 310), (0.4, 0.83, np.inf), (0.9, 0.9, 10)
    ]:  # fmt: skip
        assert c.radius(fitted, found, np.array([p]), level)[0] == pytest.approx(metres), (p, level)


@given(st.integers(0, 1000), st.floats(0.05, 0.9))
def test_a_radius_grows_with_the_level_and_shrinks_with_the_probability(seed, p):
    rng = np.random.default_rng(seed)
    fitted, found = one_place([0.0, *rng.uniform(0, 100, 4)], (0.3, 0.2, 0.1, 0.1))
    at = [c.radius(fitted, found, np.array([p]), level)[0] for level in (0.1, 0.5, 0.7, 0.9)]
    assert at == sorted(at)
    assert at[0] >= 10
    assert c.radius(fitted, found, np.array([p + 0.05]), 0.5)[0] <= at[1]


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 12))
def test_bins_against_a_plain_split_of_the_sorted(seed, n, bins):
    rng = np.random.default_rng(seed)
    p, y = rng.permutation(np.linspace(0.01, 0.99, n)), rng.integers(0, 2, n).astype(float)
    groups = {}
    for rank, i in enumerate(np.argsort(p)):
        groups.setdefault(rank * bins // n, []).append(i)
    expected = sum(len(g) / n * abs(p[g].mean() - y[g].mean()) for g in groups.values())
    assert metrics.calibration_error(p, y, bins) == pytest.approx(expected)
    table = metrics.reliability(p, y, bins)
    assert table["pictures"].sum() == n
    assert table["pictures"].max() - table["pictures"].min() <= 1
    for _, row in table.iterrows():
        k = round(row["true"] * row["pictures"])
        interval = binomtest(int(k), int(row["pictures"])).proportion_ci(method="wilson")
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high), abs=1e-6)


def test_precision_at_a_threshold_leaves_unknown_ones_out():
    p, y = np.array([0.9, 0.8, 0.7, 0.2, 0.95]), np.array([1, 0, 1, 0, np.nan])
    found = metrics.claimed_and_true_precision(p, y, 0.7)
    assert (found["placed"], found["share"]) == (3, 0.75)
    assert (found["claimed"], found["true"]) == pytest.approx((0.8, 2 / 3))
    assert metrics.claimed_and_true_precision(p, y, 0.99)["placed"] == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0.01, 1))
def test_a_threshold_reaches_its_share_and_a_greater_one_does_not(values, share):
    p = np.array(values)
    at = metrics.threshold_for(p, share)
    assert (p >= at).mean() >= share - 1e-9
    greater = p[p > at]
    assert len(greater) / len(p) < share
