"""The projection's error equals what the formula says of a wrong belief, and what remains of a right one is relief."""

from dataclasses import dataclass, replace

import pytest
import torch

from ucvgl.geometry import TopView
from ucvgl.methods.projection import (
    colour_errors,
    position_errors,
)
from ucvgl.world.appearance import Condition
from ucvgl.world.city import make_city
from ucvgl.world.kinds import Kind
from ucvgl.world.places import choose, street_places
from ucvgl.world.render import Rendered, Scene
from ucvgl.world.styles import GARDEN
from ucvgl.world.views import panoramas, satellite_tiles

RIGHT = TopView(camera_height_m=2.5)


@dataclass(frozen=True)
class Seen:
    view: Rendered
    ground: Rendered


@pytest.fixture(scope="module")
def seen() -> Seen:
    scene = Scene(make_city(GARDEN, 1, size_m=256, resolution_m=0.25))
    places = choose(street_places(scene.city, 15), 8, 0)
    east, north = torch.from_numpy(places.east_m), torch.from_numpy(places.north_m)
    view = panoramas(scene, Condition(), east, north, torch.full_like(east, 2.5), height_px=128)
    return Seen(view, satellite_tiles(scene, Condition(), east, north, span_m=50.0, size_px=128, from_above=False))


def test_flat_ground_is_placed_exactly() -> None:
    """A made-up panorama of level ground, 2.5 m below: no error at all; and only what is near enough is counted."""
    rows = 64
    latitude = (0.5 - (torch.arange(rows) + 0.5) / rows) * torch.pi
    depth = torch.where(latitude < 0, 2.5 / torch.sin(-latitude), torch.inf)[:, None].expand(rows, 2 * rows)[None]
    kind = torch.where(depth.isfinite(), int(Kind.ROAD), int(Kind.SKY)).to(torch.uint8)
    view = Rendered(rgb=torch.zeros(1, 3, rows, 2 * rows), kind=kind, depth_m=depth)
    error, distance = position_errors(view, RIGHT, within_m=10)
    assert 9 < float(distance.max()) < 10
    assert float(error.max()) < 1e-4
    turned, distance = position_errors(view, replace(RIGHT, heading_deg=10.0), within_m=10)
    torch.testing.assert_close(turned, distance * 2 * torch.sin(torch.tensor(5.0).deg2rad()), rtol=1e-4, atol=1e-4)
    low, distance = position_errors(view, replace(RIGHT, camera_height_m=2.0), within_m=10)
    torch.testing.assert_close(low, distance * 0.2, rtol=1e-4, atol=1e-4)


def test_top_view_equals_the_orthographic_ground_near_the_camera(seen: Seen) -> None:
    """On pixels that both truths call ground: colour error, of 255, below 5 within 5 m and below 14 within 10 m."""
    error, ground, distance = colour_errors(seen.view, seen.ground, TopView.from_span(128, 50.0, 2.5))
    assert error.shape == ground.shape == distance.shape == (8, 128, 128)
    assert float(error[distance < 5].nanmean()) < 5
    assert float(error[(distance >= 5) & (distance < 10)].nanmean()) < 14
    assert error[~ground].isnan().all()
    assert ground[distance < 5].float().mean() > ground[(distance >= 20) & (distance < 25)].float().mean()
