"""How likely a picture's place is right: evidence from the retrieval alone, turned into a calibrated probability.

Ours; UCVGL has only the yes or no of its pseudo-labels (mutual matching and a margin, section 3.4). The evidence is what
those two look at, and where the best candidates lie. A logistic regression of it is fitted where truth is known (the
embedded world, by scripts/make_weights.py) and carried to a place where it is not.
A picture taken outside of the tiles has no right place: calibrations are fitted to cities with and without such pictures, and
how many find a mutual match tells the two apart. What no evidence knows: a gallery many times larger than those offers more
that is similar. `recalibrated` mends such a shift from a few known positions.
"""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit, logit
from torch import Tensor

from ucvgl.search import BothWays

BEST = 5  # candidates of a picture that are written, drawn and compared in space
# a place is right if the true one lies within so many metres: overlapping candidates are no competitors
RADIUS_M = 10.0
NEAR_M = 50.0  # candidates within so many metres of the best agree with it; about the edge of a tile
NEIGHBOURS = 20  # of each picture: long enough to reach beyond the candidates that overlap the best
PICTURES = 5  # neighbours of each candidate
BESIDE_M = 15.0  # candidates within so many metres of the best lie beside it
SCALE = 20.0  # of cosines, in the softmax of `mass_beside`; fixed before the fit, which weighs the result
FEATURES = ("margin", "mass", "match", "agreement", "mutual")
# as calibrations name them
SETTINGS = {
    "radius_m": RADIUS_M, "near_m": NEAR_M, "beside_m": BESIDE_M, "scale": SCALE, "k": NEIGHBOURS, "k_pictures": PICTURES,
}  # fmt: skip
LEVELS = (0.5, 0.9)  # of the radii that are given with a place
BLOCK = 256  # pictures whose likelihoods are held at a time
LEAST = 1e-6  # probabilities are kept this far from 0 and 1


class Placement(NamedTuple):
    """N pictures and their best candidates, the first being the place: by `place_alone`, or `chain.place_drive`."""

    best: np.ndarray  # (N, B) int64 candidates
    score: np.ndarray  # (N, B) of these, by which they are best
    distance_m: np.ndarray  # (N, B) from the first
    probability: np.ndarray  # (N,) that the truth is within RADIUS_M of the first
    radii_m: np.ndarray  # (N, 2) within which it is with the probabilities LEVELS; inf: not known


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a retrieval says about N pictures."""

    values: np.ndarray  # (N, 5) float64, a column each of FEATURES
    best: np.ndarray  # (N, B) int64 candidates, best first; B is 5, or all candidates where there are fewer
    score: np.ndarray  # (N, B) float64, theirs
    distance_m: np.ndarray  # (N, B) float64, from the best candidate, 0 for itself


def mass_beside(ground: Tensor, satellite: Tensor, centre_m: np.ndarray, best: np.ndarray) -> np.ndarray:
    """(N,) float64: the part of softmax(SCALE cosine) over all candidates that lies within BESIDE_M of a picture's best one.

    Args:
        ground: (N, D) descriptors of the pictures.
        satellite: (M, D) of the candidates.
        centre_m: (M, 2) where candidates lie.
        best: (N,) int64 candidates.
    """
    where, found = torch.from_numpy(centre_m), []
    for part, at in zip(ground.split(BLOCK), torch.from_numpy(best).split(BLOCK), strict=True):
        likelihood = (SCALE * part @ satellite.T).softmax(1).double().cpu()  # (B, M)
        found.append((likelihood * (torch.cdist(where[at], where) <= BESIDE_M)).sum(1))
    return torch.cat(found).numpy()


def evidence(both: BothWays, centre_m: np.ndarray, mass: np.ndarray) -> Evidence:
    """The evidence for each picture's best candidate, from the lists of a retrieval. O(N k), no truth.

    With s_1 >= ... >= s_k the scores of a picture's list, and e the first of it that lies elsewhere (e = k where none does,
    so that the margin is what is sure):
        margin: s_1 - s_e.
        mass: as of `mass_beside`: how far the likelihood of all candidates agrees on one spot.
        match: 1 / r, r the picture's place in the list of pictures of its best candidate; 1 is a mutual match, 0 is none
            of the first PICTURES.
        agreement: the fraction of the candidates two to five within NEAR_M of the best.
        mutual: the fraction of all pictures with a mutual match, the same for each: where many lie outside of the tiles it is low.

    Args:
        both: pictures as ground, candidates as satellite; from `search.both_ways` or re-scored (reranking).
        centre_m: (M, 2) where candidates lie.
        mass: (N,) of each picture's best candidate.
    """
    k = min(NEIGHBOURS, len(centre_m))
    score, index = both.ground_score.double().cpu().numpy()[:, :k], both.ground_index.cpu().numpy()[:, :k]
    pictures = both.satellite_index.cpu().numpy()[:, :PICTURES]
    where = centre_m[index]  # (N, k, 2)
    distance = np.hypot(*np.moveaxis(where - where[:, :1], -1, 0))  # (N, k)
    elsewhere = distance > RADIUS_M
    first = np.where(elsewhere.any(1), elsewhere.argmax(1), k - 1)
    own = pictures[index[:, 0]] == np.arange(len(score))[:, None]  # (N, PICTURES)
    match = np.where(own.any(1), 1 / (1 + own.argmax(1)), 0.0)
    values = np.stack(
        [
            score[:, 0] - score[np.arange(len(score)), first],
            mass,
            match,
            (distance[:, 1:BEST] <= NEAR_M).mean(1),
            np.full(len(score), (match == 1).mean()),
        ],
        axis=1,
    )
    return Evidence(values, index[:, :BEST], score[:, :BEST], distance[:, :BEST])


@dataclass(frozen=True)
class Calibration:
    """A logistic regression of the evidence, and where the truth was when the best candidate was wrong.

    probability = sigmoid((bias + sum_f weight_f (x_f - mean_f) / sd_f) / temperature + shift).
    """

    names: tuple[str, ...]  # the features it looks at, of FEATURES
    mean: tuple[float, ...]  # of each where it was fitted
    sd: tuple[float, ...]  # of each where it was fitted; 1 where it did not vary
    weight: tuple[float, ...]  # of each standardised feature
    bias: float  # of the fit
    # for candidates two to five the fraction of the wrongly placed pictures whose true place was within RADIUS_M of
    # that candidate and of none before it
    later: tuple[float, ...]
    measured_on: str  # in words, for captions
    pictures: int  # how many it was fitted to
    right: int  # how many of these were right
    temperature: float = 1.0  # of `recalibrated`; 1: none
    shift: float = 0.0  # of `recalibrated`, of the logit; 0: none
    scale: float = 20.0  # of cosines in `chain.softmax`, where pictures of a drive are placed together


def load_calibration(path: Path) -> Calibration:
    """A committed calibration; of evidence with these settings, a cosine's."""
    found = json.loads(path.read_text(encoding="utf-8"))
    settings = found.pop("settings")
    assert (found.pop("version"), settings.pop("unit", "cosine"), settings) == (1, "cosine", SETTINGS), path
    return Calibration(**{key: tuple(value) if isinstance(value, list) else value for key, value in found.items()})


def probabilities(calibration: Calibration, evidence: Evidence) -> np.ndarray:
    """(N,) float64: the probability that each picture's true place is within RADIUS_M of its best candidate."""
    x = evidence.values[:, [FEATURES.index(name) for name in calibration.names]]
    a = (x - calibration.mean) / calibration.sd @ np.array(calibration.weight) + calibration.bias
    return expit(a / calibration.temperature + calibration.shift).clip(LEAST, 1 - LEAST)


def place_alone(calibration: Calibration, evidence: Evidence) -> Placement:
    """Each picture at its best candidate."""
    p = probabilities(calibration, evidence)
    radii = np.stack([radius(calibration, evidence, p, level) for level in LEVELS], 1)
    return Placement(evidence.best, evidence.score, evidence.distance_m, p, radii)


def recalibrated(calibration: Calibration, probability: np.ndarray, right: np.ndarray) -> Calibration:
    """The calibration after a look at a few known positions: temperature scaling (Guo et al. 2017, section 4.2) and a shift.

    The logit x becomes x / t + c, which minimise log loss + (log t)^2 / (2 * 0.25^2) + c^2 / 2: a shift by one logit and
    a temperature a quarter off are as likely as not beforehand, so five pictures move it little and hundreds as they ask.

    Args:
        calibration: that gave `probability`.
        probability: (n,) of the pictures whose truth is known.
        right: (n,) 1 or 0; NaN is left out. None known changes nothing.
    """
    known = ~np.isnan(right)
    p, y = probability[known], right[known]
    x = logit(p.clip(LEAST, 1 - LEAST))

    def loss(v: np.ndarray) -> float:
        a = x * math.exp(-v[0]) + v[1]
        return float(np.logaddexp(0, a).sum() - y @ a + v[0] ** 2 / (2 * 0.25**2) + v[1] ** 2 / 2)

    log_t, shift = minimize(loss, np.zeros(2), tol=1e-8).x
    t = math.exp(log_t)
    return replace(calibration, temperature=calibration.temperature * t, shift=float(calibration.shift / t + shift))


def radius(calibration: Calibration, evidence: Evidence, probability: np.ndarray, level: float = 0.5) -> np.ndarray:
    """(N,) metres around the best candidate within which the true place lies with probability `level`; inf: not known.

    The true place is believed within RADIUS_M of the best candidate with the picture's probability p; with (1 - p) later_j
    within RADIUS_M of candidate j = 2 to 5, which is within distance_m[j] + RADIUS_M of the place; with the rest it may be
    anywhere. The radius is the least of these that gathers `level`: RADIUS_M wherever p >= level, more where other
    candidates nearby make up for it, infinity where all five do not.

    Args:
        calibration: fitted.
        evidence: of N pictures.
        probability: (N,) from `probabilities`.
        level: above 0, below 1; 0.5 is the circular error probable.
    """
    others = evidence.best.shape[1] - 1
    reach = evidence.distance_m + RADIUS_M
    p = np.asarray(probability, np.float64)[:, None]
    mass = np.column_stack([p, (1 - p) * np.array(calibration.later[:others])])
    order = np.argsort(reach, axis=1, kind="stable")
    gathered = np.take_along_axis(mass, order, 1).cumsum(1) >= level - 1e-12
    found = np.take_along_axis(reach, order, 1)[np.arange(len(reach)), gathered.argmax(1)]
    return np.where(gathered.any(1), found, np.inf)
