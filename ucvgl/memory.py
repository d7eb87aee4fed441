"""Peak memory of a piece of work: of the GPU where one computes, else of the process (Linux)."""

from collections.abc import Callable
from pathlib import Path

import torch

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
