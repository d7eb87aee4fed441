"""Contrastive losses between the embeddings of two views; row i of the queries belongs to row i of the references.

InfoNCE (van den Oord, Li, Vinyals 2018) in both directions, as Sample4Geo and UCVGL train with, and UCVGL's soft form
with a class 'no match' for rows without a pair. Differs: references that two rows share can be left out of the
denominators, where the published code counts them as negatives."""

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(
    query: Tensor, reference: Tensor, scale: Tensor | float, *,
    label_smoothing: float = 0.0, not_negative: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Symmetric InfoNCE: the mean cross-entropy of scale * query @ reference.T along its rows and along its columns.

    query and reference: (B, D), L2-normalised. scale: exp of the learnable log-scale, 1 / 0.07 at first in both papers.
    label_smoothing: the fraction of the target that is spread over all candidates; papers 0.1, UCVGL's step 4: 0.3.
    not_negative: (B, B) bool, pairs (i, j) that are left out of the denominators, as two panoramas of one tile (VIGOR);
    the diagonal never is. Source: Sample4Geo (Deuser, Habel, Oswald; ICCV 2023); UCVGL (Li, Qian, Xia; CVPR 2024)."""
    target = torch.arange(len(query), device=query.device)
    return _symmetric(query, reference, scale, target, label_smoothing, not_negative, no_match=0)


def soft_info_nce(
    query: Tensor, reference: Tensor, scale: Tensor | float, matched: Tensor, *,
    label_smoothing: float = 0.0, not_negative: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Symmetric InfoNCE with one more class, 'no match', whose logit is always 0: the target of rows without a pair.

    Unmatched rows, `matched` (B,) bool false, have any image as their reference: its query pushes all references below
    a similarity of 0, and that reference all queries. Matched rows have the class in their denominator too; label
    smoothing reaches it as well. The other arguments are those of `info_nce`. Source: UCVGL's curriculum."""
    target = torch.where(matched, torch.arange(len(query), device=query.device), len(query))
    return _symmetric(query, reference, scale, target, label_smoothing, not_negative, no_match=1)


def _symmetric(
    query: Tensor, reference: Tensor, scale: Tensor | float, target: Tensor,
    smoothing: float, not_negative: Tensor | None, no_match: int,
) -> Tensor:  # fmt: skip
    """The mean cross-entropy along the logits' rows and columns, with `no_match` columns of zeros behind either."""
    # in float32 under autocast too: at a logit of 14 bfloat16 numbers lie 1/16 apart, more than a match and the next best
    with torch.autocast(query.device.type, enabled=False):
        query, reference = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (query, reference))
        logits = scale * (query @ reference.T)  # (B, B)
    rows, columns = (F.pad(x, (0, no_match)) for x in (logits, logits.T))  # (B, B + no_match)
    if not_negative is None:
        return sum(F.cross_entropy(x, target, label_smoothing=smoothing) for x in (rows, columns)) / 2
    left_out, losses = not_negative.clone().fill_diagonal_(False), []
    for x, skip in ((rows, left_out), (columns, left_out.T)):
        skip = F.pad(skip, (0, no_match))
        log_p = x.masked_fill(skip, -torch.inf).log_softmax(1)
        # cross_entropy's own smoothing spreads over the entries of -inf too, and gives infinity
        spread = log_p.masked_fill(skip, 0.0).sum(1) / (~skip).sum(1)  # (B,)
        losses.append((1 - smoothing) * F.nll_loss(log_p, target) - smoothing * spread.mean())
    return sum(losses) / 2
