"""Notebook 07's tables from made-up claims, and which city is searched."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ucvgl.errors import InputError
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


def test_each_city_has_its_rows_and_its_sentence():
    one = (np.array([0.9, 0.2]), np.array([1.0, 0.0]))
    table = study.certainty_table({study.AGAIN: one, study.HERE: one})
    assert table["city"].tolist() == [study.AGAIN] * 4 + [study.HERE] * 4
    first, second = study.certainty_conclusion(table).splitlines()
    assert first.startswith(study.AGAIN)
    assert second.startswith(study.HERE)
    assert "1 pictures with 0.90 or more, 90.0 % are claimed right and 100.0 % are right" in second


def test_the_cases_in_a_sentence():
    rows = [("panoramas, headings known", 43.0), ("panoramas, headings known", 46.7), ("photos, headings known", 4.0)]
    said = study.cases_conclusion(pd.DataFrame(rows, columns=["pictures", "within_10_m"]))
    assert "43.0 % within 10 m with the encoders as they came, 46.7 % after" in said
    assert said.endswith("photos, headings known 4.0 %")


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
