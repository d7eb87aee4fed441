"""Notebook 07's cities, drives and parts of cities, and which city is searched (locate/trials.py)."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from geo_inputs import ORIGIN

from ucvgl.locate import located, trials
from ucvgl.locate.confidence import Calibration, Evidence
from ucvgl.locate.inputs import Inputs, Request
from ucvgl.locate.pictures import Picture
from ucvgl.locate.run import place
from ucvgl.locate.search import Search
from ucvgl.locate.trials import Case
from ucvgl.methods.ucvgl import Descriptors
from ucvgl.positions import Positions, Wgs84, from_metres


def test_a_folder_of_ones_own(tmp_path: Path):
    assert not trials.is_own("world")
    assert not trials.is_own(str(tmp_path))
    for name in ("ground", "tiles"):
        (tmp_path / name).mkdir()
    (tmp_path / "tiles.csv").write_text("file,latitude,longitude\n")
    asked = trials.request(Case(), str(tmp_path), tmp_path / "out")
    found = asked.ground, asked.tiles, asked.ground_table, asked.tiles_table, asked.truth  # opened after the search
    assert found == (tmp_path / "ground", tmp_path / "tiles", None, tmp_path / "tiles.csv", None)


def test_a_city_is_rendered_once_and_asked_for_by_what_its_pictures_say(tmp_path, monkeypatch):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))
    seen = []

    def exported(root, world, photo_fov_deg):
        seen.append((*world.styles, world.places, world.seed, photo_fov_deg, world.panorama_px))
        root.mkdir(parents=True)

    monkeypatch.setattr(trials, "export_own_city", exported)
    case = Case(places=7, seed=3)
    for kind, searched, said in (
        ("panorama", False, (0.0, None, None)), ("panorama", True, (None, None, None)),
        ("photo", False, (None, "ground.csv", 80.0)), ("photo", True, (None, None, 80.0)),
    ):  # fmt: skip
        asked = trials.request(replace(case, kind=kind, searched=searched), "world", tmp_path / "out")
        table = asked.ground_table and asked.ground_table.name
        assert (asked.kind, asked.heading_deg, table, asked.fov_deg, asked.truth) == (kind, *said, None)
        assert asked.tiles == asked.ground.parent / "tiles"
    assert seen == [("old_town", 7, 3, None, 128), ("old_town", 7, 3, 80.0, 512)]


def searched(where, cosines):
    """Pictures taken at metres (N, 2), searched for among candidates each 12.5 m along a line."""
    centre = 12.5 * np.stack([np.arange(8), np.zeros(8)], 1)
    degrees = Positions(from_metres(centre, ORIGIN), Wgs84())
    images = SimpleNamespace(positions=degrees, ids=[f"t{k}" for k in range(8)])
    mosaic = SimpleNamespace(origin=ORIGIN)
    candidates = SimpleNamespace(centre_m=centre, stride_m=12.5, images=images, mosaic=mosaic)
    pictures = [Picture(f"{k}.jpg", "panorama", 64, 32, heading_deg=0.0) for k in range(len(where))]
    truth = dict(zip([p.file for p in pictures], from_metres(np.asarray(where), ORIGIN).tolist(), strict=True))
    inputs = Inputs(Request(Path("g"), Path("t"), Path("o")), None, candidates, None, None, truth)
    best = np.argsort(-cosines, axis=1)[:, :5]
    evidence = Evidence(np.zeros((len(where), 5)), best, np.take_along_axis(cosines, best, 1))
    descriptors = Descriptors(torch.from_numpy(cosines), torch.eye(8))
    return Search(
        pictures, None, descriptors, evidence, Calibration((0,) * 5, (1,) * 5, (0,) * 5, 0, "", 20.0), []
    ), inputs


def test_a_drive_goes_on_to_the_nearest_place_that_is_left():
    where = np.array([[0.0, 0], [40, 0], [10, 0], [20, 5], [300, 0]])
    drive, inputs = trials.as_drive(*searched(where, np.eye(8)[:5]))
    taken = np.array([picture.taken_s for picture in drive.pictures])
    order = np.argsort(taken)
    assert (order.tolist(), inputs.request.drive) == ([0, 2, 3, 1, 4], "time")
    speed = np.hypot(*np.diff(where[order], axis=0).T) / np.diff(taken[order])
    assert ((speed >= 5) & (speed <= 10)).all()
    assert trials.outside(drive, inputs).tolist() == [False] * 4 + [True]


def test_the_pipeline_places_a_city_alone_and_as_a_drive():
    """Three pictures along a line of candidates; the second alone is placed at the far end."""
    cosines = np.full((3, 8), 0.1)
    cosines[0, 2] = cosines[2, 4] = 0.9
    cosines[1, [3, 7]] = 0.8, 0.85
    city = searched([(26.0, 1.0), (38.5, 1.0), (51.0, 1.0)], cosines)
    alone, together = (place(*one) for one in (city, trials.as_drive(*city)))
    away = located.errors_m(alone, city[1].truth)[:, 0]
    assert away == pytest.approx([2**0.5, np.hypot(49, 1), 2**0.5], rel=0.01)
    assert located.placed_right(alone, city[1].truth)[:, 0].tolist() == [1, 0, 1]
    assert located.placed_right(together, city[1].truth)[:, 0].tolist() == [1, 1, 1]
    assert (alone["probability"].tolist(), together["probability"].min() > 0.9) == ([0.5] * 3, True)
