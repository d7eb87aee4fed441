"""Days: shadows against a march towards the sun, the colour pyramid."""

import math

import numpy as np
import pytest
import torch

from ucvgl.world.appearance import Condition, shadow_ceiling
from ucvgl.world.styles import Kind


def marched_ceiling(height, resolution_m, condition):
    """For each pixel the highest line of sight to the sun that something blocks, found by walking towards the sun."""
    east, north, up = condition.sun
    flat = math.hypot(east, north)
    count = len(height)
    rows, cols = np.indices(height.shape)
    best = np.full(height.shape, -1000.0)
    for run in np.arange(resolution_m / 2, count * resolution_m * 1.5, resolution_m / 4):
        r = np.floor(rows + 0.5 - run * north / flat / resolution_m).astype(int)
        c = np.floor(cols + 0.5 + run * east / flat / resolution_m).astype(int)
        inside = (r >= 0) & (r < count) & (c >= 0) & (c < count) & ((r != rows) | (c != cols))
        casts = height[r.clip(0, count - 1), c.clip(0, count - 1)] - run * up / flat
        best = np.where(inside, np.maximum(best, casts), best)
    return best


@pytest.mark.parametrize("azimuth", [0.0, 165.0, 290.0])
def test_shadows_are_those_of_a_march_towards_the_sun(garden, azimuth):
    # the sweep interpolates, so that edges blur on the way: nine tenths of the ceilings lie within half a metre (a pixel)
    height = garden.relief[100:260, 100:260, 0] / 100
    condition = Condition(sun_azimuth_deg=azimuth, sun_elevation_deg=40, cloud=0)
    ceiling = shadow_ceiling(torch.from_numpy(height).float(), 0.5, condition).numpy()
    expected = marched_ceiling(height, 0.5, condition)
    blocked = expected > -100
    assert np.quantile(np.abs(ceiling - expected)[blocked], 0.9) < 0.5
    assert ((ceiling > height) == (expected > height)).mean() > 0.93
    assert 0.08 < (expected > height).mean() < 0.3  # there is shadow, and there is sun


@pytest.mark.parametrize("azimuth", [0.0, 90.0, 180.0, 270.0])
def test_a_box_casts_a_shadow_as_long_as_it_is_high_at_45_degrees(azimuth):
    height = torch.zeros(64, 64)
    height[28:36, 28:36] = 8.0
    ceiling = shadow_ceiling(height, 0.5, Condition(sun_azimuth_deg=azimuth, sun_elevation_deg=45, cloud=0))
    # turn the picture so that the sun stands in the north: the shadow falls to the south
    turned = torch.rot90(ceiling, round(azimuth / 90))
    np.testing.assert_allclose(turned[36:52, 32], 8 - 0.5 * np.arange(1, 17), atol=1e-3)
    assert (turned[53:, 32] < 0).all()
    assert (turned[:28, 32] < 0).all()  # none towards the sun
    assert (turned[40, [20, 44]] < 0).all()  # none aside


def test_the_pyramid_keeps_the_mean(scene):
    lit = scene.lit(Condition(cloud=0.0, sun_elevation_deg=45.0), from_above=True)
    levels = lit.texels.split(lit.sizes.square().tolist())
    means = [level[:, :3].float().mean(0) for level in levels]
    assert lit.sizes.tolist() == [448, 224, 112, 56, 28, 14]
    assert set(levels[-1][:, 3].tolist()) <= set(Kind)
    torch.testing.assert_close(torch.stack(means), means[0].expand(6, 3), atol=0.6, rtol=0)  # rounding of five halvings
