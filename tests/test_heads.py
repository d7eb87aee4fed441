"""Heads: their layers and shapes, batches of one; NetVLAD against loops, its start from clusters; bad input."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from ucvgl.errors import InputError
from ucvgl.heads import NetVlad, Predictor, Projector, cluster_centres


def made(kind, *sizes, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(*sizes)


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# projector and predictor


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_projector_has_the_layers_asked_for(layers):
    head = made(Projector, 6, 10, layers)
    kinds = [type(part) for part in head.layers]
    hidden = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert kinds == (hidden * (layers - 1) + [nn.Linear] if layers else [])
    x = randn(5, 6)
    assert head(x).shape == (5, head.width)
    assert head.width == (10 if layers else 6)
    assert (
        sum(p.numel() for p in head.parameters())
        == {0: 0, 1: 70, 2: 60 + 20 + 110, 3: 60 + 20 + 100 + 20 + 110}[layers]
    )


def test_a_projector_without_layers_hands_on_what_it_gets():
    x = randn(1, 6)
    assert made(Projector, 6, 10, 0)(x) is x


def test_projector_of_two_layers_is_the_formula():
    head = made(Projector, 4, 3, 2)
    first, norm, _, last = head.layers
    norm.weight.data, norm.bias.data = randn(3, seed=1), randn(3, seed=2)
    x = randn(6, 4)
    h = x @ first.weight.T
    for centre, variance in ((h.mean(0), h.var(0, correction=0)), (torch.zeros(3), torch.ones(3))):
        normed = (h - centre) / (variance + norm.eps).sqrt() * norm.weight + norm.bias
        expected = normed.clamp(min=0) @ last.weight.T + last.bias
        fresh = made(Projector, 4, 3, 2)
        fresh.load_state_dict(head.state_dict())
        torch.testing.assert_close(fresh.train(bool(centre.any()))(x), expected)


def test_predictor_is_a_bottleneck_that_keeps_the_width():
    head = made(Predictor, 8, 2)
    assert [(p.in_features, p.out_features) for p in head.layers if isinstance(p, nn.Linear)] == [(8, 2), (2, 8)]
    assert [type(part) for part in head.layers] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert head(randn(3, 8)).shape == (3, 8)
    assert head.width == 8


@pytest.mark.parametrize("build", [lambda: made(Projector, 4, 3, 2), lambda: made(Predictor, 4, 3)])
def test_a_batch_of_one_is_refused_in_training_alone(build):
    head, one = build(), randn(1, 4)
    with pytest.raises(InputError, match="at least 2 rows in training"):
        head(one)
    torch.testing.assert_close(head.eval()(one), head(one.expand(2, 4))[:1])


def test_a_batch_of_one_passes_where_no_batch_norm_trains():
    assert made(Projector, 4, 3, 1)(randn(1, 4)).shape == (1, 3)
    frozen = made(Projector, 4, 3, 2)
    frozen.layers[1].eval()
    assert frozen(randn(1, 4)).shape == (1, 3)


def test_gradients_reach_every_parameter():
    x = randn(6, 4).requires_grad_()
    for head in (made(Projector, 4, 5, 3), made(Predictor, 4, 5)):
        head(x).square().sum().backward()
        assert all(p.grad.isfinite().all() for p in head.parameters())
        assert all(p.grad.abs().max() > 0 for p in head.parameters())
    assert x.grad.abs().max() > 0


def test_bad_input_of_heads():
    for sizes in ((0, 3, 1), (3, 0, 1), (3, 3, -1)):
        with pytest.raises(InputError, match="Projector"):
            made(Projector, *sizes)
    for sizes in ((0, 3), (3, 0)):
        with pytest.raises(InputError, match="Predictor"):
            made(Predictor, *sizes)
    for head in (made(Projector, 4, 3, 2), made(Projector, 4, 3, 0), made(Predictor, 4, 3)):
        for x in (randn(2, 5), randn(4), randn(2, 4, 1, 1)):
            with pytest.raises(InputError, match=r"\(B, 4\)"):
                head(x)


# NetVLAD


def by_loops(layer, features):
    weight, bias = layer.assign.weight[:, :, 0, 0].tolist(), layer.assign.bias.tolist()
    centres, out = layer.centres.tolist(), []
    for image in features.flatten(2).tolist():  # [dim][positions]
        sums = [[0.0] * layer.dim for _ in centres]
        for p in range(len(image[0])):
            x = [channel[p] for channel in image]
            length = math.sqrt(sum(v * v for v in x))
            x = [v / length for v in x]
            exponents = [
                math.exp(sum(a * b for a, b in zip(w, x, strict=True)) + b0) for w, b0 in zip(weight, bias, strict=True)
            ]
            for k, c in enumerate(centres):
                for d in range(layer.dim):
                    sums[k][d] += exponents[k] / sum(exponents) * (x[d] - c[d])
        row = []
        for s in sums:
            length = math.sqrt(sum(v * v for v in s))
            row += [v / length for v in s]
        length = math.sqrt(sum(v * v for v in row))
        out.append([v / length for v in row])
    return torch.tensor(out, dtype=torch.float64)


@given(
    st.integers(1, 3), st.integers(2, 4), st.integers(2, 5), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99)
)
def test_netvlad_is_the_formula(count, dim, clusters, height, width, seed):
    layer = made(NetVlad, dim, clusters, seed=seed).double()
    features = randn(count, dim, height, width, seed=seed, dtype=torch.float64)
    ours = layer(features)
    assert ours.shape == (count, layer.width) == (count, clusters * dim)
    torch.testing.assert_close(ours.detach(), by_loops(layer, features))


def test_netvlad_by_hand():
    # two positions, one on each centre's side, at right angles; assignment by the larger channel, nearly hard
    layer = made(NetVlad, 2, 2)
    layer.assign.weight.data = 100 * torch.eye(2)[:, :, None, None]
    layer.assign.bias.data.zero_()
    layer.centres.data = torch.tensor([[0.0, 0], [0, -1]])
    features = torch.tensor([[3.0, 0], [0, 5]])[None, :, :, None]  # unit vectors (1, 0) and (0, 1)
    # residuals (1, 0) and (0, 2), each normalised, then together
    torch.testing.assert_close(layer(features)[0], torch.tensor([1.0, 0, 0, 1]) / math.sqrt(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_netvlad_gives_unit_vectors_in_float32_under_autocast_too(dtype):
    layer, features = made(NetVlad, 8, 4), randn(3, 8, 5, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = layer(features.to(dtype))
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(ours, layer(features.to(dtype).float()))


def test_netvlad_does_not_mind_the_order_of_positions_nor_brightness():
    layer, features = made(NetVlad, 5, 3), randn(2, 5, 3, 4)
    moved = features.flatten(2)[:, :, torch.randperm(12, generator=torch.Generator().manual_seed(1))].view(2, 5, 4, 3)
    torch.testing.assert_close(layer(7 * moved), layer(features))


def test_gradients_of_netvlad():
    layer = made(NetVlad, 3, 2).double()
    assert torch.autograd.gradcheck(layer, randn(2, 3, 2, 2, dtype=torch.float64).requires_grad_())
    layer(randn(2, 3, 2, 2, dtype=torch.float64))[:, 0].sum().backward()
    assert all(p.grad.abs().max() > 0 for p in layer.parameters())
    dark = torch.zeros(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    layer(dark).sum().backward()
    assert dark.grad.isfinite().all()


def blobs(per=40, spread=0.02):
    """(3 * per, 3): points near three axes, and the axes."""
    axes = torch.eye(3)
    return (axes[:, None] + spread * randn(3, per, 3)).flatten(0, 1), axes


def test_cluster_centres_finds_the_middles_of_blobs():
    points, axes = blobs()
    centres = cluster_centres(points, 3, seed=1)
    assert centres.dtype == torch.float32
    means = points.view(3, -1, 3).mean(1)
    order = (centres @ axes.T).argmax(1)
    assert sorted(order.tolist()) == [0, 1, 2]
    torch.testing.assert_close(centres, means[order])
    assert torch.equal(centres, cluster_centres(points, 3, seed=1))
    everyone = cluster_centres(points[:5], 5, seed=0)
    torch.testing.assert_close(everyone.sort(dim=0).values, points[:5].sort(dim=0).values)


def test_initialise_assigns_by_distance_and_nearly_hard():
    points, _ = blobs()
    layer = made(NetVlad, 3, 3)
    layer.initialise(10 * points, seed=1)  # lengths are taken off
    x = F.normalize(points, dim=1)
    torch.testing.assert_close(layer.centres.data, cluster_centres(x, 3, seed=1))
    squares = torch.cdist(x, layer.centres.detach()).square()
    near, second = squares.sort(dim=1).values.T[:2]
    alpha = math.log(100) / (second - near).mean()
    weights = layer.assign(x.T[None, :, None]).softmax(1)[0, :, 0].T.detach()  # (n, K)
    torch.testing.assert_close(weights, (-alpha * squares).softmax(1), rtol=1e-3, atol=1e-5)
    top = weights.sort(dim=1, descending=True).values
    assert float((top[:, 0] / top[:, 1]).log().mean().exp()) == pytest.approx(100, rel=1e-2)
    again = made(NetVlad, 3, 3)
    again.initialise(points, seed=1)
    for name, value in again.state_dict().items():
        torch.testing.assert_close(value, layer.state_dict()[name], msg=name)
    assert layer.centres.requires_grad


def test_the_start_from_clusters_survives_a_checkpoint():
    layer, other = made(NetVlad, 3, 3), made(NetVlad, 3, 3, seed=1)
    layer.initialise(blobs()[0], seed=1)
    features = randn(2, 3, 4, 4)
    assert not torch.allclose(other(features), layer(features))
    other.load_state_dict(layer.state_dict())
    torch.testing.assert_close(other(features), layer(features))


def test_bad_input_of_netvlad():
    with pytest.raises(InputError, match="NetVlad: dim"):
        made(NetVlad, 0)
    with pytest.raises(InputError, match="NetVlad: clusters"):
        made(NetVlad, 3, 1)
    layer = made(NetVlad, 3, 4)
    for features in (randn(2, 4, 2, 2), randn(2, 3, 4)):
        with pytest.raises(InputError, match=r"\(B, 3, h, w\)"):
            layer(features)
    for descriptors in (randn(9, 4), randn(9)):
        with pytest.raises(InputError, match=r"\(n, 3\)"):
            layer.initialise(descriptors, seed=0)
    with pytest.raises(InputError, match="at least 4 different rows, found 3"):
        layer.initialise(randn(3, 3), seed=0)
    with pytest.raises(InputError, match="at least 4 different rows, found 2"):
        layer.initialise(randn(2, 3).repeat(8, 1), seed=0)
    with pytest.raises(InputError, match="NaN"):
        layer.initialise(randn(9, 3) * torch.nan, seed=0)
