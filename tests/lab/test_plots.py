"""Figures: shapes go in, figures come out, and each shows what it is given."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import ImageColor

from ucvgl.geometry import TopView
from ucvgl.lab import plots as figures
from ucvgl.lab.plots import CLASS_COLOURS
from ucvgl.world.kinds import Kind

mpl.use("agg")


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def test_as_picture_and_classes() -> None:
    assert figures.as_picture(torch.full((3, 2, 4), 0.5)).tolist() == np.full((2, 4, 3), 128).tolist()
    kind = torch.tensor([[int(k) for k in Kind]], dtype=torch.uint8)
    colours = figures.class_picture(kind)
    assert [tuple(colours[:, 0, k].tolist()) for k in Kind] == [CLASS_COLOURS[k] for k in Kind]


def test_depth_is_lighter_when_near_and_black_in_the_sky() -> None:
    picture = figures.depth_picture(torch.tensor([[1.0, 10.0, torch.inf]]))
    assert picture[:, 0, 0].sum() > picture[:, 0, 1].sum() > 0
    assert float(picture[:, 0, 2].sum()) == 0


def test_sheets_hold_every_picture() -> None:
    wide, square = torch.zeros(3, 8, 16), torch.zeros(3, 8, 8)
    figure = figures.sheet({"a": [wide, wide], "b": [square, square]}, row_labels=["x", "y"])
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "", ""]
    figure = figures.montage([wide] * 3, ["1", "2", "3"], columns=2)
    assert [axes.get_title() for axes in figure.axes] == ["1", "2", "3", ""]
    figure = figures.knob_sheet({"k": [("l", square), ("r", square)]}, square)
    assert [axes.get_title() for axes in figure.axes] == ["l", "r", "the real tile"]


def test_diagram_states_its_numbers() -> None:
    texts = [text.get_text() for text in figures.geometry_diagram(TopView.from_span(64, 40.0, 2.0)).axes[0].texts]
    assert any("40 m" in text for text in texts)
    assert any("h = 2 m" in text for text in texts)


def test_plots_draw_every_row() -> None:
    rows = [
        {"assumption": a, "from_m": 0, "to_m": 5, "median_error_m": 1.0, "p90_error_m": 2.0, "seen_as_ground": 50.0}
        for a in ("exact", "other")
    ]
    left = figures.accuracy_plot(pd.DataFrame(rows)).axes[0]
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["exact", "other"]
    table = pd.DataFrame([{"level": "easy", "method": m, "r_at_1": r} for m, r in (("pixels", 60.0), ("chance", 0.1))])
    heights = [bar.get_height() for bar in figures.difficulty_plot(table).axes[0].patches if bar.get_height()]
    assert heights == [60.0, 0.1]


def test_map_outlines_the_tile() -> None:
    figure = figures.city_map(torch.zeros(3, 16, 16), 100.0, np.array([50.0, 20.0]), np.array([50.0, 30.0]), 1, 10.0)
    patch = figure.axes[0].patches[0]
    assert (patch.get_x(), patch.get_y(), patch.get_width()) == (15.0, 25.0, 10.0)


# ----------------------------------------------------------------------------------------------- what was retrieved


def test_a_strip_keeps_each_shape_and_may_be_framed() -> None:
    pictures = [torch.zeros(3, 20, 40), torch.full((3, 8, 8), 0.5), torch.full((3, 30, 10), 255, dtype=torch.uint8)]
    strip, edge = figures.strip(pictures), figures.STRIP_PX
    assert strip.shape == (3, edge, 2 * edge + edge + edge // 3)
    assert [int(strip[0, edge // 2, x]) for x in (edge, 2 * edge + edge // 2, 3 * edge + 20)] == [0, 128, 255]
    framed = figures.strip(pictures, "#ff0000", frame_px=6)
    assert framed.shape == strip.shape
    changed = (framed != strip).any(0)
    assert changed[:6].all()
    assert changed[:, :6].all()
    assert not changed[6:-6, 6:-6].any()
    assert framed[:, -1, 9].tolist() == [255, 0, 0]


def test_ranked_pictures_carry_a_mark_besides_the_colour() -> None:
    gallery = torch.arange(0, 200, 40, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 8, 16)
    found = figures.ranked(gallery, torch.tensor([4, 1, 2]), [1.0, 0.0, np.nan])
    assert list(found) == ["1, right", "2, wrong", "3"]
    assert [int(picture[0, 150, 300]) for picture in found.values()] == [160, 40, 80]
    corners = [tuple(picture[:, -1, -1].tolist()) for picture in found.values()]
    colours = [ImageColor.getrgb(colour) for colour in (figures.RIGHT_COLOUR, figures.WRONG_COLOUR)]
    assert corners == [*colours, (80, 80, 80)]
    tick, cross, none = ((picture == 255).all(0) for picture in found.values())
    assert tick.any()
    assert cross.any()
    assert not torch.equal(tick, cross)
    assert not none.any()


def test_ranked_pictures_with_notes_and_truth_values() -> None:
    found = figures.ranked(torch.zeros(2, 3, 8, 8), [1, 0], torch.tensor([False, True]), ["score 0.9", "score 0.8"])
    assert list(found) == ["1: score 0.9, wrong", "2: score 0.8, right"]
