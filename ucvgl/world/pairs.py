"""A world as a data set: places in one or more cities, each with a panorama and the satellite tile of the spot.

Rendered once and kept under runs/worlds/<hash of the settings>; later calls map the same bytes from disk.
"""

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from ucvgl import paths
from ucvgl.errors import InputError
from ucvgl.world.city import make_city
from ucvgl.world.difficulty import DEFAULT_LEVEL, Nuisance, draw_nuisance, level_named
from ucvgl.world.noise import hash32
from ucvgl.world.places import Places, choose, street_places
from ucvgl.world.render import Scene
from ucvgl.world.sensor import expose
from ucvgl.world.styles import style_named
from ucvgl.world.views import panoramas, satellite_tiles

RENDER_BATCH = 32


@lru_cache(maxsize=1)
def _source_digest() -> str:
    """SHA-256 over the code that makes the pictures: an edited renderer never serves yesterday's pictures."""
    folder = Path(__file__).parent
    files = [
        *sorted(folder.glob("*.py")),
        *(folder.parent / f"{name}.py" for name in ("geometry",)),
    ]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@dataclass(frozen=True)
class WorldConfig:
    """Which world, which places, which pictures."""

    styles: tuple[str, ...] = ("garden",)  # one city each
    seed: int = 0
    places: int = 1000  # over all cities
    spacing_m: float = (
        12.0  # between stops along a street; VIGOR's tiles overlap like this, CVUSA's stand farther apart
    )
    difficulty: str = DEFAULT_LEVEL
    span_m: float = 50.0  # edge of a tile on the ground; CVUSA's zoom-19 tiles span about 70
    tile_px: int = 64  # the paper's 384
    panorama_px: int = 128  # height; width is twice that. CVACT's are 832
    city_size_m: float = 768.0
    resolution_m: float = 0.25  # of the city's rasters

    def __post_init__(self) -> None:
        for name in self.styles:
            style_named(name)
        level_named(self.difficulty)
        for name in ("places", "spacing_m", "span_m", "tile_px", "panorama_px"):
            if not getattr(self, name) > 0:
                raise InputError(name, expected="a number above 0", found=getattr(self, name), todo="Correct it.")
        if not self.styles:
            raise InputError("styles", expected="at least one city style", found="none", todo="Try ('garden',).")

    def digest(self) -> str:
        """Twelve hex digits that name the rendered world: settings, styles and levels as they stand, and the code."""
        behind = [asdict(style_named(name)) for name in self.styles] + [asdict(level_named(self.difficulty))]
        text = json.dumps({"code": _source_digest(), "behind": behind, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Pairs:
    """N places; panorama i and tile i show the same place.

    panorama: uint8 (N, 3, H, 2H); tile: uint8 (N, 3, S, S).
    position_m: float32 (N, 2) true east and north of the panorama; tile_m: of the tile's centre. Cities are laid out on
        a line, 10 km apart, so that positions of different cities never come near.
    heading_deg, camera_height_m: float32 (N,), the panorama's true heading error and height; city: int32 (N,).
    """

    panorama: NDArray[np.uint8]
    tile: NDArray[np.uint8]
    position_m: NDArray[np.float32]
    tile_m: NDArray[np.float32]
    heading_deg: NDArray[np.float32]
    camera_height_m: NDArray[np.float32]
    city: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.panorama)


CITY_GAP_M = 10_000.0


def render_pairs(config: WorldConfig, *, device: torch.device | str = "cpu", progress: bool = True) -> Pairs:
    """The pairs of a world: from the cache if they were rendered before, else rendered, with a progress bar, and kept.

    Raises:
        InputError: more places asked for than the cities have at that spacing.
    """
    folder = paths.runs() / "worlds" / config.digest()
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".rendering-") as name:
            scratch = Path(name) / "pairs"
            scratch.mkdir()
            _render_into(scratch, config, torch.device(device), progress)
            try:
                scratch.replace(folder)
            except OSError:  # another process rendered the same world meanwhile
                if not folder.exists():
                    raise
    return load_pairs(folder)


def load_pairs(folder: Path) -> Pairs:
    """Map the arrays of a rendered world; InputError names a file that is missing or damaged and what to do."""
    arrays = {}
    for name in Pairs.__dataclass_fields__:
        path = folder / f"{name}.npy"
        try:
            arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:  # EOFError: an empty file
            raise InputError(
                path,
                expected="an array of a rendered world",
                found=error,
                todo=f"Delete {folder}; it is rendered again.",
            ) from error
    return Pairs(**arrays)


def _render_into(folder: Path, config: WorldConfig, device: torch.device, progress: bool) -> None:
    """Render all pictures straight into memory-mapped files, so that no world is too large for memory."""
    (folder / "config.json").write_text(json.dumps(asdict(config), indent=1))
    total, rows, tile = config.places, config.panorama_px, config.tile_px
    shapes = {"panorama": (total, 3, rows, 2 * rows), "tile": (total, 3, tile, tile)}
    bytes_needed = sum(int(np.prod(shape)) for shape in shapes.values())
    if shutil.disk_usage(folder).free < 1.05 * bytes_needed:
        raise InputError(
            folder, expected=f"{bytes_needed / 1e9:.2f} GB free", found="less", todo="Free some, or set UCVGL_RUNS."
        )
    pictures = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, shape) for name, shape in shapes.items()
    }
    truth: dict[str, list[NDArray]] = {
        name: [] for name in ("position_m", "tile_m", "heading_deg", "camera_height_m", "city")
    }
    share = [total // len(config.styles) + (k < total % len(config.styles)) for k in range(len(config.styles))]
    done = 0
    with tqdm(total=total, desc="rendering the world", unit="place", disable=not progress) as bar:
        for number, (style, count) in enumerate(zip(config.styles, share, strict=True)):
            if not count:
                continue
            scene, places, nuisance = city_of(config, number, count, device)
            centre = np.stack([places.east_m, places.north_m], -1) + nuisance.tile_shift_m
            for first in range(0, count, RENDER_BATCH):
                here = np.arange(first, min(first + RENDER_BATCH, count))
                pictures["panorama"][done + here] = _panorama_bytes(scene, places, nuisance, here, rows).cpu().numpy()
                east, north = (torch.from_numpy(centre[here, k]).to(device) for k in range(2))
                view = satellite_tiles(
                    scene, nuisance.satellite_day, east, north, span_m=config.span_m, size_px=config.tile_px
                )
                pictures["tile"][done + here] = expose(view.rgb, nuisance.satellite_sensor.take(here)).cpu().numpy()
                bar.update(len(here))
            offset = np.float32([number * CITY_GAP_M, 0])
            truth["position_m"].append(np.stack([places.east_m, places.north_m], -1) + offset)
            truth["tile_m"].append(centre + offset)
            truth["heading_deg"].append(nuisance.heading_deg)
            truth["camera_height_m"].append(nuisance.camera_height_m)
            truth["city"].append(np.full(count, number, np.int32))
            done += count
            bar.set_postfix(city=style)
    for array in pictures.values():
        array.flush()
    for name, parts in truth.items():
        np.save(folder / f"{name}.npy", np.concatenate(parts), allow_pickle=False)


def city_of(config: WorldConfig, number: int, count: int, device: torch.device | str) -> tuple[Scene, Places, Nuisance]:
    """City `number` of a world on a device, `count` places in it, and what its level drew for them."""
    city_seed = int(hash32(config.seed, 300, number)[0] >> 8)
    city = make_city(
        style_named(config.styles[number]), city_seed, size_m=config.city_size_m, resolution_m=config.resolution_m
    )
    level = level_named(config.difficulty)
    margin = config.span_m / 2 + max(10.0, 3.1 * level.tile_shift_m)  # room for a tile shifted as far as it can be
    places = choose(street_places(city, config.spacing_m, margin_m=margin), count, city_seed)
    nuisance = draw_nuisance(level, count, city_seed, device)
    return Scene(city, device), places, nuisance


def _panorama_bytes(scene: Scene, places: Places, nuisance: Nuisance, here: NDArray, rows: int) -> Tensor:
    """Panoramas of some places, those of one day at a time, as bytes on the scene's device."""
    out = torch.empty((len(here), 3, rows, 2 * rows), dtype=torch.uint8, device=scene.device)
    tilted = bool(np.any(nuisance.pitch_deg[here]) or np.any(nuisance.roll_deg[here]))

    def device(array: NDArray, at: NDArray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array[at])).to(scene.device)

    for day in np.unique(nuisance.day[here]):
        slot = np.nonzero(nuisance.day[here] == day)[0]
        at = here[slot]
        view = panoramas(
            scene, nuisance.days[day], device(places.east_m, at), device(places.north_m, at),
            device(nuisance.camera_height_m, at), height_px=rows, heading_deg=device(nuisance.heading_deg, at),
            pitch_deg=device(nuisance.pitch_deg, at) if tilted else None,
            roll_deg=device(nuisance.roll_deg, at) if tilted else None,
        )  # fmt: skip
        out[torch.from_numpy(slot).to(scene.device)] = expose(view.rgb, nuisance.ground_sensor.take(at))
    return out
