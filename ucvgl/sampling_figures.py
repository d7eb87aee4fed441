"""Plots of how batches are put together (Sample4Geo, section 3), one function a figure.

Each takes plain tensors and returns a matplotlib figure. A sampler draws a place and lets others join it, its
neighbours on the ground or in feature space; a place's *drawn place* is the one it joined, itself if it was drawn.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from ucvgl.lab.plots import PALETTE, WIDTH_IN, montage, strip

SHOWN = 10  # tiles a row: eleven inches hold no more that can still be told apart
FRAME_COLOUR = PALETTE[4]  # of a drawn place
GROUP_COLOURS = PALETTE[:5]  # of a drawn place and those that joined it; the sixth, a grey, is too near ALONE_COLOUR
FAINT_COLOUR, ALONE_COLOUR = "#d4d4d4", "#333333"  # places outside the batch; drawn places that none joined


def batch_pictures(tiles_by_sampler: Mapping[str, Sequence[Tensor]], marks: Mapping[str, Sequence[bool]]) -> Figure:
    """A row a sampler: the first tiles of one of its batches, drawn places framed, those that joined them unframed.

    tiles_by_sampler: sampler -> tiles (3, S, S), a drawn place first and behind it those that joined it; the first SHOWN
    are shown. marks: sampler -> for each tile whether it was drawn.
    """
    columns, pictures = min(SHOWN, max(map(len, tiles_by_sampler.values()))), []
    for name, tiles in tiles_by_sampler.items():
        drawn = zip(tiles[:columns], marks[name][:columns], strict=True)
        row = [strip([tile], FRAME_COLOUR if mark else "") for tile, mark in drawn]
        pictures += row + [torch.full_like(row[0], 255)] * (columns - len(row))
    return montage(pictures, [""] * len(pictures), columns=columns, row_labels=list(tiles_by_sampler))


def batch_map(where: Tensor, batches: Mapping[str, Tensor], anchors: Mapping[str, Tensor]) -> Figure:
    """Where the places of one batch lie, a map a sampler: faint dots are all places, lines lead to the drawn ones.

    where: (N, 2) metres east and north. batches: sampler -> (B,) places of one of its batches. anchors: sampler -> (B,) the
    drawn place that each of them joined, itself if it was drawn. The distance in a title is the median over the places that
    joined one.
    """
    places, size = where.cpu().double().numpy(), (WIDTH_IN, WIDTH_IN / max(2, len(batches)) + 0.9)
    figure, panels = plt.subplots(
        1, len(batches), squeeze=False, figsize=size, layout="constrained", sharex=True, sharey=True
    )
    for axes, (name, batch) in zip(panels[0], batches.items(), strict=True):
        item, anchor = batch.cpu().numpy(), anchors[name].cpu().numpy()
        joined, colours = item != anchor, group_colours(item, anchor)
        axes.scatter(*places.T, s=9, c=FAINT_COLOUR, linewidths=0, label="all places")
        ends = np.stack([places[item[joined]], places[anchor[joined]]], axis=1)  # (J, 2, 2): from, to; east, north
        axes.add_collection(LineCollection(ends, colors=colours[joined], linewidths=0.8, alpha=0.55))
        axes.scatter(*ends[:, 0].T, s=28, c=colours[joined], label="joined the drawn place of its colour")
        axes.scatter(*places[item[~joined]].T, s=90, c=colours[~joined], marker="*", edgecolors="black", linewidths=0.6,
                     label="drawn place")  # fmt: skip
        apart_m = np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1)
        text = f"joined from {np.median(apart_m):,.0f} m away (median)" if len(ends) else "each drawn"
        axes.set(title=f"{name}\n{text}", xlabel="metres east", ylabel="metres north", aspect="equal")
        axes.label_outer()
    figure.legend(*panels[0, -1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def group_colours(item: np.ndarray, anchor: np.ndarray) -> np.ndarray:
    """(B,) colours: one for all that have the same drawn place, in turn; ALONE_COLOUR for a place that none joined."""
    groups = list(dict.fromkeys(anchor[item != anchor].tolist()))
    table = {drawn: GROUP_COLOURS[number % len(GROUP_COLOURS)] for number, drawn in enumerate(groups)}
    return np.array([table.get(drawn, ALONE_COLOUR) for drawn in anchor.tolist()], dtype=object)
