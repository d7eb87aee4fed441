"""Plots of how batches are put together (Sample4Geo, section 3), one function a figure.

Each takes plain tensors and returns a matplotlib figure. A sampler draws a place and lets others join it, its
neighbours on the ground or in feature space; a place's *drawn place* is the one it joined, itself if it was drawn.
"""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor

from ucvgl.lab.plots import PALETTE, WIDTH_IN, show

SHOWN = 10  # tiles a row: eleven inches hold no more that can still be told apart
FRAME_COLOUR = PALETTE[4]  # of a drawn place among pictures, as the outline of a tile on a city map
GROUP_COLOURS = PALETTE[:5]  # of a drawn place and those that joined it; the sixth, a grey, is too near ALONE_COLOUR
FAINT_COLOUR, ALONE_COLOUR = "#d4d4d4", "#333333"  # places outside the batch; drawn places that none joined

# ----------------------------------------------------------------------------------------------- what is in one batch


def batch_pictures(tiles_by_sampler: Mapping[str, Sequence[Tensor]], marks: Mapping[str, Sequence[bool]]) -> Figure:
    """A row a sampler: the first tiles of one of its batches, drawn places framed, those that joined them unframed.

    tiles_by_sampler: sampler -> tiles (3, S, S), a drawn place first and behind it those that joined it; the first SHOWN
    are shown. marks: sampler -> for each tile whether it was drawn.
    """
    columns = min(SHOWN, max(map(len, tiles_by_sampler.values())))
    size = min(WIDTH_IN / columns, 1.6)
    figure = plt.figure(figsize=(columns * size, len(tiles_by_sampler) * (size + 0.24) + 0.3), layout="constrained")
    # a caption wider than its tile pushes no tile aside
    parts = figure.subfigures(len(tiles_by_sampler), 1, squeeze=False)[:, 0]
    every = []
    for part, (name, tiles) in zip(parts, tiles_by_sampler.items(), strict=True):
        drawn = [bool(mark) for mark in marks[name]][:SHOWN]
        every += drawn
        panels = part.subplots(1, columns, squeeze=False)[0]
        for axes in panels:
            axes.set_axis_off()
        for axes, tile, framed in zip(panels, tiles, drawn, strict=False):
            show(axes, tile)
            if framed:
                axes.add_patch(Rectangle((0, 0), 1, 1, fill=False, edgecolor=FRAME_COLOUR, linewidth=4, clip_on=False,
                                         transform=axes.transAxes))  # fmt: skip
        part.suptitle(name, x=0.004, ha="left", fontsize=10.5)
    handles = [Rectangle((0, 0), 1, 1, fill=False, edgecolor=FRAME_COLOUR, linewidth=3, label="drawn place"),
               Rectangle((0, 0), 1, 1, color=FAINT_COLOUR, label="no frame: joined the drawn place before it")]  # fmt: skip
    figure.legend(handles=handles[: 1 if all(every) else 2], loc="outside lower center", ncols=2)
    return figure


def batch_map(where: Tensor, batches: Mapping[str, Tensor], anchors: Mapping[str, Tensor]) -> Figure:
    """Where the places of one batch lie, a map a sampler: faint dots are all places, lines lead to the drawn ones.

    where: (N, 2) metres east and north, of one city; NaN for a place that is not to be shown (another city). batches:
    sampler -> (B,) places of one of its batches. anchors: sampler -> (B,) the drawn place that each of them joined,
    itself if it was drawn. The distance in a title is the median over the places that joined one, as far as both are on
    the map.
    """
    places = where.cpu().double().numpy()
    of_sampler = [(items.cpu().numpy(), anchors[name].cpu().numpy()) for name, items in batches.items()]
    columns = 2 if len(batches) in (2, 4) else min(3, len(batches))
    rows, panel = math.ceil(len(batches) / columns), {1: 5.8, 2: 4.5, 3: WIDTH_IN / 3}[columns]
    figure, grid = plt.subplots(rows, columns, squeeze=False, layout="constrained", sharex=True, sharey=True,
                                figsize=(columns * panel, rows * (panel + 0.2) + 0.3))  # fmt: skip
    for axes in grid.ravel()[len(batches) :]:
        axes.remove()
    texts = [draw_batch(axes, places, *batch) for axes, batch in zip(grid.ravel(), of_sampler, strict=False)]
    lines = max(len(text) for text in texts)
    for number, (axes, name, text) in enumerate(zip(grid.ravel(), batches, texts, strict=False)):
        axes.set_title("\n".join([name, *text] + [""] * (lines - len(text))))  # names stand on one line
        axes.label_outer()
        if number + columns >= len(batches):  # the lowest of its column, perhaps above a gap
            axes.set_xlabel("metres east")
            axes.xaxis.set_tick_params(labelbottom=True)
    handles = {handle.get_label(): handle for batch in of_sampler for handle in batch_legend(*batch)}
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=2 if columns == 1 else 3)
    return figure


def draw_batch(axes: Axes, places: np.ndarray, item: np.ndarray, anchor: np.ndarray) -> list[str]:
    """One batch on a map of all places (N, 2): its places (B,) and the drawn place of each (B,); in words, how many were drawn
    and how far apart."""
    known, colours = np.isfinite(places).all(1), group_colours(item, anchor)
    joined, drawn, alone = _roles(item, anchor)
    axes.scatter(*places[known].T, s=9, c=FAINT_COLOUR, linewidths=0, zorder=1)
    ends = np.stack([places[item], places[anchor]], axis=1)  # (B, 2, 2): from, to; east, north
    lined = joined & np.isfinite(ends).all((1, 2))
    axes.add_collection(LineCollection(ends[lined], colors=colours[lined], linewidths=0.8, alpha=0.55, zorder=2))
    for role, style in (
        (joined, {"marker": "o", "s": 28, "linewidths": 0.5, "edgecolors": "white"}),
        (alone, {"marker": "D", "s": 26, "linewidths": 0.5, "edgecolors": "white"}),
        (drawn, {"marker": "*", "s": 190, "linewidths": 0.9, "edgecolors": "black"}),
    ):
        shown = role & known[item]
        axes.scatter(*places[item[shown]].T, c=colours[shown], zorder=3, **style)
    away, first = np.unique(anchor[_away(item, anchor)], return_index=True)
    shown = known[away]
    axes.scatter(*places[away[shown]].T, c="white", marker="*", s=190, linewidths=1.3, zorder=3,
                 edgecolors=colours[_away(item, anchor)][first][shown])  # fmt: skip
    axes.set(xlabel="metres east", ylabel="metres north", aspect="equal")
    axes.autoscale_view()
    texts = [f"{len(item)} places, {'each' if not joined.any() else (~joined).sum()} drawn"]
    if lined.any():
        apart_m = np.linalg.norm(ends[lined, 0] - ends[lined, 1], axis=1)
        texts.append(f"joined from {np.median(apart_m):,.0f} m away (median)")
    outside = int((~known[item]).sum())
    return texts + ([f"{outside} not on the map"] if outside else [])


def batch_legend(item: np.ndarray, anchor: np.ndarray) -> list[Artist]:
    """The marks that `draw_batch` gives a batch, with their names, in the grey that stands for any colour."""
    joined, drawn, alone = _roles(item, anchor)
    grey = "#8a8a8a"
    marks = [
        ("all places", True, {"marker": "o", "color": FAINT_COLOUR, "markersize": 4, "linestyle": ""}),
        ("drawn, joined by none", alone.any(), {"marker": "D", "color": ALONE_COLOUR, "markersize": 5, "linestyle": ""}),
        ("drawn place", drawn.any(),
         {"marker": "*", "color": grey, "markersize": 13, "markeredgecolor": "black", "linestyle": ""}),
        ("drawn in another batch", _away(item, anchor).any(),
         {"marker": "*", "markerfacecolor": "white", "markersize": 13, "markeredgecolor": grey, "linestyle": ""}),
        ("joined that of its colour", joined.any(), {"marker": "o", "color": grey, "markersize": 6, "linestyle": "-"}),
    ]  # fmt: skip
    return [Line2D([], [], label=name, **style) for name, used, style in marks if used]


def _roles(item: np.ndarray, anchor: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(B,) bools: joined a drawn place; was drawn, and others joined it; was drawn, and none did."""
    joined = item != anchor
    followed = np.isin(item, anchor[joined])
    return joined, ~joined & followed, ~joined & ~followed


def _away(item: np.ndarray, anchor: np.ndarray) -> np.ndarray:
    """(B,) bool: joined a drawn place that is not in the batch, as where a batch was full before all had joined."""
    return ~np.isin(anchor, item)


def group_colours(item: np.ndarray, anchor: np.ndarray) -> np.ndarray:
    """(B,) colours: one for all that have the same drawn place, in turn; ALONE_COLOUR for a place that none joined."""
    groups = list(dict.fromkeys(anchor[item != anchor].tolist()))
    table = {drawn: GROUP_COLOURS[number % len(GROUP_COLOURS)] for number, drawn in enumerate(groups)}
    return np.array([table.get(drawn, ALONE_COLOUR) for drawn in anchor.tolist()], dtype=object)
