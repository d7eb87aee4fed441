"""From folders to evidence: the pictures and candidates that encoders are given, headings, places (search.py)."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from geo_inputs import seamless, small_city, tiny_encoders
from PIL import Image

from ucvgl.data.container import ArrayImages
from ucvgl.errors import InputError
from ucvgl.geometry import top_view
from ucvgl.locate import search as module
from ucvgl.locate.inputs import AdaptConfig
from ucvgl.locate.pictures import StreetConfig, check_ground, north_up, read_picture
from ucvgl.locate.search import SEARCHED, find_headings, search
from ucvgl.locate.tiles import cut, open_mosaic
from ucvgl.methods.baselines import pixel_descriptor

SIZE, PLACES = 32, 9
STREET = StreetConfig(size_px=(SIZE, SIZE), span_m=32.0)


@pytest.fixture(scope="module")
def city(tmp_path_factory, runs):
    """Nine panoramas, known to face north and not, and the candidates of a small city, as `read_inputs` gives them."""
    root = small_city(tmp_path_factory.mktemp("own") / "city", PLACES)
    adapt = AdaptConfig(tiny_encoders(root / "tiny.safetensors"), "a digest", epochs=0)
    candidates = cut(open_mosaic(root / "tiles"), 32.0, 16.0, SIZE)

    def inputs(heading_deg=None, **changes):
        given = {"ground": check_ground(root / "ground", heading_deg=heading_deg), "candidates": candidates,
                 "adapt": adapt, "street": STREET, "request": SimpleNamespace(turns=4)}  # fmt: skip
        return SimpleNamespace(**given | changes)

    return inputs


def found_in(inputs):
    return search(inputs, "panorama")


@pytest.mark.parametrize("heading_deg", [0.0, 30.0, None])
def test_a_search_finds_a_heading_and_candidates_for_every_picture(city, heading_deg, monkeypatch):
    inputs = city(heading_deg)
    found = found_in(inputs)
    headings = {picture.heading_deg for picture in found.pictures}
    assert headings <= ({0.0, 90.0, 180.0, 270.0} if heading_deg is None else {heading_deg})
    assert [SEARCHED in picture.notes for picture in found.pictures] == [heading_deg is None] * PLACES
    assert len(found.images.gallery) == len(inputs.candidates)
    assert (found.evidence.values.shape, found.evidence.best.shape) == ((PLACES, 5), (PLACES, 5))
    assert [one["name"] for one in found.rounds] == ["as they came"]
    for k, picture in enumerate(found.pictures):  # turned by the heading that is known, or was found
        turn = torch.tensor([picture.heading_deg], dtype=torch.float64)
        assert torch.equal(
            found.images.top_view[k], north_up(read_picture(inputs.ground, picture), picture, turn, STREET)[0]
        )
    monkeypatch.setattr(module, "street_views", None)  # they are not made again
    assert torch.equal(found_in(inputs).images.query[:], found.images.query[:])


def test_tiles_are_embedded_once_for_all_runs(city, monkeypatch, tmp_path):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))
    turned, real = [], module.turn_squares
    monkeypatch.setattr(module, "turn_squares", lambda some, by: turned.append(len(some)) or real(some, by))
    found_in(city())
    every = 4 * len(city().candidates)
    assert sum(turned) == every + 5 * PLACES  # once as the encoders came, and in four turns
    known = city(0.0)  # another case, the same tiles
    found_in(known)
    assert sum(turned) == every + 10 * PLACES
    found_in(city(0.0, adapt=replace(known.adapt, start_digest="another digest")))
    assert sum(turned) == 2 * every + 15 * PLACES


def test_two_candidates_are_enough_and_one_is_told(city):
    some = city().candidates
    assert found_in(city(0.0, candidates=some.take([0, 5]))).evidence.best.shape == (PLACES, 2)
    with pytest.raises(InputError, match="two candidates or more"):
        found_in(city(candidates=some.take([3])))


def test_headings_are_found_and_known_ones_stay_and_cost_nothing(tmp_path, monkeypatch, runs):
    """Six pictures turned by a known angle, candidates that are what they show north up, and an encoder of plain pixels."""
    width, headings = 120, [0.0, 30.0, 90.0, 150.0, 210.0, 330.0]
    scenes = [seamless(width // 2, width, k) for k in range(6)]
    for k, (scene, heading) in enumerate(zip(scenes, headings, strict=True)):
        picture = scene.roll(-round(heading / 360 * width), 2)
        Image.fromarray(np.ascontiguousarray(picture.permute(1, 2, 0))).save(tmp_path / f"{k}.png")
    street = StreetConfig(size_px=(SIZE, SIZE), span_m=20.0)
    tile = top_view(torch.stack([scenes[k] for k in (3, 0, 5, 1, 4, 2)]), street.top_view)
    candidates = SimpleNamespace(images=ArrayImages(map(str, range(6)), tile))
    monkeypatch.setattr(module, "embed", lambda _, batches: torch.cat([*map(pixel_descriptor, batches)]))
    ground = check_ground(tmp_path)
    inputs = SimpleNamespace(
        ground=ground, street=street, adapt=AdaptConfig("a file", ""), request=SimpleNamespace(turns=12),
        candidates=candidates,
    )  # fmt: skip

    def found(pictures):
        model = SimpleNamespace(ground=None, satellite=None)
        return [picture.heading_deg for picture in find_headings(inputs, pictures, model)]

    pictures = ground.of_kind("panorama")
    assert found(pictures) == headings
    seen, real = [], module.street_views
    monkeypatch.setattr(
        module, "street_views", lambda ground, some, *rest: seen.extend(some) or real(ground, some, *rest)
    )
    known = [
        replace(picture, heading_deg=12.5 if k == 1 else deg)
        for k, (picture, deg) in enumerate(zip(pictures, headings, strict=True))
    ]
    known[2], known[4] = pictures[2], pictures[4]
    assert found(known) == [headings[0], 12.5, *headings[2:]]
    assert seen == [pictures[2], pictures[4]]
