"""VG-SSL (Xiao, Zhu, Loianno; WACV 2025): six self-supervised losses for place recognition, beside a triplet baseline.

One encoder for queries and database. A pair is a query and its best positive (see sampling.py); the loss is one of
`heads`, behind a projector that is dropped afterwards, or the triplet loss on mined negatives. Differs from the
published code: images within 25 m are no negatives of each other (a switch); a positive looks the same way where
headings are known; the last epoch is kept; MoCo's queue starts empty; AdamW with a cosine, not Adam at one rate."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from ucvgl import checkpoints
from ucvgl.augment import resized_crop, to_float
from ucvgl.data.container import ArrayImages, Dataset
from ucvgl.encoders import EncoderConfig, TwoViewEncoder, save_model, two_view_encoder
from ucvgl.errors import InputError, one_of
from ucvgl.heads import Learner, Method, SslLoss
from ucvgl.methods.common import BEST, describe, device, embed_all
from ucvgl.metrics import retrieval_measures
from ucvgl.positions import Neighbours
from ucvgl.sampling import CHUNK, POSITIVE_M, best_positives, hardest_negatives, near_mask, random_negatives, same_way
from ucvgl.ssl_losses import embedding_std, is_collapsed, triplet
from ucvgl.training import CHECKPOINT, Batch, Task, TrainingConfig, train

SPREAD_OF = 300  # queries, about, that the spread of the embeddings is measured on


@dataclass(frozen=True)
class VgSsl:
    """The settings of one method."""

    encoder: EncoderConfig
    loss: SslLoss
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(learning_rate=1e-5, batch_size=64))
    # 'partial': a hard negative enters as a pair of its own, and a batch has half as many queries
    geopair: Literal["random", "partial"] = "random"
    margin: float = 0.1  # triplet; VG-SSL 0.1
    negatives: int = 10  # of each query; triplet
    mining: Literal["full", "partial", "random"] = "partial"  # the triplet's negatives: from all, from a part, any
    pool: int = 1000  # random database images that partial mining looks at, an epoch; VG-SSL 1,000
    queries: int | None = None  # an epoch; None: all. VG-SSL 10,000
    mask_near: bool = True  # ours: images within 25 m are no negatives of each other in a batch
    crop: float = 0.75  # the least part of the area that a random crop keeps; VG-SSL 0.75
    crop_ratio: float | None = 4 / 3  # a crop's greatest width over height, and height over width; None: as the image
    augment: bool = True  # crops and flips
    fixed_norms: bool = False  # the encoder's batch norms keep their statistics; VG-SSL trains them
    version: int = 3  # of what the stage computes: raised when its numbers change, so that no stage of before is loaded

    def __post_init__(self) -> None:
        geopairs = ("random",) if self.method in ("moco", "triplet") else ("random", "partial")
        one_of("VgSsl.geopair", self.geopair, geopairs, "MoCo's negatives are in its queue, the triplet's are mined.")
        one_of("VgSsl.mining", self.mining, ("full", "partial", "random"), "Choose one.")

    @property
    def method(self) -> Method:
        """Its name."""
        return self.loss.method

    @property
    def images_a_query(self) -> int:
        """Its own and its positive; of the partial form a hard negative twice, or the triplet's negatives."""
        return 2 + (self.negatives if self.method == "triplet" else 2 if self.geopair == "partial" else 0)

    @property
    def loop(self) -> TrainingConfig:
        """The training, whose batch counts pairs: of the partial form half of them are of a query."""
        size = self.training.batch_size // (2 if self.geopair == "partial" else 1)
        return replace(self.training, batch_size=size)


@dataclass
class GeoPairs(Task):
    """Queries and their best positives, mined again before every epoch; with negatives where the method wants them."""

    kept = ("positive", "negative")
    given: Dataset
    config: VgSsl
    positive: Tensor | None = None  # (Q,) database index, -1: none within 10 m
    negative: Tensor | None = None  # (Q, k) database index, -1: fewer
    mining_seconds: float = 0.0  # of the last epoch

    def __post_init__(self) -> None:
        database, query = self.given.gallery.positions, self.given.query.positions
        offsets, near = Neighbours(database).within(query, POSITIVE_M)
        rows = torch.repeat_interleave(torch.arange(len(query)), torch.from_numpy(offsets).diff())
        pairs = torch.stack([rows, torch.from_numpy(near)], 1)  # (P, 2)
        self.pairs = pairs[same_way(query.heading_deg, database.heading_deg, pairs)]
        self.query_m, self.database_m = (torch.tensor(p.values) for p in (query, database))
        self.items = self.pairs[:, 0].unique()  # queries that have a positive
        if not len(self.items):
            expected = f"a database image within {POSITIVE_M:g} m of one query at least, facing its way"
            raise InputError(self.given.name, expected, "none", "Check that both have positions in one frame.")

    def order(self, epoch: int, model: Learner, generator: Generator) -> Tensor:
        """Draws the epoch's queries, and mines for them."""
        drawn = self.items[torch.randperm(len(self.items), generator=generator)][: self.config.queries]
        begun = time.perf_counter()
        model.eval()
        self._mine(model, drawn, generator)
        model.train()
        self.mining_seconds = time.perf_counter() - begun
        return drawn

    def _mine(self, model: Learner, drawn: Tensor, generator: Generator) -> None:
        """Positives and negatives of the queries drawn; what is no candidate of theirs is not even embedded."""
        config, given, triplets = self.config, self.given, self.config.method == "triplet"
        asked, pairs = drawn.sort().values, self.pairs[torch.isin(self.pairs[:, 0], drawn)]
        pool = torch.arange(len(given.gallery))  # database images that negatives are mined from
        if not (triplets and config.mining == "full"):
            mined = (config.mining if triplets else config.geopair) == "partial"
            pool = torch.randperm(len(given.gallery), generator=generator)[: config.pool if mined else 0]
        wanted = torch.cat((pairs[:, 1], pool)).unique()
        query, database = (_projected(model, i) for i in (given.query.subset(asked), given.gallery.subset(wanted)))
        row, column = pairs.T.contiguous()
        rows = torch.stack([torch.searchsorted(asked, row), torch.searchsorted(wanted, column)], 1)
        self.positive = torch.full((len(given),), -1)
        self.positive[asked] = wanted[best_positives(query, database, rows)]
        k, asked_m = config.negatives if triplets else 1, self.query_m[asked]
        if triplets and config.mining == "random":
            found = random_negatives(asked_m, self.database_m, k, generator)
        elif len(pool):
            candidates = database[torch.searchsorted(wanted, pool)]
            found = hardest_negatives(query, candidates, asked_m, self.database_m[pool], k)
            found = torch.where(found >= 0, pool[found.clamp(min=0)], -1)
        else:
            return
        self.negative = torch.full((len(given), k), -1)
        self.negative[asked] = found

    def batch(self, items: Tensor, generator: Generator) -> Batch:
        """Query, positive; then the two views of a hard negative (partial), or the negatives (triplet). One coin
        mirrors them all: a pair mirrored on one side would be another street."""
        config, database = self.config, self.given.gallery
        mirrored = config.augment and bool(torch.rand((), generator=generator) < 0.5)

        def view(images: Tensor) -> Tensor:
            images = to_float(images)
            return resized_crop(images, config.crop, generator, ratio=config.crop_ratio) if config.augment else images

        inputs = [view(self.given.query[items]), to_float(database[self.positive[items]])]
        labels = [items, self.query_m[items]]
        if self.negative is not None:
            found = self.negative[items]  # (b, k)
            images = database[found.clamp(min=0)]  # (b, k, 3, H, W)
            if config.method == "triplet":
                inputs.append(to_float(images.flatten(0, 1)).view(images.shape))
            else:
                inputs += [view(images[:, 0]), view(images[:, 0])]
            labels += [found >= 0, self.database_m[found[:, 0].clamp(min=0)]]
        return Batch(tuple(image.flip(-1) if mirrored else image for image in inputs), tuple(labels))

    def embed(self, model: Learner, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What the loss compares; with hard negatives as pairs of their own, two parts for each tensor of it."""
        if self.config.method == "triplet":
            negatives = inputs[2].flatten(0, 1)
            return model(inputs[0]), model(inputs[1]), model(negatives).view(*inputs[2].shape[:2], -1)
        if len(inputs) == 2:
            return model.compared(*inputs)
        query, positive, *views = inputs
        parts = model.compared(torch.cat((query, views[0])), torch.cat((positive, views[1])))
        # apart again: the loop gathers rows over processes, which must stay in the order of the labels
        return tuple(half for part in parts for half in part.chunk(2))

    def loss(self, model: Learner, embeddings: tuple[Tensor, ...], labels: tuple[Tensor, ...]) -> Tensor:
        """The method's."""
        items, place, *more = labels
        if self.config.method == "triplet":
            return triplet(*embeddings, self.config.margin, present=more[0])
        if more:
            embeddings = tuple(torch.cat(embeddings[i : i + 2]) for i in range(0, len(embeddings), 2))
            place = torch.cat((place, more[1]))
        near = None
        if self.config.mask_near:
            queued = None if model.queue is None else model.queue.items.clamp(min=0)
            near = near_mask(place, place if queued is None else self.query_m.to(place.device)[queued])
        return model.loss(embeddings, items, near)

    def after_step(self, model: Learner, progress: float) -> None:
        """The momentum encoder, if there is one, follows."""
        model.follow()


@torch.no_grad()
def _projected(model: Learner, images: ArrayImages) -> Tensor:
    """What the loss compares, by whose distance is mined, as published: (N, D) on the CPU."""
    return torch.cat([model.projector(z.to(device())).cpu() for z in embed_all(model.encoder, images).split(CHUNK)])


def learn(given: Dataset, config: VgSsl, tests: Mapping[str, Dataset], folder: Path) -> dict[str, Any]:
    """Trains on `given` with one loss, and leaves the encoder's weights in `folder`. Gives "rows", a row
    an epoch with the seconds of mining and the embeddings' standard deviation; "recall", by test, None where the
    embeddings "collapsed"; "std". InputError: no query has a positive, a queue longer than the set."""
    task = GeoPairs(given, config)
    views, model = new_learner(given, config)
    sample = given.query.subset(range(0, len(given.query), max(1, len(given.query) // SPREAD_OF)))

    def measure(epoch: int, _: nn.Module) -> dict[str, float]:
        return {"std": float(embedding_std(embed_all(model.encoder, sample))), "mining_seconds": task.mining_seconds}

    rows = train(model, task, config.loop, folder, name=config.method, after_epoch=measure)
    save_model(views, folder / BEST)
    collapsed = is_collapsed(embed_all(model.encoder, sample))
    recall = {name: None if collapsed else evaluate(views, test) for name, test in tests.items()}
    return {"rows": rows, "recall": recall, "collapsed": collapsed, "std": rows[-1]["std"]}


def new_learner(given: Dataset, config: VgSsl) -> tuple[TwoViewEncoder, Learner]:
    """The encoder as it begins, and what trains it with its heads, on the GPU if there is one."""
    views, seed = untrained_encoder(config), config.training.seed
    return views, Learner(views.ground, config.loss, seed, len(given.query), config.fixed_norms).to(device())


def trained_learner(folder: Path, given: Dataset, config: VgSsl) -> Learner:
    """The encoder that `learn` left in its folder, with the heads that it was trained with, on the GPU if there is one."""
    path, model = folder / CHECKPOINT, new_learner(given, config)[1]
    checkpoints.fill(path, checkpoints.weights_of(model), checkpoints.without("model.", checkpoints.read(path)[1]))
    return model.eval()


def untrained_encoder(config: VgSsl) -> TwoViewEncoder:
    """The encoder as it begins, on the GPU if there is one."""
    model = two_view_encoder(config.encoder, config.encoder, shared=True, seed=config.training.seed)
    return model.to(device(), memory_format=torch.channels_last).eval()


def evaluate(model: TwoViewEncoder, test: Dataset) -> dict[str, float]:
    """R@1, 5, 10 and 20 in percent: a database image within 25 m among the first; over queries that have any."""
    ks = [k for k in (1, 5, 10, 20) if k <= len(test.gallery)]
    found = retrieval_measures(*describe(model, test), test.positives.pairs(), ks=ks)
    return {f"r_at_{k}": found[f"r_at_{k}"] for k in ks}
