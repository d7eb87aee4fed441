"""`ucvgl data export world`: the embedded world written into the layout of a published data set.

Whoever has no data set runs everything on such an export; whoever has one sees what the code expects. Splits are by place, in
driving order, so that the parts lie on different streets as far as that goes. Positions are the world's metres, put at a stated
origin: WGS84 for CVUSA and VIGOR, made-up UTM for CVACT and place recognition.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ucvgl.data.cache import new_images
from ucvgl.data.container import ArrayImages, Dataset, Positives
from ucvgl.data.files import one_of
from ucvgl.data.university import HEIGHTS
from ucvgl.data.vigor import CITIES
from ucvgl.data.write import (
    new_folder,
    write_cvact,
    write_cvusa,
    write_frames,
    write_sues200,
    write_university1652,
    write_vigor,
    write_vpr,
)
from ucvgl.errors import InputError, check_pixels
from ucvgl.positions import Metres, Positions, Wgs84, from_metres
from ucvgl.world.appearance import Condition
from ucvgl.world.difficulty import DEFAULT_LEVEL, Nuisance, draw_nuisance, level_named
from ucvgl.world.drives import DriveConfig, world_drives
from ucvgl.world.grid import around
from ucvgl.world.noise import between
from ucvgl.world.pairs import WorldConfig, city_of, panorama_bytes, world_pairs
from ucvgl.world.places import Places
from ucvgl.world.render import Scene
from ucvgl.world.rendering import CITY_GAP_M, RENDER_BATCH, batched, shares
from ucvgl.world.sensor import Sensor, expose
from ucvgl.world.views import drone_images, photos, satellite_tiles

CVUSA_ORIGIN = (39.8, -98.6)  # latitude, longitude of the first city's south-western corner
UTM_ORIGIN = (690_000.0, 6_090_000.0)  # easting, northing of that corner, in no particular zone
VIGOR_ORIGINS = {
    "NewYork": (40.75, -73.98), "Seattle": (47.61, -122.33), "SanFrancisco": (37.77, -122.42), "Chicago": (41.88, -87.63),
}  # fmt: skip
VIGOR_TILE_PX = 640  # the label offsets count pixels of VIGOR's own tiles, whatever the size of these
STRIP = 224 / 616  # share of a panorama's rows that CVUSA's strips show
LEAST_PLACES = 3  # a city: one each for train, val and test
DRONE_PITCH_DEG, SUES_PITCH_DEG, SUES_FOV_DEG = -60.0, -70.0, 30.0
DRONE_ALTITUDES_M = (120.0, 60.0)  # University-1652 circles down; from, to


@dataclass(frozen=True)
class _Job:
    """What is exported: the world, an empty folder for images on their way, and the drone images of a place."""

    world: WorldConfig
    scratch: Path
    device: torch.device
    progress: bool
    photo_px: int
    drone_views: int

    def images(self, name: str, count: int, rows: int, columns: int) -> np.ndarray:
        """An array on disk: no export is too large for memory."""
        return new_images(self.scratch, name, (count, 3, rows, columns))

    def bar(self, total: int) -> tqdm:
        return tqdm(total=total, desc="rendering the world", unit="image", disable=not self.progress)

    def city(self, number: int, count: int, reach_m: float) -> tuple[Scene, Places, Nuisance]:
        """A city and its places, all at least half of `reach_m` from its edge."""
        return city_of(replace(self.world, span_m=max(self.world.span_m, reach_m)), number, count, self.device)

    def tensors(self, at: np.ndarray, *arrays: np.ndarray) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(np.float32(array[at])).to(self.device) for array in arrays)


def export_world(
    layout: str, root: Path | str, *, places: int = 300, seed: int = 0, styles: tuple[str, ...] = ("garden", "canal"),
    difficulty: str = DEFAULT_LEVEL, spacing_m: float = 12.0, span_m: float = 50.0, tile_px: int = 128,
    panorama_px: int = 128, photo_px: int = 128, drone_views: int = 6, city_size_m: float = 768.0,
    resolution_m: float = 0.25, device: torch.device | str = "cpu", progress: bool = True,
) -> Path:  # fmt: skip
    """Render a world and write it as a data set of that layout; `root` appears only when it is complete.

    Args:
        layout: one of `LAYOUTS`.
        root: an absent or empty folder.
        places: how many, over all cities.
        seed: of the cities and everything drawn.
        styles: a city each; VIGOR's four cities take them in turn.
        difficulty: easy, medium or hard; "frames" are the season drive's, without it.
        spacing_m: between stops along a street.
        span_m: edge of a tile on the ground.
        tile_px: edge of a tile.
        panorama_px: height of a panorama, its width is twice that; CVUSA's strips show 224/616 of the rows.
        photo_px: edge of a drone image, width of a photo (its height is three quarters of that).
        drone_views: drone images of a place (SUES-200: at each height).
        city_size_m: edge of a city.
        resolution_m: of the city's rasters.
        device: renders.
        progress: show a bar.

    Raises:
        InputError: the layout is unknown, a setting is impossible, the cities have fewer places, or `root` holds something.
    """
    one_of("--layout", layout, LAYOUTS, "Choose one.")
    check_pixels("photo_px", photo_px)
    if layout == "vigor" and styles:
        styles = tuple(styles[i % len(styles)] for i in range(len(CITIES)))
    world = WorldConfig(
        tuple(styles), seed, places, spacing_m, difficulty, span_m, tile_px, panorama_px, city_size_m, resolution_m
    )
    if places < LEAST_PLACES * len(styles):
        least = f"at least {LEAST_PLACES} places in each of {len(styles)} cities"
        raise InputError("--places", expected=least, found=places, todo="Ask for more places, or fewer styles.")
    with new_folder(root) as made:
        LAYOUTS[layout](_Job(world, made.parent, torch.device(device), progress, photo_px, drone_views), made)
    return Path(root).resolve()


# the layouts


def _cvusa(job: _Job, root: Path) -> None:
    pairs = world_pairs(job.world, device=job.device, progress=job.progress)
    strip = max(1, round(job.world.panorama_px * STRIP))
    first = (job.world.panorama_px - strip) // 2
    sides = []
    for side, pixels in (
        (pairs.query, pairs.query.pixels[:, :, first : first + strip]),
        (pairs.gallery, pairs.gallery.pixels),
    ):
        positions = Positions(from_metres(side.positions.values, CVUSA_ORIGIN), Wgs84())
        sides.append(ArrayImages(side.ids, pixels, positions))
    write_cvusa(_splits(job, replace(pairs, query=sides[0], gallery=sides[1]), (4, 1)), root)


def _cvact(job: _Job, root: Path) -> None:
    pairs = world_pairs(job.world, device=job.device, progress=job.progress)
    ids = [f"{i:022d}" for i in range(len(pairs))]  # as long as the published ones
    query, gallery = (
        ArrayImages(ids, side.pixels, _utm(side.positions.values)) for side in (pairs.query, pairs.gallery)
    )
    write_cvact(_splits(job, replace(pairs, query=query, gallery=gallery), (3, 1, 1)), root)


def _vigor(job: _Job, root: Path) -> None:
    """Tiles on a grid of half a span: a panorama lies in the middle quarter of one and beside it in three."""
    world, step, rows = job.world, job.world.span_m / 2, job.world.panorama_px
    cities, offsets_px, train = {}, {}, {}
    with job.bar(world.places) as bar:
        for number, (city, count) in enumerate(zip(CITIES, shares(world), strict=True)):
            # twice the span away from the edge, so that all four tiles around a place are in the city
            scene, places, nuisance = job.city(number, count, 2 * world.span_m)
            here = np.stack([places.east_m, places.north_m], -1).astype(np.float64)
            centre, tile_of = around(here, step)
            away = (centre[tile_of] - here[:, None])[..., ::-1]  # north, east from the panorama to the tile's centre
            panoramas = job.images(f"{city}-panoramas", count, rows, 2 * rows)
            for some in batched(count):
                panoramas[some] = panorama_bytes(scene, places, nuisance, some, rows).cpu().numpy()
                bar.update(len(some))
            drawn = draw_nuisance(level_named(world.difficulty), len(centre), scene.city.seed, job.device)
            tiles = job.images(f"{city}-tiles", len(centre), world.tile_px, world.tile_px)
            _tiles(job, tiles, scene, nuisance.satellite_day, centre, drawn.satellite_sensor)
            cities[city] = Dataset(
                "vigor", "all",
                ArrayImages([f"pano{i:06d}" for i in range(count)], panoramas, _six(here, city)),
                ArrayImages([f"tile{i:06d}" for i in range(len(centre))], tiles, _six(centre, city)),
                Positives.one_each(tile_of[:, 0]), Positives.of(list(tile_of[:, 1:])),
            )  # fmt: skip
            offsets_px[city] = away * VIGOR_TILE_PX / world.span_m
            train[city] = _parts([count], (1, 1))[0]
    write_vigor(cities, offsets_px, train, root)


def _university1652(job: _Job, root: Path) -> None:
    flights = _flights(job, np.linspace(*DRONE_ALTITUDES_M, job.drone_views), DRONE_PITCH_DEG, 60.0)
    learned, asked, distractors = _parts(shares(job.world), (3, 1, 1))
    train, test = (_places(flights, some) for some in (learned, np.concatenate([asked, distractors])))
    write_university1652(train, test, range(len(asked)), root)


def _sues200(job: _Job, root: Path) -> None:
    """The galleries hold every place, as the benchmark's split has it: the training places are the distractors."""
    flights = _flights(job, np.repeat(np.float64(HEIGHTS), job.drone_views), SUES_PITCH_DEG, SUES_FOV_DEG)
    learned, asked = _parts(shares(job.world), (3, 2))
    heights, every = {}, np.arange(job.world.places)
    for k, height in enumerate(HEIGHTS):
        views = np.arange(k * job.drone_views, (k + 1) * job.drone_views)
        heights[height] = _places(flights, learned, views), _places(flights, every, views)
    write_sues200(heights, asked.tolist(), root)


def _vpr(job: _Job, root: Path) -> None:
    """Two passes along the streets on two days (one at the level that has only one): the second is looked up in the first."""
    world = job.world
    size = max(1, job.photo_px * 3 // 4), job.photo_px
    passes = [job.images(name, world.places, *size) for name in ("database", "queries")]
    metres = np.empty((2, world.places, 2))
    done = 0
    with job.bar(2 * world.places) as bar:
        for number, count in enumerate(shares(world)):
            scene, places, nuisance = job.city(number, count, world.span_m)
            key, slot = np.arange(count), slice(done, done + count)
            shots = draw_nuisance(level_named(world.difficulty), 2 * count, scene.city.seed, job.device)
            for k, array in enumerate(passes):
                along = k * between(-3, 3, scene.city.seed, 401, key)  # the second pass stops a little elsewhere
                turn, shot = np.radians(places.heading_deg), k * count + key
                east, north = places.east_m + along * np.sin(turn), places.north_m + along * np.cos(turn)
                where = east, north, shots.camera_height_m[shot], (places.heading_deg + shots.heading_deg[shot]) % 360

                def photo(day: Condition, at: np.ndarray, scene: Scene = scene, where: tuple = where) -> Tensor:
                    return photos(scene, day, *job.tensors(at, *where), size_px=size).rgb

                day = np.full(count, k * (len(nuisance.days) - 1))
                _fill(array[slot], nuisance.days, day, shots.ground_sensor.take(shot), photo, bar)
                metres[k, slot] = np.stack([east + number * CITY_GAP_M, north], 1)
            done += count
    database, queries = (
        ArrayImages([f"{prefix}{i:06d}" for i in range(world.places)], array, _utm(where))
        for prefix, array, where in zip("dq", passes, metres, strict=True)
    )
    hits = Positives.within(queries.positions, database.positions, 25.0)
    write_vpr(_splits(job, Dataset("vpr", "all", queries, database, hits), (3, 1, 1)), root)


def _frames(job: _Job, root: Path) -> None:
    """The two passes of the season drive, stop by stop; numbers leap where the next stop is in another street or city."""
    world, size = job.world, (max(1, job.photo_px * 3 // 4), job.photo_px)
    drive = DriveConfig(
        "season", world.styles, world.seed, world.places, world.spacing_m, size, city_size_m=world.city_size_m,
        resolution_m=world.resolution_m,
    )  # fmt: skip
    data = world_drives(drive, device=job.device, progress=job.progress)
    away = np.hypot(*np.diff(data.query.positions.values, axis=0).T)
    write_frames(data, np.cumsum([0, *np.where(away > 1.5 * world.spacing_m, 10, 1)]).tolist(), root)


LAYOUTS: dict[str, Callable[[_Job, Path], None]] = {
    "cvusa": _cvusa, "cvact": _cvact, "vigor": _vigor, "university1652": _university1652, "sues200": _sues200, "vpr": _vpr,
    "frames": _frames,
}  # fmt: skip


# shared


def _parts(counts: list[int], weights: tuple[int, ...]) -> list[np.ndarray]:
    """Places of every city, split in driving order by weights, at least one each: the indices of each part."""
    parts: list[list[np.ndarray]] = [[] for _ in weights]
    first = 0
    for count in counts:
        sizes = [max(1, count * weight // sum(weights)) for weight in weights[1:]]
        ends = np.cumsum([count - sum(sizes), *sizes])
        for part, some in zip(parts, np.split(np.arange(first, first + count), ends[:-1]), strict=True):
            part.append(some)
        first += count
    return [np.concatenate(part) for part in parts]


def _splits(job: _Job, data: Dataset, weights: tuple[int, ...]) -> dict[str, Dataset]:
    parts = _parts(shares(job.world), weights)
    return {split: data.take(some, some) for split, some in zip(("train", "val", "test"), parts, strict=False)}


def _places(flights: tuple[np.ndarray, np.ndarray], some: np.ndarray, views: np.ndarray | None = None) -> Dataset:
    """The drone images of some places, all or some of each place's, against the places' tiles."""
    tiles, drones = flights  # (N, 3, S, S), (N, V, 3, P, P)
    views = np.arange(drones.shape[1]) if views is None else views
    ids = [f"place{i:06d}-{v:02d}" for i in some for v in range(len(views))]
    rows = (some[:, None] * drones.shape[1] + views).ravel()
    return Dataset(
        "flights", "all", ArrayImages(ids, drones.reshape(-1, *drones.shape[2:]), rows=torch.from_numpy(rows)),
        ArrayImages([f"place{i:06d}" for i in some], tiles, rows=torch.from_numpy(some)),
        Positives.one_each(np.repeat(np.arange(len(some)), len(views))),
    )  # fmt: skip


def _flights(job: _Job, altitude_m: np.ndarray, pitch_deg: float, fov_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """Every place's tile (N, 3, S, S) and its drone images (N, V, 3, P, P), one an altitude, from all around."""
    world, size, views = job.world, job.photo_px, len(altitude_m)
    tiles = job.images("tiles", world.places, world.tile_px, world.tile_px)
    drones = job.images("drones", world.places * views, size, size)
    reach = 2 * float(altitude_m.max()) / math.tan(math.radians(-pitch_deg))
    done = 0
    with job.bar(world.places * views) as bar:
        for number, count in enumerate(shares(world)):
            scene, places, nuisance = job.city(number, count, reach)
            here, heading = np.repeat(np.arange(count), views), np.tile(np.arange(views) * 360 / job.drone_views, count)
            heading = (heading + between(0, 360, scene.city.seed, 402, here)).astype(np.float32) % 360
            where = places.east_m[here], places.north_m[here], np.tile(altitude_m, count), heading
            shots = draw_nuisance(level_named(world.difficulty), count * views, scene.city.seed, job.device)

            def view(day: Condition, at: np.ndarray, scene: Scene = scene, where: tuple = where) -> Tensor:
                camera = {"size_px": size, "pitch_deg": pitch_deg, "fov_deg": fov_deg}
                return drone_images(scene, day, *job.tensors(at, *where), **camera).rgb

            slot = slice(done * views, (done + count) * views)
            _fill(drones[slot], nuisance.days, nuisance.day[here], shots.ground_sensor, view, bar)
            centre = np.stack([places.east_m, places.north_m], -1) + nuisance.tile_shift_m
            _tiles(job, tiles[done : done + count], scene, nuisance.satellite_day, centre, nuisance.satellite_sensor)
            done += count
    return tiles, drones.reshape(world.places, views, 3, size, size)


def _fill(
    out: np.ndarray, days: tuple[Condition, ...], day: np.ndarray, sensor: Sensor,
    view: Callable[[Condition, np.ndarray], Tensor], bar: tqdm | None = None,
) -> None:  # fmt: skip
    """Render the images of one capture condition at a time, a batch at a time, into `out` as bytes."""
    for number in np.unique(day):
        at = np.flatnonzero(day == number)
        for first in range(0, len(at), RENDER_BATCH):
            here = at[first : first + RENDER_BATCH]
            out[here] = expose(view(days[number], here), sensor.take(here)).cpu().numpy()
            if bar is not None:
                bar.update(len(here))


def _tiles(job: _Job, out: np.ndarray, scene: Scene, day: Condition, centre: np.ndarray, sensor: Sensor) -> None:
    size = {"span_m": job.world.span_m, "size_px": job.world.tile_px}
    _fill(out, (day,), np.zeros(len(out), int), sensor,
          lambda day, at: satellite_tiles(scene, day, *job.tensors(at, *centre.T), **size).rgb)  # fmt: skip


def _utm(metres: np.ndarray) -> Positions:
    """The world's metres in a made-up UTM, to the centimetre that file names hold."""
    return Positions(np.round(np.float64(metres) + UTM_ORIGIN, 2), Metres("made-up UTM"))


def _six(metres: np.ndarray, city: str) -> Positions:
    """The world's metres as degrees to the six decimals that VIGOR's file names hold."""
    return Positions(np.round(from_metres(metres, VIGOR_ORIGINS[city]), 6), Wgs84())
