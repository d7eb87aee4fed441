"""Which pairs meet in a batch: Sample4Geo's batches of hard negatives, and VG-SSL's GeoPair.

Sample4Geo (Deuser, Habel, Oswald; ICCV 2023), section 3: each drawn pair brings its geographic neighbours along in the
first epochs (GPS sampling), then, refreshed every few epochs, visually similar hard negatives (dynamic similarity
sampling, DSS). Differs from the official code: the place with index 0 joins like any other; distances are metres, where
the code hands degrees to a haversine of radians; time and memory grow with N times the length of the lists.

An *item* is a pair to train on, a *place* is its tile. Several items may share one (panoramas of a VIGOR tile, drone
images of a University-1652 building): `place` (N,) then names each item's. Neighbours are places."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ucvgl.errors import InputError, check_fields
from ucvgl.positions import Neighbours, Positions
from ucvgl.search import top_k

CHUNK, QUERY_CHUNK = 8192, 1024  # items searched, and queries compared with all images, at a time
BLOCK = 64  # drawn items whose neighbours are gathered at a time; more would look up items that join meanwhile
POSITIVE_M, NEGATIVE_M = 10.0, 25.0  # VG-SSL, and the place-recognition benchmarks before it


@dataclass(frozen=True)
class NeighbourDraw:
    """Which neighbours join a drawn pair; the defaults are Sample4Geo's (section 3, official code)."""

    range: int = 128  # entries of a neighbour list that are looked at
    nearest: int = 32  # of those, the first so many join
    drawn: int = 32  # so many of the others join, drawn without replacement

    def __post_init__(self) -> None:
        rules = [(name, isinstance(n, int) and n >= 0, "a whole number, 0 or more") for name, n in vars(self).items()]
        rules.append(("range", self.nearest + self.drawn <= self.range, "at least nearest + drawn"))
        check_fields(self, "neighbour draw: ", "Give counts, and widen the range or let fewer join.", *rules)


def geographic_neighbours(positions: Positions | None, k: int) -> Tensor:
    """GPS sampling: the k nearest other places of each place, nearest first, equally near ones (on WGS84 those at one
    position) by the lower index: int32 (P, k), k from 1 to P - 1. InputError: missing positions, another k."""
    if positions is None or not positions.known.all():
        found = "none" if positions is None else f"{(~positions.known).sum()} of {len(positions)} unknown"
        raise InputError("positions" if positions is None else positions.where, expected="a position of each place",
                         found=found, todo="Complete them, or sample at random or by similarity.")  # fmt: skip
    _check_k(k, len(positions))
    tree = Neighbours(positions)
    out = torch.empty(len(positions), k, dtype=torch.int32)
    order = np.lexsort(positions.values.T)  # near places one after the other: they share the processor's cache
    for own in np.split(order, range(CHUNK, len(order), CHUNK)):
        rows = torch.from_numpy(own)
        out[rows] = without(torch.from_numpy(_nearest(tree, positions, own, k + 1)), rows[:, None]).int()
    return out


def _nearest(tree: Neighbours, positions: Positions, own: np.ndarray, want: int) -> np.ndarray:
    """The `want` places nearest to those with indices `own`, by distance and then by index; int64 (Q, want)."""
    out = np.empty((len(own), want), np.int64)
    todo, width = np.arange(len(own)), want + 1
    while len(todo):
        width = min(width, len(positions))
        near, metres = tree.nearest(positions.take(own[todo]), width)  # (q, width) each
        tied = (metres[:, 1:] == metres[:, :-1]).any(1)
        near[tied] = np.take_along_axis(near[tied], np.lexsort((near[tied], metres[tied])), 1)
        # places beyond the list may be as near as its last: what is nearer than that is sure
        sure = (metres[:, want - 1] < metres[:, -1]) | (width == len(positions))
        out[todo[sure]] = near[sure, :want]
        todo, width = todo[~sure], 2 * width
    return out


@torch.no_grad()
def similarity_neighbours(query: Tensor, reference: Tensor, k: int, *, place: Tensor | None = None) -> Tensor:
    """DSS: the k other places whose tiles (P, D) are most similar to each item's ground image (N, D), the most similar first,
    equals by the lower index: int32 (N, k), on the CPU, k at most P - 1. place: (N,), each item's own; None: 0 to N - 1."""
    _check_k(k, len(reference))
    own = torch.arange(len(query)) if place is None else place.cpu()
    out = torch.empty(len(query), k, dtype=torch.int32)
    for rows in torch.arange(len(query)).split(CHUNK):
        out[rows] = without(top_k(query[rows], reference, k + 1)[1].cpu(), own[rows, None]).int()
    return out


def without(lists: Tensor, places: Tensor) -> Tensor:
    """Lists (Q, k + m) without m places each (Q, m), -1 for none, its last entries where it lacks some of them; (Q, k)."""
    left = (lists[:, :, None] != places[:, None]).all(2)
    k = lists.shape[1] - places.shape[1]
    return lists[left & (left.cumsum(1) <= k)].view(len(lists), k)


def _check_k(k: int, places: int) -> None:
    if not 1 <= k < places:
        expected = f"1 to {places - 1}, the other places of {places}"
        raise InputError("k", expected, found=k, todo="Ask for fewer neighbours, or give more places.")


def neighbour_batches(
    neighbours: Tensor | None, batch_size: int, generator: Generator, draw: NeighbourDraw = NeighbourDraw(), *,
    place: Tensor | None = None, places: int | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The items of one epoch in order, batch after batch, and the drawn item that brought each along; int64 (n,), on the CPU.

    No item comes twice, no place twice in a batch. Items are drawn in random order. After each drawn item come the
    nearest places of its list, then those drawn from the rest, each with one unused item of its own (the first in the
    random order), as long as the batch has room. An item drawn while its place is in the batch waits and comes back
    behind the others. What fills no batch at the end is dropped.

    neighbours: (N, L) int32 or int64, for each item the places near it, best first, none twice, L at least `draw.range`;
    None: batches are random. batch_size: 128 in the paper; InputError for more than there are places. place: (N,) int, the
    place of each item; None: item i is place i. places: how many there are, where neither lists nor `place` tell."""
    if place is None:
        place = torch.arange(places if neighbours is None else len(neighbours))
    of_item, near = place.cpu().numpy(), None if neighbours is None else neighbours.cpu().numpy()
    count, sizes = len(of_item), np.bincount(of_item, minlength=places or 0)  # items in all, and of each place
    have = np.count_nonzero(sizes)
    if not 1 <= batch_size <= have:
        raise InputError("batch size", expected=f"1 to {have}, the number of places", found=batch_size,
                         todo="Take smaller batches: no place may stand twice in one.")  # fmt: skip
    order = torch.randperm(count, generator=generator, device=generator.device).cpu().numpy()
    pool, batches, sources = _Pool(order, of_item, sizes), [], []
    while len(order):
        start = 0
        while start < len(order):
            # so many that about BLOCK of them are unused: only those are gathered for
            end = start + BLOCK * count // max(1, count - len(sources))
            block, start = pool.unused(order[start:end]), end
            joining = _candidates(block, near, draw, generator, pool.empty)
            for item, candidates in zip(block.tolist(), joining, strict=True):
                sources += [item] * pool.take(item, candidates, batch_size)
                if len(pool.batch) == batch_size:
                    batches.append(pool.close_batch())
        order, pool.back = np.array(pool.back, np.int64), []
    items = np.concatenate(batches)
    assert np.bincount(items).max() == 1, "a place stands twice in a list of neighbours"
    return torch.from_numpy(items), torch.tensor(sources[: len(items)])


def _candidates(
    block: np.ndarray, near: np.ndarray | None, draw: NeighbourDraw, generator: Generator, empty: np.ndarray
) -> list[list[int]]:
    """For each of B drawn items the places that may join it, in their order, those without an unused item left out."""
    if near is None:
        return [[]] * len(block)
    candidates = near[block[:, None], _columns(len(block), draw, generator)]  # (B, nearest + drawn)
    left = ~empty[candidates]
    ends = np.cumsum(left.sum(1)).tolist()
    flat = candidates[left].tolist()
    return [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _columns(count: int, draw: NeighbourDraw, generator: Generator) -> np.ndarray:
    """The entries of its list that join each of `count` drawn items, the nearest, then some: int64 (count, nearest + drawn)."""
    nearest = np.broadcast_to(np.arange(draw.nearest), (count, draw.nearest))
    if not draw.drawn:
        return nearest
    rest = draw.range - draw.nearest
    bits = rest.bit_length()  # shuffled by sorting random numbers that carry their column in the lowest bits
    keys = torch.randint(1 << (62 - bits), (count, rest), generator=generator, device=generator.device).cpu().numpy()
    shuffled = np.sort(keys << bits | np.arange(rest), axis=1) & ((1 << bits) - 1)
    return np.concatenate([nearest, draw.nearest + shuffled[:, : draw.drawn]], axis=1)


class _Pool:
    """The unused items of each place, and the places of the current batch.

    A closed place is in the current batch, or has no item left; all are brought up to date together, when the batch is full.
    A place gives its items away in `order` (N,); `of_item` (N,) is the place of each item, `sizes` (P,) their number."""

    def __init__(self, order: np.ndarray, of_item: np.ndarray, sizes: np.ndarray) -> None:
        self.place, self.batch = of_item.tolist(), []
        self.closed = bytearray(sizes == 0)  # bytes, which Python reads faster one by one than an array
        self.used, self.left, self.empty = np.zeros(len(order), bool), sizes, sizes == 0
        # place by place, in random order; numbers that carry their rank sort several times as fast as by argsort
        self.queue = order[np.sort(of_item[order] * len(order) + np.arange(len(order))) % len(order)]
        self.next = np.cumsum(sizes) - sizes  # where in the queue the unused items of each place begin
        self.chosen = self.queue[np.minimum(self.next, len(order) - 1)]  # (P,) the item that each place gives next
        self.waiting: dict[int, list[int]] = {}  # items of a place that were drawn while it was in the batch
        self.back: list[int] = []  # those that may be drawn again, for the next round

    def unused(self, items: np.ndarray) -> np.ndarray:
        """Those of the items that are not used."""
        self.used[self.chosen[self.batch]] = True
        return items[~self.used[items]]

    def take(self, item: int, candidates: list[int], size: int) -> int:
        """Take a drawn item, and one of each open candidate place, into a batch of `size`; how many, 0 if it has to wait."""
        closed, place = self.closed, self.place[item]
        if closed[place] or self.used[item]:
            if not self.empty[place]:
                self.waiting.setdefault(place, []).append(item)
            return 0
        closed[place], self.chosen[place] = 1, item
        free = [place for place in candidates if not closed[place]][: size - len(self.batch) - 1]
        for place in free:
            closed[place] = 1
        self.batch += (self.place[item], *free)
        return 1 + len(free)

    def close_batch(self) -> np.ndarray:
        """The items of the batch. Its places that have items left open again, and one that waits comes back from each."""
        places, self.batch = np.array(self.batch), []
        items = self.chosen[places]
        self.used[items] = True
        left = self.left[places] - 1
        self.left[places], self.empty[places] = left, left == 0
        for place in places[left > 0].tolist():
            self.closed[place] = 0
            while self.used[self.queue[self.next[place]]]:
                self.next[place] += 1
            self.chosen[place] = self.queue[self.next[place]]
            # one that waits is enough, as a batch takes one of a place: time stays linear
            waiting = self.waiting.get(place, [])
            while waiting and self.used[waiting[-1]]:
                waiting.pop()
            if waiting:
                self.back.append(waiting.pop())
        return items


# GeoPair: VG-SSL (Xiao, Zhu, Loianno; WACV 2025), section 3. A query's positive is the image within 10 m that is nearest
# by the Euclidean distance of what the loss compares; images beyond 25 m are negatives. Ours: places within 25 m of each
# other are no negatives in a batch either (`near_mask`), and a positive looks the way of its query (`same_way`).


def same_way(query_deg: np.ndarray | None, database_deg: np.ndarray | None, pairs: Tensor) -> Tensor:
    """Bool (P,): which of int64 (P, 2) pairs look the same way, within 45 degrees; (Q,) and (M,) headings, NaN or None: all."""
    if query_deg is None or database_deg is None:
        return torch.ones(len(pairs), dtype=torch.bool)
    apart = query_deg[pairs[:, 0]] - database_deg[pairs[:, 1]]
    return ~torch.from_numpy(np.abs((apart + 180) % 360 - 180) > 45)


def best_positives(query: Tensor, database: Tensor, pairs: Tensor) -> Tensor:
    """The nearest of each query's positives, of equals the first named: int64 (Q,), -1 without any; from embeddings (Q, D)
    and (M, D), and int64 (P, 2) rows of (query, image within 10 m)."""
    parts = pairs.split(64 * QUERY_CHUNK)
    score = torch.cat([-(query[p[:, 0]] - database[p[:, 1]]).square().sum(1) for p in parts])  # (P,)
    # by query, then the highest score first; stable, so that of equals the first named stays first
    order = score.argsort(descending=True, stable=True)
    order = order[pairs[order, 0].argsort(stable=True)]
    queries, counts = pairs[order, 0].unique_consecutive(return_counts=True)
    best = torch.full((len(query),), -1)
    best[queries] = pairs[order[counts.cumsum(0) - counts], 1]
    return best


def hardest_negatives(query: Tensor, pool: Tensor, query_m: Tensor, pool_m: Tensor, k: int) -> Tensor:
    """The k images of a pool nearest to each query and more than 25 m away: int64 (Q, k), -1 where there are fewer;
    from (Q, D) and (R, D) embeddings and (Q, 2) and (R, 2) metres, the hardest first; the pool is the whole database
    ('full' mining), or a random part of it ('partial')."""
    chunks = zip(query.split(QUERY_CHUNK), query_m.split(QUERY_CHUNK), strict=True)
    half = pool.square().sum(1) / 2  # |q - p|^2 = |q|^2 + 2 (|p|^2 / 2 - q p): the query's own length changes no order
    return torch.cat([_far(rows @ pool.T - half, near_mask(rows_m, pool_m), k) for rows, rows_m in chunks])


def random_negatives(query_m: Tensor, database_m: Tensor, k: int, generator: Generator) -> Tensor:
    """k distinct random images that lie more than 25 m from each query; arguments and result of `hardest_negatives`."""
    near = (near_mask(rows_m, database_m) for rows_m in query_m.split(QUERY_CHUNK))
    return torch.cat([_far(torch.rand(mask.shape, generator=generator), mask, k) for mask in near])


def _far(score: Tensor, near: Tensor, k: int) -> Tensor:
    """The k columns of the highest score in each row, leaving out near ones; (q, k), -1 where there are fewer."""
    highest, index = score.masked_fill(near, -torch.inf).topk(min(k, score.shape[1]), dim=1)
    return F.pad(index.masked_fill(highest == -torch.inf, -1), (0, k - index.shape[1]), value=-1)


def near_mask(first_m: Tensor, second_m: Tensor) -> Tensor:
    """Which places lie within 25 m of each other: (A, 2) and (B, 2) metres -> bool (A, B)."""
    # differences, not a matrix product: that would lose metres at coordinates of a million
    return (first_m[:, None].double() - second_m[None].double()).square().sum(2) <= NEGATIVE_M**2
