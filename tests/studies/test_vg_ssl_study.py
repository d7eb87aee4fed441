"""The tables of notebook 06 on the tiny profile, and its settings beside the paper's."""

from dataclasses import replace

import pytest
import torch

from ucvgl.lab import material, profiles, published
from ucvgl.lab import score as scorecard
from ucvgl.methods.learner import METHODS
from ucvgl.studies import vg_ssl_showcase as showcase
from ucvgl.studies import vg_ssl_study as study


@pytest.fixture(scope="module")
def settings():
    tiny = profiles.vg_ssl("tiny", 0)
    methods = {key: replace(m, training=replace(m.training, epochs=1)) for key, m in tiny.methods.items()}
    other = tiny.cold_start
    one = replace(other.start.cross, epochs=1)
    start = replace(other.start, intra=one, cross=one)
    other = replace(other, start=start, curriculum=replace(other.curriculum, start=start))
    return replace(tiny, methods=methods, projectors=tiny.projectors[:2], cold_start=other)


@pytest.fixture(scope="module")
def sets(runs, settings):
    return material.open_sets(settings, "world", progress=False)


@pytest.fixture(scope="module")
def main(settings, sets):
    return study.main_table(settings, *sets, progress=False)


# ----------------------------------------------------------------------------------------------------------- settings


def test_every_method_and_set_is_named():
    assert {method for method, _, _ in study.NAMES.values()} == set(METHODS)
    columns = set(published.frame("vg_ssl_r50"))
    assert all(f"{prefix}_r_at_1" in columns for _, prefix in study.TESTS.values())


# --------------------------------------------------------------------------------------------------------------- tables


def test_sets_are_apart(settings, sets):
    train, tests = sets
    assert list(tests) == list(study.TESTS)
    assert len({train.digest(), *(test.digest() for test in tests.values())}) == 5
    assert all(len(test) <= 24 for test in tests.values())


def test_main_table(main, sets):
    assert main["part"].tolist() == ["untrained", *study.NAMES]
    for test in sets[1]:
        known = main[f"{test}_r_at_1"].dropna()
        assert known.between(0, 100).all()
        assert (main[f"{test}_r_at_5"].dropna() >= known).all()
    assert main["collapsed"].iloc[1:].isin([True, False]).all()


def test_other_tables(settings, sets):
    geopair = study.geopair_table(settings, *sets, progress=False)
    others = [f"{method}_{name}" for method in ("barlow_twins", "vicreg") for name in ("partial", "random")]
    assert geopair["part"].tolist() == [*study.VARIANTS, *others]
    projector = study.projector_table(settings, *sets, progress=False)
    assert projector["layers"].tolist() == [0, 1]
    cost = study.cost_table(settings, *sets, progress=False)
    assert cost["part"].tolist()[:3] == ["triplet_full", "triplet_partial", "triplet_random"]
    assert (cost["epoch_seconds"] >= cost["mining_seconds"]).all()
    assert cost["step_mb"].gt(0).all()


def test_pretraining_table(runs, settings):
    given = material.material(settings.cold_start, "world", progress=False)
    table = study.pretraining_table(settings, given, progress=False)
    assert table["part"].tolist() == ["none", "info_nce", *(key for key in study.NAMES if key != "triplet")]
    assert table["r_at_1"].between(0, 100).all()
    assert table["labels"].between(0, 100).all()


# -------------------------------------------------------------------------------------------------------------- showcase


def test_pictures_of_the_notebook(settings, sets):
    train, tests = sets
    models = showcase.encoders(settings, train, tests)
    first = tests["car"]
    given = showcase.activation_arguments(models, first, (1, 300))
    assert all(query.shape == positive.shape and len(query) == 2 for query, positive in given["maps"].values())
    found = showcase.all_retrieved(models, tests)
    index, right = found["untrained"]["car"]
    assert index.shape == right.shape
    row = int(torch.arange(len(right))[right.any(1)][0]) if right.any() else 0
    assert set(index[row][right[row]].tolist()) <= set(first.positives[row].tolist())
    assert not set(index[row][~right[row]].tolist()) & set(first.positives[row].tolist())
    rows = showcase.retrieval_arguments(first, {name: found[name]["car"] for name in found}, ["untrained", "simclr"])
    assert rows["captions"] == ["untrained", "SimCLR"]
    assert len(rows["retrieved"]) == len(rows["right"]) == 2
    examples = showcase.pair_examples(tests)
    assert all(len(queries) == len(positives) == 4 for queries, positives in examples.values())


def test_comparison_with_the_published_table(main, sets):
    names = list(sets[1])
    score = scorecard.scorecard(showcase.comparisons(main, names), {"main": 300})
    assert (score["pairs_published"] == 21).all()  # of seven rows
    assert len(score) == 4
    theirs = showcase.main_published(main, names)
    assert list(theirs) == [f"{prefix}_r_at_1" for _, prefix in study.TESTS.values()]
    assert theirs["nordland_r_at_1"] == [None, 39.5, 39.9, 28.0, 18.5, 14.9, 10.6, 12.5]
