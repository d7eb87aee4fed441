"""Inputs of people who put pictures on a map, which an earlier edition got wrong: each is right, or one clear error.

Named by their cases; what follows a case is the rest of its kind.
"""

import json
import re
import subprocess
import sys
from dataclasses import replace

import geo_inputs as g
import numpy as np
import pytest
import rasterio
import torch
from PIL import Image, TiffTags
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from pyproj import Transformer
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from ucvgl.errors import InputError
from ucvgl.geometry import TopView
from ucvgl.locate import inputs
from ucvgl.locate.confidence import load_calibration
from ucvgl.locate.inputs import Request
from ucvgl.locate.located import Outcome, rendered
from ucvgl.locate.pictures import MAGNETIC, UNREFERENCED, check_ground, north_up, read_picture
from ucvgl.locate.search import calibration_path
from ucvgl.locate.tiles import cut, open_mosaic
from ucvgl.positions import haversine

XYZ, TMS, ZYX = "{z}/{x}/{y}.png", "{z}/{x}/{t}.png", "{z}/{y}/{x}.png"
BEFORE = '<TileMap><SRS>EPSG:3857</SRS><BoundingBox minx="{0}" miny="{1}" maxx="{2}" maxy="{3}"/>'
RESOURCE = BEFORE + '<TileSets profile="{4}"><TileSet href="18" order="18"/></TileSets></TileMap>'
BOX = (7.3988, 46.1988, 7.4030, 46.2017)
SWAPPED = (BOX[1], BOX[0], BOX[3], BOX[2])


def away(mosaic):
    """Metres from HERE to the middle of the tiles."""
    return float(haversine(np.array(mosaic.origin), np.array(g.HERE)))


def test_esri_zyx(tmp_path):
    """Nothing says that rows come first: it is said what was assumed, and an option mends it."""
    g.pyramid(tmp_path, ZYX)
    (note,) = open_mosaic(tmp_path).notes
    assert "ArcGIS service are z/y/x (--scheme zyx)" in note
    found = open_mosaic(tmp_path, scheme="zyx")
    assert away(found) < 300
    assert found.notes == ()


@pytest.mark.parametrize(("name", "scheme"), [(XYZ, "xyz"), (TMS, "tms"), (ZYX, "zyx")])
def test_tiles_of_one_scene_tell_how_they_are_named(tmp_path, name, scheme):
    g.pyramid(tmp_path, name, one_scene=True)
    found = open_mosaic(tmp_path)
    assert away(found) < 300
    assert found.notes == () if scheme == "xyz" else f"are {scheme}" in found.notes[0]


def test_gdal2tiles_tms(tmp_path):
    g.pyramid(tmp_path, TMS)
    (tmp_path / "tilemapresource.xml").write_text(RESOURCE.format(*BOX, "mercator"))
    found = open_mosaic(tmp_path)
    assert away(found) < 300
    assert "tms, as tilemapresource.xml says" in found.notes[0]
    assert away(open_mosaic(tmp_path / "18")) < 300  # the level's own name is read, and the manifest beside it
    with pytest.raises(InputError, match=r"tilemapresource\.xml: expected .* --scheme xyz, found .* tms"):
        open_mosaic(tmp_path, scheme="xyz")
    (tmp_path / "tilemapresource.xml").write_text(RESOURCE.format(*BOX, "geodetic"))
    with pytest.raises(InputError, match=r"Web Mercator .* found .* geodetic.*--profile=mercator"):
        open_mosaic(tmp_path)


@pytest.mark.parametrize(
    ("name", "manifest", "text"),
    [
        (TMS, "tilemapresource.xml", RESOURCE.format(*SWAPPED, "mercator")),  # latitude first, as of old
        (TMS, "tilemapresource.xml", RESOURCE.format(823_600, 5_813_400, 824_100, 5_814_000, "global-mercator")),
        (XYZ, "tilemapresource.xml", RESOURCE.format(*BOX, "mercator")),  # left behind by a run with --xyz
        (TMS, "metadata.json", json.dumps({"scheme": "tms"})),
        (TMS, "metadata.json", json.dumps({"bounds": ",".join(map(str, BOX))})),
        (ZYX, "tile.json", json.dumps({"bounds": BOX})),
        (ZYX, "conf.xml", "<CacheInfo><TileCacheInfo/></CacheInfo>"),
        (TMS, "metadata.json", json.dumps({"scheme": "tms", "bounds": [*BOX, 0, 1]})),  # an extent that is none
        (XYZ, "tile.json", json.dumps({"scheme": "XYZ", "bounds": (-180, -85, 180, 85)})),  # nothing that tells
        ("_alllayers/L{z:02d}/R{y:08x}/C{x:08x}.png", "conf.txt", ""),  # ArcGIS's own names need none
    ],
)
def test_manifests_are_read_and_their_extent_decides(tmp_path, name, manifest, text):
    g.pyramid(tmp_path, name)
    (tmp_path / manifest).write_text(text)
    assert away(open_mosaic(tmp_path)) < 300


# ------------------------------------------------------------------------------------------------------- georeferencing

C, S = np.cos(np.radians(20)) * 0.5, np.sin(np.radians(20)) * 0.5
FORMS = {
    "area": (32632, Affine(0.5, 0, g.EAST, 0, -0.5, g.NORTH)),
    "rotated": (32632, Affine(C, S, g.EAST, S, -C, g.NORTH)),
    "south": (32756, Affine(0.5, 0, 334_000, 0, -0.5, 6_251_000)),
    "landsat": (32656, Affine(0.5, 0, 334_000, 0, -0.5, -3_749_000)),
    "degrees": (4326, Affine(6e-6, 0, 7.4, 0, -4.5e-6, 46.2)),
    "mercator": (3857, Affine(0.7, 0, 823_765, 0, -0.7, 5_814_230)),
    "etrs89": (25832, Affine(0.5, 0, g.EAST, 0, -0.5, g.NORTH)),
    "nad83": (26918, Affine(0.5, 0, 580_000, 0, -0.5, 4_510_000)),
    "swiss": (2056, Affine(0.5, 0, 2_600_000, 0, -0.5, 1_200_000)),
    "feet": (2263, Affine(1.5, 0, 984_000, 0, -1.5, 210_000)),
    "equal area": (3035, Affine(1, 0, 4_100_000, 0, -1, 2_600_000)),
}


@pytest.mark.parametrize("point", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_geotiff_controls(tmp_path, form, point):
    """The centre of pixel column 10, row 20 lies where rasterio and pyproj say, to a tenth of a millimetre."""
    epsg, transform = FORMS[form]
    path = g.geotiff(tmp_path / "a.tif", g.texture(100, 120), crs=f"EPSG:{epsg}", transform=transform)
    if point:
        with rasterio.open(path, "r+") as file:
            file.update_tags(AREA_OR_POINT="Point")
    mosaic = open_mosaic(tmp_path)
    where = mosaic.rasters[0].transform * (10.5, 20.5)
    lon, lat = Transformer.from_crs(mosaic.rasters[0].crs, 4326, always_xy=True).transform(*where)
    with rasterio.open(path) as file:
        x, y = file.transform * (10.5, 20.5)
    expected = Transformer.from_crs(epsg, 4326, always_xy=True).transform(x, y)
    assert haversine(np.array([lat, lon]), np.array(expected[::-1])) < 1e-4


@pytest.mark.parametrize(
    ("ending", "suffix"), [(".png", ".PGW"), (".PNG", ".pgw"), (".png", ".pngw"), (".png", ".Wld")]
)
def test_world_files_in_any_letter_case(tmp_path, suffix, ending):
    g.save(tmp_path / f"a{ending}", g.texture(100, 120))
    numbers = (C, S, S, -C, g.EAST + (C + S) / 2, g.NORTH + (S - C) / 2)
    world = tmp_path / f"a{suffix}"
    world.write_text("\n".join(map(repr, map(float, numbers))))
    mosaic = open_mosaic(tmp_path, epsg=32632)
    assert mosaic.rasters[0].transform * (10.5, 20.5) == pytest.approx(np.array(FORMS["rotated"][1] * (10.5, 20.5)))
    with pytest.raises(InputError, match="--epsg"):
        open_mosaic(tmp_path)
    (tmp_path / "A.prj").write_text(rasterio.CRS.from_epsg(32632).to_wkt())
    assert np.allclose(open_mosaic(tmp_path).corners_m, mosaic.corners_m)
    (tmp_path / "A.prj").unlink()
    world.write_text("6e-6\n0\n0\n-4.5e-6\n7.4\n46.2")  # degrees
    assert away(open_mosaic(tmp_path, epsg=4326)) < 60
    world.write_text("6e-6 0 0 -4.5e-6 7.4")
    with pytest.raises(InputError, match=r"1 of 1 tiles without: a.*gdalwarp"):
        open_mosaic(tmp_path, epsg=4326)


def middle(root):
    """A candidate in the middle of a mosaic, float (3, 48, 48)."""
    candidates = cut(open_mosaic(root), 50.0, None, 48)
    return candidates.images.read(len(candidates) // 2).float()


@pytest.mark.parametrize("bands", [1, 3])
def test_tiff_16bit(tmp_path, bands):
    """An 11-bit scene is as bright as the same in 8 bits, and the stretch is said."""
    scene = g.texture(200, 200, 3, 38, 238)[..., :bands]
    g.geotiff(tmp_path / "byte" / "a.tif", scene)
    g.geotiff(tmp_path / "wide" / "a.tif", scene.astype(np.uint16) * 8)
    plain, wide = middle(tmp_path / "byte"), middle(tmp_path / "wide")
    assert plain.mean() == pytest.approx(138, abs=15)
    assert (wide - plain).abs().mean() < 1
    assert open_mosaic(tmp_path / "wide").notes == ("values of uint16 from 0 to 2047 are shown as 0 to 255",)


@pytest.mark.parametrize("kind", ["uint16", "int16", "float32"])
def test_other_ranges_are_stretched_alike_in_all_tiles(tmp_path, kind):
    """Reflectances of 0 to 10,000 with a few dead pixels: neighbours match and contrast stays."""
    for k, bright in enumerate((900, 3000)):
        values = (g.texture(100, 100, k) / 255 * bright).astype(kind)
        values[5, 5] = 32_000
        g.geotiff(tmp_path / f"{k}.tif", values, at=(g.EAST + 100 * k, g.NORTH))
    mosaic = open_mosaic(tmp_path)
    means = cut(mosaic, 100.0, 50.0, 50).images[:].float().mean((1, 2, 3))
    assert len(mosaic.notes) == 1
    assert means[0] < 0.5 * means[-1]
    assert means[-1] > 90


RGBA = ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha


@pytest.mark.parametrize("how", ["nodata", "alpha", "mask", "white", "nan"])
def test_tiff_collar(tmp_path, how):
    """Two scenes overlap; where the second has no data, the first is seen alone, and not mixed with black."""
    kind, scale = (np.float32, 255) if how == "nan" else (np.uint8, 1)
    first = np.full((200, 200, 3), 200, kind) / kind(scale)
    second = first.copy()
    second[:, :100] = {"white": 255, "nan": np.nan}.get(how, 0)
    valid = np.repeat(np.repeat(np.uint8([[0, 255]]), 100, 1), 200, 0)
    options = {"nodata": {"nodata": 0}, "white": {"nodata": 255}, "mask": {"mask": valid}, "alpha": {"colours": RGBA}}
    if how == "alpha":
        second = np.dstack([second, valid])
    g.geotiff(tmp_path / "b.tif", first.astype(kind))
    g.geotiff(tmp_path / "a.tif", second.astype(kind), at=(g.EAST + 100, g.NORTH), **options.get(how, {}))
    candidates = cut(open_mosaic(tmp_path), 20.0, 10.0, 32)
    means = candidates.images[:].float().mean((1, 2, 3)).tolist()
    assert means == pytest.approx([200] * len(means), abs=4)  # a corner may lie beyond the tiles by a hundredth
    assert len(candidates) > 450


@pytest.mark.parametrize("how", ["RGBA", "LA", "P"])
def test_what_is_transparent_in_a_tile_is_no_ground(tmp_path, how):
    """A tile at the edge of a pyramid, its eastern half transparent: candidates there are left out."""
    image, options = Image.new("RGBA", (256, 256)), {}
    image.paste((200, 200, 200, 255), (0, 0, 128, 256))
    if how == "P":
        image, options = Image.fromarray(np.asarray(image.getchannel("A")) // 255, "P"), {"transparency": 0}
        image.putpalette([0, 0, 0, 200, 200, 200])
    (tmp_path / "17" / "68231").mkdir(parents=True)
    image.convert(how).save(tmp_path / "17" / "68231" / "46450.png", **options)
    candidates = cut(open_mosaic(tmp_path), 20.0, 10.0, 32)
    assert candidates.left_out >= len(candidates)
    assert (candidates.centre_m[:, 0] < 0).all()
    assert candidates.images[:].unique().tolist() == [200]


def test_tiff_large(tmp_path):
    """13,400 x 13,400, more than Pillow reads."""
    profile = {"driver": "GTiff", "count": 1, "height": 13_400, "width": 13_400, "dtype": "uint8", "crs": "EPSG:32632"}
    where = Affine(0.1, 0, g.EAST, 0, -0.1, g.NORTH)
    with rasterio.open(
        tmp_path / "a.tif", "w", **profile, transform=where, compress="deflate", sparse_ok=True, tiled=True
    ):
        pass
    found = cut(open_mosaic(tmp_path), 50.0, None, 48)
    assert (found.mosaic.left_out, len(found) > 10_000) == ((), True)


@pytest.mark.parametrize("how", ["minisblack", "rgb", "bgr", "float", "floatgrey", "palette", "miniswhite"])
def test_tiff_rgbn(tmp_path, how):
    """Bands, sample types and palettes come to the colours of the scene."""
    scene = g.texture(200, 200, 3, 120, 250)
    g.geotiff(tmp_path / "plain" / "a.tif", scene)
    reduced = Image.fromarray(scene).quantize(200)
    palette = np.array(reduced.getpalette()[:600]).reshape(-1, 3).tolist()
    pixels, options = {
        "minisblack": (np.dstack([scene, scene[:, :, :1]]), {"photometric": "MINISBLACK"}),
        "rgb": (np.dstack([scene, scene[:, :, :1]]), {"photometric": "RGB"}),
        "bgr": (np.ascontiguousarray(scene[:, :, ::-1]), {"colours": RGBA[2::-1]}),
        "float": (scene / np.float32(255), {}),
        "floatgrey": (scene[:, :, 0] / np.float32(255), {}),
        "palette": (np.asarray(reduced), {"colormap": {k: (*c, 255) for k, c in enumerate(palette)}}),
        "miniswhite": (255 - scene[:, :, 0], {"photometric": "MINISWHITE"}),
    }[how]
    g.geotiff(tmp_path / "other" / "a.tif", pixels, **options)
    plain, other = middle(tmp_path / "plain"), middle(tmp_path / "other")
    if how in ("floatgrey", "miniswhite"):
        plain = plain[:1]
    assert (plain - other).abs().mean() < (8 if how == "palette" else 1)


def test_kinds_that_are_no_picture_are_named_and_left_out(tmp_path):
    scene = g.texture(200, 200, 3)
    whole = g.geotiff(tmp_path / "a.tif", scene).read_bytes()
    g.geotiff(tmp_path / "b.tif", scene[..., 0].astype(np.complex64), at=(g.EAST + 200, g.NORTH))
    vrt = b'<VRTDataset rasterXSize="9" rasterYSize="9"/>'  # would read other files
    for name, content in (("c.tif", b""), ("d.tif", vrt), ("e.jp3", b"?"), ("f.tif", whole[: len(whole) // 2])):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "g.tif").symlink_to("moved.tif")
    found = open_mosaic(tmp_path)
    assert [name for name, _ in found.left_out] == ["b.tif", "c.tif", "d.tif", "f.tif", "g.tif"]
    words = ("complex", "an empty file", "not recognized as being in a supported file format", "tif", "No such file")
    for word, (_, reason) in zip(words, found.left_out, strict=True):
        assert word in reason
        assert "See previous" not in reason  # but what that was
    assert found.passed_over == ("e.jp3",)


def one(root, **settings):
    ground = check_ground(root, **settings)
    assert ground.left_out == ()
    (found,) = ground.pictures
    return found


def test_gpano_partial(tmp_path):
    """Half a turn around east: a red post at heading 45 and a green one at 135 come to lie there; never 360 degrees."""
    half = np.full((256, 1024, 3), 90, np.uint8)
    half[:, 246:266], half[:, 758:778] = (255, 0, 0), (0, 255, 0)
    xmp = g.cropped(512, 300, 1024, 256, 2048, PoseHeadingDegrees=90)
    g.save(tmp_path / "half.jpg", half, quality=95, xmp=xmp)
    found = one(tmp_path)
    assert (found.kind, found.fov_deg, found.heading_deg) == ("panorama", 180, 90)
    assert found.crop == (0.25, 300 / 1024, 0.5, 0.25)  # the horizon at row 512 - 300 of 256
    image = read_picture(check_ground(tmp_path), found)
    east, south = north_up(image, found, torch.tensor([90.0, 180.0]), TopView.from_span(96, 50.0)).float()
    y, x = np.mgrid[:96, :96]
    for mine, others, heading in ((0, (1, 2), 45), (1, (0, 2), 135)):
        post = ((east[mine] > 150) & (east[others[0]] < 100) & (east[others[1]] < 100)).numpy()
        assert post.sum() > 20
        bearing = np.degrees(np.arctan2(((x - 47.5) * post).sum(), ((47.5 - y) * post).sum())) % 360
        assert bearing == pytest.approx(heading, abs=3)
    assert float(east[:, :, :40].amax()) == 0  # not seen: black
    assert float(south[:, :40].amax()) < 40


def test_photo_2to1(tmp_path):
    """Photos of 18:9 by their tags, whatever their shape."""
    for k, shape in enumerate(((512, 1024), (512, 1024), (480, 640))):
        g.save(tmp_path / f"IMG_{k}.JPG", g.texture(*shape, k), exif=g.tags(90.0, focal35=26))
    ground = check_ground(tmp_path)
    assert ground.counts() == {"panoramas": 0, "photos": 3, "without heading": 0, "unusable": 0}
    assert [p.fov_deg for p in ground.pictures[:2]] == [pytest.approx(73.3, abs=0.1)] * 2


@pytest.mark.parametrize(
    ("reference", "note"),
    [("M", MAGNETIC), ("m", MAGNETIC), ("T", ""), ("T\0", ""), ("", UNREFERENCED)],
)
def test_magnetic(tmp_path, made, reference, note):
    """What a heading refers to is said where it can be read: for each picture, in the dry run, and in the report."""
    for k in range(3):
        g.save(tmp_path / "ground" / f"R{k}.JPG", g.ring(64, 128, k), exif=g.tags(30.0 * k, reference))
    seen = made(tmp_path)
    notes = (note,) * bool(note)
    assert [(p.heading_deg, p.notes) for p in seen.ground.pictures] == [(30 * k, notes) for k in range(3)]
    for text in (rendered("inputs.txt.j2", inputs=seen), report_of(seen, tmp_path)):
        said = [line.lstrip("- ") for line in text.splitlines() if line.lstrip("- ").startswith("3 pictures: ")]
        assert said == [f"3 pictures: {note}"] * bool(note)


def test_same_names(tmp_path, made):
    """0001.jpg of which camera? Not four headings from two rows."""
    for camera in "AB":
        for k in (1, 2):
            g.save(tmp_path / "ground" / f"cam{camera}" / f"000{k}.jpg", g.ring(64, 128, k))
    table = tmp_path / "t.csv"
    says = "'0001.jpg', which stands for camA/0001.jpg and camB/0001.jpg.*with their folders"
    for option, header, row in (("ground_table", "heading_deg", "90"), ("truth", "latitude,longitude", "46.2,7.4")):
        table.write_text(f"file,{header}\n0001.jpg,{row}\n0002.jpg,{row}\n")
        with pytest.raises(InputError, match=says):
            made(tmp_path, **{option: table}, epochs=1)
    for folder in "ab":
        g.save(tmp_path / "t" / folder / "0001.png", g.texture(64, 64))
    table.write_text("file,latitude,longitude,span_m\n0001.png,46.2,7.4,50\n")
    with pytest.raises(InputError, match=r"stands for a/0001\.png and b/0001\.png"):
        open_mosaic(tmp_path / "t", table)


def test_truth_swapped(tmp_path, made):
    """Told before the run; and so are positions of another place, and tiles that lie elsewhere by their names."""
    g.save(tmp_path / "ground" / "p.jpg", g.ring(64, 128))
    table = tmp_path / "t.csv"
    exchanged, elsewhere = "latitude and longitude are exchanged", "positions near the tiles, found .* km"
    for row, says in (("7.4,46.2", exchanged), ("48.1,11.6", elsewhere)):
        table.write_text(f"file,latitude,longitude\np.jpg,{row}\n")
        with pytest.raises(InputError, match=says):
            made(tmp_path, truth=table)
    table.write_text("file,latitude,longitude\np.jpg,46.2,7.4\n")
    assert len(made(tmp_path, truth=table).truth) == 1
    g.pyramid(tmp_path / "esri", ZYX)
    with pytest.raises(InputError, match="--scheme"):
        made(tmp_path, truth=table, tiles=tmp_path / "esri")


def test_hidden_and_heic(tmp_path, made):
    """Two panoramas; companions of a Mac and thumbnails of a NAS are no pictures of the street, and what is not read is said."""
    root = tmp_path / "ground"
    for k in range(2):
        g.save(root / f"p{k}.jpg", g.ring(64, 128, k))
        (root / f"._p{k}.jpg").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(100))
        g.save(root / "@eaDir" / f"p{k}.jpg" / "SYNOPHOTO_THUMB_M.jpg", g.texture(64, 128, k))
    for name in ("IMG_0007.HEIC", "IMG_0008.avif", "IMG_0009.jfif"):
        (root / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    for k in range(12):
        (root / f"z{k}.jpg").write_bytes(b"")
    seen = made(tmp_path)
    assert [p.file for p in seen.ground.pictures] == ["p0.jpg", "p1.jpg"]
    for says in (
        "14 pictures", ": 2 panoramas, 0 photos, 2 without heading, 12 unusable\n", "9 tiles in ", " candidates of 50 m, ",
        "passed over 3 files of kinds that are not read, such as IMG_0007.HEIC, IMG_0008.avif", "z7.jpg: no whole", "and 2 more",
    ):  # fmt: skip
        assert says in rendered("inputs.txt.j2", inputs=seen)
    assert "z9.jpg" not in rendered("inputs.txt.j2", inputs=seen)


def test_zero_bytes(tmp_path):
    g.save(tmp_path / "a.jpg", g.ring(64, 128))
    (tmp_path / "b.jpg").write_bytes(b"")
    ground = check_ground(tmp_path)
    assert [picture.file for picture in ground.pictures] == ["a.jpg"]
    ((name, reason),) = ground.left_out
    assert (name, "found an empty file" in reason) == ("b.jpg", True)


@pytest.mark.filterwarnings("ignore:Metadata Warning")  # of Pillow, while the test writes
def test_bad_exif(tmp_path):
    """A GPS directory beyond the end of its block, one cut short, a compass that says 0 of 0: the pictures are whole."""
    plain = g.save(tmp_path / "a.jpg", g.ring(64, 128)).read_bytes()
    beyond = b"II*\0\x08\0\0\0\x01\0\x25\x88\x04\0\x01\0\0\0\0\xff\xff\0\0\0\0\0"
    short = b"II*\0\x08\0\0\0\x09\0\x25\x88\x04\0\x01\0\0\0\x1a\0\0\0\0\0\0\0"
    for name, block in (("beyond", beyond), ("short", short)):
        segment = b"\xff\xe1" + (len(block) + 8).to_bytes(2, "big") + b"Exif\0\0" + block
        (tmp_path / f"{name}.jpg").write_bytes(plain[:2] + segment + plain[2:])
    g.save(tmp_path / "zero.jpg", g.ring(64, 128), exif=g.tags((0, 0)))
    found = check_ground(tmp_path).pictures
    assert [(p.heading_deg, p.notes) for p in found] == [(None, ())] * 4
    xmp = ImageFileDirectory_v2()
    xmp.tagtype[700], xmp[700] = TiffTags.SHORT, (1, 2, 3)  # should be bytes
    g.save(tmp_path / "b" / "numbers.tif", g.ring(64, 128), tiffinfo=xmp)
    assert one(tmp_path / "b").kind == "panorama"


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    return g.tiny_encoders(tmp_path_factory.mktemp("encoders") / "tiny.safetensors")


@pytest.fixture
def made(encoders):
    """What `look` says of a folder with ground/ and, unless it is there, a small pyramid."""

    def look(root, **changes):
        if "tiles" not in changes and not (root / "tiles").exists():
            g.pyramid(root / "tiles", XYZ)
        asked = Request(root / "ground", root / "tiles", root / "out", checkpoint=encoders, epochs=0)
        return inputs.read_inputs(replace(asked, **changes))

    return look


def report_of(seen, root):
    calibration = load_calibration(calibration_path("panorama", searched=False))
    found = type("Found", (), {"rounds": [], "calibration": calibration})
    return rendered("report.md.j2", outcome=Outcome(root, "", seen, found, g.table(), None, 0.0))


@pytest.mark.parametrize("missing", ["rasterio", "morecantile"])
def test_without_the_extra_one_error_says_what_to_install(tmp_path, missing):
    code = f"import sys; sys.modules['{missing}'] = None; from ucvgl import cli; cli.main()"
    words = ["locate", "--ground", tmp_path, "--tiles", tmp_path, "--out", tmp_path / "o"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.search(rf"extra 'geo' .*no {missing}.*pip install 'ucvgl\[geo\]'", done.stderr)
    assert not (tmp_path / "o").exists()
