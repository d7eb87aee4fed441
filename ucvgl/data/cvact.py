"""CVACT: panoramas of Canberra and the satellite tile of each (Liu and Li, CVPR 2019).

    <root>/ACT_data.mat                                   panoIds, utm, trainSet.trainInd, valSet.valInd,
    valSetAll.valInd
    <root>/ANU_data_small/streetview/<id>_grdView.jpg      1664 x 832, equirectangular, north in the middle
    <root>/ANU_data_small/satview_polish/<id>_satView_polish.jpg      1200 x 1200, north up
    <root>/ANU_data_test/streetview, satview_polish        the large test set

The images may also lie in <root>/streetview and <root>/satview_polish. Indices in the MAT file count from 1; the index
is the second field of each set, the official readers fetch it by that place.

Published counts: 35,532 training, 8,884 validation, 92,802 test pairs. In the large test a retrieved tile is right
within 5 m of the query by UTM, the authors' evaluation (`RecallGeo.m`); Sample4Geo's released code counts the query's
own tile alone. The authors' Python reader holds UTM in 32 bits, 0.5 m apart in Canberra; here they have 64.
"""

from pathlib import Path
from typing import Literal

import numpy as np

from ucvgl.data.files import folder, inside, require, utf8
from ucvgl.data.mat5 import read_mat
from ucvgl.data.views import FileImages, Positives, Views
from ucvgl.errors import InputError
from ucvgl.positions import Metres, Neighbours, Positions

# from general knowledge of the data set, checked against no copy of it: a mismatch in `data check` may be these' fault
PUBLISHED = {"train": 35_532, "val": 8_884, "test": 92_802}
SIZES = {"ground": (832, 1664), "satellite": (1200, 1200)}
_SETS = {"train": ("trainSet", "trainInd"), "val": ("valSet", "valInd"), "test": ("valSetAll", "valInd")}
UTM = Metres("UTM of ACT_data.mat")


def read_cvact(
    root: Path | str,
    split: str = "val",
    hit_within_m: float | None = None,
    missing: Literal["error", "drop"] = "error",
) -> Views:
    """One split of CVACT: N panoramas, N tiles; panorama i's own tile is i, and comes first.

    Args:
        root: the data set's folder.
        split: "train", "val" or "test" (the large one).
        hit_within_m: tiles within so many metres (UTM) are right as well; by default 5 for "test", else the own tile
            alone.
        missing: "error" raises on the first listed image that is absent; "drop" leaves such pairs out and says how many
            (the published archives lack a few).

    Raises:
        InputError: the MAT file is absent, damaged or of another kind; an image is absent.
    """
    if split not in _SETS:
        raise InputError("split", expected=f"one of {', '.join(_SETS)}", found=split, todo="CVACT has these three.")
    root = folder(root, "the folder of CVACT, holding ACT_data.mat")
    path = root / "ACT_data.mat"
    ids, utm, rows = _read_mat(path, split)
    base = _image_folder(root, split)
    ids = [ids[i] for i in rows]
    utm = utm[rows]
    grounds = [inside(f"{base}streetview/{i}_grdView.jpg", path) for i in ids]
    tiles = [inside(f"{base}satview_polish/{i}_satView_polish.jpg", path) for i in ids]
    named = [(f"{path}: {_SETS[split][0]}", name) for pair in zip(grounds, tiles, strict=True) for name in pair]
    gone = require(root, named, drop=missing == "drop")
    kept = np.array([g not in gone and t not in gone for g, t in zip(grounds, tiles, strict=True)])
    if not kept.any():
        raise InputError(root, expected="images", found="none of those listed", todo="Copy the images into the folder.")
    keep = np.flatnonzero(kept)
    places = Positions(utm[keep], UTM, str(path))
    metres = (5.0 if split == "test" else 0.0) if hit_within_m is None else hit_within_m
    note = f"A hit is any tile within {metres:g} m (UTM)." if metres > 0 else "A hit is the panorama's own tile."
    if gone:
        note += f" {len(kept) - len(keep)} of {len(kept)} pairs left out, files absent."
    names = tuple(ids[i] for i in keep)
    return Views(
        "cvact",
        split,
        FileImages(str(root), names, [grounds[i] for i in keep], places, str(path)),
        FileImages(str(root), names, [tiles[i] for i in keep], places, str(path)),
        _own_then_near(places, metres),
        note=note,
        left_out=tuple(sorted(gone)),
    )


def _own_then_near(places: Positions, metres: float) -> Positives:
    """Panorama i's own tile i, then every other tile within `metres`, nearest first."""
    if metres <= 0:
        return Positives.one_each(np.arange(len(places)))
    offsets, found = Neighbours(places).within(places, metres)
    rows = [found[offsets[i] : offsets[i + 1]] for i in range(len(places))]
    return Positives.of([np.concatenate([[i], row[row != i]]) for i, row in enumerate(rows)])


def _image_folder(root: Path, split: str) -> str:
    small_or_test = "ANU_data_test" if split == "test" else "ANU_data_small"
    for base in (f"{small_or_test}/", ""):
        if (root / base / "streetview").is_dir():
            return base
    raise InputError(
        root,
        expected=f"{small_or_test}/streetview or streetview",
        found="neither",
        todo="Unpack the images below the folder of ACT_data.mat.",
    )


def _read_mat(path: Path, split: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """All ids (A), UTM (A, 2) east and north, and the split's rows from 0."""
    name, field = _SETS[split]
    data = read_mat(path, ["panoIds", "utm", name])
    try:
        ids = [_text(i) for i in data["panoIds"]]
        utm = np.array(data["utm"], np.float64)
        rows = np.asarray(data[name][field]).ravel().astype(np.float64)
    except (KeyError, TypeError, ValueError, IndexError) as error:  # a variable of another shape or kind
        raise InputError(
            path,
            expected=f"panoIds (A), utm (A, 2) and {name}.{field} (N)",
            found=f"{type(error).__name__}: {error}"[:160],
            todo="Use the ACT_data.mat of CVACT.",
        ) from error
    if utm.shape == (2, len(ids)) and len(ids) != 2:
        utm = utm.T
    if utm.shape != (len(ids), 2) or not np.isfinite(utm).all():
        raise InputError(
            path,
            expected=f"utm of shape ({len(ids)}, 2), finite",
            found=f"shape {utm.shape}",
            todo="Copy the file again.",
        )
    for i in ids:
        if not i or not i.isprintable() or "/" in i or "\\" in i:
            raise InputError(path, expected="panorama ids", found=repr(i[:40]), todo="Copy the file again.")
        utf8(i, path)
    if len(rows) == 0 or not ((rows >= 1) & (rows <= len(ids)) & (rows == np.floor(rows))).all():
        raise InputError(
            path,
            expected=f"{name}.{field}: numbers from 1 to {len(ids)}",
            found=f"{len(rows)} of them" + (f", from {rows.min():g} to {rows.max():g}" if len(rows) else ""),
            todo="Copy the file again.",
        )
    return ids, utm, rows.astype(np.int64) - 1


def _text(value: object) -> str:
    """An id: a row of a character matrix, or a cell of one string; shorter ones are filled up with blanks."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        raise TypeError(f"an id that is no text: {type(value).__name__}")
    return value.rstrip()
