"""The embedded world as somebody's own city: street panoramas of unknown place, and positioned satellite tiles.

Two folders, as a reader would bring them, and beside them the truth, for the evaluation alone:

    ground/     panoramas or photos, shuffled, without positions       ground.csv  their headings, unless north-aligned
    tiles/      z/x/y.jpg, or numbered tiles                           tiles.csv   their positions, unless in the names
    truth.csv   where and how each panorama was taken                  city.json   the settings

The city lies at a made-up place in the North Atlantic.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ucvgl.data.files import read_columns, read_position_table
from ucvgl.data.write import JPEG_QUALITY, new_folder
from ucvgl.errors import InputError
from ucvgl.geometry import perspective_view
from ucvgl.positions import Positions, Wgs84, from_metres, to_metres
from ucvgl.world.difficulty import DEFAULT_LEVEL, Nuisance
from ucvgl.world.pairs import WorldConfig, city_of
from ucvgl.world.places import Places
from ucvgl.world.render import Scene
from ucvgl.world.rendering import RENDER_BATCH
from ucvgl.world.sensor import Sensor, expose
from ucvgl.world.views import panoramas, satellite_tiles

ORIGIN = (45.0, -30.0)  # latitude, longitude of the city's south-western corner: open sea
TILE_BATCH = 8  # satellite tiles rendered together: they have more pixels than the world's own


def export_own_city(
    root: Path | str, style: str = "old_town", places: int = 300, seed: int = 0, *,
    tiles: Literal["xyz", "csv"] = "xyz", aligned: bool = True, difficulty: str = DEFAULT_LEVEL, spacing_m: float = 20.0,
    span_m: float = 50.0, zoom: int = 18, tile_px: int = 256, panorama_px: int = 128, city_size_m: float = 1000.0,
    resolution_m: float = 0.4, photo_fov_deg: float | None = None,
    origin: tuple[float, float] = ORIGIN, device: torch.device | str = "cpu",
    progress: bool = True,
) -> Path:  # fmt: skip
    """Render a city and write it as two unrelated folders; `root` appears only when it is complete.

    Args:
        root: an absent or empty folder.
        style: of the city; the committed encoders learnt from 'garden' and 'canal'.
        places: panoramas.
        seed: of the city and of everything drawn.
        tiles: 'xyz' for a level of an XYZ pyramid, 'csv' for tiles with positions in tiles.csv.
        aligned: centre columns show north, but for the level's error; else the direction of travel, and ground.csv has
            the compass, with that error.
        difficulty: easy, medium or hard.
        spacing_m: between stops along a street; the laptop profile's 20.
        span_m: edge of the candidates that will be cut: so far from the edge of the tiles all panoramas stay.
        zoom: of the pyramid; 18 is 0.42 m a pixel at the origin.
        tile_px: edge of a source tile.
        panorama_px: height of a panorama, its width is twice that.
        city_size_m: edge of the city.
        resolution_m: of the city's rasters.
        photo_fov_deg: photos of so many degrees across instead of panoramas, 4:3, in any direction, cut from panoramas of
            `panorama_px` (give 512); ground.csv then has the compass and the field of view. None: panoramas.
        origin: latitude and longitude of the city's south-western corner.
        device: renders.
        progress: show a bar.

    Raises:
        InputError: a setting is impossible, the city has fewer places, or `root` holds something.
    """
    if tiles not in ("xyz", "csv"):
        raise InputError("tiles", expected="'xyz' or 'csv'", found=repr(tiles), todo="Choose one.")
    config = WorldConfig(
        (style,), seed, places, spacing_m, difficulty, span_m, tile_px, panorama_px, city_size_m, resolution_m
    )
    centre_m, edge_m, names = (_pyramid if tiles == "xyz" else _squares)(city_size_m, origin, zoom)
    if len(names) == 0:
        raise InputError(
            "city_size_m", expected="room for a whole tile", found=f"{city_size_m:g} m", todo="Enlarge it, or the zoom."
        )
    with new_folder(root) as scratch:
        # a tile that would reach over the city's edge is not there, so places keep a tile's edge more away from it
        scene, stops, nuisance = city_of(replace(config, span_m=span_m + 2 * float(edge_m.max())), 0, places, device)
        bar = tqdm(total=places + len(names), desc="rendering the city", unit="image", disable=not progress)
        heading = _ground(scratch, scene, stops, nuisance, panorama_px, seed, origin, aligned, photo_fov_deg, bar)
        _tiles(scratch / "tiles", scene, nuisance, centre_m, edge_m, names, tile_px, bar)
        if tiles == "csv":
            degrees = from_metres(centre_m, origin)
            rows = [
                (leaf, f"{lat:.8f}", f"{lon:.8f}", repr(edge / tile_px))
                for leaf, (lat, lon), edge in zip(names, degrees, edge_m.tolist(), strict=True)
            ]
            _table(scratch / "tiles.csv", ("file", "latitude", "longitude", "metres_per_pixel"), rows)
        settings = {
            "style": style, "seed": seed, "places": places, "tiles": tiles, "aligned": aligned, "difficulty": difficulty,
            "spacing_m": spacing_m, "span_m": span_m, "zoom": zoom, "tile_px": tile_px, "panorama_px": panorama_px,
            "city_size_m": city_size_m, "resolution_m": resolution_m, "origin": list(origin),
            "photo_fov_deg": photo_fov_deg, "heading_error_deg": float(np.abs(heading).max()),
            "note": "a synthetic city at a made-up place",
        }  # fmt: skip
        (scratch / "city.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        bar.close()
    return Path(root).resolve()


def read_truth(path: Path | str) -> tuple[list[str], Positions, NDArray[np.float64]]:
    """Files, positions (WGS84) and headings (N,) in degrees of the panoramas, from truth.csv: for evaluation alone."""
    files, positions = read_position_table(path)
    _, columns = read_columns(path, ("heading_deg",))
    return files, positions, columns["heading_deg"]


def _ground(
    root: Path, scene: Scene, stops: Places, nuisance: Nuisance, rows: int, seed: int, origin: tuple[float, float],
    aligned: bool, photo_fov_deg: float | None, bar: tqdm,
) -> NDArray[np.float32]:  # fmt: skip
    """Write the pictures and truth.csv; returns the errors of the headings in degrees."""
    count = len(stops)
    error = nuisance.heading_deg
    compass = np.zeros(count, np.float32) if aligned else stops.heading_deg
    if photo_fov_deg is not None:
        compass = np.random.default_rng([seed, 411]).uniform(0, 360, count).astype(np.float32)
    faces = (compass + error) % 360 if compass.any() else error  # what the centre column really shows
    order = np.random.default_rng([seed, 410]).permutation(count)
    names = [f"pano_{k:05d}.jpg" for k in np.argsort(order)]  # stop order[k] has the name k
    (root / "ground").mkdir()
    for day in np.unique(nuisance.day):
        at = np.flatnonzero(nuisance.day == day)
        for first in range(0, len(at), RENDER_BATCH):
            here = at[first : first + RENDER_BATCH]
            east, north, height, heading, pitch, roll = (
                torch.from_numpy(np.float32(array[here])).to(scene.device)
                for array in (stops.east_m, stops.north_m, nuisance.camera_height_m, faces, nuisance.pitch_deg,
                              nuisance.roll_deg)
            )  # fmt: skip
            tilt = {"pitch_deg": pitch, "roll_deg": roll} if bool(pitch.any()) or bool(roll.any()) else {}
            view = panoramas(
                scene, nuisance.days[day], east, north, height, height_px=rows, heading_deg=heading, **tilt
            )
            images = expose(view.rgb, nuisance.ground_sensor.take(here))
            if photo_fov_deg is not None:  # the panorama's centre column is the photo's
                images = perspective_view(images, (rows * 3 // 4, rows), photo_fov_deg)
            for i, image in zip(here, images, strict=True):
                _write(image, root / "ground" / names[i])
            bar.update(len(here))
    degrees = from_metres(np.stack([stops.east_m, stops.north_m], -1).astype(np.float64), origin)
    truth = [(names[i], f"{degrees[i, 0]:.8f}", f"{degrees[i, 1]:.8f}", f"{float(faces[i]) % 360:.3f}") for i in order]
    _table(root / "truth.csv", ("file", "latitude", "longitude", "heading_deg"), truth)
    if not aligned or photo_fov_deg is not None:
        known = [(names[i], f"{float(compass[i]) % 360:.3f}") for i in order]
        if photo_fov_deg is not None:
            known = [(*row, f"{photo_fov_deg:g}") for row in known]
        _table(root / "ground.csv", ("file", "heading_deg", "fov_deg")[: len(known[0])], known)
    return error


def _tiles(
    root: Path, scene: Scene, nuisance: Nuisance, centre_m: NDArray[np.float64], edge_m: NDArray[np.float64],
    names: list[str], size: int, bar: tqdm,
) -> None:  # fmt: skip
    """Write the satellite tiles: one day and one exposure, as a mosaic has, with noise of their own."""
    one = nuisance.satellite_sensor
    for first in range(0, len(names), TILE_BATCH):
        here = np.arange(first, min(first + TILE_BATCH, len(names)))
        east, north = (torch.from_numpy(np.float32(centre_m[here, k])).to(scene.device) for k in range(2))
        parts = [
            satellite_tiles(
                scene, nuisance.satellite_day, east[k : k + 1], north[k : k + 1], span_m=float(edge), size_px=size
            ).rgb
            for k, edge in enumerate(edge_m[here])
        ]
        many = one.take(np.zeros(len(here), np.int64))
        seed = (one.seed[:1] + torch.from_numpy(here.astype(np.int32)).to(scene.device)).int()
        sensor = Sensor(many.gain, many.gamma, many.noise, seed, one.blur_px, one.haze)
        for i, image in zip(here, expose(torch.cat(parts), sensor), strict=True):
            _write(image, root / names[i])
        bar.update(len(here))


def _pyramid(
    size_m: float, origin: tuple[float, float], zoom: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """Centres (T, 2) and edges (T,) in the city's metres, and names, of the XYZ tiles that lie wholly in the city."""
    if not 0 < zoom <= 24:
        raise InputError("zoom", expected="1 to 24", found=zoom, todo="Aerial pictures have 18 to 20.")
    (south, west), (north, east) = from_metres(np.array([[0, 0], [size_m, size_m]]), origin)
    side = 2**zoom

    def number(lat: float, lon: float) -> tuple[int, int]:
        return int((lon + 180) / 360 * side), int((1 - np.arctanh(np.sin(np.radians(lat))) / np.pi) / 2 * side)

    (x0, y1), (x1, y0) = number(south, west), number(north, east)
    found = [(x, y) for y in range(y0, y1 + 1) for x in range(x0, x1 + 1)]

    def metres(shift: float) -> NDArray[np.float64]:
        x, y = (np.array(found, np.float64) + 0.5 + shift).T / side  # half a tile off the centre: a corner
        lat = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * y))))
        return to_metres(Positions(np.stack([lat, x * 360 - 180], 1), Wgs84()), origin).values

    low, high = metres(-0.5), metres(0.5)  # north-western and south-eastern corners
    # On the ellipsoid Web Mercator's pixels are a quarter of a percent longer to the east than to the north; a tile is
    # drawn as a square between the two, a tenth of a metre off at its edges.
    centre, edge = (low + high) / 2, np.abs(high - low).mean(1)
    inside = np.all((centre >= edge[:, None] / 2) & (centre <= size_m - edge[:, None] / 2), axis=1)
    names = [f"{zoom}/{x}/{y}.jpg" for (x, y), good in zip(found, inside, strict=True) if good]
    return centre[inside], edge[inside], names


def _squares(
    size_m: float, origin: tuple[float, float], zoom: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """The same for squares that fill the city exactly, about as large as the tiles of that zoom."""
    about = 2 * np.pi * 6_378_137.0 * np.cos(np.radians(origin[0])) / 2**zoom
    count = max(1, round(size_m / about))
    edge = size_m / count
    steps = (np.arange(count) + 0.5) * edge
    centre = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    return centre, np.full(len(centre), edge), [f"tile_{k:05d}.jpg" for k in range(len(centre))]


def _write(image: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = image.permute(1, 2, 0).cpu().numpy()  # (H, W, 3)
    Image.fromarray(pixels).save(path, format="JPEG", quality=JPEG_QUALITY, subsampling=0)


def _table(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    path.write_text(text.getvalue(), encoding="utf-8")
