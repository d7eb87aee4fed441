"""What UCVGL's stages read: panoramas, their top views and satellite tiles, in arrays of equal sizes on disk.

Projected once and mapped from disk after that, so that data sets larger than memory are read by the page. No label is
among them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from ucvgl.data import Positives, Views, detect_layout, open_dataset
from ucvgl.data.decoding import batches
from ucvgl.data.views import ArrayImages
from ucvgl.distributed import first_alone
from ucvgl.errors import InputError
from ucvgl.geometry import CVUSA_STRIP_OFFSET, TopView, complete_panorama, polar_view, top_view
from ucvgl.positions import Metres, Positions
from ucvgl.results import WORLD
from ucvgl.stages import run_stage
from ucvgl.world.pairs import Pairs, WorldConfig, render_pairs

BATCH = 64


@dataclass(frozen=True)
class ImageConfig:
    """The pictures that encoders are given."""

    panorama_px: tuple[int, int] = (384, 384)  # height, width, squeezed into it; UCVGL (384, 384), on VIGOR (384, 768)
    tile_px: int = 384  # of tiles and top views; UCVGL 384
    fov_deg: float = 175.0  # of the top view, across; UCVGL 175 on CVUSA, 170 on CVACT
    camera_height_m: float = 2.5  # the projection's guess; with the field of view it sets the top view's span

    @property
    def top_view(self) -> TopView:
        """The projection's settings."""
        return TopView(self.tile_px, self.fov_deg, self.camera_height_m)


@dataclass(frozen=True, eq=False)
class Images:
    """N ground images and M satellite tiles, uint8, in memory or mapped from disk. Nothing says which belong together.

    Args:
        panorama: (N, 3, H, W).
        top_view: (N, 3, S, S), of the same panoramas.
        tile: (M, 3, S, S).
        data_id: names these images; the same for the same files and settings.
    """

    panorama: Tensor
    top_view: Tensor
    tile: Tensor
    data_id: str

    def __len__(self) -> int:
        return len(self.panorama)


@dataclass(frozen=True)
class Splits:
    """A data set in two parts; places of the second are never trained on."""

    name: str
    train: Views
    test: Views


def world_views(pairs: Pairs, split: str) -> Views:
    """The world's pairs as a data set: panorama i belongs to tile i."""
    ids = tuple(f"{split}-{i:06d}" for i in range(len(pairs)))
    frame = Metres("embedded world")
    ground = ArrayImages(ids, pairs.panorama, Positions(np.asarray(pairs.position_m, np.float64), frame))
    tiles = ArrayImages(ids, pairs.tile, Positions(np.asarray(pairs.tile_m, np.float64), frame))
    return Views(WORLD, split, ground, tiles, Positives.one_each(np.arange(len(pairs))))


def open_splits(data: str, train: WorldConfig, test: WorldConfig) -> Splits:
    """Training and test part of the embedded world, or of a data set that lies in the folder `data`.

    Raises:
        InputError: the folder's layout is not recognised, or it lacks a part.
    """
    if data == WORLD:
        with first_alone():
            return Splits(WORLD, world_views(render_pairs(train), "train"), world_views(render_pairs(test), "test"))
    name = detect_layout(data)
    held_out = "test" if name == "vigor" else "val"  # what the paper evaluates on; VIGOR has no third part
    return Splits(name, open_dataset(name, data, "train"), open_dataset(name, data, held_out))


def prepare(views: Views, config: ImageConfig, *, progress: bool = True) -> Images:
    """Reads, projects and resizes all images of a data set, once: the next call maps them from the run cache.

    Args:
        views: its labels are not looked at.
        config: the sizes and the projection.
        progress: show a bar.

    Raises:
        InputError: an image that cannot be read.
    """
    hidden = views.without_labels()
    with first_alone():
        stage = run_stage("images", config, hidden.data_id(), lambda folder: _write(hidden, config, folder, progress))
    arrays = {name: _mapped(stage.folder / f"{name}.npy") for name in ("panorama", "top_view", "tile")}
    return Images(**arrays, data_id=stage.folder.name)


def _mapped(path: Path) -> Tensor:
    """An array of images on disk, read by the page."""
    try:
        # copy-on-write: torch wants writable memory, and nothing writes to it
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise InputError(path, expected="an array of images", found=error, todo=f"Delete {path.parent}.") from None


@dataclass(frozen=True)
class _Polar:
    """How polar tiles are made."""

    height_px: int
    width_px: int


def polar_tiles(images: Images) -> Tensor:
    """The tiles unrolled around their centres, (M, 3, H, W) as the panoramas; made once, then mapped from disk.

    Source: SAFA (Shi, Liu, Yu, Li; NeurIPS 2019), section 3.1.
    """
    height, width = images.panorama.shape[2:]

    def compute(folder: Path) -> dict[str, int]:
        out = _array(folder, "polar", (len(images.tile), 3, height, width))
        for first in range(0, len(images.tile), BATCH):
            rows = slice(first, first + BATCH)
            out[rows] = polar_view(images.tile[rows], height, width).numpy()
        out.flush()
        return {}

    with first_alone():
        stage = run_stage("polar", _Polar(height, width), images.data_id, compute, say=lambda _: None)
    return _mapped(stage.folder / "polar.npy")


@dataclass(frozen=True)
class _Sizes:
    """Height and width of images that are not projected."""

    ground_px: tuple[int, int]
    satellite_px: tuple[int, int]


def read_resized(
    views: Views, ground_px: tuple[int, int], satellite_px: tuple[int, int], *, progress: bool = True
) -> tuple[Tensor, Tensor, str]:
    """Reads and resizes all images of a data set once, without projecting any, and maps them after that.

    Args:
        views: its labels are not looked at.
        ground_px: (height, width) of the ground images.
        satellite_px: of the satellite images.
        progress: show a bar.

    Returns:
        ground images uint8 (N, 3, H, W), satellite images (M, 3, H, W), and the id of both.

    Raises:
        InputError: an image that cannot be read.
    """
    hidden = views.without_labels()
    sides = {"ground": (views.ground, tuple(ground_px)), "satellite": (views.satellite, tuple(satellite_px))}

    def compute(folder: Path) -> dict[str, int]:
        total = sum(len(images) for images, _ in sides.values())
        with tqdm(total=total, desc="reading", unit="image", disable=not progress) as bar:
            for name, (images, size) in sides.items():
                out = _array(folder, name, (len(images), 3, *size))
                for rows, pictures in _batches(images, size):
                    out[rows] = pictures.numpy()
                    bar.update(len(pictures))
                out.flush()
        return {name: len(images) for name, (images, _) in sides.items()}

    with first_alone():
        stage = run_stage("plain-images", _Sizes(tuple(ground_px), tuple(satellite_px)), hidden.data_id(), compute)
    ground, satellite = (_mapped(stage.folder / f"{name}.npy") for name in sides)
    return ground, satellite, stage.folder.name


def prepare_plain(views: Views, size_px: tuple[int, int], *, progress: bool = True) -> Images:
    """`read_resized` for methods that take panoramas: drone images and their tiles.

    Args:
        views: its labels are not looked at.
        size_px: edge of the ground images and of the tiles.
        progress: show a bar.

    Returns:
        images whose `panorama` and `top_view` are both the ground image as it is.
    """
    ground, tile, data_id = read_resized(views, (size_px[0],) * 2, (size_px[1],) * 2, progress=progress)
    return Images(ground, ground, tile, data_id)


def _write(views: Views, config: ImageConfig, folder: Path, progress: bool) -> dict[str, int]:
    size = config.tile_px
    counts = {"ground": len(views.ground), "satellite": len(views.satellite)}
    native = tuple(views.ground.read(0).shape[1:])
    with tqdm(total=sum(counts.values()), desc="projecting", unit="image", disable=not progress) as bar:
        panoramas = _array(folder, "panorama", (counts["ground"], 3, *config.panorama_px))
        tops = _array(folder, "top_view", (counts["ground"], 3, size, size))
        for rows, images in _batches(views.ground, native):
            panoramas[rows] = resized(images, config.panorama_px).numpy()
            is_strip = images.shape[3] != 2 * images.shape[2]
            whole = complete_panorama(images, strip_offset=CVUSA_STRIP_OFFSET) if is_strip else images
            tops[rows] = top_view(whole, config.top_view).numpy()
            bar.update(len(images))
        tiles = _array(folder, "tile", (counts["satellite"], 3, size, size))
        for rows, images in _batches(views.satellite, (size, size)):
            tiles[rows] = images.numpy()
            bar.update(len(images))
    for array in (panoramas, tops, tiles):
        array.flush()
    return counts


def _array(folder: Path, name: str, shape: tuple[int, ...]) -> np.memmap:
    return np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, shape)


def _batches(images: object, size: tuple[int, int]) -> Iterator[tuple[np.ndarray, Tensor]]:
    """All images in batches: from an array as they lie there, from files by worker processes."""
    workers = 0 if isinstance(images, ArrayImages) else 2
    for rows, pictures in batches(images, size, BATCH, workers=workers):
        yield rows.numpy(), pictures


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (B, 3, H, W) -> uint8 at `size`, averaging over the pixels that fall together."""
    if tuple(images.shape[2:]) == tuple(size):
        return images
    return F.interpolate(images.float(), size, mode="area").round().to(torch.uint8)
