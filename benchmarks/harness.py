"""What the benchmarks share: ways timed in turns, the memory of a call, a fresh process, and the page that is written.

`torch.utils.benchmark` was looked at first: it times one way after the other, so that another load on the machine hits one
of them alone, it warms up anew for each number, and its tables are no Markdown.
"""

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
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ucvgl.lab.provenance import commit
from ucvgl.paths import write_text

RESULTS = Path(__file__).resolve().parent / "results"
REPEATS = 7  # of each way, after one that warms up


def now() -> float:
    """Seconds, once the GPU has done what it was asked."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    gc.collect()
    begun = now()
    call()
    return now() - begun


def in_turns(
    ways: Mapping[str, Callable[[], Any]], repeats: int = REPEATS, measure: Callable[[Callable[[], Any]], Any] = seconds
) -> dict[str, list[Any]]:
    """What `measure` says of each way, in each of so many rounds; the ways take turns, after a round that warms up."""
    found: dict[str, list[Any]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            measured = measure(way)
            if turn:
                found[name].append(measured)
    return found


def peak_mb(call: Callable[[], object], device: str = "cpu") -> float:
    """The MB that a call adds at most to what was there; on a CPU of the process, which should be a fresh one."""
    small = torch.ones(256, 256)
    _ = small @ small, small.numpy() @ small.numpy()  # the libraries' own buffers
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back, or it would be used again without being seen
    if sys.platform == "linux":  # elsewhere, what the process had at most before may hide some of it
        Path("/proc/self/clear_refs").write_text("5")  # the peak is the present from here on
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call()
    added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return added / (2**20 if sys.platform == "darwin" else 2**10)


def in_a_process(call: Callable[..., Any], *args: object) -> Any:
    """What a call returns in a fresh process, which ends with its memory; raises what it raises."""
    context = multiprocessing.get_context("forkserver")
    # once, not by each process
    context.set_forkserver_preload(["torch", "timm", "torchvision", "scipy.io", "matplotlib.pyplot"])
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(call, *args).result()


def environment() -> str:
    """Device, threads, versions, commit and what else the machine did, in a sentence."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.partition(": ")[2] for line in info.read_text().splitlines() if "model name" in line]
        if info.exists()
        else []
    )
    gpu = f"{torch.cuda.get_device_name(0)}, " if torch.cuda.is_available() else ""
    return (
        f"{gpu}{names[0] if names else platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} thread(s); Python "
        f"{platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}; ucvgl {commit() or 'no checkout'}; "
        f"load {os.getloadavg()[0]:.1f}."
    )


def number(value: object) -> str:
    """Three digits of a float, whole where it has more; anything else as it is."""
    return str(value) if not isinstance(value, float) else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows of the same columns in Markdown."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([number(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def write(path: Path, title: str, about: str, rows: Sequence[Mapping[str, object]], after: str = "") -> None:
    """Prints and writes a page: its title, what the numbers depend on, the table, and what follows from it."""
    text = "\n\n".join(filter(None, [f"# {title}", environment(), about, table(rows), after])) + "\n"
    print(text)
    write_text(path, text)
