"""Projection: hand-sized cases, round trips, py360convert as oracle, seam, gradients, dtypes, caches, bad input."""

import dataclasses
import math
from unittest import mock

import numpy as np
import py360convert
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from ucvgl import geometry as projection
from ucvgl import geometry as rays
from ucvgl import geometry as resampling
from ucvgl import paths
from ucvgl.errors import InputError
from ucvgl.geometry import (
    CVACT_TOP_VIEW,
    CVUSA_TOP_VIEW,
    TopView,
    complete_panorama,
    completion_mask,
    perspective_grid,
    perspective_view,
    photo_top_view,
    polar_view,
    rotate_panorama,
    sample_panorama,
    tile_from_polar,
    top_view,
)

QUICK = settings(max_examples=25, deadline=None)
FINE = torch.float64  # where a bound is about the geometry, not about rounding


def noise(*shape: int, dtype: torch.dtype = FINE, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=FINE).to(dtype)


def panorama_of(function, height: int, dtype: torch.dtype = FINE) -> Tensor:
    """A panorama whose value is a function of (east, north, up) of the unit ray: (1, 1, H, 2H)."""
    row, column = torch.meshgrid(torch.arange(height), torch.arange(2 * height), indexing="ij")
    ray = rays.panorama_pixel_to_ray(torch.stack([column, row], -1).to(FINE), height)
    return function(*ray.unbind(-1))[None, None].to(dtype)


def smooth(east: Tensor, north: Tensor, up: Tensor) -> Tensor:
    return 0.5 + 0.2 * east - 0.15 * north * up + 0.1 * (2 * east * north + up)


def pixels(width: int, height: int):
    return st.tuples(st.floats(-0.49, width - 0.51), st.floats(-0.49, height - 0.51))


angles = st.floats(-180, 180)
views = st.builds(TopView, st.integers(1, 900), st.floats(20, 179), st.floats(0.5, 5))


# ---- points: pixel, ray, ground
# ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "row", "ray"),
    [
        (3.5, 1.5, (0, 1, 0)),  # the centre is north, on the horizon
        (5.5, 1.5, (1, 0, 0)),  # a quarter to the right is east
        (1.5, 1.5, (-1, 0, 0)),
        (-0.5, 1.5, (0, -1, 0)),
        (3.5, -0.5, (0, 0, 1)),
        (3.5, 3.5, (0, 0, -1)),
        (3.5, 2.5, (0, math.sqrt(0.5), -math.sqrt(0.5))),
    ],
)
def test_panorama_pixels_look_where_the_convention_says(column, row, ray):
    found = rays.panorama_pixel_to_ray(torch.tensor([column, row], dtype=FINE), 4)
    torch.testing.assert_close(found, torch.tensor(ray, dtype=FINE), atol=1e-12, rtol=0)


def test_azimuth_and_latitude_follow_the_formula():
    ray = rays.panorama_pixel_to_ray(torch.tensor([[10.0, 7.0]], dtype=FINE), 32)[0]
    azimuth, latitude = math.degrees(math.atan2(ray[0], ray[1])), math.degrees(math.asin(ray[2]))
    assert azimuth == pytest.approx((10.5 / 64 - 0.5) * 360)
    assert latitude == pytest.approx(90 - 7.5 / 32 * 180)


def test_top_view_settings_by_hand():
    view = TopView(size_px=100, fov_deg=90, camera_height_m=2)
    assert view.focal_px == pytest.approx(50)
    assert view.span_m == pytest.approx(4)
    corner = rays.top_view_pixel_to_ground(torch.tensor([-0.5, -0.5], dtype=FINE), view)  # upper left: west, north
    torch.testing.assert_close(corner, torch.tensor([-2.0, 2.0], dtype=FINE))
    assert TopView.from_span(100, 4, 2) == view
    assert (CVUSA_TOP_VIEW.size_px, CVUSA_TOP_VIEW.fov_deg) == (750, 175)
    assert (CVACT_TOP_VIEW.size_px, CVACT_TOP_VIEW.fov_deg) == (1200, 170)


def test_ray_to_ground_by_hand():
    ray = torch.tensor([[3.0, 0, -3], [0, 2, -1], [0, 0, -7], [1, 0, 0], [0, 1, 1]], dtype=FINE)
    ground = rays.ray_to_ground(ray, 1.5)
    torch.testing.assert_close(ground[:3], torch.tensor([[1.5, 0], [0, 3], [0, 0]], dtype=FINE))
    assert ground[3:].isnan().all()  # the horizon and the sky never meet the ground


@QUICK
@given(pixels(256, 128))
def test_panorama_pixel_ray_pixel(pixel):
    pixel = torch.tensor(pixel, dtype=FINE)
    back = rays.ray_to_panorama(3 * rays.panorama_pixel_to_ray(pixel, 128), 128)
    torch.testing.assert_close(back, pixel, atol=1e-6, rtol=0)


@QUICK
@given(views, st.floats(0, 1), st.floats(0, 1))
def test_top_view_pixel_ray_ground_pixel(view, x, y):
    pixel = torch.tensor([x, y], dtype=FINE) * view.size_px - 0.5
    ray = rays.top_view_pixel_to_ray(pixel, view)
    ground = rays.ray_to_ground(ray, view.camera_height_m)
    assert ray.norm().item() == pytest.approx(1)
    assert ray[2] < 0
    torch.testing.assert_close(rays.top_view_pixel_to_ground(pixel, view), ground, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(rays.ground_to_ray(ground, view.camera_height_m), ray, atol=1e-9, rtol=0)
    torch.testing.assert_close(rays.ray_to_top_view_pixel(ray, view), pixel, atol=1e-7, rtol=0)


@QUICK
@given(st.floats(-40, 40), st.floats(-40, 40), st.integers(1, 500), st.floats(1, 300))
def test_ground_pixel_ground(east, north, size, span):
    ground = torch.tensor([east, north], dtype=FINE)
    pixel = rays.ground_to_tile_pixel(ground, size, span)
    torch.testing.assert_close(rays.tile_pixel_to_ground(pixel, size, span), ground, atol=1e-9, rtol=0)
    polar = rays.ground_to_polar_pixel(ground, 64, 256, span)
    torch.testing.assert_close(rays.polar_pixel_to_ground(polar, 64, 256, span), ground, atol=1e-9, rtol=0)


# ---- attitude
# ----------------------------------------------------------------------------------------------------------


def rodrigues(axis: np.ndarray, angle: float) -> np.ndarray:
    """Right-handed rotation about a unit axis, from Rodrigues' formula and not from Euler matrices."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def attitude_by_hand(heading: float, pitch: float, roll: float) -> np.ndarray:
    """The camera's own axes, turned one after the other as the words say."""
    right, forward, up = np.eye(3)
    turn = rodrigues(up, -math.radians(heading))  # clockwise, seen from above
    right, forward = turn @ right, turn @ forward
    turn = rodrigues(right, math.radians(pitch))  # the nose up
    forward, up = turn @ forward, turn @ up
    turn = rodrigues(forward, math.radians(roll))  # the right side down
    return np.stack([turn @ right, forward, turn @ up], axis=1)


@QUICK
@given(angles, angles, angles)
def test_attitude_matrix_is_the_described_rotation(heading, pitch, roll):
    found = rays.attitude_matrix(*torch.tensor([heading, pitch, roll], dtype=FINE))
    np.testing.assert_allclose(found.numpy(), attitude_by_hand(heading, pitch, roll), atol=1e-12)


@pytest.mark.parametrize(
    ("attitude", "axis", "points_to"),
    [
        ((90.0, 0.0, 0.0), 1, (1, 0, 0)),  # heading 90: forward is east
        ((0.0, 90.0, 0.0), 1, (0, 0, 1)),  # pitch 90: forward is up
        ((0.0, 0.0, 90.0), 0, (0, 0, -1)),  # roll 90: right is down
        ((0.0, -90.0, 0.0), 2, (0, 1, 0)),  # looking down, the picture's upper edge is north
    ],
)
def test_attitude_signs(attitude, axis, points_to):
    matrix = rays.attitude_matrix(*torch.tensor(attitude, dtype=FINE))
    torch.testing.assert_close(matrix[:, axis], torch.tensor(points_to, dtype=FINE), atol=1e-12, rtol=0)


@pytest.mark.parametrize("attitude", [(0.0, 0.0, 0.0), (40.0, 0.0, 0.0), (-75.0, 12.0, -8.0), (200.0, -30.0, 25.0)])
def test_views_agree_with_the_signal_on_the_sphere(attitude):
    """A smooth function of the ray is known everywhere, so each view is compared with that."""
    level = panorama_of(smooth, 256)
    matrix = attitude_by_hand(*attitude)

    def seen_by_camera(right, forward, up):
        return smooth(*torch.einsum("ij,jhw->ihw", torch.from_numpy(matrix), torch.stack([right, forward, up])))

    taken = panorama_of(seen_by_camera, 256)  # what a camera of that attitude records
    torch.testing.assert_close(rotate_panorama(level, *attitude), taken, atol=1e-4, rtol=0)
    torch.testing.assert_close(rotate_panorama(taken, *attitude, undo=True), level, atol=1e-4, rtol=0)

    view = TopView(64, 150, 2.5, *attitude)
    row, column = torch.meshgrid(torch.arange(64.0, dtype=FINE), torch.arange(64.0, dtype=FINE), indexing="ij")
    truth = smooth(*rays.top_view_pixel_to_ray(torch.stack([column, row], -1), view).unbind(-1))
    torch.testing.assert_close(top_view(taken, view)[0, 0], truth, atol=1e-4, rtol=0)

    photo = perspective_view(level, (32, 48), 70.0, *attitude)
    focal = 24 / math.tan(math.radians(35))
    right, up = np.meshgrid(np.arange(48) - 23.5, 15.5 - np.arange(32))
    ray = np.stack([right, np.full_like(right, focal), up]) / np.sqrt(right**2 + focal**2 + up**2)
    truth = smooth(*torch.from_numpy(np.einsum("ij,jhw->ihw", matrix, ray)))
    torch.testing.assert_close(photo[0, 0], truth, atol=1e-4, rtol=0)


def test_each_image_may_have_its_own_attitude():
    panorama = noise(3, 3, 32, 64)
    heading, pitch = torch.tensor([0.0, 33.0, -170.0], dtype=FINE), torch.tensor([5.0, 0.0, -60.0], dtype=FINE)
    view = TopView(24, 140, roll_deg=4)
    together = (
        rotate_panorama(panorama, heading, pitch, 3.0),
        perspective_view(panorama, (16, 20), 80.0, heading, pitch),
        top_view(panorama, view, heading_deg=heading, pitch_deg=pitch),
    )
    for i in range(3):
        one, h, p = panorama[i : i + 1], heading[i].item(), pitch[i].item()
        alone = (
            rotate_panorama(one, h, p, 3.0),
            perspective_view(one, (16, 20), 80.0, h, p),
            top_view(one, dataclasses.replace(view, heading_deg=h, pitch_deg=p)),
        )
        for batch, single in zip(together, alone, strict=True):
            torch.testing.assert_close(batch[i : i + 1], single, atol=1e-9, rtol=0)
    grid = perspective_grid(32, (16, 20), 80.0, heading, pitch)
    assert grid.shape == (3, 16, 20, 2)
    torch.testing.assert_close(sample_panorama(panorama, grid), together[1], atol=1e-12, rtol=0)


# ---- heading turns
# -----------------------------------------------------------------------------------------------------


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


def test_a_quarter_turn_in_single_precision():
    panorama = panorama_of(smooth, 128, torch.float32)
    for quarters in (1, -1):
        turned = torch.rot90(top_view(panorama, CVUSA_TOP_VIEW), quarters, (-2, -1))
        rolled = top_view(panorama.roll(-quarters * 64, -1), CVUSA_TOP_VIEW)
        torch.testing.assert_close(rolled, turned, atol=1e-5, rtol=0)


@QUICK
@given(st.integers(-64, 64))
def test_a_roll_of_the_columns_is_a_heading(columns):
    panorama, heading = noise(1, 1, 32, 64), columns / 64 * 360
    rolled = panorama.roll(-columns, -1)  # what a camera with its centre column at this heading records
    torch.testing.assert_close(rotate_panorama(panorama, heading), rolled, atol=1e-9, rtol=0)
    straight, undone = top_view(panorama, TopView(20, 150)), top_view(rolled, TopView(20, 150, heading_deg=heading))
    torch.testing.assert_close(undone, straight, atol=1e-9, rtol=0)


def test_marks_land_where_they_stand():
    """A blob on the ground 3 m east and 1 m south shows at that place in the top view, and in its polar view."""
    view = TopView.from_span(121, 12.0, camera_height_m=2.0)
    target = rays.ground_to_ray(torch.tensor([3.0, -1.0], dtype=FINE), 2.0)
    panorama = panorama_of(lambda e, n, u: torch.exp(300 * (e * target[0] + n * target[1] + u * target[2] - 1)), 256)
    top = top_view(panorama, view)[0, 0]
    row, column = divmod(top.argmax().item(), 121)
    assert (column, row) == (90, 70)  # 10 px a metre from the centre (60, 60): east right, south down
    polar = polar_view(top[None, None], 60, 240)[0, 0]
    row, column = divmod(polar.argmax().item(), 240)
    expected = rays.ground_to_polar_pixel(torch.tensor([3.0, -1.0], dtype=FINE), 60, 240, 12.0)
    assert abs(column - expected[0]) <= 1
    assert abs(row - expected[1]) <= 1


# ---- py360convert
# ------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(("size", "fov"), [(64, 90), (75, 175), (60, 170)])
def test_top_view_is_py360converts_downward_view(size, fov):
    panorama = noise(2, 3, 64, 128)
    ours = top_view(panorama, TopView(size, fov))
    for image, view in zip(panorama, ours, strict=True):
        # its rays are single precision: 1e-5 of noise that spans 0 to 1; its upper edge is north as ours
        torch.testing.assert_close(view, e2p(image, fov, (0, -90, 0), (size, size)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("attitude", [(0.0, 0.0, 0.0), (30.0, 10.0, 0.0), (-120.0, -35.0, 20.0), (180.0, 80.0, -70.0)])
def test_perspective_view_is_py360converts(attitude):
    panorama, size = noise(1, 3, 64, 128), (40, 60)
    ours = perspective_view(panorama, size, 85.0, *attitude)[0]
    torch.testing.assert_close(ours, e2p(panorama[0], 85.0, attitude, size), atol=1e-4, rtol=0)


def test_top_view_is_a_perspective_view_straight_down():
    panorama = noise(1, 3, 64, 128)
    torch.testing.assert_close(
        top_view(panorama, TopView(50, 120)), perspective_view(panorama, 50, 120, 0, -90), atol=1e-9, rtol=0
    )


# ---- seam and poles
# ----------------------------------------------------------------------------------------------------


def test_no_seam_and_no_hole_at_the_nadir():
    """South lies on the seam: a signal smooth on the sphere must be as smooth there, and at the pole, as elsewhere."""
    panorama, view = panorama_of(smooth, 64, torch.float32), TopView(400, 100)
    top = top_view(panorama, view)[0, 0]
    row, column = torch.meshgrid(torch.arange(400.0), torch.arange(400.0), indexing="ij")
    truth = smooth(*rays.top_view_pixel_to_ray(torch.stack([column, row], -1), view).unbind(-1))
    error = (top - truth).abs()
    assert error.max() < 1e-3
    assert error[200:, 195:205].max() <= 1.5 * error[:200, 195:205].max()  # southwards no worse than northwards
    assert error[190:210, 190:210].max() <= 1.5 * error.max()
    steps = top.diff(dim=1).abs()
    assert steps[200:, 198:201].max() <= 1.5 * steps[:200, 198:201].max()


def test_the_seam_is_sampled_like_every_other_column():
    panorama = noise(2, 3, 32, 64)
    away = panorama.roll(21, -1)
    grid = noise(2, 40, 50, 2, seed=1) * torch.tensor([200, 32]) - 0.5
    grid[0, :10, :, 0] = torch.linspace(-1.5, 1.5, 50)  # across the seam
    grid[1, :10, :, 1] = torch.linspace(-0.5, 0.2, 50)  # over the zenith
    grid[1, 10:20, :, 1] = torch.linspace(30.8, 31.5, 50)  # over the nadir
    moved = grid + torch.tensor([21, 0])
    for some in (slice(None), slice(0, 1), slice(1, 2)):  # a grid for each, and one for both
        found, expected = sample_panorama(panorama, grid[some]), sample_panorama(away, moved[some])
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


def test_seam_and_poles_against_a_padded_copy():
    """The straddling pixels, done by hand in the code, against the plain way: pad by a column and a row first."""
    panorama = noise(1, 3, 16, 32)
    grid = noise(1, 60, 60, 2, seed=2) * torch.tensor([32, 16]) - 0.5
    padded = torch.cat([panorama[:, :, :1].roll(16, -1), panorama, panorama[:, :, -1:].roll(16, -1)], 2)
    padded = torch.cat([padded[..., -1:], padded, padded[..., :1]], 3)  # (1, 3, 18, 34)
    points = (2 * (grid + 1) + 1) / torch.tensor([34, 18]) - 1
    plain = torch.nn.functional.grid_sample(padded, points, align_corners=False)
    torch.testing.assert_close(sample_panorama(panorama, grid), plain, atol=1e-12, rtol=0)


def test_nothing_moves_without_an_attitude():
    panorama = noise(1, 3, 16, 32, dtype=torch.float32)
    torch.testing.assert_close(rotate_panorama(panorama), panorama, atol=1e-4, rtol=0)
    assert torch.equal(rotate_panorama(panorama, mode="nearest"), panorama)


# ---- completion
# --------------------------------------------------------------------------------------------------------


def test_cvusas_strip_sits_where_the_paper_puts_it():
    strip = torch.ones(1, 3, 224, 1232)
    whole = complete_panorama(strip)
    assert whole.shape == (1, 3, 616, 1232)
    rows = whole[0, 0, :, 0].nonzero().flatten()
    assert (rows.min(), rows.max()) == ((616 - 224) // 2 - 20, (616 - 224) // 2 - 20 + 223)
    assert torch.equal(whole[:, :1], completion_mask(224, 1232))


@QUICK
@given(st.integers(1, 20), st.integers(-10, 10), st.floats(0, 1))
def test_completion_keeps_the_crop_and_fills_the_rest(height, offset, fill):
    crop = noise(1, 1, height, 40)
    first = (20 - height) // 2 - offset
    if not 0 <= first <= 20 - height:
        with pytest.raises(InputError, match="offset_px"):
            complete_panorama(crop, offset_px=offset)
        return
    whole, mask = complete_panorama(crop, offset_px=offset, fill=fill), completion_mask(height, 40, offset_px=offset)
    assert torch.equal(whole[:, :, first : first + height], crop)
    assert (whole[mask == 0] == fill).all()
    assert mask.sum() == height * 40


def test_the_mask_goes_through_the_view():
    valid = top_view(completion_mask(224, 1232), TopView(100, 175))
    assert valid.min() == 0  # the nadir is not in the strip
    assert valid.max() == 1


# ---- polar view
# --------------------------------------------------------------------------------------------------------


def test_polar_view_by_hand():
    tile = noise(1, 1, 8, 8)
    polar = polar_view(tile, 2, 4)  # rows at radius 3 and 1 px, columns at azimuth -135, -45, 45, 135 deg
    at = 3.5 + 3 * math.sqrt(0.5)  # column of azimuth 45 at radius 3
    x = at - math.floor(at)
    corner = tile[0, 0, 1:3, 5:7]  # rows 1.38, columns 5.62
    y = 3.5 - 3 * math.sqrt(0.5) - 1
    expected = (1 - y) * ((1 - x) * corner[0, 0] + x * corner[0, 1]) + y * ((1 - x) * corner[1, 0] + x * corner[1, 1])
    assert polar[0, 0, 0, 2].item() == pytest.approx(expected.item())


def test_the_polar_view_inverts():
    side = torch.linspace(-1, 1, 64, dtype=FINE)
    row, column = torch.meshgrid(side, side, indexing="ij")
    tile = (torch.sin(3 * column) + row * column + row)[None, None]
    back = tile_from_polar(polar_view(tile, 128, 512), 64, fill=-9.0)
    inside = (row**2 + column**2 < (60 / 63) ** 2)[None, None]
    torch.testing.assert_close(back[inside], tile[inside], atol=0.01, rtol=0)
    assert (back[..., 0, 0] == -9).all()


# ---- photos
# ----------------------------------------------------------------------------------------------------------------


def shown(view: TopView, heading: float, fov: float, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Which pixels of a top view a level photo shows, from the ground's metres alone: surely, and surely not; (S, S) each."""
    row, column = torch.meshgrid(torch.arange(view.size_px), torch.arange(view.size_px), indexing="ij")
    east, north = rays.top_view_pixel_to_ground(torch.stack([column, row], -1).to(FINE), view).unbind(-1)
    turn = math.radians(heading)
    along = east * math.sin(turn) + north * math.cos(turn)
    across = east * math.cos(turn) - north * math.sin(turn)
    wide = math.tan(math.radians(fov) / 2)
    deep = wide * size[0] / size[1]  # square pixels: the tangent below the horizon at the lower edge
    off = torch.maximum(across.abs() / along / wide, view.camera_height_m / along / deep)  # 1 at the photo's edge
    return (along > 0) & (off < 0.98), (along <= 0) | (off > 1.02)


@pytest.mark.parametrize("size", [(120, 160), (160, 120)])
@pytest.mark.parametrize(("heading", "fov"), [(0.0, 60.0), (73.0, 90.0), (-145.0, 110.0), (270.0, 40.0)])
def test_a_photos_top_view_is_the_panoramas_in_its_sector(heading, fov, size):
    panorama, view = panorama_of(smooth, 180), TopView.from_span(41, 20.0)
    photo = perspective_view(panorama, size, fov, heading)
    found = photo_top_view(photo, fov, view, heading_deg=torch.tensor([heading], dtype=FINE), fill=-7.0)[0, 0]
    inside, outside = shown(view, heading, fov, size)
    assert 10 < inside.sum() < 41 * 41 / 2
    assert (inside | outside).float().mean() > 0.95
    torch.testing.assert_close(found[inside], top_view(panorama, view)[0, 0][inside], atol=5e-3, rtol=0)
    assert (found[outside] == -7).all()


def test_a_photos_attitude_is_undone():
    panorama, view = panorama_of(smooth, 180), TopView.from_span(41, 20.0)
    photo = perspective_view(panorama, (120, 160), 90.0, 30.0, -12.0, 5.0)
    north = torch.tensor([30.0], dtype=FINE)
    found = photo_top_view(photo, 90.0, view, heading_deg=north, pitch_deg=-12.0, roll_deg=5.0, fill=-7.0)
    seen = found != -7
    assert seen.sum() > 100
    torch.testing.assert_close(found[seen], top_view(panorama, view)[seen], atol=5e-3, rtol=0)


def test_a_photos_top_view_by_hand():
    row, column = torch.meshgrid(torch.arange(4.0, dtype=FINE), torch.arange(4.0, dtype=FINE), indexing="ij")
    photo = (10 * row + column)[None, None]  # 4 x 4 pixels of 90 degrees: a focal length of 2
    view = TopView.from_span(8, 8.0, 1.0)  # a metre a pixel, the camera one metre above the ground
    found = photo_top_view(photo, 90.0, view, heading_deg=torch.tensor([0.0, 90.0], dtype=FINE), fill=-1.0)[:, 0]
    # half a metre to the right, 2.5 ahead: column 1.5 + 2 * 0.5 / 2.5, row 1.5 + 2 * 1 / 2.5
    assert found[0, 1, 4] == pytest.approx(10 * 2.3 + 1.9)
    assert found[1, 4, 6] == pytest.approx(10 * 2.3 + 1.9)
    assert found[0, 2, 4] == pytest.approx(10 * (1.5 + 2 / 1.5) + 1.5 + 1 / 1.5)
    assert found[0, 3, 4] == -1  # half a metre ahead, below the frame
    assert (found[0, 4:] == -1).all()  # behind
    assert (found[1, :, :4] == -1).all()
    assert found[0, 1, 7] == -1  # 3.5 to the right at 2.5 ahead: beyond 45 degrees


def test_one_image_at_many_headings_is_as_many_images():
    heading = torch.tensor([0.0, 10.0, 200.0, -33.0])
    picture = (noise(1, 3, 32, 64) * 255).byte()
    many = picture.expand(4, -1, -1, -1)
    for image, call in (
        (picture, lambda p: top_view(p, TopView(20, 150), heading_deg=heading)),
        (picture.float(), lambda p: top_view(p, TopView(20, 150), heading_deg=heading)),
        (picture[..., :40], lambda p: photo_top_view(p, 70.0, TopView(20, 170), heading_deg=heading)),
    ):
        found, expected = call(image), call(image.expand(4, -1, -1, -1))
        assert found.shape == (4, 3, 20, 20)
        assert found.dtype == image.dtype
        assert (found.float() - expected.float()).abs().max() <= (1 if image.dtype == torch.uint8 else 1e-2)
    assert rotate_panorama(many, heading).shape == rotate_panorama(picture, heading).shape


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
def test_a_photos_dtype_comes_back(dtype):
    photo, heading = noise(2, 3, 24, 32) * 255, torch.tensor([0.0, 120.0])
    exact = photo_top_view(photo.to(dtype).double(), 90.0, TopView(20, 150), heading_deg=heading.double())
    found = photo_top_view(photo.to(dtype), 90.0, TopView(20, 150), heading_deg=heading)
    assert found.dtype == dtype
    assert (found.double() - exact).abs().max() <= (0.51 if dtype == torch.uint8 else 0.2)


# ---- gradients, dtypes, caches, threads
# ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "view",
    [
        lambda p: top_view(p, TopView(7, 160, pitch_deg=3)),
        lambda p: top_view(p, TopView(5, 160), heading_deg=torch.tensor([3.0, 181.0], dtype=FINE)),
        lambda p: perspective_view(p, (4, 5), 100.0, 170.0),
        lambda p: rotate_panorama(p, 10.0, 80.0),
        lambda p: polar_view(p[..., :6], 3, 5),
        lambda p: tile_from_polar(p, 5),
        lambda p: complete_panorama(p[:, :, :4], offset_px=1),
        lambda p: top_view(p[:1], TopView(4, 160), heading_deg=torch.tensor([3.0, 181.0], dtype=FINE)),
        lambda p: photo_top_view(p, 90.0, TopView(6, 150), heading_deg=torch.tensor([3.0, 181.0], dtype=FINE)),
    ],
)
def test_gradients_reach_the_image(view):
    panorama = noise(2, 1, 6, 12).requires_grad_()
    assert torch.autograd.gradcheck(view, (panorama,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floating_dtypes_come_back(dtype):
    panorama, view = noise(3, 1, 32, 64), TopView(30, 150)
    exact = top_view(panorama.to(dtype).double(), view)
    for found in (top_view(panorama.to(dtype), view), top_view(panorama.to(dtype), view, heading_deg=torch.zeros(3))):
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), exact, atol=max(torch.finfo(dtype).eps, 1e-4), rtol=0)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_bytes_come_back_rounded(mode, monkeypatch):
    monkeypatch.setitem(resampling.CHUNK_BYTES, "cpu", 1)  # a few images at a time, put together again
    panorama = (noise(7, 4, 32, 64) * 255).round().byte()
    found = top_view(panorama, TopView(30, 150), mode=mode)
    exact = top_view(panorama.double(), TopView(30, 150), mode=mode)
    assert found.dtype == torch.uint8
    assert (found.double() - exact).abs().max() <= 0.501
    turned = top_view(panorama, TopView(30, 150), heading_deg=torch.full((7,), 20.0), mode=mode)
    assert (turned.float() - top_view(panorama, TopView(30, 150, heading_deg=20), mode=mode)).abs().max() <= 1
    if mode == "nearest":
        assert set(found.unique().tolist()) <= set(panorama.unique().tolist())


def test_an_empty_batch_stays_empty():
    none = noise(0, 3, 16, 32, dtype=torch.float32)
    assert top_view(none, TopView(10, 90)).shape == (0, 3, 10, 10)
    assert top_view(none.byte(), TopView(10, 90), heading_deg=torch.zeros(0)).shape == (0, 3, 10, 10)
    assert perspective_view(none, (4, 6), 60.0).shape == (0, 3, 4, 6)
    assert polar_view(none[..., :16], 8, 24).shape == (0, 3, 8, 24)
    assert photo_top_view(none, 60.0, TopView(10, 90), heading_deg=torch.zeros(0)).shape == (0, 3, 10, 10)


def test_layout_in_memory_does_not_matter():
    panorama = noise(2, 3, 32, 64, dtype=torch.float32)
    last = panorama.contiguous(memory_format=torch.channels_last)
    assert torch.equal(top_view(last, TopView(30, 150)), top_view(panorama, TopView(30, 150)))


def test_a_grid_is_built_once_and_the_cache_is_bounded():
    projection._fixed_grid.cache_clear()
    panorama = noise(1, 1, 16, 32, dtype=torch.float32)
    for size in (9, 9, 9):
        top_view(panorama, TopView(size, 150))
        top_view(panorama.byte(), TopView(size, np.float64(150)))
    info = projection._fixed_grid.cache_info()
    assert (info.misses, info.hits, info.maxsize) == (1, 5, projection.GRIDS_KEPT)
    top_view(panorama.double(), TopView(9, 150))
    assert projection._fixed_grid.cache_info().misses == 2
    lens = projection._Lens("down", 9, 9, TopView(9, 150).focal_px)
    key = (lens, (0.0, 0.0, 0.0), True, 16, torch.device("cpu"), torch.float32)
    assert projection._fixed_grid(*key) is projection._fixed_grid(*key)
    assert projection._fixed_grid(*key).first == 8  # a level top view reads no sky


def test_a_grid_built_under_inference_serves_training():
    projection._fixed_grid.cache_clear()
    projection._rays.cache_clear()
    panorama, view = noise(1, 1, 16, 32, dtype=torch.float32), TopView(9, 150)
    with torch.inference_mode():
        top_view(panorama, view)
        top_view(panorama, view, heading_deg=torch.zeros(1))
    panorama.requires_grad_()
    (top_view(panorama, view) + top_view(panorama, view, heading_deg=torch.zeros(1))).sum().backward()
    assert panorama.grad.abs().sum() > 0


def test_autocast_does_not_move_points():
    panorama, heading = noise(2, 3, 64, 128, dtype=torch.float32), torch.tensor([11.0, 77.0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = top_view(panorama, TopView(50, 170), heading_deg=heading), top_view(panorama, TopView(50, 170))
    assert torch.equal(found[0], top_view(panorama, TopView(50, 170), heading_deg=heading))
    assert torch.equal(found[1], top_view(panorama, TopView(50, 170)))


def test_threads_do_not_change_the_result():
    panorama, threads = noise(5, 3, 64, 128, dtype=torch.float32), torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            heading = torch.linspace(0, 300, 5)
            results.append((top_view(panorama, TopView(60, 170)), rotate_panorama(panorama, heading, 5.0)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu():
    panorama, heading = noise(4, 3, 128, 256, dtype=torch.float32), torch.tensor([0.0, 30.0, 179.0, -90.0])
    tile = noise(2, 3, 64, 64, dtype=torch.float32)
    calls = [
        lambda d: top_view(panorama.to(d), TopView(100, 170, pitch_deg=2)),
        lambda d: top_view(panorama.to(d), TopView(100, 170), heading_deg=heading.to(d)),
        lambda d: perspective_view(panorama.to(d), (40, 60), 80.0, heading.to(d), -10.0),
        lambda d: rotate_panorama(panorama.to(d), heading.to(d)),
        lambda d: polar_view(tile.to(d), 32, 128),
        lambda d: tile_from_polar(polar_view(tile.to(d), 32, 128), 64),
    ]
    for call in calls:
        torch.testing.assert_close(call("cuda").cpu(), call("cpu"), atol=1e-3, rtol=0)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        torch.testing.assert_close(calls[1]("cuda").cpu(), calls[1]("cpu"), atol=1e-3, rtol=0)
    leaf = panorama.cuda().requires_grad_()
    top_view(leaf, TopView(100, 170)).sum().backward()
    assert leaf.grad.isfinite().all()


# ---- bad input
# -----------------------------------------------------------------------------------------------------------

PANORAMA = torch.zeros(2, 3, 8, 16)
STRIP = torch.zeros(1, 3, 4, 16)
TWO, THREE = torch.zeros(4, 2), torch.zeros(4, 3)
BAD = {
    "a strip": (lambda: top_view(torch.zeros(1, 3, 224, 1232)), "complete_panorama"),
    "a photo": (lambda: perspective_view(torch.zeros(1, 3, 8, 12), 4, 60.0), "width twice the height.*found 8x12"),
    "a tall one": (lambda: rotate_panorama(torch.zeros(1, 3, 16, 8)), "width twice the height"),
    "a single image": (lambda: top_view(PANORAMA[0]), r"image\[None\]"),
    "a matrix": (lambda: top_view(PANORAMA[0, 0]), r"shape \(B, C, H, W\)"),
    "two channels": (lambda: top_view(torch.zeros(1, 2, 8, 16)), "1, 3 or 4 channels, found 2"),
    "five channels": (lambda: polar_view(torch.zeros(1, 5, 8, 8), 4, 8), "1, 3 or 4 channels, found 5"),
    "no channels": (lambda: top_view(torch.zeros(1, 0, 8, 16)), "1, 3 or 4 channels, found 0"),
    "channels last": (lambda: top_view(torch.zeros(1, 8, 16, 3)), "permute"),
    "no pixels": (lambda: top_view(torch.zeros(1, 3, 0, 0)), "not empty"),
    "an array": (lambda: top_view(np.zeros((1, 3, 8, 16))), "from_numpy"),
    "whole numbers": (lambda: top_view(PANORAMA.long()), "floating values or uint8"),
    "complex numbers": (lambda: top_view(PANORAMA + 0j), "floating values or uint8"),
    "a mode": (lambda: top_view(PANORAMA, mode="cubic"), "'bilinear' or 'nearest', found 'cubic'"),
    "settings": (lambda: top_view(PANORAMA, 750), "settings: expected a TopView"),
    "fov 0": (
        lambda: TopView(fov_deg=0),
        "TopView.fov_deg: expected a finite number above 0 and below 180 deg, found 0",
    ),
    "fov 180": (lambda: TopView(fov_deg=180), "TopView.fov_deg"),
    "fov nan": (lambda: TopView(fov_deg=math.nan), "TopView.fov_deg"),
    "fov text": (lambda: TopView(fov_deg="170"), "TopView.fov_deg"),
    "fov below": (lambda: perspective_view(PANORAMA, 4, -20.0), "fov_deg"),
    "fov above": (lambda: perspective_grid(8, 4, 200.0), "fov_deg"),
    "height 0": (lambda: TopView(camera_height_m=0), "TopView.camera_height_m"),
    "height below": (lambda: rays.ray_to_ground(THREE, -2.0), "camera_height_m: expected a finite number above 0 m"),
    "height inf": (lambda: rays.ground_to_ray(TWO, math.inf), "camera_height_m"),
    "span 0": (lambda: TopView.from_span(100, 0), "span_m"),
    "span below": (lambda: rays.ground_to_tile_pixel(TWO, 100, -70.0), "span_m"),
    "span nan": (lambda: rays.polar_pixel_to_ground(TWO, 8, 16, math.nan), "span_m"),
    "size 0": (lambda: TopView(size_px=0), "TopView.size_px"),
    "size 7.5": (lambda: TopView(size_px=7.5), "TopView.size_px"),
    "size True": (lambda: polar_view(PANORAMA[..., :8], True, 8), "height_px"),
    "three sizes": (lambda: perspective_view(PANORAMA, (4, 5, 6), 60.0), "size_px"),
    "heading inf": (lambda: TopView(heading_deg=math.inf), "TopView.heading_deg"),
    "pitch nan": (lambda: rotate_panorama(PANORAMA, 0.0, math.nan), "pitch_deg"),
    "headings nan": (lambda: rotate_panorama(PANORAMA, torch.tensor([0.0, math.nan])), "heading_deg.*nan"),
    "too many headings": (lambda: top_view(PANORAMA, heading_deg=torch.zeros(3)), r"heading_deg.*\(2,\)"),
    "a photo of 180": (lambda: photo_top_view(STRIP, 180.0, heading_deg=torch.zeros(1)), "fov_deg"),
    "a photo's headings": (lambda: photo_top_view(PANORAMA, 60.0, heading_deg=torch.zeros(3)), r"heading_deg.*\(2,\)"),
    "a photo's heading": (
        lambda: photo_top_view(STRIP, 60.0, heading_deg=torch.tensor([math.inf])),
        "heading_deg.*inf",
    ),
    "a photo's pitch": (
        lambda: photo_top_view(STRIP, 60.0, heading_deg=torch.zeros(1), pitch_deg=math.nan),
        "pitch_deg",
    ),
    "one photo": (lambda: photo_top_view(STRIP[0], 60.0, heading_deg=torch.zeros(1)), r"image\[None\]"),
    "whole headings": (lambda: top_view(PANORAMA, heading_deg=torch.zeros(2).long()), "floating"),
    "grids": (lambda: sample_panorama(PANORAMA, torch.zeros(3, 4, 4, 2)), r"shape \(1 or 2, h, w, 2\)"),
    "points": (lambda: sample_panorama(PANORAMA, torch.zeros(1, 4, 4, 3)), "pixels"),
    "rays of two": (lambda: rays.ray_to_panorama(TWO, 8), "ray: expected a floating tensor"),
    "whole points": (lambda: rays.panorama_pixel_to_ray(TWO.long(), 8), "pixel: expected a floating tensor"),
    "a list": (lambda: rays.top_view_pixel_to_ray([0, 0], TopView()), "pixel"),
    "a tile": (lambda: polar_view(torch.zeros(1, 3, 8, 9), 4, 8), "square"),
    "an odd polar": (lambda: tile_from_polar(torch.zeros(1, 3, 8, 9), 4), "even width"),
    "an odd strip": (lambda: complete_panorama(torch.zeros(1, 3, 4, 17)), "even width"),
    "too high a strip": (lambda: complete_panorama(torch.zeros(1, 3, 9, 16), offset_px=0), "fit a 8x16"),
    "already whole": (lambda: complete_panorama(PANORAMA), "2:1 panorama needs no completion"),
    "half an offset": (lambda: complete_panorama(STRIP, offset_px=0.5), "offset_px"),
    "a fill": (lambda: complete_panorama(STRIP, offset_px=0, fill=math.nan), "fill"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error(name):
    call, message = BAD[name]
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert all((caught.value.where, caught.value.expected, caught.value.found, caught.value.todo))


def test_settings_are_frozen_and_known():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TopView().fov_deg = 3
    with pytest.raises(TypeError):
        TopView(fov=3)


# ---- real samples
# --------------------------------------------------------------------------------------------------------


def read(path) -> Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]


def sample_files(pattern: str) -> list:
    files = sorted(paths.samples().glob(pattern))
    if not files:
        pytest.skip(f"no sample {pattern} under {paths.samples()} (UCVGL_SAMPLES)")
    return files


def test_a_real_panorama_of_amsterdam():
    panorama = read(sample_files("amsterdam/*.jpg")[0])
    panorama = torch.nn.functional.interpolate(panorama.float(), (512, 1024), mode="area")
    view = TopView(200, 165, heading_deg=274.85, pitch_deg=-7.13, roll_deg=0.35)
    top = top_view(panorama / 255, view)
    assert top.shape == (1, 3, 200, 200)
    assert top.isfinite().all()
    assert 0.05 < top.std() < 0.5


def test_real_strips_of_cvusa():
    files = sample_files("cvusa/imgs/ground*.jpg")
    strips = torch.cat([read(f) for f in files])
    tops = top_view(complete_panorama(strips), CVUSA_TOP_VIEW)
    assert tops.shape == (len(files), 3, 750, 750)
    valid = top_view(completion_mask(224, 1232), CVUSA_TOP_VIEW) == 1  # (1, 1, 750, 750)
    assert 0.5 < valid.float().mean() < 1
    real = tops.float()[valid.expand_as(tops)]
    assert 20 < real.mean() < 235
    assert real.std() > 10
    assert (tops[:, :, 374:376, 374:376] == 0).all()  # the strip doesn't reach the ground below the camera
