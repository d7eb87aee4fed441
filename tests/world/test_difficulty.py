"""Levels: their bounds, their order, and that they draw the same for the same place."""

from dataclasses import fields

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ucvgl.world.difficulty import LEVELS, draw_nuisance

SPREADS = ("heading_deg", "tilt_deg", "tile_shift_m", "gain", "gamma", "noise", "blur_px", "haze")
ARRAYS = ("camera_height_m", "heading_deg", "pitch_deg", "roll_deg", "tile_shift_m", "day")


def test_levels_are_ordered_in_every_nuisance():
    easy, medium, hard = (LEVELS[name] for name in ("easy", "medium", "hard"))
    assert {f.name for f in fields(easy)} == {"name", "camera_height_m", "same_day", "seasons", *SPREADS}
    for name in SPREADS:
        assert getattr(easy, name) == 0 < getattr(medium, name) < getattr(hard, name), name
    for lower, higher in ((easy, medium), (medium, hard)):
        assert (
            higher.camera_height_m[0] < lower.camera_height_m[0] <= lower.camera_height_m[1] < higher.camera_height_m[1]
        )
        assert set(lower.seasons) <= set(higher.seasons)
    assert {sum(level.camera_height_m) / 2 for level in LEVELS.values()} == {2.5}  # what the method assumes


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(LEVELS)), st.integers(0, 2**31), st.integers(1, 90))
def test_draws_stay_within_three_spreads(name, seed, count):
    level, drawn = LEVELS[name], draw_nuisance(LEVELS[name], count, seed)
    low, high = level.camera_height_m
    assert ((drawn.camera_height_m >= low) & (drawn.camera_height_m <= high)).all()
    for value, spread in (
        (drawn.heading_deg, level.heading_deg),
        (drawn.pitch_deg, level.tilt_deg),
        (drawn.roll_deg, level.tilt_deg),
        (drawn.tile_shift_m, level.tile_shift_m),
    ):
        assert len(value) == count
        assert (np.abs(value) <= 3 * spread + 1e-5).all()
    gain = drawn.ground_sensor.gain
    assert gain.shape == (count, 3)
    assert (gain >= 0.3).all()
    assert ((gain - 1).abs() <= 4 * level.gain + 1e-5).all()  # exposure, and a third of it as balance
    assert (drawn.ground_sensor.gamma >= 0.4).all()
    assert ((drawn.day >= 0) & (drawn.day < len(drawn.days))).all()


def test_a_place_draws_the_same_whatever_comes_after_it():
    few, many = (draw_nuisance(LEVELS["hard"], count, 5) for count in (30, 100))
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(few, name), getattr(many, name)[:30])
    for field in ("gain", "gamma", "noise", "seed"):
        assert torch.equal(getattr(few.ground_sensor, field), getattr(many.ground_sensor, field)[:30])


def test_seeds_and_nuisances_are_independent():
    a, b = (draw_nuisance(LEVELS["hard"], 2000, seed) for seed in (1, 2))
    for x, y in (
        (a.heading_deg, b.heading_deg),
        (a.heading_deg, a.pitch_deg),
        (a.pitch_deg, a.roll_deg),
        (a.tile_shift_m[:, 0], a.tile_shift_m[:, 1]),
        (a.camera_height_m, a.ground_sensor.gamma.numpy()),
        (a.ground_sensor.gain[:, 0].numpy(), a.satellite_sensor.gain[:, 0].numpy()),
    ):
        assert abs(np.corrcoef(x, y)[0, 1]) < 0.08
    assert len(np.unique(a.ground_sensor.seed)) > 1990
