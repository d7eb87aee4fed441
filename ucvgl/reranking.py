"""Other rules for pseudo-labels, without labels. Ours: the paper's 'fast re-ranking' is `pseudo_labels.select` on cosines.

Nearest neighbours in many dimensions have hubs, a few images near to everything, which take the labels of others. Three
known remedies correct an image's score by a number of its own, which an inner product does by itself if every embedding
gets a column or two more: [2x, -r(x), 1] . [y, 1, -r(y)]. Embeddings are of unit length, in float32 or better."""

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ucvgl.pseudo_labels import MiningRule, PseudoLabels, select
from ucvgl.search import BothWays, blocks, both_ways, top_k


@torch.no_grad()
def csls_neighbours(ground: Tensor, satellite: Tensor, k_ground: int, k_satellite: int, *, k: int = 10) -> BothWays:
    """Neighbours by cross-domain similarity local scaling, CSLS (Conneau et al. 2018, section 2.3).

    The score is 2 cos(x, y) - r(x) - r(y), r an image's mean cosine with its k nearest of the other view (10 there; all
    where there are fewer). Margins are on twice the scale of the cosine's. The other arguments: `search.both_ways`."""
    near = both_ways(ground, satellite, min(k, len(satellite)), min(k, len(ground)))
    of_ground, of_satellite = near.ground_score.mean(1), near.satellite_score.mean(1)
    return both_ways(_widened(2 * ground, -of_ground, 1), _widened(satellite, 1, -of_satellite), k_ground, k_satellite)


@torch.no_grad()
def inverted_softmax_neighbours(
    ground: Tensor, satellite: Tensor, k_ground: int, k_satellite: int, *, temperature: float = 0.07
) -> BothWays:
    """Neighbours by the inverted softmax (Smith et al. 2017, section 2.3): normalised over the queries, not the gallery.

    The score of gallery image y for query x is cos(x, y) - T log mean exp(cos(x', y) / T), the mean over all queries
    x': T times the logarithm of the published probability (but for a constant), so margins keep the cosine's scale. A
    pair has two scores, one a direction. Smith et al. learn the temperature T; here it is where UCVGL's loss begins."""
    of_ground = _log_mean_exp(ground, satellite, temperature)
    of_satellite = _log_mean_exp(satellite, ground, temperature)
    to_satellite = top_k(_widened(ground, 1), _widened(satellite, -of_satellite), k_ground)  # (x, 1) . (y, -of_y)
    to_ground = top_k(_widened(satellite, 1), _widened(ground, -of_ground), k_satellite)
    return BothWays(*to_satellite, *to_ground)


@torch.no_grad()
def sinkhorn_neighbours(
    ground: Tensor, satellite: Tensor, k_ground: int, k_satellite: int, *, temperature: float = 0.07, rounds: int = 10
) -> BothWays:
    """Neighbours by entropic optimal transport (Cuturi 2013): every image of either view has as much to give away as another.

    The score is cos(x, y) - u(x) - v(y): T times the logarithm of the transport plan, u and v found by so many rounds
    of scaling its rows and its columns; hubs get a high price. One round of columns alone is the inverted softmax."""
    v = satellite.new_zeros(len(satellite))
    for _ in range(rounds):
        u = _log_mean_exp(_widened(ground, 1), _widened(satellite, -v), temperature)
        v = _log_mean_exp(_widened(satellite, 1), _widened(ground, -u), temperature)
    return both_ways(_widened(ground, -u, 1), _widened(satellite, 1, -v), k_ground, k_satellite)


@torch.no_grad()
def agreeing(labels: PseudoLabels, ground: Tensor, satellite: Tensor, *, k: int = 10) -> PseudoLabels:
    """The labels that neighbours confirm, the others taken away (after UniABG, AAAI 2026, its graph-filtered labels).

    In each view's own graph two images are joined if each is among the other's k nearest. A label (i, j) stays if a ground
    image joined to i has a label whose tile is j or joined to j: neighbouring streets lie under neighbouring tiles."""

    def joined(x: Tensor) -> Tensor:
        near = top_k(x, x, min(k + 1, len(x)))[1]  # (N, k + 1), itself among them
        there = torch.zeros(len(x), len(x), dtype=torch.bool).scatter_(1, near, True)
        return there & there.T

    known = (labels.satellite >= 0).nonzero()[:, 0]
    tile = labels.satellite[known]
    streets = joined(ground)[known][:, known].fill_diagonal_(False)  # (L, L) between the labelled
    confirmed = (streets & joined(satellite)[tile][:, tile]).any(1)
    return replace(labels, satellite=labels.satellite.index_fill(0, known[~confirmed], -1))


@torch.no_grad()
def aligned(ground: Tensor, satellite: Tensor, *, width: int = 64, rounds: int = 10) -> tuple[Tensor, Tensor]:
    """Both views in one space without training (after VFM-Loc, 2026): a PCA for each view, then orthogonal Procrustes.

    (N, D) and (M, E) of any encoders -> (N, width) and (M, width) of unit length, with width at most each of N, M, D and E.
    The rotation that brings mutual matches together best, U V^T of their cross-covariance's singular vectors, gives better ones."""

    def principal(x: Tensor) -> Tensor:
        x = x - x.mean(0)
        axes = torch.linalg.svd(x, full_matrices=False)[2][:width]  # (width, D)
        axes = axes * (x @ axes.T).pow(3).mean(0).sign()[:, None]  # an axis points to its longer tail, in both views
        return F.normalize(x @ axes.T, dim=1)

    width = min(width, *ground.shape, *satellite.shape)
    ground, satellite = principal(ground), principal(satellite)
    for _ in range(rounds):
        tile = select(both_ways(ground, satellite, 2, 1), MiningRule(threshold=0.0)).satellite
        u, _, v = torch.linalg.svd(ground[tile >= 0].T @ satellite[tile[tile >= 0]])
        ground = ground @ (u @ v)
    return ground, satellite


def _widened(embeddings: Tensor, *columns: Tensor | float) -> Tensor:
    """(N, D) with columns more, of numbers (N,) or of one number."""
    new = (torch.as_tensor(column).to(embeddings).expand(len(embeddings)) for column in columns)
    return torch.column_stack([embeddings, *new])


def _log_mean_exp(ours: Tensor, other: Tensor, temperature: float) -> Tensor:
    """T log mean exp(x y / T) for each x of ours, (N, D), the mean over all y of the other view, (M, D); (N,)."""
    total = ours.new_full((len(ours),), -torch.inf)
    for rows, _, product in blocks(ours, other):
        total[rows] = torch.logaddexp(total[rows], (product / temperature).logsumexp(1))
    return temperature * (total - math.log(len(other)))
