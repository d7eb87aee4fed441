"""Pairs from positions and mined negatives, against loops over every image."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from ucvgl import sampling as g
from ucvgl.errors import InputError


def scene(seed, queries=9, images=20, spread=60.0):
    rng = torch.Generator().manual_seed(seed)
    embed = [normalize(torch.randn(n, 4, generator=rng), dim=1) for n in (queries, images)]
    metres = [spread * torch.rand(n, 2, generator=rng, dtype=torch.float64) for n in (queries, images)]
    return *embed, *metres


def loop_near(a, b, radius):
    return [[float((p - q).norm()) <= radius for q in b] for p in a]


def pairs_within(query_m, database_m, radius):
    near = loop_near(query_m, database_m, radius)
    rows = [(i, j) for i, row in enumerate(near) for j, hit in enumerate(row) if hit]
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 2)


# ---------------------------------------------------------------------------------------------------------- positives


@given(st.integers(0, 2**16))
def test_best_positive_by_loop(seed):
    query, database, query_m, database_m = scene(seed)
    pairs = pairs_within(query_m, database_m, 15.0)
    found = g.best_positives(
        query, database, pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))]
    )
    for i, best in enumerate(found.tolist()):
        near = pairs[pairs[:, 0] == i, 1].tolist()
        if not near:
            assert best == -1
            continue
        assert best in near
        assert float(query[i] @ database[best]) == pytest.approx(max(float(query[i] @ database[j]) for j in near))


def test_of_equals_the_first_named():
    query, database = torch.ones(1, 2), torch.ones(3, 2)
    assert g.best_positives(query, database, torch.tensor([[0, 2], [0, 1]])).tolist() == [2]


def test_no_pair_at_all():
    assert g.best_positives(torch.ones(2, 3), torch.ones(4, 3), torch.zeros(0, 2, dtype=torch.int64)).tolist() == [
        -1,
        -1,
    ]


# ---------------------------------------------------------------------------------------------------------- negatives


@given(st.integers(0, 2**16), st.integers(1, 25))
def test_hardest_negatives_by_full_sort(seed, k):
    query, pool, query_m, pool_m = scene(seed)
    found = g.hardest_negatives(query, pool, query_m, pool_m, k)
    assert found.shape == (9, k)
    near = loop_near(query_m, pool_m, 25.0)
    for i, row in enumerate(found.tolist()):
        far = sorted((j for j in range(20) if not near[i][j]), key=lambda j: -float(query[i] @ pool[j]))[:k]
        assert [j for j in row if j >= 0] == far
        assert row[len(far) :] == [-1] * (k - len(far))


def test_negatives_are_searched_in_chunks(monkeypatch):
    query, pool, query_m, pool_m = scene(3, queries=30)
    whole = g.hardest_negatives(query, pool, query_m, pool_m, 4)
    monkeypatch.setattr(g, "CHUNK", 7)
    assert torch.equal(g.hardest_negatives(query, pool, query_m, pool_m, 4), whole)


def test_random_negatives_are_far_distinct_and_even():
    """Over many draws each far image comes up as often as any other."""
    query_m, database_m = torch.tensor([[0.0, 0.0]]), torch.tensor([[float(x), 0.0] for x in (10, 20, 30, 40, 50, 60)])
    counts = np.zeros(6)
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        found = g.random_negatives(query_m, database_m, 2, generator)[0].tolist()
        assert len(set(found)) == 2
        counts[found] += 1
    assert counts[:2].sum() == 0  # within 25 m
    assert np.abs(counts[2:] / 200 - 1).max() < 0.25
    assert g.random_negatives(query_m, database_m, 6, generator)[0].tolist()[4:] == [-1, -1]


# --------------------------------------------------------------------------------------------------------------- near


def test_near_keeps_metres_at_utm_coordinates():
    """A radius decided to a centimetre at coordinates of five million metres, given as float32 would not hold it."""
    place = torch.tensor([[500_000.0, 5_400_000.0]], dtype=torch.float64)
    others = place + torch.tensor([[25.0, 0.0], [25.01, 0.0], [0.0, -24.99]], dtype=torch.float64)
    assert g.near_mask(place, others).tolist() == [[True, False, True]]


@given(st.integers(0, 2**16), st.floats(0, 80))
def test_near_by_loop(seed, radius):
    _, _, a, b = scene(seed)
    distance = torch.tensor([[float((p - q).norm()) for q in b] for p in a])
    found = g.near_mask(a, b, radius)
    clear = (distance - radius).abs() > 1e-4
    assert torch.equal(found[clear], (distance <= radius)[clear])


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "call",
    [
        lambda: g.best_positives(torch.ones(2, 3), torch.ones(2, 3), torch.tensor([[0, 2]])),
        lambda: g.best_positives(torch.ones(2, 3), torch.ones(2, 3), torch.tensor([[-1, 0]])),
        lambda: g.best_positives(torch.ones(2, 3), torch.ones(2, 3), torch.tensor([[0.0, 0.0]])),
        lambda: g.hardest_negatives(torch.ones(2, 3), torch.ones(2, 3), torch.zeros(2, 2), torch.zeros(2, 2), 0),
        lambda: g.hardest_negatives(
            torch.full((2, 3), torch.nan), torch.ones(2, 3), torch.zeros(2, 2), torch.zeros(2, 2), 1
        ),
        lambda: g.near_mask(torch.zeros(2, 3), torch.zeros(2, 2)),
    ],
)
def test_bad_input(call):
    with pytest.raises(InputError):
        call()
