"""Sample4Geo (Deuser, Habel, Oswald; ICCV 2023): supervised matching with hard negatives in every batch.

One encoder for both views, symmetric InfoNCE, and batches of places near each other (GPS sampling) until the first refresh, then
of visually similar ones (dynamic similarity sampling, DSS). A tile that shows a panorama's spot off centre (VIGOR's semi-positives)
is not sampled as its neighbour, and no negative of it. Differs: the last epoch is kept, not the best on the test set."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from ucvgl import augment, sampling
from ucvgl.checkpoints import without
from ucvgl.data.container import Dataset, Positives
from ucvgl.encoders import EncoderConfig, TwoViewEncoder, embed, save_model, two_view_encoder
from ucvgl.errors import check_fields, one_of
from ucvgl.losses import info_nce
from ucvgl.methods.common import BEST, EMBED_BATCH, describe, device
from ucvgl.metrics import retrieval_measures
from ucvgl.training import Batch, Task, TrainingConfig, train

SAMPLERS = ("random", "geographic", "similarity", "both")
MOVES = {"panorama": "roll", "top view": "turn", "oblique": "stay", "polar": "roll", "tile": "turn", "photo": "stay"}
PUBLISHED = TrainingConfig(learning_rate=1e-3, warmup_epochs=1.0, clip_value=100.0, precision="bf16")


@dataclass(frozen=True)
class Sampling:
    """Which pairs meet in a batch."""

    kind: Literal["random", "geographic", "similarity", "both"] = "both"  # Sample4Geo: both
    draw: sampling.NeighbourDraw = field(default_factory=sampling.NeighbourDraw)
    refresh_every: int = 4  # epochs between searches for similar places; the first at this epoch; Sample4Geo 4

    def __post_init__(self) -> None:
        one_of("Sampling.kind", self.kind, SAMPLERS, "Sample4Geo has both.")
        check_fields(self, "Sampling.", "Sample4Geo has 4.", ("refresh_every", self.refresh_every >= 1, "1 or more"))

    def source(self, epoch: int) -> str:
        """'random', 'geographic' or 'similarity', which is not known before the first refresh."""
        if self.kind in ("similarity", "both") and epoch >= self.refresh_every:
            return "similarity"
        return {"similarity": "random", "both": "geographic"}.get(self.kind, self.kind)


@dataclass(frozen=True)
class Sample4Geo:
    """The method's settings."""

    ground: EncoderConfig
    satellite: EncoderConfig
    shared: bool = True  # one encoder for both views; Sample4Geo: yes
    ground_kind: Literal["panorama", "top view", "oblique"] = "panorama"  # how it follows the turns of its tile: MOVES
    tile_kind: Literal["tile", "polar", "photo"] = "tile"  # polar: unrolled around the centre (SAFA, section 3.1), ours
    # a batch's panoramas are cut to one of these, each to a sector of its own (Shi et al., CVPR 2020); Sample4Geo: whole
    fovs_deg: tuple[float, ...] = ()
    training: TrainingConfig = PUBLISHED  # 1e-3 is for ConvNeXt-Base; small backbones collapse at it
    sampling: Sampling = field(default_factory=Sampling)
    smoothing: float = 0.1  # of the labels; Sample4Geo 0.1
    augmentation: augment.Augmentation = augment.SAMPLE4GEO
    placement: augment.PlacementJitter | None = None  # ours: tiles moved against their ground image; None as Sample4Geo
    evaluate_every: int = 4  # epochs; Sample4Geo 4
    version: int = 4  # of what the stage computes: raised when its numbers change, so that no stage of before is loaded


@dataclass
class SupervisedPairs(Task):
    """Pairs of ground image and tile, in batches of places that are hard to tell apart."""

    kept = ("neighbours", "searched")
    given: Dataset
    config: Sample4Geo
    neighbours: Tensor | None = None  # (P, range) places near each item's, of the last search
    searched: Tensor | None = None  # the epoch of that search

    def __post_init__(self) -> None:
        best = self.given.positives.best()
        self.ground = (best >= 0).nonzero()[:, 0]  # (P,) the items: ground images whose tile is known
        self.tiles, self.place = best[self.ground].unique(return_inverse=True)  # a place is a tile that has an item
        number = torch.full((len(self.given.gallery) + 1,), -1)  # of each tile's place; the last stands for no tile
        number[self.tiles] = torch.arange(len(self.tiles))
        semi = self.given.semi_positives or Positives.unknown(len(best))
        self.semi = number[semi.padded()][self.ground]  # (P, S) places that show its spot off centre, -1 for none

    def order(self, epoch: int, model: TwoViewEncoder, generator: Generator) -> Tensor:
        """Every item once but for the tail, batch after batch."""
        rule, size = self.config.sampling, self.config.training.batch_size
        source = rule.source(epoch)
        if source == "geographic" and rule.kind == "both" and self.given.gallery.positions is None:
            source = "random"  # as similarity sampling begins
        stale = epoch % rule.refresh_every == 0 or (self.searched is not None and self.searched < rule.refresh_every)
        if source != "random" and (self.neighbours is None or (source == "similarity" and stale)):
            self.neighbours, self.searched = self.near(source, model), torch.tensor(epoch)
        near = None if source == "random" else self.neighbours
        return sampling.neighbour_batches(near, size, generator, rule.draw, place=self.place, places=len(self.tiles))[0]

    def near(self, source: str, model: TwoViewEncoder) -> Tensor | None:
        """Places near each item's, by position or by similarity, no semi-positive among them: (P, range); None: random."""
        k, positions = self.config.sampling.draw.range + self.semi.shape[1], self.given.gallery.positions
        if source == "random":
            return None
        if source == "geographic":
            known = positions and positions.take(self.tiles.numpy())
            return sampling.without(sampling.geographic_neighbours(known, k)[self.place], self.semi)
        model.eval()
        query = embed(model.ground, (self.given.query[rows] for rows in self.ground.split(EMBED_BATCH)))
        tile = embed(model.satellite, (self.given.gallery[rows] for rows in self.tiles.split(EMBED_BATCH)))
        model.train()
        return sampling.without(sampling.similarity_neighbours(query, tile, k, place=self.place), self.semi)

    def batch(self, items: Tensor, generator: Generator) -> Batch:
        """Ground images and their tiles, moved together and augmented each by itself."""
        config, fovs_deg = self.config, self.config.fovs_deg
        images = self.given.query[self.ground[items]], self.given.gallery[self.tiles[self.place[items]]]
        moves = MOVES[config.ground_kind], MOVES[config.tile_kind]
        ground, tile = augment.move_together(images, moves, config.augmentation, generator)
        if fovs_deg:
            fov_deg = fovs_deg[int(torch.randint(len(fovs_deg), (1,), generator=generator))]
            first = torch.randint(ground.shape[3], (len(items),), generator=generator)
            ground = augment.crop_panoramas(ground, fov_deg, first)
        small, large = augment.SATELLITE_HOLE, augment.GROUND_HOLE
        hole = small if config.ground_kind == "oblique" else large  # a drone's images lose as small ones as tiles
        ground = augment.augment(ground, config.augmentation, generator, hole=hole)
        placed = [config.placement] if config.placement is not None and config.tile_kind == "tile" else []
        tile = augment.augment(tile, config.augmentation, generator, hole=small, placements=placed)
        return Batch((ground, tile), (self.place[items], self.semi[items]))

    def loss(self, model: TwoViewEncoder, embeddings: tuple[Tensor, ...], labels: tuple[Tensor, ...]) -> Tensor:
        """Symmetric InfoNCE; no place stands twice in a batch, so every other row is a negative, but for semi-positives."""
        place, semi = labels
        off_centre = (semi[:, :, None] == place).any(1) if semi.numel() else None  # (B, B): tile j shows the spot of i
        return info_nce(*embeddings, model.scale, label_smoothing=self.config.smoothing, not_negative=off_centre)


def new_model(config: Sample4Geo) -> TwoViewEncoder:
    """Encoders as they begin, on the GPU if there is one; channels last."""
    model = two_view_encoder(config.ground, config.satellite, shared=config.shared, seed=config.training.seed)
    return model.to(device(), memory_format=torch.channels_last)


def supervise(given: Dataset, config: Sample4Geo, tests: Mapping[str, Dataset], folder: Path) -> dict[str, Any]:
    """Trains on all pairs; `rows` an epoch, with the tests' measures as `<test>: r_at_1`, and `recall` of the last, by test.
    InputError: geographic sampling without positions, fewer places than a batch, lists longer than there are places."""
    model, task = new_model(config), SupervisedPairs(given, config)

    def measure(epoch: int, _: nn.Module) -> dict[str, float]:
        if (epoch + 1) % config.evaluate_every and epoch + 1 != config.training.epochs:
            return {}
        return {f"{name}: {k}": v for name, test in tests.items() for k, v in evaluate(model, test).items()}

    rows = train(model, task, config.training, folder, name="sample4geo", after_epoch=measure)
    save_model(model, folder / BEST)
    return {"rows": rows, "recall": {name: without(f"{name}: ", rows[-1]) for name in tests}}


def evaluate(model: TwoViewEncoder, test: Dataset) -> dict[str, float]:
    """R@1, 5, 10 and 1 %, average precision and, with semi-positives, the hit rate; in percent."""
    semi = test.semi_positives and test.semi_positives.pairs()
    found = retrieval_measures(*describe(model, test), test.positives.pairs(), semi_positives=semi)
    return {name: found[name] for name in found if name not in ("queries", "left_out")}
