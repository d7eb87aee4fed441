"""Drives as a data set: perspective photos of two passes along the same streets, paired by position, as place recognition has
them. A kind says how the second pass, the queries, differs from the first, after the sets of VG-SSL (Xiao et al., WACV 2025):
'car' after MSLS, 'hand_held' after Pitts30k, 'season' after Nordland, 'night' after Tokyo 24/7."""

from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from ucvgl.data.container import Dataset, Positives
from ucvgl.world.appearance import Condition
from ucvgl.world.city import City, Places, choose, street_places
from ucvgl.world.difficulty import Difficulty, Sensor, draw_nuisance, street_day
from ucvgl.world.noise import Floats, between, hash32, unit
from ucvgl.world.rendering import DriveConfig, Shots, rendered, scene_of
from ucvgl.world.styles import Kind
from ucvgl.world.views import photos

HIT_M = 25.0  # VG-SSL and every published protocol of place recognition
EDGE_M = 40.0  # from the city's edge to the outermost stop, so that a photo shows city
PAVEMENT_M = np.arange(2.0, 10.01, 0.25, dtype=np.float32)  # beside the lane: where pavement is looked for
DATABASE_EYE_M = (1.9, 2.1)  # above ground: lowest, highest


@dataclass(frozen=True)
class Manner:
    """How the query pass of a kind differs from the database pass; all that is 0 is alike."""

    headings: int = 1  # database photos at a stop, evenly all around from the direction of travel
    along_m: float = 0.0  # how far before or behind the stop a query stands, at most
    aside_m: float = 0.0  # within the lane, at most
    pavement: bool = False  # on the pavement instead, to either side of the street
    turn_deg: float = 0.0  # how far a query is turned away from a database heading, at most
    fov_deg: float = 0.0  # added to the field of view
    eye_m: tuple[float, float] = DATABASE_EYE_M
    still: bool = False  # the very same viewpoints, frame by frame


MANNERS = {
    "car": Manner(along_m=5.0, aside_m=0.6, eye_m=(1.3, 1.6)),  # dashboard against roof
    "hand_held": Manner(headings=4, along_m=5.0, pavement=True, turn_deg=25.0, fov_deg=-15.0, eye_m=(1.5, 1.8)),
    "season": Manner(still=True),  # hits are by position here too: at 10 m, two frames to either side
    "night": Manner(along_m=3.0, pavement=True, turn_deg=10.0, eye_m=(1.5, 1.8)),
}
# what photos of one pass differ by: milder than panorama against tile, as both sides are street-level cameras
CAMERA = Difficulty(
    name="drive", camera_height_m=(2.0, 2.0), heading_deg=1.5, tilt_deg=0, tile_shift_m=0, gain=0.10, gamma=0.10, noise=0.03,
    blur_px=0.5, haze=0.0, same_day=True, seasons=("summer",),
)  # fmt: skip
SCALED = ("heading_deg", "gain", "gamma", "noise", "blur_px")  # by the setting `nuisance`
NIGHT_GAIN, NIGHT_NOISE = (1.8, 1.8, 1.8), 2.5  # a camera at night exposes longer, and shows more noise
DUSK_LIGHT = (0.80, 0.64, 0.56)  # red, green, blue that are left of the day when the sun is setting
DAY_KEYS = (508, 506, 507, 509)  # of the hashes that days are drawn from
DUSK_DEG = 10.0  # the sun's elevation below which it is dusk


def world_drives(config: DriveConfig, *, device: torch.device | str = "cpu") -> Dataset:
    """Two passes along the same streets: queries against a gallery; a hit is within 25 m. Rendered once. Photos are uint8
    (3, H, W), with true positions in metres; queries without a hit are left out. Errors: `world_pairs`."""
    manner = MANNERS[config.kind]
    query, gallery = ("q", config.places, *config.photo_px), ("d", config.places * manner.headings, *config.photo_px)
    behind, city = ["drives", asdict(CAMERA), asdict(manner)], partial(passes, config, device=device)
    found = rendered(config, behind, city, query=query, gallery=gallery)
    hits = Positives.within(found["query"].positions, found["gallery"].positions, HIT_M)
    name, split, note = f"world-{config.kind}", f"seed-{config.seed}", f"A hit is within {HIT_M:g} m."
    return Dataset(name, split, **found, positives=hits, note=note).answerable()


def passes(config: DriveConfig, number: int, count: int, device: torch.device | str = "cpu") -> dict[str, Shots]:
    """City `number` of the drives: "gallery", the pass past `count` stops, and "query"; InputError if it has fewer."""
    manner, scene = MANNERS[config.kind], scene_of(config, number, device)
    seed = scene.city.seed
    stops = choose(street_places(scene.city, config.spacing_m, margin_m=EDGE_M), count, seed, whole_streets=True)
    every, known = np.arange(count), np.arange(count * manner.headings)
    stop = known // manner.headings
    quarter_deg, (database_days, query_days) = np.float32(360 / manner.headings), drive_days(config.kind, seed)
    scaled = {name: getattr(CAMERA, name) * config.nuisance for name in SCALED}
    drawn = draw_nuisance(replace(CAMERA, **scaled), len(known) + count, seed, device)  # of both passes, in turn
    error_deg = drawn.heading_deg * np.float32(not manner.still)
    around_deg = quarter_deg * (known % manner.headings).astype(np.float32)
    heading_deg = _turned(stops.heading_deg[stop], around_deg + error_deg[: len(known)])
    poses = *stops.metres[stop].T, between(*DATABASE_EYE_M, seed, 500, stop), heading_deg
    camera, today = partial(photos, size_px=config.photo_px, fov_deg=config.fov_deg), np.zeros(len(known), np.int32)
    gallery = Shots(scene, camera, poses, drawn.ground_sensor.take(known), database_days, today, heading_deg)

    metres = stops.metres if manner.still else _beside(scene.city, stops, manner)
    quarter = (hash32(seed, 501, every) % np.uint32(manner.headings)).astype(np.float32)
    away_deg = np.float32(manner.turn_deg) * between(-1, 1, seed, 502, every)
    heading_deg = _turned(stops.heading_deg, quarter_deg * quarter + (away_deg + error_deg[len(known) :]))
    poses = *metres.T, between(*manner.eye_m, seed, 500 if manner.still else 504, every), heading_deg
    camera = partial(photos, size_px=config.photo_px, fov_deg=config.fov_deg + manner.fov_deg)
    day = (hash32(seed, 503, every) % np.uint32(len(query_days))).astype(np.int32)
    sensor = _darkened(drawn.ground_sensor.take(len(known) + every), query_days, day)
    return {"gallery": gallery, "query": Shots(scene, camera, poses, sensor, query_days, day, heading_deg)}


def drive_days(kind: str, seed: int) -> tuple[tuple[Condition, ...], tuple[Condition, ...]]:
    """The days of a city's database pass and of its query pass."""
    seasons = ("summer",) if kind in ("hand_held", "season") else ("spring", "summer", "autumn")
    before = street_day(seed, DAY_KEYS, 0, seasons, 2)
    if kind == "season":  # the same parked cars: nothing but the season differs
        azimuth, elevation = between(140, 220, seed, 506, 3)[0], between(14, 22, seed, 507, 3)[0]
        return (replace(before, cloud=0.15),), (Condition("winter", float(azimuth), float(elevation), 0.6, 1.0, 2),)
    if kind == "night":
        dusk = replace(before, sun_azimuth_deg=285.0, sun_elevation_deg=4.0, cloud=0.5, traffic=3)
        return (before,), (dusk, replace(dusk, sun_elevation_deg=-12.0, traffic=4))
    return (before,), (street_day(seed, DAY_KEYS, 1, seasons, 3),)


def _darkened(sensor: Sensor, days: tuple[Condition, ...], day: NDArray) -> Sensor:
    """The cameras of pictures taken at dusk and at night; those of the day as they are."""
    dusk = [DUSK_LIGHT if condition.sun_elevation_deg < DUSK_DEG else (1.0, 1.0, 1.0) for condition in days]
    light = [NIGHT_GAIN if condition.night else by_channel for condition, by_channel in zip(days, dusk, strict=True)]
    noise = [NIGHT_NOISE if condition.night else 1.0 for condition in days]
    light, noise = (torch.tensor(by_day)[day].to(sensor.gain.device) for by_day in (light, noise))
    return replace(sensor, gain=sensor.gain * light, noise=sensor.noise * noise)


def _turned(heading_deg: Floats, by_deg: Floats) -> Floats:
    return (heading_deg + by_deg) % np.float32(360) % np.float32(360)  # a hair below 0 first becomes 360 itself


def _beside(city: City, stops: Places, manner: Manner) -> Floats:
    """Where the query pass stands, (N, 2): near the stops, on free ground; at the stop itself where there is none."""
    every, seed = np.arange(len(stops)), city.seed
    turn = np.radians(stops.heading_deg)
    ahead, right = np.stack([np.sin(turn), np.cos(turn)], -1), np.stack([np.cos(turn), -np.sin(turn)], -1)  # (N, 2)
    along = np.float32(manner.along_m) * between(-1, 1, seed, 510, every)
    if manner.pavement:  # tried one after the other; each (N,) metres ahead and to the right
        side = np.where(unit(seed, 511, every) < np.float32(0.5), np.float32(1), np.float32(-1))
        tries = [(along * far, side * sign * by) for far in (1, 0) for sign in (1, -1) for by in PAVEMENT_M]
        ground = [Kind.PAVEMENT]
    else:
        aside = np.float32(manner.aside_m) * between(-1, 1, seed, 512, every)
        tries = [(along, aside), (along / 2, 0 * aside), (along / 4, 0 * aside)]
        ground = [Kind.ROAD, Kind.MARKING, Kind.CROSSING, Kind.PAVEMENT]
    far, aside = np.stack(tries, 1)[..., None]  # (T, N, 1) each
    there = stops.metres + ahead * far + right * aside  # (T, N, 2)

    # free: on such ground, and half a metre away from anything that stands or parks
    points = there[..., None, :] + np.float32([(0, 0), (0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)])  # (T, N, 5, 2)
    last = len(city.relief) - 1
    column = (points[..., 0] / city.resolution_m).astype(int).clip(0, last)
    row = (last + 1 - points[..., 1] / city.resolution_m).astype(int).clip(0, last)
    free = np.isin(city.surface[row[..., 0], column[..., 0], 3], ground)
    free &= (city.relief[row, column, 3] == 0).all(-1)  # (T, N)
    return np.where(free.any(0)[:, None], there[free.argmax(0), every], stops.metres)
