"""Renews the outputs shown in the committed notebooks: laptop profile, embedded world, seed 0. `make refresh-notebooks` calls it.

`ucvgl reproduce`, which renews figures/, runs first; unless it ends well the notebooks stay untouched.
"""

import sys
from pathlib import Path
from typing import Any

import nbformat

from ucvgl import paths
from ucvgl.errors import InputError
from ucvgl.lab.graph import reproduce
from ucvgl.lab.settings import RunRequest
from ucvgl.lab.sources import notebooks
from ucvgl.paths import write_text


def refresh_outputs(executed: Path, source: Path) -> None:
    """Copies the outputs of an executed notebook into the committed one, without what changes from run to run.

    Left out: papermill's cell, widgets, progress bars, and the folder this checkout lies in. Sources and metadata of the
    committed notebook stay. InputError: the cells of the two differ, as the notebook was edited since.
    """
    notebook = nbformat.read(source, as_version=4)
    cells = nbformat.read(executed, as_version=4).cells
    done = [cell for cell in cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    if [(c.cell_type, c.source) for c in done] != [(c.cell_type, c.source) for c in notebook.cells]:
        todo = "Run `make reproduce` first."
        raise InputError(source.name, expected="the cells that were executed", found="others", todo=todo)
    code = [(old, new) for old, new in zip(notebook.cells, done, strict=True) if old.cell_type == "code"]
    for count, (old, new) in enumerate(code, 1):
        old.execution_count = count
        cleaned = (_clean(output, count) for output in new.outputs)
        old.outputs = [output for output in cleaned if output.get("text") != "" and output.get("data") != {}]
    write_text(source, nbformat.writes(notebook) + "\n")


def _clean(output: Any, count: int) -> Any:
    """One output as it is committed; without text or data if nothing of it lasts."""
    if output.output_type == "stream":
        lines = output.text.split("\n")
        kept = "\n".join(line for line in lines if "\r" not in line and "it/s]" not in line)  # but for progress bars
        output.text = _without_root(kept if kept.strip() else "")
    data = output.get("data", {})
    if "application/vnd.jupyter.widget-view+json" in data:  # nothing without its kernel
        data.clear()
    data |= {kind: _without_root(text) for kind, text in data.items() if kind.startswith("text/")}
    if "execution_count" in output:
        output.execution_count = count
    return output


def _without_root(text: str) -> str:
    return text.replace(f"{paths.ROOT}/", "").replace(str(paths.ROOT), ".")


def main() -> int:
    """The exit status of `reproduce`."""
    asked = RunRequest()
    status = reproduce(asked)
    if status == 0:
        for name in notebooks():
            refresh_outputs(asked.run_folder(name, 0) / "executed.ipynb", paths.notebooks() / f"{name}.ipynb")
    return status


if __name__ == "__main__":
    sys.exit(main())
