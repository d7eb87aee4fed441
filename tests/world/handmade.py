"""Cities drawn by hand, flat and grey unless told otherwise: what is seen of them is known exactly."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ucvgl.world.city import City
from ucvgl.world.plan import Plan
from ucvgl.world.styles import STYLES, Kind

SIZE_M, RESOLUTION_M, GROUND_M = 200.0, 0.5, 5.0
Draw = Callable[[City, NDArray, NDArray], None]


def handmade_city(*draws: Draw) -> City:
    """Level asphalt 5 m above datum, 200 m square at 0.5 m, drawn upon by functions of (city, east_m, north_m)."""
    count = int(SIZE_M / RESOLUTION_M)
    city = City(
        STYLES["garden"], 0, SIZE_M, RESOLUTION_M,
        relief=np.zeros((count, count, 4), np.int16), surface=np.full((count, count, 4), 100, np.uint8),
        facade=np.zeros((count, count, 4), np.uint8), extra=np.zeros((count, count, 2), np.uint8),
        plan=Plan(STYLES["garden"], 0, SIZE_M),
    )  # fmt: skip
    city.relief[..., 0] = round(100 * GROUND_M)
    city.surface[..., 3] = Kind.ROAD
    middle = (np.arange(count) + 0.5) * RESOLUTION_M
    for draw in draws:
        draw(city, middle[None, :], middle[::-1, None])
    return city


def box(west: float, east: float, south: float, north: float, *, top_m: float, number: int = 7) -> Draw:
    """A flat-roofed building (or, with another number, another object) above the ground, its walls facing south."""

    def draw(city: City, x: NDArray, y: NDArray) -> None:
        inside = (x > west) & (x < east) & (y > south) & (y < north)
        city.relief[inside, 0] += round(100 * top_m)
        city.relief[inside, 3] = number
        city.surface[inside, 3] = Kind.ROOF
        city.facade[inside] = (128, 1, 80, min(round(4 * top_m), 255))

    return draw


def crown(east: float, north: float, radius_m: float, under_m: float, top_m: float) -> Draw:
    """A tree crown like a cheese, from under_m to top_m above the ground, without a trunk."""

    def draw(city: City, x: NDArray, y: NDArray) -> None:
        inside = (x - east) ** 2 + (y - north) ** 2 < radius_m**2
        city.relief[inside, 1] = round(100 * under_m)
        city.relief[inside, 2] = round(100 * top_m)

    return draw


def patch(west: float, east: float, south: float, north: float, colour: tuple[int, int, int], kind: Kind) -> Draw:
    """Something painted on the ground."""

    def draw(city: City, x: NDArray, y: NDArray) -> None:
        city.surface[(x > west) & (x < east) & (y > south) & (y < north)] = (*colour, kind)

    return draw
