"""Ranks, recall, hit rate and average precision of a search by inner product, in blocks: no query x gallery matrix is held.

A rank counts the wrong items of strictly greater similarity, and half of those of equal similarity (the same bits): the
mean of an item's best and worst place among equals. Published code counts the best (Sample4Geo: strictly greater),
which rewards a collapsed embedding. A rank of 1/2, a tie with one wrong item, is still within the first.

Which items are right comes as int64 (P, 2) rows of (query index, gallery index), in any order; a row twice counts once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ucvgl.search import CHUNK_BYTES, check_embeddings, product_dtype

CELLS = 1 << 20  # similarities counted together: they stay in the processor's cache


def recall_at(ranks: Tensor, k: Sequence[int]) -> dict[str, float]:
    """Share of queries whose positive is among the first k, in percent, as {'r_at_1': ..., ...}."""
    return {f"r_at_{n}": _percent(ranks < n) for n in k}


@dataclass(frozen=True, eq=False)
class Places:
    """Where the right items stand in the gallery, for the A queries that have any."""

    query: Tensor  # (A,) int64, these queries, ascending
    count: Tensor  # (A,) int64, how many right items each has
    # (P,) float32, wrong items above each right item, equals by half: query after query, within each the best item first
    wrong_above: Tensor
    unmasked_above: Tensor | None  # (A,) float32, of the best right item, semi-positives masked out; None without any

    @property
    def first(self) -> Tensor:
        """(A,) float32: rank of each query's best right item from 0, which only wrong items above it can worsen."""
        return self.wrong_above[self.count.cumsum(0) - self.count]


@torch.no_grad()
def places_of(query: Tensor, gallery: Tensor, positives: Tensor, *, semi_positives: Tensor | None = None) -> Places:
    """Where each right item stands among the wrong ones, from (Q, D) and (R, D) embeddings and (P, 2) rows of right items.
    Semi-positives, (S, 2), are neither right nor wrong for the hit rate, unless right too. InputError: NaN or infinity."""
    check_embeddings(query, gallery)
    row, column = _sorted_pairs(positives, query, gallery)
    semi_row, semi_column = _sorted_pairs(positives[:0] if semi_positives is None else semi_positives, query, gallery)
    above, masked = torch.zeros(len(row), device=query.device), torch.zeros(len(query), device=query.device)
    gallery = gallery.to(product_dtype(query, gallery))
    step = max(1, CHUNK_BYTES // (gallery.element_size() * len(gallery)))
    for start in range(0, len(query), step):
        end = start + step
        similarity = query[start:end].to(gallery.dtype) @ gallery.T  # (B, R)
        some = (start <= row) & (row < end)
        at, right = row[some] - start, column[some]
        own = similarity[at, right]
        similarity[at, right] = -torch.inf  # only wrong items are left to be counted
        above[some] = _count_above(similarity, at, own)
        best = torch.full_like(similarity[:, 0], -torch.inf).scatter_reduce(0, at, own, "amax")  # (B,)
        some = (start <= semi_row) & (semi_row < end)
        at = semi_row[some] - start
        difference = similarity[at, semi_column[some]] - best[at]
        masked.index_add_(0, semi_row[some], (difference.sign().float() + 1) / 2)  # greater 1, equal 1/2, less 0
    measured, count = row.unique_consecutive(return_counts=True)
    order = above.argsort(stable=True)
    above = above[order[row[order].argsort(stable=True)]]  # within each query the best first
    places = Places(measured, count, above, None)
    return places if semi_positives is None else replace(places, unmasked_above=places.first - masked[measured])


def average_precision(places: Places) -> Tensor:
    """(A,) float32: each query's average precision, 0 to 1, as University-1652's benchmark computes it.

    The j-th best right item, at rank r_j (both from 0), adds the mean of two precisions, (j + 1) / (r_j + 1) with it
    and j / r_j just before it (1 where r_j is 0); r_j is j plus the wrong items above. The mean over the right items.
    Source: University-1652 (Zheng, Wei, Yang; ACM MM 2020), the trapezoid rule of its evaluation."""
    owner = torch.arange(len(places.count), device=places.count.device).repeat_interleave(places.count)
    begin = (places.count.cumsum(0) - places.count)[owner]
    j = torch.arange(len(owner), device=owner.device) - begin
    rank = places.wrong_above + j
    before = torch.where(rank > 0, j / rank.clamp(min=0.5), 1.0)  # ranks are whole or half
    trapezoid = (before + (j + 1) / (rank + 1)) / 2
    return torch.zeros(len(places.count), device=owner.device).index_add(0, owner, trapezoid) / places.count


def retrieval_measures(
    query: Tensor, gallery: Tensor, positives: Tensor, *,
    semi_positives: Tensor | None = None, ks: Sequence[int] = (1, 5, 10),
) -> dict[str, float]:  # fmt: skip
    """`measures_of` a search, from embeddings (Q, D) and (R, D); pairs as in `places_of`, one at least."""
    assert len(positives), "no query has a right item"
    places = places_of(query, gallery, positives, semi_positives=semi_positives)
    return measures_of(places, len(query), len(gallery), ks)


def measures_of(places: Places, queries: int, gallery: int, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Every measure of a search of so many queries and gallery items, averaged over the queries that have a right item.

    In percent: r_at_<k>, a right item among the first k, semi-positives counting as wrong (VIGOR's published protocol);
    r_at_1_percent, the same for k = max(1, floor(R / 100)) (Sample4Geo's metric); hit_rate, the first is right once
    semi-positives are masked out (VIGOR), only with some; ap, the mean of `average_precision`. And queries and
    left_out: how many were measured, and how many were not for want of a right item."""
    measures = recall_at(places.first, ks)
    measures["r_at_1_percent"] = _percent(places.first < max(1, gallery // 100))
    if places.unmasked_above is not None:
        measures["hit_rate"] = _percent(places.unmasked_above < 1)
    measures["ap"] = 100 * float(average_precision(places).mean())
    return measures | {"queries": len(places.query), "left_out": queries - len(places.query)}


def _percent(hit: Tensor) -> float:
    return 100 * float(hit.float().mean())


def _sorted_pairs(pairs: Tensor, query: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of (query, gallery) sorted, each once, as two int64 (P,)."""
    assert ((pairs >= 0) & (pairs < pairs.new_tensor([len(query), len(gallery)]))).all(), "pairs of other embeddings"
    number = (pairs[:, 0] * len(gallery) + pairs[:, 1]).to(query.device).unique()
    return number // len(gallery), number % len(gallery)


def _count_above(similarity: Tensor, row: Tensor, own: Tensor) -> Tensor:
    """How many of the items (B, R) in row `row[i]` exceed `own[i]`, equals by half; (P,)."""
    out, width = torch.empty_like(own), similarity.shape[1]
    for i in torch.arange(len(own), device=own.device).split(max(1, CELLS // width)):
        # greater + equal / 2 = (all + greater - less) / 2: one pass; exact in float32 to 2**24 items
        out[i] = (width + (similarity[row[i]].sub_(own[i, None])).sign_().sum(1)) / 2
    return out


# Probabilities against what is true: Guo et al. 2017, section 2; bins of equal count (Nguyen and O'Connor 2015).


def reliability(probability: np.ndarray, right: np.ndarray, bins: int = 10) -> pd.DataFrame:
    """Claimed against true by at most so many bins of about equal count, a row each; equal probabilities share a bin.

    From (N,) probabilities, 0 to 1, and (N,) 1 or 0, NaN left out: from_p, to_p, claimed (mean probability), true (part
    that is right), low and high (its 95 % interval of Wilson, 1927), pictures."""
    from scipy.stats import binomtest  # here, since it takes half a second to load

    p, y = _known(probability, right)
    bin_of = np.searchsorted(np.sort(p), p) * bins // len(p)  # of equals the first counts
    rows = []
    for one in np.unique(bin_of):
        claimed, true = p[bin_of == one], y[bin_of == one]
        interval = binomtest(int(true.sum()), len(true)).proportion_ci(method="wilson")
        rows.append((claimed.min(), claimed.max(), claimed.mean(), true.mean(), interval.low, interval.high, len(true)))
    return pd.DataFrame(rows, columns=["from_p", "to_p", "claimed", "true", "low", "high", "pictures"])


def calibration_error(probability: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error, 0 to 1: sum over bins of n_b / N `|claimed_b - true_b|` (Guo et al. 2017, equation 3)."""
    table = reliability(probability, right, bins)
    return float(np.average((table["claimed"] - table["true"]).abs(), weights=table["pictures"]))


def claimed_and_true_precision(probability: np.ndarray, right: np.ndarray, threshold: float) -> dict[str, float]:
    """Of the pictures whose probability is at least `threshold`: placed and share, how many and which part of all;
    claimed, their mean probability; true, the part that is right (NaN if there is none). NaN in `right` is left out."""
    p, y = _known(probability, right)
    some = p >= threshold
    claimed, true = (float(x[some].mean()) if some.any() else math.nan for x in (p, y))
    placed, share = int(some.sum()), float(some.mean())
    return {"threshold": float(threshold), "placed": placed, "share": share, "claimed": claimed, "true": true}


def threshold_for(probability: np.ndarray, share: float) -> float:
    """The greatest threshold that at least this part (above 0, to 1) of the pictures reaches."""
    p = np.asarray(probability, np.float64)
    return float(np.sort(p)[::-1][math.ceil(share * len(p) - 1e-9) - 1])


def _known(probability: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Both as float64, (2, N), without the rows of unknown truth."""
    both = np.stack([probability, right]).astype(np.float64)
    return both[:, ~np.isnan(both[1])]
