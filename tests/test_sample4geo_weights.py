"""Published checkpoints: written here in the authors' form, read without running them, and what is said of bad ones."""

import os
import pickle
import zipfile

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from ucvgl import encoders
from ucvgl.encoders import convert_sample4geo
from ucvgl.errors import InputError

TINY = "test_convnext"  # 0.2 M parameters, 64 numbers a descriptor; ends as ConvNeXt-Base does
WIDE, SQUARE = (32, 64), (32, 32)


class Published(nn.Module):
    """What the authors' module holds: a timm network without classifier, and the logarithm of the scale."""

    def __init__(self):
        super().__init__()
        self.model = timm.create_model(TINY, num_classes=0)
        self.logit_scale = nn.Parameter(torch.tensor(20.0).log())
        for name, parameter in self.model.named_parameters():
            if name.startswith("head.norm") or name.endswith("gamma"):  # they start at 1, 0 and 1e-6: it hides mistakes
                nn.init.uniform_(parameter, 0.2, 1.0)


@pytest.fixture
def published(monkeypatch):
    monkeypatch.setattr(encoders, "PUBLISHED_BACKBONE", TINY)
    return Published().eval()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_gives_the_published_descriptors_and_scale(prefix, published, tmp_path):
    path = tmp_path / "weights.pth"
    state = {prefix + name: value for name, value in published.state_dict().items()}
    torch.save(state, path, _use_new_zipfile_serialization=bool(prefix))  # torch's old form as well
    model = convert_sample4geo(path, path.with_suffix(".safetensors"), WIDE, SQUARE).eval()
    assert model.shared
    assert model.ground.dim == 64
    assert model.scale.item() == pytest.approx(20.0)
    assert [config.image_px for config in model.configs] == [WIDE, SQUARE]
    for encoder, size in ((model.ground, WIDE), (model.satellite, SQUARE)):
        batch = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = F.normalize(published.model((batch - 0.5) / 0.5), dim=1)  # what this network was trained with
            torch.testing.assert_close(encoder(batch), expected)


def message(path):
    with pytest.raises(InputError) as caught:
        convert_sample4geo(path, path.with_suffix(".safetensors"), WIDE, SQUARE)
    assert not path.with_suffix(".safetensors").exists()
    assert caught.value.where == str(path)
    return str(caught.value)


class Run:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_pickled_code_is_not_run(published, tmp_path):
    mark, path = tmp_path / "ran", tmp_path / "weights.pth"
    torch.save({**published.state_dict(), "extra": Run(f"touch {mark}")}, path)
    said = message(path)
    assert "found UnpicklingError; nothing in it was run" in said
    assert "weights_only" not in said  # torch's own text tells how to run it
    path.write_bytes(pickle.dumps(Run(f"touch {mark}")))
    assert "nothing in it was run" in message(path)
    assert not mark.exists()


def test_other_files_and_contents(published, tmp_path):
    path = tmp_path / "weights.pth"
    assert "no such file" in message(path)
    state = published.state_dict()
    other = state | {"model.stem.0.bias": torch.zeros(3)}
    del other["logit_scale"]
    for saved, said in (
        (torch.zeros(3), "found Tensor"),
        ({"epoch": 4, "state_dict": state}, "a dict with epoch, state_dict"),
        (published.model.state_dict(), "model.stem.0.weight missing"),  # without the prefix
        (other, "2 differences: model.stem.0.bias (3,) instead of (24,), logit_scale missing instead of ()"),
        (state | {"logit_scale": torch.tensor(torch.nan)}, "NaN or infinity in 1 tensors, first logit_scale"),
    ):
        torch.save(saved, path)
        assert said in message(path)
    with zipfile.ZipFile(path, "w") as archive:  # the download, not unpacked
        archive.writestr("cvact/weights.pth", path.read_bytes())
    assert "expected a checkpoint of tensors alone" in message(path)
