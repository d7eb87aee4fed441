"""map.html: one page, no network, that shows where pictures were taken, over the tiles they were found in.

Everything is in it: style and script (beside this file, and Leaflet, whole), the mosaic, small pictures as WebP. These
are text until a place is chosen, so a page with a thousand places opens at once.
"""

import base64
import html
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image
from torch import Tensor

from ucvgl.lab.plots import as_picture
from ucvgl.locate.located import records
from ucvgl.locate.tiles import Mosaic
from ucvgl.positions import from_metres

# of a probability from 0 to 1: told apart by every common kind of colour vision, by lightness alone on grey paper
SCALE = [to_hex(colormaps["plasma"](i / 10)) for i in range(11)]
GROUND_PX, TOP_PX, TILE_PX = 256, 112, 80  # longer edges of a picture, its top view and a candidate
FULL = 1000  # places that take 25 MB with five candidates each; pictures of more are smaller, as many pixels in all
BACKGROUND_PX = 2048  # longer edge of the mosaic
GREY = 214  # of the ground without tiles


def background_of(tiles: Mosaic) -> tuple[Tensor, list[list[float]]]:
    """The tiles as one picture, uint8 (3, H, W), north up, grey where no tile is; and latitude and longitude of its
    south-western and its north-eastern corner."""
    low, high = tiles.bounds_m
    centre, pixel_m = (low + high) / 2, float(max(high - low)) / BACKGROUND_PX
    size = np.ceil((high - low) / pixel_m - 1e-6)  # columns and rows
    colours, there = tiles.paint(centre, pixel_m, tuple(size[::-1].astype(int).tolist()))
    ends = centre + np.array([[-0.5], [0.5]]) * size * pixel_m
    return torch.where(there, colours, GREY), from_metres(ends, tiles.origin).tolist()


def map_page(
    places: pd.DataFrame, background: tuple[Tensor, list[list[float]]], *, title: str,
    ground: Callable[[int], Tensor], top: Callable[[int], Tensor], tile: Callable[[str], Tensor],
) -> str:  # fmt: skip
    """The whole page as HTML, of `located.places`, at least one, and of `background_of`. ground, top: a place's picture (3, H, W),
    uint8 or float in 0..1, and its top view; tile: a candidate's, by name."""
    scale, numbers = min(1.0, math.sqrt(FULL / len(places))), range(len(places))
    names = dict.fromkeys(places.filter(regex=r"candidate_\d_tile").stack().dropna())
    pictures = {
        "ground": [_webp(ground(i), scale * GROUND_PX) for i in numbers],
        "top": [_webp(top(i), scale * TOP_PX) for i in numbers],
        "tile": {name: _webp(tile(name), scale * TILE_PX) for name in names},
    }
    source = f"data:image/webp;base64,{_webp(background[0], BACKGROUND_PX)}"
    data = {"scale": SCALE, "background": source, "bounds": background[1], "places": records(places)}
    return rendered("map_page.html", title=title, pictures=pictures, data=data)


def rendered(template: str, **values: Any) -> str:
    """A template beside this file with values in it; in .html these are data, whose tojson may stand in a script."""
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=select_autoescape(["html"]), undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters["cell"] = _cell
    environment.globals["text"] = lambda name: (folder / name).read_text(encoding="utf-8")
    return environment.get_template(template).render(values)


def _cell(value: object) -> str:
    """A text that stays one cell of a Markdown table and no markup, whatever a file's name is."""
    text = "".join(c if c.isprintable() else " " for c in str(value))
    return html.escape(text, quote=False).replace("\\", "\\\\").replace("|", "\\|").replace("`", "'")


def _webp(image: Tensor, longest_px: float) -> str:
    """A picture, no larger than so many pixels along its longer edge, as WebP in base64."""
    picture, buffer = Image.fromarray(as_picture(image)), io.BytesIO()
    picture.thumbnail((round(longest_px), round(longest_px)), Image.Resampling.LANCZOS)
    picture.save(buffer, "WEBP", quality=55, method=4)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
