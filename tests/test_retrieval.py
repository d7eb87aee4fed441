"""Ranks and recall against a full sort, ties, and what bad input says."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ucvgl import retrieval
from ucvgl.errors import InputError
from ucvgl.retrieval import chance_at, ranks_of, recall_at


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
        (torch.ones(2, 3), torch.ones(4, 3), torch.tensor([0, 4]), "one gallery index"),
        (torch.ones(2, 3), torch.ones(4, 3), torch.tensor([0]), "one gallery index"),
    ],
)
def test_bad_embeddings(query: torch.Tensor, gallery: torch.Tensor, positive: torch.Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ranks_of(query, gallery, positive)
