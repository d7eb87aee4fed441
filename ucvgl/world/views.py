"""What a camera makes of a city: satellite tiles, panoramas, street photos and drone images, with their truth.

All take places as float32 tensors (B,) in the city's metres, and give linear-looking colours before the sensor (see
sensor.py). Conventions: tiles are north up; a panorama's centre column is its heading (north at 0), to the right is
clockwise; headings are degrees clockwise from north.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ucvgl.errors import InputError
from ucvgl.projection import perspective_view, rotate_panorama
from ucvgl.world.appearance import Condition
from ucvgl.world.city import GROUND, Kind
from ucvgl.world.places import check_inside
from ucvgl.world.render import Rendered, Scene, cast_columns, texels_at

DRONE_ROWS = 384  # of the panorama that drone images and tilted photos are cut from, at least


@dataclass(frozen=True)
class Tiles:
    """Satellite tiles and their truth.

    rgb: float32 (B, 3, S, S) in 0..1; height_m: float32 (B, S, S), top of what is seen above datum; kind: uint8
    (B, S, S), the class.
    """

    rgb: Tensor
    height_m: Tensor
    kind: Tensor


def ground_mask(kind: Tensor) -> Tensor:
    """True where a class map (city.Kind) shows bare ground: roads, markings, pavements, lawns, water."""
    table = torch.zeros(len(Kind), dtype=torch.bool, device=kind.device)
    table[list(GROUND)] = True
    return table[kind.int()]


def _check(scene: Scene, east_m: Tensor, north_m: Tensor, margin_m: float, **positive: float) -> None:
    for name, value in positive.items():
        if not value > 0:
            raise InputError(name, expected="a number above 0", found=value, todo="Correct it.")
    check_inside(scene.city, east_m.cpu().numpy(), north_m.cpu().numpy(), margin_m)


def satellite_tiles(
    scene: Scene, condition: Condition, east_m: Tensor, north_m: Tensor, *, span_m: float, size_px: int,
    heading_deg: Tensor | None = None, from_above: bool = True,
) -> Tiles:  # fmt: skip
    """Orthographic tiles `span_m` metres across, centred at the places.

    heading_deg: (B,) what is up in the tile; north if not given.
    from_above: as an aircraft sees it; if False, the ground beneath the crowns, lit as a pedestrian sees it: the truth
        that a projected panorama is compared with.

    Raises:
        InputError: a span or size that isn't positive, a tile that reaches beyond the city.
    """
    _check(scene, east_m, north_m, span_m / 2, span_m=span_m, size_px=size_px)
    steps = ((torch.arange(size_px, device=scene.device) + 0.5) / size_px - 0.5) * span_m
    right, up = steps[None, None, :], -steps[None, :, None]
    turn = torch.zeros_like(east_m) if heading_deg is None else torch.deg2rad(heading_deg)
    sin, cos = torch.sin(turn)[:, None, None], torch.cos(turn)[:, None, None]
    east = east_m[:, None, None] + right * cos + up * sin
    north = north_m[:, None, None] - right * sin + up * cos
    column, row = scene.pixel(east, north)
    footprint = torch.full_like(column, span_m / size_px / scene.city.resolution_m)
    rgb, kind = texels_at(scene.lit(condition, from_above=from_above), column, row, footprint)
    relief = scene.layers["relief"].reshape(-1, 4)[scene.word_index(column, row)]
    crown = relief[..., 2].clamp(min=0).int() if from_above else 0
    height = (relief[..., 0] + crown) * 0.01
    return Tiles(rgb.permute(0, 3, 1, 2), height, kind)


def panoramas(
    scene: Scene, condition: Condition, east_m: Tensor, north_m: Tensor, camera_height_m: Tensor, *, height_px: int = 128,
    heading_deg: Tensor | None = None, pitch_deg: Tensor | None = None, roll_deg: Tensor | None = None,
) -> Rendered:  # fmt: skip
    """Equirectangular panoramas, `height_px` x 2 `height_px`, from cameras at a height above the ground.

    heading_deg: (B,) what the centre column shows, north if not given; pitch_deg, roll_deg: (B,) the camera's tilt, level
    if not given. Truth is cut with the picture, to the nearest ray.

    Raises:
        InputError: a size or camera height that isn't positive, a place outside the city.
    """
    _check(scene, east_m, north_m, 0.0, height_px=height_px, camera_height_m=float(camera_height_m.min()))
    width = 2 * height_px
    azimuth = ((torch.arange(width, device=scene.device) + 0.5) / width - 0.5) * (2 * math.pi)
    turn = torch.zeros_like(east_m) if heading_deg is None else torch.deg2rad(heading_deg)
    latitude = (0.5 - (torch.arange(height_px, device=scene.device) + 0.5) / height_px) * math.pi
    eye_m = scene.ground_height(east_m, north_m) + camera_height_m
    level = cast_columns(
        scene, condition, east_m, north_m, eye_m, azimuth + turn[:, None], torch.tan(latitude)[None, None],
        math.pi / height_px,
    )  # fmt: skip
    if pitch_deg is None and roll_deg is None:
        return level
    still = torch.zeros_like(east_m)
    tilt = (still, still if pitch_deg is None else pitch_deg, still if roll_deg is None else roll_deg)
    return _resample(level, lambda images, mode: rotate_panorama(images, *tilt, mode=mode))


def photos(
    scene: Scene, condition: Condition, east_m: Tensor, north_m: Tensor, camera_height_m: Tensor, heading_deg: Tensor, *,
    size_px: tuple[int, int] = (96, 128), fov_deg: float = 80.0,
) -> Rendered:  # fmt: skip
    """Level perspective photos (height, width), horizontal field of view `fov_deg`, looking along a heading.

    Raises:
        InputError: a field of view outside (0, 180), a size that isn't positive, a place outside the city.
    """
    rows, columns = size_px
    _check(scene, east_m, north_m, 0.0, height_px=rows, width_px=columns, camera_height_m=float(camera_height_m.min()))
    if not 0 < fov_deg < 180:
        raise InputError("fov_deg", expected="degrees in (0, 180)", found=fov_deg, todo="A phone camera has about 70.")
    focal = columns / 2 / math.tan(math.radians(fov_deg) / 2)
    aside = torch.atan((torch.arange(columns, device=scene.device) + 0.5 - columns / 2) / focal)  # (W,)
    rise = (rows / 2 - 0.5 - torch.arange(rows, device=scene.device)) / focal  # (H,)
    slope = rise[None, None, :] * torch.cos(aside)[None, :, None]  # a plane's columns are farther off at the sides
    eye_m = scene.ground_height(east_m, north_m) + camera_height_m
    azimuth = torch.deg2rad(heading_deg)[:, None] + aside
    return cast_columns(scene, condition, east_m, north_m, eye_m, azimuth, slope, 1 / focal, ranges=max(144, rows))


def drone_images(
    scene: Scene, condition: Condition, east_m: Tensor, north_m: Tensor, altitude_m: Tensor, heading_deg: Tensor, *,
    size_px: int = 128, pitch_deg: float = -50.0, fov_deg: float = 60.0,
) -> Rendered:  # fmt: skip
    """Oblique square images from a drone that looks at the place from `altitude_m` above its ground, along a heading.

    The drone stands back so that the place is in the middle of the image: at altitude / tan(-pitch) metres.

    Raises:
        InputError: a pitch outside [-85, -20], a field of view outside (0, 120], a drone outside the city.
    """
    _check(scene, east_m, north_m, 0.0, size_px=size_px, altitude_m=float(altitude_m.min()))
    if not -85 <= pitch_deg <= -20:
        raise InputError(
            "pitch_deg", expected="degrees in [-85, -20]", found=pitch_deg, todo="Straight down is a tile."
        )
    if not 0 < fov_deg <= 120:
        raise InputError("fov_deg", expected="degrees in (0, 120]", found=fov_deg, todo="A drone camera has about 60.")
    back = altitude_m / math.tan(math.radians(-pitch_deg))
    turn = torch.deg2rad(heading_deg)
    eye_east, eye_north = east_m - back * torch.sin(turn), north_m - back * torch.cos(turn)
    check_inside(scene.city, eye_east.cpu().numpy(), eye_north.cpu().numpy())
    eye_m = scene.ground_height(east_m, north_m) + altitude_m
    rows = max(DRONE_ROWS, int(1.5 * size_px * 180 / fov_deg / 2))
    width = 2 * rows
    azimuth = ((torch.arange(width, device=scene.device) + 0.5) / width - 0.5) * (2 * math.pi) + turn[:, None]
    latitude = (0.5 - (torch.arange(rows, device=scene.device) + 0.5) / rows) * math.pi
    sphere = cast_columns(
        scene, condition, eye_east, eye_north, eye_m, azimuth, torch.tan(latitude)[None, None], math.pi / rows,
        ranges=320, range_max_m=400,
    )  # fmt: skip
    still = torch.zeros_like(east_m)
    pitch = torch.full_like(east_m, pitch_deg)
    return _resample(
        sphere,
        lambda images, mode: perspective_view(images, (size_px, size_px), fov_deg, still, pitch, still, mode=mode),
    )


def _resample(rendered: Rendered, cut) -> Rendered:  # noqa: ANN001 (a function of images and interpolation mode)
    """Cut a view out of a panorama: colours smoothly, truth to the nearest ray."""
    kind = cut(rendered.kind[:, None].float(), "nearest")[:, 0].round().to(torch.uint8)
    return Rendered(cut(rendered.rgb, "bilinear"), cut(rendered.depth_m[:, None], "nearest")[:, 0], kind)
