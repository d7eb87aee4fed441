"""The rows of the tables: for each its key (the published one, if any), its name, and what it changes in its method."""

from collections.abc import Iterator
from dataclasses import replace

from ucvgl.lab.profiles import Sample4GeoSettings, UcvglSettings, VgSslSettings
from ucvgl.methods.pretraining_losses import WithLoss
from ucvgl.methods.sample4geo import Sample4Geo
from ucvgl.methods.ucvgl import Curriculum, Pretraining, Translation
from ucvgl.methods.vg_ssl import VgSsl
from ucvgl.synthetic_top_view import Occlusion

# -------------------------------------------------------------------------------------------------- UCVGL, notebooks 02 to 04


def without_intra_view(start: Pretraining) -> Pretraining:
    """Step 4 alone, with the warm-up and the whole cosine of its own."""
    return replace(start, intra=None, cross=start.cross and replace(start.cross, epochs_before=0))


def on_top_views(start: Pretraining) -> Pretraining:
    """Ours: the ground encoder is given top views."""
    ground = replace(start.ground, image_px=start.satellite.image_px)
    return replace(start, ground=ground, ground_input="top view")


def cold_start(start: Pretraining) -> list[tuple[str, str, Pretraining]]:
    """UCVGL's ablation of steps 1 to 4."""
    return [
        ("no_projection", "(a) BEV projection", replace(start, projection=False)),
        ("no_fakes", "(b) fake satellite", replace(start, translation=Translation("none"))),
        ("no_intra_view", "(c) intra-view SSL", without_intra_view(start)),
        ("no_cross_view", "(d) cross-view SSL", replace(start, cross=None)),
        ("full", "(e) nothing: the full cold start", start),
    ]


def translations(settings: UcvglSettings) -> list[tuple[str, str, Pretraining]]:
    """Ways from the top view to the fake satellite image."""
    names = {"none": "none: the top view itself", "statistics": "colours matched to the tiles", "cyclegan": "CycleGAN"}
    ways = {kind: Translation(kind, settings.gan) if kind == "cyclegan" else Translation(kind) for kind in names}
    return [(kind, name, replace(settings.start, translation=ways[kind])) for kind, name in names.items()]


def main(steps: Curriculum) -> list[tuple[str, str, Curriculum]]:
    """UCVGL's main comparison, by the labels that are given."""
    all_labels = replace(steps, label_ratio=1.0)
    return [
        ("ucvgl_s_0", "0 %", steps),
        ("ucvgl_b_10", "10 %", replace(steps, label_ratio=0.1)),
        ("ucvgl_s_100", "100 %, no cold start", replace(all_labels, pretrained=False)),
        ("pretrained_100", "100 %, after the cold start (not in the paper)", all_labels),
    ]


def label_ratios(steps: Curriculum) -> list[tuple[str, str, Curriculum]]:
    """UCVGL's step 5 alone, on a part of the labels."""
    alone = replace(steps, pretrained=False, label_ratio=0.1)
    ratios = [(f"labels_{k}", f"{k} %", replace(alone, label_ratio=k / 100)) for k in (1, 5, 10, 20, 100)]
    return [("labelled_only_10", "10 %, labelled part only", replace(alone, mine=False)), *ratios]


def ablation(steps: Curriculum) -> list[tuple[str, str, Curriculum]]:
    """UCVGL's ablation of step 5."""
    return [
        ("no_mutual", "(a) mutual matching", replace(steps, rule=replace(steps.rule, mutual=False))),
        ("no_threshold", "(b) threshold filter", replace(steps, rule=replace(steps.rule, threshold=0.0))),
        ("no_curriculum", "(c) curriculum learning", replace(steps, refresh=False)),
        ("full", "nothing: the full method", steps),
    ]


def ours(steps: Curriculum) -> list[tuple[str, str, Curriculum]]:
    """What is ours, beside the published method; the last two need top views."""
    starts = (
        ("main", "descriptors centred, as in the other tables", steps.start),
        ("raw", "raw cosines, as published", replace(steps.start, centre=False)),
        ("synthetic", "tiles with synthetic top views in step 4", replace(steps.start, occlusion=Occlusion())),
        ("top_views", "top views to the ground encoder (a shortcut)", on_top_views(steps.start)),
    )
    return [(key, name, replace(steps, start=start)) for key, name, start in starts]


# --------------------------------------------------------------------------------------------------- Sample4Geo, notebook 05


def sampling(settings: Sample4GeoSettings, *, located: bool = True) -> list[tuple[str, str, Sample4Geo]]:
    """The samplers, measured often enough for a curve; those that need positions only where tiles have them (`located`)."""
    method = replace(settings.method, evaluate_every=settings.method.sampling.refresh_every)
    kinds = (
        ("random", "random", "random"),
        ("gps_only", "geographic neighbours (GPS)", "geographic"),
        ("dss_only", "similar places (DSS)", "similarity"),
        ("full", "GPS until the first refresh, then DSS: Sample4Geo", "both"),
    )
    return [
        (key, name, replace(method, sampling=replace(method.sampling, kind=kind)))
        for key, name, kind in kinds if located or kind in ("random", "similarity")
    ]  # fmt: skip


def architectures(settings: Sample4GeoSettings) -> list[tuple[str, str, Sample4Geo]]:
    """The network and the loss; the last row needs panoramas."""
    method = settings.brief
    as_polar = replace(method.satellite, image_px=settings.images.query_px)
    return [
        ("full", "one encoder, smoothing 0.1: Sample4Geo", method),
        ("separate", "an encoder for each view", replace(method, shared=False)),
        ("no_smoothing", "no label smoothing", replace(method, smoothing=0.0)),
        ("polar", "polar-transformed tiles (not in the paper)", replace(method, satellite=as_polar, tile_kind="polar")),
    ]


def fields_of_view(settings: Sample4GeoSettings) -> list[tuple[str, str, Sample4Geo]]:
    """What is seen in training; the last row needs panoramas."""
    limited = replace(settings.brief, fovs_deg=settings.fovs_deg)
    return [("full", "whole panoramas", settings.brief), ("limited", "every field of view", limited)]


def unlabelled(settings: Sample4GeoSettings) -> list[tuple[str, str, Curriculum | Sample4Geo]]:
    """No labels beside all labels; of `ucvgl_dss`, `settings.brief.sampling.draw` chooses the hard negatives."""
    steps = settings.unlabelled.curriculum
    return [
        ("ucvgl", "UCVGL, 0 % labels", steps),
        ("ucvgl_dss", "UCVGL, 0 % labels, DSS on its pseudo-pairs (in neither paper)", steps),
        ("ucvgl_100", "UCVGL, 100 %, random batches", replace(steps, label_ratio=1.0, pretrained=False)),
        ("sample4geo", "Sample4Geo, 100 %, DSS", on_same_terms(settings)),
    ]


def on_same_terms(settings: Sample4GeoSettings) -> Sample4Geo:
    """Sample4Geo with the encoders, augmentation and budget of UCVGL's curriculum."""
    steps = settings.unlabelled.curriculum
    start = steps.start
    method = Sample4Geo(
        start.ground, start.satellite, shared=False, ground_kind="panorama" if start.ground_is_panorama else "top view",
        training=steps.training, sampling=replace(settings.brief.sampling, kind="similarity"),
        smoothing=steps.smoothing, augmentation=steps.augmentation, placement=steps.placement,
        evaluate_every=steps.training.epochs,
    )  # fmt: skip
    return replace(method, ground_kind="oblique", tile_kind="photo") if start.ground_input == "photo" else method


# ------------------------------------------------------------------------------------------------------ VG-SSL, notebook 06

SSL = {
    "triplet": "Triplet", "simclr": "SimCLR", "mocov2": "MoCo v2", "barlow_twins": "Barlow Twins", "vicreg": "VICReg",
    "byol": "BYOL", "simsiam": "SimSiam",
}  # fmt: skip
FAMILIES = {  # VG-SSL, section 2
    "triplet": "metric learning", "simclr": "contrastive", "mocov2": "contrastive", "barlow_twins": "information-maximising",
    "vicreg": "information-maximising", "byol": "self-distillation", "simsiam": "self-distillation",
}  # fmt: skip
# test sets -> the published columns' prefix: of the world's drives what they stand for, of real sets their own
STANDS_FOR = {
    "car": "msls_val", "hand_held": "pitts30k", "night": "tokyo247", "season": "nordland", "msls": "msls_val",
    "pitts30k": "pitts30k", "tokyo247": "tokyo247", "nordland": "nordland",
}  # fmt: skip
JOINED = ("simclr", "triplet")  # trained on all kinds of drives, too


def published_ssl(backbone: str) -> str:
    """The published table of a backbone."""
    return "vg_ssl_deit_s" if backbone == "deit_small" else "vg_ssl_r50"


def geopair(settings: VgSslSettings) -> Iterator[tuple[str, str, str, VgSsl]]:
    """(key, method, pairs, its settings): every form of SimCLR's pairs; with and without hard negatives as pairs of the others
    that have them."""
    for method, config in settings.methods.items():
        prefix, every = ("", 4) if method == "simclr" else (f"{method}_", 2)
        forms = (
            ("partial", "partial: with hard negatives as pairs", config),
            ("random", "random: pairs alone", replace(config, geopair="random")),
            ("no_augmentation", "partial, without crops and mirroring", replace(config, augment=False)),
            ("no_mask", "partial, near places count as negatives (as published)", replace(config, mask_near=False)),
        )
        for key, name, changed in forms[:every] if config.geopair == "partial" else ():
            yield prefix + key, SSL[method], name, changed


def projectors(settings: VgSslSettings) -> Iterator[tuple[str, VgSsl]]:
    """Barlow Twins by the projector's layers and width and the descriptor's width."""
    config = settings.methods["barlow_twins"]
    for layers, width, descriptor in settings.projectors:
        loss = replace(config.loss, projector_layers=layers, projector_width=width)
        encoder = replace(config.encoder, width=descriptor)
        yield f"{layers}x{width}_{descriptor}", replace(config, loss=loss, encoder=encoder)


def minings(settings: VgSslSettings) -> list[tuple[str, str, VgSsl]]:
    """The triplet loss by what its negatives are mined from."""
    kinds = {"full": "negatives from all", "partial": "negatives from a part", "random": "any negatives"}
    config = settings.methods["triplet"]
    return [(f"triplet_{kind}", f"triplet, {name}", replace(config, mining=kind)) for kind, name in kinds.items()]


def pretraining_losses(settings: VgSslSettings, items: int) -> Iterator[tuple[str, str, Pretraining | WithLoss]]:
    """UCVGL's cold start by the loss of its step 3; a queue holds half of the `items` at most."""
    start = settings.cold_start.start
    yield "none", "none", without_intra_view(start)
    yield "info_nce", "InfoNCE: UCVGL", start
    losses = {key: config.loss for key, config in settings.methods.items() if key != "triplet"}
    for key, loss in losses.items():
        yield key, SSL[key], WithLoss(start, replace(loss, queue=min(loss.queue, max(1, items // 2))))
