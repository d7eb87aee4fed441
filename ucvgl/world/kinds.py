"""What a pixel of the world can show, and the numbers of the objects that stand in it."""

from enum import IntEnum


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

FACADES = 4096  # kinds of facade; a building's hash picks one: object numbers 1..FACADES - 1
CARS = 512  # kinds of car, likewise; the day decides which are there. Numbers -1..-CARS are cabins, the next bonnets
TRUNK = 2 * CARS + 1  # the object number of tree trunks and hedges, as a negative number like the cars
FLOOR_M = 3.0
