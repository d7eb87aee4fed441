"""Street pictures north up: whatever their shape and heading, what comes out is what a camera that faces north shows."""

import pytest
import torch
from geo_inputs import seamless

from ucvgl.errors import InputError
from ucvgl.geometry import complete_panorama, perspective_view, photo_top_view, top_view
from ucvgl.locate import pictures as street
from ucvgl.locate.pictures import Picture, StreetConfig

CONFIG = StreetConfig(size_px=(24, 24), span_m=20.0)
NORTH = torch.zeros(1, dtype=torch.float64)
WHOLE = seamless(64, 128)


def north_up(image, kind, headings_deg, config, fov_deg=None):
    """A picture of which nothing else is known."""
    picture = Picture("a.jpg", kind, image.shape[2], image.shape[1], fov_deg or 360)
    return street.north_up(image, picture, headings_deg, config)


def apart(a, b):
    return float((a.float() - b.float()).abs().mean())


@pytest.mark.parametrize("given", ["top view", "panorama"])
@pytest.mark.parametrize("columns", [16, 32, 100])
def test_a_turned_panorama_gives_the_same(given, columns):
    """Rolled to the left by h / 360 of its width its centre shows heading h."""
    config = StreetConfig(given, (24, 24) if given == "top view" else (16, 32), 20.0)
    turned = WHOLE.roll(-columns, 2)
    heading = torch.tensor([columns / 128 * 360], dtype=torch.float64)
    expected = north_up(WHOLE, "panorama", NORTH, config)
    assert apart(north_up(turned, "panorama", heading, config), expected) < 0.6
    assert apart(north_up(turned, "panorama", NORTH, config), expected) > 3
    assert apart(north_up(turned, "panorama", -heading, config), expected) > 3


def test_a_photo_gives_its_sector():
    whole = seamless(128, 256)
    photo = perspective_view(whole[None], (60, 80), 90.0, 40.0)[0]
    turns = torch.tensor([40.0, 130.0], dtype=torch.float64)
    found = north_up(photo, "photo", turns, CONFIG, fov_deg=90.0)
    assert found.shape == (2, 3, 24, 24)
    expected = top_view(whole[None], CONFIG.top_view)[0]
    seen = photo_top_view(torch.ones(1, 1, 60, 80), 90.0, CONFIG.top_view, heading_deg=turns[:1])[0, 0] > 0
    assert 50 < seen.sum() < 24 * 24 / 3
    assert apart(found[0][:, seen], expected[:, seen]) < 3
    assert bool((found[0][:, ~seen] == 0).all())
    assert apart(found[1], found[0].rot90(-1, (1, 2))) < 1  # a quarter further clockwise, from above


@pytest.mark.parametrize(("offset", "width"), [(0, 128), (5, 128), (0, 129)])
def test_a_cropped_panorama_is_completed(offset, width):
    strip = seamless(64, width)[:, 16 - offset : 48 - offset]  # the horizon, row 32, is `offset` rows below its middle
    config = StreetConfig(size_px=(24, 24), span_m=20.0, crop_offset_px=offset)
    found = north_up(strip, "panorama", NORTH, config)
    even = strip[None, :, :, :128]
    assert apart(found, top_view(complete_panorama(even, strip_offset=offset / 128), config.top_view)) < 0.1
    if width == 128:
        white = complete_panorama(torch.full_like(even, 255), strip_offset=offset / 128)
        seen = top_view(white, config.top_view)[0] == 255
        assert seen.sum() > 300
        assert apart(found[0][seen], top_view(WHOLE[None], config.top_view)[0][seen]) < 0.6


@pytest.mark.parametrize(("height", "width"), [(64, 128), (64, 126), (64, 127), (64, 130), (63, 128), (65, 128)])
def test_a_panorama_that_is_nearly_whole_is_taken_as_whole(height, width):
    """`check_ground` takes an aspect of 1.96 to 2.04 as a whole panorama; 1.97 once failed, as a crop too high."""
    found = north_up(seamless(height, width), "panorama", NORTH, CONFIG)
    assert (found.shape, found.dtype) == ((1, 3, 24, 24), torch.uint8)
    assert apart(found, top_view(WHOLE[None], CONFIG.top_view)) < (0.1 if (height, width) == (64, 128) else 3)
    assert bool((found.flatten(2).amax(2) > 0).all())


@pytest.mark.parametrize(
    ("kind", "height", "fov", "settings", "says"),
    [
        ("panorama", 32, None, {"crop_offset_px": 40}, "40 px above the horizon"),
        ("photo", 96, 180.0, {}, "fov_deg"),
        ("photo", 96, 80.0, {"given": "panorama"}, "panoramas, which this encoder reads"),
    ],
)
def test_what_cannot_be_projected_is_told(kind, height, fov, settings, says):
    with pytest.raises(InputError, match=says):
        north_up(seamless(height, 128), kind, NORTH, StreetConfig(**settings), fov)
