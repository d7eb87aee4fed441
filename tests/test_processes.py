"""Several processes: the losses of all methods over the rows of all, sharded embeddings, who waits for whom, and failures.

One launch of two processes on the CPU does it all; what it left is compared with one process that had the joint batch.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_worker import BATCHES, LOSSES, Toy, embedded, learnt, some_batches

from ucvgl.distributed import Alone, agreed, embed_sharded, first_alone, gather_rows, processes

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


def test_each_process_embeds_its_part_alone(shared):
    calls = [load_file(shared / f"shared-{rank}.safetensors")["calls"].tolist() for rank in (0, 1)]
    assert calls == [[0, 0, 1, 1, 2], [0, 1, 1, 2, 3]]


def test_rows_of_any_type_and_number_are_gathered_in_order(shared):
    for rank in (0, 1):
        found = load_file(shared / f"shared-{rank}.safetensors")
        assert found["integers"].tolist() == [10, 11, 12]  # the first process has none
        assert found["pairs"].tolist() == [[False], [True], [True]]
        assert int(found["agreed"]) == 7


def test_what_the_first_does_alone_the_others_find(shared):
    assert (shared / "computed").read_text() == "0 0 "  # each of the two stages once, by the first process


@pytest.mark.slow
def test_a_failure_in_one_process_ends_all_with_its_message(tmp_path):
    begun = time.monotonic()
    done = launch("fail", tmp_path)
    assert done.returncode != 0
    assert "toy: expected a disk, found none. Buy one." in done.stderr
    assert time.monotonic() - begun < 120  # and nobody waits for the week that a process would
    assert not [path for path in (tmp_path / "runs").iterdir() if not path.name.startswith(".")]  # no stage is complete


def test_one_process_has_nothing_to_share():
    place, rows = processes(), torch.arange(6).view(3, 2)
    assert place.num_processes == 1
    assert gather_rows(rows, place) is rows
    assert agreed(3, place) == 3
    assert torch.equal(embed_sharded(lambda batches: torch.cat(batches), rows.split(1), place), rows)


def test_alone_is_nested_and_ends_with_an_error():
    with first_alone():
        assert isinstance(processes(), Alone)
        with first_alone():
            assert isinstance(processes(), Alone)
        assert isinstance(processes(), Alone)
        processes().wait_for_everyone()
    with pytest.raises(ZeroDivisionError), first_alone():
        _ = 1 / 0
    assert not isinstance(processes(), Alone)
