"""The first hour with a GPU: how exactly it computes, how fast, and the laptop study at ten times its size.

    python -m benchmarks.gpu [--only NAME ...] [--small]

One measurement after the other: precision, step, matches, study. Each result is kept under runs/gpu/<device and torch>/ and
not measured again until its file is deleted; the study keeps its stages in the run cache, and resumes. After each the report
benchmarks/results/gpu.md is written anew. Exit status: 2 without a GPU, unless the sizes are `--small`, which only show that
the script works; 1 if something failed.
"""

import argparse
import gc
import json
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator

sys.path.insert(0, str(Path(__file__).resolve().parent))  # benchmarks/ is no package

from harness import RESULTS, now, table
from training_steps import method, one_batch, trained

from ucvgl.data.container import Dataset, Parts
from ucvgl.data.prepare import Preparation
from ucvgl.encoders import EncoderConfig
from ucvgl.geometry import TopView
from ucvgl.lab import material, profiles, results, stages
from ucvgl.lab.settings import WORLD
from ucvgl.methods.common import device
from ucvgl.methods.sample4geo import new_model
from ucvgl.paths import runs, write_json, write_text
from ucvgl.pseudo_labels import NoPseudoLabels, mutual
from ucvgl.search import both_ways
from ucvgl.training import TrainingConfig
from ucvgl.world.pairs import world_pairs

WARM_UP = 3  # steps that are not timed
Result = tuple[str, list[dict[str, str]]]  # a note on what was measured, and the table


@dataclass(frozen=True)
class Asked:
    """How large the measurements are; the sizes are those of a GPU with 80 GB or more."""

    small: bool = False
    base: str = "convnext_base"
    # the laptop's, with pretrained weights and batch norms
    second: EncoderConfig = field(default_factory=lambda: EncoderConfig("tf_efficientnet_lite0", "package", 3, "gem"))
    px: int = 384
    pairs: int = 128  # in a batch of a step; Sample4Geo 128
    few_pairs: int = 16  # in a batch of `precision`
    steps: int = 10
    images: int = 1_000_000  # of each view, in `matches`
    width: int = 512
    chunk_bytes: int = 1 << 30  # of similarities at a time
    checked: int = 2_000  # ground images that are matched by brute force, too


SMALL = Asked(
    small=True, base="test_convnext", second=EncoderConfig("test_efficientnet", pooling="gem"), px=64, pairs=4,
    few_pairs=4, steps=WARM_UP + 2, images=3_000, width=32, chunk_bytes=1 << 20, checked=300,
)  # fmt: skip


def peak() -> str:
    """The most memory that tensors took since the last `forget`."""
    return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if torch.cuda.is_available() else "not measured"


def forget() -> None:
    """Frees what the measurement before left, and begins to count memory anew."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def rate(stamps: Sequence[float], images: int) -> str:
    """Images a second, by the median step after the warm-up."""
    seconds = np.diff(stamps[WARM_UP - 1 :]).tolist()
    return f"{images / statistics.median(seconds):,.1f}"


def precision(asked: Asked) -> Result:
    """Steps in bf16 and fp16 beside fp32."""
    rows, shape = [], (asked.px, asked.px)
    names = ["fp32, no TF32", "fp32", "bf16", *(["fp16"] if torch.cuda.is_available() else [])]  # refused on a CPU
    for encoder in (EncoderConfig(asked.base, pooling="head", image_px=shape), replace(asked.second, image_px=shape)):
        given, exact = one_batch(asked.few_pairs, asked.px, asked.steps), None
        for name in names:
            forget()
            torch.backends.cudnn.allow_tf32 = name != "fp32, no TF32"  # convolutions alone; torch's default is True
            # weights that stay as they are; fp16's scaler has found a scale without overflow by the last step
            training = TrainingConfig(epochs=1, batch_size=asked.few_pairs, learning_rate=1e-12, precision=name[:4])
            config = method(encoder, training)
            task, loss = trained(new_model(config), given, config)
            exact = exact or (loss, task.gradient)
            apart = float((task.gradient - exact[1]).norm() / exact[1].norm())
            rows.append({
                "encoder": encoder.backbone, "precision": name, "loss": f"{loss:.5f}",
                "loss apart": f"{abs(loss - exact[0]) / exact[0]:.1e}", "gradient apart": f"{apart:.1e}",
                "images a second": rate(task.stamps, 2 * asked.few_pairs), "peak memory": peak(),
            })  # fmt: skip
    torch.backends.cudnn.allow_tf32 = True
    return (
        f"One step of Sample4Geo (symmetric InfoNCE), batch {asked.few_pairs} pairs of {asked.px} x {asked.px} pixels, no "
        f"augmentation, the same weights and images in each row ({asked.base}: random weights; {asked.second.backbone}: "
        f"{asked.second.pretrained}, depth {asked.second.depth or 'whole'}). Apart: relative to the first row; of the "
        f"gradient, the norm of the difference over the norm."
    ), rows


def step(asked: Asked) -> Result:
    """Whole training steps of Sample4Geo with ConvNeXt-Base."""
    encoder = EncoderConfig(asked.base, pooling="head", image_px=(asked.px, asked.px))
    paper = profiles.sample4geo("paper", 0).method.training
    whole = replace(paper, epochs=1, warmup_epochs=0.0, batch_size=asked.pairs, learning_rate=1e-5, chunk=None)
    kinds = {
        "bf16": (whole, False), "bf16, augmented on the device": (whole, True),
        f"bf16, chunks of {paper.chunk} (the paper profile)": (replace(whole, chunk=paper.chunk), False),
    }  # fmt: skip
    if torch.cuda.is_available():
        kinds["fp16"] = replace(whole, precision="fp16"), False
    given, rows = one_batch(asked.pairs, asked.px, asked.steps), []
    for name, (training, augmented) in kinds.items():
        forget()
        config = method(encoder, training)
        try:
            speed = rate(trained(new_model(config), given, config, augmented=augmented)[0].stamps, 2 * asked.pairs)
        except torch.OutOfMemoryError:
            speed = "out of memory"
        rows.append({"step": name, "images a second": speed, "peak memory": peak()})
    return (
        f"{asked.base}, one for both views, untrained; {asked.pairs} pairs of {asked.px} x {asked.px} pixels a batch. The "
        f"images lie on the device, so that loading is not measured; median of {asked.steps - WARM_UP} steps after {WARM_UP}, "
        f"each waited for; memory is the most that tensors take, the images included."
    ), rows


def matches(asked: Asked) -> Result:
    """Mutual nearest neighbours of two large sets."""
    rows, generator = [], Generator(device()).manual_seed(0)
    ground, tile = (torch.empty(asked.images, asked.width, dtype=torch.float16, device=device()) for _ in range(2))
    for some_ground, some_tile in zip(ground.split(50_000), tile.split(50_000), strict=True):
        a, b = (torch.randn(some_tile.shape, generator=generator, device=device()) for _ in range(2))
        some_tile.copy_(F.normalize(a))
        some_ground.copy_(F.normalize(a + 4 * b))  # so much noise that some ground images lie nearer to a wrong tile
    sample = torch.randperm(asked.images, generator=generator, device=device())[: asked.checked]
    first, back = [], []
    for part in sample.split(500):
        nearest = (ground[part].float() @ tile.float().T).argmax(1)
        first.append(nearest)
        back.append((tile[nearest].float() @ ground.float().T).argmax(1))
    expected = torch.cat(back) == sample
    for name in ("float32", "TF32") if torch.cuda.is_available() else ("float32",):
        forget()
        torch.backends.cuda.matmul.allow_tf32 = name == "TF32"
        begun = now()
        found = both_ways(ground, tile, 1, 1, chunk_bytes=asked.chunk_bytes)
        both = mutual(found)
        seconds = now() - begun
        same = (found.ground_index[sample, 0] == torch.cat(first)) & (both[sample] == expected)
        rows.append({
            "products in": name, "seconds": f"{seconds:.1f}", "peak memory": peak(), "mutual": f"{int(both.sum()):,}",
            "equal to brute force": f"{int(same.sum()):,} of {len(sample):,}",
        })  # fmt: skip
    torch.backends.cuda.matmul.allow_tf32 = False
    return (
        f"{asked.images:,} x {asked.images:,} descriptors of {asked.width} numbers, stored in half precision, by "
        f"`search.both_ways` and `pseudo_labels.mutual`, which multiply in float32; all similarities together would be "
        f"{asked.images**2 * 4 / 1e12:.3g} TB. Brute force (float32): nearest tile and mutual match of ground images at random."
    ), rows


def study_settings() -> profiles.UcvglSettings:
    """The laptop profile's with 20,000 places, 128 x 256 panoramas and ResNet-50."""
    laptop, px = profiles.ucvgl("laptop", 0), 128
    train, test = (
        replace(world, places=places, city_size_m=3800.0, tile_px=px)  # as densely on the streets as the laptop's
        for world, places in ((laptop.train, 20_000), (laptop.test, 5_000))
    )
    images = Preparation((px, 2 * px), (px, px), TopView.from_span(px, train.span_m))
    tile = EncoderConfig("resnet50", "hub", depth=3, width=512, image_px=(px, px))

    def training(given: TrainingConfig, epochs: int) -> TrainingConfig:
        """The laptop's learning rates are for smaller encoders; an epoch has 2.5 times its steps."""
        rate = given.learning_rate / 5
        return replace(given, epochs=epochs, batch_size=128, precision="bf16", prefetch=True, learning_rate=rate)

    start = replace(laptop.start, ground=replace(tile, image_px=images.query_px), satellite=tile,
                    intra=training(laptop.start.intra, 1), cross=training(laptop.start.cross, 6))  # fmt: skip
    steps = replace(laptop.curriculum, start=start, training=training(laptop.curriculum.training, 8), warmup=1)
    return replace(laptop, train=train, test=test, images=images, start=start, curriculum=steps)


def moved(data: Dataset) -> Dataset:
    """The data with its images on the device, so that they are augmented there."""
    sides = {name: getattr(data, name) for name in ("query", "gallery", "top_view")}
    return replace(data, **{name: replace(side, pixels=side.pixels.to(device())) for name, side in sides.items()})


def study(asked: Asked) -> Result:
    """UCVGL on 20,000 places, from its cold start to 0 % and 100 % labels."""
    settings, begun = profiles.ucvgl("tiny", 0) if asked.small else study_settings(), now()
    for config, split in ((settings.train, "train"), (settings.test, "test")):
        world_pairs(config, split, device=device())  # rendered on the GPU, and found in the run cache from now on
    opened, steps = material.material(settings, WORLD), settings.curriculum
    given = Parts(moved(opened.train), {name: moved(test) for name, test in opened.tests.items()})
    rendered = f"places rendered and projected in {(now() - begun) / 60:.1f} minutes"
    cold, rows = stages.pretrain(given.unlabelled, settings.start, given), []
    done = {"step 4: the cold start": cold.numbers["recall"] | {"minutes": cold.seconds / 60}}
    supervised = replace(steps, label_ratio=1.0, pretrained=False)
    for name, config in (("step 5, 0 % labels", steps), ("step 5, 100 % labels, no cold start", supervised)):
        try:
            last = stages.curriculum(given.unlabelled, config, given)
            done[name] = last.numbers["recall"] | {"minutes": last.seconds / 60}
        except NoPseudoLabels:
            done[name] = {}
    for name, found in done.items():
        numbers = {key: f"{found[key]:.1f}" if found else "" for key in ("minutes", "r_at_1", "r_at_5")}
        rows.append({"stage": name} | numbers)
    encoder, (height, width) = settings.start.ground, settings.images.query_px
    return (
        f"{len(given.train):,} places of the embedded world, panoramas of {height} x {width} pixels; recall in a city never "
        f"trained on, among {len(given.test):,} tiles. {encoder.backbone} to stage {encoder.depth}, weights: "
        f"{encoder.pretrained}, one for each view. Minutes are of a stage's last run; {rendered}."
    ), rows


MEASUREMENTS: tuple[Callable[[Asked], Result], ...] = (precision, step, matches, study)


def report(folder: Path, failed: dict[str, str]) -> str:
    """All results of the folder in Markdown, and what failed."""
    text = [f"# The first hour with a GPU: {results.device()}, torch {torch.__version__}"]
    if folder.name.endswith("small"):
        text.append("Small sizes: they show that the script works, and nothing about this device.")
    for file in (folder / f"{measure.__name__}.json" for measure in MEASUREMENTS):
        if file.exists():
            found = json.loads(file.read_text(encoding="utf-8"))
            took = f"The whole took {found['seconds']:.0f} s; commit {str(found['commit'])[:12]}."
            text += [f"## {found['title']}", f"{found['note']} {took}", table(found["rows"])]
    text += [f"## {name}\n\nFailed: {why}" for name, why in failed.items()]
    return "\n\n".join(text) + "\n"


def measured(asked: Asked, wanted: Sequence[str], out: Path) -> int:
    """Measures what has no result yet, and writes the report after each; the exit status."""
    kind = re.sub(r"\W+", "-", f"{results.device()} torch {torch.__version__}{' small' if asked.small else ''}")
    folder, failed = runs() / "gpu" / kind, {}
    for measure in MEASUREMENTS:
        name = measure.__name__
        if name in wanted and not (folder / f"{name}.json").exists():
            print(f"{name} ...", file=sys.stderr, flush=True)
            begun = now()
            try:
                note, rows = measure(asked)
            except Exception as error:  # the others are still worth measuring
                failed[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            else:
                found = {"title": f"{name}: {measure.__doc__.rstrip('.')}", "note": note, "rows": rows}
                write_json(folder / f"{name}.json", found | {"seconds": now() - begun, "commit": results.commit()})
        write_text(out, report(folder, failed))
    print(out.read_text(encoding="utf-8"))
    return int(bool(failed))


def main() -> None:
    """Reads the arguments, measures."""
    names = [measure.__name__ for measure in MEASUREMENTS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=names, choices=names)
    parser.add_argument("--small", action="store_true", help="tiny sizes, which a CPU can do as well")
    given = parser.parse_args()
    if not (torch.cuda.is_available() or given.small):
        parser.error("gpu-check needs a CUDA device, and torch sees none; --small shows that the script works")
    sys.exit(measured(SMALL if given.small else Asked(), given.only, RESULTS / "gpu.md"))


if __name__ == "__main__":
    main()
