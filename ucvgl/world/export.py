"""The embedded world as files: in the layout of a published data set (`ucvgl data export world`), or as a user's own city. Splits
are by place, in driving order, so that the parts lie on different streets as far as that goes. Positions are the world's
metres, put at a stated origin: WGS84 for CVUSA and VIGOR, made-up UTM for CVACT and place recognition."""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from ucvgl.data import write
from ucvgl.data.container import ArrayImages, Dataset, Positives
from ucvgl.data.university import HEIGHTS
from ucvgl.data.vigor import CITIES
from ucvgl.errors import InputError, check_number, one_of
from ucvgl.geometry import perspective_view
from ucvgl.positions import Metres, Positions, Wgs84, from_metres, to_metres
from ucvgl.world.difficulty import LEVELS, draw_nuisance, satellite_condition
from ucvgl.world.drives import HIT_M, DriveConfig, world_drives
from ucvgl.world.noise import between
from ucvgl.world.pairs import WorldConfig, city_of, panorama_shots, tile_shots, world_grid, world_pairs
from ucvgl.world.rendering import CITY_GAP_M, Shots, rendered, shares
from ucvgl.world.views import drone_images, photos, satellite_tiles

LAYOUTS = ("cvusa", "cvact", "vigor", "university1652", "sues200", "vpr", "frames")
OWN_ORIGIN = (45.0, -30.0)  # latitude, longitude of an own city's south-western corner: open sea, in the North Atlantic
OWN_CITY = WorldConfig(("downtown",), places=300, spacing_m=20.0, tile_px=256, city_size_m=1000.0, resolution_m=0.4)
CVUSA_ORIGIN = (39.8, -98.6)  # latitude, longitude of the first city's south-western corner
UTM_ORIGIN = (690_000.0, 6_090_000.0)  # easting, northing of that corner, in no particular zone
VIGOR_ORIGINS = dict(zip(CITIES, ((40.75, -73.98), (47.61, -122.33), (37.77, -122.42), (41.88, -87.63)), strict=True))
VIGOR_TILE_PX = 640  # the label offsets count pixels of VIGOR's own tiles, whatever the size of these
STRIP = 224 / 616  # share of a panorama's rows that CVUSA's strips show
LEAST_PLACES = 3  # a city: one each for train, val and test
DRONE_ALTITUDES_M = (120.0, 60.0)  # University-1652 circles down; from, to
DRONE_LOOK, SUES_LOOK = (-60.0, 60.0), (-70.0, 30.0)  # pitch and field of view in degrees


def export_world(
    layout: str, root: Path | str, world: WorldConfig, *, photo_px: int = 128, drone_views: int = 6
) -> Path:  # fmt: skip
    """Render a world and write it as a data set of one of LAYOUTS; `root`, absent or empty, appears only when it is complete.

    VIGOR's four cities take the world's styles in turn; "frames" are the season drive's, without its level. photo_px: edge of a
    drone image, width of a 4:3 photo. drone_views: of a place (SUES-200: at each height). InputError: the layout is
    unknown, a setting is impossible, the cities have fewer places, or `root` holds something.
    """
    one_of("--layout", layout, LAYOUTS, "Choose one.")
    check_number("photo_px", photo_px, unit="px", low=0, whole=True)
    if layout == "vigor":
        world = replace(world, styles=tuple(world.styles[i % len(world.styles)] for i in range(len(CITIES))))
    counts = shares(world)
    if min(counts) < LEAST_PLACES:
        least = f"at least {LEAST_PLACES} places in each of {len(counts)} cities"
        raise InputError("--places", expected=least, found=world.places, todo="Ask for more places, or fewer styles.")
    photo, views = (max(1, photo_px * 3 // 4), photo_px), np.arange(drone_views)
    with write.new_folder(root) as made:
        match layout:
            case "cvusa":
                write.write_cvusa(_splits(_strips(world_pairs(world)), counts, (4, 1)), made)
            case "cvact":
                pairs = world_pairs(world)
                ids = [f"{i:022d}" for i in range(len(pairs))]  # as long as the published ones
                query, gallery = (replace(_in_utm(side), ids=ids) for side in (pairs.query, pairs.gallery))
                write.write_cvact(_splits(replace(pairs, query=query, gallery=gallery), counts, (3, 1, 1)), made)
            case "vigor":
                _vigor(world, world_grid(world), made)
            case "university1652":
                altitude_m = np.linspace(*DRONE_ALTITUDES_M, drone_views)
                flights = _flights(world, altitude_m, drone_views, *DRONE_LOOK, photo_px)
                learned, asked, distractors = _parts(counts, (3, 1, 1))
                train, test = (_over(flights, some, views) for some in (learned, np.concatenate([asked, distractors])))
                write.write_university1652(train, test, range(len(asked)), made)
            case "sues200":
                altitude_m = np.repeat(np.float64(HEIGHTS), drone_views)
                flights = _flights(world, altitude_m, drone_views, *SUES_LOOK, photo_px)
                (learned, asked), every, sets = _parts(counts, (3, 2)), np.arange(world.places), {}
                # every place is in the test galleries, as in the benchmark's split
                for k, height in enumerate(HEIGHTS):
                    sets[height] = [_over(flights, some, k * drone_views + views) for some in (learned, every)]
                write.write_sues200(sets, asked.tolist(), made)
            case "vpr":
                write.write_vpr(_splits(_two_passes(world, photo), counts, (3, 1, 1)), made)
            case "frames":
                drive = DriveConfig("season", world.styles, world.seed, world.places, world.spacing_m, photo)
                data = world_drives(replace(drive, city_size_m=world.city_size_m, resolution_m=world.resolution_m))
                # numbers leap where the next stop is in another street or city
                away = np.hypot(*np.diff(data.query.positions.values, axis=0).T)
                numbers = np.cumsum([0, *np.where(away > 1.5 * world.spacing_m, 10, 1)])
                write.write_frames(data, numbers.tolist(), made)
    return Path(root).resolve()


def _strips(pairs: Dataset) -> Dataset:
    """Panoramas cut to CVUSA's strips, positions in degrees."""
    rows = pairs.query.size[0]
    strip = max(1, round(rows * STRIP))
    first, sides = (rows - strip) // 2, (pairs.query, pairs.gallery)
    at = [Positions(from_metres(side.positions.values, CVUSA_ORIGIN), Wgs84()) for side in sides]
    query = replace(pairs.query, pixels=pairs.query.pixels[:, :, first : first + strip], positions=at[0])
    return replace(pairs, query=query, gallery=replace(pairs.gallery, positions=at[1]))


def _vigor(world: WorldConfig, grid: Dataset, root: Path) -> None:
    """A panorama lies in the middle quarter of one tile and beside it in three."""
    cities, offsets_px, train = {}, {}, {}
    city_of_row = [(side.positions.values[:, 0] // CITY_GAP_M).astype(int) for side in (grid.query, grid.gallery)]
    for number, (city, count) in enumerate(zip(CITIES, shares(world), strict=True)):
        part = grid.take(*(np.flatnonzero(own == number) for own in city_of_row))
        here, centre = (side.positions.values - [number * CITY_GAP_M, 0] for side in (part.query, part.gallery))
        tile_of = np.column_stack([part.positives.indices, part.semi_positives.indices.reshape(count, 3)])
        away = (centre[tile_of] - here[:, None])[..., ::-1]  # north, east from the panorama to the tile's centre
        # degrees to the six decimals that VIGOR's file names hold
        at = [Positions(np.round(from_metres(m, VIGOR_ORIGINS[city]), 6), Wgs84()) for m in (here, centre)]
        query = replace(part.query, ids=[f"pano{i:06d}" for i in range(count)], positions=at[0])
        cities[city] = replace(part, query=query, gallery=replace(part.gallery, positions=at[1]))
        offsets_px[city] = away * VIGOR_TILE_PX / world.span_m
        train[city] = _parts([count], (1, 1))[0]
    write.write_vigor(cities, offsets_px, train, root)


def _in_utm(images: ArrayImages) -> ArrayImages:
    """The world's metres in a made-up UTM, to the centimetre that file names hold."""
    metres = np.round(images.positions.values + UTM_ORIGIN, 2)
    return replace(images, positions=Positions(metres, Metres("made-up UTM")))


def _parts(counts: Sequence[int], weights: tuple[int, ...]) -> list[np.ndarray]:
    """Places of every city, split in driving order by weights, at least one each: the indices of each part."""
    cities = []
    for places in np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1]):
        sizes = [max(1, len(places) * weight // sum(weights)) for weight in weights[1:]]
        cities.append(np.split(places, len(places) - np.cumsum(sizes[::-1])[::-1]))
    return [np.concatenate(part) for part in zip(*cities, strict=True)]


def _splits(data: Dataset, counts: Sequence[int], weights: tuple[int, ...]) -> dict[str, Dataset]:
    parts = _parts(counts, weights)
    return {split: data.take(some, some) for split, some in zip(("train", "val", "test"), parts, strict=False)}


def _two_passes(world: WorldConfig, size_px: tuple[int, int]) -> Dataset:
    """Two passes along the streets on two days (one at the level that has only one): the second is looked up in the first."""
    level, camera = LEVELS[world.difficulty], partial(photos, size_px=size_px, fov_deg=80.0)

    def city(number: int, count: int) -> dict[str, Shots]:
        scene, places, nuisance = city_of(world, number, count, "cpu")
        key, seed = np.arange(count), scene.city.seed
        drawn, turn = draw_nuisance(level, 2 * count, seed), np.radians(places.heading_deg)
        sides = {}
        for k, name in enumerate(("gallery", "query")):
            along, shot = k * between(-3, 3, seed, 401, key), k * count + key  # the second stops a little elsewhere
            east, north = places.east_m + along * np.sin(turn), places.north_m + along * np.cos(turn)
            poses = east, north, drawn.camera_height_m[shot], (places.heading_deg + drawn.heading_deg[shot]) % 360
            day, sensor = np.full(count, k * (len(nuisance.days) - 1)), drawn.ground_sensor.take(shot)
            sides[name] = Shots(scene, camera, poses, sensor, nuisance.days, day)
        return sides

    query, gallery = ("q", world.places, *size_px), ("d", world.places, *size_px)
    behind = ["two passes", asdict(level), size_px]
    found = rendered(world, behind, city, query=query, gallery=gallery)
    query, gallery = (_in_utm(found[name]) for name in ("query", "gallery"))
    return Dataset("vpr", "all", query, gallery, Positives.within(query.positions, gallery.positions, HIT_M))


def _flights(
    world: WorldConfig, altitude_m: np.ndarray, round_views: int, pitch_deg: float, fov_deg: float, photo_px: int
) -> Dataset:
    """A drone image of every place from each altitude, `round_views` of them once around it, against the places' tiles."""
    level, views = LEVELS[world.difficulty], len(altitude_m)
    wide = replace(world, span_m=max(world.span_m, 2 * float(altitude_m.max()) / math.tan(math.radians(-pitch_deg))))
    camera = partial(drone_images, size_px=photo_px, pitch_deg=pitch_deg, fov_deg=fov_deg)

    def city(number: int, count: int) -> dict[str, Shots]:
        scene, places, nuisance = city_of(wide, number, count, "cpu")
        here, heading_deg = np.repeat(np.arange(count), views), np.tile(np.arange(views) * 360 / round_views, count)
        heading_deg = (heading_deg + between(0, 360, scene.city.seed, 402, here)).astype(np.float32) % 360
        poses = *places.metres[here].T, np.tile(altitude_m, count), heading_deg
        sensor = draw_nuisance(level, count * views, scene.city.seed).ground_sensor
        tiles = tile_shots(world, scene, places.metres + nuisance.tile_shift_m, nuisance)
        return {"query": Shots(scene, camera, poses, sensor, nuisance.days, nuisance.day[here]), "gallery": tiles}

    query = "flight", world.places * views, photo_px, photo_px
    gallery = "place", world.places, world.tile_px, world.tile_px
    behind = ["flights", asdict(level), altitude_m.tolist(), round_views, pitch_deg, fov_deg]
    found = rendered(world, behind, city, query=query, gallery=gallery)
    return Dataset("flights", "all", **found, positives=Positives.one_each(np.repeat(np.arange(world.places), views)))


def _over(flights: Dataset, some: np.ndarray, views: np.ndarray) -> Dataset:
    """These views of each of some places against the tiles of these places."""
    return flights.take((some[:, None] * (len(flights) // len(flights.gallery)) + views).ravel(), some)


def export_own_city(
    root: Path | str, world: WorldConfig = OWN_CITY, *, zoom: int = 18, photo_fov_deg: float | None = None
) -> Path:
    """Render a city as somebody's own; `root`, absent or empty, appears only when it is complete.

    ground/ has north-aligned panoramas or photos, shuffled, without positions (ground.csv: compass and field of view of the
    photos), tiles/ a level of an XYZ pyramid, z/x/y.jpg. For the evaluation alone: truth.csv, the true poses.
    world: one city, of a style the committed encoders have not learnt ('garden', 'canal'); pictures keep its span, that of the
    candidates to be cut, from the edge. zoom: 18 is 0.42 m a pixel. photo_fov_deg: 4:3 photos so wide instead of panoramas, in
    any direction, cut from them (give 512 of `panorama_px`). InputError: as `export_world`.
    """
    places, seed = world.places, world.seed
    centre_m, edge_m, names = _pyramid(world.city_size_m, zoom)
    # a tile that would reach over the city's edge is not there, so places keep a tile's edge more away from it
    wide = replace(world, span_m=world.span_m + 2 * float(edge_m.max()))
    with write.new_folder(root) as scratch:
        scene, stops, nuisance = city_of(wide, 0, places, "cpu")
        order = np.random.default_rng([seed, 410]).permutation(places)
        files = [f"pano_{k:05d}.jpg" for k in np.argsort(order)]  # stop order[k] has the name k
        # what is said of the middle of a picture, and what it shows
        compass_deg, faces_deg = np.zeros(places, np.float32), nuisance.heading_deg
        if photo_fov_deg is not None:
            compass_deg = np.random.default_rng([seed, 411]).uniform(0, 360, places).astype(np.float32)
            faces_deg = (compass_deg + faces_deg) % 360
        ground = panorama_shots(scene, stops, replace(nuisance, heading_deg=faces_deg), world.panorama_px)
        # a mosaic of one day and one exposure, by the first camera, with noise of each tile's own
        first = np.zeros(len(names), np.int32)
        sensor = nuisance.satellite_sensor.take(first)
        sensor = replace(sensor, seed=sensor.seed + torch.arange(len(names), dtype=torch.int32))
        camera, poses = partial(satellite_tiles, size_px=world.tile_px), (*centre_m.T, edge_m)
        tiles = Shots(scene, camera, poses, sensor, (satellite_condition(scene.city.seed),), first)
        for shots, folder, paths in ((ground, "ground", files), (tiles, "tiles", names)):
            for rows, images in tqdm(shots.taken(), f"rendering {folder}", unit="batch"):
                pictures = torch.from_numpy(images)
                if shots is ground and photo_fov_deg is not None:  # the panorama's centre column is the photo's
                    size = world.panorama_px * 3 // 4, world.panorama_px
                    pictures = perspective_view(pictures, size, photo_fov_deg)
                for i, picture in zip(rows, pictures, strict=True):
                    write.save_image(picture, scratch / folder / paths[i])
        lat, lon = ([f"{value:.8f}" for value in values] for values in from_metres(stops.metres, OWN_ORIGIN).T)
        faces, compass = ([f"{float(angle) % 360:.3f}" for angle in angles] for angles in (faces_deg, compass_deg))
        tables = {"truth": {"file": files, "latitude": lat, "longitude": lon, "heading_deg": faces}}
        if photo_fov_deg is not None:
            tables["ground"] = {"file": files, "heading_deg": compass, "fov_deg": f"{photo_fov_deg:g}"}
        for name, table in tables.items():
            pd.DataFrame(table).iloc[order].to_csv(scratch / f"{name}.csv", index=False, lineterminator="\n")
    return Path(root).resolve()


def _pyramid(size_m: float, zoom: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Centres (T, 2) and edges (T,) in the city's metres, and names, of the XYZ tiles that lie wholly in the city."""
    side = 2**zoom
    lat, lon = from_metres(np.array([[0, 0], [size_m, size_m]]), OWN_ORIGIN).T  # south-western, north-eastern corner
    x0, x1 = ((lon + 180) / 360 * side).astype(int)
    y1, y0 = ((1 - np.arctanh(np.sin(np.radians(lat))) / np.pi) / 2 * side).astype(int)
    xy = np.mgrid[x0 : x1 + 1, y0 : y1 + 1].T.reshape(-1, 2)

    def metres(corner: float) -> np.ndarray:
        x, y = (xy + corner).T / side
        lat = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * y))))
        return to_metres(Positions(np.stack([lat, x * 360 - 180], 1), Wgs84()), OWN_ORIGIN).values

    low, high = metres(0), metres(1)  # north-western and south-eastern corners
    # Web Mercator's pixels are 0.25 % longer to the east than to the north: drawn square, tiles are 0.1 m off at edges
    centre_m, edge_m = (low + high) / 2, np.abs(high - low).mean(1)
    inside = np.all((centre_m >= edge_m[:, None] / 2) & (centre_m <= size_m - edge_m[:, None] / 2), axis=1)
    if not inside.any():
        raise InputError("city_size_m", expected="room for a whole tile", found=f"{size_m:g} m",
                         todo="Enlarge it, or the zoom.")  # fmt: skip
    return centre_m[inside], edge_m[inside], [f"{zoom}/{x}/{y}.jpg" for x, y in xy[inside]]
