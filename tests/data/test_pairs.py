"""Own pairs: by equal names, in parts that share none."""

import dataset_trees as trees
import pytest

from ucvgl.data import detect_layout, open_dataset
from ucvgl.errors import InputError


def test_equal_names_are_pairs(tmp_path):
    for i in range(3):
        trees.jpeg(tmp_path / "drone" / "deeper" / f"{i}.JPG")
        trees.jpeg(tmp_path / "satellite" / "deeper" / f"{i + 1}.jpeg")
    assert detect_layout(tmp_path) == "pairs"
    data = open_dataset("auto", tmp_path)
    assert [row.tolist() for row in data.positives] == [[], [0], [1]]
    assert "1 of 3 queries have no right image" in data.note
    other = open_dataset("pairs", tmp_path, query="satellite", gallery="drone")
    assert other.positives.best().tolist() == [1, 2, -1]
    with pytest.raises(InputError, match="at least 20 pairs"):
        open_dataset("pairs", tmp_path, "train")
    trees.jpeg(tmp_path / "drone" / "deeper" / "2.png")
    with pytest.raises(InputError, match="every name once"):
        open_dataset("pairs", tmp_path)


def test_no_equal_names(tmp_path):
    trees.jpeg(tmp_path / "drone" / "a.jpg")
    trees.jpeg(tmp_path / "satellite" / "b.jpg")
    with pytest.raises(InputError, match="a, b, none equal"):
        open_dataset("pairs", tmp_path)
    with pytest.raises(InputError, match="one of all, train, val, test"):
        open_dataset("pairs", tmp_path, "dev")
