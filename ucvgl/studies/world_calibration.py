"""How often `ucvgl locate` is right, measured where truth is known: the calibrations that are committed beside the encoders.

Cities of a style that the encoders have not learnt from are exported, searched as anybody's would be, and compared with
the truth; a logistic regression of the evidence (confidence.py) is fitted for each kind of picture, with known headings
and with searched ones. Another style, seen by neither, tells whether it holds (notebook 07).
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ucvgl import paths
from ucvgl.locate.confidence import Calibration, Evidence, fit_calibration, placed_right, save_calibration
from ucvgl.locate.located import read_truth, true_positions
from ucvgl.locate.looked import Looked, Request, look
from ucvgl.locate.pictures import Kind
from ucvgl.locate.search import Search, calibration_name, search
from ucvgl.positions import Positions, to_metres
from ucvgl.world.own_city import export_own_city

STYLE = "old_town"  # the encoders learnt from garden and canal; downtown is left for the check
APART_M = 1e7  # by which cities are moved apart to be looked at as one


@dataclass(frozen=True)
class Case:
    """Which pictures of the world are searched for."""

    kind: Kind = "panorama"
    searched: bool = False  # are their headings hidden
    style: str = STYLE
    seeds: tuple[int, ...] = (11, 12)  # a city each
    places: int = 300  # in each
    fov_deg: float = 80.0  # of photos
    city_size_m: float = 1000.0

    @property
    def name(self) -> str:
        """As the calibration's file is called."""
        return calibration_name(self.kind, searched=self.searched)


CASES = tuple(Case(kind, searched) for kind in ("panorama", "photo") for searched in (False, True))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Judged:
    """A search in a city whose truth is known; the truth in the candidates' metres."""

    looked: Looked
    found: Search
    truth: Positions

    @property
    def candidates(self) -> Positions:
        """Where the candidates lie."""
        return self.looked.candidates.positions_m

    def errors_m(self) -> np.ndarray:
        """(N, 5) metres between each of the best candidates and the truth."""
        apart = self.candidates.values[self.found.evidence.best] - self.truth.values[:, None]
        return np.hypot(apart[..., 0], apart[..., 1])

    def right(self) -> np.ndarray:
        """(N,) 1 where a picture is placed right, else 0."""
        return placed_right(self.found.evidence, self.candidates, self.truth)


def world_city(case: Case, seed: int, *, progress: bool = True) -> Path:
    """A city of the case, exported to the run cache unless it lies there."""
    photo = case.kind == "photo"
    name = f"{case.style}-{seed}-{case.places}-{case.city_size_m:g}" + f"-photo{case.fov_deg:g}" * photo
    root = paths.runs() / "cities" / name
    if not root.exists():
        export_own_city(
            root, case.style, case.places, seed, photo_fov_deg=case.fov_deg if photo else None,
            panorama_px=512 if photo else 128, city_size_m=case.city_size_m, progress=progress,
        )  # fmt: skip
    return root


def request_for(case: Case, city: Path, out: Path) -> Request:
    """What one would ask `ucvgl locate` for this city: headings stated or tabled, unless they are to be searched."""
    request = Request(city / "ground", city / "tiles", out, kind=case.kind)
    if case.kind == "photo":
        request = replace(request, ground_table=city / "ground.csv", fov_deg=case.fov_deg)
    else:
        request = replace(request, heading_deg=0.0)
    if case.searched:
        request = replace(request, heading_deg=None, ground_table=None)
    return request


def judge(case: Case, seed: int, *, epochs: int | None = None, progress: bool = True) -> Judged:
    """Searches a city of the case as anybody's, then opens its truth.

    Args:
        case: which pictures.
        seed: of the city.
        epochs: of training on the city's imagery; None: the command's default.
        progress: show bars.
    """
    city = world_city(case, seed, progress=progress)
    with tempfile.TemporaryDirectory() as out:
        request = request_for(case, city, Path(out))
        looked = look(request if epochs is None else replace(request, epochs=epochs), progress=False)
    found = search(looked.ground, case.kind, looked.candidates, looked.config, progress=progress)
    where = true_positions(looked.ground.images(case.kind).ids, read_truth(city / "truth.csv"))
    return Judged(looked, found, to_metres(where, looked.mosaic.origin))


def joined(parts: Sequence[Judged]) -> tuple[Evidence, Positions, Positions]:
    """Several searches as one: evidence, candidates and truth, the cities moved apart."""
    evidence = [part.found.evidence for part in parts]
    first = np.cumsum([0, *(len(part.candidates) for part in parts)])
    frame = parts[0].candidates.frame

    def apart(values: Sequence[np.ndarray]) -> Positions:
        moved = [value + np.array([APART_M * i, 0.0]) for i, value in enumerate(values)]
        return Positions(np.concatenate(moved), frame)

    return (
        Evidence(
            np.concatenate([e.values for e in evidence]),
            np.concatenate([e.best + offset for e, offset in zip(evidence, first[:-1], strict=True)]),
            np.concatenate([e.score for e in evidence]),
            np.concatenate([e.distance_m for e in evidence]),
            evidence[0].settings,
        ),
        apart([part.candidates.values for part in parts]),
        apart([part.truth.values for part in parts]),
    )


def calibrate(case: Case, *, progress: bool = True) -> Calibration:
    """Fits the probability of being right for such pictures."""
    parts = [judge(case, seed, progress=progress) for seed in case.seeds]
    headings = "headings searched for" if case.searched else "known headings"
    words = f"{len(parts)} synthetic cities of the style {case.style}, {case.places} {case.kind}s each, {headings}"
    return fit_calibration(*joined(parts), measured_on=words)


def write_calibrations(folder: Path, cases: Sequence[Case] = CASES, *, progress: bool = True) -> list[Path]:
    """Fits and writes one file a case; a minute or two each on two cores."""
    out = []
    for case in cases:
        out.append(folder / f"{case.name}.json")
        save_calibration(calibrate(case, progress=progress), out[-1])
    return out
