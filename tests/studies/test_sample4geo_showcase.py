"""What notebook 05 shows: batches, hardest negatives and published columns."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch.nn.functional import normalize

from ucvgl.lab import material, profiles
from ucvgl.lab import score as scorecard
from ucvgl.lab.stages import supervise
from ucvgl.studies import sample4geo_showcase as showcase
from ucvgl.studies import sample4geo_study as study


@pytest.fixture(scope="module")
def settings():
    tiny = profiles.sample4geo("tiny", 0)
    return replace(tiny, method=replace(tiny.method, training=replace(tiny.method.training, epochs=2)), curve_every=1)


@pytest.fixture(scope="module")
def home(runs, settings):
    return material.styles(settings, settings.method, progress=False)["garden"]


def test_hardest_negatives_by_loop():
    rng = torch.Generator().manual_seed(0)
    query, tile = (normalize(torch.randn(12, 5, generator=rng), dim=1) for _ in range(2))
    items = torch.randperm(12, generator=rng).view(3, 4)
    found = showcase.hardest_negatives(query, tile, items).view(3, 4)
    for batch, row in zip(items.tolist(), found, strict=True):
        for i, value in zip(batch, row, strict=True):
            assert float(value) == pytest.approx(max(float(query[i] @ tile[j]) for j in batch if j != i))


def test_batches_of_each_sampler(settings, home):
    stage = supervise(home.train, settings.method, home.tests, progress=False)
    drawn = showcase.batches(home.train, stage, settings.method, seed=0)
    assert list(drawn.items) == list(drawn.sources) == ["random", "geographic neighbours", "look-alikes (DSS)"]
    assert torch.equal(drawn.items["random"], drawn.sources["random"])
    joined = drawn.items["geographic neighbours"] != drawn.sources["geographic neighbours"]
    assert bool(joined.any())
    items, sources = (part["geographic neighbours"] for part in (drawn.items, drawn.sources))
    away = (drawn.where_m[items] - drawn.where_m[sources]).norm(dim=2)
    assert float(away[joined].median()) < 80  # of a city of 256 m
    assert len(drawn.hardest) == sum(items.numel() for items in drawn.items.values())
    sheet = showcase.picture_sheet(drawn)
    assert all(marks[0] for marks in sheet["marks"].values())
    places = showcase.map_arguments(drawn)
    assert places["where"].shape == (18, 2)
    rows = showcase.browsed(drawn)
    assert rows.groupby("sampler").size().to_dict() == {name: len(batch) for name, batch in drawn.items.items()}
    name, number = "geographic neighbours", 1
    look = showcase.batch_look(drawn, name, number)
    places = drawn.items[name][number - 1].tolist()
    *captions, last = look
    assert last == "on the map"
    assert [int(caption.split(",")[0]) for caption in captions] == places[: showcase.BROWSED]
    joined = (drawn.items[name][0] != drawn.sources[name][0]).tolist()
    assert [caption.endswith("drawn") for caption in captions] == [not one for one in joined[: showcase.BROWSED]]
    row = rows[(rows["sampler"] == name) & (rows["batch"] == number)]
    assert row["drawn places"].item() == joined.count(False)


def test_without_positions_there_is_no_map(settings, home):
    train = replace(home.train, gallery=replace(home.train.gallery, positions=None))
    stage = supervise(home.train, settings.method, home.tests, progress=False)
    drawn = showcase.batches(train, stage, settings.method, seed=0)
    assert list(drawn.items) == ["random", "look-alikes (DSS)"]
    assert showcase.map_arguments(drawn) is None
    assert "on the map" not in showcase.batch_look(drawn, "random", 1)


def test_curves_have_a_point_an_epoch(runs, settings):
    areas = material.open_areas(settings, "world", settings.method, progress=False)
    study.sampling_table(settings, areas, progress=False)
    frame = showcase.curves(settings, areas, {"random": "random", "full": "both"})
    assert frame["epoch"].tolist() == [1, 2, 1, 2]
    assert frame[["r_at_1", "cross_r_at_1"]].notna().all(axis=None)


def test_drone_rows(runs, settings):
    flights = material.open_flights(settings, progress=False)
    stage = supervise(flights.train, settings.drone, flights.tests, progress=False)
    rows = showcase.drone_rows(stage, settings.drone, flights.tests["d2s"])
    assert len(rows["ground"]) == len(rows["retrieved"]) == len(rows["right"]) == 4
    hits = rows["right"][:, 0].tolist()
    assert hits == sorted(hits, reverse=True)  # right ones first


# ---------------------------------------------------------------------------------------------------- published


def sampling_frame():
    return pd.DataFrame(
        {"part": list(study.NAMES), "r_at_1": [50.0, 52, 53, 55], "r_at_5": [70.0, 71, 72, 73], "r_at_10": [80.0] * 4,
         "r_at_1_percent": [90.0, 89, 88, 87], "cross_r_at_1": [40.0, 41, 39, 44]}
    )  # fmt: skip


def test_sampling_beside_published():
    theirs = showcase.sampling_published(sampling_frame())
    assert theirs["cvact_val_r_at_1"] == [pytest.approx(87.4944), None, None, 90.81]


def test_generalisation_by_hand():
    frame = pd.DataFrame(
        {"trained_on": ["a", "a", "b", "b"], "tested_on": ["a", "b", "a", "b"], "r_at_1": [80.0, 20, 30, 70]}
    )
    assert showcase.generalisation_published(frame)["cvusa_cvact_r_at_1"] == [98.68, 56.62, 44.95, 90.81]
    assert showcase.generalisation_published(frame[:2])["cvusa_cvact_r_at_1"] == [98.68, 56.62]


def test_drone_and_unlabelled_by_hand():
    drone = pd.DataFrame({"part": ["d2s", "s2d"], "direction": list(study.DIRECTIONS.values()), "r_at_1": [45.0, 60],
                          "ap": [50.0, 40]})  # fmt: skip
    assert showcase.drone_published(drone) == {
        "university1652_r_at_1": [92.65, 95.14],
        "university1652_ap": [93.81, 91.39],
    }
    unlabelled = pd.DataFrame({"part": list(study.UNLABELLED), "r_at_1": [60.0, 63, 70, 68]})
    assert showcase.unlabelled_published(unlabelled)["cvact_val_r_at_1"] == [84.58, None, pytest.approx(87.4944), 90.81]
    queries = dict.fromkeys(("sampling", "drone", "unlabelled"), 10_000)
    score = scorecard.scorecard(showcase.comparisons(sampling_frame(), drone, unlabelled), queries)
    kept = score.set_index(["table", "measure"])[["kept", "contradicted"]].T.to_dict("list")
    assert kept["sampling", "r_at_1"] == [1, 0]
    assert kept["drone", "ap"] == [1, 0]
    assert kept["unlabelled", "r_at_1"] == [2, 1]
    assert set(showcase.comparisons(sampling_frame(), None, unlabelled)) == {"sampling", "unlabelled"}
