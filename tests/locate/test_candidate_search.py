"""From folders to evidence: what encoders are given, headings, training on somebody's own imagery without any truth (search.py)."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from geo_inputs import seamless, small_city, tiny_encoders
from PIL import Image
from toy_sets import ENCODER, same, toy

from ucvgl.data.container import ArrayImages
from ucvgl.encoders import open_model, save_model, two_view_encoder
from ucvgl.errors import InputError
from ucvgl.geometry import TopView, top_view
from ucvgl.locate import search as module
from ucvgl.locate.inputs import AdaptConfig
from ucvgl.locate.pictures import check_ground, north_up, read_picture
from ucvgl.locate.search import SEARCHED, adapt, find_headings, search
from ucvgl.locate.tiles import cut, open_mosaic
from ucvgl.methods.baselines import pixel_descriptor
from ucvgl.methods.ucvgl import Pretraining, describe, neighbours
from ucvgl.pseudo_labels import quality

SIZE, PLACES = 32, 9
VIEW = TopView.from_span(SIZE, 32.0)


@pytest.fixture(scope="module")
def city(tmp_path_factory, runs):
    """Nine panoramas, known to face north and not, and the candidates of a small city, as `read_inputs` gives them."""
    root = small_city(tmp_path_factory.mktemp("own") / "city", PLACES)
    config = AdaptConfig(tiny_encoders(root / "tiny.safetensors"), "a digest", epochs=0)
    candidates = cut(open_mosaic(root / "tiles"), 32.0, 16.0, SIZE)

    def inputs(heading_deg=None, **changes):
        given = {"ground": check_ground(root / "ground", heading_deg=heading_deg), "candidates": candidates,
                 "adapt": config, "view": VIEW}  # fmt: skip
        return SimpleNamespace(**given | changes)

    return inputs


@pytest.mark.parametrize("heading_deg", [0.0, 30.0, None])
def test_a_search_finds_a_heading_and_candidates_for_every_picture(city, heading_deg, monkeypatch):
    monkeypatch.setattr(module, "TURNS", 4)
    inputs = city(heading_deg)
    found = search(inputs)
    headings = {picture.heading_deg for picture in found.pictures}
    assert headings <= ({0.0, 90.0, 180.0, 270.0} if heading_deg is None else {heading_deg})
    assert [SEARCHED in picture.notes for picture in found.pictures] == [heading_deg is None] * PLACES
    assert len(found.images.gallery) == len(inputs.candidates)
    assert (found.evidence.values.shape, found.evidence.best.shape) == ((PLACES, 5), (PLACES, 5))
    assert [one["name"] for one in found.rounds] == ["as they came"]
    for view, picture in zip(found.images.top_view, found.pictures, strict=True):  # by the heading known, or found
        turn = torch.tensor([picture.heading_deg], dtype=torch.float64)
        assert torch.equal(view, north_up(read_picture(inputs.ground, picture), picture, turn, VIEW)[0])


def test_tiles_are_embedded_once_for_all_runs(city, monkeypatch, tmp_path):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))
    monkeypatch.setattr(module, "TURNS", 4)
    embedded, real = [], module.embed
    monkeypatch.setattr(module, "embed", lambda *given: embedded.append(found := real(*given)) or found)
    known = city(0.0)
    other = city(0.0, adapt=replace(known.adapt, start_digest="another digest"))
    for inputs, times in ((city(), 1), (known, 1), (other, 2)):
        search(inputs)
        assert [*map(len, embedded)].count(len(known.candidates)) == 4 * times  # in four quarter turns


def test_two_candidates_are_enough_and_one_is_told(city):
    some = city().candidates
    assert search(city(0.0, candidates=some.take([0, 5]))).evidence.best.shape == (PLACES, 2)
    with pytest.raises(InputError, match="two candidates or more"):
        search(city(candidates=some.take([3])))


def test_headings_are_found_and_known_ones_stay(tmp_path, monkeypatch, runs):
    """Six pictures turned by a known angle, candidates that are what they show north up, and an encoder of plain pixels."""
    width, headings = 120, [0.0, 30.0, 90.0, 150.0, 210.0, 330.0]
    scenes = [seamless(width // 2, width, k) for k in range(6)]
    for k, (scene, heading) in enumerate(zip(scenes, headings, strict=True)):
        picture = scene.roll(-round(heading / 360 * width), 2)
        Image.fromarray(np.ascontiguousarray(picture.permute(1, 2, 0))).save(tmp_path / f"{k}.png")
    view = TopView.from_span(SIZE, 20.0)
    tile = top_view(torch.stack([scenes[k] for k in (3, 0, 5, 1, 4, 2)]), view)
    monkeypatch.setattr(module, "TURNS", 12)
    monkeypatch.setattr(module, "embed", lambda _, batches: torch.cat([*map(pixel_descriptor, batches)]))
    ground, model = check_ground(tmp_path), SimpleNamespace(ground=None, satellite=None)
    inputs = SimpleNamespace(
        ground=ground, view=view, adapt=AdaptConfig("a file", "", 0),
        candidates=SimpleNamespace(images=ArrayImages(map(str, range(6)), tile)),
    )  # fmt: skip
    pictures = find_headings(inputs, list(ground.pictures), model)
    assert [picture.heading_deg for picture in pictures] == headings

    known = [replace(picture, heading_deg=12.5) for picture in pictures]
    known[2], known[4] = ground.pictures[2], ground.pictures[4]
    again = [picture.heading_deg for picture in find_headings(inputs, known, model)]
    assert again == [12.5, 12.5, headings[2], 12.5, headings[4], 12.5]


# ------------------------------------------------------------------------------------------------------------- training


@pytest.fixture
def config(tmp_path, fresh_runs):
    path = tmp_path / "tiny.safetensors"
    save_model(two_view_encoder(ENCODER, ENCODER, shared=False, seed=0), path)
    return AdaptConfig(str(path), "a digest", epochs=2, learning_rate=1e-3, batch_size=8)


@pytest.fixture
def came_with(monkeypatch):
    """As if so many had been mutual matches when the encoders came."""
    return lambda rate: monkeypatch.setattr(module, "quality", lambda both: quality(both) | {"mutual_rate": rate})


def adapted(config, images=None):
    model, images = open_model(config.start), images or toy()
    return model, *adapt(model, images, config, describe(model, images, start_of(model)))


def start_of(model):
    return Pretraining(*model.configs, ground_input="top view", centre=True)


def test_it_begins_with_the_file_and_without_epochs_ends_with_it(config):
    model, after, (came,) = adapted(replace(config, epochs=0))
    assert after is model
    measured = quality(neighbours(describe(model, toy(), start_of(model))))
    assert came == {"name": "as they came", "labels": None, "seconds": 0.0, **measured}


def test_training_changes_a_copy_without_any_truth(config, monkeypatch, came_with):
    came_with(0.0)
    seen, real = {}, module.train_on_pseudo_labels

    def watched(*args, given, truth, **options):
        seen.update(labels=bool((given >= 0).any()), truth=truth)
        return real(*args, given=given, truth=truth, **options)

    monkeypatch.setattr(module, "train_on_pseudo_labels", watched)
    model, after, rounds = adapted(config)
    assert seen == {"labels": False, "truth": None}
    assert same(open_model(config.start).state_dict(), model.state_dict())
    assert not same(after.state_dict(), model.state_dict())
    assert not after.training
    assert [one["name"] for one in rounds] == ["as they came", "epoch 1", "epoch 2"]
    assert all(one["seconds"] > 0 for one in rounds[1:])


@pytest.mark.parametrize(("keep", "rate", "rounds"), [(0.0, 0.0, 1), (0.25, 1.5, 3)])
def test_nothing_to_learn_from_and_what_is_worse_leave_the_encoders(config, came_with, keep, rate, rounds):
    came_with(rate)
    model, after, shown = adapted(replace(config, keep=keep))
    assert after is model
    assert len(shown) == rounds  # the report shows what was tried


@pytest.mark.parametrize("count", [1, 2])
def test_one_picture_or_two_are_no_failure(config, count):
    few = toy(data_id=f"first {count}").take(range(count))
    assert adapted(config, few)[2][0]["name"] == "as they came"
