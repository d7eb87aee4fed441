"""From street pictures and candidate tiles to the evidence for places: project, find headings, adapt, retrieve.

Every step that takes time is a stage of the run cache, so that a stopped run goes on. No truth enters.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ucvgl.augment import roll_panoramas, turn_squares
from ucvgl.data.cache import mapped
from ucvgl.data.container import ArrayImages, Dataset, FileImages, Positives
from ucvgl.encoders import Encoder, TwoViewEncoder, embed
from ucvgl.errors import InputError
from ucvgl.lab.stages import run_stage
from ucvgl.locate.adapt import WORLD_WEIGHTS, AdaptConfig, adapt, starting_model
from ucvgl.locate.candidates import Candidates
from ucvgl.locate.confidence import Calibration, Evidence, evidence, load_calibration
from ucvgl.locate.inputs import Inputs
from ucvgl.locate.pictures import Kind, Picture
from ucvgl.locate.views import street_views
from ucvgl.methods.baselines import centred_by_domain
from ucvgl.methods.common import EMBED_BATCH
from ucvgl.methods.ucvgl import Descriptors, Pretraining
from ucvgl.search import top_k

SEARCHED = "heading searched for"  # the note of such a picture


@dataclass(frozen=True, eq=False)
class Search:
    """What a search for the pictures of one kind found."""

    pictures: list[Picture]  # N, each with its heading, known or found
    images: Dataset  # the same, as the encoder is given them, and M candidates
    descriptors: Descriptors  # of `describe_turns`, in half precision
    evidence: Evidence  # for each picture's best candidate
    calibration: Calibration  # the committed one that fits
    rounds: list[dict[str, Any]]  # of `adapt.adapt`

    @property
    def cosines(self) -> np.ndarray:
        """(N, M) float32 of each picture and each candidate."""
        return (self.descriptors.ground.float() @ self.descriptors.satellite.float().T).numpy()


def calibration_path(kind: Kind, *, searched: bool) -> Path:
    """The committed calibration of pictures of a kind, with their headings known, or some searched for."""
    return WORLD_WEIGHTS.with_name(f"{kind}{'-turned' * searched}.json")


def search(inputs: Inputs, kind: Kind, *, progress: bool = True) -> Search:
    """Adapts the encoders to all usable pictures of a kind and searches the candidates for them.

    InputError: fewer than two candidates, a file that cannot be read.
    """
    candidates, config = inputs.candidates, inputs.adapt
    if len(candidates) < 2:
        raise InputError(candidates.mosaic.root, expected="two candidates or more", found=len(candidates),
                         todo="Add tiles, or give a smaller span or stride.")  # fmt: skip
    model, start = starting_model(config)
    pictures, tiles = inputs.ground.of_kind(kind), tile_images(candidates)
    images = street_images(inputs, pictures, tiles)
    if searched := any(picture.heading_deg is None for picture in pictures):
        pictures = find_headings(inputs, pictures, images, model)
        images = street_images(inputs, pictures, tiles)
    before = describe_turns(model, images, start, config, count=1)
    adapted, rounds = adapt(model, start, images, config, before, progress=progress)
    after = describe_turns(adapted, images, start, config if adapted is model else None)
    half = Descriptors(after.ground.half(), after.satellite.half())
    # in single precision, since the CPU is slow in half
    found = evidence(half.ground.float(), half.satellite.float(), candidates.centre_m)
    return Search(pictures, images, half, found, load_calibration(calibration_path(kind, searched=searched)), rounds)


def describe_turns(
    model: TwoViewEncoder, images: Dataset, start: Pretraining, came: AdaptConfig | None = None, *, count: int = 4
) -> Descriptors:
    """Pictures (N, 4 D) and tiles (M, 4 D) in four quarter turns together, so that a cosine is the mean of four.

    The encoders were trained on such turns but do not answer the same to each, so the mean is surer: ours, worth 7 and
    9 points of pictures placed in two cities. count: of the turns, beginning with none; came: as of `in_turns`.
    """
    turn = roll_panoramas if start.ground_is_panorama else turn_squares
    pictures = in_turns(model.ground, images.query, turn, count)
    return Descriptors(pictures, in_turns(model.satellite, images.gallery, turn_squares, count, came))


def in_turns(
    encoder: Encoder, images: ArrayImages, turn: Callable[[Tensor, Tensor], Tensor], count: int = 4,
    came: AdaptConfig | None = None,
) -> Tensor:  # fmt: skip
    """Images (N, count D) in quarter turns counter-clockwise, each turn centred, side by side at unit length.

    Tiles by an encoder that `came` as a file, and no imagery has changed, are described once, whatever pictures are
    searched for, and kept in the run cache, each turn in half precision.
    """

    def described(quarters: int) -> Tensor:
        parts = torch.arange(len(images)).split(EMBED_BATCH)
        return embed(encoder, (turn(images[rows], torch.full((len(rows),), quarters)) for rows in parts))

    def kept(quarters: int) -> Tensor:
        def compute(folder: Path) -> dict[str, int]:
            np.save(folder / "turn.npy", described(quarters).half().numpy())
            return {"tiles": len(images)}

        key = _Settings((Path(came.start).name, came.start_digest, quarters))
        stage = run_stage("tile-descriptors", key, images.source, compute)
        return torch.from_numpy(np.load(stage.folder / "turn.npy")).float()

    turns = [described(quarters) if came is None else kept(quarters) for quarters in range(count)]
    return torch.cat([centred_by_domain(one) if len(one) > 1 else one for one in turns], -1) / math.sqrt(count)


@torch.no_grad()
def find_headings(inputs: Inputs, pictures: list[Picture], images: Dataset, model: TwoViewEncoder) -> list[Picture]:
    """The pictures, those without a heading at the turn at which they find their best candidate. Ours.

    Each of these is embedded at all turns, centred on the mean over them and their turns, and the turn with the
    highest mean cosine to any candidate in its four quarter turns is taken.
    """
    count, missing = inputs.request.turns, [picture for picture in pictures if picture.heading_deg is None]

    def compute(folder: Path) -> dict[str, list[float]]:
        turns = torch.arange(count, dtype=torch.float64) * (360 / count)
        views = street_views(inputs.ground, missing, [turns] * len(missing), inputs.street)
        parts = (some for part in views for some in part.flatten(0, 1).split(EMBED_BATCH))
        each = centred_by_domain(embed(model.ground, parts)).view(len(missing), count, -1)
        # a view of heading h turned counter-clockwise by a quarter is the view of heading h - 90
        query = torch.cat([each.roll(k * count // 4, 1) for k in range(4)], -1).flatten(0, 1)
        score, _ = top_k(query, in_turns(model.satellite, images.gallery, turn_squares, 4, inputs.adapt), 1)
        best = iter(turns[score.view(-1, count).argmax(1)].tolist())
        return {"headings_deg": [next(best) if p.heading_deg is None else p.heading_deg for p in pictures]}

    known = tuple(-1.0 if picture.heading_deg is None else picture.heading_deg for picture in pictures)
    key = _Settings((inputs.street, count, replace(inputs.adapt, epochs=0), known))  # trained later, if at all
    found = run_stage("headings", key, images.digest(), compute).numbers["headings_deg"]
    return [
        picture
        if picture.heading_deg is not None
        else replace(picture, heading_deg=deg, notes=(*picture.notes, SEARCHED))
        for picture, deg in zip(pictures, found, strict=True)
    ]


@dataclass(frozen=True)
class _Settings:
    """All that a stage depends on beside its images."""

    values: tuple[object, ...]


def street_images(inputs: Inputs, pictures: list[Picture], tiles: ArrayImages) -> Dataset:
    """Pictures of one kind as the encoder reads them, at their headings (0 where none is known), and candidates."""
    root, street, names = inputs.ground.root, inputs.street, [picture.file for picture in pictures]
    headings = [picture.heading_deg or 0.0 for picture in pictures]
    seen = tuple((picture.fov_deg or 0.0, *(picture.crop or ())) for picture in pictures)
    key, shape = _Settings((street, pictures[0].kind, tuple(headings), seen)), (len(names), 3, *street.size_px)
    turns = list(torch.tensor(headings, dtype=torch.float64)[:, None])
    parts = (part[:, 0] for part in street_views(inputs.ground, pictures, turns, street))
    views = _stored("street-views", key, FileImages(root, names, names).digest(), shape, parts)
    # panorama and top view are one, since an encoder reads one of them
    return Dataset("locate", "all", views, tiles, Positives.unknown(len(names)), top_view=views)


def tile_images(candidates: Candidates) -> ArrayImages:
    """All candidates, from the run cache."""

    def cut() -> Iterator[Tensor]:
        yield from map(candidates.read, tqdm(range(len(candidates)), desc="cutting tiles", unit="tile", disable=None))

    key, shape = _Settings((candidates.span_m, candidates.size_px)), (len(candidates), 3, *[candidates.size_px] * 2)
    return _stored("candidates", key, candidates.digest(), shape, cut())


def _stored(stage: str, key: _Settings, data_id: str, shape: tuple[int, ...], parts: Iterable[Tensor]) -> ArrayImages:
    """Images of a shape, written part by part to a folder of the run cache, and mapped from there."""

    def compute(folder: Path) -> dict[str, int]:
        # not mapped: a full disk then raises, and does not end the process
        with (folder / "images.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            file.writelines(pixels.numpy().tobytes() for pixels in parts)
        return {"images": shape[0]}

    folder = run_stage(stage, key, data_id, compute).folder
    return ArrayImages(tuple(map(str, range(shape[0]))), mapped(folder, "images"), source=folder.name)
