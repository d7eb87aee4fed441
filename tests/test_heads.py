"""Heads: the layers and the momentum encoder against their formulas, the queue against a list."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from toy_sets import generator

from ucvgl.heads import Queue, momentum_encoder, predictor, projector


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


@pytest.mark.parametrize("head", [projector(4, 3, 2), predictor(4, 3)])
def test_heads_of_two_layers_are_the_formula(head):
    first, norm, _, last = head
    norm.weight.data, norm.bias.data = randn(3, seed=1), randn(3, seed=2)
    x = randn(6, 4)
    h = x @ first.weight.T
    for mean, variance, training in ((h.mean(0), h.var(0, correction=0), True), (torch.zeros(3), torch.ones(3), False)):
        normed = (h - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias
        expected = normed.clamp(min=0) @ last.weight.T + last.bias
        torch.testing.assert_close(copy.deepcopy(head).train(training)(x), expected)


@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
def test_an_update_is_the_moving_average_from_the_first_step_on(momentum):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    ema = momentum_encoder(model, momentum)
    expected = [p.detach().clone() for p in model.parameters()]
    for step in range(3):
        with torch.no_grad():
            for number, p in enumerate(model.parameters()):
                p += randn(*p.shape, seed=10 * step + number)
        ema.update(model)
        now = [p.detach() for p in model.parameters()]
        expected = [momentum * e + (1 - momentum) * p for e, p in zip(expected, now, strict=True)]
        torch.testing.assert_close([p.detach() for p in ema.parameters()], expected)


@given(st.integers(1, 7), st.lists(st.integers(0, 17), max_size=8))
def test_the_queue_holds_the_last_keys(size, batches):
    queue, everything, first = Queue(size, 3, 7), [], 0
    for count in batches:
        keys, items = randn(count, 3, seed=first), torch.arange(first, first + count)
        queue.push(keys, items)
        everything += list(zip(items.tolist(), F.normalize(keys, dim=1), strict=True))
        first += count
        last = everything[-size:]
        assert sorted(queue.items[queue.items >= 0].tolist()) == [item for item, _ in last]
        for item, key in last:  # in a ring: key number n stands at entry n % size
            assert int(queue.items[item % size]) == item
            torch.testing.assert_close(queue.keys[item % size], key)
    assert int(queue.pushed) == first
