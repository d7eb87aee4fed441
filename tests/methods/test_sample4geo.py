"""Sample4Geo on toy images: which pairs meet in a batch, how they move, what is measured."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_sets import ENCODER, N, blocks, generator, image_set, killed_and_resumed, same, weights

from ucvgl.augment import Augmentation, roll_panoramas, turn_squares
from ucvgl.data.container import Dataset, Positives
from ucvgl.lab.stages import supervise
from ucvgl.methods import sample4geo
from ucvgl.methods.common import trained
from ucvgl.methods.sample4geo import Sample4Geo, Sampling, SupervisedPairs
from ucvgl.positions import Metres, Positions
from ucvgl.sampling import NeighbourDraw
from ucvgl.training import TrainingConfig

pytestmark = pytest.mark.usefixtures("fresh_runs")
NONE = Augmentation(*[0.0] * 11)
DRAW = NeighbourDraw(6, 2, 1)
METHOD = Sample4Geo(
    ENCODER, ENCODER, ground_kind="top view", training=TrainingConfig(epochs=4, batch_size=8, learning_rate=1e-3),
    sampling=Sampling("both", DRAW, 2), evaluate_every=2,
)  # fmt: skip


def labelled(seed=0, positives=None, positions=True, name="toy"):
    """Tiles of large blocks on a line, 10 m apart, and the same with noise as ground images."""
    tile, ground = blocks(np.random.default_rng(seed))
    where = Positions(np.stack([10.0 * np.arange(N), np.zeros(N)], 1), Metres("toy")) if positions else None
    query, gallery = image_set(ground, f"{name}-{seed}-0"), image_set(tile, f"{name}-{seed}-1", where)
    return Dataset(name, "all", query, gallery, positives or Positives.one_each(np.arange(N)))


def test_similar_places_are_searched_when_due(monkeypatch):
    """At epochs 2, 4 and 6 of 'refresh every 2', with the encoder as it is then."""
    task, searched = SupervisedPairs(labelled(), METHOD), []
    model = sample4geo.new_model(METHOD)
    real = SupervisedPairs.near
    monkeypatch.setattr(SupervisedPairs, "near", lambda self, *of: searched.append((epoch, of[0])) or real(self, *of))
    for epoch in range(7):
        order = task.order(epoch, model, generator(epoch))
        assert sorted(order.tolist()) == list(range(N))  # three whole batches of eight
    assert searched == [(0, "geographic"), (2, "similarity"), (4, "similarity"), (6, "similarity")]
    assert model.training  # left as it was


@pytest.mark.parametrize("kinds", [("panorama", "tile"), ("oblique", "tile"), ("panorama", "polar")])
def test_views_move_with_their_heading(kinds):
    method = replace(METHOD, ground_kind=kinds[0], tile_kind=kinds[1], augmentation=replace(NONE, turn=1.0))
    task, draws = SupervisedPairs(labelled(), method), generator()
    torch.rand(8, generator=draws)
    quarters = torch.randint(1, 4, (8,), generator=draws)
    moved = {"panorama": roll_panoramas, "polar": roll_panoramas, "tile": turn_squares, "oblique": lambda x, _: x}
    sides = zip(kinds, (task.given.query, task.given.gallery), strict=True)
    expected = [moved[kind](images[:8].float() / 255, quarters) for kind, images in sides]
    torch.testing.assert_close(list(task.batch(torch.arange(8), generator()).inputs), expected)


def beside(count=N):
    """VIGOR's: the tiles on either side of its own show each spot off centre."""
    return Positives.of([[j for j in (i - 1, i + 1) if 0 <= j < count] for i in range(count)])


@pytest.mark.parametrize("source", ["geographic", "similarity"])
def test_semi_positives_never_join(source):
    given = replace(labelled(), semi_positives=beside())
    task, model = SupervisedPairs(given, METHOD), sample4geo.new_model(METHOD)
    near = task.near(source, model)
    assert near.shape == (N, DRAW.range)
    assert all(len(set(row)) == len(row) for row in near.tolist())
    assert ((near - torch.arange(N)[:, None]).abs() > 1).all()  # neither its own tile nor those beside it
    if source == "geographic":
        assert near[10].tolist() == [8, 12, 7, 13, 6, 14]


def test_semi_positives_that_meet_are_no_negatives():
    """Their logits are left out of the loss: what they are does not matter; that of any other tile does."""
    given = replace(labelled(), semi_positives=beside())
    task, model = SupervisedPairs(given, METHOD), sample4geo.new_model(METHOD)
    place, semi = task.batch(torch.tensor([4, 5, 9]), generator()).labels
    assert place.tolist() == [4, 5, 9]
    assert semi.tolist() == [[3, 5], [4, 6], [8, 10]]
    ground, tile = torch.eye(3).requires_grad_(), torch.eye(3).requires_grad_()
    task.loss(model, (ground, tile), (place, semi)).backward()
    assert ground.grad[0, 1] == 0
    assert ground.grad[0, 2] != 0


def test_it_learns_and_is_found_again():
    method = replace(METHOD, augmentation=NONE, training=replace(METHOD.training, epochs=12, learning_rate=3e-3))
    tests = {"same": labelled(), "cross": labelled(1)}
    stage = supervise(labelled(), method, tests)
    rows = stage.numbers["rows"]
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]
    assert ["same: r_at_1" in row for row in rows[:2]] == [False, True]  # every second epoch
    assert supervise(labelled(), method, tests).loaded
    model = trained(stage.folder)
    assert sample4geo.evaluate(model, labelled()) == stage.numbers["recall"]["same"]
    assert model.shared


def test_interrupted_training_goes_on_to_the_same_weights(monkeypatch, tmp_path):
    """Killed in the second epoch after a refresh: the neighbours of the search before are still used."""
    whole = supervise(labelled(), METHOD, {"same": labelled()})
    resumed = killed_and_resumed(
        monkeypatch, tmp_path / "other", SupervisedPairs, "order", lambda epoch, *_: epoch == 3,
        lambda: supervise(labelled(), METHOD, {"same": labelled()}),
    )  # fmt: skip
    assert resumed.resumed
    assert same(weights(whole), weights(resumed))


def test_an_epoch_of_a_smoke_run_is_one_batch(monkeypatch):
    taken, real = [], SupervisedPairs.batch
    monkeypatch.setenv("UCVGL_ROWS", "smoke")
    monkeypatch.setattr(SupervisedPairs, "batch", lambda self, *of: taken.append(len(of[0])) or real(self, *of))
    supervise(labelled(), METHOD, {"same": labelled()})
    assert taken == [8] * METHOD.training.epochs


def test_separate_encoders_and_swapped_views():
    """Where tiles are the queries, they go through the satellite encoder, and the gallery through the ground encoder."""
    model, forth = sample4geo.new_model(replace(METHOD, shared=False)), labelled()
    back = replace(forth, query=forth.gallery, gallery=forth.query, swapped=True)
    query, gallery = sample4geo.describe(model, forth)
    asked, searched = sample4geo.describe(model, back)
    assert torch.equal(query, searched)
    assert torch.equal(gallery, asked)
    assert not torch.allclose(query, sample4geo.describe(model, replace(back, swapped=False))[1])


def test_cvusa_positions():
    """Without positions the first batches are random, as similarity sampling's."""
    task = SupervisedPairs(labelled(positions=False), METHOD)
    assert sorted(task.order(0, None, generator()).tolist()) == list(range(N))
    assert task.neighbours is None
