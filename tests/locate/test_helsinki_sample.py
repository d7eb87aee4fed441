"""`ucvgl locate` on ten real photos and tiles of Helsinki: it runs and says what it took for granted; no accuracy is claimed."""

import csv
import shutil
from pathlib import Path

import pandas as pd
import pytest

from ucvgl import paths
from ucvgl.locate.run import Request, locate

TILE_M = 200.0  # edge of a tile on the ground


@pytest.fixture
def helsinki(tmp_path: Path) -> Path:
    """The sample as somebody would bring it: photos with compass, tiles with positions."""
    sample = paths.samples() / "helsinki"
    if not sample.exists():
        pytest.skip(f"no sample data: {sample} is absent (set UCVGL_SAMPLES)")
    with (sample / "CVH3D_validation_set.csv").open(encoding="utf-8", newline="") as file:
        known = {row["Grd_ID"]: row for row in csv.DictReader(file)}
    ground, tiles = (["file,heading_deg"], ["file,latitude,longitude,span_m"])
    for name in ("ground", "tiles"):
        (tmp_path / name).mkdir()
    for folder in sorted((sample / "samples").iterdir()):
        row = known[folder.name]
        shutil.copy(folder / f"{folder.name}.jpg", tmp_path / "ground")
        shutil.copy(folder / f"{folder.name}_sat.jpg", tmp_path / "tiles")
        ground.append(f"{folder.name}.jpg,{row['Compass_angle']}")
        # where in its tile a photo was taken is not said: the tile is put around it, which is why nothing is measured
        tiles.append(f"{folder.name}_sat.jpg,{row['Latitude']},{row['Longitude']},{TILE_M:g}")
    (tmp_path / "ground.csv").write_text("\n".join(ground), encoding="utf-8")
    (tmp_path / "tiles.csv").write_text("\n".join(tiles), encoding="utf-8")
    return tmp_path


def test_ten_photos_are_placed(helsinki: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UCVGL_RUNS", str(helsinki / "runs"))
    request = Request(
        helsinki / "ground", helsinki / "tiles", helsinki / "out", helsinki / "ground.csv", helsinki / "tiles.csv",
        kind="photo", fov_deg=70.0, stride_m=25.0, epochs=1,
    )  # fmt: skip
    outcome = locate(request, progress=False)
    places = outcome.places
    assert len(pd.read_csv(outcome.folder / "positions.csv")) == len(places) == 10
    # 150 / 25 steps each way; nothing between the tiles
    assert 10 * 6 * 6 <= len(outcome.inputs.candidates) <= 10 * 7 * 7
    assert places["latitude"].between(60.20, 60.29).all()
    assert places["longitude"].between(24.82, 24.98).all()
    assert places["latitude"].nunique() > 1
    report = (outcome.folder / "report.md").read_text(encoding="utf-8")
    assert "2.5 m above flat ground" in report
    assert (outcome.folder / "map.html").stat().st_size > 100_000
