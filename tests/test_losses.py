"""Losses: against loops, angles with known values, torch's cross-entropy; gradients; masks; the 'no match' class."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from ucvgl.errors import InputError
from ucvgl.losses import info_nce, soft_info_nce

SCALE = 1 / 0.07


def unit(count, dim, seed, dtype=torch.float64):
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=dtype), dim=1)


def angles(*degrees):
    radians = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack((radians.cos(), radians.sin()), 1)


def by_loops(query, reference, scale, *, matched=None, smoothing=0.0, skip=None):
    """Both directions, number by number; matched None: without the class 'no match'."""
    count, total = len(query), 0.0
    for forward in (True, False):
        for i in range(count):
            exponents = {}
            for j in range(count):
                g, s = (i, j) if forward else (j, i)
                if i == j or skip is None or not skip[g, s]:
                    exponents[j] = float(scale * (query[g] @ reference[s]))
            if matched is not None:
                exponents["no match"] = 0.0
            target = i if matched is None or matched[i] else "no match"
            log_sum = math.log(sum(math.exp(x) for x in exponents.values()))
            losses = {name: log_sum - x for name, x in exponents.items()}
            total += (1 - smoothing) * losses[target] + smoothing * sum(losses.values()) / len(losses)
    return total / (2 * count)


def random_skip(count, seed):
    return torch.rand(count, count, generator=torch.Generator().manual_seed(seed)) < 0.4


@given(st.integers(1, 7), st.integers(0, 99), st.sampled_from([0.0, 0.1, 0.3]), st.booleans())
def test_info_nce_is_the_formula(count, seed, smoothing, masked):
    query, reference = unit(count, 5, seed), unit(count, 5, seed + 100)
    skip = random_skip(count, seed) if masked else None
    ours = info_nce(query, reference, SCALE, label_smoothing=smoothing, not_negative=skip)
    assert float(ours) == pytest.approx(by_loops(query, reference, SCALE, smoothing=smoothing, skip=skip), abs=1e-9)


@given(st.integers(1, 7), st.integers(0, 99), st.sampled_from([0.0, 0.1]), st.booleans())
def test_soft_info_nce_is_the_formula(count, seed, smoothing, masked):
    query, reference = unit(count, 5, seed), unit(count, 5, seed + 100)
    skip = random_skip(count, seed) if masked else None
    matched = torch.rand(count, generator=torch.Generator().manual_seed(seed)) < 0.6
    ours = soft_info_nce(query, reference, SCALE, matched, label_smoothing=smoothing, not_negative=skip)
    expected = by_loops(query, reference, SCALE, matched=matched, smoothing=smoothing, skip=skip)
    assert float(ours) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
def test_without_masks_it_is_torchs_cross_entropy(smoothing):
    query, reference = unit(9, 6, 0), unit(9, 6, 1)
    logits, target = SCALE * query @ reference.T, torch.arange(9)
    expected = sum(F.cross_entropy(x, target, label_smoothing=smoothing) for x in (logits, logits.T)) / 2
    torch.testing.assert_close(info_nce(query, reference, SCALE, label_smoothing=smoothing), expected)

    matched = torch.tensor([True, False, True] * 3)
    target = torch.where(matched, target, 9)
    logits = [F.pad(x, (0, 1)) for x in (logits, logits.T)]
    expected = sum(F.cross_entropy(x, target, label_smoothing=smoothing) for x in logits) / 2
    torch.testing.assert_close(soft_info_nce(query, reference, SCALE, matched, label_smoothing=smoothing), expected)


def test_hand_sized_angles():
    # pairs at 0 and 90 degrees, exact: similarities 1 on the diagonal, 0 beside it
    query = angles(0, 90)
    assert float(info_nce(query, query, 2.0)) == pytest.approx(math.log(1 + math.exp(-2)))
    # the second reference 60 degrees from the first query and 30 from its own:
    # similarities [[1, 1/2], [0, cos 30]]
    c = math.cos(math.pi / 6)
    rows = math.log(1 + math.exp(-0.5)) + math.log(1 + math.exp(-c))
    columns = math.log(1 + math.exp(-1)) + math.log(1 + math.exp(0.5 - c))
    assert float(info_nce(query, angles(0, 60), 1.0)) == pytest.approx((rows + columns) / 4)
    # one unmatched row, at a right angle to its random partner: 'no match' and the partner stand at equal odds
    assert float(soft_info_nce(angles(0), angles(90), 5.0, torch.tensor([False]))) == pytest.approx(math.log(2))
    # one matched row: 'no match' competes with exp(1 * scale)
    one = soft_info_nce(angles(0), angles(0), 3.0, torch.tensor([True]))
    assert float(one) == pytest.approx(math.log(1 + math.exp(-3)))


def test_perfect_and_collapsed_embeddings():
    perfect = torch.eye(8, dtype=torch.float64)
    assert float(info_nce(perfect, perfect, 100.0)) < 1e-12
    collapsed = angles(*[30] * 8)
    assert float(info_nce(collapsed, collapsed, SCALE)) == pytest.approx(math.log(8))
    assert float(info_nce(collapsed, collapsed, SCALE, label_smoothing=0.3)) == pytest.approx(math.log(8))
    # an unmatched row wants similarities far below 0
    apart = soft_info_nce(angles(0), angles(180), SCALE, torch.tensor([False]))
    assert float(apart) == pytest.approx(math.exp(-SCALE), rel=1e-3)


def test_soft_with_all_matched_adds_exp_of_0_to_each_denominator():
    query, reference = unit(6, 4, 2), unit(6, 4, 3)
    logits = SCALE * query @ reference.T
    extra = sum((torch.log(1 + x.exp().sum(1)) - x.logsumexp(1)).mean() for x in (logits, logits.T)) / 2
    assert extra > 1e-9
    soft = soft_info_nce(query, reference, SCALE, torch.ones(6, dtype=torch.bool))
    torch.testing.assert_close(soft - info_nce(query, reference, SCALE), extra)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_gradients_are_right_finite_and_symmetric(soft, masked, smoothing):
    query, reference = unit(5, 3, 4).requires_grad_(), unit(5, 3, 5).requires_grad_()
    log_scale = torch.tensor(math.log(SCALE), dtype=torch.float64, requires_grad=True)
    skip = random_skip(5, 6) if masked else None
    matched = torch.tensor([True, False, True, True, False])

    def loss(q, r, s, mask):
        if soft:
            return soft_info_nce(q, r, s.exp(), matched, label_smoothing=smoothing, not_negative=mask)
        return info_nce(q, r, s.exp(), label_smoothing=smoothing, not_negative=mask)

    assert torch.autograd.gradcheck(lambda q, r, s: loss(q, r, s, skip), (query, reference, log_scale))
    one, two = (loss(query, reference, log_scale, skip), loss(reference, query, log_scale, skip.T if masked else None))
    torch.testing.assert_close(one, two)
    first = torch.autograd.grad(one, (query, reference, log_scale))
    second = torch.autograd.grad(two, (query, reference, log_scale))
    for x, y in zip(first, second, strict=True):
        assert x.isfinite().all()
        assert x.abs().max() > 0
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    query, reference = unit(12, 16, 7).to(dtype), unit(12, 16, 8).to(dtype)
    matched = torch.arange(12) % 3 > 0
    for scale in (SCALE, 1000.0):  # 1000: beyond what exp can hold in float16
        with torch.autocast("cpu", dtype=dtype):
            ours = info_nce(query, reference, scale), soft_info_nce(query, reference, scale, matched)
        exact = query.double(), reference.double()
        torch.testing.assert_close(ours[0], info_nce(*exact, scale).float(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours[1], soft_info_nce(*exact, scale, matched).float(), rtol=1e-5, atol=1e-5)
    leaf = query.clone().requires_grad_()
    info_nce(leaf, reference, SCALE).backward()
    assert leaf.grad.dtype == dtype
    assert leaf.grad.isfinite().all()


def test_positives_name_the_reference_of_each_query():
    query, reference, order = unit(5, 4, 9), unit(5, 4, 10), torch.tensor([3, 1, 4, 0, 2])
    back = torch.empty(5, 4, dtype=torch.float64)
    back[order] = reference
    torch.testing.assert_close(info_nce(query, back, SCALE, positives=order), info_nce(query, reference, SCALE))


def test_a_shared_reference_is_no_negative():
    query, tiles = unit(4, 3, 11), unit(3, 3, 12)
    positives = torch.tensor([0, 1, 0, 2])
    skip = positives[:, None] == positives
    expected = by_loops(query, tiles[positives], SCALE, skip=skip)
    assert float(info_nce(query, tiles, SCALE, positives=positives)) == pytest.approx(expected)
    assert float(info_nce(query, tiles[positives], SCALE, not_negative=skip)) == pytest.approx(expected)
    more = random_skip(4, 13)
    expected = by_loops(query, tiles[positives], SCALE, skip=skip | more)
    assert float(info_nce(query, tiles, SCALE, positives=positives, not_negative=more)) == pytest.approx(expected)


def test_a_mask_of_everything_leaves_the_targets():
    query, everything = unit(4, 3, 14).requires_grad_(), torch.ones(4, 4, dtype=torch.bool)
    loss = info_nce(query, unit(4, 3, 15), SCALE, not_negative=everything, label_smoothing=0.1)
    assert loss.item() == 0
    loss.backward()
    assert query.grad.isfinite().all()
    soft = soft_info_nce(angles(0), angles(90), 1.0, torch.tensor([False]), not_negative=everything[:1, :1])
    assert float(soft) == pytest.approx(math.log(2))  # the diagonal of an unmatched row stays a negative


def test_bad_input():
    query = unit(3, 4, 0)
    with pytest.raises(InputError, match=r"\(3, 4\) and \(3, 5\)"):
        info_nce(query, unit(3, 5, 0), 1.0)
    with pytest.raises(InputError, match="at least 1"):
        info_nce(query[:0], query[:0], 1.0)
    with pytest.raises(InputError, match="label_smoothing"):
        info_nce(query, query, 1.0, label_smoothing=1.5)
    with pytest.raises(InputError, match="not_negative"):
        info_nce(query, query, 1.0, not_negative=torch.zeros(3, 3))
    with pytest.raises(InputError, match="positives"):
        info_nce(query, query, 1.0, positives=torch.ones(3, dtype=torch.bool))
    with pytest.raises(InputError, match="matched"):
        soft_info_nce(query, query, 1.0, torch.ones(3))
    with pytest.raises(InputError, match="matched"):
        soft_info_nce(query, query, 1.0, torch.ones(2, dtype=torch.bool))
