"""Tables of notebooks 02 to 04: a line for each row, whose trainings the run cache keeps."""

from collections.abc import Mapping

import pandas as pd
import torch

from ucvgl.data.container import Dataset, Parts
from ucvgl.lab import rows as rows_of
from ucvgl.lab.cache import StageResult
from ucvgl.lab.material import material
from ucvgl.lab.profiles import UcvglSettings
from ucvgl.lab.profiles import ucvgl as study
from ucvgl.lab.results import WORLD
from ucvgl.lab.stages import curriculum, pretrain, translation
from ucvgl.lab.variants import translated, variant, without
from ucvgl.methods.baselines import centred_by_domain, pixel_descriptor
from ucvgl.methods.ucvgl import Curriculum, Descriptors, Pretraining, describe, evaluate, neighbours, pretrained_model
from ucvgl.pseudo_labels import NoPseudoLabels, PseudoLabels, correctness, select

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


def first_labels(stage: StageResult, settings: Pretraining, steps: Curriculum, data: Dataset) -> PseudoLabels:
    """What the rule of the first epoch labels, with the encoders of the cold start."""
    found = describe(pretrained_model(stage.folder, settings), data, settings, centre=steps.centre)
    return select(neighbours(found), steps.rule)


def found_and_right(labels: PseudoLabels, truth: Parts) -> dict[str, float]:
    """Labels found and right, as counts; `labels` of all ground images and `correct` of the labels, in percent."""
    positives = truth.train.positives
    right = correctness(labels, positives.pairs(), torch.tensor(positives.known)) if labels.count else 0.0
    return {
        "found": labels.count, "right": round(right * labels.count), "labels": 100 * labels.coverage,
        "correct": 100 * right,
    }  # fmt: skip


def cold_start_table(settings: UcvglSettings, given: Parts, *, progress: bool = True) -> pd.DataFrame:
    """A row for each part removed, then ours without the synthetic top views, then plain pixels."""
    rows = []
    names = rows_of.chosen("02/cold_start", PARTS | {OURS: "(f) synthetic top views, which are ours"})
    for part, name in names.items():
        start = without(settings.start, part)
        stage = pretrain(given.unlabelled, start, given, progress=progress)
        labels = first_labels(stage, start, settings.curriculum, given.unlabelled)
        rows.append({"part": part, "without": name, **stage.numbers["recall"], **found_and_right(labels, given)})
    rows.append({"part": PIXELS, "without": "all learning: pixels of the top view", **pixel_row(settings, given)})
    return pd.DataFrame(rows)


TRANSLATIONS = {
    "none": "none: the top view itself",
    "statistics": "colours matched to the tiles",
    "cyclegan": "CycleGAN",
}


def translation_table(settings: UcvglSettings, given: Parts, *, progress: bool = True) -> pd.DataFrame:
    """Is a GAN needed? A row for each way to make fake satellite images, with the seconds that training it takes."""
    rows = []
    for kind, name in rows_of.chosen("02/translation", TRANSLATIONS).items():
        start = translated(settings, kind)
        stage = pretrain(given.unlabelled, start, given, progress=progress)
        labels = first_labels(stage, start, settings.curriculum, given.unlabelled)
        counts = found_and_right(labels, given)
        seconds = translation(given.unlabelled, start, progress=progress).seconds if kind == "cyclegan" else 0.0
        rows.append({"translation": name, **stage.numbers["recall"], **counts, "seconds": round(seconds, 1)})
    return pd.DataFrame(rows)


def pixel_row(settings: UcvglSettings, given: Parts) -> dict[str, float]:
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
    settings: UcvglSettings, given: Parts, table: str, names: Mapping[str, str], column: str, *, progress: bool = True
) -> pd.DataFrame:
    """A row for each variant named of a table of `lab.rows`, keyed as published in `part`, its text in `column`."""
    rows = []
    for key, name in rows_of.chosen(table, names).items():
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
    learnt = curriculum_table(settings, given, "04/harder", names, "method", progress=progress)
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
    return curriculum_table(settings, given, "04/ablation_hard", names, "without", progress=progress)
