"""Two processes: training as one, the losses of all methods, resume, sharded embeddings, what is made once.

What two processes on the CPU left is compared with one process that had the joint batch.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_worker import COUNTS, LOSSES, assert_same_weights, embedded, learnt

from ucvgl.checkpoints import without
from ucvgl.methods import common

pytestmark = pytest.mark.xdist_group("processes")
WORKER = Path(__file__).with_name("training_worker.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    environment = {**os.environ, "UCVGL_RUNS": str(folder / "runs"), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(WORKER)]
    command += ["together", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def found(folder):
    """What each of the two processes found."""
    return [load_file(folder / f"{rank}.safetensors") for rank in (0, 1)]


@pytest.mark.parametrize("name", LOSSES)
def test_two_processes_have_the_gradients_and_weights_of_the_joint_batch(found, tmp_path, name):
    one, two = learnt(name, tmp_path), [without(f"{name}/", each) for each in found]
    assert_same_weights(*two)
    assert one["step gradients"].shape[0] == 4  # two epochs of two steps
    assert one["step gradients"].abs().amax(1).min() > 1e-4 or name == "moco"  # whose queue is empty at first
    torch.testing.assert_close(two[0], dict(one), rtol=1e-8, atol=1e-10)
    assert name != "chunks" or not torch.equal(one["labels"], torch.arange(14))  # mining did change the labels


def test_two_processes_resume_bit_for_bit(found):
    for each in found:
        assert_same_weights(without("stopped/", each), without("whole/", each))


@pytest.mark.parametrize("count", COUNTS)
def test_sharded_embeddings_are_those_of_one_process_bit_for_bit(found, count, monkeypatch):
    monkeypatch.setattr(common, "EMBED_BATCH", 3)
    one = embedded(count)
    assert len(one) == count
    assert all(torch.equal(each[f"sharded/{count}"], one) for each in found)


def test_rows_of_any_type_come_in_the_order_of_the_processes(found):
    for each in found:
        assert each["integers"].tolist() == [0, 1, 10, 11]
        assert each["pairs"].tolist() == [[False], [True], [True], [True]]
        assert each["uneven"].tolist() == [0, 10, 11]
        assert int(each["agreed"]) == 7


def test_an_odd_batch_is_refused_and_what_is_made_once_is_made_by_one(folder):
    for rank in (0, 1):
        assert "a multiple of the 2 processes, which share it, found 5" in (folder / f"odd-{rank}.txt").read_text()
    assert (folder / "made").read_text() in ("by 0", "by 1")
