"""A control is moved and its picture changes; filters, orders and buttons choose the rows that are drawn."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ucvgl.lab.widgets import browse, explore, hits

MARGIN = [0.3, 0.1, 0.4, 0.2, np.nan]
QUERIES = pd.DataFrame({"query": range(5), "nearest": [True, False, False, True, False], "margin": MARGIN})
BYOL = QUERIES.iloc[[0, 1, 3]].assign(method="byol", nearest=[False, True, True])
METHODS = pd.concat([QUERIES.assign(method="simclr"), BYOL])


class Browser:
    """A browser by its parts; `drawn` holds each row that was drawn."""

    def __init__(self, rows: pd.DataFrame, **settings) -> None:
        self.drawn = []
        leaf, choices, self.said, self.box = browse(rows, self._draw, **settings).children
        self.previous, self.place, self.next = leaf.children
        self.knobs = {knob.description: knob for knob in choices.children}

    def _draw(self, row: dict) -> dict[str, torch.Tensor]:
        self.drawn.append(row)
        grey = torch.full((3, 8, 16), 40 * row["query"], dtype=torch.uint8)
        white = torch.full((3, 8, 8), 255, dtype=torch.uint8)
        return {f"picture {row['query']}": grey} | ({"its tile": white} if row["query"] % 2 else {})

    def pictures(self) -> dict[str, float]:
        """The mean grey of each picture on show, by its caption."""
        cells = [cell.children for cell in self.box.children]
        return {label.value: np.array(Image.open(io.BytesIO(image.value))).mean().round() for image, label in cells}

    def leafed(self) -> list[int]:
        """The queries of the rows that are shown, one after another."""
        seen = []
        for place in range(1, self.place.max + 1):
            self.place.value = place
            seen.append(self.drawn[-1]["query"])
        return seen


def test_a_row_is_drawn_and_said_and_buttons_stay_within_the_rows() -> None:
    browser = Browser(QUERIES, filters={"nearest": "all"})
    assert browser.said.value == "1 of 5: query 0; nearest right; margin 0.3"
    assert browser.pictures() == {"picture 0": 0}
    browser.previous.click()
    assert browser.place.value == 1
    browser.next.click()
    assert browser.said.value == "2 of 5: query 1; nearest wrong; margin 0.1"
    assert browser.pictures() == {"picture 1": 40, "its tile": 255}
    image = browser.box.children[0].children[0]
    assert (image.format, image.width, image.height) == ("jpeg", "300", "150")
    for _ in range(7):
        browser.next.click()
    assert browser.said.value == "5 of 5: query 4; nearest wrong; margin none"
    assert browser.pictures() == {"picture 4": 160}
    assert browser.drawn[-1]["nearest"] is False


def test_filters_choose_rows() -> None:
    browser = Browser(QUERIES, filters={"nearest": "wrong", "margin": "all"})
    nearest, margin = browser.knobs["nearest"], browser.knobs["margin"]
    assert nearest.options == ("all", "right", "wrong")
    assert (margin.min, margin.max) == (0.1, 0.4)
    assert browser.leafed() == [1, 2, 4]  # where the margin is not known, too
    margin.value = (0.2, 0.4)
    assert browser.leafed() == [2]
    nearest.value = "all"
    assert browser.leafed() == [0, 2, 3]
    margin.value, nearest.value = (0.35, 0.4), "right"
    assert browser.said.value == "no row fits these filters"
    assert browser.place.disabled
    assert browser.pictures() == {}
    nearest.value = "all"
    assert not browser.place.disabled
    assert browser.said.value.startswith("1 of 1: query 2")
    assert Browser(QUERIES, filters={"query": (1, 3)}).leafed() == [1, 2, 3]


def test_rows_are_sorted() -> None:
    browser = Browser(QUERIES, filters={"nearest": "all"}, sort=["margin", "nearest"])
    order = browser.knobs["sort by"]
    for by, expected in {"margin, rising": [1, 3, 0, 2, 4], "margin, falling": [2, 0, 3, 1, 4],
                         "nearest, rising": [0, 3, 1, 2, 4], "as listed": [0, 1, 2, 3, 4]}.items():  # fmt: skip
        order.value = by
        assert browser.leafed() == expected
    browser.knobs["nearest"].value, order.value = "wrong", "margin, falling"
    assert browser.leafed() == [2, 1, 4]


def test_a_query_stays_when_the_method_changes() -> None:
    browser = Browser(METHODS, filters={"method": "simclr", "nearest": "all"}, keep=["query"])
    assert browser.knobs["method"].options == ("all", "simclr", "byol")
    browser.place.value = 4
    browser.knobs["method"].value = "byol"
    assert browser.said.value.startswith("3 of 3: query 3; nearest right; margin 0.2; method byol")
    browser.knobs["nearest"].value = "wrong"
    assert browser.said.value.startswith("1 of 1: query 0; nearest wrong")
    browser.knobs["method"].value = "simclr"
    assert browser.said.value.startswith("1 of 3: query 1")
    browser.knobs["method"].value = browser.knobs["nearest"].value = "all"
    assert browser.leafed() == [0, 1, 2, 3, 4, 0, 1, 3]


def test_names_are_shown_as_they_are() -> None:
    rows = pd.DataFrame({"query": [0], "picture": ["<img src=x>"]})
    assert Browser(rows, filters={"picture": "all"}).said.value == "1 of 1: query 0; picture &lt;img src=x&gt;"


def test_hits_count_from_the_nearest() -> None:
    table = hits(torch.tensor([[True, False, True], [False, False, True], [False, False, False], [False, True, True]]))
    assert table["nearest"].tolist() == [True, False, False, False]
    assert table["first right at"].tolist() == pytest.approx([1, 3, np.nan, 2], nan_ok=True)
    browser = Browser(table, filters={"first right at": (2, 3)})
    assert browser.said.value == "1 of 2: query 1; nearest wrong; first right at 3; R@1 of all queries (%) 25"


def test_knobs_are_given_in_their_order_and_a_plot_is_drawn() -> None:
    calls = []

    def draw(height: float, wide: bool) -> dict[str, plt.Figure]:
        calls.append((height, wide))
        return {f"height {height:g}": plt.figure(figsize=(4 if wide else 2, height), layout="constrained")}

    controls, pictures = explore(draw, {"height (in)": (1.0, 0.5, 3.0, 0.25), "wide": True}).children
    height, wide = controls.children
    image, label = pictures.children[0].children
    assert Image.open(io.BytesIO(image.value)).size == (320, 80)
    height.value, wide.value = 2.0, False
    assert calls == [(1.0, True), (2.0, True), (2.0, False)]
    assert (label.value, image.format) == ("height 2", "png")
    assert Image.open(io.BytesIO(image.value)).size == (160, 160)
    assert not plt.get_fignums()  # nothing left for the notebook to show once more
