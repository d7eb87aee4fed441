"""The graph of `make reproduce`: a job for each stage of the rows, then one for each notebook, which finds all in the cache.

`plan` reads and checks everything the Snakefile needs before anything runs; `dry_run` says what it is.
"""

import csv
import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ucvgl import paths
from ucvgl.errors import InputError
from ucvgl.lab.settings import WORLD, RunRequest
from ucvgl.lab.sources import PACKAGE, fits, metadata, notebooks, parameters, source_fingerprint
from ucvgl.paths import write_json

MORE = ("panorama", "other", "drone", "backbone")  # parameters that some notebooks have
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
    extra: tuple[str, ...]  # further parameters, as `name=value`


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


def cached(key: str) -> bool:
    """Whether a job has computed the stage."""
    return marker(key).is_file()


# ------------------------------------------------------------------------------------------------------------------- plan


def plan(asked: RunRequest, job_seconds: str = "") -> Plan:
    """Reads and checks the notebooks and their rows, before anything runs.

    job_seconds: a shorter stage is no job of its own; '' for JOB_SECONDS. InputError: none of the notebooks takes what is
    given, or one lacks one of the three parameters every notebook has.
    """
    # a process of its own would take longer than a few steps
    shortest = math.inf if asked.rows == "smoke" else _seconds(job_seconds or str(JOB_SECONDS))
    files, left_out = {name: paths.notebooks() / f"{name}.ipynb" for name in notebooks()}, []
    if asked.data != WORLD:
        from ucvgl.data import detect_layout  # takes seconds to load: torch

        layout = detect_layout(asked.data)
        left_out = [name for name, file in files.items() if not fits(file, layout)]
        files = {name: file for name, file in files.items() if name not in left_out}
    known = {name: parameters(file) for name, file in files.items()}
    extra = {key: value for key in MORE if (value := getattr(asked, key))}
    for key in extra:
        if not any(key in names for names in known.values()):
            expected = "a notebook with that parameter"
            raise InputError(key, expected=expected, found="none", todo=f"Leave {key.upper()} out.")
    given_files = "" if asked.data == WORLD else paths.files_digest(asked.data)
    fingerprints = {
        name: _fingerprint(file, given_files, asked.rows, asked.panorama if "panorama" in known[name] else "")
        for name, file in files.items()
    }

    row_names: dict[str, tuple[str, ...]] = {}
    stages: dict[str, StageJob] = {}
    of_notebook: dict[tuple[str, int], tuple[str, ...]] = {}
    wanted = {name: tuple(metadata(file).get("rows", ())) for name, file in files.items()}  # how their names begin
    if any(wanted.values()):
        from ucvgl.lab import rows as lab_rows  # takes seconds to load: torch

        for seed in asked.seeds:
            found = lab_rows.rows(asked, seed, measured=True)
            for row, stage in found.items():
                if row.startswith(sum(wanted.values(), ())):
                    row_names[row] = (*row_names.get(row, ()), stage.key)
                    stages |= _jobs(stage, seed, stages, shortest)
            for name, starts in wanted.items():
                shown = [stage for row, stage in found.items() if row.startswith(starts)]
                of_notebook[name, seed] = tuple(lab_rows.all_stages(shown))
    jobs = [
        NotebookJob(
            name, seed, of_notebook.get((name, seed), ()), fingerprints[name],
            tuple(f"{k}={v}" for k, v in extra.items() if k in known[name]),
        )
        for name in files for seed in asked.seeds
    ]  # fmt: skip
    return Plan(asked, row_names, _prioritised(stages), tuple(jobs), tuple(left_out))


def _jobs(last: Any, seed: int, known: Mapping[str, StageJob], shortest: float) -> dict[str, StageJob]:
    """A stage and those that it needs, but for the known ones."""
    from ucvgl.lab.rows import all_stages

    (rates, _), found = _rates(), {}
    for key, stage in all_stages([last]).items():
        if key in known:
            continue
        seconds = stage.passes / rates[stage.work] if stage.work in rates else None if stage.work else 0.0
        needs: dict[str, None] = {}
        for need in stage.needs:  # what is no job is computed by those that need it, which then wait for what it needs
            job = known.get(need.key) or found[need.key]
            needs |= dict.fromkeys([need.key] if job.is_job else job.needs)
        worth = shortest < math.inf and (seconds is None or seconds >= shortest)
        found[key] = StageJob(key, seed, seconds, tuple(needs), worth, 0, stage.passes, stage.steps)
    return found


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


def _fingerprint(notebook: Path, files: str, which: str, panorama: str) -> str:
    """Of a notebook's source, the data's files (their digest), the choice of rows and the picture it is given."""
    picture = [hashlib.sha256(Path(panorama).read_bytes()).hexdigest()] if panorama else []
    parts = [source_fingerprint(notebook), files, which, *picture]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 <= float(text) < math.inf:
            return float(text)
    raise InputError("job_seconds", expected="a number of seconds", found=repr(text), todo="For example 20.")


# ------------------------------------------------------------------------------------------------------------ kept plans


def kept_plan(asked: RunRequest, job_seconds: str = "") -> tuple[Plan, Path]:
    """The plan and the file that holds it for the Snakefile; from that file if nothing has changed since.

    Raises:
        InputError: as `plan`.
    """
    depends_on = [asdict(asked), job_seconds, *sorted(_sources(asked))]
    digest = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]
    path = paths.runs() / "plans" / f"{digest}.json"
    try:
        return read_plan(path), path
    except (OSError, ValueError, TypeError, KeyError):
        write_json(path, asdict(plan(asked, job_seconds)))
        return read_plan(path), path


def read_plan(path: Path) -> Plan:
    """A plan from its file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    kinds = {"stages": StageJob, "notebooks": NotebookJob}
    jobs = {name: tuple(kind(**job) for job in content[name]) for name, kind in kinds.items()}
    return Plan(**content | jobs | {"asked": RunRequest(**content["asked"])})


def _sources(asked: RunRequest) -> Iterator[tuple[str, str]]:
    """What a plan depends on beside what is asked for."""
    for path in (*PACKAGE.rglob("*.py"), RATES, *paths.notebooks().glob("*.ipynb")):
        yield str(path), hashlib.sha256(path.read_bytes()).hexdigest()
    yield "runs", str(paths.runs())
    yield "gpu", str(has_gpu())
    for folder in {asked.data, asked.other, asked.drone} - {WORLD, ""}:
        yield folder, paths.files_digest(folder)
    if asked.panorama:
        yield "panorama", hashlib.sha256(Path(asked.panorama).read_bytes()).hexdigest()


def dry_run(found: Plan, cores: int, file: Path) -> str:
    """What `reproduce` would do: each row with its stage, whether the cache has it, and estimates of work, memory and time.

    file: of the kept plan; what was counted of the memory is kept beside it.
    """
    jobs, memory = {job.key: job for job in found.stages}, _memory(found, file.with_suffix(".memory.json"))
    asked = found.asked
    lines = [f"profile {asked.profile}, data {asked.data}, seeds {', '.join(map(str, asked.seeds))}, rows: {asked.rows}", "",
             f"{'row':<36} {'stage':<34} {'cached':>7} {'images':>11} {'steps':>8} {'GiB':>6} {'minutes':>8}"]  # fmt: skip
    for name, keys in found.row_names.items():
        seconds, done = [jobs[key].seconds for key in keys], sum(map(cached, keys))
        minutes = "?" if None in seconds else f"{sum(seconds) / 60:.1f}"
        work = f"{sum(jobs[key].images for key in keys):>11,} {sum(jobs[key].steps for key in keys):>8,}"
        lines.append(
            f"{name:<36} {keys[0]:<34} {f'{done}/{len(keys)}':>7} {work} {memory.get(name, ''):>6} {minutes:>8}"
        )
    todo = [job for job in found.stages if not cached(job.key)]
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


def threads(cores: int | None, width: int, *, alone: bool) -> int:
    """CPU threads for each of `width` jobs that can run side by side on `cores`, which are None on a cluster.

    Trainings share them, too: two of one thread get more done than one of two threads after the other, since small networks
    leave a second thread idle for about half of the time (benchmarks/results/reproduce.md). A job that is `alone`, as it takes
    turns with the others on the GPU, gets all cores.
    """
    if not cores:
        return CLUSTER_THREADS
    return cores if alone else max(1, cores // max(1, min(width, cores)))


def has_gpu() -> bool:
    """Whether `nvidia-smi` is found: the Makefile's test for faiss-gpu, and the Snakefile's for jobs taking turns."""
    return shutil.which("nvidia-smi") is not None
