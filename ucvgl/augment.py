"""Augmentations, batched on the device that holds the images, with every random number from an explicit generator.

Geometry is paired: one heading turn or flip moves the panorama and its tile together. The panorama's centre column is
north and columns to the right are east of it (clockwise); up in the tile is north and right is east. Turning a tile by
a quarter counter-clockwise brings what was east to the top, so the panorama is rolled left by a quarter of its width:
what stood right of the centre by W/4 now stands in the centre. Appearance (colour, grey, blur, dropout) is drawn for
each image by itself.

Defaults: UCVGL (section 3, official code) and Sample4Geo (section 4, official code). Differences: colour is jittered in
the fixed order brightness, contrast, saturation, hue; hue turns in the YIQ plane; Sample4Geo's JPEG compression
(quality 90-100, p 0.5) is left out, it cannot be batched. Colour changes are composed before they are applied, so
values are clipped once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ucvgl.errors import InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Augmentation:
    """How strongly pairs and images are changed; a probability of 0 switches a change off.

    Args: each with UCVGL's value (the default), then Sample4Geo's.
        turn: probability of a joint turn by 1, 2 or 3 quarters; 0.5, 0.75.
        flip: probability of a joint flip of east and west; 0.5, 0.5.
        jitter: probability of a colour jitter; 0.8, 0.5.
        brightness: greatest relative change; 0.4, 0.15.
        contrast: greatest relative change; 0.4, 0.15.
        saturation: greatest relative change; 0.4, 0.15.
        hue: greatest turn as a part of the colour circle; 0.1, 0.15.
        grey: probability of a grey image; 0.2, 0.
        blur: probability of a 3 x 3 blur; 0.5 (the paper's probability is not known), 0.3 (half of them sharpen
            instead).
        sharpen: the part of the blurred images that is sharpened instead; 0, 0.5.
        dropout: probability of a grid (half) or of rectangles (half) set to zero; 0.5, 0.3.
    """

    turn: float = 0.5
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    grey: float = 0.2
    blur: float = 0.5
    sharpen: float = 0.0
    dropout: float = 0.5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise InputError(
                    f"augmentation: {name}", expected="0 to 1", found=value, todo="Give a probability or a part."
                )


UCVGL = Augmentation()
SAMPLE4GEO = Augmentation(0.75, 0.5, 0.5, 0.15, 0.15, 0.15, 0.15, 0.0, 0.3, 0.5, 0.3)
NONE = Augmentation(*([0.0] * 11))


def to_float(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) -> float32 in 0..1."""
    return images.float().div_(255)


def normalise(images: Tensor) -> Tensor:
    """Float (B, 3, H, W) in 0..1 -> ImageNet's mean 0 and deviation 1, as pretrained encoders expect."""
    return normalise_(images.clone())


def normalise_(images: Tensor) -> Tensor:
    """As `normalise`, in place: for images nobody else holds, such as those `augment` returns."""
    mean, std = (images.new_tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return images.sub_(mean).div_(std)


# geometry, for a pair


def turn_pair(panorama: Tensor, tile: Tensor, quarters: Tensor) -> tuple[Tensor, Tensor]:
    """Turn each tile by so many quarters counter-clockwise and roll its panorama along.

    Args:
        panorama: (B, C, H, W), W divisible by 4.
        tile: (B, C, S, S).
        quarters: (B,) integers; any, taken modulo 4.

    Returns:
        the turned panoramas and tiles, of the same shapes.

    Raises:
        InputError: a width that is not divisible by 4, or a tile that is not square.
    """
    width = panorama.shape[3]
    if width % 4:
        raise InputError("panorama", expected="a width divisible by 4", found=width, todo="Resize the panoramas.")
    if tile.shape[2] != tile.shape[3]:
        raise InputError("tile", expected="a square", found=tuple(tile.shape), todo="Resize the tiles.")
    return roll_panoramas(panorama, quarters), turn_squares(tile, quarters)


def turn_squares(images: Tensor, quarters: Tensor) -> Tensor:
    """Turn tiles or top views (B, C, S, S), each by so many (B,) quarters counter-clockwise."""
    quarters = quarters.to(images.device) % 4
    images = images.clone()
    for k in (1, 2, 3):
        rows = (quarters == k).nonzero()[:, 0]
        if len(rows):
            images[rows] = torch.rot90(images[rows], k, dims=(2, 3))
    return images


def roll_panoramas(images: Tensor, quarters: Tensor) -> Tensor:
    """Roll panoramas (B, C, H, W) as `turn_squares` turns their tiles: left by so many (B,) quarters of the width."""
    quarters = quarters.to(images.device) % 4
    images = images.clone()
    for k in (1, 2, 3):
        rows = (quarters == k).nonzero()[:, 0]
        if len(rows):
            images[rows] = images[rows].roll(-k * images.shape[3] // 4, dims=3)
    return images


def flip_pair(panorama: Tensor, tile: Tensor, flipped: Tensor) -> tuple[Tensor, Tensor]:
    """Exchange east and west in both views where `flipped` (B,) is true; north stays in the centre column."""
    rows = flipped.to(tile.device).view(-1, 1, 1, 1)
    return torch.where(rows, panorama.flip(3), panorama), torch.where(rows, tile.flip(3), tile)


def move_pair(panorama: Tensor, tile: Tensor, settings: Augmentation, generator: Generator) -> tuple[Tensor, Tensor]:
    """Joint flips and quarter turns drawn for each pair; shapes as `turn_pair`."""
    count = len(tile)
    panorama, tile = flip_pair(panorama, tile, _chosen(count, settings.flip, generator, tile.device))
    quarters = torch.randint(1, 4, (count,), generator=generator, device=generator.device).to(tile.device)
    turned = _chosen(count, settings.turn, generator, tile.device)
    return turn_pair(panorama, tile, torch.where(turned, quarters, 0))


Move = Literal["roll", "turn", "stay"]


def move_together(
    images: Sequence[Tensor], moves: Sequence[Move], settings: Augmentation, generator: Generator
) -> tuple[Tensor, ...]:
    """One flip and one quarter turn drawn for all images of a row, whichever the view.

    Args:
        images: (B, C, H, W) each, of the same B places.
        moves: how each follows the turn: panoramas 'roll', squares that are north up 'turn', and images whose heading
            says nothing about the tile's, as a drone's, 'stay'. All are flipped.
        settings: the probabilities of flip and turn.
        generator: the source of every random number, on the CPU.
    """
    count = len(images[0])
    flipped = (torch.rand(count, generator=generator) < settings.flip).view(-1, 1, 1, 1)
    quarters = torch.randint(1, 4, (count,), generator=generator)
    quarters = quarters * (torch.rand(count, generator=generator) < settings.turn)

    def moved(image: Tensor, move: Move) -> Tensor:
        image = torch.where(flipped.to(image.device), image.flip(3), image)
        match move:
            case "roll":
                return roll_panoramas(image, quarters)
            case "turn":
                return turn_squares(image, quarters)
        return image

    return tuple(moved(image, move) for image, move in zip(images, moves, strict=True))


# appearance, for each image by itself


@dataclass(frozen=True)
class Draws:
    """What was drawn for each of B images, on the CPU, before any pixel is touched.

    Args:
        colour: (B, 4) relative changes of brightness, contrast and saturation, and the turn of the hue; 0 where
            unchanged.
        grey: (B,) bool, which become grey.
        blurred: (B,) bool, which are blurred or sharpened.
        sharpened: (B,) bool, which of those are sharpened.
        dropped: (B,) bool, which lose a grid or rectangles.
        as_grid: (B,) bool, which of those lose a grid.
        places: (B, 5, 25) numbers in 0..1 that place the grid or the rectangles.
    """

    colour: Tensor
    grey: Tensor
    blurred: Tensor
    sharpened: Tensor
    dropped: Tensor
    as_grid: Tensor
    places: Tensor

    def part(self, rows: slice) -> "Draws":
        """The draws of some of the images."""
        return Draws(*(value[rows] for value in vars(self).values()))


def draw(count: int, settings: Augmentation, generator: Generator) -> Draws:
    """The draws for `count` images; the same ones whatever device the images are on."""
    limits = torch.tensor((settings.brightness, settings.contrast, settings.saturation, settings.hue))

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=generator.device).cpu()

    jittered = uniform(count, 1) < settings.jitter
    colour = (uniform(count, 4) * 2 - 1) * limits * jittered
    probabilities = (settings.grey, settings.blur, settings.sharpen, settings.dropout, 0.5)
    return Draws(colour, *(uniform(count) < p for p in probabilities), uniform(count, 5, 25))


def augment(images: Tensor, settings: Augmentation, generator: Generator) -> Tensor:
    """Colour jitter, grey, blur or sharpening, and dropout, drawn for each image.

    Args:
        images: (B, 3, H, W) on any device, uint8 or float in 0..1.
        settings: probabilities and strengths.
        generator: the source of every random number; on the CPU the draws are the same for every device.

    Returns:
        the changed images, float in 0..1; the ones given are left as they were.
    """
    draws = draw(len(images), settings, generator)
    if images.device.type != "cpu":
        return apply(images, draws)
    # a few images at a time stay in the processor's cache and reuse memory: three times as fast as the batch in one go
    step = max(1, _CHUNK_VALUES // max(1, images[0].numel())) if len(images) else 1
    dtype = images.dtype if images.is_floating_point() else torch.float32
    out = torch.empty(images.shape, dtype=dtype)
    for start in range(0, len(images), step):
        rows = slice(start, start + step)
        out[rows] = apply(images[rows], draws.part(rows))
    return out


_CHUNK_VALUES = 1 << 20


def apply(images: Tensor, draws: Draws) -> Tensor:
    """Change (B, 3, H, W), uint8 or float in 0..1, as drawn; float in 0..1."""
    images = images if images.is_floating_point() else to_float(images)
    images = recolour(images, *colour_change(images, draws.colour, draws.grey))
    rows = draws.blurred.nonzero()[:, 0].to(images.device)
    if len(rows):
        sharp = images[rows]
        soft = blur3(sharp)
        sharpened = _wide(draws.sharpened.to(images.device)[rows])
        images[rows] = torch.where(sharpened, (2 * sharp - soft).clamp_(0, 1), soft) if sharpened.any() else soft
    for row in draws.dropped.nonzero()[:, 0].tolist():
        places = draws.places[row]
        if draws.as_grid[row]:
            drop_grid(images[row], places)
        else:
            drop_rectangles(images[row], places)
    return images


def colour_change(images: Tensor, colour: Tensor, grey: Tensor) -> tuple[Tensor, Tensor]:
    """Brightness, contrast, saturation, hue and grey of each image as one 3 x 3 matrix and an offset.

    All five are linear in the colours, so a batch is passed over once instead of a dozen times; values are clipped at
    the end only. Contrast turns around the image's mean luma.

    Args:
        images: float (B, 3, H, W).
        colour: (B, 4), as `Draws.colour`.
        grey: (B,) bool.

    Returns:
        matrices (B, 3, 3) and offsets (B, 3), on the images' device.
    """
    brightness, contrast, saturation, hue = colour.unsqueeze(-1).unbind(1)  # (B, 1) each
    weights = torch.tensor(_LUMA)
    identity, to_grey = torch.eye(3), weights.expand(3, 3)  # the latter makes every channel the luma
    mean = images.mean(dim=(2, 3)).float().cpu() @ weights  # (B,)
    matrix = ((1 + brightness) * (1 + contrast))[..., None] * identity
    offset = (-contrast * (1 + brightness) * mean[:, None]).expand(-1, 3)
    mix = to_grey + (1 + saturation)[..., None] * (identity - to_grey)
    mix = _hue_matrix(hue[:, 0] * 2 * math.pi) @ mix
    mix = torch.where(grey.view(-1, 1, 1), to_grey @ mix, mix)
    matrix, offset = mix @ matrix, (mix @ offset[..., None])[..., 0]
    return matrix.to(images), offset.to(images)


def recolour(images: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """(B, 3, H, W) with each pixel's colour multiplied by (B, 3, 3), (B, 3) added, and clipped to 0..1."""
    flat = images.flatten(2)  # (B, 3, H * W)
    return torch.baddbmm(offset[..., None], matrix, flat).clamp_(0, 1).view_as(images)


_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601


def _hue_matrix(angle: Tensor) -> Tensor:
    """(B,) radians -> (B, 3, 3): the turn of the plane of I and Q that leaves Y, the luma, as it is."""
    to_yiq = torch.tensor((_LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)), dtype=torch.float64)
    turn = torch.zeros(len(angle), 3, 3, dtype=torch.float64)
    cos, sin = angle.double().cos(), angle.double().sin()
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = cos
    turn[:, 1, 2], turn[:, 2, 1] = -sin, sin
    return (torch.linalg.inv(to_yiq) @ turn @ to_yiq).float()


def blur3(images: Tensor) -> Tensor:
    """A 3 x 3 binomial blur, edges repeated; (B, C, H, W)."""
    padded = F.pad(images, (0, 0, 1, 1), mode="replicate")
    rows = (padded[:, :, :-2] + padded[:, :, 2:]).add_(padded[:, :, 1:-1], alpha=2)
    padded = F.pad(rows, (1, 1, 0, 0), mode="replicate")
    return (padded[..., :-2] + padded[..., 2:]).add_(padded[..., 1:-1], alpha=2).mul_(1 / 16)


def drop_grid(image: Tensor, places: Tensor) -> None:
    """Set a grid of squares to zero, in place: cells of H/10 to H/4 pixels, half of each side dropped; (C, H, W)."""
    height, width = image.shape[1:]
    cell = max(2, round(height * (0.1 + 0.15 * float(places[0, 0]))))
    stripes = [
        ((torch.arange(n) + int(cell * float(places[i, 0]))) % cell) < cell / 2 for n, i in ((height, 1), (width, 2))
    ]
    image.masked_fill_((stripes[0][:, None] & stripes[1]).to(image.device), 0.0)


def drop_rectangles(image: Tensor, places: Tensor) -> None:
    """Set 10 to 25 rectangles to zero, in place: 0.1 to 0.2 of the height a side; (C, H, W)."""
    height, width = image.shape[1:]
    for hole in range(10 + int(16 * float(places[4, 0]))):
        high, wide = (max(1, round(height * (0.1 + 0.1 * float(places[i, hole])))) for i in (0, 3))
        top = int(float(places[1, hole]) * (height - high + 1))
        left = int(float(places[2, hole]) * max(1, width - wide + 1))
        image[:, top : top + high, left : left + wide] = 0.0


def resized_crop(images: Tensor, least: float, generator: Generator) -> Tensor:
    """A random crop of `least`..1 of each image's area, resized back (VG-SSL, section 3.2 of papers: 0.75 to 1); (B, C, H, W)."""
    draws = torch.rand(3, len(images), generator=generator, device=generator.device).to(images.device)
    scale = (least + (1 - least) * draws[0]).sqrt()
    shift = (1 - scale) * (draws[1:] * 2 - 1)  # (2, B), in the grid's -1..1
    theta = images.new_zeros(len(images), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, 0, 2], theta[:, 1, 2] = shift
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _chosen(count: int, probability: float, generator: Generator, device: torch.device) -> Tensor:
    return (torch.rand(count, generator=generator, device=generator.device) < probability).to(device)


def _wide(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
