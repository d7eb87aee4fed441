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
from ucvgl.lab.sources import cell_tags, notebooks
from ucvgl.paths import write_text


def refresh_outputs(executed: Path, source: Path) -> None:
    """Copies the outputs of an executed notebook into the committed one, without what changes from run to run.

    Left out: papermill's notes and its cell, timings, the state of widgets, progress bars, and the folder this checkout
    lies in. Sources and metadata of the committed notebook stay as they are.

    Raises:
        InputError: the cells of the two differ: the notebook was edited since.
    """
    notebook = nbformat.read(source, as_version=4)
    done = [c for c in nbformat.read(executed, as_version=4).cells if "injected-parameters" not in cell_tags(c)]
    if [(c.cell_type, c.source) for c in done] != [(c.cell_type, c.source) for c in notebook.cells]:
        todo = "Run `make reproduce` first."
        raise InputError(source.name, expected="the cells that were executed", found="others", todo=todo)
    code = [(old, new) for old, new in zip(notebook.cells, done, strict=True) if old.cell_type == "code"]
    for count, (old, new) in enumerate(code, 1):
        old.execution_count = count
        old.outputs = [_clean(output, count) for output in new.outputs if _lasts(output)]
    write_text(source, nbformat.writes(notebook) + "\n")


def _lasts(output: Any) -> bool:
    """Not so progress bars and widgets, which are nothing without their kernel."""
    if output.output_type == "stream" and output.name == "stderr":
        return bool(_without_bars(output.text).strip())
    return "application/vnd.jupyter.widget-view+json" not in output.get("data", {})


def _clean(output: Any, count: int) -> Any:
    """One output as it is committed."""
    if output.output_type == "stream":
        output.text = _without_root(_without_bars(output.text))
    data = output.get("data", {})
    for kind, text in data.items():
        if kind.startswith("text/") and isinstance(text, str):
            data[kind] = _without_root(text)
    if "execution_count" in output:
        output.execution_count = count
    return output


def _without_bars(text: str) -> str:
    return "\n".join(line for line in text.split("\n") if "\r" not in line and "it/s]" not in line)


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
