"""What a user's choices change in a profile: another backbone, photos instead of panoramas, ROWS=smoke."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from ucvgl.data import open_dataset
from ucvgl.data.decoding import image_size
from ucvgl.encoders import EncoderConfig, similar_names
from ucvgl.errors import InputError
from ucvgl.lab.settings import asked_rows
from ucvgl.sampling import NeighbourDraw

PAPER_BACKBONES = ("resnet50", "deit_small")  # of notebook 06, which change no other
HEAD = 512  # numbers of the linear layer behind a frozen backbone whose own pooling learns nothing
# a batch of each epoch: two, so that what an epoch mines is used in the next
SMOKE: dict[str, Any] = {
    "epochs": 2, "batch_size": 8, "chunk": 4, "warmup_epochs": 0.0, "epochs_before": 2, "warmup": 1, "precision": "fp32",
    "decay_epochs": 1, "steps_per_epoch": 1, "refresh_every": 1, "evaluate_every": 1,
    "draw": NeighbourDraw(4, 1, 1), "threshold": 0.0, "queries": 8, "negatives": 2, "queue": 8,
    "places": 24, "accuracy_places": 8, "small": 12, "city_size_m": 512.0,
}  # fmt: skip
SMOKE_PX = 192  # longer sides are a quarter as long
_Settings = TypeVar("_Settings")


def with_backbone(encoder: EncoderConfig, choice: str) -> EncoderConfig:
    """The encoder on another timm backbone, for images of the size that its weights ask for; '' and PAPER_BACKBONES change nothing.

    `choice`: a name; with ':frozen' behind it the backbone stays as it was published, and what pools its features is trained,
    with a linear layer where nothing in that learns.
    """
    if choice in ("", *PAPER_BACKBONES):
        return encoder
    name, colon, how = choice.partition(":")
    if colon and how != "frozen":
        todo = "For example resnet50:frozen."
        raise InputError("backbone", expected="NAME or NAME:frozen", found=repr(choice), todo=todo)
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
        expected, todo = "a timm model with published weights", f"Similar names: {similar_names(backbone)}."
        raise InputError("backbone", expected=expected, found=repr(backbone), todo=todo)
    return known.input_size[1:]


def shows_panoramas(layout: str, root: str, known: Collection[str]) -> bool:
    """Whether the queries of a data set are panoramas: those of the layouts `known`, else if the first is twice as wide as high."""
    if layout not in known:
        with suppress(InputError):  # absent or damaged: said when it is read
            height, width = image_size(open_dataset(layout, root).query.file(0))
            return width >= 2 * height
    return True


def smoke(settings: _Settings) -> _Settings:
    """With UCVGL_ROWS=smoke, all that takes long cut down (SMOKE), images smaller and weights random; else as they come.

    Twice is as once. Meant for a data set of two dozen places on a CPU, to see that its notebooks run.
    """
    if asked_rows() != "smoke":
        return settings

    def cut(name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: cut(name, each) for key, each in value.items()}
        if isinstance(value, tuple):
            return tuple(cut(name, each) for each in value)
        if name in SMOKE and (value or name == "steps_per_epoch"):  # what is off stays off
            return SMOKE[name]
        if name.endswith("_px") and isinstance(value, int):
            return value // 4 if value > SMOKE_PX else value
        if name == "pretrained" and isinstance(value, str):
            return "none"
        if is_dataclass(value):
            return replace(value, **{f.name: cut(f.name, getattr(value, f.name)) for f in fields(value)})
        return value

    return cut("", settings)
