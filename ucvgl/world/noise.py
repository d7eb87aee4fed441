"""Hashes and value noise that give the same bits on every platform: a city is made of integer hashes and of sums, products,
quotients and floors of IEEE numbers, which every machine rounds alike; not of sines, powers and library random generators,
whose last bit differs between platforms and releases."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]


def hash32(*keys: ArrayLike) -> NDArray[np.uint32]:
    """Mix integer keys (broadcast against each other) into well-spread 32-bit numbers."""
    state = np.full((1,), 0x9E3779B9, np.uint32)
    for key in keys:
        state = state ^ np.asarray(key).astype(np.int64).astype(np.uint32)
        state = (state ^ (state >> np.uint32(16))) * np.uint32(0x7FEB352D)
        state = (state ^ (state >> np.uint32(15))) * np.uint32(0x846CA68B)
        state = state ^ (state >> np.uint32(16))
    return state


def unit(*keys: ArrayLike) -> Floats:
    """Uniform numbers in [0, 1) from integer keys; exact in float32 (24 bits)."""
    return (hash32(*keys) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def between(low: ArrayLike, high: ArrayLike, *keys: ArrayLike) -> Floats:
    """Uniform numbers in [low, high) from integer keys."""
    low32, high32 = np.asarray(low, np.float32), np.asarray(high, np.float32)
    return low32 + (high32 - low32) * unit(*keys)


@dataclass(frozen=True)
class Noise:
    """Value noise in [0, 1): random values on a lattice of `cell_m`, joined by the cubic 3t^2 - 2t^3."""

    lattice: Floats
    cell_m: float

    @classmethod
    def make(cls, size_m: float, cell_m: float, *keys: int) -> "Noise":
        """Noise over [0, size_m]^2; two cells of margin all round, so that warped coordinates stay inside."""
        count = int(size_m / cell_m) + 6
        rows, cols = np.meshgrid(np.arange(count), np.arange(count), indexing="ij")
        return cls(unit(*keys, rows, cols), cell_m)

    def _split(self, metres: NDArray) -> tuple[NDArray[np.int32], NDArray]:
        scaled = np.clip(metres / metres.dtype.type(self.cell_m) + 2, 0, self.lattice.shape[0] - 2)
        index = np.floor(scaled)
        t = scaled - index
        return index.astype(np.int32), t * t * (3 - 2 * t)

    def grid(self, x_m: NDArray, y_m: NDArray) -> NDArray:
        """Noise on the grid of x (W,) and y (H,): (H, W). Separable, so cheap."""
        column, tx = self._split(x_m)
        row, ty = self._split(y_m)
        lines = self.lattice[:, column] * (1 - tx) + self.lattice[:, column + 1] * tx  # (lattice, W)
        return lines[row] * (1 - ty)[:, None] + lines[row + 1] * ty[:, None]

    def at(self, x_m: NDArray, y_m: NDArray) -> NDArray:
        """Noise at scattered points x, y of one shape."""
        column, tx = self._split(x_m)
        row, ty = self._split(y_m)
        low = self.lattice[row, column] * (1 - tx) + self.lattice[row, column + 1] * tx
        high = self.lattice[row + 1, column] * (1 - tx) + self.lattice[row + 1, column + 1] * tx
        return low * (1 - ty) + high * ty
