"""Folders of arrays that are made once and mapped from disk after that: rendered worlds, images made ready for training."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ucvgl import paths
from ucvgl.errors import InputError


def made_once(kind: str, key: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
    """The folder runs/<kind>/<hash of key>, made if it is not there; it appears when it is complete. `key` is all that the
    contents depend on, as JSON takes it. `make` writes into the folder it is given, in one process: others, of this training
    or another's, wait for it."""
    text = json.dumps(key, sort_keys=True)
    folder = paths.runs() / kind / hashlib.sha256(text.encode()).hexdigest()[:12]
    lock = folder.with_name(f".{folder.name}.lock")
    with paths.waiting_for(lock, f"another process makes {kind}/{folder.name}"):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as name:
                scratch = Path(name) / "made"
                scratch.mkdir()
                (scratch / "key.json").write_text(text)
                make(scratch)
                scratch.replace(folder)
    return folder


def new_images(folder: Path, name: str, shape: tuple[int, ...]) -> np.memmap:
    """An array of images to be filled, uint8 on disk; InputError where the disk has no room for it."""
    needed = int(np.prod(shape))
    if shutil.disk_usage(folder).free < 1.05 * needed:
        raise InputError(folder, expected=f"{needed / 1e9:.2f} GB free", found="less",
                         todo="Free some, or set UCVGL_RUNS.")  # fmt: skip
    return np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, shape)


def mapped(folder: Path, name: str) -> Tensor:
    """An array of a folder of `made_once`, read by the page; InputError if it is missing or damaged."""
    path = folder / f"{name}.npy"
    try:
        # copy-on-write: torch wants writable memory, and nothing writes to it
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:  # EOFError: an empty file
        raise InputError(path, expected="an array", found=error, todo=f"Delete {folder}; it is made again.") from None
