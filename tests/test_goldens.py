"""What the package computes from fixed inputs is what it computed when these goldens were written (goldens/README.md).

Each function marked `golden` makes one of them from the package: arrays and texts under names. After a change of the
package only the imports and calls in these functions follow; the stored values stay. `UCVGL_WRITE_GOLDENS=1 pytest
tests/test_goldens.py -k <name>` stores them anew.
"""

import hashlib
import json
import math
import os
from dataclasses import replace
from pathlib import Path

import make_weights as world_weights
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ucvgl import (
    augment,
    geometry,
    heads,
    losses,
    metrics,
    reranking,
    sampling,
    search,
    ssl_losses,
    synthetic_top_view,
    translation,
)
from ucvgl import (
    positions as place,
)
from ucvgl import (
    pseudo_labels as mining,
)
from ucvgl.data.container import ArrayImages, Dataset, Positives
from ucvgl.data.prepare import Preparation, prepare, resized
from ucvgl.encoders import EncoderConfig, embed, open_model, two_view_encoder
from ucvgl.geometry import TopView
from ucvgl.heads import METHODS, Learner, SslLoss
from ucvgl.locate import views as street
from ucvgl.locate.adapt import WORLD_WEIGHTS
from ucvgl.locate.pictures import Picture
from ucvgl.methods import baselines, curriculum, sample4geo, ucvgl
from ucvgl.methods.sample4geo import SAMPLERS, Sampling
from ucvgl.training import TrainingConfig, train
from ucvgl.world import views
from ucvgl.world.appearance import Condition
from ucvgl.world.city import make_city
from ucvgl.world.drives import MANNERS, DriveConfig, world_drives
from ucvgl.world.export import export_world
from ucvgl.world.own_city import export_own_city
from ucvgl.world.pairs import WorldConfig, world_pairs
from ucvgl.world.places import choose, street_places
from ucvgl.world.render import Scene
from ucvgl.world.styles import STYLES

FOLDER = Path(__file__).parent / "goldens"
TOLERANCE = 1e-5  # of floats, absolute and relative; all else has to be equal
# metres are large numbers; training makes small differences larger
OTHERS = {"positions": 1e-9, "cities": 1e-6, "worlds": 1e-6, "drives": 1e-6, "trainings": 1e-3, "cycle_gan": 1e-3}
GOLDENS = {}
SEEDS = (0, 1, 2)


def golden(make):
    GOLDENS[make.__name__] = make
    return make


# ------------------------------------------------------------------------------------------------------- fixed inputs


def normal(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).float()


def uniform(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).uniform(size=shape)).float()


def unit(seed, *shape):
    return F.normalize(normal(seed, *shape), dim=-1)


def pictures(count, height, width):
    """Colourful waves, (count, 3, height, width) in 0..1, without a seam between the last and the first column."""
    k, c = np.arange(count)[:, None, None, None], np.arange(3)[:, None, None]
    y, x = (np.arange(height)[:, None] + 0.5) / height, (np.arange(width) + 0.5) / width
    turns = 2 * np.pi * x
    waves = np.sin((1 + (k + c) % 3) * turns + 0.7 * c + 0.31 * k) * np.cos(np.pi * (2 + c + k % 4) * y + 0.5 * k)
    waves = waves + 0.4 * np.sin(5 * turns + 6 * np.pi * y + 1.3 * c + k)
    return torch.from_numpy(0.5 + 0.35 * waves).float().clamp(0, 1)


def as_bytes(floats):
    return (floats * 255).round().to(torch.uint8)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def in_memory(pixels, metres=None):
    where = None if metres is None else place.Positions(metres, place.Metres("town"))
    return ArrayImages([f"{i}" for i in range(len(pixels))], pixels, where)


# ------------------------------------------------------------------------------------------------------------- losses


def with_gradients(loss, *inputs, **options):
    """The loss and its gradients with respect to all inputs, zeros where none arrives."""
    leaves = [value.clone().requires_grad_() for value in inputs]
    value = loss(*leaves, **options)
    value.backward()
    return {"loss": value, "gradients": [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves]}


MASK = np.random.default_rng(7).uniform(size=(6, 6)) < 0.2
SHARED = torch.from_numpy(MASK | MASK.T)  # rows that share a tile, the diagonal among them


@golden
def info_nce():
    query, reference, scale = unit(0, 6, 8), unit(1, 6, 8), torch.tensor(1 / 0.07)
    options = {"plain": {}, "smoothing 0.1": {"label_smoothing": 0.1}, "smoothing 0.3": {"label_smoothing": 0.3},
               "shared": {"not_negative": SHARED},
               "shared, smoothing": {"not_negative": SHARED, "label_smoothing": 0.1}}  # fmt: skip
    loss, one = losses.info_nce, (query[:1], reference[:1])
    return {name: with_gradients(loss, query, reference, scale, **more) for name, more in options.items()} | {
        "number as scale": with_gradients(loss, query, reference, scale=10.0),
        "not of unit length": with_gradients(loss, normal(3, 6, 8), normal(4, 6, 8), torch.tensor(0.5)),
        "one row": with_gradients(loss, *one, scale=10.0, label_smoothing=0.1),
    }


@golden
def soft_info_nce():
    inputs = unit(0, 6, 8), unit(1, 6, 8), torch.tensor(1 / 0.07)
    matched = {"all": [True] * 6, "some": [True, False, True, True, False, False], "none": [False] * 6}
    options = {"plain": {}, "smoothing": {"label_smoothing": 0.1}, "smoothing 0.2": {"label_smoothing": 0.2},
               "shared": {"not_negative": SHARED, "label_smoothing": 0.1}}  # fmt: skip
    return {
        f"{name}/{more}": with_gradients(losses.soft_info_nce, *inputs, matched=torch.tensor(rows), **option)
        for name, rows in matched.items()
        for more, option in options.items()
    }


@golden
def contrastive_losses():
    first, second, queue, found = normal(0, 6, 8), normal(1, 6, 8), unit(2, 10, 8), {}
    skip = torch.from_numpy(np.random.default_rng(4).uniform(size=(6, 10)) < 0.3)
    skip[2] = True  # a query whose negatives are all left out
    present = torch.from_numpy(np.random.default_rng(5).uniform(size=(6, 4)) < 0.7)
    near = unit(6, 6, 8), F.normalize(unit(6, 6, 8) + 1.5 * unit(7, 6, 8), dim=1), unit(3, 6, 4, 8)
    for t in (0.07, 0.5):
        for name, mask in (("all", None), ("shared", SHARED)):
            options = {"temperature": t, "not_negative": mask}
            found[f"nt_xent {t} {name}"] = with_gradients(ssl_losses.nt_xent, first, second, **options)
        for name, mask in (("all", None), ("some", skip)):
            options = {"temperature": t, "not_negative": mask}
            found[f"moco {t} {name}"] = with_gradients(ssl_losses.moco, first, second, queue, **options)
    for name, options in {
        "plain": {},
        "margin": {"margin": 0.5},
        "present": {"margin": 0.5, "present": present},
    }.items():
        found[f"triplet {name}"] = with_gradients(ssl_losses.triplet, *near, **options)
    return found


@golden
def other_ssl_losses():
    first, second = normal(0, 6, 8), normal(1, 6, 8) * 0.7 + 0.5 * normal(0, 6, 8)
    parts, weights, alike = [normal(seed, 6, 8) for seed in (2, 3, 4, 5)], normal(6, 8, 8), 1 + 0.05 * first

    def correlation(a, b):
        return (ssl_losses.cross_correlation(a, b) * weights).sum()

    return {
        name: with_gradients(getattr(ssl_losses, name), first, second)
        for name in ("negative_cosine", "byol", "barlow_twins", "vicreg", "invariance_loss")
    } | {
        "barlow_twins 0.1": with_gradients(ssl_losses.barlow_twins, first, second, lambda_=0.1),
        "cross_correlation": with_gradients(correlation, first, second),
        "vicreg 1 2 3": with_gradients(ssl_losses.vicreg, first, second, invariance=1, variance=2, covariance=3),
        "variance_loss": with_gradients(ssl_losses.variance_loss, first),
        "variance_loss 2": with_gradients(ssl_losses.variance_loss, first, least=2.0, eps=0.01),
        "cross_redundancy": with_gradients(ssl_losses.off_diagonal_squares, weights),
        "covariance_loss": with_gradients(ssl_losses.covariance_loss, first),
        "simsiam": with_gradients(ssl_losses.simsiam, *parts),
        "cross_correlation matrix": ssl_losses.cross_correlation(first, second),
        "embedding_std": [ssl_losses.embedding_std(first), ssl_losses.embedding_std(alike)],
        "is_collapsed": [ssl_losses.is_collapsed(first), ssl_losses.is_collapsed(alike)],
    }


@golden
def queue_and_slow_copy():
    queue, found = heads.Queue(7, 8, 100), {}
    for step, size in enumerate((3, 3, 4, 9)):
        queue.push(normal(step, size, 8), torch.arange(size) + 10 * step)
        found[f"queue {step}/empty"] = queue.empty
    model = torch.nn.Linear(3, 2)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.ones_(model.bias)
    copy = heads.momentum_encoder(model, 0.9)
    for step, copy.decay in enumerate((0.9, 0.9, 0.5)):
        with torch.no_grad():
            model.weight.copy_(normal(step, 2, 3))
        copy.update(model)
    return found | {"queue 3/keys": queue.keys, "queue 3/items": queue.items, "copy": list(copy.module.parameters())}


@golden
def learners():
    """Encoder, heads, slow copy and queue of each self-supervised method: the losses of two batches, heads of seed 0."""
    first, second = pictures(8, 24, 32).split(4)
    shown = first, (first + 0.3 * second).clamp(0, 1)
    near, items, found = torch.eye(4, dtype=torch.bool).roll(1, 0), torch.arange(4), {}
    for method in METHODS[1:]:  # the triplet loss takes negatives: see contrastive_losses
        encoder = two_view_encoder(SMALL, SMALL, shared=True, seed=0).ground
        settings = SslLoss(method, 2, 16, predictor_width=8, momentum=0.9, queue=6)
        learner, found[method] = Learner(encoder, settings, 0, items=8).train(), []
        optimiser = torch.optim.SGD(learner.parameters(), lr=0.001)
        for step in range(2):
            value = learner.loss(learner.compared(*(view.roll(step, 0) for view in shown)), items, near=near)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            learner.follow()
            found[method].append(value)
    return found


# -------------------------------------------------------------------------------------------------------------- views

ATTITUDE = {"heading_deg": 25.0, "pitch_deg": -4.0, "roll_deg": 6.0}
HEADINGS = torch.tensor([0.0, 77.0, -130.0])


@golden
def top_views():
    panorama, settings = pictures(2, 24, 48), TopView(12, 150.0)
    # the stored strip lies on grey
    whole = geometry.complete_panorama(pictures(1, 10, 48) - 0.25, strip_offset=4 / 48) + 0.25

    def view(images, **attitude):
        return geometry.top_view(images, replace(settings, **attitude))

    return {
        "plain": view(panorama),
        "turned": geometry.top_view(panorama[:1], TopView(12, 150.0, 2.5, **ATTITUDE)),
        "turned, by call": geometry.top_view(
            panorama[:1], replace(settings, **ATTITUDE), heading_deg=torch.tensor([ATTITUDE["heading_deg"]])
        ),
        "own headings": torch.cat(
            [view(x[None], heading_deg=h, roll_deg=h / 20) for x, h in zip(panorama, HEADINGS.tolist(), strict=False)]
        ),
        "many headings": geometry.top_view(panorama[:1], settings, heading_deg=HEADINGS),
        "bytes": view(as_bytes(panorama)),
        "of a span": geometry.top_view(panorama[:1], TopView.from_span(11, 30.0, 2.0)),
        "gradient": with_gradients(lambda x: (view(x) * normal(0, 1, 3, 12, 12)).sum(), panorama[:1])["gradients"],
        "completed": whole,
        "completed, from above": view(whole),
        "completed as in CVUSA": geometry.complete_panorama(pictures(1, 6, 96), strip_offset=20 / 96).sum((0, 1, 3)),
    }


@golden
def other_views():
    panorama, tile = pictures(2, 20, 40), pictures(2, 20, 20)
    pixels = torch.stack([uniform(1, 2, 5, 7) * 80 - 20, uniform(2, 2, 5, 7) * 20 - 0.5], -1)
    headings = HEADINGS.tolist()
    return {
        "perspective": geometry.perspective_view(panorama, (7, 10), 80.0, 30.0, -10.0, 5.0),
        "perspective, own headings": torch.cat(
            [geometry.perspective_view(panorama[i : i + 1], (8, 8), 100.0, headings[i]) for i in range(2)]
        ),
        "perspective, bytes": geometry.perspective_view(as_bytes(panorama), (7, 10), 80.0, 190.0),
        "perspective grid": torch.cat([geometry.perspective_grid(20, (3, 4), 80.0, h, -10.0) for h in headings]),
        "photo from above, many": geometry.photo_top_view(as_bytes(tile[:1]), 90.0, TopView(10, 150.0), HEADINGS),
        "sampled": geometry.sample_panorama(panorama, pixels),
        "polar": geometry.polar_view(tile, 7, 12),
        "polar, bytes": geometry.polar_view(as_bytes(tile), 7, 12),
    }


@golden
def points():
    settings, pixel = TopView(16, 150.0, 2.5), uniform(0, 9, 2) * 15
    turn = geometry.attitude_matrix(*(uniform(1, 3, 4) * 90 - 45))
    ray, ground = geometry.panorama_pixel_to_ray(pixel, 16), uniform(2, 9, 2) * 40 - 20
    return {
        "attitude": turn,
        "panorama to ray": ray,
        "ray to panorama": geometry.ray_to_panorama(torch.einsum("gij,nj->gni", turn, ray), 16),
        "ray to ground": geometry.ray_to_ground(ray, 2.5),
        "top view to ray": F.normalize(geometry.top_view_pixel_to_ray(pixel, settings), dim=-1),
        "ground to tile": geometry.ground_to_tile_pixel(ground, 16, 50.0),
        "polar to ground": geometry.polar_pixel_to_ground(pixel, 16, 32, 50.0),
        "settings": [settings.focal_px, settings.span_m, TopView.from_span(16, 50.0).fov_deg],
    }


@golden
def street_pictures():
    """Pictures of a street as encoders are given them, at several headings; bytes."""

    def seen(image, kind, config):
        picture = Picture("a.jpg", kind, image.shape[2], image.shape[1], 75.0)
        return street.north_up(image, picture, HEADINGS, config)

    above = street.StreetConfig("top view", (16, 16), 40.0, 2.2, 3)
    wide = street.StreetConfig("panorama", (10, 20))
    whole, crop, photo = (as_bytes(pictures(1, *size))[0] for size in ((32, 64), (20, 64), (24, 32)))
    return {
        "panorama, from above": seen(whole, "panorama", above),
        "crop, from above": seen(crop, "panorama", above),
        "photo, from above": seen(photo, "photo", above),
        "panorama": seen(whole, "panorama", wide),
        "resized": resized(as_bytes(pictures(2, 32, 64)), (7, 9)),
    }


# ------------------------------------------------------------------------------------------------------ pseudo-labels


def two_sets():
    """40 ground images, each near its tile by more or less, and the 40 tiles in another order."""
    tiles = unit(0, 40, 16)
    order = torch.from_numpy(np.random.default_rng(1).permutation(40))
    noise = torch.linspace(0.1, 2.2, 40)[:, None] * unit(2, 40, 16)
    return F.normalize(tiles[order] + noise, dim=1), tiles, order


def lists_of(both):
    ground, satellite = [both.ground_score, both.ground_index], [both.satellite_score, both.satellite_index]
    return {"ground": ground, "satellite": satellite}


def labels_of(labels):
    ground = (labels.satellite >= 0).nonzero()[:, 0]
    pairs = torch.stack([ground, labels.satellite[ground]], 1)
    return {"satellite": labels.satellite, "given": labels.given, "pairs": pairs, "count": labels.count}


def epoch_of(labels, satellites, seed, few):
    pairs = mining.epoch_items(labels, satellites, generator(seed), few=few)
    return [pairs.ground, pairs.satellite, pairs.matched]


@golden
def pseudo_labels():
    ground, tiles, order = two_sets()
    both, rule = search.both_ways(ground, tiles, 5, 5), mining.MiningRule
    found = {
        "neighbours": lists_of(both),
        "mutual": mining.mutual(both),
        "mutual, shared": mining.mutual(both, share=3),
        "margins": mining.margins(both),
        "quality": mining.quality(both),
        "threshold": [mining.threshold_at(epoch, 40, 0.05) for epoch in (0, 6, 13.5, 20, 39, 40)],
        "mine": labels_of(mining.select(search.both_ways(ground, tiles, 2, 1), rule())),
    }
    rules = {"0.05": rule(), "0.3": rule(threshold=0.3), "keep": rule(threshold=0.0, keep=0.25),
             "keep, 0.1": rule(threshold=0.1, keep=0.5), "share": rule(threshold=0.05, share=2),
             "one way": rule(mutual=False, threshold=0.2)}  # fmt: skip
    for name, first in rules.items():
        for epoch in (0, 6, 20):
            labels = mining.select(both, first.at(epoch, 40))
            right = mining.correctness(
                labels, Positives.one_each(order.numpy()).pairs(), torch.ones(len(order), dtype=torch.bool)
            )
            found[f"rule {name}, epoch {epoch}"] = labels_of(labels) | {"right": right}
    return found


@golden
def given_labels_and_epochs():
    ground, tiles, order = two_sets()
    best = order.clone()
    best[::9] = -1
    found = {f"given {ratio} {seed}": mining.given_subset(best, ratio, seed=seed)
             for ratio in (0.1, 0.5, 1.0) for seed in (None, 0, 1)}  # fmt: skip
    both, some, rule = search.both_ways(ground, tiles, 5, 5), found["given 0.5 0"], mining.MiningRule
    mined = {f"threshold {least}": mining.select(both, rule(threshold=least)) for least in (0.5, 0.3, 0.05)}
    mined["mixed"] = mining.mix_given(mined["threshold 0.05"], some)
    mined["mixed, shared"] = mining.mix_given(mined["threshold 0.05"], some, share=2)
    for name, labels in mined.items():
        found[name] = labels_of(labels)
        # few labels are repeated, else all images are used; with 25 tiles too few are left for the unlabelled
        for seed in SEEDS:
            for few in (0.4, 0.9):
                found[f"epoch of {name}, few {few}, seed {seed}"] = epoch_of(labels, 40, seed, few)
    fewer = mining.select(search.both_ways(ground, tiles[:25], 5, 5), rule(threshold=0.0))
    return found | {"epoch of fewer tiles": epoch_of(fewer, 25, 0, 0.0)}


# ----------------------------------------------------------------------------------------------------------- samplers


def spots(seed, count):
    """Metres east and north of `count` places in a small town, some of them at one spot."""
    metres = np.random.default_rng(seed).uniform(0, 300, (count, 2)).round(1)
    metres[count // 2 : count // 2 + 4] = metres[3]
    return metres


@golden
def batches():
    """Orders of items by each sampler: at random, by position (GPS), by likeness (DSS); a place each, or shared ones."""
    town = place.Positions(spots(0, 60), place.Metres("town"))
    degrees = place.Positions(48.0 + spots(0, 60) / 1e5, place.Wgs84())
    shared = torch.from_numpy(np.random.default_rng(1).integers(0, 60, 90))
    query, tiles = unit(2, 60, 16), unit(3, 60, 16)
    lists = {
        "GPS": sampling.geographic_neighbours(town, 20),
        "GPS, degrees": sampling.geographic_neighbours(degrees, 20),
        "DSS": sampling.similarity_neighbours(query, tiles, 20),
    }
    many = sampling.similarity_neighbours(unit(4, 90, 16), tiles, 20, place=shared)
    draw, nearest = sampling.NeighbourDraw(16, 3, 3), sampling.NeighbourDraw(16, 6, 0)
    found = {f"neighbours {name}": near for name, near in (lists | {"DSS, shared": many}).items()}
    for seed in SEEDS:
        for name, near in ({"random": None} | lists).items():
            found[f"{name}, seed {seed}"] = sampling.batches_with_sources(near, 8, generator(seed), draw, places=60)
        for name, near in {"random": None, "GPS": lists["GPS"][shared], "DSS": many}.items():
            order = sampling.neighbour_batches(near, 8, generator(seed), draw, place=shared, places=60)
            found[f"{name}, shared, seed {seed}"] = order
        found[f"nearest alone, seed {seed}"] = sampling.neighbour_batches(lists["DSS"], 10, generator(seed), nearest)
    sources = {kind: " ".join(Sampling(kind, draw, 4).source(epoch) for epoch in range(6)) for kind in SAMPLERS}
    return found | {"sources": sources}


@golden
def geo_pairs():
    query, database = unit(0, 30, 16), unit(1, 50, 16)
    query_m, database_m = (torch.from_numpy(spots(seed, count) / 4) for seed, count in ((2, 30), (3, 50)))
    near, hardest = sampling.near_mask(query_m, database_m, 10.0), sampling.hardest_negatives
    return {
        "near": near,
        "near, 25 m": sampling.near_mask(query_m, query_m),
        "positives": sampling.best_positives(query, database, near.nonzero()),
        "hardest": hardest(query, database, query_m, database_m, 5),
        "hardest, far": hardest(query, database[:8], query_m, database_m[:8], 10, radius_m=40.0),
    } | {f"random, seed {s}": sampling.random_negatives(query_m, database_m, 5, generator(s)) for s in SEEDS}


@golden
def positions():
    degrees = np.array([[60.17, 24.94], [60.18, 24.95], [60.16, 24.90], [60.2, 25.1], [np.nan, np.nan]])
    here = place.Positions(degrees, place.Wgs84())
    away = place.to_metres(here, (60.0, 24.0))
    east, north, zone, letter = place.to_utm(degrees[:4, 0], degrees[:4, 1])
    tree, known = place.Neighbours(here), here.take(np.arange(4))
    return {
        "metres": place.to_metres(here).values,
        "metres, origin": away.values,
        "degrees": place.from_metres(away.values[:4], (60.0, 24.0)),
        "utm": [east, north, zone, letter],
        "from utm": place.from_utm(east, north, zone, south=False),
        "distances": place.distances(known, here.take(np.array([1, 2, 3, 0]))),
        "within": tree.within(here, 3000.0),
        "nearest": [nearest[:, 1:] for nearest in tree.nearest(known, 4)],  # but itself
    }


# -------------------------------------------------------------------------------------------------------------- world

TOWN = {"size_m": 256.0, "resolution_m": 0.5}
DAYS = {
    "summer": Condition(),
    "spring, overcast": Condition("spring", 120.0, 40.0, 1.0, 0.0, 1),
    "autumn, low sun": Condition("autumn", 250.0, 14.0, 0.3, 0.0, 2),
    "winter, snow": Condition("winter", 190.0, 18.0, 0.5, 1.0, 3),
    "dusk": Condition("summer", 285.0, 4.0, 0.5, 0.0, 4),
    "night": Condition("autumn", 285.0, -12.0, 0.2, 0.0, 5),
}


def digest(*arrays):
    """Shapes and SHA-256 of bytes: of pictures, uint8."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(array).tobytes())
    return f"{' '.join('x'.join(map(str, np.shape(array))) for array in arrays)} {sha.hexdigest()}"


def seen(pixels):
    """A digest of pictures, and their mean colours, to see by how much they differ where the digest does."""
    pixels = np.asarray(pixels)
    assert pixels.dtype == np.uint8
    return {"digest": digest(pixels), "mean": pixels.mean((-2, -1), dtype=np.float64).round(4)}


@golden
def cities():
    found = {}
    for style in STYLES:
        for seed in SEEDS[:2]:
            city = make_city(STYLES[style], seed, **TOWN)
            stops = street_places(city, 12.0)
            some = choose(stops, 8, seed)
            found[f"{style} {seed}"] = {
                "layers": [digest(layer) for layer in (city.relief, city.surface, city.facade, city.extra)],
                "stops": len(stops),
                "chosen": [some.east_m, some.north_m, some.heading_deg, some.drive],
            }
    return found


@golden
def pictures_by_day():
    """Every product of the renderer, in each season and light, in two cities."""
    found = {}
    for style, seed in (("garden", 3), ("downtown", 4)):
        scene = Scene(make_city(STYLES[style], seed, **TOWN))
        stops = choose(street_places(scene.city, 12.0, margin_m=60.0), 2, seed)
        where = [torch.from_numpy(values) for values in (stops.east_m, stops.north_m)]
        heading, height, tilt = (torch.tensor(pair) for pair in ([20.0, 250.0], [2.5, 1.7], [1.5, -2.0]))
        tilted = {"heading_deg": heading, "pitch_deg": tilt, "roll_deg": -tilt}
        for name, day in DAYS.items():
            here = scene, day, *where
            tiles = {
                "tile": views.satellite_tiles(*here, span_m=50.0, size_px=20),
                "turned tile": views.satellite_tiles(*here, span_m=40.0, size_px=20, heading_deg=heading),
                "ground": views.satellite_tiles(*here, span_m=50.0, size_px=20, from_above=False),
            }
            rendered = {
                "panorama": views.panoramas(*here, height, height_px=16),
                "tilted panorama": views.panoramas(*here, height, height_px=16, **tilted),
                "photo": views.photos(*here, height, heading, size_px=(12, 16), fov_deg=75.0),
                "drone": views.drone_images(*here, 20 * height, heading, size_px=16, pitch_deg=-60.0),
            }
            for product, view in (tiles | rendered).items():
                pixels = as_bytes(view.rgb.clamp(0, 1))
                found[f"{style}, {name}, {product}"] = seen(pixels) | {"kind": digest(view.kind)}
            if name == "summer":
                depths = (view.depth_m for view in rendered.values())
                found[f"{style}, metres"] = dict(enumerate(depths, start=1))
    return found


@golden
def worlds():
    """Places, panoramas and tiles of all styles at all levels, and what encoders are given of them."""
    found = {}
    for seed, styles in ((0, ("garden", "canal")), (1, ("old_town", "downtown"))):
        for level in ("easy", "medium", "hard"):
            world = WorldConfig(styles, seed, 5, difficulty=level, tile_px=24, panorama_px=32, city_size_m=256.0,
                                resolution_m=0.5)  # fmt: skip
            pairs = world_pairs(world, progress=False)
            found[f"{level} {seed}"] = {
                "panorama": seen(pairs.query[:]),
                "tile": seen(pairs.gallery[:]),
                "truth": [pairs.query.positions.values, pairs.gallery.positions.values],
            }
        config = Preparation((20, 40), (24, 24), TopView.from_span(24, 50.0))
        given = prepare(pairs, config, progress=False)
        occlusion = synthetic_top_view.Occlusion()
        tiles = given.gallery[:].float() / 255
        parts = {
            "panorama": given.query[:],
            "top view": given.top_view[:],
            "tile": given.gallery[:],
            "polar tile": prepare(pairs, replace(config, top_view=None, polar=True), progress=False).gallery[:],
            "synthetic top view": as_bytes(synthetic_top_view.synthetic_top_view(tiles, occlusion, generator(seed))),
        }
        found[f"given to encoders {seed}"] = {name: seen(pixels) for name, pixels in parts.items()}
    return found


@golden
def drives():
    """Photos of both passes in each capture condition."""
    found = {}
    for seed, styles in ((0, ("garden",)), (1, ("downtown", "canal"))):
        for kind in MANNERS:
            config = DriveConfig(kind, styles, seed, 8, photo_px=(12, 16), city_size_m=256.0, resolution_m=1.0)
            photos = world_drives(config, progress=False)
            sides = {"database": photos.gallery, "query": photos.query}
            found[f"{kind} {seed}"] = {name: seen(side[:]) for name, side in sides.items()} | {
                f"{name} m": side.positions.values for name, side in sides.items()
            }
            found[f"{kind} {seed}"]["positives"] = photos.positives.pairs()
    return found


def written(root):
    """What was exported: the names, the decoded pictures, all other files but for the head of MATLAB's, which has the time."""
    found = {"names": hashlib.sha256(), "pictures": hashlib.sha256(), "files": hashlib.sha256()}
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    for name in names:
        found["names"].update(f"{name}\n".encode())
        if Path(name).suffix in (".jpg", ".jpeg", ".png", ".tif"):
            with Image.open(root / name) as picture:
                found["pictures"].update(f"{picture.size}".encode() + picture.convert("RGB").tobytes())
        else:
            content = (root / name).read_bytes()[128 if name.endswith(".mat") else 0 :]
            if name == "ucvgl-export.json":  # its sides had other names, and it had no offset
                content = content.replace(b'"query"', b'"ground"').replace(b'"gallery"', b'"satellite"')
                content = content.replace(b',\n "strip_offset": 0.0', b"")
            found["files"].update(content)
    return {"count": len(names)} | {part: sha.hexdigest() for part, sha in found.items()}


@golden
def exports(folder):
    """The world in the layouts of data sets, and as somebody's own city."""
    small, found = {"tile_px": 24, "panorama_px": 24, "resolution_m": 1.0, "progress": False}, {}
    for layout in ("cvusa", "cvact", "vigor", "university1652", "sues200", "vpr"):
        # drones stand back from their places, so their cities are larger
        size, level = (448.0, "easy") if layout in ("university1652", "sues200") else (300.0, "medium")
        root = export_world(layout, folder / layout, places=12 if layout == "vigor" else 6, difficulty=level,
                            city_size_m=size, photo_px=24, drone_views=2, **small)  # fmt: skip
        found[layout] = written(root)
    del found["cvusa"]["files"]  # degrees by pyproj end in other digits, 1e-13 degrees away
    for name, options in {
        "panoramas": {"style": "downtown"},
        "turned": {"style": "garden", "aligned": False, "tiles": "csv"},
        "photos": {"style": "old_town", "photo_fov_deg": 80.0},
    }.items():
        root = export_own_city(folder / name, places=4, seed=1, city_size_m=512.0, **small, **options)
        found[f"own city, {name}"] = written(root)
    return found


# --------------------------------------------------------------------------------------------------------- embeddings

ENCODER = EncoderConfig("test_efficientnet", depth=3, image_px=(32, 32))
SMALL = EncoderConfig("test_efficientnet", depth=2, pooling="gem", width=16, image_px=(24, 32))


@golden
def committed_encoders():
    model, given = open_model(WORLD_WEIGHTS), as_bytes(pictures(8, 64, 64))
    ground, satellite = (embed(encoder, given.split(4)) for encoder in (model.ground, model.satellite))
    return {"ground": ground, "satellite": satellite, "scale": model.scale}


@golden
def small_encoders():
    """Backbones from ImageNet or at random, with the heads of the profiles.

    What is random is drawn as the package draws it, from torch's generator under the seed given here.
    """
    lite, found = EncoderConfig("tf_efficientnet_lite0", "package", depth=3, image_px=(48, 48)), {}
    configs = {"SAFA": lite, "GeM": replace(lite, depth=4, pooling="gem", width=128, image_px=(48, 64)),
               "tiny SAFA": ENCODER, "tiny GeM": SMALL}  # fmt: skip
    for pooling in ("unit_gem", "avg", "head"):
        configs[f"tiny {pooling}"] = EncoderConfig("test_efficientnet", pooling=pooling, width=16, image_px=(32, 32))
    for name, config in configs.items():
        shared = config.pooling != "safa"
        model = two_view_encoder(config, config, shared=shared, seed=0)
        given = pictures(8, *config.image_px)
        found[name] = embed(model.ground, given.split(4))
        if not shared:
            found[f"{name}, satellite"] = embed(model.satellite, given.split(4))
        if name == "GeM":
            found["GeM, training"] = model.train().ground(given).detach()
    return found


@golden
def small_heads():
    """Projector and predictor, drawn under torch.manual_seed(0)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        projector, predictor = heads.Projector(8, 6, 2), heads.Predictor(6, 5)
        torch.nn.Conv2d(5, 3, 1), torch.randn(3, 5)  # a head that is no more took its numbers here
        deep = heads.Projector(8, 6, 3)
    projected = projector(normal(0, 4, 8))
    return {
        "projector": projected,
        "projector, evaluated": projector.eval()(normal(3, 4, 8)),
        "deep projector": deep(normal(0, 4, 8)),
        "predictor": predictor(projected),
    }


@golden
def plain_descriptors():
    given = pictures(3, 40, 40)
    return {
        "pixels": baselines.pixel_descriptor(given, size_px=8),
        "colours": baselines.colour_descriptor(as_bytes(given), bins=4),
        "centred": baselines.centred_by_domain(unit(0, 6, 8)),
    }


# ---------------------------------------------------------------------------------------------------------- trainings

SHORT = TrainingConfig(epochs=2, batch_size=8, learning_rate=1e-3, weight_decay=0.05, warmup_epochs=0.5, clip_norm=5.0)


def trained(model, task, folder):
    """Of each epoch the loss and the last learning rate, as a part of the highest; by the loop that all methods share."""
    rows = train(model, task, SHORT, folder, progress=False)
    return [(row["loss"], row["lr"] / SHORT.learning_rate) for row in rows]


@golden
def trainings(folder):
    """Two epochs of UCVGL's steps 3 to 5, of Sample4Geo and of the committed encoders' task, on 24 places of waves."""
    given = as_bytes(pictures(24, 32, 32))
    own = Positives.one_each(np.arange(24)[::-1].copy())
    mine = Dataset(
        "waves", "all", in_memory(given), in_memory(given.flip(0, 1), spots(0, 24)), own, None, in_memory(given)
    )
    start = ucvgl.Pretraining(ENCODER, ENCODER, "top view", translation=ucvgl.Translation("statistics"),
                              occlusion=synthetic_top_view.Occlusion())  # fmt: skip
    steps = ucvgl.Curriculum(start, training=SHORT, rule=mining.MiningRule(threshold=0.001), warmup=0)
    unknown = torch.full((24,), -1)
    some = torch.where(torch.arange(24) % 3 == 0, torch.arange(24).flip(0), -1)
    draw, fakes = sampling.NeighbourDraw(8, 2, 2), ucvgl.fake_satellites(mine, start)
    tasks = {
        "intra-view": ucvgl.IntraView(mine.top_view, mine.gallery, start),
        "cross-view": ucvgl.CrossView(mine.top_view, fakes, mine.gallery, start),
        "curriculum": curriculum.PseudoPairs(mine, unknown, steps),
        "curriculum, some given": curriculum.PseudoPairs(mine, some, steps),
        "curriculum, look-alikes": curriculum.PseudoPairs(mine, some, steps, draw),
    }
    found = {name: trained(ucvgl.new_model(start), task, folder / name) for name, task in tasks.items()}
    for kind in SAMPLERS:
        method = sample4geo.Sample4Geo(ENCODER, ENCODER, ground_kind="top view", training=SHORT, placement=augment.STREET_LEVEL,
                                       sampling=Sampling(kind, draw, 1))  # fmt: skip
        task = sample4geo.SupervisedPairs(mine, method)
        found[f"Sample4Geo, {kind}"] = trained(sample4geo.new_model(method), task, folder / kind)
    world = world_weights.WorldWeights(encoder=ENCODER, training=SHORT)
    task = world_weights.WorldPairs(given, as_bytes(pictures(24, 64, 64)), uniform(0, 24, 2) * 6 - 3, world)
    return found | {"world weights": trained(ucvgl.new_model(start), task, folder / "world")}


@golden
def cycle_gan(folder):
    """A CycleGAN of three steps."""
    config = translation.CycleGanConfig(load_px=16, crop_px=16, channels=8, blocks=1, downsamplings=1, batch=2,
                                        discriminator_channels=8, discriminator_layers=2, epochs=1, decay_epochs=1,
                                        steps_per_epoch=3)  # fmt: skip
    tops, tiles = as_bytes(pictures(8, 16, 16)).split(4)
    made = translation.train_cyclegan(tops, tiles, config, folder, progress=False)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    # discriminators were called judges
    kept = [
        {k.replace("discriminator", "judge"): v for k, v in row.items() if k not in ("lr", "seconds")} for row in rows
    ]
    rates = [row["lr"] / config.lr for row in rows]
    return {"losses": kept, "rates": rates, "translated": translation.translate(made, tops).float().mean((2, 3))}


# ---------------------------------------------------------------------------------------------------------- retrieval


@golden
def ranks():
    """A similarity matrix of eighths, full of ties: queries are its rows, and the gallery the unit matrix."""
    query = torch.from_numpy(np.random.default_rng(0).integers(1, 9, (12, 20)) / 8).float()
    gallery, drawn = torch.eye(20), np.random.default_rng(1)
    own = torch.from_numpy(drawn.integers(0, 20, 12))
    # in the second case so many that rows are sorted
    pairs, many, semi = (torch.from_numpy(np.argwhere(drawn.uniform(size=(12, 20)) < p)) for p in (0.15, 0.9, 0.15))
    first = metrics.ranks_of(query, gallery, own)
    found = {
        "ranks": first,
        "recall": metrics.recall_at(first, (1, 2, 5, 10)),
        "chance": metrics.chance_at(20, (1, 5, 30)),
        "top_k": search.top_k(query, gallery, 6),
        "both ways": lists_of(search.both_ways(query, gallery, 4, 3)),
        "without semi-positives": metrics.retrieval_measures(query, gallery, pairs, ks=(1, 3)),
    }
    for name, positives in (("some", pairs), ("many", many)):
        where = metrics.places_of(query, gallery, positives, semi_positives=semi)
        found[f"{name}, fair"] = {
            "first": where.first,
            "wrong above": where.wrong_above,
            "unmasked above": where.unmasked_above,
            "average precision": metrics.average_precision(where),
            "measures": metrics.retrieval_measures(query, gallery, positives, semi_positives=semi),
        }
    return found


@golden
def rescored_neighbours():
    ground, tiles, _ = two_sets()
    rules = {
        "csls": (reranking.csls_neighbours, {"k": 4}),
        "csls, 10": (reranking.csls_neighbours, {}),
        "inverted softmax": (reranking.inverted_softmax_neighbours, {}),
        "inverted softmax, 0.2": (reranking.inverted_softmax_neighbours, {"temperature": 0.2}),
    }
    found = {}
    for name, (rule, options) in rules.items():
        both = rule(ground, tiles[:30], 5, 4, **options)
        labels = mining.select(both, mining.MiningRule(threshold=0.02))
        found[name] = lists_of(both) | {"labels": labels.satellite}
    return found


# ------------------------------------------------------------------------------------------------------ augmentations


@golden
def drawn_augmentations():
    """What a torch.Generator draws, and what becomes of the pictures."""
    given, tile, wide = pictures(6, 12, 12), pictures(6, 12, 12).flip(1), pictures(6, 8, 16)
    always, found = augment.Augmentation(turn=1.0, jitter=1.0, grey=0.3, blur=1.0, sharpen=0.5, dropout=1.0), {}
    for name, settings in {"UCVGL": augment.UCVGL, "Sample4Geo": augment.SAMPLE4GEO, "always": always}.items():
        draws = augment.draw(6, settings, generator(0))
        pair = augment.move_together((wide, tile), ("roll", "turn"), settings, generator(2))
        three = augment.move_together((wide, tile, given), ("roll", "turn", "stay"), settings, generator(3))
        found[name] = {
            "draws": [draws.colour, draws.grey, draws.blurred, draws.sharpened, draws.dropped, draws.as_grid],
            "places": draws.places[:, 0],
            "augmented": augment.augment(given, settings, generator(1)),
            "augmented bytes": augment.augment(as_bytes(given[:2]), settings, generator(1)),
            "moved pair": digest(*map(as_bytes, pair)),
            "moved together": digest(*map(as_bytes, three)),
        }
    occlusion = synthetic_top_view.Occlusion()
    return found | {
        "resized crop": augment.resized_crop(given[:2], 0.6, generator(4)),
        "pose": augment.jitter_placement(given[:2], augment.STREET_LEVEL, generator(5)),
        "horizon": synthetic_top_view.horizon(3, 8, occlusion, generator(6)),
        "smear": synthetic_top_view.smear(given[:2], occlusion, generator(7)),
        "synthetic top view": synthetic_top_view.synthetic_top_view(given[:2], occlusion, generator(8)),
    }


@golden
def plain_augmentations():
    """Changes that are told what to do."""
    given, tile, wide = pictures(4, 12, 12), pictures(4, 12, 12).flip(1), pictures(4, 8, 16)
    quarters, flipped = torch.tensor([0, 1, 2, 7]), torch.tensor([True, False, True, False])
    colour, grey, places = uniform(0, 4, 4) * 0.8 - 0.4, torch.arange(4) == 2, uniform(1, 4, 5, 25)
    matrix, offset = augment.colour_change(given, colour, grey)
    kept = augment.Draws(colour, grey, ~grey, flipped, ~flipped, quarters == 1, places)
    grids, holes = given.clone(), given.clone()
    for row in range(4):
        augment.drop_grid(grids[row], 0.5, places[row, :2, 0])
        augment.drop_rectangles(holes[row], places[row], (12, 12))
    colours = translation.fit_statistics(given, tile, weight=translation.centre_weight(12))
    moved, widths = (
        (augment.roll_panoramas(wide, quarters), augment.turn_squares(tile, quarters)),
        torch.tensor([50.0, 60.0]),
    )
    return {
        "turned": digest(*map(as_bytes, moved)),
        "colour change": [matrix, offset],
        "recoloured": augment.recolour(given, matrix, offset)[2:],
        "applied": augment.recolour_and_blur(given, kept),
        "blurred": augment.blur3(given[:1]),
        "grids": (grids == 0).all(1),
        "holes": (holes == 0).all(1),
        "squares": world_weights.squares(given[:2], 100.0, uniform(2, 2, 2) * 40 - 20, HEADINGS[:2], widths, 10),
        "sectors": world_weights.sector(12, HEADINGS, torch.tensor([60.0, 90.0, 360.0]), torch.tensor([0.1, 0.3, 0.0])),
        "colours": {"covariance": translation.apply_statistics(given[:2], colours)},
    }


# ---------------------------------------------------------------------------------------------------------- comparing


def flat(value, name=""):
    """Nested mappings and sequences as one mapping: arrays, and texts."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        if isinstance(value, torch.Tensor):
            value = value.detach().numpy()
        return {name: value if isinstance(value, str) else np.asarray(value)}
    return {
        key: leaf for part, inner in items for key, leaf in flat(inner, f"{name}/{part}" if name else f"{part}").items()
    }


def store(name, found):
    """Texts as JSON; arrays one after the other in compressed ones, a type each, with an index of names and shapes."""
    texts = {key: value for key, value in found.items() if isinstance(value, str)}
    arrays = {key: value for key, value in found.items() if not isinstance(value, str)}
    if texts:
        (FOLDER / f"{name}.json").write_text(json.dumps(texts, indent=1) + "\n", encoding="utf-8")
    if arrays:
        index, parts = [], {}
        for key, value in arrays.items():
            index.append((key, value.dtype.name, value.shape))
            parts.setdefault(value.dtype.name, []).append(value.ravel())
        joined = {kind: np.concatenate(values) for kind, values in parts.items()}
        letters = np.frombuffer(json.dumps(index).encode(), np.uint8)
        np.savez_compressed(FOLDER / f"{name}.npz", index=letters, **joined)


def stored(name):
    found, texts, arrays = {}, FOLDER / f"{name}.json", FOLDER / f"{name}.npz"
    if texts.exists():
        found |= json.loads(texts.read_text(encoding="utf-8"))
    if arrays.exists():
        with np.load(arrays, allow_pickle=False) as joined:
            first = dict.fromkeys(joined, 0)
            for key, kind, shape in json.loads(joined["index"].tobytes()):
                last = first[kind] + math.prod(shape)
                found[key], first[kind] = joined[kind][first[kind] : last].reshape(shape), last
    return found


def differences(found, then, tolerance=TOLERANCE):
    """A line for each value that is not as it was."""
    lines = [f"{key}: is gone" for key in then.keys() - found] + [f"{key}: is new" for key in found.keys() - then]
    for key in sorted(found.keys() & then):
        now, before = found[key], then[key]
        if isinstance(before, str) or isinstance(now, str):
            if now != before:
                lines.append(f"{key}: {now}, not {before}")
        elif now.shape != before.shape or now.dtype.kind != before.dtype.kind:
            lines.append(f"{key}: {now.dtype} {now.shape}, not {before.dtype} {before.shape}")
        elif before.dtype.kind == "f":
            if not np.allclose(now, before, rtol=tolerance, atol=tolerance, equal_nan=True):
                lines.append(f"{key}: differs by up to {np.nanmax(np.abs(now - before)):.3g}")
        elif not np.array_equal(now, before):
            lines.append(f"{key}: differs in {int((now != before).sum())} of {now.size}")
    return lines


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """One thread, so that sums come in one order, and an empty run cache."""
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path / "runs"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "exports" else []) for name in GOLDENS]
)
def test_as_it_was(name, tmp_path):
    make = GOLDENS[name]
    found = flat(make(tmp_path) if make.__code__.co_argcount else make())
    tolerance = OTHERS.get(name, TOLERANCE)
    if os.environ.get("UCVGL_WRITE_GOLDENS") and differences(found, stored(name), tolerance):
        store(name, found)
    assert differences(found, stored(name), tolerance) == []


def test_nothing_is_stored_that_is_not_compared():
    assert {path.stem for path in FOLDER.glob("*.*")} - {"README", "tiny_tables"} == set(GOLDENS)
