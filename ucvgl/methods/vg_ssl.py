"""VG-SSL (Xiao, Zhu, Loianno; WACV 2025): six self-supervised losses for place recognition, beside a triplet baseline.

One encoder for queries and database. A pair is a query and its best positive (see sampling.py); the loss is SimCLR's,
MoCo v2's, BYOL's, SimSiam's, Barlow Twins' or VICReg's, behind a projector that is dropped afterwards, or the triplet
loss on mined negatives. Places are compared by the encoder's own descriptors.

Differs from the published code: images within 25 m of each other are no negatives of each other (a switch); the last
epoch is kept; MoCo's queue starts empty; AdamW instead of Adam.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from ucvgl.augment import resized_crop, to_float
from ucvgl.data.container import ArrayImages, Dataset
from ucvgl.encoders import Encoder, EncoderConfig, TwoViewEncoder, load_model, save_model, two_view_encoder
from ucvgl.errors import InputError
from ucvgl.methods.common import BEST, device, embed_all
from ucvgl.methods.learner import Learner, Method, SslLoss
from ucvgl.metrics import retrieval_measures
from ucvgl.positions import Neighbours
from ucvgl.sampling import POSITIVE_M, best_positives, hardest_negatives, near_mask, random_negatives
from ucvgl.ssl_losses import embedding_std, is_collapsed, triplet
from ucvgl.training import Batch, Task, TrainingConfig, train

VERSION = 2  # of what the stage computes: raised when its numbers change, so that no stage of before is loaded
KS = (1, 5, 10, 20)
SPREAD_OF = 300  # queries, about, that the spread of the embeddings is measured on

# ------------------------------------------------------------------------------------------------------------- settings


@dataclass(frozen=True)
class VgSsl:
    """The settings of one method."""

    encoder: EncoderConfig
    loss: SslLoss
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(learning_rate=1e-5, batch_size=64))
    geopair: Literal["random", "partial"] = "random"  # 'partial': a hard negative enters as a pair of its own
    margin: float = 0.1  # triplet; VG-SSL 0.1
    negatives: int = 10  # of each query; triplet
    mining: Literal["full", "partial", "random"] = "partial"  # the triplet's negatives: from all, from a part, any
    pool: int = 1000  # random database images that partial mining looks at, an epoch; VG-SSL 1,000
    queries: int | None = None  # an epoch; None: all. VG-SSL 10,000
    mask_near: bool = True  # ours: images within 25 m are no negatives of each other in a batch
    crop: float = 0.75  # the least part of the area that a random crop keeps; VG-SSL 0.75
    augment: bool = True  # crops and flips
    frozen: int = 0  # first stages of the backbone that stay as they are; VG-SSL all before conv4 of ResNet-50
    fixed_norms: bool = False  # the encoder's batch norms keep their statistics; VG-SSL trains them
    version: int = VERSION

    def __post_init__(self) -> None:
        for name, known in (("geopair", ("random", "partial")), ("mining", ("full", "partial", "random"))):
            if getattr(self, name) not in known:
                raise InputError(f"VgSsl.{name}", expected=f"one of {', '.join(known)}",
                                 found=repr(getattr(self, name)), todo="Choose one.")  # fmt: skip
        if self.geopair == "partial" and self.method in ("moco", "triplet"):
            raise InputError(
                "VgSsl.geopair", expected=f"random with {self.method}", found="partial",
                todo="MoCo's negatives are in its queue, the triplet's are mined: see `mining`.",
            )  # fmt: skip

    @property
    def method(self) -> Method:
        """Its name."""
        return self.loss.method


# ----------------------------------------------------------------------------------------------------------------- task


@dataclass
class GeoPairs(Task):
    """Queries and their best positives, mined again before every epoch; with negatives where the method wants them."""

    given: Dataset
    config: VgSsl
    positive: Tensor | None = None  # (Q,) database index, -1: none within 10 m
    negative: Tensor | None = None  # (Q, k) database index, -1: fewer
    mining_seconds: float = 0.0  # of the last epoch

    def __post_init__(self) -> None:
        database, query = self.given.gallery.positions, self.given.query.positions
        offsets, near = Neighbours(database).within(query, POSITIVE_M)
        rows = torch.repeat_interleave(torch.arange(len(query)), torch.from_numpy(offsets).diff())
        self.pairs = torch.stack([rows, torch.from_numpy(near)], 1)  # (P, 2)
        self.query_m, self.database_m = (torch.tensor(p.values) for p in (query, database))
        self.items = rows.unique()  # queries that have a positive
        if not len(self.items):
            raise InputError(
                self.given.name, expected=f"a database image within {POSITIVE_M:g} m of one query at least", found="none",
                todo="Check that both have positions in one frame.",
            )  # fmt: skip

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
        queries, images = len(self.query_m), len(self.database_m)
        pool = self._pool(images, generator)
        pairs = self.pairs[_marked(drawn, queries)[self.pairs[:, 0]]]
        wanted = torch.cat((pairs[:, 1], pool)).unique()
        query, database = (
            _embedded(model, self.given.query.subset(drawn)),
            _embedded(model, self.given.gallery.subset(wanted)),
        )
        row, column = _places(drawn, queries), _places(wanted, images)
        best = best_positives(query, database, torch.stack([row[pairs[:, 0]], column[pairs[:, 1]]], 1))
        self.positive = torch.full((queries,), -1)
        self.positive[drawn] = wanted[best]
        config = self.config
        k = config.negatives if config.method == "triplet" else 1
        if config.method == "triplet" and config.mining == "random":
            found = random_negatives(self.query_m[drawn], self.database_m, k, generator)
        elif len(pool):
            found = hardest_negatives(query, database[column[pool]], self.query_m[drawn], self.database_m[pool], k)
            found = torch.where(found >= 0, pool[found.clamp(min=0)], -1)
        else:
            return
        self.negative = torch.full((queries, k), -1)
        self.negative[drawn] = found

    def _pool(self, images: int, generator: Generator) -> Tensor:
        """Database images that negatives are mined from; none where none are."""
        config = self.config
        if config.method == "triplet":
            if config.mining == "full":
                return torch.arange(images)
            mined = config.mining == "partial"
        else:
            mined = config.geopair == "partial"
        return torch.randperm(images, generator=generator)[: config.pool if mined else 0]

    def batch(self, items: Tensor, generator: Generator) -> Batch:
        """Query, positive; then the two views of a hard negative (partial), or the negatives (triplet)."""
        config, database = self.config, self.given.gallery
        place = self.query_m[items]
        inputs = [self._view(self.given.query[items], generator), to_float(database[self.positive[items]])]
        labels = [items, place]
        if self.negative is not None:
            found = self.negative[items]  # (b, k)
            images = database[found.clamp(min=0)]  # (b, k, 3, H, W)
            if config.method == "triplet":
                inputs.append(to_float(images.flatten(0, 1)).view(images.shape))
            else:
                inputs += [self._view(images[:, 0], generator) for _ in range(2)]
            labels += [found >= 0, self.database_m[found[:, 0].clamp(min=0)]]
        return Batch(tuple(inputs), tuple(labels))

    def _view(self, images: Tensor, generator: Generator) -> Tensor:
        """A random crop of most of the image, perhaps mirrored."""
        images = to_float(images)
        if not self.config.augment:
            return images
        flipped = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(flipped.view(-1, 1, 1, 1), images.flip(3), images)
        return resized_crop(images, self.config.crop, generator)

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
        if not self.config.mask_near:
            return model.loss(embeddings, items)
        if model.queue is None:
            return model.loss(embeddings, items, near=near_mask(place, place))
        where = self.query_m.to(place.device)
        return model.loss(embeddings, items, near_queue=near_mask(place, where[model.queue.items.clamp(min=0)]))

    def after_step(self, model: Learner, progress: float) -> None:
        """The momentum encoder, if there is one, follows."""
        model.follow()

    def state(self) -> dict[str, Tensor]:
        """What was mined."""
        mined = {"positive": self.positive, "negative": self.negative}
        return {name: value for name, value in mined.items() if value is not None}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes it back."""
        for name, value in state.items():
            setattr(self, name, value.cpu())


def _marked(index: Tensor, count: int) -> Tensor:
    """Bool (count,): which are in `index`."""
    return torch.zeros(count, dtype=torch.bool).index_fill_(0, index, True)


def _places(index: Tensor, count: int) -> Tensor:
    """Int64 (count,): where in `index` each number stands, -1 for none."""
    return torch.full((count,), -1).scatter_(0, index, torch.arange(len(index)))


def _embedded(model: Learner, images: ArrayImages) -> Tensor:
    return embed_all(model.encoder, images)


# ------------------------------------------------------------------------------------------------------------------ run


def learn(
    given: Dataset, config: VgSsl, tests: Mapping[str, Dataset], folder: Path, *, progress: bool = True
) -> dict[str, Any]:
    """Trains with one loss; `trained_encoder` opens the weights it leaves.

    Args:
        given: what is trained on.
        config: the method.
        tests: what is measured on, by name; nothing is chosen by it.
        folder: to write to.
        progress: show a bar.

    Returns:
        "rows", a row an epoch with the seconds of mining and the embeddings' standard deviation; "recall", by test, None
        where the embeddings collapsed; "collapsed"; "std"; "peak_mb", memory that training took on a GPU, else None; of
        its last part if it was resumed.

    Raises:
        InputError: no query has a positive, a queue longer than the set, a batch of one.
    """
    task = GeoPairs(given, config)
    views, model = _new_learner(given, config)
    sample = given.query.subset(range(0, len(given.query), max(1, len(given.query) // SPREAD_OF)))

    def measure(epoch: int, _: nn.Module) -> dict[str, float]:
        found = _embedded(model, sample)
        return {"std": float(embedding_std(found)), "mining_seconds": task.mining_seconds}

    on_gpu = device().type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        begun = torch.cuda.memory_allocated()
    rows = train(model, task, config.training, folder, name=config.method, after_epoch=measure, progress=progress)
    peak_mb = (torch.cuda.max_memory_allocated() - begun) / 2**20 if on_gpu else None
    save_model(views, folder / BEST)
    collapsed = is_collapsed(_embedded(model, sample))
    recall = {name: None if collapsed else evaluate(views, test) for name, test in tests.items()}
    return {"rows": rows, "recall": recall, "collapsed": collapsed, "std": rows[-1]["std"], "peak_mb": peak_mb}


def _new_learner(given: Dataset, config: VgSsl) -> tuple[TwoViewEncoder, Learner]:
    """The encoder as it begins, and what trains it, on the GPU if there is one."""
    views = untrained_encoder(config)
    freeze_stages(views.ground, config.frozen)
    items, seed = len(given.query), config.training.seed
    return views, Learner(views.ground, config.loss, seed, items, fixed_norms=config.fixed_norms).to(device())


def freeze_stages(encoder: Encoder, count: int) -> None:
    """Freeze the backbone up to the end of its first `count` stages, as timm's features_only counts them.

    Batch norms of frozen stages still follow the batches where they are in training mode.
    """
    stages = [f"{info['module']}." for info in encoder.backbone.feature_info]
    assert 0 <= count <= len(stages), f"{count} of {len(stages)} stages"
    named = list(encoder.backbone.named_parameters())  # in the order in which they are used
    inside = [i for i, (name, _) in enumerate(named) if name.startswith(tuple(stages[:count]))]
    if inside:
        end = inside[-1] + 1
    else:  # no stage, or a stem that ends with an activation, as ResNet's: all before the next stage
        end = next(i for i, (name, _) in enumerate(named) if name.startswith(stages[count])) if count else 0
    for _, parameter in named[:end]:
        parameter.requires_grad_(False)


def step_bytes(given: Dataset, config: VgSsl) -> int:
    """Bytes that one training step holds at the end of its forward pass, its images aside (see `training_bytes`)."""
    task = GeoPairs(given, replace(config, queries=config.training.batch_size))
    _, model = _new_learner(given, config)
    generator = Generator().manual_seed(config.training.seed)
    batch = task.batch(task.order(0, model, generator), generator)
    inputs, labels = (tuple(value.to(device()) for value in part) for part in batch)
    return training_bytes(model, inputs, lambda: task.loss(model, task.embed(model, inputs), labels))


def training_bytes(model: nn.Module, inputs: Sequence[Tensor], loss: Callable[[], object]) -> int:
    """What is held after the forward pass `loss`: what autograd keeps for the backward pass, the model with its buffers, and
    for each parameter that learns a gradient and AdamW's two moments; without the inputs. The same on every machine."""
    held = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in (*model.parameters(), *model.buffers())}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()  # held, so that no address is used twice
        held[storage.data_ptr()] = storage
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss()
    for value in inputs:
        held.pop(value.untyped_storage().data_ptr(), None)
    learnt = sum(3 * p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return sum(storage.nbytes() for storage in held.values()) + learnt


def trained_encoder(folder: Path, config: VgSsl) -> TwoViewEncoder:
    """The encoder that `learn` left in its folder, without projector, on the GPU if there is one."""
    model = untrained_encoder(config)
    load_model(model, folder / BEST)
    return model


def untrained_encoder(config: VgSsl) -> TwoViewEncoder:
    """The encoder as it begins, on the GPU if there is one."""
    model = two_view_encoder(config.encoder, config.encoder, shared=True, seed=config.training.seed)
    return model.to(device(), memory_format=torch.channels_last).eval()


def describe(model: TwoViewEncoder, test: Dataset) -> tuple[Tensor, Tensor]:
    """Descriptors of all queries (Q, D) and database images (M, D)."""
    return embed_all(model.ground, test.query), embed_all(model.ground, test.gallery)


def evaluate(model: TwoViewEncoder, test: Dataset) -> dict[str, float]:
    """R@1, 5, 10 and 20 in percent: a database image within 25 m among the first; over queries that have any."""
    ks = [k for k in KS if k <= len(test.gallery)]
    found = retrieval_measures(*describe(model, test), test.positives.pairs(), ks=ks)
    return {f"r_at_{k}": found[f"r_at_{k}"] for k in ks}
