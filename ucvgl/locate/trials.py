"""Cities whose truth is known, searched as their owner would: for notebook 07, and for the committed calibrations.

Cities of the embedded world are exported as two folders, or somebody's own folder with ground/ and tiles/ is taken; the
truth is opened after the search alone.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from ucvgl import paths
from ucvgl.lab.plots import ranked
from ucvgl.lab.results import WORLD
from ucvgl.locate.confidence import RADIUS_M, probabilities
from ucvgl.locate.located import Truth, read_truth
from ucvgl.locate.looked import Request, look
from ucvgl.locate.pictures import Kind
from ucvgl.locate.report import Outcome
from ucvgl.locate.search import Search, calibration_of, search
from ucvgl.locate.views import read_picture
from ucvgl.metrics import calibration_error
from ucvgl.positions import Positions, Wgs84, to_metres
from ucvgl.world.own_city import export_own_city

FOV_DEG = 80.0  # of photos
PICTURE_PX = 512  # longer edge of a picture in a figure


@dataclass(frozen=True)
class Case:
    """A city of the embedded world, and which pictures of it are searched for."""

    kind: Kind = "panorama"
    searched: bool = False  # are their headings hidden
    style: str = "old_town"
    places: int = 300
    city_size_m: float = 1000.0


@dataclass(frozen=True)
class Study:
    """What a profile looks at.

    Args:
        case: the city that is searched: of a style that neither the encoders nor the calibration have seen.
        seed: of that city.
        again: a city of the style that the calibration was fitted on, but not one of its cities.
        cases: kinds of pictures that are compared.
        epochs: of training on the city's own imagery.
    """

    case: Case
    seed: int
    again: Case
    cases: tuple[Case, ...]
    epochs: int


def study(profile: str, seed: int) -> Study:
    """The settings of a profile."""
    size, epochs = {
        "tiny": ({"places": 12, "city_size_m": 420.0}, 1), "laptop": ({}, 10),
        "paper": ({"places": 3000, "city_size_m": 3000.0}, 20),
    }[profile]  # fmt: skip
    city = Case(style="downtown", **size)
    photo = replace(city, kind="photo")
    if profile == "laptop":  # photos in a smaller city, for a minute each
        photo = replace(photo, places=150, city_size_m=700.0)
    cases = (city, replace(city, searched=True), photo, replace(photo, searched=True))
    return Study(city, 100 + seed, replace(city, style="old_town"), cases, epochs)


def is_own(data: str) -> bool:
    """Whether `data` is a folder with ground/ and tiles/, somebody's own."""
    return data != WORLD and all((Path(data) / name).is_dir() for name in ("ground", "tiles"))


def world_city(case: Case, seed: int, *, progress: bool = True) -> Path:
    """A city of the case, exported to the run cache unless it lies there."""
    photo = case.kind == "photo"
    name = f"{case.style}-{seed}-{case.places}-{case.city_size_m:g}" + f"-photo{FOV_DEG:g}" * photo
    root = paths.runs() / "cities" / name
    if not root.exists():
        export_own_city(
            root, case.style, case.places, seed, photo_fov_deg=FOV_DEG if photo else None,
            panorama_px=512 if photo else 128, city_size_m=case.city_size_m, progress=progress,
        )  # fmt: skip
    return root


def request_for(case: Case, city: Path, out: Path) -> Request:
    """What one would ask `ucvgl locate` for this city: headings stated or tabled, unless they are to be searched."""
    request = Request(city / "ground", city / "tiles", out, kind=case.kind)
    if case.kind == "photo":
        return replace(request, ground_table=None if case.searched else city / "ground.csv", fov_deg=FOV_DEG)
    return replace(request, heading_deg=None if case.searched else 0.0)


def search_city(
    case: Case, seed: int, *, epochs: int | None = None, progress: bool = True
) -> tuple[Search, np.ndarray]:  # fmt: skip
    """Searches a city of the case as anybody's, then opens its truth.

    Args:
        case: which pictures.
        seed: of the city.
        epochs: of training on the city's imagery; None: the command's default.
        progress: show bars.

    Returns:
        what was found, and (N, 5) metres between each of the best candidates and the truth.
    """
    city = world_city(case, seed, progress=progress)
    request = request_for(case, city, city / "found")
    looked = look(request if epochs is None else replace(request, epochs=epochs), progress=False)
    found = search(looked.ground, case.kind, looked.candidates, looked.config, progress=progress)
    names = [picture.file for picture in found.pictures]
    truth = read_truth(city / "truth.csv", names)
    where = to_metres(Positions([truth[name] for name in names], Wgs84()), looked.mosaic.origin).values
    return found, np.linalg.norm(looked.candidates.centre_m[found.evidence.best] - where[:, None], axis=-1)


def claimed_and_right(case: Case, seed: int, epochs: int) -> tuple[np.ndarray, np.ndarray]:
    """The predicted probability (N,) of each picture of a city, and whether it is right, 1 or 0."""
    found, error_m = search_city(case, seed, epochs=epochs)
    return probabilities(calibration_of(found), found.evidence), (error_m[:, 0] <= RADIUS_M).astype(float)


def row(case: Case, seed: int, epochs: int) -> dict[str, object]:
    """How many pictures of a kind are found, as a row of a table."""
    found, error_m = search_city(case, seed, epochs=epochs)
    right, claimed = error_m <= RADIUS_M, probabilities(calibration_of(found), found.evidence)
    return {
        "pictures": f"{case.kind}s, {'headings searched for' if case.searched else 'headings known'}",
        "encoders": "as they came" if epochs == 0 else f"trained on the city for {epochs} epoch{'s' * (epochs > 1)}",
        "placed": len(right),
        "within_10_m": 100 * float(right[:, 0].mean()),
        "of_best_five": 100 * float(right.any(1).mean()),
        "median_m": float(np.median(error_m[:, 0])),
        "claimed": 100 * float(claimed.mean()),
        "calibration_error": 100 * calibration_error(claimed, right[:, 0]),
        "mutual": 100 * max(one.mutual_rate for one in found.rounds),
    }


# ----------------------------------------------------------------------------------------------------- the notebook's city


def request(settings: Study, data: str, out: Path) -> Request:
    """What `ucvgl locate` is asked for: the exported city, or the folder of one's own."""
    if not is_own(data):
        asked = request_for(settings.case, world_city(settings.case, settings.seed), out)
        return replace(asked, epochs=settings.epochs)
    root = Path(data)
    tables = (path if path.is_file() else None for path in (root / "ground.csv", root / "tiles.csv"))
    return Request(root / "ground", root / "tiles", out, *tables, epochs=settings.epochs)


def truth_of(outcome: Outcome) -> Truth:
    """The known positions, for the evaluation alone, of truth.csv beside the folder of pictures; none without it."""
    path = outcome.looked.request.ground.parent / "truth.csv"
    return read_truth(path, [one.picture for one in outcome.located]) if path.is_file() else {}


def views_of(outcome: Outcome) -> dict[str, Tensor]:
    """What the encoder was given, by pictures' names."""
    searches = outcome.searches.values()
    return {p.file: v for found in searches for p, v in zip(found.pictures, found.images.top_view, strict=True)}


def picture_of(outcome: Outcome, name: str) -> Tensor:
    """A street picture, small: (3, H, W) uint8."""
    ground = outcome.looked.ground
    return read_picture(ground, next(p for p in ground.pictures if p.file == name), PICTURE_PX)


def _tiles(outcome: Outcome, number: int) -> list[Tensor]:
    """The best candidates of a picture."""
    cut = outcome.looked.candidates
    return [cut.read(cut.ids.index(c.tile)) for c in outcome.located[number].candidates]


def rows_of(outcome: Outcome, right: np.ndarray) -> dict[str, object]:
    """The arguments of `city_figures.candidates_row`: the surest right and wrong pictures, and a doubtful one of each."""
    order = np.argsort([-one.probability for one in outcome.located], kind="stable")
    good, bad = (order[right[order, 0] == value] for value in (1.0, 0.0))
    shown = [*good[:1], *good[len(good) // 2 :][:1], *bad[:1], *bad[len(bad) // 2 :][:1]] or order[:4]
    chosen, views, known = [outcome.located[i] for i in shown], views_of(outcome), {1.0: True, 0.0: False}
    return {
        "picture": [picture_of(outcome, one.picture) for one in chosen],
        "top_view": [views[one.picture] for one in chosen],
        "tiles": [_tiles(outcome, i) for i in shown],
        "captions": [
            [f"{c.distance_m:.0f} m away" if k else "taken as its place" for k, c in enumerate(one.candidates)]
            for one in chosen
        ],
        "right": [[known.get(r) for r in right[i, : len(outcome.located[i].candidates)].tolist()] for i in shown],
        "titles": [f"claimed {one.probability:.2f}" for one in chosen],
    }


def candidates_of(outcome: Outcome, name: str, right: np.ndarray) -> dict[str, Tensor]:
    """The best candidates of a picture, the first being its place, framed where `right`, (N, 5), is known, by captions."""
    number = next(number for number, one in enumerate(outcome.located) if one.picture == name)
    best = outcome.located[number].candidates
    notes = [f"score {c.score:.3f}, {f'{c.distance_m:,.0f} m away' if k else 'the place'}" for k, c in enumerate(best)]
    return ranked(_tiles(outcome, number), range(len(best)), right[number, : len(best)], notes)


def browsed(outcome: Outcome, right: np.ndarray) -> pd.DataFrame:
    """A row a picture: its name, whether its place is right, how sure that is, and what a reader should know of it."""
    known, rows = {1.0: "right", 0.0: "wrong"}, []
    for one, first in zip(outcome.located, right[:, 0].tolist(), strict=True):
        words = [f"{100 * one.probability:.0f} % sure that it was taken within {RADIUS_M:g} m of candidate 1"]
        for level, radius in ((50, one.radius_m), (90, one.radius_90_m)):
            if radius is None:
                words.append(f"how far with {level} % is not known")
            elif radius > RADIUS_M:  # else it is said already
                words.append(f"{level} % sure of {radius:,.0f} m")
        place = known.get(first, "not known")
        rows.append((one.picture, place, one.probability, "; ".join([*words, *one.notes])))
    return pd.DataFrame(rows, columns=["picture", "place", "probability", "in words"])
