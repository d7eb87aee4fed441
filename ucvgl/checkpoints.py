"""What a training leaves in its folder: tensors under flat names and a JSON header in one safetensors file.

A file is written under another name and renamed when whole, so that a kill at any moment leaves the last good one.
Nothing is pickled.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ucvgl.errors import InputError

FORMAT = 1
KEY = "ucvgl_training"  # of the header in the file's metadata
ANEW = "or delete the folder to begin anew."

Tensors = dict[str, Tensor]


def write(path: Path, tensors: Tensors, header: dict[str, Any]) -> None:
    """Writes both atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    copies = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    save_file(copies, partial, {KEY: json.dumps({"format": FORMAT, **header})})
    partial.replace(path)


def read(path: Path) -> tuple[dict[str, Any], Tensors]:
    """The header and the tensors; InputError if the file is damaged, of another kind or of another format."""
    try:
        with safe_open(path, "pt") as file:
            header = json.loads(file.metadata()[KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(path, expected="a whole file of a training", found=error, todo=f"Restore it, {ANEW}") from None
    if header["format"] != FORMAT:
        raise InputError(path, expected=f"format {FORMAT}", found=header["format"], todo=f"Update ucvgl, {ANEW}")
    return header, tensors


def check_settings(path: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """InputError that names each setting in which a training differs from the one whose file this is."""
    differing = [key for key in sorted(now.keys() | then) if now.get(key) != then.get(key)]
    if differing:
        old, new = (", ".join(f"{key}={settings.get(key)!r}" for key in differing) for settings in (then, now))
        todo = "Restore them, or delete the folder to begin anew."
        raise InputError(path, expected=f"the settings it began with: {old}", found=new, todo=todo)


def weights_of(model: nn.Module) -> Tensors:
    """The state dict, with what several modules share under its first name alone."""
    first: dict[int, str] = {}
    kept = model.state_dict(keep_vars=True)  # the parameters themselves, so that one shared is one object
    return {name: value.detach() for name, value in kept.items() if first.setdefault(id(value), name) == name}


def load_weights(path: Path, model: nn.Module, weights: Tensors) -> None:
    """Copies weights into the model where it is; InputError names the first that is missing, new or of another shape."""
    own = weights_of(model)
    for name in sorted(own.keys() | weights):
        then, now = (tuple(tensors[name].shape) if name in tensors else "nothing" for tensors in (weights, own))
        if then != now:
            expected = f"the model it began with: {name} {then}"
            raise InputError(path, expected=expected, found=now, todo=f"Restore it, {ANEW}")
    for name, value in own.items():
        value.copy_(weights[name])


def optimiser_state(optimiser: torch.optim.Optimizer) -> Tensors:
    """The optimiser's tensors as '<number of the parameter>.<name>'."""
    state = optimiser.state_dict()["state"]
    return {f"{number}.{key}": value for number, kept in state.items() for key, value in kept.items()}


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Gives back what `optimiser_state` took; the optimiser must have the same parameters in the same order."""
    state: dict[int, Tensors] = {}
    for name, value in tensors.items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    """The tensors under `prefix`, to put several dictionaries into one."""
    return {prefix + name: value for name, value in tensors.items()}


def without(prefix: str, tensors: Tensors) -> Tensors:
    """The tensors that stand under `prefix`, under their own names again."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
