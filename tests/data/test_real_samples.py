"""The readers on real sample data (UCVGL_SAMPLES); skipped, with the reason, where it is absent."""

import csv
import shutil

import numpy as np
import pytest

from ucvgl.data import (
    read_cvusa,
    read_dbstruct,
    read_folders,
    read_npz,
    read_paired_folders,
    read_position_table,
    read_university1652,
)
from ucvgl.data.files import columns
from ucvgl.data.university import PUBLISHED
from ucvgl.errors import InputError
from ucvgl.paths import samples
from ucvgl.positions import Neighbours, distances, from_utm, to_utm


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
    views = read_cvusa(cvusa, "val")
    assert views.ground.ids == tuple(f"ground{i}" for i in range(5))
    assert views.satellite.ids == tuple(f"aerial{i}" for i in range(5))
    assert all(tuple(views.ground.read(i).shape) == (3, 224, 1232) for i in range(5))
    assert all(tuple(views.satellite.read(i).shape) == (3, 750, 750) for i in range(5))
    assert views.ground.positions is None
    assert tuple(views.ground.read(0, (112, 616)).shape) == (3, 112, 616)


def test_cvusa_lists_of_another_release(tmp_path):
    """6,647 and 2,215 rows of three columns; the train file has no newline at its end, the val file Windows line ends."""
    for split, count in (("train", 6_647), ("val", 2_215)):
        path = sample("cvusa", "splits", f"{split}-19zl.csv")
        rows = columns(path, ",", (2, 3))
        assert len(rows) == count
        assert all(len(cells) == 3 for _, cells in rows)
        assert rows[0][1][0].startswith("bingmap/input")  # not bingmap/19
    root = tmp_path / "cvusa"
    shutil.copytree(sample("cvusa", "splits"), root / "splits")
    with pytest.raises(InputError, match=r"train-19zl\.csv:1.*13294 of 13294"):
        read_cvusa(root, "train")
    # with the files there, however empty, the lists read: 6,647 pairs, none lost for want of a newline
    for _, (tile, pano, _) in columns(root / "splits" / "train-19zl.csv", ",", (3,)):
        for name in (tile, pano):
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).touch()
    views = read_cvusa(root, "train")
    assert len(views.ground) == 6_647
    assert views.ground.ids[-1] == "input0030142"
    with pytest.raises(InputError, match=r"input0044192\.jpg"):
        views.ground.read(0)


def test_pitts30k_positions():
    folder = sample("place_recognition")
    views = read_npz(
        folder / "pitts30k_test.npz",
        folder,
        folder / "pitts30k_imageNames_query.txt",
        folder / "pitts30k_imageNames_index.txt",
        "pitts30k",
    )
    assert (len(views.ground), len(views.satellite)) == (6_816, 10_000)
    assert views.ground.ids[0] == "Pittsburgh250k/queries_real/000/000546_pitch1_yaw1.jpg"
    lat, lon = from_utm(*views.ground.positions.values.T, 17, south=False)
    assert 40.3 < lat.min() < lat.max() < 40.6
    assert -80.1 < lon.min() < lon.max() < -79.8
    # every query against the brute force
    q, d = views.ground.positions.values, views.satellite.positions.values
    for i in range(0, len(q), 97):
        near = np.flatnonzero(np.hypot(*(d - q[i]).T) <= 25)
        assert set(views.positives[i]) == set(near)
    assert (np.diff(views.positives.offsets) > 0).all()  # Pitts30k: every query has one


def test_tokyo247_positions():
    folder = sample("place_recognition")
    views = read_npz(folder / "tokyo247.npz", folder, folder / "tokyo247_imageNames_query.txt", None, "tokyo247")
    assert (len(views.ground), len(views.satellite)) == (315, 75_984)
    lat, lon = from_utm(*views.ground.positions.values.T, 54, south=False)
    assert 35.6 < lat.min() < lat.max() < 35.7
    assert 139.6 < lon.min() < lon.max() < 139.8
    assert (np.diff(views.positives.offsets) > 0).all()


def test_msls_amman_struct():
    path = sample("place_recognition", "msls_amman_d-20_d2-5.db")
    views = read_dbstruct(path, path.parent, "msls")
    assert (len(views.ground), len(views.satellite)) == (835, 953)
    assert "10 m" in views.note
    listed = (path.parent / "msls_amman_query_imageNames.txt").read_text().split()
    assert list(views.ground.ids) == listed
    lat, lon = from_utm(*views.ground.positions.values.T, 36, south=False)
    assert 31.8 < lat.min() < lat.max() < 32.1
    assert 35.7 < lon.min() < lon.max() < 36.1
    near = read_dbstruct(path, path.parent, "msls", radius_m=25)
    assert len(near.positives.indices) > len(views.positives.indices)


def test_corridor_ground_truth_is_a_pickle_and_is_not_opened():
    path = sample("corridor", "ground_truth_new.npy")
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(path, allow_pickle=False)  # an object array: opening it could run code, so the names' numbers are used
    with pytest.raises(InputError, match="Pickled"):
        read_npz(path, path.parent, path)


def test_corridor_pairs():
    views = read_paired_folders(sample("corridor"), "query", "ref", name="corridor")
    assert (len(views.ground), len(views.satellite)) == (111, 111)
    assert views.positives.best().tolist() == list(range(111))
    assert tuple(views.ground.read(110).shape) == (3, 120, 160)


def test_university_pairs_and_the_building_that_is_two():
    views = read_paired_folders(sample("university1652"), same=(("0118", "0167"),), name="university1652-sample")
    assert (len(views.ground), len(views.satellite)) == (250, 250)
    rows = {views.ground.ids[i]: [views.satellite.ids[j] for j in views.positives[i]] for i in range(250)}
    assert rows["0118.jpg"] == ["0118.jpg", "0167.jpg"]
    assert rows["0167.jpg"] == ["0167.jpg", "0118.jpg"]
    assert rows["0000.jpg"] == ["0000.jpg"]
    assert "; 0 of 250 ground images have none" in views.note
    assert tuple(views.ground.read(5).shape) == (3, 128, 128)


def test_university_name_lists_are_the_trees_the_reader_expects(tmp_path):
    """The official lists name 701 tile queries and 51,355 drone images of 951 buildings: the published counts."""
    queries = columns(sample("university1652", "query_name.txt"), None, (1,))
    gallery = columns(sample("university1652", "gallery_name.txt"), None, (1,))
    assert (len(queries), len(gallery)) == PUBLISHED["university1652", "test", "satellite2drone"]
    buildings = {cells[0].split("/")[-2] for _, cells in gallery}
    assert len(buildings) == PUBLISHED["university1652", "test", "drone2satellite"][1]
    # build the part of the tree that names three buildings, from the real names, and read it
    for rows in (queries, gallery):
        for _, (name,) in rows:
            path = tmp_path / name.removeprefix("./data/")
            if path.parent.name in ("0000", "0001", "0003", "0007"):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    views = read_university1652(tmp_path, "test", "satellite2drone")
    asked = [path.split("/")[-2] for path in views.ground.paths]
    assert asked == [b for b in ("0000", "0001", "0003", "0007") if any(f"/{b}/" in c[0] for _, c in queries)]
    # 951 buildings times 54 is one less than the published 51,355: building 0000 has 55 drone images
    assert [len(views.positives[i]) for i in range(len(asked))] == [55] + [54] * (len(asked) - 1)


def test_helsinki_positions():
    path = sample("helsinki", "CVH3D_validation_set.csv")
    ids, positions = read_position_table(path)
    assert len(ids) == 7_485
    assert ids[0] == "2404297846368594"
    assert positions.values[:, 0].min() > 60.0
    assert positions.values[:, 0].max() < 60.5
    indices, metres = Neighbours(positions).nearest(positions, 2)
    by_hand = distances(positions.take(indices[:, 1]), positions)
    assert metres[:, 1] == pytest.approx(by_hand, abs=1e-6)
    east, north, zone, _ = to_utm(*positions.values.T)
    assert zone == 35
    back = np.stack(from_utm(east, north, 35, south=False), 1)
    assert np.abs(back - positions.values).max() < 1e-9


def test_helsinki_pictures_with_their_positions(tmp_path):
    for folder in sorted(sample("helsinki", "samples").iterdir()):
        for name, side in ((f"{folder.name}.jpg", "ground"), (f"{folder.name}_sat.jpg", "satellite")):
            (tmp_path / side).mkdir(exist_ok=True)
            shutil.copyfile(folder / name, tmp_path / side / name)
    views = read_folders(tmp_path / "ground", tmp_path / "satellite", sample("helsinki", "CVH3D_validation_set.csv"))
    assert (len(views.ground), len(views.satellite)) == (10, 10)
    known = int(views.ground.positions.known.sum())
    assert f"Positions known for {known} of 10" in views.note
    assert views.positives[0] is None
    assert tuple(views.satellite.read(0).shape) == (3, 500, 500)
    with sample("helsinki", "CVH3D_validation_set.csv").open() as file:
        rows = {row["Grd_ID"]: row for row in csv.DictReader(file)}
    for i, name in enumerate(views.ground.ids):
        row = rows.get(name.removesuffix(".jpg"))
        assert views.ground.positions.known[i] == (row is not None)
        if row:
            assert views.ground.positions.values[i].tolist() == [float(row["Latitude"]), float(row["Longitude"])]


def test_amsterdam_trajectory_table():
    ids, positions = read_position_table(sample("amsterdam", "panorama1_20160324_000022.csv"))
    assert len(ids) == 733
    assert ids[0] == "pano_0000_000000"
    assert positions.values[0] == pytest.approx([52.3668688704792, 4.91225265953536])
