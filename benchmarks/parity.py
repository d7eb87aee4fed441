"""Compares what the profile `paper` does with the official code, on fixed inputs or over many draws of a transform.

    python benchmarks/parity.py --ucvgl ~/UCVGL --sample4geo ~/Sample4Geo

Prints a table; ends with 1 if a row that must be equal is not, or could not run. Transforms need albumentations 1.3.1.
What only reading can compare stands in results/parity.md.
"""

import argparse
import math
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from official import REPOSITORIES, CannotRun, Clone, check_clone, in_words
from parity_transforms import transforms
from torch import Tensor, nn

from ucvgl import losses, pseudo_labels
from ucvgl.encoders import Safa
from ucvgl.metrics import retrieval_measures
from ucvgl.training import TrainingConfig, learning_rate

Row = tuple[
    str, str, str, bool | None
]  # what, official, ours, whether they are equal as they must; None: they may differ
Rows = list[tuple[int, int, bool]]  # ground image, satellite image, whether they are a pair
N = 500  # ground images


def safa(clone: Clone) -> Iterator[Row]:
    """Aggregation with the same weights."""
    theirs = clone.get("model.SAFA", "SAFA")(SimpleNamespace(forward_features=lambda x: x), in_channel=12)
    ours, layers = Safa(12, 8), [tuple(sequence) for sequence in theirs.spatial_aware.fc]
    for at, end in enumerate(("in", "out")):
        getattr(ours, f"weight_{end}").data = torch.stack([pair[at].weight.T for pair in layers]).detach()
        getattr(ours, f"bias_{end}").data = torch.stack([pair[at].bias for pair in layers]).detach()
    features = torch.randn(4, 32, 3, 4)
    apart = float((theirs(features) - ours(features)).detach().abs().max())
    yield "SAFA, same weights", "model/SAFA.py", f"largest difference {apart:.1e}", apart < 1e-5


def loss(clone: Clone) -> Iterator[Row]:
    """The losses of steps 3 to 5, value and gradient."""
    made = clone.get("model.infonce", "InfoNCELoss")(SimpleNamespace(gpu="cpu"))
    matched, scale = torch.rand(16) < 0.4, math.exp(float(made.temperature))
    for name, given, smoothing in (("steps 3, 4", None, 0.3), ("step 5, 6 of 16 rows matched", matched, 0.1)):
        q, k = (nn.functional.normalize(torch.randn(16, 8), dim=1).requires_grad_() for _ in range(2))
        theirs = made(q, k, GT=None if given is None else given.numpy(), label_smoothing=smoothing)
        ours = (
            losses.info_nce(q, k, scale, label_smoothing=smoothing)
            if given is None
            else losses.soft_info_nce(q, k, scale, given, label_smoothing=smoothing)
        )
        gradients = (torch.autograd.grad(value, q)[0] for value in (theirs, ours))
        # the official loss normalises once more, which takes the part along the embedding away
        first, second = (g - (g * q).sum(1, keepdim=True) * q for g in gradients)
        apart = max(abs(float(theirs - ours)), float((first - second).abs().max()))
        yield f"loss, {name}", f"{float(theirs):.5f}", f"{float(ours):.5f}, apart {apart:.1e} at most", apart < 1e-5


def schedules(clone: Clone) -> Iterator[Row]:
    """Learning rates at the beginning of an epoch; ours falls within it too."""
    adjust, optimiser = clone.get("utils", "adjust_learning_rate"), SimpleNamespace(param_groups=[{"lr": 0.0}])
    for name, whole, first, config in (
        ("step 3", 12, 0, TrainingConfig(epochs=12)),
        ("step 4", 28, 12, TrainingConfig(epochs=16, epochs_before=12)),
        ("step 5 at 0 %", 40, 6, TrainingConfig(epochs=34, epochs_before=6)),
    ):
        theirs = [1e4 * adjust(optimiser, first + epoch, lr=1e-4, total_epoch=whole) for epoch in range(config.epochs)]
        ours = [1e4 * learning_rate(config, epoch) for epoch in range(config.epochs)]
        shown = (f"{v[0]:.3f}, {v[len(v) // 2]:.3f}, {v[-1]:.3f}" for v in (theirs, ours))
        same = bool(np.allclose(theirs, ours))
        yield f"learning rate x 10^4, {name}: first, middle, last epoch", *shown, same


def selection(clone: Clone) -> Iterator[Row]:
    """What `train` takes in an epoch, from so many given labels and so many found by the mining before it."""
    official_train = clone.get("train_crossview_sat", "train")
    for when, ratio, found in (
        ("epochs 0 and 5, 0 %", 0.0, 0), ("epochs 0 and 5, 10 %", 0.1, 0), ("epoch 6, few labels", 0.0, 30),
        ("epoch 6, 10 % and few", 0.1, 100), ("epoch 20, many labels", 0.0, 300),
    ):  # fmt: skip
        given, order = int(N * ratio), np.arange(N)
        order[given:] = random.Random(1).sample(range(given, N), N - given)  # the official data set is shuffled
        labels = {given + i: int(np.argsort(order)[given + i]) for i in range(found)}  # of ground images: their own
        theirs = official_rows(official_train, order, ratio, dict(labels))
        own = torch.full((N,), -1)
        own[list(labels)] = torch.tensor(list(labels), dtype=torch.int64)
        mined = pseudo_labels.PseudoLabels(own, torch.zeros(N), own >= 0, torch.zeros(N) > 0)
        mixed = pseudo_labels.mix_given(mined, pseudo_labels.given_subset(torch.arange(N), ratio, seed=None))
        ours: Rows = []
        if mixed.count:
            pairs = pseudo_labels.epoch_items(mixed, N, torch.Generator().manual_seed(0))
            ours = list(zip(*(value.tolist() for value in vars(pairs).values()), strict=True))
        same = {row for row in theirs if row[2]} == {row for row in ours if row[2]}
        yield f"rows of {when}: the matched pairs must be the same", described(theirs), described(ours), same


def described(rows: Rows) -> str:
    """Rows with a pair, and beside the others how many random images there are that belong to a label."""
    matched, others = [row for row in rows if row[2]], [row[1] for row in rows if not row[2]]
    taken = sum(image in {row[1] for row in matched} for image in others)
    pairs = f"{len(matched)} rows of {len(set(matched))} pairs"
    return f"{pairs}; {len(others)} unmatched, {taken} of their images have a label" if others else pairs


def official_rows(train: Callable[..., None], order: np.ndarray, ratio: float, pseudo: dict[int, int]) -> Rows:
    """What the official `train` feeds to its model in an epoch."""

    class Pairs(torch.utils.data.Dataset[Any]):
        shuffle_samples, gt_ratio = order, ratio

        def __len__(self) -> int:
            return N

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
            return torch.tensor([index]), torch.tensor([int(self.shuffle_samples[index])]), int(index)

    class Model:
        train = staticmethod(lambda: None)
        __call__ = staticmethod(lambda im_q, im_k: (im_q, im_k))

    rows: Rows = []

    def criterion(ground: Tensor, satellite: Tensor, GT: np.ndarray, label_smoothing: float) -> Tensor:
        rows.extend(zip(ground[:, 0].tolist(), satellite[:, 0].tolist(), GT.tolist(), strict=True))
        return nn.Parameter(torch.zeros(()))

    loader = torch.utils.data.DataLoader(Pairs(), batch_size=10, shuffle=True, drop_last=True)
    arguments = SimpleNamespace(
        gpu=None, seed=0, labeled_ratio=0.4, distributed=False, lr=1e-4, epochs=40, print_freq=9
    )
    try:
        train(loader, Model(), criterion, torch.optim.SGD([nn.Parameter(torch.zeros(1))]), 6, arguments, pseudo=pseudo)
    except ValueError as error:  # torch's sampler of one process, over nothing; that of several gives nothing
        if "num_samples" not in str(error):
            raise
    return rows


# ------------------------------------------------------------------------------------------------------- Sample4Geo


def one_percent(clone: Clone) -> Iterator[Row]:
    """R@1 % on University-1652's 701 queries and 951 tiles, whose official form rounds and counts from 0."""
    if not hasattr(np, "in1d"):  # numpy 2.4 dropped the name
        setattr(np, "in1d", np.isin)  # noqa: B010 - mypy knows of no such name
    query, tile = torch.randn(701, 16), torch.randn(951, 16)
    tile[:701] += query / 2
    evaluate = clone.get("sample4geo.evaluate.university", "eval_query")
    curve = sum(evaluate(q, i, tile, np.arange(951))[1].double() for i, q in enumerate(query)) / 7.01
    pairs = torch.arange(701)[:, None].expand(-1, 2)
    ours = retrieval_measures(query, tile, pairs, ks=(1, 5, 11))
    theirs = f"{float(curve[0]):.2f}, {float(curve[4]):.2f}, {float(curve[10]):.2f}"
    same = abs(ours["r_at_11"] - float(curve[10])) < 0.01
    yield "University-1652: R@1, 5, 11", theirs, ", ".join(f"{ours[f'r_at_{k}']:.2f}" for k in (1, 5, 11)), same
    yield "University-1652: R@1 %", f"{float(curve[round(9.51)]):.2f}", f"{ours['r_at_1_percent']:.2f}", None


CHECKS = {"UCVGL": (safa, loss, schedules, selection, transforms), "Sample4Geo": (one_percent,)}


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in CHECKS:
        parser.add_argument(
            REPOSITORIES[name].argument, type=Path, dest=name, help=f"a clone of {REPOSITORIES[name].url}"
        )
    asked, wrong = vars(parser.parse_args(arguments)), False
    print("| compared | official | ours | equal |\n|---|---|---|---|")
    for name, checks in CHECKS.items():
        if asked[name] is None:
            continue
        check_clone(name, asked[name])
        clone = Clone(asked[name])
        for check in checks:
            torch.manual_seed(0)
            random.seed(0)
            try:
                rows = list(check(clone))
            except (CannotRun, ImportError, AttributeError) as error:
                rows = [(check.__name__, in_words(error), "", False)]
            for what, theirs, ours, equal in rows:
                verdict = {True: "yes", False: "no", None: "yes" if theirs == ours else "see parity.md"}[equal]
                print(f"| {name}: {what} | {theirs} | {ours} | {verdict} |")
                wrong |= equal is False
        clone.close()
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
