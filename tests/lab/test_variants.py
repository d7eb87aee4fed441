"""What each row changes: one thing, and every published row has one."""

from ucvgl.lab import profiles, published, variants


def changed(before, after):
    """The names of the fields in which two settings differ; those of a curriculum's start in its place."""
    fields = {name for name in vars(before) if getattr(before, name) != getattr(after, name)}
    return (fields - {"start"}) | (changed(before.start, after.start) if "start" in fields else set())


def test_each_row_changes_one_thing():
    ucvgl, sample4geo = profiles.ucvgl("laptop", 0), profiles.sample4geo("laptop", 0)
    start, steps, simclr = ucvgl.start, ucvgl.curriculum, profiles.vg_ssl("laptop", 0).methods["simclr"]
    every = {**variants.ARCHITECTURES, **variants.FIELDS_OF_VIEW}
    found = [
        {part: changed(start, variants.without(start, part)) for part in variants.COLD_START},
        {key: changed(steps, variants.ours(steps, key)) for key in variants.OURS},
        {part: changed(sample4geo.brief, variants.architecture(sample4geo, part)) for part in every},
        {key: changed(simclr, variants.pairs_variant(simclr, key)) for key in variants.PAIRS},
    ]
    assert found == [
        {
            "no_projection": {"projection"}, "no_fakes": {"translation"}, "no_intra_view": {"intra", "cross"},
            "no_cross_view": {"cross"}, "full": set(),
        },
        {"main": set(), "raw": {"centre"}, "synthetic": {"occlusion"}, "top_views": {"ground", "ground_input"}},
        {
            "full": set(), "separate": {"shared"}, "no_smoothing": {"smoothing"}, "polar": {"satellite", "tile_kind"},
            "limited": {"fovs_deg"},
        },
        {"partial": set(), "random": {"geopair"}, "no_augmentation": {"augment"}, "no_mask": {"mask_near"}},
    ]  # fmt: skip


def test_every_published_row_has_a_variant():
    steps = profiles.ucvgl("laptop", 0).curriculum
    assert set(variants.COLD_START) == set(published.frame("ucvgl_cold")["row"])
    assert set(variants.RATIOS) == set(published.frame("ucvgl_semi_cvact")["row"])
    assert set(variants.ABLATION) == set(published.frame("ucvgl_rerank")["row"])
    assert set(variants.MAIN) - {"pretrained_100"} <= set(published.frame("ucvgl_main")["row"])
    found = [variants.variant(steps, key) for key in (*variants.RATIOS, *variants.ABLATION)]
    assert len(set(map(repr, found))) == len(found)
    ratios = [variants.variant(steps, f"labels_{k}").label_ratio for k in (1, 5, 10, 20, 100)]
    assert ratios == [0.01, 0.05, 0.1, 0.2, 1.0]
    assert variants.variant(steps, "full") == steps
    assert not variants.variant(steps, "labelled_only_10").mine


def test_each_sampler_changes_the_sampling_alone():
    settings = profiles.sample4geo("laptop", 0)
    kinds = [variants.with_sampler(settings, key).sampling.kind for key in variants.SAMPLING]
    assert kinds == ["random", "geographic", "similarity", "both"]
    assert set(variants.SAMPLING) == set(published.frame("sample4geo")["row"])
