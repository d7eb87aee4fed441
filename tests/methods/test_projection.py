"""The projection's error is what the formula says of a wrong belief; the two descriptors that need no learning."""

from dataclasses import replace

import torch
from torchvision.transforms.v2 import functional as V
from toy_sets import generator

from ucvgl.geometry import TopView
from ucvgl.methods.baselines import colour_descriptor, pixel_descriptor
from ucvgl.methods.projection import position_errors
from ucvgl.world.render import Rendered
from ucvgl.world.styles import Kind

RIGHT = TopView(camera_height_m=2.5)


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


def test_pixels_ignore_light_and_contrast() -> None:
    coarse = torch.rand(6, 3, 6, 6, generator=generator())
    images = (V.resize(coarse, [48, 48], antialias=True) * 255).round()
    dimmed = images * 0.6 + 20
    similarity = (pixel_descriptor(images) * pixel_descriptor(dimmed)).sum(1)
    torch.testing.assert_close(similarity, torch.ones(6), atol=1e-5, rtol=0)


def test_colours_by_hand() -> None:
    image = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    image[0, :, 0, 0] = 255  # one white pixel, three black: bins 511 and 0
    descriptor = colour_descriptor(image)[0]
    torch.testing.assert_close(descriptor[[0, 511]], torch.tensor([0.75, 0.25]).sqrt())
    assert int((descriptor > 0).sum()) == 2
