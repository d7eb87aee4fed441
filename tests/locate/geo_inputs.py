"""Small inputs that tests write themselves: textures, GeoTIFF by rasterio, pictures with EXIF and XMP, pyramids."""

import numpy as np
import pandas as pd
import rasterio
import torch
from PIL import Image
from PIL.TiffImagePlugin import IFDRational
from rasterio.transform import from_origin

from ucvgl.encoders import EncoderConfig, save_model, two_view_encoder
from ucvgl.locate.located import CANDIDATE, HEADER
from ucvgl.positions import from_metres
from ucvgl.world.export import export_own_city
from ucvgl.world.pairs import WorldConfig

HERE = (46.2, 7.4)  # in UTM zone 32
EAST, NORTH = 376_000.0, 5_117_000.0


def texture(height, width, seed=0, low=40, high=215):
    """Smooth random colours, uint8 (H, W, 3)."""
    shape = max(height // 8, 2), max(width // 8, 2), 3
    small = np.random.default_rng(seed).integers(low, high, shape, dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def ring(height, width, seed=0):
    """The same, whose left edge continues its right one."""
    half = texture(height, width // 2, seed)
    return np.concatenate([half, half[:, ::-1]], 1)


def seamless(height, width, seed=0):
    """Blobs of all colours that go all around: uint8 tensor (3, H, W)."""
    small = torch.rand(1, 3, 4, 9, generator=torch.Generator().manual_seed(seed))
    small[..., -1] = small[..., 0]
    large = torch.nn.functional.interpolate(small, (height, width), mode="bilinear", align_corners=True)
    return (255 * large[0]).round().byte()


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def geotiff(
    path, pixels, crs="EPSG:32632", at=(EAST, NORTH), transform=None, mask=None, colormap=None, colours=None, **options
):
    """(H, W) or (H, W, bands) of any kind, its north-western corner at `at`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = np.atleast_3d(pixels).transpose(2, 0, 1)
    profile = {
        "driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype,
        "crs": crs, "transform": transform or from_origin(*at, 1, 1), **options,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(bands)
        if mask is not None:
            file.write_mask(mask)
        if colormap is not None:
            file.write_colormap(1, colormap)
        if colours is not None:
            file.colorinterp = colours
    return path


def tags(direction=None, reference="T", focal=None, focal35=None, orientation=None):
    """EXIF; a direction of (0, 0) is what a camera without a compass writes."""
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    if direction is not None:
        exif.get_ifd(0x8825)[17] = IFDRational(*direction) if isinstance(direction, tuple) else direction
        exif.get_ifd(0x8825).update({16: reference} if reference else {})
    camera = {0x920A: focal, 0xA405: focal35}
    exif.get_ifd(0x8769).update({tag: value for tag, value in camera.items() if value})
    return exif


def gpano(**fields):
    """XMP of Photo Sphere."""
    body = "".join(f"<GPano:{name}>{value}</GPano:{name}>" for name, value in fields.items())
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:GPano="http://ns.google.com/photos/1.0/panorama/">'
        f"{body}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def cropped(left, top, width, height, full_width, **more):
    """XMP of a part of the sphere."""
    return gpano(
        ProjectionType="equirectangular", CroppedAreaLeftPixels=left, CroppedAreaTopPixels=top,
        CroppedAreaImageWidthPixels=width, CroppedAreaImageHeightPixels=height, FullPanoWidthPixels=full_width,
        FullPanoHeightPixels=full_width // 2, **more,
    )  # fmt: skip


def pyramid(root, name, zoom=18, count=3, px=64, one_scene=False):
    """Tiles around HERE called as `name` says, of z, x, y, t (y from the south); of one scene, or each of its own."""
    lat, lon = np.radians(HERE[0]), HERE[1]
    x0 = int((lon + 180) / 360 * 2**zoom)
    y0 = int((1 - np.arcsinh(np.tan(lat)) / np.pi) / 2 * 2**zoom)
    scene = texture(count * px, count * px, 7)
    for i in range(count):
        for j in range(count):
            z, x, y = zoom, x0 + i, y0 + j
            part = scene[j * px : (j + 1) * px, i * px : (i + 1) * px]
            tile = part if one_scene else texture(px, px, 100 + i * count + j)
            save(root / name.format(z=z, x=x, y=y, t=2**z - 1 - y), tile)
    return x0, y0


def tiny_encoders(path):
    """The name of a file of two encoders that read 32 x 32 pixels."""
    config = EncoderConfig("test_efficientnet", depth=2, image_px=(32, 32), safa_heads=2)
    save_model(two_view_encoder(config, config, shared=False, seed=0), path)
    return str(path)


def small_city(root, places):
    """A city of so many panoramas, exported to a folder."""
    world = WorldConfig(("downtown",), 0, places, 8.0, "medium", 24.0, 64, 32, 256.0, 0.5)
    return export_own_city(root, world, zoom=20)


# ----------------------------------------------------------------------------------------- pictures that have been placed

ORIGIN = (60.17, 24.94)


def at(east=0.0, north=0.0):
    """Latitude and longitude of metres from ORIGIN."""
    return tuple(float(x) for x in from_metres(np.array([[east, north]]), ORIGIN)[0])


def place(name="a.jpg", p=0.8, east=0.0, north=0.0, others=(), tile="t.png", **more):
    """A row of a table of places; others: tile and metres east and north of its second candidate and so on."""
    row = {"picture": name, "probability": p, "notes": ""}
    row["latitude"], row["longitude"] = at(east, north)
    for n, (name, *metres) in enumerate([(tile, east, north), *others], 1):
        away = float(np.hypot(metres[0] - east, metres[1] - north))
        fields = zip(CANDIDATE, (name, *at(*metres), 0.6 - 0.1 * n, away), strict=True)
        row |= {f"candidate_{n}_{field}": value for field, value in fields}
    return row | more


def table(*rows):
    return pd.DataFrame(list(rows), columns=list(HEADER))


def truth_of(**where):
    return {f"{name}.jpg": at(*metres) for name, metres in where.items()}
