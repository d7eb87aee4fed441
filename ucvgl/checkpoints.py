"""Tensors under flat names, and a JSON header, in one safetensors file: for encoders, and for trainings to resume.
A kill at any moment leaves the last good one. Nothing is pickled."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ucvgl.errors import InputError
from ucvgl.paths import written_whole

TRAINING = "ucvgl_training"  # where a training's header stands in the file's metadata
ANEW = "or delete the folder to begin anew."

Tensors = dict[str, Tensor]


def write(path: Path, tensors: Tensors, header: dict[str, Any], kind: str = TRAINING) -> None:
    """Writes tensors and a header atomically; `kind` is what the file holds."""
    # contiguous copies: safetensors refuses channels-last tensors, and views of one storage
    copies = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with written_whole(path) as partial:
        save_file(copies, partial, {"format": "pt", kind: json.dumps(header)})


def read(
    path: Path, kind: str = TRAINING, *, expected: str = "a whole file of a training", todo: str = f"Restore it, {ANEW}"
) -> tuple[dict[str, Any], Tensors]:
    """The header and the tensors; InputError, of what was expected, if the file is absent, damaged or of another kind."""
    try:
        with safe_open(path, "pt") as file:
            return json.loads(file.metadata()[kind]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        found = f"{type(error).__name__}: {error}" if path.exists() else "no such file"
        raise InputError(path, expected=expected, found=found, todo=todo) from error


def check_settings(path: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """InputError that names each setting in which a training differs from the one whose file this is."""
    differing = [key for key in sorted(now.keys() | then) if now.get(key) != then.get(key)]
    if differing:
        old, new = (", ".join(f"{key}={settings.get(key)!r}" for key in differing) for settings in (then, now))
        raise InputError(path, f"the settings it began with: {old}", found=new, todo=f"Restore them, {ANEW}")


def weights_of(model: nn.Module) -> Tensors:
    """The state dict, with what several modules share under its first name alone."""
    first: dict[int, str] = {}
    kept = model.state_dict(keep_vars=True)  # the parameters themselves, so that one shared is one object
    return {name: value.detach() for name, value in kept.items() if first.setdefault(id(value), name) == name}


@torch.no_grad()
def fill(path: str | Path, own: Tensors, weights: Tensors, todo: str = f"Restore the former model, {ANEW}") -> None:
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


def prefixed(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    """The values under `prefix`, to put several dictionaries into one."""
    return {prefix + name: value for name, value in values.items()}


def without(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    """The values that stand under `prefix`, under their own names again."""
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
