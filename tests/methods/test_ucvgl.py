"""UCVGL's stages on toy images: what they see, what they keep, and that 0 % labels means none."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_sets import ENCODER, SIZE, N, generator, killed_and_resumed, same, toy, truth, weights

from ucvgl import ssl_losses
from ucvgl.augment import Augmentation, Occlusion, PlacementJitter
from ucvgl.encoders import save_model
from ucvgl.heads import SslLoss
from ucvgl.lab.stages import curriculum, pretrain
from ucvgl.losses import soft_info_nce
from ucvgl.methods import curriculum as step_5
from ucvgl.methods import ucvgl
from ucvgl.methods.common import BEST, trained
from ucvgl.methods.ucvgl import Curriculum, Pretraining, Translation
from ucvgl.pseudo_labels import MiningRule
from ucvgl.training import TrainingConfig, learning_rate

pytestmark = pytest.mark.usefixtures("fresh_runs")
NONE = Augmentation(*[0.0] * 11)
TRAINING = TrainingConfig(epochs=2, batch_size=8, learning_rate=1e-3)
START = Pretraining(
    ENCODER, ENCODER, "top view", translation=Translation("statistics"),
    intra=replace(TRAINING, epochs=1), cross=replace(TRAINING, epochs_before=1), occlusion=Occlusion(),
)  # fmt: skip
STEPS = Curriculum(START, training=TRAINING, rule=MiningRule(threshold=0.0), warmup=0)
STILL = PlacementJitter(0, 0, 0)


def test_without_labels_the_truth_changes_nothing_but_the_measures():
    """The same weights, labels and epoch whatever the true pairs are; only recall and `correct` differ."""
    shuffled = truth(np.random.default_rng(5).permutation(N))
    first, second = (curriculum(toy(), STEPS, known) for known in (truth(), shuffled))
    assert not second.loaded  # its measures are others
    assert same(weights(first), weights(second))
    rows = list(zip(first.numbers["rows"], second.numbers["rows"], strict=True))
    assert all(a["labels"] == b["labels"] and a["loss"] == b["loss"] for a, b in rows)
    assert any(a["test_r_at_10"] != b["test_r_at_10"] for a, b in rows)


@pytest.mark.parametrize("left_out", [
    {"projection": False, "ground": replace(ENCODER, image_px=(SIZE, 2 * SIZE))},
    {"intra": None, "cross": TRAINING}, {"cross": None}, {"occlusion": None},
], ids=str)  # fmt: skip
def test_each_part_can_be_left_out(left_out):
    start = replace(START, **left_out)
    stage = pretrain(toy(), start, truth())
    assert len(stage.numbers["intra"]) == (0 if start.intra is None else 1)
    assert len(stage.numbers["cross"]) == (0 if start.cross is None else 2)
    untouched = ucvgl.new_model(start).state_dict()
    assert any(not torch.equal(untouched[name], value) for name, value in weights(stage).items())


def test_without_curriculum_labels_are_mined_once():
    steps = replace(STEPS, training=replace(TRAINING, epochs=3), refresh=False)
    assert len({row["labels"] for row in curriculum(toy(), steps, truth()).numbers["rows"]}) == 1


def test_interrupted_curriculum_goes_on_to_the_same_weights(monkeypatch, tmp_path):
    whole = curriculum(toy(), STEPS, truth())
    resumed = killed_and_resumed(
        monkeypatch, tmp_path / "other", step_5.PseudoPairs, "order", lambda epoch, *_: epoch == 1,
        lambda: curriculum(toy(), STEPS, truth()),
    )  # fmt: skip
    assert resumed.resumed
    assert same(weights(whole), weights(resumed))
    first, second = ([row["labels"] for row in stage.numbers["rows"]] for stage in (whole, resumed))
    assert first == second


def test_warm_up_is_skipped_without_labels_and_trains_on_given_ones():
    """With a warm-up of 2 of 5 epochs: three epochs are left to 0 % labels; a tenth is trained on alone for the first two."""
    steps = replace(STEPS, training=replace(TRAINING, epochs=5), warmup=2)
    unlabelled = curriculum(toy(), steps, truth()).numbers["rows"]
    assert len(unlabelled) == 3
    schedule = replace(steps.training, epochs=3, epochs_before=2)
    last_step = 1 - 0.5 / (N // TRAINING.batch_size)
    assert unlabelled[0]["lr"] == pytest.approx(learning_rate(schedule, last_step))
    some = curriculum(toy(), replace(steps, label_ratio=0.25), truth()).numbers["rows"]
    assert [row["labels"] > 0 for row in some] == [False, False, True, True, True]


def test_step_4_goes_on_with_the_optimiser_and_the_cosine_of_step_3():
    """Step 3 ends its own cosine; step 4 stands where one over both would."""
    numbers = pretrain(toy(), START, truth()).numbers
    rates = [row["lr"] for row in (*numbers["intra"], *numbers["cross"])]
    own, whole, last = replace(TRAINING, epochs=1), replace(TRAINING, epochs=3), 1 - 0.5 / (N // TRAINING.batch_size)
    assert rates == pytest.approx([learning_rate(own, last), *(learning_rate(whole, n + last) for n in (1, 2))])


def test_only_the_first_version_of_step_3_is_mirrored():
    config = replace(START, augmentation=Augmentation(0.0, 1.0, *[0.0] * 9), placement=STILL, second_placement=STILL)
    images = toy()
    task = ucvgl.IntraView(ucvgl.ground_input(images, config), images.gallery, config)
    first, second, tile, other = task.batch(torch.arange(4), generator()).inputs
    torch.testing.assert_close(first, second.flip(3))
    torch.testing.assert_close(tile, other.flip(3), atol=1e-5, rtol=0)


def test_the_temperature_begins_anew_where_the_encoders_go_on(tmp_path):
    first = ucvgl.new_model(START)
    first.log_scale.data.fill_(0.5)
    save_model(first, tmp_path / BEST)
    weights, theirs = ucvgl.go_on_with(tmp_path).state_dict(), first.state_dict()
    assert weights.pop("log_scale") == pytest.approx(math.log(1 / 0.07)) != theirs.pop("log_scale")
    assert all(torch.equal(value, theirs[name]) for name, value in weights.items())


def test_a_pair_that_stands_twice_in_a_batch_is_no_negative_but_another_panorama_of_its_tile_is():
    task = step_5.PseudoPairs(toy(), torch.full((N,), -1), STEPS)
    model, embeddings = ucvgl.new_model(START), tuple(torch.nn.functional.normalize(torch.randn(2, 4, 6), dim=2))
    matched, tile = torch.ones(4, dtype=torch.bool), torch.tensor([0, 0, 1, 2])
    twice = task.loss(model, embeddings, (matched, torch.tensor([0, 0, 1, 2]), tile))
    shared = task.loss(model, embeddings, (matched, torch.arange(4), tile))
    plain = soft_info_nce(*embeddings, model.scale, matched, label_smoothing=STEPS.smoothing)
    torch.testing.assert_close(shared, plain)
    assert twice < plain
    task.config = replace(STEPS, rule=MiningRule(share=2))
    torch.testing.assert_close(task.loss(model, embeddings, (matched, torch.arange(4), tile)), twice)


OTHER = replace(START, translation=Translation("none"), cross=replace(TRAINING, epochs=1), occlusion=None)


def with_loss(method):
    return ucvgl.WithLoss(OTHER, SslLoss(method, 0 if method == "moco" else 1, 8, 8, queue=12))


@pytest.mark.parametrize("method", ["moco", "byol", "vicreg"])
def test_each_loss_trains_both_encoders(method):
    stage = pretrain(toy(), with_loss(method), truth())
    assert len(stage.numbers["intra"]) == len(stage.numbers["cross"]) == 1
    before = ucvgl.new_model(OTHER).state_dict()
    after = weights(stage)
    for view in ("ground", "satellite"):
        assert any(name.startswith(view) and not torch.equal(before[name], value) for name, value in after.items())
    assert not any("projector" in name or "queue" in name for name in after)
    assert trained(stage.folder).configs == (ENCODER, ENCODER)


def test_the_loss_is_the_sum_over_both_views():
    model, given = ucvgl.TwoLearners(ucvgl.new_model(OTHER), with_loss("vicreg"), (N, N)).eval(), toy()
    task = ucvgl.IntraViewWith(given.top_view, given.gallery, OTHER)
    batch = task.batch(torch.arange(8), generator())
    views = task.embed(model, batch.inputs)
    expected = ssl_losses.vicreg(*views[:2]) + ssl_losses.vicreg(*views[2:])
    torch.testing.assert_close(task.loss(model, views, batch.labels), expected)
    assert model.ground.projector is not model.satellite.projector
