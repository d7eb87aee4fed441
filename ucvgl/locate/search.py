"""From street pictures and candidate tiles to places: project, find headings, adapt, retrieve, claim a probability.

Every step that takes time is a stage of the run cache, so that a stopped run goes on. No truth enters but through
`given`, the labels of pictures whose place the caller knows and wants to train on.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ucvgl.augment import roll_panoramas, turn_squares
from ucvgl.data.container import ArrayImages, Dataset, FileImages, Positives
from ucvgl.encoders import Encoder, TwoViewEncoder, embed
from ucvgl.errors import InputError
from ucvgl.lab.cache import run_stage
from ucvgl.locate.adapt import AdaptConfig, adapt, starting_model
from ucvgl.locate.candidates import Candidates
from ucvgl.locate.confidence import NEIGHBOURS, PICTURES, Calibration, Evidence, evidence, load_calibration, mass_beside
from ucvgl.locate.inputs import Inputs
from ucvgl.locate.pictures import Ground, Kind, Picture
from ucvgl.locate.views import StreetConfig, street_views
from ucvgl.methods.baselines import centred_by_domain
from ucvgl.methods.common import EMBED_BATCH
from ucvgl.methods.ucvgl import Descriptors, Pretraining, ground_input
from ucvgl.reranking import csls_neighbours
from ucvgl.search import top_k

WEIGHTS = Path(__file__).parents[1] / "weights"
IMAGES = "images.npy"  # in a stage's folder, (N, 3, h, w) uint8


@dataclass(frozen=True, eq=False)
class Search:
    """What a search for the pictures of one kind found."""

    kind: Kind  # of the pictures
    pictures: list[Picture]  # N
    images: Dataset  # the same, as the encoder is given them, and M candidates
    headings_deg: Tensor  # (N,) of the pictures' centres, known or found
    known: Tensor  # (N,) bool, which headings were known
    # (N, 4 D) and (M, 4 D) float16, whose inner product is the mean cosine of four quarter turns
    descriptors: Descriptors
    evidence: Evidence  # for each picture's best candidate
    rounds: list[dict[str, Any]]  # of adaptation

    @property
    def cosines(self) -> np.ndarray:
        """(N, M) float32 of each picture and each candidate."""
        return (self.descriptors.ground.float() @ self.descriptors.satellite.float().T).numpy()


def search(inputs: Inputs, kind: Kind, given: Tensor | None = None, *, progress: bool = True) -> Search:
    """Adapts the encoders to all usable pictures of a kind and searches the candidates for them.

    Args:
        inputs: checked.
        kind: which pictures.
        given: (N,) int64 candidates of pictures whose place is known, -1 elsewhere; None: none is.
        progress: show bars.

    Raises:
        InputError: fewer than two candidates, a file that cannot be read.
    """
    ground, candidates, street = inputs.ground, inputs.candidates, inputs.street
    if len(candidates) < 2:
        raise InputError(
            candidates.mosaic.root, expected="two candidates or more", found=len(candidates),
            todo="Add tiles, or give a smaller span or stride.",
        )  # fmt: skip
    headings = torch.from_numpy(ground.headings(kind))
    known = ~headings.isnan()
    pictures = street_images(ground, kind, headings.nan_to_num(0.0), street, progress=progress)
    tiles = tile_images(candidates, progress=progress)
    # panorama and top view are one, since an encoder reads one of them
    images = Dataset("locate", "all", pictures, tiles, Positives.unknown(len(pictures)), top_view=pictures)
    came, start = starting_model(inputs.adapt)
    if not bool(known.all()):
        turned = tile_turns(came, images, inputs.adapt)
        headings = find_headings(inputs, kind, headings, images, came, turned, progress=progress)
        pictures = street_images(ground, kind, headings, street, progress=progress)
        images = replace(images, query=pictures, top_view=pictures)
    upright = _embedded(came.ground, ground_input(images, start), roll_panoramas, 0)
    before = Descriptors(_centred(upright), _centred(tile_turns(came, images, inputs.adapt, 1)[0]))
    model, rounds = adapt(came, start, images, inputs.adapt, given, came=before, progress=progress)
    turned = tile_turns(model, images, inputs.adapt if model is came else None)
    after = Descriptors(picture_turns(model, images, start).half(), together(turned).half())
    exact = Descriptors(after.ground.float(), after.satellite.float())  # the CPU multiplies half precision slowly
    both = csls_neighbours(exact.ground, exact.satellite, min(NEIGHBOURS, len(candidates)), min(PICTURES, len(known)))
    mass = mass_beside(exact.ground, exact.satellite, candidates.centre_m, both.ground_index[:, 0].cpu().numpy())
    found = evidence(both, candidates.centre_m, mass)
    return Search(kind, ground.of_kind(kind), images, headings, known, after, found, rounds)


@dataclass(frozen=True)
class _Settings:
    """All that a stage depends on beside its images."""

    values: tuple[object, ...]


# ------------------------------------------------------------------------------------------------------- the descriptors


def picture_turns(model: TwoViewEncoder, images: Dataset, start: Pretraining) -> Tensor:
    """Descriptors (N, 4 D) of the pictures in all four quarter turns together, each turn centred.

    A cosine of these and of `tile_turns` is the mean of four, of the same pair turned together. The encoders were trained on
    such turns but do not answer the same to each, so the mean is surer: ours, worth 7 and 9 points of pictures placed in two
    cities.
    """
    ground = ground_input(images, start)
    turn = roll_panoramas if start.ground_is_panorama else turn_squares
    return together([_embedded(model.ground, ground, turn, quarters) for quarters in range(4)])


def tile_turns(model: TwoViewEncoder, images: Dataset, came: AdaptConfig | None, count: int = 4) -> list[Tensor]:
    """Descriptors (M, D) of the tiles in the first of four quarter turns, counter-clockwise.

    Those of encoders `came` as a file, which no imagery has changed yet, are made once for a set of tiles, in the run cache,
    in half precision: whatever pictures are searched for. None: they have been trained on the imagery.
    """

    def one(quarters: int) -> Tensor:
        return _embedded(model.satellite, images.gallery, turn_squares, quarters).cpu()

    def kept(quarters: int) -> Tensor:
        def compute(folder: Path) -> dict[str, int]:
            np.save(folder / "turn.npy", one(quarters).half().numpy(), allow_pickle=False)
            return {"tiles": len(images.gallery)}

        key = _Settings((Path(came.start).name, came.start_digest, quarters))
        stage = run_stage("tile-descriptors", key, images.gallery.source, compute)
        return torch.from_numpy(np.load(stage.folder / "turn.npy", allow_pickle=False)).float()

    return [one(quarters) if came is None else kept(quarters) for quarters in range(count)]


def _embedded(encoder: Encoder, images: ArrayImages, turn: Callable[[Tensor, Tensor], Tensor], quarters: int) -> Tensor:
    """(N, D) of all images, turned counter-clockwise by so many quarters."""
    parts = torch.arange(len(images)).split(EMBED_BATCH)
    return embed(encoder, (turn(images[rows], torch.full((len(rows),), quarters)) for rows in parts))


def together(turned: Sequence[Tensor]) -> Tensor:
    """(N, D) of each turn, centred, side by side at unit length."""
    return torch.cat([_centred(one) for one in turned], -1) / math.sqrt(len(turned))


def _centred(descriptors: Tensor) -> Tensor:
    return centred_by_domain(descriptors) if len(descriptors) > 1 else descriptors


def calibration_name(kind: Kind, *, searched: bool) -> str:
    """What the committed calibration of such pictures is called."""
    return f"{kind}{'-turned' * searched}"


def calibration_of(found: Search) -> Calibration:
    """The committed calibration that fits a search: by kind of picture, and by whether any heading was searched for."""
    return load_calibration(WEIGHTS / f"{calibration_name(found.kind, searched=not bool(found.known.all()))}.json")


# ---------------------------------------------------------------------------------------------------- pictures and tiles


def street_images(
    ground: Ground, kind: Kind, headings_deg: Tensor, street: StreetConfig, *, progress: bool = True
) -> ArrayImages:
    """The pictures of one kind as the encoder reads them, at headings (N,), from the run cache."""
    pictures = ground.of_kind(kind)
    names = [picture.file for picture in pictures]
    seen = tuple((p.fov_deg or 0.0, *(p.crop or ())) for p in pictures)
    key = _Settings((street, kind, tuple(headings_deg.tolist()), seen))

    def made() -> Iterator[tuple[slice, Tensor]]:
        for rows, views in street_views(ground, pictures, list(headings_deg[:, None]), street, progress=progress):
            yield rows, views[:, 0]

    digest = FileImages(ground.root, names, names).digest()
    return _stored("street-views", key, digest, (len(pictures), 3, *street.size_px), made())


def tile_images(candidates: Candidates, *, progress: bool = True) -> ArrayImages:
    """All candidates, from the run cache."""

    def made() -> Iterator[tuple[int, Tensor]]:
        for k in tqdm(range(len(candidates)), desc="cutting tiles", unit="tile", disable=not progress):
            yield k, candidates.read(k)

    key, size = _Settings((candidates.span_m, candidates.size_px)), candidates.size_px
    return _stored("candidates", key, candidates.digest(), (len(candidates), 3, size, size), made())


def _stored(
    stage: str, key: _Settings, data_id: str, shape: tuple[int, ...], made: Iterator[tuple[int | slice, Tensor]]
) -> ArrayImages:
    """Images of a shape, made part by part, in a folder of the run cache, and mapped from there."""

    def compute(folder: Path) -> dict[str, int]:
        out = np.lib.format.open_memmap(folder / IMAGES, "w+", np.uint8, shape)
        if hasattr(os, "posix_fallocate"):  # else a disk that fills up later would end the process instead of raising
            with (folder / IMAGES).open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, (folder / IMAGES).stat().st_size)
        for rows, pixels in made:
            out[rows] = pixels.numpy()
        out.flush()
        return {"images": shape[0]}

    folder = run_stage(stage, key, data_id, compute).folder
    pixels = np.load(folder / IMAGES, mmap_mode="c", allow_pickle=False)  # copy-on-write, and nothing writes
    return ArrayImages(tuple(map(str, range(len(pixels)))), torch.from_numpy(pixels), source=folder.name)


# --------------------------------------------------------------------------------------------------------------- headings


@torch.no_grad()
def find_headings(
    inputs: Inputs, kind: Kind, headings_deg: Tensor, images: Dataset, model: TwoViewEncoder, turned: Sequence[Tensor],
    *, progress: bool = True,
) -> Tensor:  # fmt: skip
    """Headings (N,) degrees, those that are NaN replaced by the turn at which a picture finds its best candidate.

    Each such picture is embedded at all turns, centred on the mean over them and their turns, and the turn with the
    highest mean cosine to any candidate in its four quarter turns is taken. Ours.
    """
    ground, street, count = inputs.ground, inputs.street, inputs.request.turns
    blind = headings_deg.isnan()
    without = [picture for picture, lost in zip(ground.of_kind(kind), blind.tolist(), strict=True) if lost]

    def compute(folder: Path) -> dict[str, list[float]]:
        turns = torch.arange(count, dtype=torch.float64) * (360 / count)
        views = street_views(ground, without, [turns] * len(without), street, progress=progress)
        parts = (some for _, part in views for some in part.flatten(0, 1).split(EMBED_BATCH))
        alone = centred_by_domain(embed(model.ground, parts))
        alone = alone.view(len(without), count, -1)
        # a view of heading h turned counter-clockwise by a quarter is the view of heading h - 90
        query = torch.cat([alone.roll(k * count // 4, 1) for k in range(4)], -1).flatten(0, 1)
        score, _ = top_k(query, together(turned).to(query), 1)
        found = headings_deg.clone()
        found[blind] = turns[score.view(-1, count).argmax(1)]
        return {"headings_deg": found.tolist()}

    # with no epochs: the encoders are trained later
    key = _Settings((street, count, replace(inputs.adapt, epochs=0), tuple(headings_deg.nan_to_num(-1.0).tolist())))
    stage = run_stage("headings", key, images.digest(), compute)
    return torch.tensor(stage.numbers["headings_deg"], dtype=torch.float64)
