"""The losses of self-supervised learning between two views of one place, the triplet loss, and a measure of collapse.

VG-SSL (Xiao, Zhu, Loianno; WACV 2025) trains with them on pairs given by positions; each is as in its own paper. Row i
of every tensor belongs to item i; losses that compare directions normalise; all is computed in float32 at least.
Differs: places too near to be negatives can be left out of NT-Xent and MoCo."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def nt_xent(z1: Tensor, z2: Tensor, temperature: float, not_negative: Tensor | None = None) -> Tensor:
    """NT-Xent of two views (B, D): the cross-entropy that picks, among 2B - 1 views by cosine, the other view of an item.

    -log( exp(s_ip / T) / sum over k != i of exp(s_ik / T) ), p being the other view of i; the mean over the 2B views.
    VG-SSL's temperature is 0.07. not_negative: (B, B) bool, items that are no negatives of each other, as places within
    25 m, in all combinations of their views. Source: SimCLR (Chen, Kornblith, Norouzi, Hinton; ICML 2020), equation 1."""
    views = F.normalize(torch.cat((_wide(z1), _wide(z2))), dim=1)  # (2B, D)
    each = torch.arange(len(views), device=views.device)
    positive = each.roll(len(z1))
    left_out = each[:, None] == each  # (2B, 2B): a view is not compared with itself
    if not_negative is not None:
        near = (not_negative | not_negative.T).repeat(2, 2)
        left_out = left_out | (near & (positive[:, None] != each))
    logits = _product(views, views.T) / temperature
    return F.cross_entropy(logits.masked_fill(left_out, -torch.inf), positive)


def moco(query: Tensor, key: Tensor, queue: Tensor, temperature: float, not_negative: Tensor | None = None) -> Tensor:
    """InfoNCE of each query against its own key and the K keys of a queue, by cosine; only the query gets a gradient.

    -log( exp(q k / T) / (exp(q k / T) + sum over the queue of exp(q n / T)) ), the mean over the queries (B, D). key:
    (B, D), of the momentum encoder, which saw the other view; queue: (K, D), keys of earlier batches, of unit length;
    VG-SSL's temperature is 0.07. not_negative: (B, K) bool, what is no negative of a query: places within 25 m, entries
    not yet filled; without any negative it is 0. Source: MoCo (He, Fan, Wu, Xie, Girshick; CVPR 2020), equation 1."""
    query, key = F.normalize(_wide(query), dim=1), F.normalize(_wide(key.detach()), dim=1)
    query = query / temperature  # here and not in the product, which is (B, K)
    own = (query * key).sum(1)  # (B,)
    others = _product(query, queue.detach().to(query.dtype).T)  # (B, K)
    if not_negative is not None:
        others = others.masked_fill(not_negative, -torch.inf)
    return (torch.logaddexp(own, others.logsumexp(1)) - own).mean()  # no copy of (B, K) with the own key in front


def triplet(
    query: Tensor, positive: Tensor, negatives: Tensor, margin: float = 0.1, *, present: Tensor | None = None
) -> Tensor:
    """max(0, d(query, positive) + margin - d(query, negative)), the mean over all negatives that are there.

    query and positive (B, D), negatives (B, K, D), of unit length. Distances are Euclidean, as in the benchmark of Berton et
    al. (CVPR 2022), VG-SSL's baseline; NetVLAD (Arandjelovic et al.; CVPR 2016, equation 7) squares them and sums.
    present: (B, K) bool, False where a query has no such negative; without any the loss is 0."""
    query, positive, negatives = _wide(query), _wide(positive), _wide(negatives)
    near = torch.linalg.vector_norm(query - positive, dim=-1)[:, None]  # (B, 1)
    far = torch.linalg.vector_norm(query[:, None] - negatives, dim=-1)  # (B, K)
    losses = F.relu(near + margin - far)
    if present is None:
        return losses.mean()
    return torch.where(present, losses, 0.0).sum() / present.sum().clamp(min=1)


def negative_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """The mean of -cos(prediction, target), of (B, D) each; the target gets no gradient. SimSiam, equations 1 and 3."""
    prediction, target = F.normalize(_wide(prediction), dim=1), F.normalize(_wide(target.detach()), dim=1)
    return -(prediction * target).sum(1).mean()


def byol(prediction: Tensor, target: Tensor) -> Tensor:
    """The squared distance of unit vectors, 2 - 2 cos(prediction, target), (B, D) each, the mean over the items.

    BYOL (Grill et al.; NeurIPS 2020, equation 2) is byol(p1, t2) + byol(p2, t1), p1 predicted by the online network
    from view 1, t2 projected by the momentum encoder from view 2; targets get no gradient."""
    return 2 + 2 * negative_cosine(prediction, target)


def simsiam(p1: Tensor, z2: Tensor, p2: Tensor, z1: Tensor) -> Tensor:
    """The mean of the negative cosines of both directions, (D(p1, z2) + D(p2, z1)) / 2; SimSiam (Chen, He; CVPR 2021), equation
    4. (B, D) each: p1 predicted and z1 projected from view 1, p2 and z2 from view 2; z1, z2 get no gradient."""
    return (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2


def barlow_twins(z1: Tensor, z2: Tensor, lambda_: float = 0.0051) -> Tensor:
    """The sum of (1 - C_ii)^2 and lambda (0.0051, as VG-SSL's) times the sum of C_ij^2, i != j, C being the cross-correlation
    of two views (B, D), B at least 2. Barlow Twins (Zbontar, Jing, Misra, LeCun, Deny; ICML 2021), equation 1."""
    correlation = cross_correlation(z1, z2)
    return (1 - correlation.diagonal()).square().sum() + lambda_ * off_diagonal_squares(correlation)


def cross_correlation(z1: Tensor, z2: Tensor, eps: float = 1e-5) -> Tensor:
    """The correlation over the batch of each dimension of z1 (rows) with each of z2 (columns), (D, D). Barlow Twins, equation 2.

    Each dimension is brought to mean 0 and divided by sqrt(variance + eps), the variance over B, as batch normalisation
    does in the authors' code; the equation has no eps. A constant dimension becomes 0 and costs 1 in the loss."""
    z1, z2 = (_wide(z) for z in (z1, z2))
    z1, z2 = (z - z.mean(0) for z in (z1, z2))
    z1, z2 = (z / (z.square().mean(0) + eps).sqrt() for z in (z1, z2))
    return _product(z1.T, z2) / len(z1)


def vicreg(z1: Tensor, z2: Tensor, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0) -> Tensor:
    """The weighted sum of `invariance_loss`, `variance_loss` (mean of the views) and `covariance_loss` (sum of the views).

    VICReg (Bardes, Ponce, LeCun; ICLR 2022), as in the authors' code and VG-SSL's; equation 6 adds the views' variance terms and
    does not divide the squared distance by D, which would be weights of 25 D, 50 and 1 here. (B, D) each, B at least 2, not
    to be normalised, or the deviations cannot reach 1."""
    spread = (variance_loss(z1) + variance_loss(z2)) / 2
    redundancy = covariance_loss(z1) + covariance_loss(z2)
    return invariance * invariance_loss(z1, z2) + variance * spread + covariance * redundancy


def invariance_loss(z1: Tensor, z2: Tensor) -> Tensor:
    """The mean over items and dimensions of (z1 - z2)^2, from (B, D) twice; VICReg, equation 5 divided by D."""
    return (_wide(z1) - _wide(z2)).square().mean()


def variance_loss(z: Tensor, least: float = 1.0, eps: float = 1e-4) -> Tensor:
    """The mean over the dimensions of (B, D) of max(0, least - sqrt(variance + eps)); VICReg, equations 1 and 2. The
    variance is over B - 1, `least` the standard deviation to reach; eps keeps the slope of a constant finite."""
    return F.relu(least - (_wide(z).var(0) + eps).sqrt()).mean()


def covariance_loss(z: Tensor) -> Tensor:
    """The sum of the squared covariances (over B - 1) of different dimensions of (B, D), over D; VICReg, equations 3, 4."""
    z = _wide(z)
    z = z - z.mean(0)
    covariance = _product(z.T, z) / (len(z) - 1)  # (D, D)
    return off_diagonal_squares(covariance) / z.shape[1]


def off_diagonal_squares(matrix: Tensor) -> Tensor:
    """(D, D) -> the sum of the squares of all but the diagonal; as a difference, which copies no (D, D)."""
    return matrix.square().sum() - matrix.diagonal().square().sum()


def embedding_std(z: Tensor) -> Tensor:
    """How well embeddings (B, D) are spread, 0 (all are one) to 1 (even on the sphere): the mean deviation of a dimension of
    the unit vectors, times sqrt(D). No gradient. SimSiam, section 4.1."""
    return F.normalize(_wide(z.detach()), dim=1).std(0, correction=0).mean() * math.sqrt(z.shape[1])


def is_collapsed(z: Tensor, threshold: float = 0.1) -> bool:
    """Whether `embedding_std` is below the threshold, or no number; at 0.1, ours, two random items have a cosine of 0.99."""
    return not float(embedding_std(z)) >= threshold


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in the type they have: under autocast it would be half precision, which cannot tell good matches apart."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b
