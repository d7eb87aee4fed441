"""What a training step holds in memory: the price of a method beside its time, and whether a step fits before it starts."""

import functools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from ucvgl.data.container import Dataset
from ucvgl.encoders import Encoder, EncoderConfig
from ucvgl.errors import InputError
from ucvgl.methods.common import device
from ucvgl.methods.sample4geo import Sample4Geo
from ucvgl.methods.ucvgl import Curriculum, Pretraining
from ucvgl.methods.vg_ssl import GeoPairs, VgSsl, new_learner
from ucvgl.training import HALF, TrainingConfig, adamw


@dataclass(frozen=True)
class Step:
    """What a training step holds, about: `fixed` bytes, and `row` for each of the `rows` that are embedded at a time."""

    fixed: int  # weights and AdamW's two moments of all encoders, and gradients as they come
    row: int  # what autograd keeps of every view of a row
    rows: int

    @property
    def peak(self) -> int:
        """Bytes, about."""
        return self.fixed + self.rows * self.row


def step_of(name: str, config: object) -> Step | None:
    """Of a stage's training, by its name and its settings; None where it trains no encoders. Nothing is computed: the encoders
    are of torch's fake tensors. Projectors and queues, which are small, are left out."""
    match config:
        case Pretraining():
            training, views = (config.intra, 2) if name == "intra-view" else (config.cross, 1)
            encoders = [(config.ground, views), (config.satellite, views)]
        case Curriculum():
            training, encoders = config.training, [(config.start.ground, 1), (config.start.satellite, 1)]
        case Sample4Geo():
            training, encoders = config.training, [(config.ground, 1), (config.satellite, 1)]
        case VgSsl():
            training, encoders = config.loop, [(config.encoder, config.images_a_query)]
        case _:
            return None
    if training is None:
        return None
    held = [(*encoder_bytes(encoder, training.precision), views) for encoder, views in encoders]
    shared = isinstance(config, Sample4Geo) and config.shared
    copies = 1.25 if isinstance(config, VgSsl) and config.method in ("moco", "byol") else 1  # the momentum encoder
    fixed = int(copies * sum(fixed for fixed, _, _ in held[: 1 if shared else None]))
    return Step(fixed, sum(image * views for _, image, views in held), training.chunk or training.batch_size)


@functools.cache
def encoder_bytes(config: EncoderConfig, precision: str) -> tuple[int, int]:
    """What training an encoder holds at its peak however many images a step has, and for each image: counted over
    two steps on fake tensors, of 64 and of 128 images."""
    with torch.device("meta"):  # some backbones read numbers while they are built, which fake tensors have none of
        encoder = Encoder(replace(config, pretrained="none"))
    encoder.backbone.requires_grad_(not config.frozen)
    with FakeTensorMode(allow_non_fake_inputs=True):
        encoder.to_empty(device="cpu")
        # so many that the peak lies in the backward pass, not in the optimiser's step
        few, many = (_peak(encoder, count, HALF.get(precision)) for count in (64, 128))
    image = (many - few) // 64
    return few - 64 * image, image


class _Live(TorchDispatchMode):
    """Counts the bytes of the storages that live, and the most that ever did."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}  # bytes by storage
        self.now = self.peak = 0

    def count(self, value: object) -> None:
        """Takes the storage of a tensor into account, until it is freed."""
        if not isinstance(value, Tensor) or id(storage := value.untyped_storage()) in self.live:
            return
        self.live[id(storage)] = storage.nbytes()
        weakref.finalize(storage, self._freed, id(storage))
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)

    def _freed(self, storage: int) -> None:
        self.now -= self.live.pop(storage)

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = operation(*args, **(kwargs or {}))
        tree_map(self.count, out)
        return out


def _peak(encoder: Encoder, count: int, half: torch.dtype | None) -> int:
    encoder.zero_grad()
    optimiser, live = adamw(encoder, TrainingConfig()), _Live()
    tree_map(live.count, list(encoder.parameters()))
    with live:
        images = torch.zeros(count, 3, *encoder.config.image_px)
        for _ in range(2):  # the moments come with the first step
            optimiser.zero_grad()
            with torch.autocast("cpu", half, enabled=half is not None):
                descriptors = encoder(images)
            descriptors.sum().backward()
            optimiser.step()
    return live.peak


def check_fits(key: str, step: Step | None, available: int) -> None:
    """InputError, before anything runs, if a step takes more than the bytes that a device has; says how many rows would fit."""
    if step is None or step.peak <= available:
        return
    fits = (available - step.fixed) // max(1, step.row)
    todo = f"Embed at most {fits} rows at a time: TrainingConfig.chunk={fits} changes no gradient but those of batch norms."
    raise InputError(key, expected=f"a step of at most {available / 2**30:.1f} GiB, this device's memory",
                     found=f"about {step.peak / 2**30:.1f} GiB for {step.rows} rows",
                     todo=todo if fits > 0 else "Take a smaller backbone or smaller images: not even one row fits.")  # fmt: skip


def step_bytes(given: Dataset, config: VgSsl) -> int:
    """Bytes that one training step holds at the end of its forward pass, its images aside (see `training_bytes`)."""
    task = GeoPairs(given, replace(config, queries=config.training.batch_size))
    _, model = new_learner(given, config)
    generator = Generator().manual_seed(config.training.seed)
    batch = task.batch(task.order(0, model, generator), generator)
    inputs, labels = (tuple(value.to(device()) for value in part) for part in batch)
    return training_bytes(model, inputs, lambda: task.loss(model, task.embed(model, inputs), labels))


def training_bytes(model: nn.Module, inputs: Sequence[Tensor], loss: Callable[[], object]) -> int:
    """What is held after the forward pass `loss`: what autograd keeps for the backward pass, the model with its buffers, and
    for each parameter that learns a gradient and AdamW's two moments; without the inputs. The same on every machine."""
    # by the storage itself: fake tensors have no address
    held = {t.untyped_storage()._cdata: t.untyped_storage() for t in (*model.parameters(), *model.buffers())}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()  # held, so that no address is used twice
        held[storage._cdata] = storage
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss()
    for value in inputs:
        held.pop(value.untyped_storage()._cdata, None)
    learnt = sum(3 * p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return sum(storage.nbytes() for storage in held.values()) + learnt
