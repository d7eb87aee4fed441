"""The checkpoints that the authors of Sample4Geo published (ICCV 2023), as a `TwoViewEncoder`, and as safetensors.

Theirs are state dicts written by torch.save: a timm ConvNeXt-Base without classifier under the prefix 'model.', one for
both views, and the scalar 'logit_scale', whose exponential multiplies the similarities. Those of CVUSA, CVACT, VIGOR and
University-1652 have the same form. They are pickle streams, so they are read by torch's restricted unpickler
(weights_only=True), which makes tensors and containers and runs nothing else; `convert_sample4geo` leaves that behind.
"""

import pickle
import re
import warnings
from pathlib import Path

import torch
from torch import Tensor

from ucvgl.encoders import EncoderConfig, TwoViewEncoder, check_tensors, fill_tensors, save_model, two_view_encoder
from ucvgl.errors import InputError

BACKBONE = "convnext_base.fb_in22k_ft_in1k_384"  # of every published checkpoint
_FORM = "a state dict with a timm backbone under 'model.' and 'logit_scale'"
_TODO = "Give a checkpoint as the authors of Sample4Geo published it, as it was downloaded and unpacked."


def load_sample4geo(
    path: str | Path,
    ground_px: tuple[int, int],
    satellite_px: tuple[int, int] = (384, 384),
    *,
    backbone: str = BACKBONE,
) -> TwoViewEncoder:
    """Build the model that a published checkpoint holds, with shared weights and its learned scale, on the CPU.

    Names that all begin with 'module.', as torch.nn.DataParallel writes them, are taken as well.

    Args:
        path: the file, as published (.pth).
        ground_px: (height, width) of the ground images: CVUSA and CVACT (140, 768), VIGOR (384, 768), University-1652
            (384, 384), here of its drone images. The weights fit any size; the settings record it.
        satellite_px: (height, width) of the satellite images; (384, 384) in every data set.
        backbone: the timm name of the network inside; the papers' is the default.

    Raises:
        InputError: no such file, not a checkpoint, one with pickled code, of another form or another network, or with NaN.
    """
    path = Path(path)
    state = _state_of(path)
    ground, satellite = (
        EncoderConfig(backbone, pooling="head", image_px=size_px) for size_px in (ground_px, satellite_px)
    )
    model = two_view_encoder(ground, satellite, shared=True, seed=0)
    own = {f"model.{name}": tensor for name, tensor in model.ground.backbone.state_dict().items()}
    own["logit_scale"] = model.log_scale
    check_tensors(path, own, state, f"Give a checkpoint of {backbone}, or name the network it holds as `backbone`.")
    fill_tensors(own, state)
    return model


def convert_sample4geo(
    path: str | Path,
    target: str | Path,
    ground_px: tuple[int, int],
    satellite_px: tuple[int, int] = (384, 384),
    *,
    backbone: str = BACKBONE,
) -> TwoViewEncoder:
    """Write a published checkpoint as safetensors, which `ucvgl.encoders.open_model` opens, and return the model.

    Args: as `load_sample4geo`, and
        target: the .safetensors file to write, atomically.

    Raises:
        InputError: as `load_sample4geo`; a target of another suffix.
    """
    target = Path(target)
    if target.suffix != ".safetensors":
        raise InputError(
            target, expected="a file name ending in .safetensors", found=target.suffix or "no suffix",
            todo="Name the file to write, not the one to read.",
        )  # fmt: skip
    model = load_sample4geo(path, ground_px, satellite_px, backbone=backbone)
    save_model(model, target)
    return model


def _state_of(path: Path) -> dict[str, Tensor]:
    """The tensors of a file in the published form, by name, without 'module.'; checked as far as no network is needed."""
    state = _unpickled(path)
    if not (isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())):
        found = type(state).__name__
        if isinstance(state, dict):
            others = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
            found = f"a dict with other things than tensors: {', '.join(others[:3])}"
        raise InputError(
            path, expected=_FORM, found=found,
            todo="Give the weights alone, without optimiser and epoch: what model.state_dict() returns.",
        )  # fmt: skip
    state = {str(name): value for name, value in state.items()}
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    if not any(name.startswith("model.") for name in state):
        names = ", ".join(list(state)[:3]) or "an empty one"
        raise InputError(path, expected=_FORM, found=f"{len(state)} tensors without that prefix: {names}", todo=_TODO)
    wrong = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if wrong:
        raise InputError(
            path, expected="finite weights", found=f"NaN or infinity in {len(wrong)} tensors, first {wrong[0]}",
            todo="The training diverged, or the file is damaged: take another.",
        )  # fmt: skip
    return state


def _unpickled(path: Path) -> object:
    """What torch.load gives without running anything of the file."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise InputError(path, expected="a checkpoint, as torch.save writes it", found=found, todo="Check the path.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says of strange files, the errors below say as well
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the bytes of a strange file lead to
        code = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if code:
            raise InputError(
                path, expected=f"tensors alone, {_FORM}", found=f"pickled code or objects ({code[1]}), which were not run",
                todo="Do not load it in another way unless you trust whoever made it: that could run anything. " + _TODO,
            ) from error  # fmt: skip
        reason = (str(error).strip() or "no reason given").splitlines()[0].rstrip(".")
        if isinstance(error, pickle.UnpicklingError):
            reason = "torch's restricted unpickler refuses it"  # its own text advises to read the file without care
        raise InputError(
            path,
            expected="a checkpoint, as torch.save writes it",
            found=f"{type(error).__name__}: {reason}",
            todo=_TODO,
        ) from error
