"""Calibrations on the world: what is asked for, cities joined as one, a file for each kind of picture."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ucvgl.locate.confidence import Evidence, EvidenceSettings, load_calibration, placed_right
from ucvgl.positions import Metres, Positions
from ucvgl.studies import world_calibration as module
from ucvgl.studies.world_calibration import CASES, Case, Judged, calibrate, joined, request_for, write_calibrations

CITY, OUT = Path("city"), Path("out")


def searched(seed, count=12, candidates=7):
    """A search with random evidence; every other picture is placed right."""
    rng = np.random.default_rng(seed)
    frame = Metres(f"city {seed}")
    where = 100.0 * np.stack([np.arange(candidates), np.full(candidates, seed)], 1)
    best = np.stack([rng.permutation(candidates)[:5] for _ in range(count)])
    truth = where[best[:, 0]] + np.where(np.arange(count)[:, None] % 2, [3.0, 4.0], [30.0, 40.0])
    evidence = Evidence(rng.random((count, 4)), best, np.zeros((count, 5)), np.zeros((count, 5)), EvidenceSettings())
    looked = SimpleNamespace(candidates=SimpleNamespace(positions_m=Positions(where, frame)))
    return Judged(looked, SimpleNamespace(evidence=evidence), Positions(truth, frame))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_asks_for_what_its_pictures_say(case):
    request = request_for(case, CITY, OUT)
    assert (request.ground, request.tiles, request.out, request.kind) == (
        CITY / "ground",
        CITY / "tiles",
        OUT,
        case.kind,
    )
    assert request.fov_deg == (80.0 if case.kind == "photo" else None)
    if case.searched:
        assert request.heading_deg is None
        assert request.ground_table is None
    elif case.kind == "photo":
        assert request.ground_table == CITY / "ground.csv"
    else:
        assert request.heading_deg == 0
    assert request.truth is request.labels is None


def test_errors_by_hand():
    one = searched(1)
    assert one.errors_m()[:2, 0] == pytest.approx([50.0, 5.0])
    assert one.right().tolist() == [0, 1] * 6
    assert one.errors_m().shape == (12, 5)


def test_cities_joined_are_judged_as_each_alone():
    parts = [searched(1), searched(2, 8, 6), searched(3, 5, 9)]
    evidence, candidates, truth = joined(parts)
    assert (len(evidence), len(candidates), len(truth)) == (25, 22, 25)
    assert placed_right(evidence, candidates, truth).tolist() == [r for part in parts for r in part.right()]
    assert np.array_equal(evidence.values[12:20], parts[1].found.evidence.values)
    assert evidence.best[12:20].min() >= 7
    assert evidence.best[20:].min() >= 13
    gaps = [np.diff(np.sort(candidates.values[:, 0])).max(), np.ptp(candidates.values[:7, 0])]
    assert gaps[0] > 1000 * gaps[1]  # nothing of one city is near another


def test_a_calibration_is_fitted_to_all_cities_of_a_case(monkeypatch):
    seen = []
    monkeypatch.setattr(module, "judge", lambda case, seed, *, progress: seen.append(seed) or searched(seed))
    found = calibrate(Case("photo", True, seeds=(4, 5, 6)), progress=False)
    assert seen == [4, 5, 6]
    assert (found.pictures, found.right, found.settings) == (36, 18, EvidenceSettings())
    assert found.measured_on == "3 synthetic cities of the style old_town, 300 photos each, headings searched for"


def test_a_file_for_each_case(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "judge", lambda case, seed, *, progress: searched(seed))
    written = write_calibrations(tmp_path, progress=False)
    assert [path.name for path in written] == [
        "panorama.json",
        "panorama-turned.json",
        "photo.json",
        "photo-turned.json",
    ]
    assert load_calibration(written[1]) == calibrate(CASES[1], progress=False)


def test_a_city_is_rendered_once(tmp_path, monkeypatch):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))
    seen = []

    def exported(root, style, places, seed, **options):
        seen.append((style, places, seed, options["photo_fov_deg"], options["panorama_px"]))
        root.mkdir(parents=True)

    monkeypatch.setattr(module, "export_own_city", exported)
    case = Case(places=7)
    first = module.world_city(case, 3, progress=False)
    assert module.world_city(case, 3, progress=False) == first
    assert module.world_city(replace(case, searched=True), 3, progress=False) == first
    assert module.world_city(replace(case, kind="photo"), 3, progress=False) != first
    assert module.world_city(case, 4, progress=False) != first
    assert seen == [("old_town", 7, 3, None, 128), ("old_town", 7, 3, 80.0, 512), ("old_town", 7, 4, None, 128)]
