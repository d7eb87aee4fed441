"""Rows and their stages: published rows, one change each, what is shared, keys, the choice of rows."""

import pytest

from ucvgl.errors import InputError
from ucvgl.lab import profiles, published, rows

PROFILES = ("tiny", "laptop", "paper")


@pytest.mark.parametrize("part", rows.COLD_START)
def test_each_row_of_the_cold_start_changes_one_thing(part):
    start = profiles.ucvgl("laptop", 0).start
    changed = rows.without(start, part)
    fields = {name for name in vars(start) if getattr(start, name) != getattr(changed, name)}
    expected = {
        "no_projection": {"projection", "ground"}, "no_fakes": {"translation"}, "no_intra_view": {"intra"},
        "no_cross_view": {"cross"}, "full": set(), "no_synthetic": {"occlusion"},
    }  # fmt: skip
    assert fields == expected[part]


def test_every_published_row_has_a_variant():
    steps = profiles.ucvgl("laptop", 0).curriculum
    assert set(rows.COLD_START[:-1]) == set(published.frame("ucvgl_cold")["row"])
    assert set(rows.RATIOS) == set(published.frame("ucvgl_semi_cvact")["row"])
    assert set(rows.STEPS) == set(published.frame("ucvgl_rerank")["row"])
    assert set(rows.MAIN) - {"pretrained_100"} <= set(published.frame("ucvgl_main")["row"])
    variants = [rows.variant(steps, key) for key in (*rows.RATIOS, *rows.STEPS)]
    assert len(set(map(repr, variants))) == len(variants)
    assert [rows.variant(steps, f"labels_{k}").label_ratio for k in (1, 5, 10, 20, 100)] == [0.01, 0.05, 0.1, 0.2, 1.0]
    assert rows.variant(steps, "full") == steps
    assert not rows.variant(steps, "labelled_only_10").mine


@pytest.mark.parametrize("part", rows.ARCHITECTURES)
def test_each_row_of_the_architecture_table_changes_what_it_says(part):
    settings = profiles.sample4geo("laptop", 0)
    changed = rows.architecture(settings, part)
    fields = {name for name in vars(changed) if getattr(changed, name) != getattr(settings.method, name)}
    expected = {
        "full": set(), "separate": {"shared"}, "no_smoothing": {"smoothing"}, "raw": {"ground", "ground_kind", "shared"},
        "polar": {"ground", "satellite", "ground_kind", "tile_kind", "shared"},
    }  # fmt: skip
    assert fields == expected[part]


@pytest.mark.parametrize("key", rows.PAIRS)
def test_each_variant_changes_one_thing(key):
    config = profiles.vg_ssl("laptop", 0).methods["simclr"]
    changed = rows.pairs_variant(config, key)
    fields = {name for name in vars(config) if getattr(config, name) != getattr(changed, name)}
    expected = {"partial": set(), "random": {"geopair"}, "no_augmentation": {"augment"}, "no_mask": {"mask_near"}}
    assert fields == expected[key]


# ------------------------------------------------------------------------------------------------------------ rows and stages


@pytest.mark.parametrize("profile", PROFILES)
def test_each_row_has_a_name_of_its_own_and_each_stage_follows_what_it_needs(profile):
    found = rows.rows(profile, "world", 0)
    assert len({row.name for row in found}) == len(found)
    seen = set()
    for key, stage in rows.all_stages(found).items():
        assert {need.key for need in stage.needs} <= seen
        seen.add(key)
    assert {row.stage.key for row in found} <= seen


def test_equal_stages_have_one_key_in_every_process_and_other_settings_another():
    def named(profile, seed):
        return {row.name: row.stage.key for row in rows.rows(profile, "world", seed)}

    assert named("laptop", 0) == named("laptop", 0)
    assert named("laptop", 0)["05/unlabelled/ucvgl"] == named("laptop", 0)["04/main/ucvgl_s_0"]
    first, second = named("laptop", 0), named("laptop", 1)
    assert all(first[name] != second[name] for name in first)
    assert not set(named("tiny", 0).values()) & set(first.values())


def test_seeds_share_what_depends_on_none():
    stages = [rows.all_stages(rows.rows("laptop", "world", seed)) for seed in (0, 1, 2)]
    shared = set(stages[0]) & set(stages[1]) & set(stages[2])
    assert {stages[0][key].name for key in shared} >= {"images", "drives"}
    assert len(set().union(*stages)) == sum(map(len, stages)) - 2 * len(shared)


@pytest.mark.parametrize("profile", PROFILES)
def test_headline_has_a_row_of_every_table_and_less_to_train(profile):
    every, some = rows.rows(profile, "world", 0), rows.rows(profile, "world", 0, which="headline")
    tables = {row.name.rpartition("/")[0] for row in every}
    assert {row.name.rpartition("/")[0] for row in some} == tables == set(rows.HEADLINE)
    assert len(rows.all_stages(some)) < 0.5 * len(rows.all_stages(every))


def test_a_table_shows_the_rows_that_are_asked_for(monkeypatch):
    names = {"full": "all", "no_fakes": "without fakes"}
    assert rows.chosen("02/cold_start", names) == names
    monkeypatch.setenv("UCVGL_ROWS", "headline")
    assert rows.chosen("02/cold_start", names) == {"full": "all"}
    monkeypatch.setenv("UCVGL_ROWS", "most")
    with pytest.raises(InputError, match="all or headline, found 'most'"):
        rows.chosen("02/cold_start", names)
