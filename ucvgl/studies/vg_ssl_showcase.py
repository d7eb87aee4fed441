"""What notebook 06 shows: pairs, activation maps, retrieved photos, and the published values beside ours."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ucvgl.augment import to_float
from ucvgl.data.container import Dataset
from ucvgl.encoders import TwoViewEncoder
from ucvgl.lab import published
from ucvgl.lab.profiles import VgSslSettings
from ucvgl.lab.score import Comparison
from ucvgl.lab.stages import learn
from ucvgl.methods.vg_ssl import describe, trained_encoder, untrained_encoder
from ucvgl.search import top_k
from ucvgl.studies.vg_ssl_study import NAMES, TESTS, UNTRAINED

TABLE = "vg_ssl_r50"  # published with ResNet-50; published.json has DeiT-S too
LISTED = 5


# -------------------------------------------------------------------------------------------------------------- pictures


def pair_examples(tests: Mapping[str, Dataset], count: int = 4) -> dict[str, tuple[list[Tensor], list[Tensor]]]:
    """Queries of each test set and the database photo nearest to them."""
    out = {}
    for name, test in tests.items():
        rows = np.linspace(0, len(test) - 1, min(count, len(test))).astype(int)
        best = test.positives.best()
        out[f"{name}: as {TESTS[name][0]}" if name in TESTS else name] = (
            [test.query[i] for i in rows], [test.gallery[int(best[i])] for i in rows],
        )  # fmt: skip
    return out


def encoders(settings: VgSslSettings, train: Dataset, tests: Mapping[str, Dataset]) -> dict[str, TwoViewEncoder]:
    """The untrained encoder and each method's, from the run cache; a collapsed one is left out."""
    found = {UNTRAINED: untrained_encoder(next(iter(settings.methods.values())))}
    for key, config in settings.methods.items():
        stage = learn(train, config, tests, progress=False)
        if not stage.numbers["collapsed"]:
            found[NAMES[key][0]] = trained_encoder(stage.folder, config)
    return found


def activation_map(model: TwoViewEncoder, images: Tensor) -> Tensor:
    """How strongly each position of the last feature map responds: the norm over its channels, (B, h, w)."""
    encoder = model.ground
    with torch.inference_mode():
        maps = encoder.features(to_float(images).to(encoder.mean.device))
    return maps.float().norm(dim=1).cpu().clone()


def activation_arguments(models: Mapping[str, TwoViewEncoder], test: Dataset, rows: Sequence[int]) -> dict[str, object]:
    """Arguments of `activation_sheet`: a few queries of a test set and their nearest positives."""
    rows = [row % len(test) for row in rows]
    best = test.positives.best()
    query, positive = test.query[rows], test.gallery[[int(best[row]) for row in rows]]
    maps = {name: (activation_map(model, query), activation_map(model, positive)) for name, model in models.items()}
    return {"query": list(query), "positive": list(positive), "maps": maps}


Found = tuple[Tensor, Tensor]  # index (Q, k) and right (Q, k)


def retrieved(model: TwoViewEncoder, test: Dataset, k: int = LISTED) -> Found:
    """The nearest database photos of each query, and which of them are right."""
    query, database = describe(model, test)
    index = top_k(query, database, min(k, len(database)))[1]
    right = [np.isin(row, test.positives[i]) for i, row in enumerate(index.numpy())]
    return index, torch.from_numpy(np.stack(right))


def all_retrieved(models: Mapping[str, TwoViewEncoder], tests: Mapping[str, Dataset]) -> dict[str, dict[str, Found]]:
    """Of each model on each test set."""
    return {name: {test: retrieved(model, given) for test, given in tests.items()} for name, model in models.items()}


def retrieval_arguments(test: Dataset, found: Mapping[str, Found], names: Sequence[str]) -> dict[str, object]:
    """Arguments of `retrieval_rows`: one query, the first that the last of the methods gets right and the first wrong."""
    names = [name for name in names if name in found]
    right = {name: found[name][1][:, 0] for name in names}
    telling = (right[names[-1]] & ~right[names[0]]).nonzero()[:, 0].tolist()
    row = telling[0] if telling else 0
    return {
        "ground": [test.query[row] for _ in names],
        "top_views": None,
        "retrieved": [[test.gallery[j] for j in found[name][0][row].tolist()] for name in names],
        "right": torch.stack([found[name][1][row] for name in names]),
        "captions": [next((text for key, text, _ in NAMES.values() if key == name), name) for name in names],
    }


# ----------------------------------------------------------------------------------------------------------------- tables


def long(frame: pd.DataFrame, tests: Sequence[str]) -> pd.DataFrame:
    """The main table with a row a method and test set, as `method_bars` takes it."""
    rows = [
        {"method": UNTRAINED if part == UNTRAINED else NAMES[part][0], "test": test, "r_at_1": value}
        for test in tests
        for part, value in zip(frame["part"], frame[f"{test}_r_at_1"], strict=True)
    ]
    return pd.DataFrame(rows)


def published_long(tests: Sequence[str]) -> pd.DataFrame | None:
    """The published values of the sets that ours stand for, in the same form."""
    known = [test for test in tests if test in TESTS]
    rows = [
        {"method": NAMES[key][0], "test": test, "r_at_1": published.value(TABLE, key, f"{TESTS[test][1]}_r_at_1")}
        for test in known
        for key in NAMES
    ]
    return pd.DataFrame(rows) if rows else None


def columns_of(tests: Sequence[str], measures: Sequence[str] = ("r_at_1",)) -> list[tuple[str, str]]:
    """(ours, published) columns of the main table, for test sets that have a published counterpart."""
    known = list(published.frame(TABLE))
    prefixes = {test: TESTS[test][1] if test in TESTS else next((c for c in _prefixes(known) if c.startswith(test)), "")
                for test in tests}  # fmt: skip
    pairs = [(f"{test}_{m}", f"{prefix}_{m}") for test, prefix in prefixes.items() for m in measures]
    return [(ours, theirs) for ours, theirs in pairs if theirs in known]


def _prefixes(columns: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name.removesuffix("_r_at_1") for name in columns if name.endswith("_r_at_1")))


def main_published(frame: pd.DataFrame, tests: Sequence[str]) -> dict[str, list[float | None]]:
    """The published columns for the rows of ours; the untrained encoder was not published."""
    rows = [None if part == UNTRAINED else part for part in frame["part"]]
    return {theirs: published.column(TABLE, theirs, rows=rows) for _, theirs in columns_of(tests)}


def comparisons(frame: pd.DataFrame, tests: Sequence[str]) -> dict[str, Comparison]:
    """The main table beside the published one."""
    steps = columns_of(tests)
    theirs = published.frame(TABLE, key="part")
    gap = ("simsiam", "simclr")
    return {"main": Comparison(frame, theirs, steps, "part", "VG-SSL", gap)} if steps else {}


def cost_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """The cost table as `cost_bars` takes it."""
    return frame.assign(training_seconds=(frame["epoch_seconds"] - frame["mining_seconds"]).clip(lower=0))
