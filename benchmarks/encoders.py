"""Which small encoder gives the laptop profile the most accuracy a minute: R@1 against seconds of training, all labels given.

    python benchmarks/encoders.py [--seconds 60] [--seed 0]

Every candidate trains on the laptop profile's world with its optimiser, for as many epochs as fit into the same time (from
the measured time of its first steps; the learning rate follows its cosine over these epochs); recall is in the held-out
city. Two candidates start from random weights, one from the ImageNet weights of a Python package. Writes
benchmarks/results/encoders.csv and .md.
"""

import argparse
import os
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from ucvgl.data.container import Parts
from ucvgl.lab.material import material
from ucvgl.lab.profiles import UcvglSettings, ucvgl
from ucvgl.lab.settings import WORLD
from ucvgl.lab.variants import variant
from ucvgl.methods.curriculum import PseudoPairs
from ucvgl.methods.ucvgl import describe, evaluate, new_model
from ucvgl.paths import write_text
from ucvgl.training import train

RESULTS = Path(__file__).resolve().parent / "results"
CANDIDATES = (  # backbone, weights, stages, learning rate
    ("tf_efficientnet_lite0", "package", 3, 2e-3),
    ("mobilenetv4_conv_small_050", "none", 3, 2e-3),
    ("test_efficientnet", "none", 3, 2e-3),
)


def with_encoder(settings: UcvglSettings, backbone: str, pretrained: str, depth: int, rate: float) -> UcvglSettings:
    """The study with another encoder and its learning rate."""
    encoder = replace(settings.start.ground, backbone=backbone, pretrained=pretrained, depth=depth)
    start = replace(settings.start, ground=encoder, satellite=encoder)
    training = replace(settings.curriculum.training, learning_rate=rate)
    return replace(settings, start=start, curriculum=replace(settings.curriculum, start=start, training=training))


def trained(settings: UcvglSettings, given: Parts, epochs: int) -> tuple[float, dict[str, float], int]:
    """Seconds of training, recall in the held-out city, and parameters."""
    steps = replace(settings.curriculum, training=replace(settings.curriculum.training, epochs=epochs))
    steps = variant(steps, "labels_100")
    model = new_model(settings.start)
    task = PseudoPairs(given.unlabelled, given.train.positives.best(), steps)
    with tempfile.TemporaryDirectory() as folder:
        rows = train(model, task, steps.training, Path(folder), progress=False)
    recall = evaluate(describe(model, given.test, settings.start), given.test.positives)
    return sum(row["seconds"] for row in rows), recall, sum(p.numel() for p in model.parameters())


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=45.0, help="of training, each candidate")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    base = ucvgl("laptop", asked.seed)
    given = material(base, WORLD)
    rows = []
    for backbone, pretrained, depth, rate in CANDIDATES:
        settings = with_encoder(base, backbone, pretrained, depth, rate)
        probe, _, _ = trained(settings, given, 1)
        epochs = max(2, round(asked.seconds / probe))
        begun = time.perf_counter()
        seconds, recall, parameters = trained(settings, given, epochs)
        rows.append({
            "encoder": f"{backbone}, {depth} stages", "weights": "ImageNet" if pretrained != "none" else "random",
            "learning_rate": rate,
            "parameters_of_both": parameters, "epochs": epochs, "training_s": round(seconds, 1),
            "with_evaluation_s": round(time.perf_counter() - begun, 1),
            **{name: round(value, 1) for name, value in recall.items() if name != "r_at_1_percent"},
        })  # fmt: skip
        print(rows[-1], flush=True)
    frame = pd.DataFrame(rows)
    RESULTS.mkdir(exist_ok=True)
    write_text(RESULTS / "encoders.csv", frame.to_csv(index=False, lineterminator="\n"))
    lines = [
        " | ".join(["", *map(str, row), ""]).strip() for row in [frame.columns, ["---"] * frame.shape[1], *frame.values]
    ]
    note = (
        f"# Encoders for the laptop profile\n\nAll labels given, about {asked.seconds:g} s of training each, "
        f"{len(given.train):,} pairs of {base.images.gallery_px[0]} x {base.images.gallery_px[1]} pixels of the embedded world, "
        f"seed {asked.seed}; recall among {len(given.test):,} tiles of another city. {os.cpu_count()} cores "
        f"({platform.machine()}), torch {torch.__version__}, {torch.get_num_threads()} threads.\n\n"
    )
    write_text(RESULTS / "encoders.md", note + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
