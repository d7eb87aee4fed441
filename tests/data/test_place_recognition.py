"""Place recognition by names with `@`: written and read back, frames, MSLS's protocols."""

import re
from dataclasses import replace

import dataset_trees as trees
import numpy as np
import pytest

from ucvgl.data import open_dataset, parts
from ucvgl.data import write as w
from ucvgl.data.place_recognition import fields
from ucvgl.errors import InputError


def test_round_trip(tmp_path):
    splits, root = trees.vpr(tmp_path / "set")
    assert parts("vpr", root) == ("train", "val", "test")
    for split, written in splits.items():
        read = open_dataset("vpr", root, split)
        for side in ("query", "gallery"):
            order = [fields(i)[7] for i in getattr(read, side).ids]
            index = [order.index(i) for i in getattr(written, side).ids]  # names sort by position, not by id
            assert np.array_equal(getattr(read, side).positions.values[index], getattr(written, side).positions.values)
        names = [fields(i)[7] for i in read.gallery.ids]
        for i, query in enumerate(read.query.ids):
            row = written.positives[written.query.ids.index(fields(query)[7])]
            assert [names[j] for j in read.positives[i]] == [written.gallery.ids[j] for j in row]
        without = sum(len(row) == 0 for row in written.positives)
        assert (f"{without} of 5 queries" in read.note) == (without > 0)
    first = min(read.query.ids, key=lambda i: fields(i)[7])
    assert re.fullmatch(r"@0\d{6}\.\d\d@\d{7}\.\d\d@@@@@q00000@@@@@@@@\.jpg", first)


def test_nordland_counts_frames(tmp_path):
    root = tmp_path / "set"
    for k in range(30):
        for side in ("database", "queries"):
            trees.jpeg(root / "images" / "test" / side / f"@0@{k * 25 / 10.5:07.1f}@@@@@{k}@@@@@@@@.jpg")
    read = open_dataset("nordland", root)
    assert "10 frames" in read.note
    assert sorted(read.positives[15]) == list(range(5, 26))
    assert sorted(open_dataset("nordland", root, frames=1).positives[15]) == [14, 15, 16]
    # the made-up positions say the same with 25 m: 10 frames are 23.8 m
    assert sorted(open_dataset("svox", root).positives[15]) == list(range(5, 26))


def test_degrees_in_place_of_metres_are_refused(tmp_path):
    for side in ("database", "queries"):
        trees.jpeg(tmp_path / "images" / "test" / side / "@46.2@7.4@@@@@a@@@@@@@@.jpg")
    with pytest.raises(InputError, match="look like degrees"):
        open_dataset("vpr", tmp_path)


@pytest.mark.parametrize("count", [740, 20])
def test_msls_says_its_protocol(count, tmp_path):
    data = trees.paired("msls", "val", count, frame="metres")
    data = replace(data, query=trees.images(count, "q", 0, 2, 2, data.query.positions), gallery=trees.images(
        3, "d", 0, 2, 2, data.gallery.positions.take([0, 1, 2])), positives=trees.Positives.of([[]] * count))  # fmt: skip
    read = open_dataset("msls", w.write_vpr({"val": data}, tmp_path / "set"), "val")
    assert (f"MSLS protocol of {count} queries" in read.note) == (count == 740)
    assert ("neither published protocol" in read.note) == (count == 20)
