"""Street pictures north up: whatever their shape and heading, what comes out is what a camera that faces north shows."""

import numpy as np
import pytest
import torch
from PIL import Image

from ucvgl.augment import roll_panoramas
from ucvgl.data.decoding import resize
from ucvgl.errors import InputError
from ucvgl.geometry import complete_panorama, perspective_view, photo_top_view, top_view
from ucvgl.locate import views as street
from ucvgl.locate.pictures import Picture, check_ground
from ucvgl.locate.views import StreetConfig, align_north, street_views

CONFIG = StreetConfig(size_px=(24, 24), span_m=20.0)
NORTH = torch.zeros(1, dtype=torch.float64)


def north_up(image, kind, headings_deg, config, fov_deg=None):
    """A picture of which nothing else is known."""
    picture = Picture("a.jpg", kind, image.shape[2], image.shape[1], fov_deg)
    return street.north_up(image, picture, headings_deg, config)


def panorama(height=64, width=None, seed=0):
    """Blobs of all colours, without a seam: uint8 (3, H, W)."""
    width = width or 2 * height
    small = torch.rand(1, 3, 4, 9, generator=torch.Generator().manual_seed(seed))
    small[..., -1] = small[..., 0]
    large = torch.nn.functional.interpolate(small, (height, width), mode="bilinear", align_corners=True)
    return (255 * large[0]).round().byte()


def apart(a, b):
    return float((a.float() - b.float()).abs().mean())


def test_a_panorama_gives_its_top_view():
    picture = panorama()
    found = north_up(picture, "panorama", NORTH, CONFIG)
    assert found.shape == (1, 3, 24, 24)
    assert found.dtype == torch.uint8
    assert apart(found, top_view(picture[None], CONFIG.top_view)) < 0.1
    assert CONFIG.top_view.span_m == pytest.approx(20)
    higher = north_up(picture, "panorama", NORTH, StreetConfig(size_px=(24, 24), span_m=20.0, camera_height_m=5.0))
    assert apart(found, higher) > 3


@pytest.mark.parametrize("given", ["top view", "panorama"])
@pytest.mark.parametrize("columns", [16, 32, 100])
def test_a_turned_panorama_gives_the_same(given, columns):
    """Rolled to the left by h / 360 of its width its centre shows heading h."""
    picture = panorama()
    config = StreetConfig(given, (24, 24) if given == "top view" else (16, 32), 20.0)
    turned = picture.roll(-columns, 2)
    heading = torch.tensor([columns / 128 * 360], dtype=torch.float64)
    expected = north_up(picture, "panorama", NORTH, config)
    assert apart(north_up(turned, "panorama", heading, config), expected) < 0.6
    assert apart(north_up(turned, "panorama", NORTH, config), expected) > 3
    assert apart(north_up(turned, "panorama", -heading, config), expected) > 3


def test_a_photo_gives_its_sector():
    whole = panorama(128)
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


def test_a_photo_needs_a_field_of_view_and_an_encoder_of_top_views():
    photo = panorama(64, 80)
    with pytest.raises(InputError, match="fov_deg"):
        north_up(photo, "photo", NORTH, CONFIG)
    with pytest.raises(InputError, match="panoramas, which this encoder reads"):
        north_up(photo, "photo", NORTH, StreetConfig("panorama", (16, 32)), fov_deg=80.0)


@pytest.mark.parametrize(("offset", "width"), [(0, 128), (5, 128), (0, 129)])
def test_a_cropped_panorama_is_completed(offset, width):
    strip = panorama(64, width)[:, 16 - offset : 48 - offset]  # the horizon, row 32, is `offset` rows below its middle
    config = StreetConfig(size_px=(24, 24), span_m=20.0, crop_offset_px=offset)
    found = north_up(strip, "panorama", NORTH, config)
    whole = complete_panorama(strip[None, :, :, :128], strip_offset=offset / 128)
    assert apart(found, top_view(whole, config.top_view)) < 0.1
    if width == 128:
        seen = (
            top_view(complete_panorama(torch.full_like(strip, 255)[None], strip_offset=offset / 128), config.top_view)[
                0
            ]
            == 255
        )
        assert seen.sum() > 300
        complete = top_view(panorama(64)[None], config.top_view)[0]
        assert apart(found[0][seen], complete[seen]) < 0.6


def test_an_offset_beyond_the_panorama_is_told():
    with pytest.raises(InputError, match="40 px above the horizon"):
        north_up(panorama()[:, 16:48], "panorama", NORTH, StreetConfig(size_px=(24, 24), crop_offset_px=40))


@pytest.mark.parametrize(("height", "width"), [(64, 126), (64, 127), (64, 130), (63, 128), (65, 128)])
def test_a_panorama_that_is_nearly_whole_is_taken_as_whole(height, width):
    """`check_ground` takes an aspect of 1.96 to 2.04 as a whole panorama; 1.97 once failed, as a crop too high."""
    found = north_up(panorama(height, width), "panorama", NORTH, CONFIG)
    assert apart(found, north_up(panorama(), "panorama", NORTH, CONFIG)) < 3
    assert bool((found.flatten(2).amax(2) > 0).all())


def test_panoramas_for_an_encoder_of_panoramas_are_squeezed():
    config = StreetConfig("panorama", (16, 48))
    found = north_up(panorama(), "panorama", torch.tensor([0.0, 90.0]), config)
    assert found.shape == (2, 3, 16, 48)
    assert torch.equal(found[0], resize(panorama(), (16, 48)))
    assert torch.equal(found[1], found[0].roll(12, 2))  # what was in the centre shows east, right of north


def test_views_of_a_folder_stand_in_its_order_each_at_its_headings(tmp_path, monkeypatch):
    monkeypatch.setattr(street, "BATCH", 3)
    for k in range(7):  # panoramas, of two shapes
        pixels = panorama(64 if k % 2 else 32, 128, seed=k).permute(1, 2, 0).numpy()
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / f"{k}.png")
    Image.new("RGB", (80, 60), (255, 255, 255)).save(tmp_path / "3a.png")  # a photo between them
    (tmp_path / "4a.png").write_bytes(b"no picture")
    ground = check_ground(tmp_path, fov_deg=80.0)
    headings = [torch.tensor([30.0 * k, -50.0]) for k in range(7)]
    parts = list(street_views(ground, ground.of_kind("panorama"), headings, CONFIG))
    assert [rows for rows, _ in parts] == [slice(0, 3), slice(3, 6), slice(6, 7)]
    for k, views in enumerate(torch.cat([part for _, part in parts])):
        assert torch.equal(views, north_up(panorama(64 if k % 2 else 32, 128, seed=k), "panorama", headings[k], CONFIG))
    ((rows, photo),) = street_views(ground, ground.of_kind("photo"), [NORTH], CONFIG)
    assert rows == slice(0, 1)
    assert sorted(set(photo.unique().tolist())) == [0, 255]


@pytest.mark.parametrize(
    ("settings", "says"), [({"size_px": (32, 64)}, "square"), ({"camera_height_m": 0.0}, "camera")]
)
def test_bad_settings(settings, says):
    with pytest.raises(InputError, match=says):
        StreetConfig(**settings)


def test_alignment_brings_north_to_the_centre():
    width = 36
    azimuth = (torch.arange(width) + 0.5) / width * 360 - 180  # what a north-aligned panorama's columns show
    for heading in (0.0, 90.0, 180.0, 270.0, 350.0, -20.0, 723.0):
        seen = (azimuth + heading + 180) % 360 - 180  # the same columns, turned
        image = seen.expand(1, 3, 4, width)
        aligned = align_north(image, torch.tensor([heading]))[0, 0, 0]
        off = (aligned - azimuth + 180) % 360 - 180
        assert off.abs().max() <= 5.0 + 1e-3  # half a column
    images = torch.arange(2 * 3 * 2 * 8).reshape(2, 3, 2, 8)
    # a camera that faced east saw what one that faces north sees a quarter to its right
    assert torch.equal(align_north(roll_panoramas(images, torch.tensor([1, 1])), torch.tensor([90.0, 90.0])), images)
