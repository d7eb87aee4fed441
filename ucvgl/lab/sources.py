"""Notebooks as sources: which there are, their parameters, what they say of themselves, and their fingerprints.

A job is up to date as long as its fingerprint is: a hash of the notebook's cells and of the modules of this package
that it imports, directly or not. Dates of files play no part: a fresh checkout reruns nothing that no edit touched.
"""

import ast
import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any

from ucvgl import paths
from ucvgl.errors import InputError

PACKAGE = Path(__file__).resolve().parent.parent
REQUIRED = ("profile", "data", "seed")  # parameters that every notebook has


def notebooks() -> list[str]:
    """The names of the notebooks, without suffix, in order."""
    return sorted(path.stem for path in paths.notebooks().glob("*.ipynb"))


def suggest(word: str, known: Sequence[str]) -> str:
    """The next step for a word that is none of `known`: the closest one, if any is close."""
    close = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"Did you mean {close[0]}?" if close else "Choose one of these."


def notebook_path(name: str) -> Path:
    """The file of a notebook; InputError if there is none of that name."""
    known = notebooks()
    if name not in known:
        expected = f"one of {', '.join(known) or '(none exists yet)'}"
        raise InputError("notebook", expected=expected, found=repr(name), todo=suggest(name, known))
    return paths.notebooks() / f"{name}.ipynb"


def read_notebook(notebook: Path) -> dict[str, Any]:
    """A notebook as JSON; InputError if it is missing or broken."""
    try:
        content = json.loads(notebook.read_text(encoding="utf-8"))
        content["cells"] = list(content["cells"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        found, todo = f"{type(error).__name__}: {error}", "Open and save it in JupyterLab, or restore it from git."
        raise InputError(notebook, expected="a Jupyter notebook (format 4)", found=found, todo=todo) from error
    return content


def cell_source(cell: Mapping[str, Any]) -> str:
    """The text of a cell, which a notebook file may hold in lines."""
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(source)


def cell_tags(cell: Mapping[str, Any]) -> list[str]:
    """The tags of a cell."""
    return list(cell.get("metadata", {}).get("tags", []))


def metadata(notebook: Path) -> dict[str, Any]:
    """What a notebook says of itself to the graph: `metadata.ucvgl`, mostly empty.

    `needs`: names of notebooks whose results it reads; `rows`: beginnings of the names of the rows it shows (`lab.rows`);
    `layouts`: those of the data it is for, without which it is for all.
    """
    return read_notebook(notebook).get("metadata", {}).get("ucvgl", {})


def fits(notebook: Path, layout: str) -> bool:
    """Whether a notebook is for data of that layout."""
    layouts = metadata(notebook).get("layouts")
    return layouts is None or layout in layouts


def parameters(notebook: Path) -> dict[str, Any]:
    """The parameters of a notebook with their defaults, in order: the assignments in its cell tagged `parameters`.

    As papermill finds them, which a test holds; papermill itself takes seconds to load.

    Raises:
        InputError: a default that is not a plain value, or `profile`, `data` or `seed` missing.
    """
    cells = [cell_source(cell) for cell in read_notebook(notebook)["cells"] if "parameters" in cell_tags(cell)]
    found: dict[str, Any] = {}
    for statement in ast.parse(cells[0]).body if cells else []:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        try:
            found[target.id] = ast.literal_eval(statement.value)
        except (ValueError, AttributeError):
            raise InputError(
                f"{notebook.name}, cell of parameters", expected="names with plain values: numbers, texts, True, False",
                found=ast.unparse(statement), todo="Compute it in a later cell.",
            ) from None  # fmt: skip
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        raise InputError(
            notebook.name, expected=f"a cell tagged 'parameters' that sets {', '.join(REQUIRED)}",
            found=f"no {', '.join(missing)}", todo="Add it: every notebook takes these three.",
        )  # fmt: skip
    return found


def convert(where: str, text: str, default: Any) -> Any:
    """A parameter given as text, in the type of its default; texts for a default of None."""
    if default is None or isinstance(default, str):
        return text
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text.lower(), text))
    except (ValueError, SyntaxError):
        value = None
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(default):
        expected = f"a {type(default).__name__}, like {default!r}"
        raise InputError(where, expected=expected, found=repr(text), todo="Give such a value.")
    return value


def modules_of(notebook: Path, package: Path = PACKAGE) -> list[Path]:
    """The source files of `package` that a notebook imports, directly or through others, sorted."""
    cells = [cell_source(cell) for cell in read_notebook(notebook)["cells"] if cell.get("cell_type") == "code"]
    finder = ModuleFinder([str(package.parent)])
    with tempfile.NamedTemporaryFile("w", suffix=".py", encoding="utf-8") as script:
        script.write("\n".join(map(_without_magic, cells)))
        script.flush()
        finder.run_script(script.name)
    files = [Path(module.__file__ or "") for module in finder.modules.values()]
    return sorted(file for file in files if file.is_relative_to(package))


def _without_magic(source: str) -> str:
    """A cell as Python; where IPython's extras (`%magic`, `!command`) stand in the way, its imports alone."""
    try:
        ast.parse(source)
    except SyntaxError:
        return "\n".join(line.strip() for line in source.splitlines() if re.match(r"\s*(import|from)\s", line))
    return source


def source_fingerprint(notebook: Path, package: Path = PACKAGE) -> str:
    """SHA-256 over a notebook's cells (kind, tags, source; not outputs) and over the modules of `package`, a folder, that it
    imports; modules of other packages do not count, nor do data files."""
    digest = hashlib.sha256()
    for cell in read_notebook(notebook)["cells"]:
        digest.update(json.dumps([cell.get("cell_type"), sorted(cell_tags(cell)), cell_source(cell)]).encode())
    for file in modules_of(notebook, package):
        digest.update(json.dumps([file.relative_to(package).as_posix(), file.read_text(encoding="utf-8")]).encode())
    return digest.hexdigest()
