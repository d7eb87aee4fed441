"""Peak memory, measured."""

import sys

import pytest
import torch

from ucvgl import memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux keeps the peak, other systems do not")
def test_a_freed_array_still_counts():
    peak = memory.measure_peak(torch.device("cpu"))
    block = torch.ones(100 << 20, dtype=torch.uint8)
    del block
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
