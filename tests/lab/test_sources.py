"""Parameters and fingerprints of notebooks."""

import ast
import json

import nbformat
import papermill
import pytest
from toys import PARAMETERS, edit_notebook, write_notebook

from ucvgl.errors import InputError
from ucvgl.lab import sources


def test_papermill_finds_the_same(tmp_path):
    path = write_notebook(tmp_path, "01_toy")
    assert sources.parameters(path)["span_m"] == 50.0
    theirs = {name: ast.literal_eval(each["default"]) for name, each in papermill.inspect_notebook(str(path)).items()}
    assert list(sources.parameters(path).items()) == list(theirs.items())


def test_a_notebook_without_one_of_the_three_is_refused(tmp_path):
    lines = [line for line in PARAMETERS.splitlines() if not line.startswith("seed")]
    path = write_notebook(tmp_path, "01_toy", parameters="\n".join(lines))
    with pytest.raises(InputError, match="found no seed"):
        sources.parameters(path)


def test_a_computed_default_is_refused(tmp_path):
    path = write_notebook(tmp_path, "01_toy", parameters=PARAMETERS + "\nsize = 2 * rounds")
    with pytest.raises(InputError, match=r"names with plain values.*found size = 2 \* rounds"):
        sources.parameters(path)


@pytest.mark.parametrize("content", ["", "{}", '{"cells": 3}', "[1]"])
def test_a_broken_notebook_is_one_clear_error(tmp_path, content):
    (tmp_path / "x.ipynb").write_text(content)
    with pytest.raises(InputError, match="expected a Jupyter notebook"):
        sources.parameters(tmp_path / "x.ipynb")


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [("7", 3, 7), ("7", 1.5, 7.0), ("1e-3", 1.5, 1e-3), ("true", False, True), ("a b", "x", "a b"), ("p", None, "p")],
)
def test_values_take_the_type_of_the_default(text, default, value):
    found = sources.convert("x", text, default)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(("text", "default"), [("1.5", 3), ("wide", 1.5), ("yes", True), ("True + 1", 3), ("", 3)])
def test_values_of_another_type_are_refused(text, default):
    with pytest.raises(InputError, match="Give such a value"):
        sources.convert("x", text, default)


def test_a_notebook_may_be_for_some_layouts(tmp_path):
    notebook = write_notebook(tmp_path, "01_toy", layouts=("cvusa", "cvact"))
    assert sources.fits(notebook, "cvusa")
    assert not sources.fits(notebook, "vpr")
    assert sources.fits(write_notebook(tmp_path, "02_toy"), "vpr")  # says nothing: for all


# --------------------------------------------------------------------------------------------------------- fingerprints


@pytest.fixture
def package(tmp_path):
    """A package `ucvgl` of its own: world/ is imported through figures, the rest is not."""
    root = tmp_path / "ucvgl"
    for name, text in {
        "__init__.py": "",
        "figures.py": "from .world import city\nfrom . import paths as p",
        "paths.py": "",
        "world/__init__.py": "",
        "world/city.py": "def build():\n    from .parts import roof\n    from ..errors import InputError",
        "world/parts.py": "roof = 1",
        "world/unused.py": "",
        "errors.py": "",
        "losses.py": "",
    }.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    return root


def toy(tmp_path, *imports):
    return write_notebook(tmp_path / "notebooks", "01_toy", *imports)


@pytest.mark.parametrize(
    ("line", "also"),
    [
        ("import ucvgl.figures", {"figures.py"}),
        ("from ucvgl import figures as f", {"figures.py"}),
        ("%matplotlib inline\nfrom ucvgl.figures import anything", {"figures.py"}),
        ("for i in range(3):\n    import ucvgl.figures", {"figures.py"}),
        ("import numpy, notucvgl", None),
    ],
)
def test_imports_are_followed_through_modules(tmp_path, package, line, also):
    found = {path.relative_to(package).as_posix() for path in sources.modules_of(toy(tmp_path, line), package)}
    through = {"paths.py", "errors.py", "world/__init__.py", "world/city.py", "world/parts.py"}
    assert found == {"__init__.py"} | (through | also if also else set())  # the toy imports `from ucvgl import results`


def test_an_edit_of_an_imported_module_counts_and_of_another_does_not(tmp_path, package):
    notebook = toy(tmp_path, "from ucvgl import figures")
    before = sources.source_fingerprint(notebook, package)
    (package / "losses.py").write_text("x = 1")
    (package / "world/unused.py").write_text("x = 1")
    assert sources.source_fingerprint(notebook, package) == before
    (package / "world/parts.py").write_text("roof = 2")
    assert sources.source_fingerprint(notebook, package) != before


def test_sources_and_tags_count_and_outputs_do_not(tmp_path, package):
    path = toy(tmp_path)
    before = sources.source_fingerprint(path, package)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", text="hello")]
    notebook.cells[2].execution_count = 7
    nbformat.write(notebook, path)
    assert sources.source_fingerprint(path, package) == before
    edit_notebook(path, "A toy", "A better toy")
    edited = sources.source_fingerprint(path, package)
    assert edited != before
    content = json.loads(path.read_text())
    content["cells"][1]["metadata"]["tags"] = []
    path.write_text(json.dumps(content))
    assert sources.source_fingerprint(path, package) not in (before, edited)
