"""Maps for paper: places and candidates where they are, colours by probability, the best ringed, the truth crossed."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from geo_inputs import at, place, table

from ucvgl.locate import figures as f
from ucvgl.locate.map_page import Background

mpl.use("agg")
pytestmark = pytest.mark.usefixtures("drawn_figures")
(SOUTH, WEST), (NORTH, EAST) = at(0, 0), at(400, 400)
BACKGROUND = Background(torch.zeros(3, 8, 8, dtype=torch.uint8), SOUTH, WEST, NORTH, EAST)
PLACES = table(place("a.jpg", 0.9, 100, 0), place("b.jpg", 0.1, 0, 200), place("c.jpg", 0.5, 300, 400))


def test_places_stand_where_they_are_the_most_probable_on_top():
    figure = f.result_map(PLACES, BACKGROUND)
    axes = figure.axes[0]
    dots = axes.collections[-1]
    assert dots.get_array().tolist() == [0.1, 0.5, 0.9]
    apart = np.diff(dots.get_offsets().data, axis=0)
    assert apart == pytest.approx(np.array([[300, 200], [-200, -400]]), abs=0.1)
    left, right, low, high = axes.images[0].get_extent()
    assert (right - left, high - low) == pytest.approx((400, 400), abs=0.5)
    first = dots.get_offsets().data[2]
    assert (first[0] - left, first[1] - low) == pytest.approx((100, 0), abs=0.5)
    assert axes.artists[0].txt_label.get_text() == "100 m; north is up"
    assert figure.axes[1].get_ylabel() == "probability of the place"


def test_lines_lead_to_the_known_positions_alone():
    figure = f.result_map(PLACES, BACKGROUND, truth={"a.jpg": at(130, 40), "c.jpg": at(300, 1400)})
    axes = figure.axes[0]
    lines = [c for c in axes.collections if isinstance(c, mpl.collections.LineCollection)]
    ends = np.array(lines[0].get_segments())
    assert np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1) == pytest.approx([50, 1000], abs=0.1)
    assert axes.get_ylim()[1] > ends[:, :, 1].max()  # a position beyond the mosaic is still shown


@pytest.mark.parametrize(("metres", "length"), [(0.3, 0.2), (1, 1), (4.9, 2), (99, 50), (1000, 1000), (2600, 2000)])
def test_round_lengths(metres, length):
    assert f.round_length(metres) == pytest.approx(length)


@pytest.mark.parametrize("known", [True, False])
def test_the_best_candidate_is_ringed_and_a_known_truth_crossed(known):
    metres = 12.5 * np.stack(np.meshgrid(np.arange(25), np.arange(25)), -1).reshape(-1, 2)
    centres = np.array([at(*where) for where in metres])
    p = np.full(len(metres), 1e-9)
    p[[7, 300]] = 0.2, 0.7
    figure = f.likelihood_maps({"alone": p, "drive": p[::-1]}, BACKGROUND, centres, truth=at(50, 60) if known else None)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["alone", "drive"]
    for axes, best in zip(figure.axes[:2], (300, len(metres) - 1 - 300), strict=True):
        dots, ring, *cross = axes.collections
        left, low = axes.images[0].get_extent()[::2]
        assert len(dots.get_offsets()) == 2  # the others are a thousandth of the best, or less
        assert np.allclose(ring.get_offsets()[0] - (left, low), metres[best], atol=0.2)
        assert len(cross) == known
        assert all(np.allclose(c.get_offsets()[0] - (left, low), [50, 60], atol=0.2) for c in cross)
