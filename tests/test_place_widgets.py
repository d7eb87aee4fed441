"""A control is moved and the photos, their frames and the caption change."""

import io
import json

import numpy as np
import pytest
import torch
from ipywidgets import embed
from PIL import Image, ImageColor

from ucvgl import place_widgets as w
from ucvgl.errors import InputError
from ucvgl.retrieval_figures import RIGHT_COLOUR, WRONG_COLOUR


def photos(count, start=0, height=12, width=16):
    """Photos of one grey each: `start` plus 10 times their number."""
    return (start + 10 * torch.arange(count)).to(torch.uint8)[:, None, None, None].expand(count, 3, height, width)


PHOTOS = {"car": (photos(4, 100), photos(8)), "night": (photos(2, 200, 16, 8), photos(6, 0, 16, 8))}
CAR = torch.tensor([[0, 1, 2, 3, 4, 5], [6, 7, 0, 1, 2, 3], [2, 3, 4, 5, 6, 7], [1, 0, 3, 2, 5, 4]])
CAR_RIGHT = torch.tensor([[1, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1], [1, 1, 0, 0, 0, 0]]).bool()
NIGHT, NIGHT_RIGHT = torch.tensor([[5, 4, 3], [0, 1, 2]]), torch.zeros(2, 3, dtype=torch.bool)
FOUND = {
    "simclr": {"car": (CAR, CAR_RIGHT), "night": (NIGHT, NIGHT_RIGHT)},
    "byol": {"car": (CAR.flip(0), CAR_RIGHT.flip(0)), "night": (NIGHT.flip(1), ~NIGHT_RIGHT)},
}


def parts(given=PHOTOS, found=FOUND):
    choices, leafing, caption, own, row = w.place_browser(given, found).children
    return *choices.children, *leafing.children, caption, own, row.children


def pixels(picture):
    return np.asarray(Image.open(io.BytesIO(picture.value)).convert("RGB"), dtype=float)


def middle(picture):
    image = pixels(picture)
    return image[image.shape[0] // 2, image.shape[1] // 2].mean()


def frame_colour(picture):
    edge = pixels(picture)[-3, w.TILE_PX // 2]
    return min((RIGHT_COLOUR, WRONG_COLOUR), key=lambda c: np.abs(edge - ImageColor.getrgb(c)).sum())


def test_a_query_and_its_first_five_photos() -> None:
    method, test, kind, slider, caption, own, row = parts()
    assert (method.options, test.options) == (("simclr", "byol"), ("car", "night"))
    assert kind.options == ("all", "right", "wrong")
    assert slider.max == 3
    assert caption.value == "1 of 4: query 0; first right photo at place 1; R@1 of all queries 50.0 %"
    assert len(row) == 5
    assert middle(own) == pytest.approx(100, abs=3)
    for query in range(4):
        slider.value = query
        assert middle(own) == pytest.approx(100 + 10 * query, abs=3)
        assert [middle(p) for p in row] == pytest.approx([10.0 * k for k in CAR[query, :5].tolist()], abs=4)
        colours = [RIGHT_COLOUR if right else WRONG_COLOUR for right in CAR_RIGHT[query, :5]]
        assert [frame_colour(p) for p in row] == colours
        if query == 2:  # its first right one is the sixth
            assert "no right photo among the first 5" in caption.value


def test_another_method_keeps_the_query() -> None:
    method, _, kind, slider, caption, own, row = parts()
    slider.value = 1
    before = own.value
    method.value = "byol"
    assert slider.value == 1
    assert own.value == before
    assert [middle(p) for p in row] == pytest.approx([10.0 * k for k in CAR[2, :5].tolist()], abs=4)
    kind.value = "wrong"  # 1 and 2
    assert caption.value.startswith("1 of 2: query 1;")
    slider.value = 1
    method.value = "simclr"
    assert caption.value.startswith("2 of 2: query 2;")
    kind.value = "right"  # 0 and 3: not there
    assert caption.value.startswith("1 of 2: query 0;")


def test_another_test_set_starts_anew_with_photos_of_its_own_shape() -> None:
    _, test, _, slider, caption, own, row = parts()
    assert [int(p.width) for p in (own, *row)] == [200] * 6
    slider.value = 1
    test.value = "night"
    assert (slider.value, slider.max) == (0, 1)
    assert caption.value == "1 of 2: query 0; no right photo among the first 3; R@1 of all queries 0.0 %"
    assert [bool(p.value) for p in row] == [True] * 3 + [False] * 2  # this one ranks three
    assert [int(p.width) for p in (own, *row[:3])] == [75] * 4
    assert middle(own) == pytest.approx(200, abs=3)
    assert [middle(p) for p in row[:3]] == pytest.approx([50, 40, 30], abs=4)


def test_filters_agree_with_a_loop() -> None:
    method, test, kind, slider, caption, *_ = parts()
    for name in FOUND:
        for place in PHOTOS:
            method.value, test.value = name, place
            right = FOUND[name][place][1]
            for shown, wanted in (("all", (True, False)), ("right", (True,)), ("wrong", (False,))):
                kind.value = shown
                seen = []
                for number in range(slider.max + 1):
                    slider.value = number
                    if not slider.disabled:
                        seen.append(int(caption.value.split("query ")[1].split(";")[0]))
                assert seen == [query for query in range(len(right)) if bool(right[query, 0]) in wanted]


def test_a_filter_without_queries_shows_nothing_and_can_be_left() -> None:
    _, test, kind, slider, caption, own, row = parts()
    test.value, kind.value = "night", "right"
    assert caption.value == "no query is right; R@1 of all queries 0.0 %"
    assert slider.disabled
    assert not any(p.value for p in (own, *row))
    kind.value = "all"
    assert not slider.disabled
    assert own.value


def test_one_move_draws_once(monkeypatch) -> None:
    method, _, _, slider, *_ = parts()
    slider.value = 3
    calls, as_jpeg = [], w.as_jpeg
    monkeypatch.setattr(w, "as_jpeg", lambda image: calls.append(1) or as_jpeg(image))
    method.value = "byol"
    assert len(calls) == 6
    slider.value = 0
    assert len(calls) == 12


def test_what_a_notebook_keeps_is_small() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 255, (40, 3, 48, 64), generator=generator, dtype=torch.uint8)  # nothing compresses worse
    index = torch.rand(40, 40, generator=generator).argsort(1)
    box = w.place_browser({"car": (noise, noise)}, {"simclr": {"car": (index, index < 20)}})
    state = embed.dependency_state([box], drop_defaults=True)
    assert len(json.dumps(state)) < 150_000


def test_what_does_not_fit_is_told() -> None:
    def one(index=CAR, right=CAR_RIGHT):
        return {"simclr": {"car": (index, right)}}

    car = {"car": PHOTOS["car"]}
    faults = [
        ({}, {}), (car, {}), ({}, {"simclr": {}}), (PHOTOS, one()), (car, FOUND), (car, one(CAR + 1)), (car, one(CAR - 1)),
        (car, one(CAR.float())), (car, one(CAR, CAR_RIGHT.int())), (car, one(CAR[:2], CAR_RIGHT[:2])),
        (car, one(CAR, CAR_RIGHT[:, :3])), (car, one(CAR[:, :0], CAR_RIGHT[:, :0])), (car, one(CAR[0], CAR_RIGHT[0])),
        ({"car": (photos(0), photos(8))}, one(CAR[:0], CAR_RIGHT[:0])),
    ]  # fmt: skip
    for given, found in faults:
        with pytest.raises(InputError, match="place browser"):
            w.place_browser(given, found)
