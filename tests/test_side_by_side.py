"""The comparison with the official code, on tiny 'clones' written here: naive functions under the official names."""

import csv
import importlib
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from ucvgl import paths
from ucvgl.errors import InputError

sys.path.insert(0, str(paths.ROOT / "benchmarks"))  # no package; the rows' processes import it, too
sbs = importlib.import_module("side_by_side")
official = importlib.import_module("official")

CPU = torch.device("cpu")
TINY = replace(
    sbs.SMALL, view_px=40, gallery=120, beyond=150, width=16, places=60, batch=8, draw=16, ssl_batch=6, ssl_width=12,
    image_px=32, train_batch=2, steps=1, seconds=0.0, least=2, most=2,
)  # fmt: skip

TOP_VIEW = """
import math
import numpy as np
import torch
import package_that_nobody_has as missing
from package_that_nobody_has.part import Thing

class Unused(Thing):
    pass

def get_BEV_projection(img, Ho, Wo, Fov=170, dty=0, dx=0, dy=0, delta=(0, 0)):
    focal = Wo / 2 / math.tan(math.radians(Fov) / 2)
    row, column = np.mgrid[:Ho, :Wo].astype(float)
    north, west = Ho / 2 - row + delta[0], Wo / 2 - column - delta[1]
    below = np.arctan2(focal, np.hypot(north, west))
    return np.stack([-np.arctan2(west, north) / (2 * np.pi) + 0.5, 0.5 + below / np.pi], -1)

def get_BEV_tensor(img, Ho, Wo, Fov=170, dty=0, dx=0, dy=0, out=None):
    column, row = out[..., 0] * (img.shape[1] - 1), out[..., 1] * (img.shape[0] - 1)
    left, above = np.floor(column).astype(int), np.floor(row).astype(int)
    view = 0
    for x in (0, 1):
        for y in (0, 1):
            weight = (1 - abs(column - left - x)) * (1 - abs(row - above - y))
            i, j = np.minimum(above + y, img.shape[0] - 1), np.minimum(left + x, img.shape[1] - 1)
            view = view + weight[..., None] * img[i, j]
    return torch.from_numpy((view + 1e-6).astype(np.int32))
"""

PSEUDO_LABELS = """
import torch

def get_pseudo_labels(scan_loader, model, args, epoch):
    ground, tile, label = (torch.cat(part) for part in zip(*scan_loader))
    ground, tile = model(ground, tile)
    similarity = ground @ tile.T
    best = similarity.topk(2)
    found = {}
    for g in range(len(ground)):
        t = int(best.indices[g, 0])
        if int(similarity[:, t].argmax()) == g and best.values[g, 0] - best.values[g, 1] >= args.threshold:
            found[int(label[g])] = int(label[t])
    return found
"""

EVALUATION = """
import time
import torch

def calculate_scores(query, reference, query_labels, reference_labels, step_size=1000, ranks=[1, 5, 10]):
    time.sleep(30)
    similarity = query @ reference.T
    rank = torch.tensor([int((row > row[i]).sum()) for i, row in enumerate(similarity)])
    shares = [100 * float((rank < k).float().mean()) for k in [*ranks, len(reference) // 100]]
    names = [str(k) for k in ranks] + ["top1"]
    print(" - ".join(f"Recall@{n}: {v + WRONG:.4f}" for n, v in zip(names, shares)))
    return shares[0]

def calculate_nearest(query, reference, query_labels, reference_labels, neighbour_range=64, step_size=1000):
    order = (query @ reference.T).argsort(dim=1, descending=True)
    return {i: [j for j in row.tolist() if j != i][:neighbour_range] for i, row in enumerate(order)}

WRONG = {wrong}
"""

SHUFFLE = """
import random
import cv2_that_nobody_has as cv2
import pandas

class CVUSADatasetTrain:
    def __init__(self, data_folder, shuffle_batch_size=128):
        sat = pandas.read_csv(f"{data_folder}/splits/train-19zl.csv", header=None)[0]
        self.train_ids = [int(name.split("/")[-1].split(".")[0]) for name in sat]
        self.size = shuffle_batch_size

    def shuffle(self, sim_dict, neighbour_select=64, neighbour_range=128):
        pool, used, batches, batch = list(self.train_ids), set(), [], []
        random.shuffle(pool)
        for item in pool:
            near = list(sim_dict[item][:neighbour_range])
            rest = near[neighbour_select // 2 :]
            random.shuffle(rest)
            if item in used:
                continue
            for joins in [item, *near[: neighbour_select // 2], *rest[: neighbour_select // 2]]:
                if joins not in used and len(batch) < self.size:
                    used.add(joins)
                    batch.append(joins)
            if len(batch) == self.size:
                batches += batch
                batch = []
        self.samples = batches
"""

TRAINER = """
def train(config, model, dataloader, loss_function, optimizer, scheduler=None, scaler=None):
    model.train()
    losses = []
    for query, reference, _ in dataloader:
        optimizer.zero_grad()
        loss = loss_function(*model(query, reference), model.logit_scale.exp())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)
"""

MODEL = """
import math
import timm
import torch

class TimmModel(torch.nn.Module):
    def __init__(self, model_name, pretrained=True, img_size=383):
        super().__init__()
        self.model = timm.create_model(model_name, pretrained=pretrained, num_classes=0)
        self.logit_scale = torch.nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, one, two):
        return self.model(one), self.model(two)
"""

INFO_NCE = """
import torch
import torch.nn.functional as F

class InfoNCE(torch.nn.Module):
    def __init__(self, loss_function, device):
        super().__init__()
        self.loss_function = loss_function

    def forward(self, one, two, scale):
        logits = scale * F.normalize(one, dim=1) @ F.normalize(two, dim=1).T
        own = torch.arange(len(logits))
        return (self.loss_function(logits, own) + self.loss_function(logits.T, own)) / 2
"""

VICREG = """
import torch

class VICREG(torch.nn.Module):
    def __init__(self, net, image_size, gpus_num, projection_size, projection_hidden_size, aggregation, use_bt_loss):
        super().__init__()
        self.net = net

    def forward(self, one, two):
        one, two = self.net(one), self.net(two)
        total = 25 * torch.mean((one - two) ** 2)
        for z in (one, two):
            covariance = torch.cov(z.T)
            total = total + 25 * torch.relu(1 - (covariance.diagonal() + 1e-4).sqrt()).mean() / 2
            total = total + ((covariance**2).sum() - (covariance.diagonal() ** 2).sum()) / z.shape[1]
        return total
"""


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def ucvgl(tmp_path):
    files = {"CFP/GeometricProjection/utils.py": TOP_VIEW, "utils.py": "WHOSE = 'UCVGL'"}
    return write(tmp_path / "UCVGL", files | {"train_crossview_sat.py": PSEUDO_LABELS})


@pytest.fixture
def sample4geo(tmp_path):
    files = {
        "sample4geo/trainer.py": TRAINER, "sample4geo/model.py": MODEL, "sample4geo/loss.py": INFO_NCE,
        "sample4geo/evaluate/cvusa_and_cvact.py": EVALUATION.replace("{wrong}", "0"),
        "sample4geo/dataset/cvusa.py": SHUFFLE, "utils.py": "WHOSE = 'Sample4Geo'",
    }  # fmt: skip
    return write(tmp_path / "Sample4Geo", files)


@pytest.fixture
def vg_ssl(tmp_path):
    files = {"model/byol/byol_pytorch.py": "raise RuntimeError('No CUDA GPUs are available')"}
    return write(tmp_path / "VG-SSL", files | {"model/vicreg/vicreg_pytorch.py": VICREG})


@pytest.fixture
def clone():
    """Opens clones and closes them."""
    opened = []

    def open_clone(folder):
        opened.append(official.Clone(folder))
        return opened[-1]

    yield open_clone
    for one in opened:
        one.close()


def row(task):
    (found,) = [r for r in sbs.ROWS if r.task == task]
    return found


def work(task, folder, what="time", sizes=TINY):
    return sbs.work(row(task), folder, sizes, CPU, what)


# ------------------------------------------------------------------------------------------------------------ importing


def test_modules_of_one_name_come_from_their_own_clone(ucvgl, sample4geo, clone):
    first = official.Clone(ucvgl)
    assert first.module("utils").WHOSE == "UCVGL"
    first.close()
    assert clone(sample4geo).module("utils").WHOSE == "Sample4Geo"


def test_what_is_not_installed_gets_a_stand_in_that_names_it(ucvgl, clone):
    opened = clone(ucvgl)
    code = opened.module("utils", "CFP/GeometricProjection")
    assert opened.stubs == ["package_that_nobody_has"]
    assert issubclass(code.Unused, code.Thing)
    with pytest.raises(official.Absent, match="needs the package package_that_nobody_has, which is not installed"):
        code.missing.anything(1)
    with pytest.raises(ModuleNotFoundError):  # nobody else gets one
        importlib.import_module("another_package_that_nobody_has")


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("a.py", "x = 1", "the clone's a has no wanted"),
        ("b.py", "wanted = 1", r"the clone has no a\.py"),
        ("a.py", "raise ValueError('no\\nway')", "a does not import: ValueError: no way"),
        ("a.py", "import sys; sys.exit(3)", "a does not import: SystemExit: 3"),
        ("a.py", "open('/no/such/file')", "a does not import: looks for /no/such/file, which is not there"),
    ],
)
def test_what_cannot_be_had_is_said_in_words(tmp_path, clone, file, text, said):
    with pytest.raises(official.CannotRun, match=said):
        clone(write(tmp_path, {file: text})).get("a", "wanted")


def test_a_module_from_elsewhere_is_not_taken_for_the_clones(tmp_path, clone):
    with pytest.raises(official.CannotRun, match="json was imported from elsewhere"):  # ours had it before
        clone(write(tmp_path, {"json.py": "dumps = 1"})).get("json", "dumps")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AssertionError("Torch not compiled with CUDA enabled"), "needs CUDA (Torch not compiled with CUDA enabled)"),
        (ModuleNotFoundError("no", name="wandb"), "needs the package wandb, which is not installed"),
        (MemoryError(), "out of memory"),
        (KeyError("x"), "KeyError: 'x'"),
        (StopIteration(), "StopIteration"),
    ],
)
def test_errors_in_words(error, said):
    assert official.in_words(error) == said


@pytest.mark.parametrize(
    ("files", "found"),
    [({}, "a folder of no file"), ({"README.md": ""}, "a folder of README.md"), (None, "nothing there")],
)
def test_a_folder_that_is_no_clone(tmp_path, files, found):
    folder = tmp_path / "there"
    if files is not None:
        folder.mkdir()
        write(folder, files)
    with pytest.raises(InputError, match="--vg-ssl") as error:
        official.check_clone("VG-SSL", folder)
    assert error.value.found == found
    assert "git clone https://github.com/arplaboratory/VG-SSL" in str(error.value)


def test_a_plain_copy_has_no_commit(ucvgl):
    assert official.commit_of(ucvgl) == "no git checkout"


# ---------------------------------------------------------------------------------------------------------------- rows


def test_all_tasks_have_names_of_their_own_and_known_repositories():
    assert len({r.task for r in sbs.ROWS}) == len(sbs.ROWS) >= 20
    assert {r.repository for r in sbs.ROWS} == set(official.REPOSITORIES)


@pytest.mark.parametrize(
    "task",
    [
        "top view of one panorama",
        "top view of a batch, ours builds its grid too",
        "top view of a batch, both grids given",
        "pseudo-labels",
    ],
)
def test_rows_of_ucvgl_agree_with_the_naive_code(ucvgl, task):
    found = work(task, ucvgl)
    assert found["agrees"], found
    assert len(found["official"]) == len(found["ours"]) == 2
    assert min(found["official"] + found["ours"]) > 0
    torch.distributed.destroy_process_group() if torch.distributed.is_initialized() else None


@pytest.mark.parametrize(
    "task",
    [
        "recall",
        "recall with average precision",
        "nearest lists",
        "similarity shuffle, numpy integers",
        "similarity shuffle, Python integers",
        "training step",
    ],
)
def test_rows_of_sample4geo_agree_with_the_naive_code(sample4geo, task):
    found = work(task, sample4geo, sizes=replace(TINY, places=3000) if "shuffle" in task else TINY)
    assert found["agrees"], found
    assert found["stubs"] == (["cv2_that_nobody_has"] if "shuffle" in task else [])


def test_a_loss_agrees_with_the_naive_code(vg_ssl):
    found = work("loss: VICReg", vg_ssl)
    assert found["agrees"], found


def test_results_that_differ_are_reported_and_not_timed(ucvgl, sample4geo):
    write(
        ucvgl,
        {"CFP/GeometricProjection/utils.py": TOP_VIEW.replace("west, ", "-west, ")},
    )
    write(sample4geo, {"sample4geo/evaluate/cvusa_and_cvact.py": EVALUATION.replace("{wrong}", "7")})
    for task, folder in (("top view of one panorama", ucvgl), ("recall", sample4geo)):
        found = work(task, folder)
        assert found["agrees"] is False
        assert "official" not in found
    assert "largest difference 7" in found["agreement"]


def test_an_official_function_that_cannot_run_says_why(vg_ssl, sample4geo):
    assert work("loss: BYOL", vg_ssl)["why"].endswith("needs CUDA (No CUDA GPUs are available)")
    assert work("loss: MoCo", vg_ssl)["why"] == "the clone has no model/moco/moco_pytorch.py"
    (sample4geo / "sample4geo/dataset/cvusa.py").write_text("def shuffle(): ...")
    why = work("similarity shuffle, numpy integers", sample4geo)["why"]
    assert why == "the clone's sample4geo.dataset.cvusa has no CVUSADatasetTrain; was this another revision?"
    write(sample4geo, {"sample4geo/evaluate/cvusa_and_cvact.py": "def calculate_scores(*a, **b): 1 / 0"})
    assert work("recall", sample4geo)["why"] == "ZeroDivisionError: division by zero"


def test_a_failure_of_ours_is_not_put_on_the_official_code(ucvgl):
    def fails():
        raise InputError("here", expected="a", found="b", todo="c")

    def prepare(*_):
        return sbs.Pair(lambda: 1, fails, lambda a, b: sbs.Verdict(True, ""))

    found = sbs.work(replace(row("recall"), prepare=prepare), ucvgl, TINY, CPU, "time")
    assert found["failed"].startswith("ucvgl: InputError: here: expected a, found b")


def test_sleeps_of_the_official_code_are_left_out(sample4geo):
    begun, sleep = time.perf_counter(), time.sleep
    assert work("recall", sample4geo)["agrees"]  # the naive one sleeps for half a minute
    assert time.perf_counter() - begun < 20
    assert time.sleep is sleep


# ------------------------------------------------------------------------------------------------------------ measuring


def test_both_sides_take_turns():
    order = []

    def side(name):
        return lambda: order.append(name) or name

    pair = sbs.Pair(side("a"), side("b"), lambda a, b: sbs.Verdict((a, b) == ("a", "b"), ""), lambda name: ord(name))
    found = sbs._timed(pair, replace(TINY, least=3, most=3))
    assert order == list("abababab")  # the first two warm up
    assert found["official"] == [97] * 3
    assert found["ours"] == [98] * 3


@pytest.mark.skipif(sys.platform != "linux", reason="Linux keeps the peak")
def test_memory_is_what_a_call_adds_at_most():
    held = torch.ones(5_000_000)  # 20 MB of inputs do not count

    def call():
        torch.ones(20_000_000).sum()  # 76 MB, given back
        torch.ones(10_000_000).sum()

    assert 70 < sbs._peak(call, CPU)["peak_mb"] < 130  # 76, and the 38 too where the first are not given back at once
    assert len(held) == 5_000_000


def test_recalls_are_read_from_what_is_printed():
    text = "Recall@1: 12.5000 - Recall@top1: 80.0000 - Hit_Rate: 33.3333\n"
    assert sbs.printed_recalls(text) == {"Recall@1": 12.5, "Recall@top1": 80.0, "Hit_Rate": 33.3333}
    assert not sbs.same_recalls({}, {"r_at_1": 1.0}, 10).agrees


def test_panoramas_are_smooth_and_close_around():
    image = sbs.panoramas(2, 64).float()
    assert image.shape == (2, 3, 64, 128)
    assert (image - image.roll(1, 3)).abs().max() < 25
    assert image.std() > 20


# ---------------------------------------------------------------------------------------------------------- the command


def test_what_was_not_given_is_said_in_its_rows(tmp_path, capsys):
    assert sbs.main(["--small", "--rows", "loss", "--out", str(tmp_path)]) == 0
    with (tmp_path / "side_by_side.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == sbs.COLUMNS
    assert [r["status"] for r in rows] == ["--vg-ssl not given"] * 6
    text = (tmp_path / "side_by_side.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 6
    assert {line.count("|") for line in table} == {10}
    assert text in capsys.readouterr().out


def test_unknown_rows(capsys):
    assert sbs.main(["--rows", "tea"]) == 2
    assert "expected a part of one of: top view of one panorama" in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_command_and_a_wrong_path_beside_it(sample4geo, tmp_path, capsys):
    environment = dict(os.environ)
    try:
        task = "nearest lists, beyond"
        arguments = ["--small", "--threads", "1", "--rows", task, "--out", str(tmp_path / "out")]
        status = sbs.main([*arguments, "--sample4geo", str(sample4geo), "--ucvgl", str(tmp_path / "nowhere")])
    finally:
        os.environ.clear()
        os.environ.update(environment)
    assert status == 2
    said = capsys.readouterr()
    assert said.err.count("error:") == 1
    assert f"--ucvgl {tmp_path / 'nowhere'}: expected a clone of" in said.err
    (line,) = pd.read_csv(tmp_path / "out" / "side_by_side.csv").to_dict("records")
    assert line["task"] == task
    assert "500 of 500 lists equal" in line["agreement"]
    assert line["repeats"] >= 3
    assert line["times_faster"] == pytest.approx(line["official_ms"] / line["ours_ms"], rel=1e-4)
    assert line["official_mb"] >= 0
    assert line["ours_mb"] >= 0
    assert list((tmp_path / "Sample4Geo").rglob("__pycache__")) == []
    assert "Sample4Geo no git checkout" in said.out
