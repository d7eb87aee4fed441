"""Notebook 05: which data, which encoders, for how long; and its tables, a row for each variant of the method."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from ucvgl.augment import SAMPLE4GEO, Pose
from ucvgl.data import detect_layout, open_dataset
from ucvgl.data.cache import made_once
from ucvgl.data.container import Dataset, Parts, Positives
from ucvgl.data.prepare import Preparation, prepare
from ucvgl.encoders import EncoderConfig
from ucvgl.errors import InputError
from ucvgl.lab.cache import StageResult
from ucvgl.lab.results import WORLD
from ucvgl.methods import ucvgl
from ucvgl.methods.sample4geo import (
    BACKBONE,
    SAMPLERS,
    GroundKind,
    Sample4Geo,
    Sampling,
    TileKind,
    supervise,
    trained_model,
)
from ucvgl.sampling import NeighbourDraw
from ucvgl.studies import ucvgl_study
from ucvgl.world.export import export_world
from ucvgl.world.rendering import CITY_GAP_M, source_digest

HELD_OUT = 4  # every fourth place of a city that is trained on is tested, as VIGOR's same area


@dataclass(frozen=True)
class Flights:
    """The drone images rendered where no data set is given: University-1652's layout."""

    places: int = 300
    views: int = 2  # drone images of a place; University-1652 54
    image_px: int = 64
    tile_px: int = 64
    styles: tuple[str, ...] = ("garden", "canal")
    seed: int = 0
    city_size_m: float = 768.0
    resolution_m: float = 0.4
    spacing_m: float = 25.0  # between places, so that their tiles differ
    span_m: float = 90.0  # of a tile: about what the drone sees
    difficulty: str = "easy"  # University-1652's drone images and tiles are both from Google Earth: one day, one sensor


@dataclass(frozen=True)
class Study:
    """All settings of a profile."""

    unlabelled: ucvgl_study.Study  # UCVGL's, whose world, encoders and budget notebook 05 shares
    images: Preparation
    method: Sample4Geo
    drone: Sample4Geo
    flights: Flights
    curve_every: int  # epochs between the points of the curves by sampler


def study(profile: str, seed: int, *, data: str = WORLD) -> Study:
    """The settings of a profile: tiny, laptop or paper; InputError for another."""
    other = ucvgl_study.study(profile, seed, data=data)
    if profile == "paper":
        return _paper(other, seed, data)
    # the paper's batch is 0.4 % of CVUSA; a batch as large for these few places as there would be hard without a sampler
    training = replace(other.curriculum.training, epochs=3 if profile == "tiny" else 8, batch_size=16)
    draw = NeighbourDraw(8, 2, 2) if profile == "tiny" else NeighbourDraw(32, 4, 4)
    encoder = replace(other.start.satellite)
    method = Sample4Geo(
        encoder, encoder, ground_kind="top view", training=training, sampling=Sampling("both", draw, 2),
        augmentation=SAMPLE4GEO, pose=Pose(3.5, 0.075, 0.075), evaluate_every=training.epochs,
    )  # fmt: skip
    flights = (
        Flights(40, 2, 32, 32, ("garden",), seed, 448.0, 0.5, 12.0, 50.0) if profile == "tiny" else Flights(seed=seed)
    )
    drone_encoder = replace(encoder, image_px=(flights.image_px,) * 2)
    drone = replace(method, ground=drone_encoder, satellite=drone_encoder, ground_kind="oblique", pose=None,
                    sampling=Sampling("similarity", draw, 2),
                    training=replace(training, epochs=training.epochs * 3 // 2))  # fmt: skip
    return Study(other, other.images, method, drone, flights, curve_every=2)


def _paper(other: ucvgl_study.Study, seed: int, data: str) -> Study:
    name = WORLD if data == WORLD else detect_layout(data)
    ground_px = (384, 768) if name == "vigor" else (140, 768)
    images = replace(other.images, query_px=ground_px)
    satellite = EncoderConfig(BACKBONE, "hub", pooling="head", image_px=(384, 384))
    ground = replace(satellite, image_px=ground_px)
    method = Sample4Geo(ground, satellite)
    # ConvNeXt-B and a batch of 128 at 384 px need more than 16 GB at once: 16 images of a view at a time, the same gradient
    method = replace(method, training=replace(method.training, seed=seed, chunk=16, prefetch=True))
    drone = replace(
        method, ground=satellite, ground_kind="oblique", sampling=Sampling("random"),
        training=replace(method.training, epochs=1, warmup_epochs=0.1),
    )  # fmt: skip
    return Study(other, images, method, drone, Flights(1652, 54, 384, 384, seed=seed), curve_every=4)


# ----------------------------------------------------------------------------------------------------------------- data


def open_areas(settings: Study, data: str, method: Sample4Geo, *, progress: bool = True) -> list[Parts]:
    """The data of the tables on sampling and architecture.

    The world: trained on three quarters of the places of two cities; 'same' asks for the others among all tiles of these
    cities, 'cross' for the places of a third city among its own. VIGOR: its two protocols, each with its own training
    part. Any other data set: its training and its validation part.

    Args:
        settings: of the profile.
        data: the world, or a data set's root.
        method: says which view of the images is wanted.
        progress: show bars.
    """
    kinds = (method.ground_kind, method.tile_kind)
    if data == WORLD:
        trained, unseen = _world(settings, *kinds, progress=progress)
        learnt, held = split_rows(len(trained))
        return [Parts(trained.take(learnt), {"same": trained.take(held), "cross": unseen})]
    name = detect_layout(data)

    def opened(split: str, **more: str) -> Dataset:
        return _labelled(settings, open_dataset(name, data, split, **more), *kinds, progress=progress)

    if name == "vigor":
        return [Parts(opened("train", area=area), {area: opened("test", area=area)}) for area in ("same", "cross")]
    train = opened("train")
    train.require("supervised training", labels=True)
    return [Parts(train, {"same": opened("val")})]


def _labelled(settings: Study, data: Dataset, ground: GroundKind, tile: TileKind, *, progress: bool) -> Dataset:
    """Images made ready, the queries as the encoder is given them."""
    ready = prepare(data, replace(settings.images, polar=tile == "polar"), progress=progress)
    return ready if ground == "panorama" else replace(ready, query=ready.top_view)


def _world(settings: Study, ground: GroundKind, tile: TileKind, *, progress: bool) -> tuple[Dataset, Dataset]:
    """All places of the two cities that are trained on, and the third city; tiles that show a place beside its own are
    semi-positives."""
    other = settings.unlabelled
    parts = ucvgl_study.open_parts(WORLD, other.train, other.test, progress=progress)
    out = []
    for data in (parts.train, parts.test):
        semi = covering(data.query.positions.values, data.gallery.positions.values, other.train.span_m)
        out.append(_labelled(settings, replace(data, semi_positives=semi), ground, tile, progress=progress))
    return out[0], out[1]


def located(data: Dataset) -> bool:
    """Whether every gallery image has a position, by which geographic sampling draws."""
    return data.gallery.positions is not None and bool(data.gallery.positions.known.all())


def sampler_names(areas: list[Parts]) -> dict[str, str]:
    """The rows of the sampling table: where positions are not known, those that need none."""
    known = all(located(area.train) for area in areas)
    return {part: name for part, name in NAMES.items() if known or KINDS[part] in ("random", "similarity")}


def split_rows(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and every fourth row, to test on."""
    rows = np.arange(count)
    held = rows % HELD_OUT == HELD_OUT - 1
    return rows[~held], rows[held]


def covering(place_m: np.ndarray, tile_m: np.ndarray, span_m: float) -> Positives:
    """Tiles other than its own that show each place, the nearest centre first, as VIGOR's semi-positives.

    Args:
        place_m: (N, 2) east and north of the places.
        tile_m: (N, 2) of the centres of their tiles.
        span_m: edge of a tile.
    """
    found = cKDTree(tile_m).query_ball_point(place_m, span_m / 2, p=np.inf)
    rows = []
    for own, hits in enumerate(found):
        others = np.array([hit for hit in hits if hit != own], np.int64)
        away = np.hypot(*(tile_m[others] - place_m[own]).T)
        rows.append(others[np.argsort(away, kind="stable")])
    return Positives.of(rows)


def styles(settings: Study, method: Sample4Geo, *, progress: bool = True) -> dict[str, Parts]:
    """The two cities that are trained on, by the names of their styles, each with the held-out places of both as tests."""
    whole, _ = _world(settings, method.ground_kind, method.tile_kind, progress=progress)
    city = (whole.gallery.positions.values[:, 0] // CITY_GAP_M).astype(np.int64)
    learnt, held = {}, {}
    for number, name in enumerate(settings.unlabelled.train.styles):
        part = only(whole, np.flatnonzero(city == number))
        rows, rest = split_rows(len(part))
        learnt[name], held[name] = part.take(rows), part.take(rest)
    return {name: Parts(learnt[name], held) for name in learnt}


def only(data: Dataset, rows: np.ndarray) -> Dataset:
    """The places at `rows` of a data set whose query i belongs to gallery image i, without all other tiles."""
    return replace(data.take(rows, rows), semi_positives=None)


def open_flights(settings: Study, root: str = "", *, progress: bool = True) -> Parts:
    """Drone images and tiles of places, in both directions: a folder of University-1652 or SUES-200, or the world exported as
    the former.

    The tests 'd2s' and 's2d' ask drone images among tiles and tiles among drone images.
    """
    root = root or str(_exported(settings.flights, progress=progress))
    size = (settings.flights.image_px,) * 2, (settings.flights.tile_px,) * 2

    def opened(split: str, direction: str) -> Dataset:
        swapped = direction == "satellite2drone"
        data = open_dataset(detect_layout(root), root, split, direction=direction)
        return prepare(replace(data, swapped=swapped), Preparation(*size), progress=progress)

    tests = {"d2s": opened("test", "drone2satellite"), "s2d": opened("test", "satellite2drone")}
    return Parts(opened("train", "drone2satellite"), tests)


def _exported(flights: Flights, *, progress: bool) -> Path:
    """The world's drone images in files, as University-1652's; rendered once."""

    def export(folder: Path) -> None:
        export_world(
            "university1652", folder / "set", places=flights.places, seed=flights.seed, styles=flights.styles,
            tile_px=flights.tile_px, photo_px=flights.image_px, drone_views=flights.views, progress=progress,
            city_size_m=flights.city_size_m, resolution_m=flights.resolution_m, spacing_m=flights.spacing_m,
            span_m=flights.span_m, difficulty=flights.difficulty,
        )  # fmt: skip

    return made_once("flights", {"code": source_digest(), **asdict(flights)}, export) / "set"


# --------------------------------------------------------------------------------------------------------------- tables

NAMES = {  # by the keys of the published ablation
    "random": "random",
    "gps_only": "geographic neighbours",
    "dss_only": "look-alikes (DSS)",
    "full": "geographic, then look-alikes: Sample4Geo",
}
KINDS = dict(zip(NAMES, SAMPLERS, strict=True))


def with_sampler(settings: Study, kind: str) -> Sample4Geo:
    """The method with another sampler, measured often enough for a curve."""
    method = settings.method
    return replace(method, sampling=replace(method.sampling, kind=kind), evaluate_every=settings.curve_every)


def sampling_table(settings: Study, areas: list[Parts], *, progress: bool = True) -> pd.DataFrame:
    """A row a sampler: recall and hit rate in the same area, and, where there is one, in another, as cross_..."""
    rows = []
    for part, name in sampler_names(areas).items():
        row: dict[str, str | float] = {"part": part, "sampling": name}
        for area in areas:
            stage = supervise(area.train, with_sampler(settings, KINDS[part]), area.tests, progress=progress)
            for test, measures in stage.numbers["recall"].items():
                prefix = "" if test == "same" else f"{test}_"
                row |= {f"{prefix}{name}": value for name, value in measures.items() if name != "ap"}
        rows.append(row)
    return pd.DataFrame(rows)


def generalisation_table(settings: Study, cities: Mapping[str, Parts], *, progress: bool = True) -> pd.DataFrame:
    """A row for each style trained on and each tested on; the test places are never trained on."""
    rows = []
    for trained_on, area in cities.items():
        stage = supervise(area.train, settings.method, area.tests, progress=progress)
        for tested_on, measures in stage.numbers["recall"].items():
            kept = {name: value for name, value in measures.items() if name != "ap"}
            part = f"{trained_on}_to_{tested_on}"
            rows.append({"part": part, "trained_on": trained_on, "tested_on": tested_on, **kept})
    return pd.DataFrame(rows)


def open_others(settings: Study, data: str, other: str, *, progress: bool = True) -> dict[str, Parts]:
    """What the table on generalisation trains and tests on: the world's two styles, or two data sets; empty if there is
    only one."""
    if data == WORLD:
        return styles(settings, settings.method, progress=progress)
    return data_sets(settings, (data, other), progress=progress) if other else {}


def data_sets(settings: Study, roots: Sequence[str], *, progress: bool = True) -> dict[str, Parts]:
    """Real data sets by name, each with the validation parts of all as tests (CVUSA -> CVACT and back)."""
    parts = {}
    kinds = (settings.method.ground_kind, settings.method.tile_kind)
    for root in roots:
        name = detect_layout(root)
        splits = ("train", "test" if name == "vigor" else "val")
        parts[name] = [_labelled(settings, open_dataset(name, root, s), *kinds, progress=progress) for s in splits]
    tests = {name: test for name, (_, test) in parts.items()}
    return {name: Parts(train, tests) for name, (train, _) in parts.items()}


DIRECTIONS = {"d2s": "drone -> satellite", "s2d": "satellite -> drone"}


def drone_table(settings: Study, flights: Parts, *, progress: bool = True) -> pd.DataFrame:
    """Both directions from one training, with average precision."""
    stage = supervise(flights.train, settings.drone, flights.tests, progress=progress)
    return pd.DataFrame(
        {"part": test, "direction": DIRECTIONS[test], **measures} for test, measures in stage.numbers["recall"].items()
    )


ARCHITECTURES = {
    "full": "top views, shared weights, smoothing 0.1",
    "separate": "separate weights",
    "no_smoothing": "no label smoothing",
    "raw": "panoramas and tiles as they are, separate weights",
    "polar": "panoramas and polar-transformed tiles, separate weights",
}


def architecture(method: Sample4Geo, part: str, images: Preparation) -> Sample4Geo:
    """The method of a row of the architecture table."""
    wide = replace(method.ground, image_px=images.query_px)
    raw = replace(method, ground=wide, ground_kind="panorama", shared=False)
    match part:
        case "full":
            return method
        case "separate":
            return replace(method, shared=False)
        case "no_smoothing":
            return replace(method, smoothing=0.0)
        case "raw":
            return raw
        case "polar":
            return replace(raw, satellite=replace(method.satellite, image_px=images.query_px), tile_kind="polar")
    raise InputError("part", expected=f"one of {', '.join(ARCHITECTURES)}", found=repr(part), todo="Choose one.")


def _one_area(settings: Study, data: str, method: Sample4Geo, *, progress: bool) -> Parts:
    """The world's first city, half as much to train on; or the data set's (first) protocol. Its own test comes first."""
    if data == WORLD:
        return next(iter(styles(settings, method, progress=progress).values()))
    return open_areas(settings, data, method, progress=progress)[0]


def architecture_table(settings: Study, data: str, *, progress: bool = True) -> pd.DataFrame:
    """A row for each change of the network, its input or its loss, all with Sample4Geo's sampling."""
    rows = []
    for part, name in ARCHITECTURES.items():
        method = architecture(settings.method, part, settings.images)
        area = _one_area(settings, data, method, progress=progress)
        stage = supervise(area.train, method, area.tests, progress=progress)
        seconds = sum(row["seconds"] for row in stage.numbers["rows"])
        own = next(iter(area.tests))
        measures = {
            name: value for name, value in stage.numbers["recall"][own].items() if name not in ("ap", "hit_rate")
        }
        rows.append({"part": part, "network": name, **measures, "seconds": round(seconds, 1)})
    return pd.DataFrame(rows)


UNLABELLED = {
    "ucvgl": "UCVGL, 0 % labels",
    "ucvgl_hard": "UCVGL, 0 % labels, look-alikes of its pseudo-pairs in a batch: in neither paper",
    "random": "Sample4Geo, 100 %, random batches",
    "sample4geo": "Sample4Geo, 100 %, look-alikes in a batch",
}


def unlabelled_table(settings: Study, given: Parts, *, progress: bool = True) -> pd.DataFrame:
    """With labels and without: the same encoders, data, augmentation, epochs and measure (descriptors centred)."""
    other, rows = settings.unlabelled, []
    for part, name in UNLABELLED.items():
        if part.startswith("ucvgl"):
            hard = settings.method.sampling.draw if part == "ucvgl_hard" else None
            found = ucvgl.curriculum(given.unlabelled, other.curriculum, given, hard=hard, progress=progress).numbers
            recall, seconds = found["recall"], sum(row["seconds"] for row in found["rows"])
        else:
            method = on_same_terms(settings, "random" if part == "random" else "similarity")
            stage = supervised(settings, given, method, progress=progress)
            model = trained_model(stage, method)
            recall = ucvgl.evaluate(ucvgl.describe(model, given.test, other.start), given.test.positives)
            seconds = sum(row["seconds"] for row in stage.numbers["rows"])
        rows.append({"part": part, "method": name, **recall, "seconds": round(seconds, 1)})
    return pd.DataFrame(rows)


def on_same_terms(settings: Study, kind: str) -> Sample4Geo:
    """Sample4Geo with the encoders, augmentation and budget of UCVGL's curriculum."""
    steps = settings.unlabelled.curriculum
    start = steps.start
    ground = "panorama" if start.ground_is_panorama else "top view"
    return Sample4Geo(
        start.ground, start.satellite, shared=False, ground_kind=ground, training=steps.training,
        sampling=replace(settings.method.sampling, kind=kind), smoothing=steps.smoothing, augmentation=steps.augmentation,
        pose=steps.pose, evaluate_every=settings.method.evaluate_every,
    )  # fmt: skip


def supervised(settings: Study, given: Parts, method: Sample4Geo, *, progress: bool = True) -> StageResult:
    """Sample4Geo on all labels of UCVGL's study."""
    train, test = (
        part if method.ground_kind == "panorama" else replace(part, query=part.top_view)
        for part in (given.train, given.test)
    )
    return supervise(train, method, {"cross": test}, progress=progress)
