"""The browser of rows: filters choose the rows, and what is chosen is said and drawn."""

import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ucvgl.lab.plots import browse, hits

QUERIES = pd.DataFrame({"query": range(4), "nearest": [True, False, True, False], "margin": [0.3, 0.1, 0.2, np.nan]})
METHODS = pd.concat([QUERIES.assign(method="simclr"), QUERIES.assign(method="byol", nearest=[False, True, True, True])])


class Browser:
    """A browser by its parts; `drawn` holds each row that was drawn."""

    def __init__(self, rows: pd.DataFrame, **filters: str) -> None:
        self.drawn = []
        self.place, choices, self.said, self.box = browse(rows, self._draw, filters=filters).children
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
    none.knobs["nearest"].value = "all"
    assert (none.said.value[:16], none.place.disabled) == ("1 of 1: query 1;", False)


def test_hits_count_from_the_nearest():
    table = hits(torch.tensor([[True, False, True], [False, False, True], [False, False, False], [False, True, True]]))
    assert table["nearest"].tolist() == [True, False, False, False]
    assert table["first right at"].tolist() == pytest.approx([1, 3, np.nan, 2], nan_ok=True)
    assert "first right at 3; R@1 of all queries (%) 25" in Browser(table.iloc[1:], nearest="all").said.value
