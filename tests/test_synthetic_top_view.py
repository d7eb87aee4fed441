"""Synthetic top views: sharp to the horizon, smeared beyond it."""

from dataclasses import replace

import pytest
import torch
from toy_sets import generator

from ucvgl.synthetic_top_view import Occlusion, horizon, smear

SIZE = 32
PLAIN = Occlusion(wall=0.0, shade=0.0)


def noise(count=6, seed=1):
    return torch.rand(count, 3, SIZE, SIZE, generator=generator(seed))


def radius():
    steps = (torch.arange(SIZE) + 0.5) * (2 / SIZE) - 1
    x, y = torch.meshgrid(steps, steps, indexing="xy")
    return torch.hypot(x, y)


def test_what_is_nearer_than_every_occluder_stays():
    images = noise()
    out = smear(images, Occlusion(), generator())
    near = radius() < Occlusion().nearest
    assert near.sum() > 10
    torch.testing.assert_close(out[..., near], images[..., near], atol=1e-5, rtol=0)


def test_beyond_the_horizon_the_colour_is_that_at_its_foot():
    """A tile whose colour is its radius becomes the lesser of radius and horizon, where nothing is painted."""
    far = radius().clamp(max=1.0)
    tile = far.expand(4, 3, SIZE, SIZE)
    settings = replace(PLAIN, nearest=0.4, farthest=0.8)
    seen = horizon(4, SIZE, settings, generator(3))
    out = smear(tile, settings, generator(3))
    expected = torch.minimum(far, seen)
    error = (out[:, 0] - expected).abs()
    inside = (radius() > 0.2) & (radius() < 0.9)
    assert error[:, inside].mean() < 0.01  # the sampling rounds where the ring of the horizon is thin
    assert error[:, inside].max() < 0.06


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_share_of_open_directions(share):
    seen = horizon(300, 16, replace(Occlusion(), open_share=share), generator())
    assert float((seen > 1.5).float().mean()) == pytest.approx(share, abs=0.04)
