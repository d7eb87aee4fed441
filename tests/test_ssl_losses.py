"""Self-supervised losses: against loops, by hand; masks; collapse. test_lightly.py has another library's values and gradients."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from toy_sets import randn, random_mask

from ucvgl import ssl_losses as s


def cos(a, b):
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in b))


sizes = st.integers(1, 6), st.integers(1, 5), st.integers(0, 99)


def nt_xent_by_loops(z1, z2, temperature, skip=None):
    views = [(i, z) for z in (z1, z2) for i, z in enumerate(z)]  # (item, vector)
    total = 0.0
    for a, (i, x) in enumerate(views):
        own, all_others = None, 0.0
        for b, (j, y) in enumerate(views):
            if a == b:
                continue
            e = math.exp(cos(x, y) / temperature)
            if i == j:
                own = e
            elif skip is not None and (skip[i, j] or skip[j, i]):
                continue
            all_others += e
        total -= math.log(own / all_others)
    return total / len(views)


def moco_by_loops(query, key, queue, temperature, skip=None):
    total = 0.0
    for i, q in enumerate(query):
        own = math.exp(cos(q, key[i]) / temperature)
        others = [math.exp(cos(q, n) / temperature) for j, n in enumerate(queue) if skip is None or not skip[i, j]]
        total -= math.log(own / (own + sum(others)))
    return total / len(query)


def triplet_by_loops(query, positive, negatives, margin, present=None):
    losses = [
        max(0.0, math.dist(query[i], positive[i]) + margin - math.dist(query[i], negatives[i, k]))
        for i in range(len(query))
        for k in range(negatives.shape[1])
        if present is None or present[i, k]
    ]
    return sum(losses) / len(losses) if losses else 0.0


@given(*sizes, st.sampled_from([0.07, 0.5, 2.0]), st.booleans())
def test_nt_xent_is_the_formula(count, dim, seed, temperature, masked):
    z1, z2 = randn(count, dim, seed=seed), randn(count, dim, seed=seed + 100)
    skip = random_mask(count, count, seed=seed) if masked else None
    expected = nt_xent_by_loops(z1, z2, temperature, skip)
    assert float(s.nt_xent(z1, z2, temperature, skip)) == pytest.approx(expected, abs=1e-9)


@given(*sizes, st.integers(1, 9), st.sampled_from([0.07, 0.5]), st.booleans())
def test_moco_is_the_formula(count, dim, seed, entries, temperature, masked):
    query, key = randn(count, dim, seed=seed), randn(count, dim, seed=seed + 100)
    queue = F.normalize(randn(entries, dim, seed=seed + 200), dim=1)
    skip = random_mask(count, entries, seed=seed) if masked else None
    expected = moco_by_loops(query, key, queue, temperature, skip)
    assert float(s.moco(query, key, queue, temperature, skip)) == pytest.approx(expected, abs=1e-9)


@given(*sizes, st.integers(1, 4), st.sampled_from([0.0, 0.1, 1.0]), st.booleans())
def test_triplet_is_the_formula(count, dim, seed, k, margin, masked):
    query, positive = (F.normalize(randn(count, dim, seed=seed + n), dim=1) for n in (0, 100))
    negatives = F.normalize(randn(count, k, dim, seed=seed + 200), dim=2)
    present = random_mask(count, k, seed=seed) if masked else None
    ours = s.triplet(query, positive, negatives, margin, present=present)
    expected = triplet_by_loops(query, positive, negatives, margin, present)
    assert float(ours) == pytest.approx(expected, abs=1e-9)


def test_barlow_twins_by_hand():
    # two dimensions of variance 1, without correlation; the second view has the second one turned round
    z = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    turned = z * torch.tensor([1, -1])
    torch.testing.assert_close(s.cross_correlation(z, turned, eps=0), torch.diag(torch.tensor([1.0, -1])).double())
    assert float(s.barlow_twins(z, turned)) == pytest.approx((1 + 1) ** 2, rel=1e-4)
    assert float(s.barlow_twins(z, z)) == pytest.approx(0, abs=1e-9)


def test_vicreg_by_hand():
    z = torch.tensor([[0.0, 0], [1, 2]], dtype=torch.float64)  # variances 1/2 and 2, covariance 1
    assert float(s.invariance_loss(z, z + torch.tensor([1, 3]))) == (1 + 9) / 2
    assert float(s.variance_loss(z, eps=0)) == pytest.approx((1 - math.sqrt(0.5)) / 2)
    assert float(s.covariance_loss(z)) == pytest.approx((1 + 1) / 2)


def test_a_mask_of_everything_leaves_the_positives():
    z1, z2 = randn(4, 3, seed=1).requires_grad_(), randn(4, 3, seed=2)
    loss = s.nt_xent(z1, z2, 0.07, torch.ones(4, 4, dtype=torch.bool))
    loss = loss + s.moco(z1, z2, z2, 0.07, torch.ones(4, 4, dtype=torch.bool))
    assert float(loss.detach()) == pytest.approx(0, abs=1e-12)
    loss.backward()
    assert z1.grad.isfinite().all()
    diagonal = torch.eye(4, dtype=torch.bool)
    torch.testing.assert_close(s.nt_xent(z1, z2, 0.07, diagonal), s.nt_xent(z1, z2, 0.07))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    inputs = [randn(12, 16, seed=n).to(dtype) for n in range(4)]
    for loss in (
        lambda a, b, c, d: s.nt_xent(a, b, 0.01),
        lambda a, b, c, d: s.moco(a, b, F.normalize(c, dim=1), 0.01),
        lambda a, b, c, d: s.triplet(a, b, torch.stack((c, d), 1)),
        s.simsiam,
        lambda a, b, c, d: s.vicreg(a, b) + s.barlow_twins(c, d) + s.embedding_std(a),
    ):
        with torch.autocast("cpu", dtype=dtype):
            found = loss(*inputs)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, loss(*(x.double() for x in inputs)).float(), rtol=1e-3, atol=1e-3)


def test_embedding_std_tells_spread_from_collapse():
    assert float(s.embedding_std(torch.cat((torch.eye(8), -torch.eye(8))))) == pytest.approx(1)
    assert float(s.embedding_std(randn(2000, 64))) == pytest.approx(1, abs=0.01)
    assert float(s.embedding_std(torch.ones(9, 4))) == pytest.approx(0, abs=1e-6)
    # 4 live dimensions of 64
    assert float(s.embedding_std(F.pad(randn(2000, 4), (0, 60)))) == pytest.approx(math.sqrt(4 / 64), abs=0.01)
    assert not s.is_collapsed(randn(50, 8))
    assert s.is_collapsed(torch.ones(50, 8))
    assert s.is_collapsed(randn(50, 8) * torch.nan)
    assert not s.embedding_std(randn(5, 3).requires_grad_()).requires_grad
