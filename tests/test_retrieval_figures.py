"""Figures of a retrieval run: what is drawn is what was given, with one row, nothing right, everything labelled, gaps."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex

from ucvgl import retrieval_figures as r

mpl.use("agg")
pytestmark = pytest.mark.usefixtures("drawn_figures")


def heights(axes, colour):
    """Heights of a histogram's bars of one colour, from the left."""
    bars = [p for p in axes.patches if to_hex(p.get_facecolor()) == colour and p.get_height() > 0]
    return [round(p.get_height()) for p in sorted(bars, key=lambda p: p.get_x())]


def legend_texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_margins_are_split_by_mutual_and_right() -> None:
    margin = torch.tensor([0.0, 0.01, 0.05, 0.1, 0.1, 0.02])
    right = torch.tensor([True, False, True, True, False, False])
    mutual = torch.tensor([True, True, True, True, False, False])
    figure = r.margin_histogram(margin, right, mutual, 0.05)
    left, other = figure.axes
    assert (heights(left, r.RIGHT_COLOUR), heights(left, r.WRONG_COLOUR)) == ([1, 1, 1], [1])
    assert (heights(other, r.RIGHT_COLOUR), heights(other, r.WRONG_COLOUR)) == ([], [1, 1])
    # a margin at the threshold counts, as in mining
    assert left.get_title() == "Mutual: 4, 75 % of them right\nkept by the threshold: 2, 100 % of them right"
    assert other.get_title().startswith("Not mutual: 2, 0 % of them right")
    lines = [line for line in left.lines if line.get_label() == "threshold"]
    assert lines[0].get_xdata()[0] == 0.05
    assert legend_texts(figure) == ["nearest tile is right", "nearest tile is wrong", "removed", "threshold"]


def matches():
    at = torch.tensor([[0.0, 0.0], [10.0, 10.0], [20.0, 5.0], [30.0, 30.0]])
    to = torch.tensor([[1.0, 0.0], [40.0, 10.0], [torch.nan, torch.nan], [torch.nan, torch.nan]])
    return at, to, torch.tensor([r.RIGHT, r.WRONG, r.UNLABELLED, r.WRONG])


def drawn(axes):
    return {c.get_label(): c for c in axes.collections}


def test_map_shows_matches_and_lines_of_the_wrong_ones() -> None:
    figure = r.match_map(*matches())
    parts = drawn(figure.axes[0])
    assert figure.axes[0].get_title() == "1 right, 2 wrong, 1 without a label"
    assert parts["right"].get_offsets().tolist() == [[0, 0]]
    assert parts["wrong"].get_offsets().tolist() == [[10, 10], [30, 30]]
    assert parts["no label"].get_offsets().tolist() == [[20, 5]]
    segments = parts["from a wrong one to where it was put"].get_segments()
    assert [s.tolist() for s in segments] == [[[10, 10], [40, 10]]]  # the other one lies in another city


def test_bars_beside_published_ones() -> None:
    frame = pd.DataFrame({"method": ["full", "part"], "r_at_1": [55.0, 20.0]})
    figure = r.ablation_bars(frame, name="method", published=[87.9, None], labels=("a world", "CVUSA"))
    axes = figure.axes[0]
    ours, theirs = axes.containers
    assert [[bar.get_width() for bar in bars] for bars in (ours, theirs)] == [[55.0, 20.0], [87.9, 0.0]]
    assert [t.get_text() for t in axes.texts] == ["55.0", "20.0", "87.9", "not known"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["full", "part"]
    assert axes.yaxis_inverted()
    assert ours[0].get_y() < theirs[0].get_y()  # ours above
    assert legend_texts(figure) == ["a world", "CVUSA"]


def grey(value):
    return torch.full((3, 4, 4), value, dtype=torch.uint8)


def test_a_row_a_sampler_with_its_drawn_places_framed() -> None:
    many = [grey(k) for k in range(r.SHOWN + 5)]
    tiles = {"random": many, "near": [grey(4), grey(5)]}
    figure = r.batch_pictures(tiles, {"random": [True, False] * 8, "near": [True, False]})
    grid = np.array([np.asarray(axes.images[0].get_array()) for axes in figure.axes]).reshape(2, r.SHOWN, -1, 3)
    middle = grid[:, :, grid.shape[2] // 2 + 150, 0]
    assert middle[0].tolist() == list(range(r.SHOWN))
    assert middle[1].tolist() == [4, 5] + [255] * (r.SHOWN - 2)
    framed = [[to_hex(picture[0] / 255) == r.FRAME_COLOUR for picture in row] for row in grid]
    assert framed == [[True, False] * 5, [True] + [False] * 9]
    assert [figure.axes[k].texts[0].get_text() for k in (0, r.SHOWN)] == ["random", "near"]


WHERE = torch.tensor([[0.0, 0.0], [3.0, 4.0], [100.0, 0.0], [100.0, 20.0], [50.0, 50.0], [9.0, 9.0]])


def drawn_at(axes, which):
    """Places that a map marks so, with their colours."""
    dots = axes.collections[{"joined": 2, "drawn": 3}[which]]
    places = [tuple(place) for place in np.ma.getdata(dots.get_offsets()).tolist()]
    return dict(zip(places, map(to_hex, dots.get_facecolors()), strict=len(places) > 0))


def test_lines_lead_to_the_drawn_places() -> None:
    items, anchors = torch.tensor([0, 1, 2, 3, 4]), torch.tensor([0, 0, 2, 2, 4])
    (axes,) = r.batch_map(WHERE, {"near": items}, {"near": anchors}).axes
    assert axes.get_title() == "near\njoined from 12 m away (median)"  # of 5 and 20 m
    assert [line.tolist() for line in axes.collections[1].get_segments()] == [[[3, 4], [0, 0]], [[100, 20], [100, 0]]]
    assert drawn_at(axes, "drawn") == {(0, 0): r.PALETTE[0], (100, 0): r.PALETTE[1], (50, 50): r.ALONE_COLOUR}
    assert drawn_at(axes, "joined") == {(3, 4): r.PALETTE[0], (100, 20): r.PALETTE[1]}
    assert len(axes.collections[0].get_offsets()) == 6
