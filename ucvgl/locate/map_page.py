"""map.html: one page, no network, that shows where pictures were taken, over the tiles they were found in.

Everything is in the file: style, script, the mosaic, small pictures as WebP. The small pictures are text until a place is
chosen, so a page with a thousand places opens at once. A content security policy allows this page's own script and style by
their digests and images from the file itself, nothing else; names of files reach the page as data, never as markup.
The page's parts are map_page.html, .css and .js beside this file, and Leaflet 1.9.4 (leaflet/, whole, with its licence).
"""

import base64
import hashlib
import html
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ucvgl.lab.plots import as_picture
from ucvgl.locate.candidates import cut
from ucvgl.locate.located import Located
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
# squares along the longer edge of the mosaic; whole ones fit, so up to half a one is lost at an edge
BACKGROUND_PARTS = 48
GREY = 214  # of the ground without tiles
QUALITY = 55  # of the WebP images
# 1,000 places with five candidates each of their own take 25 MB. Pictures of more are smaller, as many pixels in all, down to
# this part of an edge; those of further places are left out, with a note in their place.
FULL, SMALLEST = 1000, 0.45


@dataclass(frozen=True, eq=False)
class Background:
    """A picture of the ground, north up, and the degrees of its edges.

    Args:
        image: (3, H, W) uint8, or float in 0..1.
        south: latitude of the lower edge.
        west: longitude of the left edge.
        north: latitude of the upper edge.
        east: longitude of the right edge.
    """

    image: Tensor
    south: float
    west: float
    north: float
    east: float


def background_of(tiles: Mosaic) -> Background:
    """The tiles as one picture, north up, of squares side by side; grey where no tile is."""
    low, high = tiles.bounds_m
    edge = min(float(max(high - low)) / BACKGROUND_PARTS, float(min(high - low)))
    size = max(16, BACKGROUND_PX // BACKGROUND_PARTS)
    parts = cut(tiles, edge, edge, size, least_covered=0.02)
    corner = parts.centre_m.min(0) - edge / 2
    columns, rows = np.round((parts.centre_m.max(0) - corner) / edge + 0.5).astype(int)
    sheet = torch.full((3, rows * size, columns * size), GREY, dtype=torch.uint8)
    for k, (east, north) in enumerate(np.round((parts.centre_m - corner) / edge - 0.5).astype(int).tolist()):
        top, left = (rows - 1 - north) * size, east * size
        sheet[:, top : top + size, left : left + size] = parts.read(k)
    corners = np.stack([corner, corner + edge * np.array([columns, rows])])
    return Background(sheet, *from_metres(corners, tiles.origin).ravel().tolist())


def map_page(
    located: Sequence[Located], background: Background, *, title: str,
    ground: Callable[[int], Tensor | None], top: Callable[[int], Tensor], tile: Callable[[str], Tensor],
) -> str:  # fmt: skip
    """The whole page as HTML.

    Args:
        located: pictures with their places, at least one.
        background: the mosaic.
        title: of the page.
        ground: picture index -> (3, H, W) uint8 or float in 0..1, or None where it cannot be read; asked for one at a time.
        top: picture index -> its top view.
        tile: candidate's name -> its picture, asked for once each.
    """
    tiles = list(dict.fromkeys(c.tile for one in located for c in one.candidates))
    number = {name: i for i, name in enumerate(tiles)}
    data = {
        "title": title,
        "scale": SCALE,
        "backgrounds": [
            {"src": "data:image/webp;base64," + _webp(background.image, BACKGROUND_PX), "south": background.south,
             "west": background.west, "north": background.north, "east": background.east}
        ],
        "tiles": tiles,
        "places": [_place(one, number) for one in located],
    }  # fmt: skip
    scale = min(1.0, max(SMALLEST, math.sqrt(FULL / len(located))))
    shown = min(len(located), round(FULL / SMALLEST**2))
    near = {c.tile for one in located[:shown] for c in one.candidates}

    def small(image: Tensor | None, longest_px: int) -> str | None:
        return None if image is None else _webp(image, round(scale * longest_px))

    pictures = {
        "ground": [small(ground(i), GROUND_PX) if i < shown else None for i in range(len(located))],
        "top": [small(top(i), TOP_PX) if i < shown else None for i in range(len(located))],
        "tile": [small(tile(name), TILE_PX) if name in near else None for name in tiles],
    }
    parts = {name: Path(__file__).parent.joinpath(name).read_text(encoding="utf-8") for name in PARTS}
    script, style = (f"{parts[f'leaflet/leaflet.{kind}']}\n{parts[f'map_page.{kind}']}" for kind in ("js", "css"))
    filled = {
        "TITLE": html.escape(title),
        "POLICY": f"default-src 'none'; img-src data:; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "base-uri 'none'; form-action 'none'",
        "STYLE": style,
        "SCRIPT": script,
        "DATA": _json(data),
        "PICTURES": _json(pictures),
    }
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda match: filled[match[1]], parts["map_page.html"])


def _place(one: Located, number: dict[str, int]) -> dict[str, Any]:
    return {
        "name": one.picture, "lat": one.latitude, "lon": one.longitude, "p": one.probability, "r50": one.radius_m,
        "r90": one.radius_90_m, "heading": one.heading_deg, "notes": one.notes,
        "best": [[number[c.tile], c.latitude, c.longitude, c.score, c.distance_m] for c in one.candidates],
    }  # fmt: skip


def _webp(image: Tensor, longest_px: int) -> str:
    """A picture, no larger than so many pixels along its longer edge, as WebP in base64."""
    picture, buffer = Image.fromarray(as_picture(image)), io.BytesIO()
    picture.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
    picture.save(buffer, "WEBP", quality=QUALITY, method=4)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _json(value: Any) -> str:
    """JSON that may stand inside a script element: no character of it can end the element or begin a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
