"""Figures of place recognition: what is drawn is what was given, with seeds, collapsed methods, gaps, one photo."""

import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex

from ucvgl import place_figures as p
from ucvgl.errors import InputError
from ucvgl.lab.plots import PALETTE
from ucvgl.methods.learner import METHODS

mpl.use("agg")
NAN = float("nan")


@pytest.fixture(autouse=True)
def _closed():
    yield
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()  # warnings are errors: layouts that do not fit, glyphs a font lacks
    plt.close("all")


def legend_texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def grey(value, height=6, width=8):
    return torch.full((3, height, width), value, dtype=torch.uint8)


def values(figure):
    """The grey of each picture, in the order of the sheet."""
    return [int(a.images[0].get_array()[0, 0, 0]) for a in figure.axes if a.images]


def places(figure):
    """Left edge, top, width and height of each picture in inches."""
    size = figure.get_size_inches()
    boxes = [a.get_position() for a in figure.axes if a.images]
    return [(b.x0 * size[0], (1 - b.y1) * size[1], b.width * size[0], b.height * size[1]) for b in boxes]


# ------------------------------------------------------------------------------------------------------------ photos


def test_a_query_stands_beside_its_positive() -> None:
    pairs = {"car": ([grey(1), grey(2)], [grey(11), grey(12)]), "night": ([grey(3)], [grey(13)])}
    figure = p.pair_sheet(pairs)
    assert values(figure) == [1, 11, 2, 12, 3, 13]
    texts = [t.get_text() for t in figure.texts]
    assert [t for t in texts if t in pairs] == ["car", "night"]
    assert texts.count("query") == texts.count("positive") == 2
    at = places(figure)
    assert at[0][1] == pytest.approx(at[3][1])  # a row
    assert at[4][1] > at[0][1] + at[0][3]  # the next one
    assert at[1][0] - (at[0][0] + at[0][2]) < at[2][0] - (at[1][0] + at[1][2])  # a pair is closer than its neighbours


def test_rows_are_cut_and_photos_keep_their_shape() -> None:
    many = torch.stack([grey(k) for k in range(p.PAIRS + 3)])
    figure = p.pair_sheet({"car": (many, many), "upright": ([grey(9, 16, 8)], [grey(9, 16, 8)])})
    assert values(figure) == [k for k in range(p.PAIRS) for _ in range(2)] + [9, 9]
    at = places(figure)
    assert [height / width for *_, width, height in at] == pytest.approx([0.75] * 2 * p.PAIRS + [2, 2])
    assert max(left + width for left, _, width, _ in at) <= p.WIDTH_IN


@pytest.mark.parametrize(
    "pairs",
    [
        {},
        {"a": ([], [])},
        {"a": ([grey(0)], [])},
        {"a": ([grey(0)], [grey(0)[0]])},
        {"a": ([grey(0)[:1]], [grey(0)])},
        {"a": ([grey(0)], [grey(0, 0, 4)])},
    ],
)
def test_wrong_pairs_are_told(pairs) -> None:
    with pytest.raises(InputError, match="pair sheet"):
        p.pair_sheet(pairs)


# -------------------------------------------------------------------------------------------------------- activation


def test_heat_is_stretched_and_lightest_where_most_is_looked() -> None:
    picture = p.overlay(grey(100, 4, 4), torch.tensor([[5.0, 5.0], [5.0, 9.0]]))
    assert picture.shape == (3, 4, 4)
    light = picture.sum(0)
    assert (light.argmax(), light.argmin()) == (15, 0)
    base, alpha = 0.08 + 0.47 * 100 / 255, 0.75
    top = (1 - alpha) * base + alpha * torch.tensor(plt.get_cmap(p.HEAT)(1.0)[:3])
    assert torch.allclose(picture[:, 3, 3], top.float(), atol=1e-6)  # 9 is 1: bilinear keeps corners
    assert torch.allclose(picture[:, 0, 0], torch.tensor(0.75 * base), atol=0.01)  # 5 is 0, which is almost black


@given(st.lists(st.floats(0, 1), min_size=6, max_size=6), st.floats(0.01, 1e4), st.floats(-100, 100))
def test_the_scale_of_a_map_does_not_matter(heat, factor, offset) -> None:
    heat = (torch.tensor(heat, dtype=torch.float64) * 64).round() / 64  # else rounding alone could be stretched
    photo = torch.linspace(0, 1, 3 * 9 * 12).view(3, 9, 12)
    first, second = (p.overlay(photo, values.view(2, 3)) for values in (heat, heat * factor + offset))
    assert float((first - second).abs().max()) < 0.02  # a step of the colours, which are 256
    assert 0 <= float(first.min()) <= float(first.max()) <= 1


def test_a_constant_map_is_cold_all_over() -> None:
    flat = p.overlay(grey(100), torch.full((2, 2), 7.0))
    assert torch.equal(flat, flat[:, :1, :1].expand_as(flat))
    assert torch.equal(flat, p.overlay(grey(100), torch.zeros(1, 1)))


@pytest.mark.parametrize(
    ("picture", "activation"),
    [
        (grey(0)[0], torch.ones(2, 2)),
        (grey(0), torch.ones(1, 2, 2)),
        (grey(0), torch.ones(0, 2)),
        (grey(0), torch.tensor([[0.0, NAN]])),
    ],
)
def test_wrong_overlays_are_told(picture, activation) -> None:
    with pytest.raises(InputError, match="overlay"):
        p.overlay(picture, activation)


def maps(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(count, 2, 3, generator=generator) for _ in range(2))


@pytest.mark.parametrize(("pairs", "methods"), [(1, 1), (3, 8)])
def test_a_column_a_method_and_the_positive_beneath_its_query(pairs, methods) -> None:
    query = [grey(10 * k) for k in range(pairs)]
    positive = [grey(10 * k + 5) for k in range(pairs)]
    names = [p.UNTRAINED, *METHODS][:methods]
    given_maps = {name: maps(pairs, seed) for seed, name in enumerate(names)}
    figure = p.activation_sheet(query, positive, given_maps)
    shown = [a.images[0].get_array() for a in figure.axes if a.images]
    grid = np.array(shown).reshape(pairs, 2, methods + 1, 6, 8, 3)
    for row in range(pairs):
        for below, photo in enumerate((query[row], positive[row])):
            assert (grid[row, below, 0] == int(photo[0, 0, 0])).all()
            for column, name in enumerate(names):
                expected = p.as_picture(p.overlay(photo, given_maps[name][below][row]))
                assert (grid[row, below, column + 1] == expected).all()
    headings = [t.get_text() for t in figure.texts if t.get_text() not in ("query", "positive")]
    assert headings == ["photo", *(p.NAMES[name] for name in names)]
    at = np.array(places(figure)).reshape(pairs, 2, methods + 1, 4)
    assert (at[..., 0] + at[..., 2]).max() <= p.WIDTH_IN + 1e-6
    for column in range(methods + 1):
        assert at[:, :, column, 0] == pytest.approx(np.full((pairs, 2), at[0, 0, column, 0]))
    tops = at[:, :, 0, 1].ravel()
    assert (np.diff(tops) > at[0, 0, 0, 3]).all()  # nothing covers anything
    boxes = [t.get_window_extent() for t in figure.texts]
    assert not any(a.overlaps(b) for number, a in enumerate(boxes) for b in boxes[:number])


def test_wrong_activations_are_told() -> None:
    photos, good = [grey(0)] * 2, {"a": maps(2, 0)}
    broken = torch.full((2, 2, 3), NAN)
    faults = [
        ([], [], good), (photos, photos[:1], good), (photos, photos, {}), (photos, photos, {"a": maps(3, 0)}),
        (photos, photos, {"a": (good["a"][0], good["a"][1][:, 0])}), (photos, photos, {"a": (good["a"][0], broken)}),
        (photos, [grey(0), grey(0)[0]], good), (photos, photos, {"a": good["a"][:1]}),
    ]  # fmt: skip
    for fault in faults:
        with pytest.raises(InputError, match="activation sheet"):
            p.activation_sheet(*fault)


# ------------------------------------------------------------------------------------------------------------ methods


def recall(*rows):
    return pd.DataFrame(rows, columns=["method", "test", "r_at_1"])


RECALL = recall(
    ("untrained", "car", 30.0), ("untrained", "night", 5.0),
    ("byol", "car", 40.0), ("byol", "car", 44.0), ("byol", "night", NAN), ("byol", "night", None),
    ("moco", "car", 50.0), ("moco", "car", None), ("moco", "night", 20.0), ("moco", "night", 26.0),
    ("triplet", "car", 45.0), ("triplet", "car", 45.0),
)  # fmt: skip


def written(axes):
    """Method -> what stands beside the panel."""
    ticks = [t.get_text() for t in axes.figure.axes[0].get_yticklabels()]  # the others share them
    return {ticks[round(t.get_position()[1])]: t.get_text() for t in axes.texts}


def dots(axes, hollow=False):
    """Row -> where its dot lies."""
    found = [line for line in axes.lines if line.get_marker() == "o"]
    found = [line for line in found if (line.get_markerfacecolor() == "none") == hollow]
    return {int(line.get_ydata()[0]): float(line.get_xdata()[0]) for line in found}


def test_every_method_has_a_family_and_a_name() -> None:
    named = [method for methods in p.FAMILIES.values() for method in methods]
    assert sorted(named) == sorted(METHODS)
    assert set(p.NAMES) == {*METHODS, p.UNTRAINED}


def test_methods_stand_in_families_with_mean_and_range() -> None:
    figure = p.method_bars(RECALL, ["car", "night"])
    car, night = figure.axes
    ticks = [t.get_text() for t in car.get_yticklabels()]
    assert ticks == ["metric learning", "Triplet", "contrastive", "MoCo v2", "self-distillation", "BYOL"]
    weights = [t.get_fontweight() == "bold" for t in car.get_yticklabels()]
    assert weights == [True, False] * 3
    assert (car.get_title(), night.get_title()) == ("car\nuntrained 30.0", "night\nuntrained 5.0")
    assert dots(car) == {1: 45.0, 3: 50.0, 5: 42.0}
    assert dots(night) == {3: 23.0}
    assert written(car) == {"Triplet": "45.0", "MoCo v2": "50.0 (1 of 2)", "BYOL": "42.0"}
    assert written(night) == {"Triplet": "not measured", "MoCo v2": "23.0", "BYOL": "collapsed"}
    ranges = [line.get_xdata() for line in car.lines if line.get_marker() == "None" and line.get_linestyle() == "-"]
    assert [40.0, 44.0] in [list(r) for r in ranges]
    reference = [line for line in car.lines if line.get_linestyle() == "--"]
    assert [list(line.get_xdata()) for line in reference] == [[30.0, 30.0]]
    assert legend_texts(figure) == [
        "ours: mean and range", "the backbone, untrained", "(k of n): mean of k seeds, the others collapsed"
    ]  # fmt: skip
    assert car.yaxis_inverted()
    assert figure.axes[0].get_xlabel() == "R@1 (%)"


def test_a_family_has_one_colour() -> None:
    frame = recall(*((method, "car", 10.0 + k) for k, method in enumerate(METHODS)))
    axes = p.method_bars(frame, ["car"]).axes[0]
    colour = {int(line.get_ydata()[0]): to_hex(line.get_color()) for line in axes.lines if line.get_marker() == "o"}
    place = 0
    for number, (family, methods) in enumerate(p.FAMILIES.items()):
        assert axes.get_yticklabels()[place].get_text() == family
        assert to_hex(axes.get_yticklabels()[place].get_color()) == PALETTE[number]
        for method in methods:
            place += 1
            assert axes.get_yticklabels()[place].get_text() == p.NAMES[method]
            assert colour[place] == PALETTE[number]
        place += 1


def test_published_dots_are_hollow_and_only_where_known() -> None:
    published = recall(("byol", "car", 72.7), ("moco", "car", None), ("simclr", "car", 84.2), ("byol", "night", 44.8))
    figure = p.method_bars(RECALL, ["car", "night"], published=published, labels=("a city", "MSLS, other data"))
    car, night = figure.axes
    assert dots(car, hollow=True) == {5: 72.7}
    assert dots(night, hollow=True) == {5: 44.8}  # collapsed here, not there
    assert written(night)["BYOL"] == "collapsed"
    assert legend_texts(figure)[:2] == ["a city: mean and range", "MSLS, other data"]


def test_one_seed_own_families_and_another_measure() -> None:
    frame = pd.DataFrame({"method": ["x", "y"], "test": ["car"] * 2, "r_at_5": [20.0, 30.0]})
    figure = p.method_bars(frame, ["car"], value="r_at_5", families={"one": ["y"], "two": ["x"], "three": ["z"]})
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["one", "y", "two", "x"]
    assert legend_texts(figure) == ["ours"]
    assert figure.axes[0].get_xlabel() == "R@5 (%)"
    assert figure.axes[0].get_title() == "car"


def test_all_collapsed_draws_no_dot() -> None:
    axes = p.method_bars(recall(("byol", "car", None), ("simsiam", "car", None)), ["car"]).axes[0]
    assert not axes.lines
    assert written(axes) == {"BYOL": "collapsed", "SimSiam": "collapsed"}


def test_wrong_tables_of_methods_are_told() -> None:
    good = {"frame": RECALL, "tests": ["car"]}
    faults = [
        {"frame": RECALL[:0]}, {"frame": RECALL.drop(columns="test")}, {"tests": []}, {"tests": ["car", "season"]},
        {"frame": recall(("byol", "car", 101.0))}, {"frame": recall(("byol", "car", "collapsed"))},
        {"frame": recall(("unheard of", "car", 1.0))}, {"frame": recall(("untrained", "car", 1.0))},
        {"published": RECALL.drop(columns="r_at_1")}, {"published": recall(("byol", "car", -1.0))},
        {"families": {"a": ["byol", "moco"], "b": ["moco", "triplet"]}},
    ]  # fmt: skip
    for fault in faults:
        with pytest.raises(InputError, match="method bars"):
            p.method_bars(**{**good, **fault})


# --------------------------------------------------------------------------------------------------------------- cost

COST = pd.DataFrame({"method": ["triplet", "byol", "triplet", "vicreg"], "mining_seconds": [8.0, 0.0, 10.0, 2.0],
                     "training_seconds": [30.0, 20.0, 32.0, 198.0], "step_mb": [3000, None, 3200, 1400]})  # fmt: skip


def test_bars_are_mining_and_training_with_memory_at_the_end() -> None:
    figure = p.cost_bars(COST)
    axes = figure.axes[0]
    mining, training = axes.containers
    assert [bar.get_width() for bar in mining] == [9.0, 0.0, 2.0]
    assert [bar.get_width() for bar in training] == [31.0, 20.0, 198.0]
    assert [bar.get_x() for bar in training] == [9.0, 0.0, 2.0]
    assert [t.get_text() for t in axes.texts] == [
        "40.0 s, 3,100 MB a step",
        "20.0 s, memory not measured",
        "200 s, 1,400 MB a step",
    ]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["Triplet", "BYOL", "VICReg"]
    assert legend_texts(figure) == ["mining", "training"]
    assert axes.yaxis_inverted()
    figure.canvas.draw()
    assert max(t.get_window_extent().x1 for t in axes.texts) <= figure.bbox.x1


@pytest.mark.parametrize(
    "frame",
    [
        COST[:0],
        COST.drop(columns="step_mb"),
        COST.assign(mining_seconds=-1.0),
        COST.assign(training_seconds=NAN),
        COST.assign(step_mb=float("inf")),
    ],
)
def test_wrong_costs_are_told(frame) -> None:
    with pytest.raises(InputError, match="cost bars"):
        p.cost_bars(frame)


def test_sheets_are_shown_again_after_they_were_saved() -> None:
    """As a notebook does, under the notebooks' style; a warning is an error here."""
    photo, activation = torch.rand(3, 6, 8), torch.rand(1, 3, 4)
    with plt.rc_context({"figure.constrained_layout.use": True}):
        for figure in (
            p.pair_sheet({"car": ([photo], [photo])}),
            p.activation_sheet([photo], [photo], {"simclr": (activation, activation)}),
        ):
            figure.savefig(io.BytesIO(), bbox_inches="tight")
            figure.canvas.draw()
