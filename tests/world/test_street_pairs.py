"""Panoramas and tiles as a data set, paired or on a grid: the same bytes at every rendering, settings that name it."""

from dataclasses import replace

import numpy as np
import pytest

from ucvgl.data.cache import new_images
from ucvgl.errors import InputError
from ucvgl.world import rendering
from ucvgl.world.difficulty import LEVELS
from ucvgl.world.pairs import WorldConfig, around, city_of, world_grid, world_pairs
from ucvgl.world.rendering import CITY_GAP_M

TINY = WorldConfig(
    styles=("garden", "canal"), places=9, spacing_m=10, span_m=30, tile_px=16, panorama_px=16, city_size_m=200,
    resolution_m=1.0,
)  # fmt: skip


@pytest.fixture
def pairs(runs):
    return world_pairs(TINY, "train", progress=False)


def test_a_world_is_a_data_set_rendered_once(pairs, monkeypatch):
    assert len(pairs) == len(pairs.gallery) == 9
    assert pairs.query[:].shape == (9, 3, 16, 32)
    assert pairs.gallery[:].shape == (9, 3, 16, 16)
    assert all(picture.float().std() > 10 for picture in (*pairs.query[:], *pairs.gallery[:]))  # none is blank
    assert pairs.positives.best().tolist() == list(range(9))
    assert pairs.query.ids[3] == "train-000003"
    here, centre = pairs.query.positions.values, pairs.gallery.positions.values
    assert np.abs(centre - here).max() <= 3 * LEVELS[TINY.difficulty].tile_shift_m + 0.01
    east = here[:, 0] - CITY_GAP_M * np.repeat([0, 1], [5, 4])
    assert ((east > 0) & (east < 200)).all()
    monkeypatch.setattr(rendering, "_render", None)
    assert world_pairs(TINY, "train").digest() == pairs.digest()


def test_rendering_again_in_other_batches_gives_the_same_bytes(pairs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))
    monkeypatch.setattr(rendering, "RENDER_BATCH", 4)
    again = world_pairs(TINY, "train")
    assert "rendering the world: 100%" in capsys.readouterr().err
    assert again.digest() == pairs.digest()  # of pixels and positions


def test_settings_and_levels_name_their_world(pairs, monkeypatch):
    small = replace(TINY, styles=("garden",), places=2)
    worlds = small, replace(small, seed=1), replace(small, span_m=31)
    names = {world_pairs(c, progress=False).gallery.source for c in worlds}
    monkeypatch.setitem(LEVELS, "medium", replace(LEVELS["medium"], noise=0.5))
    names.add(world_pairs(small, progress=False).gallery.source)  # an edited level is another world
    assert len(names) == 4


def test_new_code_renders_again_but_the_same_pictures_are_the_same_data(pairs, monkeypatch):
    """So that trainings outlive an edit of the renderer that changes no picture."""
    monkeypatch.setattr(rendering, "source_digest", lambda: "edited")
    made = []
    monkeypatch.setattr(rendering, "new_images", lambda *what: made.append(what[1]) or new_images(*what))
    assert world_pairs(TINY, "train", progress=False).digest() == pairs.digest()
    assert made == ["query", "gallery"]


def test_more_places_than_available_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))
    with pytest.raises(InputError, match="number of places: expected at most"):
        world_pairs(replace(TINY, places=5000), progress=False)
    assert [path.suffix for path in (tmp_path / "worlds").iterdir()] == [".lock"]  # nothing half-made


@pytest.mark.parametrize("difficulty", LEVELS)
def test_shifted_tiles_stay_inside_the_city(difficulty):
    config = replace(TINY, difficulty=difficulty, places=40, spacing_m=4)
    _, places, nuisance = city_of(config, 0, 40, "cpu")
    spare = 3 * LEVELS[difficulty].tile_shift_m + config.span_m / 2  # wherever its shift may put a tile
    assert spare <= places.metres.min() < places.metres.max() <= 200 - spare
    assert len(nuisance.day) == 40


def test_four_tiles_around_a_place_the_nearest_first():
    centre, of = around(np.array([[31.0, 26.0]]), 25.0)
    assert centre[of[0]].tolist() == [[25, 25], [50, 25], [25, 50], [50, 50]]


def test_a_world_on_a_grid(runs):
    """VIGOR's layout: tiles that overlap by half, panoramas off their centres, semi-positives graded."""
    config = replace(TINY, places=40, spacing_m=6, span_m=24, city_size_m=256)
    world = world_grid(config, progress=False)
    here, tiles = world.query.positions.values, world.gallery.positions.values
    assert (len(world), world.query.size, world.gallery.size) == (40, (16, 32), (16, 16))
    assert len(world.gallery) > 40 > len(np.unique(world.positives.best()))  # some are shared, some nobody's nearest
    assert all(tile.float().std() > 5 for tile in world.gallery[:])
    local = tiles - CITY_GAP_M * (tiles[:, :1] > CITY_GAP_M / 2) * [1, 0]
    assert np.allclose(local % 12, 0, atol=1e-2)
    for i in range(len(world)):
        away = np.abs(tiles - here[i]).max(1)
        assert set(world.positives[i]) | set(world.semi_positives[i]) == set(
            np.flatnonzero(away < 12)
        )  # that show the spot
        order = np.hypot(*(tiles - here[i]).T)
        assert world.positives[i].tolist() == [order.argmin()]
        assert (np.diff(order[world.semi_positives[i]]) >= 0).all()
    assert world_grid(config, progress=False).digest() == world.digest()
