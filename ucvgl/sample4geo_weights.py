"""The checkpoints that the authors of Sample4Geo published (ICCV 2023), as a `TwoViewEncoder` and as safetensors.

Theirs, of all four data sets, are state dicts: a timm ConvNeXt-Base without classifier under the prefix 'model.', one
for both views, and 'logit_scale', the logarithm of the similarities' factor. They are pickle streams, read by torch's
restricted unpickler, which makes tensors and runs nothing else.
"""

import warnings
from pathlib import Path

import torch
from torch import Tensor

from ucvgl.checkpoints import fill
from ucvgl.encoders import EncoderConfig, TwoViewEncoder, save_model, two_view_encoder
from ucvgl.errors import InputError

BACKBONE = "convnext_base.fb_in22k_ft_in1k_384"  # of every published checkpoint


def convert_sample4geo(
    path: str | Path, target: str | Path, ground_px: tuple[int, int], satellite_px: tuple[int, int]
) -> TwoViewEncoder:
    """Write a published checkpoint as a .safetensors file, which `ucvgl.encoders.open_model` opens, and return the model.

    Names may begin with 'module.', as torch.nn.DataParallel writes them. The settings record (height, width): of
    CVUSA's and CVACT's ground images (140, 768), VIGOR's (384, 768), all others (384, 384). InputError: a target of
    another suffix; no checkpoint, or one with pickled code, of another network, or with NaN.
    """
    if (suffix := Path(target).suffix) != ".safetensors":
        todo = "Name the file to write, not the one to read."
        raise InputError(target, "a file name ending in .safetensors", found=suffix or "none", todo=todo)
    state = _read(Path(path))
    configs = [EncoderConfig(BACKBONE, pooling="head", image_px=size_px) for size_px in (ground_px, satellite_px)]
    model = two_view_encoder(*configs, shared=True, seed=0)
    own = {f"model.{name}": tensor for name, tensor in model.ground.backbone.state_dict().items()}
    own["logit_scale"] = model.log_scale
    fill(Path(path), own, state, "Give a checkpoint as the authors published it, as it was downloaded and unpacked.")
    save_model(model, Path(target))
    return model


def _read(path: Path) -> dict[str, Tensor]:
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
    if wrong := [str(name) for name, value in state.items() if not torch.isfinite(value).all()]:
        found = f"NaN or infinity in {len(wrong)} tensors, first {wrong[0]}"
        raise InputError(path, expected="finite weights", found=found, todo="Take another: it diverged or is damaged.")
    return {str(name).removeprefix("module."): value for name, value in state.items()}
