"""`data check`: complete exports, each kind of finding with its next step, exit status and JSON."""

import json
import shutil
import sys

import dataset_trees as trees
import numpy as np
import pytest
from PIL import Image

from ucvgl import cli
from ucvgl.data.check import check


def finding(report, item, status="finding"):
    row = next(r for r in report.rows if r.item.startswith(item) and r.status == status)
    assert row.todo, row
    return row


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", trees.LAYOUTS)
def test_every_export_is_complete(name, quick, tmp_path):
    trees.LAYOUTS[name](tmp_path / "set")
    report = check("auto", tmp_path / "set", quick=quick, progress=False)
    assert report.exit_status == 0, report.text()
    assert report.name == name
    assert "complete" in report.text()
    assert any(r.item.startswith("images") for r in report.rows)


def test_counts_are_compared_with_the_published_ones_without_the_marker(tmp_path):
    _, root = trees.cvusa(tmp_path / "set")
    (root / "ucvgl-export.json").unlink()
    report = check("cvusa", root, progress=False)
    assert report.exit_status == 1
    assert finding(report, "counts train").expected.startswith("35,532")
    assert "1232 x 224" in finding(report, "sizes query").expected


def test_rows_lost_since_the_export(tmp_path):
    _, root = trees.vigor(tmp_path / "set")
    path = root / "splits/Chicago/same_area_balanced_train.txt"
    path.write_text("\n".join(path.read_text().split("\n")[1:]))
    assert finding(check("vigor", root, progress=False), "counts same-train").missing == 1


def test_overlapping_splits(tmp_path):
    _, root = trees.cvusa(tmp_path / "set")
    train, val = root / "splits/train-19zl.csv", root / "splits/val-19zl.csv"
    val.write_text(val.read_text() + train.read_text().split("\n")[0] + "\n")
    row = finding(check("cvusa", root, progress=False), "overlap train / val")
    assert row.missing == 1
    assert "0000001" in row.found
    _, root = trees.university1652(tmp_path / "uni")
    shutil.copytree(root / "train/drone/0001", root / "test/query_drone/0001")
    shutil.copytree(root / "train/satellite/0001", root / "test/gallery_satellite/0001")
    assert "0001" in finding(check("university1652", root, progress=False), "overlap train").found


def test_wrong_sizes_and_unlisted_tiles(tmp_path):
    _, root = trees.cvusa(tmp_path / "set")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(root / "bingmap/19/0000003.jpg")
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(root / "bingmap/19/0000099.jpg")
    report = check("cvusa", root, progress=False)
    row = finding(report, "sizes gallery")
    assert row.missing == 1
    assert "0000003.jpg is 9 x 9" in row.found
    assert "0000099.jpg" in finding(report, "tile folders", "note").found


def test_positions_that_do_not_fit_their_pairs(tmp_path):
    _, root = trees.cvusa(tmp_path / "set")
    path = root / "split_locations/all.csv"
    rows = path.read_text().split("\n")
    cells = rows[2].split(",")
    rows[2] = ",".join([*cells[:2], "61.5", cells[3], "0"])
    path.write_text("\n".join(rows))
    assert "0000003" in finding(check("cvusa", root, progress=False), "pairs train").found


def test_a_part_that_cannot_be_read_is_a_finding_and_all_parts_are_unusable(tmp_path):
    _, root = trees.cvusa(tmp_path / "set")
    (root / "splits/val-19zl.csv").unlink()
    report = check("cvusa", root, progress=False)
    assert report.exit_status == 1
    assert "val-19zl.csv" in finding(report, "split val", "unusable").expected
    (root / "splits/train-19zl.csv").write_text("")
    assert check("cvusa", root, progress=False).exit_status == 2
    assert check("cvusa", tmp_path / "absent", progress=False).exit_status == 2
    (tmp_path / "empty").mkdir()
    assert check("auto", tmp_path / "empty", progress=False).exit_status == 2
    (root / "ucvgl-export.json").write_text("{")
    assert check("cvusa", root, progress=False).exit_status == 2


def test_missing_files_are_counted_and_the_rest_is_still_checked(tmp_path):
    _, root = trees.cvact(tmp_path / "set")
    for i in (1, 3):
        (root / f"ANU_data_small/streetview/t{i:05d}_grdView.jpg").unlink()
    report = check("cvact", root, progress=False)
    row = finding(report, "split train")
    assert row.missing == 2
    assert "t00001_grdView.jpg" in row.found
    assert any(r.item == "images query" and r.status == "ok" for r in report.rows)


def test_command_line(tmp_path, monkeypatch, capsys):
    _, root = trees.cvusa(tmp_path / "set")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["ucvgl", "data", "check", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        return exit_.value.code, capsys.readouterr()

    code, said = run("cvusa", root)
    assert code == 0
    assert "complete" in said.out
    (root / "bingmap/19/0000003.jpg").write_bytes(b"")
    code, said = run("cvusa", root, "--json")
    report = json.loads(said.out)
    assert code == report["exit_status"] == 1
    assert any("0000003.jpg" in r["found"] for r in report["rows"])
    assert run("cvusa", tmp_path / "absent", "--quick")[0] == 2
    code, said = run("cvsua", root)
    assert code == 2
    assert "cvusa, cvact" in said.err
