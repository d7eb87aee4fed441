"""The published tables: read, consistent with each other and with what the papers conclude from them."""

import itertools
import math

import pytest

from ucvgl.data import cvact, cvusa
from ucvgl.errors import InputError
from ucvgl.lab import published

ALL = [(name, key) for name in published.names() for key in published.table(name).rows]


def known(name, column, **options):
    return [v for v in published.column(name, column, **options) if v is not None]


# ------------------------------------------------------------------------------------------------------------- reading


def test_a_column_in_the_order_of_our_rows():
    rows = ["full", None, "no_fakes"]  # None: a setting of ours that was not published
    assert published.column("ucvgl_cold", "cvusa_r_at_1", rows=rows) == [17.96, None, 9.18]
    assert published.column("ucvgl_rerank", "cvact_val_r_at_10") == [82.8, 94.04, 82.83, 94.43]
    assert published.value("ucvgl_main", "transgeo_100", "cvact_test_r_at_1") is None


def test_a_frame_has_the_same_values_with_nan_for_not_known():
    for name in published.names():
        frame = published.frame(name, key="setting")
        assert list(frame["setting"]) == list(published.table(name).rows)
        for column in published.table(name).columns:
            values = published.column(name, column)
            assert frame[column].dtype == "float64"
            assert [None if math.isnan(v) else v for v in frame[column]] == values


def test_unknown_names_are_told_what_there_is():
    with pytest.raises(InputError, match="one of ucvgl_main, ucvgl_cold"):
        published.table("ucvgl_warm")
    with pytest.raises(InputError, match="cvusa_r_at_1, cvusa_labels"):
        published.column("ucvgl_cold", "r_at_1")
    with pytest.raises(InputError, match="'no_fake'"):
        published.column("ucvgl_cold", "cvusa_r_at_1", rows=["no_fake"])
    with pytest.raises(InputError, match="cvusa, cvact"):
        published.label_rates("vigor")
    with pytest.raises(InputError, match="column of ucvgl_main"):
        published.remarks("ucvgl_main", columns=["ap"])


def test_what_was_read_cannot_be_changed():
    with pytest.raises(TypeError):
        published.table("ucvgl_cold").rows["full"].values["cvusa_r_at_1"] = 99.0


@pytest.mark.parametrize(("name", "key"), ALL)
def test_every_value_is_a_percentage_or_a_count_with_a_mark(name, key):
    table, row = published.table(name), published.table(name).rows[key]
    assert set(table.columns.values()) <= {"percent", "count"}
    assert set(row.marks) == set(table.columns)
    assert set(row.marks.values()) <= {"A", "B", "C"}
    assert set(row.flags) <= set(table.columns)
    for column, unit in table.columns.items():
        value = row.values[column]
        if value is not None:
            assert 0 <= value <= 100 if unit == "percent" else value == int(value) >= 0


@pytest.mark.parametrize(("name", "key"), ALL)
def test_recall_grows_with_k(name, key):
    values = published.table(name).rows[key].values
    for column in values:
        stem = column.removesuffix("_r_at_1")
        if stem != column:
            row = [values.get(f"{stem}_r_at_{k}") for k in (1, 5, 10)]
            row = [v for v in row if v is not None]
            assert row == sorted(row)


# ----------------------------------------------------------------------------------------------- what the papers conclude


def test_cold_start_labels_are_4_percent_and_66_percent_of_them_right():
    """And 17 % and 79 % on CVACT: the shares given in the study of the method, against the counts of the table."""
    assert [round(v[0]) for v in published.label_rates("cvusa", rows=["full"]).values()] == [4, 66]
    assert [round(v[0]) for v in published.label_rates("cvact", rows=["full"]).values()] == [17, 79]


def test_training_pairs_are_those_of_the_data_sets():
    for name, module in (("cvusa", cvusa), ("cvact", cvact)):
        assert f"{published.TRAINING_PAIRS[name]:,} training" in module.__doc__


def test_label_rates_of_no_labels_and_of_rows_not_published():
    rates = published.label_rates("cvusa", rows=[None, "no_cross_view"])
    assert rates["labels"] == [None, pytest.approx(100 * 21 / 35_532)]
    assert rates["correct"] == [None, 0.0]  # 0 of 21


@pytest.mark.parametrize("data_set", ["cvusa", "cvact"])
def test_correct_labels_are_among_those_found(data_set):
    found, right = (published.column("ucvgl_cold", f"{data_set}_{what}") for what in ("labels", "correct"))
    assert all(r <= n for r, n in zip(right, found, strict=True))


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


def test_the_flagged_value_is_the_one_that_breaks_the_trend():
    """The better R@5, the less R@10 adds to it, over all rows of CVACT but the flagged one."""
    table = published.table("ucvgl_semi_cvact")
    rows = [row for key, row in table.rows.items() if key.startswith("labels_")]
    added = [row.values["cvact_val_r_at_10"] - row.values["cvact_val_r_at_5"] for row in rows]
    breaks = [row.key for row, a, b in zip(rows[1:], added, added[1:], strict=False) if b > a]
    flagged = [key for key, row in table.rows.items() if "cvact_val_r_at_10" in row.flags]
    assert breaks == flagged == ["labels_100"]
    everywhere = [(n, k, c) for n, k in ALL for c in published.table(n).rows[k].flags]
    assert everywhere == [("ucvgl_semi_cvact", "labels_100", "cvact_val_r_at_10")]


@pytest.mark.parametrize("name", ["vg_ssl_r50", "vg_ssl_deit_s"])
def test_contrastive_and_information_maximising_losses_beat_self_distillation_on_msls(name):
    column = "msls_val_r_at_1"
    better = known(name, column, rows=["simclr", "mocov2", "barlow_twins", "vicreg"])
    assert min(better) > max(known(name, column, rows=["byol", "simsiam"]))


# -------------------------------------------------------------------------------------------------------------- remarks


def test_remarks_name_what_is_inferred_or_out_of_line_and_only_what_is_shown():
    everything = published.remarks("ucvgl_semi_cvact")
    assert "labelled 10 % alone (C: inferred)" in everything
    assert "cvact_val_r_at_10: out of line" in everything
    shown = published.remarks("ucvgl_semi_cvact", columns=["cvact_val_r_at_1"], rows=["labels_10", None, "labels_100"])
    assert "inferred)." in shown  # the table's note stays
    assert "C: inferred" not in shown
    assert "out of line" not in shown


def test_marks_of_the_main_table():
    """One value of Sample4Geo's row is the authors' own, the others are inferred."""
    marks = published.table("ucvgl_main").rows["sample4geo_random_100"].marks
    assert dict(marks) == {"cvusa_r_at_1": "C", "cvact_val_r_at_1": "A", "cvact_test_r_at_1": "C"}
    text = published.remarks("ucvgl_main")
    assert "cvusa_r_at_1, cvact_test_r_at_1 (C: inferred)" in text
    assert "(B:" in published.remarks("sample4geo")
    assert published.remarks("vg_ssl_r50") == ""


def test_rows_that_were_not_made_public_are_empty_and_have_nothing_to_remark():
    for key in ("gps_only", "dss_only"):
        assert set(published.table("sample4geo").rows[key].values.values()) == {None}
    assert "(" not in published.remarks("sample4geo", rows=["gps_only"])
