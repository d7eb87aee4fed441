# The graph of `ucvgl reproduce`, which plans it (ucvgl/lab/graph.py), keeps the plan in a file and hands it over:
# a job for each stage that the rows of the tables need, then one for each notebook and seed, which finds all in the run
# cache, and one `publish` a notebook, which merges the seeds into figures/.
#
# Results are compared by their parameters and code, never by the dates of files (README, 'On a cluster').
import shlex
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from ucvgl.lab import graph

if "plan" not in config:
    raise WorkflowError("Call `make reproduce` or `ucvgl reproduce`, which plans what is to be done.")
PLAN = graph.read_plan(Path(config["plan"]))
ASKED = PLAN.asked
RUNS = graph.paths.runs()
STAGES = {stage.key: stage for stage in PLAN.stages if PLAN.stage_jobs}
NOTEBOOKS = PLAN.notebooks
PYTHON = sys.executable
CORES = workflow.resource_settings.cores or 4  # of a job on a cluster, which tells none
GPU = graph.has_gpu()
WIDTH = max(len(STAGES), len(NOTEBOOKS) * len(ASKED.seeds))
OPTIONS = f"--profile {ASKED.profile} --data {shlex.quote(ASKED.data)}"
GIVEN = {"other": ASKED.other, "drone": ASKED.drone, "backbone": ASKED.backbone}
MORE = " ".join(f"--{key} {shlex.quote(value)}" for key, value in GIVEN.items() if value)
PICTURE = f"--panorama {shlex.quote(ASKED.panorama)}" if ASKED.panorama else ""

if workflow.is_main_process and not workflow.dryrun:  # held until this process ends, however it ends
    LOCK = FileLock(RUNS / ".reproduce.lock")
    try:
        LOCK.acquire(blocking=False)
    except Timeout:
        raise WorkflowError(f"{RUNS}: another `make reproduce` is at work here. Wait for it, or end it.")


def results(folder):
    return str(folder / "results.json")


def marks(keys):
    return [str(graph.marker(key)) for key in keys if key in STAGES]


def dependents(key):
    return sum(key in stage.needs for stage in STAGES.values())


def share_of_cores(wildcards):
    """CPU threads of a job: all where a GPU lets one run at a time, four on a cluster, which tells no cores.

    Small networks leave a second thread idle for half of the time: two trainings of one thread side by side get more done
    than two of two threads in turn (benchmarks/results/reproduce.md).
    """
    if GPU or not workflow.resource_settings.cores:
        return CORES
    return max(1, CORES // max(1, min(WIDTH, CORES)))


localrules:
    all,
    publish,


wildcard_constraints:
    seed="[0-9]+",


rule all:
    input:
        [results(ASKED.run_folder(name, seed)) for name in NOTEBOOKS for seed in ASKED.seeds],
        [results(ASKED.figure_folder(name)) for name in NOTEBOOKS],


rule stage:
    input:
        lambda wildcards: marks(STAGES[wildcards.key].needs),
    output:
        str(graph.marker("{key}")),
    params:
        seed=lambda wildcards: STAGES[wildcards.key].seed,
    # what most others wait for comes first, then what takes longest: a long one begun last would leave the other cores idle
    priority: lambda wildcards: 10_000 * dependents(wildcards.key) + int(STAGES[wildcards.key].seconds or 0)
    threads: share_of_cores
    resources:
        gpu=int(GPU),
    shell:  # large pages, which glibc asks for where told to, make a step 4 % faster
        "OMP_NUM_THREADS={threads} GLIBC_TUNABLES=glibc.malloc.hugetlb=1 UCVGL_ROWS={ASKED.rows} {PYTHON:q} -m ucvgl.cli train {wildcards.key:q} {OPTIONS} {MORE} --seed {params.seed}"


rule notebook:
    input:
        lambda wildcards: marks(PLAN.keys(wildcards.notebook, int(wildcards.seed))),
    output:
        results(ASKED.run_folder("{notebook}", "{seed}")),
    params:
        fingerprint=lambda wildcards: PLAN.fingerprints[wildcards.notebook],
        out=lambda wildcards, output: output[0].removesuffix("/results.json"),
    # what needs no row first, while the worlds render on one core; then the longest, where notebooks compute their rows
    priority: lambda wildcards: len(NOTEBOOKS[wildcards.notebook]) or 10**9
    threads: share_of_cores
    resources:
        gpu=int(GPU),
    shell:  # with idle cores, too; threads that wait awake for long, as is the default, take the cores from what they wait for
        "OMP_NUM_THREADS={CORES} GOMP_SPINCOUNT=2000 UCVGL_ROWS={ASKED.rows} {PYTHON:q} -m ucvgl.cli notebook {wildcards.notebook:q} {OPTIONS} {MORE}"
        " {PICTURE} --seed {wildcards.seed:q} --out {params.out:q}"


rule publish:
    input:
        lambda wildcards: [results(ASKED.run_folder(wildcards.notebook, seed)) for seed in ASKED.seeds],
    output:
        results(ASKED.figure_folder("{notebook}")),
        # figures/ may come from git: that this checkout has published them is noted in runs/
        touch(str(RUNS / f"notebooks/{ASKED.profile}/{ASKED.data_id}/published/{{notebook}}")),
    params:
        fingerprint=lambda wildcards: PLAN.fingerprints[wildcards.notebook],
        runs=lambda wildcards, input: [path.removesuffix("/results.json") for path in input],
        out=lambda wildcards, output: output[0].removesuffix("/results.json"),
    shell:
        "{PYTHON:q} -m ucvgl.cli publish {params.runs:q} --out {params.out:q}"
