"""From a world's settings to images: rendered once, kept under runs/worlds/<hash of settings>, mapped after that."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ucvgl.data.container import ArrayImages
from ucvgl.data.prepare import made_once, mapped, new_images
from ucvgl.errors import check_fields, one_of
from ucvgl.positions import Metres, Positions
from ucvgl.world.appearance import Condition
from ucvgl.world.city import make_city
from ucvgl.world.difficulty import DEFAULT_LEVEL, LEVELS, Sensor, expose
from ucvgl.world.noise import hash32
from ucvgl.world.render import Rendered, Scene
from ucvgl.world.styles import style_named

RENDER_BATCH = 16  # bounds the memory of tilted panoramas' sampling grids
CITY_GAP_M = 10_000.0  # cities are laid out on a line so far apart that positions of different ones never come near
KINDS = ("car", "hand_held", "season", "night")  # of drives


@dataclass(frozen=True)
class WorldConfig:
    """Which world, which places, which pictures."""

    styles: tuple[str, ...] = ("garden",)  # one city each
    seed: int = 0
    places: int = 1000  # over all cities
    spacing_m: float = 12.0  # between stops along a street; VIGOR's tiles overlap like this, CVUSA's are farther apart
    difficulty: str = DEFAULT_LEVEL
    span_m: float = 50.0  # edge of a tile on the ground; CVUSA's zoom-19 tiles span about 70
    tile_px: int = 64  # the paper's 384
    panorama_px: int = 128  # height; width is twice that. CVACT's are 832
    city_size_m: float = 768.0
    resolution_m: float = 0.25  # of the city's rasters

    def __post_init__(self) -> None:
        one_of("difficulty", self.difficulty, LEVELS, "Pick one.")
        sizes = ("span_m", "tile_px", "panorama_px")
        _check(self, *((name, getattr(self, name) > 0, "a number above 0") for name in sizes))


@dataclass(frozen=True)
class DriveConfig:
    """Which streets, driven how, and which photos."""

    kind: str = "car"  # one of KINDS
    styles: tuple[str, ...] = ("garden", "downtown")  # one city each
    seed: int = 0  # of the cities and everything drawn; kinds of one seed share their streets
    places: int = 300  # stops over all cities; each is asked for once
    spacing_m: float = 10.0  # between stops; VG-SSL's positives are within 10 m, its hits within 25 m
    photo_px: tuple[int, int] = (48, 64)  # height, width; VG-SSL 480 x 640
    fov_deg: float = 80.0  # across, of the database
    nuisance: float = 1.0  # times drives.CAMERA's exposure, tone, noise, blur and heading; 0: a perfect camera
    city_size_m: float = 512.0
    resolution_m: float = 0.5  # of the city's rasters

    def __post_init__(self) -> None:
        _check(
            self, ("kind", self.kind in KINDS, f"one of {', '.join(KINDS)}"),
            ("photo_px", min(self.photo_px) > 0, "height and width"), ("fov_deg", 15 < self.fov_deg < 180, "degrees in (15, 180)"),
            ("nuisance", 0 <= self.nuisance <= 3, "a factor in [0, 3]"),
        )  # fmt: skip


def _check(config: WorldConfig | DriveConfig, *own: tuple[str, bool, str]) -> None:
    """InputError for the first wrong setting; own: rules of one kind of config, as `check_fields` takes them."""
    for name in config.styles:
        style_named(name)
    check_fields(
        config, "", "Correct it.", ("styles", len(config.styles) > 0, "at least one city style"),
        ("places", isinstance(config.places, int) and config.places > 0, "a whole number above 0"),
        ("spacing_m", config.spacing_m > 0, "metres above 0"), *own,
    )  # fmt: skip


@lru_cache(maxsize=1)
def source_digest() -> str:
    """SHA-256 over the code that makes the pictures: an edited renderer never serves yesterday's pictures."""
    folder = Path(__file__).parent
    files = [*sorted(folder.glob("*.py")), folder / "styles.json", folder.parent / "geometry.py"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def shares(config: WorldConfig | DriveConfig) -> list[int]:
    """How many places each city has."""
    cities = len(config.styles)
    return [config.places // cities + (number < config.places % cities) for number in range(cities)]


def scene_of(config: WorldConfig | DriveConfig, number: int, device: torch.device | str) -> Scene:
    """City `number` of a world on a device; its seed is that of everything drawn in it."""
    style, seed = style_named(config.styles[number]), int(hash32(config.seed, 300, number)[0] >> 8)
    return Scene(make_city(style, seed, size_m=config.city_size_m, resolution_m=config.resolution_m), device)


@dataclass(frozen=True)
class Shots:
    """Images to be taken in one city by one kind of camera; N of them."""

    scene: Scene
    camera: Callable[..., Rendered]  # one of views.py, its sizes set: takes the scene, the day and the poses
    poses: tuple[NDArray, ...]  # (N,) each: true east and north in the city's metres, then what else that camera takes
    sensor: Sensor  # of N cameras
    days: tuple[Condition, ...]
    day: NDArray[np.int32]  # (N,), index into `days`
    heading_deg: NDArray[np.float32] | None = None  # (N,) clockwise from north, if it is to be known

    @property
    def metres(self) -> NDArray:
        """(N, 2) true east and north in the city's frame."""
        return np.stack(self.poses[:2], -1)

    def view(self, rows: NDArray) -> Rendered:
        """What the cameras of some rows, all of one day, see."""
        poses = (torch.from_numpy(np.float32(values[rows])).to(self.scene.device) for values in self.poses)
        return self.camera(self.scene, self.days[self.day[rows[0]]], *poses)

    def taken(self) -> Iterator[tuple[NDArray, NDArray[np.uint8]]]:
        """Rows (B,) and their images (B, 3, H, W): a batch at a time, each of one day."""
        for day in np.unique(self.day):
            rows = np.flatnonzero(self.day == day)
            for some in np.split(rows, range(RENDER_BATCH, len(rows), RENDER_BATCH)):
                yield some, expose(self.view(some).rgb, self.sensor.take(some)).cpu().numpy()


def rendered(
    config: WorldConfig | DriveConfig, behind: Sequence[Any], city: Callable[[int, int], Mapping[str, Shots]], *,
    query: tuple[str, int, int, int], gallery: tuple[str, int, int, int],
) -> dict[str, ArrayImages]:  # fmt: skip
    """The images of both sides, named by the settings and by what lies `behind` them (the product, its level): from the cache if
    they were rendered before. city: its number and how many places it has -> its "query" and "gallery". query, gallery: what
    ids begin with, and how many images there are at most, their height and width. InputError if there is no room on the disk,
    or a city has fewer places."""
    sides = {"query": query, "gallery": gallery}

    def render(folder: Path) -> None:
        """Straight into memory-mapped files, so that no world is too large for memory."""
        out = {name: new_images(folder, name, (most, 3, *size)) for name, (_, most, *size) in sides.items()}
        where = {name: [np.zeros((0, 3), np.float32)] for name in sides}  # east, north, heading or NaN
        with tqdm(total=query[1] + gallery[1], desc="rendering the world", unit="image") as bar:
            for number, count in enumerate(shares(config)):
                for name, shots in city(number, count).items() if count else ():
                    first, metres = sum(map(len, where[name])), shots.metres + np.float32([number * CITY_GAP_M, 0])
                    heading_deg = np.full(len(metres), np.nan) if shots.heading_deg is None else shots.heading_deg
                    where[name].append(np.column_stack([metres, np.float32(heading_deg)]))
                    for rows, images in shots.taken():
                        out[name][first + rows] = images
                        bar.update(len(rows))
        for name, images in out.items():
            images.flush()
            at = np.concatenate(where[name])
            np.save(folder / f"{name}_at.npy", at, allow_pickle=False)
            # trainings go by the pixels: new code that renders the same images leaves them valid
            (folder / f"{name}.sha256").write_text(hashlib.sha256(images[: len(at)]).hexdigest()[:16])

    built = [asdict(style_named(name)) for name in config.styles]
    key = {"code": source_digest(), "built": built, "behind": behind, **asdict(config)}
    folder, found = made_once("worlds", key, render), {}
    for name, (prefix, *_) in sides.items():
        *metres, heading_deg = np.load(folder / f"{name}_at.npy").T
        turned = None if np.isnan(heading_deg).all() else heading_deg
        positions = Positions(np.stack(metres, 1), Metres("embedded world"), "embedded world", turned)
        ids, source = [f"{prefix}{i:06d}" for i in range(len(heading_deg))], (folder / f"{name}.sha256").read_text()
        found[name] = ArrayImages(ids, mapped(folder, name)[: len(ids)], positions, source)
    return found
