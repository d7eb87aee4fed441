"""Controls for the notebooks of a retrieval run: move a threshold, leaf through queries and epochs, see what changes.

Each returns a box whose pictures are JPEG or PNG images; they take plain tensors and know no data set and no model.
"""

import io
from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ucvgl.errors import InputError
from ucvgl.lab.plots import as_picture
from ucvgl.lab.widgets import as_jpeg
from ucvgl.retrieval_figures import (
    NONE_COLOUR,
    RIGHT_COLOUR,
    WRONG_COLOUR,
    checked_margins,
    counted,
    margin_panel,
)

TILE_PX = 150  # height of a picture in a row
FRAME_PX = 7
ALL, ONLY_RIGHT, ONLY_WRONG, LABELLED_WRONG = "all", "right", "wrong", "labelled and wrong"


# ---------------------------------------------------------------------------------------------------- the threshold


def threshold_explorer(margin: Tensor, mutual: Tensor, right: Tensor, *, threshold: float = 0.05) -> widgets.VBox:
    """A slider for the margin asked for, a box for mutual matching: how many labels there are then, how many right.

    Args:
        margin: (N,) first minus second cosine of each ground image.
        mutual: (N,) bool, it and its nearest tile are each other's nearest.
        right: (N,) bool, its nearest tile is right.
        threshold: where the slider starts; brought into the range of the margins.

    Raises:
        InputError: tensors of different length, no ground image, NaN or infinity.
    """
    margins, is_right, is_mutual = checked_margins(margin, right, mutual)
    most = max(float(margins.max()), 1e-6)
    slider = widgets.FloatSlider(
        value=min(max(threshold, 0.0), most), min=0, max=most, step=most / 200, description="threshold",
        readout_format=".4f", continuous_update=False, layout=widgets.Layout(width="480px"),
    )  # fmt: skip
    box = widgets.Checkbox(value=True, description="mutual matching")
    numbers, picture = widgets.Label(), widgets.Image(format="png", width=880)

    def draw(_: object = None) -> None:
        candidate = is_mutual if box.value else np.ones_like(is_mutual)
        labelled = candidate & (margins >= slider.value)
        share = 100 * labelled.mean()
        numbers.value = f"labels: {counted(is_right[labelled])} ({share:.1f} % of {len(margins):,} ground images)"
        picture.value = _threshold_picture(margins, is_right, candidate, labelled, slider.value)

    for control in (slider, box):
        control.observe(draw, "value")
    draw()
    return widgets.VBox([widgets.HBox([slider, box]), numbers, picture])


def _threshold_picture(
    margin: np.ndarray, right: np.ndarray, candidate: np.ndarray, labelled: np.ndarray, threshold: float
) -> bytes:
    """Histogram of the candidates' margins, and beneath it a bar of all ground images, as a PNG."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(11, 4.4), height_ratios=(5, 1), layout="constrained")
    margin_panel(above, margin[candidate], right[candidate], threshold, top=float(margin.max()), removed_to=threshold)
    above.set_ylabel("candidates")
    start = 0.0
    for name, rows, colour in (("right label", labelled & right, RIGHT_COLOUR),
                               ("wrong label", labelled & ~right, WRONG_COLOUR), ("no label", ~labelled, NONE_COLOUR)):  # fmt: skip
        share = 100 * float(rows.mean())
        below.barh(0, share, left=start, color=colour, edgecolor="white")
        if share > 14:  # a narrower part has no room for its name
            below.text(start + share / 2, 0, f"{name}: {share:.0f} %", ha="center", va="center", color="black")
        start += share
    below.set(xlim=(0, 100), yticks=[], xlabel="ground images (%)")
    figure.legend(*above.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    plt.close(figure)  # else the notebook shows it a second time
    return buffer.getvalue()


# ------------------------------------------------------------------------------------------------- retrieved pictures


def framed(image: Tensor, right: bool) -> Tensor:
    """(3, H, W) as (3, TILE_PX, TILE_PX) uint8 with a frame and a tick where right, a cross where wrong."""
    colour = RIGHT_COLOUR if right else WRONG_COLOUR
    picture = Image.fromarray(as_picture(image)).resize((TILE_PX, TILE_PX))
    pen, side = ImageDraw.Draw(picture), 3 * FRAME_PX
    pen.rectangle((0, 0, TILE_PX - 1, TILE_PX - 1), outline=colour, width=FRAME_PX)
    pen.rectangle((0, 0, side + 5, side + 5), fill=colour)
    at, far = FRAME_PX, side
    strokes = [(at, (at + far) // 2, (at + far) // 2 - 2, far), ((at + far) // 2 - 2, far, far, at)]
    for stroke in strokes if right else [(at, at, far, far), (at, far, far, at)]:
        pen.line(stroke, fill="white", width=3)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


class _Row:
    """Pictures of one query: its ground image, perhaps its top view, and k framed tiles."""

    def __init__(
        self, ground: Sequence[Tensor], top_views: Sequence[Tensor] | None, tiles: Sequence[Tensor], k: int
    ) -> None:
        self.queries = [ground] if top_views is None else [ground, top_views]
        self.tiles = tiles
        self.before = [widgets.Image(format="jpeg", height=TILE_PX) for _ in self.queries]
        self.found = [widgets.Image(format="jpeg", width=TILE_PX, height=TILE_PX) for _ in range(k)]
        layout = widgets.Layout(flex_flow="row wrap", width="100%")
        self.box = widgets.VBox([widgets.HBox(self.before), widgets.Box(self.found, layout=layout)])

    def draw(self, query: int, index: Tensor, right: Tensor) -> None:
        """Show a query with its tiles: index (k,) and right (k,)."""
        for picture, images in zip(self.before, self.queries, strict=True):
            image = images[query]
            # a page shows a picture of given height alone as small as it is
            picture.width, picture.value = round(TILE_PX * image.shape[-1] / image.shape[-2]), as_jpeg(image)
        for picture, tile, correct in zip(self.found, index.tolist(), right.tolist(), strict=True):
            picture.value = as_jpeg(framed(self.tiles[tile], correct))

    def clear(self) -> None:
        """Show nothing."""
        for picture in (*self.before, *self.found):
            picture.value = b""


def first_right(right: Tensor) -> str:
    """Where the first right tile of (k,) bool stands, in words."""
    places = right.nonzero()[:, 0].tolist()
    return f"first right tile at place {places[0] + 1}" if places else f"no right tile among the first {len(right)}"


def retrieval_browser(
    ground: Sequence[Tensor], top_views: Sequence[Tensor] | None, tiles: Sequence[Tensor], index: Tensor, right: Tensor,
    margin: Tensor, *, labelled: Tensor | None = None,
) -> widgets.VBox:  # fmt: skip
    """Leaf through queries and what was retrieved for them: all, the right, the wrong, the labelled and wrong ones.

    ground: N panoramas (3, H, W), or (N, 3, H, W). top_views: N pictures, or None. tiles: M tiles (3, S, S). index: (N, k)
    of tiles, the nearest first. right: (N, k) bool. margin: (N,) first minus second cosine. labelled: (N,) bool, the query
    has a pseudo-label; None: not known, and no filter of that name. InputError where numbers do not fit, or no query.
    """
    _check_found("retrieval browser", len(ground), len(tiles), index, right)
    _check_lengths(len(ground), top_views, margin, labelled)
    kinds = _kinds(right[:, 0], labelled)
    row = _Row(ground, top_views, tiles, index.shape[1])
    kind = widgets.Dropdown(options=list(kinds), value=ALL, description="show")
    slider, caption = _slider("query", len(ground)), widgets.Label()
    chosen = list(kinds[ALL])

    def draw(_: object = None) -> None:
        if not chosen:
            row.clear()
            caption.value = f"no query is {kind.value}"
            return
        query = chosen[slider.value]
        row.draw(query, index[query], right[query])
        place = f"{slider.value + 1} of {len(chosen)}: ground image {query}"
        label = "" if labelled is None else "; labelled" if labelled[query] else "; no label"
        caption.value = f"{place}; {first_right(right[query])}; margin {float(margin[query]):.4f}{label}"

    def choose(_: object) -> None:
        chosen[:] = kinds[kind.value]
        slider.unobserve(draw, "value")  # one picture for the new filter, not one for each step on the way
        slider.value, slider.max, slider.disabled = 0, max(0, len(chosen) - 1), not chosen
        slider.observe(draw, "value")
        draw()

    slider.observe(draw, "value")
    kind.observe(choose, "value")
    draw()
    return widgets.VBox([widgets.HBox([kind, slider]), caption, row.box])


def _kinds(right: Tensor, labelled: Tensor | None) -> dict[str, list[int]]:
    """The queries that each filter shows, from whether their nearest tile is right (N,)."""
    kinds = {ALL: torch.ones_like(right), ONLY_RIGHT: right, ONLY_WRONG: ~right}
    if labelled is not None:
        kinds[LABELLED_WRONG] = labelled.to(right) & ~right
    return {name: rows.nonzero()[:, 0].tolist() for name, rows in kinds.items()}


def epoch_browser(
    ground: Sequence[Tensor], tiles: Sequence[Tensor], frames: Mapping[int, tuple[Tensor, Tensor]]
) -> widgets.VBox:
    """A slider over epochs and one over queries: the query's first tiles as training goes on.

    Args:
        ground: N panoramas (3, H, W).
        tiles: M tiles (3, S, S).
        frames: epoch -> index (N, k) of tiles, the nearest first, and right (N, k) bool; the same k at each.

    Raises:
        InputError: no epoch, numbers of pictures and rows that do not fit, an index of no tile, no query.
    """
    widths = {index.shape[-1] for index, _ in frames.values()}
    if len(widths) != 1:
        raise InputError("epoch browser", expected="epochs of one k", found=sorted(widths), todo="Search with one k.")
    for epoch, (index, right) in frames.items():
        _check_found(f"epoch browser, epoch {epoch}", len(ground), len(tiles), index, right)
    row = _Row(ground, None, tiles, widths.pop())
    epochs = widgets.SelectionSlider(options=sorted(frames), description="epoch", continuous_update=False)
    slider, caption = _slider("query", len(ground)), widgets.Label()

    def draw(_: object = None) -> None:
        index, right = frames[epochs.value]
        row.draw(slider.value, index[slider.value], right[slider.value])
        share = 100 * float(right[:, 0].float().mean())
        caption.value = (
            f"after epoch {epochs.value}: {first_right(right[slider.value])}; R@1 of all queries {share:.1f} %"
        )

    for control in (epochs, slider):
        control.observe(draw, "value")
    draw()
    return widgets.VBox([widgets.HBox([epochs, slider]), caption, row.box])


def _slider(name: str, count: int) -> widgets.IntSlider:
    return widgets.IntSlider(value=0, min=0, max=count - 1, description=name, continuous_update=False)


def _check_lengths(queries: int, *values: Sequence[Tensor] | Tensor | None) -> None:
    lengths = [len(value) for value in values if value is not None]
    if set(lengths) != {queries}:
        raise InputError(
            "retrieval browser", expected=f"top views, margins and labels of {queries} queries", found=lengths,
            todo="Give one for each ground image.",
        )  # fmt: skip


def _check_found(where: str, queries: int, tiles: int, index: Tensor, right: Tensor) -> None:
    fits = index.ndim == 2 and index.shape == right.shape and len(index) == queries and index.numel() > 0
    if not fits or right.dtype != torch.bool or not 0 <= int(index.min()) <= int(index.max()) < tiles:
        raise InputError(
            where, expected=f"index and bool right ({queries}, k), indices below {tiles}",
            found=f"index {tuple(index.shape)}, right {tuple(right.shape)} {right.dtype}",
            todo="Take them from one search for these ground images among these tiles.",
        )  # fmt: skip
