"""Translation: colour statistics exact, losses against their formulas, training that resumes bit for bit."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import linalg
from toy_sets import generator

from ucvgl import checkpoints
from ucvgl import translation as t
from ucvgl.errors import InputError

TINY = t.CycleGanConfig(
    load_px=18, crop_px=16, channels=4, blocks=1, downsamplings=1, patch=2, discriminator_channels=4,
    discriminator_layers=1, pool=3, epochs=2, decay_epochs=1, steps_per_epoch=3, batch=2,
)  # fmt: skip
CPU = torch.device("cpu")
WEIGHTS = {"none": None, "centre": t.centre_weight(7).double(), "mask": torch.eye(7).double()}


def images(count, size=18, seed=0):
    """Correlated colours, uint8."""
    mix = torch.rand(3, 3, generator=generator(seed)) / 3
    noise = torch.rand(count, 3, size, size, generator=generator(seed + 100))
    return (torch.einsum("kc,bchw->bkhw", mix, noise) * 255).to(torch.uint8)


def numpy_moments(values, weight=None):
    """Mean and covariance of all pixels, as numpy's weighted covariance has them."""
    flat = values.permute(1, 0, 2, 3).reshape(3, -1).numpy()
    weights = np.ones(flat.shape[1]) if weight is None else np.tile(weight.numpy().ravel(), len(values))
    return np.average(flat, axis=1, weights=weights), np.cov(flat, aweights=weights, ddof=0)


@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
def test_mapped_top_views_have_the_satellites_mean_and_covariance(weight):
    top, satellite = images(70, 7, 2), images(5, 7, 3)  # more than one chunk, and another number
    matrix, offset = t.fit_statistics(top, satellite, weight=weight)
    mapped = (matrix @ (top.double() / 255).flatten(2) + offset[:, None]).view(top.shape)
    moments = numpy_moments(mapped, weight), numpy_moments(satellite.double() / 255, weight)
    for ours, wanted in zip(*moments, strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-7)
    expected = (mapped.clamp(0, 1) * 255).round()
    assert (t.apply_statistics(top, (matrix, offset)).double() - expected).abs().max() <= 1  # by a rounding


def test_covariance_map_is_monge_kantorovich():
    """The same by scipy's matrix square roots."""
    top, satellite = images(9, 7, 6), images(9, 7, 7)
    matrix, _ = t.fit_statistics(top, satellite)
    source, target = (numpy_moments(values.double() / 255)[1] for values in (top, satellite))
    root = linalg.sqrtm(source)
    oracle = linalg.inv(root) @ linalg.sqrtm(root @ target @ root) @ linalg.inv(root)
    np.testing.assert_allclose(matrix, oracle, rtol=1e-5, atol=1e-5)


def test_pool_fills_then_shows_half_old_ones():
    pool, draws, old = t.ImagePool(10), generator(), 0
    first = torch.arange(10.0).view(10, 1, 1, 1)
    assert torch.equal(pool.exchange(first, draws), first)
    for number in range(10, 410):
        before = pool.images.flatten().tolist()
        shown = pool.exchange(torch.full((1, 1, 1, 1), float(number)), draws).item()
        old += shown != number
        assert sorted([*pool.images.flatten().tolist(), shown]) == sorted([*before, number])
    assert 160 < old < 240


def test_paper_generator_has_the_papers_size():
    """c7s1-64, d128, d256, 9 R256, u128, u64, c7s1-3, counted by hand; biases included."""
    by_hand = 3 * 49 * 64 + 64 + 64 * 9 * 128 + 128 + 128 * 9 * 256 + 256 + 18 * (256 * 9 * 256 + 256)
    by_hand += 256 * 9 * 128 + 128 + 128 * 9 * 64 + 64 + 64 * 49 * 3 + 3
    with torch.device("meta"):
        assert sum(p.numel() for p in t.ResnetGenerator(t.CycleGanConfig()).parameters()) == by_hand


@pytest.mark.parametrize("change", [{}, {"patch": 4, "downsamplings": 0}, {"residual": True}])
def test_one_step_is_the_papers_objective(change):
    """The losses of a joined step against the networks called one by one, and every network moves."""
    training, draws = t.CycleGan(replace(TINY, **change), CPU), generator()
    top, satellite = (torch.rand(2, 3, 16, 16, generator=draws) * 2 - 1 for _ in range(2))
    before = {name: value.clone() for name, value in training.state_dict().items() if name.endswith("weight")}
    to_satellite, to_top, (of_satellite, of_top) = training.to_satellite, training.to_top, training.discriminators
    with torch.no_grad():
        fake_satellite, fake_top = to_satellite(top), to_top(satellite)
        assert fake_top.shape == top.shape
        assert fake_top.abs().max() <= 1
        expected = [
            (of_satellite(fake_satellite) - 1).square().mean() + (of_top(fake_top) - 1).square().mean(),
            (to_top(fake_satellite) - top).abs().mean() + (to_satellite(fake_top) - satellite).abs().mean(),
            (to_satellite(satellite) - satellite).abs().mean() + (to_top(top) - top).abs().mean(),
        ]
        for discriminator, real, fake in ((of_satellite, satellite, fake_satellite), (of_top, top, fake_top)):
            expected.append(((discriminator(real) - 1).square().mean() + discriminator(fake).square().mean()) / 2)
    losses = training.step(top, satellite, draws)
    torch.testing.assert_close(losses, torch.stack(expected), rtol=0, atol=1e-5)
    assert not any(torch.equal(value, training.state_dict()[name]) for name, value in before.items())


def rows_of(folder):
    (path,) = folder.iterdir()  # the checkpoint, or the generator alone
    rows = checkpoints.read(path)[0]["rows"]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_a_stopped_training_goes_on_bit_for_bit(tmp_path, monkeypatch):
    """Stopped in the middle of the second epoch, and of the third after the second was begun again."""
    top, satellite = images(5), images(7, seed=1)
    whole = t.train_cyclegan(top, satellite, TINY, tmp_path / "whole", CPU)
    real, steps = t.CycleGan.step, itertools.count()

    def stopped(*arguments):
        if next(steps) in (4, 9):
            raise KeyboardInterrupt
        return real(*arguments)

    for epochs in (1, 2):
        with monkeypatch.context() as patch:
            patch.setattr(t.CycleGan, "step", stopped)
            with pytest.raises(KeyboardInterrupt):
                t.train_cyclegan(top, satellite, TINY, tmp_path / "parts", CPU)
        assert len(rows_of(tmp_path / "parts")) == epochs
    parts = t.train_cyclegan(top, satellite, TINY, tmp_path / "parts", CPU)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "parts")
    assert [p.name for p in (tmp_path / "parts").iterdir()] == ["generator.safetensors"]
    assert [row["lr"] for row in rows_of(tmp_path / "whole")] == pytest.approx([2e-4, 2e-4, 1e-4])
    # a finished folder is loaded: no step is taken
    monkeypatch.setattr(t.CycleGan, "step", None)
    again = t.train_cyclegan(top, satellite, TINY, tmp_path / "parts", CPU)
    fakes = t.translate(whole, images(3, 21))
    assert torch.equal(t.translate(again, images(3, 21)), fakes)
    assert fakes.shape == (3, 3, 21, 21)  # no multiple of the stride


def test_a_diverged_training_names_the_epoch_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    whole, steps = t.CycleGan.step, itertools.count()

    def step(self, *arguments):
        return whole(self, *arguments) * (math.nan if next(steps) == 4 else 1)  # the second of the second epoch

    monkeypatch.setattr(t.CycleGan, "step", step)
    with pytest.raises(InputError, match="epoch 2: expected finite losses"):
        t.train_cyclegan(images(3), images(3, seed=1), TINY, tmp_path, CPU)
    assert len(rows_of(tmp_path)) == 1
