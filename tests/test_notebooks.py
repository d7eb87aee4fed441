"""What every notebook keeps to: skeleton, short cells, small files, no paths, outputs of the laptop profile."""

import ast
import importlib
import inspect
import json
import re

import nbformat
import pytest

from ucvgl import paths
from ucvgl.lab.results import Run
from ucvgl.lab.sources import REQUIRED

NOTEBOOKS = sorted(paths.notebooks().glob("[0-9][0-9]_*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> nbformat.NotebookNode:
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_is_a_notebook() -> None:
    assert NOTEBOOKS


def test_skeleton(notebook: nbformat.NotebookNode) -> None:
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    first, second, *_, last = code_cells(notebook)
    assert first.metadata.get("tags") == ["parameters"]
    assert len(first.source.splitlines()) <= 8
    assert all(
        re.match(rf"{name} = .*#", line) for name, line in zip(REQUIRED, first.source.splitlines(), strict=False)
    )
    assert "results.start(" in second.source
    assert "run.finish(" in last.source
    assert any("Published beside ours" in cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_cells_are_short_and_hold_no_machinery(notebook: nbformat.NotebookNode) -> None:
    for cell in code_cells(notebook):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert len(lines) <= 15, cell.source
        assert lines[0].startswith("#") or cell.metadata.get("tags") == ["parameters"], (
            "open with the idea: " + lines[0]
        )
        nodes = list(ast.walk(ast.parse(re.sub(r"(?m)^%", "#", cell.source))))
        assert not any(isinstance(node, ast.ClassDef | ast.While) for node in nodes), cell.source


def test_each_code_cell_follows_words(notebook: nbformat.NotebookNode) -> None:
    """No three code cells in a row without a sentence between them."""
    kinds = "".join(cell.cell_type[0] for cell in notebook.cells[3:])
    assert "cccc" not in kinds


def test_committed_with_outputs_and_small(notebook: nbformat.NotebookNode, request: pytest.FixtureRequest) -> None:
    path = request.node.callspec.params["notebook"]
    assert path.stat().st_size < 2_000_000
    bare = [cell for cell in code_cells(notebook)[2:] if not cell.outputs]
    assert len(bare) <= 1 + len(code_cells(notebook)) // 4, "run make refresh-notebooks"
    text = json.dumps(notebook)
    assert '"output_type": "error"' not in text
    assert not re.search(r"/(home|root|tmp|Users)/", text), "a path of one machine"
    assert f"{paths.ROOT}/" not in text, "a path of this machine"
    assert any("profile laptop" in json.dumps(cell.outputs) for cell in code_cells(notebook)), (
        "outputs of the laptop profile"
    )


def test_what_cells_name_is_in_the_package(notebook: nbformat.NotebookNode) -> None:
    """In every branch: on the world no cell takes those for data of one's own."""
    tree = ast.parse("\n".join(re.sub(r"(?m)^%", "#", cell.source) for cell in code_cells(notebook)))
    known = {"run": {*Run.__dataclass_fields__, *dir(Run)}}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("ucvgl"):
            for alias in node.names:
                try:
                    value = importlib.import_module(f"{node.module}.{alias.name}")
                except ModuleNotFoundError:
                    value = getattr(importlib.import_module(node.module), alias.name)
                if inspect.ismodule(value):
                    known[alias.asname or alias.name] = set(dir(value))
    named = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    missing = {
        f"{node.value.id}.{node.attr}" for node in named if node.attr not in known.get(node.value.id, {node.attr})
    }
    assert not missing
