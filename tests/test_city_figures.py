"""Figures of a city: squares where the candidates are, frames where the truth is known, the chosen round."""

import csv
import math

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image

from ucvgl import city_figures as f
from ucvgl.errors import InputError
from ucvgl.lab.plots import WIDTH_IN
from ucvgl.locate.adapt import Round
from ucvgl.locate.candidates import cut
from ucvgl.locate.map_page import Background
from ucvgl.locate.tiles import open_mosaic
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


# ------------------------------------------------------------------------------------------------------------- the stride


def test_the_count_is_that_of_a_cut_mosaic(tmp_path) -> None:
    with (tmp_path / "tiles.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "latitude", "longitude", "metres_per_pixel"])
        for number, (east, north) in enumerate([(-64, -64), (64, -64), (-64, 64), (64, 64), (192, 64), (192, -64)]):
            Image.new("RGB", (32, 32)).save(tmp_path / f"{number}.png")
            table.writerow([f"{number}.png", *from_metres(np.array([[east, north]]), (45.0, -30.0))[0], 4.0])
    mosaic = open_mosaic(tmp_path, tmp_path / "tiles.csv")
    extent = tuple(np.subtract(*mosaic.bounds_m[::-1]).tolist())
    assert extent == pytest.approx((384, 256), abs=0.1)
    for span, stride in ((50, 12.5), (50, 25), (40, 7), (100, 100), (200, 33)):
        tiles = cut(mosaic, span, stride, 8, least_covered=0.01)
        assert f.candidate_count(extent, span, stride) == len(tiles) + tiles.left_out
    assert f.candidate_count((200.0, 100.0), 50, 50) == 4 * 2


def test_distances_agree_with_a_cell_of_points() -> None:
    line = (np.arange(1000) + 0.5) / 1000 - 0.5
    unit = np.hypot(line[:, None], line[None, :])  # a centre in the middle of its cell
    for stride in (1.0, 12.5, 25.0):
        median, most = f.nearest_centre_m(stride)
        assert median == pytest.approx(np.median(unit) * stride, rel=1e-3)
        assert most == pytest.approx(unit.max() * stride, rel=2e-3)
        radii = np.linspace(0, 0.8 * stride, 23)
        counted = [(unit * stride <= r).mean() for r in radii]
        assert f.share_within(radii, stride) == pytest.approx(counted, abs=2e-4)
        assert float(f.share_within(median, stride)) == pytest.approx(0.5)
        assert float(f.share_within(most, stride)) == pytest.approx(1)
    assert float(f.share_within(5, 10)) == pytest.approx(math.pi / 4)


def looked(look):
    """The sentence, and the figure."""
    return next(iter(look.items()))


def test_a_wider_stride_has_fewer_candidates_and_ground_that_is_never_right() -> None:
    text, figure = looked(f.stride_look((400.0, 300.0), 12.5, 50.0, start_m=50.0))
    assert text == (
        "609 candidates; a place is 5.0 m (median) and at most 8.8 m from the nearest centre, 100 % within 10 m"
    )
    assert not figure.axes[0].images[0].get_array().any()
    text, figure = looked(f.stride_look((400.0, 300.0), 25.0, 50.0, start_m=50.0))
    assert text == (
        "165 candidates; a place is 10.0 m (median) and at most 17.7 m from the nearest centre, 50 % within 10 m"
    )
    ground, curve = figure.axes
    assert ground.images[0].get_array().mean() == pytest.approx(0.5, abs=0.02)
    assert ground.get_title() == "two neighbours share 50 % of their ground"
    assert [square.get_width() for square in rectangles(ground)] == [50, 50]
    assert curve.lines[1].get_xdata()[0] == pytest.approx(9.97, abs=0.01)
    assert looked(f.stride_look((400.0, 300.0), 25.0, 100.0, start_m=50.0))[0].startswith(
        "117 candidates; a place is 10.0 m"
    )


@pytest.mark.parametrize("stride_m", [2.5, 50.0])
@pytest.mark.parametrize("span_m", [25.0, 60.0])
def test_the_ends_of_the_sliders_can_be_drawn(stride_m, span_m) -> None:
    _, figure = looked(f.stride_look((60.0, 1000.0), stride_m, span_m, start_m=50.0, radius_m=40.0))
    assert figure.axes[1].get_xlim()[1] == pytest.approx(48)


# ----------------------------------------------------------------------------------------------------------- the certainty

P, RIGHT = np.array([0.95, 0.9, 0.6, 0.4, 0.1]), np.array([1, 0, 1, 0, 1])
UNKNOWN = np.full(5, np.nan)


@pytest.mark.parametrize(
    ("right", "least", "text"),
    [
        (RIGHT, 0.9, "2 of 5 pictures (40 %) are 90 % sure or more; claimed right 92.5 %, truly right 50.0 %: "
                     "42.5 points apart"),
        (RIGHT, 0.5, "3 of 5 pictures (60 %) are 50 % sure or more; claimed right 81.7 %, truly right 66.7 %: "
                     "15.0 points apart"),
        (RIGHT, 1.0, "0 of 5 pictures (0 %) are 100 % sure or more"),
        (np.where(np.arange(5) % 4 == 0, RIGHT, np.nan), 0.9, "2 of 5 pictures (40 %) are 90 % sure or more; claimed right "
         "95.0 %, truly right 100.0 % (of 1 of known truth): 5.0 points apart"),
        (UNKNOWN, 0.9, "2 of 5 pictures (40 %) are 90 % sure or more; claimed right 92.5 %; the truth is not known"),
        (np.where(np.arange(5) == 4, 1, np.nan), 0.9,
         "2 of 5 pictures (40 %) are 90 % sure or more; the truth is known of none of these"),
    ],
)  # fmt: skip
def test_what_is_claimed_and_true_of_five(right, least, text) -> None:
    assert looked(f.certainty_look(P, right, least))[0] == text


def test_claims_agree_with_a_loop() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(60).round(2)
    y = np.where(rng.random(60) < 0.3, np.nan, rng.random(60) < p)
    for least in (0.0, 0.25, 0.5, float(p.max())):
        placed = [i for i in range(60) if p[i] >= least]
        known = [i for i in placed if not np.isnan(y[i])]
        found = f._claims(p, y, least)
        assert found[:2] == (len(placed), len(known))
        if known:
            assert found[2:] == pytest.approx((sum(p[known]) / len(known), sum(y[known]) / len(known)))


def test_the_bar_holds_all_pictures() -> None:
    _, figure = looked(f.certainty_look(P, np.array([1, 0, np.nan, 0, 1]), 0.5))
    assert [bar.get_width() for bar in figure.axes[1].patches] == pytest.approx([20, 20, 20, 40])
    assert [text.get_text() for text in figure.legends[1].get_texts()] == [
        "right: 1", "wrong: 1", "placed, truth not known: 1", "not placed: 2",
    ]  # fmt: skip
