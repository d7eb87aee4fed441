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
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ucvgl.data.write import new_folder, save_image
from ucvgl.errors import InputError
from ucvgl.geometry import perspective_view
from ucvgl.positions import Positions, Wgs84, from_metres, to_metres
from ucvgl.world.pairs import WorldConfig, city_of, panorama_shots
from ucvgl.world.rendering import Shots
from ucvgl.world.views import satellite_tiles

ORIGIN = (45.0, -30.0)  # latitude, longitude of the city's south-western corner: open sea
OWN_CITY = WorldConfig(("downtown",), places=300, spacing_m=20.0, tile_px=256, city_size_m=1000.0, resolution_m=0.4)


def export_own_city(
    root: Path | str, world: WorldConfig = OWN_CITY, *, zoom: int = 18, photo_fov_deg: float | None = None,
    progress: bool = True,
) -> Path:  # fmt: skip
    """Render a city and write it as two unrelated folders; `root`, absent or empty, appears only when it is complete.

    world: of one city, whose style the committed encoders have not learnt from: those learnt from 'garden' and 'canal'. Its tiles
    are source tiles; its span is that of the candidates that will be cut: so far from the edge of the tiles all pictures stay.
    zoom: of the pyramid; 18 is 0.42 m a pixel at the origin. photo_fov_deg: photos of so many degrees across instead of
    panoramas, 4:3, in any direction, cut from the panoramas (give 512 of `panorama_px`).
    InputError: a setting is impossible, the city has fewer places, or `root` holds something.
    """
    places, seed = world.places, world.seed
    centre_m, edge_m, names = _pyramid(world.city_size_m, zoom)
    # a tile that would reach over the city's edge is not there, so places keep a tile's edge more away from it
    wide = replace(world, span_m=world.span_m + 2 * float(edge_m.max()))
    bar = tqdm(total=places + len(names), desc="rendering the city", unit="image", disable=not progress)
    with new_folder(root) as scratch, bar:
        scene, stops, nuisance = city_of(wide, 0, places, "cpu")
        order = np.random.default_rng([seed, 410]).permutation(places)
        files = [f"pano_{k:05d}.jpg" for k in np.argsort(order)]  # stop order[k] has the name k
        # what is said of the middle of a picture, and what it shows
        compass_deg, faces_deg = np.zeros(places, np.float32), nuisance.heading_deg
        if photo_fov_deg is not None:
            compass_deg = np.random.default_rng([seed, 411]).uniform(0, 360, places).astype(np.float32)
            faces_deg = (compass_deg + faces_deg) % 360
        shots = panorama_shots(scene, stops, replace(nuisance, heading_deg=faces_deg), world.panorama_px)
        for rows, images in shots.taken():
            pictures = torch.from_numpy(images)
            if photo_fov_deg is not None:  # the panorama's centre column is the photo's
                size = world.panorama_px * 3 // 4, world.panorama_px
                pictures = perspective_view(pictures, size, photo_fov_deg)
            for i, picture in zip(rows, pictures, strict=True):
                save_image(picture, scratch / "ground" / files[i])
            bar.update(len(rows))
        # a mosaic of one day and one exposure, by the first camera, with noise of each tile's own
        first = np.zeros(len(names), np.int32)
        sensor = nuisance.satellite_sensor.take(first)
        sensor = replace(sensor, seed=sensor.seed + torch.arange(len(names), dtype=torch.int32))
        camera, poses = partial(satellite_tiles, size_px=world.tile_px), (*centre_m.T, edge_m)
        for rows, images in Shots(scene, camera, poses, sensor, (nuisance.satellite_day,), first).taken():
            for i, image in zip(rows, images, strict=True):
                save_image(torch.from_numpy(image), scratch / "tiles" / names[i])
            bar.update(len(rows))
        degrees = from_metres(stops.metres.astype(np.float64), ORIGIN)
        truth = {"file": files, "latitude": [f"{v:.8f}" for v in degrees[:, 0]],
                 "longitude": [f"{v:.8f}" for v in degrees[:, 1]],
                 "heading_deg": [f"{float(v) % 360:.3f}" for v in faces_deg]}  # fmt: skip
        pd.DataFrame(truth).iloc[order].to_csv(scratch / "truth.csv", index=False, lineterminator="\n")
        if photo_fov_deg is not None:
            known = {"file": files, "heading_deg": [f"{float(v) % 360:.3f}" for v in compass_deg],
                     "fov_deg": f"{photo_fov_deg:g}"}  # fmt: skip
            pd.DataFrame(known).iloc[order].to_csv(scratch / "ground.csv", index=False, lineterminator="\n")
        settings = asdict(world) | {
            "zoom": zoom, "photo_fov_deg": photo_fov_deg, "origin": list(ORIGIN),
            "heading_error_deg": float(np.abs(nuisance.heading_deg).max()), "note": "a synthetic city at a made-up place",
        }  # fmt: skip
        (scratch / "city.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return Path(root).resolve()


def _pyramid(size_m: float, zoom: int) -> tuple[NDArray, NDArray, list[str]]:
    """Centres (T, 2) and edges (T,) in the city's metres, and names, of the XYZ tiles that lie wholly in the city."""
    if not 0 < zoom <= 24:
        raise InputError("zoom", expected="1 to 24", found=zoom, todo="Aerial pictures have 18 to 20.")
    side = 2**zoom
    lat, lon = from_metres(np.array([[0, 0], [size_m, size_m]]), ORIGIN).T  # of the south-western, north-eastern corner
    x0, x1 = ((lon + 180) / 360 * side).astype(int)
    y1, y0 = ((1 - np.arctanh(np.sin(np.radians(lat))) / np.pi) / 2 * side).astype(int)
    xy = np.stack(np.meshgrid(np.arange(x0, x1 + 1), np.arange(y0, y1 + 1)), -1).reshape(-1, 2)

    def metres(corner: float) -> NDArray:
        x, y = (xy + corner).T / side
        lat = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * y))))
        return to_metres(Positions(np.stack([lat, x * 360 - 180], 1), Wgs84()), ORIGIN).values

    low, high = metres(0), metres(1)  # north-western and south-eastern corners
    # On the ellipsoid Web Mercator's pixels are a quarter of a percent longer to the east than to the north; a tile is
    # drawn as a square between the two, a tenth of a metre off at its edges.
    centre_m, edge_m = (low + high) / 2, np.abs(high - low).mean(1)
    inside = np.all((centre_m >= edge_m[:, None] / 2) & (centre_m <= size_m - edge_m[:, None] / 2), axis=1)
    if not inside.any():
        todo = "Enlarge it, or the zoom."
        raise InputError("city_size_m", expected="room for a whole tile", found=f"{size_m:g} m", todo=todo)
    return centre_m[inside], edge_m[inside], [f"{zoom}/{x}/{y}.jpg" for x, y in xy[inside]]
