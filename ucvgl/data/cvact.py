"""CVACT: panoramas of Canberra and the satellite tile of each (Liu and Li, CVPR 2019); notebooks/DATA.md has the tree.

Indices in the MAT file count from 1. In the large test a retrieved tile is right within 5 m of the query by UTM, the authors'
evaluation (`RecallGeo.m`); Sample4Geo's released code counts the query's own tile alone. The authors' Python reader holds UTM
in 32 bits, 0.5 m apart in Canberra; here they have 64. Published counts: 35,532 training, 8,884 validation, 92,802 test pairs.
"""

from pathlib import Path

import numpy as np

from ucvgl.data.container import Dataset, FileImages, Positives
from ucvgl.data.files import folder, one_of
from ucvgl.errors import InputError
from ucvgl.positions import Metres, Positions

SETS = {"train": ("trainSet", "trainInd"), "val": ("valSet", "valInd"), "test": ("valSetAll", "valInd")}
HIT_M = 5.0  # in the large test
UTM = Metres("UTM of ACT_data.mat")


def read_cvact(root: Path | str, split: str = "val") -> Dataset:
    """One split ("train", "val" or "test", the large one): N panoramas, N tiles; panorama i's own tile is i, and comes first."""
    one_of("split", split, SETS, "CVACT has these three.")
    root = folder(root, "the folder of CVACT, holding ACT_data.mat")
    path = root / "ACT_data.mat"
    names, utm = _read_mat(path, split)
    own, places = "ANU_data_test" if split == "test" else "ANU_data_small", Positions(utm, UTM, str(path))
    base = next((base for base in (f"{own}/", "") if (root / base / "streetview").is_dir()), None)
    if base is None:
        raise InputError(root, expected=f"{own}/streetview or streetview", found="neither",
                         todo="Unpack the images below the folder of ACT_data.mat.")  # fmt: skip
    query, gallery = (
        FileImages(str(root), names, [base + pattern.format(name) for name in names], places, str(path))
        for pattern in ("streetview/{}_grdView.jpg", "satview_polish/{}_satView_polish.jpg")
    )
    positives, note = Positives.one_each(np.arange(len(names))), "A hit is the panorama's own tile."
    if split == "test":
        near = Positives.within(places, places, HIT_M)  # nearest first; its own comes before another at the same place
        positives = Positives.of([np.concatenate([[i], row[row != i]]) for i, row in enumerate(near)])
        note = f"A hit is any tile within {HIT_M:g} m (UTM)."
    return Dataset("cvact", split, query, gallery, positives, note=note)


def _read_mat(path: Path, split: str) -> tuple[list[str], np.ndarray]:
    """Ids and UTM east and north (N, 2) of a split."""
    from scipy.io import loadmat  # here: every process would wait for it

    name, field = SETS[split]
    try:
        data = loadmat(path, variable_names=["panoIds", "utm", name], simplify_cells=True)
        ids = [str(i).rstrip() for i in np.atleast_1d(data["panoIds"])]  # shorter ones are filled up with blanks
        utm = np.array(data["utm"], np.float64)
        rows = np.atleast_1d(np.asarray(data[name][field], np.float64)).ravel()
        utm = utm.T if utm.shape == (2, len(ids)) != (2, 2) else utm.reshape(len(ids), 2)
        here = rows.astype(np.int64) - 1
        whole = (np.abs(utm) < 1e9).all() and len(rows) and (here == rows - 1).all()
        if not whole or not 0 <= here.min() <= here.max() < len(ids):
            raise ValueError(f"{len(rows)} indices of {len(ids)} ids, or a position not on the Earth")
        names = [ids[i] for i in here]
        wrong = [name for name in names if not name or not name.isprintable() or set(name) & set("/\\")]
        if wrong:
            raise ValueError(f"an id {wrong[0][:40]!r}")
    except Exception as error:  # absent, MATLAB 7.3, damaged, another shape: the library raises whatever it meets
        raise InputError(
            path, expected=f"MATLAB 5 variables panoIds (A), utm (A, 2) and {name}.{field}, numbers from 1 to A",
            found=f"{type(error).__name__}: {error}"[:160], todo="Copy CVACT's own ACT_data.mat there again.",
        ) from error  # fmt: skip
    return names, utm[here]
