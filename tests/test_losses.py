"""Losses: against loops, angles with known values, torch's cross-entropy; gradients; masks; the 'no match' class."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_sets import angles, random_mask, unit

from ucvgl.losses import info_nce, soft_info_nce

SCALE = 1 / 0.07


def by_loops(query, reference, scale, *, matched=None, smoothing=0.0, skip=None):
    """Both directions, number by number; matched None: without the class 'no match'."""
    count, total = len(query), 0.0
    for forward in (True, False):
        for i in range(count):
            logits = {}
            for j in range(count):
                q, r = (i, j) if forward else (j, i)
                if i == j or skip is None or not skip[q, r]:
                    logits[j] = float(scale * (query[q] @ reference[r]))
            if matched is not None:
                logits["no match"] = 0.0
            target = i if matched is None or matched[i] else "no match"
            log_sum = math.log(sum(math.exp(x) for x in logits.values()))
            losses = {name: log_sum - x for name, x in logits.items()}
            total += (1 - smoothing) * losses[target] + smoothing * sum(losses.values()) / len(losses)
    return total / (2 * count)


@given(st.integers(1, 7), st.integers(0, 99), st.sampled_from([0.0, 0.1, 0.3]), st.booleans())
def test_both_losses_are_the_formula(count, seed, smoothing, masked):
    query, reference = unit(count, 5, seed), unit(count, 5, seed + 100)
    skip = random_mask(count, count, seed=seed) if masked else None
    ours = info_nce(query, reference, SCALE, label_smoothing=smoothing, not_negative=skip)
    assert float(ours) == pytest.approx(by_loops(query, reference, SCALE, smoothing=smoothing, skip=skip), abs=1e-9)
    matched = torch.rand(count, generator=torch.Generator().manual_seed(seed)) < 0.6
    soft = soft_info_nce(query, reference, SCALE, matched, label_smoothing=smoothing, not_negative=skip)
    expected = by_loops(query, reference, SCALE, matched=matched, smoothing=smoothing, skip=skip)
    assert float(soft) == pytest.approx(expected, abs=1e-9)


def test_hand_sized_angles():
    # pairs at 0 and 90 degrees, exact: similarities 1 on the diagonal, 0 beside it
    query = angles(0, 90)
    assert float(info_nce(query, query, 2.0)) == pytest.approx(math.log(1 + math.exp(-2)))
    # the second reference 60 degrees from the first query and 30 from its own: similarities [[1, 1/2], [0, cos 30]]
    c = math.cos(math.pi / 6)
    rows = math.log(1 + math.exp(-0.5)) + math.log(1 + math.exp(-c))
    columns = math.log(1 + math.exp(-1)) + math.log(1 + math.exp(0.5 - c))
    assert float(info_nce(query, angles(0, 60), 1.0)) == pytest.approx((rows + columns) / 4)
    # one unmatched row, at a right angle to its random partner: 'no match' and the partner stand at equal odds
    assert float(soft_info_nce(angles(0), angles(90), 5.0, torch.tensor([False]))) == pytest.approx(math.log(2))
    # one matched row: 'no match' competes with exp(1 * scale)
    one = soft_info_nce(angles(0), angles(0), 3.0, torch.tensor([True]))
    assert float(one) == pytest.approx(math.log(1 + math.exp(-3)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    query, reference = unit(12, 16, 7).to(dtype), unit(12, 16, 8).to(dtype)
    matched, skip = torch.arange(12) % 3 > 0, random_mask(12, 12, seed=9)
    for scale in (SCALE, 1000.0):  # 1000: beyond what exp can hold in float16
        for loss, more in ((info_nce, ()), (soft_info_nce, (matched,))):
            for mask in (None, skip):
                with torch.autocast("cpu", dtype=dtype):
                    ours = loss(query, reference, scale, *more, not_negative=mask)
                exact = loss(query.double(), reference.double(), scale, *more, not_negative=mask)
                torch.testing.assert_close(ours, exact.float(), rtol=1e-5, atol=1e-5)
