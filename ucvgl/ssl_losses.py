"""The losses of self-supervised learning, between two views of the same place, and a measure of collapse.

VG-SSL (Xiao, Zhu, Loianno; WACV 2025) trains with them on pairs that positions give. Each is its own paper's: NT-Xent
(SimCLR), InfoNCE against a queue (MoCo), the negative cosine (BYOL, SimSiam), Barlow Twins, VICReg; and the triplet loss
that they are compared with. Differences: negatives that lie too near to be any can be left out of NT-Xent and MoCo; what
must get no gradient is detached in here.

Row i of every tensor belongs to item i. Everything is computed in float32 at least, under autocast too, and nothing looks
at values (that would make a GPU wait at every step), but for `is_collapsed`. Losses need not be given unit vectors: those
that compare directions normalise by themselves.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ucvgl.errors import InputError

# -------------------------------------------------------------------------------------------------------- contrastive


def nt_xent(z1: Tensor, z2: Tensor, temperature: float, not_negative: Tensor | None = None) -> Tensor:
    """NT-Xent: the cross-entropy that picks, among the other 2B - 1 views by cosine, the second view of the same item.

    -log( exp(s_ip / T) / sum over k != i of exp(s_ik / T) ), p being the other view of i; the mean over the 2B views.

    Source: SimCLR (Chen, Kornblith, Norouzi, Hinton; ICML 2020), equation 1.

    Args:
        z1: (B, D), one view of each item.
        z2: (B, D), the other.
        temperature: above 0; VG-SSL 0.07.
        not_negative: (B, B) bool, items that are no negatives of each other: places within 25 m, say. One mark of (i, j)
            or (j, i) is enough and holds for all four combinations of their views. The diagonal means nothing: an item's
            other view is its positive.

    Returns:
        a scalar, at least float32; 0 where every negative is left out.

    Raises:
        InputError: shapes that do not fit, or a temperature not above 0.
    """
    z1, z2 = _embeddings("nt_xent", z1, z2)
    _check_temperature("nt_xent", temperature)
    views = F.normalize(torch.cat((z1, z2)), dim=1)  # (2B, D)
    each = torch.arange(len(views), device=views.device)
    positive = each.roll(len(z1))
    left_out = each[:, None] == each  # (2B, 2B): a view is not compared with itself
    if not_negative is not None:
        _check_mask("nt_xent", not_negative, (len(z1), len(z1)))
        alike = (not_negative | not_negative.T).to(views.device).repeat(2, 2)
        left_out = left_out | (alike & (positive[:, None] != each))
    logits = _product(views, views.T) / temperature
    return F.cross_entropy(logits.masked_fill(left_out, -torch.inf), positive)


def moco(query: Tensor, key: Tensor, queue: Tensor, temperature: float, not_negative: Tensor | None = None) -> Tensor:
    """InfoNCE of each query against its own key and the K keys of a queue, by cosine; only the query gets a gradient.

    -log( exp(q k / T) / (exp(q k / T) + sum over the queue of exp(q n / T)) ), the mean over the queries.

    Source: MoCo (He, Fan, Wu, Xie, Girshick; CVPR 2020), equation 1.

    Args:
        query: (B, D), of the encoder that learns.
        key: (B, D), of the momentum encoder, which saw the other view.
        queue: (K, D), keys of earlier batches, as `ucvgl.heads.Queue` holds them: of unit length, which is not done
            again here.
        temperature: above 0; VG-SSL 0.07.
        not_negative: (B, K) bool, entries of the queue that are no negatives of a query: places within 25 m of it, and
            entries not yet filled.

    Returns:
        a scalar, at least float32; 0 where every entry is left out.

    Raises:
        InputError: shapes that do not fit, a queue of no entries, or a temperature not above 0.
    """
    query, key = _embeddings("moco", query, key)
    _check_temperature("moco", temperature)
    if queue.ndim != 2 or not len(queue) or queue.shape[1] != query.shape[1]:
        raise InputError(
            "moco: queue", expected=f"(K, {query.shape[1]}), K at least 1", found=tuple(queue.shape),
            todo="Build the queue with the width of the embeddings.",
        )  # fmt: skip
    query, key = F.normalize(query, dim=1), F.normalize(key.detach(), dim=1)
    query = query / temperature  # here and not in the product, which is (B, K)
    own = (query * key).sum(1)  # (B,)
    others = _product(query, queue.detach().to(query.dtype).T)  # (B, K)
    if not_negative is not None:
        _check_mask("moco", not_negative, (len(query), len(queue)))
        others = others.masked_fill(not_negative.to(query.device), -torch.inf)
    return (torch.logaddexp(own, others.logsumexp(1)) - own).mean()  # no copy of (B, K) with the own key in front


def triplet(
    query: Tensor,
    positive: Tensor,
    negatives: Tensor,
    margin: float = 0.1,
    *,
    present: Tensor | None = None,
    squared: bool = False,
) -> Tensor:
    """max(0, d(query, positive) + margin - d(query, negative)), the mean over all negatives that are there.

    Distances are Euclidean and plain, as in the benchmark of Berton et al. (CVPR 2022), which VG-SSL's baseline is
    taken from; NetVLAD (Arandjelovic et al.; CVPR 2016, equation 7) squares them and sums. Of unit vectors d is
    sqrt(2 - 2 cos). Not normalised here: give unit vectors.

    Args:
        query: (B, D), L2-normalised.
        positive: (B, D), L2-normalised.
        negatives: (B, K, D), L2-normalised; the benchmark has 10 each.
        margin: in units of the distance; 0.1.
        present: (B, K) bool, False where a query has no such negative; its numbers must be finite. None: all are there.
        squared: squared distances.

    Returns:
        a scalar, at least float32; 0 where no negative is there.

    Raises:
        InputError: shapes that do not fit, or a negative margin.
    """
    query, positive = _embeddings("triplet", query, positive)
    if negatives.ndim != 3 or negatives.shape[::2] != query.shape or not negatives.shape[1]:
        raise InputError(
            "triplet: negatives", expected=f"({len(query)}, K, {query.shape[1]}), K at least 1",
            found=tuple(negatives.shape), todo="Give each query K negatives; mark missing ones with `present`.",
        )  # fmt: skip
    if not margin >= 0:
        raise InputError("triplet: margin", expected="0 or more", found=margin, todo="VG-SSL's baseline has 0.1.")
    near = _distance(query, positive, squared)[:, None]  # (B, 1)
    far = _distance(query[:, None], _wide(negatives), squared)  # (B, K)
    losses = F.relu(near + margin - far)
    if present is None:
        return losses.mean()
    _check_mask("triplet", present, tuple(losses.shape), name="present")
    present = present.to(losses.device)
    return torch.where(present, losses, 0.0).sum() / present.sum().clamp(min=1)


def _distance(a: Tensor, b: Tensor, squared: bool) -> Tensor:
    """(..., D) and (..., D) -> (...). The slope of the plain distance is taken as 0 where two points are one."""
    return (a - b).square().sum(-1) if squared else torch.linalg.vector_norm(a - b, dim=-1)


# ---------------------------------------------------------------------------------------------------- self-distillation


def negative_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """The mean of -cos(prediction, target); the target gets no gradient.

    Source: SimSiam (Chen, He; CVPR 2021), equations 1 and 3.

    Args:
        prediction: (B, D), of the predictor, from one view.
        target: (B, D), from the other view.

    Returns:
        a scalar in -1..1, at least float32.

    Raises:
        InputError: shapes that do not fit.
    """
    prediction, target = _embeddings("negative_cosine", prediction, target)
    return -(F.normalize(prediction, dim=1) * F.normalize(target.detach(), dim=1)).sum(1).mean()


def byol(prediction: Tensor, target: Tensor) -> Tensor:
    """The squared distance of unit vectors, 2 - 2 cos(prediction, target), in one direction, the mean over the items.

    The paper's loss is the sum of both directions, byol(p1, t2) + byol(p2, t1): p1 predicted by the learning network
    from view 1, t2 projected by the momentum network from view 2.

    Source: BYOL (Grill et al.; NeurIPS 2020), equation 2.

    Args:
        prediction: (B, D), of the learning network's predictor.
        target: (B, D), of the momentum network's projector, from the other view; gets no gradient.

    Returns:
        a scalar in 0..4, at least float32.

    Raises:
        InputError: shapes that do not fit.
    """
    return 2 + 2 * negative_cosine(prediction, target)


def simsiam(p1: Tensor, z2: Tensor, p2: Tensor, z1: Tensor) -> Tensor:
    """The mean of the negative cosines of both directions, (D(p1, z2) + D(p2, z1)) / 2; z1 and z2 get no gradient.

    Source: SimSiam (Chen, He; CVPR 2021), equation 4.

    Args:
        p1: (B, D), predicted from view 1.
        z2: (B, D), projected from view 2, by the same network.
        p2: (B, D), predicted from view 2.
        z1: (B, D), projected from view 1.

    Returns:
        a scalar in -1..1, at least float32.

    Raises:
        InputError: shapes that do not fit.
    """
    return (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2


# ------------------------------------------------------------------------------------------------ information maximising


def barlow_twins(z1: Tensor, z2: Tensor, lambda_: float = 0.0051) -> Tensor:
    """`cross_invariance` plus lambda times `cross_redundancy` of the cross-correlation of two views.

    Source: Barlow Twins (Zbontar, Jing, Misra, LeCun, Deny; ICML 2021), equation 1.

    Args:
        z1: (B, D), B at least 2.
        z2: (B, D).
        lambda_: weight of the redundancy; paper and VG-SSL 0.0051.

    Returns:
        a scalar, at least float32.

    Raises:
        InputError: shapes that do not fit, or a batch of one.
    """
    correlation = cross_correlation(z1, z2)
    return cross_invariance(correlation) + lambda_ * cross_redundancy(correlation)


def cross_correlation(z1: Tensor, z2: Tensor, eps: float = 1e-5) -> Tensor:
    """The correlation over the batch of each dimension of one view with each of the other, (D, D).

    Each dimension is brought to mean 0 and divided by sqrt(variance + eps), the variance being the biased one (over B),
    as batch normalisation does in the authors' code; equation 2 has no eps. A constant dimension becomes 0: it has no
    correlation with anything, costs 1 in `cross_invariance`, and its gradient is finite. With few items a correlation
    is large by chance, in size about 1 / sqrt(B).

    Source: Barlow Twins, equation 2.

    Args:
        z1: (B, D), B at least 2.
        z2: (B, D).
        eps: in units of the variance.

    Returns:
        (D, D), at least float32; row i is dimension i of z1.

    Raises:
        InputError: shapes that do not fit, or a batch of one.
    """
    z1, z2 = (z - z.mean(0) for z in _embeddings("cross_correlation", z1, z2, least=2))
    z1, z2 = (z / (z.square().mean(0) + eps).sqrt() for z in (z1, z2))
    return _product(z1.T, z2) / len(z1)


def cross_invariance(correlation: Tensor) -> Tensor:
    """The sum over the diagonal of (1 - C_ii)^2, from (D, D); Barlow Twins, equation 1, first term."""
    return (1 - correlation.diagonal()).square().sum()


def cross_redundancy(correlation: Tensor) -> Tensor:
    """The sum beside the diagonal of C_ij^2, from (D, D); Barlow Twins, equation 1, second term without lambda."""
    return _squares_beside_diagonal(correlation)


def vicreg(z1: Tensor, z2: Tensor, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0) -> Tensor:
    """The weighted sum of `invariance_loss`, `variance_loss` (mean of the views) and `covariance_loss` (sum of the views).

    As in the authors' code and in VG-SSL's. Equation 6 of the paper differs from both: there the variance terms of the
    views are added and the squared distance is not divided by D, which would be weights of 25 D, 50 and 1 here.

    Source: VICReg (Bardes, Ponce, LeCun; ICLR 2022).

    Args:
        z1: (B, D), B at least 2; not to be normalised, or the deviations cannot reach 1.
        z2: (B, D).
        invariance: weight; 25 in paper and VG-SSL.
        variance: weight; 25.
        covariance: weight; 1.

    Returns:
        a scalar, at least float32.

    Raises:
        InputError: shapes that do not fit, or a batch of one.
    """
    z1, z2 = _embeddings("vicreg", z1, z2, least=2)
    spread = (variance_loss(z1) + variance_loss(z2)) / 2
    redundancy = covariance_loss(z1) + covariance_loss(z2)
    return invariance * invariance_loss(z1, z2) + variance * spread + covariance * redundancy


def invariance_loss(z1: Tensor, z2: Tensor) -> Tensor:
    """The mean over items and dimensions of (z1 - z2)^2, from (B, D) twice; VICReg, equation 5 divided by D."""
    z1, z2 = _embeddings("invariance_loss", z1, z2)
    return (z1 - z2).square().mean()


def variance_loss(z: Tensor, least: float = 1.0, eps: float = 1e-4) -> Tensor:
    """The mean over the dimensions of max(0, least - sqrt(variance + eps)), the variance being the unbiased one.

    Source: VICReg (Bardes, Ponce, LeCun; ICLR 2022), equations 1 and 2.

    Args:
        z: (B, D), B at least 2.
        least: standard deviation asked of each dimension; 1.
        eps: keeps the slope finite where a dimension is constant; 1e-4.

    Returns:
        a scalar, at least float32.

    Raises:
        InputError: not (B, D), or a batch of one.
    """
    (z,) = _embeddings("variance_loss", z, least=2)
    return F.relu(least - (z.var(0) + eps).sqrt()).mean()


def covariance_loss(z: Tensor) -> Tensor:
    """The sum of the squared covariances of different dimensions, divided by D; covariances over B - 1.

    Source: VICReg (Bardes, Ponce, LeCun; ICLR 2022), equations 3 and 4.

    Args:
        z: (B, D), B at least 2.

    Returns:
        a scalar, at least float32.

    Raises:
        InputError: not (B, D), or a batch of one.
    """
    (z,) = _embeddings("covariance_loss", z, least=2)
    z = z - z.mean(0)
    covariance = _product(z.T, z) / (len(z) - 1)  # (D, D)
    return _squares_beside_diagonal(covariance) / z.shape[1]


def _squares_beside_diagonal(matrix: Tensor) -> Tensor:
    """(D, D) -> the sum of the squares of all but the diagonal; as a difference, which copies no (D, D)."""
    return matrix.square().sum() - matrix.diagonal().square().sum()


# -------------------------------------------------------------------------------------------------------------- collapse


def embedding_std(z: Tensor) -> Tensor:
    """How well embeddings are spread: the mean deviation of a dimension of the unit vectors, times sqrt(D); in 0..1.

    Near 1 for directions that are even on the sphere, 0 where all are one. The deviation is the biased one, which B even
    directions leave at about sqrt(1 - 1 / B). It sees directions fall together, and dimensions that die, not a
    collapse onto a few directions askew to all dimensions.

    Source: SimSiam (Chen, He; CVPR 2021), section 4.1, where 1 / sqrt(D) is the value without collapse.

    Args:
        z: (B, D), B at least 2; normalised here.

    Returns:
        a scalar without gradient, at least float32.

    Raises:
        InputError: not (B, D), or a batch of one.
    """
    (z,) = _embeddings("embedding_std", z.detach(), least=2)
    return F.normalize(z, dim=1).std(0, correction=0).mean() * math.sqrt(z.shape[1])


def is_collapsed(z: Tensor, threshold: float = 0.1) -> bool:
    """Whether `embedding_std` is below the threshold, or no number; waits for the GPU.

    At 0.1, our choice, even what is left in all dimensions has two random items at a mean cosine of 0.99.

    Raises:
        InputError: as `embedding_std`.
    """
    return not float(embedding_std(z)) >= threshold


# ------------------------------------------------------------------------------------------------------- what all use


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in the type they have: under autocast it would be half precision, which cannot tell good matches apart."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b


def _embeddings(where: str, *parts: Tensor, least: int = 1) -> tuple[Tensor, ...]:
    """Tensors (B, D), of one shape, at least float32; InputError otherwise, or if fewer than `least` items."""
    first = parts[0].shape
    if len(first) != 2 or 0 in first or any(part.shape != first for part in parts):
        raise InputError(
            f"{where}: embeddings", expected="(B, D), all of one shape",
            found=" and ".join(str(tuple(part.shape)) for part in parts),
            todo="Embed the two views of one batch, through heads of one width.",
        )  # fmt: skip
    if first[0] < least:
        raise InputError(
            f"{where}: embeddings", expected=f"at least {least} items, whose statistics it takes", found=first[0],
            todo="Use a larger batch.",
        )  # fmt: skip
    return tuple(_wide(part) for part in parts)


def _check_mask(where: str, mask: Tensor, shape: tuple[int, int], name: str = "not_negative") -> None:
    if tuple(mask.shape) != shape or mask.dtype != torch.bool:
        raise InputError(
            f"{where}: {name}", expected=f"bool {shape}", found=f"{mask.dtype} {tuple(mask.shape)}",
            todo="Mark each combination with True or False.",
        )  # fmt: skip


def _check_temperature(where: str, temperature: float) -> None:
    if not temperature > 0:
        raise InputError(f"{where}: temperature", expected="above 0", found=temperature, todo="VG-SSL uses 0.07.")
