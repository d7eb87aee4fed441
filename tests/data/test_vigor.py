"""VIGOR: written and read back; corrected labels; the folders of Sample4Geo."""

import dataset_trees as trees
import numpy as np
import pytest

from ucvgl.data import open_dataset


@pytest.mark.parametrize("corrected", [False, True])
def test_round_trip(corrected, tmp_path):
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


def test_corrected_labels_come_first_and_may_lack_the_list_of_tiles(tmp_path):
    _, root = trees.vigor(tmp_path / "set", corrected=True)
    path = root / "splits__corrected" / "Chicago" / "pano_label_balanced__corrected.txt"
    before = open_dataset("vigor", root, "test", area="cross")
    rows = path.read_text().split("\n")
    path.write_text("\n".join(rows[1:]))
    (root / "splits__corrected" / "Chicago" / "satellite_list.txt").unlink()
    assert open_dataset("vigor", root, "test", area="cross").query.ids == before.query.ids[:5] + before.query.ids[6:]


def test_folders_of_sample4geo(tmp_path):
    _, root = trees.vigor(tmp_path / "set")
    plain = open_dataset("vigor", root)
    picture = plain.gallery.read(0)
    for city in ("NewYork", "Seattle", "SanFrancisco", "Chicago"):
        for kind, name in (("ground", "panorama"), ("satellite", "satellite")):
            (root / kind).mkdir(exist_ok=True)
            (root / city / name).rename(root / kind / city)
    moved = open_dataset("auto", root)
    assert moved.query.ids == plain.query.ids
    assert (moved.gallery.read(0) == picture).all()
