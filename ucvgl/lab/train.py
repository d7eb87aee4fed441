"""`ucvgl train`: rows of the tables or single stages, by one process or several together; notebooks then load them.

And what a stage costs before it is run: images, steps, memory at the peak of a step, disk; and whether a step fits."""

import functools
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ucvgl.data.container import Parts
from ucvgl.data.prepare import Preparation
from ucvgl.distributed import processes
from ucvgl.encoders import Encoder, EncoderConfig
from ucvgl.errors import InputError
from ucvgl.lab import rows
from ucvgl.lab.real_pairs import RealPairs
from ucvgl.lab.results import device
from ucvgl.lab.settings import RunRequest, marker
from ucvgl.lab.sources import suggest
from ucvgl.lab.stages import StageResult
from ucvgl.methods import sample4geo, ucvgl, vg_ssl
from ucvgl.methods.common import BEST
from ucvgl.paths import write_json
from ucvgl.pseudo_labels import NoPseudoLabels
from ucvgl.training import HALF
from ucvgl.translation import CycleGanConfig
from ucvgl.world.drives import DriveConfig
from ucvgl.world.pairs import WorldConfig

COUNTED = 8  # images in the batch whose memory is counted


def train(names: Sequence[str], asked: RunRequest) -> None:
    """Computes stages that the run cache lacks, and notes for the graph that it has them. names: of rows, tables or notebooks, as
    '04/ablation/no_mutual', '04/ablation', '05'; or keys of single stages. asked: with one seed. InputError: a name that is none
    of these, or a step that takes more memory than the GPU has."""
    if int(os.environ.get("RANK", "0")) > 0:
        os.environ["TQDM_DISABLE"] = "1"  # one process shows the bars
    (seed,), place = asked.seeds, processes()
    known = rows.rows(asked, seed)
    wanted = {key: stage for name in names for key, stage in _find(name, known).items()}
    many = place.num_processes
    place.print(f"profile {asked.profile}, seed {seed}: {many} process(es), {place.device.type}", flush=True)
    for key, stage in wanted.items() if place.device.type == "cuda" else ():  # all before anything runs
        check_fits(key, cost_of(stage), torch.cuda.get_device_properties(place.device).total_memory)
    for key, stage in wanted.items():
        begun, found = time.time(), None
        try:
            found = stage.run()
        except NoPseudoLabels as error:  # the row shows the cold start, and says that nothing was found
            place.print(f"{key}: {error}", flush=True)
        if isinstance(found, Parts) and not any(test.labelled for test in found.tests.values()):
            place.print("no pairs are known in a held-out part: recall cannot be measured", flush=True)
        if isinstance(found, StageResult) and (found.folder / BEST).is_file():
            place.print(f"{key}: {found.folder / BEST}", flush=True)  # for `ucvgl evaluate`
        if place.is_main_process:
            write_json(marker(key), {"seconds": round(time.time() - begun, 1), "device": device()})
        place.wait_for_everyone()
    if dist.is_initialized():
        dist.destroy_process_group()


def _find(name: str, known: Mapping[str, rows.Stage]) -> dict[str, rows.Stage]:
    """The stages of the rows whose names are `name` or begin with it, or the one stage of that key."""
    found = [stage for row, stage in known.items() if f"{row}/".startswith(f"{name.rstrip('/')}/")]
    stages = rows.all_stages(found or known.values())
    if found or name in stages:
        return stages if found else {name: stages[name]}
    expected = f"a row or a table, such as {', '.join(dict.fromkeys(row.rpartition('/')[0] for row in known))}"
    raise InputError("row", expected=expected, found=repr(name), todo=suggest(name, [*known]))


@dataclass(frozen=True)
class Cost:
    """What a stage costs, about; nothing where it only finds what others made."""

    images: int = 0  # that are rendered, or that go through an encoder forwards and backwards
    work: str = ""  # what is done with each, a line of rates.csv
    steps: int = 0  # of the optimiser
    fixed: int = 0  # bytes that a step holds of weights, gradients and AdamW's two moments
    row: int = 0  # bytes that autograd keeps of every view of a row
    rows: int = 0  # that are embedded at a time
    disk: int = 0  # bytes it leaves in the run folder

    @property
    def memory(self) -> int:
        """Bytes at the peak of a step."""
        return self.fixed + self.rows * self.row


def cost_of(stage: rows.Stage) -> Cost:
    """Estimates from the settings; without projectors, queues, what a frozen backbone holds in passing, and drone images."""
    items, config = stage.items, stage.settings[0]
    match config:  # a stage's training, and each encoder with the images of a row that it embeds in a step
        case WorldConfig():
            pixels = 2 * config.panorama_px**2 + config.tile_px**2 + _prepared(stage.settings[-1])
            return Cost(items, work_of(config), disk=3 * items * pixels)
        case (DriveConfig() as drive, *_):
            return Cost(items, work_of(drive), disk=3 * items * math.prod(drive.photo_px))
        case str():  # a data set's folder
            return Cost(disk=3 * items * _prepared(stage.settings[-1]) if items else 0)
        case ucvgl.Translation(gan=gan):
            seen = (gan.epochs + gan.decay_epochs) * gan.batch * (gan.steps_per_epoch or 0)
            return Cost(seen, work_of(gan), disk=3 * items * gan.crop_px**2)
        case RealPairs():
            seen = 4 * config.training.epochs * config.images * (config.folds - 1) // config.folds
            return Cost(seen, work_of(config.encoder))
        case ucvgl.WithLoss(start=start):
            return cost_of(replace(stage, name="cross-view", settings=(start,)))
        case ucvgl.Pretraining(intra=loop) if stage.name == "intra-view":
            views = [(config.ground, 2), (config.satellite, 2)]
        case ucvgl.Pretraining(cross=loop):
            tiles = 3 if config.occlusion is not None and config.projection else 1  # and their synthetic top views
            views = [(config.ground, 1), (config.satellite, tiles)]
        case ucvgl.Curriculum(training=loop, start=start):
            views = [(start.ground, 1), (start.satellite, 1)]
        case sample4geo.Sample4Geo(training=loop):
            views = [(config.ground, 1), (config.satellite, 1)]
        case vg_ssl.VgSsl(loop=loop):
            views = [(config.encoder, config.images_a_query)]
    if loop is None:  # left out: no intra-view, or no cross-view step
        return Cost()
    first, last = views[0][0], views[-1][0]
    # an encoder that differs in the size of its images holds as much more as these have pixels
    counts = [encoder_bytes(replace(encoder, image_px=last.image_px), loop.precision) for encoder, _ in views]
    pixels = [images * math.prod(encoder.image_px) for encoder, images in views]
    row = sum(image * px / math.prod(last.image_px) for (*_, image), px in zip(counts, pixels, strict=True))
    counts = counts[:1] if isinstance(config, sample4geo.Sample4Geo) and config.shared else counts
    fixed, weights, moments = (sum(count[part] for count in counts) for part in range(3))
    if isinstance(config, vg_ssl.VgSsl) and config.method in ("moco", "byol"):
        fixed += fixed // 4  # the momentum encoder
    # embedded for mining after each epoch of the curriculum: a quarter of a step's work
    seen = sum(pixels) / math.prod(first.image_px) * (1.25 if stage.name == "curriculum" else 1)
    # the weights of the last and of the chosen epoch; of step 3, the moments with which step 4 goes on
    disk = 2 * weights + moments * (stage.name == "intra-view")
    steps, at_a_time = loop.epochs * max(1, items // loop.batch_size), loop.chunk or loop.batch_size
    return Cost(int(loop.epochs * seen * items), work_of(first), steps, fixed, int(row), at_a_time, disk)


def work_of(config: EncoderConfig | CycleGanConfig | WorldConfig | DriveConfig) -> str:
    """What is done with images under these settings, as rates.csv names it."""
    match config:
        case EncoderConfig(backbone=name, depth=depth, image_px=(height, width)):
            return f"training {name}{'' if depth is None else f' to stage {depth}'}, {height} x {width} px"
        case CycleGanConfig(channels=channels, blocks=blocks, crop_px=px):
            return f"training CycleGAN of {channels} channels and {blocks} blocks, {px} px"
        case WorldConfig(panorama_px=px):
            return f"rendering panoramas and tiles, {px} px high"
    return f"rendering photos, {config.photo_px[0]} px high"


def _prepared(images: Preparation) -> int:
    """Pixels of a place's images as they are made ready."""
    top_view_px = images.top_view.size_px if images.top_view else 0
    return math.prod(images.query_px) + math.prod(images.gallery_px) + top_view_px**2


@functools.cache
def encoder_bytes(config: EncoderConfig, precision: str) -> tuple[int, int, int, int]:
    """Bytes that training an encoder holds however many images a step has, of it weights and AdamW's moments, and for each image;
    counted on torch's fake tensors, with which nothing is computed."""
    with torch.device("meta"):  # some backbones read numbers while they are built, which fake tensors have none of
        encoder = Encoder(replace(config, pretrained="none"))
    encoder.backbone.requires_grad_(not config.frozen)
    weights = sum(value.nbytes for value in (*encoder.parameters(), *encoder.buffers()))
    learnt = sum(value.nbytes for value in encoder.parameters() if value.requires_grad)
    half = HALF.get(precision)
    fixed = weights + 3 * learnt + (learnt // 2 if half else 0)  # autocast keeps the weights in half precision, too
    with FakeTensorMode(allow_non_fake_inputs=True), torch.autocast("cpu", half, enabled=half is not None):
        encoder.to_empty(device="cpu")
        images = torch.zeros(COUNTED, 3, *config.image_px)
        held = training_bytes(encoder, [images], lambda: encoder(images))
    return fixed, weights, 2 * learnt, (held - fixed) // COUNTED


def check_fits(key: str, cost: Cost, available: int) -> None:
    """InputError, before anything runs, if a step takes more than the bytes that a device has; says how many rows would fit."""
    if cost.memory > available:
        fits = (available - cost.fixed) // max(1, cost.row)
        todo = f"Embed at most {fits} rows at a time: TrainingConfig.chunk={fits} changes no gradient but those of batch norms."
        todo = todo if fits > 0 else "Take a smaller backbone or smaller images: not even one row fits."
        expected = f"a step of at most {available / 2**30:.1f} GiB, this device's memory"
        raise InputError(key, expected, f"about {cost.memory / 2**30:.1f} GiB for {cost.rows} rows", todo)


def training_bytes(model: nn.Module, inputs: Sequence[Tensor], loss: Callable[[], object]) -> int:
    """What is held after the forward pass `loss`: what autograd keeps for the backward pass, the model with its buffers, and
    for each parameter that learns a gradient and AdamW's two moments; without the inputs. The same on every machine."""
    kept = [*model.parameters(), *model.buffers()]  # held, so that no address is used twice

    def keep(value: Tensor) -> Tensor:
        kept.append(value)
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss()
    held = {value.untyped_storage()._cdata: value.untyped_storage().nbytes() for value in kept}  # fake: no address
    for value in inputs:
        held.pop(value.untyped_storage()._cdata, None)
    return sum(held.values()) + 3 * sum(p.nbytes for p in model.parameters() if p.requires_grad)
