"""Mosaics: positions by hand-written formulas, and pictures whose colours say where each pixel lies."""

import math

import numpy as np
import pytest
from geo_inputs import geotiff, save
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS, Transformer
from rasterio.transform import from_origin

from ucvgl.errors import InputError
from ucvgl.locate import tiles as module
from ucvgl.locate.tile_names import tile_numbers
from ucvgl.locate.tiles import cut, open_mosaic
from ucvgl.positions import Positions, Wgs84, from_metres, haversine, to_metres

HERE = (60.2, 24.9)  # 2 degrees west of UTM zone 35's meridian: its grid is turned there by 1.8 degrees
WIDE = 400.0  # metres that the colours 0 to 255 run over


def slippy(lat, lon, zoom):
    """The published formula (OpenStreetMap wiki, 'Slippy map tilenames'): fractional x and y of a place."""
    phi = math.radians(lat)
    return (lon + 180) / 360 * 2**zoom, (1 - math.asinh(math.tan(phi)) / math.pi) / 2 * 2**zoom


def unslippy(x, y, zoom):
    lat = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * y / 2**zoom))))
    return np.stack(np.broadcast_arrays(lat, x / 2**zoom * 360 - 180), -1)


def painted(degrees):
    """uint8 (H, W, 3) from the places (H, W, 2) of its pixels: red says how far east of HERE, green how far north."""
    metres = to_metres(Positions(degrees.reshape(-1, 2), Wgs84()), HERE).values.reshape(degrees.shape)
    colour = (metres / WIDE + 0.5) * 255
    colour += np.random.default_rng(len(colour)).uniform(-0.5, 0.5, colour.shape)  # so that roundings average out
    return np.concatenate([colour, np.full_like(colour[..., :1], 77)], -1).round().clip(0, 255).astype(np.uint8)


def write_pyramid(root, pattern="{z}/{x}/{y}.png", zoom=18, across=4, down=3, px=64):
    left, top = (int(v) - n // 2 for v, n in zip(slippy(*HERE, zoom), (across, down), strict=True))
    for x in range(left, left + across):
        for y in range(top, top + down):
            steps = (np.arange(px) + 0.5) / px
            pixels = painted(unslippy(x + steps[None, :], y + steps[:, None], zoom))
            save(root / pattern.format(z=zoom, x=x, y=y), pixels)
    return root


def cut_covered(least, *given):
    """`cut`, where squares covered by that fraction are enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LEAST_COVERED", least)
        return cut(*given)


def assert_true_colours(candidates, worst_m=2.6):
    """Every pixel shows its own place: to the roundings of colours (2.4 m) each, and to a twentieth of a pixel together."""
    scale = candidates.span_m / candidates.images.size[0]
    steps = (np.arange(candidates.images.size[0]) + 0.5 - candidates.images.size[0] / 2) * scale
    centres = to_metres(candidates.images.positions, HERE).values
    errors = []
    for i, image in enumerate(candidates.images[:].numpy().astype(np.float64)):
        assert (np.abs(image[2] - 77) <= 1).all()
        seen = (image[:2] / 255 - 0.5) * WIDE
        expected = np.stack(np.meshgrid(centres[i, 0] + steps, centres[i, 1] - steps))
        errors.append(seen - expected)
    errors = np.stack(errors)
    assert np.abs(errors).max() < worst_m
    assert np.abs(errors.mean((0, 2, 3))).max() < 0.05 * scale + 0.05
    # a turn or a wrong scale would show as errors that grow with the distance from the centre
    lever = np.stack([np.meshgrid(steps, -steps)[k] for k in (0, 1)])
    slope = (errors[:, :, None] * lever[None, None]).mean((0, 3, 4)) / (lever**2).mean()
    assert np.abs(slope).max() < 0.004


@pytest.mark.parametrize("pattern", ["{z}/{x}/{y}.png", "sat-{z}-{x}-{y}@2x.png"])
def test_names(tmp_path, pattern):
    mosaic = open_mosaic(write_pyramid(tmp_path, pattern))
    assert (len(mosaic.rasters), {raster.crs for raster in mosaic.rasters}, mosaic.left_out) == (12, {"EPSG:3857"}, ())
    x, y = (int(v) for v in slippy(*HERE, 18))
    (one,) = (i for i, raster in enumerate(mosaic.rasters) if raster.name == pattern.format(z=18, x=x, y=y))
    centre = from_metres(mosaic.corners_m[one].mean(0)[None], mosaic.origin)
    assert haversine(centre[0], unslippy(np.array(x + 0.5), np.array(y + 0.5), 18)) < 0.01
    edge = 2 * math.pi * 6378137 / 2**18 * math.cos(math.radians(HERE[0]))
    # a sphere's against the ellipsoid's
    assert [raster.pixel_m for raster in mosaic.rasters] == pytest.approx([edge / 64] * 12, rel=0.003)
    assert_true_colours(cut(mosaic, 40.0, 37.0, 32))


def write_projected(root, epsg, px=48, scale=1.5, skip=()):
    """2 x 2 tiles of a projection around HERE."""
    project = Transformer.from_crs(4326, epsg, always_xy=True)
    narrow = math.cos(math.radians(HERE[0]))
    step = {4326: (scale / 111_320 / narrow, scale / 111_400), 3857: (scale / narrow,) * 2}.get(epsg, (scale, scale))
    for k in set(range(4)) - set(skip):
        west, north = np.array(project.transform(*HERE[::-1])) + np.multiply(step, px) * (k % 2 - 1, 1 - k // 2)
        x, y = np.meshgrid(west + (np.arange(px) + 0.5) * step[0], north - (np.arange(px) + 0.5) * step[1])
        pixels = painted(np.stack(project.transform(x, y, direction="INVERSE")[::-1], -1))
        geotiff(root / f"{k}.tif", pixels, f"EPSG:{epsg}", transform=from_origin(west, north, *step))
    return root


@pytest.mark.parametrize("epsg", [32635, 3857, 4326, 32634])
def test_tags(tmp_path, epsg):
    mosaic = open_mosaic(write_projected(tmp_path, epsg))
    (text,) = {raster.crs for raster in mosaic.rasters}
    assert CRS.from_user_input(text).to_epsg() == epsg
    assert haversine(np.array(mosaic.origin), np.array(HERE)) < 0.1
    candidates = cut_covered(1.0, mosaic, 60.0, 15.0, 40)
    assert len(candidates) >= 4
    assert_true_colours(candidates)


def write_squares(root, count=3, px=20, edge=40.0, columns="span_m", skip=(), grey=None, at=HERE):
    """count x count tiles of `edge` metres on a plane around a place, with a table."""
    rows = []
    for k in range(count**2):
        if k in skip:
            continue
        middle = (np.array([k % count, k // count]) - (count - 1) / 2) * edge
        steps = ((np.arange(px) + 0.5) / px - 0.5) * edge
        points = np.stack(np.meshgrid(middle[0] + steps, middle[1] - steps), -1)
        pixels = painted(from_metres(points.reshape(-1, 2), at).reshape(px, px, 2)) if grey is None else grey
        save(root / "tiles" / f"t{k}.png", pixels)
        lat, lon = from_metres(middle[None], at)[0]
        rows.append(f"t{k}.png,{lat:.10f},{lon:.10f},{edge if columns == 'span_m' else edge / px}")
    (root / "tiles.csv").write_text(f"file,latitude,longitude,{columns}\n" + "\n".join(rows) + "\n")
    return root / "tiles", root / "tiles.csv"


@pytest.mark.parametrize("columns", ["span_m", "metres_per_pixel"])
def test_table(tmp_path, columns):
    tiles, table = write_squares(tmp_path, columns=columns)
    mosaic = open_mosaic(tiles, table)
    assert [raster.pixel_m for raster in mosaic.rasters] == pytest.approx([2.0] * 9)
    assert mosaic.bounds_m[1] - mosaic.bounds_m[0] == pytest.approx([120, 120], abs=1e-4)
    candidates = cut(mosaic, 30.0, 15.0, 24)
    assert (len(candidates), candidates.left_out) == (49, 0)
    assert_true_colours(candidates)
    assert to_metres(candidates.images.positions, mosaic.origin).values == pytest.approx(candidates.centre_m, abs=1e-6)


def test_what_tiles_do_not_cover_is_left_out_and_counted(tmp_path):
    mosaic = open_mosaic(*write_squares(tmp_path, px=60, skip=(4,)))  # a ring of eight tiles around a hole of 40 m
    every = cut_covered(0, mosaic, 20.0, 7.5, 40)
    hidden = (30 - np.abs(every.centre_m)).clip(0, 20).prod(1) / 400  # the area that a square shares with the hole
    for least in (0.5, 0.99):
        good = cut_covered(least, mosaic, 20.0, 7.5, 40)
        sure = np.abs(1 - hidden - least) > 0.03
        kept = np.isin(every.images.ids, good.images.ids)
        assert (kept == (1 - hidden >= least))[sure].all()
        assert len(good) + good.left_out == len(every) == 14 * 14
    assert (every.images.read(int(hidden.argmax())) == 0).all()
    assert_true_colours(every.take(np.flatnonzero(hidden == 0)))


@pytest.mark.parametrize("px", [64, 66, 63])
def test_fine_pixels_are_averaged_not_picked(tmp_path, px):
    board = np.repeat(np.indices((px, px)).sum(0)[..., None] % 2 * 200, 3, 2).astype(np.uint8)
    candidates = cut(open_mosaic(*write_squares(tmp_path, count=2, px=px, edge=64.0, grey=board)), 50.0, 39.0, 8)
    assert (candidates.images[:].float() - 100).abs().max() < 12  # one pixel is six of the source's


def test_of_overlapping_tiles_the_first_is_seen_and_of_a_gap_within_a_pixel_nothing(tmp_path):
    for k, (east, shade) in enumerate(((0.0, 60), (5.0, 120), (16.02, 180))):
        geotiff(tmp_path / f"{k}.tif", np.full((10, 10, 3), shade, np.uint8), at=(500_000 + east, 6_000_000))
    mosaic = open_mosaic(tmp_path)
    picture, there = mosaic.paint(np.mean(mosaic.bounds_m, axis=0), 1.0, (8, 26))
    shades = picture[0, 4].unique_consecutive(return_counts=True)
    assert [x.tolist() for x in shades] == [[60, 120, 150, 180], [10, 5, 1, 10]]
    assert there.all()


def test_a_tile_that_is_damaged_or_gone_meanwhile_is_told(tmp_path):
    mosaic = open_mosaic(*write_squares(tmp_path))
    file = tmp_path / "tiles" / "t8.png"
    for content, found in ((file.read_bytes()[:200], "Read Error"), (None, "no such file")):
        file.write_bytes(content) if content else file.unlink()
        with pytest.raises(InputError, match=rf"{file.name}.*{found}"):
            cut(mosaic, 30.0, 15.0, 16)


def test_damaged_tiles_are_named_and_left_out(tmp_path):
    write_pyramid(tmp_path)
    files = sorted(tmp_path.rglob("*.png"))
    files[5].write_bytes(files[5].read_bytes()[:200])  # the header is whole
    mosaic = open_mosaic(tmp_path)
    assert [name for name, _ in mosaic.left_out] == [str(files[5].relative_to(tmp_path))]
    assert len(mosaic.rasters) == 11
    for file in files:
        file.write_bytes(b"nothing")
    with pytest.raises(InputError, match="12 that cannot"):
        open_mosaic(tmp_path)


def test_no_tiles_no_positions(tmp_path):
    for folder, says in ((tmp_path, r"satellite tiles .*found no image"), (tmp_path / "absent", "no such folder")):
        with pytest.raises(InputError, match=says):
            open_mosaic(folder)
    for k in range(5):
        save(tmp_path / f"city{k}.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError, match=r"GeoTIFF.*z/x/y.*CSV.*5 of 5 tiles without: city0\.png, city1\.png, city2"):
        open_mosaic(tmp_path)


def test_of_several_zoom_levels_the_finest_is_taken(tmp_path):
    write_pyramid(tmp_path, zoom=18)
    write_pyramid(tmp_path, zoom=17, across=2, down=2)
    mosaic = open_mosaic(tmp_path)
    assert (len(mosaic.rasters), mosaic.notes) == (12, ("of several zoom levels the finest, 18, is taken: 12 tiles",))
    assert len(open_mosaic(tmp_path / "17").rasters) == 4


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("span_m", "height_m", "metres_per_pixel or span_m"),
        ("t8.png", "t9.png", r"1 tiles without: t8\.png"),
        (",40.0", ",0", r"span_m above 0, .*found 1 tiles without: t0\.png"),
        (",24.8", ",74.8", r"within 200 km, found t0\.png at 60\.\d+, 74\.8"),
    ],
)
def test_bad_tables(tmp_path, old, new, says):
    tiles, table = write_squares(tmp_path)
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=says):
        open_mosaic(tiles, table)


def test_bad_cuts(tmp_path):
    ring = open_mosaic(*write_squares(tmp_path, skip=(4,)))
    for settings, says in (
        ((140.0, None, 64), "a square of 140 m covered by 99%, found 1 squares"),
        ((118.0, 1.0, 64), "the best covered by"),
        ((50.0, 0.001, 100_000), "wider stride"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=says):
            cut(ring, *settings)
    assert len(cut_covered(0.8, ring, 120.0, None, 64)) == 1


def test_files_are_read_by_parts_and_the_whole_has_a_bound(tmp_path, monkeypatch):
    mosaic = open_mosaic(write_projected(tmp_path, 32635))
    area = np.mean(mosaic.bounds_m, axis=0), 1.5, (90, 80)
    whole, _ = mosaic.paint(*area)
    monkeypatch.setattr(module, "PART_PX", 17)
    assert (whole.int() - mosaic.paint(*area)[0].int()).abs().max() <= 1
    monkeypatch.setattr(module, "PICTURE_MAX", 80 * 90)
    with pytest.raises(InputError, match=r"pixels of 1\.5 m .* wider stride or span"):
        cut(mosaic, 60.0, 15.0, 40)


@given(st.integers(0, 22), st.data())
def test_numbers_in_names(zoom, data):
    x, y = (data.draw(st.integers(0, 2**zoom - 1)) for _ in range(2))
    for pattern in ("{z}/{x}/{y}.png", "{z}_{x}_{y}.jpg", "a/b-{z}-{x}-{y}.jpeg", "area7/{z}/{x}_{y}.png"):
        assert tile_numbers([pattern.format(z=zoom, x=x, y=y)])[0].tolist() == [[zoom, x, y]]
    assert (tile_numbers(["a.png", "1_2.png", "99_1_1.png", "2026_13_5_x.png", "3/9/1.png"])[0][:, 0] == -1).all()
