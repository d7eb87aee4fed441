"""`ucvgl evaluate`: a saved encoder, or any of timm's, measured on a data set by its published protocol; nothing is trained.

Only descriptors stay in memory. Queries go through the ground encoder, tiles and databases through the satellite one; satellite
images as queries the other way round. An encoder that reads top views needs a projection: its notebook measures it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from ucvgl.data import FRAMES, PLACE_RECOGNITION, batches, detect_layout, open_dataset, splits_of
from ucvgl.data.container import Dataset
from ucvgl.encoders import EncoderConfig, TwoViewEncoder, embed, open_model, two_view_encoder
from ucvgl.errors import InputError, one_of
from ucvgl.lab.profiles import asked_px
from ucvgl.lab.sources import suggest
from ucvgl.methods.common import EMBED_BATCH, device
from ucvgl.metrics import average_precision, measures_of, places_of

DRONES, PHOTOS = ("university1652", "sues200"), (*PLACE_RECOGNITION, *FRAMES)


def open_tests(root: Path | str, layout: str = "auto", parts: Sequence[str] = ()) -> dict[str, Dataset]:
    """The parts of a data set that are there to be measured on, by their labels in `data.splits_of`; own pairs' "test". `parts`:
    other labels, as "all" of own pairs never trained on. InputError: another layout or label, absent files, no pairs."""
    name = detect_layout(root) if layout == "auto" else layout
    known = splits_of(name, Path(root))
    wanted = parts or (["test"] if name == "pairs" else [label for label in known if "train" not in label])
    known |= {"test": {"split": "test"}} if "all" in known else {}  # a part that the reader draws
    opened = {}
    for label in wanted:
        one_of("part", label, known, suggest(label, [*known]))
        swapped = known[label].get("direction") == "satellite2drone"
        opened[label] = replace(open_dataset(name, root, **known[label]), swapped=swapped)
        opened[label].require_labels("Measuring recall")
    return opened


def encoder_of(weights: Path | None, backbone: str = "", image_px: tuple[int, int] | None = None) -> TwoViewEncoder:
    """The encoders of a file of `save_model`; or one for both views: a timm backbone with its published weights and its own
    pooling, for images of the size it asks for if none is said. InputError: both or neither, a size for a file's."""
    if (weights is None) == (not backbone):
        todo = "Give one: a file that a training left, or a timm name such as convnext_base.fb_in22k_ft_in1k_384."
        raise InputError("evaluate", "--weights or --backbone", "both" if backbone else "neither", todo)
    if weights is None:
        config = EncoderConfig(backbone, "hub", pooling="head", image_px=image_px or asked_px(backbone))
        return two_view_encoder(config, config, shared=True, seed=0)
    if image_px is not None:
        raise InputError("--image-px", "it with --backbone alone", f"it with {weights}", "The file says which images.")
    return open_model(weights)


def evaluate(model: TwoViewEncoder, tests: Mapping[str, Dataset], *, ranks: Path | None = None) -> pd.DataFrame:
    """A row a part of a data set, in percent: R@k; for satellite images R@1 %, for drones AP, for VIGOR the hit rate; how many
    queries were measured, and left out for want of a right image. ranks: a CSV to write, a line a query: part, query, rank of its
    best right image from 1 (halves: ties), how many right images there are, average precision from 0 to 1."""
    model.to(device())
    views, rows, lines = [*zip((model.ground, model.satellite), model.configs, strict=True)], {}, []
    for label, data in tests.items():
        found = []  # descriptors (N, D) of the queries, and of the gallery, on the GPU if there is one
        for (encoder, config), images in zip(
            views[::-1] if data.swapped else views, (data.query, data.gallery), strict=True
        ):
            pixels = (some for _, some in batches(images, config.image_px, EMBED_BATCH))
            bar = tqdm(pixels, label, math.ceil(len(images) / EMBED_BATCH), unit="batch")
            found.append(embed(encoder, bar).to(device()))
        semi, photos = data.semi_positives and data.semi_positives.pairs(), data.name in PHOTOS
        places = places_of(*found, data.positives.pairs(), semi_positives=semi)
        measures = measures_of(places, len(data.query), len(data.gallery), (1, 5, 10, 20) if photos else (1, 5, 10))
        unused = ["r_at_1_percent"] * photos + ["ap"] * (data.name not in DRONES)
        rows[label] = {name: value for name, value in measures.items() if name not in unused}
        lines.append(pd.DataFrame({
            "part": label, "query": [data.query.ids[i] for i in places.query.tolist()], "rank": places.first.cpu() + 1,
            "right_images": places.count.cpu(), "average_precision": average_precision(places).cpu(),
        }))  # fmt: skip
    if ranks is not None:
        pd.concat(lines).to_csv(ranks, index=False)
    return pd.DataFrame(rows).T.astype({"queries": int, "left_out": int})
