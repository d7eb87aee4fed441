"""The self-supervised losses against lightly's, in value and gradient; where the definitions differ, how they relate.

lightly has no loss of its own for BYOL and SimSiam (its examples add two negative cosines), and none with left-out
negatives, nor a triplet loss: tests/test_ssl_losses.py holds those against loops.
"""

import pytest
import torch

from ucvgl import ssl_losses as s
from ucvgl.heads import Queue

lightly = pytest.importorskip("lightly.loss", reason="lightly is absent: it is in the extra `test`")

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
BATCHES = pytest.mark.parametrize(("items", "dims", "scale"), [(2, 3, 1.0), (16, 8, 0.3), (24, 5, 30.0), (5, 32, 1.0)])


def batch(items, dims, scale=1.0, dtype=torch.float64, count=2):
    """Embeddings that are neither centred nor of unit length."""
    generator = torch.Generator().manual_seed(items * dims)
    return [
        (scale * torch.randn(items, dims, generator=generator, dtype=dtype) + 0.2).requires_grad_()
        for _ in range(count)
    ]


def value_and_gradients(loss, inputs):
    value = loss(*inputs)
    return value, torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)


def assert_same(ours, theirs, inputs):
    torch.testing.assert_close(value_and_gradients(ours, inputs), value_and_gradients(theirs, inputs))


@DTYPES
@BATCHES
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_nt_xent_is_theirs(items, dims, scale, dtype, temperature):
    theirs = lightly.NTXentLoss(temperature)
    assert_same(lambda a, b: s.nt_xent(a, b, temperature), theirs, batch(items, dims, scale, dtype))


@DTYPES
@BATCHES
def test_moco_is_their_loss_with_a_memory_bank_and_detached_keys(items, dims, scale, dtype):
    query, key = batch(items, dims, scale, dtype)
    bank = lightly.NTXentLoss(0.07, memory_bank_size=(20, dims)).to(dtype)
    queue = bank.memory_bank.bank.clone()  # theirs is renewed by every loss of a query with a gradient
    # lightly leaves it to the caller that keys get no gradient: its own loss sends one into them
    assert value_and_gradients(bank, [query, key])[1][1].abs().max() > 0
    bank.memory_bank.bank = queue.clone()
    assert_same(lambda q, k: s.moco(q, k, queue, 0.07), lambda q, k: bank(q, k.detach()), [query, key])


def test_moco_and_its_queue_are_theirs_over_many_batches():
    """Once the queue is full: lightly's begins with random vectors, ours empty. The batch divides the size; otherwise
    lightly drops the end of the batch that reaches the end of the bank, and ours goes on at the beginning."""
    theirs = lightly.NTXentLoss(0.2, memory_bank_size=(12, 6))
    queue = Queue(12, 6, set_size=100)
    queue.push(theirs.memory_bank.bank, torch.arange(12))
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):  # 2 2/3 times round
        query, key = (torch.randn(4, 6, generator=generator) for _ in range(2))
        ours = s.moco(query, key, queue.negatives()[0], 0.2)
        torch.testing.assert_close(ours, theirs(query.requires_grad_(), key))
        queue.push(key, torch.arange(4))
        torch.testing.assert_close(queue.keys, theirs.memory_bank.bank)


@DTYPES
@BATCHES
def test_simsiam_is_the_mean_of_their_two_negative_cosines(items, dims, scale, dtype):
    cosine = lightly.NegativeCosineSimilarity()

    def theirs(p1, z2, p2, z1):
        return 0.5 * (cosine(p1, z2.detach()) + cosine(p2, z1.detach()))

    assert_same(s.simsiam, theirs, batch(items, dims, scale, dtype, count=4))


@DTYPES
@BATCHES
def test_byol_is_4_and_four_times_the_mean_of_their_two_negative_cosines(items, dims, scale, dtype):
    """The paper's squared distance is 2 - 2 cos and both directions are added; lightly's examples take the mean of the
    -cos. The gradient is four times theirs: a learning rate means another thing."""
    cosine = lightly.NegativeCosineSimilarity()

    def ours(p1, t2, p2, t1):
        return s.byol(p1, t2) + s.byol(p2, t1)

    def theirs(p1, t2, p2, t1):
        return 4 + 4 * 0.5 * (cosine(p1, t2.detach()) + cosine(p2, t1.detach()))

    assert_same(ours, theirs, batch(items, dims, scale, dtype, count=4))


@DTYPES
@BATCHES
def test_barlow_twins_is_theirs(items, dims, scale, dtype):
    """The same eps of 1e-5 and biased variance: theirs is batch normalisation itself."""
    assert_same(s.barlow_twins, lightly.BarlowTwinsLoss(lambda_param=0.0051), batch(items, dims, scale, dtype))


@DTYPES
@BATCHES
def test_vicreg_is_theirs(items, dims, scale, dtype):
    """With the weights of both by default, 25, 25 and 1, and with others; eps 1e-4 and unbiased variance in both."""
    inputs = batch(items, dims, scale, dtype)
    assert_same(s.vicreg, lightly.VICRegLoss(), inputs)
    theirs = lightly.VICRegLoss(lambda_param=10.0, mu_param=2.0, nu_param=0.5)
    assert_same(lambda a, b: s.vicreg(a, b, 10.0, 2.0, 0.5), theirs, inputs)
