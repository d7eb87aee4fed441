"""Recall, nearest lists and pseudo-labels from descriptors: the official functions beside `metrics`, `sampling` and
`pseudo_labels`."""

import io
import re
from contextlib import redirect_stdout
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from comparison import Pair, Row, Sizes, Verdict, features, verdict
from official import Clone
from torch import Tensor, nn

from ucvgl.metrics import ranks_of, recall_at, retrieval_measures
from ucvgl.pseudo_labels import MiningRule, PseudoLabels, select
from ucvgl.sampling import similarity_neighbours
from ucvgl.search import both_ways

KS = [1, 5, 10]
NAMES = {"Recall@1": "r_at_1", "Recall@5": "r_at_5", "Recall@10": "r_at_10", "Recall@top1": "r_at_1_percent",
         "Hit_Rate": "hit_rate"}  # fmt: skip
MINING_THRESHOLD = 0.05  # UCVGL's for CVUSA


def square(sizes: Sizes, times: int = 1) -> str:
    """The inputs in words."""
    return f"{times * sizes.gallery:,} x {times * sizes.gallery:,}, {sizes.width}-D"


def printed_recalls(text: str) -> dict[str, float]:
    """'Recall@5: 12.3400 - Hit_Rate: 1.0' -> {'r_at_5': 12.34, 'hit_rate': 1.0}."""
    return {NAMES[name]: float(value) for name, value in re.findall(r"(\w+(?:@\w+)?): ([\d.]+)", text) if name in NAMES}


def same_recalls(theirs: dict[str, float], ours: dict[str, float], queries: int) -> Verdict:
    """All measures that both have."""
    shared = [(value, ours[name]) for name, value in theirs.items() if name in ours]
    if len(shared) < 4:
        return Verdict(False, f"the official code printed {theirs or 'no recall'}")
    what = f"R@1, 5, 10, 1 %{', hit rate' if len(shared) > 4 else ''} in percent (R@1 {theirs['r_at_1']:.2f})"
    # two queries whose similarities differ in the last bit
    return verdict(max(abs(a - b) for a, b in shared), 100 * 2 / queries, what)


def recall(clone: Clone, sizes: Sizes, *, times: int = 1, vigor: bool = False, all_measures: bool = False) -> Pair:
    """Recall of one right tile each, for VIGOR with three semi-positives; the official function prints the measures."""
    scores = clone.get(f"sample4geo.evaluate.{'vigor' if vigor else 'cvusa_and_cvact'}", "calculate_scores")
    count = times * sizes.gallery
    query, gallery = features(count, sizes.width, 0.2)
    own = torch.arange(count)
    labels, pairs, semi = own, torch.stack([own, own], 1), None
    if vigor:
        labels = torch.stack([(own + step) % count for step in range(4)], 1)  # (Q, 4): right, then semi-positives
        query = F.normalize(query + 0.05 * gallery[labels[:, 1]])
        semi = torch.stack([own.repeat_interleave(3), labels[:, 1:].flatten()], 1)

    def official() -> dict[str, float]:
        with redirect_stdout(io.StringIO()) as text:
            scores(query, gallery, labels, own, step_size=1000, ranks=KS)
        return printed_recalls(text.getvalue())

    def ours() -> dict[str, float]:
        if vigor or all_measures:
            return retrieval_measures(query, gallery, pairs, semi_positives=semi, ks=KS)
        found = recall_at(ranks_of(query, gallery, own), [*KS, count // 100])
        return found | {"r_at_1_percent": found[f"r_at_{count // 100}"]}

    return Pair(square(sizes, times), official, ours, lambda a, b: same_recalls(a, b, count))


def nearest(clone: Clone, sizes: Sizes, *, times: int = 1, vigor: bool = False) -> Pair:
    """The tiles most similar to each ground image, without its own."""
    search = clone.get(f"sample4geo.evaluate.{'vigor' if vigor else 'cvusa_and_cvact'}", "calculate_nearest")
    count = times * sizes.gallery
    query, gallery = features(count, sizes.width, 0.2)
    own = torch.arange(count)
    labels = torch.stack([(own + step) % count for step in range(4)], 1) if vigor else own

    def agree(theirs: dict[int, list[int]], ours: Tensor) -> Verdict:
        lists = torch.from_numpy(np.array([theirs[i] for i in range(count)]))
        if lists.shape != ours.shape:
            return Verdict(False, f"lists of {tuple(lists.shape)} and {tuple(ours.shape)}")
        differ = (lists != ours).any(1).nonzero()[:, 0]
        score = [torch.einsum("qd,qkd->qk", query[differ], gallery[some[differ].long()]) for some in (lists, ours)]
        worst = float((score[0] - score[1]).abs().max()) if len(differ) else 0.0
        same = f"{count - len(differ):,} of {count:,} lists equal; similarities of the others"
        return Verdict(len(differ) <= 0.05 * count and worst <= 1e-6, f"{same}: largest difference {worst:.1g}")

    return Pair(
        square(sizes, times),
        lambda: search(query, gallery, labels, own, neighbour_range=sizes.draw, step_size=1000),
        lambda: similarity_neighbours(query, gallery, sizes.draw),
        agree,
    )


class AsTheyAre(nn.Module):
    """Takes the place of the encoders, where the loader holds descriptors."""

    def forward(self, ground: Tensor, satellite: Tensor) -> tuple[Tensor, Tensor]:
        """Both as they came."""
        return ground, satellite


def pseudo_labels(clone: Clone, sizes: Sizes, *, name: str) -> Pair:
    """Mutual matches with a margin, from descriptors."""
    mine = clone.get("train_crossview_sat", name)
    ground, satellite = features(sizes.gallery, sizes.width, 0.17)
    own = torch.arange(sizes.gallery)
    loader = list(zip(ground.split(256), satellite.split(256), own.split(256), strict=True))
    args = SimpleNamespace(gpu=None, print_freq=10**9, threshold=MINING_THRESHOLD, epochs=16)
    if not torch.distributed.is_initialized():  # they gather over their processes; here there is one
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)

    def agree(theirs: dict[int, int], found: PseudoLabels) -> Verdict:
        ours = {g: s for g, s in enumerate(found.satellite.tolist()) if s >= 0}
        differ = {int(g) for g, s in theirs.items() if ours.get(int(g)) != int(s)} | (ours.keys() - theirs.keys())
        # a margin at the threshold, or two ground images as near to a tile, may fall either way in the last bit
        close = sum(abs(float(found.margin[g]) - MINING_THRESHOLD) < 1e-6 for g in differ)
        clear = len(differ) - close
        text = f"{len(ours) - len(differ):,} of {len(theirs):,} labels equal"
        return Verdict(clear <= 1e-3 * len(ours) and len(ours) > 0, f"{text}, {close} at the threshold, {clear} else")

    return Pair(
        square(sizes),
        lambda: mine(loader, AsTheyAre(), args, 0),
        lambda: select(both_ways(ground, satellite, 2, 1), MiningRule(threshold=MINING_THRESHOLD)),
        agree,
    )


RECALL = "theirs counts and prints R@1, 5, 10, 1 %"
LISTS = "the 128 most similar tiles without the own; theirs makes a dict of lists, ours a matrix"
LABELS = "from descriptors: identity in the place of their encoders, gathered over one process"
ROWS = [
    Row("recall", "Sample4Geo", "calculate_scores", recall, RECALL),
    Row("recall with average precision", "Sample4Geo", "calculate_scores", partial(recall, all_measures=True),
        f"{RECALL}; ours has average precision beside it"),
    Row("recall, beyond", "Sample4Geo", "calculate_scores", partial(recall, times=2), RECALL),
    Row("recall and hit rate", "Sample4Geo", "vigor.calculate_scores", partial(recall, vigor=True),
        "3 semi-positives each; ours has average precision beside it"),
    Row("nearest lists", "Sample4Geo", "calculate_nearest", nearest, LISTS),
    Row("nearest lists, VIGOR's form", "Sample4Geo", "vigor.calculate_nearest", partial(nearest, vigor=True), LISTS),
    Row("nearest lists, beyond", "Sample4Geo", "calculate_nearest", partial(nearest, times=2), LISTS),
    Row("pseudo-labels", "UCVGL", "get_pseudo_labels", partial(pseudo_labels, name="get_pseudo_labels"), LABELS),
    Row("pseudo-labels, VIGOR's form", "UCVGL", "get_pseudo_labels_vigor",
        partial(pseudo_labels, name="get_pseudo_labels_vigor"), LABELS),
]  # fmt: skip
