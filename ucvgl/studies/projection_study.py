"""Notebook 01: how true the flat-ground projection is, and how far pixels alone get at each difficulty.

UCVGL's first step (section 3.2) maps a panorama to the ground plane as if the camera stood level on flat ground at a
known height. The embedded world knows where each pixel really lies, so the error of that assumption can be measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import pandas as pd
import torch
from torch import Tensor

from ucvgl.data.container import Dataset
from ucvgl.errors import InputError
from ucvgl.geometry import TopView, attitude_matrix, panorama_pixel_to_ray, ray_to_ground, top_view
from ucvgl.methods.baselines import centred_by_domain, colour_descriptor, pixel_descriptor
from ucvgl.metrics import chance_at, ranks_of, recall_at
from ucvgl.world.appearance import Condition
from ucvgl.world.difficulty import DEFAULT_LEVEL, LEVELS, Difficulty
from ucvgl.world.pairs import WorldConfig, city_of, world_pairs
from ucvgl.world.places import Places
from ucvgl.world.render import Scene
from ucvgl.world.views import ground_mask, panoramas, satellite_tiles

RINGS_M = (0, 5, 10, 15, 20, 25)  # from below the camera outwards
KS = (1, 5, 10)
PIXELS = "pixels of the top view"
BATCH = 64


@dataclass(frozen=True)
class StudyConfig:
    """Sizes of notebook 01."""

    world: WorldConfig  # the gallery of the difficulty table; its difficulty is replaced by each level in turn
    accuracy_places: int  # places over which the error is measured
    accuracy_panorama_px: int  # height
    picture_px: int  # of panoramas and tiles that are drawn
    camera_height_m: float = 2.5  # what the projection assumes: the middle of every level


def study_config(profile: str, seed: int) -> StudyConfig:
    """The sizes of a profile."""
    match profile:
        case "tiny":
            world = WorldConfig(
                ("garden",), seed, 40, 12.0, panorama_px=64, tile_px=32, city_size_m=256, resolution_m=0.5
            )
            return StudyConfig(world, accuracy_places=8, accuracy_panorama_px=128, picture_px=128)
        case "laptop":
            world = WorldConfig(("garden", "canal"), seed, 1000, 12.0, panorama_px=128, tile_px=64)
            return StudyConfig(world, accuracy_places=64, accuracy_panorama_px=256, picture_px=256)
        case "paper":
            world = WorldConfig(("garden", "canal"), seed, 2000, 12.0, panorama_px=512, tile_px=384, city_size_m=1500)
            return StudyConfig(world, accuracy_places=256, accuracy_panorama_px=512, picture_px=512)
    raise InputError("profile", expected="tiny, laptop or paper", found=repr(profile), todo="Choose one.")


@dataclass(frozen=True)
class Assumption:
    """What the projection believes of a camera that in truth is level, heads north and stands at the true height."""

    name: str
    height_factor: float = 1.0
    heading_deg: float = 0.0
    pitch_deg: float = 0.0
    roll_deg: float = 0.0


ASSUMPTIONS = (
    Assumption("exact"),
    Assumption("height 10 % too low", height_factor=0.9),
    Assumption("heading off by 2 deg", heading_deg=2.0),
    Assumption("pitch off by 1 deg", pitch_deg=1.0),
)


def tensors(places: Places, device: torch.device) -> tuple[Tensor, Tensor]:
    """East and north of places on a device."""
    return torch.from_numpy(places.east_m).to(device), torch.from_numpy(places.north_m).to(device)


def ring_of(distance_m: Tensor) -> Tensor:
    """Index of the distance ring of RINGS_M, -1 outside."""
    edges = torch.tensor(RINGS_M, dtype=torch.float32, device=distance_m.device)
    ring = torch.bucketize(distance_m.contiguous(), edges, right=True) - 1
    return torch.where(ring < len(RINGS_M) - 1, ring, -1)


def position_errors(scene: Scene, places: Places, config: StudyConfig, assumption: Assumption) -> tuple[Tensor, Tensor]:
    """How far from its true spot the projection puts each ground pixel: errors and true distances, metres, flat (M,).

    Every pixel that the truth calls ground, out to the last ring, of one panorama per place.
    """
    east, north = tensors(places, scene.device)
    rows = config.accuracy_panorama_px
    height = torch.full_like(east, config.camera_height_m)
    view = panoramas(scene, Condition(), east, north, height, height_px=rows)
    column, row = torch.meshgrid(torch.arange(2 * rows), torch.arange(rows), indexing="xy")
    ray = panorama_pixel_to_ray(torch.stack([column, row], -1).float().to(scene.device), rows)  # (H, W, 3)
    truth = ray[..., :2] * view.depth_m[..., None]  # (B, H, W, 2)
    turn = attitude_matrix(
        *(torch.tensor(a) for a in (assumption.heading_deg, assumption.pitch_deg, assumption.roll_deg))
    )
    believed = ray_to_ground(ray @ turn.T.to(scene.device), config.camera_height_m * assumption.height_factor)
    distance = truth.norm(dim=-1)
    counts = ground_mask(view.kind) & (distance < RINGS_M[-1]) & believed.isfinite().all(-1)
    return (believed - truth).norm(dim=-1)[counts], distance[counts]


def colour_errors(scene: Scene, places: Places, config: StudyConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Top view against the orthographic ground in the same light: colour errors, grey levels (M,), distances (M,), share.

    Only pixels that both truths call ground. share (5,): of each ring's pixels that the panorama saw as ground.
    """
    east, north = tensors(places, scene.device)
    size = config.accuracy_panorama_px
    settings = TopView.from_span(size, 2.0 * RINGS_M[-1], config.camera_height_m)
    height = torch.full_like(east, config.camera_height_m)
    view = panoramas(scene, Condition(), east, north, height, height_px=size)
    ortho = satellite_tiles(scene, Condition(), east, north, span_m=2.0 * RINGS_M[-1], size_px=size, from_above=False)
    seen = top_view(ground_mask(view.kind)[:, None].float(), settings)[:, 0] > 0.99
    error = (top_view(view.rgb, settings) - ortho.rgb).abs().mean(1) * 255
    steps = (torch.arange(size, device=scene.device) + 0.5 - size / 2) * (2.0 * RINGS_M[-1] / size)
    distance = torch.hypot(steps[:, None], steps[None]).expand_as(error)
    counts = seen & ground_mask(ortho.kind)
    ring = ring_of(distance)
    share = torch.stack([seen[ring == k].float().mean() for k in range(len(RINGS_M) - 1)])
    return error[counts], distance[counts], share


def accuracy_table(scene: Scene, places: Places, config: StudyConfig) -> pd.DataFrame:
    """A row for each assumption and distance ring: median and 90th percentile of the position error, metres.

    For the exact assumption also the mean colour error against the orthographic ground and the share seen as ground.
    """
    rows = []
    grey, grey_distance, share = colour_errors(scene, places, config)
    grey_ring = ring_of(grey_distance)
    for assumption in ASSUMPTIONS:
        error, distance = position_errors(scene, places, config, assumption)
        ring = ring_of(distance)
        for k in range(len(RINGS_M) - 1):
            here = error[ring == k]
            row = {
                "assumption": assumption.name,
                "from_m": RINGS_M[k],
                "to_m": RINGS_M[k + 1],
                "median_error_m": _share_below(here, 0.5),
                "p90_error_m": _share_below(here, 0.9),
            }
            if assumption.name == "exact":
                row["colour_error"] = float(grey[grey_ring == k].mean())
                row["seen_as_ground"] = 100 * float(share[k])
            rows.append(row)
    return pd.DataFrame(rows)


def _share_below(values: Tensor, share: float) -> float:
    """The value that `share` of all values stay below; NaN of none."""
    return float(values.kthvalue(max(1, round(share * len(values)))).values) if len(values) else float("nan")


def top_views(pairs: Dataset, config: WorldConfig, camera_height_m: float = 2.5) -> Tensor:
    """Top views of all panoramas at the tiles' span and size, uint8 (N, 3, S, S), a batch at a time."""
    settings = TopView.from_span(config.tile_px, config.span_m, camera_height_m)
    return torch.cat([top_view(part, settings) for part in pairs.query[:].split(BATCH)])


def difficulty_table(config: StudyConfig, *, device: torch.device | str = "cpu", progress: bool = True) -> pd.DataFrame:
    """Recall without any learning at each level: pixels of the top view, colours alone, and chance."""
    rows = []
    for level in LEVELS:
        world = replace(config.world, difficulty=level)
        pairs = world_pairs(world, device=device, progress=progress)
        views, tiles = top_views(pairs, world, config.camera_height_m), pairs.gallery[:]
        for name, describe in ((PIXELS, pixel_descriptor), ("colours alone", colour_descriptor)):
            query, gallery = centred_by_domain(describe(views)), centred_by_domain(describe(tiles))
            ranks = ranks_of(query, gallery, torch.arange(len(query)))
            rows.append({"level": level, "method": name, **recall_at(ranks, KS), "places": len(ranks)})
        rows.append({"level": level, "method": "chance", **chance_at(len(pairs), KS), "places": len(pairs)})
    return pd.DataFrame(rows)


def exact_errors(table: pd.DataFrame) -> tuple[float, float]:
    """Median error of the exact assumption in the nearest and in the farthest ring, metres."""
    exact = table[table["assumption"] == ASSUMPTIONS[0].name]["median_error_m"]
    return float(exact.iloc[0]), float(exact.iloc[-1])


def at_default(table: pd.DataFrame) -> float:
    """R@1 of plain pixels at the default level, percent."""
    row = table[(table["level"] == DEFAULT_LEVEL) & (table["method"] == PIXELS)]
    return float(row["r_at_1"].iloc[0])


def accuracy_scene(config: StudyConfig, device: torch.device | str = "cpu") -> tuple[Scene, Places]:
    """The first city of the study's world and the places over which the projection's error is measured."""
    world = replace(config.world, span_m=max(config.world.span_m, 2.0 * RINGS_M[-1]))  # room for the outermost ring
    scene, places, _ = city_of(world, 0, config.accuracy_places, device)
    return scene, places


def level_settings() -> pd.DataFrame:
    """A row a nuisance, a column a level."""
    rows = []
    for field in fields(Difficulty)[1:]:
        values = {name: getattr(level, field.name) for name, level in LEVELS.items()}
        rows.append({"nuisance": field.name, **{name: _as_text(value) for name, value in values.items()}})
    return pd.DataFrame(rows)


def _as_text(value: object) -> str:
    if isinstance(value, tuple):
        return " to ".join(map(str, value)) if isinstance(value[0], float) else ", ".join(map(str, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else f"{value:g}"


def settings_table(published: Mapping[str, TopView], ours: TopView) -> pd.DataFrame:
    """A row for each setting of the top view: published ones by data set, then ours."""
    names = {
        "size_px": "size (px)",
        "fov_deg": "field of view (deg)",
        "camera_height_m": "camera height (m)",
        "span_m": "span (m)",
    }
    rows = []
    for name, label in names.items():
        given = {f"published {key}": f"{getattr(view, name):g}" for key, view in published.items()}
        if name in ("camera_height_m", "span_m"):  # the paper gives no height, so no span either
            given = dict.fromkeys(given, "not given")
        rows.append({"setting": label, **given, "ours": f"{getattr(ours, name):.4g}"})
    return pd.DataFrame(rows)
