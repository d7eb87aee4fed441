"""Streamed neighbours against a full sort, ties, blocks, memory, and what bad input says."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from ucvgl import search
from ucvgl.errors import InputError
from ucvgl.search import BothWays, both_ways, top_k


class Largest(TorchDispatchMode):
    """Remembers the most numbers any tensor held that was made inside."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, torch.Tensor):
                self.numel = max(self.numel, value.numel())
        return out


def integers(rows, width, seed):
    """Embeddings whose inner products are small whole numbers: exact in any order of summing, and full of ties."""
    return torch.randint(-2, 3, (rows, width), generator=torch.Generator().manual_seed(seed)).float()


def by_full_sort(query, gallery, k):
    """Sorts pairs of (-similarity, index) in plain Python."""
    product = (query @ gallery.T).tolist()
    index = [[i for _, i in sorted((-s, i) for i, s in enumerate(row))[:k]] for row in product]
    score = [[row[i] for i in best] for row, best in zip(product, index, strict=True)]
    shape = (len(query), k)
    return torch.tensor(score, dtype=query.dtype).view(shape), torch.tensor(index, dtype=torch.int64).view(shape)


@given(st.integers(0, 12), st.integers(1, 25), st.data())
def test_top_k_is_a_full_sort_whatever_the_blocks(queries, items, data):
    k, chunk = data.draw(st.integers(1, items)), data.draw(st.integers(1, 700))
    query, gallery = integers(queries, 2, data.draw(st.integers(0, 999))), integers(items, 2, 7)
    score, index = top_k(query, gallery, k, chunk_bytes=chunk)
    expected = by_full_sort(query, gallery, k)
    assert torch.equal(score, expected[0])
    assert torch.equal(index, expected[1])


@given(st.integers(1, 20), st.integers(1, 20), st.data())
def test_both_ways_is_top_k_twice(n, m, data):
    k = data.draw(st.integers(1, m)), data.draw(st.integers(1, n))
    ground, satellite = integers(n, 2, data.draw(st.integers(0, 999))), integers(m, 2, 5)
    both = both_ways(ground, satellite, *k, chunk_bytes=data.draw(st.integers(1, 700)))
    for found, expected in zip(
        (both.ground_score, both.ground_index, both.satellite_score, both.satellite_index),
        (*by_full_sort(ground, satellite, k[0]), *by_full_sort(satellite, ground, k[1])),
        strict=True,
    ):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("chunk", [1, 1000, 5000, 1 << 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_change_nothing_but_rounding(chunk, dtype):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 16, generator=generator, dtype=dtype) for n in (70, 45))
    both = both_ways(x, y, 6, 3, chunk_bytes=chunk)
    product = x @ y.T
    for score, index, dense in (
        (both.ground_score, both.ground_index, product),
        (both.satellite_score, both.satellite_index, product.T),
    ):
        expected = dense.sort(dim=1, descending=True)
        assert torch.equal(index, expected.indices[:, : index.shape[1]])
        torch.testing.assert_close(score, expected.values[:, : score.shape[1]])
    swapped = both_ways(y, x, 3, 6, chunk_bytes=chunk)
    assert torch.equal(swapped.swapped().ground_index, both.ground_index)
    assert torch.equal(swapped.ground_index, both.satellite_index)


def test_by_hand():
    ground = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    satellite = torch.tensor([[0.0, 1.0], [0.6, 0.8], [1.0, 0.0]])
    both = both_ways(ground, satellite, 2, 1)
    assert both.ground_index.tolist() == [[2, 1], [0, 1]]
    assert both.satellite_index.tolist() == [[1], [1], [0]]
    np.testing.assert_allclose(both.ground_score, [[1, 0.6], [1, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(both.satellite_score, [[1], [0.8], [1]], rtol=1e-6)


@pytest.mark.parametrize("chunk", [4, 40, 4000])
def test_equals_come_in_the_order_of_their_index(chunk):
    score, index = top_k(torch.ones(3, 2), torch.ones(50, 2), 7, chunk_bytes=chunk)
    assert index.tolist() == [list(range(7))] * 3
    assert (score == 2).all()


def test_blocks_cover_the_product_once_and_keep_to_their_bytes():
    x, y = torch.randn(23, 3), torch.randn(31, 3)
    seen = torch.zeros(23, 31)
    for rows, columns, product in search.blocks(x, y, 400):
        assert product.numel() * 4 <= 400
        torch.testing.assert_close(product, x[rows] @ y[columns].T)
        seen[rows, columns] += 1
    assert (seen == 1).all()
    assert len(list(search.blocks(x, y))) == 1


@pytest.mark.parametrize("tied", [False, True])
def test_nothing_of_n_by_n_is_held(tied):
    n, chunk = 3000, 1 << 16
    x = torch.ones(n, 8) if tied else torch.randn(n, 8, generator=torch.Generator().manual_seed(0))
    with Largest() as largest:
        both_ways(x, x, 5, 5, chunk_bytes=chunk)
        top_k(x, x, 5, chunk_bytes=chunk)
    assert largest.numel == n * 8  # the embeddings (and their check) are the largest; a block has 16,384


def test_gradients_are_not_followed():
    x = torch.randn(5, 3, requires_grad=True)
    assert not top_k(x, x, 2)[0].requires_grad
    assert not both_ways(x, x, 2, 2).satellite_score.requires_grad


def test_bad_input():
    x, y = torch.randn(4, 3), torch.randn(5, 3)
    for k in (0, 6, -1):
        with pytest.raises(InputError, match=r"k: expected 1 to 5, the number of gallery images"):
            top_k(x, y, k)
    with pytest.raises(InputError, match="number of ground images"):
        both_ways(x, y, 5, 5)
    with pytest.raises(InputError, match="at least one"):
        top_k(x, y[:0], 1)
    with pytest.raises(InputError, match="one width"):
        top_k(x, torch.randn(5, 4), 1)
    with pytest.raises(InputError, match="one width"):
        both_ways(x[0], y, 1, 1)
    for wrong in (torch.nan, torch.inf, -torch.inf):
        broken = y.clone()
        broken[3, 1] = wrong
        with pytest.raises(InputError, match=r"second set: expected finite numbers, found .* in 1 of 5 rows, first 3"):
            both_ways(x, broken, 1, 1)
        with pytest.raises(InputError, match="first set"):
            top_k(broken, x, 1)
    assert isinstance(both_ways(x, y, 5, 4), BothWays)
    assert top_k(x[:0], y, 2)[1].shape == (0, 2)
