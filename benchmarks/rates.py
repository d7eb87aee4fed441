"""Images a second of everything the profiles do with images, for the estimates of `ucvgl reproduce --dry-run`.

    OMP_NUM_THREADS=1 python benchmarks/rates.py        some minutes on a CPU; one core, as rows share the cores

Each training is three steps (the paper's on a CPU: one, of one image) after a first one that is not counted: a batch of
random images augmented, embedded forwards and backwards, and AdamW's step. Rendering is the world's, on a few places.
Replaces this device's lines of ucvgl/lab/rates.csv.
"""

import os
import platform
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import pandas as pd
import torch
from harness import now
from torch import Generator

from ucvgl.augment import UCVGL, augment
from ucvgl.encoders import Encoder, EncoderConfig
from ucvgl.lab import profiles, rows
from ucvgl.lab.graph import RATES
from ucvgl.lab.settings import RunRequest
from ucvgl.lab.train import cost_of, work_of
from ucvgl.methods.common import device
from ucvgl.paths import write_text
from ucvgl.translation import CycleGanConfig, train_cyclegan
from ucvgl.world.drives import DriveConfig, world_drives
from ucvgl.world.pairs import WorldConfig, world_pairs

STEPS = 3


def training(config: EncoderConfig, precision: str, batch: int) -> float:
    """Images a second of training an encoder."""
    generator = Generator().manual_seed(0)
    pixels = torch.randint(256, (batch, 3, *config.image_px), dtype=torch.uint8, generator=generator)
    encoder = Encoder(replace(config, pretrained="none")).to(device(), memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-4)

    def step() -> None:
        images = augment(pixels.to(device()).float() / 255, UCVGL, generator)
        with torch.autocast(device().type, torch.bfloat16, enabled=precision == "bf16"):
            loss = encoder(images).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    steps, begun = STEPS if batch > 1 else 1, now()
    for _ in range(steps):
        step()
    return steps * batch / (now() - begun)


def added(first: int, second: int, run: Callable[[int, Path], object]) -> float:
    """The seconds that the larger of two amounts of work takes more than the smaller; a first run, for what it loads, is not
    counted. Each run has a folder of its own, which is the run cache too."""
    seconds = []
    for amount in (first, first, second):
        with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {"UCVGL_RUNS": folder}):
            begun = now()
            run(amount, Path(folder))
            seconds.append(now() - begun)
    return max(seconds[2] - seconds[1], 1e-3)


def translation(config: CycleGanConfig) -> float:
    """Images a second of training a CycleGAN."""
    images = torch.randint(256, (2 * config.batch + 2, 3, config.load_px, config.load_px), dtype=torch.uint8)

    def run(steps: int, folder: Path) -> None:
        few = replace(config, epochs=1, decay_epochs=0, steps_per_epoch=steps)
        train_cyclegan(images, images.flip(0), few, folder, device())

    return STEPS * config.batch / added(1, 1 + STEPS, run)


def rendering(config: WorldConfig | DriveConfig) -> float:
    """Images a second of rendering, the city's own time not among them; of a place in the world one, of a drive two."""

    def run(places: int, _: Path) -> None:
        few = replace(config, styles=config.styles[:1], places=places, city_size_m=min(config.city_size_m, 1000.0))
        if isinstance(few, WorldConfig):
            world_pairs(few, "train")
        else:
            world_drives(few)

    return (128 if isinstance(config, WorldConfig) else 256) / added(8, 136, run)


def wanted() -> dict[str, Callable[[], float]]:
    """By line of rates.csv: what measures it."""
    found: dict[str, Callable[[], float]] = {}
    needed: set[str] = set()
    for profile in ("tiny", "laptop", "paper"):
        stages = rows.all_stages(rows.rows(RunRequest(profile, rows="all"), 0).values())
        needed |= {cost_of(stage).work for stage in stages.values()}
        big = profile == "paper" and not torch.cuda.is_available()
        one, two, three = profiles.ucvgl(profile, 0), profiles.sample4geo(profile, 0), profiles.vg_ssl(profile, 0)
        encoders = {one.start.ground, two.method.ground, two.drone.ground}
        encoders |= {two.real.encoder} if two.real is not None else set()
        encoders |= {method.encoder for method in (*three.methods.values(), *three.real.values())}
        for config in encoders:
            precision = one.curriculum.training.precision
            found[work_of(config)] = partial(training, config, precision, 1 if big else 32)
        for gan in {one.gan, one.start.translation.gan}:
            if gan.crop_px <= 128 or torch.cuda.is_available():  # the paper's takes minutes a step on a CPU
                found[work_of(gan)] = partial(translation, gan)
        for world in (one.train, two.trained):
            found[work_of(world)] = partial(rendering, world)
        found[work_of(three.train[0])] = partial(rendering, three.train[0])
    return {work: measure for work, measure in found.items() if work in needed}


def main() -> None:
    """Measures and writes."""
    version = torch.__version__.split("+")[0]
    cpu = f"CPU {platform.machine()}, {torch.get_num_threads()} thread, torch {version}"
    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else cpu
    lines = []
    for work, measure in wanted().items():
        lines.append([work, name, float(f"{measure():.3g}")])
        print(*lines[-1], sep="  ", flush=True)
    kept = pd.read_csv(RATES).loc[lambda rows: rows["device"].str.startswith("CPU") == torch.cuda.is_available()]
    write_text(
        RATES, pd.concat([kept, pd.DataFrame(lines, columns=kept.columns)]).to_csv(index=False, lineterminator="\n")
    )


if __name__ == "__main__":
    main()
