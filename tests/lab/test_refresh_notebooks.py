"""Outputs as they are committed: without what changes from run to run."""

import nbformat
import pytest
from refresh_notebooks import refresh_outputs
from toys import TABLE, edit_notebook, write_notebook

from ucvgl.errors import InputError
from ucvgl.lab.settings import RunRequest
from ucvgl.lab.sources import run_notebook
from ucvgl.paths import ROOT

BAR = "import sys\nfor i in range(3): sys.stderr.write(f'\\r {i}/3 [00:01, 9.0it/s]')"
PATH = "from ucvgl.paths import ROOT\nprint('saved', ROOT / 'figures')"


def test_refreshed_outputs_are_stable_and_name_no_folder_of_this_machine(studio):
    source = write_notebook(studio / "notebooks", "01_toy", TABLE, BAR, PATH, "raise_later = 1\nraise_later")
    out = studio / "run"
    run_notebook("01_toy", RunRequest("tiny"), out)
    refresh_outputs(out / "executed.ipynb", source)
    first = source.read_text()
    notebook = nbformat.reads(first, as_version=4)
    nbformat.validate(notebook)
    assert "papermill" not in first
    assert str(ROOT) not in first
    assert [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"] == [1, 2, 3, 4, 5, 6, 7]
    assert "| a | 10.0 |" in notebook.cells[3].outputs[0].data["text/markdown"]
    assert notebook.cells[4].outputs == []
    assert notebook.cells[5].outputs[0].text == "saved figures\n"
    refresh_outputs(out / "executed.ipynb", source)
    assert source.read_text() == first
    edit_notebook(source, "raise_later", "never")
    with pytest.raises(InputError, match="expected the cells that were executed"):
        refresh_outputs(out / "executed.ipynb", source)
