"""The readers on real sample data (UCVGL_SAMPLES); skipped, with the reason, where it is absent."""

import shutil

import pytest

from ucvgl.data import open_dataset, parts
from ucvgl.data.check import PUBLISHED
from ucvgl.data.files import columns
from ucvgl.errors import InputError
from ucvgl.paths import samples


def sample(*parts):
    path = samples().joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no sample data: {path} is absent (set UCVGL_SAMPLES)")
    return path


@pytest.fixture
def cvusa(tmp_path):
    """The five CVUSA pairs under the list's name; the list itself as it came, three columns."""
    root = tmp_path / "cvusa"
    shutil.copytree(sample("cvusa", "imgs"), root / "imgs")
    (root / "splits").mkdir()
    shutil.copyfile(sample("cvusa", "data.csv"), root / "splits" / "val-19zl.csv")
    return root


def test_cvusa_pairs(cvusa):
    views = open_dataset("cvusa", cvusa, "val")
    assert views.query.ids == tuple(f"ground{i}" for i in range(5))
    assert views.gallery.ids == tuple(f"aerial{i}" for i in range(5))
    assert all(tuple(views.query.read(i).shape) == (3, 224, 1232) for i in range(5))
    assert all(tuple(views.gallery.read(i).shape) == (3, 750, 750) for i in range(5))
    assert views.query.positions is None


def test_cvusa_lists_of_another_release(tmp_path):
    """6,647 and 2,215 rows of three columns; the train file has no newline at its end, the val file Windows line ends."""
    for split, count in (("train", 6_647), ("val", 2_215)):
        path = sample("cvusa", "splits", f"{split}-19zl.csv")
        rows = columns(path, ",", (2, 3))
        assert len(rows) == count
        assert rows[0][1][0].startswith("bingmap/input")  # not bingmap/19
    root = tmp_path / "cvusa"
    shutil.copytree(sample("cvusa", "splits"), root / "splits")
    with pytest.raises(InputError, match=r"train-19zl\.csv: .*13294 of 13294"):
        open_dataset("cvusa", root, "train")
    # with the files there, however empty, the lists read, and no pair is lost for want of a newline
    train = root / "splits" / "train-19zl.csv"
    train.write_bytes(b"\n".join(train.read_bytes().split(b"\n")[-99:]))
    for _, (tile, pano, _) in columns(train, ",", (3,)):
        for name in (tile, pano):
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).touch()
    views = open_dataset("cvusa", root, "train")
    assert len(views.query) == 99
    assert views.query.ids[-1] == "input0030142"
    with pytest.raises(InputError, match=r"input0041993\.jpg"):
        views.query.read(0)


def test_frames():
    for name, count, sizes in (("corridor", 111, [(120, 160)] * 2), ("gardens_point", 200, [(360, 640), (540, 960)])):
        data = open_dataset(name, sample(name))
        assert (len(data), len(data.gallery)) == (count, count)
        assert [tuple(side.read(count - 1).shape[1:]) for side in (data.query, data.gallery)] == sizes
        assert sorted(data.positives[50]) == [48, 49, 50, 51, 52]
    assert open_dataset("auto", sample("gardens_point")).note.startswith("night_right in day_right")
    root = sample("nordland")
    train, test = (open_dataset("auto", root, split) for split in parts("nordland", root))
    assert len(train) + len(test) + 2 == 3_576  # two frames lie within reach of both
    assert "steps of 10" in test.note
    assert sorted(train.positives[9]) == [7, 8, 9, 10, 11]


def test_university_name_lists_are_the_trees_the_reader_expects(tmp_path):
    """The official lists name 701 tile queries and 51,355 drone images of 951 buildings: the published counts."""
    queries = columns(sample("university1652", "query_name.txt"), None, (1,))
    gallery = columns(sample("university1652", "gallery_name.txt"), None, (1,))
    assert (len(queries), len(gallery)) == tuple(PUBLISHED["university1652"]["counts"]["test satellite2drone"])
    buildings = {cells[0].split("/")[-2] for _, cells in gallery}
    assert len(buildings) == PUBLISHED["university1652"]["counts"]["test drone2satellite"][1]
    # build the part of the tree that names three buildings, from the real names, and read it
    for rows in (queries, gallery):
        for _, (name,) in rows:
            path = tmp_path / name.removeprefix("./data/")
            if path.parent.name in ("0000", "0001", "0003", "0007"):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    views = open_dataset("university1652", tmp_path, direction="satellite2drone")
    asked = [path.split("/")[-2] for path in views.query.paths]
    assert asked == [b for b in ("0000", "0001", "0003", "0007") if any(f"/{b}/" in c[0] for _, c in queries)]
    # 951 buildings times 54 is one less than the published 51,355: building 0000 has 55 drone images
    assert [len(views.positives[i]) for i in range(len(asked))] == [55] + [54] * (len(asked) - 1)
