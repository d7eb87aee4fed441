"""The profiles' settings beside the papers'; what seeds share; unknown choices."""

from dataclasses import replace

import pytest

from ucvgl.augment import SECOND_VERSION, UCVGL_PLACEMENT
from ucvgl.errors import InputError
from ucvgl.lab import profiles, published
from ucvgl.methods.sample4geo import Sampling
from ucvgl.pseudo_labels import MiningRule
from ucvgl.training import TrainingConfig


@pytest.fixture(autouse=True)
def layouts(monkeypatch):
    """A data set in /data/<layout> is of that layout."""
    monkeypatch.setattr(profiles, "detect_layout", lambda data: data.removeprefix("/data/"))


@pytest.mark.parametrize(
    ("name", "fov", "threshold", "share", "ucvgl_px", "sample4geo_px"),
    [
        ("cvusa", 175, 0.05, 1, (384, 384), (140, 768)), ("cvact", 170, 0.025, 1, (384, 384), (140, 768)),
        ("vigor", 170, 0.035, 2, (384, 768), (384, 768)),
    ],
)  # fmt: skip
def test_the_paper_profile_has_the_published_settings(name, fov, threshold, share, ucvgl_px, sample4geo_px):
    settings = profiles.sample4geo("paper", 3, data=f"/data/{name}")
    ours, method = settings.unlabelled, settings.method
    start, steps = ours.start, ours.curriculum
    assert (ours.images.top_view.fov_deg, ours.images.query_px) == (fov, ucvgl_px)
    assert steps.rule == MiningRule(threshold=threshold, share=share)
    kinds = (start.ground_input, start.translation.kind, start.occlusion, start.centre)
    assert kinds == ("panorama", "cyclegan", None, False)
    assert (start.placement, start.second_placement) == (UCVGL_PLACEMENT, SECOND_VERSION)
    epochs = [start.intra.epochs, start.cross.epochs, start.cross.epochs_before, steps.training.epochs]
    assert epochs == [12, 16, 12, 40]
    assert (steps.label_order, steps.warmup) == ("file", 6)
    assert settings.images.query_px == method.ground.image_px == sample4geo_px
    assert method.ground.backbone == method.satellite.backbone == "convnext_base.fb_in22k_ft_in1k_384"
    assert (method.ground.pooling, method.shared, method.smoothing, method.placement) == ("head", True, 0.1, None)
    assert method.sampling == Sampling()
    assert method.training == TrainingConfig(
        learning_rate=1e-3, warmup_epochs=1.0, clip_value=100.0, precision="bf16", chunk=16, prefetch=True, seed=3
    )
    assert settings.drone.training.epochs == 1  # University-1652 gets worse after that


@pytest.mark.parametrize(
    ("backbone", "width", "batch", "pooling"), [("resnet50", 1024, 64, "unit_gem"), ("deit_small", 256, 32, "tokens")]
)
def test_vg_ssl_paper_profile_has_the_published_settings(backbone, width, batch, pooling):
    methods = profiles.vg_ssl("paper", 0, backbone=backbone).methods
    assert set(methods) == set(published.frame("vg_ssl_r50").index) == set(published.frame("vg_ssl_deit_s").index)
    for config in methods.values():
        assert (config.encoder.width, config.encoder.pooling, config.encoder.image_px) == (width, pooling, (480, 640))
        assert (config.training.learning_rate, config.training.batch_size, config.queries) == (1e-5, batch, 10_000)
    partial = {key for key, config in methods.items() if config.geopair == "partial"}
    assert partial == {"simclr", "barlow_twins", "vicreg"}
    augmented = {key for key, config in methods.items() if config.augment}
    assert augmented == (set(methods) - {"mocov2"} if backbone == "resnet50" else set())
    assert methods["simclr"].loss.projector_width == 1024
    assert (methods["mocov2"].loss.queue, methods["triplet"].margin) == (65_536, 0.1)


@pytest.mark.parametrize("settings", [profiles.ucvgl, profiles.sample4geo, profiles.vg_ssl])
def test_unknown_backbones(settings):
    for wrong, message in (("vgg_16", r"Similar names: .*vgg16"), ("vgg16:cold", "NAME or NAME:frozen")):
        with pytest.raises(InputError, match=message):
            settings("paper", 0, backbone=wrong)


@pytest.mark.parametrize(("how", "pretrained", "width"), [("", "hub", None), (":frozen", "frozen hub", 512)])
def test_another_backbone_takes_images_of_the_size_it_asks_for(how, pretrained, width):
    name = "vit_small_patch14_dinov2.lvd142m"
    settings = profiles.sample4geo("paper", 0, data="/data/cvusa", backbone=name + how)
    photos = profiles.vg_ssl("paper", 0, backbone=name + how).methods["simclr"].encoder
    start, method = settings.unlabelled.start, settings.method
    encoders = (start.ground, start.satellite, method.ground, method.satellite, settings.drone.ground, photos)
    kinds = {(e.backbone, e.pretrained, e.image_px, e.drop_path) for e in encoders}
    assert kinds == {(name, pretrained, (518, 518), 0)}
    widths = [(e.pooling, e.width) for e in (method.ground, start.ground, photos)]
    assert widths == [("head", width), ("safa", None), ("unit_gem", 1024)]
    assert settings.images == replace(settings.unlabelled.images, top_view=None)
    assert settings.unlabelled.images.top_view.size_px == settings.flights.image_px == 518


def test_the_laptop_profile_runs_the_papers_task():
    """What differs from the paper's profile: sizes, the augmentation's strength, the translation, and centred descriptors."""
    small, paper = profiles.ucvgl("laptop", 0), profiles.ucvgl("paper", 0)
    ours, theirs = small.start, paper.start
    sizes = {"ground", "satellite", "intra", "cross", "augmentation", "translation", "centre"}
    assert {name for name, value in vars(ours).items() if value != getattr(theirs, name)} == sizes
    ours, theirs = small.curriculum, paper.curriculum
    sizes = {"start", "training", "rule", "warmup", "augmentation", "label_order"}
    assert {name for name, value in vars(ours).items() if value != getattr(theirs, name)} == sizes
    assert ours.rule == MiningRule(threshold=ours.rule.threshold)
    assert (small.start.ground.pooling, small.start.ground.safa_heads) == ("safa", 8)


def test_smoke_cuts_down_the_paper_profile_and_leaves_on_and_off_as_they_are(monkeypatch):
    whole = profiles.sample4geo("paper", 0, data="/data/cvusa"), profiles.vg_ssl("paper", 0)
    assert profiles.smoke(whole) is whole
    monkeypatch.setenv("UCVGL_ROWS", "smoke")
    flat, photos = few = profiles.sample4geo("paper", 0, data="/data/cvusa"), profiles.vg_ssl("paper", 0)
    assert profiles.smoke(few) == few == profiles.smoke(whole)
    start, steps = flat.unlabelled.start, flat.unlabelled.curriculum
    assert start.ground == replace(whole[0].unlabelled.start.ground, pretrained="none", image_px=(96, 96))
    assert (start.intra.epochs, start.intra.epochs_before, start.cross.epochs_before, steps.warmup) == (2, 0, 2, 1)
    assert (start.intra.chunk, photos.methods["simclr"].training.chunk) == (4, None)
    assert (steps.rule.threshold, steps.pretrained, photos.methods["mocov2"].loss.queue) == (0.0, True, 8)
