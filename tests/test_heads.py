"""Heads: layers and shapes; the momentum encoder against its formula; the queue against a list; all from checkpoints."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from ucvgl.errors import InputError
from ucvgl.heads import Predictor, Projector, Queue, momentum_encoder
from ucvgl.ssl_losses import moco


def made(kind, *sizes, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(*sizes)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# projector and predictor

HIDDEN = [nn.Linear, nn.BatchNorm1d, nn.ReLU]


@pytest.mark.parametrize(("layers", "count"), [(0, 0), (1, 70), (2, 60 + 20 + 110), (3, 60 + 20 + 100 + 20 + 110)])
def test_the_layers_of_a_projector(layers, count):
    head, x = made(Projector, 6, 10, layers), randn(5, 6)
    assert [type(part) for part in head] == (HIDDEN * (layers - 1) + [nn.Linear] if layers else [])
    assert head(x).shape == (5, head.width) == (5, 10 if layers else 6)
    assert sum(p.numel() for p in head.parameters()) == count
    if not layers:
        assert head(x) is x


def test_a_projector_of_two_layers_is_the_formula():
    head = made(Projector, 4, 3, 2)
    first, norm, _, last = head
    norm.weight.data, norm.bias.data = randn(3, seed=1), randn(3, seed=2)
    x = randn(6, 4)
    h = x @ first.weight.T
    for mean, variance, training in ((h.mean(0), h.var(0, correction=0), True), (torch.zeros(3), torch.ones(3), False)):
        normed = (h - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias
        expected = normed.clamp(min=0) @ last.weight.T + last.bias
        torch.testing.assert_close(copy.deepcopy(head).train(training)(x), expected)


def test_a_predictor_is_a_bottleneck_that_keeps_the_width():
    head = made(Predictor, 8, 2)
    assert [type(part) for part in head] == [*HIDDEN, nn.Linear]
    assert [(p.in_features, p.out_features) for p in head if isinstance(p, nn.Linear)] == [(8, 2), (2, 8)]
    assert head(randn(3, 8)).shape == (3, 8)


# the momentum encoder


def network(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def drift(model, seed):
    """What a step of the optimiser and a forward pass in training would do."""
    with torch.no_grad():
        for number, p in enumerate(model.parameters()):
            p += randn(*p.shape, seed=10 * seed + number)
    model(randn(8, 3, seed=seed))


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.999, 1.0])
def test_an_update_is_the_moving_average_from_the_first_step_on(momentum):
    model = network()
    ema = momentum_encoder(model, momentum)
    expected = [p.detach().clone() for p in model.parameters()]
    for step in range(3):
        drift(model, step)
        ema.update(model)
        now = [p.detach() for p in model.parameters()]
        expected = [momentum * e + (1 - momentum) * p for e, p in zip(expected, now, strict=True)]
        torch.testing.assert_close([p.detach() for p in ema.parameters()], expected)


def test_a_momentum_encoder_starts_as_the_model_and_trains_none_of_it():
    model, x = network().eval(), randn(5, 3)
    ema = momentum_encoder(model)
    assert ema.module[1].training  # its batch norm goes by the batch
    torch.testing.assert_close(ema(x), copy.deepcopy(model).train()(x))
    assert not any(p.requires_grad for p in ema.parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert not {p.data_ptr() for p in ema.parameters()} & {p.data_ptr() for p in model.parameters()}


def test_buffers_are_copied_and_not_averaged():
    model = network()
    ema = momentum_encoder(model, 0.9)
    drift(model, 0)
    ema(randn(6, 3, seed=3))  # its own statistics move, and are written over
    ema.update(model)
    for (name, ours), theirs in zip(ema.module.named_buffers(), model.buffers(), strict=True):
        assert torch.equal(ours, theirs), name
    assert not torch.equal(ema.module[0].weight, model[0].weight)


# the queue


@given(st.integers(1, 7), st.lists(st.integers(0, 17), max_size=8))
def test_the_queue_holds_the_last_keys(size, batches):
    queue, everything, first = Queue(size, 3, 7), [], 0
    for count in batches:
        keys, items = randn(count, 3, seed=first), torch.arange(first, first + count)
        queue.push(keys, items)
        everything += list(zip(items.tolist(), F.normalize(keys, dim=1), strict=True))
        first += count
        held, places, empty = queue.negatives()
        last = everything[-size:]
        assert sorted(places[~empty].tolist()) == [item for item, _ in last]
        for item, key in last:  # in a ring: key number n stands at entry n % size
            assert int(places[item % size]) == item
            torch.testing.assert_close(held[item % size], key)
    assert int(queue.pushed) == first


def test_an_empty_queue_has_no_random_negatives():
    queue = Queue(4, 3, 9)
    keys, items, empty = queue.negatives()
    assert empty.all()
    assert not keys.any()
    assert items.tolist() == [-1] * 4
    query = randn(2, 3).requires_grad_()
    loss = moco(query, randn(2, 3, seed=1), keys, 0.07, empty.expand(2, 4))
    assert float(loss.detach()) == 0
    loss.backward()
    assert not query.grad.any()
    queue.push(randn(1, 3, seed=2), torch.tensor([7]))
    keys, _, empty = queue.negatives()
    assert empty.tolist() == [False, True, True, True]
    some = moco(query, randn(2, 3, seed=1), keys, 0.07, empty.expand(2, 4))
    torch.testing.assert_close(some, moco(query, randn(2, 3, seed=1), keys[:1], 0.07))


def test_a_push_before_the_backward_pass_changes_no_gradient():
    """The loop computes the loss, in which a task pushes, and goes backwards after that."""
    gradients = []
    for early in (True, False):
        queue = Queue(4, 3, 4)
        queue.push(randn(4, 3, seed=1), torch.arange(4))
        query = randn(2, 3).requires_grad_()
        keys, _, empty = queue.negatives()
        loss = moco(query, randn(2, 3, seed=2), keys, 0.1, empty.expand(2, 4))
        if early:
            queue.push(randn(3, 3, seed=3), torch.arange(3))
        loss.backward()
        gradients.append(query.grad)
    assert torch.equal(*gradients)


def test_keys_are_made_unit_vectors_without_a_gradient():
    queue = Queue(3, 2, 3)
    queue.push(torch.tensor([[3.0, 4], [0, 0]], dtype=torch.float64, requires_grad=True), torch.tensor([5, 6]))
    assert queue.keys.dtype == torch.float32
    assert not queue.keys.requires_grad
    torch.testing.assert_close(queue.keys[:2], torch.tensor([[0.6, 0.8], [0, 0]]))
    resumed = Queue(3, 2, 3)
    resumed.load_state_dict(queue.state_dict())
    for one in (queue, resumed):
        one.push(randn(2, 2), torch.arange(2))
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in queue.state_dict().items())
    assert resumed.items.tolist() == [1, 6, 0]


def test_a_queue_is_no_longer_than_the_training_set():
    Queue(9, 3, 9)
    for size in (0, 10):
        with pytest.raises(InputError, match="1 to 9, the items of the training set"):
            Queue(size, 3, 9)
