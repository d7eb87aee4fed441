"""Notebook 07's tables from made-up claims, and which city is searched."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ucvgl.errors import InputError
from ucvgl.locate.located import Candidate, Located
from ucvgl.studies import own_city_study as study


def test_the_surest_pictures_by_hand():
    claims = {study.HERE: (np.array([0.9, 0.8, 0.4, 0.1]), np.array([1.0, 0.0, 1.0, 0.0]))}
    table = study.certainty_table(claims)
    assert table["surest"].tolist() == ["25%", "50%", "75%", "100%"]
    assert table["placed"].tolist() == [1, 2, 3, 4]
    assert table["threshold"].tolist() == [0.9, 0.8, 0.4, 0.1]
    assert table["claimed"].tolist() == pytest.approx([90, 85, 70, 55])
    assert table["right"].tolist() == pytest.approx([100, 50, 200 / 3, 50])
    assert table["apart"].tolist() == pytest.approx([-10, 35, 10 / 3, 5])


def test_each_city_has_its_rows():
    one = (np.array([0.9, 0.2]), np.array([1.0, 0.0]))
    table = study.certainty_table({study.AGAIN: one, study.HERE: one})
    assert table["city"].tolist() == [study.AGAIN] * 4 + [study.HERE] * 4


def test_a_folder_of_ones_own(tmp_path: Path):
    assert not study.is_own("world")
    assert not study.is_own(str(tmp_path))
    for name in ("ground", "tiles"):
        (tmp_path / name).mkdir()
    assert study.is_own(str(tmp_path))
    settings = study.study("tiny", 0)
    asked = study.request(settings, str(tmp_path), tmp_path / "out")
    assert (asked.ground, asked.tiles) == (tmp_path / "ground", tmp_path / "tiles")
    assert (asked.ground_table, asked.tiles_table, asked.truth) == (None, None, None)
    assert study.truth_of(settings, str(tmp_path)) == {}
    (tmp_path / "tiles.csv").write_text("file,latitude,longitude,span_m\n")
    (tmp_path / "truth.csv").write_text("file,latitude,longitude\na.jpg,45.0,-30.0\n")
    asked = study.request(settings, str(tmp_path), tmp_path / "out")
    assert asked.tiles_table == tmp_path / "tiles.csv"
    assert asked.truth is None  # opened after the search
    assert study.truth_of(settings, str(tmp_path)) == {"a.jpg": (45.0, -30.0)}


def test_no_profile_searches_a_style_that_was_learnt_from():
    for profile in ("tiny", "laptop", "paper"):
        settings = study.study(profile, 0)
        assert {case.style for case in settings.cases} == {"downtown"}
        assert settings.again.style == "old_town"
    with pytest.raises(InputError, match="profile: expected tiny, laptop or paper"):
        study.study("huge", 0)


# --------------------------------------------------------------------------------------------------- leafing through places


def one(number, probability, radii=(10.0, 10.0), notes=(), found=5):
    candidates = tuple(Candidate(f"t{number}{k}", 45, 7, 0.9 - 0.1 * k, 15.0 * k) for k in range(found))
    return Located(f"p{number}.jpg", 45, 7, probability, *radii, candidates, None, notes)


LOCATED = [
    one(0, 0.95), one(1, 0.6, (10.0, 34.4), ("heading searched for",)), one(2, 0.2, (42.0, None), found=2),
    one(3, 0.01, (None, None)),
]  # fmt: skip
RIGHT = np.array([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, np.nan, np.nan, np.nan, np.nan], [np.nan] * 5])


class Tiles:
    """Candidates of one grey each."""

    ids = tuple(candidate.tile for located in LOCATED for candidate in located.candidates)

    def read(self, row: int) -> torch.Tensor:
        return torch.full((3, 6, 6), 10 * row, dtype=torch.uint8)


def outcome():
    return SimpleNamespace(located=LOCATED, report=SimpleNamespace(radius_m=10.0))


def test_how_sure_in_words():
    table, sure = study.browsed(outcome(), RIGHT), "sure that it was taken within 10 m of candidate 1"
    assert table["picture"].tolist() == ["p0.jpg", "p1.jpg", "p2.jpg", "p3.jpg"]
    assert table["place"].tolist() == ["right", "wrong", "wrong", "not known"]
    assert table["probability"].tolist() == [0.95, 0.6, 0.2, 0.01]
    assert table["in words"].tolist() == [
        f"95 % {sure}",
        f"60 % {sure}; 90 % sure of 34 m; heading searched for",
        f"20 % {sure}; 50 % sure of 42 m; how far with 90 % is not known",
        f"1 % {sure}; how far with 50 % is not known; how far with 90 % is not known",
    ]


def test_candidates_are_framed_where_their_truth_is_known():
    looked = SimpleNamespace(candidates=Tiles())
    first = study.candidates_of(outcome(), looked, "p0.jpg", RIGHT)
    assert list(first)[:2] == ["1: score 0.900, the place, right", "2: score 0.800, 15 m away, wrong"]
    assert [int(picture[0, 150, 150]) for picture in first.values()] == [0, 10, 20, 30, 40]
    third = study.candidates_of(outcome(), looked, "p2.jpg", RIGHT)
    assert list(third) == ["1: score 0.900, the place, wrong", "2: score 0.800, 15 m away"]
