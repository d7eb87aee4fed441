"""Bad input: one InputError that names the file and line, or a row of the check; and trees damaged at random."""

import os
import shutil
import sys
from pathlib import Path

import dataset_trees as trees
import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ucvgl.data import NAMES, detect_layout, open_dataset
from ucvgl.data.check import check
from ucvgl.errors import InputError

LISTS = {
    "cvusa": "splits/val-19zl.csv",
    "cvact": "ACT_data.mat",
    "vigor": "splits/Chicago/same_area_balanced_test.txt",
}
AN_IMAGE = {
    "cvusa": "bingmap/19/0000008.jpg",
    "cvact": "ANU_data_small/streetview/v00001_grdView.jpg",
    "university1652": "test/gallery_satellite/0004/0004.jpg",
    "sues200": "Testing/150/gallery_satellite/0004/0.png",
}


def read_all(name, root, split=None):
    """Read a split and every image of it."""
    views = open_dataset(name, root, split, missing="error")
    for images in (views.query, views.gallery):
        for i in range(len(images)):
            assert images.read(i).shape[0] == 3
    return views


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Every layout, written once."""
    base = tmp_path_factory.mktemp("whole")
    for name, write in trees.LAYOUTS.items():
        write(base / name)
    return base


@pytest.fixture
def copy(whole, tmp_path):
    def take(name):
        shutil.copytree(whole / name, tmp_path / name)
        return tmp_path / name

    return take


@pytest.mark.parametrize("name", LISTS)
def test_a_missing_list_is_named_with_what_its_folder_holds(name, copy):
    root = copy(name)
    (root / LISTS[name]).unlink()
    with pytest.raises(InputError, match=Path(LISTS[name]).name.replace(".", r"\.")):
        read_all(name, root)


@pytest.mark.parametrize("name", LISTS)
def test_an_empty_list(name, copy):
    root = copy(name)
    (root / LISTS[name]).write_bytes(b"")
    with pytest.raises(InputError, match="expected"):
        read_all(name, root)


@pytest.mark.parametrize("name", ["cvusa", "vigor"])
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text.replace(b"\n", b" extra,extra,extra,extra\n", 1), ":1: expected"),
        (lambda text: text.split(b"\n")[0].split(b",")[0].split(b" ")[0] + b"\n", ":1: expected"),
        (lambda text: text.replace(b"0", b"\xff\xfe", 1), ":1: expected UTF-8"),
        (lambda text: text.replace(b"\n", b"\x00\n", 1), ":1: expected text"),
        (lambda text: b"\n" + text[:-1] + b",\n", "expected"),
    ],
)
def test_a_malformed_line_is_named(name, damage, says, copy):
    root = copy(name)
    path = root / LISTS[name]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=says):
        read_all(name, root)


@pytest.mark.parametrize("name", ["cvusa", "cvact", "vigor"])
def test_a_list_that_names_absent_files(name, copy):
    root = copy(name)
    plain = open_dataset(name, root)
    gone = plain.query.file(1)
    Path(gone).unlink()
    with pytest.raises(InputError, match="absent"):
        open_dataset(name, root, missing="error")
    left = open_dataset(name, root, missing="drop")
    assert len(left.query) == len(plain.query) - 1
    assert "1 of" in left.note
    assert left.left_out[0] in gone
    assert plain.query.ids[1] not in left.query.ids
    kept = [i for i in range(len(plain.query)) if i != 1]
    if name == "cvusa":  # the pair goes as a whole, and the others stay together
        assert [left.gallery.ids[j] for j in left.positives.best()] == [plain.gallery.ids[i] for i in kept]


def test_a_list_cannot_reach_out_of_its_folder(copy):
    root = copy("cvusa")
    for name in ("../secret.jpg", "/etc/hostname", "C:/x.jpg", "..\\secret.jpg"):
        (root / LISTS["cvusa"]).write_text(f"{name},streetview/panos/0000001.jpg\n")
        with pytest.raises(InputError, match="inside"):
            open_dataset("cvusa", root)


@pytest.mark.parametrize("name", AN_IMAGE)
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "absent"])
def test_a_damaged_image_is_named(name, damage, copy):
    root = copy(name)
    path = root / AN_IMAGE[name]
    raw = path.read_bytes()
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes({"truncated": raw[: len(raw) * 2 // 3], "empty": b"", "text": b"not an image"}[damage])
    with pytest.raises(InputError, match=path.parent.name if damage == "absent" else path.name.replace(".", r"\.")):
        read_all(name, root)
    report = check(name, root, progress=False)
    assert report.exit_status == 1
    if damage != "absent":
        assert any(path.name in r.found and r.status == "finding" for r in report.rows)


def test_a_repeated_row_or_tile(copy):
    root = copy("cvusa")
    path = root / LISTS["cvusa"]
    path.write_text(path.read_text() + path.read_text().split("\n")[0] + "\n")
    with pytest.raises(InputError, match="repeated"):
        open_dataset("cvusa", root)
    root = copy("vigor")
    path = root / "splits/Chicago/satellite_list.txt"
    path.write_text(path.read_text() + path.read_text().split("\n")[0] + "\n")
    with pytest.raises(InputError, match=r"satellite_list\.txt:9"):
        open_dataset("vigor", root)


def test_a_label_that_names_an_unlisted_tile(copy):
    root = copy("vigor")
    path = root / "splits/Chicago/satellite_list.txt"
    path.write_text("\n".join(path.read_text().split("\n")[1:]))
    with pytest.raises(InputError, match=r"same_area_balanced_test\.txt:\d"):
        open_dataset("vigor", root)


def test_swapped_latitude_and_longitude(copy):
    root = copy("cvusa")
    path = root / "split_locations/all.csv"
    swapped = [",".join((b, a, d, c, e)) for a, b, c, d, e in (r.split(",") for r in path.read_text().split())]
    path.write_text("\n".join(swapped))  # Helsinki's columns exchanged are still on the Earth: nothing can tell
    open_dataset("cvusa", root)
    path.write_text("-122.3,47.6,-122.3,47.6,0\n" * 10)
    with pytest.raises(InputError, match="look swapped"):
        open_dataset("cvusa", root)


@pytest.mark.parametrize(
    "contents",
    [
        {"other": np.zeros(3)},
        {"panoIds": np.zeros(3), "utm": np.zeros((3, 2)), "valSet": np.zeros(3)},
        {"panoIds": np.array(["a", "b"]), "utm": np.zeros((3, 2)), "valSet": {"valInd": [[1]]}},
        {"panoIds": np.array(["a", "b"]), "utm": np.zeros((2, 2)), "valSet": {"valInd": [[3]]}},
        {"panoIds": np.array(["a", "b"]), "utm": np.zeros((2, 2)), "valSet": {"valInd": [[0]]}},
        {"panoIds": np.array(["a", "b"]), "utm": np.full((2, 2), np.nan), "valSet": {"valInd": [[1]]}},
        {"panoIds": np.array(["../a", "../b"]), "utm": np.zeros((2, 2)), "valSet": {"valInd": [[1]]}},
        {"panoIds": np.array(["a", "a"]), "utm": np.zeros((2, 2)), "valSet": {"valInd": [[1], [2]]}},
    ],
)
def test_a_mat_file_of_another_kind(contents, copy):
    root = copy("cvact")
    scipy.io.savemat(root / "ACT_data.mat", contents)
    with pytest.raises(InputError, match=r"ACT_data\.mat"):
        open_dataset("cvact", root)
    report = check("cvact", root, progress=False)
    assert report.exit_status == 2


def test_hdf5_and_other_files_under_the_name_of_the_mat_file(copy):
    root = copy("cvact")
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    for raw in (header + b"\x89HDF\r\n\x1a\n" + bytes(600), b"PK\x03\x04" + bytes(200), os.urandom(500), b"x"):
        (root / "ACT_data.mat").write_bytes(raw)
        with pytest.raises(InputError, match=r"ACT_data\.mat"):
            open_dataset("cvact", root)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps file names as bytes")
def test_file_names_that_are_not_utf8(copy):
    root = copy("vpr")
    path = min((root / "images/test/queries").iterdir())
    path.rename(path.with_name(path.name.replace("q0", "q\udcff")))  # how Python writes the lone byte ff
    with pytest.raises(InputError, match="UTF-8"):
        read_all("vpr", root)
    assert check("vpr", root, progress=False).exit_status == 1


def test_names_without_positions(copy):
    root = copy("vpr")
    path = sorted((root / "images/test/database").iterdir())[0]
    path.rename(path.with_name("photo.jpg"))
    with pytest.raises(InputError, match=r"photo\.jpg"):
        read_all("vpr", root)


def test_a_query_whose_building_is_not_in_the_gallery(copy):
    root = copy("university1652")
    shutil.rmtree(root / "test/gallery_satellite/0003")
    with pytest.raises(InputError, match="0003"):
        read_all("university1652", root)
    (root / "test/query_drone/0099").mkdir()
    with pytest.raises(InputError, match="0099"):
        read_all("university1652", root)


def test_unknown_names_and_options(tmp_path, copy):
    with pytest.raises(InputError, match="cvusa, cvact"):
        open_dataset("cvuas", tmp_path)
    with pytest.raises(InputError, match="pitch"):
        open_dataset("cvusa", copy("cvusa"), pitch=3)
    with pytest.raises(InputError, match="train, val"):
        open_dataset("cvusa", tmp_path / "cvusa", "test")
    with pytest.raises(InputError, match="no such folder"):
        open_dataset("auto", tmp_path / "absent")
    with pytest.raises(InputError, match="layout"):
        detect_layout(tmp_path)
    for name in NAMES:
        with pytest.raises(InputError):
            open_dataset(name, tmp_path / "absent")


# damage at random


def _damage(root, data):
    """One random damage to one random file; returns what it was."""
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.name != "ucvgl-export.json")
    lists = [p for p in files if p.suffix in (".csv", ".txt", ".mat")]
    path = data.draw(st.sampled_from(lists if lists and data.draw(st.booleans()) else files))
    raw = path.read_bytes()
    kind = data.draw(
        st.sampled_from(["cut", "delete", "zero", "flip", "append", "line", "swap", "rename", "folder", "insert"])
    )
    place = data.draw(st.integers(0, max(len(raw) - 1, 0)))
    if kind == "cut":
        path.write_bytes(raw[:place])
    elif kind == "delete":
        path.unlink()
    elif kind == "zero":
        path.write_bytes(b"")
    elif kind == "flip":
        several = data.draw(st.lists(st.tuples(st.integers(0, max(len(raw) - 1, 0)), st.integers(0, 255)), max_size=8))
        changed = bytearray(raw)
        for where, byte in several if raw else []:
            changed[where] = byte
        path.write_bytes(bytes(changed))
    elif kind == "append":
        path.write_bytes(raw + data.draw(st.binary(max_size=40)))
    elif kind == "insert":
        path.write_bytes(raw[:place] + data.draw(st.binary(min_size=1, max_size=20)) + raw[place:])
    elif kind == "line":
        rows = raw.split(b"\n")
        del rows[data.draw(st.integers(0, len(rows) - 1))]
        path.write_bytes(b"\n".join(rows))
    elif kind == "swap":
        other = data.draw(st.sampled_from(files))
        path.write_bytes(other.read_bytes())
    elif kind == "rename":
        path.rename(path.with_name(data.draw(st.sampled_from(["x.jpg", "@@@.jpg", "@1@2", "@x@y@.jpg", "é.png", " "]))))
    else:
        shutil.rmtree(path.parent)
    return kind, path


@pytest.mark.parametrize("name", trees.LAYOUTS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(data=st.data())
def test_damage_gives_the_error_or_a_correct_reading(name, whole, tmp_path, data):
    root = tmp_path / "damaged"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(whole / name, root)
    plain = open_dataset(name, root)
    kind, path = _damage(root, data)
    views, said = None, ""
    try:
        views = read_all(name, root)
    except InputError as error:
        said = error.where + error.todo
    assert views is not None or said
    if views is not None and kind in ("cut", "delete", "zero", "line", "folder"):
        # nothing is invented: what is still read was there before
        right = {plain.query.ids[i]: set(plain.positives[i]) for i in range(len(plain.query))}
        for i, identifier in enumerate(views.query.ids):
            names = {views.gallery.ids[j] for j in views.positives[i]}
            assert names <= {plain.gallery.ids[j] for j in right[identifier]}, (kind, path)
    report = check(name, root, quick=True, progress=False)
    assert report.exit_status in (0, 1, 2)
    assert report.text()
    assert report.json()
