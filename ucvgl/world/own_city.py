"""The embedded world as somebody's own city: street panoramas of unknown place, and positioned satellite tiles.

Two folders, as a reader would bring them, and beside them the truth, for the evaluation alone:

    ground/     north-aligned panoramas, or photos, shuffled, without positions
    ground.csv  of photos, their compass and field of view
    tiles/      z/x/y.jpg, a level of an XYZ pyramid
    truth.csv   where and how each picture was taken
    city.json   the settings

The city lies at a made-up place in the North Atlantic.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ucvgl.data.write import JPEG_QUALITY, new_folder
from ucvgl.errors import InputError
from ucvgl.geometry import perspective_view
from ucvgl.positions import Positions, Wgs84, from_metres, to_metres
from ucvgl.world.appearance import Condition
from ucvgl.world.difficulty import Nuisance
from ucvgl.world.pairs import WorldConfig, city_of, panorama_shots
from ucvgl.world.render import Rendered, Scene
from ucvgl.world.rendering import Shots
from ucvgl.world.views import satellite_tiles

ORIGIN = (45.0, -30.0)  # latitude, longitude of the city's south-western corner: open sea
OWN_CITY = WorldConfig(("downtown",), places=300, spacing_m=20.0, tile_px=256, city_size_m=1000.0, resolution_m=0.4)
Floats = NDArray[np.float64]


def export_own_city(
    root: Path | str, world: WorldConfig = OWN_CITY, *, zoom: int = 18, photo_fov_deg: float | None = None,
    progress: bool = True,
) -> Path:  # fmt: skip
    """Render a city and write it as two unrelated folders; `root` appears only when it is complete.

    Args:
        root: an absent or empty folder.
        world: of one city, whose style the committed encoders have not learnt from: those learnt from 'garden' and 'canal'. Its
            tiles are source tiles; its span is that of the candidates that will be cut: so far from the edge of the tiles all
            pictures stay.
        zoom: of the pyramid; 18 is 0.42 m a pixel at the origin.
        photo_fov_deg: photos of so many degrees across instead of panoramas, 4:3, in any direction, cut from the panoramas (give
            512 of `panorama_px`). None: panoramas whose centre shows north, but for the level's error.
        progress: show a bar.

    Raises:
        InputError: a setting is impossible, the city has fewer places, or `root` holds something.
    """
    places, size_m, seed = world.places, world.city_size_m, world.seed
    centre_m, edge_m, names = _pyramid(size_m, zoom)
    if not names:
        raise InputError(
            "city_size_m", expected="room for a whole tile", found=f"{size_m:g} m", todo="Enlarge it, or the zoom."
        )
    # a tile that would reach over the city's edge is not there, so places keep a tile's edge more away from it
    wide = replace(world, span_m=world.span_m + 2 * float(edge_m.max()))
    bar = tqdm(total=places + len(names), desc="rendering the city", unit="image", disable=not progress)
    with new_folder(root) as scratch, bar:
        scene, stops, nuisance = city_of(wide, 0, places, "cpu")
        compass = np.zeros(places, np.float32)
        if photo_fov_deg is not None:
            compass = np.random.default_rng([seed, 411]).uniform(0, 360, places).astype(np.float32)
        error = nuisance.heading_deg
        faces = (compass + error) % 360 if compass.any() else error  # what the centre column really shows
        order = np.random.default_rng([seed, 410]).permutation(places)
        files = [f"pano_{k:05d}.jpg" for k in np.argsort(order)]  # stop order[k] has the name k
        shots = panorama_shots(scene, stops, replace(nuisance, heading_deg=faces), world.panorama_px)
        for rows, images in shots.taken():
            pictures = torch.from_numpy(images)
            if photo_fov_deg is not None:  # the panorama's centre column is the photo's
                size = world.panorama_px * 3 // 4, world.panorama_px
                pictures = perspective_view(pictures, size, photo_fov_deg)
            for i, picture in zip(rows, pictures, strict=True):
                _write(picture, scratch / "ground" / files[i])
            bar.update(len(rows))
        degrees = from_metres(stops.metres.astype(np.float64), ORIGIN)
        truth = [(files[i], *(f"{v:.8f}" for v in degrees[i]), f"{float(faces[i]) % 360:.3f}") for i in order]
        _table(scratch / "truth.csv", ("file", "latitude", "longitude", "heading_deg"), truth)
        if photo_fov_deg is not None:
            known = [(files[i], f"{float(compass[i]) % 360:.3f}", f"{photo_fov_deg:g}") for i in order]
            _table(scratch / "ground.csv", ("file", "heading_deg", "fov_deg"), known)
        for rows, images in _mosaic(scene, nuisance, centre_m, edge_m, world.tile_px).taken():
            for i, image in zip(rows, images, strict=True):
                _write(torch.from_numpy(image), scratch / "tiles" / names[i])
            bar.update(len(rows))
        settings = asdict(world) | {
            "zoom": zoom, "photo_fov_deg": photo_fov_deg, "origin": list(ORIGIN),
            "heading_error_deg": float(np.abs(error).max()), "note": "a synthetic city at a made-up place",
        }  # fmt: skip
        (scratch / "city.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return Path(root).resolve()


def _mosaic(scene: Scene, nuisance: Nuisance, centre_m: Floats, edge_m: Floats, tile_px: int) -> Shots:
    """Tiles of one day and one exposure, as a mosaic has, with noise of each tile's own."""

    def view(day: Condition, rows: NDArray) -> Rendered:
        tiles = [
            satellite_tiles(scene, day, *scene.tensors([i], *centre_m.T), span_m=float(edge_m[i]), size_px=tile_px)
            for i in rows
        ]
        return Rendered(*(torch.cat([getattr(tile, name) for tile in tiles]) for name in ("rgb", "kind")))

    every = np.zeros(len(centre_m), np.int32)  # by the first camera
    one = nuisance.satellite_sensor.take(every)
    sensor = replace(one, seed=one.seed + torch.arange(len(centre_m), dtype=torch.int32))
    return Shots(centre_m, every, (nuisance.satellite_day,), sensor, view)


def _pyramid(size_m: float, zoom: int) -> tuple[Floats, Floats, list[str]]:
    """Centres (T, 2) and edges (T,) in the city's metres, and names, of the XYZ tiles that lie wholly in the city."""
    if not 0 < zoom <= 24:
        raise InputError("zoom", expected="1 to 24", found=zoom, todo="Aerial pictures have 18 to 20.")
    side = 2**zoom
    corners = np.array([[0, 0], [size_m, size_m]])  # south-western, north-eastern
    lat, lon = from_metres(corners, ORIGIN).T
    x0, x1 = ((lon + 180) / 360 * side).astype(int)
    y1, y0 = ((1 - np.arctanh(np.sin(np.radians(lat))) / np.pi) / 2 * side).astype(int)
    found = [(x, y) for y in range(y0, y1 + 1) for x in range(x0, x1 + 1)]

    def metres(shift: float) -> Floats:
        x, y = (np.array(found, np.float64) + 0.5 + shift).T / side  # half a tile off the centre: a corner
        lat = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * y))))
        return to_metres(Positions(np.stack([lat, x * 360 - 180], 1), Wgs84()), ORIGIN).values

    low, high = metres(-0.5), metres(0.5)  # north-western and south-eastern corners
    # On the ellipsoid Web Mercator's pixels are a quarter of a percent longer to the east than to the north; a tile is
    # drawn as a square between the two, a tenth of a metre off at its edges.
    centre, edge = (low + high) / 2, np.abs(high - low).mean(1)
    inside = np.all((centre >= edge[:, None] / 2) & (centre <= size_m - edge[:, None] / 2), axis=1)
    return (
        centre[inside],
        edge[inside],
        [f"{zoom}/{x}/{y}.jpg" for (x, y), is_in in zip(found, inside, strict=True) if is_in],
    )


def _write(image: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = image.permute(1, 2, 0).numpy()  # (H, W, 3)
    Image.fromarray(pixels).save(path, format="JPEG", quality=JPEG_QUALITY, subsampling=0)


def _table(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    path.write_text("".join(",".join(row) + "\n" for row in [header, *rows]), encoding="utf-8")
