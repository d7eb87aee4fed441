"""The data and the tables of notebook 05 on the tiny profile, and its settings beside the paper's."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ucvgl.lab import material, profiles, published, variants
from ucvgl.methods.sample4geo import SAMPLERS
from ucvgl.studies import sample4geo_study as study
from ucvgl.world.export import export_world


@pytest.fixture(scope="module")
def settings():
    tiny = profiles.sample4geo("tiny", 0)
    one = replace(tiny.method.training, epochs=1)
    short = replace(tiny.unlabelled.curriculum.training, epochs=1)
    start = replace(tiny.unlabelled.start, intra=short, cross=short)
    other = replace(
        tiny.unlabelled,
        start=start,
        curriculum=replace(tiny.unlabelled.curriculum, start=start, training=short, warmup=0),
    )
    drone = replace(tiny.drone, training=one, sampling=replace(tiny.drone.sampling, kind="random"))
    return replace(tiny, unlabelled=other, method=replace(tiny.method, training=one), drone=drone)


# ----------------------------------------------------------------------------------------------------------- settings


def test_tables_have_the_published_rows():
    assert set(study.NAMES) == set(published.frame("sample4geo")["row"])
    assert tuple(variants.SAMPLING.values()) == SAMPLERS


def test_same_terms_are_the_same():
    settings = profiles.sample4geo("laptop", 0)
    method, steps = variants.on_same_terms(settings, "similarity"), settings.unlabelled.curriculum
    assert (method.ground, method.satellite) == (steps.start.ground, steps.start.satellite)
    assert (method.training, method.augmentation) == (steps.training, steps.augmentation)
    assert method.placement == steps.placement
    assert not method.shared
    assert method.sampling.kind == "similarity"


# ----------------------------------------------------------------------------------------------------------------- data


def test_covering_tiles_by_brute_force():
    rng = np.random.default_rng(0)
    tiles = rng.uniform(0, 100, (40, 2))
    places = tiles + rng.uniform(-3, 3, tiles.shape)
    found = material.covering(places, tiles, 30.0)
    for i, place in enumerate(places):
        shows = [j for j in range(40) if j != i and np.abs(tiles[j] - place).max() <= 15]
        shows.sort(key=lambda j: np.hypot(*(tiles[j] - place)))
        assert found[i].tolist() == shows


def test_split_rows():
    learnt, held = material.split_rows(10)
    assert held.tolist() == [3, 7]
    assert sorted([*learnt, *held]) == list(range(10))


def test_areas_of_the_world(runs, settings):
    (area,) = material.open_areas(settings, "world", settings.method, progress=False)
    same, cross = area.tests["same"], area.tests["cross"]
    assert (len(area.train), len(same), len(cross)) == (36, 12, 32)
    assert len(area.train.gallery) == len(same.gallery) == 48
    assert not set(area.train.positives.best().tolist()) & set(same.positives.best().tolist())
    assert same.semi_positives is not None
    assert material.located(area.train)
    polar = variants.architecture(settings, "polar")
    (wide,) = material.open_areas(settings, "world", polar, progress=False)
    assert wide.train.gallery.size == wide.train.query.size == settings.images.query_px


def test_styles_are_apart(runs, settings):
    cities = material.styles(settings, settings.method, progress=False)
    assert list(cities) == ["garden", "canal"]
    for name, area in cities.items():
        assert set(area.tests) == {"garden", "canal"}
        assert (len(area.train), len(area.train.gallery), len(area.tests[name])) == (18, 24, 6)
        assert np.ptp(area.train.gallery.positions.values[:, 0]) < 1000  # one city
    first, second = (area.train.gallery.positions.values[:, 0].mean() for area in cities.values())
    assert second - first > 5000


@pytest.mark.parametrize("layout", ["cvusa", "vigor"])
def test_areas_of_real_layouts(runs, settings, tmp_path, layout):
    root = tmp_path / layout
    export_world(layout, root, places=24, styles=("garden",), tile_px=16, panorama_px=128, city_size_m=256.0,
                 resolution_m=0.5, progress=False)  # fmt: skip
    areas = material.open_areas(settings, str(root), settings.method, progress=False)
    if layout == "vigor":
        assert [list(area.tests) for area in areas] == [["same"], ["cross"]]
        assert areas[0].tests["same"].semi_positives is not None
    else:
        assert [list(area.tests) for area in areas] == [["same"]]
    for area in areas:
        assert material.located(area.train)
        assert area.train.query.size == (32, 32)  # top views, as the profile's encoders take


# --------------------------------------------------------------------------------------------------------------- tables


def check_percent(frame, names):
    for name in names:
        assert ((frame[name] >= 0) & (frame[name] <= 100)).all(), name


def test_sampling_table(runs, settings):
    areas = material.open_areas(settings, "world", settings.method, progress=False)
    table = study.sampling_table(settings, areas, progress=False)
    assert table["part"].tolist() == ["random", "gps_only", "dss_only", "full"]
    check_percent(table, ["r_at_1", "r_at_10", "r_at_1_percent", "hit_rate", "cross_r_at_1", "cross_hit_rate"])
    assert (table["hit_rate"] >= table["r_at_1"]).all()
    assert not any(name.endswith("ap") for name in table)


def test_generalisation_table(runs, settings):
    table = study.generalisation_table(
        settings, material.styles(settings, settings.method, progress=False), progress=False
    )
    assert table["part"].tolist() == ["garden_to_garden", "garden_to_canal", "canal_to_garden", "canal_to_canal"]
    check_percent(table, ["r_at_1", "r_at_5"])


def test_drone_table_in_both_directions(runs, settings):
    flights = material.open_flights(settings, progress=False)
    d2s, s2d = flights.tests["d2s"], flights.tests["s2d"]
    assert not d2s.swapped
    assert s2d.swapped
    assert len(d2s) == 2 * len(s2d)  # two drone images of each place that is asked for
    assert len(s2d.gallery) == 2 * len(d2s.gallery)  # distractors among both
    assert len(d2s.gallery) > len(s2d)
    assert len(s2d.positives[0]) == 2
    table = study.drone_table(settings, flights, progress=False)
    assert table["part"].tolist() == ["d2s", "s2d"]
    check_percent(table, ["r_at_1", "ap"])
    assert material.open_flights(settings, progress=False).train.digest() == flights.train.digest()


def test_architecture_table(runs, settings):
    table = study.architecture_table(settings, "world", progress=False)
    assert table["part"].tolist() == list(study.ARCHITECTURES)
    check_percent(table, ["r_at_1"])
    assert (table["seconds"] >= 0).all()


def test_unlabelled_table(runs, settings):
    given = material.material(settings.unlabelled, "world", progress=False)
    table = study.unlabelled_table(settings, given, progress=False)
    assert table["part"].tolist() == list(study.UNLABELLED)
    check_percent(table, ["r_at_1", "r_at_1_percent"])
    assert isinstance(table, pd.DataFrame)
