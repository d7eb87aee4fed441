"""One notebook executed through papermill, as a job of the graph."""

import json
import os
import shutil
import sys
from pathlib import Path

from ucvgl.lab.settings import RunRequest
from ucvgl.lab.sources import cell_tags, find_notebook, read_notebook
from ucvgl.paths import replace_folder, waiting_for, write_text


class NotebookError(RuntimeError):
    """A notebook did not run to its end; the message says where, why, and where the partly executed one is."""


def run_notebook(name: str, asked: RunRequest, out: Path) -> Path:
    """Executes one notebook and leaves its executed copy, its artefacts and results.json, whose path it gives, in `out`.

    The folder appears when everything is complete, in the place of an older one. If a cell fails, the partly executed notebook
    is kept beside it, as `<out>.failed.ipynb`. asked: with one seed; what the notebook has no parameter for is left out.
    InputError: an unknown notebook. NotebookError: a cell failed, the kernel died, or the notebook never called `run.finish`.
    """
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
    added = {"papermill-error-cell-tag", "injected-parameters"}
    cells = read_notebook(executed).cells
    ours = [cell for cell in cells if not added & {*cell_tags(cell)}]
    for cell in cells:
        for error in (output for output in cell.get("outputs", []) if output.get("output_type") == "error"):
            place = f"cell {ours.index(cell) + 1} of {len(ours)}" if cell in ours else "the cell of given parameters"
            first = next((line for line in cell["source"].splitlines() if line.strip()), "")
            return f"{place} failed, the one that begins {first!r}\n  {error['ename']}: {error['evalue']}"
    return "stopped half-way"
