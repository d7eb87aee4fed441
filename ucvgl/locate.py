"""`ucvgl locate`: two folders of imagery in, pictures on a map out.

`look` reads the folders, `plan` says what a run would do and for how long, `locate` does it: look, project, adapt,
retrieve (ucvgl/methods/locate.py), and write positions, map and report. Known positions, where some are given, enter in
the evaluation after everything is placed, or in training if that is asked for, never both.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ucvgl import paths
from ucvgl.candidates import SPAN_M, Candidates, cut
from ucvgl.confidence import Calibration, recalibrated
from ucvgl.data.decoding import decode_file
from ucvgl.encoders import TwoViewEncoder, embed, open_model
from ucvgl.errors import InputError
from ucvgl.imagery import Ground, Kind, check_ground
from ucvgl.lab.results import device
from ucvgl.located import (
    Comparison,
    Located,
    Report,
    Round,
    claim_folder,
    compare,
    errors_m,
    read_truth,
    true_positions,
    write_positions,
    write_report,
)
from ucvgl.map_figures import reliability_diagram, result_map
from ucvgl.map_page import Background, PageSettings, map_page, mosaic, write_map_page
from ucvgl.methods.common import EMBED_BATCH
from ucvgl.methods.common import device as torch_device
from ucvgl.mosaic import Mosaic, open_mosaic
from ucvgl.positions import to_metres
from ucvgl.street import StreetConfig, north_up, read_picture
from ucvgl.studies.adapt import SCRATCH, SCRATCH_PX, WORLD_WEIGHTS, AdaptConfig
from ucvgl.studies.locate import LocateConfig, Search, place, search, world_calibration

# squares along the longer edge of the map's background; whole ones fit, so up to half a one is lost at an edge
BACKGROUND_PARTS = 48
BACKGROUND_PX = 2048
PICTURE_PX = 512  # longer edge at which pictures are read for the page
LEAST_RECALIBRATED = 20  # known positions from which on the probabilities are corrected by them
TRAINING_COST = 8.0  # a training step against embedding its images once; for the estimate alone


@dataclass(frozen=True)
class Request:
    """What is asked for; each field is an option of the command.

    Args:
        ground: folder of street pictures.
        tiles: folder of satellite tiles.
        out: folder to write.
        ground_table: CSV with file and heading_deg, fov_deg or both.
        tiles_table: CSV with file, latitude, longitude, and metres_per_pixel or span_m.
        kind: of all pictures, where their shape does not tell.
        fov_deg: of the photos that do not say theirs.
        heading_deg: of the pictures that do not say theirs; None searches for it.
        camera_height_m: above the ground.
        crop_offset_px: of cropped panoramas.
        scheme: of tile names.
        zoom: of tile names of several levels.
        epsg: of tiles that do not say theirs.
        span_m: edge of a candidate.
        stride_m: between candidates; None: a quarter of the span.
        checkpoint: 'world', the committed encoders; 'scratch'; or a file.
        ground_input: what the ground encoder of that file reads.
        epochs: of training on this imagery; 0: none.
        turns: headings tried.
        truth: CSV of known positions, to evaluate by.
        labels: CSV of known positions, to train on.
        seed: of everything random.
    """

    ground: Path
    tiles: Path
    out: Path
    ground_table: Path | None = None
    tiles_table: Path | None = None
    kind: Kind | None = None
    fov_deg: float | None = None
    heading_deg: float | None = None
    camera_height_m: float = 2.5
    crop_offset_px: int = 0
    scheme: Literal["xyz", "tms"] = "xyz"
    zoom: int | None = None
    epsg: int | None = None
    span_m: float = SPAN_M
    stride_m: float | None = None
    checkpoint: str = "world"
    ground_input: Literal["top view", "panorama"] = "top view"
    epochs: int = 10
    turns: int = 24
    truth: Path | None = None
    labels: Path | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Looked:
    """What the folders hold, and how it will be searched."""

    ground: Ground
    mosaic: Mosaic
    candidates: Candidates
    config: LocateConfig
    truth: Mapping[str, tuple[float, float]]
    labels: Mapping[str, tuple[float, float]]

    @property
    def kinds(self) -> list[Kind]:
        """Of the usable pictures."""
        return [kind for kind in ("panorama", "photo") if len(self.ground.rows(kind))]  # type: ignore[misc]

    def text(self) -> str:
        """What was found, for people."""
        cut_to = self.candidates
        row = (
            f"{len(cut_to):,} candidates of {cut_to.span_m:g} m, {cut_to.stride_m:g} m apart"
            + f"; {cut_to.left_out:,} squares that no tile covers left out" * bool(cut_to.left_out)
        )
        return "\n".join([self.ground.text(), self.mosaic.text(), row])


def look(request: Request, *, progress: bool = True) -> Looked:
    """Checks both folders, the tables and the checkpoint; nothing is trained or written.

    Raises:
        InputError: nothing usable in a folder, tiles without positions, a checkpoint that is none, a damaged table, known
            positions of other pictures.
    """
    digest, ground_px, tile_px = _encoder(request.checkpoint)
    street = StreetConfig(
        request.ground_input, ground_px, request.span_m, request.camera_height_m, request.crop_offset_px
    )
    start = SCRATCH if request.checkpoint == SCRATCH else str(_file(request.checkpoint))
    adapt = AdaptConfig(start, digest, request.ground_input, request.epochs, seed=request.seed)
    if request.labels is not None and request.epochs == 0:
        raise InputError(
            "--labels", expected="epochs to train on them", found="--epochs 0",
            todo="Give one or more, or give the positions as --truth, to evaluate by.",
        )  # fmt: skip
    truth, labels = ({} if path is None else read_truth(path) for path in (request.truth, request.labels))
    ground = check_ground(
        request.ground, request.ground_table, kind=request.kind, fov_deg=request.fov_deg,
        heading_deg=request.heading_deg, progress=progress,
    )  # fmt: skip
    if not ground.usable:
        raise InputError(
            ground.root, expected="a usable picture", found=f"{len(ground.unusable)} that are not", todo=ground.text()
        )
    for positions in (truth, labels):
        if positions:  # told now and not after the training
            true_positions([picture.file for picture in ground.usable], positions)
    tiles = open_mosaic(
        request.tiles, request.tiles_table, scheme=request.scheme, zoom=request.zoom, epsg=request.epsg,
        progress=progress,
    )  # fmt: skip
    candidates = cut(tiles, request.span_m, request.stride_m, tile_px)
    return Looked(ground, tiles, candidates, LocateConfig(adapt, street, request.turns), truth, labels)


def _encoder(checkpoint: str) -> tuple[str, tuple[int, int], int]:
    """A digest of the checkpoint, and the sizes of what its encoders read."""
    if checkpoint == SCRATCH:
        return SCRATCH, (SCRATCH_PX, SCRATCH_PX), SCRATCH_PX
    path = _file(checkpoint)
    ground, satellite = open_model(path).configs
    if satellite.image_px[0] != satellite.image_px[1]:
        raise InputError(path, expected="an encoder of square tiles", found=satellite.image_px, todo="Give another.")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return digest, ground.image_px, satellite.image_px[0]


def _file(checkpoint: str) -> Path:
    """The checkpoint's file, by the same name from wherever the command is called: trainings are kept under it."""
    return WORLD_WEIGHTS if checkpoint == "world" else Path(checkpoint).expanduser().resolve()


# --------------------------------------------------------------------------------------------------------------- the plan


def plan(request: Request, looked: Looked) -> dict[str, Any]:
    """What a run would read, train and write, and about how long it would take, by timing a little of each here."""
    pictures = {kind: len(looked.ground.rows(kind)) for kind in looked.kinds}
    searched = {kind: int(np.isnan(looked.ground.headings(kind)).sum()) for kind in looked.kinds}
    count, blind, tiles = sum(pictures.values()), sum(searched.values()), len(looked.candidates)
    project, cut_one, embed_one = _rates(looked)
    config = looked.config
    batches = {kind: max(1, n // config.adapt.batch_size) for kind, n in pictures.items()}
    seconds = {
        "project": project * (count + blind * (1 + config.turns)),
        "cut": cut_one * tiles,
        "find headings": embed_one * (blind * config.turns + 4 * tiles * sum(map(bool, searched.values()))),
        # as they came, before each mining, and to search in four quarter turns
        "embed": embed_one * (count + tiles * len(pictures)) * (config.adapt.epochs + 2 + 4),
        "train": TRAINING_COST * embed_one * 2 * count * config.adapt.epochs,
    }
    scratch = config.adapt.start == SCRATCH
    pixels = int(np.prod(config.street.size_px))
    return {
        "device": device(),
        "pictures": pictures,
        "without_heading": searched,
        "unusable": len(looked.ground.unusable) + len(looked.mosaic.unreadable),
        "tiles": len(looked.mosaic),
        "candidates": tiles,
        "steps_of_training": {kind: n * config.adapt.epochs for kind, n in batches.items()},
        "pretrained_first": scratch,
        "megabytes_in_runs": round((count * pixels + tiles * looked.candidates.size_px**2) * 3 / 2**20, 1),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "seconds_in_all": round(sum(seconds.values()), 1),
        "writes": [str(Path(request.out) / name) for name in WRITTEN + (RELIABILITY,) * bool(looked.truth)],
    }


WRITTEN = ("positions.csv", "positions.geojson", "map.html", "map.png", "report.md")
RELIABILITY = "reliability.png"  # only where enough positions are known


def plan_text(found: Mapping[str, Any]) -> str:
    """The plan for people."""
    pictures = ", ".join(f"{n:,} {kind}s" for kind, n in found["pictures"].items())
    blind = sum(found["without_heading"].values())
    steps = sum(found["steps_of_training"].values())
    rows = [
        f"Would place {pictures} among {found['candidates']:,} candidates, on {found['device']}.",
        f"Would search the heading of {blind:,} of them." if blind else "All headings are known or stated.",
        f"Would train for {steps:,} steps"
        + (", after pretraining from scratch." if found["pretrained_first"] else "."),
        f"Would keep about {found['megabytes_in_runs']:,} MB in {paths.runs()}.",
        f"Would take about {_minutes(found['seconds_in_all'])}"
        + (", and the pretraining." if found["pretrained_first"] else "."),
        "Would write " + ", ".join(found["writes"]) + ".",
    ]
    return "\n".join(rows)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def _rates(looked: Looked) -> tuple[float, float, float]:
    """Seconds to project a picture, to cut a candidate, to embed one; of a few here."""
    kind = looked.kinds[0]
    some = [looked.ground.pictures[i] for i in looked.ground.rows(kind)[:4]]
    north, street = torch.zeros(1, dtype=torch.float64), looked.config.street
    project = _timed(
        lambda: [north_up(read_picture(looked.ground, p), kind, north, street, fov_deg=p.fov_deg) for p in some]
    )
    few = range(min(64, len(looked.candidates)))
    cutting = _timed(lambda: [looked.candidates.read(i) for i in few])
    if looked.config.adapt.start == SCRATCH:
        return project / len(some), cutting / len(few), 0.002
    model: TwoViewEncoder = open_model(looked.config.adapt.start).to(torch_device())
    tiles = torch.stack([looked.candidates.read(i) for i in few])
    embedding = _timed(lambda: embed(model.satellite, tiles.split(EMBED_BATCH)))
    return project / len(some), cutting / len(few), embedding / len(few)


def _timed(work: Callable[[], object]) -> float:
    """Seconds of the second run: the first one warms up."""
    work()
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


# ---------------------------------------------------------------------------------------------------------------- the run


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run found and wrote.

    Args:
        folder: where everything lies.
        located: the pictures that were placed.
        report: in numbers.
        searches: by kind, for whoever wants to look closer.
    """

    folder: Path
    located: list[Located]
    report: Report
    searches: dict[str, Search]

    def text(self) -> str:
        """A few lines for people."""
        probability = np.array([one.probability for one in self.located])
        sure, truth, radius = int((probability >= 0.9).sum()), self.report.truth, self.report.radius_m
        rows = [
            f"{len(self.located):,} of {self.report.found:,} pictures placed: {sure:,} with 90 % or more, "
            f"{probability.sum():.0f} expected within {radius:g} m"
        ]
        if truth is not None:
            rows.append(
                f"of {truth.known:,} with a known position {truth.recall:.1%} within {radius:g} m, median error "
                f"{truth.median_error_m:.1f} m; calibration error {100 * truth.calibration_error:.1f} points"
            )
        rows += [f"{len(self.report.unusable):,} files left out, see report.md"] * bool(self.report.unusable)
        rows.append(f"open {self.folder / 'map.html'}")
        return "\n".join(rows)

    def summary(self) -> dict[str, Any]:
        """For machines: counts, confidence, quality, times, files."""
        probability = np.array([one.probability for one in self.located])
        truth = self.report.truth
        return {
            "out": str(self.folder),
            "files": sorted(p.name for p in self.folder.iterdir() if not p.name.startswith(".")),
            "device": device(),
            "pictures": self.report.found,
            "placed": len(self.located),
            "unusable": [{"file": file, "reason": reason} for file, reason in self.report.unusable],
            "tiles": self.report.tiles,
            "candidates": self.report.candidates,
            "expected_right": round(float(probability.sum()), 1),
            "radius_m": self.report.radius_m,
            "rounds": [asdict(one) for one in self.report.rounds],
            "seconds": dict(self.report.seconds),
            "truth": None if truth is None else asdict(truth),
        }


class _Clock:
    """Seconds of each step, in the order they were begun."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun


def locate(request: Request, *, command: str = "ucvgl locate", progress: bool = True) -> Outcome:
    """Places the pictures and writes positions, map and report to `request.out`.

    Args:
        request: what is asked for.
        command: as the report quotes it.
        progress: show bars.

    Raises:
        InputError: as `look`; an output folder that holds something else; a full disk.
    """
    folder = claim_folder(request.out)
    clock = _Clock()
    try:
        with clock.step("checking the imagery"):
            looked = look(request, progress=progress)
        given = _given(looked)
        searches, located, taught = {}, [], set()
        for kind in looked.kinds:
            with clock.step(f"projecting, training and searching {kind}s"):
                known = None if given is None else given[torch.from_numpy(looked.ground.rows(kind))]
                searches[kind] = search(looked.ground, kind, looked.candidates, looked.config, known, progress=progress)
                names = looked.ground.images(kind).ids
                taught |= set() if known is None else {n for n, k in zip(names, known.tolist(), strict=True) if k >= 0}
        located, truth = _placed(looked, searches, taught)
        with clock.step("drawing the map"):
            backgrounds = background(looked.mosaic)
            write_positions(folder, located)
            _write_figures(folder, located, backgrounds, looked.truth, _untaught(looked, taught), searches)
            write_map_page(folder / "map.html", _page(request, looked, located, searches, backgrounds))
        report = _report(request, looked, searches, truth, command, clock.seconds)
        write_report(folder, report, located)
    except OSError as error:
        raise InputError(
            folder, expected="room and leave to write", found=error,
            todo=f"Free some of {paths.runs()} or of this disk, and run it again: what was computed is kept.",
        ) from error  # fmt: skip
    return Outcome(folder, located, report, dict(searches))


def _given(looked: Looked) -> Tensor | None:
    """(P,) the candidate nearest to each picture whose place is to be trained on, -1 elsewhere; None: no labels."""
    if not looked.labels:
        return None
    names = [picture.file for picture in looked.ground.pictures]
    where = true_positions(names, looked.labels)
    metres = to_metres(where.take(np.flatnonzero(where.known)), looked.mosaic.origin).values
    away, index = cKDTree(looked.candidates.centre_m).query(metres)
    given = np.full(len(names), -1, np.int64)
    given[where.known] = np.where(away <= looked.candidates.stride_m, index, -1)
    return torch.from_numpy(given)


def _placed(
    looked: Looked, searches: Mapping[str, Search], taught: set[str]
) -> tuple[list[Located], Comparison | None]:
    """All pictures on the map; probabilities corrected by known positions, after these have judged the given ones."""
    truth = _untaught(looked, taught)
    plain = [place(looked.ground, looked.candidates, found, calibration(found)) for found in searches.values()]
    judged = [one for group in plain for one in group if one.picture in truth]
    if not judged:
        return [one for group in plain for one in group], None
    compared = compare(judged, truth, next(iter(searches.values())).evidence.settings.radius_m)
    corrected = []
    for group, found in zip(plain, searches.values(), strict=True):
        right = _right(group, truth, found)
        if (~np.isnan(right)).sum() < LEAST_RECALIBRATED:
            corrected += group
            continue
        better = recalibrated(calibration(found), np.array([one.probability for one in group]), right)
        corrected += place(looked.ground, looked.candidates, found, better)
    return corrected, compared


def _untaught(looked: Looked, taught: set[str]) -> dict[str, tuple[float, float]]:
    """The known positions of placed pictures that were not trained on, by the pictures' files."""
    if not looked.truth:
        return {}
    names = [picture.file for picture in looked.ground.usable]
    where = true_positions(names, looked.truth)
    rows = [i for i in np.flatnonzero(where.known) if names[i] not in taught]
    return {names[i]: (float(where.values[i, 0]), float(where.values[i, 1])) for i in rows}


def _right(located: list[Located], truth: Mapping[str, tuple[float, float]], found: Search) -> np.ndarray:
    """(N,) 1 where a picture is placed right, 0 where not, NaN where its place is not known."""
    right = np.full(len(located), np.nan)
    rows = [i for i, one in enumerate(located) if one.picture in truth]
    if rows:
        right[rows] = errors_m([located[i] for i in rows], truth)[:, 0] <= found.evidence.settings.radius_m
    return right


def calibration(found: Search) -> Calibration:
    """The committed calibration that fits a search: by kind of picture, and by whether any heading was searched for."""
    return world_calibration(found.kind, searched=not bool(found.known.all()))


# -------------------------------------------------------------------------------------------------------------- the files


def background(tiles: Mosaic, longest_px: int = BACKGROUND_PX) -> list[Background]:
    """The tiles as one picture, north up."""
    low, high = tiles.bounds_m
    edge = float(max(high - low)) / BACKGROUND_PARTS
    edge = min(edge, float(min(high - low)))
    parts = cut(tiles, edge, edge, max(16, longest_px // BACKGROUND_PARTS), least_covered=0.02)
    return [mosaic(lambda i: parts.read(i), parts.positions, parts.span_m, longest_px)]


def _page(
    request: Request, looked: Looked, located: list[Located], searches: Mapping[str, Search],
    backgrounds: list[Background],
) -> str:  # fmt: skip
    """The page, with pictures read again at a small size."""
    row = {tile: i for i, tile in enumerate(looked.candidates.ids)}
    size = {picture.file: (picture.height, picture.width) for picture in looked.ground.pictures}
    views = {
        name: view
        for found in searches.values()
        for name, view in zip(looked.ground.images(found.kind).ids, found.images.top_view, strict=True)
    }

    def picture(i: int) -> Tensor | None:
        name = located[i].picture
        shrink = min(1.0, PICTURE_PX / max(size[name]))
        try:
            return decode_file(
                str(Path(looked.ground.root) / name), tuple(max(1, round(n * shrink)) for n in size[name])
            )
        except InputError:  # gone meanwhile; its place is known all the same
            return None

    return map_page(
        located, backgrounds, title=f"Where the pictures of {Path(request.ground).resolve().name} were taken",
        ground=picture, top=lambda i: views[located[i].picture], tile=lambda name: looked.candidates.read(row[name]),
        settings=PageSettings(),
    )  # fmt: skip


def _write_figures(
    folder: Path, located: list[Located], backgrounds: list[Background], truth: Mapping[str, tuple[float, float]],
    untaught: Mapping[str, tuple[float, float]], searches: Mapping[str, Search],
) -> None:  # fmt: skip
    """map.png, and where enough positions are known reliability.png; one of an earlier run goes, it shows other places."""
    _write_figure(folder / "map.png", result_map(located, backgrounds, truth=truth or None))
    right = _right(located, untaught, next(iter(searches.values())))
    if (~np.isnan(right)).sum() < LEAST_RECALIBRATED:
        (folder / RELIABILITY).unlink(missing_ok=True)
        return
    probability = np.array([one.probability for one in located])
    _write_figure(folder / RELIABILITY, reliability_diagram({"this imagery": (probability, right)}, bins=5))


def _write_figure(path: Path, figure: plt.Figure) -> None:
    partial = path.with_name(f".{path.name}.partial.png")
    try:
        figure.savefig(partial, dpi=130)
        partial.replace(path)
    finally:
        plt.close(figure)
        partial.unlink(missing_ok=True)  # a full disk, Ctrl-C


def _report(
    request: Request, looked: Looked, searches: Mapping[str, Search], truth: Comparison | None, command: str,
    seconds: Mapping[str, float],
) -> Report:  # fmt: skip
    """All numbers of the report."""
    where = looked.candidates.positions.values
    (south, west), (north, east) = where.min(0), where.max(0)
    used = [calibration(found) for found in searches.values()]
    several = len(searches) > 1
    rounds = [
        replace(one, name=f"{kind}s, {one.name}" if several else one.name)
        for kind, found in searches.items()
        for one in found.rounds
    ]
    return Report(
        command=command,
        found=len(looked.ground.pictures),
        unusable=(*((p.file, p.reason_unusable or "") for p in looked.ground.unusable), *looked.mosaic.unreadable),
        tiles=len(looked.mosaic),
        candidates=len(looked.candidates),
        span_m=looked.candidates.span_m,
        stride_m=looked.candidates.stride_m,
        area=(float(south), float(west), float(north), float(east)),
        calibrated_on="; ".join(dict.fromkeys(one.measured_on for one in used)),
        radius_m=used[0].settings.radius_m,
        rounds=tuple(rounds),
        seconds=tuple(seconds.items()),
        assumptions=tuple(_assumptions(request, looked, searches)),
        truth=truth,
    )


def _assumptions(request: Request, looked: Looked, searches: Mapping[str, Search]) -> list[str]:
    """What was estimated or taken for granted, a sentence each."""
    said = [f"the camera stood {request.camera_height_m:g} m above flat ground (--camera-height)"]
    for kind, found in searches.items():
        blind = int((~found.known).sum())
        if blind:
            said.append(
                f"the headings of {blind:,} {kind}s were searched for among {request.turns} turns; a picture with a known "
                "heading is found more often (--heading, or a table)"
            )
        said.append(_kept(kind, found.rounds, request.epochs))
    if request.heading_deg is not None:
        said.append(f"pictures that do not say their heading show {request.heading_deg:g} degrees in their centre")
    crops = [p for p in looked.ground.usable if p.kind == "panorama" and p.width > 2.2 * p.height]
    if crops:
        said.append(
            f"the {len(crops):,} panoramas cut at top and bottom have their horizon {request.crop_offset_px} px below "
            "their middle (--crop-offset)"
        )
    sources = {p.fov_source for p in looked.ground.usable if p.kind == "photo"}
    if "exif" in sources:
        said.append("fields of view come from the focal lengths in EXIF, an estimate")
    if request.checkpoint != "world":
        said.append(
            "probabilities were fitted with the committed encoders; with others they are a guess, to be checked with --truth"
        )
    if request.truth is not None and len(looked.truth) >= LEAST_RECALIBRATED:
        said.append(
            "probabilities in positions.csv were corrected by the known positions; the table above judges them as they "
            "were before that"
        )
    if request.labels is not None:
        given = _given(looked)
        used = 0 if given is None else int((given >= 0).sum())
        said.append(
            f"{used:,} positions of --labels were trained on and take no part in the evaluation; "
            f"{len(looked.labels) - used:,} others lie where no candidate is, or are of no picture here"
        )
    return said


def _kept(kind: Kind, rounds: Sequence[Round], epochs: int) -> str:
    """Which encoders placed the pictures; as `adapt` chooses them."""
    if epochs == 0:
        return f"the encoders placed the {kind}s as they came (--epochs 0)"
    if len(rounds) == 1:
        return f"no pseudo-label was found among the {kind}s, so the encoders stayed as they came"
    best = max(range(len(rounds)), key=lambda number: (rounds[number].mutual_rate, number))
    return f"of the encoders for {kind}s those kept are: {rounds[best].name}, which has the most mutual matches"
