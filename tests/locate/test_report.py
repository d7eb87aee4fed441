"""The report: what it says, that no name breaks it, and advice that names what was seen."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from geo_inputs import place, table, truth_of

from ucvgl.locate import located as m
from ucvgl.locate import run as r
from ucvgl.locate.inputs import Inputs, Request
from ucvgl.locate.pictures import Ground, Picture


class Sized(SimpleNamespace):
    def __len__(self):
        return self.count


def outcome(located=(), rounds=(), unusable=(), truth=None, notes=(), stride_m=10.0):
    ground = Ground(
        "g", tuple(Picture(row["picture"], "panorama", 64, 32, 360.0, 0.0) for row in located), unusable, ()
    )
    cut = Sized(count=81, span_m=50.0, stride_m=stride_m, mosaic=Sized(count=9, left_out=(), notes=notes))
    inputs = Inputs(Request(Path("g"), Path("t"), Path("o")), ground, cut, None, None, {})
    found = SimpleNamespace(rounds=rounds, calibration=SimpleNamespace(measured_on="4 made-up cities"))
    searches = {"panorama": found} if rounds else {}
    return r.Outcome(Path("o"), "ucvgl locate", inputs, searches, table(*located), truth, 603.0)


def rounds(*rates, hubness=0.5):
    same = {"mean_margin": 0.03, "cycle": 0.8, "hubness": hubness, "seconds": 61.0}
    names = ["as they came", *(f"epoch {i}" for i in range(1, len(rates)))]
    return [{"name": name, "labels": 10, "mutual_rate": rate, **same} for name, rate in zip(names, rates, strict=True)]


def test_a_report_says_what_happened():
    located = [place("a.jpg", 0.96), place("b.jpg", 0.6), place("c.jpg", 0.2)]
    truth = m.compare(table(*located), truth_of(a=(3.0, 4.0)))
    broken = (("bad|name`<b>.jpg", "cut\noff"),)
    text = outcome(located, rounds(0.3, 0.5), broken, truth, ("north is up",)).report()
    for line in (
        "| pictures found | 4 |", "| files left out | 1 |", "| candidates of 50 m, 10 m apart | 81 |", "| seconds taken | 603 |",
        "| 95% or more | 1 | 96% |", "| 50% or more | 2 | 78% |", "| 0% or more | 3 | 59% |",
        "| panoramas, epoch 1 | 10 | 50.0% | 0.0300 | 80.0% | 0.50 | 61 s |",
        "| placed within 10 m | 100.0% |", "| bad\\|name'&lt;b&gt;.jpg | cut off |", "- north is up",
        "fitted on 4 made-up cities", "- of the encoders for panoramas those kept are: epoch 1,",
    ):  # fmt: skip
        assert line in text, line
    assert "Mutual matches were still growing" in text
    rows = [line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")]
    assert set(rows) == {3, 4, 8}  # no name has broken a table


def test_a_report_without_rounds_truth_or_places_is_short():
    text = outcome().report()
    assert ("## Quality" in text, "## Against" in text) == (False, False)
    assert ("- Nothing stands out." in text, "| 95% or more | 0 | - |" in text) == (True, True)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"rounds": rounds(0.05)}, "do not fit yet"),
        ({"rounds": rounds(0.5, hubness=4.0)}, "hubness 4.0"),
        ({"rounds": rounds(0.2, 0.4)}, "still growing"),
        ({"stride_m": 25.0}, "stride of 10 m"),
        ({"unusable": (("a", "b"),)}, "could not be used"),
        ({"truth": None}, "--truth"),
    ],
)
def test_advice_names_what_was_seen_and_nothing_else(changes, word):
    known = {"truth": m.compare(table(place()), truth_of(a=(0.0, 0.0)))}
    text = outcome([place()] * 3, **known | changes).report()
    (advice,) = text.split("## What would help\n\n")[1].split("\n\n##")[0].splitlines()
    assert word in advice


@pytest.mark.parametrize(
    ("rates", "says"),
    [
        ((0.5, 0.6), "kept are: epoch 1,"),
        ((0.5, 0.4), "kept are: as they came,"),
        ((0.5,), "no pseudo-label was found"),
    ],
)
def test_the_report_says_which_encoders_placed_the_pictures(rates, says):
    assert says in outcome([place()], rounds(*rates)).report()
