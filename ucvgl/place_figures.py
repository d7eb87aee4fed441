"""Plots of visual place recognition (VG-SSL), one function a figure: the photos, what networks look at, and the tables.

Each takes plain tensors and tables and returns a matplotlib figure. A method that collapsed, one that gives every photo
nearly the same descriptor, has no recall: NaN or None in a table, the word 'collapsed' in a figure, never a dot. All
raise InputError on missing rows or columns, on shapes that do not fit, and on NaN where none is named.
"""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.lines import Line2D
from torch import Tensor
from torch.nn.functional import interpolate

from ucvgl.errors import InputError
from ucvgl.lab.plots import PALETTE, WIDTH_IN, as_picture, show
from ucvgl.lab.tables import HEADINGS

UNTRAINED = "untrained"  # the backbone as it is given: no row of `method_bars` but a line through all
FAMILIES = {  # VG-SSL, section 2
    "metric learning": ("triplet",),
    "contrastive": ("simclr", "moco"),
    "information-maximising": ("barlow", "vicreg"),
    "self-distillation": ("byol", "simsiam"),
}
NAMES = {"triplet": "Triplet", "simclr": "SimCLR", "moco": "MoCo v2", "barlow": "Barlow Twins", "vicreg": "VICReg",
         "byol": "BYOL", "simsiam": "SimSiam", UNTRAINED: "untrained"}  # fmt: skip
COLLAPSED = "collapsed"
HEAT = "inferno"  # grows lighter all the way, also in grey and for colour-blind readers
PAIRS = 4  # pairs a row: eleven inches hold no more that can still be told apart
QUIET = "#777777"

# ---------------------------------------------------------------------------------------------------------- the photos


def pair_sheet(pairs: Mapping[str, tuple[Sequence[Tensor], Sequence[Tensor]]]) -> Figure:
    """A row a test set: queries, each with a database photo of the same place close beside it.

    pairs: test set -> (queries, positives), as many of one as of the other, pictures (3, H, W); the first PAIRS are shown.
    """
    counts = {name: (len(queries), len(positives)) for name, (queries, positives) in pairs.items()}
    fits = bool(counts) and all(queries == positives > 0 for queries, positives in counts.values())
    _check(
        fits, "pair sheet", "a query and a positive at least a test set", counts or "none", "Give one for the other."
    )
    for name, photos in pairs.items():
        for kind, images in zip(("queries", "positives"), photos, strict=True):
            _check_photos(f"pair sheet: {kind} of {name}", images)
    columns = min(PAIRS, max(queries for queries, _ in counts.values()))
    width, apart, between, above = min(WIDTH_IN / columns / 2 - 0.15, 2.2), 0.05, 0.24, 0.36
    heights = [width * _tallest([*queries[:columns], *positives[:columns]]) for queries, positives in pairs.values()]
    sheet = _Sheet(columns * (2 * width + apart + between) - between, sum(heights) + above * len(pairs) + 0.24)
    top = 0.24
    for row, ((name, photos), height) in enumerate(zip(pairs.items(), heights, strict=True)):
        sheet.write(0.0, top + above - 0.08, name, weight="bold")
        top += above
        for column, pair in enumerate(list(zip(*photos, strict=True))[:columns]):
            for side, (image, title) in enumerate(zip(pair, ("query", "positive"), strict=True)):
                left = column * (2 * width + apart + between) + side * (width + apart)
                show(sheet.panel(left, top, width, height), image)
                if row == 0:
                    sheet.write(left + width / 2, 0.14, title, ha="center", color=QUIET)
        top += height
    return sheet.figure


def overlay(picture: Tensor, activation: Tensor) -> Tensor:
    """A photo in grey under its activation map in colours from black (least) to light yellow (most).

    picture: (3, H, W) uint8 or float in 0..1. activation: (h, w) of any scale; it is stretched over 0..1 (all 0 where it is
    constant) and brought to (H, W) bilinearly. Gives back (3, H, W) float in 0..1.
    """
    _check_photos("overlay: picture", [picture])
    fits = activation.ndim == 2 and activation.numel() > 0 and bool(activation.isfinite().all())
    _check(
        fits, "overlay: activation", "a finite map (h, w)", f"{tuple(activation.shape)}, or NaN", "Sum its channels."
    )
    heat = activation.detach().cpu().double()  # small differences on a large offset count too
    heat = (heat - heat.min()) / (heat.max() - heat.min()).clamp(min=torch.finfo(torch.float64).tiny)
    heat = interpolate(heat[None, None], picture.shape[-2:], mode="bilinear", align_corners=False)[
        0, 0
    ].float()  # (H, W)
    colour = torch.from_numpy(plt.get_cmap(HEAT)(heat.numpy())[..., :3]).permute(2, 0, 1).float()
    grey = 0.08 + 0.47 * torch.from_numpy(as_picture(picture)).float().mean(-1) / 255  # else a bright sky looks warm
    alpha = 0.25 + 0.5 * heat  # what is looked at least keeps most of the photo
    return (1 - alpha) * grey + alpha * colour


def activation_sheet(
    query: Sequence[Tensor], positive: Sequence[Tensor], maps: Mapping[str, tuple[Tensor, Tensor]]
) -> Figure:
    """Where each method looks, as figure 3 of VG-SSL: a column a method, for each pair the query above its positive.

    query, positive: R pictures (3, H, W), of the same place where of the same number. maps: method -> activations (R, h, w)
    of the queries and of the positives, of any scale: each is stretched from its own least to its own greatest value.
    """
    _check(len(query) == len(positive) > 0 and len(maps) > 0, "activation sheet", "R queries, R positives, a method",
           f"{len(query)}, {len(positive)}, {len(maps)} methods", "Give a positive a query.")  # fmt: skip
    for kind, images in (("queries", query), ("positives", positive)):
        _check_photos(f"activation sheet: {kind}", images)
    for name, both in maps.items():
        shapes = [tuple(values.shape) for values in both]
        fits = len(both) == 2 and all(len(s) == 3 and s[0] == len(query) and min(s) > 0 for s in shapes)
        _check(fits and all(bool(values.isfinite().all()) for values in both), f"activation sheet: {name}",
               f"finite maps ({len(query)}, h, w) of queries and of positives", f"{shapes}, or NaN",
               "Take them from one network and these photos.")  # fmt: skip
    names, gap, side, head, foot = list(maps), 0.05, 0.26, 0.3, 0.62
    width = min((WIDTH_IN - side) / (len(names) + 1) - gap, 2.0)
    height = width * _tallest([*query, *positive])
    pair = 2 * height + gap + 0.16  # pairs stand further apart than a query and its positive
    sheet = _Sheet(side + (len(names) + 1) * (width + gap) - gap, head + len(query) * pair + foot)
    for column, name in enumerate(["photo", *names]):
        sheet.write(side + column * (width + gap) + width / 2, head - 0.1, NAMES.get(name, name), ha="center",
                    fontsize=10 if width > 1.05 else 9)  # fmt: skip
    for row, photos in enumerate(zip(query, positive, strict=True)):
        for below, (photo, kind) in enumerate(zip(photos, ("query", "positive"), strict=True)):
            top = head + row * pair + below * (height + gap)
            sheet.write(
                side - 0.09, top + height / 2, kind, rotation=90, ha="right", va="center", color=QUIET, fontsize=9
            )
            pictures = [photo, *(overlay(photo, maps[name][below][row]) for name in names)]
            for column, picture in enumerate(pictures):
                show(sheet.panel(side + column * (width + gap), top, width, height), picture)
    bar = sheet.panel(side, head + len(query) * pair + 0.06, 2.2, 0.13)
    sheet.figure.colorbar(ScalarMappable(cmap=HEAT), cax=bar, orientation="horizontal", ticks=[])
    bar.set_xlabel("least to most active, each picture on its own scale", loc="left", fontsize=9)
    return sheet.figure


class _Sheet:
    """A figure whose parts are put down in inches from its upper left corner: no layout moves pictures apart."""

    def __init__(self, width_in: float, height_in: float) -> None:
        self.size = (width_in, height_in)
        # not "none": saving would then fall back on the style's layout, which has nothing to lay out here and warns
        layout = PlaceHolderLayoutEngine(adjust_compatible=True, colorbar_gridspec=True)
        self.figure = plt.figure(figsize=self.size, layout=layout)

    def panel(self, left: float, top: float, width: float, height: float) -> Axes:
        across, down = self.size
        return self.figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))

    def write(self, left: float, top: float, text: str, **style: object) -> None:
        self.figure.text(left / self.size[0], 1 - top / self.size[1], text, **style)


def _tallest(images: Sequence[Tensor]) -> float:
    """The greatest height in widths."""
    return max(image.shape[-2] / image.shape[-1] for image in images)


# ---------------------------------------------------------------------------------------------------------- the tables


def method_bars(
    frame: pd.DataFrame, tests: Sequence[str], *, value: str = "r_at_1", published: pd.DataFrame | None = None,
    labels: tuple[str, str] = ("ours", "published, on other data"),
    families: Mapping[str, Sequence[str]] = FAMILIES,
) -> Figure:  # fmt: skip
    """Recall of each method on each test set: a panel a test set, a row a method, families apart.

    Args:
        frame: method, test and the measure in percent, a row a method, test set and seed. A dot is the mean of the seeds,
            its line their range. NaN or None: collapsed. Rows of UNTRAINED are a line through the panel.
        tests: test sets to show, named as in the frame.
        value: the column of the measure.
        published: method, test and the measure, as the frame; hollow dots, and none where there is no row or no number.
        labels: what dots and hollow dots are, with the data they were measured on.
        families: family -> its methods, named as in the frame; those of no row are left out.
    """
    columns = ("method", "test", value)
    _check_columns("method bars", frame, columns)
    frame, known = frame[frame["test"].isin(list(tests))], list(dict.fromkeys(frame["test"]))
    _check(len(tests) > 0 and set(tests) <= set(known), "method bars: tests", f"names among {known}", list(tests),
           "Name them as the table does.")  # fmt: skip
    if published is not None:
        _check_columns("method bars: published", published, columns)
    theirs = frame[:0] if published is None else published
    for name, table in (("", frame), (": published", theirs)):
        _check_percent(f"method bars{name}: {value}", table[value])
    rows, ticks, colours = _family_rows(frame, families)
    figure, grid = plt.subplots(1, len(tests), squeeze=False, sharey=True, layout="constrained",
                                figsize=(WIDTH_IN, 1.5 + 0.29 * len(ticks)))  # fmt: skip
    for axes, test in zip(grid[0], tests, strict=True):
        ours, reference = frame[frame["test"] == test], None
        untrained = _numbers(ours[ours["method"] == UNTRAINED][value])
        if untrained.notna().any():
            reference = untrained.mean()
            axes.axvline(reference, color="black", linestyle="--", linewidth=1.1, zorder=1)
        for method, place in rows.items():
            given = _numbers(theirs[(theirs["test"] == test) & (theirs["method"] == method)][value]).dropna()
            if len(given):
                axes.plot(
                    given.mean(), place, "o", markersize=7, markerfacecolor="none", markeredgecolor=colours[place]
                )
            _method_dot(axes, place, _numbers(ours[ours["method"] == method][value]), colours[place])
        note = "" if reference is None else f"\nuntrained {reference:.1f}"
        axes.set(title=f"{test}{note}", xlabel=HEADINGS.get(value, value))
        axes.margins(x=0.1)
        axes.grid(axis="x", color="#eeeeee", zorder=0)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    grid[0, 0].set(yticks=range(len(ticks)), yticklabels=ticks, ylim=(len(ticks) - 0.4, -0.6))
    for place, text in enumerate(grid[0, 0].get_yticklabels()):
        if place not in rows.values():
            text.set(color=colours[place], fontweight="bold")
    figure.legend(handles=_method_handles(frame, value, published, labels), loc="outside lower center",
                  ncols=3 if published is None else 2)  # fmt: skip
    return figure


def _family_rows(
    frame: pd.DataFrame, families: Mapping[str, Sequence[str]]
) -> tuple[dict[str, int], list[str], list[str]]:
    """Method -> its row; what is written at each row, a family's name above its methods; the colour of each row."""
    present = [method for method in dict.fromkeys(frame["method"]) if method != UNTRAINED]
    named = [method for methods in families.values() for method in methods]
    astray = [method for method in present if named.count(method) != 1]
    _check(bool(present) and not astray, "method bars: families", "each method in one family",
           f"{astray} of {present}", "Pass `families` with all methods of the table.")  # fmt: skip
    rows, ticks, colours = {}, [], []
    for number, (family, methods) in enumerate(families.items()):
        chosen = [method for method in methods if method in present]
        if chosen:
            ticks.append(family)
            rows.update({method: len(ticks) + place for place, method in enumerate(chosen)})
            ticks += [NAMES.get(method, method) for method in chosen]
            colours += [PALETTE[number % len(PALETTE)]] * (1 + len(chosen))
    return rows, ticks, colours


def _method_dot(axes: Axes, place: int, values: pd.Series, colour: str) -> None:
    """Mean and range of one method on one test set, and its number, or a word, in a column beside the panel."""
    found = values.dropna()
    if len(found):
        axes.plot([found.min(), found.max()], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
        axes.plot(found.mean(), place, "o", color=colour, markersize=7, zorder=3)
        text = f"{found.mean():.1f}" + (f" ({len(found)} of {len(values)})" if len(found) < len(values) else "")
    else:
        text = COLLAPSED if len(values) else "not measured"
    axes.text(1.02, place, text, va="center", fontsize=9, transform=axes.get_yaxis_transform(),
              **({} if len(found) else {"style": "italic", "color": QUIET}))  # fmt: skip


def _method_handles(
    frame: pd.DataFrame, value: str, published: pd.DataFrame | None, labels: tuple[str, str]
) -> list[Artist]:
    dot = {"marker": "o", "markersize": 7, "color": QUIET}
    seeds = frame[frame["method"] != UNTRAINED].groupby(["method", "test"])[value].agg(["count", "size"])
    several = seeds["size"].max() > 1
    handles = [Line2D([], [], linestyle="-" if several else "", linewidth=2.2, **dot,
                      label=f"{labels[0]}: mean and range" if several else labels[0])]  # fmt: skip
    if published is not None:
        handles.append(Line2D([], [], linestyle="", markerfacecolor="none", label=labels[1], **dot))
    if ((frame["method"] == UNTRAINED) & frame[value].notna()).any():
        handles.append(Line2D([], [], color="black", linestyle="--", linewidth=1.1, label="the backbone, untrained"))
    if ((seeds["count"] > 0) & (seeds["count"] < seeds["size"])).any():
        handles.append(Line2D([], [], linestyle="", label=f"(k of n): mean of k seeds, the others {COLLAPSED}"))
    return handles


def cost_bars(frame: pd.DataFrame) -> Figure:
    """Seconds an epoch takes, mining and training as parts of one bar; at its end what a step holds in memory.

    frame: method, mining_seconds, training_seconds (the epoch without its mining), step_mb (MB; NaN or None where not
    measured); of several rows of a method the mean. Bars stand in the order of the table.
    """
    parts = {"mining_seconds": ("mining", PALETTE[1]), "training_seconds": ("training", PALETTE[0])}
    _check_columns("cost bars", frame, ("method", *parts, "step_mb"))
    for name in (*parts, "step_mb"):
        values = _numbers(frame[name])
        fits = not (values < 0).any() and not np.isinf(values).any() and (name == "step_mb" or values.notna().all())
        _check(fits, f"cost bars: {name}", "numbers from 0 on", frame[name].tolist(), "Measure an epoch of each.")
    columns = [*parts, "step_mb"]
    means = (
        frame.assign(**{name: _numbers(frame[name]) for name in columns}).groupby("method", sort=False)[columns].mean()
    )
    figure, axes = plt.subplots(figsize=(WIDTH_IN * 0.8, 1.3 + 0.4 * len(means)), layout="constrained")
    place, left = np.arange(len(means)), np.zeros(len(means))
    for name, (label, colour) in parts.items():
        axes.barh(place, means[name], 0.66, left=left, color=colour, label=label)
        left = left + means[name].to_numpy()
    for y, end, memory in zip(place, left, means["step_mb"], strict=True):
        text = "memory not measured" if math.isnan(memory) else f"{memory:,.0f} MB a step"
        axes.annotate(
            f"{end:,.{1 if end < 100 else 0}f} s, {text}",
            (end, y),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.set(yticks=place, yticklabels=[NAMES.get(name, name) for name in means.index], xlabel="seconds per epoch",
             ylim=(len(means) - 0.45, -0.55), xlim=(0, max(1.3 * left.max(), 1e-9)))  # fmt: skip
    axes.tick_params(axis="y", length=0)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


# ---------------------------------------------------------------------------------------------------------- the checks


def _numbers(values: pd.Series) -> pd.Series:
    """As float, None as NaN."""
    return pd.to_numeric(values, errors="coerce").astype(float)


def _check(fits: bool, where: str, expected: str, found: object, todo: str) -> None:
    if not fits:
        raise InputError(where, expected=expected, found=found, todo=todo)


def _check_photos(where: str, images: Sequence[Tensor]) -> None:
    shapes = {tuple(image.shape) for image in images}
    fits = all(len(shape) == 3 and shape[0] == 3 and min(shape) > 0 for shape in shapes)
    _check(fits, where, "pictures (3, H, W)", sorted(shapes), "Give colour pictures, one by one or stacked.")


def _check_percent(where: str, values: pd.Series) -> None:
    numbers = _numbers(values)
    fits = numbers.isna().equals(values.isna()) and bool(numbers.dropna().between(0, 100).all())
    _check(fits, where, "percentages from 0 to 100, NaN or None where collapsed", values.tolist(), "Check its unit.")


def _check_columns(where: str, frame: pd.DataFrame, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in frame]
    _check(not missing and not frame.empty, where, f"rows with {', '.join(names)}",
           f"{len(frame)} rows, missing {missing}", "Check where the table was made.")  # fmt: skip
