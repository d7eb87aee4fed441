"""Controls for the notebooks: browse rows, move a slider, see what it does."""

import html
from base64 import b64encode
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ucvgl.lab.plots import as_picture

ALL = "all"  # a filter that leaves nothing out
NAMED, WRAPPED = {"description_width": "initial"}, {"flex_flow": "row wrap", "width": "100%"}
Pictures = Mapping[str, Tensor | Figure]  # caption -> (3, H, W) uint8 or float in 0..1, or a plot


def browse(
    rows: pd.DataFrame, draw: Callable[[dict[str, Any]], Pictures], *, filters: Mapping[str, str], height_px: int = 150
) -> widgets.VBox:
    """Leaf through the rows of a table, all or those that filters choose: what a row says, and the pictures drawn of it.

    rows: one or more, in their order; a column of truth values is read as right and wrong. draw: a row as column -> value;
    gives its pictures by their captions. filters: one or more columns of texts -> where the filter starts, ALL or a text
    ("right"). height_px: of a picture on the page; a plot has its own.
    """
    rows = rows.reset_index(drop=True)
    texts = rows.apply(lambda column: column.map({True: "right", False: "wrong"}) if column.dtype == bool else column)
    texts = texts.map(lambda value: f"{value:.4g}".replace("nan", "none") if isinstance(value, float) else value)
    records, told = rows.to_dict("records"), texts.to_dict("records")
    knobs = {
        name: widgets.Dropdown(options=[ALL, *texts[name].unique()], value=start, description=name, style=NAMED)
        for name, start in filters.items()
    }
    place = widgets.IntSlider(value=1, min=1, max=len(rows), description="row", continuous_update=False)
    said, box, shown = widgets.HTML(), widgets.HTML(), []

    def show(_: object = None) -> None:
        if not shown:
            said.value, box.value = "no row fits these filters", ""
            return
        row = shown[place.value - 1]
        words = "; ".join(f"{name} {value}" for name, value in told[row].items())
        said.value = html.escape(f"{place.value} of {len(shown)}: {words}")
        box.value = _page(draw(records[row]), height_px)

    def choose(_: object = None) -> None:
        fits = [(texts[name] == knob.value) | (knob.value == ALL) for name, knob in knobs.items()]
        shown[:] = texts.index[np.logical_and.reduce(fits)]
        place.unobserve(show, "value")  # one picture for the new choice, not one for each step on the way
        place.max, place.disabled = max(1, len(shown)), not shown
        place.observe(show, "value")
        show()

    back, on = widgets.Button(description="previous"), widgets.Button(description="next")
    back.on_click(lambda _: place.set_trait("value", place.value - 1))  # the slider keeps it within its ends
    on.on_click(lambda _: place.set_trait("value", place.value + 1))
    for knob in knobs.values():
        knob.observe(choose, "value")
    choose()
    return widgets.VBox([widgets.HBox([back, place, on]), widgets.Box([*knobs.values()], layout=WRAPPED), said, box])


def explore(
    draw: Callable[..., Pictures], knobs: Mapping[str, bool | tuple[float, ...]], *, height_px: int = 150
) -> widgets.VBox:
    """Knobs (name -> whether a box is ticked, or a slider's value, least, greatest and step) and what is drawn of their values."""
    controls, box = [_knob(name, start) for name, start in knobs.items()], widgets.HTML()

    def show(_: object = None) -> None:
        box.value = _page(draw(*(control.value for control in controls)), height_px)

    for control in controls:
        control.observe(show, "value")
    show()
    return widgets.VBox([widgets.Box(controls, layout=WRAPPED), box])


def hits(right: Tensor) -> pd.DataFrame:
    """A row a query to browse, of (Q, k) bool, which of what was retrieved is right: the nearest, and the first right one."""
    first = torch.where(right.any(1), right.int().argmax(1) + 1.0, torch.nan)
    return pd.DataFrame({"query": range(len(right)), "nearest": right[:, 0].numpy(), "first right at": first.numpy(),
                         "R@1 of all queries (%)": 100 * right[:, 0].double().mean().item()})  # fmt: skip


def _knob(name: str, start: bool | tuple[float, ...]) -> widgets.ValueWidget:
    if isinstance(start, bool):
        return widgets.Checkbox(value=start, description=name)
    value, least, greatest, step = start
    return widgets.FloatSlider(value=value, min=least, max=greatest, step=step, description=name, readout_format=".4g",
                               continuous_update=False, style=NAMED, layout={"width": "420px"})  # fmt: skip


def _page(pictures: Pictures, height_px: int) -> str:
    """Pictures side by side, each above its caption, as HTML."""
    figures = []
    for caption, picture in pictures.items():
        file, kind, size = BytesIO(), "jpeg", f'height="{height_px}"'
        if isinstance(picture, Figure):
            kind, size = "png", ""
            picture.savefig(file, format=kind, dpi=80)
            plt.close(picture)  # else the notebook shows it a second time
        else:
            Image.fromarray(as_picture(picture)).save(file, kind, quality=88)
        source = f"data:image/{kind};base64,{b64encode(file.getvalue()).decode()}"
        figures.append(f'<figure style="margin: 2px"><img src="{source}" {size}>'
                       f"<figcaption>{html.escape(caption)}</figcaption></figure>")  # fmt: skip
    return f'<div style="display: flex; flex-wrap: wrap">{"".join(figures)}</div>'
