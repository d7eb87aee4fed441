"""A control for the notebook on place recognition: leaf through query photos and what each method retrieves for them.

It returns a box whose pictures are JPEG images, and knows no method and no data set: it takes photos and rankings.
"""

from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import torch
from torch import Tensor

from ucvgl.errors import InputError
from ucvgl.lab.widgets import as_jpeg
from ucvgl.retrieval_widgets import ALL, ONLY_RIGHT, ONLY_WRONG, TILE_PX, framed

SHOWN = 5  # database photos of a query
Photos = tuple[Sequence[Tensor], Sequence[Tensor]]  # queries, database; pictures (3, H, W)
Found = tuple[Tensor, Tensor]  # index (Q, k) of database photos, the nearest first; right (Q, k) bool


def place_browser(photos: Mapping[str, Photos], found: Mapping[str, Mapping[str, Found]]) -> widgets.VBox:
    """Choose a method, a test set and a query: its photo, and the first SHOWN it finds, framed as right or wrong.

    A query stays when the method is changed, if the filter shows it there too: so two methods can be compared.

    Args:
        photos: test set -> its queries and its database, pictures (3, H, W) uint8 or float in 0..1.
        found: method -> test set -> index (Q, k) int64 of database photos, the nearest first, and right (Q, k) bool; every
            method on every test set.

    Raises:
        InputError: no method, test set or query, a method without one of the test sets, numbers that do not fit.
    """
    _check_found(photos, found)
    method = widgets.Dropdown(options=list(found), description="method")
    test = widgets.Dropdown(options=list(photos), description="test set")
    kind = widgets.Dropdown(options=[ALL, ONLY_RIGHT, ONLY_WRONG], value=ALL, description="show")
    slider = widgets.IntSlider(value=0, min=0, max=0, description="query", continuous_update=False)
    caption, own = widgets.Label(), widgets.Image(format="jpeg", height=TILE_PX)
    longest = max(index.shape[1] for by_test in found.values() for index, _ in by_test.values())
    row = [widgets.Image(format="jpeg", height=TILE_PX) for _ in range(min(SHOWN, longest))]
    chosen: list[int] = []

    def draw(_: object = None) -> None:
        queries, database = photos[test.value]
        index, right = (values[:, :SHOWN] for values in found[method.value][test.value])
        for picture in (own, *row):
            picture.value = b""
        share = f"R@1 of all queries {100 * float(right[:, 0].float().mean()):.1f} %"
        if not chosen:
            caption.value = f"no query is {kind.value}; {share}"
            return
        query = chosen[slider.value]
        own.width, own.value = _width(queries[query]), as_jpeg(queries[query])
        for picture, photo, correct in zip(row, index[query].tolist(), right[query].tolist(), strict=False):
            picture.width, picture.value = _width(database[photo]), as_jpeg(framed(database[photo], correct))
        caption.value = f"{slider.value + 1} of {len(chosen)}: query {query}; {_first_right(right[query])}; {share}"

    def choose(change: Mapping[str, object] | None = None) -> None:
        before = chosen[slider.value] if chosen and change and change["owner"] is not test else -1
        first = found[method.value][test.value][1][:, 0]  # (Q,)
        shown = {ALL: torch.ones_like(first), ONLY_RIGHT: first, ONLY_WRONG: ~first}[kind.value]
        chosen[:] = shown.nonzero()[:, 0].tolist()
        slider.unobserve(draw, "value")  # one picture for the new choice, not one for each step on the way
        slider.value, slider.max, slider.disabled = 0, max(0, len(chosen) - 1), not chosen
        slider.value = chosen.index(before) if before in chosen else 0
        slider.observe(draw, "value")
        draw()

    slider.observe(draw, "value")
    for control in (method, test, kind):
        control.observe(choose, "value")
    choose()
    layout = widgets.Layout(flex_flow="row wrap", width="100%")
    return widgets.VBox(
        [widgets.HBox([method, test]), widgets.HBox([kind, slider]), caption, own, widgets.Box(row, layout=layout)]
    )


def _width(photo: Tensor) -> int:
    """Of a photo TILE_PX high; `framed` makes pictures square, which the page then stretches back."""
    return round(TILE_PX * photo.shape[-1] / photo.shape[-2])


def _first_right(right: Tensor) -> str:
    places = right.nonzero()[:, 0].tolist()
    return f"first right photo at place {places[0] + 1}" if places else f"no right photo among the first {len(right)}"


def _check_found(photos: Mapping[str, Photos], found: Mapping[str, Mapping[str, Found]]) -> None:
    tests = {method: list(by_test) for method, by_test in found.items()}
    if not photos or not found or any(set(names) != set(photos) for names in tests.values()):
        raise InputError(
            "place browser", expected=f"each method on each test set of {list(photos)}", found=tests,
            todo="Search with every method on every test set.",
        )  # fmt: skip
    for method, by_test in found.items():
        for test, (index, right) in by_test.items():
            queries, database = (len(images) for images in photos[test])
            fits = index.ndim == 2 and index.shape == right.shape and len(index) == queries and index.numel() > 0
            whole = not index.is_floating_point() and index.dtype != torch.bool and right.dtype == torch.bool
            if not fits or not whole or not 0 <= int(index.min()) <= int(index.max()) < database:
                raise InputError(
                    f"place browser: {method} on {test}",
                    expected=f"whole index and bool right ({queries}, k), indices below {database}",
                    found=f"index {tuple(index.shape)} {index.dtype}, right {tuple(right.shape)} {right.dtype}",
                    todo="Take them from one search for these queries in this database.",
                )  # fmt: skip
