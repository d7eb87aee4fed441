"""What VG-SSL's methods train beside an encoder: projector, predictor, momentum encoder, MoCo's queue; and the
`Learner`, which makes of them the six losses of a pair of views (VG-SSL, WACV 2025, section 3.2).

None of it is kept: a place is recognised by the encoder's own descriptor. Hidden layers are Linear - batch norm - ReLU, the
last layer a Linear alone, as in BYOL, Barlow Twins and VICReg; SimCLR and SimSiam have one more batch norm, MoCo v2 none."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ucvgl.encoders import Encoder, seeded
from ucvgl.errors import InputError, one_of
from ucvgl.ssl_losses import barlow_twins, byol, moco, nt_xent, simsiam, vicreg

Method = Literal["triplet", "simclr", "moco", "byol", "simsiam", "barlow", "vicreg"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True)
class SslLoss:
    """A method and its settings; `published` has the paper's for each."""

    method: Method
    projector_layers: int = 2  # VG-SSL: triplet and MoCo 0, SimCLR 1, the others 2
    projector_width: int = 4096  # VG-SSL: SimCLR 1024, Barlow Twins 2048, the others 4096
    predictor_width: int = 4096  # the hidden layer; BYOL and SimSiam alone
    predictor_rate: float = 1.0  # its learning rate, in the encoder's; VG-SSL 1, BYOL (appendix) tried 10
    temperature: float = 0.07  # SimCLR and MoCo
    momentum: float = 0.99  # fraction of the momentum encoder that stays at each step; MoCo 0.999, BYOL 0.99
    queue: int = 65_536  # MoCo's keys
    lambda_: float = 0.0051  # Barlow Twins
    weights: tuple[float, float, float] = (25.0, 25.0, 1.0)  # VICReg: invariance, variance, covariance

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(self.weights))  # JSON brings a list
        one_of("SslLoss.method", self.method, METHODS, "Choose one.")


def published(method: Method) -> SslLoss:
    """The paper's settings of a method (VG-SSL, WACV 2025, and the scripts of its code)."""
    layers = {"triplet": 0, "moco": 0, "simclr": 1}.get(method, 2)
    width = {"simclr": 1024, "barlow": 2048}.get(method, 4096)
    return SslLoss(method, layers, width, momentum=0.999 if method == "moco" else 0.99)


def _hidden(width_in: int, width: int) -> list[nn.Module]:
    """Without a bias, which the batch norm would subtract again."""
    return [nn.Linear(width_in, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]


def projector(width_in: int, width: int, layers: int) -> nn.Sequential:
    """Descriptors (B, width_in) -> what a loss compares, (B, width); without layers the descriptors themselves."""
    widths = [width_in] + [width] * layers
    hidden = [part for sizes in pairwise(widths[:-1]) for part in _hidden(*sizes)]
    return nn.Sequential(*hidden, *([nn.Linear(widths[-2], width)] if layers else []))


def predictor(width: int, hidden: int) -> nn.Sequential:
    """Linear - batch norm - ReLU - Linear, (B, width) -> (B, width): predicts one view's projection from the other's.
    The hidden layer has 4096 numbers in VG-SSL and BYOL (Grill et al.; NeurIPS 2020, section 3.3), 512 in SimSiam."""
    return nn.Sequential(*_hidden(width, hidden), nn.Linear(hidden, width))


class Queue(nn.Module):
    """The last `size` keys of the momentum encoder (VG-SSL 65,536), and the item of each, in a ring: new ones replace the oldest.

    Source: MoCo, section 3.2. Differs: it starts empty, so that no random vector is ever a negative; its size need be
    no multiple of the batch; items tell which keys are of places near a query. No value is read back, so that a GPU
    never waits. InputError for more keys than `set_size`, the items of the training set."""

    keys: Tensor  # (size, dim) float32, of unit length; 0 where empty
    items: Tensor  # (size,) int64, the item of each key; -1 where empty: no negative, `ssl_losses.moco` masks it
    pushed: Tensor  # int64 scalar, keys pushed since the start; the next goes to entry pushed % size

    def __init__(self, size: int, dim: int, set_size: int) -> None:
        super().__init__()
        if not 1 <= size <= set_size:
            expected = f"1 to {set_size}, the items of the training set"
            todo = "Shorten the queue: it would hold an item twice."
            raise InputError("Queue: size", expected, found=size, todo=todo)
        self.register_buffer("keys", torch.zeros(size, dim))
        self.register_buffer("items", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("pushed", torch.tensor(0))

    @torch.no_grad()
    def push(self, keys: Tensor, items: Tensor) -> None:
        """Add the keys (B, dim) of all processes, normalised here, and their items (B,); of more than `size` the last stay."""
        size, count = len(self.keys), len(keys)
        kept = min(count, size)
        entries = (self.pushed + torch.arange(count - kept, count, device=self.pushed.device)) % size
        self.keys[entries] = F.normalize(keys[count - kept :].to(self.keys), dim=1)
        self.items[entries] = items[count - kept :].to(self.items.device)
        self.pushed += count


class Learner(nn.Module):
    """Images -> what the loss compares.

    Beside the encoder, which is kept afterwards, its projector (the identity without layers), BYOL's and SimSiam's predictor,
    the momentum encoder of MoCo (CVPR 2020, equation 2) and BYOL (section 3.1) with its projector, and MoCo's queue; what a
    method has not is None. The seed is of the heads' weights; `items`: how many are trained on, InputError for a longer queue.
    fixed_norms: the encoder's batch norms keep their statistics, for few images unlike the pretraining's."""

    def __init__(self, encoder: Encoder, settings: SslLoss, seed: int, items: int, fixed_norms: bool = False) -> None:
        super().__init__()
        self.settings, self.encoder, self.fixed_norms = settings, encoder, fixed_norms
        method, layers = settings.method, 0 if settings.method == "triplet" else settings.projector_layers
        width = settings.projector_width if layers else encoder.dim
        self.predictor = self.momentum = self.queue = None
        with seeded(seed):
            self.projector = projector(encoder.dim, width, layers)
            if method in ("byol", "simsiam"):
                self.predictor = predictor(width, settings.predictor_width)
                self.predictor.lr_scale = settings.predictor_rate  # for `adamw`: a faster one holds off collapse
        if method in ("moco", "byol"):
            from timm.utils import ModelEmaV3  # here, since timm takes longer to load than all else

            # in training mode: its batch norms use the batch's statistics, as in the code of MoCo and BYOL
            ema = ModelEmaV3(self._embedder(), decay=settings.momentum, exclude_buffers=True)
            self.momentum = ema.requires_grad_(False).train()
        if method == "moco":
            self.queue = Queue(settings.queue, width, items)

    def _embedder(self) -> nn.Sequential:
        """The same parameters in a container of their own."""
        return nn.Sequential(self.encoder, self.projector)

    def train(self, mode: bool = True) -> "Learner":
        """As in torch, but for norms that are fixed."""
        super().train(mode)
        if self.fixed_norms:
            followers = [] if self.momentum is None else [*self.momentum.module[0].modules()]
            for part in (*self.encoder.modules(), *followers):
                if isinstance(part, _BatchNorm):
                    part.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D)."""
        return self.projector(self.encoder(images))

    def compared(self, first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
        """Two views of each item -> what `loss` takes: (B, D) each, behind predictor or momentum encoder where it has them."""
        if self.settings.method == "moco":
            with torch.no_grad():
                key = self.momentum(second)
            return self(first), key
        joint = torch.cat((first, second))  # one batch, for the batch norms
        embeddings = self(joint)
        if self.predictor is None:
            return embeddings.chunk(2)
        with torch.no_grad():
            target = embeddings if self.momentum is None else self.momentum(joint)
        return *self.predictor(embeddings).chunk(2), *target.chunk(2)

    def loss(self, compared: tuple[Tensor, ...], items: Tensor, near: Tensor | None = None) -> Tensor:
        """The method's loss on what all processes `compared`; MoCo's queue then gets the batch's keys, of these items (B,).
        near: bool, what is no negative of an item: (B, B), other items of the batch, for SimCLR; (B, queue), keys, for MoCo."""
        settings = self.settings
        match settings.method:
            case "simclr":
                return nt_xent(*compared, settings.temperature, near)
            case "moco":
                empty = (self.queue.items < 0).expand(len(items), -1)
                skip = empty if near is None else empty | near
                keys = self.queue.keys.clone()  # which the push before the backward pass leaves alone
                value = moco(*compared, keys, settings.temperature, skip)
                self.queue.push(compared[1], items)
                return value
            case "byol":
                p1, p2, target1, target2 = compared
                return byol(p1, target2) + byol(p2, target1)
            case "simsiam":
                p1, p2, z1, z2 = compared
                return simsiam(p1, z2, p2, z1)
            case "barlow":
                return barlow_twins(*compared, settings.lambda_)
            case "vicreg":
                return vicreg(*compared, *settings.weights)
        raise AssertionError("the triplet loss takes three views")

    def follow(self) -> None:
        """After a step of the optimiser, moves the momentum encoder to momentum * its own + (1 - momentum) * the learner's."""
        if self.momentum is not None:
            self.momentum.update(self._embedder())
