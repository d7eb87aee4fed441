"""The ray caster: one vertical fan of rays per image column, through a height field with tree crowns.

Along a column's azimuth the relief is read at log-spaced ranges once, whatever the number of rows; the running maximum of its
slope says, by binary search, at which range each row's ray first meets something solid. Crowns float, so they are met where
the running maximum of their tops and the running minimum of their undersides both admit the ray; nothing else overhangs.
Between two ranges the meeting point is interpolated, so that flat ground is met exactly. Panoramas and level photos have
vertical columns and are cast directly; tilted cameras are cut out of panoramas (views.py).
"""

import math
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ucvgl.world.appearance import Condition, Lit, car_heights, leaf_colour, light_city, make_objects
from ucvgl.world.city import City
from ucvgl.world.noise import Noise, unit
from ucvgl.world.styles import BONNET_HEIGHT_M, CAR_HEIGHT_M, CARS, FLOOR_M, TRUNK, Kind

RANGE_MIN_M, RANGE_MAX_M = 0.6, 170.0
TWO_SAMPLES_PX = 0.4  # a footprint that reaches this many pixels of the map to either side is sampled twice
LEAF_M = 0.16  # edge of the cubes that a crown's holes and mottle are made of
DAYS_KEPT = 4  # of which a scene remembers the lit colours
DITHER = 256  # a table of random numbers, this many a side
CHUNK_RAYS = 1 << 18  # rays in flight: enough to amortise a kernel's start, few enough for a laptop's cache


class Rendered(NamedTuple):
    """A batch of pictures and the truth behind them; nothing beyond the range of 170 m counts as seen: it is SKY."""

    rgb: Tensor  # float32 (B, 3, H, W) in 0..1, before the sensor
    kind: Tensor  # uint8 (B, H, W), the class (styles.Kind)
    depth_m: Tensor | None = None  # float32 (B, H, W) along the ray, inf for sky; tiles have none


class Scene:
    """A city on a device, with the lit days it was last seen on: `lit` is `light_city` of this city."""

    def __init__(self, city: City, device: torch.device | str = "cpu") -> None:
        self.city, self.device, self.pixels = city, torch.device(device), len(city.relief)
        names = ("relief", "surface", "facade", "extra")
        self.layers = {name: torch.from_numpy(getattr(city, name)).to(self.device) for name in names}
        self.dither = torch.from_numpy(unit(city.seed, 95, np.arange(DITHER * DITHER))).to(self.device)
        square = self.dither.reshape(DITHER, DITHER).repeat(-(-self.pixels // DITHER), -(-self.pixels // DITHER))
        self.layers["dither"] = square[: self.pixels, : self.pixels]
        # one word a pixel: a single gather brings solid height, crown and object; or a facade
        relief = self.layers["relief"].reshape(-1, 4)
        self.relief_words, self.numbers = relief.view(torch.int64).reshape(-1), relief[:, 3].contiguous()
        self.facade_words = self.layers["facade"].view(torch.int32).reshape(-1)
        self.walls, self.window, self.car_colour = make_objects(city, self.device)
        self.clouds = torch.from_numpy(_cloud_texture(city.seed)).to(self.device)
        self.lit = lru_cache(maxsize=DAYS_KEPT)(partial(light_city, city, self.layers, self.car_colour))

    def pixel(self, east: Tensor, north: Tensor) -> tuple[Tensor, Tensor]:
        """Continuous pixel coordinates (column, row) of points in metres; pixel centres are at halves."""
        return east / self.city.resolution_m, self.pixels - north / self.city.resolution_m

    def word_index(self, column: Tensor, row: Tensor) -> Tensor:
        """Flat index of the pixel under continuous coordinates, clamped to the city."""
        last = self.pixels - 1
        return row.to(torch.int32).clamp_(0, last) * self.pixels + column.to(torch.int32).clamp_(0, last)

    def ground_height(self, east: Tensor, north: Tensor) -> Tensor:
        """Height of ground and buildings without cars, metres above datum."""
        return self.layers["relief"].reshape(-1, 4)[self.word_index(*self.pixel(east, north)).long(), 0].float() * 0.01


def _cloud_texture(seed: int) -> np.ndarray:
    """Cloud density over (64 elevations, 512 azimuths), periodic in azimuth, float32 in 0..1."""
    azimuth, elevation = np.arange(512, dtype=np.float32), np.arange(64, dtype=np.float32)
    total = np.zeros((64, 512), np.float32)
    for octave, cell in enumerate((64.0, 32.0, 16.0, 8.0)):
        noise = Noise.make(512 + cell, cell, seed, 96, octave)
        noise.lattice[:, 2 + int(512 / cell) :] = noise.lattice[:, 2 : 2 + noise.lattice.shape[1] - 2 - int(512 / cell)]
        total += noise.grid(azimuth, elevation * 3) / 2 ** (octave + 1)
    return np.clip((total - 0.42) * 4, 0, 1)


def _at(values: Tensor, index: Tensor) -> Tensor:
    """Rows of a table (N, ...) at an index of any shape: values[index], several times faster on a CPU."""
    return values.index_select(0, index.reshape(-1)).reshape(*index.shape, *values.shape[1:])


def texels_at(lit: Lit, column: Tensor, row: Tensor, footprint_px: Tensor) -> tuple[Tensor, Tensor]:
    """Bilinear colours (..., 3) in 0..1 and nearest classes at pixel coordinates, from the level for their footprint."""
    level = (torch.log2(footprint_px.clamp(min=1)) + 0.5).to(torch.int32).clamp_(0, len(lit.sizes) - 1)
    size, offset = _at(lit.sizes, level), _at(lit.offsets, level)
    scale = torch.exp2(-level.float())
    x, y = column * scale - 0.5, row * scale - 0.5
    x0, y0 = torch.floor(x), torch.floor(y)
    tx, ty = (x - x0).clamp(0, 1), (y - y0).clamp(0, 1)
    last = size - 1
    left, right = ((x0.int() + k).clamp(min=0).minimum(last) for k in (0, 1))
    up, down = (offset + (y0.int() + k).clamp(min=0).minimum(last) * size for k in (0, 1))
    words = lit.texels.view(torch.int32).reshape(-1)
    corner = [_at(words, index) for index in (up + left, up + right, down + left, down + right)]
    weight = [(1 - tx) * (1 - ty), tx * (1 - ty), (1 - tx) * ty, tx * ty]
    channels = []
    for shift in (0, 8, 16):
        planes = [((word >> shift) & 255).float() * w for word, w in zip(corner, weight, strict=True)]
        channels.append((planes[0] + planes[1] + planes[2] + planes[3]) * (1 / 255))
    upper, lower = (torch.where(tx < 0.5, corner[k], corner[k + 1]) for k in (0, 2))
    nearest = torch.where(ty < 0.5, upper, lower)
    return torch.stack(channels, -1), ((nearest >> 24) & 255).to(torch.uint8)


class _Hits(NamedTuple):
    """Rays of one kind, picked out of a chunk, as flat vectors of one length M."""

    ray: Tensor  # place in the flattened (B, W, H)
    at: Tensor  # place in the flattened (B, W, R) of the range that is met
    sin: Tensor  # of the azimuth
    cos: Tensor
    slope: Tensor  # rise over run
    run_m: Tensor  # horizontal distance
    column: Tensor  # where the ray ends, in pixels of the map
    row: Tensor
    eye_m: Tensor  # height of the eye above datum
    width_m: Tensor  # of a pixel at that distance


def cast_columns(
    scene: Scene, condition: Condition, east: Tensor, north: Tensor, eye_m: Tensor, azimuth: Tensor, slope: Tensor,
    pixel_rad: float, *, ranges: int | None = None, range_max_m: float = RANGE_MAX_M,
) -> Rendered:  # fmt: skip
    """Cast columns of rays. east, north, eye_m: (B,) metres, the eye's height above datum; azimuth: (B, W) radians clockwise from
    north; slope: (B or 1, W or 1, H) rise over run of each ray; pixel_rad: angle that colours are averaged over; ranges: steps
    along a column."""
    (batch, width), rows = azimuth.shape, slope.shape[-1]
    slope, ranges = slope.expand(batch, width, rows), ranges or max(112, rows)
    chunk = max(1, CHUNK_RAYS // (width * rows))
    if batch > chunk:
        some = zip(*(values.split(chunk) for values in (east, north, eye_m, azimuth, slope)), strict=True)
        cast = partial(cast_columns, pixel_rad=pixel_rad, ranges=ranges, range_max_m=range_max_m)
        parts = [cast(scene, condition, *rays) for rays in some]
        return Rendered(*map(torch.cat, zip(*parts, strict=True)))

    device, res = scene.device, scene.city.resolution_m
    steps = torch.linspace(0, 1, ranges, device=device)
    r = RANGE_MIN_M * torch.exp(steps * math.log(range_max_m / RANGE_MIN_M))  # (R,)
    sin, cos = torch.sin(azimuth), torch.cos(azimuth)  # (B, W)
    eye_col, eye_row = scene.pixel(east, north)
    column = eye_col[:, None, None] + (sin / res)[..., None] * r  # (B, W, R)
    row = eye_row[:, None, None] - (cos / res)[..., None] * r
    at = scene.word_index(column, row)
    relief = _at(scene.relief_words, at).view(torch.int16).reshape(batch, width, ranges, 4)
    number = relief[..., 3].to(torch.int32)
    parked = _at(car_heights(scene.city, condition, device), (-number).clamp_(0, TRUNK))
    ground = relief[..., 0].float() * 0.01 - eye_m[:, None, None]  # relative to the eye
    z = ground + parked
    inverse = 1 / r
    solid_max = torch.cummax(z * inverse, -1).values
    rays = slope.contiguous()  # (B, W, H)
    hit = torch.searchsorted(solid_max, rays)  # first range whose slope reaches the ray
    missed = hit == ranges
    hit = hit.clamp_(max=ranges - 1)
    first = hit == 0
    before = (hit - 1).clamp_(min=0)
    z_hit, z_before = z.gather(-1, hit), z.gather(-1, before)
    r_hit, r_before = _at(r, hit), torch.where(first, 0.0, _at(r, before))
    z_before = torch.where(first, z_hit, z_before)  # nearer than the first range the ground is taken as level
    run, rise = r_hit - r_before, z_hit - z_before
    # an object that rises faster than a roof can, or from the ground: its side, taken as midway between the two ranges
    stands = torch.where((number > -TRUNK) & (number < 0) & (parked == 0), 0, number)  # what is there on the day
    number_hit, number_before = stands.gather(-1, hit), stands.gather(-1, before)
    from_ground = (number_before <= 0) & (number_before != number_hit)
    wall = (rise > torch.where(from_ground, 0.3, 0.3 + 1.2 * run)) & (number_hit != 0) & ~missed
    share = torch.where(wall, 0.5, ((rays * r_before - z_before) / (rise - rays * run)).clamp_(0, 1))
    distance = r_before + share * run

    top, under = relief[..., 2], relief[..., 1]
    crown = top > 0
    high = torch.where(crown, (ground + top * 0.01) * inverse, -1e9)
    low = torch.where(crown, (ground + under * 0.01) * inverse, 1e9)
    leaf = torch.searchsorted(torch.cummax(high, -1).values, rays)
    leaf = torch.maximum(leaf, torch.searchsorted(-torch.cummin(low, -1).values, -rays))
    in_crown = leaf < ranges
    leaf = leaf.clamp_(max=ranges - 1)
    leaf_r = _at(r, leaf)
    in_crown &= (high.gather(-1, leaf) >= rays) & (low.gather(-1, leaf) <= rays) & (missed | (leaf_r < distance))

    def pick(mask: Tensor, met: Tensor, run_m: Tensor) -> _Hits:
        ray = mask.reshape(-1).nonzero().squeeze(1)
        fan, place = ray // rows, ray // (rows * width)
        run_m = _at(run_m.reshape(-1), ray)
        sin_m, cos_m = _at(sin.reshape(-1), fan), _at(cos.reshape(-1), fan)
        return _Hits(
            ray, fan * ranges + _at(met.reshape(-1), ray), sin_m, cos_m, _at(rays.reshape(-1), ray), run_m,
            _at(eye_col, place) + sin_m * run_m * (1 / res), _at(eye_row, place) - cos_m * run_m * (1 / res),
            _at(eye_m, place), run_m * pixel_rad,
        )  # fmt: skip

    lit = scene.lit(condition, from_above=False)
    leaves = pick(in_crown, leaf, leaf_r)
    grain = _leaf_grain(scene, leaves)
    there = grain < condition.leaf_cover  # leaves have holes: one sees what is behind
    in_crown.view(-1)[leaves.ray] = there
    leaves = _Hits(*(values[there] for values in leaves))
    walls = pick(wall & ~in_crown, hit, distance)
    open_sky = missed & ~in_crown
    tops = pick(~(wall | missed | in_crown), hit, distance)
    horizon, sky = _sky(scene, condition, azimuth, rays, east + north, open_sky)
    behind_walls = (_at(values.reshape(-1), walls.at) for values in (at, z))
    behind_leaves = (_at(values.reshape(-1), leaves.at) for values in (at, high, low))

    colour = torch.empty(batch * width * rows, 3, device=device)
    kind = torch.full((batch * width * rows,), int(Kind.SKY), dtype=torch.uint8, device=device)
    colour[open_sky.reshape(-1)] = sky
    for hits, (rgb, classes) in (
        (tops, _shade_tops(scene, lit, tops)),
        (walls, _shade_walls(scene, condition, lit, walls, *behind_walls)),
        (leaves, _shade_leaves(scene, condition, lit, leaves, grain[there], *behind_leaves)),
    ):
        haze = (1 - torch.exp(hits.run_m * (-1 / 700)))[:, None]
        colour[hits.ray] = rgb + (horizon - rgb) * haze
        kind[hits.ray] = classes
    depth = torch.where(open_sky, torch.inf, torch.where(in_crown, leaf_r, distance) * (1 + rays.square()).sqrt())
    colour = colour.reshape(batch, width, rows, 3).permute(0, 3, 2, 1)
    return Rendered(colour, kind.reshape(batch, width, rows).transpose(1, 2), depth.transpose(1, 2))


def _shade_tops(scene: Scene, lit: Lit, hits: _Hits) -> tuple[Tensor, Tensor]:
    """Ground, roofs and tops of cars: the lit map, at the level that a pixel's footprint asks for."""
    res = scene.city.resolution_m
    # a footprint is longer than wide; where that shows, two samples along it keep apart what is painted on the road
    longer = (1 + hits.slope.square()) / hits.slope.abs().clamp(min=0.02)
    reach = hits.width_m * (longer * (0.25 / res)).clamp(max=40.0)
    footprint = hits.width_m * (longer * 0.5).clamp(min=1.0).sqrt() / res
    reach = torch.where(reach > TWO_SAMPLES_PX, reach, 0.0)
    east, north = hits.sin * reach, hits.cos * reach
    colour, _ = texels_at(lit, hits.column - east, hits.row + north, footprint)
    far = reach.nonzero().squeeze(1)
    second, _ = texels_at(lit, (hits.column + east)[far], (hits.row - north)[far], footprint[far])
    colour[far] = (colour[far] + second) * 0.5
    return colour, _at(lit.texels[:, 3], scene.word_index(hits.column, hits.row))  # the class just where the ray ends


def _shade_walls(
    scene: Scene, condition: Condition, lit: Lit, hits: _Hits, at: Tensor, top_z: Tensor
) -> tuple[Tensor, Tensor]:
    """Facades, sides of cars, trunks and hedges; at, top_z: (M,) the map's pixel behind, its metres above the eye."""
    number = _at(scene.numbers, at).int()
    building, is_car = number > 0, (number < 0) & (number > -TRUNK)
    variant = number.clamp(0)
    facade = [((_at(scene.facade_words, at) >> shift) & 255).float() for shift in (0, 8, 16, 24)]
    normal_east, normal_north = ((steps - 128) * (1 / 127) for steps in facade[:2])
    along_m, tall_m = (quarters * 0.25 for quarters in facade[2:])
    z = hits.slope * hits.run_m
    above_ground = z - (top_z - tall_m)

    window = _at(scene.window, variant)
    u, floor = along_m / window[:, 0], above_ground * (1 / FLOOR_M)
    blur = hits.width_m * 0.5 + 0.08
    to_frame_u = (0.5 * window[:, 1] - (u - u.floor() - 0.5).abs()) * window[:, 0]
    to_frame_v = (0.5 * window[:, 2] - (floor - floor.floor() - 0.52).abs()) * FLOOR_M
    glass = (to_frame_u / blur + 0.5).clamp_(0, 1) * (to_frame_v / blur + 0.5).clamp_(0, 1)
    room = _at(scene.dither, (u.int() * 37 + floor.int() * 101 + variant * 17) & (DITHER * DITHER - 1))

    # the wall faces the sun, and stands above the shadow's ceiling just in front of it
    sun_east, sun_north, _ = condition.sun
    round_about = -(hits.sin * sun_east + hits.cos * sun_north)  # cars, trunks and hedges show their middle
    facing = torch.where(building, normal_east * sun_east + normal_north * sun_north, round_about).clamp_(min=0)
    front = scene.word_index(hits.column + normal_east * 3, hits.row - normal_north * 3)
    ceiling = _at(lit.ceiling.reshape(-1), front) * 0.01 - hits.eye_m
    sunlit = ((z - ceiling) * 2).clamp_(0, 1) * facing
    light = _colour(scene, condition.ambient) * 0.86 + sunlit[:, None] * _colour(scene, condition.direct)

    if condition.night:
        on = (room < window[:, 3])[:, None]
        pane = torch.where(on, _colour(scene, (0.95, 0.78, 0.46)), _colour(scene, (0.03, 0.03, 0.05)))
    else:
        pane = (_colour(scene, (0.20, 0.24, 0.29)) + (room * 0.16)[:, None]) * (0.45 + 0.55 * light)
    wall = _at(scene.walls, variant) * light * torch.where(above_ground < 0.5, 0.82, 1.0)[:, None]
    wall = wall + (pane - wall) * glass[:, None]
    car = _at(scene.car_colour, (-number).clamp(0, TRUNK)) * light
    below_roof = top_z - z
    cabin = number >= -CARS  # windows all round; the bonnet has none
    greenhouse = (cabin & (below_roof > 0.12) & (below_roof < CAR_HEIGHT_M - BONNET_HEIGHT_M))[:, None]
    car = torch.where(greenhouse, _colour(scene, (0.12, 0.13, 0.15)) * (0.4 + light), car)
    green = texels_at(lit, at % scene.pixels + 0.5, at // scene.pixels + 0.5, torch.ones_like(z))[0] * 0.8
    colour = torch.where(building[:, None], wall, torch.where(is_car[:, None], car, green))
    kind = torch.where(building, int(Kind.WALL), torch.where(is_car, int(Kind.CAR), int(Kind.TREE)))
    return colour, kind.to(torch.uint8)


def _leaf_grain(scene: Scene, hits: _Hits) -> Tensor:
    """A random number for each cube of a crown, (M,) in [0, 1)."""
    per_cube = scene.city.resolution_m / LEAF_M
    x, y = (hits.column * per_cube).int(), (hits.row * per_cube).int()
    z = ((hits.slope * hits.run_m + hits.eye_m) / LEAF_M).int()
    return _at(scene.dither, (x * 73 + y * 151 + z * 3001) & (DITHER * DITHER - 1))


def _shade_leaves(
    scene: Scene, condition: Condition, lit: Lit, hits: _Hits, grain: Tensor, at: Tensor, high: Tensor, low: Tensor
) -> tuple[Tensor, Tensor]:
    """Crowns, lighter towards top and sun; at, high, low: (M,) the map's pixel, slopes of the crown's top and bottom."""
    colour = leaf_colour(_at(scene.layers["extra"].reshape(-1, 2), at)[:, 1], condition)
    up = ((hits.slope - low) / (high - low).clamp(min=1e-3)).clamp_(0, 1)
    ceiling = _at(lit.ceiling.reshape(-1), at) * 0.01 - hits.eye_m
    sunlit = ((hits.slope * hits.run_m - ceiling + 1.5) / 2).clamp_(0, 1)
    light = _colour(scene, condition.ambient) * (0.7 + 0.3 * up)[:, None]
    light = light + ((0.25 + 0.6 * up) * sunlit * condition.sun[2])[:, None] * _colour(scene, condition.direct)
    return colour * light * (0.72 + 0.5 * grain)[:, None], torch.full_like(at, int(Kind.TREE), dtype=torch.uint8)


def _sky(
    scene: Scene, condition: Condition, azimuth: Tensor, rays: Tensor, shift: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Colour at the horizon (3,) and of the sky where mask (B, W, H) says, (M, 3); clouds differ from place to place."""
    clear = (0.33, 0.52, 0.80), (0.78, 0.86, 0.93), (0.95, 0.95, 0.95)
    dark = (0.02, 0.03, 0.07), (0.10, 0.10, 0.13), (0.12, 0.11, 0.12)
    zenith, horizon, cloud = (_colour(scene, rgb) for rgb in (dark if condition.night else clear))
    if not condition.night:
        dull = _colour(scene, (0.74, 0.76, 0.79))
        zenith, horizon = (rgb + (dull - rgb) * condition.cloud for rgb in (zenith, horizon))
    slope = rays[mask]
    up = (slope / (1 + slope.square()).sqrt()).clamp_(0, 0.999)
    turn = ((azimuth / (2 * math.pi) + shift[:, None] * 0.037) * 512).int() & 511  # (B, W)
    turn = turn[..., None].expand(rays.shape)[mask]
    # looking up, a cloud layer is near and its clouds are wide: sample its texture by 1 / slope
    density = _at(scene.clouds.reshape(-1), (64 * up.sqrt()).int() * 512 + turn) * (0.25 + 0.6 * condition.cloud)
    # up to the power 0.6; pow itself rounds otherwise at the end of a vector, and pictures would depend on the batch
    sky = horizon + (zenith - horizon) * (up.log() * 0.6).exp()[:, None]
    return horizon, sky + (cloud - sky) * density[:, None]


def _colour(scene: Scene, rgb: tuple[float, float, float]) -> Tensor:
    return torch.tensor(rgb, device=scene.device)
