"""Two processes: training as one, the losses of all methods, resume, sharded embeddings, who waits for whom.

What two processes on the CPU left is compared with one process that had the joint batch.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_worker import (
    BATCHES,
    LOSSES,
    TOGETHER,
    Pairs,
    Toy,
    assert_same_weights,
    embedded,
    gradients_kept,
    learnt,
    some_batches,
)

from ucvgl import checkpoints
from ucvgl.distributed import SingleProcess, main_process_first, processes
from ucvgl.training import CHECKPOINT, train

pytestmark = pytest.mark.xdist_group("processes")
WORKER = Path(__file__).with_name("training_worker.py")


def launch(mode, folder):
    environment = {**os.environ, "UCVGL_RUNS": str(folder / "runs"), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(WORKER)]
    return subprocess.run([*command, mode, str(folder)], env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    done = launch("share", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", LOSSES)
def test_two_processes_have_the_loss_and_gradients_of_the_joint_batch(shared, tmp_path, name):
    one = learnt(name, tmp_path)
    two = [load_file(shared / f"{name}-{rank}.safetensors") for rank in (0, 1)]
    assert one.keys() == two[0].keys() == two[1].keys()
    assert "log_scale" in one or name != "info_nce"
    assert ("queue.keys" in one) == (name == "moco")
    assert one["step gradients"].shape[0] == 4  # two epochs of two steps
    assert one["step gradients"].abs().amax(1).min() > 1e-4 or name == "moco"  # whose queue is empty at first
    for key, value in one.items():
        assert torch.equal(two[0][key], two[1][key]), key
        close = {"rtol": 1e-6, "atol": 1e-7} if key == "epoch losses" else {"rtol": 1e-8, "atol": 1e-10}
        torch.testing.assert_close(two[0][key], value, **close, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("count", BATCHES)
def test_sharded_embeddings_are_those_of_one_process_bit_for_bit(shared, count):
    one = embedded(Toy().ground.eval(), some_batches(count))
    for rank in (0, 1):
        assert torch.equal(load_file(shared / f"shared-{rank}.safetensors")[str(count)], one)
    assert len(one) == max(0, 3 * count - 1)


def test_labels_of_any_type_are_gathered_in_order(shared):
    for rank in (0, 1):
        found = load_file(shared / f"shared-{rank}.safetensors")
        assert found["integers"].tolist() == [0, 1, 10, 11]
        assert found["pairs"].tolist() == [[False], [True], [True], [True]]
        assert int(found["agreed"]) == 7


def test_what_the_main_process_computed_first_the_others_find(shared):
    assert (shared / "computed").read_text() == "0 0 "  # each of the two stages once, by the main process


@pytest.mark.slow
def test_two_processes_train_as_one_and_resume_bit_for_bit(tmp_path):
    done = launch("together", tmp_path)
    assert done.returncode == 0, done.stderr
    for name, config in TOGETHER.items():
        task = Pairs(noise=0.0, mined=True, dtype=torch.float64)
        model = Toy(dtype=torch.float64)
        gradients = gradients_kept(model, task)
        train(model, task, config, tmp_path / "one" / name, progress=False)
        ranks = [load_file(tmp_path / f"{name}-{rank}.safetensors") for rank in (0, 1)]
        assert_same_weights(*ranks)
        assert_same_weights(ranks[0], checkpoints.without("model.", load_file(tmp_path / name / CHECKPOINT)))
        for key, value in model.state_dict().items():
            torch.testing.assert_close(ranks[0][key], value, rtol=1e-9, atol=1e-11)
        for rank in (0, 1):
            found = load_file(tmp_path / f"{name}-{rank}-found.safetensors")
            assert torch.equal(found["labels"], task.labels)
            torch.testing.assert_close(found["gradients"], torch.stack(gradients), rtol=1e-8, atol=1e-10)
        assert not torch.equal(task.labels, torch.arange(14))  # mining did change the labels
    for rank in (0, 1):  # stopped and resumed, and without a break
        stopped, whole = (load_file(tmp_path / f"{name}-{rank}.safetensors") for name in ("stopped", "whole"))
        assert_same_weights(stopped, whole)
        assert "a multiple of the 2 processes, which share it, found 5" in (tmp_path / f"odd-{rank}.txt").read_text()
    said = [line.split(": ")[1].split()[0] for line in done.stdout.splitlines() if line.startswith("toy-")]
    assert said == ["ran", "loaded"]


def test_main_process_first_is_nested_and_ends_with_an_error():
    with main_process_first():
        with main_process_first():
            assert isinstance(processes(), SingleProcess)
        assert isinstance(processes(), SingleProcess)
        processes().wait_for_everyone()
    with pytest.raises(ZeroDivisionError), main_process_first():
        _ = 1 / 0
    assert not isinstance(processes(), SingleProcess)
