"""Ranks and measures against full sorts and hand-sized cases, with ties, masks and whatever the blocks."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from ucvgl import metrics
from ucvgl.metrics import average_precision, places_of, recall_at, retrieval_measures


def test_a_collapsed_embedding_is_not_rewarded():
    """Published code counts ties in favour: everything equal would be R@1 100 %. Here it is the middle of the list."""
    ranks = places_of(torch.ones(4, 3), torch.ones(9, 3), pairs((0, 0), (1, 3), (2, 5), (3, 8))).first
    assert ranks.tolist() == [4.0] * 4
    assert recall_at(ranks, (1, 5)) == {"r_at_1": 0.0, "r_at_5": 100.0}


def embeddings(similarity):
    """Queries and gallery whose products are exactly the numbers given, a row a query."""
    table = torch.tensor(similarity)
    return torch.eye(len(table)), table.T.contiguous()


def pairs(*rows):
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 2)


def sorted_ranks(similarity, right):
    """The oracle: rank of the j-th right item from 0, the mean of equals in the best and in the worst order."""
    orders = []
    for right_first in (True, False):
        order = sorted(range(len(similarity)), key=lambda i: (-similarity[i], (i in right) != right_first))
        orders.append([place for place, item in enumerate(order) if item in right])
    return [(best + worst) / 2 for best, worst in zip(*orders, strict=True)]


def naive_precision(ranks):
    return sum((j / rank if rank else 1) + (j + 1) / (rank + 1) for j, rank in enumerate(ranks)) / 2 / len(ranks)


def naive_measures(table, right, semi, ks):
    asked = [i for i in range(len(table)) if right[i]]
    ranks = {i: sorted_ranks(table[i], right[i]) for i in asked}
    names = {f"r_at_{k}": k for k in ks} | {"r_at_1_percent": max(1, len(table[0]) // 100)}
    out = {name: 100 * sum(ranks[i][0] < k for i in asked) / len(asked) for name, k in names.items()}
    if semi is not None:
        hits = 0
        for i in asked:  # the masked tiles are really taken out of the list
            kept = [item for item in range(len(table[i])) if item in right[i] or item not in semi[i]]
            left = {new for new, item in enumerate(kept) if item in right[i]}
            hits += sorted_ranks([table[i][item] for item in kept], left)[0] < 1
        out["hit_rate"] = 100 * hits / len(asked)
    out["ap"] = 100 * sum(naive_precision(ranks[i]) for i in asked) / len(asked)
    return out | {"queries": len(asked), "left_out": len(table) - len(asked)}


def flat(sets):
    return pairs(*[(i, item) for i, items in enumerate(sets) for item in items])


@given(st.data(), st.sampled_from([1, 60, 1 << 20]), st.sampled_from([1, 20, 1 << 20]))
def test_measures_equal_full_sorts_with_many_ties(data, chunk_bytes, cells):
    queries, items = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 9))
    numbers = st.lists(st.integers(-2, 2).map(float), min_size=items, max_size=items)
    table = data.draw(st.lists(numbers, min_size=queries, max_size=queries))
    sets = st.lists(st.sets(st.integers(0, items - 1)), min_size=queries, max_size=queries)
    right = data.draw(sets.filter(any))
    semi = data.draw(st.none() | sets)
    ks = sorted({1, items, (items + 1) // 2})
    query, gallery = embeddings(table)
    masked = None if semi is None else flat(semi)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "CHUNK_BYTES", chunk_bytes)
        patch.setattr(metrics, "CELLS", cells)
        found = retrieval_measures(query, gallery, flat(right), semi_positives=masked, ks=ks)
    assert found == pytest.approx(naive_measures(table, right, semi, ks), rel=1e-5)


def test_average_precision_by_hand():
    query, gallery = embeddings([[0.9, 0.8, 0.7, 0.6, 0.5]])

    def ap(*right):
        return average_precision(places_of(query, gallery, pairs(*[(0, item) for item in right]))).item()

    assert ap(0) == ap(0, 1, 2, 3, 4) == 1
    assert ap(4) == pytest.approx((0 / 4 + 1 / 5) / 2)
    assert ap(0, 2) == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)
    assert ap(3, 1) == pytest.approx(((0 / 1 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2)


@pytest.mark.parametrize("wrong", [(1, 12), (1, -1), (2, 1)])
def test_pairs_of_other_embeddings_are_not_measured(wrong):
    """Neither -1 for an unknown item nor an index too large may silently become another pair."""
    with pytest.raises(AssertionError, match="other embeddings"):
        retrieval_measures(torch.ones(2, 3), torch.ones(12, 3), pairs((0, 1), wrong))


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
