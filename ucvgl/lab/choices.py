"""What a user may change of the paper profile: its backbones."""

import difflib
from dataclasses import replace

from ucvgl.encoders import EncoderConfig
from ucvgl.errors import InputError

PUBLISHED = ("resnet50", "deit_small")  # of notebook 06, which change no other
HEAD = 512  # numbers of the linear layer behind a frozen backbone whose own pooling learns nothing


def with_backbone(encoder: EncoderConfig, choice: str) -> EncoderConfig:
    """The encoder on another timm backbone, for images of the size that its published weights ask for; '' and PUBLISHED change
    nothing.

    `choice` is a name, such as vit_small_patch14_dinov2.lvd142m; with ':frozen' behind it the backbone stays as it was
    published, and what pools its features is trained, with a linear layer where nothing in that learns.
    """
    if choice in ("", *PUBLISHED):
        return encoder
    name, colon, how = choice.partition(":")
    if colon and how != "frozen":
        raise InputError(
            "backbone", expected="NAME or NAME:frozen", found=repr(choice), todo="For example resnet50:frozen."
        )
    width = HEAD if colon and encoder.pooling in ("avg", "head") else encoder.width
    return replace(encoder, backbone=name, pretrained="frozen hub" if colon else "hub", width=width, drop_path=0.0,
                   image_px=asked_px(name))  # fmt: skip


def asked_px(backbone: str) -> tuple[int, int]:
    """(height, width) of the images that the published weights of a timm backbone ask for; InputError for a name without any."""
    import timm  # takes seconds to load

    try:
        known = timm.get_pretrained_cfg(backbone)
    except RuntimeError:  # an unknown tag, the part behind the dot
        known = None
    if known is None:
        similar = difflib.get_close_matches(backbone.partition(".")[0], timm.list_models(), 3)
        raise InputError("backbone", expected="a timm model with published weights", found=repr(backbone),
                         todo=f"Similar names: {', '.join(similar)}.")  # fmt: skip
    return known.input_size[1:]
