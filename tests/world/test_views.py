"""Products: which way they face, that they agree with each other and with their truth."""

import math

import pytest
import torch
from handmade import handmade_city, patch

from ucvgl.world.appearance import Condition
from ucvgl.world.city import street_places
from ucvgl.world.render import Scene
from ucvgl.world.styles import Kind
from ucvgl.world.views import drone_images, panoramas, photos, satellite_tiles

DAY = Condition(cloud=0.0)
DULL = Condition(cloud=1.0)
NORTH_EAST = patch(108, 112, 106, 110, (250, 20, 20), Kind.CROSSING)  # about (110, 108) of 200


def full(value: float, count: int = 1) -> torch.Tensor:
    return torch.full((count,), float(value))


def at(east: float, north: float) -> tuple[torch.Tensor, torch.Tensor]:
    return full(east), full(north)


def test_up_is_north_and_right_is_east_in_a_tile():
    tile = satellite_tiles(Scene(handmade_city(NORTH_EAST)), DULL, *at(100, 100), span_m=40, size_px=80)
    rows, cols = (tile.kind[0] == Kind.CROSSING).nonzero(as_tuple=True)
    # half a metre a pixel, the middle between pixels 39 and 40
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (20, 27, 56, 63)
    assert tile.rgb[0, 0, 24, 60] > 3 * tile.rgb[0, 1, 24, 60]


def test_a_tile_is_the_city_itself_at_its_resolution(scene, garden):
    tile = satellite_tiles(scene, DULL, *at(112, 112), span_m=60, size_px=120, from_above=False)
    middle = slice(224 - 60, 224 + 60)
    lit = scene.lit(DULL, from_above=False).texels[: 448 * 448].reshape(448, 448, 4)[middle, middle]
    torch.testing.assert_close(tile.rgb[0], lit[..., :3].permute(2, 0, 1) / 255, atol=1e-3, rtol=0)
    assert torch.equal(tile.kind[0], lit[..., 3])


def test_east_is_right_of_the_centre_of_a_panorama():
    view = panoramas(Scene(handmade_city(NORTH_EAST)), DULL, *at(100, 100), full(2.5), height_px=128)
    rows, cols = (view.kind[0] == Kind.CROSSING).nonzero(as_tuple=True)
    azimuth = math.degrees(math.atan2(10, 8))
    assert (cols.float().mean() + 0.5 - 128) / 256 * 360 == pytest.approx(azimuth, abs=1.5)
    down = math.degrees(math.atan2(2.5, math.hypot(10, 8)))
    assert (rows.float().mean() + 0.5 - 64) / 128 * 180 == pytest.approx(down, abs=1)


def test_a_camera_that_looks_up_sees_the_world_lower():
    scene, pitch = Scene(handmade_city()), 12.0
    view = panoramas(scene, DULL, *at(100, 100), full(2.5), height_px=96, pitch_deg=full(pitch))
    rows = torch.arange(96)
    elevation = torch.deg2rad(90 - (rows + 0.5) / 96 * 180 + pitch)  # in the centre columns
    ahead = view.depth_m[0, :, 95:97].mean(-1)
    ground = elevation < -0.15
    expected = 2.5 / torch.sin(-elevation)
    # the truth is that of the nearest ray of a level panorama, half a row off
    slack = expected / torch.tan(-elevation) * math.pi / 96
    within = ground & (rows < 88)
    assert ((ahead - expected).abs()[within] <= slack[within] + 1e-3).all()
    assert (view.kind[0, :, 0] == Kind.ROAD).sum() > 52 > 44 > (view.kind[0, :, 96] == Kind.ROAD).sum()


def test_a_photo_is_a_piece_of_the_panorama(scene, garden):
    three = torch.from_numpy(street_places(garden, 15, margin_m=60).metres[:3]).T
    heading = torch.tensor([20.0, 140.0, 300.0])
    rows, columns, fov, high = 49, 65, 70.0, 256
    photo = photos(scene, DULL, *three, full(2.5, 3), heading, size_px=(rows, columns), fov_deg=fov)
    panorama = panoramas(scene, DULL, *three, full(2.5, 3), height_px=high)
    focal = torch.tensor(columns / 2 / math.tan(math.radians(fov) / 2))
    right = torch.arange(columns) - (columns - 1) / 2
    up = ((rows - 1) / 2 - torch.arange(rows))[:, None]
    azimuth = torch.rad2deg(torch.atan2(right, focal)) + heading[:, None, None]
    latitude = torch.rad2deg(torch.atan2(up, torch.hypot(right, focal)))
    column = ((azimuth / 360 + 0.5) * 2 * high).long().expand(3, rows, columns) % (2 * high)
    row = ((0.5 - latitude / 180) * high).long().expand_as(column)
    here = torch.arange(3)[:, None, None], row, column
    assert (photo.kind == panorama.kind[here]).float().mean() > 0.93
    ours, theirs = photo.depth_m, panorama.depth_m[here]
    both = ours.isfinite() & theirs.isfinite()
    assert ((ours - theirs).abs() < 0.06 * theirs)[both].float().mean() > 0.93


@pytest.mark.parametrize(("altitude", "pitch", "heading"), [(40.0, -50.0, 0.0), (25.0, -30.0, 130.0)])
def test_a_drone_has_its_place_in_the_middle_and_what_lies_ahead_above(altitude, pitch, heading):
    scene = Scene(handmade_city(patch(98, 102, 98, 102, (250, 20, 20), Kind.CROSSING)))
    view = drone_images(scene, DULL, *at(100, 100), full(altitude), full(heading), size_px=65, pitch_deg=pitch)
    assert view.kind[0, 32, 32] == Kind.CROSSING
    assert float(view.depth_m[0, 32, 32]) == pytest.approx(altitude / math.sin(math.radians(-pitch)), rel=0.01)
    turn = math.radians(heading)
    here = at(100 - 8 * math.sin(turn), 100 - 8 * math.cos(turn))  # eight metres short of the mark
    ahead = drone_images(scene, DULL, *here, full(altitude), full(heading), size_px=65, pitch_deg=pitch)
    rows, cols = (ahead.kind[0] == Kind.CROSSING).nonzero(as_tuple=True)
    assert rows.float().mean() < 30
    assert abs(cols.float().mean() - 32) < 1.5
