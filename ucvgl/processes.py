"""The processes that train together: which device each has, and embeddings, gradients and labels shared among them.

`torchrun --nproc-per-node 2 ...` or `accelerate launch ...` starts them; without either there is one, and everything
here leaves its arguments alone. The collectives work the same over NCCL (GPUs) and gloo (CPUs).
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from accelerate import PartialState
from safetensors.torch import load, save
from torch import Tensor


def processes() -> PartialState:
    """This process's place: `.device`, `.num_processes`, `.process_index`, `.is_main_process`, `.wait_for_everyone()`.

    Accelerate's PartialState and not its Accelerator: the latter fixes the precision for the whole life of a process,
    and a notebook trains with more than one.
    """
    return PartialState(cpu=not torch.accelerator.is_available())


class _Gather(torch.autograd.Function):
    """All of them in one function, so that the collectives come in one order in every process, backwards too."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.rows = len(tensors[0])
        return tuple(_gathered(value) for value in tensors)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, ...]:
        first = dist.get_rank() * ctx.rows
        out = []
        for gradient in gradients:
            gradient = gradient.clone(memory_format=torch.contiguous_format)
            dist.all_reduce(gradient)
            out.append(gradient[first : first + ctx.rows])
        return tuple(out)


def _gathered(value: Tensor) -> Tensor:
    sent = (value.to(torch.uint8) if value.dtype == torch.bool else value).contiguous()
    out = [torch.empty_like(sent) for _ in range(dist.get_world_size())]
    dist.all_gather(out, sent)
    return torch.cat(out).to(value.dtype)


def gather(tensors: tuple[Tensor, ...], place: PartialState) -> tuple[Tensor, ...]:
    """Each (b, ...) tensor -> (processes * b, ...), in the order of the processes, with gradients.

    The gradient that comes back is the sum over the processes of the gradients by this one's rows. With parameter
    gradients averaged over the processes (`average_`), a loss over gathered rows therefore has the gradient of one
    process that held them all; so have parameters used in the loss itself.
    """
    return _Gather.apply(*tensors) if place.num_processes > 1 and tensors else tensors


def average_(tensors: Iterable[Tensor], place: PartialState) -> None:
    """Replaces each tensor by its mean over the processes; all must pass the same ones in the same order."""
    if place.num_processes == 1:
        return
    sent = [(value, value.contiguous()) for value in tensors]
    for work in [dist.all_reduce(buffer, async_op=True) for _, buffer in sent]:
        work.wait()
    for value, buffer in sent:
        value.copy_(buffer.div_(place.num_processes))


def copy_from_first_(tensors: Iterable[Tensor], place: PartialState) -> None:
    """Overwrites each tensor by the first process's."""
    if place.num_processes == 1:
        return
    for value in tensors:
        buffer = value.contiguous()
        dist.broadcast(buffer, 0)
        value.copy_(buffer)


def from_first(tensors: dict[str, Tensor], place: PartialState) -> dict[str, Tensor]:
    """The first process's tensors, on the CPU in the others; names and shapes may differ from one's own."""
    if place.num_processes == 1:
        return tensors
    packed = save({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()})
    length = torch.tensor(len(packed), device=place.device)
    dist.broadcast(length, 0)
    data = torch.zeros(int(length), dtype=torch.uint8, device=place.device)
    if place.is_main_process:
        data.copy_(torch.frombuffer(bytearray(packed), dtype=torch.uint8))
    dist.broadcast(data, 0)
    return tensors if place.is_main_process else load(data.cpu().numpy().tobytes())
