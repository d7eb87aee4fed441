"""The pictures of notebook 01, and the errors of its picture reader."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from ucvgl import paths
from ucvgl.errors import InputError
from ucvgl.geometry import TopView
from ucvgl.studies import showcase
from ucvgl.studies.projection_study import study_config

CONFIG = study_config("tiny", 0)


def test_most_varied_place_comes_first_and_none_is_lost() -> None:
    scene, places = showcase.showcase_scene("garden", 0, CONFIG)
    pairs = {(float(e), float(n)) for e, n in zip(places.east_m, places.north_m, strict=True)}
    assert len(pairs) == len(places)
    pictures, titles = showcase.truth_sheet(scene, places, CONFIG)
    assert titles == ["panorama", "depth", "class", "ground"]
    assert all(picture.shape == (3, CONFIG.picture_px, 2 * CONFIG.picture_px) for picture in pictures)


def test_steps_crop_as_cvusa_does() -> None:
    scene, places = showcase.showcase_scene("garden", 0, CONFIG)
    step = showcase.steps(scene, places, CONFIG)
    size = CONFIG.picture_px
    assert step["completed"].shape == step["panorama"].shape == (3, size, 2 * size)
    assert step["crop"].shape[1] == round(size * 224 / 616)
    assert float(step["top view of the crop"][:, size // 2, size // 2].abs().max()) == 0  # what the crop lost
    assert float(step["top view"][:, size // 2, size // 2].max()) > 0
    black = (step["completed"] == 0).all(0).all(1)
    real = ~black
    assert torch.equal(step["completed"][:, real], step["panorama"][:, real])  # the strip is where it was cut


def test_real_panorama_argument(tmp_path: Path) -> None:
    good, strip, narrow, broken = (tmp_path / name for name in ("good.png", "strip.jpg", "narrow.png", "broken.jpg"))
    Image.new("RGB", (200, 100), (10, 20, 30)).save(good)
    Image.new("RGB", (1232, 224), (10, 20, 30)).save(strip)
    Image.new("RGB", (100, 100)).save(narrow)
    broken.write_bytes(strip.read_bytes()[:200])
    assert showcase.real_panorama(str(good))[0].shape == (1, 3, 100, 200)
    assert showcase.real_panorama(str(strip))[0].shape == (1, 3, 616, 1232)
    with pytest.raises(InputError, match=r"narrow.png.*whole turn"):
        showcase.real_panorama(str(narrow))
    for bad in (broken, tmp_path / "absent.jpg"):
        with pytest.raises(InputError, match=bad.name):
            showcase.real_panorama(str(bad))


def test_no_sample_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UCVGL_SAMPLES", str(tmp_path))
    assert showcase.real_panorama("") is None
    assert showcase.real_figure(None, TopView()) is None


@pytest.mark.skipif(not (paths.samples() / "amsterdam").is_dir(), reason="no sample data: set UCVGL_SAMPLES")
def test_the_sample_of_amsterdam() -> None:
    picture, credit = showcase.real_panorama("")
    assert picture.shape == (1, 3, 1024, 2048)
    assert "Amsterdam" in credit
    assert float(picture[:, :, -60:].float().mean()) < 2  # masked below the horizon
