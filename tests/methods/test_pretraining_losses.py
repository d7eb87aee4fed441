"""VG-SSL's losses as UCVGL's intra-view pretraining, on toy images."""

import pytest
import torch
from toy_sets import ENCODER, N, generator, toy, truth, weights

from ucvgl import ssl_losses
from ucvgl.heads import SslLoss
from ucvgl.lab.stages import pretrain as cold_start_with
from ucvgl.methods import ucvgl
from ucvgl.methods.common import trained
from ucvgl.methods.ucvgl import IntraViewWith, TwoLearners, WithLoss
from ucvgl.training import TrainingConfig

pytestmark = pytest.mark.usefixtures("fresh_runs")
TRAINING = TrainingConfig(epochs=1, batch_size=8, learning_rate=1e-3)
START = ucvgl.Pretraining(
    ENCODER, ENCODER, "top view", translation=ucvgl.Translation("none"), intra=TRAINING, cross=TRAINING
)


def config(method):
    return WithLoss(START, SslLoss(method, 0 if method == "moco" else 1, 8, 8, queue=12))


@pytest.mark.parametrize("method", ["moco", "byol", "vicreg"])
def test_each_loss_trains_both_encoders(method):
    stage = cold_start_with(toy(), config(method), truth())
    assert len(stage.numbers["intra"]) == len(stage.numbers["cross"]) == 1
    before = ucvgl.new_model(START).state_dict()
    after = weights(stage)
    for view in ("ground", "satellite"):
        assert any(name.startswith(view) and not torch.equal(before[name], value) for name, value in after.items())
    assert not any("projector" in name or "queue" in name for name in after)
    assert trained(stage.folder).configs == (ENCODER, ENCODER)


def test_the_loss_is_the_sum_over_both_views():
    model, given = TwoLearners(ucvgl.new_model(START), config("vicreg"), (N, N)).eval(), toy()
    task = IntraViewWith(given.top_view, given.gallery, START)
    batch = task.batch(torch.arange(8), generator())
    views = task.embed(model, batch.inputs)
    expected = ssl_losses.vicreg(*views[:2]) + ssl_losses.vicreg(*views[2:])
    torch.testing.assert_close(task.loss(model, views, batch.labels), expected)
    assert model.ground.projector is not model.satellite.projector
