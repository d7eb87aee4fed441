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
from ucvgl.data.container import ArrayImages, Dataset, FileImages, Positives
from ucvgl.encoders import Encoder, TwoViewEncoder, embed
from ucvgl.errors import InputError
from ucvgl.lab.cache import run_stage
from ucvgl.locate.adapt import WORLD_WEIGHTS, AdaptConfig, adapt, starting_model
from ucvgl.locate.candidates import Candidates
from ucvgl.locate.confidence import Calibration, Evidence, evidence, load_calibration
from ucvgl.locate.inputs import Inputs
from ucvgl.locate.pictures import Ground, Kind, Picture
from ucvgl.locate.views import StreetConfig, street_views
from ucvgl.methods.baselines import centred_by_domain
from ucvgl.methods.common import EMBED_BATCH
from ucvgl.methods.ucvgl import Descriptors, Pretraining
from ucvgl.search import top_k


@dataclass(frozen=True, eq=False)
class Search:
    """What a search for the pictures of one kind found."""

    kind: Kind
    pictures: list[Picture]  # N
    images: Dataset  # the same, as the encoder is given them, and M candidates
    headings_deg: Tensor  # (N,) of the pictures' centres, known or found
    known: Tensor  # (N,) bool, which headings were known
    descriptors: Descriptors  # of `describe_turns`, in half precision
    evidence: Evidence  # for each picture's best candidate
    rounds: list[dict[str, Any]]  # of `adapt.adapt`

    @property
    def cosines(self) -> np.ndarray:
        """(N, M) float32 of each picture and each candidate."""
        return (self.descriptors.ground.float() @ self.descriptors.satellite.float().T).numpy()

    @property
    def calibration(self) -> Calibration:
        """The committed one that fits: by kind of picture, and by whether any heading was searched for."""
        return load_calibration(calibration_path(self.kind, searched=not bool(self.known.all())))


def calibration_path(kind: Kind, *, searched: bool) -> Path:
    """The committed calibration of such pictures."""
    return WORLD_WEIGHTS.with_name(f"{kind}{'-turned' * searched}.json")


def search(inputs: Inputs, kind: Kind, *, progress: bool = True) -> Search:
    """Adapts the encoders to all usable pictures of a kind and searches the candidates for them.

    InputError: fewer than two candidates, a file that cannot be read.
    """
    ground, candidates, config = inputs.ground, inputs.candidates, inputs.adapt
    if len(candidates) < 2:
        raise InputError(candidates.mosaic.root, expected="two candidates or more", found=len(candidates),
                         todo="Add tiles, or give a smaller span or stride.")  # fmt: skip
    model, start = starting_model(config)
    tiles = tile_images(candidates, progress=progress)

    def seen(headings_deg: Tensor) -> Dataset:
        pictures = street_images(ground, kind, headings_deg, inputs.street, progress=progress)
        # panorama and top view are one, since an encoder reads one of them
        return Dataset("locate", "all", pictures, tiles, Positives.unknown(len(pictures)), top_view=pictures)

    headings = torch.from_numpy(ground.headings(kind))
    known = ~headings.isnan()
    images = seen(headings.nan_to_num(0.0))
    if not bool(known.all()):
        headings = find_headings(inputs, kind, headings, images, model, progress=progress)
        images = seen(headings)
    before = describe_turns(model, images, start, config, count=1)
    adapted, rounds = adapt(model, start, images, config, before, progress=progress)
    after = describe_turns(adapted, images, start, config if adapted is model else None)
    half = Descriptors(after.ground.half(), after.satellite.half())
    # in single precision, since the CPU is slow in half
    found = evidence(half.ground.float(), half.satellite.float(), candidates.centre_m)
    return Search(kind, ground.of_kind(kind), images, headings, known, half, found, rounds)


@dataclass(frozen=True)
class _Settings:
    """All that a stage depends on beside its images."""

    values: tuple[object, ...]


def describe_turns(
    model: TwoViewEncoder, images: Dataset, start: Pretraining, came: AdaptConfig | None = None, *, count: int = 4
) -> Descriptors:
    """Pictures (N, 4 D) and tiles (M, 4 D) in four quarter turns together, so that a cosine is the mean of four.

    The encoders were trained on such turns but do not answer the same to each, so the mean is surer: ours, worth 7 and
    9 points of pictures placed in two cities. Tiles as of `describe_tiles`; count: of the turns, beginning with none.
    """
    turn = roll_panoramas if start.ground_is_panorama else turn_squares
    pictures = _together(lambda quarters: _embedded(model.ground, images.query, turn, quarters), count)
    return Descriptors(pictures, describe_tiles(model, images.gallery, came, count=count))


def describe_tiles(model: TwoViewEncoder, tiles: ArrayImages, came: AdaptConfig | None, *, count: int = 4) -> Tensor:
    """Tiles (M, count D). By encoders that `came` as a file, and no imagery has changed, they are made once for a set
    of tiles, whatever pictures are searched for, and kept in the run cache, each turn in half precision."""

    def turned(quarters: int) -> Tensor:
        return _embedded(model.satellite, tiles, turn_squares, quarters)

    def kept(quarters: int) -> Tensor:
        def compute(folder: Path) -> dict[str, int]:
            np.save(folder / "turn.npy", turned(quarters).half().numpy(), allow_pickle=False)
            return {"tiles": len(tiles)}

        key = _Settings((Path(came.start).name, came.start_digest, quarters))
        folder = run_stage("tile-descriptors", key, tiles.source, compute).folder
        return torch.from_numpy(np.load(folder / "turn.npy", allow_pickle=False)).float()

    return _together(turned if came is None else kept, count)


def _embedded(encoder: Encoder, images: ArrayImages, turn: Callable[[Tensor, Tensor], Tensor], quarters: int) -> Tensor:
    """(N, D) of all images, turned counter-clockwise by so many quarters."""
    parts = torch.arange(len(images)).split(EMBED_BATCH)
    return embed(encoder, (turn(images[rows], torch.full((len(rows),), quarters)) for rows in parts))


def _together(described: Callable[[int], Tensor], count: int) -> Tensor:
    """(N, D) of each turn, centred, side by side at unit length."""
    turns = [described(quarters) for quarters in range(count)]
    return torch.cat([centred_by_domain(one) if len(one) > 1 else one for one in turns], -1) / math.sqrt(count)


@torch.no_grad()
def find_headings(
    inputs: Inputs, kind: Kind, headings_deg: Tensor, images: Dataset, model: TwoViewEncoder, *, progress: bool = True
) -> Tensor:
    """Headings (N,) degrees, those that are NaN replaced by the turn at which a picture finds its best candidate.

    Each such picture is embedded at all turns, centred on the mean over them and their turns, and the turn with the
    highest mean cosine to any candidate in its four quarter turns is taken. Ours.
    """
    street, count = inputs.street, inputs.request.turns
    missing = headings_deg.isnan()
    pictures = [p for p, lost in zip(inputs.ground.of_kind(kind), missing.tolist(), strict=True) if lost]

    def compute(folder: Path) -> dict[str, list[float]]:
        turns = torch.arange(count, dtype=torch.float64) * (360 / count)
        views = street_views(inputs.ground, pictures, [turns] * len(pictures), street, progress=progress)
        parts = (some for _, part in views for some in part.flatten(0, 1).split(EMBED_BATCH))
        each = centred_by_domain(embed(model.ground, parts)).view(len(pictures), count, -1)
        # a view of heading h turned counter-clockwise by a quarter is the view of heading h - 90
        query = torch.cat([each.roll(k * count // 4, 1) for k in range(4)], -1).flatten(0, 1)
        score, _ = top_k(query, describe_tiles(model, images.gallery, inputs.adapt), 1)
        found = headings_deg.clone()
        found[missing] = turns[score.view(-1, count).argmax(1)]
        return {"headings_deg": found.tolist()}

    # with no epochs: the encoders are trained later
    key = _Settings((street, count, replace(inputs.adapt, epochs=0), tuple(headings_deg.nan_to_num(-1.0).tolist())))
    return torch.tensor(
        run_stage("headings", key, images.digest(), compute).numbers["headings_deg"], dtype=torch.float64
    )


def street_images(
    ground: Ground, kind: Kind, headings_deg: Tensor, street: StreetConfig, *, progress: bool = True
) -> ArrayImages:
    """The pictures of one kind as the encoder reads them, at headings (N,), from the run cache."""
    pictures = ground.of_kind(kind)
    names = [picture.file for picture in pictures]
    known = tuple((p.fov_deg or 0.0, *(p.crop or ())) for p in pictures)
    key = _Settings((street, kind, tuple(headings_deg.tolist()), known))
    views = street_views(ground, pictures, list(headings_deg[:, None]), street, progress=progress)
    digest = FileImages(ground.root, names, names).digest()
    return _stored("street-views", key, digest, (len(pictures), 3, *street.size_px), (part for _, part in views))


def tile_images(candidates: Candidates, *, progress: bool = True) -> ArrayImages:
    """All candidates, from the run cache."""
    shape = len(candidates), 3, candidates.size_px, candidates.size_px

    def cut() -> Iterator[Tensor]:
        yield from map(candidates.read, tqdm(range(shape[0]), desc="cutting tiles", unit="tile", disable=not progress))

    key = _Settings((candidates.span_m, candidates.size_px))
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
    pixels = np.load(folder / "images.npy", mmap_mode="c", allow_pickle=False)  # copy-on-write, and nothing writes
    return ArrayImages(tuple(map(str, range(len(pixels)))), torch.from_numpy(pixels), source=folder.name)
