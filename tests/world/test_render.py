"""The ray caster: scenes known exactly, an independent ray marcher over whole cities, and bits that never vary."""

import math

import numpy as np
import pytest
import torch
from handmade import GROUND_M, box, crown, handmade_city
from marcher import march

from ucvgl.world import render
from ucvgl.world.appearance import Condition
from ucvgl.world.city import choose, street_places
from ucvgl.world.render import RANGE_MAX_M, RANGE_MIN_M, Rendered, Scene, cast_columns
from ucvgl.world.styles import Kind
from ucvgl.world.views import panoramas

DAY = Condition(cloud=0.0)
HALF_STEP = 0.5 * ((RANGE_MAX_M / RANGE_MIN_M) ** (1 / 111) - 1)  # half a gap of 112 log-spaced ranges, per metre


def look(scene, azimuth_deg, elevation_deg, *, eye_m=2.5, east=100.0, north=100.0, condition=DAY) -> Rendered:
    """One image of rays: columns at azimuths, rows at elevations, from eye_m above the flat ground of a handmade city."""
    place = [torch.tensor([float(v)]) for v in (east, north, GROUND_M + eye_m)]
    azimuth, elevation = (torch.deg2rad(torch.tensor(v, dtype=torch.float32)) for v in (azimuth_deg, elevation_deg))
    return cast_columns(scene, condition, *place, azimuth[None], torch.tan(elevation)[None, None], math.radians(1))


def city_views(scene, some=(0, 1, 2), **options) -> Rendered:
    """Panoramas of some of three places."""
    metres = choose(street_places(scene.city, 15, margin_m=50), 3, 0).metres[list(some)]
    east, north = torch.from_numpy(metres).to(scene.device).T
    return panoramas(scene, DAY, east, north, torch.full_like(east, 2.5), height_px=32, **options)


@pytest.mark.parametrize("eye_m", [1.6, 30.0])
def test_level_ground_is_met_exactly(eye_m):
    scene, elevation = Scene(handmade_city()), np.arange(-89.0, -12, 3.5)
    seen = look(scene, np.arange(0.0, 360, 7), elevation, eye_m=eye_m)
    expected = eye_m / np.sin(np.radians(-elevation))
    np.testing.assert_allclose(seen.depth_m[0].numpy(), np.repeat(expected[:, None], 52, 1), rtol=1e-4)
    assert (seen.kind == Kind.ROAD).all()


def test_a_crown_floats_over_what_is_behind_and_below(monkeypatch):
    monkeypatch.setattr(Condition, "leaf_cover", property(lambda _: 1.0))
    scene = Scene(handmade_city(crown(100, 115, 3, 3.0, 8.0), box(0, 200, 130, 150, top_m=5)))

    def degrees(height, distance):
        return math.degrees(math.atan2(height - 2.5, distance))

    rows = [degrees(9.5, 15), degrees(5.5, 15), degrees(2.3, 15), degrees(0.3, 15)]
    seen = look(scene, [0.0, 40.0], rows)
    assert seen.kind[0, :, 0].tolist() == [Kind.SKY, Kind.TREE, Kind.WALL, Kind.ROAD]
    assert 12 * (1 - 2 * HALF_STEP) < float(seen.depth_m[0, 1, 0]) < 13.5
    assert Kind.TREE not in seen.kind[0, :, 1].tolist()


@pytest.mark.parametrize("style", ["garden", "downtown"])
def test_whole_cities_agree_with_a_ray_marcher(cities, style, monkeypatch):
    # not bit for bit: the caster samples 112 ranges, sees walls up to 2.4 % too near or far, and misses posts thinner than a gap
    monkeypatch.setattr(Condition, "leaf_cover", property(lambda _: 1.0))
    scene, rows = Scene(cities[style]), 32
    places = choose(street_places(scene.city, 15, margin_m=50), 2, 1)
    east, north = torch.from_numpy(places.east_m), torch.from_numpy(places.north_m)
    seen = panoramas(scene, DAY, east, north, torch.full((2,), 2.5), height_px=rows)
    eye = scene.ground_height(east, north) + 2.5
    azimuth = ((np.arange(2 * rows) + 0.5) / (2 * rows) - 0.5) * 2 * math.pi
    latitude = (0.5 - (np.arange(rows) + 0.5) / rows) * math.pi
    rays = [grid.ravel() for grid in np.meshgrid(azimuth, np.tan(latitude))]
    classes, depths = [], []
    for k in range(2):
        depth, kind = march(scene.city, DAY, (float(east[k]), float(north[k]), float(eye[k])), *rays, step_m=0.1)
        ours, sky = seen.depth_m[k].flatten().numpy(), ~np.isfinite(depth)
        classes.append((kind == seen.kind[k].flatten().numpy()).mean())
        near = np.abs(np.where(sky, 0, ours) - np.where(sky, 0, depth)) <= 0.05 * np.where(sky, 1, depth)
        depths.append(np.where(sky, np.isinf(ours), near).mean())
    assert np.mean(classes) > 0.96
    assert np.mean(depths) > 0.96


def test_neither_batches_nor_chunks_show(scene, monkeypatch):
    heading = torch.tensor([0.0, 77.0, 200.0])
    batch = city_views(scene, heading_deg=heading)
    for k in range(3):
        one = city_views(scene, [k], heading_deg=heading[[k]])
        assert all(torch.equal(single, many[[k]]) for single, many in zip(one, batch, strict=True))
    monkeypatch.setattr(render, "CHUNK_RAYS", 1000)
    assert all(map(torch.equal, city_views(scene, heading_deg=heading), batch))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_renders_what_a_cpu_does(garden):
    cpu, gpu = city_views(Scene(garden)), city_views(Scene(garden, "cuda"))
    near = (cpu.rgb - gpu.rgb.cpu()).abs().amax(1) <= 2 / 255
    assert near.float().mean() > 0.99
    assert (cpu.kind == gpu.kind.cpu()).float().mean() > 0.99
