"""What a camera makes of a city: satellite tiles, panoramas, street photos and drone images, with their truth. All take places
as float32 tensors (B,) in the city's metres, and give colours before the sensor. Tiles are north up; headings are degrees
clockwise from north; a panorama's centre column shows its heading, to the right is clockwise."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from ucvgl import geometry
from ucvgl.world.appearance import Condition
from ucvgl.world.render import Rendered, Scene, cast_columns, texels_at
from ucvgl.world.styles import Kind

DRONE_RANGE_M = 400.0  # how far a drone sees along the ground
DRONE_ROWS = 384  # of the panorama that drone images and tilted photos are cut from, at least


def ground_mask(kind: Tensor) -> Tensor:
    """True where a class map (styles.Kind) shows bare ground: roads, markings, pavements, lawns, water."""
    return kind <= Kind.WATER


def satellite_tiles(
    scene: Scene, condition: Condition, east_m: Tensor, north_m: Tensor, span_m: float | Tensor, *, size_px: int,
    from_above: bool = True,
) -> Rendered:  # fmt: skip
    """Orthographic tiles `span_m` metres across (one number, or (B,)), north up, centred at the places. from_above: as an
    aircraft sees it; else the ground beneath the crowns, the truth of a projected panorama."""
    span_m = torch.as_tensor(span_m, dtype=torch.float32, device=scene.device).expand_as(east_m)
    _assert_inside(scene, east_m, north_m, span_m / 2 - 1e-3)
    steps = ((torch.arange(size_px, device=scene.device) + 0.5) / size_px - 0.5) * span_m[:, None]  # (B, S)
    column, row = scene.pixel(east_m[:, None] + steps, north_m[:, None] - steps)
    column, row = torch.broadcast_tensors(column[:, None, :], row[:, :, None])  # (B, S, S)
    footprint = (span_m / (size_px * scene.city.resolution_m))[:, None, None].expand_as(column)
    rgb, kind = texels_at(scene.lit(condition, from_above=from_above), column, row, footprint)
    return Rendered(rgb.permute(0, 3, 1, 2), kind)


def panoramas(
    scene: Scene, condition: Condition, east_m: Tensor, north_m: Tensor, camera_height_m: Tensor, heading_deg: Tensor | None = None,
    pitch_deg: Tensor | None = None, roll_deg: Tensor | None = None, *, height_px: int = 128,
) -> Rendered:  # fmt: skip
    """Equirectangular panoramas (H, 2 H) from cameras above the ground; heading, pitch, roll: (B,), by default 0."""
    _assert_inside(scene, east_m, north_m)
    still = torch.zeros_like(east_m)
    heading_deg, pitch_deg, roll_deg = (still if a is None else a for a in (heading_deg, pitch_deg, roll_deg))
    azimuth, slope = _columns_and_rows(scene, height_px)
    azimuth = azimuth + torch.deg2rad(heading_deg)[:, None]
    eye_m = scene.ground_height(east_m, north_m) + camera_height_m
    level = cast_columns(scene, condition, east_m, north_m, eye_m, azimuth, slope, math.pi / height_px)
    if not (pitch_deg.any() or roll_deg.any()):
        return level
    turn = geometry.attitude_matrix(still, pitch_deg, roll_deg)
    pixels = geometry.pixel_grid(height_px, 2 * height_px).to(scene.device, torch.float32)
    rays = geometry.panorama_pixel_to_ray(pixels, height_px)  # (H, W, 3)
    return _cut(level, geometry.ray_to_panorama(torch.einsum("hwi,gji->ghwj", rays, turn), height_px))


def photos(
    scene: Scene, condition: Condition, east_m: Tensor, north_m: Tensor, camera_height_m: Tensor, heading_deg: Tensor, *,
    size_px: tuple[int, int] = (96, 128), fov_deg: float = 80.0,
) -> Rendered:  # fmt: skip
    """Level perspective photos (height, width), horizontal field of view `fov_deg`, looking along a heading."""
    _assert_inside(scene, east_m, north_m)
    rows, columns = size_px
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
    """Oblique square images from a drone that looks at the place, in their middle, from `altitude_m` above its ground."""
    back = altitude_m / math.tan(math.radians(-pitch_deg))
    turn = torch.deg2rad(heading_deg)
    eye_east, eye_north = east_m - back * torch.sin(turn), north_m - back * torch.cos(turn)
    _assert_inside(scene, torch.cat([east_m, eye_east]), torch.cat([north_m, eye_north]))
    eye_m = scene.ground_height(east_m, north_m) + altitude_m
    rows = max(DRONE_ROWS, int(1.5 * size_px * 180 / fov_deg / 2))
    azimuth, slope = _columns_and_rows(scene, rows)
    pixels = geometry.perspective_grid(rows, (size_px, size_px), fov_deg, 0.0, pitch_deg, 0.0)
    across, down = _span(pixels[..., 0], 2 * rows), _span(pixels[..., 1], rows)
    rays = eye_east, eye_north, eye_m, azimuth[across] + turn[:, None], slope[..., down]
    part = cast_columns(scene, condition, *rays, math.pi / rows, ranges=320, range_max_m=DRONE_RANGE_M)
    unseen = (across.start, 2 * rows - across.stop, down.start, rows - down.stop)
    return _cut(Rendered(*(functional.pad(field, unseen) for field in part)), pixels.to(scene.device))


def _assert_inside(scene: Scene, east_m: Tensor, north_m: Tensor, margin_m: float | Tensor = 0.0) -> None:
    """Nothing is beyond the city's edge, but rasters are read with clamped indices and would show something."""
    high = scene.city.size_m - margin_m
    assert all(bool(((x >= margin_m) & (x <= high)).all()) for x in (east_m, north_m)), "outside the city"


def _columns_and_rows(scene: Scene, height_px: int) -> tuple[Tensor, Tensor]:
    """Azimuths in radians (2 H,) and slopes (1, 1, H) of the rays of a panorama's pixels."""
    width = 2 * height_px
    azimuth = ((torch.arange(width, device=scene.device) + 0.5) / width - 0.5) * (2 * math.pi)
    latitude = (0.5 - (torch.arange(height_px, device=scene.device) + 0.5) / height_px) * math.pi
    return azimuth, torch.tan(latitude)[None, None]


def _span(pixels: Tensor, size: int) -> slice:
    """The rows or columns of a panorama that are read at these pixels; all of them where it may wrap around."""
    first, last = math.floor(float(pixels.min())) - 1, math.floor(float(pixels.max())) + 3
    return slice(first, last) if first >= 0 and last <= size else slice(0, size)


def _cut(panorama: Rendered, pixels: Tensor) -> Rendered:
    """Cut views out of panoramas at their pixels (B or 1, h, w, 2): colours smoothly, truth to the nearest ray."""
    rgb, *truths = panorama
    count, height, width = truths[0].shape
    column, row = pixels.round().long().unbind(-1)
    at = (row.clamp(0, height - 1) * width + column % width).flatten(1).expand(count, -1)
    truths = (truth.flatten(1).gather(1, at).reshape(-1, *pixels.shape[1:3]) for truth in truths)
    return Rendered(geometry.sample_panorama(rgb, pixels), *truths)
