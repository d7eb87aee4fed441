"""Notebooks: parameters and fingerprints; one executed, what it leaves, what a failing cell says, bad input."""

import json
import subprocess
import sys

import nbformat
import papermill
import pytest
from toys import PARAMETERS, TABLE, edit_notebook, write_notebook

from ucvgl.errors import InputError
from ucvgl.lab import sources
from ucvgl.lab.settings import RunRequest
from ucvgl.lab.sources import NotebookError, read_notebook, run_notebook


def test_papermill_finds_the_same_parameters_and_none_of_the_three_may_be_missing(tmp_path):
    path = write_notebook(tmp_path, "01_toy")
    assert read_notebook(path).parameters == list(papermill.inspect_notebook(str(path)))
    path = write_notebook(tmp_path, "01_toy", parameters=PARAMETERS.replace("seed", "seeds"))
    with pytest.raises(InputError, match="found no seed"):
        _ = read_notebook(path).parameters


@pytest.mark.parametrize("content", ["", "{}", '{"cells": 3}', "[1]"])
def test_a_broken_notebook_is_one_clear_error(tmp_path, content):
    (tmp_path / "x.ipynb").write_text(content)
    with pytest.raises(InputError, match="expected a Jupyter notebook"):
        read_notebook(tmp_path / "x.ipynb")


def test_sources_tags_and_the_package_count_and_outputs_do_not(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PACKAGE", tmp_path)
    path = write_notebook(tmp_path, "01_toy")
    seen = [read_notebook(path).fingerprint()]
    content = json.loads(path.read_text())
    content["cells"][2]["outputs"] = [nbformat.v4.new_output("stream", text="hello")]
    path.write_text(json.dumps(content))
    assert read_notebook(path).fingerprint() == seen[0]
    content["cells"][1]["metadata"]["tags"] = []
    path.write_text(json.dumps(content))
    seen.append(read_notebook(path).fingerprint())
    edit_notebook(path, "A toy", "A better toy")
    seen.append(read_notebook(path).fingerprint())
    for name in ("losses.py", "values.toml"):
        (tmp_path / name).write_text("x = 2")
        seen.append(read_notebook(path).fingerprint())
    assert len(set(seen)) == 5


def test_a_notebook_leaves_its_results_and_nothing_else(studio, monkeypatch):
    monkeypatch.setenv("UCVGL_PROFILE", "paper")  # must not reach the kernel: the profile is a parameter
    monkeypatch.chdir("/")
    write_notebook(studio / "notebooks", "01_toy", TABLE, "import sys; print(sys.executable, panorama)")
    out, picture = studio / "runs" / "somewhere", studio / "a b.jpg"
    picture.write_bytes(b"never opened here")
    path = run_notebook("01_toy", RunRequest("tiny", seeds=(3,), panorama=str(picture)), out)
    found = json.loads(path.read_text())
    assert (found["profile"], found["seeds"], found["numbers"]) == ("tiny", [3], {"best": 23.0})
    assert sorted(p.name for p in out.iterdir()) == ["executed.ipynb", "results.json", "toy.csv", "toy.json", "toy.md"]
    assert [p.name for p in (studio / "runs").iterdir() if not p.name.endswith(".lock")] == ["somewhere"]
    assert f"{sys.executable} {picture}" in (out / "executed.ipynb").read_text()


def test_a_failing_cell_is_named_and_the_notebook_kept(studio):
    write_notebook(studio / "notebooks", "01_toy", "x = 1", "\n# divide\ny = 1 / 0")
    out = studio / "runs" / "toy"
    out.mkdir(parents=True)
    (out / "results.json").write_text("{}")
    command = [sys.executable, "-m", "ucvgl.cli", "notebook", "01_toy", "--profile", "tiny", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "cell 5 of 6 failed, the one that begins '# divide'" in done.stderr
    assert "ZeroDivisionError: division by zero" in done.stderr
    kept = studio / "runs" / "toy.failed.ipynb"
    assert str(kept) in done.stderr
    assert any("ZeroDivisionError" in str(cell.get("outputs")) for cell in nbformat.read(kept, as_version=4).cells)
    assert (out / "results.json").read_text() == "{}"  # what was there before stays


def test_an_unknown_notebook_and_one_that_never_finishes_are_one_clear_error(studio):
    path = write_notebook(studio / "notebooks", "01_toy", "x = 1")
    edit_notebook(path, "run.finish(best=20.0 + seed)", "pass")
    with pytest.raises(InputError, match=r"expected one of 01_toy, found '01_tyo'. Did you mean 01_toy\?"):
        run_notebook("01_tyo", RunRequest("tiny"), studio / "out")
    with pytest.raises(NotebookError, match=r"no results\.json"):
        run_notebook("01_toy", RunRequest("tiny"), studio / "out")
    assert not (studio / "out").exists()
