"""The geometry of the views: pixel to ray to ground metre and back, camera attitude, and the top view's settings.

Pure functions on points; `projection.py` uses them to resample images. Frames, for the whole package:
- world: (east, north, up); a ground position is (east, north) in metres from the point below the camera, ground level
  0;
- pixel: (column, row), pixel centres at whole numbers, so an image spans -0.5 to width - 0.5;
- panorama (H, 2H): column j looks at azimuth ((j + 0.5) / W - 0.5) * 360 deg, clockwise from north, so the centre is
  north and east lies to its right; row i looks at latitude 90 - (i + 0.5) / H * 180 deg;
- top view (S, S): north up, east right, the downward gnomonic view of UCVGL (CVPR 2024), focal (S/2) / tan(fov/2);
- satellite tile (S, S): north up, east right, span_m across; polar view (H, W): azimuth as in the panorama, rows from
  the tile's inscribed circle (top) to its centre (bottom), as the polar transform of SAFA (Shi et al., NeurIPS 2019).
"""

import math
from dataclasses import dataclass, fields
from numbers import Real
from typing import Self

import torch
from torch import Tensor

from ucvgl.errors import InputError


def check_number(where: str, value: object, *, unit: str = "", low: float = -math.inf, high: float = math.inf) -> float:
    """Return a finite real number strictly between low and high as a float, or raise InputError."""
    real = isinstance(value, Real) and not isinstance(value, bool)
    if real and math.isfinite(value) and low < value < high:
        return float(value)
    bounds = f" above {low:g}" * (low > -math.inf) + " and" * (low > -math.inf and high < math.inf)
    bounds += f" below {high:g}" * (high < math.inf)
    raise InputError(
        where, expected=f"a finite number{bounds} {unit}".rstrip(), found=repr(value), todo="Give one such number."
    )


def check_pixels(where: str, value: object, *, least: int = 1) -> int:
    """Return a whole number of pixels, at least `least`, or raise InputError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value
    raise InputError(
        where, expected=f"a whole number of pixels, at least {least}", found=repr(value), todo="Give an int."
    )


def check_points(where: str, points: object, width: int) -> Tensor:
    """Return a floating tensor of points (..., width), or raise InputError."""
    if isinstance(points, Tensor) and points.is_floating_point() and points.ndim and points.shape[-1] == width:
        return points
    found = f"{tuple(points.shape)} {points.dtype}" if isinstance(points, Tensor) else type(points).__name__
    raise InputError(
        where, expected=f"a floating tensor (..., {width})", found=found, todo=f"Stack {width} coordinates last."
    )


@dataclass(frozen=True)
class TopView:
    """Settings of a top view; InputError for a value that is not finite or out of range.

    The attitude is how the camera stood when it took the panorama; the top view undoes it and stays north up and level.
    Order and signs: see `attitude_matrix`.
    """

    size_px: int = 750  # side; the paper: 750 for CVUSA, 1200 for CVACT
    fov_deg: float = 175.0  # full angle across the side, in (0, 180); the paper: 175 for CVUSA, 170 for CVACT
    camera_height_m: float = (
        2.5  # above the ground, scales metres only; about a car's roof camera; the paper gives none
    )
    heading_deg: float = 0.0  # azimuth of the centre column, clockwise from north; the paper: 0, panoramas are aligned
    pitch_deg: float = 0.0  # nose up; the paper: 0
    roll_deg: float = 0.0  # right side down; the paper: 0

    def __post_init__(self) -> None:
        check_pixels("TopView.size_px", self.size_px)
        check_number("TopView.fov_deg", self.fov_deg, unit="deg", low=0, high=180)
        check_number("TopView.camera_height_m", self.camera_height_m, unit="m", low=0)
        for name in ("heading_deg", "pitch_deg", "roll_deg"):
            check_number(f"TopView.{name}", getattr(self, name), unit="deg")
        for field in fields(self)[1:]:  # numpy scalars become floats, so equal settings share one cached grid
            object.__setattr__(self, field.name, float(getattr(self, field.name)))

    @classmethod
    def from_span(cls, size_px: int, span_m: float, camera_height_m: float = 2.5, **attitude: float) -> Self:
        """The top view that shows span_m of ground across, to lie pixel on pixel over a tile of that span."""
        check_number("span_m", span_m, unit="m", low=0)
        check_number("camera_height_m", camera_height_m, unit="m", low=0)
        fov_deg = math.degrees(2 * math.atan(span_m / 2 / camera_height_m))
        return cls(size_px, fov_deg, camera_height_m, **attitude)

    @property
    def focal_px(self) -> float:
        """Distance of the image plane, in pixels."""
        return focal_px(self.size_px, self.fov_deg)

    @property
    def span_m(self) -> float:
        """Ground shown across the side, in metres: 2 h tan(fov/2)."""
        return 2 * self.camera_height_m * math.tan(math.radians(self.fov_deg) / 2)


CVUSA_TOP_VIEW = TopView(size_px=750, fov_deg=175.0)  # the settings UCVGL published for each data set
CVACT_TOP_VIEW = TopView(size_px=1200, fov_deg=170.0)


def focal_px(width_px: int, fov_deg: float) -> float:
    """Focal length in pixels of a pinhole image width_px wide that sees fov_deg across."""
    return width_px / 2 / math.tan(math.radians(fov_deg) / 2)


def attitude_matrix(heading_deg: Tensor, pitch_deg: Tensor, roll_deg: Tensor) -> Tensor:
    """Rotation from camera (right, forward, up) to world (east, north, up): (...) angles -> (..., 3, 3).

    The camera starts level and facing north, turns clockwise by the heading about the vertical, then raises its nose by
    the pitch about its own right axis, then lowers its right side by the roll about its own forward axis: R =
    Rz(-heading) Rx(pitch) Ry(roll), right-handed rotations.
    """
    angles = torch.stack(torch.broadcast_tensors(heading_deg, pitch_deg, roll_deg)).deg2rad()  # (3, ...)
    (ch, cp, cr), (sh, sp, sr) = angles.cos(), angles.sin()
    rows = [
        [ch * cr + sh * sp * sr, sh * cp, ch * sr - sh * sp * cr],
        [ch * sp * sr - sh * cr, ch * cp, -sh * sr - ch * sp * cr],
        [-cp * sr, sp, cp * cr],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def panorama_pixel_to_ray(pixel: Tensor, height_px: int) -> Tensor:
    """Panorama pixels (..., 2) of a panorama (height_px, 2 height_px) to unit rays (..., 3) in its camera's frame."""
    column, row = check_points("pixel", pixel, 2).unbind(-1)
    check_pixels("height_px", height_px)
    azimuth = ((column + 0.5) / (2 * height_px) - 0.5) * (2 * math.pi)
    latitude = (0.5 - (row + 0.5) / height_px) * math.pi
    flat = latitude.cos()
    return torch.stack([flat * azimuth.sin(), flat * azimuth.cos(), latitude.sin()], -1)


def ray_to_panorama(ray: Tensor, height_px: int) -> Tensor:
    """Rays (..., 3) of any length to panorama pixels (..., 2): columns in [-0.5, W - 0.5], rows in [-0.5, H - 0.5]."""
    east, north, up = check_points("ray", ray, 3).unbind(-1)
    check_pixels("height_px", height_px)
    column = (torch.atan2(east, north) / (2 * math.pi) + 0.5) * (2 * height_px) - 0.5
    row = (0.5 - torch.atan2(up, torch.hypot(east, north)) / math.pi) * height_px - 0.5
    return torch.stack([column, row], -1)


def top_view_pixel_to_ray(pixel: Tensor, settings: TopView) -> Tensor:
    """Top-view pixels (..., 2) to unit rays (..., 3), always downward, in the world frame."""
    column, row = check_points("pixel", pixel, 2).unbind(-1)
    centre, focal = (settings.size_px - 1) / 2, settings.focal_px
    return torch.nn.functional.normalize(
        torch.stack([column - centre, centre - row, torch.full_like(row, -focal)], -1), dim=-1
    )


def ray_to_top_view_pixel(ray: Tensor, settings: TopView) -> Tensor:
    """Rays (..., 3) to top-view pixels (..., 2), possibly outside the image; nan at or above the horizon."""
    return ground_to_top_view_pixel(ray_to_ground(ray, settings.camera_height_m), settings)


def ray_to_ground(ray: Tensor, camera_height_m: float) -> Tensor:
    """Where rays (..., 3) of any length meet level ground: (..., 2) metres east and north; nan at or above the horizon.

    nan and no error, as the rays of an image always include sky; test with `isfinite`. InputError: height not above 0.
    """
    east_north, up = check_points("ray", ray, 3)[..., :2], ray[..., 2:]
    height = check_number("camera_height_m", camera_height_m, unit="m", low=0)
    down = torch.where(up < 0, -up, torch.nan)
    return east_north / down * height


def ground_to_ray(ground: Tensor, camera_height_m: float) -> Tensor:
    """Ground metres (..., 2) to unit rays (..., 3) from a camera camera_height_m above the ground."""
    height = check_number("camera_height_m", camera_height_m, unit="m", low=0)
    down = torch.full_like(check_points("ground", ground, 2)[..., :1], -height)
    return torch.nn.functional.normalize(torch.cat([ground, down], -1), dim=-1)


def top_view_pixel_to_ground(pixel: Tensor, settings: TopView) -> Tensor:
    """Top-view pixels (..., 2) to ground metres (..., 2): height * offset / focal."""
    return tile_pixel_to_ground(pixel, settings.size_px, settings.span_m)


def ground_to_top_view_pixel(ground: Tensor, settings: TopView) -> Tensor:
    """Ground metres (..., 2) to top-view pixels (..., 2), possibly outside the image."""
    return ground_to_tile_pixel(ground, settings.size_px, settings.span_m)


def tile_pixel_to_ground(pixel: Tensor, size_px: int, span_m: float) -> Tensor:
    """Pixels (..., 2) of a north-up tile to metres (..., 2) east and north of its centre."""
    column, row = check_points("pixel", pixel, 2).unbind(-1)
    scale = check_number("span_m", span_m, unit="m", low=0) / check_pixels("size_px", size_px)
    centre = (size_px - 1) / 2
    return torch.stack([column - centre, centre - row], -1) * scale


def ground_to_tile_pixel(ground: Tensor, size_px: int, span_m: float) -> Tensor:
    """Metres (..., 2) east and north of a tile's centre to its pixels (..., 2), possibly outside the image."""
    east, north = check_points("ground", ground, 2).unbind(-1)
    scale = check_pixels("size_px", size_px) / check_number("span_m", span_m, unit="m", low=0)
    centre = (size_px - 1) / 2
    return torch.stack([centre + east * scale, centre - north * scale], -1)


def polar_pixel_to_ground(pixel: Tensor, height_px: int, width_px: int, span_m: float) -> Tensor:
    """Polar-view pixels (..., 2) to metres (..., 2): azimuth by column, radius span/2 * (1 - (row + 0.5) / H)."""
    column, row = check_points("pixel", pixel, 2).unbind(-1)
    azimuth = ((column + 0.5) / check_pixels("width_px", width_px) - 0.5) * (2 * math.pi)
    outer = check_number("span_m", span_m, unit="m", low=0) / 2
    radius = outer * (1 - (row + 0.5) / check_pixels("height_px", height_px))
    return torch.stack([radius * azimuth.sin(), radius * azimuth.cos()], -1)


def ground_to_polar_pixel(ground: Tensor, height_px: int, width_px: int, span_m: float) -> Tensor:
    """Metres (..., 2) to polar-view pixels (..., 2); rows below -0.5 lie outside the tile's inscribed circle."""
    east, north = check_points("ground", ground, 2).unbind(-1)
    outer = check_number("span_m", span_m, unit="m", low=0) / 2
    column = (torch.atan2(east, north) / (2 * math.pi) + 0.5) * check_pixels("width_px", width_px) - 0.5
    row = (1 - torch.hypot(east, north) / outer) * check_pixels("height_px", height_px) - 0.5
    return torch.stack([column, row], -1)
