"""Ranks and measures against full sorts and hand-sized cases, ties, masks, chunks, and what bad input says."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ucvgl import metrics as retrieval
from ucvgl.errors import InputError
from ucvgl.features import write_features
from ucvgl.metrics import average_precision, chance_at, places_of, ranks_of, recall_at, retrieval_measures


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 10_000))
def test_ranks_equal_a_full_sort(queries: int, items: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, gallery = torch.randn(queries, 5, generator=generator), torch.randn(items, 5, generator=generator)
    positive = torch.randint(items, (queries,), generator=generator)
    order = (query @ gallery.T).argsort(dim=1, descending=True)
    expected = (order == positive[:, None]).int().argmax(1)
    assert torch.equal(ranks_of(query, gallery, positive), expected.float())


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    query, gallery = torch.randn(50, 8, generator=generator), torch.randn(60, 8, generator=generator)
    whole = ranks_of(query, gallery, torch.arange(50))
    monkeypatch.setattr(retrieval, "CHUNK_BYTES", 7 * 60 * 4)
    assert torch.equal(ranks_of(query, gallery, torch.arange(50)), whole)


def test_a_collapsed_embedding_is_not_rewarded() -> None:
    """Published code counts ties in favour: everything equal would be R@1 100 %. Here it is the middle of the list."""
    ranks = ranks_of(torch.ones(4, 3), torch.ones(9, 3), torch.tensor([0, 3, 5, 8]))
    assert ranks.tolist() == [4.0] * 4
    assert recall_at(ranks, (1, 5)) == {"r_at_1": 0.0, "r_at_5": 100.0}


def test_recall_by_hand() -> None:
    assert recall_at(torch.tensor([0.0, 1.0, 4.0, 9.0]), (1, 5, 10)) == {
        "r_at_1": 25.0,
        "r_at_5": 75.0,
        "r_at_10": 100.0,
    }
    assert chance_at(200, (1, 10)) == {"r_at_1": 0.5, "r_at_10": 5.0}
    assert chance_at(5, (10,)) == {"r_at_10": 100.0}


@pytest.mark.parametrize(
    ("query", "gallery", "positive", "words"),
    [
        (torch.ones(2, 3), torch.ones(4, 5), torch.tensor([0, 1]), "one width"),
        (torch.full((2, 3), torch.nan), torch.ones(4, 3), torch.tensor([0, 1]), "NaN"),
        (torch.ones(2, 3), torch.zeros(4, 3), torch.tensor([0, 1]), "second set: .* zeros in 4 of 4 rows, first 0"),
        (torch.ones(2, 3), torch.ones(4, 3), torch.tensor([0, 4]), "one gallery index"),
        (torch.ones(2, 3), torch.ones(4, 3), torch.tensor([0]), "one gallery index"),
    ],
)
def test_bad_embeddings(query: torch.Tensor, gallery: torch.Tensor, positive: torch.Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ranks_of(query, gallery, positive)


# several right items


def embeddings(similarity: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and gallery whose products are exactly the numbers given, a row a query; no row is all zeros."""
    table = torch.tensor(similarity)
    rows, items = table.shape
    return torch.cat([torch.eye(rows), torch.zeros(rows, 1)], 1), torch.cat([table.T, torch.ones(items, 1)], 1)


def pairs(*rows: tuple[int, int]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 2)


@contextmanager
def small(chunk_bytes: int, sort_from: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "CHUNK_BYTES", chunk_bytes)
        patch.setattr(retrieval, "SORT_FROM", sort_from)
        yield


def sorted_ranks(similarity: list[float], right: set[int], optimistic: bool) -> list[float]:
    """The oracle: rank of the j-th right item from 0, equals in the best and in the worst order, and their mean."""
    orders = []
    for right_first in (True, False):
        order = sorted(range(len(similarity)), key=lambda i: (-similarity[i], (i in right) != right_first))
        orders.append([place for place, item in enumerate(order) if item in right])
    best, worst = orders
    return [float(b) for b in best] if optimistic else [(b + w) / 2 for b, w in zip(best, worst, strict=True)]


def naive_precision(ranks: list[float]) -> float:
    total = 0.0
    for j, rank in enumerate(ranks):
        before = j / rank if rank > 0 else 1.0
        total += (before + (j + 1) / (rank + 1)) / 2
    return total / len(ranks)


def naive_measures(
    table: list[list[float]], right: list[set[int]], semi: list[set[int]] | None, ks: list[int], optimistic: bool
) -> dict[str, float]:
    asked = [i for i in range(len(table)) if right[i]]
    ranks = {i: sorted_ranks(table[i], right[i], optimistic) for i in asked}
    out = {f"r_at_{k}": 100 * sum(ranks[i][0] < k for i in asked) / len(asked) for k in ks}
    one_percent = max(1, len(table[0]) // 100)
    out["r_at_1_percent"] = 100 * sum(ranks[i][0] < one_percent for i in asked) / len(asked)
    if semi is not None:
        hits = 0
        for i in asked:  # the masked tiles are really taken out of the list
            kept = [item for item in range(len(table[i])) if item in right[i] or item not in semi[i]]
            left = {new for new, item in enumerate(kept) if item in right[i]}
            hits += sorted_ranks([table[i][item] for item in kept], left, optimistic)[0] < 1
        out["hit_rate"] = 100 * hits / len(asked)
    out["ap"] = 100 * sum(naive_precision(ranks[i]) for i in asked) / len(asked)
    return out | {"queries": len(asked), "left_out": len(table) - len(asked)}


def flat(sets: list[set[int]]) -> torch.Tensor:
    return pairs(*[(i, item) for i, items in enumerate(sets) for item in items])


@given(st.data(), st.booleans(), st.sampled_from([1, 60, 1 << 20]), st.sampled_from([0, 3, 1000]))
def test_measures_equal_full_sorts_with_many_ties(
    data: st.DataObject, optimistic: bool, chunk_bytes: int, sort_from: int
) -> None:
    queries, items = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 9))
    table = data.draw(
        st.lists(
            st.lists(st.integers(-2, 2).map(float), min_size=items, max_size=items), min_size=queries, max_size=queries
        )
    )
    sets = st.lists(st.sets(st.integers(0, items - 1)), min_size=queries, max_size=queries)
    right = data.draw(sets.filter(any))
    semi = data.draw(st.none() | sets)
    ks = sorted({1, items, (items + 1) // 2})
    query, gallery = embeddings(table)
    with small(chunk_bytes, sort_from):
        found = retrieval_measures(
            query,
            gallery,
            flat(right),
            semi_positives=None if semi is None else flat(semi),
            ks=ks,
            optimistic=optimistic,
        )
    assert found == pytest.approx(naive_measures(table, right, semi, ks, optimistic), rel=1e-5)


@pytest.mark.parametrize("sort_from", [0, 1000])
@pytest.mark.parametrize("optimistic", [False, True])
def test_measures_equal_full_sorts_of_embeddings(sort_from: int, optimistic: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    query, gallery = torch.randn(12, 6, generator=generator), torch.randn(230, 6, generator=generator)
    right = [set(torch.randperm(230, generator=generator)[:count].tolist()) for count in (1, 0, 3, 20, 1, 2) * 2]
    semi = [set(torch.randperm(230, generator=generator)[:30].tolist()) for _ in range(12)]
    with small(3 * 230 * 4, sort_from):
        found = retrieval_measures(query, gallery, flat(right), semi_positives=flat(semi), optimistic=optimistic)
    table = [[float(query[i] @ item) for item in gallery] for i in range(12)]
    assert found == pytest.approx(naive_measures(table, right, semi, [1, 5, 10], optimistic), rel=1e-5)
    assert found["left_out"] == 2


def test_one_right_item_each_is_the_search_by_ranks() -> None:
    generator = torch.Generator().manual_seed(2)
    query, gallery = torch.randn(40, 4, generator=generator), torch.randn(300, 4, generator=generator)
    positive = torch.randint(300, (40,), generator=generator)
    ranks = ranks_of(query, gallery, positive)
    rows = torch.stack([torch.arange(40), positive], 1)
    assert torch.equal(places_of(query, gallery, rows).first, ranks)
    found = retrieval_measures(query, gallery, rows)
    assert {name: found[name] for name in ("r_at_1", "r_at_5", "r_at_10")} == recall_at(ranks, (1, 5, 10))
    assert found["r_at_1_percent"] == recall_at(ranks, (3,))["r_at_3"]
    assert "hit_rate" not in found


def test_average_precision_by_hand() -> None:
    query, gallery = embeddings([[0.9, 0.8, 0.7, 0.6, 0.5]])

    def ap(*right: int) -> float:
        return average_precision(places_of(query, gallery, pairs(*[(0, item) for item in right]))).item()

    assert ap(0) == ap(0, 1, 2, 3, 4) == 1
    assert ap(4) == pytest.approx((0 / 4 + 1 / 5) / 2)
    assert ap(0, 2) == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)
    assert ap(3, 1) == pytest.approx(((0 / 1 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2)


def test_ties_by_hand() -> None:
    """Two right (0, 3) and two wrong items share the first similarity: their places are 1 and 2, at best 0 and 1."""
    query, gallery = embeddings([[0.5, 0.5, 0.5, 0.5, 0.1]])
    right = pairs((0, 0), (0, 3))
    honest, optimistic = (places_of(query, gallery, right, optimistic=o) for o in (False, True))
    assert honest.wrong_above.tolist() == [1.0, 1.0]  # the second stands one lower for the first right item
    assert optimistic.wrong_above.tolist() == [0.0, 0.0]
    assert average_precision(honest).item() == pytest.approx(((0 / 1 + 1 / 2) / 2 + (1 / 2 + 2 / 3) / 2) / 2)
    assert average_precision(optimistic).item() == 1
    # right items that tie among themselves cost nothing
    assert places_of(query, gallery, pairs(*[(0, item) for item in range(4)])).first.tolist() == [0.0]


def test_semi_positives_are_masked_for_the_hit_rate_alone() -> None:
    query, gallery = embeddings([[0.9, 0.8, 0.7, 0.1], [0.9, 0.8, 0.7, 0.1], [0.1, 0.8, 0.7, 0.1]])
    right = pairs((0, 2), (1, 2), (2, 2))
    semi = pairs((0, 0), (0, 1), (0, 3), (1, 0), (2, 2), (2, 3))  # enough; one wrong is left; the right one itself
    found = retrieval_measures(query, gallery, right, semi_positives=semi, ks=(1, 2, 3))
    assert found["r_at_1"] == 0
    assert found["r_at_2"] == pytest.approx(100 / 3)
    assert found["hit_rate"] == pytest.approx(100 / 3)
    assert retrieval_measures(query, gallery, right, semi_positives=pairs(), ks=(1,))["hit_rate"] == 0
    tied_query, tied = embeddings([[0.7, 0.7, 0.7, 0.7]])
    for count, above in enumerate((1.5, 1.0, 0.5, 0.0)):
        masked = pairs(*[(0, item) for item in range(count)])
        places = places_of(tied_query, tied, pairs((0, 3)), semi_positives=masked)
        assert places.unmasked_above is not None
        assert places.unmasked_above.tolist() == [above]
        places = places_of(tied_query, tied, pairs((0, 3)), semi_positives=masked, optimistic=True)
        assert places.unmasked_above is not None
        assert places.unmasked_above.tolist() == [0.0]


def test_semi_positives_of_a_query_left_out_mask_nothing_of_its_neighbour() -> None:
    query, gallery = embeddings([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.9, 0.1]])
    right, semi = pairs((0, 1), (2, 1)), pairs((1, 0), (2, 0), (3, 0))
    places = places_of(query, gallery, right, semi_positives=semi)
    assert places.unmasked_above is not None
    assert places.unmasked_above.tolist() == [1.0, 0.0]
    assert retrieval_measures(query, gallery, right, semi_positives=semi[:1], ks=(1,))["hit_rate"] == 0


@pytest.mark.parametrize("count", [1, 20])
def test_a_collapsed_embedding_gets_no_more_than_chance_unless_counted_optimistically(count: int) -> None:
    query, gallery = torch.ones(10, 3), torch.ones(400, 3)
    right = torch.stack([torch.arange(10).repeat_interleave(count), torch.arange(10 * count)], 1)
    honest = retrieval_measures(query, gallery, right, semi_positives=pairs())
    chance = chance_at(400, (1, 5, 10))
    assert all(honest[name] <= chance[name] for name in chance)
    assert honest["hit_rate"] == 0
    # by a random order, by which the mean precision is a little above what the mean places give
    generator = torch.Generator().manual_seed(3)
    shuffled = [sorted(torch.randperm(400, generator=generator)[:count].tolist()) for _ in range(500)]
    by_chance = 100 * sum(naive_precision(ranks) for ranks in shuffled) / 500
    assert 0.2 <= honest["ap"] <= by_chance < 10
    optimistic = retrieval_measures(query, gallery, right, semi_positives=pairs(), optimistic=True)
    assert {value for name, value in optimistic.items() if name not in ("queries", "left_out")} == {100.0}


def test_one_percent_is_rounded_down_and_at_least_one() -> None:
    for items, k in ((1, 1), (99, 1), (100, 1), (199, 1), (200, 2), (1999, 19)):
        table = torch.arange(items, 0, -1.0)[None]
        for rank in {k - 1, min(k, items - 1)}:
            found = retrieval_measures(torch.ones(1, 1), table.T, pairs((0, rank)), ks=(1,))
            assert found["r_at_1_percent"] == (100 if rank < k else 0)


def test_chunks_rows_twice_and_their_order_change_no_measure() -> None:
    generator = torch.Generator().manual_seed(4)
    query, gallery = torch.randn(30, 5, generator=generator), torch.randn(80, 5, generator=generator)
    right = torch.randint(30, (60, 2), generator=generator)
    semi = torch.randint(30, (60, 2), generator=generator)
    whole = retrieval_measures(query, gallery, right, semi_positives=semi)
    assert 0 < whole["left_out"] < 30
    for rows in (1, 7):
        with small(rows * 80 * 4, 16):
            assert retrieval_measures(query, gallery, right, semi_positives=semi) == pytest.approx(whole)
    twice = torch.cat([right, right]).flip(0)
    assert retrieval_measures(query, gallery, twice, semi_positives=torch.cat([semi, semi])) == whole


@given(st.integers(0, 10_000))
def test_measures_grow_with_k_and_optimism(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, gallery = (torch.randint(-1, 2, (n, 2), generator=generator).float() for n in (8, 15))
    query, gallery = (torch.cat([*e], 1) for e in ((query, torch.ones(8, 1)), (gallery, torch.ones(15, 1))))
    right = torch.stack(
        [torch.randint(8, (20,), generator=generator), torch.randint(15, (20,), generator=generator)], 1
    )
    semi = torch.stack([torch.arange(8), torch.randint(15, (8,), generator=generator)], 1)
    honest, best = (
        retrieval_measures(query, gallery, right, semi_positives=semi, optimistic=optimistic)
        for optimistic in (False, True)
    )
    assert all(honest[name] <= best[name] + 1e-4 for name in honest)
    for found in (honest, best):
        assert found["r_at_1"] <= found["hit_rate"] + 1e-4
        assert found["r_at_1"] + found["ap"] > 0
        assert found["r_at_1"] <= found["r_at_5"] <= found["r_at_10"] <= 100


def test_what_is_searched_is_left_as_it_was() -> None:
    query, gallery = torch.eye(3, requires_grad=True), torch.eye(3)
    found = places_of(query, gallery, pairs((0, 0), (2, 1)))
    assert torch.equal(query.detach(), torch.eye(3))
    assert not found.wrong_above.requires_grad
    assert found.query.tolist() == [0, 2]
    assert found.count.tolist() == [1, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_files_are_measured_as_what_they_hold(tmp_path: Path, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(5)
    query, gallery = (
        write_features(tmp_path / f"{n}.npy", [torch.randn(n, 6, generator=generator)], dtype=dtype) for n in (30, 70)
    )
    held = query.float().clone(), gallery.float().clone()
    right = torch.stack([torch.arange(30), torch.randint(70, (30,), generator=generator)], 1)
    semi = torch.randint(30, (90, 2), generator=generator)
    expected = retrieval_measures(*held, right, semi_positives=semi)
    for rows in (1, 4, 1000):
        with small(rows * 70 * 4, 16):
            for given_ in ((query, gallery), (held[0], gallery), (query, held[1])):
                found = retrieval_measures(*given_, right, semi_positives=semi, device="cpu")
                assert found == pytest.approx(expected)
                assert torch.equal(ranks_of(*given_, right[:, 1]), ranks_of(*held, right[:, 1]))


def test_cells_counted_together_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(6)
    query, gallery = (torch.randint(1, 3, (n, 3), generator=generator).float() for n in (20, 40))
    right = torch.randint(20, (50, 2), generator=generator)
    expected = places_of(query, gallery, right)
    for cells in (1, 41, 130):
        monkeypatch.setattr(retrieval, "CELLS", cells)
        assert torch.equal(places_of(query, gallery, right).wrong_above, expected.wrong_above)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_measures_the_same(tmp_path: Path) -> None:
    query, gallery = embeddings([[0.5, 0.25, 0.5, 0.125]] * 9)
    files = [write_features(tmp_path / f"{i}.npy", [v], dtype=torch.float16) for i, v in enumerate((query, gallery))]
    right, semi = torch.tensor([[i, i % 4] for i in range(9)]), torch.tensor([[i, 2] for i in range(9)])
    options = {"semi_positives": semi, "ks": (1, 2)}
    expected = retrieval_measures(query, gallery, right, **options)
    with small(2 * 4 * 4, 16):
        assert retrieval_measures(*files, right, device="cuda", **options) == pytest.approx(expected)
        assert ranks_of(*files, right[:, 1], device="cuda").tolist() == ranks_of(query, gallery, right[:, 1]).tolist()


ONES = (torch.ones(2, 3), torch.ones(12, 3))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gallery": torch.ones(12, 5)}, "one width"),
        ({"gallery": torch.full((12, 3), torch.nan)}, "NaN or infinity in 12 of 12 rows"),
        ({"query": torch.ones(2, 3) * torch.tensor([[1.0], [0]])}, "first set: .* zeros in 1 of 2 rows, first 1"),
        ({"gallery": torch.ones(9, 3)}, "k: expected 1 to 9.*found 10"),
        ({"ks": (0,)}, "k: expected 1 to 12"),
        ({"gallery": torch.ones(0, 3)}, "gallery images: expected at least one"),
        ({"positives": pairs((0, 1), (1, 12))}, "positives: expected gallery indices from 0 to 11, found 1 to 12"),
        ({"positives": pairs((0, 1), (1, -1))}, "found -1 to 1"),
        ({"positives": pairs((2, 1))}, "positives: expected query indices from 0 to 1, found 2 to 2"),
        ({"positives": pairs()}, "right gallery item for one query at least"),
        ({"positives": torch.tensor([0, 1])}, r"int64 \(P, 2\)"),
        ({"positives": torch.ones(2, 2)}, "torch.float32"),
        ({"semi_positives": pairs((0, 12))}, "semi_positives: expected gallery indices"),
    ],
)
def test_bad_input_to_the_measures(changes: dict[str, object], words: str) -> None:
    query, gallery = ONES
    good = {"query": query, "gallery": gallery, "positives": pairs((0, 1), (1, 2))}
    assert retrieval_measures(**good)["queries"] == 2
    with pytest.raises(InputError, match=words):
        retrieval_measures(**(good | changes))
