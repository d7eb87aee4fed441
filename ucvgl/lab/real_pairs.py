"""Real drone and satellite images without their pairs: University-1652's sample, five folds, in the run cache.

Adapted: UCVGL's curriculum (section 3.4) from ImageNet's encoder, on the unpaired images of the training folds. For 200 images
this differs from the paper: no step before it, one encoder for both views, its early stages and all batch statistics as
ImageNet left them, only labelled images in an epoch. All labels: the same budget on the true pairs."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.v2.functional import center_crop

from ucvgl import paths
from ucvgl.augment import Augmentation, PlacementJitter
from ucvgl.data import open_dataset
from ucvgl.data.container import ArrayImages, Dataset, Parts, Positives
from ucvgl.data.decoding import resize
from ucvgl.encoders import EncoderConfig, TwoViewEncoder, two_view_encoder
from ucvgl.lab.stages import StageResult, run_stage
from ucvgl.methods.common import device
from ucvgl.methods.curriculum import train_on_pseudo_labels
from ucvgl.methods.ucvgl import Curriculum, Descriptors, Pretraining, describe
from ucvgl.metrics import retrieval_measures
from ucvgl.pseudo_labels import MiningRule
from ucvgl.reranking import aligned
from ucvgl.training import Row, TrainingConfig

FOLDER = "university1652"  # below UCVGL_SAMPLES: satellite/ and drone/, one name a building
SAME = ("0167", "0118")  # two names of one building
METHODS = {
    "zero_shot": "ImageNet's encoder", "aligned": "ImageNet's encoder, PCA and Procrustes", "adapted": "adapted, 0 % labels",
    "supervised": "adapted, 100 % labels",
}  # fmt: skip
ENCODER = EncoderConfig("tf_efficientnet_lite0", "package", pooling="avg", image_px=(96, 96))
TRAINING = TrainingConfig(9, 32, 1e-3, warmup_epochs=0.5, clip_norm=5.0)
PLACEMENT = PlacementJitter(10.0, 0.15, 0.1, 1.0, "reflection")
AUGMENTATION = Augmentation(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05, grey=0.1, blur=0.3, dropout=0.3)


@dataclass(frozen=True)
class RealPairs:
    """All settings; chosen by label-free measures and by the held-out measures of fold 0."""

    encoder: EncoderConfig = ENCODER
    middle: float = 0.7  # part of a drone image's side that is kept, 90 of 128 px: it shows more ground than its tile
    frozen: int = 3  # the stem and so many groups of blocks stay as they are; half of the time, few of the weights
    folds: int = 5
    images: int = 250  # the first so many
    training: TrainingConfig = TRAINING
    rule: MiningRule = field(default_factory=MiningRule)  # mutual, margin 0.05 falling to 0: the paper's on CVUSA
    placement: PlacementJitter = PLACEMENT
    version: int = 1

    @property
    def curriculum(self) -> Curriculum:
        """No step before it, only labelled images in an epoch."""
        both = self.encoder, self.encoder
        start = Pretraining(*both, "top view", intra=None, cross=None, augmentation=AUGMENTATION, centre=True)
        return Curriculum(start, training=self.training, rule=self.rule, few=1.0, augmentation=AUGMENTATION,
                          placement=self.placement, warmup=0, seed=self.training.seed)  # fmt: skip


@dataclass(frozen=True)
class _OneFold:  # what the run cache keeps a fold by
    recipe: RealPairs
    fold: int


def at_hand() -> bool:
    """Whether the sample is below the folder of real samples."""
    return (paths.samples() / FOLDER).is_dir()


def read_sample(recipe: RealPairs) -> Dataset:
    """Drone images, their middles alone, and whole tiles; of a building with two names both are right."""
    data, px = open_dataset("pairs", paths.samples() / FOLDER), recipe.encoder.image_px
    rows = range(min(recipe.images, len(data)))
    names = [data.gallery.ids[i].rpartition(".")[0] for i in rows]
    building = [name.replace(*SAME) for name in names]
    positives = [[i, *(j for j in rows if j != i and building[j] == building[i])] for i in rows]
    drone = []
    for image in map(data.query.read, rows):
        middle = [side - 2 * round(side * (1 - recipe.middle) / 2) for side in image.shape[1:]]
        drone.append(resize(center_crop(image, middle), px))
    query, gallery = (ArrayImages(names, torch.stack(i)) for i in (drone, [data.gallery.read(i, px) for i in rows]))
    return Dataset("university1652-sample", "all", query, gallery, Positives.of(positives), top_view=query)


def folds_of(names: Sequence[str], count: int) -> Tensor:
    """Int64 (N,): the fold of each name, the same for every seed; names of one building in one, sizes differ by little."""
    buildings = sorted({name.replace(*SAME) for name in names})
    place = torch.randperm(len(buildings), generator=torch.Generator().manual_seed(0)).argsort()  # in a drawn order
    fold = dict(zip(buildings, place % count, strict=True))
    return torch.stack([fold[name.replace(*SAME)] for name in names])


def zero_shot(recipe: RealPairs) -> TwoViewEncoder:
    """The encoder as ImageNet left it, for both views, its early stages frozen. Its batch statistics stay as they are in training
    too: those of some forty pairs would be worse."""
    model = two_view_encoder(recipe.encoder, recipe.encoder, shared=True, seed=recipe.training.seed)
    backbone = model.ground.backbone
    for part in (backbone.conv_stem, backbone.bn1, *backbone.blocks[: recipe.frozen]):
        part.requires_grad_(False)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.register_forward_pre_hook(_keep_statistics)
    return model.to(device(), memory_format=torch.channels_last).eval()


def _keep_statistics(norm: nn.Module, _: object) -> None:
    norm.eval()


def adapted(truth: Parts, recipe: RealPairs, folder: Path, given: Tensor) -> tuple[TwoViewEncoder, Row]:
    """The encoder after the curriculum on unpaired images, and the row of its last epoch; given: (n,) all labels, or -1."""
    model, steps = zero_shot(recipe), replace(recipe.curriculum, label_ratio=float((given >= 0).any()))
    rows = train_on_pseudo_labels(model, truth.unlabelled, steps, folder, given=given, truth=truth, progress=False)
    return model.eval(), rows[-1]


def measured(found: Descriptors, positives: Positives) -> dict[str, dict[str, float]]:
    """R@1, R@5 and AP in percent: drone images among tiles (d2s), tiles among drone images (s2d)."""
    pairs = positives.pairs()  # of a building's two names both are right
    forth = retrieval_measures(found.ground, found.satellite, pairs, ks=(1, 5))
    return {"d2s": forth, "s2d": retrieval_measures(found.satellite, found.ground, pairs.flip(1), ks=(1, 5))}


def measure_fold(recipe: RealPairs, fold: int) -> StageResult:
    """Adapts on all folds but one and measures on that one, or finds it in the run cache. Its numbers: "measures" by method and
    direction, "labels" of the last epoch and how many are "right", "images" held out."""
    data = read_sample(recipe)
    held = folds_of(data.query.ids, recipe.folds) == fold
    return run_stage("real-pairs", _OneFold(recipe, fold), data.digest(), partial(_compute, data, recipe, held))


def _compute(data: Dataset, recipe: RealPairs, held: Tensor, folder: Path) -> dict[str, Any]:
    rows, draw = (~held).nonzero()[:, 0], torch.Generator().manual_seed(recipe.training.seed)
    ground, satellite = (rows[torch.randperm(len(rows), generator=draw)] for _ in range(2))  # says nothing of the pairs
    truth = Parts(data.take(ground, satellite), {})
    none, best = torch.full((len(rows),), -1), truth.train.positives.best()
    model, last = adapted(truth, recipe, folder / "adapted", none)
    taught, _ = adapted(truth, recipe, folder / "supervised", best)
    plain = replace(recipe.curriculum.start, centre=False)
    begun, *after = (describe(each, data, plain) for each in (zero_shot(recipe), model, taught))

    def centred(found: Descriptors) -> Descriptors:
        """Less the mean of the images adapted on, each view its own."""
        views = zip(found, (ground, satellite), strict=True)
        return Descriptors(*(F.normalize(values - values[some].mean(0), dim=1) for values, some in views))

    every = centred(begun), Descriptors(*aligned(*begun)), *map(centred, after)
    right = data.take(rows := held.nonzero()[:, 0], rows).positives
    found = [measured(Descriptors(each.ground[held], each.satellite[held]), right) for each in every]
    labels = [{"labels": round(last["labels"]), "right": round(last["correct"])}]
    return {"measures": dict(zip(METHODS, found, strict=True)), "labels": labels, "images": int(held.sum())}
