"""What is asked for, checked once; and the folders that are named after it."""

import hashlib
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ucvgl import paths
from ucvgl.errors import InputError, one_of

WORLD = "world"
PROFILES = ("tiny", "laptop", "paper")
ROWS = ("all", "headline", "smoke")
FURTHER = ("panorama", "other", "drone", "backbone")  # parameters that only some notebooks have


@dataclass(frozen=True)
class RunRequest:
    """What is asked for. InputError: a wrong profile, data set, seed, choice of rows, file or folder."""

    profile: str = "laptop"  # one of PROFILES
    data: str = WORLD  # the embedded city, or the root folder of a data set, which is made absolute
    seeds: tuple[int, ...] = (0,)  # of everything random, in the order given
    rows: str = ""  # one of ROWS; '': headline for the paper profile, else all
    panorama: str = ""  # a picture file for the notebooks that take one
    other: str = ""  # of notebook 05, a second data set; '' for none
    drone: str = ""  # of notebook 05, University-1652; '' for none
    backbone: str = ""  # of the paper profile, as `profiles.with_backbone` takes it; '' for the paper's

    def __post_init__(self) -> None:
        check_profile(self.profile)
        set_field = object.__setattr__  # the class is frozen
        set_field(self, "seeds", tuple(self.seeds))
        set_field(self, "rows", self.rows or ("headline" if self.profile == "paper" else "all"))
        one_of("rows", self.rows, ROWS, "Choose one.")
        kinds = {"data": "a folder, or 'world'", "panorama": "a picture file", "other": "a folder", "drone": "a folder"}
        for name, expected in kinds.items():
            given = getattr(self, name)
            if given != WORLD and (given or name == "data"):
                path = Path(given).expanduser().resolve()
                if not given or not (path.is_file() if name == "panorama" else path.is_dir()):
                    todo = "Check the path; DATA.md lists the layouts."
                    raise InputError(name, expected=expected, found=repr(given), todo=todo)
                set_field(self, name, str(path))
        if wrong := [seed for seed in self.seeds if not isinstance(seed, int) or seed < 0]:
            raise InputError("seed", expected="a whole number >= 0", found=repr(wrong[0]), todo="Choose another seed.")
        if self.backbone and self.profile != "paper":
            raise InputError("backbone", expected="the paper profile with it", found=self.profile, todo="Leave it out.")

    @property
    def data_id(self) -> str:
        """A short name for the data set, safe in a path: 'world', or the folder's name and six hex digits of its path."""
        slug = re.sub(r"[^a-z0-9]+", "-", Path(self.data).name.lower()).strip("-") or "data"
        return WORLD if self.data == WORLD else f"{slug}-{hashlib.sha256(self.data.encode()).hexdigest()[:6]}"

    def further(self, names: Collection[str]) -> dict[str, str]:
        """What is given of FURTHER, of the parameters `names` that a notebook has."""
        return {name: getattr(self, name) for name in FURTHER if getattr(self, name) and name in names}

    def run_folder(self, notebook: str, seed: int) -> Path:
        """Where one notebook's run is kept, under runs/."""
        return paths.runs() / "notebooks" / self.profile / self.data_id / f"seed{seed}" / notebook

    def figure_folder(self, notebook: str) -> Path:
        """Where one notebook's merged results are published, under figures/."""
        return paths.figures() / (self.profile if self.data == WORLD else f"{self.profile}-{self.data_id}") / notebook


def check_profile(profile: str) -> str:
    """Gives `profile` back if it is one of PROFILES; raises InputError otherwise."""
    one_of("profile", profile, PROFILES, "Choose one.")
    return profile


def asked_rows() -> str:
    """The rows that UCVGL_ROWS asks for; all, if nothing is said."""
    which = os.environ.get("UCVGL_ROWS") or "all"
    one_of("rows", which, ROWS, "Choose one.")
    return which


def seeds_of(text: str) -> tuple[int, ...]:
    """'0,1,2' as numbers; InputError for anything but different whole numbers."""
    seeds = tuple(int(part) if re.fullmatch(r" *[0-9]+ *", part) else -1 for part in text.split(","))
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        expected, todo = "different whole numbers >= 0, separated by commas", "For example SEED=0,1,2."
        raise InputError("seed", expected=expected, found=repr(text), todo=todo)
    return seeds
