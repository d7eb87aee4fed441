"""From street pictures and candidate tiles to the evidence for places: project, find headings, adapt, retrieve.

Every step that takes time is a stage of the run cache, so that a stopped run goes on. No label enters: the encoders are
trained further by UCVGL's step 5; if fewer pictures and candidates choose each other after it, the given ones stay.
"""

from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ucvgl.augment import PlacementJitter
from ucvgl.data.container import ArrayImages, Dataset, FileImages, Positives
from ucvgl.data.prepare import mapped
from ucvgl.encoders import Encoder, TwoViewEncoder, embed, open_model
from ucvgl.errors import InputError
from ucvgl.lab.profiles import SMALL_AUGMENTATION
from ucvgl.lab.stages import run_stage
from ucvgl.locate.confidence import Calibration, Evidence, evidence, load_calibration
from ucvgl.locate.inputs import WORLD_WEIGHTS, AdaptConfig, Inputs
from ucvgl.locate.pictures import Kind, Picture, street_views
from ucvgl.methods.baselines import centred_by_domain
from ucvgl.methods.common import EMBED_BATCH, device, trained
from ucvgl.methods.curriculum import CHOSEN_BY, train_on_pseudo_labels
from ucvgl.methods.ucvgl import Curriculum, Descriptors, Pretraining, neighbours
from ucvgl.pseudo_labels import MiningRule, NoPseudoLabels, quality
from ucvgl.search import top_k
from ucvgl.training import TrainingConfig

SEARCHED = "heading searched for"  # the note of such a picture
TURNS = 24  # headings that are tried, a multiple of 4: 15 degrees apart, of which the encoders bear half


@dataclass(frozen=True, eq=False)
class Search:
    """What a search for pictures found."""

    pictures: list[Picture]  # N, each with its heading, known or found
    images: Dataset  # the same, as the encoder is given them, and M candidates
    descriptors: Descriptors  # of `describe_turns`, in half precision
    evidence: Evidence  # for each picture's best candidate
    calibration: Calibration  # the committed one that fits
    rounds: list[dict[str, Any]]  # of `adapt`

    @property
    def cosines(self) -> np.ndarray:
        """(N, M) float32 of each picture and each candidate."""
        return (self.descriptors.ground.float() @ self.descriptors.satellite.float().T).numpy()


def calibration_path(kind: Kind, *, searched: bool) -> Path:
    """The committed calibration of pictures of a kind, with their headings known, or some searched for."""
    return WORLD_WEIGHTS.with_name(f"{kind}{'-turned' * searched}.json")


def search(inputs: Inputs) -> Search:
    """Adapts the encoders to all pictures and searches the candidates for them. The calibration is that of photos if
    one is among the pictures. InputError: fewer than two candidates, a file that cannot be read."""
    candidates, config = inputs.candidates, inputs.adapt
    if len(candidates) < 2:
        todo = "Add tiles, or give a smaller span or stride."
        raise InputError(candidates.mosaic.root, "two candidates or more", len(candidates), todo)
    # channels last: convolutions take three fifths of the time on a CPU
    model = open_model(config.start).to(device(), memory_format=torch.channels_last).eval()
    pictures = list(inputs.ground.pictures)
    if searched := any(picture.heading_deg is None for picture in pictures):
        pictures = find_headings(inputs, pictures, model)
    headings_deg = torch.tensor([[picture.heading_deg] for picture in pictures], dtype=torch.float64)
    pixels = torch.cat([*street_views(inputs.ground, pictures, headings_deg, inputs.view)])[:, 0]
    views = ArrayImages([picture.file for picture in pictures], pixels)
    images = Dataset("locate", "all", views, candidates.images, Positives.unknown(len(views)), top_view=views)
    before = describe_turns(model, images, config, count=1)
    adapted, rounds = adapt(model, images, config, before)
    after = describe_turns(adapted, images, config if adapted is model else None)
    half = Descriptors(after.ground.half(), after.satellite.half())
    found = evidence(half.ground.float(), half.satellite.float(), candidates.centre_m)  # the CPU is slow in half
    kind = "photo" if any(picture.kind == "photo" for picture in pictures) else "panorama"
    calibration = load_calibration(calibration_path(kind, searched=searched))
    return Search(pictures, images, half, found, calibration, rounds)


def adapt(
    model: TwoViewEncoder, images: Dataset, config: AdaptConfig, came: Descriptors
) -> tuple[TwoViewEncoder, list[dict[str, Any]]]:  # fmt: skip
    """Encoders that came as a file, whose descriptors of the images are `came`, or a copy trained on these, and a
    round for those that came and for each epoch: name, pseudo-labels, `pseudo_labels.quality`, seconds."""
    before = quality(neighbours(came))
    rounds = [{"name": "as they came", "labels": None, **before, "seconds": 0.0}]
    if config.epochs == 0:
        return model, rounds
    start = Pretraining(*model.configs, ground_input=config.given, intra=None, cross=None, centre=True)
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
    return trained(stage.folder) if is_better else model, rounds


def describe_turns(
    model: TwoViewEncoder, images: Dataset, came: AdaptConfig | None = None, *, count: int = 4
) -> Descriptors:
    """Top views (N, 4 D) and tiles (M, 4 D) in four quarter turns together, so that a cosine is the mean of four:
    ours, worth 7 and 9 points of pictures placed in two cities. The other arguments are those of `in_turns`."""
    return Descriptors(in_turns(model.ground, images.top_view, None, count),
                       in_turns(model.satellite, images.gallery, came, count))  # fmt: skip


def in_turns(encoder: Encoder, images: ArrayImages, came: AdaptConfig | None = None, count: int = 4) -> Tensor:
    """Images (N, count D) in quarter turns counter-clockwise, each turn centred, side by side at unit length. Those of
    an encoder that `came` as a file, and that no imagery has changed, are kept in half precision in the run cache."""

    def described(quarters: int) -> Tensor:
        parts = torch.arange(len(images)).split(EMBED_BATCH)
        return embed(encoder, (images[rows].rot90(quarters, (2, 3)) for rows in parts))

    def from_cache(quarters: int) -> Tensor:
        key = Path(came.start).name, came.start_digest, quarters
        return _kept("tile-descriptors", key, images.digest(), lambda: described(quarters).half()).float()

    turns = map(described if came is None else from_cache, range(count))
    return torch.cat([centred_by_domain(one) if len(one) > 1 else one for one in turns], -1) / count**0.5


@torch.no_grad()
def find_headings(inputs: Inputs, pictures: list[Picture], model: TwoViewEncoder) -> list[Picture]:
    """The pictures, those without a heading with that of the turn, of TURNS, at which the mean cosine of its four
    quarter turns to any candidate is the highest; centred on the mean over these pictures and their turns. Ours."""
    tiles, missing = inputs.candidates.images, [picture for picture in pictures if picture.heading_deg is None]

    def find() -> Tensor:
        turns = torch.arange(TURNS, dtype=torch.float64) * (360 / TURNS)
        views = street_views(inputs.ground, missing, turns.expand(len(missing), -1), inputs.view)
        parts = (some for part in views for some in part.flatten(0, 1).split(EMBED_BATCH))
        each = centred_by_domain(embed(model.ground, parts)).view(len(missing), TURNS, -1)
        # a view of heading h turned counter-clockwise by a quarter is the view of heading h - 90
        query = torch.cat([each.roll(k * TURNS // 4, 1) for k in range(4)], -1).flatten(0, 1)
        score, _ = top_k(query, in_turns(model.satellite, tiles, inputs.adapt), 1)
        return turns[score.view(-1, TURNS).argmax(1)]

    key, names = (inputs.view, TURNS, inputs.adapt.start_digest, missing), [picture.file for picture in missing]
    data_id = f"{FileImages(inputs.ground.root, names, names).digest()}+{tiles.digest()}"
    found = iter(_kept("headings", key, data_id, find).tolist())
    return [
        picture if picture.heading_deg is not None
        else replace(picture, heading_deg=next(found), notes=(*picture.notes, SEARCHED))
        for picture in pictures
    ]  # fmt: skip


@dataclass(frozen=True)
class _Settings:
    """All that a stage depends on beside its images."""

    values: tuple[object, ...]


def _kept(stage: str, settings: tuple[object, ...], data_id: str, make: Callable[[], Tensor]) -> Tensor:
    """What `make` returns, from the run cache if it was made before."""

    def compute(folder: Path) -> dict[str, Any]:
        np.save(folder / "kept.npy", make().numpy())
        return {}

    return mapped(run_stage(stage, _Settings(settings), data_id, compute).folder, "kept")
