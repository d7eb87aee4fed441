"""Controls for the notebooks: leaf through rows, turn a knob, see what it does. Pictures are PNG or JPEG images."""

import html
import io
from collections.abc import Callable, Mapping, Sequence
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


def as_jpeg(image: Tensor) -> bytes:
    """(3, H, W) uint8 or float in 0..1 as the bytes of a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(as_picture(image)).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def browse(
    rows: pd.DataFrame, draw: Callable[[dict[str, Any]], Pictures], *, filters: Mapping[str, object],
    sort: Sequence[str] = (), keep: Sequence[str] = (), height_px: int = 150,
) -> widgets.VBox:  # fmt: skip
    """Leaf through the rows of a table, all or those that filters choose: what a row says, and the pictures drawn of it.

    Args:
        rows: one or more; a column of truth values is read as right and wrong.
        draw: a row as column -> value; gives its pictures by their captions.
        filters: column -> where its filter starts: ALL, a text ("right"), or (least, greatest) of a number.
        sort: columns to sort by.
        keep: columns by which a row is found again when a filter changes, as a query of two methods; none: the row itself.
        height_px: of a picture on the page; a plot has its own.
    """
    rows = rows.reset_index(drop=True)
    texts = rows.apply(lambda column: column.map({True: "right", False: "wrong"}) if column.dtype == bool else column)
    records, told = rows.to_dict("records"), [_told(row) for row in texts.to_dict("records")]
    keys = list(rows[list(keep)].itertuples(index=False, name=None)) if keep else list(rows.index)
    knobs = {name: _filter(texts[name], start) for name, start in filters.items()}
    orders = {"as listed": None} | {f"{name}, {way}": (name, way) for name in sort for way in ("rising", "falling")}
    order = widgets.Dropdown(options=list(orders), description="sort by")
    place = widgets.IntSlider(value=1, min=1, max=len(rows), description="row", continuous_update=False)
    said, box, shown = widgets.HTML(), widgets.Box(layout=WRAPPED), []

    def show(_: object = None) -> None:
        row = shown[place.value - 1] if shown else None
        text = "no row fits these filters" if row is None else f"{place.value} of {len(shown)}: {told[row]}"
        said.value = html.escape(text)
        _fill(box, {} if row is None else draw(records[row]), height_px)

    def choose(_: object = None) -> None:
        before = keys[shown[place.value - 1]] if shown else None
        found = texts[np.all([texts.index >= 0, *(_fits(texts[name], knob) for name, knob in knobs.items())], axis=0)]
        if by := orders[order.value]:
            found = found.sort_values(by[0], ascending=by[1] == "rising", kind="stable")
        shown[:] = found.index
        place.unobserve(show, "value")  # one picture for the new choice, not one for each step on the way
        place.max, place.disabled = max(1, len(shown)), not shown
        place.value = next((at for at, row in enumerate(shown, 1) if keys[row] == before), 1)
        place.observe(show, "value")
        show()

    back, on = widgets.Button(description="previous"), widgets.Button(description="next")
    back.on_click(lambda _: place.set_trait("value", place.value - 1))  # the slider keeps it within its ends
    on.on_click(lambda _: place.set_trait("value", place.value + 1))
    for knob in (*knobs.values(), order):
        knob.observe(choose, "value")
    choose()
    choices = widgets.Box([*knobs.values(), order], layout=WRAPPED)
    return widgets.VBox([widgets.HBox([back, place, on]), choices, said, box])


def explore(
    draw: Callable[..., Pictures], knobs: Mapping[str, bool | tuple[float, ...]], *, height_px: int = 150
) -> widgets.VBox:
    """Knobs (name -> whether a box is ticked, or a slider's value, least, greatest and step) and what is drawn of their values."""
    controls, box = [_knob(name, start) for name, start in knobs.items()], widgets.Box(layout=WRAPPED)

    def show(_: object = None) -> None:
        _fill(box, draw(*(control.value for control in controls)), height_px)

    for control in controls:
        control.observe(show, "value")
    show()
    return widgets.VBox([widgets.Box(controls, layout=WRAPPED), box])


def hits(right: Tensor) -> pd.DataFrame:
    """A row a query to browse, of (Q, k) bool, which of what was retrieved is right: the nearest, and the first right one."""
    first = torch.where(right.any(1), right.int().argmax(1) + 1.0, torch.nan)
    return pd.DataFrame({"query": range(len(right)), "nearest": right[:, 0].numpy(), "first right at": first.numpy(),
                         "R@1 of all queries (%)": 100 * right[:, 0].double().mean().item()})  # fmt: skip


def _filter(column: pd.Series, start: object) -> widgets.ValueWidget:
    if not pd.api.types.is_numeric_dtype(column):
        return widgets.Dropdown(options=[ALL, *column.unique()], value=start, description=column.name, style=NAMED)
    low, high = column.agg(["min", "max"]).fillna(0).astype(float)
    step = 1.0 if pd.api.types.is_integer_dtype(column) else (high - low) / 200 or 1.0
    return widgets.FloatRangeSlider(value=(low, high) if start == ALL else start, min=low, max=high, step=step, style=NAMED,
                                    description=column.name, readout_format=".3g", continuous_update=False)  # fmt: skip


def _fits(column: pd.Series, knob: widgets.ValueWidget) -> pd.Series:
    if isinstance(knob, widgets.Dropdown):
        return (column == knob.value) | (knob.value == ALL)
    return column.between(*knob.value) | (knob.value == (knob.min, knob.max))  # a whole range: rows with NaN, too


def _knob(name: str, start: bool | tuple[float, ...]) -> widgets.ValueWidget:
    if isinstance(start, bool):
        return widgets.Checkbox(value=start, description=name)
    value, least, greatest, step = start
    return widgets.FloatSlider(value=value, min=least, max=greatest, step=step, description=name, readout_format=".4g",
                               continuous_update=False, style=NAMED, layout={"width": "420px"})  # fmt: skip


def _told(row: Mapping[str, object]) -> str:
    texts = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items())
    return "; ".join(texts).replace(" nan", " none")


def _fill(box: widgets.Box, pictures: Pictures, height_px: int) -> None:
    """These pictures and no others, each with its caption beneath."""
    more = len(pictures) - len(box.children)
    cells = [*box.children, *(widgets.VBox([widgets.Image(), widgets.Label()]) for _ in range(more))]
    for cell, (caption, picture) in zip(cells, pictures.items(), strict=False):
        image, label = cell.children
        label.value = caption
        if isinstance(picture, Figure):
            buffer = io.BytesIO()
            picture.savefig(buffer, format="png", dpi=80)
            plt.close(picture)  # else the notebook shows it a second time
            image.format, image.value, image.width, image.height = "png", buffer.getvalue(), "", ""
        else:
            width = round(height_px * picture.shape[-1] / picture.shape[-2])
            # a page shows a picture of given height alone as small as it is
            image.format, image.value, image.width, image.height = "jpeg", as_jpeg(picture), str(width), str(height_px)
    box.children = cells[: len(pictures)]
