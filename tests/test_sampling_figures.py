"""Figures of sampling: what is drawn is what was given, with all drawn, and with a drawn place of another batch."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from ucvgl import sampling_figures as s
from ucvgl.lab.plots import PALETTE

mpl.use("agg")
pytestmark = pytest.mark.usefixtures("drawn_figures")


def grey(value):
    return torch.full((3, 4, 4), value, dtype=torch.uint8)


def test_a_row_a_sampler_with_its_drawn_places_framed() -> None:
    many = [grey(k) for k in range(s.SHOWN + 5)]
    tiles = {"random": many, "near": [grey(4), grey(5)]}
    figure = s.batch_pictures(tiles, {"random": [True, False] * 8, "near": [True, False]})
    grid = np.array([np.asarray(axes.images[0].get_array()) for axes in figure.axes]).reshape(2, s.SHOWN, -1, 3)
    middle = grid[:, :, grid.shape[2] // 2 + 150, 0]
    assert middle[0].tolist() == list(range(s.SHOWN))
    assert middle[1].tolist() == [4, 5] + [255] * (s.SHOWN - 2)
    framed = [[to_hex(picture[0] / 255) == s.FRAME_COLOUR for picture in row] for row in grid]
    assert framed == [[True, False] * 5, [True] + [False] * 9]
    assert [figure.axes[k].texts[0].get_text() for k in (0, s.SHOWN)] == ["random", "near"]


WHERE = torch.tensor([[0.0, 0.0], [3.0, 4.0], [100.0, 0.0], [100.0, 20.0], [50.0, 50.0], [9.0, 9.0]])


def drawn_at(axes, which):
    """Places that a map marks so, with their colours."""
    dots = axes.collections[{"joined": 2, "drawn": 3}[which]]
    places = [tuple(place) for place in np.ma.getdata(dots.get_offsets()).tolist()]
    return dict(zip(places, map(to_hex, dots.get_facecolors()), strict=len(places) > 0))


def test_lines_lead_to_the_drawn_places() -> None:
    items, anchors = torch.tensor([0, 1, 2, 3, 4]), torch.tensor([0, 0, 2, 2, 4])
    (axes,) = s.batch_map(WHERE, {"near": items}, {"near": anchors}).axes
    assert axes.get_title() == "near\njoined from 12 m away (median)"  # of 5 and 20 m
    assert [line.tolist() for line in axes.collections[1].get_segments()] == [[[3, 4], [0, 0]], [[100, 20], [100, 0]]]
    assert drawn_at(axes, "drawn") == {(0, 0): PALETTE[0], (100, 0): PALETTE[1], (50, 50): s.ALONE_COLOUR}
    assert drawn_at(axes, "joined") == {(3, 4): PALETTE[0], (100, 20): PALETTE[1]}
    assert len(axes.collections[0].get_offsets()) == 6
