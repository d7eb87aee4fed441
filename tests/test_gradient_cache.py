"""Gradient caching: the gradient of the whole batch, whatever the chunk; dropout, batch norm, frozen parts."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ucvgl.errors import InputError
from ucvgl.training import backward, cached_backward

ROWS = 7


class Two(nn.Module):
    """Two small encoders and a temperature; float64, so that equal means equal to rounding."""

    def __init__(self, *between):
        super().__init__()
        torch.manual_seed(0)
        self.ground = nn.Sequential(nn.Linear(5, 8), *between, nn.GELU(), nn.Linear(8, 4))
        self.satellite = nn.Sequential(nn.Linear(6, 8), *between, nn.GELU(), nn.Linear(8, 4))
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.double()

    def forward(self, inputs):
        ground, satellite = inputs
        return F.normalize(self.ground(ground), dim=1), F.normalize(self.satellite(satellite), dim=1)

    def loss(self, embeddings):
        ground, satellite = embeddings
        return F.cross_entropy(self.scale.exp() * ground @ satellite.T, torch.arange(len(ground)))


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(ROWS, n, dtype=torch.float64, generator=generator) for n in (5, 6))


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal(one, two):
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("chunk", [1, 2, 3, 6, 7, 100])
def test_cached_equals_direct(inputs, chunk):
    direct, cached = Two(), Two()
    one = backward(direct, inputs, direct.loss)
    two = cached_backward(cached, inputs, cached.loss, chunk=chunk, model=cached)
    torch.testing.assert_close(one, two, rtol=1e-12, atol=0)
    assert not two.requires_grad
    assert len(gradients(direct)) == 9  # eight of the encoders, and the temperature
    assert_equal(gradients(direct), gradients(cached))


def test_no_more_than_a_chunk_is_embedded_at_a_time(inputs):
    model, seen = Two(), []

    def embed(part):
        seen.append((len(part[0]), torch.is_grad_enabled()))
        return model(part)

    cached_backward(embed, inputs, model.loss, chunk=3, model=model)
    assert seen == [(3, False), (3, False), (1, False), (3, True), (3, True), (1, True)]


def test_dropout_is_the_same_in_both_passes(inputs):
    """The oracle embeds the chunks with a graph in one pass, from the same random state."""
    one, two = Two(nn.Dropout(0.5)), Two(nn.Dropout(0.5))
    torch.manual_seed(7)
    parts = [one(tuple(value[start : start + 3] for value in inputs)) for start in (0, 3, 6)]
    loss = one.loss(tuple(torch.cat(part) for part in zip(*parts, strict=True)))
    loss.backward()
    oracle_next = torch.rand(3)
    torch.manual_seed(7)
    value = cached_backward(two, inputs, two.loss, chunk=3, model=two)
    assert torch.equal(torch.rand(3), oracle_next)  # and the generator stands where one pass would have left it
    torch.testing.assert_close(value, loss.detach(), rtol=1e-12, atol=0)
    assert_equal(gradients(one), gradients(two))
    torch.manual_seed(8)
    three = Two(nn.Dropout(0.5))
    torch.manual_seed(8)
    assert cached_backward(three, inputs, three.loss, chunk=3, model=three) != value  # dropout did something


def test_running_statistics_are_updated_once_a_chunk(inputs):
    one, two = Two(nn.BatchNorm1d(8)), Two(nn.BatchNorm1d(8))
    parts = [one(tuple(value[rows] for value in inputs)) for rows in (slice(0, 4), slice(4, 7))]
    one.loss(tuple(torch.cat(part) for part in zip(*parts, strict=True))).backward()
    cached_backward(two, inputs, two.loss, chunk=4, model=two)
    assert int(two.ground[1].num_batches_tracked) == 2 * 2  # `between` is one module in both encoders
    for name, value in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], value)
    assert two.ground[1].track_running_stats
    assert_equal(gradients(one), gradients(two))


def test_frozen_encoders_and_unused_outputs_are_passed_over(inputs):
    direct, cached = Two(), Two()
    for model in (direct, cached):
        model.satellite.requires_grad_(False)
    backward(direct, inputs, direct.loss)
    cached_backward(cached, inputs, cached.loss, chunk=2, model=cached)
    assert len(gradients(cached)) == 5
    assert_equal(gradients(direct), gradients(cached))
    unused = Two()
    cached_backward(unused, inputs, lambda e: e[0].square().sum() + e[0][:, 0].sum(), chunk=2, model=unused)
    assert all(name.startswith("ground") for name in gradients(unused))


def test_gradients_add_up_and_scale(inputs):
    direct, cached = Two(), Two()
    backward(direct, inputs, direct.loss)
    for _ in range(2):
        cached_backward(cached, inputs, cached.loss, lambda loss: loss * 4, chunk=2, model=cached)
    assert_equal({k: 8 * v for k, v in gradients(direct).items()}, gradients(cached))


def test_a_chunk_below_one_is_refused(inputs):
    model = Two()
    with pytest.raises(InputError, match="at least 1 image"):
        cached_backward(model, inputs, model.loss, chunk=0, model=model)
