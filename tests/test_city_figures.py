"""Figures of a city: squares where the candidates are, frames where the truth is known, the chosen round."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from ucvgl import city_figures as f
from ucvgl.errors import InputError
from ucvgl.lab.plots import WIDTH_IN
from ucvgl.locate.adapt import Round
from ucvgl.locate.map_page import Background
from ucvgl.positions import Positions, Wgs84, from_metres, to_metres
from ucvgl.retrieval_figures import CROSS, RIGHT_COLOUR, TICK, WRONG_COLOUR

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


def written(figure):
    return [text.get_text() for text in figure.texts]


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


def test_a_gap_in_the_grid_has_no_square_and_any_candidate_can_be_shown() -> None:
    first = int(np.abs(GRID - [-100, 50]).sum(1).argmin())
    centres = np.delete(CENTRES, first + 1, axis=0)
    close = f.imagery_sheet(pictures(1), pictures(1, 8, 8), BACKGROUND, centres, span_m=40, shown=first).axes[1]
    corner = np.array([s.get_xy() for s in rectangles(close)])
    assert corner + 20 == pytest.approx(np.array([[-100, 50], [-75, 50]]), abs=0.1)
    assert "2 of 624" in close.get_title()


def test_two_candidates_are_a_city() -> None:
    close = f.imagery_sheet(pictures(2), pictures(2, 8, 8), BACKGROUND, CENTRES[[0, 1]], span_m=50, shown=1).axes[1]
    assert len(rectangles(close)) == 1  # nothing east of the last one


@pytest.mark.parametrize(
    ("street", "top", "centres", "span", "shown", "told"),
    [
        (pictures(0), pictures(0), CENTRES, 50, None, "a top view each"),
        (pictures(2), pictures(1), CENTRES, 50, None, "a top view each"),
        (pictures(2)[:, :1], pictures(2), CENTRES, 50, None, "colour"),
        (pictures(2), pictures(2), CENTRES[:1], 50, None, "two or more"),
        (pictures(2), pictures(2), CENTRES[:, :1], 50, None, "two or more"),
        (pictures(2), pictures(2), CENTRES, 0, None, "span above 0"),
        (pictures(2), pictures(2), CENTRES, 50, 625, "0 to 624"),
    ],
)
def test_a_sheet_that_cannot_be_drawn_is_told(street, top, centres, span, shown, told) -> None:
    with pytest.raises(InputError, match=told):
        f.imagery_sheet(street, top, BACKGROUND, centres, span_m=span, shown=shown)
    assert not plt.get_fignums()


# --------------------------------------------------------------------------------------------------------- what was found


def frames(axes):
    marks = [text.get_text() for text in axes.texts if text.get_text() in (TICK, CROSS)]
    return [to_hex(r.get_edgecolor()) for r in rectangles(axes)], marks


def test_candidates_are_framed_where_the_truth_is_known() -> None:
    tiles = [list(pictures(3, 8, 8)), list(pictures(2, 8, 8))]
    figure = f.candidates_row(pictures(2), pictures(2, 8, 8), tiles, [["a", "b", "c"], ["d", "e"]],
                              [[True, False, None], [None, np.True_]], titles=["first", "second"])  # fmt: skip
    axes = figure.axes
    assert len(axes) == (2 + 3) + (2 + 2)
    found = [frames(a) for a in (*axes[2:5], *axes[7:9])]
    assert found == [
        ([RIGHT_COLOUR], [TICK]), ([WRONG_COLOUR], [CROSS]), ([], []), ([], []), ([RIGHT_COLOUR], [TICK]),
    ]  # fmt: skip
    assert [a.texts[0].get_text() for a in (*axes[2:5], *axes[7:9])] == list("abcde")
    assert written(figure) == ["first", "picture", "seen from above", "best candidate", "2", "3", "second"]
    boxes = np.array([a.get_position().bounds for a in axes])
    assert boxes.min() >= 0
    assert (boxes[:, :2] + boxes[:, 2:]).max() <= 1
    assert boxes[:4, 0] == pytest.approx(boxes[5:, 0])  # columns stand beneath one another
    size = figure.get_size_inches()
    assert boxes[0, 2] * size[0] == pytest.approx(2 * boxes[0, 3] * size[1])  # a panorama is twice as wide as high


def test_one_row_fills_the_width_and_four_are_higher() -> None:
    def size(rows):
        figure = f.candidates_row(pictures(rows), pictures(rows, 8, 8), [pictures(5, 8, 8)] * rows, [list("abcde")] * rows,
                                  [[None] * 5] * rows)  # fmt: skip
        return figure.get_size_inches()

    one, four = size(1), size(4)
    assert one[0] == four[0] == pytest.approx(WIDTH_IN)
    assert 3 * one[1] < four[1] < 4 * one[1]


@pytest.mark.parametrize(
    "change",
    [
        {"picture": []}, {"picture": pictures(2)}, {"tiles": [[]], "captions": [[]], "right": [[]]},
        {"captions": [["a"]]}, {"right": [[True]]}, {"titles": ["a", "b"]}, {"picture": pictures(1)[:, :1]},
        {"tiles": [pictures(6, 8, 8)], "captions": [list("abcdef")], "right": [[None] * 6]},
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_are_told(change) -> None:
    given = {"picture": pictures(1), "top_view": pictures(1, 8, 8), "tiles": [pictures(2, 8, 8)], "captions": [["a", "b"]],
             "right": [[True, None]]}  # fmt: skip
    f.candidates_row(**given)
    with pytest.raises(InputError, match="candidates"):
        f.candidates_row(**(given | change))


def test_five_rows_are_too_many() -> None:
    with pytest.raises(InputError, match="1 to 4"):
        f.candidates_row(pictures(5), pictures(5, 8, 8), [pictures(1, 8, 8)] * 5, [["a"]] * 5, [[None]] * 5)


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
    assert left.lines[1].get_ydata().tolist() == [20, 50, 50, 40]
    assert right.lines[1].get_ydata().tolist() == [0.01, 0.03, 0.02, 0.05]
    assert marked(left) == (2, 50)  # the later of equals
    assert marked(right) == (2, 0.02)
    assert left.get_title() == "pictures with a mutual match (%)\n20.0 as they came, 50.0 in the chosen round"
    assert right.get_title().endswith("0.0100 as they came, 0.0200 in the chosen round")
    assert [t.get_text() for t in left.get_xticklabels()] == ["as they\ncame", "1", "2", "3"]


def test_another_round_can_be_the_chosen_one() -> None:
    figure = f.quality_rounds(rounds((0.2, 0.01), (0.5, 0.03)), chosen=0)
    assert [marked(axes) for axes in figure.axes] == [(0, 20), (0, 0.01)]


def test_one_round_and_thirty() -> None:
    assert marked(f.quality_rounds(rounds((0.25, 0.01))).axes[0]) == (0, 25)
    ticks = f.quality_rounds(rounds(*[(0.01 * n, 0.0) for n in range(30)])).axes[0].get_xticks()
    assert ticks.tolist() == list(range(0, 30, 3))


def test_rounds_that_cannot_be_drawn_are_told() -> None:
    with pytest.raises(InputError, match="one or more"):
        f.quality_rounds([])
    with pytest.raises(InputError, match="finite"):
        f.quality_rounds(rounds((float("nan"), 0.1)))
    for chosen in (-1, 1):
        with pytest.raises(InputError, match="0 to 0"):
            f.quality_rounds(rounds((0.2, 0.1)), chosen=chosen)


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
