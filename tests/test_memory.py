"""Peak memory, measured."""

import mmap
import sys

import pytest
import torch

from ucvgl import memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux keeps the peak, other systems do not")
def test_what_was_given_back_still_counts():
    peak = memory.measure_peak(torch.device("cpu"))
    # asked of the system itself: an array may get memory that an earlier test freed and the allocator kept
    with mmap.mmap(-1, 100 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        block.write(b"1" * len(block))
    assert 95 < peak() < 400
    again = memory.measure_peak(torch.device("cpu"))
    assert again() < 50  # from the present on


def test_unknown_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "RESET", tmp_path / "none" / "clear_refs")
    assert memory.measure_peak(torch.device("cpu"))() is None
    monkeypatch.setattr(memory, "RESET", tmp_path / "clear_refs")
    monkeypatch.setattr(memory, "STATUS", tmp_path / "status")
    (tmp_path / "status").write_text("Name: other\n")
    assert memory.measure_peak(torch.device("cpu"))() is None


def test_what_a_step_keeps_by_hand():
    """y = W x + b, then a square: W, x and y are kept, b is not."""
    layer, x = torch.nn.Linear(10, 5), torch.rand(3, 10)
    with memory.saved_for_backward() as saved:
        layer(x).square().sum()
    floats = 3 * 10 + 3 * 5
    parameters = 10 * 5 + 5
    assert memory.training_bytes(layer, saved) == 4 * (floats + parameters + 3 * parameters)
    layer.requires_grad_(False)
    with memory.saved_for_backward() as saved:
        layer(x).square().sum()
    assert memory.training_bytes(layer, saved) == 4 * parameters
