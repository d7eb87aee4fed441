"""map.html: one page, no network, that shows where pictures were taken, over the tiles they were found in.

Everything is in the file: style, script, the mosaic, small pictures as WebP. The small pictures are text until a place is
chosen, so a page with a thousand places opens at once. A content security policy allows this page's own script and style by
their digests and images from the file itself, nothing else; names of files reach the page as data, never as markup.
The page's parts are map_page.html, .css and .js beside this file, and Leaflet 1.9.4 (leaflet/, whole, with its licence).
"""

import base64
import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jinja2 import Environment
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from ucvgl.lab.plots import as_picture
from ucvgl.locate.candidates import paint
from ucvgl.locate.located import records
from ucvgl.locate.tiles import Mosaic
from ucvgl.positions import from_metres

# The colours of a probability from 0 to 1: matplotlib's 'plasma', told apart by every common kind of colour vision, by its
# lightness alone on grey paper, and absent from vegetation and asphalt.
SCALE = (
    "#0d0887", "#41049d", "#6a00a8", "#8f0da4", "#b12a90", "#cc4778", "#e16462", "#f2844b", "#fca636", "#fcce25", "#f0f921"
)  # fmt: skip
PARTS = ("map_page.html", "map_page.css", "map_page.js", "leaflet/leaflet.css", "leaflet/leaflet.js")
GROUND_PX, TOP_PX, TILE_PX = 256, 112, 80  # longer edges of a picture, its top view and a candidate
BACKGROUND_PX = 2048  # longer edge of the mosaic
BACKGROUND_PARTS = 48  # squares along the longer edge of the mosaic
GREY = 214  # of the ground without tiles
QUALITY = 55  # of the WebP images
# 1,000 places with five candidates each of their own take 25 MB. Pictures of more are smaller, as many pixels in all, down to
# this part of an edge; those of further places are left out, with a note in their place.
FULL, SMALLEST = 1000, 0.45


@dataclass(frozen=True, eq=False)
class Background:
    """A picture of the ground, north up, and the degrees of its edges."""

    image: Tensor  # (3, H, W) uint8, or float in 0..1
    south: float  # latitude of the lower edge
    west: float  # longitude of the left edge
    north: float  # latitude of the upper edge
    east: float  # longitude of the right edge


def background_of(tiles: Mosaic) -> Background:
    """The tiles as one picture, north up, painted square by square; grey where no tile is."""
    low, high = tiles.bounds_m
    edge, size = float(max(high - low)) / BACKGROUND_PARTS, max(16, BACKGROUND_PX // BACKGROUND_PARTS)
    columns, rows = np.ceil((high - low) / edge - 1e-6).astype(int)
    sheet = torch.full((3, rows * size, columns * size), GREY, dtype=torch.uint8)
    for row, column in np.ndindex(rows, columns):
        centre = np.array([low[0] + (column + 0.5) * edge, high[1] - (row + 0.5) * edge])
        colours, there = paint(tiles, centre, edge, size)
        part = sheet[:, row * size : (row + 1) * size, column * size : (column + 1) * size]
        part[:, there] = colours[:, there]
    width, height = np.round((high - low) / edge * size).astype(int)
    wide, tall = width * edge / size, height * edge / size
    ends = np.array([(low[0], high[1] - tall), (low[0] + wide, high[1])])  # south-west, north-east
    return Background(sheet[:, :height, :width], *from_metres(ends, tiles.origin).ravel().tolist())


def map_page(
    places: pd.DataFrame, background: Background, *, title: str,
    ground: Callable[[int], Tensor | None], top: Callable[[int], Tensor], tile: Callable[[str], Tensor],
) -> str:  # fmt: skip
    """The whole page as HTML.

    Args:
        places: of `located.places`, at least one.
        background: the mosaic.
        title: of the page.
        ground: picture index -> (3, H, W) uint8 or float in 0..1, or None where it cannot be read; asked for one at a time.
        top: picture index -> its top view.
        tile: candidate's name -> its picture, asked for once each.
    """
    rows = records(places)
    tiles = list(dict.fromkeys(best["tile"] for row in rows for best in row["candidates"]))
    number = {name: i for i, name in enumerate(tiles)}
    for row in rows:
        row["notes"] = list(filter(None, row["notes"].split("; ")))
        row["candidates"] = [best | {"tile": number[best["tile"]]} for best in row["candidates"]]
    scale = min(1.0, max(SMALLEST, math.sqrt(FULL / len(rows))))
    shown = min(len(rows), round(FULL / SMALLEST**2))
    near = {best["tile"] for row in rows[:shown] for best in row["candidates"]}

    def small(image: Tensor | None, longest_px: int) -> str | None:
        return None if image is None else _webp(image, round(scale * longest_px))

    pictures = {
        "ground": [small(ground(i), GROUND_PX) if i < shown else None for i in range(len(rows))],
        "top": [small(top(i), TOP_PX) if i < shown else None for i in range(len(rows))],
        "tile": [small(tile(name), TILE_PX) if i in near else None for i, name in enumerate(tiles)],
    }
    mosaic = {
        "src": "data:image/webp;base64," + _webp(background.image, BACKGROUND_PX), "south": background.south,
        "west": background.west, "north": background.north, "east": background.east,
    }  # fmt: skip
    parts = {name: Path(__file__).parent.joinpath(name).read_text(encoding="utf-8") for name in PARTS}
    script, style = (f"{parts[f'leaflet/leaflet.{kind}']}\n{parts[f'map_page.{kind}']}" for kind in ("js", "css"))
    policy = (
        f"default-src 'none'; img-src data:; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    environment = Environment(
        autoescape=True, keep_trailing_newline=True
    )  # its tojson may stand inside a script element
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment.from_string(parts["map_page.html"]).render(
        title=title, policy=Markup(policy), style=Markup(style), script=Markup(script), pictures=pictures,
        data={"scale": SCALE, "background": mosaic, "tiles": tiles, "places": rows},
    )  # fmt: skip


def _webp(image: Tensor, longest_px: int) -> str:
    """A picture, no larger than so many pixels along its longer edge, as WebP in base64."""
    picture, buffer = Image.fromarray(as_picture(image)), io.BytesIO()
    picture.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
    picture.save(buffer, "WEBP", quality=QUALITY, method=4)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
