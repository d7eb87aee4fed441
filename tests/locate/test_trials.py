"""Notebook 07's tables, drives and parts of cities, and which city is searched (locate/trials.py)."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ucvgl.locate import trials
from ucvgl.locate.trials import Case


def test_a_folder_of_ones_own(tmp_path: Path):
    assert not trials.is_own("world")
    assert not trials.is_own(str(tmp_path))
    for name in ("ground", "tiles"):
        (tmp_path / name).mkdir()
    assert trials.is_own(str(tmp_path))
    (tmp_path / "tiles.csv").write_text("file,latitude,longitude,span_m\n")
    (tmp_path / "truth.csv").write_text("file,latitude,longitude\n")
    asked = trials.request(Case(), str(tmp_path), tmp_path / "out")
    assert (asked.ground, asked.tiles) == (tmp_path / "ground", tmp_path / "tiles")
    assert (asked.ground_table, asked.tiles_table) == (None, tmp_path / "tiles.csv")
    assert asked.truth is None  # opened after the search


@pytest.mark.parametrize("kind", ["panorama", "photo"])
@pytest.mark.parametrize("searched", [False, True])
def test_a_case_asks_for_what_its_pictures_say(kind, searched):
    asked = trials.request_for(Case(kind, searched), Path("city"), Path("out"))
    assert (asked.ground, asked.tiles, asked.kind) == (Path("city/ground"), Path("city/tiles"), kind)
    assert asked.fov_deg == (80.0 if kind == "photo" else None)
    assert asked.heading_deg == (0.0 if kind == "panorama" and not searched else None)
    assert asked.ground_table == (Path("city/ground.csv") if kind == "photo" and not searched else None)


def test_a_city_is_rendered_once_and_a_part_of_it_is_its_western_columns(tmp_path, monkeypatch):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))
    seen = []

    def exported(root, world, photo_fov_deg, **options):
        seen.append((*world.styles, world.places, world.seed, photo_fov_deg, world.panorama_px))
        for column in range(100, 108):
            (root / f"tiles/18/{column}").mkdir(parents=True)

    monkeypatch.setattr(trials, "export_own_city", exported)
    case = Case(places=7, seed=3)
    part = trials.world_city(replace(case, searched=True, outside=True), progress=False)
    assert trials.world_city(case, progress=False) == part
    assert sorted(path.name for path in part.glob(f"{trials.PART}/18/*")) == ["100", "101", "102", "103", "104"]
    assert trials.request_for(replace(case, outside=True), part, tmp_path / "out").tiles == part / trials.PART
    trials.world_city(replace(case, kind="photo"), progress=False)
    assert seen == [("old_town", 7, 3, None, 128), ("old_town", 7, 3, 80.0, 512)]


def test_a_drive_goes_on_to_the_nearest_place_that_is_left():
    where = np.array([[0.0, 0], [40, 0], [10, 0], [20, 5], [300, 0]])
    order, seconds = trials.drive_past(where)
    assert order.tolist() == [0, 2, 3, 1, 4]
    speed = np.hypot(*np.diff(where[order], axis=0).T) / np.diff(seconds)
    assert ((speed >= 5) & (speed <= 10)).all()


def test_a_trial_knows_what_is_right_alone_and_in_the_drive():
    """Three pictures along a line of candidates; the second alone is placed at the far end."""
    centre = 12.5 * np.stack([np.arange(8), np.zeros(8)], 1)
    cosines = np.full((3, 8), 0.1)
    cosines[0, 2] = cosines[2, 4] = 0.9
    cosines[1, [3, 7]] = 0.8, 0.85
    best = np.argsort(-cosines, axis=1)[:, :5]
    found = SimpleNamespace(evidence=SimpleNamespace(best=best), cosines=cosines)
    one = trials.Trial(found, SimpleNamespace(centre_m=centre, stride_m=12.5), centre[[2, 3, 4]] + 1.0)
    assert one.error_m()[:, 0] == pytest.approx([2**0.5, np.hypot(49, 1), 2**0.5])
    assert one.right().tolist() == [1, 0, 1]
    together = one.together(scale=20.0)
    assert one.right(together).tolist() == [1, 1, 1]
    assert together.probability.min() > 0.9
