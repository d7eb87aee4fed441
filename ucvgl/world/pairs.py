"""The world as a data set of panoramas and satellite tiles: pairs of one spot each, or tiles on a grid, as in VIGOR."""

import math
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from ucvgl.data.container import Dataset, Positives
from ucvgl.world.city import Places, choose, street_places
from ucvgl.world.difficulty import LEVELS, Nuisance, draw_nuisance, satellite_condition
from ucvgl.world.render import Scene
from ucvgl.world.rendering import CITY_GAP_M, Shots, WorldConfig, rendered, scene_of, shares
from ucvgl.world.views import panoramas, satellite_tiles


def world_pairs(config: WorldConfig, split: str = "all", *, device: torch.device | str = "cpu") -> Dataset:
    """N places; query i is a panorama, gallery image i the tile of the same place, with true positions in metres; rendered once.
    Panoramas are uint8 (3, H, 2H), tiles (3, S, S); `split` is what this part is called. InputError if the cities have
    fewer places at that spacing, or there is no room on the disk."""

    def city(number: int, count: int) -> dict[str, Shots]:
        scene, places, nuisance = city_of(config, number, count, device)
        tiles = tile_shots(config, scene, places.metres + nuisance.tile_shift_m, nuisance)
        return {"query": panorama_shots(scene, places, nuisance, config.panorama_px), "gallery": tiles}

    query = f"{split}-", config.places, config.panorama_px, 2 * config.panorama_px
    gallery = f"{split}-", config.places, config.tile_px, config.tile_px
    behind = ["pairs", asdict(LEVELS[config.difficulty])]
    found = rendered(config, behind, city, query=query, gallery=gallery)
    return Dataset("world", split, **found, positives=Positives.one_each(np.arange(config.places)))


def world_grid(config: WorldConfig, split: str = "all", *, device: torch.device | str = "cpu") -> Dataset:
    """N panoramas and the M tiles around them, `span_m` wide on a grid of half of that: VIGOR's layout (CVPR 2021). A panorama's
    tile is the one with the nearest centre, the three others that show its spot are semi-positives; tiles may be shared, or
    nobody's nearest. Sizes, ids and errors as `world_pairs`."""
    level, step = LEVELS[config.difficulty], config.span_m / 2
    wide = replace(config, span_m=2 * config.span_m)  # keeps places so far from the edge that all four tiles are inside

    def city(number: int, count: int) -> dict[str, Shots]:
        scene, places, nuisance = city_of(wide, number, count, device)
        # rounded as they are kept, so that reading them gives the same tiles
        kept = (places.metres + np.float32([number * CITY_GAP_M, 0])).astype(np.float64)
        centre_m = np.float32(around(kept - [number * CITY_GAP_M, 0], step)[0])
        tiles = tile_shots(config, scene, centre_m, draw_nuisance(level, len(centre_m), scene.city.seed, device))
        return {"query": panorama_shots(scene, places, nuisance, config.panorama_px), "gallery": tiles}

    counts = shares(config)
    most = sum(min(4 * count, math.ceil(config.city_size_m / step) ** 2) for count in counts)
    query = f"{split}-", config.places, config.panorama_px, 2 * config.panorama_px
    gallery = f"{split}-tile-", most, config.tile_px, config.tile_px
    found = rendered(config, ["grid", asdict(level)], city, query=query, gallery=gallery)
    tile_of, first = [], 0
    for number, here in enumerate(np.split(found["query"].positions.values, np.cumsum(counts)[:-1])):
        centre_m, own = around(here - [number * CITY_GAP_M, 0], step)
        tile_of.append(first + own)
        first += len(centre_m)
    best, *semi = np.concatenate(tile_of).T  # (N,) each
    others = Positives.of(np.stack(semi, 1))
    return Dataset("world", split, **found, positives=Positives.one_each(best), semi_positives=others)


def around(here_m: NDArray, step_m: float) -> tuple[NDArray, NDArray]:
    """The tiles of a grid that places need: centres (M, 2) metres, and for each of (N, 2) places its four, the nearest first."""
    corner = np.floor(here_m / step_m)[:, None] + np.array([[0, 0], [0, 1], [1, 0], [1, 1]])  # (N, 4, 2)
    order = np.argsort(np.hypot(*(corner * step_m - here_m[:, None]).transpose(2, 0, 1)), 1, kind="stable")
    corner = np.take_along_axis(corner, order[..., None], 1)
    cells, tile_of = np.unique(corner.reshape(-1, 2), axis=0, return_inverse=True)
    return cells * step_m, tile_of.reshape(-1, 4)


def city_of(config: WorldConfig, number: int, count: int, device: torch.device | str) -> tuple[Scene, Places, Nuisance]:
    """City `number` of a world on a device, `count` places in it, and what its level drew for them."""
    scene, level = scene_of(config, number, device), LEVELS[config.difficulty]
    margin = config.span_m / 2 + max(10.0, 3.1 * level.tile_shift_m)  # room for a tile shifted as far as it can be
    places = choose(street_places(scene.city, config.spacing_m, margin_m=margin), count, scene.city.seed)
    return scene, places, draw_nuisance(level, count, scene.city.seed, device)


def panorama_shots(scene: Scene, places: Places, drawn: Nuisance, height_px: int) -> Shots:
    """A panorama at each place, with the pose, the day and the camera that its level drew."""
    angles = drawn.heading_deg, drawn.pitch_deg, drawn.roll_deg
    poses = places.east_m, places.north_m, drawn.camera_height_m, *angles
    return Shots(scene, partial(panoramas, height_px=height_px), poses, drawn.ground_sensor, drawn.days, drawn.day)


def tile_shots(config: WorldConfig, scene: Scene, centre_m: NDArray, drawn: Nuisance) -> Shots:
    """Tiles about centres (N, 2) in the city's metres, all of the mosaic's day."""
    camera = partial(satellite_tiles, span_m=config.span_m, size_px=config.tile_px)
    day, days = np.zeros(len(centre_m), np.int32), (satellite_condition(scene.city.seed),)
    return Shots(scene, camera, tuple(centre_m.T), drawn.satellite_sensor, days, day)
