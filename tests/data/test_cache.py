"""Folders made once: the same again, whole or not at all, damage named with its remedy."""

import pytest

from ucvgl.data import cache
from ucvgl.data.cache import made_once, mapped, new_images
from ucvgl.errors import InputError

pytestmark = pytest.mark.usefixtures("fresh_runs")
KEY = {"places": 3, "size": (2, 2)}


def write(folder):
    images = new_images(folder, "query", (3, 3, 2, 2))
    images[:] = 7
    images.flush()


def test_made_once_then_mapped():
    folder = made_once("images", KEY, write)
    assert made_once("images", KEY, None) == folder
    mapped(folder, "query")[:] = 0  # does not reach the disk
    assert (mapped(folder, "query") == 7).all()
    assert made_once("images", KEY | {"places": 4}, write) != folder


def test_an_interrupted_making_or_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(folder):
        write(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made_once("images", KEY, interrupt)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: type("usage", (), {"free": 0}))
    with pytest.raises(InputError, match=r"GB free.*UCVGL_RUNS"):
        made_once("images", KEY, write)
    assert not [path for path in (tmp_path / "runs" / "images").iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize("left", [None, b"", b"x" * 500, "cut"])
def test_a_damaged_file_is_named_with_the_remedy(left):
    folder = made_once("images", KEY, write)
    path = folder / "query.npy"
    raw = path.read_bytes()
    path.unlink()
    if left is not None:
        path.write_bytes(raw[:-5] if left == "cut" else left)
    with pytest.raises(InputError, match=r"query\.npy.*Delete"):
        mapped(folder, "query")
