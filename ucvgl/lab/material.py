"""The images, with their labels, that rows train on and are measured by: the embedded world's, or those of a data set's folder.
All raise InputError if a layout is not recognised or a part is absent."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from ucvgl.data import detect_layout, open_dataset, parts
from ucvgl.data.container import ArrayImages, Dataset, Parts, Positives, joined
from ucvgl.data.place_recognition import read_frames, without_dark
from ucvgl.data.prepare import Preparation, made_once, prepare
from ucvgl.data.university import DIRECTIONS, HEIGHTS
from ucvgl.errors import InputError
from ucvgl.lab.profiles import Flights, Sample4GeoSettings, UcvglSettings, VgSslSettings
from ucvgl.lab.settings import WORLD, asked_rows
from ucvgl.methods.sample4geo import Sample4Geo
from ucvgl.paths import samples
from ucvgl.positions import Metres, Positions
from ucvgl.world.drives import HIT_M, DriveConfig, world_drives
from ucvgl.world.export import export_world
from ucvgl.world.pairs import WorldConfig, world_grid, world_pairs
from ucvgl.world.rendering import CITY_GAP_M, source_digest

REAL_FRAMES = ("nordland", "gardens_point", "corridor")


def open_parts(data: str, train: WorldConfig, test: WorldConfig) -> Parts:
    """Training and test part of the embedded world, or of a data set that lies in the folder `data`."""
    if data == WORLD:
        return Parts(world_pairs(train, "train"), {"test": world_pairs(test, "test")})
    name = detect_layout(data)
    # what the paper evaluates on is the validation part; VIGOR has none, and own folders have no pairs to measure by
    tests = [part for part in ("val", "test") if part in parts(name, data)][:1]
    return Parts(open_dataset(name, data, "train"), {part: open_dataset(name, data, part) for part in tests})


def material(settings: UcvglSettings, data: str, *, measured: bool = True) -> Parts:
    """The parts of `open_parts`, made ready; where tables are wanted (`measured`), InputError if no held-out pairs are known."""
    train, tests = open_parts(data, settings.train, settings.test)
    if measured and not any(test.labelled for test in tests.values()):
        todo = "`ucvgl train 04/main/ucvgl_s_0 --data ...` trains without labels; recall cannot be measured."
        raise InputError(data, "a held-out part with known pairs, for the tables", "no pairs in this layout", todo)
    train, *held = (prepare(_few(part), settings.images) for part in (train, *tests.values()))
    return Parts(train, dict(zip(tests, held, strict=True)))


def fewer(given: Parts) -> Parts:
    """Every second place of the world to train on, for tables whose every row the budget does not reach."""
    rows = np.arange(0, len(given.train), 2)
    return given._replace(train=given.train.take(rows, rows))


def located(data: Dataset) -> bool:
    """Whether every gallery image has a position, by which geographic sampling draws."""
    return data.gallery.positions is not None and bool(data.gallery.positions.known.all())


def open_areas(settings: Sample4GeoSettings, data: str, method: Sample4Geo) -> list[Parts]:
    """The table on sampling: VIGOR's two protocols, each with its own training part; another data set's training and test part.
    The world, in VIGOR's layout: trained on three quarters of the panoramas of some cities; 'same' asks with the others of these
    cities, 'cross' with as many of cities in other styles, among as many tiles."""
    if data == WORLD:
        trained, unseen = (_ready(settings, world_grid(world), method) for world in (settings.trained, settings.unseen))
        learnt, held = _split(trained)
        return [Parts(learnt, _equal_galleries({"same": held, "cross": unseen.evenly(len(held))}))]
    name = detect_layout(data)

    def opened(split: str, **area: str) -> Dataset:
        return _ready(settings, _few(open_dataset(name, data, split, **area)), method)

    if name == "vigor":
        return [Parts(opened("train", area=area), {area: opened("test", area=area)}) for area in ("same", "cross")]
    train = opened("train")
    train.require_labels("supervised training")
    return [Parts(train, {"same": opened("val" if "val" in parts(name, data) else "test")})]


def open_others(settings: Sample4GeoSettings, data: str, other: str, method: Sample4Geo) -> dict[str, Parts]:
    """What the table on generalisation trains and tests on: a city of each style, `small` of its panoramas to train on, or two
    data sets (empty if there is only one); each tested on what is held out of all, its own first."""
    learnt, held = {}, {}
    if data == WORLD:
        for world in (settings.trained, settings.unseen):
            whole = _ready(settings, world_grid(world), method)
            city = [images.positions.values[:, 0] // CITY_GAP_M for images in (whole.query, whole.gallery)]
            for number, name in enumerate(world.styles):
                most, rest = _split(whole.take(*(np.flatnonzero(own == number) for own in city)))
                learnt[name] = most.evenly(settings.small)
                held[name] = rest.take(range(min(len(rest), max(1, settings.small // 2))))
        held = _equal_galleries(held)
    elif other:
        for root in (data, other):
            area, name = open_areas(settings, root, settings.method)[0], detect_layout(root)
            learnt[name], held[name] = area.train, area.test
    return {name: Parts(part, {name: held[name], **held}) for name, part in learnt.items()}


def one_area(settings: Sample4GeoSettings, data: str, method: Sample4Geo) -> Parts:
    """The world's first city, `small` panoramas of it to train on; or the data set's (first) protocol. Its own test comes first."""
    cities = open_others(settings, data, "", method)
    return next(iter(cities.values())) if cities else open_areas(settings, data, method)[0]


def _ready(settings: Sample4GeoSettings, data: Dataset, method: Sample4Geo) -> Dataset:
    return prepare(data, replace(settings.images, polar=method.tile_kind == "polar"))


def _split(data: Dataset) -> tuple[Dataset, Dataset]:
    """Queries to train on, and every fourth one, to test on, as VIGOR's same area."""
    rows = np.arange(len(data))
    return data.take(rows[rows % 4 < 3]), data.take(rows[3::4])


def _few(data: Dataset) -> Dataset:
    """With ROWS=smoke sixteen of the queries to train on, eight to test with, and what they ask for; else all."""
    if asked_rows() != "smoke":
        return data
    data = data.evenly(16 if "train" in data.split else 8)
    known = np.unique(data.positives.indices)
    return data.take(range(len(data)), known if len(known) else range(len(data.gallery)))


def _equal_galleries(tests: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """The tests with galleries of the smallest's size: every query's own tile stays, then semi-positives, then the others."""
    size, cut = min(len(test.gallery) for test in tests.values()), {}
    for name, test in tests.items():
        first = [*test.positives.best().tolist(), *test.semi_positives.indices.tolist()]
        kept = list(dict.fromkeys([*first, *range(len(test.gallery))]))[:size]  # each once, in this order
        cut[name] = test.take(range(len(test)), sorted(kept))
    return cut


def drone_root(layout: str, drone: str) -> str:
    """The folder that DRONE names, if it has this layout; else empty."""
    return drone if drone and detect_layout(drone) == layout else ""


def open_flights(settings: Sample4GeoSettings, root: str = "") -> Parts:
    """A folder of University-1652, or the world exported as one; tests: drone images among tiles (d2s), and back (s2d)."""
    opened, (d2s, s2d) = _flown("university1652", settings.flights, root), DIRECTIONS
    back = replace(opened("test", direction=s2d), swapped=True)
    return Parts(opened("train", direction=d2s), {"d2s": opened("test", direction=d2s), "s2d": back})


def open_heights(settings: Sample4GeoSettings, root: str = "") -> Parts:
    """A folder of SUES-200, or the world exported as one: drone images of all four heights to train on, a test a height."""
    opened = _flown("sues200", settings.heights, root)
    trained, tests = ([opened(split, height_m=height) for height in HEIGHTS] for split in ("train", "test"))
    queries = [part.query for part in trained]  # the tiles are the same at all heights
    ids = [f"{height}/{name}" for height, images in zip(HEIGHTS, queries, strict=True) for name in images.ids]
    query = ArrayImages(ids, torch.cat([images[:] for images in queries]), None, " ".join(i.digest() for i in queries))
    best = torch.cat([part.positives.best() for part in trained]).numpy()
    train = replace(trained[0], query=query, positives=Positives.one_each(best), note="All four heights.")
    return Parts(train, {f"{height}m": test for height, test in zip(HEIGHTS, tests, strict=True)})


def _flown(layout: str, flights: Flights, root: str = "") -> Callable[..., Dataset]:
    """Opens splits of the folder `root`, or of the world's drone images in the files of such a layout, which are rendered once."""
    if not root:
        settings = asdict(flights)
        world = WorldConfig(**{name: settings[name] for name in settings.keys() - {"views", "image_px"}})
        key = {"code": source_digest(), "layout": layout, **settings}
        export = partial(export_world, world=world, photo_px=flights.image_px, drone_views=flights.views)
        root = str(made_once("flights", key, lambda folder: export(layout, folder / "set")) / "set")
    size = Preparation((flights.image_px,) * 2, (flights.tile_px,) * 2)

    def opened(split: str, **which: Any) -> Dataset:
        return prepare(_few(open_dataset(detect_layout(root), root, split, **which)), size)

    return opened


def open_drives(configs: Sequence[DriveConfig]) -> Dataset:
    """Drives of the world as one training set."""
    return joined([world_drives(config) for config in configs], "embedded world, drives", HIT_M)


def open_sets(settings: VgSslSettings, data: str) -> tuple[Dataset, dict[str, Dataset]]:
    """What is trained on, and the test sets by name: drives of the world, or a data set's training and test part."""
    if data == WORLD:
        tests = {name: world_drives(config) for name, config in settings.tests.items()}
        return open_drives(settings.train), tests
    size, name = Preparation(settings.photo_px, settings.photo_px), detect_layout(data)

    def opened(split: str) -> Dataset:
        found = open_dataset(name, data, split).answerable()
        return prepare(_apart(found) if name == "pairs" else found, size)

    test = opened("val" if name == "msls" else "test")  # MSLS: of its test part no positions were published
    # a set that is there to be measured on, as Tokyo 24/7: trained on the world's drives
    train = opened("train") if "train" in parts(name, data) else prepare(open_drives(settings.train), size)
    return train, {test.name: test}


def _apart(data: Dataset) -> Dataset:
    """Own pairs, each at a place a kilometre from the next, so that positions say what the pairs do."""
    sides = []
    for images, place in ((data.query, data.positives.best().numpy()), (data.gallery, np.arange(len(data.gallery)))):
        metres = 1000.0 * np.stack([place, 0 * place], 1)
        sides.append(replace(images, positions=Positions(metres, Metres("own pairs, a kilometre apart"), "own pairs")))
    return replace(data, query=sides[0], gallery=sides[1])


def real_frames() -> bool:
    """Whether Nordland, Gardens Point and Corridor are below the folder of real samples (UCVGL_SAMPLES)."""
    return all((samples() / name).is_dir() for name in REAL_FRAMES)


def open_frames(settings: VgSslSettings) -> tuple[Dataset, dict[str, Dataset]]:
    """Real frames: the first 70 % of Nordland to train on; its last part, Gardens Point and Corridor to test on. A hit is within
    2 frames; of "nordland_within_1" within one. Dark frames of Nordland are left out, 20 frames part its two parts."""

    def opened(name: str, split: str = "all", **more: Any) -> Dataset:
        found = read_frames(samples() / name, split, name, **more)
        found = prepare(found, Preparation(settings.frame_px, settings.frame_px))
        some = range(min(settings.frames or len(found), len(found), len(found.gallery)))
        found = found.take(some, some) if settings.frames else found
        return without_dark(found) if name == "nordland" else found

    tests = {
        "nordland": opened("nordland", "test", gap=20),
        "nordland_within_1": opened("nordland", "test", gap=20, frames=1),
        "gardens_day": opened("gardens_point", folders=("day_left", "day_right")),
        "gardens_night": opened("gardens_point", folders=("night_right", "day_right")),
        "corridor": opened("corridor"),
    }
    return opened("nordland", "train"), {name: test.answerable() for name, test in tests.items()}
