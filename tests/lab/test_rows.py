"""Rows and their stages: order, keys, what is shared, the choice of rows."""

import pytest

from ucvgl.errors import InputError
from ucvgl.lab import rows
from ucvgl.lab.settings import RunRequest


@pytest.mark.parametrize("profile", ["tiny", "laptop", "paper"])
def test_each_stage_follows_what_it_needs_and_headline_has_rows_of_every_table(profile):
    every, some = (rows.rows(RunRequest(profile, rows=which), 0) for which in ("all", "headline"))
    stages, seen = rows.all_stages(every.values()), set()
    for key, stage in stages.items():
        assert {need.key for need in stage.needs} <= seen
        seen.add(key)
    assert {stage.key for stage in every.values()} <= seen
    tables = {name.rpartition("/")[0] for name in every}
    assert {name.rpartition("/")[0] for name in some} == tables
    assert set(rows.HEADLINE) - tables <= {"05/real"}  # where no images are at hand
    assert len(rows.all_stages(some.values())) < 0.5 * len(stages)


def test_rows_and_seeds_share_the_stages_that_are_equal():
    names, again, other = (rows.rows(RunRequest("laptop"), seed) for seed in (0, 0, 1))
    keys = {name: stage.key for name, stage in names.items()}
    assert keys == {name: stage.key for name, stage in again.items()}
    assert keys["05/unlabelled/ucvgl"] == keys["04/ours/main"]
    assert keys["05/unlabelled/ucvgl_100"] == keys["04/label_ratio/labels_100"]
    assert keys["05/architecture/full"] == keys["05/fields_of_view/full"] == keys["05/generalisation/garden"]
    assert all(keys[name] != other[name].key for name in keys)
    first, second = (rows.all_stages(found.values()) for found in (names, other))
    shared = first.keys() & second.keys()
    assert {first[key].name for key in shared} >= {"images", "drives", "areas"}
    assert not shared & rows.all_stages(rows.rows(RunRequest("tiny"), 0).values()).keys()


def test_a_table_shows_the_rows_that_are_asked_for(monkeypatch):
    every = [("no_fakes", "without fakes"), ("full", "all")]
    assert rows.chosen("02/cold_start", {"02/cold_start": every}) == every
    monkeypatch.setenv("UCVGL_ROWS", "headline")
    assert rows.chosen("02/cold_start", {"02/cold_start": every}) == every[1:]
    monkeypatch.setenv("UCVGL_ROWS", "most")
    with pytest.raises(InputError, match="all, headline, smoke, found 'most'"):
        rows.chosen("02/cold_start", {"02/cold_start": every})
