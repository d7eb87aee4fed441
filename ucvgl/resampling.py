"""Sampling batches of images at fixed places: where to look is worked out once, the seam and the poles included.

`grid_at` turns source pixels into a Grid, `resample` applies it to images (B, C, H, W) of 1, 3 or 4 channels: floating
(computed in float32, float64 for float64, returned in the dtype that came) or uint8 (returned rounded). B may be 0.
Bilinear or nearest.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ucvgl.errors import InputError

CHUNK_BYTES = {"cpu": 2**24, "cuda": 2**30}  # working memory where dtypes are converted or every image has its own grid

Mode = Literal["bilinear", "nearest"]


class Grid(NamedTuple):
    """Where to sample: what F.grid_sample reads, and apart from it the few pixels that straddle the seam or a pole."""

    points: Tensor  # (G, h, w, 2) in grid_sample's units over rows [first, last)
    first: int
    last: int
    image: Tensor | None  # (K,) which grid a straddling pixel belongs to; None where one grid serves the whole batch
    out: Tensor  # (K,) its place in h * w
    rows: Tensor  # (K, 4) its four neighbours, counted from row first
    columns: Tensor  # (K, 4)
    weights: Tensor  # (K, 4)


def check_images(where: str, images: object) -> None:
    """InputError unless a (B, C, H, W) tensor, uint8 or floating, of 1, 3 or 4 channels, not empty but for B."""
    if not isinstance(images, Tensor):
        raise InputError(
            where, expected="a tensor (B, C, H, W)", found=type(images).__name__, todo="Use torch.from_numpy or stack."
        )
    if images.ndim != 4 or 0 in images.shape[-2:]:
        todo = "Add the batch dimension with image[None]." if images.ndim == 3 else "Reshape it to images."
        raise InputError(where, expected="shape (B, C, H, W), not empty", found=str(tuple(images.shape)), todo=todo)
    if images.shape[1] not in (1, 3, 4):
        todo = (
            "Move the channels first with permute(0, 3, 1, 2)." if images.shape[-1] in (1, 3, 4) else "Select channels."
        )
        raise InputError(
            where, expected="1, 3 or 4 channels", found=f"{images.shape[1]} in {tuple(images.shape)}", todo=todo
        )
    if not (images.is_floating_point() or images.dtype == torch.uint8):
        raise InputError(
            where, expected="floating values or uint8", found=str(images.dtype), todo="Use images.float()."
        )


def check_mode(mode: object) -> None:
    """InputError unless a known way of sampling."""
    if mode not in ("bilinear", "nearest"):
        raise InputError("mode", expected="'bilinear' or 'nearest'", found=repr(mode), todo="Choose one of the two.")


def move_grid(grid: Grid, device: torch.device, dtype: torch.dtype) -> Grid:
    """The same grid on a device, its fractions in a dtype."""
    move = [v.to(device, dtype if v.is_floating_point() else v.dtype) if isinstance(v, Tensor) else v for v in grid]
    return Grid(*move)


def grid_at(pixels: Tensor, height: int, width: int, *, wrap: bool) -> Grid:
    """A grid from source pixels (G, h, w, 2); wrap: columns are a full turn, and rows pass over the poles."""
    shared = len(pixels) == 1
    column, row = pixels.unbind(-1)
    if wrap:
        column = torch.remainder(column + 0.5, width) - 0.5
        row = row.clamp(-0.5, height - 0.5)
    first, last = 0, height
    if (
        shared and pixels.numel()
    ):  # a downward view reads the lower half only; for one grid each it isn't worth the wait
        first = max(int(row.min().floor()), 0)
        last = max(min(int(row.max().floor()) + 2, height), first + 1)
    points = torch.stack([(2 * column + 1) / width - 1, (2 * (row - first) + 1) / (last - first) - 1], -1)

    straddle = (column < 0) | (column > width - 1) | (row < 0) | (row > height - 1)
    straddle = straddle.flatten(1).nonzero() if wrap else straddle.new_zeros(0, 2, dtype=torch.long)  # (K, 2)
    image, out = straddle.unbind(-1)
    column, row = column.flatten(1)[image, out], row.flatten(1)[image, out]  # (K,)
    left, above = column.floor(), row.floor()
    right, below = column - left, row - above  # weights of the right and of the lower neighbour
    weights = torch.stack([1 - right, right, 1 - right, right], -1)
    weights = weights * torch.stack([1 - below, 1 - below, below, below], -1)  # (K, 4)
    columns = torch.stack([left, left + 1, left, left + 1], -1).long()
    rows = torch.stack([above, above, above + 1, above + 1], -1).long()
    beyond = (rows < 0) | (rows >= height)  # past a pole: the same row, half a turn away
    columns = torch.where(beyond, columns + width // 2, columns) % width
    rows = torch.where(rows < 0, -1 - rows, torch.where(rows >= height, 2 * height - 1 - rows, rows)) - first
    return Grid(points, first, last, None if shared else image, out, rows, columns, weights)


def compute_dtype(images: Tensor) -> torch.dtype:
    """What images are sampled in: float64 for float64, float32 for all else."""
    return torch.float64 if images.dtype == torch.float64 else torch.float32


def images_at_once(images: Tensor, bytes_each: int) -> int:
    """How many images to take at once: what the working memory holds, though no fewer than there are threads."""
    budget = CHUNK_BYTES.get(images.device.type, CHUNK_BYTES["cpu"])
    return max(budget // max(bytes_each, 1), torch.get_num_threads() if images.device.type == "cpu" else 1)


def resample(images: Tensor, grid: Grid, mode: Mode) -> Tensor:
    """Sample (B, C, H, W) at a grid -> (B, C, h, w) in the images' dtype, converting a few images at a time."""
    compute, read = compute_dtype(images), slice(grid.first, grid.last)
    if images.dtype == compute or images.requires_grad:
        return _sample(images[:, :, read].to(compute), grid, mode).to(images.dtype)
    view = images.new_empty(*images.shape[:2], *grid.points.shape[1:3])
    pixels = (grid.last - grid.first) * images.shape[-1] + grid.points.shape[1] * grid.points.shape[2]
    size = images_at_once(images, 4 * images.shape[1] * pixels) if grid.image is None else max(len(images), 1)
    # one buffer for all chunks: handing 25 MB back and asking again would cost more than the sampling
    source = images.new_empty(min(size, len(images)), *images[:0, :, read].shape[1:], dtype=compute)
    for start in range(0, len(images), size):
        part = images[start : start + size, :, read]
        values = _sample(source[: len(part)].copy_(part), grid, mode)
        if images.dtype == torch.uint8:
            values.round_()  # bilinear never leaves 0 to 255
        view[start : start + size] = values
    return view


def _sample(source: Tensor, grid: Grid, mode: Mode) -> Tensor:
    """Sample rows [first, last) of the images, already in the grid's dtype: (B, C, rows, W) -> (B, C, h, w)."""
    batch = len(source)
    points = grid.points.expand(batch, -1, -1, -1)  # a view: one grid for all; the images are spread over the threads
    view = F.grid_sample(source, points, mode, padding_mode="border", align_corners=False)
    if mode == "nearest" or not len(grid.out) or not batch:  # the nearest pixel never lies across the seam
        return view
    # Padding the panorama by a column and a row would do the same but copy all of it, which costs more than the
    # sampling; the pixels that straddle are few, so they are done again by hand.
    image = torch.arange(batch, device=source.device)[:, None] if grid.image is None else grid.image  # (B, 1) or (K,)
    neighbours = source[image[..., None], :, grid.rows, grid.columns]  # (B, K, 4, C) or (K, 4, C)
    view.flatten(2)[image, :, grid.out] = (neighbours * grid.weights[..., None]).sum(-2)
    return view
