"""The committed encoders and how they are trained: squares and sectors by hand, what a batch shows, the loss by hand."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from geo_inputs import ORIGIN
from make_weights import (
    DRAWN,
    WorldPairs,
    WorldWeights,
    as_drive,
    drawn_style,
    fit_calibration,
    outside,
    sector,
    squares,
    train_encoders,
)
from scipy.special import expit

from ucvgl.encoders import EncoderConfig, embed, open_model
from ucvgl.locate import confidence as c
from ucvgl.locate import located
from ucvgl.locate.inputs import Inputs, Request
from ucvgl.locate.pictures import Picture
from ucvgl.locate.search import Search
from ucvgl.methods.common import BEST
from ucvgl.methods.ucvgl import Descriptors
from ucvgl.positions import Positions, Wgs84, from_metres
from ucvgl.training import TrainingConfig
from ucvgl.world.pairs import WorldConfig
from ucvgl.world.styles import STYLES

SIZE = 32
ENCODER = EncoderConfig("test_efficientnet", depth=2, image_px=(SIZE, SIZE), safa_heads=2)
TINY = WorldWeights(
    world=WorldConfig(("garden",), 0, 8, 8.0, span_m=100.0, tile_px=32, panorama_px=32, city_size_m=256.0,
                      resolution_m=0.5),
    encoder=ENCODER, training=TrainingConfig(epochs=1, batch_size=4, learning_rate=1e-3),
)  # fmt: skip


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
    found = sector(4, one(0, 90), one(100, 100), one(0, 0))
    assert found[:, 0].int().tolist() == [north, east]
    # the four middle pixels lie 0.35 from the camera, in parts of half the edge
    near = sector(4, one(0, 0), one(100, 360), one(0.4, 0.4))[:, 0].int()
    assert near[0].tolist() == [[1, 1, 1, 1], [0] * 4, [0] * 4, [0] * 4]
    assert near[1].tolist() == [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]


def test_the_loss_by_hand():
    task = WorldPairs(None, None, None, replace(TINY, smoothing=0.0))
    ground, wrong = torch.eye(2) * 2 - 1, torch.eye(2).flip(0) * 2 - 1  # opposite of each other, their mean is 0
    found = float(task.loss(SimpleNamespace(scale=torch.tensor(2.0)), (ground, ground, wrong), ()))
    # cosines 1 and -1: the pairs' -log(e^2 / (e^2 + e^-2)), and the hard negatives' -log(e^2 / (e^2 + e^2 + e^-2))
    assert found == pytest.approx(math.log(1 + math.exp(-4)) + math.log(2 + math.exp(-4)), abs=1e-5)


def test_drawn_styles_are_many_and_have_sense():
    styles = [drawn_style(name) for name in DRAWN]
    assert styles[3] == drawn_style(DRAWN[3]) != styles[4]
    assert not STYLES.keys() & {*DRAWN}  # the world's own are as they were
    for style in styles:
        assert 1 <= style.floors[0] <= style.floors[1]
        assert all(low <= high for low, high in (style.block_m, style.setback_m, style.building_width))
        assert all(0 <= value <= 1 for value in (style.canal_share, style.green_share, style.pitched_share))
        assert all(type(value) is int and 0 <= value <= 255 for colour in style.walls for value in colour)
    assert min(style.pitched_share for style in styles) < 0.1 < 0.9 < max(style.pitched_share for style in styles)


def test_every_place_comes_once_in_an_epoch_beside_others_of_its_city():
    config = replace(TINY, world=replace(TINY.world, styles=("garden", "canal", "old_town")))
    task = WorldPairs(torch.zeros(3 * 64, 1), None, None, config)
    order = task.order(0, None, torch.Generator().manual_seed(0))
    assert torch.equal(order.sort().values, torch.arange(len(order)))
    assert ((order.view(-1, 32) // 64).diff(dim=1) == 0).all()
    assert not torch.equal(order, task.order(1, None, torch.Generator().manual_seed(1)))


def test_a_training_leaves_encoders_that_open(runs):
    stage = train_encoders(TINY, progress=False)
    assert not stage.loaded
    assert len(stage.numbers["rows"]) == 1
    model = open_model(stage.folder / BEST)
    assert model.configs == (ENCODER, ENCODER)
    assert not model.shared
    assert embed(model.ground, [torch.zeros(2, 3, SIZE, SIZE)]).shape == (2, model.ground.dim)
    assert train_encoders(TINY, progress=False).loaded


def test_the_fit_is_where_the_published_loss_is_flat():
    rng = np.random.default_rng(1)
    values = np.column_stack([rng.normal(size=300), rng.random(300), rng.random(300), *np.full((2, 300), 0.25)])
    right = rng.random(300) < expit(2 * values[:, 0] - 0.5)  # the first feature decides
    error_m = np.where(right, 5.0, 5e5)[:, None] + np.zeros(5)
    unknown = np.vstack([values, values[:1] + 9]), np.vstack([error_m, np.full((1, 5), np.nan)])  # a row to leave out
    fitted = fit_calibration(*unknown, measured_on="a test", penalty=0.7)
    x = torch.tensor(values)
    z = (x - x.mean(0)) / torch.where(x.std(0, correction=0) > 1e-9, x.std(0, correction=0), 1.0)
    y = torch.tensor(error_m[:, 0] <= c.RADIUS_M, dtype=torch.float64)
    w = torch.tensor([*fitted.weight, fitted.bias], dtype=torch.float64, requires_grad=True)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(z @ w[:-1] + w[-1], y, reduction="sum")
    (loss + 0.35 * w[:-1].square().sum()).backward()
    assert w.grad.abs().max() < 1e-4
    assert (fitted.weight[3], fitted.sd[3]) == (0, 1)  # a feature that never varies says nothing
    found = c.Evidence(values, np.zeros((300, 5), int), np.zeros((300, 5)))
    assert c.probabilities(fitted, found).mean() == pytest.approx(float(y.mean()), abs=1e-6)


def searched(where, cosines):
    """Pictures taken at metres (N, 2), searched for among candidates each 12.5 m along a line."""
    centre = 12.5 * np.stack([np.arange(8), np.zeros(8)], 1)
    images = SimpleNamespace(positions=Positions(from_metres(centre, ORIGIN), Wgs84()), ids=[f"t{k}" for k in range(8)])
    mosaic = SimpleNamespace(origin=ORIGIN)
    candidates = SimpleNamespace(centre_m=centre, stride_m=12.5, images=images, mosaic=mosaic)
    pictures = [Picture(f"{k}.jpg", "panorama", 64, 32, heading_deg=0.0) for k in range(len(where))]
    truth = dict(zip([p.file for p in pictures], from_metres(np.asarray(where), ORIGIN).tolist(), strict=True))
    inputs = Inputs(Request(Path("g"), Path("t"), Path("o")), None, candidates, None, None, truth)
    best = np.argsort(-cosines, axis=1)[:, :5]
    evidence = c.Evidence(np.zeros((len(where), 5)), best, np.take_along_axis(cosines, best, 1))
    calibration = c.Calibration((0,) * 5, (1,) * 5, (0,) * 5, 0, "", 20.0)
    descriptors = Descriptors(torch.from_numpy(cosines), torch.eye(8))
    return Search(pictures, None, descriptors, evidence, calibration, []), inputs


def test_a_city_is_placed_alone_and_as_a_drive_to_the_nearest_place_that_is_left():
    """Four pictures near a line of candidates, the last outside; the third alone is placed at the far end."""
    where = np.array([(26.0, 1.0), (51.0, 1.0), (38.5, 1.0), (300.0, 0.0)])
    cosines = np.full((4, 8), 0.1)
    cosines[0, 2] = cosines[1, 4] = 0.9
    cosines[2, [3, 7]] = 0.8, 0.85
    city = searched(where, cosines)
    drive = as_drive(*city)
    taken = np.array([picture.taken_s for picture in drive[0].pictures])
    order = np.argsort(taken)
    assert order.tolist() == [0, 2, 1, 3]
    speed = np.hypot(*np.diff(where[order], axis=0).T) / np.diff(taken[order])
    assert ((speed >= 5) & (speed <= 10)).all()
    assert outside(*city).tolist() == [False] * 3 + [True]
    alone, together = (located.place(*one) for one in (city, drive))
    away = located.errors_m(alone, city[1].truth)[:3, 0]
    assert away == pytest.approx([2**0.5, 2**0.5, np.hypot(49, 1)], rel=0.01)
    assert located.placed_right(alone, city[1].truth)[:, 0].tolist() == [1, 1, 0, 0]
    assert located.placed_right(together, city[1].truth)[:, 0].tolist() == [1, 1, 1, 0]
