"""Street pictures: kinds, fields of view and headings with their sources, reasons why one is not used."""

import math

import numpy as np
import pytest
from geo_inputs import tags
from PIL import Image

from ucvgl.errors import InputError
from ucvgl.locate.pictures import check_ground, fov_from_35mm


def picture(path, width, height, exif=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(width).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, **({} if exif is None else {"exif": exif}), **options)
    return path


def one(folder, **settings):
    (found,) = check_ground(folder, **settings).pictures
    return found


@pytest.mark.parametrize(
    ("width", "height", "kind", "reason"),
    [
        (256, 128, "panorama", None), (1232, 224, "panorama", None), (616, 112, "panorama", None),
        (160, 120, "photo", "without a field of view"), (90, 160, "photo", "without a field of view"),
        (240, 100, None, "neither panorama"), (400, 40, None, "neither panorama"), (40, 400, None, "neither panorama"),
        (62, 31, "panorama", "less than 32"), (30, 40, "photo", "less than 32"),
    ],
)  # fmt: skip
def test_kinds_by_shape(tmp_path, width, height, kind, reason):
    picture(tmp_path / "a.png", width, height)
    found = one(tmp_path)
    assert (found.kind, found.width, found.height) == (kind, width, height)
    assert (found.reason_unusable is None) if reason is None else (reason in found.reason_unusable)
    assert (found.fov_deg, found.fov_source) == ((360.0, "format") if kind == "panorama" else (None, ""))
    assert (found.heading_deg, found.heading_source) == (None, "")


def test_stated_kinds_count_more_than_shapes(tmp_path):
    picture(tmp_path / "a.png", 240, 100)
    assert one(tmp_path, kind="panorama").reason_unusable is None
    assert "without a field of view" in one(tmp_path, kind="photo").reason_unusable
    assert one(tmp_path, kind="photo", fov_deg=70.0).fov_source == "stated"
    picture(tmp_path / "a.png", 160, 120)
    assert "2 or more" in one(tmp_path, kind="panorama").reason_unusable


@pytest.mark.parametrize("reverse", [False, True])
def test_table_then_tags_then_statement(tmp_path, reverse):
    for name in "abcd":
        exif = tags(45.0, focal35=28) if name in "ab" else None
        picture(tmp_path / "g" / f"{name}.jpg", 160, 120, exif)
    rows = ["a.jpg,70,350", "c,,-10", "elsewhere.jpg,1,1"]
    (tmp_path / "t.csv").write_text(
        "file,fov_deg [deg],heading_deg\n" + "\n".join(rows[:: -1 if reverse else 1]) + "\n"
    )
    ground = check_ground(tmp_path / "g", tmp_path / "t.csv", fov_deg=55.0, heading_deg=5.0)
    a, b, c, d = ground.pictures
    assert (a.fov_deg, a.fov_source, a.heading_deg, a.heading_source) == (70, "table", 350, "table")
    assert (b.fov_source, b.heading_deg, b.heading_source) == ("exif", 45, "exif")
    assert b.fov_deg == pytest.approx(math.degrees(2 * math.atan(43.2666 * 0.8 / 2 / 28)), abs=1e-3)
    assert (c.fov_deg, c.fov_source, c.heading_deg, c.heading_source) == (55, "stated", 350, "table")
    assert (d.fov_deg, d.fov_source, d.heading_deg, d.heading_source) == (55, "stated", 5, "stated")
    assert ground.headings("photo").tolist() == [350, 45, 350, 5]


def test_equivalent_focal_lengths():
    assert fov_from_35mm(50, 3000, 2000) == pytest.approx(math.degrees(2 * math.atan(18 / 50)))  # film's own shape
    assert fov_from_35mm(50, 2000, 3000) == pytest.approx(math.degrees(2 * math.atan(12 / 50)))
    wide, tall = fov_from_35mm(26, 4000, 3000), fov_from_35mm(26, 3000, 4000)
    assert math.tan(math.radians(wide / 2)) / math.tan(math.radians(tall / 2)) == pytest.approx(4 / 3)


def test_a_turned_photo_and_a_magnetic_compass(tmp_path):
    picture(tmp_path / "a.jpg", 160, 120, tags(370.0, "M", focal35=26, orientation=6))
    found = one(tmp_path)
    assert (found.width, found.height) == (120, 160)
    assert found.fov_deg == pytest.approx(fov_from_35mm(26, 120, 160))
    assert (found.heading_deg, found.heading_source) == (pytest.approx(10.0), "exif, magnetic")


def test_panoramas_that_say_so(tmp_path):
    xmp = b'<x:xmpmeta><r GPano:ProjectionType="equirectangular" GPano:PoseHeadingDegrees="-85.0"/></x:xmpmeta>'
    picture(tmp_path / "a.jpg", 240, 100, xmp=xmp)
    found = one(tmp_path)
    assert (found.kind, found.fov_deg, found.heading_deg, found.heading_source) == ("panorama", 360, 275, "xmp")
    (tmp_path / "t.csv").write_text("file,fov_deg\nb,360\n")
    picture(tmp_path / "g" / "b.jpg", 240, 100)
    assert one(tmp_path / "g", table=tmp_path / "t.csv").kind == "panorama"
    for fov in (200, 0, 361):
        (tmp_path / "t.csv").write_text(f"file,fov_deg\nb,{fov}\n")
        assert f"{fov} degrees: a photo has 0 to 180" in one(tmp_path / "g", table=tmp_path / "t.csv").reason_unusable


def test_damaged_pictures_are_named_counted_and_skipped(tmp_path):
    for k in range(4):
        picture(tmp_path / "deeper" / f"{k}.jpg", 256, 128)
    picture(tmp_path / "5.png", 256, 128)
    half = (tmp_path / "deeper" / "1.jpg").read_bytes()
    (tmp_path / "deeper" / "1.jpg").write_bytes(half[: len(half) // 2])
    half = (tmp_path / "5.png").read_bytes()
    (tmp_path / "5.png").write_bytes(half[: len(half) // 2])
    (tmp_path / "4.jpg").write_bytes(b"")
    ground = check_ground(tmp_path, heading_deg=0.0)
    assert [p.file for p in ground.unusable] == ["4.jpg", "5.png", "deeper/1.jpg"]
    assert [p.reason_unusable[:14] for p in ground.unusable] == ["an empty file", "no whole image", "no whole image"]
    assert ground.counts() == {"panoramas": 3, "photos": 0, "without heading": 0, "unusable": 3}
    assert [p.file for p in ground.of_kind("panorama")] == ["deeper/0.jpg", "deeper/2.jpg", "deeper/3.jpg"]
    assert ground.of_kind("photo") == []


def test_the_report(tmp_path):
    for k in range(3):
        picture(tmp_path / f"pano{k}.jpg", 256, 128)
    picture(tmp_path / "photo.jpg", 160, 120, tags(3.0, focal35=28))
    for k in range(12):
        (tmp_path / f"x{k:02d}.jpg").write_bytes(b"\xff\xd8\xff")
    text = check_ground(tmp_path).text()
    assert "16 pictures" in text
    assert "3 panoramas, 1 photos, 3 without heading, 12 unusable" in text
    assert "fields of view of photos: 1 from exif" in text
    assert "headings: 1 from exif, 3 unknown" in text
    assert "x09.jpg: no whole image" in text
    assert "x10.jpg" not in text
    assert "and 2 more" in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file\na\n", "fov_deg or heading_deg"),
        ("fov_deg\n3\n", "a header with a file column"),
        ("file,fov_deg\na,70,3\n", ":2: expected 2 columns"),
        ("file,fov_deg\na,wide\n", ":2: expected a finite number"),
        ("file,fov_deg\na,70\na,71\n", ":3: expected every file once"),
        ("file,fov_deg\nb,70\n", r"ids such as 'a\.png', found ids such as 'b'"),
        ("file,fov_deg\n", "no rows"),
        ('file,fov_deg\n"a,70\n', "quotes"),
    ],
)
def test_bad_tables(tmp_path, text, says):
    picture(tmp_path / "g" / "a.png", 160, 120)
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=says):
        check_ground(tmp_path / "g", tmp_path / "t.csv")


def test_bad_settings(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        check_ground(tmp_path / "absent")
    with pytest.raises(InputError, match=r"street pictures .*found no image"):
        check_ground(tmp_path)
    picture(tmp_path / "a.png", 256, 128)
    for settings in ({"fov_deg": 0.0}, {"fov_deg": 180.0}, {"heading_deg": math.inf}):
        with pytest.raises(InputError):
            check_ground(tmp_path, **settings)


@pytest.mark.parametrize(
    ("stamp", "fraction", "seconds"),
    [
        ("2024:05:06 07:08:09", None, 9.0), ("2024:05:06 07:08:09", "25", 9.25), ("2024:05:06 07:08:09\0", "5  ", 9.5),
        ("0000:00:00 00:00:00", None, None), ("    :  :     :  :  ", None, None), (None, None, None),
    ],
)  # fmt: skip
def test_time_stamps_of_exif(tmp_path, stamp, fraction, seconds):
    exif = Image.Exif()
    exif[0x8769] = (
        {0xA405: 24} | ({} if stamp is None else {0x9003: stamp}) | ({} if fraction is None else {0x9291: fraction})
    )
    picture(tmp_path / "a.jpg", 160, 120, exif)
    taken = one(tmp_path).taken_s
    assert (taken if taken is None else taken % 60) == seconds
