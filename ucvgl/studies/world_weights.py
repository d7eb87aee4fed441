"""The encoders that `ucvgl locate` begins with: trained on the embedded world, where truth costs nothing.

Ours, in none of the papers. A top view and a square of a satellite image belong together if the camera stood near the
square's middle: as near as the grid of candidates that a city is searched in can promise. Squares a little farther
off are hard negatives of their own, so that of overlapping candidates the nearest one wins. Part of the top views is
cut to the sector that a photo would show.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ucvgl.augment import Augmentation, augment, move_together, to_float
from ucvgl.data.container import Dataset
from ucvgl.data.prepare import BATCH
from ucvgl.encoders import EncoderConfig, TwoViewEncoder, open_model, save_model, two_view_encoder
from ucvgl.errors import InputError
from ucvgl.geometry import TopView, top_view
from ucvgl.lab.cache import StageResult, run_stage
from ucvgl.lab.profiles import SMALL_AUGMENTATION
from ucvgl.losses import info_nce
from ucvgl.methods.baselines import centred_by_domain
from ucvgl.methods.common import BEST, device
from ucvgl.training import Batch, Task, TrainingConfig, train
from ucvgl.world.pairs import WorldConfig, world_pairs

SPAN_M = 50.0  # of a top view and of a candidate
CITIES = ("garden", "canal") * 4  # the styles learnt from; old_town is kept for the calibration, downtown for its check


@dataclass(frozen=True)
class WorldWeights:
    """What is trained, on which cities."""

    world: WorldConfig = field(
        default_factory=lambda: WorldConfig(
            CITIES, 500, 8000, 20.0, span_m=2 * SPAN_M, tile_px=128, city_size_m=1200.0, resolution_m=0.4
        )
    )  # squares of any offset are cut from tiles twice as wide
    encoder: EncoderConfig = field(
        default_factory=lambda: EncoderConfig("tf_efficientnet_lite0", "package", depth=4, image_px=(64, 64))
    )
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            epochs=14, batch_size=128, learning_rate=2e-3, weight_decay=0.05, warmup_epochs=0.5, clip_norm=5.0
        )
    )
    augmentation: Augmentation = SMALL_AUGMENTATION
    smoothing: float = 0.1  # of the labels
    near_m: float = 7.0  # a square's middle is at most so far from the camera, east or north: half a stride, and a bit
    far_m: tuple[float, float] = (11.0, 25.0)  # and that of its hard negative at least and at most
    turn_deg: float = 8.0  # error of the heading
    scale: float = 0.1  # error of the assumed camera height, as a part of it
    photos: float = 0.2  # part of the top views that is cut to a sector
    fov_deg: tuple[float, float] = (55.0, 110.0)  # of those sectors
    blank: tuple[float, float] = (0.1, 0.3)  # what lies below a photo's frame: a disc, in parts of half the span
    seed: int = 0

    @property
    def size_px(self) -> int:
        """Edge of what the encoders are given."""
        return self.encoder.image_px[0]

    def __post_init__(self) -> None:
        if not 0 <= self.near_m < self.far_m[0] <= self.far_m[1] <= self.world.span_m / 2:
            raise InputError(
                "WorldWeights: near_m, far_m", expected=f"0 <= near_m < far_m, up to {self.world.span_m / 2:g} m",
                found=f"{self.near_m} and {self.far_m}", todo="Render wider tiles, or stay nearer.",
            )  # fmt: skip


def squares(
    tiles: Tensor, tile_span_m: float, centre_m: Tensor, turn_deg: Tensor, span_m: Tensor, size_px: int
) -> Tensor:
    """Cuts a square out of each tile, bilinearly; what lies outside a tile is mirrored.

    Args:
        tiles: float (B, C, S, S), north up, each tile_span_m across.
        tile_span_m: metres.
        centre_m: (B, 2) of the square, metres east and north of the tile's middle.
        turn_deg: (B,) clockwise from north, of the square's upward direction.
        span_m: (B,) edge of the square.
        size_px: edge of the square.

    Returns:
        (B, C, size_px, size_px).
    """
    turn, zoom = turn_deg.deg2rad(), span_m / tile_span_m
    theta = torch.zeros(len(tiles), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = turn.cos() * zoom
    theta[:, 0, 1], theta[:, 1, 0] = -turn.sin() * zoom, turn.sin() * zoom
    theta[:, :, 2] = centre_m * torch.tensor([2.0, -2.0]) / tile_span_m  # rows count southwards
    grid = F.affine_grid(theta.to(tiles), [len(tiles), tiles.shape[1], size_px, size_px], align_corners=False)
    return F.grid_sample(tiles, grid, padding_mode="reflection", align_corners=False)


def sector(size_px: int, heading_deg: Tensor, fov_deg: Tensor, blank: Tensor) -> Tensor:
    """Which pixels of a north-up top view a photo in that direction shows: (B, 1, S, S) bool.

    Args:
        size_px: edge of the top view.
        heading_deg: (B,) of the camera.
        fov_deg: (B,) across the photo; 360 or more shows all around.
        blank: (B,) radius of the disc below the photo's frame, in parts of half the top view's edge.
    """
    steps = (torch.arange(size_px) + 0.5) * (2 / size_px) - 1
    x, y = torch.meshgrid(steps, steps, indexing="xy")
    heading_deg, fov_deg, blank = (value.view(-1, 1, 1) for value in (heading_deg, fov_deg, blank))
    off = (torch.atan2(x, -y).rad2deg() - heading_deg + 180) % 360 - 180
    return ((off.abs() <= fov_deg / 2) & (torch.hypot(x, y) >= blank)).unsqueeze(1)


@dataclass
class WorldPairs(Task):
    """Top views, the squares around their cameras, and squares beside those."""

    top_view: Tensor  # (N, 3, S, S) uint8
    tile: Tensor  # (N, 3, T, T) uint8
    camera_m: Tensor  # (N, 2) east and north of the tile's middle
    config: WorldWeights

    def order(self, epoch: int, model: nn.Module, generator: Generator) -> Tensor:
        """Every place once."""
        return torch.randperm(len(self.top_view), generator=generator)

    def batch(self, items: Tensor, generator: Generator) -> Batch:
        """A top view, its square and a hard negative of each place."""
        config, count = self.config, len(items)

        def drawn(*shape: int) -> Tensor:
            return torch.rand(count, *shape, generator=generator) * 2 - 1

        tile, camera = to_float(self.tile[items]), self.camera_m[items]
        turn, zoom = drawn() * config.turn_deg, SPAN_M * (1 + drawn() * config.scale)
        azimuth = drawn() * math.pi
        low, high = config.far_m
        away = low + (drawn() + 1) / 2 * (high - low)
        beside = torch.stack([azimuth.sin(), azimuth.cos()], 1) * away[:, None]
        near = [
            squares(tile, config.world.span_m, camera + offset, turn, zoom, config.size_px)
            for offset in (drawn(2) * config.near_m, beside)
        ]
        moved = move_together((to_float(self.top_view[items]), *near), ("turn",) * 3, config.augmentation, generator)
        ground, *tiles = (augment(image, config.augmentation, generator) for image in moved)
        photo = (drawn() + 1) / 2 < config.photos
        fov, blank = (low + (drawn() + 1) / 2 * (high - low) for low, high in (config.fov_deg, config.blank))
        seen = sector(config.size_px, drawn() * 180, torch.where(photo, fov, 360.0), blank * photo)
        return Batch((ground * seen, *tiles))

    def embed(self, model: TwoViewEncoder, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Descriptors of top views, their squares, their hard negatives."""
        return model.ground(inputs[0]), *model.satellite(torch.cat(inputs[1:])).chunk(2)

    def loss(self, model: TwoViewEncoder, embeddings: tuple[Tensor, ...], labels: tuple[Tensor, ...]) -> Tensor:
        """Symmetric InfoNCE of centred descriptors, and the top view's cross-entropy between its square and all hard negatives."""
        # each view's mean is taken away, as it is when a city is searched
        ground = centred_by_domain(embeddings[0])
        right, wrong = centred_by_domain(torch.cat(embeddings[1:])).chunk(2)
        scale = model.scale
        own = (ground * right).sum(1, keepdim=True)
        against = scale * torch.cat([own, ground @ wrong.T], 1)
        target = torch.zeros(len(ground), dtype=torch.int64, device=ground.device)
        return info_nce(ground, right, scale, label_smoothing=self.config.smoothing) + F.cross_entropy(against, target)


def top_views(panoramas: Tensor, view: TopView) -> Tensor:
    """Top views of panoramas uint8 (N, 3, H, 2H), some at a time: (N, 3, S, S) uint8."""
    return torch.cat([top_view(part, view) for part in panoramas.split(BATCH)])


def train_world_weights(config: WorldWeights, *, progress: bool = True) -> StageResult:
    """Trains the encoders from the run cache; the stage's folder holds best.safetensors, which `encoders.open_model` opens."""
    pairs = world_pairs(config.world, progress=progress)

    def compute(folder: Path) -> dict[str, Any]:
        model = two_view_encoder(config.encoder, config.encoder, shared=False, seed=config.seed)
        model = model.to(device(), memory_format=torch.channels_last)
        rows = train(model, _task(pairs, config), config.training, folder, name="world weights", progress=progress)
        save_model(model, folder / BEST)
        return {"rows": rows}

    return run_stage("world-weights", config, pairs.digest(), compute)


def write_world_weights(path: Path, config: WorldWeights | None = None, *, progress: bool = True) -> None:
    """Trains the encoders and writes them as they are committed, in half precision; about half an hour on two cores."""
    stage = train_world_weights(config or WorldWeights(), progress=progress)
    save_model(open_model(stage.folder / BEST).half(), path)


def _task(pairs: Dataset, config: WorldWeights) -> WorldPairs:
    views = top_views(pairs.query[:], TopView.from_span(config.size_px, SPAN_M))
    camera = torch.from_numpy((pairs.query.positions.values - pairs.gallery.positions.values).astype(np.float32))
    return WorldPairs(views, pairs.gallery[:], camera, config)
