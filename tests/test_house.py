"""The shape of the package: imports run downwards, none in a circle, no private name leaves its file, files stay short."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ucvgl"
FLAT = (
    "geometry", "positions", "augment", "encoders", "heads", "losses", "ssl_losses", "sampling", "search", "metrics",
    "pseudo_labels", "reranking", "translation", "synthetic_top_view", "training", "distributed", "checkpoints", "errors",
    "paths",
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


def floor_of(module):
    part = module.split(".")[1] if "." in module else ""
    return next((number for number, names in enumerate(FLOORS) if part in names), len(FLOORS))


REBUILT = [name for name in MODULES if floor_of(name) < len(FLOORS) and name != "ucvgl"]


@pytest.mark.parametrize("name", REBUILT)
def test_imports_run_downwards(name):
    above = {module for module, _ in imported(MODULES[name]) if module != "ucvgl" and floor_of(module) > floor_of(name)}
    assert not above


def test_no_file_imports_in_a_circle():
    # a package's __init__ only hands names on: a module of the package may be imported by it
    graph = {
        name: {module for module, _ in imported(path)} for name, path in MODULES.items() if path.name != "__init__.py"
    }
    list(TopologicalSorter(graph).static_order())


def test_no_private_name_leaves_its_file():
    private = [
        f"{name}: {module}.{taken}"
        for name, path in MODULES.items()
        for module, taken in imported(path)
        if taken and taken.startswith("_") and not taken.startswith("__")
    ]
    assert not private


@pytest.mark.parametrize("name", [name for name in REBUILT if not name.startswith("ucvgl.methods")])  # to be rewritten
def test_files_stay_short(name):
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_the_losses_load_little():
    code = "import sys; from ucvgl import losses, sampling; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {"matplotlib", "pandas", "snakemake", "timm", "torchvision", "accelerate"}


def test_no_two_files_of_tests_have_one_name():
    """pytest takes a file for a module of its bare name, and the second of two is not collected."""
    names = [path.name for path in Path(__file__).parent.rglob("*.py") if path.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))
