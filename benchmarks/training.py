"""What makes a training step of Sample4Geo faster on this device, and whether its losses stay.

    python benchmarks/training.py                                         minutes on two cores, with a small encoder
    python benchmarks/training.py --device cuda --backbone convnext_base --ground-px 140 768 --tile-px 384 --batch 128

A plain loop (fp32, images and weights in torch's default order, torch's default AdamW, augmentation on the CPU, one batch
after the other) and the same with each switch by itself, then with all: each variant trains a model of its own from the
same weights on the same batches. They are timed in turn, a few steps of each, round after round; the medians are told.
'plain, again' shows what differences mean nothing.

The share of the peak is the step's multiplications and additions a second, over those of a large matrix product of the
same precision on the same device, measured here. A step's are three times those of its forward pass, which
torch.utils.flop_counter counts (matrix products and convolutions; a backward pass has twice as many).
Writes benchmarks/results/training.md.
"""

import argparse
import copy
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.flop_counter import FlopCounterMode

from ucvgl.data.container import ArrayImages, Dataset, Positives
from ucvgl.encoders import EncoderConfig, TwoViewEncoder, two_view_encoder
from ucvgl.methods.sample4geo import Sample4Geo, Sampling, SupervisedPairs
from ucvgl.paths import write_text
from ucvgl.training import Batch, TrainingConfig

RESULTS = Path(__file__).resolve().parent / "results"
LEARNING_RATE = 1e-4  # low enough that rounding does not grow into another training within some dozen steps
PAIRS = 8  # batches' worth of images, drawn once; what they show does not matter here


@dataclass(frozen=True)
class Switches:
    """What a variant does differently from the plain loop."""

    channels_last: bool = False
    bf16: bool = False  # autocast, as ucvgl.training's precision="bf16"
    fused: bool = False  # AdamW in one kernel
    compiled: bool = False  # torch.compile of the encoder
    on_device: bool = False  # uint8 batches are copied to the device and augmented there
    prefetch: bool = False  # the next batch is loaded in a thread while this one trains


SWITCHES = {
    "channels-last": Switches(channels_last=True), "bf16": Switches(bf16=True), "fused AdamW": Switches(fused=True),
    "torch.compile": Switches(compiled=True), "augmentation on the device": Switches(on_device=True),
    "prefetch": Switches(prefetch=True),
}  # fmt: skip


@dataclass(frozen=True)
class Size:
    """What is trained, and on how much."""

    backbone: str
    ground_px: tuple[int, int]
    tile_px: int
    batch: int


class Moved:
    """Images on the CPU whose rows go to the device before anything is done to them."""

    def __init__(self, images: ArrayImages, device: torch.device) -> None:
        self.images, self.device, self.positions = images, device, None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """uint8 (b, 3, H, W), on the device."""
        return self.images[rows].to(self.device, non_blocking=True)


@dataclass
class Variant:
    """One way to train, with a model, an optimiser and a task of its own; and what was measured of it."""

    name: str
    switches: Switches
    device: torch.device
    task: SupervisedPairs
    model: TwoViewEncoder
    steps_done: int = 0
    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)  # images a second, a number a round
    first_s: float = 0.0  # the first step, with what is compiled
    failed: str = ""

    def __post_init__(self) -> None:
        self.model = self.model.to(self.device)
        if self.switches.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        encoder = torch.compile(self.model.ground, dynamic=False) if self.switches.compiled else self.model.ground
        self.views = SimpleNamespace(ground=encoder, satellite=encoder)  # what `embed` asks of a model
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=LEARNING_RATE, fused=True if self.switches.fused else None
        )

    def load(self, step: int) -> Batch:
        """The batch of a step: the same images and draws in every variant."""
        size = self.task.config.training.batch_size
        items = torch.arange(step * size, (step + 1) * size) % len(self.task.given.positives)
        batch = self.task.batch(items, Generator().manual_seed(step))
        if self.switches.prefetch and self.device.type == "cuda":
            return Batch(tuple(v.pin_memory() if v.device.type == "cpu" else v for v in batch.inputs))
        return batch

    def batches(self, count: int) -> Iterator[Batch]:
        """The next `count`; with `prefetch` all but the first are loaded while the one before trains."""
        steps = range(self.steps_done, self.steps_done + count)
        if not self.switches.prefetch:
            yield from map(self.load, steps)
            return
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)) as pool:
            coming = pool.submit(self.load, steps[0])
            for step in steps:
                batch = coming.result()
                if step + 1 in steps:
                    coming = pool.submit(self.load, step + 1)
                yield batch

    def backward(self, batch: Batch) -> Tensor:
        """Forward and backward pass; the loss, on the device."""
        inputs = tuple(value.to(self.device, non_blocking=True) for value in batch.inputs)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.switches.bf16):
            embeddings = self.task.embed(self.views, inputs)
        loss = self.task.loss(self.model, tuple(e.float() for e in embeddings), ())
        loss.backward()
        return loss.detach()

    def train(self, count: int) -> float:
        """Some steps; how many seconds they took."""
        synchronise(self.device)
        begun, losses = time.perf_counter(), []
        for batch in self.batches(count):
            self.optimiser.zero_grad()
            losses.append(self.backward(batch))
            self.optimiser.step()
        synchronise(self.device)
        seconds = time.perf_counter() - begun
        self.steps_done += count
        self.losses += torch.stack(losses).tolist()
        return seconds


def synchronise(device: torch.device) -> None:
    """Waits for what was asked of a GPU."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def settings(size: Size) -> Sample4Geo:
    """Sample4Geo as published, but for the size of the encoder and its batch, with random batches."""
    tile = EncoderConfig(size.backbone, pooling="head", image_px=(size.tile_px, size.tile_px))
    training = TrainingConfig(batch_size=size.batch)
    return Sample4Geo(
        replace(tile, image_px=size.ground_px), tile, ground_kind="top view" if size.ground_px[0] == size.ground_px[1]
        else "panorama", training=training, sampling=Sampling("random"),
    )  # fmt: skip


def images(size: Size) -> Dataset:
    """Smooth random pictures, uint8, in pairs."""
    count, generator = PAIRS * size.batch, Generator().manual_seed(0)
    pictures = []
    for height, width in (size.ground_px, (size.tile_px, size.tile_px)):
        coarse = torch.rand(count, 3, 8, 8, generator=generator)
        whole = torch.empty(count, 3, height, width, dtype=torch.uint8)
        for rows in torch.arange(count).split(64):
            whole[rows] = (torch.nn.functional.interpolate(coarse[rows], (height, width)) * 255).to(torch.uint8)
        pictures.append(whole)
    query, gallery = (
        ArrayImages(map(str, range(count)), pixels, source=f"random-{k}") for k, pixels in enumerate(pictures)
    )
    return Dataset("random", "all", query, gallery, Positives.one_each(np.arange(count)))


def variant(
    name: str, switches: Switches, size: Size, given: Dataset, start: TwoViewEncoder, device: torch.device
) -> Variant:
    """A copy of the model at its beginning, with the given switches."""
    if switches.on_device:
        given = replace(given, query=Moved(given.query, device), gallery=Moved(given.gallery, device))
    return Variant(name, switches, device, SupervisedPairs(given, settings(size)), copy.deepcopy(start))


def step_flops(plain: Variant) -> int:
    """Multiplications and additions of one step.

    Three times those of the forward pass: the counter takes the gradient of a depthwise convolution's weights for that
    of a dense one, and ConvNeXts are full of these.
    """
    inputs = tuple(value.to(plain.device) for value in plain.load(0).inputs)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        plain.task.embed(plain.views, inputs)
    return 3 * counter.get_total_flops()


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Multiplications and additions a second of a large matrix product: the best of several runs."""
    n = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(6 if device.type == "cpu" else 20):
        synchronise(device)
        begun = time.perf_counter()
        a @ b
        synchronise(device)
        best = min(best, time.perf_counter() - begun)
    return 2 * n**3 / best


def attempted(one: Variant, act: Callable[[], float]) -> float:
    """Seconds of what is tried; a variant that cannot run (no compiler, no such kernel, no memory) says why instead."""
    try:
        return act()
    except Exception as error:
        if one.name.startswith("plain"):
            raise
        text = str(error).strip().splitlines()
        one.failed = f"{type(error).__name__}: {text[0][:100].replace('|', '/') if text else 'no message'}"
        print(f"{one.name}: {one.failed}", file=sys.stderr)
        return 0.0


def measure(variants: list[Variant], rounds: int, steps: int) -> None:
    """A first step each, with what must be compiled; then rounds, in each of which every variant trains some steps."""
    for one in variants:
        one.first_s = attempted(one, lambda one=one: one.train(1))
        if not one.failed:
            attempted(one, lambda one=one: one.train(1))
        print(f"first step of {one.name}: {one.first_s:.1f} s", file=sys.stderr, flush=True)
    for number in range(rounds):
        order = variants[number % len(variants) :] + variants[: number % len(variants)]
        for one in order:
            if not one.failed:
                seconds = attempted(one, lambda one=one: one.train(steps))
                if not one.failed:
                    one.rates.append(2 * one.task.config.training.batch_size * steps / seconds)
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)


def table(variants: list[Variant], flops: int, peaks: dict[bool, float]) -> str:
    """A row a variant, in Markdown."""
    plain = variants[0]
    lines = [
        "| variant | images a second | times plain | share of the matrix peak | loss at the end | greatest difference from plain |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for one in variants:
        if one.failed or not one.rates:
            lines.append(f"| {one.name} | {one.failed or 'not measured'} | | | | |")
            continue
        rate = statistics.median(one.rates)
        share = flops * rate / (2 * one.task.config.training.batch_size) / peaks[one.switches.bf16]
        apart = max(abs(a - b) for a, b in zip(one.losses, plain.losses, strict=True))
        lines.append(
            f"| {one.name} | {rate:,.1f} | {rate / statistics.median(plain.rates):.2f} | {100 * share:.1f} % | "
            f"{one.losses[-1]:.4f} | {apart:.1e} |"
        )
    return "\n".join(lines)


def chosen(device: torch.device, asked: argparse.Namespace) -> Size:
    """What was asked for; where nothing was, a size that this device trains in minutes."""
    gpu = device.type != "cpu"
    ground = tuple(asked.ground_px or ((140, 768) if gpu else (64, 64)))
    backbone = asked.backbone or ("convnext_tiny" if gpu else "convnext_atto")
    return Size(backbone, ground, asked.tile_px or (384 if gpu else 64), asked.batch or (64 if gpu else 16))


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto: the GPU if there is one")
    parser.add_argument("--backbone", help="a ConvNeXt or another of timm's; untrained")
    parser.add_argument("--ground-px", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--tile-px", type=int)
    parser.add_argument("--batch", type=int, help="pairs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="of each variant in a round")
    parser.add_argument("--out", type=Path, default=RESULTS / "training.md")
    asked = parser.parse_args()
    name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name if asked.device == "auto" else asked.device)
    size, begun = chosen(device, asked), time.perf_counter()
    given, config = images(size), settings(size)
    start = two_view_encoder(config.ground, config.satellite, shared=True, seed=0)

    named = {"plain": Switches(), "plain, again": Switches()} | SWITCHES
    if device.type == "cpu":
        del named["augmentation on the device"]  # it is there already
    everything = Switches(True, True, True, True, device.type != "cpu", True)
    named["all together"] = everything
    named["all but torch.compile"] = replace(everything, compiled=False)
    variants = [variant(name, switches, size, given, start, device) for name, switches in named.items()]
    flops = step_flops(variants[0])
    peaks = {half: matrix_peak(device, torch.bfloat16 if half else torch.float32) for half in (False, True)}
    measure(variants, asked.rounds, asked.steps)

    what = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{os.cpu_count()} cores ({platform.machine()})"
    )
    steps = 2 + asked.rounds * asked.steps
    compiled = next(one for one in variants if one.switches == Switches(compiled=True))
    cost = f"torch.compile's first step took {compiled.first_s:.0f} s (less where an earlier run left its cache). "
    note = (
        f"# Training steps of Sample4Geo, switch by switch\n\n{what}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads. {size.backbone}, one for both views, untrained; ground images of "
        f"{size.ground_px[0]} x {size.ground_px[1]} and tiles of {size.tile_px} x {size.tile_px} pixels, {size.batch} pairs "
        f"a batch; medians of {asked.rounds} rounds of {asked.steps} steps, taken in turn. A step is {flops / 1e9:,.1f} "
        f"billion multiplications and additions; a matrix product makes {peaks[False] / 1e12:.2f} (fp32) and "
        f"{peaks[True] / 1e12:.2f} (bf16) trillion a second here. Losses are compared over {steps} steps from the same "
        f"weights on the same batches. {'' if compiled.failed else cost}"
        f"The whole run took {time.perf_counter() - begun:.0f} s.\n\n"
    )
    text = note + table(variants, flops, peaks) + "\n"
    write_text(asked.out, text)
    print(text)


if __name__ == "__main__":
    main()
