"""The plan of a city: where its streets run, and what stands on each of its lots. Tables only, drawn from hashes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ucvgl.world.kinds import FACADES, FLOOR_M
from ucvgl.world.noise import Floats, Noise, between, hash32, unit
from ucvgl.world.styles import CityStyle

LOTS_ALONG = 32  # lots along a block's longer side, at most; a table has 2 * 32 rows a block
HOUSE, GARDEN, CARPARK, PARK = 0, 1, 2, 3  # what a lot is used for


@dataclass(frozen=True)
class Plan:
    """Streets, blocks and lots as tables; k counts street lines, (i, j) blocks from the south-west.

    lines_u, lines_v: positions of street lines in the bent grid, metres.
    half_u[k, j], half_v[i, k]: half width of the carriageway of each street segment, 0 where the segment is missing.
    walk_u, walk_v: the width of its pavement.
    water_u, water_v: half width of the water in its middle.
    """

    style: CityStyle
    seed: int
    size_m: float
    bend_x: Noise
    bend_y: Noise
    lines_u: Floats
    lines_v: Floats
    half_u: Floats
    half_v: Floats
    walk_u: Floats
    walk_v: Floats
    water_u: Floats
    water_v: Floats
    marked_u: NDArray[np.bool_]
    marked_v: NDArray[np.bool_]

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


def _street_lines(style: CityStyle, size_m: float, *keys: int) -> Floats:
    """Positions of parallel street lines, from beyond one edge of the city to beyond the other."""
    margin = 2 * style.bend_m + style.block_m[1]
    gaps = between(*style.block_m, *keys, np.arange(int((size_m + 2 * margin) / style.block_m[0]) + 2))
    lines = np.cumsum(gaps, dtype=np.float32) - np.float32(margin)
    return lines[lines < size_m + margin]


def make_plan(style: CityStyle, seed: int, size_m: float) -> Plan:
    """Draw the tables of a city: where streets run, how wide they are, which segments are missing."""
    lines_u, lines_v = _street_lines(style, size_m, seed, 1), _street_lines(style, size_m, seed, 2)

    def streets(count: int, segments: int, key: int) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
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

    half_u, walk_u, water_u, marked_u = streets(len(lines_u), len(lines_v) - 1, 10)
    half_v, walk_v, water_v, marked_v = streets(len(lines_v), len(lines_u) - 1, 20)
    return Plan(
        style, seed, size_m,
        Noise.make(size_m, style.bend_cell_m, seed, 3), Noise.make(size_m, style.bend_cell_m, seed, 4),
        lines_u, lines_v, half_u, half_v.T.copy(), walk_u, walk_v.T.copy(), water_u, water_v.T.copy(),
        marked_u, marked_v.T.copy(),
    )  # fmt: skip


@dataclass(frozen=True)
class Lots:
    """What stands on each lot: one row for block * 2 * LOTS_ALONG + row * LOTS_ALONG + position; metres."""

    use: NDArray[np.uint8]
    width: Floats
    depth: Floats
    setback: Floats
    shift: Floats
    height: Floats
    slope: Floats
    hipped: NDArray[np.bool_]
    wing_width: Floats
    wing_depth: Floats
    wing_shift: Floats
    wing_height: Floats
    facade: NDArray[np.int16]
    roof: NDArray[np.uint8]
    wing_roof: NDArray[np.uint8]
    green: NDArray[np.bool_]
    hedge: NDArray[np.bool_]
    drive: Floats


def make_lots(plan: Plan) -> Lots:
    """Draw what stands on every lot of the plan."""
    style, seed = plan.style, plan.seed
    blocks = (len(plan.lines_u) - 1) * (len(plan.lines_v) - 1)
    lot = np.arange(blocks * 2 * LOTS_ALONG)
    block = lot // (2 * LOTS_ALONG)

    def draw(key: int) -> Floats:
        return unit(seed, 100 + key, lot)

    def spread(low: float, high: float, key: int) -> Floats:
        return between(low, high, seed, 100 + key, lot)

    use = np.where(draw(0) < style.vacant_share, GARDEN, HOUSE)
    use = np.where(draw(1) < style.parking_share, CARPARK, use)
    use = np.where(unit(seed, 99, block) < style.park_share, PARK, use)
    floors = np.floor(spread(style.floors[0], style.floors[1] + 0.999, 2))
    pitched = draw(3) < style.pitched_share
    wing = draw(4) < style.wing_share
    width = spread(*style.building_width, 5)
    roofs_pitched = np.asarray(style.roofs_pitched, np.float32)
    roofs_flat = np.asarray(style.roofs_flat, np.float32)
    pick = draw(6)[:, None]
    roof = np.where(
        pitched[:, None],
        roofs_pitched[(pick[:, 0] * len(roofs_pitched)).astype(np.int32)],
        roofs_flat[(pick[:, 0] * len(roofs_flat)).astype(np.int32)],
    ) * between(0.86, 1.12, seed, 107, lot)[:, None]  # fmt: skip
    wing_roof = roofs_flat[(draw(8) * len(roofs_flat)).astype(np.int32)]
    return Lots(
        use=use.astype(np.uint8),
        width=width,
        depth=spread(*style.building_depth_m, 9),
        setback=spread(*style.setback_m, 10),
        shift=spread(-0.5, 0.5, 11) * (1 - width),
        height=floors * np.float32(FLOOR_M) + spread(0.4, 1.2, 12),
        slope=np.where(pitched, spread(0.45, 0.95, 13), np.float32(0)),
        hipped=draw(14) < 0.35,
        wing_width=np.where(wing, spread(0.3, 0.55, 15), np.float32(0)),
        wing_depth=np.where(wing, spread(3, 9, 16), np.float32(0)),
        wing_shift=spread(-0.4, 0.4, 17),
        wing_height=np.maximum(np.float32(1), np.floor(floors * spread(0.4, 1.0, 18))) * np.float32(FLOOR_M)
        + np.float32(0.2),
        facade=(1 + hash32(seed, 119, lot) % np.uint32(FACADES - 1)).astype(np.int16),
        roof=np.clip(roof, 0, 255).astype(np.uint8),
        wing_roof=wing_roof.astype(np.uint8),
        green=draw(20) < style.green_share,
        hedge=draw(21) < style.hedge_share,
        drive=spread(-0.42, 0.42, 22),
    )
