"""VG-SSL's losses as UCVGL's intra-view pretraining, on toy images."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_sets import ENCODER, SIZE, N, image_set, same, weights

from ucvgl.data.container import Dataset, Parts, Positives
from ucvgl.heads import METHODS, SslLoss
from ucvgl.lab.stages import cold_start_with
from ucvgl.methods import ucvgl
from ucvgl.methods.pretraining_losses import IntraViewWith, TwoLearners, WithLoss
from ucvgl.training import TrainingConfig

pytestmark = pytest.mark.usefixtures("fresh_runs")
TRAINING = TrainingConfig(epochs=1, batch_size=8, learning_rate=1e-3)
START = ucvgl.Pretraining(
    ENCODER, ENCODER, "top view", translation=ucvgl.Translation("none"), intra=TRAINING, cross=TRAINING
)


def images(seed=0, name="toy"):
    rng = np.random.default_rng(seed)
    shapes = ((N, 3, SIZE, 2 * SIZE), (N, 3, SIZE, SIZE), (N, 3, SIZE, SIZE))
    panorama, top, tile = (image_set(rng.integers(0, 256, s), f"{name}{k}") for k, s in enumerate(shapes))
    return Dataset(name, "all", panorama, tile, Positives.unknown(N), top_view=top)


def truth(order=None):
    best = Positives.one_each(np.arange(N) if order is None else order)
    return Parts(replace(images(), positives=best), {"test": replace(images(1, "held-out"), positives=best)})


def config(method):
    return WithLoss(START, SslLoss(method, 0 if method == "moco" else 1, 8, 8, queue=12))


@pytest.mark.parametrize("method", [m for m in METHODS if m != "triplet"])
def test_each_loss_trains_both_encoders(method):
    stage = cold_start_with(images(), config(method), truth())
    assert len(stage.numbers["intra"]) == len(stage.numbers["cross"]) == 1
    before = ucvgl.new_model(START).state_dict()
    after = weights(stage)
    for view in ("ground", "satellite"):
        assert any(name.startswith(view) and not torch.equal(before[name], value) for name, value in after.items())
    assert not any("projector" in name or "queue" in name for name in after)
    assert ucvgl.pretrained_model(stage.folder, START) is not None
    assert cold_start_with(images(), config(method), truth()).loaded


def test_no_label_is_seen():
    """Whatever the true pairs are, the weights are the same."""
    first = cold_start_with(images(), config("simclr"), truth())
    second = cold_start_with(images(), config("simclr"), truth(np.random.default_rng(0).permutation(N)))
    assert not second.loaded
    assert same(weights(first), weights(second))


def test_the_loss_is_the_sum_of_both_views():
    setting = config("vicreg")
    model = TwoLearners(ucvgl.new_model(START), setting, (N, N)).eval()
    given = images()
    task = IntraViewWith(given.top_view, given.gallery, START, setting.loss)
    batch = task.batch(torch.arange(8), torch.Generator().manual_seed(0))
    parts = task.embed(model, batch.inputs)
    assert len(parts) == 4
    both = task.loss(model, parts, batch.labels)
    alone = model.ground.loss(parts[:2], batch.labels[0]) + model.satellite.loss(parts[2:], batch.labels[0])
    torch.testing.assert_close(both, alone)
    assert model.ground.projector is not model.satellite.projector


def test_another_loss_is_another_stage():
    first, second = (cold_start_with(images(), config(m), truth()) for m in ("simclr", "byol"))
    assert first.folder != second.folder
    assert not second.loaded
    longer = replace(config("byol"), start=replace(START, cross=replace(TRAINING, epochs=2)))
    assert not cold_start_with(images(), longer, truth()).loaded
