"""Figures of located pictures: places where they are, colours by probability, bars and counts that are the table's."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from geo_inputs import at, place

from ucvgl.locate import map_figures as f
from ucvgl.locate.map_page import Background
from ucvgl.metrics import calibration_error, reliability

mpl.use("agg")
pytestmark = pytest.mark.usefixtures("drawn_figures")


PLACES = [place("a.jpg", 0.9, 100, 0), place("b.jpg", 0.1, 0, 200), place("c.jpg", 0.5, 300, 400)]


def background():
    (south, west), (north, east) = at(0, 0), at(400, 400)
    return Background(torch.zeros(3, 8, 8, dtype=torch.uint8), south, west, north, east)


def test_places_stand_where_they_are_the_most_probable_on_top():
    figure = f.result_map(PLACES, background())
    axes = figure.axes[0]
    dots = axes.collections[-1]
    assert dots.get_array().tolist() == [0.1, 0.5, 0.9]
    apart = np.diff(dots.get_offsets().data, axis=0)
    assert apart == pytest.approx(np.array([[300, 200], [-200, -400]]), abs=0.1)
    left, right, low, high = axes.images[0].get_extent()
    assert (right - left, high - low) == pytest.approx((400, 400), abs=0.5)
    first = dots.get_offsets().data[2]
    assert (first[0] - left, first[1] - low) == pytest.approx((100, 0), abs=0.5)
    (bar,) = axes.lines
    assert np.ptp(bar.get_xdata()) == pytest.approx(100)
    assert [text.get_text() for text in axes.texts] == ["100 m; north is up"]
    assert figure.axes[1].get_ylabel() == "probability of the place"


def test_lines_lead_to_the_known_positions_alone():
    figure = f.result_map(PLACES, background(), truth={"a.jpg": at(130, 40), "c.jpg": at(300, 1400)})
    axes = figure.axes[0]
    lines = [c for c in axes.collections if isinstance(c, mpl.collections.LineCollection)]
    ends = np.array(lines[0].get_segments())
    assert np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1) == pytest.approx([50, 1000], abs=0.1)
    assert axes.get_ylim()[1] > ends[:, :, 1].max()  # a position beyond the mosaic is still shown


@pytest.mark.parametrize(
    ("metres", "length"), [(0.3, 0.2), (1, 1), (4.9, 2), (5, 5), (99, 50), (1000, 1000), (2600, 2000)]
)
def test_round_lengths(metres, length):
    assert f.round_length(metres) == pytest.approx(length)


def test_the_diagram_shows_the_tables_numbers():
    rng = np.random.default_rng(0)
    p = rng.random(200)
    y = (rng.random(200) < p).astype(float)
    y[:20] = np.nan
    figure = f.reliability_diagram({"a city": (p, y), "another": (p, np.zeros(200))}, bins=5)
    upper, _, lower, _ = figure.axes
    table = reliability(p, y, 5)
    points = upper.containers[0].lines[0]
    assert points.get_xdata() == pytest.approx(table["claimed"])
    assert points.get_ydata() == pytest.approx(table["true"])
    assert [text.get_text() for text in upper.texts] == ["36"] * 5
    assert upper.get_title() == f"a city\ncalibration error {100 * calibration_error(p, y, 5):.1f} points"
    right, wrong = ([bar.get_height() for bar in bars] for bars in lower.containers)
    assert sum(right) == np.nansum(y)
    assert sum(right) + sum(wrong) == 180
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["right", "wrong"]


def test_a_diagram_of_one_picture():
    f.reliability_diagram({"one": (np.array([0.5]), np.array([1.0]))})
