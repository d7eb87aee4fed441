"""`ucvgl data export world`: the embedded world written into the layout of a published data set.

Whoever has no data set runs everything on such an export; whoever has one sees what the code expects. Splits are by
place, in driving order, so that the parts lie on different streets as far as that goes. Positions are the world's
metres, put at a stated origin: WGS84 for CVUSA and VIGOR, made-up UTM for CVACT and place recognition. The pictures of
CVUSA and CVACT are those of `world_pairs`, and stay in its cache.
"""

import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ucvgl.data import cvact, place_recognition
from ucvgl.data.container import ArrayImages, Dataset, Positives
from ucvgl.data.university import HEIGHTS
from ucvgl.data.vigor import CITIES
from ucvgl.data.write import (
    write_cvact,
    write_cvusa,
    write_sues200,
    write_university1652,
    write_vigor,
    write_vpr,
)
from ucvgl.errors import InputError
from ucvgl.positions import Neighbours, Positions, Wgs84, from_metres
from ucvgl.world.appearance import Condition
from ucvgl.world.difficulty import DEFAULT_LEVEL, Nuisance, draw_nuisance, level_named
from ucvgl.world.noise import between
from ucvgl.world.pairs import WorldConfig, city_of, world_pairs
from ucvgl.world.places import Places
from ucvgl.world.render import Scene
from ucvgl.world.rendering import CITY_GAP_M, RENDER_BATCH, shares
from ucvgl.world.sensor import Sensor, expose
from ucvgl.world.views import drone_images, panoramas, photos, satellite_tiles

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
    """What is exported: the world, an empty folder for pictures on their way, and the drone images of a place."""

    world: WorldConfig
    scratch: Path
    device: torch.device
    progress: bool
    photo_px: int
    drone_views: int

    def pictures(self, name: str, count: int, rows: int, columns: int) -> np.ndarray:
        """An array on disk: no export is too large for memory."""
        return np.lib.format.open_memmap(self.scratch / f"{name}.npy", "w+", np.uint8, (count, 3, rows, columns))

    def bar(self, total: int) -> tqdm:
        """A progress bar over images."""
        return tqdm(total=total, desc="rendering the world", unit="image", disable=not self.progress)


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
        difficulty: easy, medium or hard.
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
        InputError: the layout is unknown, a setting is impossible, the cities have fewer places, or `root` holds
            something.
    """
    if layout not in LAYOUTS:
        raise InputError("--layout", expected=f"one of {', '.join(LAYOUTS)}", found=repr(layout), todo="Choose one.")
    root = _absent_or_empty(root)
    for name, value in (("photo_px", photo_px), ("drone_views", drone_views)):
        if not value > 0:
            raise InputError(name, expected="a number above 0", found=value, todo="Correct it.")
    if layout == "vigor" and styles:
        styles = tuple(styles[i % len(styles)] for i in range(len(CITIES)))
    world = WorldConfig(
        tuple(styles), seed, places, spacing_m, difficulty, span_m, tile_px, panorama_px, city_size_m, resolution_m
    )
    if places < LEAST_PLACES * len(styles):
        least = f"at least {LEAST_PLACES} places in each of {len(styles)} cities"
        raise InputError("--places", expected=least, found=places, todo="Ask for more places, or fewer styles.")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-exporting-") as name:
            job = _Job(world, Path(name), torch.device(device), progress, photo_px, drone_views)
            LAYOUTS[layout](job, job.scratch / "set")
            if root.is_dir():
                root.rmdir()
            (job.scratch / "set").replace(root)
    except OSError as error:
        raise InputError(
            root, expected="a folder to write", found=error, todo="Choose another, or free space."
        ) from error
    return root


def _absent_or_empty(root: Path | str) -> Path:
    root = Path(root).resolve()
    try:
        found = "something there" if root.exists() and (not root.is_dir() or any(root.iterdir())) else ""
    except OSError as error:
        found = str(error)
    if found:
        raise InputError(root, expected="an absent or empty folder", found=found, todo="Choose another folder.")
    return root


# the layouts


def _cvusa(job: _Job, root: Path) -> None:
    pairs = world_pairs(job.world, device=job.device, progress=job.progress)
    strip = max(1, round(job.world.panorama_px * STRIP))
    first = (job.world.panorama_px - strip) // 2
    strips = pairs.query.pixels[:, :, first : first + strip]
    ids = [f"{i:07d}" for i in range(len(pairs))]
    ground, tiles = (
        ArrayImages(ids, pixels, Positions(from_metres(where.values, CVUSA_ORIGIN), Wgs84()))
        for pixels, where in ((strips, pairs.query.positions), (pairs.gallery.pixels, pairs.gallery.positions))
    )
    parts = _parts(shares(job.world), (4, 1))
    write_cvusa({s: _paired("cvusa", s, ground, tiles, p) for s, p in zip(("train", "val"), parts, strict=True)}, root)


def _cvact(job: _Job, root: Path) -> None:
    pairs = world_pairs(job.world, device=job.device, progress=job.progress)
    ids = [f"{i:022d}" for i in range(len(pairs))]  # as long as the published ones
    ground = ArrayImages(ids, pairs.query.pixels, _utm(pairs.query.positions.values, cvact.UTM))
    tiles = ArrayImages(ids, pairs.gallery.pixels, _utm(pairs.gallery.positions.values, cvact.UTM))
    parts = _parts(shares(job.world), (3, 1, 1))
    splits = ("train", "val", "test")
    write_cvact({s: _paired("cvact", s, ground, tiles, p) for s, p in zip(splits, parts, strict=True)}, root)


def _vigor(job: _Job, root: Path) -> None:
    """Tiles on a grid of half a span: a panorama lies in the middle quarter of one and beside it in three."""
    world, step = job.world, job.world.span_m / 2
    cities, offsets_px, train = {}, {}, {}
    with job.bar(world.places) as bar:
        # twice the span away from the edge, so that all four tiles around a place are in the city
        for number, scene, places, nuisance in _cities(job, 2 * world.span_m):
            city = CITIES[number]
            here = np.stack([places.east_m, places.north_m], -1).astype(np.float64)
            corner = np.floor(here / step)[:, None] + np.array([[0, 0], [0, 1], [1, 0], [1, 1]])  # (N, 4, 2)
            order = np.argsort(np.hypot(*(corner * step - here[:, None]).transpose(2, 0, 1)), 1, kind="stable")
            corner = np.take_along_axis(corner, order[..., None], 1)
            cells, tile_of = np.unique(corner.reshape(-1, 2), axis=0, return_inverse=True)
            tile_of, centre = tile_of.reshape(-1, 4), cells * step
            away = (centre[tile_of] - here[:, None])[..., ::-1]  # north, east from the panorama to the tile's centre
            rows = world.panorama_px
            ground = job.pictures(f"{city}-ground", len(here), rows, 2 * rows)
            view = _panorama_view(job, scene, places, nuisance)
            _fill(ground, nuisance, nuisance.day, nuisance.ground_sensor, view, bar)
            tiles = job.pictures(f"{city}-tiles", len(centre), world.tile_px, world.tile_px)
            drawn = draw_nuisance(level_named(world.difficulty), len(centre), scene.city.seed, job.device)
            _tiles(job, tiles, scene, nuisance, centre, drawn.satellite_sensor)
            cities[city] = Dataset(
                "vigor", "all",
                ArrayImages([f"pano{i:06d}" for i in range(len(here))], ground, _six(here, city)),
                ArrayImages([f"tile{i:06d}" for i in range(len(centre))], tiles, _six(centre, city)),
                Positives.one_each(tile_of[:, 0]), Positives.of(list(tile_of[:, 1:])),
            )  # fmt: skip
            offsets_px[city] = away * VIGOR_TILE_PX / world.span_m
            train[city] = _parts([len(here)], (1, 1))[0]
    write_vigor(cities, offsets_px, train, root)


def _university1652(job: _Job, root: Path) -> None:
    altitudes = np.linspace(*DRONE_ALTITUDES_M, job.drone_views)
    tiles, drones = _flights(job, altitudes, DRONE_PITCH_DEG, 60.0)
    learned, asked, distractors = _parts(shares(job.world), (3, 1, 1))
    tested = np.concatenate([asked, distractors])
    train, test = (_buildings("university1652", tiles, drones, some) for some in (learned, tested))
    write_university1652(train, test, range(len(asked)), root)


def _sues200(job: _Job, root: Path) -> None:
    """The galleries hold every place, as the benchmark's split has it: the training places are the distractors."""
    altitudes = np.repeat(np.float64(HEIGHTS), job.drone_views)
    tiles, drones = _flights(job, altitudes, SUES_PITCH_DEG, SUES_FOV_DEG)
    learned, asked = _parts(shares(job.world), (3, 2))
    every, heights = np.arange(len(tiles)), {}
    for k, height in enumerate(HEIGHTS):
        views = slice(k * job.drone_views, (k + 1) * job.drone_views)
        heights[height] = tuple(_buildings("sues200", tiles, drones[:, views], some) for some in (learned, every))
    write_sues200(heights, asked.tolist(), root)


def _vpr(job: _Job, root: Path) -> None:
    """Two passes along the streets on two days (one at the level that has only one): the second asks the first."""
    world = job.world
    rows, columns = max(1, job.photo_px * 3 // 4), job.photo_px
    passes = [job.pictures(name, world.places, rows, columns) for name in ("database", "queries")]
    metres = np.empty((2, world.places, 2))
    done = 0
    with job.bar(2 * world.places) as bar:
        for number, scene, places, nuisance in _cities(job, world.span_m):
            count, key = len(places), np.arange(len(places))
            shots = draw_nuisance(level_named(world.difficulty), 2 * count, scene.city.seed, job.device)
            for k, array in enumerate(passes):
                along = k * between(-3, 3, scene.city.seed, 401, key)  # the second pass stops a little elsewhere
                turn = np.radians(places.heading_deg)
                now = replace(
                    places, east_m=places.east_m + along * np.sin(turn), north_m=places.north_m + along * np.cos(turn),
                    heading_deg=(places.heading_deg + shots.heading_deg[k * count + key]) % 360,
                )  # fmt: skip
                day = np.full(count, k * (len(nuisance.days) - 1))
                sensor = shots.ground_sensor.take(k * count + key)
                height = shots.camera_height_m[k * count + key]
                view = _photo_view(job, scene, now, height, (rows, columns))
                _fill(array[done : done + count], nuisance, day, sensor, view, bar)
                metres[k, done : done + count, 0] = now.east_m + number * CITY_GAP_M
                metres[k, done : done + count, 1] = now.north_m
            done += count
    database, queries = (
        ArrayImages([f"{prefix}{i:06d}" for i in range(world.places)], array, _utm(where, place_recognition.UTM))
        for prefix, array, where in zip("dq", passes, metres, strict=True)
    )
    splits = {}
    for split, some in zip(("train", "val", "test"), _parts(shares(world), (3, 1, 1)), strict=True):
        ground, known = queries.subset(some), database.subset(some)
        offsets, near = Neighbours(known.positions).within(ground.positions, 25.0)
        splits[split] = Dataset("vpr", split, ground, known, Positives(offsets, near, np.ones(len(some), bool)))
    write_vpr(splits, root)


LAYOUTS: dict[str, Callable[[_Job, Path], None]] = {
    "cvusa": _cvusa, "cvact": _cvact, "vigor": _vigor, "university1652": _university1652, "sues200": _sues200, "vpr": _vpr,
}  # fmt: skip


# shared


def _cities(job: _Job, reach_m: float) -> Iterator[tuple[int, Scene, Places, Nuisance]]:
    """Each city with its places, all at least half of `reach_m` from its edge."""
    wide = replace(job.world, span_m=max(job.world.span_m, reach_m))
    for number, count in enumerate(shares(job.world)):
        yield number, *city_of(wide, number, count, job.device)


def _parts(counts: list[int] | np.ndarray, shares: tuple[int, ...]) -> list[np.ndarray]:
    """Places of every city, split in driving order by shares, at least one each: the indices of each part."""
    parts: list[list[np.ndarray]] = [[] for _ in shares]
    first = 0
    for count in counts:
        sizes = [max(1, count * share // sum(shares)) for share in shares[1:]]
        ends = np.cumsum([count - sum(sizes), *sizes])
        for part, some in zip(parts, np.split(np.arange(first, first + count), ends[:-1]), strict=True):
            part.append(some)
        first += count
    return [np.concatenate(part) for part in parts]


def _paired(name: str, split: str, ground: ArrayImages, tiles: ArrayImages, some: np.ndarray) -> Dataset:
    return Dataset(name, split, ground.subset(some), tiles.subset(some), Positives.one_each(np.arange(len(some))))


def _buildings(name: str, tiles: np.ndarray, drones: np.ndarray, some: np.ndarray) -> Dataset:
    """Drone images (N, V, 3, H, W) of some places against their tiles."""
    views = drones.shape[1]
    ground = [f"place{i:06d}-{v:02d}" for i in some for v in range(views)]
    rows = (some[:, None] * views + np.arange(views)).ravel()
    flat = ArrayImages([str(i) for i in range(len(tiles) * views)], drones.reshape(-1, *drones.shape[2:])).subset(rows)
    return Dataset(
        name, "all", replace(flat, ids=tuple(ground)), ArrayImages([f"place{i:06d}" for i in some], tiles, rows=some),
        Positives.one_each(np.repeat(np.arange(len(some)), views)),
    )  # fmt: skip


def _flights(job: _Job, altitude_m: np.ndarray, pitch_deg: float, fov_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """Every place's tile (N, 3, S, S) and its drone images (N, V, 3, P, P), one an altitude, from all around."""
    world, size, views = job.world, job.photo_px, len(altitude_m)
    tiles = job.pictures("tiles", world.places, world.tile_px, world.tile_px)
    drones = job.pictures("drones", world.places * views, size, size)
    reach = 2 * float(altitude_m.max()) / math.tan(math.radians(-pitch_deg))
    done = 0
    with job.bar(world.places * views) as bar:
        for _, scene, places, nuisance in _cities(job, reach):
            count = len(places)
            here, heading = np.repeat(np.arange(count), views), np.tile(np.arange(views) * 360 / job.drone_views, count)
            heading = heading + between(0, 360, scene.city.seed, 402, here)
            where = replace(places.take(here), heading_deg=heading.astype(np.float32) % 360)
            above = np.tile(altitude_m, count).astype(np.float32)
            shots = draw_nuisance(level_named(world.difficulty), count * views, scene.city.seed, job.device)

            def view(day: Condition, at: np.ndarray, scene: Scene = scene, where: Places = where,
                     above: np.ndarray = above) -> Tensor:  # fmt: skip
                return drone_images(
                    scene, day, *_tensors(job, at, where.east_m, where.north_m, above, where.heading_deg),
                    size_px=size, pitch_deg=pitch_deg, fov_deg=fov_deg,
                ).rgb  # fmt: skip

            slot = slice(done * views, (done + count) * views)
            _fill(drones[slot], nuisance, nuisance.day[here], shots.ground_sensor, view, bar)
            centre = np.stack([places.east_m, places.north_m], -1) + nuisance.tile_shift_m
            _tiles(job, tiles[done : done + count], scene, nuisance, centre, nuisance.satellite_sensor)
            done += count
    return tiles, drones.reshape(world.places, views, 3, size, size)


def _fill(
    out: np.ndarray, nuisance: Nuisance, day: np.ndarray, sensor: Sensor,
    view: Callable[[Condition, np.ndarray], Tensor], bar: tqdm | None,
) -> None:  # fmt: skip
    """Render the images of one day at a time, a batch at a time, into `out` as bytes."""
    for number in np.unique(day):
        at = np.flatnonzero(day == number)
        for first in range(0, len(at), RENDER_BATCH):
            here = at[first : first + RENDER_BATCH]
            out[here] = expose(view(nuisance.days[number], here), sensor.take(here)).cpu().numpy()
            if bar is not None:
                bar.update(len(here))


def _tiles(job: _Job, out: np.ndarray, scene: Scene, nuisance: Nuisance, centre: np.ndarray, sensor: Sensor) -> None:
    east, north = centre.T.astype(np.float32)

    def view(_: Condition, at: np.ndarray) -> Tensor:
        spot = _tensors(job, at, east, north)
        span, size = job.world.span_m, job.world.tile_px
        return satellite_tiles(scene, nuisance.satellite_day, *spot, span_m=span, size_px=size).rgb

    _fill(out, nuisance, np.zeros(len(out), int), sensor, view, None)


def _panorama_view(
    job: _Job, scene: Scene, places: Places, nuisance: Nuisance
) -> Callable[[Condition, np.ndarray], Tensor]:
    tilted = level_named(job.world.difficulty).tilt_deg > 0

    def view(day: Condition, at: np.ndarray) -> Tensor:
        east, north, height, heading, pitch, roll = _tensors(
            job, at, places.east_m, places.north_m, nuisance.camera_height_m, nuisance.heading_deg, nuisance.pitch_deg,
            nuisance.roll_deg,
        )  # fmt: skip
        tilt = {"pitch_deg": pitch, "roll_deg": roll} if tilted else {}
        rows = job.world.panorama_px
        return panoramas(scene, day, east, north, height, height_px=rows, heading_deg=heading, **tilt).rgb

    return view


def _photo_view(
    job: _Job, scene: Scene, places: Places, height_m: np.ndarray, size_px: tuple[int, int]
) -> Callable[[Condition, np.ndarray], Tensor]:
    def view(day: Condition, at: np.ndarray) -> Tensor:
        spot = _tensors(job, at, places.east_m, places.north_m, height_m, places.heading_deg)
        return photos(scene, day, *spot, size_px=size_px).rgb

    return view


def _tensors(job: _Job, at: np.ndarray, *arrays: np.ndarray) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(np.float32(array[at])).to(job.device) for array in arrays)


def _utm(metres: np.ndarray, frame: object) -> Positions:
    """The world's metres in a made-up UTM, to the centimetre that file names hold."""
    return Positions(np.round(np.float64(metres) + UTM_ORIGIN, 2), frame)


def _six(metres: np.ndarray, city: str) -> Positions:
    """The world's metres as degrees to the six decimals that VIGOR's file names hold."""
    return Positions(np.round(from_metres(metres, VIGOR_ORIGINS[city]), 6), Wgs84())
