"""The self-supervised losses of two views: VG-SSL's modules beside `heads.Learner`, forward and backward."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from comparison import Pair, Row, Sizes, Verdict, verdict
from official import Clone
from torch import Tensor, nn

from ucvgl.heads import Learner, published
from ucvgl.ssl_losses import cross_correlation, off_diagonal_squares

MODULES = {
    "MOCO": "model.moco.moco_pytorch",
    "BYOL": "model.byol.byol_pytorch",
    "VICREG": "model.vicreg.vicreg_pytorch",
}
# name, method, official class, and how the method is chosen there
METHODS = (
    ("SimCLR", "simclr", "MOCO", {"use_simclr": True}), ("MoCo", "moco", "MOCO", {"use_simclr": False}),
    ("BYOL", "byol", "BYOL", {"use_momentum": True}), ("SimSiam", "simsiam", "BYOL", {"use_momentum": False}),
    ("Barlow Twins", "barlow", "VICREG", {"use_bt_loss": True}), ("VICReg", "vicreg", "VICREG", {"use_bt_loss": False}),
)  # fmt: skip


class Pixels(nn.Module):
    """Takes the place of a backbone: images (B, 3, h, w) -> their first `dim` numbers."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.scale = nn.Parameter(torch.ones(()))  # they ask a backbone's parameters for their device

    def forward(self, images: Tensor) -> Tensor:
        """(B, dim)."""
        return images.flatten(1)[:, : self.dim] * self.scale


def backward_of(loss: Callable[[Tensor, Tensor], Tensor], views: tuple[Tensor, Tensor]) -> tuple[float, Tensor]:
    """The loss of two views, and its gradient by both, (2, B, ...)."""
    for view in views:
        view.grad = None
    value = loss(*views)
    value.backward()
    return float(value.detach()), torch.stack([torch.zeros_like(v) if v.grad is None else v.grad for v in views])


def ssl_loss(clone: Clone, sizes: Sizes, *, method: str, made: str, chosen: dict[str, bool]) -> Pair:
    """One loss of two views behind the same stand-in for a backbone."""
    width, side = sizes.ssl_width, math.ceil(math.sqrt(sizes.ssl_width / 3))
    torch.manual_seed(0)
    views = tuple(torch.randn(sizes.ssl_batch, 3, side, side, requires_grad=True) for _ in range(2))
    settings = replace(published(method), projector_layers=0, predictor_width=width, queue=sizes.ssl_queue)
    learner = Learner(Pixels(width), settings, seed=0, items=10**9).train()
    items = torch.arange(sizes.ssl_batch)
    queue = {"K": settings.queue, "T": settings.temperature} if made == "MOCO" else {}
    official = clone.get(MODULES[made], made)(
        net=Pixels(width), image_size=(side, side), gpus_num=1, projection_size=width, projection_hidden_size=width,
        aggregation=nn.Sequential(nn.Identity(), nn.Identity()), **queue, **chosen,
    ).train()  # fmt: skip
    if made == "BYOL":
        same_predictor(official.online_predictor, learner)
    if method == "moco":  # ours begins empty
        learner.queue.keys.copy_(official.queue.T)
        learner.queue.items.zero_()

    def ours(first: Tensor, second: Tensor) -> Tensor:
        return learner.loss(learner.compared(first, second), items)

    def agree(theirs: tuple[float, Tensor], found: tuple[float, Tensor]) -> Verdict:
        how = "loss and gradients"
        if made == "BYOL":
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
            found = backward_of(partial(barlow_as_there, learner), views)
            how += ", ours with their variance (over B - 1, eps 1e-4)"
        loss = abs(theirs[0] - found[0]) / max(1e-12, abs(theirs[0]))
        gradient = float((theirs[1] - found[1]).norm() / theirs[1].norm())
        return verdict(max(loss, gradient), 1e-4, f"{how}, relative")

    text = f"{sizes.ssl_batch} pairs, {width}-D{f', {sizes.ssl_queue:,} keys' if method == 'moco' else ''}"
    return Pair(text, lambda: backward_of(official, views), lambda: backward_of(ours, views), agree)


def same_predictor(theirs: nn.Sequential, learner: Learner) -> None:
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


def barlow_as_there(learner: Learner, first: Tensor, second: Tensor) -> Tensor:
    """Barlow Twins with the unbiased variance and the eps of VG-SSL's code."""
    z1, z2 = learner.compared(first, second)
    shrunk = (len(z1) - 1) / len(z1)
    correlation = shrunk * cross_correlation(z1, z2, eps=1e-4 * shrunk)
    invariance = (1 - correlation.diagonal()).square().sum()
    return invariance + learner.settings.lambda_ * off_diagonal_squares(correlation)


ROWS = [
    Row(f"loss: {name}", "VG-SSL", made, partial(ssl_loss, method=method, made=made, chosen=chosen),
        "forward and backward behind an identity in the place of backbone and projector")
    for name, method, made, chosen in METHODS
]  # fmt: skip
