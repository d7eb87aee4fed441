"""Geometry: hand-sized cases, py360convert as oracle, seam and poles, strips, gradients, dtypes."""

import dataclasses
import math
from unittest import mock

import py360convert
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ucvgl import geometry
from ucvgl.errors import InputError
from ucvgl.geometry import TopView, perspective_view, photo_top_view, pixel_grid, polar_view, sample_panorama, top_view

FINE = torch.float64  # where a bound is about the geometry, not about rounding


def noise(*shape: int, dtype: torch.dtype = FINE, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=FINE).to(dtype)


def fine(*values: float) -> Tensor:
    return torch.tensor(values, dtype=FINE)


# the centre is north, on the horizon; a quarter to the right is east
@pytest.mark.parametrize(
    ("column", "row", "ray"),
    [(3.5, 1.5, (0, 1, 0)), (5.5, 1.5, (1, 0, 0)), (-0.5, 1.5, (0, -1, 0)), (3.5, -0.5, (0, 0, 1)),
     (3.5, 2.5, (0, math.sqrt(0.5), -math.sqrt(0.5)))],
)  # fmt: skip
def test_panorama_pixels_look_where_the_convention_says(column, row, ray):
    found = geometry.panorama_pixel_to_ray(fine(column, row), 4)
    torch.testing.assert_close(found, fine(*ray), atol=1e-12, rtol=0)


def test_top_view_settings_by_hand():
    view = TopView.from_span(100, 4, 2)
    assert (view.fov_deg, view.span_m) == pytest.approx((90, 4))
    corner = geometry.ray_to_ground(geometry.top_view_pixel_to_ray(fine(-0.5, -0.5), view), 2.0)
    torch.testing.assert_close(corner, fine(-2, 2))  # upper left: west, north
    level = torch.tensor([[1.0, 0, 0], [0, 1, 1]])  # the horizon and the sky never meet the ground
    assert geometry.ray_to_ground(level, 1.5).isnan().all()


@given(st.builds(TopView, st.integers(1, 900), st.floats(20, 179), st.floats(0.5, 5)), st.floats(0, 1), st.floats(0, 1))
def test_a_top_view_is_a_tile_of_its_span(view, x, y):
    pixel = fine(x, y) * view.size_px - 0.5
    ground = geometry.ray_to_ground(geometry.top_view_pixel_to_ray(pixel, view), view.camera_height_m)
    back = (view.size_px - 1) / 2 + ground * fine(1, -1) * (view.size_px / view.span_m)
    torch.testing.assert_close(back, pixel, atol=1e-7, rtol=0)


@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
def test_quarter_turns_of_tile_and_panorama_belong_together(quarters):
    """A tile turned counter-clockwise by a quarter is its panorama rolled to the left by a quarter, and the reverse."""
    # an even size: straight down, in the middle of an odd one, a panorama of noise has no one value
    panorama, view = noise(2, 3, 32, 64), TopView(40, 160)
    rolled = panorama.roll(-quarters * 16, -1)
    turned = torch.rot90(top_view(panorama, view), quarters, (-2, -1))
    torch.testing.assert_close(top_view(rolled, view), turned, atol=1e-9, rtol=0)
    tile = noise(2, 3, 30, 30)
    turned = polar_view(torch.rot90(tile, quarters, (-2, -1)), 16, 64)
    torch.testing.assert_close(turned, polar_view(tile, 16, 64).roll(-quarters * 16, -1), atol=1e-9, rtol=0)


def e2p(panorama: Tensor, fov_deg: float, attitude: tuple, size: tuple[int, int]) -> Tensor:
    """Its image plane ends in pixel centres where ours ends in pixel edges: so its field of view is a bit narrower.

    It would sample with OpenCV where that is installed, which rounds places to 1/32 pixel: too coarse for an oracle.
    """
    half, (height, width) = math.tan(math.radians(fov_deg) / 2), size
    wide = 2 * math.degrees(math.atan(half * (width - 1) / width))
    high = 2 * math.degrees(math.atan(half * (height - 1) / width))
    heading, pitch, roll = attitude
    image = panorama.permute(1, 2, 0).numpy()
    with mock.patch.object(py360convert.utils, "cv2", None):
        py360convert.utils.EquirecSampler.from_perspective.cache_clear()
        view = py360convert.e2p(image, (wide, high), heading, pitch, size, in_rot_deg=roll)
    return torch.from_numpy(view).permute(2, 0, 1)


@pytest.mark.parametrize("attitude", [(0.0, 0.0, 0.0), (30.0, 10.0, 0.0), (-120.0, -35.0, 20.0), (180.0, 80.0, -70.0)])
@pytest.mark.parametrize(("size", "fov"), [(64, 90), (75, 175)])
def test_views_are_py360converts(attitude, size, fov):
    panorama = noise(1, 3, 64, 128)
    # its rays are single precision: 1e-5 of noise that spans 0 to 1
    ours = perspective_view(panorama, (40, 60), 85.0, *attitude)[0]
    torch.testing.assert_close(ours, e2p(panorama[0], 85.0, attitude, (40, 60)), atol=1e-4, rtol=0)
    above = top_view(panorama, TopView(size, fov))[0]  # looking straight down, its upper edge is north as ours
    torch.testing.assert_close(above, e2p(panorama[0], fov, (0, -90, 0), (size, size)), atol=1e-4, rtol=0)


def padded(panorama: Tensor, grid: Tensor) -> Tensor:
    """The plain way over the seam and the poles: pad by a column and a row first."""
    height, width = panorama.shape[-2:]
    half = width // 2
    whole = torch.cat([panorama[:, :, :1].roll(half, -1), panorama, panorama[:, :, -1:].roll(half, -1)], 2)
    whole = torch.cat([whole[..., -1:], whole, whole[..., :1]], 3)
    points = (2 * (grid + 1) + 1) / torch.tensor([width + 2, height + 2]) - 1
    return torch.nn.functional.grid_sample(whole, points.expand(len(panorama), -1, -1, -1), align_corners=False)


def test_seam_and_poles_against_a_padded_copy():
    panorama, grid = noise(2, 3, 16, 32), noise(2, 60, 60, 2, seed=2) * torch.tensor([32, 16]) - 0.5
    for some in (grid, grid[:1]):  # a grid for each, and one for both
        torch.testing.assert_close(sample_panorama(panorama, some), padded(panorama, some), atol=1e-12, rtol=0)
        away = sample_panorama(panorama.roll(7, -1), some + torch.tensor([7 + 64, 0]))  # any column is right
        torch.testing.assert_close(away, padded(panorama, some), atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("shape", "offset", "horizon", "radius_rows"),
    [((112, 616), geometry.CVUSA_STRIP_OFFSET, 66, (82, 85)), ((224, 1232), geometry.CVUSA_STRIP_OFFSET, 132, (164, 170)),
     ((47, 256), 0.0, 24, (30, 32))],
    ids=["half", "full", "as_exported"],
)  # fmt: skip
def test_case_strip_offset(shape, offset, horizon, radius_rows):
    """A line 10 degrees below the horizon is a ring of radius tan(80 deg) camera heights, whatever the strip's size."""
    strip = torch.zeros(1, 3, *shape)
    strip[:, 2, :horizon], strip[:, 1, horizon:] = 1, 1
    strip[..., slice(*radius_rows), :] = torch.tensor([1.0, 0, 0]).view(3, 1, 1)
    red, green, _ = top_view(geometry.complete_panorama(strip, strip_offset=offset), TopView(128, 175))[0]
    radius = (pixel_grid(128, 128) - 63.5).norm(dim=-1)
    found = radius[(red > 0.5) & (green < 0.4)].median().item()
    assert found / 64 * math.tan(math.radians(87.5)) == pytest.approx(math.tan(math.radians(80)), rel=0.06)


@pytest.mark.parametrize(("shape", "offset", "message"), [((4, 17), 0.0, "even width"), ((9, 16), 0.0, "fit the 8"),
                                                          ((4, 16), 0.5, "8 px above the horizon")])  # fmt: skip
def test_a_strip_that_does_not_fit(shape, offset, message):
    with pytest.raises(InputError, match=message):
        geometry.complete_panorama(torch.zeros(1, 3, *shape), strip_offset=offset)


@pytest.mark.parametrize(("heading", "fov", "size"), [(0.0, 60.0, (120, 160)), (-145.0, 110.0, (160, 120))])
def test_a_photos_top_view_is_the_panoramas_in_its_sector(heading, fov, size):
    east, north, up = geometry.panorama_pixel_to_ray(pixel_grid(180, 360), 180).unbind(-1)
    panorama, view = (0.5 + 0.2 * east - 0.15 * north * up + 0.1 * up)[None, None], TopView.from_span(41, 20.0)
    found = photo_top_view(perspective_view(panorama, size, fov, heading), fov, view, fine(heading))[0, 0]
    seen = found != 0  # the signal itself is above 0
    torch.testing.assert_close(found[seen], top_view(panorama, view)[0, 0][seen], atol=5e-3, rtol=0)
    east, north = (pixel_grid(41, 41) - 20).unbind(-1)
    off = (torch.atan2(east, -north).rad2deg() - heading + 180) % 360 - 180
    assert 10 < seen.sum() < 41 * 41 / 2
    assert (off[seen].abs() <= fov / 2 + 1e-6).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_many_panoramas_of_any_type_have_each_its_own_heading(dtype):
    count, view = 2 * geometry.AT_ONCE + 1, TopView(16, 140, pitch_deg=5, roll_deg=4)  # more than are sampled together
    panorama, heading = (noise(count, 3, 16, 32) * 255).to(dtype), torch.linspace(-170, 190, count, dtype=FINE)
    found = top_view(panorama, view, heading_deg=heading)
    assert found.dtype == dtype
    for image, deg, above in zip(panorama.double(), heading.tolist(), found.double(), strict=True):
        exact = top_view(image[None], dataclasses.replace(view, heading_deg=deg))[0]
        assert (above - exact).abs().max() <= (0.55 if dtype == torch.uint8 else 0.05)
    with pytest.raises(AssertionError, match="heading"):
        top_view(panorama, view, heading_deg=heading.where(heading > 0, math.nan))
