"""Pairs of panorama and tile: what a world holds, the same bytes at every rendering, settings that name it."""

from dataclasses import replace

import numpy as np
import pytest

from ucvgl.data.cache import new_images
from ucvgl.errors import InputError
from ucvgl.world import rendering
from ucvgl.world.difficulty import LEVELS
from ucvgl.world.pairs import WorldConfig, city_of, world_pairs
from ucvgl.world.rendering import CITY_GAP_M

TINY = WorldConfig(
    styles=("garden", "canal"), places=9, spacing_m=10, span_m=30, tile_px=16, panorama_px=16, city_size_m=200,
    resolution_m=1.0,
)  # fmt: skip


@pytest.fixture
def pairs(runs):
    return world_pairs(TINY, "train", progress=False)


def test_a_world_is_a_data_set(pairs):
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


def test_the_second_time_nothing_is_rendered(pairs, monkeypatch):
    monkeypatch.setattr(rendering, "_render", None)
    again = world_pairs(TINY, "train")
    assert (again.query[:] == pairs.query[:]).all()
    assert again.digest() == pairs.digest()


def test_rendering_again_in_other_batches_gives_the_same_bytes(pairs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))
    monkeypatch.setattr(rendering, "RENDER_BATCH", 4)
    again = world_pairs(TINY, "train")
    assert "rendering the world: 100%" in capsys.readouterr().err
    assert (again.query[:] == pairs.query[:]).all()
    assert (again.gallery[:] == pairs.gallery[:]).all()
    assert (again.query.positions.values == pairs.query.positions.values).all()


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
    rendered = []
    monkeypatch.setattr(rendering, "new_images", lambda *what: rendered.append(what[1]) or new_images(*what))
    assert world_pairs(TINY, "train", progress=False).digest() == pairs.digest()
    assert rendered == ["query", "gallery"]


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
    for metres in (places.east_m, places.north_m):
        assert metres.min() >= spare
        assert metres.max() <= 200 - spare
    assert len(nuisance.day) == 40
