"""Inputs of people who do this job, which an earlier edition got wrong: each is right, or one clear error. Named by its case."""

import struct
import unicodedata
from pathlib import Path

import dataset_trees as trees
import numpy as np
import pytest

from ucvgl.data import open_dataset, parts
from ucvgl.data.files import walk
from ucvgl.data.prepare import Preparation, prepare
from ucvgl.errors import InputError
from ucvgl.geometry import TopView
from ucvgl.lab.material import material
from ucvgl.lab.profiles import ucvgl
from ucvgl.lab.rows import rows
from ucvgl.lab.settings import RunRequest
from ucvgl.sampling import geographic_neighbours

APPLE = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(100)

pytestmark = pytest.mark.usefixtures("fresh_runs")


def panorama(height, width, horizon):
    """Blue above, green below the horizon, a red line 10 degrees below it."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:horizon], image[horizon:] = (80, 120, 255), (60, 160, 60)
    line = horizon + round(10 * width / 360)
    image[line - 1 : line + 2] = (255, 0, 0)
    return image


def cvusa_tree(root, panoramas, train):
    rows = []
    for k, image in enumerate(panoramas, 1):
        trees.jpeg(root / "streetview" / "panos" / f"{k:07d}.jpg", image, quality=95)
        trees.jpeg(root / "bingmap" / "19" / f"{k:07d}.jpg")
        rows.append(f"bingmap/19/{k:07d}.jpg,streetview/panos/{k:07d}.jpg\n")
    (root / "splits").mkdir()
    (root / "splits" / "train-19zl.csv").write_text("".join(rows[:train]))
    (root / "splits" / "val-19zl.csv").write_text("".join(rows[train:]))
    return root


def rings(root):
    """Radius of the red line in each top view of the training part, in camera heights; 5.67 is right."""
    data = open_dataset("cvusa", root, "train")
    ready = prepare(data, Preparation((16, 64), (16, 16), TopView(128, 175.0, 2.5)))
    y, x = np.mgrid[:128, :128]
    away = np.hypot(x - 63.5, y - 63.5)
    found = []
    for view in ready.top_view[:].float().numpy():
        red = (view[0] > 130) & (view[1] < 110) & (view[2] < 110)
        found.append(np.median(away[red]) / 64 * np.tan(np.radians(87.5)))
    return found


@pytest.mark.parametrize("size", ["full", "half", "as_exported"])
def test_strip_offset(size, tmp_path):
    """The published strips lie 20 of 1232 px above the middle, whatever their size now; our export's lie in the middle."""
    strip = {"full": (224, 1232, 132), "half": (112, 616, 66), "as_exported": (94, 512, 47)}[size]
    root = cvusa_tree(tmp_path / "set", [panorama(*strip)] * 2, 1)
    if size == "as_exported":
        (root / "ucvgl-export.json").write_text('{"counts": {}, "sizes": {}, "strip_offset": 0}')
    assert rings(root) == pytest.approx([5.67], rel=0.06)


def test_mixed_sizes(tmp_path):
    """Whole panoramas but for the first, a published strip: each is projected by its own size."""
    some = [panorama(224, 1232, 132), *[panorama(256, 512, 128)] * 3]
    assert rings(cvusa_tree(tmp_path / "set", some, 3)) == pytest.approx([5.67] * 3, rel=0.06)


def test_pairs_split(tmp_path):
    """No image that was trained on is asked for in the test; the parts are the same whatever else lies there."""
    trees.folders(tmp_path, ("drone", "satellite"), 24)
    data = {part: open_dataset("pairs", tmp_path, part) for part in parts("pairs", tmp_path)}
    assert [len(one) for one in data.values()] == [14, 5, 5]
    ids = [name for one in data.values() for name in one.query.ids]
    assert len(set(ids)) == len(ids) == 24
    assert all(one.query.ids == one.gallery.ids for one in data.values())
    assert open_dataset("pairs", tmp_path, "test").digest() == data["test"].digest()


def test_own_folders(tmp_path):
    """No pairs: training without labels works, everything else says so before it runs."""
    trees.folders(tmp_path, ("ground", "satellite"), 3)
    data = open_dataset("auto", tmp_path, "train")
    with pytest.raises(InputError, match=r"this layout has no pairs\. Supervised training needs them"):
        data.require_labels("Supervised training")
    with pytest.raises(InputError, match="recall cannot be measured"):
        open_dataset("auto", tmp_path, "val")
    assert rows(RunRequest("tiny", str(tmp_path)), 0, measured=True) == {}  # no table, but trainings
    assert "04/main/ucvgl_s_0" in rows(RunRequest("tiny", str(tmp_path)), 0)
    settings = ucvgl("tiny", 0, data=str(tmp_path))
    with pytest.raises(InputError, match=r"no pairs in this layout. `ucvgl train 04/main/ucvgl_s_0"):
        material(settings, str(tmp_path))


def test_cvusa_positions(tmp_path):
    """all.csv beside the folders, as the subset of CVPR 2017 comes."""
    root = cvusa_tree(tmp_path / "set", [trees.texture(22, 122)] * 4, 3)
    with pytest.raises(InputError, match="expected a position of each place, found none"):
        geographic_neighbours(open_dataset("cvusa", root, "train").gallery.positions, 1)
    without = list(rows(RunRequest("tiny", str(root)), 0, measured=True))
    assert [name for name in without if "sampling" in name] == ["05/sampling/random", "05/sampling/dss_only"]
    (root / "all.csv").write_text("".join(f"{39.8 + k / 1e3:.4f},-98.6,{39.9 + k / 1e3:.4f},-98.7\n" for k in range(4)))
    data = open_dataset("cvusa", root, "val")
    assert data.gallery.positions.values.tolist() == [[39.803, -98.6]]
    assert data.query.positions.values.tolist() == [[39.903, -98.7]]
    found = set(rows(RunRequest("tiny", str(root)), 0, measured=True))
    assert found - set(without) == {"05/sampling/gps_only", "05/sampling/full"}


def test_cvact_missing(tmp_path):
    """The published archives lack a few images: such pairs are left out and counted, as the authors' reader does."""
    splits, root = trees.cvact(tmp_path / "set")
    sorted(root.glob("ANU_data_small/satview_polish/*.jpg"))[2].unlink()
    data = open_dataset("cvact", root, "train")
    assert data.query.ids == splits["train"].query.ids[:2] + splits["train"].query.ids[3:]
    assert data.query.ids == data.gallery.ids
    assert "1 of 6 pairs left out, files absent" in data.note
    assert [Path(path).name for path in data.left_out] == ["t00002_satView_polish.jpg"]
    with pytest.raises(InputError, match="1 of 12 listed files"):
        open_dataset("cvact", root, "train", missing="error")


def test_test_only_vpr(tmp_path):
    trees.line(tmp_path, 4)
    assert len(open_dataset("auto", tmp_path, "test")) == 4
    assert parts("vpr", tmp_path) == ("test",)
    assert {name.partition("/")[0] for name in rows(RunRequest("tiny", str(tmp_path)), 0, measured=True)} == {"06"}
    with pytest.raises(InputError, match=r"found test alone\. It is for measuring alone: train on another set"):
        open_dataset("auto", tmp_path, "train")


def test_stale_cache(tmp_path):
    """A file replaced by another one's content: what was made from it is made again."""
    root = trees.folders(tmp_path / "own", ("ground", "satellite"), 3, textured=True)
    config = Preparation((16, 16), (16, 16))
    before = prepare(open_dataset("folders", root), config).query[:].clone()
    (root / "ground/001.jpg").write_bytes((root / "ground/002.jpg").read_bytes())
    after = prepare(open_dataset("folders", root), config).query[:]
    assert not (before[1] == before[2]).all()
    assert (after[1] == after[2]).all()


def test_ipynb_checkpoints(tmp_path):
    """University-1652 looked at in JupyterLab and unzipped on a Mac: hidden folders are no buildings, ._ files no images."""
    _, root = trees.university1652(tmp_path / "set")
    plain = {split: open_dataset("university1652", root, split) for split in ("train", "test")}
    for where in ("train/drone", "test/gallery_satellite"):
        for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
            trees.jpeg(root / where / name / "a.jpg")
    (root / "test/query_drone/0003/._image-01.jpeg").write_bytes(APPLE)
    for split, before in plain.items():
        assert open_dataset("university1652", root, split).query.ids == before.query.ids
        assert open_dataset("university1652", root, split).gallery.ids == before.gallery.ids


def test_hidden_and_heic(tmp_path):
    """Files of kinds that are not read are counted and named; companions and thumbnails are no images of the street."""
    for k in range(2):
        trees.jpeg(tmp_path / "ground" / f"p{k}.jpg")
        (tmp_path / "ground" / f"._p{k}.jpg").write_bytes(APPLE)
        trees.jpeg(tmp_path / "ground" / "@eaDir" / f"p{k}.jpg" / "SYNOPHOTO_THUMB_M.jpg")
        trees.jpeg(tmp_path / "ground" / "Thumbs" / f"p{k}.jpg")
    for name in ("IMG_0007.HEIC", "IMG_0008.avif", "IMG_0009.jfif", "Thumbs.db", "notes.txt"):
        (tmp_path / "ground" / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    trees.jpeg(tmp_path / "satellite" / "t.jpg")
    data = open_dataset("auto", tmp_path)
    assert data.query.ids == ("p0.jpg", "p1.jpg")
    assert "3 files passed over, of kinds that are not read: IMG_0007.HEIC, IMG_0008.avif, IMG_0009.jfif" in data.note


def test_links_case_and_unicode_forms(tmp_path):
    """Kin of the two above: linked folders, links in a circle, endings in any case, names written on a Mac."""
    accent = unicodedata.normalize("NFD", "Genève")
    trees.jpeg(tmp_path / "elsewhere" / "b.JPG")
    trees.jpeg(tmp_path / "drone" / f"{accent}.Jpeg")
    trees.jpeg(tmp_path / "satellite" / f"{unicodedata.normalize('NFC', accent)}.jpg")
    (tmp_path / "drone" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "drone" / "circle").symlink_to(tmp_path / "drone")
    assert walk(tmp_path / "drone")[0] == [f"{accent}.Jpeg", "linked/b.JPG"]
    data = open_dataset("pairs", tmp_path)
    assert data.query.ids == ("Genève.Jpeg", "linked/b.JPG")
    assert data.positives.best().tolist() == [0, -1]
    assert data.query.read(0).shape == (3, 16, 16)
    (tmp_path / "drone" / "c.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(InputError, match=r"c\.jpg"):
        open_dataset("pairs", tmp_path)
    _, root = trees.cvusa(tmp_path / "set")
    pano = root / "streetview/panos/0000002.jpg"
    pano.rename(pano.with_suffix(".JPG"))  # the list says .jpg
    assert open_dataset("cvusa", root, "train").query.paths[1].endswith("0000002.JPG")
    assert walk(root)[1] == []  # lists and the marker are no files passed over


def test_zero_bytes(tmp_path, monkeypatch):
    """An empty image is named when it is read, or left out and counted where that was asked for; in every layout."""
    _, root = trees.vpr(tmp_path / "msls")
    path = min((root / "images/val/database").iterdir())
    path.write_bytes(b"")
    data = open_dataset("msls", root, "val")
    with pytest.raises(InputError, match=path.name):
        [data.gallery.read(i) for i in range(len(data.gallery))]
    less = open_dataset("msls", root, "val", skip_unreadable=True)
    assert len(less.gallery) == len(data.gallery) - 1
    assert path.name not in less.gallery.ids
    assert "1 of 12 gallery images left out, files unreadable" in less.note
    for i, name in enumerate(less.query.ids):
        names = [data.gallery.ids[j] for j in data.positives[data.query.ids.index(name)]]
        assert [less.gallery.ids[j] for j in less.positives[i]] == [n for n in names if n != path.name]
    monkeypatch.setenv("UCVGL_SKIP_UNREADABLE", "1")
    assert open_dataset("msls", root, "val").digest() == less.digest()
    _, root = trees.cvusa(tmp_path / "cvusa")
    tile = root / "bingmap/19/0000002.jpg"
    tile.write_bytes(tile.read_bytes()[:300])
    assert open_dataset("cvusa", root, "train").query.ids == ("0000001", "0000003", "0000004", "0000005", "0000006")
    _, root = trees.university1652(tmp_path / "uni")
    (root / "test/gallery_satellite/0003/0003.jpg").write_bytes(b"")
    note = open_dataset("university1652", root, "test").note
    assert "3 of 9 queries and 1 of 5 gallery images left out" in note
    for side in ("ground", "satellite"):
        trees.jpeg(tmp_path / "own" / side / "a.jpg")
        (tmp_path / "own" / side / "b.jpg").write_bytes(b"")
    assert open_dataset("folders", tmp_path / "own").query.ids == ("a.jpg",)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow says so, and goes on
def test_bad_exif(tmp_path):
    """Whole images with damaged or impossible tags: they have no position, the note counts them, the others keep theirs."""

    def with_exif(path, block):
        trees.jpeg(path)
        raw, segment = path.read_bytes(), b"Exif\0\0" + block
        path.write_bytes(raw[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + raw[2:])

    head = b"II*\0\x08\0\0\0"
    for side in ("ground", "satellite"):
        for k in range(3):
            trees.jpeg(tmp_path / side / f"g{k}.jpg", exif=trees.gps(46.2 + k / 1e4, 7.4))
    beyond = struct.pack("<HHHII", 1, 0x8825, 4, 1, 0x00FFFF00) + bytes(4)
    with_exif(tmp_path / "ground" / "h_beyond.jpg", head + beyond)
    with_exif(tmp_path / "ground" / "h_short.jpg", head + struct.pack("<HHHII", 9, 0x8825, 4, 1, 26))
    trees.jpeg(tmp_path / "ground" / "i_range.jpg", exif=trees.gps(655.35, 655.35))
    trees.jpeg(tmp_path / "ground" / "j_nofix.jpg", exif=trees.gps(0.0, 0.0))
    data = open_dataset("folders", tmp_path)
    assert data.query.positions.known.tolist() == [True] * 3 + [False] * 4
    assert "with damaged or impossible positions in their tags" in data.note
    assert all(data.query.read(i).shape == (3, 16, 16) for i in range(7))


def test_same_names(tmp_path):
    """Two cameras that number from 0001: a row without its folder stands for neither."""
    for camera in ("camA", "camB"):
        trees.jpeg(tmp_path / "ground" / camera / "0001.jpg")
    trees.jpeg(tmp_path / "satellite" / "t.jpg")
    table = tmp_path / "positions.csv"
    table.write_text("file,latitude,longitude\n0001.jpg,46.2,7.4\n")
    with pytest.raises(InputError, match=r"stands for camA/0001\.jpg and camB/0001\.jpg"):
        open_dataset("folders", tmp_path, query_csv=table)
    table.write_text("file,latitude,longitude\ncamB/0001.jpg,46.2,7.4\n")
    assert open_dataset("folders", tmp_path, query_csv=table).query.positions.known.tolist() == [False, True]
