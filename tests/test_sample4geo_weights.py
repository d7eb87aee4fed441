"""Published checkpoints: written here in the authors' form, read without running them, and what is said of bad ones."""

import os
import pickle
import zipfile

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from ucvgl.encoders import open_model
from ucvgl.errors import InputError
from ucvgl.sample4geo_weights import BACKBONE, convert_sample4geo, load_sample4geo

TINY = "test_convnext"  # 0.2 M parameters, 64 numbers a descriptor; ends as ConvNeXt-Base does
WIDE, SQUARE = (32, 64), (32, 32)


class Published(nn.Module):
    """What the authors' module holds: a timm network without classifier, and the logarithm of the scale."""

    def __init__(self, backbone=TINY, scale=20.0):
        super().__init__()
        self.model = timm.create_model(backbone, num_classes=0)
        self.logit_scale = nn.Parameter(torch.tensor(scale).log())


@pytest.fixture
def published():
    torch.manual_seed(0)
    module = Published().eval()
    for name, parameter in module.model.named_parameters():
        if name.startswith("head.norm") or name.endswith("gamma"):  # they start at 1, 0 and 1e-6, which hides mistakes
            nn.init.uniform_(parameter, 0.2, 1.0)
    return module


@pytest.fixture
def path(published, tmp_path):
    path = tmp_path / "weights_e40_90.8149.pth"
    torch.save(published.state_dict(), path)
    return path


def load(path, **changes):
    return load_sample4geo(path, WIDE, SQUARE, **{"backbone": TINY, **changes})


def images(height, width, seed=0):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_gives_the_published_descriptors_and_scale(prefix, published, path):
    torch.save({prefix + name: value for name, value in published.state_dict().items()}, path)
    model = load(path).eval()
    assert model.shared
    assert model.ground.dim == 64
    assert model.scale.item() == pytest.approx(20.0)
    assert [config.image_px for config in model.configs] == [WIDE, SQUARE]
    for embed, size in ((model.embed_ground, WIDE), (model.embed_satellite, SQUARE)):
        batch = images(*size)
        with torch.no_grad():
            expected = F.normalize(published.model((batch - 0.5) / 0.5), dim=1)  # what this network was trained with
            torch.testing.assert_close(embed(batch), expected)


def test_the_old_form_of_torch_save_is_read(published, path):
    torch.save(published.state_dict(), path, _use_new_zipfile_serialization=False)
    assert torch.equal(load(path).ground.backbone.head.norm.weight, published.model.head.norm.weight)


def test_a_converted_checkpoint_is_the_same_model(path, tmp_path):
    target = tmp_path / "new" / "cvact.safetensors"
    model = convert_sample4geo(path, target, WIDE, SQUARE, backbone=TINY)
    assert set(load_file(target)) == {"log_scale", *(f"ground.{name}" for name in model.ground.state_dict())}
    opened = open_model(target)
    assert opened.shared
    assert opened.configs == model.configs
    assert opened.log_scale.item() == model.log_scale.item()
    assert all(torch.equal(a, b) for a, b in zip(opened.parameters(), model.parameters(), strict=True))
    with pytest.raises(InputError, match=r"ending in \.safetensors.*found \.pth"):
        convert_sample4geo(path, path, WIDE, SQUARE, backbone=TINY)


# what is not a published checkpoint


def message(path):
    with pytest.raises(InputError) as caught:
        load(path)
    assert caught.value.where == str(path)
    return str(caught.value)


def test_no_file(tmp_path):
    assert "no such file" in message(tmp_path / "absent.pth")
    assert "a folder" in message(tmp_path)


class Run:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("new", [True, False])
def test_pickled_code_is_named_and_not_run(new, published, path, tmp_path):
    mark = tmp_path / "ran"
    torch.save({**published.state_dict(), "extra": Run(f"touch {mark}")}, path, _use_new_zipfile_serialization=new)
    assert f"pickled code or objects ({os.system.__module__}.system), which were not run" in message(path)
    path.write_bytes(pickle.dumps(Run(f"touch {mark}")))
    said = message(path)
    assert "restricted unpickler refuses it" in said
    assert "weights_only" not in said  # torch's own text tells how to run it
    assert not mark.exists()


def test_a_whole_pickled_module_is_refused(published, path):
    torch.save(published, path)
    assert "pickled code or objects" in message(path)


def test_archives_and_torn_files(published, path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "expected a checkpoint, as torch.save writes it" in message(path)
    with zipfile.ZipFile(path, "w") as archive:  # the download, not unpacked
        archive.writestr("cvact/weights.pth", whole)
    assert "expected a checkpoint, as torch.save writes it" in message(path)


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "w.pth"
    path.write_bytes(content)
    message(path)


def test_other_contents(published, path):
    torch.save(torch.zeros(3), path)
    assert "found Tensor" in message(path)
    torch.save({"epoch": 4, "state_dict": published.state_dict()}, path)
    assert "other things than tensors: epoch, state_dict" in message(path)
    torch.save({}, path)
    assert "found 0 tensors" in message(path)


def test_a_bare_backbone_has_no_prefix(published, path):
    torch.save(published.model.state_dict(), path)
    said = message(path)
    assert "under 'model.' and 'logit_scale'" in said
    assert "without that prefix: stem.0.weight" in said


def test_missing_surplus_and_wrongly_shaped_tensors(published, path):
    state = published.state_dict()
    del state["logit_scale"], state["model.head.norm.bias"]
    torch.save({**state, "model.head.fc.weight": torch.zeros(2), "model.stem.0.bias": torch.zeros(3)}, path)
    said = message(path)
    assert "2 missing: model.head.norm.bias, logit_scale; 1 unexpected: model.head.fc.weight" in said
    assert "1 wrongly shaped: model.stem.0.bias (3,) instead of" in said
    assert TINY in said


def test_another_architecture(path):
    with pytest.raises(InputError, match=r"found .*(missing|wrongly shaped): .*Give a checkpoint of test_convnext2"):
        load(path, backbone="test_convnext2")
    with pytest.raises(InputError, match="the name of a timm model"):
        load(path, backbone="no_such_net")


def test_two_prefixed_networks_are_not_shared_weights(published, path):
    """The authors' module can hold model1 and model2; none of the published ones does."""
    state = published.state_dict()
    torch.save({f"{name.replace('model.', 'model1.')}": value for name, value in state.items()}, path)
    assert "without that prefix: " in message(path)


def test_weights_with_nan(published, path):
    with torch.no_grad():
        published.model.head.norm.weight[0] = torch.nan
    torch.save(published.state_dict(), path)
    assert "NaN or infinity in 1 tensors, first model.head.norm.weight" in message(path)


# the real architecture


def test_the_published_names_and_shapes():
    """Without memory: 342 tensors, 1024 numbers a descriptor, 87.6 million parameters, ending in the head's norm."""
    with torch.device("meta"):
        module = Published(BACKBONE)
    state = module.state_dict()
    assert len(state) == 342 + 1
    assert tuple(state["model.head.norm.weight"].shape) == (1024,)
    assert tuple(state["model.stem.0.weight"].shape) == (128, 3, 4, 4)
    assert sum(value.numel() for value in state.values()) == 87_566_464 + 1
    assert module.model.head_hidden_size == 1024


@pytest.mark.slow
def test_a_checkpoint_of_the_published_size(tmp_path):
    with torch.device("meta"):
        module = Published(BACKBONE)
    names = set(module.state_dict())
    state = {name: torch.full(value.shape, 0.01) for name, value in module.state_dict().items()}
    path = tmp_path / "base.pth"
    torch.save(state, path)
    del state  # 350 MB
    model = load_sample4geo(path, (140, 768))
    assert model.ground.dim == 1024
    own = model.ground.backbone.state_dict()
    assert {f"model.{name}" for name in own} | {"logit_scale"} == names
    assert all((value == torch.tensor(0.01)).all() for value in own.values())
    assert model.log_scale.item() == pytest.approx(0.01)
    assert model.configs[0].image_px == (140, 768)
    assert model.configs[1].image_px == (384, 384)


def test_the_command_line_converts(path, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from ucvgl import cli, sample4geo_weights

    real = convert_sample4geo
    monkeypatch.setattr(sample4geo_weights, "convert_sample4geo", lambda *given: real(*given, backbone=TINY))
    target = tmp_path / "out" / "weights.safetensors"
    sizes = ["--ground-px", "32", "64", "--satellite-px", "32", "32"]
    done = CliRunner().invoke(cli.app, ["weights", "convert", str(path), str(target), *sizes])
    assert done.exit_code == 0, done.output
    assert "64 numbers, scale 20.0" in done.output
    assert [config.image_px for config in open_model(target).configs] == [WIDE, SQUARE]
    wrong = CliRunner().invoke(cli.app, ["weights", "convert", str(tmp_path / "none.pth"), str(target)])
    assert isinstance(wrong.exception, InputError)
