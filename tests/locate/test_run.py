"""`ucvgl locate` as it is called: a small city from two folders to files, what is said where it cannot, and its report."""

import errno
import json
import shutil
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from geo_inputs import ORIGIN, place, save, small_city, table, texture, tiny_encoders, truth_of
from safetensors.torch import save_file

from ucvgl import cli
from ucvgl.encoders import EncoderConfig, save_model, two_view_encoder
from ucvgl.locate import inputs as reading
from ucvgl.locate import located
from ucvgl.locate import search as searching
from ucvgl.locate.confidence import Calibration
from ucvgl.locate.inputs import Inputs, Request, read_truth
from ucvgl.locate.located import FILES, Outcome, locate, rendered
from ucvgl.locate.pictures import BY_SHAPE, Ground, Picture

SIZE, PLACES = 32, 24
ENCODER = EncoderConfig("test_efficientnet", depth=2, image_px=(SIZE, SIZE), safa_heads=2)
MADE_UP = Calibration((0.0,) * 5, (0.05, 1.0, 1.0, 1.0, 1.0), (0.3, 0.0, 0.5, 0.0, 0.0), -1.0, "made-up")


@pytest.fixture(scope="module")
def city(tmp_path_factory, runs):
    """Two folders, and encoders that know nothing."""
    root = small_city(tmp_path_factory.mktemp("own") / "city", PLACES)
    tiny_encoders(root / "tiny.safetensors")
    patch = pytest.MonkeyPatch()
    patch.setattr(searching, "load_calibration", lambda path: replace(MADE_UP, measured_on=f"made-up {path.stem}s"))
    patch.setattr(located, "BACKGROUND_PX", 256)  # most of the time goes into large pictures
    yield SimpleNamespace(
        ground=root / "ground", tiles=root / "tiles", truth=root / "truth.csv", encoders=root / "tiny.safetensors"
    )
    patch.undo()


def located_in(city, out, truth=None):
    given = {"heading_deg": 0.0, "span_m": 32.0, "stride_m": 16.0, "epochs": 1, "checkpoint": str(city.encoders)}
    return locate(Request(city.ground, city.tiles, out, truth=truth, **given))


@pytest.fixture(scope="module")
def done(city, tmp_path_factory):
    """A whole run, with all positions known."""
    return located_in(city, tmp_path_factory.mktemp("out") / "located", city.truth)


@pytest.fixture
def ucvgl(city, monkeypatch, capsys, tmp_path):
    """The command on this city, written to tmp_path/out: exit status, stdout, stderr."""

    def run(*more, ground=city.ground, out=tmp_path / "out"):
        fixed = {"--ground": ground, "--tiles": city.tiles, "--out": out, "--span": 32, "--stride": 16, "--epochs": 1}
        words = [*chain(*fixed.items()), "--checkpoint", city.encoders, *more]
        monkeypatch.setattr(sys, "argv", ["ucvgl", "locate", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        said = capsys.readouterr()
        return caught.value.code or 0, said.out, said.err

    return run


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def placed_in(folder):
    """Rows of positions.csv by picture."""
    return pd.read_csv(folder / "positions.csv", keep_default_na=False).set_index("picture", drop=False)


@pytest.fixture
def pictures(city, tmp_path):
    """The pictures, to be spoilt."""
    return Path(shutil.copytree(city.ground, tmp_path / "ground"))


def says(folder, *lines):
    """Whether each line, or part of one, stands in the report of a run."""
    report = (folder / "report.md").read_text()
    return [line for line in lines if line not in report] == []


def test_every_file_is_written(city, ucvgl, tmp_path):
    code, said, _ = ucvgl("--heading", 0)
    out = tmp_path / "out"
    assert (code, names(out)) == (0, [*FILES])
    assert f"{PLACES} of {PLACES} pictures placed" in said
    assert said.rstrip().endswith(f"open {out / 'map.html'}")
    placed = placed_in(out)
    assert list(placed["picture"]) == names(city.ground)
    assert placed["probability"].between(0, 1, inclusive="neither").all()
    assert set(placed["notes"]) <= {BY_SHAPE, ""}
    page = (out / "map.html").read_text()
    assert ("pano_00007.jpg" in page, "<title>Where the pictures of ground were taken" in page) == (True, True)
    assert says(out, "`ucvgl locate --ground", f"| pictures placed | {PLACES} |", "made-up panoramas", "as they came",
                "2.5 m above flat ground", "show 0 degrees in their centre", "with others they are a guess")  # fmt: skip
    assert not says(out, "Against the known positions")


def test_a_dry_run_says_what_the_folders_hold_and_does_nothing(city, ucvgl, tmp_path):
    code, out, _ = ucvgl("--dry-run")
    assert code == 0
    assert list(tmp_path.iterdir()) == []
    assert f"{PLACES} without heading" in out
    assert "16 m apart" in out
    found = json.loads(ucvgl("--dry-run", "--json")[1])
    assert found["panoramas"] == found["without heading"] == PLACES
    assert f"{found['candidates']} candidates" in out


def test_a_drive_is_placed_together(done, ucvgl, tmp_path):
    assert ucvgl("--heading", 0, "--drive", "name", "--step", 30)[0] == 0
    alone, together = placed_in(done.folder), placed_in(tmp_path / "out")
    assert list(together["picture"]) == list(alone["picture"])
    assert list(together["probability"]) != list(alone["probability"])
    assert says(tmp_path / "out", "one drive in the order of their names, at most 30 m from one to the next")


def test_the_truth_judges_and_changes_nothing(city, done, tmp_path, monkeypatch):
    away = located.errors_m(done.places, read_truth(city.truth, names(city.ground)))[:, 0]
    assert (done.truth["known"], done.truth["median_error_m"]) == (PLACES, pytest.approx(np.median(away)))
    assert says(done.folder, f"| pictures with a known position | {PLACES} |")
    assert f"of {PLACES} with a known position" in rendered("outcome.txt.j2", outcome=done)

    monkeypatch.setattr("ucvgl.locate.search.train_on_pseudo_labels", None)  # would fail if it were trained again
    again = located_in(city, tmp_path / "out")
    assert (again.truth, again.found.rounds, again.places.equals(done.places)) == (None, done.found.rounds, True)
    (tmp_path / "few.csv").write_text("\n".join(city.truth.read_text().splitlines()[:6]))
    assert located_in(city, tmp_path / "out", tmp_path / "few.csv").truth["known"] == 5


def test_photos_and_panoramas_in_one_folder(city, ucvgl, pictures, tmp_path, monkeypatch):
    """Placed together, with the calibration of the less certain kind."""
    monkeypatch.setattr(searching, "TURNS", 4)
    for k in range(3):
        save(pictures / f"photo_{k}.jpg", texture(48, 64, k))
    listed = tmp_path / "ground.csv"
    listed.write_text("file,heading_deg,fov_deg\nphoto_0.jpg,10,70\nphoto_1.jpg,,70\nphoto_2.jpg,350,70\n")
    code, said, _ = ucvgl("--ground-table", listed, "--truth", city.truth, ground=pictures)
    assert (code, f"{PLACES + 3} of {PLACES + 3} pictures placed" in said) == (0, True)
    placed = placed_in(tmp_path / "out")
    assert placed["heading_deg"]["photo_0.jpg"] == 10
    assert placed["notes"][["photo_1.jpg", "photo_2.jpg"]].tolist() == ["heading searched for", ""]
    assert placed["heading_deg"]["pano_00000.jpg"] in (0, 90, 180, 270)
    assert says(tmp_path / "out", "made-up photo-turneds", f"headings of {PLACES + 1} pictures were searched for")


def test_one_corrupt_picture_is_left_out_and_json_is_all_that_stdout_gets(city, ucvgl, pictures, tmp_path):
    whole = (pictures / "pano_00005.jpg").read_bytes()
    (pictures / "pano_00005.jpg").write_bytes(whole[: len(whole) // 2])
    code, out, _ = ucvgl("--heading", 0, "--json", "--truth", city.truth, ground=pictures)
    found = json.loads(out)  # the stages' own lines once stood before it
    assert (code, found["files"]) == (0, [*FILES])
    assert (found["pictures"], found["placed"], found["truth"]["known"]) == (PLACES, PLACES - 1, PLACES - 1)
    assert 0 < found["expected_right"] < PLACES
    assert found["rounds"][0]["name"] == "as they came"
    (bad,) = found["unusable"]
    assert (bad["file"], "no whole image" in bad["reason"]) == ("pano_00005.jpg", True)
    assert "pano_00005.jpg" not in placed_in(tmp_path / "out").index
    assert says(tmp_path / "out", "| pano_00005.jpg | no whole image")


@pytest.fixture
def wrong(tmp_path):
    """Files that are not what they are given as."""
    (tmp_path / "notes.safetensors").write_text("these are my notes")
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    wide = replace(ENCODER, image_px=(SIZE, 2 * SIZE))
    for name, both in (("wide", (wide, ENCODER)), ("wide_tiles", (ENCODER, wide))):
        save_model(two_view_encoder(*both, shared=False, seed=0), tmp_path / f"{name}.safetensors")
    (tmp_path / "truth.csv").write_text("file,latitude,longitude\na.jpg,north,-30\n")
    (tmp_path / "others.csv").write_text("file,latitude,longitude\nsomewhere.jpg,45.0,-30.0\n")
    save(tmp_path / "photos" / "a.jpg", texture(48, 64))
    return tmp_path


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--ground", "nowhere", "nowhere"),
        ("--ground", "photos", "expected a usable picture, found 1 that are not"),
        ("--checkpoint", "none.safetensors", "no such file"),
        ("--checkpoint", "notes.safetensors", "a safetensors file"),
        ("--checkpoint", "other.safetensors", "the settings of two encoders"),
        ("--checkpoint", "wide.safetensors", "square top views"),
        ("--checkpoint", "wide_tiles.safetensors", "square top views and tiles"),
        ("--truth", "truth.csv", "truth.csv"),
        ("--truth", "others.csv", "ids such as 'pano_00000.jpg'"),
        ("--drive", "time", f"{PLACES} without, such as pano_00000.jpg"),
        ("--epochs", -1, "'--epochs'"),
        ("--heading", "nan", "heading_deg"),
        ("--camera-height", 0, "camera_height_m"),
        ("--stride", 0, "stride_m"),
        ("--speed", 0, "speed_m_s"),
        ("--kind", "video", "'video'"),
        ("--scheme", "wms", "'wms'"),
    ],
)
def test_what_cannot_be_used_is_told_before_any_work(ucvgl, wrong, monkeypatch, option, value, says):
    monkeypatch.setattr(located, "search", None)
    is_file = option in ("--ground", "--checkpoint", "--truth")
    code, out, said = ucvgl(option, wrong / value if is_file else value)
    assert (code, out) == (2, "")
    assert says in said
    assert not (wrong / "out" / "positions.csv").exists()


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_folder_that_holds_something_else_is_refused_before_any_work(ucvgl, tmp_path, monkeypatch, dry):
    monkeypatch.setattr(located, "read_inputs", lambda *given, **options: pytest.fail("read"))
    (tmp_path / "thesis.tex").write_text("mine")
    code, _, said = ucvgl(*dry, out=tmp_path)
    assert (code, names(tmp_path)) == (2, ["thesis.tex"])
    assert "thesis.tex" in said


@pytest.mark.parametrize(("options", "stage"), [([], (located, "search")), (["--dry-run"], (reading, "read_inputs"))])
def test_ctrl_c_is_status_130_and_the_files_of_before_stay(done, ucvgl, tmp_path, monkeypatch, options, stage):
    def stopped(*given, **options):
        raise KeyboardInterrupt

    folder = Path(shutil.copytree(done.folder, tmp_path / "out"))
    monkeypatch.setattr(*stage, stopped)
    code, out, said = ucvgl(*options)
    assert (code, out) == (130, "")
    assert "stopped; what was computed is kept" in said
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {p.name: p.read_bytes() for p in done.folder.iterdir()}


def test_a_full_disk_while_computing(ucvgl, tmp_path, monkeypatch):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path / "runs"))

    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(searching.np, "save", full)
    code, _, said = ucvgl("--heading", 0)
    assert (code, names(tmp_path / "out")) == (2, [])
    for words in ("No space left on device", "what was computed is kept", str(tmp_path / "runs")):
        assert words in said


@pytest.mark.parametrize("key", ["city/a.jpg", "city/a", "a.jpg", "a"])
def test_truth_is_found_with_or_without_folder_and_ending_and_may_be_unknown(tmp_path, key):
    (tmp_path / "truth.csv").write_text(f"file,latitude,longitude\n{key},60.17,24.94\nb.jpg,,\n")
    assert read_truth(tmp_path / "truth.csv", ["city/a.jpg", "b.jpg", "c.jpg"]) == {"city/a.jpg": ORIGIN}


# ------------------------------------------------------------------------------------------------------------- report.md


class Cut(SimpleNamespace):
    def __len__(self):
        return self.count


def report(placed=(), rounds=(), unusable=(), truth=None, notes=(), stride_m=10.0, epochs=10, drive=None):
    ground = Ground("g", tuple(Picture(row["picture"], "panorama", 64, 32, 360.0, 0.0) for row in placed), unusable, ())
    mosaic = SimpleNamespace(rasters=range(9), left_out=(), notes=notes)
    cut = Cut(count=81, span_m=50.0, stride_m=stride_m, mosaic=mosaic)
    inputs = Inputs(Request(Path("g"), Path("t"), Path("o"), epochs=epochs, drive=drive), ground, cut, None, None, {})
    found = SimpleNamespace(rounds=rounds, calibration=SimpleNamespace(measured_on="4 made-up cities"))
    return rendered(
        "report.md.j2", outcome=Outcome(Path("o"), "ucvgl locate", inputs, found, table(*placed), truth, 603.0)
    )


def rounds(*rates, hubness=0.5):
    same = {"mean_margin": 0.03, "cycle": 0.8, "hubness": hubness, "seconds": 61.0}
    names = ["as they came", *(f"epoch {i}" for i in range(1, len(rates)))]
    return [{"name": name, "labels": 10, "mutual_rate": rate, **same} for name, rate in zip(names, rates, strict=True)]


def test_a_report_says_what_happened():
    found = [place("a.jpg", 0.96), place("b.jpg", 0.6), place("c.jpg", 0.2)]
    truth = located.compare(table(*found), truth_of(a=(3.0, 4.0)))
    broken = (("bad|name`<b>.jpg", "cut\noff"),)
    text = report(found, rounds(0.3, 0.5), broken, truth, ("north is up",))
    for line in (
        "| pictures found | 4 |", "| files left out | 1 |", "| candidates of 50 m, 10 m apart | 81 |", "| seconds taken | 603 |",
        "| 95% or more | 1 | 96% |", "| 50% or more | 2 | 78% |", "| 0% or more | 3 | 59% |",
        "| epoch 1 | 10 | 50.0% | 0.0300 | 80.0% | 0.50 | 61 s |",
        "| placed within 10 m | 100.0% |", "| bad\\|name'&lt;b&gt;.jpg | cut off |", "- north is up",
        "fitted on 4 made-up cities", "- of the encoders those kept are: epoch 1,",
    ):  # fmt: skip
        assert line in text, line
    assert "Mutual matches were still growing" in text
    rows = [line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")]
    assert set(rows) == {3, 4, 8}  # no name has broken a table


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"rounds": rounds(0.05)}, "do not fit yet"),
        ({"rounds": rounds(0.5), "epochs": 0}, "may help (--epochs 10)"),
        ({"rounds": rounds(0.5, hubness=4.0)}, "hubness 4.0"),
        ({"rounds": rounds(0.2, 0.4)}, "still growing"),
        ({"stride_m": 25.0}, "stride of 10 m"),
        ({"unusable": (("a", "b"),)}, "could not be used"),
        ({"truth": None}, "--truth"),
    ],
)
def test_advice_names_what_was_seen_and_nothing_else(changes, word):
    known = {"truth": located.compare(table(place()), truth_of(a=(0.0, 0.0)))}
    text = report([place()] * 3, **known | changes)
    (advice,) = text.split("## What would help\n\n")[1].split("\n\n##")[0].splitlines()
    assert word in advice


def test_the_report_says_that_no_path_connects_a_drive():
    for p, said in ((0.01, True), (0.8, False)):
        assert ("No path connects" in report([place("a.jpg", p)], rounds(0.7), drive="name")) == said


def test_the_report_says_which_encoders_placed_the_pictures():
    for rates, words in (((0.5, 0.7, 0.6), "kept are: epoch 2,"), ((0.5, 0.4), "kept are: as they came,"),
                         ((0.5,), "no pseudo-label was found")):  # fmt: skip
        assert words in report([place()], rounds(*rates))
