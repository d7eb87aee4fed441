"""The graph, with toy notebooks and with real rows: plans, interruptions, a cluster, and what bad input says."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from toys import TABLE, edit_notebook, write_notebook

from ucvgl.errors import InputError
from ucvgl.lab import graph
from ucvgl.lab.settings import RunRequest, seeds_of
from ucvgl.paths import ROOT, write_json

UCVGL = [sys.executable, "-m", "ucvgl.cli"]


def executed(studio):
    """Which notebooks have run since the last call, each with its seed."""
    log = studio / "log"
    lines = sorted(log.read_text().splitlines()) if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def files_of(folder):
    return sorted(path.name for path in folder.iterdir())


def reproduce(*arguments, check=True):
    done = subprocess.run([*UCVGL, "reproduce", "--profile", "tiny", *arguments], capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"profile": "huge"}, "found 'huge'"),
        ({"data": "/no/such/folder"}, "found '/no/such/folder'"),
        *(({"seeds": seeds_of(text)}, "expected different whole numbers") for text in ("0,1,0", "0;1", "0,-1", "")),
        ({"panorama": "/no/such.jpg"}, "expected a picture file"),
        ({"rows": "hedline"}, "expected one of all, headline, smoke, found 'hedline'"),
        ({"drone": "/no/such"}, "expected a folder"),
        ({"drone": "/"}, "expected a notebook with that parameter"),
        ({"backbone": "vgg16"}, "expected the paper profile with it, found laptop"),
    ],
)
def test_wrong_settings_are_found_before_anything_runs(studio, wrong, message):
    write_notebook(studio / "notebooks", "01_toy")
    with pytest.raises(InputError, match=message):
        graph.plan(RunRequest(**wrong))


def planned(**asked):
    return graph.plan(RunRequest(**asked)).fingerprints


def test_what_makes_a_notebook_run_again(studio):
    """An edit, or another file that is given to it: itself; another choice of rows: all."""
    three, picture = 'profile = "tiny"\ndata = "world"\nseed = 0', studio / "my picture.jpg"
    first = write_notebook(studio / "notebooks", "01_a", parameters=f'{three}\npanorama = ""\nbackbone = "resnet50"')
    write_notebook(studio / "notebooks", "02_b", parameters=three)
    plain, found = planned(profile="paper"), []
    for content in (b"one", b"two"):
        picture.write_bytes(content)
        found.append(planned(profile="paper", panorama=str(picture), backbone="deit_small"))
    edit_notebook(first, "A toy", "Another toy")
    found.append(planned(profile="paper"))
    assert len({plan["01_a"] for plan in (plain, *found)}) == 4
    assert {plan["02_b"] for plan in (plain, *found)} == {plain["02_b"]}
    assert not {*planned(profile="paper", rows="all").values()} & {*plain.values(), *found[-1].values()}


@pytest.fixture
def own(tmp_path):
    """A data set of own folders; its files are never decoded here."""
    for k, side in itertools.product(range(2), ("ground", "satellite")):
        (tmp_path / "own" / side).mkdir(parents=True, exist_ok=True)
        (tmp_path / "own" / side / f"{k}.jpg").write_bytes(bytes(k + 1))
    return tmp_path / "own"


def test_reproduce_layout(studio, own, capfd):
    """Notebooks that are not for this layout are left out, and that is said; on the world all run."""
    write_notebook(studio / "notebooks", "01_a")
    write_notebook(studio / "notebooks", "02_b", layouts=("folders", "cvusa"))
    write_notebook(studio / "notebooks", "03_c", layouts=("vpr",))
    assert graph.plan(RunRequest()).left_out == []
    assert graph.reproduce(RunRequest("tiny", str(own)), more=["--dry-run"]) == 0
    said = capfd.readouterr()
    assert "not for data of this layout, left out: 03_c" in said.err
    assert re.search(r"notebook +2\n", said.out + said.err)


def test_stale_cache(studio, own):
    """A file that is replaced, added or taken away makes its data set's jobs run again, and no others."""
    write_notebook(studio / "notebooks", "01_a")
    seen, world = [planned(data=str(own))["01_a"]], planned()
    for change in (
        lambda: (own / "ground" / "1.jpg").write_bytes(b"of another size"),
        lambda: (own / "ground" / "2.jpg").write_bytes(b"2"),
        (own / "satellite" / "1.jpg").unlink,
        lambda: (own / "satellite" / "around").symlink_to(own),  # a circle
        lambda: (own / "satellite" / "gone.jpg").symlink_to(own / "none.jpg"),  # a link to nothing
    ):
        change()
        seen.append(planned(data=str(own))["01_a"])
    assert len(set(seen)) == 5  # a link to a folder is followed once
    assert planned() == world


ROWS = ("02/cold_start/full", "06/main/simclr")


def test_a_notebook_waits_for_the_stages_of_its_rows_which_a_dry_run_lists_with_their_cost(studio):
    write_notebook(studio / "notebooks", "02_b", rows=ROWS)
    write_notebook(studio / "notebooks", "03_c")
    found = graph.plan(RunRequest("tiny", seeds=seeds_of("0, 1")))
    stages = {job.key: job for job in found.stages}
    assert found.notebooks == {"02_b": [*ROWS], "03_c": []}
    (row, simclr), other = found.keys("02_b", 0), found.keys("02_b", 1)
    assert not {row, simclr} & {*other}
    assert [key.rpartition("-")[0] for key in stages] == [
        "images", "intra-view", "cross-view", "drives", "vg-ssl", "intra-view", "cross-view", "vg-ssl",
    ]  # fmt: skip
    images, intra, cross = list(stages.values())[:3]
    assert (images.needs, intra.needs, cross.needs) == ([], [images.key], [images.key, intra.key])
    assert intra.memory == cross.memory > images.memory == 0  # of the largest step in the chain
    # 80 places of panoramas 64 x 128 and tiles 32 x 32, made ready at 32 x 64 and 32 x 32, with top views of 32 x 32
    assert images.disk == 80 * 3 * (64 * 128 + 32 * 32 + 32 * 64 + 2 * 32 * 32)
    assert found.rows == {ROWS[0]: [cross.key, other[0]], ROWS[1]: [simclr, other[1]]}
    assert not found.stage_jobs  # they take less time than a process begins in
    assert graph.plan(RunRequest("laptop")).stage_jobs
    for cached in (0, 1):
        said = graph.dry_run(found, 2)
        assert re.search(rf"02/cold_start/full +cross-view-\w+ +{cached}/2 +144 +6 +0.0 +0.00 ", said)
        assert f"need 8 stages; {cached} are in the cache" in said
        assert re.search(r"about 0.0 hours, \d side by side, and 0.0 GB on disk", said)
        write_json(graph.marker(other[0]), {})


def test_a_plan_is_kept_until_something_it_depends_on_changes(studio, monkeypatch):
    path = write_notebook(studio / "notebooks", "02_b", rows=ROWS)
    first, file = graph.kept_plan(RunRequest("tiny"))
    with monkeypatch.context() as patch:
        patch.setattr(graph, "plan", lambda *_: pytest.fail("planned again"))
        assert graph.kept_plan(RunRequest("tiny")) == (first, file)
    file.write_text("{")  # a damaged file is no plan
    assert graph.kept_plan(RunRequest("tiny"))[0] == first
    edit_notebook(path, "A toy", "Another toy")
    assert graph.kept_plan(RunRequest("tiny"))[1] != file


@pytest.mark.slow
def test_rows_train_side_by_side_a_killed_run_keeps_them_and_one_that_fails_is_named(studio):
    notebook = write_notebook(studio / "notebooks", "02_b", rows=ROWS)
    options = ("--cores", "2", "--stage-jobs")
    marks = [graph.marker(job.key) for job in graph.plan(RunRequest("tiny")).stages]
    command = [*UCVGL, "reproduce", "--profile", "tiny", *options]
    child = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list((studio / "runs").glob("*-*/result.json")):  # the first training is done
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.1)
    second = reproduce(*options, check=False)
    assert second.returncode == 1
    assert "another `make reproduce` is at work here" in second.stdout + second.stderr
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    kept = {path: path.stat().st_mtime_ns for path in (studio / "runs").glob("*-*/result.json")}
    reproduce(*options)
    assert executed(studio) == ["02_b 0"]
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    spans = {}  # when each began and ended
    for mark in marks:
        end = mark.stat().st_mtime
        spans[mark.stem.rpartition("-")[0]] = end - json.loads(mark.read_text())["seconds"], end
    pairs = [(spans[a], spans[b]) for a in ("images", "intra-view", "cross-view") for b in ("drives", "vg-ssl")]
    assert any(one[0] < other[1] and other[0] < one[1] for one, other in pairs), spans
    assert "everything was up to date" in reproduce(*options).stderr

    # a row that is no longer whole stops its notebook, which is edited and so to be run again, and no other
    edit_notebook(notebook, "A toy", "Another toy")
    (stage,) = (studio / "runs").glob("vg-ssl-*/result.json")
    stage.write_text("{")
    marks[-1].unlink()
    write_notebook(studio / "notebooks", "03_c")
    done = reproduce(*options, check=False)
    assert done.returncode == 1
    assert f"{stage.parent}: expected a whole stage, with config.json and result.json" in done.stderr
    assert "02_b seed 0: not run, these of its rows are missing: 06/main/simclr" in done.stderr
    assert executed(studio) == ["03_c 0"]


@pytest.mark.slow
def test_several_jobs_run_then_rest_then_rerun_what_was_edited(studio):
    first = write_notebook(studio / "notebooks", "01_a")
    write_notebook(studio / "notebooks", "02_b")
    reproduce("--seed", "0,1", "--cores", "2")
    assert executed(studio) == ["01_a 0", "01_a 1", "02_b 0", "02_b 1"]
    published = studio / "figures" / "tiny" / "01_a"
    assert files_of(published) == ["results.json", "toy.csv", "toy.json", "toy.md"]
    assert json.loads((published / "results.json").read_text())["numbers"] == {"0": {"best": 20.0}, "1": {"best": 21.0}}

    first.touch()
    done = reproduce("--seed", "0,1", "--cores", "2")
    assert "everything was up to date, nothing was run" in done.stderr
    assert executed(studio) == []

    # in a fresh clone figures/ is there and runs/ is not: everything is to be made
    (studio / "runs").rename(studio / "elsewhere")
    done = reproduce("--seed", "0,1", "--cores", "2", "--", "--dry-run", "--quiet", "rules")
    assert re.search(r"notebook +4\npublish +2\n", done.stdout + done.stderr)
    shutil.rmtree(studio / "runs")
    (studio / "elsewhere").rename(studio / "runs")

    # an edited notebook is run again, alone; one that fails stops its own jobs, not the others
    edit_notebook(first, '"toy"', '"renamed"')
    write_notebook(studio / "notebooks", "03_c", "raise RuntimeError('no such city')")
    done = reproduce("--seed", "0,1", "--cores", "2", check=False)
    assert done.returncode == 1
    summary = done.stderr[done.stderr.index("At least one job") :]
    assert "03_c seed 0: cell 4 of 5 failed" in summary
    assert "RuntimeError: no such city" in summary
    assert "seed0/03_c.failed.ipynb" in summary
    assert executed(studio) == ["01_a 0", "01_a 1", "03_c 0", "03_c 1"]
    assert not (studio / "figures" / "tiny" / "03_c").exists()
    assert files_of(published) == ["renamed.csv", "renamed.json", "renamed.md", "results.json"]


KILLED_ONCE = """\
import signal, time
from dataclasses import dataclass
from pathlib import Path
from ucvgl.lab.stages import run_stage
@dataclass(frozen=True)
class Config:
    steps: int = 4
def compute(folder):
    for step in range(4):
        with (folder / "steps").open("a") as file:
            file.write(f"{step}\\n")
        if step == 2 and not Path(os.environ["TOY_KILLED"]).exists():
            Path(os.environ["TOY_KILLED"]).touch()
            os.kill(os.getppid(), signal.SIGKILL)  # the job: `ucvgl notebook`, whose kernel this is
            time.sleep(600)  # the kernel ends when it sees that
    return {"steps": (folder / "steps").read_text().split()}
stage = run_stage("toy", Config(), "world", compute)
assert stage.resumed and stage.numbers["steps"] == ["0", "1", "2", "0", "1", "2", "3"]
"""  # a stage that is killed in its third step, goes on from its folder, and finds what it wrote before
CLUSTER = """\
executor: cluster-generic
cluster-generic-submit-cmd: {submit}
seconds-between-status-checks: 1
jobs: 2
retries: 2
latency-wait: 60
default-resources: {{runtime: 1440, mem_mb: 1000}}
set-resources: {{notebook: {{gpu: 1}}, stage: {{gpu: 1}}}}
set-threads: {{notebook: 1, stage: 1}}
"""  # docs' profile for Slurm, with a 'cluster' that starts its jobs here


@pytest.mark.slow
def test_on_a_cluster_a_killed_job_is_retried_beside_the_others_and_its_result_is_whole(studio, monkeypatch):
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    monkeypatch.setenv("TOY_KILLED", str(studio / "killed"))
    write_notebook(studio / "notebooks", "01_a", KILLED_ONCE, TABLE)
    write_notebook(studio / "notebooks", "02_b", rows=ROWS[1:])
    submit = studio / "submit"
    submit.write_text(f'#!/bin/sh\necho job >> {studio}/submitted\nnohup sh "$1" >/dev/null 2>&1 &\necho $!\n')
    submit.chmod(0o755)
    (studio / "cluster").mkdir()
    (studio / "cluster" / "config.yaml").write_text(CLUSTER.format(submit=submit))
    reproduce("--stage-jobs", "--", "--executor", "cluster-generic", "--profile", str(studio / "cluster"))
    assert (studio / "killed").exists()
    assert executed(studio) == ["01_a 0", "01_a 0", "02_b 0"]
    assert (studio / "submitted").read_text().split() == ["job"] * 5  # two stages, too; publishing is done here
    for name in ("01_a", "02_b"):
        assert files_of(studio / "figures" / "tiny" / name) == ["results.json", "toy.csv", "toy.json", "toy.md"]
    assert not [path for path in (studio / "runs").rglob("*") if path.name.endswith((".partial", ".failed.ipynb"))]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["make", "reproduce", "PROFIL=tiny"], "unknown setting: PROFIL. Known ones: PROFILE DATA SEED"),
        ([*UCVGL, "reproduce", "--profile", "laptp"], "profile: expected one of tiny, laptop, paper, found 'laptp'"),
    ],
)
def test_a_mistyped_setting_is_one_line_and_status_2(command, message):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr
