"""What the benchmarks share: time and memory of a call, a fresh process for it, and the page that is written."""

import ctypes
import gc
import multiprocessing
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ucvgl.lab import results
from ucvgl.paths import write_text

RESULTS = Path(__file__).resolve().parent / "results"


def now() -> float:
    """Seconds, once the GPU has done what it was asked."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def in_turns(
    ways: Mapping[str, Callable[[], Any]], repeats: int, measure: Callable[[Callable[[], Any]], float]
) -> dict[str, list[float]]:
    """What `measure` says of each way, in each of so many rounds; the ways take turns, after a round that warms up."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            found[name].append(measure(way))
    return {name: values[1:] for name, values in found.items()}


def peak_mb(call: Callable[[], object], device: str = "cpu") -> float:
    """The MB that a call adds at most to what was there; on a CPU of the process, which should be a fresh one. Linux alone."""
    small = torch.ones(256, 256)
    _ = small @ small, small.numpy() @ small.numpy()  # the libraries' own buffers
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back, or it would be used again without being seen
    Path("/proc/self/clear_refs").write_text("5")  # the peak is the present from here on
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10


def in_a_process(call: Callable[..., Any], *args: object) -> Any:
    """What a call returns in a fresh process, which ends with its memory; raises what it raises."""
    context = multiprocessing.get_context("forkserver")
    # once, not by each process
    context.set_forkserver_preload(["torch", "timm", "torchvision", "scipy.io", "matplotlib.pyplot"])
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(call, *args).result()


def environment() -> str:
    """Device, threads, versions, commit and what else the machine did, in a sentence."""
    machine = f"{results.device()}, {torch.get_num_threads()} thread(s); load {os.getloadavg()[0]:.1f}"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
    return f"{machine}; {versions}; ucvgl {results.commit() or 'no checkout'}."


def number(value: object) -> str:
    """Three digits of a float, whole where it has more; anything else as it is."""
    return str(value) if not isinstance(value, float) else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows of the same columns in Markdown."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([number(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def write(path: Path, title: str, about: str, rows: Sequence[Mapping[str, object]], after: str = "") -> None:
    """Writes a page: its title, what the numbers depend on, the table, and what follows from it."""
    write_text(path, "\n\n".join(filter(None, [f"# {title}", environment(), about, table(rows), after])) + "\n")
    print(f"{path}:\n{table(rows)}\n\n{after}", file=sys.stdout)
