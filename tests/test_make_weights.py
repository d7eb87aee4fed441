"""The committed encoders and how they are trained: squares and sectors by hand, what a batch shows, the loss by hand."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from make_weights import WorldPairs, WorldWeights, sector, squares, train_encoders

from ucvgl.augment import Augmentation
from ucvgl.encoders import EncoderConfig, embed, open_model
from ucvgl.methods.common import BEST
from ucvgl.training import TrainingConfig
from ucvgl.world.pairs import WorldConfig

SIZE = 32
ENCODER = EncoderConfig("test_efficientnet", depth=2, image_px=(SIZE, SIZE), safa_heads=2)
TINY = WorldWeights(
    world=WorldConfig(("garden",), 0, 8, 8.0, span_m=100.0, tile_px=32, panorama_px=32, city_size_m=256.0,
                      resolution_m=0.5),
    encoder=ENCODER, training=TrainingConfig(epochs=1, batch_size=4, learning_rate=1e-3),
)  # fmt: skip
STILL = replace(TINY, augmentation=Augmentation(*[0.0] * 11), near_m=0.0, turn_deg=0.0, scale=0.0, photos=0.0)


def one(*values):
    return torch.tensor(values, dtype=torch.float32)


def tile(size=8):
    """A metre a pixel, no two alike."""
    return torch.arange(float(size * size)).view(1, 1, size, size)


def square(east=0.0, north=0.0, turn=0.0, span=8.0, size=8):
    return squares(tile(), 8.0, one(east, north)[None], one(turn), one(span), size)


@pytest.mark.parametrize(
    ("east", "north", "rows", "columns"),
    [(0, 0, (2, 6), (2, 6)), (1, 0, (2, 6), (3, 7)), (0, 1, (1, 5), (2, 6)), (-2, -2, (4, 8), (0, 4))],
)
def test_east_is_right_and_north_is_up(east, north, rows, columns):
    expected = tile()[:, :, slice(*rows), slice(*columns)]
    torch.testing.assert_close(square(east, north, span=4.0, size=4), expected)


def test_a_sector_by_hand():
    north = [[1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    east = [[0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]]
    found = sector(4, one(0, 90, 360), one(100, 100, 100), one(0, 0, 0))
    assert found.shape == (3, 1, 4, 4)
    assert found[0, 0].int().tolist() == north
    assert found[1, 0].int().tolist() == east
    assert torch.equal(found[2], found[0])
    # the four middle pixels lie 0.35 from the camera, in parts of half the edge
    near = sector(4, one(0, 0), one(100, 360), one(0.4, 0.4))[:, 0].int()
    assert near[0].tolist() == [[1, 1, 1, 1], [0] * 4, [0] * 4, [0] * 4]
    assert near[1].tolist() == [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]


def pairs(config, count=6, seed=0):
    """Tiles and top views of blocks, cameras off the middle."""
    rng = np.random.default_rng(seed)
    tiles = rng.integers(0, 256, (count, 3, 8, 8)).repeat(4, 2).repeat(4, 3).astype(np.uint8)
    views = rng.integers(1, 256, (count, 3, SIZE, SIZE)).astype(np.uint8)
    camera = torch.from_numpy(rng.uniform(-5, 5, (count, 2)).astype(np.float32))
    return WorldPairs(torch.from_numpy(views), torch.from_numpy(tiles), camera, config)


def batch(task, seed=3, items=(4, 0, 2)):
    return task.batch(torch.tensor(items), torch.Generator().manual_seed(seed))


def test_the_loss_by_hand():
    config, model = replace(STILL, smoothing=0.0), SimpleNamespace(scale=torch.tensor(2.0))
    ground, wrong = torch.eye(2) * 2 - 1, torch.eye(2).flip(0) * 2 - 1  # opposite of each other, their mean is 0
    found = float(pairs(config).loss(model, (ground, ground, wrong), ()))
    # cosines 1 and -1: the pairs' -log(e^2 / (e^2 + e^-2)), and the hard negatives' -log(e^2 / (e^2 + e^2 + e^-2))
    pair = math.log(1 + math.exp(-4))
    hard = math.log(2 + math.exp(-4))
    assert found == pytest.approx(pair + hard, abs=1e-5)


def test_a_training_leaves_encoders_that_open(runs):
    stage = train_encoders(TINY, progress=False)
    assert not stage.loaded
    assert len(stage.numbers["rows"]) == 1
    model = open_model(stage.folder / BEST)
    assert model.configs == (ENCODER, ENCODER)
    assert not model.shared
    assert embed(model.ground, [torch.zeros(2, 3, SIZE, SIZE)]).shape == (2, model.ground.dim)
    assert train_encoders(TINY, progress=False).loaded
