"""Confidence: the evidence against plain loops, the fit against its own gradient, honest numbers."""

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
    assert "old_town" in found.measured_on
    assert ("searched for" in found.measured_on) == searched


def test_the_fit_is_where_the_published_loss_is_flat():
    rng = np.random.default_rng(1)
    values = np.column_stack([rng.normal(size=300), rng.random(300), rng.random(300), *np.full((2, 300), 0.25)])
    right = rng.random(300) < expit(2 * values[:, 0] - 0.5)  # the first feature decides
    error_m = np.where(right, 5.0, 5e5)[:, None] + np.zeros(5)
    unknown = np.vstack([values, values[:1] + 9]), np.vstack([error_m, np.full((1, 5), np.nan)])  # a row to leave out
    fitted = fit_calibration(*unknown, measured_on="a test", penalty=0.7)
    x = torch.tensor(values)
    z = (x - x.mean(0)) / torch.where(x.std(0, correction=0) > 1e-9, x.std(0, correction=0), 1.0)
    y = torch.tensor(error_m[:, 0] <= c.RADIUS_M, dtype=torch.float64)
    w = torch.tensor([*fitted.weight, fitted.bias], dtype=torch.float64, requires_grad=True)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(z @ w[:-1] + w[-1], y, reduction="sum")
    (loss + 0.35 * w[:-1].square().sum()).backward()
    assert w.grad.abs().max() < 1e-4
    assert (fitted.weight[3], fitted.sd[3]) == (0, 1)  # a feature that never varies says nothing
    found = c.Evidence(values, np.zeros((300, 5), int), np.zeros((300, 5)))
    assert c.probabilities(fitted, found).mean() == pytest.approx(float(y.mean()), abs=1e-6)


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


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0.01, 1))
def test_a_threshold_reaches_its_share_and_a_greater_one_does_not(values, share):
    p = np.array(values)
    at = metrics.threshold_for(p, share)
    assert (p >= at).mean() >= share - 1e-9
    greater = p[p > at]
    assert len(greater) / len(p) < share
