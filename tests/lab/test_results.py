"""Saved figures and tables, their recipes, and how seeds are merged."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from ucvgl.errors import InputError
from ucvgl.lab import results
from ucvgl.lab.settings import RunRequest


@dataclass(frozen=True)
class Config:
    rate: float = 1e-3
    sizes: tuple[int, ...] = (64, 64)


@pytest.fixture
def start(studio, monkeypatch):
    """Opens a run in a folder of its own."""

    def opened(seed=0, data="world", profile="tiny"):
        monkeypatch.setenv("UCVGL_RUN_FOLDER", str(studio / f"{profile}{seed}"))
        return results.start("01_toy", profile=profile, data=data, seed=seed)

    return opened


def table(seed=0):
    return pd.DataFrame({"method": ["a", "c"], "r_at_1": [57.634 + seed, 20.0]})


def drawing():
    figure = Figure()
    figure.subplots().plot([1, 2])
    return figure


def read(path: Path):
    return json.loads(path.read_text())


def test_start_writes_where_the_engine_says_or_beside_the_published_figures(studio, monkeypatch, start):
    assert start(2).folder == studio / "tiny2"
    monkeypatch.delenv("UCVGL_RUN_FOLDER")
    monkeypatch.setenv("UCVGL_PROFILE", "tiny")
    run = results.start("01_toy", profile="laptop", data="world", seed=3)
    assert run.folder == studio / "runs/notebooks/tiny/world/seed3/01_toy-interactive"


def test_a_data_id_is_safe_in_a_path_and_tells_folders_apart(tmp_path):
    folders = [tmp_path / parent / "My CVUSA (v2)" for parent in "ab"]
    for folder in folders:
        folder.mkdir(parents=True)
    first, second = (RunRequest("tiny", str(folder)) for folder in folders)
    assert first.data_id != second.data_id
    assert first.data_id.startswith("my-cvusa-v2-")
    assert first.figure_folder("01_toy").parts[-2:] == (f"tiny-{first.data_id}", "01_toy")
    assert RunRequest("tiny").figure_folder("01_toy").parts[-2:] == ("tiny", "01_toy")


def test_a_table_is_saved_to_compute_with_and_to_read(start):
    run = start()
    shown = run.save_table(table(), "toy", caption="A toy.", published={"r_at_1": [91.23, None]}, settings=Config())
    assert (run.folder / "toy.csv").read_text() == "seed,method,r_at_1,published_r_at_1\n0,a,57.634,91.23\n0,c,20,\n"
    assert shown.data == (run.folder / "toy.md").read_text()
    recipe = read(run.folder / "toy.json")
    assert recipe["settings"] == [{"type": "Config", "values": {"rate": 1e-3, "sizes": [64, 64]}}]
    assert {"commit", "device", "versions", "seconds", "seeds"} <= set(recipe)
    with pytest.raises(ValueError, match="Length of values"):
        run.save_table(table(), "other", caption="A toy.", published={"r_at_1": [1.0]})


def test_a_figure_is_the_same_bytes_twice_and_has_its_recipe(start):
    run, figure = start(), drawing()
    first = run.save_figure(figure, "line", caption="A line.").read_bytes()
    assert run.save_figure(figure, "line", caption="A line.").read_bytes() == first
    assert read(run.folder / "line.json")["caption"] == "A line."
    assert [a["file"] for a in run.artefacts.values()] == ["line.png"]
    for name in ("line", "results"):  # whose .json is another's
        with pytest.raises(AssertionError, match="taken by another artefact"):
            run.save_table(table(), name, caption="A toy.")


def test_no_recipe_names_the_folder_of_a_data_set(tmp_path, start):
    root = tmp_path / "secret" / "cvact"
    root.mkdir(parents=True)
    run = start(data=str(root))
    run.save_table(table(), "toy", caption="A toy.")
    run.finish(best=np.float32(0.5), none=None)
    assert read(run.folder / "results.json")["numbers"] == {"best": 0.5, "none": None}
    assert all("secret" not in path.read_text() for path in run.folder.iterdir())
    with pytest.raises(ValueError, match="Out of range float"):
        run.finish(best=float("nan"))


def finished(run):
    run.save_table(table(run.seed), "toy", caption="A toy.", queries=400)
    if run.seed:
        run.save_figure(drawing(), "line", caption="A line.")
    run.finish(best=float(run.seed))
    return run.folder


def test_seeds_are_merged_with_mean_and_spread_and_shown_again(studio, start):
    out = studio / "figures/tiny/01_toy"
    out.mkdir(parents=True)
    (out / "gone.png").write_text("of an older version")
    folder = finished(start(1))
    results.publish([folder], out)  # one seed: as it was saved
    saved = {"toy.csv", "toy.md", "toy.json", "line.png", "line.json"}
    assert {path.name for path in out.iterdir()} == {*saved, "results.json"}
    assert all((out / name).read_bytes() == (folder / name).read_bytes() for name in saved)
    results.publish([finished(start(seed)) for seed in (0, 1, 2)], out)
    assert pd.read_csv(out / "toy.csv")["seed"].tolist() == [0, 0, 1, 1, 2, 2]
    text, numbers = (out / "toy.md").read_text(), {str(seed): {"best": float(seed)} for seed in (0, 1, 2)}
    assert "| a | 58.6 ± 1.0 |\n| c | 20.0 |" in text
    assert "seeds 0, 1, 2; a recall of 400 queries" in text
    seeds = [read(out / f"{name}.json")["seeds"] for name in ("toy", "line", "results")]
    assert seeds == [[0, 1, 2], [1], [0, 1, 2]]  # the figure is of the first that has it
    assert read(out / "results.json")["numbers"] == numbers
    # where the data is absent: this seed's rows once more, and those of all seeds
    run = start(seed=1)
    assert "| a | 58.6 |" in run.keep("toy").data
    assert results.read_table(run.folder / "toy.csv")["seed"].tolist() == [1, 1]
    assert "| a | 58.6 ± 1.0 |" in run.over_seeds("toy", "r_at_1").data
    assert "is not there yet" in run.over_seeds("main", "r_at_1")
    assert "no rows of seed 7" in start(seed=7).keep("toy")


def test_unfinished_or_mixed_runs_are_not_published(studio, start):
    with pytest.raises(InputError, match=r"results\.json: expected a finished run's file"):
        results.publish([studio], studio / "out")
    for runs in ([], [finished(start()), finished(start(profile="laptop"))]):
        with pytest.raises(InputError, match="expected runs of one"):
            results.publish(runs, studio / "out")
    assert not (studio / "out").exists()


def of_seed(seed=0, recall=57.634, **more):
    return pd.DataFrame({"seed": seed, "method": ["a|b", "c"], "r_at_1": [recall, 20.0], "tiles": [300, 4000], **more})


def test_one_seed_shows_its_rows_and_several_their_mean_and_standard_deviation():
    text = results.render(of_seed(published_r_at_1=[91.23, None]), "A toy.", "Note")
    assert text == (
        "A toy.\n\n| method | R@1 (%) | tiles | R@1 (%), published |\n| --- | --- | --- | --- |\n"
        "| a\\|b | 57.6 | 300 | 91.2 |\n| c | 20.0 | 4000 | - |\n\n*Note.*\n"
    )
    text = results.render(pd.concat([of_seed(seed, 57.0 + seed) for seed in (0, 1, 2)]), "A toy.", "Note")
    assert text.splitlines()[4:6] == ["| a\\|b | 58.0 ± 1.0 | 300 |", "| c | 20.0 | 4000 |"]
    assert "*Note; where seeds differ: mean ± standard deviation.*" in text


@pytest.mark.parametrize("other", [of_seed(1).iloc[:1], of_seed(1).assign(method="d"), of_seed(1, recall=None)])
def test_seeds_that_do_not_match_show_every_row(other):
    lines = results.render(pd.concat([of_seed(), other]), "A toy.", "Note").splitlines()
    assert lines[2].startswith("| seed | method |")
    assert sum(line.startswith("| 1 |") for line in lines) == len(other)


def test_headings_tell_data_set_and_measure():
    assert results.heading("published_cvact_val_r_at_1_percent") == "CVACT VAL R@1% (%), published"
    assert results.heading("chosen_with_labels_r_at_1") == "chosen with labels R@1 (%)"
    assert results.heading("labels_given") == "labels given"


def test_the_note_gives_the_sampling_error_of_the_queries():
    one = "Measured on the data set cvact-12ab; profile laptop, seed 0; one seed, so the spread over seeds is not known"
    one += "; a recall of 2,500 queries has a standard error of up to 1.0 points of its own"  # 100 x 0.5 / sqrt(2500)
    assert results.note("cvact-12ab", "laptop", [0], 2500) == one
    two = results.note("world", "tiny", [0, 1], {"a": 2500, "b": 100, "c": 400})
    error = "a recall of 100 to 2,500 queries has a standard error of up to 5.0 to 1.0 points of its own"
    assert two.endswith(f"other real data set; profile tiny, seeds 0, 1; {error}")
