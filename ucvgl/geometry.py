"""The geometry of the views: where a pixel looks, and images resampled there.

Step 1 of UCVGL (Li, Qian, Xia; CVPR 2024, section 3.2) lays a panorama out on the ground: top-view pixel -> ray ->
panorama pixel -> bilinear sample. The polar view is SAFA's polar transform (Shi et al., NeurIPS 2019, section 3.1).
Unlike in the published code, columns wrap around the seam, and rows pass over the poles. Frames, for the whole package:

- world: (east, north, up); a ground position is (east, north) in metres from the point below the camera;
- pixel: (column, row), pixel centres at whole numbers, so an image spans -0.5 to width - 0.5;
- panorama (H, 2H): column j looks at azimuth ((j + 0.5) / W - 0.5) * 360 deg, clockwise from north, so the centre is
  north and east lies to its right; row i looks at latitude 90 - (i + 0.5) / H * 180 deg;
- top view (S, S): north up, east right, the downward gnomonic view, focal length (S/2) / tan(fov/2);
- satellite tile (S, S): north up, east right, span_m across; polar view (H, W): azimuth as in the panorama, rows from
  the tile's inscribed circle (top) to its centre (bottom).

Images are (B, C, H, W), uint8 (returned rounded) or floating (sampled in float32, float64 for float64); one at T grids
gives T views. A view does not average: where it must not alias, ask for twice the size and do so."""

import math
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ucvgl.errors import InputError, check_number

CVUSA_STRIP_OFFSET = 20 / 1232  # UCVGL: 20 px, for CVUSA's strips of 224 x 1232
AT_ONCE = 8  # images that are converted to floats and sampled together: bounds the memory


@dataclass(frozen=True)
class TopView:
    """Settings of a top view, whose attitude (see `attitude_matrix`) is undone; InputError for a value out of range."""

    size_px: int = 750  # side; the paper: 750 for CVUSA, 1200 for CVACT
    fov_deg: float = 175.0  # full angle across the side, in (0, 180); the paper: 175 for CVUSA, 170 for CVACT
    camera_height_m: float = 2.5  # scales metres only; about a car's roof camera, the paper gives none
    heading_deg: float = 0.0  # azimuth of the centre column, clockwise from north; the paper: 0, panoramas are aligned
    pitch_deg: float = 0.0  # nose up; the paper: 0
    roll_deg: float = 0.0  # right side down; the paper: 0

    def __post_init__(self) -> None:
        check_number("TopView.size_px", self.size_px, unit="px", low=0, whole=True)
        bounds = {"fov_deg": ("deg", 0, 180), "camera_height_m": ("m", 0, math.inf)}
        for field in fields(self)[1:]:  # numpy scalars become floats, so equal settings share one cached grid
            unit, low, high = bounds.get(field.name, ("deg", -math.inf, math.inf))
            value = check_number(f"TopView.{field.name}", getattr(self, field.name), unit=unit, low=low, high=high)
            object.__setattr__(self, field.name, value)

    @classmethod
    def from_span(cls, size_px: int, span_m: float, camera_height_m: float = 2.5, **attitude: float) -> Self:
        """The top view that shows span_m of ground across, to lie pixel on pixel over a tile of that span."""
        return cls(size_px, math.degrees(2 * math.atan(span_m / 2 / camera_height_m)), camera_height_m, **attitude)

    @property
    def span_m(self) -> float:
        """Ground shown across the side, in metres: 2 h tan(fov/2)."""
        return 2 * self.camera_height_m * math.tan(math.radians(self.fov_deg) / 2)


CVUSA_TOP_VIEW = TopView(size_px=750, fov_deg=175.0)  # the settings UCVGL published for each data set
CVACT_TOP_VIEW = TopView(size_px=1200, fov_deg=170.0)


def pixel_grid(height_px: int, width_px: int) -> Tensor:
    """The pixels of an image as (column, row): (h, w, 2) float64."""
    rows, columns = (torch.arange(length, dtype=torch.float64) for length in (height_px, width_px))
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)


def focal_px(width_px: int, fov_deg: float) -> float:
    """Focal length in pixels of a pinhole image width_px wide that sees fov_deg across; InputError outside (0, 180)."""
    check_number("fov_deg", fov_deg, unit="deg", low=0, high=180)
    return width_px / 2 / math.tan(math.radians(fov_deg) / 2)


def attitude_matrix(heading_deg: Tensor, pitch_deg: Tensor | float, roll_deg: Tensor | float) -> Tensor:
    """Rotation from camera (right, forward, up) to world (east, north, up): (...) angles -> (..., 3, 3).

    A level camera that faces north turns clockwise by the heading, then raises its nose by the pitch, then lowers its
    right side by the roll, each about its own axis: R = Rz(-heading) Rx(pitch) Ry(roll), right-handed rotations."""
    assert heading_deg.isfinite().all(), "a heading is nan or infinite"  # it would show some pixel of the seam
    dtype, device = heading_deg.dtype, heading_deg.device
    pitch_deg, roll_deg = (torch.as_tensor(angle, dtype=dtype, device=device) for angle in (pitch_deg, roll_deg))
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
    column, row = pixel.unbind(-1)
    azimuth = ((column + 0.5) / (2 * height_px) - 0.5) * (2 * math.pi)
    latitude = (0.5 - (row + 0.5) / height_px) * math.pi
    flat = latitude.cos()
    return torch.stack([flat * azimuth.sin(), flat * azimuth.cos(), latitude.sin()], -1)


def ray_to_panorama(ray: Tensor, height_px: int) -> Tensor:
    """Rays (..., 3) of any length to panorama pixels (..., 2): columns in [-0.5, W - 0.5], rows in [-0.5, H - 0.5]."""
    east, north, up = ray.unbind(-1)
    column = (torch.atan2(east, north) / (2 * math.pi) + 0.5) * (2 * height_px) - 0.5
    row = (0.5 - torch.atan2(up, torch.hypot(east, north)) / math.pi) * height_px - 0.5
    return torch.stack([column, row], -1)


def top_view_pixel_to_ray(pixel: Tensor, settings: TopView) -> Tensor:
    """Top-view pixels (..., 2) to rays (..., 3) in the world frame, all a focal length deep."""
    column, row = pixel.unbind(-1)
    centre, focal = (settings.size_px - 1) / 2, focal_px(settings.size_px, settings.fov_deg)
    return torch.stack([column - centre, centre - row, torch.full_like(row, -focal)], -1)


def ray_to_ground(ray: Tensor, camera_height_m: float) -> Tensor:
    """Where rays (..., 3) of any length meet level ground: (..., 2) metres east and north; nan at or above the horizon."""
    east_north, up = ray[..., :2], ray[..., 2:]
    down = torch.where(up < 0, -up, torch.nan)
    return east_north / down * camera_height_m


def complete_panorama(strip: Tensor, *, strip_offset: float = 0.0) -> Tensor:
    """Pad a strip cut from a whole turn to 2:1 with black, as UCVGL does: (B, C, H, W), W even -> (B, C, W/2, W).
    strip_offset: how far its middle lies above the horizon, as a fraction of its width (CVUSA_STRIP_OFFSET; 0: cut around
    it). InputError: an odd width, or a strip that would not lie inside the panorama."""
    height, width = strip.shape[-2:]
    missing, offset = width // 2 - height, round(strip_offset * width)  # rows
    above = missing // 2 - offset
    if width % 2 or not 0 <= above <= missing:
        expected = f"360 degrees across, an even width, and rows that fit the {width // 2} of the whole sphere"
        found = f"{width} x {height} px (width x height), the middle {offset} px above the horizon"
        todo = "Give panoramas 2:1 or strips of a whole turn, and the strip's own offset; a photo has no panorama."
        raise InputError("panorama", expected, found, todo)
    return F.pad(strip, (0, 0, above, missing - above))


def top_view(panorama: Tensor, settings: TopView = TopView(), *, heading_deg: Tensor | None = None) -> Tensor:
    """The ground plane seen from above, north up and level: whole panoramas (B, C, H, 2H) -> (B, C, S, S). What is no ground
    is smeared outwards. The settings (UCVGL's for CVUSA) have an attitude to undo; heading_deg, (B,), replaces theirs."""
    height = panorama.shape[-2]
    if heading_deg is None:
        return sample_panorama(panorama, fixed_top_view_pixels(settings, height))
    heading_deg = heading_deg.to(panorama.device, torch.promote_types(panorama.dtype, torch.float32))
    return sample_panorama(panorama, top_view_pixels(settings, height, heading_deg))


def top_view_pixels(settings: TopView, panorama_height_px: int, heading_deg: Tensor) -> Tensor:
    """Where a top view looks, for cameras of the headings (G,): panorama pixels (G, S, S, 2)."""
    ray = top_view_pixel_to_ray(pixel_grid(settings.size_px, settings.size_px), settings)  # (S, S, 3), of the world
    camera = attitude_matrix(heading_deg, settings.pitch_deg, settings.roll_deg)  # (G, 3, 3), camera to world
    return ray_to_panorama(_turned(ray, camera.mT), panorama_height_px)  # the camera's rays, (G, S, S, 3), to pixels


@lru_cache(maxsize=16)  # a grid of 750 x 750 takes 9 MB
@torch.inference_mode(False)  # an inference tensor, once cached, could never take part in training
def fixed_top_view_pixels(settings: TopView, panorama_height_px: int) -> Tensor:
    """As `top_view_pixels`, at the settings' own heading: (1, S, S, 2) float64, worked out once."""
    heading_deg = torch.tensor([settings.heading_deg], dtype=torch.float64)
    return top_view_pixels(settings, panorama_height_px, heading_deg)


def perspective_view(
    panorama: Tensor, size_px: tuple[int, int], fov_deg: float,
    heading_deg: float = 0.0, pitch_deg: float = 0.0, roll_deg: float = 0.0,
) -> Tensor:  # fmt: skip
    """What a pinhole camera of this attitude (`attitude_matrix`) records: (B, C, H, 2H) level panoramas -> (B, C, h, w)
    photos of size_px (height, width); fov_deg: full angle across the width, in (0, 180)."""
    height, attitude = panorama.shape[-2], (heading_deg, pitch_deg, roll_deg)
    return sample_panorama(panorama, perspective_grid(height, size_px, fov_deg, *attitude, dtype=torch.float64))


def perspective_grid(
    panorama_height_px: int, size_px: tuple[int, int], fov_deg: float,
    heading_deg: float = 0.0, pitch_deg: float = 0.0, roll_deg: float = 0.0, *, dtype: torch.dtype = torch.float32,
) -> Tensor:  # fmt: skip
    """Where `perspective_view` looks: panorama pixels (1, h, w, 2)."""
    height, width = size_px
    column, row = pixel_grid(height, width).unbind(-1)
    right, up = column - (width - 1) / 2, (height - 1) / 2 - row
    ray = torch.stack([right, torch.full_like(right, focal_px(width, fov_deg)), up], -1)  # of the camera
    camera = attitude_matrix(torch.tensor([heading_deg], dtype=dtype), pitch_deg, roll_deg)
    return ray_to_panorama(_turned(ray, camera), panorama_height_px)


def photo_top_view(photo: Tensor, photo_fov_deg: float, settings: TopView, heading_deg: Tensor) -> Tensor:
    """The ground that a level pinhole photo shows, from above and north up: (B, C, h, w) -> (B, C, S, S). Ours: the papers
    project panoramas alone. Only a sector in the direction of the heading (B,), not the settings', is seen, from the
    photo's lower edge outwards; the rest is black."""
    height, width = photo.shape[-2:]
    focal = focal_px(width, photo_fov_deg)
    ray = top_view_pixel_to_ray(pixel_grid(settings.size_px, settings.size_px), settings)
    heading_deg = heading_deg.to(photo.device, torch.promote_types(photo.dtype, torch.float32))
    camera = attitude_matrix(heading_deg, 0.0, 0.0)  # (G, 3, 3), camera to world
    right, ahead, up = _turned(ray, camera.mT).unbind(-1)  # (G, S, S), of the camera
    depth = ahead.clamp_min(1e-6)
    column, row = (width - 1) / 2 + focal * right / depth, (height - 1) / 2 - focal * up / depth
    seen = (ahead > 1e-6) & (column > -0.5) & (column < width - 0.5) & (row > -0.5) & (row < height - 0.5)
    view = _sample(photo, torch.stack([column.clamp(0, width - 1), row.clamp(0, height - 1)], -1))
    return view.masked_fill(~seen.unsqueeze(1), 0)


def polar_view(tile: Tensor, height_px: int, width_px: int) -> Tensor:
    """A north-up tile unrolled around its centre (SAFA, section 3.1): (B, C, S, S) -> (B, C, height_px, width_px). Columns
    are azimuths as in the panorama; row i lies at radius S/2 * (1 - (i + 0.5) / height_px): corners are left out."""
    (column, row), size = pixel_grid(height_px, width_px).unbind(-1), tile.shape[-1]
    azimuth = ((column + 0.5) / width_px - 0.5) * (2 * math.pi)
    radius, centre = 0.5 * (1 - (row + 0.5) / height_px), (size - 1) / 2  # the radius in sides of the tile
    pixel = torch.stack([centre + radius * azimuth.sin() * size, centre - radius * azimuth.cos() * size], -1)
    return _sample(tile, pixel[None])


def _turned(ray: Tensor, turn: Tensor) -> Tensor:
    """Rays (h, w, 3) turned by each rotation (G, 3, 3), in its dtype: (G, h, w, 3)."""
    with torch.autocast(turn.device.type, enabled=False):  # half precision would move points by whole pixels
        return torch.einsum("hwi,gji->ghwj", ray.to(turn), turn)


def sample_panorama(panorama: Tensor, pixels: Tensor) -> Tensor:
    """Panoramas (B, C, H, 2H) at pixels (B or 1, h, w, 2) as (column, row) -> (B, C, h, w). Columns wrap around; rows
    are held within [-0.5, H - 0.5], which is pole to pole."""
    height, width = panorama.shape[-2:]
    assert width == 2 * height, f"{width} x {height} px is not 2:1: a strip goes through complete_panorama first"
    column, row = pixels.to(panorama.device).unbind(-1)
    column = torch.remainder(column + 0.5, width) - 0.5
    return _sample(panorama, torch.stack([column, row.clamp(-0.5, height - 0.5)], -1), sphere=True)


def _sample(images: Tensor, pixels: Tensor, *, sphere: bool = False) -> Tensor:
    """Images (B, C, H, W) at pixels (B or 1, h, w, 2), or one at (T, h, w, 2); sphere: they have a seam and poles."""
    if len(images) == 1 < len(pixels):  # its views below each other, so that it is converted once
        below = _sample(images, pixels.flatten(0, 1)[None], sphere=sphere)
        return below[0].unflatten(1, pixels.shape[:2]).transpose(0, 1).contiguous()  # (T, C, h, w)
    dtype, (height, width) = torch.promote_types(images.dtype, torch.float32), images.shape[-2:]
    column, row = pixels.to(images.device).unbind(-1)
    first, last, at_once = 0, height, max(len(images), 1)
    if len(pixels) == 1:  # only the rows that are read: of a panorama from above, the lower half
        first, at_once = max(int(row.min().floor()), 0), AT_ONCE
        last = max(min(int(row.max().floor()) + 2, height), first + 1)
    points = torch.stack([(2 * column + 1) / width - 1, (2 * (row - first) + 1) / (last - first) - 1], -1).to(dtype)
    views = []
    for part in images.split(at_once):
        source, grid = part[:, :, first:last].to(dtype), points.expand(len(part), -1, -1, -1)
        view = F.grid_sample(source, grid, padding_mode="border", align_corners=False)  # (b, C, h, w)
        if sphere:
            _mend_seam_and_poles(view, source, column, row, first, height)
        views.append((view.round_() if images.dtype == torch.uint8 else view).to(images.dtype))
    return torch.cat(views) if len(views) > 1 else views[0]


def _mend_seam_and_poles(view: Tensor, source: Tensor, column: Tensor, row: Tensor, first: int, height: int) -> None:
    """Sample again, in place, the few pixels of `view` (B, C, h, w) whose four neighbours straddle the seam or a pole.

    `source` (B, C, rows, W) has the panorama's rows from `first` on, of `height` in all; column and row are (B or 1, h, w)."""
    width = source.shape[-1]
    straddles = (column < 0) | (column > width - 1) | (row < 0) | (row > height - 1)
    grid, out = straddles.flatten(1).nonzero().unbind(-1)  # (K,) which grid, and the place in h * w
    pixel = torch.stack([column, row], -1).flatten(1, 2)[grid, out][:, None]  # (K, 1, 2)
    corner, part = pixel.new_tensor([[0, 0], [1, 0], [0, 1], [1, 1]]), pixel - pixel.floor()
    weights = torch.where(corner == 1, part, 1 - part).prod(-1)  # (K, 4)
    columns, rows = (pixel.floor() + corner).long().unbind(-1)  # (K, 4)
    beyond = (rows < 0) | (rows >= height)  # past a pole: the same row, half a turn away
    columns = torch.where(beyond, columns + width // 2, columns) % width
    rows = torch.where(beyond, (-1 - rows) % (2 * height), rows) - first
    image = torch.arange(len(view), device=view.device)[:, None] if len(straddles) == 1 else grid  # (B, 1) or (K,)
    neighbours = source[image[..., None], :, rows, columns]  # (B, K, 4, C) or (K, 4, C)
    view.flatten(2)[image, :, out] = (neighbours * weights[..., None].to(source.dtype)).sum(-2)
