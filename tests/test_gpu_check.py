"""The first hour with a GPU, at sizes that a CPU does in seconds: what is measured without one, and that it resumes."""

import importlib
import sys
from dataclasses import replace

import pytest

from ucvgl import paths
from ucvgl.lab import profiles

sys.path.insert(0, str(paths.ROOT / "benchmarks"))  # no package
gpu = importlib.import_module("gpu")

TINY = replace(
    gpu.SMALL, px=32, few_pairs=2, steps=gpu.WARM_UP + 1, images=400, width=16, chunk_bytes=1 << 14, checked=50
)


def test_precision_and_matches_are_measured_once(fresh_runs, tmp_path, monkeypatch, capsys):
    out = tmp_path / "gpu.md"
    assert gpu.measured(TINY, ["precision", "matches"], out) == 0
    text = out.read_text()
    assert "Small sizes" in text
    assert "| float32 |" in text
    assert "| 50 of 50 |" in text
    exact, plain, half = (line.split(" | ") for line in text.splitlines() if line.startswith("| test_convnext"))
    assert float(exact[4]) == float(plain[4]) == 0.0  # no TF32 on a CPU
    assert 0 < float(half[4]) < 0.1

    monkeypatch.setattr(gpu, "both_ways", None)  # a second run measures nothing
    assert gpu.measured(TINY, ["matches"], out) == 0
    assert out.read_text() == text
    capsys.readouterr()


def test_a_failure_is_reported_and_the_others_go_on(fresh_runs, tmp_path, monkeypatch, capsys):
    def broken(asked):
        """Fails."""
        raise ValueError("no such\nkernel")

    def works(asked):
        """Works."""
        return "A note.", [{"seconds": "1"}]

    monkeypatch.setattr(gpu, "MEASUREMENTS", (broken, works))
    assert gpu.measured(TINY, [], tmp_path / "gpu.md") == 1
    text = (tmp_path / "gpu.md").read_text()
    assert "Failed: ValueError: no such kernel" in text
    assert "| seconds |\n| --- |\n| 1 |" in text
    capsys.readouterr()


@pytest.mark.skipif(gpu.torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 2
    assert "needs a CUDA device" in capsys.readouterr().err


def test_the_study_is_the_laptops_but_larger():
    settings, laptop = gpu.study_settings(replace(gpu.Asked(), backbone=gpu.LITE)), profiles.ucvgl("laptop", 0)
    assert (settings.train.places, settings.images.query_px) == (20_000, (128, 256))
    assert settings.start.ground.image_px == (128, 256)
    assert settings.curriculum.start == settings.start
    assert settings.curriculum.rule == laptop.curriculum.rule
    assert settings.start.cross.epochs_before == settings.start.intra.epochs
