"""Streamed neighbours against a full sort, with ties, whatever the blocks; memory; faiss."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from ucvgl.errors import InputError
from ucvgl.search import both_ways, check_embeddings, top_k


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


@pytest.mark.parametrize("engine", ["torch", "faiss"])
@given(st.integers(1, 12), st.integers(1, 25), st.data())
def test_top_k_is_a_full_sort_whatever_the_blocks(engine, queries, items, data):
    if engine == "faiss":
        pytest.importorskip("faiss")
    k, chunk = data.draw(st.integers(1, items)), data.draw(st.integers(1, 700))
    query, gallery = integers(queries, 2, data.draw(st.integers(0, 999))), integers(items, 2, 7)
    found = top_k(query, gallery, k, chunk_bytes=chunk, engine=engine)
    assert all(map(torch.equal, found, by_full_sort(query, gallery, k)))


@given(st.integers(1, 20), st.integers(1, 20), st.data())
def test_both_ways_is_top_k_twice(n, m, data):
    k = data.draw(st.integers(1, m)), data.draw(st.integers(1, n))
    ground, satellite = integers(n, 2, data.draw(st.integers(0, 999))), integers(m, 2, 5)
    both = both_ways(ground, satellite, *k, chunk_bytes=data.draw(st.integers(1, 700)))
    expected = *by_full_sort(ground, satellite, k[0]), *by_full_sort(satellite, ground, k[1])
    assert all(map(torch.equal, vars(both).values(), expected))


def test_a_diverged_model_finds_nothing():
    x = torch.randn(4, 3)
    for wrong in (torch.nan, torch.inf):
        broken = torch.randn(5, 3)
        broken[3, 1] = wrong
        for search, sets in ((top_k, (x, broken, 1)), (both_ways, (broken, x, 1, 1))):
            with pytest.raises(InputError, match="expected finite numbers, found NaN or infinity in 1 of 5 rows"):
                search(*sets)
    check_embeddings(1e30 * torch.ones(3, 2), torch.full((9, 2), 6e4, dtype=torch.float16))  # large, and finite
    with pytest.raises(AssertionError, match="5 neighbours of 4"):
        top_k(x, x, 5)


def test_halves_are_multiplied_in_float32():
    x, y = (torch.randn(n, 6).bfloat16() for n in (40, 33))
    assert all(map(torch.equal, top_k(x, y, 3), top_k(x.float(), y.float(), 3)))


@pytest.mark.parametrize("tied", [False, True])
def test_nothing_of_n_by_n_is_held(tied):
    n, chunk = 1500, 1 << 16
    x = torch.ones(n, 8) if tied else torch.randn(n, 8, generator=torch.Generator().manual_seed(0))
    with Largest() as largest:
        both_ways(x, x, 5, 5, chunk_bytes=chunk)
        top_k(x, x, 5, chunk_bytes=chunk)
    assert largest.numel == chunk // 4  # a block is the largest
