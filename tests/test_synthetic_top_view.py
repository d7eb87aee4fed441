"""Synthetic top views: sharp to the horizon, smeared beyond it."""

import torch
from toy_sets import generator

from ucvgl.augment import Occlusion, horizon, smear

SIZE = 32
STEPS = (torch.arange(SIZE) + 0.5) * (2 / SIZE) - 1
RADIUS = torch.hypot(STEPS[:, None], STEPS)


def test_what_is_nearer_than_every_occluder_stays():
    images = torch.rand(6, 3, SIZE, SIZE, generator=generator(1))
    out = smear(images, Occlusion(), generator())
    near = RADIUS < 0.19  # the nearest there is
    torch.testing.assert_close(out[..., near], images[..., near], atol=1e-5, rtol=0)


def test_beyond_the_horizon_the_colour_is_that_at_its_foot():
    """A tile whose colour is its radius becomes the lesser of radius and horizon, where nothing is painted."""
    far = RADIUS.clamp(max=1.0)
    settings = Occlusion(wall=0.0, shade=0.0, nearest=0.4, farthest=0.8)
    out = smear(far.expand(4, 3, SIZE, SIZE), settings, generator(3))
    error = (out[:, 0] - torch.minimum(far, horizon(4, SIZE, settings, generator(3)))).abs()
    inside = (RADIUS > 0.2) & (RADIUS < 0.9)
    assert error[:, inside].mean() < 0.01  # the sampling rounds where the ring of the horizon is thin
    assert error[:, inside].max() < 0.06
