"""Figures of a city that pictures are searched in: its folders, the best candidates, the adaptation, the likelihood.

Each takes plain tensors and arrays, knows no method, and returns a matplotlib figure. Right and wrong have the colours and
marks of retrieval_figures; a candidate whose truth is not known has neither. Sheets of pictures raise InputError on shapes
that do not fit.
"""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from scipy.spatial import cKDTree
from torch import Tensor

from ucvgl.errors import InputError
from ucvgl.lab.plots import PALETTE, RIGHT_COLOUR, WIDTH_IN, WRONG_COLOUR, as_picture, show
from ucvgl.locate.adapt import Round
from ucvgl.locate.confidence import BEST
from ucvgl.locate.map_figures import round_length
from ucvgl.locate.map_page import Background
from ucvgl.positions import Positions, Wgs84, to_metres
from ucvgl.retrieval_figures import CROSS, TICK

PICTURES = 4  # rows of a sheet: more would be too small to read
SQUARES = ("#ffd400", "#00e5ff", "#ff4fd8")  # three neighbours; told apart on roofs, asphalt and grass
QUIET = "#777777"
GAP_IN, HEAD_IN, CAPTION_IN, MOST_IN = 0.12, 0.24, 0.42, 1.8  # of `candidates_row`
DARK = withStroke(linewidth=3, foreground="#000000b0")  # around what is drawn on a photograph


# -------------------------------------------------------------------------------------------------------- the two folders


def imagery_sheet(
    panoramas: Sequence[Tensor], top_views: Sequence[Tensor], background: Background, centres: np.ndarray, *,
    span_m: float, shown: int | None = None,
) -> Figure:  # fmt: skip
    """What the two folders hold: the tiles joined, three neighbouring candidates up close, street pictures and top views.

    Args:
        panoramas: R pictures (3, H, W), of which the first PICTURES are shown.
        top_views: R of them from above (3, S, S), north up.
        background: the mosaic of the tiles.
        centres: (M, 2) latitude and longitude of all candidates, two or more.
        span_m: edge of a candidate.
        shown: the candidate that is drawn with its neighbours to the east; None: the one in the middle of the mosaic.

    Raises:
        InputError: no picture, a picture without a top view, one candidate, a span of 0, a candidate that is none.
    """
    centres = np.asarray(centres, np.float64)
    _check(len(panoramas) == len(top_views) > 0, "imagery sheet", "street pictures, a top view each",
           f"{len(panoramas)} and {len(top_views)}", "Give as many of one as of the other.")  # fmt: skip
    _check_pictures("imagery sheet", [*panoramas[:PICTURES], *top_views[:PICTURES]])
    _check(centres.ndim == 2 and centres.shape[1] == 2 and len(centres) > 1 and span_m > 0, "imagery sheet: candidates",
           "centres (M, 2), two or more, and a span above 0", f"{centres.shape}, {span_m:g} m",
           "Cut the mosaic into candidates.")  # fmt: skip
    _check(shown is None or 0 <= shown < len(centres), "imagery sheet: shown", f"0 to {len(centres) - 1}", shown,
           "Choose a candidate.")  # fmt: skip
    corners = np.array([(background.south, background.west), (background.north, background.east)])
    origin = tuple(corners.mean(0))
    edges, at = (to_metres(Positions(values, Wgs84()), origin).values for values in (corners, centres))
    first = int(np.abs(at - edges.mean(0)).sum(1).argmin()) if shown is None else shown
    rows = min(PICTURES, len(panoramas))
    figure = plt.figure(figsize=(WIDTH_IN, 7.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.16), wspace=0.02)
    whole, close = left.subplots(2, 1, height_ratios=(1.75, 1))
    _mosaic(whole, background, edges)
    box = _neighbours(close, background, edges, at, first, span_m)
    whole.add_patch(Rectangle(*box, fill=False, edgecolor=SQUARES[0], linewidth=2, path_effects=[DARK]))
    whole.set_title("The satellite tiles, joined; north up")
    _scale_bar(whole, edges)
    grid = right.subplots(rows, 2, squeeze=False, width_ratios=(2, 1))
    for row, panels in enumerate(grid):
        for axes, image in zip(panels, (panoramas[row], top_views[row]), strict=True):
            show(axes, image)
    grid[0, 0].set_title("Street pictures, place unknown")
    grid[0, 1].set_title("Seen from above, north up")
    return figure


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
    axes: Axes, background: Background, edges: np.ndarray, at: np.ndarray, first: int, span_m: float
) -> tuple[tuple[float, float], float, float]:
    """A candidate and its next two to the east on the mosaic, with the lengths; gives back the part shown, for a Rectangle."""
    tree = cKDTree(at)
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


# --------------------------------------------------------------------------------------------------------- what was found


def candidates_row(
    picture: Sequence[Tensor], top_view: Sequence[Tensor], tiles: Sequence[Sequence[Tensor]],
    captions: Sequence[Sequence[str]], right: Sequence[Sequence[bool | None]], *, titles: Sequence[str] = (),
) -> Figure:  # fmt: skip
    """A picture a row: the picture, its top view and its best candidates, framed and marked where the truth is known.

    Args:
        picture: one to four pictures (3, H, W).
        top_view: their top views (3, S, S).
        tiles: for each its candidates (3, S, S), one to five, the best first.
        captions: a short text beneath each candidate.
        right: whether each candidate is the place; None: not known, and no frame.
        titles: a text above each row, or none.

    Raises:
        InputError: no row or more than four, numbers that do not fit, no candidate or more than five.
    """
    counts = [len(row) for row in tiles]
    lengths = {len(picture), len(top_view), len(tiles), len(captions), len(right), len(titles or picture)}
    _check(len(lengths) == 1 and 1 <= len(tiles) <= PICTURES, "candidates", f"1 to {PICTURES} pictures, and all else for each",
           sorted(lengths), "Give a row a picture.")  # fmt: skip
    fits = all(len(c) == len(r) == n for c, r, n in zip(captions, right, counts, strict=True))
    _check(fits and all(1 <= n <= BEST for n in counts), "candidates", f"1 to {BEST} in a row, with a caption and a truth each",
           [counts, [len(c) for c in captions], [len(r) for r in right]], "Give None where truth is not known.")  # fmt: skip
    _check_pictures("candidates", [*picture, *top_view, *(tile for row in tiles for tile in row)])
    wide, most = max(image.shape[-1] / image.shape[-2] for image in picture), max(counts)
    side = min((WIDTH_IN - GAP_IN * (most + 3)) / (wide + 1 + most), MOST_IN)
    lefts = np.cumsum([GAP_IN / 2, wide * side + GAP_IN, side + 2 * GAP_IN] + [side + GAP_IN] * (most - 1))
    title_in = 1.2 * HEAD_IN * bool(titles)
    pitch = title_in + side + CAPTION_IN
    size = (float(lefts[-1]) + side + GAP_IN / 2, HEAD_IN + len(counts) * pitch)
    # not "none": saving would then fall back on the style's layout, which has nothing to lay out here and warns
    figure = plt.figure(figsize=size, layout=PlaceHolderLayoutEngine(adjust_compatible=True, colorbar_gridspec=True))
    heads = ["picture", "seen from above", "best candidate", *map(str, range(2, BEST + 1))]
    for row in range(len(counts)):
        top = HEAD_IN + row * pitch + title_in
        if titles:
            figure.text(
                lefts[0] / size[0],
                1 - (top - 0.07 - HEAD_IN * (row == 0)) / size[1],
                titles[row],
                fontsize=11,
                weight="bold",
            )
        images = [picture[row], top_view[row], *tiles[row]]
        for number, (image, left) in enumerate(zip(images, lefts, strict=False)):
            width = side * (wide if number == 0 else 1)
            box = (left / size[0], 1 - (top + side) / size[1], width / size[0], side / size[1])
            axes = figure.add_axes(box)
            show(axes, image)
            if row == 0:
                figure.text((left + width / 2) / size[0], 1 - (top - 0.07) / size[1], heads[number], ha="center",
                            fontsize=9.5, color=QUIET)  # fmt: skip
            if number > 1:
                axes.text(
                    0.5, -0.06, captions[row][number - 2], ha="center", va="top", fontsize=9, transform=axes.transAxes
                )
                correct = right[row][number - 2]
                if correct is not None:
                    _frame(axes, bool(correct))
    return figure


def _frame(axes: Axes, right: bool) -> None:
    colour, place = (RIGHT_COLOUR if right else WRONG_COLOUR), axes.transAxes
    axes.add_patch(Rectangle((0, 0), 1, 1, fill=False, edgecolor=colour, linewidth=4, clip_on=False, transform=place))
    axes.text(0.07, 0.92, TICK if right else CROSS, va="top", color="white", fontsize=12, family="DejaVu Sans",
              bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.5}, transform=place)  # fmt: skip


# --------------------------------------------------------------------------------------------------------- the adaptation


def quality_rounds(rounds: Sequence[Round], *, chosen: int | None = None) -> Figure:
    """Mutual matches and mean margin over the rounds of adaptation, neither of which needs a label; the chosen round marked.

    Args:
        rounds: in their order, the first as the encoders came.
        chosen: the round that was kept; None: that of most mutual matches, the later of equals, as `methods.adapt` chooses.

    Raises:
        InputError: no round, a measure that is not finite, a chosen one that is none.
    """
    values = np.array([(100 * one.mutual_rate, one.mean_margin) for one in rounds]).reshape(-1, 2)
    _check(len(values) > 0 and bool(np.isfinite(values).all()), "rounds", "one or more, with finite measures",
           values.tolist(), "Adapt first.")  # fmt: skip
    if chosen is None:
        chosen = max(range(len(values)), key=lambda number: (values[number, 0], number))
    _check(0 <= chosen < len(values), "rounds: chosen", f"0 to {len(values) - 1}", chosen, "Count from 0.")
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH_IN, 3.4), layout="constrained")
    place = np.arange(len(values))
    names = ["as they\ncame" if one.name == "as they came" else one.name.removeprefix("epoch ") for one in rounds]
    every = -(-len(values) // 12)  # names that would touch are left out
    for axes, name, column, colour, form in zip(
        panels, ("pictures with a mutual match (%)", "mean margin (cosine)"), values.T, PALETTE, ("{:.1f}", "{:.4f}"),
        strict=False,
    ):  # fmt: skip
        axes.axvline(chosen, color="#999999", linestyle=":", linewidth=1.4, zorder=0)
        axes.plot(place, column, "o-", color=colour, markersize=4.5)
        axes.plot(chosen, column[chosen], "o", color=colour, markersize=11, markeredgecolor="black", zorder=3)
        before, after = form.format(column[0]), form.format(column[chosen])
        axes.set(title=f"{name}\n{before} as they came, {after} in the chosen round", xlabel="epoch of adaptation",
                 xlim=(-0.5, len(values) - 0.5), xticks=place[::every], xticklabels=names[::every])  # fmt: skip
        axes.margins(y=0.18)
        late = chosen > 0.75 * (len(values) - 1)
        axes.annotate("chosen", (chosen, axes.get_ylim()[0]), (-5 if late else 5, 5), textcoords="offset points",
                      ha="right" if late else "left", fontsize=9.5)  # fmt: skip
    return figure


# ------------------------------------------------------------------------------------------------------- the likelihood


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
    corners = np.array([(background.south, background.west), (background.north, background.east)])
    origin = tuple(corners.mean(0))
    some = [corners, centres, np.array([(math.nan, math.nan) if truth is None else truth])]
    edges, at, true = (to_metres(Positions(values, Wgs84()), origin).values for values in some)
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
        axes.scatter(
            *true.T,
            s=90,
            marker="x",
            c=RIGHT_COLOUR,
            linewidths=2.6,
            path_effects=[withStroke(linewidth=4.5, foreground="white")],
        )
        axes.set(title=title, xlim=(west, east), ylim=(south, north))
        figure.colorbar(dots, ax=axes, shrink=0.6, label="log10 of the probability")
    return figure


# ------------------------------------------------------------------------------------------------------------- the checks


def _check_pictures(where: str, images: Sequence[Tensor]) -> None:
    shapes = {tuple(image.shape) for image in images}
    fits = all(len(shape) == 3 and shape[0] == 3 and min(shape) > 0 for shape in shapes)
    _check(fits, f"{where}: pictures", "(3, H, W)", sorted(shapes), "Give colour pictures.")


def _check(fits: bool, where: str, expected: str, found: object, todo: str) -> None:
    if not fits:
        raise InputError(where, expected=expected, found=found, todo=todo)
