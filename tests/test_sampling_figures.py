"""Figures of sampling: what is drawn is what was given, with one place, all drawn, nobody known, seeds, gaps."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from ucvgl import sampling_figures as s
from ucvgl.lab.plots import PALETTE

mpl.use("agg")
pytestmark = pytest.mark.usefixtures("drawn_figures")


def legend_texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


# --------------------------------------------------------------------------------------------------------- pictures


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
    assert [part.get_suptitle() for part in figure.subfigs] == ["random", "near"]
    assert len(legend_texts(figure)) == 2


def test_long_rows_are_cut_and_all_drawn_need_no_second_name() -> None:
    tiles = torch.stack([grey(k) for k in range(s.SHOWN + 5)])
    figure = s.batch_pictures({"random": tiles}, {"random": torch.ones(s.SHOWN + 5, dtype=torch.bool)})
    assert [int(a.images[0].get_array()[0, 0, 0]) for a in figure.axes] == list(range(s.SHOWN))
    assert all(framed(a) for a in figure.axes)
    assert legend_texts(figure) == ["drawn place"]


# ------------------------------------------------------------------------------------------------------------- maps

WHERE = torch.tensor([[0.0, 0.0], [3.0, 4.0], [100.0, 0.0], [100.0, 20.0], [50.0, 50.0], [9.0, 9.0]])
NAN = float("nan")


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
    assert len(axes.collections[0].get_offsets()) == 6
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_aspect()) == ("metres east", "metres north", 1)


def test_each_sampler_has_a_map_on_the_same_axes() -> None:
    batches = {"random": torch.tensor([5, 4, 3]), "near": torch.tensor([0, 1, 5])}
    figure = s.batch_map(WHERE, batches, {"random": batches["random"], "near": torch.tensor([0, 0, 0])})
    left, right = figure.axes
    assert left.get_title() == "random\n3 places, each drawn\n"  # as many lines as its neighbour
    assert right.get_title().startswith("near\n3 places, 1 drawn\njoined from 9 m")  # of 5 and 12.7 m
    assert left.get_xlim() == right.get_xlim()
    assert left.get_ylim() == right.get_ylim()
    assert not segments(left)
    assert set(drawn_at(left, "alone").values()) == {s.ALONE_COLOUR}
    assert legend_texts(figure) == ["all places", "drawn, joined by none", "drawn place", "joined that of its colour"]


def test_places_of_other_cities_are_left_out_and_counted() -> None:
    where = WHERE.clone()
    where[2:4] = NAN
    items, anchors = torch.tensor([0, 1, 2, 3, 5]), torch.tensor([0, 0, 2, 0, 2])
    axes = s.batch_map(where, {"both": items}, {"both": anchors}).axes[0]
    assert axes.get_title() == "both\n5 places, 2 drawn\njoined from 5 m away (median)\n2 not on the map"
    assert segments(axes) == [[[3, 4], [0, 0]]]
    assert len(axes.collections[0].get_offsets()) == 4
    assert set(drawn_at(axes, "joined")) == {(3, 4), (9, 9)}
    assert set(drawn_at(axes, "drawn")) == {(0, 0)}
    elsewhere = {"elsewhere": torch.tensor([2, 3])}
    axes = s.batch_map(where, elsewhere, elsewhere).axes[0]
    assert axes.get_title() == "elsewhere\n2 places, each drawn\n2 not on the map"


def test_a_drawn_place_of_another_batch_is_hollow() -> None:
    items, anchors = torch.tensor([3, 5, 1, 0]), torch.tensor([2, 2, 0, 0])  # 2 was drawn for the batch before
    figure = s.batch_map(WHERE, {"near": items}, {"near": anchors})
    axes = figure.axes[0]
    assert "4 places, 1 drawn" in axes.get_title()
    assert drawn_at(axes, "away") == {(100, 0): s.GROUP_COLOURS[0]}
    assert drawn_at(axes, "drawn") == {(0, 0): s.GROUP_COLOURS[1]}
    assert drawn_at(axes, "joined") == {(100, 20): PALETTE[0], (9, 9): PALETTE[0], (3, 4): PALETTE[1]}
    assert "drawn in another batch" in legend_texts(figure)
    where = WHERE.clone()
    where[2] = NAN
    assert not drawn_at(s.batch_map(where, {"near": items}, {"near": anchors}).axes[0], "away")
