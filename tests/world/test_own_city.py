"""The world as somebody's own city: two folders that lead back to the world, and a truth that fits it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ucvgl.data.files import read_columns, read_position_table
from ucvgl.locate.pictures import check_ground
from ucvgl.locate.tiles import cut, open_mosaic
from ucvgl.positions import Positions, Wgs84, to_metres
from ucvgl.world.difficulty import satellite_condition
from ucvgl.world.export import OWN_ORIGIN, export_own_city
from ucvgl.world.pairs import WorldConfig
from ucvgl.world.rendering import scene_of
from ucvgl.world.views import panoramas, satellite_tiles

SMALL = WorldConfig(("downtown",), 0, 10, 8.0, "medium", 24.0, 64, 32, 256.0, 0.5)


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    root = tmp_path_factory.mktemp("own") / "city"
    assert export_own_city(root, SMALL, zoom=20) == root
    assert [p.name for p in root.parent.iterdir()] == ["city"]
    return root


@pytest.fixture(scope="module")
def scene():
    return scene_of(SMALL, 0, "cpu")


def read_truth(city):
    """Files, positions and headings of the panoramas."""
    return *read_position_table(city / "truth.csv"), read_columns(city / "truth.csv", ["heading_deg"])[1]["heading_deg"]


def alike(a, b):
    """Correlation of two pictures, grey."""
    a, b = (x.float().mean(-3).flatten() for x in (a, b))
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def test_the_mosaic_is_the_city_from_above(city, scene):
    mosaic = open_mosaic(city / "tiles")
    low, high = mosaic.bounds_m
    shift = to_metres(Positions(np.array([mosaic.origin]), Wgs84()), OWN_ORIGIN).values[0]
    assert -0.3 < (low + shift).min() < (high + shift).max() < 256.3
    candidates = cut(mosaic, 40.0, 40.0, 32)
    assert candidates.left_out == 0
    day = satellite_condition(scene.city.seed)
    shown = to_metres(candidates.images.positions, OWN_ORIGIN).values
    for i in range(len(candidates)):
        east, north = torch.tensor(shown[i], dtype=torch.float32)[:, None]

        found, inside = candidates.images.read(i), 23 < shown[i].min() < shown[i].max() < 233
        there, *beside = [
            alike(found, satellite_tiles(scene, day, east + right, north + up, 40.0, size_px=32).rgb[0])
            for right, up in ((0, 0), (2, 0), (-2, 0), (0, 2), (0, -2))[: 5 if inside else 1]
        ]
        assert there > max([0.93, *beside])


def test_the_truth_is_where_the_pictures_were_taken(city, scene):
    files, places, heading = read_truth(city)
    ground = check_ground(city / "ground")
    assert ground.counts()["panoramas"] == len(files) == 10
    assert [p.file for p in ground.pictures] == files
    day = satellite_condition(scene.city.seed)  # another day than theirs: the shapes are the same
    for name, (east, north), turn in zip(files, to_metres(places, OWN_ORIGIN).values, heading, strict=True):
        with Image.open(city / "ground" / name) as image:
            assert not image.getexif()
            found = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        spot = (torch.tensor([v], dtype=torch.float32) for v in (east, north, 2.5, turn))
        view = panoramas(scene, day, *spot, height_px=32).rgb[0]
        turned = [alike(found, view.roll(k, 2)) for k in range(0, 64, 8)]
        assert np.argmax(turned) == 0
        assert turned[0] > 0.5
    assert 0 < np.abs((heading + 180) % 360 - 180).max() <= 7.5  # the medium level's bell ends at three times 2.5


def test_photos_have_a_compass_and_a_field_of_view(tmp_path):
    city = export_own_city(tmp_path / "city", replace(SMALL, panorama_px=64), zoom=20, photo_fov_deg=70)
    ground, (_, _, heading) = check_ground(city / "ground", city / "ground.csv"), read_truth(city)
    assert {(p.kind, p.width, p.height, p.fov_deg) for p in ground.pictures} == {("photo", 64, 48, 70)}
    said = np.array([p.heading_deg for p in ground.pictures])
    assert np.abs((said - heading + 180) % 360 - 180).max() < 7.5
    assert np.ptp(heading) > 60  # any direction
