"""Figures of a city that pictures are searched in: its folders, the best candidates, the adaptation, the likelihood.

Each takes plain tensors and arrays, knows no method, and returns a matplotlib figure.
"""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from scipy.spatial import cKDTree
from torch import Tensor

from ucvgl.lab.plots import PALETTE, RIGHT_COLOUR, WIDTH_IN, as_picture, framed, sheet, show
from ucvgl.locate.adapt import Round
from ucvgl.locate.map_figures import round_length
from ucvgl.locate.map_page import Background
from ucvgl.positions import Positions, Wgs84, to_metres

PICTURES = 4  # rows of a sheet: more would be too small to read
SQUARES = ("#ffd400", "#00e5ff", "#ff4fd8")  # three neighbours; told apart on roofs, asphalt and grass
DARK = withStroke(linewidth=3, foreground="#000000b0")  # around what is drawn on a photograph


def imagery_sheet(
    panoramas: Sequence[Tensor],
    top_views: Sequence[Tensor],
    background: Background,
    centres: np.ndarray,
    *,
    span_m: float,
) -> Figure:
    """What the two folders hold: the tiles joined, three neighbouring candidates up close, street pictures and top views.

    Args:
        panoramas: R pictures (3, H, W), of which the first PICTURES are shown.
        top_views: R of them from above (3, S, S), north up.
        background: the mosaic of the tiles.
        centres: (M, 2) latitude and longitude of all candidates, two or more.
        span_m: edge of a candidate.
    """
    edges, at = _metres(background, centres)
    figure = plt.figure(figsize=(WIDTH_IN, 7.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.16), wspace=0.02)
    whole, close = left.subplots(2, 1, height_ratios=(1.75, 1))
    _mosaic(whole, background, edges)
    box = _neighbours(close, background, edges, at, span_m)
    whole.add_patch(Rectangle(*box, fill=False, edgecolor=SQUARES[0], linewidth=2, path_effects=[DARK]))
    whole.set_title("The satellite tiles, joined; north up")
    _scale_bar(whole, edges)
    grid = right.subplots(min(PICTURES, len(panoramas)), 2, squeeze=False, width_ratios=(2, 1))
    for panels, *images in zip(grid, panoramas, top_views, strict=False):
        for axes, image in zip(panels, images, strict=True):
            show(axes, image)
    grid[0, 0].set_title("Street pictures, place unknown")
    grid[0, 1].set_title("Seen from above, north up")
    return figure


def _metres(background: Background, *degrees: np.ndarray) -> tuple[np.ndarray, ...]:
    """The corners of the mosaic (2, 2), low and high, and other places in metres east and north of its middle."""
    corners = np.array([(background.south, background.west), (background.north, background.east)])
    origin = tuple(corners.mean(0))
    return tuple(to_metres(Positions(np.asarray(d, np.float64), Wgs84()), origin).values for d in (corners, *degrees))


def _mosaic(axes: Axes, background: Background, edges: np.ndarray) -> None:
    (west, south), (east, north) = edges
    axes.imshow(as_picture(background.image), extent=(west, east, south, north))
    axes.set_axis_off()


def _scale_bar(axes: Axes, edges: np.ndarray) -> None:
    across, high = edges[1] - edges[0]
    length = round_length(across / 4)
    left, low = edges[0] + np.array([0.03 * across, 0.03 * high])
    axes.plot([left, left + length], [low, low], color="white", linewidth=4, solid_capstyle="butt", path_effects=[DARK])
    axes.annotate(f"{length:g} m", (left, low), (0, 5), textcoords="offset points", color="white", path_effects=[DARK])


def _neighbours(
    axes: Axes, background: Background, edges: np.ndarray, at: np.ndarray, span_m: float
) -> tuple[tuple[float, float], float, float]:
    """The middle candidate and its next two to the east on the mosaic; gives back the part shown, for a Rectangle."""
    tree, first = cKDTree(at), int(np.abs(at - edges.mean(0)).sum(1).argmin())
    stride = float(np.median(tree.query(at, k=2)[0][:, 1]))
    off, row = tree.query(at[first] + stride * np.array([[0, 0], [1, 0], [2, 0]]))
    squares = at[row[off < stride / 4]]  # a gap in the grid has no candidate
    middle = squares.mean(0)
    half = np.array([0.95, 0.62]) * max(span_m, 1.4 * stride) + (squares[-1] - squares[0]) / 2
    low = middle - half
    _mosaic(axes, background, edges)
    inside = at[(np.abs(at - middle) <= half * 0.97).all(1)]
    axes.scatter(*inside.T, s=13, c="white", edgecolors="black", linewidths=0.7)
    for square, colour, line in zip(squares, SQUARES, ("-", "--", "-."), strict=False):
        axes.add_patch(Rectangle(tuple(square - span_m / 2), span_m, span_m, fill=False, edgecolor=colour, linewidth=2.2,
                                 linestyle=line, path_effects=[DARK]))  # fmt: skip
        axes.plot(*square, "o", color=colour, markersize=6, markeredgecolor="black", markeredgewidth=0.8)
    axes.set(xlim=(low[0], low[0] + 2 * half[0]), ylim=(low[1], low[1] + 2 * half[1]))
    axes.set_title(f"In the frame: {len(squares)} of {len(at):,} candidates, {span_m:g} m wide;\n"
                   f"every dot, {stride:.3g} m apart, is the middle of one")  # fmt: skip
    return (float(low[0]), float(low[1])), float(2 * half[0]), float(2 * half[1])


def candidates_row(
    picture: Sequence[Tensor], top_view: Sequence[Tensor], tiles: Sequence[Sequence[Tensor]],
    captions: Sequence[Sequence[str]], right: Sequence[Sequence[bool | None]], *, titles: Sequence[str],
) -> Figure:  # fmt: skip
    """A picture a row: the picture, its top view and its best candidates, framed and marked where the truth is known.

    Args:
        picture: R pictures (3, H, W).
        top_view: their top views (3, S, S).
        tiles: for each its candidates (3, S, S), the best first.
        captions: a short text beneath each candidate.
        right: whether each candidate is the place; None: not known, and no frame.
        titles: a text above each row.
    """
    columns, none = {"": list(picture), "seen from above": list(top_view)}, torch.full_like(tiles[0][0], 255)
    for rank in range(max(map(len, tiles))):
        column = columns[str(rank + 1) if rank else "best candidate"] = []
        for row, known in zip(tiles, right, strict=True):
            true = known[rank] if rank < len(row) else None
            column.append(framed(row[rank] if rank < len(row) else none, math.nan if true is None else true))
    figure = sheet(columns)
    figure.set_figheight(figure.get_figheight() + 0.42 * len(titles))
    for panels, title, texts in zip(np.reshape(figure.axes, (len(titles), -1)), titles, captions, strict=True):
        panels[0].set_title(title)
        for axes, text in zip(panels[2:], texts, strict=False):
            axes.text(0.5, -0.06, text, ha="center", va="top", fontsize=9, transform=axes.transAxes)
    return figure


def quality_rounds(rounds: Sequence[Round]) -> Figure:
    """Mutual matches and mean margin over the rounds of adaptation, neither of which needs a label; the chosen round marked.

    rounds: in their order, the first as the encoders came; chosen is that of most mutual matches, the later of equals, as
    `locate.adapt` chooses.
    """
    values = np.array([(100 * one.mutual_rate, one.mean_margin) for one in rounds])  # (R, 2)
    chosen = max(range(len(values)), key=lambda number: (values[number, 0], number))
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH_IN, 3.4), layout="constrained")
    names = ("pictures with a mutual match (%)", "mean margin (cosine)")
    for axes, name, column, colour, form in zip(panels, names, values.T, PALETTE, ("{:.1f}", "{:.4f}"), strict=False):
        axes.axvline(chosen, color="#999999", linestyle=":", linewidth=1.4, zorder=0)
        axes.plot(column, "o-", color=colour, markersize=4.5)
        axes.plot(chosen, column[chosen], "o", color=colour, markersize=11, markeredgecolor="black", zorder=3)
        before, after = form.format(column[0]), form.format(column[chosen])
        axes.set(title=f"{name}\n{before} as they came, {after} in the chosen round", xlabel="epoch of adaptation")
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def likelihood_maps(
    maps: Mapping[str, np.ndarray], background: Background, centres: np.ndarray, *,
    truth: tuple[float, float] | None = None, columns: int = 2,
) -> Figure:  # fmt: skip
    """How probable each candidate is, over the mosaic: the darker the more, the best ringed, the truth a cross.

    Args:
        maps: title -> (M,) probabilities of all candidates, one or more.
        background: the mosaic of the tiles.
        centres: (M, 2) latitude and longitude of the candidates.
        truth: latitude and longitude where the picture was taken; None: not drawn.
        columns: of panels.
    """
    edges, at, true = _metres(background, centres, [(math.nan, math.nan) if truth is None else truth])
    rows = -(-len(maps) // columns)
    figure, grid = plt.subplots(
        rows, columns, squeeze=False, figsize=(WIDTH_IN, 0.49 * WIDTH_IN * rows), layout="constrained"
    )
    for axes in grid.ravel():
        axes.set_axis_off()
    grey = as_picture(background.image).mean(-1)
    for axes, (title, p) in zip(grid.ravel(), maps.items(), strict=False):
        (west, south), (east, north) = edges
        axes.imshow(grey, extent=(west, east, south, north), cmap="gray", alpha=0.55)
        shown = p >= p.max() / 1000  # three powers of ten
        order = np.flatnonzero(shown)[np.argsort(p[shown], kind="stable")]
        dots = axes.scatter(*at[order].T, s=9, c=np.log10(p[order]), cmap="magma_r", linewidths=0)
        axes.scatter(*at[p.argmax()], s=130, facecolors="none", edgecolors=PALETTE[0], linewidths=2.4)
        axes.scatter(*true.T, s=90, marker="x", c=RIGHT_COLOUR, linewidths=2.6, path_effects=[DARK])
        axes.set(title=title, xlim=(west, east), ylim=(south, north))
        figure.colorbar(dots, ax=axes, shrink=0.6, label="log10 of the probability")
    return figure
