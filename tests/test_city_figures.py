"""Figures of a city: squares where the candidates are, frames where the truth is known, the chosen round."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from ucvgl import city_figures as f
from ucvgl.errors import InputError
from ucvgl.locate.adapt import Round
from ucvgl.locate.map_page import Background
from ucvgl.positions import from_metres
from ucvgl.retrieval_figures import RIGHT_COLOUR, WRONG_COLOUR

mpl.use("agg")
ORIGIN = (60.17, 24.94)
(SOUTH, WEST), (NORTH, EAST) = from_metres(np.array([[-210.0, -210.0], [210.0, 210.0]]), ORIGIN).tolist()
BACKGROUND = Background(torch.zeros(3, 8, 8, dtype=torch.uint8), SOUTH, WEST, NORTH, EAST)
LINE = np.arange(-150, 151, 12.5)
GRID = np.stack(np.meshgrid(LINE, LINE), -1).reshape(-1, 2)  # (625, 2)
CENTRES = from_metres(GRID, ORIGIN)
pytestmark = pytest.mark.usefixtures("drawn_figures")


def pictures(count, height=8, width=16):
    return (20 * torch.arange(count)).to(torch.uint8)[:, None, None, None].expand(count, 3, height, width)


def rectangles(axes):
    return [p for p in axes.patches if isinstance(p, mpl.patches.Rectangle)]


def test_the_sheet_shows_three_neighbours_one_stride_apart_and_four_pictures() -> None:
    figure = f.imagery_sheet(pictures(6), pictures(6, 8, 8), BACKGROUND, CENTRES, span_m=50)
    _, close, *street = figure.axes
    assert [int(a.images[0].get_array()[0, 0, 0]) for a in street[::2]] == [0, 20, 40, 60]
    squares = rectangles(close)
    assert [(s.get_width(), s.get_height()) for s in squares] == [(50, 50)] * 3
    corner = np.array([s.get_xy() for s in squares])
    assert corner + 25 == pytest.approx(np.array([[0, 0], [12.5, 0], [25, 0]]), abs=0.1)  # the first in the middle


def test_candidates_are_framed_where_the_truth_is_known() -> None:
    tiles = [list(pictures(3, 8, 8)), list(pictures(2, 8, 8))]
    axes = f.candidates_row(pictures(2), pictures(2, 8, 8), tiles, [["a", "b", "c"], ["d", "e"]],
                            [[True, False, None], [None, np.True_]], titles=["first", "second"]).axes  # fmt: skip
    shown = *axes[2:5], *axes[7:9]
    frames = [[to_hex(r.get_edgecolor()) for r in rectangles(a)] for a in shown]
    assert frames == [[RIGHT_COLOUR], [WRONG_COLOUR], [], [], [RIGHT_COLOUR]]
    assert [a.texts[0].get_text() for a in shown] == list("abcde")
    with pytest.raises(InputError, match="candidates"):
        f.candidates_row(pictures(1), pictures(1, 8, 8), [pictures(2, 8, 8)], [["a", "b"]], [[True]])


def test_rounds_are_drawn_and_the_best_by_mutual_matches_is_marked() -> None:
    measures = ((0.2, 0.01), (0.5, 0.03), (0.5, 0.02), (0.4, 0.05))
    rounds = [Round(f"epoch {n}", None, *rate_and_margin, 0.1, 1.0, 2.0) for n, rate_and_margin in enumerate(measures)]
    left, right = f.quality_rounds(rounds).axes
    assert left.lines[1].get_ydata().tolist() == [20, 50, 50, 40]
    assert right.lines[1].get_ydata().tolist() == [0.01, 0.03, 0.02, 0.05]
    marks = [tuple(line.get_xydata()[0]) for line in left.lines if len(line.get_xdata()) == 1]
    assert (2, 50) in marks  # the later of equals


def test_the_best_candidate_is_ringed_and_the_truth_crossed() -> None:
    p = np.full(len(GRID), 1e-9)
    p[[7, 300]] = 0.2, 0.7
    figure = f.likelihood_maps({"alone": p, "drive": p[::-1]}, BACKGROUND, CENTRES, truth=tuple(CENTRES[7]))
    for axes, best in zip(figure.axes[:2], (300, len(GRID) - 1 - 300), strict=True):
        dots, ring, cross = axes.collections
        assert len(dots.get_offsets()) == 2  # the others are a thousandth of the best, or less
        assert np.allclose(ring.get_offsets()[0], GRID[best], atol=0.1)
        assert np.allclose(cross.get_offsets()[0], GRID[7], atol=0.1)
