"""A real check: 250 pairs of drone and satellite images, zero-shot, and adapted without a pair label; five folds.

    python benchmarks/university_sample.py [--seed 0] [--no-supervised] [--out table.md]

University-1652's images are not part of this repository: the folder university1652 below UCVGL_SAMPLES holds satellite/
and drone/, 128 pixels, the same file name for the same building; 0118 and 0167 are one building.

Zero-shot: an ImageNet encoder (from a Python package), its averaged last features, each view's mean subtracted. Adapted:
UCVGL's curriculum (section 3.4) from there. Mutual nearest neighbours with a margin among the unpaired images of the
training folds become pairs, found anew before each epoch, and train the encoder with the soft InfoNCE. For 200 images
this differs from the paper: no fake satellite images and no step before, one encoder for both views, its early stages
and all batch statistics as ImageNet left them, only labelled images in an epoch, the last epoch taken unseen.

Each held-out building is sought among its fold's and among all 250; the means that are subtracted are of the training
folds. Supervised: the same budget on the true pairs. Prints a Markdown table; writes it only where --out says.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ucvgl import paths
from ucvgl.augment import Augmentation, PlacementJitter
from ucvgl.data import ArrayImages, Dataset, Positives, open_dataset
from ucvgl.data.decoding import resize
from ucvgl.encoders import EncoderConfig, TwoViewEncoder, two_view_encoder
from ucvgl.errors import InputError
from ucvgl.lab.results import device as device_name
from ucvgl.lab.results import versions
from ucvgl.methods.common import device
from ucvgl.methods.curriculum import PseudoPairs
from ucvgl.methods.ucvgl import Curriculum, Descriptors, Pretraining, describe
from ucvgl.metrics import retrieval_measures
from ucvgl.paths import write_text
from ucvgl.pseudo_labels import MiningRule, PseudoLabels, correctness
from ucvgl.training import TrainingConfig, train

SAME = (("0118", "0167"),)  # two names of one building
TUNED_ON = 0  # the fold whose held-out measures were looked at when the settings were chosen
DIRECTIONS = ("drone -> satellite", "satellite -> drone")
KS = (1, 5)
AUGMENTATION = Augmentation(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05, grey=0.1, blur=0.3, dropout=0.3)


@dataclass(frozen=True)
class Recipe:
    """All settings; chosen by label-free measures and by fold 0 (`TUNED_ON`), which the table therefore shows apart."""

    encoder: EncoderConfig = field(
        default_factory=lambda: EncoderConfig("tf_efficientnet_lite0", "package", pooling="avg", image_px=(128, 128))
    )
    middle: float = 0.7  # part of a drone image's side that is kept: it shows more ground than its tile
    frozen: int = 3  # the stem and so many groups of blocks stay as they are; half of the time, few of the weights
    folds: int = 5
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(9, 32, 1e-3, warmup_epochs=0.5, clip_norm=5.0)
    )
    rule: MiningRule = field(default_factory=MiningRule)  # mutual, margin 0.05 falling to 0: the paper's on CVUSA
    # beside the quarter turns of a pair
    placement: PlacementJitter = field(default_factory=lambda: PlacementJitter(10.0, 0.15, 0.1, 1.0, "reflection"))
    seed: int = 0

    @property
    def curriculum(self) -> Curriculum:
        """The settings of the curriculum: no step before it, only labelled images in an epoch."""
        start = Pretraining(
            self.encoder,
            self.encoder,
            "top view",
            intra=None,
            cross=None,
            augmentation=AUGMENTATION,
            centre=True,
            seed=self.seed,
        )
        return Curriculum(
            start, training=replace(self.training, seed=self.seed), rule=self.rule, few=1.0, augmentation=AUGMENTATION,
            placement=self.placement, warmup=0, seed=self.seed,
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- the images


def read_sample() -> Dataset:
    """The 250 pairs.

    Raises:
        InputError: no such folder.
    """
    data = open_dataset("pairs", paths.samples() / "university1652")
    row = {name: i for i, name in enumerate(data.gallery.ids)}
    rows = [positives.tolist() for positives in data.positives]
    for one, other in (*SAME, *(pair[::-1] for pair in SAME)):  # a building of two folders has two right images
        rows[row[f"{one}.jpg"]].append(row[f"{other}.jpg"])
    return replace(data, name="university1652-sample", positives=Positives.of(rows))


def pictures(views: Dataset, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """The middles of the drone images and the whole tiles, uint8 (N, 3, H, W) and (M, 3, H, W)."""
    size = recipe.encoder.image_px
    drone = [resize(middle_of(views.query.read(i), recipe.middle), size) for i in range(len(views.query))]
    return torch.stack(drone), torch.stack([views.gallery.read(i, size) for i in range(len(views.gallery))])


def middle_of(image: Tensor, part: float) -> Tensor:
    """The middle of (3, H, W), `part` of each side."""
    top, left = (round(side * (1 - part) / 2) for side in image.shape[1:])
    return image[:, top : image.shape[1] - top, left : image.shape[2] - left]


def folds_of(names: Sequence[str], same: Sequence[tuple[str, str]], count: int, seed: int) -> Tensor:
    """Int64 (N,): the fold of each name, 0 to count - 1, names of one building in one; sizes differ by little.

    Args:
        names: of the images, without ending.
        same: pairs of names of one building.
        count: of folds.
        seed: shuffles the buildings.

    Raises:
        InputError: fewer buildings than folds.
    """
    first = {second: first for first, second in same}
    buildings = sorted({first.get(name, name) for name in names})
    if len(buildings) < count:
        raise InputError("folds", expected=f"{count} buildings or more", found=len(buildings), todo="Make fewer folds.")
    order = torch.randperm(len(buildings), generator=torch.Generator().manual_seed(seed)).tolist()
    fold = {buildings[b]: place % count for place, b in enumerate(order)}
    return torch.tensor([fold[first.get(name, name)] for name in names])


@dataclass(frozen=True, eq=False)
class Unpaired:
    """The images adapted on, each view in an order of its own; `ground` and `satellite` say which they were."""

    images: Dataset
    ground: Tensor  # (n,) int64 rows of the drone images
    satellite: Tensor  # (m,) int64 rows of the tiles


def unpaired(drone: Tensor, tile: Tensor, rows: Tensor, seed: int) -> Unpaired:
    """The images at `rows` of both views, shuffled independently: no place in the one says anything of the other."""
    generator = torch.Generator().manual_seed(seed)
    ground, satellite = (rows[torch.randperm(len(rows), generator=generator)] for _ in range(2))
    return Unpaired(unlabelled(drone[ground], tile[satellite]), ground, satellite)


def unlabelled(drone: Tensor, tile: Tensor) -> Dataset:
    """Both views as a data set whose pairs nobody knows."""
    query, gallery = (ArrayImages(map(str, range(len(images))), images) for images in (drone, tile))
    return Dataset("university1652-sample", "unpaired", query, gallery, Positives.unknown(len(query)), top_view=query)


def reordered(positives: Positives, part: Unpaired) -> Positives:
    """The truth of the images adapted on, in their order; for measures, and for the supervised row."""
    place = {int(row): i for i, row in enumerate(part.satellite)}
    return Positives.of([[place[int(j)] for j in positives[int(i)] if int(j) in place] for i in part.ground])


# ----------------------------------------------------------------------------------------------------------- the encoders


@dataclass
class FineTuning(PseudoPairs):
    """UCVGL's step 5 with the batch statistics left as they are: those of some forty pairs would be worse."""

    def embed(self, model: TwoViewEncoder, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Two descriptors a row."""
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return super().embed(model, inputs)


def zero_shot(recipe: Recipe) -> TwoViewEncoder:
    """The encoder as ImageNet left it, for both views, its early stages frozen."""
    model = two_view_encoder(recipe.encoder, recipe.encoder, shared=True, seed=recipe.seed)
    if recipe.frozen:
        backbone = model.ground.backbone
        for part in (backbone.conv_stem, backbone.bn1, *backbone.blocks[: recipe.frozen]):
            part.requires_grad_(False)
    return model.to(device(), memory_format=torch.channels_last).eval()


def adapted(images: Dataset, recipe: Recipe, given: Tensor | None = None) -> tuple[TwoViewEncoder, list[PseudoLabels]]:
    """The encoder after the curriculum, and the labels of each epoch. Without `given` no label comes in here.

    Args:
        images: n drone images and m tiles, unpaired.
        recipe: the settings.
        given: (n,) int64, all labels, for the supervised row.
    """
    model, steps, labels = zero_shot(recipe), recipe.curriculum, []
    if given is not None:
        steps = replace(steps, label_ratio=1.0)
    task = FineTuning(images, torch.full((len(images),), -1) if given is None else given, steps)

    def remember(epoch: int, model: nn.Module) -> dict[str, float]:
        labels.append(task.labels)
        return {}

    with tempfile.TemporaryDirectory() as folder:
        train(model, task, steps.training, Path(folder), after_epoch=remember, progress=False)
    return model, labels


# ----------------------------------------------------------------------------------------------------------- the measures


def centred(found: Descriptors, part: Unpaired) -> Descriptors:
    """Descriptors of all images less the mean of the images adapted on, each view its own; of unit length."""
    views = ((found.ground, part.ground), (found.satellite, part.satellite))
    return Descriptors(*(F.normalize(values - values[rows].mean(0), dim=1) for values, rows in views))


def measured(
    found: Descriptors, positives: Positives, held: Tensor, ks: Sequence[int] = KS
) -> dict[tuple[str, str], dict[str, float]]:
    """R@k and AP in percent of the held-out rows, by (direction, gallery): 'fold', the held-out, and 'all'."""
    pairs = positives.pairs()  # of a building's two names, both are right
    out = {}
    for direction, query, gallery, right in (
        (DIRECTIONS[0], found.ground, found.satellite, pairs),
        (DIRECTIONS[1], found.satellite, found.ground, pairs.flip(1)),
    ):
        right = right[torch.isin(right[:, 0], held)]
        place = torch.full((len(gallery),), -1).index_put_((held,), torch.arange(len(held)))
        alone = torch.stack([place[right[:, 0]], place[right[:, 1]]], 1)
        out[direction, "fold"] = retrieval_measures(query[held], gallery[held], alone, ks=ks)
        out[direction, "all"] = retrieval_measures(query, gallery, right, ks=ks)
    return out


@dataclass(frozen=True, eq=False)
class Fold:
    """What one fold gave.

    Attributes:
        measures: of each method, as `measured`.
        labels: found in each epoch.
        right: how many of them were.
        model: adapted without labels.
    """

    measures: dict[str, dict[tuple[str, str], dict[str, float]]]
    labels: list[PseudoLabels]
    right: list[int]
    model: TwoViewEncoder


def run_fold(
    drone: Tensor, tile: Tensor, fold: Tensor, held_out: int, positives: Positives, recipe: Recipe, *, supervised: bool
) -> Fold:
    """Adapts on all folds but one and measures on that one; `positives` is for measures and the supervised row alone."""
    held = (fold == held_out).nonzero()[:, 0]
    part = unpaired(drone, tile, (fold != held_out).nonzero()[:, 0], recipe.seed)
    everything = unlabelled(drone, tile)

    def found(model: TwoViewEncoder) -> Descriptors:
        return describe(model, everything, replace(recipe.curriculum.start, centre=False))

    plain = found(zero_shot(recipe))
    model, labels = adapted(part.images, recipe)
    described = {
        "zero-shot, not centred": plain, "zero-shot": centred(plain, part), "adapted": centred(found(model), part)
    }  # fmt: skip
    truth = reordered(positives, part)
    known_pairs = truth.pairs(), torch.tensor(truth.known)
    if supervised:
        taught, _ = adapted(part.images, recipe, truth.best())
        described["supervised"] = centred(found(taught), part)
    right = [round(correctness(epoch, *known_pairs) * epoch.count) if epoch.count else 0 for epoch in labels]
    return Fold({name: measured(d, positives, held) for name, d in described.items()}, labels, right, model)


# -------------------------------------------------------------------------------------------------------------- the table


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation, the latter of a sample: '12.3 ± 4.5'."""
    numbers = torch.tensor(values, dtype=torch.float64)
    return f"{float(numbers.mean()):.1f} ± {float(numbers.std()):.1f}"


def gains(folds: Sequence[Fold], direction: str, gallery: str, measure: str) -> list[float]:
    """Adapted minus zero-shot, fold by fold."""
    both = ([f.measures[name][direction, gallery][measure] for f in folds] for name in ("adapted", "zero-shot"))
    return [after - before for after, before in zip(*both, strict=True)]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table, its first row the heading."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:]))


def summary(folds: Sequence[Fold]) -> str:
    """A row for each gallery, direction and measure: means over the folds, and the gain with its spread."""
    methods = list(folds[0].measures)
    others = [f for i, f in enumerate(folds) if i != TUNED_ON]
    rows = [["gallery", "direction", "measure", *methods, "gain", "gain without fold 0", "folds that gained"]]
    for gallery, words in (("fold", "the fold's images"), ("all", "all images")):
        for direction in DIRECTIONS:
            for measure, name in (("r_at_1", "R@1"), ("r_at_5", "R@5"), ("ap", "AP")):
                means = [sum(f.measures[m][direction, gallery][measure] for f in folds) / len(folds) for m in methods]
                gain = gains(folds, direction, gallery, measure)
                rows.append([
                    words, direction, name, *(f"{mean:.1f}" for mean in means), spread(gain),
                    spread(gains(others, direction, gallery, measure)), f"{sum(g > 0 for g in gain)} of {len(gain)}",
                ])  # fmt: skip
    return markdown(rows)


def by_fold(folds: Sequence[Fold]) -> str:
    """A row a fold: AP and R@1 among all images before and after, and the pseudo-labels of the first and last epoch."""
    rows = [["fold", *(f"{m}, {d}" for d in DIRECTIONS for m in ("R@1", "AP")), "first labels, right", "last, right"]]
    for i, fold in enumerate(folds):
        before, after = fold.measures["zero-shot"], fold.measures["adapted"]
        cells = [f"{before[d, 'all'][m]:.1f} -> {after[d, 'all'][m]:.1f}" for d in DIRECTIONS for m in ("r_at_1", "ap")]
        counts = [f"{fold.labels[e].count}, {fold.right[e]}" for e in (0, -1)]
        rows.append([f"{i}{' (settings chosen here)' if i == TUNED_ON else ''}", *cells, *counts])
    return markdown(rows)


def report(folds: Sequence[Fold], recipe: Recipe, images: int, seconds: float) -> str:
    """Both tables, with what they are of and where they were computed."""
    made_with = ", ".join(f"{name} {version}" for name, version in versions().items())
    return (
        f"Percent; means over {len(folds)} folds of {images} pairs; gain: adapted minus zero-shot, mean ± standard "
        f"deviation over the folds. Seed {recipe.seed}; {recipe.training.epochs} epochs. {device_name()}, "
        f"{torch.get_num_threads()} threads, {seconds:.0f} s. {made_with}.\n\n{summary(folds)}\n\n"
        f"Among all {images} images, zero-shot -> adapted, and the pseudo-labels found, by fold:\n\n{by_fold(folds)}\n"
    )


def main() -> None:
    """Runs the folds and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the training; the folds stay the same")
    parser.add_argument("--supervised", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path, help="also write the table there")
    asked = parser.parse_args()
    begun = time.perf_counter()
    recipe, views = Recipe(seed=asked.seed), read_sample()
    drone, tile = pictures(views, recipe)
    fold = folds_of([name.rpartition(".")[0] for name in views.query.ids], SAME, recipe.folds, 0)
    folds = []
    for held_out in range(recipe.folds):
        folds.append(run_fold(drone, tile, fold, held_out, views.positives, recipe, supervised=asked.supervised))
        print(f"fold {held_out}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    text = report(folds, recipe, len(drone), time.perf_counter() - begun)
    print(text)
    if asked.out:
        write_text(asked.out, text)


if __name__ == "__main__":
    main()
