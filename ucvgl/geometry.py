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

Sampling batches of images at fixed places: where to look is worked out once, the seam and the poles included.

`grid_at` turns source pixels into a Grid, `resample` applies it to images (B, C, H, W) of 1, 3 or 4 channels: floating
(computed in float32, float64 for float64, returned in the dtype that came) or uint8 (returned rounded). B may be 0.
Bilinear or nearest.

Panorama to top view, perspective photo and turned panorama; satellite tile to polar view and back: image resampling.

The top view is step 1 of UCVGL (Li, Qian, Xia; CVPR 2024), a downward gnomonic view; the polar view is SAFA's polar
transform (Shi et al., NeurIPS 2019). Frames and signs stand in `rays.py`. Unlike the published code, a sampling grid is
built once for a setting, kept, and applied to whole batches on any device, columns wrap around the seam, rows pass over
the poles, and gradients flow to the images.

Images are as `resampling.py` takes them. Sampling is bilinear or nearest and nothing more: within about sqrt(focal * H
/ pi) pixels of a top view's centre several panorama pixels fall on one output pixel, beyond it one panorama pixel is
smeared over several. Where the centre must not alias, ask for twice the size and average 2x2.
"""

import math
from dataclasses import dataclass, fields
from functools import lru_cache
from numbers import Real
from typing import Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
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


CHUNK_BYTES = {"cpu": 2**24, "cuda": 2**30}  # working memory where dtypes are converted or every image has its own grid

Mode = Literal["bilinear", "nearest"]


class Grid(NamedTuple):
    """Where to sample: what F.grid_sample reads, and apart from it the few pixels that straddle the seam or a pole."""

    points: Tensor  # (G, h, w, 2) in grid_sample's units over rows [first, last)
    first: int
    last: int
    image: Tensor | None  # (K,) which grid a straddling pixel belongs to; None where one grid serves the whole batch
    out: Tensor  # (K,) its place in h * w
    rows: Tensor  # (K, 4) its four neighbours, counted from row first
    columns: Tensor  # (K, 4)
    weights: Tensor  # (K, 4)


def check_images(where: str, images: object) -> None:
    """InputError unless a (B, C, H, W) tensor, uint8 or floating, of 1, 3 or 4 channels, not empty but for B."""
    if not isinstance(images, Tensor):
        raise InputError(
            where, expected="a tensor (B, C, H, W)", found=type(images).__name__, todo="Use torch.from_numpy or stack."
        )
    if images.ndim != 4 or 0 in images.shape[-2:]:
        todo = "Add the batch dimension with image[None]." if images.ndim == 3 else "Reshape it to images."
        raise InputError(where, expected="shape (B, C, H, W), not empty", found=str(tuple(images.shape)), todo=todo)
    if images.shape[1] not in (1, 3, 4):
        todo = (
            "Move the channels first with permute(0, 3, 1, 2)." if images.shape[-1] in (1, 3, 4) else "Select channels."
        )
        raise InputError(
            where, expected="1, 3 or 4 channels", found=f"{images.shape[1]} in {tuple(images.shape)}", todo=todo
        )
    if not (images.is_floating_point() or images.dtype == torch.uint8):
        raise InputError(
            where, expected="floating values or uint8", found=str(images.dtype), todo="Use images.float()."
        )


def check_mode(mode: object) -> None:
    """InputError unless a known way of sampling."""
    if mode not in ("bilinear", "nearest"):
        raise InputError("mode", expected="'bilinear' or 'nearest'", found=repr(mode), todo="Choose one of the two.")


def move_grid(grid: Grid, device: torch.device, dtype: torch.dtype) -> Grid:
    """The same grid on a device, its fractions in a dtype."""
    move = [v.to(device, dtype if v.is_floating_point() else v.dtype) if isinstance(v, Tensor) else v for v in grid]
    return Grid(*move)


def grid_at(pixels: Tensor, height: int, width: int, *, wrap: bool) -> Grid:
    """A grid from source pixels (G, h, w, 2); wrap: columns are a full turn, and rows pass over the poles."""
    shared = len(pixels) == 1
    column, row = pixels.unbind(-1)
    if wrap:
        column = torch.remainder(column + 0.5, width) - 0.5
        row = row.clamp(-0.5, height - 0.5)
    first, last = 0, height
    if (
        shared and pixels.numel()
    ):  # a downward view reads the lower half only; for one grid each it isn't worth the wait
        first = max(int(row.min().floor()), 0)
        last = max(min(int(row.max().floor()) + 2, height), first + 1)
    points = torch.stack([(2 * column + 1) / width - 1, (2 * (row - first) + 1) / (last - first) - 1], -1)

    straddle = (column < 0) | (column > width - 1) | (row < 0) | (row > height - 1)
    straddle = straddle.flatten(1).nonzero() if wrap else straddle.new_zeros(0, 2, dtype=torch.long)  # (K, 2)
    image, out = straddle.unbind(-1)
    column, row = column.flatten(1)[image, out], row.flatten(1)[image, out]  # (K,)
    left, above = column.floor(), row.floor()
    right, below = column - left, row - above  # weights of the right and of the lower neighbour
    weights = torch.stack([1 - right, right, 1 - right, right], -1)
    weights = weights * torch.stack([1 - below, 1 - below, below, below], -1)  # (K, 4)
    columns = torch.stack([left, left + 1, left, left + 1], -1).long()
    rows = torch.stack([above, above, above + 1, above + 1], -1).long()
    beyond = (rows < 0) | (rows >= height)  # past a pole: the same row, half a turn away
    columns = torch.where(beyond, columns + width // 2, columns) % width
    rows = torch.where(rows < 0, -1 - rows, torch.where(rows >= height, 2 * height - 1 - rows, rows)) - first
    return Grid(points, first, last, None if shared else image, out, rows, columns, weights)


def compute_dtype(images: Tensor) -> torch.dtype:
    """What images are sampled in: float64 for float64, float32 for all else."""
    return torch.float64 if images.dtype == torch.float64 else torch.float32


def images_at_once(images: Tensor, bytes_each: int) -> int:
    """How many images to take at once: what the working memory holds, though no fewer than there are threads."""
    budget = CHUNK_BYTES.get(images.device.type, CHUNK_BYTES["cpu"])
    return max(budget // max(bytes_each, 1), torch.get_num_threads() if images.device.type == "cpu" else 1)


def resample(images: Tensor, grid: Grid, mode: Mode) -> Tensor:
    """Sample (B, C, H, W) at a grid -> (B, C, h, w) in the images' dtype, converting a few images at a time."""
    compute, read = compute_dtype(images), slice(grid.first, grid.last)
    if images.dtype == compute or images.requires_grad:
        return _sample(images[:, :, read].to(compute), grid, mode).to(images.dtype)
    view = images.new_empty(*images.shape[:2], *grid.points.shape[1:3])
    pixels = (grid.last - grid.first) * images.shape[-1] + grid.points.shape[1] * grid.points.shape[2]
    size = images_at_once(images, 4 * images.shape[1] * pixels) if grid.image is None else max(len(images), 1)
    # one buffer for all chunks: handing 25 MB back and asking again would cost more than the sampling
    source = images.new_empty(min(size, len(images)), *images[:0, :, read].shape[1:], dtype=compute)
    for start in range(0, len(images), size):
        part = images[start : start + size, :, read]
        values = _sample(source[: len(part)].copy_(part), grid, mode)
        if images.dtype == torch.uint8:
            values.round_()  # bilinear never leaves 0 to 255
        view[start : start + size] = values
    return view


def _sample(source: Tensor, grid: Grid, mode: Mode) -> Tensor:
    """Sample rows [first, last) of the images, already in the grid's dtype: (B, C, rows, W) -> (B, C, h, w)."""
    batch = len(source)
    points = grid.points.expand(batch, -1, -1, -1)  # a view: one grid for all; the images are spread over the threads
    view = F.grid_sample(source, points, mode, padding_mode="border", align_corners=False)
    if mode == "nearest" or not len(grid.out) or not batch:  # the nearest pixel never lies across the seam
        return view
    # Padding the panorama by a column and a row would do the same but copy all of it, which costs more than the
    # sampling; the pixels that straddle are few, so they are done again by hand.
    image = torch.arange(batch, device=source.device)[:, None] if grid.image is None else grid.image  # (B, 1) or (K,)
    neighbours = source[image[..., None], :, grid.rows, grid.columns]  # (B, K, 4, C) or (K, 4, C)
    view.flatten(2)[image, :, grid.out] = (neighbours * grid.weights[..., None]).sum(-2)
    return view


CVUSA_OFFSET_PX = 20  # UCVGL: how far above the middle the 224x1232 strip of CVUSA sits in its 616x1232 panorama
GRIDS_KEPT = 16  # a grid of 750x750 takes 4.5 MB in float32, of 1200x1200 11.5 MB

ANGLES = ("heading_deg", "pitch_deg", "roll_deg")
Angle = float | Tensor  # degrees: one for the whole batch, or a tensor (B,)


# ---- panorama completion ---------------------------------------------------------------------------------------------


def complete_panorama(crop: Tensor, *, offset_px: int = CVUSA_OFFSET_PX, fill: float = 0.0) -> Tensor:
    """Pad a cropped panorama that is 360 deg wide to 2:1: (B, C, H, W) -> (B, C, W/2, W).

    The crop's first row becomes row (W/2 - H) // 2 - offset_px, the rest is `fill` in the image's own units. UCVGL's
    published values, for CVUSA's 224x1232 strip: 20 px, black; use 0 for a crop that is centred on the horizon.
    `completion_mask` says which rows are real. InputError: W odd, or the crop not inside the panorama.
    """
    check_images("crop", crop)
    height, width = crop.shape[-2:]
    first = _first_row(height, width, offset_px)
    check_number("fill", fill)
    return F.pad(crop, (0, 0, first, width // 2 - height - first), value=fill)  # (B, C, W/2, W)


def completion_mask(height_px: int, width_px: int, *, offset_px: int = CVUSA_OFFSET_PX) -> Tensor:
    """Where `complete_panorama` put real pixels: (1, 1, W/2, W) float32, 1 real and 0 filled.

    It goes through the same views as the panorama; a pixel of the view is wholly real where the result is 1.
    """
    first = _first_row(height_px, width_px, offset_px)
    mask = torch.zeros(1, 1, width_px // 2, width_px)
    mask[:, :, first : first + height_px] = 1
    return mask


def _first_row(height: int, width: int, offset: int) -> int:
    check_pixels("height_px", height)
    if check_pixels("width_px", width, least=2) % 2:
        raise InputError("crop", expected="an even width", found=f"{width} px", todo="Resize it to an even width.")
    if not isinstance(offset, int) or isinstance(offset, bool):
        raise InputError("offset_px", expected="a whole number of pixels", found=repr(offset), todo="Give an int.")
    first = (width // 2 - height) // 2 - offset
    if not 0 <= first <= width // 2 - height:
        raise InputError(
            "crop",
            expected=f"rows that fit a {width // 2}x{width} panorama",
            found=f"{height} rows placed from row {first} (offset_px={offset})",
            todo="Choose offset_px so that the crop lies inside (0 centres it); a 2:1 panorama needs no completion.",
        )
    return first


# ---- views of a panorama ---------------------------------------------------------------------------------------------


def top_view(
    panorama: Tensor,
    settings: TopView = TopView(),
    *,
    heading_deg: Angle | None = None,
    pitch_deg: Angle | None = None,
    roll_deg: Angle | None = None,
    mode: Mode = "bilinear",
) -> Tensor:
    """The ground plane seen from above, north up and level: (B, C, H, 2H) -> (B, C, S, S).

    The settings' attitude is undone; an angle given here takes its place, a tensor (B,) where every panorama has its
    own (a number is cached, a tensor is not); for one panorama (T,) gives T views of it. Defaults are UCVGL's for CVUSA.
    Walls and trees are smeared outwards: only what is ground lands where it stands. InputError: not 2:1 (complete a crop
    first), channels, rank, dtype, an angle not finite.
    """
    check_panorama(panorama)
    if not isinstance(settings, TopView):
        todo = "Give TopView(size_px=..., fov_deg=...)."
        raise InputError("settings", expected="a TopView", found=type(settings).__name__, todo=todo)
    given = (heading_deg, pitch_deg, roll_deg)
    own = (settings.heading_deg, settings.pitch_deg, settings.roll_deg)
    attitude = tuple(o if g is None else g for g, o in zip(given, own, strict=True))
    lens = _Lens("down", settings.size_px, settings.size_px, settings.focal_px)
    return _view(panorama, lens, attitude, undo=True, mode=mode)


def perspective_view(
    panorama: Tensor,
    size_px: int | tuple[int, int],
    fov_deg: float,
    heading_deg: Angle = 0.0,
    pitch_deg: Angle = 0.0,
    roll_deg: Angle = 0.0,
    *,
    mode: Mode = "bilinear",
) -> Tensor:
    """What a pinhole camera with this attitude records: (B, C, H, 2H) level panoramas -> (B, C, h, w) photos.

    size_px: side, or (height, width); fov_deg: full angle across the width, in (0, 180); heading clockwise from north,
    pitch nose up, roll right side down (`attitude_matrix`), each a number or a tensor (B,). InputError as for
    `top_view`.
    """
    check_panorama(panorama)
    return _view(panorama, _pinhole(size_px, fov_deg), (heading_deg, pitch_deg, roll_deg), undo=False, mode=mode)


def photo_top_view(
    photo: Tensor,
    photo_fov_deg: float,
    settings: TopView = TopView(),
    *,
    heading_deg: Tensor,
    pitch_deg: float = 0.0,
    roll_deg: float = 0.0,
    fill: float = 0.0,
) -> Tensor:
    """The ground that a pinhole photo shows, from above and north up: (B, C, h, w) -> (B, C, S, S); the rest is `fill`.

    The inverse of `perspective_view` on flat ground, ours: the papers project panoramas alone. Only a sector in the
    direction of the heading is seen, from the lower edge of the photo outwards.

    Args:
        photo: upright, of one size.
        photo_fov_deg: full angle across the photo's width, in (0, 180).
        settings: of the top view; its own attitude is not looked at.
        heading_deg: (B,) of the camera, clockwise from north; for one photo (T,) gives T views of it.
        pitch_deg: nose up.
        roll_deg: right side down.
        fill: in the photo's own units.

    Raises:
        InputError: channels, rank, dtype, an angle not finite, or a field of view out of range.
    """
    check_images("photo", photo)
    height, width = photo.shape[-2:]
    focal = _pinhole((height, width), photo_fov_deg).focal_px
    lens = _Lens("down", settings.size_px, settings.size_px, settings.focal_px)
    dtype = compute_dtype(photo)
    with torch.autocast(photo.device.type, enabled=False):
        with torch.no_grad():
            turn = _turn((heading_deg, pitch_deg, roll_deg), _many(photo), photo.device, dtype)
            turn = turn if len(photo) == 1 else turn.expand(len(photo), -1, -1)
            right, ahead, up = torch.einsum("hwi,gij->ghwj", _rays(lens, photo.device, dtype), turn).unbind(-1)
            depth = ahead.clamp_min(1e-6)
            column = (width - 1) / 2 + focal * right / depth
            row = (height - 1) / 2 - focal * up / depth
            seen = (ahead > 1e-6) & (column > -0.5) & (column < width - 0.5) & (row > -0.5) & (row < height - 0.5)
            pixels = torch.stack([column.clamp(0, width - 1), row.clamp(0, height - 1)], -1)
        view = _resampled(photo, pixels, wrap=False, mode="bilinear")
    return torch.where(seen.unsqueeze(1), view, torch.full_like(view, fill))


def rotate_panorama(
    panorama: Tensor,
    heading_deg: Angle = 0.0,
    pitch_deg: Angle = 0.0,
    roll_deg: Angle = 0.0,
    *,
    undo: bool = False,
    mode: Mode = "bilinear",
) -> Tensor:
    """What a 360 deg camera with this attitude records, from level north-up ones: (B, C, H, 2H) -> the same shape.

    undo=True goes back: a panorama taken with this attitude becomes level and north-centred. Angles as in
    `perspective_view`. A heading alone is a roll of the columns to the left by heading / 360 * W.
    """
    height, width = check_panorama(panorama)
    return _view(
        panorama, _Lens("panorama", height, width, 0.0), (heading_deg, pitch_deg, roll_deg), undo=undo, mode=mode
    )


def perspective_grid(
    panorama_height_px: int,
    size_px: int | tuple[int, int],
    fov_deg: float,
    heading_deg: Angle = 0.0,
    pitch_deg: Angle = 0.0,
    roll_deg: Angle = 0.0,
) -> Tensor:
    """Where `perspective_view` looks: panorama pixels (G, h, w, 2) as (column, row), G = B for tensors (B,), else 1.

    For `sample_panorama`, or for a renderer that has its own panoramas. On the angles' device and in their dtype.
    """
    check_pixels("panorama_height_px", panorama_height_px)
    lens = _pinhole(size_px, fov_deg)
    like = next((a for a in (heading_deg, pitch_deg, roll_deg) if isinstance(a, Tensor)), torch.zeros(()))
    with torch.no_grad(), torch.autocast(like.device.type, enabled=False):
        turn = _turn((heading_deg, pitch_deg, roll_deg), None, like.device, like.dtype)
        return _look(lens, turn, panorama_height_px)


def sample_panorama(panorama: Tensor, pixels: Tensor, *, mode: Mode = "bilinear") -> Tensor:
    """Panoramas (B, C, H, 2H) at pixels (B or 1, h, w, 2) as (column, row) -> (B, C, h, w).

    Any column is right, they wrap around; rows are held within [-0.5, H - 0.5], which is pole to pole. For fixed
    settings the views above are faster: they keep their grids.
    """
    height, width = check_panorama(panorama)
    check_mode(mode)
    if check_points("pixels", pixels, 2).ndim != 4 or len(pixels) not in (1, len(panorama)):
        raise InputError(
            "pixels",
            expected=f"shape (1 or {len(panorama)}, h, w, 2)",
            found=str(tuple(pixels.shape)),
            todo="Give one grid for all panoramas or one for each.",
        )
    with torch.autocast(panorama.device.type, enabled=False):
        pixels = pixels.to(panorama.device, compute_dtype(panorama))
        return resample(panorama, grid_at(pixels, height, width, wrap=True), mode)


# ---- views of a satellite tile ---------------------------------------------------------------------------------------


def polar_view(tile: Tensor, height_px: int, width_px: int, *, mode: Mode = "bilinear") -> Tensor:
    """A north-up tile unrolled around its centre: (B, C, S, S) -> (B, C, height_px, width_px).

    Columns are azimuths as in the panorama, centre column north; row i lies at radius S/2 * (1 - (i + 0.5) /
    height_px), from the inscribed circle down to the centre, so the tile's corners are left out. Source: SAFA's polar
    transform.
    """
    size = _check_square("tile", tile)
    check_mode(mode)
    check_pixels("height_px", height_px)
    check_pixels("width_px", width_px)
    with torch.autocast(tile.device.type, enabled=False):
        grid = _fixed_polar_grid(height_px, width_px, size, True, tile.device, compute_dtype(tile))
        return resample(tile, grid, mode)


def tile_from_polar(polar: Tensor, size_px: int, *, fill: float = 0.0, mode: Mode = "bilinear") -> Tensor:
    """The inverse of `polar_view`: (B, C, H, W even) -> north-up (B, C, size_px, size_px), `fill` beyond the circle."""
    check_images("polar", polar)
    check_mode(mode)
    check_pixels("size_px", size_px)
    check_number("fill", fill)
    height, width = polar.shape[-2:]
    if width % 2:
        raise InputError(
            "polar", expected="an even width, for rows to pass over the centre", found=f"{width} px", todo="Resize it."
        )
    with torch.autocast(polar.device.type, enabled=False):
        grid = _fixed_polar_grid(height, width, size_px, False, polar.device, compute_dtype(polar))
        tile = resample(polar, grid, mode)
        step = torch.arange(size_px, device=tile.device) * 2 - (size_px - 1)  # twice the offset from the centre, whole
        outside = step[:, None] ** 2 + step**2 > size_px**2
        return tile.masked_fill(outside, fill)


# ---- from settings to grids ------------------------------------------------------------------------------------------


class _Lens(NamedTuple):
    """A camera before it is turned; hashable, so that it keys the cached grids."""

    kind: Literal["down", "pinhole", "panorama"]  # down: a pinhole looking straight down, its upper edge to the north
    height_px: int
    width_px: int
    focal_px: float


def _pinhole(size_px: int | tuple[int, int], fov_deg: float) -> _Lens:
    sides = size_px if isinstance(size_px, tuple | list) else (size_px, size_px)
    if len(sides) != 2:
        raise InputError(
            "size_px", expected="a side or (height, width)", found=repr(size_px), todo="Give an int or a pair."
        )
    height, width = (check_pixels("size_px", side) for side in sides)
    fov_deg = check_number("fov_deg", fov_deg, unit="deg", low=0, high=180)
    return _Lens("pinhole", height, width, focal_px(width, fov_deg))


@lru_cache(maxsize=GRIDS_KEPT)
def _rays(lens: _Lens, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Rays (h, w, 3) of any length in the lens's own frame."""
    with torch.inference_mode(False):  # an inference tensor, once cached, could never take part in training
        row = torch.arange(lens.height_px, dtype=torch.float64)[:, None].expand(-1, lens.width_px)
        column = torch.arange(lens.width_px, dtype=torch.float64).expand(lens.height_px, -1)
        if lens.kind == "panorama":
            rays = panorama_pixel_to_ray(torch.stack([column, row], -1), lens.height_px)
        else:
            right, up = column - (lens.width_px - 1) / 2, (lens.height_px - 1) / 2 - row
            ahead = torch.full_like(right, lens.focal_px)
            rays = torch.stack([right, up, -ahead] if lens.kind == "down" else [right, ahead, up], -1)
        return rays.to(device, dtype)


def _turn(attitude: tuple[Angle, Angle, Angle], batch: int | None, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Rotations (G, 3, 3), camera to world, G the batch where an angle is a tensor (B,), else 1."""
    angles = []
    for name, angle in zip(ANGLES, attitude, strict=True):
        if not isinstance(angle, Tensor):
            angles.append(torch.tensor([check_number(name, angle, unit="deg")], device=device, dtype=dtype))
            continue
        batch = len(angle) if batch is None and angle.ndim == 1 else batch
        if tuple(angle.shape) not in ((), (batch,)) or not angle.is_floating_point() or not angle.isfinite().all():
            raise InputError(
                name,
                expected=f"a number or a finite floating tensor ({'B' if batch is None else batch},), in deg",
                found=f"{angle.dtype} {tuple(angle.shape)}" + " with nan or inf" * (not angle.isfinite().all().item()),
                todo="Give one angle for each image of the batch.",
            )
        angles.append(angle.detach().to(device, dtype).reshape(-1))
    return attitude_matrix(*angles)  # (G, 3, 3)


def _look(lens: _Lens, turn: Tensor, panorama_height: int) -> Tensor:
    """Panorama pixels (G, h, w, 2) that a lens sees after the rotation (G, 3, 3) of its frame into the panorama's."""
    rays = _rays(lens, turn.device, turn.dtype)
    return ray_to_panorama(torch.einsum("hwi,gji->ghwj", rays, turn), panorama_height)


@lru_cache(maxsize=GRIDS_KEPT)
def _fixed_grid(
    lens: _Lens,
    attitude: tuple[float, float, float],
    undo: bool,
    panorama_height: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Grid:
    with torch.inference_mode(False), torch.no_grad():
        turn = _turn(attitude, None, torch.device("cpu"), torch.float64)
        pixels = _look(lens, turn.mT if undo else turn, panorama_height)
        return move_grid(grid_at(pixels, panorama_height, 2 * panorama_height, wrap=True), device, dtype)


@lru_cache(maxsize=GRIDS_KEPT)
def _fixed_polar_grid(
    height: int, width: int, size: int, to_polar: bool, device: torch.device, dtype: torch.dtype
) -> Grid:
    with torch.inference_mode(False), torch.no_grad():
        rows, columns = (height, width) if to_polar else (size, size)
        row, column = torch.meshgrid(
            torch.arange(rows, dtype=torch.float64), torch.arange(columns, dtype=torch.float64), indexing="ij"
        )
        pixels = torch.stack([column, row], -1)[None]  # (1, h, w, 2)
        if to_polar:  # a span of 1: metres cancel out
            pixels = ground_to_tile_pixel(polar_pixel_to_ground(pixels, height, width, 1.0), size, 1.0)
            return move_grid(grid_at(pixels, size, size, wrap=False), device, dtype)
        pixels = ground_to_polar_pixel(tile_pixel_to_ground(pixels, size, 1.0), height, width, 1.0)
        pixels[..., 1].clamp_(min=0)  # beyond the outermost ring there is nothing to pass over to
        return move_grid(grid_at(pixels, height, width, wrap=True), device, dtype)


def _view(panorama: Tensor, lens: _Lens, attitude: tuple[Angle, Angle, Angle], *, undo: bool, mode: Mode) -> Tensor:
    check_mode(mode)
    height, width = panorama.shape[-2:]
    dtype = compute_dtype(panorama)
    with torch.autocast(panorama.device.type, enabled=False):  # half precision would move points by whole pixels
        if not any(isinstance(angle, Tensor) for angle in attitude):
            numbers = tuple(check_number(name, a, unit="deg") for name, a in zip(ANGLES, attitude, strict=True))
            return resample(panorama, _fixed_grid(lens, numbers, undo, height, panorama.device, dtype), mode)
        with torch.no_grad():
            turn = _turn(attitude, _many(panorama), panorama.device, dtype)
            turn = turn.mT if undo else turn  # (G, 3, 3)
        if len(panorama) == 1:
            with torch.no_grad():
                pixels = _look(lens, turn, height)
            return _resampled(panorama, pixels, wrap=True, mode=mode)
        turn = turn.expand(len(panorama), -1, -1)  # (B, 3, 3)
        pixel_bytes = 60  # rays, angles, points: about 15 floats for each output pixel
        size = images_at_once(panorama, pixel_bytes * lens.height_px * lens.width_px)
        parts = []
        for images, turns in zip(panorama.split(size), turn.split(size), strict=True):
            with torch.no_grad():
                grid = grid_at(_look(lens, turns, height), height, width, wrap=True)
            parts.append(resample(images, grid, mode))
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def _many(images: Tensor) -> int | None:
    """How many angles there must be: as many as images, or for one image any number."""
    return None if len(images) == 1 else len(images)


def _resampled(images: Tensor, pixels: Tensor, *, wrap: bool, mode: Mode) -> Tensor:
    """Images (B, C, H, W) at pixels (B, h, w, 2); one image at (G, h, w, 2), below each other: it is converted once."""
    height, width = images.shape[-2:]
    views, rows, columns = pixels.shape[:3]
    if len(images) == 1:
        pixels = pixels.reshape(1, views * rows, columns, 2)
    with torch.no_grad():
        grid = grid_at(pixels, height, width, wrap=wrap)
    found = resample(images, grid, mode)
    if len(images) == 1:
        found = found.reshape(images.shape[1], views, rows, columns).transpose(0, 1).contiguous()
    return found


# ---- checks ----------------------------------------------------------------------------------------------------------


def check_panorama(panorama: object) -> tuple[int, int]:
    """Return (H, W) of images that are 2:1, or raise InputError."""
    check_images("panorama", panorama)
    height, width = panorama.shape[-2:]
    if width != 2 * height:
        raise InputError(
            "panorama",
            expected="width twice the height (360 by 180 deg)",
            found=f"{height}x{width} (height x width)",
            todo="If it is a crop, call complete_panorama(crop, offset_px=...) first; a photo has no panorama.",
        )
    return height, width


def _check_square(where: str, images: Tensor) -> int:
    check_images(where, images)
    if images.shape[-2] != images.shape[-1]:
        raise InputError(
            where,
            expected="a square image",
            found=f"{images.shape[-2]}x{images.shape[-1]}",
            todo="Crop it to a square.",
        )
    return images.shape[-1]
