"""Panorama to top view, perspective photo and turned panorama; satellite tile to polar view and back: image resampling.

The top view is step 1 of UCVGL (Li, Qian, Xia; CVPR 2024), a downward gnomonic view; the polar view is SAFA's polar
transform (Shi et al., NeurIPS 2019). Frames and signs stand in `rays.py`. Unlike the published code, a sampling grid is
built once for a setting, kept, and applied to whole batches on any device, columns wrap around the seam, rows pass over
the poles, and gradients flow to the images.

Images are as `resampling.py` takes them. Sampling is bilinear or nearest and nothing more: within about sqrt(focal * H
/ pi) pixels of a top view's centre several panorama pixels fall on one output pixel, beyond it one panorama pixel is
smeared over several. Where the centre must not alias, ask for twice the size and average 2x2.
"""

from functools import lru_cache
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ucvgl.errors import InputError
from ucvgl.rays import (
    TopView,
    attitude_matrix,
    check_number,
    check_pixels,
    check_points,
    focal_px,
    ground_to_polar_pixel,
    ground_to_tile_pixel,
    panorama_pixel_to_ray,
    polar_pixel_to_ground,
    ray_to_panorama,
    tile_pixel_to_ground,
)
from ucvgl.resampling import (
    Grid,
    Mode,
    check_images,
    check_mode,
    compute_dtype,
    grid_at,
    images_at_once,
    move_grid,
    resample,
)

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
    settings: TopView = TopView(),  # noqa: B008 - frozen, so sharing the default is safe
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
    settings: TopView = TopView(),  # noqa: B008 - frozen, so sharing the default is safe
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
