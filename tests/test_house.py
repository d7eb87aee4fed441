"""The shape of the package: imports run downwards, none in a circle, no private name leaves its file, no dead code."""

import ast
import json
import pickle
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from ucvgl.errors import InputError
from ucvgl.paths import ROOT, notebooks

PACKAGE = ROOT / "ucvgl"
FLAT = (
    "geometry", "positions", "augment", "encoders", "heads", "losses", "ssl_losses", "sampling", "search", "metrics",
    "pseudo_labels", "reranking", "translation", "training", "distributed", "checkpoints", "errors", "paths",
)  # fmt: skip
# a floor may import those before it and itself; what lies above is not listed
FLOORS = [FLAT, ("data",), ("world",), ("methods", "local_features"), ("lab",), ("locate",)]
LONGEST = 450


def module_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(path):
    """(module, name) of everything a file imports from this package, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ucvgl":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner, None) if inner in MODULES else (node.module, alias.name)


IMPORTS = [(name, *taken) for name, path in MODULES.items() for taken in imported(path)]


def floor_of(module):
    part = module.split(".")[1] if "." in module else ""
    return next((number for number, names in enumerate(FLOORS) if part in names), len(FLOORS))


def test_imports_run_downwards():
    upwards = {
        f"{name}: {module}" for name, module, _ in IMPORTS if floor_of(module) > floor_of(name) and "." in module
    }
    assert not upwards


def test_no_file_imports_in_a_circle():
    # a package's __init__ only hands names on: a module of the package may be imported by it
    graph = {name: set() for name, path in MODULES.items() if path.name != "__init__.py"}
    for name, module, _ in IMPORTS:
        if name in graph:
            graph[name].add(module)
    list(TopologicalSorter(graph).static_order())


def test_no_private_name_leaves_its_file():
    private = [taken for taken in IMPORTS if re.match("_[^_]", taken[2] or "")]
    assert not private


def test_files_stay_short():
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: count for name, count in lines.items() if count > LONGEST} == {}


def test_no_dead_code(tmp_path):
    """What neither the package nor the notebooks nor the benchmarks use; pyproject.toml lists what vulture cannot see."""
    pytest.importorskip("vulture")
    cells = [cell for path in notebooks().glob("*.ipynb") for cell in json.loads(path.read_text("utf-8"))["cells"]]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    (tmp_path / "cells.py").write_text(re.sub(r"(?m)^[%!]", "#", "\n".join(code)))
    command = [sys.executable, "-m", "vulture", "ucvgl", "benchmarks", str(tmp_path / "cells.py")]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert not found.stderr
    assert [line for line in found.stdout.splitlines() if line.startswith("ucvgl")] == []


def test_the_losses_load_little():
    code = "import sys; from ucvgl import losses, sampling; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(loaded) & {"matplotlib", "pandas", "snakemake", "timm", "torchvision", "accelerate"}


def test_no_two_files_of_tests_have_one_name():
    """pytest takes a file for a module of its bare name, and the second of two is not collected."""
    names = [path.name for path in Path(__file__).parent.rglob("*.py") if path.name != "conftest.py"]
    assert len(names) == len(set(names))


def test_the_one_error_says_where_what_and_what_to_do_and_survives_a_worker_process():
    error = InputError("list.csv, line 3", expected="three columns", found=2, todo="Add the third.")
    assert str(error) == "list.csv, line 3: expected three columns, found 2. Add the third."
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 (what multiprocessing does with an exception)
    assert (str(again), again.found) == (str(error), "2")
