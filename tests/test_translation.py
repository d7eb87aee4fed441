"""Translation: colour statistics exact, losses against their formulas, training that resumes bit for bit."""

import json
import math
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy import linalg
from torch.nn import functional as F

from ucvgl import translation as c
from ucvgl import translation as t
from ucvgl.errors import InputError

TINY = c.CycleGanConfig(
    load_px=18, crop_px=16, channels=4, blocks=1, downsamplings=1, patch=2, discriminator_channels=4,
    discriminator_layers=1, pool=3, epochs=2, decay_epochs=1, steps_per_epoch=3, batch=2,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def images(count, size=18, seed=0, tint=(1.0, 0.8, 0.6)):
    generator = torch.Generator().manual_seed(seed)
    grey = torch.rand(count, 1, size, size, generator=generator) * 200
    values = grey * torch.tensor(tint).view(3, 1, 1) + 40 * torch.rand(count, 3, size, size, generator=generator)
    return values.to(torch.uint8)


def colours(count, size, seed):
    """Correlated float64 colours."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.rand(3, 3, generator=generator, dtype=torch.float64)
    return torch.einsum("kc,bchw->bkhw", mix, torch.rand(count, 3, size, size, generator=generator).double())


def numpy_moments(values, weight):
    """Mean and covariance of all pixels, as numpy's weighted covariance has them."""
    flat = values.permute(1, 0, 2, 3).reshape(3, -1).numpy()
    weights = np.broadcast_to(weight, (len(values), *weight.shape)).reshape(-1)
    return np.average(flat, axis=1, weights=weights), np.cov(flat, aweights=weights, ddof=0)


# ---------------------------------------------------------------------------------------------------------- statistics

WEIGHTS = {"none": None, "centre": t.centre_weight(7).double(), "mask": torch.eye(7).double()}


@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
def test_statistics_are_those_of_all_weighted_pixels(weight):
    top, satellite = colours(130, 7, 0), colours(3, 7, 1)  # more than one chunk, and another number
    stats = t.fit_statistics(top, satellite, weight=weight)
    for ours, values in ((stats.source, top), (stats.target, satellite)):
        mean, covariance = numpy_moments(values, np.ones((7, 7)) if weight is None else weight.numpy())
        np.testing.assert_allclose(ours.mean, mean, atol=1e-12)
        np.testing.assert_allclose(ours.covariance, covariance, atol=1e-12)


@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
def test_mapped_top_views_have_the_satellites_mean_and_covariance(weight):
    top, satellite = colours(70, 7, 2), colours(5, 7, 3)
    stats = t.fit_statistics(top, satellite, weight=weight)
    mean, covariance = numpy_moments(satellite, np.ones((7, 7)) if weight is None else weight.numpy())
    for method in ("channels", "covariance"):
        mapped = t.match_colours(top, stats, method)
        ours = numpy_moments(mapped, np.ones((7, 7)) if weight is None else weight.numpy())
        np.testing.assert_allclose(ours[0], mean, atol=1e-10)
        np.testing.assert_allclose(np.diag(ours[1]), np.diag(covariance), atol=1e-10)
        if method == "covariance":
            np.testing.assert_allclose(ours[1], covariance, atol=1e-10)


def test_image_method_gives_every_image_the_mean_and_contrast_of_the_set():
    top, satellite, weight = colours(6, 7, 4), colours(9, 7, 5), t.centre_weight(7).double()
    mapped = t.match_colours(top, t.fit_statistics(top, satellite, weight=weight), "image")
    mean, _ = numpy_moments(satellite, weight.numpy())
    contrast = np.mean([np.diag(numpy_moments(one[None], weight.numpy())[1]) for one in satellite], axis=0)
    for one in mapped:
        ours = numpy_moments(one[None], weight.numpy())
        np.testing.assert_allclose(ours[0], mean, atol=1e-10)
        np.testing.assert_allclose(np.diag(ours[1]), contrast, atol=1e-10)


def test_covariance_map_is_monge_kantorovich():
    """Symmetric, positive, and the same by scipy's matrix square roots; the identity between equal sets."""
    top, satellite = colours(9, 7, 6), colours(9, 7, 7)
    stats = t.fit_statistics(top, satellite)
    matrix, _ = t.colour_map(stats)
    source, target = stats.source.covariance.numpy(), stats.target.covariance.numpy()
    root = linalg.sqrtm(source)
    oracle = linalg.inv(root) @ linalg.sqrtm(root @ target @ root) @ linalg.inv(root)
    np.testing.assert_allclose(matrix, oracle, atol=1e-8)
    assert torch.allclose(matrix, matrix.T, atol=1e-10)
    assert torch.linalg.eigvalsh(matrix).min() > 0
    same, offset = t.colour_map(t.fit_statistics(top, top))
    assert torch.allclose(same, torch.eye(3).double(), atol=1e-8)
    assert offset.abs().max() < 1e-8


def test_hand_sized_map():
    """Source 0 and 1/2, target 1/4 and 3/4, alike in all channels: shifted by a quarter, contrast kept."""
    top = torch.tensor([0.0, 0.5, 0.5, 0.0]).view(1, 1, 2, 2).expand(1, 3, 2, 2)
    stats = t.fit_statistics(top, top + 0.25)
    for method in ("channels", "covariance", "image"):
        assert torch.allclose(t.apply_statistics(top, stats, method=method), top + 0.25, atol=1e-6)


@given(st.integers(0, 255), st.integers(0, 255), st.sampled_from(["channels", "covariance", "image"]))
def test_flat_and_grey_images_stay_finite(value, other, method):
    flat = torch.full((1, 3, 4, 4), value, dtype=torch.uint8)
    satellite = images(1, 4, other)
    out = t.apply_statistics(flat, t.fit_statistics(flat, satellite), method=method)
    wanted = satellite.double().mean((0, 2, 3))
    assert (out.double().mean((0, 2, 3)) - wanted).abs().max() <= 0.51  # the mean is right, rounded
    assert out.dtype == torch.uint8
    grey = (torch.arange(16, dtype=torch.float64).view(1, 1, 4, 4) / 30).expand(1, 3, 4, 4)
    mapped = t.match_colours(grey, t.fit_statistics(grey, satellite), method)
    assert mapped.isfinite().all()
    np.testing.assert_allclose(mapped.mean((0, 2, 3)), wanted / 255, atol=1e-6)


def test_masked_pixels_do_not_enter_and_order_does_not_matter():
    top, satellite = images(5, 6), images(4, 6, 1)
    mask = torch.zeros(6, 6)
    mask[1:5, 1:5] = 1
    ringed = torch.where(mask.bool(), top, torch.zeros_like(top))
    one, two = (t.fit_statistics(a, satellite, weight=mask) for a in (top, ringed.flip(0)))
    assert torch.allclose(one.source.covariance, two.source.covariance, atol=1e-12)
    assert not torch.allclose(one.source.mean, t.fit_statistics(ringed, satellite).source.mean, atol=1e-3)
    again = t.apply_statistics(top, one)
    assert again.dtype == torch.uint8
    assert torch.allclose(again / 255, t.apply_statistics(top / 255, one), atol=0.51 / 255)


def test_statistics_refuse_what_does_not_fit():
    top = images(2, 6)
    for bad, match in (
        ((top, images(2, 7)), "px a side"),
        ((top, top[:0]), "at least 1"),
        ((top[:, :2], top), "satellites|top_views"),
        ((top[..., :4], top), "squares"),
        ((top.long(), top), "uint8"),
    ):
        with pytest.raises(InputError, match=match):
            t.fit_statistics(*bad)
    for weight in (torch.ones(5, 5), -torch.ones(6, 6), torch.zeros(6, 6), torch.full((6, 6), math.nan)):
        with pytest.raises(InputError, match="weight"):
            t.fit_statistics(top, top, weight=weight)
    stats = t.fit_statistics(top, top, weight=torch.ones(6, 6))
    with pytest.raises(InputError, match="method"):
        t.apply_statistics(top, stats, method="hue")
    with pytest.raises(InputError, match="method"):
        t.colour_map(stats, "image")
    with pytest.raises(InputError, match="as the weight"):
        t.apply_statistics(images(1, 5), stats, method="image")


def test_centre_weight_is_highest_in_the_middle_and_symmetric():
    weight = t.centre_weight(5, 0.5)
    assert weight[2, 2] == 1
    assert weight[2, 0] == pytest.approx(math.exp(-(0.8**2) / (2 * 0.5**2)))
    assert torch.equal(weight, weight.T)
    assert torch.allclose(weight, weight.flip(0))


# ------------------------------------------------------------------------------------------------- losses and schedule


def test_losses_by_hand():
    scores = torch.tensor([[0.5, 1.0], [0.0, 2.0]])
    assert c.adversarial_loss(scores, True) == pytest.approx((0.25 + 0 + 1 + 1) / 4)
    assert c.adversarial_loss(scores, False) == pytest.approx((0.25 + 1 + 0 + 4) / 4)
    assert c.discriminator_loss(scores, scores) == pytest.approx((2.25 + 5.25) / 8)
    a, b = torch.tensor([1.0, -1.0, 0.0]), torch.tensor([0.0, -1.0, 0.5])
    assert c.cycle_loss(a, b) == pytest.approx(0.5)
    assert c.identity_loss(a, b) == pytest.approx(0.5)
    config = replace(TINY, lambda_cycle=10, lambda_identity=0.5)
    total = c.generator_loss(torch.tensor(2.0), torch.tensor(0.3), torch.tensor(0.4), config)
    assert total == pytest.approx(2 + 10 * 0.3 + 10 * 0.5 * 0.4)


@given(st.integers(0, 10_000))
def test_losses_against_the_formulas_with_symmetric_gradients(seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(2, 1, 3, 3, generator=generator, requires_grad=True) for _ in range(2))
    assert torch.allclose(c.adversarial_loss(a, True), F.mse_loss(a, torch.ones_like(a)))
    assert torch.allclose(c.adversarial_loss(a, False), F.mse_loss(a, torch.zeros_like(a)))
    assert torch.allclose(c.cycle_loss(a, b), F.l1_loss(a, b))
    left, right = torch.autograd.grad(c.cycle_loss(a, b), (a, b))
    assert torch.equal(left, -right)
    real, fake = torch.autograd.grad(c.discriminator_loss(a, b), (a, b))
    assert torch.allclose(real, (a - 1) / a.numel())
    assert torch.allclose(fake, b / b.numel())
    assert all(g.isfinite().all() for g in (left, right, real, fake))


def test_schedule_is_flat_then_falls_evenly():
    factors = [c.lr_factor(epoch, 3, 4) for epoch in range(8)]
    assert factors == pytest.approx([1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0])
    assert [c.lr_factor(epoch, 2, 0) for epoch in range(2)] == [1, 1]


# ------------------------------------------------------------------------------------------------- pool and networks


def test_pool_fills_then_shows_half_old_ones():
    pool, draws = c.ImagePool(10), torch.Generator().manual_seed(0)
    seen = torch.arange(10.0).view(10, 1, 1, 1)
    assert torch.equal(pool.exchange(seen[:4], draws), seen[:4])
    assert torch.equal(pool.exchange(seen[4:], draws), seen[4:])
    old = 0
    known = set(range(10))
    for number in range(10, 410):
        before = pool.images.flatten().tolist()
        shown = pool.exchange(torch.full((1, 1, 1, 1), float(number)), draws).item()
        after = pool.images.flatten().tolist()
        known.add(number)
        assert set(after) <= known
        if shown == number:
            assert after == before  # handed through
        else:
            old += 1
            assert sorted(after) == sorted([x for x in before if x != shown] + [number])
    assert 160 < old < 240


def test_pool_of_none_and_a_batch_larger_than_the_pool():
    batch = torch.arange(7.0).view(7, 1, 1, 1)
    assert torch.equal(c.ImagePool(0).exchange(batch, torch.Generator()), batch)
    pool = c.ImagePool(2)
    shown = pool.exchange(batch, torch.Generator().manual_seed(1))
    assert len(pool.images) == 2
    assert torch.equal(shown[:2], batch[:2])
    both = sorted([*shown.flatten().tolist(), *pool.images.flatten().tolist()])
    assert both == sorted([*range(7), 0, 1])  # nothing lost, the first two twice


@pytest.mark.parametrize(("layers", "side"), [(1, 16), (2, 34), (3, 70)])
def test_a_score_of_the_discriminator_sees_its_patch(layers, side):
    """By the gradient of one score, without the norm, which sees the whole image."""
    assert c.patch_px(layers) == side
    config = replace(TINY, load_px=128, crop_px=128, discriminator_layers=layers)
    network = c.PatchDiscriminator(config)
    network.body = torch.nn.Sequential(*(m for m in network.body if not isinstance(m, c.InstanceNorm)))
    picture = torch.rand(1, 3, 128, 128, requires_grad=True)
    scores = network(picture)
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    rows = picture.grad[0].abs().sum((0, 2)).nonzero()[:, 0]
    assert int(rows[-1] - rows[0]) + 1 == side


def test_instance_norm_is_torchs():
    values = torch.randn(3, 5, 6, 7) * 4 + 2
    assert torch.allclose(c.InstanceNorm()(values), F.instance_norm(values), atol=1e-5)


@pytest.mark.parametrize(
    "change", [{}, {"patch": 1, "downsamplings": 2}, {"patch": 4, "downsamplings": 0}, {"residual": True}]
)
def test_generator_keeps_shape_and_range_and_images_apart(change):
    network = c.initialise(c.ResnetGenerator(replace(TINY, **change)), torch.Generator().manual_seed(0))
    batch = torch.rand(3, 3, 16, 24) * 2 - 1
    out = network(batch)
    assert out.shape == batch.shape
    assert out.abs().max() <= 1
    assert torch.allclose(out[1:2], network(batch[1:2]), atol=1e-5)
    with pytest.raises(InputError, match="multiples"):
        network(torch.zeros(1, 3, 16, 17))


def test_residual_generator_without_change_keeps_the_image():
    network = c.ResnetGenerator(replace(TINY, residual=True))
    torch.nn.init.zeros_(network.body[-1].weight)
    torch.nn.init.zeros_(network.body[-1].bias)
    batch = torch.rand(2, 3, 16, 16) * 2 - 1
    assert torch.allclose(network(batch), 0.99 * batch, atol=1e-5)


def test_paper_generator_has_the_papers_size():
    """c7s1-64, d128, d256, 9 R256, u128, u64, c7s1-3, counted by hand; biases included."""
    by_hand = 3 * 49 * 64 + 64 + 64 * 9 * 128 + 128 + 128 * 9 * 256 + 256 + 18 * (256 * 9 * 256 + 256)
    by_hand += 256 * 9 * 128 + 128 + 128 * 9 * 64 + 64 + 64 * 49 * 3 + 3
    with torch.device("meta"):
        assert sum(p.numel() for p in c.ResnetGenerator(c.PAPER).parameters()) == by_hand


def test_bad_settings():
    for name, value in (
        ("batch", 0), ("channels", -1), ("lr", 0.0), ("lr", math.nan), ("beta1", 1.0), ("lambda_cycle", -1.0),
        ("lambda_identity", math.inf), ("precision", "fp8"), ("crop_px", 20), ("crop_px", 15), ("crop_px", 4),
        ("discriminator_layers", 5), ("pool", -1), ("epochs", 0), ("epochs", 1.5), ("seed", True), ("flip", 1),
        ("steps_per_epoch", 0),
    ):  # fmt: skip
        with pytest.raises(InputError, match="CycleGanConfig"):
            replace(TINY, **{name: value})
    assert c.CycleGanConfig() == c.PAPER
    assert {"load_px", "crop_px", "pool"} <= {field.name for field in fields(c.PAPER)}


# ------------------------------------------------------------------------------------------------------------ training


def rows_of(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


class StopError(Exception):
    pass


def stop_after(monkeypatch, epochs):
    """Let the process die in the middle of the epoch after so many."""
    whole = t._Training.step

    def step(self, *arguments):
        if self.epoch == epochs:
            raise StopError
        return whole(self, *arguments)

    monkeypatch.setattr(t._Training, "step", step)


def test_a_stopped_training_goes_on_bit_for_bit(tmp_path, monkeypatch):
    top, satellite = images(5), images(7, seed=1, tint=(0.5, 0.9, 0.4))
    whole = t.train_cyclegan(top, satellite, TINY, tmp_path / "whole", progress=False)
    for epochs in (1, 2):
        with monkeypatch.context() as patch:
            stop_after(patch, epochs)
            with pytest.raises(StopError):
                t.train_cyclegan(top, satellite, TINY, tmp_path / "parts", progress=False)
        names = load_file(tmp_path / "parts" / "checkpoint.safetensors").keys()
        assert {"pools.satellite", "pools.top"} <= names
        assert any(name.endswith("exp_avg_sq") for name in names)
        assert len(rows_of(tmp_path / "parts")) == epochs
    parts = t.train_cyclegan(top, satellite, TINY, tmp_path / "parts", progress=False)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
    for name in ("generator.safetensors", "generator_back.safetensors"):
        a, b = (load_file(tmp_path / folder / name) for folder in ("whole", "parts"))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "parts")
    assert sorted(p.name for p in (tmp_path / "parts").iterdir()) == [
        "generator.safetensors", "generator_back.safetensors", "metrics.jsonl",
    ]  # fmt: skip
    rows = rows_of(tmp_path / "whole")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["lr"] for row in rows] == pytest.approx([2e-4, 2e-4, 1e-4])
    assert rows[0].keys() == {"epoch", "lr", *t.LOSSES}
    # a finished folder is loaded: no step is taken
    with monkeypatch.context() as patch:
        stop_after(patch, 0)
        again = t.train_cyclegan(top, satellite, TINY, tmp_path / "parts", progress=False)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    assert torch.equal(t.translate(again, images(3, 20)), t.translate(whole, images(3, 20)))


def test_a_folder_of_another_training_is_refused(tmp_path, monkeypatch):
    top, satellite = images(3), images(2, seed=1)
    config = replace(TINY, epochs=1, steps_per_epoch=1)
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(StopError):
            t.train_cyclegan(top, satellite, config, tmp_path, progress=False)
    for finished in (False, True):
        with pytest.raises(InputError, match="another lr"):
            t.train_cyclegan(top, satellite, replace(config, lr=1e-3), tmp_path, progress=False)
        with pytest.raises(InputError, match="images it was begun with"):
            t.train_cyclegan(top + 1, satellite, config, tmp_path, progress=False)
        if not finished:
            t.train_cyclegan(top, satellite, config, tmp_path, progress=False)


def test_one_step_is_the_papers_objective():
    """The losses of a joined step against the networks called one by one, and every network moves."""
    training = t._Training(replace(TINY, lambda_identity=0.5), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    top, satellite = (torch.rand(2, 3, 16, 16, generator=generator) * 2 - 1 for _ in range(2))
    before = {name: value.clone() for name, value in training.networks.state_dict().items()}
    networks = training.networks
    with torch.no_grad():
        fake_satellite, fake_top = networks["to_satellite"](top), networks["to_top"](satellite)
        expected = [
            (networks["judge_satellite"](fake_satellite) - 1).square().mean()
            + (networks["judge_top"](fake_top) - 1).square().mean(),
            (networks["to_top"](fake_satellite) - top).abs().mean()
            + (networks["to_satellite"](fake_top) - satellite).abs().mean(),
            (networks["to_satellite"](satellite) - satellite).abs().mean()
            + (networks["to_top"](top) - top).abs().mean(),
        ]
        for name, real, fake in (("judge_satellite", satellite, fake_satellite), ("judge_top", top, fake_top)):
            judge = networks[name]
            expected.append(((judge(real) - 1).square().mean() + judge(fake).square().mean()) / 2)
    losses = training.step(top, satellite, generator)
    assert torch.allclose(losses, torch.stack(expected), atol=1e-5)
    weights = [name for name in before if name.endswith("weight")]
    assert all(not torch.equal(before[name], networks.state_dict()[name]) for name in weights)


def test_no_identity_loss_is_the_identity_loss_weighted_zero():
    batches = [torch.rand(2, 3, 16, 16) * 2 - 1 for _ in range(2)]
    ends = []
    for weight in (0.0, 1e-12):
        training = t._Training(replace(TINY, lambda_identity=weight), torch.device("cpu"))
        losses = training.step(*batches, torch.Generator().manual_seed(0))
        assert (losses[2] == 0) == (weight == 0)
        ends.append((losses[[0, 1, 3, 4]], training.networks.state_dict()))
    assert torch.allclose(ends[0][0], ends[1][0], atol=1e-6)
    assert all(torch.allclose(ends[0][1][name], ends[1][1][name], atol=1e-5) for name in ends[0][1])


def test_training_lowers_the_cycle_loss_and_learns_a_colour(tmp_path):
    """Dark red to bright green flats: fakes come nearer to the satellites' colour than the top views are."""
    config = replace(TINY, channels=8, lr=2e-3, batch=4, epochs=3, decay_epochs=1, steps_per_epoch=40)
    top, satellite = images(16, tint=(0.7, 0.1, 0.1)), images(16, seed=1, tint=(0.3, 0.9, 0.3))
    generator = t.train_cyclegan(top, satellite, config, tmp_path, progress=False)
    rows = rows_of(tmp_path)
    assert rows[-1]["cycle"] < 0.9 * rows[0]["cycle"]
    fake = t.translate(generator, top[..., :16, :16]).float().mean((0, 2, 3))
    wanted = satellite.float().mean((0, 2, 3))
    assert (fake - wanted).abs().mean() < 0.6 * (top.float().mean((0, 2, 3)) - wanted).abs().mean()


def test_bf16_trains_to_finite_losses(tmp_path):
    config = replace(TINY, precision="bf16", epochs=1, decay_epochs=0)
    generator = t.train_cyclegan(images(2), images(2, seed=1), config, tmp_path, progress=False)
    assert all(parameter.dtype == torch.float32 for parameter in generator.parameters())


def test_a_diverged_training_names_epoch_and_step_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    whole, calls = t._Training.step, []

    def step(self, *arguments):
        calls.append(1)
        losses = whole(self, *arguments)
        return losses * math.nan if len(calls) == 5 else losses  # the second of the second epoch

    monkeypatch.setattr(t._Training, "step", step)
    monkeypatch.setattr(t, "CHECK_EVERY", 2)
    with pytest.raises(InputError, match="epoch 2, step 2: expected finite losses"):
        t.train_cyclegan(images(3), images(3, seed=1), TINY, tmp_path, progress=False)
    assert len(calls) == 5
    assert len(rows_of(tmp_path)) == 1
    assert t.checkpoints.read(tmp_path / "checkpoint.safetensors")[0]["epoch"] == 1
    # what was kept is good: it goes on from there
    t.train_cyclegan(images(3), images(3, seed=1), TINY, tmp_path, progress=False)
    assert [row["epoch"] for row in rows_of(tmp_path)] == [1, 2, 3]


def test_training_refuses_what_does_not_fit(tmp_path):
    top = images(3)
    for bad, match in (
        ((top, top[:1]), "at least 2"),
        ((top[:0], top), "at least 2"),
        ((top, images(3, 20)), "px a side"),
        ((top[..., :10], top), "squares"),
        ((top / 255, top), "uint8"),
        ((top[0], top), "B, 3, H, W"),
    ):
        with pytest.raises(InputError, match=match):
            t.train_cyclegan(*bad, TINY, tmp_path / "none", progress=False)
    assert not (tmp_path / "none").exists()
    (tmp_path / "checkpoint.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="whole file of a training"):
        t.train_cyclegan(top, top, TINY, tmp_path, progress=False)


def test_an_epoch_passes_over_the_larger_set():
    order = t._order(4, 10, torch.Generator().manual_seed(0))
    assert len(order) == 10
    assert sorted(order[:4].tolist()) == sorted(order[4:8].tolist()) == [0, 1, 2, 3]
    seen = []

    class Bar:
        def update(self):
            seen.append(1)

        def set_postfix(self, *_):
            pass

    config = replace(TINY, steps_per_epoch=None)
    t._epoch(t._Training(config, torch.device("cpu")), images(3), images(9, seed=1), 0, 9 // config.batch, Bar())
    assert len(seen) == 4


def test_variations_are_crops_flips_and_turns_of_the_image():
    picture = torch.randint(0, 256, (1, 3, 6, 6), dtype=torch.uint8)
    config = replace(TINY, load_px=17, crop_px=16)
    square = torch.randint(0, 256, (1, 3, 17, 17), dtype=torch.uint8)
    draws = torch.Generator().manual_seed(0)
    found = set()
    wanted = {}
    for row in range(2):
        for column in range(2):
            for flip in (False, True):
                part = square[0, :, row : row + 16, column : column + 16]
                part = part.flip(2) if flip else part
                for k in range(4):
                    wanted[torch.rot90(part, k, (1, 2)).numpy().tobytes()] = (row, column, flip, k)
    for out in t.vary(square.expand(600, -1, -1, -1), config, draws):
        found.add(wanted[((out + 1) * 127.5).round().to(torch.uint8).numpy().tobytes()])
    assert len(found) == 32  # all of them, and nothing else
    still = t.vary(square, replace(config, load_px=16, flip=False, turn=False), draws)
    assert still.shape == (1, 3, 16, 16)
    larger = t.vary(picture, replace(TINY, load_px=16, flip=False, turn=False), draws)
    oracle = F.interpolate(picture / 127.5 - 1, (16, 16), mode="bilinear", antialias=True)
    assert torch.allclose(larger, oracle, atol=1e-6)


def test_translate_works_in_batches_and_leaves_the_generator_as_it_was():
    network = c.initialise(c.ResnetGenerator(TINY), torch.Generator().manual_seed(0)).train()
    top = images(5, 16)
    whole = t.translate(network, top)
    assert whole.dtype == torch.uint8
    assert whole.shape == top.shape
    assert (t.translate(network, top, batch=2).int() - whole.int()).abs().max() <= 1
    assert network.training
    assert len(t.translate(network, top[:0])) == 0
    with torch.no_grad():
        oracle = (network(top / 127.5 - 1) + 1) * 127.5
    assert (oracle - whole).abs().max() <= 0.51
    with pytest.raises(InputError, match="uint8"):
        t.translate(network, top / 255)
    with pytest.raises(InputError, match="multiples"):
        t.translate(network, images(1, 18))


def test_a_generator_of_another_architecture_is_refused(tmp_path):
    config = replace(TINY, epochs=1, decay_epochs=0, steps_per_epoch=1)
    t.train_cyclegan(images(2), images(2, seed=1), config, tmp_path, progress=False)
    path = tmp_path / "generator.safetensors"
    for name, value in (("channels", 6), ("blocks", 2), ("residual", True), ("patch", 1)):
        with pytest.raises(InputError, match=name):
            t.load_generator(path, replace(config, **{name: value}))
    assert not t.load_generator(path, replace(config, lr=1e-3, seed=4)).training  # only the architecture counts
    with pytest.raises(InputError, match="whole file of a training"):
        t.load_generator(tmp_path / "none.safetensors", config)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(InputError, match="whole file of a training"):
        t.load_generator(path, config)
    t.checkpoints.write(path, {"body.1.weight": torch.zeros(1)}, {"config": asdict(config)})
    with pytest.raises(InputError, match="generator's weights"):
        t.load_generator(path, config)
