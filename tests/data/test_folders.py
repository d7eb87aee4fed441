"""Your own imagery: positions from tables, EXIF, GeoTIFF and tile names; none of them needed."""

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from ucvgl.data import open_dataset, read_folders, read_position_table
from ucvgl.data.folders import image_position, tile_centre
from ucvgl.errors import InputError
from ucvgl.positions import Metres, to_utm


def picture(path, exif=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 16, 3), 90, np.uint8)).save(path, **({"exif": exif} if exif else {}), **options)


def gps(lat, lon):
    exif = Image.Exif()

    def parts(value):
        degrees, rest = divmod(abs(value), 1)
        minutes, rest = divmod(rest * 60, 1)
        return degrees, minutes, round(rest * 60, 6)

    exif[0x8825] = {1: "S" if lat < 0 else "N", 2: parts(lat), 3: "W" if lon < 0 else "E", 4: parts(lon)}
    return exif


def geotiff(path, epsg, tie, scale, geographic=False):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, values in ((33550, (*scale, 0.0)), (33922, (0.0, 0.0, 0.0, *tie, 0.0))):
        tags[tag], tags.tagtype[tag] = values, 12
    key = (2048 if geographic else 3072, 0, 1, epsg)
    tags[34735], tags.tagtype[34735] = (1, 1, 0, 1, *key), 3
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(path, tiffinfo=tags)


@pytest.fixture
def folders(tmp_path):
    for i in range(3):
        picture(tmp_path / "ground" / f"photo{i}.jpg")
    for i in range(4):
        picture(tmp_path / "satellite" / "deeper" / f"tile{i}.png")
    return tmp_path


def test_no_positions_and_no_pairs(folders):
    views = open_dataset("folders", folders)
    assert (len(views.ground), len(views.satellite)) == (3, 4)
    assert views.ground.positions is None
    assert all(views.positives[i] is None for i in range(3))
    assert "0 of 3" in views.note
    assert views.satellite.ids[0] == "deeper/tile0.png"


def test_table_with_other_names_and_missing_rows(folders):
    table = folders / "places.csv"
    table.write_text("Filename;Longitude [deg];Latitude [deg];compass\nphoto0.jpg;24.9;60.1;3\nphoto2;24.8;60.2;4\n")
    views = read_folders(folders / "ground", folders / "satellite", table)
    assert views.ground.positions.known.tolist() == [True, False, True]
    assert views.ground.positions.values[2].tolist() == [60.2, 24.8]
    assert "2 of 3" in views.note


def test_table_in_metres(folders):
    table = folders / "places.csv"
    table.write_text("id,east,north\nphoto0,1.5,2\nphoto1,3,4\n")
    assert read_folders(folders / "ground", folders / "satellite", table).ground.positions.frame == Metres(
        "the frame of places.csv"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "at least one line"),
        ("id,lat\na,1\n", ":1: expected a header"),
        ("photo0,60,24\n", ":1: expected a header"),
        ("id,lat,lon\nphoto0,60\n", ":2: expected 3 columns"),
        ("id,lat,lon\nphoto0,60,east\n", ":2: expected a finite number"),
        ("id,lat,lon\nphoto0,60,nan\n", ":2: expected a finite number"),
        ("id,lat,lon\nphoto0,124.9,60.1\n", ":2.*look swapped"),
        ("id,lat,lon\nphoto0,1,2\nphoto0,1,2\n", ":3: expected every id once"),
        ("id,lat,lon\nsomething,1,2\n", "ids such as"),
        ('id,lat,lon\n"photo0,1,2\n', "quotes"),
        ("id,lat,lon\n\udcff,1,2\n", "UTF-8"),
    ],
)
def test_bad_tables(text, says, folders):
    table = folders / "places.csv"
    table.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=says):
        read_folders(folders / "ground", folders / "satellite", table)


def test_tables_exchanged_against_the_tiles(folders):
    good, bad = folders / "tiles.csv", folders / "ground.csv"
    good.write_text("id,lat,lon\n" + "".join(f"tile{i},60.1{i},24.9\n" for i in range(4)))
    bad.write_text("id,lat,lon\n" + "".join(f"photo{i},24.9,60.1{i}\n" for i in range(3)))
    with pytest.raises(InputError, match="exchanged"):
        read_folders(folders / "ground", folders / "satellite", bad, good)


def test_exif_positions(tmp_path):
    picture(tmp_path / "ground" / "a.jpg", gps(60.1699, 24.9384))
    picture(tmp_path / "ground" / "b.jpg")
    picture(tmp_path / "ground" / "c.jpg", gps(-33.8568, -151.2153))
    picture(tmp_path / "satellite" / "t.png")
    places = read_folders(tmp_path / "ground", tmp_path / "satellite").ground.positions
    assert places.values[0] == pytest.approx([60.1699, 24.9384], abs=1e-6)
    assert places.values[2] == pytest.approx([-33.8568, -151.2153], abs=1e-6)
    assert places.known.tolist() == [True, False, True]
    picture(tmp_path / "ground" / "d.jpg", gps(160.0, 24.0))
    with pytest.raises(InputError, match=r"d\.jpg.*look swapped"):
        read_folders(tmp_path / "ground", tmp_path / "satellite")


def test_geotiff_positions(tmp_path):
    geotiff(tmp_path / "wgs.tif", 4326, (24.9, 60.2), (0.001, 0.0005), geographic=True)
    assert image_position(tmp_path / "wgs.tif") == pytest.approx((60.1975, 24.91))
    east, north, zone, _ = to_utm([60.2], [24.9])
    geotiff(tmp_path / "utm.tif", 32600 + zone, (east[0] - 5, north[0] + 2.5), (0.5, 0.5))
    assert image_position(tmp_path / "utm.tif") == pytest.approx((60.2, 24.9), abs=1e-8)
    east, north, zone, _ = to_utm([-35.28], [149.13])
    geotiff(tmp_path / "south.tif", 32700 + zone, (east[0] - 5, north[0] + 2.5), (0.5, 0.5))
    assert image_position(tmp_path / "south.tif") == pytest.approx((-35.28, 149.13), abs=1e-8)
    lat, lon = tile_centre(17, 74595, 37926)
    side = 2 * np.pi * 6378137 / 2**17
    x, y = (74595 / 2**17 - 0.5) * 2**17 * side, (0.5 - 37926 / 2**17) * 2**17 * side
    geotiff(tmp_path / "mercator.tif", 3857, (x, y), (side / 20, side / 10))
    assert image_position(tmp_path / "mercator.tif") == pytest.approx((lat, lon), abs=1e-9)
    geotiff(tmp_path / "other.tif", 2056, (2.6e6, 1.2e6), (1.0, 1.0))
    with pytest.raises(InputError, match="EPSG 2056"):
        image_position(tmp_path / "other.tif")


def test_tile_names(tmp_path):
    assert tile_centre(0, 0, 0) == pytest.approx((0, 0))
    assert tile_centre(1, 0, 0)[0] > 0 > tile_centre(1, 0, 0, "tms")[0]
    picture(tmp_path / "ground" / "a.jpg")
    picture(tmp_path / "satellite" / "17" / "74595" / "37926.png")
    picture(tmp_path / "satellite" / "17_74596_37926.png")
    views = read_folders(tmp_path / "ground", tmp_path / "satellite", tile_names="xyz")
    # the published formula from degrees to tile numbers (OpenStreetMap wiki, "Slippy map tilenames") leads back to the
    # tile
    for (lat, lon), x in zip(views.satellite.positions.values, (74595, 74596), strict=True):
        phi = np.radians(lat)
        assert 2**17 * (lon + 180) / 360 == pytest.approx(x + 0.5)
        assert 2**17 * (1 - np.log(np.tan(phi) + 1 / np.cos(phi)) / np.pi) / 2 == pytest.approx(37926.5)
    assert (views.satellite.positions.values[:, 0] > 0).all()
    south = read_folders(tmp_path / "ground", tmp_path / "satellite", tile_names="tms").satellite.positions
    assert south.values == pytest.approx(views.satellite.positions.values * [-1, 1])
    picture(tmp_path / "satellite" / "3" / "9" / "1.png")
    with pytest.raises(InputError, match=r"1\.png"):
        read_folders(tmp_path / "ground", tmp_path / "satellite", tile_names="xyz")


def test_unreadable_tags_name_the_file(folders):
    (folders / "ground" / "photo1.jpg").write_bytes(b"\xff\xd8\xff\xe1\x00")
    with pytest.raises(InputError, match=r"photo1\.jpg"):
        open_dataset("folders", folders)
    (folders / "ground" / "photo1.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"photo1\.jpg"):
        open_dataset("folders", folders)


def test_absent_and_empty_folders(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        open_dataset("folders", tmp_path)
    (tmp_path / "ground").mkdir()
    with pytest.raises(InputError, match="photographs"):
        open_dataset("folders", tmp_path)


def test_reading_a_table_needs_no_images(tmp_path):
    (tmp_path / "t.csv").write_text("key,lat,lng\nx,1,2\n")
    ids, positions = read_position_table(tmp_path / "t.csv")
    assert ids == ["x"]
    assert positions.values.tolist() == [[1, 2]]
