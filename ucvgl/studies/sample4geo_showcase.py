"""What notebook 05 shows: batches of each sampler, how hard their negatives are, curves, and the published values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor

from ucvgl.data.container import ArrayImages, Dataset, Parts
from ucvgl.lab import published
from ucvgl.lab.cache import StageResult
from ucvgl.lab.plots import strip
from ucvgl.lab.profiles import Sample4GeoSettings
from ucvgl.lab.rows import chosen
from ucvgl.lab.score import Comparison
from ucvgl.lab.stages import curriculum, supervise
from ucvgl.lab.variants import with_sampler
from ucvgl.methods.sample4geo import Sample4Geo, SupervisedPairs, describe, trained_model
from ucvgl.positions import Metres, to_metres
from ucvgl.sampling import batches_with_sources
from ucvgl.sampling_figures import batch_map, group_colours
from ucvgl.search import top_k
from ucvgl.studies.sample4geo_study import sampler_names

SAMPLERS = {"random": "random", "geographic": "geographic neighbours", "similarity": "look-alikes (DSS)"}
MEASURES = ("r_at_1", "r_at_5", "r_at_10", "r_at_1_percent")  # of the published ablation
BROWSED = 12  # places of a batch that are shown beside its map
SHOWN = 10  # tiles of a batch that are shown


# ------------------------------------------------------------------------------------------------------------- batches


@dataclass(frozen=True, eq=False)
class Batches:
    """An epoch's batches of each sampler, over the same places.

    Args:
        ground: P, the items' ground images.
        tile: P, and their tiles.
        where_m: (P, 2) metres east and north, or None where positions are not known.
        items: sampler -> (batches, B).
        sources: sampler -> (batches, B), the drawn item that each joined, itself if it was drawn.
        hardest: sampler, hardest: the greatest cosine of each query with a wrong tile of its batch.
    """

    ground: ArrayImages
    tile: ArrayImages
    where_m: Tensor | None
    items: dict[str, Tensor]
    sources: dict[str, Tensor]
    hardest: pd.DataFrame


def batches(given: Dataset, stage: StageResult, method: Sample4Geo, *, seed: int) -> Batches:
    """Draws an epoch with each sampler, the similar places as the trained encoders see them."""
    task, model = SupervisedPairs(given, method), trained_model(stage.folder, method)
    size, draw = method.training.batch_size, method.sampling.draw
    query, tile = (part[rows] for part, rows in zip(describe(model, given), (task.ground, task.tiles), strict=True))
    items, sources, hardest = {}, {}, []
    for source, name in SAMPLERS.items():
        if source == "geographic" and given.gallery.positions is None:
            continue
        near = task.neighbours_by(source, model)
        drawn = batches_with_sources(
            near, size, Generator().manual_seed(seed), draw, place=task.place, places=len(task.tiles)
        )
        items[name], sources[name] = (part.view(-1, size) for part in drawn)
        cosine = hardest_negatives(query, tile[task.place], items[name])
        hardest.append(pd.DataFrame({"sampler": name, "hardest": cosine.tolist()}))
    tiles = task.tiles[task.place]
    return Batches(
        given.query.subset(task.ground), given.gallery.subset(tiles), _where(given, tiles), items, sources,
        pd.concat(hardest, ignore_index=True),
    )  # fmt: skip


def hardest_negatives(query: Tensor, tile: Tensor, items: Tensor) -> Tensor:
    """The greatest cosine of each query with another's tile in its batch.

    Args:
        query: (P, D) descriptors of the items' ground images.
        tile: (P, D) of their tiles.
        items: (batches, B) indices.

    Returns:
        (batches * B,).
    """
    similarity = query[items] @ tile[items].transpose(1, 2)  # (batches, B, B)
    own = torch.eye(items.shape[1], dtype=torch.bool)
    return similarity.masked_fill(own, -torch.inf).amax(2).flatten().clamp(-1, 1)


def _where(given: Dataset, tiles: Tensor) -> Tensor | None:
    if given.gallery.positions is None:
        return None
    places = given.gallery.positions.take(tiles.numpy())
    metres = places if isinstance(places.frame, Metres) else to_metres(places)
    return torch.tensor(metres.values, dtype=torch.float32)


def picture_sheet(drawn: Batches, number: int = 0) -> dict[str, object]:
    """Arguments of `batch_pictures`: the first drawn tile of one batch of each sampler, and those behind it."""
    rows = {name: batch[number][:SHOWN] for name, batch in drawn.items.items()}
    return {
        "tiles_by_sampler": {name: [drawn.tile[i] for i in items] for name, items in rows.items()},
        "marks": {name: (drawn.sources[name][number][:SHOWN] == items).tolist() for name, items in rows.items()},
    }


def map_arguments(drawn: Batches, number: int = 0) -> dict[str, object] | None:
    """Arguments of `batch_map`; None without positions."""
    if drawn.where_m is None:
        return None
    return {
        "where": drawn.where_m,
        "batches": {name: batch[number] for name, batch in drawn.items.items()},
        "anchors": {name: batch[number] for name, batch in drawn.sources.items()},
    }


def browsed(drawn: Batches) -> pd.DataFrame:
    """A row a batch: its sampler, its number, and how many of its places were drawn."""
    return pd.DataFrame(
        {"sampler": name, "batch": number, "drawn places": int((batch == source).sum())}
        for name, items in drawn.items.items()
        for number, (batch, source) in enumerate(zip(items, drawn.sources[name], strict=True), 1)
    )


def batch_look(drawn: Batches, sampler: str, number: int) -> dict[str, Tensor | Figure]:
    """A batch, counted from 1: its first places, ground image and tile, and its map, where positions are known.

    A place has the colour that it has on the map; a drawn place has a broad frame, one that joined it a thin one.
    """
    item, source = drawn.items[sampler][number - 1], drawn.sources[sampler][number - 1]
    colours = group_colours(item.numpy(), source.numpy())
    pairs = {
        f"{place}, {'drawn' if place == joined else f'joined {joined}'}": strip(
            [drawn.ground[place], drawn.tile[place]], colour, frame_px=20 if place == joined else 6
        )
        for place, joined, colour in zip(item.tolist()[:BROWSED], source.tolist(), colours, strict=False)
    }
    where = drawn.where_m
    return pairs | ({} if where is None else {"on the map": batch_map(where, {sampler: item}, {sampler: source})})


# -------------------------------------------------------------------------------------------------------------- curves


def curves(settings: Sample4GeoSettings, areas: Sequence[Parts], names: Mapping[str, str]) -> pd.DataFrame:
    """R@1 by epoch of each sampler, from the stages that the sampling table has trained."""
    rows = []
    for part, name in names.items():
        if part not in sampler_names(areas):
            continue
        for area in areas:
            stage = supervise(area.train, with_sampler(settings, part), area.tests, progress=False)
            for row in stage.numbers["rows"]:
                found = {
                    f"{'' if test == 'same' else 'cross_'}r_at_1": row.get(f"{test}_r_at_1") for test in area.tests
                }
                if any(value is not None for value in found.values()):
                    rows.append({"sampler": name, "epoch": row["epoch"] + 1, **found})
    return pd.DataFrame(rows)


# ----------------------------------------------------------------------------------------------------------- retrieval


def drone_rows(
    stage: StageResult, method: Sample4Geo, test: Dataset, *, count: int = 4, listed: int = 5
) -> dict[str, object]:
    """Arguments of `retrieval_rows`: drone images and the tiles found for them, half of them right if there are such."""
    query, gallery = describe(trained_model(stage.folder, method), test)
    index = top_k(query, gallery, min(listed, len(gallery)))[1]
    known = test.positives.best()
    right = index == known[:, None]
    hits, misses = (flags.nonzero()[:, 0].tolist() for flags in (right[:, 0], ~right[:, 0]))
    rows = (hits[: max(count // 2, count - len(misses))] + misses)[:count]
    return {
        "ground": [test.query[i] for i in rows],
        "top_views": None,
        "retrieved": [[test.gallery[j] for j in index[i].tolist()] for i in rows],
        "right": right[rows],
    }


# ---------------------------------------------------------------------------------------------- published beside ours


def sampling_published(frame: pd.DataFrame) -> dict[str, list[float | None]]:
    """What is known of the published ablation: random sampling and the headline."""
    columns = (*(f"cvact_val_{name}" for name in MEASURES), "vigor_same_r_at_1", "vigor_cross_r_at_1")
    return {name: published.column("sample4geo", name, rows=list(frame["part"])) for name in columns}


def generalisation_published(frame: pd.DataFrame) -> dict[str, list[float | None]]:
    """CVUSA stands beside the first style, CVACT beside the second: which is which is arbitrary. Rows as in the table, the
    later ones left out where only the first style was trained on."""
    values = ("cvusa_r_at_1", "cvusa_to_cvact_val_r_at_1", "cvact_to_cvusa_r_at_1", "cvact_val_r_at_1")
    rows = [published.value("sample4geo", "full", name) for name in values]
    return {"cvusa_cvact_r_at_1": rows[: len(frame)]}


def _drone_frame() -> pd.DataFrame:
    """University-1652's headline with a row a direction."""
    measures, rows = ("r_at_1", "ap"), []
    for part in ("d2s", "s2d"):
        known = {
            f"university1652_{m}": published.value("sample4geo_u1652", "sample4geo", f"{part}_{m}") for m in measures
        }
        rows.append({"part": part, **known})
    return pd.DataFrame(rows)


def drone_published(frame: pd.DataFrame) -> dict[str, list[float | None]]:
    """Both directions as published on University-1652."""
    theirs = _drone_frame().set_index("part").loc[list(frame["part"])]
    return {name: theirs[name].tolist() for name in theirs}


def _unlabelled_frame() -> pd.DataFrame:
    """The published methods with and without labels, on both data sets."""
    rows = {
        "ucvgl": ("ucvgl_main", "ucvgl_b_0"), "ucvgl_hard": None, "random": ("sample4geo", "random"),
        "sample4geo": ("sample4geo", "full"),
    }  # fmt: skip
    columns = ("cvusa_r_at_1", "cvact_val_r_at_1")
    out = {"part": list(rows)} | {
        name: [None if row is None else published.value(*row, name) for row in rows.values()] for name in columns
    }
    return pd.DataFrame(out).astype(dict.fromkeys(columns, "float64"))


def unlabelled_published(frame: pd.DataFrame) -> dict[str, list[float | None]]:
    """UCVGL's ConvNeXt-B without labels, and Sample4Geo with all."""
    theirs = _unlabelled_frame().set_index("part").loc[list(frame["part"])]
    return {name: [None if pd.isna(v) else v for v in theirs[name]] for name in theirs}


def comparisons(sampling: pd.DataFrame, drone: pd.DataFrame | None, unlabelled: pd.DataFrame) -> dict[str, Comparison]:
    """Notebook 05's tables beside the published ones."""
    paper, r1 = "Sample4Geo", "r_at_1"
    both = [(r1, "cvusa_r_at_1"), (r1, "cvact_val_r_at_1")]
    theirs = published.frame("sample4geo", key="part")
    out = {"sampling": Comparison(sampling, theirs, both[1:], "part", paper, ("random", "full"))}
    if drone is not None:
        measures = [(name, f"university1652_{name}") for name in (r1, "ap")]
        out["drone"] = Comparison(drone, _drone_frame(), measures, "part", paper, ("d2s", "s2d"))
    gap = ("ucvgl", "sample4geo")
    out["unlabelled"] = Comparison(unlabelled, _unlabelled_frame(), both, "part", f"UCVGL and {paper}", gap)
    return out


def unlabelled_curves(settings: Sample4GeoSettings, given: Parts) -> pd.DataFrame:
    """R@1 and the part of right labels by epoch, with random batches of pseudo-pairs and with look-alikes."""
    rows = []
    for part, name in chosen("05/unlabelled", {"ucvgl": "random batches", "ucvgl_hard": "look-alikes"}).items():
        hard = settings.method.sampling.draw if part == "ucvgl_hard" else None
        stage = curriculum(given.unlabelled, settings.unlabelled.curriculum, given, hard=hard, progress=False)
        for row in stage.numbers["rows"]:
            rows.append({"sampler": name, "epoch": row["epoch"] + 1, "r_at_1": row["test_r_at_1"]})
    return pd.DataFrame(rows)
