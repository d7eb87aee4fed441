"""What rows are trained on and measured by: the parts of the world, and of real frames in a folder of samples."""

import numpy as np
import pytest
import torch
from PIL import Image

from ucvgl import paths
from ucvgl.errors import InputError
from ucvgl.lab import material, profiles, rows
from ucvgl.lab.settings import WORLD, RunRequest

pytestmark = pytest.mark.usefixtures("fresh_runs")
SETTINGS = profiles.sample4geo("tiny", 0)


def test_real_frames_in_parts(tmp_path, monkeypatch):
    """Made-up Nordland, Gardens Point and Corridor; every fortieth frame of the railway lies in a tunnel."""
    monkeypatch.setenv("UCVGL_SAMPLES", str(tmp_path / "samples"))
    assert not material.real_frames()
    random = np.random.default_rng(0)
    counts = {"nordland/summer": 200, "nordland/winter": 200, "corridor/query": 9, "corridor/ref": 9}
    for folder in (*counts, *(f"gardens_point/{name}" for name in ("day_left", "day_right", "night_right"))):
        (tmp_path / "samples" / folder).mkdir(parents=True)
        for number in range(counts.get(folder, 12)):
            dark = folder.startswith("nordland") and number % 40 == 5
            pixels = np.full((8, 10), 9, np.uint8) if dark else random.integers(0, 256, (8, 10), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "samples" / folder / f"{number:04d}.png")
    assert material.real_frames()
    train, tests = material.open_frames(profiles.vg_ssl("laptop", 0))
    assert len(train) == 140 - 4  # 70 % of the line, without the tunnels at 5, 45, 85 and 125
    assert train.query.ids[0].startswith("winter")
    assert [len(test) for test in tests.values()] == [39, 39, 12, 12, 9]
    most = [max(len(row) for row in tests[name].positives) for name in ("nordland", "nordland_within_1")]
    assert most == [5, 3]
    assert tests["gardens_day"].query.ids[0].startswith("day_left")
    last, first = (side.query.positions.values[at, 0] for side, at in ((train, -1), (tests["nordland"], 0)))
    assert first - last > 200  # metres, ten a frame


def test_same_and_cross_ask_as_much_among_as_many_tiles():
    (area,) = material.open_areas(SETTINGS, WORLD, SETTINGS.method)
    same, cross = area.tests["same"], area.tests["cross"]
    assert (len(area.train), len(same), len(cross), len(same.gallery)) == (72, 24, 24, len(cross.gallery))
    assert not set(area.train.query.ids) & set(same.query.ids)
    for test in (same, cross):
        where = test.gallery.positions.values[test.positives.best()] - test.query.positions.values
        assert np.abs(where).max() <= SETTINGS.trained.span_m / 4 + 1e-3
        assert max(map(len, test.semi_positives)) == 3


def test_each_style_is_trained_on_and_tested_on_by_all():
    cities = material.open_others(SETTINGS, WORLD, "", SETTINGS.brief)
    assert list(cities) == ["garden", "canal", "downtown", "old_town"]
    for name, part in cities.items():
        assert next(iter(part.tests)) == name
        assert set(part.tests) == set(cities)
        assert len({len(test.gallery) for test in part.tests.values()}) == 1
        assert not set(part.train.query.ids) & set(part.test.query.ids)
        assert np.ptp(part.train.gallery.positions.values[:, 0]) < 1000  # of one city alone


def test_sues200s_form_has_a_test_a_height_of_the_world_and_of_a_folder(tmp_path, monkeypatch):
    flown = material.open_heights(SETTINGS)
    assert list(flown.tests) == ["150m", "200m", "250m", "300m"]
    assert len(flown.train) == 4 * 12 * SETTINGS.heights.views
    assert (flown.train.positives.best().bincount() == 4 * SETTINGS.heights.views).all()

    (root,) = map(str, paths.runs().glob("flights/*/set"))
    assert (material.drone_root("sues200", root), material.drone_root("university1652", root)) == (root, "")
    assert torch.equal(material.open_heights(SETTINGS, root).train.query[:], flown.train.query[:])
    found = rows.rows(RunRequest("tiny", drone=root), 0)
    assert [root in found[f"05/{table}/full"].settings for table in ("heights", "drone")] == [True, False]

    monkeypatch.setenv("UCVGL_ROWS", "smoke")
    few = material.open_heights(SETTINGS, root)
    assert [len(part) for part in (few.train, *few.tests.values())] == [4 * 16, 8, 8, 8, 8]
    assert all(part.labelled and len(part.gallery) <= 16 for part in (few.train, *few.tests.values()))

    for side in ("query", "gallery"):
        (tmp_path / side).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / side / "a.png")
    with pytest.raises(InputError, match="drone: expected one of university1652, sues200, found 'pairs'"):
        rows.rows(RunRequest("tiny", drone=str(tmp_path)), 0)
