"""How hard the world is: each nuisance a number, three named levels, what a level draws for N pictures, and what a camera's sensor
makes of one: exposure, white balance, tone, blur and noise; it gives bytes."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ucvgl.world.appearance import SEASONS, Condition
from ucvgl.world.noise import Floats, between, hash32, unit


@dataclass(frozen=True)
class Difficulty:
    """The nuisances between a panorama and its tile; spreads are standard deviations of a bell that ends at three."""

    name: str
    camera_height_m: tuple[float, float]  # lowest, highest; the method assumes the middle
    heading_deg: float  # spread of the panorama's heading error
    tilt_deg: float  # spread of pitch and of roll
    tile_shift_m: float  # spread of the tile's centre, in each direction
    gain: float  # spread of exposure, and a third of it per channel for white balance
    gamma: float  # spread of the tone curve's exponent
    noise: float  # peak of sensor noise, share of white
    blur_px: float  # of the panorama, standard deviation
    haze: float  # in the satellite's pictures: part of the light that the air scatters in
    same_day: bool  # street and satellite on one day: same season, sun and cars
    seasons: tuple[str, ...]  # of the street-level drives, if not the same day


LEVELS = {  # height, heading, tilt, shift, gain, gamma, noise, blur, haze, same day, seasons
    "easy": Difficulty("easy", (2.5, 2.5), 0, 0, 0, 0, 0, 0.0, 0, 0.0, True, SEASONS[1:2]),
    # the default: UCVGL's cold start, by small encoders, lands where it was published (notebook 02)
    "medium": Difficulty("medium", (2.1, 2.9), 2.5, 0.7, 2.0, 0.25, 0.18, 0.05, 0.6, 0.3, False, SEASONS[:3]),
    "hard": Difficulty("hard", (1.8, 3.2), 4.5, 1.0, 3.2, 0.30, 0.20, 0.08, 0.9, 0.4, False, SEASONS),
}
DEFAULT_LEVEL = "medium"
DRIVES = 3  # street-level days of a city
DAY_KEYS = (203, 204, 205, 206)  # of the hashes that their days are drawn from
AIRLIGHT = (0.60, 0.66, 0.74)  # a pale blue, that haze adds
STOPS_A_DRIVE = 40  # neighbouring places that were passed on one day


@dataclass(frozen=True)
class Sensor:
    """One camera per picture, float32 tensors on the pictures' device."""

    gain: Tensor  # (B, 3) exposure times white balance per channel, 1 neutral
    gamma: Tensor  # (B,) tone curve, 1 neutral
    noise: Tensor  # (B,) peak of the noise in 0..1
    seed: Tensor  # (B,) int32, picks the noise
    blur_px: float = 0.0  # standard deviation, 0 off
    haze: float = 0.0  # part of the light that the air between scatters in: greys colours and lifts them to a pale blue

    def take(self, index: NDArray) -> "Sensor":
        """The cameras of some pictures."""
        at = torch.from_numpy(index).to(self.gain.device)
        return Sensor(self.gain[at], self.gamma[at], self.noise[at], self.seed[at], self.blur_px, self.haze)


@dataclass(frozen=True)
class Nuisance:
    """What a level drew for N places: poses of the cameras, shifts of the tiles, days and sensors."""

    camera_height_m: Floats
    heading_deg: Floats
    pitch_deg: Floats
    roll_deg: Floats
    tile_shift_m: Floats  # (N, 2) east, north
    day: NDArray[np.int32]  # index into `days`
    days: tuple[Condition, ...]
    ground_sensor: Sensor
    satellite_sensor: Sensor


def satellite_condition(seed: int) -> Condition:
    """The day a city's satellite mosaic was taken: a clear summer's late morning."""
    azimuth, elevation = between(135, 175, seed, 201)[0], between(48, 60, seed, 202)[0]
    return Condition("summer", float(azimuth), float(elevation), 0.05, 0.0, 1)


def street_day(seed: int, keys: tuple[int, ...], number: int, seasons: tuple[str, ...], traffic: int) -> Condition:
    """A day of a city's street pictures: season, azimuth, elevation and cloud are drawn by a key each."""
    season = seasons[int(hash32(seed, keys[0], number)[0]) % len(seasons)]
    bounds = (95, 265), (18, 30) if season == "winter" else (28, 58), (0.0, 0.9)
    sun_and_cloud = (float(between(*pair, seed, key, number)[0]) for pair, key in zip(bounds, keys[1:], strict=True))
    return Condition(season, *sun_and_cloud, 0.0, traffic)


def draw_nuisance(level: Difficulty, count: int, seed: int, device: torch.device | str = "cpu") -> Nuisance:
    """Draw the nuisances of `count` places of a city; the same for the same level, seed and place number."""
    place = np.arange(count)

    def spread(scale: float, key: int) -> Floats:
        """Three uniform draws, summed: a bell of standard deviation `scale` that ends at three (exact on any platform)."""
        first, second, third = (unit(seed, key, place, k) for k in range(3))
        return np.float32(scale) * (2 * (first + second + third) - 3)

    def sensor(key: int, strength: float, blur_px: float, haze: float) -> Sensor:
        exposure = spread(level.gain * strength, key)[:, None]
        balance = np.stack([spread(level.gain * strength / 3, key + 1 + channel) for channel in range(3)], -1)
        gain = np.maximum(1 + exposure + balance, np.float32(0.3))
        gamma = np.maximum(1 + spread(level.gamma * strength, key + 4), np.float32(0.4))
        noise, picks = np.full(count, level.noise * strength, np.float32), hash32(seed, key + 5, place).astype(np.int32)
        return Sensor(*(torch.from_numpy(x).to(device) for x in (gain, gamma, noise, picks)), blur_px, haze)

    days: tuple[Condition, ...] = (satellite_condition(seed),)
    if not level.same_day:
        days = tuple(street_day(seed, DAY_KEYS, k, level.seasons, 2 + k) for k in range(DRIVES))
    height_m, heading_deg = between(*level.camera_height_m, seed, 210, place), spread(level.heading_deg, 211)
    pitch_deg, roll_deg = (spread(level.tilt_deg, key) for key in (212, 213))
    tile_shift_m = np.stack([spread(level.tile_shift_m, key) for key in (214, 215)], -1)
    day = (hash32(seed, 216, place // STOPS_A_DRIVE) % np.uint32(len(days))).astype(np.int32)
    sensors = sensor(220, 1.0, level.blur_px, 0.0), sensor(230, 0.3, 0.0, level.haze)
    return Nuisance(height_m, heading_deg, pitch_deg, roll_deg, tile_shift_m, day, days, *sensors)


def expose(rgb: Tensor, sensor: Sensor) -> Tensor:
    """Pictures as bytes: (B, 3, H, W) float in 0..1 -> uint8, the same on any device up to one grey level."""
    if sensor.blur_px > 0:
        rgb = _blur(_blur(rgb, sensor.blur_px, -1), sensor.blur_px, -2)
    if sensor.haze > 0:  # mixed with their own grey, by 1.5 times the haze, and then with the airlight
        grey = rgb[:, :1] * 0.3 + rgb[:, 1:2] * 0.59 + rgb[:, 2:] * 0.11
        mixed, air = min(1.0, 1.5 * sensor.haze), torch.tensor(AIRLIGHT, device=rgb.device).view(1, 3, 1, 1)
        rgb = (rgb * (1 - mixed) + grey * mixed) * (1 - sensor.haze) + air * sensor.haze
    out = (rgb * sensor.gain[:, :, None, None]).clamp(0, 1)
    if not bool((sensor.gamma == 1).all()):
        # a power by way of logarithms: pow itself rounds otherwise at the end of a vector, so depends on the batch
        out = out.clamp_(min=1e-4).log_().mul_(sensor.gamma[:, None, None, None]).exp_()
    out = out + sensor.noise[:, None, None, None] * _noise(out, sensor.seed)
    return (out * 255).clamp(0, 255).round().to(torch.uint8)


def _blur(rgb: Tensor, sigma_px: float, axis: int) -> Tensor:
    """Gaussian blur along one axis, out to two standard deviations, reflecting at the edges: a sum of shifted pictures."""
    size = rgb.shape[axis]
    reach = min(math.ceil(2 * sigma_px - 1e-3), size - 1)
    weight = [math.exp(-0.5 * (step / sigma_px) ** 2) for step in range(reach + 1)]
    total = weight[0] + 2 * sum(weight[1:])
    out = rgb * (weight[0] / total)
    for step in range(1, reach + 1):
        share = weight[step] / total
        out.narrow(axis, 0, size - step).add_(rgb.narrow(axis, step, size - step), alpha=share)
        out.narrow(axis, step, size - step).add_(rgb.narrow(axis, 0, size - step), alpha=share)
        # the edge pixel itself is not repeated
        out.narrow(axis, 0, step).add_(rgb.narrow(axis, 1, step).flip(axis), alpha=share)
        out.narrow(axis, size - step, step).add_(rgb.narrow(axis, size - 1 - step, step).flip(axis), alpha=share)
    return out


def _noise(like: Tensor, seed: Tensor) -> Tensor:
    """Noise in -1..1 with a triangular density from an integer hash of seed and pixel, (B, 1, H, W): luminance only."""
    pixels = like.shape[-2] * like.shape[-1]
    pixel = torch.arange(pixels, device=like.device, dtype=torch.int32)
    counter = pixel[None] + seed.to(torch.int32)[:, None] * 668265263
    # int32 products wrap around, on every device; shifts copy the sign downwards, which the masks undo
    counter = (counter ^ ((counter >> 15) & 0x1FFFF)) * 739982445
    counter = (counter ^ ((counter >> 12) & 0xFFFFF)) * 695872825
    counter = counter ^ ((counter >> 15) & 0x1FFFF)
    half = (counter & 0xFFFF).float() + ((counter >> 16) & 0xFFFF).float()
    return (half * (1 / 65535) - 1).reshape(len(like), 1, *like.shape[-2:])
