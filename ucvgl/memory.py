"""Memory that a piece of work takes: its peak, of the GPU where one computes, else of the process (Linux); and what a
forward pass keeps for the backward pass, which is the same on every machine.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure_peak(device: torch.device) -> Callable[[], float | None]:
    """Begins to measure; the function returned gives the megabytes that the peak lay above where it began.

    On a GPU, what torch has allocated there. On a CPU, the process's resident memory, as Linux keeps it, where whatever
    was freed before and is used again does not count; None on other systems.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        begun = torch.cuda.memory_allocated(device)
        return lambda: (torch.cuda.max_memory_allocated(device) - begun) / 2**20
    try:
        RESET.write_text("5")  # the peak is the present from here on
        before = _resident("VmRSS")
    except (OSError, ValueError):
        return lambda: None
    return lambda: max(0.0, _resident("VmHWM") - before)


def _resident(name: str) -> float:
    """A line of the process's status, in megabytes."""
    for line in STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise ValueError(name)


@contextmanager
def saved_for_backward() -> Iterator[dict[int, int]]:
    """Notes what autograd keeps inside the block: the bytes of each storage, by its address; parameters among them.

    Storages are held until the block ends, so that no address is used twice.
    """
    sizes: dict[int, int] = {}
    held: list[Tensor] = []

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in sizes:
            sizes[storage.data_ptr()] = storage.nbytes()
            held.append(value.detach())
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        yield sizes
    held.clear()


def training_bytes(model: nn.Module, saved: dict[int, int]) -> int:
    """What a step holds at the end of its forward pass: what was saved, the model with its buffers, and for each parameter
    that learns a gradient and AdamW's two moments.

    Args:
        model: in training.
        saved: as `saved_for_backward` noted it.
    """
    own = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in (*model.parameters(), *model.buffers())
    }
    learnt = sum(3 * p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return sum((saved | own).values()) + learnt
