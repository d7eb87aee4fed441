"""UCVGL's code beside ours: top view, SAFA, losses and pseudo-labels."""

import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
from official import Clone, Pair, Row, Sizes, close, features
from torch import Tensor, nn

from ucvgl import geometry, losses
from ucvgl.encoders import Safa
from ucvgl.geometry import TopView, top_view
from ucvgl.pseudo_labels import MiningRule, PseudoLabels, select
from ucvgl.search import both_ways

FOV_DEG = 175.0  # UCVGL's for CVUSA
THRESHOLD = 0.05  # of pseudo-labels; UCVGL's for CVUSA


def panoramas(count: int, height: int) -> Tensor:
    """uint8 (count, 3, H, 2H), smooth on the sphere, so that half a pixel more or less changes little."""
    elevation = (0.5 - (torch.arange(height)[:, None] + 0.5) / height) * math.pi
    azimuth = (torch.arange(2 * height) + 0.5) / height * math.pi
    phase = torch.rand(count, 3, 1, 1, generator=torch.Generator().manual_seed(0)) * 2 * math.pi
    waves = torch.sin(3 * azimuth + phase) + torch.sin(2 * azimuth - 4 * elevation + phase)
    return (127 + 60 * waves * elevation.cos()).round().byte()


def top_views(clone: Clone, sizes: Sizes, *, batch: bool, built: bool) -> Pair:
    """One panorama or a batch, an image at a time in theirs; built: our grid is built anew, as theirs always is."""
    build = clone.get("utils", "get_BEV_projection", "CFP/GeometricProjection")
    sample = clone.get("utils", "get_BEV_tensor", "CFP/GeometricProjection")
    images = panoramas(sizes.views if batch else 1, sizes.panorama_px)
    arrays = [np.ascontiguousarray(image) for image in images.permute(0, 2, 3, 1).numpy()]  # as cv2.imread gives them
    size, view = sizes.view_px, TopView(sizes.view_px, FOV_DEG)
    settings = {"Fov": FOV_DEG, "dty": 0, "dx": 0, "dy": 0}  # as the repository's CVUSA.py has them

    def one(image: np.ndarray, **delta: tuple[float, float]) -> np.ndarray:
        grid = build(image, size, size, **settings, **delta)
        return sample(image, size, size, out=grid, **settings).cpu().numpy().astype(np.uint8)

    def ours() -> Tensor:
        if built:
            geometry.fixed_top_view_pixels.cache_clear()
        return top_view(images, view)

    def agree(_: list[np.ndarray], found: Tensor) -> str:
        # their own shift moves their grid from pixel corners to pixel centres; what is left is at most half a panorama
        # pixel each way, since they stretch it to align its corners, a grey level cut off and one rounded
        theirs = torch.from_numpy(np.stack([one(image, delta=(-0.5, 0.5)) for image in arrays])).permute(0, 3, 1, 2)
        pixels = images.float()
        steps = [(pixels - pixels.roll(1, 3)).abs().max(), pixels.diff(dim=2).abs().max()]
        apart = float((theirs.float() - found.float()).abs().max())
        what = "grey levels of 255, their grid shifted by half a pixel with its own `delta`"
        return close(apart, 2 + sum(float(step) for step in steps) / 2, what)

    top_view(images[:1], view)  # so that measuring memory finds the grid, too
    text = f"{len(images)} of {2 * sizes.panorama_px}x{sizes.panorama_px} to {size}x{size}"
    return Pair(text, lambda: [one(image) for image in arrays], ours, agree)


def safa(clone: Clone, sizes: Sizes) -> Pair:
    """Aggregation with the same weights."""
    side = sizes.image_px // 32
    theirs = clone.get("model.SAFA", "SAFA")(SimpleNamespace(forward_features=lambda x: x), in_channel=side**2)
    ours, layers = Safa(side**2, 8), [tuple(sequence) for sequence in theirs.spatial_aware.fc]
    for at, end in enumerate(("in", "out")):
        getattr(ours, f"weight_{end}").data = torch.stack([pair[at].weight.T for pair in layers]).detach()
        getattr(ours, f"bias_{end}").data = torch.stack([pair[at].bias for pair in layers]).detach()
    maps = torch.randn(sizes.views, sizes.width, side, side)

    def agree(a: Tensor, b: Tensor) -> str:
        return close(float((a - b).detach().abs().max() / a.detach().abs().max()), 1e-5, "same weights, relative")

    return Pair(f"{tuple(maps.shape)}", lambda: theirs(maps), lambda: ours(maps), agree)


def loss(clone: Clone, sizes: Sizes, *, some: bool) -> Pair:
    """Symmetric InfoNCE of steps 3 and 4, and that of step 5, where some rows have no match."""
    made, smoothing = clone.get("model.infonce", "InfoNCELoss")(SimpleNamespace(gpu="cpu")), 0.1 if some else 0.3
    q, k = (side.requires_grad_() for side in features(sizes.batch, sizes.width, 0.2))
    matched, scale = torch.arange(sizes.batch) % 5 < 2, math.exp(float(made.temperature))

    def both(value: Tensor) -> tuple[float, Tensor]:
        (gradient,) = torch.autograd.grad(value, q)
        # theirs normalises once more, which takes the part along the embedding away
        return float(value.detach()), gradient - (gradient * q).sum(1, keepdim=True) * q

    def ours() -> tuple[float, Tensor]:
        if some:
            return both(losses.soft_info_nce(q, k, scale, matched, label_smoothing=smoothing))
        return both(losses.info_nce(q, k, scale, label_smoothing=smoothing))

    def agree(a: tuple[float, Tensor], b: tuple[float, Tensor]) -> str:
        return close(max(abs(a[0] - b[0]), float((a[1] - b[1]).abs().max())), 1e-5, f"loss ({a[0]:.4f}) and gradient")

    given = matched.numpy() if some else None
    text = f"{sizes.batch} pairs{f', {int(matched.sum())} matched' if some else ''}, {sizes.width}-D"
    return Pair(text, lambda: both(made(q, k, GT=given, label_smoothing=smoothing)), ours, agree)


class AsTheyAre(nn.Module):
    """Takes the place of the encoders, where the loader holds descriptors."""

    def forward(self, im_q: Tensor, im_k: Tensor) -> tuple[Tensor, Tensor]:
        """Both as they came."""
        return im_q, im_k


def pseudo_labels(clone: Clone, sizes: Sizes, *, name: str) -> Pair:
    """Mutual matches with a margin, from descriptors."""
    mine = clone.get("train_crossview_sat", name)
    ground, satellite = features(sizes.gallery, sizes.width, 0.17)
    own = torch.arange(sizes.gallery)
    loader = list(zip(ground.split(256), satellite.split(256), own.split(256), strict=True))
    args = SimpleNamespace(gpu=None, print_freq=10**9, threshold=THRESHOLD, epochs=16)
    if not torch.distributed.is_initialized():  # they gather over their processes; here there is one
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)

    def agree(theirs: dict[int, int], found: PseudoLabels) -> str:
        ours = {g: s for g, s in enumerate(found.satellite.tolist()) if s >= 0}
        differ = {int(g) for g, s in theirs.items() if ours.get(int(g)) != int(s)} | (ours.keys() - theirs.keys())
        # a margin at the threshold, or two ground images as near to a tile, may fall either way in the last bit
        near = sum(abs(float(found.margin[g]) - THRESHOLD) < 1e-6 for g in differ)
        equal = f"{len(ours) - len(differ):,} of {len(theirs):,} labels equal, {near} at the threshold"
        return close((len(differ) - near) / max(1, len(ours)), 1e-3, f"{equal}; part of the others")

    return Pair(
        f"{sizes.gallery:,} x {sizes.gallery:,}, {sizes.width}-D",
        lambda: mine(loader, AsTheyAre(), args, 0),
        lambda: select(both_ways(ground, satellite, 2, 1), MiningRule(threshold=THRESHOLD)),
        agree,
    )


LABELS = "from descriptors: identity in the place of their encoders, gathered over one process"
KEPT = "theirs builds its grid for each image, as its script does; ours has kept it"
BUILT = "theirs builds its grid for each image, ours once a call: in double precision and for any attitude, which takes longer"
ROWS = [
    *(Row(f"top view of {'a batch' if batch else 'one panorama'}{', ours builds its grid too' if built else ''}", "UCVGL",
          "get_BEV_projection, get_BEV_tensor", partial(top_views, batch=batch, built=built), BUILT if built else KEPT)
      for batch in (False, True) for built in (False, True)),
    Row("SAFA", "UCVGL", "SAFA", safa, "forward, eight heads"),
    Row("loss: InfoNCE", "UCVGL", "InfoNCELoss", partial(loss, some=False), "value and gradient"),
    Row("loss: InfoNCE, some rows matched", "UCVGL", "InfoNCELoss", partial(loss, some=True), "value and gradient"),
    *(Row(f"pseudo-labels{form}", "UCVGL", name, partial(pseudo_labels, name=name), LABELS)
      for form, name in (("", "get_pseudo_labels"), (", VIGOR's form", "get_pseudo_labels_vigor"))),
]  # fmt: skip
