"""Sample4Geo's code beside ours: recall, nearest lists, an epoch's batches with hard negatives, the training step."""

import io
import random
import re
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from harness import now
from official import Clone, Differs, Pair, Row, Sizes, close, features
from torch import Tensor, nn
from training_steps import method, one_batch, trained

from ucvgl.augment import to_float
from ucvgl.encoders import EncoderConfig
from ucvgl.methods.common import device
from ucvgl.methods.sample4geo import new_model
from ucvgl.metrics import places_of, recall_at, retrieval_measures
from ucvgl.sampling import NeighbourDraw, neighbour_batches, similarity_neighbours
from ucvgl.training import TrainingConfig

KS = [1, 5, 10]
PRINTED = {"Recall@1": "r_at_1", "Recall@5": "r_at_5", "Recall@10": "r_at_10", "Recall@top1": "r_at_1_percent",
           "Hit_Rate": "hit_rate"}  # fmt: skip
LEARNING_RATE = 1e-4  # of the training step


def recall(clone: Clone, sizes: Sizes, *, vigor: bool = False, all_measures: bool = False) -> Pair:
    """Recall of one right tile each, for VIGOR with three semi-positives; the official function prints the measures."""
    scores = clone.get(f"sample4geo.evaluate.{'vigor' if vigor else 'cvusa_and_cvact'}", "calculate_scores")
    count = sizes.gallery
    query, gallery = features(count, sizes.width, 0.2)
    own = torch.arange(count)
    labels, pairs, semi = own, torch.stack([own, own], 1), None
    if vigor:
        labels = torch.stack([(own + step) % count for step in range(4)], 1)  # (Q, 4): right, then semi-positives
        query = F.normalize(query + 0.05 * gallery[labels[:, 1]])
        semi = torch.stack([own.repeat_interleave(3), labels[:, 1:].flatten()], 1)

    def official() -> dict[str, float]:
        with redirect_stdout(io.StringIO()) as text:  # Recall@5: 12.3400 - Hit_Rate: 1.0
            scores(query, gallery, labels, own, step_size=1000, ranks=KS)
        found = dict(re.findall(r"(\w+(?:@\w+)?): ([\d.]+)", text.getvalue()))
        return {PRINTED[name]: float(value) for name, value in found.items() if name in PRINTED}

    def ours() -> dict[str, float]:
        if vigor or all_measures:
            return retrieval_measures(query, gallery, pairs, semi_positives=semi, ks=KS)
        found = recall_at(places_of(query, gallery, pairs).first, [*KS, count // 100])
        return found | {"r_at_1_percent": found[f"r_at_{count // 100}"]}

    def agree(theirs: dict[str, float], ours: dict[str, float]) -> str:
        shared = theirs.keys() & ours.keys()
        what = f"{len(shared)} measures in percent (R@1 {theirs.get('r_at_1', 0):.2f})"
        if len(shared) < 4:
            raise Differs(what)
        # two queries whose similarities differ in the last bit
        return close(max(abs(theirs[name] - ours[name]) for name in shared), 100 * 2 / count, what)

    return Pair(f"{count:,} x {count:,}, {sizes.width}-D", official, ours, agree)


def nearest(clone: Clone, sizes: Sizes, *, vigor: bool = False) -> Pair:
    """The tiles most similar to each ground image, without its own."""
    search = clone.get(f"sample4geo.evaluate.{'vigor' if vigor else 'cvusa_and_cvact'}", "calculate_nearest")
    count = sizes.gallery
    query, gallery = features(count, sizes.width, 0.2)
    own = torch.arange(count)
    labels = torch.stack([(own + step) % count for step in range(4)], 1) if vigor else own

    def agree(theirs: dict[int, list[int]], ours: Tensor) -> str:
        lists = torch.from_numpy(np.array([theirs[i] for i in range(count)]))
        differ = (lists != ours).any(1).nonzero()[:, 0]
        score = [torch.einsum("qd,qkd->qk", query[differ], gallery[some[differ].long()]) for some in (lists, ours)]
        worst = float((score[0] - score[1]).abs().max()) if len(differ) else 0.0
        return close(worst, 1e-6, f"{count - len(differ):,} of {count:,} lists equal; similarities of the others")

    return Pair(
        f"{count:,} x {count:,}, {sizes.width}-D",
        lambda: search(query, gallery, labels, own, neighbour_range=sizes.draw, step_size=1000),
        lambda: similarity_neighbours(query, gallery, sizes.draw),
        agree,
    )


def shuffle(clone: Clone, sizes: Sizes) -> Pair:
    """An epoch's batches from neighbour lists."""
    dataset_class = clone.get("sample4geo.dataset.cvusa", "CVUSADatasetTrain")
    near = similarity_neighbours(*features(sizes.places, 32, 0.1), sizes.draw)
    lists = near.long().numpy() + 1  # their shuffle passes over the place with number 0
    similar = {i + 1: row.tolist() for i, row in enumerate(lists)}
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
        """Neighbours of a place in its batch, in the mean."""
        batches = items.reshape(-1, sizes.batch)
        return float(np.mean([np.isin(near.numpy()[batch], batch).sum() / len(batch) for batch in batches]))

    def agree(theirs: np.ndarray, ours: Tensor) -> str:
        whole = sizes.places // sizes.batch * sizes.batch
        for items in (theirs, ours.numpy()):
            if len(items) != whole or len(np.unique(items)) != whole:
                raise Differs(f"{len(items)} places in batches, or a place twice; {whole} expected")
        first, second = together(theirs), together(ours.numpy())
        text = f"drawn at random: {whole:,} places each, none twice; neighbours of a place in its batch, mean {first:.2f} and"
        return close(abs(first - second) / first, 0.05, f"{text} {second:.2f}")

    text = f"{sizes.places:,} places, {sizes.draw} neighbours, batches of {sizes.batch}"
    return Pair(text, official, lambda: neighbour_batches(near, sizes.batch, generator, draw)[0], agree)


def training_step(clone: Clone, sizes: Sizes) -> Pair:
    """Both loops from the same weights, on one batch again and again; each returns when its steps ended, and its mean loss."""
    loop, cuda, steps = clone.get("sample4geo.trainer", "train"), torch.cuda.is_available(), sizes.steps + 1
    criterion = clone.get("sample4geo.loss", "InfoNCE")(nn.CrossEntropyLoss(label_smoothing=0.1), device=device())
    torch.manual_seed(0)
    theirs = clone.get("sample4geo.model", "TimmModel")(sizes.model, pretrained=False, img_size=sizes.image_px)
    # theirs is mixed precision by autocast, which does nothing on a CPU
    training = TrainingConfig(epochs=1, batch_size=sizes.train_batch, learning_rate=LEARNING_RATE, weight_decay=0.0,
                              min_lr_ratio=1.0, precision="fp16" if cuda else "fp32")  # fmt: skip
    shape = (sizes.image_px, sizes.image_px)
    config = method(EncoderConfig(sizes.model, pretrained="none", pooling="head", image_px=shape), training)
    ours = new_model(config)
    ours.ground.backbone.load_state_dict(theirs.model.state_dict())
    theirs, ours = theirs.to(device()), ours.to(device())
    given = one_batch(sizes.train_batch, sizes.image_px, steps)
    mean, std = ours.ground.mean, ours.ground.std
    normal = [(to_float(side[: sizes.train_batch]) - mean) / std for side in (given.query, given.gallery)]
    settings = SimpleNamespace(verbose=False, device=device(), gpu_ids=(0,), clip_grad=None, scheduler=None)

    def official() -> tuple[list[float], float]:
        stamps: list[float] = []

        def batches() -> Iterator[tuple[Tensor, Tensor, int]]:
            for number in range(steps):
                yield *normal, number
                stamps.append(now())  # when the next one is asked for

        scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10) if cuda else None  # as its training scripts make it
        adamw = torch.optim.AdamW(theirs.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
        return stamps, float(loop(settings, theirs, batches(), criterion, adamw, scheduler=None, scaler=scaler))

    def own() -> tuple[list[float], float]:
        task, loss = trained(ours, given, config)
        return task.stamps, loss

    def agree(a: tuple[list[float], float], b: tuple[list[float], float]) -> str:
        return close(
            abs(a[1] - b[1]) / a[1], 1e-2 if cuda else 1e-3, f"mean loss of {steps} steps, relative ({a[1]:.4f})"
        )

    text = f"{sizes.model}, {sizes.train_batch} pairs of {sizes.image_px}x{sizes.image_px}"
    return Pair(text, official, own, agree, lambda found: (found[0][-1] - found[0][0]) / sizes.steps, device().type)


RECALL = "theirs counts and prints R@1, 5, 10, 1 %"
LISTS = "the 128 most similar tiles without the own; theirs makes a dict of lists, ours a matrix; most of both is one product"
ROWS = [
    Row("recall", "Sample4Geo", "calculate_scores", recall, RECALL),
    Row("recall with average precision", "Sample4Geo", "calculate_scores", partial(recall, all_measures=True),
        f"{RECALL}; ours has average precision beside it"),
    Row("recall and hit rate", "Sample4Geo", "vigor.calculate_scores", partial(recall, vigor=True),
        "3 semi-positives each; ours has average precision beside it"),
    Row("nearest lists", "Sample4Geo", "calculate_nearest", nearest, LISTS),
    Row("nearest lists, VIGOR's form", "Sample4Geo", "vigor.calculate_nearest", partial(nearest, vigor=True), LISTS),
    Row("similarity shuffle", "Sample4Geo", "CVUSADatasetTrain.shuffle", shuffle,
        "their lists hold Python integers, as in its files of distances; their sleep of 0.3 s is left out"),
    Row("training step", "Sample4Geo", "trainer.train, TimmModel, InfoNCE", training_step,
        "same weights, images in memory, AdamW without decay, no clipping; fp32 on a CPU, fp16 on a GPU; ours normalises the "
        "images in the step. The layers, which are the same, take nearly all of both"),
]  # fmt: skip
