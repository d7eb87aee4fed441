"""The parts of a CycleGAN: settings, networks, losses, image pool and learning rate; `ucvgl.translation` trains them.

Zhu, Park, Isola, Efros: Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks, ICCV 2017
(sections 3, 4 and 7); UCVGL (section 3.2) turns top views into fake satellite images with it.
Differences: upsampling resizes and convolves instead of a transposed convolution, whose 3 x 3 kernel at stride 2 covers
pixels unevenly and prints a checkerboard that an encoder would learn from. `patch` and `residual` are ours, and off by
default; they make 64-px images trainable without a GPU.
"""

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ucvgl.errors import InputError

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
