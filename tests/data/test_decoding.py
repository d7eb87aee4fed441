"""Decoding: every mode to RGB, never half an image, batches in order."""

import dataset_trees as trees
import numpy as np
import pytest
import torch
from PIL import Image

from ucvgl.data import batches, decode_file, open_dataset
from ucvgl.data.decoding import image_size
from ucvgl.errors import InputError


def test_batches_come_in_order_and_whole_or_name_the_damaged_file(tmp_path):
    _, root = trees.cvusa(tmp_path / "set")
    images = open_dataset("cvusa", root, "train").query
    order = [5, 0, 3, 3, 1]
    got = list(batches(images, (8, 16), 2, order))
    assert torch.cat([i for i, _ in got]).tolist() == order
    assert [len(x) for _, x in got] == [2, 2, 1]
    for indices, pixels in got:
        assert pixels.dtype == torch.uint8
        assert torch.equal(pixels, torch.stack([images.read(int(i), (8, 16)) for i in indices]))
    path = root / "streetview/panos/0000004.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"0000004\.jpg"):
        list(batches(images, (8, 16), 2))


def test_modes_and_orientation_become_rgb(tmp_path):
    colour = np.zeros((6, 10, 3), np.uint8)
    colour[:3, :5] = (250, 10, 10)
    image = Image.fromarray(colour)
    for name in ("L.png", "RGBA.png", "P.png", "CMYK.jpg", "1.png", "LA.png"):
        image.convert(name[:-4]).save(tmp_path / name)
        assert decode_file(str(tmp_path / name)).shape == (3, 6, 10)
    Image.fromarray((np.arange(60, dtype=np.uint16) * 1000).reshape(6, 10)).save(tmp_path / "g.png")
    assert decode_file(str(tmp_path / "g.png"))[0, 5, 9] == 59_000 >> 8
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held a quarter clockwise
    image.save(tmp_path / "h.jpg", exif=exif, quality=95)
    turned = decode_file(str(tmp_path / "h.jpg"))
    assert tuple(turned.shape) == (3, *image_size(str(tmp_path / "h.jpg"))) == (3, 10, 6)
    assert turned[0, 2, 4] > 150 > turned[0, 2, 1]
    assert tuple(decode_file(str(tmp_path / "h.jpg"), (5, 3)).shape) == (3, 5, 3)


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp", "bmp"])
@pytest.mark.parametrize("size", [None, (4, 8)])
def test_truncated_files_never_become_half_images(ending, size, tmp_path):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(path)
    raw = path.read_bytes()
    assert tuple(decode_file(str(path), size).shape) == (3, *(size or (40, 60)))
    for keep in (0.0, 0.02, 0.4, 0.9):
        path.write_bytes(raw[: int(len(raw) * keep)])
        with pytest.raises(InputError, match=rf"a\.{ending}"):
            decode_file(str(path), size)


def test_an_image_bomb_is_refused(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((50, 50), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setattr("ucvgl.data.decoding.MAX_PIXELS", 2_000)
    with pytest.raises(InputError, match="50 x 50"):
        decode_file(str(tmp_path / "a.png"))
