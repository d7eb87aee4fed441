"""Bad input: one InputError that names the file and line, and a row of `data check` with the next step; damage at random."""

import json
import shutil
import sys
from contextlib import suppress

import dataset_trees as trees
import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ucvgl import cli
from ucvgl.data import open_dataset
from ucvgl.data.check import check
from ucvgl.errors import InputError

LISTS = {
    "cvusa": "splits/val-19zl.csv", "cvact": "ACT_data.mat", "vigor": "splits/Chicago/same_area_balanced_test.txt",
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Every layout, written once."""
    base = tmp_path_factory.mktemp("whole")
    for name, write in trees.LAYOUTS.items():
        write(base / name)
    return base


@pytest.fixture
def copy(whole, tmp_path):
    return lambda name: shutil.copytree(whole / name, tmp_path / name)


def read_all(name, root):
    """Read the default split and every image of it."""
    data = open_dataset(name, root, missing="error")
    for images in (data.query, data.gallery):
        for i in range(len(images)):
            assert images.read(i).shape[0] == 3
    return data


def finding(name, root, item, status="finding"):
    report = check(name, root)
    row = next(r for r in report.rows if r.item.startswith(item) and r.status == status)
    assert row.todo in report.text()
    assert report.exit_status == 1
    return row


def test_published_counts_and_sizes_and_those_of_the_export(copy):
    root = copy("cvusa")
    path = root / "splits/val-19zl.csv"
    path.write_text(path.read_text().partition("\n")[2])
    assert finding("cvusa", root, "counts val").missing == 1
    (root / "ucvgl-export.json").unlink()
    assert finding("cvusa", root, "counts train").expected.startswith("35,532")
    assert "1232 x 224" in finding("cvusa", root, "sizes query").expected


def test_overlapping_splits(copy):
    root = copy("cvusa")
    train, val = root / "splits/train-19zl.csv", root / "splits/val-19zl.csv"
    val.write_text(val.read_text() + train.read_text().split("\n")[0] + "\n")
    assert finding("cvusa", root, "overlap train / val").found == "1 in both: 0000001"


def test_sizes_and_positions(copy):
    root = copy("cvusa")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(root / "bingmap/19/0000003.jpg")
    path = root / "split_locations/all.csv"
    rows = [row.split(",") for row in path.read_text().split()]
    rows[2][2] = "61.5"
    path.write_text("\n".join(map(",".join, rows)))
    assert "0000003.jpg is 9 x 9" in finding("cvusa", root, "sizes gallery").found
    assert "0000003" in finding("cvusa", root, "pairs train").found


def test_command_line(copy, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["ucvgl", "data", "check", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, capsys.readouterr()

    root = copy("cvusa")
    assert run("cvusa", root)[0] == 0
    (root / "bingmap/19/0000003.jpg").write_bytes(b"")
    code, said = run("cvusa", root, "--json")
    report = json.loads(said.out)
    assert code == report["exit_status"] == 1
    assert any("0000003.jpg" in r["found"] for r in report["rows"])
    (root / "splits/val-19zl.csv").unlink()
    assert "val-19zl.csv" in finding("cvusa", root, "split val", "unusable").expected
    assert run("cvusa", root / "absent", "--quick")[0] == 2
    assert "cvusa, cvact" in run("cvsua", root)[1].err


@pytest.mark.parametrize("name", ["cvusa", "vigor"])
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text.replace(b"\n", b" extra,extra,extra,extra\n", 1), ":1: expected"),
        (lambda text: text.split(b"\n")[0].split(b",")[0].split(b" ")[0] + b"\n", ":1: expected"),
        (lambda text: text.replace(b"0", b"\xff\xfe", 1), ":1: expected UTF-8"),
        (lambda text: text.replace(b"\n", b"\x00\n", 1), ":1: expected text"),
    ],
)
def test_a_malformed_line(name, damage, says, copy):
    root = copy(name)
    path = root / LISTS[name]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=says):
        read_all(name, root)


def test_a_list_cannot_reach_out_of_its_folder(copy):
    root = copy("cvusa")
    for name in ("../secret.jpg", "/etc/hostname", "C:/x.jpg", "..\\secret.jpg"):
        (root / LISTS["cvusa"]).write_text(f"{name},streetview/panos/0000001.jpg\n")
        with pytest.raises(InputError, match="inside"):
            open_dataset("cvusa", root)


def test_repeated_and_unlisted_rows(copy):
    root = copy("cvusa")
    path = root / LISTS["cvusa"]
    path.write_text(path.read_text() + path.read_text().split("\n")[0] + "\n")
    with pytest.raises(InputError, match="repeated"):
        open_dataset("cvusa", root)
    root = copy("vigor")
    path = root / "splits/Chicago/satellite_list.txt"
    first, _, rest = path.read_text().partition("\n")
    twice, fewer = f"{first}\n{rest}{first}\n", rest
    for text, says in ((twice, r"satellite_list\.txt:9"), (fewer, r"same_area_balanced_test\.txt:\d")):
        path.write_text(text)
        with pytest.raises(InputError, match=says):
            open_dataset("vigor", root)


TWO = {"panoIds": np.array(["a", "b"]), "utm": np.zeros((2, 2))}


@pytest.mark.parametrize(
    "contents",
    [
        {"panoIds": np.zeros(3), "utm": np.zeros((3, 2)), "valSet": np.zeros(3)},
        {**TWO, "valSet": {"valInd": [[3]]}},
        {**TWO, "utm": np.full((2, 2), np.nan), "valSet": {"valInd": [[1]]}},
        {**TWO, "panoIds": np.array(["a", "a"]), "valSet": {"valInd": [[1], [2]]}},
        b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM\x89HDF\r\n\x1a\n" + bytes(600),
    ],
)
def test_a_mat_file_of_another_kind(contents, copy):
    root = copy("cvact")
    if isinstance(contents, bytes):
        (root / "ACT_data.mat").write_bytes(contents)
    else:
        scipy.io.savemat(root / "ACT_data.mat", contents)
    with pytest.raises(InputError, match=r"ACT_data\.mat"):
        open_dataset("cvact", root)


def test_a_query_whose_building_is_not_in_the_gallery(copy):
    root = copy("university1652")
    shutil.rmtree(root / "test/gallery_satellite/0003")
    with pytest.raises(InputError, match="0003"):
        read_all("university1652", root)
    (root / "test/query_drone/0099").mkdir()
    with pytest.raises(InputError, match="0099"):
        read_all("university1652", root)


def named(data):
    return [{data.gallery.ids[j] for j in row} for row in data.positives]


def _damage(root, data):
    """One random damage to one random file; returns what it was."""
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.name != "ucvgl-export.json")
    lists = [p for p in files if p.suffix in (".csv", ".txt", ".mat")]
    path = data.draw(st.sampled_from(lists if lists and data.draw(st.booleans()) else files))
    raw = path.read_bytes()
    kind = data.draw(st.sampled_from(["cut", "delete", "zero", "flip", "line", "swap", "rename", "folder", "insert"]))
    at = data.draw(st.integers(0, max(len(raw) - 1, 0)))
    rows = raw.split(b"\n")
    row = data.draw(st.integers(0, len(rows) - 1))
    match kind:
        case "delete":
            path.unlink()
        case "rename":
            names = ["x.jpg", "@@@.jpg", "@1@2", "@x@y@.jpg", "é.png", " "]
            path.rename(path.with_name(data.draw(st.sampled_from(names))))
        case "folder":
            shutil.rmtree(path.parent)
        case _:
            other = data.draw(st.sampled_from(files)).read_bytes()
            bytes_ = data.draw(st.binary(min_size=1, max_size=20))
            path.write_bytes({
                "cut": raw[:at], "zero": b"", "flip": raw[:at] + bytes_[:1] + raw[at + 1 :], "swap": other,
                "line": b"\n".join(rows[:row] + rows[row + 1 :]), "insert": raw[:at] + bytes_ + raw[at:],
            }[kind])  # fmt: skip
    return kind


@pytest.mark.parametrize("name", trees.LAYOUTS)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(data=st.data())
def test_damage_gives_the_error_or_a_correct_reading(name, whole, tmp_path, data):
    root = tmp_path / "damaged"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(whole / name, root)
    plain = open_dataset(name, root)
    kind = _damage(root, data)
    with suppress(InputError):
        read = read_all(name, root)
        if kind in (
            "cut",
            "zero",
            "delete",
            "line",
            "folder",
        ):  # nothing is invented: what is still read was there before
            right = dict(zip(plain.query.ids, named(plain), strict=True))
            assert all(some <= right[query] for query, some in zip(read.query.ids, named(read), strict=True))
    report = check(name, root, quick=True)
    assert report.exit_status in (0, 1, 2)
    assert report.text()
