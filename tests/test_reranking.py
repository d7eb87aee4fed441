"""Re-scored neighbours against dense, naive versions of the published formulas; hubs; memory; bad input."""

import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_search import Largest

from ucvgl import reranking
from ucvgl.errors import InputError
from ucvgl.reranking import csls_neighbours, inverted_softmax_neighbours, k_reciprocal_neighbours
from ucvgl.search import both_ways

ALL = (csls_neighbours, inverted_softmax_neighbours, k_reciprocal_neighbours)


def views(n, m, width=6, seed=0, noise=0.4, dtype=torch.float64):
    """Two views of places: ground image i shows tile i % m."""
    generator = torch.Generator().manual_seed(seed)
    satellite = torch.randn(m, width, generator=generator, dtype=dtype)
    ground = satellite[torch.arange(n) % m] + noise * torch.randn(n, width, generator=generator, dtype=dtype)
    return F.normalize(ground, dim=1), F.normalize(satellite, dim=1)


def same_lists(both, of_ground, of_satellite):
    """The lists are the head of a full sort of two dense score matrices."""
    for score, index, dense in (
        (both.ground_score, both.ground_index, of_ground),
        (both.satellite_score, both.satellite_index, of_satellite),
    ):
        expected = dense.sort(dim=1, descending=True)
        torch.testing.assert_close(score, expected.values[:, : score.shape[1]], rtol=0, atol=1e-9)
        # a saturated softmax ties in the last place: the images listed have these scores, each once
        torch.testing.assert_close(score, dense.gather(1, index), rtol=0, atol=1e-9)
        assert all(len(set(row)) == len(row) for row in index.tolist())


@pytest.mark.parametrize("chunk", [64, 999, 1 << 20])
@pytest.mark.parametrize(("n", "m", "k"), [(31, 24, 10), (12, 20, 3), (6, 7, 50)])
def test_csls_is_the_published_formula(n, m, k, chunk):
    x, y = views(n, m)
    cosine = x @ y.T
    r_x = torch.stack([row.sort(descending=True).values[:k].mean() for row in cosine])
    r_y = torch.stack([row.sort(descending=True).values[:k].mean() for row in cosine.T])
    dense = 2 * cosine - r_x[:, None] - r_y
    same_lists(csls_neighbours(x, y, 4, 3, k=k, chunk_bytes=chunk), dense, dense.T)


@pytest.mark.parametrize("chunk", [64, 999, 1 << 20])
@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
def test_inverted_softmax_is_the_published_formula(temperature, chunk):
    x, y = views(23, 17)
    cosine = x @ y.T
    power = (cosine / temperature).exp()
    of_ground = temperature * (power / power.mean(0)).log()
    of_satellite = temperature * (power.T / power.mean(1)).log()
    found = inverted_softmax_neighbours(x, y, 4, 3, temperature=temperature, chunk_bytes=chunk)
    same_lists(found, of_ground, of_satellite)


def test_inverted_softmax_of_a_low_temperature_does_not_overflow():
    x, y = views(9, 9, dtype=torch.float32)
    both = inverted_softmax_neighbours(x, y, 2, 2, temperature=1e-3)
    assert both.ground_score.isfinite().all()
    # as T falls, the score becomes the cosine minus the tile's greatest cosine (and T log 9)
    cosine = x @ y.T
    torch.testing.assert_close(
        both.ground_score[:, 0], (cosine - cosine.max(0).values).max(1).values, rtol=0, atol=0.01
    )


def naive_k_reciprocal(x, y, k, expansion, weight):
    """Sets and loops, dense: the (N, M) scores."""
    everything = torch.cat([x, y])
    n, size = len(x), len(x) + len(y)
    cosine = (everything @ everything.T).numpy()
    of_view = [np.arange(n), np.arange(n, size)]

    def near(p, count):
        nearest = [sorted(view, key=lambda q: (-cosine[p, q], q))[:count] for view in of_view]
        return {p, *(int(q) for half in nearest for q in half)}

    def reciprocal(p, count):
        return {q for q in near(p, count) if p in near(q, count)}

    vectors = np.zeros((size, size))
    for p in range(size):
        members = set(reciprocal(p, k))
        for q in reciprocal(p, k):
            more = reciprocal(q, round(k / 2))
            if 3 * len(more & reciprocal(p, k)) >= 2 * len(more):
                members |= more
        for q in members:
            vectors[p, q] = np.exp(cosine[p, q] - 1)
    if expansion:
        vectors = np.stack([np.mean([vectors[q] for q in near(p, expansion)], axis=0) for p in range(size)])
    out = np.zeros((n, size - n))
    for i in range(n):
        for j in range(size - n):
            a, b = vectors[i], vectors[n + j]
            jaccard = np.minimum(a, b).sum() / np.maximum(a, b).sum()
            out[i, j] = (1 - weight) * jaccard + weight * cosine[i, n + j]
    return torch.from_numpy(out)


@pytest.mark.parametrize(
    ("n", "m", "k", "expansion", "weight"),
    [(16, 12, 4, 2, 0.3), (14, 18, 5, 0, 0.0), (9, 9, 3, 3, 1.0), (6, 5, 20, 6, 0.3), (12, 13, 1, 1, 0.5)],
)
def test_k_reciprocal_is_the_naive_version(monkeypatch, n, m, k, expansion, weight):
    x, y = views(n, m, seed=n)
    dense = naive_k_reciprocal(x, y, k, expansion, weight)
    for rows in (3, 2048):
        monkeypatch.setattr(reranking, "_ROWS", rows)
        # candidates are all images here, so the lists are those of a full sort
        both = k_reciprocal_neighbours(x, y, m, n, k=k, expansion=expansion, weight=weight, chunk_bytes=500)
        for score, index, expected in (
            (both.ground_score, both.ground_index, dense),
            (both.satellite_score, both.satellite_index, dense.T),
        ):
            torch.testing.assert_close(score, expected.sort(dim=1, descending=True).values, rtol=0, atol=1e-6)
            torch.testing.assert_close(score, expected.gather(1, index), rtol=0, atol=1e-6)
            assert torch.equal(index.sort(dim=1).values, torch.arange(index.shape[1]).expand_as(index))


def test_k_reciprocal_rescores_the_first_candidates_only():
    x, y = views(30, 30, seed=3)
    dense = naive_k_reciprocal(x, y, 4, 2, 0.3)
    both = k_reciprocal_neighbours(x, y, 3, 2, k=4, expansion=2)
    candidates = (x @ y.T).topk(4, dim=1).indices
    for i in range(30):
        order = dense[i, candidates[i]].sort(descending=True)
        torch.testing.assert_close(both.ground_score[i], order.values[:3], rtol=0, atol=1e-6)
        assert set(both.ground_index[i].tolist()) <= set(candidates[i].tolist())


def test_k_reciprocal_with_the_cosine_alone_is_the_cosine():
    x, y = views(20, 15)
    both, plain = k_reciprocal_neighbours(x, y, 3, 2, k=5, expansion=3, weight=1.0), both_ways(x, y, 3, 2)
    for name in ("ground_index", "satellite_index", "ground_score", "satellite_score"):
        torch.testing.assert_close(getattr(both, name), getattr(plain, name), rtol=0, atol=1e-9)


@pytest.mark.parametrize("rescore", ALL)
def test_a_hub_loses_what_it_took(rescore):
    """Eight places all round, and a tile in the middle that is nearer to every ground image than its own."""
    angle = torch.arange(8) * (2 * torch.pi / 8)
    own = torch.stack([angle.cos(), angle.sin(), torch.full((8,), 0.5)], 1).double()
    satellite = F.normalize(torch.cat([own, torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)]), dim=1)
    ground = F.normalize(own * torch.tensor([1, 1, 3.4], dtype=torch.float64), dim=1)  # drawn to the middle
    plain = both_ways(ground, satellite, 2, 1).ground_index[:, 0]
    assert (plain == 8).all()
    options = {
        csls_neighbours: {"k": 3},
        k_reciprocal_neighbours: {"k": 4, "expansion": 0, "weight": 0.1},
    }.get(rescore, {})
    found = rescore(ground, satellite, 2, 1, **options).ground_index[:, 0]
    assert (found == torch.arange(8)).all()


@pytest.mark.parametrize("rescore", ALL)
def test_places_in_another_order_give_the_same_in_that_order(rescore):
    x, y = views(24, 18, seed=5)
    generator = torch.Generator().manual_seed(1)
    px, py = torch.randperm(24, generator=generator), torch.randperm(18, generator=generator)
    both, moved = rescore(x, y, 3, 3), rescore(x[px], y[py], 3, 3)
    torch.testing.assert_close(moved.ground_score, both.ground_score[px], rtol=0, atol=1e-6)
    assert torch.equal(py[moved.ground_index[:, 0]], both.ground_index[px, 0])
    assert torch.equal(px[moved.satellite_index[:, 0]], both.satellite_index[py, 0])


@pytest.mark.parametrize("rescore", ALL)
def test_the_two_views_are_treated_alike(rescore):
    x, y = views(20, 14, seed=2)
    one, other = rescore(x, y, 4, 3), rescore(y, x, 3, 4).swapped()
    for name in ("ground_score", "satellite_score"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=1e-6)
    assert torch.equal(one.ground_index[:, 0], other.ground_index[:, 0])


@pytest.mark.parametrize("rescore", ALL)
def test_nothing_of_n_by_n_is_held(rescore, monkeypatch):
    n, chunk = 1500, 1 << 16
    monkeypatch.setattr(reranking, "_ROWS", 64)
    x, y = views(n, n, width=8, dtype=torch.float32)
    with Largest() as largest:
        rescore(x, y, 5, 5, chunk_bytes=chunk)
    assert largest.numel <= n * n / 20


def test_nothing_of_n_by_n_is_held_outside_torch_either(monkeypatch):
    """Four times the images take about four times the memory of numpy and scipy, not sixteen times."""
    monkeypatch.setattr(reranking, "_ROWS", 32)

    def peak(n):
        x, y = views(n, n, width=8, dtype=torch.float32)
        tracemalloc.start()
        k_reciprocal_neighbours(x, y, k=10, chunk_bytes=1 << 16)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(100)  # imports what it imports
    assert peak(2000) < 6 * peak(500)


@pytest.mark.parametrize("rescore", ALL)
def test_bad_input(rescore):
    x, y = views(6, 5)
    broken = x.clone()
    broken[2, 0] = torch.nan
    with pytest.raises(InputError, match="NaN or infinity"):
        rescore(broken, y)
    with pytest.raises(InputError, match="one width"):
        rescore(x, y[:, :3])
    with pytest.raises(InputError, match="1 to 5, the number of satellite images"):
        rescore(x, y, 6, 1)
    with pytest.raises(InputError, match="1 to 6, the number of ground images"):
        rescore(x, y, 2, 7)
    with pytest.raises(InputError, match="at least one"):
        rescore(x, y[:0], 1, 1)


def test_bad_settings():
    x, y = views(6, 5)
    with pytest.raises(InputError, match="1 or more"):
        csls_neighbours(x, y, k=0)
    for temperature in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="temperature"):
            inverted_softmax_neighbours(x, y, temperature=temperature)
    with pytest.raises(InputError, match="1 or more"):
        k_reciprocal_neighbours(x, y, k=0)
    with pytest.raises(InputError, match="expansion"):
        k_reciprocal_neighbours(x, y, k=3, expansion=4)
    with pytest.raises(InputError, match="weight"):
        k_reciprocal_neighbours(x, y, weight=1.5)
