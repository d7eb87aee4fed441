"""An encoder and what learns beside it: projector, predictor, momentum encoder, queue; and the six self-supervised losses of a
pair of views, each by its method's rules (VG-SSL, WACV 2025, section 3.2).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ucvgl.encoders import Encoder, seeded
from ucvgl.errors import InputError
from ucvgl.heads import Predictor, Projector, Queue, momentum_encoder
from ucvgl.ssl_losses import barlow_twins, byol, moco, nt_xent, simsiam, vicreg

Method = Literal["triplet", "simclr", "moco", "byol", "simsiam", "barlow", "vicreg"]
METHODS = ("triplet", "simclr", "moco", "byol", "simsiam", "barlow", "vicreg")


@dataclass(frozen=True)
class SslLoss:
    """A method and its settings; `published` has the paper's for each."""

    method: Method
    projector_layers: int = 2  # VG-SSL: triplet and MoCo 0, SimCLR 1, the others 2
    projector_width: int = 4096  # VG-SSL: SimCLR 1024, Barlow Twins 2048, the others 4096
    predictor_width: int = 4096  # the hidden layer; BYOL and SimSiam alone
    temperature: float = 0.07  # SimCLR and MoCo
    momentum: float = 0.99  # fraction of the momentum encoder that stays at each step; MoCo 0.999, BYOL 0.99
    queue: int = 65_536  # MoCo's keys
    lambda_: float = 0.0051  # Barlow Twins
    weights: tuple[float, float, float] = (25.0, 25.0, 1.0)  # VICReg: invariance, variance, covariance

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(self.weights))  # JSON brings a list
        if self.method not in METHODS:
            raise InputError(
                "SslLoss.method", expected=f"one of {', '.join(METHODS)}", found=repr(self.method), todo="Choose one."
            )


def published(method: Method) -> SslLoss:
    """The paper's settings of a method (VG-SSL, section 3.2 of papers.md)."""
    layers = {"triplet": 0, "moco": 0, "simclr": 1}.get(method, 2)
    width = {"simclr": 1024, "barlow": 2048}.get(method, 4096)
    return SslLoss(method, layers, width, momentum=0.999 if method == "moco" else 0.99)


class Learner(nn.Module):
    """Images -> what the loss compares.

    Args:
        encoder: what is kept afterwards.
        settings: the method.
        seed: of the heads' weights.
        items: how many items are trained on; a queue must not be longer.
        fixed_norms: the encoder's batch norms keep the statistics they came with. For few images unlike those of the
            pretraining: their own statistics undo more than some epochs can teach.

    Attributes:
        encoder: as given.
        projector: behind it; the identity without layers.
        predictor: BYOL's and SimSiam's, else None.
        momentum: the momentum encoder of MoCo and BYOL, with its projector, else None.
        queue: MoCo's, else None.

    Raises:
        InputError: a queue longer than the set, widths that are none.
    """

    def __init__(
        self, encoder: Encoder, settings: SslLoss, seed: int, items: int, *, fixed_norms: bool = False
    ) -> None:
        super().__init__()
        self.settings, self.encoder, self.fixed_norms = settings, encoder, fixed_norms
        layers = 0 if settings.method == "triplet" else settings.projector_layers
        with seeded(seed):
            self.projector = Projector(encoder.dim, settings.projector_width, layers)
            predicts = settings.method in ("byol", "simsiam")
            self.predictor = Predictor(self.projector.width, settings.predictor_width) if predicts else None
        momentum = settings.method in ("moco", "byol")
        self.momentum = momentum_encoder(self._embedder(), settings.momentum) if momentum else None
        self.queue = Queue(settings.queue, self.projector.width, items) if settings.method == "moco" else None

    def _embedder(self) -> nn.Sequential:
        """The same parameters in a container of their own."""
        return nn.Sequential(self.encoder, self.projector)

    def train(self, mode: bool = True) -> "Learner":
        """As in torch, but for norms that are fixed."""
        super().train(mode)
        if self.fixed_norms:
            for network in (self.encoder,) if self.momentum is None else (self.encoder, self.momentum.module[0]):
                for part in network.modules():
                    if isinstance(part, _BatchNorm):
                        part.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D)."""
        return self.projector(self.encoder(images))

    def compared(self, first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
        """Two views of each item -> what `loss` takes: (B, D) each, behind predictor or momentum encoder where it has them.

        Both views pass the networks as one batch, for their batch norms.
        """
        if self.settings.method == "moco":
            with torch.no_grad():
                key = self.momentum(second)
            return self(first), key
        joint = torch.cat((first, second))
        embeddings = self(joint)
        match self.settings.method:
            case "byol":
                with torch.no_grad():
                    target = self.momentum(joint)
                return *self.predictor(embeddings).chunk(2), *target.chunk(2)
            case "simsiam":
                return *self.predictor(embeddings).chunk(2), *embeddings.chunk(2)
        return embeddings.chunk(2)

    def loss(
        self, compared: tuple[Tensor, ...], items: Tensor, *,
        near: Tensor | None = None, near_queue: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """The method's loss; MoCo's queue then gets the batch's keys.

        Args:
            compared: of all processes.
            items: (B,) int64, what the rows show; MoCo alone.
            near: (B, B) bool, items that are no negatives of each other; SimCLR alone.
            near_queue: (B, queue) bool, the same of the queue's keys; MoCo alone.
        """
        settings = self.settings
        match settings.method:
            case "simclr":
                return nt_xent(*compared, settings.temperature, near)
            case "moco":
                keys, _, empty = self.queue.negatives()
                skip = empty.expand(len(items), -1)
                value = moco(*compared, keys, settings.temperature, skip if near_queue is None else skip | near_queue)
                self.queue.push(compared[1], items)
                return value
            case "byol":
                p1, p2, t1, t2 = compared
                return byol(p1, t2) + byol(p2, t1)
            case "simsiam":
                p1, p2, z1, z2 = compared
                return simsiam(p1, z2, p2, z1)
            case "barlow":
                return barlow_twins(*compared, settings.lambda_)
            case "vicreg":
                return vicreg(*compared, *settings.weights)
        raise InputError(
            "Learner.loss", expected="a loss of two views", found=settings.method, todo="The triplet loss takes three."
        )

    def follow(self) -> None:
        """Moves the momentum encoder, after a step of the optimiser."""
        if self.momentum is not None:
            self.momentum.update(self._embedder())
