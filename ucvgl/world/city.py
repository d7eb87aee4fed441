"""A procedural city as a stack of raster layers, built from a style and a seed; bit for bit the same everywhere. Streets run along
lines of a bent grid (u, v) = (x, y) + smooth noise, so that every pixel finds its block, lot and place in the lot by a search
and a subtraction; what is built, painted or parked is a rule on these coordinates (build.py). Frame: metres east (x) and north
(y) from the south-west corner. Rasters are north up: row 0 is the northern edge. Pictures are taken at stops of drives along
the streets (Places)."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ucvgl.errors import InputError
from ucvgl.world.build import build_strip
from ucvgl.world.noise import Floats, between, hash32, unit
from ucvgl.world.plan import Plan
from ucvgl.world.styles import TRUNK, CityStyle, Kind

STRIP_ROWS = 128
MARGIN_M = 45.0  # from the city's edge: half a tile and what a panorama shows well
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


@dataclass(frozen=True)
class Places:
    """Stops in the order they are driven; (N,) each."""

    east_m: Floats  # in the city's frame
    north_m: Floats
    heading_deg: Floats  # of travel, clockwise from north
    drive: NDArray[np.int32]  # number of the street that is driven; stops of one drive follow each other

    def __len__(self) -> int:
        return len(self.east_m)

    @property
    def metres(self) -> Floats:
        """(N, 2) east and north."""
        return np.stack([self.east_m, self.north_m], -1)

    def take(self, index: NDArray) -> "Places":
        """The stops at those indices."""
        return Places(self.east_m[index], self.north_m[index], self.heading_deg[index], self.drive[index])


def street_places(city: City, spacing_m: float, *, margin_m: float = MARGIN_M) -> Places:
    """Stops every `spacing_m` metres along all streets, on the right-hand lane or quay, none nearer than 0.6 spacings."""
    plan, parts = city.plan, []
    for axis, (streets, others) in enumerate(((plan.northward, plan.eastward), (plan.eastward, plan.northward))):
        for street, line in enumerate(streets.lines):
            side = 1.0 if unit(city.seed, 97, axis, street)[0] < 0.5 else -1.0  # which way it is driven
            start = others.lines[0] + float(unit(city.seed, 98, axis, street)[0]) * spacing_m
            along = np.arange(start, others.lines[-1], spacing_m)
            segment = np.clip(np.searchsorted(others.lines, along, "right") - 1, 0, streets.half.shape[1] - 1)
            width, wet = streets.half[street, segment], streets.water[street, segment]
            # a lane beside the parked cars, the middle of narrow streets, the quay of canals
            offset = side * np.where(wet > 0, (wet + width) / 2, np.clip(width - 3.6, 0, 0.32 * width))
            on_line = np.full_like(along, line) + offset
            ahead = along + (0.5 if axis == 0 else -0.5) * side
            here, there = (plan.unbend(*((on_line, v) if axis == 0 else (v, on_line))) for v in (along, ahead))
            heading = np.degrees(np.arctan2(there[0] - here[0], there[1] - here[1])) % 360
            order = np.arange(len(along))[:: 1 if (side > 0) == (axis == 0) else -1]
            keep = order[width[order] > 0]
            parts.append(np.stack([*here, heading, np.full_like(along, axis * 1000 + street)], -1)[keep])
    stops = np.concatenate(parts)
    stops = stops[np.all((stops[:, :2] >= margin_m) & (stops[:, :2] <= city.size_m - margin_m), -1)]
    from scipy.spatial import cKDTree  # here: every process would wait for it

    close = cKDTree(stops[:, :2]).query_pairs(0.6 * spacing_m, output_type="ndarray")
    stops = np.delete(stops, np.unique(close.max(-1)), 0) if len(close) else stops
    return Places(*stops[:, :3].T.astype(np.float32), stops[:, 3].astype(np.int32))


def choose(places: Places, count: int, seed: int, *, whole_streets: bool = False) -> Places:
    """`count` stops drawn without replacement, kept in driving order; or those of whole streets, one after the other, the last one
    cut short. InputError if there are fewer."""
    if count > len(places):
        raise InputError("number of places", expected=f"at most {len(places)} at this spacing", found=count,
                         todo="Shorten spacing_m, enlarge the city or use more cities.")  # fmt: skip
    if whole_streets:
        streets = np.unique(places.drive)
        order = streets[np.argsort(hash32(seed, 505, streets), kind="stable")]
        return places.take(np.concatenate([np.flatnonzero(places.drive == street) for street in order])[:count])
    order = np.argsort(hash32(seed, 99, np.arange(len(places))), kind="stable")
    return places.take(np.sort(order[:count]))
