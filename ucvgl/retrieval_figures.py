"""Plots of a retrieval run, one function a figure: training, pseudo-labels, what is retrieved and where it lies.

Each takes plain tensors and tables and returns a matplotlib figure. Right and wrong have one colour each throughout, the
green and the vermilion of Okabe and Ito, which colour-blind readers tell apart; pictures also carry a tick or a cross.
"""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.stats import spearmanr
from torch import Tensor

from ucvgl.lab.plots import NONE_COLOUR, PALETTE, RIGHT_COLOUR, WIDTH_IN, WRONG_COLOUR, show
from ucvgl.lab.tables import HEADINGS

TICK, CROSS = "\N{CHECK MARK}", "\N{BALLOT X}"
RIGHT, WRONG, UNLABELLED = 1, 0, -1  # the status of a match on `match_map`
LINES, MARKERS = ("-", "--", "-.", ":"), ("o", "s", "^", "D", "v", "P")


def loss_plot(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Loss per epoch, a panel a stage on a scale of its own: label smoothing and batch size move the least loss.

    rows: stage -> rows of `training.train`: epoch, loss (NaN leaves a gap), seconds. In the title: epochs × seconds.
    """
    figure, panels = _panels(len(rows), height=2.9)
    for number, (stage, epochs) in enumerate(rows.items()):
        frame, axes = pd.DataFrame(list(epochs)), panels[number]
        axes.plot(frame["epoch"], frame["loss"], marker="o", markersize=3.5, color=PALETTE[number % len(PALETTE)])
        axes.set(xlabel="epoch", title=f"{stage}: {len(frame)} × {frame['seconds'].mean():.1f} s")
        axes.set_xlim(frame["epoch"].min() - 0.5, frame["epoch"].max() + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)  # whole epochs, of a single one as well
    panels[0].set_ylabel("loss (nats)")
    return figure


def similarity_structure(before: Tensor, after: Tensor, order: Tensor) -> Figure:
    """Similarities along a drive, before and after training, on one colour scale, and beneath them right pairs and others.

    before, after: (N, N) cosines, a ground image a row; ground image i shows what satellite image i shows.
    order: (M,) indices below N, the images to show in the order of the drive; about 64 can be read.
    """
    matrices = [m.detach().cpu().float()[order][:, order].numpy() for m in (before, after)]
    low, high = min(m.min() for m in matrices), max(m.max() for m in matrices)
    figure, grid = plt.subplots(2, 2, figsize=(WIDTH_IN, 7.4), height_ratios=(2.6, 1), layout="constrained")
    for (above, below), when, matrix in zip(grid.T, ("Before", "After"), matrices, strict=True):
        picture = above.imshow(matrix, vmin=low, vmax=high, cmap="viridis", interpolation="nearest")
        first = 100 * float((matrix.argmax(1) == np.arange(len(matrix))).mean())
        above.set(title=f"{when} training: nearest is right for {first:.0f} %", xlabel="satellite image of the drive")
        own, edges = np.eye(len(matrix), dtype=bool), np.linspace(low - 1e-6, high + 1e-6, 41)
        for name, pairs, colour in (("other pairs", ~own, NONE_COLOUR), ("right pairs", own, RIGHT_COLOUR)):
            weights = np.full(pairs.sum(), 100 / pairs.sum())
            below.hist(matrix[pairs], edges, weights=weights, color=colour, alpha=0.7, label=name)
        right, others = np.median(matrix[own]), np.median(matrix[~own])
        below.set(xlabel="cosine", title=f"Median of right pairs {right:.2f}, of others {others:.2f}")
    grid[0, 0].set_ylabel("ground image of the drive")
    figure.colorbar(picture, ax=grid[0], label="cosine", shrink=0.85)
    grid[1, 0].set_ylabel("share of pairs (%)")
    grid[1, 0].sharey(grid[1, 1])
    _legend_beneath(figure, grid[1, 0])
    return figure


def precision_coverage(frame: pd.DataFrame) -> Figure:
    """How many ground images a rule labels, and how many of the labels are right, swept over each rule's threshold.

    frame: rule, coverage (% of the ground images), precision (% of the labels; NaN where there is none); rows of a rule
    in the order of its threshold. A bool column `chosen`, if there is one, marks the point in use.
    """
    figure, axes = plt.subplots(figsize=(WIDTH_IN, 4.2), layout="constrained")
    for number, (rule, rows) in enumerate(frame.groupby("rule", sort=False)):
        colour, rows = PALETTE[number % len(PALETTE)], rows.dropna(subset=["coverage", "precision"])
        axes.plot(rows["coverage"], rows["precision"], "." + LINES[number % len(LINES)], color=colour, label=rule)
        points = rows[rows["chosen"].astype(bool)] if "chosen" in rows else rows[:0]
        axes.plot(points["coverage"], points["precision"], linestyle="", marker=MARKERS[number % len(MARKERS)], markersize=9,
                  color=colour, markeredgecolor="black", label=f"{rule}: in use" if len(points) else None)  # fmt: skip
    axes.set(xlabel="ground images with a label (%)", ylabel="labels that are right (%)", ylim=(0, 103), xlim=(0, None))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def margin_histogram(margin: Tensor, right: Tensor, mutual: Tensor, threshold: float) -> Figure:
    """Margins of right and wrong nearest tiles; shaded is what mutual matching removes and what the threshold removes.

    margin: (N,) first minus second cosine of each ground image. right: (N,) bool, its nearest tile is right. mutual: (N,)
    bool, the two are each other's nearest. threshold: least margin of a pseudo-label.
    """
    margin, right, mutual = (value.cpu().numpy() for value in (margin, right, mutual))
    figure, (left, other) = plt.subplots(1, 2, figsize=(WIDTH_IN, 3.6), sharex=True, sharey=True, layout="constrained")
    top = max(float(margin.max()), threshold)
    margin_panel(left, margin[mutual], right[mutual], threshold, top=top, removed_to=threshold)
    margin_panel(other, margin[~mutual], right[~mutual], threshold, top=top, removed_to=top)
    kept = counted(right[mutual & (margin >= threshold)])
    left.set(title=f"Mutual: {counted(right[mutual])}\nkept by the threshold: {kept}", ylabel="ground images")
    other.set_title(f"Not mutual: {counted(right[~mutual])}\nkept by mutual matching: none")
    _legend_beneath(figure, left)
    return figure


def threshold_look(margin: Tensor, right: Tensor, candidate: Tensor, threshold: float) -> dict[str, Figure]:
    """What a threshold labels, counted in a sentence: the candidates' margins, and beneath them a bar of all ground images.

    margin, right: (N,) as of `margin_histogram`. candidate: (N,) bool, may have a label at all. threshold: least margin.
    """
    margin, right, candidate = (value.cpu().numpy() for value in (margin, right, candidate))
    labelled = candidate & (margin >= threshold)
    figure, (above, below) = plt.subplots(2, 1, figsize=(WIDTH_IN, 4.4), height_ratios=(5, 1), layout="constrained")
    some, top = margin[candidate], float(margin.max())
    margin_panel(above, some, right[candidate], threshold, top=top, removed_to=threshold)
    above.set_ylabel("candidates")
    start = 0.0
    for name, rows, colour in (
        ("right label", labelled & right, RIGHT_COLOUR),
        ("wrong label", labelled & ~right, WRONG_COLOUR),
        ("no label", ~labelled, NONE_COLOUR),
    ):
        share = 100 * float(rows.mean())
        below.barh(0, share, left=start, color=colour, edgecolor="white")
        if share > 14:  # a narrower part has no room for its name
            below.text(start + share / 2, 0, f"{name}: {share:.0f} %", ha="center", va="center", color="black")
        start += share
    below.set(xlim=(0, 100), yticks=[], xlabel="ground images (%)")
    figure.legend(*above.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    share = 100 * labelled.mean()
    return {f"labels: {counted(right[labelled])} ({share:.1f} % of {len(margin):,} ground images)": figure}


def counted(right: np.ndarray) -> str:
    """'120, 80 % of them right' of a bool array."""
    return f"{len(right):,}, {100 * right.mean():.0f} % of them right" if len(right) else "none"


def margin_panel(
    axes: Axes, margin: np.ndarray, right: np.ndarray, threshold: float, *, top: float, removed_to: float
) -> None:
    """Stacked histogram of right and wrong over 0..top, the threshold as a line, margins that are removed shaded."""
    edges = np.linspace(0, max(top, 1e-6) * 1.0001, 41)
    axes.hist([margin[right], margin[~right]], edges, stacked=True, color=[RIGHT_COLOUR, WRONG_COLOUR], edgecolor="none",
              label=["nearest tile is right", "nearest tile is wrong"])  # fmt: skip
    axes.axvspan(0, removed_to, color="#e6e6e6", zorder=0, linewidth=0, label="removed")
    axes.axvline(threshold, color="black", linestyle="--", linewidth=1.4, label="threshold")
    axes.set_xlabel("margin, first minus second cosine")


def labels_plot(frame: pd.DataFrame) -> Figure:
    """Labels found and right ones by epoch as areas; beside them, if known, the threshold and the recall.

    frame: epoch, labels, correct (numbers of ground images) and, if known, threshold (a cosine) and r_at_1 (%); NaN where
    not measured.
    """
    frame = frame.sort_values("epoch")
    epoch, found = frame["epoch"], frame["labels"]
    right = frame["correct"].where(found != 0, 0.0)
    extra = {"threshold": ("Threshold", "margin asked for (cosine)"), "r_at_1": ("Recall at 1", HEADINGS["r_at_1"])}
    extra = {name: texts for name, texts in extra.items() if name in frame}
    figure, grid = plt.subplots(1, 1 + len(extra), squeeze=False, figsize=(WIDTH_IN, 3.5), layout="constrained",
                                width_ratios=[1.7] + [1] * len(extra))  # fmt: skip
    areas, *others = grid[0]
    areas.fill_between(epoch, 0 * right, right, color=RIGHT_COLOUR, alpha=0.75, label="right labels")
    areas.fill_between(epoch, right, found, color=WRONG_COLOUR, alpha=0.75, label="wrong labels")
    areas.plot(epoch, found, color="black", linewidth=1, marker=".", label="labels found")
    areas.set(title="Pseudo-labels", ylabel="ground images")
    for axes, (name, (title, label)) in zip(others, extra.items(), strict=True):
        rows = frame.dropna(subset=[name])
        axes.plot(rows["epoch"], rows[name], marker=".", color=PALETTE[0 if name == "r_at_1" else 3])
        axes.set(title=title, ylabel=label)
    for axes in grid[0]:
        axes.set(xlabel="epoch", ylim=(0, None))
        axes.xaxis.get_major_locator().set_params(integer=True)
    _legend_beneath(figure, areas)
    return figure


def quality_plot(frame: pd.DataFrame, measures: Sequence[str]) -> Figure:
    """Measures that need no labels against the true recall, a dot an epoch, with Spearman's rank correlation.

    frame: an epoch a row: the columns `measures`, r_at_1 (true recall in %) and epoch, shown as colour. Rows with NaN are
    left out.
    """
    rows = frame.dropna(subset=[*measures, "r_at_1"])
    figure, panels = _panels(len(measures), height=3.1)
    for axes, name in zip(panels, measures, strict=True):
        dots = axes.scatter(rows[name], rows["r_at_1"], s=32, edgecolors="black", linewidths=0.4, c=rows["epoch"])
        ranked = rows[name].nunique() > 1 and rows["r_at_1"].nunique() > 1  # a constant has no ranks
        rank = f"{spearmanr(rows[name], rows['r_at_1']).statistic:+.2f}" if ranked else "not defined"
        axes.set(xlabel=name.replace("_", " "), title=f"rank correlation {rank}")
    panels[0].set_ylabel(HEADINGS["r_at_1"])
    figure.colorbar(dots, ax=panels, label="epoch", fraction=0.03)
    return figure


def retrieval_rows(
    ground: Sequence[Tensor], top_views: Sequence[Tensor] | None, retrieved: Sequence[Sequence[Tensor]], right: Tensor,
    captions: Sequence[str] = (),
) -> Figure:  # fmt: skip
    """A query a row: panorama, its top view, its first k tiles, each framed and marked as right or wrong.

    ground: Q panoramas (3, H, W). top_views: Q pictures, or None. retrieved: Q lists of k tiles, the nearest first.
    right: (Q, k) bool. captions: Q short texts above the panoramas.
    """
    count = len(retrieved[0])
    lists = list(zip(ground, *([] if top_views is None else [top_views]), strict=True))
    titles = ["ground image", "top view"][: len(lists[0])] + [str(place + 1) for place in range(count)]
    ratios = [image.shape[-1] / image.shape[-2] for image in (*lists[0], *retrieved[0])]
    height = WIDTH_IN / (sum(ratios) + 0.12 * len(ratios)) + 0.32
    figure, grid = plt.subplots(len(lists), len(ratios), squeeze=False, figsize=(WIDTH_IN, len(lists) * height),
                                width_ratios=ratios, layout="constrained")  # fmt: skip
    for row, panels in enumerate(grid):
        for axes, image, title in zip(panels, (*lists[row], *retrieved[row]), titles, strict=True):
            show(axes, image, title if row == 0 else "")
        for axes, correct in zip(panels[-count:], right[row].tolist(), strict=True):
            _frame(axes, RIGHT_COLOUR if correct else WRONG_COLOUR, TICK if correct else CROSS)
        if captions:
            panels[0].set_title(captions[row])
    return figure


def _frame(axes: Axes, colour: str, mark: str) -> None:
    place, box = axes.transAxes, {"facecolor": colour, "edgecolor": "none", "pad": 1.5}
    axes.add_patch(Rectangle((0, 0), 1, 1, fill=False, edgecolor=colour, linewidth=4, clip_on=False, transform=place))
    axes.text(0.07, 0.92, mark, va="top", color="white", fontsize=13, family="DejaVu Sans", bbox=box, transform=place)


def match_map(
    position: Tensor, matched_position: Tensor, status: Tensor, *, city: Sequence[str] | None = None
) -> Figure:
    """Where the labels lie, a map a city: right ones, wrong ones with a line to where they were put, unlabelled ones.

    position: (N, 2) metres east and north of the ground images. matched_position: (N, 2) of the tiles they were given;
    NaN (no line) where there is none, or in another city. status: (N,) RIGHT, WRONG or UNLABELLED (1, 0, -1). city: N
    names, a map each.
    """
    names = np.array([""] * len(status) if city is None else list(city))
    at, to, kind = (value.detach().cpu().numpy() for value in (position, matched_position, status))
    cities = list(dict.fromkeys(names.tolist()))
    columns = 2 if len(cities) in (2, 4) else min(3, len(cities))
    figure, panels = _panels(len(cities), height=6.6 if columns == 1 else WIDTH_IN / columns, columns=columns)
    for axes, name in zip(panels, cities, strict=True):
        rows = names == name
        counts = _draw_matches(axes, at[rows], to[rows], kind[rows])
        axes.set(title=f"{name}\n{counts}".strip(), xlabel="metres east", ylabel="metres north", aspect="equal")
    _legend_beneath(figure, panels[0])
    return figure


def _draw_matches(axes: Axes, at: np.ndarray, to: np.ndarray, kind: np.ndarray) -> str:
    """Dots, crosses and lines of one city; returns how many there are."""
    lined = (kind == WRONG) & np.isfinite(to).all(1)
    axes.add_collection(LineCollection(np.stack([at[lined], to[lined]], 1), colors=WRONG_COLOUR, linewidths=0.9, alpha=0.8,
                                       label="from a wrong one to where it was put"))  # fmt: skip
    for value, name, style in (
        (UNLABELLED, "no label", {"marker": "o", "s": 12, "facecolors": "white", "edgecolors": "#555555"}),
        (WRONG, "wrong", {"marker": "x", "s": 26, "c": WRONG_COLOUR, "linewidths": 1.8}),
        (RIGHT, "right", {"marker": "o", "s": 22, "c": RIGHT_COLOUR, "edgecolors": "white", "linewidths": 0.4}),
    ):
        axes.scatter(*at[kind == value].T, label=name, **style)
    axes.autoscale_view()
    return f"{(kind == RIGHT).sum()} right, {(kind == WRONG).sum()} wrong, {(kind == UNLABELLED).sum()} without a label"


def ablation_bars(
    frame: pd.DataFrame, value: str = "r_at_1", *, name: str = "method", published: Sequence[float | None] | None = None,
    labels: tuple[str, str] = ("ours", "published"),
) -> Figure:  # fmt: skip
    """Horizontal bars of a measure, ours above the published one; of several seeds the mean, with their range.

    frame: a row a method (and seed) with its name in the column `name` and the measure in the column `value`.
    published: one value a name in the order of the frame, None where not published. labels: what the two kinds of bars
    are, with the data they were measured on.
    """
    ours = frame.groupby(name, sort=False)[value].agg(["mean", "min", "max"])
    place, thick = np.arange(len(ours)), 0.7 if published is None else 0.38
    height = 1.1 + len(ours) * (0.42 if published is None else 0.66)
    figure, axes = plt.subplots(figsize=(WIDTH_IN, height), layout="constrained")
    spread = np.stack([ours["mean"] - ours["min"], ours["max"] - ours["mean"]])
    kinds = [(ours["mean"], ours["max"], labels[0], {"color": PALETTE[0], "xerr": spread if spread.any() else None})]
    if published is not None:
        theirs = pd.Series(list(published), dtype=float)
        kinds.append((theirs, theirs, labels[1], {"color": "#c9c9c9", "edgecolor": "#555555", "hatch": "//"}))
    for number, (widths, ends, label, style) in enumerate(kinds):
        middle = place + (number - (len(kinds) - 1) / 2) * thick
        axes.barh(middle, widths, thick, label=label, **style)
        for y, width, end in zip(middle, widths, ends, strict=True):
            text, x = (f"{width:.1f}", end) if math.isfinite(width) else ("not known", 0.0)
            axes.annotate(text, (x, y), (4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set(yticks=place, yticklabels=ours.index, xlabel=HEADINGS.get(value, value), ylim=(len(ours) - 0.45, -0.55))
    axes.margins(x=0.08)
    if published is not None:
        _legend_beneath(figure, axes)
    return figure


def _panels(count: int, *, height: float, columns: int = 4) -> tuple[Figure, list[Axes]]:
    """So many panels in rows of at most `columns`, the last row not filled up."""
    rows, columns = math.ceil(count / min(columns, count)), min(columns, count)
    figure, grid = plt.subplots(rows, columns, squeeze=False, figsize=(WIDTH_IN, rows * height), layout="constrained")
    for axes in grid.ravel()[count:]:
        axes.remove()
    return figure, list(grid.ravel()[:count])


def _legend_beneath(figure: Figure, axes: Axes) -> None:
    """The legend of one panel below all of them, where it covers no data."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=5)
