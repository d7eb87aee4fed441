"""What each row changes: one thing, and every published row has one."""

from ucvgl.lab import profiles, published, variants


def changed(before, after):
    """The names of the fields in which two settings differ; those of a curriculum's start in its place."""
    fields = {name for name in vars(before) if getattr(before, name) != getattr(after, name)}
    return (fields - {"start"}) | (changed(before.start, after.start) if "start" in fields else set())


def test_each_row_changes_one_thing():
    ucvgl, sample4geo = profiles.ucvgl("laptop", 0), profiles.sample4geo("laptop", 0)
    photos = profiles.vg_ssl("laptop", 0)
    tables = [
        (ucvgl.start, variants.cold_start(ucvgl.start)),
        (ucvgl.start, variants.translations(ucvgl)),
        (ucvgl.curriculum, variants.ours(ucvgl.curriculum)),
        (ucvgl.curriculum, variants.ablation(ucvgl.curriculum)),
        (sample4geo.brief, variants.architectures(sample4geo) + variants.fields_of_view(sample4geo)[1:]),
        (photos.methods["simclr"], [row for row in variants.geopair(photos) if row[1] == "SimCLR"]),
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
    ucvgl, sample4geo = profiles.ucvgl("laptop", 0), profiles.sample4geo("laptop", 0)
    start, steps = ucvgl.start, ucvgl.curriculum
    for table, rows in (
        ("ucvgl_cold", variants.cold_start(start)), ("ucvgl_semi_cvact", variants.label_ratios(steps)),
        ("ucvgl_rerank", variants.ablation(steps)), ("sample4geo", variants.sampling(sample4geo)),
    ):  # fmt: skip
        assert {key for key, *_ in rows} == set(published.frame(table).index)
    assert {key for key, *_ in variants.main(steps)} - {"pretrained_100"} <= set(published.frame("ucvgl_main").index)
    ratios = {key: config for key, _, config in variants.label_ratios(steps)}
    assert [ratios[f"labels_{k}"].label_ratio for k in (1, 5, 10, 20, 100)] == [0.01, 0.05, 0.1, 0.2, 1.0]
    assert not ratios["labelled_only_10"].mine
    kinds = [method.sampling.kind for _, _, method in variants.sampling(sample4geo)]
    assert kinds == ["random", "geographic", "similarity", "both"]
    without_positions = variants.sampling(sample4geo, located=False)
    assert [key for key, *_ in without_positions] == ["random", "dss_only"]
