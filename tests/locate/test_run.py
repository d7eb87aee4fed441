"""`ucvgl locate` as it is called: a small city from two folders to files, and what is said where it cannot."""

import csv
import errno
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from ucvgl import cli
from ucvgl.data.files import read_position_table
from ucvgl.encoders import EncoderConfig, save_model, two_view_encoder
from ucvgl.errors import InputError
from ucvgl.locate import inputs as reading
from ucvgl.locate import located, map_page
from ucvgl.locate import run as module
from ucvgl.locate import search as searching
from ucvgl.locate.confidence import Calibration
from ucvgl.locate.inputs import Request, read_inputs
from ucvgl.locate.located import MARK, read_truth
from ucvgl.locate.map_page import background_of
from ucvgl.locate.pictures import BY_SHAPE
from ucvgl.locate.run import locate, plan, plan_text
from ucvgl.positions import Positions, Wgs84, to_metres
from ucvgl.world import own_city
from ucvgl.world.own_city import export_own_city
from ucvgl.world.pairs import WorldConfig

SIZE, PLACES = 32, 24
ENCODER = EncoderConfig("test_efficientnet", depth=2, image_px=(SIZE, SIZE), safa_heads=2)
MADE_UP = Calibration(
    ("margin", "match"),
    (0.0, 0.0),
    (0.05, 1.0),
    (0.3, 0.5),
    -1.0,
    (0.1,) * 4,
    "made-up cities",
    10,
    5,
)
FILES = ["map.html", "map.png", "positions.csv", "positions.geojson", "positions.gpkg", "report.md"]
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    """Two folders, encoders that know nothing, and a run cache of the module's own."""
    patch = pytest.MonkeyPatch()
    patch.setenv("UCVGL_RUNS", str(tmp_path_factory.mktemp("runs")))
    patch.setattr(searching, "load_calibration", lambda path: replace(MADE_UP, measured_on=f"made-up {path.stem}s"))
    patch.setattr(map_page, "BACKGROUND_PX", 256)  # most of the time goes into large pictures
    patch.setattr(map_page, "BACKGROUND_PARTS", 16)
    patch.setattr(module, "PICTURE_PX", 64)
    root = export_own_city(
        tmp_path_factory.mktemp("own") / "city",
        WorldConfig(("downtown",), 0, PLACES, 8.0, "medium", 24.0, 64, 32, 256.0, 0.5), zoom=20, progress=False,
    )  # fmt: skip
    encoders = root / "tiny.safetensors"
    save_model(two_view_encoder(ENCODER, ENCODER, shared=False, seed=0), encoders)
    yield SimpleNamespace(ground=root / "ground", tiles=root / "tiles", truth=root / "truth.csv", encoders=encoders)
    patch.undo()


def request(city, out, **changes):
    plain = Request(
        city.ground,
        city.tiles,
        out,
        heading_deg=0.0,
        span_m=32.0,
        stride_m=16.0,
        checkpoint=str(city.encoders),
        epochs=1,
    )
    return replace(plain, **changes)


@pytest.fixture(scope="module")
def done(city, tmp_path_factory):
    """A whole run, with all positions known."""
    out = tmp_path_factory.mktemp("out") / "located"
    return locate(request(city, out, truth=city.truth), command="ucvgl locate ...", progress=False)


def read_positions(path):
    """Rows of positions.csv as the tests look at them."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        SimpleNamespace(
            picture=row["picture"], latitude=float(row["latitude"]), longitude=float(row["longitude"]),
            probability=float(row["probability"]), heading_deg=float(row["heading_deg"]) if row["heading_deg"] else None,
            notes=tuple(filter(None, row["notes"].split("; "))),
            candidates=[row[f"candidate_{n}_tile"] for n in range(1, 6) if row[f"candidate_{n}_tile"]],
        )
        for row in rows
    ]  # fmt: skip


@pytest.fixture
def ucvgl(monkeypatch, capsys):
    """The command: exit status, stdout, stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["ucvgl", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        said = capsys.readouterr()
        return caught.value.code or 0, said.out, said.err

    return run


def words(city, out, *more):
    return ["locate", "--ground", city.ground, "--tiles", city.tiles, "--out", out, "--span", 32, "--stride", 16,
            "--checkpoint", city.encoders, "--epochs", 1, *more]  # fmt: skip


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def copied(city, tmp_path):
    """The pictures, to be spoilt."""
    return Path(shutil.copytree(city.ground, tmp_path / "ground"))


# ------------------------------------------------------------------------------------------------------------- what is made


def test_every_file_is_written(city, ucvgl, tmp_path):
    code, out, _ = ucvgl(*words(city, tmp_path / "out", "--heading", 0))
    assert code == 0
    assert names(tmp_path / "out") == [MARK, *FILES]
    assert f"{PLACES} of {PLACES} pictures placed" in out
    assert out.rstrip().endswith(f"open {tmp_path / 'out' / 'map.html'}")
    placed = read_positions(tmp_path / "out" / "positions.csv")
    assert [one.picture for one in placed] == names(city.ground)
    assert all(len(one.candidates) == 5 and 0 < one.probability < 1 and set(one.notes) <= {BY_SHAPE} for one in placed)
    places = read_position_table(city.truth)[1].values
    low, high = places.min(0), places.max(0)
    assert all((low - 1e-3 < (one.latitude, one.longitude)).all() for one in placed)
    assert all(((one.latitude, one.longitude) < high + 1e-3).all() for one in placed)
    points = json.loads((tmp_path / "out" / "positions.geojson").read_text())["features"]
    assert [point["properties"]["picture"] for point in points] == names(city.ground)
    page = (tmp_path / "out" / "map.html").read_text()
    assert "pano_00007.jpg" in page
    assert "<title>Where the pictures of ground were taken" in page
    with Image.open(tmp_path / "out" / "map.png") as image:
        assert min(image.size) > 500
    report = (tmp_path / "out" / "report.md").read_text()
    for line in ("`ucvgl locate --ground", f"| pictures placed | {PLACES} |", "made-up panoramas", "as they came",
                 "2.5 m above flat ground", "show 0 degrees in their centre", "with others they are a guess"):  # fmt: skip
        assert line in report
    assert "Against the known positions" not in report


def test_json_is_all_that_stdout_gets(city, ucvgl, tmp_path):
    code, out, _ = ucvgl(*words(city, tmp_path / "out", "--heading", 0, "--json", "--truth", city.truth))
    found = json.loads(out)  # the stages' own lines once stood before it
    assert code == 0
    assert (found["pictures"], found["placed"], found["unusable"]) == (PLACES, PLACES, [])
    assert found["files"] == FILES
    assert found["truth"]["known"] == PLACES
    assert 0 < found["expected_right"] < PLACES
    assert found["rounds"][0]["name"] == "as they came"
    assert set(found["seconds"]) == {"checking the imagery", "projecting, training and searching panoramas",
                                     "drawing the map"}  # fmt: skip
    code, out, _ = ucvgl(*words(city, tmp_path / "other", "--json", "--dry-run"))
    assert json.loads(out)["candidates"] == found["candidates"]
    assert not (tmp_path / "other").exists()


def test_the_same_again_gives_the_same_from_the_cache(city, done, tmp_path, monkeypatch):
    monkeypatch.setattr("ucvgl.locate.adapt.train_on_pseudo_labels", None)  # would fail if it were trained again
    again = locate(request(city, tmp_path / "out", truth=city.truth), progress=False)
    assert again.located == done.located


def test_the_background_shows_all_tiles(city):
    inputs = read_inputs(request(city, "unused"), progress=False)
    found = background_of(inputs.mosaic)
    assert found.image.shape[0] == 3
    assert 200 < max(found.image.shape[1:]) <= 256
    tiles = inputs.mosaic.positions.values
    south, west = tiles.min(0)
    north, east = tiles.max(0)
    assert found.south < south < north < found.north
    assert found.west < west < east < found.east
    assert float((found.image == 214).all(0).float().mean()) < 0.05  # grey where no tile is


# ------------------------------------------------------------------------------------------------------- plan and dry run


def test_a_dry_run_says_and_writes_nothing(city, ucvgl, tmp_path, monkeypatch):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path / "runs"))
    code, out, _ = ucvgl(*words(city, tmp_path / "out", "--dry-run"))
    assert code == 0
    assert list(tmp_path.iterdir()) == []
    inputs = read_inputs(request(city, tmp_path / "out", heading_deg=None), progress=False)
    for said in (f"Would place {PLACES} panoramas among {len(inputs.candidates)} candidates",
                 f"Would search the heading of {PLACES}", "Would train for 1 epochs", "would take about",
                 str(tmp_path / "out" / "positions.csv"), "candidates of 32 m, 16 m apart"):  # fmt: skip
        assert said in out


def test_a_plan_counts(city, tmp_path):
    asked = request(city, tmp_path / "out", epochs=3, truth=city.truth)
    inputs = read_inputs(asked, progress=False)
    found = plan(inputs)
    assert (found["pictures"], found["without_heading"]) == ({"panorama": PLACES}, {"panorama": 0})
    assert found["epochs"] == 3
    assert found["seconds"] > 0
    assert sorted(Path(name).name for name in found["writes"]) == FILES
    blind = replace(asked, heading_deg=None, turns=4)
    assert plan(read_inputs(blind, progress=False))["without_heading"] == {"panorama": PLACES}
    assert "All headings are known or stated." in plan_text(found)


# ------------------------------------------------------------------------------------------------------------- a drive


def test_a_drive_is_placed_together(city, done, ucvgl, tmp_path):
    code, out, _ = ucvgl(*words(city, tmp_path / "out", "--heading", 0, "--drive", "name", "--step", 30))
    assert code == 0, out
    alone, together = (read_positions(folder / "positions.csv") for folder in (done.folder, tmp_path / "out"))
    assert [one.picture for one in together] == [one.picture for one in alone]
    assert [one.probability for one in together] != [one.probability for one in alone]
    report = (tmp_path / "out" / "report.md").read_text()
    assert "one drive in the order of their names, at most 30 m from one to the next (--speed, --step)" in report


def test_a_drive_by_time_wants_time_stamps(city, ucvgl, tmp_path):
    code, _, error = ucvgl(*words(city, tmp_path / "out", "--heading", 0, "--drive", "time"))
    assert code == 2
    assert f"{PLACES} without, such as pano_00000.jpg" in error
    assert not (tmp_path / "out" / "positions.csv").exists()


# ----------------------------------------------------------------------------------------------- positions that are known


def test_the_truth_judges_what_was_found(city, done):
    truth = read_truth(city.truth, names(city.ground))
    away = located.errors_m(done.located, truth)[:, 0]
    found = done.truth
    assert found.known == PLACES
    assert found.median_error_m == pytest.approx(np.median(away))
    assert found.recall == pytest.approx((away <= 10).mean())
    report = (done.folder / "report.md").read_text()
    assert f"| pictures with a known position | {PLACES} |" in report
    assert "corrected by the known positions" in report
    assert f"of {PLACES} with a known position" in done.text()


def test_probabilities_are_corrected_by_twenty_known_positions(city, done, tmp_path):
    plain = locate(request(city, tmp_path / "plain"), progress=False)
    assert plain.truth is None
    assert [one.probability for one in plain.located] != [one.probability for one in done.located]
    assert [one.candidates for one in plain.located] == [one.candidates for one in done.located]
    few = tmp_path / "few.csv"
    few.write_text("".join(city.truth.read_text().splitlines(keepends=True)[:6]))
    some = locate(request(city, tmp_path / "out", truth=few), progress=False)
    assert some.truth.known == 5
    assert some.located == plain.located
    assert names(tmp_path / "out") == [MARK, *FILES]


def test_labels_are_trained_on_and_not_judged(city, tmp_path, monkeypatch):
    labels = tmp_path / "labels.csv"
    labels.write_text("".join(city.truth.read_text().splitlines(keepends=True)[:5]))
    given, real = [], module.search

    def watched(inputs, kind, known, **options):
        given.append(known)
        return real(inputs, kind, known, **options)

    monkeypatch.setattr(module, "search", watched)
    found = locate(request(city, tmp_path / "out", truth=city.truth, labels=labels), progress=False)
    assert int((given[0] >= 0).sum()) == 4
    assert found.truth.known == PLACES - 4
    assert "take no part in the evaluation" in (tmp_path / "out" / "report.md").read_text()
    same = locate(request(city, tmp_path / "same", truth=labels, labels=labels), progress=False)
    assert same.truth is None  # nothing is left to judge by; it once ended in an error


def test_labels_are_the_nearest_candidates(city, tmp_path):
    rows = city.truth.read_text().splitlines()
    far = rows[3].split(",")
    far[1] = str(float(far[1]) + 0.01)  # a kilometre to the north of all tiles
    table = tmp_path / "labels.csv"
    table.write_text("\n".join([*rows[:3], ",".join(far)]) + "\n")
    inputs = read_inputs(request(city, "unused", labels=table), progress=False)
    given = module.label_candidates(inputs)
    assert set(given) == {row.split(",")[0] for row in rows[1:3]}
    known = read_truth(city.truth, names(city.ground))
    where = to_metres(Positions([known[name] for name in names(city.ground)], Wgs84()), inputs.mosaic.origin).values
    for name in (row.split(",")[0] for row in rows[1:3]):
        k = names(city.ground).index(name)
        away = np.hypot(*(inputs.candidates.centre_m - where[k]).T)
        assert given[name] == away.argmin()
    assert module.label_candidates(read_inputs(request(city, "unused"), progress=False)) == {}


@pytest.mark.parametrize("option", ["--truth", "--labels"])
def test_positions_of_other_pictures_are_told_before_any_work(city, ucvgl, tmp_path, monkeypatch, option):
    monkeypatch.setattr(module, "search", None)
    table = tmp_path / "others.csv"
    table.write_text("file,latitude,longitude\nsomewhere.jpg,45.0,-30.0\n")
    code, _, said = ucvgl(*words(city, tmp_path / "out", option, table))
    assert code == 2
    assert "ids such as 'pano_00000.jpg'" in said


# ------------------------------------------------------------------------------------------------------- pictures of all kinds


def photo(path, k=0):
    pixels = np.random.default_rng(k).integers(0, 256, (6, 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def test_photos_and_panoramas_in_one_folder(city, ucvgl, tmp_path):
    folder = copied(city, tmp_path)
    for k in range(3):
        photo(folder / f"photo_{k}.jpg", k)
    table = tmp_path / "ground.csv"
    table.write_text("file,heading_deg,fov_deg\nphoto_0.jpg,10,70\nphoto_1.jpg,,70\nphoto_2.jpg,350,70\n")
    out = tmp_path / "out"
    mixed = SimpleNamespace(**{**vars(city), "ground": folder})
    code, said, _ = ucvgl(*words(mixed, out, "--ground-table", table, "--turns", 4, "--truth", city.truth))
    assert code == 0
    assert f"{PLACES + 3} of {PLACES + 3} pictures placed" in said
    placed = {one.picture: one for one in read_positions(out / "positions.csv")}
    assert placed["photo_0.jpg"].heading_deg == 10
    assert placed["photo_1.jpg"].notes == ("heading searched for",)
    assert placed["photo_2.jpg"].notes == ()
    assert placed["pano_00000.jpg"].heading_deg in (0, 90, 180, 270)
    report = (out / "report.md").read_text()
    assert "made-up panorama-turneds; made-up photo-turneds" in report
    assert "panoramas, as they came" in report
    assert "photos, as they came" in report
    assert f"headings of {PLACES} panoramas were searched for among 4 turns" in report
    assert "headings of 1 photos were searched for among 4 turns" in report


def test_one_photo_among_panoramas_is_placed_too(city, tmp_path):
    folder = copied(city, tmp_path)
    photo(folder / "photo.jpg")
    found = locate(request(city, tmp_path / "out", ground=folder, fov_deg=70.0), progress=False)
    assert len(found.located) == PLACES + 1


def test_photos_without_a_field_of_view_are_told(city, ucvgl, tmp_path):
    folder = tmp_path / "ground"
    folder.mkdir()
    photo(folder / "a.jpg")
    photo(folder / "b.jpg", 1)
    code, _, said = ucvgl(*words(SimpleNamespace(**{**vars(city), "ground": folder}), tmp_path / "out"))
    assert code == 2
    assert "expected a usable picture, found 2 that are not" in said
    assert "a.jpg: a photo without a field of view" in said


def test_one_corrupt_picture_is_named_and_left_out(city, ucvgl, tmp_path):
    folder = copied(city, tmp_path)
    whole = (folder / "pano_00005.jpg").read_bytes()
    (folder / "pano_00005.jpg").write_bytes(whole[: len(whole) // 2])
    spoilt = SimpleNamespace(**{**vars(city), "ground": folder})
    code, out, _ = ucvgl(*words(spoilt, tmp_path / "out", "--heading", 0, "--json", "--truth", city.truth))
    found = json.loads(out)
    assert code == 0
    assert (found["pictures"], found["placed"], found["truth"]["known"]) == (PLACES, PLACES - 1, PLACES - 1)
    (bad,) = found["unusable"]
    assert bad["file"] == "pano_00005.jpg"
    assert "no whole image" in bad["reason"]
    assert "pano_00005.jpg" not in {one.picture for one in read_positions(tmp_path / "out" / "positions.csv")}
    report = (tmp_path / "out" / "report.md").read_text()
    assert "| files left out | 1 |" in report
    assert "| pano_00005.jpg | no whole image" in report


# ------------------------------------------------------------------------------------------------------- what cannot be used


def no_ground(city, tmp_path, monkeypatch):
    return {"ground": tmp_path / "nowhere"}


def no_checkpoint(city, tmp_path, monkeypatch):
    return {"checkpoint": str(tmp_path / "none.safetensors")}


def text_as_checkpoint(city, tmp_path, monkeypatch):
    (tmp_path / "notes.safetensors").write_text("these are my notes")
    return {"checkpoint": str(tmp_path / "notes.safetensors")}


def other_checkpoint(city, tmp_path, monkeypatch):
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    return {"checkpoint": str(tmp_path / "other.safetensors")}


def encoders_of_panoramas(city, tmp_path, monkeypatch):
    wide = replace(ENCODER, image_px=(SIZE, 2 * SIZE))
    save_model(two_view_encoder(wide, ENCODER, shared=False, seed=0), tmp_path / "wide.safetensors")
    return {"checkpoint": str(tmp_path / "wide.safetensors")}


def wide_tiles(city, tmp_path, monkeypatch):
    wide = replace(ENCODER, image_px=(SIZE, 2 * SIZE))
    save_model(two_view_encoder(ENCODER, wide, shared=False, seed=0), tmp_path / "wide.safetensors")
    return {"checkpoint": str(tmp_path / "wide.safetensors")}


def labels_without_training(city, tmp_path, monkeypatch):
    return {"labels": city.truth, "epochs": 0}


def bad_truth(city, tmp_path, monkeypatch):
    (tmp_path / "truth.csv").write_text("file,latitude,longitude\na.jpg,north,-30\n")
    return {"truth": tmp_path / "truth.csv"}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (no_ground, "nowhere"),
        (no_checkpoint, "no such file"),
        (text_as_checkpoint, "a safetensors file"),
        (other_checkpoint, "the settings of two encoders"),
        (encoders_of_panoramas, "--ground-input panorama"),
        (wide_tiles, "square tiles"),
        (bad_truth, "truth.csv"),
        (labels_without_training, "epochs to train on them"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_status_2(city, ucvgl, tmp_path, monkeypatch, make, says):
    changes = make(city, tmp_path, monkeypatch)
    monkeypatch.setattr(module, "search", None)
    more = [word for name, value in changes.items() for word in (f"--{name}", value)]
    code, out, said = ucvgl(*words(city, tmp_path / "out", *more))
    assert (code, out) == (2, "")
    assert said.splitlines()[-1].startswith("ucvgl: ")
    with pytest.raises(InputError, match=says):
        read_inputs(request(city, tmp_path / "out", **changes), progress=False)
    assert set(names(tmp_path / "out")) <= {MARK}


@pytest.mark.parametrize(("option", "value"), [("--kind", "video"), ("--scheme", "wms"), ("--ground-input", "polar")])
def test_options_that_do_not_exist_are_told(city, ucvgl, tmp_path, option, value):
    code, _, said = ucvgl(*words(city, tmp_path / "out", option, value))
    assert code == 2
    assert option in said
    assert repr(value) in said


@pytest.mark.parametrize(
    ("option", "value"), [("--epochs", -1), ("--turns", 6), ("--camera-height", 0), ("--stride", 0)]
)
def test_settings_out_of_range_are_told(city, ucvgl, tmp_path, option, value):
    code, _, said = ucvgl(*words(city, tmp_path / "out", option, value))
    assert code == 2
    assert "expected" in said


def test_a_folder_that_holds_something_else_is_refused_before_any_work(city, ucvgl, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "read_inputs", lambda *given, **options: pytest.fail("read"))
    (tmp_path / "thesis.tex").write_text("mine")
    code, _, said = ucvgl(*words(city, tmp_path))
    assert code == 2
    assert "thesis.tex" in said
    assert contents(tmp_path) == {"thesis.tex": b"mine"}


# --------------------------------------------------------------------------------------------------- stopped, and a full disk


def test_ctrl_c_is_status_130_and_the_files_of_before_stay(city, done, ucvgl, tmp_path, monkeypatch):
    def stopped(*given, **options):
        raise KeyboardInterrupt

    folder = Path(shutil.copytree(done.folder, tmp_path / "out"))
    before = contents(folder)
    monkeypatch.setattr(module, "search", stopped)
    code, out, said = ucvgl(*words(city, folder))
    assert (code, out) == (130, "")
    assert "stopped; what was computed is kept" in said
    assert contents(folder) == before
    monkeypatch.setattr(reading, "read_inputs", stopped)
    assert ucvgl(*words(city, folder, "--dry-run"))[0] == 130


def test_a_full_disk_while_computing(city, ucvgl, tmp_path, monkeypatch):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path / "runs"))

    def full(*given, **options):
        raise FULL

    real = np.lib.format.open_memmap

    def opened(path, *rest, **options):
        return full() if "candidates" in path.parent.name else real(path, *rest, **options)

    monkeypatch.setattr(np.lib.format, "open_memmap", opened)
    code, _, said = ucvgl(*words(city, tmp_path / "out", "--heading", 0))
    assert code == 2
    assert "No space left on device" in said
    assert "what was computed is kept" in said
    assert str(tmp_path / "runs") in said
    assert names(tmp_path / "out") == [MARK]
    whole = [p.name for p in (tmp_path / "runs").iterdir() if not p.name.startswith(".")]
    assert len(whole) == 1
    assert whole[0].startswith("street-views-")


@pytest.mark.parametrize("file", FILES)
def test_a_full_disk_while_writing_leaves_the_files_of_before(city, done, ucvgl, tmp_path, monkeypatch, file):
    folder = Path(shutil.copytree(done.folder, tmp_path / "out"))
    before = contents(folder)
    real, real_image = Path.write_text, plt.Figure.savefig

    def text(self, *given, **options):
        if self.name.startswith(f".{file}."):
            real(self, "half of")
            raise FULL
        return real(self, *given, **options)

    def image(self, path, **options):
        if Path(path).name.startswith(f".{file}."):
            Path(path).write_bytes(b"half of")
            raise FULL
        return real_image(self, path, **options)

    def geopackage(path, rows):
        path.write_bytes(b"half of")
        if file == "positions.gpkg":
            raise FULL

    monkeypatch.setattr(located, "_write_geopackage", geopackage)
    monkeypatch.setattr(Path, "write_text", text)
    monkeypatch.setattr(plt.Figure, "savefig", image)
    code, _, said = ucvgl(*words(city, folder, "--heading", 0))
    assert code == 2
    assert "No space left on device" in said
    assert contents(folder)[file] == before[file]
    assert names(folder) == [MARK, *FILES]  # nothing half-written
    assert not plt.get_fignums()


# ------------------------------------------------------------------------------------------------------------------ the city


@pytest.mark.parametrize(
    ("options", "expected"), [([], ["--heading", "0"]), (["--photo-fov", "80"], ["--ground-table"])]
)
def test_the_city_says_how_to_place_it(tmp_path, monkeypatch, options, expected):
    seen = {}

    def exported(out, world, **more):
        seen.update(more, world=world)
        return out

    monkeypatch.setattr(own_city, "export_own_city", exported)
    given = CliRunner().invoke(cli.app, ["data", "city", str(tmp_path / "city"), "--places", "7", *options])
    assert given.exit_code == 0
    assert (seen["world"].styles, seen["world"].places) == (("downtown",), 7)
    assert seen["world"].panorama_px == (512 if "--photo-fov" in options else 128)
    line = given.output.replace("\n", " ").split("ucvgl locate ")[1].split()
    assert [word for word in line if word.startswith("--") or word == "0"] == [
        "--ground",
        "--tiles",
        *expected,
        "--out",
    ]


def test_a_dry_run_refuses_what_a_run_would_refuse(city, ucvgl, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    code, _, err = ucvgl(*words(city, tmp_path / "mine", "--dry-run"))
    assert code == 2
    assert "notes.txt" in err
    assert sorted(p.name for p in (tmp_path / "mine").iterdir()) == ["notes.txt"]


def test_the_report_says_which_encoders_placed_the_pictures(done):
    said = (done.folder / "report.md").read_text()
    best = max(done.rounds, key=lambda one: one.mutual_rate).mutual_rate
    kept = next(one for one in reversed(done.rounds) if one.mutual_rate == best)
    expected = {1: "as they came (--epochs 0)"}.get(len(done.rounds), f"those kept are: {kept.name},")
    assert expected in said or "no pseudo-label was found" in said
