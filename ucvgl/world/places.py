"""Where pictures are taken: stops of drives along the streets of a city, with the heading of travel."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ucvgl.errors import InputError
from ucvgl.world.city import City
from ucvgl.world.noise import Floats, hash32, unit

MARGIN_M = 45.0  # from the city's edge: half a tile and what a panorama shows well


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
