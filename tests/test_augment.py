"""Augmentations: the paired heading turn against a scene, each change of an image by itself."""

import math
from dataclasses import replace

import pytest
import torch
from toy_sets import generator

from ucvgl import augment as a
from ucvgl.errors import InputError
from ucvgl.geometry import polar_view

NONE = a.Augmentation(*([0.0] * 11))


def test_turns_and_flips_keep_panorama_and_tile_together():
    """The polar view of a moved tile is its moved polar view, each image moved by itself."""
    tile, quarters = torch.rand(16, 3, 30, 30, dtype=torch.float64), torch.arange(16) % 4
    panorama = polar_view(tile, 16, 64)
    turned, rolled = a.turn_squares(tile, quarters), a.roll_panoramas(panorama, quarters)
    torch.testing.assert_close(polar_view(turned, 16, 64), rolled)
    torch.testing.assert_close(turned[1], torch.rot90(tile[1], 1, (1, 2)))  # counter-clockwise
    settings = replace(NONE, flip=0.5, turn=0.5)
    both = a.move_together((panorama, tile, tile), ("roll", "turn", "stay"), settings, generator(0))
    torch.testing.assert_close(polar_view(both[1], 16, 64), both[0])
    kept, mirrored = ((both[2] == image).flatten(1).all(1) for image in (tile, tile.flip(3)))
    assert (kept ^ mirrored).all()
    assert 4 < mirrored.sum() < 12


def test_colour_change_is_brightness_then_contrast_then_saturation_then_hue_then_grey():
    """Against the steps one after the other, without clipping between them."""
    images = 0.3 + 0.3 * torch.rand(6, 3, 5, 7)
    colour = (torch.rand(6, 4) * 2 - 1) * torch.tensor((0.2, 0.2, 0.2, 0.1))
    colour[5], grey = 0, torch.tensor([False, False, True, False, False, False])
    ours = a.recolour(images, colour, grey)
    weights = torch.tensor((0.299, 0.587, 0.114)).view(3, 1, 1)
    for i, image in enumerate(images):
        b, c, s, h = colour[i].tolist()
        x = image * (1 + b)
        mean = (x * weights).sum(0).mean()
        x = mean + (x - mean) * (1 + c)
        luma = (x * weights).sum(0)
        x = luma + (x - luma) * (1 + s)
        x = torch.einsum("kc,chw->khw", a.hue_matrix(torch.tensor([h * 2 * torch.pi]))[0], x)
        if grey[i]:
            x = (x * weights).sum(0).expand(3, -1, -1)
        assert torch.allclose(ours[i], x.clamp(0, 1), atol=1e-5)
    assert torch.allclose(ours[5], images[5], atol=1e-6)


@pytest.mark.parametrize("form", ["UCVGL", "Sample4Geo"])
def test_holes_are_dropped_before_the_image_moves_or_after_it(form):
    images, settings = torch.ones(8, 3, 40, 40), replace(NONE, dropout=1.0, jitter=1.0, contrast=1.0, dropout_as=form)
    aside = a.PlacementJitter(0, 0, 0.2, 1.0, "reflection")
    still, moved = (a.augment(images, settings, generator(2), placements=some) for some in ([], [aside]))
    assert images.min() == 1  # the images given are left as they were
    assert torch.equal(still == 0, moved == 0) == (form == "Sample4Geo")


@pytest.mark.parametrize(("hole", "side"), [(a.GROUND_HOLE, 2), (a.SATELLITE_HOLE, 1)])
def test_a_grid_drops_a_square_of_every_cell(hole, side):
    """Cells of 4 of 48 pixels; by the width, also where the image is half as high."""
    image, moved, steps = torch.ones(3, 24, 48), torch.ones(3, 24, 48), torch.arange(48)
    a.drop_grid(image, hole, torch.zeros(2))
    grid = steps % 4 < side
    assert torch.equal(image[0] == 0, grid[:24, None] & grid)
    assert torch.equal(image[0], image[2])
    a.drop_grid(moved, hole, torch.tensor([0.0, 0.999]))
    assert torch.equal(moved[0] == 0, grid[:24, None] & (steps % 4 >= 4 - side))


def test_rectangles_are_parts_of_both_sides_or_of_the_height():
    places = torch.zeros(5, 25)
    places[0], places[3] = 1.0, 0.0  # as high as may be, as narrow as may be; all in the corner
    for of, wide in (((40, 200), 20), ((40, 40), 4)):
        image = torch.ones(3, 40, 200)
        a.drop_rectangles(image, places, of)
        assert torch.equal(image[0] == 0, (torch.arange(40) < 8)[:, None] & (torch.arange(200) < wide))


@pytest.mark.parametrize("size", [(48, 64), (40, 80)])
def test_crops_have_the_drawn_ratio_and_area(size):
    """Coordinates as an image: what a crop shows says where it lay. Of an image twice as wide as high none of 3/4 of it fits."""
    height, width = size
    rows, columns = torch.meshgrid(torch.arange(height) / 1.0, torch.arange(width) / 1.0, indexing="ij")
    images = torch.stack([rows, columns, rows]).expand(300, 3, height, width)
    out = a.resized_crop(images, 0.75, generator(3), ratio=4 / 3)
    inside = out[:, :, 2:-2, 2:-2]
    high = (inside[:, 0, -1, 0] - inside[:, 0, 0, 0]) / (height - 5) * height
    wide = (inside[:, 1, 0, -1] - inside[:, 1, 0, 0]) / (width - 5) * width
    if size == (40, 80):
        torch.testing.assert_close(out, images, atol=1e-4, rtol=0)
        return
    area, ratio = high * wide / (height * width), wide / high
    assert 0.74 < area.min() < 0.8 < 0.9 < area.max() < 1.01
    assert 0.74 < ratio.min() < 1.05 < 1.25 < ratio.max() < 1.35


def test_each_image_is_moved_by_itself_and_within_its_bounds():
    """A bright dot half way to the right lands no farther than turn, scale and shift allow."""
    images = torch.zeros(200, 1, 65, 65)
    images[:, 0, 32, 48] = 1.0
    moved = a.jitter_placement(images, a.PlacementJitter(10, 0.1, 0.1, 1.0), generator(0))[:, 0]
    steps, weight = torch.arange(65.0), moved / moved.sum((1, 2), keepdim=True)
    distance = torch.hypot((weight.sum(1) * steps).sum(1) - 48, (weight.sum(2) * steps).sum(1) - 32)
    assert distance.max() < 16 * (1 / 0.9 - 1) + 0.1 * 32.5 / 0.9 * math.sqrt(2) + 16 / 0.9 * math.radians(10) + 1
    assert len(distance.mul(1000).round().unique()) > 150


@pytest.mark.parametrize("fov_deg", [360, 90, 1])
def test_a_field_of_view_is_so_many_columns_around_the_seam(fov_deg):
    images = torch.arange(2 * 3 * 2 * 36).view(2, 3, 2, 36)
    found = a.crop_panoramas(images, fov_deg, torch.tensor([0, 34]))
    width = max(1, round(36 * fov_deg / 360))
    assert found.shape == images.shape
    for seen, whole, first in zip(found, images, (0, 34), strict=True):
        assert torch.equal(seen.roll(-first, 2)[..., :width], whole.roll(-first, 2)[..., :width])
        assert (seen.roll(-first, 2)[..., width:] == 0).all()


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [(a.Augmentation, "turn", 1.5), (a.Augmentation, "dropout_as", "ucvgl"), (a.PlacementJitter, "probability", 1.1)],
)
def test_bad_settings(kind, name, value):
    with pytest.raises(InputError, match=name):
        kind(**{name: value})


SIZE = 32
STEPS = (torch.arange(SIZE) + 0.5) * (2 / SIZE) - 1
RADIUS = torch.hypot(STEPS[:, None], STEPS)


def test_what_is_nearer_than_every_occluder_stays():
    images = torch.rand(6, 3, SIZE, SIZE, generator=generator(1))
    out = a.smear(images, a.Occlusion(), generator())
    near = RADIUS < 0.19  # the nearest there is
    torch.testing.assert_close(out[..., near], images[..., near], atol=1e-5, rtol=0)


def test_beyond_the_horizon_the_colour_is_that_at_its_foot():
    """A tile whose colour is its radius becomes the lesser of radius and horizon, where nothing is painted."""
    far = RADIUS.clamp(max=1.0)
    settings = a.Occlusion(wall=0.0, shade=0.0, nearest=0.4, farthest=0.8)
    out = a.smear(far.expand(4, 3, SIZE, SIZE), settings, generator(3))
    error = (out[:, 0] - torch.minimum(far, a.horizon(4, SIZE, settings, generator(3)))).abs()
    inside = (RADIUS > 0.2) & (RADIUS < 0.9)
    assert error[:, inside].mean() < 0.01  # the sampling rounds where the ring of the horizon is thin
    assert error[:, inside].max() < 0.06
