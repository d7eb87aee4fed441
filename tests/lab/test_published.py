"""The published tables: every value is there, and they agree with each other and with what the papers conclude from them."""

import itertools
import math
from collections import Counter

import pytest

from ucvgl.data import cvact, cvusa
from ucvgl.lab import published

TABLES = published.content()["tables"]
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


def test_all_tables_are_there():
    assert list(TABLES) == list(VALUES)


@pytest.mark.parametrize("name", VALUES)
def test_all_values_are_there_with_their_marks(name):
    table, (rows, total, marks) = TABLES[name], VALUES[name]
    frame = published.frame(name, key="part")
    assert list(frame) == ["part", "label", *table["columns"]]
    assert list(frame["part"]) == list(table["rows"])
    assert len(frame) == rows
    assert sum(
        v for column in table["columns"] for v in published.column(name, column) if v is not None
    ) == pytest.approx(total)
    found = Counter()
    for row in table["rows"].values():
        assert set(row) <= {"label", "values", "marks", "flags"}
        assert {*row.get("marks", {}), *row.get("flags", {})} <= set(table["columns"])
        known = [c for c, v in zip(table["columns"], row["values"], strict=True) if v is not None]
        found.update(row.get("marks", {}).get(c, table["mark"]) for c in known)
    assert found == marks


def test_a_column_in_the_order_of_our_rows():
    rows = ["full", None, "no_fakes"]  # None: a setting of ours that was not published
    assert published.column("ucvgl_cold", "cvusa_r_at_1", rows=rows) == [17.96, None, 9.18]
    assert published.column("ucvgl_rerank", "cvact_val_r_at_10") == [82.8, 94.04, 82.83, 94.43]
    assert published.value("ucvgl_main", "transgeo_100", "cvact_test_r_at_1") is None


@pytest.mark.parametrize("name", VALUES)
def test_recall_grows_with_k(name):
    frame = published.frame(name)
    for stem in {column.partition("_r_at_")[0] for column in frame}:
        there = [f"{stem}_r_at_{k}" for k in (1, 5, 10) if f"{stem}_r_at_{k}" in frame]
        assert (frame[there].dropna().diff(axis=1).iloc[:, 1:] > 0).all(axis=None)


# ----------------------------------------------------------------------------------------------- what the papers conclude


def test_cold_start_labels_are_4_percent_and_66_percent_of_them_right():
    """And 17 % and 79 % on CVACT: the shares given in the study of the method, against the counts of the table."""
    assert [round(v[0]) for v in published.label_rates("cvusa", rows=["full"]).values()] == [4, 66]
    assert [round(v[0]) for v in published.label_rates("cvact", rows=["full"]).values()] == [17, 79]
    rates = published.label_rates("cvusa", rows=[None, "no_cross_view"])
    assert rates["labels"] == [None, pytest.approx(100 * 21 / 35_532)]
    assert rates["correct"] == [None, 0.0]  # 0 of 21
    assert all(f"{published.TRAINING_PAIRS:,} training" in module.__doc__ for module in (cvusa, cvact))


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("ucvgl_cold", ["cvusa_r_at_1", "cvact_r_at_1", "cvusa_correct", "cvact_correct"]),
        ("ucvgl_rerank", ["cvusa_r_at_1", "cvusa_r_at_10", "cvact_val_r_at_1", "cvact_val_r_at_10"]),
    ],
)
def test_every_part_of_the_method_matters(name, columns):
    for column in columns:
        *without, full = published.column(name, column)
        assert full > max(without)


def test_tables_that_give_the_same_model_agree():
    for data_set in ("cvusa", "cvact_val"):
        zero = published.value("ucvgl_main", "ucvgl_s_0", f"{data_set}_r_at_1")
        assert published.value("ucvgl_rerank", "full", f"{data_set}_r_at_1") == zero
    supervised = published.value("ucvgl_main", "ucvgl_s_100", "cvact_val_r_at_1")
    assert published.value("ucvgl_semi_cvact", "labels_100", "cvact_val_r_at_1") == supervised
    random = published.value("sample4geo", "random", "cvact_val_r_at_1")
    assert round(random, 2) == published.value("ucvgl_main", "sample4geo_random_100", "cvact_val_r_at_1")


@pytest.mark.parametrize(
    ("name", "data_set", "shares"),
    [
        ("ucvgl_semi_cvact", "cvact_val", (1, 5, 10, 20, 100)),
        ("ucvgl_semi_vigor", "vigor_chicago", (5, 10, 20, 30, 100)),
    ],
)
def test_more_labels_are_better(name, data_set, shares):
    for k in (1, 5, 10):
        values = published.column(name, f"{data_set}_r_at_{k}", rows=[f"labels_{share}" for share in shares])
        assert all(a < b for a, b in itertools.pairwise(values))


# -------------------------------------------------------------------------------------------------------------- remarks


def test_remarks_name_what_is_inferred_or_out_of_line_and_only_what_is_shown():
    everything = published.remarks("ucvgl_semi_cvact")
    assert "Published 'the labelled 10 % alone': inferred (C)." in everything
    assert "Published '100 % labels', cvact_val_r_at_10: out of line" in everything
    shown = published.remarks("ucvgl_semi_cvact", columns=["cvact_val_r_at_1"], rows=["labels_10", None, "labels_100"])
    assert shown == "Step 5 alone, without the cold start (inferred)."  # the table's note


def test_remarks_tell_which_values_of_a_row_are_marked():
    text = published.remarks("ucvgl_main")
    assert "100 % labels', cvusa_r_at_1, cvact_test_r_at_1: inferred (C)." in text  # CVACT val is the authors' own
    assert published.remarks("sample4geo", columns=["cvusa_r_at_1"], rows=["random", "full"]).startswith(
        "Published 'both: the headline': quoted by a third party (B). A column"
    )
    assert published.remarks("vg_ssl_r50") == ""


def test_rows_that_were_not_made_public_are_empty_and_have_nothing_to_remark():
    for key in ("gps_only", "dss_only"):
        assert all(math.isnan(v) for v in published.frame("sample4geo").set_index("row").loc[key].iloc[1:])
        assert "Published" not in published.remarks("sample4geo", rows=[key])
