"""What a city is built from: the kinds of surface, the numbers of objects, and city styles, a table in `styles.json`. Trained on
one style and tested on another, they make cross-area splits."""

import json
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from ucvgl.errors import one_of

Colour = tuple[int, int, int]


class Kind(IntEnum):
    """What a pixel shows, the class truth of every product: bare ground up to WATER, then what stands on it."""

    ROAD, MARKING, CROSSING, PAVEMENT, PAVING, GRASS, WATER, ROOF, WALL, CAR, TREE, SKY = range(12)


FACADES = 4096  # kinds of facade; a building's hash picks one: object numbers 1..FACADES - 1
CARS = 512  # kinds of car, likewise; the day decides which are there. Numbers -1..-CARS are cabins, the next bonnets
TRUNK = 2 * CARS + 1  # the object number of tree trunks and hedges, as a negative number like the cars
FLOOR_M = 3.0
CAR_HEIGHT_M, BONNET_HEIGHT_M = 1.45, 0.85


@dataclass(frozen=True)
class CityStyle:
    """The numbers a city is built from; lengths in metres, shares in [0, 1], colours as sRGB albedo in 0..255."""

    name: str
    block_m: tuple[float, float]  # distance between parallel streets: shortest, longest
    bend_m: float  # how far streets swerve from straight lines
    bend_cell_m: float  # over what distance they do
    minor_street_m: float  # width of the carriageway
    main_street_m: float
    main_share: float  # of the streets that are main streets
    canal_share: float  # of the streets that have water in the middle
    missing_share: float  # of the street segments left out, so that blocks merge
    pavement_m: float
    lot_m: float  # frontage of a lot
    setback_m: tuple[float, float]  # from pavement to facade
    building_depth_m: tuple[float, float]
    building_width: tuple[float, float]  # share of the frontage
    floors: tuple[int, int]
    pitched_share: float  # of the buildings, with gabled or hipped roofs
    wing_share: float  # of the buildings, with a lower wing behind
    green_share: float  # of the lots, with a lawn rather than paving
    park_share: float  # of the blocks
    parking_share: float  # of the lots
    vacant_share: float  # of the lots: garden, no building
    hedge_share: float  # of the lots
    garden_trees: float  # share of tree sites taken on lawns
    street_trees: float  # share of tree sites taken along pavements
    conifer_share: float  # of the trees
    parked_cars: float  # share of kerb slots that ever hold a car
    lane_lines: float  # share of streets with a marked centre line
    walls: tuple[Colour, ...]
    roofs_pitched: tuple[Colour, ...]
    roofs_flat: tuple[Colour, ...]
    asphalt: Colour
    pavement: Colour
    lawn: Colour


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


_TABLE = json.loads(Path(__file__).with_name("styles.json").read_text(encoding="utf-8"))  # setting -> style -> value
STYLES = {name: CityStyle(name, **{key: _tuples(_TABLE[key][name]) for key in _TABLE}) for name in _TABLE["block_m"]}


def style_named(name: str) -> CityStyle:
    """The style of that name; InputError lists the known ones."""
    one_of("city style", name, STYLES, "Pick one.")
    return STYLES[name]
