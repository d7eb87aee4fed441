"""What each row of the tables changes of its method, by the published key where there is one."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ucvgl.lab.profiles import Sample4GeoSettings, UcvglSettings, VgSslSettings
from ucvgl.methods.pretraining_losses import WithLoss
from ucvgl.methods.sample4geo import SAMPLERS, Sample4Geo
from ucvgl.methods.ucvgl import Curriculum, Pretraining, Translation
from ucvgl.methods.vg_ssl import VgSsl
from ucvgl.synthetic_top_view import Occlusion

# -------------------------------------------------------------------------------------------------- UCVGL, notebooks 02 to 04

# by the keys of the published tables: what a row leaves out, or is given
COLD_START = {
    "no_projection": "(a) BEV projection", "no_fakes": "(b) fake satellite", "no_intra_view": "(c) intra-view SSL",
    "no_cross_view": "(d) cross-view SSL", "full": "(e) nothing: the full cold start",
}  # fmt: skip
TRANSLATIONS = {
    "none": "none: the top view itself", "statistics": "colours matched to the tiles", "cyclegan": "CycleGAN",
}  # fmt: skip
MAIN = {
    "ucvgl_s_0": "0 %", "ucvgl_b_10": "10 %", "ucvgl_s_100": "100 %, no cold start",
    "pretrained_100": "100 %, after the cold start (not in the paper)",
}  # fmt: skip
RATIOS = {
    "labelled_only_10": "10 %, labelled part only", "labels_1": "1 %", "labels_5": "5 %", "labels_10": "10 %",
    "labels_20": "20 %", "labels_100": "100 %",
}  # fmt: skip
ABLATION = {
    "no_mutual": "(a) mutual matching", "no_threshold": "(b) threshold filter", "no_curriculum": "(c) curriculum learning",
    "full": "nothing: the full method",
}  # fmt: skip
OURS = {
    "main": "descriptors centred, as in the other tables", "raw": "raw cosines, as published",
    "synthetic": "tiles with synthetic top views in step 4", "top_views": "top views to the ground encoder (a shortcut)",
}  # fmt: skip


def without(start: Pretraining, part: str) -> Pretraining:
    """The cold start with one part removed, by its key in COLD_START."""
    cross = start.cross and replace(start.cross, epochs_before=0)
    changes: dict[str, dict[str, Any]] = {
        "no_projection": {"projection": False}, "no_fakes": {"translation": Translation("none")},
        "no_intra_view": {"intra": None, "cross": cross}, "no_cross_view": {"cross": None}, "full": {},
    }  # fmt: skip
    return replace(start, **changes[part])


def translated(settings: UcvglSettings, kind: str) -> Pretraining:
    """The cold start with another way from the top view to the fake satellite image."""
    made = Translation(kind, settings.gan) if kind == "cyclegan" else Translation(kind)
    return replace(settings.start, translation=made)


def variant(steps: Curriculum, key: str) -> Curriculum:
    """The curriculum of a row of MAIN, RATIOS or ABLATION."""
    ratio = int(key.rpartition("_")[2]) / 100 if key[-1].isdigit() else 0.0
    semi = {"label_ratio": ratio, "pretrained": False}  # on given labels, without the cold start
    changes: dict[str, dict[str, Any]] = {
        "ucvgl_s_0": {}, "ucvgl_b_10": {"label_ratio": ratio}, "pretrained_100": {"label_ratio": ratio},
        "labelled_only_10": {**semi, "mine": False}, "no_mutual": {"rule": replace(steps.rule, mutual=False)},
        "no_threshold": {"rule": replace(steps.rule, threshold=0.0)}, "no_curriculum": {"refresh": False}, "full": {},
        **dict.fromkeys(["ucvgl_s_100", *(f"labels_{percent}" for percent in (1, 5, 10, 20, 100))], semi),
    }  # fmt: skip
    return replace(steps, **changes[key])


def ours(steps: Curriculum, key: str) -> Curriculum:
    """The curriculum of a row of OURS, with the cold start it begins with."""
    ground = replace(steps.start.ground, image_px=steps.start.satellite.image_px)
    changes: dict[str, dict[str, Any]] = {
        "main": {}, "raw": {"centre": False}, "synthetic": {"occlusion": Occlusion()},
        "top_views": {"ground": ground, "ground_input": "top view"},
    }  # fmt: skip
    return replace(steps, start=replace(steps.start, **changes[key]))


# --------------------------------------------------------------------------------------------------- Sample4Geo, notebook 05

# by the keys of the published ablation, and of the tables that have no published counterpart: a row's name
SAMPLING = {
    "random": "random", "gps_only": "geographic neighbours (GPS)", "dss_only": "similar places (DSS)",
    "full": "GPS until the first refresh, then DSS: Sample4Geo",
}  # fmt: skip
ARCHITECTURES = {
    "full": "one encoder, smoothing 0.1: Sample4Geo", "separate": "an encoder for each view",
    "no_smoothing": "no label smoothing", "polar": "polar-transformed tiles (not in the paper)",
}  # fmt: skip
FIELDS_OF_VIEW = {"full": "whole panoramas", "limited": "every field of view"}
UNLABELLED = {
    "ucvgl": "UCVGL, 0 % labels", "ucvgl_dss": "UCVGL, 0 % labels, DSS on its pseudo-pairs (in neither paper)",
    "ucvgl_100": "UCVGL, 100 %, random batches", "sample4geo": "Sample4Geo, 100 %, DSS",
}  # fmt: skip


def with_sampler(settings: Sample4GeoSettings, key: str) -> Sample4Geo:
    """The method with another sampler, measured often enough for a curve."""
    sampling = replace(settings.method.sampling, kind=SAMPLERS[list(SAMPLING).index(key)])
    return replace(settings.method, sampling=sampling, evaluate_every=sampling.refresh_every)


def architecture(settings: Sample4GeoSettings, part: str) -> Sample4Geo:
    """The method of a row of the tables on the architecture and on fields of view."""
    as_polar = replace(settings.brief.satellite, image_px=settings.images.query_px)
    changes: dict[str, dict[str, Any]] = {
        "full": {}, "separate": {"shared": False}, "no_smoothing": {"smoothing": 0.0},
        "polar": {"satellite": as_polar, "tile_kind": "polar"}, "limited": {"fovs_deg": settings.fovs_deg},
    }  # fmt: skip
    return replace(settings.brief, **changes[part])


def on_same_terms(settings: Sample4GeoSettings) -> Sample4Geo:
    """Sample4Geo with the encoders, augmentation and budget of UCVGL's curriculum."""
    steps = settings.unlabelled.curriculum
    start, sampling = steps.start, replace(settings.brief.sampling, kind="similarity")
    kinds = {"ground_kind": "panorama" if start.ground_is_panorama else "top view"}
    if start.ground_input == "photo":
        kinds = {"ground_kind": "oblique", "tile_kind": "photo"}
    return Sample4Geo(
        start.ground, start.satellite, shared=False, **kinds,
        training=steps.training, sampling=sampling, smoothing=steps.smoothing, augmentation=steps.augmentation,
        placement=steps.placement, evaluate_every=steps.training.epochs,
    )  # fmt: skip


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
PAIRS = {
    "partial": "partial: with hard negatives as pairs", "random": "random: pairs alone",
    "no_augmentation": "partial, without crops and mirroring",
    "no_mask": "partial, near places count as negatives (as published)",
}  # fmt: skip
MINING = {  # what the triplet's negatives are mined from
    "full": "triplet, negatives from all", "partial": "triplet, negatives from a part", "random": "triplet, any negatives",
}  # fmt: skip
INTRA = {"none": "none", "info_nce": "InfoNCE: UCVGL"} | {key: name for key, name in SSL.items() if key != "triplet"}


def pairs_variant(config: VgSsl, key: str) -> VgSsl:
    """The method of a row of the GeoPair table."""
    changes: dict[str, Any] = {"no_augmentation": {"augment": False}, "no_mask": {"mask_near": False}}
    return replace(config, **changes.get(key, {"geopair": key}))


def pairs_rows(settings: VgSslSettings, of: str = "simclr") -> Iterator[tuple[str, str, VgSsl]]:
    """(key, method's key, method) of the GeoPair table: every variant of one method; of the others that enter hard negatives
    as pairs, with and without them."""
    for method, config in settings.methods.items():
        for key in PAIRS if method == of else ("partial", "random") if config.geopair == "partial" else ():
            yield key if method == of else f"{method}_{key}", method, pairs_variant(config, key)


def published_ssl(backbone: str) -> str:
    """The published table of a backbone."""
    return "vg_ssl_deit_s" if backbone == "deit_small" else "vg_ssl_r50"


def with_mining(settings: VgSslSettings, kind: str) -> VgSsl:
    """The triplet loss of a row of the cost table."""
    return replace(settings.methods["triplet"], mining=kind)


def projector_rows(settings: VgSslSettings, of: str = "barlow_twins") -> Iterator[tuple[str, VgSsl]]:
    """(key, method) of the table on the projector's layers and width and the descriptor's width, for one method."""
    config = settings.methods[of]
    for row in settings.projectors:
        loss = replace(config.loss, projector_layers=row.layers, projector_width=row.width)
        encoder = replace(config.encoder, width=row.descriptor)
        yield f"{row.layers}x{row.width}_{row.descriptor}", replace(config, loss=loss, encoder=encoder)


def with_loss(settings: VgSslSettings, key: str, items: int) -> WithLoss:
    """UCVGL's cold start with one of the six losses in step 3; its queue holds half of the images at most."""
    loss = settings.methods[key].loss
    return WithLoss(settings.cold_start.start, replace(loss, queue=min(loss.queue, max(1, items // 2))))
