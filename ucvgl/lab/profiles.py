"""The profiles tiny, laptop and paper: which images, which encoders, for how long, for each of the papers.

A seed affects only the training; the embedded world stays the same for every seed, as a data set of photographs would.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from ucvgl.augment import UCVGL
from ucvgl.data import detect_layout, open_dataset
from ucvgl.data.decoding import image_size
from ucvgl.data.prepare import Preparation
from ucvgl.encoders import EncoderConfig, similar_names
from ucvgl.errors import InputError
from ucvgl.geometry import TopView
from ucvgl.heads import Method, published
from ucvgl.lab.real_pairs import RealPairs
from ucvgl.lab.settings import WORLD, asked_rows, check_profile
from ucvgl.methods.sample4geo import BACKBONE, Sample4Geo, Sampling
from ucvgl.methods.ucvgl import Curriculum, Pretraining, Translation
from ucvgl.methods.vg_ssl import VgSsl
from ucvgl.pseudo_labels import MiningRule
from ucvgl.sampling import NeighbourDraw
from ucvgl.training import TrainingConfig
from ucvgl.translation import CycleGanConfig
from ucvgl.world.drives import DriveConfig
from ucvgl.world.pairs import WorldConfig

WORLD_SEED, HELD_OUT_SEED = 0, 1000  # of the cities that are trained on, and of those that are held out
CITIES, UNSEEN = ("garden", "canal"), ("downtown", "old_town")  # trained on; Sample4Geo's cross area
STYLES = ("garden", "downtown", "canal", "old_town")  # of the cities that drives lead through
LAPTOP = TrainingConfig(weight_decay=0.05, warmup_epochs=0.5, clip_norm=5.0)
# a batch of 128 at 384 px needs more than 16 GB at once: 16 images of a view at a time, for one more forward pass, which changes
# no gradient
PAPER = TrainingConfig(precision="bf16", chunk=16, prefetch=True)


@dataclass(frozen=True)
class Projection:
    """Sizes of notebook 01."""

    world: WorldConfig  # the gallery of the difficulty table; its difficulty is replaced by each level in turn
    accuracy_places: int  # over which the projection's error is measured
    accuracy_panorama_px: int  # height of the panoramas there
    picture_px: int  # height of the panoramas and side of the tiles that are drawn
    camera_height_m: float = 2.5  # what the projection assumes: the middle of every level


def projection(profile: str, seed: int) -> Projection:
    """Notebook 01's sizes; InputError for an unknown profile."""
    match check_profile(profile):
        case "tiny":
            world = WorldConfig(("garden",), seed, 40, panorama_px=64, tile_px=32, city_size_m=256, resolution_m=0.5)
            return Projection(world, accuracy_places=8, accuracy_panorama_px=128, picture_px=128)
        case "laptop":
            world = WorldConfig(CITIES, seed, 1000, panorama_px=128, tile_px=64)
            return Projection(world, accuracy_places=64, accuracy_panorama_px=256, picture_px=256)
    world = WorldConfig(CITIES, seed, 2000, panorama_px=512, tile_px=384, city_size_m=1500)
    return smoke(Projection(world, accuracy_places=256, accuracy_panorama_px=512, picture_px=512))


@dataclass(frozen=True)
class UcvglSettings:
    """UCVGL's settings in a profile, for notebooks 02 to 04."""

    train: WorldConfig
    test: WorldConfig  # another city
    images: Preparation
    start: Pretraining
    curriculum: Curriculum
    gan: CycleGanConfig  # for the comparison of translations; what is used stands in `start`


# For 48-px images without a GPU, a minute on two cores; chosen by how its fakes look and by the balance of its losses.
SMALL_GAN = CycleGanConfig(
    load_px=48, crop_px=48, channels=16, blocks=3, downsamplings=1, patch=2, residual=True, discriminator_channels=8,
    discriminator_layers=2, lambda_cycle=2.0, lambda_identity=0.0, lr=5e-4, batch=4, epochs=3, decay_epochs=3,
    steps_per_epoch=150,
)  # fmt: skip
TINY_GAN = replace(SMALL_GAN, load_px=32, crop_px=32, channels=8, blocks=1, epochs=1, decay_epochs=1, steps_per_epoch=4)
SMALL_AUGMENTATION = replace(UCVGL, jitter=0.8, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.075, grey=0.1,
                             blur=0.3, dropout=0.3)  # fmt: skip
# by data set: field of view of the top view, first threshold, ground image; UCVGL's
PUBLISHED = {
    "cvusa": (175.0, 0.05, (384, 384)), "cvact": (170.0, 0.025, (384, 384)), "vigor": (170.0, 0.035, (384, 768)),
}  # fmt: skip


def ucvgl(profile: str, seed: int, *, data: str = WORLD, backbone: str = "") -> UcvglSettings:
    """UCVGL's settings; InputError for an unknown profile.

    data: the world, or a data set's root: CVUSA, CVACT and VIGOR have their own projection and threshold. backbone: of the
    paper profile, as `with_backbone` takes it; '' for the paper's.
    """
    paper = check_profile(profile) == "paper"
    settings = smoke(_ucvgl_paper(seed, data, backbone) if paper else _ucvgl_small(profile, seed))
    if data == WORLD or _shows_panoramas(data):
        return settings
    # photos, drone images or any others that are not projected: squeezed into the tiles' squares
    images = Preparation(settings.images.gallery_px, settings.images.gallery_px)
    ground = replace(settings.start.ground, image_px=images.query_px)
    start = replace(settings.start, ground=ground, ground_input="photo", projection=False)
    return replace(settings, images=images, start=start, curriculum=replace(settings.curriculum, start=start))


def _shows_panoramas(root: str) -> bool:
    """Whether a data set's queries are panoramas: of its layout, else if the first is twice as wide as high."""
    if (layout := detect_layout(root)) not in PUBLISHED:
        with suppress(InputError):  # absent or damaged: said when it is read
            height, width = image_size(open_dataset(layout, root).query.file(0))
            return width >= 2 * height
    return True


def _ucvgl_small(profile: str, seed: int) -> UcvglSettings:
    """Encoders that a laptop trains in minutes, or that learn next to nothing; panoramas twice as wide as high."""
    if profile == "tiny":
        world = WorldConfig(CITIES, WORLD_SEED, 48, panorama_px=64, tile_px=32, city_size_m=256.0, resolution_m=0.5)
        tile = EncoderConfig("test_efficientnet", depth=3, image_px=(32, 32))
        held_out, (first, second, last), warmup, batch = 32, (1, 2, 3), 1, 16
        rule, gan = MiningRule(threshold=0.0), TINY_GAN  # with any other most rows would find no label at all
    else:
        world = WorldConfig(CITIES, WORLD_SEED, 4000, 20.0, city_size_m=1700.0, resolution_m=0.4)
        tile = EncoderConfig("tf_efficientnet_lite0", "package", depth=3, image_px=(48, 48))
        held_out, (first, second, last), warmup, batch = 1000, (1, 8, 15), 2, 64
        rule, gan = MiningRule(threshold=0.07), replace(SMALL_GAN, seed=seed)
    (px, _), test = tile.image_px, replace(world, styles=("garden",), seed=HELD_OUT_SEED, places=held_out)
    images = Preparation((px, 2 * px), (px, px), TopView.from_span(px, 50.0))
    # of 2e-3 to 6e-3 the best cold start
    intra = replace(LAPTOP, batch_size=batch, epochs=first, learning_rate=6e-3, seed=seed)
    start = Pretraining(
        replace(tile, image_px=images.query_px), tile, translation=Translation("statistics"), intra=intra,
        cross=replace(intra, epochs=second, epochs_before=first), augmentation=SMALL_AUGMENTATION, centre=True, seed=seed,
    )  # fmt: skip
    training = replace(intra, epochs=last, learning_rate=5e-3)
    steps = Curriculum(start, training=training, rule=rule, warmup=warmup, augmentation=SMALL_AUGMENTATION, seed=seed)
    return UcvglSettings(world, test, images, start, steps, gan)


def _ucvgl_paper(seed: int, data: str, backbone: str) -> UcvglSettings:
    """UCVGL's, but for fp32."""
    name = "cvact" if data == WORLD else detect_layout(data)
    fov_deg, threshold, ground_px = PUBLISHED.get(name, PUBLISHED["cvact"])
    world = WorldConfig(CITIES, WORLD_SEED, 35_532, 24.0, panorama_px=512, tile_px=384, city_size_m=6000.0)
    test = replace(world, styles=("garden",), seed=HELD_OUT_SEED, places=8_884)
    if data == WORLD:
        fov_deg, ground_px = TopView.from_span(384, 50.0).fov_deg, (384, 768)
    published = EncoderConfig("convnext_small.fb_in22k_ft_in1k_384", "hub", drop_path=0.2)
    tile, ground = with_backbone(published, ground_px, backbone)
    images = Preparation(ground.image_px, tile.image_px, TopView(tile.image_px[0], fov_deg))
    training = replace(PAPER, seed=seed)
    intra, cross = replace(training, epochs=12), replace(training, epochs=16, epochs_before=12)
    start = Pretraining(ground, tile, intra=intra, cross=cross, seed=seed)
    share = 2 if name == "vigor" else 1  # VIGOR's tiles are shared; ours, the paper asks for one panorama a tile
    rule = MiningRule(threshold=threshold, share=share)
    steps = Curriculum(start, training=training, rule=rule, label_order="file", seed=seed)
    return UcvglSettings(world, test, images, start, steps, start.translation.gan)


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
    # of ground images, at unknown headings (Shi et al., CVPR 2020)
    fovs_deg: tuple[float, ...] = (360.0, 180.0, 90.0, 70.0)


def sample4geo(profile: str, seed: int, *, data: str = WORLD, backbone: str = "") -> Sample4GeoSettings:
    """Sample4Geo's settings; arguments as `ucvgl`."""
    other = ucvgl(profile, seed, data=data, backbone=backbone)
    paper = profile == "paper"
    settings = _sample4geo_paper(other, seed, data, backbone) if paper else _sample4geo_small(other, profile, seed)
    settings = smoke(settings)
    if other.images.top_view is not None:
        return settings
    photos = {"ground": settings.method.satellite, "ground_kind": "oblique", "tile_kind": "photo"}
    method, brief = (replace(method, **photos) for method in (settings.method, settings.brief))
    return replace(settings, images=other.images, method=method, brief=brief)


def _sample4geo_small(other: UcvglSettings, profile: str, seed: int) -> Sample4GeoSettings:
    if profile == "tiny":
        tile = EncoderConfig("test_efficientnet", depth=2, pooling="gem", image_px=(16, 16))
        training = replace(other.curriculum.training, epochs=3, batch_size=8, learning_rate=2e-3)
        sampling, fewer = Sampling("both", NeighbourDraw(8, 2, 2), 1), NeighbourDraw(4, 1, 1)
        world, new, small = WorldConfig(CITIES, WORLD_SEED, 96, 6.0, "medium", 50.0, 32, 32, 320.0, 0.5), 48, 24
        flights = Flights(40, 2, 32, 32, ("garden",), WORLD_SEED, 448.0, 0.5, 12.0, 50.0)
        heights, recipe = replace(flights, places=20, city_size_m=600.0), replace(training, epochs=2)
        real = RealPairs(replace(tile, pooling="avg", image_px=(32, 32)), frozen=0, folds=2, images=24, training=recipe)
    else:
        # SAFA, since so small a backbone tells no place from another by the average of its features: one backbone for both views
        tile = EncoderConfig("tf_efficientnet_lite0", "package", depth=3, image_px=(48, 48))
        training = replace(LAPTOP, epochs=9, batch_size=64, learning_rate=2e-3, seed=seed)
        # half of the paper's batch and half of its lists; refreshed twice. On `small` places a quarter of its lists
        sampling, fewer = Sampling("both", NeighbourDraw(64, 16, 16), 3), NeighbourDraw(32, 8, 8)
        # up to 5 m off the centre of tiles of 20 m, on one day: at 12.5 m of 50 m, on two, 3 % were found
        world, new, small = WorldConfig(CITIES, WORLD_SEED, 8000, 12.0, "easy", 20.0, 64, 64, 1700.0, 0.4), 4000, 2000
        flights, heights = Flights(), Flights(places=200, city_size_m=1100.0)
        real = RealPairs(training=replace(RealPairs().training, seed=seed))
    images = Preparation((tile.image_px[0], 2 * tile.image_px[0]), tile.image_px)
    panorama, square = (replace(tile, image_px=px) for px in (images.query_px, (flights.image_px,) * 2))
    method = Sample4Geo(panorama, tile, training=training, sampling=sampling, evaluate_every=training.epochs)
    brief = replace(method, sampling=replace(sampling, draw=fewer))
    similar = replace(brief.sampling, kind="similarity")
    drone = replace(brief, ground=square, satellite=square, ground_kind="oblique", sampling=similar)
    unseen = replace(world, styles=UNSEEN, seed=HELD_OUT_SEED, places=new)
    return Sample4GeoSettings(other, world, unseen, small, images, method, brief, drone, flights, heights, real)


def _sample4geo_paper(other: UcvglSettings, seed: int, data: str, backbone: str) -> Sample4GeoSettings:
    strips = data != WORLD and detect_layout(data) in ("cvusa", "cvact")
    tile, ground = with_backbone(
        EncoderConfig(BACKBONE, "hub", pooling="head"), (140, 768) if strips else (384, 768), backbone
    )
    method = Sample4Geo(ground, tile)
    method = replace(method, training=replace(method.training, seed=seed, chunk=PAPER.chunk, prefetch=True))
    brief = replace(method.training, epochs=1, warmup_epochs=0.1)
    drone = replace(method, ground=tile, ground_kind="oblique", sampling=Sampling("random"), training=brief)
    world = WorldConfig(CITIES, WORLD_SEED, 70_000, 10.0, "medium", 50.0, 384, 384, 6000.0, 0.4)
    unseen = replace(world, styles=UNSEEN, seed=HELD_OUT_SEED, places=35_000)
    images, px = Preparation(ground.image_px, tile.image_px), tile.image_px
    flights, heights = Flights(1652, 54, *px, city_size_m=1700.0), Flights(200, 50, *px, city_size_m=1100.0)
    return Sample4GeoSettings(other, world, unseen, 17_500, images, method, method, drone, flights, heights, None)


# VG-SSL's methods by the keys of the published tables, in their order, with the laptop's learning rate: of 3e-4, 1e-3 and 3e-3
# (SimSiam 1e-4, 3e-4 and 1e-3) the best on the last fifth of Nordland's training part after 4 epochs; SimSiam's 6.1 % at 3e-4
# stands for its 6.9 at 1e-4, which is within the error (benchmarks/results/place_recognition.md).
SSL_METHODS: dict[str, tuple[Method, float]] = {
    "triplet": ("triplet", 1e-3), "simclr": ("simclr", 1e-3), "mocov2": ("moco", 3e-3), "barlow_twins": ("barlow", 1e-3),
    "vicreg": ("vicreg", 1e-3), "byol": ("byol", 3e-4), "simsiam": ("simsiam", 3e-4),
}  # fmt: skip
# stand for MSLS, Pitts30k, Tokyo 24/7 and Nordland; so many queries that the untrained encoder neither fails nor suffices
DRIVES = {"car": 400, "hand_held": 150, "night": 150, "season": 800}


@dataclass(frozen=True)
class VgSslSettings:
    """VG-SSL's settings in a profile, for notebook 06."""

    train: tuple[DriveConfig, ...]  # by car alone, as MSLS: the other kinds show how it generalises
    joined: tuple[DriveConfig, ...]  # of all kinds
    tests: Mapping[str, DriveConfig]
    photo_px: tuple[int, int]
    methods: Mapping[str, VgSsl]  # by published key
    frame_px: tuple[int, int]  # of the real frames, which are 32 x 64
    frames: int | None  # so many of each part, from its beginning; None: all
    real: Mapping[str, VgSsl]  # by published key, on Nordland; empty in the paper profile, where `data` names real sets
    projectors: tuple[tuple[int, int, int], ...]  # layers, width behind each, numbers of the descriptor before them
    cold_start: UcvglSettings  # UCVGL's, on the small budget of the table across the papers


def vg_ssl(profile: str, seed: int, *, backbone: str = "resnet50") -> VgSslSettings:
    """VG-SSL's settings; InputError for an unknown profile.

    backbone: of the paper profile: resnet50 (GeM, 1024 numbers), deit_small (two tokens, 256), or as `with_backbone` takes it.
    """
    tested, frames, frame_px, deit = DRIVES, None, (32, 64), backbone == "deit_small"
    match check_profile(profile):
        case "tiny":
            train = DriveConfig("car", ("garden",), WORLD_SEED, 20, photo_px=(24, 32), city_size_m=256.0)
            tested, frames, frame_px = dict.fromkeys(DRIVES, 24), 60, (24, 32)
            encoder = EncoderConfig("test_efficientnet", depth=2, pooling="gem", width=16, image_px=(24, 32))
            training = TrainingConfig(2, 8, weight_decay=0.05, seed=seed)
        case "laptop":
            train = DriveConfig("car", STYLES, WORLD_SEED, 1000)
            encoder = EncoderConfig("tf_efficientnet_lite0", "package", depth=3, width=512, image_px=(48, 64))
            training = replace(LAPTOP, epochs=4, batch_size=64, seed=seed)
        case _:
            px = (480, 640)
            train = DriveConfig("car", STYLES, WORLD_SEED, 10_000, photo_px=px, city_size_m=2000.0, resolution_m=0.25)
            tested, frame_px = dict.fromkeys(DRIVES, 2000), px
            encoder = EncoderConfig("resnet50.tv_in1k", "hub", pooling="unit_gem", width=1024, image_px=px)
            if deit:
                name = "deit_small_distilled_patch16_224.fb_in1k"
                encoder = replace(encoder, backbone=name, pooling="tokens", width=256)
            encoder, _ = with_backbone(encoder, encoder.image_px, backbone)
            training = TrainingConfig(30, 32 if deit else 64, 1e-5, precision="bf16", prefetch=True, seed=seed)
    width, methods, real = encoder.width, {}, {}
    for key, (method, rate) in SSL_METHODS.items():
        loss, pairs = published(method), "partial" if method in ("simclr", "barlow", "vicreg") else "random"
        if profile == "paper":
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
        real[key] = replace(
            methods[key], encoder=replace(encoder, image_px=frame_px), geopair="random",
            training=replace(learnt, epochs=training.epochs * 3 // 2),
            loss=loss if frames is None else replace(loss, queue=min(20, frames)),
        )  # fmt: skip
    if profile == "paper":
        heads = (0, 2048), (1, 2048), (2, 2048), (3, 2048), (2, 1024), (2, 4096)
        projectors = tuple((layers, wide, width) for layers, wide in heads)
    else:
        projectors = (0, 256, width), (1, 256, width), (2, 256, width), (2, 64, width), (2, 256, width // 4)
    # the joined form has a quarter of the places by each kind
    joined = tuple(replace(train, kind=kind, places=train.places // len(tested)) for kind in tested)
    tests = {kind: replace(train, kind=kind, seed=HELD_OUT_SEED, places=n) for kind, n in tested.items()}
    other, photo_px = ucvgl(profile, seed), encoder.image_px
    short = replace(other.start.cross, epochs=max(1, other.start.cross.epochs // 3))
    other = replace(other, start=replace(other.start, cross=short))
    return smoke(VgSslSettings((train,), joined, tests, photo_px, methods, frame_px, frames, real, projectors, other))


PAPER_BACKBONES = ("", "resnet50", "deit_small")  # of notebook 06, which change no other
HEAD = 512  # numbers of the linear layer behind a frozen backbone whose own pooling learns nothing
# a batch of each epoch: two, so that what an epoch mines is used in the next
SMOKE: dict[str, Any] = {
    "epochs": 2, "batch_size": 8, "chunk": 4, "warmup_epochs": 0.0, "epochs_before": 2, "warmup": 1, "precision": "fp32",
    "decay_epochs": 1, "steps_per_epoch": 1, "refresh_every": 1, "evaluate_every": 1,
    "draw": NeighbourDraw(4, 1, 1), "threshold": 0.0, "queries": 8, "negatives": 2, "queue": 8,
    "places": 24, "accuracy_places": 8, "small": 12, "city_size_m": 512.0,
}  # fmt: skip
SMOKE_PX = 192  # longer sides are a quarter as long


def with_backbone(
    published: EncoderConfig, ground_px: tuple[int, int], choice: str
) -> tuple[EncoderConfig, EncoderConfig]:
    """The encoders of satellite and ground images: on another timm backbone, both for images of the size its weights ask for.

    `choice`: a name; with ':frozen' behind it the backbone stays as it was published, and what pools its features is trained,
    with a linear layer where nothing in that learns. PAPER_BACKBONES change nothing.
    """
    if choice in PAPER_BACKBONES:
        return published, replace(published, image_px=ground_px)
    name, colon, how = choice.partition(":")
    if colon and how != "frozen":
        todo = "For example resnet50:frozen."
        raise InputError("backbone", expected="NAME or NAME:frozen", found=repr(choice), todo=todo)
    width = HEAD if colon and published.pooling in ("avg", "head") else published.width
    source = "frozen hub" if colon else "hub"
    encoder = replace(published, backbone=name, pretrained=source, width=width, drop_path=0.0, image_px=asked_px(name))
    return encoder, encoder


def asked_px(backbone: str) -> tuple[int, int]:
    """(height, width) of the images that the published weights of a timm backbone ask for; InputError for a name without any."""
    import timm  # takes seconds to load

    with suppress(RuntimeError):  # an unknown tag, the part behind the dot
        if known := timm.get_pretrained_cfg(backbone):
            return known.input_size[1:]
    expected, todo = "a timm model with published weights", f"Similar names: {similar_names(backbone)}."
    raise InputError("backbone", expected=expected, found=repr(backbone), todo=todo)


def smoke(value: Any, name: str = "") -> Any:
    """With UCVGL_ROWS=smoke, settings with all that takes long cut down (SMOKE), images smaller and weights random; else as they
    come. Twice is as once. Meant for a data set of two dozen places on a CPU, to see that its notebooks run. name: of the field.
    """
    if asked_rows() != "smoke":
        return value
    if isinstance(value, Mapping):
        return {key: smoke(each, name) for key, each in value.items()}
    if isinstance(value, tuple):
        return tuple(smoke(each, name) for each in value)
    if name in SMOKE and (value or name == "steps_per_epoch"):  # what is off stays off
        return SMOKE[name]
    if name.endswith("_px") and isinstance(value, int):
        return value // 4 if value > SMOKE_PX else value
    if name == "pretrained" and isinstance(value, str):
        return "none"
    if is_dataclass(value):
        return replace(value, **{f.name: smoke(getattr(value, f.name), f.name) for f in fields(value)})
    return value
