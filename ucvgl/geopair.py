"""GeoPair: training pairs for place recognition from positions, and the negatives of the triplet baseline.

A query's positive is the image within 10 m that looks most alike to the encoder as it is, mined again every epoch; images
beyond 25 m are negatives; what lies between is neither. 'Random' is the pairs alone. 'Partial' adds, for each query, the
hardest of a random part of the database, as a pair of its own: two augmented views of it.

Source: VG-SSL (Xiao, Zhu, Loianno; WACV 2025), section 3; mining as in NetVLAD (Arandjelovic et al.; CVPR 2016). Ours:
places within 25 m of each other are no negatives of each other in a batch either; the published code lets them be.
"""

import torch
from torch import Generator, Tensor

from ucvgl.errors import InputError
from ucvgl.search import check_embeddings

POSITIVE_M, NEGATIVE_M = 10.0, 25.0  # VG-SSL, and the place-recognition benchmarks before it
CHUNK = 1024  # queries compared at a time


def best_positives(query: Tensor, database: Tensor, pairs: Tensor) -> Tensor:
    """The most similar of each query's positives; of equals the one named first.

    Args:
        query: (Q, D) embeddings.
        database: (M, D) embeddings.
        pairs: (P, 2) int64 rows of (query, database image): the images within 10 m, any number a query.

    Returns:
        int64 (Q,), -1 for a query without any.

    Raises:
        InputError: embeddings that do not fit, or indices outside of them.
    """
    check_embeddings(query, database)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype != torch.int64:
        raise InputError(
            "pairs", expected="int64 (P, 2), rows of (query, database image)", found=f"{pairs.dtype} {tuple(pairs.shape)}",
            todo="Give a row for each image near a query.",
        )  # fmt: skip
    for column, images in enumerate((query, database)):
        if len(pairs) and not 0 <= int(pairs[:, column].min()) <= int(pairs[:, column].max()) < len(images):
            raise InputError(
                "pairs", expected=f"indices from 0 to {len(images) - 1} in column {column}",
                found=f"{int(pairs[:, column].min())} to {int(pairs[:, column].max())}", todo="Check the pairs.",
            )  # fmt: skip
    score = torch.cat(
        [(query[p[:, 0]] * database[p[:, 1]]).sum(1) for p in pairs.split(64 * CHUNK)] or [query.new_zeros(0)]
    )
    # by query, then the highest score first; stable, so that of equals the first named stays first
    order = score.argsort(descending=True, stable=True)
    order = order[pairs[order, 0].argsort(stable=True)]
    asked, counts = pairs[order, 0].unique_consecutive(return_counts=True)
    first = counts.cumsum(0) - counts
    best = torch.full((len(query),), -1, dtype=torch.int64)
    best[asked] = pairs[order[first], 1]
    return best


def hardest_negatives(
    query: Tensor, pool: Tensor, query_m: Tensor, pool_m: Tensor, k: int, *, radius_m: float = NEGATIVE_M
) -> Tensor:
    """The k most similar images of a pool that lie more than `radius_m` away; streamed over the queries.

    Args:
        query: (Q, D) embeddings.
        pool: (R, D) embeddings: the whole database ('full' mining), or a random part of it ('partial').
        query_m: (Q, 2) metres east and north.
        pool_m: (R, 2), in the same frame.
        k: negatives of each query.
        radius_m: how far a negative is at least; 25 m.

    Returns:
        int64 (Q, k) indices into the pool, the hardest first; -1 where there are fewer.

    Raises:
        InputError: embeddings or positions that do not fit, or k below 1.
    """
    check_embeddings(query, pool)
    if k < 1:
        raise InputError("k", expected="1 or more negatives", found=k, todo="Ask for at least one.")
    out = torch.full((len(query), k), -1, dtype=torch.int64)
    for start in range(0, len(query), CHUNK):
        rows = slice(start, start + CHUNK)
        near = near_mask(query_m[rows], pool_m, radius_m)
        score = (query[rows] @ pool.T).masked_fill(near, -torch.inf)
        found, index = score.topk(min(k, len(pool)), dim=1)
        out[rows, : index.shape[1]] = index.masked_fill(found == -torch.inf, -1)
    return out


def random_negatives(
    query_m: Tensor, database_m: Tensor, k: int, generator: Generator, *, radius_m: float = NEGATIVE_M
) -> Tensor:
    """k random images of the database that lie more than `radius_m` from each query; int64 (Q, k), -1 where there are fewer.

    For each query distinct. Args as `hardest_negatives`.
    """
    out = torch.full((len(query_m), k), -1, dtype=torch.int64)
    for start in range(0, len(query_m), CHUNK):
        rows = slice(start, start + CHUNK)
        near = near_mask(query_m[rows], database_m, radius_m)
        score = torch.rand(near.shape, generator=generator).masked_fill(near, -1.0)
        found, index = score.topk(min(k, len(database_m)), dim=1)
        out[rows, : index.shape[1]] = index.masked_fill(found < 0, -1)
    return out


def near_mask(first_m: Tensor, second_m: Tensor, radius_m: float = NEGATIVE_M) -> Tensor:
    """Which places lie within `radius_m` of each other: (A, 2) and (B, 2) metres -> bool (A, B).

    Raises:
        InputError: positions of another shape.
    """
    for places in (first_m, second_m):
        if places.ndim != 2 or places.shape[1] != 2:
            raise InputError(
                "positions", expected="metres east and north (N, 2)", found=tuple(places.shape), todo="Give both."
            )
    # differences, not a matrix product: that would lose metres at coordinates of a million
    return (first_m[:, None].double() - second_m[None].double()).square().sum(2) <= radius_m**2
