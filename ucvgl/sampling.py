"""Batches with hard negatives: each drawn pair brings places along that lie near it, or that look like it.

Sample4Geo (Deuser, Habel, Oswald; ICCV 2023), section 3: geographic neighbours in the first epochs (GPS sampling), then,
refreshed every few epochs, the places whose tiles are most similar to the ground image (dynamic similarity sampling).
Differs from the published code: the place with index 0 joins like any other; distances are metres on the sphere, where
the published code handed degrees to a haversine of radians; time and memory grow in proportion to N times the length of
the lists; every draw comes from one generator.

An *item* is a pair to train on, a *place* is its tile. Several items may share a place (the panoramas of a VIGOR tile, the
drone images of a University-1652 building): `place` (N,) then names the place of each item, and neighbours are places, not
items, so that one place fills one entry of a list however many items it has. Without `place` each item is a place.

GeoPair: training pairs for place recognition from positions, and the negatives of the triplet baseline.

A query's positive is the image within 10 m that looks most alike to the encoder as it is, mined again every epoch; images
beyond 25 m are negatives; what lies between is neither. 'Random' is the pairs alone. 'Partial' adds, for each query, the
hardest of a random part of the database, as a pair of its own: two augmented views of it.

Source: VG-SSL (Xiao, Zhu, Loianno; WACV 2025), section 3; mining as in NetVLAD (Arandjelovic et al.; CVPR 2016). Ours:
places within 25 m of each other are no negatives of each other in a batch either; the published code lets them be.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from ucvgl.errors import InputError
from ucvgl.positions import Neighbours, Positions
from ucvgl.search import check_embeddings, top_k

CHUNK = 8192  # items searched at a time: a few ten MB beside the result
STEP = 512  # neighbour lists checked at a time: they fit the processor's cache
BLOCK = 64  # drawn items whose neighbours are gathered at a time; more would look up items that join meanwhile


@dataclass(frozen=True)
class NeighbourDraw:
    """Which neighbours join a drawn pair; Sample4Geo's values by default (section 3, official code).

    Args:
        range: entries of a neighbour list that are looked at; 128.
        nearest: of those, the first so many join; 32.
        drawn: so many of the others join, drawn without replacement; 32.

    Raises:
        InputError: a negative number, or more to join than looked at.
    """

    range: int = 128
    nearest: int = 32
    drawn: int = 32

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, int) or value < 0:
                raise InputError(
                    f"neighbour draw: {name}", expected="a whole number, 0 or more", found=value, todo="Give a count."
                )
        if self.nearest + self.drawn > self.range:
            raise InputError(
                "neighbour draw", expected=f"nearest + drawn of at most the range, {self.range}",
                found=f"{self.nearest} + {self.drawn}", todo="Widen the range or let fewer join.",
            )  # fmt: skip


# --------------------------------------------------------------------------------------------------------- neighbours


def geographic_neighbours(positions: Positions | None, k: int) -> Tensor:
    """The k nearest other places of each place, nearest first, equally near ones by the lower index.

    Through a tree over the distinct positions, in chunks. Places at the same position are each other's nearest. On
    WGS84 distances are rounded at about a nanometre, so only places at one position count as equally near there.

    Args:
        positions: of P places, in degrees or in metres as their frame says.
        k: neighbours of each, 1 to P - 1.

    Returns:
        int32 (P, k), half the memory of int64. For items that share places: `geographic_neighbours(...)[place]`.

    Raises:
        InputError: no positions, unknown ones, or k out of range.
    """
    if positions is None:
        raise InputError(
            "positions", expected="a position of each place", found="none",
            todo="Geographic sampling needs them: sample at random or by similarity instead.",
        )  # fmt: skip
    unknown = np.flatnonzero(~positions.known)
    if len(unknown):
        raise InputError(
            positions.where, expected="a position of each place",
            found=f"{len(unknown)} of {len(positions)} unknown, the first at index {unknown[0]}",
            todo="Complete them, leave those places out, or sample by similarity.",
        )  # fmt: skip
    count = len(positions)
    _check_k(k, count)
    # places in the order of their positions: equal ones stand together, lower index first, and near ones share the cache
    order = np.lexsort((positions.values[:, 1], positions.values[:, 0]))
    ordered = positions.values[order]
    begins = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(1)])
    spot = np.cumsum(begins) - 1  # (P,) which distinct position
    spots = _Spots(positions.take(order[begins]), np.flatnonzero(begins), order)
    out = torch.empty(count, k, dtype=torch.int32)
    for start in range(0, count, CHUNK):
        places, rows = order[start : start + CHUNK], spot[start : start + CHUNK]
        found = spots.nearest(np.arange(rows[0], rows[-1] + 1), k + 1)[rows - rows[0]]  # (chunk, k + 1)
        own = torch.from_numpy(places)
        out[own] = _without(torch.from_numpy(found), own).int()
    return out


class _Spots:
    """A tree over S distinct positions, each held by one place or several.

    Args:
        positions: (S,) distinct and known.
        first: (S,) where the places of each begin in `order`.
        order: (P,) all places, position by position, the lower index first.
    """

    def __init__(self, positions: Positions, first: np.ndarray, order: np.ndarray) -> None:
        self.positions, self.first, self.order = positions, first, order
        self.size = np.diff(first, append=len(order))  # places of each position
        self.tree = Neighbours(positions)

    def nearest(self, spots: np.ndarray, want: int) -> np.ndarray:
        """The `want` places nearest to each of Q spots, by distance and then by index; int64 (Q, want)."""
        out = np.empty((len(spots), want), np.int64)
        todo, width = np.arange(len(spots)), want + 1
        while len(todo):
            width = min(width, len(self.positions))
            near, away = self.tree.nearest(self.positions.take(spots[todo]), width)  # (q, width) each
            # further spots may be as near as the last found, so only those nearer than that are sure
            sure = np.where(away < away[:, -1:], self.size[near], 0).sum(1) >= want
            if width == len(self.positions):
                sure[:] = True
            out[todo[sure]] = self._places(near[sure], away[sure], want)
            todo, width = todo[~sure], 2 * width
        return out

    def _places(self, near: np.ndarray, away: np.ndarray, want: int) -> np.ndarray:
        """The first `want` places of (Q, W) spots at distances `away`, by distance and then by index."""
        out = np.empty((len(near), want), np.int64)
        shared = (self.size[near] > 1).any(1)
        single = ~shared
        if single.any():
            places, metres = self.order[self.first[near[single]]], away[single]
            tied = (metres[:, 1:] == metres[:, :-1]).any(1)
            ranks = np.lexsort((places[tied], metres[tied]))
            places[tied] = np.take_along_axis(places[tied], ranks, 1)
            out[single] = places[:, :want]
        for row in np.flatnonzero(shared):
            # no more spots than can hold the wanted places, equally near ones included; of each, no more than wanted
            sizes = self.size[near[row]]
            enough = np.searchsorted(np.cumsum(sizes), want)
            spots = np.flatnonzero(away[row] <= away[row, min(enough, len(sizes) - 1)])
            begins, counts = self.first[near[row, spots]], np.minimum(sizes[spots], want)
            places = np.concatenate([self.order[b : b + c] for b, c in zip(begins, counts, strict=True)])
            metres = np.repeat(away[row, spots], counts)
            out[row] = places[np.lexsort((places, metres))[:want]]
        return out


@torch.no_grad()
def similarity_neighbours(query: Tensor, reference: Tensor, k: int, *, place: Tensor | None = None) -> Tensor:
    """The k other places whose tiles are most similar to each item's ground image, the most similar first.

    Streamed through `ucvgl.search.top_k`; equal similarities by the lower index.

    Args:
        query: (N, D) embeddings of the items' ground images.
        reference: (P, D) embeddings of the places' tiles, each once.
        k: neighbours of each, 1 to P - 1.
        place: (N,) the place of each item, left out of its list; None: item i is place i, and P = N.

    Returns:
        int32 (N, k) places, on the CPU, where batches are drawn.

    Raises:
        InputError: embeddings that do not fit or are not finite, places that do not fit, or k out of range.
    """
    check_embeddings(query, reference)
    _check_k(k, len(reference))
    if place is None:
        if len(query) != len(reference):
            raise InputError(
                "embeddings", expected="as many items as places, or the place of each item",
                found=f"{len(query)} items, {len(reference)} places", todo="Pass `place`.",
            )  # fmt: skip
        own = torch.arange(len(query))
    else:
        own = _check_place(place, len(query), len(reference))
    out = torch.empty(len(query), k, dtype=torch.int32)
    for start in range(0, len(query), CHUNK):
        rows = slice(start, start + CHUNK)
        found = top_k(query[rows], reference, k + 1)[1].cpu()
        out[rows] = _without(found, own[rows]).int()
    return out


def _without(found: Tensor, own: Tensor) -> Tensor:
    """(Q, k + 1) lists without each one's own entry, or without the last where it has none; (Q, k)."""
    itself = found == own[:, None]
    last = found.shape[1] - 1
    where = torch.where(itself.any(1), itself.int().argmax(1), last)  # (Q,)
    columns = torch.arange(last)
    return found.gather(1, columns + (columns >= where[:, None]).long())


# ------------------------------------------------------------------------------------------------------------ batches


def neighbour_batches(
    neighbours: Tensor | None,
    batch_size: int,
    generator: Generator,
    draw: NeighbourDraw = NeighbourDraw(),
    *,
    place: Tensor | None = None,
    places: int | None = None,
) -> Tensor:
    """The items of one epoch in order, batch after batch: no item twice, no place twice in a batch.

    Items are drawn in random order. After each drawn item come the nearest places of its list, then those drawn from the
    rest, each with one unused item of its own (the first in the random order), as long as the batch has room. An item
    drawn while its place is in the batch waits and comes back behind the others. What fills no batch at the end is
    dropped: N modulo `batch_size` items where no place has two; where places are shared, items of fewer places than a batch
    holds, however many they are.

    Args:
        neighbours: (N, L) int32 or int64, for each item the places near it, best first, L at least `draw.range`; None: no
            neighbours join, batches are random.
        batch_size: items in a batch; 128.
        generator: the source of every random number.
        draw: how many neighbours join.
        place: (N,) int, the place of each item; None: item i is place i.
        places: how many places there are; by default as many as items, or as `place` names. Needed for random batches
            without `place`, and where the lists hold places without an item, which then never join.

    Returns:
        int64 (n,), n a multiple of `batch_size`, on the CPU.

    Raises:
        InputError: fewer places than a batch, neighbour lists that are too short, hold the item's own place or a place that
            does not exist, or tensors that do not fit each other.
    """
    return batches_with_sources(neighbours, batch_size, generator, draw, place=place, places=places)[0]


def batches_with_sources(
    neighbours: Tensor | None,
    batch_size: int,
    generator: Generator,
    draw: NeighbourDraw = NeighbourDraw(),
    *,
    place: Tensor | None = None,
    places: int | None = None,
) -> tuple[Tensor, Tensor]:
    """`neighbour_batches`, and for each of its items the drawn item as whose neighbour it joined.

    Args: as `neighbour_batches`.

    Returns:
        items int64 (n,) and sources int64 (n,); a drawn item is its own source.

    Raises:
        InputError: as `neighbour_batches`.
    """
    count, places = _check_counts(neighbours, place, places)
    of_item = None if place is None else _check_place(place, count, places).numpy()
    have = count if of_item is None else len(np.unique(of_item))
    if not 1 <= batch_size <= have:
        raise InputError(
            "batch size", expected=f"1 to {have}, the number of places", found=batch_size,
            todo="Take smaller batches: no place may stand twice in one.",
        )  # fmt: skip
    near = None if neighbours is None else _check_neighbours(neighbours, draw, places, of_item)
    order = torch.randperm(count, generator=generator, device=generator.device).cpu().numpy()
    pool = _Pool(order, of_item, places)
    items: list[int] = []
    drawn: list[int] = []
    starts: list[int] = []  # where in `items` each drawn item stands
    while len(order):
        start = 0
        while start < len(order):
            # so many that about BLOCK of them are unused: only those are gathered for
            end = start + BLOCK * count // max(1, count - len(items))
            block, start = order[start:end], end
            block = block[~pool.used_array[block]]
            for item, candidates in _with_candidates(block, near, draw, generator, pool.empty_array):
                if not pool.take(item):
                    continue
                drawn.append(item)
                starts.append(len(items))
                items.append(item)
                room = -len(items) % batch_size
                if room and candidates:
                    items += pool.take_of(candidates, room)
                if len(items) % batch_size == 0:
                    pool.close_batch(items[-batch_size:])
        order = pool.returned()
    whole = len(items) - len(items) % batch_size
    brought = np.diff(starts, append=len(items))
    # through numpy, which reads a list three times as fast as torch
    sources = np.repeat(np.array(drawn, np.int64), brought)[:whole]
    return torch.from_numpy(np.array(items[:whole], np.int64)), torch.from_numpy(sources)


def _with_candidates(
    block: np.ndarray, near: np.ndarray | None, draw: NeighbourDraw, generator: Generator, empty: np.ndarray
) -> Iterator[tuple[int, Sequence[int]]]:
    """Each item of a block with the places that may join it, in their order; those that are empty already left out."""
    if near is None or not len(block):
        yield from ((item, ()) for item in block.tolist())
        return
    candidates = near[block[:, None], _columns(len(block), draw, generator)]  # (B, nearest + drawn)
    ranked = np.sort(candidates, axis=1)
    twice = (ranked[:, 1:] == ranked[:, :-1]).any(1)
    if twice.any():
        row = ranked[twice.argmax()]
        raise InputError(
            f"neighbours of item {block[twice.argmax()]}", expected="each place once",
            found=f"place {row[1:][row[1:] == row[:-1]][0]} repeated",
            todo="Leave the repeated ones out: lists hold places, not items.",
        )  # fmt: skip
    left = ~empty[candidates]
    ends = np.cumsum(left.sum(1)).tolist()
    flat = candidates[left].tolist()
    start = 0
    for item, end in zip(block.tolist(), ends, strict=True):
        yield item, flat[start:end]
        start = end


def _columns(count: int, draw: NeighbourDraw, generator: Generator) -> np.ndarray:
    """For each of `count` drawn items the entries of its list that join: the nearest, then some of the rest.

    The rest is shuffled by sorting random numbers that carry their column in the lowest bits, so equal ones cannot occur
    and the order does not depend on how the sort is done. int64 (count, nearest + drawn).
    """
    nearest = np.broadcast_to(np.arange(draw.nearest), (count, draw.nearest))
    rest = draw.range - draw.nearest
    if not draw.drawn:
        return nearest
    bits = rest.bit_length()
    keys = torch.randint(1 << (62 - bits), (count, rest), generator=generator, device=generator.device).cpu().numpy()
    shuffled = np.sort(keys << bits | np.arange(rest), axis=1) & ((1 << bits) - 1)
    return np.concatenate([nearest, draw.nearest + shuffled[:, : draw.drawn]], axis=1)


class _Pool:
    """Which items are used, and which places are in the current batch or have no item left.

    The flags are bytes that Python reads one by one and numpy by the thousand. Where each item is a place the three are
    the same.

    Args:
        order: (N,) all items in random order, the order in which a place gives its items away.
        of_item: (N,) the place of each item, None where item i is place i.
        places: how many there are.
    """

    def __init__(self, order: np.ndarray, of_item: np.ndarray | None, places: int) -> None:
        self.used = bytearray(len(order))
        self.used_array = np.frombuffer(self.used, dtype=bool)
        self.shared = of_item is not None
        if not self.shared:
            self.closed, self.empty_array = self.used, self.used_array
            return
        self.closed = bytearray(places)  # in the current batch, or empty
        self.empty = bytearray(places)  # no item left
        self.empty_array = np.frombuffer(self.empty, dtype=bool)
        self.place = of_item.tolist()
        sizes = np.bincount(of_item, minlength=places)
        self.empty_array[sizes == 0] = True
        self.closed[:] = self.empty
        self.left = sizes.tolist()
        self.queue = order[np.argsort(of_item[order], kind="stable")].tolist()  # place by place, in random order
        self.next = (np.cumsum(sizes) - sizes).tolist()  # where in the queue each place goes on
        self.waiting: dict[int, list[int]] = {}  # items of a place that were drawn while it was in the batch
        self.back: list[int] = []  # those that may be drawn again, for the next round

    def take(self, item: int) -> bool:
        """Take a drawn item, unless it is used or its place is in the batch: then it waits."""
        if self.used[item]:
            return False
        if self.shared:
            place = self.place[item]
            if self.closed[place]:
                self.waiting.setdefault(place, []).append(item)
                return False
            self._close(place)
        self.used[item] = 1
        return True

    def take_of(self, places: Sequence[int], room: int) -> list[int]:
        """Take one item of each place that is not in the batch, in order, `room` at most."""
        closed = self.closed
        free = [place for place in places if not closed[place]][:room]
        if self.shared:
            return [self._next(place) for place in free]
        for item in free:
            closed[item] = 1
        return free

    def close_batch(self, batch: list[int]) -> None:
        """Open the batch's places again that have items left, and let one that waits come back from each.

        One is enough, since a batch takes one of a place; so no item is looked at more often than its place is used.
        """
        if not self.shared:
            return
        for place in (self.place[item] for item in batch):
            self.closed[place] = self.empty[place]
            waiting = self.waiting.get(place)
            while waiting:
                item = waiting.pop()
                if not self.used[item]:
                    self.back.append(item)
                    break

    def returned(self) -> np.ndarray:
        """The items for the next round."""
        if not self.shared:
            return np.zeros(0, np.int64)
        back, self.back = self.back, []
        return np.array(back, dtype=np.int64)

    def _next(self, place: int) -> int:
        at = self.next[place]
        while self.used[self.queue[at]]:
            at += 1
        self.next[place] = at + 1
        self.used[self.queue[at]] = 1
        self._close(place)
        return self.queue[at]

    def _close(self, place: int) -> None:
        self.closed[place] = 1
        self.left[place] -= 1
        self.empty[place] = not self.left[place]


# ------------------------------------------------------------------------------------------------------------- checks


def _check_k(k: int, places: int) -> None:
    if not 1 <= k < places:
        raise InputError(
            "k", expected=f"1 to {places - 1}, the other places of {places}", found=k,
            todo="Ask for fewer neighbours, or give more places.",
        )  # fmt: skip


def _check_counts(neighbours: Tensor | None, place: Tensor | None, places: int | None) -> tuple[int, int]:
    """How many items and how many places there are."""
    counts = {"neighbours": neighbours, "place": place}
    counts = {name: len(tensor) for name, tensor in counts.items() if tensor is not None}
    if place is None and places is not None:
        counts["places"] = places
    if len(set(counts.values())) != 1:
        raise InputError(
            "items", expected="one number of items", found=counts or "neither neighbours, place nor places",
            todo="Give tensors of one set; for random batches without `place`, the number of places.",
        )  # fmt: skip
    count = next(iter(counts.values()))
    if places is None:
        places = count if place is None else 1 + int(place.max()) if count else 0
    return count, places


def _check_place(place: Tensor, items: int, places: int) -> Tensor:
    """(N,) on the CPU as int64."""
    if place.shape != (items,) or place.is_floating_point():
        raise InputError(
            "place", expected=f"whole numbers of shape ({items},), one an item",
            found=f"{place.dtype} of shape {tuple(place.shape)}", todo="Give the place of each item.",
        )  # fmt: skip
    place = place.cpu().long()
    wrong = ((place < 0) | (place >= places)).nonzero()[:, 0]
    if len(wrong):
        raise InputError(
            f"place of item {wrong[0]}", expected=f"0 to {places - 1}", found=int(place[wrong[0]]),
            todo="Leave items without a place out; pass `places` if there are more.",
        )  # fmt: skip
    return place


def _check_neighbours(neighbours: Tensor, draw: NeighbourDraw, places: int, of_item: np.ndarray | None) -> np.ndarray:
    """The lists on the CPU; neither copied nor converted there."""
    right = neighbours.ndim == 2 and neighbours.dtype in (torch.int32, torch.int64)
    if not right or neighbours.shape[1] < draw.range:
        raise InputError(
            "neighbours", expected=f"a list of {draw.range} or more for each item, int32 or int64 (N, {draw.range})",
            found=f"{neighbours.dtype} of shape {tuple(neighbours.shape)}",
            todo=f"Search for {draw.range} neighbours, or set the draw's range and what joins to what there is.",
        )  # fmt: skip
    near = neighbours.cpu().numpy()
    unsigned = near.view(f"u{near.itemsize}")  # negative numbers are the greatest: one comparison instead of two
    own = (np.arange(len(near)) if of_item is None else of_item).astype(near.dtype)  # or numpy would widen the lists
    for start in range(0, len(near), STEP):
        rows = slice(start, start + STEP)
        lists = near[rows, : draw.range]
        same = lists == own[rows, None]
        if same.any() or unsigned[rows, : draw.range].max(initial=0) >= places:
            outside = (lists < 0) | (lists >= places)
            row, column = np.argwhere(outside | same)[0]
            expected = f"places 0 to {places - 1}" if outside[row, column] else "other places than the item's own"
            raise InputError(
                f"neighbours of item {start + row}", expected=expected, found=int(lists[row, column]),
                todo="Lists hold places, not items; leave an item's own place out; pass `places` if some have no item.",
            )  # fmt: skip
    return near


POSITIVE_M, NEGATIVE_M = 10.0, 25.0  # VG-SSL, and the place-recognition benchmarks before it
QUERY_CHUNK = 1024  # queries compared at a time


def best_positives(query: Tensor, database: Tensor, pairs: Tensor) -> Tensor:
    """The most similar of each query's positives; of equals the one named first.

    Args:
        query: (Q, D) embeddings.
        database: (M, D) embeddings.
        pairs: (P, 2) int64 rows of (query, database image): the images within 10 m, any number a query.

    Returns:
        int64 (Q,), -1 for a query without any.

    Raises:
        InputError: embeddings that do not fit, or indices outside of them.
    """
    check_embeddings(query, database)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype != torch.int64:
        raise InputError(
            "pairs", expected="int64 (P, 2), rows of (query, database image)", found=f"{pairs.dtype} {tuple(pairs.shape)}",
            todo="Give a row for each image near a query.",
        )  # fmt: skip
    for column, images in enumerate((query, database)):
        if len(pairs) and not 0 <= int(pairs[:, column].min()) <= int(pairs[:, column].max()) < len(images):
            raise InputError(
                "pairs", expected=f"indices from 0 to {len(images) - 1} in column {column}",
                found=f"{int(pairs[:, column].min())} to {int(pairs[:, column].max())}", todo="Check the pairs.",
            )  # fmt: skip
    score = torch.cat(
        [(query[p[:, 0]] * database[p[:, 1]]).sum(1) for p in pairs.split(64 * QUERY_CHUNK)] or [query.new_zeros(0)]
    )
    # by query, then the highest score first; stable, so that of equals the first named stays first
    order = score.argsort(descending=True, stable=True)
    order = order[pairs[order, 0].argsort(stable=True)]
    asked, counts = pairs[order, 0].unique_consecutive(return_counts=True)
    first = counts.cumsum(0) - counts
    best = torch.full((len(query),), -1, dtype=torch.int64)
    best[asked] = pairs[order[first], 1]
    return best


def hardest_negatives(
    query: Tensor, pool: Tensor, query_m: Tensor, pool_m: Tensor, k: int, *, radius_m: float = NEGATIVE_M
) -> Tensor:
    """The k most similar images of a pool that lie more than `radius_m` away; streamed over the queries.

    Args:
        query: (Q, D) embeddings.
        pool: (R, D) embeddings: the whole database ('full' mining), or a random part of it ('partial').
        query_m: (Q, 2) metres east and north.
        pool_m: (R, 2), in the same frame.
        k: negatives of each query.
        radius_m: how far a negative is at least; 25 m.

    Returns:
        int64 (Q, k) indices into the pool, the hardest first; -1 where there are fewer.

    Raises:
        InputError: embeddings or positions that do not fit, or k below 1.
    """
    check_embeddings(query, pool)
    if k < 1:
        raise InputError("k", expected="1 or more negatives", found=k, todo="Ask for at least one.")
    out = torch.full((len(query), k), -1, dtype=torch.int64)
    for start in range(0, len(query), QUERY_CHUNK):
        rows = slice(start, start + QUERY_CHUNK)
        near = near_mask(query_m[rows], pool_m, radius_m)
        score = (query[rows] @ pool.T).masked_fill(near, -torch.inf)
        found, index = score.topk(min(k, len(pool)), dim=1)
        out[rows, : index.shape[1]] = index.masked_fill(found == -torch.inf, -1)
    return out


def random_negatives(
    query_m: Tensor, database_m: Tensor, k: int, generator: Generator, *, radius_m: float = NEGATIVE_M
) -> Tensor:
    """k random images of the database that lie more than `radius_m` from each query; int64 (Q, k), -1 where there are fewer.

    For each query distinct. Args as `hardest_negatives`.
    """
    out = torch.full((len(query_m), k), -1, dtype=torch.int64)
    for start in range(0, len(query_m), QUERY_CHUNK):
        rows = slice(start, start + QUERY_CHUNK)
        near = near_mask(query_m[rows], database_m, radius_m)
        score = torch.rand(near.shape, generator=generator).masked_fill(near, -1.0)
        found, index = score.topk(min(k, len(database_m)), dim=1)
        out[rows, : index.shape[1]] = index.masked_fill(found < 0, -1)
    return out


def near_mask(first_m: Tensor, second_m: Tensor, radius_m: float = NEGATIVE_M) -> Tensor:
    """Which places lie within `radius_m` of each other: (A, 2) and (B, 2) metres -> bool (A, B).

    Raises:
        InputError: positions of another shape.
    """
    for places in (first_m, second_m):
        if places.ndim != 2 or places.shape[1] != 2:
            raise InputError(
                "positions", expected="metres east and north (N, 2)", found=tuple(places.shape), todo="Give both."
            )
    # differences, not a matrix product: that would lose metres at coordinates of a million
    return (first_m[:, None].double() - second_m[None].double()).square().sum(2) <= radius_m**2
