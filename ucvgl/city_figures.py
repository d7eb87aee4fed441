"""Figures of a city that pictures are searched in: its folders, what was found, the adaptation, the stride, the certainty.

Each takes plain tensors and arrays, knows no method, and returns a matplotlib figure; a `_look` is a figure by its sentence,
as `widgets.explore` shows it. Right and wrong have the colours and marks of retrieval_figures; a candidate whose truth is
not known has neither. Sheets of pictures raise InputError on shapes that do not fit.
"""

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from scipy.spatial import cKDTree
from torch import Tensor

from ucvgl.errors import InputError
from ucvgl.lab.plots import NONE_COLOUR, PALETTE, RIGHT_COLOUR, WIDTH_IN, WRONG_COLOUR, as_picture, show
from ucvgl.locate.adapt import Round
from ucvgl.locate.confidence import BEST
from ucvgl.locate.map_figures import round_length
from ucvgl.locate.map_page import Background
from ucvgl.metrics import claimed_and_true_precision
from ucvgl.positions import Positions, Wgs84, to_metres
from ucvgl.retrieval_figures import CROSS, TICK

PICTURES = 4  # rows of a sheet: more would be too small to read
SQUARES = ("#ffd400", "#00e5ff", "#ff4fd8")  # three neighbours; told apart on roofs, asphalt and grass
QUIET = "#777777"
NEAR, FAR = "#bfe5d6", "#f6c9a5"  # RIGHT_COLOUR and WRONG_COLOUR, light enough to draw on
GRID_PX = 400  # of the picture of the ground
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
    grid[0, 0].set_title("Street pictures, position not told")
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


# -------------------------------------------------------------------------------------------------------------- the stride


def candidate_count(extent_m: tuple[float, float], span_m: float, stride_m: float) -> int:
    """Squares of `span_m` that `candidates.cut` lays over tiles without gaps, east and north `extent_m` across."""
    return math.prod(int((extent - span_m) / stride_m + 1e-3) + 1 for extent in extent_m)


def nearest_centre_m(stride_m: float) -> tuple[float, float]:
    """Median and maximum of the metres from a place to the nearest centre of a square grid, away from its rim.

    A place falls anywhere in the cell of a centre, a square of the edge s = `stride_m`. Its corner is s / sqrt(2) away; the
    circle of radius s / sqrt(2 pi) = 0.399 s lies within the cell and has half of its area.
    """
    return stride_m / math.sqrt(2 * math.pi), stride_m / math.sqrt(2)


def share_within(radius_m: np.ndarray | float, stride_m: float) -> np.ndarray:
    """The part of all places within `radius_m` of the nearest centre: the area that a circle shares with its cell, 0 to 1.

    With s = `stride_m`: pi r^2 / s^2 up to r = s / 2; from there on four segments of the circle lie outside the cell, each
    r^2 arccos(s / 2r) - s / 2 sqrt(r^2 - s^2 / 4); and 1 from r = s / sqrt(2).
    """
    half = stride_m / 2
    r = np.clip(np.asarray(radius_m, np.float64), 0, half * math.sqrt(2))
    outside = np.maximum(r, half)  # no segment where the circle does not reach the edge
    segment = outside**2 * np.arccos(half / outside) - half * np.sqrt(outside**2 - half**2)
    return np.clip((math.pi * r**2 - 4 * segment) / stride_m**2, 0, 1)


def stride_look(
    extent_m: tuple[float, float], stride_m: float, span_m: float, *, start_m: float, radius_m: float = 10.0
) -> dict[str, Figure]:
    """How many candidates there would be and how near a perfect search could place a picture, in a sentence and drawn.

    Args:
        extent_m: of the tiles, metres east and north.
        stride_m: between the centres of two candidates.
        span_m: edge of a candidate.
        start_m: a span; the scales follow it and stay when stride and span change.
        radius_m: within which a place counts as right.
    """
    median, most = nearest_centre_m(stride_m)
    within = 100 * float(share_within(radius_m, stride_m))
    text = (
        f"{candidate_count(extent_m, span_m, stride_m):,} candidates; a place is {median:.1f} m (median) and at most "
        f"{most:.1f} m from the nearest centre, {within:.0f} % within {radius_m:g} m"
    )
    return {text: _stride_figure(stride_m, span_m, radius_m, start_m)}


def _stride_figure(stride_m: float, span_m: float, radius_m: float, start_m: float) -> Figure:
    """Ground with the grid of centres and, beside it, how far places are from them; strides go up to `start_m`."""
    figure, (ground, curve) = plt.subplots(1, 2, figsize=(WIDTH_IN, 5.2), width_ratios=(1, 1.15), layout="constrained")
    view_m = 4 * start_m
    steps = ((np.arange(GRID_PX) + 0.5) / GRID_PX - 0.5) * view_m
    off = np.abs(steps - stride_m * np.round(steps / stride_m))  # from the nearest line of centres
    far = np.hypot(off[:, None], off[None, :]) > radius_m
    half = view_m / 2
    ground.imshow(far, extent=(-half, half, -half, half), cmap=ListedColormap([NEAR, FAR]), vmin=0, vmax=1)
    line = stride_m * np.arange(-math.floor(half / stride_m), math.floor(half / stride_m) + 1)
    ground.plot(*(grid.ravel() for grid in np.meshgrid(line, line)), "o", color="#333333",
                markersize=float(np.clip(stride_m / view_m * 60, 0.8, 4)))  # fmt: skip
    for number, (colour, style) in enumerate(zip(PALETTE[3::-3], ("-", "--"), strict=True)):
        ground.add_patch(Rectangle((number * stride_m - span_m / 2, -span_m / 2), span_m, span_m, fill=False,
                                   edgecolor=colour, linestyle=style, linewidth=2.2))  # fmt: skip
    overlap = max(0.0, 1 - stride_m / span_m)
    ground.set(xlim=(-half, half), ylim=(-half, half), xlabel="metres east", ylabel="metres north",
               title=f"two neighbours share {100 * overlap:.0f} % of their ground")  # fmt: skip
    _distances(curve, stride_m, radius_m, start_m)
    handles = [
        Patch(color=NEAR, label=f"within {radius_m:g} m of a centre"),
        Patch(color=FAR, label="farther: never right"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _distances(axes: Axes, stride_m: float, radius_m: float, longest_m: float) -> None:
    """How many places are how far from the nearest centre: an area is a part of all places."""
    end = max(longest_m / math.sqrt(2), 1.2 * radius_m)
    edge = np.linspace(0, end, 501)
    middle, density = (edge[1:] + edge[:-1]) / 2, 100 * np.diff(share_within(edge, stride_m)) / np.diff(edge)
    for part, colour in ((middle <= radius_m, NEAR), (middle >= radius_m, FAR)):
        axes.fill_between(middle, density, where=list(part), color=colour, linewidth=0)
    axes.plot(middle, density, color="#333333")
    median, most = nearest_centre_m(stride_m)
    lines = ((median, f"median {median:.1f} m", "-"), (most, f"at most {most:.1f} m", "--"),
             (radius_m, f"right within {radius_m:g} m", ":"))  # fmt: skip
    for height, (value, name, style) in zip((0.95, 0.85, 0.75), lines, strict=True):
        late = value > 0.7 * end
        axes.axvline(value, color="#777777" if style == ":" else PALETTE[0], linestyle=style, linewidth=1.6)
        axes.annotate(name, (value, height), (-6 if late else 6, 0),
                      xycoords=axes.get_xaxis_transform(), textcoords="offset points", ha="right" if late else "left",
                      va="center", path_effects=[withStroke(linewidth=3, foreground="white")])  # fmt: skip
    axes.set(xlim=(0, end), ylim=(0, 1.45 * density.max()), xlabel="metres to the nearest centre",
             ylabel="places (% a metre)", title="how near a perfect search could get")  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ the certainty


def certainty_look(probability: np.ndarray, right: np.ndarray, least: float) -> dict[str, Figure]:
    """How many pictures are placed with a least probability, what is claimed of them and what is true, in words and drawn.

    Args:
        probability: (N,) of each picture's place, 0 to 1.
        right: (N,) 1 or 0 (or bool), NaN where the truth is not known. Claimed and true are compared on the pictures of
            known truth; where it is known of none, there is only a claim.
        least: of the probabilities, 0 to 1.
    """
    p, y, least = np.asarray(probability, np.float64), np.asarray(right, np.float64), round(least, 2)
    text = _claim_text(_claims(p, y, least), len(p), int((~np.isnan(y)).sum()), least)
    return {text: _certainty_figure(p, y, least)}


def _claims(p: np.ndarray, y: np.ndarray, least: float) -> tuple[int, int, float, float]:
    """Of the pictures at or above `least`: how many, how many of known truth, and of these what is claimed and true."""
    placed = p >= least
    if np.isnan(y).all():
        return int(placed.sum()), 0, float(p[placed].mean()) if placed.any() else math.nan, math.nan
    found = claimed_and_true_precision(p, y, least)
    return int(placed.sum()), found.placed, found.claimed, found.true


def _claim_text(claims: tuple[int, int, float, float], count: int, known: int, least: float) -> str:
    placed, of_known, claimed, true = claims
    text = f"{placed:,} of {count:,} pictures ({100 * placed / count:.0f} %) are {100 * least:.0f} % sure or more"
    if math.isnan(claimed):
        return text if placed == 0 else f"{text}; the truth is known of none of these"
    text += f"; claimed right {100 * claimed:.1f} %"
    if math.isnan(true):
        return f"{text}; the truth is not known"
    some = f" (of {of_known:,} of known truth)" if known < count else ""
    return f"{text}, truly right {100 * true:.1f} %{some}: {abs(100 * (claimed - true)):.1f} points apart"


def _certainty_figure(p: np.ndarray, y: np.ndarray, least: float) -> Figure:
    """Placed, claimed and true over the least probability, and a bar of all pictures beneath."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(WIDTH_IN, 5.6), height_ratios=(5, 1), layout="constrained")
    steps = np.linspace(0, 1, 101)
    lines = np.array([_claims(p, y, step) for step in steps])  # (101, 4)
    above.fill_between(steps, 100 * lines[:, 0] / len(p), color="#e3e3e3", linewidth=0, label="placed, of all pictures")
    above.plot(steps, 100 * lines[:, 2], color=PALETTE[0], linestyle="--", label="claimed right, of the placed")
    above.axvline(least, color="#777777", linestyle=":")
    placed, _, claimed, true = _claims(p, y, least)
    above.plot(least, 100 * placed / len(p), "s", color="#777777", markersize=7)
    above.plot(least, 100 * claimed, "o", color=PALETTE[0], markersize=8, markerfacecolor="white", markeredgewidth=2)
    if not np.isnan(y).all():
        above.plot(steps, 100 * lines[:, 3], color=RIGHT_COLOUR, linewidth=2, label="truly right, of the placed")
        above.plot(least, 100 * true, "o", color=RIGHT_COLOUR, markersize=6)
    above.set(xlim=(-0.01, 1.01), ylim=(0, 104), xlabel="least probability", ylabel="pictures (%)")
    some, handles, start = p >= least, [], 0.0
    for name, rows, colour in (("right", some & (y == 1), RIGHT_COLOUR), ("wrong", some & (y == 0), WRONG_COLOUR),
                               ("placed, truth not known", some & np.isnan(y), PALETTE[0]),
                               ("not placed", ~some, NONE_COLOUR)):  # fmt: skip
        if rows.any():
            handles.append(Patch(color=colour, label=f"{name}: {int(rows.sum()):,}"))
            below.barh(0, 100 * rows.mean(), left=start, color=colour, edgecolor="white")
            start += 100 * float(rows.mean())
    below.set(xlim=(0, 100), yticks=[], xlabel="all pictures (%)")
    figure.legend(*above.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return figure


# ------------------------------------------------------------------------------------------------------------- the checks


def _check_pictures(where: str, images: Sequence[Tensor]) -> None:
    shapes = {tuple(image.shape) for image in images}
    fits = all(len(shape) == 3 and shape[0] == 3 and min(shape) > 0 for shape in shapes)
    _check(fits, f"{where}: pictures", "(3, H, W)", sorted(shapes), "Give colour pictures.")


def _check(fits: bool, where: str, expected: str, found: object, todo: str) -> None:
    if not fits:
        raise InputError(where, expected=expected, found=found, todo=todo)
