"""Streamed neighbours against a full sort, ties, blocks, memory, and what bad input says."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from ucvgl import search
from ucvgl.errors import InputError
from ucvgl.features import write_features
from ucvgl.search import BothWays, InvertedLists, both_ways, part_found, top_k


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


def without_zeros(values):
    """One more column of ones for one side, of zeros for the other: no row is all zeros, the products stay."""
    x, y = values
    return (
        torch.cat([x, torch.ones(len(x), 1), torch.zeros(len(x), 1)], 1),
        torch.cat([y, torch.zeros(len(y), 1), torch.ones(len(y), 1)], 1),
    )


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
    ground, satellite = without_zeros((integers(n, 2, data.draw(st.integers(0, 999))), integers(m, 2, 5)))
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
    with pytest.raises(
        InputError, match=r"second set: expected no row of zeros alone, found zeros in 2 of 5 rows, first 1"
    ):
        both_ways(x, y * torch.tensor([1.0, 0, 1, 0, 1])[:, None], 1, 1)
    with pytest.raises(InputError, match="engine: expected 'torch' or 'faiss', found 'flat'"):
        top_k(x, y, 1, engine="flat")
    with pytest.raises(InputError, match="inverted lists: expected engine='faiss'"):
        top_k(x, y, 1, inverted=InvertedLists(2, 1))
    assert isinstance(both_ways(x, y, 5, 4), BothWays)
    assert top_k(x[:0], y, 2)[1].shape == (0, 2)


def test_numbers_that_are_very_large_or_small_are_finite_and_not_zero():
    for scale in (1e-30, 1e30):
        x = torch.ones(3, 2)
        x[1] *= scale
        search.check_rows("x", x)


def test_what_is_wrong_is_counted_over_slices(monkeypatch):
    monkeypatch.setattr(search, "CHECK_BYTES", 24)  # two rows
    x = torch.ones(9, 3)
    x[5, 1], x[8, 0] = torch.nan, torch.inf
    with pytest.raises(InputError, match=r"in 2 of 9 rows, first 5"):
        top_k(x, x[:1], 1)
    x = torch.ones(9, 3)
    x[[3, 4, 8]] = 0
    with pytest.raises(InputError, match=r"zeros in 3 of 9 rows, first 3"):
        both_ways(x[:1], x, 1, 1)


# stored elsewhere, in another precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("chunk", [400, 1 << 20])
def test_files_are_searched_as_what_they_hold(tmp_path, dtype, chunk):
    generator = torch.Generator().manual_seed(1)
    x, y = (
        write_features(tmp_path / f"{n}.npy", [torch.randn(n, 6, generator=generator)], dtype=dtype) for n in (40, 33)
    )
    held = x.float().clone(), y.float().clone()
    for values in ((x, y), (x, held[1]), (held[0], y)):
        score, index = top_k(*values, 5, chunk_bytes=chunk)
        expected = top_k(*held, 5, chunk_bytes=chunk)
        assert score.dtype == torch.float32
        assert torch.equal(score, expected[0])
        assert torch.equal(index, expected[1])
        both = both_ways(*values, 3, 2, chunk_bytes=chunk)
        again = both_ways(*held, 3, 2, chunk_bytes=chunk)
        assert all(torch.equal(a, b) for a, b in zip(vars(both).values(), vars(again).values(), strict=True))


def test_the_product_is_of_the_dtype_asked_for():
    x = torch.tensor([[1.0, 2.0**-9]])
    y = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert top_k(x, y, 1)[1].tolist() == [[1]]
    score, index = top_k(x, y, 1, dtype=torch.bfloat16)  # 1 + 2**-9 is 1 there
    assert (score.dtype, index.tolist()) == (torch.bfloat16, [[0]])
    assert top_k(x.bfloat16(), y.double(), 1)[0].dtype == torch.float64
    both = both_ways(x, y, 2, 1, dtype=torch.float64)
    assert both.ground_score.dtype == both.satellite_score.dtype == torch.float64


def test_another_device_is_given_slices_only(monkeypatch):
    """The device 'meta' computes nothing but says where everything is: only slices of the sets come to it."""
    moved = []
    to = torch.Tensor.to

    def spied(self, *arguments):
        moved.append(self.shape)
        return to(self, *arguments)

    monkeypatch.setattr(torch.Tensor, "to", spied)
    monkeypatch.setattr(search, "STRIP_BYTES", 20 * 4 * 3)
    x, y = torch.ones(50, 3), torch.ones(70, 3)
    found = list(search.blocks(x, y, 400, device="meta"))
    assert {product.device.type for _, _, product in found} == {"meta"}
    assert max(len(shape) and shape[0] for shape in moved) <= 20
    seen = torch.zeros(50, 70)
    for rows, columns, product in found:
        assert product.shape == seen[rows, columns].shape
        seen[rows, columns] += 1
    assert (seen == 1).all()
    assert sum(shape[0] for shape in moved[:1]) == 20  # the first strip of queries
    for places in ([r.start for r, c, _ in found if c.start == 0], [c.start for r, c, _ in found if r.start == 0]):
        assert places == sorted(places)


def test_strips_change_nothing(monkeypatch):
    """As on another device, on which the gallery passes by several blocks of queries at a time."""
    x, y = without_zeros((integers(23, 2, 1), integers(31, 2, 2)))
    whole = both_ways(x, y, 4, 3)
    walk = search.blocks

    def in_strips(query, gallery, chunk_bytes, **options):
        found = list(walk(query, gallery, chunk_bytes, **options))
        for first in (0, 12):
            strip = [block for block in found if first <= block[0].start < first + 12]
            yield from sorted(strip, key=lambda block: block[1].start)

    monkeypatch.setattr(search, "blocks", in_strips)
    again = both_ways(x, y, 4, 3, chunk_bytes=4 * 6 * 6)
    assert all(torch.equal(a, b) for a, b in zip(vars(whole).values(), vars(again).values(), strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_finds_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "STRIP_BYTES", 1 << 12)
    x, y = without_zeros((integers(300, 4, 1), integers(200, 4, 2)))
    x, y = write_features(tmp_path / "x.npy", [x], dtype=torch.float16), write_features(tmp_path / "y.npy", [y])
    expected, found = both_ways(x, y, 7, 3), both_ways(x, y, 7, 3, device="cuda", chunk_bytes=5000)
    assert all(torch.equal(a, b.cpu()) for a, b in zip(vars(expected).values(), vars(found).values(), strict=True))
    assert found.ground_index.device.type == "cuda"


# faiss


@given(st.integers(1, 12), st.integers(1, 25), st.data())
def test_faiss_finds_the_same_with_ties(queries, items, data):
    pytest.importorskip("faiss")
    k, chunk = data.draw(st.integers(1, items)), data.draw(st.sampled_from([8, 60, 1 << 20]))
    query, gallery = integers(queries, 2, data.draw(st.integers(0, 999))), integers(items, 2, 7)
    score, index = top_k(query, gallery, k, chunk_bytes=chunk, engine="faiss")
    expected = by_full_sort(query, gallery, k)
    assert torch.equal(score, expected[0])
    assert torch.equal(index, expected[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_faiss_finds_the_same_in_files(tmp_path, dtype):
    pytest.importorskip("faiss")
    generator = torch.Generator().manual_seed(0)
    values = [torch.nn.functional.normalize(torch.randn(n, 24, generator=generator)) for n in (150, 900)]
    values[1][700:] = values[1][:200]  # duplicates
    x, y = (write_features(tmp_path / f"{len(v)}.npy", [v], dtype=dtype) for v in values)
    score, index = top_k(x, y, 10)
    for chunk in (20_000, 1 << 26):
        found = top_k(x, y, 10, engine="faiss", chunk_bytes=chunk)
        torch.testing.assert_close(found[0], score, rtol=0, atol=1e-6)
        # a duplicate may be rounded differently: then it stands on the other side of its twin
        assert torch.equal(found[1] % 700, index % 700)


def test_inverted_lists_are_exact_when_all_are_probed_and_good_before():
    pytest.importorskip("faiss")
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.nn.functional.normalize(torch.randn(n, 8, generator=generator)) for n in (100, 2000))
    score, exact = top_k(x, y, 5)
    every = top_k(x, y, 5, engine="faiss", inverted=InvertedLists(16, 16), chunk_bytes=4000)
    assert torch.equal(every[1], exact)
    torch.testing.assert_close(every[0], score, rtol=0, atol=1e-6)
    parts = [part_found(top_k(x, y, 5, engine="faiss", inverted=InvertedLists(16, n))[1], exact) for n in (1, 4, 16)]
    assert 0.2 < parts[0] < parts[1] < parts[2] == 1
    again = top_k(x, y, 5, engine="faiss", inverted=InvertedLists(16, 4))
    assert part_found(again[1], exact) == parts[1]


def test_part_found_by_hand():
    exact = torch.tensor([[0, 1], [2, 3]])
    assert part_found(torch.tensor([[1, 0, 5], [9, 2, 8]]), exact) == 0.75
    assert part_found(torch.tensor([[1], [9]]), exact) == 0.25
    for wrong in (exact[:1], exact[0]):
        with pytest.raises(InputError, match="Compare lists of the same queries"):
            part_found(wrong, exact)


def test_bad_input_to_faiss(monkeypatch):
    x, y = torch.eye(4), torch.eye(4)
    with pytest.raises(InputError, match=r"dtype: expected torch.float32 for faiss, found torch.float64"):
        top_k(x.double(), y, 1, engine="faiss")
    for changes in (
        {"lists": 0},
        {"lists": 4, "probes": 5},
        {"probes": 0},
        {"sample": 0},
        {"seed": -1},
        {"lists": 2.0},
    ):
        with pytest.raises(InputError, match="inverted lists: "):
            InvertedLists(**({"probes": 1} | changes))
    if pytest.importorskip("faiss"):
        with pytest.raises(InputError, match="lists: expected 1 to 4"):
            top_k(x, y, 1, engine="faiss", inverted=InvertedLists(5, 1))
        with pytest.raises(InputError, match="Probe more lists"):
            top_k(x, y, 4, engine="faiss", inverted=InvertedLists(4, 1))
        with pytest.raises(InputError, match="k: expected 1 to 4"):
            top_k(x, y, 5, engine="faiss")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match=r"expected faiss to be installed.*faiss-cpu or faiss-gpu"):
        top_k(x, y, 1, engine="faiss")
