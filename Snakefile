# The graph of `make reproduce`: a job for each notebook and seed; its results.json is the edge; one `publish` a notebook
# merges the seeds into figures/. Everything that can be wrong with the settings is found in `plan`, before anything runs.
#
# `ucvgl reproduce` calls it with the right options (README, 'On a cluster'): results are compared by their parameters and
# code, never by the dates of files.
import re
import sys

from ucvgl.lab import graph as engine
from ucvgl.errors import InputError

try:
    PLAN = engine.plan(config)
except InputError as error:
    raise WorkflowError(str(error))

PYTHON = sys.executable
GPU = engine.has_gpu()


def job(wildcards):
    return PLAN.jobs[wildcards.notebook, int(wildcards.seed)]


localrules:
    all,
    publish,


wildcard_constraints:
    notebook="|".join(map(re.escape, PLAN.notebooks)) or "none",
    seed="[0-9]+",
    profile=PLAN.profile,
    data_id=PLAN.data_id,


rule all:
    input:
        [PLAN.run(*key) for key in PLAN.jobs],
        [PLAN.published(name) for name in PLAN.notebooks],


rule notebook:
    input:
        lambda wildcards: list(job(wildcards).needs),
    output:
        str(engine.paths.runs() / "notebooks/{profile}/{data_id}/seed{seed}/{notebook}/results.json"),
    params:
        fingerprint=lambda wildcards: job(wildcards).fingerprint,
        data=PLAN.data,
        extra=lambda wildcards: [f"--set={pair}" for pair in job(wildcards).extra],
        out=lambda wildcards, output: output[0].removesuffix("/results.json"),
    threads:
        lambda wildcards: engine.threads(workflow.resource_settings.cores, PLAN.width, alone=GPU)
    resources:
        gpu=int(GPU),
    shell:
        "OMP_NUM_THREADS={threads} {PYTHON:q} -m ucvgl.cli notebook {wildcards.notebook:q} --profile {wildcards.profile:q}"
        " --data {params.data:q} --seed {wildcards.seed:q} {params.extra:q} --out {params.out:q}"


rule publish:
    input:
        lambda wildcards: [PLAN.run(wildcards.notebook, seed) for seed in PLAN.seeds],
    output:
        str(engine.figure_folder("{notebook}", profile=PLAN.profile, data=PLAN.data) / "results.json"),
        # figures/ may come from git: that this checkout has published them is noted in runs/
        touch(str(engine.paths.runs() / f"notebooks/{PLAN.profile}/{PLAN.data_id}/published/{{notebook}}")),
    params:
        fingerprint=lambda wildcards: PLAN.jobs[wildcards.notebook, PLAN.seeds[0]].fingerprint,
        runs=lambda wildcards, input: [path.removesuffix("/results.json") for path in input],
        out=lambda wildcards, output: output[0].removesuffix("/results.json"),
    shell:
        "{PYTHON:q} -m ucvgl.cli publish {params.runs:q} --out {params.out:q}"
