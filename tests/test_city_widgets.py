"""A control is moved and the picture, its frames and the caption change; the grid's formulas agree with counting."""

import csv
import io
import json
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from ipywidgets import embed
from PIL import Image, ImageColor

from ucvgl import city_widgets as w
from ucvgl.candidates import cut
from ucvgl.errors import InputError
from ucvgl.located import Candidate, Located
from ucvgl.mosaic import open_mosaic
from ucvgl.positions import from_metres
from ucvgl.retrieval_figures import RIGHT_COLOUR, WRONG_COLOUR

NAN = math.nan


def pixels(picture):
    return np.asarray(Image.open(io.BytesIO(picture.value)).convert("RGB"), dtype=float)


def near(image, colour, within=12):
    """The part of an image that has a colour."""
    return float((np.abs(image - ImageColor.getrgb(colour)).max(-1) < within).mean())


# -------------------------------------------------------------------------------------------------------------- the stride


def test_the_count_is_that_of_a_cut_mosaic(tmp_path) -> None:
    with (tmp_path / "tiles.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "latitude", "longitude", "metres_per_pixel"])
        for number, (east, north) in enumerate([(-64, -64), (64, -64), (-64, 64), (64, 64), (192, 64), (192, -64)]):
            Image.new("RGB", (32, 32)).save(tmp_path / f"{number}.png")
            table.writerow([f"{number}.png", *from_metres(np.array([[east, north]]), (45.0, -30.0))[0], 4.0])
    mosaic = open_mosaic(tmp_path, tmp_path / "tiles.csv")
    extent = tuple(np.subtract(*mosaic.bounds_m[::-1]).tolist())
    assert extent == pytest.approx((384, 256), abs=0.1)
    for span, stride in ((50, 12.5), (50, 25), (40, 7), (100, 100), (200, 33)):
        tiles = cut(mosaic, span, stride, 8, least_covered=0.01)
        assert w.candidate_count(extent, span, stride) == len(tiles) + tiles.left_out
    assert w.candidate_count((200.0, 100.0), 50, 50) == 4 * 2


def test_distances_agree_with_a_cell_of_points() -> None:
    line = (np.arange(1000) + 0.5) / 1000 - 0.5
    unit = np.hypot(line[:, None], line[None, :])  # a centre in the middle of its cell
    for stride in (1.0, 12.5, 25.0):
        median, most = w.nearest_centre_m(stride)
        assert median == pytest.approx(np.median(unit) * stride, rel=1e-3)
        assert most == pytest.approx(unit.max() * stride, rel=2e-3)
        radii = np.linspace(0, 0.8 * stride, 23)
        counted = [(unit * stride <= r).mean() for r in radii]
        assert w.share_within(radii, stride) == pytest.approx(counted, abs=2e-4)
        assert float(w.share_within(median, stride)) == pytest.approx(0.5)
        assert float(w.share_within(most, stride)) == pytest.approx(1)
    assert float(w.share_within(5, 10)) == pytest.approx(math.pi / 4)


def test_a_wider_stride_has_fewer_candidates_and_ground_that_is_never_right() -> None:
    controls, numbers, picture = w.stride_explorer((400.0, 300.0), 50.0).children
    stride, span = controls.children
    assert all(control.description for control in (stride, span))
    assert numbers.value == (
        "609 candidates; a place is 5.0 m (median) and at most 8.8 m from the nearest centre, 100 % within 10 m"
    )
    first, image = picture.value, pixels(picture)
    assert image.shape == (420, 880, 3)
    assert near(image, w.FAR) < 0.01  # its name in the legend
    assert near(image, w.NEAR) > 0.15
    stride.value = 25
    assert numbers.value == (
        "165 candidates; a place is 10.0 m (median) and at most 17.7 m from the nearest centre, 50 % within 10 m"
    )
    assert picture.value != first
    assert near(pixels(picture), w.FAR) > 0.1
    second = picture.value
    span.value = 100
    assert numbers.value.startswith("117 candidates; a place is 10.0 m")
    assert picture.value != second


def test_sliders_reach_their_ends() -> None:
    controls, numbers, picture = w.stride_explorer((60.0, 1000.0), 50.0, stride_m=50.0, radius_m=40.0).children
    stride, span = controls.children
    assert (span.min, span.max) == (25, 60)
    assert numbers.value.startswith("20 candidates;")
    assert numbers.value.endswith("100 % within 40 m")
    for control in (stride, span):
        for value in (control.min, control.max):
            control.value = value
            assert pixels(picture).shape == (420, 880, 3)


@pytest.mark.parametrize(
    ("extent", "span", "more"),
    [
        ((40.0, 400.0), 50.0, {}), ((400.0,), 50.0, {}), ((400.0, 400.0), 0.0, {}), ((400.0, NAN), 50.0, {}),
        ((400.0, 400.0), 50.0, {"stride_m": 60.0}), ((400.0, 400.0), 50.0, {"stride_m": 0.0}),
        ((400.0, 400.0), 50.0, {"radius_m": 0.0}), ((400.0, math.inf), 50.0, {"radius_m": NAN}),
    ],
)  # fmt: skip
def test_lengths_that_make_no_grid_are_told(extent, span, more) -> None:
    with pytest.raises(InputError, match="stride explorer"):
        w.stride_explorer(extent, span, **more)


# ------------------------------------------------------------------------------------------------------------ the certainty

P, RIGHT = np.array([0.95, 0.9, 0.6, 0.4, 0.1]), np.array([1, 0, 1, 0, 1])


def test_what_is_claimed_and_true_of_five() -> None:
    slider, numbers, picture = w.certainty_explorer(P, RIGHT).children
    assert slider.description
    assert numbers.value == (
        "2 of 5 pictures (40 %) are 90 % sure or more; claimed right 92.5 %, truly right 50.0 %: 42.5 points apart"
    )
    first = picture.value
    assert pixels(picture).shape == (460, 880, 3)
    slider.value = 0.5
    assert numbers.value == (
        "3 of 5 pictures (60 %) are 50 % sure or more; claimed right 81.7 %, truly right 66.7 %: 15.0 points apart"
    )
    assert picture.value != first
    slider.value = 1
    assert numbers.value == "0 of 5 pictures (0 %) are 100 % sure or more"


def test_claims_agree_with_a_loop() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(60).round(2)
    y = np.where(rng.random(60) < 0.3, NAN, rng.random(60) < p)
    for least in (0.0, 0.25, 0.5, float(p.max())):
        placed = [i for i in range(60) if p[i] >= least]
        known = [i for i in placed if not math.isnan(y[i])]
        found = w._claims(p, y, least)
        assert found[:2] == (len(placed), len(known))
        if known:
            assert found[2:] == pytest.approx((sum(p[known]) / len(known), sum(y[known]) / len(known)))


def test_unknown_truth_is_said() -> None:
    _, numbers, picture = w.certainty_explorer(P, np.array([1, NAN, NAN, 0, NAN])).children
    assert "truly right 100.0 % (of 1 of known truth)" in numbers.value
    all_known = w.certainty_explorer(P, RIGHT).children[2]
    assert near(pixels(picture), WRONG_COLOUR) < near(pixels(all_known), WRONG_COLOUR)
    _, numbers, _ = w.certainty_explorer(P).children
    assert numbers.value == "2 of 5 pictures (40 %) are 90 % sure or more; claimed right 92.5 %; the truth is not known"
    slider, numbers, _ = w.certainty_explorer(P, np.array([NAN, NAN, NAN, NAN, 1])).children
    assert numbers.value == "2 of 5 pictures (40 %) are 90 % sure or more; the truth is known of none of these"
    slider.value = 0
    assert "truly right 100.0 % (of 1 of known truth)" in numbers.value


@pytest.mark.parametrize(
    ("p", "right", "threshold"),
    [
        (P[:0], RIGHT[:0], 0.5), (P, RIGHT[:4], 0.5), (P + 0.1, RIGHT, 0.5), (P - 0.2, RIGHT, 0.5), (P, RIGHT * 2, 0.5),
        (P * NAN, RIGHT, 0.5), (P, RIGHT, 1.5), (P, RIGHT, NAN), (P[None], RIGHT[None], 0.5),
    ],
)  # fmt: skip
def test_probabilities_that_are_none_are_told(p, right, threshold) -> None:
    with pytest.raises(InputError, match="certainty explorer"):
        w.certainty_explorer(p, right, threshold=threshold)


# ------------------------------------------------------------------------------------------------------- what was found


def grey(value, height=12, width=12):
    return torch.full((3, height, width), value, dtype=torch.uint8)


def one(number, probability, radii=(10.0, 10.0), notes=(), found=5):
    candidates = tuple(Candidate(f"t{number}{k}", 45, 7, 0.9 - 0.1 * k, 15.0 * k) for k in range(found))
    return Located(f"p{number}.jpg", 45, 7, probability, *radii, candidates, None, notes)


LOCATED = [
    one(0, 0.95), one(1, 0.6, (10.0, 34.4), ("heading searched for",)), one(2, 0.2, (42.0, None), found=2), one(3, 0.9),
    one(4, 0.01, (None, None)),
]  # fmt: skip
TRUE = np.array([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, NAN, NAN, NAN], [0, 0, 0, 0, 0], [NAN] * 5])


def browser(right=TRUE, located=LOCATED):
    box = w.located_browser(located, lambda i: grey(100 + 10 * i, 12, 24), lambda i: grey(10 * i),
                            lambda name: grey(10 * int(name[1]) + 20 * int(name[2]), 6, 6), right)  # fmt: skip
    (kind, slider), words, place = box.children[0].children, *box.children[1:3]
    own, top = box.children[3].children
    row = [part.children for part in box.children[4].children]
    return kind, slider, words, place, own, top, [r[0] for r in row], [(r[1], r[2]) for r in row]


def middle(picture):
    image = pixels(picture)
    return image[image.shape[0] // 2, image.shape[1] // 2].mean()


def frame(picture):
    """1 right, 0 wrong, NaN no frame."""
    edge = pixels(picture)[-3, -3]
    far = [np.abs(edge - ImageColor.getrgb(colour)).max() for colour in (WRONG_COLOUR, RIGHT_COLOUR)]
    return float(np.argmin(far)) if min(far) < 40 else NAN


def test_a_picture_its_top_view_and_its_candidates() -> None:
    kind, slider, words, _, own, top, row, texts = browser()
    assert (kind.description, slider.description) == ("show", "picture")
    assert kind.options == ("all", "sure", "unsure", "right", "wrong")
    assert slider.max == 4
    for number, located in enumerate(LOCATED):
        slider.value = number
        count = len(located.candidates)
        assert words.value.startswith(f"{number + 1} of 5: p{number}.jpg; ")
        assert middle(own) == pytest.approx(100 + 10 * number, abs=3)
        assert middle(top) == pytest.approx(10 * number, abs=3)
        assert [middle(p) for p in row[:count]] == pytest.approx([10 * number + 20 * k for k in range(count)], abs=4)
        np.testing.assert_equal([frame(p) for p in row[:count]], TRUE[number, :count].tolist())
        assert not any(p.value for p in row[count:])
        assert not any(text.value for pair in texts[count:] for text in pair)
    assert (int(own.width), int(top.width)) == (300, 150)
    assert [t.value for t in texts[0]] == ["1: score 0.900", "the place"]
    assert [t.value for t in texts[2]] == ["3: score 0.700", "30 m from the best"]


def test_how_sure_in_words() -> None:
    _, slider, words, place, *_ = browser()
    said = []
    for number in range(5):
        slider.value = number
        said.append((words.value.partition("; ")[2], place.value))
    sure = "sure that it was taken within 10 m of candidate 1"
    assert said == [
        ("its place is right", f"95 % {sure}"),
        ("its place is wrong", f"60 % {sure}; 90 % sure of 34 m; heading searched for"),
        ("its place is wrong", f"20 % {sure}; 50 % sure of 42 m; how far with 90 % is not known"),
        ("its place is wrong", f"90 % {sure}"),
        ("its true place is not known", f"1 % {sure}; how far with 50 % is not known; how far with 90 % is not known"),
    ]


def test_filters_agree_with_a_loop() -> None:
    kind, slider, words, *_ = browser()
    for name, wanted in (("all", [0, 1, 2, 3, 4]), ("sure", [0, 3]), ("unsure", [1, 2, 4]), ("right", [0]),
                         ("wrong", [1, 2, 3])):  # fmt: skip
        kind.value = name
        seen = []
        for number in range(slider.max + 1):
            slider.value = number
            seen.append(int(words.value.split(": p")[1][0]))
        assert seen == wanted


def test_a_picture_stays_when_the_filter_shows_it() -> None:
    kind, slider, words, *_ = browser()
    slider.value = 3
    kind.value = "wrong"
    assert (slider.value, slider.max) == (2, 2)
    assert words.value.startswith("3 of 3: p3.jpg")
    kind.value = "right"
    assert words.value.startswith("1 of 1: p0.jpg")


def test_a_filter_without_pictures_shows_nothing_and_can_be_left() -> None:
    kind, slider, words, place, own, top, row, _ = browser(located=LOCATED[1:3], right=TRUE[1:3])
    kind.value = "sure"
    assert (words.value, place.value) == ("no picture is sure", "")
    assert slider.disabled
    assert not any(p.value for p in (own, top, *row))
    kind.value = "all"
    assert not slider.disabled
    assert own.value


def test_without_truth_nothing_is_framed() -> None:
    kind, _, words, _, _, _, row, _ = browser(None)
    assert kind.options == ("all", "sure", "unsure")
    assert "not known" in words.value
    assert all(math.isnan(frame(p)) for p in row)
    *_, row, _ = browser(TRUE[:, 0])  # of the best alone
    np.testing.assert_equal([frame(p) for p in row], [1, NAN, NAN, NAN, NAN])


def test_one_move_draws_once(monkeypatch) -> None:
    kind, slider, *_ = browser()
    slider.value = 3
    calls, as_jpeg = [], w.as_jpeg
    monkeypatch.setattr(w, "as_jpeg", lambda image: calls.append(1) or as_jpeg(image))
    kind.value = "wrong"
    assert len(calls) == 7
    slider.value = 0
    assert len(calls) == 14


def test_what_a_notebook_keeps_is_small() -> None:
    generator = torch.Generator().manual_seed(0)

    def noise(height, width):  # nothing compresses worse
        return torch.randint(0, 255, (3, height, width), generator=generator, dtype=torch.uint8)

    box = w.located_browser(LOCATED, lambda _: noise(1000, 2000), lambda _: noise(96, 96).float() / 255,
                            lambda _: noise(64, 64))  # fmt: skip
    state = embed.dependency_state([box], drop_defaults=True)
    assert len(json.dumps(state)) < 250_000
    assert pixels(box.children[3].children[0]).shape == (w.PICTURE_PX, 2 * w.PICTURE_PX, 3)


@pytest.mark.parametrize(
    ("located", "right", "sure"),
    [
        ([], None, 0.9), (LOCATED, TRUE[:4], 0.9), (LOCATED, 2 * TRUE, 0.9), (LOCATED, TRUE[:, :0], 0.9),
        (LOCATED, np.zeros((5, 6)), 0.9), (LOCATED, TRUE[None], 0.9), (LOCATED, TRUE, 1.1), (LOCATED, TRUE, NAN),
    ],
)  # fmt: skip
def test_what_cannot_be_browsed_is_told(located, right, sure) -> None:
    with pytest.raises(InputError, match="located browser"):
        w.located_browser(located, grey, grey, lambda _: grey(0), right, sure=sure)


def test_no_figure_is_left_to_pyplot() -> None:
    w.stride_explorer((400.0, 300.0), 50.0)
    w.certainty_explorer(P, RIGHT)
    assert plt.get_fignums() == []
