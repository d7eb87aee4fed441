"""Figures show what they are given; the browser of rows: filters choose the rows, and what is chosen is said and drawn."""

import base64
import io
import re

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageColor

from ucvgl.lab import plots

mpl.use("agg")
QUERIES = pd.DataFrame({"query": range(4), "nearest": [True, False, True, False], "margin": [0.3, 0.1, 0.2, np.nan]})
METHODS = pd.concat([QUERIES.assign(method="simclr"), QUERIES.assign(method="byol", nearest=[False, True, True, True])])


def test_number_maps_write_every_number_in_its_place(drawn_figures):
    figure = plots.number_maps({"a": torch.tensor([[1.4, 2.6], [3.0, 4.0]]), "b": torch.zeros(2, 2)})
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    texts = sorted(figure.axes[0].texts, key=lambda text: (text.get_position()[1], text.get_position()[0]))
    assert [text.get_text() for text in texts] == ["1", "3", "3", "4"]


def test_a_strip_keeps_each_shape_and_may_be_framed():
    pictures = [torch.zeros(3, 20, 40), torch.full((3, 8, 8), 0.5), torch.full((3, 30, 10), 255, dtype=torch.uint8)]
    strip, edge = plots.strip(pictures), plots.STRIP_PX
    assert strip.shape == (3, edge, 2 * edge + edge + edge // 3)
    assert [int(strip[0, edge // 2, x]) for x in (edge, 2 * edge + edge // 2, 3 * edge + 20)] == [0, 128, 255]
    changed = (plots.strip(pictures, "#ff0000", frame_px=6) != strip).any(0)
    assert changed[:6].all()
    assert changed[:, -6:].all()
    assert not changed[6:-6, 6:-6].any()


def test_ranked_pictures_carry_a_mark_besides_the_colour():
    gallery = torch.arange(0, 200, 40, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 8, 16)
    found = plots.ranked(gallery, torch.tensor([4, 1, 2]), [1.0, 0.0, np.nan])
    assert list(found) == ["1, right", "2, wrong", "3"]
    assert [int(picture[0, 150, 300]) for picture in found.values()] == [160, 40, 80]
    corners = [tuple(picture[:, -1, -1].tolist()) for picture in found.values()]
    assert corners == [*map(ImageColor.getrgb, (plots.RIGHT_COLOUR, plots.WRONG_COLOUR)), (80, 80, 80)]
    tick, cross, none = ((picture == 255).all(0) for picture in found.values())
    assert [bool(mark.any()) for mark in (tick, cross, none)] == [True, True, False]
    assert not torch.equal(tick, cross)


class Browser:
    """A browser by its parts; `drawn` holds each row that was drawn."""

    def __init__(self, rows: pd.DataFrame, **filters: str) -> None:
        self.drawn = []
        self.place, choices, self.said, self.box = plots.browse(rows, self._draw, filters=filters).children
        self.knobs = {knob.description: knob for knob in choices.children}

    def _draw(self, row: dict) -> dict[str, torch.Tensor]:
        self.drawn.append(row)
        grey = torch.full((3, 8, 16), 40 * row["query"], dtype=torch.uint8)
        return {f"picture {row['query']}": grey, "its <tile>": torch.ones(3, 8, 8)}


def test_a_row_is_drawn_and_said():
    browser = Browser(QUERIES, nearest="all")
    assert browser.said.value == "1 of 4: query 0; nearest right; margin 0.3"
    browser.place.value = 2
    assert browser.said.value == "2 of 4: query 1; nearest wrong; margin 0.1"
    found = re.findall(r"base64,([^\"]+)\" height=\"150\".*?<figcaption>(.*?)</figcaption>", browser.box.value)
    shown = {caption: Image.open(io.BytesIO(base64.b64decode(data))) for data, caption in found}
    grey = {caption: round(np.array(image).mean()) for caption, image in shown.items()}
    assert grey == {"picture 1": 40, "its &lt;tile&gt;": 255}
    browser.place.value = 7  # the slider keeps it within its ends
    assert browser.said.value == "4 of 4: query 3; nearest wrong; margin none"
    assert browser.drawn[-1]["nearest"] is False
    named = pd.DataFrame({"query": [0], "picture": ["<img src=x>"]})
    assert Browser(named, picture="all").said.value == "1 of 1: query 0; picture &lt;img src=x&gt;"


def test_filters_choose_rows_and_the_place_stays():
    browser = Browser(METHODS, method="simclr", nearest="all")
    assert browser.knobs["method"].options == ("all", "simclr", "byol")
    browser.place.value = 4
    browser.knobs["method"].value = "byol"
    assert browser.said.value == "4 of 4: query 3; nearest right; margin none; method byol"
    browser.knobs["nearest"].value = "wrong"
    assert browser.said.value.startswith("1 of 1: query 0; nearest wrong")
    drawn = len(browser.drawn)
    browser.knobs["method"].value = "all"
    assert browser.said.value.startswith("1 of 3: query 1")
    assert len(browser.drawn) == drawn + 1  # one picture for the new choice
    none = Browser(QUERIES.assign(method=["a", "b", "a", "a"]), method="b", nearest="right")
    assert (none.said.value, none.place.disabled, none.box.value) == ("no row fits these filters", True, "")


def test_hits_count_from_the_nearest():
    right = torch.tensor([[True, False, True], [False, False, True], [False, False, False], [False, True, True]])
    table = plots.hits(right)
    assert table["nearest"].tolist() == [True, False, False, False]
    assert table["first right at"].tolist() == pytest.approx([1, 3, np.nan, 2], nan_ok=True)
