"""A procedural city as a stack of raster layers, built from a style and a seed; bit for bit the same everywhere.

The trick is one change of coordinates. Street lines run along whole lines of a bent grid (u, v) = (x, y) + smooth noise,
so that every pixel finds its block, its lot and its place inside the lot by a search and a subtraction, and everything
that is built, painted or parked is a rule on those local coordinates. Rules only add, multiply, compare and look up
tables of hashes (see noise.py).

Frame: metres east (x) and north (y) from the south-west corner. Rasters are north up: row 0 is the northern edge.
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from ucvgl.errors import InputError
from ucvgl.world.noise import Floats, Noise, between, hash32, unit
from ucvgl.world.styles import CityStyle


class Kind(IntEnum):
    """What a pixel shows: the class truth of every product."""

    ROAD = 0
    MARKING = 1
    CROSSING = 2
    PAVEMENT = 3
    PAVING = 4
    GRASS = 5
    WATER = 6
    ROOF = 7
    WALL = 8
    CAR = 9
    TREE = 10
    SKY = 11


GROUND = (Kind.ROAD, Kind.MARKING, Kind.CROSSING, Kind.PAVEMENT, Kind.PAVING, Kind.GRASS, Kind.WATER)
CLASS_COLOURS: dict[Kind, tuple[int, int, int]] = {
    Kind.ROAD: (110, 110, 115), Kind.MARKING: (240, 240, 240), Kind.CROSSING: (250, 220, 90),
    Kind.PAVEMENT: (190, 170, 160), Kind.PAVING: (205, 190, 150), Kind.GRASS: (130, 190, 90),
    Kind.WATER: (70, 130, 200), Kind.ROOF: (200, 90, 70), Kind.WALL: (230, 160, 120), Kind.CAR: (160, 60, 170),
    Kind.TREE: (40, 120, 50), Kind.SKY: (200, 225, 245),
}  # fmt: skip

LOTS_ALONG = 32  # lots along a block's longer side, at most; a table has 2 * 32 rows a block
FACADES = 4096  # kinds of facade; a building's hash picks one
CARS = 512  # kinds of car, likewise; the day decides which are there. Numbers -1..-CARS are cabins, the next bonnets
TRUNK = 2 * CARS + 1  # the object number of tree trunks and hedges, as a negative number like the cars
FLOOR_M = 3.0
STRIP_ROWS = 128

# what stands on a lot
HOUSE, GARDEN, CARPARK, PARK = 0, 1, 2, 3


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
    plan: "Plan"

    def digest(self) -> str:
        """SHA-256 over all layers: the same on every platform for the same style, seed, size and resolution."""
        sha = hashlib.sha256()
        for layer in (self.relief, self.surface, self.facade, self.extra):
            sha.update(np.ascontiguousarray(layer).astype(layer.dtype.newbyteorder("<"), copy=False).tobytes())
        return sha.hexdigest()


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


def make_city(style: CityStyle, seed: int, *, size_m: float = 768.0, resolution_m: float = 0.25) -> City:
    """Build a city.

    Args:
        style: what is built (styles.STYLES).
        seed: any integer from 0; another seed is another city of the same style.
        size_m: edge length in metres, at least 200.
        resolution_m: metres a pixel; 0.25 shows lane lines, 0.5 halves time and quarters memory.

    Raises:
        InputError: a seed below 0, a size below 200 m, a resolution outside 0.1..1 m.
    """
    if seed < 0:
        raise InputError("world seed", expected="an integer from 0", found=seed, todo="Choose another seed.")
    if not 200 <= size_m <= 8000:
        raise InputError(
            "size_m", expected="200 to 8000 metres", found=size_m, todo="Build several cities for more area."
        )
    if not 0.1 <= resolution_m <= 1:
        raise InputError("resolution_m", expected="0.1 to 1 metre a pixel", found=resolution_m, todo="Use 0.25.")
    plan = make_plan(style, seed, size_m)
    builder = _Builder(plan, make_lots(plan), resolution_m)
    count = builder.count
    city = City(
        style, seed, size_m, resolution_m,
        relief=np.zeros((count, count, 4), np.int16), surface=np.zeros((count, count, 4), np.uint8),
        facade=np.zeros((count, count, 4), np.uint8), extra=np.zeros((count, count, 2), np.uint8), plan=plan,
    )  # fmt: skip

    def build(first: int) -> None:
        rows = slice(first, min(first + STRIP_ROWS, count))
        layers = builder.strip(rows)
        city.relief[rows], city.surface[rows], city.facade[rows], city.extra[rows] = layers

    # numpy lets go of the interpreter lock inside its loops, and strips are independent: threads change nothing but time
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(build, range(0, count, STRIP_ROWS)))
    plant_trees(city)
    return city


class _Builder:
    """The rules that turn local coordinates into layers, a strip of rows at a time."""

    def __init__(self, plan: Plan, lots: Lots, resolution_m: float) -> None:
        self.plan, self.lots, self.style = plan, lots, plan.style
        self.resolution_m = resolution_m
        self.count = round(plan.size_m / resolution_m)
        self.x = ((np.arange(self.count) + 0.5) * resolution_m).astype(np.float32)
        self.y = self.x[::-1].copy()  # row 0 is north
        size, seed = plan.size_m, plan.seed
        self.relief_noise = [Noise.make(size, 260, seed, 5), Noise.make(size, 90, seed, 6)]
        self.mottle = [Noise.make(size, 9.0, seed, 7), Noise.make(size, 2.2, seed, 8), Noise.make(size, 0.7, seed, 9)]
        self.paths = Noise.make(size, 42.0, seed, 30)

    def terrain(self, x: NDArray, y: NDArray) -> Floats:
        """Height of the bare ground in metres above datum on the grid of x and y."""
        broad, fine = self.relief_noise
        return 4 + 6 * broad.grid(x, y) + np.float32(1.2) * fine.grid(x, y)

    def strip(self, rows: slice) -> tuple[NDArray, NDArray, NDArray, NDArray]:
        """All layers of some rows: relief, surface, facade, extra."""
        plan, lots, style, seed = self.plan, self.lots, self.style, self.plan.seed
        x, y = self.x, self.y[rows]
        shape = (len(y), len(x))
        bend = np.float32(2 * style.bend_m)
        u = x[None, :] + bend * (plan.bend_x.grid(x, y) - np.float32(0.5))
        v = y[:, None] + bend * (plan.bend_y.grid(x, y) - np.float32(0.5))

        # which block, and how far from its four streets
        i = np.clip(np.searchsorted(plan.lines_u, u.ravel(), "right").reshape(shape) - 1, 0, len(plan.lines_u) - 2)
        j = np.clip(np.searchsorted(plan.lines_v, v.ravel(), "right").reshape(shape) - 1, 0, len(plan.lines_v) - 2)
        west, east = u - plan.lines_u[i], plan.lines_u[i + 1] - u
        south, north = v - plan.lines_v[j], plan.lines_v[j + 1] - v
        half_w, half_e, half_s, half_n = (
            plan.half_u[i, j],
            plan.half_u[i + 1, j],
            plan.half_v[i, j],
            plan.half_v[i, j + 1],
        )
        edge_w, edge_e, edge_s, edge_n = west - half_w, east - half_e, south - half_s, north - half_n
        on_u = (edge_w < 0) | (edge_e < 0)  # on a street that runs north
        on_v = (edge_s < 0) | (edge_n < 0)
        road = on_u | on_v

        # the block's inner rectangle, behind the pavements; p runs along its longer side, q away from the street
        in_w, in_e = edge_w - plan.walk_u[i, j], edge_e - plan.walk_u[i + 1, j]
        in_s, in_n = edge_s - plan.walk_v[i, j], edge_n - plan.walk_v[i, j + 1]
        inner = np.minimum(np.minimum(in_w, in_e), np.minimum(in_s, in_n))
        width_u, width_v = in_w + in_e, in_s + in_n
        along_u = width_u >= width_v
        p = np.where(along_u, in_w, in_s)
        length = np.where(along_u, width_u, width_v)
        q = np.where(along_u, np.minimum(in_s, in_n), np.minimum(in_w, in_e))
        depth = np.where(along_u, width_v, width_u) / 2
        far_row = np.where(along_u, in_n < in_s, in_e < in_w)
        lots_along = np.clip(np.floor(length / np.float32(style.lot_m)), 1, LOTS_ALONG)
        frontage = length / lots_along
        place = np.clip(np.floor(p / frontage), 0, lots_along - 1)
        p = p - (place + np.float32(0.5)) * frontage  # now from the lot's middle
        block = i * (len(plan.lines_v) - 1) + j
        lot = (block * 2 + far_row) * LOTS_ALONG + place.astype(np.int64)

        # ground
        use = lots.use[lot]
        green = lots.green[lot] | (use == PARK)
        mottle = [noise.grid(x, y) for noise in self.mottle]
        grain = unit(seed, 50, np.arange(rows.start, rows.start + len(y))[:, None], np.arange(len(x))[None, :])
        kind = np.where(green, np.uint8(Kind.GRASS), np.uint8(Kind.PAVING))
        colour = np.where(green[..., None], np.float32(style.lawn), np.float32(style.pavement) * np.float32(0.93))
        shade = 1 + np.float32(0.16) * (mottle[0] - np.float32(0.5)) + np.float32(0.14) * (mottle[1] - np.float32(0.5))
        lawn_share = green[..., None] * np.float32(0.35) * mottle[0][..., None] * mottle[1][..., None]
        colour = colour * (1 - lawn_share) + np.float32((150, 136, 92)) * lawn_share  # dry and bare patches

        def paint(mask: NDArray[np.bool_], to_kind: Kind, to_colour: tuple[float, ...] | Floats) -> None:
            kind[mask] = to_kind
            colour[mask] = to_colour

        front = q < lots.setback[lot]
        drive = (use == HOUSE) & (np.abs(p - lots.drive[lot] * frontage) < 1.5) & green & (q < lots.setback[lot] + 3)
        door = (use == HOUSE) & (np.abs(p - lots.shift[lot] * frontage) < np.float32(0.7)) & front
        paint(drive | door, Kind.PAVING, tuple(0.96 * c for c in style.pavement))
        self._paint_parks(paint, use == PARK, q, x, y)
        carpark = (use == CARPARK) & (inner > 0)
        bay_q = q - 16 * np.floor(q / 16)
        bay = carpark & ((bay_q < 5) | (bay_q > 11))
        bay_p = p / np.float32(2.7)
        bay_p = bay_p - np.floor(bay_p)
        paint(carpark, Kind.ROAD, tuple(1.08 * c for c in style.asphalt))
        paint(bay & (bay_p < np.float32(0.11)), Kind.MARKING, (205, 205, 200))

        # streets
        pavement = (inner < 0) & ~road
        slab = ((u * np.float32(0.8) - np.floor(u * np.float32(0.8))) < 0.15) | (
            (v * np.float32(0.8) - np.floor(v * np.float32(0.8))) < 0.15
        )
        paint(pavement, Kind.PAVEMENT, style.pavement)
        colour[pavement & slab] *= np.float32(0.9)
        paint(road, Kind.ROAD, style.asphalt)
        kerb = pavement & (np.minimum(np.minimum(edge_w, edge_e), np.minimum(edge_s, edge_n)) < np.float32(0.25))
        colour[kerb] = np.float32((196, 194, 188))
        height = self.terrain(x, y)
        height = height + np.where(road, np.float32(0), np.float32(0.12))
        cars = np.zeros(shape, np.int16)
        cars[carpark & bay & (bay_p > np.float32(0.22)) & (bay_p < np.float32(0.93))] = -1  # numbered below
        far_u, far_v = edge_e < edge_w, edge_n < edge_s
        jj, ii = j + far_v, i + far_u  # the nearest street lines
        self._paint_street(
            paint, cars, on_u & ~on_v, np.where(far_u, -east, west), plan.half_u[ii, j], v,
            np.where(half_s > 0, edge_s, south + 99), np.where(half_n > 0, edge_n, north + 99),
            plan.marked_u[ii, j], ii, 41,
        )  # fmt: skip
        self._paint_street(
            paint, cars, on_v & ~on_u, np.where(far_v, -north, south), plan.half_v[i, jj], u,
            np.where(half_w > 0, edge_w, west + 99), np.where(half_e > 0, edge_e, east + 99),
            plan.marked_v[i, jj], jj, 43,
        )  # fmt: skip
        water = (np.minimum(west, east) < np.where(far_u, plan.water_u[i + 1, j], plan.water_u[i, j])) & ~on_v
        water |= (np.minimum(south, north) < np.where(far_v, plan.water_v[i, j + 1], plan.water_v[i, j])) & ~on_u
        paint(water, Kind.WATER, (62, 78, 76))
        height -= np.float32(1.3) * water
        cars[water] = 0
        # cars of a car park: one number a bay
        site = (cars == -1) & carpark
        number = hash32(seed, 51, lot[site], np.floor(p[site] / np.float32(2.7)), np.floor(q[site] / 8))
        cars[site] = np.where(
            number % np.uint32(100) < 55, -1 - (number // np.uint32(128) % np.uint32(CARS)).astype(np.int16), 0
        )
        in_bay = bay_q - np.where(bay_q > 11, np.float32(11), np.float32(0))
        cars[site & ((in_bay < np.float32(0.4)) | (in_bay > np.float32(4.7)))] = 0
        cars[site & (cars < 0) & ((in_bay < np.float32(1.5)) | (in_bay > np.float32(4.1)))] -= np.int16(CARS)

        # buildings
        lot_wide = frontage * lots.width[lot] / 2
        side = lot_wide - np.abs(p - lots.shift[lot] * frontage)  # distance inside the side walls
        setback, deep = lots.setback[lot], np.minimum(lots.depth[lot], depth - lots.setback[lot])
        back = np.minimum(q - setback, setback + deep - q)
        house = (use == HOUSE) & (side > 0) & (back > 0) & (inner > 0)
        rise = lots.slope[lot] * np.where(lots.hipped[lot], np.minimum(back, side), back)
        parapet = (lots.slope[lot] == 0) & (np.minimum(back, side) < np.float32(0.45))
        box = (lots.slope[lot] == 0) & (np.abs(p - lots.drive[lot] * frontage) < 1.6) & (back > 2.5) & (back < 5.5)
        ridge = (lots.slope[lot] > 0) & (np.abs(back - deep * np.float32(0.36)) < 0.5)
        chimney = ridge & (np.abs(side - np.float32(1.6)) < 0.5)
        top = lots.height[lot] + rise + np.float32(0.5) * parapet + np.float32(2.2) * (box & house)
        top = top + np.float32(1.1) * chimney
        wing_side = frontage * lots.wing_width[lot] / 2 - np.abs(p - lots.wing_shift[lot] * frontage)
        wing_q = q - (setback + deep)
        wing_back = np.minimum(
            wing_q + np.float32(0.3), np.minimum(lots.wing_depth[lot], depth - setback - deep) - wing_q
        )
        wing = (use == HOUSE) & (wing_side > 0) & (wing_back > 0) & ~house & (inner > 0)
        kind[house | wing] = Kind.ROOF
        tiles = 1 - np.float32(0.10) * ((back * 3 - np.floor(back * 3)) < 0.4) * (lots.slope[lot] > 0)
        colour[house] = (lots.roof[lot] * tiles[..., None])[house]
        colour[house & (parapet | box)] *= np.float32(1.18)
        colour[chimney & house] = np.float32((112, 70, 58))
        colour[wing] = lots.wing_roof[lot][wing]
        tall = np.where(house, top, np.where(wing, lots.wing_height[lot], np.float32(0)))
        height = height + tall
        cars[house | wing] = 0

        # hedges round the back and the sides of some lots; they count as trees
        border = (frontage / 2 - np.abs(p) < 0.4) | (depth - q < 0.4) | ((q < np.float32(0.6)) & ~drive & ~door)
        hedge = border & lots.hedge[lot] & green & (use != PARK) & (inner > 0) & ~house & ~wing & ~drive
        paint(hedge, Kind.TREE, (70, 96, 50))
        height = height + np.float32(1.15) * hedge

        shade = shade + np.float32(0.10) * (mottle[2] - np.float32(0.5)) + np.float32(0.07) * (grain - np.float32(0.5))
        patch = unit(seed, 52, np.floor(u / 7), np.floor(v / 9)) - np.float32(0.5)  # mended asphalt
        shade = shade + np.where(road & ~(kind == Kind.MARKING), np.float32(0.16) * patch, np.float32(0))
        colour = np.clip(colour * shade[..., None], 0, 255)

        facade = np.zeros((*shape, 4), np.uint8)
        built = house | wing
        self._facade(facade, built, house, far_row, along_u, p, q, side, back, wing_side, wing_back, wing_q, setback, deep,
                     lots.shift[lot] * frontage, u, v, tall)  # fmt: skip
        relief = np.zeros((*shape, 4), np.int16)
        relief[..., 0] = np.rint(height * 100).astype(np.int16)
        relief[..., 3] = np.where(built, lots.facade[lot], np.where(hedge, np.int16(-TRUNK), cars))
        surface = np.concatenate([colour.astype(np.uint8), kind[..., None]], -1)
        extra = np.zeros((*shape, 2), np.uint8)
        extra[..., 0] = self._lamps(on_u & ~on_v, np.minimum(np.abs(edge_w), np.abs(edge_e)), v, road | pavement)
        extra[..., 0] |= self._lamps(on_v, np.minimum(np.abs(edge_s), np.abs(edge_n)), u, road | pavement)
        return relief, surface, facade, extra

    def _paint_parks(self, paint, park, q, x, y) -> None:  # noqa: ANN001 (arrays of the strip)
        """Winding paths, a pond where the noise is high, a gravel rim."""
        wave = self.paths.grid(x, y)
        pond = park & (wave > np.float32(0.80)) & (q > 3)
        paint(park & (np.abs(wave - np.float32(0.42)) < np.float32(0.035)), Kind.PAVING, (192, 176, 142))
        paint(park & (np.abs(q - 2) < 1), Kind.PAVING, (192, 176, 142))
        paint(park & (wave > np.float32(0.77)) & (q > 3), Kind.PAVING, (168, 156, 122))
        paint(pond, Kind.WATER, (58, 78, 84))

    def _paint_street(self, paint, cars, on, across, half, along, behind, ahead, marked, line, key) -> None:  # noqa: ANN001
        """Markings, zebra crossings and kerb-side car sites of the streets that run one way.

        across, along: metres from the centre line and along it; behind, ahead: metres to the edge of the junction passed
        and of the next one, 99 more than to the line of a street that is missing there.
        """
        style, seed = self.style, self.plan.seed
        to_crossing = np.minimum(behind, ahead)
        away = np.abs(across)
        dash = along / 6 - np.floor(along / 6)
        centre = on & marked & (away < np.float32(0.16)) & (dash < 0.5) & (to_crossing > 6)
        lanes = (
            on & marked & (half > 8) & (np.abs(away - half / 2) < np.float32(0.14)) & (dash < 0.5) & (to_crossing > 6)
        )
        stop = on & (to_crossing > np.float32(5.2)) & (to_crossing < np.float32(5.7)) & (half > 3.5) & (across > 0)
        stripe = across + np.float32(0.25) - np.floor(across + np.float32(0.25))
        zebra = on & (to_crossing > 1) & (to_crossing < 4.2) & (stripe < 0.5) & (away < half - np.float32(0.4))
        paint(centre | lanes | stop, Kind.MARKING, (216, 214, 206))
        paint(zebra, Kind.CROSSING, (226, 224, 218))
        kerbside = on & (away > half - np.float32(2.15)) & (away < half - np.float32(0.35)) & (to_crossing > 4)
        spot = np.nonzero(kerbside)
        slot = np.floor(along[spot] / np.float32(6.2))
        inside = along[spot] - slot * np.float32(6.2)
        number = hash32(seed, key, line[spot], slot, across[spot] > 0)
        there = (number % np.uint32(1000) < 1000 * style.parked_cars) & (inside > 0.8) & (inside < 5.2)
        # whole cars only: its rear and its front keep off the junctions
        first, last = behind[spot] - (inside - np.float32(0.8)), ahead[spot] - (np.float32(5.2) - inside)
        for end in (first, last):
            there &= ((end > 8) & (end < 98)) | (end > 100)  # 98..100: the street itself ends there
        number = -1 - (number // np.uint32(1024) % np.uint32(CARS)).astype(np.int16)
        number = np.where((inside < 1.9) | (inside > 4.5), number - np.int16(CARS), number)
        cars[spot] = np.where(there, number, 0)

    def _lamps(self, on, to_kerb, along, lit) -> NDArray[np.uint8]:  # noqa: ANN001
        """Pools of light every 26 m along the kerb, as a share of 255."""
        offset = along - 26 * np.floor(along / 26) - 13
        near = np.maximum(1 - (offset * offset + to_kerb * to_kerb) / np.float32(110), 0)
        return (near * near * 255 * (on | lit)).astype(np.uint8)

    def _facade(self, out, built, house, far_row, along_u, p, q, side, back, wing_side, wing_back, wing_q, setback, deep,
                shift, u, v, tall) -> None:  # noqa: ANN001  # fmt: skip
        """Normal of the nearest wall, metres along it, and the height of the building."""
        at = np.nonzero(built)
        main = house[at]
        to_side = np.where(main, side[at], wing_side[at])
        to_back = np.where(main, back[at], wing_back[at])
        on_side = to_side < to_back
        p_sign = np.where(p[at] - np.where(main, shift[at], 0) > 0, np.float32(1), np.float32(-1))
        middle = np.where(main, setback[at] + deep[at] / 2, setback[at] + deep[at])
        q_sign = np.where(q[at] > middle, np.float32(1), np.float32(-1)) * np.where(far_row[at], -1, 1)
        p_part, q_part = np.where(on_side, p_sign, 0), np.where(on_side, 0, q_sign)
        u_part = np.where(along_u[at], p_part, q_part)
        v_part = np.where(along_u[at], q_part, p_part)
        step = np.float32(self.resolution_m)
        u_east = np.gradient(u, step, axis=1)[at]
        v_east = np.gradient(v, step, axis=1)[at]
        east = u_part * u_east + v_part * v_east  # the gradient of u is the direction in which u grows
        u_north, v_north = -np.gradient(u, step, axis=0)[at], -np.gradient(v, step, axis=0)[at]
        north = u_part * u_north + v_part * v_north
        norm = np.sqrt(east * east + north * north) + np.float32(1e-6)
        out[(*at, 0)] = np.rint(128 + 127 * east / norm).astype(np.uint8)
        out[(*at, 1)] = np.rint(128 + 127 * north / norm).astype(np.uint8)
        along = np.where(on_side, q[at] - setback[at], p[at] - shift[at] + 32)
        out[(*at, 2)] = np.clip(np.rint(along * 4), 0, 255).astype(np.uint8)
        out[(*at, 3)] = np.clip(np.rint(tall[at] * 4), 0, 255).astype(np.uint8)


def plant_trees(city: City) -> None:
    """Put crowns and trunks on lawns, along pavements and in parks (in place), one jittered site every 5.5 m."""
    style, seed, cell = city.style, city.seed, 5.5
    count = int(city.size_m / cell)
    row, col = (grid.ravel() for grid in np.meshgrid(np.arange(count), np.arange(count), indexing="ij"))
    x = (col + between(0.1, 0.9, seed, 60, row, col)) * np.float32(cell)
    y = (row + between(0.1, 0.9, seed, 61, row, col)) * np.float32(cell)
    pixels = city.surface.shape[0]
    at_col = np.clip((x / np.float32(city.resolution_m)).astype(np.int64), 0, pixels - 1)
    at_row = np.clip(pixels - 1 - (y / np.float32(city.resolution_m)).astype(np.int64), 0, pixels - 1)
    ground = city.surface[at_row, at_col, 3]
    share = np.where(ground == Kind.GRASS, style.garden_trees, 0)
    share = np.where(ground == Kind.PAVEMENT, style.street_trees, share)
    share = np.where(ground == Kind.PAVING, 0.04, share)
    taken = unit(seed, 62, row, col) < share
    for tree in np.nonzero(taken)[0]:
        _plant(city, int(at_row[tree]), int(at_col[tree]), int(row[tree]) * count + int(col[tree]), ground[tree])


def _plant(city: City, row: int, col: int, tree: int, ground: int) -> None:
    """One crown: an ellipsoid with a ragged rim, or a cone for conifers; and its trunk."""
    draws = unit(city.seed, 70, tree, np.arange(6))
    conifer = draws[0] < city.style.conifer_share and ground == Kind.GRASS
    street = ground == Kind.PAVEMENT
    radius = np.float32(1.4 + 1.1 * draws[1]) if conifer or street else np.float32(1.6 + 2.6 * draws[1] * draws[1])
    tall = np.float32(5.0 + 5.5 * draws[2]) if not street else np.float32(4.6 + 3.0 * draws[2])
    low = np.float32(0.8) if conifer else np.float32(2.3 + 0.5 * draws[3])
    reach = int(radius * 1.25 / city.resolution_m) + 1
    pixels = city.surface.shape[0]
    rows = slice(max(row - reach, 0), min(row + reach + 1, pixels))
    cols = slice(max(col - reach, 0), min(col + reach + 1, pixels))
    dy = (np.arange(rows.start, rows.stop, dtype=np.float32) - row)[:, None] * np.float32(city.resolution_m)
    dx = (np.arange(cols.start, cols.stop, dtype=np.float32) - col)[None, :] * np.float32(city.resolution_m)
    rim = unit(
        city.seed, 71, tree, np.arange(rows.start, rows.stop)[:, None] // 3, np.arange(cols.start, cols.stop) // 3
    )
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
