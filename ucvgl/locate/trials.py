"""Cities whose truth is known, searched as their owner would: for notebook 07, and for the committed calibrations.

Cities of the embedded world are exported as two folders, or somebody's own folder with ground/ and tiles/ is taken.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from ucvgl import paths
from ucvgl.lab.results import WORLD
from ucvgl.locate.confidence import RADIUS_M
from ucvgl.locate.inputs import EPOCHS, Inputs, Request, read_inputs
from ucvgl.locate.pictures import Kind
from ucvgl.locate.search import Search, search
from ucvgl.positions import Positions, Wgs84, to_metres
from ucvgl.world.export import OWN_CITY, export_own_city

FOV_DEG = 80.0  # of photos
WESTERN = 0.6  # of a city's candidates that are searched, where two of five pictures are to lie outside


@dataclass(frozen=True)
class Case:
    """A city of the embedded world, and how it is searched."""

    kind: Kind = "panorama"
    searched: bool = False  # are the pictures' headings hidden
    style: str = "old_town"  # the calibrations were fitted on it among others, the encoders on others alone
    places: int = 300
    city_size_m: float = 1000.0
    outside: bool = False  # is a part searched, so that about two of five pictures lie outside
    epochs: int = 0  # of training on the city's own imagery
    seed: int = 0  # of the city


# what notebook 07 searches, of a style that neither the encoders nor the calibrations have seen
CASES = {
    "tiny": Case(style="downtown", places=12, city_size_m=420.0, epochs=1),
    "laptop": Case(style="downtown", epochs=EPOCHS),
    "paper": Case(style="downtown", places=3000, city_size_m=3000.0, epochs=EPOCHS),
}


def is_own(data: str) -> bool:
    """Whether `data` is a folder with ground/ and tiles/, somebody's own."""
    return data != WORLD and all((Path(data) / name).is_dir() for name in ("ground", "tiles"))


def request(case: Case, data: str, out: Path) -> Request:
    """What one asks `ucvgl locate` for: a folder of one's own, or a city of the embedded world, exported to the run
    cache unless it lies there; its headings are stated or tabled, unless they are to be searched."""
    if is_own(data):
        root = Path(data)
        tables = (path if path.is_file() else None for path in (root / "ground.csv", root / "tiles.csv"))
        return Request(root / "ground", root / "tiles", out, *tables, epochs=case.epochs)
    is_photo = case.kind == "photo"
    name = f"{case.style}-{case.seed}-{case.places}-{case.city_size_m:g}" + f"-photo{FOV_DEG:g}" * is_photo
    root = paths.runs() / "cities" / name
    if not root.exists():
        world = replace(OWN_CITY, styles=(case.style,), seed=case.seed, places=case.places,
                        city_size_m=case.city_size_m, panorama_px=512 if is_photo else 128)  # fmt: skip
        export_own_city(root, world, photo_fov_deg=FOV_DEG if is_photo else None)
    table = root / "ground.csv" if is_photo and not case.searched else None
    fov_deg, heading_deg = (FOV_DEG, None) if is_photo else (None, None if case.searched else 0.0)
    return Request(
        root / "ground", root / "tiles", out, table, None, case.kind, fov_deg, heading_deg, epochs=case.epochs
    )


def search_city(case: Case) -> tuple[Search, Inputs]:
    """Searches a city of the case as anybody's; `run.place` places its pictures, `located.errors_m` opens the truth."""
    asked = request(case, WORLD, Path())
    inputs = read_inputs(replace(asked, truth=asked.ground.parent / "truth.csv"))
    if case.outside:
        east_m = inputs.candidates.centre_m[:, 0]
        western = np.flatnonzero(east_m < np.quantile(east_m, WESTERN))
        inputs = replace(inputs, candidates=inputs.candidates.take(western))
    return search(inputs, case.kind), inputs


def true_m(found: Search, inputs: Inputs) -> np.ndarray:
    """(N, 2) where the pictures of a search were taken, in the candidates' metres."""
    where = [inputs.truth[picture.file] for picture in found.pictures]
    return to_metres(Positions(where, Wgs84()), inputs.mosaic.origin).values


def outside(found: Search, inputs: Inputs) -> np.ndarray:
    """(N,) bool: which pictures no candidate is near enough to."""
    return cKDTree(inputs.candidates.centre_m).query(true_m(found, inputs))[0] > RADIUS_M


def as_drive(found: Search, inputs: Inputs) -> tuple[Search, Inputs]:
    """The same pictures, which come in no order, with the time stamps of a drive past all places, each time to the
    nearest that is left, at 5 to 10 metres a second: what a camera's clock would tell, and no other truth."""
    where = true_m(found, inputs)
    order, left = [int(where.sum(1).argmin())], np.ones(len(where), bool)
    while len(order) < len(where):
        left[order[-1]] = False
        away = np.hypot(*(where - where[order[-1]]).T)
        order.append(int(np.where(left, away, np.inf).argmin()))
    steps = np.hypot(*np.diff(where[order], axis=0).T)
    speed = np.random.default_rng(len(where)).uniform(5, 10, len(steps))
    seconds = np.append(0.0, np.cumsum(steps / speed))[np.argsort(order)]
    stamped = [replace(one, taken_s=taken) for one, taken in zip(found.pictures, seconds.tolist(), strict=True)]
    return replace(found, pictures=stamped), replace(inputs, request=replace(inputs.request, drive="time"))
