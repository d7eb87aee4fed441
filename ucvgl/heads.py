"""What VG-SSL's methods train beside an encoder: projector, predictor, momentum encoder, and MoCo's queue.

None of it is kept: a place is recognised by the encoder's own descriptor. Hidden layers are Linear - batch norm - ReLU, the
last layer a Linear alone, as in BYOL, Barlow Twins and VICReg. SimCLR and SimSiam put a batch norm behind the projector's
last layer as well, MoCo v2 has none at all. Weights are drawn from torch's own generator: build heads under a seed.
"""

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ucvgl.errors import InputError

if TYPE_CHECKING:
    from timm.utils import ModelEmaV3


def _hidden(width_in: int, width: int) -> list[nn.Module]:
    """Without a bias, which the batch norm would subtract again."""
    return [nn.Linear(width_in, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]


class Projector(nn.Sequential):
    """Descriptors (B, width_in) -> what a loss compares, (B, width); without layers the descriptors themselves.

    Source: VG-SSL (Xiao, Zhu, Loianno; WACV 2025), where 0 to 3 layers and widths of 1024 to 4096 were tried.

    Args:
        width_in: of the descriptors.
        width: of the hidden layers and of the output; VG-SSL SimCLR 1024, Barlow Twins 2048, BYOL, SimSiam, VICReg 4096.
        layers: number of Linear layers; VG-SSL MoCo 0, SimCLR 1, the others 2.
    """

    def __init__(self, width_in: int, width: int, layers: int) -> None:
        widths = [width_in] + [width] * layers
        hidden = [part for sizes in pairwise(widths[:-1]) for part in _hidden(*sizes)]
        super().__init__(*hidden, *([nn.Linear(widths[-2], width)] if layers else []))
        self.width = widths[-1]


class Predictor(nn.Sequential):
    """Linear - batch norm - ReLU - Linear, (B, width) -> (B, width): predicts one view's projection from the other's.

    Source: BYOL (Grill et al.; NeurIPS 2020), section 3.3; SimSiam (Chen, He; CVPR 2021).

    Args:
        width: of the projections.
        hidden: of the hidden layer; BYOL 4096 between 256 and 256, SimSiam 512 between 2048 and 2048, VG-SSL 4096.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(*_hidden(width, hidden), nn.Linear(hidden, width))


def momentum_encoder(model: nn.Module, momentum: float = 0.999) -> "ModelEmaV3":
    """A copy whose `update(model)`, after each step, moves its parameters to momentum * own + (1 - momentum) * model's.

    It is called like the model, has no gradients and stays in training mode: its batch norms use the statistics of the
    batch, as in the code of MoCo and BYOL. Buffers, such as running statistics, are copied from the model, not averaged.

    Source: MoCo (He, Fan, Wu, Xie, Girshick; CVPR 2020), equation 2; BYOL, section 3.1. Computed by timm.

    Args:
        model: the encoder, with its projector if it has one, without the predictor.
        momentum: MoCo 0.999, VG-SSL's BYOL 0.99.
    """
    from timm.utils import ModelEmaV3  # here, since timm takes longer to load than all else

    return ModelEmaV3(model, decay=momentum, exclude_buffers=True).requires_grad_(False).train()


class Queue(nn.Module):
    """The last `size` keys of the momentum encoder, and the item of each, in a ring: new keys replace the oldest.

    Source: MoCo, section 3.2. Differs: it starts empty, not with random vectors, so that no random vector is ever a negative;
    its size need be no multiple of the batch; items tell which keys are of places near a query, which are no negatives.
    Shapes never change and no value is read back, so that a GPU never waits. All state is in buffers, for checkpoints.

    Args:
        size: number of keys; MoCo and VG-SSL 65,536.
        dim: width of a key.
        set_size: number of items in the training set.

    Raises:
        InputError: a queue longer than the training set.
    """

    keys: Tensor  # (size, dim) float32, of unit length; 0 where empty
    items: Tensor  # (size,) int64, the item of each key; -1 where empty
    pushed: Tensor  # int64 scalar, keys pushed since the start; the next goes to entry pushed % size

    def __init__(self, size: int, dim: int, set_size: int) -> None:
        super().__init__()
        if not 1 <= size <= set_size:
            raise InputError(
                "Queue: size", expected=f"1 to {set_size}, the items of the training set", found=size,
                todo="Shorten the queue: it would hold the same item more than once.",
            )  # fmt: skip
        self.register_buffer("keys", torch.zeros(size, dim))
        self.register_buffer("items", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("pushed", torch.tensor(0))

    @property
    def empty(self) -> Tensor:
        """(size,) bool: entries not yet filled. They are no negatives: `ucvgl.ssl_losses.moco` masks them."""
        return self.items < 0

    def negatives(self) -> tuple[Tensor, Tensor, Tensor]:
        """Keys (size, dim), items (size,) and `empty` (size,): copies, which a `push` before the backward pass leaves alone."""
        return self.keys.clone(), self.items.clone(), self.empty

    @torch.no_grad()
    def push(self, keys: Tensor, items: Tensor) -> None:
        """Add keys (B, dim), normalised here, and their items (B,), after the loss whose positives they were.

        Of more keys than entries the last stay. In distributed training each process pushes the gathered keys of all.
        """
        size, count = len(self.keys), len(keys)
        kept = min(count, size)
        entries = (self.pushed + torch.arange(count - kept, count, device=self.pushed.device)) % size
        self.keys[entries] = F.normalize(keys[count - kept :].to(self.keys), dim=1)
        self.items[entries] = items[count - kept :].to(self.items.device)
        self.pushed += count
