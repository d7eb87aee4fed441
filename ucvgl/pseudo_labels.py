"""Pseudo-labels: which satellite image a ground image is taken to show, from the two encoders' similarities alone.

UCVGL, section 3.4 ('fast re-ranking') and the curriculum: a pair counts if each is the other's nearest (mutual) and the
first satellite image is clearly ahead of the second (margin). The threshold on the margin falls over the epochs.
Differs from the published code: O(N k) instead of dense N x N matrices and a list scan, shared tiles (`share`), and, ours,
a share of the best margins (`keep`) for encoders whose margins are not those of the paper. Only `correctness` sees truth.
"""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Generator, Tensor

from ucvgl.errors import InputError
from ucvgl.search import CHUNK_BYTES, BothWays, both_ways

if TYPE_CHECKING:
    from ucvgl.data.container import Positives


QUALITY_K = 5  # neighbours each way that `quality` looks at


class NoPseudoLabels(InputError):
    """Mining found no pair to train on, and none was given."""


# ----------------------------------------------------------------------------------------------------------- the rule


@dataclass(frozen=True)
class MiningRule:
    """Which pairs become pseudo-labels; the paper's rule by default.

    Args:
        mutual: only pairs that are each other's nearest; the paper's.
        threshold: least margin, first minus second ground-to-satellite cosine; CVUSA 0.05, CVACT 0.025, VIGOR 0.035.
        share: a pair is mutual if the ground image is among its tile's `share` nearest; the paper's is 1. Greater where
            several ground images share a tile, as in VIGOR.
        keep: ours, None in the paper: at most this part (0 to 1) of the mutual pairs, the best margins first. It asks
            nothing of the margins' scale, which differs between encoders; set the threshold to 0 to use it alone.
    """

    mutual: bool = True
    threshold: float = 0.05
    share: int = 1
    keep: float | None = None

    def __post_init__(self) -> None:
        if not (self.threshold >= 0 and math.isfinite(self.threshold)):
            raise InputError(
                "mining rule: threshold", expected="0 or more", found=self.threshold, todo="Give a cosine."
            )
        if self.share < 1:
            raise InputError("mining rule: share", expected="1 or more", found=self.share, todo="Give a whole number.")
        if self.keep is not None:
            _check_part("mining rule: keep", self.keep)

    def at(self, epoch: float, epochs: float) -> "MiningRule":
        """The rule at an epoch of the curriculum: the threshold falls to 0, and `keep` grows to 1 at the same pace."""
        left = threshold_at(epoch, epochs, 1.0)
        keep = None if self.keep is None else min(1.0, self.keep + (1 - self.keep) * (1 - left))
        return replace(self, threshold=self.threshold * left, keep=keep)


def threshold_at(epoch: float, epochs: float, start: float) -> float:
    """start * (1 + cos(pi * epoch / epochs)) / 2: from `start` at epoch 0 to 0 at the last (UCVGL, section 3.4).

    Raises:
        InputError: an epoch outside 0..epochs, or no epochs.
    """
    if not (epochs > 0 and 0 <= epoch <= epochs):
        raise InputError(
            "epoch", expected="0 to the number of epochs", found=f"{epoch} of {epochs}", todo="Check the schedule."
        )
    return start * (1 + math.cos(math.pi * epoch / epochs)) / 2


# --------------------------------------------------------------------------------------------------------- the labels


@dataclass(frozen=True, eq=False)
class PseudoLabels:
    """What N ground images are taken to show.

    Args:
        satellite: (N,) int64 satellite index, -1 where there is no label.
        margin: (N,) float, first minus second similarity, of every ground image.
        mutual: (N,) bool, of every ground image.
        given: (N,) bool, labels that were given (semi-supervised), not mined.
    """

    satellite: Tensor
    margin: Tensor
    mutual: Tensor
    given: Tensor

    def __post_init__(self) -> None:
        shapes = {name: tuple(value.shape) for name, value in vars(self).items()}
        if self.satellite.ndim != 1 or len(set(shapes.values())) > 1:
            raise InputError("pseudo-labels", expected="four of shape (N,)", found=shapes, todo="Build them with mine.")

    def __len__(self) -> int:
        return len(self.satellite)

    @property
    def count(self) -> int:
        """How many ground images have a label."""
        return int((self.satellite >= 0).sum())

    @property
    def coverage(self) -> float:
        """The part of the ground images that have a label, 0 to 1."""
        return self.count / max(1, len(self))

    def pairs(self) -> Tensor:
        """Int64 (P, 2): ground and satellite index of each label."""
        ground = (self.satellite >= 0).nonzero()[:, 0]
        return torch.stack([ground, self.satellite[ground]], 1)


def mutual(both: BothWays, *, share: int = 1) -> Tensor:
    """(N,) bool: ground image i is among the `share` nearest ground images of its nearest satellite image.

    Raises:
        InputError: lists shorter than `share`.
    """
    _check_lists(both, 1, share)
    tile = both.ground_index[:, 0]  # (N,)
    own = torch.arange(len(tile), device=tile.device)[:, None]
    return (both.satellite_index[tile, :share] == own).any(1)


def margins(both: BothWays) -> Tensor:
    """(N,) float: how far each ground image's nearest satellite image is ahead of the second, 0 or more.

    Raises:
        InputError: a satellite set of one image, which has no second; or lists of one.
    """
    if len(both.satellite_index) == 1:
        raise InputError(
            "margins", expected="two satellite images or more", found="a satellite set of one image",
            todo="Add satellite images: with one there is nothing to choose from.",
        )  # fmt: skip
    _check_lists(both, 2, 1)
    return both.ground_score[:, 0] - both.ground_score[:, 1]


def mine(
    ground: Tensor,
    satellite: Tensor,
    rule: MiningRule,
    *,
    chunk_bytes: int = CHUNK_BYTES,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> PseudoLabels:
    """Pseudo-labels from the embeddings of ground (N, D) and satellite images (M, D), by cosine.

    The options are those of `search.both_ways`.

    Raises:
        InputError: NaN, infinity or a row of zeros, different widths, no ground image, a satellite set of one image.
    """
    k = (min(2, len(satellite)), min(rule.share, max(1, len(ground))))
    return select(both_ways(ground, satellite, *k, chunk_bytes=chunk_bytes, device=device, dtype=dtype), rule)


def select(both: BothWays, rule: MiningRule) -> PseudoLabels:
    """Pseudo-labels from neighbours, by cosine or re-scored (see reranking): 2 satellite and `share` ground images a list.

    A margin equal to the threshold is enough. Of equal margins, `keep` takes the lower ground index. No match at all is
    no error here: every label is then -1.

    Raises:
        InputError: a satellite set of one image, or shorter lists.
    """
    margin, matched = margins(both), mutual(both, share=rule.share)
    chosen = matched.clone() if rule.mutual else torch.ones_like(matched)
    if rule.keep is not None:
        candidates = chosen.nonzero()[:, 0]
        most = math.floor(rule.keep * len(candidates) + 1e-9)  # 0.29 * 100 is 28.999...
        order = margin[candidates].argsort(descending=True, stable=True)
        chosen[candidates[order[most:]]] = False
    chosen &= margin >= rule.threshold
    return PseudoLabels(torch.where(chosen, both.ground_index[:, 0], -1), margin, matched, torch.zeros_like(matched))


# ------------------------------------------------------------------------------------------------------- given labels


def given_subset(best: Tensor | np.ndarray, ratio: float, *, seed: int | None) -> Tensor:
    """The labels of a semi-supervised run: a part of the known ones, the others hidden; int64 (N,), -1 where hidden.

    Args:
        best: (N,) int64, the right satellite image of each ground image, -1 where unknown; as `Positives.best()`.
        ratio: the part of the known labels that is given, 0 to 1, rounded to a whole number of labels.
        seed: draws the subset, a greater ratio containing a smaller one; None: the first in file order, as in the paper.

    Raises:
        InputError: a ratio outside 0..1.
    """
    _check_part("label ratio", ratio)
    best = torch.as_tensor(best, dtype=torch.int64)
    known = (best >= 0).nonzero()[:, 0].cpu()
    if seed is not None:
        known = known[torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))]
    some = known[: round(ratio * len(known))].to(best.device)
    given = torch.full_like(best, -1)
    given[some] = best[some]
    return given


def mix_given(labels: PseudoLabels, given: Tensor, *, share: int = 1) -> PseudoLabels:
    """Given labels in the place of mined ones, and marked as given.

    With share 1 a mined label goes if its satellite image was given to another ground image. Given labels may share.

    Args:
        labels: mined ones of N ground images.
        given: (N,) int64 satellite indices, -1 where unknown.
        share: as in `MiningRule`.

    Raises:
        InputError: given labels of another length or kind.
    """
    if given.shape != labels.satellite.shape or given.is_floating_point() or bool((given < -1).any()):
        raise InputError(
            "given labels", expected=f"{len(labels)} satellite indices, -1 where unknown",
            found=f"{given.dtype} of shape {tuple(given.shape)}" + (f", least {given.min()}" if given.numel() else ""),
            todo="Give one index for each ground image.",
        )  # fmt: skip
    given = given.to(labels.satellite)
    known = given >= 0
    satellite = torch.where(known, given, labels.satellite)
    if share == 1:
        taken = torch.isin(satellite, given[known]) & ~known
        satellite = satellite.masked_fill(taken, -1)
    return replace(labels, satellite=satellite, given=known)


# ----------------------------------------------------------------------------------------------------- what to train on


@dataclass(frozen=True, eq=False)
class EpochPairs:
    """The pairs of an epoch, in the order to train on (shuffled already); n is about the number of ground images.

    Args:
        ground: (n,) int64 ground indices.
        satellite: (n,) int64 satellite indices.
        matched: (n,) bool, false where the satellite image is a random one: the loss's 'no match' rows.
    """

    ground: Tensor
    satellite: Tensor
    matched: Tensor

    def __len__(self) -> int:
        return len(self.ground)


def epoch_items(labels: PseudoLabels, satellites: int, generator: Generator, *, few: float = 0.4) -> EpochPairs:
    """An epoch of training pairs from pseudo-labels of N ground images (UCVGL, section 3.4).

    Fewer than few * N labels: those alone, repeated in whole passes to about N. Each pass shuffles its first and its second
    half anew, so that a pair stands more than P // 2 places from itself and a batch of up to P // 2 + 1 holds no pair
    twice; a batch sampler that shuffles again would lose this. Otherwise: every ground image once, an unlabelled one
    beside a random satellite image that no label uses. If there are fewer of these than unlabelled ground images, they
    are used again in whole shuffled rounds; if there is none, unlabelled ground images are left out.

    Args:
        labels: mined, or mixed with given ones.
        satellites: the number of satellite images.
        generator: the source of every random number.
        few: the part of N below which labels are few; the paper's 0.4.

    Returns:
        indices, on the CPU.

    Raises:
        NoPseudoLabels: there is none.
        InputError: a label that is no satellite index; `few` outside 0..1.
    """
    _check_part("few", few)
    satellite = labels.satellite.cpu()
    ground = (satellite >= 0).nonzero()[:, 0]
    if not len(ground):
        raise NoPseudoLabels(
            "training pairs", expected="at least one pseudo-label", found=f"no pseudo-label for {len(labels)} images",
            todo="Lower the threshold, raise `keep` or `share`, give some labels, or pretrain the encoders for longer.",
        )  # fmt: skip
    if int(satellite.max()) >= satellites:
        raise InputError(
            "pseudo-labels", expected=f"satellite indices below {satellites}", found=int(satellite.max()),
            todo="Mine among the satellite images that are trained on.",
        )  # fmt: skip
    if len(ground) < few * len(labels):
        passes = round(len(labels) / len(ground))
        first, second = _shuffled(ground, generator).tensor_split(2)
        halves = [_shuffled(half, generator) for _ in range(passes) for half in (first, second)]
        rows = torch.cat(halves)
        return EpochPairs(rows, satellite[rows], torch.ones(len(rows), dtype=torch.bool))
    matched = satellite >= 0
    unused = torch.ones(satellites, dtype=torch.bool).index_fill_(0, satellite[ground], False).nonzero()[:, 0]
    missing = int((~matched).sum())
    if len(unused):
        rounds = [_shuffled(unused, generator) for _ in range(math.ceil(missing / len(unused)))]
        satellite = satellite.clone()
        satellite[~matched] = torch.cat([satellite.new_zeros(0), *rounds])[:missing]
    rows = _shuffled((satellite >= 0).nonzero()[:, 0], generator)
    return EpochPairs(rows, satellite[rows], matched[rows])


# ------------------------------------------------------------------------------------------------------ how good are they


def quality(both: BothWays) -> dict[str, float]:
    """Measures of a pair of encoders that need no label, to choose an epoch or a threshold by. O(N k).

    Args:
        both: lists of `QUALITY_K` or more (or of all images where there are fewer).

    Returns:
        mutual_rate: part of the ground images whose nearest satellite image has them as its nearest.
        mean_margin: mean of `margins`.
        cycle: part of the ground images among the 5 nearest ground images of their nearest satellite image.
        hubness: skewness of how often a satellite image is among the 5 nearest (Radovanovic et al. 2010); about 0 where
            all are found equally often, large where a few are found always.

    Raises:
        InputError: a satellite set of one image, or shorter lists.
    """
    margin, k = margins(both), min(QUALITY_K, len(both.satellite_index))
    _check_lists(both, k, QUALITY_K)
    found = torch.bincount(both.ground_index[:, :k].flatten(), minlength=len(both.satellite_index)).double()
    centred = found - found.mean()
    variance = centred.square().mean()
    return {
        "mutual_rate": float(mutual(both).double().mean()),
        "mean_margin": float(margin.double().mean()),
        "cycle": float(mutual(both, share=QUALITY_K).double().mean()),
        "hubness": float(centred.pow(3).mean() / variance**1.5) if variance > 1e-12 else 0.0,
    }


def correctness(labels: PseudoLabels, positives: "Positives") -> float:
    """The part of the mined labels that are right, 0 to 1; the only function here that sees truth, for evaluation alone.

    Given labels and ground images whose pairs are unknown are left out; NaN where no label is left.

    Raises:
        InputError: positives of another number of ground images.
    """
    if len(positives) != len(labels):
        raise InputError(
            "positives", expected=f"{len(labels)} rows, one a ground image", found=len(positives),
            todo="Take those of the split that was mined.",
        )  # fmt: skip
    rows = ((labels.satellite >= 0) & ~labels.given).nonzero()[:, 0]
    ground, satellite = rows.cpu().numpy(), labels.satellite[rows].cpu().numpy()
    known = positives.known[ground]
    ground, satellite = ground[known], satellite[known]
    true = positives.pairs().numpy()
    width = 1 + max(int(true[:, 1].max(initial=0)), int(satellite.max(initial=0)))
    right = np.isin(ground * width + satellite, true[:, 0] * width + true[:, 1])
    return float(right.mean()) if len(right) else math.nan


# ------------------------------------------------------------------------------------------------------------- helpers


def _shuffled(values: Tensor, generator: Generator) -> Tensor:
    return values[torch.randperm(len(values), generator=generator, device=generator.device).cpu()]


def _check_lists(both: BothWays, k_ground: int, k_satellite: int) -> None:
    """Lists of so many, or of all images where there are fewer."""
    for name, index, count, least in (
        ("k_ground", both.ground_index, len(both.satellite_index), k_ground),
        ("k_satellite", both.satellite_index, len(both.ground_index), k_satellite),
    ):
        if index.shape[1] < min(least, count):
            raise InputError(
                name, expected=f"{min(least, count)} neighbours or more", found=index.shape[1],
                todo="Search for longer lists.",
            )  # fmt: skip


def _check_part(where: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(where, expected="0 to 1", found=value, todo="Give a part, not per cent.")
