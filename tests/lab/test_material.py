"""What rows are measured on where real frames lie in a folder of samples."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ucvgl.lab import material, profiles, results, tables
from ucvgl.lab.settings import WORLD


@pytest.fixture
def frames(tmp_path, monkeypatch):
    """Made-up Nordland, Gardens Point and Corridor; every fortieth frame of the railway lies in a tunnel."""
    random = np.random.default_rng(0)
    for folder, count in (("nordland/summer", 200), ("nordland/winter", 200), ("gardens_point/day_left", 12),
                          ("gardens_point/day_right", 12), ("gardens_point/night_right", 12), ("corridor/query", 9),
                          ("corridor/ref", 9)):  # fmt: skip
        for number in range(count):
            dark = folder.startswith("nordland") and number % 40 == 5
            pixels = np.full((8, 10), 9, np.uint8) if dark else random.integers(0, 256, (8, 10), np.uint8)
            path = tmp_path / "samples" / folder / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("UCVGL_SAMPLES", str(tmp_path / "samples"))


@pytest.mark.usefixtures("frames")
def test_real_frames_in_parts():
    assert material.real_frames()
    train, tests = material.open_frames(profiles.vg_ssl("laptop", 0))
    assert len(train) == 140 - 4  # 70 % of the line, without the tunnels at 5, 45, 85 and 125
    assert train.query.ids[0].startswith("winter")
    assert {name: len(test) for name, test in tests.items()} == {
        "nordland": 39, "nordland_within_1": 39, "gardens_day": 12, "gardens_night": 12, "corridor": 9,
    }  # fmt: skip
    assert max(len(row) for row in tests["nordland"].positives) == 5
    assert max(len(row) for row in tests["nordland_within_1"].positives) == 3
    assert tests["gardens_day"].query.ids[0].startswith("day_left")
    last, first = (side.query.positions.values[at, 0] for side, at in ((train, -1), (tests["nordland"], 0)))
    assert first - last > 200  # metres, ten a frame


def test_without_frames_the_published_table_is_shown_again(tmp_path, monkeypatch):
    monkeypatch.setenv("UCVGL_FIGURES", str(tmp_path / "figures"))
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("UCVGL_SAMPLES", raising=False)
    assert not material.real_frames()
    folders = []
    for seed in (0, 1):
        monkeypatch.setenv("UCVGL_RUN_FOLDER", str(tmp_path / f"seed{seed}"))
        run = results.start("06_vg_ssl", profile="tiny", data=WORLD, seed=seed)
        row = pd.DataFrame([{"part": "simclr", "r_at_1": 50.0 + seed}])
        run.save_table(row, "real", caption="Real.", queries=40)
        run.finish()
        folders.append(tmp_path / f"seed{seed}")
    results.publish(folders, tmp_path / "figures" / "tiny" / "06_vg_ssl")
    monkeypatch.setenv("UCVGL_RUN_FOLDER", str(tmp_path / "again"))
    run = results.start("06_vg_ssl", profile="tiny", data=WORLD, seed=1)
    assert "| simclr | 51.0 |" in run.keep("real").data
    assert run.queries == {"real": 40}
    assert tables.read(tmp_path / "again" / "real.csv")["seed"].tolist() == [1]
    assert "| simclr | 50.5 ± 0.7 |" in run.over_seeds("real", "r_at_1").data
    assert "seeds 0, 1" in run.over_seeds("real", "r_at_1").data
    assert "is not there yet" in run.over_seeds("main", "r_at_1")
    run = results.start("06_vg_ssl", profile="tiny", data=WORLD, seed=7)
    assert "no rows of seed 7" in run.keep("real")


@pytest.mark.usefixtures("fresh_runs")
class TestAreas:
    """Sample4Geo's parts of the world in VIGOR's layout."""

    settings = profiles.sample4geo("tiny", 0)

    def test_same_and_cross_ask_as_much_among_as_many_tiles(self):
        (area,) = material.open_areas(self.settings, WORLD, self.settings.method)
        same, cross = area.tests["same"], area.tests["cross"]
        assert len(area.train) == 72
        assert (len(same), len(same.gallery)) == (len(cross), len(cross.gallery)) == (24, len(cross.gallery))
        assert not set(area.train.query.ids) & set(same.query.ids)
        for test in (same, cross):
            assert (test.positives.best() >= 0).all()
            where = test.gallery.positions.values[test.positives.best()] - test.query.positions.values
            assert np.abs(where).max() <= self.settings.trained.span_m / 4 + 1e-3
            assert max(map(len, test.semi_positives)) == 3

    def test_each_style_is_trained_on_and_tested_on_by_all(self):
        cities = material.styles(self.settings, self.settings.brief)
        assert list(cities) == ["garden", "canal", "downtown", "old_town"]
        for name, part in cities.items():
            assert next(iter(part.tests)) == name
            assert set(part.tests) == set(cities)
            assert len({len(test.gallery) for test in part.tests.values()}) == 1
            assert not set(part.train.query.ids) & set(part.test.query.ids)
            assert np.ptp(part.train.gallery.positions.values[:, 0]) < 1000  # of one city alone

    def test_a_field_of_view_keeps_everything_but_the_columns(self):
        whole = material.one_area(self.settings, WORLD, self.settings.brief).test
        narrow = material.with_field_of_view(whole, 90, seed=1)
        assert narrow.query.size == whole.query.size
        assert (narrow.query[:][..., whole.query.size[1] // 4 :] == 0).all()
        assert narrow.positives is whole.positives
        assert narrow.digest() != material.with_field_of_view(whole, 90, seed=2).digest() != whole.digest()

    def test_sues200s_form_has_a_test_a_height(self):
        flown = material.open_heights(self.settings)
        assert list(flown.tests) == ["150m", "200m", "250m", "300m"]
        assert len(flown.train) == 4 * 12 * self.settings.heights.views
        assert (flown.train.positives.best().bincount() == 4 * self.settings.heights.views).all()
