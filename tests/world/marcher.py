"""A slow, independent ray marcher over a city's layers: what the ray caster must agree with."""

import numpy as np
from numpy.typing import NDArray

from ucvgl.world.appearance import Condition
from ucvgl.world.city import City
from ucvgl.world.noise import unit
from ucvgl.world.styles import BONNET_HEIGHT_M, CAR_HEIGHT_M, CARS, TRUNK, Kind


def march(
    city: City, condition: Condition, eye: tuple[float, float, float], azimuth: NDArray, slope: NDArray,
    *, step_m: float = 0.05, range_max_m: float = 170.0,
) -> tuple[NDArray, NDArray]:  # fmt: skip
    """Depth and class of rays from eye (east, north, metres above datum), by steps of `step_m` along the ground.

    azimuth, slope: (M,) radians clockwise from north, rise over run. Every pixel is a column with a flat top; a ray that
    enters an object's column from the side, 0.3 m or more below its top, meets a wall. Crowns have no holes.
    """
    number = city.relief[..., 3].astype(int)
    car = (number < 0) & (number > -TRUNK)
    car &= unit(city.seed, 90, condition.traffic, (-number - 1) % CARS) < 0.72
    solid = city.relief[..., 0] / 100 + car * np.where(number >= -CARS, CAR_HEIGHT_M, BONNET_HEIGHT_M)
    crown = city.relief[..., 2] > 0
    low = (city.relief[..., 0] + city.relief[..., 1].astype(int)) / 100
    high = (city.relief[..., 0] + city.relief[..., 2].astype(int)) / 100
    kind = np.where(car, int(Kind.CAR), city.surface[..., 3])
    side = np.where(number > 0, int(Kind.WALL), np.where(number > -TRUNK, int(Kind.CAR), int(Kind.TREE)))
    pixels = len(solid)

    depth = np.full(len(slope), np.inf)
    seen = np.full(len(slope), int(Kind.SKY))
    active = np.arange(len(slope))
    before = np.full(len(slope), -np.inf)
    for run in np.arange(step_m, range_max_m, step_m):
        col = ((eye[0] + np.sin(azimuth[active]) * run) / city.resolution_m).astype(int).clip(0, pixels - 1)
        row = (pixels - (eye[1] + np.cos(azimuth[active]) * run) / city.resolution_m).astype(int).clip(0, pixels - 1)
        z = eye[2] + slope[active] * run
        top = solid[row, col]
        met = z <= top
        leaves = ~met & crown[row, col] & (z <= high[row, col]) & (z >= low[row, col])
        wall = met & (number[row, col] != 0) & (top - before[active] > 0.3) & (before[active] > -np.inf)
        found = np.where(leaves, int(Kind.TREE), np.where(wall, side[row, col], kind[row, col]))
        done = met | leaves
        at = active[done]
        drop = np.where(slope[at] < 0, (top[done] - eye[2]) / slope[at], run)  # where it meets the top, within the step
        last = np.where(wall[done] | leaves[done], run, np.clip(drop, run - step_m, run))
        depth[at] = last * np.sqrt(1 + slope[at] ** 2)
        seen[at] = found[done]
        before[active] = top
        active = active[~done]
        if not len(active):
            break
    return depth, seen
