"""The first hour with a GPU: does everything run on it, how exactly, how fast, and the laptop study at ten times its size.

    python -m benchmarks.gpu [--only NAME ...] [--official FOLDER] [--backbone resnet50] [--small]

One measurement after the other: tests, precision, step, official (with a clone of Sample4Geo alone), matches, world, study.
Each result is kept under runs/gpu/<device and torch>/ and not measured again until its file is deleted; the world and the
study keep their stages in the run cache, and resume. After each the report benchmarks/results/gpu.md is written anew.
Exit status: 2 without a GPU, unless the sizes are `--small`, which only show that the script works; 1 if something failed.
"""

import argparse
import gc
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent))  # benchmarks/ is no package

from official import Clone, check_clone

from ucvgl.augment import to_float
from ucvgl.data.container import ArrayImages, Dataset, Parts, Positives
from ucvgl.data.prepare import Preparation
from ucvgl.encoders import Encoder, EncoderConfig
from ucvgl.errors import InputError
from ucvgl.geometry import TopView
from ucvgl.lab import material, profiles, provenance, stages
from ucvgl.lab.settings import WORLD
from ucvgl.lab.variants import variant
from ucvgl.methods import ucvgl
from ucvgl.methods.common import device
from ucvgl.methods.curriculum import first_labels, label_counts
from ucvgl.methods.sample4geo import Sample4Geo, Sampling, SupervisedPairs, new_model
from ucvgl.paths import ROOT, runs, write_json, write_text
from ucvgl.pseudo_labels import NoPseudoLabels, mutual
from ucvgl.search import both_ways
from ucvgl.training import Batch, TrainingConfig, train
from ucvgl.world.pairs import world_pairs

OUT = Path(__file__).resolve().parent / "results" / "gpu.md"
LITE = "tf_efficientnet_lite0"  # the laptop's encoder, whose pretrained weights come in a Python package
WARM_UP = 3  # steps that are not timed
Row = dict[str, str]
Result = tuple[str, list[Row]]  # a note on what was measured, and the table


@dataclass(frozen=True)
class Asked:
    """What to measure, and how large; the sizes are those of a GPU with 80 GB or more."""

    small: bool = False
    official: Path | None = None
    backbone: str = "resnet50"  # of the study
    base: str = "convnext_base"
    # the laptop's, with pretrained weights and batch norms
    second: EncoderConfig = field(default_factory=lambda: EncoderConfig(LITE, "package", depth=3, pooling="gem"))
    px: int = 384
    pairs: int = 128  # in a batch of a step; Sample4Geo 128
    few_pairs: int = 16  # in a batch of `precision`
    steps: int = 10
    images: int = 1_000_000  # of each view, in `matches`
    width: int = 512
    chunk_bytes: int = 1 << 30  # of similarities at a time
    checked: int = 2_000  # ground images that are matched by brute force, too


SMALL = Asked(
    small=True, backbone="", base="test_convnext", second=EncoderConfig("test_efficientnet", pooling="gem"), px=64, pairs=4,
    few_pairs=4, steps=WARM_UP + 2, images=3_000, width=32, chunk_bytes=1 << 20, checked=300,
)  # fmt: skip


def now() -> float:
    """Seconds, once the GPU has done what it was asked."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak() -> str:
    """The most memory that tensors took since the last `forget`."""
    return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if torch.cuda.is_available() else "not measured"


def forget() -> None:
    """Frees what the measurement before left, and begins to count memory anew."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


# ---------------------------------------------------------------------------------------------------------------- tests


def tests(asked: Asked) -> Result:
    """The tests that need a GPU."""
    # these files alone: others import packages that a machine with a GPU may lack
    files = sorted(str(f) for f in (ROOT / "tests").rglob("test_*.py") if "\n@pytest.mark.gpu" in f.read_text("utf-8"))
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-rfE", "--continue-on-collection-errors", *files]
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    lines = done.stdout.splitlines()
    counts = {
        word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|error)", lines[-1] if lines else "")
    }
    row = {word: str(counts.get(word, 0)) for word in ("passed", "failed", "skipped", "error")}
    bad = [line[:200] for line in lines if line.startswith(("FAILED", "ERROR"))]
    if not counts:
        bad.append(f"pytest ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")
    note = f"`pytest -m gpu` over {len(files)} files. " + " ".join(f"`{line}`" for line in bad)
    return note, [row | {"seconds": f"{time.perf_counter() - begun:.0f}"}]


# ------------------------------------------------------------------------------------------- training steps of Sample4Geo


@dataclass
class Steps(SupervisedPairs):
    """Sample4Geo's task on one batch again and again, which lies on the device; notes when each step ends."""

    augmented: bool = False
    keep_gradient: bool = False
    stamps: list[float] = field(default_factory=list)
    gradient: Tensor = field(default_factory=lambda: torch.zeros(0))  # of the last step

    def order(self, epoch: int, model: nn.Module, generator: Generator) -> Tensor:
        """As they stand."""
        return torch.arange(len(self.ground))

    def batch(self, items: Tensor, generator: Generator) -> Batch:
        """The images, augmented or as they are."""
        if self.augmented:
            return super().batch(items, generator)
        return Batch((to_float(self.given.query[items]), to_float(self.given.gallery[items])))

    def after_step(self, model: nn.Module, progress: float) -> None:
        """Notes the time."""
        self.stamps.append(now())
        if self.keep_gradient:
            self.gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def one_batch(pairs: int, px: int, steps: int) -> Dataset:
    """Random tiles of several scales and, as their ground images, the same moved and darker; `steps` times the same pairs."""
    generator = Generator().manual_seed(0)
    tile = torch.full((pairs, 3, px, px), 0.5)
    for cells, weight in ((4, 0.6), (16, 0.5), (px // 2, 0.3)):
        waves = torch.rand(pairs, 3, cells, cells, generator=generator) - 0.5
        tile += weight * F.interpolate(waves, (px, px), mode="bilinear")
    tile.clamp_(0, 1)
    ground = 0.9 * tile.roll(px // 16, 3)
    again, ids = torch.arange(pairs).repeat(steps), [str(i) for i in range(pairs * steps)]
    query, gallery = (
        ArrayImages(ids, (255 * pixels).to(device(), torch.uint8), source=name, rows=again)
        for name, pixels in (("ground", ground), ("tile", tile))
    )
    return Dataset("random", "all", query, gallery, Positives.one_each(np.arange(len(ids))))


def trained(encoder: EncoderConfig, given: Dataset, training: TrainingConfig, **how: bool) -> tuple[Steps, float]:
    """Trains for one epoch of the given pairs in `ucvgl.training`'s loop: the task, with its times, and the mean loss."""
    config = Sample4Geo(encoder, encoder, ground_kind="top view", training=training, sampling=Sampling("random"))
    task = Steps(given, config, **how)
    with tempfile.TemporaryDirectory() as folder:
        rows = train(new_model(config), task, training, Path(folder), progress=False)
    return task, rows[0]["loss"]


def rate(stamps: Sequence[float], images: int) -> str:
    """Images a second, by the median step after the warm-up."""
    seconds = np.diff(stamps[WARM_UP - 1 :]).tolist()
    return f"{images / statistics.median(seconds):,.1f}"


def precision(asked: Asked) -> Result:
    """Steps in bf16 and fp16 beside fp32."""
    rows, shape = [], (asked.px, asked.px)
    for encoder in (EncoderConfig(asked.base, pooling="head", image_px=shape), replace(asked.second, image_px=shape)):
        given, exact = one_batch(asked.few_pairs, asked.px, asked.steps), None
        for name in ("fp32, no TF32", "fp32", "bf16", "fp16"):
            if name == "fp16" and not torch.cuda.is_available():
                continue  # the loop refuses it
            forget()
            torch.backends.cudnn.allow_tf32 = name != "fp32, no TF32"  # convolutions alone; torch's default is True
            # weights that stay as they are; fp16's scaler has found a scale without overflow by the last step
            training = TrainingConfig(epochs=1, batch_size=asked.few_pairs, learning_rate=1e-12, precision=name[:4])
            task, loss = trained(encoder, given, training, keep_gradient=True)
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
    rows, given = [], one_batch(asked.pairs, asked.px, asked.steps)
    for name, (training, augmented) in kinds.items():
        forget()
        try:
            task, _ = trained(encoder, given, training, augmented=augmented)
            rows.append({"step": name, "images a second": rate(task.stamps, 2 * asked.pairs), "peak memory": peak()})
        except torch.OutOfMemoryError:
            rows.append({"step": name, "images a second": "out of memory", "peak memory": peak()})
    return _of_a_step(asked), rows


def official(asked: Asked) -> Result:
    """The same steps by the official code's loop."""
    forget()
    assert asked.official is not None
    clone, cuda = Clone(asked.official), torch.cuda.is_available()
    try:
        model = clone.get("sample4geo.model", "TimmModel")(asked.base, pretrained=False, img_size=asked.px).to(device())
        loss = clone.get("sample4geo.loss", "InfoNCE")(nn.CrossEntropyLoss(label_smoothing=0.1), device=device())
        loop = clone.get("sample4geo.trainer", "train")
    finally:
        clone.close()
    given, stamps = one_batch(asked.pairs, asked.px, 1), []
    batch = [(to_float(images[:]) - 0.45) / 0.23 for images in (given.query, given.gallery)]  # theirs come normalised

    def batches() -> object:
        for number in range(asked.steps):
            yield *batch, number
            stamps.append(now())  # when the next one is asked for

    settings = SimpleNamespace(verbose=False, device=device(), gpu_ids=(0,), clip_grad=100.0, scheduler=None)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10) if cuda else None  # as its training scripts make it
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5)
    name = "official loop, fp16" if cuda else "official loop, fp32"
    try:
        loop(settings, model, batches(), loss, optimiser, scheduler=None, scaler=scaler)
        row = {"step": name, "images a second": rate(stamps, 2 * asked.pairs), "peak memory": peak()}
    except torch.OutOfMemoryError:
        row = {"step": name, "images a second": "out of memory", "peak memory": peak()}
    return _of_a_step(asked), [row]


def _of_a_step(asked: Asked) -> str:
    return (
        f"{asked.base}, one for both views, untrained; {asked.pairs} pairs of {asked.px} x {asked.px} pixels a batch. The "
        f"images lie on the device, so that loading is not measured; median of {asked.steps - WARM_UP} steps after {WARM_UP}, "
        f"each waited for; memory is the most that tensors take, the images included."
    )


# --------------------------------------------------------------------------------------------------------------- matches


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


# ----------------------------------------------------------------------------------------------------------------- study


def study_settings(asked: Asked) -> profiles.UcvglSettings:
    """The laptop profile's with 20,000 places, larger images and a larger encoder."""
    if asked.small:
        return profiles.ucvgl("tiny", 0)
    laptop, px = profiles.ucvgl("laptop", 0), 128
    train_world, test_world = (
        replace(world, places=places, city_size_m=3800.0, tile_px=px)  # as densely on the streets as the laptop's
        for world, places in ((laptop.train, 20_000), (laptop.test, 5_000))
    )
    images = Preparation((px, 2 * px), (px, px), TopView.from_span(px, train_world.span_m))
    tile = replace(laptop.start.satellite, image_px=(px, px))
    if asked.backbone != LITE:  # features at a sixteenth, and descriptors so short that mining takes a second
        tile = with_weights(asked.backbone, px)
    # 2.5 times the laptop's steps in an epoch; its rates are for small encoders
    faster = 1.0 if asked.backbone == LITE else 0.2
    epochs = {"intra": 1, "cross": 6, "steps": 8}

    def training(given: TrainingConfig, name: str) -> TrainingConfig:
        return replace(given, epochs=epochs[name], batch_size=128, precision="bf16", prefetch=True,
                       learning_rate=faster * given.learning_rate)  # fmt: skip

    start = replace(
        laptop.start, ground=replace(tile, image_px=images.query_px), satellite=tile,
        intra=training(laptop.start.intra, "intra"), cross=training(laptop.start.cross, "cross"),
    )  # fmt: skip
    steps = replace(laptop.curriculum, start=start, training=training(laptop.curriculum.training, "steps"), warmup=1)
    return replace(laptop, train=train_world, test=test_world, images=images, start=start, curriculum=steps)


def with_weights(backbone: str, px: int) -> EncoderConfig:
    """All stages but the last, with the hub's weights, or random ones where these cannot be had."""
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


def world(asked: Asked) -> Result:
    """Rendering the study's places."""
    settings, begun = study_settings(asked), now()
    given = places(settings)
    count, seconds = len(given.train) + len(given.test), now() - begun
    rows = [{"places": f"{count:,}", "minutes": f"{seconds / 60:.1f}", "places a second": f"{count / seconds:,.0f}"}]
    return "Cities built on the CPU, panoramas and tiles rendered on the device, then projected on the CPU, once.", rows


def study(asked: Asked) -> Result:
    """UCVGL from its cold start to 0 % and 100 % labels."""
    settings = study_settings(asked)
    given, start, steps = places(settings), settings.start, settings.curriculum
    rows: list[Row] = []

    def line(name: str, seconds: float, recall: dict, found: str = "", correct: str = "") -> None:
        shown = {f"R@{k}": f"{recall[f'r_at_{k}']:.1f}" if recall else "" for k in ucvgl.KS}
        rows.append({"stage": name, "minutes": f"{seconds / 60:.1f}", **shown, "labels": found, "right %": correct})

    begun = now()
    untrained = ucvgl.new_model(start).to(device())
    recall = ucvgl.evaluate(ucvgl.describe(untrained, given.test, start), given.test.positives)
    line("encoders as they begin", now() - begun, recall)
    intra = stages.intra_view(given.unlabelled, start)
    line(f"step 3, {start.intra.epochs} epoch(s)", intra.seconds, {})
    cold = stages.pretrain(given.unlabelled, start, given)
    model = ucvgl.pretrained_model(cold.folder, start)
    counts = label_counts(first_labels(model, given.unlabelled, steps), given)
    line(f"step 4, {start.cross.epochs} epochs: the cold start", cold.seconds, cold.numbers["recall"],
         f"{counts['found']:,}", f"{counts['correct']:.1f}")  # fmt: skip
    for key, name in (("ucvgl_s_0", "0 % labels"), ("ucvgl_s_100", "100 % labels, no cold start")):
        config = variant(steps, key)
        try:
            last = stages.curriculum(given.unlabelled, config, given)
        except NoPseudoLabels:
            line(f"step 5, {name}: no pseudo-label was found", 0.0, {})
            continue
        row = last.numbers["rows"][-1]
        mined = key == "ucvgl_s_0" and row["labels"]
        line(f"step 5, {name}", last.seconds, last.numbers["recall"], f"{row['labels']:,.0f}" if mined else "",
             f"{100 * row['correct'] / row['labels']:.1f}" if mined else "")  # fmt: skip
    weights = {"none": "random weights", "hub": "pretrained", "package": "pretrained"}[start.ground.pretrained]
    depth = f" to stage {start.ground.depth}" if start.ground.depth else ""
    height, width = settings.images.query_px
    return (
        f"UCVGL on {len(given.train):,} places of the embedded world, panoramas of {height} x {width} pixels; recall in a city "
        f"never trained on, among {len(given.test):,} tiles. {start.ground.backbone}{depth}, {weights}, one for each view; "
        f"{start.intra.precision}, batch {start.intra.batch_size}. Minutes are of the stage's run, of its last part where it "
        f"was resumed. Labels of the cold start: those that step 5 begins with; of step 5: those of its last epoch."
    ), rows


# ---------------------------------------------------------------------------------------------------------------- report

MEASUREMENTS: tuple[Callable[[Asked], Result], ...] = (tests, precision, step, official, matches, world, study)


def named(measure: Callable[[Asked], Result], asked: Asked) -> str:
    """Of its file: the study's has its encoder."""
    return f"study-{asked.backbone}" if measure is study and asked.backbone else measure.__name__


def report(folder: Path, failed: dict[str, str]) -> str:
    """All results of the folder in Markdown, and what failed."""
    order = [measure.__name__ for measure in MEASUREMENTS]
    files = sorted(folder.glob("*.json"), key=lambda f: (order.index(f.stem.partition("-")[0]), f.stem))
    text = [f"# The first hour with a GPU: {provenance.device()}, torch {torch.__version__}"]
    if folder.name.endswith("small"):
        text.append("Small sizes: they show that the script works, and nothing about this device.")
    for found in (json.loads(file.read_text(encoding="utf-8")) for file in files):
        commit = str(found["commit"])[:12]
        text += [f"## {found['title']}", f"{found['note']} The whole took {found['seconds']:.0f} s; commit {commit}."]
        rows = [list(found["rows"][0]), ["---"] * len(found["rows"][0]), *(row.values() for row in found["rows"])]
        text.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
    text += [f"## {name}\n\nFailed: {why}" for name, why in failed.items()]
    return "\n\n".join(text) + "\n"


def measured(asked: Asked, only: Sequence[str], out: Path) -> int:
    """Measures what has no result yet, and writes the report after each; the exit status."""
    kind = re.sub(r"\W+", "-", f"{provenance.device()} torch {torch.__version__}{' small' if asked.small else ''}")
    folder, failed = runs() / "gpu" / kind, {}
    for measure in MEASUREMENTS:
        name = named(measure, asked)
        wanted = measure.__name__ in only if only else measure is not official or asked.official is not None
        if wanted and not (folder / f"{name}.json").exists():
            print(f"{name} ...", file=sys.stderr, flush=True)
            begun = time.perf_counter()
            try:
                note, rows = measure(asked)
            except Exception as error:  # the others are still worth measuring
                failed[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            else:
                seconds = time.perf_counter() - begun
                title = f"{name}: {measure.__doc__.rstrip('.')}"
                write_json(folder / f"{name}.json", {"title": title, "note": note, "rows": rows, "seconds": seconds,
                                                     "commit": provenance.commit()})  # fmt: skip
        write_text(out, report(folder, failed))
    print(out.read_text(encoding="utf-8"))
    return 1 if failed else 0


def main() -> None:
    """Reads the arguments, measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], choices=[measure.__name__ for measure in MEASUREMENTS])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--official", type=Path, metavar="FOLDER", help="a clone of Skyy93/Sample4Geo")
    parser.add_argument("--backbone", default="resnet50", help=f"of the study; {LITE} is the laptop's, pretrained")
    parser.add_argument("--small", action="store_true", help="tiny sizes, which a CPU can do as well")
    given = parser.parse_args()
    if not (torch.cuda.is_available() or given.small):
        print(
            "gpu-check needs a CUDA device, and torch sees none; --small shows that the script works", file=sys.stderr
        )
        sys.exit(2)
    if given.official is not None:
        check_clone("Sample4Geo", given.official)
    elif "official" in given.only:
        parser.error("official needs --official FOLDER")
    asked = replace(SMALL, official=given.official) if given.small else Asked(False, given.official, given.backbone)
    sys.exit(measured(asked, given.only, given.out))


if __name__ == "__main__":
    main()
