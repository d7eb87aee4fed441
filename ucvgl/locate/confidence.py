"""How likely a picture's place is right: alone, by evidence from the retrieval; in a drive, by a hidden Markov chain.

Ours. The evidence is what UCVGL's pseudo-labels look at (mutual matching and a margin, section 3.4), and where the best
candidates lie. A logistic regression of it is fitted in the embedded world, to pictures inside and outside tiles, and
carried to a place where no truth is known. It knows nothing of a much larger gallery.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy.signal import fftconvolve
from scipy.special import expit, softmax
from torch import Tensor

from ucvgl.errors import InputError
from ucvgl.locate.pictures import Picture
from ucvgl.locate.tiles import Candidates
from ucvgl.reranking import csls_neighbours

BEST = 5  # candidates of a picture that are written, drawn and compared in space
RADIUS_M = 10.0  # a place is right if the true one lies so near: overlapping candidates are no competitors
NEAR_M = 50.0  # candidates within so many metres of the best agree with it; about the edge of a tile
BESIDE_M = 15.0  # candidates within so many metres of the best lie beside it
SCALE = 30.0  # of cosines, in the softmax of the evidence; of 20, 30, 40 and 60 the one that calibrates best
NEIGHBOURS = 20  # of each picture: long enough to reach beyond the candidates that overlap the best
PICTURES = 5  # neighbours of each candidate
FEATURES = ("margin", "mass", "match", "agreement", "mutual")
SETTINGS = {"radius_m": RADIUS_M, "near_m": NEAR_M, "beside_m": BESIDE_M, "scale": SCALE, "k": NEIGHBOURS,
            "k_pictures": PICTURES, "unit": "cosine"}  # as calibrations name them  # fmt: skip
BLOCK = 256  # pictures whose likelihoods are held at a time
LEAST = 1e-6  # probabilities are kept this far from 0 and 1
LEAK = 0.02  # probability that a drive's camera is anywhere, as after a gap; a tenth or five times of it change little
OUTSIDE = 0.2  # probability that it is outside of all candidates then; a half changes little


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
    scale: float = 20.0  # of cosines where pictures of a drive are placed together


def load_calibration(path: Path) -> Calibration:
    """A committed calibration, of this evidence."""
    found = json.loads(path.read_text(encoding="utf-8"))
    assert (found["version"], found["settings"], tuple(found["names"])) == (1, SETTINGS, FEATURES), path
    return Calibration(**{field.name: found[field.name] for field in fields(Calibration)})


def probabilities(calibration: Calibration, evidence: Evidence) -> np.ndarray:
    """(N,) float64: the probability that each picture's true place is within RADIUS_M of its best candidate."""
    x = (evidence.values - calibration.mean) / calibration.sd
    return expit(x @ np.array(calibration.weight) + calibration.bias).clip(LEAST, 1 - LEAST)


def drive_order(
    pictures: Sequence[Picture], by: Literal["time", "name"], speed_m_s: float, step_m: float
) -> tuple[np.ndarray, np.ndarray]:
    """The order (N,) of a drive's pictures, and how far (N - 1,) metres the camera may have moved between two of them:
    by EXIF's time stamps, at most at a speed; or by names, at most a step each. InputError: a time stamp is missing."""
    if by == "name":
        return np.argsort([p.file for p in pictures], kind="stable"), np.full(len(pictures) - 1, step_m)
    if without := [p.file for p in pictures if p.taken_s is None]:
        found = f"{len(without):,} without, such as {without[0]}"
        raise InputError("--drive time", "a time stamp (EXIF DateTimeOriginal) in every picture", found,
                         "Say --drive name, if their names are in order.")  # fmt: skip
    taken = np.array([p.taken_s for p in pictures], np.float64)
    order = np.argsort(taken, kind="stable")
    return order, speed_m_s * np.diff(taken[order])


def cells_of(centre_m: np.ndarray, stride_m: float) -> np.ndarray:
    """(M, 2) int64: column and row of candidates in their grid."""
    return np.round((centre_m - centre_m.min(0)) / stride_m).astype(int)


def _spread(values: np.ndarray, cells: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Values (N, M) of candidates in cells (M, 2), each the sum over those around it, weighted by a kernel in cells."""
    at = tuple(cells.T)
    sheet = np.zeros((len(values), *(cells.max(0) + 1)))
    sheet[:, *at] = values
    return fftconvolve(sheet, kernel[None], mode="same", axes=(1, 2))[:, *at].clip(min=0)


def forward_backward(likelihood: np.ndarray, cells: np.ndarray, reach: np.ndarray, leak: float = LEAK) -> np.ndarray:
    """(N, M) probability of each candidate for each picture, given all pictures of the drive (Rabiner 1989, III.A); what
    a row lacks to 1 is that of being outside of all.

    From the likelihood (N, M) of each picture alone, in the drive's order, of candidates in cells (M, 2), and how many
    cells (N - 1,) the camera may have moved between two pictures, to any in that disc with the same probability. Outside,
    a picture is as likely as at the average candidate, and the camera stays; `leak` is the probability that it is
    anywhere instead: with OUTSIDE outside, else at any candidate. A sum over a disc is a convolution.
    """
    likelihood = np.column_stack([likelihood, likelihood.mean(1)]).astype(np.float64)  # outside is the last state
    anywhere = np.append(np.full(len(cells), (1 - OUTSIDE) / len(cells)), OUTSIDE)

    def within(values: np.ndarray, radius: float) -> np.ndarray:
        widest = int(min(radius, cells.max() + 1))
        side = np.arange(-widest, widest + 1)
        near = _spread(values[None, :-1], cells, np.hypot(side[:, None], side) <= radius)[0]
        return np.append(near, values[-1])

    sizes = {radius: within(np.ones_like(anywhere), radius).round() for radius in np.unique(reach)}
    ahead, behind = likelihood.copy(), np.ones(likelihood.shape)
    ahead[0] *= anywhere / (ahead[0] @ anywhere)
    for t, radius in enumerate(reach, 1):
        ahead[t] *= (1 - leak) * within(ahead[t - 1] / sizes[radius], radius) + leak * anywhere
        ahead[t] /= ahead[t].sum()
    for t, radius in reversed(list(enumerate(reach, 1))):
        later = likelihood[t] * behind[t]
        behind[t - 1] = (1 - leak) * within(later, radius) / sizes[radius] + leak * (later @ anywhere)
        behind[t - 1] /= behind[t - 1].max()
    both = ahead * behind
    return (both / both.sum(1, keepdims=True))[:, :-1]


def place_together(
    cosines: np.ndarray, scale: float, order: np.ndarray, reach_m: np.ndarray, candidates: Candidates
) -> tuple[np.ndarray, np.ndarray]:
    """Of pictures (N, M), which a drive takes in an order (N,), moving so far (N - 1,) at most from one to the next,
    the best candidates (N, B), and the probability of each that the picture was taken within RADIUS_M of it. One whose
    nearest candidate is another may lie so near, too: as many of them as of that one's cell do."""
    stride_m, cells = candidates.stride_m, cells_of(candidates.centre_m, candidates.stride_m)
    # candidates nearest to two places may lie a diagonal of the grid farther apart than these
    posterior = forward_backward(softmax(scale * cosines[order], axis=1), cells, reach_m / stride_m + np.sqrt(2))
    steps = ((np.arange(20) + 0.5) / 20 - 0.5) * stride_m
    reach = int(RADIUS_M / stride_m) + 1
    away = (stride_m * np.arange(-reach, reach + 1)[:, None] + steps).ravel()  # of points in the cells around
    part = (np.hypot(away[:, None], away) <= RADIUS_M).reshape(2 * reach + 1, 20, -1, 20).mean((1, 3))
    near = _spread(posterior[np.argsort(order)], cells, part).clip(max=1)  # (N, M)
    best = np.argsort(-near, axis=1, kind="stable")[:, :BEST]
    return best, np.take_along_axis(near, best, 1)
