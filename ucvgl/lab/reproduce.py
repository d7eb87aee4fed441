"""`make reproduce`: the plan passed to Snakemake, and the message at its end."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from ucvgl import paths
from ucvgl.errors import InputError
from ucvgl.lab.graph import Plan, dry_run, has_gpu, kept_plan, marker
from ucvgl.lab.runner import failure
from ucvgl.lab.settings import RunRequest


def reproduce(
    asked: RunRequest, *, stage_jobs: bool | None = None, cores: str = "all", dry: bool = False, more: Sequence[str] = ()
) -> int:  # fmt: skip
    """Regenerates every table and figure that is not up to date, through Snakemake, whose exit status it gives.

    stage_jobs: as of `plan`. cores: a number, or 'all'. dry: only say what would be done. more: further arguments for
    Snakemake, as `--executor slurm --jobs 20`. InputError: bad settings.
    """
    if cores != "all" and not re.fullmatch(r"[1-9][0-9]*", cores):
        raise InputError("cores", expected="a number >= 1, or 'all'", found=repr(cores), todo="For example CORES=2.")
    if asked.rows == "smoke":
        os.environ["UCVGL_ROWS"] = "smoke"  # for the profiles, in the plan as in all jobs
    todo, path = kept_plan(asked, stage_jobs)
    if todo.left_out:
        sys.stderr.write(f"not for data of this layout, left out: {', '.join(todo.left_out)}\n")
    if dry:
        sys.stdout.write(dry_run(todo, os.cpu_count() or 1 if cores == "all" else int(cores)) + "\n")
        return 0
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(paths.ROOT / "Snakefile")]
    command += ["--directory", str(paths.runs()), "--rerun-incomplete", "--rerun-triggers", "code", "input", "params"]
    command += ["--keep-going"]  # a job that fails stops those that need it, not the others
    command += ["--nolock"]  # Snakemake's own outlives a killed run; the Snakefile holds one that ends with its process
    command += ["--quiet", "host", "reason", "rules"]
    if not {"--executor", "-e"} & set(more):  # a cluster takes --jobs instead, and knows its own GPUs
        command += ["--cores", cores, *(["--resources", "gpu=1"] if has_gpu() else [])]
    begun = time.time()
    status = _until_it_ends([*command, "--config", f"plan={path}", *more])
    seconds = time.time() - begun
    if {"-n", "--dry-run", "--dryrun"} & set(more):
        return status
    if status == 0:
        from ucvgl.lab.score import write_scorecard  # pandas takes seconds to load

        root = asked.figure_folder("x").parent
        write_scorecard(root)
        made = [name for name in todo.names if (root / name / "results.json").stat().st_mtime >= begun]
        what = f"renewed: {', '.join(made)}" if made else "everything was up to date, nothing was run"
        sys.stderr.write(f"{what} ({seconds:.0f} s); tables and figures: {root}\n")
    else:
        sys.stderr.write("".join(_missing(todo, begun)))
        sys.stderr.write(f"stopped after {seconds:.0f} s; what is finished is kept, the next call goes on from there\n")
    return status


def _until_it_ends(command: Sequence[str]) -> int:
    """The exit status of a command; it hears of SIGTERM, and of Ctrl-C from the terminal, and lets its running jobs end."""
    child = subprocess.Popen(command)
    before = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    while True:
        try:
            status = child.wait()
            break
        except KeyboardInterrupt:
            continue
    signal.signal(signal.SIGTERM, before)
    return status


def _missing(todo: Plan, begun: float) -> Iterator[str]:
    """What stands in the way of each notebook that was not run: a cell, or rows."""
    rows = {key: name for name, keys in reversed(todo.rows.items()) for key in keys}
    for job in todo.notebooks:
        failed = todo.asked.run_folder(f"{job.name}.failed.ipynb", job.seed)
        missing = [rows.get(key, key) for key in job.stages if todo.stage_jobs and not marker(key).is_file()]
        if failed.is_file() and failed.stat().st_mtime >= begun:
            yield f"\n{job.name} seed {job.seed}: {failure(failed)}\n  in {failed}\n\n"
        elif missing:
            yield f"\n{job.name} seed {job.seed}: not run, these of its rows are missing: {', '.join(missing)}\n\n"
