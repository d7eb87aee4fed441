"""What everything is asked with, profile, data and seed, checked where it comes in; and the folders that are named after it."""

import hashlib
import os
import re
from pathlib import Path

from ucvgl import paths
from ucvgl.errors import InputError, one_of

WORLD = "world"
PROFILES = ("tiny", "laptop", "paper")
ROWS = ("all", "headline", "smoke")


def check_profile(profile: str) -> str:
    """Gives `profile` back if it is one of PROFILES; raises InputError otherwise."""
    one_of("profile", profile, PROFILES, "Choose one.")
    return profile


def check_data(data: str) -> str:
    """Gives 'world' back, or the absolute path of an existing folder; raises InputError for anything else."""
    if data == WORLD:
        return WORLD
    folder = Path(data).expanduser().resolve()
    if not data or not folder.is_dir():
        expected = "'world' (the embedded city) or the root folder of a data set"
        raise InputError("data", expected=expected, found=repr(data), todo="Check the path; DATA.md lists the layouts.")
    return str(folder)


def check_seed(seed: int) -> int:
    """Gives `seed` back if it is a whole number of at least 0; raises InputError otherwise."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError("seed", expected="a whole number >= 0", found=repr(seed), todo="Choose another seed.")
    return seed


def check_rows(which: str) -> str:
    """Gives `which` back if it is one of ROWS; raises InputError otherwise."""
    one_of("rows", which, ROWS, "Choose one.")
    return which


def asked_rows() -> str:
    """The rows that UCVGL_ROWS asks for; all, if nothing is said."""
    return check_rows(os.environ.get("UCVGL_ROWS") or "all")


def data_id(data: str) -> str:
    """A short name for a data set, safe in a path: 'world', or the folder's name and six hex digits of its path."""
    data = check_data(data)
    if data == WORLD:
        return WORLD
    slug = re.sub(r"[^a-z0-9]+", "-", Path(data).name.lower()).strip("-") or "data"
    return f"{slug}-{hashlib.sha256(data.encode()).hexdigest()[:6]}"


def run_folder(notebook: str, *, profile: str, data: str, seed: int) -> Path:
    """Where one notebook's run with these settings is kept, under runs/."""
    return paths.runs() / "notebooks" / profile / data_id(data) / f"seed{seed}" / notebook


def figure_folder(notebook: str, *, profile: str, data: str) -> Path:
    """Where one notebook's merged results are published, under figures/."""
    return paths.figures() / (profile if data == WORLD else f"{profile}-{data_id(data)}") / notebook
