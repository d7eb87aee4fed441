"""Saved figures and tables, their recipes, and how seeds are merged."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from ucvgl.errors import InputError
from ucvgl.lab import results


@dataclass(frozen=True)
class Config:
    rate: float = 1e-3
    sizes: tuple[int, ...] = (64, 64)
    name: str = "a"
    inner: dict = field(default_factory=dict)


@dataclass(frozen=True)
class OtherConfig(Config):
    pass


@pytest.fixture
def run(tmp_path, monkeypatch):
    return start(tmp_path, monkeypatch, 0)


def start(tmp_path, monkeypatch, seed, data="world"):
    monkeypatch.delenv("UCVGL_PROFILE", raising=False)
    monkeypatch.setenv("UCVGL_FIGURES", str(tmp_path / "figures"))
    monkeypatch.setenv("UCVGL_RUN_FOLDER", str(tmp_path / f"seed{seed}"))
    return results.start("01_toy", profile="tiny", data=data, seed=seed)


def table(seed=0, extra=0.0):
    return pd.DataFrame({"method": ["a|b", "c"], "r_at_1": [57.634 + seed, 20.0], "tiles": [300, 4000 + extra]})


def read(path: Path):
    return json.loads(path.read_text())


# ------------------------------------------------------------------------------------------------------------- settings


def test_start_writes_where_the_engine_says_or_beside_the_published_figures(tmp_path, monkeypatch):
    assert start(tmp_path, monkeypatch, 2).folder == tmp_path / "seed2"
    monkeypatch.delenv("UCVGL_RUN_FOLDER")
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path / "runs"))
    run = results.start("01_toy", profile="laptop", data="world", seed=3)
    assert run.folder == tmp_path / "runs/notebooks/laptop/world/seed3/01_toy-interactive"
    assert not (tmp_path / "figures").exists()


def test_the_environment_overrides_the_profile(tmp_path, monkeypatch):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))
    monkeypatch.setenv("UCVGL_PROFILE", "tiny")
    assert results.start("01_toy", profile="laptop", data="world", seed=0).profile == "tiny"
    monkeypatch.setenv("UCVGL_PROFILE", "tiney")
    with pytest.raises(InputError, match="expected one of tiny, laptop, paper, found 'tiney'"):
        results.start("01_toy", profile="laptop", data="world", seed=0)


@pytest.mark.parametrize(
    ("given", "message"),
    [({"profile": "big"}, "profile"), ({"data": "/no/such"}, "data"), ({"seed": -1}, "seed"), ({"seed": 1.0}, "seed")],
)
def test_wrong_settings_are_refused(tmp_path, monkeypatch, given, message):
    monkeypatch.delenv("UCVGL_PROFILE", raising=False)
    with pytest.raises(InputError, match=f"^{message}: expected"):
        results.start("01_toy", **({"profile": "tiny", "data": "world", "seed": 0} | given))


def test_a_data_id_is_safe_in_a_path_and_tells_folders_apart(tmp_path):
    one, two = tmp_path / "a" / "My CVUSA (v2)", tmp_path / "b" / "My CVUSA (v2)"
    for folder in (one, two):
        folder.mkdir(parents=True)
    first, second = results.data_id(str(one)), results.data_id(str(two))
    assert first != second
    assert first.startswith("my-cvusa-v2-")
    assert results.data_id("world") == "world"
    assert results.figure_folder("01_toy", profile="tiny", data=str(one)).parts[-2:] == (f"tiny-{first}", "01_toy")
    assert results.figure_folder("01_toy", profile="tiny", data="world").parts[-2:] == ("tiny", "01_toy")


def test_a_config_hash_names_values_and_type():
    assert results.config_hash(Config()) == results.config_hash(Config(sizes=(64, 64)))
    assert results.config_hash(Config(rate=np.float64(1e-3))) == results.config_hash(Config())
    others = [Config(rate=2e-3), Config(sizes=(64, 32)), OtherConfig(), Config(inner={"k": Path("x")})]
    assert len({results.config_hash(c) for c in [Config(), *others]}) == 5
    assert len(results.config_hash(Config())) == 12
    with pytest.raises(TypeError, match="dataclass instances"):
        results.config_hash({"rate": 1})
    with pytest.raises(TypeError, match="must be made of numbers"):
        results.config_hash(Config(inner={"f": len}))


# --------------------------------------------------------------------------------------------------------------- saving


def test_a_table_is_saved_to_compute_with_and_to_read(run):
    shown = run.save_table(table(), "toy", caption="A toy.", published={"r_at_1": [91.23, None]}, settings=Config())
    csv = (run.folder / "toy.csv").read_text()
    assert csv == "seed,method,r_at_1,tiles,published_r_at_1\n0,a|b,57.634,300,91.23\n0,c,20,4000,\n"
    text = (run.folder / "toy.md").read_text()
    assert shown.data == text
    assert text.startswith("A toy.\n\n| method | R@1 (%) | tiles | R@1 (%), published |\n")
    assert "| a\\|b | 57.6 | 300 | 91.2 |\n| c | 20.0 | 4000 | - |" in text
    assert "synthetic city: not comparable with numbers on CVUSA" in text
    recipe = read(run.folder / "toy.json")
    assert (recipe["data"], recipe["profile"], recipe["seeds"]) == ("world", "tiny", [0])
    assert recipe["settings"][0]["hash"] == results.config_hash(Config())
    assert recipe["settings"][0]["values"]["sizes"] == [64, 64]
    assert {"ucvgl", "torch", "numpy", "python"} <= set(recipe["versions"])
    assert {"commit", "device", "seconds"} <= set(recipe)
    assert recipe["queries"] is None
    assert run.queries == {}


def test_a_seed_column_of_its_own_is_kept(run):
    run.save_table(pd.DataFrame({"seed": [4, 5], "x": [1.0, 2.0]}), "toy", caption="A toy.")
    assert (run.folder / "toy.csv").read_text() == "seed,x\n4,1\n5,2\n"
    assert "| seed | x |" in (run.folder / "toy.md").read_text()


def test_the_queries_of_a_table_of_recalls_are_kept_and_give_the_sampling_error(run):
    shown = run.save_table(table(), "toy", caption="A toy.", queries=400)
    assert run.queries == {"toy": 400}
    recipe = read(run.folder / "toy.json")
    assert recipe["queries"] == 400
    assert recipe["note"].endswith("one seed, so the spread over seeds is not known; a recall of 400 queries has a standard "
                                   "error of up to 2.5 points of its own")  # fmt: skip
    assert shown.data.endswith(f"*{recipe['note']}.*\n")


def test_published_values_have_to_be_one_a_row(run):
    with pytest.raises(ValueError, match="Length of values"):
        run.save_table(table(), "toy", caption="A toy.", published={"r_at_1": [1.0]})
    assert not list(run.folder.iterdir())


def test_a_figure_is_the_same_bytes_twice_and_has_its_recipe(run):
    figure = Figure()
    figure.subplots().plot([1, 2])
    first = run.save_figure(figure, "line", caption="A line.").read_bytes()
    assert run.save_figure(figure, "line", caption="A line.").read_bytes() == first
    assert read(run.folder / "line.json")["caption"] == "A line."
    assert [a["file"] for a in run.artefacts] == ["line.png"]
    for name in ("line", "results"):  # whose .json is another's
        with pytest.raises(AssertionError, match="taken by another artefact"):
            run.save_table(table(), name, caption="A toy.")


def test_finish_writes_the_numbers_and_refuses_nan(run):
    run.save_table(table(), "toy", caption="A toy.")
    found = read(run.finish(best=np.float32(0.5), count=np.int64(3), none=None))
    assert found["numbers"] == {"best": 0.5, "count": 3, "none": None}
    assert [a["file"] for a in found["artefacts"]] == ["toy.csv"]
    with pytest.raises(ValueError, match="Out of range float"):
        run.finish(best=float("nan"))


def test_no_recipe_names_the_folder_of_a_data_set(tmp_path, monkeypatch):
    root = tmp_path / "secret" / "cvact"
    root.mkdir(parents=True)
    run = start(tmp_path, monkeypatch, 0, data=str(root))
    run.save_table(table(), "toy", caption="A toy.")
    run.finish(best=1.0)
    for path in run.folder.iterdir():
        assert "secret" not in path.read_text()
    assert "Measured on the data set cvact-" in (run.folder / "toy.md").read_text()


# ----------------------------------------------------------------------------------------------------------- publishing


def finished(tmp_path, monkeypatch, seed, frame, *, figure=True):
    run = start(tmp_path, monkeypatch, seed)
    run.save_table(frame, "toy", caption="A toy.", queries=400 - seed)
    if figure:
        drawn = Figure()
        drawn.subplots().plot([seed, 2])
        run.save_figure(drawn, "line", caption="A line.")
    run.finish(best=float(seed))
    (run.folder / "executed.ipynb").write_text("{}")
    return run.folder


def test_one_seed_is_published_as_it_was_saved(tmp_path, monkeypatch):
    folder = finished(tmp_path, monkeypatch, 0, table())
    out = tmp_path / "figures" / "tiny" / "01_toy"
    out.mkdir(parents=True)
    (out / "gone.png").write_text("of an older version")
    results.publish([folder], out)
    assert sorted(p.name for p in out.iterdir()) == sorted(
        ["line.json", "line.png", "results.json", "toy.csv", "toy.json", "toy.md"]
    )
    for name in ("toy.csv", "toy.md", "toy.json", "line.png", "line.json"):
        assert (out / name).read_bytes() == (folder / name).read_bytes()
    assert [p.name for p in out.parent.iterdir()] == ["01_toy"]


def test_seeds_are_merged_with_mean_and_spread(tmp_path, monkeypatch):
    folders = [finished(tmp_path, monkeypatch, seed, table(seed)) for seed in (0, 1, 2)]
    out = tmp_path / "out"
    results.publish(folders, out)
    merged = pd.read_csv(out / "toy.csv")
    assert merged["seed"].tolist() == [0, 0, 1, 1, 2, 2]
    assert "| a\\|b | 58.6 ± 1.0 | 300 |\n| c | 20.0 | 4000 |" in (out / "toy.md").read_text()
    error = "a recall of 398 queries has a standard error of up to 2.5 points of its own"  # of the fewest
    assert f"seeds 0, 1, 2; {error}; where seeds differ: mean ± standard deviation" in (out / "toy.md").read_text()
    assert read(out / "toy.json")["queries"] == 398
    assert read(out / "toy.json")["seeds"] == [0, 1, 2]
    assert read(out / "line.json")["seeds"] == [0]
    assert (out / "line.png").read_bytes() == (folders[0] / "line.png").read_bytes()
    assert read(out / "results.json")["numbers"] == {"0": {"best": 0.0}, "1": {"best": 1.0}, "2": {"best": 2.0}}


def test_an_artefact_of_some_seeds_only_is_published(tmp_path, monkeypatch):
    one = finished(tmp_path, monkeypatch, 0, table(), figure=False)
    two = finished(tmp_path, monkeypatch, 1, table())
    results.publish([one, two], tmp_path / "out")
    assert read(tmp_path / "out" / "line.json")["seeds"] == [1]


def test_unfinished_or_mixed_runs_are_not_published(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"expected runs of one notebook, found \[\]"):
        results.publish([], tmp_path / "out")
    with pytest.raises(InputError, match=r"results\.json: expected a finished run's file"):
        results.publish([tmp_path], tmp_path / "out")
    folder = finished(tmp_path, monkeypatch, 0, table())
    monkeypatch.setenv("UCVGL_RUN_FOLDER", str(tmp_path / "laptop"))
    results.start("01_toy", profile="laptop", data="world", seed=0).finish()
    with pytest.raises(InputError, match="expected runs of one profile, found"):
        results.publish([folder, tmp_path / "laptop"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
