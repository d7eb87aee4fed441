"""`accelerate launch -m ucvgl.cli train`: two processes fill the run cache, and one process finds the stages there."""

import json
import os
import subprocess
import sys

import pytest

from ucvgl import cli
from ucvgl.lab import stages
from ucvgl.lab.stages import supervise
from ucvgl.launch import curriculum, sample4geo, vg_ssl
from ucvgl.methods import ucvgl
from ucvgl.studies import sample4geo_study, ucvgl_study, vg_ssl_study

pytestmark = pytest.mark.xdist_group("processes")
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1", "--mixed_precision", "no"]
LAUNCH += ["--dynamo_backend", "no"]


def launch(runs, stage, *options):
    several = ["--multi_gpu", "--num_processes", "2"]  # on a machine without a GPU: CPU processes
    environment = {**os.environ, "UCVGL_RUNS": str(runs), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [*LAUNCH, *several, "-m", "ucvgl.cli", "train", stage, *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_what_two_processes_trained_one_process_loads(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))
    done = launch(tmp_path, "pretrain", "--profile", "tiny", "--seed", "3", "--no-tables")
    assert done.returncode == 0, done.stderr
    assert "profile tiny, seed 3: 2 process(es), cpu" in done.stdout

    def forbidden(*arguments, **more):
        raise AssertionError("trained or rendered again")

    for where in ("ucvgl.methods.ucvgl.train", "ucvgl.world.rendering._render", "ucvgl.data.prepare._write"):
        monkeypatch.setattr(where, forbidden)
    settings = ucvgl_study.study("tiny", 3)
    given = ucvgl_study.material(settings, "world", progress=False)
    stage = stages.pretrain(given.unlabelled, settings.start, given, progress=False)
    assert stage.loaded
    assert stages.intra_view(given.unlabelled, settings.start, progress=False).loaded
    rows = [json.loads(line) for line in (stage.folder / "metrics.jsonl").read_text().splitlines()]
    assert rows == stage.numbers["cross"]
    assert len(rows) == settings.start.cross.epochs
    model = ucvgl.pretrained_model(stage.folder, settings.start)
    found = ucvgl.evaluate(ucvgl.describe(model, given.test, settings.start), given.test.positives)
    assert found == stage.numbers["recall"]  # two processes evaluated the weights that were saved
    assert not [path.name for path in tmp_path.iterdir() if path.name.endswith(".partial")]
    capsys.readouterr()


@pytest.mark.slow
def test_a_wrong_setting_ends_all_processes_with_one_line_each(tmp_path):
    done = launch(tmp_path, "curriculum", "--profile", "tiny", "--data", str(tmp_path / "none"))
    assert done.returncode != 0
    assert "ucvgl: data: expected 'world'" in done.stderr
    assert "InputError" not in done.stderr  # no traceback of ours; the launcher has one of its own
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stage", ["pretrain", "curriculum", "sample4geo", "vg_ssl"])
def test_bad_input_is_status_2(stage, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))
    for option, value, expected in (
        ("--profile", "huge", "profile: expected one of tiny, laptop, paper, found 'huge'"),
        ("--seed", "-1", "seed: expected a whole number"),
    ):
        monkeypatch.setattr(sys, "argv", ["ucvgl", "train", stage, option, value])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert caught.value.code == 2
        assert f"ucvgl: {expected}" in capsys.readouterr().err


def again(*arguments, **more):
    raise AssertionError("trained again")


def test_the_curriculum_command_trains_what_notebook_04_reads(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))
    curriculum("tiny", "world", 0, False)
    monkeypatch.setattr("ucvgl.methods.ucvgl.train", again)
    settings = ucvgl_study.study("tiny", 0)
    given = ucvgl_study.material(settings, "world", progress=False)
    assert stages.pretrain(given.unlabelled, settings.start, given).loaded
    assert stages.curriculum(given.unlabelled, settings.curriculum, given).loaded
    capsys.readouterr()


@pytest.mark.slow
def test_the_sample4geo_command_trains_what_notebook_05_reads(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))
    sample4geo("tiny", "world", 0, True)
    for where in ("sample4geo", "ucvgl"):
        monkeypatch.setattr(f"ucvgl.methods.{where}.train", again)
    settings = sample4geo_study.study("tiny", 0)
    others = sample4geo_study.open_others(settings, "world", "", progress=False)
    home = next(iter(others.values()))
    assert supervise(home.train, settings.method, home.tests).loaded
    areas = sample4geo_study.open_areas(settings, "world", settings.method, progress=False)
    assert len(sample4geo_study.sampling_table(settings, areas)) == 4
    assert len(sample4geo_study.drone_table(settings, sample4geo_study.open_flights(settings, progress=False))) == 2
    assert len(sample4geo_study.architecture_table(settings, "world")) == 5
    given = ucvgl_study.material(settings.unlabelled, "world", progress=False)
    assert len(sample4geo_study.unlabelled_table(settings, given)) == 4
    capsys.readouterr()


@pytest.mark.slow
def test_the_vg_ssl_command_trains_what_notebook_06_reads(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))
    vg_ssl("tiny", "world", 0, False)
    monkeypatch.setattr("ucvgl.methods.vg_ssl.train", again)
    settings = vg_ssl_study.study("tiny", 0)
    train, tests = vg_ssl_study.open_sets(settings, "world", progress=False)
    assert len(vg_ssl_study.main_table(settings, train, tests)) == 1 + len(settings.methods)
    capsys.readouterr()
