"""What notebooks 02 to 04 show: pictures of each step, lists of neighbours, sweeps over the rules of mining."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Generator, Tensor

from ucvgl import reranking
from ucvgl.augment import augment, jitter_pose, to_float
from ucvgl.data.container import Parts, Positives
from ucvgl.lab import published
from ucvgl.lab.cache import StageResult
from ucvgl.lab.profiles import UcvglSettings
from ucvgl.lab.results import WORLD
from ucvgl.lab.score import Comparison
from ucvgl.lab.stages import gan_folder
from ucvgl.lab.variants import translated
from ucvgl.methods.ucvgl import (
    Descriptors,
    Pretraining,
    describe,
    fake_satellites,
    neighbours,
    new_model,
    pretrained_model,
)
from ucvgl.positions import Metres
from ucvgl.pseudo_labels import MiningRule, PseudoLabels, margins, mutual, select, threshold_at
from ucvgl.search import BothWays
from ucvgl.studies.ucvgl_study import PARTS, found_and_right
from ucvgl.synthetic_top_view import synthetic_top_view
from ucvgl.world.rendering import CITY_GAP_M

SHOWN = (0, 40, 80, 120)  # places whose pictures are shown: of different drives
DRIVE = 64  # places along a drive whose similarities are drawn
LISTED = 5  # tiles retrieved for a row


# ---------------------------------------------------------------------------------------------------- notebook 02: pictures


def shown(count: int) -> list[int]:
    """The places to show among `count`."""
    return sorted({place % count for place in SHOWN})


def pair_sheet(given: Parts) -> dict[str, list[Tensor]]:
    """Panorama, top view and tile of a few places that are trained on. Pairs are known to this picture alone."""
    rows, data = shown(len(given.train)), given.train
    best = data.positives.best()
    return {
        "panorama": [data.query[i] for i in rows],
        "top view": [data.top_view[i] for i in rows],
        "tile": [data.gallery[max(0, int(best[i]))] for i in rows],
    }


def augmentation_sheet(given: Parts, start: Pretraining) -> dict[str, list[Tensor]]:
    """Ground images and tiles, three augmentations of each, and with the pose moved as well."""
    rows = shown(len(given.train))[:2]
    pictures = torch.cat([given.train.top_view[rows], given.train.gallery[rows]])
    generator = Generator().manual_seed(0)
    versions = {f"version {k}": augment(pictures, start.augmentation, generator) for k in (1, 2, 3)}
    if start.pose is not None:
        versions["pose moved"] = jitter_pose(to_float(pictures), start.pose, generator)
    return {"as it is": list(to_float(pictures)), **{name: list(images) for name, images in versions.items()}}


def synthetic_sheet(given: Parts, start: Pretraining) -> dict[str, list[Tensor]]:
    """Tiles, three synthetic top views of each, and, for the eye to compare, the real top views of the same rows."""
    rows = shown(len(given.train))[:3]
    tiles = to_float(given.train.gallery[rows])
    generator = Generator().manual_seed(0)
    versions = {
        f"synthetic {k}": list(synthetic_top_view(tiles, start.pose, start.occlusion, generator)) for k in (1, 2, 3)
    }
    return {"tile": list(tiles), **versions, "real top view": list(to_float(given.train.top_view[rows]))}


def fake_sheet(settings: UcvglSettings, given: Parts) -> dict[str, list[Tensor]]:
    """Top views, what each translation makes of them, and the true tile, which no translation has seen them beside."""
    rows = shown(len(given.train))
    kinds = {"statistics": "colours matched", "cyclegan": "CycleGAN"}
    starts = {name: translated(settings, kind) for kind, name in kinds.items()}
    unlabelled = given.unlabelled
    fakes = {name: fake_satellites(unlabelled, s, gan_folder(unlabelled, s)) for name, s in starts.items()}
    made = {name: [images[i] for i in rows] for name, images in fakes.items()}
    pairs = pair_sheet(given)
    return {"top view": pairs["top view"], **made, "tile": pairs["tile"]}


def similarities(settings: UcvglSettings, given: Parts, stage: StageResult | None) -> Tensor:
    """Cosines of all ground images and tiles that are held out, (N, M): with the encoders of a stage, or untrained ones."""
    start = settings.start
    model = new_model(start).eval() if stage is None else pretrained_model(stage.folder, start)
    held = given.test.without_labels()
    if len(held) > 4 * DRIVE:
        held = held.take(range(DRIVE), range(DRIVE))
    found = describe(model, held, start)
    return found.ground @ found.satellite.T


def first_places(similarity: Tensor) -> Tensor:
    """The places whose similarities are drawn: neighbours along the first drives."""
    return torch.arange(min(DRIVE, *similarity.shape))


def losses(stage: StageResult) -> dict[str, list[dict[str, float]]]:
    """The rows of the two trainings of a cold start."""
    names = {"intra": "step 3: intra-view", "cross": "step 4: cross-view"}
    return {text: stage.numbers[name] for name, text in names.items() if stage.numbers[name]}


# ------------------------------------------------------------------------------------------- notebooks 03 and 04: retrieval


@dataclass(frozen=True, eq=False)
class Retrieved:
    """What was found for each ground image, and, for the eye, whether it is right.

    Args:
        found: the descriptors.
        both: the nearest of each, both ways.
        margin: (N,) first minus second similarity.
        mutual: (N,) bool.
        right: (N, k) bool, which of the nearest tiles are right.
    """

    found: Descriptors
    both: BothWays
    margin: Tensor
    mutual: Tensor
    right: Tensor


def retrieved(found: Descriptors, positives: Positives) -> Retrieved:
    """Neighbours, margins and what is right of them."""
    both = neighbours(found)
    index = both.ground_index
    right = np.zeros(tuple(index.shape), bool)
    for row, listed in enumerate(index.numpy()):
        known = positives[row]
        right[row] = np.isin(listed, known) if known is not None else False
    return Retrieved(found, both, margins(both), mutual(both), torch.from_numpy(right))


def row_sheet(given: Parts, held: Retrieved, *, wrong: int = 2, rights: int = 2) -> dict[str, object]:
    """Arguments of figures' retrieval rows: a few queries whose first tile is right, and a few whose is wrong."""
    data, first = given.test, held.right[:, 0]
    rows = [*first.nonzero()[:rights, 0].tolist(), *(~first).nonzero()[:wrong, 0].tolist()]
    return {
        "ground": [data.query[i] for i in rows],
        "top_views": [data.top_view[i] for i in rows],
        "retrieved": [[data.gallery[j] for j in held.both.ground_index[i].tolist()] for i in rows],
        "right": held.right[rows],
        "captions": [
            f"margin {float(held.margin[i]):.3f}, {'mutual' if held.mutual[i] else 'not mutual'}" for i in rows
        ],
    }


def right_first(held: Retrieved) -> Tensor:
    """(N,) bool, the nearest tile is right."""
    return held.right[:, 0]


# ----------------------------------------------------------------------------------------------- notebook 03: rules of mining

RULES = {
    "nearest": "the nearest tile, always",
    "threshold": "threshold alone",
    "mutual": "mutual matching alone",
    "both": "mutual matching and threshold: UCVGL",
    "csls": "ours: CSLS, mutual",
    "inverted": "ours: inverted softmax, mutual",
}


def rescored(found: Descriptors) -> dict[str, BothWays]:
    """Neighbours by the cosine, and by each of the further re-rankings."""
    ground, satellite = found.ground, found.satellite
    most = min(20, len(ground), len(satellite))
    k = (min(LISTED, most),) * 2
    return {
        "cosine": neighbours(found),
        "csls": reranking.csls_neighbours(ground, satellite, *k, k=min(10, most)),
        "inverted": reranking.inverted_softmax_neighbours(ground, satellite, *k),
    }


def _lists(rule: str, scores: dict[str, BothWays]) -> BothWays:
    return scores.get(rule, scores["cosine"])


def _rule(rule: str, threshold: float) -> MiningRule:
    return MiningRule(mutual=rule not in ("nearest", "threshold"), threshold=threshold)


def rule_table(found: Descriptors, given: Parts, threshold: float) -> pd.DataFrame:
    """A row a rule: labels found and right among the images trained on, and R@1 after the re-ranking."""
    scores = rescored(found)
    best = given.train.positives.best()
    rows = []
    for rule, name in RULES.items():
        both = _lists(rule, scores)
        labels = select(both, _rule(rule, threshold if rule in ("threshold", "both") else 0.0))
        first = 100 * float((both.ground_index[:, 0] == best).float().mean())
        rows.append({"part": rule, "rule": name, "r_at_1": first, **found_and_right(labels, given)})
    return pd.DataFrame(rows)


def rule_sweep(found: Descriptors, given: Parts, threshold: float) -> pd.DataFrame:
    """Coverage and precision of each rule over its own threshold: `rule`, `coverage`, `precision`, `chosen`."""
    scores, rows = rescored(found), []
    for rule in ("threshold", "both", "csls", "inverted"):
        both = _lists(rule, scores)
        steps = margins(both).double().quantile(torch.linspace(0, 0.99, 34).double()).tolist()
        chosen = threshold if rule == "both" else None
        for step in sorted({*(max(0.0, s) for s in steps), *([chosen] if chosen is not None else [])}):
            counts = found_and_right(select(both, _rule(rule, step)), given)
            precision = counts["correct"] if counts["found"] else float("nan")
            rows.append({"rule": RULES[rule].removesuffix(": UCVGL"), "coverage": counts["labels"],
                         "precision": precision, "chosen": step == chosen})  # fmt: skip
    return pd.DataFrame(rows)


def map_arguments(given: Parts, labels: PseudoLabels, *, held_out: bool = False) -> dict[str, object] | None:
    """Arguments of figures' map of matches: where each ground image is, where its label puts it, whether that is right.

    None where the data set has no positions in metres. The world's cities lie 10 km apart: each gets a map of its own.
    """
    data = given.test if held_out else given.train
    at, tiles = data.query.positions, data.gallery.positions
    if at is None or tiles is None or not (isinstance(at.frame, Metres) and isinstance(tiles.frame, Metres)):
        return None
    some = labels.satellite >= 0
    here, to = torch.from_numpy(np.array(at.values)), torch.full((len(at), 2), torch.nan, dtype=torch.float64)
    to[some] = torch.from_numpy(np.array(tiles.values))[labels.satellite[some]]
    status = torch.where(some, (labels.satellite == data.positives.best()).long(), -1)
    if given.train.name != WORLD:
        corner = here.amin(0)
        return {"position": here - corner, "matched_position": to - corner, "status": status, "city": None}
    number = (here[:, 0] // CITY_GAP_M).long()
    elsewhere = some & ((to[:, 0] // CITY_GAP_M).nan_to_num().long() != number)
    to[elsewhere] = torch.nan  # its line would leave the map
    corner = torch.stack([number * CITY_GAP_M, torch.zeros(len(number))], -1).double()
    city = [f"city {n + 1}" for n in number.tolist()] if len(number.unique()) > 1 else None
    return {"position": here - corner, "matched_position": to - corner, "status": status, "city": city}


def without_lines(places: dict[str, object]) -> dict[str, object]:
    """The same map without lines to where wrong ones were put: with hundreds of them nothing else could be seen."""
    return {**places, "matched_position": torch.full_like(places["matched_position"], torch.nan)}


def all_nearest(held: Retrieved) -> PseudoLabels:
    """Every ground image labelled with its nearest tile."""
    return select(held.both, MiningRule(mutual=False, threshold=0.0))


# ------------------------------------------------------------------------------------------------- notebook 04: the curriculum


def epoch_frame(stage: StageResult, threshold: float) -> pd.DataFrame:
    """Labels, right ones, threshold and recall of each epoch."""
    rows = pd.DataFrame(stage.numbers["rows"])
    rows["threshold"] = [threshold_at(epoch, len(rows), threshold) for epoch in range(len(rows))]
    return rows.rename(columns={"test_r_at_1": "r_at_1"})


MEASURES = ("mutual_rate", "mean_margin", "cycle", "hubness")


def quality_frame(stages: Sequence[StageResult]) -> pd.DataFrame:
    """Label-free measures and true recall of each epoch of several runs."""
    rows = [row for stage in stages for key in ("cross", "rows") for row in stage.numbers.get(key, [])]
    frame = pd.DataFrame([row for row in rows if MEASURES[0] in row])
    return frame.rename(columns={"test_r_at_1": "r_at_1"})


def rank_correlations(frame: pd.DataFrame) -> dict[str, float]:
    """Spearman's correlation of each measure with recall; 0 where there are too few different values."""
    found = frame[[*MEASURES, "r_at_1"]].corr("spearman")["r_at_1"]
    return {name: float(found[name]) if np.isfinite(found[name]) else 0.0 for name in MEASURES}


def describe_stage(
    stage: StageResult, start: Pretraining, given: Parts, *, held_out: bool, centre: bool = True
) -> Descriptors:
    """Descriptors of the held-out part, or of the images trained on, by the encoders of a stage."""
    data = given.test if held_out else given.unlabelled
    return describe(pretrained_model(stage.folder, start), data, start, centre=centre)


# ------------------------------------------------------------------------------------------------------ published beside ours


def cold_start_published(frame: pd.DataFrame) -> dict[str, list[float | None]]:
    """The published columns of the cold-start table, for the rows of ours."""
    rows = [part if part in PARTS else None for part in frame["part"]]
    columns = ("cvusa_r_at_1", "cvact_r_at_1")
    out = {name: published.column("ucvgl_cold", name, rows=rows) for name in columns}
    for name in ("cvusa", "cvact"):
        rates = published.label_rates(name, rows=rows)
        out |= {f"{name}_labels": rates["labels"], f"{name}_correct": rates["correct"]}
    return out


def published_columns(table: str, frame: pd.DataFrame, columns: Sequence[str]) -> dict[str, list[float | None]]:
    """Published columns for the rows of ours, None where a row was not published."""
    known = set(published.frame(table)["row"])
    rows = [part if part in known else None for part in frame["part"]]
    return {name: published.column(table, name, rows=rows) for name in columns}


def comparison(table: str, ours: pd.DataFrame, columns: Sequence[str], gap: tuple[str, str] | None) -> Comparison:
    """What the scorecard takes: R@1 of our table beside published columns of one of UCVGL's."""
    pairs = [("r_at_1", column) for column in columns]
    return Comparison(ours, published.frame(table, key="part"), pairs, "part", "UCVGL", gap)


def rules_published(frame: pd.DataFrame) -> dict[str, list[float | None]]:
    """UCVGL's labels and correct ones after the full cold start, beside its rule; the other rules were not published."""
    rows = ["full" if part == "both" else None for part in frame["part"]]
    out: dict[str, list[float | None]] = {}
    for name in ("cvusa", "cvact"):
        rates = published.label_rates(name, rows=rows)
        out |= {f"{name}_labels": rates["labels"], f"{name}_correct": rates["correct"]}
    return out


def comparisons(
    main: pd.DataFrame, ratios: pd.DataFrame, ablation: pd.DataFrame, harder: pd.DataFrame | None
) -> dict[str, Comparison]:
    """Notebook 04's tables beside the published ones, with the ratio each of the paper's claims rests on."""
    both, gap = ("cvusa_r_at_1", "cvact_val_r_at_1"), ("no_curriculum", "full")
    hard = {} if harder is None else {"ablation_hard": comparison("ucvgl_rerank", harder, both, gap)}
    return {
        "main": comparison("ucvgl_main", main, both, ("ucvgl_s_0", "ucvgl_s_100")),
        "label_ratio": comparison("ucvgl_semi_cvact", ratios, both[1:], ("labels_10", "labels_100")),
        "ablation": comparison("ucvgl_rerank", ablation, both, gap),
        **hard,
    }
