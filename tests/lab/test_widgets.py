"""A control is moved and its picture changes."""

import io

import torch
from PIL import Image

from ucvgl.geometry import TopView
from ucvgl.lab.widgets import as_bytes, as_jpeg, projection_explorer


def explorer():
    generator = torch.Generator().manual_seed(0)
    panorama = torch.randint(0, 255, (3, 64, 128), generator=generator, dtype=torch.uint8)
    tile = torch.randint(0, 255, (3, 48, 48), generator=generator, dtype=torch.uint8)
    return projection_explorer(panorama, tile, TopView.from_span(48, 50.0))


def parts(box) -> tuple[dict, object, object]:
    *sliders, pictures, caption = box.children
    return {slider.description: slider for slider in sliders}, pictures.children[0], caption


def test_every_knob_changes_the_picture() -> None:
    for name in parts(explorer())[0]:
        knobs, view, _ = parts(explorer())
        before = view.value
        assert Image.open(io.BytesIO(before)).size == (48, 48)
        knobs[name].value = knobs[name].max if name != "heading (deg)" else 20
        # height alone sets the scale of the span, not the picture: the field of view is what is seen
        assert (view.value != before) == (name != "camera height (m)"), name


def test_the_caption_tells_the_span() -> None:
    knobs, _, caption = parts(explorer())
    assert "50.0 m across; the real tile, 50.0 m" in caption.value
    knobs["camera height (m)"].value = 5.0
    assert "100.0 m across; the real tile, 50.0 m" in caption.value


def test_bytes_round_trip() -> None:
    image = torch.rand(3, 8, 8)
    assert (as_bytes(image).float() / 255 - image).abs().max() < 1 / 255
    assert Image.open(io.BytesIO(as_jpeg(image))).size == (8, 8)
