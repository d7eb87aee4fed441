"""The top view of panoramas: UCVGL's functions, an image at a time, beside `geometry.top_view`."""

import math
from functools import partial

import numpy as np
import torch
from comparison import Pair, Row, Sizes, Verdict, verdict
from official import Clone
from torch import Tensor

from ucvgl import geometry
from ucvgl.geometry import TopView, top_view

FOV_DEG = 175.0  # UCVGL's for CVUSA


def panoramas(count: int, height: int) -> Tensor:
    """uint8 (count, 3, H, 2H), smooth on the sphere, so that half a pixel more or less changes little."""
    elevation = (0.5 - (torch.arange(height)[:, None] + 0.5) / height) * math.pi
    azimuth = (torch.arange(2 * height) + 0.5) / height * math.pi
    phase = torch.rand(count, 3, 1, 1, generator=torch.Generator().manual_seed(0)) * 2 * math.pi
    waves = torch.sin(3 * azimuth + phase) + torch.sin(2 * azimuth - 4 * elevation + phase)
    return (127 + 60 * waves * elevation.cos()).round().byte()


def top_views(clone: Clone, sizes: Sizes, *, batch: bool, grids: str) -> Pair:
    """One panorama or a batch; grids: 'kept' by ours, 'built' by both, 'given' to both."""
    build = clone.get("utils", "get_BEV_projection", "CFP/GeometricProjection")
    sample = clone.get("utils", "get_BEV_tensor", "CFP/GeometricProjection")
    images = panoramas(sizes.views if batch else 1, sizes.panorama_px)
    arrays = [np.ascontiguousarray(image) for image in images.permute(0, 2, 3, 1).numpy()]  # as cv2.imread gives them
    size, view = sizes.view_px, TopView(sizes.view_px, FOV_DEG)
    settings = {"Fov": FOV_DEG, "dty": 0, "dx": 0, "dy": 0}  # as the repository's CVUSA.py has them

    def one(image: np.ndarray, grid: Tensor | None = None, **delta: tuple[float, float]) -> np.ndarray:
        grid = build(image, size, size, **settings, **delta) if grid is None else grid
        return sample(image, size, size, out=grid, **settings).cpu().numpy().astype(np.uint8)

    given = build(arrays[0], size, size, **settings) if grids == "given" else None

    def ours() -> Tensor:
        if grids == "built":
            geometry.fixed_top_view_pixels.cache_clear()
        return top_view(images, view)

    def agree(_: list[np.ndarray], found: Tensor) -> Verdict:
        # their own shift moves their grid from pixel corners to pixel centres; what is left is at most half a panorama
        # pixel each way, since they stretch it to align its corners, a grey level cut off and one rounded
        theirs = torch.from_numpy(np.stack([one(image, delta=(-0.5, 0.5)) for image in arrays])).permute(0, 3, 1, 2)
        pixels = images.float()
        steps = [(pixels - pixels.roll(1, 3)).abs().max(), pixels.diff(dim=2).abs().max()]
        apart = float((theirs.float() - found.float()).abs().max())
        what = "grey levels of 255, their grid shifted by half a pixel with its own `delta`"
        return verdict(apart, 2 + sum(float(step) for step in steps) / 2, what)

    if grids != "built":
        top_view(images[:1], view)  # so that measuring memory finds the grid, too
    text = f"{len(images)} of {2 * sizes.panorama_px}x{sizes.panorama_px} to {size}x{size}"
    return Pair(text, lambda: [one(image, given) for image in arrays], ours, agree)


GRIDS = {
    "kept": ("", "theirs builds its grid for each image, as its script does; ours has kept it"),
    "built": (", ours builds its grid too", "theirs builds its grid for each image, ours once a call"),
    "given": (", both grids given", "the resampling alone: their grid is built before, too"),
}
ROWS = [
    Row(f"top view of {'a batch' if batch else 'one panorama'}{more}", "UCVGL", "get_BEV_projection, get_BEV_tensor",
        partial(top_views, batch=batch, grids=grids), note)
    for batch in (False, True) for grids, (more, note) in GRIDS.items()
]  # fmt: skip
