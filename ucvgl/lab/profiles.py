"""The profiles tiny, laptop and paper: which images, which encoders, for how long, for each of the papers; from profiles.toml.

A seed affects only the training; the embedded world stays the same for every seed, as a data set of photographs would."""

import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from ucvgl.augment import UCVGL
from ucvgl.data import detect_layout, open_dataset
from ucvgl.data.decoding import image_size
from ucvgl.data.prepare import Preparation
from ucvgl.encoders import EncoderConfig, similar_names
from ucvgl.errors import InputError
from ucvgl.geometry import TopView
from ucvgl.heads import published
from ucvgl.lab.real_pairs import RealPairs
from ucvgl.lab.settings import WORLD, asked_rows
from ucvgl.methods.sample4geo import Sample4Geo, Sampling
from ucvgl.methods.ucvgl import Curriculum, Pretraining, Translation
from ucvgl.methods.vg_ssl import VgSsl
from ucvgl.pseudo_labels import MiningRule
from ucvgl.sampling import NeighbourDraw
from ucvgl.training import TrainingConfig
from ucvgl.translation import CycleGanConfig
from ucvgl.world.drives import DriveConfig
from ucvgl.world.pairs import WorldConfig

Size = tuple[int, int]  # height and width, px
WORLD_SEED, HELD_OUT_SEED = 0, 1000  # of the cities that are trained on, and of those that are held out
CITIES, UNSEEN = ("garden", "canal"), ("downtown", "old_town")  # trained on; Sample4Geo's cross area
PAPER_BACKBONES = ("", "resnet50", "deit_small")  # of notebook 06, which change no other
STEPS = ("intra", "cross", "curriculum")  # UCVGL's 3 to 5
HEAD = 512  # numbers of the linear layer behind a frozen backbone whose own pooling learns nothing
SMOKE_PX = 192  # with ROWS=smoke longer sides are a quarter as long


def _tuples(value: Any) -> Any:
    """A value of the file; its lists as tuples, as dataclasses have them."""
    if isinstance(value, dict):
        return {key: _tuples(each) for key, each in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def changed(settings: Any, values: Mapping[str, Any]) -> Any:
    """A dataclass with other values: a table of values changes the dataclass in that field, "left out" is None."""
    new = {}
    for name, value in values.items():
        inner = changed(getattr(settings, name), value) if isinstance(value, dict) else value
        new[name] = None if inner == "left out" else inner
    return replace(settings, **new)


VALUES = _tuples(tomllib.loads(Path(__file__).with_name("profiles.toml").read_text(encoding="utf-8")))
SMALL_AUGMENTATION = replace(UCVGL, **VALUES["augmentation"])


@dataclass(frozen=True)
class Projection:
    """Sizes of notebook 01."""

    world: WorldConfig  # the gallery of the difficulty table; its difficulty is replaced by each level in turn
    accuracy_places: int  # over which the projection's error is measured
    accuracy_panorama_px: int  # height of the panoramas there
    picture_px: int  # height of the panoramas and side of the tiles that are drawn
    camera_height_m: float = 2.5  # what the projection assumes: the middle of every level


def projection(profile: str, seed: int) -> Projection:
    """Notebook 01's sizes."""
    table = VALUES["projection"]
    return smoke(Projection(WorldConfig(**table["worlds"][profile], seed=seed), **table[profile]))


@dataclass(frozen=True)
class UcvglSettings:
    """UCVGL's settings in a profile, for notebooks 02 to 04."""

    train: WorldConfig
    test: WorldConfig  # another city
    images: Preparation
    start: Pretraining
    curriculum: Curriculum
    gan: CycleGanConfig  # for the comparison of translations; what is used stands in `start`


def ucvgl(profile: str, seed: int, *, data: str = WORLD, backbone: str = "") -> UcvglSettings:
    """UCVGL's settings. data: the world, or a data set's root: CVUSA, CVACT and VIGOR have their
    own projection and threshold. backbone: of the paper profile, as `with_backbone` takes it; '' for the paper's."""
    table, paper, known = VALUES["ucvgl"][profile], profile == "paper", VALUES["ucvgl"]["data_sets"]
    world = WorldConfig(CITIES, WORLD_SEED, **table["world"])
    test = replace(world, styles=("garden",), seed=HELD_OUT_SEED, places=table["held_out"])
    tile, rule = EncoderConfig(**table["tile"]), MiningRule(**table["rule"])
    ground_px, fov_deg = (tile.image_px[0], 2 * tile.image_px[1]), TopView.from_span(tile.image_px[0], 50.0).fov_deg
    if paper and data != WORLD:
        theirs = known.get(detect_layout(data), known["cvact"])
        ground_px, fov_deg, rule = theirs["ground_px"], theirs["fov_deg"], MiningRule(**theirs["rule"])
    tile, ground = with_backbone(tile, ground_px, backbone)
    images = Preparation(ground.image_px, tile.image_px, TopView(tile.image_px[0], fov_deg))
    loops = {step: TrainingConfig(**table["training"], **table[step], seed=seed) for step in STEPS}
    gan, augmentation = CycleGanConfig(**table["gan"]), UCVGL if paper else SMALL_AUGMENTATION
    translation = Translation("cyclegan" if paper else "statistics")
    start = Pretraining(ground, tile, translation=translation, intra=loops["intra"], cross=loops["cross"],
                        augmentation=augmentation, **table["start"], seed=seed)  # fmt: skip
    loop = loops["curriculum"]
    steps = Curriculum(start, training=loop, rule=rule, augmentation=augmentation, **table["steps"], seed=seed)
    gan = replace(gan, seed=seed) if profile == "laptop" else gan
    settings = smoke(UcvglSettings(world, test, images, start, steps, gan))
    if data == WORLD or _shows_panoramas(data):
        return settings
    # photos, drone images or any others that are not projected: squeezed into the tiles' squares
    px = settings.images.gallery_px
    start = {"ground": {"image_px": px}, "ground_input": "photo", "projection": False}
    return changed(settings, {"images": Preparation(px, px), "start": start, "curriculum": {"start": start}})


def _shows_panoramas(root: str) -> bool:
    """Whether a data set's queries are panoramas: of its layout, else if the first is twice as wide as high."""
    if (layout := detect_layout(root)) not in VALUES["ucvgl"]["data_sets"]:
        with suppress(InputError):  # absent or damaged: said when it is read
            height, width = image_size(open_dataset(layout, root).query.file(0))
            return width >= 2 * height
    return True


@dataclass(frozen=True)
class Flights:
    """The drone images rendered where no data set is given: University-1652's layout, or SUES-200's at four heights."""

    places: int = 500
    views: int = 2  # drone images of a place, of SUES-200 at each height; University-1652 54, SUES-200 50
    image_px: int = 64
    tile_px: int = 64
    styles: tuple[str, ...] = CITIES
    seed: int = WORLD_SEED
    city_size_m: float = 900.0
    resolution_m: float = 0.4
    spacing_m: float = 25.0  # between places, so that their tiles differ
    span_m: float = 90.0  # of a tile: about what the drone sees
    difficulty: str = "easy"  # University-1652's drone images and tiles are both from Google Earth: one day, one sensor


@dataclass(frozen=True)
class Sample4GeoSettings:
    """Sample4Geo's settings in a profile, for notebook 05."""

    unlabelled: UcvglSettings  # UCVGL's, whose images and encoders the table beside Sample4Geo shares
    trained: WorldConfig  # in VIGOR's layout, a city a style: a quarter of the panoramas is held out for the same area
    unseen: WorldConfig  # in the same layout, cities of other styles: the cross area
    small: int  # panoramas of one style, for the tables whose every row the budget of the first does not reach
    images: Preparation
    method: Sample4Geo
    brief: Sample4Geo  # on `small` panoramas
    drone: Sample4Geo
    flights: Flights  # University-1652's form
    heights: Flights  # SUES-200's form
    real: RealPairs | None  # on University-1652's sample; None in the paper profile, where `drone` names the whole set
    fovs_deg: tuple[float, ...] = (360.0, 180.0, 90.0, 70.0)  # at unknown headings (Shi et al., CVPR 2020)


def sample4geo(profile: str, seed: int, *, data: str = WORLD, backbone: str = "") -> Sample4GeoSettings:
    """Sample4Geo's settings; arguments as `ucvgl`."""
    other = ucvgl(profile, seed, data=data, backbone=backbone)
    table, paper = VALUES["sample4geo"][profile], profile == "paper"
    world = WorldConfig(CITIES, WORLD_SEED, **table["world"])
    unseen = replace(world, styles=UNSEEN, seed=HELD_OUT_SEED, places=table["unseen"])
    tile = EncoderConfig(**table["tile"])
    strips = paper and data != WORLD and detect_layout(data) in ("cvusa", "cvact")
    tile, ground = with_backbone(tile, (140, 768) if strips else (tile.image_px[0], 2 * tile.image_px[1]), backbone)
    training = TrainingConfig(**table["training"], seed=seed)
    sampling = Sampling("both", NeighbourDraw(**table["draw"]), table["refresh_every"])
    method = Sample4Geo(ground, tile, training=training, sampling=sampling, **table["method"])
    brief = changed(method, {"sampling": {"draw": table["brief"]}})
    flights = Flights(**table["flights"])
    flights = replace(flights, image_px=tile.image_px[0], tile_px=tile.image_px[1]) if paper else flights
    square = replace(tile, image_px=(flights.image_px, flights.image_px))
    drone = changed(replace(brief, ground=square, satellite=square, ground_kind="oblique"), table["drone"])
    real = None if paper else changed(changed(RealPairs(), table["real"]), {"training": {"seed": seed}})
    images, heights = Preparation(ground.image_px, tile.image_px), replace(flights, **table["heights"])
    few = table["small"]
    settings = Sample4GeoSettings(other, world, unseen, few, images, method, brief, drone, flights, heights, real)
    settings = smoke(settings)
    if other.images.top_view is not None:
        return settings
    photos = {"ground": settings.method.satellite, "ground_kind": "oblique", "tile_kind": "photo"}
    return changed(settings, {"images": other.images, "method": photos, "brief": photos})


@dataclass(frozen=True)
class VgSslSettings:
    """VG-SSL's settings in a profile, for notebook 06."""

    train: tuple[DriveConfig, ...]  # by car alone, as MSLS: the other kinds show how it generalises
    joined: tuple[DriveConfig, ...]  # of all kinds
    tests: Mapping[str, DriveConfig]
    photo_px: Size
    methods: Mapping[str, VgSsl]  # by published key
    frame_px: Size  # of the real frames, which are 32 x 64
    frames: int | None  # so many of each part, from its beginning; None: all
    real: Mapping[str, VgSsl]  # by published key, on Nordland; empty in the paper profile, where `data` names real sets
    projectors: tuple[tuple[int, int, int], ...]  # layers, width behind each, numbers of the descriptor before them
    cold_start: UcvglSettings  # UCVGL's, on the small budget of the table across the papers


def vg_ssl(profile: str, seed: int, *, backbone: str = "resnet50") -> VgSslSettings:
    """VG-SSL's settings. backbone: of the paper profile: resnet50 (GeM, 1024 numbers),
    deit_small (two tokens, 256), or as `with_backbone` takes it."""
    cold = ucvgl(profile, seed)
    table, paper = VALUES["vg_ssl"][profile], profile == "paper"
    deit = paper and backbone == "deit_small"
    other = VALUES["vg_ssl"]["deit_small"] if deit else {"encoder": {}, "training": {}}
    encoder, training = EncoderConfig(**table["encoder"] | other["encoder"]), table["training"] | other["training"]
    encoder, _ = with_backbone(encoder, encoder.image_px, backbone if paper else "")
    training, train = TrainingConfig(**training, seed=seed), DriveConfig("car", **table["drives"])
    frames, methods, real = table.get("frames"), {}, {}
    for key, (method, rate) in VALUES["vg_ssl"]["methods"].items():
        loss, pairs = published(method), "partial" if method in ("simclr", "barlow", "vicreg") else "random"
        if paper:
            augment = not deit and method != "moco"
            methods[key] = VgSsl(encoder, loss, training, pairs, queries=10_000, augment=augment)
            continue
        # heads an eighth as wide as the paper's, and a queue as short as the set
        wide, hidden = max(8, loss.projector_width // 8), max(8, loss.predictor_width // 8)
        loss = replace(loss, projector_width=wide, predictor_width=hidden, queue=train.places, momentum=0.99)
        if method in ("byol", "simsiam"):
            # of 1, 10 and 30 the best on the same frames: what a predictor learns at that has some two hundred steps to learn in
            loss = replace(loss, predictor_rate=30.0)
        learnt = replace(training, learning_rate=rate)
        # ImageNet's statistics: those of these small photos undo more than is learnt
        methods[key] = VgSsl(encoder, loss, learnt, pairs, negatives=2, fixed_norms=True, crop_ratio=None)
        # random pairs for all: on the last fifth SimCLR had 61 % with them, 57 % in the partial form, at twice the cost
        queue = loss.queue if frames is None else min(20, frames)
        values = {"geopair": "random", "training": {"epochs": training.epochs * 3 // 2}, "loss": {"queue": queue}}
        real[key] = changed(methods[key], values | {"encoder": {"image_px": table["frame_px"]}})
    # the joined form has a quarter of the places by each kind
    joined = tuple(replace(train, kind=kind, places=train.places // len(table["tests"])) for kind in table["tests"])
    tests = {kind: replace(train, kind=kind, seed=HELD_OUT_SEED, places=n) for kind, n in table["tests"].items()}
    cold = changed(cold, {"start": {"cross": {"epochs": max(1, cold.start.cross.epochs // 3)}}})
    photo_px, frame_px, projectors = encoder.image_px, table["frame_px"], (table | other)["projectors"]
    return smoke(VgSslSettings((train,), joined, tests, photo_px, methods, frame_px, frames, real, projectors, cold))


def with_backbone(published: EncoderConfig, ground_px: Size, choice: str) -> tuple[EncoderConfig, EncoderConfig]:
    """The encoders of satellite and ground images: on another timm backbone, both for images of the size its weights ask for.
    `choice`: a name; with ':frozen' behind it the backbone stays as it was published, and what pools its features is trained,
    with a linear layer where nothing in that learns. PAPER_BACKBONES change nothing."""
    if choice in PAPER_BACKBONES:
        return published, replace(published, image_px=ground_px)
    name, colon, how = choice.partition(":")
    if colon and how != "frozen":
        raise InputError("backbone", "NAME or NAME:frozen", repr(choice), "For example resnet50:frozen.")
    width = HEAD if colon and published.pooling in ("avg", "head") else published.width
    source = "frozen hub" if colon else "hub"
    encoder = replace(published, backbone=name, pretrained=source, width=width, drop_path=0.0, image_px=asked_px(name))
    return encoder, encoder


def asked_px(backbone: str) -> Size:
    """(height, width) of the images that the published weights of a timm backbone ask for; InputError for a name without any."""
    import timm  # takes seconds to load

    with suppress(RuntimeError):  # an unknown tag, the part behind the dot
        if known := timm.get_pretrained_cfg(backbone):
            return known.input_size[1:]
    todo = f"Similar names: {similar_names(backbone)}."
    raise InputError("backbone", "a timm model with published weights", repr(backbone), todo)


def smoke(value: Any, name: str = "") -> Any:
    """With UCVGL_ROWS=smoke, settings with all that takes long cut down (see profiles.toml), images smaller and weights random;
    else as they come. Twice is as once. Meant for a data set of two dozen places on a CPU, to see that its notebooks run."""
    if asked_rows() != "smoke":
        return value
    if isinstance(value, Mapping):
        return {key: smoke(each, name) for key, each in value.items()}
    if name in VALUES["smoke"] and (value or name == "steps_per_epoch"):  # what is off stays off
        few = VALUES["smoke"][name]
        return NeighbourDraw(**few) if name == "draw" else few
    if isinstance(value, tuple):
        return tuple(smoke(each, name) for each in value)
    if name.endswith("_px") and isinstance(value, int):
        return value // 4 if value > SMOKE_PX else value
    if name == "pretrained" and isinstance(value, str):
        return "none"
    if is_dataclass(value):
        return replace(value, **{f.name: smoke(getattr(value, f.name), f.name) for f in fields(value)})
    return value
