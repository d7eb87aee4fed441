"""What a camera's sensor does to a picture: exposure, white balance, tone, blur and noise; gives bytes."""

import math
from dataclasses import dataclass

import torch
from numpy.typing import NDArray
from torch import Tensor

AIRLIGHT = (0.60, 0.66, 0.74)  # a pale blue, that haze adds


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
