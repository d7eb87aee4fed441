"""Controls for the notebook on one's own city: how densely to cut, how sure to be, and what was found for each picture.

Each returns a box whose pictures are JPEG images; they take plain numbers, pictures and located.Located, and know no method.
"""

import io
import math
from collections.abc import Callable, Sequence

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor

from ucvgl.confidence import BEST, claimed_and_true_precision
from ucvgl.data.decoding import resize
from ucvgl.errors import InputError
from ucvgl.lab.plots import PALETTE
from ucvgl.lab.widgets import as_bytes, as_jpeg
from ucvgl.located import Located
from ucvgl.retrieval_figures import NONE_COLOUR, RIGHT_COLOUR, WRONG_COLOUR
from ucvgl.retrieval_widgets import ALL, ONLY_RIGHT, ONLY_WRONG, TILE_PX, framed

PLOT_IN, DPI = 8.8, 100  # a plot of 880 pixels
SURE, UNSURE = "sure", "unsure"
PICTURE_PX = 2 * TILE_PX  # height at which a picture is kept: sharp on a dense screen, and small in a saved notebook
NEAR, FAR = "#bfe5d6", "#f6c9a5"  # RIGHT_COLOUR and WRONG_COLOUR, light enough to draw on
GRID_PX = 400  # of the picture of the ground


# -------------------------------------------------------------------------------------------------------------- the stride


def candidate_count(extent_m: tuple[float, float], span_m: float, stride_m: float) -> int:
    """Squares of `span_m` that `candidates.cut` lays over tiles without gaps, east and north `extent_m` across."""
    return math.prod(int((extent - span_m) / stride_m + 1e-3) + 1 for extent in extent_m)


def nearest_centre_m(stride_m: float) -> tuple[float, float]:
    """Median and maximum of the metres from a place to the nearest centre of a square grid, away from its rim.

    A place falls anywhere in the cell of a centre, a square of the edge s = `stride_m`. Its corner is s / sqrt(2) away; the
    circle of radius s / sqrt(2 pi) = 0.399 s lies within the cell and has half of its area.
    """
    return stride_m / math.sqrt(2 * math.pi), stride_m / math.sqrt(2)


def share_within(radius_m: np.ndarray | float, stride_m: float) -> np.ndarray:
    """The part of all places within `radius_m` of the nearest centre: the area that a circle shares with its cell, 0 to 1.

    With s = `stride_m`: pi r^2 / s^2 up to r = s / 2; from there on four segments of the circle lie outside the cell, each
    r^2 arccos(s / 2r) - s / 2 sqrt(r^2 - s^2 / 4); and 1 from r = s / sqrt(2).
    """
    half = stride_m / 2
    r = np.clip(np.asarray(radius_m, np.float64), 0, half * math.sqrt(2))
    outside = np.maximum(r, half)  # no segment where the circle does not reach the edge
    segment = outside**2 * np.arccos(half / outside) - half * np.sqrt(outside**2 - half**2)
    return np.clip((math.pi * r**2 - 4 * segment) / stride_m**2, 0, 1)


def stride_explorer(
    extent_m: tuple[float, float], span_m: float, *, stride_m: float | None = None, radius_m: float = 10.0
) -> widgets.VBox:
    """Sliders for stride and span: how many candidates there would be, and how near a perfect search could place a picture.

    Args:
        extent_m: of the tiles, metres east and north.
        span_m: edge of a candidate, where its slider starts.
        stride_m: where that slider starts; None: a quarter of the span, as `candidates.cut`.
        radius_m: within which a place counts as right.

    Raises:
        InputError: lengths that are not above 0, a span that exceeds the tiles, a stride beyond a span.
    """
    stride_m = span_m / 4 if stride_m is None else stride_m
    inside = len(extent_m) == 2 and all(0 < span_m <= extent < math.inf for extent in extent_m)
    fits = inside and span_m / 20 <= stride_m <= span_m
    _check(fits and 0 < radius_m < math.inf, "stride explorer",
           "a span up to the tiles' extent (east, north), a stride of 1/20 to 1 span, a radius above 0",
           f"{tuple(extent_m)}, {span_m}, {stride_m}, {radius_m}", "Take them from the mosaic, in metres.")  # fmt: skip
    stride = _metres("stride (m)", stride_m, span_m / 20, span_m, span_m / 200)
    span = _metres("span (m)", span_m, span_m / 2, min(2 * span_m, *extent_m), span_m / 20)
    numbers, picture = widgets.Label(), widgets.Image(format="jpeg", width=round(PLOT_IN * DPI))

    def draw(_: object = None) -> None:
        count = candidate_count(extent_m, span.value, stride.value)
        median, most = nearest_centre_m(stride.value)
        within = 100 * float(share_within(radius_m, stride.value))
        numbers.value = (
            f"{count:,} candidates; a place is {median:.1f} m (median) and at most {most:.1f} m from the nearest centre, "
            f"{within:.0f} % within {radius_m:g} m"
        )
        picture.value = _stride_picture(stride.value, span.value, radius_m, 4 * span_m, span_m)

    for control in (stride, span):
        control.observe(draw, "value")
    draw()
    return widgets.VBox([widgets.HBox([stride, span]), numbers, picture])


def _metres(name: str, value: float, low: float, high: float, step: float) -> widgets.FloatSlider:
    return widgets.FloatSlider(value=value, min=low, max=high, step=step, description=name, readout_format=".2f",
                               continuous_update=False, layout=widgets.Layout(width="420px"))  # fmt: skip


def _stride_picture(stride_m: float, span_m: float, radius_m: float, view_m: float, longest_m: float) -> bytes:
    """Ground of `view_m` with the grid of centres and, beside it, how far places are; strides go up to `longest_m`."""
    figure = Figure(figsize=(PLOT_IN, 4.2), layout="constrained")
    ground, curve = figure.subplots(1, 2, width_ratios=(1, 1.15))
    steps = ((np.arange(GRID_PX) + 0.5) / GRID_PX - 0.5) * view_m
    off = np.abs(steps - stride_m * np.round(steps / stride_m))  # from the nearest line of centres
    far = np.hypot(off[:, None], off[None, :]) > radius_m
    half = view_m / 2
    ground.imshow(far, extent=(-half, half, -half, half), cmap=ListedColormap([NEAR, FAR]), vmin=0, vmax=1)
    line = stride_m * np.arange(-math.floor(half / stride_m), math.floor(half / stride_m) + 1)
    ground.plot(*(grid.ravel() for grid in np.meshgrid(line, line)), "o", color="#333333",
                markersize=float(np.clip(stride_m / view_m * 60, 0.8, 4)))  # fmt: skip
    for number, (colour, style) in enumerate(zip(PALETTE[3::-3], ("-", "--"), strict=True)):
        ground.add_patch(Rectangle((number * stride_m - span_m / 2, -span_m / 2), span_m, span_m, fill=False,
                                   edgecolor=colour, linestyle=style, linewidth=2.2))  # fmt: skip
    overlap = max(0.0, 1 - stride_m / span_m)
    ground.set(xlim=(-half, half), ylim=(-half, half), xlabel="metres east", ylabel="metres north",
               title=f"two neighbours share {100 * overlap:.0f} % of their ground")  # fmt: skip
    _distances(curve, stride_m, radius_m, longest_m)
    handles = [
        Patch(color=NEAR, label=f"within {radius_m:g} m of a centre"),
        Patch(color=FAR, label="farther: never right"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return _drawn(figure)


def _distances(axes: Axes, stride_m: float, radius_m: float, longest_m: float) -> None:
    """How many places are how far from the nearest centre: an area is a part of all places."""
    end = max(longest_m / math.sqrt(2), 1.2 * radius_m)
    edge = np.linspace(0, end, 501)
    middle, density = (edge[1:] + edge[:-1]) / 2, 100 * np.diff(share_within(edge, stride_m)) / np.diff(edge)
    for part, colour in ((middle <= radius_m, NEAR), (middle >= radius_m, FAR)):
        axes.fill_between(middle, density, where=list(part), color=colour, linewidth=0)
    axes.plot(middle, density, color="#333333")
    median, most = nearest_centre_m(stride_m)
    lines = ((median, f"median {median:.1f} m", "-"), (most, f"at most {most:.1f} m", "--"),
             (radius_m, f"right within {radius_m:g} m", ":"))  # fmt: skip
    for height, (value, name, style) in zip((0.95, 0.85, 0.75), lines, strict=True):
        late = value > 0.7 * end
        axes.axvline(value, color="#777777" if style == ":" else PALETTE[0], linestyle=style, linewidth=1.6)
        axes.annotate(name, (value, height), (-6 if late else 6, 0),
                      xycoords=axes.get_xaxis_transform(), textcoords="offset points", ha="right" if late else "left",
                      va="center", path_effects=[withStroke(linewidth=3, foreground="white")])  # fmt: skip
    axes.set(xlim=(0, end), ylim=(0, 1.45 * density.max()), xlabel="metres to the nearest centre",
             ylabel="places (% a metre)", title="how near a perfect search could get")  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ the certainty


def certainty_explorer(
    probability: np.ndarray, right: np.ndarray | None = None, *, threshold: float = 0.9
) -> widgets.VBox:
    """A slider for the least probability: how many pictures are placed then, what is claimed of them and what is true.

    Args:
        probability: (N,) of each picture's place, 0 to 1.
        right: (N,) 1 or 0 (or bool), NaN where the truth is not known; None: of none. Claimed and true are compared on the
            pictures of known truth; where it is known of none, there is only a claim.
        threshold: where the slider starts.

    Raises:
        InputError: no picture, lengths that differ, a probability or threshold outside 0..1, a truth that is neither.
    """
    p = np.asarray(probability, np.float64)
    y = np.full(p.shape, np.nan) if right is None else np.asarray(right, np.float64)
    fits = (
        p.ndim == 1 and p.shape == y.shape and len(p) > 0 and bool(((p >= 0) & (p <= 1)).all()) and 0 <= threshold <= 1
    )
    _check(fits and bool(np.isin(y[~np.isnan(y)], (0, 1)).all()), "certainty explorer",
           "probabilities (N,) from 0 to 1, and 1, 0 or NaN for each; a threshold from 0 to 1",
           f"{p.shape}, {y.shape}, {threshold}", "Give one truth a picture.")  # fmt: skip
    slider = widgets.FloatSlider(value=threshold, min=0, max=1, step=0.01, description="at least", readout_format=".2f",
                                 continuous_update=False, layout=widgets.Layout(width="480px"))  # fmt: skip
    numbers, picture = widgets.Label(), widgets.Image(format="jpeg", width=round(PLOT_IN * DPI))
    steps = np.linspace(0, 1, 101)
    lines = np.array([_claims(p, y, step) for step in steps])  # (101, 4)

    def draw(_: object = None) -> None:
        least = round(slider.value, 2)
        numbers.value = _claim_text(_claims(p, y, least), len(p), int((~np.isnan(y)).sum()), least)
        picture.value = _certainty_picture(p, y, least, steps, lines)

    slider.observe(draw, "value")
    draw()
    return widgets.VBox([slider, numbers, picture])


def _claims(p: np.ndarray, y: np.ndarray, least: float) -> tuple[int, int, float, float]:
    """Of the pictures at or above `least`: how many, how many of known truth, and of these what is claimed and true."""
    placed = p >= least
    if np.isnan(y).all():
        return int(placed.sum()), 0, float(p[placed].mean()) if placed.any() else math.nan, math.nan
    found = claimed_and_true_precision(p, y, least)
    return int(placed.sum()), found.placed, found.claimed, found.true


def _claim_text(claims: tuple[int, int, float, float], count: int, known: int, least: float) -> str:
    placed, of_known, claimed, true = claims
    text = f"{placed:,} of {count:,} pictures ({100 * placed / count:.0f} %) are {100 * least:.0f} % sure or more"
    if math.isnan(claimed):
        return text if placed == 0 else f"{text}; the truth is known of none of these"
    text += f"; claimed right {100 * claimed:.1f} %"
    if math.isnan(true):
        return f"{text}; the truth is not known"
    some = f" (of {of_known:,} of known truth)" if known < count else ""
    return f"{text}, truly right {100 * true:.1f} %{some}: {abs(100 * (claimed - true)):.1f} points apart"


def _certainty_picture(p: np.ndarray, y: np.ndarray, least: float, steps: np.ndarray, lines: np.ndarray) -> bytes:
    """Placed, claimed and true over the least probability, and a bar of all pictures beneath."""
    figure = Figure(figsize=(PLOT_IN, 4.6), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(5, 1))
    above.fill_between(steps, 100 * lines[:, 0] / len(p), color="#e3e3e3", linewidth=0, label="placed, of all pictures")
    above.plot(steps, 100 * lines[:, 2], color=PALETTE[0], linestyle="--", label="claimed right, of the placed")
    above.axvline(least, color="#777777", linestyle=":")
    placed, _, claimed, true = _claims(p, y, least)
    above.plot(least, 100 * placed / len(p), "s", color="#777777", markersize=7)
    above.plot(least, 100 * claimed, "o", color=PALETTE[0], markersize=8, markerfacecolor="white", markeredgewidth=2)
    if not np.isnan(y).all():
        above.plot(steps, 100 * lines[:, 3], color=RIGHT_COLOUR, linewidth=2, label="truly right, of the placed")
        above.plot(least, 100 * true, "o", color=RIGHT_COLOUR, markersize=6)
    above.set(xlim=(-0.01, 1.01), ylim=(0, 104), xlabel="least probability", ylabel="pictures (%)")
    some, handles, start = p >= least, [], 0.0
    for name, rows, colour in (("right", some & (y == 1), RIGHT_COLOUR), ("wrong", some & (y == 0), WRONG_COLOUR),
                               ("placed, truth not known", some & np.isnan(y), PALETTE[0]),
                               ("not placed", ~some, NONE_COLOUR)):  # fmt: skip
        if rows.any():
            handles.append(Patch(color=colour, label=f"{name}: {int(rows.sum()):,}"))
            below.barh(0, 100 * rows.mean(), left=start, color=colour, edgecolor="white")
            start += 100 * float(rows.mean())
    below.set(xlim=(0, 100), yticks=[], xlabel="all pictures (%)")
    figure.legend(*above.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return _drawn(figure)


# ------------------------------------------------------------------------------------------------------- what was found


def located_browser(
    located: Sequence[Located], picture: Callable[[int], Tensor], top_view: Callable[[int], Tensor],
    tile: Callable[[str], Tensor], right: np.ndarray | None = None, *, sure: float = 0.9, radius_m: float = 10.0,
) -> widgets.VBox:  # fmt: skip
    """Leaf through located pictures: the picture, its top view, its best candidates, and how sure the place is, in words.

    Args:
        located: N pictures.
        picture: number of a picture -> (3, H, W).
        top_view: number of a picture -> (3, S, S).
        tile: name of a candidate -> (3, S, S).
        right: (N, k) 1 or 0 (or bool) for the first k candidates of each picture, k up to 5; NaN where not known. Or (N,),
            for the first of each. None: not known of any, and no frames.
        sure: the probability from which on a picture counts as sure.
        radius_m: of the probability, from the calibration.

    Raises:
        InputError: no picture, a truth of other shape or value.
    """
    truth = _truth(len(located), right, sure)
    kinds = _kinds(np.array([one.probability for one in located]), truth[:, 0], sure)
    kind = widgets.Dropdown(options=list(kinds), value=ALL, description="show")
    slider = widgets.IntSlider(value=0, min=0, max=0, description="picture", continuous_update=False)
    words, place = widgets.Label(), widgets.Label()
    own, top = (widgets.Image(format="jpeg", height=TILE_PX) for _ in range(2))
    row = [widgets.Image(format="jpeg", height=TILE_PX, width=TILE_PX) for _ in range(BEST)]
    texts = [(widgets.Label(), widgets.Label()) for _ in row]
    chosen: list[int] = []

    def draw(_: object = None) -> None:
        for image in (own, top, *row):
            image.value = b""
        for text in (label for pair in texts for label in pair):
            text.value = ""
        if not chosen:
            words.value, place.value = f"no picture is {kind.value}", ""
            return
        number = chosen[slider.value]
        one = located[number]
        words.value = f"{slider.value + 1} of {len(chosen)}: {one.picture}; {_known(truth[number, 0])}"
        place.value = _in_words(one, radius_m)
        for image, shown in ((own, picture(number)), (top, top_view(number))):
            image.width, image.value = round(TILE_PX * shown.shape[-1] / shown.shape[-2]), as_jpeg(_small(shown))
        is_right = np.append(truth[number], [np.nan] * BEST)  # beyond the columns nothing is known
        for rank, (image, (score, where), candidate) in enumerate(zip(row, texts, one.candidates, strict=False)):
            pixels = tile(candidate.tile)
            known = not np.isnan(is_right[rank])
            image.value = as_jpeg(framed(pixels, bool(is_right[rank])) if known else _small(pixels))
            score.value = f"{rank + 1}: score {candidate.score:.3f}"
            where.value = "the place" if rank == 0 else f"{candidate.distance_m:,.0f} m from the best"

    def choose(_: object = None) -> None:
        before = chosen[slider.value] if chosen else -1
        chosen[:] = kinds[kind.value]
        slider.unobserve(draw, "value")  # one picture for the new choice, not one for each step on the way
        slider.value, slider.max, slider.disabled = 0, max(0, len(chosen) - 1), not chosen
        slider.value = chosen.index(before) if before in chosen else 0
        slider.observe(draw, "value")
        draw()

    kind.observe(choose, "value")
    choose()
    candidates = [widgets.VBox([image, *pair]) for image, pair in zip(row, texts, strict=True)]
    layout = widgets.Layout(flex_flow="row wrap", width="100%")
    return widgets.VBox(
        [widgets.HBox([kind, slider]), words, place, widgets.HBox([own, top]), widgets.Box(candidates, layout=layout)]
    )


def _truth(count: int, right: np.ndarray | None, sure: float) -> np.ndarray:
    """(N, k) float, 1, 0 or NaN."""
    truth = np.full((count, 1), np.nan) if right is None else np.asarray(right, np.float64)
    truth = truth[:, None] if truth.ndim == 1 else truth
    fits = truth.ndim == 2 and len(truth) == count > 0 and 1 <= truth.shape[1] <= BEST and 0 <= sure <= 1
    _check(fits and bool(np.isin(truth[~np.isnan(truth)], (0, 1)).all()), "located browser",
           f"pictures, and 1, 0 or NaN for each of them or (N, up to {BEST}); sure from 0 to 1",
           f"{count} pictures, truth {truth.shape}, sure {sure}", "Compare located.errors_m with a radius.")  # fmt: skip
    return truth


def _kinds(probability: np.ndarray, right: np.ndarray, sure: float) -> dict[str, list[int]]:
    """The pictures that each filter shows; by truth only where some is known."""
    rows = {ALL: probability >= 0, SURE: probability >= sure, UNSURE: probability < sure}
    if not np.isnan(right).all():
        rows |= {ONLY_RIGHT: right == 1, ONLY_WRONG: right == 0}
    return {name: np.flatnonzero(some).tolist() for name, some in rows.items()}


def _known(right: float) -> str:
    return "its true place is not known" if math.isnan(right) else f"its place is {'right' if right else 'wrong'}"


def _in_words(one: Located, radius_m: float) -> str:
    """How sure a place is, and what a reader should know of it."""
    text = f"{100 * one.probability:.0f} % sure that it was taken within {radius_m:g} m of candidate 1"
    for level, radius in ((50, one.radius_m), (90, one.radius_90_m)):
        if radius is None:
            text += f"; how far with {level} % is not known"
        elif radius > radius_m:  # else it is said already
            text += f"; {level} % sure of {radius:,.0f} m"
    return "; ".join([text, *one.notes])


def _small(image: Tensor) -> Tensor:
    """(3, H, W) as uint8, at most PICTURE_PX high."""
    image = as_bytes(image) if image.is_floating_point() else image
    high, wide = image.shape[-2:]
    return image if high <= PICTURE_PX else resize(image, (PICTURE_PX, max(1, round(wide * PICTURE_PX / high))))


# ---------------------------------------------------------------------------------------------------------------- helpers


def _drawn(figure: Figure) -> bytes:
    """The figure as the bytes of a JPEG; it is none of pyplot's, so a notebook does not show it a second time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="rgba", dpi=DPI)
    width, height = (round(edge * DPI) for edge in figure.get_size_inches())
    pixels = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8).view(height, width, 4)
    return as_jpeg(pixels[..., :3].permute(2, 0, 1))


def _check(fits: bool, where: str, expected: str, found: object, todo: str) -> None:
    if not fits:
        raise InputError(where, expected=expected, found=found, todo=todo)
