"""Notebooks as sources: their parameters, what they say of themselves, and their fingerprints.

A job is up to date as long as its fingerprint is: a hash of cells and modules, not of dates, which a fresh checkout changes.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ucvgl import paths
from ucvgl.errors import InputError, one_of

PACKAGE = Path(__file__).resolve().parent.parent
REQUIRED = ("profile", "data", "seed")  # parameters that every notebook has


@dataclass(frozen=True)
class Notebook:
    """A notebook's source, and what it says of itself to the graph in `metadata.ucvgl`."""

    path: Path
    cells: list[dict[str, Any]]  # each source as one text
    rows: tuple[str, ...]  # beginnings of the names of the rows it shows (`lab.rows`)
    layouts: tuple[str, ...]  # those of the data it is for; none: for all

    @property
    def parameters(self) -> list[str]:
        """The names that its cell tagged `parameters` sets, in order; InputError if profile, data or seed is missing."""
        cell = next((cell["source"] for cell in self.cells if "parameters" in cell_tags(cell)), "")
        names = re.findall(r"(?m)^(\w+) *(?::[^=\n]+)?=", cell)
        if missing := ", ".join(name for name in REQUIRED if name not in names):
            expected, todo = (
                f"a cell tagged 'parameters' that sets {', '.join(REQUIRED)}",
                "Every notebook takes these.",
            )
            raise InputError(self.path.name, expected=expected, found=f"no {missing}", todo=todo)
        return names

    def fingerprint(self) -> str:
        """SHA-256 over its cells (kind, tags, source; not outputs) and over the package's modules."""
        cells = [[cell["cell_type"], sorted(cell_tags(cell)), cell["source"]] for cell in self.cells]
        return hashlib.sha256(json.dumps([cells, package_digest()]).encode()).hexdigest()


def notebooks() -> list[str]:
    """The names of the notebooks, without suffix, in order."""
    return sorted(path.stem for path in paths.notebooks().glob("*.ipynb"))


def read_notebook(path: Path) -> Notebook:
    """A notebook's source; InputError if it is missing or broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        cells, said = content["cells"], content.get("metadata", {}).get("ucvgl", {})
        cells = [cell | {"source": "".join(cell["source"])} for cell in cells]
        return Notebook(path, cells, tuple(said.get("rows", ())), tuple(said.get("layouts", ())))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        found, todo = f"{type(error).__name__}: {error}", "Open and save it in JupyterLab, or restore it from git."
        raise InputError(path, expected="a Jupyter notebook (format 4)", found=found, todo=todo) from error


def find_notebook(name: str) -> Notebook:
    """The notebook of that name; InputError if there is none."""
    one_of("notebook", name, notebooks(), suggest(name, notebooks()))
    return read_notebook(paths.notebooks() / f"{name}.ipynb")


def suggest(word: str, known: Sequence[str]) -> str:
    """The next step for a word that is none of `known`: the closest one, if any is close."""
    close = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"Did you mean {close[0]}?" if close else "Choose one of these."


def cell_tags(cell: Mapping[str, Any]) -> list[str]:
    """The tags of a cell."""
    return list(cell.get("metadata", {}).get("tags", []))


def package_digest() -> str:
    """SHA-256 over the modules of this package and its tables of values."""
    files = sorted(path for kind in ("py", "json", "toml") for path in PACKAGE.rglob(f"*.{kind}"))
    return hashlib.sha256(
        b"".join(str(path.relative_to(PACKAGE)).encode() + path.read_bytes() for path in files)
    ).hexdigest()
