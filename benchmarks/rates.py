"""Images a second of everything the profiles do with images, for the estimates of `ucvgl reproduce --dry-run`.

    OMP_NUM_THREADS=1 python benchmarks/rates.py        some minutes on a CPU; one core, as rows share the cores

Each training is three steps (the paper's on a CPU: one, of one image) after a first one that is not counted: a batch of
random images augmented, embedded forwards and backwards, and AdamW's step. Rendering is the world's, on a few places.
Replaces this device's lines of ucvgl/lab/rates.csv.
"""

import argparse
import os
import platform
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pandas as pd
import torch
from harness import now
from torch import Generator

from ucvgl.augment import UCVGL, augment
from ucvgl.encoders import Encoder, EncoderConfig
from ucvgl.lab import profiles, rows, variants
from ucvgl.lab.graph import RATES
from ucvgl.lab.settings import RunRequest
from ucvgl.methods.common import device
from ucvgl.paths import write_text
from ucvgl.training import TrainingConfig
from ucvgl.translation import CycleGanConfig, train_cyclegan
from ucvgl.world.drives import DriveConfig, world_drives
from ucvgl.world.pairs import WorldConfig, world_pairs

STEPS = 3


def training(config: EncoderConfig, settings: TrainingConfig, batch: int) -> float:
    """Images a second of training an encoder."""
    generator = Generator().manual_seed(0)
    pixels = torch.randint(256, (batch, 3, *config.image_px), dtype=torch.uint8, generator=generator)
    encoder = Encoder(replace(config, pretrained="none")).to(device(), memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-4)
    half = settings.precision == "bf16"

    def step() -> None:
        images = augment(pixels.to(device()).float() / 255, UCVGL, generator)
        with torch.autocast(device().type, torch.bfloat16, enabled=half):
            loss = encoder(images).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    steps, begun = STEPS if batch > 1 else 1, now()
    for _ in range(steps):
        step()
    return steps * batch / (now() - begun)


def translation(config: CycleGanConfig) -> float:
    """Images a second of training a CycleGAN, from the difference of two numbers of steps."""
    images = torch.randint(256, (2 * config.batch + 2, 3, config.load_px, config.load_px), dtype=torch.uint8)
    seconds = []
    for steps in (1, 1, 1 + STEPS):  # the first for what it loads
        few = replace(config, epochs=1, decay_epochs=0, steps_per_epoch=steps)
        with tempfile.TemporaryDirectory() as folder:
            begun = now()
            train_cyclegan(images, images.flip(0), few, Path(folder), device=device(), progress=False)
            seconds.append(now() - begun)
    return STEPS * config.batch / max(seconds[-1] - seconds[-2], 1e-3)


def rendering(render: Callable[[WorldConfig | DriveConfig], object], config: WorldConfig | DriveConfig) -> float:
    """Places a second of rendering, from the difference of two numbers of them, which takes the city's own time away."""
    seconds = []
    for places in (8, 8, 40):  # the first for what it loads
        with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {"UCVGL_RUNS": folder}):
            begun = now()
            render(replace(config, styles=config.styles[:1], places=places))
            seconds.append(now() - begun)
    return 32 / max(seconds[2] - seconds[1], 1e-3)


def wanted() -> dict[str, Callable[[], float]]:
    """By line of rates.csv: what measures it."""
    found: dict[str, Callable[[], float]] = {}
    needed: set[str] = set()
    for profile in ("tiny", "laptop", "paper"):
        needed |= {
            stage.work for stage in rows.all_stages(rows.rows(RunRequest(profile, rows="all"), 0).values()).values()
        }
        big = profile == "paper"
        batch = 32 if torch.cuda.is_available() or not big else 1
        one, two, three = profiles.ucvgl(profile, 0), profiles.sample4geo(profile, 0), profiles.vg_ssl(profile, 0)
        wide = variants.without(one.start, "no_projection").ground
        encoders = {one.start.ground, wide, two.method.ground, two.drone.ground}
        encoders |= {two.real.encoder} if two.real is not None else set()
        settings = one.curriculum.training
        for config in encoders | {m.encoder for m in (*three.methods.values(), *three.real.values())}:
            found[rows.training_of(config)] = lambda c=config, b=batch, s=settings: training(c, s, b)
        gans = {one.gan, one.start.translation.gan, variants.translated(one, "cyclegan").translation.gan}
        for gan in gans:
            if gan.crop_px > 128 and not torch.cuda.is_available():
                continue  # the paper's takes minutes a step on a CPU
            found[rows.gan_training_of(gan)] = lambda g=gan: translation(g)
        drive = three.train[0]
        for world in (one.train, two.trained):
            found[rows.rendering_of("panoramas and tiles", world.panorama_px)] = lambda c=world: rendering(_pairs, c)
        found[rows.rendering_of("photos", three.photo_px[0])] = lambda c=drive: 2 * rendering(_drives, c)
    return {work: measure for work, measure in found.items() if work in needed}


def _pairs(config: WorldConfig) -> object:
    return world_pairs(config, "train", progress=False)


def _drives(config: DriveConfig) -> object:
    return world_drives(config, progress=False)


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RATES)
    out = parser.parse_args().out
    cpu = f"CPU {platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__.partition('+')[0]}"
    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else cpu
    lines = []
    for work, measure in wanted().items():
        lines.append({"work": work, "device": name, "images_per_second": float(f"{measure():.3g}")})
        print(*lines[-1].values(), sep="  ", flush=True)
    kept = pd.read_csv(RATES)
    kept = kept[kept["device"].str.startswith("CPU") == torch.cuda.is_available()]
    write_text(out, pd.concat([kept, pd.DataFrame(lines)]).to_csv(index=False, lineterminator="\n"))


if __name__ == "__main__":
    main()
