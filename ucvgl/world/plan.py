"""The plan of a city: where its streets run, and what stands on each of its lots. Tables only, drawn from hashes."""

import numpy as np
from numpy.typing import NDArray

from ucvgl.world.kinds import FACADES, FLOOR_M
from ucvgl.world.noise import Floats, Noise, between, hash32, unit
from ucvgl.world.styles import CityStyle, Colour

LOTS_ALONG = 32  # lots along a block's longer side, at most; a table has 2 * 32 rows a block
HOUSE, GARDEN, CARPARK, PARK = 0, 1, 2, 3  # what a lot is used for


class Plan:
    """Streets of a city as tables; k counts street lines, (i, j) blocks from the south-west; metres."""

    def __init__(self, style: CityStyle, seed: int, size_m: float) -> None:
        self.style, self.seed, self.size_m = style, seed, size_m
        self.bend_x, self.bend_y = (Noise.make(size_m, style.bend_cell_m, seed, key) for key in (3, 4))
        self.lines_u, self.lines_v = self._lines(1), self._lines(2)  # of streets in the bent grid
        # of street segments, u [k, j] and v [i, k]: half width of the carriageway, 0 where the segment is missing; width of
        # the pavement; half width of the water in the middle; whether lanes are marked
        count_u, count_v = len(self.lines_u), len(self.lines_v)
        self.half_u, self.walk_u, self.water_u, self.marked_u = self._segments(count_u, count_v - 1, 10)
        across = self._segments(count_v, count_u - 1, 20)
        self.half_v, self.walk_v, self.water_v, self.marked_v = (table.T.copy() for table in across)

    def _lines(self, key: int) -> Floats:
        """Positions of parallel street lines, from beyond one edge of the city to beyond the other."""
        shortest, longest = self.style.block_m
        margin = 2 * self.style.bend_m + longest
        gaps = between(shortest, longest, self.seed, key, np.arange(int((self.size_m + 2 * margin) / shortest) + 2))
        lines = np.cumsum(gaps, dtype=np.float32) - np.float32(margin)
        return lines[lines < self.size_m + margin]

    def _segments(self, count: int, segments: int, key: int) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
        style, seed = self.style, self.seed
        line, segment = np.arange(count)[:, None], np.arange(segments)[None, :]
        main = unit(seed, key, line) < style.main_share
        canal = unit(seed, key + 1, line) < style.canal_share
        present = (unit(seed, key + 2, line, segment) >= style.missing_share) | main | canal
        half = np.where(main, style.main_street_m, style.minor_street_m).astype(np.float32) / 2
        water = np.where(canal, np.float32(5.5), np.float32(0)) * present
        half = np.where(canal, np.float32(5.5 + 5.5), half) * present
        walk = np.float32(style.pavement_m) * present
        marked = np.broadcast_to((unit(seed, key + 3, line) < style.lane_lines) & ~canal, present.shape)
        return half.astype(np.float32), walk.astype(np.float32), water.astype(np.float32), marked

    def bend(self, x_m: NDArray, y_m: NDArray) -> tuple[NDArray, NDArray]:
        """Bent coordinates (u, v) of scattered points."""
        swing = x_m.dtype.type(2 * self.style.bend_m)
        half = x_m.dtype.type(0.5)
        return x_m + swing * (self.bend_x.at(x_m, y_m) - half), y_m + swing * (self.bend_y.at(x_m, y_m) - half)

    def unbend(self, u: NDArray, v: NDArray) -> tuple[NDArray, NDArray]:
        """Points (x, y) whose bent coordinates are (u, v), by fixed-point iteration (a contraction; within 1 cm)."""
        x, y = u.astype(np.float64), v.astype(np.float64)
        for _ in range(60):
            bent_u, bent_v = self.bend(x, y)
            x, y = x + (u - bent_u), y + (v - bent_v)
        return x, y


class Lots:
    """What stands on each lot: a row for block * 2 * LOTS_ALONG + row * LOTS_ALONG + position; metres."""

    def __init__(self, plan: Plan) -> None:
        style, seed = plan.style, plan.seed
        blocks = (len(plan.lines_u) - 1) * (len(plan.lines_v) - 1)
        lot = np.arange(blocks * 2 * LOTS_ALONG)

        def draw(key: int) -> Floats:
            return unit(seed, 100 + key, lot)

        def spread(low: float, high: float, key: int) -> Floats:
            return between(low, high, seed, 100 + key, lot)

        def pick(colours: tuple[Colour, ...], key: int) -> Floats:
            return np.asarray(colours, np.float32)[(draw(key) * len(colours)).astype(np.int32)]

        use = np.where(draw(0) < style.vacant_share, GARDEN, HOUSE)
        use = np.where(draw(1) < style.parking_share, CARPARK, use)
        use = np.where(unit(seed, 99, lot // (2 * LOTS_ALONG)) < style.park_share, PARK, use)
        self.use = use.astype(np.uint8)
        floors = np.floor(spread(style.floors[0], style.floors[1] + 0.999, 2))
        pitched, wing = draw(3) < style.pitched_share, draw(4) < style.wing_share
        self.width = spread(*style.building_width, 5)  # share of the frontage
        self.depth = spread(*style.building_depth_m, 9)
        self.setback = spread(*style.setback_m, 10)
        self.shift = spread(-0.5, 0.5, 11) * (1 - self.width)  # along the street, share of the frontage
        self.height = floors * np.float32(FLOOR_M) + spread(0.4, 1.2, 12)
        self.slope = np.where(pitched, spread(0.45, 0.95, 13), np.float32(0))  # of the roof, rise over run
        self.hipped = draw(14) < 0.35
        self.wing_width = np.where(wing, spread(0.3, 0.55, 15), np.float32(0))
        self.wing_depth = np.where(wing, spread(3, 9, 16), np.float32(0))
        self.wing_shift = spread(-0.4, 0.4, 17)
        wing_floors = np.maximum(np.float32(1), np.floor(floors * spread(0.4, 1.0, 18)))
        self.wing_height = wing_floors * np.float32(FLOOR_M) + np.float32(0.2)
        self.facade = (1 + hash32(seed, 119, lot) % np.uint32(FACADES - 1)).astype(np.int16)
        roof = np.where(pitched[:, None], pick(style.roofs_pitched, 6), pick(style.roofs_flat, 6))
        self.roof = np.clip(roof * between(0.86, 1.12, seed, 107, lot)[:, None], 0, 255).astype(np.uint8)
        self.wing_roof = pick(style.roofs_flat, 8).astype(np.uint8)
        self.green = draw(20) < style.green_share
        self.hedge = draw(21) < style.hedge_share
        self.drive = spread(-0.42, 0.42, 22)  # the driveway's place, share of the frontage
