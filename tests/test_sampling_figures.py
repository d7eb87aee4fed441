"""Figures of sampling: what is drawn is what was given."""

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


def framed(axes):
    return [to_hex(patch.get_edgecolor()) for patch in axes.patches] == [s.FRAME_COLOUR]


def test_a_row_a_sampler_with_its_drawn_places_framed() -> None:
    tiles = {"random": [grey(1), grey(2), grey(3)], "near": [grey(4), grey(5)]}
    figure = s.batch_pictures(tiles, {"random": [True, True, False], "near": [True, False]})
    grid = np.array(figure.axes).reshape(2, 3)
    shown = [[int(a.images[0].get_array()[0, 0, 0]) if a.images else None for a in row] for row in grid]
    assert shown == [[1, 2, 3], [4, 5, None]]
    assert [[framed(a) for a in row] for row in grid] == [[True, True, False], [True, False, False]]


WHERE = torch.tensor([[0.0, 0.0], [3.0, 4.0], [100.0, 0.0], [100.0, 20.0], [50.0, 50.0], [9.0, 9.0]])


def drawn_at(axes, marker):
    """Places that a map marks so, with their colours."""
    kinds = {"all": 0, "joined": 2, "alone": 3, "drawn": 4, "away": 5}  # 1 are the lines
    dots = axes.collections[kinds[marker]]
    places = [tuple(place) for place in np.ma.getdata(dots.get_offsets()).tolist()]
    colours = dots.get_edgecolors() if marker == "away" else dots.get_facecolors()
    return dict(zip(places, [to_hex(c) for c in colours], strict=len(places) > 0))


def segments(axes):
    return [line.tolist() for line in axes.collections[1].get_segments()]


def test_lines_lead_to_the_drawn_places() -> None:
    items, anchors = torch.tensor([0, 1, 2, 3, 4]), torch.tensor([0, 0, 2, 2, 4])
    axes = s.batch_map(WHERE, {"near": items}, {"near": anchors}).axes[0]
    assert axes.get_title() == "near\n5 places, 3 drawn\njoined from 12 m away (median)"  # of 5 and 20 m
    assert segments(axes) == [[[3, 4], [0, 0]], [[100, 20], [100, 0]]]
    assert drawn_at(axes, "drawn") == {(0, 0): PALETTE[0], (100, 0): PALETTE[1]}
    assert drawn_at(axes, "joined") == {(3, 4): PALETTE[0], (100, 20): PALETTE[1]}
    assert set(drawn_at(axes, "alone")) == {(50, 50)}


def test_a_drawn_place_of_another_batch_is_hollow() -> None:
    items, anchors = torch.tensor([3, 5, 1, 0]), torch.tensor([2, 2, 0, 0])  # 2 was drawn for the batch before
    axes = s.batch_map(WHERE, {"near": items}, {"near": anchors}).axes[0]
    assert "4 places, 1 drawn" in axes.get_title()
    assert drawn_at(axes, "away") == {(100, 0): s.GROUP_COLOURS[0]}
    assert drawn_at(axes, "drawn") == {(0, 0): s.GROUP_COLOURS[1]}
    assert drawn_at(axes, "joined") == {(100, 20): PALETTE[0], (9, 9): PALETTE[0], (3, 4): PALETTE[1]}
