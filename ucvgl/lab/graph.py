"""The graph of `make reproduce`: a job for each stage of the rows, then one for each notebook, which finds all in the cache.

`plan` reads and checks everything the Snakefile needs before anything runs; `dry_run` says what it is.
"""

import csv
import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ucvgl import paths
from ucvgl.errors import InputError
from ucvgl.lab.settings import WORLD, RunRequest
from ucvgl.lab.sources import find_notebook, notebooks, package_digest
from ucvgl.paths import write_json

CLUSTER_THREADS = 4  # for each job where Snakemake is told no cores: an executor plugin with --jobs
# A shorter stage is left to whatever needs it: that a process begins and loads torch and timm takes half of this.
JOB_SECONDS = 20.0
# images a second by what is done with them; benchmarks/rates.py measures them
RATES = Path(__file__).with_name("rates.csv")


@dataclass(frozen=True)
class StageJob:
    """A stage as the Snakefile sees it."""

    key: str  # of `lab.rows.Stage`
    seed: int  # of the first row that needs it
    seconds: float | None  # the estimate; None where no rate is known
    needs: tuple[str, ...]  # keys of the jobs it waits for
    is_job: bool  # whether it is worth a job of its own
    priority: int  # milliseconds, about, from its beginning to the end of the longest chain that waits for it
    images: int = 0  # that go through an encoder, or are rendered, about
    steps: int = 0  # of the optimiser, about


@dataclass(frozen=True)
class NotebookJob:
    """A notebook with one seed, as the Snakefile sees it."""

    name: str
    seed: int
    stages: tuple[str, ...]  # keys of the stages that its rows need
    fingerprint: str  # what must stay the same for its results to hold


@dataclass(frozen=True)
class Plan:
    """Everything the Snakefile needs, read and checked."""

    asked: RunRequest
    row_names: Mapping[str, tuple[str, ...]]  # of every row, with the key of its stage for each seed
    stages: tuple[StageJob, ...]  # each after those it needs
    notebooks: tuple[NotebookJob, ...]  # a job a notebook and seed
    left_out: tuple[str, ...] = ()  # notebooks that are not for data of this layout

    @property
    def names(self) -> list[str]:
        """Of the notebooks, in order."""
        return list(dict.fromkeys(job.name for job in self.notebooks))

    def run(self, notebook: str, seed: int) -> str:
        """The results.json of one notebook."""
        return str(self.asked.run_folder(notebook, seed) / "results.json")

    def published(self, notebook: str) -> str:
        """The results.json of a notebook's merged results."""
        return str(self.asked.figure_folder(notebook) / "results.json")


def marker(key: str) -> Path:
    """The file that a stage's job leaves when the run cache has the stage."""
    return paths.runs() / "stages" / f"{key}.json"


def has_gpu() -> bool:
    """Whether `nvidia-smi` is found: the Makefile's test for faiss-gpu, and the Snakefile's for jobs taking turns."""
    return shutil.which("nvidia-smi") is not None


def threads(cores: int | None, width: int, *, alone: bool) -> int:
    """CPU threads for each of `width` jobs that can run side by side on `cores`, which are None on a cluster.

    Trainings share them, too: two of one thread get more done than one of two threads after the other, since small networks
    leave a second thread idle for about half of the time (benchmarks/results/reproduce.md). A job that is `alone`, as it takes
    turns with the others on the GPU, gets all cores.
    """
    if not cores:
        return CLUSTER_THREADS
    return cores if alone else max(1, cores // max(1, min(width, cores)))


# ------------------------------------------------------------------------------------------------------------------- plan


def plan(asked: RunRequest, job_seconds: float = JOB_SECONDS) -> Plan:
    """Reads and checks the notebooks and their rows, before anything runs.

    job_seconds: a shorter stage is no job of its own. InputError: none of the notebooks takes what is given, or one lacks one
    of the three parameters every notebook has.
    """
    found, left_out = {name: find_notebook(name) for name in notebooks()}, []
    if asked.data != WORLD:
        from ucvgl.data import detect_layout  # takes seconds to load: torch

        layout = detect_layout(asked.data)
        left_out = [name for name, book in found.items() if book.layouts and layout not in book.layouts]
        found = {name: book for name, book in found.items() if name not in left_out}
    given = {name: asked.further(book.parameters) for name, book in found.items()}
    for key in ("panorama", "other", "drone", "backbone"):
        if getattr(asked, key) and not any(key in further for further in given.values()):
            expected = "a notebook with that parameter"
            raise InputError(key, expected=expected, found="none", todo=f"Leave {key.upper()} out.")
    files = "" if asked.data == WORLD else paths.files_digest(asked.data)
    picture = _digest(Path(asked.panorama)) if asked.panorama else ""

    row_names: dict[str, tuple[str, ...]] = {}
    stages: dict[str, StageJob] = {}
    of_notebook: dict[tuple[str, int], tuple[str, ...]] = {}
    starts = tuple(start for book in found.values() for start in book.rows)
    if starts:
        from ucvgl.lab import rows as lab_rows  # takes seconds to load: torch

        # a process of its own would take longer than a few steps
        shortest = math.inf if asked.rows == "smoke" else job_seconds
        for seed in asked.seeds:
            shown = {
                row: stage for row, stage in lab_rows.rows(asked, seed, measured=True).items() if row.startswith(starts)
            }
            for row, stage in shown.items():
                row_names[row] = (*row_names.get(row, ()), stage.key)
                _add_jobs(stages, lab_rows.all_stages([stage]), seed, shortest)
            for name, book in found.items():
                own = [stage for row, stage in shown.items() if row.startswith(book.rows)]
                of_notebook[name, seed] = tuple(lab_rows.all_stages(own))
    jobs = []
    for name, book in found.items():
        depends_on = [book.fingerprint(), files, asked.rows, given[name], picture if "panorama" in given[name] else ""]
        fingerprint = hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()
        jobs += [NotebookJob(name, seed, of_notebook.get((name, seed), ()), fingerprint) for seed in asked.seeds]
    return Plan(asked, row_names, _prioritised(stages), tuple(jobs), tuple(left_out))


def _add_jobs(jobs: dict[str, StageJob], stages: Mapping[str, Any], seed: int, shortest: float) -> None:
    """Adds the stages that are not among the jobs yet."""
    rates, _ = _rates()
    for key, stage in stages.items():
        if key in jobs:
            continue
        seconds = stage.passes / rates[stage.work] if stage.work in rates else None if stage.work else 0.0
        needs: dict[str, None] = {}
        for need in stage.needs:  # what is no job is computed by those that need it, which then wait for what it needs
            job = jobs[need.key]
            needs |= dict.fromkeys([need.key] if job.is_job else job.needs)
        worth = shortest < math.inf and (seconds is None or seconds >= shortest)
        jobs[key] = StageJob(key, seed, seconds, tuple(needs), worth, 0, stage.passes, stage.steps)


def _prioritised(stages: Mapping[str, StageJob]) -> tuple[StageJob, ...]:
    """What the longest chains wait for comes first."""
    until: dict[str, float] = {}
    for key, job in reversed(stages.items()):
        until[key] = until.get(key, 0.0) + (3600.0 if job.seconds is None else job.seconds)
        for need in job.needs:
            until[need] = max(until.get(need, 0.0), until[key])
    return tuple(replace(job, priority=int(1000 * until[key])) for key, job in stages.items())


def _rates() -> tuple[dict[str, float], str]:
    """Images a second by work, of the GPU that was measured where there is one, else of a CPU's core; and which that was."""
    with RATES.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["device"].startswith("CPU") != has_gpu()]
    devices = ", ".join(sorted({row["device"] for row in rows})) or "no such device"
    return {row["work"]: float(row["images_per_second"]) for row in rows}, devices


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def kept_plan(asked: RunRequest, job_seconds: float = JOB_SECONDS) -> tuple[Plan, Path]:
    """The plan and the file that holds it for the Snakefile; from that file if nothing has changed since. InputError: as `plan`."""
    files = [RATES, *sorted(paths.notebooks().glob("*.ipynb")), *([Path(asked.panorama)] if asked.panorama else [])]
    folders = {asked.data, asked.other, asked.drone} - {WORLD, ""}
    depends_on = [asdict(asked), job_seconds, package_digest(), has_gpu(), [[str(f), _digest(f)] for f in files],
                  [[folder, paths.files_digest(folder)] for folder in sorted(folders)]]  # fmt: skip
    name = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]
    path = paths.runs() / "plans" / f"{name}.json"
    try:
        return read_plan(path), path
    except (OSError, ValueError, TypeError, KeyError):  # not there, or damaged
        write_json(path, asdict(plan(asked, job_seconds)))
        return read_plan(path), path


def read_plan(path: Path) -> Plan:
    """A plan from its file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    kinds = {"stages": StageJob, "notebooks": NotebookJob}
    jobs = {name: tuple(kind(**job) for job in content[name]) for name, kind in kinds.items()}
    return Plan(**content | jobs | {"asked": RunRequest(**content["asked"])})


# ---------------------------------------------------------------------------------------------------------------- dry run


def dry_run(found: Plan, cores: int, file: Path) -> str:
    """What `reproduce` would do: each row with its stage, whether the cache has it, and estimates of work, memory and time.

    file: of the kept plan; what was counted of the memory is kept beside it.
    """
    jobs, memory = {job.key: job for job in found.stages}, _memory(found, file.with_suffix(".memory.json"))
    asked = found.asked
    lines = [f"profile {asked.profile}, data {asked.data}, seeds {', '.join(map(str, asked.seeds))}, rows: {asked.rows}", "",
             f"{'row':<36} {'stage':<34} {'cached':>7} {'images':>11} {'steps':>8} {'GiB':>6} {'minutes':>8}"]  # fmt: skip
    for name, keys in found.row_names.items():
        seconds, done = [jobs[key].seconds for key in keys], sum(marker(key).is_file() for key in keys)
        minutes = "?" if None in seconds else f"{sum(seconds) / 60:.1f}"
        work = f"{sum(jobs[key].images for key in keys):>11,} {sum(jobs[key].steps for key in keys):>8,}"
        lines.append(
            f"{name:<36} {keys[0]:<34} {f'{done}/{len(keys)}':>7} {work} {memory.get(name, ''):>6} {minutes:>8}"
        )
    todo = [job for job in found.stages if not marker(job.key).is_file()]
    unknown = sum(job.seconds is None for job in todo)
    lanes = 1 if has_gpu() else max(1, cores)
    hours = sum(job.seconds or 0.0 for job in todo) / 3600 / lanes
    lines += ["", f"{len(found.row_names)} rows of {len(found.notebooks)} notebooks need {len(found.stages)} stages; "
              f"{len(found.stages) - len(todo)} are in the cache",
              f"to compute: {len(todo)} stages, about {hours:.1f} hours, {lanes} side by side"
              + (f", and {unknown} whose rate was never measured on such a device" if unknown else ""),
              f"(images a second measured on {_rates()[1]}; shared stages count once; GiB: at the peak of a step, by "
              "torch's count, without what kernels take for themselves)"]  # fmt: skip
    return "\n".join(lines)


def _memory(found: Plan, kept: Path) -> dict[str, str]:
    """GiB at the peak of a training step, of each row's stage or of one that it needs, about; kept in a file."""
    if not found.row_names:
        return {}
    with suppress(OSError, ValueError):
        return json.loads(kept.read_text(encoding="utf-8"))
    from ucvgl.lab import rows  # these take seconds to load: torch
    from ucvgl.lab.memory import step_of

    held: dict[str, str] = {}
    for row, last in rows.rows(found.asked, found.asked.seeds[0], measured=True).items():
        steps = (step_of(stage.name, stage.settings[0]) for stage in rows.all_stages([last]).values())
        peaks = [step.peak for step in steps if step is not None]
        held[row] = f"{max(peaks) / 2**30:.1f}" if peaks else ""
    write_json(kept, held)
    return held
