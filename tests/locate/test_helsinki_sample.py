"""`ucvgl locate` on ten real photos and tiles of Helsinki: it runs and says what it took for granted; no accuracy is claimed."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from ucvgl import paths
from ucvgl.locate import Request, locate

TILE_M = 200.0  # edge of a tile on the ground


def test_ten_photos_are_placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample as somebody would bring it: photos with compass, tiles with positions."""
    sample = paths.samples() / "helsinki"
    if not sample.exists():
        pytest.skip(f"no sample data: {sample} is absent (set UCVGL_SAMPLES)")
    for name, end in (("ground", ""), ("tiles", "_sat")):
        (tmp_path / name).mkdir()
        for folder in (sample / "samples").iterdir():
            shutil.copy(folder / f"{folder.name}{end}.jpg", tmp_path / name)
    known = pd.read_csv(sample / "CVH3D_validation_set.csv", dtype=str).set_index("Grd_ID")
    some = known.loc[[path.stem for path in sorted((tmp_path / "ground").iterdir())]].rename_axis("file")
    some["Compass_angle"].rename("heading_deg").to_csv(tmp_path / "ground.csv")
    # where in its tile a photo was taken is not said: the tile is put around it, which is why nothing is measured
    tiles = some[["Latitude", "Longitude"]].rename(columns=str.lower, index="{}_sat".format).assign(span_m=TILE_M)
    tiles.to_csv(tmp_path / "tiles.csv")

    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path / "runs"))
    folders = [tmp_path / name for name in ("ground", "tiles", "out", "ground.csv", "tiles.csv")]
    outcome = locate(Request(*folders, kind="photo", fov_deg=70.0, stride_m=25.0, epochs=1))
    places = outcome.places
    assert len(pd.read_csv(outcome.folder / "positions.csv")) == len(places) == 10
    # 150 / 25 steps each way; nothing between the tiles
    assert 10 * 6 * 6 <= len(outcome.inputs.candidates) <= 10 * 7 * 7
    assert places["latitude"].between(60.20, 60.29).all()
    assert places["longitude"].between(24.82, 24.98).all()
    assert places["latitude"].nunique() > 1
    assert "2.5 m above flat ground" in (outcome.folder / "report.md").read_text(encoding="utf-8")
    assert (outcome.folder / "map.html").stat().st_size > 100_000
