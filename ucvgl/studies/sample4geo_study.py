"""Tables of notebook 05: a line for each row, whose trainings the run cache keeps."""

from collections.abc import Mapping

import pandas as pd

from ucvgl.data.container import Parts
from ucvgl.lab import stages
from ucvgl.lab.material import (
    for_supervision,
    located,
    one_area,
)
from ucvgl.lab.profiles import Sample4GeoSettings
from ucvgl.lab.rows import chosen
from ucvgl.lab.stages import supervise
from ucvgl.lab.variants import SAMPLING, architecture, on_same_terms, with_sampler
from ucvgl.methods import ucvgl
from ucvgl.methods.sample4geo import trained_model


def sampler_names(areas: list[Parts]) -> dict[str, str]:
    """The rows of the sampling table: where positions are not known, those that need none."""
    known = all(located(area.train) for area in areas)
    names = {part: name for part, name in NAMES.items() if known or SAMPLING[part] in ("random", "similarity")}
    return chosen("05/sampling", names)


NAMES = {  # by the keys of the published ablation
    "random": "random",
    "gps_only": "geographic neighbours",
    "dss_only": "look-alikes (DSS)",
    "full": "geographic, then look-alikes: Sample4Geo",
}


def sampling_table(settings: Sample4GeoSettings, areas: list[Parts], *, progress: bool = True) -> pd.DataFrame:
    """A row a sampler: recall and hit rate in the same area, and, where there is one, in another, as cross_..."""
    rows = []
    for part, name in sampler_names(areas).items():
        row: dict[str, str | float] = {"part": part, "sampling": name}
        for area in areas:
            stage = supervise(area.train, with_sampler(settings, part), area.tests, progress=progress)
            for test, measures in stage.numbers["recall"].items():
                prefix = "" if test == "same" else f"{test}_"
                row |= {f"{prefix}{name}": value for name, value in measures.items() if name != "ap"}
        rows.append(row)
    return pd.DataFrame(rows)


def generalisation_table(
    settings: Sample4GeoSettings, cities: Mapping[str, Parts], *, progress: bool = True
) -> pd.DataFrame:
    """A row for each style trained on and each tested on; the test places are never trained on."""
    rows = []
    for trained_on, area in chosen("05/generalisation", cities).items():
        stage = supervise(area.train, settings.method, area.tests, progress=progress)
        for tested_on, measures in stage.numbers["recall"].items():
            kept = {name: value for name, value in measures.items() if name != "ap"}
            part = f"{trained_on}_to_{tested_on}"
            rows.append({"part": part, "trained_on": trained_on, "tested_on": tested_on, **kept})
    return pd.DataFrame(rows)


DIRECTIONS = {"d2s": "drone -> satellite", "s2d": "satellite -> drone"}


def drone_table(settings: Sample4GeoSettings, flights: Parts, *, progress: bool = True) -> pd.DataFrame:
    """Both directions from one training, with average precision."""
    stage = supervise(flights.train, settings.drone, flights.tests, progress=progress)
    return pd.DataFrame(
        {"part": test, "direction": DIRECTIONS[test], **measures} for test, measures in stage.numbers["recall"].items()
    )


ARCHITECTURES = {
    "full": "top views, shared weights, smoothing 0.1",
    "separate": "separate weights",
    "no_smoothing": "no label smoothing",
    "raw": "panoramas and tiles as they are, separate weights",
    "polar": "panoramas and polar-transformed tiles, separate weights",
}


def architecture_table(settings: Sample4GeoSettings, data: str, *, progress: bool = True) -> pd.DataFrame:
    """A row for each change of the network, its input or its loss, all with Sample4Geo's sampling."""
    rows = []
    for part, name in chosen("05/architecture", ARCHITECTURES).items():
        method = architecture(settings, part)
        area = one_area(settings, data, method, progress=progress)
        stage = supervise(area.train, method, area.tests, progress=progress)
        seconds = sum(row["seconds"] for row in stage.numbers["rows"])
        own = next(iter(area.tests))
        measures = {
            name: value for name, value in stage.numbers["recall"][own].items() if name not in ("ap", "hit_rate")
        }
        rows.append({"part": part, "network": name, **measures, "seconds": round(seconds, 1)})
    return pd.DataFrame(rows)


UNLABELLED = {
    "ucvgl": "UCVGL, 0 % labels",
    "ucvgl_hard": "UCVGL, 0 % labels, look-alikes of its pseudo-pairs in a batch: in neither paper",
    "random": "Sample4Geo, 100 %, random batches",
    "sample4geo": "Sample4Geo, 100 %, look-alikes in a batch",
}


def unlabelled_table(settings: Sample4GeoSettings, given: Parts, *, progress: bool = True) -> pd.DataFrame:
    """With labels and without: the same encoders, data, augmentation, epochs and measure (descriptors centred)."""
    other, rows = settings.unlabelled, []
    for part, name in chosen("05/unlabelled", UNLABELLED).items():
        if part.startswith("ucvgl"):
            hard = settings.method.sampling.draw if part == "ucvgl_hard" else None
            found = stages.curriculum(given.unlabelled, other.curriculum, given, hard=hard, progress=progress).numbers
            recall, seconds = found["recall"], sum(row["seconds"] for row in found["rows"])
        else:
            method = on_same_terms(settings, "random" if part == "random" else "similarity")
            area = for_supervision(method, given)
            stage = supervise(area.train, method, area.tests, progress=progress)
            model = trained_model(stage.folder, method)
            recall = ucvgl.evaluate(ucvgl.describe(model, given.test, other.start), given.test.positives)
            seconds = sum(row["seconds"] for row in stage.numbers["rows"])
        rows.append({"part": part, "method": name, **recall, "seconds": round(seconds, 1)})
    return pd.DataFrame(rows)
