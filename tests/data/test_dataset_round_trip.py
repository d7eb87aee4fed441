"""Written into a layout and read back: the same pairs, ids, positions and pictures; and the official lists' quirks."""

import re
from dataclasses import replace

import dataset_trees as trees
import numpy as np
import pytest
import scipy.io

from ucvgl.data import detect_layout, open_dataset, read_cvact, read_cvusa, read_vigor
from ucvgl.data import write as w
from ucvgl.data.place_recognition import fields
from ucvgl.errors import InputError
from ucvgl.positions import to_utm


def close(a, b, tolerance=12):
    """JPEG keeps smooth pictures within a few levels."""
    return abs(a.int() - b.int()).float().mean() < tolerance


def same_pictures(read, written):
    return all(close(read.read(i), written.read(i)) for i in range(len(written)))


@pytest.mark.parametrize("name", trees.LAYOUTS)
def test_layouts_are_recognised(name, tmp_path):
    trees.LAYOUTS[name](tmp_path / "set")
    assert detect_layout(tmp_path / "set") == name
    views = open_dataset("auto", tmp_path / "set")
    assert len(views.ground)
    assert len(views.positives) == len(views.ground)
    assert views.data_id() == open_dataset("auto", tmp_path / "set").data_id()


@pytest.mark.parametrize("columns", [2, 3])
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_cvusa(columns, ending, tmp_path):
    splits, root = trees.cvusa(tmp_path / "set", columns=columns, ending=ending)
    start = 0
    for split, written in splits.items():
        read = read_cvusa(root, split)
        assert read.ground.ids == tuple(f"{start + i + 1:07d}" for i in range(len(written.ground)))
        assert read.positives.same_as(written.positives)
        assert read.ground.positions.same_as(written.ground.positions)
        assert read.satellite.positions.same_as(written.satellite.positions)
        assert same_pictures(read.ground, written.ground)
        assert same_pictures(read.satellite, written.satellite)
        if ending == "png":
            assert all((read.ground.read(i) == written.ground.read(i)).all() for i in range(len(written.ground)))
        start += len(written.ground)


def test_cvusa_list_quirks(tmp_path):
    """No final newline, Windows line ends, a byte-order mark, other folders, no positions file."""
    _, root = trees.cvusa(tmp_path / "set")
    path = root / "splits" / "val-19zl.csv"
    text = path.read_text()
    plain = read_cvusa(root, "val")
    for changed in (text.rstrip("\n"), text.replace("\n", "\r\n"), "\ufeff" + text, text + "\n\n"):
        path.write_bytes(changed.encode())
        assert read_cvusa(root, "val").data_id() == plain.data_id()
    (root / "bingmap" / "19").rename(root / "tiles")
    path.write_text(text.replace("bingmap/19/", "tiles/"))
    assert read_cvusa(root, "val").satellite.ids == plain.satellite.ids
    (root / "split_locations" / "all.csv").unlink()
    assert read_cvusa(root, "val").ground.positions is None


def test_cvact(tmp_path):
    splits, root = trees.cvact(tmp_path / "set")
    for split, written in splits.items():
        read = read_cvact(root, split)
        assert read.ground.ids == written.ground.ids == read.satellite.ids
        assert np.array_equal(read.ground.positions.values, written.ground.positions.values)
        assert np.array_equal(read.positives.best(), np.arange(len(written.ground)))
        assert same_pictures(read.ground, written.ground)
        assert same_pictures(read.satellite, written.satellite)
        assert ("5 m" in read.note) == (split == "test")


def test_cvact_mat_is_as_the_official_code_indexes_it(tmp_path):
    splits, root = trees.cvact(tmp_path / "set")
    data = scipy.io.loadmat(root / "ACT_data.mat")
    for key, split in (("trainSet", "train"), ("valSet", "val"), ("valSetAll", "test")):
        index = data[key][0][0][1] - 1  # the published readers take the second field
        assert data["panoIds"][index].squeeze().tolist() == list(splits[split].ground.ids)
        assert data[key]["trainInd" if key == "trainSet" else "valInd"][0][0].shape == (len(splits[split].ground), 1)


def test_cvact_hits_within_five_metres(tmp_path):
    """Three panoramas 0, 4 and 8 m along a street: the middle one has all three tiles right, its own first."""
    views = trees.paired("cvact", "test", 4, 0, "metres", "x")
    places = views.ground.positions.values[0] + np.array([[0, 0], [0, 4], [0, 8], [500, 0]], float)
    places = trees.Positions(places, trees.Metres("UTM"))
    views = replace(
        views, ground=replace(views.ground, positions=places), satellite=replace(views.satellite, positions=places)
    )
    root = w.write_cvact({"val": views, "test": views}, tmp_path / "set")
    read = read_cvact(root, "test")
    assert [row.tolist() for row in map(read.positives.__getitem__, range(4))] == [[0, 1], [1, 0, 2], [2, 1], [3]]
    assert read_cvact(root, "val").positives.indices.tolist() == [0, 1, 2, 3]
    assert read_cvact(root, "test", hit_within_m=0).positives.indices.tolist() == [0, 1, 2, 3]
    assert "own tile" in read_cvact(root, "val").note


@pytest.mark.parametrize("corrected", [False, True])
def test_vigor(corrected, tmp_path):
    cities, root = trees.vigor(tmp_path / "set", corrected)
    train, test = read_vigor(root, "train"), read_vigor(root, "test")
    assert (len(train.ground), len(test.ground), len(test.satellite)) == (12, 8, 32)
    assert not set(train.ground.ids) & set(test.ground.ids)
    assert ("corrected" in train.note) == corrected
    cross = read_vigor(root, "test", area="cross")
    assert (len(cross.ground), len(cross.satellite)) == (10, 16)
    start = 0
    for city in ("SanFrancisco", "Chicago"):
        written = cities[city]
        rows = slice(start, start + 5)
        assert cross.ground.ids[rows][0].startswith(f"{city}/c")
        assert np.array_equal(cross.ground.positions.values[rows], written.ground.positions.values)
        tiles = 8 * (start // 5)
        assert np.array_equal(cross.satellite.positions.values[tiles : tiles + 8], written.satellite.positions.values)
        for i in range(5):
            assert (cross.positives[start + i] - tiles).tolist() == written.positives[i].tolist()
            assert (cross.semi_positives[start + i] - tiles).tolist() == written.semi_positives[i].tolist()
        assert np.array_equal(cross.offsets_px[rows], written.offsets_px)
        start += 5
    assert (cross.satellite.read(3) == cities["SanFrancisco"].satellite.read(3)).all()  # PNG tiles lose nothing
    # a shared tile: both panoramas name it
    assert cross.positives[0].tolist() == cross.positives[1].tolist()


def test_vigor_corrected_labels_come_first_and_either_can_be_asked_for(tmp_path):
    _, root = trees.vigor(tmp_path / "set", corrected=True)
    path = root / "splits__corrected" / "Chicago" / "pano_label_balanced__corrected.txt"
    first = path.read_text().split("\n")[0].split()
    path.write_text(path.read_text().replace(first[2], "1.25", 1))
    assert read_vigor(root, "test", "cross", labels="auto").offsets_px[5, 0, 0] == 1.25
    assert read_vigor(root, "test", "cross", labels="original").offsets_px[5, 0, 0] == float(first[2])
    (
        root / "splits__corrected" / "Chicago" / "satellite_list.txt"
    ).unlink()  # releases without it use the original list
    assert len(read_vigor(root, "test", "cross").satellite) == 16


def test_vigor_in_the_folders_of_sample4geo(tmp_path):
    _, root = trees.vigor(tmp_path / "set")
    plain = read_vigor(root)
    picture = plain.satellite.read(0)
    for city in ("NewYork", "Seattle", "SanFrancisco", "Chicago"):
        for kind, name in (("ground", "panorama"), ("satellite", "satellite")):
            (root / kind).mkdir(exist_ok=True)
            (root / city / name).rename(root / kind / city)
    assert read_vigor(root).ground.ids == plain.ground.ids
    assert (read_vigor(root).satellite.read(0) == picture).all()


@pytest.mark.parametrize("name", ["university1652", "sues200"])
def test_drone_layouts(name, tmp_path):
    written, root = trees.LAYOUTS[name](tmp_path / "set")
    train, test = written if name == "university1652" else written[150]
    queried = [0, 2, 3] if name == "university1652" else [3, 4]
    per = len(test.ground) // 5
    read = open_dataset(name, root, "test")
    assert (len(read.ground), len(read.satellite)) == (per * len(queried), 5)
    assert read.positives.best().tolist() == np.repeat(queried, per).tolist()
    assert f"{5 - len(queried)} buildings of the gallery are distractors" in read.note
    assert close(read.ground.read(0), test.ground.read(queried[0] * per))
    assert same_pictures(read.satellite, test.satellite)
    back = open_dataset(name, root, "test", direction="satellite2drone")
    assert (len(back.ground), len(back.satellite)) == (len(queried), 5 * per)
    for i, tile in enumerate(queried):
        assert back.positives[i].tolist() == list(range(tile * per, tile * per + per))
    learn = open_dataset(name, root, "train")
    assert np.array_equal(learn.positives.indices, train.positives.indices)
    assert same_pictures(learn.ground, train.ground)  # also: image 10 comes after image 9, not after image 1


def test_sues200_heights(tmp_path):
    heights, root = trees.sues200(tmp_path / "set")
    a, b = (open_dataset("sues200", root, "train", height_m=h) for h in (150, 300))
    assert same_pictures(a.ground, heights[150][0].ground)
    assert same_pictures(b.ground, heights[300][0].ground)
    with pytest.raises(InputError, match="no such folder"):
        open_dataset("sues200", root, "train", height_m=200)
    with pytest.raises(InputError, match="flown"):
        open_dataset("sues200", root, height_m=100)


def test_one_building_in_two_folders(tmp_path):
    _, root = trees.university1652(tmp_path / "set")
    read = open_dataset("university1652", root, "test", same_building=[("0003", "0005")])
    first = read.ground.ids.index("0003/image-01")
    assert [read.satellite.ids[i] for i in read.positives[first]] == ["0003/0003", "0005/0005"]
    second = read.ground.ids.index("0005/image-01")
    assert [read.satellite.ids[i] for i in read.positives[second]] == ["0005/0005", "0003/0003"]


def test_place_recognition(tmp_path):
    splits, root = trees.vpr(tmp_path / "set")
    for split, written in splits.items():
        read = open_dataset("vpr", root, split)
        for side in ("ground", "satellite"):
            order = [fields(i)[7] for i in getattr(read, side).ids]
            index = [order.index(i) for i in getattr(written, side).ids]  # names sort by position, not by id
            assert np.array_equal(getattr(read, side).positions.values[index], getattr(written, side).positions.values)
        names = [fields(i)[7] for i in read.satellite.ids]
        for i, query in enumerate(read.ground.ids):
            row = written.positives[written.ground.ids.index(fields(query)[7])]
            assert [names[j] for j in read.positives[i]] == [written.satellite.ids[j] for j in row]
        without = sum(len(written.positives[i]) == 0 for i in range(5))
        assert (f"{without} of 5 queries" in read.note) == (without > 0)
    assert re.fullmatch(
        r"@0\d{6}\.\d\d@\d{7}\.\d\d@@@@@q00000@@@@@@@@\.jpg", sorted(read.ground.ids, key=lambda i: fields(i)[7])[0]
    )


def test_place_recognition_from_degrees_has_the_fields_of_the_official_names(tmp_path):
    views = trees.paired("vpr", "test", 3)
    root = w.write_vpr({"test": views}, tmp_path / "set")
    read = open_dataset("vpr", root)
    assert read.positives.best().tolist() == [0, 1, 2]
    cells = fields(read.ground.ids[0])
    assert len(cells) == 16
    assert cells[3:5] == ["35", "V"]
    assert cells[5].startswith("060.1")
    assert cells[6].startswith("0024.9")
    east, north, _, _ = to_utm(*views.ground.positions.values.T)
    assert read.ground.positions.values == pytest.approx(np.stack([east, north], 1)[np.argsort(east)], abs=0.006)


def test_nordland_counts_frames(tmp_path):
    views = trees.paired("nordland", "test", 30, frame="metres")
    root = w.write_vpr({"test": views}, tmp_path / "set", frames=True)
    read = open_dataset("nordland", root)
    assert "10 frames" in read.note
    assert sorted(read.positives[0]) == list(range(11))
    assert sorted(read.positives[15]) == list(range(5, 26))
    assert sorted(open_dataset("nordland", root, frames=1).positives[15]) == [14, 15, 16]
    # the made-up positions say the same with 25 m: 10 frames are 23.8 m
    assert sorted(open_dataset("vpr", root).positives[15]) == list(range(5, 26))


@pytest.mark.parametrize("count", [740, 750, 20])
def test_msls_says_its_protocol(count, tmp_path):
    views = trees.paired("msls", "val", 760 if count > 20 else 30, frame="metres")
    views = replace(views, ground=trees.images(len(views.ground), "q", 0, 2, 2, views.ground.positions))
    views = replace(views, satellite=trees.images(3, "d", 0, 2, 2, views.satellite.positions.take([0, 1, 2])),
                    positives=trees.Positives.of([[]] * len(views.ground)))  # fmt: skip
    root = w.write_vpr({"val": views}, tmp_path / "set")
    listed = tmp_path / "queries.txt"
    listed.write_text("\n".join(views.ground.ids[:count]))
    read = open_dataset("msls", root, "val", queries_list=listed)
    assert [fields(i)[7] for i in read.ground.ids] == list(views.ground.ids[:count])
    expected = f"MSLS protocol of {count} queries" if count > 20 else "neither published protocol"
    assert expected in read.note
    assert "neither published" in open_dataset("msls", root, "val").note
    listed.write_text("nobody\n")
    with pytest.raises(InputError, match=r"queries\.txt:1"):
        open_dataset("msls", root, "val", queries_list=listed)


def test_writers_refuse_what_their_layout_cannot_hold(tmp_path):
    views = trees.paired("x", "train", 2)
    with pytest.raises(InputError, match="metres"):
        w.write_cvact({"train": views}, tmp_path / "a")
    with pytest.raises(InputError, match="semi"):
        w.write_vigor({"Chicago": views}, {"Chicago": [0]}, tmp_path / "b")
    with pytest.raises(InputError, match="absent or empty"):
        w.write_cvusa({"train": views}, tmp_path)
    with pytest.raises(InputError, match="train, val"):
        w.write_cvusa({"test": views}, tmp_path / "c")
    with pytest.raises(InputError, match="unknown"):
        w.write_cvusa({"train": views.without_labels()}, tmp_path / "d")
    with pytest.raises(InputError, match="export"):
        w.remove(tmp_path)
    root = w.write_cvusa({"train": views}, tmp_path / "e")
    w.remove(root)
    assert not root.exists()
