"""Steps of Sample4Geo in `training.train`, on one batch that lies on the device."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from harness import now
from torch import Generator, Tensor, nn

from ucvgl.augment import to_float
from ucvgl.data.container import ArrayImages, Dataset, Positives
from ucvgl.encoders import EncoderConfig, TwoViewEncoder
from ucvgl.methods.common import device
from ucvgl.methods.sample4geo import Sample4Geo, Sampling, SupervisedPairs
from ucvgl.training import Batch, TrainingConfig, train


@dataclass
class Steps(SupervisedPairs):
    """Sample4Geo's task on one batch again and again; notes when each step ends."""

    augmented: bool = False
    stamps: list[float] = field(default_factory=list)
    gradient: Tensor = field(default_factory=lambda: torch.zeros(0))  # of the last step

    def order(self, epoch: int, model: nn.Module, generator: Generator) -> Tensor:
        """As they stand."""
        return torch.arange(len(self.ground))

    def batch(self, items: Tensor, generator: Generator) -> Batch:
        """The images, augmented or as they are."""
        if self.augmented:
            return super().batch(items, generator)
        images = to_float(self.given.query[items]), to_float(self.given.gallery[items])
        return Batch(images, (self.place[items], self.semi[items]))

    def after_step(self, model: nn.Module, progress: float) -> None:
        """Notes the time."""
        self.stamps.append(now())
        if progress == 1:
            self.gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def one_batch(pairs: int, px: int, steps: int) -> Dataset:
    """Random smooth tiles and, as their ground images, the same moved and darker; `steps` times the same pairs."""
    cells = torch.rand(pairs, 3, 16, 16, generator=Generator().manual_seed(0))
    tile = F.interpolate(cells, (px, px), mode="bilinear")
    again, ids = torch.arange(pairs).repeat(steps), [str(i) for i in range(pairs * steps)]
    query, gallery = (
        ArrayImages(ids, (255 * pixels).to(device(), torch.uint8), source=name, rows=again)
        for name, pixels in (("ground", 0.9 * tile.roll(px // 16, 3)), ("tile", tile))
    )
    return Dataset("random", "all", query, gallery, Positives.one_each(np.arange(len(ids))))


def method(encoder: EncoderConfig, training: TrainingConfig) -> Sample4Geo:
    """Sample4Geo's settings for these steps."""
    return Sample4Geo(encoder, encoder, ground_kind="top view", training=training, sampling=Sampling("random"))


def trained(
    model: TwoViewEncoder, given: Dataset, config: Sample4Geo, *, augmented: bool = False
) -> tuple[Steps, float]:
    """One epoch of the given pairs in `training.train`: the task, with its times, and the mean loss."""
    task = Steps(given, config, augmented=augmented)
    with tempfile.TemporaryDirectory() as folder:
        rows = train(model, task, config.training, Path(folder), progress=False)
    return task, rows[0]["loss"]
