"""The training loop: against a plain loop, interrupted anywhere, killed, in two processes; bad settings and losses."""

import json
import math
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from training_worker import KILLED, TOGETHER, Pairs, Toy, gradients_kept, killable, measured

from ucvgl.checkpoints import weights_of
from ucvgl.errors import InputError
from ucvgl.training import CHECKPOINT, METRICS, WEIGHTS, Batch, Task, TrainingConfig, adamw, learning_rate, train

WORKER = Path(__file__).with_name("training_worker.py")
SHORT = TrainingConfig(epochs=2, batch_size=4, learning_rate=3e-3)
STEPS = 3  # 14 items make three batches of 4
TIMES = ("seconds", "images_per_second")


def run(folder, config=SHORT, model=None, task=None, **more):
    model, task = model or Toy(dropout=0.3), task or Pairs()
    return model, train(model, task, config, folder, **{"progress": False, **more})


def assert_same_weights(one, two):
    one, two = (part if isinstance(part, dict) else part.state_dict() for part in (one, two))
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


def timeless(rows):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


# settings


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("epochs", 2.0), ("epochs", True), ("batch_size", 1), ("learning_rate", 0), ("learning_rate", math.nan),
     ("weight_decay", -1), ("warmup_epochs", 40), ("warmup_epochs", -1), ("min_lr_share", 1.5), ("clip_norm", 0),
     ("precision", "fp8"), ("chunk", 0), ("checkpoint_steps", 0), ("seed", -1), ("seed", None)],
)  # fmt: skip
def test_bad_settings_are_named(name, value):
    with pytest.raises(InputError, match=f"training: {name}"):
        TrainingConfig(**{name: value})


def test_the_learning_rate_rises_and_falls():
    config = TrainingConfig(epochs=10, learning_rate=2.0, warmup_epochs=2, min_lr_share=0.1)
    rates = [learning_rate(config, t) for t in (0, 1, 2, 6, 10)]
    assert rates == pytest.approx([0, 1, 2, 2 * (0.1 + 0.9 / 2), 0.2])
    assert learning_rate(TrainingConfig(epochs=4), 1) == pytest.approx(1e-4 * (1 + math.sqrt(0.5)) / 2)


def test_biases_norms_and_scalars_do_not_decay():
    model = Toy(norm=True)
    model.satellite.requires_grad_(False)
    groups = adamw(model, TrainingConfig(weight_decay=0.3)).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, plain = ({names[id(p)] for p in group["params"]} for group in groups)
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert decayed == {"ground.0.weight", "ground.5.weight"}
    assert plain == {"ground.0.bias", "ground.5.bias", "ground.1.weight", "ground.1.bias", "log_scale"}
    with pytest.raises(InputError, match="parameters to learn"):
        adamw(model.requires_grad_(False), TrainingConfig())


def test_the_optimiser_is_torchs_default_on_a_cpu():
    assert [group["fused"] for group in adamw(Toy(), TrainingConfig()).param_groups] == [None, None]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_optimiser_is_one_kernel_if_all_parameters_are_there():
    model = Toy()
    model.ground.cuda()
    assert [group["fused"] for group in adamw(model, TrainingConfig()).param_groups] == [None, None]
    assert [group["fused"] for group in adamw(model.cuda(), TrainingConfig()).param_groups] == [True, True]


# what it does


def test_it_is_the_plain_loop(tmp_path):
    """The oracle: torch's AdamW, a cosine written out, batches in order; no dropout, no noise, so nothing is random."""
    config = TrainingConfig(epochs=3, batch_size=4, learning_rate=1e-2, weight_decay=0.1, warmup_epochs=0.5)
    task = Pairs(noise=0.0, dtype=torch.float64)
    model, rows = run(tmp_path, config, Toy(dtype=torch.float64), task)
    assert [len(items) for items in task.items] == [4] * 9  # the two items left over are dropped
    for epoch in range(3):
        seen = [item for items in task.items[3 * epoch : 3 * epoch + 3] for item in items]
        assert len(set(seen)) == 12
    assert len({tuple(items) for items in task.items}) == 9  # shuffled anew in each epoch

    plain = Toy(dtype=torch.float64)
    decayed = [p for p in plain.parameters() if p.ndim > 1]
    others = [p for p in plain.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0}])
    losses = []
    for step, items in enumerate(task.items):
        done = (step + 0.5) / 3
        rate = 1e-2 * (done / 0.5 if done < 0.5 else (1 + math.cos(math.pi * (done - 0.5) / 2.5)) / 2)
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad()
        ground, satellite = plain(task.satellite[items], task.satellite[items])
        loss = F.cross_entropy(plain.log_scale.exp() * ground @ satellite.T, torch.arange(4))
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-9, atol=1e-12)
    for epoch, row in enumerate(rows):
        assert row["loss"] == pytest.approx(sum(losses[3 * epoch : 3 * epoch + 3]) / 3, rel=1e-5)
    assert rows[-1]["lr"] == pytest.approx(rate)


def test_it_learns_and_leaves_weights_and_metrics(tmp_path):
    model, rows = run(tmp_path, replace(SHORT, epochs=12, learning_rate=1e-2), Toy(), after_epoch=measured)
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [METRICS, WEIGHTS]
    assert [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()] == rows
    assert list(rows[0]) == ["epoch", "loss", "lr", *TIMES, "drawn", "weight"]
    assert [row["epoch"] for row in rows] == list(range(12))
    assert rows[0]["images_per_second"] == pytest.approx(2 * 12 / rows[0]["seconds"])
    assert_same_weights(load_file(tmp_path / WEIGHTS), model)
    assert not any(module.training for module in model.modules())


def test_the_seed_alone_decides(tmp_path):
    torch.manual_seed(1)
    one, _ = run(tmp_path / "1")
    drawn = torch.rand(2)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(2), drawn)  # the caller's generator stands where it stood
    two, _ = run(tmp_path / "2", task=Pairs(), after_epoch=measured)  # another state of it, and a measure that draws
    assert_same_weights(one, two)
    three, _ = run(tmp_path / "3", replace(SHORT, seed=1))
    assert not torch.equal(one.ground[0].weight, three.ground[0].weight)


def test_loading_ahead_changes_nothing(tmp_path):
    threads = torch.get_num_threads()
    one, two = Pairs(mined=True), Pairs(mined=True)
    plain, _ = run(tmp_path / "1", task=one)
    ahead, _ = run(tmp_path / "2", replace(SHORT, prefetch=True), task=two)
    assert_same_weights(plain, ahead)
    assert one.items == two.items
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("chunk", [1, 3, 4])
def test_gradient_caching_changes_nothing(tmp_path, chunk):
    models = [
        run(tmp_path / str(c), replace(SHORT, chunk=c), Toy(dtype=torch.float64), Pairs(dtype=torch.float64))[0]
        for c in (None, chunk)
    ]
    for name, value in models[0].state_dict().items():
        torch.testing.assert_close(models[1].state_dict()[name], value, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("count", "sizes"), [(2, [2]), (3, [3]), (4, [4]), (9, [4, 4])])
def test_few_items_make_one_smaller_batch(tmp_path, count, sizes):
    task = Pairs(count)
    run(tmp_path, replace(SHORT, epochs=1), task=task)
    assert [len(items) for items in task.items] == sizes


@pytest.mark.parametrize("count", [0, 1])
def test_an_epoch_needs_two_items(tmp_path, count):
    with pytest.raises(InputError, match=f"epoch 0: expected at least 2 items to contrast, found {count}"):
        run(tmp_path, task=Pairs(count))


def test_items_are_whole_numbers(tmp_path):
    task = Pairs()
    task.order = lambda *_: torch.rand(14)
    with pytest.raises(InputError, match="items as int64"):
        run(tmp_path, task=task)


def test_clipping_bounds_the_gradient(tmp_path):
    norms = {}
    for limit in (None, 1e-3):
        model, norms[limit] = Toy(), []
        task = Pairs(on_step=lambda _, m=model, n=norms[limit]: n.append(float(nn.utils.get_total_norm(
            [p.grad for p in m.parameters()]))))  # fmt: skip
        run(tmp_path / str(limit), replace(SHORT, clip_norm=limit), model, task)
    assert min(norms[None]) > 2e-3
    assert norms[1e-3] == pytest.approx([1e-3] * 6, rel=1e-2)


def test_one_process_trains_in_several_precisions(tmp_path):
    one, _ = run(tmp_path / "1")
    half, rows = run(tmp_path / "2", replace(SHORT, precision="bf16"))
    two, _ = run(tmp_path / "3")
    assert_same_weights(one, two)
    assert half.ground[0].weight.dtype == torch.float32
    assert not torch.equal(half.ground[0].weight, one.ground[0].weight)
    torch.testing.assert_close(half.ground[0].weight, one.ground[0].weight, atol=0.03, rtol=0)
    assert all(math.isfinite(row["loss"]) for row in rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU can train in fp16")
def test_a_cpu_cannot_train_in_fp16(tmp_path):
    with pytest.raises(InputError, match="Use bf16 or fp32"):
        run(tmp_path, replace(SHORT, precision="fp16"))
    assert not list(tmp_path.iterdir())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_trains_in_every_precision_and_resumes(tmp_path, precision):
    config = replace(SHORT, epochs=6, learning_rate=1e-2, precision=precision, chunk=2, clip_norm=1.0)

    def stop(steps):
        if steps == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, config, task=Pairs(on_step=stop))
    model, rows = run(tmp_path, config)
    assert model.ground[0].weight.is_cuda
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_weights_that_two_encoders_share_are_saved_once(tmp_path):
    def shared():
        model = Toy(dropout=0.3)
        model.satellite = model.ground
        return model

    def stop(steps):
        if steps == 5:
            raise KeyboardInterrupt

    whole, _ = run(tmp_path / "whole", model=shared())
    assert not any(name.startswith("satellite") for name in load_file(tmp_path / "whole" / WEIGHTS))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", model=shared(), task=Pairs(on_step=stop))
    parts, _ = run(tmp_path / "parts", model=shared())
    assert_same_weights(whole, parts)


def test_the_bar_tells_epoch_loss_and_name(tmp_path, capsys):
    run(tmp_path, name="intra-view", progress=True)
    shown = capsys.readouterr().err
    assert "intra-view epoch 2/2" in shown
    assert "loss=" in shown
    assert "6/6" in shown
    run(tmp_path / "silent")
    assert capsys.readouterr().err == ""


# stopping and going on


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return killable(tmp_path_factory.mktemp("whole"), lambda steps: None)


@pytest.mark.parametrize("step", range(1, 4 * STEPS + 1))
def test_a_run_stopped_at_any_step_goes_on_bit_for_bit(tmp_path, uninterrupted, step):
    def stop(steps):
        if steps == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killable(tmp_path, stop)
    assert not (tmp_path / WEIGHTS).exists()
    taken = []
    model, rows = killable(tmp_path, taken.append)
    assert_same_weights(uninterrupted[0], model)
    assert timeless(rows) == timeless(uninterrupted[1])
    assert [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()] == rows
    at_checkpoint = step - 1 if (step - 1) % 3 in (0, 2) else step - 2  # after two steps and at each epoch's end
    assert taken == list(range(at_checkpoint + 1, 13))  # and nothing that was saved is done again
    assert sorted(path.name for path in tmp_path.iterdir()) == [METRICS, WEIGHTS]


def test_a_run_stopped_at_every_step_in_turn_goes_on(tmp_path, uninterrupted):
    config = replace(KILLED, checkpoint_steps=1)

    def stop_after_one(folder, task):
        begun = []

        def stop(steps):
            begun.append(steps)
            if len(begun) == 2:
                raise KeyboardInterrupt

        task.on_step = stop
        return run(folder, config, Toy(dropout=0.3, norm=True), task, after_epoch=measured)

    for _ in range(4 * STEPS - 1):
        with pytest.raises(KeyboardInterrupt):
            stop_after_one(tmp_path, Pairs(mined=True))
    model, rows = stop_after_one(tmp_path, Pairs(mined=True))
    assert_same_weights(uninterrupted[0], model)
    assert timeless(rows) == timeless(uninterrupted[1])


@pytest.mark.parametrize("epoch", range(4))
def test_a_run_stopped_while_measuring_measures_again(tmp_path, uninterrupted, epoch):
    def stop(at, model):
        if at == epoch:
            raise KeyboardInterrupt
        return measured(at, model)

    def toy():
        return {"model": Toy(dropout=0.3, norm=True), "task": Pairs(mined=True)}

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, KILLED, **toy(), after_epoch=stop)
    model, rows = run(tmp_path, KILLED, **toy(), after_epoch=measured)
    assert_same_weights(uninterrupted[0], model)
    assert timeless(rows) == timeless(uninterrupted[1])


def test_a_stop_while_a_checkpoint_is_written_leaves_the_last_one(tmp_path, uninterrupted, monkeypatch):
    written = []

    def half_written(tensors, path, metadata):
        written.append(path)
        if len(written) == 4:
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        save_file(tensors, path, metadata)

    with monkeypatch.context() as patch:
        patch.setattr("ucvgl.checkpoints.save_file", half_written)
        with pytest.raises(KeyboardInterrupt):
            killable(tmp_path, lambda steps: None)
    model, _ = killable(tmp_path, lambda steps: None)
    assert_same_weights(uninterrupted[0], model)
    assert sorted(path.name for path in tmp_path.iterdir()) == [METRICS, WEIGHTS]


def test_a_finished_run_is_loaded(tmp_path, uninterrupted):
    one, first = run(tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"left by a kill between the two last steps")
    task, measurements = Pairs(), []
    two, again = run(tmp_path, task=task, after_epoch=lambda *a: measurements.append(a))
    assert again == first
    assert_same_weights(one, two)
    assert not task.items
    assert not measurements
    assert not (tmp_path / CHECKPOINT).exists()


@pytest.mark.parametrize("finished", [False, True])
def test_other_settings_or_another_model_cannot_go_on(tmp_path, finished):
    def stop(steps):
        if steps == 4 and not finished:
            raise KeyboardInterrupt

    try:
        run(tmp_path, task=Pairs(on_step=stop))
    except KeyboardInterrupt:
        assert not finished
    assert (tmp_path / WEIGHTS).exists() == finished
    wanted = "expected the settings it began with: learning_rate=0.003, seed=0, found learning_rate=0.1, seed=2"
    with pytest.raises(InputError, match=wanted):
        run(tmp_path, replace(SHORT, learning_rate=0.1, seed=2))
    other = Toy()
    other.ground[5] = nn.Linear(36, 6)
    with pytest.raises(InputError, match=r"ground.5.bias \(5,\), found \(6,\)"):
        run(tmp_path, model=other)
    more = Toy()
    more.extra = nn.Linear(1, 1)
    with pytest.raises(InputError, match=r"extra\.bias nothing"):
        run(tmp_path, model=more)
    path = tmp_path / (WEIGHTS if finished else CHECKPOINT)
    whole = path.read_bytes()
    for damage in (whole[:-1], whole[:50], b""):
        path.write_bytes(damage)
        with pytest.raises(InputError, match="expected a whole file of a training"):
            run(tmp_path)
    save_file(weights_of(Toy()), path)
    with pytest.raises(InputError, match="expected a whole file of a training"):
        run(tmp_path)
    path.write_bytes(whole)
    run(tmp_path)


def test_a_parameter_frozen_since_cannot_go_on(tmp_path):
    def stop(steps):
        if steps == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, task=Pairs(on_step=stop))
    frozen = Toy(dropout=0.3)
    frozen.ground[0].requires_grad_(False)
    with pytest.raises(InputError, match=r"ground\.0\.bias to be learnt, found it frozen"):
        run(tmp_path, model=frozen)


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


def test_a_measure_that_is_not_finite_is_told(tmp_path):
    with pytest.raises(InputError, match="epoch 0, recall: expected a finite number"):
        run(tmp_path, after_epoch=lambda epoch, model: {"recall": math.nan})


def test_a_task_needs_no_state(tmp_path):
    class Points(Task):
        def order(self, epoch, model, generator):
            return torch.randperm(6, generator=generator)

        def batch(self, items, generator):
            return Batch((torch.eye(6)[items],))

        def embed(self, model, inputs):
            return (model(inputs[0]),)

        def loss(self, model, embeddings, labels):
            assert labels == ()
            return embeddings[0].square().sum()

    torch.manual_seed(0)
    _, rows = run(tmp_path, model=nn.Linear(6, 2), task=Points())
    assert rows[1]["loss"] < rows[0]["loss"]


# other processes


def work(*arguments, launcher=(), runs=None):
    environment = {**os.environ, "UCVGL_RUNS": str(runs), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *launcher, str(WORKER), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(tmp_path):
    """Several kills at moments drawn from a seed; the first after one step, before there is any checkpoint."""
    moments = [1, *random.Random(0).sample(range(2, 7), 3)]
    *killed, finished, _whole = work("kill", tmp_path, *moments).splitlines()
    assert killed == [f"{moment} steps, killed {int(signal.SIGKILL)}" for moment in moments]
    assert finished.endswith("exit 0")
    assert_same_weights(load_file(tmp_path / "killed" / WEIGHTS), load_file(tmp_path / "whole" / WEIGHTS))
    rows = [timeless(map(json.loads, (tmp_path / n / METRICS).read_text().splitlines())) for n in ("killed", "whole")]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 4


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    out = work("together", tmp_path, launcher=launcher, runs=tmp_path / "runs")
    for name, config in TOGETHER.items():
        task = Pairs(noise=0.0, mined=True, dtype=torch.float64)
        model = Toy(dtype=torch.float64)
        gradients = gradients_kept(model, task)
        run(tmp_path / "one" / name, config, model, task)
        ranks = [load_file(tmp_path / f"{name}-{rank}.safetensors") for rank in (0, 1)]
        assert_same_weights(*ranks)
        assert_same_weights(ranks[0], load_file(tmp_path / name / WEIGHTS))
        for key, value in model.state_dict().items():
            torch.testing.assert_close(ranks[0][key], value, rtol=1e-9, atol=1e-11)
        for rank in (0, 1):
            found = load_file(tmp_path / f"{name}-{rank}-found.safetensors")
            assert torch.equal(found["labels"], task.labels)
            torch.testing.assert_close(found["gradients"], torch.stack(gradients), rtol=1e-8, atol=1e-10)
        assert not torch.equal(task.labels, torch.arange(14))  # mining did change the labels
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == [METRICS, WEIGHTS]
    for rank in (0, 1):
        assert "a multiple of the 2 processes, found 5" in (tmp_path / f"odd-{rank}.txt").read_text()
    said = [line.split(": ")[1].split()[0] for line in out.splitlines() if line.startswith("toy-")]
    assert said == ["ran", "loaded"]
