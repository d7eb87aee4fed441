"""What the package computes from fixed inputs is what it computed when these goldens were written (goldens/README.md).

Each function marked `golden` makes one of them from the package: arrays and texts under names. After a change of the
package only the imports and calls in these functions follow; the stored values stay. `UCVGL_WRITE_GOLDENS=1 pytest
tests/test_goldens.py -k <name>` stores them anew.
"""

import hashlib
import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toy_sets import generator

from ucvgl import augment, geometry, losses, positions, sampling, search, ssl_losses
from ucvgl import pseudo_labels as mining
from ucvgl.data.container import Positives
from ucvgl.data.prepare import Preparation, prepare, resized
from ucvgl.encoders import embed, open_model
from ucvgl.geometry import TopView
from ucvgl.locate import pictures as street
from ucvgl.locate.inputs import WORLD_WEIGHTS
from ucvgl.methods.sample4geo import SAMPLERS, Sampling
from ucvgl.world import rendering as world_rendering
from ucvgl.world import views as rendering
from ucvgl.world.appearance import Condition
from ucvgl.world.city import choose, make_city, street_places
from ucvgl.world.drives import MANNERS, DriveConfig, world_drives
from ucvgl.world.pairs import WorldConfig, world_pairs
from ucvgl.world.render import Scene
from ucvgl.world.styles import STYLES

FOLDER = Path(__file__).parent / "goldens"
TOLERANCE = 1e-5  # of floats, absolute and relative; all else has to be equal
OTHERS = {"worlds": 1e-6, "drives": 1e-6}  # metres are large numbers
GOLDENS = {}


def golden(make):
    GOLDENS[make.__name__] = make
    return make


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


def with_gradients(loss, *inputs, **options):
    """The loss and its gradients with respect to all inputs, zeros where none arrives."""
    leaves = [value.clone().requires_grad_() for value in inputs]
    value = loss(*leaves, **options)
    value.backward()
    return {"loss": value, "gradients": [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves]}


MASK = np.random.default_rng(7).uniform(size=(6, 6)) < 0.2
SHARED = torch.from_numpy(MASK | MASK.T)  # rows that share a tile, the diagonal among them


@golden
def losses_with_gradients():
    inputs, smooth = (unit(0, 6, 8), unit(1, 6, 8), torch.tensor(1 / 0.07)), {"label_smoothing": 0.1}
    matched = {"matched": torch.tensor([True, False, True, True, False, False])}
    first, second, queue = normal(0, 6, 8), normal(1, 6, 8), unit(2, 10, 8)
    skip = torch.from_numpy(np.random.default_rng(4).uniform(size=(6, 10)) < 0.3)
    skip[2] = True  # a query whose negatives are all left out
    present = torch.from_numpy(np.random.default_rng(5).uniform(size=(6, 4)) < 0.7)
    near = unit(6, 6, 8), F.normalize(unit(6, 6, 8) + 1.5 * unit(7, 6, 8), dim=1), unit(3, 6, 4, 8)
    found = {"simsiam": with_gradients(ssl_losses.simsiam, *[normal(seed, 6, 8) for seed in (2, 3, 4, 5)])}
    for name, loss, given, options in (
        ("info_nce, plain", losses.info_nce, inputs, {}),
        ("info_nce, smoothing 0.1", losses.info_nce, inputs, smooth),
        ("info_nce, shared, smoothing", losses.info_nce, inputs, smooth | {"not_negative": SHARED}),
        ("soft_info_nce, plain", losses.soft_info_nce, inputs, matched),
        ("soft_info_nce, shared", losses.soft_info_nce, inputs, matched | smooth | {"not_negative": SHARED}),
        ("nt_xent 0.07 all", ssl_losses.nt_xent, (first, second), {"temperature": 0.07}),
        ("nt_xent 0.07 shared", ssl_losses.nt_xent, (first, second), {"temperature": 0.07, "not_negative": SHARED}),
        ("moco 0.07 all", ssl_losses.moco, (first, second, queue), {"temperature": 0.07}),
        ("moco 0.07 some", ssl_losses.moco, (first, second, queue), {"temperature": 0.07, "not_negative": skip}),
        ("triplet plain", ssl_losses.triplet, near, {}),
        ("triplet present", ssl_losses.triplet, near, {"margin": 0.5, "present": present}),
    ):
        found[name] = with_gradients(loss, *given, **options)
    second = 0.7 * second + 0.5 * first
    for name in ("negative_cosine", "byol", "barlow_twins", "vicreg"):
        found[name] = with_gradients(getattr(ssl_losses, name), first, second)
    return found


ATTITUDE = {"heading_deg": 25.0, "pitch_deg": -4.0, "roll_deg": 6.0}
HEADINGS = torch.tensor([0.0, 77.0, -130.0])


@golden
def views():
    """From above, of a camera, of a tile; and pictures of a street as encoders are given them, bytes, at several headings."""
    panorama, small, tile = pictures(2, 24, 48), pictures(2, 20, 40), pictures(2, 20, 20)
    settings = TopView(12, 150.0)
    # the stored strip lies on grey
    whole = geometry.complete_panorama(pictures(1, 10, 48) - 0.25, strip_offset=4 / 48) + 0.25
    pixels = torch.stack([uniform(1, 2, 5, 7) * 80 - 20, uniform(2, 2, 5, 7) * 20 - 0.5], -1)
    above = TopView.from_span(16, 40.0, 2.2)
    taken, crop, photo = (as_bytes(pictures(1, *size))[0] for size in ((32, 64), (20, 64), (24, 32)))

    def weighted(images):
        return (geometry.top_view(images, settings) * normal(0, 1, 3, 12, 12)).sum()

    def seen(image, kind, crop=street.SPHERE):
        picture = street.Picture("a.jpg", kind, image.shape[2], image.shape[1], 75.0, crop=crop)
        return street.north_up(image, picture, HEADINGS, above)

    return {
        "top view, plain": geometry.top_view(panorama, settings),
        "top view, turned": geometry.top_view(panorama[:1], TopView(12, 150.0, 2.5, **ATTITUDE)),
        "top view, many headings": geometry.top_view(panorama[:1], settings, heading_deg=HEADINGS),
        "top view, bytes": geometry.top_view(as_bytes(panorama), settings),
        "top view, gradient": with_gradients(weighted, panorama[:1])["gradients"],
        "top view, completed": whole,
        "top view, completed, from above": geometry.top_view(whole, settings),
        "perspective": geometry.perspective_view(small, (7, 10), 80.0, 30.0, -10.0, 5.0),
        "photo from above, many": geometry.photo_top_view(as_bytes(tile[:1]), 90.0, TopView(10, 150.0), HEADINGS),
        "sampled": geometry.sample_panorama(small, pixels),
        "polar": geometry.polar_view(tile, 7, 12),
        "street, panorama, from above": seen(taken, "panorama"),
        "street, crop, from above": seen(crop, "panorama", (0.0, 3 / 32, 1.0, 20 / 32)),
        "street, photo, from above": seen(photo, "photo"),
        "street, resized": resized(as_bytes(pictures(2, 32, 64)), (7, 9)),
    }


@golden
def pseudo_labels():
    """40 ground images, each near its tile by more or less, and the 40 tiles in another order."""
    tiles, order = unit(0, 40, 16), torch.from_numpy(np.random.default_rng(1).permutation(40))
    noise = torch.linspace(0.1, 2.2, 40)[:, None] * unit(2, 40, 16)
    both = search.both_ways(F.normalize(tiles[order] + noise, dim=1), tiles, 5, 5)
    neighbours = {
        "ground": [both.ground_score, both.ground_index],
        "satellite": [both.satellite_score, both.satellite_index],
    }
    found, rule = {"neighbours": neighbours, "quality": mining.quality(both)}, mining.MiningRule
    rules = {"0.05": rule(), "keep, 0.1": rule(threshold=0.1, keep=0.5), "share": rule(threshold=0.05, share=2),
             "one way": rule(mutual=False, threshold=0.2)}  # fmt: skip
    truth = Positives.one_each(order.numpy()).pairs(), torch.ones(len(order), dtype=torch.bool)
    for name, first in rules.items():
        for epoch in (0, 6, 20):
            labels = mining.select(both, first.at(epoch, 40))
            right = mining.correctness(labels, *truth)
            found[f"rule {name}, epoch {epoch}"] = {"satellite": labels.satellite, "right": right}
    return found


@golden
def batches():
    """Orders of items by each sampler: at random, by position (GPS), by likeness (DSS); a place each, or shared ones."""
    metres = np.random.default_rng(0).uniform(0, 300, (60, 2)).round(1)
    metres[30:34] = metres[3]  # some places at one spot
    town = positions.Positions(metres, positions.Metres("town"))
    degrees = positions.Positions(48.0 + metres / 1e5, positions.Wgs84())
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
    for seed in range(3):
        for name, near in ({"random": None} | lists).items():
            found[f"{name}, seed {seed}"] = sampling.neighbour_batches(near, 8, generator(seed), draw, places=60)
        for name, near in {"random": None, "GPS": lists["GPS"][shared], "DSS": many}.items():
            order, _ = sampling.neighbour_batches(near, 8, generator(seed), draw, place=shared, places=60)
            found[f"{name}, shared, seed {seed}"] = order
        found[f"nearest alone, seed {seed}"] = sampling.neighbour_batches(lists["DSS"], 10, generator(seed), nearest)[0]
    sources = {kind: " ".join(Sampling(kind, draw, 4).source(epoch) for epoch in range(6)) for kind in SAMPLERS}
    return found | {"sources": sources}


TOWN = {"size_m": 256.0, "resolution_m": 0.5}
DAYS = {
    "summer": Condition(),
    "spring, overcast": Condition("spring", 120.0, 40.0, 1.0, 0.0, 1),
    "autumn, low sun": Condition("autumn", 250.0, 14.0, 0.3, 0.0, 2),
    "winter, snow": Condition("winter", 190.0, 18.0, 0.5, 1.0, 3),
    "dusk": Condition("summer", 285.0, 4.0, 0.5, 0.0, 4),
    "night": Condition("autumn", 285.0, -12.0, 0.2, 0.0, 5),
}


def digest(array):
    """Shape and SHA-256 of bytes: of pictures, uint8."""
    return f"{'x'.join(map(str, np.shape(array)))} {hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()}"


def seen(pixels):
    """A digest of pictures, and their mean colours, to see by how much they differ where the digest does."""
    pixels = np.asarray(pixels)
    assert pixels.dtype == np.uint8
    return {"digest": digest(pixels), "mean": pixels.mean((-2, -1), dtype=np.float64).round(4)}


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
        for name, day in DAYS.items() if style == "garden" else [("winter, snow", DAYS["winter, snow"])]:
            here = scene, day, *where
            tiles = {
                "tile": rendering.satellite_tiles(*here, span_m=50.0, size_px=20),
                "ground": rendering.satellite_tiles(*here, span_m=50.0, size_px=20, from_above=False),
            }
            rendered = {
                "panorama": rendering.panoramas(*here, height, height_px=16),
                "tilted panorama": rendering.panoramas(*here, height, height_px=16, **tilted),
                "photo": rendering.photos(*here, height, heading, size_px=(12, 16), fov_deg=75.0),
                "drone": rendering.drone_images(*here, 20 * height, heading, size_px=16, pitch_deg=-60.0),
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
        for level in ("easy", "medium", "hard") if seed == 0 else ("hard",):
            world = WorldConfig(styles, seed, 5, difficulty=level, tile_px=24, panorama_px=32, city_size_m=256.0,
                                resolution_m=0.5)  # fmt: skip
            pairs = world_pairs(world)
            found[f"{level} {seed}"] = {
                "panorama": seen(pairs.query[:]),
                "tile": seen(pairs.gallery[:]),
                "truth": [pairs.query.positions.values, pairs.gallery.positions.values],
            }
        config = Preparation((20, 40), (24, 24), TopView.from_span(24, 50.0))
        given = prepare(pairs, config)
        occlusion = augment.Occlusion()
        tiles = given.gallery[:].float() / 255
        parts = {
            "panorama": given.query[:],
            "top view": given.top_view[:],
            "tile": given.gallery[:],
            "polar tile": prepare(pairs, replace(config, top_view=None, polar=True)).gallery[:],
            "synthetic top view": as_bytes(augment.synthetic_top_view(tiles, occlusion, generator(seed))),
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
            photos = world_drives(config)
            sides = {"database": photos.gallery, "query": photos.query}
            metres = {f"{name} m": side.positions.values for name, side in sides.items()}
            seen_there = {name: seen(side[:]) for name, side in sides.items()}
            found[f"{kind} {seed}"] = seen_there | metres | {"positives": photos.positives.pairs()}
    return found


@golden
def committed_encoders():
    model, given = open_model(WORLD_WEIGHTS), as_bytes(pictures(8, 64, 64))
    ground, satellite = (embed(encoder, given.split(4)) for encoder in (model.ground, model.satellite))
    return {"ground": ground, "satellite": satellite, "scale": model.scale}


def flat(value, name=""):
    """Nested mappings and sequences as one mapping: arrays, and texts."""
    if isinstance(value, (dict, list, tuple)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        parts = [flat(inner, f"{name}/{part}" if name else f"{part}") for part, inner in items]
        return {key: leaf for part in parts for key, leaf in part.items()}
    value = value.detach().numpy() if isinstance(value, torch.Tensor) else value
    return {name: value if isinstance(value, str) else np.asarray(value)}


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """One thread, so that sums come in one order, and an empty run cache; a city is built once."""
    monkeypatch.setattr(world_rendering, "make_city", cache(make_city))
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path / "runs"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", GOLDENS)
def test_as_it_was(name):
    found = flat(GOLDENS[name]())
    texts, arrays = FOLDER / f"{name}.json", FOLDER / f"{name}.npz"
    if os.environ.get("UCVGL_WRITE_GOLDENS"):
        words = {key: value for key, value in found.items() if isinstance(value, str)}
        if words:
            texts.write_text(json.dumps(words, indent=1) + "\n", encoding="utf-8")
        np.savez_compressed(arrays, **{key: value for key, value in found.items() if key not in words})
    then, close = json.loads(texts.read_text(encoding="utf-8")) if texts.exists() else {}, OTHERS.get(name, TOLERANCE)
    with np.load(arrays) as file:
        then |= dict(file)
    assert found.keys() == then.keys()
    for key, before in then.items():
        now = found[key]
        if isinstance(before, str):
            assert now == before, key
        elif before.dtype.kind != "f":
            np.testing.assert_array_equal(now, before, err_msg=key, strict=True)
        else:
            assert (now.shape, now.dtype.kind) == (before.shape, "f"), key
            np.testing.assert_allclose(now, before, rtol=close, atol=close, err_msg=key)
