"""`ucvgl evaluate`: every layout by its protocol, as the methods measure it; what is missing is said before anything runs."""

import json
import sys
from dataclasses import replace

import dataset_trees as trees
import pandas as pd
import pytest

from ucvgl import cli
from ucvgl.data import open_dataset
from ucvgl.data.prepare import Preparation, prepare
from ucvgl.encoders import EncoderConfig, open_model, save_model, two_view_encoder
from ucvgl.errors import InputError
from ucvgl.lab.evaluate import encoder_of, evaluate, open_tests
from ucvgl.methods import sample4geo

pytestmark = pytest.mark.usefixtures("fresh_runs")
GROUND = EncoderConfig("test_efficientnet", depth=2, pooling="gem", image_px=(16, 32))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "two.safetensors"
    save_model(two_view_encoder(GROUND, replace(GROUND, image_px=(16, 16)), shared=False, seed=0), path)
    return path


@pytest.fixture
def told(monkeypatch, capsys):
    """What the command prints, or its error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["ucvgl", "evaluate", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        said = capsys.readouterr()
        return said.out if caught.value.code == 0 else (caught.value.code, said.err)

    return run


@pytest.mark.parametrize(
    ("layout", "parts", "columns"),
    [
        ("cvact", ["val", "test"], []),
        ("vigor", ["same-test", "cross-test"], ["hit_rate"]),
        ("university1652", ["test drone2satellite", "test satellite2drone"], ["ap"]),
        ("vpr", ["val", "test"], ["r_at_5", "r_at_10"]),
    ],
)
def test_each_layout_is_measured_as_its_method_measures_it(layout, parts, columns, weights, tmp_path):
    _, root = trees.LAYOUTS[layout](tmp_path / "set")
    tests, model = open_tests(root), open_model(weights)
    table = evaluate(model, tests, ranks=tmp_path / "ranks.csv")
    assert list(table.index) == parts
    assert set(columns) <= set(table.columns)
    assert ("ap" in table.columns) == (layout == "university1652")
    ranks = pd.read_csv(tmp_path / "ranks.csv").groupby("part")
    for label, test in tests.items():
        sizes = (16, 16), (16, 32)
        ready = prepare(test, Preparation(*(sizes if test.swapped else reversed(sizes))))
        expected = sample4geo.evaluate(model, ready)
        for name in table.columns.intersection(list(expected)):
            assert table.loc[label, name] == pytest.approx(expected[name]), (label, name)
        lines = ranks.get_group(label)
        assert len(lines) == table.loc[label, "queries"]
        assert set(lines["query"]) <= set(test.query.ids)
        assert 100 * (lines["rank"] < 2).mean() == pytest.approx(table.loc[label, "r_at_1"])


def test_cvact_missing_and_the_protocol_are_said_beside_the_table(weights, tmp_path, told):
    """A pair of CVACT whose file is absent is left out and counted."""
    _, root = trees.cvact(tmp_path / "set")
    min(root.glob("ANU_data_test/satview_polish/*.jpg")).unlink()
    said = told("--data", root, "--weights", weights, "--part", "test")
    assert "test: A hit is any tile within 5 m (UTM)." in said
    assert "1 of 5 pairs left out, files absent" in said
    table = json.loads(told("--data", root, "--weights", weights, "--json"))
    assert table.keys() == {"val", "test"}
    assert list(table["test"]) == ["r_at_1", "r_at_5", "r_at_10", "r_at_1_percent", "queries", "left_out"]


def test_a_backbone_takes_images_of_the_size_it_asks_for(monkeypatch):
    untrained = lambda name, weights, **more: EncoderConfig(name, "none", **more)  # noqa: E731
    monkeypatch.setattr("ucvgl.lab.evaluate.EncoderConfig", untrained)
    model = encoder_of(None, "test_vit")
    assert (model.shared, model.configs[0].image_px, model.configs[0].pooling) == (True, (160, 160), "head")
    assert encoder_of(None, "test_vit", (96, 96)).configs[1].image_px == (96, 96)


def test_cvusa_positions_and_an_absent_file(weights, tmp_path, monkeypatch):
    """Positions play no part in measuring; an absent file is an error, which names the option that helps."""
    splits, root = trees.cvusa(tmp_path / "set")
    (root / "split_locations" / "all.csv").unlink()
    table = evaluate(open_model(weights), open_tests(root))
    assert table["queries"].to_dict() == {"val": len(splits["val"])}
    (root / open_dataset("cvusa", root, "val").query.paths[0]).unlink()
    with pytest.raises(InputError, match=r"1 of 8 listed files are absent.*--skip-unreadable"):
        open_tests(root)
    monkeypatch.setenv("UCVGL_SKIP_UNREADABLE", "1")
    assert "1 of 4 pairs left out, files absent" in open_tests(root)["val"].note


def test_test_only_vpr(weights, tmp_path):
    table = evaluate(open_model(weights), open_tests(trees.line(tmp_path, 4)))
    assert table["queries"].to_dict() == {"test": 4}
    with pytest.raises(InputError, match=r"part: expected one of test, found 'val'"):
        open_tests(tmp_path, parts=["val"])


def test_own_folders(weights, tmp_path):
    """No pairs: said at once, with what would help; own pairs are measured by the part that is held out."""
    trees.folders(tmp_path, ("ground", "satellite"), 24, textured=True)
    with pytest.raises(InputError, match=r"no pairs\. Measuring recall needs them: name the two images of each alike"):
        open_tests(tmp_path)
    (tmp_path / "ground").rename(tmp_path / "query")
    (tmp_path / "satellite").rename(tmp_path / "gallery")
    assert {label: len(test) for label, test in open_tests(tmp_path).items()} == {"test": 5}
    assert len(open_tests(tmp_path, parts=["all"])["all"]) == 24
    square = replace(GROUND, image_px=(16, 16))
    same = two_view_encoder(square, square, shared=True, seed=0)
    assert evaluate(same, open_tests(tmp_path)).loc["test", "r_at_1"] == 100  # equal images


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "expected --weights or --backbone, found neither"),
        (["--weights", "w.pth"], "expected a safetensors file with the settings of two encoders"),
        (["--weights", "none.safetensors"], "found no such file"),
        (["--backbone", "resnet_18"], "Similar names: "),
        pytest.param(["--weights", "w.pth", "--layout", "vigor"], "satellite_list.txt", id="reproduce_layout"),
        (["--weights", "w.pth", "--image-px", "32", "32"], "it with --backbone alone"),
        (["--data", ".", "--weights", "w.pth"], "expected a layout of cvusa, cvact"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, expected, tmp_path, monkeypatch, told):
    _, root = trees.vpr(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pth").write_bytes(bytes(range(100)))
    code, said = told("--data", root, *arguments)
    assert (code, said.count("\n")) == (2, 1)
    assert expected in said
