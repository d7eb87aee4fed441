"""The rows of the tables: for each its key (the published one, if any), its name, and what it changes in its method."""

from dataclasses import replace
from typing import Any

from ucvgl.lab.profiles import Sample4GeoSettings, UcvglSettings, VgSslSettings
from ucvgl.lab.published import SSL
from ucvgl.methods.pretraining_losses import WithLoss
from ucvgl.methods.sample4geo import SAMPLERS, Sample4Geo
from ucvgl.methods.ucvgl import Pretraining, Translation
from ucvgl.synthetic_top_view import Occlusion

Tables = dict[str, list[tuple[str, str, Any]]]  # by table, its rows


def ucvgl(settings: UcvglSettings) -> Tables:
    """Of notebooks 02 and 04: cold starts and curricula. 04/ours is not the paper's; its last two rows need top views."""
    start, steps = settings.start, settings.curriculum
    gan, statistics, none = Translation("cyclegan", settings.gan), Translation("statistics"), Translation("none")
    supervised, synthetic = replace(steps, pretrained=False), replace(start, occlusion=Occlusion())
    return {
        "02/cold_start": [
            ("no_projection", "(a) BEV projection", replace(start, projection=False)),
            ("no_fakes", "(b) fake satellite", replace(start, translation=none)),
            ("no_intra_view", "(c) intra-view SSL", without_intra_view(start)),
            ("no_cross_view", "(d) cross-view SSL", replace(start, cross=None)),
            ("full", "(e) nothing: the full cold start", start),
        ],
        "02/translation": [
            ("none", "none: the top view itself", replace(start, translation=none)),
            ("statistics", "colours matched to the tiles", replace(start, translation=statistics)),
            ("cyclegan", "CycleGAN", replace(start, translation=gan)),
        ],
        "04/main": [
            ("ucvgl_s_0", "0 %", steps),
            ("ucvgl_b_10", "10 %", replace(steps, label_ratio=0.1)),
            ("ucvgl_s_100", "100 %, no cold start", replace(supervised, label_ratio=1.0)),
            ("pretrained_100", "100 %, after the cold start (not in the paper)", replace(steps, label_ratio=1.0)),
        ],
        "04/ablation": [
            ("no_mutual", "(a) mutual matching", replace(steps, rule=replace(steps.rule, mutual=False))),
            ("no_threshold", "(b) threshold filter", replace(steps, rule=replace(steps.rule, threshold=0.0))),
            ("no_curriculum", "(c) curriculum learning", replace(steps, refresh=False)),
            ("full", "nothing: the full method", steps),
        ],
        "04/label_ratio": [
            ("labelled_only_10", "10 %, labelled part only", replace(supervised, label_ratio=0.1, mine=False)),
            *((f"labels_{k}", f"{k} %", replace(supervised, label_ratio=k / 100)) for k in (1, 5, 10, 20, 100)),
        ],
        "04/ours": [
            ("main", "descriptors centred, as in the other tables", steps),
            ("raw", "raw cosines, as published", replace(steps, start=replace(start, centre=False))),
            ("synthetic", "tiles with synthetic top views in step 4", replace(steps, start=synthetic)),
            ("top_views", "top views to the ground encoder (a shortcut)", replace(steps, start=on_top_views(start))),
        ],
    }


def without_intra_view(start: Pretraining) -> Pretraining:
    """Step 4 alone, with the warm-up and the whole cosine of its own."""
    return replace(start, intra=None, cross=start.cross and replace(start.cross, epochs_before=0))


def on_top_views(start: Pretraining) -> Pretraining:
    """Ours: the ground encoder is given top views."""
    ground = replace(start.ground, image_px=start.satellite.image_px)
    return replace(start, ground=ground, ground_input="top view")


def sample4geo(settings: Sample4GeoSettings, *, located: bool = True) -> Tables:
    """Of notebook 05; without positions of the tiles (`located`) two samplers are left out.

    The last rows of 05/architecture and 05/fields_of_view need panoramas. Of 05/unlabelled/ucvgl_dss `brief.sampling.draw`
    chooses the hard negatives. A row of 05/real is a fold.
    """
    brief, steps = settings.brief, settings.unlabelled.curriculum
    polar = replace(brief.satellite, image_px=settings.images.query_px)
    # measured often enough for a curve
    method = replace(settings.method, evaluate_every=settings.method.sampling.refresh_every)
    kinds = {kind: replace(method, sampling=replace(method.sampling, kind=kind)) for kind in SAMPLERS}
    samplers = [
        ("random", "random", kinds["random"]),
        ("gps_only", "geographic neighbours (GPS)", kinds["geographic"]),
        ("dss_only", "similar places (DSS)", kinds["similarity"]),
        ("full", "GPS until the first refresh, then DSS: Sample4Geo", kinds["both"]),
    ]
    return {
        "05/sampling": samplers if located else samplers[::2],
        "05/architecture": [
            ("full", "one encoder, smoothing 0.1: Sample4Geo", brief),
            ("separate", "an encoder for each view", replace(brief, shared=False)),
            ("no_smoothing", "no label smoothing", replace(brief, smoothing=0.0)),
            ("polar", "polar-transformed tiles (not in the paper)", replace(brief, satellite=polar, tile_kind="polar")),
        ],
        "05/fields_of_view": [
            ("full", "whole panoramas", brief),
            ("limited", "every field of view", replace(brief, fovs_deg=settings.fovs_deg)),
        ],
        "05/unlabelled": [
            ("ucvgl", "UCVGL, 0 % labels", steps),
            ("ucvgl_dss", "UCVGL, 0 % labels, DSS on its pseudo-pairs (in neither paper)", steps),
            ("ucvgl_100", "UCVGL, 100 %, random batches", replace(steps, label_ratio=1.0, pretrained=False)),
            ("sample4geo", "Sample4Geo, 100 %, DSS", on_same_terms(settings)),
        ],
        "05/real": [(f"fold_{k}", f"without fold {k}", k) for k in range(settings.real.folds if settings.real else 0)],
    }


def on_same_terms(settings: Sample4GeoSettings) -> Sample4Geo:
    """Sample4Geo with the encoders, augmentation and budget of UCVGL's curriculum."""
    steps, start = settings.unlabelled.curriculum, settings.unlabelled.curriculum.start
    kinds = ("panorama", "tile") if start.ground_is_panorama else ("top view", "tile")
    kinds = ("oblique", "photo") if start.ground_input == "photo" else kinds
    return Sample4Geo(
        start.ground, start.satellite, False, *kinds, training=steps.training, smoothing=steps.smoothing,
        sampling=replace(settings.brief.sampling, kind="similarity"), augmentation=steps.augmentation,
        placement=steps.placement, evaluate_every=steps.training.epochs,
    )  # fmt: skip


def vg_ssl(settings: VgSslSettings) -> Tables:
    """Of notebook 06: in 06/geopair every form of SimCLR's pairs, with and without hard negatives as pairs of the others; in
    06/pretraining_losses UCVGL's cold start by the loss of its step 3, a queue holding half of the ground images at most."""
    methods, start, geopair, projectors = settings.methods, settings.cold_start.start, [], []
    for method, config in methods.items():
        forms = [
            ("partial", "partial: with hard negatives as pairs", config),
            ("random", "random: pairs alone", replace(config, geopair="random")),
            ("no_augmentation", "partial, without crops and mirroring", replace(config, augment=False)),
            ("no_mask", "partial, near places count as negatives (as published)", replace(config, mask_near=False)),
        ]
        prefix, forms = ("", forms) if method == "simclr" else (f"{method}_", forms[:2])
        if config.geopair == "partial":
            geopair += [(prefix + key, f"{SSL[method]}, {name}", changed) for key, name, changed in forms]
    barlow, triplet = methods["barlow_twins"], methods["triplet"]
    for layers, width, descriptor in settings.projectors:
        loss = replace(barlow.loss, projector_layers=layers, projector_width=width)
        changed = replace(barlow, loss=loss, encoder=replace(barlow.encoder, width=descriptor))
        projectors.append((f"{layers}x{width}_{descriptor}", f"{layers} layers", changed))
    longest = max(1, settings.cold_start.train.places // 4)
    losses = {key: replace(each.loss, queue=min(each.loss.queue, longest)) for key, each in methods.items()}
    return {
        "06/real": [(key, SSL[key], config) for key, config in settings.real.items()],
        "06/main": [(key, SSL[key], config) for key, config in methods.items()],
        "06/joined": [(key, SSL[key], methods[key]) for key in ("simclr", "triplet")],  # all kinds of drives, too
        "06/geopair": geopair,
        "06/projector": projectors,
        "06/cost": [
            ("triplet_full", "triplet, negatives from all", replace(triplet, mining="full")),
            ("triplet_partial", "triplet, negatives from a part", replace(triplet, mining="partial")),
            ("triplet_random", "triplet, any negatives", replace(triplet, mining="random")),
        ],
        "06/pretraining_losses": [
            ("none", "none", without_intra_view(start)),
            ("info_nce", "InfoNCE: UCVGL", start),
            *((key, SSL[key], WithLoss(start, loss)) for key, loss in losses.items() if key != "triplet"),
        ],
    }
