"""CVUSA, CVACT, VIGOR, University-1652 and SUES-200: written and read back; the quirks of each layout."""

from dataclasses import replace

import dataset_trees as trees
import numpy as np
import pytest
import scipy.io

from ucvgl.data import open_dataset
from ucvgl.data import write as w
from ucvgl.errors import InputError
from ucvgl.positions import Metres, Positions

SIDES = ("query", "gallery")


@pytest.mark.parametrize("columns", [2, 3])
def test_cvusa(columns, tmp_path):
    """The official lists name an annotation in a third column."""
    splits, root = trees.cvusa(tmp_path / "set")
    for path in (root / "splits").iterdir():
        path.write_text("".join(",".join(row.split(",")[:columns]) + "\n" for row in path.read_text().split()))
    start = 0
    for split, written in splits.items():
        read = open_dataset("cvusa", root, split)
        assert read.query.ids == tuple(f"{start + i + 1:07d}" for i in range(len(written)))
        assert trees.same(read.positives, written.positives)
        for side in SIDES:
            assert trees.same(getattr(read, side).positions, getattr(written, side).positions)
            assert trees.same_pictures(getattr(read, side), getattr(written, side))
        start += len(written)


def test_cvusas_lists(tmp_path):
    """No final newline, Windows line ends, a byte-order mark, other folders, empty cells, no positions file."""
    _, root = trees.cvusa(tmp_path / "set")
    path = root / "splits" / "val-19zl.csv"
    text, plain = path.read_text(), open_dataset("cvusa", root, "val")
    for changed in (text.rstrip("\n"), text.replace("\n", "\r\n"), "\ufeff" + text, text + "\n\n"):
        path.write_bytes(changed.encode())
        assert open_dataset("cvusa", root, "val").digest() == plain.digest()
    (root / "bingmap" / "19").rename(root / "tiles")
    path.write_text(text.replace("bingmap/19/", "tiles/"))
    assert open_dataset("cvusa", root, "val").gallery.ids == plain.gallery.ids
    places = root / "split_locations" / "all.csv"
    rows = places.read_text().split("\n")
    places.write_text("\n".join([*rows[:7], ",,,,", "", *rows[9:]]))
    assert open_dataset("cvusa", root, "val").query.positions.known.tolist() == [True, False, False, True]
    places.unlink()
    assert open_dataset("cvusa", root, "val").query.positions is None


def test_cvact(tmp_path):
    """The MAT file is as the official code indexes it: it takes the second field."""
    splits, root = trees.cvact(tmp_path / "set")
    data = scipy.io.loadmat(root / "ACT_data.mat")
    for key, (split, written) in zip(("trainSet", "valSet", "valSetAll"), splits.items(), strict=True):
        read = open_dataset("cvact", root, split)
        assert read.query.ids == written.query.ids == read.gallery.ids
        assert read.positives.best().tolist() == list(range(len(written)))
        assert trees.same(read.query.positions, written.query.positions)
        assert all(trees.same_pictures(getattr(read, side), getattr(written, side)) for side in SIDES)
        assert ("5 m" in read.note) == (split == "test")
        assert data["panoIds"][data[key][0][0][1] - 1].squeeze().tolist() == list(written.query.ids)


def test_cvacts_hits_within_five_metres(tmp_path):
    """Panoramas 0, 4 and 8 m along a street: the middle one has all three tiles right, its own first."""
    data = trees.paired("cvact", "test", 4, 0, "metres", "x")
    away = np.array([[0, 0], [0, 4], [0, 8], [500, 0]], float)
    places = Positions(data.query.positions.values[0] + away, Metres("UTM"))
    data = replace(data, query=replace(data.query, positions=places), gallery=replace(data.gallery, positions=places))
    train = trees.paired("cvact", "train", 4, 1, "metres", "t")
    root = w.write_cvact({"train": train, "val": data, "test": data}, tmp_path / "set")
    assert [row.tolist() for row in open_dataset("cvact", root, "test").positives] == [[0, 1], [1, 0, 2], [2, 1], [3]]
    assert open_dataset("cvact", root, "val").positives.indices.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("corrected", [False, True])
def test_vigor(corrected, tmp_path):
    cities, root = trees.vigor(tmp_path / "set", corrected)
    train, test = open_dataset("vigor", root, "train"), open_dataset("vigor", root, "test")
    assert (len(train), len(test), len(test.gallery)) == (12, 8, 32)
    assert not set(train.query.ids) & set(test.query.ids)
    assert ("corrected" in train.note) == corrected
    cross = open_dataset("vigor", root, "test", area="cross")
    assert (len(cross), len(cross.gallery)) == (10, 16)
    for k, city in enumerate(("SanFrancisco", "Chicago")):
        written, rows, tiles = cities[city], slice(5 * k, 5 * k + 5), slice(8 * k, 8 * k + 8)
        assert cross.query.ids[rows][0].startswith(f"{city}/c")
        assert np.array_equal(cross.query.positions.values[rows], written.query.positions.values)
        assert np.array_equal(cross.gallery.positions.values[tiles], written.gallery.positions.values)
        for i in range(5):
            assert (cross.positives[5 * k + i] - 8 * k).tolist() == written.positives[i].tolist()
            assert (cross.semi_positives[5 * k + i] - 8 * k).tolist() == written.semi_positives[i].tolist()
    assert (cross.gallery.read(3) == cities["SanFrancisco"].gallery.read(3)).all()  # PNG tiles lose nothing


def test_vigor_in_the_folders_of_sample4geo(tmp_path):
    cities, root = trees.vigor(tmp_path / "set")
    plain = open_dataset("vigor", root)
    picture = plain.gallery.read(0)
    for city in cities:
        for kind, name in (("ground", "panorama"), ("satellite", "satellite")):
            (root / kind).mkdir(exist_ok=True)
            (root / city / name).rename(root / kind / city)
    moved = open_dataset("auto", root)
    assert moved.query.ids == plain.query.ids
    assert (moved.gallery.read(0) == picture).all()


@pytest.mark.parametrize("name", ["university1652", "sues200"])
def test_drones(name, tmp_path):
    """Both directions, distractors."""
    written, root = trees.LAYOUTS[name](tmp_path / "set")
    train, test = written if name == "university1652" else written[150]
    queried = [0, 2, 3] if name == "university1652" else [3, 4]
    per = len(test) // 5
    read = open_dataset(name, root, "test")
    assert (len(read), len(read.gallery)) == (per * len(queried), 5)
    assert read.positives.best().tolist() == np.repeat(queried, per).tolist()
    assert f"{5 - len(queried)} buildings of the gallery are distractors" in read.note
    assert trees.close(read.query.read(0), test.query.read(queried[0] * per))
    assert trees.same_pictures(read.gallery, test.gallery)
    back = open_dataset(name, root, "test", direction="satellite2drone")
    assert (len(back), len(back.gallery)) == (len(queried), 5 * per)
    assert [row.tolist() for row in back.positives] == [list(range(tile * per, tile * per + per)) for tile in queried]
    learn = open_dataset(name, root, "train")
    assert np.array_equal(learn.positives.indices, train.positives.indices)
    assert trees.same_pictures(learn.query, train.query)  # also: image 10 comes after image 9, not after image 1


def test_sues200s_heights(tmp_path):
    heights, root = trees.sues200(tmp_path / "set")
    for height in (150, 300):
        read = open_dataset("sues200", root, "train", height_m=height)
        assert trees.same_pictures(read.query, heights[height][0].query)
    with pytest.raises(InputError, match="no such folder"):
        open_dataset("sues200", root, "train", height_m=200)
    with pytest.raises(InputError, match="flown"):
        open_dataset("sues200", root, height_m=100)
    (root / "Testing").rename(root / "satellite-view")  # the training part alone is read; the archive as it came is not
    assert len(open_dataset("sues200", root, "train")) == 11
    with pytest.raises(InputError, match=r"the benchmark's own script .*holds: Training, satellite-view"):
        open_dataset("sues200", root, "test")
