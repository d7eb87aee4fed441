"""UCVGL (Li, Qian, Xia; CVPR 2024): from unpaired panoramas and satellite tiles to encoders that match them.

The five steps of the paper, each a function that writes to a folder and returns its numbers (`lab.stages` keeps them in the
run cache): train_translation (step 2, after the projection of step 1), intra_view (3), pretrain (4), curriculum (5). No step is
given a label unless the method is told to be given some; truth enters as `Parts`, in measures that choose nothing.

Ours, each a setting that can be switched off: poses jittered between the two images of a pair; tiles with synthetic top
views (see synthetic_top_view); descriptors centred for each view; an epoch chosen by a label-free measure.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor, nn

from ucvgl.augment import UCVGL, Augmentation, Move, Pose, augment, jitter_pose, move_together, to_float
from ucvgl.data.container import ArrayImages, Dataset, Parts, Positives
from ucvgl.data.prepare import resized
from ucvgl.encoders import EncoderConfig, TwoViewEncoder, load_model, save_model, two_view_encoder
from ucvgl.errors import InputError
from ucvgl.losses import info_nce, soft_info_nce
from ucvgl.methods.baselines import centred_by_domain
from ucvgl.methods.common import BEST, device, embed_all
from ucvgl.metrics import ranks_of, recall_at
from ucvgl.paths import write_json
from ucvgl.pseudo_labels import (
    QUALITY_K,
    EpochPairs,
    MiningRule,
    PseudoLabels,
    correctness,
    epoch_items,
    given_subset,
    mix_given,
    quality,
    select,
)
from ucvgl.sampling import NeighbourDraw, neighbour_batches, similarity_neighbours
from ucvgl.search import BothWays, both_ways
from ucvgl.synthetic_top_view import Occlusion, synthetic_top_view
from ucvgl.training import Batch, Row, Task, TrainingConfig, train
from ucvgl.translation import CycleGanConfig, apply_statistics, centre_weight, fit_statistics, train_cyclegan, translate

VERSION = 1  # of what the stages compute: raised when their numbers change, so that no stage of before is loaded
KS = (1, 5, 10)


# ------------------------------------------------------------------------------------------------------------- settings


@dataclass(frozen=True)
class Translation:
    """Step 2: how a top view becomes a fake satellite image."""

    kind: Literal["none", "statistics", "cyclegan"] = "cyclegan"  # UCVGL: cyclegan; colours matched to the tiles: ours
    gan: CycleGanConfig = field(default_factory=CycleGanConfig)

    def __post_init__(self) -> None:
        if self.kind not in ("none", "statistics", "cyclegan"):
            raise InputError(
                "Translation.kind", expected="none, statistics or cyclegan", found=repr(self.kind), todo="Choose one."
            )


@dataclass(frozen=True)
class Pretraining:
    """Steps 1 to 4: the cold start."""

    ground: EncoderConfig
    satellite: EncoderConfig
    ground_input: Literal["panorama", "top view"] = "panorama"  # UCVGL: panorama
    projection: bool = True  # step 1; without it the fake is made from the panorama, squeezed into the tile's square
    translation: Translation = field(default_factory=Translation)  # step 2
    intra: TrainingConfig | None = field(
        default_factory=lambda: TrainingConfig(epochs=12)
    )  # step 3; None leaves it out; UCVGL 12 epochs
    cross: TrainingConfig | None = field(
        default_factory=lambda: TrainingConfig(epochs=16)
    )  # step 4; None leaves it out; UCVGL 16 epochs
    intra_smoothing: float = 0.1  # of the labels; UCVGL 0.1
    cross_smoothing: float = 0.3  # UCVGL 0.3
    augmentation: Augmentation = UCVGL
    pose: Pose | None = None  # ours: how far the two images of a pair are moved apart; None as UCVGL
    occlusion: Occlusion | None = None  # ours: tiles with synthetic top views in step 4; None as UCVGL
    seed: int = 0
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.ground_input not in ("panorama", "top view"):
            raise InputError(
                "Pretraining.ground_input", expected="panorama or top view", found=repr(self.ground_input),
                todo="Choose one.",
            )  # fmt: skip

    @property
    def ground_is_panorama(self) -> bool:
        """Whether the ground encoder is given panoramas; without the projection there is nothing else to give."""
        return self.ground_input == "panorama" or not self.projection


@dataclass(frozen=True)
class Curriculum:
    """Step 5, on pseudo-labels, given labels or both."""

    start: Pretraining  # the encoders to begin with
    pretrained: bool = True  # False: begin with random weights, as for the supervised row
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(epochs=40))  # UCVGL 40 epochs
    rule: MiningRule = field(default_factory=MiningRule)
    mine: bool = True  # False: given labels alone
    refresh: bool = True  # mine before every epoch; False: once, from the encoders to begin with (no curriculum)
    first_refresh: int = 0  # epochs trained on the first labels; UCVGL 6
    few: float = 0.4  # part of the ground images below which only the labelled ones are trained on; UCVGL 0.4
    smoothing: float = 0.1  # of the labels; UCVGL 0.1
    label_ratio: float = 0.0  # part of the labels given; UCVGL 0 to 1
    label_order: Literal["random", "file"] = "random"  # which are given: UCVGL the first in file order
    augmentation: Augmentation = UCVGL
    pose: Pose | None = None  # ours, as in Pretraining
    centre: bool = True  # ours: subtract each view's mean descriptor before comparing
    seed: int = 0
    version: int = VERSION

    def __post_init__(self) -> None:
        if not 0 <= self.label_ratio <= 1:
            raise InputError(
                "Curriculum.label_ratio", expected="0 to 1", found=self.label_ratio, todo="Give a part, not per cent."
            )
        if self.label_ratio == 0 and not self.mine:
            raise InputError("Curriculum.mine", expected="true where no label is given", found=False,
                             todo="Mine pseudo-labels, or give some labels.")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Descriptors:
    """Both views of a set of images, (N, D) and (M, D), ready to be compared by dot products."""

    ground: Tensor
    satellite: Tensor


def ground_input(data: Dataset, config: Pretraining) -> ArrayImages:
    """What the ground encoder is given: N images (3, H, W) uint8."""
    return data.query if config.ground_is_panorama else data.top_view


def describe(model: TwoViewEncoder, data: Dataset, config: Pretraining, *, centre: bool = True) -> Descriptors:
    """Embeds all images of both views.

    Args:
        model: the encoders.
        data: N ground images, M tiles.
        config: says what the ground encoder is given.
        centre: subtract each view's mean (a view of one image is left as it is): what all images of a view share, its
            light or its sensor, tells no place from another.
    """
    ground, satellite = embed_all(model.ground, ground_input(data, config)), embed_all(model.satellite, data.gallery)
    if centre:
        ground, satellite = (centred_by_domain(d) if len(d) > 1 else d for d in (ground, satellite))
    return Descriptors(ground, satellite)


def evaluate(found: Descriptors, positives: Positives) -> dict[str, float]:
    """Recall at 1, 5, 10 and 1 % of the gallery, in percent, over ground images whose tile is known."""
    best = positives.best()
    known = (best >= 0).nonzero()[:, 0]
    ranks = ranks_of(found.ground[known], found.satellite, best[known])
    one_percent = max(1, len(found.satellite) // 100)
    return recall_at(ranks, KS) | {"r_at_1_percent": recall_at(ranks, (one_percent,))[f"r_at_{one_percent}"]}


def neighbours(found: Descriptors, k: int = QUALITY_K) -> BothWays:
    """The k nearest images of the other view, both ways (fewer where a view has fewer)."""
    return both_ways(found.ground, found.satellite, min(k, len(found.satellite)), min(k, len(found.ground)))


# ------------------------------------------------------------------------------------------------ step 2: fake satellites


def fake_satellites(data: Dataset, config: Pretraining, gan: Path | None = None) -> Tensor:
    """A fake satellite image of each ground image: (N, 3, S, S) uint8; those of a GAN stand in the folder of its training."""
    source = _unprojected(data) if not config.projection else data.top_view[:]
    match config.translation.kind:
        case "none":
            return source
        case "statistics":
            weight = centre_weight(data.gallery.size[0]) if config.projection else None
            return apply_statistics(source, fit_statistics(source, data.gallery[:], weight=weight))
    assert gan is not None
    return torch.from_numpy(np.load(gan / "fakes.npy", mmap_mode="c", allow_pickle=False))


def train_translation(data: Dataset, config: Pretraining, folder: Path, *, progress: bool = True) -> dict[str, float]:
    """Trains the CycleGAN of step 2 and translates every ground image, to fakes.npy; it has no numbers."""
    source = _unprojected(data) if not config.projection else data.top_view[:]
    gan = train_cyclegan(source, data.gallery[:], config.translation.gan, folder, device=device(), progress=progress)
    np.save(folder / "fakes.npy", translate(gan, source).cpu().numpy(), allow_pickle=False)
    return {}


def _unprojected(data: Dataset) -> Tensor:
    """Panoramas squeezed into the tiles' squares."""
    size = data.gallery.size[0]
    return resized(data.query[:], (size, size))


# ----------------------------------------------------------------------------------------------- steps 3 and 4: the tasks


def _moves(panorama: bool) -> Move:
    """How an image follows its heading: panoramas roll, squares turn."""
    return "roll" if panorama else "turn"


@dataclass
class IntraView(Task):
    """Step 3: two augmentations of a ground image attract, and so do two of a tile. Row i of the one is a stranger to
    row i of the other."""

    ground: ArrayImages
    tile: ArrayImages
    config: Pretraining

    def order(self, epoch: int, model: nn.Module, generator: Generator) -> Tensor:
        """Every ground image once."""
        return torch.randperm(len(self.ground), generator=generator)

    def batch(self, items: Tensor, generator: Generator) -> Batch:
        """Two versions of each ground image, and of as many tiles drawn at random."""
        tiles = torch.randperm(len(self.tile), generator=generator)[: len(items)]
        if len(tiles) < len(items):
            tiles = torch.randint(len(self.tile), (len(items),), generator=generator)
        views = []
        for images, panorama in ((self.ground[items], self.config.ground_is_panorama), (self.tile[tiles], False)):
            (moved,) = move_together((images,), (_moves(panorama),), self.config.augmentation, generator)
            first, second = (augment(moved, self.config.augmentation, generator) for _ in range(2))
            if self.config.pose is not None and not panorama:
                second = jitter_pose(second, self.config.pose, generator)
            views += [first, second]
        return Batch(tuple(views))

    def embed(self, model: TwoViewEncoder, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Four descriptors a row."""
        return *(model.ground(image) for image in inputs[:2]), *(model.satellite(image) for image in inputs[2:])

    def loss(self, model: TwoViewEncoder, embeddings: tuple[Tensor, ...], labels: tuple[Tensor, ...]) -> Tensor:
        """InfoNCE(ground, ground) + InfoNCE(tile, tile)."""
        smoothing = self.config.intra_smoothing
        return sum(info_nce(*pair, model.scale, label_smoothing=smoothing) for pair in (embeddings[:2], embeddings[2:]))  # type: ignore[return-value]


@dataclass
class CrossView(Task):
    """Step 4: a ground image and its own fake satellite image attract; ours: a tile and its own synthetic top view too."""

    ground: ArrayImages
    fake: Tensor
    tile: ArrayImages
    config: Pretraining

    @property
    def with_tiles(self) -> bool:
        """Whether tiles and synthetic top views take part; they need a projection to imitate."""
        return self.config.occlusion is not None and self.config.projection

    def order(self, epoch: int, model: nn.Module, generator: Generator) -> Tensor:
        """Every ground image once."""
        return torch.randperm(len(self.ground), generator=generator)

    def batch(self, items: Tensor, generator: Generator) -> Batch:
        """Ground image and fake; tile and synthetic top view."""
        config = self.config
        wide = config.ground_is_panorama
        ground, fake = move_together(
            (self.ground[items], self.fake[items]),
            (_moves(wide), _moves(not config.projection)),
            config.augmentation,
            generator,
        )
        inputs = [augment(image, config.augmentation, generator) for image in (ground, fake)]
        if config.pose is not None and config.projection:
            inputs[1] = jitter_pose(inputs[1], config.pose, generator)
        if self.with_tiles:
            drawn = torch.randint(len(self.tile), (len(items),), generator=generator)
            (tile,) = move_together((self.tile[drawn],), ("turn",), config.augmentation, generator)
            view = synthetic_top_view(to_float(tile), config.pose or Pose(0, 0, 0), config.occlusion, generator)
            inputs += [augment(image, config.augmentation, generator) for image in (view, tile)]
        return Batch(tuple(inputs))

    def embed(self, model: TwoViewEncoder, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Two or four descriptors a row; a synthetic top view goes through whichever encoder reads top views."""
        reads_top_views = model.satellite if self.config.ground_is_panorama else model.ground
        encoders = (model.ground, model.satellite, reads_top_views, model.satellite)
        return tuple(encoder(image) for encoder, image in zip(encoders, inputs, strict=False))

    def loss(self, model: TwoViewEncoder, embeddings: tuple[Tensor, ...], labels: tuple[Tensor, ...]) -> Tensor:
        """InfoNCE(ground, own fake) + InfoNCE(synthetic top view, tile)."""
        smoothing = self.config.cross_smoothing
        pairs = [embeddings[i : i + 2] for i in range(0, len(embeddings), 2)]
        return sum(info_nce(*pair, model.scale, label_smoothing=smoothing) for pair in pairs)  # type: ignore[return-value]


# ----------------------------------------------------------------------------------------------------- steps 3 and 4: run


def new_model(config: Pretraining) -> TwoViewEncoder:
    """Encoders as they begin, from the seed; channels last, which convolutions run faster in on most devices."""
    return two_view_encoder(config.ground, config.satellite, shared=False, seed=config.seed).to(
        memory_format=torch.channels_last
    )


def intra_view(data: Dataset, config: Pretraining, folder: Path, *, progress: bool = True) -> dict[str, Any]:
    """Step 3; numbers: "rows", a row an epoch. What later steps do differently plays no part (see `intra_key`)."""
    assert config.intra is not None
    model = new_model(config).to(device())
    task = IntraView(ground_input(data, config), data.gallery, config)
    rows = train(model, task, config.intra, folder, name="intra-view", progress=progress)
    save_model(model, folder / BEST)
    return {"rows": rows}


def pretrain(
    model: TwoViewEncoder, data: Dataset, config: Pretraining, truth: Parts | None, folder: Path, *,
    gan: Path | None = None, progress: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Step 4, unless it is left out, on a model that step 3 has trained, unless that is.

    Args:
        model: on its device; `pretrained_model` opens the weights it leaves in `folder`.
        data: unlabelled.
        config: what is trained; with `intra` and `cross` both None the encoders stay as they began.
        truth: for measures that choose nothing; None where nothing is known.
        folder: to write to.
        gan: folder of `train_translation`, where fakes come from a GAN.
        progress: show bars.

    Returns:
        "cross", a row an epoch; "recall" of the held-out part, empty without truth.
    """
    rows: list[Row] = []
    if config.cross is not None:
        task = CrossView(ground_input(data, config), fake_satellites(data, config, gan), data.gallery, config)
        watch = _Watch(model, data, config, truth)
        rows = train(model, task, config.cross, folder, name="cross-view", after_epoch=watch, progress=progress)
    save_model(model, folder / BEST)
    recall = {} if _unmeasured(truth) else evaluate(describe(model, truth.test, config), truth.test.positives)
    return {"cross": rows, "recall": recall}


def intra_key(config: Pretraining) -> "IntraKey":
    """The settings that step 3 depends on."""
    assert config.intra is not None
    return IntraKey(
        config.ground, config.satellite, config.ground_is_panorama, config.intra, config.intra_smoothing,
        config.augmentation, config.pose, config.seed, config.version,
    )  # fmt: skip


@dataclass(frozen=True)
class IntraKey:
    """The settings that step 3 depends on."""

    ground: EncoderConfig
    satellite: EncoderConfig
    ground_is_panorama: bool
    intra: TrainingConfig
    smoothing: float
    augmentation: Augmentation
    pose: Pose | None
    seed: int
    version: int


@dataclass
class _Watch:
    """After an epoch: label-free measures, and beside them recall, which nothing reads but the tables."""

    model: TwoViewEncoder
    data: Dataset
    config: Pretraining
    truth: Parts | None

    def __call__(self, epoch: int, model: nn.Module) -> dict[str, float]:
        measures = quality(neighbours(describe(self.model, self.data, self.config)))
        return measures | _recall(self.model, self.config, self.truth)


def _recall(
    model: TwoViewEncoder, config: Pretraining, truth: Parts | None, *, centre: bool = True
) -> dict[str, float]:
    """Recall on what is held out, for the log; nothing where nothing is known."""
    if _unmeasured(truth):
        return {}
    found = describe(model, truth.test, config, centre=centre)
    return {f"test_{name}": value for name, value in evaluate(found, truth.test.positives).items()}


def pretrained_model(folder: Path, config: Pretraining) -> TwoViewEncoder:
    """The encoders that `pretrain` or `curriculum` left in their folder, on the GPU if there is one."""
    model = new_model(config)
    load_model(model, folder / BEST)
    return model.to(device()).eval()


def _unmeasured(truth: Parts | None) -> bool:
    """Whether no recall can be measured: no pairs are known, or there is no held-out part."""
    return truth is None or not truth.tests


# ------------------------------------------------------------------------------------------------------ step 5: the task


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
        self.found = describe(model, self.data, self.config.start, centre=self.config.centre)
        return self.found

    def order(self, epoch: int, model: nn.Module, generator: Generator) -> Tensor:
        """Mines pairs, unless the labels of before still hold, and draws an epoch of them."""
        config = self.config
        due = self.labels is None or (config.refresh and epoch >= config.first_refresh)
        found = self.found
        if found is None and (self.hard is not None or (due and _mines(config))):
            found = self.look(model)
        if due and _mines(config):
            # without a curriculum there is one mining, with the threshold as it is at first
            rule = config.rule.at(epoch, config.training.epochs) if config.refresh else config.rule
            self.labels = mix_given(
                select(neighbours(found, max(QUALITY_K, rule.share)), rule), self.given, share=rule.share
            )
        elif self.labels is None:
            none = torch.zeros(len(self.given))
            self.labels = PseudoLabels(self.given, none, none.bool(), self.given >= 0)
        self.found = None
        self.pairs = epoch_items(self.labels, len(self.data.gallery), generator, few=config.few)
        return torch.arange(len(self.pairs)) if self.hard is None else self._hard_batches(found, generator)

    def _hard_batches(self, found: Descriptors, generator: Generator) -> Tensor:
        """The epoch's pairs in batches of tiles that look alike (Sample4Geo's similarity sampling), as labels or not."""
        ground, tile = self.pairs.ground, self.pairs.satellite
        if len(tile.unique()) < self.config.training.batch_size:
            return torch.arange(len(self.pairs))  # too few to choose from
        near = similarity_neighbours(found.ground[ground], found.satellite, self.hard.range, place=tile)
        size, tiles = self.config.training.batch_size, len(self.data.gallery)
        return neighbour_batches(near, size, generator, self.hard, place=tile, places=tiles)

    def batch(self, items: Tensor, generator: Generator) -> Batch:
        """Ground images and the tiles they are paired with."""
        config, pairs = self.config, self.pairs
        ground = ground_input(self.data, config.start)[pairs.ground[items]]
        tile = self.data.gallery[pairs.satellite[items]]
        wide = config.start.ground_is_panorama
        moved = move_together((ground, tile), (_moves(wide), "turn"), config.augmentation, generator)
        ground, tile = (augment(image, config.augmentation, generator) for image in moved)
        if config.pose is not None:
            tile = jitter_pose(tile, config.pose, generator)
        return Batch((ground, tile), (pairs.matched[items], pairs.satellite[items]))

    def embed(self, model: TwoViewEncoder, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Two descriptors a row."""
        return model.ground(inputs[0]), model.satellite(inputs[1])

    def loss(self, model: TwoViewEncoder, embeddings: tuple[Tensor, ...], labels: tuple[Tensor, ...]) -> Tensor:
        """Soft symmetric InfoNCE; rows that share a tile are no negatives of each other."""
        matched, satellite = labels
        same = satellite[:, None] == satellite
        return soft_info_nce(
            *embeddings, model.scale, matched, label_smoothing=self.config.smoothing, not_negative=same
        )

    def state(self) -> dict[str, Tensor]:
        """The labels and pairs of the epoch."""
        if self.labels is None or self.pairs is None:
            return {}
        return {f"labels.{k}": v for k, v in vars(self.labels).items()} | {
            f"pairs.{k}": v for k, v in vars(self.pairs).items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes them back."""
        if state:
            parts = {
                name: {k.removeprefix(name): v.cpu() for k, v in state.items() if k.startswith(name)}
                for name in ("labels.", "pairs.")
            }
            self.labels, self.pairs = PseudoLabels(**parts["labels."]), EpochPairs(**parts["pairs."])


# ------------------------------------------------------------------------------------------------------- step 5: the run

CHOSEN_BY = "mutual_rate"  # the label-free measure that chooses the epoch; notebook 04 shows how it follows recall


def curriculum(
    data: Dataset, config: Curriculum, truth: Parts, folder: Path, *, pretrained: Path | None,
    hard: NeighbourDraw | None = None, progress: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Step 5, on the encoders of `pretrain`.

    Args:
        data: unlabelled.
        config: the method, or a part of it.
        truth: given labels are drawn from its training part, `label_ratio` of them; the rest is for measures alone.
        folder: to write to.
        pretrained: folder of `pretrain`; None begins with random weights.
        hard: ours: batches of pairs whose tiles are similar, by the encoders of the epoch, which need no label for it.
        progress: show bars.

    Returns:
        "rows", a row an epoch with labels found, the part that was right (`correct`), label-free measures and recall
        after it; "epoch" chosen without labels (with all labels given: the last); "recall" there; "best_recall", where
        labels would have chosen.

    Raises:
        NoPseudoLabels: none was found, and none given.
    """
    model = new_model(config.start).to(device())
    if pretrained is not None:
        load_model(model, pretrained / BEST)
    seed = None if config.label_order == "file" else config.seed
    given = given_subset(truth.train.positives.best(), config.label_ratio, seed=seed)
    rows = train_on_pseudo_labels(model, data, config, folder, given=given, truth=truth, hard=hard, progress=progress)
    epoch = chosen_epoch(rows, config)
    best = max(rows, key=lambda row: row.get("test_r_at_1", 0.0))
    return {"rows": rows, "epoch": epoch, "recall": _tested(rows[epoch]), "best_recall": _tested(best)}


def train_on_pseudo_labels(
    model: TwoViewEncoder, data: Dataset, config: Curriculum, folder: Path, *, given: Tensor, truth: Parts | None,
    hard: NeighbourDraw | None = None, progress: bool = True,
) -> list[Row]:  # fmt: skip
    """Step 5 on a model as it stands; the weights of the epoch chosen without labels are saved in `folder`.

    Args:
        model: begins with whatever it has learnt.
        data: unlabelled.
        config: the rule, the training; what it says of the start is not looked at.
        folder: of a stage.
        given: (N,) int64 labels that are given, -1 where none is.
        truth: for measures that choose nothing; None where nothing is known.
        hard: as in `curriculum`.
        progress: show bars.

    Raises:
        NoPseudoLabels: none was found, and none given.
    """
    task = PseudoPairs(data, given, config, hard)
    watch = _Follow(task, truth, folder)
    return train(model, task, config.training, folder, name="curriculum", after_epoch=watch, progress=progress)


def _mines(config: Curriculum) -> bool:
    """Whether anything is left to mine."""
    return config.mine and config.label_ratio < 1


def chosen_epoch(rows: list[Row], config: Curriculum) -> int:
    """The epoch of the highest label-free measure, the later of equals; the last where labels alone are trained on."""
    if not _mines(config):
        return len(rows) - 1
    return max(range(len(rows)), key=lambda epoch: (rows[epoch][CHOSEN_BY], epoch))


def _tested(row: Row) -> dict[str, float]:
    return {name.removeprefix("test_"): value for name, value in row.items() if name.startswith("test_")}


@dataclass
class _Follow:
    """After an epoch: measures, and the weights kept if they are the best yet by the label-free measure."""

    task: PseudoPairs
    truth: Parts | None
    folder: Path
    best: tuple[float, int] = (-math.inf, -1)

    def __call__(self, epoch: int, model: nn.Module) -> dict[str, float]:
        config = self.task.config
        measures = quality(neighbours(self.task.look(model))) if _mines(config) else {}
        score = measures.get(CHOSEN_BY, float(epoch))
        self._remember()
        if (score, epoch) >= self.best:
            self.best = (score, epoch)
            save_model(model, self.folder / BEST)
            _write_best(self.folder, self.best)
        labels = self.task.labels
        mined = int(((labels.satellite >= 0) & ~labels.given).sum())
        counts = {"labels": float(mined)}
        if self.truth is not None:
            positives = self.truth.train.positives
            right = correctness(labels, positives.pairs(), torch.tensor(positives.known))
            counts["correct"] = 0.0 if math.isnan(right) else right * mined
        return counts | measures | _recall(model, config.start, self.truth, centre=config.centre)

    def _remember(self) -> None:
        """A resumed run goes on from the best epoch of before."""
        if self.best[1] < 0:
            self.best = _read_best(self.folder)


def _write_best(folder: Path, best: tuple[float, int]) -> None:
    write_json(folder / "best.json", {"score": best[0], "epoch": best[1]})


def _read_best(folder: Path) -> tuple[float, int]:
    path = folder / "best.json"
    if not path.exists():
        return (-math.inf, -1)
    then = json.loads(path.read_text(encoding="utf-8"))
    return (then["score"], then["epoch"])
