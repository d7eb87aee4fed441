"""Step 2 of UCVGL (section 3.2, 'image projection'): top views to fake satellite images, learned from two unpaired sets.

Two ways: colour statistics (ours: a linear map of the colours, seconds), and the paper's CycleGAN (Zhu, Park, Isola,
Efros; ICCV 2017, sections 3, 4 and 7). Differs from its paper: upsampling resizes and convolves, since a transposed
convolution of 3 x 3 at stride 2 prints a checkerboard that an encoder would learn from; quarter turns as augmentation;
several images a step; `patch` and `residual`, off by default, which make 64-px images trainable without a GPU."""

import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from tqdm.auto import tqdm

from ucvgl import checkpoints
from ucvgl.augment import to_float, turn_squares
from ucvgl.errors import InputError, check_fields

CHUNK = 64  # images whose colours are taken at a time
LOSSES = ("adversarial", "cycle", "identity", "discriminator_satellite", "discriminator_top")  # unweighted, as recorded


def centre_weight(size_px: int, spread: float = 0.45) -> Tensor:
    """A Gaussian weight (size_px, size_px) for the middle of a top view, where the ground is not smeared; spread in half sides."""
    steps = (torch.arange(size_px) + 0.5) * (2 / size_px) - 1
    return torch.exp(-(steps[:, None].square() + steps[None].square()) / (2 * spread**2))


def fit_statistics(top_views: Tensor, satellites: Tensor, *, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The linear map that gives top views the satellite images' mean and covariance of colours, and changes them least.

    Monge-Kantorovich (Pitie and Kokaram, 2007). From uint8 (N, 3, S, S) and (M, 3, S, S) of any places, and the
    `weight` (S, S), 0 or more, of each pixel in both: a float64 matrix (3, 3) and offset (3,), for colours in 0..1. A
    direction in which the top views do not vary is not stretched."""
    weight = torch.ones(top_views.shape[2:]) if weight is None else weight.cpu()
    weight = weight.flatten().double() / weight.double().sum()  # (S * S,)
    (source_mean, source), (target_mean, target) = (_colours(images, weight) for images in (top_views, satellites))
    root, inverse = _power(source, 0.5), _power(source, -0.5)
    matrix = inverse @ _power(root @ target @ root, 0.5) @ inverse
    return matrix, target_mean - matrix @ source_mean


def _colours(images: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (3,) and covariance (3, 3) of all pixels' colours, float64 on the CPU."""
    means, covariances = [], []
    for chunk in images.split(CHUNK):
        pixels = to_float(chunk.cpu()).double().flatten(2)  # (b, 3, S * S)
        means.append(pixels @ weight)
        centred = pixels - means[-1][..., None]
        covariances.append((centred * weight) @ centred.mT)
    centres = torch.cat(means)  # (B, 3); the law of total covariance: around the images' own means, plus of those means
    return centres.mean(0), torch.cat(covariances).mean(0) + torch.cov(centres.T, correction=0)


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """A power of a symmetric matrix that has no negative eigenvalues; zero ones stay zero."""
    values, vectors = torch.linalg.eigh(matrix)
    positive = values > max(1e-14, 1e-10 * float(values.max()))
    powers = torch.where(positive, values.masked_fill(~positive, 1.0) ** exponent, 0.0)
    return (vectors * powers) @ vectors.T


def apply_statistics(images: Tensor, statistics: tuple[Tensor, Tensor]) -> Tensor:
    """Top views (B, 3, H, W), uint8, in the colours of `fit_statistics`, clipped; uint8 on the same device."""
    out = torch.empty_like(images)
    matrix, offset = (value.to(images.device, torch.float32) for value in statistics)
    for chunk, result in zip(images.split(CHUNK), out.split(CHUNK), strict=True):
        colours = matrix @ to_float(chunk).flatten(2) + offset[:, None]
        result.copy_((colours.view_as(chunk).clamp(0, 1) * 255).round())
    return out


@dataclass(frozen=True)
class CycleGanConfig:
    """Settings of a CycleGAN; the defaults are UCVGL's where it names one, else Zhu et al.'s. InputError if out of range."""

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
        least = {"batch": 1, "epochs": 1, "decay_epochs": 0, "pool": 0}
        # reflection needs one pixel more than it pads; the discriminators must have at least one output
        smallest = max(2 * self.stride, 4 * self.patch, 3 << self.discriminator_layers)
        fits = self.crop_px % self.stride == 0 and smallest <= self.crop_px <= self.load_px
        sizes = f"a multiple of {self.stride} (patch * 2**downsamplings), {smallest} to load_px, {self.load_px}"
        check_fields(
            self, "CycleGanConfig.", "Choose another value.",
            *((name, getattr(self, name) >= n, f"at least {n}") for name, n in least.items()),
            ("lr", 0 < self.lr < 1, "above 0 and below 1"), ("crop_px", fits, sizes),
            ("precision", self.precision in ("fp32", "bf16"), "fp32 or bf16"),
        )  # fmt: skip

    @property
    def stride(self) -> int:
        """The sides of images must be divisible by this: pixels a cell of the innermost layers."""
        return self.patch << self.downsamplings


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions added to their input; (B, C, H, W) stays (B, C, H, W). Zhu et al., section 7.2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = (_conv(channels, channels, 3) for _ in range(2))
        self.body = nn.Sequential(first, _norm(channels), nn.ReLU(inplace=True), second, _norm(channels))

    def forward(self, images: Tensor) -> Tensor:
        """Add the body's output to the input."""
        return images + self.body(images)


class ResnetGenerator(nn.Module):
    """Translates images (B, 3, H, W) in -1..1 into the same shape and range. Zhu et al., section 7.2."""

    def __init__(self, config: CycleGanConfig) -> None:
        super().__init__()
        width, folded = config.channels, 3 * config.patch**2
        self.patch, self.residual, self.stride = config.patch, config.residual, config.stride
        kernel = 7 if config.patch == 1 else 3  # the paper's 7 px; a cell of a patch is wide enough with 3
        layers: list[nn.Module] = [_conv(folded, width, kernel), _norm(width), nn.ReLU(inplace=True)]
        for _ in range(config.downsamplings):
            width *= 2
            layers += [nn.Conv2d(width // 2, width, 3, stride=2, padding=1), _norm(width), nn.ReLU(inplace=True)]
        layers += [ResidualBlock(width) for _ in range(config.blocks)]
        for _ in range(config.downsamplings):
            width //= 2
            layers += [nn.Upsample(scale_factor=2), _conv(2 * width, width, 3), _norm(width), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers, _conv(width, folded, kernel))

    def forward(self, images: Tensor) -> Tensor:
        """H and W are multiples of the configuration's `stride`."""
        change = F.pixel_shuffle(self.body(F.pixel_unshuffle(images, self.patch)), self.patch)
        # 0.99, as atanh(1) is infinite: with no change, that much of the input
        return torch.tanh(change + torch.atanh(0.99 * images) if self.residual else change)


def patch_discriminator(config: CycleGanConfig) -> nn.Sequential:
    """Scores overlapping patches of images (B, 3, H, W) in -1..1: (B, 1, h, w), 1 real and 0 fake. Zhu et al., section 7.2."""
    width, last = config.discriminator_channels, config.discriminator_layers
    layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
    for layer in range(1, last + 1):
        before, width = width, min(2 * width, 8 * config.discriminator_channels)
        convolution = nn.Conv2d(before, width, 4, stride=2 if layer < last else 1, padding=1)
        layers += [convolution, _norm(width), nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(width, 1, 4, padding=1))


def _conv(inside: int, out: int, kernel: int) -> nn.Module:
    """A convolution that reflects the image at its border, so that no dark frame grows."""
    return nn.Conv2d(inside, out, kernel, padding=kernel // 2, padding_mode="reflect")


def _norm(channels: int) -> nn.Module:
    """Instance norm without learned parameters (Ulyanov et al., 2016), as the group norm that a CPU computes faster."""
    return nn.GroupNorm(channels, channels, affine=False)


def initialise(network: nn.Module, generator: Generator) -> nn.Module:
    """Weights from N(0, 0.02), biases 0 (Zhu et al., section 7.1), in place; from a generator on the CPU, as the network."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0, 0.02, generator=generator) if parameter.ndim > 1 else nn.init.zeros_(parameter)
    return network


def adversarial_loss(scores: Tensor, real: bool) -> Tensor:
    """Least squares: mean of (score - 1)^2 for what should pass as real, of score^2 for fakes. Zhu et al., section 4."""
    return (scores - 1).square().mean() if real else scores.square().mean()


class ImagePool:
    """Up to `size` earlier fakes, from which half of each batch shown to a discriminator is taken. Zhu et al., section 4."""

    def __init__(self, size: int) -> None:
        self.size, self.images = size, torch.empty(0)  # (up to size, 3, H, W)

    def exchange(self, fakes: Tensor, generator: Generator) -> Tensor:
        """Swap each of (B, 3, H, W) detached fakes with probability 0.5; until the pool is full, store it and hand it through."""
        if self.size == 0:
            return fakes
        new = fakes[: self.size - len(self.images)]
        if len(new):
            self.images = torch.cat([self.images.to(new), new])
        swap = torch.rand(len(fakes), generator=generator) < 0.5
        places = torch.randint(self.size, (len(fakes),), generator=generator).tolist()
        out = fakes.clone()
        for row in range(len(new), len(fakes)):
            if swap[row]:
                out[row] = self.images[places[row]]
                self.images[places[row]] = fakes[row]
        return out


class CycleGan(nn.Module):
    """Two generators, two discriminators with pools of earlier fakes, one optimiser: it passes over what has no gradient."""

    def __init__(self, config: CycleGanConfig, device: torch.device) -> None:
        super().__init__()
        self.config, self.device, draws = config, device, _draws(config.seed, "weights")
        self.to_satellite, self.to_top = (initialise(ResnetGenerator(config), draws) for _ in range(2))
        # of satellite images and of top views, as all that comes in pairs
        self.discriminators = nn.ModuleList(initialise(patch_discriminator(config), draws) for _ in range(2))
        self.pools = [ImagePool(config.pool), ImagePool(config.pool)]
        self.optimiser = torch.optim.Adam(self.to(device).parameters(), lr=config.lr, betas=(config.beta1, 0.999))

    def step(self, top: Tensor, satellite: Tensor, draws: Generator) -> Tensor:
        """One step on batches (B, 3, H, W) in -1..1; the losses named in LOSSES, detached, (5,)."""
        config, count = self.config, len(top)
        precision = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16")
        self.discriminators.requires_grad_(False)
        with precision:
            # batches are joined to call each generator as seldom as can be: instance norm keeps images apart
            if config.lambda_identity:
                fake_satellite, same_satellite = self.to_satellite(torch.cat([top, satellite])).split(count)
                fake_top, same_top, top_again = self.to_top(torch.cat([satellite, top, fake_satellite])).split(count)
                identity = F.l1_loss(same_satellite, satellite) + F.l1_loss(same_top, top)  # section 5.2
            else:
                fake_satellite = self.to_satellite(top)
                fake_top, top_again = self.to_top(torch.cat([satellite, fake_satellite])).split(count)
                identity = top.new_zeros(())
            cycle = F.l1_loss(top_again, top) + F.l1_loss(self.to_satellite(fake_top), satellite)  # equation 2
            scores = self.discriminators[0](fake_satellite), self.discriminators[1](fake_top)
            adversarial = adversarial_loss(scores[0], True) + adversarial_loss(scores[1], True)
            loss = adversarial + config.lambda_cycle * (cycle + config.lambda_identity * identity)  # equation 3
        self._learn(loss)
        self.discriminators.requires_grad_(True)
        losses, pairs = [], ((satellite, fake_satellite), (top, fake_top))
        for discriminator, pool, (real, fake) in zip(self.discriminators, self.pools, pairs, strict=True):
            shown = torch.cat([real, pool.exchange(fake.detach().float(), draws)])
            with precision:
                of_real, of_fake = discriminator(shown).split(count)
                # half the sum (section 7.1)
                losses.append((adversarial_loss(of_real, True) + adversarial_loss(of_fake, False)) / 2)
        self._learn(losses[0] + losses[1])
        return torch.stack([adversarial, cycle, identity, *losses]).detach().float()

    def _learn(self, loss: Tensor) -> None:
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def everything(self) -> dict[str, Tensor]:
        """All that the next step depends on: weights, the optimiser's moments and the pools."""
        weights = checkpoints.prefixed("weights.", self.state_dict())
        moments = checkpoints.prefixed("moments.", checkpoints.optimiser_state(self.optimiser))
        return weights | moments | {f"pool.{i}": p.images for i, p in enumerate(self.pools) if len(p.images)}

    def restore(self, saved: dict[str, Tensor]) -> None:
        """Take up where `everything` was saved."""
        self.load_state_dict(checkpoints.without("weights.", saved))
        checkpoints.load_optimiser(self.optimiser, checkpoints.without("moments.", saved))
        for i, images in checkpoints.without("pool.", saved).items():
            self.pools[int(i)].images = images.to(self.device)


def train_cyclegan(
    top_views: Tensor, satellites: Tensor, config: CycleGanConfig, folder: Path, device: torch.device
) -> nn.Module:
    """Train a CycleGAN on two unpaired sets and give its generator from top views to satellite images, in eval mode.

    The sets are uint8 (N, 3, S, S) and (M, 3, S, S). After each epoch `folder` has checkpoint.safetensors, from which a
    stopped run goes on (on a CPU bit for bit), at the end generator.safetensors, which is loaded if it is there. InputError
    for a folder with another configuration, or a loss that is no longer finite; the last checkpoint stays."""
    settings, rows, gan = asdict(config), [], CycleGan(config, device)
    checkpoint, finished = folder / "checkpoint.safetensors", folder / "generator.safetensors"
    if before := next((path for path in (finished, checkpoint) if path.exists()), None):
        header, saved = checkpoints.read(before)
        checkpoints.check_settings(before, header["config"], settings)
        if before == finished:
            gan.to_satellite.load_state_dict(saved)
            return gan.to_satellite.eval().requires_grad_(False)
        gan.restore(saved)
        rows = header["rows"]
    steps = config.steps_per_epoch or max(len(top_views), len(satellites)) // config.batch or 1
    epochs = config.epochs + config.decay_epochs
    for epoch in tqdm(range(len(rows), epochs), desc="CycleGAN", unit="epoch", initial=len(rows), total=epochs):
        began = time.perf_counter()
        # full at first, then linearly down, to 0 one epoch after the last (Zhu et al., 7.1)
        lr = config.lr * (1 - max(0, epoch + 1 - config.epochs) / (config.decay_epochs + 1))
        gan.optimiser.param_groups[0]["lr"] = lr
        draws, shown, orders, losses = _draws(config.seed, "order", epoch), steps * config.batch, [], []
        for count in (len(top_views), len(satellites)):  # whole permutations, one after the other
            order = torch.cat([torch.randperm(count, generator=draws) for _ in range(math.ceil(shown / count))])
            orders.append(order[:shown].view(steps, -1))
        for step, (some, others) in enumerate(zip(*orders, strict=True)):
            draws = _draws(config.seed, "step", epoch, step)
            top = augment(top_views[some].to(device), config, draws)
            losses.append(gan.step(top, augment(satellites[others].to(device), config, draws), draws))
        means = dict(zip(LOSSES, torch.stack(losses).cpu().mean(0).tolist(), strict=True))
        if not all(map(math.isfinite, means.values())):
            todo = "Lower lr; the checkpoint of the last whole epoch, if there is one, is kept."
            raise InputError(f"CycleGAN, epoch {epoch + 1}", expected="finite losses", found=means, todo=todo)
        rows.append({"epoch": epoch + 1, "lr": lr, **means, "seconds": round(time.perf_counter() - began, 2)})
        checkpoints.write(checkpoint, gan.everything(), {"config": settings, "rows": rows})
    checkpoints.write(finished, gan.to_satellite.state_dict(), {"config": settings, "rows": rows})
    checkpoint.unlink(missing_ok=True)
    return gan.to_satellite.eval().requires_grad_(False)


def augment(images: Tensor, config: CycleGanConfig, draws: Generator) -> Tensor:
    """Resize to load_px, crop, flip and turn, each image by itself: uint8 (B, 3, S, S) to float (B, 3, crop, crop) in -1..1."""
    count, size = len(images), config.crop_px
    corners = torch.randint(config.load_px - size + 1, (count, 2), generator=draws).tolist()
    flipped = torch.rand(count, generator=draws) < (0.5 if config.flip else 0.0)
    quarters = torch.randint(4, (count,), generator=draws) * config.turn
    values = images.float() / 127.5 - 1
    if images.shape[-1] != config.load_px:
        values = F.interpolate(values, (config.load_px, config.load_px), mode="bilinear", antialias=True)
    crops = torch.stack([image[:, y : y + size, x : x + size] for image, (y, x) in zip(values, corners, strict=True)])
    return turn_squares(torch.where(flipped.view(-1, 1, 1, 1).to(crops.device), crops.flip(3), crops), quarters)


def _draws(seed: int, *names: str | int) -> Generator:
    """A generator on the CPU for one purpose, so that no draw depends on those before it."""
    digest = hashlib.sha256(json.dumps([seed, *names]).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@torch.no_grad()
def translate(generator: nn.Module, images: Tensor, batch: int = 64) -> Tensor:
    """Fake satellite images of top views: uint8 (B, 3, H, W) to the same, on the images' device, `batch` at a time, by
    a generator of `train_cyclegan`; sides that are no multiples of its `stride` are reflected to one."""
    device, out = next(generator.parameters()).device, torch.empty_like(images)
    height, width = images.shape[2:]
    margin = 0, -width % generator.stride, 0, -height % generator.stride
    for chunk, result in zip(images.split(batch), out.split(batch), strict=True):
        fakes = generator(F.pad(chunk.to(device).float() / 127.5 - 1, margin, "reflect"))[..., :height, :width]
        result.copy_(((fakes.float() + 1) * 127.5).round().clamp(0, 255))
    return out
