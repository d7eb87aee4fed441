"""Augmentations, batched on the device that holds the images, with every random number from an explicit generator.

A turn or flip moves all views of a place together: a quarter counter-clockwise brings a tile's east to the top, and rolls its
panorama left by a quarter of its width. Appearance is drawn for each. Defaults: UCVGL (section 3) and Sample4Geo (section 4),
official code. Differs: colour is jittered in the order brightness, contrast, saturation, hue, and clipped once; hue turns in
the YIQ plane; Sample4Geo's JPEG compression (quality 90-100, p 0.5) is left out, since it cannot be batched."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ucvgl.errors import check_fields, one_of

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601
AT_ONCE = 1 << 20  # values: a few images at a time stay in a processor's cache, three times as fast as all in one go


@dataclass(frozen=True)
class Augmentation:
    """How strongly places and images are changed; a probability of 0 switches a change off."""

    # UCVGL's values are the defaults, Sample4Geo's in brackets
    turn: float = 0.5  # probability of a joint turn by 1, 2 or 3 quarters (0.75)
    flip: float = 0.5  # probability of a joint flip of east and west (0.5)
    jitter: float = 0.8  # probability of a colour jitter (0.5)
    brightness: float = 0.4  # greatest relative change (0.15)
    contrast: float = 0.4  # greatest relative change (0.15)
    saturation: float = 0.4  # greatest relative change (0.15)
    hue: float = 0.1  # greatest turn, as a fraction of the colour circle (0.15)
    grey: float = 0.2  # probability of a grey image (0)
    blur: float = 0.5  # probability of a 3 x 3 blur; the paper's is not known (0.3, half of them sharpened instead)
    sharpen: float = 0.0  # fraction of the blurred images that are sharpened instead (0.5)
    dropout: float = 0.5  # probability of a grid (half) or of rectangles (half) set to zero (0.3)
    # UCVGL: before placement and colour; a grid begins anywhere; rectangles are tenths of both sides. Sample4Geo: at
    # the end; the grid begins at the corner; rectangles are tenths of the height
    dropout_as: Literal["UCVGL", "Sample4Geo"] = "UCVGL"

    def __post_init__(self) -> None:
        one_of("augmentation: dropout_as", self.dropout_as, ("UCVGL", "Sample4Geo"), "Choose one.")
        rules = [(name, 0 <= value <= 1, "0 to 1") for name, value in vars(self).items() if name != "dropout_as"]
        check_fields(self, "augmentation: ", "Correct it.", *rules)


UCVGL = Augmentation()
SAMPLE4GEO = Augmentation(0.75, 0.5, 0.5, 0.15, 0.15, 0.15, 0.15, 0.0, 0.3, 0.5, 0.3, "Sample4Geo")
GROUND_HOLE, SATELLITE_HOLE = 0.5, 0.4  # of a grid's cell, of each side; UCVGL and Sample4Geo


def to_float(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) -> float32 in 0..1, a new tensor."""
    return images.float().div_(255)


def turn_squares(images: Tensor, quarters: Tensor) -> Tensor:
    """Turn tiles or top views (B, C, S, S), each by so many (B,) quarters counter-clockwise."""
    return torch.stack([torch.rot90(image, k, (1, 2)) for image, k in zip(images, quarters.tolist(), strict=True)])


def roll_panoramas(images: Tensor, quarters: Tensor) -> Tensor:
    """Roll panoramas (B, C, H, W) as `turn_squares` turns their tiles: left by so many (B,) quarters of the width."""
    width = images.shape[3]
    assert width % 4 == 0, f"a quarter of {width} px is no whole number of columns"
    return torch.stack([image.roll(-k * width // 4, 2) for image, k in zip(images, quarters.tolist(), strict=True)])


def crop_panoramas(images: Tensor, fov_deg: float, first: Tensor) -> Tensor:
    """What a camera sees of panoramas (B, C, H, W): `fov_deg` from column `first` (B,) on, over the seam; the rest is black."""
    width = images.shape[3]
    column = (torch.arange(width) - first.cpu()[:, None]) % width  # (B, W), from the first that is seen
    seen = column < max(1, round(width * fov_deg / 360))
    return images * seen[:, None, None].to(images.device)


Move = Literal["roll", "turn", "stay"]


def move_together(
    images: Sequence[Tensor], moves: Sequence[Move], settings: Augmentation, generator: Generator
) -> tuple[Tensor, ...]:
    """One flip and one quarter turn, drawn on the CPU, for all images (B, C, H, W) of a place. `moves`: how each view follows
    the turn: panoramas 'roll', squares that are north up 'turn', images of another heading, as a drone's, 'stay'."""
    count = len(images[0])
    flipped = (torch.rand(count, generator=generator) < settings.flip).view(-1, 1, 1, 1)
    quarters = torch.randint(1, 4, (count,), generator=generator)
    quarters = quarters * (torch.rand(count, generator=generator) < settings.turn)
    follow = {"roll": roll_panoramas, "turn": turn_squares, "stay": lambda image, _: image}
    mirrored = [torch.where(flipped.to(image.device), image.flip(3), image) for image in images]
    return tuple(follow[move](image, quarters) for image, move in zip(mirrored, moves, strict=True))


@dataclass(frozen=True)
class PlacementJitter:
    """How far the two images of a pair are moved against each other, each move drawn evenly from minus to plus the
    value; by default as UCVGL's satellite and fake images in steps 3 to 5 (official code)."""

    turn_deg: float = 0.0  # a compass errs
    scale: float = 0.1  # as a fraction; the assumed camera height errs
    shift: float = 0.125  # of half the edge; a position errs. UCVGL: 6.25 % of the edge
    probability: float = 0.5  # of moving an image at all
    padding: Literal["zeros", "reflection"] = "zeros"  # what enters at the edges: black, as in UCVGL, or a mirror image

    def __post_init__(self) -> None:
        ends = {"turn_deg": 90, "scale": 1, "shift": 1}
        rules = [(name, 0 <= getattr(self, name) < end, f"0 to below {end}") for name, end in ends.items()]
        probability = "probability", 0 <= self.probability <= 1, "0 to 1"
        check_fields(self, "placement jitter: ", "Correct it.", *rules, probability)


UCVGL_PLACEMENT = PlacementJitter()
SECOND_VERSION = PlacementJitter(15.0, 0.2, 0.4)  # UCVGL, of the second version of a satellite image in step 3
STREET_LEVEL = PlacementJitter(7.0, 0.15, 0.15, 1.0, "reflection")  # ours: errors of a street camera's GPS and compass


def jitter_placement(images: Tensor, settings: PlacementJitter, generator: Generator) -> Tensor:
    """Turn, scale and shift some of the images, float (B, C, S, S); drawn on the CPU."""
    draws = torch.rand(4, len(images), generator=generator) * 2 - 1
    if settings.probability < 1:
        draws = draws * (torch.rand(len(images), generator=generator) < settings.probability)
    turn, scale = draws[0] * math.radians(settings.turn_deg), 1 + draws[1] * settings.scale
    cos, sin, (x, y) = turn.cos() * scale, turn.sin() * scale, draws[2:] * settings.shift
    theta = torch.stack([cos, -sin, x, sin, cos, y], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode=settings.padding, align_corners=False)


def resized_crop(images: Tensor, least: float, generator: Generator, *, ratio: float | None = None) -> Tensor:
    """A random crop of `least`..1 of each image's area, resized back (VG-SSL: 0.75 to 1); float (B, C, H, W).

    Its width is 1/ratio..ratio times its height (torchvision and VG-SSL: 4/3), the first of ten draws that fits into
    the image, else the whole image; of no ratio it has the image's own shape."""
    height, width = images.shape[2:]
    values, tries = (3, 1) if ratio is None else (4, 10)
    draws = torch.rand(values, tries, len(images), generator=generator, device=generator.device)
    area, x, y, *shape = draws.to(images.device)  # (tries, B) each
    area = least + (1 - least) * area
    # width over height, as parts of the image's
    relative = torch.ones_like(area) if ratio is None else ratio ** (2 * shape[0] - 1) * height / width
    sides = torch.stack([(area * relative).sqrt(), (area / relative).sqrt()])
    fits = (sides <= 1).all(0)
    first = fits.int().argmax(0, keepdim=True)
    sides = torch.where(fits.any(0), sides.gather(1, first.expand(2, 1, -1))[:, 0], 1.0)
    x, y = (1 - sides) * (torch.stack([x[0], y[0]]) * 2 - 1)  # (B,) each, in the grid's -1..1
    zero = torch.zeros_like(x)
    theta = torch.stack([sides[0], zero, x, zero, sides[1], y], 1).view(-1, 2, 3).to(images)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def augment(
    images: Tensor, settings: Augmentation, generator: Generator, *, hole: float = GROUND_HOLE,
    placements: Sequence[PlacementJitter] = (),
) -> Tensor:  # fmt: skip
    """Dropout, placement, colour jitter, grey, blur or sharpening, drawn for each image, in this order or with dropout last.

    (B, 3, H, W) on any device, uint8 or float in 0..1 -> float in 0..1, copied. `hole` is what a dropped grid takes of
    its cells' sides; the placements, of squares, are drawn one after the other."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(len(images), *shape, generator=generator, device=generator.device).cpu()

    # all is drawn before any pixel is touched, and alike whatever device the images are on
    limits = torch.tensor((settings.brightness, settings.contrast, settings.saturation, settings.hue))
    jittered = uniform(1) < settings.jitter
    colour = (uniform(4) * 2 - 1) * limits * jittered  # (B, 4)
    probabilities = (settings.grey, settings.blur, settings.sharpen, settings.dropout, 0.5)
    grey, blurred, sharpened, dropped, as_grid = (uniform() < p for p in probabilities)  # (B,) each
    places = uniform(5, 25)

    images = images.clone() if images.is_floating_point() else to_float(images)
    as_ucvgl = settings.dropout_as == "UCVGL"
    if as_ucvgl:
        _drop(images, dropped, as_grid, places, hole, as_ucvgl)
    for placement in placements:
        images = jitter_placement(images, placement, generator)
    step = max(1, AT_ONCE // images[0].numel()) if images.device.type == "cpu" else len(images)
    parts = zip(*(value.split(step) for value in (images, colour, grey, blurred, sharpened)), strict=True)
    images = torch.cat([_recolour_and_blur(*part) for part in parts])
    if not as_ucvgl:
        _drop(images, dropped, as_grid, places, hole, as_ucvgl)
    return images


def _recolour_and_blur(images: Tensor, colour: Tensor, grey: Tensor, blurred: Tensor, sharpened: Tensor) -> Tensor:
    """Change the colours of float (B, 3, H, W) in 0..1, and blur some; of those sharpen some instead."""
    images = recolour(images, colour, grey)
    if blurred.any():
        rows, sharpened = blurred.nonzero()[:, 0].to(images.device), sharpened[blurred].view(-1, 1, 1, 1)
        sharp, soft = images[rows], blur3(images[rows])
        images[rows] = torch.where(sharpened.to(images.device), (2 * sharp - soft).clamp_(0, 1), soft)
    return images


def _drop(images: Tensor, dropped: Tensor, as_grid: Tensor, places: Tensor, hole: float, as_ucvgl: bool) -> None:
    """Set a grid or rectangles of the dropped images to zero, in place; `places` (B, 5, 25), 0..1, says where."""
    height, width = images.shape[2:]
    for row in dropped.nonzero()[:, 0].tolist():
        if as_grid[row]:
            drop_grid(images[row], hole, places[row, :2, 0] * as_ucvgl)
        else:
            drop_rectangles(images[row], places[row], (height, width if as_ucvgl else height))


def recolour(images: Tensor, colour: Tensor, grey: Tensor) -> Tensor:
    """Brightness, contrast (around the mean luma), saturation, hue and grey of float (B, 3, H, W), clipped to 0..1 at the end.

    All are linear in the colours: one matrix and one offset an image. `colour` (B, 4) has the relative changes, of the
    hue a fraction of the circle, 0 if unchanged; `grey` (B,) bool."""
    brightness, contrast, saturation, hue = colour.unsqueeze(-1).unbind(1)  # (B, 1) each
    weights = torch.tensor(LUMA)
    identity, to_grey = torch.eye(3), weights.expand(3, 3)  # the latter makes every channel the luma
    mean = images.mean(dim=(2, 3)).float().cpu() @ weights  # (B,)
    matrix = ((1 + brightness) * (1 + contrast))[..., None] * identity
    offset = (-contrast * (1 + brightness) * mean[:, None]).expand(-1, 3)
    mix = to_grey + (1 + saturation)[..., None] * (identity - to_grey)
    mix = hue_matrix(hue[:, 0] * 2 * math.pi) @ mix
    mix = torch.where(grey.view(-1, 1, 1), to_grey @ mix, mix)
    matrix, offset = (mix @ matrix).to(images), (mix @ offset[..., None]).to(images)  # (B, 3, 3), (B, 3, 1)
    return torch.baddbmm(offset, matrix, images.flatten(2)).clamp_(0, 1).view_as(images)


def hue_matrix(angle: Tensor) -> Tensor:
    """(B,) radians -> (B, 3, 3): the turn of the plane of I and Q that leaves Y, the luma, as it is."""
    to_yiq = torch.tensor((LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)), dtype=torch.float64)
    cos, sin = angle.double().cos(), angle.double().sin()
    one, zero = torch.ones_like(cos), torch.zeros_like(cos)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], 1).view(-1, 3, 3)
    return (torch.linalg.inv(to_yiq) @ turn @ to_yiq).float()


def blur3(images: Tensor) -> Tensor:
    """A 3 x 3 binomial blur, edges repeated; (B, C, H, W)."""
    padded = F.pad(images, (0, 0, 1, 1), mode="replicate")
    rows = (padded[:, :, :-2] + padded[:, :, 2:]).add_(padded[:, :, 1:-1], alpha=2)
    padded = F.pad(rows, (1, 1, 0, 0), mode="replicate")
    return (padded[..., :-2] + padded[..., 2:]).add_(padded[..., 1:-1], alpha=2).mul_(1 / 16)


def drop_grid(image: Tensor, hole: float, begin: Tensor) -> None:
    """Set squares of a (C, H, W) to zero, in place: `hole` of each side of cells of W/10 pixels, at `begin` (2,), 0..1, in them."""
    cell = max(2, image.shape[2] // 10)
    side = max(1, int(hole * cell))
    stripes = []
    for length, part in zip(image.shape[1:], begin.tolist(), strict=True):
        steps = torch.arange(length, device=image.device) - int(part * (cell - side + 1))
        stripes.append((steps >= 0) & (steps % cell < side))
    image.masked_fill_(stripes[0][:, None] & stripes[1], 0.0)


def drop_rectangles(image: Tensor, places: Tensor, of: tuple[int, int]) -> None:
    """Set 10 to 25 rectangles to zero, in place: 0.1 to 0.2 of the first length high, of the second wide; (C, H, W)."""
    height, width = image.shape[1:]
    for tall, down, right, broad in places[:4, : 10 + int(16 * float(places[4, 0]))].T.tolist():
        high, wide = max(1, round(of[0] * (0.1 + 0.1 * tall))), max(1, round(of[1] * (0.1 + 0.1 * broad)))
        top, left = int(down * (height - high + 1)), int(right * (width - wide + 1))
        image[:, top : top + high, left : left + wide] = 0.0


# What the flat-ground projection would make of a tile: a top view whose true tile is known, without a label. A top view is sharp
# up to the first wall, car or crown in each direction, smeared along the ray beyond it, and never quite placed as its tile. Ours:
# UCVGL's CycleGAN goes from top views to tiles only, and small encoders then learn to recognise the smears.


@dataclass(frozen=True)
class Occlusion:
    """What stands around a camera, as fractions of half the tile's width."""

    nearest: float = 0.19  # of an occluder: a kerb-side car at 5 m of 25
    farthest: float = 1.1
    open_share: float = 0.3  # of the directions that are free to the tile's edge
    directions: int = 16  # most occluders around a camera; at least 4
    wall: float = 0.8  # how much of a smear may be the occluder's own colour; the rest is the ground at its foot
    shade: float = 0.4  # how much a smear may darken outwards


def horizon(count: int, size_px: int, settings: Occlusion, generator: Generator) -> Tensor:
    """How far each of `count` cameras sees along the ray through each pixel, blocked in 4 or more sectors: (count, S, S)."""
    x, y = _coordinates(size_px)
    blocks = torch.randint(4, settings.directions + 1, (count, 1, 1), generator=generator)
    part = torch.rand(count, settings.directions, generator=generator)
    distance = settings.nearest + part * (settings.farthest - settings.nearest)
    free = torch.rand(count, settings.directions, generator=generator) < settings.open_share
    distance = torch.where(free, 2.0, distance)  # beyond the corners
    first = torch.rand(count, 1, 1, generator=generator)
    azimuth = (torch.atan2(x, -y) / (2 * math.pi) + first) % 1  # (count, S, S)
    sector = (azimuth * blocks).long().clamp(max=settings.directions - 1)
    return distance.gather(1, sector.flatten(1)).view(count, size_px, size_px)


def smear(images: Tensor, settings: Occlusion, generator: Generator) -> Tensor:
    """Draw out what stands at the horizon along the rays beyond it, in a colour between the ground's and a wall's;
    float in 0..1, (B, 3, S, S), the camera in the middle. The generator is on the CPU."""
    count, _, _, width = images.shape
    x, y = _coordinates(width)
    radius = torch.hypot(x, y).clamp(min=1e-3)
    seen = horizon(count, width, settings, generator)
    reach = (seen / radius).clamp(max=1)  # where along the ray a pixel takes its colour, as a part of its own radius
    grid = torch.stack((x * reach, y * reach), -1).to(images)
    out = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    colour = torch.rand(count, 3, 1, 1, generator=generator) * 0.6 + 0.2
    painted = torch.rand(count, 1, 1, 1, generator=generator) * settings.wall
    darker = torch.rand(count, 1, 1, 1, generator=generator) * settings.shade
    beyond = (radius - seen).unsqueeze(1)  # (B, 1, S, S)
    weight, shade = (beyond > 0) * painted, 1 - darker * beyond.clamp(0, 1)
    return (out * (1 - weight).to(out) + (colour * weight * shade).to(out)).clamp(0, 1)


def synthetic_top_view(tiles: Tensor, occlusion: Occlusion, generator: Generator) -> Tensor:
    """Tiles, float (B, 3, S, S) -> as a top view of the same spot might look."""
    return smear(jitter_placement(tiles, STREET_LEVEL, generator), occlusion, generator)


def _coordinates(size_px: int) -> tuple[Tensor, Tensor]:
    """Of each pixel's centre, right and down, in -1..1: (S, S) each."""
    steps = (torch.arange(size_px) + 0.5) * (2 / size_px) - 1
    return torch.meshgrid(steps, steps, indexing="xy")
