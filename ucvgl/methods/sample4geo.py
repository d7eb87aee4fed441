"""Sample4Geo (Deuser, Habel, Oswald; ICCV 2023): supervised matching with hard negatives in every batch.

One encoder for both views or one each, symmetric InfoNCE over the pairs of a batch, and batches that are not drawn at
random: places near each other in the first epochs, places that look alike to the encoder as it is after that.

Differs from the published code: the last epoch is kept, not the best on the test set; distances between positions are
metres; no gradient is clipped by value (at 100, which small encoders never come near), the whole gradient's norm may be.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from ucvgl.augment import (
    GROUND_HOLE,
    SAMPLE4GEO,
    SATELLITE_HOLE,
    Augmentation,
    PlacementJitter,
    augment,
    move_together,
)
from ucvgl.data.container import Dataset
from ucvgl.encoders import EncoderConfig, TwoViewEncoder, embed, load_model, save_model, two_view_encoder
from ucvgl.errors import InputError
from ucvgl.losses import info_nce
from ucvgl.methods.common import BEST, EMBED_BATCH, device, embed_all
from ucvgl.metrics import retrieval_measures
from ucvgl.sampling import NeighbourDraw, geographic_neighbours, neighbour_batches, similarity_neighbours
from ucvgl.training import Batch, Row, Task, TrainingConfig, train

VERSION = 2  # of what the stage computes: raised when its numbers change, so that no stage of before is loaded
SAMPLERS = ("random", "geographic", "similarity", "both")
BACKBONE = "convnext_base.fb_in22k_ft_in1k_384"

GroundKind = Literal["panorama", "top view", "oblique"]
TileKind = Literal["tile", "polar"]
Source = Literal["random", "geographic", "similarity"]  # where the neighbours of an epoch come from


# ------------------------------------------------------------------------------------------------------------- settings


@dataclass(frozen=True)
class Sampling:
    """Which pairs meet in a batch."""

    kind: Literal["random", "geographic", "similarity", "both"] = "both"  # Sample4Geo: both
    draw: NeighbourDraw = field(default_factory=NeighbourDraw)
    refresh_every: int = 4  # epochs between searches for similar places; the first at this epoch; Sample4Geo 4

    def __post_init__(self) -> None:
        if self.kind not in SAMPLERS:
            raise InputError(
                "Sampling.kind", expected=f"one of {', '.join(SAMPLERS)}", found=repr(self.kind), todo="Choose one."
            )
        if self.refresh_every < 1:
            raise InputError(
                "Sampling.refresh_every", expected="1 epoch or more", found=self.refresh_every, todo="Sample4Geo has 4."
            )

    def source(self, epoch: int) -> Source:
        """Where the neighbours of an epoch come from: before the first refresh no similarity is known."""
        if self.kind in ("random", "geographic"):
            return self.kind
        if epoch >= self.refresh_every:
            return "similarity"
        return "geographic" if self.kind == "both" else "random"


# 1e-3 is the paper's for ConvNeXt-Base; it lets small backbones collapse
PUBLISHED_TRAINING = TrainingConfig(learning_rate=1e-3, warmup_epochs=1.0, clip_value=100.0, precision="bf16")


@dataclass(frozen=True)
class Sample4Geo:
    """The method's settings."""

    ground: EncoderConfig
    satellite: EncoderConfig
    shared: bool = True  # one encoder for both views; Sample4Geo: yes
    ground_kind: GroundKind = "panorama"  # how it turns with its tile: it rolls, it turns too, or it stays as it is
    tile_kind: TileKind = "tile"  # 'polar': unrolled around its centre, SAFA's (Shi et al., 2019) way to meet panoramas
    training: TrainingConfig = PUBLISHED_TRAINING
    sampling: Sampling = field(default_factory=Sampling)
    smoothing: float = 0.1  # of the labels; Sample4Geo 0.1
    augmentation: Augmentation = SAMPLE4GEO
    placement: PlacementJitter | None = None  # ours: tiles moved against their ground image; None as Sample4Geo
    evaluate_every: int = 4  # epochs; Sample4Geo 4
    version: int = VERSION


# ------------------------------------------------------------------------------------------------------------- learning


@dataclass
class SupervisedPairs(Task):
    """Pairs of ground image and tile, in batches of places that are hard to tell apart."""

    given: Dataset
    config: Sample4Geo
    neighbours: Tensor | None = None  # (P, range) places near each item's, of the last search
    searched: int = -1  # the epoch of that search; -1: none yet

    def __post_init__(self) -> None:
        best = self.given.positives.best()
        self.ground = (best >= 0).nonzero()[:, 0]  # (P,) the items: ground images whose tile is known
        tile = best[self.ground]
        # a place is a tile that some ground image belongs to; `tiles` says which
        self.tiles, self.place = tile.unique(return_inverse=True)

    def order(self, epoch: int, model: TwoViewEncoder, generator: Generator) -> Tensor:
        """Every item once but for the tail, batch after batch."""
        sampling = self.config.sampling
        source = sampling.source(epoch)
        if source == "geographic" and sampling.kind == "both" and self.given.gallery.positions is None:
            source = "random"  # no positions: as similarity sampling begins
        stale = self.searched < sampling.refresh_every or epoch % sampling.refresh_every == 0
        if self.neighbours is None or (source == "similarity" and stale):
            self.neighbours, self.searched = self.neighbours_by(source, model), epoch
        size = self.config.training.batch_size
        near = self.neighbours if source != "random" else None
        return neighbour_batches(near, size, generator, sampling.draw, place=self.place, places=len(self.tiles))

    def neighbours_by(self, source: Source, model: TwoViewEncoder) -> Tensor | None:
        """Places near each item's, (P, range), by position or by similarity; None for random batches."""
        match source:
            case "geographic":
                return self._near()
            case "similarity":
                return self._similar(model)
        return None

    def _near(self) -> Tensor:
        """Geographic neighbours of each item's place."""
        positions = self.given.gallery.positions
        known = None if positions is None else positions.take(self.tiles.numpy())
        return geographic_neighbours(known, self.config.sampling.draw.range)[self.place]

    def _similar(self, model: TwoViewEncoder) -> Tensor:
        """The places whose tiles are most similar to each item's ground image."""
        model.eval()
        query = embed(model.ground, (self.given.query[rows] for rows in self.ground.split(EMBED_BATCH)))
        tile = embed(model.satellite, (self.given.gallery[rows] for rows in self.tiles.split(EMBED_BATCH)))
        model.train()
        return similarity_neighbours(query, tile, self.config.sampling.draw.range, place=self.place)

    def batch(self, items: Tensor, generator: Generator) -> Batch:
        """Ground images and their tiles, moved together and augmented each by itself."""
        config = self.config
        tiles = self.tiles[self.place[items]]
        ground, tile = self.given.query[self.ground[items]], self.given.gallery[tiles]
        moves = {"panorama": "roll", "top view": "turn", "oblique": "stay", "polar": "roll", "tile": "turn"}
        kinds = (moves[config.ground_kind], moves[config.tile_kind])
        moved = move_together((ground, tile), kinds, config.augmentation, generator)
        # a drone's images lose as small holes as tiles
        ground_hole = SATELLITE_HOLE if config.ground_kind == "oblique" else GROUND_HOLE
        moves_too = config.placement is not None and config.tile_kind == "tile"
        placements = [config.placement] if moves_too else []
        ground = augment(moved[0], config.augmentation, generator, hole=ground_hole)
        tile = augment(moved[1], config.augmentation, generator, hole=SATELLITE_HOLE, placements=placements)
        return Batch((ground, tile))

    def embed(self, model: TwoViewEncoder, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Two descriptors a row."""
        return model.ground(inputs[0]), model.satellite(inputs[1])

    def loss(self, model: TwoViewEncoder, embeddings: tuple[Tensor, ...], labels: tuple[Tensor, ...]) -> Tensor:
        """Symmetric InfoNCE; no place stands twice in a batch, so every other row is a negative."""
        return info_nce(*embeddings, model.scale, label_smoothing=self.config.smoothing)

    def state(self) -> dict[str, Tensor]:
        """The last search."""
        if self.neighbours is None:
            return {}
        return {"neighbours": self.neighbours, "searched": torch.tensor(self.searched)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes it back."""
        if state:
            self.neighbours, self.searched = state["neighbours"].cpu(), int(state["searched"])


def new_model(config: Sample4Geo) -> TwoViewEncoder:
    """Encoders as they begin; channels last, which convolutions run faster in on most devices."""
    model = two_view_encoder(config.ground, config.satellite, shared=config.shared, seed=config.training.seed)
    return model.to(memory_format=torch.channels_last)


def trained_model(folder: Path, config: Sample4Geo) -> TwoViewEncoder:
    """The encoders that `supervise` left in its folder, on the GPU if there is one."""
    model = new_model(config)
    load_model(model, folder / BEST)
    return model.to(device()).eval()


def supervise(
    given: Dataset, config: Sample4Geo, tests: Mapping[str, Dataset], folder: Path, *, progress: bool = True
) -> dict[str, Any]:
    """Trains on all pairs; `trained_model` opens the weights it leaves.

    Args:
        given: what is trained on.
        config: the method's settings.
        tests: what is measured on, by name; nothing is chosen by it.
        folder: to write to.
        progress: show a bar.

    Returns:
        "rows", a row an epoch, with the tests' measures every `evaluate_every` epochs, as `<test>_r_at_1`; "recall", by
        test, after the last epoch.

    Raises:
        InputError: geographic sampling without positions, fewer places than a batch, neighbour lists longer than there
            are places.
    """
    model = new_model(config).to(device())
    task = SupervisedPairs(given, config)

    def measure(epoch: int, _: nn.Module) -> dict[str, float]:
        if (epoch + 1) % config.evaluate_every and epoch + 1 != config.training.epochs:
            return {}
        found = {name: evaluate(model, test) for name, test in tests.items()}
        return {f"{name}_{k}": value for name, measures in found.items() for k, value in measures.items()}

    rows = train(model, task, config.training, folder, name="sample4geo", after_epoch=measure, progress=progress)
    save_model(model, folder / BEST)
    return {"rows": rows, "recall": {name: _measures_of(name, rows[-1]) for name in tests}}


def _measures_of(test: str, row: Row) -> dict[str, float]:
    return {name.removeprefix(f"{test}_"): value for name, value in row.items() if name.startswith(f"{test}_")}


def evaluate(model: TwoViewEncoder, test: Dataset) -> dict[str, float]:
    """R@1, 5, 10 and 1 %, average precision and, with semi-positives, the hit rate; in percent.

    Raises:
        InputError: embeddings that are not finite.
    """
    query, gallery = describe(model, test)
    semi = None if test.semi_positives is None else test.semi_positives.pairs()
    found = retrieval_measures(query, gallery, test.positives.pairs(), semi_positives=semi)
    return {name: value for name, value in found.items() if name not in ("queries", "left_out")}


def describe(model: TwoViewEncoder, test: Dataset) -> tuple[Tensor, Tensor]:
    """Descriptors of all queries, (N, D), and of the gallery, (M, D)."""
    query, gallery = (model.satellite, model.ground) if test.swapped else (model.ground, model.satellite)
    return embed_all(query, test.query), embed_all(gallery, test.gallery)
