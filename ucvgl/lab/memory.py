"""What a training step of VG-SSL holds in memory: the price of a method beside its time."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor, nn

from ucvgl.data.container import Dataset
from ucvgl.methods.common import device
from ucvgl.methods.vg_ssl import GeoPairs, VgSsl, new_learner


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
