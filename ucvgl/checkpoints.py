"""What a training leaves in its folder: tensors under flat names and a JSON header in one safetensors file.

A file is written under another name and renamed when whole, so that a kill at any moment leaves the last good one.
Nothing is pickled.
"""

import json
import os
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


def save(path: Path, tensors: Tensors, metadata: dict[str, str]) -> None:
    """Writes a safetensors file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    # contiguous copies: safetensors refuses channels-last tensors, and views of one storage
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, partial, metadata)
    partial.replace(path)


def load(path: Path) -> tuple[dict[str, str], Tensors]:
    """The metadata and the tensors of a safetensors file."""
    with safe_open(path, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping


def write(path: Path, tensors: Tensors, header: dict[str, Any]) -> None:
    """Writes a training's tensors and header."""
    save(path, tensors, {KEY: json.dumps({"format": FORMAT, **header})})


def read(path: Path) -> tuple[dict[str, Any], Tensors]:
    """The header and the tensors; InputError if the file is damaged, of another kind or of another format."""
    try:
        metadata, tensors = load(path)
        header = json.loads(metadata[KEY])
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
    """`fill` of the model that a training goes on with."""
    fill(path, weights_of(model), weights, f"Restore the model it began with, {ANEW}")


@torch.no_grad()
def fill(path: str | Path, own: Tensors, weights: Tensors, todo: str) -> None:
    """Copies a file's tensors into one's own of the same names, in place; InputError, and no change, if any differs."""
    ours, theirs = ({name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (own, weights))
    different = [name for name in ours | theirs if ours.get(name) != theirs.get(name)]
    if different:
        first = [f"{name} {theirs.get(name, 'missing')} instead of {ours.get(name, 'none')}" for name in different[:3]]
        found = f"{len(different)} differences: {', '.join(first)}{', ...' if len(different) > 3 else ''}"
        raise InputError(path, expected=f"the {len(own)} tensors of the model", found=found, todo=todo)
    for name, tensor in own.items():
        tensor.copy_(weights[name])


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
