"""The tables of notebooks 02 to 04 on the tiny profile, and the settings of each profile beside the paper's."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ucvgl.data.container import ArrayImages, Dataset, Parts, Positives
from ucvgl.lab import material, profiles
from ucvgl.lab import score as scorecard
from ucvgl.lab.cache import StageResult
from ucvgl.methods.ucvgl import Descriptors
from ucvgl.pseudo_labels import MiningRule, PseudoLabels
from ucvgl.studies import ucvgl_showcase as showcase
from ucvgl.studies import ucvgl_study as study


@pytest.fixture(scope="module")
def settings():
    tiny = profiles.ucvgl("tiny", 0)
    short = replace(tiny.curriculum.training, epochs=1)
    start = replace(tiny.start, intra=short, cross=short)
    return replace(tiny, start=start, curriculum=replace(tiny.curriculum, start=start, training=short))


@pytest.fixture(scope="module")
def given(runs, settings):
    return material.material(settings, "world", progress=False)


def test_cold_start_table(settings, given):
    table = study.cold_start_table(settings, given, progress=False)
    assert list(table["part"]) == [*study.PARTS, study.OURS, study.PIXELS]
    assert table["r_at_1"].between(0, 100).all()
    assert (table["right"] <= table["found"]).all()
    np.testing.assert_allclose(table["labels"], 100 * table["found"] / len(given.train))
    pixels = table.iloc[-1]
    assert pixels["r_at_1"] > 30  # no learning is needed for a few dozen places
    beside = showcase.cold_start_published(table)
    assert beside["cvusa_r_at_1"][4] == 17.96
    assert beside["cvusa_r_at_1"][5:] == [None, None]


def test_tables_of_the_curriculum_and_their_score(settings, given):
    names = {"full": "full", "no_mutual": "a", "no_threshold": "b", "no_curriculum": "c"}
    table = study.curriculum_table(settings, given, "04/ablation", names, "without", progress=False)
    assert list(table["part"]) == list(names)
    assert table["r_at_1"].le(table["chosen_with_labels_r_at_1"]).all()
    assert table.loc[1, "labels"] > table.loc[0, "labels"]  # without mutual matching more is labelled
    pair = showcase.comparison("ucvgl_rerank", table, ["cvusa_r_at_1"], ("no_curriculum", "full"))
    score = scorecard.scorecard({"ablation": pair}, {"ablation": len(given.test)})
    assert score[list(scorecard.VERDICTS)].sum(axis=1).tolist() == [6]


def test_no_label_leaves_the_cold_start(settings, given):
    steps = replace(settings.curriculum, rule=MiningRule(threshold=5.0))
    row = study.curriculum_row(steps, given, progress=False)
    assert (row["labels"], row["correct"], row["epoch"]) == (0.0, None, None)
    start = study.pretrain(given.unlabelled, steps.start, given, progress=False)
    assert row["r_at_1"] == start.numbers["recall"]["r_at_1"]


def test_pictures_and_lists(settings, given):
    stage = study.pretrain(given.unlabelled, settings.start, given, progress=False)
    for sheet in (
        showcase.pair_sheet(given), showcase.augmentation_sheet(given, settings.start),
        showcase.synthetic_sheet(given, settings.start), showcase.fake_sheet(settings, given),
    ):  # fmt: skip
        assert len({len(column) for column in sheet.values()}) == 1
    found = showcase.describe_stage(stage, settings.start, given, held_out=True)
    held = showcase.retrieved(found, given.test.positives)
    count = len(given.test)
    assert held.right.shape == (count, 5)
    best = (found.ground @ found.satellite.T).argmax(1)
    assert torch.equal(held.right[:, 0], best == torch.arange(count))
    rows = showcase.row_sheet(given, held)
    assert len(rows["ground"]) == len(rows["retrieved"]) == len(rows["right"])
    places = showcase.map_arguments(given, showcase.all_nearest(held), held_out=True)
    assert int((places["status"] == 1).sum()) == int(held.right[:, 0].sum())
    assert showcase.without_lines(places)["matched_position"].isnan().all()
    trained = showcase.describe_stage(stage, settings.start, given, held_out=False)
    drawn = showcase.map_arguments(given, showcase.all_nearest(showcase.retrieved(trained, given.train.positives)))
    assert set(drawn["city"]) == {"city 1", "city 2"}
    assert drawn["position"].max() < 300  # each city on its own map


def test_rules_by_hand():
    """Four pairs, one wrong and not mutual: mutual matching removes just that."""
    ground = torch.eye(4)
    ground[3] = torch.tensor([0.9, 0.0, 0.0, 0.1])
    satellite = torch.eye(4)
    found = Descriptors(torch.nn.functional.normalize(ground, dim=1), satellite)
    images = ArrayImages(map(str, range(4)), torch.zeros(4, 3, 1, 1, dtype=torch.uint8))
    material = Parts(Dataset("toy", "train", images, images, Positives.one_each(np.arange(4))), {})
    table = showcase.rule_table(found, material, 0.5).set_index("part")
    assert table.loc["nearest", ["found", "right"]].tolist() == [4, 3]
    assert table.loc["mutual", ["found", "right"]].tolist() == [3, 3]
    assert showcase.rules_published(table.reset_index())["cvusa_correct"][3] == pytest.approx(100 * 968 / 1477)
    sweep = showcase.rule_sweep(found, material, 0.5)
    assert sweep["chosen"].sum() == 1
    assert sweep["coverage"].between(0, 100).all()


def test_quality_by_epoch(given):
    rows = [{"epoch": e, "labels": 10.0 * e, "correct": 8.0 * e, "test_r_at_1": e, "mutual_rate": e / 10,
             "mean_margin": -e, "cycle": 0.5, "hubness": e % 2} for e in range(4)]  # fmt: skip
    stage = StageResult(None, {"rows": rows, "epoch": 3}, False, 1.0, False)
    frame = showcase.quality_frame([stage])
    found = showcase.rank_correlations(frame)
    assert found["mutual_rate"] == pytest.approx(1)
    assert found["mean_margin"] == pytest.approx(-1)
    assert found["cycle"] == 0
    assert showcase.epoch_frame(stage, 0.1)["threshold"].iloc[0] == 0.1
    nothing = PseudoLabels(torch.tensor([-1]), torch.zeros(1), torch.zeros(1).bool(), torch.zeros(1).bool())
    assert study.found_and_right(nothing, given)["correct"] == 0
