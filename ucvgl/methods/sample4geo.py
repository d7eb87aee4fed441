"""Sample4Geo (Deuser, Habel, Oswald; ICCV 2023): supervised matching with hard negatives in every batch.

One encoder for both views or one each, symmetric InfoNCE over the pairs of a batch, and batches that are not drawn at
random: places near each other in the first epochs, places that look alike to the encoder as it is after that.

Differs from the published code: the last epoch is kept, not the best on the test set; distances between positions are
metres; no gradient is clipped by value (at 100, which small encoders never come near), the whole gradient's norm may be.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor, nn

from ucvgl.augment import SAMPLE4GEO, Augmentation, Pose, augment, jitter_pose, move_together
from ucvgl.data import Positives, Views
from ucvgl.distributed import embed_sharded, processes
from ucvgl.encoders import EncoderConfig, TwoViewEncoder, embed, load_model, save_model, two_view_encoder
from ucvgl.errors import InputError
from ucvgl.losses import info_nce
from ucvgl.methods.common import BEST, EMBED_BATCH, device
from ucvgl.methods.images import Images, polar_tiles
from ucvgl.metrics import retrieval_measures
from ucvgl.positions import Positions
from ucvgl.sampling import NeighbourDraw, geographic_neighbours, neighbour_batches, similarity_neighbours
from ucvgl.stages import StageResult, run_stage
from ucvgl.training import Batch, Row, Task, TrainingConfig, train

VERSION = 1  # of what the stage computes: raised when its numbers change, so that no stage of before is loaded
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
PUBLISHED_TRAINING = TrainingConfig(learning_rate=1e-3, warmup_epochs=1.0, precision="bf16")


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
    pose: Pose | None = None  # ours: tiles moved against their ground image; None as Sample4Geo
    evaluate_every: int = 4  # epochs; Sample4Geo 4
    version: int = VERSION


# ----------------------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True, eq=False)
class Labelled:
    """Ground images, tiles, and which belong together.

    Args:
        ground: uint8 (N, 3, H, W).
        tile: uint8 (M, 3, S, S), or polar (M, 3, H, W).
        positives: tiles that are right for each ground image.
        semi_positives: tiles that show the place off centre (VIGOR), neither right nor wrong for the hit rate.
        positions: of the tiles, for geographic sampling; None where unknown.
        data_id: names all of these.
        tiles_ask: whether `ground` holds satellite images that ask and `tile` the ground images that are searched
            (satellite -> drone).
    """

    ground: Tensor
    tile: Tensor
    positives: Positives
    semi_positives: Positives | None
    positions: Positions | None
    data_id: str
    tiles_ask: bool = False

    @staticmethod
    def of(images: Images, views: Views, ground: GroundKind, tile: TileKind = "tile") -> "Labelled":
        """Prepared images with the labels of the data set they were made from."""
        tiles = polar_tiles(images) if tile == "polar" else images.tile
        data_id = f"{images.data_id}-{ground}-{tile}-{views.positives.digest()}".replace(" ", "-")
        return Labelled(
            images.panorama if ground == "panorama" else images.top_view, tiles, views.positives, views.semi_positives,
            views.satellite.positions, data_id,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.ground)

    def take(self, rows: np.ndarray, name: str) -> "Labelled":
        """Some of the ground images against all tiles; `name` tells this part from others."""
        semi = None if self.semi_positives is None else self.semi_positives.take(rows)
        return replace(
            self, ground=self.ground[torch.from_numpy(rows)], positives=self.positives.take(rows), semi_positives=semi,
            data_id=f"{self.data_id}-{name}",
        )  # fmt: skip

    def pairs(self) -> tuple[Tensor, Tensor]:
        """The items trained on: ground images whose tile is known, (P,), and their tiles, (P,)."""
        best = self.positives.best()
        ground = (best >= 0).nonzero()[:, 0]
        return ground, best[ground]


# ------------------------------------------------------------------------------------------------------------- learning


@dataclass
class SupervisedPairs(Task):
    """Pairs of ground image and tile, in batches of places that are hard to tell apart."""

    given: Labelled
    config: Sample4Geo
    neighbours: Tensor | None = None  # (P, range) places near each item's, of the last search
    searched: int = -1  # the epoch of that search; -1: none yet

    def __post_init__(self) -> None:
        self.ground, tile = self.given.pairs()
        # a place is a tile that some ground image belongs to; `tiles` says which
        self.tiles, self.place = tile.unique(return_inverse=True)

    def order(self, epoch: int, model: TwoViewEncoder, generator: Generator) -> Tensor:
        """Every item once but for the tail, batch after batch."""
        sampling = self.config.sampling
        source = sampling.source(epoch)
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
        positions = self.given.positions
        known = None if positions is None else positions.take(self.tiles.numpy())
        return geographic_neighbours(known, self.config.sampling.draw.range)[self.place]

    def _similar(self, model: TwoViewEncoder) -> Tensor:
        """The places whose tiles are most similar to each item's ground image."""
        model.eval()
        query = embed(model.ground, (self.given.ground[rows] for rows in self.ground.split(EMBED_BATCH)))
        tile = embed(model.satellite, (self.given.tile[rows] for rows in self.tiles.split(EMBED_BATCH)))
        model.train()
        return similarity_neighbours(query, tile, self.config.sampling.draw.range, place=self.place)

    def batch(self, items: Tensor, generator: Generator) -> Batch:
        """Ground images and their tiles, moved together and augmented each by itself."""
        config = self.config
        tiles = self.tiles[self.place[items]]
        ground, tile = self.given.ground[self.ground[items]], self.given.tile[tiles]
        moves = {"panorama": "roll", "top view": "turn", "oblique": "stay", "polar": "roll", "tile": "turn"}
        kinds = (moves[config.ground_kind], moves[config.tile_kind])
        moved = move_together((ground, tile), kinds, config.augmentation, generator)
        ground, tile = (augment(image, config.augmentation, generator) for image in moved)
        if config.pose is not None and config.tile_kind == "tile":
            tile = jitter_pose(tile, config.pose, generator)
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


def trained_model(stage: StageResult, config: Sample4Geo) -> TwoViewEncoder:
    """The encoders that `supervise` left, on the GPU if there is one."""
    model = new_model(config)
    load_model(model, stage.folder / BEST)
    return model.to(device()).eval()


def supervise(
    given: Labelled, config: Sample4Geo, tests: Mapping[str, Labelled], *, progress: bool = True
) -> StageResult:
    """Trains on all pairs, from the run cache if it was done before.

    Args:
        given: what is trained on.
        config: the method's settings.
        tests: what is measured on, by name; nothing is chosen by it.
        progress: show a bar.

    Returns:
        the stage; `trained_model` opens its weights; numbers: "rows", a row an epoch, with the tests' measures every
        `evaluate_every` epochs, as `<test>_r_at_1`; "recall", by test, after the last epoch.

    Raises:
        InputError: geographic sampling without positions, fewer places than a batch, neighbour lists longer than there
            are places.
    """
    key = {name: test.data_id for name, test in tests.items()}

    def compute(folder: Path) -> dict[str, Any]:
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

    return run_stage("sample4geo", config, f"{given.data_id}+{sorted(key.items())}", compute)


def _measures_of(test: str, row: Row) -> dict[str, float]:
    return {name.removeprefix(f"{test}_"): value for name, value in row.items() if name.startswith(f"{test}_")}


def evaluate(model: TwoViewEncoder, test: Labelled) -> dict[str, float]:
    """R@1, 5, 10 and 1 %, average precision and, with semi-positives, the hit rate; in percent.

    Raises:
        InputError: a gallery of fewer than 10 tiles, embeddings that are not finite.
    """
    query, gallery = describe(model, test)
    semi = None if test.semi_positives is None else test.semi_positives.pairs()
    found = retrieval_measures(query, gallery, test.positives.pairs(), semi_positives=semi)
    return {name: value for name, value in found.items() if name not in ("queries", "left_out")}


def describe(model: TwoViewEncoder, test: Labelled) -> tuple[Tensor, Tensor]:
    """Descriptors of all images that ask, (N, D), and of those searched, (M, D)."""
    query, gallery = (model.satellite, model.ground) if test.tiles_ask else (model.ground, model.satellite)
    sides = ((query, test.ground), (gallery, test.tile))
    return tuple(  # type: ignore[return-value]
        embed_sharded(partial(embed, encoder), images.split(EMBED_BATCH), processes()) for encoder, images in sides
    )
