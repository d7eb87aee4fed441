"""Figures of retrieval: what is drawn is what was given."""

import matplotlib as mpl
import numpy as np
import pytest
import torch

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
