"""Levels: their order, and that they draw the same for the same place, within their spreads."""

import numpy as np
import pytest
import torch

from ucvgl.world.difficulty import LEVELS, draw_nuisance

SPREADS = ("heading_deg", "tilt_deg", "tile_shift_m", "gain", "gamma", "noise", "blur_px", "haze")


@pytest.mark.parametrize("name", LEVELS)
def test_draws_stay_within_three_spreads(name):
    level, drawn = LEVELS[name], draw_nuisance(LEVELS[name], 2000, 7)
    low, high = level.camera_height_m
    assert ((drawn.camera_height_m >= low) & (drawn.camera_height_m <= high)).all()
    gain = drawn.ground_sensor.gain.numpy()
    assert gain.shape == (2000, 3)
    for value, spread in (
        (drawn.heading_deg, level.heading_deg), (drawn.pitch_deg, level.tilt_deg), (drawn.roll_deg, level.tilt_deg),
        (drawn.tile_shift_m, level.tile_shift_m), (gain - 1, level.gain * 4 / 3),  # exposure, and a third of it as balance
    ):  # fmt: skip
        assert np.abs(value).max() <= 3 * spread + 1e-5
        assert np.std(value) >= 0.75 * spread
    assert set(drawn.day) == set(range(len(drawn.days)))


def test_a_place_draws_the_same_whatever_comes_after_it_and_seeds_are_independent():
    few, many, other = (draw_nuisance(LEVELS["hard"], *what) for what in ((30, 5), (2000, 5), (2000, 6)))
    for name in ("camera_height_m", "heading_deg", "pitch_deg", "roll_deg", "tile_shift_m", "day"):
        np.testing.assert_array_equal(getattr(few, name), getattr(many, name)[:30])
    for field in ("gain", "gamma", "noise", "seed"):
        assert torch.equal(getattr(few.ground_sensor, field), getattr(many.ground_sensor, field)[:30])
    draws = [
        many.heading_deg, other.heading_deg, many.pitch_deg, many.roll_deg, *many.tile_shift_m.T, many.camera_height_m,
        many.ground_sensor.gamma, many.ground_sensor.gain[:, 0], many.satellite_sensor.gain[:, 0],
    ]  # fmt: skip
    assert np.abs(np.corrcoef(draws) - np.eye(len(draws))).max() < 0.09
