"""A world in VIGOR's layout (Zhu, Yang, Chen; CVPR 2021): tiles on a grid, each overlapping the next by half, panoramas off
their centres. A panorama's tile is the one with the nearest centre; the three others that show its spot are semi-positives.
"""

from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ucvgl.data.container import Dataset, Positives
from ucvgl.world.difficulty import draw_nuisance, level_named
from ucvgl.world.pairs import WorldConfig, city_of, panorama_bytes
from ucvgl.world.rendering import CITY_GAP_M, Side, batched, rendered, shares
from ucvgl.world.sensor import expose
from ucvgl.world.views import satellite_tiles


@dataclass(frozen=True)
class _Half:
    """Names one half of such a world in the cache: how many tiles there are is known once the panoramas have their places."""

    grid: str


def around(here_m: NDArray, step_m: float) -> tuple[NDArray, NDArray]:
    """The tiles of a grid that places need: centres (M, 2) metres, and for each of (N, 2) places its four, the nearest first."""
    corner = np.floor(here_m / step_m)[:, None] + np.array([[0, 0], [0, 1], [1, 0], [1, 1]])  # (N, 4, 2)
    order = np.argsort(np.hypot(*(corner * step_m - here_m[:, None]).transpose(2, 0, 1)), 1, kind="stable")
    corner = np.take_along_axis(corner, order[..., None], 1)
    cells, tile_of = np.unique(corner.reshape(-1, 2), axis=0, return_inverse=True)
    return cells * step_m, tile_of.reshape(-1, 4)


def world_grid(
    config: WorldConfig, split: str = "all", *, device: torch.device | str = "cpu", progress: bool = True
) -> Dataset:
    """N panoramas and the M tiles around them, of `span_m` on a grid of half of that; semi-positives are graded. Rendered once.

    Several panoramas may share a tile, and some tiles are nobody's nearest. Sizes, ids and errors as `world_pairs`.
    """
    level, counts = level_named(config.difficulty), shares(config)
    wide = replace(config, span_m=2 * config.span_m)  # keeps places so far from the edge that all four tiles are inside

    def street(number: int, count: int) -> dict[str, Side]:
        scene, places, nuisance = city_of(wide, number, count, device)
        here = np.stack([places.east_m, places.north_m], -1)
        return {
            "query": Side(here, batched(count), lambda rows: panorama_bytes(scene, places, nuisance, rows, rows_px))
        }

    rows_px, tile_px = config.panorama_px, config.tile_px
    shapes, ids = {"query": (config.places, 3, rows_px, 2 * rows_px)}, {"query": lambda i: f"{split}-{i:06d}"}
    query = rendered(config, shapes, street, [level, _Half("panoramas")], ids, progress=progress)["query"]
    parts = np.split(query.positions.values, list(accumulate(counts))[:-1])
    grids = [around(part - [number * CITY_GAP_M, 0], config.span_m / 2) for number, part in enumerate(parts)]

    def above(number: int, count: int) -> dict[str, Side]:
        scene, _, nuisance = city_of(wide, number, count, device)
        centre = np.float32(grids[number][0])
        drawn = draw_nuisance(level, len(centre), scene.city.seed, device)

        def tile(rows: NDArray) -> Tensor:
            at = torch.from_numpy(centre[rows]).to(device).unbind(1)
            size = {"span_m": config.span_m, "size_px": tile_px}
            return expose(
                satellite_tiles(scene, nuisance.satellite_day, *at, **size).rgb, drawn.satellite_sensor.take(rows)
            )

        return {"gallery": Side(centre, batched(len(centre)), tile)}

    sizes = [len(centre) for centre, _ in grids]
    shapes, ids = {"gallery": (sum(sizes), 3, tile_px, tile_px)}, {"gallery": lambda i: f"{split}-tile-{i:06d}"}
    gallery = rendered(config, shapes, above, [level, _Half("tiles")], ids, progress=progress)["gallery"]
    first = np.repeat([0, *accumulate(sizes)][:-1], [len(part) for part in parts])
    tile_of = np.concatenate([of for _, of in grids]) + first[:, None]
    semi = Positives.of(list(tile_of[:, 1:]))
    return Dataset("world", split, query, gallery, Positives.one_each(tile_of[:, 0]), semi)
