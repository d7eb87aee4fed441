"""A procedural city as a stack of raster layers, built from a style and a seed; bit for bit the same everywhere. Streets run along
lines of a bent grid (u, v) = (x, y) + smooth noise, so that every pixel finds its block, lot and place in the lot by a search
and a subtraction; what is built, painted or parked is a rule on these coordinates (build.py). Frame: metres east (x) and north
(y) from the south-west corner. Rasters are north up: row 0 is the northern edge."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ucvgl.errors import InputError
from ucvgl.world.build import build_strip
from ucvgl.world.noise import between, unit
from ucvgl.world.plan import Plan
from ucvgl.world.styles import TRUNK, CityStyle, Kind

STRIP_ROWS = 128
PIXELS_MAX = 32_000  # a side: all levels of the colour pyramid together are counted in 32 bits


@dataclass(frozen=True)
class City:
    """Raster layers of one city; `size_m` metres square, `resolution_m` metres a pixel.

    relief: int16 (N, N, 4): top of ground and buildings in cm above datum; underside and top of the tree crown in cm
        above that (0, 0: none); object number: 0 none, 1..FACADES building, -1..-CARS a parked car's cabin,
        -CARS-1..-2*CARS its bonnet or boot, -TRUNK trunk or hedge.
    surface: uint8 (N, N, 4): red, green, blue albedo of ground and roofs as in summer, and the class (Kind).
    facade: uint8 (N, N, 4): for buildings, outward normal of the nearest wall (east, north; 128 is zero, 127 steps to
        one), metres along that wall in quarters, height of the roof above ground in quarters of a metre.
    extra: uint8 (N, N, 2): light of street lamps at night; a random tint per tree.
    """

    style: CityStyle
    seed: int
    size_m: float
    resolution_m: float
    relief: NDArray[np.int16]
    surface: NDArray[np.uint8]
    facade: NDArray[np.uint8]
    extra: NDArray[np.uint8]
    plan: Plan


def make_city(style: CityStyle, seed: int, *, size_m: float = 768.0, resolution_m: float = 0.25) -> City:
    """Build a city of a style; another seed, 0 to 2^32 - 1, is another city of it. size_m: edge, 200 to 8000 metres;
    resolution_m: metres a pixel, 0.1 to 1; 0.25 shows lane lines. InputError outside these."""
    limits = {"world seed": (seed, 0, 2**32 - 1), "resolution_m": (resolution_m, 0.1, 1.0),
              "size_m": (size_m, 200, min(8000, PIXELS_MAX * resolution_m))}  # fmt: skip
    for name, (value, low, high) in limits.items():
        if not low <= value <= high:
            todo = "Choose another seed, coarser pixels (0.25), or several cities for more area."
            raise InputError(name, expected=f"{low:g} to {high:g}", found=value, todo=todo)
    plan = Plan(style, seed, size_m)
    count = round(size_m / resolution_m)
    channels = ((4, np.int16), (4, np.uint8), (4, np.uint8), (2, np.uint8))
    layers = [np.zeros((count, count, channel), dtype) for channel, dtype in channels]
    city = City(style, seed, size_m, resolution_m, *layers, plan)

    def build(first: int) -> None:
        # a single row left over belongs to the strip before: facades need the slope from row to row
        rows = slice(first, first + STRIP_ROWS if first + STRIP_ROWS < count - 1 else count)
        for layer, strip in zip(layers, build_strip(plan, resolution_m, rows), strict=True):
            layer[rows] = strip

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # strips are independent
        list(pool.map(build, range(0, count - 1, STRIP_ROWS)))
    plant_trees(city)
    return city


def plant_trees(city: City) -> None:
    """Put crowns and trunks on lawns, along pavements and in parks (in place), one jittered site every 5.5 m."""
    style, seed, cell = city.style, city.seed, 5.5
    count = int(city.size_m / cell)
    row, col = (grid.ravel() for grid in np.meshgrid(np.arange(count), np.arange(count), indexing="ij"))
    x = (col + between(0.1, 0.9, seed, 60, row, col)) * np.float32(cell)
    y = (row + between(0.1, 0.9, seed, 61, row, col)) * np.float32(cell)
    last = len(city.surface) - 1
    at_col, up = ((metres / np.float32(city.resolution_m)).astype(np.int64).clip(0, last) for metres in (x, y))
    at_row = last - up
    ground = city.surface[at_row, at_col, 3]
    share = np.zeros(len(Kind))
    share[[Kind.GRASS, Kind.PAVEMENT, Kind.PAVING]] = style.garden_trees, style.street_trees, 0.04
    for tree in np.nonzero(unit(seed, 62, row, col) < share[ground])[0]:
        _plant(city, int(at_row[tree]), int(at_col[tree]), int(tree), ground[tree])


def _plant(city: City, row: int, col: int, tree: int, ground: int) -> None:
    """One crown: an ellipsoid with a ragged rim, or a cone for conifers; and its trunk."""
    draws = unit(city.seed, 70, tree, np.arange(6))
    conifer = draws[0] < city.style.conifer_share and ground == Kind.GRASS
    street = ground == Kind.PAVEMENT
    radius = np.float32(1.4 + 1.1 * draws[1]) if conifer or street else np.float32(1.6 + 2.6 * draws[1] * draws[1])
    tall = np.float32(5.0 + 5.5 * draws[2]) if not street else np.float32(4.6 + 3.0 * draws[2])
    low = np.float32(0.8) if conifer else np.float32(2.3 + 0.5 * draws[3])
    reach = int(radius * 1.25 / city.resolution_m) + 1
    rows, cols = (slice(max(at - reach, 0), min(at + reach + 1, len(city.surface))) for at in (row, col))
    y, x = np.ogrid[rows, cols]
    dy, dx = ((at - middle).astype(np.float32) * np.float32(city.resolution_m) for at, middle in ((y, row), (x, col)))
    rim = unit(city.seed, 71, tree, y // 3, x // 3)
    distance = np.sqrt(dx * dx + dy * dy) / (radius * (np.float32(0.82) + np.float32(0.36) * rim))
    relief, surface = city.relief[rows, cols], city.surface[rows, cols]
    crown = (distance < 1) & (surface[..., 3] != Kind.ROOF)
    if conifer:
        high, under = low + (tall - low) * (1 - distance), np.full_like(distance, low)
    else:
        bulge = np.sqrt(np.maximum(1 - distance * distance, 0))
        middle = low + (tall - low) * np.float32(0.4)
        high, under = middle + (tall - middle) * bulge, middle - (middle - low) * bulge
    high_cm, low_cm = np.rint(high * 100).astype(np.int16), np.rint(under * 100).astype(np.int16)
    old = relief[..., 2] > 0
    relief[..., 1] = np.where(crown, np.where(old, np.minimum(relief[..., 1], low_cm), low_cm), relief[..., 1])
    wins = crown & (high_cm > relief[..., 2])
    tint = np.uint8(int(draws[4] * 127) * 2 + int(conifer))  # the lowest bit says conifer
    city.extra[rows, cols, 1] = np.where(wins, tint, city.extra[rows, cols, 1])
    relief[..., 2] = np.where(wins, high_cm, relief[..., 2])
    trunk = (dx * dx + dy * dy < np.float32(0.32**2)) & (relief[..., 3] == 0) & (surface[..., 3] != Kind.ROOF)
    rise_cm = np.int16((low + 0.4) * 100) * trunk.astype(np.int16)
    relief[..., :3] += np.stack([rise_cm, -rise_cm, -rise_cm], -1)  # the crown stays where it is above the ground
    relief[..., 3] = np.where(trunk, -TRUNK, relief[..., 3])
    surface[trunk] = (84, 66, 50, Kind.TREE)
