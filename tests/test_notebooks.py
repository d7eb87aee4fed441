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

NOTEBOOKS = [(path, nbformat.read(path, as_version=4)) for path in sorted(paths.notebooks().glob("[0-9][0-9]_*.ipynb"))]
each_notebook = pytest.mark.parametrize(("path", "notebook"), NOTEBOOKS, ids=[path.stem for path, _ in NOTEBOOKS])


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tree_of(*cells):
    return list(ast.walk(ast.parse("\n".join(re.sub(r"(?m)^%", "#", cell.source) for cell in cells))))


@each_notebook
def test_skeleton(path, notebook):
    assert notebook.cells[0].source.startswith("# ")
    first, second, *_, last = code_cells(notebook)
    assert first.metadata.get("tags") == ["parameters"]
    lines = first.source.splitlines()
    assert len(lines) <= 8
    assert all(re.match(rf"{name} = .*#", line) for name, line in zip(REQUIRED, lines, strict=False))
    assert "results.start(" in second.source
    assert "run.finish(" in last.source
    assert any("Published beside ours" in cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    kinds = "".join(cell.cell_type[0] for cell in notebook.cells[3:])
    assert "cccc" not in kinds, "code cells follow words"


@each_notebook
def test_cells_are_short_and_hold_no_machinery(path, notebook):
    for cell in code_cells(notebook):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert len(lines) <= 15, cell.source
        assert lines[0].startswith("#") or cell.metadata.get("tags") == ["parameters"], (
            f"open with the idea: {lines[0]}"
        )
        assert not any(isinstance(node, ast.ClassDef | ast.While) for node in tree_of(cell)), cell.source


@each_notebook
def test_committed_with_outputs_and_small(path, notebook):
    assert path.stat().st_size < 2_000_000
    bare = [cell for cell in code_cells(notebook)[2:] if not cell.outputs]
    assert len(bare) <= 1 + len(code_cells(notebook)) // 4, "run make refresh-notebooks"
    text = json.dumps(notebook)
    assert '"output_type": "error"' not in text
    assert not re.search(rf"/(home|root|tmp|Users)/|{re.escape(str(paths.ROOT))}/", text), "a path of one machine"
    outputs = json.dumps([cell.outputs for cell in code_cells(notebook)])
    assert "profile laptop" in outputs, "outputs of the laptop profile"


@each_notebook
def test_what_cells_name_is_in_the_package(path, notebook):
    """In every branch: on the world no cell takes those for data of one's own."""
    nodes, known = tree_of(*code_cells(notebook)), {"run": {*Run.__dataclass_fields__, *dir(Run)}}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module.startswith("ucvgl"):
            for alias in node.names:
                try:
                    value = importlib.import_module(f"{node.module}.{alias.name}")
                except ModuleNotFoundError:
                    value = getattr(importlib.import_module(node.module), alias.name)
                if inspect.ismodule(value):
                    known[alias.asname or alias.name] = set(dir(value))
    named = [
        (node.value.id, node.attr)
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    ]
    assert {(module, name) for module, name in named if name not in known.get(module, {name})} == set()
