"""The plan of a city: where its streets run, what stands on each lot, drawn from hashes; and where each pixel lies in it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ucvgl.world.noise import Floats, Noise, between, hash32, unit
from ucvgl.world.styles import FACADES, FLOOR_M, CityStyle, Colour

LOTS_ALONG = 32  # lots along a block's longer side, at most; a table has 2 * 32 rows a block
Mask = NDArray[np.bool_]
HOUSE, GARDEN, CARPARK, PARK = 0, 1, 2, 3  # what a lot is used for


@dataclass(frozen=True)
class Streets:
    """Parallel streets as tables [line, segment between two lines of the other direction]; metres."""

    lines: Floats  # (K,) in the bent grid
    half: Floats  # half width of the carriageway, 0 where the segment is missing
    walk: Floats  # width of the pavement
    water: Floats  # half width of the water in the middle
    marked: Mask  # whether lanes are marked


class Plan:
    """Streets of a city as tables; metres."""

    def __init__(self, style: CityStyle, seed: int, size_m: float) -> None:
        self.style, self.seed, self.size_m = style, seed, size_m
        self.bend_x, self.bend_y = (Noise.make(size_m, style.bend_cell_m, seed, key) for key in (3, 4))
        self.relief = (Noise.make(size_m, 260, seed, 5), Noise.make(size_m, 90, seed, 6))
        self.mottle = tuple(Noise.make(size_m, cell, seed, key) for cell, key in ((9.0, 7), (2.2, 8), (0.7, 9)))
        self.paths = Noise.make(size_m, 42.0, seed, 30)
        lines_u, lines_v = self._lines(1), self._lines(2)
        self.northward = self._streets(lines_u, len(lines_v) - 1, 10)
        self.eastward = self._streets(lines_v, len(lines_u) - 1, 20)
        self.lots = Lots(self)

    def _lines(self, key: int) -> Floats:
        """Positions of parallel street lines, from beyond one edge of the city to beyond the other."""
        shortest, longest = self.style.block_m
        margin = 2 * self.style.bend_m + longest
        gaps = between(shortest, longest, self.seed, key, np.arange(int((self.size_m + 2 * margin) / shortest) + 2))
        lines = np.cumsum(gaps, dtype=np.float32) - np.float32(margin)
        return lines[lines < self.size_m + margin]

    def _streets(self, lines: Floats, segments: int, key: int) -> Streets:
        style, seed = self.style, self.seed
        line, segment = np.arange(len(lines))[:, None], np.arange(segments)[None, :]
        main = unit(seed, key, line) < style.main_share
        canal = unit(seed, key + 1, line) < style.canal_share
        present = (unit(seed, key + 2, line, segment) >= style.missing_share) | main | canal
        half = np.where(main, style.main_street_m, style.minor_street_m).astype(np.float32) / 2
        half = np.where(canal, np.float32(5.5 + 5.5), half) * present
        walk, water = np.float32(style.pavement_m) * present, np.where(canal, np.float32(5.5), np.float32(0)) * present
        marked = np.broadcast_to((unit(seed, key + 3, line) < style.lane_lines) & ~canal, present.shape)
        return Streets(lines, half, walk, water, marked)

    def bend(self, x_m: NDArray, y_m: NDArray) -> tuple[NDArray, NDArray]:
        """Bent coordinates (u, v) of scattered points."""
        swing, half = x_m.dtype.type(2 * self.style.bend_m), x_m.dtype.type(0.5)
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
        blocks = (len(plan.northward.lines) - 1) * (len(plan.eastward.lines) - 1)
        lot = np.arange(blocks * 2 * LOTS_ALONG)

        def draw(key: int, low: float = 0.0, high: float = 1.0) -> Floats:
            return between(low, high, seed, 100 + key, lot)

        def pick(colours: tuple[Colour, ...], key: int) -> Floats:
            return np.asarray(colours, np.float32)[(draw(key) * len(colours)).astype(np.int32)]

        use = np.where(draw(0) < style.vacant_share, GARDEN, HOUSE)
        use = np.where(draw(1) < style.parking_share, CARPARK, use)
        use = np.where(unit(seed, 99, lot // (2 * LOTS_ALONG)) < style.park_share, PARK, use)
        self.use = use.astype(np.uint8)
        floors = np.floor(draw(2, style.floors[0], style.floors[1] + 0.999))
        pitched, wing = draw(3) < style.pitched_share, draw(4) < style.wing_share
        self.width = draw(5, *style.building_width)  # share of the frontage
        self.depth = draw(9, *style.building_depth_m)
        self.setback = draw(10, *style.setback_m)
        self.shift = draw(11, -0.5, 0.5) * (1 - self.width)  # along the street, share of the frontage
        self.height = floors * np.float32(FLOOR_M) + draw(12, 0.4, 1.2)
        self.slope = np.where(pitched, draw(13, 0.45, 0.95), np.float32(0))  # of the roof, rise over run
        self.hipped = draw(14) < 0.35
        self.wing_width = np.where(wing, draw(15, 0.3, 0.55), np.float32(0))
        self.wing_depth = np.where(wing, draw(16, 3, 9), np.float32(0))
        self.wing_shift = draw(17, -0.4, 0.4)
        wing_floors = np.maximum(np.float32(1), np.floor(floors * draw(18, 0.4, 1.0)))
        self.wing_height = wing_floors * np.float32(FLOOR_M) + np.float32(0.2)
        self.facade = (1 + hash32(seed, 119, lot) % np.uint32(FACADES - 1)).astype(np.int16)
        roof = np.where(pitched[:, None], pick(style.roofs_pitched, 6), pick(style.roofs_flat, 6))
        self.roof = np.clip(roof * between(0.86, 1.12, seed, 107, lot)[:, None], 0, 255).astype(np.uint8)
        self.wing_roof = pick(style.roofs_flat, 8).astype(np.uint8)
        self.green = (draw(20) < style.green_share) | (use == PARK)
        self.hedge = draw(21) < style.hedge_share
        self.drive = draw(22, -0.42, 0.42)  # the driveway's place, share of the frontage


class Street:
    """The nearest street of one direction, per pixel of a strip, and (2, rows, N) the two it lies between; metres."""

    def __init__(self, streets: Streets, at: Floats, line: NDArray[np.int64], segment: NDArray[np.int64]) -> None:
        """at: across the streets, in the bent grid; line: the street before; segment: between which of the others."""
        both = np.stack([line, line + 1])
        self.centre = np.stack([at - streets.lines[line], streets.lines[line + 1] - at])  # to their centre lines
        self.halves = streets.half[both, segment]
        self.edge = self.centre - self.halves  # to their kerbs
        self.inner = self.edge - streets.walk[both, segment]  # to the backs of their pavements
        self.carriageway = (self.edge < 0).any(0)  # on one, junctions included
        is_after = self.edge[1] < self.edge[0]
        self.line = line + is_after  # the nearest one's number
        self.across = np.where(is_after, -self.centre[1], self.centre[0])  # from its middle, east or north
        self.half, self.water = streets.half[self.line, segment], streets.water[self.line, segment]
        self.marked = streets.marked[self.line, segment]
        self.to_kerb = np.abs(self.edge).min(0)  # the nearer one, without sign

    def meet(self, other: "Street", along: Floats) -> None:
        """Add where the pixel is along the street, and how far the junctions with streets of the other direction are."""
        self.along = along
        self.on = self.carriageway & ~other.carriageway
        # to the edge of the junction passed, and of the next; 99 more than to the line of a street that is missing there
        self.behind, self.ahead = np.where(other.halves > 0, other.edge, other.centre + 99)


class Local:
    """Where each pixel of a strip is; (rows, N) arrays, metres."""

    def __init__(self, plan: Plan, x: Floats, y: Floats) -> None:
        """On the grid of x (N,) and y (rows,), metres."""
        bend = np.float32(2 * plan.style.bend_m)
        self.u = u = x[None, :] + bend * (plan.bend_x.grid(x, y) - np.float32(0.5))  # in the bent grid
        self.v = v = y[:, None] + bend * (plan.bend_y.grid(x, y) - np.float32(0.5))
        i, j = (  # the street lines just before it
            np.clip(np.searchsorted(streets.lines, at, "right") - 1, 0, len(streets.lines) - 2)
            for streets, at in ((plan.northward, u), (plan.eastward, v))
        )
        self.northward, self.eastward = north, east = Street(plan.northward, u, i, j), Street(plan.eastward, v, j, i)
        north.meet(east, v)
        east.meet(north, u)
        self.road = north.carriageway | east.carriageway
        self.kerb_m = np.minimum(north.edge.min(0), east.edge.min(0))  # negative on a carriageway

        # the block's inner rectangle, behind the pavements; two rows of lots along its longer side
        inner_u, inner_v = north.inner.min(0), east.inner.min(0)
        self.inner = np.minimum(inner_u, inner_v)  # to its edge, negative outside
        width_u, width_v = north.inner.sum(0), east.inner.sum(0)
        self.along_u = along_u = width_u >= width_v  # the block is longer along u
        length = np.where(along_u, width_u, width_v)
        is_far = (street.inner[1] < street.inner[0] for street in (east, north))
        self.far_row = np.where(along_u, *is_far)  # in the row of lots on its far side
        lots_along = np.clip(np.floor(length / np.float32(plan.style.lot_m)), 1, LOTS_ALONG)
        self.frontage, self.depth = length / lots_along, np.where(along_u, width_v, width_u) / 2  # of the lot
        p = np.where(along_u, north.inner[0], east.inner[0])
        place = np.clip(np.floor(p / self.frontage), 0, lots_along - 1)
        self.p = p - (place + np.float32(0.5)) * self.frontage  # along the street from the lot's middle
        self.q = np.where(along_u, inner_v, inner_u)  # away from it, from the pavement
        block = i * (len(plan.eastward.lines) - 1) + j
        self.lot = (block * 2 + self.far_row) * LOTS_ALONG + place.astype(np.int64)  # its row in Lots
