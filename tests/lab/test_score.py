"""The reproduction score: by hand, against a naive loop, and what must not change it."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ucvgl.errors import InputError
from ucvgl.lab import published, results
from ucvgl.lab import score as scorecard
from ucvgl.lab.score import Comparison, Gap, Orderings, headline_ratio, pairwise_orderings, readme_block

whole = st.integers(-50, 50)
maybe = st.one_of(st.none(), whole)


def naive(ours, theirs, spread):
    """The definition, pair by pair."""
    agree, pairs, within = 0.0, 0, 0
    for i, j in itertools.combinations(range(len(ours)), 2):
        if None in (ours[i], ours[j], theirs[i], theirs[j]) or theirs[i] == theirs[j]:
            continue
        pairs += 1
        if abs(ours[i] - ours[j]) <= math.hypot(spread[i], spread[j]):
            agree, within = agree + 0.5, within + 1
        elif (ours[i] > ours[j]) == (theirs[i] > theirs[j]):
            agree += 1
    return Orderings(agree, pairs, within)


# ------------------------------------------------------------------------------------------------------------ orderings


def test_orderings_by_hand():
    # published a > b > c; ours: a > b kept, a = c a tie, b > c turned round
    assert pairwise_orderings([5.0, 3.0, 5.0], [30.0, 20.0, 10.0]) == Orderings(1.5, 3, 1)
    # a difference of 5 between spreads of 3 and 4 is too close to tell, one of 5.1 is not
    assert pairwise_orderings([0.0, 5.0], [1.0, 2.0], [3.0, 4.0]) == Orderings(0.5, 1, 1)
    assert pairwise_orderings([0.0, 5.1], [1.0, 2.0], [3.0, 4.0]) == Orderings(1.0, 1, 0)
    assert pairwise_orderings([5.1, 0.0], [1.0, 2.0], [3.0, 4.0]) == Orderings(0.0, 1, 0)


def test_what_is_not_known_or_equal_in_the_paper_is_skipped():
    assert pairwise_orderings([1, 2, 3], [1, None, 3]).pairs == 1
    assert pairwise_orderings([1, float("nan"), 3], [1, 2, 3]).pairs == 1
    assert pairwise_orderings([1, 2, 3], [7, 7, 8]) == Orderings(2.0, 2, 0)
    assert pairwise_orderings([1], [1]) == Orderings(0.0, 0, 0)
    assert pairwise_orderings([], []).share is None


@given(st.lists(st.tuples(maybe, maybe, st.integers(0, 20)), max_size=8))
def test_orderings_are_the_naive_ones(rows):
    ours, theirs, spread = ([row[i] for row in rows] for i in range(3))
    assert pairwise_orderings(ours, theirs, spread) == naive(ours, theirs, spread)


@given(st.lists(whole, min_size=2, max_size=8, unique=True))
def test_score_of_a_monotone_transform(theirs):
    values = np.array(theirs, dtype=float)
    for rising in (3 * values - 7, np.arctan(values / 10), values**3):
        assert pairwise_orderings(rising, values).share == 100
        assert pairwise_orderings(-rising, values).share == 0
    assert pairwise_orderings(np.full(len(values), 0.1), values).share == 50


@given(st.lists(st.tuples(maybe, maybe, st.integers(0, 20)), max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(rows, random):
    shuffled = random.sample(rows, len(rows))
    one, other = (pairwise_orderings(*([r[i] for r in each] for i in range(3))) for each in (rows, shuffled))
    assert one == other


@given(st.lists(st.tuples(whole, whole), max_size=8), st.floats(0, 30))
def test_turning_ours_round_gives_the_rest(rows, spread):
    ours, theirs = ([r[i] for r in rows] for i in range(2))
    one, other = pairwise_orderings(ours, theirs, spread), pairwise_orderings([-v for v in ours], theirs, spread)
    assert one.agree + other.agree == one.pairs == other.pairs
    assert one.within == other.within


@pytest.mark.parametrize(
    "arguments",
    [([1, 2], [1]), ([1, 2], [1, 2], [0.1]), ([[1]], [[1]]), ([1, math.inf], [1, 2]), ([1, 2], [1, 2], -1.0),
     ([1, 2], [1, 2], [0.0, math.nan])],
)  # fmt: skip
def test_bad_orderings(arguments):
    with pytest.raises(InputError):
        pairwise_orderings(*arguments)


def test_headline_ratio():
    assert headline_ratio(87.9, 93.53) == pytest.approx(0.93981, abs=1e-5)
    assert [headline_ratio(a, b) for a, b in ((None, 1), (1, None), (math.nan, 1), (1, math.nan), (1, 0))] == [None] * 5
    assert headline_ratio(0, 2) == 0


# ------------------------------------------------------------------------------------------------------------- a table

# two keys that a reader of CSV files would take for missing values
PUBLISHED = pd.DataFrame({"setting": ["None", "n/a", "all", "odd"], "cvusa_r_at_1": [40.0, 60.0, 80.0, math.nan]})
GAP = Gap("0 % over 100 % labels", "None", "all")


def ours(seed=0, shift=0.0):
    frame = pd.DataFrame({"setting": ["all", "chance", "None", "n/a"], "r_at_1": [50.0, 1.0, 10.0 + shift, 12.0]})
    return frame.assign(seed=seed)


def score(frame, theirs=PUBLISHED, **options):
    return scorecard.score_table("toy", frame, theirs, [("r_at_1", "cvusa_r_at_1")], "setting", gap=GAP, **options)


def test_a_table_of_one_seed_by_hand():
    (row,) = score(ours().drop(columns="seed"), paper="Toy (2024)")
    assert list(row) == list(scorecard.COLUMNS)
    assert (row["pairs"], row["pairs_published"], row["orderings_kept"]) == (3, 3, 100.0)
    assert (row["gap_ours"], row["gap_published"]) == (0.2, 0.5)
    assert row["paper"] == "Toy (2024)"


def test_several_seeds_count_by_mean_and_spread():
    # 'None' is 10 and 13: mean 11.5, deviation 2.12; 'n/a' is 12 at both, so that pair is within the spread
    (row,) = score(pd.concat([ours(0), ours(1, shift=3.0)]))
    assert row["orderings_within_spread"] == 1
    assert row["orderings_kept"] == pytest.approx(100 * 2.5 / 3)
    assert row["gap_ours"] == pytest.approx((10 / 50 + 13 / 50) / 2)
    (alone,) = score(ours(1, shift=3.0))
    assert alone["orderings_kept"] == pytest.approx(100 * 2 / 3)  # with one seed it is simply turned round


def test_the_spread_is_the_standard_deviation_of_a_sample():
    # 10 and 0.2: mean 5.1, 6.9 below 12; deviation 6.93 with n - 1, 4.9 with n
    (row,) = score(pd.concat([ours(0), ours(1, shift=-9.8)]))
    assert row["orderings_within_spread"] == 1


def test_published_rows_that_ours_lacks_show_in_the_count():
    frame = ours()
    (row,) = score(frame[frame["setting"] != "None"])
    assert (row["pairs"], row["pairs_published"]) == (1, 3)
    assert row["gap_ours"] is None
    assert row["gap_published"] == 0.5
    (nothing,) = score(frame[frame["setting"] == "chance"])
    assert nothing["orderings_kept"] is None


def test_a_published_table_scored_against_itself_is_full_marks():
    for name, column in (("ucvgl_cold", "cvusa_r_at_1"), ("ucvgl_main", "cvact_test_r_at_1")):
        theirs = published.frame(name, key="setting")
        (row,) = scorecard.score_table(name, theirs, theirs, [(column, column)], "setting")
        assert row["orderings_kept"] == 100
        assert row["pairs"] == row["pairs_published"] == 10
        assert row["gap"] is row["gap_ours"] is row["gap_published"] is None


def test_a_cold_start_of_ours_against_two_data_sets():
    keys = list(published.table("ucvgl_cold").rows)
    table = pd.DataFrame({"setting": keys, "r_at_1": [0.5, 3.0, 2.0, 0.4, 6.0]})
    frame = scorecard.scorecard(
        {
            "cold_start": Comparison(
                table,
                published.frame("ucvgl_cold", key="setting"),
                [("r_at_1", "cvusa_r_at_1"), ("r_at_1", "cvact_r_at_1")],
                "setting",
                published.table("ucvgl_cold").paper,
                Gap("without fakes over all", "no_fakes", "full"),
            )
        }
    )
    # b and c change places; a over d is kept on CVUSA and turned round on CVACT, where a is 0.0 and d 0.011
    assert list(frame["orderings_kept"]) == [90.0, 80.0]
    assert list(frame["gap_ours"]) == [0.5, 0.5]
    assert list(frame["gap_published"]) == pytest.approx([9.18 / 17.96, 22.78 / 44.81])
    assert list(frame.columns) == list(scorecard.COLUMNS)


@pytest.mark.parametrize(
    ("frame", "theirs", "match"),
    [
        (ours().drop(columns="r_at_1"), PUBLISHED, "no r_at_1"),
        (ours(), PUBLISHED.rename(columns={"setting": "row"}), "no setting"),
        (pd.concat([ours(), ours()]), PUBLISHED, "again"),
        (ours(), pd.concat([PUBLISHED, PUBLISHED]), "again"),
        (ours(), PUBLISHED[PUBLISHED["setting"] != "all"], "'all'"),
    ],
)
def test_bad_tables(frame, theirs, match):
    with pytest.raises(InputError, match=match):
        score(frame, theirs)


def test_a_table_without_measures():
    with pytest.raises(InputError, match="at least one measure"):
        scorecard.score_table("toy", ours(), PUBLISHED, [], "setting")


# ------------------------------------------------------------------------------------------------------- over notebooks


def notebook(tmp_path, monkeypatch, *, seeds, save=True):
    """What a notebook does, once a seed, and the engine after it."""
    monkeypatch.delenv("UCVGL_PROFILE", raising=False)
    folders = []
    for seed, shift in seeds.items():
        folders.append(tmp_path / f"runs/seed{seed}")
        monkeypatch.setenv("UCVGL_RUN_FOLDER", str(folders[-1]))
        run = results.start("01_toy", profile="tiny", data="world", seed=seed)
        table = ours(seed, shift).drop(columns="seed")
        known = dict(zip(PUBLISHED["setting"], PUBLISHED["cvusa_r_at_1"], strict=True))
        beside = {"cvusa_r_at_1": [known.get(setting) for setting in table["setting"]]}
        if save:
            run.save_table(table, "toy", caption="A toy.", published=beside)
        comparison = Comparison(table, PUBLISHED, [("r_at_1", "cvusa_r_at_1")], "setting", "Toy (2024)", GAP)
        run.save_table(scorecard.scorecard({"toy": comparison}), "scorecard", caption="The score.")
        run.finish()
    results.publish(folders, tmp_path / "figures/tiny/01_toy")
    return tmp_path / "figures/tiny"


def test_collected_over_seeds_it_is_the_score_of_all_of_them(tmp_path, monkeypatch):
    folder = notebook(tmp_path, monkeypatch, seeds={0: 0.0, 1: 3.0})
    path = scorecard.write_scorecard(folder)
    assert path == folder / "scorecard.md"
    (row,) = pd.read_csv(folder / "scorecard.csv").to_dict("records")
    (expected,) = score(pd.concat([ours(0), ours(1, shift=3.0)]), paper="Toy (2024)")
    assert row.pop("notebook") == "01_toy"
    for column, value in expected.items():
        assert row[column] == (pytest.approx(value, rel=1e-4) if isinstance(value, float) else value)
    text = path.read_text()
    assert "83.3 % of 3 compared orderings kept" in text
    assert "| 01_toy | Toy (2024) | toy | r_at_1 | cvusa_r_at_1 | 3 | 3 | 83 | 1 | 0 % over 100 % labels |" in text
    assert "not comparable" in text
    assert "seeds 0, 1" in text
    recipe = json.loads((folder / "scorecard.json").read_text())["collected_from"]["01_toy"]
    assert (recipe["profile"], recipe["seeds"]) == ("tiny", [0, 1])


def test_collected_over_one_seed_it_is_the_notebooks_own(tmp_path, monkeypatch):
    folder = notebook(tmp_path, monkeypatch, seeds={4: 3.0})
    scorecard.write_scorecard(folder)
    whole_, piece = pd.read_csv(folder / "scorecard.csv"), pd.read_csv(folder / "01_toy/scorecard.csv")
    pd.testing.assert_frame_equal(whole_[list(scorecard.COLUMNS)], piece[list(scorecard.COLUMNS)])
    before = (folder / "scorecard.csv").read_bytes()
    scorecard.write_scorecard(folder)
    assert (folder / "scorecard.csv").read_bytes() == before


def test_a_score_without_its_table_is_refused(tmp_path, monkeypatch):
    folder = notebook(tmp_path, monkeypatch, seeds={0: 0.0}, save=False)
    with pytest.raises(InputError, match=r"toy\.csv.*Save the table"):
        scorecard.write_scorecard(folder)


def test_without_scorecards_none_is_left(tmp_path):
    (tmp_path / "01_toy").mkdir()
    for name in ("scorecard.csv", "scorecard.md", "scorecard.json"):
        (tmp_path / name).write_text("stale")
    assert scorecard.write_scorecard(tmp_path) is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["01_toy"]


def test_folders_still_being_written_are_left_alone(tmp_path):
    (tmp_path / ".01_toy.partial").mkdir()
    (tmp_path / ".01_toy.partial/scorecard.csv").write_text("half")
    assert scorecard.write_scorecard(tmp_path) is None


def test_nothing_to_compare_is_said(tmp_path, monkeypatch):
    (row,) = score(ours()[lambda f: f["setting"] == "chance"])
    text = scorecard.markdown(pd.DataFrame([row]).astype({"orderings_kept": float, "gap_ours": float}), "A note")
    assert "no ordering could be compared" in text
    assert "| - | 0 |" in text
    assert json.dumps(row["orderings_kept"]) == "null"


# ----------------------------------------------------------------------------------------------------------------- README


def test_readme_block_by_hand():
    text = "# Title\n\n<!-- scorecard -->\nold\n<!-- /scorecard -->\n\nEnd\n"
    new = readme_block(text, "\n| a |\n\n")
    assert new == "# Title\n\n<!-- scorecard -->\n| a |\n<!-- /scorecard -->\n\nEnd\n"
    assert readme_block(new, "| a |") == new
    assert readme_block(new, r"\1 \g<0>").splitlines()[3] == r"\1 \g<0>"  # taken as it is, not as a pattern


@pytest.mark.parametrize(
    "text",
    ["", "<!-- scorecard -->", "<!-- /scorecard --><!-- scorecard -->",
     "<!-- scorecard --><!-- scorecard --><!-- /scorecard -->"],
)  # fmt: skip
def test_readme_without_its_markers(text):
    with pytest.raises(InputError, match="each once"):
        readme_block(text, "x")
