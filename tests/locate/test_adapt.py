"""Training on somebody's own imagery: what it begins with, that no truth is needed, that worse encoders are not kept."""

from dataclasses import replace

import pytest
from toy_sets import ENCODER, killed_and_resumed, toy
from toy_sets import same as equal

from ucvgl.encoders import save_model, two_view_encoder
from ucvgl.locate import search as module
from ucvgl.locate.inputs import AdaptConfig
from ucvgl.locate.search import adapt, starting_model
from ucvgl.methods import curriculum
from ucvgl.methods.ucvgl import describe, neighbours
from ucvgl.pseudo_labels import quality

pytestmark = pytest.mark.usefixtures("fresh_runs")


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_model(two_view_encoder(ENCODER, ENCODER, shared=False, seed=0), path)
    return AdaptConfig(str(path), "a digest", epochs=2, learning_rate=1e-3, batch_size=8)


@pytest.fixture
def came_with(monkeypatch):
    """As if so many had been mutual matches when the encoders came."""
    return lambda rate: monkeypatch.setattr(module, "quality", lambda both: quality(both) | {"mutual_rate": rate})


def run(config, images=None):
    model, start = starting_model(config)
    images = images or toy()
    after, rounds = adapt(model, start, images, config, describe(model, images, start))
    return model, after, rounds


def same(first, second):
    return equal(first.state_dict(), second.state_dict())


def test_it_begins_with_the_file_and_without_epochs_ends_with_it(config, monkeypatch):
    model, start = starting_model(config)
    assert (model.configs, model.training) == ((ENCODER, ENCODER), False)
    assert (start.ground_input, start.intra, start.cross) == ("top view", None, None)
    monkeypatch.setattr(module, "run_stage", None)
    model, after, (came,) = run(replace(config, epochs=0))
    assert after is model
    measured = quality(neighbours(describe(model, toy(), start)))
    assert came == {"name": "as they came", "labels": None, "seconds": 0.0, **measured}


def test_training_changes_a_copy_without_any_truth_and_goes_on_after_a_kill(config, monkeypatch, came_with, tmp_path):
    came_with(0.0)
    seen, real = {}, module.train_on_pseudo_labels

    def watched(*args, given, truth, **options):
        seen.update(labels=bool((given >= 0).any()), truth=truth)
        return real(*args, given=given, truth=truth, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, "train_on_pseudo_labels", watched)
        model, after, rounds = run(config)
    assert seen == {"labels": False, "truth": None}
    assert same(starting_model(config)[0], model)
    assert not same(after, model)
    assert not after.training
    assert [one["name"] for one in rounds] == ["as they came", "epoch 1", "epoch 2"]
    assert all(one["seconds"] > 0 for one in rounds[1:])

    epochs, task = [], curriculum.PseudoPairs
    order = task.order
    monkeypatch.setattr(task, "order", lambda self, epoch, *rest: epochs.append(epoch) or order(self, epoch, *rest))
    _, resumed, rows = killed_and_resumed(
        monkeypatch, tmp_path / "other", task, "order", lambda epoch, *_: epoch == 1, lambda: run(config)
    )
    assert epochs == [0, 1]  # and not the first again
    assert same(after, resumed)
    assert [row | {"seconds": 0} for row in rows] == [row | {"seconds": 0} for row in rounds]


@pytest.mark.parametrize(("keep", "rate", "rounds"), [(0.0, 0.0, 1), (0.25, 1.5, 3)])
def test_nothing_to_learn_from_and_what_is_worse_leave_the_encoders(config, came_with, keep, rate, rounds):
    came_with(rate)
    model, after, shown = run(replace(config, keep=keep))
    assert after is model
    assert len(shown) == rounds  # the report shows what was tried


@pytest.mark.parametrize("count", [1, 2])
def test_one_picture_or_two_are_no_failure(config, count):
    few = toy(data_id=f"first {count}").take(range(count))
    assert run(config, few)[2][0]["name"] == "as they came"
