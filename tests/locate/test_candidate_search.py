"""From folders to evidence: the pictures and candidates that encoders are given, headings, places (search.py)."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from geo_inputs import some_of
from PIL import Image

from ucvgl.data.container import ArrayImages, Dataset, Positives
from ucvgl.encoders import EncoderConfig, save_model, two_view_encoder
from ucvgl.errors import InputError
from ucvgl.geometry import top_view
from ucvgl.locate import search as module
from ucvgl.locate.adapt import AdaptConfig
from ucvgl.locate.candidates import Candidates, cut
from ucvgl.locate.confidence import Calibration, place_alone
from ucvgl.locate.inputs import Request
from ucvgl.locate.pictures import check_ground
from ucvgl.locate.search import (
    NO_HEADING,
    calibration_name,
    calibration_of,
    find_headings,
    place,
    search,
    street_images,
    tile_images,
)
from ucvgl.locate.tiles import open_mosaic
from ucvgl.locate.views import StreetConfig, north_up, read_picture
from ucvgl.methods.baselines import pixel_descriptor
from ucvgl.world.own_city import export_own_city
from ucvgl.world.pairs import WorldConfig

SIZE, PLACES = 32, 9
ENCODER = EncoderConfig("test_efficientnet", depth=2, image_px=(SIZE, SIZE), safa_heads=2)
STREET = StreetConfig(size_px=(SIZE, SIZE), span_m=32.0)
MADE_UP = Calibration(("margin",), (0.0,), (1.0,), (5.0,), 0.0, (0.1,) * 4, "a test", 10, 5)


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
    path = tmp_path_factory.mktemp("encoders") / "tiny.safetensors"
    save_model(two_view_encoder(ENCODER, ENCODER, shared=False, seed=0), path)
    return AdaptConfig(str(path), "a digest", epochs=0)


def asked(city, adapt, **changes):
    """As `read_inputs` gives it."""
    return SimpleNamespace(
        **{"ground": city.ground, "candidates": city.candidates, "adapt": adapt, "street": STREET, **changes},
        request=SimpleNamespace(turns=4),
    )


def found_in(city, adapt, **changes):
    return search(asked(city, adapt, **changes), "panorama", progress=False)


# ------------------------------------------------------------------------------------------------------ what is searched


def test_pictures_are_made_once_and_each_heading_anew(city, monkeypatch):
    pictures = city.ground.of_kind("panorama")
    headings = torch.linspace(0, 300, PLACES, dtype=torch.float64)
    views = street_images(city.ground, "panorama", headings, STREET, progress=False)
    assert views[:].shape == (PLACES, 3, SIZE, SIZE)
    for k in range(PLACES):
        image = read_picture(city.ground, pictures[k])
        assert torch.equal(views[k], north_up(image, pictures[k], headings[k : k + 1], STREET)[0])
    others = (headings + 1, STREET), (headings, StreetConfig(size_px=(SIZE, SIZE), span_m=40.0))
    for turns, street in others:
        assert street_images(city.ground, "panorama", turns, street, progress=False).source != views.source
    monkeypatch.setattr(module, "street_views", None)  # would fail if they were made again
    again = street_images(city.ground, "panorama", headings, STREET, progress=False)
    assert (again.source, torch.equal(again[:], views[:])) == (views.source, True)


def test_candidates_are_cut_once(city, monkeypatch):
    tiles = tile_images(city.candidates, progress=False)
    assert tiles[:].shape == (len(city.candidates), 3, SIZE, SIZE)
    for k in (0, 7, len(tiles) - 1):
        assert torch.equal(tiles[k], city.candidates.read(k))
    assert tile_images(cut(city.candidates.mosaic, 32.0, 31.0, SIZE), progress=False).source != tiles.source
    monkeypatch.setattr(Candidates, "read", None)
    assert tile_images(city.candidates, progress=False).source == tiles.source


@pytest.mark.parametrize("known", [True, False])
def test_a_search_places_every_picture(city, adapt, known):
    ground = check_ground(city.root / "ground", heading_deg=0.0) if known else city.ground
    found = found_in(city, adapt, ground=ground)
    assert found.kind == "panorama"
    assert found.known.tolist() == [known] * PLACES
    assert set(found.headings_deg.tolist()) <= ({0.0} if known else {0.0, 90.0, 180.0, 270.0})
    assert found.images.top_view[:].shape == (PLACES, 3, SIZE, SIZE)
    assert len(found.images.gallery) == len(city.candidates)
    assert found.evidence.values.shape == (PLACES, 5)
    assert found.evidence.best.shape == (PLACES, 5)
    assert [one.name for one in found.rounds] == ["as they came"]
    placed = place(city.candidates, found, place_alone(MADE_UP, found.evidence))
    assert [one.picture for one in placed] == [f"pano_{k:05d}.jpg" for k in range(PLACES)]
    assert [NO_HEADING in one.notes for one in placed] == [not known] * PLACES
    assert [one.heading_deg for one in placed] == found.headings_deg.tolist()
    best = city.candidates.positions.values[found.evidence.best[:, 0]]
    assert np.allclose([(one.latitude, one.longitude) for one in placed], best, atol=1e-6)


def test_pictures_are_turned_by_the_headings_that_were_found(city, adapt):
    found = found_in(city, adapt)
    k = int(found.headings_deg.argmax())
    assert found.headings_deg[k] > 0
    image = read_picture(city.ground, found.pictures[k])
    expected = north_up(image, found.pictures[k], found.headings_deg[k : k + 1], STREET)[0]
    assert torch.equal(found.images.top_view[k], expected)


def test_a_stopped_search_goes_on(city, adapt, monkeypatch, tmp_path):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))

    def stopped(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "embed", stopped)
        with pytest.raises(KeyboardInterrupt):
            found_in(city, adapt)
    monkeypatch.setattr(Candidates, "read", None)  # would fail if they were cut again
    found_in(city, adapt)


def test_tiles_are_embedded_once_for_all_runs(city, adapt, monkeypatch, tmp_path):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))
    turned, real = [], module.turn_squares
    monkeypatch.setattr(module, "turn_squares", lambda some, by: turned.append(len(some)) or real(some, by))
    found_in(city, adapt)
    every = 4 * (len(city.candidates) + PLACES)
    assert sum(turned) == every
    known = check_ground(city.root / "ground", heading_deg=0.0)  # another case, the same tiles
    found_in(city, adapt, ground=known)
    assert sum(turned) == every + 4 * PLACES
    found_in(city, replace(adapt, start_digest="another digest"), ground=known)
    assert sum(turned) == 2 * every + 4 * PLACES


def test_one_candidate_is_told(city, adapt):
    with pytest.raises(InputError, match="two candidates or more"):
        found_in(city, adapt, candidates=some_of(city.candidates, [3]))


def test_two_candidates_are_enough(city, adapt):
    ground = check_ground(city.root / "ground", heading_deg=0.0)
    found = found_in(city, adapt, ground=ground, candidates=some_of(city.candidates, [0, 5]))
    assert found.evidence.best.shape == (PLACES, 2)
    assert len(place(some_of(city.candidates, [0, 5]), found, place_alone(MADE_UP, found.evidence))[0].candidates) == 2


def test_a_full_disk_is_found_out_when_the_array_is_laid_out(city, tmp_path, monkeypatch):
    """Else the first page that does not fit would end the process."""
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))

    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match="No space left"):
        tile_images(city.candidates, progress=False)


# ----------------------------------------------------------------------------------------------------------- the headings

WIDTH, TURNS = 120, 12


def blobs(seed):
    """A panorama without a seam, uint8 (3, 60, 120)."""
    small = torch.rand(1, 3, 5, 9, generator=torch.Generator().manual_seed(seed))
    small[..., -1] = small[..., 0]
    large = torch.nn.functional.interpolate(small, (WIDTH // 2, WIDTH), mode="bilinear", align_corners=True)
    return (255 * large[0]).round().byte()


@pytest.fixture
def turned(tmp_path, monkeypatch, runs):
    """Six pictures turned by a known angle, candidates that are what they show north up, and an encoder of plain pixels."""
    headings = [0.0, 30.0, 90.0, 150.0, 210.0, 330.0]
    folder = tmp_path / "ground"
    folder.mkdir()
    for k, heading in enumerate(headings):
        picture = blobs(k).roll(-round(heading / 360 * WIDTH), 2)
        Image.fromarray(np.ascontiguousarray(picture.permute(1, 2, 0).numpy())).save(folder / f"{k}.png")
    street = StreetConfig(size_px=(SIZE, SIZE), span_m=20.0)
    tile = top_view(torch.stack([blobs(k) for k in (3, 0, 5, 1, 4, 2)]), street.top_view)
    monkeypatch.setattr(
        module, "embed", lambda encoder, batches: torch.cat([pixel_descriptor(images) for images in batches])
    )
    return SimpleNamespace(
        headings=torch.tensor(headings, dtype=torch.float64), ground=check_ground(folder), folder=folder,
        images=toy_set(tile, f"toy {tmp_path.name}"), model=SimpleNamespace(ground=None, satellite=None),
        adapt=AdaptConfig("a file", "a digest"), street=street,
    )  # fmt: skip


def toy_set(tile, name):
    images = ArrayImages(map(str, range(len(tile))), tile, source=name)
    return Dataset(name, "all", images, images, Positives.unknown(len(tile)), top_view=images)


def headings_of(t, known, adapt=None, turns=TURNS):
    inputs = SimpleNamespace(
        ground=t.ground, street=t.street, adapt=adapt or t.adapt, request=SimpleNamespace(turns=turns)
    )
    tiles = module.tile_turns(t.model, t.images, None)
    return find_headings(inputs, "panorama", known, t.images, t.model, tiles, progress=False)


def test_headings_are_found(turned):
    unknown = torch.full((6,), float("nan"), dtype=torch.float64)
    assert torch.equal(headings_of(turned, unknown), turned.headings)


def test_known_headings_stay_and_cost_nothing(turned, monkeypatch):
    seen = []
    real = module.street_views

    def watched(ground, pictures, headings, *rest, **options):
        seen.append(([p.file for p in pictures], len(headings)))
        return real(ground, pictures, headings, *rest, **options)

    monkeypatch.setattr(module, "street_views", watched)
    known = turned.headings.clone()
    known[1], known[4] = 12.5, float("nan")
    known[2] = float("nan")
    expected = turned.headings.clone()
    expected[1] = 12.5
    assert torch.equal(headings_of(turned, known), expected)
    assert seen == [(["2.png", "4.png"], 2)]


def test_headings_are_searched_once_whatever_the_training(turned, monkeypatch):
    unknown = torch.full((6,), float("nan"), dtype=torch.float64)
    first = headings_of(turned, unknown)
    monkeypatch.setattr(module, "street_views", None)  # would fail if it were looked at again
    assert torch.equal(headings_of(turned, unknown, replace(turned.adapt, epochs=3)), first)
    for other in ({"adapt": AdaptConfig("a file", "another")}, {"turns": 8}):
        with pytest.raises(TypeError):
            headings_of(turned, unknown, **other)


@pytest.mark.parametrize("turns", [0, -4, 6, 2.5])
def test_turns_are_a_number(turns):
    with pytest.raises(InputError, match="turns"):
        Request("ground", "tiles", "out", turns=turns)


# --------------------------------------------------------------------------------------------------------- the calibration


@pytest.mark.parametrize("searched", [False, True])
@pytest.mark.parametrize("kind", ["panorama", "photo"])
def test_the_committed_calibrations_load_and_fit_the_evidence(kind, searched, monkeypatch, tmp_path):
    search_of_kind = SimpleNamespace(kind=kind, known=torch.tensor([True, not searched]))
    found = calibration_of(search_of_kind)
    assert 0 < found.right < found.pictures
    assert (found.temperature, found.shift) == (1.0, 0.0)
    assert "old_town" in found.measured_on
    assert ("searched for" in found.measured_on) == searched
    monkeypatch.setattr(module, "WEIGHTS", tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"{calibration_name(kind, searched=searched)}\.json"):
        calibration_of(search_of_kind)
