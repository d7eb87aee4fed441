"""The report: what it says, that no name breaks it, and advice that names what was seen."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from geo_inputs import place, table, truth_of

from ucvgl.locate import located as m
from ucvgl.locate import report as r
from ucvgl.locate.inputs import Request
from ucvgl.locate.pictures import Picture


class Sized(SimpleNamespace):
    def __len__(self):
        return self.count


def outcome(folder=None, located=(), rounds=(), unusable=(), truth=None, seconds=(), notes=(), stride_m=10.0):
    pictures = [Picture(file, None, 0, 0, reason_unusable=why) for file, why in unusable]
    ground = SimpleNamespace(pictures=[*pictures, *located], usable=[], unusable=pictures)
    mosaic = Sized(count=9, unreadable=(), notes=notes)
    cut = Sized(count=81, span_m=50.0, stride_m=stride_m)
    inputs = SimpleNamespace(request=Request(Path("g"), Path("t"), Path("o")), ground=ground, mosaic=mosaic, candidates=cut,
                             truth={}, labels={})  # fmt: skip
    found = SimpleNamespace(kind="panorama", known=torch.tensor([True]), rounds=rounds)
    searches = {"panorama": found} if rounds else {}
    return r.Outcome(folder, "ucvgl locate", inputs, searches, table(*located), truth, 0, dict(seconds))


def rounds(*rates, hubness=0.5):
    same = {"mean_margin": 0.03, "cycle": 0.8, "hubness": hubness, "seconds": 61.0}
    return [
        {"name": f"round {i}", "labels": 10 * i or None, "mutual_rate": rate, **same} for i, rate in enumerate(rates)
    ]


def test_a_report_says_what_happened(tmp_path):
    located = [place("a.jpg", 0.96), place("b.jpg", 0.6), place("c.jpg", 0.2)]
    truth = m.compare(table(*located), truth_of(a=(3.0, 4.0)))
    full = outcome(
        tmp_path, located, rounds(0.3, 0.5), (("bad|name`<b>.jpg", "cut\noff"),), truth,
        (("search", 3.0), ("training", 600.0)), ("north is up",),
    )  # fmt: skip
    r.write_report(full)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    for line in (
        "| pictures found | 4 |", "| files left out | 1 |", "| candidates of 50 m, 10 m apart | 81 |",
        "| 95% or more | 1 | 96% |", "| 50% or more | 2 | 78% |", "| 0% or more | 3 | 59% |",
        "| round 0 | - | 30.0% | 0.0300 | 80.0% | 0.50 | 1 min 1 s |",
        "| round 1 | 10 | 50.0% | 0.0300 | 80.0% | 0.50 | 1 min 1 s |",
        "| placed within 10 m | 100.0% |", "| bad\\|name'&lt;b&gt;.jpg | cut off |", "- north is up", "| all | 10 min 3 s |",
        "fitted on 4 synthetic cities", "- of the encoders for panoramas those kept are: round 1,",
    ):  # fmt: skip
        assert line in text, line
    assert "Mutual matches were still growing" in text
    columns = {}
    for line in text.splitlines():
        if line.startswith("|"):
            columns.setdefault(line.replace("\\|", "").count("|"), []).append(line)
    assert set(columns) == {3, 4, 8}  # no name has broken a table


def test_a_report_without_rounds_truth_or_places_is_short(tmp_path):
    r.write_report(outcome(tmp_path))
    text = (tmp_path / "report.md").read_text()
    assert "## Quality" not in text
    assert "## Against" not in text
    assert "- Nothing stands out." in text
    assert "| 95% or more | 0 | - |" in text


def advice(found):
    r.write_report(found)
    text = (found.folder / "report.md").read_text(encoding="utf-8")
    return text.split("## What would help\n\n")[1].split("\n\n##")[0].splitlines()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"rounds": rounds(0.05)}, "do not fit yet"),
        ({"rounds": rounds(0.5, hubness=4.0)}, "hubness 4.0"),
        ({"rounds": rounds(0.2, 0.4)}, "still growing"),
        ({"stride_m": 25.0}, "stride of 10 m"),
        ({"unusable": (("a", "b"),)}, "could not be used"),
    ],
)
def test_advice_names_what_was_seen_and_nothing_else(tmp_path, changes, word):
    truth = m.compare(table(place()), truth_of(a=(0.0, 0.0)))
    (found,) = advice(outcome(tmp_path, [place()] * 3, truth=truth, **changes))
    assert word in found


def test_advice_asks_for_known_positions_where_there_are_none(tmp_path):
    (found,) = advice(outcome(tmp_path, [place()]))
    assert "--truth" in found
