"""Local coordinates: for every pixel its block, its distances to the streets around, its lot and its place in the lot."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ucvgl.world.noise import Floats
from ucvgl.world.plan import LOTS_ALONG, Plan

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Street:
    """The nearest street of one direction, per pixel of a strip; metres."""

    on: Mask  # on its carriageway and on no street of the other direction
    across: Floats  # from its centre line, positive to the east or north
    half: Floats  # half its width
    along: Floats  # in the bent grid
    behind: Floats  # to the edge of the junction passed; 99 more than to the line of a street that is missing there
    ahead: Floats  # the same to the next junction
    marked: Mask  # with lane lines
    line: NDArray[np.int64]  # its number
    to_kerb: Floats  # the nearer one, without sign
    water: Floats  # half the width of the water in its middle


class Local:
    """Where each pixel of a strip is; (rows, N) arrays, metres."""

    def __init__(self, plan: Plan, x: Floats, y: Floats) -> None:
        """On the grid of x (N,) and y (rows,), metres."""
        bend = np.float32(2 * plan.style.bend_m)
        self.u = u = x[None, :] + bend * (plan.bend_x.grid(x, y) - np.float32(0.5))  # in the bent grid
        self.v = v = y[:, None] + bend * (plan.bend_y.grid(x, y) - np.float32(0.5))
        i, j = _interval(plan.lines_u, u), _interval(plan.lines_v, v)

        west, east = u - plan.lines_u[i], plan.lines_u[i + 1] - u
        south, north = v - plan.lines_v[j], plan.lines_v[j + 1] - v
        half_w, half_e = plan.half_u[i, j], plan.half_u[i + 1, j]
        half_s, half_n = plan.half_v[i, j], plan.half_v[i, j + 1]
        edge_w, edge_e, edge_s, edge_n = west - half_w, east - half_e, south - half_s, north - half_n
        on_u, on_v = (edge_w < 0) | (edge_e < 0), (edge_s < 0) | (edge_n < 0)
        far_u, far_v = edge_e < edge_w, edge_n < edge_s
        ii, jj = i + far_u, j + far_v  # the nearest street lines
        self.northward = Street(
            on=on_u & ~on_v, across=np.where(far_u, -east, west), half=plan.half_u[ii, j], along=v,
            behind=np.where(half_s > 0, edge_s, south + 99), ahead=np.where(half_n > 0, edge_n, north + 99),
            marked=plan.marked_u[ii, j], line=ii, to_kerb=np.minimum(np.abs(edge_w), np.abs(edge_e)),
            water=plan.water_u[ii, j],
        )  # fmt: skip
        self.eastward = Street(
            on=on_v & ~on_u, across=np.where(far_v, -north, south), half=plan.half_v[i, jj], along=u,
            behind=np.where(half_w > 0, edge_w, west + 99), ahead=np.where(half_e > 0, edge_e, east + 99),
            marked=plan.marked_v[i, jj], line=jj, to_kerb=np.minimum(np.abs(edge_s), np.abs(edge_n)),
            water=plan.water_v[i, jj],
        )  # fmt: skip
        self.road, self.any_eastward = on_u | on_v, on_v  # on a street; on one that runs east, junctions included
        self.kerb_m = np.minimum(np.minimum(edge_w, edge_e), np.minimum(edge_s, edge_n))  # negative on a carriageway

        # the block's inner rectangle, behind the pavements; two rows of lots along its longer side
        in_w, in_e = edge_w - plan.walk_u[i, j], edge_e - plan.walk_u[i + 1, j]
        in_s, in_n = edge_s - plan.walk_v[i, j], edge_n - plan.walk_v[i, j + 1]
        self.inner = np.minimum(np.minimum(in_w, in_e), np.minimum(in_s, in_n))  # to its edge, negative outside
        width_u, width_v = in_w + in_e, in_s + in_n
        self.along_u = along_u = width_u >= width_v  # the block is longer along u
        length = np.where(along_u, width_u, width_v)
        self.far_row = np.where(along_u, in_n < in_s, in_e < in_w)  # in the row of lots on its far side
        lots_along = np.clip(np.floor(length / np.float32(plan.style.lot_m)), 1, LOTS_ALONG)
        self.frontage, self.depth = length / lots_along, np.where(along_u, width_v, width_u) / 2  # of the lot
        p = np.where(along_u, in_w, in_s)
        place = np.clip(np.floor(p / self.frontage), 0, lots_along - 1)
        self.p = p - (place + np.float32(0.5)) * self.frontage  # along the street from the lot's middle
        self.q = np.where(along_u, np.minimum(in_s, in_n), np.minimum(in_w, in_e))  # away from it, from the pavement
        block = i * (len(plan.lines_v) - 1) + j
        self.lot = (block * 2 + self.far_row) * LOTS_ALONG + place.astype(np.int64)  # its row in Lots


def _interval(lines: Floats, values: Floats) -> NDArray[np.int64]:
    """Number of the interval between sorted lines that each value lies in."""
    found = np.searchsorted(lines, values.ravel(), "right").reshape(values.shape) - 1
    return np.clip(found, 0, len(lines) - 2)
