"""The self-supervised losses against lightly's, in value and gradient; where the definitions differ, how they relate.

lightly has none with left-out negatives, nor a triplet loss: tests/test_ssl_losses.py holds those against loops.
"""

import pytest
import torch
from toy_sets import randn

from ucvgl import ssl_losses as s
from ucvgl.heads import Queue

lightly = pytest.importorskip("lightly.loss", reason="lightly is absent: it is in the extra `test`")

BATCHES = pytest.mark.parametrize(("items", "dims", "scale"), [(2, 3, 1.0), (16, 8, 0.3), (24, 5, 30.0), (5, 32, 1.0)])


def batch(items, dims, scale, count=2):
    """Embeddings that are neither centred nor of unit length."""
    return [(scale * randn(items, dims, seed=seed) + 0.2).requires_grad_() for seed in range(count)]


def value_and_gradients(loss, inputs):
    value = loss(*inputs)
    return value, torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)


def mean_of_negative_cosines(p1, z2, p2, z1):
    cosine = lightly.NegativeCosineSimilarity()
    return 0.5 * (cosine(p1, z2.detach()) + cosine(p2, z1.detach()))


CASES = {  # ours, theirs, how many embeddings they compare
    "NT-Xent": (lambda a, b: s.nt_xent(a, b, 0.07), lightly.NTXentLoss(0.07), 2),
    "SimSiam": (s.simsiam, mean_of_negative_cosines, 4),
    # the paper's squared distance is 2 - 2 cos and both directions are added; lightly's examples take the mean of the -cos
    "BYOL": (
        lambda p1, t2, p2, t1: s.byol(p1, t2) + s.byol(p2, t1),
        lambda *p: 4 + 4 * mean_of_negative_cosines(*p),
        4,
    ),
    "Barlow Twins": (s.barlow_twins, lightly.BarlowTwinsLoss(lambda_param=0.0051), 2),
    "VICReg": (s.vicreg, lightly.VICRegLoss(), 2),
    "VICReg, other weights": (lambda a, b: s.vicreg(a, b, 10.0, 2.0, 0.5), lightly.VICRegLoss(10.0, 2.0, 0.5), 2),
}


@BATCHES
@pytest.mark.parametrize(("ours", "theirs", "count"), CASES.values(), ids=CASES)
def test_value_and_gradients_are_theirs(ours, theirs, count, items, dims, scale):
    inputs = batch(items, dims, scale, count)
    torch.testing.assert_close(value_and_gradients(ours, inputs), value_and_gradients(theirs, inputs))


def test_moco_and_its_queue_are_theirs_over_many_batches():
    """Once the queue is full: lightly's begins with random vectors, ours empty. The batch divides the size; otherwise
    lightly drops the end of the batch that reaches the end of the bank, and ours goes on at the beginning."""
    theirs = lightly.NTXentLoss(0.2, memory_bank_size=(12, 6))
    queue = Queue(12, 6, set_size=100)
    queue.push(theirs.memory_bank.bank, torch.arange(12))
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):  # 2 2/3 times round
        query, key = (torch.randn(4, 6, generator=generator) for _ in range(2))
        ours = s.moco(query, key, queue.keys.clone(), 0.2)
        torch.testing.assert_close(ours, theirs(query.requires_grad_(), key))
        queue.push(key, torch.arange(4))
        torch.testing.assert_close(queue.keys, theirs.memory_bank.bank)
