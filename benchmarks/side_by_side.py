"""The official code beside ucvgl: the same inputs, the results compared first, then timed in turns; and the peak memory.

    python benchmarks/side_by_side.py --ucvgl DIR --sample4geo DIR --vg-ssl DIR

takes clones of the official repositories that you made and imports their functions as they are (`official.py`). An
argument may be left out: its rows say so. Each row runs in a process of its own, which sees one clone; so does each side
once more for its memory. A function that cannot run here gets the reason in its row. Sleeps in the official functions
are left out, their printing and progress bars go to a file.

Writes benchmarks/results/side_by_side.csv and .md. Exit status: 1 where results differ or a row of ours failed, 2 where an
argument is wrong, else 0.
"""

import argparse
import contextlib
import ctypes
import gc
import io
import json
import math
import multiprocessing
import os
import platform
import random
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent))  # benchmarks/ is no package

from official import REPOSITORIES, CannotRun, Clone, check_clone, commit_of, in_words

from ucvgl import geometry
from ucvgl.encoders import EncoderConfig, TwoViewEncoder, two_view_encoder
from ucvgl.errors import InputError
from ucvgl.geometry import TopView, top_view
from ucvgl.heads import Learner, published
from ucvgl.lab.results import commit
from ucvgl.losses import info_nce
from ucvgl.metrics import ranks_of, recall_at, retrieval_measures
from ucvgl.paths import write_text
from ucvgl.pseudo_labels import MiningRule, PseudoLabels, select
from ucvgl.sampling import NeighbourDraw, neighbour_batches, similarity_neighbours
from ucvgl.search import both_ways
from ucvgl.ssl_losses import cross_correlation, off_diagonal_squares
from ucvgl.training import Batch, Task, TrainingConfig, train

RESULTS = Path(__file__).resolve().parent / "results"
LIMIT_S = 900  # of one process of a row
# once, not by each row's process: this file with all it imports, and what the official code takes seconds to import
PRELOADED = ["side_by_side", "matplotlib.pyplot", "scipy.io", "torchvision"]
MINING_THRESHOLD = 0.05  # UCVGL's for CVUSA
FOV_DEG = 175.0  # UCVGL's for CVUSA
KS = [1, 5, 10]


@dataclass(frozen=True)
class Sizes:
    """How large the inputs are; the defaults are CVUSA's, or the papers' as far as two cores allow."""

    view_px: int = 750  # side of the top view; UCVGL
    panorama_px: int = 616  # height of CVUSA's completed panoramas
    views: int = 16  # panoramas in a batch
    gallery: int = 8_884  # ground images and tiles; CVUSA's test set
    beyond: int = 17_768  # the size beyond
    width: int = 1_024  # of the descriptors; Sample4Geo
    places: int = 35_532  # CVUSA's training pairs
    batch: int = 128  # of the shuffled places; Sample4Geo
    draw: int = 128  # neighbours looked at, a half of them join; Sample4Geo
    ssl_batch: int = 64  # VG-SSL
    ssl_width: int = 2_048  # of the projections; VG-SSL 1024 to 4096
    ssl_queue: int = 65_536  # MoCo's keys; VG-SSL
    model: str = "convnext_atto"  # of timm; Sample4Geo has convnext_base
    train_batch: int = 8  # pairs; Sample4Geo 128
    image_px: int = 128  # Sample4Geo 384
    steps: int = 3  # timed in one go
    seconds: float = 12.0  # a row is repeated for so long,
    least: int = 3  # and at least so often,
    most: int = 15  # and at most


SMALL = Sizes(
    view_px=60, panorama_px=64, views=2, gallery=300, beyond=500, width=32, places=700, batch=16, draw=32, ssl_batch=8,
    ssl_width=24, ssl_queue=64, model="test_convnext", train_batch=4, image_px=64, steps=2, seconds=0.1,
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """Whether the results agree, and how that was seen."""

    agrees: bool
    how: str


@dataclass(frozen=True)
class Pair:
    """Both sides of a row, with their inputs ready.

    Args:
        official: calls the official function.
        ours: calls ucvgl's.
        agree: compares what the two return.
        seconds: the seconds that a result tells by itself; None: those of the whole call.
    """

    official: Callable[[], Any]
    ours: Callable[[], Any]
    agree: Callable[[Any, Any], Verdict]
    seconds: Callable[[Any], float] | None = None


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Args:
        task: what is done.
        repository: key of REPOSITORIES.
        function: the official one.
        ours: ucvgl's.
        size: the inputs, in words.
        prepare: clone, sizes, device -> the two sides; runs in the row's own process.
        note: what is timed, and what is not the same on the two sides.
    """

    task: str
    repository: str
    function: str
    ours: str
    size: Callable[[Sizes], str]
    prepare: Callable[[Clone, Sizes, torch.device], Pair]
    note: str = ""


def verdict(difference: float, allowed: float, what: str) -> Verdict:
    """Agreement by a largest difference."""
    return Verdict(difference <= allowed, f"{what}: largest difference {difference:.2g} (allowed {allowed:.2g})")


# -------------------------------------------------------------------------------------------------------------- top view


def panoramas(count: int, height: int) -> Tensor:
    """uint8 (count, 3, H, 2H), smooth on the sphere, so that half a pixel more or less changes little."""
    elevation = (0.5 - (torch.arange(height)[:, None] + 0.5) / height) * math.pi
    azimuth = (torch.arange(2 * height) + 0.5) / height * math.pi
    phase = torch.rand(count, 3, 1, 1, generator=torch.Generator().manual_seed(0)) * 2 * math.pi
    waves = torch.sin(3 * azimuth + phase) + torch.sin(2 * azimuth - 4 * elevation + phase)
    return (127 + 60 * waves * elevation.cos()).round().byte()


def top_views(clone: Clone, sizes: Sizes, _: torch.device, *, count: int, grids: str) -> Pair:
    """`count` panoramas (0: a batch); grids: 'kept' by ours, 'built' by both, 'given' to both."""
    build = clone.get("utils", "get_BEV_projection", "CFP/GeometricProjection")
    sample = clone.get("utils", "get_BEV_tensor", "CFP/GeometricProjection")
    images = panoramas(count or sizes.views, sizes.panorama_px)
    arrays = [np.ascontiguousarray(image) for image in images.permute(0, 2, 3, 1).numpy()]  # as cv2.imread gives them
    size, view = sizes.view_px, TopView(sizes.view_px, FOV_DEG)
    settings = {"Fov": FOV_DEG, "dty": 0, "dx": 0, "dy": 0}  # as the repository's CVUSA.py has them

    def one(image: np.ndarray, grid: Tensor | None = None, **delta: tuple[float, float]) -> np.ndarray:
        grid = build(image, size, size, **settings, **delta) if grid is None else grid
        return sample(image, size, size, out=grid, **settings).cpu().numpy().astype(np.uint8)

    given = build(arrays[0], size, size, **settings) if grids == "given" else None

    def official() -> list[np.ndarray]:
        return [one(image, given) for image in arrays]

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
        difference = float((theirs.float() - found.float()).abs().max())
        allowed = 2 + sum(float(step) for step in steps) / 2
        return verdict(
            difference, allowed, "grey levels of 255, their grid shifted by half a pixel with its own `delta`"
        )

    if grids != "built":
        top_view(images[:1], view)  # so that measuring memory finds the grid, too
    return Pair(official, ours, agree)


# ------------------------------------------------------------------------------------------------------------- retrieval


def features(count: int, width: int, noise: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Unit descriptors of ground images and tiles, row i of both one place; noise: of a ground image, times sqrt(width)."""
    generator = torch.Generator().manual_seed(seed)
    tile = torch.randn(count, width, generator=generator)
    ground = tile + noise * math.sqrt(width) * torch.randn(count, width, generator=generator)
    return F.normalize(ground), F.normalize(tile)


def printed_recalls(text: str) -> dict[str, float]:
    """'Recall@5: 12.3400 - Hit_Rate: 1.0' -> {'Recall@5': 12.34, 'Hit_Rate': 1.0}."""
    return {name: float(value) for name, value in re.findall(r"(\w+(?:@\w+)?): ([\d.]+)", text)}


def printed_by(function: Callable[..., Any], *args: Any, **settings: Any) -> dict[str, float]:
    """The official function returns R@1 and prints the others."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        function(*args, **settings)
    return printed_recalls(text.getvalue())


def same_recalls(theirs: dict[str, float], ours: dict[str, float], queries: int) -> Verdict:
    """All measures that both have."""
    names = {"Recall@1": "r_at_1", "Recall@5": "r_at_5", "Recall@10": "r_at_10", "Recall@top1": "r_at_1_percent"}
    names["Hit_Rate"] = "hit_rate"
    shared = [(theirs[a], ours[b]) for a, b in names.items() if a in theirs and b in ours]
    if len(shared) < 4:
        return Verdict(False, f"the official code printed {theirs or 'no recall'}")
    worst = max(abs(a - b) for a, b in shared)
    what = f"R@1, 5, 10, 1 %{', hit rate' if len(shared) > 4 else ''} in percent (R@1 {shared[0][0]:.2f})"
    return verdict(worst, 100 * 2 / queries, what)  # two queries whose similarities differ in the last bit


def recall(clone: Clone, sizes: Sizes, _: torch.device, *, beyond: bool, all_measures: bool) -> Pair:
    """Recall of one right tile each."""
    scores = clone.get("sample4geo.evaluate.cvusa_and_cvact", "calculate_scores")
    count = sizes.beyond if beyond else sizes.gallery
    query, gallery = features(count, sizes.width, 0.2)
    own = torch.arange(count)
    pairs = torch.stack([own, own], 1)

    def ours() -> dict[str, float]:
        if all_measures:
            return retrieval_measures(query, gallery, pairs, ks=KS)
        found = recall_at(ranks_of(query, gallery, own), [*KS, count // 100])
        return found | {"r_at_1_percent": found[f"r_at_{count // 100}"]}

    return Pair(
        lambda: printed_by(scores, query, gallery, own, own, step_size=1000, ranks=KS),
        ours,
        lambda a, b: same_recalls(a, b, count),
    )


def recall_vigor(clone: Clone, sizes: Sizes, _: torch.device) -> Pair:
    """Recall and hit rate, each query with three semi-positives."""
    scores = clone.get("sample4geo.evaluate.vigor", "calculate_scores")
    query, gallery = features(sizes.gallery, sizes.width, 0.2)
    own = torch.arange(sizes.gallery)
    labels = torch.stack([(own + step) % sizes.gallery for step in range(4)], 1)  # (Q, 4): right, then semi-positives
    query = F.normalize(query + 0.05 * gallery[labels[:, 1]])
    positives = torch.stack([own, own], 1)
    semi = torch.stack([own.repeat_interleave(3), labels[:, 1:].flatten()], 1)

    def ours() -> dict[str, float]:
        return retrieval_measures(query, gallery, positives, semi_positives=semi, ks=KS)

    return Pair(
        lambda: printed_by(scores, query, gallery, labels, own, step_size=1000, ranks=KS),
        ours,
        lambda a, b: same_recalls(a, b, sizes.gallery),
    )


def nearest(clone: Clone, sizes: Sizes, _: torch.device, *, beyond: bool = False, vigor: bool = False) -> Pair:
    """The tiles most similar to each ground image, without its own."""
    where = "vigor" if vigor else "cvusa_and_cvact"
    search = clone.get(f"sample4geo.evaluate.{where}", "calculate_nearest")
    count = sizes.beyond if beyond else sizes.gallery
    query, gallery = features(count, sizes.width, 0.2)
    own = torch.arange(count)
    labels = torch.stack([(own + step) % count for step in range(4)], 1) if vigor else own

    def official() -> dict[int, list[int]]:
        return search(query, gallery, labels, own, neighbour_range=sizes.draw, step_size=1000)

    def agree(theirs: dict[int, list[int]], ours: Tensor) -> Verdict:
        lists = torch.from_numpy(np.array([theirs[i] for i in range(count)]))
        if lists.shape != ours.shape:
            return Verdict(False, f"lists of {tuple(lists.shape)} and {tuple(ours.shape)}")
        differ = (lists != ours).any(1).nonzero()[:, 0]
        score = [torch.einsum("qd,qkd->qk", query[differ], gallery[some[differ].long()]) for some in (lists, ours)]
        worst = float((score[0] - score[1]).abs().max()) if len(differ) else 0.0
        same = f"{count - len(differ):,} of {count:,} lists equal; similarities of the others"
        return Verdict(len(differ) <= 0.05 * count and worst <= 1e-6, f"{same}: largest difference {worst:.1g}")

    return Pair(official, lambda: similarity_neighbours(query, gallery, sizes.draw), agree)


# --------------------------------------------------------------------------------------------------------------- shuffle


def shuffle(clone: Clone, sizes: Sizes, _: torch.device, *, plain: bool) -> Pair:
    """An epoch's batches from neighbour lists; plain: of Python's integers, else as calculate_nearest leaves them."""
    dataset_class = clone.get("sample4geo.dataset.cvusa", "CVUSADatasetTrain")
    query, tile = features(sizes.places, 32, 0.1)
    near = similarity_neighbours(query, tile, sizes.draw)
    lists = near.long().numpy() + 1  # their shuffle passes over the place with number 0
    similar = {i + 1: row.tolist() if plain else list(row) for i, row in enumerate(lists)}
    with tempfile.TemporaryDirectory() as folder:  # its pictures are never read
        (Path(folder) / "splits").mkdir()
        lines = [f"map/{i}.jpg,pano/{i}.jpg,anno/{i}.png" for i in range(1, sizes.places + 1)]
        (Path(folder) / "splits" / "train-19zl.csv").write_text("\n".join(lines) + "\n")
        dataset = dataset_class(folder, shuffle_batch_size=sizes.batch)
    generator = torch.Generator().manual_seed(0)
    random.seed(0)
    half = sizes.draw // 4

    def official() -> np.ndarray:
        dataset.shuffle(similar, neighbour_select=sizes.draw // 2, neighbour_range=sizes.draw)
        return np.array(dataset.samples) - 1

    def together(items: np.ndarray) -> float:
        batches = items.reshape(-1, sizes.batch)
        table = near.numpy()
        return float(np.mean([np.isin(table[batch], batch).sum() / len(batch) for batch in batches]))

    def agree(theirs: np.ndarray, found: Tensor) -> Verdict:
        ours = found.numpy()
        whole = sizes.places // sizes.batch * sizes.batch
        right = [len(items) == whole and len(np.unique(items)) == whole for items in (theirs, ours)]
        if not all(right):
            return Verdict(
                False, f"{len(theirs)} and {len(ours)} places in batches, or a place twice; {whole} expected"
            )
        how = [together(items) for items in (theirs, ours)]
        text = (
            f"drawn at random: {whole:,} places each, none twice; neighbours of a place in its batch, mean {how[0]:.2f}"
        )
        return Verdict(abs(how[0] - how[1]) <= 0.05 * max(how), f"{text} and {how[1]:.2f}")

    return Pair(
        official,
        lambda: neighbour_batches(near, sizes.batch, generator, NeighbourDraw(sizes.draw, half, half)),
        agree,
    )


# --------------------------------------------------------------------------------------------------------- pseudo-labels


class _AsTheyAre(nn.Module):
    """Takes the place of the encoders, where the loader holds descriptors."""

    def forward(self, ground: Tensor, satellite: Tensor) -> tuple[Tensor, Tensor]:
        return ground, satellite


def pseudo_labels(clone: Clone, sizes: Sizes, _: torch.device, *, vigor: bool) -> Pair:
    """Mutual matches with a margin, from descriptors."""
    name = "get_pseudo_labels_vigor" if vigor else "get_pseudo_labels"
    official_mine = clone.get("train_crossview_sat", name)
    ground, satellite = features(sizes.gallery, sizes.width, 0.17)
    own = torch.arange(sizes.gallery)
    loader = list(zip(ground.split(256), satellite.split(256), own.split(256), strict=True))
    args = SimpleNamespace(gpu=None, print_freq=10**9, threshold=MINING_THRESHOLD, epochs=16)
    if not torch.distributed.is_initialized():  # they gather over their processes; here there is one
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)

    def agree(theirs: dict[int, int], found: PseudoLabels) -> Verdict:
        ours = {g: s for g, s in enumerate(found.satellite.tolist()) if s >= 0}
        differ = {int(g) for g, s in theirs.items() if ours.get(int(g)) != int(s)}
        differ |= {g for g in ours if g not in theirs}
        # a margin at the threshold, or two ground images as near to a tile, may fall either way in the last bit
        close = sum(abs(float(found.margin[g]) - MINING_THRESHOLD) < 1e-6 for g in differ)
        clear = len(differ) - close
        text = f"{len(ours) - len(differ):,} of {len(theirs):,} labels equal"
        return Verdict(clear <= 1e-3 * len(ours) and len(ours) > 0, f"{text}, {close} at the threshold, {clear} else")

    return Pair(
        lambda: official_mine(loader, _AsTheyAre(), args, 0),
        lambda: select(both_ways(ground, satellite, 2, 1), MiningRule(threshold=MINING_THRESHOLD)),
        agree,
    )


# ---------------------------------------------------------------------------------------------------------------- losses


class _Pixels(nn.Module):
    """Takes the place of a backbone: images (B, 3, h, w) -> their first `dim` numbers."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.scale = nn.Parameter(torch.ones(()))  # they ask a backbone's parameters for their device

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, : self.dim] * self.scale


def backward_of(loss: Callable[[Tensor, Tensor], Tensor], views: tuple[Tensor, Tensor]) -> tuple[float, Tensor]:
    """The loss of two views, and its gradient by both, (2, B, ...)."""
    for view in views:
        view.grad = None
    value = loss(*views)
    value.backward()
    return float(value.detach()), torch.stack([torch.zeros_like(v) if v.grad is None else v.grad for v in views])


def ssl_loss(clone: Clone, sizes: Sizes, _: torch.device, *, method: str) -> Pair:
    """One loss of two views, forward and backward, behind the same stand-in for a backbone."""
    width, side = sizes.ssl_width, math.ceil(math.sqrt(sizes.ssl_width / 3))
    torch.manual_seed(0)
    views = tuple(torch.randn(sizes.ssl_batch, 3, side, side, requires_grad=True) for _ in range(2))
    settings = replace(
        published(method), projector_layers=0, predictor_width=width, queue=sizes.ssl_queue - sizes.ssl_queue % 2
    )
    learner = Learner(_Pixels(width), settings, seed=0, items=10**9).train()
    items = torch.arange(sizes.ssl_batch)
    common = {
        "net": _Pixels(width), "image_size": (side, side), "gpus_num": 1, "projection_size": width,
        "projection_hidden_size": width, "aggregation": nn.Sequential(nn.Identity(), nn.Identity()),
    }  # fmt: skip
    match method:
        case "simclr" | "moco":
            made = clone.get("model.moco.moco_pytorch", "MOCO")
            official = made(**common, K=settings.queue, T=settings.temperature, use_simclr=method == "simclr")
        case "byol" | "simsiam":
            made = clone.get("model.byol.byol_pytorch", "BYOL")
            official = made(**common, use_momentum=method == "byol")
            _same_predictor(official.online_predictor, learner)
        case _:
            made = clone.get("model.vicreg.vicreg_pytorch", "VICREG")
            official = made(**common, use_bt_loss=method == "barlow")
    official.train()
    if method == "moco":  # ours begins empty
        learner.queue.keys.copy_(official.queue.T)
        learner.queue.items.zero_()

    def ours(first: Tensor, second: Tensor) -> Tensor:
        return learner.loss(learner.compared(first, second), items)

    def agree(theirs: tuple[float, Tensor], found: tuple[float, Tensor]) -> Verdict:
        how = "loss and gradients"
        if method in ("byol", "simsiam"):
            # ours passes both views as one batch: with the norms' running statistics that is the same
            for part in (*official.eval().modules(), *learner.eval().modules()):
                if isinstance(part, nn.BatchNorm1d):
                    part.reset_running_stats()  # they have seen a batch each by now
            theirs, found = backward_of(official, views), backward_of(ours, views)
            official.train()
            learner.train()
            how += " with fixed batch norms"
        if method == "simsiam":  # VG-SSL trains it by BYOL's loss
            found = (4 + 4 * found[0], 4 * found[1])
            how += ", ours x 4 + 4"
        if method == "barlow":
            found = backward_of(lambda a, b: _barlow_as_there(learner, a, b), views)
            how += ", ours with their variance (over B - 1, eps 1e-4)"
        loss = abs(theirs[0] - found[0]) / max(1e-12, abs(theirs[0]))
        gradient = float((theirs[1] - found[1]).norm() / theirs[1].norm())
        return verdict(max(loss, gradient), 1e-4, f"{how}, relative")

    return Pair(lambda: backward_of(official, views), lambda: backward_of(ours, views), agree)


def _same_predictor(theirs: nn.Sequential, learner: Learner) -> None:
    """Gives our predictor their weights; the first bias, which the batch norm takes off again, becomes 0."""
    linear = [layer for layer in theirs if isinstance(layer, nn.Linear)]
    own = [layer for layer in learner.predictor if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for a, b in zip(linear, own, strict=True):
            if b.bias is None:
                a.bias.zero_()
            else:
                b.bias.copy_(a.bias)
            b.weight.copy_(a.weight)


def _barlow_as_there(learner: Learner, first: Tensor, second: Tensor) -> Tensor:
    """Barlow Twins with the unbiased variance and the eps of VG-SSL's code."""
    z1, z2 = learner.compared(first, second)
    shrunk = (len(z1) - 1) / len(z1)
    correlation = shrunk * cross_correlation(z1, z2, eps=1e-4 * shrunk)
    invariance = (1 - correlation.diagonal()).square().sum()
    return invariance + learner.settings.lambda_ * off_diagonal_squares(correlation)


# ---------------------------------------------------------------------------------------------------------- training step


@dataclass
class _Loaded(Task):
    """Pairs that are in memory, in their order; notes when each batch is asked for."""

    ground: Tensor  # (n, 3, H, W), in 0..1
    satellite: Tensor
    stamp: Callable[[], None]

    def order(self, epoch: int, model: nn.Module, generator: torch.Generator) -> Tensor:
        return torch.arange(len(self.ground))

    def batch(self, items: Tensor, generator: torch.Generator) -> Batch:
        self.stamp()
        return Batch((self.ground[items], self.satellite[items]))

    def embed(self, model: TwoViewEncoder, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return model.ground(inputs[0]), model.satellite(inputs[1])

    def loss(self, model: TwoViewEncoder, embeddings: tuple[Tensor, ...], labels: tuple[Tensor, ...]) -> Tensor:
        return info_nce(*embeddings, model.scale, label_smoothing=0.1)


def training_step(clone: Clone, sizes: Sizes, device: torch.device) -> Pair:
    """Steps of the two training loops, from one batch asked for to the next."""
    make = clone.get("sample4geo.model", "TimmModel")
    loop = clone.get("sample4geo.trainer", "train")
    made_loss = clone.get("sample4geo.loss", "InfoNCE")
    side, count = sizes.image_px, sizes.train_batch
    cuda = device.type == "cuda"
    precision = "fp16" if cuda else "fp32"  # theirs is mixed precision by autocast, which does nothing on a CPU
    torch.manual_seed(0)
    theirs = make(sizes.model, pretrained=False, img_size=side)
    encoder = EncoderConfig(sizes.model, pretrained="none", pooling="head", image_px=(side, side))
    ours = two_view_encoder(encoder, encoder, shared=True, seed=0)
    ours.ground.backbone.load_state_dict(theirs.model.state_dict())
    theirs = theirs.to(device)
    ours = ours.to(device, memory_format=torch.channels_last)
    images = torch.rand(2, (sizes.steps + 1) * count, 3, side, side, generator=torch.Generator().manual_seed(1))
    normal = (images - ours.ground.mean.cpu()) / ours.ground.std.cpu()  # theirs come normalised
    batches = list(zip(normal[0].split(count), normal[1].split(count), torch.arange(sizes.steps + 1), strict=True))
    stamps: list[float] = []

    def stamp() -> None:
        if cuda and len(stamps) in (0, sizes.steps):
            torch.cuda.synchronize(device)
        stamps.append(time.perf_counter())

    def stamped() -> Iterator[tuple[Tensor, ...]]:
        for batch in batches:
            stamp()
            yield batch

    settings = SimpleNamespace(verbose=False, device=device, gpu_ids=(0,), clip_grad=None, scheduler=None)
    loss = made_loss(nn.CrossEntropyLoss(label_smoothing=0.1), device=device)

    def official() -> tuple[float, float]:
        stamps.clear()
        optimiser = torch.optim.AdamW(theirs.parameters(), lr=1e-4, weight_decay=0.0)
        scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10) if cuda else None
        mean = loop(settings, theirs, stamped(), loss, optimiser, scheduler=None, scaler=scaler)
        return (stamps[-1] - stamps[0]) / sizes.steps, float(mean)

    config = TrainingConfig(
        epochs=1, batch_size=count, learning_rate=1e-4, weight_decay=0.0, min_lr_ratio=1.0, precision=precision
    )

    def own() -> tuple[float, float]:
        stamps.clear()
        with tempfile.TemporaryDirectory() as folder:
            rows = train(ours, _Loaded(images[0], images[1], stamp), config, Path(folder), progress=False)
        return (stamps[-1] - stamps[0]) / sizes.steps, rows[0]["loss"]

    def agree(a: tuple[float, float], b: tuple[float, float]) -> Verdict:
        return verdict(
            abs(a[1] - b[1]) / a[1],
            1e-2 if cuda else 1e-3,
            f"mean loss of {sizes.steps + 1} steps, relative ({a[1]:.4f})",
        )

    return Pair(official, own, agree, seconds=lambda result: result[0])


# -------------------------------------------------------------------------------------------------------------- the rows


def _all_rows() -> list[Row]:
    def square(sizes: Sizes) -> str:
        return f"{sizes.gallery:,} x {sizes.gallery:,}, {sizes.width}-D"

    def larger(sizes: Sizes) -> str:
        return f"{sizes.beyond:,} x {sizes.beyond:,}, {sizes.width}-D"

    rows = []
    grids = {
        "kept": ("", "theirs builds its grid for each image, as its script does; ours has kept it"),
        "built": (", ours builds its grid too", "theirs builds its grid for each image, ours once a call"),
        "given": (", both grids given", "the resampling alone: their grid is built before, too"),
    }
    for count in (1, 0):
        for key, (more, note) in grids.items():
            rows.append(Row(
                f"top view of {'one panorama' if count else 'a batch'}{more}", "UCVGL", "get_BEV_projection, get_BEV_tensor",
                "top_view", lambda s, n=count: f"{n or s.views} of {2 * s.panorama_px}x{s.panorama_px} to {s.view_px}x{s.view_px}",
                partial(top_views, count=count, grids=key), note,
            ))  # fmt: skip
    both = "recall: theirs counts and prints R@1, 5, 10, 1 %"
    scores, ranks, measures = "calculate_scores", "ranks_of, recall_at", "retrieval_measures"
    for name, beyond, every, size in (
        ("recall", False, False, square), ("recall with average precision", False, True, square),
        ("recall, beyond", True, False, larger),
    ):  # fmt: skip
        note = f"{both}; ours has average precision beside it" if every else both
        call = partial(recall, beyond=beyond, all_measures=every)
        rows.append(Row(name, "Sample4Geo", scores, measures if every else ranks, size, call, note))
    rows.append(Row(
        "recall and hit rate", "Sample4Geo", "vigor.calculate_scores", measures, square, recall_vigor,
        "3 semi-positives each; ours has average precision beside it",
    ))  # fmt: skip
    for name, call, size in (
        ("nearest lists", nearest, square), ("nearest lists, VIGOR's form", partial(nearest, vigor=True), square),
        ("nearest lists, beyond", partial(nearest, beyond=True), larger),
    ):  # fmt: skip
        rows.append(Row(
            name, "Sample4Geo", "calculate_nearest", "similarity_neighbours (top_k)", size, call,
            "the 128 most similar tiles without the own; theirs makes a dict of lists, ours a matrix",
        ))  # fmt: skip
    for plain in (False, True):
        how = (
            "Python integers, as in its files of distances"
            if plain
            else "numpy integers, as calculate_nearest leaves them"
        )
        rows.append(Row(
            f"similarity shuffle, {'Python' if plain else 'numpy'} integers", "Sample4Geo", "CVUSADatasetTrain.shuffle",
            "neighbour_batches", lambda s: f"{s.places:,} places, {s.draw} neighbours, batches of {s.batch}",
            partial(shuffle, plain=plain), f"their lists hold {how}; their sleep of 0.3 s is left out",
        ))  # fmt: skip
    for vigor in (False, True):
        rows.append(Row(
            f"pseudo-labels{chr(44) + ' VIGOR' + chr(39) + 's form' if vigor else ''}", "UCVGL",
            f"get_pseudo_labels{'_vigor' if vigor else ''}", "select", square, partial(pseudo_labels, vigor=vigor),
            "from descriptors: identity in the place of their encoders, gathered over one process",
        ))  # fmt: skip
    for method, name in (
        ("simclr", "SimCLR"), ("moco", "MoCo"), ("byol", "BYOL"), ("simsiam", "SimSiam"), ("barlow", "Barlow Twins"),
        ("vicreg", "VICReg"),
    ):  # fmt: skip
        made = {"simclr": "MOCO", "moco": "MOCO", "byol": "BYOL", "simsiam": "BYOL"}.get(method, "VICREG")
        more = {"moco": ", {s.ssl_queue:,} keys"}.get(method, "")
        rows.append(Row(
            f"loss: {name}", "VG-SSL", made, "Learner.compared, Learner.loss",
            lambda s, m=more: f"{s.ssl_batch} pairs, {s.ssl_width}-D{m and f', {s.ssl_queue:,} keys'}",
            partial(ssl_loss, method=method),
            "forward and backward behind an identity in the place of backbone and projector",
        ))  # fmt: skip
    rows.append(Row(
        "training step", "Sample4Geo", "trainer.train, TimmModel, InfoNCE", "training.train",
        lambda s: f"{s.model}, {s.train_batch} pairs of {s.image_px}x{s.image_px}", training_step,
        "same weights, images in memory, AdamW without decay, no clipping; fp32 on a CPU, fp16 on a GPU; ours normalises the "
        "images in the step",
    ))  # fmt: skip
    return rows


ROWS = _all_rows()

# ------------------------------------------------------------------------------------------------------------- measuring


def work(row: Row, folder: Path, sizes: Sizes, device: torch.device, what: str) -> dict[str, Any]:
    """One row in this process.

    Args:
        row: the row.
        folder: the clone.
        sizes: of the inputs.
        device: of the training step.
        what: 'time', or the side whose memory is measured, 'official' or 'ours'.

    Returns:
        why: that the official function cannot run; or failed: that ours did; or what was measured.
    """
    clone = Clone(folder)
    found: dict[str, Any] = {"stubs": clone.stubs}
    sleep, time.sleep = time.sleep, lambda _: None
    try:
        pair = _official(lambda: row.prepare(clone, sizes, device))
        pair = replace(pair, official=partial(_official, pair.official))
        found |= _timed(pair, sizes) if what == "time" else _peak(getattr(pair, what), device)
    except CannotRun as error:
        found["why"] = str(error)
    except Exception as error:
        found["failed"] = f"ucvgl: {in_words(error)}"
    finally:
        time.sleep = sleep
        clone.close()
    return found


def _official(call: Callable[[], Any]) -> Any:
    """What the official code does, its errors in words."""
    try:
        return call()
    except InputError:
        raise  # ours
    except (Exception, SystemExit) as error:
        raise CannotRun(in_words(error)) from error


def _timed(pair: Pair, sizes: Sizes) -> dict[str, Any]:
    """Compares the results, which warms both sides up, and times them in turns."""
    said = pair.agree(pair.official(), pair.ours())
    found: dict[str, Any] = {"agrees": said.agrees, "agreement": said.how}
    if not said.agrees:
        return found
    took: dict[str, list[float]] = {"official": [], "ours": []}
    begun = time.perf_counter()
    while len(took["ours"]) < sizes.least or (
        len(took["ours"]) < sizes.most and time.perf_counter() - begun < sizes.seconds
    ):
        for side, times in took.items():
            gc.collect()
            start = time.perf_counter()
            result = getattr(pair, side)()
            times.append(time.perf_counter() - start if pair.seconds is None else pair.seconds(result))
            del result
    return found | took


def _peak(call: Callable[[], Any], device: torch.device) -> dict[str, Any]:
    """The megabytes that a call adds to what was there before: imports and inputs."""
    small = torch.ones(256, 256)
    _ = small @ small, small.numpy() @ small.numpy()  # the libraries' own buffers
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back, or it would be used again without being seen
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return {"peak_mb": (torch.cuda.max_memory_allocated(device) - before) / 2**20}
    if sys.platform.startswith("linux"):  # elsewhere, what the process had at most before may hide some of it
        Path("/proc/self/clear_refs").write_text("5")  # the peak is the present from here on
    unit = 2**20 if sys.platform == "darwin" else 2**10
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call()
    return {"peak_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit}


def _process(number: int, folder: str, sizes: Sizes, device: str, what: str, threads: int, out: str) -> None:
    """The body of a row's process: its printing goes to a file, its result to another."""
    with open(f"{out}.log", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        torch.set_num_threads(threads)
        sys.dont_write_bytecode = True  # the clone stays as it is
        found = work(ROWS[number], Path(folder), sizes, torch.device(device), what)
        write_text(Path(out), json.dumps(found))


def in_a_process(row: Row, folder: Path, sizes: Sizes, device: str, what: str, threads: int) -> dict[str, Any]:
    """`work` in a fresh process, which ends with its memory; one that dies says so."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "found.json"
        number = ROWS.index(row)
        process = context.Process(target=_process, args=(number, str(folder), sizes, device, what, threads, str(out)))
        process.start()
        process.join(LIMIT_S)
        if process.is_alive():
            process.kill()
            process.join()
            return {"why": f"took more than {LIMIT_S} s"}
        if not out.exists():
            last = (
                Path(f"{out}.log").read_text(errors="replace").split("\n")[-2:] if Path(f"{out}.log").exists() else []
            )
            memory = ", for want of memory, it may be" if process.exitcode == -9 else ""
            return {
                "failed": f"ucvgl: the row's process ended with status {process.exitcode}{memory}: {' '.join(last)[:200]}"
            }
        return json.loads(out.read_text())


def measure(row: Row, folder: Path, sizes: Sizes, device: str, threads: int) -> dict[str, Any]:
    """A line of the table: times, then the memory of each side."""
    found = in_a_process(row, folder, sizes, device, "time", threads)
    line: dict[str, Any] = {
        "agreement": found.get("agreement", ""),
        "stubs": " ".join(found.get("stubs", [])),
        "status": found.get("failed") or found.get("why") or ("" if found["agrees"] else "results differ: not timed"),
    }
    if line["status"]:
        return line
    official, ours = statistics.median(found["official"]), statistics.median(found["ours"])
    line |= {
        "official_ms": 1000 * official, "ours_ms": 1000 * ours, "times_faster": official / ours,
        "repeats": len(found["ours"]), "official_fastest_ms": 1000 * min(found["official"]),
        "ours_fastest_ms": 1000 * min(found["ours"]),
    }  # fmt: skip
    peaks = [in_a_process(row, folder, sizes, device, side, threads).get("peak_mb") for side in ("official", "ours")]
    if None not in peaks:
        line |= {"official_mb": peaks[0], "ours_mb": peaks[1]}
    return line


# ------------------------------------------------------------------------------------------------------------- the table

COLUMNS = [
    "task", "repository", "function", "ours", "size", "official_ms", "ours_ms", "times_faster", "official_mb", "ours_mb",
    "agreement", "status", "repeats", "official_fastest_ms", "ours_fastest_ms", "stubs", "note",
]  # fmt: skip

NAMED = ("task", "repository", "function", "ours", "note")  # of a Row


def number(value: float, unit: str = "") -> str:
    """Three digits, or none where nothing was measured."""
    if value is None or math.isnan(value):
        return ""
    return f"{value:,.0f}{unit}" if abs(value) >= 100 else f"{value:.3g}{unit}"


def markdown(frame: pd.DataFrame, about: Sequence[str]) -> str:
    """The table as a reader sees it."""
    lines = [
        "# The official code beside ucvgl", "", *about, "",
        "Medians of alternating repetitions, both sides warmed up; memory is the peak above imports and inputs, each side in "
        "a process of its own.", "",
        "| task | size | official | official ms | ucvgl ms | times faster | official MB | ucvgl MB | agreement |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in frame.to_dict("records"):
        cells = [row["task"], row["size"], f"{row['repository']}: {row['function']}"]
        measures = ("official_ms", "ours_ms", "times_faster", "official_mb", "ours_mb")
        cells += [number(row[column]) for column in measures]
        cells.append("; ".join(part for part in (row["status"], row["agreement"]) if part))
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    lines += ["", "What is timed:", ""]
    lines += [f"- {row['task']}: {row['note']}" for row in frame.to_dict("records") if row["note"]]
    for name, group in frame[frame["stubs"] != ""].groupby("repository", sort=False):
        stubs = sorted({stub for stubs in group["stubs"] for stub in stubs.split()})
        lines += [
            "",
            f"Not installed and not needed by these functions of {name}, so an empty module instead: {', '.join(stubs)}.",
        ]
    return "\n".join(lines) + "\n"


def processor() -> str:
    """The processor's name, as Linux tells it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def environment(clones: dict[str, Path], device: str, threads: int) -> list[str]:
    """Machine, versions and commits, a line each."""
    gpu = f", training step on {torch.cuda.get_device_name(0)}" if device == "cuda" else ""
    official = [f"{name} {commit_of(folder)} ({REPOSITORIES[name].url})" for name, folder in clones.items()]
    return [
        f"{processor()}, {os.cpu_count()} cores, {threads} threads a side{gpu}. Python {platform.python_version()}, torch "
        f"{torch.__version__}, numpy {np.__version__}, timm {timm.__version__}.",
        f"ucvgl {commit() or 'no git checkout'}; {'; '.join(official) or 'no clone given'}.",
    ]


# ----------------------------------------------------------------------------------------------------------- command line


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, repository in REPOSITORIES.items():
        parser.add_argument(repository.argument, type=Path, metavar="DIR", dest=name, help=f"clone of {repository.url}")
    parser.add_argument("--small", action="store_true", help="tiny inputs, to see that everything runs")
    parser.add_argument("--rows", metavar="TEXT", default="", help="only the rows whose task contains this")
    parser.add_argument("--model", help="timm model of the training step")
    parser.add_argument("--train-batch", type=int, help="pairs in a batch of the training step")
    parser.add_argument("--image", type=int, help="side of the training step's images in pixels")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="of the training step; a GPU where there is one")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each side")
    parser.add_argument("--gallery", type=int, help="images and tiles searched; twice as many in the rows 'beyond'")
    parser.add_argument("--places", type=int, help="pairs in the similarity shuffle")
    parser.add_argument("--seconds", type=float, help="for which each row is repeated, at least 3 times")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder to write to")
    asked = parser.parse_args(arguments)
    device = asked.device or ("cuda" if torch.cuda.is_available() else "cpu")
    given = {"model": asked.model, "train_batch": asked.train_batch, "image_px": asked.image, "places": asked.places}
    given["seconds"] = asked.seconds
    if asked.gallery:
        given |= {"gallery": asked.gallery, "beyond": 2 * asked.gallery}
    sizes = replace(
        SMALL if asked.small else Sizes(), **{name: value for name, value in given.items() if value is not None}
    )
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(asked.threads)  # of the rows' processes, before numpy is imported there
    here = [str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, here))  # where they find this file

    clones: dict[str, Path] = {}
    missing: dict[str, str] = {}
    wrong = False
    for name, repository in REPOSITORIES.items():
        folder = getattr(asked, name)
        if folder is None:
            missing[name] = f"{repository.argument} not given"
            continue
        try:
            check_clone(name, folder)
            clones[name] = folder
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            missing[name], wrong = str(error), True

    rows = [row for row in ROWS if asked.rows in row.task]
    if not rows:
        print(
            f"error: --rows {asked.rows}: expected a part of one of: {', '.join(r.task for r in ROWS)}", file=sys.stderr
        )
        return 2
    lines, begun = [], time.perf_counter()
    for position, row in enumerate(rows, 1):
        if row.repository in missing:
            line: dict[str, Any] = {"status": missing[row.repository]}
        else:
            line = measure(row, clones[row.repository], sizes, device, asked.threads)
        named = {name: getattr(row, name) for name in NAMED} | {"size": row.size(sizes), "agreement": "", "stubs": ""}
        lines.append(named | line)
        ratio = f"{line['times_faster']:.2f} times faster" if "times_faster" in line else line["status"]
        print(f"[{position}/{len(rows)}, {time.perf_counter() - begun:.0f} s] {row.task}: {ratio}", flush=True)
    frame = pd.DataFrame(lines).reindex(columns=COLUMNS)
    text = markdown(frame, environment(clones, device, asked.threads))
    print("\n" + text)
    write_text(asked.out / "side_by_side.csv", frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    write_text(asked.out / "side_by_side.md", text)
    failed = any(status.startswith(("results differ", "ucvgl:")) for status in frame["status"])
    return 2 if wrong else int(failed)


if __name__ == "__main__":
    sys.exit(main())
