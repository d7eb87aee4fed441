"""Notebook 05: which data, which encoders, for how long; and its tables, a row for each variant of the method."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from ucvgl.augment import SAMPLE4GEO
from ucvgl.datasets import Positives, detect_layout
from ucvgl.methods import ucvgl_study
from ucvgl.methods.images import ImageConfig, prepare
from ucvgl.methods.sample4geo import (
    BACKBONE,
    Labelled,
    Sample4Geo,
    Sampling,
)
from ucvgl.models import EncoderConfig
from ucvgl.results import WORLD
from ucvgl.sampling import NeighbourDraw
from ucvgl.synthetic_top_view import Pose
from ucvgl.world.pairs import CITY_GAP_M

HELD_OUT = 4  # every fourth place of a city that is trained on is tested, as VIGOR's same area


@dataclass(frozen=True)
class Flights:
    """The drone images rendered where no data set is given: University-1652's layout."""

    places: int = 400
    views: int = 3  # drone images of a place; University-1652 54
    image_px: int = 64
    tile_px: int = 64
    styles: tuple[str, ...] = ("garden", "canal")
    seed: int = 0


@dataclass(frozen=True)
class Study:
    """All settings of a profile."""

    unlabelled: ucvgl_study.Study  # UCVGL's, whose world, encoders and budget notebook 05 shares
    images: ImageConfig
    method: Sample4Geo
    drone: Sample4Geo
    flights: Flights


def study(profile: str, seed: int, *, data: str = WORLD) -> Study:
    """The settings of a profile: tiny, laptop or paper; InputError for another."""
    other = ucvgl_study.study(profile, seed, data=data)
    if profile == "paper":
        return _paper(other, seed, data)
    batch = other.curriculum.training.batch_size
    training = replace(other.curriculum.training, epochs=3 if profile == "tiny" else 10)
    # a list as long for the number of places as the paper's would leave nothing hard in it
    draw = NeighbourDraw(8, 2, 2) if profile == "tiny" else NeighbourDraw(32, 8, 8)
    encoder = replace(other.start.satellite)
    method = Sample4Geo(
        encoder, encoder, ground_kind="top view", training=training, sampling=Sampling("both", draw, 2),
        augmentation=SAMPLE4GEO, pose=Pose(3.5, 0.075, 0.075), evaluate_every=1 if profile == "tiny" else 2,
    )  # fmt: skip
    flights = Flights(40, 2, 32, 32, seed=seed) if profile == "tiny" else Flights(seed=seed)
    drone_encoder = replace(encoder, image_px=(flights.image_px,) * 2)
    drone = replace(method, ground=drone_encoder, satellite=drone_encoder, ground_kind="oblique", pose=None,
                    sampling=Sampling("similarity", draw, 2), training=replace(training, batch_size=min(batch, 16)))  # fmt: skip
    return Study(other, other.images, method, drone, flights)


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
    return Study(other, images, method, drone, Flights(1652, 54, 384, 384, seed=seed))


# ----------------------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True, eq=False)
class Area:
    """What is trained on, and what is measured on: 'same' area or 'cross' area, or both."""

    train: Labelled
    tests: Mapping[str, Labelled]


@dataclass(frozen=True, eq=False)
class World:
    """Two cities to train on, of two styles, and one that is never trained on, of the first style.

    Args:
        trained: all places of the two cities.
        city: (N,) int, which of the two.
        unseen: the third city.
    """

    trained: Labelled
    city: np.ndarray
    unseen: Labelled

    def area(self) -> Area:
        """Trained on three quarters of the two cities; measured on the others, and on the third city."""
        train, held = split_rows(len(self.trained))
        tests = {"same": self.trained.take(held, "held-out"), "cross": self.unseen}
        return Area(self.trained.take(train, "trained-on"), tests)


def split_rows(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and every fourth row, to test on."""
    rows = np.arange(count)
    held = rows % HELD_OUT == HELD_OUT - 1
    return rows[~held], rows[held]


def open_world(settings: Study, *, tile_kind: str = "tile", ground_kind: str = "", progress: bool = True) -> World:
    """The world of UCVGL's study, with labels; tiles that cover a place beside its own are semi-positives."""
    from ucvgl.methods.images import open_splits

    other = settings.unlabelled
    splits = open_splits(WORLD, other.train, other.test)
    parts = []
    for views in (splits.train, splits.test):
        semi = covering(views.ground.positions.values, views.satellite.positions.values, other.train.span_m)
        images = prepare(views, settings.images, progress=progress)
        kind = ground_kind or settings.method.ground_kind
        parts.append(Labelled.of(images, replace(views, semi_positives=semi), kind, tile_kind))
    city = (splits.train.ground.positions.values[:, 0] // CITY_GAP_M).astype(np.int64)
    return World(parts[0], city, parts[1])


def covering(place_m: np.ndarray, tile_m: np.ndarray, span_m: float) -> Positives:
    """Tiles other than its own that show each place, the nearest centre first (VIGOR's semi-positives): (N, 2), (N, 2)."""
    found = cKDTree(tile_m).query_ball_point(place_m, span_m / 2, p=np.inf)
    rows = []
    for own, hits in enumerate(found):
        others = np.array([hit for hit in hits if hit != own], np.int64)
        away = np.hypot(*(tile_m[others] - place_m[own]).T) if len(others) else np.zeros(0)
        rows.append(others[np.argsort(away, kind="stable")])
    return Positives.of(rows)
