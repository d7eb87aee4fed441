"""Two folders numbered alike: hits by number, unequal folders, gaps, steps, sizes, and parts of the line."""

import dataset_trees as trees
import pytest
import torch

from ucvgl.data import detect_layout, open_dataset, parts
from ucvgl.data.decoding import batches
from ucvgl.errors import InputError
from ucvgl.metrics import retrieval_measures


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
    assert data.query.positions.values[4].tolist() == [4, 0]
    assert "at most 2 frames" in data.note


def test_unequal_folders_and_gaps(tmp_path):
    frames(frames(tmp_path, "query", [0, 1, 2, 3, 20]), "ref", [*range(3), *range(8, 14)])
    data = open_dataset("frames", tmp_path, frames=1)
    assert by_number(data) == {0: [0, 1], 1: [1, 0, 2], 2: [2, 1], 3: [2], 20: []}
    assert "1 of 5 queries have no right image; recall leaves them out" in data.note
    query, gallery = (torch.eye(9)[: len(side)] for side in (data.query, data.gallery))
    assert retrieval_measures(query, gallery, data.positives.pairs())["left_out"] == 1  # as the note says


def test_every_tenth_frame_counts_as_one(tmp_path):
    for side in ("Winter", "Summer"):
        frames(tmp_path, side, range(10, 310, 10), "images-{:05d}.png")
    assert detect_layout(tmp_path) == "nordland"
    data = open_dataset("nordland", tmp_path)
    assert data.query.paths[0].startswith("Winter/")
    assert by_number(data)[50] == [50, 40, 60, 30, 70]
    assert "steps of 10" in data.note


def test_training_and_test_part_share_no_frame_and_no_hit(tmp_path):
    for side in ("day_right", "night_right", "day_left"):
        frames(tmp_path, side, range(40), "Image{:03d}.jpg")
    assert detect_layout(tmp_path) == "gardens_point"
    assert parts("gardens_point", tmp_path) == ("train", "test")
    train, test = (open_dataset("gardens_point", tmp_path, split) for split in ("train", "test"))
    assert train.query.ids[0].startswith("night_right")
    assert (list(by_number(train)), list(by_number(test))) == (list(range(28)), list(range(30, 40)))
    assert not {j for row in by_number(train).values() for j in row} & set(by_number(test))
    other = open_dataset("gardens_point", tmp_path, query="day_left")
    assert other.query.ids[0].startswith("day_left")
    assert other.gallery.ids[0].startswith("day_right")


def test_sizes_may_differ(tmp_path):
    frames(frames(tmp_path, "query", [0, 1]), "query", [2, 3], size=(4, 5))
    data = open_dataset("frames", frames(tmp_path, "ref", range(4)))
    assert [tuple(x.shape) for _, x in batches(data.query, (3, 4), 8, workers=0)] == [(4, 3, 3, 4)]


def test_what_is_no_line_of_frames(tmp_path):
    frames(frames(tmp_path / "a", "query", [0, 1]), "ref", [0, 1])
    trees.jpeg(tmp_path / "a" / "ref" / "first.jpg")
    with pytest.raises(InputError, match=r"first\.jpg"):
        open_dataset("frames", tmp_path / "a")
    frames(frames(tmp_path / "b", "query", [0, 1]), "ref", [0, 1])
    frames(tmp_path / "b", "query", [1], "frame{}.jpg")
    with pytest.raises(InputError, match="every number once"):
        open_dataset("frames", tmp_path / "b")
    (frames(tmp_path / "c", "query", [0]) / "ref").mkdir()
    with pytest.raises(InputError, match="frames with a number in their names"):
        open_dataset("frames", tmp_path / "c")
    with pytest.raises(InputError, match="query/ref"):
        open_dataset("frames", tmp_path)
    with pytest.raises(InputError, match="too short"):
        open_dataset("frames", frames(frames(tmp_path / "d", "query", [0, 1]), "ref", [0, 1]), "test")
