"""The training loop: against a plain loop, in chunks, stopped anywhere, killed; losses that are not finite."""

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from training_worker import Pairs, Toy, assert_same_weights, killable, measured, stop_at

from ucvgl import checkpoints
from ucvgl.errors import InputError
from ucvgl.training import CHECKPOINT, TrainingConfig, train

WORKER = Path(__file__).with_name("training_worker.py")
SHORT = TrainingConfig(epochs=2, batch_size=4, learning_rate=3e-3)
STEPS = 3  # 14 items make three batches of 4
TIMES = ("seconds", "images_per_second")


def run(folder, config=SHORT, model=None, task=None, **more):
    model, task = model or Toy(dropout=0.3), task or Pairs()
    return model, train(model, task, config, folder, **{"progress": False, **more})


def rows_of(folder):
    return checkpoints.read(folder / CHECKPOINT)[0]["rows"]


def timeless(rows):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def saved_weights(folder):
    return checkpoints.without("model.", load_file(folder / CHECKPOINT))


class InOrder(Pairs):
    """The same batches in every epoch."""

    def order(self, epoch, model, generator):
        return torch.arange(len(self.satellite))

    def batch(self, items, generator):
        return super().batch(items, torch.Generator().manual_seed(0))


def test_a_training_goes_on_with_the_optimiser_of_another(tmp_path):
    """Three epochs at once, or one and then two on its weights and with its optimiser, at a learning rate that stays."""
    config = replace(SHORT, epochs=3, warmup_epochs=0, min_lr_ratio=1.0)
    whole, rows = run(tmp_path / "whole", config, Toy(), InOrder())
    model, _ = run(tmp_path / "first", replace(config, epochs=1), Toy(), InOrder(), keep_optimiser=True)
    model, later = run(tmp_path / "rest", replace(config, epochs=2), model, InOrder(), after=tmp_path / "first")
    assert_same_weights(model.state_dict(), whole.state_dict())
    assert [row["loss"] for row in later] == [row["loss"] for row in rows[1:]]
    # finished, it is loaded, and not begun again
    again, _ = run(tmp_path / "rest", replace(config, epochs=2), Toy(), InOrder(), after=tmp_path / "first")
    assert_same_weights(again.state_dict(), whole.state_dict())


def test_it_is_the_plain_loop(tmp_path):
    """The oracle: torch's AdamW, a cosine written out, batches in order; no dropout, no noise, so nothing is random."""
    config = replace(SHORT, epochs=3, learning_rate=1e-2, weight_decay=0.1, warmup_epochs=0.5)
    task, model = Pairs(noise=0.0, dtype=torch.float64), Toy(dtype=torch.float64)
    model.ground.lr_scale = 3.0  # a part that learns at a rate of its own
    model, rows = run(tmp_path, replace(config, clip_norm=0.5, clip_value=0.05), model, task)
    assert [len(items) for items in task.items] == [4] * 9  # the two items left over are dropped
    assert len({tuple(items) for items in task.items}) == 9  # shuffled anew in each epoch

    plain = Toy(dtype=torch.float64)
    optimiser = torch.optim.AdamW([
        {"params": [p], "weight_decay": 0.1 if p.ndim > 1 else 0, "times": 3 if name.startswith("ground.") else 1}
        for name, p in plain.named_parameters()
    ])  # fmt: skip
    losses, clipped = [], []
    for step, items in enumerate(task.items):
        done = (step + 0.5) / 3
        rate = 1e-2 * (done / 0.5 if done < 0.5 else (1 + math.cos(math.pi * (done - 0.5) / 2.5)) / 2)
        for group in optimiser.param_groups:
            group["lr"] = rate * group["times"]
        optimiser.zero_grad()
        ground, satellite = plain(task.satellite[items], task.satellite[items])
        loss = F.cross_entropy(plain.log_scale.exp() * ground @ satellite.T, torch.arange(4))
        loss.backward()
        clipped.append(float(nn.utils.clip_grad_norm_(plain.parameters(), 0.5)) > 0.5)
        nn.utils.clip_grad_value_(plain.parameters(), 0.05)
        optimiser.step()
        losses.append(loss.item())
    torch.testing.assert_close(dict(model.state_dict()), dict(plain.state_dict()), rtol=1e-9, atol=1e-12)
    for epoch, row in enumerate(rows):
        assert row["loss"] == pytest.approx(sum(losses[3 * epoch : 3 * epoch + 3]) / 3, rel=1e-5)
    assert rows[-1]["lr"] == pytest.approx(rate)
    assert any(clipped)


def test_it_learns_leaves_weights_and_metrics_and_is_loaded(tmp_path):
    config = replace(SHORT, epochs=12, learning_rate=1e-2)
    model, rows = run(tmp_path, config, Toy(), after_epoch=measured)
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
    assert rows_of(tmp_path) == rows
    assert list(rows[0]) == ["epoch", "loss", "lr", *TIMES, "drawn", "weight"]
    assert rows[0]["images_per_second"] == pytest.approx(2 * 12 / rows[0]["seconds"])
    task = Pairs()
    loaded, again = run(tmp_path, config, Toy(), task, after_epoch=lambda *_: pytest.fail("measured again"))
    assert (again, task.items) == (rows, [])
    assert_same_weights(model, loaded)
    assert all(name.startswith("model.") for name in load_file(tmp_path / CHECKPOINT))  # no moments any more


def test_the_seed_decides_alone_and_precision_by_a_little(tmp_path):
    torch.manual_seed(1)
    one, _ = run(tmp_path / "1")
    drawn = torch.rand(2)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(2), drawn)  # the caller's generator stands where it stood
    two, _ = run(tmp_path / "2", task=Pairs(), after_epoch=measured)  # another state of it, and a measure that draws
    assert_same_weights(one, two)
    ahead, _ = run(tmp_path / "3", replace(SHORT, prefetch=True))  # loaded in a thread
    assert_same_weights(one, ahead)
    three, _ = run(tmp_path / "4", replace(SHORT, seed=1))
    assert not torch.equal(one.ground[0].weight, three.ground[0].weight)
    half, _ = run(tmp_path / "5", replace(SHORT, precision="bf16"))
    assert half.ground[0].weight.dtype == torch.float32
    assert 0 < (half.ground[0].weight - one.ground[0].weight).abs().max() < 0.03


def test_few_items_make_one_smaller_batch_and_one_none(tmp_path):
    task = Pairs(3)
    run(tmp_path / "few", replace(SHORT, epochs=1), task=task)
    assert [len(items) for items in task.items] == [3]
    with pytest.raises(InputError, match="epoch 0: expected at least 2 items to contrast, found 1"):
        run(tmp_path / "one", task=Pairs(1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_trains_in_every_precision_and_resumes(tmp_path, precision):
    config = replace(SHORT, epochs=6, learning_rate=1e-2, precision=precision, chunk=2, clip_norm=1.0)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, config, task=Pairs(on_step=stop_at(8)))
    model, rows = run(tmp_path, config)
    assert model.ground[0].weight.is_cuda
    assert rows[-1]["loss"] < rows[0]["loss"]


@pytest.mark.parametrize("chunk", [1, 3])
def test_training_in_chunks_is_training_on_the_whole_batch(tmp_path, chunk):
    whole, rows = run(tmp_path / "whole", SHORT, Toy(dtype=torch.float64), Pairs(dtype=torch.float64))
    task = Pairs(dtype=torch.float64)
    seen, embed = [], task.embed
    task.embed = lambda model, inputs: seen.append(len(inputs[0])) or embed(model, inputs)
    chunks, again = run(tmp_path / "chunks", replace(SHORT, chunk=chunk), Toy(dtype=torch.float64), task)
    torch.testing.assert_close(dict(chunks.state_dict()), dict(whole.state_dict()), rtol=1e-9, atol=1e-12)
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in again])
    assert max(seen) == chunk
    assert sum(seen) == 2 * 4 * 6  # each of the rows of six steps is embedded twice
    with pytest.raises(InputError, match=r"None for a model with batch norms.*found 2"):
        run(tmp_path / "norms", replace(SHORT, chunk=2), Toy(norm=True))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return killable(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("step", [1, 3, 5, 12])
def test_a_run_stopped_at_any_step_goes_on_bit_for_bit(tmp_path, uninterrupted, step):
    with pytest.raises(KeyboardInterrupt):
        killable(tmp_path, stop_at(step))
    taken = []
    model, rows = killable(tmp_path, taken.append)
    assert_same_weights(uninterrupted[0], model)
    assert timeless(rows) == timeless(uninterrupted[1])
    assert rows_of(tmp_path) == rows
    whole_epochs = (step - 1) // STEPS
    assert taken == list(range(whole_epochs * STEPS + 1, 13))  # and no epoch that was saved is done again


def test_a_stop_while_a_checkpoint_is_written_leaves_the_last_one(tmp_path, monkeypatch):
    def half_written(tensors, path, metadata):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    checkpoints.write(tmp_path / CHECKPOINT, {"weight": torch.ones(2)}, {"epoch": 1})
    monkeypatch.setattr(checkpoints, "save_file", half_written)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.write(tmp_path / CHECKPOINT, {"weight": torch.zeros(2)}, {"epoch": 2})
    header, tensors = checkpoints.read(tmp_path / CHECKPOINT)
    assert (header, tensors["weight"].tolist()) == ({"epoch": 1}, [1.0, 1.0])
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_a_killed_run_goes_on_bit_for_bit(tmp_path):
    """The first time killed after one step, before there is any checkpoint."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for folder, step in (("killed", 1), ("killed", 5), ("killed", 0), ("whole", 0)):
        command = [sys.executable, str(WORKER), "kill", str(tmp_path / folder), str(step)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == (-signal.SIGKILL if step else 0), done.stderr
    assert_same_weights(saved_weights(tmp_path / "killed"), saved_weights(tmp_path / "whole"))
    rows = [timeless(rows_of(tmp_path / name)) for name in ("killed", "whole")]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 4


def test_other_settings_or_another_model_cannot_go_on(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, task=Pairs(on_step=stop_at(4)))
    with pytest.raises(InputError, match=r"batch_size=4, seed=0, found batch_size=5, seed=1\. Restore them, or delete"):
        run(tmp_path, replace(SHORT, batch_size=5, seed=1))
    other = Toy(dropout=0.3)
    other.ground[5] = nn.Linear(36, 6)
    with pytest.raises(InputError, match=r"ground.5.bias \(5,\) instead of \(6,\)"):
        run(tmp_path, model=other)
    path = tmp_path / CHECKPOINT
    whole = path.read_bytes()
    for damage in (whole[:-1], b""):
        path.write_bytes(damage)
        with pytest.raises(InputError, match="expected a whole file of a training"):
            run(tmp_path)
    path.write_bytes(whole)
    run(tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_told_and_the_checkpoint_stays(tmp_path, value):
    class Diverging(Pairs):
        def loss(self, model, embeddings, labels):
            loss = super().loss(model, embeddings, labels)
            return loss * value if self.steps == 4 else loss

    with pytest.raises(InputError, match=f"toys: epoch 1, step 1, loss: expected a finite number, found {value}"):
        run(tmp_path, task=Diverging(), name="toys")
    model, _ = run(tmp_path)
    assert_same_weights(model, run(tmp_path / "whole")[0])
