"""Re-scored neighbours for pseudo-labels: ours, not in the paper, whose 'fast re-ranking' is `pseudolabels.select` on cosines.

Nearest neighbours in many dimensions have hubs: a few images near to everything, which take the labels of others. Three
known remedies, each giving the lists of `search.both_ways` with other scores, for `pseudolabels.select` and `.quality`.
None needs labels, none holds N x M numbers. The first two correct each image's score by a number of its own, which an
inner product does by itself if every embedding gets a column or two more: [2x, -r(x), 1] . [y, 1, -r(y)]. So they run
through the same search. Embeddings should be of unit length and in float32 or better.
"""

import math

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ucvgl.errors import InputError
from ucvgl.search import CHUNK_BYTES, BothWays, blocks, both_ways, check_embeddings, check_k, order_of, top_k


@torch.no_grad()
def csls_neighbours(
    ground: Tensor, satellite: Tensor, k_ground: int = 5, k_satellite: int = 5, *, k: int = 10,
    chunk_bytes: int = CHUNK_BYTES,
) -> BothWays:  # fmt: skip
    """Neighbours by cross-domain similarity local scaling, CSLS (Conneau et al. 2018, section 2.3).

    The score is 2 cos(x, y) - r(x) - r(y), r an image's mean cosine with its k nearest of the other view: an image near
    to everything loses. Margins are on twice the scale of the cosine's.

    Args:
        ground: (N, D) embeddings.
        satellite: (M, D) embeddings.
        k_ground: satellite images for each ground image, 1 to M.
        k_satellite: ground images for each satellite image, 1 to N.
        k: neighbours in the local scale, or all images where there are fewer; Conneau et al.: 10.
        chunk_bytes: most bytes of similarities in a block.

    Raises:
        InputError: as `search.top_k`; k below 1.
    """
    _check(ground, satellite, k_ground, k_satellite)
    _check_k("k", k)
    near = both_ways(ground, satellite, min(k, len(satellite)), min(k, len(ground)), chunk_bytes=chunk_bytes)
    of_ground, of_satellite = near.ground_score.mean(1), near.satellite_score.mean(1)
    x = _widened(2 * ground, -of_ground, torch.ones_like(of_ground))
    y = _widened(satellite, torch.ones_like(of_satellite), -of_satellite)
    return both_ways(x, y, k_ground, k_satellite, chunk_bytes=chunk_bytes)


@torch.no_grad()
def inverted_softmax_neighbours(
    ground: Tensor, satellite: Tensor, k_ground: int = 5, k_satellite: int = 5, *, temperature: float = 0.07,
    chunk_bytes: int = CHUNK_BYTES,
) -> BothWays:  # fmt: skip
    """Neighbours by the inverted softmax (Smith et al. 2017, section 2.3): normalised over the queries, not the gallery.

    The score of gallery image y for query x is cos(x, y) - T log mean exp(cos(x', y) / T), the mean over all queries x':
    T times the logarithm of the published probability (but for a constant), so margins keep the cosine's scale. Queries
    are ground images in one direction and satellite images in the other: a pair has two scores.

    Args:
        ground: (N, D) embeddings.
        satellite: (M, D) embeddings.
        k_ground: satellite images for each ground image, 1 to M.
        k_satellite: ground images for each satellite image, 1 to N.
        temperature: T; Smith et al. learn it, here it is where UCVGL's loss begins.
        chunk_bytes: most bytes of similarities in a block.

    Raises:
        InputError: as `search.top_k`; a temperature that is not above 0.
    """
    _check(ground, satellite, k_ground, k_satellite)
    if not (temperature > 0 and math.isfinite(temperature)):
        raise InputError("temperature", expected="above 0", found=temperature, todo="Give a cosine, such as 0.07.")
    of_ground, of_satellite = (x.new_full((len(x),), -torch.inf) for x in (ground, satellite))
    for rows, columns, product in blocks(ground, satellite, chunk_bytes):
        product = product.div_(temperature)
        of_ground[rows] = torch.logaddexp(of_ground[rows], product.logsumexp(1))
        of_satellite[columns] = torch.logaddexp(of_satellite[columns], product.logsumexp(0))
    of_ground = temperature * (of_ground - math.log(len(satellite)))
    of_satellite = temperature * (of_satellite - math.log(len(ground)))
    # (x, 1) . (y, -of_y), and the same with the roles exchanged
    x, y = (_widened(e, torch.ones_like(e[:, 0])) for e in (ground, satellite))
    to_satellite = top_k(x, _widened(satellite, -of_satellite), k_ground, chunk_bytes=chunk_bytes)
    to_ground = top_k(y, _widened(ground, -of_ground), k_satellite, chunk_bytes=chunk_bytes)
    return BothWays(*to_satellite, *to_ground)


@torch.no_grad()
def k_reciprocal_neighbours(
    ground: Tensor, satellite: Tensor, k_ground: int = 5, k_satellite: int = 5, *, k: int = 20, expansion: int = 6,
    weight: float = 0.3, chunk_bytes: int = CHUNK_BYTES,
) -> BothWays:  # fmt: skip
    """Neighbours by k-reciprocal re-ranking (Zhong et al. 2017): who shares an image's neighbours is near to it.

    Over the union of both views: image p's neighbourhood is itself and its k nearest; its reciprocal set R(p) those of it that
    have p in theirs, extended by the half-size sets that overlap it by two thirds (equation 5); V(p) weighs the set by
    exp(cos - 1) (equation 7) and is averaged over p's `expansion` nearest and itself (equation 11). The score of a pair is
    (1 - weight) * sum of min(V) / sum of max(V) + weight * cosine: one minus the published distance (equation 12).
    Differs: p's k nearest are taken from each view, because all k of the union would be of p's own view where the views'
    embeddings lie apart, and no pair would share a neighbour. Only an image's first max(k, k_ground or k_satellite)
    by cosine are re-scored. Sparse throughout, O((N + M) k^2), on the CPU. It was made for several images of each identity;
    with one tile a place it can do worse than the cosine, so compare.

    Args:
        ground: (N, D) embeddings.
        satellite: (M, D) embeddings.
        k_ground: satellite images for each ground image, 1 to M.
        k_satellite: ground images for each satellite image, 1 to N.
        k: size of a neighbourhood in each view, or all images where there are fewer; Zhong et al.: 20.
        expansion: neighbours of each view averaged over, likewise; Zhong et al.: 6. 0 averages over nothing.
        weight: of the cosine in the score, 0 to 1; Zhong et al.: 0.3.
        chunk_bytes: most bytes of similarities in a block.

    Raises:
        InputError: as `search.top_k`; k below 1, an expansion above k or a weight outside 0..1.
    """
    _check(ground, satellite, k_ground, k_satellite)
    _check_k("k", k)
    if not 0 <= expansion <= k:
        raise InputError("expansion", expected=f"0 to k = {k}", found=expansion, todo="Average over fewer neighbours.")
    if not 0 <= weight <= 1:
        raise InputError("weight", expected="0 to 1", found=weight, todo="Give a part.")
    n, m = len(ground), len(satellite)
    both = both_ways(
        ground, satellite, min(max(k, k_ground), m), min(max(k, k_satellite), n), chunk_bytes=chunk_bytes
    )  # fmt: skip
    _, own_ground = top_k(ground, ground, min(k, n), chunk_bytes=chunk_bytes)
    _, own_satellite = top_k(satellite, satellite, min(k, m), chunk_bytes=chunk_bytes)

    def nearest(count: int) -> sparse.csr_array:
        """(N + M, N + M), 1 where the column is among the row's first `count` of either view, or the row itself."""
        lists = (
            (own_ground, 0, 0), (both.ground_index, 0, n), (both.satellite_index, n, 0), (own_satellite, n, n)
        )  # fmt: skip
        return _incidence([(i[:, :count].cpu().numpy(), row, column) for i, row, column in lists], n + m)

    features = torch.cat([ground, satellite]).float().cpu()
    sets = _reciprocal_sets(nearest(k), nearest(round(k / 2)))
    vectors = _weighed(sets, features, chunk_bytes)
    if expansion:
        near = nearest(expansion)
        vectors = sparse.csr_array(sparse.diags_array(1 / near.sum(1)) @ near @ vectors)

    def rescored(score: Tensor, index: Tensor, count: int, first: int, other: int) -> tuple[Tensor, Tensor]:
        rows = np.repeat(np.arange(len(index)), index.shape[1]) + first
        shared = _jaccard(vectors, rows, index.cpu().numpy().ravel() + other)
        new = (1 - weight) * torch.from_numpy(shared).to(score).view_as(score) + weight * score
        by_index = index.argsort(dim=1)  # so that the lower index comes first among equals
        new, index = new.gather(1, by_index), index.gather(1, by_index)
        order = order_of(new)[:, :count]
        return new.gather(1, order), index.gather(1, order)

    return BothWays(
        *rescored(both.ground_score, both.ground_index, k_ground, 0, n),
        *rescored(both.satellite_score, both.satellite_index, k_satellite, n, 0),
    )


_ROWS = 2048  # images, or 32 times as many pairs, looked at together


def _incidence(lists: list[tuple[np.ndarray, int, int]], size: int) -> sparse.csr_array:
    """(size, size) of 0 and 1 from neighbour lists with the offsets of their rows and columns, and the diagonal."""
    rows = [np.arange(size)] + [np.repeat(np.arange(len(i)), i.shape[1]) + row for i, row, _ in lists]
    columns = [np.arange(size)] + [i.ravel() + column for i, _, column in lists]
    r, c = np.concatenate(rows), np.concatenate(columns)
    matrix = sparse.csr_array((np.ones(len(r), np.float32), (r, c)), shape=(size, size))
    matrix.data[:] = 1  # an image may be in its own list too
    return matrix


def _reciprocal_sets(nearest: sparse.csr_array, nearest_half: sparse.csr_array) -> sparse.csr_array:
    """R*(p) as rows of 0 and 1: reciprocal neighbours, and the half-size sets of those that overlap by two thirds."""
    reciprocal, half = (sparse.csr_array(near.multiply(near.T)) for near in (nearest, nearest_half))
    sizes = half.sum(1)
    out = []
    for start in range(0, reciprocal.shape[0], _ROWS):
        own = reciprocal[start : start + _ROWS]
        overlap = sparse.coo_array((own @ half.T).multiply(own))  # |R(p) and R_half(q)| for q in R(p)
        joins = overlap.data * 3 >= 2 * sizes[overlap.col]  # whole numbers: exact
        chosen = (np.ones(int(joins.sum()), np.float32), (overlap.row[joins], overlap.col[joins]))
        rows = sparse.csr_array(own + sparse.csr_array(chosen, shape=own.shape) @ half)
        rows.data[:] = 1
        out.append(rows)
    return sparse.csr_array(sparse.vstack(out, format="csr"))


def _weighed(sets: sparse.csr_array, features: Tensor, chunk_bytes: int) -> sparse.csr_array:
    """The same entries with exp(cosine - 1) in the place of 1."""
    entries = sparse.coo_array(sets)
    step = max(1, chunk_bytes // (features.element_size() * features.shape[1]))  # entries at a time
    weights = np.empty(len(entries.data))
    for start in range(0, len(weights), step):
        part = slice(start, start + step)
        row, column = (torch.from_numpy(i[part].astype(np.int64)) for i in (entries.row, entries.col))
        weights[part] = (features[row] * features[column]).sum(1).sub(1).exp().double().numpy()
    return sparse.csr_array((weights, (entries.row, entries.col)), shape=sets.shape)


def _jaccard(vectors: sparse.csr_array, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Sum of minima over sum of maxima of the rows `first` and `second`, a number a pair; float64 (P,)."""
    sums = vectors.sum(1)
    out = np.empty(len(first))
    for start in range(0, len(first), 32 * _ROWS):
        part = slice(start, start + 32 * _ROWS)
        shared = vectors[first[part]].minimum(vectors[second[part]]).sum(1)
        out[part] = shared / (sums[first[part]] + sums[second[part]] - shared)
    return out


def _widened(embeddings: Tensor, *columns: Tensor) -> Tensor:
    return torch.cat([embeddings, *(column[:, None] for column in columns)], 1)


def _check(ground: Tensor, satellite: Tensor, k_ground: int, k_satellite: int) -> None:
    check_embeddings(ground, satellite)
    check_k(k_ground, len(satellite), "satellite images")
    check_k(k_satellite, len(ground), "ground images")


def _check_k(name: str, k: int) -> None:
    if k < 1:
        raise InputError(name, expected="1 or more", found=k, todo="Give a number of neighbours.")
