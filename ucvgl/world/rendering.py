"""From a world's settings to a data set: rendered once, kept under runs/worlds/<hash of the settings>, mapped after that.

The one path of pairs and drives: each says which pictures a city has, here they are written and opened again.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from ucvgl.data.cache import made_once, mapped, new_images
from ucvgl.data.container import ArrayImages
from ucvgl.errors import InputError
from ucvgl.positions import Metres, Positions
from ucvgl.world.noise import hash32
from ucvgl.world.styles import style_named

RENDER_BATCH = 32
CITY_GAP_M = 10_000.0  # cities are laid out on a line so far apart that positions of different ones never come near
FRAME = Metres("embedded world")


class Config(Protocol):
    """What the settings of pairs and drives have in common."""

    styles: tuple[str, ...]
    seed: int
    places: int
    spacing_m: float


def check_settings(config: Config, own: Mapping[str, tuple[bool, str]]) -> None:
    """InputError for the first wrong setting; own: those of one kind of config, name -> (is it right, what is expected)."""
    for name in config.styles:
        style_named(name)
    checks = {
        "styles": (len(config.styles) > 0, "at least one city style"),
        "places": (isinstance(config.places, int) and config.places > 0, "a whole number above 0"),
        "spacing_m": (config.spacing_m > 0, "metres above 0"),
    }
    for name, (right, expected) in {**checks, **own}.items():
        if not right:
            raise InputError(name, expected=expected, found=repr(getattr(config, name)), todo="Correct it.")


@dataclass(frozen=True)
class Side:
    """The pictures of one city on one side: queries or gallery."""

    metres: NDArray[np.float32]  # (n, 2), true east and north in the city's frame
    batches: Sequence[NDArray]  # rows to render together
    picture: Callable[[NDArray], Tensor]  # rows (B,) -> uint8 (B, 3, H, W)
    heading_deg: NDArray[np.float32] | None = None  # (n,), where the camera looks, clockwise from north


@lru_cache(maxsize=1)
def source_digest() -> str:
    """SHA-256 over the code that makes the pictures: an edited renderer never serves yesterday's pictures."""
    folder = Path(__file__).parent
    files = [*sorted(folder.glob("*.py")), folder.parent / "geometry.py"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def shares(config: Config) -> list[int]:
    """How many places each city has."""
    cities = len(config.styles)
    return [config.places // cities + (number < config.places % cities) for number in range(cities)]


def city_seed(config: Config, number: int) -> int:
    """The seed of city `number` and of everything drawn in it."""
    return int(hash32(config.seed, 300, number)[0] >> 8)


def rendered(
    config: Config, shapes: Mapping[str, tuple[int, ...]], city: Callable[[int, int], Mapping[str, Side]],
    behind: Sequence[Any], ids: Mapping[str, Callable[[int], str]], *, progress: bool = True,
) -> dict[str, ArrayImages]:  # fmt: skip
    """The images of both sides: from the cache if they were rendered before, else rendered and kept.

    config: a frozen dataclass; what it holds names the pictures, and so do the dataclasses `behind` names in it (levels).
    shapes: of all images of a side, (N, 3, H, W); ids: of each image, by its number.
    city: its number and how many places it has -> its sides.
    InputError if there is no room on the disk, or a city has fewer places.
    """
    named = [asdict(part) for part in [*(style_named(name) for name in config.styles), *behind]]
    key = {"code": source_digest(), "kind": type(config).__name__, "behind": named, **asdict(config)}
    folder = made_once("worlds", key, lambda folder: _render(folder, config, shapes, city, progress))
    sides = {}
    for name, shape in shapes.items():
        metres, turned = np.load(folder / f"{name}_m.npy").astype(np.float64), folder / f"{name}_deg.npy"
        positions = Positions(metres, FRAME, "embedded world", np.load(turned) if turned.exists() else None)
        names = tuple(ids[name](i) for i in range(shape[0]))
        sides[name] = ArrayImages(names, mapped(folder, name), positions, (folder / f"{name}.sha256").read_text())
    return sides


def _render(
    folder: Path, config: Config, shapes: Mapping[str, tuple[int, ...]],
    city: Callable[[int, int], Mapping[str, Side]], progress: bool,
) -> None:  # fmt: skip
    """Render all pictures straight into memory-mapped files, so that no world is too large for memory."""
    out = {name: new_images(folder, name, shape) for name, shape in shapes.items()}
    metres: dict[str, list[NDArray]] = {name: [] for name in shapes}
    headings: dict[str, list[NDArray]] = {name: [] for name in shapes}
    done = dict.fromkeys(shapes, 0)
    total = sum(shape[0] for shape in shapes.values())
    with tqdm(total=total, desc="rendering the world", unit="image", disable=not progress) as bar:
        for number, (style, count) in enumerate(zip(config.styles, shares(config), strict=True)):
            if not count:
                continue
            for name, side in city(number, count).items():
                for rows in side.batches:
                    out[name][done[name] + rows] = side.picture(rows).cpu().numpy()
                    bar.update(len(rows))
                done[name] += len(side.metres)
                metres[name].append(side.metres + np.float32([number * CITY_GAP_M, 0]))
                headings[name] += [] if side.heading_deg is None else [side.heading_deg]
            bar.set_postfix(city=style)
    for name, array in out.items():
        array.flush()
        np.save(folder / f"{name}_m.npy", np.concatenate(metres[name]), allow_pickle=False)
        if headings[name]:
            np.save(folder / f"{name}_deg.npy", np.concatenate(headings[name]), allow_pickle=False)
        # trainings go by the pixels: new code that renders the same pictures leaves them valid
        (folder / f"{name}.sha256").write_text(hashlib.sha256(array).hexdigest()[:16])


def batched(count: int) -> list[NDArray]:
    """Rows 0 to count - 1, RENDER_BATCH at a time."""
    return [np.arange(first, min(first + RENDER_BATCH, count)) for first in range(0, count, RENDER_BATCH)]
