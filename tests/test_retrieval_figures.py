"""Figures of a retrieval run: what is drawn is what was given, with nothing right, gaps, and what is not known."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from scipy.stats import spearmanr

from ucvgl import retrieval_figures as r

mpl.use("agg")
pytestmark = pytest.mark.usefixtures("drawn_figures")


def heights(axes, colour):
    """Heights of a histogram's bars of one colour, from the left."""
    bars = [p for p in axes.patches if to_hex(p.get_facecolor()) == colour and p.get_height() > 0]
    return [round(p.get_height()) for p in sorted(bars, key=lambda p: p.get_x())]


def test_each_stage_has_a_panel_with_its_losses() -> None:
    rows = {
        "first": [{"epoch": e, "loss": 3.0 - e, "seconds": 2.0} for e in range(3)],
        "second": [{"epoch": 0, "loss": float("nan"), "seconds": 1.0}, {"epoch": 1, "loss": 0.5, "seconds": 2.0}],
    }
    axes = r.loss_plot(rows).axes
    assert [a.get_title() for a in axes] == ["first: 3 × 2.0 s", "second: 2 × 1.5 s"]
    assert axes[0].lines[0].get_ydata().tolist() == [3.0, 2.0, 1.0]
    assert np.isnan(axes[1].lines[0].get_ydata()[0])


def test_similarities_stand_in_the_order_of_the_drive() -> None:
    before, order = torch.arange(16.0).view(4, 4) / 16, torch.tensor([2, 0, 3])
    figure = r.similarity_structure(before, torch.eye(4), order)
    naive = [[float(before[i, j]) for j in (2, 0, 3)] for i in (2, 0, 3)]
    assert np.asarray(figure.axes[0].images[0].get_array()).tolist() == naive
    # before: row 2 is greatest at 3, row 0 at 3, row 3 at 3: one of three
    assert "33 %" in figure.axes[0].get_title()
    assert "100 %" in figure.axes[1].get_title()


def test_a_curve_for_each_rule_and_its_point_in_use() -> None:
    frame = pd.DataFrame({
        "rule": ["a", "a", "a", "b"],
        "coverage": [40.0, 20.0, 0.0, 30.0],
        "precision": [50.0, 80.0, np.nan, 60.0],
        "chosen": [False, True, False, False],
    })  # fmt: skip
    curves = {line.get_label(): line.get_xydata().tolist() for line in r.precision_coverage(frame).axes[0].lines}
    assert curves["a"] == [[40, 50], [20, 80]]  # no label, no precision
    assert curves["a: in use"] == [[20, 80]]
    assert curves["b"] == [[30, 60]]


def test_margins_are_split_by_mutual_and_right() -> None:
    margin = torch.tensor([0.0, 0.01, 0.05, 0.1, 0.1, 0.02])
    right = torch.tensor([True, False, True, True, False, False])
    mutual = torch.tensor([True, True, True, True, False, False])
    left, other = r.margin_histogram(margin, right, mutual, 0.05).axes
    assert (heights(left, r.RIGHT_COLOUR), heights(left, r.WRONG_COLOUR)) == ([1, 1, 1], [1])
    assert (heights(other, r.RIGHT_COLOUR), heights(other, r.WRONG_COLOUR)) == ([], [1, 1])
    # a margin at the threshold counts, as in mining
    assert left.get_title() == "Mutual: 4, 75 % of them right\nkept by the threshold: 2, 100 % of them right"


def test_a_threshold_counts_as_in_mining() -> None:
    margin, right = torch.tensor([0.00, 0.02, 0.06, 0.10, 0.20]), torch.tensor([False, True, False, True, True])
    # a margin of exactly 0.06 counts, though float32 has it below 0.06; the fourth is no candidate
    candidate = torch.tensor([True, True, True, False, True])
    ((sentence, figure),) = r.threshold_look(margin, right, candidate, 0.06).items()
    assert sentence == "labels: 2, 50 % of them right (40.0 % of 5 ground images)"
    assert [bar.get_width() for bar in figure.axes[1].patches] == pytest.approx([20, 20, 60])
    none = torch.zeros(5).bool()
    assert list(r.threshold_look(margin, none, none, 0.0)) == ["labels: none (0.0 % of 5 ground images)"]


def test_labels_threshold_and_recall_by_epoch() -> None:
    frame = pd.DataFrame({"epoch": [0, 1, 2], "labels": [0, 2, 3], "correct": [np.nan, 1, 2],
                          "threshold": [0.05, 0.02, 0.0], "r_at_1": [10.0, np.nan, 30.0]})  # fmt: skip
    areas, threshold, recall = r.labels_plot(frame).axes
    assert areas.lines[0].get_ydata().tolist() == [0, 2, 3]
    assert threshold.lines[0].get_ydata().tolist() == [0.05, 0.02, 0.0]
    assert recall.lines[0].get_xydata().tolist() == [[0, 10], [2, 30]]  # epochs without a test are bridged


def test_measures_against_truth() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"epoch": range(6), "r_at_1": rng.random(6), "mutual_rate": rng.random(6), "flat": 1.0})
    frame.loc[5, "mutual_rate"] = np.nan
    first, second, _ = r.quality_plot(frame, ["mutual_rate", "flat"]).axes
    expected = spearmanr(frame["mutual_rate"][:5], frame["r_at_1"][:5]).statistic
    assert first.get_title() == f"rank correlation {expected:+.2f}"
    assert second.get_title() == "rank correlation not defined"


def test_rows_show_every_picture_with_its_mark() -> None:
    wide, square = torch.zeros(3, 4, 8), torch.ones(3, 4, 4)
    right = torch.tensor([[True, False, False], [False, False, False]])
    figure = r.retrieval_rows([wide] * 2, [square] * 2, [[square] * 3] * 2, right, ["first", "second"])
    grid = np.array(figure.axes).reshape(2, 5)
    assert [a.get_title() for a in grid[0]] == ["first", "top view", "1", "2", "3"]
    marks = [[a.texts[0].get_text() for a in row[2:]] for row in grid]
    assert marks == [[r.TICK, r.CROSS, r.CROSS], [r.CROSS] * 3]
    edges = [[to_hex(a.patches[0].get_edgecolor()) for a in row[2:]] for row in grid]
    assert edges == [[r.RIGHT_COLOUR, r.WRONG_COLOUR, r.WRONG_COLOUR], [r.WRONG_COLOUR] * 3]


def test_map_shows_matches_and_lines_of_the_wrong_ones() -> None:
    at = torch.tensor([[0.0, 0.0], [10.0, 10.0], [20.0, 5.0], [30.0, 30.0]])
    to = torch.tensor([[1.0, 0.0], [40.0, 10.0], [torch.nan, torch.nan], [torch.nan, torch.nan]])
    status = torch.tensor([r.RIGHT, r.WRONG, r.UNLABELLED, r.WRONG])
    (axes,) = r.match_map(at, to, status).axes
    parts = {c.get_label(): c for c in axes.collections}
    assert axes.get_title() == "1 right, 2 wrong, 1 without a label"
    assert parts["right"].get_offsets().tolist() == [[0, 0]]
    assert parts["wrong"].get_offsets().tolist() == [[10, 10], [30, 30]]
    segments = parts["from a wrong one to where it was put"].get_segments()
    assert [s.tolist() for s in segments] == [[[10, 10], [40, 10]]]  # the other one lies in another city
    assert len(r.match_map(at, to, status, city=["b", "a", "b", "a"]).axes) == 2


def test_bars_beside_published_ones() -> None:
    frame = pd.DataFrame({"method": ["full", "part", "full", "part"], "r_at_1": [50.0, 20.0, 60.0, 20.0]})
    (axes,) = r.ablation_bars(frame, published=[87.9, None], labels=("a world", "CVUSA")).axes
    ours, theirs = [c for c in axes.containers if hasattr(c, "patches")]
    assert [bar.get_width() for bar in ours] == [55.0, 20.0]  # the mean of the seeds
    assert theirs[0].get_width() == 87.9
    assert [t.get_text() for t in axes.texts] == ["55.0", "20.0", "87.9", "not known"]
    assert axes.collections[0].get_segments()[0][:, 0].tolist() == [50.0, 60.0]  # their spread
