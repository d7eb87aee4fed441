"""Plots of a retrieval run, one function a figure: batches, training, pseudo-labels, what is retrieved and where it lies.

Each takes plain tensors and tables and returns a matplotlib figure. Right and wrong have one colour each throughout. Of a batch
(Sample4Geo, section 3), the *drawn place* of a place is the one that it joined, itself if the sampler drew it.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from torch import Tensor

from ucvgl.lab.plots import NONE_COLOUR, PALETTE, RIGHT_COLOUR, WIDTH_IN, WRONG_COLOUR, framed, montage, sheet, strip
from ucvgl.lab.tables import HEADINGS

RIGHT, WRONG, UNLABELLED = 1, 0, -1  # the status of a match on `match_map`
SHOWN = 10  # tiles a row: eleven inches hold no more that can still be told apart
FRAME_COLOUR = PALETTE[4]  # of a drawn place
GROUP_COLOURS = PALETTE[:5]  # of a drawn place and those that joined it; the sixth, a grey, is too near ALONE_COLOUR
FAINT_COLOUR, ALONE_COLOUR = "#d4d4d4", "#333333"  # places outside the batch; drawn places that none joined


def loss_plot(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Loss per epoch, a panel a stage on a scale of its own: label smoothing and batch size move the least loss.

    rows: stage -> rows of `training.train`: epoch, loss (NaN leaves a gap), seconds. In the title: epochs × seconds.
    """
    figure, panels = _panels(len(rows), height=2.9)
    for axes, (stage, epochs), colour in zip(panels, rows.items(), PALETTE, strict=False):
        frame = pd.DataFrame(list(epochs))
        axes.plot(frame["epoch"], frame["loss"], marker="o", markersize=3.5, color=colour)
        axes.set(xlabel="epoch", title=f"{stage}: {len(frame)} × {frame['seconds'].mean():.1f} s")
        axes.set_xlim(frame["epoch"].min() - 0.5, frame["epoch"].max() + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)  # whole epochs, of a single one as well
    panels[0].set_ylabel("loss (nats)")
    return figure


def similarity_structure(before: Tensor, after: Tensor, order: Tensor) -> Figure:
    """Similarities along a drive, before and after training, on one colour scale, and beneath them right pairs and others.

    before, after: (N, N) cosines; ground image i, a row, shows what satellite image i shows. order: (M,) indices of images
    in the order of the drive; about 64 can be read.
    """
    matrices = [m.detach().cpu().float()[order][:, order].numpy() for m in (before, after)]
    low, high = np.min(matrices), np.max(matrices)
    own = np.eye(len(order), dtype=bool)
    figure, grid = plt.subplots(2, 2, figsize=(WIDTH_IN, 7.4), height_ratios=(2.6, 1), layout="constrained")
    for (above, below), when, matrix in zip(grid.T, ("Before", "After"), matrices, strict=True):
        image = above.imshow(matrix, vmin=low, vmax=high, cmap="viridis", interpolation="nearest")
        first = 100 * float((matrix.argmax(1) == np.arange(len(matrix))).mean())
        above.set(title=f"{when} training: nearest is right for {first:.0f} %", xlabel="satellite image of the drive")
        right, others = matrix[own], matrix[~own]
        for name, values, colour in (("other pairs", others, NONE_COLOUR), ("right pairs", right, RIGHT_COLOUR)):
            weights = np.full(len(values), 100 / len(values))
            below.hist(values, 40, range=(low, high), weights=weights, color=colour, alpha=0.7, label=name)
        title = f"Median of right pairs {np.median(right):.2f}, of others {np.median(others):.2f}"
        below.set(xlabel="cosine", title=title)
    grid[0, 0].set_ylabel("ground image of the drive")
    figure.colorbar(image, ax=grid[0], label="cosine", shrink=0.85)
    grid[1, 0].set_ylabel("share of pairs (%)")
    grid[1, 0].sharey(grid[1, 1])
    return _with_legend(figure, grid[1, 0])


def precision_coverage(frame: pd.DataFrame) -> Figure:
    """How many ground images a rule labels, and how many of the labels are right, swept over each rule's threshold.

    frame: rule, coverage (% of the ground images), precision (% of the labels; NaN where there is none).
    """
    figure, axes = plt.subplots(figsize=(WIDTH_IN, 4.2), layout="constrained")
    lines = {"hue": "rule", "style": "rule", "palette": PALETTE[: frame["rule"].nunique()]}
    sns.lineplot(frame.dropna(), x="coverage", y="precision", estimator=None, ax=axes, **lines)
    axes.set(xlabel="ground images with a label (%)", ylabel="labels that are right (%)", ylim=(0, 103), xlim=(0, None))
    sns.move_legend(axes, "upper left", bbox_to_anchor=(1.0, 1.0), title=None)
    return figure


def margin_histogram(margin: Tensor, right: Tensor, mutual: Tensor, threshold: float) -> Figure:
    """Margins of right and wrong nearest tiles; shaded is what mutual matching removes and what the threshold removes.

    margin: (N,) first minus second cosine of each ground image. right: (N,) bool, its nearest tile is right. mutual: (N,)
    bool, the two are each other's nearest. threshold: least margin of a pseudo-label.
    """
    margin, right, mutual = (value.cpu().numpy() for value in (margin, right, mutual))
    figure, (left, other) = plt.subplots(1, 2, figsize=(WIDTH_IN, 3.6), sharex=True, sharey=True, layout="constrained")
    top = max(float(margin.max()), threshold)
    _margin_panel(left, margin[mutual], right[mutual], threshold, top=top, removed_to=threshold)
    _margin_panel(other, margin[~mutual], right[~mutual], threshold, top=top, removed_to=top)
    kept = _counted(right[mutual & (margin >= threshold)])
    left.set(title=f"Mutual: {_counted(right[mutual])}\nkept by the threshold: {kept}", ylabel="ground images")
    other.set_title(f"Not mutual: {_counted(right[~mutual])}\nkept by mutual matching: none")
    return _with_legend(figure, left)


def threshold_look(margin: Tensor, right: Tensor, candidate: Tensor, threshold: float) -> dict[str, Figure]:
    """What a threshold labels, counted in a sentence, and the candidates' margins.

    margin, right: (N,) as of `margin_histogram`. candidate: (N,) bool, may have a label at all. threshold: least margin.
    """
    margin, right, candidate = (value.cpu().numpy() for value in (margin, right, candidate))
    labelled, top = candidate & (margin >= threshold), float(margin.max())
    figure, axes = plt.subplots(figsize=(WIDTH_IN, 3.6), layout="constrained")
    _margin_panel(axes, margin[candidate], right[candidate], threshold, top=top, removed_to=threshold)
    axes.set_ylabel("candidates")
    said = f"{_counted(right[labelled])} ({100 * labelled.mean():.1f} % of {len(margin):,} ground images)"
    return {f"labels: {said}": _with_legend(figure, axes)}


def _counted(right: np.ndarray) -> str:
    """'120, 80 % of them right' of a bool array."""
    return f"{len(right):,}, {100 * right.mean():.0f} % of them right" if len(right) else "none"


def _margin_panel(
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
    """Labels found and right ones by epoch as areas; beside them the threshold and the recall.

    frame: epoch, in order, labels, correct (numbers of ground images), threshold (a cosine) and r_at_1 (%, NaN where not
    measured).
    """
    figure, panels = plt.subplots(1, 3, figsize=(WIDTH_IN, 3.5), layout="constrained", width_ratios=(1.7, 1, 1))
    right, found = frame["correct"].where(frame["labels"] != 0, 0.0), frame["labels"]
    panels[0].stackplot(frame["epoch"], right, found - right, colors=[RIGHT_COLOUR, WRONG_COLOUR], alpha=0.75,
                        labels=["right labels", "wrong labels"])  # fmt: skip
    panels[0].plot(frame["epoch"], found, color="black", linewidth=1, marker=".", label="labels found")
    panels[0].set(title="Pseudo-labels", ylabel="ground images")
    panels[1].plot(frame["epoch"], frame["threshold"], marker=".", color=PALETTE[3])
    panels[1].set(title="Threshold", ylabel="margin asked for (cosine)")
    measured = frame.dropna(subset=["r_at_1"])
    panels[2].plot(measured["epoch"], measured["r_at_1"], marker=".", color=PALETTE[0])
    panels[2].set(title="Recall at 1", ylabel=HEADINGS["r_at_1"])
    for axes in panels:
        axes.set(xlabel="epoch", ylim=(0, None))
        axes.xaxis.get_major_locator().set_params(integer=True)
    return _with_legend(figure, panels[0])


def quality_plot(frame: pd.DataFrame, measures: Sequence[str]) -> Figure:
    """Measures that need no labels against the true recall, a dot an epoch, with Spearman's rank correlation.

    frame: an epoch a row: the columns `measures`, r_at_1 (true recall in %) and epoch, shown as colour; without rows of NaN.
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
    ground: Sequence[Tensor], top_views: Sequence[Tensor], retrieved: Sequence[Sequence[Tensor]], right: Tensor,
    captions: Sequence[str],
) -> Figure:  # fmt: skip
    """A query a row: panorama (3, H, W) with a caption, its top view, its first k tiles, framed as right (Q, k) or wrong."""
    columns = {"": list(ground), "top view": list(top_views)}
    for rank, is_right in enumerate(right.T.tolist()):
        tiles = [row[rank] for row in retrieved]
        columns[str(rank + 1)] = [framed(tile, value) for tile, value in zip(tiles, is_right, strict=True)]
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
    names = np.array([""] * len(status) if city is None else list(city))
    at, to, kind = (value.detach().cpu().numpy() for value in (position, matched_position, status))
    cities = list(dict.fromkeys(names.tolist()))
    lined = (kind == WRONG) & np.isfinite(to).all(1)
    figure, panels = _panels(len(cities), height=6.6 if len(cities) == 1 else WIDTH_IN / len(cities))
    for axes, name in zip(panels, cities, strict=True):
        here = names == name
        ends = np.stack([at[here & lined], to[here & lined]], 1)
        axes.add_collection(LineCollection(ends, colors=WRONG_COLOUR, linewidths=0.9, alpha=0.8,
                                           label="from a wrong one to where it was put"))  # fmt: skip
        for value, label, style in (
            (UNLABELLED, "no label", {"marker": "o", "s": 12, "facecolors": "white", "edgecolors": "#555555"}),
            (WRONG, "wrong", {"marker": "x", "s": 26, "c": WRONG_COLOUR, "linewidths": 1.8}),
            (RIGHT, "right", {"marker": "o", "s": 22, "c": RIGHT_COLOUR, "edgecolors": "white", "linewidths": 0.4}),
        ):
            axes.scatter(*at[here & (kind == value)].T, label=label, **style)
        right, wrong, none = ((kind[here] == value).sum() for value in (RIGHT, WRONG, UNLABELLED))
        title = f"{name}\n{right} right, {wrong} wrong, {none} without a label".strip()
        axes.set(title=title, xlabel="metres east", ylabel="metres north", aspect="equal")
    return _with_legend(figure, panels[0])


def ablation_bars(
    frame: pd.DataFrame, *, name: str, published: Sequence[float | None], labels: tuple[str, str]
) -> Figure:
    """Horizontal bars of R@1, ours above the published one.

    frame: a row a method with its name in the column `name` and r_at_1 in percent. published: one value a row, None where
    not published. labels: what the two kinds of bars are, with the data they were measured on.
    """
    theirs, place = np.array(published, dtype=float), np.arange(len(frame))
    figure, axes = plt.subplots(figsize=(WIDTH_IN, 1.1 + 0.66 * len(frame)), layout="constrained")
    for values, up, label, style in (
        (frame["r_at_1"], -0.19, labels[0], {"color": PALETTE[0]}),
        (theirs, 0.19, labels[1], {"color": "#c9c9c9", "edgecolor": "#555555", "hatch": "//"}),
    ):
        drawn = axes.barh(place + up, np.nan_to_num(values), 0.38, label=label, **style)
        texts = ["not known" if np.isnan(value) else f"{value:.1f}" for value in values]
        axes.bar_label(drawn, texts, padding=4, fontsize=9)
    axes.set(yticks=place, yticklabels=frame[name], xlabel=HEADINGS["r_at_1"], ylim=(len(frame) - 0.45, -0.55))
    return _with_legend(figure, axes)


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
    places = where.cpu().double().numpy()
    figure, panels = _panels(len(batches), height=WIDTH_IN / max(2, len(batches)) + 0.9, share=True)
    for axes, (name, batch) in zip(panels, batches.items(), strict=True):
        item, anchor = batch.cpu().numpy(), anchors[name].cpu().numpy()
        joined, colours = item != anchor, _group_colours(item, anchor)
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
    return _with_legend(figure, panels[-1])


def _group_colours(item: np.ndarray, anchor: np.ndarray) -> np.ndarray:
    """(B,) colours: one for all that have the same drawn place, in turn; ALONE_COLOUR for a place that none joined."""
    groups = list(dict.fromkeys(anchor[item != anchor].tolist()))
    table = {drawn: GROUP_COLOURS[number % len(GROUP_COLOURS)] for number, drawn in enumerate(groups)}
    return np.array([table.get(drawn, ALONE_COLOUR) for drawn in anchor.tolist()], dtype=object)


def _panels(count: int, *, height: float, share: bool = False) -> tuple[Figure, list[Axes]]:
    """So many panels in a row, which may share their axes."""
    how = {"squeeze": False, "layout": "constrained", "sharex": share, "sharey": share}
    figure, grid = plt.subplots(1, count, figsize=(WIDTH_IN, height), **how)
    return figure, list(grid[0])


def _with_legend(figure: Figure, axes: Axes) -> Figure:
    """The figure with the legend of one panel below all of them, where it covers no data."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure
