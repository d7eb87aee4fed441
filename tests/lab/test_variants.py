"""What each row changes: one thing, and every published row has one."""

import pytest

from ucvgl.lab import profiles, published, variants


@pytest.mark.parametrize("part", variants.COLD_START)
def test_each_row_of_the_cold_start_changes_one_thing(part):
    start = profiles.ucvgl("laptop", 0).start
    changed = variants.without(start, part)
    fields = {name for name in vars(start) if getattr(start, name) != getattr(changed, name)}
    expected = {
        "no_projection": {"projection"}, "no_fakes": {"translation"}, "no_intra_view": {"intra", "cross"},
        "no_cross_view": {"cross"}, "full": set(),
    }  # fmt: skip
    assert fields == expected[part]


def test_every_published_row_has_a_variant():
    steps = profiles.ucvgl("laptop", 0).curriculum
    assert set(variants.COLD_START) == set(published.frame("ucvgl_cold")["row"])
    assert set(variants.RATIOS) == set(published.frame("ucvgl_semi_cvact")["row"])
    assert set(variants.ABLATION) == set(published.frame("ucvgl_rerank")["row"])
    assert set(variants.MAIN) - {"pretrained_100"} <= set(published.frame("ucvgl_main")["row"])
    found = [variants.variant(steps, key) for key in (*variants.RATIOS, *variants.ABLATION)]
    assert len(set(map(repr, found))) == len(found)
    assert [variants.variant(steps, f"labels_{k}").label_ratio for k in (1, 5, 10, 20, 100)] == [
        0.01,
        0.05,
        0.1,
        0.2,
        1.0,
    ]
    assert variants.variant(steps, "full") == steps
    assert not variants.variant(steps, "labelled_only_10").mine


@pytest.mark.parametrize("key", variants.OURS)
def test_each_row_of_ours_changes_one_thing(key):
    steps = profiles.ucvgl("laptop", 0).curriculum
    changed = variants.ours(steps, key)
    fields = {name for name in vars(steps.start) if getattr(steps.start, name) != getattr(changed.start, name)}
    fields |= {name for name in vars(steps) if name != "start" and getattr(steps, name) != getattr(changed, name)}
    expected = {
        "main": set(),
        "raw": {"centre"},
        "synthetic": {"occlusion"},
        "top_views": {"ground", "ground_input"},
    }
    assert fields == expected[key]


@pytest.mark.parametrize("part", [*variants.ARCHITECTURES, *variants.FIELDS_OF_VIEW])
def test_each_row_of_the_architecture_tables_changes_one_thing(part):
    settings = profiles.sample4geo("laptop", 0)
    changed = variants.architecture(settings, part)
    fields = {name for name in vars(changed) if getattr(changed, name) != getattr(settings.brief, name)}
    expected = {
        "full": set(), "separate": {"shared"}, "no_smoothing": {"smoothing"}, "polar": {"satellite", "tile_kind"},
        "limited": {"fovs_deg"},
    }  # fmt: skip
    assert fields == expected[part]


def test_each_sampler_changes_the_sampling_alone():
    settings = profiles.sample4geo("laptop", 0)
    kinds = [variants.with_sampler(settings, key).sampling.kind for key in variants.SAMPLING]
    assert kinds == ["random", "geographic", "similarity", "both"]
    assert set(variants.SAMPLING) == set(published.frame("sample4geo")["row"])


@pytest.mark.parametrize("key", variants.PAIRS)
def test_each_variant_changes_one_thing(key):
    config = profiles.vg_ssl("laptop", 0).methods["simclr"]
    changed = variants.pairs_variant(config, key)
    fields = {name for name in vars(config) if getattr(config, name) != getattr(changed, name)}
    expected = {"partial": set(), "random": {"geopair"}, "no_augmentation": {"augment"}, "no_mask": {"mask_near"}}
    assert fields == expected[key]
