"""The processes that train together: which device each has, and embeddings, gradients and labels shared among them.

`torchrun --nproc-per-node 2 ...` or `accelerate launch ...` starts them; without either there is one, and everything
here leaves its arguments alone. The collectives work the same over NCCL (GPUs) and gloo (CPUs).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from accelerate import PartialState
from safetensors.torch import load, save
from torch import Tensor

# How long a process waits for the others: one of them may render a world, or wait for another launch to finish a stage.
# The launcher ends those that wait for one that died, so this limit is for nothing but a machine that is lost.
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Alone:
    """The place of a process that does something by itself: of PartialState what this package uses."""

    device: torch.device
    num_processes: int = 1
    process_index: int = 0
    is_main_process: bool = True
    speaks: bool = True  # whether what it loads or runs is told; of several that find the same, one says so

    def wait_for_everyone(self) -> None:
        """There is nobody to wait for."""
        return


Place = PartialState | Alone
_alone: list[Alone] = []  # not empty inside `first_alone`, where this process has this place


def processes() -> Place:
    """This process's place: `.device`, `.num_processes`, `.process_index`, `.is_main_process`, `.wait_for_everyone()`.

    Accelerate's PartialState and not its Accelerator: the latter fixes the precision for the whole life of a process,
    and a notebook trains with more than one.
    """
    if _alone:
        return _alone[-1]
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)


@contextmanager
def first_alone() -> Iterator[None]:
    """The first process does what stands in the block, by itself; the others wait, and do it after that.

    For what is computed once and kept in the run cache (a rendered world, projected images, a CycleGAN): the others
    find it there. If the first fails, it ends, and its launcher ends those that wait.
    """
    place = processes()
    if not place.is_main_process:
        place.wait_for_everyone()
    _alone.append(Alone(place.device, speaks=place.is_main_process and getattr(place, "speaks", True)))
    try:
        yield
    finally:
        _alone.pop()
    if place.is_main_process:
        place.wait_for_everyone()


def agreed(number: int, place: Place) -> int:
    """The first process's number, in all; they wait for it."""
    if place.num_processes == 1:
        return number
    sent = torch.tensor(number, device=place.device)
    dist.broadcast(sent, 0)
    return int(sent)


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


def gather(tensors: tuple[Tensor, ...], place: Place) -> tuple[Tensor, ...]:
    """Each (b, ...) tensor -> (processes * b, ...), in the order of the processes, with gradients.

    The gradient that comes back is the sum over the processes of the gradients by this one's rows. With parameter
    gradients averaged over the processes (`average_`), a loss over gathered rows therefore has the gradient of one
    process that held them all; so have parameters used in the loss itself.
    """
    return _Gather.apply(*tensors) if place.num_processes > 1 and tensors else tensors


def gather_rows(rows: Tensor, place: Place) -> Tensor:
    """(n, ...) rows of each process -> those of all, in the order of the processes, on the device they came from.

    How many rows a process has may differ, and be 0; their type and the other dimensions must not. Without gradients.
    """
    if place.num_processes == 1:
        return rows
    counts = torch.zeros(place.num_processes, dtype=torch.int64, device=place.device)
    counts[place.process_index] = len(rows)
    dist.all_reduce(counts)
    found = counts.tolist()
    # all send as many rows as the longest shard has: the collectives know no other way
    sent = torch.zeros((max(found), *rows.shape[1:]), dtype=rows.dtype, device=place.device)
    sent[: len(rows)] = rows.detach()
    out = [torch.empty_like(sent) for _ in found]
    dist.all_gather(out, sent)
    return torch.cat([part[:count] for part, count in zip(out, found, strict=True)]).to(rows.device)


def embed_sharded(embed: Callable[[Sequence[Tensor]], Tensor], batches: Sequence[Tensor], place: Place) -> Tensor:
    """What `embed(batches)` returns, each process embedding a part of the batches; the same in all, bit for bit.

    Batches stay whole, so that every image is embedded in the company it would have in one process.

    Args:
        embed: batches -> (rows of all, D); of no batch (0, D). `functools.partial(ucvgl.encoders.embed, encoder)`, say.
        batches: all of them, the same in every process, which must all call this.
        place: this process's.
    """
    if place.num_processes == 1:
        return embed(batches)
    first, last = (len(batches) * k // place.num_processes for k in (place.process_index, place.process_index + 1))
    return gather_rows(embed(batches[first:last]), place)


def average_(tensors: Iterable[Tensor], place: Place) -> None:
    """Replaces each tensor by its mean over the processes; all must pass the same ones in the same order."""
    if place.num_processes == 1:
        return
    sent = [(value, value.contiguous()) for value in tensors]
    for work in [dist.all_reduce(buffer, async_op=True) for _, buffer in sent]:
        work.wait()
    for value, buffer in sent:
        value.copy_(buffer.div_(place.num_processes))


def copy_from_first_(tensors: Iterable[Tensor], place: Place) -> None:
    """Overwrites each tensor by the first process's."""
    if place.num_processes == 1:
        return
    for value in tensors:
        buffer = value.contiguous()
        dist.broadcast(buffer, 0)
        value.copy_(buffer)


def from_first(tensors: dict[str, Tensor], place: Place) -> dict[str, Tensor]:
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
