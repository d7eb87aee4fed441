"""Pictures of one drive, placed together: a hidden Markov chain on the grid of candidates. Ours.

The state of a picture is the candidate x nearest to it, and p(picture | x) ~ exp(scale s(x)) for its cosines s(x).
Until the next picture the camera moves to any candidate in a disc, as its speed allows, with the same probability; with
LEAK it may be anywhere, as after a gap. Forward-backward (Rabiner 1989, section III.A) then gives p(x | all pictures).
A sum over a disc is a convolution, so a step takes O(M log M) for M candidates, however far it reaches.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.signal import fftconvolve
from scipy.special import softmax

from ucvgl.errors import InputError
from ucvgl.locate.candidates import Candidates
from ucvgl.locate.confidence import BEST, RADIUS_M
from ucvgl.locate.pictures import Picture

LEAK = 0.02  # a tenth or five times of it change little


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
    """(N, M) probability of each candidate for each picture, given all pictures of the drive.

    From the likelihood (N, M) of each alone, in the drive's order, candidates in cells (M, 2), and how many cells
    (N - 1,) the camera may have moved between two pictures; `leak` is the probability that it is anywhere instead.
    """
    count = len(cells)

    def within(values: np.ndarray, radius: float) -> np.ndarray:
        """Sums of values (M,) over the disc around each candidate."""
        widest = int(min(radius, cells.max() + 1))
        side = np.arange(-widest, widest + 1)
        return _spread(values[None], cells, np.hypot(side[:, None], side) <= radius)[0]

    sizes = {radius: within(np.ones(count), radius).round() for radius in np.unique(reach)}
    ahead, behind = likelihood.astype(np.float64), np.ones(likelihood.shape)
    ahead[0] /= ahead[0].sum()
    for t, radius in enumerate(reach, 1):
        ahead[t] *= (1 - leak) * within(ahead[t - 1] / sizes[radius], radius) + leak / count
        ahead[t] /= ahead[t].sum()
    for t, radius in reversed(list(enumerate(reach, 1))):
        later = likelihood[t] * behind[t]
        behind[t - 1] = (1 - leak) * within(later, radius) / sizes[radius] + leak / count * later.sum()
        behind[t - 1] /= behind[t - 1].max()
    both = ahead * behind
    return both / both.sum(1, keepdims=True)


def drive_order(
    pictures: Sequence[Picture], by: Literal["time", "name"], speed_m_s: float, step_m: float
) -> tuple[np.ndarray, np.ndarray]:
    """The order (N,) of a drive's pictures, and how far (N - 1,) metres the camera may have moved between two of them.

    By EXIF's time stamps, at most at a speed; or by names, at most a step each. InputError: a time stamp is missing.
    """
    if by == "name":
        return np.argsort([p.file for p in pictures], kind="stable"), np.full(len(pictures) - 1, step_m)
    if without := [p.file for p in pictures if p.taken_s is None]:
        raise InputError("--drive time", expected="a time stamp (EXIF DateTimeOriginal) in every picture",
                         found=f"{len(without):,} without, such as {without[0]}",
                         todo="Say --drive name, if their names are in order.")  # fmt: skip
    taken = np.array([p.taken_s for p in pictures], np.float64)
    order = np.argsort(taken, kind="stable")
    return order, speed_m_s * np.diff(taken[order])


def place_together(
    cosines: np.ndarray, scale: float, order: np.ndarray, reach_m: np.ndarray, candidates: Candidates
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, M), which a drive takes in an order (N,), moving so far (N - 1,) at most from one to the next.

    Their best candidates (N, B), and the probability of each that the picture was taken within RADIUS_M of it. One
    whose nearest candidate is another may lie so near, too: as many of them as of that one's cell do.
    """
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
