"""Pictures of one drive, placed together: a hidden Markov chain on the grid of candidates.

Ours. The state of a picture is the candidate x nearest to it. What it says itself is a softmax of its cosines s(x):
p(picture | x) ~ exp(scale s(x)). Until the next picture the camera moves no farther than its speed allows, to any candidate
in a disc with the same probability; with LEAK it may be anywhere, as after a gap in the drive. Forward-backward (Rabiner
1989, section III.A) then gives p(x | all pictures) of each picture, exactly. A sum over a disc is a convolution, so a step
takes O(M log M) for M candidates, however far it reaches.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.signal import fftconvolve

from ucvgl.errors import InputError
from ucvgl.locate.candidates import Candidates
from ucvgl.locate.confidence import BEST, LEVELS, RADIUS_M, Placement
from ucvgl.locate.pictures import Picture

LEAK = 0.02  # a tenth or five times of it change little


def cells_of(centre_m: np.ndarray, stride_m: float) -> np.ndarray:
    """(M, 2) int64: column and row of candidates in their grid."""
    return np.round((centre_m - centre_m.min(0)) / stride_m).astype(int)


def softmax(cosines: np.ndarray, scale: float) -> np.ndarray:
    """(N, M) probability of each candidate for each picture alone."""
    value = np.exp(scale * (cosines - cosines.max(1, keepdims=True)))
    return value / value.sum(1, keepdims=True)


def forward_backward(likelihood: np.ndarray, cells: np.ndarray, reach: np.ndarray, leak: float = LEAK) -> np.ndarray:
    """(N, M) probability of each candidate for each picture, given all pictures of the drive.

    Args:
        likelihood: (N, M) of each picture alone, in the drive's order, up to a factor for each.
        cells: (M, 2) of the candidates.
        reach: (N - 1,) in cells, how far the camera may have moved between two pictures.
        leak: probability that it is anywhere instead.
    """
    at, shape, count = tuple(cells.T), tuple(cells.max(0) + 1), len(cells)

    def within(values: np.ndarray, radius: float) -> np.ndarray:
        """Sums of values (M,) over the disc around each candidate."""
        sheet = np.zeros(shape)
        sheet[at] = values
        side = np.arange(-int(min(radius, max(shape))), int(min(radius, max(shape))) + 1)
        return fftconvolve(sheet, np.hypot(side[:, None], side) <= radius, mode="same")[at].clip(min=0)

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
    """The order (N,) of pictures, and how far (N - 1,) metres the camera may have moved between two of them.

    Args:
        pictures: of one drive.
        by: their order: EXIF's time stamps, or their names.
        speed_m_s: at most, between two time stamps.
        step_m: at most, between two pictures in the order of their names.

    Raises:
        InputError: a picture without a time stamp, where these order them.
    """
    if by == "name":
        return np.argsort([p.file for p in pictures], kind="stable"), np.full(len(pictures) - 1, step_m)
    without = [p.file for p in pictures if p.taken_s is None]
    if without:
        raise InputError("--drive time", expected="a time stamp (EXIF DateTimeOriginal) in every picture",
                         found=f"{len(without):,} without, such as {without[0]}",
                         todo="Say --drive name, if their names are in order.")  # fmt: skip
    taken = np.array([p.taken_s for p in pictures], np.float64)
    order = np.argsort(taken, kind="stable")
    return order, speed_m_s * np.diff(taken[order])


def place_together(
    cosines: np.ndarray, scale: float, order: np.ndarray, reach_m: np.ndarray, candidates: Candidates
) -> Placement:
    """Pictures (N, M), which a drive takes in an order (N,), moving so far (N - 1,) at most from one to the next."""
    centre_m, stride_m = candidates.centre_m, candidates.stride_m
    # candidates nearest to two places may lie a diagonal of the grid farther apart than these
    reach = reach_m / stride_m + np.sqrt(2)
    posterior = forward_backward(softmax(cosines[order], scale), cells_of(centre_m, stride_m), reach)
    return place_drive(posterior[np.argsort(order)], centre_m, stride_m)


def place_drive(posterior: np.ndarray, centre_m: np.ndarray, stride_m: float) -> Placement:
    """Each picture at the candidate within RADIUS_M of which it most probably was taken.

    One whose nearest candidate is another may lie so near, too: as many of them as of that one's cell do.
    """
    steps = ((np.arange(20) + 0.5) / 20 - 0.5) * stride_m
    reach = int(RADIUS_M / stride_m) + 1
    away = (stride_m * np.arange(-reach, reach + 1)[:, None] + steps).ravel()  # of points in the cells around
    part = (np.hypot(away[:, None], away) <= RADIUS_M).reshape(2 * reach + 1, 20, -1, 20).mean((1, 3))
    at = tuple(cells_of(centre_m, stride_m).T)
    sheet = np.zeros((len(posterior), *(np.max(at, 1) + 1)))
    sheet[:, *at] = posterior
    near = fftconvolve(sheet, part[None], mode="same", axes=(1, 2))[:, *at].clip(0, 1)  # (N, M)
    best = np.argsort(-near, axis=1, kind="stable")[:, :BEST]
    score = np.take_along_axis(near, best, 1)
    away = np.hypot(*np.moveaxis(centre_m - centre_m[best[:, :1]], -1, 0))  # (N, M)
    order = np.argsort(away, axis=1, kind="stable")
    gathered = np.take_along_axis(posterior, order, 1).cumsum(1)[:, :, None] < LEVELS  # (N, M, 2)
    reached = np.take_along_axis(away, np.take_along_axis(order, gathered.sum(1).clip(max=len(centre_m) - 1), 1), 1)
    return Placement(best, score, np.take_along_axis(away, best, 1), score[:, 0], reached.clip(min=RADIUS_M))
