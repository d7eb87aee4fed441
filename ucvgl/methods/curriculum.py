"""UCVGL's step 5, the semi-supervised curriculum (section 3.4): before each epoch embed everything, keep the pairs that
`pseudo_labels.select` accepts, train on them with the soft InfoNCE; given labels replace mined ones. Differs: see `ucvgl`."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from ucvgl import augment
from ucvgl import pseudo_labels as mining
from ucvgl.checkpoints import prefixed, without
from ucvgl.data.container import Dataset, Parts
from ucvgl.encoders import TwoViewEncoder, save_model
from ucvgl.losses import soft_info_nce
from ucvgl.methods import ucvgl
from ucvgl.methods.common import BEST
from ucvgl.methods.ucvgl import Curriculum, Descriptors
from ucvgl.pseudo_labels import EpochPairs, PseudoLabels, correctness
from ucvgl.sampling import NeighbourDraw, neighbour_batches, similarity_neighbours
from ucvgl.training import Batch, Row, Task, train

CHOSEN_BY = "mutual_rate"  # ours: the label-free measure that can choose an epoch


@dataclass
class PseudoPairs(Task):
    """Step 5: pairs mined anew before each epoch train the two encoders with the soft InfoNCE."""

    data: Dataset
    given: Tensor  # (N,) int64, -1 where no label is given
    config: Curriculum
    hard: NeighbourDraw | None = None  # ours: look-alikes of each other meet in a batch; None as UCVGL
    found: Descriptors | None = None  # of the encoders as they are; None: not yet embedded
    labels: PseudoLabels | None = None
    pairs: EpochPairs | None = None

    def look(self, model: TwoViewEncoder) -> Descriptors:
        """Embeds the images trained on, and keeps the descriptors for the next mining."""
        self.found = ucvgl.describe(model, self.data, self.config.start)
        return self.found

    def order(self, epoch: int, model: nn.Module, generator: Generator) -> Tensor:
        """Mines pairs, unless the labels of before still hold, and draws an epoch of them."""
        config, training = self.config, self.config.training
        epoch, epochs = epoch + training.epochs_before, training.epochs + training.epochs_before
        begins = max(config.warmup, training.epochs_before)  # the mining, the only one without a curriculum
        due = _mines(config) and (epoch >= begins if config.refresh else epoch == begins)
        found = self.found or (self.look(model) if due or self.hard is not None else None)
        if due:
            both = ucvgl.neighbours(found, max(mining.QUALITY_K, config.rule.share))
            mined = mining.select(both, config.rule.at(epoch, epochs))
            self.labels = mining.mix_given(mined, self.given, share=config.rule.share)
        elif self.labels is None:
            none = torch.zeros(len(self.given))
            self.labels = PseudoLabels(self.given, none, none.bool(), self.given >= 0)
        self.found = None
        self.pairs = mining.epoch_items(self.labels, len(self.data.gallery), generator, few=config.few)
        tile, size = self.pairs.satellite, training.batch_size
        if self.hard is None or len(tile.unique()) < size:
            return torch.arange(len(self.pairs))
        # in batches of tiles that look alike (Sample4Geo's similarity sampling), as labels or not
        near = similarity_neighbours(found.ground[self.pairs.ground], found.satellite, self.hard.range, place=tile)
        return neighbour_batches(near, size, generator, self.hard, place=tile, places=len(self.data.gallery))[0]

    def batch(self, items: Tensor, generator: Generator) -> Batch:
        """Ground images and the tiles they are paired with."""
        config, pairs = self.config, self.pairs
        inputs, tiles = ucvgl.ground_input(self.data, config.start), self.data.gallery
        images = inputs[pairs.ground[items]], tiles[pairs.satellite[items]]
        ground, tile = augment.move_together(images, config.start.moves, config.augmentation, generator)
        ground = augment.augment(ground, config.augmentation, generator)
        tile = ucvgl.augmented_tile(tile, config, generator)
        return Batch((ground, tile), (pairs.matched[items], pairs.ground[items], pairs.satellite[items]))

    def loss(self, model: TwoViewEncoder, embeddings: tuple[Tensor, ...], labels: tuple[Tensor, ...]) -> Tensor:
        """Soft symmetric InfoNCE. Ours: a pair that a batch holds twice, having few labels, is no negative of itself,
        and neither are panoramas that may share a tile (`share`)."""
        (matched, ground, satellite), smoothing = labels, self.config.smoothing
        same = satellite[:, None] == satellite
        if self.config.rule.share == 1:
            same &= ground[:, None] == ground
        return soft_info_nce(*embeddings, model.scale, matched, label_smoothing=smoothing, not_negative=same)

    def state(self) -> dict[str, Tensor]:
        """The labels and pairs of the epoch."""
        if self.pairs is None:
            return {}
        return prefixed("labels.", vars(self.labels)) | prefixed("pairs.", vars(self.pairs))

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes them back."""
        if state:
            state = {name: value.cpu() for name, value in state.items()}
            self.labels, self.pairs = PseudoLabels(**without("labels.", state)), EpochPairs(**without("pairs.", state))


def curriculum(
    data: Dataset, config: Curriculum, truth: Parts, folder: Path, *, pretrained: Path | None,
    hard: NeighbourDraw | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Step 5, on the encoders of `pretrain`, which stand in the folder `pretrained`; None begins with random weights.
    Given labels, `label_ratio` of them, come from the training part of `truth`. Gives "rows", a row an epoch with labels
    found, the part that was right (`correct`), label-free measures and recall after it; "recall" of the last."""
    model = ucvgl.new_model(config.start) if pretrained is None else ucvgl.go_on_with(pretrained)
    seed = None if config.label_order == "file" else config.seed
    given = mining.given_subset(truth.train.positives.best(), config.label_ratio, seed=seed)
    rows = train_on_pseudo_labels(model, data, config, folder, given=given, truth=truth, hard=hard)
    return {"rows": rows, "recall": without("test_", rows[-1])}


def train_on_pseudo_labels(
    model: TwoViewEncoder, data: Dataset, config: Curriculum, folder: Path, *, given: Tensor, truth: Parts | None,
    hard: NeighbourDraw | None = None, progress: bool = True,
) -> list[Row]:  # fmt: skip
    """Step 5 on a model as it stands, whatever `config` says of the start; the last epoch's weights are saved in `folder`.
    data: unlabelled. given: (N,) int64 labels, -1 where none is. truth: for measures that choose nothing; None: unknown.
    hard, ours: batches of pairs whose tiles are similar. NoPseudoLabels: none was found, and none given."""
    if not (given >= 0).any():  # nothing to warm up on: the schedules begin where the warm-up ends
        left = config.training.epochs - config.warmup
        training = replace(config.training, epochs=left, epochs_before=config.warmup)
        config = replace(config, warmup=0, training=training)
    task = PseudoPairs(data, given, config, hard)

    def follow(epoch: int, model: nn.Module) -> dict[str, float]:
        """Its labels and label-free measures, and beside them what was right, which chooses nothing."""
        measures = mining.quality(ucvgl.neighbours(task.look(model))) if _mines(config) else {}
        mined = int(((task.labels.satellite >= 0) & ~task.labels.given).sum())
        counts = {"labels": float(mined)}
        if truth is not None:
            right = _correct(task.labels, truth)
            counts["correct"] = 0.0 if math.isnan(right) else right * mined
        return counts | measures | prefixed("test_", ucvgl.held_out_recall(model, config.start, truth))

    rows = train(model, task, config.training, folder, name="curriculum", after_epoch=follow, progress=progress)
    save_model(model, folder / BEST)
    return rows


def _mines(config: Curriculum) -> bool:
    """Whether anything is left to mine."""
    return config.mine and config.label_ratio < 1


def chosen_epoch(rows: list[Row]) -> int:
    """Ours: the epoch that the label-free measure chooses, the later of equals; the last where nothing was mined."""
    return max(range(len(rows)), key=lambda epoch: (rows[epoch].get(CHOSEN_BY, 0.0), epoch))


def first_labels(model: TwoViewEncoder, data: Dataset, config: Curriculum) -> PseudoLabels:
    """What the rule labels at epoch 0 with the encoders as they are."""
    return mining.select(ucvgl.neighbours(ucvgl.describe(model, data, config.start)), config.rule)


def label_counts(labels: PseudoLabels, truth: Parts) -> dict[str, float]:
    """How many are labelled and right of them, and the same in percent: `labels` of all ground images, `correct` of those."""
    right, found = _correct(labels, truth) if labels.count else 0.0, labels.count
    share = 100 * found / len(labels)
    return {"found": found, "right": round(right * found), "labels": share, "correct": 100 * right}


def _correct(labels: PseudoLabels, truth: Parts) -> float:
    """The fraction of the labels that is right, NaN where there is none to tell."""
    return correctness(labels, truth.train.positives.pairs(), torch.tensor(truth.train.positives.known))
