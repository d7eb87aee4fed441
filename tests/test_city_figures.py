"""Figures of a city: squares where the candidates are, frames where the truth is known, the chosen round."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from ucvgl import city_figures as f
from ucvgl.lab.plots import RIGHT_COLOUR, WIDTH_IN, WRONG_COLOUR
from ucvgl.locate.adapt import Round
from ucvgl.locate.map_page import Background
from ucvgl.positions import Positions, Wgs84, from_metres, to_metres

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


# -------------------------------------------------------------------------------------------------------- the two folders


def test_the_sheet_shows_three_neighbours_one_stride_apart_and_four_pictures() -> None:
    figure = f.imagery_sheet(pictures(6), pictures(6, 8, 8), BACKGROUND, CENTRES, span_m=50)
    whole, close, *street = figure.axes
    assert figure.get_size_inches()[0] == WIDTH_IN
    assert len(street) == 8  # four of the six
    assert [int(a.images[0].get_array()[0, 0, 0]) for a in street[::2]] == [0, 20, 40, 60]
    squares = rectangles(close)
    assert [(s.get_width(), s.get_height()) for s in squares] == [(50, 50)] * 3
    corner = np.array([s.get_xy() for s in squares])
    assert corner - corner[0] == pytest.approx(np.array([[0, 0], [12.5, 0], [25, 0]]), abs=0.1)
    assert corner[0] + 25 == pytest.approx(np.zeros(2), abs=0.1)  # the candidate in the middle
    (frame,) = rectangles(whole)
    low, high = frame.get_bbox().get_points()
    assert (*close.get_xlim(), *close.get_ylim()) == pytest.approx((low[0], high[0], low[1], high[1]))
    assert (low < corner.min(0)).all()
    assert (corner.max(0) + 50 < high).all()
    assert "3 of 625 candidates, 50 m wide;\nevery dot, 12.5 m apart" in close.get_title()
    dots = close.collections[0].get_offsets().data
    origin = ((SOUTH + NORTH) / 2, (WEST + EAST) / 2)
    at = to_metres(Positions(CENTRES, Wgs84()), origin).values
    assert all(np.abs(at - dot).sum(1).min() < 1e-6 for dot in dots)
    assert len(dots) >= 20


def test_the_bar_has_its_length() -> None:
    whole = f.imagery_sheet(pictures(1), pictures(1, 8, 8), BACKGROUND, CENTRES, span_m=50).axes[0]
    (bar,) = whole.lines
    assert np.ptp(bar.get_xdata()) == pytest.approx(100)
    assert [text.get_text() for text in whole.texts] == ["100 m"]


# --------------------------------------------------------------------------------------------------------- what was found


def test_candidates_are_framed_where_the_truth_is_known() -> None:
    tiles = [list(pictures(3, 8, 8)), list(pictures(2, 8, 8))]
    figure = f.candidates_row(pictures(2), pictures(2, 8, 8), tiles, [["a", "b", "c"], ["d", "e"]],
                              [[True, False, None], [None, np.True_]], titles=["first", "second"])  # fmt: skip
    grid = np.reshape(figure.axes, (2, 5))
    assert [axes.get_title() for axes in grid[0]] == ["first", "seen from above", "best candidate", "2", "3"]
    assert grid[1, 0].get_title() == "second"
    corner = [[to_hex(axes.images[0].get_array()[-1, -1] / 255) for axes in row[2:]] for row in grid]
    assert corner == [[RIGHT_COLOUR, WRONG_COLOUR, to_hex([40 / 255] * 3)], ["#000000", RIGHT_COLOUR, "#ffffff"]]
    assert [axes.texts[0].get_text() for axes in (*grid[0, 2:], *grid[1, 2:4])] == list("abcde")
    assert not grid[1, 4].texts


# --------------------------------------------------------------------------------------------------------- the adaptation


def rounds(*measures):
    names = ["as they came", *(f"epoch {n}" for n in range(1, 30))]
    return [
        Round(name, None, rate, margin, 0.1, 1.0, 2.0) for name, (rate, margin) in zip(names, measures, strict=False)
    ]


def marked(axes):
    """Where the large dot is."""
    (dot,) = [line for line in axes.lines if len(line.get_xdata()) == 1 and line.get_markersize() > 8]
    return float(dot.get_xdata()[0]), float(dot.get_ydata()[0])


def test_rounds_are_drawn_and_the_best_by_mutual_matches_is_marked() -> None:
    figure = f.quality_rounds(rounds((0.2, 0.01), (0.5, 0.03), (0.5, 0.02), (0.4, 0.05)))
    left, right = figure.axes
    assert list(left.lines[1].get_ydata()) == [20, 50, 50, 40]
    assert list(right.lines[1].get_ydata()) == [0.01, 0.03, 0.02, 0.05]
    assert marked(left) == (2, 50)  # the later of equals
    assert marked(right) == (2, 0.02)
    assert left.get_title() == "pictures with a mutual match (%)\n20.0 as they came, 50.0 in the chosen round"
    assert right.get_title().endswith("0.0100 as they came, 0.0200 in the chosen round")
    assert marked(f.quality_rounds(rounds((0.25, 0.01))).axes[0]) == (0, 25)


# --------------------------------------------------------------------------------------------------------- the likelihood


def test_the_best_candidate_is_ringed_and_the_truth_crossed() -> None:
    p = np.full(len(GRID), 1e-9)
    p[[7, 300]] = 0.2, 0.7
    figure = f.likelihood_maps({"alone": p, "drive": p[::-1]}, BACKGROUND, CENTRES, truth=tuple(CENTRES[7]))
    for axes, best in zip(figure.axes[:2], (300, len(GRID) - 1 - 300), strict=True):
        dots, ring, cross = axes.collections
        assert len(dots.get_offsets()) == 2  # the others are a thousandth of the best, or less
        assert np.allclose(ring.get_offsets()[0], GRID[best], atol=0.1)
        assert np.allclose(cross.get_offsets()[0], GRID[7], atol=0.1)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["alone", "drive"]


def test_a_place_that_is_not_known_has_no_cross() -> None:
    figure = f.likelihood_maps({"one": np.ones(len(GRID))}, BACKGROUND, CENTRES, columns=1)
    assert np.ma.getmaskarray(figure.axes[0].collections[2].get_offsets()).all()
