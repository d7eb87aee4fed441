"""Ranks, recall, hit rate and average precision of a search by inner product, streamed: no query x gallery matrix is held.

Ties count honestly: an item's rank is the mean of its best and its worst place among equals. Published code counts the
best (Sample4Geo: rank = number of strictly greater similarities), which rewards a collapsed embedding; `optimistic=True`
gives that count for comparison. A rank of 1/2, a tie with one wrong item, is still within the first. Equal means the same
bits: a matrix product may round a duplicate image differently.

Which items are right comes as int64 (P, 2) rows of (query index, gallery index), in any order; a row twice counts once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ucvgl.errors import InputError
from ucvgl.search import check_embeddings, check_k, device_of, product_dtype

CHUNK_BYTES = 128 << 20  # of similarities held at a time, at most: whole rows of the gallery, one at least
PARTS = 16  # and no more than such a part of the whole product, where that is larger than LEAST_BYTES:
LEAST_BYTES = 16 << 20  # so small searches stay small
STREAMED = 4  # times as many where the gallery is moved or converted, which is done again for each of them
CELLS = 1 << 20  # similarities counted together: they and the result of comparing stay in the processor's cache
SORT_FROM = 16  # right items of a query, from which sorting its row is faster than a pass over it for each


@torch.no_grad()
def ranks_of(query: Tensor, gallery: Tensor, positive: Tensor, *, device: torch.device | str | None = None) -> Tensor:
    """Rank of each query's positive in the gallery, from 0; float32 (Q,), halves where ties are.

    Args:
        query: (Q, D) embeddings.
        gallery: (R, D) embeddings.
        positive: (Q,) integer indices into the gallery.
        device: where to compute; the queries' by default.

    Raises:
        InputError: embeddings of different width, with NaN or infinity or a row of zeros, indices outside the gallery.
    """
    check_embeddings(query, gallery, zeros=False)
    if len(positive) != len(query) or (
        len(positive) and not 0 <= int(positive.min()) <= int(positive.max()) < len(gallery)
    ):
        raise InputError(
            "positive", expected=f"{len(query)} indices below {len(gallery)}", found=f"{len(positive)} indices",
            todo="Give one gallery index per query.",
        )  # fmt: skip
    device = device_of(query, device)
    positive = positive.to(device)
    out = [torch.zeros(0, device=device)]
    for rows, similarity in _rows(query, gallery, torch.arange(len(query), device=query.device), device):
        own = similarity.gather(1, positive[rows, None])[:, 0]
        more, most = _count_passes(similarity, own, torch.ones_like(own, dtype=torch.int64))
        out.append((more + most - 1) / 2)  # the positive itself is not below it
    return torch.cat(out)


def recall_at(ranks: Tensor, k: Sequence[int]) -> dict[str, float]:
    """Share of queries whose positive is among the first k, in percent, as {'r_at_1': ..., ...}."""
    return {f"r_at_{n}": 100 * float((ranks < n).float().mean()) for n in k}


def chance_at(gallery: int, k: Sequence[int]) -> dict[str, float]:
    """What guessing gives: k of `gallery`, in percent."""
    return {f"r_at_{n}": 100 * min(1.0, n / gallery) for n in k}


# ------------------------------------------------------------------------------------------------ several right items


@dataclass(frozen=True, eq=False)
class Places:
    """Where the right items of Q queries stand in the gallery, A of the queries having any.

    Args:
        query: (A,) int64, the queries that have a right item, ascending.
        count: (A,) int64, how many right items each of these has.
        wrong_above: (P,) float32, how many wrong items stand above a right item, those of equal similarity counting half
            (optimistic: not at all). The queries one after the other, within each the best right item first.
        unmasked_above: (A,) float32, the same of each query's best right item when its semi-positives are masked out;
            None where none were given.
        queries: Q.
        gallery: how many items were searched.
    """

    query: Tensor
    count: Tensor
    wrong_above: Tensor
    unmasked_above: Tensor | None
    queries: int
    gallery: int

    @property
    def first(self) -> Tensor:
        """(A,) float32: rank of each query's best right item from 0, which only wrong items above it can worsen."""
        return self.wrong_above[self.count.cumsum(0) - self.count]

    @property
    def one_percent(self) -> int:
        """The k of 'R@1 %', a hundredth of the gallery rounded down and at least 1 (Sample4Geo's metric)."""
        return max(1, self.gallery // 100)


@torch.no_grad()
def places_of(
    query: Tensor,
    gallery: Tensor,
    positives: Tensor,
    *,
    semi_positives: Tensor | None = None,
    optimistic: bool = False,
    device: torch.device | str | None = None,
) -> Places:
    """Where each right item stands among the wrong ones, from one pass over the gallery for each block of queries.

    Args:
        query: (Q, D) embeddings.
        gallery: (R, D) embeddings.
        positives: (P, 2) int64 rows of (query, gallery): the right items, any number a query.
        semi_positives: (S, 2) int64, neither right nor wrong when it comes to the hit rate; a right item among them
            stays right.
        optimistic: ties with wrong items count in favour, as in published code, instead of half each.
        device: where to compute, and where the result is; the queries' by default.

    Raises:
        InputError: embeddings of different width, with NaN or infinity or a row of zeros, indices outside of them, no right
            item at all.
    """
    check_embeddings(query, gallery, zeros=False)
    device = device_of(query, device)
    right = _pairs("positives", positives, query, gallery, device)
    if len(right) == 0:
        raise InputError(
            "positives", expected="a right gallery item for one query at least", found="none",
            todo="Give the pairs: without them nothing can be measured.",
        )  # fmt: skip
    semi = None if semi_positives is None else _pairs("semi_positives", semi_positives, query, gallery, device)
    asked, row, count = right[:, 0].unique_consecutive(return_inverse=True, return_counts=True)
    above, unmasked = [], []
    for rows, block in _rows(query, gallery, asked, device):
        some = asked[rows]
        cells = _within(row, rows.start, rows.stop)
        own_row, own_column = row[cells] - rows.start, right[cells, 1]
        own = block[own_row, own_column]
        block[own_row, own_column] = -torch.inf  # only wrong items are left to be counted
        # best first within a row: two stable sorts, the last by the row
        order = own.argsort(descending=True, stable=True)
        own = own[order[own_row[order].argsort(stable=True)]]
        wrong = _count_above(block, own, count[rows], optimistic)
        above.append(wrong)
        if semi is not None:
            first = torch.searchsorted(own_row, torch.arange(len(some), device=own_row.device))  # the best of each row
            semi_row, semi_column = _semi_of(semi, some)
            score, best = block[semi_row, semi_column], own[first][semi_row]
            masked = (score > best).float() + (0 if optimistic else (score == best).float() / 2)
            unmasked.append(wrong[first].index_add(0, semi_row, -masked))
    return Places(asked, count, torch.cat(above), torch.cat(unmasked) if unmasked else None, len(query), len(gallery))


def average_precision(places: Places) -> Tensor:
    """(A,) float32: each query's average precision, 0 to 1, as University-1652's benchmark computes it.

    The j-th best right item (from 0) at rank r_j from 0 adds the mean of two precisions, (j + 1) / (r_j + 1) with it and
    j / r_j just before it (1 where r_j is 0); the result is the mean over the right items. r_j is j plus the wrong items
    above, so with ties, unless counted optimistically, the mean of the best and the worst rank that the j-th right item
    can have; the benchmark takes the order in which its sort happens to leave equals.

    Source: University-1652 (Zheng, Wei, Yang; ACM MM 2020), the trapezoid rule of its evaluation.
    """
    owner = torch.arange(len(places.count), device=places.count.device).repeat_interleave(places.count)
    begin = (places.count.cumsum(0) - places.count)[owner]
    j = torch.arange(len(owner), device=owner.device) - begin
    rank = places.wrong_above + j
    before = torch.where(rank > 0, j / rank.clamp(min=0.5), 1.0)  # ranks are whole or half
    part = (before + (j + 1) / (rank + 1)) / 2
    return torch.zeros(len(places.count), device=part.device).index_add(0, owner, part) / places.count


def retrieval_measures(
    query: Tensor,
    gallery: Tensor,
    positives: Tensor,
    *,
    semi_positives: Tensor | None = None,
    ks: Sequence[int] = (1, 5, 10),
    optimistic: bool = False,
    device: torch.device | str | None = None,
) -> dict[str, float]:
    """Every measure of a search, averaged over the queries that have a right item; all in percent but the last two.

    Args:
        query: (Q, D) embeddings.
        gallery: (R, D) embeddings.
        positives: (P, 2) int64 rows of (query, gallery), the right items.
        semi_positives: (S, 2) int64, VIGOR's tiles that show the place off centre.
        ks: of the recalls, each 1 to R.
        optimistic: count ties in favour, as in published code.
        device: where to compute; the queries' by default.

    Returns:
        r_at_<k>: a right item among the first k, semi-positives counting as wrong (VIGOR's published protocol).
        r_at_1_percent: the same for k = max(1, floor(R / 100)).
        hit_rate: the first is right once semi-positives are masked out (VIGOR); only with semi_positives.
        ap: mean of `average_precision`.
        queries, left_out: how many queries were measured, and how many were not for want of a right item.

    Raises:
        InputError: as `places_of`; a k below 1 or above R.
    """
    for k in ks:
        check_k(k, len(gallery), "gallery images")
    places = places_of(query, gallery, positives, semi_positives=semi_positives, optimistic=optimistic, device=device)
    measures = recall_at(places.first, ks)
    measures["r_at_1_percent"] = _percent(places.first < places.one_percent)
    if places.unmasked_above is not None:
        measures["hit_rate"] = _percent(places.unmasked_above < 1)
    measures["ap"] = 100 * float(average_precision(places).mean())
    return measures | {"queries": len(places.query), "left_out": places.queries - len(places.query)}


def _percent(hit: Tensor) -> float:
    return 100 * float(hit.float().mean())


def _rows(query: Tensor, gallery: Tensor, asked: Tensor, device: torch.device) -> Iterator[tuple[slice, Tensor]]:
    """Slices of `asked`, queries, and their (rows, R) similarities to the whole gallery; to be changed at will."""
    dtype = product_dtype(query, gallery)
    whole = len(asked) * len(gallery) * dtype.itemsize
    held = min(CHUNK_BYTES, max(LEAST_BYTES, whole // PARTS))
    there = gallery.device == device and gallery.dtype == dtype
    step = max(1, held * (1 if there else STREAMED) // (dtype.itemsize * max(1, len(gallery))))
    width = max(1, held // (4 * dtype.itemsize * max(1, gallery.shape[1])))  # items of the gallery moved together
    for begin in range(0, len(asked), step):
        some = query[asked[begin : begin + step].to(query.device)].to(device, dtype)
        if there:
            block = some @ gallery.T
        else:
            block = torch.empty(len(some), len(gallery), dtype=dtype, device=device)
            for left in range(0, len(gallery), width):
                block[:, left : left + width] = some @ gallery[left : left + width].to(device, dtype).T
        yield slice(begin, begin + len(some)), block


def _pairs(name: str, pairs: Tensor, query: Tensor, gallery: Tensor, device: torch.device) -> Tensor:
    """The (P, 2) rows sorted, each once, on the device; checked."""
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype != torch.int64:
        raise InputError(
            name, expected="int64 (P, 2), rows of (query index, gallery index)",
            found=f"{pairs.dtype} {tuple(pairs.shape)}", todo="Give one row for each right item of each query.",
        )  # fmt: skip
    for column, (what, items) in enumerate((("query", query), ("gallery", gallery))):
        index = pairs[:, column]
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(items):
            raise InputError(
                name, expected=f"{what} indices from 0 to {len(items) - 1}",
                found=f"{int(index.min())} to {int(index.max())}", todo="Check that the pairs are of these embeddings.",
            )  # fmt: skip
    return pairs.to(device).unique(dim=0)


def _within(ascending: Tensor, first: int, last: int) -> slice:
    """Where an ascending list has the values from `first` to before `last`."""
    ends = torch.searchsorted(ascending, torch.tensor([first, last], device=ascending.device)).tolist()
    return slice(*ends)


def _semi_of(semi: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Rows within `queries` (ascending) and columns of those semi-positives that belong to any of them."""
    part = semi[_within(semi[:, 0].contiguous(), int(queries[0]), int(queries[-1]) + 1)]
    row = torch.searchsorted(queries, part[:, 0].contiguous())
    asked = queries[row] == part[:, 0]
    return row[asked], part[asked, 1]


def _count_above(block: Tensor, own: Tensor, count: Tensor, optimistic: bool) -> Tensor:
    """How many of a row's items exceed each of its own, equals by half: (rows, R), (P,) row by row -> float32 (P,)."""
    more, most = _count_sorted(block, own, count) if int(count.max()) > SORT_FROM else _count_passes(block, own, count)
    return more.float() if optimistic else (more + most) / 2


def _count_passes(block: Tensor, own: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """How many exceed each of a row's own items, and how many are not below it, (P,) each, by one pass for each."""
    begin = count.cumsum(0) - count
    out = torch.zeros(2, len(own), dtype=torch.int32, device=own.device)
    width = block.shape[1]
    step = max(1, CELLS // max(1, width))
    # comparing into floating point numbers, which a processor adds up faster than truth values; exact to 2**24
    dtype = torch.float32 if width <= 1 << 24 else torch.float64
    hit = torch.empty(min(len(block), step), width, dtype=dtype, device=own.device)
    for j in range(int(count.max())):
        having = (count > j).nonzero()[:, 0]
        for first in range(0, len(having), step):
            rows = having[first : first + step]
            at = begin[rows] + j
            part = block[first : first + step] if len(having) == len(block) else block[rows]
            for counted, compare in zip(out, (torch.gt, torch.ge), strict=True):
                counted[at] = compare(part, own[at][:, None], out=hit[: len(rows)]).sum(1).int()
    return out[0], out[1]


def _count_sorted(block: Tensor, own: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """The same, by sorting the rows."""
    begin = count.cumsum(0) - count
    row = torch.arange(len(block), device=own.device).repeat_interleave(count)
    slot = torch.arange(len(own), device=own.device) - begin[row]
    padded = own.new_zeros(len(block), int(count.max()))
    padded[row, slot] = own
    ascending, width = block.sort(dim=1).values, block.shape[1]
    return tuple((width - torch.searchsorted(ascending, padded, right=right))[row, slot] for right in (True, False))
