"""Notebook 01's experiments: the projection equals the truth within the tolerance that the notebook states."""

from dataclasses import replace

import pytest
import torch

from ucvgl.errors import InputError
from ucvgl.studies import projection_study as study
from ucvgl.world.city import make_city
from ucvgl.world.places import choose, street_places
from ucvgl.world.render import Scene
from ucvgl.world.styles import GARDEN

CONFIG = study.study_config("tiny", 0)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(make_city(GARDEN, 1, size_m=256, resolution_m=0.25))


@pytest.fixture(scope="module")
def table(scene: Scene):
    return study.accuracy_table(scene, choose(street_places(scene.city, 15), 8, 0), CONFIG)


def test_ground_lands_where_it_is_by_ring(table) -> None:
    """With all beliefs right only relief and kerbs remain: decimetres near the camera, more with the square of distance."""
    exact = table[table["assumption"] == "exact"]["median_error_m"].to_numpy()
    assert exact[0] < 0.05
    assert exact[1] < 0.35
    assert exact[2] < 1.0
    assert (exact[1:] > exact[:-1]).all()


def test_top_view_equals_the_orthographic_ground_near_the_camera(table) -> None:
    """On pixels that both truths call ground: mean colour error, of 255, below 5 within 5 m and below 14 within 10 m."""
    exact = table[table["assumption"] == "exact"]["colour_error"].to_numpy()
    assert exact[0] < 5
    assert exact[1] < 14


def test_wrong_beliefs_cost_what_the_formula_says(scene: Scene) -> None:
    """A height believed 10 % too low shrinks every distance by 10 %, a heading error moves a spot by r * angle."""
    places = choose(street_places(scene.city, 15), 8, 0)
    low, distance = study.position_errors(scene, places, CONFIG, study.Assumption("low", height_factor=0.9))
    near = distance < 4
    assert float((low[near] / distance[near]).median()) == pytest.approx(0.1, abs=0.01)
    turned, distance = study.position_errors(scene, places, CONFIG, study.Assumption("turned", heading_deg=10.0))
    near = distance < 4
    assert float((turned[near] / distance[near]).median()) == pytest.approx(0.1745, abs=0.005)


def test_places_keep_the_outermost_ring_away_from_the_edge() -> None:
    """However small the world's tiles are: nothing is beyond the city's edge."""
    config = replace(CONFIG, world=replace(CONFIG.world, span_m=2.0), accuracy_places=40)
    _, places = study.accuracy_scene(config)
    for metres in (places.east_m, places.north_m):
        assert study.RINGS_M[-1] <= metres.min() < metres.max() <= config.world.city_size_m - study.RINGS_M[-1]


def test_rings() -> None:
    assert study.ring_of(torch.tensor([0.0, 4.9, 5.0, 24.9, 25.0, 90.0])).tolist() == [0, 0, 1, 4, -1, -1]


def test_easy_is_easier_than_hard_and_colours_alone_do_not_match(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))
    config = replace(CONFIG, world=replace(CONFIG.world, places=40, tile_px=32))
    table = study.difficulty_table(config, progress=False)
    pixels = table[table["method"] == study.PIXELS].set_index("level")["r_at_1"]
    colours = table[table["method"] == "colours alone"].set_index("level")["r_at_1"]
    assert pixels["easy"] > pixels["medium"] >= pixels["hard"]
    assert colours["medium"] < 25  # chance is 2.5 in so small a gallery
    assert study.at_default(table) == pixels[study.DEFAULT_LEVEL]


def test_unknown_profile() -> None:
    with pytest.raises(InputError, match="tiny, laptop or paper"):
        study.study_config("huge", 0)


def test_share_below_by_hand() -> None:
    values = torch.arange(1.0, 11.0)
    assert study._share_below(values, 0.9) == 9
    assert study._share_below(values[:0], 0.5) != study._share_below(values[:0], 0.5)  # NaN of none


def test_level_settings_are_those_of_the_levels() -> None:
    frame = study.level_settings().set_index("nuisance")
    assert list(frame.columns) == ["easy", "medium", "hard"]
    assert frame.loc["same_day", "easy"] == "yes"
    assert float(frame.loc["heading_deg", "hard"]) == study.LEVELS["hard"].heading_deg
