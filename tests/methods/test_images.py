"""The pictures that stages read: projected and resized once, without a label."""

import numpy as np
import pytest
import torch

from ucvgl.data import ArrayImages, Positives, Views
from ucvgl.errors import InputError
from ucvgl.geometry import CVUSA_STRIP_OFFSET, complete_panorama, polar_view, top_view
from ucvgl.methods.images import ImageConfig, polar_tiles, prepare, prepare_plain, resized, world_views
from ucvgl.world.pairs import WorldConfig, render_pairs

CONFIG = ImageConfig((8, 16), 16, 160.0)


@pytest.fixture(autouse=True)
def _runs(tmp_path, monkeypatch):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))


def views(count=5, rows=16, columns=160, known=True):
    rng = np.random.default_rng(0)
    ids = tuple(f"{i}" for i in range(count))
    ground = ArrayImages(ids, rng.integers(0, 256, (count, 3, rows, columns), np.uint8))
    tiles = ArrayImages(ids, rng.integers(0, 256, (count, 3, 16, 16), np.uint8))
    best = Positives.one_each(np.arange(count)) if known else Positives.unknown(count)
    return Views("toy", "train", ground, tiles, best)


def test_panoramas_top_views_and_tiles_are_those_of_the_readers():
    given = views(rows=32, columns=64)
    images = prepare(given, CONFIG, progress=False)
    panoramas = torch.stack([given.ground.read(i) for i in range(5)])
    assert torch.equal(images.panorama, resized(panoramas, (8, 16)))
    assert torch.equal(images.top_view, top_view(panoramas, CONFIG.top_view))
    assert torch.equal(images.tile, torch.stack([given.satellite.read(i) for i in range(5)]))


def test_a_strip_is_completed_before_it_is_projected():
    given = views()
    images = prepare(given, CONFIG, progress=False)
    strips = torch.stack([given.ground.read(i) for i in range(5)])
    assert torch.equal(
        images.top_view, top_view(complete_panorama(strips, strip_offset=CVUSA_STRIP_OFFSET), CONFIG.top_view)
    )


def test_labels_are_not_looked_at_and_the_second_call_maps():
    first = prepare(views(), CONFIG, progress=False)
    second = prepare(views(known=False), CONFIG, progress=False)
    assert first.data_id == second.data_id
    assert torch.equal(first.tile, second.tile)
    other = prepare(views(), ImageConfig((8, 16), 16, 150.0), progress=False)
    assert other.data_id != first.data_id


def test_a_damaged_array_is_named(tmp_path):
    images = prepare(views(), CONFIG, progress=False)
    (tmp_path / images.data_id / "tile.npy").write_bytes(b"")
    with pytest.raises(InputError, match=r"tile\.npy.*Delete"):
        prepare(views(), CONFIG, progress=False)


def test_resized_averages():
    images = torch.tensor([[0, 10], [20, 30]], dtype=torch.uint8).expand(1, 3, 2, 2)
    assert resized(images, (1, 1)).flatten().tolist() == [15, 15, 15]
    assert resized(images, (2, 2)) is images


def test_the_world_as_a_data_set():
    pairs = render_pairs(
        WorldConfig(("garden",), 0, 4, 12.0, panorama_px=32, tile_px=16, city_size_m=256, resolution_m=0.5),
        progress=False,
    )
    given = world_views(pairs, "train")
    assert given.positives.best().tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(given.ground.positions.values, pairs.position_m)
    np.testing.assert_allclose(given.satellite.positions.values, pairs.tile_m)
    assert torch.equal(given.ground.read(2), torch.from_numpy(np.array(pairs.panorama[2])))


def test_polar_tiles_are_made_once():
    images = prepare(views(rows=32, columns=64), CONFIG, progress=False)
    found = polar_tiles(images)
    assert torch.equal(found, polar_view(images.tile, 8, 16))
    assert torch.equal(polar_tiles(images), found)


def test_plain_images_are_not_projected(tmp_path):
    """Drone images and tiles, each at its own size; the ground image stands for its own top view."""
    given = views(rows=16, columns=16)
    images = prepare_plain(given, (16, 8), progress=False)
    assert torch.equal(images.top_view, torch.stack([given.ground.read(i) for i in range(5)]))
    assert images.panorama is images.top_view
    assert torch.equal(images.tile, torch.stack([given.satellite.read(i, (8, 8)) for i in range(5)]))
    assert prepare_plain(views(rows=16, columns=16, known=False), (16, 8), progress=False).data_id == images.data_id
    (tmp_path / images.data_id / "satellite.npy").write_bytes(b"")
    with pytest.raises(InputError, match=r"satellite\.npy.*Delete"):
        prepare_plain(given, (16, 8), progress=False)
