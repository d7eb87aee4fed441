"""Read, decode, resize, batch: images from files to uint8 tensors, in threads, none ever left out silently. Pillow decodes (JPEG
scaled while decoding) and torch resizes, which is cheaper: benchmarks/results/decoding.md. A file that is missing, empty,
truncated or not an image raises InputError, where `cv2.imread` returns a half-grey image or None.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from tqdm.auto import tqdm

from ucvgl.errors import InputError

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP")
MAX_PIXELS = 178_956_970  # Pillow's own guard against decompression bombs; a 19,000 x 9,500 panorama is just larger


def decode_file(path: str, size: tuple[int, int] | None = None) -> Tensor:
    """One JPEG, PNG, TIFF, WebP or BMP file -> uint8 (3, H, W), RGB, turned upright by its EXIF orientation, resized to
    `size` (height, width), antialiased, if given. InputError: absent, empty, truncated, too large or no image."""
    with _opened(path) as image:
        turned = _orientation(image) != 1
        if size is not None and not turned:
            image.draft("RGB", (size[1], size[0]))  # JPEG only; never smaller than asked
        if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips at 255
            image = Image.fromarray((np.asarray(image, np.uint32) >> 8).astype(np.uint8))
        image = (ImageOps.exif_transpose(image) if turned else image).convert("RGB")
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W), a view
    return resize(pixels, size)


def image_size(path: str) -> tuple[int, int]:
    """(height, width) that `decode_file` will return, from the header alone; InputError as there."""
    with _opened(path) as image:
        return image.size if _orientation(image) > 4 else image.size[::-1]


def decode_all(
    paths: Sequence[str], what: str, size: tuple[int, int] | None = None
) -> list[tuple[int, int] | InputError]:
    """(height, width) of every file as `decode_file` returns it, or its error; in parallel, with a bar called `what`."""

    def look(path: str) -> tuple[int, int] | InputError:
        try:
            return tuple(decode_file(path, size).shape[1:])
        except InputError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside the interpreter's lock
        return list(tqdm(pool.map(look, paths), what, len(paths), unit="image"))


def resize(image: Tensor, size: tuple[int, int] | None) -> Tensor:
    """uint8 (3, H, W) -> uint8 (3, *size), bilinear and antialiased; None keeps the size."""
    if size is not None and tuple(size) != tuple(image.shape[1:]):
        image = torch.nn.functional.interpolate(image[None], size=tuple(size), mode="bilinear", antialias=True)[0]
    return image.contiguous()


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    try:
        with open(path, "rb") as file:
            image = Image.open(file, formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise InputError(path, expected=f"at most {MAX_PIXELS:,} pixels", found=f"{image.width} x {image.height}",
                                 todo="Scale the image down.")  # fmt: skip
            yield image
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(path, expected="an image", found="no such file", todo="Copy the image there.") from error
    except Exception as error:  # decoders raise whatever a damaged byte leads them to
        found = f"{type(error).__name__}: {error}"[:200] if Path(path).stat().st_size else "an empty file"
        raise InputError(path, expected="a whole image (JPEG, PNG, TIFF, WebP or BMP)", found=found,
                         todo="Copy the file again; it is empty, truncated or no image.") from error  # fmt: skip


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged tags do not spoil an image
        return 1


def batches(
    images: Any, size: tuple[int, int], batch_size: int, order: Sequence[int] | np.ndarray | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images of `size` (height, width) in batches, indices (B,) int64 and images uint8 (B, 3, H, W), in exactly that order, which
    may repeat one; the last batch is shorter, never dropped. Threads call `images.read`. InputError: an unreadable file."""
    rows = torch.as_tensor(range(len(images)) if order is None else order)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for some in rows.split(batch_size):
            yield some, torch.stack([*pool.map(lambda i: images.read(i, size), some.tolist())])
