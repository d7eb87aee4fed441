"""How likely a picture's place is right: evidence from the retrieval alone, turned into a calibrated probability. Ours.

The evidence is what UCVGL's pseudo-labels look at (mutual matching and a margin, section 3.4), and where the best
candidates lie. A logistic regression of it is fitted in the embedded world, to pictures inside and outside tiles, and
carried to a place where no truth is known. It knows nothing of a much larger gallery: `recalibrated` corrects that.
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from ucvgl.reranking import csls_neighbours

BEST = 5  # candidates of a picture that are written, drawn and compared in space
RADIUS_M = 10.0  # a place is right if the true one lies so near: overlapping candidates are no competitors
NEAR_M = 50.0  # candidates within so many metres of the best agree with it; about the edge of a tile
BESIDE_M = 15.0  # candidates within so many metres of the best lie beside it
SCALE = 20.0  # of cosines, in the softmax of the evidence; fixed before the fit, which weighs the result
NEIGHBOURS = 20  # of each picture: long enough to reach beyond the candidates that overlap the best
PICTURES = 5  # neighbours of each candidate
FEATURES = ("margin", "mass", "match", "agreement", "mutual")
SETTINGS = {"radius_m": RADIUS_M, "near_m": NEAR_M, "beside_m": BESIDE_M, "scale": SCALE, "k": NEIGHBOURS,
            "k_pictures": PICTURES, "unit": "cosine"}  # as calibrations name them  # fmt: skip
BLOCK = 256  # pictures whose likelihoods are held at a time
LEAST = 1e-6  # probabilities are kept this far from 0 and 1


class Evidence(NamedTuple):
    """What a retrieval says about N pictures, and their B = 5 best candidates (all, where there are fewer)."""

    values: np.ndarray  # (N, 5) float64, a column each of FEATURES
    best: np.ndarray  # (N, B) int64 candidates, best first
    score: np.ndarray  # (N, B) float64, theirs


def evidence(ground: Tensor, satellite: Tensor, centre_m: np.ndarray) -> Evidence:
    """What retrieval by CSLS says, without truth, of pictures (N, D) and candidates (M, D) that lie at centre_m (M, 2).

    margin: how far the best candidate's score is ahead of the first in the list that lies elsewhere, or of the last.
    mass: the part of softmax(SCALE cosine) over all candidates that lies within BESIDE_M of the best one.
    match: 1 / r, r the picture's place in the list of its best candidate; 1 is a mutual match, 0 not among PICTURES.
    agreement: the fraction of the candidates two to five within NEAR_M of the best.
    mutual: the fraction of all pictures with a mutual match, for each; low where many lie outside of the tiles.
    """
    both = csls_neighbours(ground, satellite, min(NEIGHBOURS, len(satellite)), min(PICTURES, len(ground)))
    score, index, row = both.ground_score.double().numpy(), both.ground_index.numpy(), np.arange(len(ground))
    distance = np.linalg.norm(centre_m[index] - centre_m[index[:, :1]], axis=-1)  # (N, k)
    elsewhere = distance > RADIUS_M
    margin = score[:, 0] - score[row, np.where(elsewhere.any(1), elsewhere.argmax(1), -1)]

    where, mass = torch.from_numpy(centre_m), []
    for part, best in zip(ground.split(BLOCK), both.ground_index[:, 0].split(BLOCK), strict=True):
        likelihood = (SCALE * part @ satellite.T).softmax(1).double()  # (BLOCK, M)
        mass.append((likelihood * (torch.cdist(where[best], where) <= BESIDE_M)).sum(1))

    own = both.satellite_index.numpy()[index[:, 0]] == row[:, None]  # (N, PICTURES)
    match = np.where(own.any(1), 1 / (1 + own.argmax(1)), 0.0)
    agreement, mutual = (distance[:, 1:BEST] <= NEAR_M).mean(1), np.full(len(row), (match == 1).mean())
    values = np.stack([margin, torch.cat(mass).numpy(), match, agreement, mutual], axis=1)
    return Evidence(values, index[:, :BEST], score[:, :BEST])


@dataclass(frozen=True)
class Calibration:
    """A logistic regression of the evidence: probability = sigmoid(bias + sum_f weight_f (x_f - mean_f) / sd_f)."""

    mean: tuple[float, ...]  # of each of FEATURES where it was fitted
    sd: tuple[float, ...]  # 1 where a feature did not vary
    weight: tuple[float, ...]  # of each standardised feature
    bias: float
    measured_on: str  # in words, for captions
    scale: float = 20.0  # of cosines where pictures of a drive are placed together (`chain`)


def load_calibration(path: Path) -> Calibration:
    """A committed calibration, of this evidence."""
    found = json.loads(path.read_text(encoding="utf-8"))
    assert (found["version"], found["settings"], tuple(found["names"])) == (1, SETTINGS, FEATURES), path
    return Calibration(**{field.name: found[field.name] for field in fields(Calibration)})


def probabilities(calibration: Calibration, evidence: Evidence) -> np.ndarray:
    """(N,) float64: the probability that each picture's true place is within RADIUS_M of its best candidate."""
    x = (evidence.values - calibration.mean) / calibration.sd
    return expit(x @ np.array(calibration.weight) + calibration.bias).clip(LEAST, 1 - LEAST)


def recalibrated(probability: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Probabilities (N,) after a look at some known positions: Platt's scaling (1999), logistic regression of logits.

    right: (N,) 1 or 0, NaN where it is not known; softened as there, so that all may be right, or wrong.
    """
    x, known = logit(probability)[:, None], ~np.isnan(right)
    y = right[known]
    target = np.where(y == 1, (y.sum() + 1) / (y.sum() + 2), 1 / ((1 - y).sum() + 2))
    twice, answers, weights = np.tile(x[known], (2, 1)), np.repeat([1, 0], len(y)), np.append(target, 1 - target)
    return LogisticRegression().fit(twice, answers, weights).predict_proba(x)[:, 1].clip(LEAST, 1 - LEAST)
