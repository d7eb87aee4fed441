"""Tables of notebook 06: a line for each row, whose trainings the run cache keeps."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import torch

from ucvgl.data.container import Dataset, Parts
from ucvgl.lab.profiles import VgSslSettings
from ucvgl.lab.rows import chosen
from ucvgl.lab.stages import cold_start_with, learn, pretrain
from ucvgl.lab.variants import MINING as MINED
from ucvgl.lab.variants import pairs_rows, projector_rows, with_loss, without
from ucvgl.methods.curriculum import first_labels, label_counts
from ucvgl.methods.learner import METHODS, Method
from ucvgl.methods.ucvgl import pretrained_model
from ucvgl.methods.vg_ssl import evaluate, step_bytes, untrained_encoder

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


def main_table(
    settings: VgSslSettings, train: Dataset, tests: Mapping[str, Dataset], *, progress: bool = True
) -> pd.DataFrame:
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


def geopair_table(
    settings: VgSslSettings, train: Dataset, tests: Mapping[str, Dataset], *, progress: bool = True
) -> pd.DataFrame:
    """How pairs are made: every variant for one method; for the others that enter hard negatives, without them too."""
    lines = {key: (method, config) for key, method, config in pairs_rows(settings)}
    rows = []
    for key, (method, config) in chosen("06/geopair", lines).items():
        numbers = learn(train, config, tests, progress=progress).numbers
        text = VARIANTS[key.removeprefix(f"{method}_")]
        row = {"part": key, "method": NAMES[method][1], "pairs": text}
        rows.append(row | _columns(_only(numbers["recall"], "r_at_1")))
    return pd.DataFrame(rows)


def projector_table(
    settings: VgSslSettings, train: Dataset, tests: Mapping[str, Dataset], *, progress: bool = True
) -> pd.DataFrame:
    """Layers and width of the projector, for one method."""
    rows = []
    for key, config in chosen("06/projector", dict(projector_rows(settings))).items():
        numbers = learn(train, config, tests, progress=progress).numbers
        layers, width = config.loss.projector_layers, config.loss.projector_width
        part = {"part": key, "layers": layers, "width": width if layers else config.encoder.width}
        rows.append(part | _columns(_only(numbers["recall"], "r_at_1")) | {"std": numbers["std"]})
    return pd.DataFrame(rows)


def _only(recall: Mapping[str, Mapping[str, float] | None], name: str) -> dict[str, dict[str, float] | None]:
    return {test: None if measures is None else {name: measures[name]} for test, measures in recall.items()}


MINING = {
    "full": "triplet, negatives from all",
    "partial": "triplet, negatives from a part",
    "random": "triplet, any negatives",
}


def cost_table(
    settings: VgSslSettings, train: Dataset, tests: Mapping[str, Dataset], *, progress: bool = True
) -> pd.DataFrame:
    """Seconds an epoch, mining apart, and the memory of a step: the price of hard negatives. Medians over the epochs; on a
    GPU the peak memory of the whole training, too (a process's own depends on what ran in it before)."""
    configs = {NAMES[key][1]: config for key, config in settings.methods.items() if key != "triplet"}
    mined = chosen("06/cost", {f"triplet_{kind}": kind for kind in MINED}).values()
    configs = {MINING[kind]: replace(settings.methods["triplet"], mining=kind) for kind in mined} | configs
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


def pretraining_table(settings: VgSslSettings, given: Parts, *, progress: bool = True) -> pd.DataFrame:
    """UCVGL's cold start with each of the six losses as its intra-view pretraining, with InfoNCE, and with none."""
    other = settings.cold_start
    names = {"none": "none", "info_nce": "InfoNCE: UCVGL"}
    names |= {key: name for key, (method, name, _) in NAMES.items() if method != "triplet"}
    rows = []
    for key, name in chosen("06/pretraining_losses", names).items():
        if key in ("none", "info_nce"):
            start = other.start if key == "info_nce" else without(other.start, "no_intra_view")
            stage = pretrain(given.unlabelled, start, given, progress=progress)
        else:
            config = with_loss(settings, key, len(given.unlabelled))
            stage = cold_start_with(given.unlabelled, config, given, progress=progress)
        rows.append((key, name, stage))
    return pd.DataFrame(
        {"part": part, "intra_view": name, **stage.numbers["recall"]}
        | label_counts(
            first_labels(pretrained_model(stage.folder, other.start), given.unlabelled, other.curriculum), given
        )
        for part, name, stage in rows
    )


assert {method for method, _, _ in NAMES.values()} == set(METHODS)
