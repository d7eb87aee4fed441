"""Figures of located pictures for paper: the map, and whether the probabilities hold. Each returns a matplotlib figure."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from ucvgl.lab.plots import PALETTE, WIDTH_IN, as_picture
from ucvgl.locate.located import Located, Truth
from ucvgl.locate.map_page import Background
from ucvgl.metrics import calibration_error, reliability
from ucvgl.positions import Positions, Wgs84, to_metres

COLOURS = "plasma"  # as map_page.SCALE
BARS = 20  # of the histogram under a reliability diagram


def result_map(located: Sequence[Located], background: Background, *, truth: Truth | None = None) -> Figure:
    """The places over the mosaic, coloured by probability, the most probable on top; north is up.

    located: at least one. truth: picture -> latitude and longitude of some; a line then leads from each of their places to
    the true one.
    """
    known = np.array([one.picture in (truth or {}) for one in located])
    degrees = [(background.south, background.west), (background.north, background.east)]
    degrees += [(one.latitude, one.longitude) for one in located]
    degrees += [truth[one.picture] for one in located if truth and one.picture in truth]
    metres = to_metres(Positions(degrees, Wgs84())).values
    (left, low), (right, high) = metres[:2]
    at, true = metres[2 : 2 + len(located)], metres[2 + len(located) :]
    figure, axes = plt.subplots(figsize=(8.6, 7.4), layout="constrained")
    axes.imshow(as_picture(background.image), extent=(left, right, low, high), zorder=0)
    p = np.array([one.probability for one in located])
    if truth is not None:
        lines = np.stack([at[known], true], axis=1)
        thin = float(np.clip(40 / max(1, len(lines)), 0.15, 1))  # hundreds of lines would hide the places
        for colour, width in (("black", 2.4), ("white", 1.1)):
            axes.add_collection(LineCollection(list(lines), colors=colour, linewidths=width, alpha=thin, zorder=2))
        axes.scatter(*true.T, s=12, marker="s", c="white", edgecolors="black", linewidths=0.7, zorder=3,
                     label="known position")  # fmt: skip
        axes.legend(loc="lower right")
    order = np.argsort(p, kind="stable")
    size = float(np.clip(6000 / len(p), 14, 60))
    axes.scatter(*at[order].T, s=size * 1.5, c="black", linewidths=0, zorder=4)  # dark around white: seen on any ground
    dots = axes.scatter(*at[order].T, s=size, c=p[order], cmap=COLOURS, vmin=0, vmax=1, edgecolors="white", linewidths=0.9,
                        zorder=5)  # fmt: skip
    figure.colorbar(dots, ax=axes, label="probability of the place", shrink=0.8)
    _frame(axes, metres)
    return figure


def _frame(axes: Axes, metres: np.ndarray) -> None:
    """Limits around all that is shown, no axes, and a scale bar below it."""
    low, high = metres.min(0), metres.max(0)
    margin = max(10.0, 0.03 * float((high - low).max()))
    low, high = low - margin, high + margin
    height = float(high[1] - low[1])
    axes.set(xlim=(low[0], high[0]), ylim=(low[1] - 0.07 * height, high[1]), aspect="equal")
    axes.set_axis_off()
    length = round_length(float(high[0] - low[0]) / 3)
    left, below = low[0] + margin, low[1] - 0.02 * height
    axes.plot([left, left + length], [below, below], color="black", linewidth=3, solid_capstyle="butt", zorder=6)
    name = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    axes.annotate(f"{name}; north is up", (left, below), (0, -4), textcoords="offset points", va="top", fontsize=10)


def round_length(metres: float) -> float:
    """The greatest of 1, 2, 5, 10, 20, ... (or 0.5, 0.2, ...) that is no greater."""
    ten = 10.0 ** math.floor(math.log10(metres))
    return next(step * ten for step in (5, 2, 1) if step * ten <= metres * (1 + 1e-9))


def reliability_diagram(measured: Mapping[str, tuple[np.ndarray, np.ndarray]], *, bins: int = 10) -> Figure:
    """Predicted probability and empirical accuracy, below them how many pictures have which probability (Guo et al. 2017).

    measured: where -> probability (N,) and right (N,) of 1, 0 or NaN where not known; a column each. Bars at the points are
    95 % intervals: a point whose bar crosses the diagonal is no evidence against the calibration.
    """
    figure, grid = plt.subplots(
        2, len(measured), squeeze=False, sharex=True, sharey="row", height_ratios=(2.6, 1), layout="constrained",
        figsize=(min(WIDTH_IN, 0.8 + 4.4 * len(measured)), 5.6),
    )  # fmt: skip
    for (upper, lower), (name, (probability, right)) in zip(grid.T, measured.items(), strict=True):
        table = reliability(probability, right, bins)
        error = 100 * calibration_error(probability, right, bins)
        upper.plot([0, 1], [0, 1], color="#777777", linestyle=":", linewidth=1.2)
        spread = np.stack([table["true"] - table["low"], table["high"] - table["true"]]).clip(min=0)
        upper.errorbar(table["claimed"], table["true"], yerr=spread, fmt="o-", color=PALETTE[0], ecolor="#8fb7c5",
                       elinewidth=2, linewidth=1.3, markersize=5)  # fmt: skip
        for _, row in table.iterrows():
            upper.annotate(f"{row['pictures']:.0f}", (row["claimed"], row["true"]), (6, -11), textcoords="offset points",
                           fontsize=8.5, path_effects=[withStroke(linewidth=2, foreground="white")])  # fmt: skip
        upper.set(title=f"{name}\ncalibration error {error:.1f} points", xlim=(0, 1), ylim=(-0.02, 1.02))
        known = ~np.isnan(np.asarray(right, np.float64))
        p, y = np.asarray(probability)[known], np.asarray(right, np.float64)[known]
        lower.hist([p[y == 1], p[y == 0]], bins=BARS, range=(0, 1), stacked=True, color=[PALETTE[0], PALETTE[1]],
                   label=["right", "wrong"])  # fmt: skip
        lower.set(xlabel="predicted probability")
        lower.yaxis.get_major_locator().set_params(integer=True)
    grid[0, 0].set_ylabel("empirical accuracy\n(numbers: pictures in a bin)")
    grid[1, 0].set_ylabel("pictures")
    figure.legend(*grid[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes a figure, atomically, and closes it."""
    partial = path.with_name(f".{path.name}.partial.png")
    try:
        figure.savefig(partial, dpi=130)
        partial.replace(path)
    finally:
        plt.close(figure)
        partial.unlink(missing_ok=True)  # a full disk, Ctrl-C
