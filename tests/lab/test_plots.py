"""Figures: shapes go in, figures come out, and each shows what it is given."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import ImageColor

from ucvgl.lab import plots as figures

mpl.use("agg")


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def test_number_maps_write_every_number_in_its_place() -> None:
    figure = figures.number_maps({"a": torch.tensor([[1.4, 2.6], [3.0, 4.0]]), "b": torch.zeros(2, 2)})
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    texts = sorted(figure.axes[0].texts, key=lambda text: (text.get_position()[1], text.get_position()[0]))
    assert [text.get_text() for text in texts] == ["1", "3", "3", "4"]


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


def test_map_shows_matches_and_lines_of_the_wrong_ones():
    at = torch.tensor([[0.0, 0.0], [10.0, 10.0], [20.0, 5.0], [30.0, 30.0]])
    to = torch.tensor([[1.0, 0.0], [40.0, 10.0], [torch.nan, torch.nan], [torch.nan, torch.nan]])
    (axes,) = figures.match_map(
        at, to, torch.tensor([figures.RIGHT, figures.WRONG, figures.UNLABELLED, figures.WRONG])
    ).axes
    assert axes.get_title() == "1 right, 2 wrong, 1 without a label"
    drawn = {dots.get_label(): dots.get_offsets().tolist() for dots in axes.collections}
    assert drawn == {"right": [[0, 0]], "wrong": [[10, 10], [30, 30]], "no label": [[20, 5]]}
    ends = [line.get_xydata().tolist() for line in axes.lines if np.isfinite(line.get_xydata()).all()]
    assert ends == [[[10, 10], [40, 10]]]  # the other one lies in another city
