"""An epoch's batches with hard negatives: Sample4Geo's shuffle over lists beside `sampling.neighbour_batches`."""

import random
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from comparison import Pair, Row, Sizes, Verdict, features
from official import Clone
from torch import Tensor

from ucvgl.sampling import NeighbourDraw, neighbour_batches, similarity_neighbours


def shuffle(clone: Clone, sizes: Sizes, *, plain: bool) -> Pair:
    """From neighbour lists; plain: of Python's integers, else as calculate_nearest leaves them."""
    dataset_class = clone.get("sample4geo.dataset.cvusa", "CVUSADatasetTrain")
    near = similarity_neighbours(*features(sizes.places, 32, 0.1), sizes.draw)
    lists = near.long().numpy() + 1  # their shuffle passes over the place with number 0
    similar = {i + 1: row.tolist() if plain else list(row) for i, row in enumerate(lists)}
    with tempfile.TemporaryDirectory() as folder:  # its pictures are never read
        (Path(folder) / "splits").mkdir()
        lines = [f"map/{i}.jpg,pano/{i}.jpg,anno/{i}.png" for i in range(1, sizes.places + 1)]
        (Path(folder) / "splits" / "train-19zl.csv").write_text("\n".join(lines) + "\n")
        dataset = dataset_class(folder, shuffle_batch_size=sizes.batch)
    generator = torch.Generator().manual_seed(0)
    random.seed(0)
    draw = NeighbourDraw(sizes.draw, sizes.draw // 4, sizes.draw // 4)

    def official() -> np.ndarray:
        dataset.shuffle(similar, neighbour_select=sizes.draw // 2, neighbour_range=sizes.draw)
        return np.array(dataset.samples) - 1

    def together(items: np.ndarray) -> float:
        batches = items.reshape(-1, sizes.batch)
        return float(np.mean([np.isin(near.numpy()[batch], batch).sum() / len(batch) for batch in batches]))

    def agree(theirs: np.ndarray, found: Tensor) -> Verdict:
        both, whole = (theirs, found.numpy()), sizes.places // sizes.batch * sizes.batch
        if any(len(items) != whole or len(np.unique(items)) != whole for items in both):
            sizes_found = " and ".join(str(len(items)) for items in both)
            return Verdict(False, f"{sizes_found} places in batches, or a place twice; {whole} expected")
        first, second = (together(items) for items in both)
        text = f"drawn at random: {whole:,} places each, none twice; neighbours of a place in its batch, mean"
        return Verdict(abs(first - second) <= 0.05 * max(first, second), f"{text} {first:.2f} and {second:.2f}")

    text = f"{sizes.places:,} places, {sizes.draw} neighbours, batches of {sizes.batch}"
    return Pair(text, official, lambda: neighbour_batches(near, sizes.batch, generator, draw), agree)


ROWS = [
    Row(f"similarity shuffle, {kind} integers", "Sample4Geo", "CVUSADatasetTrain.shuffle",
        partial(shuffle, plain=kind == "Python"), f"their lists hold {kind} integers, {where}; their sleep of 0.3 s is left out")
    for kind, where in (("numpy", "as calculate_nearest leaves them"), ("Python", "as in its files of distances"))
]  # fmt: skip
