"""Distributed training: what the loop and the embedding of large sets need of torch.distributed, NCCL (GPUs) or gloo (CPUs).

`torchrun --nproc-per-node 2 ...` or `accelerate launch ...` starts the processes; a single one gets its arguments back."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, broadcast_object_list, gather_object, reduce
from accelerate.utils import gather as rows_of_all
from torch import Tensor

PATIENCE = timedelta(days=7)  # one process may render a world for hours; the launcher ends those that wait in vain


def processes() -> PartialState:
    """This process's place. Not an Accelerator, which fixes the precision for the whole life of a process."""
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)


def from_first(value: Any) -> Any:
    """The main process's value, in all; a tensor must be on the CPU."""
    return value if processes().num_processes == 1 else broadcast_object_list([value])[0]


def joined(own: Tensor) -> Tensor:
    """The rows of all processes, one process after the other; on the CPU, without gradients, of any number each."""
    return own if processes().num_processes == 1 else torch.cat(gather_object([own]))


class _Gather(torch.autograd.Function):
    """torch.distributed.nn's is deprecated. All tensors in one, so that collectives keep one order, backwards too."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.rows = len(tensors[0])
        # gloo sends no bool
        sent = [value.to(torch.uint8) if value.dtype == torch.bool else value for value in tensors]
        return tuple(rows.to(value.dtype) for rows, value in zip(rows_of_all(sent), tensors, strict=True))

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, ...]:
        first = processes().process_index * ctx.rows
        return tuple(reduce(g.contiguous(), "sum")[first : first + ctx.rows] for g in gradients)


def gather(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Each (b, ...) tensor -> (processes * b, ...), in the processes' order. Gradients come back summed over the processes: with
    those of parameters averaged (`average_`), a loss over gathered rows has the gradient of one process that held all."""
    return _Gather.apply(*tensors) if tensors and processes().num_processes > 1 else tensors


def average_(tensors: Iterable[Tensor]) -> None:
    """Replaces each tensor by its mean over the processes; all must pass the same ones in the same order."""
    if processes().num_processes > 1:
        for value in tensors:
            value.copy_(reduce(value.contiguous(), "mean"))


def copy_from_first_(tensors: Iterable[Tensor]) -> None:
    """Overwrites each tensor by the main process's."""
    if processes().num_processes > 1:
        for value in tensors:
            value.copy_(broadcast(value.contiguous()))
