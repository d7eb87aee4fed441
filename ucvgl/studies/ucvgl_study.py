"""Notebooks 02 to 04: which world, which encoders, for how long; and the tables, a row for each variant of the method."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch

from ucvgl.augment import UCVGL, Pose
from ucvgl.data import detect_layout, open_dataset, parts
from ucvgl.data.container import Dataset, Parts
from ucvgl.data.prepare import Preparation, prepare
from ucvgl.encoders import EncoderConfig
from ucvgl.errors import InputError
from ucvgl.geometry import TopView
from ucvgl.lab.cache import StageResult
from ucvgl.lab.results import WORLD
from ucvgl.methods.baselines import centred_by_domain, pixel_descriptor
from ucvgl.methods.ucvgl import (
    Curriculum,
    Descriptors,
    Pretraining,
    Translation,
    curriculum,
    describe,
    evaluate,
    neighbours,
    pretrain,
    pretrained_model,
    translation,
)
from ucvgl.pseudo_labels import MiningRule, NoPseudoLabels, PseudoLabels, correctness, select
from ucvgl.synthetic_top_view import Occlusion
from ucvgl.training import TrainingConfig
from ucvgl.translation import CycleGanConfig
from ucvgl.world.difficulty import DEFAULT_LEVEL
from ucvgl.world.pairs import WorldConfig, world_pairs

HELD_OUT_SEED = 1000  # added to the seed of the cities that are trained on

# For 64-px images without a GPU, in minutes: the best balanced of four settings tried by eye, each once, on 1,000 images.
SMALL = CycleGanConfig(
    load_px=64, crop_px=64, channels=16, blocks=3, downsamplings=1, patch=2, residual=True, discriminator_channels=8,
    discriminator_layers=2, lambda_cycle=2.0, lambda_identity=0.0, lr=5e-4, batch=4, epochs=5, decay_epochs=5,
    steps_per_epoch=200,
)  # fmt: skip


@dataclass(frozen=True)
class Study:
    """All settings of a profile."""

    train: WorldConfig
    test: WorldConfig  # another city
    images: Preparation
    start: Pretraining
    curriculum: Curriculum
    gan: CycleGanConfig  # for the comparison of translations; what is used stands in `start`


def study(profile: str, seed: int, *, data: str = WORLD, level: str = DEFAULT_LEVEL) -> Study:
    """The settings of a profile.

    Args:
        profile: tiny, laptop or paper.
        seed: of the world and of the training.
        data: the world, or a data set's root: CVUSA, CVACT and VIGOR have their own projection and threshold.
        level: of the world's difficulty.
    """
    match profile:
        case "tiny":
            return _tiny(seed, level)
        case "laptop":
            return _laptop(seed, level)
        case "paper":
            return _paper(seed, level, data)
    raise InputError("profile", expected="tiny, laptop or paper", found=repr(profile), todo="Choose one.")


def _world(seed: int, level: str, train: int, test: int, city_m: float, **more: Any) -> tuple[WorldConfig, WorldConfig]:
    first = WorldConfig(("garden", "canal"), seed, train, difficulty=level, city_size_m=city_m, **more)
    return first, replace(first, styles=("garden",), seed=seed + HELD_OUT_SEED, places=test)


# a minute on two cores; chosen by how its fakes look and by the balance of its losses
SMALL_GAN = replace(SMALL, load_px=48, crop_px=48, epochs=3, decay_epochs=3, steps_per_epoch=150)
SMALL_AUGMENTATION = replace(UCVGL, jitter=0.8, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.075, grey=0.1,
                             blur=0.3, dropout=0.3)  # fmt: skip


def _small(
    seed: int, tile_px: int, epochs: tuple[int, int, int], batch: int, backbone: str, pretrained: str
) -> tuple[Preparation, Pretraining, Curriculum]:
    """Encoders that a laptop trains from scratch in a minute, on top views of `tile_px` pixels."""
    view = TopView.from_span(tile_px, 50.0)
    images = Preparation((tile_px, 2 * tile_px), (tile_px, tile_px), view)
    encoder = EncoderConfig(backbone, pretrained, depth=3, image_px=(tile_px, tile_px))
    training = TrainingConfig(batch_size=batch, learning_rate=2e-3, weight_decay=0.05, warmup_epochs=0.5, clip_norm=5.0,
                              seed=seed)  # fmt: skip
    intra, cross, last = (replace(training, epochs=count) for count in epochs)
    intra = replace(intra, learning_rate=5e-4)  # faster, and the two encoders lose what ImageNet gave them in common
    start = Pretraining(
        encoder, encoder, "top view", translation=Translation("statistics"), intra=intra, cross=cross,
        cross_smoothing=0.1, augmentation=SMALL_AUGMENTATION, pose=Pose(), occlusion=Occlusion(), seed=seed,
    )  # fmt: skip
    gentle = Pose(3.5, 0.075, 0.075)
    steps = Curriculum(start, training=last, rule=MiningRule(threshold=0.1), smoothing=0.2,
                       augmentation=SMALL_AUGMENTATION, pose=gentle, seed=seed)  # fmt: skip
    return images, start, steps


def _tiny(seed: int, level: str) -> Study:
    world = _world(seed, level, 48, 32, 256.0, spacing_m=12.0, panorama_px=64, tile_px=32, resolution_m=0.5)
    gan = replace(SMALL_GAN, load_px=32, crop_px=32, channels=8, blocks=1, epochs=1, decay_epochs=1, steps_per_epoch=4)
    images, start, steps = _small(seed, 32, (1, 2, 3), 16, "test_efficientnet", "none")
    # encoders that learnt next to nothing: without a lower threshold most rows would find no label at all
    return Study(*world, images, start, replace(steps, rule=MiningRule(threshold=0.02)), gan)


def _laptop(seed: int, level: str) -> Study:
    world = _world(seed, level, 2000, 1000, 1200.0, spacing_m=20.0, resolution_m=0.4)
    gan = replace(SMALL_GAN, seed=seed)
    return Study(*world, *_small(seed, 48, (2, 5, 10), 64, "tf_efficientnet_lite0", "package"), gan)


# by data set: field of view of the top view, first threshold, ground image; UCVGL's
PUBLISHED = {
    "cvusa": (175.0, 0.05, (384, 384)),
    "cvact": (170.0, 0.025, (384, 384)),
    "vigor": (170.0, 0.035, (384, 768)),
}


def _paper(seed: int, level: str, data: str) -> Study:
    name = "cvact" if data == WORLD else detect_layout(data)
    fov_deg, threshold, ground_px = PUBLISHED.get(name, PUBLISHED["cvact"])
    world = _world(seed, level, 35_532, 8_884, 6000.0, spacing_m=24.0, panorama_px=512, tile_px=384)
    if data == WORLD:
        view = TopView.from_span(384, 50.0)
        fov_deg, ground_px = view.fov_deg, (384, 768)
    images = Preparation(ground_px, (384, 384), TopView(384, fov_deg))
    satellite = EncoderConfig("convnext_small.fb_in22k_ft_in1k_384", "hub", drop_path=0.2, image_px=(384, 384))
    ground = replace(satellite, image_px=ground_px)
    # UCVGL's, but for fp32; a batch of 128 at 384 px needs more than 16 GB at once: 16 images of a view at a time, which
    # changes no gradient, for one more forward pass
    training = TrainingConfig(precision="bf16", chunk=16, prefetch=True, seed=seed)
    intra, cross, last = (replace(training, epochs=count) for count in (12, 16, 40))
    start = Pretraining(ground, satellite, intra=intra, cross=cross, seed=seed)
    share = 2 if name == "vigor" else 1  # VIGOR's tiles are shared; ours, the paper asks for one panorama a tile
    rule = MiningRule(threshold=threshold, share=share)
    steps = Curriculum(start, training=last, rule=rule, first_refresh=6, label_order="file", seed=seed)
    return Study(*world, images, start, steps, start.translation.gan)


def open_parts(data: str, train: WorldConfig, test: WorldConfig, *, progress: bool = True) -> Parts:
    """Training and test part of the embedded world, or of a data set that lies in the folder `data`.

    Raises:
        InputError: the folder's layout is not recognised, or it lacks a part.
    """
    if data == WORLD:
        return Parts(
            world_pairs(train, "train", progress=progress), {"test": world_pairs(test, "test", progress=progress)}
        )
    name = detect_layout(data)
    there = parts(name, data)
    # what the paper evaluates on is the validation part; VIGOR has none, and own folders have no pairs to measure by
    held_out = next((part for part in ("val", "test") if part in there), None)
    tests = {} if held_out is None else {held_out: open_dataset(name, data, held_out)}
    return Parts(open_dataset(name, data, "train"), tests)


def material(settings: Study, data: str, *, measured: bool = True, progress: bool = True) -> Parts:
    """Opens, renders or loads the data and projects it.

    Args:
        settings: of the profile.
        data: the world, or a data set's root.
        measured: tables are wanted, so pairs must be known in a part that is held out.
        progress: show bars.

    Raises:
        InputError: as `open_parts`; or no pairs to measure by.
    """
    opened = open_parts(data, settings.train, settings.test, progress=progress)
    if measured and not any(test.labelled for test in opened.tests.values()):
        raise InputError(
            data, expected="a held-out part with known pairs, for the notebook's tables", found="no pairs in this layout",
            todo="`ucvgl train curriculum --data ... --no-tables` trains without labels; recall cannot be measured.",
        )  # fmt: skip
    tests = {name: prepare(test, settings.images, progress=progress) for name, test in opened.tests.items()}
    return Parts(prepare(opened.train, settings.images, progress=progress), tests)


# --------------------------------------------------------------------------------------------------- notebook 02: the table

PARTS = {  # UCVGL's cold-start table, by the keys of the published one
    "no_projection": "(a) BEV projection",
    "no_fakes": "(b) fake satellite",
    "no_intra_view": "(c) intra-view SSL",
    "no_cross_view": "(d) cross-view SSL",
    "full": "(e) nothing: the full cold start",
}
OURS = "no_synthetic"  # a part of ours that the paper does not have
PIXELS = "pixels"  # no learning at all


def without(start: Pretraining, part: str) -> Pretraining:
    """The cold start with one part removed, by its key in PARTS, or OURS."""
    match part:
        case "no_projection":
            wide = (start.ground.image_px[0], 2 * start.ground.image_px[0])
            ground = replace(start.ground, image_px=wide) if start.ground_input == "top view" else start.ground
            return replace(start, projection=False, ground=ground)
        case "no_fakes":
            return replace(start, translation=Translation("none"))
        case "no_intra_view":
            return replace(start, intra=None)
        case "no_cross_view":
            return replace(start, cross=None)
        case "no_synthetic":
            return replace(start, occlusion=None)
        case "full":
            return start
    raise InputError("part", expected=f"one of {', '.join([*PARTS, OURS])}", found=repr(part), todo="Choose one.")


def first_labels(stage: StageResult, settings: Pretraining, steps: Curriculum, data: Dataset) -> PseudoLabels:
    """What the rule of the first epoch labels, with the encoders of the cold start."""
    found = describe(pretrained_model(stage, settings), data, settings, centre=steps.centre)
    return select(neighbours(found), steps.rule)


def found_and_right(labels: PseudoLabels, truth: Parts) -> dict[str, float]:
    """Labels found and right, as counts; `labels` of all ground images and `correct` of the labels, in percent."""
    positives = truth.train.positives
    right = correctness(labels, positives.pairs(), torch.tensor(positives.known)) if labels.count else 0.0
    return {
        "found": labels.count, "right": round(right * labels.count), "labels": 100 * labels.coverage,
        "correct": 100 * right,
    }  # fmt: skip


def cold_start_table(settings: Study, given: Parts, *, progress: bool = True) -> pd.DataFrame:
    """A row for each part removed, then ours without the synthetic top views, then plain pixels."""
    rows = []
    for part in (*PARTS, OURS):
        start = without(settings.start, part)
        stage = pretrain(given.unlabelled, start, given, progress=progress)
        labels = first_labels(stage, start, settings.curriculum, given.unlabelled)
        name = PARTS.get(part, "(f) synthetic top views, which are ours")
        rows.append({"part": part, "without": name, **stage.numbers["recall"], **found_and_right(labels, given)})
    rows.append({"part": PIXELS, "without": "all learning: pixels of the top view", **pixel_row(settings, given)})
    return pd.DataFrame(rows)


TRANSLATIONS = {
    "none": "none: the top view itself",
    "statistics": "colours matched to the tiles",
    "cyclegan": "CycleGAN",
}


def translated(settings: Study, kind: str) -> Pretraining:
    """The cold start with another way from the top view to the fake satellite image."""
    made = Translation(kind, settings.gan) if kind == "cyclegan" else Translation(kind)
    return replace(settings.start, translation=made)


def translation_table(settings: Study, given: Parts, *, progress: bool = True) -> pd.DataFrame:
    """Is a GAN needed? A row for each way to make fake satellite images, with the seconds that training it takes."""
    rows = []
    for kind, name in TRANSLATIONS.items():
        start = translated(settings, kind)
        stage = pretrain(given.unlabelled, start, given, progress=progress)
        labels = first_labels(stage, start, settings.curriculum, given.unlabelled)
        counts = found_and_right(labels, given)
        seconds = translation(given.unlabelled, start, progress=progress).seconds if kind == "cyclegan" else 0.0
        rows.append({"translation": name, **stage.numbers["recall"], **counts, "seconds": round(seconds, 1)})
    return pd.DataFrame(rows)


def pixel_row(settings: Study, given: Parts) -> dict[str, float]:
    """Recall and first labels of comparing blurred pixels of top view and tile, without any learning."""
    held, train = given.test, given.unlabelled
    labels = select(neighbours(pixels_of(train)), settings.curriculum.rule)
    return evaluate(pixels_of(held), given.test.positives) | found_and_right(labels, given)


def pixels_of(data: Dataset) -> Descriptors:
    """Blurred pixels of top views and tiles as descriptors."""
    return Descriptors(*(centred_by_domain(pixel_descriptor(views)) for views in (data.top_view[:], data.gallery[:])))


# ------------------------------------------------------------------------------------------------ notebook 04: the tables

MAIN = {
    "ucvgl_s_0": "0 %", "ucvgl_b_10": "10 %", "ucvgl_s_100": "100 %, no cold start",
    "pretrained_100": "100 %, after the cold start (not in the paper)",
}  # fmt: skip
RATIOS = {
    "labelled_only_10": "10 %, labelled part only", "labels_1": "1 %", "labels_5": "5 %", "labels_10": "10 %",
    "labels_20": "20 %", "labels_100": "100 %",
}  # fmt: skip
STEPS = {
    "no_mutual": "(a) mutual matching",
    "no_threshold": "(b) threshold filter",
    "no_curriculum": "(c) curriculum learning",
}


def supervised(steps: Curriculum) -> Curriculum:
    """All labels, the same encoder and budget, no cold start."""
    return replace(steps, label_ratio=1.0, pretrained=False)


def variant(steps: Curriculum, key: str) -> Curriculum:
    """The curriculum of a row of the tables, by its published key."""
    match key:
        case "ucvgl_s_0" | "full":
            return steps
        case "ucvgl_b_10":
            return replace(steps, label_ratio=0.1)
        case "ucvgl_s_100" | "labels_100":
            return supervised(steps)
        case "pretrained_100":
            return replace(steps, label_ratio=1.0)
        case "labelled_only_10":
            return replace(steps, label_ratio=0.1, pretrained=False, mine=False)
        case "labels_1" | "labels_5" | "labels_10" | "labels_20":
            return replace(steps, label_ratio=int(key.removeprefix("labels_")) / 100, pretrained=False)
        case "no_mutual":
            return replace(steps, rule=replace(steps.rule, mutual=False))
        case "no_threshold":
            return replace(steps, rule=replace(steps.rule, threshold=0.0))
        case "no_curriculum":
            return replace(steps, refresh=False)
    return replace(steps, start=without(steps.start, key))


def curriculum_row(steps: Curriculum, given: Parts, *, progress: bool = True) -> dict[str, float | None]:
    """Recall at the epoch chosen without labels, and beside it at the best; the labels of the last epoch.

    Where no label is found the encoders stay as the cold start left them.
    """
    try:
        found = curriculum(given.unlabelled, steps, given, progress=progress).numbers
    except NoPseudoLabels:
        recall = pretrain(given.unlabelled, steps.start, given, progress=progress).numbers["recall"]
        return {**recall, "chosen_with_labels_r_at_1": recall["r_at_1"], "labels": 0.0, "correct": None, "epoch": None}
    last = found["rows"][-1]
    count = len(given.unlabelled)
    return {
        **found["recall"], "chosen_with_labels_r_at_1": found["best_recall"]["r_at_1"],
        "labels": 100 * last["labels"] / count,
        "correct": 100 * last["correct"] / last["labels"] if last["labels"] else None, "epoch": found["epoch"] + 1,
    }  # fmt: skip


def curriculum_table(
    settings: Study, given: Parts, names: Mapping[str, str], column: str, *, progress: bool = True
) -> pd.DataFrame:
    """A row for each variant named, keyed as published in `part`, its text in `column`."""
    rows = []
    for key, name in names.items():
        steps = variant(settings.curriculum, key)
        rows.append({"part": key, column: name, **curriculum_row(steps, given, progress=progress)})
    return pd.DataFrame(rows)


def ablation_names() -> dict[str, str]:
    """The rows of the ablation: the parts of step 5, those of the cold start, and the full method."""
    parts = {key: f"cold start without {name[4:]}" for key, name in PARTS.items() if key != "full"}
    return STEPS | parts | {"full": "nothing: the full method"}


def harder_table(profile: str, seed: int, level: str = "hard", *, progress: bool = True) -> pd.DataFrame:
    """Plain pixels, the cold start, the curriculum without labels and with all, at a harder level of the world."""
    settings = study(profile, seed, level=level)
    given = material(settings, WORLD, progress=progress)
    stage = pretrain(given.unlabelled, settings.start, given, progress=progress)
    labels = first_labels(stage, settings.start, settings.curriculum, given.unlabelled)
    names = {"full": "UCVGL, 0 % labels", "labels_100": "100 % labels"}
    learnt = curriculum_table(settings, given, names, "method", progress=progress)
    rows = [
        {"part": PIXELS, "method": "pixels of the top view, no learning", **pixel_row(settings, given)},
        {
            "part": "cold_start",
            "method": "cold start",
            **stage.numbers["recall"],
            **found_and_right(labels, given),
        },
    ]
    kept = [name for name in rows[0] if name not in ("found", "right")]
    frame = pd.concat([pd.DataFrame(rows)[kept], learnt[[name for name in kept if name in learnt]]], ignore_index=True)
    frame.insert(0, "level", level)
    return frame


def harder_ablation(profile: str, seed: int, level: str = "hard", *, progress: bool = True) -> pd.DataFrame:
    """Step 5 with one part removed, at a harder level of the world, where the first labels are as few as published."""
    settings = study(profile, seed, level=level)
    given = material(settings, WORLD, progress=progress)
    names = STEPS | {"full": "nothing: the full method"}
    return curriculum_table(settings, given, names, "without", progress=progress)
