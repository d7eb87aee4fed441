"""The rules that build a city: a function for each thing that is laid, painted, parked or raised, in this order. Each takes
the local coordinates of a strip of rows and changes the strip's canvas in place. All lengths in metres."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ucvgl.world.noise import Floats, hash32, unit
from ucvgl.world.plan import CARPARK, HOUSE, PARK, Local, Lots, Mask, Plan, Street
from ucvgl.world.styles import CARS, TRUNK, Kind

F = np.float32  # so that no number of the rules widens the arrays to float64


@dataclass
class Canvas:
    """A strip being built: class, colour (0..255), height above datum, car numbers; what stands on it."""

    kind: NDArray[np.uint8]
    colour: Floats
    height: Floats
    cars: NDArray[np.int16]

    def paint(self, mask: Mask, kind: Kind, colour: tuple[float, ...]) -> None:
        """Give a class and a colour to some pixels."""
        self.kind[mask] = kind
        self.colour[mask] = colour


def build_strip(plan: Plan, resolution_m: float, rows: slice) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Relief, surface, facade and extra layers of some rows of a city (see City), the first of all rows the northernmost."""
    lots = plan.lots
    x = ((np.arange(round(plan.size_m / resolution_m)) + 0.5) * resolution_m).astype(F)
    y = x[::-1][rows].copy()
    local = Local(plan, x, y)
    mottle = [noise.grid(x, y) for noise in plan.mottle]
    ground = 4 + 6 * plan.relief[0].grid(x, y) + F(1.2) * plan.relief[1].grid(x, y)
    canvas = lay_ground(plan, local, mottle, ground)
    drive = pave_lots(plan, local, canvas)
    lay_parks(local, canvas, lots.use[local.lot] == PARK, plan.paths.grid(x, y))
    lay_car_parks(plan, local, canvas)
    lay_streets(plan, local, canvas)
    built, facade = raise_buildings(lots, local, canvas, resolution_m)
    hedge = plant_hedges(lots, local, canvas, drive | built)
    grain = unit(plan.seed, 50, np.arange(rows.start, rows.start + len(y))[:, None], np.arange(len(x))[None, :])
    colour = weather(plan, local, canvas, mottle, grain)

    standing = np.where(hedge, np.int16(-TRUNK), canvas.cars)
    number = np.where(built, lots.facade[local.lot], standing)
    height_cm, crownless = np.rint(canvas.height * 100).astype(np.int16), np.zeros_like(number)
    relief = np.stack([height_cm, crownless, crownless, number], -1)
    surface = np.concatenate([colour, canvas.kind[..., None]], -1)
    lamps = lamp_light(local)
    return relief, surface, facade, np.stack([lamps, np.zeros_like(lamps)], -1)


def wrapped(value: Floats, period: float) -> Floats:
    """What is left of a value after whole periods, in [0, period)."""
    return value - F(period) * np.floor(value / F(period))


def lay_ground(plan: Plan, local: Local, mottle: list[Floats], ground: Floats) -> Canvas:
    """Lawn or paving on every lot, with dry and bare patches in the lawns."""
    style, green = plan.style, plan.lots.green[local.lot]
    kind = np.where(green, np.uint8(Kind.GRASS), np.uint8(Kind.PAVING))
    colour = np.where(green[..., None], F(style.lawn), F(style.pavement) * F(0.93))
    dry = green[..., None] * F(0.35) * mottle[0][..., None] * mottle[1][..., None]
    colour = colour * (1 - dry) + F((150, 136, 92)) * dry
    return Canvas(kind, colour, ground, np.zeros(local.u.shape, np.int16))


def pave_lots(plan: Plan, local: Local, canvas: Canvas) -> Mask:
    """Driveways and paths to the doors; gives back where they are."""
    lots, lot = plan.lots, local.lot
    house = lots.use[lot] == HOUSE
    beside = np.abs(local.p - lots.drive[lot] * local.frontage) < 1.5
    drive = house & beside & lots.green[lot] & (local.q < lots.setback[lot] + 3)
    door = house & (np.abs(local.p - lots.shift[lot] * local.frontage) < F(0.7)) & (local.q < lots.setback[lot])
    canvas.paint(drive | door, Kind.PAVING, tuple(0.96 * c for c in plan.style.pavement))
    return drive | door


def lay_parks(local: Local, canvas: Canvas, park: Mask, wave: Floats) -> None:
    """Winding paths where the noise crosses a level, a path all round, a pond with a gravel rim where it is high."""
    canvas.paint(park & (np.abs(wave - F(0.42)) < F(0.035)), Kind.PAVING, (192, 176, 142))
    canvas.paint(park & (np.abs(local.q - 2) < 1), Kind.PAVING, (192, 176, 142))
    canvas.paint(park & (wave > F(0.77)) & (local.q > 3), Kind.PAVING, (168, 156, 122))
    canvas.paint(park & (wave > F(0.80)) & (local.q > 3), Kind.WATER, (58, 78, 84))


def lay_car_parks(plan: Plan, local: Local, canvas: Canvas) -> None:
    """Rows of bays 5 m deep and 2.7 m wide beside aisles of 6 m, with lines between them and cars in some."""
    area = (plan.lots.use[local.lot] == CARPARK) & (local.inner > 0)
    across = wrapped(local.q, 16)
    bay = area & ((across < 5) | (across > 11))
    beside = wrapped(local.p / F(2.7), 1)
    canvas.paint(area, Kind.ROAD, tuple(1.08 * c for c in plan.style.asphalt))
    canvas.paint(bay & (beside < F(0.11)), Kind.MARKING, (205, 205, 200))
    in_bay = across - np.where(across > 11, F(11), F(0))
    site = bay & (beside > F(0.22)) & (beside < F(0.93)) & (in_bay >= F(0.4)) & (in_bay <= F(4.7))
    number = hash32(plan.seed, 51, local.lot[site], np.floor(local.p[site] / F(2.7)), np.floor(local.q[site] / 8))
    car = _car(number // np.uint32(128), (in_bay[site] >= F(1.5)) & (in_bay[site] <= F(4.1)))
    canvas.cars[site] = np.where(number % np.uint32(100) < 55, car, 0)


def _car(number: NDArray[np.uint32], cabin: Mask) -> NDArray[np.int16]:
    """A car's object number, where its cabin is and where its bonnet or boot."""
    car = -1 - (number % np.uint32(CARS)).astype(np.int16)
    return np.where(cabin, car, car - np.int16(CARS))


def lay_streets(plan: Plan, local: Local, canvas: Canvas) -> None:
    """Pavements with slabs and kerbs, carriageways, what is painted and parked on them, canals."""
    style = plan.style
    pavement = (local.inner < 0) & ~local.road
    slab = (wrapped(local.u * F(0.8), 1) < 0.15) | (wrapped(local.v * F(0.8), 1) < 0.15)
    canvas.paint(pavement, Kind.PAVEMENT, style.pavement)
    canvas.colour[pavement & slab] *= F(0.9)
    canvas.paint(local.road, Kind.ROAD, style.asphalt)
    canvas.colour[pavement & (local.kerb_m < F(0.25))] = F((196, 194, 188))
    canvas.height += np.where(local.road, F(0), F(0.12))
    # traffic keeps right: going north on the east side, going east on the south side
    for street, key, right in ((local.northward, 41, 1), (local.eastward, 43, -1)):
        mark_street(street, canvas, right)
        park_cars(plan, street, canvas, key)
    north, east = local.northward, local.eastward
    # bridges: a street that crosses keeps its carriageway
    water = (np.abs(north.across) < north.water) & ~east.carriageway
    water |= (np.abs(east.across) < east.water) & east.on
    canvas.paint(water, Kind.WATER, (62, 78, 76))
    canvas.height -= F(1.3) * water
    canvas.cars[water] = 0


def mark_street(street: Street, canvas: Canvas, right: int) -> None:
    """Centre and lane lines, stop lines on the lane that comes to a junction, zebra crossings; right: its side going ahead."""
    to_crossing = np.minimum(street.behind, street.ahead)
    away = np.abs(street.across)
    dash = street.on & street.marked & (wrapped(street.along / 6, 1) < 0.5) & (to_crossing > 6)
    centre = dash & (away < F(0.16))
    lanes = dash & (street.half > 8) & (np.abs(away - street.half / 2) < F(0.14))
    comes = np.where(street.across * right > 0, street.ahead, street.behind)  # what this lane's traffic comes to
    stop = street.on & (comes > F(5.2)) & (comes < F(5.7)) & (street.half > 3.5)
    stripe = wrapped(street.across + F(0.25), 1) < 0.5
    zebra = street.on & (to_crossing > 1) & (to_crossing < 4.2) & stripe & (away < street.half - F(0.4))
    canvas.paint(centre | lanes | stop, Kind.MARKING, (216, 214, 206))
    canvas.paint(zebra, Kind.CROSSING, (226, 224, 218))


def park_cars(plan: Plan, street: Street, canvas: Canvas, key: int) -> None:
    """Cars along the kerbs: a slot every 6.2 m, in some of them a car of 4.4 m, cabin in the middle."""
    away = np.abs(street.across)
    lane = street.on & (away > street.half - F(2.15)) & (away < street.half - F(0.35))
    spot = np.nonzero(lane & (np.minimum(street.behind, street.ahead) > 4))
    slot = np.floor(street.along[spot] / F(6.2))
    inside = street.along[spot] - slot * F(6.2)
    number = hash32(plan.seed, key, street.line[spot], slot, street.across[spot] > 0)
    there = (number % np.uint32(1000) < 1000 * plan.style.parked_cars) & (inside > 0.8) & (inside < 5.2)
    # whole cars only: rear and front keep 8 m off the junctions
    for end in (street.behind[spot] - (inside - F(0.8)), street.ahead[spot] - (F(5.2) - inside)):
        there &= ((end > 8) & (end < 98)) | (end > 100)  # 98..100: the street itself ends there
    canvas.cars[spot] = np.where(there, _car(number // np.uint32(1024), (inside >= 1.9) & (inside <= 4.5)), 0)


def raise_buildings(lots: Lots, local: Local, canvas: Canvas, resolution_m: float) -> tuple[Mask, NDArray[np.uint8]]:
    """A house on each lot that has one, its roof, and a lower wing behind some. Gives back where they are, and facades."""
    lot, p, q = local.lot, local.p, local.q
    allowed = (lots.use[lot] == HOUSE) & (local.inner > 0)
    setback = lots.setback[lot]
    deep = np.minimum(lots.depth[lot], local.depth - setback)
    shift = lots.shift[lot] * local.frontage
    side = local.frontage * lots.width[lot] / 2 - np.abs(p - shift)
    back = np.minimum(q - setback, setback + deep - q)
    house = allowed & (side > 0) & (back > 0)
    flat = lots.slope[lot] == 0
    rise = lots.slope[lot] * np.where(lots.hipped[lot], np.minimum(back, side), back)
    parapet = flat & (np.minimum(back, side) < F(0.45))
    box = flat & (np.abs(p - lots.drive[lot] * local.frontage) < 1.6) & (back > 2.5) & (back < 5.5)
    chimney = ~flat & (np.abs(back - deep * F(0.36)) < 0.5) & (np.abs(side - F(1.6)) < 0.5)
    top = lots.height[lot] + rise + F(0.5) * parapet + F(2.2) * box + F(1.1) * chimney

    wing_side = local.frontage * lots.wing_width[lot] / 2 - np.abs(p - lots.wing_shift[lot] * local.frontage)
    wing_q = q - (setback + deep)
    wing_back = np.minimum(wing_q + F(0.3), np.minimum(lots.wing_depth[lot], local.depth - setback - deep) - wing_q)
    wing = allowed & (wing_side > 0) & (wing_back > 0) & ~house

    built = house | wing
    canvas.kind[built] = Kind.ROOF
    rows_of_tiles = 1 - F(0.10) * (wrapped(back * 3, 1) < 0.4) * ~flat
    canvas.colour[house] = (lots.roof[lot] * rows_of_tiles[..., None])[house]
    canvas.colour[house & (parapet | box)] *= F(1.18)
    canvas.colour[chimney & house] = F((112, 70, 58))
    canvas.colour[wing] = lots.wing_roof[lot][wing]
    tall = np.where(house, top, np.where(wing, lots.wing_height[lot], F(0)))
    canvas.height += tall
    canvas.cars[built] = 0

    on_side = np.where(house, side < back, wing_side < wing_back)  # the nearest wall is one of the sides
    from_middle = p - np.where(house, shift, lots.wing_shift[lot] * local.frontage)
    behind_middle = q > np.where(house, setback + deep / 2, setback + deep)
    along_street = np.where(on_side, np.where(from_middle > 0, F(1), F(-1)), F(0))
    away = np.where(on_side, F(0), np.where(behind_middle, F(1), F(-1)))
    along_m = np.where(on_side, q - setback, from_middle + 32)
    return built, facades(local, built, along_street, away, along_m, tall, resolution_m)


def plant_hedges(lots: Lots, local: Local, canvas: Canvas, taken: Mask) -> Mask:
    """Hedges round some green lots, with gaps for paths and drives; they count as trees. Gives back where they are."""
    lot = local.lot
    border = (local.frontage / 2 - np.abs(local.p) < 0.4) | (local.depth - local.q < 0.4) | (local.q < F(0.6))
    hedge = border & lots.hedge[lot] & lots.green[lot] & (lots.use[lot] != PARK) & (local.inner > 0) & ~taken
    canvas.paint(hedge, Kind.TREE, (70, 96, 50))
    canvas.height += F(1.15) * hedge
    return hedge


def weather(plan: Plan, local: Local, canvas: Canvas, mottle: list[Floats], grain: Floats) -> NDArray[np.uint8]:
    """Uneven shades from noise of four scales, and mended patches of asphalt: the colours as bytes."""
    strengths = (0.16, 0.14, 0.10, 0.07)
    shade = 1 + sum(F(k) * (noise - F(0.5)) for k, noise in zip(strengths, (*mottle, grain), strict=True))
    patch = unit(plan.seed, 52, np.floor(local.u / 7), np.floor(local.v / 9)) - F(0.5)
    shade = shade + np.where(local.road & (canvas.kind != Kind.MARKING), F(0.16) * patch, F(0))
    return np.clip(canvas.colour * shade[..., None], 0, 255).astype(np.uint8)


def lamp_light(local: Local) -> NDArray[np.uint8]:
    """Pools of lamp light every 26 m along the kerbs, as a share of 255."""
    lit = local.kerb_m < F(2)
    total = np.zeros(local.u.shape, F)
    for street in (local.northward, local.eastward):
        offset = wrapped(street.along, 26) - 13
        near = np.maximum(1 - (offset * offset + street.to_kerb * street.to_kerb) / F(110), 0)
        total = np.maximum(total, near * near * (street.half > 0) * lit)
    return (total * 255).astype(np.uint8)


def facades(
    local: Local, built: Mask, along_street: Floats, away: Floats, along_m: Floats, tall_m: Floats, resolution_m: float
) -> NDArray[np.uint8]:
    """The facade layer of City; along_street, away: the nearest wall's normal, along p and q, one of them 1 or -1, the other 0."""
    out, at = np.zeros((*local.u.shape, 4), np.uint8), np.nonzero(built)
    p_part, q_part = along_street[at], away[at] * np.where(local.far_row[at], F(-1), F(1))
    u_part, v_part = np.where(local.along_u[at], (p_part, q_part), (q_part, p_part))
    # the gradient of u is the direction in which u grows
    step = F(resolution_m)
    east = u_part * np.gradient(local.u, step, axis=1)[at] + v_part * np.gradient(local.v, step, axis=1)[at]
    north = -(u_part * np.gradient(local.u, step, axis=0)[at] + v_part * np.gradient(local.v, step, axis=0)[at])
    norm = np.sqrt(east * east + north * north) + F(1e-6)
    numbers = 128 + 127 * east / norm, 128 + 127 * north / norm, along_m[at] * 4, tall_m[at] * 4
    out[at] = np.clip(np.rint(np.stack(numbers, -1)), 0, 255).astype(np.uint8)
    return out
