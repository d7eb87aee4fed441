"""One notebook executed through papermill, as a job of the graph."""

import json
import os
import shutil
import sys
from pathlib import Path

from ucvgl.lab.settings import RunRequest
from ucvgl.lab.sources import cell_source, cell_tags, find_notebook, read_notebook
from ucvgl.paths import replace_folder, waiting_for, write_text


class NotebookError(RuntimeError):
    """A notebook did not run to its end; the message says where, why, and where the partly executed one is."""


def run_notebook(name: str, asked: RunRequest, out: Path) -> Path:
    """Executes one notebook and leaves its executed copy, its artefacts and results.json in the folder `out`.

    The folder appears when everything is complete, in the place of an older one; a killed run leaves no trace in it. If
    a cell fails, the partly executed notebook is kept beside it, as `<out>.failed.ipynb`. Gives the path of results.json.

    asked: with one seed; what the notebook has no parameter for is left out. InputError: an unknown notebook. NotebookError:
    a cell failed, the kernel died, or the notebook never called `run.finish`.
    """
    notebook = find_notebook(name)
    given = {"profile": asked.profile, "data": asked.data, "seed": asked.seeds[0], **asked.further(notebook.parameters)}
    import nbclient.exceptions
    import papermill

    out = out.resolve()
    partial, failed = out.with_name(f".{out.name}.partial"), out.with_name(f"{out.name}.failed.ipynb")
    executed, label = partial / "executed.ipynb", f"{name} seed {given['seed']}"
    with waiting_for(out.with_name(f".{out.name}.lock"), f"another process runs {label}"):
        shutil.rmtree(partial, ignore_errors=True)
        kernels = _own_kernel(partial)
        bar = {"desc": label, "mininterval": 0.5 if sys.stderr.isatty() else 5, "file": sys.stderr}
        why = ""
        try:
            papermill.execute_notebook(notebook.path, executed, given, kernel_name="python3", progress_bar=bar)
        except papermill.PapermillExecutionError:
            why = failure(executed)
        except nbclient.exceptions.DeadKernelError:
            why = "the kernel died: out of memory, most often (try PROFILE=tiny, or CORES=1: one notebook at a time)"
        if why:
            if executed.exists():
                executed.replace(failed)
            shutil.rmtree(partial, ignore_errors=True)
            raise NotebookError(f"{label}: {why}\nthe partly executed notebook: {failed}")
        if not (partial / "results.json").is_file():
            raise NotebookError(f"{label}: ran to its end without run.finish(...), so it has no results.json")
        shutil.rmtree(kernels)
        replace_folder(partial, out)
        failed.unlink(missing_ok=True)
    return out / "results.json"


def _own_kernel(run_folder: Path) -> Path:
    """A folder with a kernel named python3 that is the running interpreter, whatever kernels are registered elsewhere; this
    process finds it from now on. It is told to write to `run_folder`."""
    from ipykernel.kernelspec import get_kernel_dict

    spec = get_kernel_dict(["--log-level=50"])  # its notes on sockets and on shutting down tell a reader nothing
    # the profile is a parameter here
    spec["env"] = {"UCVGL_PROFILE": "", "UCVGL_RUN_FOLDER": str(run_folder)}
    folder = run_folder / "jupyter"
    write_text(folder / "kernels" / "python3" / "kernel.json", json.dumps(spec))
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("JUPYTER_PATH")]))
    return folder


def failure(executed: Path) -> str:
    """Which cell of the source notebook failed, by number and first line, and why."""
    cells = [cell for cell in read_notebook(executed).cells if "papermill-error-cell-tag" not in cell_tags(cell)]
    ours = [cell for cell in cells if "injected-parameters" not in cell_tags(cell)]
    for cell in cells:
        error = next((o for o in cell.get("outputs", []) if o.get("output_type") == "error"), None)
        if error is not None:
            place = f"cell {ours.index(cell) + 1} of {len(ours)}" if cell in ours else "the cell of given parameters"
            first = next((line for line in cell_source(cell).splitlines() if line.strip()), "")
            return f"{place} failed, the one that begins {first!r}\n  {error['ename']}: {error['evalue']}"
    return "stopped half-way"
