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
    train, tests = material.open_frames(profiles.vg_ssl("laptop", 0), progress=False)
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
    run = results.start("06_vg_ssl", profile="tiny", data=WORLD, seed=7)
    assert "no rows of seed 7" in run.keep("real")
