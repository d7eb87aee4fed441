"""Neighbours with corrected scores, for pseudo-labels. Ours: the paper's 'fast re-ranking' is `pseudo_labels.select` on cosines.

Nearest neighbours in many dimensions have hubs: a few images near to everything, which take the labels of others. Two known
remedies, without labels and without N x M numbers. Both correct an image's score by a number of its own, which an inner
product does by itself if every embedding gets a column or two more: [2x, -r(x), 1] . [y, 1, -r(y)]. Embeddings should be
of unit length and in float32 or better.
"""

import math

import torch
from torch import Tensor

from ucvgl.search import CHUNK_BYTES, BothWays, blocks, both_ways, top_k


@torch.no_grad()
def csls_neighbours(
    ground: Tensor, satellite: Tensor, k_ground: int = 5, k_satellite: int = 5, *, k: int = 10,
    chunk_bytes: int = CHUNK_BYTES,
) -> BothWays:  # fmt: skip
    """Neighbours by cross-domain similarity local scaling, CSLS (Conneau et al. 2018, section 2.3).

    The score is 2 cos(x, y) - r(x) - r(y), r an image's mean cosine with its k nearest of the other view: an image near
    to everything loses. Margins are on twice the scale of the cosine's.

    k is how many neighbours make the local scale (all images where there are fewer; Conneau et al.: 10); the other
    arguments are those of `search.both_ways`.
    """
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
    Smith et al. learn the temperature T; here it is where UCVGL's loss begins. Arguments as in `search.both_ways`.
    """
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


def _widened(embeddings: Tensor, *columns: Tensor) -> Tensor:
    return torch.cat([embeddings, *(column[:, None] for column in columns)], 1)
