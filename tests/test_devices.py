"""No tensor is left on the wrong device: every method's stages run whole on a pretended GPU."""

import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pretended_cuda import CUDA, OnCuda, outside, pretended_cuda
from toy_sets import ENCODER, SIZE, N, generator, street, toy, truth

from ucvgl import checkpoints, distributed, translation
from ucvgl.encoders import EncoderConfig
from ucvgl.heads import SslLoss
from ucvgl.methods import common, curriculum, sample4geo, ucvgl, vg_ssl
from ucvgl.methods.sample4geo import Sample4Geo, Sampling
from ucvgl.methods.ucvgl import Curriculum, Pretraining, Translation
from ucvgl.methods.vg_ssl import VgSsl
from ucvgl.pseudo_labels import MiningRule
from ucvgl.sampling import NeighbourDraw
from ucvgl.training import TrainingConfig

TRAINING = TrainingConfig(epochs=2, batch_size=8, learning_rate=1e-3, clip_norm=1.0)
START = Pretraining(
    replace(ENCODER, image_px=(SIZE, 2 * SIZE)), ENCODER, translation=Translation("statistics"),
    intra=replace(TRAINING, epochs=1), cross=replace(TRAINING, epochs=1, epochs_before=1),
)  # fmt: skip
GAN = translation.CycleGanConfig(
    load_px=SIZE, crop_px=SIZE, channels=4, blocks=1, downsamplings=1, discriminator_channels=4, discriminator_layers=1,
    pool=2, epochs=1, decay_epochs=0, steps_per_epoch=3, batch=2,
)  # fmt: skip


@pytest.fixture
def gpu(monkeypatch):
    """A pretended GPU that the methods find."""
    for module in (common, sample4geo, ucvgl, vg_ssl):
        monkeypatch.setattr(module, "device", lambda: CUDA)
    place = SimpleNamespace(
        device=CUDA, num_processes=1, process_index=0, is_main_process=True, wait_for_everyone=lambda: None
    )
    monkeypatch.setattr(distributed, "processes", lambda: place)
    for name in ("read", "write"):
        monkeypatch.setattr(checkpoints, name, outside(getattr(checkpoints, name)))
    fork = torch.random.fork_rng
    # a GPU's generator is not there
    monkeypatch.setattr("torch.random.fork_rng", lambda devices=(), enabled=True, **_: fork([], enabled))
    monkeypatch.setattr("torch.Generator", lambda device=None: torch._C.Generator())  # timm's, for bfloat16 alone
    monkeypatch.setattr("torch.inference_mode", torch.no_grad)  # whose views no subclass of Tensor can have
    with warnings.catch_warnings(), pretended_cuda():
        warnings.filterwarnings("ignore", ".*CUDA is not available.*")  # autocast asks
        yield


def all_on_gpu(model):
    return all(x.device == CUDA for x in (*model.parameters(), *model.buffers()))


def test_what_a_gpu_refuses_is_refused(gpu):
    here, there = torch.rand(4, 3), torch.rand(4, 3).to(CUDA)
    rows, mask = torch.tensor([0, 2]), here[:, 0] > 0.5
    assert isinstance(there[rows], OnCuda)  # a GPU takes the CPU's indices
    assert (there * torch.tensor(2.0)).device == CUDA  # and its scalars
    refused = [
        lambda: here + there,
        lambda: here @ there.T,
        lambda: torch.where(mask, there[:, 0], 0.0),
        lambda: here[rows.to(CUDA)],
        lambda: there.index_put_((rows,), here[rows]),
        lambda: torch.rand(3, generator=generator(), device=CUDA),
        lambda: torch.nn.Linear(3, 2)(there),
    ]
    for attempt in refused:
        with pytest.raises((RuntimeError, TypeError)):
            attempt()


def test_ucvgl(gpu, tmp_path):
    """Steps 3, 4 and 5, the last with given labels, and without them but with similar tiles in a batch."""
    ucvgl.intra_view(toy(), START, tmp_path / "3")
    model = common.trained(tmp_path / "3")
    ucvgl.pretrain(model, toy(), START, truth(), tmp_path / "4", after=tmp_path / "3")
    assert all_on_gpu(model)
    steps = Curriculum(START, training=TRAINING, rule=MiningRule(threshold=0.0), warmup=1, label_ratio=0.5)
    rows = curriculum.curriculum(toy(), steps, truth(), tmp_path / "5", pretrained=tmp_path / "4")["rows"]
    assert rows[-1]["labels"] > 0
    rule = MiningRule(mutual=False, threshold=0.0, share=2, keep=0.5)
    few = replace(TRAINING, epochs=1, batch_size=2)
    unlabelled = replace(steps, rule=rule, training=few, warmup=0, label_ratio=0.0)
    curriculum.curriculum(toy(), unlabelled, truth(), tmp_path / "hard", pretrained=None, hard=NeighbourDraw(4, 1, 1))


def test_cyclegan(gpu, tmp_path):
    start = replace(START, translation=Translation("cyclegan", GAN))
    ucvgl.train_translation(toy(), start, tmp_path)
    assert ucvgl.fake_satellites(toy(), start, tmp_path).shape == (N, 3, SIZE, SIZE)


def test_sample4geo(gpu, tmp_path):
    """Batches by position, then by similarity (DSS); evaluation."""
    method = Sample4Geo(
        ENCODER, ENCODER, ground_kind="top view", training=replace(TRAINING, epochs=3), evaluate_every=1,
        sampling=Sampling("both", NeighbourDraw(6, 2, 1), 1),
    )  # fmt: skip
    recall = sample4geo.supervise(street(), method, {"test": street(1)}, tmp_path)["recall"]
    assert recall["test"]["r_at_1"] > 0
    assert all_on_gpu(common.trained(tmp_path))


@pytest.mark.parametrize(
    ("method", "geopair"), [("triplet", "random"), ("moco", "random"), ("byol", "random"), ("simclr", "partial")]
)
def test_vg_ssl(gpu, method, geopair, tmp_path):
    """Mining, both forms of GeoPair, momentum encoders and the queue."""
    encoder = EncoderConfig("test_efficientnet", depth=2, pooling="gem", width=8, image_px=(SIZE, SIZE))
    training = replace(TRAINING, batch_size=16 if geopair == "partial" else 8)
    setting = VgSsl(encoder, SslLoss(method, 2, 8, 8, queue=12), training, geopair=geopair, negatives=3, pool=10)
    done = vg_ssl.learn(street(), setting, {"test": street(1)}, tmp_path)
    assert np.isfinite(done["rows"][-1]["loss"])
