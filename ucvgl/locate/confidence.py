"""How likely a picture's place is right: evidence from the retrieval alone, turned into a calibrated probability.

Ours; UCVGL has only the yes or no of its pseudo-labels (mutual matching and a margin, section 3.4). The evidence is what
those two look at, and where the best candidates lie. A logistic regression of it is fitted where truth is known (the
embedded world) and carried to a place where it is not. Calibration error and diagram: Guo et al. 2017, 'On calibration of
modern neural networks', section 2, with bins of equal count (Nguyen and O'Connor 2015) instead of equal width.
What no evidence knows: a gallery many times larger than the one it was fitted on offers more that looks alike, and a picture
taken outside the tiles' area has no right place at all. `recalibrated` mends such a shift from a few known positions.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from ucvgl.errors import InputError
from ucvgl.paths import write_json
from ucvgl.positions import Positions
from ucvgl.search import BothWays

VERSION = 1  # of the file
BEST = 5  # candidates shown and looked at in space
FEATURES = ("margin", "contrast", "match", "agreement")
LEAST = 1e-6  # probabilities are kept this far from 0 and 1

# ------------------------------------------------------------------------------------------------------- the evidence


@dataclass(frozen=True)
class EvidenceSettings:
    """What counts as right, as elsewhere and as near; ours throughout.

    Args:
        radius_m: a place is right if the true one lies within so many metres, and a candidate beyond it lies elsewhere:
            overlapping candidates of one place are no competitors.
        near_m: candidates within so many metres of the best agree with it; about the edge of a tile.
        k: how much of each picture's list is looked at, 5 or more; all candidates where there are fewer. Long enough to
            reach beyond the candidates that overlap the best.
        k_pictures: how much of a candidate's list of pictures.
    """

    radius_m: float = 10.0
    near_m: float = 50.0
    k: int = 20
    k_pictures: int = 5

    def __post_init__(self) -> None:
        fits = 0 < self.radius_m <= self.near_m < math.inf and self.k >= BEST and self.k_pictures >= 1
        if not fits:
            raise InputError(
                "evidence", expected=f"0 < radius_m <= near_m, k of {BEST} or more, k_pictures of 1 or more", found=self,
                todo="Correct the settings.",
            )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a retrieval says about N pictures.

    Args:
        values: (N, 4) float64, a column each of FEATURES.
        best: (N, B) int64 candidates, best first; B is 5, or all candidates where there are fewer.
        score: (N, B) float64, theirs.
        distance_m: (N, B) float64, from the best candidate, 0 for itself.
        settings: what it was made with.
    """

    values: np.ndarray
    best: np.ndarray
    score: np.ndarray
    distance_m: np.ndarray
    settings: EvidenceSettings

    def __len__(self) -> int:
        return len(self.values)


def evidence(both: BothWays, candidates: Positions, settings: EvidenceSettings | None = None) -> Evidence:
    """The evidence for each picture's best candidate, from the lists of a retrieval. O(N k), no truth.

    With s_1 >= ... >= s_k the scores of a picture's list, and e the first of it that lies elsewhere (e = k where none does,
    so that the margin is what is sure):
        margin: s_1 - s_e.
        contrast: s_1 - s_k.
        match: 1 / r, r the picture's place in the list of pictures of its best candidate; 1 is a mutual match, 0 is none
            of the first `k_pictures`.
        agreement: the part of the candidates two to five within `near_m` of the best.

    Args:
        both: pictures as ground, candidates as satellite; from `search.both_ways` or re-scored (reranking).
        candidates: (M,) where they lie, in metres (`positions.to_metres`).
        settings: EvidenceSettings() by default.
    """
    settings = settings or EvidenceSettings()
    score, index = both.ground_score.double().cpu().numpy(), both.ground_index.cpu().numpy()
    pictures = both.satellite_index.cpu().numpy()
    k = min(settings.k, len(candidates))
    score, index, pictures = score[:, :k], index[:, :k], pictures[:, : settings.k_pictures]
    where = candidates.values[index]  # (N, k, 2)
    distance = np.hypot(*np.moveaxis(where - where[:, :1], -1, 0))  # (N, k)
    elsewhere = distance > settings.radius_m
    first = np.where(elsewhere.any(1), elsewhere.argmax(1), k - 1)
    own = pictures[index[:, 0]] == np.arange(len(score))[:, None]  # (N, k_pictures)
    agreeing = distance[:, 1:BEST] <= settings.near_m
    values = np.stack(
        [
            score[:, 0] - score[np.arange(len(score)), first],
            score[:, 0] - score[:, -1],
            np.where(own.any(1), 1 / (1 + own.argmax(1)), 0.0),
            agreeing.mean(1),
        ],
        axis=1,
    )
    return Evidence(values, index[:, :BEST], score[:, :BEST], distance[:, :BEST], settings)


def placed_right(evidence: Evidence, candidates: Positions, truth: Positions) -> np.ndarray:
    """(N,) float: 1 where the best candidate lies within `radius_m` of the truth, 0 where not, NaN where that is unknown.

    Args:
        evidence: of N pictures.
        candidates: (M,) in metres.
        truth: (N,) in the same frame; for evaluation and calibration alone.
    """
    error = _errors(evidence, candidates, truth)[:, 0]
    return np.where(np.isnan(error), np.nan, error <= evidence.settings.radius_m)


def _errors(evidence: Evidence, candidates: Positions, truth: Positions) -> np.ndarray:
    """(N, B) metres between each of the best candidates and the truth; NaN where unknown."""
    assert truth.frame == candidates.frame, f"{truth.frame} and {candidates.frame}"
    return np.hypot(*np.moveaxis(candidates.values[evidence.best] - truth.values[:, None], -1, 0))


# ----------------------------------------------------------------------------------------------------- the calibration


@dataclass(frozen=True)
class Calibration:
    """A logistic regression of the evidence, and where the truth was when the best candidate was wrong.

    probability = sigmoid((bias + sum_f weight_f (x_f - mean_f) / sd_f) / temperature + shift).

    Args:
        names: the features it looks at, of FEATURES.
        mean: of each where it was fitted.
        sd: of each where it was fitted; 1 where it did not vary.
        weight: of each standardised feature.
        bias: of the fit.
        later: for candidates two to five the part of the wrongly placed pictures whose true place was within radius_m of
            that candidate and of none before it.
        settings: of the evidence; others cannot be used with it.
        measured_on: in words, for captions.
        pictures: how many it was fitted to.
        right: how many of these were right.
        temperature: of `recalibrated`; 1: none.
        shift: of `recalibrated`, of the logit; 0: none.
        version: of the file.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    weight: tuple[float, ...]
    bias: float
    later: tuple[float, ...]
    settings: EvidenceSettings
    measured_on: str
    pictures: int
    right: int
    temperature: float = 1.0
    shift: float = 0.0
    version: int = VERSION

    def __post_init__(self) -> None:
        rows = (self.mean, self.sd, self.weight)
        numbers = [*self.mean, *self.sd, *self.weight, *self.later, self.bias, self.temperature, self.shift]
        fits = (
            self.version == VERSION
            and bool(self.names)
            and all(name in FEATURES for name in self.names)
            and all(len(row) == len(self.names) for row in rows)
            and len(self.later) == BEST - 1
            and all(isinstance(x, (int, float)) and math.isfinite(x) for x in numbers)
            and all(x > 0 for x in (*self.sd, self.temperature))
            and all(x >= 0 for x in self.later)
            and sum(self.later) <= 1 + 1e-9
        )
        if not fits:
            raise InputError(
                "calibration", expected=f"version {VERSION}, finite numbers for features of {', '.join(FEATURES)}", found=self,
                todo="Fit it again.",
            )  # fmt: skip


def fit_calibration(
    evidence: Evidence, candidates: Positions, truth: Positions, *, measured_on: str,
    names: Sequence[str] = FEATURES, penalty: float = 1.0,
) -> Calibration:  # fmt: skip
    """Fits the probability of being right where truth is known: the w, b that minimise log loss + penalty |w|^2 / 2.

    scikit-learn's logistic regression: the loss is summed over the pictures, the features are standardised, the bias is free:
    so the mean probability on these pictures is the part of them that is right. `later` is counted, with one wrong picture
    added whose truth was nowhere.

    Args:
        evidence: of N pictures.
        candidates: (M,) in metres.
        truth: (N,) in the same frame; pictures of unknown truth are left out.
        measured_on: where, in words.
        names: which of FEATURES to look at.
        penalty: of the squared weights, above 0: separable pictures would otherwise make them infinite.

    Raises:
        InputError: none right or none wrong, an unknown feature, a penalty of 0.
    """
    from sklearn.linear_model import LogisticRegression

    error = _errors(evidence, candidates, truth)
    known = ~np.isnan(error[:, 0])
    hits = error[known] <= evidence.settings.radius_m  # (n, B)
    right = hits[:, 0].astype(np.float64)
    if not 0 < right.sum() < len(right):
        raise InputError(
            "truth", expected="pictures placed right and pictures placed wrong", found=f"{int(right.sum())} right of {len(right)}",
            todo="Calibrate where the retrieval is neither perfect nor lost.",
        )  # fmt: skip
    x = evidence.values[known][:, [FEATURES.index(name) for name in names]]
    mean, sd = x.mean(0), x.std(0)
    sd = np.where(sd > 1e-12, sd, 1.0)
    fitted = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000).fit((x - mean) / sd, right)
    wrong = hits[right == 0]
    first = np.where(wrong.any(1), wrong.argmax(1), 0)  # 0: none of the five
    counts = np.bincount(first, minlength=BEST)[1:BEST]
    return Calibration(
        tuple(names), _floats(mean), _floats(sd), _floats(fitted.coef_[0]), float(fitted.intercept_[0]),
        _floats(counts / (len(wrong) + 1)),
        evidence.settings, measured_on, len(right), int(right.sum()),
    )  # fmt: skip


def probabilities(calibration: Calibration, evidence: Evidence) -> np.ndarray:
    """(N,) float64: the probability that each picture's true place is within `radius_m` of its best candidate.

    Raises:
        InputError: evidence made with other settings than the calibration's.
    """
    if calibration.settings != evidence.settings:
        raise InputError(
            "evidence", expected=f"settings {calibration.settings}", found=evidence.settings,
            todo="Make the evidence with the settings of the calibration.",
        )  # fmt: skip
    x = evidence.values[:, [FEATURES.index(name) for name in calibration.names]]
    a = (x - calibration.mean) / calibration.sd @ np.array(calibration.weight) + calibration.bias
    return _kept(expit(a / calibration.temperature + calibration.shift))


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
    x = logit(_kept(p))

    def loss(v: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = x * math.exp(-v[0])
        a = scaled + v[1]
        off = expit(a) - y
        value = np.logaddexp(0, a).sum() - y @ a + v[0] ** 2 / (2 * 0.25**2) + v[1] ** 2 / 2
        return float(value), np.array([-(off @ scaled) + v[0] / 0.25**2, off.sum() + v[1]])

    options = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000}
    log_t, shift = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", options=options).x
    t = math.exp(log_t)
    return replace(
        calibration, temperature=calibration.temperature * t, shift=float(calibration.shift / t + shift)
    )  # fmt: skip


def radius(calibration: Calibration, evidence: Evidence, probability: np.ndarray, level: float = 0.5) -> np.ndarray:
    """(N,) metres around the best candidate within which the true place lies with probability `level`; inf: not known.

    The true place is believed within radius_m of the best candidate with the picture's probability p; with (1 - p) later_j
    within radius_m of candidate j = 2 to 5, which is within distance_m[j] + radius_m of the place; with the rest it may be
    anywhere. The radius is the least of these that gathers `level`: radius_m wherever p >= level, more where other
    candidates nearby make up for it, infinity where all five do not.

    Args:
        calibration: fitted.
        evidence: of N pictures.
        probability: (N,) from `probabilities`.
        level: above 0, below 1; 0.5 is the circular error probable.
    """
    others = evidence.best.shape[1] - 1
    reach = np.column_stack([np.zeros(len(evidence)), evidence.distance_m[:, 1:]]) + evidence.settings.radius_m
    p = np.asarray(probability, np.float64)[:, None]
    mass = np.column_stack([p, (1 - p) * np.array(calibration.later[:others])])
    order = np.argsort(reach, axis=1, kind="stable")
    gathered = np.take_along_axis(mass, order, 1).cumsum(1) >= level - 1e-12
    found = np.take_along_axis(reach, order, 1)[np.arange(len(reach)), gathered.argmax(1)]
    return np.where(gathered.any(1), found, np.inf)


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Writes the calibration as JSON, atomically."""
    write_json(Path(path), asdict(calibration))


def load_calibration(path: Path) -> Calibration:
    """Reads what `save_calibration` wrote.

    Raises:
        InputError: no such file, no JSON, another version, missing or unknown fields.
    """
    path = Path(path)
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        said = found.pop("settings")
        if said.pop("unit", "cosine") != "cosine":
            raise ValueError("scores that are no cosines")
        settings = EvidenceSettings(**said)
        rows = {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}
        return Calibration(settings=settings, **rows)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:  # InputError is a ValueError
        raise InputError(
            path, expected=f"a calibration, version {VERSION}", found=error, todo="Fit it again, or name another file."
        ) from error


# ------------------------------------------------------------------------------------------------------------- helpers


def _kept(p: np.ndarray) -> np.ndarray:
    return np.clip(p, LEAST, 1 - LEAST)


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(x) for x in values)
