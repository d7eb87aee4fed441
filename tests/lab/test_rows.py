"""Rows and their stages: order, keys, what is shared, the choice of rows."""

import pytest

from ucvgl.errors import InputError
from ucvgl.lab import rows
from ucvgl.lab.settings import RunRequest

PROFILES = ("tiny", "laptop", "paper")


@pytest.mark.parametrize("profile", PROFILES)
def test_each_stage_follows_what_it_needs(profile):
    found = rows.rows(RunRequest(profile, rows="all"), 0)
    seen = set()
    for key, stage in rows.all_stages(found.values()).items():
        assert {need.key for need in stage.needs} <= seen
        seen.add(key)
    assert {stage.key for stage in found.values()} <= seen


def test_equal_stages_have_one_key_in_every_process_and_other_settings_another():
    def named(profile, seed):
        return {name: stage.key for name, stage in rows.rows(RunRequest(profile), seed).items()}

    assert named("laptop", 0) == named("laptop", 0)
    names = named("laptop", 0)
    assert names["05/unlabelled/ucvgl"] == names["04/ours/main"]
    assert names["05/unlabelled/ucvgl_100"] == names["04/label_ratio/labels_100"]
    assert names["05/architecture/full"] == names["05/fields_of_view/full"] == names["05/generalisation/garden"]
    first, second = named("laptop", 0), named("laptop", 1)
    assert all(first[name] != second[name] for name in first)
    assert not set(named("tiny", 0).values()) & set(first.values())


def test_seeds_share_what_depends_on_none():
    stages = [rows.all_stages(rows.rows(RunRequest("laptop"), seed).values()) for seed in (0, 1, 2)]
    shared = set(stages[0]) & set(stages[1]) & set(stages[2])
    assert {stages[0][key].name for key in shared} >= {"images", "drives", "areas"}
    assert len(set().union(*stages)) == sum(map(len, stages)) - 2 * len(shared)


@pytest.mark.parametrize("profile", PROFILES)
def test_headline_has_a_row_of_every_table_and_less_to_train(profile):
    every, some = rows.rows(RunRequest(profile, rows="all"), 0), rows.rows(RunRequest(profile, rows="headline"), 0)
    tables = {name.rpartition("/")[0] for name in every}
    assert {name.rpartition("/")[0] for name in some} == tables
    assert set(rows.HEADLINE) - tables <= {"05/real", "06/real"}  # where no images are at hand
    assert len(rows.all_stages(some.values())) < 0.5 * len(rows.all_stages(every.values()))


def test_a_table_shows_the_rows_that_are_asked_for(monkeypatch):
    every = [("no_fakes", "without fakes"), ("full", "all")]
    assert rows.chosen("02/cold_start", every) == every
    monkeypatch.setenv("UCVGL_ROWS", "headline")
    assert rows.chosen("02/cold_start", every) == every[1:]
    monkeypatch.setenv("UCVGL_ROWS", "most")
    with pytest.raises(InputError, match="all, headline, smoke, found 'most'"):
        rows.chosen("02/cold_start", every)
