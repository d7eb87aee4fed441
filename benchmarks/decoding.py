"""Images per second of the whole pipeline (read, decode, resize, augment, batch) for CVUSA's two image sizes, decoder
by decoder.

    python benchmarks/decoding.py [--images 256] [--rounds 5] [--workers 2]

Synthetic JPEGs as large as CVUSA's own (750 x 750 and 1232 x 224, quality 90) are read by DataLoader workers, resized,
batched by 32 and augmented. Compared: what ucvgl ships, Pillow alone with and without draft mode, torchvision.io (all
with ucvgl's batched augmentation), and a plain OpenCV loop as published code has it (imread,
cvtColor, resize and augmentation per image in the worker), if cv2 is there.
The rounds alternate between the decoders, so that another load on the machine hits all of them; the medians and each
round's ratio to the OpenCV loop are written beside each other to benchmarks/results/decoding.csv and .md.
"""

import argparse
import csv
import os
import platform
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image, read_file

from ucvgl.augment import UCVGL, augment
from ucvgl.data.decoding import decode_file

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation, as pretrained encoders expect

try:
    import cv2
except ImportError:  # a user's option, no dependency
    cv2 = None

RESULTS = Path(__file__).resolve().parent / "results"
CASES = (("satellite 750 x 750 -> 384 x 384", (750, 750), (384, 384)),
         ("satellite 750 x 750 -> 128 x 128", (750, 750), (128, 128)),
         ("ground 1232 x 224 -> 768 x 140", (224, 1232), (140, 768)),
         ("ground 1232 x 224 -> 384 x 384", (224, 1232), (384, 384)))  # fmt: skip
BATCH = 32


def write_jpegs(folder: Path, count: int, size: tuple[int, int], seed: int) -> list[str]:
    """JPEGs whose spectrum falls off so that they are as large as CVUSA's own: about 105 KB a tile, 35 KB a panorama."""
    rng = np.random.default_rng(seed)
    height, width = size
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    falloff = 1 / np.maximum(np.hypot(fy, fx), 1 / max(size)) ** 1.6
    paths = []
    for i in range(count):
        layers = []
        shared = rng.standard_normal(size)
        for _ in range(3):
            noise = np.fft.irfft2(np.fft.rfft2(shared + 0.3 * rng.standard_normal(size)) * falloff, s=size)
            layers.append(128 + 48 * (noise - noise.mean()) / noise.std())
        pixels = np.clip(np.stack(layers, axis=-1), 0, 255).astype(np.uint8)
        paths.append(str(folder / f"{height}x{width}-{i:04d}.jpg"))
        Image.fromarray(pixels).save(paths[-1], quality=90)
    return paths


def pillow(path: str, size: tuple[int, int], draft: bool) -> Tensor:
    """Decode with Pillow, in draft mode or whole."""
    with Image.open(path) as image:
        if draft:
            image.draft("RGB", (size[1], size[0]))
        image = image.convert("RGB").resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def shipped(path: str, size: tuple[int, int]) -> Tensor:
    """What ucvgl does, its checks included."""
    return decode_file(path, size)


def torchvision_io(path: str, size: tuple[int, int]) -> Tensor:
    """Decode with torchvision.io (deprecated since 0.29), resize antialiased with torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        image = decode_image(read_file(path), ImageReadMode.RGB)
    return torch.nn.functional.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]


def opencv(path: str, size: tuple[int, int]) -> Tensor:
    """A plain loop: every step for one image, in float, in the worker; flips, colour jitter and a grid of holes."""
    image = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
    image = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    rng = np.random.default_rng()
    if rng.random() < 0.5:
        image = cv2.flip(image, 1)
    if rng.random() < 0.8:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.float32)
        hsv[..., 1:] = np.clip(hsv[..., 1:] * rng.uniform(0.6, 1.4, 2), 0, 255)
        hsv[..., 0] = (hsv[..., 0] + rng.uniform(-18, 18)) % 180
        image = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)
        image = np.clip((image - image.mean()) * rng.uniform(0.6, 1.4) + image.mean(), 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (3, 3), 0)
    if rng.random() < 0.5:
        cell = int(size[0] * rng.uniform(0.1, 0.25))
        holes = np.zeros(size, bool)
        for y in range(0, size[0], cell):
            for x in range(0, size[1], cell):
                holes[y : y + cell // 2, x : x + cell // 2] = True
        image = image.copy()
        image[holes] = 0
    image = (image.astype(np.float32) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    return torch.from_numpy(np.ascontiguousarray(image.astype(np.float32).transpose(2, 0, 1)))


DECODERS: dict[str, Callable[[str, tuple[int, int]], Tensor]] = {
    "ucvgl: Pillow (draft), torch resizes": shipped,
    "Pillow (draft), Pillow resizes": lambda path, size: pillow(path, size, True),
    "Pillow (whole), Pillow resizes": lambda path, size: pillow(path, size, False),
    "torchvision.io, torch resizes": torchvision_io,
    "OpenCV loop": opencv,
}


class _Files(Dataset):
    def __init__(self, paths: list[str], size: tuple[int, int], decoder: str) -> None:
        self.paths, self.size, self.decoder = paths, size, decoder

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return DECODERS[self.decoder](self.paths[index], self.size)


def cpu_seconds() -> float:
    """Processor time of this process and of its finished workers."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def run(paths: list[str], size: tuple[int, int], decoder: str, workers: int) -> tuple[float, float]:
    """Images per second of one pass, worker start included, and processor milliseconds an image."""
    generator = torch.Generator().manual_seed(0)
    start, used = time.perf_counter(), cpu_seconds()
    loader = DataLoader(
        _Files(paths, size, decoder), BATCH, num_workers=workers, worker_init_fn=lambda _: torch.set_num_threads(1)
    )
    for batch in loader:
        if batch.dtype == torch.uint8:
            mean, std = (batch.new_tensor(v, dtype=torch.float32).view(3, 1, 1) for v in IMAGENET)
            batch = augment(batch, UCVGL, generator).sub_(mean).div_(std)
        assert batch.dtype == torch.float32
    del loader
    return len(paths) / (time.perf_counter() - start), 1e3 * (cpu_seconds() - used) / len(paths)


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(
        1
    )  # the workers have the cores; threads that wait for each other suffer most from another load
    names = list(DECODERS)
    if cv2 is None:
        names.remove("OpenCV loop")
    if cv2 is not None:
        cv2.setNumThreads(1)  # before the workers start: each has one core
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = {size: write_jpegs(Path(folder), options.images, size, 0) for size in {c[1] for c in CASES}}
        for case, source, size in CASES:
            speeds: dict[str, list[float]] = {name: [] for name in names}
            costs: dict[str, list[float]] = {name: [] for name in names}
            for name in names:
                run(files[source][:BATCH], size, name, options.workers)  # imports and the file cache
            for turn in range(options.rounds):
                for name in names[turn % len(names) :] + names[: turn % len(names)]:
                    speed, cost = run(files[source], size, name, options.workers)
                    speeds[name].append(speed)
                    costs[name].append(cost)
            for name in names:
                ratios = [a / b for a, b in zip(speeds[name], speeds[names[-1]], strict=True)]
                row = {
                    "images": case,
                    "decoder": name,
                    "images_per_second_median": round(statistics.median(speeds[name]), 1),
                    "lowest": round(min(speeds[name]), 1),
                    "highest": round(max(speeds[name]), 1),
                    "ratio_to_opencv_median": round(statistics.median(ratios), 2) if cv2 else "",
                    "cpu_ms_per_image_median": round(statistics.median(costs[name]), 2),
                    "rounds": options.rounds,
                }
                rows.append(row)
                print(row)
    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / "decoding.csv", "w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    versions = f"Pillow {Image.__version__}, torch {torch.__version__}" + (f", OpenCV {cv2.__version__}" if cv2 else "")
    lines = [
        "# Decoding: images per second, whole pipeline",
        "",
        f"Read, decode, resize, augment, batch ({BATCH}); {options.images} synthetic JPEGs of quality 90, {options.workers} "
        f"workers on {os.cpu_count()} cores ({platform.machine()}), {options.rounds} alternating rounds. {versions}.",
        "Ratio: median over the rounds of (decoder / OpenCV loop of the same round). Processor time, workers included, "
        "depends least on what else the machine does.",
        "",
        "| images | decoder | images/s (median) | lowest - highest | ratio to OpenCV loop | processor ms an image (median) |",
        "|---|---|---|---|---|---|",
        *(
            f"| {r['images']} | {r['decoder']} | {r['images_per_second_median']} | {r['lowest']} - {r['highest']} "
            f"| {r['ratio_to_opencv_median']} | {r['cpu_ms_per_image_median']} |"
            for r in rows
        ),
        "",
    ]
    (RESULTS / "decoding.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
