"""A small city to look at, and places in it that show much."""

import numpy as np
import torch
from torch.nn import functional as F

from ucvgl.world.appearance import Condition
from ucvgl.world.city import make_city
from ucvgl.world.kinds import Kind
from ucvgl.world.places import Places, street_places
from ucvgl.world.render import Scene
from ucvgl.world.styles import style_named
from ucvgl.world.views import panoramas

SIZE_M = 360.0
SPACING_M = 15.0  # between stops
MARGIN_M = 85.0  # to the edge: half a tile and what a panorama shows well
CANDIDATES = 24  # stops whose panoramas are compared


def example_city(
    style: str, seed: int, resolution_m: float = 0.25, device: torch.device | str = "cpu"
) -> tuple[Scene, Places]:
    """A small city of a style, and the stops of its drives, the most varied first.

    Most varied is the panorama that shows the most kinds of things, the most evenly: the largest entropy of classes,
    sky left out. Only some stops, spread over the city, are looked at; the others follow in driving order.
    """
    scene = Scene(make_city(style_named(style), seed, size_m=SIZE_M, resolution_m=resolution_m), device)
    places = street_places(scene.city, SPACING_M, margin_m=MARGIN_M)
    some = np.linspace(0, len(places) - 1, min(CANDIDATES, len(places))).astype(int)
    east, north = (torch.from_numpy(x[some]).to(scene.device) for x in (places.east_m, places.north_m))
    kind = panoramas(scene, Condition(), east, north, torch.full_like(east, 2.5), height_px=32).kind.flatten(1)
    share = F.one_hot(kind.long(), len(Kind)).float().mean(1)  # (C, kinds)
    share[:, Kind.SKY] = 0
    entropy = -(share * (share + 1e-9).log()).sum(1)
    first = some[entropy.argsort(descending=True, stable=True).cpu().numpy()]
    return scene, places.take(np.concatenate([first, np.setdiff1d(np.arange(len(places)), first)]))
