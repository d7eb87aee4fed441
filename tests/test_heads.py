"""Heads: the layers and the momentum encoder against their formulas, the queue against a list."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from toy_sets import randn

from ucvgl.heads import Learner, Queue, SslLoss


def test_the_momentum_encoder_is_the_moving_average_from_the_first_step_on():
    encoder = nn.Linear(3, 4)
    encoder.dim = 4
    model = Learner(encoder, SslLoss("byol", 2, 5, 6, momentum=0.9), 0, 7)
    learns = [*model.encoder.parameters(), *model.projector.parameters()]
    expected = [p.detach().clone() for p in learns]
    for step in range(3):
        with torch.no_grad():
            for number, p in enumerate(learns):
                p += randn(*p.shape, seed=10 * step + number, dtype=torch.float32)
        model.follow()
        expected = [0.9 * e + 0.1 * p.detach() for e, p in zip(expected, learns, strict=True)]
        torch.testing.assert_close([p.detach() for p in model.momentum.parameters()], expected)


@given(st.integers(1, 7), st.lists(st.integers(0, 17), max_size=8))
def test_the_queue_holds_the_last_keys(size, batches):
    queue, everything, first = Queue(size, 3, 7), [], 0
    for count in batches:
        keys, items = randn(count, 3, seed=first, dtype=torch.float32), torch.arange(first, first + count)
        queue.push(keys, items)
        everything += list(zip(items.tolist(), F.normalize(keys, dim=1), strict=True))
        first += count
        last = everything[-size:]
        assert sorted(queue.items[queue.items >= 0].tolist()) == [item for item, _ in last]
        for item, key in last:  # in a ring: key number n stands at entry n % size
            assert int(queue.items[item % size]) == item
            torch.testing.assert_close(queue.keys[item % size], key)
    assert int(queue.pushed) == first
