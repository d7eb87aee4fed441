"""How a city looks on a given day: season, sun, clouds, cast shadows, which cars are there, lamps at night. Worked out once per
city and day, as a pyramid of lit colours, which views look up: albedo times (ambient + sun * visibility * cosine), in display
space: a world to learn matching in, not photometry.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ucvgl.world.city import City
from ucvgl.world.noise import between, unit
from ucvgl.world.styles import BONNET_HEIGHT_M, CAR_HEIGHT_M, CARS, FACADES, TRUNK, Colour, Kind

Layers = dict[str, Tensor]  # of a city, by name
SEASONS = ("spring", "summer", "autumn", "winter")
LEVELS = 6  # of the colour pyramid: 1, 2, 4 .. 32 pixels
CAR_COLOURS = (
    (236, 236, 236), (30, 32, 36), (150, 152, 156), (90, 94, 100), (150, 34, 32), (36, 62, 118), (182, 170, 140),
)  # fmt: skip
CAR_OF = (np.arange(TRUNK + 1) - 1) % CARS  # which car it is, by minus the object number: cabin and bonnet share it
STRIP = 64  # rows lit at a time, so that they stay in a processor's cache


@dataclass(frozen=True)
class Condition:
    """The day of a picture."""

    season: str = "summer"  # one of SEASONS
    sun_azimuth_deg: float = 165.0  # clockwise from north
    sun_elevation_deg: float = 50.0  # above the horizon; below 0 it is night and lamps are lit
    cloud: float = 0.1  # 0 clear with hard shadows .. 1 overcast without
    snow: float = 0.0  # share of ground and roofs under snow, 0..1
    traffic: int = 0  # two days with different numbers have partly different parked cars

    @property
    def night(self) -> bool:
        """The sun is below the horizon."""
        return self.sun_elevation_deg < 0

    @property
    def sun(self) -> tuple[float, float, float]:
        """Unit vector towards the sun: east, north, up."""
        azimuth, elevation = math.radians(self.sun_azimuth_deg), math.radians(max(self.sun_elevation_deg, 12.0))
        flat = math.cos(elevation)
        return math.sin(azimuth) * flat, math.cos(azimuth) * flat, math.sin(elevation)

    @property
    def ambient(self) -> tuple[float, float, float]:
        """Light from the whole sky, per colour channel."""
        if self.night:
            return (0.10, 0.11, 0.16)
        level = 0.46 + 0.44 * self.cloud
        return (0.93 * level, 0.99 * level, 1.10 * level)

    @property
    def direct(self) -> tuple[float, float, float]:
        """Sunlight on a surface that faces the sun, scaled so that flat ground in the sun reflects its albedo."""
        if self.night:
            return (0.0, 0.0, 0.0)
        level = (1.02 - 0.46 - 0.44 * self.cloud) / self.sun[2]
        warm = 0.12 * max(0.0, 1 - self.sun_elevation_deg / 40)
        return (level * (1 + warm), level, level * (1 - 1.4 * warm))

    @property
    def leaf_cover(self) -> float:
        """The share of a crown that hides what is behind it."""
        return {"spring": 0.86, "summer": 0.95, "autumn": 0.85, "winter": 0.34}[self.season]


# what a season does to lawns and to leaves: a colour and how much of it is mixed in
LAWNS = {"spring": ((104, 140, 66), 0.5), "summer": ((112, 120, 62), 0.15), "autumn": ((138, 122, 72), 0.45),
         "winter": ((132, 126, 100), 0.55)}  # fmt: skip
LEAVES = {"spring": ((98, 126, 58), (138, 156, 84)), "summer": ((56, 80, 40), (92, 112, 56)),
          "autumn": ((128, 84, 40), (190, 150, 58)), "winter": ((98, 86, 76), (120, 110, 100))}  # fmt: skip
NEEDLES = ((42, 62, 44), (60, 80, 56))


def make_objects(city: City, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a city's facades and cars: colours of walls in 0..1, (FACADES, 3); (FACADES, 4) metres between windows, and shares, of
    that and of a floor that is glass, lit at night; colours of cars, (TRUNK + 1, 3) by minus the object number."""
    variant = np.arange(FACADES)

    def pick(colours: tuple[Colour, ...], key: int, objects: np.ndarray) -> np.ndarray:
        return np.asarray(colours, np.float32)[(unit(city.seed, key, objects) * len(colours)).astype(int)]

    walls = pick(city.style.walls, 80, variant) * between(0.85, 1.1, city.seed, 81, variant)[:, None]
    tall = city.style.floors[1] > 6
    bounds = ((2.0, 3.8), (0.34, 0.82 if tall else 0.58), (0.42, 0.74 if tall else 0.6), (0.1, 0.6))
    window = np.stack([between(*pair, city.seed, 82 + k, variant) for k, pair in enumerate(bounds)], -1)
    tables = np.clip(walls, 0, 255) / np.float32(255), window, pick(CAR_COLOURS, 86, CAR_OF) / np.float32(255)
    return tuple(torch.from_numpy(table).to(device) for table in tables)


def car_heights(city: City, condition: Condition, device: torch.device) -> Tensor:
    """Height in metres that each car site adds on that day, by minus the object number: (TRUNK + 1,); 0 where empty."""
    number = np.arange(TRUNK + 1)
    there = unit(city.seed, 90, condition.traffic, CAR_OF) < np.float32(0.72)
    there &= (number > 0) & (number < TRUNK)
    height = np.where(number <= CARS, np.float32(CAR_HEIGHT_M), np.float32(BONNET_HEIGHT_M))
    return torch.from_numpy(there * height).to(device)


@dataclass(frozen=True)
class Lit:
    """Lit colours of one city on one day, as a pyramid."""

    texels: Tensor  # uint8 (pixels of all levels, 4): red, green, blue and class; level by level, row by row
    offsets: Tensor  # (LEVELS,) first texel of each level
    sizes: Tensor  # (LEVELS,) pixels a side
    ceiling: Tensor  # int16 (N, N): height in cm below which a point stands in shadow


def shadow_ceiling(height: Tensor, resolution_m: float, condition: Condition) -> Tensor:
    """The height below which each pixel is in shadow, float32 (N, N) metres; height: what casts, metres. One sweep from the
    sun: a row's ceiling is the higher of the row before and its ceiling, moved and lowered along the sun's rays."""
    if condition.night or condition.cloud >= 1:
        return torch.full_like(height, -1000.0)
    east, north, up = condition.sun
    by_rows = abs(north) >= abs(east)
    field = height if by_rows else height.t()
    # rows run south, columns run east; walk away from the sun
    major, minor = (-north, east) if by_rows else (east, -north)
    size, drop = len(field), resolution_m / abs(major) * up
    shift = minor / abs(major)  # columns to look towards the sun, a row back
    whole, part = math.floor(shift), shift - math.floor(shift)
    pad = abs(whole) + 2
    ceiling, above = torch.empty_like(field), torch.full((size + 2 * pad,), -1000.0, device=height.device)
    for row in range(size - 1, -1, -1) if major > 0 else range(size):
        near, far = (above[pad + whole + k : pad + whole + k + size] for k in (0, 1))
        torch.sub(torch.lerp(near, far, part), drop, out=ceiling[row])
        torch.maximum(ceiling[row], field[row], out=above[pad : pad + size])
    return ceiling if by_rows else ceiling.t().contiguous()


def light_city(city: City, layers: Layers, car_colour: Tensor, condition: Condition, *, from_above: bool) -> Lit:
    """The lit colours of a city on a day: with crowns on top, as an aircraft sees it, or the ground under them."""
    relief = layers["relief"]
    device = relief.device
    cars, site = car_heights(city, condition, device), (-relief[..., 3].int()).clamp(0, TRUNK)
    solid = relief[..., 0].float() * 0.01 + cars[site]
    leafy = (relief[..., 2] > 0) & (layers["dither"] < condition.leaf_cover)
    covered = torch.where(leafy, (relief[..., 0].float() + relief[..., 2].float()) * 0.01, solid)
    ceiling = shadow_ceiling(covered, city.resolution_m, condition)
    # what the light falls on, with a row more at either edge
    top = F.pad((covered if from_above else solid)[None], (0, 0, 1, 1), mode="replicate")[0]
    sun_east, sun_north, sun_up = condition.sun

    def lit_rows(rows: slice) -> Tensor:
        """Lit colours and classes: uint8 (rows, N, 4)."""
        surface, extra, dither = layers["surface"][rows], layers["extra"][rows], layers["dither"][rows]
        kind = surface[..., 3]
        colour = _season_ground(surface[..., :3].float() / 255, kind, dither, condition)
        parked = cars[site[rows]] > 0
        colour[parked] = car_colour[site[rows][parked]]
        kind = kind.masked_fill(parked, Kind.CAR)
        if from_above:
            crown = leafy[rows]
            leaves = leaf_colour(extra[..., 1][crown], condition) * (0.75 + 0.4 * dither[crown])[..., None]
            if condition.snow > 0:
                leaves = leaves + (0.9 - leaves) * 0.4 * condition.snow
            colour[crown] = leaves
            kind = kind.masked_fill(crown, Kind.TREE)
        above, height, below = (top[rows.start + k : rows.start + k + len(kind)] for k in range(3))
        # slope of the top surface, limited so that a wall's foot doesn't turn black
        east_slope = torch.zeros_like(height)
        east_slope[:, 1:-1] = ((height[:, 2:] - height[:, :-2]) / (2 * city.resolution_m)).clamp(-1.2, 1.2)
        north_slope = ((above - below) / (2 * city.resolution_m)).clamp(-1.2, 1.2)
        steepness = torch.sqrt(1 + east_slope.square() + north_slope.square())
        cosine = (sun_up - east_slope * sun_east - north_slope * sun_north) / steepness
        # a soft edge of 40 cm, below the ceiling: flat ground, which is its own ceiling, lies all in the sun
        seen = ((height - ceiling[rows]) / 0.4 + 1).clamp(0, 1)
        sunlight = cosine.clamp(min=0) * seen
        sky = torch.ones_like(height) if from_above else 1 - 0.22 * leafy[rows].float()
        ambient, direct = (torch.tensor(light, device=device) for light in (condition.ambient, condition.direct))
        light = sky[..., None] * ambient + sunlight[..., None] * direct
        if condition.night:
            light = light + (extra[..., 0].float() / 255)[..., None] * torch.tensor((0.9, 0.68, 0.40), device=device)
        colour = colour.mul_(light).mul_(255).clamp_(0, 255).round_()
        return torch.cat([colour.to(torch.uint8), kind[..., None]], -1)

    levels = [torch.cat([lit_rows(slice(first, first + STRIP)) for first in range(0, len(relief), STRIP)])]
    for _ in range(LEVELS - 1):  # halved: colours by averaging, classes by picking
        *planes, kind = levels[-1].unbind(-1)
        halves = [F.avg_pool2d(plane[None].float(), 2)[0].round().to(torch.uint8) for plane in planes]
        size = len(kind) // 2
        levels.append(torch.stack([*halves, kind[1::2, 1::2][:size, :size]], -1))
    sizes = torch.tensor([len(level) for level in levels], dtype=torch.int32, device=device)
    offsets = (sizes.square().cumsum(0) - sizes.square()).int()
    ceiling_cm = (ceiling * 100).round().clamp(-32000, 32000).to(torch.int16)
    return Lit(torch.cat([level.reshape(-1, 4) for level in levels]), offsets, sizes, ceiling_cm)


def _season_ground(colour: Tensor, kind: Tensor, dither: Tensor, condition: Condition) -> Tensor:
    """Lawns turn with the season; snow lies on lawns and roofs, less on paths, hardly on roads."""
    target, share = LAWNS[condition.season]
    target = torch.tensor(target, device=colour.device) / 255
    lawn = (kind == Kind.GRASS)[..., None].float()
    colour = colour + (target - colour).mul_(share * lawn)
    if condition.snow > 0:
        catches = torch.tensor([0.15, 0.1, 0.1, 0.45, 0.7, 1.0, 0.2, 0.92, 0, 0.5, 0.3, 0], device=colour.device)
        share = (catches[kind.int()] * condition.snow * (0.7 + 0.5 * dither)).clamp(0, 1)[..., None]
        colour = colour + (torch.tensor((0.93, 0.94, 0.97), device=colour.device) - colour) * share
    return colour


def leaf_colour(tint: Tensor, condition: Condition) -> Tensor:
    """Colour of crowns from their tint, whose lowest bit says conifer."""
    mix = (tint >> 1).float()[..., None] / 127
    ends = torch.tensor((LEAVES[condition.season], NEEDLES), device=tint.device) / 255
    leaves, needles = (low + (high - low) * mix for low, high in ends)
    return torch.where((tint & 1).bool()[..., None], needles, leaves)
