"""The momentum copy against its formula, batch norms, checkpoints; BYOL's schedule; the queue against a list."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from ucvgl import checkpoints
from ucvgl.errors import InputError
from ucvgl.heads import Queue, byol_momentum, momentum_copy, update
from ucvgl.ssl_losses import moco


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def drift(model, seed):
    """What a step of the optimiser and a forward pass in training would do."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p += torch.randn(p.shape, generator=generator)
    model(torch.randn(8, 3, generator=generator))


# the copy


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.999, 1.0])
def test_update_is_the_moving_average_from_the_first_step_on(momentum):
    model = network()
    ema = momentum_copy(model, momentum)
    expected = [p.detach().clone() for p in model.parameters()]
    for step in range(3):
        drift(model, step)
        update(ema, model)
        expected = [
            momentum * e + (1 - momentum) * p.detach() for e, p in zip(expected, model.parameters(), strict=True)
        ]
        for ours, theirs in zip(ema.parameters(), expected, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_the_copy_is_the_models_equal_and_no_part_of_it():
    model = network().eval()
    x = randn(5, 3)
    ema = momentum_copy(model)
    assert ema.training
    assert ema.module[1].training  # its batch norm goes by the batch
    torch.testing.assert_close(ema(x), copy.deepcopy(model).train()(x))
    assert not ema(x).requires_grad
    assert not any(p.requires_grad for p in ema.parameters())
    assert all(p.requires_grad for p in model.parameters())
    before = [p.clone() for p in model.parameters()]
    with torch.no_grad():
        for p in ema.parameters():
            p.zero_()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_buffers_are_copied_and_not_averaged():
    model = network()
    ema = momentum_copy(model, 0.9)
    drift(model, 0)
    ema(randn(6, 3, seed=3))  # the copy's own statistics move, and are written over
    update(ema, model)
    for (name, ours), theirs in zip(ema.module.named_buffers(), model.buffers(), strict=True):
        assert torch.equal(ours, theirs), name
    assert not torch.equal(ema.module[0].weight, model[0].weight)


def test_a_new_momentum_holds_from_then_on():
    model = network()
    ema = momentum_copy(model, 1.0)
    start = model[0].weight.detach().clone()
    drift(model, 0)
    update(ema, model)
    assert torch.equal(ema.module[0].weight, start)
    update(ema, model, 0.25)
    torch.testing.assert_close(ema.module[0].weight, 0.25 * start + 0.75 * model[0].weight.detach())
    update(ema, model)
    torch.testing.assert_close(ema.module[0].weight, start / 16 + 15 / 16 * model[0].weight.detach())


def test_a_frozen_part_and_shared_weights_are_followed_too():
    shared = nn.Linear(3, 3)
    shared.bias.requires_grad_(False)
    model = nn.ModuleDict({"ground": shared, "satellite": shared})
    ema = momentum_copy(model, 0.5)
    assert ema.module["ground"] is ema.module["satellite"]
    before = shared.weight.detach().clone()
    with torch.no_grad():
        shared.weight += 1
        shared.bias += 1
    update(ema, model)
    torch.testing.assert_close(ema.module["ground"].weight.detach(), before + 0.5)  # moved once, not twice


def test_the_copy_survives_a_checkpoint(tmp_path):
    model = network()
    ema = momentum_copy(model, 0.9)
    for step in range(2):
        drift(model, step)
        update(ema, model)
    checkpoints.write(tmp_path / "c.safetensors", ema.state_dict(), {})
    _, state = checkpoints.read(tmp_path / "c.safetensors")
    resumed = momentum_copy(network(seed=5), 0.9)
    resumed.load_state_dict(state)
    drift(model, 9)
    for one in (ema, resumed):
        update(one, model)
    for name, value in ema.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_bad_input_of_the_copy():
    model = network()
    for momentum in (-0.1, 1.1, math.nan):
        with pytest.raises(InputError, match="momentum_copy: momentum"):
            momentum_copy(model, momentum)
        with pytest.raises(InputError, match="update: momentum"):
            update(momentum_copy(model), model, momentum)
    for other in (model[0], nn.Linear(7, 7), nn.Sequential(model, nn.Linear(2, 2))):
        with pytest.raises(InputError, match="update: model"):
            update(momentum_copy(model), other)


# BYOL's schedule


def test_byol_momentum_rises_from_base_to_1():
    assert byol_momentum(0.99, 0) == pytest.approx(0.99)
    assert byol_momentum(0.99, 0.5) == pytest.approx(0.995)
    assert byol_momentum(0.99, 1) == 1
    assert byol_momentum(0.996, 0.25) == pytest.approx(1 - 0.004 * (math.sqrt(0.5) + 1) / 2)
    assert byol_momentum(1, 0.3) == 1


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_byol_momentum_stays_between_and_never_falls(base, one, two):
    early, late = byol_momentum(base, min(one, two)), byol_momentum(base, max(one, two))
    assert base - 1e-12 <= early <= late + 1e-12 <= 1 + 2e-12


def test_bad_input_of_the_schedule():
    for base, progress in ((-0.1, 0), (1.1, 0), (0.9, -0.1), (0.9, 1.1), (0.9, math.nan)):
        with pytest.raises(InputError, match="byol_momentum"):
            byol_momentum(base, progress)


# the queue


@given(st.integers(1, 7), st.lists(st.integers(0, 17), max_size=8))
def test_the_queue_holds_the_last_keys(size, batches):
    queue, everything, first = Queue(size, 3), [], 0
    for count in batches:
        keys, items = randn(count, 3, seed=first), torch.arange(first, first + count)
        queue.push(keys, items)
        everything += list(zip(items.tolist(), F.normalize(keys, dim=1), strict=True))
        first += count
        held, places, empty = queue.negatives()
        kept = everything[-size:]
        assert int((~empty).sum()) == len(kept)
        assert sorted(places[~empty].tolist()) == [item for item, _ in kept]
        for item, key in kept:
            # in a ring: key number n stands at entry n % size
            assert int(places[item % size]) == item
            torch.testing.assert_close(held[item % size], key)
    assert int(queue.pushed) == first
    assert len(queue) == size


def test_an_empty_queue_has_no_random_negatives():
    queue = Queue(4, 3)
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
    some, full = (
        moco(query, randn(2, 3, seed=1), k, 0.07, m) for k, m in ((keys, empty.expand(2, 4)), (keys[:1], None))
    )
    torch.testing.assert_close(some, full)
    assert float(some.detach()) > 0


def test_a_push_before_the_backward_pass_changes_no_gradient():
    """The loop computes the loss, in which a task pushes, and goes backwards after that."""
    gradients = []
    for early in (True, False):
        queue = Queue(4, 3)
        queue.push(randn(4, 3, seed=1), torch.arange(4))
        query = randn(2, 3).requires_grad_()
        keys, _, empty = queue.negatives()
        loss = moco(query, randn(2, 3, seed=2), keys, 0.1, empty.expand(2, 4))
        if early:
            queue.push(randn(3, 3, seed=3), torch.arange(3))
        loss.backward()
        gradients.append(query.grad)
    assert torch.equal(*gradients)


def test_places_within_25_m_are_no_negatives():
    east = torch.tensor([0.0, 10, 100, 120, 500], dtype=torch.float64)  # metres, of items 0-4
    queue = Queue(6, 3, set_size=6)
    queue.push(randn(4, 3, seed=1), torch.tensor([0, 2, 3, 4]))
    keys, items, empty = queue.negatives()
    batch = torch.tensor([1, 3])
    near = (east[batch, None] - east[items]).abs() <= 25
    skip = near | empty
    assert skip.tolist() == [[True, False, False, False, True, True], [False, True, True, False, True, True]]
    query, key = randn(2, 3, seed=2), randn(2, 3, seed=3)
    one, two = moco(query[:1], key[:1], keys[[1, 2, 3]], 0.1), moco(query[1:], key[1:], keys[[0, 3]], 0.1)
    torch.testing.assert_close(moco(query, key, keys, 0.1, skip), (one + two) / 2)


def test_keys_are_made_unit_vectors_without_a_gradient():
    queue = Queue(3, 2)
    keys = torch.tensor([[3.0, 4], [0, 0]], dtype=torch.float64, requires_grad=True)
    queue.push(keys, torch.tensor([5, 6]))
    assert queue.keys.dtype == torch.float32
    assert not queue.keys.requires_grad
    torch.testing.assert_close(queue.keys[:2], torch.tensor([[0.6, 0.8], [0, 0]]))
    assert not list(queue.parameters())


def test_the_queue_survives_a_checkpoint(tmp_path):
    queue = Queue(5, 3)
    for n in range(2):
        queue.push(randn(4, 3, seed=n), torch.arange(4 * n, 4 * n + 4))
    checkpoints.write(tmp_path / "c.safetensors", checkpoints.weights_of(queue), {})
    _, state = checkpoints.read(tmp_path / "c.safetensors")
    by_torch, by_loop = Queue(5, 3), Queue(5, 3)
    by_torch.load_state_dict(state)
    checkpoints.load_weights(tmp_path, by_loop, state)
    for one in (queue, by_torch, by_loop):
        one.push(randn(3, 3, seed=9), torch.arange(3))
    for name, value in queue.state_dict().items():
        assert torch.equal(value, by_torch.state_dict()[name]), name
        assert torch.equal(value, by_loop.state_dict()[name]), name
    assert int(queue.pushed) == 11


def test_bad_input_of_the_queue():
    for size, dim in ((0, 3), (3, 0)):
        with pytest.raises(InputError, match="Queue"):
            Queue(size, dim)
    with pytest.raises(InputError, match="at most the 9 items"):
        Queue(10, 3, set_size=9)
    assert len(Queue(9, 3, set_size=9)) == 9
    queue = Queue(4, 3)
    for keys in (randn(2, 4), randn(3)):
        with pytest.raises(InputError, match="push: keys"):
            queue.push(keys, torch.arange(len(keys)))
    for items in (torch.arange(3), torch.arange(2.0), torch.arange(2)[:, None]):
        with pytest.raises(InputError, match="push: items"):
            queue.push(randn(2, 3), items)
