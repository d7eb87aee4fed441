"""Readers of the published data sets' layouts, writers into them, and a check. One contract: `Views`."""

from pathlib import Path

from ucvgl.data.cvact import read_cvact
from ucvgl.data.cvusa import read_cvusa
from ucvgl.data.decoding import batches, decode_file, pair_batches
from ucvgl.data.files import folder
from ucvgl.data.folders import read_folders, read_paired_folders, read_position_table
from ucvgl.data.place_recognition import read_dbstruct, read_npz, read_place_recognition
from ucvgl.data.university import read_sues200, read_university1652
from ucvgl.data.views import ArrayImages, FileImages, ImageSet, Positives, Views
from ucvgl.data.vigor import read_vigor
from ucvgl.errors import InputError

PLACE_RECOGNITION = ("pitts30k", "pitts250k", "msls", "tokyo247", "nordland", "stlucia", "svox", "eynsham", "vpr")
NAMES = ("cvusa", "cvact", "vigor", "university1652", "sues200", *PLACE_RECOGNITION, "folders", "pairs")

__all__ = [
    "NAMES", "ArrayImages", "FileImages", "ImageSet", "Positives", "Views", "batches", "decode_file", "detect_layout",
    "open_dataset", "pair_batches", "read_cvact", "read_cvusa", "read_dbstruct", "read_folders", "read_npz",
    "read_paired_folders", "read_place_recognition", "read_position_table", "read_sues200", "read_university1652",
    "read_vigor",
]  # fmt: skip


def open_dataset(name: str, root: Path | str, split: str | None = None, **options: object) -> Views:
    """A data set by its name; the options are those of its reader.

    Args:
        name: one of `NAMES`, or "auto" to recognise the layout of `root`.
        root: the data set's folder; for "folders" one that holds ground/ and satellite/.
        split: the part; each reader's own default.
        **options: the reader's further arguments.

    Raises:
        InputError: the name, an option or the data set is wrong.
    """
    if name == "auto":
        name = detect_layout(root)
    given = {} if split is None else {"split": split}
    try:
        match name:
            case "cvusa":
                return read_cvusa(root, **given, **options)
            case "cvact":
                return read_cvact(root, **given, **options)
            case "vigor":
                return read_vigor(root, **given, **options)
            case "university1652":
                return read_university1652(root, **given, **options)
            case "sues200":
                return read_sues200(root, **given, **options)
            case "folders":
                return read_folders(Path(root) / "ground", Path(root) / "satellite", **given, **options)
            case "pairs":
                return read_paired_folders(root, **options)
            case _ if name in PLACE_RECOGNITION:
                return read_place_recognition(root, name=name, **given, **options)
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise InputError(
            name, expected="options of its reader", found=str(error), todo="See the reader's docstring."
        ) from error
    raise InputError("data set", expected=f"one of {', '.join(NAMES)}", found=name, todo="Choose one, or 'auto'.")


def detect_layout(root: Path | str) -> str:
    """The name of the layout in `root`, by the files that only it has.

    Raises:
        InputError: none is recognised.
    """
    root = folder(root, "the folder of a data set")
    signs = {
        "cvact": ("ACT_data.mat",),
        "cvusa": ("splits/train-19zl.csv", "splits/val-19zl.csv"),
        "university1652": ("test/query_drone", "train/drone", "test/gallery_satellite"),
        "sues200": ("Testing", "Training", "satellite-view"),
        "vpr": ("images/test", "images/val", "images/train"),
        "folders": ("ground",),
        "pairs": ("drone",),
    }
    if any((root / f"splits/{city}").is_dir() for city in ("NewYork", "Seattle", "SanFrancisco", "Chicago")):
        return "vigor"
    for name, paths in signs.items():
        if any((root / path).exists() for path in paths):
            return name
    held = ", ".join(sorted(p.name for p in root.iterdir())[:8])
    raise InputError(
        root, expected="a layout of " + ", ".join(NAMES), found=f"a folder holding {held or 'nothing'}",
        todo="Compare it with the trees of notebooks/DATA.md.",
    )  # fmt: skip
