"""The published tables: every value is there with its mark."""

from collections import Counter

import pytest

from ucvgl.data import cvact, cvusa
from ucvgl.lab import published

TABLES = published.CONTENT["tables"]
VALUES = {  # of each table: rows, the sum of its known values, and how many of them have each mark
    "ucvgl_main": (6, 1376.05, {"A": 15, "C": 2}),
    "ucvgl_cold": (5, 28034.3345, {"A": 30}),
    "ucvgl_semi_cvact": (6, 1537.4, {"A": 15, "C": 3}),
    "ucvgl_semi_vigor": (6, 1159.27, {"A": 15, "C": 3}),
    "ucvgl_rerank": (4, 1059.33, {"A": 16}),
    "sample4geo": (4, 2255.1393, {"A": 4, "B": 23}),
    "sample4geo_u1652": (2, 469.42, {"B": 5}),
    "sample4geo_sues200": (2, 780.13, {"B": 8}),
    "vg_ssl_r50": (7, 7153.0, {"A": 105}),
    "vg_ssl_deit_s": (7, 6863.7, {"A": 105}),
    "u1652_label_free": (5, 1529.39, {"B": 19}),
}


def test_all_values_are_there_with_their_marks():
    assert list(TABLES) == list(VALUES)
    for name, table in TABLES.items():
        frame, marks = published.frame(name), Counter()
        for row in table["rows"].values():
            assert {*row.get("marks", {}), *row.get("flags", {})} <= set(table["columns"])
            known = [c for c, v in zip(table["columns"], row["values"], strict=True) if v is not None]
            marks.update(row.get("marks", {}).get(c, table["mark"]) for c in known)
        assert (len(frame), pytest.approx(frame.sum().sum()), marks) == VALUES[name], name


def test_cold_start_labels_are_4_percent_and_66_percent_of_them_right():
    """And 17 % and 79 % on CVACT: the shares given in the study of the method, against the counts of the table."""
    counts = published.frame("ucvgl_cold").loc["full"]
    for name, labels, correct in (("cvusa", 4, 66), ("cvact", 17, 79)):
        assert round(100 * counts[f"{name}_labels"] / published.TRAINING_PAIRS) == labels
        assert round(100 * counts[f"{name}_correct"] / counts[f"{name}_labels"]) == correct
    assert all(f"{published.TRAINING_PAIRS:,} training" in module.__doc__ for module in (cvusa, cvact))
