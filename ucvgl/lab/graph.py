"""Runs notebooks: one at a time through papermill, all of them through the Snakefile.

`run_notebook` is one job of the graph; `plan` reads and checks everything the Snakefile needs before anything runs;
`reproduce` calls Snakemake.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ucvgl import paths
from ucvgl.errors import InputError
from ucvgl.lab.locks import locked
from ucvgl.lab.results import PROFILES, WORLD, check_data, check_profile, check_seed, data_id, figure_folder, run_folder
from ucvgl.lab.score import readme_block, write_scorecard
from ucvgl.lab.sources import (
    REQUIRED,
    cell_source,
    cell_tags,
    convert,
    fits,
    minutes,
    needs,
    notebook_path,
    notebooks,
    parameters,
    read_notebook,
    source_fingerprint,
    suggest,
)
from ucvgl.paths import replace_folder, write_text

MORE = ("panorama", "other", "drone", "backbone")  # parameters that some notebooks have: a file, two folders, a name
SETTINGS = ("profile", "data", "seed", *MORE)  # keys of the Snakefile's config
CLUSTER_THREADS = 4  # for each job where Snakemake is told no cores: an executor plugin with --jobs


class NotebookError(RuntimeError):
    """A notebook did not run to its end; the message says where, why, and where the partly executed one is."""


# --------------------------------------------------------------------------------------------------------- one notebook


@contextmanager
def _environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Sets (or, for None, unsets) environment variables for a while: a kernel inherits this process's."""
    before = {name: os.environ.get(name) for name in changes}

    def apply(values: Mapping[str, str | None]) -> None:
        for name, value in values.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    apply(changes)
    try:
        yield
    finally:
        apply(before)


def _own_kernel(folder: Path) -> None:
    """Writes a kernel named python3 that is the running interpreter, whatever kernels are registered elsewhere."""
    from ipykernel.kernelspec import get_kernel_dict

    spec = get_kernel_dict(["--log-level=50"])  # its notes on sockets and on shutting down tell a reader nothing
    write_text(folder / "kernels" / "python3" / "kernel.json", json.dumps(spec))


def _notebook_parameters(
    name: str, *, profile: str, data: str, seed: int, extra: Mapping[str, str]
) -> tuple[Path, dict[str, Any]]:
    notebook = notebook_path(name)
    known = parameters(notebook)
    given: dict[str, Any] = {"profile": check_profile(profile), "data": check_data(data), "seed": check_seed(seed)}
    for key, text in extra.items():
        if key not in known or key in REQUIRED:
            free = [k for k in known if k not in REQUIRED]
            raise InputError(
                f"{name}, parameter {key}",
                expected=f"one of the notebook's parameters: {', '.join(free) or '(it has no others)'}",
                found=repr(key),
                todo=suggest(key, free) if key not in REQUIRED else f"Use --{key}.",
            )
        given[key] = convert(f"{name}, parameter {key}", text, known[key])
    return notebook, given


def run_notebook(
    name: str, *, profile: str, data: str, seed: int, extra: Mapping[str, str] | None = None, out: Path
) -> Path:
    """Executes one notebook and leaves its executed copy, its artefacts and results.json in the folder `out`.

    The folder appears when everything is complete, in the place of an older one; a killed run leaves no trace in it. If
    a cell fails, the partly executed notebook is kept beside it, as `<out>.failed.ipynb`.

    Args:
        name: the notebook's name without suffix.
        profile: one of PROFILES.
        data: 'world' or the root folder of a data set.
        seed: a whole number >= 0.
        extra: further parameters of the notebook as texts, converted to the types of their defaults.
        out: the folder to write.

    Returns:
        The path of results.json.

    Raises:
        InputError: an unknown notebook, profile, data set or parameter, or a value of the wrong type.
        NotebookError: a cell failed, the kernel died, or the notebook never called `run.finish`.
    """
    notebook, given = _notebook_parameters(name, profile=profile, data=data, seed=seed, extra=extra or {})
    import nbclient.exceptions
    import papermill

    out = out.resolve()
    partial, failed = out.with_name(f".{out.name}.partial"), out.with_name(f"{out.name}.failed.ipynb")
    label = f"{name} seed {seed}"
    with locked(out.with_name(f".{out.name}.lock"), wait=True, busy=f"another process runs {label}"):
        shutil.rmtree(partial, ignore_errors=True)
        _own_kernel(partial / "jupyter")
        environment = {
            "UCVGL_PROFILE": None,  # the profile is a parameter here
            "UCVGL_RUN_FOLDER": str(partial),
            "JUPYTER_PATH": os.pathsep.join(filter(None, [str(partial / "jupyter"), os.environ.get("JUPYTER_PATH")])),
        }
        bar = {"desc": label, "mininterval": 0.5 if sys.stderr.isatty() else 5, "file": sys.stderr}
        executed = partial / "executed.ipynb"
        try:
            with _environment(environment):
                papermill.execute_notebook(notebook, executed, given, kernel_name="python3", progress_bar=bar)
            if not (partial / "results.json").is_file():
                raise NotebookError(f"{label}: ran to its end without run.finish(...), so it has no results.json")
        except papermill.PapermillExecutionError as error:
            raise NotebookError(f"{label}: {_failure(executed)}\n{_keep(executed, failed)}") from error
        except nbclient.exceptions.DeadKernelError as error:
            text = (
                "the kernel died: out of memory, most often (try PROFILE=tiny, or CORES=1 for one notebook at a time)"
            )
            raise NotebookError(f"{label}: {text}\n{_keep(executed, failed)}") from error
        shutil.rmtree(partial / "jupyter")
        replace_folder(partial, out)
        failed.unlink(missing_ok=True)
    return out / "results.json"


def _keep(executed: Path, failed: Path) -> str:
    if executed.exists():
        executed.replace(failed)
    shutil.rmtree(executed.parent, ignore_errors=True)
    return f"the partly executed notebook: {failed}"


def _failure(executed: Path) -> str:
    """Which cell of the source notebook failed, by number and first line, and why."""
    cells = [c for c in read_notebook(executed)["cells"] if "papermill-error-cell-tag" not in cell_tags(c)]
    ours = [c for c in cells if "injected-parameters" not in cell_tags(c)]
    for cell in cells:
        error = next((o for o in cell.get("outputs", []) if o.get("output_type") == "error"), None)
        if error is not None:
            place = f"cell {ours.index(cell) + 1} of {len(ours)}" if cell in ours else "the cell of given parameters"
            lines = [line for line in cell_source(cell).splitlines() if line.strip()] or [""]
            return f"{place} failed, the one that begins {lines[0]!r}\n  {error['ename']}: {error['evalue']}"
    return "stopped half-way"


# -------------------------------------------------------------------------------------------------------- all notebooks


@dataclass(frozen=True)
class Job:
    """One notebook with one seed, as the Snakefile sees it.

    Attributes:
        notebook: its name.
        seed: its seed.
        needs: the results.json of the runs it reads.
        fingerprint: what must stay the same for its results to hold.
        extra: further parameters, as `name=value`.
    """

    notebook: str
    seed: int
    needs: tuple[str, ...]
    fingerprint: str
    extra: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """Everything the Snakefile needs, read and checked.

    Attributes:
        profile: one of PROFILES.
        data: 'world' or an absolute path.
        data_id: that, as a short name.
        seeds: in the order given.
        notebooks: all names, in order.
        jobs: by notebook and seed.
        width: how many jobs can run side by side.
        last: the end of the chain of notebooks that takes longest; a job waits least if what leads there begins first.
        left_out: notebooks that are not for data of this layout.
    """

    profile: str
    data: str
    data_id: str
    seeds: tuple[int, ...]
    notebooks: tuple[str, ...]
    jobs: Mapping[tuple[str, int], Job]
    width: int
    last: str
    left_out: tuple[str, ...] = ()

    def run(self, notebook: str, seed: int) -> str:
        """The results.json of one job."""
        folder = run_folder(notebook, profile=self.profile, data=self.data, seed=seed)
        return str(folder / "results.json")

    def published(self, notebook: str) -> str:
        """The results.json of a notebook's merged results."""
        return str(figure_folder(notebook, profile=self.profile, data=self.data) / "results.json")


def _seeds(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[0-9]+", part) for part in parts) or len({int(p) for p in parts}) < len(parts):
        raise InputError(
            "seed",
            expected="different whole numbers >= 0, separated by commas",
            found=repr(text),
            todo="For example SEED=0,1,2.",
        )
    return tuple(int(part) for part in parts)


def _levels(edges: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """How many notebooks come before each one; InputError for an unknown name or a circle in `needs`."""
    levels: dict[str, int] = {}

    def level(name: str, above: tuple[str, ...]) -> int:
        if name not in edges or name in above:
            raise InputError(
                f"{above[-1]}.ipynb, metadata.ucvgl.needs",
                expected=f"notebooks that come before it, out of {', '.join(edges)}",
                found=repr(name),
                todo="Correct the list in the notebook's metadata.",
            )
        if name not in levels:
            levels[name] = 1 + max((level(n, (*above, name)) for n in edges[name]), default=-1)
        return levels[name]

    for name in edges:
        level(name, ())
    return levels


def plan(config: Mapping[str, Any]) -> Plan:
    """Reads and checks the settings and all notebooks, before anything runs.

    Args:
        config: `profile` (default 'laptop'), `data` ('world'), `seed` (comma list, '0'), `panorama` (a picture for the
            notebooks that have that parameter; default none), likewise `other`, `drone` (folders of data sets) and
            `backbone` (a name). An empty text means the default.

    Raises:
        InputError: an unknown key, profile or data set, a wrong seed, a missing picture, or a notebook that lacks one
            of the three parameters every notebook has.
    """
    for key in config:
        if key not in SETTINGS:
            raise InputError(
                "settings", expected=f"only {', '.join(SETTINGS)}", found=repr(key), todo=suggest(key, SETTINGS)
            )
    left_out: list[str] = []
    text = {key: str(value) for key, value in config.items() if value not in (None, "")}
    profile, data = check_profile(text.get("profile", "laptop")), check_data(text.get("data", WORLD))
    seeds = _seeds(text.get("seed", "0"))
    names = notebooks()
    if data != WORLD:
        from ucvgl.data import detect_layout  # takes seconds to import: torch

        layout, files = detect_layout(data), files_digest(data)
        left_out = [name for name in names if not fits(paths.notebooks() / f"{name}.ipynb", layout)]
        names = [name for name in names if name not in left_out]
    known = {name: parameters(paths.notebooks() / f"{name}.ipynb") for name in names}
    extra = {key: _given(key, text[key], known) for key in MORE if key in text}
    edges = {name: needs(paths.notebooks() / f"{name}.ipynb") for name in names}
    levels = _levels(edges)

    def fingerprint(name: str) -> str:  # of the notebook, of those it needs, and of the picture it is given
        own = [source_fingerprint(paths.notebooks() / f"{name}.ipynb"), *(fingerprint(n) for n in edges[name])]
        if data != WORLD:
            own.append(files)
        if "panorama" in extra and "panorama" in known[name]:
            own.append(hashlib.sha256(Path(extra["panorama"]).read_bytes()).hexdigest())
        return hashlib.sha256(json.dumps(own).encode()).hexdigest() if len(own) > 1 else own[0]

    jobs = {}
    for name in names:
        mark, given = fingerprint(name), tuple(f"{k}={v}" for k, v in extra.items() if k in known[name])
        for seed in seeds:
            above = (run_folder(n, profile=profile, data=data, seed=seed) / "results.json" for n in edges[name])
            jobs[name, seed] = Job(name, seed, tuple(map(str, above)), mark, given)
    lengths = {name: minutes(paths.notebooks() / f"{name}.ipynb") for name in names}

    def until(name: str) -> float:  # minutes from the start to its end, if nothing has to wait for a core
        return lengths[name] + max((until(n) for n in edges[name]), default=0.0)

    ranks = list(levels.values())
    width = max((ranks.count(rank) for rank in ranks), default=1) * len(seeds)
    last = max(names, key=until, default="")
    return Plan(profile, data, data_id(data), seeds, tuple(names), jobs, width, last, tuple(left_out))


def files_digest(root: str) -> str:
    """Changes with the name, the size or the time of any file below a data set's folder; links are followed, once."""
    digest, seen = hashlib.sha256(), set()
    for folder, folders, names in os.walk(root, followlinks=True):
        if os.path.realpath(folder) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(folder))
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            stat = path.stat() if path.exists() else None
            digest.update(f"{path} {stat and (stat.st_size, stat.st_mtime_ns)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _given(key: str, text: str, known: Mapping[str, Mapping[str, Any]]) -> str:
    """A parameter that some notebooks have, checked; paths are made absolute."""
    if not any(key in names for names in known.values()):
        raise InputError(key, expected="a notebook with that parameter", found="none", todo=f"Leave {key.upper()} out.")
    if key == "backbone":
        return text
    path = Path(text).expanduser().resolve()
    what, there = ("a picture file", path.is_file()) if key == "panorama" else ("a folder", path.is_dir())
    if not there:
        raise InputError(key, expected=what, found=repr(text), todo="Check the spelling of the path.")
    return str(path)


def threads(cores: int | None, width: int, *, alone: bool) -> int:
    """CPU threads for each job: the machine's cores shared by the jobs that can run side by side.

    Trainings share them, too: two of one thread get more done than one of two threads after the other, since small
    networks leave a second thread idle for about half of the time (benchmarks/results/reproduce.md).

    Args:
        cores: what Snakemake may use here; None on a cluster.
        width: how many jobs can run side by side.
        alone: the job takes turns with the others on the GPU, so it gets all cores.
    """
    if not cores:
        return CLUSTER_THREADS
    return cores if alone else max(1, cores // max(1, min(width, cores)))


def has_gpu() -> bool:
    """Whether `nvidia-smi` is found: the Makefile's test for faiss-gpu, and the Snakefile's for jobs taking turns."""
    return shutil.which("nvidia-smi") is not None


def reproduce(
    *,
    profile: str,
    data: str,
    seed: str,
    given: Mapping[str, str] | None = None,
    cores: str = "all",
    more: Sequence[str] = (),
) -> int:
    """Regenerates every table and figure that is not up to date, through Snakemake.

    Args:
        profile: one of PROFILES.
        data: 'world' or the root folder of a data set.
        seed: one or several, separated by commas.
        given: parameters of the notebooks that have them, by name (MORE); '' for none.
        cores: a number, or 'all'.
        more: further arguments for Snakemake, as `--executor slurm --jobs 20`.

    Returns:
        Snakemake's exit status: 0 if everything is now up to date.

    Raises:
        InputError: bad settings, or another `reproduce` at work in the same folder.
    """
    config = {"profile": profile, "data": check_data(data), "seed": seed, **(given or {})}
    for key in {"panorama", "other", "drone"} & config.keys():
        if config[key]:
            config[key] = str(Path(config[key]).expanduser().resolve())
    todo = plan(config)
    if cores != "all" and not re.fullmatch(r"[1-9][0-9]*", cores):
        raise InputError("cores", expected="a number >= 1, or 'all'", found=repr(cores), todo="For example CORES=2.")
    if todo.left_out:
        sys.stderr.write(f"not for data of this layout, left out: {', '.join(todo.left_out)}\n")
    folder = paths.runs()
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(paths.ROOT / "Snakefile")]
    command += ["--directory", str(folder), "--rerun-incomplete", "--rerun-triggers", "code", "input", "params"]
    command += ["--keep-going"]  # a notebook that fails stops those that need it, not the others
    command += ["--nolock"]  # a lock file would outlive a killed run; the lock below ends with its process
    command += ["--quiet", "host", "reason", "rules"]
    if not {"--executor", "-e"} & set(more):  # a cluster takes --jobs instead, and knows its own GPUs
        command += ["--cores", cores, *(["--resources", "gpu=1"] if has_gpu() else [])]
        if todo.last:
            command += ["--prioritize", *(todo.run(todo.last, seed) for seed in todo.seeds)]
    command += ["--config", *(f"{key}={value}" for key, value in config.items()), *more]
    begun = time.time()
    with locked(folder / ".reproduce.lock", wait=False, busy="another `make reproduce`") as lock:
        before = _marks(todo)
        child = subprocess.Popen(command, pass_fds=[lock.fileno()])
        before_us = signal.signal(signal.SIGTERM, lambda *_: child.terminate())  # it lets running jobs end
        while True:
            try:
                status = child.wait()
                break
            except KeyboardInterrupt:  # the terminal has told Snakemake and its jobs as well: let them end
                continue
        signal.signal(signal.SIGTERM, before_us)
        made = sum(before[path] != mark for path, mark in _marks(todo).items())
    seconds = time.time() - begun
    if {"-n", "--dry-run", "--dryrun"} & set(more):
        return status
    if status == 0:
        write_scorecard(_figure_root(todo))
        what = f"{made} of {len(before)} were renewed" if made else "everything was up to date, nothing was run"
        sys.stderr.write(f"{what} ({seconds:.0f} s); tables and figures: {_figure_root(todo)}\n")
    else:
        for notebook, seed in todo.jobs:
            failed = run_folder(f"{notebook}.failed.ipynb", profile=todo.profile, data=todo.data, seed=seed)
            if failed.is_file() and failed.stat().st_mtime >= begun:
                sys.stderr.write(f"\n{notebook} seed {seed}: {_failure(failed)}\n  in {failed}\n\n")
        sys.stderr.write(f"stopped after {seconds:.0f} s; what is finished is kept, the next call goes on from there\n")
    return status


def _figure_root(todo: Plan) -> Path:
    return figure_folder("x", profile=todo.profile, data=todo.data).parent


def _marks(todo: Plan) -> dict[str, int | None]:
    """The time stamps of all results, to tell afterwards which were made."""
    results = [todo.run(*key) for key in todo.jobs] + [todo.published(name) for name in todo.notebooks]
    return {path: Path(path).stat().st_mtime_ns if Path(path).exists() else None for path in results}


# ----------------------------------------------------------------------------------------------- outputs for the reader


def refresh_outputs(executed: Path, source: Path) -> None:
    """Copies the outputs of an executed notebook into the committed one, without what changes from run to run.

    Left out: papermill's notes and its cell, timings, the state of widgets, progress bars, and the folder this checkout
    lies in. Sources and metadata of the committed notebook stay as they are.

    Raises:
        InputError: the cells of the two differ: the notebook was edited since.
    """
    import nbformat

    notebook = nbformat.read(source, as_version=4)
    done = [c for c in nbformat.read(executed, as_version=4).cells if "injected-parameters" not in cell_tags(c)]
    if [(c.cell_type, c.source) for c in done] != [(c.cell_type, c.source) for c in notebook.cells]:
        raise InputError(
            source.name, expected="the cells that were executed", found="others", todo="Run `make reproduce` first."
        )
    count = 0
    for old, new in zip(notebook.cells, done, strict=True):
        if old.cell_type != "code":
            continue
        count += bool(new.source.strip())
        old.execution_count = count if new.source.strip() else None
        old.outputs = [kept for output in new.outputs if (kept := _clean(output, count)) is not None]
        for key in ("papermill", "execution", "ExecuteTime"):
            old.metadata.pop(key, None)
    for key in ("papermill", "widgets"):
        notebook.metadata.pop(key, None)
    write_text(source, nbformat.writes(notebook) + "\n")


def _clean(output: Any, count: int) -> Any:
    """One output as it is committed; None for progress bars and widgets, which are nothing without their kernel."""
    if output.output_type == "stream":
        text = "\n".join(line for line in output.text.split("\n") if "\r" not in line and "it/s]" not in line)
        if output.name == "stderr" and not text.strip():
            return None
        output.text = _without_root(text)
    data = output.get("data", {})
    if "application/vnd.jupyter.widget-view+json" in data:
        return None
    for kind, text in data.items():
        if kind.startswith("text/") and isinstance(text, str):
            data[kind] = _without_root(text)
    if "execution_count" in output:
        output.execution_count = count
    return output


def _without_root(text: str) -> str:
    return text.replace(f"{paths.ROOT}/", "").replace(str(paths.ROOT), ".")


def refresh_notebooks() -> int:
    """Renews what is committed: outputs in the notebooks (laptop, embedded world, seed 0), the scorecard in README.md.

    Returns:
        The exit status of `reproduce`; the notebooks stay untouched unless it is 0.
    """
    status = reproduce(profile=PROFILES[1], data=WORLD, seed="0")
    if status == 0:
        for name in notebooks():
            folder = run_folder(name, profile=PROFILES[1], data=WORLD, seed=0)
            refresh_outputs(folder / "executed.ipynb", paths.notebooks() / f"{name}.ipynb")
        card, readme = paths.figures() / PROFILES[1] / "scorecard.md", paths.figures().parent / "README.md"
        if card.is_file() and readme.is_file():
            text = readme.read_text(encoding="utf-8")
            write_text(readme, readme_block(text, card.read_text(encoding="utf-8").strip()))
    return status
