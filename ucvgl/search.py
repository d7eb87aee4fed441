"""Nearest neighbours by inner product, streamed: the product of two sets is walked in blocks and never held whole.

Among equal similarities the lower index comes first, whatever the block size or the device. Equal means the same bits:
a matrix product may round a duplicate image differently in another block, so duplicates can differ in the last place.
Where these lists come from for pseudo-labels: UCVGL, section 3.4, whose code holds two dense N x N matrices instead.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor

from ucvgl.errors import InputError

CHUNK_BYTES = 64 << 20  # of similarities in a block; selecting from it takes about as much again


@dataclass(frozen=True, eq=False)
class BothWays:
    """The nearest satellite images of N ground images and the nearest ground images of M satellite images, best first.

    Args:
        ground_score: (N, k_ground) float, similarity of ground image i and satellite image `ground_index[i, j]`.
        ground_index: (N, k_ground) int64 satellite indices.
        satellite_score: (M, k_satellite) float.
        satellite_index: (M, k_satellite) int64 ground indices.
    """

    ground_score: Tensor
    ground_index: Tensor
    satellite_score: Tensor
    satellite_index: Tensor

    def swapped(self) -> "BothWays":
        """The same lists with the roles of ground and satellite exchanged."""
        return BothWays(self.satellite_score, self.satellite_index, self.ground_score, self.ground_index)


@torch.no_grad()
def top_k(query: Tensor, gallery: Tensor, k: int, *, chunk_bytes: int = CHUNK_BYTES) -> tuple[Tensor, Tensor]:
    """The k gallery items with the greatest inner product with each query, best first, ties by the lower index.

    Args:
        query: (Q, D) embeddings.
        gallery: (R, D) embeddings.
        k: how many, 1 to R.
        chunk_bytes: most bytes of similarities in a block.

    Returns:
        similarities (Q, k) and int64 gallery indices (Q, k).

    Raises:
        InputError: embeddings of different width or with NaN or infinity; k below 1 or above R.
    """
    check_embeddings(query, gallery)
    best = _empty(query, k, len(gallery), "gallery images")
    for rows, columns, product in blocks(query, gallery, chunk_bytes):
        _merge(best, rows, product, columns.start)
    return best


@torch.no_grad()
def both_ways(
    ground: Tensor, satellite: Tensor, k_ground: int, k_satellite: int, *, chunk_bytes: int = CHUNK_BYTES
) -> BothWays:
    """`top_k` of ground over satellite images and of satellite over ground images, from one pass over the product.

    Args:
        ground: (N, D) embeddings.
        satellite: (M, D) embeddings.
        k_ground: satellite images for each ground image, 1 to M.
        k_satellite: ground images for each satellite image, 1 to N.
        chunk_bytes: most bytes of similarities in a block.

    Raises:
        InputError: as `top_k`.
    """
    check_embeddings(ground, satellite)
    of_ground = _empty(ground, k_ground, len(satellite), "satellite images")
    of_satellite = _empty(satellite, k_satellite, len(ground), "ground images")
    for rows, columns, product in blocks(ground, satellite, chunk_bytes):
        _merge(of_ground, rows, product, columns.start)
        _merge(of_satellite, columns, product.T.contiguous(), rows.start)  # a copy: topk is slow on columns
    return BothWays(*of_ground, *of_satellite)


def blocks(query: Tensor, gallery: Tensor, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[slice, slice, Tensor]]:
    """Walk the product of (Q, D) and (R, D): query rows, gallery rows and their (rows, columns) inner products.

    Both slices ascend, the gallery's within the query's.
    """
    cells = max(1, chunk_bytes // query.element_size())
    # squares where neither side fits: as few and as large products as the bytes allow
    width = max(1, min(len(gallery), max(isqrt(cells), cells // max(1, len(query)))))
    height = max(1, cells // width)
    for top in range(0, len(query), height):
        rows = slice(top, min(top + height, len(query)))
        for left in range(0, len(gallery), width):
            columns = slice(left, min(left + width, len(gallery)))
            yield rows, columns, query[rows] @ gallery[columns].T


def check_embeddings(query: Tensor, gallery: Tensor) -> None:
    """Raises InputError unless these are finite (Q, D) and (R, D)."""
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        raise InputError(
            "embeddings", expected="two matrices of one width, (Q, D) and (R, D)",
            found=f"{tuple(query.shape)} and {tuple(gallery.shape)}", todo="Embed both with models of one width.",
        )  # fmt: skip
    for name, values in (("first", query), ("second", gallery)):
        wrong = (~torch.isfinite(values)).any(1)
        if wrong.any():
            raise InputError(
                f"embeddings, {name} set", expected="finite numbers",
                found=f"NaN or infinity in {int(wrong.sum())} of {len(wrong)} rows, first {int(wrong.int().argmax())}",
                todo="Look for a diverged model.",
            )  # fmt: skip


def check_k(k: int, count: int, what: str) -> None:
    """Raises InputError unless k neighbours can be had of `count` images."""
    if count == 0:
        raise InputError(what, expected="at least one", found="none", todo="Check what was embedded.")
    if not 1 <= k <= count:
        raise InputError("k", expected=f"1 to {count}, the number of {what}", found=k, todo="Ask for fewer neighbours.")


def order_of(score: Tensor) -> Tensor:
    """(Q, k) scores -> int64 (Q, k): the columns from the best to the worst, equals in the order they stand in."""
    return score.argsort(dim=1, descending=True, stable=True)


def _empty(query: Tensor, k: int, count: int, what: str) -> tuple[Tensor, Tensor]:
    check_k(k, count, what)
    shape = (len(query), k)
    return query.new_full(shape, -torch.inf), torch.zeros(shape, dtype=torch.int64, device=query.device)


def _merge(best: tuple[Tensor, Tensor], rows: slice, block: Tensor, first: int) -> None:
    """Bring a block (rows, columns), whose columns begin at index `first`, into the best of these rows, in place."""
    score, index = best[0][rows], best[1][rows]  # views
    k = score.shape[1]
    found = _select(block, min(k, block.shape[1]))
    # what was there has lower indices and stands first, so a stable sort keeps the lower index among equals
    candidates, where = torch.cat([score, block.gather(1, found)], 1), torch.cat([index, found + first], 1)
    order = order_of(candidates)[:, :k]
    score.copy_(candidates.gather(1, order))
    index.copy_(where.gather(1, order))


def _select(block: Tensor, k: int) -> Tensor:
    """The columns of each row's k greatest values, ascending; of equals at the edge, the lower ones. int64 (rows, k)."""
    width = block.shape[1]
    score, found = block.topk(min(k + 1, width), dim=1)
    if width > k:
        # topk promises no order among equals: where the k-th equals the next, choose again by index
        tied = (score[:, k] == score[:, k - 1]).nonzero()[:, 0]
        found = found[:, :k]
        if len(tied):
            some, edge = block[tied], score[tied, k - 1, None]
            places = torch.arange(width, dtype=torch.int32, device=block.device)
            key = torch.where(some > edge, width, torch.where(some == edge, -places, -width))
            found[tied] = key.topk(k, dim=1).indices
    return found.sort(dim=1).values
