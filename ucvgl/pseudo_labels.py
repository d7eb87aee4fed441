"""Pseudo-labels: which satellite image a ground image is taken to show, from the two encoders' similarities alone.

UCVGL, section 3.4 ('fast re-ranking') and the curriculum: a pair counts if each is the other's nearest (mutual) and the
first satellite image is clearly ahead of the second (margin). The threshold on the margin falls over the epochs.
Differs: O(N k) instead of dense N x N matrices, shared tiles (`share`), and, ours, a fraction of the best margins (`keep`)."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from ucvgl.errors import InputError, check_fields
from ucvgl.search import BothWays

QUALITY_K = 5  # neighbours each way that `quality` takes


class NoPseudoLabels(InputError):
    """Mining found no pair to train on, and none was given."""


@dataclass(frozen=True)
class MiningRule:
    """Which pairs become pseudo-labels; the paper's rule by default."""

    mutual: bool = True  # only pairs that are each other's nearest; the paper's
    threshold: float = 0.05  # least margin, first minus second cosine; CVUSA 0.05, CVACT 0.025, VIGOR 0.035
    share: int = 1  # mutual: among its tile's `share` nearest; the paper's is 1, more where images share a tile (VIGOR)
    # ours, None in the paper: at most this fraction of the mutual pairs, the best margins first; threshold 0 uses it alone
    keep: float | None = None

    def __post_init__(self) -> None:
        threshold = "threshold", 0 <= self.threshold < math.inf, "a cosine, 0 or more"
        share = "share", self.share >= 1, "a whole number, 1 or more"
        keep = "keep", self.keep is None or 0 <= self.keep <= 1, "a fraction, 0 to 1"
        check_fields(self, "mining rule: ", "UCVGL's on CVUSA are 0.05, 1 and None.", threshold, share, keep)

    def at(self, epoch: float, epochs: float) -> "MiningRule":
        """The rule at an epoch of the curriculum: the threshold falls to 0, and `keep` grows to 1 at the same pace."""
        left = threshold_at(epoch, epochs, 1.0)
        keep = None if self.keep is None else min(1.0, self.keep + (1 - self.keep) * (1 - left))
        return replace(self, threshold=self.threshold * left, keep=keep)


def threshold_at(epoch: float, epochs: float, start: float) -> float:
    """start * (1 + cos(pi * epoch / epochs)) / 2: from `start` at epoch 0 to 0 at the last (UCVGL, section 3.4)."""
    return start * (1 + math.cos(math.pi * epoch / epochs)) / 2


@dataclass(frozen=True, eq=False)
class PseudoLabels:
    """What N ground images are taken to show, with margin and mutual match of every one, labelled or not."""

    satellite: Tensor  # (N,) int64 satellite index, -1 where there is no label
    margin: Tensor  # (N,) float, first minus second similarity
    mutual: Tensor  # (N,) bool
    given: Tensor  # (N,) bool, labels that were given (semi-supervised), not mined

    def __len__(self) -> int:
        return len(self.satellite)

    @property
    def count(self) -> int:
        """How many ground images have a label."""
        return int((self.satellite >= 0).sum())


def mutual(both: BothWays, *, share: int = 1) -> Tensor:
    """(N,) bool: ground image i is among the `share` nearest ground images of its nearest satellite image."""
    assert both.satellite_index.shape[1] >= min(share, len(both.ground_index)), "the lists are shorter than `share`"
    tile = both.ground_index[:, 0]  # (N,)
    own = torch.arange(len(tile), device=tile.device)[:, None]
    return (both.satellite_index[tile, :share] == own).any(1)


def margins(both: BothWays) -> Tensor:
    """(N,) float: how far each ground image's nearest satellite image is ahead of the second, 0 or more."""
    if len(both.satellite_index) == 1:
        raise InputError("margins", "several satellite images", "a satellite set of one", "Add some.")
    return both.ground_score[:, 0] - both.ground_score[:, 1]


def select(both: BothWays, rule: MiningRule) -> PseudoLabels:
    """Pseudo-labels from neighbours, by cosine or re-scored (see reranking): 2 satellite and `share` ground images a
    list. A margin equal to the threshold is enough. Of equal margins, `keep` takes the lower ground index."""
    margin, matched = margins(both), mutual(both, share=rule.share)
    chosen = matched.clone() if rule.mutual else torch.ones_like(matched)
    if rule.keep is not None:
        candidates = chosen.nonzero()[:, 0]
        most = math.floor(rule.keep * len(candidates) + 1e-9)  # 0.29 * 100 is 28.999...
        order = margin[candidates].argsort(descending=True, stable=True)
        chosen[candidates[order[most:]]] = False
    chosen &= margin >= rule.threshold
    return PseudoLabels(torch.where(chosen, both.ground_index[:, 0], -1), margin, matched, torch.zeros_like(matched))


def given_subset(best: Tensor, ratio: float, *, seed: int | None) -> Tensor:
    """The labels of a semi-supervised run: a fraction of the known ones, the others hidden; int64 (N,), -1 where hidden.

    `best` (N,) int64: the right satellite images, -1 where unknown. The seed draws the subset, and a greater ratio keeps
    those of a smaller one; None: the first in file order, as in the paper."""
    known = (best >= 0).nonzero()[:, 0]
    if seed is not None:
        known = known[torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))]
    some = known[: round(ratio * len(known))]
    return torch.full_like(best, -1).index_copy_(0, some, best[some])


def mix_given(labels: PseudoLabels, given: Tensor, *, share: int = 1) -> PseudoLabels:
    """Given labels, (N,) int64 satellite indices and -1 where unknown, in the place of mined ones, and marked as given.
    With a `share` of 1 (see `MiningRule`) a mined label goes if its satellite image was given to another ground image."""
    given = given.to(labels.satellite)
    known = given >= 0
    satellite = torch.where(known, given, labels.satellite)
    if share == 1:
        satellite = satellite.masked_fill(torch.isin(satellite, given[known]) & ~known, -1)
    return replace(labels, satellite=satellite, given=known)


@dataclass(frozen=True, eq=False)
class EpochPairs:
    """The n pairs of an epoch, about as many as ground images, in the order to train on (shuffled already)."""

    ground: Tensor  # (n,) int64 ground indices
    satellite: Tensor  # (n,) int64 satellite indices
    matched: Tensor  # (n,) bool; false where the satellite image is a random one: the loss's 'no match' rows

    def __len__(self) -> int:
        return len(self.ground)


def epoch_items(labels: PseudoLabels, satellites: int, generator: Generator, *, few: float = 0.4) -> EpochPairs:
    """An epoch of training pairs from pseudo-labels of N ground images (UCVGL, section 3.4), on the CPU.

    Fewer than few * N labels (0.4 in the paper): those P alone, in N // (P + 1) + 1 passes as in the official code; each
    shuffles its two halves anew, so that a batch of up to P // 2 + 1 holds no pair twice. Otherwise: every ground image once,
    an unlabelled one beside a random one of the `satellites` that no label uses, which are used again in whole shuffled rounds
    if too few, and without any, unlabelled ground images are left out. NoPseudoLabels: no label at all."""
    satellite = labels.satellite.cpu()
    matched = satellite >= 0
    ground = matched.nonzero()[:, 0]
    if not len(ground):
        todo = "Lower the threshold, raise `keep`, give labels, or pretrain for longer."
        raise NoPseudoLabels("training pairs", "a pseudo-label", f"none for {len(labels)} images", todo)
    if len(ground) < few * len(labels):
        passes = len(labels) // (len(ground) + 1) + 1
        first, second = _shuffled(ground, generator).tensor_split(2)
        rows = torch.cat([_shuffled(half, generator) for _ in range(passes) for half in (first, second)])
        return EpochPairs(rows, satellite[rows], matched[rows])
    unused = torch.ones(satellites, dtype=torch.bool).index_fill_(0, satellite[ground], False).nonzero()[:, 0]
    missing = int((~matched).sum())
    if len(unused):
        rounds = [_shuffled(unused, generator) for _ in range(math.ceil(missing / len(unused)))]
        satellite = satellite.clone()
        satellite[~matched] = torch.cat([satellite.new_zeros(0), *rounds])[:missing]
    rows = _shuffled((satellite >= 0).nonzero()[:, 0], generator)
    return EpochPairs(rows, satellite[rows], matched[rows])


def _shuffled(values: Tensor, generator: Generator) -> Tensor:
    return values[torch.randperm(len(values), generator=generator, device=generator.device).cpu()]


def quality(both: BothWays) -> dict[str, float]:
    """Measures of a pair of encoders that need no label, to choose an epoch or a threshold by; from QUALITY_K neighbours.

    mutual_rate: fraction of the ground images whose nearest satellite image has them as its nearest. mean_margin: mean
    of `margins`. cycle: fraction of the ground images among the 5 nearest of their nearest satellite image. hubness:
    skewness of how often a satellite image is among the 5 nearest (Radovanovic et al. 2010); 0: all alike."""
    satellites = len(both.satellite_index)
    assert both.ground_index.shape[1] >= min(QUALITY_K, satellites), "the lists are shorter than QUALITY_K"
    found = torch.bincount(both.ground_index[:, :QUALITY_K].flatten(), minlength=satellites).double()
    centred, variance = found - found.mean(), found.var(correction=0)
    return {
        "mutual_rate": float(mutual(both).double().mean()),
        "mean_margin": float(margins(both).double().mean()),
        "cycle": float(mutual(both, share=QUALITY_K).double().mean()),
        "hubness": float(centred.pow(3).mean() / variance**1.5) if variance > 1e-12 else 0.0,
    }


def correctness(labels: PseudoLabels, pairs: Tensor, known: Tensor) -> float:
    """The fraction of the mined labels that are right, for evaluation alone; NaN where there is none. `pairs` (P, 2)
    int64 are the right rows of (ground, satellite), `known` (N,) bool whether a ground image's are known."""
    mined = (labels.satellite >= 0) & ~labels.given & known.to(labels.given.device)
    pairs = pairs.to(labels.satellite)
    right = torch.zeros_like(mined)
    right[pairs[labels.satellite[pairs[:, 0]] == pairs[:, 1], 0]] = True
    return float(right[mined].double().mean())  # of nothing: NaN
