"""The benchmarks: questions run at a tiny size, and their checks of agreement hold.

The official functions are naive ones written here, under the official names.
"""

import sys
import time
from dataclasses import replace

import pytest
import torch

from ucvgl import paths

sys.path.insert(0, str(paths.ROOT / "benchmarks"))  # no package
import gpu
import official
import side_by_side

TINY = replace(official.SMALL, gallery=120, width=16, repeats=1)
WRITTEN = ("recall", "nearest lists", "pseudo-labels")  # below, but for the forms with semi-positives
ROWS = [row for row in side_by_side.ROWS if row.task.startswith(WRITTEN) and "vigor." not in row.function]


def get_pseudo_labels(loader, model, args, epoch):
    ground, tile = model(*(torch.cat(part) for part in list(zip(*loader, strict=True))[:2]))
    similarity = ground @ tile.T
    value, best = similarity.topk(2)
    mutual = similarity.argmax(0)[best[:, 0]] == torch.arange(len(ground))
    sure = mutual & (value[:, 0] - value[:, 1] >= args.threshold)
    return {int(g): int(best[g, 0]) for g in sure.nonzero()[:, 0]}


def calculate_scores(query, reference, query_labels, reference_labels, step_size=1000, ranks=()):
    time.sleep(30)  # is left out
    similarity = query @ reference.T
    rank = (similarity > similarity.gather(1, query_labels[:, None])).sum(1)
    for name, k in [*((k, k) for k in ranks), ("top1", len(reference) // 100)]:
        sys.stdout.write(f"Recall@{name}: {100 * float((rank < k).float().mean()):.4f} - ")


def calculate_nearest(query, reference, query_labels, reference_labels, neighbour_range=64, step_size=1000):
    order = (query @ reference.T).argsort(dim=1, descending=True).tolist()
    return {i: [j for j in row if j != query_labels[i]][:neighbour_range] for i, row in enumerate(order)}


get_pseudo_labels_vigor = get_pseudo_labels


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.task)
def test_a_question_agrees_with_naive_code(monkeypatch, tmp_path, row):
    monkeypatch.setattr(official.Clone, "get", lambda self, module, name, folder=".": globals()[name])
    found = side_by_side.work(row, tmp_path, TINY, "time")
    assert "times faster" in found, found
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(("theirs", "ours", "says"), [
    (lambda: 1, lambda: 8, "results differ: not timed; apart: largest difference 7 (allowed 0)"),
    (lambda: 1 / 0, lambda: 1, "ZeroDivisionError: division by zero"),
    (lambda: 1, lambda: 1 / 0, "ucvgl failed: ZeroDivisionError: division by zero"),
])  # fmt: skip
def test_other_results_are_not_timed_and_failures_are_told_apart(tmp_path, theirs, ours, says):
    pair = official.Pair("", theirs, ours, lambda a, b: official.close(abs(a - b), 0, "apart"))
    found = side_by_side.work(official.Row("", "", "", lambda clone, sizes: pair, ""), tmp_path, TINY, "time")
    assert found["agreement"] == says


def test_the_gpus_measurements_run_at_small_sizes_once(fresh_runs, tmp_path, monkeypatch, capsys):
    tiny = replace(gpu.SMALL, px=32, few_pairs=2, steps=gpu.WARM_UP + 1, images=400, width=16, checked=50)
    out = tmp_path / "gpu.md"
    assert gpu.measured(tiny, ["precision", "matches"], out) == 0
    exact, plain, half = (
        line.split(" | ") for line in out.read_text().splitlines() if line.startswith("| test_convnext")
    )
    assert float(exact[4]) == float(plain[4]) == 0.0  # no TF32 on a CPU
    assert 0 < float(half[4]) < 0.1
    assert "| 50 of 50 |" in out.read_text()

    monkeypatch.setattr(gpu, "both_ways", None)  # fails where it is called
    assert gpu.measured(tiny, ["matches"], out) == 0  # measured before
    assert gpu.measured(replace(tiny, small=False), ["matches"], out) == 1
    assert "Failed: TypeError" in out.read_text()
