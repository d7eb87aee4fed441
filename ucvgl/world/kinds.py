"""What a pixel of the world can show, and the numbers of the objects that stand in it."""

from enum import IntEnum


class Kind(IntEnum):
    """What a pixel shows, the class truth of every product: bare ground up to WATER, then what stands on it."""

    ROAD, MARKING, CROSSING, PAVEMENT, PAVING, GRASS, WATER, ROOF, WALL, CAR, TREE, SKY = range(12)


FACADES = 4096  # kinds of facade; a building's hash picks one: object numbers 1..FACADES - 1
CARS = 512  # kinds of car, likewise; the day decides which are there. Numbers -1..-CARS are cabins, the next bonnets
TRUNK = 2 * CARS + 1  # the object number of tree trunks and hedges, as a negative number like the cars
FLOOR_M = 3.0
CAR_HEIGHT_M, BONNET_HEIGHT_M = 1.45, 0.85
