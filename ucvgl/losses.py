"""Contrastive losses between the embeddings of two views, on pairs that are known, supposed, or absent.

InfoNCE (van den Oord, Li, Vinyals 2018) taken in both directions, as Sample4Geo and UCVGL train with; and UCVGL's soft
form, in which a row without a pair is matched with nothing. Row i of the queries belongs to row i of the references.
Differences: references that two pairs share can be left out of the denominators; the published code counts them as
negatives.

Nothing here looks at values (that would make a GPU wait at every step): training checks that the loss is finite.
"""

import torch
from torch import Tensor

from ucvgl.errors import InputError


def info_nce(
    query: Tensor,
    reference: Tensor,
    scale: Tensor | float,
    *,
    label_smoothing: float = 0.0,
    positives: Tensor | None = None,
    not_negative: Tensor | None = None,
) -> Tensor:
    """Symmetric InfoNCE: the mean of the cross-entropies of scale * query @ reference.T along rows and along columns.

    Source: van den Oord, Li, Vinyals 2018; both directions as in Sample4Geo (Deuser, Habel, Oswald; ICCV 2023) and UCVGL
    (Li, Qian, Xia; CVPR 2024).

    Args:
        query: (B, D), L2-normalised.
        reference: (B, D), L2-normalised; (R, D) if `positives` is given.
        scale: exp of the learnable log-scale, starting at 1 / 0.07 in both papers.
        label_smoothing: the part of the target that is spread over all candidates; papers 0.1, UCVGL's step 4: 0.3.
        positives: (B,) integer, the reference of each query; None: the row of the same number. References are put in
            this order, those that are nobody's are not used, and one that two queries share is no negative of either.
        not_negative: (B, B) bool, pairs (i, j) for which reference j is no negative of query i, nor query i of reference
            j: two panoramas of one tile, say (VIGOR). They are left out of the denominators. The diagonal never is.

    Returns:
        a scalar, at least float32.

    Raises:
        InputError: shapes or types that do not fit, or a label smoothing outside 0..1.
    """
    if positives is not None:
        if positives.shape != query.shape[:1] or positives.is_floating_point() or positives.dtype == torch.bool:
            raise InputError(
                "info_nce: positives",
                expected=f"one integer for each of {len(query)} queries",
                found=f"{positives.dtype} {tuple(positives.shape)}",
                todo="Give the row of the reference that belongs to each query.",
            )
        shared = positives[:, None] == positives
        not_negative = shared if not_negative is None else not_negative | shared
        reference = reference[positives]
    logits, left_out = _logits(query, reference, scale, label_smoothing, not_negative)
    target = torch.arange(len(logits), device=logits.device)
    return _both_ways(logits, left_out, target, label_smoothing)


def soft_info_nce(
    query: Tensor,
    reference: Tensor,
    scale: Tensor | float,
    matched: Tensor,
    *,
    label_smoothing: float = 0.0,
    not_negative: Tensor | None = None,
) -> Tensor:
    """Symmetric InfoNCE with one more class, 'no match', whose logit is always 0: the target of rows without a pair.

    An unmatched query pushes all references below a similarity of 0, its own row's among them, which is a random one; so
    does an unmatched row's reference with the queries. The class is in the denominator of matched rows too.

    Source: UCVGL (Li, Qian, Xia; CVPR 2024), the loss of the semi-supervised curriculum.

    Args:
        query: (B, D), L2-normalised.
        reference: (B, D), L2-normalised; any image where the row is unmatched.
        scale: as in `info_nce`; the logit of 'no match' is not scaled.
        matched: (B,) bool, the rows whose query and reference are a pair.
        label_smoothing: as in `info_nce`, 'no match' being one of the candidates; UCVGL 0.1.
        not_negative: as in `info_nce`.

    Returns:
        a scalar, at least float32.

    Raises:
        InputError: as `info_nce`.
    """
    logits, left_out = _logits(query, reference, scale, label_smoothing, not_negative)
    if matched.shape != query.shape[:1] or matched.dtype != torch.bool:
        raise InputError(
            "soft_info_nce: matched",
            expected=f"bool ({len(query)},)",
            found=f"{matched.dtype} {tuple(matched.shape)}",
            todo="Say of each row whether it is a pair.",
        )
    count = len(logits)
    target = torch.where(matched.to(logits.device), torch.arange(count, device=logits.device), count)
    return _both_ways(logits, left_out, target, label_smoothing, no_match=True)


def _logits(
    query: Tensor, reference: Tensor, scale: Tensor | float, label_smoothing: float, not_negative: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Checked input -> logits (B, B) and the entries to leave out (B, B), or None."""
    if query.ndim != 2 or not len(query) or query.shape != reference.shape:
        raise InputError(
            "loss: embeddings",
            expected="query and reference (B, D), B at least 1",
            found=f"{tuple(query.shape)} and {tuple(reference.shape)}",
            todo="Embed the two views of one batch, with encoders of one width.",
        )
    if not 0 <= label_smoothing <= 1:
        raise InputError("loss: label_smoothing", expected="0 to 1", found=label_smoothing, todo="The papers use 0.1.")
    left_out, square = None, (len(query), len(query))
    if not_negative is not None:
        if not_negative.shape != square or not_negative.dtype != torch.bool:
            found = f"{not_negative.dtype} {tuple(not_negative.shape)}"
            raise InputError("loss: not_negative", expected=f"bool {square}", found=found, todo="Mark entries to skip.")
        left_out = not_negative.to(query.device) & ~torch.eye(len(query), dtype=torch.bool, device=query.device)
    # float32 even under autocast: times the scale, neighbouring bfloat16 numbers lie 1/16 apart at a logit of 14, which
    # is more than what separates a right tile from the next best; and the sums of exponentials need the range
    with torch.autocast(query.device.type, enabled=False):
        query, reference = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (query, reference))
        return scale * (query @ reference.T), left_out


def _both_ways(
    logits: Tensor, left_out: Tensor | None, target: Tensor, smoothing: float, *, no_match: bool = False
) -> Tensor:
    """The mean of the cross-entropies along the rows and along the columns of (B, B)."""
    with torch.autocast(logits.device.type, enabled=False):
        losses = []
        for scores, skip in ((logits, left_out), (logits.T, None if left_out is None else left_out.T)):
            allowed = torch.ones_like(scores, dtype=torch.bool) if skip is None else ~skip
            if no_match:
                scores = torch.cat((scores, scores.new_zeros(len(scores), 1)), 1)  # (B, B + 1)
                allowed = torch.cat((allowed, allowed.new_ones(len(allowed), 1)), 1)
            log_p = scores.masked_fill(~allowed, -torch.inf).log_softmax(1)
            own = log_p.gather(1, target[:, None])[:, 0]  # (B,)
            # not torch's cross_entropy: its smoothing spreads over entries of -inf too, and gives infinity
            spread = torch.where(allowed, log_p, 0.0).sum(1) / allowed.sum(1)
            losses.append(-((1 - smoothing) * own + smoothing * spread).mean())
        return (losses[0] + losses[1]) / 2
