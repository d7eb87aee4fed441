"""Pictures for notebook 01: places worth looking at, every product of the world, days, truths and knobs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.transforms.v2 import functional as V

from ucvgl import paths
from ucvgl.data import decode_file, open_dataset
from ucvgl.errors import InputError
from ucvgl.geometry import CVUSA_STRIP_OFFSET, TopView, complete_panorama, polar_view, top_view
from ucvgl.lab.plots import class_picture, depth_picture, sheet
from ucvgl.studies.projection_study import StudyConfig, tensors, top_views
from ucvgl.world.appearance import Condition
from ucvgl.world.city import make_city
from ucvgl.world.difficulty import LEVELS
from ucvgl.world.kinds import Kind
from ucvgl.world.pairs import world_pairs
from ucvgl.world.places import Places, street_places
from ucvgl.world.render import Scene
from ucvgl.world.styles import STYLES, style_named
from ucvgl.world.views import drone_images, ground_mask, panoramas, photos, satellite_tiles

CANDIDATES = 24  # stops looked at before the most varied is chosen
SHOWCASE_CITY_M = 360.0
DAYS = {
    "summer, late morning": Condition("summer", 150, 52, 0.1),
    "autumn, low sun": Condition("autumn", 235, 24, 0.25, 0, 1),
    "winter, snow, overcast": Condition("winter", 170, 20, 0.8, 0.85, 2),
    "night": Condition("summer", 0, -12, 0.2, 0, 3),
}
AMSTERDAM = "panorama of the City of Amsterdam (data.amsterdam.nl), MPL-2.0 repository Amsterdam/panorama"


def showcase_scene(
    style: str, seed: int, config: StudyConfig, device: torch.device | str = "cpu"
) -> tuple[Scene, Places]:
    """A small city of a style, and the stops of its drives, the most varied first."""
    city = make_city(
        style_named(style), seed, size_m=SHOWCASE_CITY_M, resolution_m=min(0.25, config.world.resolution_m)
    )
    scene = Scene(city, device, keep_days=len(DAYS) + 2)
    places = street_places(city, 15.0, margin_m=config.world.span_m / 2 + 60)
    return scene, places.take(_most_varied(scene, places))


def _most_varied(scene: Scene, places: Places) -> np.ndarray:
    """All stops, those whose low panorama shows the most kinds of things, most evenly, first."""
    some = np.linspace(0, len(places) - 1, min(CANDIDATES, len(places))).astype(int)
    east, north = tensors(places.take(some), scene.device)
    kind = panoramas(scene, Condition(), east, north, torch.full_like(east, 2.5), height_px=32).kind.flatten(1)
    share = torch.nn.functional.one_hot(kind.long(), len(Kind)).float().mean(1)  # (C, kinds)
    share[:, Kind.SKY] = 0
    entropy = -(share * (share + 1e-9).log()).sum(1)
    first = some[entropy.argsort(descending=True, stable=True).cpu().numpy()]
    rest = np.setdiff1d(np.arange(len(places)), first)
    return np.concatenate([first, rest])


def style_sheet(config: StudyConfig, seed: int, *, device: torch.device | str = "cpu") -> dict[str, list[Tensor]]:
    """A row for each city style: tile, panorama and its top view, a street photo and a drone image of one place."""
    columns: dict[str, list[Tensor]] = {
        name: []
        for name in ("satellite tile", "panorama (centre is north)", "its top view", "drone image", "street photo")
    }
    size = config.picture_px
    settings = TopView.from_span(size, config.world.span_m, config.camera_height_m)
    for style in STYLES:
        scene, places = showcase_scene(style, seed, config, device)
        here = places.take(np.array([0]))
        east, north = tensors(here, scene.device)
        heading = torch.from_numpy(here.heading_deg).to(scene.device)
        height = torch.full_like(east, config.camera_height_m)
        day = Condition()
        panorama = panoramas(scene, day, east, north, height, height_px=size).rgb
        tile = satellite_tiles(scene, day, east, north, span_m=config.world.span_m, size_px=size)
        drone = drone_images(scene, day, east, north, torch.full_like(east, 45.0), heading, size_px=size)
        photo = photos(scene, day, east, north, 0 * height + 1.7, heading, size_px=(size, size * 4 // 3))
        pictures = (tile.rgb, panorama, top_view(panorama, settings), drone.rgb, photo.rgb)
        for column, picture in zip(columns.values(), pictures, strict=True):
            column.append(picture[0])
    return columns


def overview(scene: Scene, size_px: int = 640) -> Tensor:
    """The whole city from above, (3, S, S)."""
    middle = torch.full((1,), scene.city.size_m / 2, device=scene.device)
    return satellite_tiles(scene, Condition(), middle, middle, span_m=scene.city.size_m, size_px=size_px).rgb[0]


def truth_sheet(scene: Scene, places: Places, config: StudyConfig) -> tuple[list[Tensor], list[str]]:
    """A panorama and its truth: depth, class, ground mask; pictures and their titles."""
    east, north = tensors(places.take(np.array([0])), scene.device)
    height = torch.full_like(east, config.camera_height_m)
    view = panoramas(scene, Condition(), east, north, height, height_px=config.picture_px)
    ground = ground_mask(view.kind)[0]
    return (
        [view.rgb[0], depth_picture(view.depth_m[0]), class_picture(view.kind[0]), view.rgb[0] * (0.2 + 0.8 * ground)],
        ["panorama", "depth", "class", "ground"],
    )


def day_sheet(scene: Scene, places: Places, config: StudyConfig) -> tuple[list[Tensor], list[str]]:
    """One place on several days."""
    east, north = tensors(places.take(np.array([0])), scene.device)
    height = torch.full_like(east, config.camera_height_m)
    views = [panoramas(scene, day, east, north, height, height_px=config.picture_px).rgb[0] for day in DAYS.values()]
    return views, list(DAYS)


def steps(scene: Scene, places: Places, config: StudyConfig, *, crop_share: float = 224 / 616) -> dict[str, Tensor]:
    """The pipeline on one place of the world: cropped as CVUSA is, completed, projected, beside the real tile.

    crop_share: rows kept of the panorama; CVUSA keeps 224 of 616. The crop sits above the middle as in CVUSA, so the
    nearest ground is lost: the black disc in the middle of the top view.
    """
    east, north = tensors(places.take(np.array([0])), scene.device)
    size, span = config.picture_px, config.world.span_m
    height = torch.full_like(east, config.camera_height_m)
    panorama = panoramas(scene, Condition(), east, north, height, height_px=size).rgb
    tile = satellite_tiles(scene, Condition(), east, north, span_m=span, size_px=size).rgb
    rows = round(size * crop_share)
    first = (size - rows) // 2 - round(CVUSA_STRIP_OFFSET * 2 * size)
    crop = panorama[..., first : first + rows, :]
    completed = complete_panorama(crop, strip_offset=CVUSA_STRIP_OFFSET)
    settings = TopView.from_span(size, span, config.camera_height_m)
    return {
        "panorama": panorama[0],
        "crop": crop[0],
        "completed": completed[0],
        "top view": top_view(panorama, settings)[0],
        "top view of the crop": top_view(completed, settings)[0],
        "tile": tile[0],
        "polar view of the tile": polar_view(tile, size // 2, 2 * size)[0],
    }


def knob_rows(panorama: Tensor, config: StudyConfig) -> dict[str, list[tuple[str, Tensor]]]:
    """The top view of one panorama (3, H, 2H) at five settings of each knob: label and picture (3, S, S)."""
    base = TopView.from_span(config.picture_px, config.world.span_m, config.camera_height_m)
    turns: dict[str, tuple[str, Sequence[float], str]] = {
        "heading": ("heading_deg", (-20, -5, 0, 5, 20), "{:+g} deg"),
        "pitch": ("pitch_deg", (-4, -1, 0, 1, 4), "{:+g} deg"),
        "roll": ("roll_deg", (-4, -1, 0, 1, 4), "{:+g} deg"),
        "field of view": ("fov_deg", (140, 155, base.fov_deg, 172, 175), "{:.1f} deg"),
    }
    rows = {
        knob: [(form.format(v), top_view(panorama[None], replace(base, **{field: float(v)}))[0]) for v in values]
        for knob, (field, values, form) in turns.items()
    }
    heights = (1.5, 2.0, config.camera_height_m, 3.0, 4.0)
    rows["camera height"] = [  # the span is kept: a believed height changes the scale of what is seen in it
        (f"{h:g} m", top_view(panorama[None], TopView.from_span(config.picture_px, config.world.span_m, h))[0])
        for h in heights
    ]
    return rows


def level_sheet(config: StudyConfig, place: int = 0) -> dict[str, list[Tensor]]:
    """One place of the difficulty table's world at each level (rows): tile, panorama, top view."""
    columns: dict[str, list[Tensor]] = {name: [] for name in ("tile", "panorama", "top view")}
    for level in LEVELS:
        world = replace(config.world, difficulty=level)
        pairs = world_pairs(world)
        one = pairs.take([place])
        columns["tile"].append(pairs.gallery[place])
        columns["panorama"].append(pairs.query[place])
        columns["top view"].append(top_views(one, world, config.camera_height_m)[0])
    return columns


def real_panorama(argument: str, data: str = "world") -> tuple[Tensor, str] | None:
    """A real panorama (1, 3, H, 2H) uint8, at most 2048 wide, and its credit; None if none is named or at hand.

    argument: a file, or '' for the first ground image of the data set, or for the sample of the City of Amsterdam where that
    lies in the samples folder. A strip of CVUSA's shape is completed as CVUSA's are, another one around the horizon.

    Raises:
        InputError: the file or data set can't be read, or the picture is no whole turn: 2:1, or a wider strip.
    """
    sample = paths.samples() / "amsterdam" / "pano_0005_001111.jpg"
    if argument:
        where, picture, credit = (
            argument,
            decode_file(str(Path(argument).expanduser())),
            f"your picture {Path(argument).name}",
        )
    elif data != "world":
        opened = open_dataset("auto", data)
        where, picture, credit = (
            f"{data}, ground image 0",
            opened.query.read(0),
            f"the first ground image of {opened.name}",
        )
    elif sample.exists():
        where, picture, credit = str(sample), decode_file(str(sample)), AMSTERDAM
    else:
        return None
    rows, columns = picture.shape[-2:]
    if columns < 2 * rows:
        raise InputError(
            where, expected="a panorama of a whole turn: 2:1, or a wider strip", found=f"{columns}x{rows} pixels",
            todo="Crop or stitch it to 360 degrees first.",
        )  # fmt: skip
    width = min(columns // 2 * 2, 2048)
    picture = V.resize(picture[None], [round(rows * width / columns), width], antialias=True)
    if width == 2 * picture.shape[-2]:
        return picture, credit
    cvusa = abs(columns / rows - 1232 / 224) < 0.02
    return complete_panorama(picture, strip_offset=CVUSA_STRIP_OFFSET if cvusa else 0.0), credit


def real_figure(real: tuple[Tensor, str] | None, settings: TopView) -> Figure | None:
    """A real panorama and its top view; None without one."""
    if real is None:
        return None
    view = top_view(real[0], replace(settings, size_px=512))
    return sheet({"panorama": [real[0][0]], f"top view, {settings.fov_deg:.1f} degrees": [view[0]]})
