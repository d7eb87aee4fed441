"""Training on somebody's own imagery: what it begins with, that no truth is needed, that worse encoders are not kept."""

from dataclasses import replace

import pytest
import torch
from toy_sets import ENCODER, N, killed_and_resumed, toy
from toy_sets import same as equal

from ucvgl.encoders import save_model, two_view_encoder
from ucvgl.errors import InputError
from ucvgl.locate import adapt as module
from ucvgl.locate.adapt import AdaptConfig, adapt, starting_model
from ucvgl.methods import curriculum
from ucvgl.methods.ucvgl import describe, neighbours
from ucvgl.pseudo_labels import quality

pytestmark = pytest.mark.usefixtures("fresh_runs")
RIGHT = torch.arange(N)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_model(two_view_encoder(ENCODER, ENCODER, shared=False, seed=0), path)
    return AdaptConfig(str(path), "a digest", epochs=2, learning_rate=1e-3, batch_size=8)


def run(config, given=None, images=None):
    model, start = starting_model(config)
    images = images or toy()
    after, rounds = adapt(model, start, images, config, given, came=describe(model, images, start), progress=False)
    return model, after, rounds


def same(first, second):
    return equal(first.state_dict(), second.state_dict())


def kept_whatever(monkeypatch):
    """As if the encoders had been lost when they came, so that the best epoch is kept."""
    monkeypatch.setattr(module, "quality", lambda both: quality(both) | {"mutual_rate": 0.0})


# ------------------------------------------------------------------------------------------------------------- the start


def test_it_begins_with_the_file(config):
    model, start = starting_model(config)
    assert model.configs == (ENCODER, ENCODER)
    assert (start.ground_input, start.intra, start.cross) == ("top view", None, None)
    assert starting_model(replace(config, given="panorama"))[1].ground_input == "panorama"
    assert not model.training


# ---------------------------------------------------------------------------------------------------------- the training


def test_no_epochs_leave_the_encoders(config, monkeypatch):
    monkeypatch.setattr(module, "run_stage", None)
    model, after, (came,) = run(replace(config, epochs=0))
    assert after is model
    measured = quality(neighbours(describe(model, toy(), starting_model(config)[1])))
    assert came == {
        "name": "as they came",
        "labels": None,
        "seconds": 0.0,
        **{k: measured[k] for k in list(came)[2:-1]},
    }


def test_training_changes_a_copy_and_is_kept_in_the_run_cache(config, monkeypatch):
    kept_whatever(monkeypatch)
    model, after, rounds = run(config, RIGHT)
    assert same(starting_model(config)[0], model)
    assert not same(after, model)
    assert not after.training
    assert [one["name"] for one in rounds] == ["as they came", "epoch 1", "epoch 2"]
    assert all(one["seconds"] > 0 for one in rounds[1:])
    monkeypatch.setattr(module, "train_on_pseudo_labels", None)  # would fail if anything were trained again
    _, again, rows = run(config, RIGHT)
    assert same(after, again)
    assert rows == rounds


def test_given_labels_are_learnt(config, monkeypatch):
    kept_whatever(monkeypatch)
    seen = {}
    real = module.train_on_pseudo_labels
    monkeypatch.setattr(
        module, "train_on_pseudo_labels", lambda *a, given, truth, **k: seen.update(given=given, truth=truth)
        or real(*a, given=given, truth=truth, **k)
    )  # fmt: skip
    given = torch.where(RIGHT < 20, RIGHT, -1)
    _, learnt, rounds = run(config, given)
    assert torch.equal(seen["given"], given)
    assert seen["truth"] is None
    _, other, _ = run(config)
    assert bool((seen["given"] == -1).all())
    assert not same(learnt, other)
    assert all(one["labels"] < N - 20 + 1 for one in rounds[1:])  # mined ones, beside the twenty


def test_nothing_to_learn_from_leaves_the_encoders(config):
    model, after, rounds = run(replace(config, keep=0.0))
    assert after is model
    assert len(rounds) == 1


def test_what_is_worse_than_before_is_not_kept(config, monkeypatch):
    monkeypatch.setattr(module, "quality", lambda both: quality(both) | {"mutual_rate": 1.5})
    model, after, rounds = run(config, RIGHT)
    assert after is model
    assert len(rounds) == 3  # the report shows what was tried


def test_a_killed_training_goes_on_to_the_same_encoders(config, monkeypatch, tmp_path):
    kept_whatever(monkeypatch)
    _, whole, rows = run(config, RIGHT)
    epochs, task = [], curriculum.PseudoPairs
    real = task.order
    monkeypatch.setattr(task, "order", lambda self, epoch, *rest: epochs.append(epoch) or real(self, epoch, *rest))
    _, resumed, again = killed_and_resumed(
        monkeypatch, tmp_path / "other", task, "order", lambda epoch, *_: epoch == 1, lambda: run(config, RIGHT)
    )
    assert epochs == [0, 1]  # and not the first again
    assert same(whole, resumed)
    assert [row | {"seconds": 0} for row in again] == [row | {"seconds": 0} for row in rows]


def test_one_picture_or_two_are_no_failure(config):
    for count in (1, 2):
        images = toy(data_id=f"first {count}")
        few = images.take(range(count))
        _, _, rounds = run(config, images=few)
        assert rounds[0]["name"] == "as they came"


@pytest.mark.parametrize("epochs", [-1, 1.5, None])
def test_epochs_are_a_number(epochs):
    with pytest.raises(InputError, match="epochs"):
        AdaptConfig("a", "b", epochs=epochs)
