"""Encoders for a user's own imagery: given encoders, trained further on it without labels.

UCVGL's step 5 without any truth; if fewer pictures and candidates choose each other after it, the given encoders stay.
"""

from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ucvgl.augment import PlacementJitter
from ucvgl.data.container import Dataset
from ucvgl.encoders import TwoViewEncoder, open_model
from ucvgl.errors import InputError
from ucvgl.lab.profiles import SMALL_AUGMENTATION
from ucvgl.lab.stages import run_stage
from ucvgl.methods.common import device, trained
from ucvgl.methods.curriculum import CHOSEN_BY, train_on_pseudo_labels
from ucvgl.methods.ucvgl import Curriculum, Descriptors, Pretraining, neighbours
from ucvgl.pseudo_labels import MiningRule, NoPseudoLabels, quality
from ucvgl.training import TrainingConfig

WORLD_WEIGHTS = Path(__file__).parents[1] / "weights" / "world.safetensors"  # of scripts/make_weights.py
EPOCHS = 10  # of training on one's own imagery


@dataclass(frozen=True)
class AdaptConfig:
    """How encoders are trained on one's own imagery."""

    start: str  # a checkpoint's path
    start_digest: str  # of that file, so that another file under its name is another training
    given: Literal["top view", "panorama"] = "top view"  # what the ground encoder reads
    epochs: int = EPOCHS  # of step 5; 0 leaves the encoders as they come
    learning_rate: float = 2e-4  # gentler than from scratch (2e-3), since the encoders know something already
    batch_size: int = 64  # pairs
    # part of the mutual matches that is believed at first, the best margins; it grows to all. UCVGL's threshold is for
    # one kind of encoder. In a city of the world 83 % of a tenth are right, 68 % of a quarter, 44 % of all
    keep: float = 0.25
    seed: int = 0  # of everything random

    def __post_init__(self) -> None:
        if not (isinstance(self.epochs, int) and self.epochs >= 0):
            raise InputError("epochs", expected="0 or more", found=self.epochs, todo="0 leaves the encoders alone.")


def starting_model(config: AdaptConfig) -> tuple[TwoViewEncoder, Pretraining]:
    """The encoders to begin with, and how they are used."""
    # channels last: convolutions take three fifths of the time on a CPU
    model = open_model(config.start).to(device(), memory_format=torch.channels_last).eval()
    return model, Pretraining(*model.configs, ground_input=config.given, intra=None, cross=None, centre=True)


def adapt(
    model: TwoViewEncoder, start: Pretraining, images: Dataset, config: AdaptConfig, came: Descriptors
) -> tuple[TwoViewEncoder, list[dict[str, Any]]]:  # fmt: skip
    """The encoders of `starting_model`, whose descriptors of the images are `came`, or a copy trained on these, and a
    round for those that came and for each epoch: name, pseudo-labels, `pseudo_labels.quality`, seconds."""
    before = quality(neighbours(came))
    rounds = [{"name": "as they came", "labels": None, **before, "seconds": 0.0}]
    if config.epochs == 0:
        return model, rounds
    asked = config.epochs, config.batch_size, config.learning_rate
    training = TrainingConfig(*asked, weight_decay=0.05, warmup_epochs=0.5, clip_norm=5.0, seed=config.seed)
    steps = Curriculum(
        start, training=training, smoothing=0.2, rule=MiningRule(threshold=0.0, keep=config.keep), warmup=0,
        placement=PlacementJitter(3.5, 0.075, 0.075, 1.0, "reflection"), augmentation=SMALL_AUGMENTATION,
        seed=config.seed,
    )  # fmt: skip
    learner, no_labels = deepcopy(model), torch.full((len(images),), -1)

    def compute(folder: Path) -> dict[str, Any]:
        rows = []
        with suppress(NoPseudoLabels):  # nothing matches: the encoders stay as they came, and the report says so
            rows = train_on_pseudo_labels(learner, images, steps, folder, given=no_labels, truth=None)
        return {"rows": rows}

    stage = run_stage("adapt", config, images.digest(), compute)
    for epoch, row in enumerate(stage.numbers["rows"], 1):
        measured = {key: row[key] for key in (*before, "seconds")}
        rounds.append({"name": f"epoch {epoch}", "labels": int(row["labels"])} | measured)
    is_better = len(rounds) > 1 and rounds[-1][CHOSEN_BY] >= before[CHOSEN_BY]
    return trained(learner, stage.folder) if is_better else model, rounds
