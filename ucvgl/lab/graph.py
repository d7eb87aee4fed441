"""The graph of `make reproduce`: a job for each stage of the rows, then one for each notebook, which finds all in the cache.

`plan` reads and checks everything the Snakefile needs before anything runs; `dry_run` says what it is.
"""

import csv
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ucvgl import paths
from ucvgl.errors import InputError
from ucvgl.lab.settings import WORLD, RunRequest
from ucvgl.lab.sources import find_notebook, notebooks, package_digest
from ucvgl.paths import write_json

if TYPE_CHECKING:
    from ucvgl.lab.rows import Stage

CLUSTER_THREADS = 4  # for each job where Snakemake is told no cores: an executor plugin with --jobs
# images a second by what is done with them; benchmarks/rates.py measures them
RATES = Path(__file__).with_name("rates.csv")


@dataclass(frozen=True)
class StageJob:
    """A stage as the Snakefile sees it, with estimates of what it costs; the keys are those of `lab.rows.Stage`."""

    key: str
    seed: int  # of the first row that needs it
    needs: tuple[str, ...]  # keys of the stages it waits for
    images: int  # that go through an encoder, or are rendered
    steps: int  # of the optimiser
    seconds: float | None  # None where no rate is known
    memory: int  # bytes at the peak of a step, of its own or of a stage that it needs; 0 where none trains
    disk: int  # bytes it leaves in the run folder


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
    rows: dict[str, tuple[str, ...]]  # of every row, the key of its stage for each seed
    stages: tuple[StageJob, ...]  # each after those it needs
    stage_jobs: bool  # whether stages are jobs; else the notebooks compute them
    notebooks: tuple[NotebookJob, ...]  # a job a notebook and seed
    left_out: tuple[str, ...]  # notebooks that are not for data of this layout

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
    """CPU threads for each of `width` jobs side by side on `cores`, which are None on a cluster; all for a job that is `alone`.

    Two trainings of one thread get more done than one of two threads after the other, since small networks leave a second
    thread idle for about half of the time (benchmarks/results/reproduce.md).
    """
    if not cores:
        return CLUSTER_THREADS
    return cores if alone else max(1, cores // max(1, min(width, cores)))


# ------------------------------------------------------------------------------------------------------------------- plan


def plan(asked: RunRequest, stage_jobs: bool | None = None) -> Plan:
    """Reads and checks the notebooks and their rows, before anything runs.

    stage_jobs: whether each stage is a job of its own; None: but for the tiny profile and ROWS=smoke, whose stages take less time
    than a process that loads torch. InputError: no notebook takes what is given, or one lacks a parameter that every one has.
    """
    found, left_out = {name: find_notebook(name) for name in notebooks()}, []
    if asked.data != WORLD:
        from ucvgl.data import detect_layout  # takes seconds to load: torch

        layout = detect_layout(asked.data)
        left_out = [name for name, book in found.items() if book.layouts and layout not in book.layouts]
        found = {name: book for name, book in found.items() if name not in left_out}
    given = {name: asked.further(book.parameters) for name, book in found.items()}
    for key in asked.further(("panorama", "other", "drone", "backbone")):
        if not any(key in further for further in given.values()):
            expected, todo = "a notebook with that parameter", f"Leave {key.upper()} out."
            raise InputError(key, expected=expected, found="none", todo=todo)
    files = "" if asked.data == WORLD else paths.files_digest(asked.data)
    picture = _digest(Path(asked.panorama)) if asked.panorama else ""

    starts = tuple(start for book in found.values() for start in book.rows)
    rows: dict[str, tuple[str, ...]] = {}
    stages: dict[str, StageJob] = {}
    needed: dict[tuple[str, int], tuple[str, ...]] = {}
    for seed in asked.seeds if starts else ():
        from ucvgl.lab.rows import all_stages  # takes seconds to load: torch
        from ucvgl.lab.rows import rows as rows_of

        shown = {row: stage for row, stage in rows_of(asked, seed, measured=True).items() if row.startswith(starts)}
        rows |= {row: (*rows.get(row, ()), stage.key) for row, stage in shown.items()}
        for key, stage in all_stages(shown.values()).items():
            stages[key] = stages.get(key) or _job(stage, seed, stages)
        for name, book in found.items():
            needed[name, seed] = tuple(all_stages(shown[row] for row in shown if row.startswith(book.rows)))
    jobs = []
    for name, book in found.items():
        depends_on = [book.fingerprint(), files, asked.rows, given[name], picture if "panorama" in given[name] else ""]
        fingerprint = hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()
        jobs += [NotebookJob(name, seed, needed.get((name, seed), ()), fingerprint) for seed in asked.seeds]
    if stage_jobs is None:
        stage_jobs = asked.profile != "tiny" and asked.rows != "smoke"
    return Plan(asked, rows, tuple(stages.values()), stage_jobs, tuple(jobs), tuple(left_out))


def _job(stage: "Stage", seed: int, before: Mapping[str, StageJob]) -> StageJob:
    """A stage with its estimates; `before`: those it needs, at least."""
    from ucvgl.lab.cost import cost_of

    cost, needs = cost_of(stage), tuple(need.key for need in stage.needs)
    rate = _rates()[0].get(cost.work)
    seconds = 0.0 if not cost.work else cost.images / rate if rate else None
    memory = max([cost.memory, *(before[key].memory for key in needs)])
    return StageJob(stage.key, seed, needs, cost.images, cost.steps, seconds, memory, cost.disk)


def _rates() -> tuple[dict[str, float], str]:
    """Images a second by work, of the GPU that was measured where there is one, else of a CPU's core; and which that was."""
    with RATES.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["device"].startswith("CPU") != has_gpu()]
    devices = ", ".join(sorted({row["device"] for row in rows})) or "no such device"
    return {row["work"]: float(row["images_per_second"]) for row in rows}, devices


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def kept_plan(asked: RunRequest, stage_jobs: bool | None = None) -> tuple[Plan, Path]:
    """The plan and the file that holds it for the Snakefile; from that file if nothing has changed since. InputError: as `plan`."""
    files = [RATES, *sorted(paths.notebooks().glob("*.ipynb")), *([Path(asked.panorama)] if asked.panorama else [])]
    folders = {asked.data, asked.other, asked.drone} - {WORLD, ""}
    depends_on = [asdict(asked), stage_jobs, package_digest(), has_gpu(), [[str(f), _digest(f)] for f in files],
                  [[folder, paths.files_digest(folder)] for folder in sorted(folders)]]  # fmt: skip
    name = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]
    path = paths.runs() / "plans" / f"{name}.json"
    try:
        return read_plan(path), path
    except (OSError, ValueError, TypeError, KeyError):  # not there, or damaged
        write_json(path, asdict(plan(asked, stage_jobs)))
        return read_plan(path), path


def read_plan(path: Path) -> Plan:
    """A plan from its file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    stages, notebooks = (
        tuple(kind(**job) for job in content[name]) for kind, name in ((StageJob, "stages"), (NotebookJob, "notebooks"))
    )
    return Plan(**content | {"asked": RunRequest(**content["asked"]), "stages": stages, "notebooks": notebooks})


# ---------------------------------------------------------------------------------------------------------------- dry run


def dry_run(found: Plan, cores: int) -> str:
    """What `reproduce` would do: each row with its stage, whether the cache has it, and estimates of what it costs."""
    jobs, asked = {job.key: job for job in found.stages}, found.asked
    lines = [f"profile {asked.profile}, data {asked.data}, seeds {', '.join(map(str, asked.seeds))}, rows: {asked.rows}", "",
             f"{'row':<36} {'stage':<34} cached {'images':>11} {'steps':>8} {'GiB':>6} {'GB':>6} minutes"]  # fmt: skip
    for name, keys in found.rows.items():
        own = [jobs[key] for key in keys]
        cached = f"{sum(marker(key).is_file() for key in keys)}/{len(keys)}"
        images, steps, disk = (sum(getattr(job, what) for job in own) for what in ("images", "steps", "disk"))
        memory = f"{own[0].memory / 2**30:.1f}" if own[0].memory else ""
        seconds = [job.seconds for job in own]
        minutes = "?" if None in seconds else f"{sum(seconds) / 60:.1f}"
        lines.append(
            f"{name:<36} {keys[0]:<34} {cached:>6} {images:>11,} {steps:>8,} {memory:>6} {disk / 1e9:>6.2f} {minutes:>7}"
        )
    todo = [job for job in found.stages if not marker(job.key).is_file()]
    unknown = sum(job.seconds is None for job in todo)
    lanes = 1 if has_gpu() else max(1, cores)
    hours, disk = sum(job.seconds or 0.0 for job in todo) / 3600 / lanes, sum(job.disk for job in todo) / 1e9
    lines += ["", f"{len(found.rows)} rows of {len(found.notebooks)} notebooks need {len(found.stages)} stages; "
              f"{len(found.stages) - len(todo)} are in the cache",
              f"to compute: {len(todo)} stages, about {hours:.1f} hours, {lanes} side by side, and {disk:.1f} GB on disk"
              + (f"; {unknown} have a rate that was never measured on such a device" if unknown else ""),
              f"(images a second measured on {_rates()[1]}; shared stages count once; GiB: at the peak of a step, by "
              "torch's count, without what kernels take for themselves; GB: what a stage leaves in the run folder)"]  # fmt: skip
    return "\n".join(lines)
