"""A control is moved and its pictures, numbers and captions change."""

import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from ucvgl import retrieval_widgets as w
from ucvgl.errors import InputError
from ucvgl.retrieval_figures import RIGHT_COLOUR, WRONG_COLOUR

mpl.use("agg")


def opened(picture):
    return Image.open(io.BytesIO(picture.value))


def frame_colour(picture):
    """Which of the two colours the lower edge of a framed tile has."""
    edge = np.asarray(opened(picture).convert("RGB"), dtype=float)[-3, w.TILE_PX // 2]
    return min((RIGHT_COLOUR, WRONG_COLOUR), key=lambda c: np.abs(edge - ImageColor.getrgb(c)).sum())


# ---------------------------------------------------------------------------------------------------- the threshold


MARGIN = torch.tensor([0.00, 0.02, 0.06, 0.10, 0.20])
MUTUAL = torch.tensor([True, True, True, False, True])
RIGHT = torch.tensor([False, True, False, True, True])


def explorer(**settings):
    controls, numbers, picture = w.threshold_explorer(MARGIN, MUTUAL, RIGHT, **settings).children
    return *controls.children, numbers, picture


def test_the_explorer_counts_as_the_rule_does() -> None:
    slider, box, numbers, picture = explorer()
    assert numbers.value == "labels: 2, 50 % of them right (40.0 % of 5 ground images)"  # 0.06 and 0.20
    seen = {picture.value}
    box.value = False
    assert numbers.value == "labels: 3, 67 % of them right (60.0 % of 5 ground images)"  # and 0.10, right
    seen.add(picture.value)
    slider.value = 0.0
    assert numbers.value == "labels: 5, 60 % of them right (100.0 % of 5 ground images)"
    seen.add(picture.value)
    slider.value = slider.max
    assert numbers.value.startswith("labels: 1, 100 %")
    seen.add(picture.value)
    assert len(seen) == 4
    assert opened(picture).size == (880, 352)
    assert not plt.get_fignums()  # nothing left for the notebook to show once more


def test_every_threshold_agrees_with_a_loop() -> None:
    slider, box, numbers, _ = explorer()
    for threshold in (0.0, 0.01, 0.06, 0.15):  # a margin of exactly 0.06 counts, though float32 has it below 0.06
        for mutual in (True, False):
            slider.value, box.value = threshold, mutual
            labelled = [i for i in range(5) if MARGIN[i] >= threshold and (MUTUAL[i] or not mutual)]
            right = 100 * sum(bool(RIGHT[i]) for i in labelled) / len(labelled)
            assert numbers.value.startswith(f"labels: {len(labelled)}, {right:.0f} %")


def test_no_labels_and_a_threshold_out_of_range() -> None:
    slider, *_ = explorer(threshold=5.0)
    assert slider.value == slider.max == pytest.approx(0.2)
    none = torch.zeros(5, dtype=torch.bool)
    box = w.threshold_explorer(MARGIN, none, none)
    assert box.children[1].value == "labels: none (0.0 % of 5 ground images)"
    assert (
        w.threshold_explorer(torch.zeros(1), ~none[:1], ~none[:1], threshold=0)
        .children[1]
        .value.startswith("labels: 1, 100 %")
    )
    with pytest.raises(InputError, match="margins"):
        w.threshold_explorer(MARGIN[:2], MUTUAL, RIGHT)


# ------------------------------------------------------------------------------------------------- retrieved pictures


def pictures(count, height=16, width=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 255, (count, 3, height, width), generator=generator, dtype=torch.uint8)


FOUND = torch.tensor([[0, 1, 2], [3, 1, 0], [2, 3, 1], [1, 0, 3]])
HITS = torch.tensor([[True, False, False], [False, False, True], [False, False, False], [True, True, False]])
LABELLED = torch.tensor([True, True, False, False])


def browser(top_views=True, labelled=LABELLED):
    margin = torch.tensor([0.1, 0.2, 0.3, 0.4])
    views = list(pictures(4, seed=1)) if top_views else None
    box = w.retrieval_browser(pictures(4, 16, 32), views, pictures(4, seed=2), FOUND, HITS, margin, labelled=labelled)
    controls, caption, row = box.children
    return *controls.children, caption, row.children[0].children, row.children[1].children


def test_frames_carry_a_mark_besides_the_colour() -> None:
    grey = torch.full((3, 20, 20), 128, dtype=torch.uint8)
    right, wrong = w.framed(grey, True), w.framed(grey, False)
    assert right.shape == wrong.shape == (3, w.TILE_PX, w.TILE_PX)
    for picture, colour in ((right, RIGHT_COLOUR), (wrong, WRONG_COLOUR)):
        assert tuple(picture[:, -1, 50].tolist()) == ImageColor.getrgb(colour)
    white = [(picture == 255).all(0) for picture in (right, wrong)]
    assert white[0].any()
    assert white[1].any()
    assert not torch.equal(white[0], white[1])
    assert (right[:, 75, 75] == 128).all()


def test_leafing_changes_pictures_frames_and_caption() -> None:
    _, slider, caption, before, found = browser()
    assert len(before) == 2
    assert caption.value == "1 of 4: ground image 0; first right tile at place 1; margin 0.1000; labelled"
    assert [frame_colour(p) for p in found] == [RIGHT_COLOUR, WRONG_COLOUR, WRONG_COLOUR]
    first = [p.value for p in (*before, *found)]
    slider.value = 1
    assert all(p.value != old for p, old in zip((*before, found[0], found[2]), (*first[:3], first[4]), strict=True))
    assert [frame_colour(p) for p in found] == [WRONG_COLOUR, WRONG_COLOUR, RIGHT_COLOUR]
    assert "first right tile at place 3" in caption.value
    slider.value = 2
    assert caption.value.endswith("no right tile among the first 3; margin 0.3000; no label")


def test_filters_choose_queries() -> None:
    kind, slider, caption, *_ = browser()
    expected = {"all": [0, 1, 2, 3], "right": [0, 3], "wrong": [1, 2], "labelled and wrong": [1]}
    assert list(kind.options) == list(expected)
    slider.value = 3
    for name in ("right", "labelled and wrong", "wrong", "all"):
        kind.value = name
        assert slider.value == 0
        assert slider.max == len(expected[name]) - 1
        seen = []
        for place in range(slider.max + 1):
            slider.value = place
            seen.append(int(caption.value.split("ground image ")[1].split(";")[0]))
        assert seen == expected[name]


def test_a_filter_without_queries_shows_nothing_and_can_be_left() -> None:
    kind, slider, caption, before, found = browser(labelled=torch.zeros(4, dtype=torch.bool))
    kind.value = "labelled and wrong"
    assert caption.value == "no query is labelled and wrong"
    assert slider.disabled
    assert all(p.value == b"" for p in (*before, *found))
    kind.value = "all"
    assert not slider.disabled
    assert all(p.value for p in (*before, *found))


def test_a_browser_without_top_views_or_labels() -> None:
    kind, _, caption, before, _ = browser(top_views=False, labelled=None)
    assert len(before) == 1
    assert "labelled and wrong" not in kind.options
    assert caption.value.endswith("margin 0.1000")


def test_a_browser_that_does_not_fit_is_told() -> None:
    good = {"ground": pictures(4), "top_views": None, "tiles": pictures(4), "index": FOUND, "right": HITS,
            "margin": torch.zeros(4)}  # fmt: skip
    faults = [
        {"ground": pictures(3)}, {"top_views": pictures(3)}, {"tiles": pictures(3)}, {"index": FOUND - 1},
        {"right": HITS[:, :2]}, {"right": HITS.int()}, {"margin": torch.zeros(3)}, {"labelled": LABELLED[:2]},
        {"ground": pictures(0), "index": FOUND[:0], "right": HITS[:0], "margin": torch.zeros(0)},
    ]  # fmt: skip
    for fault in faults:
        with pytest.raises(InputError, match="retrieval browser"):
            w.retrieval_browser(**{**good, **fault})


def test_epochs_change_what_is_retrieved() -> None:
    frames = {4: (FOUND.flip(1), HITS.flip(1)), 0: (FOUND, torch.zeros_like(HITS))}
    controls, caption, row = w.epoch_browser(pictures(4, 16, 32), pictures(4, seed=2), frames).children
    epochs, slider = controls.children
    (ground,), found = row.children[0].children, row.children[1].children
    assert list(epochs.options) == [0, 4]
    assert caption.value == "after epoch 0: no right tile among the first 3; R@1 of all queries 0.0 %"
    before, panorama = [p.value for p in found], ground.value
    epochs.value = 4
    assert caption.value == "after epoch 4: first right tile at place 3; R@1 of all queries 25.0 %"
    assert ground.value == panorama
    assert found[0].value == before[2]  # wrong in both, at another place
    assert frame_colour(found[2]) == RIGHT_COLOUR
    slider.value = 1
    assert ground.value != panorama
    assert caption.value.startswith("after epoch 4: first right tile at place 1")


def test_epochs_that_do_not_fit_are_told() -> None:
    for frames in ({}, {0: (FOUND, HITS), 1: (FOUND[:, :2], HITS[:, :2])}, {0: (FOUND[:2], HITS[:2])}):
        with pytest.raises(InputError, match="epoch browser"):
            w.epoch_browser(pictures(4), pictures(4), frames)
