"""Controls for the notebooks: turn a knob, see what it does. Each returns a box whose picture is a PNG or JPEG image."""

import io

import ipywidgets as widgets
import torch
from PIL import Image
from torch import Tensor

from ucvgl.geometry import TopView, top_view
from ucvgl.lab.plots import as_picture

PICTURE_PX = 300


def as_jpeg(image: Tensor) -> bytes:
    """(3, H, W) uint8 or float in 0..1 as the bytes of a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(as_picture(image)).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def as_bytes(image: Tensor) -> Tensor:
    """(3, H, W) float in 0..1 as uint8."""
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def projection_explorer(panorama: Tensor, tile: Tensor, settings: TopView) -> widgets.VBox:
    """Sliders for what the projection assumes of the camera, and the top view they give beside the real tile.

    Args:
        panorama: (3, H, 2H) uint8.
        tile: (3, S, S) uint8, of the span that `settings` gives.
        settings: where the sliders start; the top view keeps its span when the height changes, as the field of view does
            not: what changes then is the span, written beneath.
    """

    def slider(name: str, value: float, low: float, high: float, step: float, unit: str) -> widgets.FloatSlider:
        return widgets.FloatSlider(
            value=value, min=low, max=high, step=step, description=name, readout_format=".1f", continuous_update=False,
            layout=widgets.Layout(width="420px"), style={"description_width": "130px"}, tooltip=unit,
        )  # fmt: skip

    knobs = {
        "heading_deg": slider("heading (deg)", settings.heading_deg, -45, 45, 0.5, "deg"),
        "pitch_deg": slider("pitch (deg)", settings.pitch_deg, -6, 6, 0.1, "deg"),
        "roll_deg": slider("roll (deg)", settings.roll_deg, -6, 6, 0.1, "deg"),
        "fov_deg": slider("field of view (deg)", settings.fov_deg, 120, 176, 0.5, "deg"),
        "camera_height_m": slider("camera height (m)", settings.camera_height_m, 1, 5, 0.1, "m"),
    }
    view = widgets.Image(format="jpeg", width=PICTURE_PX, height=PICTURE_PX)
    blend = widgets.FloatSlider(value=0, min=0, max=1, step=0.05, description="blend in the tile", continuous_update=False,
                                layout=widgets.Layout(width="420px"), style={"description_width": "130px"})  # fmt: skip
    real = widgets.Image(value=as_jpeg(tile), format="jpeg", width=PICTURE_PX, height=PICTURE_PX)
    caption = widgets.Label()

    def draw(_: object = None) -> None:
        chosen = TopView(settings.size_px, **{name: knob.value for name, knob in knobs.items()})
        image = top_view(panorama[None], chosen)[0]
        if blend.value > 0:
            over = torch.nn.functional.interpolate(tile[None].float(), image.shape[-2:], mode="area")[0]
            image = (image.float() * (1 - blend.value) + over * blend.value).round().to(torch.uint8)
        view.value = as_jpeg(image)
        caption.value = f"top view, {chosen.span_m:.1f} m across; the real tile, {settings.span_m:.1f} m across"

    for knob in (*knobs.values(), blend):
        knob.observe(draw, "value")
    draw()
    return widgets.VBox([*knobs.values(), blend, widgets.HBox([view, real]), caption])
