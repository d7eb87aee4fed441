"""Worlds as data sets: rendered once, the same bytes, whole or not at all, errors that name the file."""

import shutil
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest

from ucvgl import paths
from ucvgl.errors import InputError
from ucvgl.world import pairs as module
from ucvgl.world.difficulty import LEVELS
from ucvgl.world.pairs import CITY_GAP_M, Pairs, WorldConfig, city_of, load_pairs, render_pairs

TINY = WorldConfig(
    styles=("garden", "canal"), places=9, spacing_m=10, span_m=30, tile_px=16, panorama_px=16, city_size_m=200,
    resolution_m=1.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UCVGL_RUNS", str(folder))
        render_pairs(TINY, progress=False)
        yield folder


@pytest.fixture
def pairs(runs, monkeypatch) -> Pairs:
    monkeypatch.setenv("UCVGL_RUNS", str(runs))
    return render_pairs(TINY, progress=False)


@pytest.fixture
def copy(runs, tmp_path):
    """A copy of the rendered world that may be damaged."""
    return shutil.copytree(runs / "worlds" / TINY.digest(), tmp_path / "world")


def arrays(pairs):
    return {name: np.array(getattr(pairs, name)) for name in Pairs.__dataclass_fields__}


def test_a_world_has_the_promised_arrays(pairs):
    assert len(pairs) == 9
    assert pairs.panorama.shape == (9, 3, 16, 32)
    assert pairs.tile.shape == (9, 3, 16, 16)
    assert pairs.panorama.dtype == pairs.tile.dtype == np.uint8
    assert pairs.position_m.shape == pairs.tile_m.shape == (9, 2)
    assert pairs.city.tolist() == [0] * 5 + [1] * 4
    assert all(picture.std() > 10 for picture in (*pairs.panorama, *pairs.tile))  # none is blank
    level = LEVELS[TINY.difficulty]
    assert np.abs(pairs.tile_m - pairs.position_m).max() <= 3 * level.tile_shift_m + 0.01
    assert np.abs(pairs.heading_deg).max() <= 3 * level.heading_deg
    east = pairs.position_m[:, 0] - CITY_GAP_M * pairs.city
    assert ((east > 0) & (east < 200)).all()


def test_the_second_time_nothing_is_rendered(pairs, monkeypatch):
    def forbidden(*_):
        raise AssertionError("rendered again")

    monkeypatch.setattr(module, "_render_into", forbidden)
    again = render_pairs(TINY)
    for name, array in arrays(pairs).items():
        np.testing.assert_array_equal(array, getattr(again, name))


def test_rendering_again_gives_the_same_bytes(pairs, runs, tmp_path, monkeypatch):
    first = (runs / "worlds" / TINY.digest()).iterdir()
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))
    monkeypatch.setattr(module, "RENDER_BATCH", 4)
    render_pairs(TINY, progress=False)
    for file in first:
        assert file.read_bytes() == (tmp_path / "worlds" / TINY.digest() / file.name).read_bytes(), file.name


def test_a_progress_bar_is_shown_when_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))
    render_pairs(replace(TINY, places=2, styles=("garden",), difficulty="easy"))
    assert "rendering the world: 100%" in capsys.readouterr().err


def test_settings_name_their_world():
    names = {
        config.digest()
        for config in (
            TINY, replace(TINY, seed=1), replace(TINY, difficulty="hard"), replace(TINY, styles=("garden",)),
            replace(TINY, span_m=31),
        )
    }  # fmt: skip
    assert len(names) == 5
    assert TINY.digest() == replace(TINY).digest()
    assert len(TINY.digest()) == 12


def test_an_edited_level_is_another_world(monkeypatch):
    before = TINY.digest()
    monkeypatch.setitem(LEVELS, "medium", replace(LEVELS["medium"], noise=0.5))
    assert TINY.digest() != before


def test_an_interrupted_rendering_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "satellite_tiles", interrupt)
    with pytest.raises(KeyboardInterrupt):
        render_pairs(TINY, progress=False)
    assert list((tmp_path / "worlds").iterdir()) == []


def test_two_processes_that_render_the_same_world_both_get_it(pairs, tmp_path, monkeypatch):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))
    render = module._render_into

    def overtaken(folder, *rest):
        render(folder, *rest)
        shutil.copytree(folder, paths.runs() / "worlds" / TINY.digest())  # the other one was first

    monkeypatch.setattr(module, "_render_into", overtaken)
    np.testing.assert_array_equal(render_pairs(TINY, progress=False).tile, pairs.tile)
    assert [path.name for path in (tmp_path / "worlds").iterdir()] == [TINY.digest()]


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    "harm",
    [cut, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"x" * 500), lambda path: path.unlink()],
)
@pytest.mark.parametrize("name", ["panorama", "tile", "city"])
def test_a_damaged_file_is_named_with_the_remedy(copy, harm, name):
    harm(copy / f"{name}.npy")
    with pytest.raises(InputError, match=rf"{name}\.npy.*Delete"):
        load_pairs(copy)


def test_a_full_disk_is_told_before_rendering(tmp_path, monkeypatch):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(10, 10, 0))
    with pytest.raises(InputError, match=r"GB free.*UCVGL_RUNS"):
        render_pairs(TINY, progress=False)
    assert list((tmp_path / "worlds").iterdir()) == []


def test_more_places_than_available_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))
    with pytest.raises(InputError, match="number of places: expected at most"):
        render_pairs(replace(TINY, places=5000), progress=False)
    assert list((tmp_path / "worlds").iterdir()) == []


@pytest.mark.parametrize("difficulty", LEVELS)
def test_shifted_tiles_stay_inside_the_city(difficulty):
    config = replace(TINY, difficulty=difficulty, places=40, spacing_m=4)
    _, places, nuisance = city_of(config, 0, 40, "cpu")
    spare = 3 * LEVELS[difficulty].tile_shift_m + config.span_m / 2  # wherever its shift may put a tile
    for metres in (places.east_m, places.north_m):
        assert metres.min() >= spare
        assert metres.max() <= 200 - spare
    assert len(nuisance.day) == 40


def test_cities_of_one_style_differ():
    config = replace(TINY, styles=("garden", "garden"))
    scenes = [city_of(config, number, 2, "cpu")[0] for number in (0, 1)]
    assert scenes[0].city.seed != scenes[1].city.seed


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"styles": ()}, "styles"),
        ({"styles": ("village",)}, "city style"),
        ({"difficulty": "brutal"}, "difficulty"),
        ({"places": 0}, "places"),
        ({"spacing_m": -1}, "spacing_m"),
        ({"span_m": 0}, "span_m"),
        ({"tile_px": 0}, "tile_px"),
        ({"panorama_px": -2}, "panorama_px"),
    ],
)
def test_bad_settings_are_named(setting, named):
    with pytest.raises(InputError, match=named):
        replace(TINY, **setting)
