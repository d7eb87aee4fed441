"""The reproduction score: by hand, against a naive loop, and what must not change it."""

import json
import math
import statistics

import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ucvgl.lab import results
from ucvgl.lab import score as m
from ucvgl.lab.score import Comparison, standard_error, verdict

percent = st.integers(0, 100).map(float)
TWO = [("r_at_1", "cvusa_r_at_1"), ("r_at_1", "cvact_r_at_1")]


def ours(rows, seeds=(0,)):
    """Rows by key: a recall a seed."""
    return pd.DataFrame({"seed": seed, "part": key, "r_at_1": rows[key][seed]} for seed in seeds for key in rows)


def theirs(**columns):
    return pd.DataFrame({"part": list("abcdef")[: len(next(iter(columns.values())))], **columns})


def counts(mine, other, queries, measures=TWO[:1], **options):
    (row,) = m.compare("toy", Comparison(mine, other, measures, "part", "Toy (2024)", **options), queries)
    return row


# ------------------------------------------------------------------------------------------------------------ one pair


def test_a_pair_is_kept_contradicted_or_undecided():
    assert verdict(5.0, 2.4, [10.0]) == "kept"
    assert verdict(-5.0, 2.4, [10.0]) == "contradicted"
    assert verdict(5.0, 2.5, [10.0]) == "undecided"  # by ours: 5 is not above 2 x 2.5
    assert verdict(5.0, 2.4, [2.0]) == "undecided"  # by published: 2 points are not above 2
    assert verdict(0.0, 0.0, [10.0]) == "undecided"
    # two published columns are one comparison
    assert verdict(5.0, 1.0, [10.0, 3.0]) == "kept"
    assert verdict(5.0, 1.0, [10.0, -1.0]) == "kept"  # the second does not resolve the pair
    assert verdict(5.0, 1.0, [-10.0, -1.0]) == "contradicted"
    assert verdict(5.0, 1.0, [10.0, -3.0]) == "undecided"  # both do, and disagree


def test_the_error_of_one_seed_is_that_of_sampling_and_three_add_their_spread():
    assert standard_error([50.0], 100) == pytest.approx(5.0)  # sqrt(0.5 * 0.5 / 100)
    assert standard_error([10.0], 900) == pytest.approx(1.0)  # sqrt(0.1 * 0.9 / 900)
    assert standard_error([0.0], 100) == standard_error([100.0], 100) == 0
    # 47, 50 and 53: deviation 3 with n - 1, 3 / sqrt(3) of the mean; 5 by sampling
    assert standard_error([47.0, 50.0, 53.0], 100) == pytest.approx(math.hypot(3**0.5, 5.0))


# ------------------------------------------------------------------------------------------------------------- a table


def naive(mine, other, queries):
    """The definition, pair by pair: mine by key and seed, other by key with a value a column."""
    found = dict.fromkeys((*m.VERDICTS, "pairs_published"), 0)
    keys = sorted(other)
    for i, a in enumerate(keys):
        for b in keys[i + 1 :]:
            apart = [x - y for x, y in zip(other[a], other[b], strict=True) if x is not None and y is not None]
            found["pairs_published"] += len(apart) > 0
            if not apart or a not in mine or b not in mine:
                continue
            variance = 0.0
            for row in (mine[a], mine[b]):
                p = statistics.mean(row) / 100
                variance += statistics.variance(row) / len(row) if len(row) > 1 else 0
                variance += 1e4 * p * (1 - p) / queries
            signs = [x > 0 for x in apart if abs(x) > 2]
            by = statistics.mean(mine[a]) - statistics.mean(mine[b])
            assume(by == 0 or abs(by**2 - 4 * variance) > 1e-6)  # not on the edge, where rounding decides
            if not signs or (any(signs) and not all(signs)) or by**2 <= 4 * variance:
                found["undecided"] += 1
            else:
                found["kept" if (by > 0) == signs[0] else "contradicted"] += 1
    return found


@given(st.data(), st.integers(1, 3), st.integers(20, 1000))
def test_a_table_is_the_naive_count_of_its_pairs(data, seeds, queries):
    other = {key: data.draw(st.lists(percent | st.none(), min_size=2, max_size=2)) for key in "abcd"}
    row = st.lists(percent, min_size=seeds, max_size=seeds)
    mine = {key: data.draw(row) for key in data.draw(st.sampled_from(["abcd", "bd"]))}
    frame = theirs(**{column: [other[key][i] for key in "abcd"] for i, (_, column) in enumerate(TWO)})
    found = counts(ours(mine, range(seeds)), frame, queries, TWO)
    assert {name: found[name] for name in (*m.VERDICTS, "pairs_published")} == naive(mine, other, queries)


def test_a_table_by_hand():
    # errors of 5 points each at 50 %: differences above 2 x sqrt(2) x 5 = 14 count
    frame = theirs(cvusa_r_at_1=[80.0, 60.0, 59.0, None], cvact_r_at_1=[70.0, 75.0, None, None])
    row = counts(ours({"a": [65.0], "b": [45.0], "c": [math.nan], "d": [1.0]}), frame, 100)  # c did not train
    assert [row[name] for name in ("kept", "contradicted", "undecided", "pairs_published")] == [1, 0, 0, 3]
    row = counts(ours({"a": [65.0], "b": [45.0], "c": [50.0]}), frame, 100, TWO)
    assert [row[name] for name in ("kept", "contradicted", "undecided", "pairs_published")] == [1, 0, 2, 3]
    assert (row["published"], row["seeds"], row["queries"]) == ("cvusa_r_at_1, cvact_r_at_1", 1, 100)
    assert list(row) == list(m.COLUMNS[:11])


def test_the_gap_has_an_error():
    frame = theirs(cvusa_r_at_1=[80.0, 60.0], cvact_r_at_1=[None, 60.0])
    row = counts(ours({"a": [50.0], "b": [50.0]}), frame, 100, TWO, gap=("b", "a"))
    assert (row["gap"], row["gap_ours"], row["gap_published"]) == ("b / a", 1.0, "0.75")
    assert row["gap_error"] == pytest.approx(2**0.5 * 0.1)  # two errors of a tenth of the value
    assert "gap_ours" not in counts(ours({"b": [50.0]}), frame, 100, gap=("b", "a"))


# ------------------------------------------------------------------------------------------------------- over notebooks

PUBLISHED = theirs(cvusa_r_at_1=[80.0, 60.0, 20.0]).assign(part=["None", "n/a", "c"])


def notebook(tmp_path, monkeypatch, *, seeds):
    """What a notebook does, once a seed, and the engine after it."""
    monkeypatch.delenv("UCVGL_PROFILE", raising=False)
    folders = []
    for seed, recall in seeds.items():
        folders.append(tmp_path / f"runs/seed{seed}")
        monkeypatch.setenv("UCVGL_RUN_FOLDER", str(folders[-1]))
        run = results.start("01_toy", profile="tiny", data="world", seed=seed)
        table = pd.DataFrame({"part": ["None", "n/a"], "r_at_1": [50.0, recall]})
        beside = {"cvusa_r_at_1": [80.0, 60.0]}
        run.save_table(table, "toy", caption="A toy.", published=beside, queries=100)
        comparison = Comparison(table, PUBLISHED, TWO[:1], "part", "Toy (2024)", ("n/a", "None"))
        run.save_table(m.scorecard({"toy": comparison}, run.queries), "scorecard", caption="The score.")
        run.finish()
    results.publish(folders, tmp_path / "figures/tiny/01_toy")
    return tmp_path / "figures/tiny"


def test_collected_over_seeds_it_is_the_score_of_all_of_them(tmp_path, monkeypatch):
    # 20, 30 and 40 with an error of 5.8 over seeds and 4.6 by sampling, beside 50 with 5: 20 is above 2 x 8.9
    folder = notebook(tmp_path, monkeypatch, seeds={0: 20.0, 1: 30.0, 2: 40.0})
    path = m.write_scorecard(folder)
    assert path == folder / "scorecard.md"
    (row,) = pd.read_csv(folder / "scorecard.csv", keep_default_na=False).to_dict("records")
    assert [row[name] for name in ("seeds", "queries", *m.VERDICTS, "pairs_published")] == [3, 100, 1, 0, 0, 3]
    assert (row["notebook"], row["gap_ours"]) == ("01_toy", 0.6)
    text = path.read_text()
    assert text.startswith("Reproduction score: 1 kept, 0 contradicted, 0 undecided, of 3 published pairs of rows.")
    assert "%" not in text
    assert "one seed" not in text
    assert "seeds 0, 1, 2" in text
    recipe = json.loads((folder / "scorecard.json").read_text())["collected_from"]["01_toy"]
    assert (recipe["profile"], recipe["seeds"]) == ("tiny", [0, 1, 2])


def test_collected_over_one_seed_it_is_the_notebooks_own(tmp_path, monkeypatch):
    folder = notebook(tmp_path, monkeypatch, seeds={4: 40.0})
    assert "with one seed, the sampling error of the queries alone" in m.write_scorecard(folder).read_text()
    whole, piece = (pd.read_csv(folder / name)[list(m.COLUMNS)] for name in ("scorecard.csv", "01_toy/scorecard.csv"))
    pd.testing.assert_frame_equal(whole, piece)
