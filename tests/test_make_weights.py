"""The committed encoders and how they are trained: squares and sectors by hand, what a batch shows, what the loss prefers."""

import json
import math
import sys
from dataclasses import replace
from types import SimpleNamespace

import make_weights
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from make_weights import CASES, WorldPairs, WorldWeights, calibrate, sector, squares, train_encoders, write_calibration

from ucvgl.augment import Augmentation
from ucvgl.encoders import EncoderConfig, embed, open_model, save_model, two_view_encoder
from ucvgl.locate.adapt import WORLD_WEIGHTS
from ucvgl.locate.confidence import Evidence, load_calibration
from ucvgl.locate.trials import Case, Trial
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


# ------------------------------------------------------------------------------------------------------------ the squares


def tile(size=8):
    """A metre a pixel, no two alike."""
    return torch.arange(float(size * size)).view(1, 1, size, size)


def square(east=0.0, north=0.0, turn=0.0, span=8.0, size=8):
    return squares(tile(), 8.0, one(east, north)[None], one(turn), one(span), size)


def test_the_whole_tile_is_itself():
    torch.testing.assert_close(square(), tile())


@pytest.mark.parametrize(
    ("east", "north", "rows", "columns"),
    [(0, 0, (2, 6), (2, 6)), (1, 0, (2, 6), (3, 7)), (0, 1, (1, 5), (2, 6)), (-2, -2, (4, 8), (0, 4))],
)
def test_east_is_right_and_north_is_up(east, north, rows, columns):
    expected = tile()[:, :, slice(*rows), slice(*columns)]
    torch.testing.assert_close(square(east, north, span=4.0, size=4), expected)


def test_a_turn_is_clockwise_from_north():
    """A square whose upward direction is east has what lies east in its upper row, and north at its left."""
    found = square(turn=90.0)
    torch.testing.assert_close(found[0, 0, 0], tile()[0, 0, :, 7], atol=1e-4, rtol=0)
    torch.testing.assert_close(found, tile().rot90(1, (2, 3)), atol=1e-4, rtol=0)
    torch.testing.assert_close(square(turn=-90.0), tile().rot90(-1, (2, 3)), atol=1e-4, rtol=0)


def test_a_turned_square_turns_about_its_own_middle():
    found = square(1.0, 1.0, turn=180.0, span=2.0, size=2)
    torch.testing.assert_close(found, tile()[:, :, 2:4, 4:6].flip(2, 3), atol=1e-4, rtol=0)


def test_squares_of_a_batch_are_each_their_own():
    many = tile().expand(3, -1, -1, -1)
    centre, turn, span = torch.tensor([[0.0, 0], [1, 0], [0, 1]]), one(0, 90, 180), one(8, 4, 4)
    found = squares(many, 8.0, centre, turn, span, 4)
    for i in range(3):
        alone = squares(tile(), 8.0, centre[i : i + 1], turn[i : i + 1], span[i : i + 1], 4)
        torch.testing.assert_close(found[i : i + 1], alone)


def test_beyond_the_tile_it_is_mirrored():
    found = square(4.0, 0.0, span=4.0, size=4)
    torch.testing.assert_close(found, tile()[:, :, 2:6][..., [6, 7, 7, 6]])


# ------------------------------------------------------------------------------------------------------------ the sector


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


def test_a_whole_panorama_shows_all_around():
    assert bool(sector(9, one(17.0), one(360.0), one(0.0)).all())


def test_a_sector_across_the_south_is_whole():
    found = sector(32, one(180.0, -180.0), one(60.0, 60.0), one(0, 0))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[0].flip(2))
    assert float(found[0].float().mean()) == pytest.approx(math.tan(math.radians(30)) / 4, abs=0.02)


# ------------------------------------------------------------------------------------------------------------- the task


def pairs(config, count=6, seed=0):
    """Tiles and top views of blocks, cameras off the middle."""
    rng = np.random.default_rng(seed)
    tiles = rng.integers(0, 256, (count, 3, 8, 8)).repeat(4, 2).repeat(4, 3).astype(np.uint8)
    views = rng.integers(1, 256, (count, 3, SIZE, SIZE)).astype(np.uint8)
    camera = torch.from_numpy(rng.uniform(-5, 5, (count, 2)).astype(np.float32))
    return WorldPairs(torch.from_numpy(views), torch.from_numpy(tiles), camera, config)


def batch(task, seed=3, items=(4, 0, 2)):
    return task.batch(torch.tensor(items), torch.Generator().manual_seed(seed))


def test_a_batch_is_three_pictures_a_place_and_comes_from_its_generator():
    task = pairs(TINY)
    first, again, other = batch(task), batch(task), batch(task, seed=4)
    assert [tuple(images.shape) for images in first.inputs] == [(3, 3, SIZE, SIZE)] * 3
    assert first.labels == ()
    assert all(torch.equal(a, b) for a, b in zip(first.inputs, again.inputs, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first.inputs, other.inputs, strict=True))
    assert sorted(task.order(0, None, torch.Generator().manual_seed(1)).tolist()) == list(range(6))


def test_the_first_square_is_around_the_camera_and_the_second_beside_it():
    task = pairs(STILL)
    ground, near, far = batch(task).inputs
    items = [4, 0, 2]
    torch.testing.assert_close(ground, task.top_view[items].float() / 255)
    tiles, still, span = task.tile[items].float() / 255, torch.zeros(3), torch.full((3,), 50.0)
    own = squares(tiles, 100.0, task.camera_m[items], still, span, SIZE)
    torch.testing.assert_close(near, own)
    assert (far - own).abs().mean() > 0.05


def test_offsets_stay_within_their_bounds(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "make_weights.squares",
        lambda tiles, _, centre, turn, span, size: (
            seen.append((centre, turn, span)) or torch.rand(len(tiles), 3, size, size)
        ),
    )
    task = pairs(TINY, 64)
    for seed in range(4):
        batch(task, seed, range(64))
    camera = task.camera_m
    near = torch.stack([centre - camera for centre, *_ in seen[::2]])
    far = torch.stack([(centre - camera).norm(dim=1) for centre, *_ in seen[1::2]])
    assert near.abs().max() <= TINY.near_m
    assert near.abs().max() > 0.9 * TINY.near_m
    assert TINY.far_m[0] <= far.min() < 12
    assert 24 < far.max() <= TINY.far_m[1] + 1e-4
    turn, span = (torch.stack([part[k] for part in seen]) for k in (1, 2))
    assert 0.9 * TINY.turn_deg < turn.abs().max() <= TINY.turn_deg
    assert 45 <= span.min() < 46
    assert 54 < span.max() <= 55
    assert torch.equal(seen[0][1], seen[1][1])  # a place's two squares are turned and scaled alike


def test_some_top_views_are_cut_to_a_sector():
    def dark(photos):
        ground = batch(pairs(replace(STILL, photos=photos), 64), items=range(64)).inputs[0]
        return (ground == 0).all(1).float().mean((1, 2))

    assert bool((dark(0.0) == 0).all())
    assert bool((dark(1.0) > 0.6).all())  # 55 to 110 of 360 degrees are left
    assert 0.05 < float((dark(0.2) > 0).float().mean()) < 0.4


def test_the_loss_prefers_the_right_square():
    task, model = pairs(replace(STILL, smoothing=0.0)), SimpleNamespace(scale=torch.tensor(10.0))
    generator = torch.Generator().manual_seed(0)
    ground, wrong = (F.normalize(torch.randn(5, 8, generator=generator), dim=1) for _ in range(2))
    good, bad = task.loss(model, (ground, ground, wrong), ()), task.loss(model, (ground, wrong, ground), ())
    assert float(good) < float(bad) - 5
    moved = task.loss(model, (ground, F.normalize(ground + 0.3 * wrong, dim=1), wrong), ())
    assert float(good) < float(moved) < float(bad)
    # what all pictures of a view share does not count, as when a city is searched
    shift = torch.zeros(8).index_fill(0, torch.tensor([0]), 3.0)
    assert float(task.loss(model, (ground + shift, ground - shift, wrong - shift), ())) == pytest.approx(
        float(good), abs=1e-4
    )


def test_the_loss_by_hand():
    config, model = replace(STILL, smoothing=0.0), SimpleNamespace(scale=torch.tensor(2.0))
    ground, wrong = torch.eye(2) * 2 - 1, torch.eye(2).flip(0) * 2 - 1  # opposite of each other, their mean is 0
    found = float(pairs(config).loss(model, (ground, ground, wrong), ()))
    # cosines 1 and -1: the pairs' -log(e^2 / (e^2 + e^-2)), and the hard negatives' -log(e^2 / (e^2 + e^2 + e^-2))
    pair = math.log(1 + math.exp(-4))
    hard = math.log(2 + math.exp(-4))
    assert found == pytest.approx(pair + hard, abs=1e-5)


# ----------------------------------------------------------------------------------------------------------- the training


def test_a_training_leaves_encoders_that_open(runs):
    stage = train_encoders(TINY, progress=False)
    assert not stage.loaded
    assert len(stage.numbers["rows"]) == 1
    model = open_model(stage.folder / BEST)
    assert model.configs == (ENCODER, ENCODER)
    assert not model.shared
    assert embed(model.ground, [torch.zeros(2, 3, SIZE, SIZE)]).shape == (2, model.ground.dim)
    assert train_encoders(TINY, progress=False).loaded


def test_the_committed_encoders_open():
    assert WORLD_WEIGHTS.stat().st_size < 8_000_000
    ground, satellite = open_model(WORLD_WEIGHTS).configs
    assert ground.image_px == satellite.image_px == WorldWeights().encoder.image_px


def test_what_is_committed_is_half_as_large_and_opens_as_the_same_encoders(tmp_path, monkeypatch):
    small = EncoderConfig("test_efficientnet", image_px=(32, 32))
    trained = two_view_encoder(small, small, shared=False, seed=3).eval()
    save_model(trained, tmp_path / "stage" / BEST)
    monkeypatch.setattr(make_weights, "train_encoders", lambda config: SimpleNamespace(folder=tmp_path / "stage"))
    monkeypatch.setattr(make_weights, "WEIGHTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["make_weights.py", "--only", "encoders"])
    make_weights.main()
    sizes = [path.stat().st_size for path in (tmp_path / "world.safetensors", tmp_path / "stage" / BEST)]
    assert sizes[0] < 0.7 * sizes[1]
    opened = open_model(tmp_path / "world.safetensors").eval()
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ours, theirs = (embed(model.ground, [images]) for model in (opened, trained))
    assert (ours * theirs).sum(1).min() > 0.999


# -------------------------------------------------------------------------------------------------------- the calibrations


def searched(case, seed, count=12, *, epochs=0):
    """A search with random evidence; every other picture is placed right, and a drive at scale 15 says so best."""
    rng = np.random.default_rng(seed)
    error = np.where(np.arange(count) % 2, 5.0, 50.0)[:, None] + 100.0 * np.arange(5)
    best, zeros = np.tile(np.arange(5), (count, 1)), np.zeros((count, 5))
    found = SimpleNamespace(evidence=Evidence(rng.random((count, 5)), best, zeros, zeros))
    trial = Trial(found, None, np.zeros((count, 2)))
    right = (np.arange(count) % 2).astype(float)
    for name, value in (
        ("error_m", lambda best=None: error),
        ("right", lambda placement=None: right),
        ("together", lambda scale: SimpleNamespace(probability=np.full(count, 1 / (1 + abs(scale - 15) / 4 + 1)))),
    ):
        object.__setattr__(trial, name, value)
    return trial


def test_a_calibration_is_fitted_to_all_cities_of_a_case(monkeypatch):
    seen = []

    def search(case, seed, *, epochs):
        assert epochs == 0
        seen.append((seed, case.outside))
        return searched(case, seed)

    monkeypatch.setattr(make_weights, "search_city", search)
    found = calibrate(Case("photo", True))
    assert seen == [(11, False), (12, False), (11, True), (12, True)]
    assert (found.pictures, found.right, found.scale) == (48, 24, 15.0)
    assert found.measured_on.startswith(
        "2 synthetic cities of the style old_town, 300 photos each, headings searched for"
    )


def test_a_file_for_each_case_is_read_as_it_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr(make_weights, "search_city", searched)
    monkeypatch.setattr(make_weights, "WEIGHTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["make_weights.py", "--only", "calibrations"])
    make_weights.main()
    names = ["panorama-turned.json", "panorama.json", "photo-turned.json", "photo.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert load_calibration(tmp_path / names[0]) == calibrate(CASES[1])


def test_the_committed_calibrations_are_written_as_they_were(tmp_path):
    for path in make_weights.WEIGHTS.glob("*.json"):
        write_calibration(load_calibration(path), tmp_path / path.name)
        assert json.loads((tmp_path / path.name).read_text()) == json.loads(path.read_text())
