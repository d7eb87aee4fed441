"""Panoramas and tiles as a data set, paired or on a grid: the same bytes at every rendering, settings that name it."""

from dataclasses import replace

import numpy as np
import pytest

from ucvgl.data.prepare import new_images
from ucvgl.world import rendering
from ucvgl.world.difficulty import LEVELS
from ucvgl.world.pairs import WorldConfig, world_grid, world_pairs
from ucvgl.world.rendering import CITY_GAP_M

TINY = WorldConfig(("garden", "canal"), 0, 9, 10.0, "medium", 30.0, 16, 16, 200.0, 1.0)


@pytest.fixture
def pairs(runs):
    return world_pairs(TINY, "train")


def test_a_world_is_a_data_set_rendered_once(pairs, monkeypatch):
    assert (len(pairs), len(pairs.gallery), pairs.query.size, pairs.gallery.size) == (9, 9, (16, 32), (16, 16))
    assert all(picture.float().std() > 10 for picture in (*pairs.query[:], *pairs.gallery[:]))  # none is blank
    assert pairs.positives.best().tolist() == list(range(9))
    assert pairs.query.ids[3] == "train-000003"
    here, centre = pairs.query.positions.values, pairs.gallery.positions.values
    assert np.abs(centre - here).max() <= 3 * LEVELS[TINY.difficulty].tile_shift_m + 0.01
    in_city = centre - np.outer(np.repeat([0, CITY_GAP_M], [5, 4]), [1, 0])
    assert 15 <= in_city.min() < in_city.max() <= 185  # whole tiles, wherever their shift puts them
    monkeypatch.setattr(rendering, "make_city", None)
    assert world_pairs(TINY, "train").digest() == pairs.digest()


def test_rendering_again_in_other_batches_gives_the_same_bytes(pairs, tmp_path, monkeypatch):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))
    monkeypatch.setattr(rendering, "RENDER_BATCH", 4)
    assert world_pairs(TINY, "train").digest() == pairs.digest()  # of pixels and positions


def test_settings_and_levels_name_their_world(pairs, monkeypatch):
    small = replace(TINY, styles=("garden",), places=2)
    worlds = small, replace(small, seed=1), replace(small, span_m=31)
    names = {world_pairs(c).gallery.source for c in worlds}
    monkeypatch.setitem(LEVELS, "medium", replace(LEVELS["medium"], noise=0.5))
    names.add(world_pairs(small).gallery.source)  # an edited level is another world
    assert len(names) == 4


def test_new_code_renders_again_but_the_same_pictures_are_the_same_data(pairs, monkeypatch):
    """So that trainings outlive an edit of the renderer that changes no picture."""
    monkeypatch.setattr(rendering, "source_digest", lambda: "edited")
    made = []
    monkeypatch.setattr(rendering, "new_images", lambda *what: made.append(what[1]) or new_images(*what))
    assert world_pairs(TINY, "train").digest() == pairs.digest()
    assert made == ["query", "gallery"]


def test_a_world_on_a_grid(runs):
    """VIGOR's layout: tiles that overlap by half, panoramas off their centres, semi-positives graded."""
    config = replace(TINY, places=40, spacing_m=6, span_m=24, city_size_m=256)
    world = world_grid(config)
    here, tiles = world.query.positions.values, world.gallery.positions.values
    assert (len(world), world.query.size, world.gallery.size) == (40, (16, 32), (16, 16))
    assert len(world.gallery) > 40 > len(np.unique(world.positives.best()))  # some are shared, some nobody's nearest
    for i in range(len(world)):
        shows = np.flatnonzero(np.abs(tiles - here[i]).max(1) < 12)  # the spot
        assert {*world.positives[i], *world.semi_positives[i]} == set(shows)
        order = np.hypot(*(tiles - here[i]).T)
        assert world.positives[i].tolist() == [order.argmin()]
        assert (np.diff(order[world.semi_positives[i]]) >= 0).all()
    assert world_grid(config).digest() == world.digest()
