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
ON_DISK = {"data": "a folder, or 'world'", "panorama": "a picture file", "other": "a folder", "drone": "a folder"}


@dataclass(frozen=True)
class RunRequest:
    """What is asked for. InputError: a wrong profile, data set, seed, choice of rows, file or folder."""

    profile: str = "laptop"  # one of PROFILES
    data: str = WORLD  # the embedded city, or the root folder of a data set, which is made absolute
    seeds: tuple[int, ...] = (0,)  # of everything random, in the order given
    rows: str = ""  # one of ROWS; '': headline for the paper profile, else all
    panorama: str = ""  # a picture file for the notebooks that take one
    other: str = ""  # of notebook 05, a second data set; '' for none
    drone: str = ""  # of notebook 05, University-1652 or SUES-200; '' for none
    backbone: str = ""  # of the paper profile, as `profiles.with_backbone` takes it; '' for the paper's

    def __post_init__(self) -> None:
        one_of("profile", self.profile, PROFILES, "Choose one.")
        changed = {"seeds": tuple(self.seeds), "rows": self.rows or ("headline" if self.profile == "paper" else "all")}
        one_of("rows", changed["rows"], ROWS, "Choose one.")
        for name, expected in ON_DISK.items():
            given = getattr(self, name)
            if given != WORLD and (given or name == "data"):
                path = Path(given).expanduser().resolve()
                if not given or not (path.is_file() if name == "panorama" else path.is_dir()):
                    raise InputError(name, expected, repr(given), "Check the path; DATA.md lists the layouts.")
                changed[name] = str(path)
        vars(self).update(changed)  # the class is frozen
        whole = all(isinstance(seed, int) and seed >= 0 for seed in self.seeds)
        if not whole or len(set(self.seeds)) < len(self.seeds):
            found = repr(",".join(map(str, self.seeds)))
            raise InputError("seed", "different whole numbers >= 0", found, "For example SEED=0,1,2.")
        if self.backbone and self.profile != "paper":
            raise InputError("backbone", "the paper profile with it", self.profile, "Leave it out.")

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


def asked_rows() -> str:
    """The rows that UCVGL_ROWS asks for; all, if nothing is said."""
    which = os.environ.get("UCVGL_ROWS") or "all"
    one_of("rows", which, ROWS, "Choose one.")
    return which


def seeds_of(text: str) -> tuple[int | str, ...]:
    """'0,1,2' as numbers; what is none stays a text, which `RunRequest` does not take."""
    return tuple(int(part) if re.fullmatch(r" *[0-9]+ *", part) else part for part in text.split(","))


def marker(key: str) -> Path:
    """The file that a stage's job leaves when the run cache has the stage."""
    return paths.runs() / "stages" / f"{key}.json"
