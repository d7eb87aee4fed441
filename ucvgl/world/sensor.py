"""What a camera's sensor does to a picture: exposure, white balance, tone, blur and noise; gives bytes."""

from dataclasses import dataclass

import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as V

from ucvgl.errors import InputError


@dataclass(frozen=True)
class Sensor:
    """One camera per picture, float32 tensors on the pictures' device.

    gain: (B, 3) exposure times white balance per channel, 1 neutral; gamma: (B,) tone curve, 1 neutral;
    noise: (B,) peak of the noise in 0..1; seed: (B,) int32, picks the noise; blur_px: standard deviation, 0 off.
    """

    gain: Tensor
    gamma: Tensor
    noise: Tensor
    seed: Tensor
    blur_px: float = 0.0

    @classmethod
    def neutral(cls, count: int, device: torch.device | str = "cpu") -> "Sensor":
        """A perfect camera for each of `count` pictures."""
        one = torch.ones(count, device=device)
        return cls(one[:, None].expand(-1, 3), one, 0 * one, torch.zeros(count, dtype=torch.int32, device=device))

    def take(self, index: NDArray) -> "Sensor":
        """The cameras of some pictures."""
        at = torch.from_numpy(index).to(self.gain.device)
        return Sensor(self.gain[at], self.gamma[at], self.noise[at], self.seed[at], self.blur_px)


def expose(rgb: Tensor, sensor: Sensor) -> Tensor:
    """Pictures as bytes: (B, 3, H, W) float in 0..1 -> uint8, the same on any device up to one grey level.

    Raises:
        InputError: the sensor holds another number of cameras than there are pictures.
    """
    if len(sensor.gain) != len(rgb):
        raise InputError("sensor", expected=f"{len(rgb)} cameras", found=len(sensor.gain), todo="Give one per picture.")
    if sensor.blur_px > 0:
        size = 2 * int(2 * sensor.blur_px + 0.999) + 1
        rgb = V.gaussian_blur(rgb, [size, size], [sensor.blur_px, sensor.blur_px])
    out = (rgb * sensor.gain[:, :, None, None]).clamp(0, 1)
    if not bool((sensor.gamma == 1).all()):
        out = out.clamp(min=1e-4).pow(sensor.gamma[:, None, None, None])
    if bool((sensor.noise > 0).any()):
        out = out + sensor.noise[:, None, None, None] * _noise(out, sensor.seed)
    return (out * 255).clamp(0, 255).round().to(torch.uint8)


def _noise(like: Tensor, seed: Tensor) -> Tensor:
    """Noise in -1..1 with a triangular density from an integer hash of seed and pixel, (B, 1, H, W): luminance only."""
    pixels = like.shape[-2] * like.shape[-1]
    counter = (
        torch.arange(pixels, device=like.device, dtype=torch.int32)[None] + seed.to(torch.int32)[:, None] * 668265263
    )
    counter = (counter ^ (counter >> 15)) * 739982445  # int32 products wrap around, on every device
    counter = (counter ^ (counter >> 12)) * 695872825
    counter = counter ^ (counter >> 15)
    half = (counter & 0xFFFF).float() + ((counter >> 16) & 0xFFFF).float()
    return (half * (1 / 65535) - 1).reshape(len(like), 1, *like.shape[-2:])
