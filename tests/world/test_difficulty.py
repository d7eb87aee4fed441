"""Levels draw the same for the same place, within their spreads; sensors: exposure, tone, blur and noise by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as V

from ucvgl.world.difficulty import AIRLIGHT, LEVELS, Sensor, draw_nuisance, expose


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


def picture(count: int = 2, rows: int = 12, columns: int = 24) -> torch.Tensor:
    return torch.rand(count, 3, rows, columns, generator=torch.Generator().manual_seed(1))


def sensor(count: int = 2, *, gain=(1.0, 1.0, 1.0), gamma=1.0, noise=0.0, seed=0, blur_px=0.0) -> Sensor:
    seeds = torch.arange(seed, seed + count, dtype=torch.int32)
    return Sensor(
        torch.tensor([gain] * count), torch.full((count,), gamma), torch.full((count,), noise), seeds, blur_px
    )


def test_exposure_white_balance_and_tone_by_hand():
    rgb = picture()
    rgb[0, 0, 0, :3] = torch.tensor([-0.1, 1.2, 0.5])
    out = expose(rgb, sensor(2))  # a neutral one only rounds
    assert torch.equal(out, (rgb.clamp(0, 1) * 255).round().to(torch.uint8))
    grey, ends = torch.full((1, 3, 2, 2), 0.5), torch.tensor([0.0, 1.0]).expand(1, 3, 1, 2)
    assert expose(grey, sensor(1, gain=(1.2, 1.0, 0.4)))[0, :, 0, 0].tolist() == [153, 128, 51]
    assert expose(grey, sensor(1, gamma=2.0))[0, 0, 0, 0] == round(255 * 0.25)
    assert expose(ends, sensor(1, gamma=0.5))[0, 0, 0].tolist() == [3, 255]  # black is held at 1e-4, its root is 1 %


def test_noise_is_bounded_grey_triangular_and_repeatable():
    grey = torch.full((2, 3, 64, 128), 0.5)
    out = expose(grey, sensor(noise=0.2, seed=5))
    change = out.float() / 255 - 0.5
    assert torch.equal(out, expose(grey, sensor(noise=0.2, seed=5)))
    assert torch.equal(out[:, 0], out[:, 2])  # luminance only
    assert 0.19 < change.abs().max() < 0.2 + 1 / 255
    assert change.mean().abs() < 0.005
    assert float(change.std()) == pytest.approx(0.2 / 6**0.5, rel=0.03)  # a triangle's
    one, other = change[:, 0]  # another seed is other noise, and so is another pixel
    for a, b in ((one, other), (one[:, 1:], one[:, :-1])):
        assert abs(np.corrcoef(a.flatten(), b.flatten())[0, 1]) < 0.05


@pytest.mark.parametrize("blur_px", [0.4, 0.9, 1.6])
def test_blur_is_a_gaussian_to_two_standard_deviations(blur_px):
    rgb = picture()
    size = 2 * int(np.ceil(2 * blur_px - 1e-3)) + 1
    expected = V.gaussian_blur(rgb, [size, size], [blur_px, blur_px])
    out = expose(rgb, sensor(blur_px=blur_px)).float()
    assert (out - (expected * 255)).abs().max() <= 0.51


def test_haze_by_hand():
    """Half of a red picture's colour goes to its grey of 0.3 at a haze of a third, then a third to the airlight."""
    red, mixed = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1), torch.tensor([0.65, 0.15, 0.15])
    hazy = expose(red, replace(sensor(1), haze=1 / 3)).flatten() / 255
    torch.testing.assert_close(hazy, mixed * 2 / 3 + torch.tensor(AIRLIGHT) / 3, atol=1 / 255, rtol=0)
