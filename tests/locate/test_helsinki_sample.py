"""`ucvgl locate` on ten real photos and tiles of Helsinki: it runs and says what it took for granted; no accuracy is claimed."""

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
    known = pd.read_csv(sample / "CVH3D_validation_set.csv", dtype=str).set_index("Grd_ID")
    for name in ("ground", "tiles"):
        (tmp_path / name).mkdir()
    for folder in sorted((sample / "samples").iterdir()):
        shutil.copy(folder / f"{folder.name}.jpg", tmp_path / "ground")
        shutil.copy(folder / f"{folder.name}_sat.jpg", tmp_path / "tiles")
    some = known.loc[[path.stem for path in sorted((tmp_path / "ground").iterdir())]]
    some.rename(columns={"Compass_angle": "heading_deg"})["heading_deg"].rename_axis("file").to_csv(
        tmp_path / "ground.csv"
    )
    # where in its tile a photo was taken is not said: the tile is put around it, which is why nothing is measured
    tiles = some[["Latitude", "Longitude"]].rename(columns=str.lower, index="{}_sat".format).assign(span_m=TILE_M)
    tiles.rename_axis("file").to_csv(tmp_path / "tiles.csv")
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
