"""A toy task and its model for the tests of training; run as a script: a training that is killed, or by two processes.

python training_worker.py kill FOLDER STEP   trains in FOLDER, killed after that step of this process; 0: to the end
torchrun --nproc-per-node 2 training_worker.py together FOLDER   trainings by the losses of `LOSSES`, in chunks, and resumed;
        sharded embeddings, and what one makes for both
"""

import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from ucvgl.data.prepare import made_once
from ucvgl.distributed import from_first, gather, joined, processes
from ucvgl.errors import InputError
from ucvgl.heads import Learner, SslLoss
from ucvgl.lab.stages import run_stage
from ucvgl.methods import common
from ucvgl.training import Batch, Task, TrainingConfig, train

KILLED = TrainingConfig(epochs=4, batch_size=4, learning_rate=3e-3, warmup_epochs=1, seed=3)
JOINT = TrainingConfig(epochs=2, batch_size=6, learning_rate=1e-2)
LOSSES = {  # name -> the method's settings; None: the toy's own loss, on mined labels and in chunks
    "chunks": None,
    "moco": SslLoss("moco", 0, queue=10, momentum=0.9),
    "vicreg": SslLoss("vicreg", 0),
}
COUNTS = (2, 14)  # images that two processes embed, three at a time: an empty part, uneven parts


class Toy(nn.Module):
    """Two small convolutional encoders and a log-temperature."""

    def __init__(self, *, dropout=0.0, norm=False, dtype=torch.float32):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.ground, self.satellite = (self._encoder(dropout, norm) for _ in range(2))
        self.log_scale = nn.Parameter(torch.tensor(1.0))
        self.to(dtype)

    @staticmethod
    def _encoder(dropout, norm):
        first = nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4) if norm else nn.Identity()
        return nn.Sequential(*first, nn.GELU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(36, 5))

    def forward(self, ground, satellite):
        return F.normalize(self.ground(ground), dim=1), F.normalize(self.satellite(satellite), dim=1)


class Pairs(Task):
    """Ground image i is satellite image i with noise; `mined` takes the most similar satellite image instead."""

    kept = ("labels", "steps")

    def __init__(self, count=14, *, noise=0.1, mined=False, dtype=torch.float32, on_step=lambda steps: None):
        generator = torch.Generator().manual_seed(5)
        self.satellite = torch.rand(count, 3, 8, 8, generator=generator, dtype=torch.float64).to(dtype)
        self.noise, self.mined, self.on_step = noise, mined, on_step
        self.labels, self.steps, self.items = torch.arange(count), torch.tensor(0), []

    def order(self, epoch, model, generator):
        if self.mined and epoch:
            model.eval()
            with torch.no_grad():
                ground, satellite = model(self.satellite.flip(3), self.satellite)
            self.labels = (ground @ satellite.T).argmax(1)
        return torch.randperm(len(self.satellite), generator=generator)

    def batch(self, items, generator):
        self.items.append(items.tolist())
        ground = self.satellite[items]
        noise = torch.randn(ground.shape, generator=generator, dtype=torch.float64).to(ground)
        return Batch((ground + self.noise * noise, self.satellite[self.labels[items]]), (self.labels[items],))

    def embed(self, model, inputs):
        return model(*inputs)

    def loss(self, model, embeddings, labels):
        ground, satellite = embeddings
        same = labels[0][:, None] == labels[0]  # (B, B); one tile may stand in a batch twice
        logits = model.log_scale.exp() * ground @ satellite.T
        return -(logits.log_softmax(1) * same / same.sum(1, keepdim=True)).sum(1).mean()

    def after_step(self, model, progress):
        self.steps = self.steps + 1
        self.on_step(int(self.steps))


class Flat(nn.Module):
    """An encoder without batch norms, whose statistics would be each process's own."""

    dim = 5

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(192, 5, generator=generator) / 14)
        self.mean = torch.zeros(1)  # where `embed` looks for the device

    def forward(self, images):
        return F.normalize((images - 0.5).flatten(1) @ self.weight, dim=1)


class Views(Pairs):
    """Two views of each image, for VG-SSL's losses over the rows of all processes."""

    def batch(self, items, generator):
        return Batch((self.satellite[items], self.satellite[items].flip(3) ** 2), (items,))

    def embed(self, model, inputs):
        return model.compared(*inputs)

    def loss(self, model, embeddings, labels):
        return model.loss(embeddings, labels[0])

    def after_step(self, model, progress):
        super().after_step(model, progress)
        model.follow()


def learnt(name, folder):
    """Trains with one of LOSSES, in one process or several: the weights, each step's gradients, the labels."""
    if LOSSES[name] is None:
        model, task = Toy(dtype=torch.float64), Pairs(noise=0.0, mined=True, dtype=torch.float64)
        if not processes().is_main_process:  # both are to be put right by the first process
            model.log_scale.data.add_(1)
            task.order = lambda *a: Pairs.order(task, *a).flip(0)
    else:
        model, task = Learner(Flat(), LOSSES[name], 0, 14).double(), Views(dtype=torch.float64)
    # AdamW hardly minds the scale of gradients, so weights alone would not show it
    kept, learning = [], [p for p in model.parameters() if p.requires_grad]
    task.on_step = lambda steps: kept.append(torch.cat([p.grad.flatten() for p in learning]))
    train(model, task, replace(JOINT, chunk=2 if LOSSES[name] is None else None), folder, progress=False)
    return model.state_dict() | {"step gradients": torch.stack(kept), "labels": task.labels}


def embedded(count):
    """Descriptors of so many images, by all processes."""
    return common.embed_all(Flat(), torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(2)))


def measured(epoch, model):
    """A measure that draws from the global generator, as no measure should: it must not disturb the training."""
    return {"drawn": float(torch.rand(())), "weight": float(model.log_scale.detach())}


def killable(folder, on_step=lambda steps: None):
    """The training that is killed: dropout, batch norm, mined labels."""
    model, task = Toy(dropout=0.3, norm=True), Pairs(mined=True, on_step=on_step)
    return model, train(model, task, KILLED, folder, after_epoch=measured, progress=False)


def stop_at(step):
    """For `on_step`: a stop after that many steps."""

    def stop(steps):
        if steps == step:
            raise KeyboardInterrupt

    return stop


def assert_same_weights(one, two):
    one, two = (weights if isinstance(weights, dict) else weights.state_dict() for weights in (one, two))
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


def together(folder):
    place = processes()
    found = {f"{name}/{key}": v for name in LOSSES for key, v in learnt(name, folder / name).items()}
    with suppress(KeyboardInterrupt):
        killable(folder / "stopped", stop_at(5))  # both processes, in the second epoch
    for name in ("stopped", "whole"):
        model, _ = killable(folder / name)
        found |= {f"{name}/{key}": value for key, value in model.state_dict().items()}
    try:
        train(Toy(), Pairs(), TrainingConfig(epochs=1, batch_size=5), folder / "odd", progress=False)
    except InputError as error:
        (folder / f"odd-{place.process_index}.txt").write_text(str(error))

    common.EMBED_BATCH = 3
    found |= {f"sharded/{count}": embedded(count) for count in COUNTS}
    own = torch.arange(2) + 10 * place.process_index
    found["integers"], found["pairs"] = gather((own, own[:, None] > 0))
    found["uneven"] = joined(own[: 1 + place.process_index])
    found["agreed"] = torch.tensor(from_first(7 + place.process_index))
    save_file({k: v.contiguous().clone() for k, v in found.items()}, folder / f"{place.process_index}.safetensors")

    def make(scratch):
        time.sleep(1)
        with (folder / "made").open("a") as file:
            file.write(f"by {place.process_index}")

    def compute(partial):
        rows = train(Toy(), Pairs(), JOINT, partial, progress=False)
        return {"rows": len(rows), "made": made_once("toys", {}, make).name}

    stage = run_stage("outer", JOINT, "toy", compute)
    assert stage.numbers["rows"] == 2
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "kill":
        last = int(sys.argv[3])
        killable(Path(sys.argv[2]), lambda steps: os.kill(os.getpid(), signal.SIGKILL) if steps == last else None)
    else:
        together(Path(sys.argv[2]))
