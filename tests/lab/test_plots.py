"""Figures: shapes go in, figures come out, and each shows what it is given."""

import matplotlib as mpl
import numpy as np
import torch
from PIL import ImageColor

from ucvgl.lab import plots

mpl.use("agg")


def test_number_maps_write_every_number_in_its_place(drawn_figures):
    figure = plots.number_maps({"a": torch.tensor([[1.4, 2.6], [3.0, 4.0]]), "b": torch.zeros(2, 2)})
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    texts = sorted(figure.axes[0].texts, key=lambda text: (text.get_position()[1], text.get_position()[0]))
    assert [text.get_text() for text in texts] == ["1", "3", "3", "4"]


def test_a_strip_keeps_each_shape_and_may_be_framed():
    pictures = [torch.zeros(3, 20, 40), torch.full((3, 8, 8), 0.5), torch.full((3, 30, 10), 255, dtype=torch.uint8)]
    strip, edge = plots.strip(pictures), plots.STRIP_PX
    assert strip.shape == (3, edge, 2 * edge + edge + edge // 3)
    assert [int(strip[0, edge // 2, x]) for x in (edge, 2 * edge + edge // 2, 3 * edge + 20)] == [0, 128, 255]
    changed = (plots.strip(pictures, "#ff0000", frame_px=6) != strip).any(0)
    assert changed[:6].all()
    assert changed[:, -6:].all()
    assert not changed[6:-6, 6:-6].any()


def test_ranked_pictures_carry_a_mark_besides_the_colour():
    gallery = torch.arange(0, 200, 40, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 8, 16)
    found = plots.ranked(gallery, torch.tensor([4, 1, 2]), [1.0, 0.0, np.nan])
    assert list(found) == ["1, right", "2, wrong", "3"]
    assert [int(picture[0, 150, 300]) for picture in found.values()] == [160, 40, 80]
    corners = [tuple(picture[:, -1, -1].tolist()) for picture in found.values()]
    assert corners == [*map(ImageColor.getrgb, (plots.RIGHT_COLOUR, plots.WRONG_COLOUR)), (80, 80, 80)]
    tick, cross, none = ((picture == 255).all(0) for picture in found.values())
    assert [bool(mark.any()) for mark in (tick, cross, none)] == [True, True, False]
    assert not torch.equal(tick, cross)
