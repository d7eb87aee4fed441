"""Parameters and fingerprints of notebooks."""

import json

import nbformat
import papermill
import pytest
from toys import PARAMETERS, edit_notebook, write_notebook

from ucvgl.errors import InputError
from ucvgl.lab import sources
from ucvgl.lab.sources import read_notebook


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
    (tmp_path / "losses.py").write_text("x = 2")
    seen.append(read_notebook(path).fingerprint())
    assert len(set(seen)) == 4
