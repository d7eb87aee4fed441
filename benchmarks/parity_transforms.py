"""UCVGL's transforms beside ours, over many draws; called by parity.py, needs albumentations 1.3.1."""

import io
import math
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from official import Clone

from ucvgl import augment

SIZE, DRAWS = 384, 100  # side of a tile in pixels; draws of a transform


def transforms(clone: Clone) -> Iterator[tuple[str, str, str, bool | None]]:
    """UCVGL's satellite transforms by name, each for itself on a white image."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        (Path(folder) / "splits").mkdir()
        (Path(folder) / "splits" / "train-19zl.csv").write_text("sat/1.jpg,ground/1.jpg,none\n")
        sizes = {
            "grd_size": (SIZE, SIZE),
            "sat_size": (SIZE, SIZE),
            "mean": 0.5,
            "std": 0.5,
            "seed": 0,
            "gt_ratio": 0.0,
        }
        made = clone.get("dataset.CVUSA", "CVUSATrainIntra")(SimpleNamespace(data_folder=folder, **sizes))
    part = {type(t).__name__: t for t in made.transform_sat}
    either = {type(t).__name__: t for t in part["OneOf"].transforms}
    yield (
        "probability of dropout, placement, colour, grey, blur",
        ", ".join(f"{part[n].p:g}" for n in ("OneOf", "ShiftScaleRotate", "ColorJitter", "ToGray", "GaussianBlur")),
        ", ".join(f"{p:g}" for p in (augment.UCVGL.dropout, augment.UCVGL_PLACEMENT.probability, augment.UCVGL.jitter,
                                     augment.UCVGL.grey, augment.UCVGL.blur)), None,
    )  # fmt: skip
    generator, white = torch.Generator().manual_seed(0), np.full((SIZE, SIZE, 3), 255, np.uint8)
    dot = np.zeros((9, 9, 3), np.uint8)
    dot[4, 4] = 160
    theirs = torch.from_numpy(part["GaussianBlur"].apply(dot, ksize=3, sigma=0)[..., 0].astype(np.float32))
    apart = float((theirs - augment.blur3(torch.from_numpy(dot).permute(2, 0, 1)[None].float())[0, 0]).abs().max())
    yield "blur of a point, grey levels of 160", "3 x 3", f"largest difference {apart:.1f}", apart <= 1
    ground = {
        type(t).__name__: t for t in next(t for t in made.transform_grd if type(t).__name__ == "OneOf").transforms
    }
    for name, transform, hole in (
        ("grid, tiles", either["GridDropout"], augment.SATELLITE_HOLE),
        ("grid, panoramas", ground["GridDropout"], augment.GROUND_HOLE),
        ("rectangles", either["CoarseDropout"], None),
    ):
        black = [transform(image=white)["image"][..., 0] == 0 for _ in range(DRAWS)]
        own, places = torch.ones(DRAWS, 3, SIZE, SIZE), torch.rand(DRAWS, 5, 25, generator=generator)
        for image, place in zip(own, places, strict=True):
            if hole is None:
                augment.drop_rectangles(image, place, (SIZE, SIZE))
            else:
                augment.drop_grid(image, hole, place[:2, 0])
        yield f"dropped by {name}: part of the pixels, stripes", spread(black), spread(own[:, 0].numpy() == 0), None
    square = np.zeros_like(white)
    square[144:240, 144:240] = 255
    for name, transform, settings in (
        ("each tile", part["ShiftScaleRotate"], augment.UCVGL_PLACEMENT),
        ("second version", made.ShiftScaleRotate, augment.SECOND_VERSION),
    ):
        theirs = np.stack([transform(image=square)["image"][..., 0] for _ in range(DRAWS)]) > 127
        squares = torch.from_numpy(square).permute(2, 0, 1)[None].float().expand(DRAWS, -1, -1, -1)
        ours = augment.jitter_placement(squares, settings, generator)[:, 0].numpy() > 127
        yield f"placement of {name}: left, mean shift and scale", placed(theirs), placed(ours), None


def spread(black: Any) -> str:
    """Mean and quartiles of the part that is black, and how many stripes of it cross an image."""
    parts = np.array([image.mean() for image in black])
    stripes = np.mean([np.diff(np.pad(image.any(1).astype(int), 1)).clip(0).sum() for image in black])
    return f"{parts.mean():.3f} ({np.quantile(parts, 0.25):.3f} to {np.quantile(parts, 0.75):.3f}), {stripes:.1f}"


def placed(squares: np.ndarray) -> str:
    """How many squares of 96 px stayed, and by how much the others were moved and scaled."""
    found = [np.nonzero(image) for image in squares]
    shift = np.array([(rows.mean() - 191.5, columns.mean() - 191.5) for rows, columns in found])
    scale = np.array([math.sqrt(len(rows)) / 96 for rows, _ in found])
    stayed = (np.abs(shift) < 0.01).all(1) & (scale == 1)
    return f"{stayed.mean():.2f}; {np.abs(shift[~stayed]).mean():.1f} px; {scale[~stayed].min():.2f} to {scale[~stayed].max():.2f}"
