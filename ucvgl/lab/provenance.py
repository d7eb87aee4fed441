"""What made a number: commit, versions, device. It stands in the recipe beside every figure and table."""

import os
import platform
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from ucvgl import __version__, paths

trained_on: set[str] = set()  # devices that the stages this process has loaded were computed on
PACKAGES = ("torch", "torchvision", "timm", "numpy", "faiss-cpu", "faiss-gpu")  # those that can change a number


def commit() -> str | None:
    """The commit of this checkout, with '-dirty' if tracked sources differ from it; None where there is no checkout.

    What the engine itself rewrites (figures/, outputs in notebooks/) does not make it dirty.
    """
    git = ["git", "-C", str(paths.ROOT)]
    status = ["status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)figures", ":(exclude)notebooks"]
    try:
        top, head, changed = (
            subprocess.run([*git, *words], capture_output=True, text=True, timeout=20, check=True).stdout.strip()
            for words in (["rev-parse", "--show-toplevel"], ["rev-parse", "--verify", "HEAD"], status)
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return None if Path(top).resolve() != paths.ROOT else f"{head}-dirty" if changed else head


def device() -> str:
    """What computes here, in words: the GPU's name if torch is loaded and sees one, else the CPU's kind and cores."""
    torch = sys.modules.get("torch")  # not imported just to ask: that takes seconds
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"CPU {platform.machine()}, {os.cpu_count()} cores"


def versions() -> dict[str, str]:
    """The versions of this package and of those that can change a number; those not installed are left out."""
    found = {"ucvgl": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
