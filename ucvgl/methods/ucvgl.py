"""UCVGL (Li, Qian, Xia; CVPR 2024): from unpaired panoramas and satellite tiles to encoders that match them.

The paper's steps, each a function that writes to a folder and returns its numbers (`lab.stages` keeps them):
train_translation (step 2, after the projection of step 1), intra_view (3), pretrain (4), and in `curriculum` (5). No
step gets a label unless its settings give some; truth enters as `Parts`, for measures that choose nothing. Ours, off by
default: top views for the ground encoder; synthetic top views; centred descriptors; similar tiles in a batch. Differs:
the last epoch's weights are kept, officially the best by recall on labelled validation pairs."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor, nn

from ucvgl import augment
from ucvgl.checkpoints import prefixed
from ucvgl.data.container import ArrayImages, Dataset, Parts, Positives
from ucvgl.data.prepare import resized
from ucvgl.encoders import LOG_SCALE, EncoderConfig, TwoViewEncoder, save_model, two_view_encoder
from ucvgl.errors import check_fields, one_of
from ucvgl.heads import Learner, SslLoss
from ucvgl.losses import info_nce
from ucvgl.methods.baselines import centred_by_domain
from ucvgl.methods.common import BEST, device, embed_all, trained
from ucvgl.metrics import retrieval_measures
from ucvgl.pseudo_labels import QUALITY_K, MiningRule
from ucvgl.search import BothWays, both_ways
from ucvgl.training import Batch, Row, Task, TrainingConfig, train
from ucvgl.translation import CycleGanConfig, apply_statistics, centre_weight, fit_statistics, train_cyclegan, translate

VERSION = 3  # of what the stages compute: raised when their numbers change, so that no stage of before is loaded


@dataclass(frozen=True)
class Translation:
    """Step 2: how a top view becomes a fake satellite image."""

    kind: Literal["none", "statistics", "cyclegan"] = "cyclegan"  # UCVGL: cyclegan; colours matched to the tiles: ours
    gan: CycleGanConfig = field(default_factory=CycleGanConfig)

    def __post_init__(self) -> None:
        one_of("Translation.kind", self.kind, ("none", "statistics", "cyclegan"), "Choose one.")


@dataclass(frozen=True)
class Pretraining:
    """Steps 1 to 4: the cold start."""

    ground: EncoderConfig
    satellite: EncoderConfig
    # UCVGL: panorama; 'photo', ours: images of any shape that know no heading, without projection
    ground_input: Literal["panorama", "top view", "photo"] = "panorama"
    projection: bool = True  # step 1; without it the fake is made from the panorama, squeezed into the tile's square
    translation: Translation = field(default_factory=Translation)  # step 2
    # steps 3 and 4, of one optimiser and one cosine, UCVGL 12 and 16 epochs; None leaves a step out
    intra: TrainingConfig | None = field(default_factory=lambda: TrainingConfig(epochs=12))
    cross: TrainingConfig | None = field(default_factory=lambda: TrainingConfig(epochs=16, epochs_before=12))
    intra_smoothing: float = 0.1  # of the labels; UCVGL 0.1
    cross_smoothing: float = 0.3  # UCVGL 0.3
    augmentation: augment.Augmentation = augment.UCVGL
    placement: augment.PlacementJitter = augment.UCVGL_PLACEMENT  # of tiles and fakes
    second_placement: augment.PlacementJitter = augment.SECOND_VERSION  # of the second version of a tile in step 3
    occlusion: augment.Occlusion | None = None  # ours: tiles with synthetic top views in step 4; None as UCVGL
    centre: bool = False  # ours: subtract each view's mean descriptor before comparing; UCVGL raw cosines
    seed: int = 0
    version: int = VERSION

    def __post_init__(self) -> None:
        known = ("panorama", "top view", *([] if self.projection else ["photo"]))
        one_of("Pretraining.ground_input", self.ground_input, known, "Choose one; photos have no projection.")

    @property
    def moves(self) -> tuple[augment.Move, augment.Move]:
        """How ground image and tile follow a turn: panoramas roll, squares turn, photos and what they are paired with stay."""
        if self.ground_input == "photo":
            return "stay", "stay"
        return "roll" if self.ground_is_panorama else "turn", "turn"

    @property
    def ground_is_panorama(self) -> bool:
        """Whether the ground encoder is given panoramas; without the projection there is nothing else to give."""
        return self.ground_input != "top view" or not self.projection


@dataclass(frozen=True)
class Curriculum:
    """Step 5, on pseudo-labels, given labels or both."""

    start: Pretraining  # the encoders to begin with
    pretrained: bool = True  # False: begin with random weights, as for the supervised row
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(epochs=40))  # UCVGL 40 epochs
    rule: MiningRule = field(default_factory=MiningRule)
    mine: bool = True  # False: given labels alone
    refresh: bool = True  # mine before every epoch; False: once, from the encoders to begin with (no curriculum)
    warmup: int = 6  # epochs on given labels alone, before mining; skipped where none is given; UCVGL 6 of 40
    few: float = 0.4  # part of the ground images below which only the labelled ones are trained on; UCVGL 0.4
    smoothing: float = 0.1  # of the labels; UCVGL 0.1
    label_ratio: float = 0.0  # part of the labels given; UCVGL 0 to 1
    label_order: Literal["random", "file"] = "random"  # which are given: UCVGL the first in file order
    augmentation: augment.Augmentation = augment.UCVGL
    placement: augment.PlacementJitter = augment.UCVGL_PLACEMENT  # of tiles
    seed: int = 0
    version: int = VERSION

    def __post_init__(self) -> None:
        epochs = self.training.epochs
        check_fields(
            self, "Curriculum.", "Correct it.",
            ("label_ratio", 0 <= self.label_ratio <= 1, "a fraction, 0 to 1, not per cent"),
            ("warmup", 0 <= self.warmup < epochs, f"0 to less than {epochs}, the epochs: some are left to mine in"),
            ("mine", self.mine or self.label_ratio > 0, "true where no label is given: pseudo-labels are mined"),
        )  # fmt: skip


class Descriptors(NamedTuple):
    """Both views of a set of images, (N, D) and (M, D), ready to be compared by dot products."""

    ground: Tensor
    satellite: Tensor


def ground_input(data: Dataset, config: Pretraining) -> ArrayImages:
    """What the ground encoder is given: N images (3, H, W) uint8."""
    return data.query if config.ground_is_panorama else data.top_view


def describe(model: TwoViewEncoder, data: Dataset, config: Pretraining) -> Descriptors:
    """Embeds all images of both views; ours, with `config.centre`: less each view's mean (but of a view of one image)."""
    ground, satellite = embed_all(model.ground, ground_input(data, config)), embed_all(model.satellite, data.gallery)
    if config.centre:
        ground, satellite = (centred_by_domain(d) if len(d) > 1 else d for d in (ground, satellite))
    return Descriptors(ground, satellite)


def evaluate(found: Descriptors, positives: Positives) -> dict[str, float]:
    """Recall at 1, 5, 10 and 1 % of the gallery, in percent, over ground images whose tile is known."""
    measures = retrieval_measures(found.ground, found.satellite, positives.pairs())
    return {name: value for name, value in measures.items() if name.startswith("r_at_")}


def neighbours(found: Descriptors, k: int = QUALITY_K) -> BothWays:
    """The k nearest images of the other view, both ways (fewer where a view has fewer)."""
    return both_ways(found.ground, found.satellite, min(k, len(found.satellite)), min(k, len(found.ground)))


def fake_satellites(data: Dataset, config: Pretraining, gan: Path | None = None) -> Tensor:
    """A fake satellite image of each ground image: (N, 3, S, S) uint8; those of a GAN stand in the folder of its training."""
    if config.translation.kind == "cyclegan":
        return torch.from_numpy(np.load(gan / "fakes.npy", mmap_mode="c", allow_pickle=False))
    source = _translated_from(data, config)
    if config.translation.kind == "none":
        return source
    weight = centre_weight(data.gallery.size[0]) if config.projection else None
    return apply_statistics(source, fit_statistics(source, data.gallery[:], weight=weight))


def train_translation(data: Dataset, config: Pretraining, folder: Path) -> dict[str, float]:
    """Trains the CycleGAN of step 2 and translates every ground image, to fakes.npy; it has no numbers."""
    source = _translated_from(data, config)
    gan = train_cyclegan(source, data.gallery[:], config.translation.gan, folder, device())
    np.save(folder / "fakes.npy", translate(gan, source).cpu().numpy(), allow_pickle=False)
    return {}


def _translated_from(data: Dataset, config: Pretraining) -> Tensor:
    """Top views; without the projection, panoramas squeezed into the tiles' squares."""
    return data.top_view[:] if config.projection else resized(data.query[:], (data.gallery.size[0],) * 2)


@dataclass
class IntraView(Task):
    """Step 3: two augmentations of a ground image attract, and so do two of a tile; rows of the two are unpaired."""

    ground: ArrayImages
    tile: ArrayImages
    config: Pretraining

    def order(self, epoch: int, model: nn.Module, generator: Generator) -> Tensor:
        """Every ground image once."""
        return torch.randperm(len(self.ground), generator=generator)

    def batch(self, items: Tensor, generator: Generator) -> Batch:
        """Two versions of each ground image, the first mirrored, and of as many random tiles; which ground images they are."""
        tiles = torch.randperm(len(self.tile), generator=generator)[: len(items)]
        if len(tiles) < len(items):
            tiles = torch.randint(len(self.tile), (len(items),), generator=generator)
        config, images = self.config, (self.ground[items], self.tile[tiles])
        mirrored = [augment.move_together((v,), ("stay",), config.augmentation, generator)[0] for v in images]
        views = [augment.augment(version, config.augmentation, generator) for version in (mirrored[0], images[0])]
        first = augmented_tile(mirrored[1], config, generator)
        second = augmented_tile(images[1], config, generator, config.second_placement)
        return Batch((*views, first, second), (items,))

    def embed(self, model: TwoViewEncoder, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Four descriptors a row."""
        return *(model.ground(image) for image in inputs[:2]), *(model.satellite(image) for image in inputs[2:])

    def loss(self, model: TwoViewEncoder, embeddings: tuple[Tensor, ...], labels: tuple[Tensor, ...]) -> Tensor:
        """InfoNCE(ground, ground) + InfoNCE(tile, tile)."""
        return _info_nce_of_pairs(model, embeddings, self.config.intra_smoothing)


@dataclass(frozen=True)
class WithLoss:
    """The cold start with one of VG-SSL's six losses in step 3, which neither paper has: the heads are dropped before step 4, and
    no image is left out as a negative. Of `start`, its version tells old stages from new ones."""

    start: Pretraining
    loss: SslLoss
    version: int = 1  # of what the stage computes


class TwoLearners(nn.Module):
    """The encoders of both views, each with heads of its own."""

    def __init__(self, views: TwoViewEncoder, config: WithLoss, items: tuple[int, int]) -> None:
        super().__init__()
        seed = 2 * config.start.seed
        self.ground = Learner(views.ground, config.loss, seed, items[0])
        self.satellite = Learner(views.satellite, config.loss, seed + 1, items[1])


class IntraViewWith(IntraView):
    """Step 3 with one of the six losses, for each view by itself."""

    def embed(self, model: TwoLearners, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:  # type: ignore[override]
        """What the losses compare: the ground view's, then the satellite view's."""
        return *model.ground.compared(*inputs[:2]), *model.satellite.compared(*inputs[2:])

    def loss(self, model: TwoLearners, embeddings: tuple[Tensor, ...], labels: tuple[Tensor, ...]) -> Tensor:  # type: ignore[override]
        """Their sum."""
        half = len(embeddings) // 2
        return model.ground.loss(embeddings[:half], labels[0]) + model.satellite.loss(embeddings[half:], labels[0])

    def after_step(self, model: TwoLearners, progress: float) -> None:  # type: ignore[override]
        """The momentum encoders follow."""
        model.ground.follow()
        model.satellite.follow()


@dataclass
class CrossView(Task):
    """Step 4: a ground image and its own fake satellite image attract; ours: a tile and its own synthetic top view too."""

    ground: ArrayImages
    fake: Tensor
    tile: ArrayImages
    config: Pretraining
    order = IntraView.order  # every ground image once

    def batch(self, items: Tensor, generator: Generator) -> Batch:
        """Ground image and fake; tile and synthetic top view."""
        config = self.config
        of_ground, of_tile = config.moves
        how = of_ground, of_tile if config.projection else of_ground  # a squeezed panorama rolls
        images = self.ground[items], self.fake[items]
        ground, fake = augment.move_together(images, how, config.augmentation, generator)
        ground = augment.augment(ground, config.augmentation, generator)
        inputs = [ground, augmented_tile(fake, config, generator)]
        if config.occlusion is not None and config.projection:  # without it there is none to imitate
            drawn = torch.randint(len(self.tile), (len(items),), generator=generator)
            (tile,) = augment.move_together((self.tile[drawn],), ("turn",), config.augmentation, generator)
            view = augment.synthetic_top_view(augment.to_float(tile), config.occlusion, generator)
            inputs += [augment.augment(image, config.augmentation, generator) for image in (view, tile)]
        return Batch(tuple(inputs))

    def embed(self, model: TwoViewEncoder, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Two or four descriptors a row; a synthetic top view goes through whichever encoder reads top views."""
        reads_top_views = model.satellite if self.config.ground_is_panorama else model.ground
        encoders = (model.ground, model.satellite, reads_top_views, model.satellite)
        return tuple(encoder(image) for encoder, image in zip(encoders, inputs, strict=False))

    def loss(self, model: TwoViewEncoder, embeddings: tuple[Tensor, ...], labels: tuple[Tensor, ...]) -> Tensor:
        """InfoNCE(ground, own fake) + InfoNCE(synthetic top view, tile)."""
        return _info_nce_of_pairs(model, embeddings, self.config.cross_smoothing)


def _info_nce_of_pairs(model: TwoViewEncoder, embeddings: tuple[Tensor, ...], smoothing: float) -> Tensor:
    pairs = [embeddings[i : i + 2] for i in range(0, len(embeddings), 2)]
    return sum(info_nce(*pair, model.scale, label_smoothing=smoothing) for pair in pairs)  # type: ignore[return-value]


def augmented_tile(
    images: Tensor, config: Pretraining | Curriculum, generator: Generator, *first: augment.PlacementJitter
) -> Tensor:
    """Tiles or fakes (B, 3, S, S), placed by the settings' jitter (after the `first`) and augmented."""
    placements = [*first, config.placement]
    return augment.augment(images, config.augmentation, generator, hole=augment.SATELLITE_HOLE, placements=placements)


def new_model(config: Pretraining) -> TwoViewEncoder:
    """Encoders as they begin, from the seed; channels last, which convolutions run faster in on most devices."""
    model = two_view_encoder(config.ground, config.satellite, shared=False, seed=config.seed)
    return model.to(device(), memory_format=torch.channels_last)


def go_on_with(folder: Path) -> TwoViewEncoder:
    """The encoders that another step left; the temperature begins anew, as in the official code: each step's loss owns it."""
    model = trained(folder)
    model.log_scale.data.fill_(LOG_SCALE)
    return model


def intra_view(data: Dataset, config: Pretraining, folder: Path) -> dict[str, Any]:
    """Step 3; numbers: "rows", a row an epoch. What later steps do differently plays no part (see `intra_key`)."""
    model, task = new_model(config), IntraView(ground_input(data, config), data.gallery, config)
    rows = train(model, task, config.intra, folder, name="intra-view", keep_optimiser=True)
    save_model(model, folder / BEST)
    return {"rows": rows}


def intra_view_with(data: Dataset, config: WithLoss, folder: Path) -> dict[str, Any]:
    """Step 3 with another loss; numbers as `intra_view`'s."""
    start, views = config.start, new_model(config.start)
    model = TwoLearners(views, config, (len(data), len(data.gallery))).to(device())
    task = IntraViewWith(ground_input(data, start), data.gallery, start)
    whole = replace(start.intra, chunk=None)  # the projectors' batch norms want the whole batch
    rows = train(model, task, whole, folder, name=f"intra-view, {config.loss.method}")
    save_model(views, folder / BEST)
    return {"rows": rows}


def pretrain(
    model: TwoViewEncoder, data: Dataset, config: Pretraining, truth: Parts | None, folder: Path, *,
    after: Path | None = None, gan: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Step 4, unless it is left out, on a model (see `go_on_with`) that step 3 has trained, unless that is. `data` is unlabelled,
    `truth` for measures that choose nothing. after: folder of `intra_view`, whose optimiser step 4 goes on with; gan: folder of
    `train_translation`. Gives "cross", a row an epoch; "recall" of the held-out part, empty without truth."""
    rows: list[Row] = []
    if config.cross is not None:
        task = CrossView(ground_input(data, config), fake_satellites(data, config, gan), data.gallery, config)

        def follow(epoch: int, model: nn.Module) -> dict[str, float]:
            return prefixed("test_", held_out_recall(model, config, truth))

        rows = train(model, task, config.cross, folder, name="cross-view", after=after, after_epoch=follow)
    save_model(model, folder / BEST)
    return {"cross": rows, "recall": held_out_recall(model, config, truth)}


def intra_key(config: Pretraining) -> Pretraining:
    """The settings that step 3 depends on: rows that differ in later steps share it."""
    given = replace(config, ground_input="panorama" if config.ground_is_panorama else "top view", projection=True)
    later = replace(given, translation=Translation("none"), cross=None, cross_smoothing=0.0)
    return replace(later, occlusion=None, centre=False)


def held_out_recall(model: TwoViewEncoder, config: Pretraining, truth: Parts | None) -> dict[str, float]:
    """Recall on what is held out; nothing where no pairs are known, or nothing is held out."""
    if truth is None or not truth.tests:
        return {}
    return evaluate(describe(model, truth.test, config), truth.test.positives)
