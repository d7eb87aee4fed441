"""From folders to evidence: the pictures and candidates that encoders are given, headings, places (search.py)."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from geo_inputs import seamless, some_of, tiny_encoders
from PIL import Image

from ucvgl.data.container import ArrayImages, Dataset, Positives
from ucvgl.errors import InputError
from ucvgl.geometry import top_view
from ucvgl.locate import search as module
from ucvgl.locate.adapt import AdaptConfig
from ucvgl.locate.candidates import cut
from ucvgl.locate.pictures import check_ground
from ucvgl.locate.search import find_headings, search, street_images
from ucvgl.locate.tiles import open_mosaic
from ucvgl.locate.views import StreetConfig, north_up, read_picture
from ucvgl.methods.baselines import pixel_descriptor
from ucvgl.world.export import export_own_city
from ucvgl.world.pairs import WorldConfig

SIZE, PLACES = 32, 9
STREET = StreetConfig(size_px=(SIZE, SIZE), span_m=32.0)


@pytest.fixture(scope="module")
def city(tmp_path_factory, runs):
    """Nine panoramas and the candidates of a small city."""
    root = export_own_city(
        tmp_path_factory.mktemp("own") / "city",
        WorldConfig(("downtown",), 0, PLACES, 8.0, "medium", 24.0, 64, 32, 256.0, 0.5), zoom=20, progress=False,
    )  # fmt: skip
    candidates = cut(open_mosaic(root / "tiles"), 32.0, 16.0, SIZE)
    return SimpleNamespace(root=root, candidates=candidates, ground=check_ground(root / "ground"))


@pytest.fixture(scope="module")
def adapt(tmp_path_factory):
    path = tiny_encoders(tmp_path_factory.mktemp("encoders") / "tiny.safetensors")
    return AdaptConfig(path, "a digest", epochs=0)


def found_in(city, adapt, **changes):
    """Searched as `read_inputs` gives it."""
    given = {"ground": city.ground, "candidates": city.candidates, "adapt": adapt, "street": STREET, **changes}
    return search(SimpleNamespace(**given, request=SimpleNamespace(turns=4)), "panorama", progress=False)


def test_pictures_are_made_once_and_each_heading_anew(city, monkeypatch):
    pictures = city.ground.of_kind("panorama")
    headings = torch.linspace(0, 300, PLACES, dtype=torch.float64)
    views = street_images(city.ground, "panorama", headings, STREET, progress=False)
    assert views[:].shape == (PLACES, 3, SIZE, SIZE)
    for k in range(PLACES):
        image = read_picture(city.ground, pictures[k])
        assert torch.equal(views[k], north_up(image, pictures[k], headings[k : k + 1], STREET)[0])
    for turns, street in ((headings + 1, STREET), (headings, replace(STREET, span_m=40.0))):
        assert street_images(city.ground, "panorama", turns, street, progress=False).source != views.source
    monkeypatch.setattr(module, "street_views", lambda *_, **__: iter(()))  # nothing, if they were made again
    again = street_images(city.ground, "panorama", headings, STREET, progress=False)
    assert (again.source, torch.equal(again[:], views[:])) == (views.source, True)


@pytest.mark.parametrize("known", [True, False])
def test_a_search_finds_a_heading_and_candidates_for_every_picture(city, adapt, known):
    ground = check_ground(city.root / "ground", heading_deg=0.0) if known else city.ground
    found = found_in(city, adapt, ground=ground)
    assert found.known.tolist() == [known] * PLACES
    assert set(found.headings_deg.tolist()) <= ({0.0} if known else {0.0, 90.0, 180.0, 270.0})
    assert len(found.images.gallery) == len(city.candidates)
    assert found.evidence.values.shape == found.evidence.best.shape == (PLACES, 5)
    assert [one["name"] for one in found.rounds] == ["as they came"]
    k = int(found.headings_deg.argmax())  # turned by the heading that was found
    assert (found.headings_deg[k] > 0) == (not known)
    image = read_picture(city.ground, found.pictures[k])
    expected = north_up(image, found.pictures[k], found.headings_deg[k : k + 1], STREET)[0]
    assert torch.equal(found.images.top_view[k], expected)


def test_tiles_are_embedded_once_for_all_runs(city, adapt, monkeypatch, tmp_path):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))
    turned, real = [], module.turn_squares
    monkeypatch.setattr(module, "turn_squares", lambda some, by: turned.append(len(some)) or real(some, by))
    found_in(city, adapt)
    every = 4 * len(city.candidates)
    assert sum(turned) == every + 5 * PLACES  # once as the encoders came, and in four turns
    known = check_ground(city.root / "ground", heading_deg=0.0)  # another case, the same tiles
    found_in(city, adapt, ground=known)
    assert sum(turned) == every + 10 * PLACES
    found_in(city, replace(adapt, start_digest="another digest"), ground=known)
    assert sum(turned) == 2 * every + 15 * PLACES


def test_two_candidates_are_enough_and_one_is_told(city, adapt):
    ground = check_ground(city.root / "ground", heading_deg=0.0)
    found = found_in(city, adapt, ground=ground, candidates=some_of(city.candidates, [0, 5]))
    assert found.evidence.best.shape == (PLACES, 2)
    with pytest.raises(InputError, match="two candidates or more"):
        found_in(city, adapt, candidates=some_of(city.candidates, [3]))


WIDTH, TURNS = 120, 12


@pytest.fixture
def turned(tmp_path, monkeypatch, runs):
    """Six pictures turned by a known angle, candidates that are what they show north up, and an encoder of plain pixels."""
    headings = [0.0, 30.0, 90.0, 150.0, 210.0, 330.0]
    folder = tmp_path / "ground"
    folder.mkdir()
    scenes = [seamless(WIDTH // 2, WIDTH, k) for k in range(6)]
    for k, (scene, heading) in enumerate(zip(scenes, headings, strict=True)):
        picture = scene.roll(-round(heading / 360 * WIDTH), 2)
        Image.fromarray(np.ascontiguousarray(picture.permute(1, 2, 0))).save(folder / f"{k}.png")
    street = StreetConfig(size_px=(SIZE, SIZE), span_m=20.0)
    tile = top_view(torch.stack([scenes[k] for k in (3, 0, 5, 1, 4, 2)]), street.top_view)
    monkeypatch.setattr(module, "embed", lambda _, batches: torch.cat([*map(pixel_descriptor, batches)]))
    tiles = ArrayImages(map(str, range(6)), tile, source=f"toy {tmp_path.name}")
    adapt = AdaptConfig("a file", "a digest")
    return SimpleNamespace(
        headings=torch.tensor(headings, dtype=torch.float64),
        inputs=SimpleNamespace(
            ground=check_ground(folder), street=street, adapt=adapt, request=SimpleNamespace(turns=TURNS)
        ),
        images=Dataset("toy", "all", tiles, tiles, Positives.unknown(6), top_view=tiles),
        model=SimpleNamespace(ground=None, satellite=None),
    )


def test_headings_are_found_and_known_ones_stay_and_cost_nothing(turned, monkeypatch):
    def found(known):
        return find_headings(turned.inputs, "panorama", known, turned.images, turned.model, progress=False)

    assert torch.equal(found(torch.full_like(turned.headings, torch.nan)), turned.headings)
    seen, real = [], module.street_views

    def watched(ground, pictures, headings, *rest, **options):
        seen.append(([p.file for p in pictures], len(headings)))
        return real(ground, pictures, headings, *rest, **options)

    monkeypatch.setattr(module, "street_views", watched)
    expected = turned.headings.clone()
    expected[1] = 12.5
    known = expected.clone()
    known[[2, 4]] = torch.nan
    assert torch.equal(found(known), expected)
    assert seen == [(["2.png", "4.png"], 2)]
