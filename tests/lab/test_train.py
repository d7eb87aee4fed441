"""`ucvgl train`: rows and stages into the run cache, alone or by two processes; the tables then find them there. What a stage is
estimated to cost, beside what a real training holds."""

import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ucvgl import cli
from ucvgl.encoders import EncoderConfig, open_model
from ucvgl.errors import InputError
from ucvgl.heads import SslLoss
from ucvgl.lab import material, profiles, rows, stages, variants
from ucvgl.lab.evaluate import evaluate, open_tests
from ucvgl.lab.graph import marker
from ucvgl.lab.settings import RunRequest
from ucvgl.lab.train import Cost, check_fits, cost_of, encoder_bytes, train
from ucvgl.methods import common, ucvgl
from ucvgl.methods.sample4geo import Sample4Geo
from ucvgl.methods.ucvgl import Curriculum, Pretraining
from ucvgl.methods.vg_ssl import VgSsl
from ucvgl.training import TrainingConfig

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
    model = common.trained(stage.folder)
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
    headline = rows.rows(RunRequest("tiny", rows="headline"), 0)
    train([*headline, "05/unlabelled/sample4geo"], RunRequest("tiny"))
    for where in ("ucvgl", "curriculum", "sample4geo", "vg_ssl"):
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


SMALL = EncoderConfig("convnext_atto", image_px=(64, 64))
PARAMETERS = 3.4e6  # of ConvNeXt-Atto, about

MEASURE = """
import gc
import torch
from ucvgl.encoders import Encoder, EncoderConfig
from ucvgl.lab.train import encoder_bytes
from ucvgl.training import TrainingConfig, adamw
torch.set_num_threads(1)
config, count = EncoderConfig("convnext_atto", pooling="safa", image_px=(128, 128)), 64
encoder = Encoder(config)

def steps(images, n):
    optimiser = adamw(encoder, TrainingConfig())
    for _ in range(n):
        optimiser.zero_grad()
        encoder(images).sum().backward()
        optimiser.step()
    optimiser.zero_grad()

def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024

steps(torch.rand(2, 3, 128, 128), 1)  # what the kernels keep
gc.collect()
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS") - sum(4 * p.numel() for p in encoder.parameters())
steps(torch.rand(count, 3, 128, 128), 2)
fixed, *_, image = encoder_bytes(config, "fp32")
print((fixed + count * image) / (status("VmHWM") - before))
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's count of a process's memory")
def test_the_estimate_is_within_a_fifth_of_what_a_run_takes():
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    assert 0.8 < float(done.stdout.split()[-1]) < 1.2


def cost(name, config, items=64):
    return cost_of(rows.Stage(name, (config,), lambda: None, items=items))


def test_an_estimate_follows_the_settings():
    plain = Pretraining(SMALL, SMALL, intra=TrainingConfig(chunk=16), cross=TrainingConfig(chunk=16))
    intra, cross = (cost(name, plain) for name in ("intra-view", "cross-view"))
    assert (intra.rows, cross.rows, intra.fixed) == (16, 16, cross.fixed)
    assert intra.row == 2 * cross.row
    assert cost("curriculum", Curriculum(plain, training=TrainingConfig(chunk=16))).memory == cross.memory
    assert cross.fixed > 2 * 15 * PARAMETERS  # two encoders: weights, gradients and two moments
    assert 2 * 7 * PARAMETERS < cross.disk < 2 * 9 * PARAMETERS  # of each the weights, twice
    assert intra.disk > 1.9 * cross.disk  # and the moments
    one = cost("sample4geo", Sample4Geo(SMALL, SMALL, training=TrainingConfig()))
    assert (one.fixed, one.row) == (cross.fixed // 2, cross.row)
    photos = VgSsl(SMALL, SslLoss("triplet"), TrainingConfig(batch_size=8))
    assert cost("vg-ssl", photos).row == 6 * cross.row  # a query, its positive and ten negatives
    larger = cost("sample4geo", Sample4Geo(*[replace(SMALL, image_px=(128, 128))] * 2, training=TrainingConfig()))
    assert 3.5 < larger.row / one.row < 4.5
    assert cost("cross-view", replace(plain, cross=None)) == Cost()
    full, half = (encoder_bytes(SMALL, precision)[-1] for precision in ("fp32", "bf16"))
    assert half < 0.8 * full
    lite = EncoderConfig("tf_efficientnet_lite0", "package", depth=3, image_px=(64, 64))
    learnt, frozen = (encoder_bytes(replace(lite, pretrained=p), "fp32")[-1] for p in ("package", "frozen package"))
    assert frozen < 0.1 * learnt


def test_a_step_that_cannot_fit_says_so_with_what_would():
    step = Cost(fixed=2 << 30, row=1 << 28, rows=128)
    check_fits("key", step, 64 << 30)
    for gib, said in ((10, r"at most 10.0 GiB.*about 34.0 GiB for 128 rows.*chunk=32"), (2, "not even one row fits")):
        with pytest.raises(InputError, match=said):
            check_fits("key", step, gib << 30)
