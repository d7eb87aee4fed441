"""A world as a data set: places in one or more cities, each with a panorama and the satellite tile of the spot."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ucvgl.data.container import Dataset, Positives
from ucvgl.world.city import make_city
from ucvgl.world.difficulty import DEFAULT_LEVEL, Nuisance, draw_nuisance, level_named
from ucvgl.world.places import Places, choose, street_places
from ucvgl.world.render import Scene
from ucvgl.world.rendering import Side, batched, check_settings, city_seed, rendered
from ucvgl.world.sensor import expose
from ucvgl.world.styles import style_named
from ucvgl.world.views import panoramas, satellite_tiles


@dataclass(frozen=True)
class WorldConfig:
    """Which world, which places, which pictures."""

    styles: tuple[str, ...] = ("garden",)  # one city each
    seed: int = 0
    places: int = 1000  # over all cities
    spacing_m: float = 12.0  # between stops along a street; VIGOR's tiles overlap like this, CVUSA's are farther apart
    difficulty: str = DEFAULT_LEVEL
    span_m: float = 50.0  # edge of a tile on the ground; CVUSA's zoom-19 tiles span about 70
    tile_px: int = 64  # the paper's 384
    panorama_px: int = 128  # height; width is twice that. CVACT's are 832
    city_size_m: float = 768.0
    resolution_m: float = 0.25  # of the city's rasters

    def __post_init__(self) -> None:
        level_named(self.difficulty)
        sizes = ("span_m", "tile_px", "panorama_px")
        check_settings(self, {name: (getattr(self, name) > 0, "a number above 0") for name in sizes})


def world_pairs(
    config: WorldConfig, split: str = "all", *, device: torch.device | str = "cpu", progress: bool = True
) -> Dataset:
    """N places; query i is a panorama, gallery image i the tile of the same place. Rendered once.

    Panoramas are uint8 (3, H, 2H), tiles (3, S, S), with true positions in metres; `split` is what this part is called.
    InputError if the cities have fewer places at that spacing, or there is no room on the disk.
    """
    count, rows, tile = config.places, config.panorama_px, config.tile_px
    shapes = {"query": (count, 3, rows, 2 * rows), "gallery": (count, 3, tile, tile)}
    ids = dict.fromkeys(shapes, lambda i: f"{split}-{i:06d}")
    level = level_named(config.difficulty)
    sides = rendered(config, shapes, lambda *city: _sides(config, *city, device), [level], ids, progress=progress)
    return Dataset("world", split, sides["query"], sides["gallery"], Positives.one_each(np.arange(count)))


def _sides(config: WorldConfig, number: int, count: int, device: torch.device | str) -> dict[str, Side]:
    scene, places, nuisance = city_of(config, number, count, device)
    here = np.stack([places.east_m, places.north_m], -1)
    centre = here + nuisance.tile_shift_m

    def tile(rows: NDArray) -> Tensor:
        east, north = (torch.from_numpy(centre[rows, k]).to(device) for k in range(2))
        view = satellite_tiles(scene, nuisance.satellite_day, east, north, span_m=config.span_m, size_px=config.tile_px)
        return expose(view.rgb, nuisance.satellite_sensor.take(rows))

    def panorama(rows: NDArray) -> Tensor:
        return panorama_bytes(scene, places, nuisance, rows, config.panorama_px)

    return {"query": Side(here, batched(count), panorama), "gallery": Side(centre, batched(count), tile)}


def city_of(config: WorldConfig, number: int, count: int, device: torch.device | str) -> tuple[Scene, Places, Nuisance]:
    """City `number` of a world on a device, `count` places in it, and what its level drew for them."""
    seed = city_seed(config, number)
    style = style_named(config.styles[number])
    city = make_city(style, seed, size_m=config.city_size_m, resolution_m=config.resolution_m)
    level = level_named(config.difficulty)
    margin = config.span_m / 2 + max(10.0, 3.1 * level.tile_shift_m)  # room for a tile shifted as far as it can be
    places = choose(street_places(city, config.spacing_m, margin_m=margin), count, seed)
    nuisance = draw_nuisance(level, count, seed, device)
    return Scene(city, device), places, nuisance


def panorama_bytes(scene: Scene, places: Places, nuisance: Nuisance, here: NDArray, rows: int) -> Tensor:
    """Panoramas of some places, those of one day at a time, as bytes on the scene's device."""
    out = torch.empty((len(here), 3, rows, 2 * rows), dtype=torch.uint8, device=scene.device)
    poses = np.stack([
        places.east_m, places.north_m, nuisance.camera_height_m, nuisance.heading_deg, nuisance.pitch_deg, nuisance.roll_deg,
    ])  # fmt: skip
    for day in np.unique(nuisance.day[here]):
        slot = np.nonzero(nuisance.day[here] == day)[0]
        at = here[slot]
        east, north, height, heading, pitch, roll = torch.from_numpy(poses[:, at]).to(scene.device)
        tilt = {"pitch_deg": pitch, "roll_deg": roll}
        view = panoramas(scene, nuisance.days[day], east, north, height, height_px=rows, heading_deg=heading, **tilt)
        out[torch.from_numpy(slot).to(scene.device)] = expose(view.rgb, nuisance.ground_sensor.take(at))
    return out
