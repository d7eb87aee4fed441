"""`ucvgl locate`: two folders of imagery in, pictures on a map out, as a table, GeoJSON, GeoPackage, page and report.

A table of places has a row a picture and HEADER's columns: the place in degrees of WGS84, the probability that the truth
is within RADIUS_M, notes joined by "; ", and of its best candidates, the first being the place, the score (a similarity,
or of a drive the probability that the picture was taken within RADIUS_M) and the distance from the first. map.html needs
no network: script, mosaic and small pictures are in it. Known positions are used only after everything is placed.
"""

import base64
import csv
import html
import io
import sqlite3
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
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

from ucvgl import paths
from ucvgl.errors import InputError
from ucvgl.lab.plots import as_picture
from ucvgl.lab.results import device
from ucvgl.locate.confidence import BEST, RADIUS_M, drive_order, place_together, probabilities
from ucvgl.locate.inputs import Inputs, Request, Truth, read_inputs
from ucvgl.locate.pictures import Picture, read_picture
from ucvgl.locate.search import Search, search
from ucvgl.locate.tiles import Candidates, Mosaic
from ucvgl.metrics import calibration_error, claimed_and_true_precision, threshold_for
from ucvgl.positions import from_metres, haversine

FILES = ("map.html", "positions.csv", "positions.geojson", "positions.gpkg", "report.md")  # that a run writes
CANDIDATE = ("tile", "latitude", "longitude", "score", "distance_m")
HEADER = ("picture", "latitude", "longitude", "probability", "heading_deg", "notes",
          *(f"candidate_{n}_{field}" for n in range(1, BEST + 1) for field in CANDIDATE))  # fmt: skip
# of a probability from 0 to 1: told apart by every common kind of colour vision, by lightness alone on grey paper
SCALE = [to_hex(colormaps["plasma"](i / 10)) for i in range(11)]
GROUND_PX, TOP_PX, TILE_PX = 256, 112, 80  # longer edges of a picture, its top view and a candidate
FULL = 1000  # places that take 25 MB with five candidates each; pictures of more are smaller, as many pixels in all
BACKGROUND_PX = 2048  # longer edge of the mosaic
GREY = 214  # of the ground without tiles


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run found."""

    folder: Path  # where everything lies
    command: str  # that was run
    inputs: Inputs  # what it was asked for, and what the folders hold
    found: Search  # what placed them
    places: pd.DataFrame  # of `places`, the pictures that were placed
    truth: dict[str, Any] | None  # of `compare`, if some positions were known
    seconds: float  # of the whole run

    def summary(self) -> dict[str, Any]:
        """For machines: counts, confidence, quality, time, files."""
        ground, mosaic = self.inputs.ground, self.inputs.candidates.mosaic
        unusable = [{"file": file, "reason": reason} for file, reason in ground.left_out + mosaic.left_out]
        return {
            "out": str(self.folder), "files": FILES, "device": device(),
            "pictures": len(ground.pictures) + len(ground.left_out), "placed": len(self.places),
            "unusable": unusable, "tiles": len(mosaic.rasters), "candidates": len(self.inputs.candidates),
            "expected_right": round(self.places["probability"].sum(), 1), "radius_m": RADIUS_M, "rounds": self.found.rounds,
            "seconds": self.seconds, "truth": self.truth,
        }  # fmt: skip


def locate(request: Request, *, command: str = "ucvgl locate") -> Outcome:
    """Places the pictures and writes positions, map and report, which quotes the command, to `request.out`. InputError:
    as `read_inputs`; an output folder that holds something else; a full disk."""
    begun, folder = time.perf_counter(), check_folder(request.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        inputs = read_inputs(request)
        found = search(inputs)
        table = place(found, inputs)
        write_positions(folder, table)
        tiles = inputs.candidates.images
        row = {name: i for i, name in enumerate(tiles.ids)}
        page = map_page(
            table, background(inputs.candidates.mosaic), tile=lambda name: tiles.read(row[name]),
            ground=lambda i: read_picture(inputs.ground, found.pictures[i], 2 * GROUND_PX),
            top=found.images.top_view.read, title=f"Where the pictures of {request.ground.resolve().name} were taken",
        )  # fmt: skip
        paths.write_text(folder / "map.html", page)
        truth = compare(table, inputs.truth) if inputs.truth else None
        outcome = Outcome(folder, command, inputs, found, table, truth, time.perf_counter() - begun)
        paths.write_text(folder / "report.md", rendered("report.md.j2", outcome=outcome))
    except OSError as error:
        todo = f"Free some of {paths.runs()} or of this disk, and run it again: what was computed is kept."
        raise InputError(folder, "room and leave to write", error, todo) from error
    return outcome


def place(found: Search, inputs: Inputs) -> pd.DataFrame:
    """A search's pictures on the map, each alone or all together: a table of `places`."""
    request, candidates = inputs.request, inputs.candidates
    if request.drive is None:
        best, score = found.evidence.best, found.evidence.score
        return places(found.pictures, candidates, best, score, probabilities(found.calibration, found.evidence))
    order, reach_m = drive_order(found.pictures, request.drive, request.speed_m_s, request.step_m)
    best, score = place_together(found.cosines, found.calibration.scale, order, reach_m, candidates)
    return places(found.pictures, candidates, best, score, score[:, 0])


def places(
    pictures: Sequence[Picture], candidates: Candidates, best: np.ndarray, score: np.ndarray, probability: np.ndarray
) -> pd.DataFrame:
    """The table of N pictures, each with its heading, of best candidates and scores (N, B), and of probabilities."""
    degrees, centre_m = candidates.images.positions.values.round(7), candidates.centre_m  # to a centimetre
    away_m = np.linalg.norm(centre_m[best] - centre_m[best[:, :1]], axis=-1)  # (N, B)
    table = pd.DataFrame({
        "picture": [picture.file for picture in pictures], "notes": ["; ".join(picture.notes) for picture in pictures],
        "latitude": degrees[best[:, 0], 0], "longitude": degrees[best[:, 0], 1], "probability": probability.round(4),
        "heading_deg": np.array([picture.heading_deg % 360 for picture in pictures]).round(1) % 360,
    })  # fmt: skip
    for n, index in enumerate(best.T):
        cells = np.array(candidates.images.ids)[index], *degrees[index].T, score[:, n].round(6), away_m[:, n].round(1)
        names = [f"candidate_{n + 1}_{field}" for field in CANDIDATE]
        table = table.assign(**dict(zip(names, cells, strict=True)))
    return table.reindex(columns=list(HEADER))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table of places as JSON has them: None where something is not known."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def check_folder(folder: Path) -> Path:
    """The folder to write to, whole: absent, empty, or with what an earlier run wrote, its positions among it, which stays
    until it is replaced; and hidden files. InputError: it holds something else, is a file, or cannot be read."""
    folder, todo = folder.expanduser().resolve(), "Choose another folder, or empty this one."
    try:
        names = {path.name for path in folder.iterdir() if path.name[0] != "."} if folder.exists() else set()
    except OSError as error:
        raise InputError(folder, "a folder", error, todo) from error
    if names and not {"positions.csv"} <= names <= {*FILES}:
        expected, found = "an absent or empty folder, or one that ucvgl locate wrote", sorted(names - {*FILES} or names)
        raise InputError(folder, expected, ascii(", ".join(found[:4])), todo)
    return folder


def write_positions(folder: Path, table: pd.DataFrame) -> None:
    """Writes a table of places as positions.csv, positions.geojson (RFC 7946: WGS84, longitude first; all else are
    properties) and positions.gpkg (OGC 12-128r18, 1.3: a layer of points in WGS84 with the table's columns)."""
    text = table.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")  # quotes guard any name
    paths.write_text(folder / "positions.csv", text)
    features = []
    for row in records(table):
        point = {"type": "Point", "coordinates": [row.pop("longitude"), row.pop("latitude")]}
        features.append({"type": "Feature", "geometry": point, "properties": row})
    paths.write_json(folder / "positions.geojson", {"type": "FeatureCollection", "features": features})
    # a point's header (little-endian, no envelope, EPSG 4326), then well-known binary
    where = table[["longitude", "latitude"]].to_numpy(np.float64)
    points = [struct.pack("<2sBBiBIdd", b"GP", 0, 1, 4326, 1, 1, *place) for place in where]
    layer = pd.DataFrame({"fid": range(1, len(table) + 1), "geom": points}).join(table)
    kinds = {"fid": "INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL", "geom": "POINT"}
    with paths.written_whole(folder / "positions.gpkg") as path, closing(sqlite3.connect(path)) as base:
        layer.to_sql("positions", base, index=False, dtype=kinds)
        base.executescript(Path(__file__).with_name("geopackage.sql").read_text(encoding="utf-8"))


def background(tiles: Mosaic) -> tuple[Tensor, list[list[float]]]:
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
    """The whole page as HTML, of `located.places`, at least one, and of `background`. ground, top: a place's picture
    (3, H, W), uint8 or float in 0..1, and its top view; tile: a candidate's, by name."""
    scale, numbers = min(1.0, (FULL / len(places)) ** 0.5), range(len(places))
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
    environment.globals.update(radius_m=RADIUS_M, text=lambda name: (folder / name).read_text(encoding="utf-8"))
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


def errors_m(table: pd.DataFrame, truth: Truth) -> np.ndarray:
    """(N, 5) great-circle metres from the truth to each candidate; NaN where it is unknown, inf beyond the last one."""
    known = np.array([truth.get(name, (np.nan, np.nan)) for name in table["picture"]]).reshape(-1, 1, 2)
    where = table.filter(regex=r"candidate_\d_(latitude|longitude)").to_numpy(np.float64)
    away = np.nan_to_num(haversine(where.reshape(-1, BEST, 2), known), nan=np.inf)
    return np.where(np.isnan(known[..., 0]), np.nan, away)


def placed_right(table: pd.DataFrame, truth: Truth) -> np.ndarray:
    """(N, 5) 1 where a candidate, the first being the place, lies within RADIUS_M of the truth; NaN: not known."""
    away = errors_m(table, truth)
    return np.where(np.isnan(away), np.nan, away <= RADIUS_M)


def compare(table: pd.DataFrame, truth: Truth) -> dict[str, Any]:
    """How far off the places are, and whether their probabilities hold, of pictures with a known position: recall and
    recall_5, the fraction placed within radius_m, or with one of the best five there; calibration_error, 0 to 1; half,
    the `metrics.claimed_and_true_precision` of the more probable half."""
    table = table[table["picture"].isin(truth.keys())]
    error, right, p = errors_m(table, truth)[:, 0], placed_right(table, truth), table["probability"].to_numpy()
    return {
        "known": len(p), "radius_m": RADIUS_M, "recall": right[:, 0].mean(), "recall_5": right.any(1).mean(),
        "median_error_m": np.median(error), "p90_error_m": np.quantile(error, 0.9),
        "calibration_error": calibration_error(p, right[:, 0]),
        "half": claimed_and_true_precision(p, right[:, 0], threshold_for(p, 0.5)),
    }  # fmt: skip
