"""What each row changes: one thing, and every published row has one."""

from ucvgl.lab import profiles, published, variants

UCVGL, SAMPLE4GEO, PHOTOS = (
    settings("laptop", 0) for settings in (profiles.ucvgl, profiles.sample4geo, profiles.vg_ssl)
)


def changed(before, after):
    """The names of the fields in which two settings differ; those of a curriculum's start in its place."""
    fields = {name for name in vars(before) if getattr(before, name) != getattr(after, name)}
    return (fields - {"start"}) | (changed(before.start, after.start) if "start" in fields else set())


def test_each_row_changes_one_thing():
    tables = [
        (UCVGL.start, variants.cold_start(UCVGL.start)),
        (UCVGL.start, variants.translations(UCVGL)),
        (UCVGL.curriculum, variants.ours(UCVGL.curriculum)),
        (UCVGL.curriculum, variants.ablation(UCVGL.curriculum)),
        (SAMPLE4GEO.brief, variants.architectures(SAMPLE4GEO) + variants.fields_of_view(SAMPLE4GEO)[1:]),
        (PHOTOS.methods["simclr"], [row for row in variants.geopair(PHOTOS) if row[1] == "SimCLR"]),
    ]
    assert [{key: changed(before, config) for key, *_, config in rows} for before, rows in tables] == [
        {
            "no_projection": {"projection"}, "no_fakes": {"translation"}, "no_intra_view": {"intra", "cross"},
            "no_cross_view": {"cross"}, "full": set(),
        },
        {"none": {"translation"}, "statistics": set(), "cyclegan": {"translation"}},
        {"main": set(), "raw": {"centre"}, "synthetic": {"occlusion"}, "top_views": {"ground", "ground_input"}},
        {"no_mutual": {"rule"}, "no_threshold": {"rule"}, "no_curriculum": {"refresh"}, "full": set()},
        {
            "full": set(), "separate": {"shared"}, "no_smoothing": {"smoothing"}, "polar": {"satellite", "tile_kind"},
            "limited": {"fovs_deg"},
        },
        {"partial": set(), "random": {"geopair"}, "no_augmentation": {"augment"}, "no_mask": {"mask_near"}},
    ]  # fmt: skip


def test_every_published_row_has_one():
    steps = UCVGL.curriculum
    for table, rows in (
        ("ucvgl_cold", variants.cold_start(UCVGL.start)), ("ucvgl_semi_cvact", variants.label_ratios(steps)),
        ("ucvgl_rerank", variants.ablation(steps)), ("sample4geo", variants.sampling(SAMPLE4GEO)),
    ):  # fmt: skip
        assert {key for key, *_ in rows} == set(published.frame(table).index)
    assert {key for key, *_ in variants.main(steps)} - {"pretrained_100"} <= set(published.frame("ucvgl_main").index)
    ratios = {key: (config.label_ratio, config.mine) for key, _, config in variants.label_ratios(steps)}
    assert ratios == {"labelled_only_10": (0.1, False)} | {f"labels_{k}": (k / 100, True) for k in (1, 5, 10, 20, 100)}
    without_positions = variants.sampling(SAMPLE4GEO, located=False)
    assert [(key, method.sampling.kind) for key, _, method in without_positions] == [
        ("random", "random"), ("dss_only", "similarity"),
    ]  # fmt: skip
