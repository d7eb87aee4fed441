"""Small synthetic data sets in every layout, for the tests of readers, writers and the check."""

import numpy as np
import torch
from PIL import Image

from ucvgl.data import ArrayImages, Dataset, Positives
from ucvgl.data import write as w
from ucvgl.positions import Metres, Positions, Wgs84


def images(count, prefix, seed=0, height=16, width=32, positions=None, ids=None):
    """Smooth random images, so that JPEG changes them little; ids of one length."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 220, (count, 3, 2, 2), dtype=np.uint8)
    pixels = torch.from_numpy(coarse.repeat(height // 2, 2).repeat(width // 2, 3))
    return ArrayImages(ids or tuple(f"{prefix}{i:05d}" for i in range(count)), pixels, positions)


def paired(name, split, count, seed=0, frame="wgs84", prefix="p"):
    """`count` pairs, positions about 100 m apart (or degrees of Helsinki)."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.divmod(np.arange(count), 10), axis=1) * 100.0 + rng.uniform(-10, 10, (count, 2))
    metres = Positions(np.round(np.array([690_000.0, 6_090_000.0]) + grid, 2), Metres("UTM"))
    degrees = Positions(np.round(np.array([60.17, 24.94]) + grid / 1e5, 6), Wgs84())
    places = degrees if frame == "wgs84" else metres
    ground = images(count, prefix, seed, 8, 32, places)
    tiles = images(count, prefix, seed + 1, 16, 16, places)
    return Dataset(name, split, ground, tiles, Positives.one_each(np.arange(count)))


def cvusa(root):
    splits = {"train": paired("cvusa", "train", 6), "val": paired("cvusa", "val", 4, seed=5)}
    return splits, w.write_cvusa(splits, root)


def cvact(root):
    parts = ("train", 6, 0, "t"), ("val", 4, 5, "v"), ("test", 5, 9, "x")
    splits = {split: paired("cvact", split, count, seed, "metres", prefix) for split, count, seed, prefix in parts}
    return splits, w.write_cvact(splits, root)


def vigor_city(seed):
    """Eight tiles on a 2 x 4 grid, five panoramas of which two share a tile; and their offsets in pixels."""
    rng = np.random.default_rng(seed)
    corner = np.array([40.0 + seed, -74.0])
    grid = np.stack(np.divmod(np.arange(8), 4), axis=1) * 0.0003
    tiles = Positions(np.round(corner + grid, 6), Wgs84())
    best = np.array([0, 0, 1, 5, 6])
    here = Positions(np.round(tiles.values[best] + rng.uniform(-5e-5, 5e-5, (5, 2)), 6), Wgs84())
    semi = [[(b + s) % 8 for s in (1, 2, 3)] for b in best]
    offsets = np.round(rng.uniform(-160, 160, (5, 4, 2)), 6)
    ground, satellite = images(5, f"c{seed}", seed, 16, 32, here), images(8, f"s{seed}", seed + 50, 16, 16, tiles)
    return Dataset("vigor", "all", ground, satellite, Positives.one_each(best), Positives.of(semi)), offsets


def vigor(root, corrected=False):
    cities = {c: vigor_city(i) for i, c in enumerate(("NewYork", "Seattle", "SanFrancisco", "Chicago"))}
    train = {c: [0, 2, 4] for c in cities}
    offsets = {c: of for c, (_, of) in cities.items()}
    cities = {c: data for c, (data, _) in cities.items()}
    w.write_vigor(cities, offsets, train, root)
    for path in (root / "splits").rglob("*.txt") if corrected else ():
        name = path.name if "satellite" in path.name else f"{path.stem}__corrected.txt"
        copy = root / "splits__corrected" / path.parent.name / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    return cities, root


def drones(count, per, seed=0):
    ground = images(count * per, "d", seed, 16, 16)
    tiles = images(count, "s", seed + 1, 16, 16)
    return Dataset("university1652", "all", ground, tiles, Positives.one_each(np.repeat(np.arange(count), per)))


def university1652(root):
    train, test = drones(3, 2), drones(5, 3, seed=3)
    return (train, test), w.write_university1652(train, test, [0, 2, 3], root)


def sues200(root):
    heights = {h: (drones(1, 11, seed=h), drones(5, 2, seed=h + 1)) for h in (150, 300)}
    return heights, w.write_sues200(heights, [3, 4], root)


def vpr_split(name, split, queries, database, seed=0):
    rng = np.random.default_rng(seed)
    places = np.round(np.array([584_700.0, 4_476_700.0]) + rng.uniform(0, 120, (queries + database, 2)), 2)
    q, d = (Positions(p, Metres("UTM")) for p in (places[:queries], places[queries:]))
    sides = images(queries, "q", seed, 12, 16, q), images(database, "d", seed, 12, 16, d)
    return Dataset(name, split, *sides, Positives.within(q, d, 25.0))


def vpr(root):
    splits = {s: vpr_split("vpr", s, 5, 12, i) for i, s in enumerate(("train", "val", "test"))}
    return splits, w.write_vpr(splits, root)


LAYOUTS = {f.__name__: f for f in (cvusa, cvact, vigor, university1652, sues200, vpr)}


def same(a, b):
    """Equal positives or positions."""
    if a is None or b is None:
        return a is b
    names = ("query", "indices", "known") if isinstance(a, Positives) else ("values",)
    return all(np.array_equal(getattr(a, n), getattr(b, n), equal_nan=n == "values") for n in names)


def close(a, b):
    """JPEG keeps smooth pictures within a few levels."""
    return abs(a.int() - b.int()).float().mean() < 12


def same_pictures(read, written):
    return all(close(read.read(i), written.read(i)) for i in range(len(written)))


def texture(height, width, seed=0):
    """Smooth random colours, uint8 (h, w, 3)."""
    small = np.random.default_rng(seed).integers(40, 215, (max(height // 8, 2), max(width // 8, 2), 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def jpeg(path, array=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(texture(16, 16) if array is None else array).save(path, format="JPEG", **options)


def folders(root, sides, count, *, textured=False):
    """So many images, numbered alike, in each of some folders; all alike, or each with a texture of its own."""
    for side in sides:
        for k in range(count):
            jpeg(root / side / f"{k:03d}.jpg", texture(16, 16, k) if textured else None)
    return root


def line(root, count):
    """A test part alone whose photos lie on a made-up line, as Nordland's of the benchmark."""
    for side in ("database", "queries"):
        for k in range(count):
            jpeg(root / "images" / "test" / side / f"@0@{k * 25 / 10.5:07.1f}@@@@@{k}@@@@@@@@.jpg")
    return root


def gps(lat, lon):
    """EXIF with that position."""
    exif = Image.Exif()
    lat_parts, lon_parts = ((int(v), int(v % 1 * 60), round(v * 60 % 1 * 60, 6)) for v in (abs(lat), abs(lon)))
    exif[0x8825] = {1: "S" if lat < 0 else "N", 2: lat_parts, 3: "W" if lon < 0 else "E", 4: lon_parts}
    return exif
