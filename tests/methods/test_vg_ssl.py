"""VG-SSL on toy places: which pairs are made, what each method compares, and what is kept of it."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from toy_sets import SIZE, N, generator, killed_and_resumed, same, street, weights

from ucvgl import ssl_losses
from ucvgl.encoders import EncoderConfig
from ucvgl.errors import InputError
from ucvgl.heads import METHODS, SslLoss
from ucvgl.lab.stages import learn
from ucvgl.methods import common, vg_ssl
from ucvgl.methods.vg_ssl import GeoPairs, VgSsl
from ucvgl.positions import Metres, Positions
from ucvgl.sampling import near_mask, same_way
from ucvgl.training import TrainingConfig

pytestmark = pytest.mark.usefixtures("fresh_runs")
ENCODER = EncoderConfig("test_efficientnet", depth=2, pooling="gem", width=8, image_px=(SIZE, SIZE))
TRAINING = TrainingConfig(epochs=2, batch_size=8, learning_rate=1e-3)


def config(method, **changes):
    return VgSsl(ENCODER, SslLoss(method, 2, 8, 8, queue=12), TRAINING, **({"negatives": 3, "pool": 10} | changes))


def ordered(method, data=None, **changes):
    """A task that has mined once, its model, and the items of the epoch."""
    data, setting = data or street(), config(method, **changes)
    task, model = GeoPairs(data, setting), vg_ssl.new_learner(data, setting)[1]
    return task, model, task.order(0, model, generator())


def test_mining_goes_by_what_the_loss_compares():
    """The Euclidean distance of projected embeddings, of any length, as published; not the encoder's cosine."""
    task, model, _ = ordered("simclr", street(step_m=4.0))
    model.eval()
    with torch.no_grad():
        query, database = (model(side[:].float() / 255) for side in (task.given.query, task.given.gallery))
    far = torch.cdist(task.query_m, task.database_m) > 10
    expected = torch.cdist(query.double(), database.double()).masked_fill(far, torch.inf).argmin(1)
    assert torch.equal(task.positive, expected)


def test_a_positive_looks_the_same_way_where_headings_are_known():
    query, database = np.array([0.0, 350.0, np.nan, 100.0]), np.array([44.0, 46.0, 180.0])
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(3))
    kept = same_way(query, database, pairs).view(4, 3).int().tolist()
    assert kept == [[1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 0, 0]]
    assert same_way(None, database, pairs).all()


def test_queries_without_a_positive_take_no_part():
    line = street()

    def items(metres):
        query = replace(line.query, positions=Positions(metres, Metres("street")))
        return GeoPairs(replace(line, query=query), config("simclr")).items.tolist()

    values = line.query.positions.values.copy()
    values[3] = (1e4, 0)
    assert items(values) == [i for i in range(N) if i != 3]
    with pytest.raises(InputError, match="within 10 m of one query"):
        items(values + 1e5)


@pytest.mark.parametrize(("method", "changes", "count"), [
    ("triplet", {"mining": "full"}, 3), ("triplet", {"mining": "partial"}, 3), ("triplet", {"mining": "random"}, 3),
    ("simclr", {"geopair": "partial"}, 1),
])  # fmt: skip
def test_negatives_lie_beyond_25_m(method, changes, count):
    task, _, _ = ordered(method, **changes)
    assert task.negative.shape == (N, count)
    known = task.negative >= 0
    assert known.float().mean() > 0.9
    away = (task.query_m[:, None] - task.database_m[task.negative.clamp(min=0)]).norm(dim=2)
    assert bool((away[known] > 25).all())


def test_a_pair_is_never_mirrored_on_one_side():
    """One coin for query, positive and negatives; crops of the whole area, so that nothing else changes."""
    seen = set()
    for method, geopair in (("simclr", "random"), ("simclr", "partial"), ("triplet", "random")):
        task, _, items = ordered(method, geopair=geopair, crop=1.0)
        items = items[:8]
        negative = task.given.gallery[task.negative[items].clamp(min=0)] if task.negative is not None else None
        plain = [task.given.query[items], task.given.gallery[task.positive[items]]]
        plain += [] if negative is None else [negative] if method == "triplet" else [negative[:, 0]] * 2
        for seed in range(6):
            got = task.batch(items, generator(seed)).inputs
            coins = [[torch.allclose(g, (p.flip(-1) if turned else p).float() / 255, atol=1e-4) for turned in (0, 1)]
                     for g, p in zip(got, plain, strict=True)]  # fmt: skip
            assert all(coin == coins[0] and sum(coin) == 1 for coin in coins)
            seen.add(coins[0][1])
    assert seen == {False, True}


def test_mocos_queue_fills_with_keys_of_the_momentum_encoder():
    """The loss of one batch twice: the second time its own keys are in the queue, those of near places no negatives."""
    for changes in ({"mask_near": False}, {}):
        task, model, items = ordered("moco", augment=False, **changes)
        batch = task.batch(items[:8], generator())
        query, key = task.embed(model.eval(), batch.inputs)
        assert float(task.loss(model, (query, key), batch.labels).detach()) == 0  # nothing to tell apart from yet
        torch.testing.assert_close(model.queue.keys[:8], normalize(key, dim=1))
        again, (_, place) = task.loss(model, (query, key), batch.labels), batch.labels
        near = None if changes else near_mask(place, place)
        torch.testing.assert_close(again, ssl_losses.moco(query, key, normalize(key, dim=1), 0.07, near))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_is_found_again(method):
    tests = {"same": street(), "other": street(1)}
    stage = learn(street(), config(method), tests)
    assert len(stage.numbers["rows"]) == 2
    assert all(row["mining_seconds"] > 0 for row in stage.numbers["rows"])
    moved = vg_ssl.untrained_encoder(config(method)).state_dict()
    trained = common.trained(stage.folder).state_dict()
    assert any(not torch.equal(moved[name], trained[name]) for name in moved)
    assert not any("projector" in name or "predictor" in name or "queue" in name for name in weights(stage))
    if not stage.numbers["collapsed"]:
        assert set(stage.numbers["recall"]["same"]) == {"r_at_1", "r_at_5", "r_at_10", "r_at_20"}
    assert learn(street(), config(method), tests).loaded


@pytest.mark.parametrize("method", ["moco", "byol", "triplet"])
def test_interrupted_training_goes_on_to_the_same_weights(method, monkeypatch, tmp_path):
    """Momentum encoder, queue and what was mined are in the checkpoint."""
    setting = config(method)
    whole = learn(street(), setting, {})
    calls = itertools.count(1)
    resumed = killed_and_resumed(
        monkeypatch, tmp_path / "other", GeoPairs, "batch", lambda *_: next(calls) == 5,
        lambda: learn(street(), setting, {}),
    )  # fmt: skip
    assert resumed.resumed
    assert same(weights(whole), weights(resumed))


def test_a_collapse_is_reported_and_never_shown(monkeypatch):
    monkeypatch.setattr(vg_ssl, "is_collapsed", lambda embeddings: True)
    stage = learn(street(), config("byol"), {"same": street()})
    assert stage.numbers["collapsed"]
    assert stage.numbers["recall"]["same"] is None
