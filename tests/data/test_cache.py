"""Folders made once: the same again, whole or not at all, damage named with its remedy."""

import time
from concurrent.futures import ThreadPoolExecutor

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


def forbidden(_):
    raise AssertionError("made again")


def test_made_once_then_mapped():
    folder = made_once("images", KEY, write)
    assert made_once("images", KEY, forbidden) == folder
    assert (mapped(folder, "query") == 7).all()
    assert made_once("images", KEY | {"places": 4}, write) != folder


def test_an_interrupted_making_leaves_nothing_behind(tmp_path):
    def interrupt(folder):
        write(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made_once("images", KEY, interrupt)
    assert not [path for path in (tmp_path / "runs" / "images").iterdir() if path.suffix != ".lock"]


def test_two_that_want_the_same_wait_for_the_first_who_makes_it():
    made = []

    def slowly(folder):
        made.append(folder)
        time.sleep(0.3)
        write(folder)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: made_once("images", KEY, slowly), range(2))
    assert first == second
    assert len(made) == 1


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-5]), lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"x" * 500), lambda path: path.unlink(),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_with_the_remedy(harm):
    folder = made_once("images", KEY, write)
    harm(folder / "query.npy")
    with pytest.raises(InputError, match=r"query\.npy.*Delete"):
        mapped(folder, "query")


def test_mapped_images_do_not_reach_the_disk():
    folder = made_once("images", KEY, write)
    before = (folder / "query.npy").read_bytes()
    mapped(folder, "query")[:] = 0
    assert (folder / "query.npy").read_bytes() == before


def test_a_full_disk_is_told_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: type("usage", (), {"free": 0}))
    with pytest.raises(InputError, match=r"GB free.*UCVGL_RUNS"):
        made_once("images", KEY, write)
    assert not [path for path in (tmp_path / "runs" / "images").iterdir() if path.suffix != ".lock"]
