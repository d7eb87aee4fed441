"""Rows and their stages: what each row changes, order, keys, what is shared, the choice of rows."""

import pytest

from ucvgl.errors import InputError
from ucvgl.lab import profiles, published, rows, variants
from ucvgl.lab.settings import RunRequest

SAMPLE4GEO, PHOTOS = profiles.sample4geo("laptop", 0), profiles.vg_ssl("laptop", 0)
UCVGL = SAMPLE4GEO.unlabelled
TABLES = variants.ucvgl(UCVGL) | variants.sample4geo(SAMPLE4GEO) | variants.vg_ssl(PHOTOS)


def changed(before, after):
    """The names of the fields in which two settings differ; those of a curriculum's start in its place."""
    fields = {name for name in vars(before) if getattr(before, name) != getattr(after, name)}
    return (fields - {"start"}) | (changed(before.start, after.start) if "start" in fields else set())


@pytest.mark.parametrize(
    ("table", "before", "expected"),
    [
        ("02/cold_start", UCVGL.start, {
            "no_projection": {"projection"}, "no_fakes": {"translation"}, "no_intra_view": {"intra", "cross"},
            "no_cross_view": {"cross"}, "full": set(),
        }),
        ("02/translation", UCVGL.start, {"none": {"translation"}, "statistics": set(), "cyclegan": {"translation"}}),
        ("04/ours", UCVGL.curriculum, {
            "main": set(), "raw": {"centre"}, "synthetic": {"occlusion"}, "top_views": {"ground", "ground_input"},
        }),
        ("05/architecture", SAMPLE4GEO.brief, {
            "full": set(), "separate": {"shared"}, "no_smoothing": {"smoothing"}, "polar": {"satellite", "tile_kind"},
        }),
        ("05/fields_of_view", SAMPLE4GEO.brief, {"full": set(), "limited": {"fovs_deg"}}),
    ],
)  # fmt: skip
def test_a_row_changes_what_its_name_says(table, before, expected):
    assert {key: changed(before, config) for key, _, config in TABLES[table]} == expected


def test_every_published_row_has_one():
    for table, theirs in (
        ("02/cold_start", "ucvgl_cold"), ("04/label_ratio", "ucvgl_semi_cvact"), ("04/ablation", "ucvgl_rerank"),
        ("05/sampling", "sample4geo"), ("06/main", "vg_ssl_r50"),
    ):  # fmt: skip
        assert {key for key, *_ in TABLES[table]} == set(published.frame(theirs).index)
    ratios = {key: (config.label_ratio, config.mine) for key, _, config in TABLES["04/label_ratio"]}
    assert ratios == {"labelled_only_10": (0.1, False)} | {f"labels_{k}": (k / 100, True) for k in (1, 5, 10, 20, 100)}
    without_positions = variants.sample4geo(SAMPLE4GEO, located=False)["05/sampling"]
    assert [(key, method.sampling.kind) for key, _, method in without_positions] == [
        ("random", "random"), ("dss_only", "similarity"),
    ]  # fmt: skip


@pytest.mark.parametrize("profile", ["tiny", "laptop", "paper"])
def test_each_stage_follows_what_it_needs_and_headline_has_rows_of_the_tables(profile):
    every, some = (rows.rows(RunRequest(profile, rows=which), 0) for which in ("all", "headline"))
    stages, seen = rows.all_stages(every.values()), set()
    for key, stage in stages.items():
        assert {need.key for need in stage.needs} <= seen
        seen.add(key)
    assert {stage.key for stage in every.values()} <= seen
    tables = {name.rpartition("/")[0] for name in every}
    assert {name.rpartition("/")[0] for name in some} == tables - {"02/translation"}  # the cold start's is its row
    assert set(variants.HEADLINE) - tables <= {"05/real"}  # where no images are at hand
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
