"""Notebook 07: a city searched as its owner would, and then its truth opened, to see what the claims are worth."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from ucvgl.data.decoding import decode_file
from ucvgl.errors import InputError
from ucvgl.lab.plots import ranked
from ucvgl.lab.results import WORLD
from ucvgl.locate.confidence import BEST, probabilities
from ucvgl.locate.located import Located, by_picture, compare, errors_m, read_truth, true_positions
from ucvgl.locate.looked import Looked, Request
from ucvgl.locate.output import background
from ucvgl.locate.pictures import Kind
from ucvgl.locate.run import Outcome
from ucvgl.locate.search import calibration_of
from ucvgl.metrics import calibration_error, claimed_and_true_precision, threshold_for
from ucvgl.studies.world_calibration import Case, Judged, judge, request_for, world_city

HERE, AGAIN = "this city", "a fresh city of the calibration's style"
SHARES = (0.25, 0.5, 0.75, 1.0)  # of the pictures, the surest first


@dataclass(frozen=True)
class CityStudy:
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


def study(profile: str, seed: int) -> CityStudy:
    """The settings of a profile."""
    match profile:
        case "tiny":
            city, epochs = Case(style="downtown", places=12, city_size_m=420.0), 1
        case "laptop":
            city, epochs = Case(style="downtown"), 10
        case "paper":
            city, epochs = Case(style="downtown", places=3000, city_size_m=3000.0), 20
        case _:
            raise InputError("profile", expected="tiny, laptop or paper", found=repr(profile), todo="Choose one.")
    photo = replace(city, kind="photo")
    if profile == "laptop":  # photos in a smaller city, for a minute each
        photo = replace(photo, places=150, city_size_m=700.0)
    cases = (city, replace(city, searched=True), photo, replace(photo, searched=True))
    return CityStudy(city, 100 + seed, replace(city, style="old_town"), cases, epochs)


def is_own(data: str) -> bool:
    """Whether `data` is a folder with ground/ and tiles/, somebody's own."""
    return data != WORLD and all((Path(data) / name).is_dir() for name in ("ground", "tiles"))


def request(settings: CityStudy, data: str, out: Path) -> Request:
    """What `ucvgl locate` is asked for: the exported city, or the folder of one's own."""
    if not is_own(data):
        city = world_city(settings.case, settings.seed)
        asked = request_for(settings.case, city, out)
        return replace(asked, epochs=settings.epochs)
    root = Path(data)
    tables = (root / "ground.csv", root / "tiles.csv")
    found = [path if path.is_file() else None for path in tables]
    return Request(root / "ground", root / "tiles", out, *found, epochs=settings.epochs)


def truth_of(settings: CityStudy, data: str) -> dict[str, tuple[float, float]]:
    """The known positions, for the evaluation alone: of the exported city, or of truth.csv in one's own folder."""
    path = (Path(data) if is_own(data) else world_city(settings.case, settings.seed)) / "truth.csv"
    return read_truth(path) if path.is_file() else {}


# ------------------------------------------------------------------------------------------------------------- the tables


def case_table(settings: CityStudy, *, progress: bool = True) -> pd.DataFrame:
    """How many pictures of each kind are found; for the first kind also with the encoders as they came."""
    runs = [(settings.case, 0), *((case, settings.epochs) for case in settings.cases)]
    rows = []
    for case, epochs in runs:
        judged = judge(case, settings.seed, progress=progress, epochs=epochs)
        rows.append(_measured(case, epochs, judged))
    return pd.DataFrame(rows)


def _measured(case: Case, epochs: int, judged: Judged) -> dict[str, object]:
    error, right = judged.errors_m(), judged.right()
    claimed = probabilities(calibration_of(judged.found), judged.found.evidence)
    last = judged.found.rounds[-1] if epochs == 0 else max(judged.found.rounds, key=lambda one: one.mutual_rate)
    return {
        "pictures": f"{case.kind}s, {'headings searched for' if case.searched else 'headings known'}",
        "encoders": "as they came" if epochs == 0 else f"trained on the city for {epochs} epoch{'s' * (epochs > 1)}",
        "placed": len(right),
        "within_10_m": 100 * float(right.mean()),
        "of_best_five": 100 * float((error <= judged.found.evidence.settings.radius_m).any(1).mean()),
        "median_m": float(np.median(error[:, 0])),
        "claimed": 100 * float(claimed.mean()),
        "calibration_error": 100 * calibration_error(claimed, right),
        "mutual": 100 * last.mutual_rate,
    }


def certainty_table(claims: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> pd.DataFrame:
    """Of each city the surest quarter, half, three quarters and all pictures: what is claimed of them and what is true."""
    rows = []
    for city, (probability, right) in claims.items():
        for share in SHARES:
            part = claimed_and_true_precision(probability, right, threshold_for(probability, share))
            rows.append(
                {
                    "city": city, "surest": f"{share:.0%}", "threshold": part.threshold, "placed": part.placed,
                    "claimed": 100 * part.claimed, "right": 100 * part.true, "apart": 100 * (part.claimed - part.true),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def claims(
    settings: CityStudy, outcome: Outcome, right: np.ndarray, *, progress: bool = True
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What is claimed and what is true: in a fresh city of the calibration's style, and here if anything is known here."""
    found = {AGAIN: judged_probabilities(settings.again, settings.seed, progress=progress, epochs=settings.epochs)}
    if not np.isnan(right[:, 0]).all():
        found[HERE] = (probabilities_of(outcome), right[:, 0])
    return found


def probabilities_of(outcome: Outcome) -> np.ndarray:
    """(N,) of the places."""
    return np.array([one.probability for one in outcome.located])


def headline(outcome: Outcome, truth: Mapping[str, tuple[float, float]], sure: pd.DataFrame) -> dict[str, float | None]:
    """The numbers that a run leaves in results.json."""
    found = compare(outcome.located, _by_picture(outcome, truth), outcome.report.radius_m) if truth else None
    half = sure[(sure["city"] == HERE) & (sure["surest"] == "50%")]
    return {
        "placed": float(len(outcome.located)),
        "within_10_m": None if found is None else 100 * found.recall,
        "median_error_m": None if found is None else found.median_error_m,
        "calibration_error": None if found is None else 100 * found.calibration_error,
        "half_claimed": float(half["claimed"].iloc[0]) if len(half) else None,
        "half_right": float(half["right"].iloc[0]) if len(half) else None,
    }


def judged_probabilities(case: Case, seed: int, *, progress: bool = True, epochs: int) -> tuple[np.ndarray, np.ndarray]:
    """What is claimed of each picture of a city, and whether it is right."""
    judged = judge(case, seed, progress=progress, epochs=epochs)
    return probabilities(calibration_of(judged.found), judged.found.evidence), judged.right()


# ------------------------------------------------------------------------------------------------------- for the pictures


def sheet(looked: Looked, views: Tensor, kind: Kind = "panorama") -> dict[str, object]:
    """The arguments of `city_figures.imagery_sheet`: four pictures spread over the folder, and their top views."""
    names = looked.ground.images(kind).ids
    some = np.linspace(0, len(names) - 1, min(4, len(names))).astype(int)
    return {
        "panoramas": [picture_of(looked, names[i]) for i in some],
        "top_views": [views[i] for i in some],
        "background": background(looked.mosaic)[0],
        "centres": looked.candidates.positions.values,
        "span_m": looked.candidates.span_m,
    }


def right_of(outcome: Outcome, truth: Mapping[str, tuple[float, float]]) -> np.ndarray:
    """(N, 5) 1 where a candidate is within the radius of the known position, 0 where not, NaN where none is known."""
    if not truth:
        return np.full((len(outcome.located), BEST), np.nan)
    error = errors_m(outcome.located, _by_picture(outcome, truth))
    return np.where(np.isnan(error), np.nan, error <= outcome.report.radius_m)


def _by_picture(outcome: Outcome, truth: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    names = [one.picture for one in outcome.located]
    return by_picture(names, true_positions(names, truth))


def rows_of(outcome: Outcome, looked: Looked, right: np.ndarray) -> dict[str, object]:
    """The arguments of `city_figures.candidates_row`: the surest right and wrong pictures, and a doubtful one of each."""
    probability = np.array([one.probability for one in outcome.located])
    order = np.argsort(-probability, kind="stable")
    good, bad = (order[right[order, 0] == value] for value in (1.0, 0.0))
    shown = [*good[:1], *good[len(good) // 2 :][:1], *bad[:1], *bad[len(bad) // 2 :][:1]]
    chosen = [outcome.located[i] for i in (shown or order[:4])]
    return {
        "picture": [picture_of(looked, one.picture) for one in chosen],
        "top_view": [view_of(outcome, looked, one.picture) for one in chosen],
        "tiles": [[tile_of(looked, c.tile) for c in one.candidates] for one in chosen],
        "captions": [
            [f"{c.distance_m:.0f} m away" if k else "taken as its place" for k, c in enumerate(one.candidates)]
            for one in chosen
        ],
        "right": [
            [None if np.isnan(r) else bool(r) for r in right[outcome.located.index(one)][: len(one.candidates)]]
            for one in chosen
        ],
        "titles": [f"claimed {one.probability:.2f}" for one in chosen],
    }


def candidates_of(outcome: Outcome, looked: Looked, name: str, right: np.ndarray) -> dict[str, Tensor]:
    """The best candidates of a picture, the first being its place, framed where `right`, (N, 5), is known, by captions."""
    number = next(number for number, one in enumerate(outcome.located) if one.picture == name)
    best = outcome.located[number].candidates
    notes = [f"score {c.score:.3f}, {f'{c.distance_m:,.0f} m away' if k else 'the place'}" for k, c in enumerate(best)]
    return ranked([tile_of(looked, c.tile) for c in best], range(len(best)), right[number, : len(best)], notes)


def browsed(outcome: Outcome, right: np.ndarray) -> pd.DataFrame:
    """A row a picture: its name, whether its place is right, how sure that is, and in words what a reader should know of it."""
    known = {1.0: "right", 0.0: "wrong"}
    return pd.DataFrame(
        {"picture": one.picture, "place": known.get(first, "not known"), "probability": one.probability,
         "in words": in_words(one, outcome.report.radius_m)}
        for one, first in zip(outcome.located, right[:, 0].tolist(), strict=True)
    )  # fmt: skip


def in_words(one: Located, radius_m: float) -> str:
    """How sure a place is, and what a reader should know of it."""
    text = f"{100 * one.probability:.0f} % sure that it was taken within {radius_m:g} m of candidate 1"
    for level, radius in ((50, one.radius_m), (90, one.radius_90_m)):
        if radius is None:
            text += f"; how far with {level} % is not known"
        elif radius > radius_m:  # else it is said already
            text += f"; {level} % sure of {radius:,.0f} m"
    return "; ".join([text, *one.notes])


def picture_of(looked: Looked, name: str, longest_px: int = 512) -> Tensor:
    """A street picture, small: (3, H, W) uint8."""
    one = next(p for p in looked.ground.pictures if p.file == name)
    shrink = min(1.0, longest_px / max(one.height, one.width))
    size = (max(1, round(one.height * shrink)), max(1, round(one.width * shrink)))
    return decode_file(str(Path(looked.ground.root) / name), size)


def views_of(outcome: Outcome) -> Tensor:
    """The encoder's pictures of the first kind."""
    return next(iter(outcome.searches.values())).images.top_view


def view_of(outcome: Outcome, looked: Looked, name: str) -> Tensor:
    """What the encoder was given for a picture: (3, S, S) uint8."""
    for kind, found in outcome.searches.items():
        names = looked.ground.images(kind).ids  # type: ignore[arg-type]
        if name in names:
            return found.images.top_view[names.index(name)]
    raise InputError("picture", expected="one that was placed", found=name, todo="Take its name from `located`.")


def tile_of(looked: Looked, name: str) -> Tensor:
    """A candidate's picture: (3, S, S) uint8."""
    return looked.candidates.read(looked.candidates.ids.index(name))
