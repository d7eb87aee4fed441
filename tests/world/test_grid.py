"""VIGOR's layout on the world: tiles that overlap by half, panoramas off their centres, semi-positives graded."""

import numpy as np
import pytest

from ucvgl.world.grid import around, world_grid
from ucvgl.world.pairs import WorldConfig
from ucvgl.world.rendering import CITY_GAP_M

CONFIG = WorldConfig(
    ("garden", "canal"), 0, 40, spacing_m=6, span_m=24, tile_px=16, panorama_px=16, city_size_m=256, resolution_m=1.0
)


def test_four_tiles_around_a_place_the_nearest_first():
    centre, of = around(np.array([[31.0, 26.0]]), 25.0)
    assert centre[of[0]].tolist() == [[25, 25], [50, 25], [25, 50], [50, 50]]


@pytest.mark.usefixtures("fresh_runs")
def test_a_world_on_a_grid():
    world = world_grid(CONFIG, progress=False)
    here, tiles = world.query.positions.values, world.gallery.positions.values
    assert (len(world), world.query.size, world.gallery.size) == (40, (16, 32), (16, 16))
    assert (
        len(world.gallery) > 40 > len(np.unique(world.positives.best()))
    )  # some tiles are shared, some nobody's nearest
    local = tiles - CITY_GAP_M * (tiles[:, :1] > CITY_GAP_M / 2) * [1, 0]
    assert np.allclose(local % 12, 0, atol=1e-2)
    for i in range(len(world)):
        away = np.abs(tiles - here[i]).max(1)
        inside = np.flatnonzero(away < 12)  # the tiles that show the spot
        assert set(world.positives[i]) | set(world.semi_positives[i]) == set(inside)
        order = np.hypot(*(tiles - here[i]).T)
        assert world.positives[i].tolist() == [order.argmin()]
        assert (np.diff(order[world.semi_positives[i]]) >= 0).all()
    again = world_grid(CONFIG, progress=False)
    assert again.digest() == world.digest()
    assert again.gallery.pixels.float().std() > 10
