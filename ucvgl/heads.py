"""What stands behind an encoder in VG-SSL: projector, predictor, and NetVLAD's pooling.

Projector and predictor live in training only; a place is recognised by the encoder's own descriptor. One form for all
methods: hidden layers Linear - batch norm - ReLU, the last layer a Linear alone, as BYOL, Barlow Twins and VICReg have it.
SimCLR and SimSiam put a batch norm behind the last layer of the projector as well, MoCo v2 has none at all.

Weights are drawn from torch's own generator, like those of every layer: build heads under a seed, as
`ucvgl.encoders.two_view_encoder` does.

What a method needs beside its encoder: a copy that follows it slowly, and a queue of the keys that copy made.

MoCo (He, Fan, Wu, Xie, Girshick; CVPR 2020) has both, BYOL (Grill et al.; NeurIPS 2020) the first. The copy is timm's
moving average. Differences from MoCo: the queue starts empty, where MoCo fills it with random vectors, so that no random
vector is ever a negative; its length need be no multiple of the batch; each key remembers its item, so that keys of places
near a query can be left out of its negatives. All state is in buffers and survives a checkpoint.
"""

import math
import warnings
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from scipy.cluster.vq import kmeans2
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from ucvgl.errors import InputError


class Projector(nn.Module):
    """Embeddings (B, width_in) -> what a loss compares, (B, width); without layers the embeddings themselves.

    Source: VG-SSL (Xiao, Zhu, Loianno; WACV 2025): layers 0-3 and widths 1024-4096 were tried.

    Args:
        width_in: of the embeddings.
        width: of the hidden layers and of the last; VG-SSL SimCLR 1024, Barlow Twins 2048, BYOL, SimSiam, VICReg 4096.
        layers: how many Linear layers; VG-SSL MoCo 0, SimCLR 1, the others 2.

    Attributes:
        width: of what comes out: `width`, or `width_in` without layers.

    Raises:
        InputError: a width below 1, or fewer than 0 layers.
    """

    def __init__(self, width_in: int, width: int, layers: int) -> None:
        super().__init__()
        _check_count("Projector: width_in", width_in, 1)
        _check_count("Projector: width", width, 1)
        _check_count("Projector: layers", layers, 0)
        parts: list[nn.Module] = []
        for number, (inputs, outputs) in enumerate(pairwise([width_in] + [width] * layers), 1):
            parts += [nn.Linear(inputs, outputs)] if number == layers else _hidden(inputs, outputs)
        self.layers = nn.Sequential(*parts)
        self.width_in, self.width = width_in, width if layers else width_in

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, width_in) -> (B, width).

        Raises:
            InputError: another shape, or a batch of one while a batch norm is training.
        """
        _check_batch("Projector", self.layers, embeddings, self.width_in)
        return self.layers(embeddings)


class Predictor(nn.Module):
    """Linear - batch norm - ReLU - Linear, (B, width) -> (B, width): guesses one view's projection from the other's.

    Source: BYOL (Grill et al.; NeurIPS 2020), section 3.3; SimSiam (Chen, He; CVPR 2021), whose hidden layer is a
    bottleneck of a quarter of the width.

    Args:
        width: of the projections.
        hidden: of the hidden layer; BYOL 4096 between 256 and 256, SimSiam 512 between 2048 and 2048, VG-SSL 4096.

    Raises:
        InputError: a width below 1.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        _check_count("Predictor: width", width, 1)
        _check_count("Predictor: hidden", hidden, 1)
        self.layers = nn.Sequential(*_hidden(width, hidden), nn.Linear(hidden, width))
        self.width = width

    def forward(self, projections: Tensor) -> Tensor:
        """(B, width) -> (B, width).

        Raises:
            InputError: another shape, or a batch of one in training.
        """
        _check_batch("Predictor", self.layers, projections, self.width)
        return self.layers(projections)


def _hidden(inputs: int, outputs: int) -> list[nn.Module]:
    """Without a bias, which the batch norm would take off again."""
    return [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)]


def _check_count(where: str, count: int, least: int) -> None:
    if count < least:
        raise InputError(where, expected=f"at least {least}", found=count, todo="Change this setting.")


def _check_batch(where: str, layers: nn.Module, x: Tensor, width: int) -> None:
    if x.ndim != 2 or x.shape[1] != width:
        raise InputError(
            where, expected=f"(B, {width})", found=tuple(x.shape), todo="Give it the width of what stands before it."
        )
    if len(x) < 2 and any(isinstance(part, nn.BatchNorm1d) and part.training for part in layers.modules()):
        raise InputError(
            where, expected="at least 2 rows in training, whose statistics its batch norm takes", found=len(x),
            todo="Use a larger batch, or larger chunks of it that leave no single row over.",
        )  # fmt: skip


class NetVlad(nn.Module):
    """Feature map (B, dim, h, w) -> descriptor (B, clusters * dim), of unit length.

    Local descriptors x are made unit vectors and assigned to the clusters by a softmax, a_k = softmax(w_k x + b_k); for
    each cluster the residuals a_k (x - c_k) are summed over the positions and normalised; and then all of them together.
    w, b and c are learnt apart. In float32 at least, under autocast too.

    Source: NetVLAD (Arandjelovic, Gronat, Torii, Pajdla, Sivic; CVPR 2016), equations 3 and 4.

    Args:
        dim: numbers of a local descriptor, the channels of the map.
        clusters: 64 in the paper.

    Attributes:
        width: of the descriptor, clusters * dim.

    Raises:
        InputError: a dim below 1, or fewer than 2 clusters.
    """

    def __init__(self, dim: int, clusters: int = 64) -> None:
        super().__init__()
        _check_count("NetVlad: dim", dim, 1)
        _check_count("NetVlad: clusters", clusters, 2)
        self.assign = nn.Conv2d(dim, clusters, 1)
        self.centres = nn.Parameter(F.normalize(torch.randn(clusters, dim), dim=1))
        self.dim, self.width = dim, clusters * dim

    @torch.no_grad()
    def initialise(self, descriptors: Tensor, seed: int) -> None:
        """Puts the centres where local descriptors cluster, and assigns by distance: w = 2 alpha c, b = -alpha |c|^2.

        Alpha is such that the nearest centre weighs 100 times as much as the second, on average over the difference of
        their squared distances: nearly hard, as the paper wants it; the number is our choice.

        Source: NetVLAD, equations 2 and 3, section 3.1.

        Args:
            descriptors: (n, dim), drawn from the maps of many images; 5,000 of 256 take seconds. Made unit vectors here.
            seed: of the clustering.

        Raises:
            InputError: another shape, or as `cluster_centres`.
        """
        if descriptors.ndim != 2 or descriptors.shape[1] != self.dim:
            raise InputError(
                "NetVlad: descriptors", expected=f"(n, {self.dim})", found=tuple(descriptors.shape),
                todo="Sample positions of feature maps, a row each.",
            )  # fmt: skip
        descriptors = F.normalize(descriptors.detach().double().cpu(), dim=1)
        centres = cluster_centres(descriptors, len(self.centres), seed).double()
        # |x - c|^2 = |x|^2 - score: differences of squared distances are differences of scores
        scores = 2 * descriptors @ centres.T - centres.square().sum(1)  # (n, K)
        first, second = scores.topk(2, dim=1).values.T
        alpha = math.log(100) / (first - second).mean()
        self.centres.copy_(centres)
        self.assign.weight.copy_(2 * alpha * centres[:, :, None, None])
        self.assign.bias.copy_(-alpha * centres.square().sum(1))

    def forward(self, features: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, clusters * dim), one cluster after the other.

        Raises:
            InputError: another shape.
        """
        if features.ndim != 4 or features.shape[1] != self.dim:
            raise InputError(
                "NetVlad: features", expected=f"(B, {self.dim}, h, w)", found=tuple(features.shape),
                todo="Give it the map it was built for.",
            )  # fmt: skip
        with torch.autocast(features.device.type, enabled=False):
            local = F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=1)
            weights = self.assign(local).softmax(1).flatten(2)  # (B, K, h*w)
            sums = torch.einsum("bkp,bdp->bkd", weights, local.flatten(2))
            residuals = sums - weights.sum(2, keepdim=True) * self.centres  # (B, K, dim)
            return F.normalize(F.normalize(residuals, dim=2).flatten(1), dim=1)


def cluster_centres(descriptors: Tensor, clusters: int, seed: int) -> Tensor:
    """k-means: (n, D) -> the centres (clusters, D), float32 on the CPU; scipy's, with the starts of k-means++.

    A cluster that loses all its members stays where it was.

    Args:
        descriptors: (n, D), finite.
        clusters: at most n.
        seed: of the starts.

    Raises:
        InputError: NaN or infinity, or fewer different descriptors than clusters.
    """
    points = descriptors.detach().double().cpu().numpy()
    if not np.isfinite(points).all():
        raise InputError(
            "cluster_centres: descriptors", expected="finite numbers", found="NaN or infinity",
            todo="Look for a diverged model, or NaN in the images.",
        )  # fmt: skip
    found = len(points)
    if found >= clusters:
        with warnings.catch_warnings(), np.errstate(invalid="ignore"):  # empty clusters; no different point left
            warnings.simplefilter("ignore", UserWarning)
            centres, _ = kmeans2(points, clusters, iter=30, minit="++", seed=np.random.default_rng(seed))
        found = len(np.unique(centres, axis=0))
    if found < clusters:
        raise InputError(
            "cluster_centres: descriptors", expected=f"at least {clusters} different rows", found=found,
            todo="Sample more images or positions, or use fewer clusters.",
        )  # fmt: skip
    return torch.from_numpy(centres).float()


def momentum_copy(model: nn.Module, momentum: float = 0.999) -> ModelEmaV3:
    """A copy of the model to be moved by `update`, called like the model; without gradients, in training mode.

    In training mode its batch norms go by the batch, as in MoCo's and BYOL's code. When the task holds it, and not the
    model that is trained, the loop moves it to no device and saves it in no checkpoint: the task does.

    Args:
        model: what is followed: the encoder, with its projector if it has one, without the predictor.
        momentum: the part of the copy that stays at each update; MoCo 0.999, VG-SSL's BYOL 0.99.

    Raises:
        InputError: a momentum outside 0..1.
    """
    _check_part("momentum_copy: momentum", momentum)
    ema = ModelEmaV3(model, decay=momentum, exclude_buffers=True)
    return ema.requires_grad_(False).train()


def update(ema: ModelEmaV3, model: nn.Module, momentum: float | None = None) -> None:
    """Moves the copy, after a step of the optimiser: parameters to momentum * copy + (1 - momentum) * model.

    Buffers, such as the running statistics of batch norms, are copied from the model, not averaged: in training mode
    they change nothing, and in evaluation mode they are the model's, not the copy's own.

    Args:
        ema: as `momentum_copy` made it; changed in place.
        model: what it follows.
        momentum: of this update and those after it; None: as before.

    Raises:
        InputError: a momentum outside 0..1, or a model of other parameters.
    """
    if momentum is not None:
        _check_part("update: momentum", momentum)
        ema.decay = momentum
    then, now = ([tuple(p.shape) for p in part.parameters()] for part in (ema.module, model))
    if then != now:
        raise InputError(
            "update: model", expected=f"the {len(then)} parameters that were copied", found=f"{len(now)}, or other shapes",
            todo="Give it the module that momentum_copy was given.",
        )  # fmt: skip
    ema.update(model)


def byol_momentum(base: float, progress: float) -> float:
    """1 - (1 - base) (cos(pi progress) + 1) / 2: from `base` at the start to 1 at the end of training.

    Source: BYOL (Grill et al.; NeurIPS 2020), section 3.3. VG-SSL's code keeps 0.99 throughout.

    Args:
        base: 0..1; BYOL 0.996, its short trainings 0.99.
        progress: 0..1, the part of training that is done, as a task's `after_step` gets it.

    Raises:
        InputError: either outside 0..1.
    """
    _check_part("byol_momentum: base", base)
    _check_part("byol_momentum: progress", progress)
    return 1 - (1 - base) * (math.cos(math.pi * progress) + 1) / 2


def _check_part(where: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(where, expected="0 to 1", found=value, todo="Change this setting.")


class Queue(nn.Module):
    """The last `size` keys and the item of each, in a ring: a new key takes the place of the oldest.

    Empty at first. The shapes never change and nothing looks at values, so that no GPU waits: entries not yet filled
    are marked by `empty`, which belongs into the `not_negative` of `ucvgl.ssl_losses.moco`. With every entry empty, as at
    the first step, that loss is 0 and without gradient.

    Source: MoCo (He et al.; CVPR 2020), section 3.2.

    Args:
        size: keys held; MoCo and VG-SSL 65,536.
        dim: numbers of a key.
        set_size: items in the training set, if known: a longer queue would hold keys of the same item several times.

    Attributes:
        keys: (size, dim) float32, unit vectors; 0 where empty.
        items: (size,) int64, the item of each key, by which its position can be looked up; -1 where empty.
        pushed: int64 scalar, keys put in since the start; the next goes to entry pushed % size.

    Raises:
        InputError: a size or dim below 1, or more entries than items.
    """

    keys: Tensor
    items: Tensor
    pushed: Tensor

    def __init__(self, size: int, dim: int, *, set_size: int | None = None) -> None:
        super().__init__()
        for name, value in (("size", size), ("dim", dim)):
            if value < 1:
                raise InputError(f"Queue: {name}", expected="at least 1", found=value, todo="Change this setting.")
        if set_size is not None and size > set_size:
            raise InputError(
                "Queue: size", expected=f"at most the {set_size} items of the training set", found=size,
                todo="Shorten the queue: it would hold the same item more than once.",
            )  # fmt: skip
        self.register_buffer("keys", torch.zeros(size, dim))
        self.register_buffer("items", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("pushed", torch.tensor(0))

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def empty(self) -> Tensor:
        """(size,) bool: entries not yet filled."""
        return self.items < 0

    def negatives(self) -> tuple[Tensor, Tensor, Tensor]:
        """(size, dim) keys, (size,) items, (size,) `empty`: copies, which a `push` before the backward pass leaves alone."""
        return self.keys.clone(), self.items.clone(), self.empty

    @torch.no_grad()
    def push(self, keys: Tensor, items: Tensor) -> None:
        """Puts a batch in, after the loss that it was the positives of; of more keys than entries the last stay.

        With several processes all of them put in the same keys, those of all processes, which is what a task's `loss`
        gets.

        Args:
            keys: (B, dim), normalised here, of the momentum encoder.
            items: (B,) int64, 0 or more.

        Raises:
            InputError: shapes or types that do not fit.
        """
        if keys.ndim != 2 or keys.shape[1] != self.keys.shape[1]:
            raise InputError(
                "Queue.push: keys", expected=f"(B, {self.keys.shape[1]})", found=tuple(keys.shape),
                todo="Build the queue with the width of the embeddings.",
            )  # fmt: skip
        if items.shape != keys.shape[:1] or items.dtype != torch.int64:
            raise InputError(
                "Queue.push: items", expected=f"int64 ({len(keys)},)", found=f"{items.dtype} {tuple(items.shape)}",
                todo="Name the item of each key.",
            )  # fmt: skip
        size, count = len(self), len(keys)
        kept = min(count, size)
        entries = (self.pushed + torch.arange(count - kept, count, device=self.pushed.device)) % size
        self.keys[entries] = F.normalize(keys[count - kept :].to(self.keys), dim=1)
        self.items[entries] = items[count - kept :].to(self.items.device)
        self.pushed += count
