"""Augmentations: the paired heading turn against a scene, each change of an image by itself."""

import math
from dataclasses import replace

import pytest
import torch

from ucvgl import augment as a
from ucvgl.errors import InputError

NONE = a.Augmentation(*([0.0] * 11))


def scene(bearing_deg, width=64, side=32):
    """A panorama and a tile in which one object stands at a bearing (clockwise from north) of the camera."""
    panorama, tile = torch.zeros(1, 3, 16, width), torch.zeros(1, 3, side, side)
    column = int(((bearing_deg / 360 + 0.5) % 1) * width)  # north in the centre column, east to the right
    panorama[..., 8:12, column] = 1
    angle = torch.deg2rad(torch.tensor(float(bearing_deg)))
    row, col = side / 2 - 0.5 - 10 * angle.cos(), side / 2 - 0.5 + 10 * angle.sin()  # up is north, right is east
    tile[..., int(row.round()), int(col.round())] = 1
    return panorama, tile


def bearing_in_panorama(panorama):
    column = int(panorama[0, 0, 9].argmax())
    return (column / panorama.shape[3] - 0.5) % 1 * 360


def bearing_in_tile(tile):
    row, col = divmod(int(tile[0, 0].argmax()), tile.shape[3])
    centre = tile.shape[2] / 2 - 0.5
    return float(torch.rad2deg(torch.atan2(torch.tensor(col - centre), torch.tensor(centre - row)))) % 360


@pytest.mark.parametrize("bearing", [0, 90, 270])
@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
def test_a_turn_keeps_panorama_and_tile_together(bearing, quarters):
    panorama, tile = scene(bearing)
    panorama, tile = (
        a.roll_panoramas(panorama, torch.tensor([quarters])),
        a.turn_squares(tile, torch.tensor([quarters])),
    )
    expected = (bearing - 90 * quarters) % 360  # counter-clockwise: bearings decrease
    assert bearing_in_panorama(panorama) == pytest.approx(expected)
    assert abs((bearing_in_tile(tile) - expected + 180) % 360 - 180) < 5


@pytest.mark.parametrize("bearing", [0, 45, 270])
def test_a_flip_keeps_panorama_and_tile_together(bearing):
    panorama, tile = a.move_together(scene(bearing), ("roll", "turn"), replace(NONE, flip=1.0), torch.Generator())
    # the middle lies between two columns of 64
    assert abs((bearing_in_panorama(panorama) + bearing + 180) % 360 - 180) <= 360 / 64
    assert abs((bearing_in_tile(tile) + bearing + 180) % 360 - 180) < 5


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
    still, moved = (
        a.augment(images, settings, torch.Generator().manual_seed(2), placements=some) for some in ([], [aside])
    )
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
    out = a.resized_crop(images, 0.75, torch.Generator().manual_seed(3), ratio=4 / 3)
    inside = out[:, :, 2:-2, 2:-2]
    high = (inside[:, 0, -1, 0] - inside[:, 0, 0, 0]) / (height - 5) * height
    wide = (inside[:, 1, 0, -1] - inside[:, 1, 0, 0]) / (width - 5) * width
    if size == (40, 80):
        torch.testing.assert_close(out, images, atol=1e-4, rtol=0)
        return
    area, ratio = high * wide / (height * width), wide / high
    assert 0.74 < area.min() < 0.8 < 0.9 < area.max() < 1.01
    assert 0.74 < ratio.min() < 1.05 < 1.25 < ratio.max() < 1.35


def test_each_image_is_moved_by_itself_and_within_its_pose():
    """A bright dot beside the centre lands no farther than turn, scale and shift allow."""
    images = torch.zeros(200, 1, 65, 65)
    images[:, 0, 32, 48] = 1.0  # half way to the right
    moved = a.jitter_placement(images, a.PlacementJitter(10, 0.1, 0.1, 1.0), torch.Generator().manual_seed(0))[:, 0]
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
