"""University-1652 and SUES-200: written and read back, both directions, distractors."""

import dataset_trees as trees
import numpy as np
import pytest

from ucvgl.data import open_dataset
from ucvgl.errors import InputError


@pytest.mark.parametrize("name", ["university1652", "sues200"])
def test_round_trip(name, tmp_path):
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


def test_sues200_heights(tmp_path):
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
