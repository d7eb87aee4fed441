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
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from ucvgl.errors import InputError
from ucvgl.lab.plots import as_picture
from ucvgl.locate.located import Located
from ucvgl.paths import write_text

# The colours of a probability from 0 to 1: matplotlib's 'plasma', told apart by every common kind of colour vision, by its
# lightness alone on grey paper, and absent from vegetation and asphalt.
SCALE = (
    "#0d0887", "#41049d", "#6a00a8", "#8f0da4", "#b12a90", "#cc4778", "#e16462", "#f2844b", "#fca636", "#fcce25", "#f0f921"
)  # fmt: skip
PARTS = ("map_page.html", "map_page.css", "map_page.js", "leaflet/leaflet.css", "leaflet/leaflet.js")
SMALLER = (1.0, 0.8, 0.6, 0.45)  # steps by which the small pictures shrink to fit the page's budget
SAMPLE = 24  # pictures of a kind that tell how many bytes all will take


@dataclass(frozen=True)
class PageSettings:
    """How large the pictures in a page are; ours.

    Args:
        ground_px: longer edge of a picture.
        top_px: edge of its top view.
        tile_px: edge of a candidate.
        background_px: longer edge of each part of the mosaic.
        quality: of the WebP images, 0 to 100.
        budget_bytes: of the whole page. The small pictures shrink in steps to keep it; what does not fit even then is left
            out, with a note in its place. 25 MB hold 1,000 places with five candidates each of their own.
    """

    ground_px: int = 256
    top_px: int = 112
    tile_px: int = 80
    background_px: int = 2048
    quality: int = 55
    budget_bytes: int = 25_000_000


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


# ------------------------------------------------------------------------------------------------------------ the page


def map_page(
    located: Sequence[Located],
    backgrounds: Sequence[Background],
    *,
    title: str,
    ground: Callable[[int], Tensor | None],
    top: Callable[[int], Tensor | None] | None = None,
    tile: Callable[[str], Tensor | None] | None = None,
    settings: PageSettings | None = None,
) -> str:
    """The whole page as HTML.

    Args:
        located: pictures with their places.
        backgrounds: the mosaic in one or more parts; the first lies lowest.
        title: of the page.
        ground: picture index -> (3, H, W) uint8 or float in 0..1, or None where it cannot be read; asked for one at a time.
        top: picture index -> its top view; None: no top views.
        tile: candidate's name -> its picture, asked for once each; None: no candidates' pictures.
        settings: PageSettings() by default.

    Raises:
        InputError: no picture located, or a budget that does not even hold the places and the background.
    """
    settings = settings or PageSettings()
    if not located:
        raise InputError("map page", expected="at least one located picture", found="none", todo="See report.md.")
    tiles = list(dict.fromkeys(c.tile for one in located for c in one.candidates))
    number = {name: i for i, name in enumerate(tiles)}
    data = {
        "title": title,
        "scale": SCALE,
        "backgrounds": [
            {"src": "data:image/webp;base64," + _webp(_fitted(b.image, settings.background_px), settings.quality),
             "south": b.south, "west": b.west, "north": b.north, "east": b.east}
            for b in backgrounds
        ],
        "tiles": tiles,
        "places": [_place(one, number) for one in located],
    }  # fmt: skip
    parts = {name: Path(__file__).parent.joinpath(name).read_text(encoding="utf-8") for name in PARTS}
    fixed = sum(len(text.encode()) for text in (*parts.values(), _json(data))) + 1000
    pictures = _small_pictures(located, tiles, ground, top, tile, settings, settings.budget_bytes - fixed)
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


def write_map_page(path: Path, page: str) -> Path:
    """Writes the page, atomically."""
    write_text(path, page)
    return path


def _place(one: Located, number: dict[str, int]) -> dict[str, Any]:
    return {
        "name": one.picture, "lat": one.latitude, "lon": one.longitude, "p": one.probability, "r50": one.radius_m,
        "r90": one.radius_90_m, "heading": one.heading_deg, "notes": one.notes,
        "best": [[number[c.tile], c.latitude, c.longitude, c.score, c.distance_m] for c in one.candidates],
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------------- the small pictures


def _small_pictures(
    located: Sequence[Located], tiles: Sequence[str], ground: Callable[[int], Tensor | None],
    top: Callable[[int], Tensor | None] | None, tile: Callable[[str], Tensor | None] | None, settings: PageSettings,
    left: int,
) -> dict[str, list[str | None]]:  # fmt: skip
    """Base64 WebP of each picture, top view and candidate that fits into `left` bytes; None for one that does not.

    The size is the largest of SMALLER at which a sample, taken as typical, says that all would fit.
    """
    if left <= 0:
        raise InputError(
            "map page: budget_bytes", expected="room for the places and the background",
            found=f"{-left:,} bytes too few", todo="Raise budget_bytes, or lower background_px.",
        )  # fmt: skip
    kinds = {
        "ground": (ground, range(len(located)), settings.ground_px),
        "top": (top, range(len(located)), settings.top_px),
        "tile": (tile, tiles, settings.tile_px),
    }

    left -= sum(6 * len(items) for _, items, _ in kinds.values())  # null and a comma each, whatever fits

    def fitted(read: Callable[[Any], Tensor | None] | None, what: Any, edge: int) -> Image.Image | None:
        image = None if read is None else read(what)
        return None if image is None else _fitted(image, edge)

    samples = {
        name: [fitted(read, what, edge) for what in spread(items, SAMPLE)]
        for name, (read, items, edge) in kinds.items()
    }

    def expected(scale: float) -> float:
        """Bytes of all small pictures at this scale, from the samples'."""
        total = 0.0
        for name, (_, items, _) in kinds.items():
            sizes = [len(_webp(_scaled(one, scale), settings.quality)) for one in samples[name] if one is not None]
            total += sum(sizes) / max(1, len(samples[name])) * len(items)
        return total

    scale = next((s for s in SMALLER[:-1] if expected(s) <= 0.95 * left), SMALLER[-1])
    out: dict[str, list[str | None]] = {name: [] for name in kinds}
    for name, (read, items, edge) in kinds.items():
        for what in items:
            picture = fitted(read, what, edge) if left > 0 else None
            text = None if picture is None else _webp(_scaled(picture, scale), settings.quality)
            left -= len(text or "")
            out[name].append(text if left > 0 else None)
    return out


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of the items, evenly over all of them."""
    step = max(1, -(-len(items) // count))
    return list(items[::step])


def _fitted(image: Tensor, longest_px: int) -> Image.Image:
    """A picture no larger than so many pixels along its longer edge."""
    picture = Image.fromarray(as_picture(image))
    return _scaled(picture, min(1.0, longest_px / max(picture.size)))


def _scaled(picture: Image.Image, scale: float) -> Image.Image:
    if scale >= 1:
        return picture
    width, height = (max(1, round(edge * scale)) for edge in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)


def _webp(picture: Image.Image, quality: int) -> str:
    """The picture as WebP in base64."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality, method=4)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


# ---------------------------------------------------------------------------------------------------------- the writing


def _json(value: Any) -> str:
    """JSON that may stand inside a script element: no character of it can end the element or begin a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
