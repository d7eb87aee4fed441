"""Place recognition: photographs against a database of photographs, in the form of the deep visual geo-localisation
benchmark.

    <root>/images/{train,val,test}/{database,queries}/**/@<easting>@<northing>@...@.jpg         (Berton et al., CVPR
    2022)

The name's fields, between `@`: UTM easting, northing, zone, letter, latitude, longitude, pano id, tile, heading, pitch,
roll, height, timestamp, note, extension; only the first two must be filled. Used for Pitts30k and Pitts250k (Torii et
al.), Mapillary street-level sequences (MSLS, Warburg et al.), Tokyo 24/7, Nordland, St Lucia, SVOX, Eynsham and others.

A hit is a database image within 25 m. Nordland's positions are made up (a straight line): there a hit is a frame, in
the pano id field, at most `frames` away. MSLS validation has two published protocols, of 740 and of 750 queries; a
folder holds whatever was copied into it, so the note says which of the two the number of queries is, or neither, and a
list of the queries can be given.
"""

import os
from pathlib import Path

import numpy as np

from ucvgl.data.files import folder, images_below, lines, numbers
from ucvgl.data.mat5 import read_mat
from ucvgl.data.views import FileImages, Positives, Views
from ucvgl.errors import InputError
from ucvgl.positions import Metres, Neighbours, Positions

MSLS_PROTOCOLS = (740, 750)
PUBLISHED = {("pitts30k", "test"): (6_816, 10_000), ("tokyo247", "test"): (315, 75_984)}
UTM = Metres("UTM of the file names")
_PANO_ID = 7


def read_place_recognition(
    root: Path | str,
    split: str = "test",
    name: str = "vpr",
    radius_m: float = 25.0,
    frames: int | None = None,
    queries_list: Path | str | None = None,
    queries_folder: str = "queries",
) -> Views:
    """One split: N queries (`ground`) against M database images (`satellite`), every database image within reach a
    positive.

    Args:
        root: the folder that holds images/ (or train/, val/, test/ themselves).
        split: "train", "val" or "test".
        name: the data set; "nordland" counts frames (10 by default), "msls" names its protocol in the note.
        radius_m: a hit is within so many metres; 25 in every published protocol.
        frames: a hit is at most so many frames away instead; the frame is the pano id field. Papers use 1, 2 or 10: say
            which.
        queries_list: a text file with one query a line (its file name, or the pano id): only these are queries.
        queries_folder: the folder's name where a data set has several, such as "queries_v1".

    Raises:
        InputError: a folder is absent or empty, a name has no position, a listed query is not there.
    """
    if split not in ("train", "val", "test"):
        raise InputError("split", expected="train, val or test", found=split, todo="Choose one of these.")
    root = folder(root, "the folder that holds images/")
    base = root / "images" / split if (root / "images").is_dir() else root / split
    if name == "nordland" and frames is None:
        frames = 10
    queries = _images(root, base / queries_folder)
    database = _images(root, base / "database")
    if queries_list is not None:
        queries = _only(queries, Path(queries_list))
    if frames is None:
        positives = _within(queries.positions, database.positions, radius_m)
        note = f"A hit is within {radius_m:g} m (UTM)."
    else:
        positives = _within_frames(queries, database, frames)
        note = f"A hit is at most {frames} frames away."
    without = int((np.diff(positives.offsets) == 0).sum())
    note += f" {without} of {len(queries)} queries have no right image; they count as failures." if without else ""
    if name == "msls":
        note += _msls_protocol(len(queries))
    return Views(name, split, queries, database, positives, note=note)


def _msls_protocol(count: int) -> str:
    if count in MSLS_PROTOCOLS:
        return f" MSLS protocol of {count} queries."
    return f" MSLS with {count} queries: neither published protocol (740 or 750 queries)."


def fields(path: str) -> list[str]:
    """The fields of a name between `@`; field 1 is the easting, 2 the northing, 7 the pano id."""
    return path.rpartition("/")[2].split("@")


def _images(root: Path, path: Path) -> FileImages:
    path = folder(path, "a folder of images named @easting@northing@...")
    names = images_below(path)
    if not names:
        raise InputError(path, expected="images", found="none", todo="Copy the images there, or unpack the data set.")
    utm = np.empty((len(names), 2))
    for i, name in enumerate(names):
        cells = fields(name)
        if len(cells) < 4 or cells[0].strip():
            raise InputError(
                path / name,
                expected="a name of the form @easting@northing@...@.jpg",
                found=name,
                todo="Rename the files with the data set's own formatting script.",
            )
        utm[i] = numbers(path / name, cells[1:3])
    relative = os.path.relpath(path, root).replace(os.sep, "/")
    paths = tuple(f"{relative}/{name}" for name in names)
    return FileImages(str(root), tuple(names), paths, Positions(utm, UTM, str(path)), str(path))


def _only(queries: FileImages, path: Path) -> FileImages:
    """The queries a list names, in the list's order."""
    index: dict[str, int] = {}
    for i, name in enumerate(queries.ids):
        cells = fields(name)
        for key in (name, name.rpartition("/")[2], cells[_PANO_ID] if len(cells) > _PANO_ID else ""):
            if key:
                index.setdefault(key, i)
    rows = []
    for number, text in lines(path):
        key = text if text in index else text.rpartition("/")[2].rpartition(".")[0] or text
        if key not in index:
            raise InputError(
                f"{path}:{number}", expected="a query of the folder", found=text[:80], todo="Use this data set's list."
            )
        rows.append(index[key])
    return queries.subset(rows)


def _within(queries: Positions, database: Positions, metres: float) -> Positives:
    offsets, found = Neighbours(database).within(queries, metres)
    return Positives(offsets, found, np.ones(len(queries), bool))


def _within_frames(queries: FileImages, database: FileImages, tolerance: int) -> Positives:
    """By the frame number in the pano id field, on a line of frames one metre apart: no dense comparison either."""

    def line(images: FileImages) -> Positions:
        values = np.zeros((len(images), 2))
        for i, name in enumerate(images.ids):
            cells = fields(name)
            values[i, 0] = numbers(images.file(i), [cells[_PANO_ID] if len(cells) > _PANO_ID else ""])[0]
        return Positions(values, Metres("frames"))

    return _within(line(queries), line(database), float(tolerance))


def from_positions(
    name: str,
    split: str,
    root: Path | str,
    queries: tuple[list[str], np.ndarray],
    database: tuple[list[str], np.ndarray],
    radius_m: float = 25.0,
) -> Views:
    """Views from two lists of (paths below `root`, UTM (N, 2)); the images may be elsewhere until they are read."""
    images = []
    for what, (paths, utm) in (("queries", queries), ("database", database)):
        places = Positions(utm, UTM, f"{name} {what}")
        images.append(FileImages(str(root), tuple(paths), tuple(paths), places, f"{name} {what}"))
    positives = _within(images[0].positions, images[1].positions, radius_m)
    return Views(name, split, images[0], images[1], positives, note=f"A hit is within {radius_m:g} m (UTM).")


def read_dbstruct(path: Path | str, root: Path | str, name: str = "vpr", radius_m: float | None = None) -> Views:
    """The MATLAB structure `dbStruct` of NetVLAD's and Patch-NetVLAD's data sets: names, UTM and the distance of a hit.

    Args:
        path: the .mat (or .db) file.
        root: the folder the image names count from.
        name: what the data set is called in results.
        radius_m: metres of a hit; the file's own posDistThr by default.
    """
    path = Path(path)
    record = read_mat(path, ["dbStruct"])["dbStruct"]
    try:
        names = [["".join(cell).strip() for cell in record[key]] for key in ("qImageFns", "dbImageFns")]
        utm = [np.array(record[key], np.float64) for key in ("utmQ", "utmDb")]
        utm = [u.T if u.shape[0] == 2 and u.shape != (len(n), 2) else u for u, n in zip(utm, names, strict=True)]
        radius = float(np.ravel(record["posDistThr"])[0]) if radius_m is None else radius_m
    except (KeyError, TypeError, ValueError, IndexError) as error:  # a structure of another shape or kind
        raise InputError(
            path,
            expected="dbStruct with qImageFns, dbImageFns, utmQ, utmDb and posDistThr",
            found=f"{type(error).__name__}: {error}"[:160],
            todo="Is this a data set of NetVLAD's form?",
        ) from error
    return from_positions(name, "test", root, (names[0], utm[0]), (names[1], utm[1]), radius)


def read_npz(
    path: Path | str,
    root: Path | str,
    query_names: Path | str,
    database_names: Path | str | None = None,
    name: str = "vpr",
    radius_m: float | None = None,
) -> Views:
    """Patch-NetVLAD's ground-truth archive (utmQ, utmDb, posDistThr) with its name lists; pickled arrays are refused.

    Args:
        path: the .npz file.
        root: the folder the image names count from.
        query_names: a text file, a name a line in the order of utmQ.
        name: what the data set is called in results.
        radius_m: metres of a hit; the file's own posDistThr by default.
        database_names: None names the database images by their number, for reading positions alone.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as data:
            utm_q, utm_db = np.asarray(data["utmQ"], np.float64), np.asarray(data["utmDb"], np.float64)
            radius = float(data["posDistThr"]) if radius_m is None else radius_m
    except Exception as error:  # zip, npy and pickle refusals
        raise InputError(
            path,
            expected="an npz of plain arrays utmQ, utmDb and posDistThr",
            found=f"{type(error).__name__}: {error}"[:160],
            todo="Pickled files are not opened: they can run code. Save plain arrays.",
        ) from error
    names = []
    for listed, utm, what in ((query_names, utm_q, "query"), (database_names, utm_db, "database")):
        rows = [f"{what}/{i:06d}" for i in range(len(utm))] if listed is None else [t for _, t in lines(Path(listed))]
        if len(rows) != len(utm):
            raise InputError(
                listed, expected=f"{len(utm)} names, one a position", found=len(rows), todo="Use lists of one release."
            )
        names.append([row.removeprefix("./") for row in rows])
    return from_positions(name, "test", root, (names[0], utm_q), (names[1], utm_db), radius)
