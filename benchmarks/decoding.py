"""Images per second of the whole pipeline (read, decode, resize, augment, batch) for CVUSA's two image sizes, decoder
by decoder.

    python benchmarks/decoding.py [--images 128] [--repeats 5] [--out FILE]

Synthetic JPEGs as large as CVUSA's own (quality 90) are read by two DataLoader workers, resized, batched by 32 and augmented.
Compared: what ucvgl ships, Pillow alone with and without draft mode, torchvision.io; all with ucvgl's batched augmentation. A
decoder that gives another image than ucvgl's, by more than resizing explains, is an error.
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

Size = tuple[int, int]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as pretrained encoders expect
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
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (MEAN, STD))
    for batch in loader:
        augment(batch, UCVGL, generator).sub_(mean).div_(std)


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "decoding.md")
    asked = parser.parse_args()
    torch.set_num_threads(1)  # the workers have the cores
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
            ways = {name: partial(read, paths, size, decode) for name, decode in DECODERS.items()}
            for name, times in in_turns(ways, asked.repeats, seconds).items():
                clock, processors = np.array(times).T
                row = {"images": f"{case} {source[1]} x {source[0]} -> {size[1]} x {size[0]}", "decoder": name}
                row |= {"images/s (median)": len(paths) / float(np.median(clock))}
                row |= {"lowest": len(paths) / float(clock.max()), "highest": len(paths) / float(clock.min())}
                rows.append(row | {"processor ms an image": 1000 * float(np.median(processors)) / len(paths)})
    about = (
        f"{asked.images} synthetic JPEGs of quality 90, batches of {BATCH}, two workers, {asked.repeats} rounds in which all take "
        f"turns; processor time includes the workers'. Pillow {Image.__version__}."
    )
    write(asked.out, "Decoding: images per second, whole pipeline", about, rows)


if __name__ == "__main__":
    main()
