"""Ranks and recall of a search by cosine or dot product, streamed: no query x gallery matrix is ever held.

Ties count honestly: an item's rank is the mean of its best and its worst place among equals. Published code counts the
best, which rewards a collapsed embedding; see papers.md of Sample4Geo's metric, 'rank = strictly greater similarities'.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ucvgl.errors import InputError

CHUNK_BYTES = 64 << 20  # of similarities held at a time


def ranks_of(query: Tensor, gallery: Tensor, positive: Tensor) -> Tensor:
    """Rank of each query's positive in the gallery, from 0; float32 (Q,), halves where ties are.

    Args:
        query: (Q, D) embeddings.
        gallery: (R, D) embeddings.
        positive: (Q,) integer indices into the gallery.

    Raises:
        InputError: embeddings of different width or with NaN, indices outside the gallery.
    """
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        raise InputError(
            "embeddings", expected="query (Q, D) and gallery (R, D)", found=f"{tuple(query.shape)}, {tuple(gallery.shape)}",
            todo="Embed both with models of one width.",
        )  # fmt: skip
    if not (torch.isfinite(query).all() and torch.isfinite(gallery).all()):
        raise InputError(
            "embeddings", expected="finite numbers", found="NaN or infinity", todo="Look for a diverged model."
        )
    if len(positive) != len(query) or (
        len(positive) and not 0 <= int(positive.min()) <= int(positive.max()) < len(gallery)
    ):
        raise InputError(
            "positive", expected=f"{len(query)} indices below {len(gallery)}", found=f"{len(positive)} indices",
            todo="Give one gallery index per query.",
        )  # fmt: skip
    rows = max(1, CHUNK_BYTES // (query.element_size() * max(1, len(gallery))))
    out = []
    for first in range(0, len(query), rows):
        similarity = query[first : first + rows] @ gallery.T  # (rows, R)
        own = similarity.gather(1, positive[first : first + rows, None])
        better, equal = (similarity > own).sum(1), (similarity == own).sum(1) - 1
        out.append(better + equal / 2)
    return torch.cat(out) if out else torch.zeros(0)


def recall_at(ranks: Tensor, k: Sequence[int]) -> dict[str, float]:
    """Share of queries whose positive is among the first k, in percent, as {'r_at_1': ..., ...}."""
    return {f"r_at_{n}": 100 * float((ranks < n).float().mean()) for n in k}


def chance_at(gallery: int, k: Sequence[int]) -> dict[str, float]:
    """What guessing gives: k of `gallery`, in percent."""
    return {f"r_at_{n}": 100 * min(1.0, n / gallery) for n in k}
