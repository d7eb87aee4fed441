"""Gradients of a loss over a whole batch of embeddings, with only a few images' activations in memory at a time.

Gradient caching (Gao, Zhang, Han, Callan 2021, 'Scaling deep contrastive learning batch size under memory limited
setup', section 3): embed all chunks without a graph; differentiate the loss by the embeddings; embed each chunk again,
with a graph, from the same random state, and send its rows of that gradient back through it. The result is the gradient
of the whole batch, for the price of one more forward pass.

Batch normalisation is the exception: in training it normalises by the statistics of the chunk, not of the batch. Its
running statistics are updated once for each chunk, in the second pass alone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ucvgl.errors import InputError

Embed = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
Loss = Callable[[tuple[Tensor, ...]], Tensor]


def backward(embed: Embed, inputs: tuple[Tensor, ...], loss: Loss, scale: Loss | None = None) -> Tensor:
    """One forward and one backward pass over the whole batch: what `cached_backward` must equal.

    Args:
        embed: (b, ...) inputs -> (b, D) embeddings, any number of each.
        inputs: tensors of one first dimension B.
        loss: (B, D) embeddings -> a scalar.
        scale: of the loss before the backward pass, as torch's GradScaler gives it; None leaves it as it is.

    Returns:
        the loss, without its graph; gradients are added to the parameters' `.grad`.
    """
    value = loss(embed(inputs))
    (scale(value) if scale else value).backward()
    return value.detach()


def cached_backward(
    embed: Embed, inputs: tuple[Tensor, ...], loss: Loss, scale: Loss | None = None, *, chunk: int, model: nn.Module
) -> Tensor:
    """As `backward`, with the activations of `chunk` rows held at a time.

    Args:
        embed: as in `backward`; its rows must not depend on each other.
        inputs: as in `backward`.
        loss: as in `backward`; computed once, its own parameters get their gradient as ever.
        scale: as in `backward`.
        chunk: rows embedded at a time, at least 1.
        model: the model in `embed`, whose batch norms must not update twice.

    Raises:
        InputError: a chunk below 1.
    """
    if chunk < 1:
        raise InputError("chunk", expected="at least 1 image", found=chunk, todo="Give None for the whole batch.")
    if chunk >= len(inputs[0]):
        return backward(embed, inputs, loss, scale)
    device = inputs[0].device
    rows = [slice(start, start + chunk) for start in range(0, len(inputs[0]), chunk)]
    states, parts = [], []
    with torch.no_grad(), _running_statistics_kept(model):
        for row in rows:
            states.append(_random_state(device))
            parts.append(embed(tuple(value[row] for value in inputs)))
    leaves = tuple(torch.cat(part).requires_grad_() for part in zip(*parts, strict=True))  # (B, D) each
    value = loss(leaves)
    (scale(value) if scale else value).backward()
    after = _random_state(device)
    for row, state in zip(rows, states, strict=True):
        _set_random_state(device, state)
        embeddings = embed(tuple(value[row] for value in inputs))
        pairs = [(e, leaf.grad[row]) for e, leaf in zip(embeddings, leaves, strict=True) if _learns(e, leaf)]
        if pairs:
            torch.autograd.backward(*zip(*pairs, strict=True))
    _set_random_state(device, after)
    return value.detach()


def _learns(embedding: Tensor, leaf: Tensor) -> bool:
    """Whether there is a way from the loss to the parameters: not for a frozen encoder, nor for an unused output."""
    return embedding.requires_grad and leaf.grad is not None


def _random_state(device: torch.device) -> tuple[Tensor, ...]:
    """The states of torch's own generators, which dropout and drop path draw from."""
    state = (torch.get_rng_state(),)
    return (*state, torch.get_device_module(device).get_rng_state()) if device.type != "cpu" else state


def _set_random_state(device: torch.device, state: tuple[Tensor, ...]) -> None:
    torch.set_rng_state(state[0])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state[1])


@contextmanager
def _running_statistics_kept(model: nn.Module) -> Iterator[None]:
    """Batch norms in training normalise as ever, but leave their running mean and variance alone."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
