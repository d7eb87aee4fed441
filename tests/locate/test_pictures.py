"""Street pictures: kinds, fields of view and headings with their sources, reasons why one is not used; and north up, where what
comes out is what a camera that faces north shows."""

import math

import geo_inputs as g
import pytest
import torch
from PIL import Image

from ucvgl.errors import InputError
from ucvgl.geometry import TopView, complete_panorama, perspective_view, photo_top_view, top_view
from ucvgl.locate.inputs import Request
from ucvgl.locate.pictures import BY_LENS, BY_SHAPE, SPHERE, STRIPPED, Picture, check_ground, north_up

PLAIN = g.tags()  # of no camera
FOVLESS = "without a field of view"


def one(folder, **settings):
    """The picture of a folder, or why it is left out."""
    ground = check_ground(folder, **settings)
    return ground.pictures[0] if ground.pictures else ground.left_out[0][1]


@pytest.mark.parametrize(
    ("pixels", "exif", "settings", "kind", "says"),
    [
        # by shape and edges
        (g.ring(128, 256), PLAIN, {}, "panorama", None),
        (g.ring(128, 640), PLAIN, {}, "panorama", STRIPPED),
        (g.texture(128, 256), PLAIN, {}, "panorama", BY_SHAPE),
        (g.texture(120, 160), PLAIN, {}, "photo", FOVLESS),
        (g.texture(160, 90), PLAIN, {}, "photo", FOVLESS),
        (g.texture(100, 240), PLAIN, {}, None, "neither panorama"),
        (g.texture(400, 40), PLAIN, {}, None, "neither panorama"),
        # tags and edges count more than the shape
        (g.texture(128, 256), g.tags(focal=4.2), {}, "photo", FOVLESS),  # a lens, of unknown field
        (g.ring(128, 256), g.tags(focal=1.3), {}, "panorama", None),  # a 360 camera that lost its XMP
        (g.texture(128, 640), g.tags(focal=4.2), {}, None, "edges that meet"),  # a telephone's sweep
        # a statement counts more than all
        (g.texture(100, 240), PLAIN, {"kind": "panorama"}, "panorama", STRIPPED),
        (g.texture(100, 240), PLAIN, {"kind": "photo"}, "photo", FOVLESS),
        (g.ring(128, 256), PLAIN, {"kind": "photo", "fov_deg": 70.0}, "photo", None),
        (g.texture(120, 160), PLAIN, {"kind": "panorama"}, "panorama", "has 2 or more"),
    ],
)
def test_kinds(tmp_path, pixels, exif, settings, kind, says):
    g.save(tmp_path / "a.jpg", pixels, exif=exif, quality=95)
    found = one(tmp_path, **settings)
    if says not in (None, BY_SHAPE, STRIPPED):
        assert says in found
        return
    assert (found.kind, found.width, found.height) == (kind, pixels.shape[1], pixels.shape[0])
    assert found.notes == ((says,) if says else ())
    assert found.fov_deg == (360 if kind == "panorama" else settings["fov_deg"])
    assert found.heading_deg is None


TURNED = {"ProjectionType": "equirectangular", "PoseHeadingDegrees": "-85.0"}


@pytest.mark.parametrize(
    ("size", "xmp", "settings", "says"),
    [
        ((100, 240), g.gpano(**TURNED), {}, (360, 275)),
        ((100, 240), b'<x><r GPano:ProjectionType="equirectangular" GPano:PoseHeadingDegrees="-85.0"/></x>', {},
         (360, 275)),
        ((512, 1024), g.cropped(0, 0, 1024, 512, 1024, PoseHeadingDegrees=90), {}, (360, 90)),
        # the heading is that of the sphere's middle, not of a part beside it
        ((128, 256), g.cropped(0, 192, 256, 128, 1024, PoseHeadingDegrees=10), {}, (90, 235)),
        ((512, 1024), g.cropped(512, 300, 1024, 256, 2048), {}, "it was cut after that was written"),
        ((512, 1024), g.cropped(512, 300, 1024, 256, 2048), {"kind": "panorama"}, (360, None)),
        ((256, 1024), g.gpano(ProjectionType="cylindrical"), {}, "cylindrical projection"),
        ((256, 1024), g.cropped(1500, 300, 1024, 256, 2048), {}, "beyond the sphere"),
    ],
)  # fmt: skip
def test_panoramas_that_say_so(tmp_path, size, xmp, settings, says):
    g.save(tmp_path / "a.jpg", g.texture(*size), xmp=xmp)
    found = one(tmp_path, **settings)
    if isinstance(says, str):
        assert says in found
    else:
        assert (found.fov_deg, found.heading_deg) == pytest.approx(says)


def test_a_field_of_view_in_a_table_tells_the_kind(tmp_path):
    found = []
    for fov in (360, 200, 0, 361):
        (tmp_path / "t.csv").write_text(f"file,fov_deg\nb,{fov}\n")
        g.save(tmp_path / "g" / "b.jpg", g.texture(100, 240))
        found.append(one(tmp_path / "g", table=tmp_path / "t.csv"))
    says = "a field of view of {} degrees: a photo has 0 to 180, a panorama 360"
    assert (found[0].kind, found[1:]) == ("panorama", [*map(says.format, (200, 0, 361))])


def test_table_then_tags_then_statement(tmp_path):
    for name in "abcd":
        tags = g.tags(45.0, focal35=28) if name in "ab" else PLAIN
        g.save(tmp_path / "g" / f"{name}.jpg", g.texture(120, 160), exif=tags)
    (tmp_path / "t.csv").write_text("file,fov_deg [deg],heading_deg\nelsewhere.jpg,1,1\nc,,-10\na.jpg,70,350\n")
    ground = check_ground(tmp_path / "g", tmp_path / "t.csv", fov_deg=55.0, heading_deg=5.0)
    by_lens = pytest.approx(math.degrees(2 * math.atan(43.2666 * 0.8 / 2 / 28)), abs=1e-3)
    assert [(p.fov_deg, p.heading_deg, p.notes) for p in ground.pictures] == [
        (70, 350, ()), (by_lens, 45, (BY_LENS,)), (55, 350, ()), (55, 5, ()),
    ]  # fmt: skip


def test_a_turned_photo_and_a_compass_beyond_a_turn(tmp_path):
    g.save(tmp_path / "a.jpg", g.texture(120, 180), exif=g.tags(370.0, focal35=50, orientation=6))
    found = one(tmp_path)
    assert (found.width, found.height, found.heading_deg) == (120, 180, pytest.approx(10.0))
    assert found.fov_deg == pytest.approx(math.degrees(2 * math.atan(12 / 50)))  # film's own shape


def test_damaged_pictures_are_named_counted_and_skipped(tmp_path):
    for name in ("deeper/0.jpg", "deeper/1.jpg", "5.png"):
        file = g.save(tmp_path / name, g.ring(128, 256))
        if name != "deeper/0.jpg":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8\xff")
    g.save(tmp_path / "photo.jpg", g.texture(120, 160), exif=g.tags(3.0, focal35=28))
    ground = check_ground(tmp_path)
    assert [name for name, _ in ground.left_out] == ["5.png", "deeper/1.jpg", "x.jpg"]
    assert {reason[:14] for _, reason in ground.left_out} == {"no whole image"}
    assert ground.counts() == {"panoramas": 1, "photos": 1, "without heading": 1, "unusable": 3}
    assert [(p.file, p.kind) for p in ground.pictures] == [("deeper/0.jpg", "panorama"), ("photo.jpg", "photo")]


def test_bad_tables_and_settings(tmp_path):
    g.save(tmp_path / "g" / "a.png", g.texture(120, 160))
    for text, says in (
        ("file\na\n", "fov_deg or heading_deg"),
        ("file,fov_deg\na,wide\n", ":2: expected a finite number"),
    ):
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(InputError, match=says):
            check_ground(tmp_path / "g", tmp_path / "t.csv")
    (tmp_path / "empty").mkdir()
    for folder, says in (("absent", "no such folder"), ("empty", r"street pictures.*found none")):
        with pytest.raises(InputError, match=says):
            check_ground(tmp_path / folder)
    for fov_deg in (0.0, 180.0):
        with pytest.raises(InputError, match="fov_deg"):
            Request(tmp_path, tmp_path, tmp_path, fov_deg=fov_deg)


@pytest.mark.parametrize(
    ("stamp", "fraction", "seconds"),
    [("2024:05:06 07:08:09", "", 9.0), ("2024:05:06 07:08:09\0", "25  ", 9.25), ("2024:05:06 07:08:09", "??", 9.0),
     ("0000:00:00 00:00:00", "5", None), ("", "", None)],
)  # fmt: skip
def test_time_stamps_of_exif(tmp_path, stamp, fraction, seconds):
    exif = Image.Exif()
    exif[0x8769] = {0xA405: 24, 0x9003: stamp, 0x9291: fraction}
    g.save(tmp_path / "a.jpg", g.texture(120, 160), exif=exif)
    taken = one(tmp_path).taken_s
    assert (taken if taken is None else taken % 60) == seconds


# ------------------------------------------------------------------------------------------------------------- north up

VIEW = TopView.from_span(24, 20.0)
NORTH = torch.zeros(1, dtype=torch.float64)
WHOLE = g.seamless(64, 128)


def panorama(image, crop=SPHERE):
    return image, Picture("a.jpg", "panorama", image.shape[2], image.shape[1], crop=crop)


def apart(a, b):
    return float((a.float() - b.float()).abs().mean())


@pytest.mark.parametrize("columns", [16, 32, 100])
def test_a_turned_panorama_gives_the_same(columns):
    """Rolled to the left by h / 360 of its width its centre shows heading h."""
    turned = panorama(WHOLE.roll(-columns, 2))
    heading = torch.tensor([columns / 128 * 360], dtype=torch.float64)
    expected = north_up(*panorama(WHOLE), NORTH, VIEW)
    assert apart(north_up(*turned, heading, VIEW), expected) < 0.6
    assert apart(north_up(*turned, NORTH, VIEW), expected) > 3
    assert apart(north_up(*turned, -heading, VIEW), expected) > 3


def test_a_photo_gives_its_sector():
    whole = g.seamless(128, 256)
    photo = perspective_view(whole[None], (60, 80), 90.0, 40.0)[0]
    turns = torch.tensor([40.0, 130.0], dtype=torch.float64)
    found = north_up(photo, Picture("a.jpg", "photo", 80, 60, 90.0), turns, VIEW)
    assert found.shape == (2, 3, 24, 24)
    expected = top_view(whole[None], VIEW)[0]
    seen = photo_top_view(torch.ones(1, 1, 60, 80), 90.0, VIEW, heading_deg=turns[:1])[0, 0] > 0
    assert 50 < seen.sum() < 24 * 24 / 3
    assert apart(found[0][:, seen], expected[:, seen]) < 3
    assert bool((found[0][:, ~seen] == 0).all())
    assert apart(found[1], found[0].rot90(-1, (1, 2))) < 1  # a quarter further clockwise, from above


@pytest.mark.parametrize(("below", "width"), [(0, 128), (5, 128), (0, 129)])
def test_a_cropped_panorama_lies_in_its_place(below, width):
    # the horizon, row 32, is so many rows below the strip's middle
    strip = g.seamless(64, width)[:, 16 - below : 48 - below]
    found = north_up(*panorama(strip, (0.0, (16 - below) / 64, 1.0, 0.5)), NORTH, VIEW)
    completed = complete_panorama(strip[None, :, :, :128], strip_offset=below / 128)
    assert apart(found, top_view(completed, VIEW)) < (0.1 if width == 128 else 3)
    white = complete_panorama(torch.full_like(strip[None, :, :, :128], 255), strip_offset=below / 128)
    seen = top_view(white, VIEW)[0] == 255
    assert seen.sum() > 300
    assert apart(found[0][seen], top_view(WHOLE[None], VIEW)[0][seen]) < (0.6 if width == 128 else 3)


@pytest.mark.parametrize(("height", "width"), [(64, 128), (64, 126), (64, 127), (64, 130), (63, 128), (65, 128)])
def test_a_panorama_that_is_nearly_whole_is_taken_as_whole(height, width):
    """`check_ground` takes an aspect of 1.96 to 2.04 as a whole panorama; 1.97 once failed, as a crop too high."""
    found = north_up(*panorama(g.seamless(height, width)), NORTH, VIEW)
    assert (found.shape, found.dtype) == ((1, 3, 24, 24), torch.uint8)
    assert apart(found, top_view(WHOLE[None], VIEW)) < (0.1 if (height, width) == (64, 128) else 3)
    assert bool((found.flatten(2).amax(2) > 0).all())
