"""A toy task and its model for the tests of training; run as a script: trainings that are killed, or that are several.

python training_worker.py kill FOLDER STEPS...   trains in FOLDER/killed, killed after each number of steps, then
        to the end; and in FOLDER/whole without a break
torchrun --nproc-per-node 2 training_worker.py together FOLDER   the cases of `TOGETHER`, each in a folder there
"""

import os
import signal
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from ucvgl.errors import InputError
from ucvgl.processes import processes
from ucvgl.stages import run_stage
from ucvgl.training import Batch, Task, TrainingConfig, train

KILLED = TrainingConfig(epochs=4, batch_size=4, learning_rate=3e-3, warmup_epochs=1, checkpoint_steps=2, seed=3)
TOGETHER = {
    "direct": TrainingConfig(epochs=2, batch_size=6, learning_rate=1e-2),
    "cached": TrainingConfig(epochs=2, batch_size=6, learning_rate=1e-2, chunk=2),
}


class Toy(nn.Module):
    """Two small convolutional encoders and a log-temperature."""

    def __init__(self, *, dropout=0.0, norm=False, dtype=torch.float32):
        super().__init__()
        generator_state = torch.get_rng_state()
        torch.manual_seed(0)
        self.ground, self.satellite = (self._encoder(dropout, norm) for _ in range(2))
        self.log_scale = nn.Parameter(torch.tensor(1.0))
        torch.set_rng_state(generator_state)
        self.to(dtype)

    @staticmethod
    def _encoder(dropout, norm):
        between = nn.BatchNorm2d(4) if norm else nn.Identity()
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2), between, nn.GELU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(36, 5)
        )

    def forward(self, ground, satellite):
        return F.normalize(self.ground(ground), dim=1), F.normalize(self.satellite(satellite), dim=1)


class Pairs(Task):
    """Ground image i is satellite image i with noise; `mined` takes the most similar satellite image instead."""

    def __init__(self, count=14, *, noise=0.1, mined=False, dtype=torch.float32, on_step=lambda steps: None):
        generator = torch.Generator().manual_seed(5)
        self.satellite = torch.rand(count, 3, 8, 8, generator=generator, dtype=torch.float64).to(dtype)
        self.noise, self.mined, self.on_step = noise, mined, on_step
        self.labels, self.steps, self.items = torch.arange(count), 0, []

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
        self.steps += 1
        self.on_step(self.steps)

    def state(self):
        return {"labels": self.labels, "steps": torch.tensor(self.steps)}

    def load_state(self, state):
        self.labels, self.steps = state["labels"], int(state["steps"])


def measured(epoch, model):
    """A measure that draws from the global generator, as no measure should: it must not disturb the training."""
    return {"drawn": torch.rand(()), "weight": model.log_scale}


def killable(folder, on_step):
    """The training that is killed: dropout, batch norm, mined labels, checkpoints inside the epochs."""
    model = Toy(dropout=0.3, norm=True)
    task = Pairs(mined=True, on_step=on_step)
    rows = train(model, task, KILLED, folder, after_epoch=measured, progress=False)
    return model, rows


def kill(folder, moments):
    torch.set_num_threads(1)
    torch.optim.AdamW([nn.Parameter(torch.zeros(1))])  # what it imports takes seconds: once, before the forks
    for moment in moments:
        train_and_kill(folder / "killed", moment)
    train_and_kill(folder / "killed", None)
    train_and_kill(folder / "whole", None)


def train_and_kill(folder, moment):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        killable(folder, lambda steps: os.write(write, b"."))
        os._exit(0)
    os.close(write)
    done = 0
    while os.read(read, 1):
        done += 1
        if done == moment:
            os.kill(pid, signal.SIGKILL)
            break
    os.close(read)
    status = os.waitpid(pid, 0)[1]
    sys.stdout.write(f"{done} steps, {'killed' if os.WIFSIGNALED(status) else 'exit'} {status}\n")


def gradients_kept(model, task):
    """Makes the task keep each step's gradients: AdamW hardly minds their scale, so weights alone would not show it."""
    kept = []
    task.on_step = lambda steps: kept.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    return kept


def together(folder):
    place = processes()
    for name, config in TOGETHER.items():
        task, model = Pairs(noise=0.0, mined=True, dtype=torch.float64), Toy(dtype=torch.float64)
        if not place.is_main_process:  # both are to be put right by the first process
            model.log_scale.data.add_(1)
            task.order = lambda *a, task=task: Pairs.order(task, *a).flip(0)
        kept = gradients_kept(model, task)
        train(model, task, config, folder / name, progress=False)
        save_file(model.state_dict(), folder / f"{name}-{place.process_index}.safetensors")
        found = {"labels": task.labels, "gradients": torch.stack(kept)}
        save_file(found, folder / f"{name}-{place.process_index}-found.safetensors")
    try:
        train(Toy(), Pairs(), TrainingConfig(epochs=1, batch_size=5), folder / "odd", progress=False)
    except InputError as error:
        (folder / f"odd-{place.process_index}.txt").write_text(str(error))

    def compute(partial):
        rows = train(Toy(dropout=0.2), Pairs(), TrainingConfig(epochs=1, batch_size=4), partial, progress=False)
        return {"loss": rows[0]["loss"], "rank": place.process_index}

    for _ in range(2):
        done = run_stage("toy", TOGETHER["direct"], "toy", compute, say=lambda line: sys.stdout.write(f"{line}\n"))
        assert done.numbers["rank"] == 0
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    if sys.argv[1] == "kill":
        kill(Path(sys.argv[2]), [int(moment) for moment in sys.argv[3:]])
    else:
        together(Path(sys.argv[2]))
