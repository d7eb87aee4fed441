"""Nearest neighbours by inner product, streamed: the product of two sets is walked in blocks and never held whole.

Among equal similarities the lower index comes first, whatever the block size or the device. Equal means the same bits:
a matrix product may round a duplicate image differently in another block, so duplicates can differ in the last place.
The sets may lie in memory-mapped files (see features) in float32 or float16 and the product elsewhere: blocks are moved and
converted as they stream. Half precision is a way to store here; products are float32 unless asked for otherwise.
Where these lists come from for pseudo-labels: UCVGL, section 3.4, whose code holds two dense N x N matrices instead.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isqrt
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ucvgl.errors import InputError

CHUNK_BYTES = 64 << 20  # of similarities in a block, at most; selecting from it takes about as much again
PARTS = 16  # a block is no more than such a part of the whole product either, where that is larger than LEAST_BYTES:
LEAST_BYTES = 16 << 20  # so small searches stay small, and their blocks in the processor's cache
TALL = 256  # queries of a block in `top_k`: enough for a fast product; few, so that a row is seldom cut and selected from twice
STRIP_BYTES = 1 << 30  # of queries kept on another device while the gallery streams past them
CHECK_BYTES = 16 << 20  # of embeddings looked at together

Engine = Literal["torch", "faiss"]


@dataclass(frozen=True, eq=False)
class BothWays:
    """The nearest satellite images of N ground images and the nearest ground images of M satellite images, best first.

    Args:
        ground_score: (N, k_ground) float, similarity of ground image i and satellite image `ground_index[i, j]`.
        ground_index: (N, k_ground) int64 satellite indices.
        satellite_score: (M, k_satellite) float.
        satellite_index: (M, k_satellite) int64 ground indices.
    """

    ground_score: Tensor
    ground_index: Tensor
    satellite_score: Tensor
    satellite_index: Tensor

    def swapped(self) -> "BothWays":
        """The same lists with the roles of ground and satellite exchanged."""
        return BothWays(self.satellite_score, self.satellite_index, self.ground_score, self.ground_index)


@dataclass(frozen=True)
class InvertedLists:
    """Approximate search by faiss's IndexIVFFlat, for galleries past a few million; its copy of the gallery is in memory.

    Args:
        lists: clusters of the gallery; faiss's guide: 4 to 16 times the root of R, so 4096 for up to a million.
        probes: clusters looked at for each query, 1 to `lists`; more find more and take longer. 64 of 4096 look at about
            a 64th of the gallery.
        sample: gallery items a cluster is fitted to; faiss's guide: 30 to 256.
        seed: of the sample and of the clusters.

    Raises:
        InputError: a number out of range.
    """

    lists: int = 4096
    probes: int = 64
    sample: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("lists", self.lists, 1, None), ("probes", self.probes, 1, self.lists), ("sample", self.sample, 1, None),
            ("seed", self.seed, 0, None),
        ):  # fmt: skip
            if not isinstance(value, int) or value < least or (most is not None and value > most):
                raise InputError(
                    f"inverted lists: {name}", expected=f"{least} or more" if most is None else f"{least} to {most}",
                    found=value, todo="Give a whole number in that range.",
                )  # fmt: skip


@torch.no_grad()
def top_k(
    query: Tensor,
    gallery: Tensor,
    k: int,
    *,
    chunk_bytes: int = CHUNK_BYTES,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    engine: Engine = "torch",
    inverted: InvertedLists | None = None,
) -> tuple[Tensor, Tensor]:
    """The k gallery items with the greatest inner product with each query, best first, ties by the lower index.

    Args:
        query: (Q, D) embeddings.
        gallery: (R, D) embeddings.
        k: how many, 1 to R.
        chunk_bytes: most bytes of similarities in a block. 64 MiB suits a processor; a GPU wants 1 GiB or more.
        device: where to compute; the queries' by default.
        dtype: of the product; the embeddings' by default, float32 for half precision.
        engine: 'faiss' is exact as well, in float32: its flat index, on its GPUs where `device` is one. Sums are rounded
            otherwise there, so similarities closer than about 1e-6 may change places.
        inverted: faiss looks only at some clusters of the gallery, which is approximate; `part_found` says how good it is.

    Returns:
        similarities (Q, k) and int64 gallery indices (Q, k), on the device.

    Raises:
        InputError: embeddings of different width or with NaN or infinity; k below 1 or above R; an engine that is unknown,
            not installed, or asked for what it cannot do.
    """
    check_embeddings(query, gallery)
    check_k(k, len(gallery), "gallery images")
    device, dtype = device_of(query, device), dtype or product_dtype(query, gallery)
    if engine not in get_args(Engine):
        raise InputError("engine", expected="'torch' or 'faiss'", found=repr(engine), todo="Choose one.")
    if engine == "faiss":
        if dtype != torch.float32:
            raise InputError(
                "dtype", expected="torch.float32 for faiss", found=dtype, todo="Search with engine='torch'."
            )
        return _faiss_top_k(query, gallery, k, chunk_bytes, device, inverted)
    if inverted is not None:
        raise InputError(
            "inverted lists", expected="engine='faiss'", found="torch", todo="torch searches exactly: leave them out."
        )
    best = _empty(query, gallery, k, "gallery images", device, dtype)
    for rows, columns, product in blocks(query, gallery, chunk_bytes, device=device, dtype=dtype, tall=TALL):
        _merge(best, rows, product, columns.start)
    return best


@torch.no_grad()
def both_ways(
    ground: Tensor,
    satellite: Tensor,
    k_ground: int,
    k_satellite: int,
    *,
    chunk_bytes: int = CHUNK_BYTES,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> BothWays:
    """`top_k` of ground over satellite images and of satellite over ground images, from one pass over the product.

    Args:
        ground: (N, D) embeddings.
        satellite: (M, D) embeddings.
        k_ground: satellite images for each ground image, 1 to M.
        k_satellite: ground images for each satellite image, 1 to N.
        chunk_bytes: most bytes of similarities in a block.
        device: where to compute; that of the ground images by default.
        dtype: of the product, as in `top_k`.

    Raises:
        InputError: as `top_k`; a row of zeros, which is mutually nearest to nothing.
    """
    check_embeddings(ground, satellite, zeros=False)
    device = device_of(ground, device)
    of_ground = _empty(ground, satellite, k_ground, "satellite images", device, dtype)
    of_satellite = _empty(satellite, ground, k_satellite, "ground images", device, dtype)
    for rows, columns, product in blocks(ground, satellite, chunk_bytes, device=device, dtype=dtype):
        _merge(of_ground, rows, product, columns.start)
        _merge(of_satellite, columns, product.T, rows.start)
    return BothWays(*of_ground, *of_satellite)


def blocks(
    query: Tensor,
    gallery: Tensor,
    chunk_bytes: int = CHUNK_BYTES,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    tall: int | None = None,
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Walk the product of (Q, D) and (R, D): query rows, gallery rows and their (rows, columns) inner products.

    Blocks are as large as the bytes allow, and about square, or with `tall` no more than so many queries, where they can.
    For any query the gallery's slices ascend, and for any gallery item the queries'. On the queries' own device all of the
    gallery passes by a block of queries before the next; another device keeps STRIP_BYTES of queries meanwhile.
    """
    device, dtype = device_of(query, device), dtype or product_dtype(query, gallery)
    size = dtype.itemsize
    cells = max(1, min(chunk_bytes, max(LEAST_BYTES, len(query) * len(gallery) * size // PARTS)) // size)
    # squares where neither side fits: as few and as large products as the bytes allow
    side = isqrt(cells) if tall is None else max(isqrt(cells), cells // tall)
    width = max(1, min(len(gallery), max(side, cells // max(1, len(query)))))
    height = max(1, cells // width)
    strip = height
    if gallery.device != device:
        strip *= max(1, STRIP_BYTES // (size * max(1, height * query.shape[1])))
    for first in range(0, len(query), strip):
        held = query[first : first + strip].to(device, dtype)
        for left in range(0, len(gallery), width):
            columns = slice(left, min(left + width, len(gallery)))
            passing = gallery[columns].to(device, dtype).T
            for top in range(0, len(held), height):
                some = held[top : top + height]
                yield slice(first + top, first + top + len(some)), columns, some @ passing


def device_of(query: Tensor, device: torch.device | str | None) -> torch.device:
    """The device asked for, with its number ('cuda' is 'cuda:0', say), or else the queries'."""
    return query.device if device is None else torch.empty(0, device=device).device


def product_dtype(query: Tensor, gallery: Tensor) -> torch.dtype:
    """The dtype of a product of these: theirs, or float32 where they are stored in half precision."""
    dtype = torch.promote_types(query.dtype, gallery.dtype)
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def check_embeddings(query: Tensor, gallery: Tensor, *, zeros: bool = True) -> None:
    """Raises InputError unless these are finite (Q, D) and (R, D); and, without `zeros`, no row is all zeros."""
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        raise InputError(
            "embeddings", expected="two matrices of one width, (Q, D) and (R, D)",
            found=f"{tuple(query.shape)} and {tuple(gallery.shape)}", todo="Embed both with models of one width.",
        )  # fmt: skip
    for name, values in (("first", query), ("second", gallery)):
        check_rows(f"embeddings, {name} set", values, zeros=zeros)


def check_rows(where: object, values: Tensor, *, zeros: bool = False, first: int = 0) -> None:
    """Raises InputError unless each row of (B, D) is finite and, without `zeros`, not all zeros; looked at in slices.

    Args:
        where: what the error names.
        values: (B, D).
        zeros: whether a row may be all zeros: an inner product is defined then, a cosine is not.
        first: the number of the first row, for the error.
    """
    step = max(1, CHECK_BYTES // max(1, values.element_size() * values.shape[1]))

    def fail(bad: Callable[[Tensor], Tensor], expected: str, found: str, todo: str) -> None:
        wrong = torch.cat([bad(values[i : i + step]) for i in range(0, len(values), step)])
        if wrong.any():
            what = f"{found} in {int(wrong.sum())} of {len(values)} rows, first {first + int(wrong.int().argmax())}"
            raise InputError(where, expected=expected, found=what, todo=todo)

    for begin in range(0, len(values), step):
        # a norm is 20 times as fast as a look at every number; it may overflow or vanish where no number does
        rows = values[begin : begin + step].detach()
        length = torch.linalg.vector_norm(rows, dim=1, dtype=product_dtype(rows, rows))
        if not bool((torch.isfinite(length) & ((length > 0) | zeros)).all()):
            break
    else:
        return
    fail(lambda rows: ~torch.isfinite(rows).all(1), "finite numbers", "NaN or infinity", "Look for a diverged model.")
    if not zeros:
        fail(
            lambda rows: (rows == 0).all(1), "no row of zeros alone", "zeros", "Look for a dead layer or unfilled rows."
        )


def check_k(k: int, count: int, what: str) -> None:
    """Raises InputError unless k neighbours can be had of `count` images."""
    if count == 0:
        raise InputError(what, expected="at least one", found="none", todo="Check what was embedded.")
    if not 1 <= k <= count:
        raise InputError("k", expected=f"1 to {count}, the number of {what}", found=k, todo="Ask for fewer neighbours.")


def order_of(score: Tensor) -> Tensor:
    """(Q, k) scores -> int64 (Q, k): the columns from the best to the worst, equals in the order they stand in."""
    return score.argsort(dim=1, descending=True, stable=True)


# ------------------------------------------------------------------------------------------------------------- faiss


def part_found(found: Tensor, exact: Tensor) -> float:
    """The part of the exact neighbours that are in the lists found: the recall of approximate search, 0 to 1.

    Args:
        found: (Q, k) int64 indices.
        exact: (Q, k') int64 indices.

    Raises:
        InputError: lists of different numbers of queries, or none.
    """
    if found.ndim != 2 or exact.ndim != 2 or len(found) != len(exact) or not exact.numel():
        raise InputError(
            "lists", expected="(Q, k) and (Q, k'), not empty", found=f"{tuple(found.shape)} and {tuple(exact.shape)}",
            todo="Compare lists of the same queries.",
        )  # fmt: skip
    kept = sum(int((exact == column[:, None]).sum()) for column in found.T)
    return kept / exact.numel()


def _faiss_top_k(
    query: Tensor, gallery: Tensor, k: int, chunk_bytes: int, device: torch.device, inverted: InvertedLists | None
) -> tuple[Tensor, Tensor]:
    """`top_k` of checked embeddings by faiss, in float32, a slice of the sets at a time."""
    try:
        import faiss
        from faiss.contrib.exhaustive_search import knn_ground_truth
    except ImportError as error:
        raise InputError(
            "engine 'faiss'", expected="faiss to be installed", found=error,
            todo="Install faiss-cpu or faiss-gpu (ucvgl[cpu], ucvgl[gpu]), or search with engine='torch'.",
        ) from None  # fmt: skip
    step = max(1, chunk_bytes // (4 * max(1, query.shape[1])))
    index = None if inverted is None else _inverted_index(gallery, step, inverted)
    want = min(k + 1, len(gallery))  # one more shows a tie at the edge, where faiss may keep the higher index
    best = _empty(query, gallery, k, "gallery images", device, torch.float32)
    for first, some in _slices(query, step):
        if index is None:
            gpus = -1 if device.type == "cuda" else 0  # -1: all of them
            passing = (part for _, part in _slices(gallery, step))
            found = knn_ground_truth(some, passing, want, faiss.METRIC_INNER_PRODUCT, ngpu=gpus)
        else:
            found = index.search(some, want)
        score, place = (torch.from_numpy(values) for values in found)
        if index is not None and bool((place[:, :k] < 0).any()):
            raise InputError(
                "inverted lists: probes", expected=f"so many that {k} neighbours are found",
                found=f"{inverted.probes} of {inverted.lists}, and too few in them", todo="Probe more lists, or make fewer.",
            )  # fmt: skip
        # equals by their index
        place, order = place.sort(dim=1)
        score = score.gather(1, order)
        order = order_of(score)
        score, place = score.gather(1, order), place.gather(1, order)
        rows = slice(first, first + len(some))
        best[0][rows], best[1][rows] = score[:, :k], place[:, :k]
        tied = (score[:, k - 1] == score[:, -1]).nonzero()[:, 0] + first if want > k and index is None else []
        if len(tied):
            again = top_k(query[tied.to(query.device)], gallery, k, chunk_bytes=chunk_bytes, device=device)
            for kept, values in zip(best, again, strict=True):
                kept[tied.to(device)] = values
    return best


def _inverted_index(gallery: Tensor, step: int, settings: InvertedLists) -> Any:
    """faiss's index of the gallery, added a slice at a time."""
    import faiss

    if settings.lists > len(gallery):
        raise InputError(
            "inverted lists: lists", expected=f"1 to {len(gallery)}, the number of gallery images", found=settings.lists,
            todo="Make fewer lists, or search exactly.",
        )  # fmt: skip
    width = gallery.shape[1]
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, settings.lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.nprobe = settings.seed, settings.probes
    index.cp.min_points_per_centroid = 1  # fewer are the caller's choice: no warning past Python
    draw = torch.randperm(len(gallery), generator=torch.Generator().manual_seed(settings.seed))
    some = draw[: settings.lists * settings.sample].sort().values.to(gallery.device)
    index.train(_as_array(gallery[some]))
    for _, part in _slices(gallery, step):
        index.add(part)
    return index


def _slices(values: Tensor, step: int) -> Iterator[tuple[int, np.ndarray]]:
    """The rows as float32 in main memory, `step` at a time, with the number of the first."""
    for first in range(0, len(values), step):
        yield first, _as_array(values[first : first + step])


def _as_array(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().to("cpu", torch.float32).numpy())


# ----------------------------------------------------------------------------------------------------------- selection


def _empty(
    query: Tensor, gallery: Tensor, k: int, what: str, device: torch.device, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    check_k(k, len(gallery), what)
    shape = (len(query), k)
    score = torch.full(shape, -torch.inf, dtype=dtype or product_dtype(query, gallery), device=device)
    return score, torch.zeros(shape, dtype=torch.int64, device=device)


def _merge(best: tuple[Tensor, Tensor], rows: slice, block: Tensor, first: int) -> None:
    """Bring a block (rows, columns), whose columns begin at index `first`, into the best of these rows, in place."""
    score, index = best[0][rows], best[1][rows]  # views
    k = score.shape[1]
    # what was there has lower indices, so only a greater similarity comes in; a look at the greatest spares most rows of
    # later blocks the selection
    better = (block.amax(1) > score[:, -1]).nonzero()[:, 0]
    if not len(better):
        return
    if not block.is_contiguous():  # topk is slow on columns
        block = block.T.index_select(1, better).T.contiguous()
    elif len(better) < len(score):
        block = block.index_select(0, better)
    found = _select(block, min(k, block.shape[1]))
    # what was there stands first, so a stable sort keeps the lower index among equals
    candidates = torch.cat([score[better], block.gather(1, found)], 1)
    where = torch.cat([index[better], found + first], 1)
    order = order_of(candidates)[:, :k]
    score[better] = candidates.gather(1, order)
    index[better] = where.gather(1, order)


def _select(block: Tensor, k: int) -> Tensor:
    """The columns of each row's k greatest values, ascending; of equals at the edge, the lower ones. int64 (rows, k)."""
    width = block.shape[1]
    score, found = block.topk(min(k + 1, width), dim=1)
    if width > k:
        # topk promises no order among equals: where the k-th equals the next, choose again by index
        tied = (score[:, k] == score[:, k - 1]).nonzero()[:, 0]
        found = found[:, :k]
        if len(tied):
            some, edge = block[tied], score[tied, k - 1, None]
            places = torch.arange(width, dtype=torch.int32, device=block.device)
            key = torch.where(some > edge, width, torch.where(some == edge, -places, -width))
            found[tied] = key.topk(k, dim=1).indices
    return found.sort(dim=1).values
