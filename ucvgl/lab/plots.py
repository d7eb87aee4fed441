"""Plots and picture sheets, one function a figure; each takes plain tensors and tables and returns a matplotlib figure."""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Arc, FancyArrowPatch, Polygon, Rectangle
from PIL import Image, ImageDraw
from torch import Tensor

from ucvgl.geometry import TopView
from ucvgl.world.kinds import Kind

CLASS_COLOURS: dict[Kind, tuple[int, int, int]] = {
    Kind.ROAD: (110, 110, 115), Kind.MARKING: (240, 240, 240), Kind.CROSSING: (250, 220, 90),
    Kind.PAVEMENT: (190, 170, 160), Kind.PAVING: (205, 190, 150), Kind.GRASS: (130, 190, 90),
    Kind.WATER: (70, 130, 200), Kind.ROOF: (200, 90, 70), Kind.WALL: (230, 160, 120), Kind.CAR: (160, 60, 170),
    Kind.TREE: (40, 120, 50), Kind.SKY: (200, 225, 245),
}  # fmt: skip

PALETTE = ("#1f6f8b", "#e07a3f", "#6b8f3c", "#8a5a9e", "#b8323a", "#555555")
WIDTH_IN = 11.0
# The green and the vermilion of Okabe and Ito, which colour-blind readers tell apart; pictures also carry a tick or a cross.
RIGHT_COLOUR, WRONG_COLOUR, NONE_COLOUR = "#009e73", "#d55e00", "#9a9a9a"
STRIP_PX = 300  # height of a strip: twice that on the page, for dense screens
TICK_LINE, CROSS_LINE = ((14, 28), (24, 42), (42, 14)), ((14, 14), (42, 42), (28, 28), (42, 14), (14, 42))


def use_style() -> None:
    """The look of all figures, and small inline pictures: call once in a notebook's set-up cell."""
    sns.set_theme(style="ticks", palette=PALETTE, font_scale=0.95)
    plt.rcParams.update({"figure.dpi": 80, "axes.titlesize": 10.5, "axes.spines.top": False, "axes.spines.right": False,
                         "legend.frameon": False, "figure.constrained_layout.use": True})  # fmt: skip
    try:  # photographs as PNG would make the committed notebooks several megabytes
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    from IPython import get_ipython

    if get_ipython() is not None:
        set_matplotlib_formats("jpeg", pil_kwargs={"quality": 82})


def as_picture(image: Tensor) -> np.ndarray:
    """(3, H, W) uint8 or float in 0..1 as (H, W, 3) uint8."""
    image = image.detach().cpu()
    if image.is_floating_point():
        image = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    return image.permute(1, 2, 0).numpy()


def class_picture(kind: Tensor) -> Tensor:
    """A class map (H, W) as colours (3, H, W) uint8."""
    table = torch.tensor([CLASS_COLOURS[k] for k in Kind], dtype=torch.uint8)
    return table[kind.cpu().int()].permute(2, 0, 1)


def depth_picture(depth_m: Tensor, far_m: float = 60.0) -> Tensor:
    """A depth map (H, W) as colours (3, H, W): near is light, far dark, sky black."""
    share = (1 - torch.log1p(depth_m.cpu().clamp(max=far_m)) / math.log1p(far_m)).clamp(0, 1).numpy()
    colours = torch.from_numpy(plt.get_cmap("magma")(share)[..., :3]).permute(2, 0, 1).float()
    return torch.where(torch.isinf(depth_m.cpu()), 0.0, colours)


def show(axes: Axes, image: Tensor, title: str = "") -> None:
    """An image without axes."""
    axes.imshow(as_picture(image), interpolation="nearest")
    axes.set_axis_off()
    if title:
        axes.set_title(title)


def sheet(
    columns: Mapping[str, Sequence[Tensor]], *, row_labels: Sequence[str] = (), width_in: float = WIDTH_IN
) -> Figure:
    """Pictures in rows and titled columns, each column as wide as its pictures' shape asks for.

    columns: title -> pictures (3, H, W), one a row.
    """
    ratios = [images[0].shape[-1] / images[0].shape[-2] for images in columns.values()]
    rows = len(next(iter(columns.values())))
    height = width_in / sum(ratios) * 1.03
    figure, grid = plt.subplots(
        rows, len(columns), squeeze=False, figsize=(width_in, rows * height + 0.35), width_ratios=ratios
    )
    for column, (title, images) in enumerate(columns.items()):
        for row, image in enumerate(images):
            show(grid[row][column], image, title if row == 0 else "")
    for row, label in enumerate(row_labels):
        grid[row][0].text(-0.03, 0.5, label, rotation=90, ha="right", va="center", transform=grid[row][0].transAxes)
    return figure


def montage(pictures: Sequence[Tensor], titles: Sequence[str], *, columns: int, width_in: float = WIDTH_IN) -> Figure:
    """Pictures of one shape, each with its own title, row by row."""
    rows = math.ceil(len(pictures) / columns)
    ratio = pictures[0].shape[-2] / pictures[0].shape[-1]
    figure, grid = plt.subplots(
        rows, columns, squeeze=False, figsize=(width_in, rows * (width_in / columns * ratio + 0.28))
    )
    for axes in grid.ravel():
        axes.set_axis_off()
    for axes, picture, title in zip(grid.ravel(), pictures, titles, strict=False):
        show(axes, picture, title)
    return figure


def city_map(
    picture: Tensor, size_m: float, east_m: np.ndarray, north_m: np.ndarray, chosen: int, span_m: float
) -> Figure:
    """A city from above with the stops of its drives, one of them with the outline of its tile."""
    figure, axes = plt.subplots(figsize=(7.2, 6.6))
    axes.imshow(as_picture(picture), extent=(0, size_m, 0, size_m))
    axes.scatter(east_m, north_m, s=7, c="white", edgecolors="black", linewidths=0.4, label="places")
    at = (float(east_m[chosen]) - span_m / 2, float(north_m[chosen]) - span_m / 2)
    axes.add_patch(
        Rectangle(at, span_m, span_m, fill=False, edgecolor=PALETTE[4], linewidth=2.2, label="tile of one place")
    )
    axes.set(xlabel="metres east", ylabel="metres north")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def geometry_diagram(settings: TopView, ring_m: float = 10.0) -> Figure:
    """The projection in a side view: a ray that leaves the camera downwards meets the ground at h * tan(angle)."""
    height, half = settings.camera_height_m, settings.span_m / 2
    figure, axes = plt.subplots(figsize=(WIDTH_IN, 3.7))
    axes.axhline(0, color="#7a6a55", linewidth=2)
    axes.fill_between([-half * 1.12, half * 1.12], -1.1, 0, color="#e8e0d2", zorder=0)
    axes.plot(
        0, height, marker="o", markersize=26, markerfacecolor="none", markeredgecolor=PALETTE[0], markeredgewidth=1.8
    )
    axes.text(0, height + 0.75, "panorama:\na sphere of rays", ha="center", va="bottom", color=PALETTE[0])
    axes.add_patch(
        Polygon([(0, height), (-half, 0), (half, 0)], closed=True, color=PALETTE[1], alpha=0.13, linewidth=0)
    )
    axes.plot([0, ring_m], [height, 0], color=PALETTE[1], linewidth=2)
    axes.plot([0, 0], [height, 0], color="black", linestyle=":", linewidth=1.2)
    axes.text(-0.25, height / 2, f"h = {height:g} m", ha="right", va="center")
    angle = math.degrees(math.atan2(ring_m, height))
    axes.add_patch(Arc((0, height), 2.4, 2.4, theta1=270, theta2=270 + angle, color="black"))
    axes.text(0.55, height - 1.55, r"$\alpha$", fontsize=13)
    axes.annotate(
        rf"ground at $r = h\,\tan\alpha$ = {ring_m:g} m", (ring_m, 0), (ring_m + 6, 1.75), ha="center",
        arrowprops={"arrowstyle": "->", "color": PALETTE[1]},
    )  # fmt: skip
    wall = half * 0.62
    axes.add_patch(Rectangle((-wall - 5, 0), 5, 4.3, color="#b9a58c"))
    axes.text(-wall - 2.5, 2.1, "house", ha="center", va="center")
    axes.plot([0, -wall], [height, 1.1], color=PALETTE[4], linewidth=1.8)
    reach = wall * height / (height - 1.1)
    axes.plot([-wall, -reach], [1.1, 0], color=PALETTE[4], linewidth=1.3, linestyle="--")
    axes.text(-wall + 0.5, 2.35, "what stands up is\nsmeared outwards", ha="left", va="bottom", color=PALETTE[4])
    axes.add_patch(FancyArrowPatch((-half, -0.75), (half, -0.75), arrowstyle="<->", mutation_scale=12, color="black"))
    axes.text(
        0, -0.68, rf"top view: $2\,h\,\tan(\mathrm{{fov}}/2)$ = {settings.span_m:.0f} m", ha="center", va="bottom"
    )
    axes.set(
        xlim=(-half * 1.12, half * 1.12), ylim=(-1.1, height + 3.0), xlabel="metres from the camera", ylabel="metres up"
    )
    return figure


def accuracy_plot(table: pd.DataFrame) -> Figure:
    """Position error by distance ring: median as a line, 90th percentile as a thin one; a panel each for error and view."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH_IN, 3.8), width_ratios=(1.5, 1))
    for colour, (name, rows) in zip(PALETTE, table.groupby("assumption", sort=False), strict=False):
        middle = (rows["from_m"] + rows["to_m"]) / 2
        left.plot(middle, rows["median_error_m"], marker="o", color=colour, label=name)
        left.plot(middle, rows["p90_error_m"], color=colour, linewidth=0.9, linestyle="--")
    left.set(
        xlabel="distance from the camera (m)",
        ylabel="error on the ground (m)",
        title="Median (dots) and 90th percentile (dashed)",
    )
    left.set_ylim(bottom=0)
    left.legend()
    exact = table[table["assumption"] == "exact"]
    middle = (exact["from_m"] + exact["to_m"]) / 2
    right.bar(middle, exact["seen_as_ground"], width=4, color=PALETTE[2], alpha=0.75)
    right.set(xlabel="distance from the camera (m)", ylabel="seen as ground (%)", ylim=(0, 100),
              title="How much of the ground the panorama shows")  # fmt: skip
    return figure


def difficulty_plot(table: pd.DataFrame) -> Figure:
    """Recall at 1 of each method at each level, side by side."""
    figure, axes = plt.subplots(figsize=(8.2, 3.4))
    sns.barplot(table, x="level", y="r_at_1", hue="method", ax=axes)
    for bars in axes.containers:
        axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=9)
    axes.axhline(15, color="#999999", linestyle=":", linewidth=1)
    axes.text(2.48, 15.6, "aim for the default: below 15", ha="right", fontsize=9, color="#666666")
    axes.set(xlabel="difficulty", ylabel="R@1 (%)", title="Matching without learning")
    axes.legend(title=None)
    return figure


def knob_sheet(rows: Mapping[str, Sequence[tuple[str, Tensor]]], tile: Tensor) -> Figure:
    """One knob a row: the top view at several settings of it, the real tile at the end of each row."""
    count = max(len(settings) for settings in rows.values()) + 1
    figure, grid = plt.subplots(
        len(rows), count, squeeze=False, figsize=(WIDTH_IN, len(rows) * (WIDTH_IN / count + 0.25))
    )
    for axes_row, (knob, settings) in zip(grid, rows.items(), strict=True):
        for axes, (label, image) in zip(axes_row, settings, strict=False):
            show(axes, image, label)
        show(axes_row[-1], tile, "the real tile")
        axes_row[0].text(-0.05, 0.5, knob, rotation=90, ha="right", va="center", transform=axes_row[0].transAxes)
    return figure


def ranked(
    gallery: Sequence[Tensor], index: Sequence[int], right: Sequence[float], notes: Sequence[str] = ()
) -> dict[str, Tensor]:
    """What was retrieved, the nearest first, by its caption: in a green frame with a tick, or in a red one with a cross.

    gallery: pictures (3, H, W). index: the k that were retrieved. right: k truth values, NaN where not known, and no
    frame. notes: k texts for the captions, or none.
    """
    found = {}
    for rank, (row, true) in enumerate(zip(index, right, strict=True), 1):
        name, picture = f"{rank}: {notes[rank - 1]}" if notes else str(rank), [gallery[int(row)]]
        if true != true:
            found[name] = strip(picture)
        elif true:
            found[f"{name}, right"] = strip(picture, RIGHT_COLOUR, TICK_LINE)
        else:
            found[f"{name}, wrong"] = strip(picture, WRONG_COLOUR, CROSS_LINE)
    return found


def strip(
    pictures: Sequence[Tensor], frame: str = "", mark: Sequence[tuple[int, int]] = (), *, frame_px: int = 14
) -> Tensor:
    """Pictures of any shape side by side, (3, STRIP_PX, W) uint8, in a frame of a colour, or none.

    mark: corners of a white line in the upper left, which has the colour of the frame.
    """
    scaled = [Image.fromarray(as_picture(picture)) for picture in pictures]
    scaled = [image.resize((max(1, round(STRIP_PX * image.width / image.height)), STRIP_PX)) for image in scaled]
    sheet = Image.fromarray(np.concatenate([np.asarray(image) for image in scaled], axis=1))
    pen = ImageDraw.Draw(sheet)
    if frame:
        pen.rectangle((0, 0, sheet.width - 1, sheet.height - 1), outline=frame, width=frame_px)
    if mark:
        pen.rectangle((0, 0, 56, 56), fill=frame)
        pen.line(mark, fill="white", width=6)
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1)
