"""What a camera makes of a city: satellite tiles, panoramas, street photos and drone images, with their truth.

All take places as float32 tensors (B,) in the city's metres, and give linear-looking colours before the sensor (see
sensor.py). Conventions: tiles are north up; a panorama's centre column is its heading (north at 0), to the right is
clockwise; headings are degrees clockwise from north.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ucvgl.errors import InputError
from ucvgl.geometry import attitude_matrix, panorama_pixel_to_ray, perspective_grid, ray_to_panorama, sample_panorama
from ucvgl.world.appearance import Condition, car_heights
from ucvgl.world.kinds import GROUND, TRUNK, Kind
from ucvgl.world.places import check_inside
from ucvgl.world.render import Rendered, Scene, cast_columns, texels_at

TILTED_AT_ONCE = 8  # panoramas: bounds the memory of their sampling grids
DRONE_RANGE_M = 400.0  # how far a drone sees along the ground
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
    turn = torch.zeros_like(east_m) if heading_deg is None else torch.deg2rad(heading_deg)
    sin, cos = torch.sin(turn)[:, None, None], torch.cos(turn)[:, None, None]
    corner = (
        float((sin.abs() + cos.abs()).max()) if heading_deg is not None else 1.0
    )  # a turned tile's reach, in half spans
    _check(scene, east_m, north_m, span_m / 2 * corner - 1e-3, span_m=span_m, size_px=size_px)
    steps = ((torch.arange(size_px, device=scene.device) + 0.5) / size_px - 0.5) * span_m
    right, up = steps[None, None, :], -steps[None, :, None]
    east = east_m[:, None, None] + right * cos + up * sin
    north = north_m[:, None, None] - right * sin + up * cos
    column, row = scene.pixel(east, north)
    footprint = torch.full_like(column, span_m / size_px / scene.city.resolution_m)
    rgb, kind = texels_at(scene.lit(condition, from_above=from_above), column, row, footprint)
    at = scene.word_index(column, row)
    relief = scene.layers["relief"].reshape(-1, 4)[at].int()
    height = relief[..., 0] * 0.01
    height = height + car_heights(scene.city, condition, scene.device)[(-relief[..., 3]).clamp(0, TRUNK)]
    if from_above:
        leafy = (relief[..., 2] > 0) & (scene.layers["dither"].reshape(-1)[at] < condition.leaf_cover)
        height = torch.where(leafy, (relief[..., 0] + relief[..., 2]) * 0.01, height)
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
    turn = attitude_matrix(still, still if pitch_deg is None else pitch_deg, still if roll_deg is None else roll_deg)
    if not bool(turn.isfinite().all()):
        raise InputError(
            "tilt", expected="finite angles in degrees", found="nan or inf", todo="Correct pitch and roll."
        )
    row, column = torch.meshgrid(
        torch.arange(height_px, device=scene.device), torch.arange(width, device=scene.device), indexing="ij"
    )
    rays = panorama_pixel_to_ray(torch.stack([column, row], -1).float(), height_px)  # (H, W, 3)
    parts = []
    for turns, *images in zip(
        *(x.split(TILTED_AT_ONCE) for x in (turn, level.rgb, level.depth_m, level.kind)), strict=True
    ):
        parts.append(_cut(Rendered(*images), ray_to_panorama(torch.einsum("hwi,gji->ghwj", rays, turns), height_px)))
    return Rendered(*(torch.cat(fields) for fields in zip(*((p.rgb, p.depth_m, p.kind) for p in parts), strict=True)))


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
        InputError: a pitch outside [-85, -20], a field of view outside (0, 120], a drone outside the city, or farther than
            300 m from the place.
    """
    _check(scene, east_m, north_m, 0.0, size_px=size_px, altitude_m=float(altitude_m.min()))
    if not -85 <= pitch_deg <= -20:
        raise InputError(
            "pitch_deg", expected="degrees in [-85, -20]", found=pitch_deg, todo="Straight down is a tile."
        )
    if not 0 < fov_deg <= 120:
        raise InputError("fov_deg", expected="degrees in (0, 120]", found=fov_deg, todo="A drone camera has about 60.")
    back = altitude_m / math.tan(math.radians(-pitch_deg))
    if float(back.max()) > 0.75 * DRONE_RANGE_M:
        highest = 0.75 * DRONE_RANGE_M * math.tan(math.radians(-pitch_deg))
        raise InputError(
            "altitude_m", expected=f"at most {highest:.0f} m at a pitch of {pitch_deg:g} degrees",
            found=f"{float(altitude_m.max()):g} m", todo="Fly lower or look down more steeply.",
        )  # fmt: skip
    turn = torch.deg2rad(heading_deg)
    eye_east, eye_north = east_m - back * torch.sin(turn), north_m - back * torch.cos(turn)
    check_inside(scene.city, eye_east.cpu().numpy(), eye_north.cpu().numpy())
    eye_m = scene.ground_height(east_m, north_m) + altitude_m
    rows = max(DRONE_ROWS, int(1.5 * size_px * 180 / fov_deg / 2))
    width = 2 * rows
    azimuth = ((torch.arange(width, device=scene.device) + 0.5) / width - 0.5) * (2 * math.pi) + turn[:, None]
    latitude = (0.5 - (torch.arange(rows, device=scene.device) + 0.5) / rows) * math.pi
    pixels = perspective_grid(rows, (size_px, size_px), fov_deg, 0.0, pitch_deg, 0.0)
    across, down = _span(pixels[..., 0], width), _span(pixels[..., 1], rows)
    part = cast_columns(
        scene, condition, eye_east, eye_north, eye_m, azimuth[:, across], torch.tan(latitude)[None, None, down],
        math.pi / rows, ranges=320, range_max_m=DRONE_RANGE_M,
    )  # fmt: skip
    unseen = (across.start, width - across.stop, down.start, rows - down.stop)
    sphere = Rendered(*(functional.pad(field, unseen) for field in (part.rgb, part.depth_m, part.kind)))
    return _cut(sphere, pixels.to(scene.device))


def _span(pixels: Tensor, size: int) -> slice:
    """The rows or columns of a panorama that are read at these pixels; all of them where it may wrap around."""
    first, last = math.floor(float(pixels.min())) - 1, math.floor(float(pixels.max())) + 3
    return slice(first, last) if first >= 0 and last <= size else slice(0, size)


def _cut(level: Rendered, pixels: Tensor) -> Rendered:
    """Cut views out of panoramas at their pixels (B or 1, h, w, 2): colours smoothly, truth to the nearest ray."""
    height, width = level.kind.shape[-2:]
    column, row = pixels.round().long().unbind(-1)
    at = (row.clamp(0, height - 1) * width + column % width).flatten(1).expand(len(level.kind), -1)
    depth, kind = (
        truth.flatten(1).gather(1, at).reshape(-1, *pixels.shape[1:3]) for truth in (level.depth_m, level.kind)
    )
    return Rendered(sample_panorama(level.rgb, pixels), depth, kind)
