"""Notebook 01: an example city, and the error of the flat-ground projection (UCVGL, section 3.2), which assumes a level camera
that heads north at a known height above flat ground, by the embedded world, which knows how far each pixel is."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ucvgl.geometry import TopView, attitude_matrix, panorama_pixel_to_ray, pixel_grid, ray_to_ground, top_view
from ucvgl.world.appearance import Condition
from ucvgl.world.city import Places, make_city, street_places
from ucvgl.world.render import Rendered, Scene
from ucvgl.world.styles import Kind, style_named
from ucvgl.world.views import ground_mask, panoramas

SPACING_M = 15.0  # between stops
MARGIN_M = 85.0  # to the edge: half a tile and what a panorama shows well
CANDIDATES = 24  # stops whose panoramas are compared


def position_errors(view: Rendered, believed: TopView, within_m: float) -> tuple[Tensor, Tensor]:
    """How far from its true spot each ground pixel is put: errors and true distances from the camera, metres, flat
    (M,); farther ground than `within_m` is left out. view: (B, H, 2H) panoramas of level cameras that head north;
    believed: the height and attitude that the projection takes them to have."""
    rows = view.kind.shape[-2]
    ray = panorama_pixel_to_ray(pixel_grid(rows, 2 * rows).to(view.depth_m), rows)  # (H, W, 3)
    truth = ray[..., :2] * view.depth_m[..., None]  # (B, H, W, 2)
    turn = attitude_matrix(*(ray.new_tensor(a) for a in (believed.heading_deg, believed.pitch_deg, believed.roll_deg)))
    placed = ray_to_ground(ray @ turn.T, believed.camera_height_m)  # (H, W, 2)
    distance = truth.norm(dim=-1)
    counts = ground_mask(view.kind) & (distance < within_m) & placed.isfinite().all(-1)
    return (placed - truth).norm(dim=-1)[counts], distance[counts]


def colour_errors(view: Rendered, ground: Rendered, settings: TopView) -> tuple[Tensor, Tensor, Tensor]:
    """Top views against the orthographic ground in the same light, each (B, S, S): mean error of the channels in grey
    levels of 255, nan where not both truths show ground; whether the panorama saw ground there; metres from the camera.
    view: (B, H, 2H) panoramas of level cameras that head north, at the settings' height; ground: tiles of their span
    and size around the same places, `from_above=False`."""
    seen = top_view(ground_mask(view.kind)[:, None].float(), settings)[:, 0] > 0.99
    error = (top_view(view.rgb, settings) - ground.rgb).abs().mean(1) * 255
    size = settings.size_px
    steps = (torch.arange(size, device=error.device) + 0.5 - size / 2) * (settings.span_m / size)
    distance = torch.hypot(steps[:, None], steps[None]).expand_as(error)
    return error.where(seen & ground_mask(ground.kind), torch.nan), seen, distance


def example_city(
    style: str, seed: int, resolution_m: float = 0.25, device: torch.device | str = "cpu"
) -> tuple[Scene, Places]:
    """A small city of a style, and the stops of its drives, the most varied first (of some that are spread over the
    city, by the entropy of a panorama's classes, sky left out), the others in driving order."""
    scene = Scene(make_city(style_named(style), seed, size_m=360.0, resolution_m=resolution_m), device)
    places = street_places(scene.city, SPACING_M, margin_m=MARGIN_M)
    some = np.linspace(0, len(places) - 1, min(CANDIDATES, len(places))).astype(int)
    east, north = (torch.from_numpy(x[some]).to(scene.device) for x in (places.east_m, places.north_m))
    kind = panoramas(scene, Condition(), east, north, torch.full_like(east, 2.5), height_px=32).kind.flatten(1)
    share = F.one_hot(kind.long(), len(Kind)).float().mean(1)  # (C, kinds)
    share[:, Kind.SKY] = 0
    entropy = -(share * (share + 1e-9).log()).sum(1)
    first = some[entropy.argsort(descending=True, stable=True).cpu().numpy()]
    return scene, places.take(np.concatenate([first, np.setdiff1d(np.arange(len(places)), first)]))
