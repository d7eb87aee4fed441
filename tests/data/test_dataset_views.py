"""The contract: image sets, positives, and the refusal of what does not fit together."""

from dataclasses import replace

import dataset_trees as trees
import numpy as np
import pytest
import torch
from PIL import Image

from ucvgl.data import ArrayImages, FileImages, Positives, Views, batches, decode_file, pair_batches
from ucvgl.errors import InputError
from ucvgl.positions import Metres, Positions


def test_positives_are_flat_and_read_like_lists():
    rows = Positives.of([[3, 1], None, [], np.array([2])])
    assert rows[0].tolist() == [3, 1]
    assert rows[1] is None
    assert rows[2].tolist() == []
    assert rows[-1].tolist() == [2]
    assert len(rows) == 4
    assert rows.best().tolist() == [3, -1, -1, 2]
    assert rows.pairs().tolist() == [[0, 3], [0, 1], [3, 2]]
    assert rows.take(np.array([3, 1])).same_as(Positives.of([[2], None]))
    assert Positives.unknown(3)[2] is None
    assert Positives.one_each([5, 5])[1].tolist() == [5]
    with pytest.raises(IndexError):
        rows[4]
    with pytest.raises(ValueError, match="read-only"):
        rows.indices[0] = 9
    with pytest.raises(InputError):
        Positives(np.array([0, 2]), np.array([1]), np.array([True]))
    with pytest.raises(InputError):
        Positives(np.array([0, 1]), np.array([1]), np.array([False]))


def test_a_hundred_thousand_positives_are_cheap():
    rows = Positives.one_each(np.arange(100_000))
    assert rows.indices.nbytes + rows.offsets.nbytes + rows.known.nbytes < 2_000_000
    assert rows[99_999].tolist() == [99_999]
    assert len(rows.pairs()) == 100_000


def test_views_refuse_what_does_not_fit():
    views = trees.paired("x", "train", 4)
    for wrong in (Positives.one_each([0, 1, 2]), Positives.one_each([0, 1, 2, 4]), Positives.one_each([-1, 0, 1, 2])):
        with pytest.raises(InputError, match="positives"):
            replace(views, positives=wrong)
    with pytest.raises(InputError, match="semi_positives"):
        replace(views, semi_positives=Positives.unknown(3))
    with pytest.raises(InputError, match="offsets_px"):
        replace(views, offsets_px=np.zeros((4, 2)))
    with pytest.raises(InputError, match="at least one"):
        replace(views, satellite=ArrayImages((), np.zeros((0, 3, 2, 2), np.uint8)), positives=Positives.unknown(4))


def test_unlabelled_means_unlabelled():
    views = trees.vigor_city(1)
    hidden = views.without_labels()
    assert all(hidden.positives[i] is None for i in range(5))
    assert hidden.semi_positives is None
    assert hidden.offsets_px is None
    assert "hidden" in hidden.note
    assert hidden.data_id() != views.data_id()
    assert hidden.ground is views.ground


def test_a_part_of_the_ground_images_keeps_every_tile():
    views = trees.vigor_city(1)
    part = views.take_ground([4, 0])
    assert part.ground.ids == (views.ground.ids[4], views.ground.ids[0])
    assert len(part.satellite) == 8
    assert part.positives[0].tolist() == views.positives[4].tolist()
    assert np.array_equal(part.offsets_px[1], views.offsets_px[0])
    assert part.ground.positions.values[0].tolist() == views.ground.positions.values[4].tolist()


def test_image_sets_refuse_repeated_ids_and_wrong_arrays(tmp_path):
    with pytest.raises(InputError, match="repeated, first 'a'"):
        ArrayImages(("a", "b", "a"), np.zeros((3, 3, 2, 2), np.uint8))
    with pytest.raises(InputError, match="uint8"):
        ArrayImages(("a",), np.zeros((1, 3, 2, 2), np.float32))
    with pytest.raises(InputError, match="uint8"):
        ArrayImages(("a",), np.zeros((1, 2, 2, 3), np.uint8))
    with pytest.raises(InputError, match="positions"):
        ArrayImages(("a",), np.zeros((1, 3, 2, 2), np.uint8), Positions(np.zeros((2, 2)), Metres("x")))
    with pytest.raises(InputError, match="paths"):
        FileImages(str(tmp_path), ("a", "b"), ("a.jpg",))


def test_arrays_may_be_memory_maps(tmp_path):
    array = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, (2, 3, 8, 16))
    array[1] = 7
    images = ArrayImages(("a", "b"), np.load(tmp_path / "a.npy", mmap_mode="r"))
    assert images.read(1).unique().tolist() == [7]
    assert tuple(images.read(0, (4, 4)).shape) == (3, 4, 4)
    assert images.subset([1]).read(0).unique().tolist() == [7]
    assert images.fingerprint() == ArrayImages(("a", "b"), array).fingerprint()
    array[0] = 1
    assert images.fingerprint() != ArrayImages(("a", "c"), array).fingerprint()


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_and_whole(workers, tmp_path):
    _, root = trees.cvusa(tmp_path / "set")
    from ucvgl.data import read_cvusa

    views = read_cvusa(root, "train")
    order = [5, 0, 3, 3, 1]
    got = list(batches(views.ground, (8, 16), 2, order, workers))
    assert torch.cat([i for i, _ in got]).tolist() == order
    assert [len(x) for _, x in got] == [2, 2, 1]
    for indices, pixels in got:
        assert pixels.dtype == torch.uint8
        assert tuple(pixels.shape[1:]) == (3, 8, 16)
        for i, one in zip(indices, pixels, strict=True):
            assert torch.equal(one, views.ground.read(int(i), (8, 16)))
    pairs = views.positives.pairs()
    for which, ground, satellite in pair_batches(views.ground, views.satellite, pairs, (8, 32), (16, 16), 4, workers):
        assert torch.equal(which[:, 0], which[:, 1])
        assert ground.shape[0] == satellite.shape[0] == len(which)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_stops_the_batches_with_its_name(workers, tmp_path):
    _, root = trees.cvusa(tmp_path / "set")
    from ucvgl.data import read_cvusa

    path = root / "streetview/panos/0000004.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    views = read_cvusa(root, "train")
    with pytest.raises(InputError, match=r"0000004\.jpg"):
        list(batches(views.ground, (8, 16), 2, None, workers))


def test_decoding_turns_modes_and_orientation_into_rgb(tmp_path):
    colour = np.zeros((6, 10, 3), np.uint8)
    colour[:3, :5] = (250, 10, 10)
    image = Image.fromarray(colour)
    for mode, name in (
        ("L", "a.png"),
        ("RGBA", "b.png"),
        ("P", "c.png"),
        ("CMYK", "d.jpg"),
        ("1", "e.png"),
        ("LA", "f.png"),
    ):
        image.convert(mode).save(tmp_path / name)
        assert tuple(decode_file(str(tmp_path / name)).shape) == (3, 6, 10)
    Image.fromarray((np.arange(60, dtype=np.uint16) * 1000).reshape(6, 10)).save(tmp_path / "g.png")
    assert decode_file(str(tmp_path / "g.png"))[0, 5, 9] == 59_000 >> 8
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held a quarter clockwise
    image.save(tmp_path / "h.jpg", exif=exif, quality=95)
    turned = decode_file(str(tmp_path / "h.jpg"))
    assert tuple(turned.shape) == (3, 10, 6)
    assert turned[0, 2, 4] > 150 > turned[0, 2, 1]
    assert tuple(decode_file(str(tmp_path / "h.jpg"), (5, 3)).shape) == (3, 5, 3)


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp", "bmp"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.4, 0.9])
@pytest.mark.parametrize("size", [None, (4, 8)])
def test_truncated_files_never_become_half_images(ending, keep, size, tmp_path):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(path)
    raw = path.read_bytes()
    assert tuple(decode_file(str(path), size).shape) == (3, *(size or (40, 60)))
    path.write_bytes(raw[: int(len(raw) * keep)])
    with pytest.raises(InputError, match=rf"a\.{ending}"):
        decode_file(str(path), size)


def test_an_image_bomb_is_refused(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((50, 50), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setattr("ucvgl.data.decoding.MAX_PIXELS", 2_000)
    with pytest.raises(InputError, match="50 x 50"):
        decode_file(str(tmp_path / "a.png"))


def test_views_of_arrays_are_cheap_to_make():
    views = Views("x", "y", trees.images(3, "a"), trees.images(2, "b"), Positives.of([[0], [1], [0, 1]]))
    assert views.positives[2].tolist() == [0, 1]


def test_other_pictures_under_the_same_names_have_another_id(tmp_path):
    """Two folders of one layout: what was computed on the one must not be found for the other."""
    sets = []
    for name, value in (("one", 10), ("two", 200), ("copy", 10)):
        (tmp_path / name).mkdir()
        for i in range(20):
            Image.fromarray(np.full((8, 8, 3), value + i, np.uint8)).save(tmp_path / name / f"{i}.png")
        sets.append(FileImages(str(tmp_path / name), [str(i) for i in range(20)], [f"{i}.png" for i in range(20)]))
    one, two, copy = (images.fingerprint() for images in sets)
    assert one == copy != two
    (tmp_path / "one" / "0.png").unlink()
    assert sets[0].fingerprint() != one
