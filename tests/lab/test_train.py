"""`ucvgl train`: rows and stages into the run cache, alone or by two processes; the tables then find them there."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ucvgl import cli
from ucvgl.encoders import open_model
from ucvgl.errors import InputError
from ucvgl.lab import material, profiles, rows, stages, variants
from ucvgl.lab.evaluate import evaluate, open_tests
from ucvgl.lab.graph import marker
from ucvgl.lab.settings import RunRequest
from ucvgl.lab.train import train
from ucvgl.methods import ucvgl

pytestmark = pytest.mark.xdist_group("processes")
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1", "--mixed_precision", "no"]
LAUNCH += ["--dynamo_backend", "no", "--multi_gpu", "--num_processes", "2"]  # on a machine without a GPU: CPU processes


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path))


def again(*arguments, **more):
    raise AssertionError("trained or rendered again")


def test_what_two_processes_trained_one_process_loads(tmp_path, monkeypatch):
    command = [*LAUNCH, "-m", "ucvgl.cli", "train", "02/cold_start/full", "--profile", "tiny", "--seed", "3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "profile tiny, seed 3: 2 process(es), cpu" in done.stdout
    for where in ("ucvgl.methods.ucvgl.train", "ucvgl.world.rendering.make_city", "ucvgl.data.prepare._write"):
        monkeypatch.setattr(where, again)
    settings = profiles.ucvgl("tiny", 3)
    given = material.material(settings, "world")
    stage = stages.pretrain(given.unlabelled, settings.start, given)
    assert stage.loaded
    assert stages.intra_view(given.unlabelled, settings.start).loaded
    lines = [json.loads(line) for line in (stage.folder / "metrics.jsonl").read_text().splitlines()]
    assert lines == stage.numbers["cross"]
    model = ucvgl.pretrained_model(stage.folder, settings.start)
    found = ucvgl.evaluate(ucvgl.describe(model, given.test, settings.start), given.test.positives)
    assert found == stage.numbers["recall"]  # two processes evaluated the weights that were saved
    row = rows.rows(RunRequest("tiny"), 3)["02/cold_start/full"]
    assert all(marker(key).is_file() for key in rows.all_stages([row]))


def test_one_stage_is_run_by_its_key_and_a_mistyped_row_is_status_2(monkeypatch, capsys):
    row = rows.rows(RunRequest("tiny"), 0)["06/main/simclr"]
    train([row.needs[0].key], RunRequest("tiny"))
    assert (marker(row.needs[0].key).is_file(), marker(row.key).is_file()) == (True, False)
    monkeypatch.setattr(sys, "argv", ["ucvgl", "train", "04/ablation/no_mut"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    said = capsys.readouterr().err
    assert re.search("ucvgl: row: expected a row or a table, such as .*Did you mean 04/ablation", said)


def test_own_pairs_of_any_shape_are_learnt_by_three_methods(tmp_path, capsys):
    """Photos, neither 2:1 nor square: no projection; the weights of each are found, and measured on the held-out part."""
    root, rng = tmp_path / "own", np.random.default_rng(0)
    for k in range(40):
        image = rng.integers(0, 255, (3, 4, 3)).repeat(10, 0).repeat(10, 1)  # (30, 40, 3)
        for side in ("query", "gallery"):
            (root / side).mkdir(parents=True, exist_ok=True)
            noisy = np.clip(image + rng.normal(0, 20, image.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(root / side / f"{k:03d}.jpg")
    asked = RunRequest("tiny", str(root))
    train(["05/sampling/random", "06/main/simclr", "04/main/ucvgl_s_0"], asked)
    found = [line.partition(": ") for line in capsys.readouterr().out.splitlines() if line.endswith(".safetensors")]
    last = {key.rpartition("-")[0]: path for key, _, path in found}
    assert list(last) == ["sample4geo", "vg-ssl", "intra-view", "cross-view", "curriculum"]
    for path in last.values():
        assert evaluate(open_model(path), open_tests(root)).loc["test", "queries"] == 8
    with pytest.raises(InputError, match="expected panoramas, which notebooks 02 to 05 project, found pairs: photos"):
        rows.rows(asked, 0, measured=True)


@pytest.mark.slow
def test_the_tables_train_nothing_that_the_rows_have_trained(monkeypatch):
    monkeypatch.setenv("UCVGL_ROWS", "headline")
    train([*rows.rows(RunRequest("tiny", rows="headline"), 0)], RunRequest("tiny"))
    for where in ("ucvgl", "curriculum", "sample4geo", "vg_ssl", "pretraining_losses"):
        monkeypatch.setattr(f"ucvgl.methods.{where}.train", again)
    settings, photos = profiles.sample4geo("tiny", 0), profiles.vg_ssl("tiny", 0)
    tables = variants.sample4geo(settings)
    areas = [(*material.open_areas(settings, "world", settings.method), config)
             for *_, config in rows.chosen("05/sampling", tables)]  # fmt: skip
    areas.append((material.open_others(settings, "world", "", settings.brief)["garden"], settings.brief))
    areas += [(flown, settings.drone) for flown in (material.open_flights(settings), material.open_heights(settings))]
    small = material.fewer(material.material(settings.unlabelled, "world"))
    areas.append((small._replace(tests={"cross": small.test}), variants.on_same_terms(settings)))
    assert all(stages.supervise(area.train, config, area.tests).loaded for area, config in areas)
    assert stages.curriculum(small.unlabelled, settings.unlabelled.curriculum, small).loaded
    train_set, tests = material.open_sets(photos, "world")
    assert all(stages.learn(train_set, config, tests).loaded for config in photos.methods.values())
