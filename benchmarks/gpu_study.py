"""The laptop study of UCVGL at ten times its size, for an hour with a GPU: its settings, its places, its rows."""

from dataclasses import replace

from harness import now

from ucvgl.data.container import Dataset, Parts
from ucvgl.data.prepare import Preparation
from ucvgl.encoders import Encoder, EncoderConfig
from ucvgl.errors import InputError
from ucvgl.geometry import TopView
from ucvgl.lab import material, profiles, stages
from ucvgl.lab.settings import WORLD
from ucvgl.lab.variants import variant
from ucvgl.methods import ucvgl
from ucvgl.methods.common import device
from ucvgl.methods.curriculum import first_labels, label_counts
from ucvgl.pseudo_labels import NoPseudoLabels
from ucvgl.training import TrainingConfig
from ucvgl.world.pairs import world_pairs

LITE = "tf_efficientnet_lite0"  # the laptop's encoder, whose pretrained weights come in a Python package
Row = dict[str, str]
Result = tuple[str, list[Row]]  # a note on what was measured, and the table


def study_settings(backbone: str) -> profiles.UcvglSettings:
    """The laptop profile's with 20,000 places, larger images and a larger encoder; no backbone: the tiny profile's."""
    if not backbone:
        return profiles.ucvgl("tiny", 0)
    laptop, px = profiles.ucvgl("laptop", 0), 128
    train_world, test_world = (
        replace(world, places=places, city_size_m=3800.0, tile_px=px)  # as densely on the streets as the laptop's
        for world, places in ((laptop.train, 20_000), (laptop.test, 5_000))
    )
    images = Preparation((px, 2 * px), (px, px), TopView.from_span(px, train_world.span_m))
    tile, faster = replace(laptop.start.satellite, image_px=(px, px)), 1.0
    if backbone != LITE:  # the laptop's learning rates are for small encoders
        tile, faster = with_weights(backbone, px), 0.2

    def training(given: TrainingConfig, epochs: int) -> TrainingConfig:
        rate = faster * given.learning_rate
        return replace(given, epochs=epochs, batch_size=128, precision="bf16", prefetch=True, learning_rate=rate)

    # 2.5 times the laptop's steps in an epoch
    intra, cross = training(laptop.start.intra, 1), training(laptop.start.cross, 6)
    ground = replace(tile, image_px=images.query_px)
    start = replace(laptop.start, ground=ground, satellite=tile, intra=intra, cross=cross)
    steps = replace(laptop.curriculum, start=start, training=training(laptop.curriculum.training, 8), warmup=1)
    return replace(laptop, train=train_world, test=test_world, images=images, start=start, curriculum=steps)


def with_weights(backbone: str, px: int) -> EncoderConfig:
    """All stages but the last (features at a sixteenth), with the hub's weights, or random ones where there are none."""
    first = EncoderConfig(backbone, "none", depth=1, image_px=(px, px))
    config = replace(first, depth=len(Encoder(first).backbone.feature_info) - 1, width=512)
    try:
        Encoder(replace(config, pretrained="hub"))
    except InputError:
        return config
    return replace(config, pretrained="hub")


def places(settings: profiles.UcvglSettings) -> Parts:
    """The study's images on the device, rendered there the first time."""
    for config, split in ((settings.train, "train"), (settings.test, "test")):
        world_pairs(config, split, device=device())
    opened = material.material(settings, WORLD)

    def moved(data: Dataset) -> Dataset:
        sides = {name: getattr(data, name) for name in ("query", "gallery", "top_view")}
        return replace(data, **{k: replace(v, pixels=v.pixels.to(device())) for k, v in sides.items()})

    return Parts(moved(opened.train), {name: moved(test) for name, test in opened.tests.items()})


def world(backbone: str) -> Result:
    """Rendering the study's places."""
    settings, begun = study_settings(backbone), now()
    given = places(settings)
    count, seconds = len(given.train) + len(given.test), now() - begun
    rows = [{"places": f"{count:,}", "minutes": f"{seconds / 60:.1f}", "places a second": f"{count / seconds:,.0f}"}]
    return "Cities built on the CPU, panoramas and tiles rendered on the device, then projected on the CPU, once.", rows


def study(backbone: str) -> Result:
    """UCVGL from its cold start to 0 % and 100 % labels."""
    settings = study_settings(backbone)
    given, start, steps = places(settings), settings.start, settings.curriculum
    rows: list[Row] = []

    def line(name: str, seconds: float, recall: dict, found: float = 0, right: float = 0) -> None:
        shown = {f"R@{k}": f"{recall[f'r_at_{k}']:.1f}" if recall else "" for k in ucvgl.KS}
        mined = {"labels": f"{found:,.0f}", "right %": f"{right:.1f}"} if found else {"labels": "", "right %": ""}
        rows.append({"stage": name, "minutes": f"{seconds / 60:.1f}", **shown, **mined})

    begun = now()
    untrained = ucvgl.new_model(start).to(device())
    recall = ucvgl.evaluate(ucvgl.describe(untrained, given.test, start), given.test.positives)
    line("encoders as they begin", now() - begun, recall)
    intra = stages.intra_view(given.unlabelled, start)
    line(f"step 3, {start.intra.epochs} epoch(s)", intra.seconds, {})
    cold = stages.pretrain(given.unlabelled, start, given)
    model = ucvgl.pretrained_model(cold.folder, start)
    counts = label_counts(first_labels(model, given.unlabelled, steps), given)
    name = f"step 4, {start.cross.epochs} epochs: the cold start"
    line(name, cold.seconds, cold.numbers["recall"], counts["found"], counts["correct"])
    for key, name in (("ucvgl_s_0", "0 % labels"), ("ucvgl_s_100", "100 % labels, no cold start")):
        try:
            last = stages.curriculum(given.unlabelled, variant(steps, key), given)
        except NoPseudoLabels:
            line(f"step 5, {name}: no pseudo-label was found", 0.0, {})
            continue
        row = last.numbers["rows"][-1]
        found = row["labels"] if key == "ucvgl_s_0" else 0
        line(
            f"step 5, {name}", last.seconds, last.numbers["recall"], found, 100 * row["correct"] / found if found else 0
        )
    encoder = f"{start.ground.backbone} to stage {start.ground.depth or 'last'}"
    weights = "random weights" if start.ground.pretrained == "none" else "pretrained"
    height, width = settings.images.query_px
    return (
        f"UCVGL on {len(given.train):,} places of the embedded world, panoramas of {height} x {width} pixels; recall in a city "
        f"never trained on, among {len(given.test):,} tiles. {encoder}, {weights}, one for each view; "
        f"{start.intra.precision}, batch {start.intra.batch_size}. Minutes are of the stage's run, of its last part where it "
        f"was resumed. Labels of the cold start: those that step 5 begins with; of step 5: those of its last epoch."
    ), rows
