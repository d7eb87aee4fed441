"""Place recognition: photos against a database of photos, in the form of the deep visual geo-localisation benchmark.

    <root>/images/{train,val,test}/{database,queries}/**/@<easting>@<northing>@...@.jpg         (Berton et al., CVPR 2022)

The name's fields, between `@`: UTM easting, northing, zone, letter, latitude, longitude, pano id, tile, heading, pitch, roll,
height, timestamp, note, extension; only the first two must be filled. Used for Pitts30k and Pitts250k (Torii et al.),
Mapillary street-level sequences (MSLS, Warburg et al.), Tokyo 24/7, Nordland, St Lucia, SVOX, Eynsham and others.

A hit is a database image within 25 m. Nordland's positions are made up (a straight line): there a hit is a frame, in the pano
id field, at most `frames` away. MSLS validation has two published protocols, of 740 and of 750 queries; the note says which of
the two the number of queries is, or neither.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ucvgl.data.container import Dataset, FileImages, Positives
from ucvgl.data.files import folder, image_folder, numbers, one_of
from ucvgl.errors import InputError
from ucvgl.positions import Metres, Positions

SPLITS = ("train", "val", "test")
HIT_M = 25.0
MSLS_PROTOCOLS = (740, 750)
UTM = Metres("UTM of the file names")
ON_A_LINE = Metres("frames on a line, one a metre")
_PANO_ID = 7


def read_place_recognition(
    root: Path | str, split: str = "test", name: str = "vpr", frames: int | None = None
) -> Dataset:
    """One split: N queries against M database images, every database image within reach a positive, the nearest first.

    Args:
        root: the folder that holds images/ (or train/, val/, test/ themselves).
        split: "train", "val" or "test".
        name: the data set; "nordland" counts frames (10 by default), "msls" names its protocol in the note.
        frames: a hit is at most so many frames away instead of 25 m; papers use 1, 2 or 10: say which.
    """
    one_of("split", split, SPLITS, "Choose one of these.")
    root = folder(root, "the folder that holds images/")
    base = "images/" if (root / "images").is_dir() else ""
    held = [part for part in SPLITS if (root / base / part).is_dir()]
    if held and split not in held:
        todo = "It is for measuring alone: train on another set, such as MSLS or the embedded world, and test here."
        raise InputError(root / base / split, expected=f"a {split} part", found=f"{' and '.join(held)} alone",
                         todo=todo if held == ["test"] else "Unpack the rest, or choose another part.")  # fmt: skip
    query, gallery = (_images(root, f"{base}{split}/{side}") for side in ("queries", "database"))
    if frames is None and name == "nordland":
        frames = 10
    if frames is None:
        positives, note = _near(query, gallery), f"A hit is within {HIT_M:g} m (UTM)."
    else:
        positives = Positives.within(_on_a_line(query), _on_a_line(gallery), frames)
        note = f"A hit is at most {frames} frames away."
    if name == "msls" and len(query) in MSLS_PROTOCOLS:
        note += f" MSLS protocol of {len(query)} queries."
    elif name == "msls":
        note += f" MSLS with {len(query)} queries: neither published protocol (740 or 750 queries)."
    return Dataset(name, split, query, gallery, positives, note=note)


def fields(path: str) -> list[str]:
    """The fields of a name between `@`; field 1 is the easting, 2 the northing, 7 the pano id."""
    return path.rpartition("/")[2].split("@")


def _images(root: Path, below: str) -> FileImages:
    images = image_folder(root, below, "images named @easting@northing@...")
    utm = []
    for i, name in enumerate(images.ids):
        cells = fields(name)
        if len(cells) < 4 or cells[0].strip():
            raise InputError(images.file(i), expected="a name of the form @easting@northing@...@.jpg", found=name,
                             todo="Rename the files with the data set's own formatting script.")  # fmt: skip
        utm.append(numbers(images.file(i), cells[1:3]))
    return replace(images, positions=Positions(utm, UTM, images.where))


def _near(query: FileImages, gallery: FileImages) -> Positives:
    for side in (query, gallery):
        at = side.positions.values
        if np.abs(at).max() <= 180 and at[:, 0].any():  # easting 0 everywhere: a made-up line, as Nordland's
            found = f"{at[0].tolist()}, which look like degrees"
            raise InputError(side.where, expected="UTM easting and northing in metres in the file names", found=found,
                             todo="Rename the files with the data set's own formatting script.")  # fmt: skip
    return Positives.within(query.positions, gallery.positions, HIT_M)


def _on_a_line(images: FileImages) -> Positions:
    """By the frame number in the pano id field."""
    cells = [fields(name)[_PANO_ID : _PANO_ID + 1] or [""] for name in images.ids]
    return Positions([(*numbers(images.file(i), cell), 0.0) for i, cell in enumerate(cells)], ON_A_LINE, images.where)
