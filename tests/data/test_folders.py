"""Own imagery: pairs by equal names; positions from tables and EXIF, none of them needed."""

import dataset_trees as trees
import numpy as np
import pytest

from ucvgl.data import detect_layout, open_dataset, parts, read_position_table
from ucvgl.errors import InputError
from ucvgl.positions import Metres


@pytest.fixture
def folders(tmp_path):
    for i in range(3):
        trees.jpeg(tmp_path / "ground" / f"photo{i}.jpg")
    for i in range(4):
        trees.jpeg(tmp_path / "satellite" / "deeper" / f"tile{i}.jpeg")
    return tmp_path


def test_tables(folders):
    table = folders / "places.csv"
    table.write_text(
        "Filename;Longitude [deg];Latitude [deg];compass\nphoto0.jpg;24.9;60.1;3\nphoto2;24.8;60.2;4\nphoto1;;;\n"
    )
    data = open_dataset("folders", folders, query_csv=table)
    assert (len(data.gallery), data.labelled, parts("folders", folders)) == (4, False, ("train",))
    assert data.query.positions.known.tolist() == [True, False, True]
    assert data.query.positions.values[2].tolist() == [60.2, 24.8]
    assert "2 of 3" in data.note
    table.write_text("id,east,north\nphoto0,1.5,2\nphoto1,3,4\n")
    assert read_position_table(table)[1].frame == Metres("the frame of places.csv")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "at least one line"),
        ("id,lat\na,1\n", ":1: expected a header"),
        ("id,lat,lon\nphoto0,60\n", ":2: expected 3 columns"),
        ("id,lat,lon\nphoto0,60,nan\n", ":2: expected a finite number"),
        ("id,lat,lon\nphoto0,124.9,60.1\n", ":2.*look swapped"),
        ("id,lat,lon\nphoto0,1,2\nphoto0,1,2\n", ":3: expected every file once"),
        ("id,lat,lon\nsomething,1,2\n", "ids such as"),
        ('id,lat,lon\n"photo0,1,2\n', "quotes"),
        ("id,lat,lon\n\udcff,1,2\n", ":2: expected UTF-8"),
    ],
)
def test_bad_tables(text, says, folders):
    table = folders / "places.csv"
    table.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=says):
        open_dataset("folders", folders, query_csv=table)


def test_a_side_exchanged_against_the_other(folders):
    good, bad = folders / "tiles.csv", folders / "ground.csv"
    good.write_text("id,lat,lon\n" + "".join(f"tile{i},60.1{i},24.9\n" for i in range(4)))
    bad.write_text("id,lat,lon\n" + "".join(f"photo{i},24.9,60.1{i}\n" for i in range(3)))
    with pytest.raises(InputError, match="exchanged"):
        open_dataset("folders", folders, query_csv=bad, gallery_csv=good)


def test_exif_positions(folders):
    trees.jpeg(folders / "ground" / "a.jpg", exif=trees.gps(60.1699, 24.9384))
    trees.jpeg(folders / "ground" / "c.jpg", exif=trees.gps(-33.8568, -151.2153))
    places = open_dataset("folders", folders).query.positions
    assert places.values[:2] == pytest.approx(np.array([[60.1699, 24.9384], [-33.8568, -151.2153]]), abs=1e-6)
    assert places.known.tolist() == [True, True, False, False, False]


def test_equal_names_are_pairs(tmp_path):
    for i in range(3):
        trees.jpeg(tmp_path / "drone" / "deeper" / f"{i}.JPG")
        trees.jpeg(tmp_path / "satellite" / "deeper" / f"{i + 1}.jpeg")
    assert detect_layout(tmp_path) == "pairs"
    data = open_dataset("auto", tmp_path)
    assert [row.tolist() for row in data.positives] == [[], [0], [1]]
    assert "1 of 3 queries have no right image" in data.note
    with pytest.raises(InputError, match="at least 20 pairs"):
        open_dataset("pairs", tmp_path, "train")
    trees.jpeg(tmp_path / "drone" / "deeper" / "2.png")
    with pytest.raises(InputError, match="every id once, found 1 repeated, first 'deeper/2'"):
        open_dataset("pairs", tmp_path)
