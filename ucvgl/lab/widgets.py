"""The notebooks' browser: leaf through the rows of a table and see the pictures of each."""

import html
from base64 import b64encode
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from ucvgl.lab.plots import as_picture

ALL = "all"  # a filter that leaves nothing out


def browse(
    rows: pd.DataFrame, draw: Callable[[dict[str, Any]], Mapping[str, Tensor]], *, filters: Mapping[str, str],
    height_px: int = 150,
) -> widgets.VBox:  # fmt: skip
    """Leaf through the rows of a table, all or those that filters choose: what a row says, and the pictures drawn of it.

    rows: one or more, in their order; a column of truth values is read as right and wrong. draw: a row as column -> value;
    gives pictures (3, H, W), uint8 or float in 0..1, by their captions. filters: one or more columns of texts -> where the
    filter starts, ALL or a text ("right"). height_px: of a picture on the page.
    """
    rows = rows.reset_index(drop=True)
    texts = rows.apply(lambda column: column.map({True: "right", False: "wrong"}) if column.dtype == bool else column)
    texts = texts.map(lambda value: f"{value:.4g}".replace("nan", "none") if isinstance(value, float) else value)
    knobs = {name: widgets.Dropdown(options=[ALL, *texts[name].unique()], value=start, description=name)
             for name, start in filters.items()}  # fmt: skip
    place = widgets.IntSlider(value=1, min=1, max=len(rows), description="row", continuous_update=False)
    said, box, shown = widgets.HTML(), widgets.HTML(), []

    def show(_: object = None) -> None:
        said.value, box.value = "no row fits these filters", ""
        if shown:
            row = shown[place.value - 1]
            words = "; ".join(f"{name} {value}" for name, value in texts.loc[row].items())
            said.value = html.escape(f"{place.value} of {len(shown)}: {words}")
            box.value = _page(draw(rows.iloc[[row]].to_dict("records")[0]), height_px)

    def choose(_: object = None) -> None:
        fits = [(texts[name] == knob.value) | (knob.value == ALL) for name, knob in knobs.items()]
        shown[:] = texts.index[np.logical_and.reduce(fits)]
        place.unobserve(show, "value")  # one picture for the new choice, not one for each step on the way
        place.max, place.disabled = max(1, len(shown)), not shown
        place.observe(show, "value")
        show()

    for knob in knobs.values():
        knob.observe(choose, "value")
    choose()
    return widgets.VBox([place, widgets.HBox([*knobs.values()], layout={"flex_flow": "row wrap"}), said, box])


def hits(right: Tensor) -> pd.DataFrame:
    """A row a query to browse, of (Q, k) bool, which of what was retrieved is right: the nearest, and the first right one."""
    first = torch.where(right.any(1), right.int().argmax(1) + 1.0, torch.nan)
    return pd.DataFrame({"query": range(len(right)), "nearest": right[:, 0].numpy(), "first right at": first.numpy(),
                         "R@1 of all queries (%)": 100 * right[:, 0].double().mean().item()})  # fmt: skip


def _page(pictures: Mapping[str, Tensor], height_px: int) -> str:
    """Pictures side by side, each above its caption, as HTML."""
    figures = []
    for caption, picture in pictures.items():
        file = BytesIO()
        Image.fromarray(as_picture(picture)).save(file, "jpeg", quality=88)
        source = f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"
        figures.append(f'<figure style="margin: 2px"><img src="{source}" height="{height_px}">'
                       f"<figcaption>{html.escape(caption)}</figcaption></figure>")  # fmt: skip
    return f'<div style="display: flex; flex-wrap: wrap">{"".join(figures)}</div>'
