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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator

sys.path.insert(0, str(Path(__file__).resolve().parent))  # benchmarks/ is no package

import gpu_study
from gpu_study import LITE, Result, Row
from harness import RESULTS, now, table
from official import Clone, check_clone
from training_steps import method, official_loop, one_batch, trained

from ucvgl.augment import to_float
from ucvgl.encoders import EncoderConfig
from ucvgl.lab import profiles, provenance
from ucvgl.methods.common import device
from ucvgl.methods.sample4geo import new_model
from ucvgl.paths import ROOT, runs, write_json, write_text
from ucvgl.pseudo_labels import mutual
from ucvgl.search import both_ways
from ucvgl.training import TrainingConfig

WARM_UP = 3  # steps that are not timed


@dataclass(frozen=True)
class Asked:
    """What to measure, and how large; the sizes are those of a GPU with 80 GB or more."""

    small: bool = False
    official: Path | None = None
    backbone: str = "resnet50"  # of the study; none: that of the tiny profile
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


def peak() -> str:
    """The most memory that tensors took since the last `forget`."""
    return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if torch.cuda.is_available() else "not measured"


def forget() -> None:
    """Frees what the measurement before left, and begins to count memory anew."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def tests(asked: Asked) -> Result:
    """The tests that need a GPU."""
    # these files alone: others import packages that a machine with a GPU may lack
    files = sorted(str(f) for f in (ROOT / "tests").rglob("test_*.py") if "\n@pytest.mark.gpu" in f.read_text("utf-8"))
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-rfE", "--continue-on-collection-errors", *files]
    begun = now()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    lines = [line[:200] for line in (done.stdout or done.stderr).splitlines() if line.strip()] or ["said nothing"]
    bad = "".join(f" `{line}`" for line in lines if line.startswith(("FAILED", "ERROR")))
    row = {"result": lines[-1], "exit status": str(done.returncode), "seconds": f"{now() - begun:.0f}"}
    return f"`pytest -m gpu` over {len(files)} files.{bad}", [row]


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
            config = method(encoder, training)
            task, loss = trained(new_model(config), given, config, keep_gradient=True)
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
    given = one_batch(asked.pairs, asked.px, asked.steps)

    def stamps(training: TrainingConfig, augmented: bool) -> list[float]:
        config = method(encoder, training)
        return trained(new_model(config), given, config, augmented=augmented)[0].stamps

    return of_a_step(asked), [timed(name, partial(stamps, *kind), asked) for name, kind in kinds.items()]


def official(asked: Asked) -> Result:
    """The same steps by the official code's loop."""
    clone = Clone(asked.official)
    try:
        model = clone.get("sample4geo.model", "TimmModel")(asked.base, pretrained=False, img_size=asked.px).to(device())
        officially_trained = official_loop(clone)
    finally:
        clone.close()
    given = one_batch(asked.pairs, asked.px, 1)
    batch = [(to_float(images[:]) - 0.45) / 0.23 for images in (given.query, given.gallery)]  # theirs come normalised
    name = f"official loop, {'fp16' if torch.cuda.is_available() else 'fp32'}"
    return of_a_step(asked), [
        timed(name, lambda: officially_trained(model, batch, asked.steps, 100.0, lr=1e-5)[0], asked)
    ]


def timed(name: str, steps: Callable[[], list[float]], asked: Asked) -> Row:
    """Speed and memory of steps, which return their times."""
    forget()
    try:
        speed = rate(steps(), 2 * asked.pairs)
    except torch.OutOfMemoryError:
        speed = "out of memory"
    return {"step": name, "images a second": speed, "peak memory": peak()}


def of_a_step(asked: Asked) -> str:
    """What was measured."""
    return (
        f"{asked.base}, one for both views, untrained; {asked.pairs} pairs of {asked.px} x {asked.px} pixels a batch. The "
        f"images lie on the device, so that loading is not measured; median of {asked.steps - WARM_UP} steps after {WARM_UP}, "
        f"each waited for; memory is the most that tensors take, the images included."
    )


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


def world(asked: Asked) -> Result:
    """Rendering the study's places."""
    return gpu_study.world(asked.backbone)


def study(asked: Asked) -> Result:
    """UCVGL from its cold start to 0 % and 100 % labels."""
    return gpu_study.study(asked.backbone)


MEASUREMENTS: tuple[Callable[[Asked], Result], ...] = (tests, precision, step, official, matches, world, study)


def report(folder: Path, failed: dict[str, str]) -> str:
    """All results of the folder in Markdown, and what failed."""
    order = [measure.__name__ for measure in MEASUREMENTS]
    files = sorted(folder.glob("*.json"), key=lambda f: (order.index(f.stem.partition("-")[0]), f.stem))
    text = [f"# The first hour with a GPU: {provenance.device()}, torch {torch.__version__}"]
    if folder.name.endswith("small"):
        text.append("Small sizes: they show that the script works, and nothing about this device.")
    for found in (json.loads(file.read_text(encoding="utf-8")) for file in files):
        took = f"The whole took {found['seconds']:.0f} s; commit {str(found['commit'])[:12]}."
        text += [f"## {found['title']}", f"{found['note']} {took}", table(found["rows"])]
    text += [f"## {name}\n\nFailed: {why}" for name, why in failed.items()]
    return "\n\n".join(text) + "\n"


def measured(asked: Asked, only: Sequence[str], out: Path) -> int:
    """Measures what has no result yet, and writes the report after each; the exit status."""
    kind = re.sub(r"\W+", "-", f"{provenance.device()} torch {torch.__version__}{' small' if asked.small else ''}")
    folder, failed = runs() / "gpu" / kind, {}
    for measure in MEASUREMENTS:
        name = f"study-{asked.backbone}" if measure is study and asked.backbone else measure.__name__
        wanted = measure.__name__ in only if only else measure is not official or asked.official is not None
        if wanted and not (folder / f"{name}.json").exists():
            print(f"{name} ...", file=sys.stderr, flush=True)
            begun = now()
            try:
                note, rows = measure(asked)
            except Exception as error:  # the others are still worth measuring
                failed[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            else:
                found = {"title": f"{name}: {measure.__doc__.rstrip('.')}", "note": note, "rows": rows}
                found |= {"seconds": now() - begun, "commit": provenance.commit()}
                write_json(folder / f"{name}.json", found)
        write_text(out, report(folder, failed))
    print(out.read_text(encoding="utf-8"))
    return int(bool(failed))


def main() -> None:
    """Reads the arguments, measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], choices=[measure.__name__ for measure in MEASUREMENTS])
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.md")
    parser.add_argument("--official", type=Path, metavar="FOLDER", help="a clone of Skyy93/Sample4Geo")
    parser.add_argument("--backbone", default="resnet50", help=f"of the study; {LITE} is the laptop's, pretrained")
    parser.add_argument("--small", action="store_true", help="tiny sizes, which a CPU can do as well")
    given = parser.parse_args()
    if not (torch.cuda.is_available() or given.small):
        parser.error("gpu-check needs a CUDA device, and torch sees none; --small shows that the script works")
    if given.official is not None:
        check_clone("Sample4Geo", given.official)
    elif "official" in given.only:
        parser.error("official needs --official FOLDER")
    asked = replace(SMALL, official=given.official) if given.small else Asked(False, given.official, given.backbone)
    sys.exit(measured(asked, given.only, given.out))


if __name__ == "__main__":
    main()
