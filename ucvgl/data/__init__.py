"""Readers of the published data sets' layouts and of own folders: one door, `open_dataset`, and one container, `Dataset`."""

from pathlib import Path
from typing import Any, Literal

from ucvgl.data.container import ArrayImages, Dataset, FileImages, ImageSet, Positives
from ucvgl.data.cvact import read_cvact
from ucvgl.data.cvusa import read_cvusa
from ucvgl.data.decoding import batches, decode_file
from ucvgl.data.files import folder, one_of, read_position_table
from ucvgl.data.folders import read_folders
from ucvgl.data.frames import frame_folders, read_frames
from ucvgl.data.guard import guarded
from ucvgl.data.pairs import read_pairs
from ucvgl.data.place_recognition import SPLITS, read_place_recognition
from ucvgl.data.university import read_sues200, read_university1652
from ucvgl.data.vigor import CITIES, read_vigor
from ucvgl.errors import InputError

PLACE_RECOGNITION = ("pitts30k", "pitts250k", "msls", "tokyo247", "nordland", "stlucia", "svox", "eynsham", "vpr")
FRAMES = ("corridor", "gardens_point", "sped", "essex3in1", "frames")
READERS = {
    "cvusa": read_cvusa, "cvact": read_cvact, "vigor": read_vigor, "university1652": read_university1652,
    "sues200": read_sues200, **dict.fromkeys(PLACE_RECOGNITION, read_place_recognition),
    **dict.fromkeys(FRAMES, read_frames), "folders": read_folders, "pairs": read_pairs,
}  # fmt: skip
NAMES = tuple(READERS)

__all__ = [
    "FRAMES", "NAMES", "PLACE_RECOGNITION", "ArrayImages", "Dataset", "FileImages", "ImageSet", "Positives", "batches",
    "decode_file", "detect_layout", "open_dataset", "parts", "read_position_table",
]  # fmt: skip


def open_dataset(
    name: str, root: Path | str, split: str | None = None, *, missing: Literal["error", "drop"] | None = None,
    skip_unreadable: bool | None = None, **options: Any,
) -> Dataset:  # fmt: skip
    """A data set by its name, its files looked for before anything runs.

    Args:
        name: one of `NAMES`, or "auto" to recognise the layout of `root`.
        root: the data set's folder.
        split: the part; each reader's own default.
        missing: "error" raises on the first listed file that is absent; "drop" leaves absent ones out and says how many. By
            default "drop" for CVACT, whose published archives lack a few, else "error".
        skip_unreadable: leave out images that cannot be decoded, and say how many; by default as the environment variable
            UCVGL_SKIP_UNREADABLE says, else an image that cannot be read is an error when it is read.
        **options: the reader's further arguments.

    Raises:
        InputError: the name, an option or the data set is wrong.
    """
    name = detect_layout(root) if name == "auto" else name
    one_of("data set", name, NAMES, "Choose one, or 'auto'.")
    reader = read_frames if name == "nordland" and not _benchmark(Path(root)) else READERS[name]
    if name in PLACE_RECOGNITION or name in FRAMES:
        options["name"] = name
    data = reader(root, **({} if split is None else {"split": split}), **options)
    drop = (missing or ("drop" if name == "cvact" else "error")) == "drop"
    return guarded(data, drop=drop, pairs=name in ("cvusa", "cvact"), skip=skip_unreadable)


def parts(name: str, root: Path | str) -> tuple[str, ...]:
    """The splits that `root` has: what a caller may open, found without reading the lists.

    No "train": for measuring alone (Tokyo 24/7, Nordland as published). "train" alone: own folders without pairs, on which
    recall cannot be measured.
    """
    root = Path(root)
    match name:
        case "cvusa":
            return tuple(part for part in ("train", "val") if (root / f"splits/{part}-19zl.csv").is_file())
        case "cvact":
            small = not (root / "ANU_data_test").is_dir() or (root / "ANU_data_small").is_dir()
            test = (root / "ANU_data_test").is_dir() or not (root / "ANU_data_small").is_dir()
            return ("train", "val") * small + ("test",) * test
        case "university1652":
            return tuple(part for part in ("train", "test") if (root / part).is_dir())
        case "sues200":
            return tuple(
                part for part in ("train", "test") if (root / {"train": "Training", "test": "Testing"}[part]).is_dir()
            )
        case "folders":
            return ("train",)
        case "pairs":
            return ("train", "val", "test")
        case _ if name in PLACE_RECOGNITION and _benchmark(root):
            base = root / "images" if (root / "images").is_dir() else root
            return tuple(part for part in SPLITS if (base / part).is_dir())
    return ("train", "test")  # VIGOR, frames on a line


def _benchmark(root: Path) -> bool:
    return (root / "images").is_dir() or any((root / part / "database").is_dir() for part in SPLITS)


def detect_layout(root: Path | str) -> str:
    """The name of the layout in `root`, by the files that only it has; InputError if none is recognised."""
    root = folder(root, "the folder of a data set")
    signs = {
        "cvact": ("ACT_data.mat",),
        "cvusa": ("splits/train-19zl.csv", "splits/val-19zl.csv"),
        "vigor": tuple(f"splits/{city}" for city in CITIES),
        "university1652": ("test/query_drone", "train/drone", "test/gallery_satellite"),
        "sues200": ("Testing", "Training", "satellite-view"),
        "vpr": ("images/test", "images/val", "images/train", "test/database", "val/database", "train/database"),
        "folders": ("ground",),
        "pairs": ("drone",),
    }
    for name, paths in signs.items():
        if any((root / path).exists() for path in paths):
            return name
    pair = frame_folders(root)
    if pair is not None:
        return {"summer": "nordland", "day_right": "gardens_point"}.get(pair[1].casefold(), "frames")
    held = ", ".join(sorted(p.name for p in root.iterdir())[:8])
    raise InputError(
        root, expected="a layout of " + ", ".join(NAMES), found=f"a folder holding {held or 'nothing'}",
        todo="Compare it with the trees of notebooks/DATA.md.",
    )  # fmt: skip
