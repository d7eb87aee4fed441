"""Batches with hard negatives against a naive walk; neighbours, positives and negatives against full sorts."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from ucvgl import sampling
from ucvgl.errors import InputError
from ucvgl.positions import Metres, Positions
from ucvgl.sampling import NeighbourDraw, geographic_neighbours, neighbour_batches, similarity_neighbours


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def random_lists(items, places, own, length, seed):
    """For each item `length` different places in random order, its own left out; int32."""
    rng = np.random.default_rng(seed)
    rows = [[p for p in rng.permutation(places) if p != own[i]][:length] for i in range(items)]
    return torch.tensor(np.array(rows, dtype=np.int32).reshape(items, length))


def by_index(away, k):
    """A full sort of distances (N, N), equal ones by index, itself left out."""
    return [[j for j in np.argsort(row, kind="stable") if j != i][:k] for i, row in enumerate(away)]


@given(st.integers(2, 40), st.integers(1, 6), st.integers(1, 12), st.data())
def test_geographic_neighbours_are_a_full_sort_with_ties_and_places_at_one_position(places, side, chunk, data):
    values = np.random.default_rng(data.draw(st.integers(0, 999))).integers(0, side, (places, 2)).astype(float)
    k = data.draw(st.integers(1, places - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "CHUNK", chunk)
        found = geographic_neighbours(Positions(values, Metres("grid")), k)
    away = np.hypot(*(values[:, None] - values).transpose(2, 0, 1))  # whole numbers below the root: ties are exact
    assert found.dtype == torch.int32
    assert found.tolist() == by_index(away, k)


def test_missing_positions_and_too_many_neighbours():
    values = np.arange(10.0).reshape(5, 2)
    whole = Positions(values.copy(), Metres("grid"))
    values[[2, 4]] = np.nan
    for positions, k, message in (
        (None, 3, "positions: expected a position of each place, found none"),
        (Positions(values, Metres("grid")), 3, "2 of 5 unknown"),
        (whole, 5, "k: expected 1 to 4, the other places of 5"),
    ):
        with pytest.raises(InputError, match=message):
            geographic_neighbours(positions, k)


@given(st.integers(2, 25), st.integers(0, 30), st.integers(1, 9), st.data())
def test_similarity_neighbours_are_a_full_sort_without_the_own_place(places, items, chunk, data):
    seed, shared = data.draw(st.integers(0, 999)), data.draw(st.booleans())
    items = items if shared else places
    own = torch.randint(places, (items,), generator=seeded(seed)) if shared else torch.arange(places)
    # whole numbers: exact in any order of summing, and full of ties
    query, reference = (torch.randint(-2, 3, (n, 3), generator=seeded(seed)).float() for n in (items, places))
    k = data.draw(st.integers(1, places - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "CHUNK", chunk)
        found = similarity_neighbours(query, reference, k, place=own if shared else None)
    for i, row in enumerate((query @ reference.T).tolist()):
        assert found[i].tolist() == [j for _, j in sorted((-s, j) for j, s in enumerate(row)) if j != own[i]][:k]


def naive(order, lists, chosen, batch_size, place):
    """The procedure with lists and sets, one item and one neighbour at a time; `chosen` are the entries that join."""
    pool, back, waiting = list(order), [], {}
    used, done, batch, sources = set(), [], [], []
    while pool:
        item = pool.pop(0)
        there = {place[i] for i in batch}
        if item not in used and place[item] in there:
            waiting.setdefault(place[item], []).append(item)
        elif item not in used:
            joined = [item]
            for near in (lists[item][column] for column in chosen.get(item, [])):
                unused = [i for i in order if place[i] == near and i not in used]
                if near not in there | {place[i] for i in joined} and unused:
                    joined.append(unused[0])
            joined = joined[: batch_size - len(batch)]
            batch, sources = batch + joined, sources + [item] * len(joined)
            used.update(joined)
            if len(batch) == batch_size:
                for i in batch:
                    unused = [w for w in waiting.get(place[i], []) if w not in used]
                    back += unused[-1:]
                    waiting[place[i]] = unused[:-1]
                done, batch = done + batch, []
        if not pool:
            pool, back = back, []
    return done, sources[: len(done)]


@pytest.fixture
def chosen(monkeypatch):
    """Fills with the entries of its list that were drawn for each item, as the batches are made."""
    entries, last, columns, candidates = {}, [], sampling._columns, sampling._candidates

    def candidates_kept(block, *args):
        found = candidates(block, *args)
        entries.update(zip(block.tolist(), last[-1].tolist(), strict=True))
        return found

    monkeypatch.setattr(sampling, "_columns", lambda *args: last.append(columns(*args)) or last[-1])
    monkeypatch.setattr(sampling, "_candidates", candidates_kept)
    return entries


@pytest.mark.parametrize("block", [1, 64])
@pytest.mark.parametrize("seed", range(6))
def test_batches_are_those_of_the_naive_walk(chosen, monkeypatch, block, seed):
    monkeypatch.setattr(sampling, "BLOCK", block)
    items, shared = 30 + 3 * seed, seed % 3 > 0
    places = 12 + seed if shared else items
    place = torch.randint(places, (items,), generator=seeded(seed)) if shared else torch.arange(items)
    batch_size = [1, 4, 7, 11][seed % 4]
    lists = random_lists(items, places, place.tolist(), 8, seed)
    draw = NeighbourDraw(range=8, nearest=seed % 4, drawn=4)
    extra = {"place": place, "places": places} if shared else {}
    found, sources = neighbour_batches(lists, batch_size, seeded(seed), draw, **extra)
    order = torch.randperm(items, generator=seeded(seed)).tolist()
    expected = naive(order, lists.tolist(), chosen, batch_size, place.tolist())
    assert (found.tolist(), sources.tolist()) == expected


@given(st.integers(1, 80), st.integers(1, 15), st.data())
def test_no_place_twice_in_a_batch_and_only_what_fills_none_is_dropped(items, places, data):
    seed = data.draw(st.integers(0, 9999))
    # uneven: low places have most of the items
    place = (torch.rand(items, generator=seeded(seed)).square() * places).long()
    batch_size = data.draw(st.integers(1, len(place.unique())))
    draw = NeighbourDraw(range=min(6, places - 1), nearest=min(2, places - 1), drawn=0)
    lists = random_lists(items, places, place.tolist(), draw.range, seed) if data.draw(st.booleans()) else None
    found, _ = neighbour_batches(lists, batch_size, seeded(seed), draw, place=place, places=places)
    assert len(set(found.tolist())) == len(found)
    for batch in place[found].view(-1, batch_size).tolist():
        assert len(set(batch)) == batch_size
    dropped = set(range(items)) - set(found.tolist())
    assert len({int(place[i]) for i in dropped}) < batch_size  # not one more batch could be made of them


def test_a_batch_of_more_places_than_there_are():
    with pytest.raises(InputError, match="batch size: expected 1 to 2, the number of places, found 3"):
        neighbour_batches(None, 3, seeded(0), place=torch.tensor([0, 0, 1, 1]))


def scene(seed, queries=9, images=20, spread=60.0):
    rng = seeded(seed)
    query, pool = (normalize(torch.randn(n, 4, generator=rng), dim=1) for n in (queries, images))
    query_m, pool_m = (spread * torch.rand(n, 2, generator=rng, dtype=torch.float64) for n in (queries, images))
    return query, pool, query_m, pool_m, [[float((p - q).norm()) for q in pool_m] for p in query_m]


@given(st.integers(0, 2**16))
def test_best_positive_by_loop(seed):
    query, database, *_, away = scene(seed)
    pairs = torch.tensor([(i, j) for i, row in enumerate(away) for j, m in enumerate(row) if m <= 15] or [(0, 0)])
    found = sampling.best_positives(query, database, pairs[torch.randperm(len(pairs), generator=seeded(seed))])
    for i, best in enumerate(found.tolist()):
        near = pairs[pairs[:, 0] == i, 1].tolist()
        assert best == max(near, key=lambda j: float(query[i] @ database[j]), default=-1)


@given(st.integers(0, 2**16), st.integers(1, 25))
def test_hardest_negatives_by_full_sort(seed, k):
    query, pool, query_m, pool_m, away = scene(seed)
    found = sampling.hardest_negatives(query, pool, query_m, pool_m, k)
    for i, row in enumerate(found.tolist()):
        far = sorted((j for j in range(20) if away[i][j] > 25), key=lambda j: -float(query[i] @ pool[j]))[:k]
        assert row == far + [-1] * (k - len(far))


def test_near_keeps_metres_at_utm_coordinates():
    """A radius decided to a centimetre at coordinates of five million metres, which float32 would not hold."""
    place = torch.tensor([[500_000.0, 5_400_000.0]], dtype=torch.float64)
    others = place + torch.tensor([[25.0, 0.0], [25.01, 0.0], [0.0, -24.99]], dtype=torch.float64)
    assert sampling.near_mask(place, others).tolist() == [[True, False, True]]
