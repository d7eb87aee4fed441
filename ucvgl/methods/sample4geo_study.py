"""Notebook 05: which data, which encoders, for how long; and its tables, a row for each variant of the method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from ucvgl.augment import SAMPLE4GEO, Pose
from ucvgl.data import Positives, Views, detect_layout, open_dataset
from ucvgl.data.export import export_world
from ucvgl.distributed import first_alone
from ucvgl.encoders import EncoderConfig
from ucvgl.errors import InputError
from ucvgl.methods import ucvgl, ucvgl_study
from ucvgl.methods.images import ImageConfig, open_splits, prepare, prepare_plain
from ucvgl.methods.sample4geo import (
    BACKBONE,
    SAMPLERS,
    GroundKind,
    Labelled,
    Sample4Geo,
    Sampling,
    TileKind,
    supervise,
    trained_model,
)
from ucvgl.results import WORLD
from ucvgl.sampling import NeighbourDraw
from ucvgl.stages import StageResult, run_stage
from ucvgl.world.pairs import CITY_GAP_M, WorldConfig

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
    images: ImageConfig
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
    images = replace(other.images, panorama_px=ground_px)
    satellite = EncoderConfig(BACKBONE, "hub", pooling="head", image_px=(384, 384))
    ground = replace(satellite, image_px=ground_px)
    method = Sample4Geo(ground, satellite)
    method = replace(method, training=replace(method.training, seed=seed, prefetch=True))
    drone = replace(
        method, ground=satellite, ground_kind="oblique", sampling=Sampling("random"),
        training=replace(method.training, epochs=1, warmup_epochs=0.1),
    )  # fmt: skip
    return Study(other, images, method, drone, Flights(1652, 54, 384, 384, seed=seed), curve_every=4)


# ----------------------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True, eq=False)
class Area:
    """What is trained on, and what is measured on: the 'same' area, the 'cross' area, or both."""

    train: Labelled
    tests: Mapping[str, Labelled]


def open_areas(settings: Study, data: str, method: Sample4Geo, *, progress: bool = True) -> list[Area]:
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
        tests = {"same": trained.take(held, "held-out"), "cross": unseen}
        return [Area(trained.take(learnt, "trained-on"), tests)]
    name = detect_layout(data)
    if name == "vigor":
        return [
            Area(
                _labelled(settings, open_dataset(name, data, "train", area=area), *kinds, progress=progress),
                {area: _labelled(settings, open_dataset(name, data, "test", area=area), *kinds, progress=progress)},
            )
            for area in ("same", "cross")
        ]
    train, held_out = (open_dataset(name, data, split) for split in ("train", "val"))
    test = {"same": _labelled(settings, held_out, *kinds, progress=progress)}
    return [Area(_labelled(settings, train, *kinds, progress=progress), test)]


def _labelled(settings: Study, views: Views, ground: GroundKind, tile: TileKind, *, progress: bool) -> Labelled:
    return Labelled.of(prepare(views, settings.images, progress=progress), views, ground, tile)


def _world(settings: Study, ground: GroundKind, tile: TileKind, *, progress: bool) -> tuple[Labelled, Labelled]:
    """All places of the two cities that are trained on, and the third city; tiles that show a place beside its own are
    semi-positives."""
    other = settings.unlabelled
    splits = open_splits(WORLD, other.train, other.test)
    parts = []
    for views in (splits.train, splits.test):
        semi = covering(views.ground.positions.values, views.satellite.positions.values, other.train.span_m)
        parts.append(_labelled(settings, replace(views, semi_positives=semi), ground, tile, progress=progress))
    return parts[0], parts[1]


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


def styles(settings: Study, method: Sample4Geo, *, progress: bool = True) -> dict[str, Area]:
    """The two cities that are trained on, by the names of their styles, each with the held-out places of both as tests."""
    whole, _ = _world(settings, method.ground_kind, method.tile_kind, progress=progress)
    city = (whole.positions.values[:, 0] // CITY_GAP_M).astype(np.int64)
    names = settings.unlabelled.train.styles
    learnt, held = {}, {}
    for number, name in enumerate(names):
        part = only(whole, np.flatnonzero(city == number), name)
        rows, rest = split_rows(len(part))
        learnt[name], held[name] = part.take(rows, "trained-on"), part.take(rest, "held-out")
    return {name: Area(learnt[name], held) for name in names}


def only(given: Labelled, rows: np.ndarray, name: str) -> Labelled:
    """The places at `rows` of a data set whose ground image i belongs to tile i, without all other tiles."""
    return replace(
        given.take(rows, name), tile=given.tile[rows], positives=Positives.one_each(np.arange(len(rows))),
        semi_positives=None, positions=None if given.positions is None else given.positions.take(rows),
    )  # fmt: skip


def open_flights(settings: Study, root: str = "", *, progress: bool = True) -> Area:
    """Drone images and tiles of places, in both directions: a folder of University-1652 or SUES-200, or the world exported as
    the former.

    The tests 'd2s' and 's2d' ask drone images among tiles and tiles among drone images.
    """
    root = root or str(_exported(settings.flights, progress=progress))
    px = (settings.flights.image_px, settings.flights.tile_px)

    def opened(split: str, direction: str) -> Labelled:
        views = open_dataset(detect_layout(root), root, split, direction=direction)
        ours = Labelled.of(prepare_plain(views, px, progress=progress), views, "oblique")
        return replace(ours, tiles_ask=direction == "satellite2drone")

    tests = {"d2s": opened("test", "drone2satellite"), "s2d": opened("test", "satellite2drone")}
    return Area(opened("train", "drone2satellite"), tests)


def _exported(flights: Flights, *, progress: bool) -> Path:
    """The world's drone images in files, as University-1652's; rendered once."""
    world = WorldConfig(flights.styles, flights.seed, flights.places, city_size_m=flights.city_size_m)

    def compute(folder: Path) -> dict[str, int]:
        if not (folder / "set").exists():  # it appears when it is whole
            export_world(
                "university1652", folder / "set", places=flights.places, seed=flights.seed, styles=flights.styles,
                tile_px=flights.tile_px, photo_px=flights.image_px, drone_views=flights.views, progress=progress,
                city_size_m=flights.city_size_m, resolution_m=flights.resolution_m, spacing_m=flights.spacing_m,
                span_m=flights.span_m, difficulty=flights.difficulty,
            )  # fmt: skip
        return {"places": flights.places}

    with first_alone():
        return run_stage("flights", flights, world.digest(), compute).folder / "set"


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


def sampling_table(settings: Study, areas: list[Area], *, progress: bool = True) -> pd.DataFrame:
    """A row a sampler: recall and hit rate in the same area, and, where there is one, in another, as cross_..."""
    rows = []
    for part, name in NAMES.items():
        row: dict[str, str | float] = {"part": part, "sampling": name}
        for area in areas:
            stage = supervise(area.train, with_sampler(settings, KINDS[part]), area.tests, progress=progress)
            for test, measures in stage.numbers["recall"].items():
                prefix = "" if test == "same" else f"{test}_"
                row |= {f"{prefix}{name}": value for name, value in measures.items() if name != "ap"}
        rows.append(row)
    return pd.DataFrame(rows)


def generalisation_table(settings: Study, cities: Mapping[str, Area], *, progress: bool = True) -> pd.DataFrame:
    """A row for each style trained on and each tested on; the test places are never trained on."""
    rows = []
    for trained_on, area in cities.items():
        stage = supervise(area.train, settings.method, area.tests, progress=progress)
        for tested_on, measures in stage.numbers["recall"].items():
            kept = {name: value for name, value in measures.items() if name != "ap"}
            part = f"{trained_on}_to_{tested_on}"
            rows.append({"part": part, "trained_on": trained_on, "tested_on": tested_on, **kept})
    return pd.DataFrame(rows)


def open_others(settings: Study, data: str, other: str, *, progress: bool = True) -> dict[str, Area]:
    """What the table on generalisation trains and tests on: the world's two styles, or two data sets; empty if there is
    only one."""
    if data == WORLD:
        return styles(settings, settings.method, progress=progress)
    return data_sets(settings, (data, other), progress=progress) if other else {}


def data_sets(settings: Study, roots: Sequence[str], *, progress: bool = True) -> dict[str, Area]:
    """Real data sets by name, each with the validation parts of all as tests (CVUSA -> CVACT and back)."""
    parts = {}
    kinds = (settings.method.ground_kind, settings.method.tile_kind)
    for root in roots:
        name = detect_layout(root)
        splits = ("train", "test" if name == "vigor" else "val")
        parts[name] = [_labelled(settings, open_dataset(name, root, s), *kinds, progress=progress) for s in splits]
    tests = {name: test for name, (_, test) in parts.items()}
    return {name: Area(train, tests) for name, (train, _) in parts.items()}


DIRECTIONS = {"d2s": "drone -> satellite", "s2d": "satellite -> drone"}


def drone_table(settings: Study, flights: Area, *, progress: bool = True) -> pd.DataFrame:
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


def architecture(method: Sample4Geo, part: str, images: ImageConfig) -> Sample4Geo:
    """The method of a row of the architecture table."""
    wide = replace(method.ground, image_px=images.panorama_px)
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
            return replace(raw, satellite=replace(method.satellite, image_px=images.panorama_px), tile_kind="polar")
    raise InputError("part", expected=f"one of {', '.join(ARCHITECTURES)}", found=repr(part), todo="Choose one.")


def _one_area(settings: Study, data: str, method: Sample4Geo, *, progress: bool) -> Area:
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


def unlabelled_table(settings: Study, given: ucvgl_study.Material, *, progress: bool = True) -> pd.DataFrame:
    """With labels and without: the same encoders, data, augmentation, epochs and measure (descriptors centred)."""
    other, rows = settings.unlabelled, []
    for part, name in UNLABELLED.items():
        if part.startswith("ucvgl"):
            hard = settings.method.sampling.draw if part == "ucvgl_hard" else None
            found = ucvgl.curriculum(given.images, other.curriculum, given.truth, hard=hard, progress=progress).numbers
            recall, seconds = found["recall"], sum(row["seconds"] for row in found["rows"])
        else:
            method = on_same_terms(settings, "random" if part == "random" else "similarity")
            stage = supervised(settings, given, method, progress=progress)
            model = trained_model(stage, method)
            recall = ucvgl.evaluate(ucvgl.describe(model, given.truth.test_images, other.start), given.truth.test)
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


def supervised(
    settings: Study, given: ucvgl_study.Material, method: Sample4Geo, *, progress: bool = True
) -> StageResult:
    """Sample4Geo on all labels of UCVGL's study."""
    train, test = (
        Labelled.of(images, views, method.ground_kind)
        for images, views in ((given.images, given.splits.train), (given.truth.test_images, given.splits.test))
    )
    return supervise(train, method, {"cross": test}, progress=progress)
