"""How fast the top view is: our batches beside loops over single images, as published code works, in one run.

The loops are plain re-implementations from the maths: for every image they build the grid of the downward gnomonic
view in numpy, in double precision, and sample that one image bilinearly. One goes the general way (a ray for each
pixel, a rotation that looks down, scipy), the other is the tightest numpy we know for this one view. Before anything
is timed, all must agree; repetitions are interleaved. Writes projection.csv and projection.md into --out.

    python benchmarks/projection.py --size 750 --batch 16 --repeats 7
"""

import argparse
import csv
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from ucvgl import geometry
from ucvgl.geometry import TopView, top_view

try:
    import py360convert
except ImportError:
    py360convert = None

PLAIN = "plain loop: rays, rotation and scipy, for each image"
TIGHT = "tight loop: closed form in numpy, for each image"
HEIGHTS = (1024, 616)  # a 2048x1024 panorama, and CVUSA's strip completed to 616x1232


def plain_view(image: np.ndarray, size: int, fov_deg: float) -> np.ndarray:
    """One panorama (H, W, C) to its top view (size, size, C) the general way: rays, a rotation, angles."""
    height, width = image.shape[:2]
    focal = size / 2 / np.tan(np.radians(fov_deg) / 2)
    offset = np.arange(size) + 0.5 - size / 2
    right, down = np.meshgrid(offset, offset)
    rays = np.stack([right, np.full_like(right, focal), -down], -1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    pitch = np.radians(-90)
    turn = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    east, north, up = np.moveaxis(rays @ turn.T, -1, 0)
    column = (np.arctan2(east, north) / (2 * np.pi) + 0.5) * width - 0.5
    row = (0.5 - np.arcsin(np.clip(up, -1, 1)) / np.pi) * height - 0.5
    padded = np.pad(image.astype(np.float64), ((1, 1), (1, 1), (0, 0)), mode="wrap")  # columns wrap around
    padded[0], padded[-1] = np.roll(padded[1], width // 2, 0), np.roll(padded[-2], width // 2, 0)
    where = np.stack([row + 1, column + 1])
    return np.stack([map_coordinates(padded[..., c], where, order=1) for c in range(image.shape[2])], -1)


def tight_view(image: np.ndarray, size: int, fov_deg: float) -> np.ndarray:
    """The same by the closed form for a level downward view, and bilinear weights by hand."""
    height, width = image.shape[:2]
    focal = size / 2 / math.tan(math.radians(fov_deg) / 2)
    offset = np.arange(size) + 0.5 - size / 2
    east, south = np.meshgrid(offset, offset)
    azimuth = np.arctan2(east, -south)
    below = np.arctan2(focal, np.hypot(east, south))  # angle below the horizon
    column = (azimuth / (2 * np.pi) + 0.5) * width - 0.5
    row = np.clip((0.5 + below / np.pi) * height - 0.5, 0, height - 1)
    left, above = np.floor(column).astype(int), np.floor(row).astype(int)
    x, y = (column - left)[..., None], (row - above)[..., None]
    right, left = (left + 1) % width, left % width
    under = np.minimum(above + 1, height - 1)
    upper = image[above, left] * (1 - x) + image[above, right] * x
    lower = image[under, left] * (1 - x) + image[under, right] * x
    return upper * (1 - y) + lower * y


def e2p_view(image: np.ndarray, size: int, fov_deg: float) -> np.ndarray:
    """The same view by py360convert, whose field of view ends in pixel centres; it keeps its grid too."""
    half = math.tan(math.radians(fov_deg) / 2)
    return py360convert.e2p(image, 2 * math.degrees(math.atan(half * (size - 1) / size)), 0, -90, (size, size))


def smooth_panoramas(batch: int, height: int) -> Tensor:
    """Panoramas (B, 3, H, 2H) with waves fine enough to look like pictures, in 0 to 1."""
    row = torch.linspace(0, 1, height)[:, None]
    column = torch.linspace(0, 2 * math.pi, 2 * height + 1)[:-1]
    waves = [torch.sin(k * column + 9 * k * row) for k in (3, 17, 60)]
    phases = torch.rand(batch, 3, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    return (0.5 + sum(phases[:, :, i] * wave for i, wave in enumerate(waves)) / 6).contiguous()


def measure(height: int, size: int, batch: int, repeats: int, device: torch.device) -> list[dict]:
    """Rows of the table for one panorama size; the repetitions of all methods take turns."""
    view = TopView(size, 175.0)
    panoramas = smooth_panoramas(batch, height).to(device)
    as_bytes = (panoramas * 255).round().byte()
    arrays = [np.ascontiguousarray(image) for image in panoramas.cpu().permute(0, 2, 3, 1).numpy()]
    small = min(4, batch)  # views of 4 images still fit the memory that the C library keeps for reuse
    few = arrays[: min(2, batch)]  # a loop takes as long for each image, so two are enough

    def wait(result: object) -> object:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return result

    methods: dict[str, tuple[int, Callable[[], object]]] = {
        PLAIN: (len(few), lambda: [plain_view(image, size, view.fov_deg) for image in few]),
        TIGHT: (len(few), lambda: [tight_view(image, size, view.fov_deg) for image in few]),
    }
    if py360convert is not None:
        how = "OpenCV" if py360convert.utils.cv2 else "scipy"
        methods[f"py360convert.e2p, one image at a time ({how})"] = (
            len(few),
            lambda: [e2p_view(image, size, view.fov_deg) for image in few],
        )
    methods |= {
        "ucvgl.top_view, one image at a time": (batch, lambda: wait([top_view(p[None], view) for p in panoramas])),
        f"ucvgl.top_view, batches of {small}": (
            batch,
            lambda: wait([top_view(p, view) for p in panoramas.split(small)]),
        ),
        f"ucvgl.top_view, batch of {batch}": (batch, lambda: wait(top_view(panoramas, view))),
        f"ucvgl.top_view, batch of {batch}, bytes": (batch, lambda: wait(top_view(as_bytes, view))),
    }

    ours = top_view(panoramas[: len(few)], view).permute(0, 2, 3, 1).cpu().numpy()
    disagreement = max(
        np.abs(loop(image, size, view.fov_deg) - mine).max()
        for loop in (plain_view, tight_view)
        for image, mine in zip(few, ours, strict=True)
    )
    if disagreement > 2e-3:
        raise SystemExit(f"the two top views differ by {disagreement:.2g}: nothing to time")
    geometry.fixed_top_view_pixels.cache_clear()
    started = time.perf_counter()
    wait(top_view(panoramas[:1], view))
    first = time.perf_counter() - started

    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for repeat in range(repeats + 1):  # the first round only warms up
        for name, (images, call) in methods.items():
            started = time.perf_counter()
            call()
            if repeat:
                seconds[name].append((time.perf_counter() - started) / images)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return [
        {
            "panorama": f"{2 * height}x{height}",
            "top_view": f"{size}x{size}",
            "method": name,
            "batch": batch,
            "device": describe(device),
            "threads": torch.get_num_threads(),
            "median_ms_an_image": round(1000 * median, 3),
            "fastest_ms_an_image": round(1000 * min(seconds[name]), 3),
            "panoramas_a_second": round(1 / median, 2),
            "times_faster_than_plain_loop": round(medians[PLAIN] / median, 2),
            "times_faster_than_tight_loop": round(medians[TIGHT] / median, 2),
            "first_call_ms": round(1000 * first, 1) if name.startswith("ucvgl") else "",
            "largest_difference": f"{disagreement:.1e}",
        }
        for name, median in medians.items()
    ]


def describe(device: torch.device) -> str:
    """What it ran on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return f"{model}, {os.cpu_count()} cores"


def markdown(rows: list[dict]) -> str:
    """The table as a reader sees it."""
    lines = [
        f"Top view of {rows[0]['top_view']} pixels, field of view 175 deg, batches of {rows[0]['batch']}, "
        f"{rows[0]['threads']} threads, {rows[0]['device']}; torch {torch.__version__}, numpy {np.__version__}. "
        "Medians of interleaved repetitions.",
        "",
        "| panorama | method | ms an image | panoramas a second | times the plain loop | times the tight loop |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['panorama']} | {row['method']} | {row['median_ms_an_image']:.1f} "
            f"| {row['panoramas_a_second']:.1f} | {row['times_faster_than_plain_loop']:.1f} "
            f"| {row['times_faster_than_tight_loop']:.1f} |"
        )
    first = {row["panorama"]: row["first_call_ms"] for row in rows if row["first_call_ms"] != ""}
    built = ", ".join(f"{ms:.0f} ms ({size})" for size, ms in first.items())
    difference = max(float(row["largest_difference"]) for row in rows)
    lines += [
        "",
        f"The first call, which builds the grid: {built}. Largest difference from a loop: {difference:.1e} of 1.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=750, help="side of the top view in pixels (CVUSA: 750)")
    parser.add_argument("--batch", type=int, default=16, help="panoramas in a batch")
    parser.add_argument("--repeats", type=int, default=7, help="timed repetitions of each method")
    parser.add_argument("--device", default="cpu", help="where top_view runs: cpu or cuda")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).resolve().parent / "results", help="folder to write to"
    )
    args = parser.parse_args()
    if min(args.size, args.batch, args.repeats) < 1:
        parser.error("--size, --batch and --repeats must be at least 1")
    device = torch.device(args.device)
    rows = [row for height in HEIGHTS for row in measure(height, args.size, args.batch, args.repeats, device)]
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "projection.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    table = markdown(rows)
    (args.out / "projection.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
