"""What a method needs beside its encoder: a copy that follows it slowly, and a queue of the keys that copy made.

MoCo (He, Fan, Wu, Xie, Girshick; CVPR 2020) has both, BYOL (Grill et al.; NeurIPS 2020) the first. The copy is timm's
moving average. Differences from MoCo: the queue starts empty, where MoCo fills it with random vectors, so that no random
vector is ever a negative; its length need be no multiple of the batch; each key remembers its item, so that keys of places
near a query can be left out of its negatives. All state is in buffers and survives a checkpoint.
"""

import math

import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from ucvgl.errors import InputError


def momentum_copy(model: nn.Module, momentum: float = 0.999) -> ModelEmaV3:
    """A copy of the model to be moved by `update`, called like the model; without gradients, in training mode.

    In training mode its batch norms go by the batch, as in MoCo's and BYOL's code. When the task holds it, and not the
    model that is trained, the loop moves it to no device and saves it in no checkpoint: the task does.

    Args:
        model: what is followed: the encoder, with its projector if it has one, without the predictor.
        momentum: the part of the copy that stays at each update; MoCo 0.999, VG-SSL's BYOL 0.99.

    Raises:
        InputError: a momentum outside 0..1.
    """
    _check_part("momentum_copy: momentum", momentum)
    ema = ModelEmaV3(model, decay=momentum, exclude_buffers=True)
    return ema.requires_grad_(False).train()


def update(ema: ModelEmaV3, model: nn.Module, momentum: float | None = None) -> None:
    """Moves the copy, after a step of the optimiser: parameters to momentum * copy + (1 - momentum) * model.

    Buffers, such as the running statistics of batch norms, are copied from the model, not averaged: in training mode
    they change nothing, and in evaluation mode they are the model's, not the copy's own.

    Args:
        ema: as `momentum_copy` made it; changed in place.
        model: what it follows.
        momentum: of this update and those after it; None: as before.

    Raises:
        InputError: a momentum outside 0..1, or a model of other parameters.
    """
    if momentum is not None:
        _check_part("update: momentum", momentum)
        ema.decay = momentum
    then, now = ([tuple(p.shape) for p in part.parameters()] for part in (ema.module, model))
    if then != now:
        raise InputError(
            "update: model", expected=f"the {len(then)} parameters that were copied", found=f"{len(now)}, or other shapes",
            todo="Give it the module that momentum_copy was given.",
        )  # fmt: skip
    ema.update(model)


def byol_momentum(base: float, progress: float) -> float:
    """1 - (1 - base) (cos(pi progress) + 1) / 2: from `base` at the start to 1 at the end of training.

    Source: BYOL (Grill et al.; NeurIPS 2020), section 3.3. VG-SSL's code keeps 0.99 throughout.

    Args:
        base: 0..1; BYOL 0.996, its short trainings 0.99.
        progress: 0..1, the part of training that is done, as a task's `after_step` gets it.

    Raises:
        InputError: either outside 0..1.
    """
    _check_part("byol_momentum: base", base)
    _check_part("byol_momentum: progress", progress)
    return 1 - (1 - base) * (math.cos(math.pi * progress) + 1) / 2


def _check_part(where: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(where, expected="0 to 1", found=value, todo="Change this setting.")


class Queue(nn.Module):
    """The last `size` keys and the item of each, in a ring: a new key takes the place of the oldest.

    Empty at first. The shapes never change and nothing looks at values, so that no GPU waits: entries not yet filled
    are marked by `empty`, which belongs into the `not_negative` of `ucvgl.ssl_losses.moco`. With every entry empty, as at
    the first step, that loss is 0 and without gradient.

    Source: MoCo (He et al.; CVPR 2020), section 3.2.

    Args:
        size: keys held; MoCo and VG-SSL 65,536.
        dim: numbers of a key.
        set_size: items in the training set, if known: a longer queue would hold keys of the same item several times.

    Attributes:
        keys: (size, dim) float32, unit vectors; 0 where empty.
        items: (size,) int64, the item of each key, by which its position can be looked up; -1 where empty.
        pushed: int64 scalar, keys put in since the start; the next goes to entry pushed % size.

    Raises:
        InputError: a size or dim below 1, or more entries than items.
    """

    keys: Tensor
    items: Tensor
    pushed: Tensor

    def __init__(self, size: int, dim: int, *, set_size: int | None = None) -> None:
        super().__init__()
        for name, value in (("size", size), ("dim", dim)):
            if value < 1:
                raise InputError(f"Queue: {name}", expected="at least 1", found=value, todo="Change this setting.")
        if set_size is not None and size > set_size:
            raise InputError(
                "Queue: size", expected=f"at most the {set_size} items of the training set", found=size,
                todo="Shorten the queue: it would hold the same item more than once.",
            )  # fmt: skip
        self.register_buffer("keys", torch.zeros(size, dim))
        self.register_buffer("items", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("pushed", torch.tensor(0))

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def empty(self) -> Tensor:
        """(size,) bool: entries not yet filled."""
        return self.items < 0

    def negatives(self) -> tuple[Tensor, Tensor, Tensor]:
        """(size, dim) keys, (size,) items, (size,) `empty`: copies, which a `push` before the backward pass leaves alone."""
        return self.keys.clone(), self.items.clone(), self.empty

    @torch.no_grad()
    def push(self, keys: Tensor, items: Tensor) -> None:
        """Puts a batch in, after the loss that it was the positives of; of more keys than entries the last stay.

        With several processes all of them put in the same keys, those of all processes, which is what a task's `loss`
        gets.

        Args:
            keys: (B, dim), normalised here, of the momentum encoder.
            items: (B,) int64, 0 or more.

        Raises:
            InputError: shapes or types that do not fit.
        """
        if keys.ndim != 2 or keys.shape[1] != self.keys.shape[1]:
            raise InputError(
                "Queue.push: keys", expected=f"(B, {self.keys.shape[1]})", found=tuple(keys.shape),
                todo="Build the queue with the width of the embeddings.",
            )  # fmt: skip
        if items.shape != keys.shape[:1] or items.dtype != torch.int64:
            raise InputError(
                "Queue.push: items", expected=f"int64 ({len(keys)},)", found=f"{items.dtype} {tuple(items.shape)}",
                todo="Name the item of each key.",
            )  # fmt: skip
        size, count = len(self), len(keys)
        kept = min(count, size)
        entries = (self.pushed + torch.arange(count - kept, count, device=self.pushed.device)) % size
        self.keys[entries] = F.normalize(keys[count - kept :].to(self.keys), dim=1)
        self.items[entries] = items[count - kept :].to(self.items.device)
        self.pushed += count
