"""A control is moved and the map, the pictures and the caption change."""

import io
import json

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from ipywidgets import embed
from PIL import Image, ImageColor

from ucvgl import sampling_widgets as w
from ucvgl.errors import InputError
from ucvgl.sampling_figures import ALONE_COLOUR, GROUP_COLOURS

mpl.use("agg")

N, B = 40, 16
GENERATOR = torch.Generator().manual_seed(0)
WHERE = torch.rand(N, 2, generator=GENERATOR) * 700
RANDOM = torch.stack([torch.randperm(N, generator=GENERATOR)[:B] for _ in range(3)])
NEAR = torch.stack([torch.arange(B), torch.arange(B) + 20])
BATCHES = {"random": RANDOM, "near": NEAR}
ANCHORS = {"near": NEAR - NEAR % 4}


def pictures(count, height, width):
    """Pictures of one grey each: 6 times their number."""
    return (6 * torch.arange(count)).to(torch.uint8)[:, None, None, None].expand(count, 3, height, width)


def parts(**settings):
    good = {"tiles": pictures(N, 16, 16), "ground": pictures(N, 16, 32), "where": WHERE, "batches": BATCHES,
            "anchors": ANCHORS}  # fmt: skip
    controls, caption, shown = w.batch_browser(**{**good, **settings}).children
    return *controls.children, caption, *shown.children


def pixels(picture):
    return np.asarray(Image.open(io.BytesIO(picture.value)).convert("RGB"), dtype=float)


def cell(picture, number):
    """One cell of the grid: its right edge's and left edge's colour, the grey of its ground image and of its tile."""
    width, height = w.CELL_PX
    left, top = number % w.COLUMNS * (width + w.EDGE_PX), number // w.COLUMNS * (height + w.EDGE_PX)
    image, middle = pixels(picture)[top : top + height, left : left + width], height // 2
    return image[middle, -3], image[middle, 2], image[middle, w.TILE_PX].mean(), image[middle, -w.TILE_PX // 2].mean()


def near(colour, name):
    return float(np.abs(colour - ImageColor.getrgb(name)).max()) < 40  # JPEG


def test_both_controls_change_both_pictures_and_the_caption() -> None:
    sampler, slider, caption, chart, images = parts()
    assert sampler.options == ("random", "near")
    assert (slider.value, slider.max) == (0, 2)
    assert caption.value == "batch 1 of 3: 16 places, each drawn; the first 12 are shown"
    seen = [(chart.value, images.value, caption.value)]
    slider.value = 2
    seen.append((chart.value, images.value, caption.value))
    sampler.value = "near"
    seen.append((chart.value, images.value, caption.value))
    assert (slider.value, slider.max) == (0, 1)  # as many as this sampler has
    assert caption.value.startswith("batch 1 of 2: 16 places, 4 drawn; joined from ")
    slider.value = 1
    seen.append((chart.value, images.value, caption.value))
    assert all(len(set(kind)) == 4 for kind in zip(*seen, strict=True))
    sampler.value = "random"
    assert (chart.value, images.value, caption.value) == seen[0]
    assert not plt.get_fignums()  # nothing left for the notebook to show once more


def test_one_move_draws_once(monkeypatch) -> None:
    sampler, slider, *_ = parts()
    slider.value = 2
    calls, grid_picture = [], w._grid_picture
    monkeypatch.setattr(w, "_grid_picture", lambda *rest: calls.append(1) or grid_picture(*rest))
    sampler.value = "near"  # moves the slider too
    assert len(calls) == 1
    slider.value = 1
    assert len(calls) == 2


def test_cells_show_the_batch_in_its_order() -> None:
    sampler, slider, _, _, images = parts()
    for name, batch in (("random", 1), ("near", 0), ("near", 1)):
        sampler.value, slider.value = name, batch
        for number, place in enumerate(BATCHES[name][batch, : w.CELLS].tolist()):
            _, _, ground, tile = cell(images, number)
            assert (ground, tile) == pytest.approx((6 * place, 6 * place), abs=3)


def test_the_map_keeps_the_colours_of_a_few_dots() -> None:
    sampler, _, _, chart, _ = parts()
    sampler.value = "near"
    shown = pixels(chart).reshape(-1, 3)
    for colour in GROUP_COLOURS[:4]:  # four drawn places
        assert np.abs(shown - ImageColor.getrgb(colour)).max(1).min() < 8


def test_shared_tiles_are_found() -> None:
    tile_of = torch.arange(N) // 20
    _, _, _, _, images = parts(tiles=pictures(2, 16, 16) * 20, tile_of=tile_of)
    for number, place in enumerate(RANDOM[0, : w.CELLS].tolist()):
        assert cell(images, number)[3] == pytest.approx(120 * (place // 20), abs=3)


def test_drawn_places_have_a_frame_and_joined_ones_a_stripe_of_its_colour() -> None:
    sampler, _, _, _, images = parts()
    assert all(near(edge, ALONE_COLOUR) for number in range(4) for edge in cell(images, number)[:2])
    sampler.value = "near"
    for number in range(w.CELLS):
        right, left, *_ = cell(images, number)
        assert near(left, GROUP_COLOURS[number // 4])
        assert near(right, GROUP_COLOURS[number // 4] if number % 4 == 0 else "white")


@pytest.mark.parametrize(("height", "width"), [(8, 64), (64, 8), (16, 16), (100, 300)])
def test_ground_images_of_any_shape_fit_their_cell(height, width) -> None:
    _, _, _, _, images = parts(ground=pictures(N, height, width))
    rows = w.CELLS // w.COLUMNS
    assert pixels(images).shape[:2] == (
        rows * (w.CELL_PX[1] + w.EDGE_PX),
        w.COLUMNS * (w.CELL_PX[0] + w.EDGE_PX),
    )
    assert cell(images, 0)[2:] == pytest.approx([6 * int(RANDOM[0, 0])] * 2, abs=3)


def test_a_small_batch_and_places_of_another_city() -> None:
    where = WHERE.clone()
    where[:2] = torch.nan
    _, slider, caption, chart, images = parts(batches={"one": torch.tensor([[0, 1, 5]])}, anchors=None, where=where)
    assert slider.max == 0
    assert caption.value == "batch 1 of 1: 3 places, each drawn; 2 not on the map; the first 3 are shown"
    assert chart.value
    assert pixels(images).shape[0] == 2 * (w.CELL_PX[1] + w.EDGE_PX)


def test_the_browser_keeps_a_notebook_small() -> None:
    generator = torch.Generator().manual_seed(1)
    ground = torch.rand(N, 3, 16, 32, generator=generator)  # busier than a panorama of the world: that takes two thirds
    ground = torch.nn.functional.interpolate(ground, (128, 256), mode="bilinear")
    near = {"near": torch.randint(1000, (1, 128), generator=generator)}
    box = w.batch_browser(
        ground[..., :128],
        ground.repeat(25, 1, 1, 1),
        torch.rand(1000, 2, generator=generator) * 700,
        near,
        anchors={"near": near["near"][:, [0, 64]].repeat_interleave(64, 1)},
        tile_of=torch.arange(1000) % N,
    )
    state = embed.embed_data(views=[box], state=embed.dependency_state([box]))
    assert len(json.dumps(state)) < 150_000, [len(p.value) for p in box.children[2].children]


@pytest.mark.parametrize(
    "fault",
    [
        {"tiles": pictures(3, 4, 4)},
        {"where": WHERE[:3]},
        {"where": WHERE * torch.nan},
        {"tile_of": torch.arange(3)},
        {"tile_of": torch.arange(N) + 1},
        {"tile_of": torch.arange(N) - 1},
        {"tile_of": torch.arange(N).float()},
        {"batches": {}},
        {"batches": {"near": NEAR[0]}},
        {"batches": {"near": NEAR + 10}},
        {"batches": {"near": NEAR[:0]}, "anchors": None},
        {"anchors": {"near": NEAR[:1]}},
        {"anchors": {"else": NEAR}},
        {"anchors": {"near": NEAR - 9}},
    ],
)
def test_what_does_not_fit_is_told(fault) -> None:
    with pytest.raises(InputError, match="batch browser"):
        parts(**fault)
