"""Cities whose truth is known, searched as their owner would: for notebook 07, and for the committed calibrations.

Cities of the embedded world are exported as two folders, or somebody's own folder with ground/ and tiles/ is taken; the
truth is read only after the search.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from ucvgl import paths
from ucvgl.data.write import new_folder
from ucvgl.lab.results import WORLD
from ucvgl.locate.adapt import EPOCHS
from ucvgl.locate.candidates import Candidates
from ucvgl.locate.chain import place_together
from ucvgl.locate.confidence import RADIUS_M, Placement, place_alone
from ucvgl.locate.inputs import Inputs, Request, read_inputs
from ucvgl.locate.located import read_truth
from ucvgl.locate.pictures import Kind
from ucvgl.locate.search import Search, search
from ucvgl.positions import Positions, Wgs84, from_metres, to_metres
from ucvgl.world.export import OWN_CITY, export_own_city

FOV_DEG = 80.0  # of photos
WESTERN = 5 / 8  # of a city's columns of tiles, where two of five pictures are to lie outside
PART = f"western-{WESTERN:.3f}"  # the folder of these
SPEED_M_S = Request.speed_m_s  # at most, of a drive


@dataclass(frozen=True)
class Case:
    """A city of the embedded world, and how it is searched."""

    kind: Kind = "panorama"
    searched: bool = False  # are the pictures' headings hidden
    style: str = "old_town"  # the calibrations were fitted on it among others, the encoders on others alone
    places: int = 300
    city_size_m: float = 1000.0
    outside: bool = False  # are tiles of a part given, so that about two of five pictures lie outside
    epochs: int = 0  # of training on the city's own imagery
    seed: int = 0  # of the city


# what notebook 07 searches, of a style that neither the encoders nor the calibrations have seen
CASES = {
    "tiny": Case(style="downtown", places=12, city_size_m=420.0, epochs=1),
    "laptop": Case(style="downtown", epochs=EPOCHS),
    "paper": Case(style="downtown", places=3000, city_size_m=3000.0, epochs=EPOCHS),
}


@dataclass(frozen=True, eq=False)
class Trial:
    """A search whose truth was opened after it."""

    found: Search
    candidates: Candidates  # that were searched
    where_m: np.ndarray  # (N, 2) where the pictures were taken, in the candidates' metres

    def alone(self) -> Placement:
        """Each picture placed alone."""
        return place_alone(self.found.calibration, self.found.evidence)

    def together(self, scale: float | None = None) -> Placement:
        """All pictures placed as one drive with time stamps; of its speed SPEED_M_S is told."""
        order, seconds = drive_past(self.where_m)
        scale = self.found.calibration.scale if scale is None else scale
        return place_together(self.found.cosines, scale, order, SPEED_M_S * np.diff(seconds), self.candidates)

    def error_m(self, best: np.ndarray | None = None) -> np.ndarray:
        """(N, B) metres between candidates (N, B), or the best of each picture alone, and the truth."""
        best = self.found.evidence.best if best is None else best
        return np.linalg.norm(self.candidates.centre_m[best] - self.where_m[:, None], axis=-1)

    def right(self, placement: Placement | None = None) -> np.ndarray:
        """(N,) 1 where the first candidate lies within RADIUS_M of the truth, else 0."""
        return (self.error_m(placement and placement.best)[:, 0] <= RADIUS_M).astype(float)

    def outside(self) -> np.ndarray:
        """(N,) bool: which pictures no candidate is near enough to."""
        return cKDTree(self.candidates.centre_m).query(self.where_m)[0] > RADIUS_M

    def degrees(self) -> np.ndarray:
        """(N, 2) latitude and longitude where the pictures were taken."""
        return from_metres(self.where_m, self.candidates.mosaic.origin)


def drive_past(where_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A drive past all places (N, 2), each time to the nearest that is left: their order, and seconds of time stamps.

    A synthetic city's pictures come in no order. The drive goes at 5 to 10 metres a second; it is what a camera's clock
    would tell, and all of the truth that enters.
    """
    left = np.ones(len(where_m), bool)
    order, here = [], int(where_m.sum(1).argmin())
    for _ in where_m:
        order.append(here)
        left[here] = False
        here = int(np.where(left, np.hypot(*(where_m - where_m[here]).T), np.inf).argmin())
    path = where_m[order]
    speed = np.random.default_rng(len(path)).uniform(5, 10, len(path) - 1)
    return np.array(order), np.append(0.0, np.cumsum(np.hypot(*np.diff(path, axis=0).T) / speed))


def world_city(case: Case, *, progress: bool = True) -> Path:
    """A city of the case, exported to the run cache unless it lies there; with a folder of its western tiles."""
    photo = case.kind == "photo"
    name = f"{case.style}-{case.seed}-{case.places}-{case.city_size_m:g}" + f"-photo{FOV_DEG:g}" * photo
    root = paths.runs() / "cities" / name
    if not root.exists():
        world = replace(
            OWN_CITY, styles=(case.style,), places=case.places, seed=case.seed, panorama_px=512 if photo else 128,
            city_size_m=case.city_size_m,
        )  # fmt: skip
        export_own_city(root, world, photo_fov_deg=FOV_DEG if photo else None, progress=progress)
    if case.outside and not (part := root / PART).exists():
        columns = sorted((root / "tiles").glob("*/*"))
        with new_folder(part) as scratch:
            for column in columns[: round(len(columns) * WESTERN)]:
                shutil.copytree(column, scratch / column.relative_to(root / "tiles"))
    return root


def request_for(case: Case, city: Path, out: Path) -> Request:
    """What one would ask `ucvgl locate` for this city: headings stated or tabled, unless they are to be searched."""
    tiles = city / (PART if case.outside else "tiles")
    request = Request(city / "ground", tiles, out, kind=case.kind, epochs=case.epochs)
    if case.kind == "photo":
        return replace(request, ground_table=None if case.searched else city / "ground.csv", fov_deg=FOV_DEG)
    return replace(request, heading_deg=None if case.searched else 0.0)


def search_city(case: Case, *, progress: bool = True) -> Trial:
    """Searches a city of the case as anybody's, then opens its truth."""
    city = world_city(case, progress=progress)
    inputs = read_inputs(request_for(case, city, city / "found"), progress=False)
    return opened(search(inputs, case.kind, progress=progress), inputs)


def opened(found: Search, inputs: Inputs) -> Trial:
    """A search in a city of the embedded world, and its truth."""
    names = [picture.file for picture in found.pictures]
    truth = read_truth(inputs.request.ground.parent / "truth.csv", names)
    where = to_metres(Positions([truth[name] for name in names], Wgs84()), inputs.mosaic.origin).values
    return Trial(found, inputs.candidates, where)


def is_own(data: str) -> bool:
    """Whether `data` is a folder with ground/ and tiles/, somebody's own."""
    return data != WORLD and all((Path(data) / name).is_dir() for name in ("ground", "tiles"))


def request(case: Case, data: str, out: Path) -> Request:
    """What notebook 07 asks `ucvgl locate` for: the exported city, or the folder of one's own."""
    if not is_own(data):
        return request_for(case, world_city(case), out)
    root = Path(data)
    tables = (path if path.is_file() else None for path in (root / "ground.csv", root / "tiles.csv"))
    return Request(root / "ground", root / "tiles", out, *tables, epochs=case.epochs)
