"""Exact nearest neighbours by inner product, in blocks: the product of two sets is computed in parts, never held whole.

UCVGL, section 3.4, matches two views both ways; its code holds two dense N x N matrices. Among equal similarities (the
same bits) the lower index comes first. Sets and result lie on one device. Half precision is multiplied in float32."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ucvgl.errors import InputError

CHUNK_BYTES = 64 << 20  # of similarities in a block; selecting from it takes about as much again. A GPU wants 1 GiB
TALL = 256  # queries of a block in `top_k`: enough for a fast product; few, so that a row is seldom cut and merged

Lists = tuple[Tensor, Tensor]  # similarities (Q, k), best first, and int64 indices (Q, k)


@dataclass(frozen=True, eq=False)
class BothWays:
    """The nearest satellite images of N ground images and the nearest ground images of M satellite images, best first."""

    ground_score: Tensor  # (N, k_ground) float, similarity of ground image i and satellite image `ground_index[i, j]`
    ground_index: Tensor  # (N, k_ground) int64 satellite indices
    satellite_score: Tensor  # (M, k_satellite) float
    satellite_index: Tensor  # (M, k_satellite) int64 ground indices


@torch.no_grad()
def top_k(
    query: Tensor, gallery: Tensor, k: int, *, chunk_bytes: int = CHUNK_BYTES, engine: Literal["torch", "faiss"] = "torch"
) -> Lists:  # fmt: skip
    """The k gallery items with the greatest inner product with each query, best first, ties by the lower index.

    From (Q, D) and (R, D) embeddings and k, 1 to R: similarities and int64 gallery indices, (Q, k) each. InputError:
    NaN or infinity. A block has at most `chunk_bytes` of similarities. The engine 'faiss' (extra cpu or gpu) searches
    its flat index in float32; it rounds sums otherwise, so similarities within about 1e-6 may change places."""
    check_embeddings(query, gallery)
    if engine == "faiss":
        return _faiss_top_k(query, gallery, k)
    best = _empty(query, gallery, k)
    for rows, columns, product in blocks(query, gallery, chunk_bytes, tall=TALL):
        _merge(best, rows, product, columns.start)
    return best


@torch.no_grad()
def both_ways(
    ground: Tensor, satellite: Tensor, k_ground: int, k_satellite: int, *, chunk_bytes: int = CHUNK_BYTES
) -> BothWays:
    """`top_k` of ground (N, D) over satellite images (M, D), k_ground each, and the reverse, k_satellite, from one pass."""
    check_embeddings(ground, satellite)
    of_ground, of_satellite = _empty(ground, satellite, k_ground), _empty(satellite, ground, k_satellite)
    for rows, columns, product in blocks(ground, satellite, chunk_bytes):
        _merge(of_ground, rows, product, columns.start)
        _merge(of_satellite, columns, product.T, rows.start)
    return BothWays(*of_ground, *of_satellite)


def blocks(
    query: Tensor, gallery: Tensor, chunk_bytes: int = CHUNK_BYTES, *, tall: int | None = None
) -> Iterator[tuple[slice, slice, Tensor]]:
    """The product of (Q, D) and (R, D) in blocks, as large as the bytes allow: query rows, gallery rows, inner
    products. They are about square, or with `tall` about so many queries high; slices ascend."""
    dtype = product_dtype(query, gallery)
    query, gallery = query.to(dtype), gallery.to(dtype)
    cells = max(1, chunk_bytes // dtype.itemsize)
    height = max(1, min(len(query), tall or isqrt(cells), cells))
    width = max(1, min(len(gallery), cells // height))
    height = cells // width  # more where the gallery is narrow
    for top in range(0, len(query), height):
        rows = slice(top, min(top + height, len(query)))
        for left in range(0, len(gallery), width):
            columns = slice(left, min(left + width, len(gallery)))
            yield rows, columns, query[rows] @ gallery[columns].T


def product_dtype(query: Tensor, gallery: Tensor) -> torch.dtype:
    """The dtype of a product of these: theirs, or float32 where they are stored in half precision."""
    return torch.promote_types(torch.promote_types(query.dtype, gallery.dtype), torch.float32)


def check_embeddings(*sets: Tensor, where: str = "embeddings") -> None:
    """Raises InputError where (B, D) has NaN or infinity: nothing exceeds NaN, so it would rank first."""
    for values in sets:
        if not values.sum(dtype=product_dtype(values, values)).isfinite():  # far faster than a look at every number
            found = f"NaN or infinity in {int((~values.isfinite()).any(1).sum())} of {len(values)} rows"
            raise InputError(where, expected="finite numbers", found=found, todo="Look for NaN, or a diverged model.")


def _faiss_top_k(query: Tensor, gallery: Tensor, k: int) -> Lists:
    """`top_k` by faiss's flat index, on its GPUs for embeddings on one."""
    import faiss

    index = faiss.IndexFlatIP(gallery.shape[1])
    if gallery.is_cuda:
        index = faiss.index_cpu_to_all_gpus(index)
    index.add(np.ascontiguousarray(gallery.float().cpu()))
    # one more shows a tie at the edge, where faiss may keep the higher index
    found = index.search(np.ascontiguousarray(query.float().cpu()), min(k + 1, len(gallery)))
    score, place = _sorted(*(torch.from_numpy(e).to(query.device) for e in found))
    tied = (score[:, k - 1] == score[:, -1]).nonzero()[:, 0] if k < len(gallery) else []
    score, place = score[:, :k], place[:, :k]
    if len(tied):
        score[tied], place[tied] = top_k(query[tied].float(), gallery.float(), k)
    return score, place


def _empty(query: Tensor, gallery: Tensor, k: int) -> Lists:
    assert 1 <= k <= len(gallery), f"{k} neighbours of {len(gallery)} images"  # there would be made up ones
    score = query.new_full((len(query), k), -torch.inf, dtype=product_dtype(query, gallery))
    return score, torch.zeros_like(score, dtype=torch.int64)


def _merge(best: Lists, rows: slice, block: Tensor, first: int) -> None:
    """Bring a block (rows, columns), whose columns begin at index `first`, into the best of these rows, in place."""
    score, index = best[0][rows], best[1][rows]  # views
    k = score.shape[1]
    # what was there has lower indices, so only a greater similarity comes in: most rows of later blocks need no selection
    better = (block.amax(1) > score[:, -1]).nonzero()[:, 0]
    if not len(better):
        return
    if not block.is_contiguous():  # topk is slow on columns
        block = block.T.index_select(1, better).T.contiguous()
    elif len(better) < len(score):
        block = block.index_select(0, better)
    found = _select(block, min(k, block.shape[1]))
    scores = torch.cat([score[better], block.gather(1, found)], 1)
    scores, indices = _sorted(scores, torch.cat([index[better], found + first], 1))
    score[better], index[better] = scores[:, :k], indices[:, :k]


def _sorted(score: Tensor, index: Tensor) -> Lists:
    """Each row's scores and indices, the greatest score first and the lower index among equals."""
    index, order = index.sort(dim=1)
    score, order = score.gather(1, order).sort(dim=1, descending=True, stable=True)
    return score, index.gather(1, order)


def _select(block: Tensor, k: int) -> Tensor:
    """The columns of each row's k greatest values; of equals at the edge, the lower ones. int64 (rows, k) in any order."""
    width = block.shape[1]
    score, found = block.topk(min(k + 1, width), dim=1)  # which promises no order among equals
    tied = (score[:, k - 1] == score[:, -1]).nonzero()[:, 0] if width > k else []
    found = found[:, :k]
    if len(tied):
        some, edge = block[tied], score[tied, k - 1, None]
        places = torch.arange(width, dtype=torch.int32, device=block.device)
        key = torch.where(some > edge, width, torch.where(some == edge, -places, -width))
        found[tied] = key.topk(k, dim=1).indices
    return found
