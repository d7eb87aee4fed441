"""Figures that notebooks 03 and 04 share: what is retrieved, and where labels lie."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from ucvgl.lab.plots import RIGHT_COLOUR, WIDTH_IN, WRONG_COLOUR, framed, sheet

RIGHT, WRONG, UNLABELLED = 1, 0, -1  # the status of a match on `match_map`


def retrieval_rows(
    ground: Sequence[Tensor], top_views: Sequence[Tensor], retrieved: Sequence[Sequence[Tensor]], right: Tensor,
    captions: Sequence[str],
) -> Figure:  # fmt: skip
    """A query a row: panorama (3, H, W) with a caption, its top view, its first k tiles, framed as right (Q, k) or wrong."""
    columns = {"": ground, "top view": top_views}
    for rank, is_right in enumerate(right.T.tolist()):
        columns[str(rank + 1)] = [framed(row[rank], value) for row, value in zip(retrieved, is_right, strict=True)]
    figure = sheet(columns)
    for axes, caption in zip(figure.axes[:: len(columns)], captions, strict=True):
        axes.set_title(caption)
    return figure


def match_map(
    position: Tensor, matched_position: Tensor, status: Tensor, *, city: Sequence[str] | None = None
) -> Figure:
    """Where the labels lie, a map a city: right ones, wrong ones with a line to where they were put, unlabelled ones.

    position: (N, 2) metres east and north of the ground images. matched_position: (N, 2) of the tiles they were given;
    NaN (no line) where there is none, or in another city. status: (N,) RIGHT, WRONG or UNLABELLED. city: N names.
    """
    names = np.array([""] * len(status) if city is None else city)
    at, to, kind = (value.numpy() for value in (position, matched_position, status))
    cities = dict.fromkeys(names.tolist())
    height_in = 6.6 if len(cities) == 1 else WIDTH_IN / len(cities)
    figure, panels = plt.subplots(1, len(cities), squeeze=False, figsize=(WIDTH_IN, height_in), layout="constrained")
    for axes, name in zip(panels[0], cities, strict=True):
        wrong, right, none = (at[(names == name) & (kind == value)] for value in (WRONG, RIGHT, UNLABELLED))
        ends = np.stack([wrong, to[(names == name) & (kind == WRONG)]])  # (2, wrong ones, 2): from and to
        axes.plot(*ends.transpose(2, 0, 1), color=WRONG_COLOUR, linewidth=0.9, alpha=0.8)
        axes.scatter(*none.T, label="no label", s=12, facecolors="white", edgecolors="#555555")
        axes.scatter(*wrong.T, label="wrong", s=26, marker="x", c=WRONG_COLOUR)
        axes.scatter(*right.T, label="right", s=22, c=RIGHT_COLOUR, edgecolors="white", linewidths=0.4)
        title = f"{name}\n{len(right)} right, {len(wrong)} wrong, {len(none)} without a label".strip()
        axes.set(title=title, xlabel="metres east", ylabel="metres north", aspect="equal")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
