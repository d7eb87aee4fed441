"""What the notebooks draw with: one style, sheets of pictures, maps of numbers, bars; and their browser, which leafs through the
rows of a table and shows the pictures of each. A figure used once is drawn in its cell."""

import html
import itertools
import math
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor

PALETTE = ("#1f6f8b", "#e07a3f", "#6b8f3c", "#8a5a9e", "#b8323a", "#555555")
WIDTH_IN = 11.0
# The green and the vermilion of Okabe and Ito, which colour-blind readers tell apart; frames carry a tick or a cross, too.
RIGHT_COLOUR, WRONG_COLOUR, NONE_COLOUR = "#009e73", "#d55e00", "#9a9a9a"
MARKS = {RIGHT_COLOUR: ((14, 28), (24, 42), (42, 14)), WRONG_COLOUR: ((14, 14), (42, 42), (28, 28), (42, 14), (14, 42))}
STRIP_PX = 300  # height of a strip: twice that on the page, for dense screens


def use_style() -> None:
    """The look of all figures, and small inline pictures: call once in a notebook's set-up cell."""
    sns.set_theme(style="ticks", palette=PALETTE, font_scale=0.95)
    plt.rcParams.update({"figure.dpi": 80, "axes.titlesize": 10.5, "axes.spines.top": False, "axes.spines.right": False,
                         "legend.frameon": False, "figure.constrained_layout.use": True})  # fmt: skip
    if get_ipython() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("jpeg", pil_kwargs={"quality": 82})  # as PNG the notebooks would take several megabytes


def as_picture(image: Tensor) -> np.ndarray:
    """(3, H, W) uint8 or float in 0..1 as (H, W, 3) uint8."""
    if image.is_floating_point():
        image = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    return image.detach().cpu().permute(1, 2, 0).numpy()


def show(axes: Axes, image: Tensor, title: str = "") -> None:
    """An image without axes."""
    axes.imshow(as_picture(image), interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title)


def sheet(columns: Mapping[str, list[Tensor]], *, row_labels: Sequence[str] = (), width_in: float = WIDTH_IN) -> Figure:
    """Pictures (3, H, W) in columns by their titles, each as wide as its pictures' shape asks for."""
    pictures = [picture for row in zip(*columns.values(), strict=True) for picture in row]
    return montage(pictures, list(columns), columns=len(columns), row_labels=row_labels, width_in=width_in)


def montage(
    pictures: Sequence[Tensor], titles: Sequence[str], *, columns: int, row_labels: Sequence[str] = (),
    width_in: float = WIDTH_IN,
) -> Figure:  # fmt: skip
    """Pictures (3, H, W) row by row, those of a column of one shape, the first of them with their own titles."""
    rows, ratios = math.ceil(len(pictures) / columns), [p.shape[-1] / p.shape[-2] for p in pictures[:columns]]
    titled = 1 if len(titles) <= columns else rows
    size = (width_in, rows * width_in / sum(ratios) * 1.03 + 0.28 * titled + 0.07)
    figure, grid = plt.subplots(rows, columns, squeeze=False, figsize=size, width_ratios=ratios)
    for axes, picture, title in itertools.zip_longest(grid.flat, pictures, titles):
        axes.set_axis_off()
        if picture is not None:
            show(axes, picture, title or "")
    for axes, label in zip(grid[:, 0], row_labels, strict=False):
        axes.text(-0.04, 0.5, label, rotation=90, ha="right", va="center", transform=axes.transAxes)
    return figure


def number_maps(maps: Mapping[str, Tensor], *, form: str = ".0f", width_in: float = WIDTH_IN) -> Figure:
    """Small matrices (H, W) by their titles, side by side, each number written into its cell: what a method computes on the way."""
    figure, grid = plt.subplots(1, len(maps), squeeze=False, figsize=(width_in, width_in / len(maps) + 0.35))
    for axes, (title, numbers) in zip(grid[0], maps.items(), strict=True):
        sns.heatmap(numbers.detach().cpu(), annot=True, fmt=form, annot_kws={"fontsize": 8}, cmap="vlag", square=True,
                    cbar=False, xticklabels=False, yticklabels=False, ax=axes)  # fmt: skip
        axes.set_title(title)
    return figure


def bars(frame: pd.DataFrame, x: str, y: str, hue: str, *, form: str = "%.1f") -> Figure:
    """A bar for each row of a table, its height on top, as `form` writes it; columns: x the group, y the height, hue the colour."""
    figure, axes = plt.subplots(figsize=(8.2, 3.4))
    sns.barplot(frame, x=x, y=y, hue=hue, ax=axes)
    for container in axes.containers:
        axes.bar_label(container, fmt=form, padding=2, fontsize=9)
    # above, since bars may fill the axes
    axes.legend(title=None, ncols=frame[hue].nunique(), loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def diagram(boxes: Mapping[str, tuple[float, float]], arrows: Sequence[tuple[str, str, str]]) -> Figure:
    """Boxes by their text, at (right, up), and arrows from one box to another with a text each."""
    right, up = np.max([*boxes.values()], axis=0)
    figure, axes = plt.subplots(figsize=(WIDTH_IN, 1.3 * up + 1))
    outline = {"boxstyle": "round,pad=0.5", "facecolor": "#eef3f5", "edgecolor": PALETTE[0]}
    drawn = {text: axes.text(*place, text, ha="center", va="center", bbox=outline) for text, place in boxes.items()}
    plain = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    for start, end, text in arrows:
        line = {"arrowstyle": "->", "color": PALETTE[0], "patchA": drawn[start].get_bbox_patch(),
                "patchB": drawn[end].get_bbox_patch()}  # fmt: skip
        axes.annotate("", boxes[end], boxes[start], arrowprops=line)
        middle = np.mean([boxes[start], boxes[end]], axis=0)
        axes.text(*middle, text, fontsize=9, color=PALETTE[4], ha="center", va="center", bbox=plain)
    axes.set(xlim=(-0.6, right + 0.6), ylim=(-0.5, up + 0.5))
    axes.set_axis_off()
    return figure


def ranked(
    gallery: Sequence[Tensor], index: Sequence[int], right: Sequence[float], notes: Sequence[str] = ()
) -> dict[str, Tensor]:
    """What was retrieved, the nearest first, by its caption, each as of `framed`. gallery: pictures (3, H, W). index: the k
    retrieved. right: k truth values, NaN where not known. notes: k captions, or none."""
    found = {}
    for rank, (row, true, note) in enumerate(itertools.zip_longest(index, right, notes), 1):
        name = f"{rank}: {note}" if note else str(rank)
        found[name + {1.0: ", right", 0.0: ", wrong"}.get(float(true), "")] = framed(gallery[int(row)], true)
    return found


def framed(picture: Tensor, right: float) -> Tensor:
    """A picture (3, H, W) in a green frame with a tick, in a red one with a cross, or as it is where truth is not known (NaN)."""
    return strip([picture], {1.0: RIGHT_COLOUR, 0.0: WRONG_COLOUR}.get(float(right), ""))


def strip(pictures: Sequence[Tensor], frame: str = "", *, frame_px: int = 14) -> Tensor:
    """Pictures of any shape side by side, (3, STRIP_PX, W) uint8, in a frame of a colour, or none; those of MARKS with theirs."""
    scaled = [Image.fromarray(as_picture(picture)) for picture in pictures]
    scaled = [image.resize((max(1, round(STRIP_PX * image.width / image.height)), STRIP_PX)) for image in scaled]
    joined = Image.fromarray(np.concatenate(scaled, axis=1))
    pen = ImageDraw.Draw(joined)
    if frame:
        pen.rectangle((0, 0, joined.width - 1, joined.height - 1), outline=frame, width=frame_px)
    if frame in MARKS:
        pen.rectangle((0, 0, 56, 56), fill=frame)
        pen.line(MARKS[frame], fill="white", width=6)
    return torch.from_numpy(np.array(joined)).permute(2, 0, 1)


def browse(
    rows: pd.DataFrame, draw: Callable[[dict[str, Any]], Mapping[str, Tensor]], *, filters: Mapping[str, str],
    height_px: int = 150,
) -> widgets.VBox:  # fmt: skip
    """Leaf through the rows of a table, all or those that filters choose: what a row says, and the pictures drawn of it. A column
    of truth values is read as right and wrong. draw: a row as column -> value; gives pictures (3, H, W) by their captions.
    filters: columns of texts -> where the filter starts, "all" or a text ("right"). height_px: of a picture on the page."""
    rows = rows.reset_index(drop=True)
    texts = rows.apply(lambda column: column.map({True: "right", False: "wrong"}) if column.dtype == bool else column)
    texts = texts.map(lambda value: f"{value:.4g}".replace("nan", "none") if isinstance(value, float) else value)
    knobs = {name: widgets.Dropdown(options=["all", *texts[name].unique()], value=start, description=name)
             for name, start in filters.items()}  # fmt: skip
    place = widgets.IntSlider(value=1, min=1, max=len(rows), description="row", continuous_update=False)
    said, box, chosen = widgets.HTML(), widgets.HTML(), []

    def look(_: object = None) -> None:
        said.value, box.value = "no row fits these filters", ""
        if chosen:
            row = chosen[place.value - 1]
            words = "; ".join(f"{name} {value}" for name, value in texts.loc[row].items())
            said.value = html.escape(f"{place.value} of {len(chosen)}: {words}")
            pictures = draw(rows.iloc[[row]].to_dict("records")[0])
            figures = "".join(_on_page(picture, caption, height_px) for caption, picture in pictures.items())
            box.value = f'<div style="display: flex; flex-wrap: wrap">{figures}</div>'

    def choose(_: object = None) -> None:
        fits = [(texts[name] == knob.value) | (knob.value == "all") for name, knob in knobs.items()]
        chosen[:] = texts.index[np.logical_and.reduce(fits)]
        place.unobserve(look, "value")  # one picture for the new choice, not one for each step on the way
        place.max, place.disabled = max(1, len(chosen)), not chosen
        place.observe(look, "value")
        look()

    for knob in knobs.values():
        knob.observe(choose, "value")
    choose()
    return widgets.VBox([place, widgets.HBox([*knobs.values()], layout={"flex_flow": "row wrap"}), said, box])


def _on_page(picture: Tensor, caption: str, height_px: int) -> str:
    """A picture above its caption, as HTML."""
    file = BytesIO()
    Image.fromarray(as_picture(picture)).save(file, "jpeg", quality=88)
    source = f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"
    image = f'<img src="{source}" height="{height_px}">'
    return f'<figure style="margin: 2px">{image}<figcaption>{html.escape(caption)}</figcaption></figure>'


def hits(right: Tensor) -> pd.DataFrame:
    """A row a query to browse, of (Q, k) bool, which of what was retrieved is right: the nearest, and the first right one."""
    first = torch.where(right.any(1), right.int().argmax(1) + 1.0, torch.nan)
    return pd.DataFrame({"query": range(len(right)), "nearest": right[:, 0].numpy(), "first right at": first.numpy(),
                         "R@1 of all queries (%)": 100 * right[:, 0].double().mean().item()})  # fmt: skip
