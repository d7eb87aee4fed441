"""CVACT: written and read back; the MAT file as the official code indexes it; hits within five metres."""

from dataclasses import replace

import dataset_trees as trees
import numpy as np
import scipy.io

from ucvgl.data import open_dataset
from ucvgl.data import write as w


def test_round_trip(tmp_path):
    splits, root = trees.cvact(tmp_path / "set")
    data = scipy.io.loadmat(root / "ACT_data.mat")
    for key, (split, written) in zip(("trainSet", "valSet", "valSetAll"), splits.items(), strict=True):
        read = open_dataset("cvact", root, split)
        assert read.query.ids == written.query.ids == read.gallery.ids
        assert trees.same(read.query.positions, written.query.positions)
        assert read.positives.best().tolist() == list(range(len(written)))
        assert trees.same_pictures(read.query, written.query)
        assert trees.same_pictures(read.gallery, written.gallery)
        assert ("5 m" in read.note) == (split == "test")
        index = data[key][0][0][1] - 1  # the published readers take the second field
        assert data["panoIds"][index].squeeze().tolist() == list(written.query.ids)


def test_hits_within_five_metres(tmp_path):
    """Panoramas 0, 4 and 8 m along a street: the middle one has all three tiles right, its own first."""
    data = trees.paired("cvact", "test", 4, 0, "metres", "x")
    places = data.query.positions.values[0] + np.array([[0, 0], [0, 4], [0, 8], [500, 0]], float)
    places = trees.Positions(places, trees.Metres("UTM"))
    data = replace(data, query=replace(data.query, positions=places), gallery=replace(data.gallery, positions=places))
    train = trees.paired("cvact", "train", 4, 1, "metres", "t")
    root = w.write_cvact({"train": train, "val": data, "test": data}, tmp_path / "set")
    assert [row.tolist() for row in open_dataset("cvact", root, "test").positives] == [[0, 1], [1, 0, 2], [2, 1], [3]]
    assert open_dataset("cvact", root, "val").positives.indices.tolist() == [0, 1, 2, 3]
