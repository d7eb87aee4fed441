"""The parts of a CycleGAN: settings, networks, losses, image pool and learning rate; `ucvgl.translation` trains them.

Zhu, Park, Isola, Efros: Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks, ICCV 2017
(sections 3, 4 and 7); UCVGL (section 3.2) turns top views into fake satellite images with it.
Differences: upsampling resizes and convolves instead of a transposed convolution, whose 3 x 3 kernel at stride 2 covers
pixels unevenly and prints a checkerboard that an encoder would learn from. `patch` and `residual` are ours, and off by
default; they make 64-px images trainable without a GPU.

Top view to fake satellite image, learned from two sets that are not paired. UCVGL, section 3.2, 'image projection'.

Three ways: none (the top view as it is), `ColourStatistics` (a linear map of the colours, seconds), and a CycleGAN (the
paper's; Zhu et al., ICCV 2017; its parts are in `ucvgl.translation`).
Differences from the paper: quarter turns as augmentation; several images a step; training resumes after any epoch.
Images here are uint8 (B, 3, H, W), or float in 0..1; the networks see -1..1.
"""

import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from tqdm.auto import tqdm

from ucvgl import checkpoints
from ucvgl.errors import InputError
from ucvgl.paths import write_text

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
ARCHITECTURE = ("channels", "blocks", "downsamplings", "patch", "residual")  # what a generator's weights depend on


@dataclass(frozen=True)
class CycleGanConfig:
    """Settings of a CycleGAN; the defaults are UCVGL's where it names one, else Zhu et al.'s.

    Raises:
        InputError: a value out of range, or sizes that do not fit the networks.
    """

    load_px: int = 360  # side to which images are resized; UCVGL 360
    crop_px: int = 320  # side of the random crop of it that is trained on; UCVGL 320
    channels: int = 64  # of the generator's first layer, doubled at each downsampling; paper 64
    blocks: int = 9  # residual blocks; paper 9 for images of 256 px or more, 6 for 128 px
    downsamplings: int = 2  # halvings (and doublings) around the blocks; paper 2
    patch: int = 1  # px, side of the squares folded into channels before the first layer (space to depth); paper 1
    residual: bool = False  # the generator adds to its input, so that it starts near the identity; paper no
    discriminator_channels: int = 64  # of the first layer, doubled at each further one, at most 8-fold; paper 64
    discriminator_layers: int = 3  # convolutions of stride 2; 3 see 70 x 70 px (paper), 2 see 34, 1 sees 16
    lambda_cycle: float = 10.0  # weight of the cycle loss; paper 10
    lambda_identity: float = 0.5  # weight of the identity loss, times lambda_cycle; paper 0.5; 0 saves a third
    lr: float = 2e-4  # Adam; paper 2e-4
    beta1: float = 0.5  # Adam; paper 0.5
    pool: int = 50  # earlier fakes shown to each discriminator; paper 50; 0 = none
    epochs: int = 100  # at the full learning rate; paper 100 (UCVGL: about 20 in all suffice)
    decay_epochs: int = 100  # further ones, linearly towards 0; paper 100
    steps_per_epoch: int | None = None  # None = one pass over the larger set, as the paper
    batch: int = 1  # images of each side a step; paper 1
    flip: bool = True  # exchange left and right with probability 0.5; paper yes
    turn: bool = True  # turn by 0 to 3 quarters; paper no, but neither view has a preferred direction
    precision: str = "fp32"  # or bf16 (autocast); paper fp32
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"decay_epochs": 0, "downsamplings": 0, "pool": 0, "blocks": 0, "seed": 0}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "steps_per_epoch" and value is None:
                continue
            kind = {bool: bool, str: str, float: (int, float)}.get(field.type, int)
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise _out_of_range(field.name, f"a value of type {getattr(field.type, '__name__', 'int')}", value)
            if kind is int and value < least.get(field.name, 1):
                raise _out_of_range(field.name, f"a whole number of at least {least.get(field.name, 1)}", value)
        for name, low, high in (("lambda_cycle", 0, 1e6), ("lambda_identity", 0, 1e6), ("beta1", 0, 0.9999)):
            if not low <= getattr(self, name) <= high:
                raise _out_of_range(name, f"{low} to {high:g}", getattr(self, name))
        if not 0 < self.lr < 1:
            raise _out_of_range("lr", "above 0 and below 1", self.lr)
        if self.precision not in PRECISIONS:
            raise _out_of_range("precision", " or ".join(PRECISIONS), self.precision)
        if self.crop_px > self.load_px:
            raise _out_of_range("crop_px", f"at most load_px, {self.load_px}", self.crop_px)
        # reflection needs one pixel more than it pads; the discriminator must have at least one output
        if self.crop_px % self.stride or self.crop_px // self.stride < 2 or self.crop_px // self.patch < 4:
            raise _out_of_range(
                "crop_px", f"a multiple of {self.stride} (patch * 2**downsamplings), 4 patches or more", self.crop_px
            )
        if self.crop_px >> self.discriminator_layers < 3:
            raise _out_of_range("crop_px", f"at least {3 << self.discriminator_layers} for the layers", self.crop_px)

    @property
    def stride(self) -> int:
        """The sides of images must be divisible by this: pixels a cell of the innermost layers."""
        return self.patch << self.downsamplings

    @property
    def total_epochs(self) -> int:
        """At the full learning rate and with a falling one."""
        return self.epochs + self.decay_epochs


def _out_of_range(name: str, expected: str, found: object) -> InputError:
    return InputError(f"CycleGanConfig.{name}", expected=expected, found=repr(found), todo="Choose another value.")


PAPER = CycleGanConfig()


# ------------------------------------------------------------------------------------------------------------ networks


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions added to their input; (B, C, H, W) stays (B, C, H, W). Zhu et al., section 7.2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv(channels, channels, 3), InstanceNorm(), nn.ReLU(inplace=True), *_conv(channels, channels, 3),
            InstanceNorm(),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Add the body's output to the input."""
        return images + self.body(images)


class InstanceNorm(nn.Module):
    """Each channel of each image to mean 0 and deviation 1, without learned parameters (Ulyanov et al., 2016)."""

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape; as a group norm of one channel a group, the faster kernel on a CPU."""
        return F.group_norm(images, images.shape[1])


class ResnetGenerator(nn.Module):
    """Translates images (B, 3, H, W) in -1..1 into the same shape and range. Zhu et al., section 7.2."""

    def __init__(self, config: CycleGanConfig) -> None:
        super().__init__()
        width, folded = config.channels, 3 * config.patch**2
        self.patch, self.residual, self.stride = config.patch, config.residual, config.stride
        kernel = 7 if config.patch == 1 else 3  # the paper's 7 px; a cell of a patch is wide enough with 3
        layers: list[nn.Module] = [*_conv(folded, width, kernel), InstanceNorm(), nn.ReLU(inplace=True)]
        for _ in range(config.downsamplings):
            layers += [nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), InstanceNorm(), nn.ReLU(inplace=True)]
            width *= 2
        layers += [ResidualBlock(width) for _ in range(config.blocks)]
        for _ in range(config.downsamplings):
            layers += [nn.Upsample(scale_factor=2), *_conv(width, width // 2, 3), InstanceNorm(), nn.ReLU(inplace=True)]
            width //= 2
        self.body = nn.Sequential(*layers, *_conv(width, folded, kernel))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in -1..1 to the same; InputError unless H and W are multiples of `stride`."""
        if images.shape[-1] % self.stride or images.shape[-2] % self.stride:
            raise InputError(
                "images", expected=f"sides that are multiples of {self.stride} px", found=tuple(images.shape),
                todo="Resize the images.",
            )  # fmt: skip
        change = F.pixel_shuffle(self.body(F.pixel_unshuffle(images, self.patch)), self.patch)
        # shrunk a little, as atanh(1) is infinite: with no change, the output is 0.99 of the input
        return torch.tanh(change + torch.atanh(0.99 * images) if self.residual else change)


class PatchDiscriminator(nn.Module):
    """Scores overlapping patches of images (B, 3, H, W): (B, 1, h, w), 1 real and 0 fake. Zhu et al., section 7.2."""

    def __init__(self, config: CycleGanConfig) -> None:
        super().__init__()
        width, widest = config.discriminator_channels, 8 * config.discriminator_channels
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        for layer in range(1, config.discriminator_layers + 1):
            stride = 2 if layer < config.discriminator_layers else 1
            out = min(2 * width, widest)
            layers += [nn.Conv2d(width, out, 4, stride, 1), InstanceNorm(), nn.LeakyReLU(0.2, inplace=True)]
            width = out
        self.body = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in -1..1 to a map of scores."""
        return self.body(images)


def _conv(inside: int, out: int, kernel: int) -> tuple[nn.Module, nn.Module]:
    """A convolution that reflects the image at its border, so that no dark frame grows."""
    return nn.ReflectionPad2d(kernel // 2), nn.Conv2d(inside, out, kernel)


def patch_px(discriminator_layers: int) -> int:
    """Side of the square that one score of the discriminator sees; 3 layers -> 70, the paper's."""
    side = 1
    for stride in (1, 1, *[2] * discriminator_layers):  # from the output backwards, kernels of 4
        side = (side - 1) * stride + 4
    return side


def initialise(network: nn.Module, generator: Generator) -> nn.Module:
    """Weights from N(0, 0.02), biases 0 (Zhu et al., section 7.1), in place; the same on every device."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
            else:
                parameter.zero_()
    return network


# -------------------------------------------------------------------------------------------------------------- losses


def adversarial_loss(scores: Tensor, real: bool) -> Tensor:
    """Least squares: mean of (score - 1)^2 for what should pass as real, of score^2 for fakes. Zhu et al., section 4."""
    return (scores - 1).square().mean() if real else scores.square().mean()


def discriminator_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """Half the sum of both least-squares terms, which slows the discriminator down. Zhu et al., section 7.1."""
    return (adversarial_loss(real_scores, True) + adversarial_loss(fake_scores, False)) / 2


def cycle_loss(images: Tensor, restored: Tensor) -> Tensor:
    """Mean absolute difference between images and what came back from there and back. Zhu et al., equation 2."""
    return (images - restored).abs().mean()


def identity_loss(images: Tensor, kept: Tensor) -> Tensor:
    """Mean absolute change of images that were already in the target view. Zhu et al., section 5.2."""
    return (images - kept).abs().mean()


def generator_loss(adversarial: Tensor, cycle: Tensor, identity: Tensor, config: CycleGanConfig) -> Tensor:
    """adversarial + lambda_cycle * (cycle + lambda_identity * identity), each the sum over both directions."""
    return adversarial + config.lambda_cycle * (cycle + config.lambda_identity * identity)


# ------------------------------------------------------------------------------------------------- schedule and pool


def lr_factor(epoch: int, epochs: int, decay_epochs: int) -> float:
    """1 for the first `epochs` epochs (from 0), then linearly down, 0 one epoch after the last. Zhu et al., 7.1."""
    return 1 - max(0, epoch + 1 - epochs) / (decay_epochs + 1)


class ImagePool:
    """Earlier fakes, from which half of each batch shown to a discriminator is taken. Zhu et al., section 4.

    Args:
        size: images held; 0 hands every batch through.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: Tensor | None = None  # (up to size, 3, H, W)

    def exchange(self, fakes: Tensor, generator: Generator) -> Tensor:
        """Keep or swap each of (B, 3, H, W) detached fakes with probability 0.5 once the pool is full; same shape.

        Until then each fake is stored and handed through. `generator` lives on the CPU.
        """
        if self.size == 0:
            return fakes
        held = 0 if self.images is None else len(self.images)
        new = min(self.size - held, len(fakes))
        if new:
            stored = fakes[:new].clone()
            self.images = stored if self.images is None else torch.cat([self.images, stored])
        swap = torch.rand(len(fakes), generator=generator) < 0.5
        places = torch.randint(self.size, (len(fakes),), generator=generator)
        shown = fakes.clone()
        for row in range(new, len(fakes)):
            if swap[row]:
                place = int(places[row])
                shown[row] = self.images[place]
                self.images[place] = fakes[row]
        return shown


Method = Literal["channels", "covariance", "image"]
CHUNK = 64  # images whose statistics are taken at a time
# For 64-px images without a GPU, in minutes: starts near the identity, no identity loss, a weak cycle, few channels. The best
# balanced of four settings that were tried by eye on 1,000 images, each once and differing in several values, so that no
# single value is shown to matter. After 900 steps it had changed colours and edges; walls were still smeared.
LAPTOP = CycleGanConfig(
    load_px=64, crop_px=64, channels=16, blocks=3, downsamplings=1, patch=2, residual=True, discriminator_channels=8,
    discriminator_layers=2, lambda_cycle=2.0, lambda_identity=0.0, lr=5e-4, batch=4, epochs=5, decay_epochs=5,
    steps_per_epoch=200,
)  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- statistics


@dataclass(frozen=True, eq=False)
class Colours:
    """The colours of a set of images, in 0..1, float64 on the CPU."""

    mean: Tensor  # (3,)
    covariance: Tensor  # (3, 3), over all pixels of all images
    within: Tensor  # (3,) variance around each image's own mean, averaged over the images


@dataclass(frozen=True, eq=False)
class ColourStatistics:
    """What `apply_statistics` needs: the colours of both sets, and the weight of pixels they were taken with."""

    source: Colours  # of the top views
    target: Colours  # of the satellite images
    weight: Tensor | None  # (H, W), sums to 1, or None for equal weights


def centre_weight(size_px: int, spread: float = 0.45) -> Tensor:
    """A Gaussian weight (size_px, size_px) that trusts the middle of a top view, where the ground is not smeared.

    Args:
        size_px: side of the images.
        spread: standard deviation as a share of half the side; 0.45 as in `pixel_descriptor`.
    """
    steps = (torch.arange(size_px) + 0.5) * (2 / size_px) - 1
    return torch.exp(-(steps[:, None].square() + steps[None].square()) / (2 * spread**2))


def fit_statistics(top_views: Tensor, satellites: Tensor, *, weight: Tensor | None = None) -> ColourStatistics:
    """Mean and covariance of the colours of two unpaired sets; every image counts the same.

    Args:
        top_views: (N, 3, S, S), N at least 1.
        satellites: (M, 3, S, S), M at least 1; need not show the same places, nor as many.
        weight: (S, S), not negative, of each pixel in both sets, which thus tell of the same distances from the
            camera; a mask of 0 keeps out what a top view does not see. None = all pixels alike.

    Raises:
        InputError: an empty set, images of other shapes, a weight that is negative, all 0 or of another size.
    """
    size = _check_pair(top_views, satellites)
    if weight is not None:
        if weight.shape != (size, size):
            raise InputError("weight", expected=f"({size}, {size})", found=tuple(weight.shape), todo="Resize it.")
        total = weight.double().sum()
        if not (torch.isfinite(total) and total > 0 and (weight >= 0).all()):
            raise InputError(
                "weight", expected="finite, not negative, not all 0", found=f"sum {float(total):g}, least {float(weight.min()):g}",
                todo="Give a mask or a centre weight.",
            )  # fmt: skip
        weight = weight.double().cpu() / total.cpu()
    return ColourStatistics(_colours(top_views, weight), _colours(satellites, weight), weight)


def _colours(images: Tensor, weight: Tensor | None) -> Colours:
    means, covariances = (torch.cat(v) for v in zip(*(_moments(c, weight) for c in images.split(CHUNK)), strict=True))
    mean = means.mean(0)
    # the law of total covariance: around the images' own means, plus of those means
    between = (means - mean).T @ (means - mean) / len(means)
    return Colours(mean, covariances.mean(0) + between, covariances.diagonal(dim1=1, dim2=2).mean(0))


def _moments(images: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weighted mean (B, 3) and covariance (B, 3, 3) of the colours of each image, float64 on the CPU."""
    pixels = _unit(images.cpu()).double().flatten(2)  # (B, 3, H * W)
    parts = torch.full(pixels.shape[-1:], 1 / pixels.shape[-1]).double() if weight is None else weight.flatten()
    mean = pixels @ parts
    centred = pixels - mean[..., None]
    return mean, (centred * parts) @ centred.mT


def colour_map(stats: ColourStatistics, method: Method = "covariance") -> tuple[Tensor, Tensor]:
    """The matrix (3, 3) and offset (3,) that give the top views the satellite images' colours.

    channels: mean and standard deviation of each channel (Reinhard et al., 2001, in RGB). covariance: the whole
    covariance, by the linear map that changes colours least (Monge-Kantorovich; Pitie and Kokaram, 2007). A direction
    in which the top views do not vary is not stretched. 'image' has no one map: see `apply_statistics`.
    """
    match method:
        case "channels":
            scale = _ratio(stats.target.covariance.diagonal(), stats.source.covariance.diagonal())
            matrix = scale.diag()
        case "covariance":
            root = _power(stats.source.covariance, 0.5)
            inverse = _power(stats.source.covariance, -0.5)
            matrix = inverse @ _power(root @ stats.target.covariance @ root, 0.5) @ inverse
        case _:
            raise InputError("method", expected="channels or covariance", found=repr(method), todo="Choose one.")
    return matrix, stats.target.mean - matrix @ stats.source.mean


def _ratio(target: Tensor, source: Tensor) -> Tensor:
    """Ratio of standard deviations; 1 where the source does not vary."""
    flat = source < 1e-12
    return torch.where(flat, 1.0, target / source.masked_fill(flat, 1.0)).sqrt()


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """A power of a symmetric matrix that has no negative eigenvalues; zero ones stay zero."""
    values, vectors = torch.linalg.eigh(matrix)
    kept = values > max(1e-14, 1e-10 * float(values.max()))
    powers = torch.where(kept, values.masked_fill(~kept, 1.0) ** exponent, 0.0)
    return (vectors * powers) @ vectors.T


def match_colours(images: Tensor, stats: ColourStatistics, method: Method = "covariance") -> Tensor:
    """As `apply_statistics`, for float images and without clipping: mean and covariance come out exactly as wanted."""
    if method != "image":
        matrix, offset = colour_map(stats, method)
        matrix, offset = (v.to(images) for v in (matrix, offset))
        return (matrix @ images.flatten(2) + offset[:, None]).view_as(images)
    mean, covariance = _moments(images, stats.weight)
    scale = _ratio(stats.target.within, covariance.diagonal(dim1=1, dim2=2))  # (B, 3)
    offset = stats.target.mean - scale * mean
    return images * scale[..., None, None].to(images) + offset[..., None, None].to(images)


def apply_statistics(images: Tensor, stats: ColourStatistics, *, method: Method = "covariance") -> Tensor:
    """Top views in the satellite images' colours, clipped; uint8 in, uint8 out, and float in 0..1 likewise.

    Args:
        images: (B, 3, H, W); for 'image' of the size the statistics were fitted on, if they have a weight.
        stats: from `fit_statistics`.
        method: 'channels' or 'covariance', one map for all images: see `colour_map`. 'image': each image's channels
            get the satellite set's mean and its mean contrast, which takes out each panorama's own light and exposure.

    Raises:
        InputError: another method, or images that do not fit.
    """
    _check_images("images", images)
    if method not in ("channels", "covariance", "image"):
        raise InputError("method", expected="channels, covariance or image", found=repr(method), todo="Choose one.")
    if method == "image" and stats.weight is not None and images.shape[2:] != stats.weight.shape:
        raise InputError(
            "images", expected=f"sides {tuple(stats.weight.shape)}, as the weight", found=tuple(images.shape),
            todo="Resize the images or fit again.",
        )  # fmt: skip
    out = [_like(match_colours(_unit(chunk), stats, method), chunk) for chunk in images.split(CHUNK)]
    return torch.cat(out) if out else images.clone()


def _unit(images: Tensor) -> Tensor:
    """uint8 or float in 0..1 to float in 0..1."""
    return images if images.is_floating_point() else images.float() / 255


def _like(images: Tensor, other: Tensor) -> Tensor:
    """Float images clipped to 0..1, and rounded to uint8 if `other` is uint8."""
    images = images.clamp(0, 1)
    return images if other.is_floating_point() else (images * 255).round().to(torch.uint8)


# ------------------------------------------------------------------------------------------------------------ CycleGAN


class _Training:
    """All that a CycleGAN's training carries from epoch to epoch."""

    def __init__(self, config: CycleGanConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        start = _generator(config.seed, "weights")
        self.networks = nn.ModuleDict(
            {
                "to_satellite": initialise(ResnetGenerator(config), start),
                "to_top": initialise(ResnetGenerator(config), start),
                "judge_satellite": initialise(PatchDiscriminator(config), start),
                "judge_top": initialise(PatchDiscriminator(config), start),
            }
        ).to(device)
        self.generators = [self.networks["to_satellite"], self.networks["to_top"]]
        self.judges = [self.networks["judge_satellite"], self.networks["judge_top"]]
        self.optimisers = {
            name: torch.optim.Adam(
                [p for network in group for p in network.parameters()], lr=config.lr, betas=(config.beta1, 0.999)
            )
            for name, group in (("generators", self.generators), ("judges", self.judges))
        }
        self.pools = {"satellite": ImagePool(config.pool), "top": ImagePool(config.pool)}
        self.epoch = 0  # finished ones
        self.rows: list[dict[str, float]] = []  # of metrics.jsonl

    def step(self, top: Tensor, satellite: Tensor, draws: Generator) -> Tensor:
        """One step on batches (B, 3, H, W) in -1..1; the losses named in LOSSES, detached, (5,)."""
        config, count = self.config, len(top)
        to_satellite, to_top = self.generators
        judge_satellite, judge_top = self.judges
        for judge in self.judges:
            judge.requires_grad_(False)
        with self._autocast():
            # batches are joined to call each generator as seldom as can be: instance norm keeps images apart
            if config.lambda_identity:
                fake_satellite, same_satellite = to_satellite(torch.cat([top, satellite])).split(count)
                fake_top, same_top, top_again = to_top(torch.cat([satellite, top, fake_satellite])).split(count)
                identity = identity_loss(satellite, same_satellite) + identity_loss(top, same_top)
            else:
                fake_satellite = to_satellite(top)
                fake_top, top_again = to_top(torch.cat([satellite, fake_satellite])).split(count)
                identity = top.new_zeros(())
            cycle = cycle_loss(top, top_again) + cycle_loss(satellite, to_satellite(fake_top))
            fooled = [
                adversarial_loss(judge_satellite(fake_satellite), True),
                adversarial_loss(judge_top(fake_top), True),
            ]
            loss = generator_loss(fooled[0] + fooled[1], cycle, identity, config)
        _descend(loss, self.optimisers["generators"])

        for judge in self.judges:
            judge.requires_grad_(True)
        with self._autocast():
            judged = []
            for judge, real, fake, pool in (
                (judge_satellite, satellite, fake_satellite, self.pools["satellite"]),
                (judge_top, top, fake_top, self.pools["top"]),
            ):
                shown = pool.exchange(fake.detach().float(), draws)
                judged.append(discriminator_loss(*judge(torch.cat([real, shown])).split(count)))
        _descend(judged[0] + judged[1], self.optimisers["judges"])
        return torch.stack([fooled[0] + fooled[1], cycle, identity, *judged]).detach().float()

    def _autocast(self) -> torch.autocast:
        dtype = PRECISIONS[self.config.precision]
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=dtype != torch.float32)

    def tensors(self) -> dict[str, Tensor]:
        """Everything but the plain numbers, by name."""
        out = {f"networks.{name}": value for name, value in self.networks.state_dict().items()}
        for name, optimiser in self.optimisers.items():
            for index, state in optimiser.state_dict()["state"].items():
                out |= {f"optimisers.{name}.{index}.{key}": value for key, value in state.items()}
        out |= {f"pools.{name}": pool.images for name, pool in self.pools.items() if pool.images is not None}
        return {name: value.detach().cpu().contiguous() for name, value in out.items()}

    def restore(self, tensors: dict[str, Tensor], epoch: int, rows: list[dict[str, float]]) -> None:
        """Take up where `tensors` was saved."""
        parts: dict[str, dict[str, Tensor]] = {"networks": {}, "optimisers": {}, "pools": {}}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            parts[kind][rest] = value
        self.networks.load_state_dict(parts["networks"])
        for name, optimiser in self.optimisers.items():
            state = optimiser.state_dict()
            state["state"] = {}
            for key, value in parts["optimisers"].items():
                owner, index, field = key.split(".")
                if owner == name:
                    state["state"].setdefault(int(index), {})[field] = value
            optimiser.load_state_dict(state)
        for name, pool in self.pools.items():
            images = parts["pools"].get(name)
            pool.images = None if images is None else images.to(self.device)
        self.epoch, self.rows = epoch, rows


LOSSES = ("adversarial", "cycle", "identity", "judge_satellite", "judge_top")  # of metrics.jsonl, unweighted
CHECK_EVERY = 50  # steps between looks at the losses, which make a GPU wait


def train_cyclegan(
    top_views: Tensor,
    satellites: Tensor,
    config: CycleGanConfig,
    folder: Path,
    *,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> nn.Module:
    """Train a CycleGAN on two unpaired sets and give its generator from top views to satellite images, in eval mode.

    After each epoch `folder` has checkpoint.safetensors (networks, optimisers, pools) and metrics.jsonl (a row an
    epoch). A run that was stopped goes on from there, on a CPU bit for bit as if it had not been. At the end the
    checkpoint gives way to generator.safetensors and generator_back.safetensors; a finished folder is loaded.

    Args:
        top_views: uint8 (N, 3, S, S), N at least 2; may be memory-mapped, only batches are copied.
        satellites: uint8 (M, 3, S, S), M at least 2; M need not be N: an epoch passes over the larger set. A
            discriminator that knows one real image only teaches to draw that image; use `fit_statistics` there.
        config: sizes, weights and schedule.
        folder: where the state is kept; made if it does not exist.
        device: where to train; the random draws are the CPU's for every device.
        progress: show a bar with the time left.

    Raises:
        InputError: images that do not fit, a folder with another configuration or other images, or a loss that is no
            longer finite, naming epoch and step; the last good checkpoint is kept.
    """
    _check_pair(top_views, satellites, least=2)
    for where, images in (("top_views", top_views), ("satellites", satellites)):
        if images.dtype != torch.uint8:
            raise InputError(where, expected="uint8", found=images.dtype, todo="Multiply by 255 and round.")
    device, folder = torch.device(device), Path(folder)
    identity = {"config": asdict(config), "data": _fingerprint(top_views, satellites)}
    if (folder / "generator.safetensors").exists():
        _check_same(folder / "generator.safetensors", identity)
        return load_generator(folder / "generator.safetensors", config).to(device)
    training = _Training(config, device)
    checkpoint = folder / "checkpoint.safetensors"
    if checkpoint.exists():
        state = _check_same(checkpoint, identity)
        training.restore(checkpoints.read(checkpoint)[1], state["epoch"], state["rows"])
    folder.mkdir(parents=True, exist_ok=True)

    steps = config.steps_per_epoch or max(1, max(len(top_views), len(satellites)) // config.batch)
    with tqdm(
        total=config.total_epochs * steps, initial=training.epoch * steps, desc="CycleGAN", unit="step",
        disable=not progress,
    ) as bar:  # fmt: skip
        for epoch in range(training.epoch, config.total_epochs):
            began = time.perf_counter()
            losses = _epoch(training, top_views, satellites, epoch, steps, bar)
            row = {"epoch": epoch + 1, "lr": config.lr * lr_factor(epoch, config.epochs, config.decay_epochs)}
            row |= dict(zip(LOSSES, losses.tolist(), strict=True))
            training.epoch = epoch + 1
            training.rows.append(row | {"seconds": round(time.perf_counter() - began, 2)})
            checkpoints.write(
                checkpoint, training.tensors(), identity | {"epoch": training.epoch, "rows": training.rows}
            )
            write_text(folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in training.rows))
    # the one that marks the folder as finished comes last
    for name, network in (("generator_back", training.generators[1]), ("generator", training.generators[0])):
        weights = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
        checkpoints.write(folder / f"{name}.safetensors", weights, identity | {"epoch": training.epoch})
    checkpoint.unlink(missing_ok=True)
    return training.generators[0].eval().requires_grad_(False)


def _epoch(training: _Training, top_views: Tensor, satellites: Tensor, epoch: int, steps: int, bar: tqdm) -> Tensor:
    """One epoch of `steps` steps; the mean of each loss (5,)."""
    config = training.config
    for optimiser in training.optimisers.values():
        for group in optimiser.param_groups:
            group["lr"] = config.lr * lr_factor(epoch, config.epochs, config.decay_epochs)
    draws = _generator(config.seed, "order", epoch)
    orders = [_order(len(images), steps * config.batch, draws) for images in (top_views, satellites)]
    losses: list[Tensor] = []
    for step in range(steps):
        draws = _generator(config.seed, "step", epoch, step)
        rows = slice(step * config.batch, (step + 1) * config.batch)
        top, satellite = (
            vary(images[order[rows]].to(training.device), config, draws)
            for images, order in zip((top_views, satellites), orders, strict=True)
        )
        losses.append(training.step(top, satellite, draws))
        bar.update()
        if (step + 1) % CHECK_EVERY == 0 or step + 1 == steps:
            recent = torch.stack(losses[-(step % CHECK_EVERY + 1) :]).cpu()
            bad = (~recent.isfinite()).any(1).nonzero()[:, 0]
            if len(bad):
                first = step + 1 - len(recent) + int(bad[0])
                found = ", ".join(f"{n} {v:g}" for n, v in zip(LOSSES, recent[bad[0]].tolist(), strict=True))
                raise InputError(
                    f"CycleGAN, epoch {epoch + 1}, step {first + 1}", expected="finite losses", found=found,
                    todo="Lower lr; the checkpoint of the last whole epoch, if there is one, is kept.",
                )  # fmt: skip
            bar.set_postfix(zip(("cycle", "adversarial"), (f"{v:.3f}" for v in recent.mean(0)[[1, 0]]), strict=True))
    return torch.stack(losses).cpu().mean(0)


def _descend(loss: Tensor, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def vary(images: Tensor, config: CycleGanConfig, draws: Generator) -> Tensor:
    """Resize to load_px, crop, flip and turn, each image by itself: uint8 (B, 3, S, S) to float (B, 3, crop, crop) in -1..1.

    Args:
        images: square, on any device.
        config: load_px, crop_px, flip and turn.
        draws: on the CPU.
    """
    count, room = len(images), config.load_px - config.crop_px
    corners = torch.randint(room + 1, (count, 2), generator=draws).tolist()
    flips = (torch.rand(count, generator=draws) < 0.5).tolist()
    quarters = torch.randint(4, (count,), generator=draws).tolist()
    values = images.float() / 127.5 - 1
    if images.shape[-1] != config.load_px:
        values = F.interpolate(values, (config.load_px, config.load_px), mode="bilinear", antialias=True)
    out = []
    for image, (row, column), flip, quarter in zip(values, corners, flips, quarters, strict=True):
        part = image[:, row : row + config.crop_px, column : column + config.crop_px]
        part = part.flip(2) if config.flip and flip else part
        out.append(torch.rot90(part, quarter, dims=(1, 2)) if config.turn else part)
    return torch.stack(out)


def _generator(seed: int, *names: str | int) -> Generator:
    """A generator on the CPU for one purpose, so that no draw depends on those before it."""
    digest = hashlib.sha256(json.dumps([seed, *names]).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _order(count: int, wanted: int, draws: Generator) -> Tensor:
    """`wanted` indices below `count`: whole permutations, one after the other."""
    return torch.cat([torch.randperm(count, generator=draws) for _ in range(math.ceil(wanted / count))])[:wanted]


def translate(generator: nn.Module, images: Tensor, batch: int = 64) -> Tensor:
    """Fake satellite images of top views: uint8 (B, 3, H, W) to the same, on the images' device.

    Args:
        generator: from `train_cyclegan` or `load_generator`; it stays in the mode it was in.
        images: uint8; sides multiples of the generator's `stride`.
        batch: images at a time.

    Raises:
        InputError: images that are not uint8, or of sides that do not fit.
    """
    _check_images("images", images)
    if images.dtype != torch.uint8:
        raise InputError("images", expected="uint8", found=images.dtype, todo="Multiply by 255 and round.")
    device = next(generator.parameters()).device
    out = torch.empty_like(images)
    training = generator.training
    generator.eval()
    with torch.no_grad():
        for first in range(0, len(images), batch):
            rows = slice(first, first + batch)
            fake = generator(images[rows].to(device).float() / 127.5 - 1)
            out[rows] = ((fake.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).to(out.device)
    generator.train(training)
    return out


def load_generator(path: Path, config: CycleGanConfig) -> nn.Module:
    """A trained generator, on the CPU, in eval mode.

    Args:
        path: generator.safetensors or generator_back.safetensors of a finished training.
        config: of which channels, blocks, downsamplings, patch and residual must be those it was trained with.

    Raises:
        InputError: no such file, one that is not whole or not ours, or one of another architecture.
    """
    metadata, tensors = checkpoints.read(Path(path))
    for name in ARCHITECTURE:
        found = metadata["config"].get(name)
        if found != getattr(config, name):
            raise InputError(
                f"{path}: {name}", expected=repr(getattr(config, name)), found=repr(found),
                todo="Load it with the configuration it was trained with.",
            )  # fmt: skip
    network = ResnetGenerator(config)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(
            path, expected="a generator's weights", found=str(error).splitlines()[0], todo="Name generator.safetensors."
        ) from error
    return network.eval().requires_grad_(False)


# --------------------------------------------------------------------------------------------------- files and checks


def _check_same(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """The plain values of a checkpoint that was written with the same configuration and images."""
    metadata = checkpoints.read(path)[0]
    changed = [name for name, value in identity["config"].items() if metadata["config"].get(name, value) != value]
    if changed or metadata["config"].keys() != identity["config"].keys():
        raise InputError(
            path, expected="the configuration it was begun with", found=f"another {', '.join(changed) or 'set of fields'}",
            todo="Choose another folder, or delete this one.",
        )  # fmt: skip
    if metadata["data"] != identity["data"]:
        raise InputError(
            path, expected="the images it was begun with", found="others", todo="Choose another folder, or delete this one."
        )  # fmt: skip
    return metadata


def _fingerprint(*sets: Tensor) -> str:
    """Names two sets of images by their sizes and up to 256 images of each, so that large ones are not read whole."""
    digest = hashlib.sha256()
    for images in sets:
        some = images[:: max(1, len(images) // 256)][:256]
        digest.update(str(tuple(images.shape)).encode())
        digest.update(some.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _check_images(where: str, images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3:
        raise InputError(where, expected="(B, 3, H, W)", found=tuple(images.shape), todo="Give colour images.")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise InputError(where, expected="uint8, or float in 0..1", found=images.dtype, todo="Convert the images.")


def _check_pair(top_views: Tensor, satellites: Tensor, least: int = 1) -> int:
    """The side of the images of both sets."""
    for where, images in (("top_views", top_views), ("satellites", satellites)):
        _check_images(where, images)
        if images.shape[2] != images.shape[3]:
            raise InputError(where, expected="squares", found=tuple(images.shape), todo="Crop or resize them.")
        if len(images) < least:
            raise InputError(
                where, expected=f"at least {least} images", found=len(images),
                todo="Give more images; fit_statistics works with one.",
            )  # fmt: skip
    if top_views.shape[2:] != satellites.shape[2:]:
        raise InputError(
            "satellites", expected=f"{top_views.shape[2]} px a side, as the top views", found=f"{satellites.shape[2]} px",
            todo="Resize one of the sets.",
        )  # fmt: skip
    return top_views.shape[2]
