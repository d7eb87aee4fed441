"""What a training step works on and holds in memory: the price of a method, and whether a step fits before it starts."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ucvgl.data.container import Dataset
from ucvgl.encoders import Encoder, EncoderConfig
from ucvgl.errors import InputError
from ucvgl.methods.common import device
from ucvgl.methods.pretraining_losses import WithLoss
from ucvgl.methods.sample4geo import Sample4Geo
from ucvgl.methods.ucvgl import Curriculum, Pretraining
from ucvgl.methods.vg_ssl import GeoPairs, VgSsl, new_learner
from ucvgl.training import HALF, TrainingConfig

GIB = 2**30


def training_of(name: str, config: object) -> tuple[TrainingConfig, list[tuple[EncoderConfig, int]]] | None:
    """What a stage trains, by its name and its settings: the loop, and each encoder with the images of a row that it embeds in
    a step; None for nothing."""
    training: TrainingConfig | None
    match config:
        case WithLoss():
            return training_of("cross-view", config.start)
        case Pretraining() if name == "intra-view":
            training, views = config.intra, [(config.ground, 2), (config.satellite, 2)]
        case Pretraining():
            with_tiles = config.occlusion is not None and config.projection  # and their synthetic top views
            training, views = config.cross, [(config.ground, 1), (config.satellite, 3 if with_tiles else 1)]
        case Curriculum():
            training, views = config.training, [(config.start.ground, 1), (config.start.satellite, 1)]
        case Sample4Geo():
            training, views = config.training, [(config.ground, 1), (config.satellite, 1)]
        case VgSsl():
            training, views = config.loop, [(config.encoder, config.images_a_query)]
        case _:
            return None
    return None if training is None else (training, views)


@dataclass(frozen=True)
class Step:
    """What a training step holds, about: `fixed` bytes, and `row` for each of the `rows` that are embedded at a time."""

    fixed: int  # weights, gradients and AdamW's two moments of all encoders
    row: int  # what autograd keeps of every view of a row
    rows: int

    @property
    def peak(self) -> int:
        """Bytes, about."""
        return self.fixed + self.rows * self.row


def step_of(name: str, config: object) -> Step | None:
    """Of a stage's training, by its name and its settings; None where it trains no encoders. Nothing is computed.

    Left out: projectors and queues, which are small, and what a frozen backbone holds only while it is passed.
    """
    trained = training_of(name, config)
    if trained is None:
        return None
    training, views = trained
    held = [(*encoder_bytes(encoder, training.precision), images) for encoder, images in views]
    shared = isinstance(config, Sample4Geo) and config.shared
    copies = 1.25 if isinstance(config, VgSsl) and config.method in ("moco", "byol") else 1  # the momentum encoder
    fixed = int(copies * sum(fixed for fixed, _, _ in held[: 1 if shared else None]))
    return Step(fixed, sum(image * images for _, image, images in held), training.chunk or training.batch_size)


@functools.cache
def encoder_bytes(config: EncoderConfig, precision: str) -> tuple[int, int]:
    """What training an encoder holds however many images a step has, and for each image: counted on torch's fake tensors,
    of 8 and of 16 images."""
    with torch.device("meta"):  # some backbones read numbers while they are built, which fake tensors have none of
        encoder = Encoder(replace(config, pretrained="none"))
    encoder.backbone.requires_grad_(not config.frozen)
    half = HALF.get(precision)

    def embed(images: Tensor) -> None:
        with torch.autocast("cpu", half, enabled=half is not None):
            encoder(images)

    with FakeTensorMode(allow_non_fake_inputs=True):
        encoder.to_empty(device="cpu")
        batches = [torch.zeros(count, 3, *config.image_px) for count in (8, 16)]
        few, many = (training_bytes(encoder, [images], lambda images=images: embed(images)) for images in batches)
    image = (many - few) // 8
    return few - 8 * image, image


def check_fits(key: str, step: Step | None, available: int) -> None:
    """InputError, before anything runs, if a step takes more than the bytes that a device has; says how many rows would fit."""
    if step is None or step.peak <= available:
        return
    fits = (available - step.fixed) // max(1, step.row)
    todo = f"Embed at most {fits} rows at a time: TrainingConfig.chunk={fits} changes no gradient but those of batch norms."
    raise InputError(key, expected=f"a step of at most {available / GIB:.1f} GiB, this device's memory",
                     found=f"about {step.peak / GIB:.1f} GiB for {step.rows} rows",
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
