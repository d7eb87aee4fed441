"""Place recognition: names with `@`, written and read back, MSLS's protocols; two folders numbered alike, in parts of the line."""

import re

import dataset_trees as trees
import numpy as np
import pytest
import torch

from ucvgl.data import detect_layout, open_dataset, parts
from ucvgl.data.place_recognition import fields, read_frames, without_dark
from ucvgl.data.prepare import Preparation, prepare
from ucvgl.errors import InputError
from ucvgl.metrics import retrieval_measures


def test_round_trip(tmp_path):
    splits, root = trees.vpr(tmp_path / "set")
    assert (detect_layout(root), parts("vpr", root)) == ("vpr", ("train", "val", "test"))
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
    root = trees.line(tmp_path / "set", 30)
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


def frames(root, side, numbers, name="{:07d}.jpg", size=(6, 8)):
    for number in numbers:
        trees.jpeg(root / side / name.format(number), trees.texture(*size, number))
    return root


def by_number(data):
    """{query's number: numbers of its hits}."""

    def number(name):
        return int("".join(c for c in name if c.isdigit()))

    names = data.gallery.ids
    return {number(q): [number(names[j]) for j in row] for q, row in zip(data.query.ids, data.positives, strict=True)}


def test_a_hit_is_within_so_many_frames(tmp_path):
    frames(frames(tmp_path, "query", range(6)), "ref", range(6))
    assert detect_layout(tmp_path) == "frames"
    data = open_dataset("corridor", tmp_path)
    assert (data.name, data.split) == ("corridor", "all")
    assert by_number(data)[0] == [0, 1, 2]
    assert by_number(data)[3] == [3, 2, 4, 1, 5]
    assert by_number(open_dataset("sped", tmp_path))[3] == [3]
    assert by_number(open_dataset("frames", tmp_path, frames=1))[5] == [5, 4]
    assert data.query.positions.values[4].tolist() == [40, 0]  # 10 m a frame, so that VG-SSL's distances fit
    assert "at most 2 frames" in data.note


def test_unequal_folders_and_gaps(tmp_path):
    frames(frames(tmp_path, "query", [0, 1, 2, 3, 20]), "ref", [*range(3), *range(8, 14)])
    data = open_dataset("frames", tmp_path, frames=1)
    assert by_number(data) == {0: [0, 1], 1: [1, 0, 2], 2: [2, 1], 3: [2], 20: []}
    assert "1 of 5 queries have no right image; recall leaves them out" in data.note
    query, gallery = (torch.eye(9)[: len(side)] for side in (data.query, data.gallery))
    assert retrieval_measures(query, gallery, data.positives.pairs())["left_out"] == 1  # as the note says


def test_training_and_test_part_share_no_frame_and_no_hit(tmp_path):
    for side in ("day_right", "night_right", "day_left"):
        frames(tmp_path, side, range(40), "Image{:03d}.jpg")
    assert detect_layout(tmp_path) == "gardens_point"
    assert parts("gardens_point", tmp_path) == ("train", "test")
    train, test = (open_dataset("gardens_point", tmp_path, split) for split in ("train", "test"))
    assert train.query.ids[0].startswith("night_right")
    assert (list(by_number(train)), list(by_number(test))) == (list(range(28)), list(range(30, 40)))
    assert not {j for row in by_number(train).values() for j in row} & set(by_number(test))


def test_frames_that_are_dark_in_either_season_are_left_out_of_both(tmp_path):
    frames(frames(tmp_path, "winter", range(6)), "summer", range(6))
    for side, number in (("winter", 1), ("summer", 4)):
        trees.jpeg(tmp_path / side / f"{number:07d}.jpg", np.full((6, 8, 3), 7, np.uint8))
    data = without_dark(prepare(read_frames(tmp_path), Preparation((6, 8), (6, 8))))
    assert by_number(data) == {0: [0, 2], 2: [2, 3, 0], 3: [3, 2, 5], 5: [5, 3]}
    assert "2 frames too dark" in data.note


def test_what_is_no_line_of_frames(tmp_path):
    frames(frames(tmp_path / "a", "query", [0, 1]), "ref", [0, 1])
    trees.jpeg(tmp_path / "a" / "ref" / "first.jpg")
    with pytest.raises(InputError, match=r"first\.jpg"):
        open_dataset("frames", tmp_path / "a")
    frames(frames(tmp_path / "b", "query", [0, 1]), "ref", [0, 1])
    frames(tmp_path / "b", "query", [1], "frame{}.jpg")
    with pytest.raises(InputError, match="every id once, found 1 repeated, first 'frame 1'"):
        open_dataset("frames", tmp_path / "b")
    with pytest.raises(InputError, match="query/ref"):
        open_dataset("frames", tmp_path)
    with pytest.raises(InputError, match="too short"):
        open_dataset("frames", frames(frames(tmp_path / "d", "query", [0, 1]), "ref", [0, 1]), "test")
