"""Figures of retrieval: what is drawn is what was given."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from ucvgl import retrieval_figures as r

mpl.use("agg")
pytestmark = pytest.mark.usefixtures("drawn_figures")


def test_map_shows_matches_and_lines_of_the_wrong_ones():
    at = torch.tensor([[0.0, 0.0], [10.0, 10.0], [20.0, 5.0], [30.0, 30.0]])
    to = torch.tensor([[1.0, 0.0], [40.0, 10.0], [torch.nan, torch.nan], [torch.nan, torch.nan]])
    (axes,) = r.match_map(at, to, torch.tensor([r.RIGHT, r.WRONG, r.UNLABELLED, r.WRONG])).axes
    assert axes.get_title() == "1 right, 2 wrong, 1 without a label"
    drawn = {dots.get_label(): dots.get_offsets().tolist() for dots in axes.collections}
    assert drawn == {"right": [[0, 0]], "wrong": [[10, 10], [30, 30]], "no label": [[20, 5]]}
    ends = [line.get_xydata().tolist() for line in axes.lines if np.isfinite(line.get_xydata()).all()]
    assert ends == [[[10, 10], [40, 10]]]  # the other one lies in another city


def test_a_row_a_sampler_with_its_drawn_places_framed():
    def grey(value):
        return torch.full((3, 4, 4), value, dtype=torch.uint8)

    tiles = {"random": [grey(k) for k in range(r.SHOWN + 5)], "near": [grey(4), grey(5)]}
    figure = r.batch_pictures(tiles, {"random": [True, False] * 8, "near": [True, False]})
    grid = np.array([np.asarray(axes.images[0].get_array()) for axes in figure.axes]).reshape(2, r.SHOWN, -1, 3)
    middle = grid[:, :, grid.shape[2] // 2 + 150, 0]
    assert middle.tolist() == [list(range(r.SHOWN)), [4, 5] + [255] * (r.SHOWN - 2)]
    framed = [[to_hex(picture[0] / 255) == r.FRAME_COLOUR for picture in row] for row in grid]
    assert framed == [[True, False] * 5, [True] + [False] * 9]
    assert [figure.axes[k].texts[0].get_text() for k in (0, r.SHOWN)] == ["random", "near"]
