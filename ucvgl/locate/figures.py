"""Maps for paper: how probable each candidate is, and the places that were found. In metres about the middle of the mosaic."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

from ucvgl.lab.plots import PALETTE, RIGHT_COLOUR, WIDTH_IN, as_picture
from ucvgl.locate.located import Truth
from ucvgl.locate.map_page import Background
from ucvgl.positions import Positions, Wgs84, to_metres

COLOURS = "plasma"  # as map_page.SCALE
DARK = withStroke(linewidth=3, foreground="#000000b0")  # around what is drawn on a photograph


def _metres(background: Background, degrees: Sequence[tuple[float, float]] | np.ndarray) -> np.ndarray:
    """(N, 2) east and north of the middle of the mosaic, from latitude and longitude."""
    middle = (background.south + background.north) / 2, (background.west + background.east) / 2
    return to_metres(Positions(degrees, Wgs84()), middle).values


def _mosaic(axes: Axes, background: Background, *, grey: bool = False) -> None:
    """The tiles, north up, without axes."""
    (west, south), (east, north) = _metres(
        background, [(background.south, background.west), (background.north, background.east)]
    )
    image, extent = as_picture(background.image), (west, east, south, north)
    if grey:
        axes.imshow(image.mean(-1), extent=extent, cmap="gray", alpha=0.55)
    else:
        axes.imshow(image, extent=extent)
    axes.set_axis_off()


def _scale_bar(axes: Axes) -> None:
    """About a quarter of what is shown."""
    length = round_length(float(np.ptp(axes.get_xlim())) / 4)
    axes.add_artist(AnchoredSizeBar(axes.transData, length, f"{length:g} m; north is up", "lower left", pad=0.3))


def round_length(metres: float) -> float:
    """The greatest of 1, 2, 5, 10, 20, ... (or 0.5, 0.2, ...) that is no greater."""
    ten = 10.0 ** math.floor(math.log10(metres))
    return next(step * ten for step in (5, 2, 1) if step * ten <= metres * (1 + 1e-9))


def likelihood_maps(
    maps: Mapping[str, np.ndarray], background: Background, centres: np.ndarray, *,
    truth: tuple[float, float] | None = None,
) -> Figure:  # fmt: skip
    """How probable each candidate is, over the mosaic: the darker the more, the best ringed, the truth a cross.

    Args:
        maps: title -> (M,) probabilities of all candidates, one or two.
        background: the mosaic of the tiles.
        centres: (M, 2) latitude and longitude of the candidates.
        truth: latitude and longitude where the picture was taken; None: not drawn.
    """
    at = _metres(background, centres)
    figure, grid = plt.subplots(
        1, len(maps), squeeze=False, figsize=(WIDTH_IN, 0.98 * WIDTH_IN / max(len(maps), 1.6)), layout="constrained"
    )
    for axes, (title, p) in zip(grid[0], maps.items(), strict=True):
        _mosaic(axes, background, grey=True)
        order = np.argsort(p, kind="stable")
        order = order[p[order] >= p.max() / 1000]  # three powers of ten
        dots = axes.scatter(*at[order].T, s=9, c=np.log10(p[order]), cmap="magma_r", linewidths=0)
        axes.scatter(*at[p.argmax()], s=130, facecolors="none", edgecolors=PALETTE[0], linewidths=2.4)
        if truth is not None:
            true = _metres(background, [truth])
            axes.scatter(*true.T, s=90, marker="x", c=RIGHT_COLOUR, linewidths=2.6, path_effects=[DARK])
        axes.set_title(title)
        figure.colorbar(dots, ax=axes, shrink=0.6, label="log10 of the probability")
    return figure


def result_map(places: pd.DataFrame, background: Background, *, truth: Truth | None = None) -> Figure:
    """The places over the mosaic, coloured by probability, the most probable on top; north is up.

    places: of `located.places`, at least one. truth: picture -> latitude and longitude of some; a line then leads from each
    of their places to the true one.
    """
    figure, axes = plt.subplots(figsize=(8.6, 7.4), layout="constrained")
    _mosaic(axes, background)
    at, p = _metres(background, places[["latitude", "longitude"]].to_numpy()), places["probability"].to_numpy()
    if truth:
        known = places["picture"].isin(truth).to_numpy()
        true = _metres(background, [truth[name] for name in places["picture"][known]])
        thin = float(np.clip(40 / max(1, len(true)), 0.15, 1))  # hundreds of lines would hide the places
        for colour, width in (("black", 2.4), ("white", 1.1)):
            lines = list(np.stack([at[known], true], axis=1))
            axes.add_collection(LineCollection(lines, colors=colour, linewidths=width, alpha=thin))
        axes.scatter(*true.T, s=12, marker="s", c="white", edgecolors="black", linewidths=0.7, label="known position")
        axes.legend(loc="lower right")
    order = np.argsort(p, kind="stable")
    size = float(np.clip(6000 / len(p), 14, 60))
    axes.scatter(*at[order].T, s=size * 1.5, c="black", linewidths=0, zorder=4)  # dark around white: seen on any ground
    dots = axes.scatter(*at[order].T, s=size, c=p[order], cmap=COLOURS, vmin=0, vmax=1, edgecolors="white", linewidths=0.9,
                        zorder=5)  # fmt: skip
    figure.colorbar(dots, ax=axes, label="probability of the place", shrink=0.8)
    _scale_bar(axes)
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
