"""A city of the embedded world as somebody's map page: panoramas along its streets, tiles, made-up probabilities."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ucvgl.geometry import TopView, top_view
from ucvgl.locate.located import Candidate, Located
from ucvgl.locate.map_page import Background, map_page
from ucvgl.positions import from_metres
from ucvgl.world.appearance import Condition
from ucvgl.world.city import make_city
from ucvgl.world.own_city import ORIGIN
from ucvgl.world.places import choose, street_places
from ucvgl.world.render import Scene
from ucvgl.world.styles import style_named
from ucvgl.world.views import panoramas, satellite_tiles

SPAN_M = 40.0
HEIGHT_M = 2.5
CANDIDATES = 5
DAY = Condition("summer", 150, 52, 0.1)


def write_city_page(path: Path, count: int, *, size_m: float, title: str) -> list[Located]:
    """Writes a page of `count` places, each with five candidates of its own; returns the places."""
    scene = Scene(make_city(style_named("downtown"), 5, size_m=size_m, resolution_m=0.5))
    stops = choose(street_places(scene.city, 3.0, margin_m=SPAN_M), count, 0)
    random = np.random.default_rng(0)
    probability = random.beta(2, 1, count)
    metres = np.stack([stops.east_m, stops.north_m], -1).astype(float)  # (N, 2)
    away = random.normal(0, 30, (count, CANDIDATES, 2)) * (np.arange(CANDIDATES) > 0)[:, None]
    centres = np.clip(metres[:, None] + away, SPAN_M / 2 + 1, size_m - SPAN_M / 2 - 1)  # (N, 5, 2)
    where = from_metres(centres.reshape(-1, 2), ORIGIN).reshape(count, CANDIDATES, 2)
    located = [_located(i, where[i], centres[i], float(probability[i])) for i in range(count)]

    def tile(name: str) -> Tensor:
        east, north = (torch.tensor([v], dtype=torch.float32) for v in map(float, name[5:-4].split("_")))
        return satellite_tiles(scene, DAY, east, north, span_m=SPAN_M, size_px=80).rgb[0]

    middle = torch.tensor([size_m / 2])
    ground = _panoramas(scene, metres)
    settings = TopView.from_span(112, SPAN_M, HEIGHT_M)
    (south, west), (north, east) = from_metres(np.array([[0.0, 0], [size_m, size_m]]), ORIGIN)
    above = satellite_tiles(scene, DAY, middle, middle, span_m=size_m, size_px=2048).rgb[0]
    background = Background(above, float(south), float(west), float(north), float(east))
    page = map_page(located, background, title=title, ground=lambda i: ground[i],
                    top=lambda i: top_view(ground[i][None], settings)[0], tile=tile)  # fmt: skip
    path.write_text(page, encoding="utf-8")
    return located


def _located(i: int, where: np.ndarray, centres: np.ndarray, probability: float) -> Located:
    away = np.hypot(*(centres - centres[0]).T)
    best = tuple(
        Candidate(f"tile_{east:.1f}_{north:.1f}.png", float(lat), float(lon), 0.9 - 0.08 * k, round(float(away[k]), 1))
        for k, ((lat, lon), (east, north)) in enumerate(zip(where, centres, strict=True))
    )
    radius, radius_90 = (round(k * (4 + 30 * (1 - probability)), 1) for k in (1, 2.5))
    name = f"street_{i:04d}.jpg"
    return Located(name, best[0].latitude, best[0].longitude, probability, radius, radius_90, best, heading_deg=0.0)


def _panoramas(scene: Scene, metres: np.ndarray) -> Tensor:
    """(N, 3, 128, 256) uint8 at (N, 2) metres, a batch at a time."""
    views = []
    for some in torch.from_numpy(metres).float().split(64):
        view = panoramas(scene, DAY, some[:, 0], some[:, 1], torch.full((len(some),), HEIGHT_M), height_px=128)
        views.append((view.rgb.clamp(0, 1) * 255).round().to(torch.uint8))
    return torch.cat(views)
