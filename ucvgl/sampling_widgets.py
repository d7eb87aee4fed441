"""A control for the notebook on sampling: leaf through the batches of each sampler, see where they lie and what they show.

It returns a box whose pictures are a PNG (the map) and a JPEG (the images), and knows no sampler: it takes their batches.
"""

import io
from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from ucvgl.errors import InputError
from ucvgl.lab.plots import as_picture
from ucvgl.sampling_figures import batch_legend, checked_batch, draw_batch, group_colours

TILE_PX = 72  # edge of a tile in the grid; a ground image is fitted into twice that by that
EDGE_PX = 5  # of the frame of a drawn place, and of the stripe of one that joined it
CELLS, COLUMNS = 12, 2
CELL_PX = (3 * TILE_PX + 3 * EDGE_PX, TILE_PX + 2 * EDGE_PX)  # width, height


def batch_browser(
    tiles: Sequence[Tensor], ground: Sequence[Tensor], where: Tensor, batches: Mapping[str, Tensor], *,
    anchors: Mapping[str, Tensor] | None = None, tile_of: Tensor | None = None,
) -> widgets.VBox:  # fmt: skip
    """Choose a sampler and a batch: a map of the batch's places, and the first twelve with ground image and tile.

    A drawn place has a frame, one that joined it a stripe, in the colour that both have on the map.

    Args:
        tiles: (M, 3, S, S) uint8, or M such pictures.
        ground: (N, 3, H, W) uint8, or N such pictures; a place is the index of one.
        where: (N, 2) metres east and north of the ground images, of one city; NaN: not on the map (another city).
        batches: sampler -> (number of batches, B) places.
        anchors: sampler -> (number of batches, B) the drawn place that each joined, itself if it was drawn, -1 if not
            known; a sampler not named draws every place alone, as at random.
        tile_of: (N,) the tile of each ground image; None: tile i belongs to ground image i.

    Raises:
        InputError: numbers that do not fit, an index of no place or tile, no batch, no position.
    """
    anchors = anchors or {}
    _check_pictures(len(tiles), len(ground), where, tile_of)
    _check_batches(where, batches, anchors)
    own_tile = np.arange(len(ground)) if tile_of is None else tile_of.cpu().long().numpy()
    sampler = widgets.Dropdown(options=list(batches), description="sampler")
    slider = widgets.IntSlider(value=0, min=0, max=0, description="batch", continuous_update=False)
    caption = widgets.Label()
    chart, images = widgets.Image(format="png"), widgets.Image(format="jpeg")

    def draw(_: object = None) -> None:
        rows = batches[sampler.value], anchors.get(sampler.value)
        items, joined = (None if value is None else value[slider.value] for value in rows)
        places, item, anchor = checked_batch(where, items, joined, "batch browser")
        chart.value, texts = _map_picture(places, item, anchor)
        images.value = _grid_picture(tiles, ground, item, anchor, own_tile[item])
        shown = f"the first {min(CELLS, len(item))} are shown"
        caption.value = f"batch {slider.value + 1} of {len(rows[0])}: {'; '.join([*texts, shown])}"

    def choose(_: object = None) -> None:
        slider.unobserve(draw, "value")  # one picture for the new sampler, not one for each step on the way
        slider.value, slider.max = 0, len(batches[sampler.value]) - 1
        slider.observe(draw, "value")
        draw()

    slider.observe(draw, "value")
    sampler.observe(choose, "value")
    choose()
    layout = widgets.Layout(flex_flow="row wrap", width="100%")
    return widgets.VBox([widgets.HBox([sampler, slider]), caption, widgets.Box([chart, images], layout=layout)])


def _map_picture(places: np.ndarray, item: np.ndarray, anchor: np.ndarray) -> tuple[bytes, list[str]]:
    """The map of a batch as a PNG, and what it tells in words."""
    figure, axes = plt.subplots(figsize=(5.2, 5.6), layout="constrained")
    texts = draw_batch(axes, places, item, anchor)
    figure.legend(handles=batch_legend(item, anchor), loc="outside lower center", ncols=2)
    drawn, buffer = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=80)
    plt.close(figure)  # else the notebook shows it a second time
    # A quarter of the bytes. An octree keeps the colours of few pixels; the default, a median cut, turns them grey.
    few = Image.open(drawn).convert("RGB").quantize(128, Image.Quantize.FASTOCTREE)
    few.save(buffer, "PNG", optimize=True)
    return buffer.getvalue(), texts


def _grid_picture(
    tiles: Sequence[Tensor], ground: Sequence[Tensor], item: np.ndarray, anchor: np.ndarray, tile: np.ndarray
) -> bytes:
    """The first CELLS places of a batch as a JPEG: ground image and tile side by side, row by row."""
    count = min(CELLS, len(item))
    width, height = CELL_PX
    sheet = Image.new("RGB", (COLUMNS * (width + EDGE_PX), -(-count // COLUMNS) * (height + EDGE_PX)), "white")
    for number, colour in enumerate(group_colours(item, anchor)[:count]):
        left, top = number % COLUMNS * (width + EDGE_PX), number // COLUMNS * (height + EDGE_PX)
        drawn = item[number] == anchor[number]
        right = left + (width if drawn else EDGE_PX) - 1
        ImageDraw.Draw(sheet).rectangle((left, top, right, top + height - 1), fill=colour)
        at = (left + EDGE_PX, top + EDGE_PX)
        view = Image.fromarray(as_picture(ground[int(item[number])]))
        scale = min(2 * TILE_PX / view.width, TILE_PX / view.height)
        view = view.resize((max(1, round(view.width * scale)), max(1, round(view.height * scale))))
        sheet.paste("white", (*at, at[0] + 2 * TILE_PX, at[1] + TILE_PX))  # a ground image may be narrower or lower
        sheet.paste(view, (at[0] + (2 * TILE_PX - view.width) // 2, at[1] + (TILE_PX - view.height) // 2))
        picture = Image.fromarray(as_picture(tiles[int(tile[number])])).resize((TILE_PX, TILE_PX))
        sheet.paste(picture, (at[0] + 2 * TILE_PX + EDGE_PX, at[1]))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


def _check_pictures(tiles: int, ground: int, where: Tensor, tile_of: Tensor | None) -> None:
    fits = len(where) == ground and (tiles == ground if tile_of is None else tuple(tile_of.shape) == (ground,))
    if fits and tile_of is not None:
        fits = not tile_of.is_floating_point() and 0 <= int(tile_of.min()) <= int(tile_of.max()) < tiles
    if not fits:
        raise InputError(
            "batch browser", expected="a position and a tile for each ground image",
            found=f"{ground} ground images, {len(where)} positions, {tiles} tiles, "
            + ("no tile_of" if tile_of is None else f"tile_of {tuple(tile_of.shape)}"),
            todo="Give `tile_of`, indices of tiles, where tiles are shared.",
        )  # fmt: skip


def _check_batches(where: Tensor, batches: Mapping[str, Tensor], anchors: Mapping[str, Tensor]) -> None:
    shapes = {name: tuple(items.shape) for name, items in batches.items()}
    joined = {name: tuple(values.shape) for name, values in anchors.items()}
    fits = bool(shapes) and all(len(shape) == 2 for shape in shapes.values())
    if not fits or any(shapes.get(name) != shape for name, shape in joined.items()):
        raise InputError(
            "batch browser", expected="batches (number, B) by sampler, anchors of their names and shapes",
            found=f"batches {shapes}, anchors {joined}", todo="Stack the batches of an epoch.",
        )  # fmt: skip
    for name, items in batches.items():
        every = None if name not in anchors else anchors[name].flatten()
        checked_batch(where, items.flatten(), every, f"batch browser: {name}")
