"""From files to arrays: images of a data set read, projected and resized, in folders that are made once and mapped from disk after
that, as rendered worlds are, so that data sets larger than memory are read page by page. Labels are not used."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from ucvgl import paths
from ucvgl.data.container import ArrayImages, Dataset, FileImages, ImageSet
from ucvgl.data.decoding import batches, image_size
from ucvgl.errors import InputError
from ucvgl.geometry import TopView, complete_panorama, polar_view, top_view

BATCH = 64
VERSION = 1  # of what is written: raised when the pixels change


def made_once(kind: str, key: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
    """The folder runs/<kind>/<hash of key>, made if it is not there; it appears when it is complete. `key` is all that the
    contents depend on, as JSON takes it. `make` writes into the folder it is given, in one process: others, of this training
    or another's, wait for it."""
    text = json.dumps(key, sort_keys=True)
    folder = paths.runs() / kind / hashlib.sha256(text.encode()).hexdigest()[:12]
    lock = folder.with_name(f".{folder.name}.lock")
    with paths.waiting_for(lock, f"another process makes {kind}/{folder.name}"):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as name:
                scratch = Path(name) / "made"
                scratch.mkdir()
                (scratch / "key.json").write_text(text)
                make(scratch)
                scratch.replace(folder)
    return folder


def new_images(folder: Path, name: str, shape: tuple[int, ...]) -> np.memmap:
    """An array of images to be filled, uint8 on disk; InputError where the disk has no room for it."""
    needed = int(np.prod(shape))
    if shutil.disk_usage(folder).free < 1.05 * needed:
        raise InputError(folder, expected=f"{needed / 1e9:.2f} GB free", found="less",
                         todo="Free some, or set UCVGL_RUNS.")  # fmt: skip
    return np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, shape)


def mapped(folder: Path, name: str) -> Tensor:
    """An array of a folder of `made_once`, read by the page; InputError if it is missing or damaged."""
    path = folder / f"{name}.npy"
    try:
        # copy-on-write: torch wants writable memory, and nothing writes to it
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:  # EOFError: an empty file
        raise InputError(path, expected="an array", found=error, todo=f"Delete {folder}; it is made again.") from None


@dataclass(frozen=True)
class Preparation:
    """The images that encoders are given."""

    query_px: tuple[int, int] = (384, 384)  # height, width, squeezed into it; UCVGL (384, 384), on VIGOR (384, 768)
    gallery_px: tuple[int, int] = (384, 384)  # UCVGL (384, 384)
    top_view: TopView | None = None  # queries are panoramas, and their projections are wanted too
    polar: bool = False  # ours: gallery tiles unrolled around their centres, to the queries' size (SAFA, section 3.1)


def prepare(data: Dataset, config: Preparation) -> Dataset:
    """The data set with tensors behind it: query uint8 (N, 3, H, W), gallery (M, 3, h, w), and top_view (N, 3, S, S) if there is a
    projection; its labels come along untouched. InputError: an image cannot be read, the disk has no room."""
    key = {
        "version": VERSION, "query": data.query.digest(), "gallery": data.gallery.digest(),
        "strip_offset": data.strip_offset, **asdict(config),
    }  # fmt: skip
    folder = made_once("images", key, lambda folder: _write(folder, data, config))
    sides = {"query": data.query, "gallery": data.gallery} | ({"top_view": data.query} if config.top_view else {})
    return replace(data, **{
        name: ArrayImages(images.ids, mapped(folder, name), images.positions, f"{folder.name}-{name}")
        for name, images in sides.items()
    })  # fmt: skip


def _write(folder: Path, data: Dataset, config: Preparation) -> None:
    n, m = len(data.query), len(data.gallery)
    tile_px = config.query_px if config.polar else config.gallery_px
    shapes = {"query": (n, 3, *config.query_px), "gallery": (m, 3, *tile_px)}
    if config.top_view:
        shapes["top_view"] = n, 3, config.top_view.size_px, config.top_view.size_px
    out = {name: new_images(folder, name, shape) for name, shape in shapes.items()}
    with tqdm(total=n + m, desc="images", unit="image") as bar:
        for rows, images in _batches(data.query, None if config.top_view else config.query_px):
            out["query"][rows] = resized(images, config.query_px).numpy()
            if config.top_view:
                is_strip = images.shape[3] != 2 * images.shape[2]
                whole = complete_panorama(images, strip_offset=data.strip_offset) if is_strip else images
                out["top_view"][rows] = top_view(whole, config.top_view).numpy()
            bar.update(len(rows))
        for rows, images in _batches(data.gallery, config.gallery_px):
            out["gallery"][rows] = (polar_view(images, *config.query_px) if config.polar else images).numpy()
            bar.update(len(rows))
    for array in out.values():
        array.flush()


def _batches(images: ImageSet, size: tuple[int, int] | None) -> Iterator[tuple[np.ndarray, Tensor]]:
    """All images in batches of `size`; None: of their own sizes, as a projection wants a panorama's own pixels."""
    in_files = isinstance(images, FileImages)
    sizes = np.array([size or (image_size(images.file(i)) if in_files else images.size) for i in range(len(images))])
    for own in np.unique(sizes, axis=0):
        some = np.flatnonzero((sizes == own).all(1))
        for rows, pixels in batches(images, tuple(own.tolist()), BATCH, some):
            yield rows.numpy(), pixels


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (B, 3, H, W) -> uint8 (B, 3, height, width), averaging over the pixels that fall together."""
    if tuple(images.shape[2:]) == tuple(size):
        return images
    return F.interpolate(images.float(), size, mode="area").round().to(images.dtype)
