"""Toy notebooks for the tests of the engine: they take a second, and need no torch."""

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PARAMETERS = """\
profile: str = "laptop"  # tiny, laptop or paper
data: str = "world"
seed: int = 0
panorama = ""
span_m = 50.0
rounds = 3
draw = True"""

SETUP = """\
import os, pandas as pd
from ucvgl.lab import results
run = results.start("{name}", profile=profile, data=data, seed=seed)
with open(os.environ["TOY_LOG"], "a") as log:
    log.write("{name} " + str(seed) + "\\n")"""

TABLE = """\
frame = pd.DataFrame({"method": ["a", "b"], "r_at_1": [10.0 + seed, 20.0], "tiles": [300, 4000]})
run.save_table(frame, "toy", caption="A toy.", published={"r_at_1": [12.0, None]})"""


def write_notebook(
    folder: Path, name: str, *cells: str, parameters: str = PARAMETERS,
    layouts: tuple[str, ...] | None = None, rows: tuple[str, ...] = (),
) -> Path:  # fmt: skip
    """A notebook of the house's skeleton around `cells`; without cells it saves one table."""
    tagged = new_code_cell(parameters, id="parameters")
    tagged.metadata.tags = ["parameters"]
    texts = [SETUP.format(name=name), *(cells or (TABLE,)), "run.finish(best=20.0 + seed)"]
    code = [new_code_cell(text, id=f"cell{i}") for i, text in enumerate(texts)]
    metadata = {
        "kernelspec": {"name": "no_such_kernel", "display_name": "?", "language": "python"},
        "language_info": {"name": "python"},
        "ucvgl": {"rows": list(rows)} | ({} if layouts is None else {"layouts": list(layouts)}),
    }
    title = new_markdown_cell("# A toy", id="title")
    path = folder / f"{name}.ipynb"
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[title, tagged, *code], metadata=metadata), path)
    return path


def edit_notebook(path: Path, old: str, new: str) -> None:
    """Replaces a text in a notebook's sources."""
    notebook = nbformat.read(path, as_version=4)
    assert any(old in cell.source for cell in notebook.cells)
    for cell in notebook.cells:
        cell.source = cell.source.replace(old, new)
    nbformat.write(notebook, path)
