"""Tables in Markdown: cells, headings, seeds, notes."""

import pandas as pd
import pytest

from ucvgl.lab import tables


def table(seed=0, recall=57.634, **more):
    return pd.DataFrame({"seed": seed, "method": ["a|b", "c"], "r_at_1": [recall, 20.0], "tiles": [300, 4000], **more})


def test_one_seed_shows_its_rows_and_several_their_mean_and_standard_deviation():
    text = tables.render(table(published_r_at_1=[91.23, None]), "A toy.", "Note")
    assert text == (
        "A toy.\n\n| method | R@1 (%) | tiles | R@1 (%), published |\n| --- | --- | --- | --- |\n"
        "| a\\|b | 57.6 | 300 | 91.2 |\n| c | 20.0 | 4000 | - |\n\n*Note.*\n"
    )
    text = tables.render(pd.concat([table(seed, 57.0 + seed) for seed in (0, 1, 2)]), "A toy.", "Note")
    assert text.splitlines()[4:6] == ["| a\\|b | 58.0 ± 1.0 | 300 |", "| c | 20.0 | 4000 |"]
    assert "*Note; where seeds differ: mean ± standard deviation.*" in text


@pytest.mark.parametrize("other", [table(1).iloc[:1], table(1).assign(method="d"), table(1, recall=None)])
def test_seeds_that_do_not_match_show_every_row(other):
    lines = tables.render(pd.concat([table(), other]), "A toy.", "Note").splitlines()
    assert lines[2].startswith("| seed | method |")
    assert sum(line.startswith("| 1 |") for line in lines) == len(other)


def test_headings_tell_data_set_and_measure():
    assert tables.heading("published_r_at_1_percent") == "R@1% (%), published"
    assert tables.heading("published_cvact_val_r_at_10") == "CVACT VAL R@10 (%), published"
    assert tables.heading("chosen_with_labels_r_at_1") == "chosen with labels R@1 (%)"
    assert tables.heading("labels_given") == "labels given"


def test_the_note_gives_the_sampling_error_of_the_queries():
    plain = "Measured on the data set cvact-12ab; profile laptop, seed 0"
    assert tables.note("cvact-12ab", "laptop", [0]) == plain
    error = "a recall of 2,500 queries has a standard error of up to 1.0 points of its own"  # 100 x 0.5 / sqrt(2500)
    one = tables.note("cvact-12ab", "laptop", [0], 2500)
    assert one == f"{plain}; one seed, so the spread over seeds is not known; {error}"
    two = tables.note("world", "tiny", [0, 1], {"a": 2500, "b": 100, "c": 400})
    error = "a recall of 100 to 2,500 queries has a standard error of up to 5.0 to 1.0 points of its own"
    assert two.endswith(f"other real data set; profile tiny, seeds 0, 1; {error}")
