"""Makes what `ucvgl locate` begins with, from the embedded world, whose truth costs nothing: the encoders, then how far
their places can be trusted, a calibration for each kind of picture.

    python scripts/make_weights.py          about 90 minutes on two cores; --help for the rest

Ours, in none of the papers. A top view and a square of a satellite image belong together if the camera stood near the
square's middle: as near as the grid of candidates that a city is searched in can promise. Squares a little farther
off are hard negatives of their own, so that of overlapping candidates the nearest one wins. Part of the top views is
cut to the sector that a photo would show. The encoders learn from 64 cities, each of a style drawn around garden, canal
and old_town; the calibrations are a logistic regression of the evidence (ucvgl/locate/confidence.py), fitted in eight
more that are searched as anybody's would be; downtown is left for the check (notebook 07).
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Generator, Tensor, nn

from ucvgl.augment import Augmentation, augment, move_together, to_float
from ucvgl.data.prepare import BATCH
from ucvgl.encoders import EncoderConfig, TwoViewEncoder, open_model, save_model, two_view_encoder
from ucvgl.geometry import TopView, top_view
from ucvgl.lab.profiles import SMALL_AUGMENTATION
from ucvgl.lab.stages import StageResult, run_stage
from ucvgl.locate.confidence import FEATURES, LEAST, RADIUS_M, SETTINGS, Calibration
from ucvgl.locate.inputs import WORLD_WEIGHTS, Inputs, Request, read_inputs
from ucvgl.locate.located import errors_m, place, placed_right
from ucvgl.locate.pictures import Kind
from ucvgl.locate.search import Search, calibration_path, search
from ucvgl.losses import info_nce
from ucvgl.methods.baselines import centred_by_domain
from ucvgl.methods.common import BEST, device
from ucvgl.paths import runs, write_json
from ucvgl.positions import Positions, Wgs84, to_metres
from ucvgl.training import Batch, Task, TrainingConfig, train
from ucvgl.world.export import OWN_CITY, export_own_city
from ucvgl.world.pairs import WorldConfig, world_pairs
from ucvgl.world.styles import STYLES, CityStyle

SPAN_M = 50.0  # of a top view and of a candidate
KNOWN = ("garden", "canal", "old_town")  # styles that others are drawn around; downtown is left for the check
DRAWN = tuple(f"drawn {number}" for number in range(72))  # the names of those
CITIES = DRAWN[:64]
TOGETHER = 32  # places of one city that come together in a batch
CALIBRATION_CITIES = DRAWN[len(CITIES) :]  # of styles that the encoders don't know, as anybody's city
FOV_DEG = 80.0  # of their photos
WESTERN = 0.6  # of a city's candidates that are searched, where two of five pictures are to lie outside
SCALES = (20.0, 30.0, 40.0, 60.0, 80.0, 120.0, 160.0)  # that are tried


def drawn_style(name: str) -> CityStyle:
    """A style that is none of the world's, the same for the same name, so that encoders learn what holds in many cities:
    each number lies between those of two known styles, halved to doubled; colours are of all known palettes, in one tint
    and saturation; any part of the roofs is pitched."""
    rng = np.random.default_rng(list(name.encode()))
    tint, saturation = rng.uniform(0.75, 1.3) * rng.uniform(0.93, 1.07, 3), rng.uniform(0, 1.3)
    drawn: dict[str, Any] = {"name": name}
    for key in (entry.name for entry in fields(CityStyle)[1:]):
        known = [np.asarray(getattr(STYLES[one], key), float) for one in KNOWN]
        if known[0].shape[-1:] == (3,):  # colours
            pool = np.concatenate([np.atleast_2d(palette) for palette in known])
            some = pool[rng.integers(len(pool), size=len(np.atleast_2d(known[0])))]
            some = (some.mean(1, keepdims=True) * (1 - saturation) + some * saturation) * tint
            some = some.clip(0, 255).round().astype(int)
            drawn[key] = tuple(map(tuple, some.tolist())) if known[0].ndim == 2 else tuple(some[0].tolist())
        else:
            one, other = (known[i] for i in rng.integers(len(known), size=2))
            most = 1.0 if max(value.max() for value in known) <= 1 else np.inf  # a share
            value = ((one + rng.random() * (other - one)) * 2 ** rng.uniform(-1, 1)).clip(max=most)
            drawn[key] = tuple(value.tolist()) if value.ndim else float(value)
    low, high = (max(1, round(floors)) for floors in drawn["floors"])
    return CityStyle(**drawn | {
        "floors": (low, high), "pitched_share": rng.random(),
        "block_m": tuple(max(40.0, edge) for edge in drawn["block_m"]),  # with room for lots between two streets
        "bend_cell_m": max(drawn["bend_cell_m"], 4 * drawn["bend_m"]),  # so that streets don't fold
    })  # fmt: skip


@dataclass(frozen=True)
class WorldWeights:
    """What is trained, on which cities."""

    world: WorldConfig = field(
        default_factory=lambda: WorldConfig(
            CITIES, 500, 256 * len(CITIES), 20.0, span_m=2 * SPAN_M, tile_px=128, city_size_m=1000.0, resolution_m=0.4
        )
    )  # squares of any offset are cut from tiles twice as wide
    encoder: EncoderConfig = field(
        default_factory=lambda: EncoderConfig("tf_efficientnet_lite0", "package", depth=4, image_px=(64, 64))
    )
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            epochs=24, batch_size=128, learning_rate=2e-3, weight_decay=0.05, warmup_epochs=0.5, clip_norm=5.0
        )
    )
    augmentation: Augmentation = SMALL_AUGMENTATION
    smoothing: float = 0.1  # of the labels
    near_m: float = 7.0  # a square's middle is at most so far from the camera, east or north: half a stride, and a bit
    far_m: tuple[float, float] = (11.0, 25.0)  # and that of its hard negative at least and at most
    turn_deg: float = 8.0  # error of the heading
    scale: float = 0.1  # error of the assumed camera height, as a fraction of it
    photos: float = 0.2  # fraction of the top views that is cut to a sector
    fov_deg: tuple[float, float] = (55.0, 110.0)  # of those sectors
    blank: tuple[float, float] = (0.1, 0.3)  # what lies below a photo's frame: a disc, in fractions of half the span
    seed: int = 0


def squares(
    tiles: Tensor, tile_span_m: float, centre_m: Tensor, turn_deg: Tensor, span_m: Tensor, size_px: int
) -> Tensor:
    """Cuts a square out of each tile, bilinearly; what lies outside a tile is mirrored.

    Args:
        tiles: float (B, C, S, S), north up, each tile_span_m across.
        tile_span_m: metres.
        centre_m: (B, 2) of the square, metres east and north of the tile's middle.
        turn_deg: (B,) clockwise from north, of the square's upward direction.
        span_m: (B,) edge of the square.
        size_px: edge of the square.
    """
    turn, zoom = turn_deg.deg2rad(), span_m / tile_span_m
    theta = torch.zeros(len(tiles), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = turn.cos() * zoom
    theta[:, 0, 1], theta[:, 1, 0] = -turn.sin() * zoom, turn.sin() * zoom
    theta[:, :, 2] = centre_m * torch.tensor([2.0, -2.0]) / tile_span_m  # rows count southwards
    grid = F.affine_grid(theta.to(tiles), [len(tiles), tiles.shape[1], size_px, size_px], align_corners=False)
    return F.grid_sample(tiles, grid, padding_mode="reflection", align_corners=False)  # (B, C, size_px, size_px)


def sector(size_px: int, heading_deg: Tensor, fov_deg: Tensor, blank: Tensor) -> Tensor:
    """Which pixels of a north-up top view a photo in that direction shows: (B, 1, S, S) bool.

    Args:
        size_px: edge of the top view.
        heading_deg: (B,) of the camera.
        fov_deg: (B,) across the photo; 360 or more shows all around.
        blank: (B,) radius of the disc below the photo's frame, in fractions of half the top view's edge.
    """
    steps = (torch.arange(size_px) + 0.5) * (2 / size_px) - 1
    x, y = torch.meshgrid(steps, steps, indexing="xy")
    heading_deg, fov_deg, blank = (value.view(-1, 1, 1) for value in (heading_deg, fov_deg, blank))
    off = (torch.atan2(x, -y).rad2deg() - heading_deg + 180) % 360 - 180
    return ((off.abs() <= fov_deg / 2) & (torch.hypot(x, y) >= blank)).unsqueeze(1)


@dataclass
class WorldPairs(Task):
    """Top views, the squares around their cameras, and squares beside those."""

    top_view: Tensor  # (N, 3, S, S) uint8
    tile: Tensor  # (N, 3, T, T) uint8
    camera_m: Tensor  # (N, 2) east and north of the tile's middle
    config: WorldWeights

    def order(self, epoch: int, model: nn.Module, generator: Generator) -> Tensor:
        """Every place once, TOGETHER of a city: those of other cities are told apart by their style alone."""
        cities = torch.arange(len(self.top_view)).split(len(self.top_view) // len(self.config.world.styles))
        rows = torch.cat([city[torch.randperm(len(city), generator=generator)] for city in cities]).split(TOGETHER)
        return torch.cat([rows[i] for i in torch.randperm(len(rows), generator=generator)])

    def batch(self, items: Tensor, generator: Generator) -> Batch:
        """A top view, its square and a hard negative of each place."""
        config, size_px = self.config, self.config.encoder.image_px[0]

        def drawn(*shape: int) -> Tensor:
            return torch.rand(len(items), *shape, generator=generator) * 2 - 1

        tile, camera = to_float(self.tile[items]), self.camera_m[items]
        turn, zoom = drawn() * config.turn_deg, SPAN_M * (1 + drawn() * config.scale)
        azimuth = drawn() * math.pi
        low, high = config.far_m
        away = low + (drawn() + 1) / 2 * (high - low)
        beside = torch.stack([azimuth.sin(), azimuth.cos()], 1) * away[:, None]
        near = [
            squares(tile, config.world.span_m, camera + offset, turn, zoom, size_px)
            for offset in (drawn(2) * config.near_m, beside)
        ]
        moved = move_together((to_float(self.top_view[items]), *near), ("turn",) * 3, config.augmentation, generator)
        ground, *tiles = (augment(image, config.augmentation, generator) for image in moved)
        photo = (drawn() + 1) / 2 < config.photos
        fov, blank = (low + (drawn() + 1) / 2 * (high - low) for low, high in (config.fov_deg, config.blank))
        seen = sector(size_px, drawn() * 180, torch.where(photo, fov, 360.0), blank * photo)
        return Batch((ground * seen, *tiles))

    def embed(self, model: TwoViewEncoder, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Descriptors of top views, their squares, their hard negatives."""
        return model.ground(inputs[0]), *model.satellite(torch.cat(inputs[1:])).chunk(2)

    def loss(self, model: TwoViewEncoder, embeddings: tuple[Tensor, ...], labels: tuple[Tensor, ...]) -> Tensor:
        """Symmetric InfoNCE of centred descriptors, and the top view's cross-entropy between its square and all hard negatives."""
        # each view's mean is taken away, as it is when a city is searched
        ground = centred_by_domain(embeddings[0])
        right, wrong = centred_by_domain(torch.cat(embeddings[1:])).chunk(2)
        own = (ground * right).sum(1, keepdim=True)
        against = model.scale * torch.cat([own, ground @ wrong.T], 1)  # (B, 1 + B)
        target = torch.zeros(len(ground), dtype=torch.int64, device=ground.device)
        matched = info_nce(ground, right, model.scale, label_smoothing=self.config.smoothing)
        return matched + F.cross_entropy(against, target)


def train_encoders(config: WorldWeights, *, progress: bool = True) -> StageResult:
    """Trains the encoders, in the run cache; the stage's folder holds best.safetensors."""
    pairs = world_pairs(config.world)

    def compute(folder: Path) -> dict[str, Any]:
        view = TopView.from_span(config.encoder.image_px[0], SPAN_M)
        views = torch.cat([top_view(part, view) for part in pairs.query[:].split(BATCH)])
        camera = (pairs.query.positions.values - pairs.gallery.positions.values).astype(np.float32)
        task = WorldPairs(views, pairs.gallery[:], torch.from_numpy(camera), config)
        model = two_view_encoder(config.encoder, config.encoder, shared=False, seed=config.seed)
        model = model.to(device(), memory_format=torch.channels_last)
        rows = train(model, task, config.training, folder, name="world weights", progress=progress)
        save_model(model, folder / BEST)
        return {"rows": rows}

    return run_stage("world-weights", config, pairs.digest(), compute)


@dataclass(frozen=True)
class Case:
    """A city of the embedded world, and how it is searched."""

    kind: Kind = "panorama"
    searched: bool = False  # are the pictures' headings hidden
    style: str = "downtown"
    places: int = 300
    city_size_m: float = 1000.0
    western: float = 1.0  # part of the candidates that is searched; other pictures lie outside
    seed: int = 0  # of the city


CASES = tuple(Case(kind, searched) for kind, searched in product(("panorama", "photo"), (False, True)))


def search_city(case: Case) -> tuple[Search, Inputs]:
    """Searches a city as anybody's, written to the run cache unless it lies there; headings are stated or tabled, unless
    they are to be searched for. `located.place` places its pictures, `located.errors_m` opens the truth."""
    is_photo = case.kind == "photo"
    name = f"{case.style}-{case.seed}-{case.places}-{case.city_size_m:g}" + f"-photo{FOV_DEG:g}" * is_photo
    root = runs() / "cities" / name
    if not root.exists():
        world = replace(OWN_CITY, styles=(case.style,), seed=case.seed, places=case.places,
                        city_size_m=case.city_size_m, panorama_px=512 if is_photo else 128)  # fmt: skip
        export_own_city(root, world, photo_fov_deg=FOV_DEG if is_photo else None)
    table = root / "ground.csv" if is_photo and not case.searched else None
    heading_deg = None if is_photo or case.searched else 0.0
    asked = Request(root / "ground", root / "tiles", root, table, kind=case.kind, fov_deg=FOV_DEG,
                    heading_deg=heading_deg, epochs=0, truth=root / "truth.csv")  # fmt: skip
    inputs = read_inputs(asked)
    if case.western < 1:
        east_m = inputs.candidates.centre_m[:, 0]
        rows = np.flatnonzero(east_m < np.quantile(east_m, case.western))
        inputs = replace(inputs, candidates=inputs.candidates.take(rows))
    return search(inputs), inputs


def true_m(found: Search, inputs: Inputs) -> np.ndarray:
    """(N, 2) where the pictures were taken, in the candidates' metres."""
    where = [inputs.truth[picture.file] for picture in found.pictures]
    return to_metres(Positions(where, Wgs84()), inputs.candidates.mosaic.origin).values


def outside(found: Search, inputs: Inputs) -> np.ndarray:
    """(N,) bool: which pictures no candidate is near enough to."""
    return cKDTree(inputs.candidates.centre_m).query(true_m(found, inputs))[0] > RADIUS_M


def as_drive(found: Search, inputs: Inputs) -> tuple[Search, Inputs]:
    """The same pictures, which come in no order, with the time stamps of a drive past all places, each time to the
    nearest that is left, at 5 to 10 metres a second: what a camera's clock would tell, and no other truth."""
    where = true_m(found, inputs)
    order, left = [int(where.sum(1).argmin())], np.ones(len(where), bool)
    while len(order) < len(where):
        left[order[-1]] = False
        away = np.hypot(*(where - where[order[-1]]).T)
        order.append(int(np.where(left, away, np.inf).argmin()))
    steps = np.hypot(*np.diff(where[order], axis=0).T)
    speed = np.random.default_rng(len(where)).uniform(5, 10, len(steps))
    seconds = np.append(0.0, np.cumsum(steps / speed))[np.argsort(order)]
    stamped = [replace(one, taken_s=taken) for one, taken in zip(found.pictures, seconds.tolist(), strict=True)]
    return replace(found, pictures=stamped), replace(inputs, request=replace(inputs.request, drive="time"))


def fit_calibration(
    values: np.ndarray, error_m: np.ndarray, *, measured_on: str, penalty: float = 1.0, scale: float = Calibration.scale
) -> Calibration:
    """Fits the probability of being right where truth is known: the w, b that minimise log loss + penalty |w|^2 / 2.

    scikit-learn's logistic regression: the loss is summed over the pictures, the features are standardised, the bias is free:
    so the mean probability on these pictures is the fraction of them that is right.

    Args:
        values: (N, 5) of `confidence.Evidence`.
        error_m: (N, 5) metres between each of the best candidates and the truth; NaN where unknown, and left out.
        measured_on: where, in words.
        penalty: of the squared weights, above 0: separable pictures would otherwise make them infinite.
        scale: of `fit_scale`.
    """
    from sklearn.linear_model import LogisticRegression

    known = ~np.isnan(error_m[:, 0])
    x, right = values[known], error_m[known, 0] <= RADIUS_M  # (n, 5) and (n,)
    mean, sd = x.mean(0), x.std(0)
    sd = np.where(sd > 1e-12, sd, 1.0)
    fitted = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000).fit((x - mean) / sd, right)
    rows = (tuple(row.tolist()) for row in (mean, sd, fitted.coef_[0]))
    return Calibration(*rows, float(fitted.intercept_[0]), measured_on, scale)


def fit_scale(cities: Sequence[tuple[Search, Inputs]]) -> float:
    """The scale of the cosines with which the probabilities of drives lose least, as the logarithm of the truth's own."""
    drives = [as_drive(*city) for city in cities]

    def loss(scale: float) -> float:
        losses = []
        for found, inputs in drives:
            table = place(replace(found, calibration=replace(found.calibration, scale=scale)), inputs)
            right, p = placed_right(table, inputs.truth)[:, 0], table["probability"]
            losses.append(-np.log(np.where(right == 1, p, 1 - p).clip(LEAST)))
        return float(np.concatenate(losses).mean())

    return min(SCALES, key=loss)


def calibrate(case: Case) -> Calibration:
    """Searches the cities of a case, each with all its tiles and with those of a part, and fits to all their pictures."""
    cities = [replace(case, style=style, seed=seed) for seed, style in enumerate(CALIBRATION_CITIES, 11)]
    whole = [search_city(city) for city in cities]
    part = [search_city(replace(city, western=WESTERN)) for city in cities]
    missing = np.mean([outside(*trial).mean() for trial in part])
    headings = "headings searched for" if case.searched else "known headings"
    words = (
        f"{len(cities)} synthetic cities of as many styles, {case.places} {case.kind}s each, {headings}, each searched in "
        f"all its tiles and in those of a part, which {missing:.0%} of the pictures lie outside of"
    )
    values = np.concatenate([found.evidence.values for found, _ in whole + part])
    error_m = np.concatenate([errors_m(place(found, inputs), inputs.truth) for found, inputs in whole + part])
    return fit_calibration(values, error_m, measured_on=words, scale=fit_scale(whole + part))


def write_calibration(calibration: Calibration, path: Path) -> None:
    """As `confidence.load_calibration` reads it."""
    write_json(path, {"names": FEATURES, **asdict(calibration), "settings": SETTINGS, "version": 1})


def main() -> None:
    """Writes world.safetensors, in half precision, then a calibration for each case with these encoders."""
    parser = argparse.ArgumentParser(description="Makes the encoders and the calibrations of `ucvgl locate`.")
    parser.add_argument(
        "--only", choices=("encoders", "calibrations"), help="about 60 and 30 minutes; both if not said"
    )
    only = parser.parse_args().only
    STYLES.update({name: drawn_style(name) for name in DRAWN})
    if only != "calibrations":
        save_model(open_model(train_encoders(WorldWeights()).folder / BEST).half(), WORLD_WEIGHTS)
    for case in CASES if only != "encoders" else ():
        path = calibration_path(case.kind, searched=case.searched)
        nothing = Calibration((0.0,) * 5, (1.0,) * 5, (0.0,) * 5, 0.0, "nothing yet")
        write_calibration(nothing, path)  # a search opens one, of this evidence
        write_calibration(calibrate(case), path)


if __name__ == "__main__":
    main()
