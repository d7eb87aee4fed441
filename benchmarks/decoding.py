"""Images per second of the whole pipeline (read, decode, resize, augment, batch) for CVUSA's two image sizes, decoder
by decoder.

    python benchmarks/decoding.py [--images 128] [--repeats 5] [--out FILE]

Synthetic JPEGs as large as CVUSA's own (quality 90) are read by two DataLoader workers, resized, batched by 32 and augmented.
Compared: what ucvgl ships, Pillow alone with and without draft mode, torchvision.io (all with ucvgl's batched augmentation),
and, if cv2 is there, a plain OpenCV loop as published code has it: every step image by image in the worker. A decoder that
gives another image than ucvgl's, by more than resizing explains, is an error.
"""

import argparse
import resource
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from harness import RESULTS, in_turns, now, write
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.io import ImageReadMode, decode_image, read_file

from ucvgl.augment import UCVGL, augment
from ucvgl.data.decoding import decode_file

try:
    import cv2
except ImportError:  # a user's option, no dependency
    cv2 = None

Size = tuple[int, int]
MEAN, STD = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))  # as pretrained encoders expect
CASES = (("satellite", (750, 750), (384, 384)), ("satellite", (750, 750), (128, 128)),
         ("ground", (224, 1232), (140, 768)), ("ground", (224, 1232), (384, 384)))  # fmt: skip
BATCH = 32


def write_jpegs(folder: Path, count: int, size: Size) -> list[str]:
    """JPEGs whose spectrum falls off so that they are as large as CVUSA's own: about 105 KB a tile, 35 KB a panorama."""
    rng, (height, width) = np.random.default_rng(0), size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    falloff = 1 / np.maximum(frequency, 1 / max(size)) ** 1.6
    paths = [str(folder / f"{height}x{width}-{i:04d}.jpg") for i in range(count)]
    for path in paths:
        grain = rng.standard_normal(size) + 0.3 * rng.standard_normal((3, *size))
        noise = np.fft.irfft2(np.fft.rfft2(grain) * falloff, s=size)
        noise = (noise - noise.mean((1, 2), keepdims=True)) / noise.std((1, 2), keepdims=True)
        pixels = np.clip(128 + 48 * noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels.transpose(1, 2, 0)).save(path, quality=90)
    return paths


def pillow(path: str, size: Size, draft: bool) -> Tensor:
    """Decode with Pillow, in draft mode or whole."""
    with Image.open(path) as image:
        if draft:
            image.draft("RGB", (size[1], size[0]))
        image = image.convert("RGB").resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def torchvision_io(path: str, size: Size) -> Tensor:
    """Decode with torchvision.io (deprecated since 0.29), resize antialiased with torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        image = decode_image(read_file(path), ImageReadMode.RGB)
    return torch.nn.functional.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]


def opencv(path: str, size: Size) -> Tensor:
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
        holes = (np.arange(size[0])[:, None] % cell < cell // 2) & (np.arange(size[1]) % cell < cell // 2)
        image = np.where(holes[..., None], np.uint8(0), image)
    image = ((image / 255 - MEAN) / STD).astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


DECODERS: dict[str, Callable[[str, Size], Tensor]] = {
    "ucvgl: Pillow (draft), torch resizes": decode_file,
    "Pillow (draft), Pillow resizes": partial(pillow, draft=True),
    "Pillow (whole), Pillow resizes": partial(pillow, draft=False),
    "torchvision.io, torch resizes": torchvision_io,
}


def seconds(one_pass: Callable[[], object]) -> tuple[float, float]:
    """Of the clock, and of the processors, the workers' included."""

    def processors() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in used)

    begun, used = now(), processors()
    one_pass()
    return now() - begun, processors() - used


def read(paths: list[str], size: Size, decode: Callable[[str, Size], Tensor]) -> None:
    """One pass over the files, the workers' start included."""
    images = [(path, size) for path in paths]
    loader = DataLoader(
        images, BATCH, num_workers=2, collate_fn=lambda some: torch.stack([decode(*one) for one in some]),
        worker_init_fn=lambda _: torch.set_num_threads(1),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    mean, std = (torch.from_numpy(value).float().view(3, 1, 1) for value in (MEAN, STD))
    for batch in loader:
        if batch.dtype == torch.uint8:
            augment(batch, UCVGL, generator).sub_(mean).div_(std)


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "decoding.md")
    asked = parser.parse_args()
    torch.set_num_threads(1)  # the workers have the cores
    decoders = DECODERS
    if cv2 is not None:
        cv2.setNumThreads(1)  # before the workers start: each has one core
        decoders = DECODERS | {"OpenCV loop": opencv}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case, source, size in CASES:
            paths = write_jpegs(Path(folder), asked.images, source)
            for name, decode in DECODERS.items():
                apart = (decode(paths[0], size).float() - decode_file(paths[0], size).float()).abs().mean()
                if apart > 3:
                    raise SystemExit(
                        f"{name}: {apart:.1f} of 255 grey levels from ucvgl's in the mean; nothing to time"
                    )
            ways = {name: partial(read, paths, size, decode) for name, decode in decoders.items()}
            found = {
                name: np.array(times) for name, times in in_turns(ways, asked.repeats, seconds).items()
            }  # (repeats, 2)
            for name, times in found.items():
                speed = len(paths) / times[:, 0]
                row = {"images": f"{case} {source[1]} x {source[0]} -> {size[1]} x {size[0]}", "decoder": name}
                row |= {
                    "images/s": float(np.median(speed)),
                    "lowest": float(speed.min()),
                    "highest": float(speed.max()),
                }
                if cv2 is not None:
                    row["times the OpenCV loop"] = float(np.median(found["OpenCV loop"][:, 0] / times[:, 0]))
                rows.append(row | {"processor ms an image": float(1000 * np.median(times[:, 1]) / len(paths))})
    about = f"{asked.images} synthetic JPEGs of quality 90, batches of {BATCH}, two workers, {asked.repeats} rounds in which all "
    about += f"take turns; ratios are medians of those within a round; processor time includes the workers'. Pillow {Image.__version__}, OpenCV "
    about += f"{cv2.__version__ if cv2 is not None else 'not installed'}."
    write(asked.out, "Decoding: images per second, whole pipeline", about, rows)


if __name__ == "__main__":
    main()
