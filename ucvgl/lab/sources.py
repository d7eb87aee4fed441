"""Notebooks as sources: their parameters, what they say of themselves, their fingerprints; and one executed by papermill.

A job is up to date as long as its fingerprint is: a hash of cells and modules, not of dates, which a fresh checkout changes."""

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ucvgl import paths
from ucvgl.errors import InputError, one_of
from ucvgl.lab.settings import RunRequest
from ucvgl.paths import replace_folder, waiting_for, write_text

PACKAGE = Path(__file__).resolve().parent.parent
REQUIRED = ("profile", "data", "seed")  # parameters that every notebook has


class NotebookError(RuntimeError):
    """A notebook did not run to its end; the message says where, why, and where the partly executed one is."""


@dataclass(frozen=True)
class Notebook:
    """A notebook's source, and what it says of itself to the graph in `metadata.ucvgl`."""

    path: Path
    cells: list[dict[str, Any]]  # each with its source as one text, and its tags
    rows: tuple[str, ...]  # beginnings of the names of the rows it shows (`lab.rows`)
    layouts: tuple[str, ...]  # those of the data it is for; none: for all

    @property
    def parameters(self) -> list[str]:
        """The names that its cell tagged `parameters` sets, in order; InputError if profile, data or seed is missing."""
        cell = next((cell["source"] for cell in self.cells if "parameters" in cell["tags"]), "")
        names = re.findall(r"(?m)^(\w+) *(?::[^=\n]+)?=", cell)
        if missing := ", ".join(name for name in REQUIRED if name not in names):
            expected = f"a cell tagged 'parameters' that sets {', '.join(REQUIRED)}"
            raise InputError(self.path.name, expected, f"no {missing}", "Every notebook takes these.")
        return names

    def fingerprint(self) -> str:
        """SHA-256 over its cells (kind, tags, source; not outputs) and over the package's modules."""
        cells = [[cell["cell_type"], sorted(cell["tags"]), cell["source"]] for cell in self.cells]
        return hashlib.sha256(json.dumps([cells, package_digest()]).encode()).hexdigest()


def notebooks() -> list[str]:
    """The names of the notebooks, without suffix, in order."""
    return sorted(path.stem for path in paths.notebooks().glob("*.ipynb"))


def read_notebook(path: Path) -> Notebook:
    """A notebook's source; InputError if it is missing or broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        cells, said = content["cells"], content.get("metadata", {}).get("ucvgl", {})
        cells = [cell | {"source": "".join(cell["source"]), "tags": cell["metadata"].get("tags", [])} for cell in cells]
        return Notebook(path, cells, tuple(said.get("rows", ())), tuple(said.get("layouts", ())))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        found, todo = f"{type(error).__name__}: {error}", "Open and save it in JupyterLab, or restore it from git."
        raise InputError(path, "a Jupyter notebook (format 4)", found, todo) from error


def find_notebook(name: str) -> Notebook:
    """The notebook of that name; InputError if there is none."""
    one_of("notebook", name, notebooks(), suggest(name, notebooks()))
    return read_notebook(paths.notebooks() / f"{name}.ipynb")


def suggest(word: str, known: Sequence[str]) -> str:
    """The next step for a word that is none of `known`: the closest one, if any is close."""
    close = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"Did you mean {close[0]}?" if close else "Choose one of these."


def package_digest() -> str:
    """SHA-256 over the modules of this package and its tables of values."""
    digest = hashlib.sha256()
    for path in sorted(path for kind in ("py", "json", "toml") for path in PACKAGE.rglob(f"*.{kind}")):
        digest.update(str(path.relative_to(PACKAGE)).encode() + path.read_bytes())
    return digest.hexdigest()


def run_notebook(name: str, asked: RunRequest, out: Path) -> Path:
    """Executes one notebook and leaves its executed copy, its artefacts and results.json, whose path it gives, in `out`, which
    appears when everything is complete; what the notebook has no parameter for is left out. InputError: an unknown notebook.
    NotebookError: a cell failed, the kernel died, or the notebook never called `run.finish`; `<out>.failed.ipynb` is kept."""
    notebook, seed = find_notebook(name), asked.seeds[0]
    given = {"profile": asked.profile, "data": asked.data, "seed": seed, **asked.further(notebook.parameters)}
    import nbclient.exceptions
    import papermill
    from ipykernel.kernelspec import get_kernel_dict

    out = out.resolve()
    partial, failed = out.with_name(f".{out.name}.partial"), out.with_name(f"{out.name}.failed.ipynb")
    executed, label = partial / "executed.ipynb", f"{name} seed {seed}"
    with waiting_for(out.with_name(f".{out.name}.lock"), f"another process runs {label}"):
        shutil.rmtree(partial, ignore_errors=True)
        # a kernel of the running interpreter; its notes on sockets and on shutting down tell a reader nothing
        kernel = get_kernel_dict(["--log-level=50"]) | {"env": {"UCVGL_PROFILE": "", "UCVGL_RUN_FOLDER": str(partial)}}
        write_text(partial / "jupyter" / "kernels" / "python3" / "kernel.json", json.dumps(kernel))
        before = filter(None, [os.environ.get("JUPYTER_PATH")])
        os.environ["JUPYTER_PATH"] = os.pathsep.join([str(partial / "jupyter"), *before])
        bar = {"desc": label, "mininterval": 0.5 if sys.stderr.isatty() else 5, "file": sys.stderr}
        try:
            papermill.execute_notebook(notebook.path, executed, given, kernel_name="python3", progress_bar=bar)
            finished = (partial / "results.json").is_file()
            why = "" if finished else "ran to its end without run.finish(...), so it has no results.json"
        except papermill.PapermillExecutionError:
            why = failure(executed)
        except nbclient.exceptions.DeadKernelError:
            why = "the kernel died: out of memory, most often (try PROFILE=tiny, or CORES=1: one notebook at a time)"
        if why:
            if executed.exists():
                executed.replace(failed)
            shutil.rmtree(partial, ignore_errors=True)
            raise NotebookError(f"{label}: {why}\nthe partly executed notebook: {failed}")
        shutil.rmtree(partial / "jupyter")
        replace_folder(partial, out)
        failed.unlink(missing_ok=True)
    return out / "results.json"


def failure(executed: Path) -> str:
    """Which cell of the source notebook failed, by number and first line, and why."""
    cells = read_notebook(executed).cells
    ours = [cell for cell in cells if not {"papermill-error-cell-tag", "injected-parameters"} & {*cell["tags"]}]
    for cell in cells:
        for error in (output for output in cell.get("outputs", []) if output.get("output_type") == "error"):
            place = f"cell {ours.index(cell) + 1} of {len(ours)}" if cell in ours else "the cell of given parameters"
            first = next((line for line in cell["source"].splitlines() if line.strip()), "")
            return f"{place} failed, the one that begins {first!r}\n  {error['ename']}: {error['evalue']}"
    return "stopped half-way"
