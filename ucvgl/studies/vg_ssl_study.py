"""Notebook 06: which drives, which encoder, for how long; and its tables, a row for each method or setting."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch

from ucvgl.data import detect_layout, open_dataset, parts
from ucvgl.data.container import Dataset, Parts, joined
from ucvgl.data.prepare import Preparation, prepare
from ucvgl.encoders import EncoderConfig
from ucvgl.errors import InputError
from ucvgl.lab.results import WORLD
from ucvgl.methods.learner import METHODS, Method, SslLoss, published
from ucvgl.methods.ucvgl import pretrain
from ucvgl.methods.vg_ssl import VgSsl, evaluate, learn, step_bytes, untrained_encoder
from ucvgl.studies import ucvgl_study
from ucvgl.studies.pretraining_losses import WithLoss, cold_start_with
from ucvgl.studies.ucvgl_study import first_labels, found_and_right
from ucvgl.training import TrainingConfig
from ucvgl.world.drives import HIT_M, DriveConfig, world_drives

LAPTOP_RATE: dict[Method, float] = {"moco": 5e-4, "simsiam": 2e-4}  # others 1e-3; chosen on drives of a third seed
HELD_OUT_SEED = 1000  # added to the seed of the cities that are trained on

# by the keys of the published tables: ours, as a reader sees it, and its family
NAMES: dict[str, tuple[Method, str, str]] = {
    "triplet": ("triplet", "Triplet", "hard negatives"),
    "simclr": ("simclr", "SimCLR", "contrastive"),
    "mocov2": ("moco", "MoCo v2", "contrastive"),
    "barlow_twins": ("barlow", "Barlow Twins", "information-maximising"),
    "vicreg": ("vicreg", "VICReg", "information-maximising"),
    "byol": ("byol", "BYOL", "self-distillation"),
    "simsiam": ("simsiam", "SimSiam", "self-distillation"),
}
UNTRAINED = "untrained"
# ours -> (the set it stands for, the published column's prefix)
TESTS = {
    "car": ("MSLS", "msls_val"),
    "hand_held": ("Pitts30k", "pitts30k"),
    "night": ("Tokyo 24/7", "tokyo247"),
    "season": ("Nordland", "nordland"),
}


@dataclass(frozen=True)
class Study:
    """All settings of a profile."""

    train: tuple[DriveConfig, ...]  # joined, as MSLS holds all seasons, hours and viewpoints
    tests: Mapping[str, DriveConfig]
    photo_px: tuple[int, int]
    methods: Mapping[str, VgSsl]  # by published key
    projectors: tuple[tuple[int, int], ...]  # layers and width of the projector table
    cold_start: ucvgl_study.Study  # UCVGL's, on the small budget of the table across the papers


def study(profile: str, seed: int, *, backbone: str = "resnet50") -> Study:
    """The settings of a profile: tiny, laptop or paper.

    Args:
        profile: tiny, laptop or paper; InputError for another.
        seed: of the world and of the training.
        backbone: of the paper profile: resnet50 (GeM, 1024 numbers) or deit_small (class token, 256).
    """
    match profile:
        case "tiny":
            train = DriveConfig("car", ("garden",), seed, 20, photo_px=(24, 32), city_size_m=256.0)
            encoder = EncoderConfig("test_efficientnet", depth=2, pooling="gem", width=16, image_px=(24, 32))
            training = TrainingConfig(epochs=2, batch_size=8, learning_rate=1e-3, weight_decay=0.05, seed=seed)
            return _study(profile, seed, train, 24, encoder, training, 256)
        case "laptop":
            styles = ("garden", "downtown", "canal", "old_town")
            train = DriveConfig("car", styles, seed, 300)
            encoder = EncoderConfig(
                "tf_efficientnet_lite0", "package", depth=4, pooling="gem", width=128, image_px=(48, 64)
            )
            training = TrainingConfig(epochs=4, batch_size=32, learning_rate=1e-3, weight_decay=0.05, warmup_epochs=0.5,
                                      clip_norm=5.0, seed=seed)  # fmt: skip
            return _study(profile, seed, train, 300, encoder, training, 4)
        case "paper":
            styles = ("garden", "downtown", "canal", "old_town")
            train = DriveConfig("car", styles, seed, 10_000, photo_px=(480, 640), city_size_m=2000.0, resolution_m=0.25)
            encoder = {
                "resnet50": EncoderConfig(
                    "resnet50.tv_in1k", "hub", pooling="unit_gem", width=1024, image_px=(480, 640)
                ),
                "deit_small": EncoderConfig(
                    "deit_small_distilled_patch16_224.fb_in1k", "hub", pooling="head", width=256, image_px=(224, 224)
                ),
            }
            if backbone not in encoder:
                raise InputError(
                    "backbone", expected="resnet50 or deit_small", found=repr(backbone), todo="Choose one."
                )
            training = TrainingConfig(
                epochs=30, batch_size=64 if backbone == "resnet50" else 32, learning_rate=1e-5, precision="bf16",
                prefetch=True, seed=seed,
            )  # fmt: skip
            return _study(profile, seed, train, 2000, encoder[backbone], training, 1)
    raise InputError("profile", expected="tiny, laptop or paper", found=repr(profile), todo="Choose one.")


def _study(
    profile: str,
    seed: int,
    train: DriveConfig,
    tested: int,
    encoder: EncoderConfig,
    training: TrainingConfig,
    shrink: int,
) -> Study:
    """`shrink`: by how much heads are narrower than the paper's."""
    tests = {kind: replace(train, kind=kind, seed=seed + HELD_OUT_SEED, places=tested) for kind in TESTS}
    plain = VgSsl(encoder, SslLoss("simclr"), training)
    match profile:
        case "laptop":
            # ImageNet's statistics: those of these small photos take R@1 from 50 to 31 before anything is learnt
            plain = replace(plain, queries=480, negatives=2, fixed_norms=True)
        case "paper":
            plain = replace(plain, queries=10_000, frozen=3 if encoder.backbone.startswith("resnet50") else 0)
    methods = {}
    for key, (method, _, _) in NAMES.items():
        loss = published(method)
        if shrink > 1:
            loss = replace(
                loss, projector_width=max(8, loss.projector_width // shrink),
                predictor_width=max(8, loss.predictor_width // shrink), queue=2 * train.places, momentum=0.99,
            )  # fmt: skip
        partial = method in ("simclr", "barlow", "vicreg")
        its_training = training
        if profile == "laptop":
            pairs_alone = method in ("moco", "byol", "simsiam")  # half of the images a query, so twice the epochs
            its_training = replace(training, epochs=training.epochs * (1 + pairs_alone),
                                   learning_rate=LAPTOP_RATE.get(method, training.learning_rate))  # fmt: skip
        methods[key] = replace(
            plain,
            loss=loss,
            training=its_training,
            geopair="partial" if partial else "random",
            pool=min(1000, 2 * train.places),
        )
    wide = 4096 // shrink
    layers, widths = ((0, 1, 2), (wide // 16,)) if profile == "laptop" else ((0, 1, 2, 3), (wide // 4, wide))
    projectors = tuple((n, max(8, wide // 2)) for n in layers) + tuple((2, max(4, w)) for w in widths)
    drives = tuple(replace(train, kind=kind) for kind in TESTS)
    return Study(drives, tests, encoder.image_px, methods, projectors, _small_budget(profile, seed))


def _small_budget(profile: str, seed: int) -> ucvgl_study.Study:
    """UCVGL's cold start with a third of its cross-view epochs."""
    settings = ucvgl_study.study(profile, seed)
    cross = replace(settings.start.cross, epochs=max(1, settings.start.cross.epochs // 3))
    return replace(settings, start=replace(settings.start, cross=cross))


# ----------------------------------------------------------------------------------------------------------------- data


def open_sets(settings: Study, data: str, *, progress: bool = True) -> tuple[Dataset, dict[str, Dataset]]:
    """What is trained on, and the test sets by name: drives of the world, or a data set's training and test part."""
    if data == WORLD:
        tests = {name: world_drives(config, progress=progress) for name, config in settings.tests.items()}
        drives = [world_drives(config, progress=progress) for config in settings.train]
        return joined(drives, "embedded world, all drives", HIT_M), tests
    size = Preparation(settings.photo_px, settings.photo_px)
    name = detect_layout(data)

    def opened(split: str) -> Dataset:
        return prepare(open_dataset(name, data, split).answerable(), size, progress=progress)

    test = opened("test")
    if "train" in parts(name, data):
        return opened("train"), {test.name: test}
    # a set that is there to be measured on, as Tokyo 24/7: trained on the world's drives
    drives = [prepare(world_drives(config, progress=progress), size, progress=progress) for config in settings.train]
    return joined(drives, "embedded world, all drives", HIT_M), {test.name: test}


# --------------------------------------------------------------------------------------------------------------- tables


def main_table(settings: Study, train: Dataset, tests: Mapping[str, Dataset], *, progress: bool = True) -> pd.DataFrame:
    """A row a method: recall on each test set as <set>_r_at_1 ..., missing where the embeddings collapsed; first the
    encoder as it was."""
    first = next(iter(settings.methods.values()))
    model = untrained_encoder(first)
    rows: list[dict[str, Any]] = [
        {"part": UNTRAINED, "method": "as ImageNet left it", "family": "none"}
        | _columns({name: evaluate(model, test) for name, test in tests.items()})
    ]
    for key, config in settings.methods.items():
        numbers = learn(train, config, tests, progress=progress).numbers
        _, name, family = NAMES[key]
        row = {"part": key, "method": name, "family": family}
        rows.append(row | _columns(numbers["recall"]) | {"std": numbers["std"], "collapsed": numbers["collapsed"]})
    return pd.DataFrame(rows)


def _columns(recall: Mapping[str, Mapping[str, float] | None]) -> dict[str, float]:
    return {f"{test}_{name}": value for test, measures in recall.items() for name, value in (measures or {}).items()}


VARIANTS = {
    "partial": "partial: with hard negatives as pairs",
    "random": "random: pairs alone",
    "no_augmentation": "partial, without crops and flips",
    "no_mask": "partial, near places count as negatives (as published)",
}


def variant(config: VgSsl, key: str) -> VgSsl:
    """The method of a row of the GeoPair table."""
    match key:
        case "partial":
            return replace(config, geopair="partial")
        case "random":
            return replace(config, geopair="random")
        case "no_augmentation":
            return replace(config, augment=False)
        case "no_mask":
            return replace(config, mask_near=False)
    raise InputError("variant", expected=f"one of {', '.join(VARIANTS)}", found=repr(key), todo="Choose one.")


def geopair_table(
    settings: Study, train: Dataset, tests: Mapping[str, Dataset], *, key: str = "simclr", progress: bool = True
) -> pd.DataFrame:
    """How pairs are made: every variant for one method; for the others that enter hard negatives, without them too."""
    rows = []
    for other, config in settings.methods.items():
        names = VARIANTS if other == key else ("partial", "random") if config.geopair == "partial" else ()
        for name in names:
            numbers = learn(train, variant(config, name), tests, progress=progress).numbers
            row = {
                "part": name if other == key else f"{other}_{name}",
                "method": NAMES[other][1],
                "pairs": VARIANTS[name],
            }
            rows.append(row | _columns(_only(numbers["recall"], "r_at_1")))
    return pd.DataFrame(rows)


def projector_table(
    settings: Study, train: Dataset, tests: Mapping[str, Dataset], *, key: str = "barlow_twins", progress: bool = True
) -> pd.DataFrame:
    """Layers and width of the projector, for one method."""
    rows = []
    for layers, width in settings.projectors:
        config = settings.methods[key]
        config = replace(config, loss=replace(config.loss, projector_layers=layers, projector_width=width))
        numbers = learn(train, config, tests, progress=progress).numbers
        part = {"part": f"{layers}x{width}", "layers": layers, "width": width if layers else config.encoder.width}
        rows.append(part | _columns(_only(numbers["recall"], "r_at_1")) | {"std": numbers["std"]})
    return pd.DataFrame(rows)


def _only(recall: Mapping[str, Mapping[str, float] | None], name: str) -> dict[str, dict[str, float] | None]:
    return {test: None if measures is None else {name: measures[name]} for test, measures in recall.items()}


MINING = {
    "full": "triplet, negatives from all",
    "partial": "triplet, negatives from a part",
    "random": "triplet, any negatives",
}


def cost_table(settings: Study, train: Dataset, tests: Mapping[str, Dataset], *, progress: bool = True) -> pd.DataFrame:
    """Seconds an epoch, mining apart, and the memory of a step: the price of hard negatives. Medians over the epochs; on a
    GPU the peak memory of the whole training, too (a process's own depends on what ran in it before)."""
    configs = {NAMES[key][1]: config for key, config in settings.methods.items() if key != "triplet"}
    configs = {text: replace(settings.methods["triplet"], mining=kind) for kind, text in MINING.items()} | configs
    rows = []
    for name, config in configs.items():
        numbers = learn(train, config, tests, progress=progress).numbers
        found = pd.DataFrame(numbers["rows"])[["seconds", "mining_seconds"]].median()
        part = f"{config.method}_{config.mining}" if config.method == "triplet" else config.method
        row = {
            "part": part,
            "method": name,
            "epoch_seconds": found["seconds"],
            "mining_seconds": found["mining_seconds"],
        }
        memory = {"step_mb": step_bytes(train, config) / 2**20}
        if torch.cuda.is_available():
            memory["peak_mb"] = numbers["peak_mb"]
        rows.append(row | memory | _columns(_only(numbers["recall"], "r_at_1")))
    return pd.DataFrame(rows)


def pretraining_table(settings: Study, given: Parts, *, progress: bool = True) -> pd.DataFrame:
    """UCVGL's cold start with each of the six losses as its intra-view pretraining, with InfoNCE, and with none."""
    other = settings.cold_start
    plain = {"none": replace(other.start, intra=None), "info_nce": other.start}
    names = {"none": "none", "info_nce": "InfoNCE: UCVGL"}
    rows = []
    for part, start in plain.items():
        rows.append((part, names[part], pretrain(given.unlabelled, start, given, progress=progress)))
    for key, (method, name, _) in NAMES.items():
        if method != "triplet":
            config = WithLoss(other.start, heads(settings.methods[key].loss, len(given.unlabelled)))
            rows.append((key, name, cold_start_with(given.unlabelled, config, given, progress=progress)))
    return pd.DataFrame(
        {"part": part, "intra_view": name, **stage.numbers["recall"]}
        | found_and_right(first_labels(stage, other.start, other.curriculum, given.unlabelled), given)
        for part, name, stage in rows
    )


def heads(loss: SslLoss, items: int) -> SslLoss:
    """A method's settings for a set of that many items: a queue of half of it at most."""
    return replace(loss, queue=min(loss.queue, max(1, items // 2)))


assert {method for method, _, _ in NAMES.values()} == set(METHODS)
