"""From files to arrays: sizes, projections, every panorama by its own size; made once, whole or not at all, then mapped."""

import dataset_trees as trees
import numpy as np
import pytest
import torch

from ucvgl.data import open_dataset
from ucvgl.data.prepare import Preparation, made_once, mapped, new_images, prepare
from ucvgl.errors import InputError
from ucvgl.geometry import TopView, polar_view, top_view

pytestmark = pytest.mark.usefixtures("fresh_runs")


def test_files_become_arrays_once(tmp_path, monkeypatch):
    _, root = trees.cvact(tmp_path / "set")
    data = open_dataset("cvact", root, "val")
    ready = prepare(data, Preparation((4, 16), (12, 12)))
    assert (ready.query.size, ready.gallery.size, ready.top_view) == ((4, 16), (12, 12), None)
    assert torch.equal(ready.gallery[:2], torch.stack([data.gallery.read(i, (12, 12)) for i in (0, 1)]))
    assert ready.query.ids == data.query.ids
    assert trees.same(ready.positives, data.positives)
    monkeypatch.setattr("ucvgl.data.prepare._write", None)
    again = prepare(data.without_labels(), Preparation((4, 16), (12, 12)))  # no label is looked at
    assert again.query.digest() == ready.query.digest()
    assert not again.labelled


def test_top_views_and_polar_tiles_are_those_of_the_geometry(tmp_path):
    data = trees.paired("x", "train", 3)
    whole = trees.images(3, "w", 2, 16, 32)
    data = type(data)("x", "train", whole, data.gallery, data.positives)
    view = TopView(size_px=16)
    ready = prepare(data, Preparation((8, 16), (16, 16), view))
    assert torch.equal(ready.top_view[:], top_view(whole[:], view))
    polar = prepare(data, Preparation((8, 16), (16, 16), polar=True)).gallery
    assert torch.equal(polar[:], polar_view(data.gallery[:], 8, 16))


def test_a_strip_that_fits_into_no_panorama_is_named(tmp_path):
    _, root = trees.cvusa(tmp_path / "set")
    trees.jpeg(root / "streetview/panos/0000002.jpg", np.zeros((20, 32, 3), np.uint8))
    (root / "ucvgl-export.json").unlink()
    data = open_dataset("cvusa", root, "train")
    with pytest.raises(InputError, match="32 x 20 px"):
        prepare(data, Preparation((8, 32), (16, 16), TopView(size_px=16)))


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
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 0}))
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
