"""`make reproduce`: a job for each stage of the rows, then one for each notebook, which finds all in the cache."""

import csv
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ucvgl import paths
from ucvgl.errors import InputError
from ucvgl.lab.settings import FURTHER, WORLD, RunRequest, marker
from ucvgl.lab.sources import failure, find_notebook, notebooks, package_digest
from ucvgl.paths import write_json

RATES = Path(__file__).with_name("rates.csv")  # images a second by kind of work; benchmarks/rates.py measures them
SNAKEMAKE = [
    sys.executable, "-m", "snakemake", "--snakefile", str(paths.ROOT / "Snakefile"), "--rerun-incomplete",
    "--rerun-triggers", "code", "input", "params", "--quiet", "host", "reason", "rules",
    "--keep-going",  # a job that fails stops those that need it, not the others
    "--nolock",  # Snakemake's own outlives a killed run; the Snakefile holds one that ends with its process
]  # fmt: skip


@dataclass(frozen=True)
class StageJob:
    """A stage as the Snakefile sees it, with estimates of what it costs; the keys are those of `lab.rows.Stage`."""

    key: str
    seed: int  # of the first row that needs it
    needs: list[str]  # keys of the stages it waits for
    images: int  # that go through an encoder, or are rendered
    steps: int  # of the optimiser
    seconds: float | None  # None where no rate is known
    memory: int  # bytes at the peak of a step, of its own or of a stage that it needs; 0 where none trains
    disk: int  # bytes it leaves in the run folder


@dataclass(frozen=True)
class Plan:
    """Everything the Snakefile needs, read and checked."""

    asked: RunRequest
    rows: dict[str, list[str]]  # of every row, the key of its stage for each seed
    stages: list[StageJob]  # each after those it needs
    stage_jobs: bool  # whether stages are jobs; else the notebooks compute them
    notebooks: dict[str, list[str]]  # the names of the rows that each shows; of each a job for each seed
    fingerprints: dict[str, str]  # of each notebook, what must stay the same for its results to hold
    left_out: list[str]  # notebooks that are not for data of this layout

    def keys(self, notebook: str, seed: int) -> list[str]:
        """The stages that the rows of a notebook show."""
        return [self.rows[row][self.asked.seeds.index(seed)] for row in self.notebooks[notebook]]


def has_gpu() -> bool:
    """Whether `nvidia-smi` is found: the Makefile's test for faiss-gpu, and the Snakefile's for jobs taking turns."""
    return shutil.which("nvidia-smi") is not None


def plan(asked: RunRequest, stage_jobs: bool | None = None) -> Plan:
    """Reads and checks the notebooks and their rows, before anything runs.

    stage_jobs: whether each stage is a job of its own; None: but for the tiny profile and ROWS=smoke, whose stages take less time
    than a process that loads torch. InputError: no notebook takes what is given, or one lacks a parameter that every one has."""
    found, left_out = {name: find_notebook(name) for name in notebooks()}, []
    if asked.data != WORLD:
        from ucvgl.data import detect_layout  # takes seconds to load: torch

        layout = detect_layout(asked.data)
        left_out = [name for name, book in found.items() if book.layouts and layout not in book.layouts]
        found = {name: book for name, book in found.items() if name not in left_out}
    given = {name: asked.further(book.parameters) for name, book in found.items()}
    for key in asked.further(FURTHER).keys() - {key for further in given.values() for key in further}:
        raise InputError(key, "a notebook with that parameter", "none", f"Leave {key.upper()} out.")
    starts = tuple(start for book in found.values() for start in book.rows)
    rows, stages, rates = {}, {}, _rates()[0]
    for seed in asked.seeds if starts else ():
        from ucvgl.lab import rows as lab_rows  # takes seconds to load: torch
        from ucvgl.lab import train

        every = lab_rows.rows(asked, seed, measured=True)
        shown = {row: stage for row, stage in every.items() if row.startswith(starts)}
        rows |= {row: [*rows.get(row, ()), stage.key] for row, stage in shown.items()}
        for key, stage in lab_rows.all_stages(shown.values()).items():
            costs, needs = train.cost_of(stage), [need.key for need in stage.needs]
            rate = rates.get(costs.work)
            seconds = 0.0 if not costs.work else costs.images / rate if rate else None
            memory = max([costs.memory, *(stages[need].memory for need in needs)])
            job = StageJob(key, seed, needs, costs.images, costs.steps, seconds, memory, costs.disk)
            stages.setdefault(key, job)
    files = "" if asked.data == WORLD else paths.files_digest(asked.data)
    shows, fingerprints = {}, {}
    for name, book in found.items():
        depends_on = [book.fingerprint(), files, asked.rows, given[name], _digest(given[name].get("panorama"))]
        shows[name], fingerprints[name] = [row for row in rows if row.startswith(book.rows)], _hash(depends_on)
    if stage_jobs is None:
        stage_jobs = asked.profile != "tiny" and asked.rows != "smoke"
    return Plan(asked, rows, [*stages.values()], stage_jobs, shows, fingerprints, left_out)


def _rates() -> tuple[dict[str, float], str]:
    """Images a second by work, of the GPU that was measured where there is one, else of a CPU's core; and which that was."""
    with RATES.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["device"].startswith("CPU") != has_gpu()]
    devices = ", ".join(sorted({row["device"] for row in rows})) or "no such device"
    return {row["work"]: float(row["images_per_second"]) for row in rows}, devices


def _digest(picture: str | None) -> str:
    return hashlib.sha256(Path(picture).read_bytes()).hexdigest() if picture else ""


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def kept_plan(asked: RunRequest, stage_jobs: bool | None = None) -> tuple[Plan, Path]:
    """The plan and the file that holds it for the Snakefile; from that file if nothing has changed since. InputError: as `plan`."""
    folders = [str(paths.notebooks()), *sorted({asked.data, asked.other, asked.drone} - {WORLD, ""})]
    depends_on = [asdict(asked), stage_jobs, has_gpu(), package_digest(), RATES.read_text(), _digest(asked.panorama),
                  str(paths.samples()), [paths.files_digest(folder) for folder in folders]]  # fmt: skip
    path = paths.runs() / "plans" / f"{_hash(depends_on)[:16]}.json"
    if asked.rows == "smoke":
        os.environ["UCVGL_ROWS"] = "smoke"  # for the profiles, in the plan as in all jobs
    try:
        return read_plan(path), path
    except (OSError, ValueError, TypeError, KeyError):  # not there, or damaged
        write_json(path, asdict(plan(asked, stage_jobs)))
        return read_plan(path), path


def read_plan(path: Path) -> Plan:
    """A plan from its file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    stages = [StageJob(**job) for job in content["stages"]]
    return Plan(**content | {"asked": RunRequest(**content["asked"]), "stages": stages})


def dry_run(found: Plan, cores: int) -> str:
    """What `reproduce` would do: each row with its stage, how many seeds the cache has, and estimates of what one seed costs."""
    from jinja2 import Template

    jobs = {job.key: job for job in found.stages}
    cached = [key for key in jobs if marker(key).is_file()]
    seeds = {name: f"{sum(key in cached for key in keys)}/{len(keys)}" for name, keys in found.rows.items()}
    rows = [(name, jobs[keys[0]], seeds[name]) for name, keys in found.rows.items()]
    todo, lanes = [job for job in found.stages if job.key not in cached], 1 if has_gpu() else max(1, cores)
    hours = sum(job.seconds or 0.0 for job in todo) / 3600 / lanes
    text = Template(Path(__file__).with_name("dry_run.txt.j2").read_text(encoding="utf-8"), trim_blocks=True)
    return text.render(plan=found, rows=rows, todo=todo, lanes=lanes, hours=hours, devices=_rates()[1])


def reproduce(
    asked: RunRequest, *, stage_jobs: bool | None = None, cores: str = "all", dry: bool = False, more: Sequence[str] = ()
) -> int:  # fmt: skip
    """Regenerates every table and figure that is not up to date, through Snakemake, whose exit status it gives.

    stage_jobs: as of `plan`. cores: a number, or 'all'. dry: only say what would be done. more: further arguments for
    Snakemake, as `--executor slurm --jobs 20`. InputError: bad settings."""
    if cores != "all" and not re.fullmatch(r"[1-9][0-9]*", cores):
        raise InputError("cores", "a number >= 1, or 'all'", repr(cores), "For example CORES=2.")
    todo, path = kept_plan(asked, stage_jobs)
    if todo.left_out:
        sys.stderr.write(f"not for data of this layout, left out: {', '.join(todo.left_out)}\n")
    if dry:
        sys.stdout.write(dry_run(todo, os.cpu_count() or 1 if cores == "all" else int(cores)) + "\n")
        return 0
    command = [*SNAKEMAKE, "--directory", str(paths.runs()), "--config", f"plan={path}"]
    if not {"--executor", "-e"} & set(more):  # a cluster takes --jobs instead, and knows its own GPUs
        command += ["--cores", cores, *(["--resources", "gpu=1"] if has_gpu() else [])]
    begun = time.time()
    status = _until_it_ends([*command, *more])
    if {"-n", "--dry-run", "--dryrun"} & set(more):
        return status
    took = f"{time.time() - begun:.0f} s"
    if status:
        sys.stderr.write("".join(_missing(todo, begun)))
        sys.stderr.write(f"stopped after {took}; what is finished is kept, the next call goes on from there\n")
        return status
    from ucvgl.lab.published import write_scorecard  # pandas takes seconds to load

    root = asked.figure_folder("x").parent
    write_scorecard(root)
    made = [name for name in todo.notebooks if (root / name / "results.json").stat().st_mtime >= begun]
    what = f"renewed: {', '.join(made)}" if made else "everything was up to date, nothing was run"
    sys.stderr.write(f"{what} ({took}); tables and figures: {root}\n")
    return 0


def _until_it_ends(command: Sequence[str]) -> int:
    """The exit status of a command; it hears of SIGTERM, and of Ctrl-C from the terminal, and lets its running jobs end."""
    child = subprocess.Popen(command)
    before = signal.signal(signal.SIGTERM, lambda *_: child.terminate()), signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = child.wait()
    signal.signal(signal.SIGTERM, before[0])
    signal.signal(signal.SIGINT, before[1])
    return status


def _missing(todo: Plan, begun: float) -> Iterator[str]:
    """What stands in the way of each notebook that was not run: a cell, or rows."""
    for name, seed in itertools.product(todo.notebooks, todo.asked.seeds):
        failed, label = todo.asked.run_folder(f"{name}.failed.ipynb", seed), f"\n{name} seed {seed}: "
        keys = zip(todo.notebooks[name], todo.keys(name, seed), strict=True)
        missing = [row for row, key in keys if todo.stage_jobs and not marker(key).is_file()]
        if failed.is_file() and failed.stat().st_mtime >= begun:
            yield f"{label}{failure(failed)}\n  in {failed}\n\n"
        elif missing:
            yield f"{label}not run, these of its rows are missing: {', '.join(missing)}\n\n"
