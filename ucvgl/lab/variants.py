"""The rows of the tables: for each its key, its name and its method's settings, by what variants.toml says that it changes."""

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ucvgl.augment import Occlusion
from ucvgl.lab.profiles import Sample4GeoSettings, UcvglSettings, VgSslSettings, changed
from ucvgl.lab.published import SSL
from ucvgl.methods.sample4geo import Sample4Geo
from ucvgl.methods.ucvgl import Pretraining, WithLoss

Rows = list[tuple[str, str, Any]]  # key, name, settings
KNOWN = tomllib.loads(Path(__file__).with_name("variants.toml").read_text(encoding="utf-8"))
HEADLINE: Mapping[str, list[str]] = KNOWN["headline"]


def _table(table: str, settings: Any, others: Mapping[str, Any] | None = None) -> Rows:
    """The rows of a table from the settings that it starts from; from `others` those of these keys."""
    rows = KNOWN[table].items()
    return [(key, name, changed((others or {}).get(key, settings), values)) for key, (name, values) in rows]


def ucvgl(settings: UcvglSettings) -> dict[str, Rows]:
    """Of notebooks 02 and 04: cold starts and curricula."""
    start, steps = settings.start, settings.curriculum
    gan = replace(start, translation=replace(start.translation, gan=settings.gan))
    ours = {"synthetic": replace(start, occlusion=Occlusion()), "top_views": on_top_views(start)}
    return {
        "02/cold_start": _table("02/cold_start", start),
        "02/translation": _table("02/translation", start, {"cyclegan": gan}),
        **{table: _table(table, steps) for table in ("04/main", "04/ablation", "04/label_ratio")},
        "04/ours": _table("04/ours", steps, {key: replace(steps, start=each) for key, each in ours.items()}),
    }


def on_top_views(start: Pretraining) -> Pretraining:
    """Ours: the ground encoder is given top views."""
    return changed(start, {"ground": {"image_px": start.satellite.image_px}, "ground_input": "top view"})


def sample4geo(settings: Sample4GeoSettings, *, located: bool = True) -> dict[str, Rows]:
    """Of notebook 05; without positions of the tiles (`located`) two samplers are left out. The last rows of 05/architecture and
    05/fields_of_view need panoramas. Of 05/unlabelled/ucvgl_dss `brief.sampling.draw` chooses the hard negatives."""
    brief, steps, folds = settings.brief, settings.unlabelled.curriculum, settings.real.folds if settings.real else 0
    polar = replace(brief, satellite=replace(brief.satellite, image_px=settings.images.query_px))
    limited = replace(brief, fovs_deg=settings.fovs_deg)
    # measured often enough for a curve
    samplers = _table("05/sampling", replace(settings.method, evaluate_every=settings.method.sampling.refresh_every))
    return {
        "05/sampling": samplers if located else samplers[::2],
        "05/architecture": _table("05/architecture", brief, {"polar": polar}),
        "05/fields_of_view": _table("05/fields_of_view", brief, {"limited": limited}),
        "05/unlabelled": _table("05/unlabelled", steps, {"sample4geo": on_same_terms(settings)}),
        "05/real": [(f"fold_{k}", f"without fold {k}", k) for k in range(folds)],
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


def vg_ssl(settings: VgSslSettings) -> dict[str, Rows]:
    """Of notebook 06: in 06/geopair every form of SimCLR's pairs, with and without hard negatives as pairs of the others; in
    06/pretraining_losses UCVGL's cold start by the loss of its step 3, a queue holding half of the ground images at most."""
    methods, start, geopair, projectors = settings.methods, settings.cold_start.start, [], []
    for method, config in methods.items():
        if config.geopair == "partial":
            prefix, count = ("", None) if method == "simclr" else (f"{method}_", 2)
            forms = _table("06/geopair", config)[:count]
            geopair += [(prefix + key, f"{SSL[method]}, {name}", form) for key, name, form in forms]
    barlow = methods["barlow_twins"]
    for layers, width, descriptor in settings.projectors:
        values = {"loss": {"projector_layers": layers, "projector_width": width}, "encoder": {"width": descriptor}}
        projectors.append((f"{layers}x{width}_{descriptor}", f"{layers} layers", changed(barlow, values)))
    longest = max(1, settings.cold_start.train.places // 4)
    losses = {key: replace(each.loss, queue=min(each.loss.queue, longest)) for key, each in methods.items()}
    others = [(key, SSL[key], WithLoss(start, loss)) for key, loss in losses.items() if key != "triplet"]
    # a part that holds all photos has the negatives of all: the same training
    part_is_all = sum(drive.places for drive in settings.train) <= methods["triplet"].pool
    return {
        "06/real": [(key, SSL[key], config) for key, config in settings.real.items()],
        "06/main": [(key, SSL[key], config) for key, config in methods.items()],
        "06/joined": [(key, SSL[key], methods[key]) for key in ("simclr", "triplet")],  # all kinds of drives, too
        "06/geopair": geopair,
        "06/projector": projectors,
        "06/cost": _table("06/cost", methods["triplet"])[part_is_all:],
        "06/pretraining_losses": [*_table("06/pretraining_losses", start), *others],
    }
